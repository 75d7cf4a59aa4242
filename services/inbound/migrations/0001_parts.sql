-- What handsets sent, part by part, each event once and as it came. All of it is personal data, and it is kept nowhere else:
-- a person is forgotten by deleting the rows of their number. A message is the rows with one message_id, which is made from the
-- part that was stored first (`opens`): its time, as a UUIDv7 has it, and a hash of its event id.
CREATE TABLE parts (
    message_id    uuid        NOT NULL,
    event_id      text        COLLATE "C" NOT NULL,
    opens         boolean     NOT NULL,
    tenant        text        COLLATE "C" NOT NULL,
    gateway       text        COLLATE "C" NOT NULL,
    sender        text        COLLATE "C" NOT NULL,   -- E.164 where the source is a phone number, else the source
    source        text        COLLATE "C" NOT NULL,
    destination   text        COLLATE "C" NOT NULL,
    received_at   timestamptz NOT NULL,               -- observed_at of the event
    data_coding   integer     NOT NULL,
    esm_class     integer     NOT NULL,
    content       bytea       NOT NULL,               -- user data header included
    sar_reference integer,
    sar_total     integer,
    sar_part      integer,
    reference     integer     NOT NULL,               -- what joins it, from its header or its SAR fields; 0 of 1 part
    total         integer     NOT NULL,
    number        integer     NOT NULL,
    PRIMARY KEY (message_id, event_id)
) PARTITION BY RANGE (message_id);
CREATE TABLE parts_default PARTITION OF parts DEFAULT;

CREATE INDEX parts_page ON parts (tenant, message_id) WHERE opens;
CREATE INDEX parts_sender ON parts (tenant, sender, message_id) WHERE opens;
CREATE INDEX parts_joined ON parts (gateway, reference, source, destination, message_id) WHERE total > 1;
