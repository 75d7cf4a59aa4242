-- Cancellations, kept also for messages that were not seen yet: whatever is decided about such a message next ends it.
CREATE TABLE marks (
    message_id uuid        NOT NULL,
    cycle      integer     NOT NULL,
    marked_at  timestamptz NOT NULL,
    PRIMARY KEY (message_id, cycle)
);
