-- One row per deferral: it waits (settled_at is null), it is leaving (and leaving_until is set), or it is settled with an outcome.
-- Settled rows stay, so that an event that comes again finds them. Not partitioned: a row lies up to a year ahead of what is
-- due now, and those that are kept are small.
CREATE TABLE entries (
    message_id    uuid        NOT NULL,
    cycle         integer     NOT NULL,
    leg           integer     NOT NULL,
    due_at        timestamptz NOT NULL, -- also the time of the leg that begins then
    tenant        text        COLLATE "C" NOT NULL,
    kind          text        COLLATE "C" NOT NULL,
    person        text        COLLATE "C" NOT NULL,
    traceparent   text        COLLATE "C",
    leaving_until timestamptz,          -- whoever took it publishes it before then, or another does
    settled_at    timestamptz,
    outcome       text        COLLATE "C" CHECK (outcome IN ('returned', 'cancelled', 'rejected')),
    PRIMARY KEY (message_id, cycle, leg),
    CHECK ((settled_at IS NULL) = (outcome IS NULL))
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);

-- What is published when an entry is due; gone once it is settled, and with it all that is personal. Apart, so that a change of
-- state writes some 150 octets and not the whole message again.
CREATE TABLE events (
    message_id uuid    NOT NULL,
    cycle      integer NOT NULL,
    leg        integer NOT NULL,
    event      bytea   NOT NULL,
    PRIMARY KEY (message_id, cycle, leg)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- In the order in which they leave. To take a row changes no column of it, so that the row stays where it is (HOT).
CREATE INDEX entries_due ON entries (due_at, message_id, cycle, leg) WHERE settled_at IS NULL;

-- Cancellations, kept also for messages that were not seen yet.
CREATE TABLE marks (
    message_id uuid        NOT NULL,
    cycle      integer     NOT NULL,
    marked_at  timestamptz NOT NULL,
    PRIMARY KEY (message_id, cycle)
);

-- What a batch brings, as one array of rows: an array per column costs the client twice as much.
CREATE TYPE arrival AS (
    message_id  uuid,
    cycle       integer,
    leg         integer,
    due_at      timestamptz,
    tenant      text,
    kind        text,
    person      text,
    traceparent text
);
