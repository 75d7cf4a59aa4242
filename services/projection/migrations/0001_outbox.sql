-- The journal: every event once, without number and text. History is read from it, and `messages` can be folded from it anew.
CREATE TABLE events (
    message_id uuid NOT NULL,
    event_id uuid NOT NULL,
    topic text COLLATE "C" NOT NULL,
    body bytea NOT NULL, -- MessagePack: the event less what the other columns say
    PRIMARY KEY (message_id, event_id)
) PARTITION BY RANGE (message_id);
CREATE TABLE events_default PARTITION OF events DEFAULT;

-- One row per message: its fold, and of the fold's view what is filtered by. Answers are made from `fold`.
-- The key begins with the tenant, so that one index serves reads by id and a tenant's pages. Nothing that changes is indexed: updates stay
-- within their page (HOT).
CREATE TABLE messages (
    tenant text COLLATE "C" NOT NULL,
    message_id uuid NOT NULL,
    kind text COLLATE "C" NOT NULL,
    person text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    gateway text COLLATE "C",
    tags text[] NOT NULL,
    fold bytea NOT NULL,
    version integer NOT NULL, -- how often the row was written: whoever folds it further says from which version on
    PRIMARY KEY (tenant, message_id)
) PARTITION BY RANGE (message_id);
CREATE INDEX messages_person ON messages (tenant, kind, person, message_id);
CREATE TABLE messages_default PARTITION OF messages DEFAULT WITH (fillfactor = 50);

-- A batch's rows as one parameter: an array per column would cost the client twice as much.
CREATE TYPE message_row AS (
    tenant text, message_id uuid, kind text, person text, status text, gateway text, tags text[], fold bytea, version integer
);

-- All personal data of the outbox: a person is erased by a deletion here. Rows are only ever inserted: the text under cycle 0 and leg 0,
-- number and name under the leg in which they were looked up.
CREATE TABLE personal (
    message_id uuid NOT NULL,
    cycle integer NOT NULL,
    leg integer NOT NULL,
    phone text COLLATE "C",
    person_name text,
    text text,
    PRIMARY KEY (message_id, cycle, leg)
) PARTITION BY RANGE (message_id);
CREATE INDEX personal_phone ON personal (phone, message_id) WHERE phone IS NOT NULL;
CREATE TABLE personal_default PARTITION OF personal DEFAULT;

-- How far each partition of each topic is folded in; written in the transaction that does so. To fold all anew: stop the service, then delete the rows.
CREATE TABLE offsets (
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);
