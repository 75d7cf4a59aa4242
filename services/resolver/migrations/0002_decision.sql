-- What a batch decides, as one array of rows: an array per column costs the client twice as much, and JSON the server.
CREATE TYPE decision AS (
    leg_at         timestamptz,
    message_id     uuid,
    cycle          integer,
    leg            integer,
    decided_at     timestamptz,
    gateway        text,
    phone          text,
    person_name    text,
    source_address text,
    encoding       text,
    segments       integer,
    status         text,
    reason_code    text,
    reason_words   text
);
