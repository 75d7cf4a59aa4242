-- Who may be written to, as last known. A deletion stays as a tombstone, so that an older change can't bring the person back.
CREATE TABLE contacts (
    tenant        text        COLLATE "C" NOT NULL,
    kind          text        COLLATE "C" NOT NULL,
    id            text        COLLATE "C" NOT NULL,
    phone         text        COLLATE "C",            -- E.164
    phone_problem text        COLLATE "C",            -- why the number that came can't be used
    name          text        COLLATE "C",
    changed_at    timestamptz NOT NULL,
    deleted       boolean     NOT NULL,
    PRIMARY KEY (tenant, kind, id),
    CHECK (phone IS NULL OR phone_problem IS NULL),
    CHECK (NOT deleted OR num_nonnulls(phone, phone_problem, name) = 0)
);

-- What was decided for one leg of a message, and of that only what its cause does not say. Either it goes out through a
-- gateway, or it ends here with a status. Kept longer than the topics: a replay repeats these rows and decides nothing anew.
CREATE TABLE decisions (
    leg_at         timestamptz NOT NULL,
    message_id     uuid        NOT NULL,
    cycle          integer     NOT NULL,
    leg            integer     NOT NULL,
    decided_at     timestamptz NOT NULL,
    gateway        text        COLLATE "C",
    phone          text        COLLATE "C",
    person_name    text        COLLATE "C",
    source_address text        COLLATE "C",
    encoding       text        COLLATE "C",
    segments       integer,
    status         text        COLLATE "C",
    reason_code    text        COLLATE "C",
    reason_words   text        COLLATE "C",
    PRIMARY KEY (leg_at, message_id, cycle, leg),
    CHECK (CASE WHEN status IS NULL THEN num_nulls(gateway, phone, encoding, segments) = 0
                ELSE num_nulls(reason_code, reason_words) = 0 END)
) PARTITION BY RANGE (leg_at);

CREATE TABLE decisions_default PARTITION OF decisions DEFAULT;
