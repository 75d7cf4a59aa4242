-- The trace of the message, so that what is told of it later belongs to that trace (docs/decisions/0009). Null: none was known, or the row
-- is older than the column.
ALTER TABLE provider_ids ADD COLUMN trace_id uuid;
ALTER TABLE doubts ADD COLUMN trace_id uuid;
ALTER TABLE unreported ADD COLUMN trace_id uuid;

-- In place of `registration`, which stays as it is: replicas of the older release, which are replaced one after the other, go on using it.
CREATE TYPE traced_registration AS (
    gateway       text,
    provider_id   text,
    reuse         integer,
    message_id    uuid,
    cycle         integer,
    leg           integer,
    leg_at        timestamptz,
    part          integer,
    parts         integer,
    try_number    integer,
    tenant        text,
    kind          text,
    person        text,
    destination   bytea,
    trace_id      uuid,
    registered_at timestamptz,
    resolved_by   text
);
