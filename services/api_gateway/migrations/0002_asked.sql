-- What was first asked about a message, so that whoever asks again, at any replica, publishes the very same event. Kept 7 days.
CREATE TABLE asked (
    message_id  uuid        NOT NULL,
    cycle       integer     NOT NULL,  -- of a resend: the one that it opens
    what        text COLLATE "C" NOT NULL,
    asked_at    timestamptz NOT NULL,
    asked_by    text        NOT NULL,
    traceparent text        NOT NULL,
    PRIMARY KEY (message_id, cycle, what)
);
CREATE INDEX asked_asked_at ON asked (asked_at);

-- A bulk call reserves its key like a single message: `message_id` is the batch's id, `number` its first number, and `event` what its
-- events have in common beside the body, which a repeat brings along; `topic` is empty.
COMMENT ON TABLE idempotency_keys IS 'One row per Idempotency-Key: of a message, or of a batch (topic is empty).';
