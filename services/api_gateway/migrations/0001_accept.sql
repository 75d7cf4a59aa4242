-- One row per request with an Idempotency-Key, kept 24 hours. `event` and `record_key` hold what is to be published,
-- number and text included, until it is; from then on they are null, which is what "published" means here.
CREATE TABLE idempotency_keys (
    key         text COLLATE "C" PRIMARY KEY,  -- tenant/name of the API key/Idempotency-Key
    body_hash   bytea       NOT NULL,
    message_id  uuid        NOT NULL,
    number      bigint      NOT NULL,
    topic       text        NOT NULL,
    record_key  bytea,
    event       bytea,
    reserved_at timestamptz NOT NULL DEFAULT now(),
    claimed_at  timestamptz NOT NULL DEFAULT now()  -- when someone last set out to publish it
) WITH (fillfactor = 80);  -- room in each page for the update that empties the event

CREATE INDEX idempotency_keys_reserved_at ON idempotency_keys (reserved_at);

-- A value opens the block of the 10,000 numbers that begin there; the last block ends below 2^53.
CREATE SEQUENCE message_numbers INCREMENT BY 10000 START WITH 1 MAXVALUE 9007199254730992;
