-- What a batch registers, as one array of rows: an array per column costs the client twice as much.
CREATE TYPE registration AS (
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
    registered_at timestamptz,
    resolved_by   text
);
