-- What a batch settles, as one array of rows: an array per column costs the client twice as much.
CREATE TYPE settlement AS (
    leg_at       timestamptz,
    message_id   uuid,
    cycle        smallint,
    leg          smallint,
    part         smallint,
    try          smallint,
    outcome      text,
    observed_at  timestamptz,
    provider_id  text,
    reason_code  text,
    reason_words text
);
