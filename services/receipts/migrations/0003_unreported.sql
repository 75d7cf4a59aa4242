-- What the sweep of the never reported needs (docs/decisions/0009). The indexes are for it and for the deletion of old rows: rows come in
-- the order of their time, so a summary per block range is enough, and an insert hardly notices it.
CREATE INDEX provider_ids_registered ON provider_ids USING brin (registered_at) WITH (autosummarize = on);
CREATE INDEX parked_observed ON parked USING brin (observed_at) WITH (autosummarize = on);

-- Which ids of a slot of time had their final receipt: many to a row, since a row for each would cost as much as the receipt itself.
CREATE TABLE reported (
    gateway      text   COLLATE "C" NOT NULL,
    slot         bigint NOT NULL,                -- of registered_at: whole five minutes since 1970
    provider_ids text   COLLATE "C" NOT NULL     -- each followed by U+001F, but for the last
);
CREATE INDEX reported_slot ON reported (gateway, slot);

-- The next slot of each gateway that the sweep looks at.
CREATE TABLE sweeps (
    gateway   text   COLLATE "C" PRIMARY KEY,
    next_slot bigint NOT NULL
);

-- Attempts that the sweep has ended as unknown, until that is published.
CREATE TABLE unreported (
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
    gateway     text        COLLATE "C" NOT NULL,
    provider_id text        COLLATE "C",            -- null: it was in doubt
    ended_at    timestamptz NOT NULL,               -- the end of its window
    PRIMARY KEY (message_id, cycle, leg, part, try_number)
);
