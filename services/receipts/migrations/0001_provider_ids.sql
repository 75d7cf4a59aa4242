-- Which attempt a carrier means by an id. A row without message_id stands for an id that only a receipt has named so far.
-- `reuse` counts how often the carrier has given the id anew; the row of reuse 0 is the lock of its id. Not partitioned: the
-- id must be unique by itself (docs/decisions/0009).
CREATE TABLE provider_ids (
    gateway       text        COLLATE "C" NOT NULL,
    provider_id   text        COLLATE "C" NOT NULL,
    reuse         integer     NOT NULL,
    message_id    uuid,
    cycle         integer,
    leg           integer,
    leg_at        timestamptz,
    part          integer,
    parts         integer,
    try_number    integer,
    tenant        text        COLLATE "C",
    kind          text        COLLATE "C",
    person        text        COLLATE "C",
    destination   bytea,                                -- fingerprint of the number; null: not known
    registered_at timestamptz,                          -- observed_at of what named the id
    resolved_by   text        COLLATE "C",              -- the receipt that named it, where a doubt was resolved
    parked        boolean     NOT NULL DEFAULT false,   -- on reuse 0: there may be parked receipts for the id
    PRIMARY KEY (gateway, provider_id, reuse),
    CHECK (num_nulls(message_id, cycle, leg, leg_at, part, parts, try_number, tenant, kind, person, registered_at) IN (0, 11))
);

-- Receipts that found no attempt. They are kept when one turns up, so that whatever brings them back is answered alike.
CREATE TABLE parked (
    gateway      text        COLLATE "C" NOT NULL,
    provider_id  text        COLLATE "C" NOT NULL,
    receipt_id   text        COLLATE "C" NOT NULL,     -- the id of the receipt's event
    state        text        COLLATE "C" NOT NULL,
    error        text,
    carrier_time text,
    observed_at  timestamptz NOT NULL,
    reference    integer,
    destination  bytea,
    traceparent  text,
    matched      boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (gateway, provider_id, receipt_id)
);
CREATE INDEX parked_references ON parked (gateway, reference, destination) WHERE reference IS NOT NULL AND destination IS NOT NULL;
CREATE INDEX parked_unmatched ON parked (gateway, observed_at) WHERE NOT matched;

-- Attempts of which nobody knows whether the carrier took them; `provider_id` is set once that is known.
CREATE TABLE doubts (
    gateway     text        COLLATE "C" NOT NULL,
    reference   integer     NOT NULL,                  -- user_message_reference, SMPP 3.4 §5.3.2.17: 16 bits, used again and again
    message_id  uuid        NOT NULL,
    cycle       integer     NOT NULL,
    leg         integer     NOT NULL,
    leg_at      timestamptz NOT NULL,
    part        integer     NOT NULL,
    parts       integer     NOT NULL,
    try_number  integer     NOT NULL,
    tenant      text        COLLATE "C" NOT NULL,
    kind        text        COLLATE "C" NOT NULL,
    person      text        COLLATE "C" NOT NULL,
    destination bytea       NOT NULL,
    doubted_at  timestamptz NOT NULL,
    provider_id text        COLLATE "C",
    PRIMARY KEY (message_id, cycle, leg, part, try_number)
);
CREATE INDEX doubts_open ON doubts (gateway, reference, destination) WHERE provider_id IS NULL;
