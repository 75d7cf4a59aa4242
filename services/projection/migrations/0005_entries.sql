-- A row of the journal holds all events of a message that were applied at once: `body` is an array of [id, topic, values]. What there is becomes
-- entries of one event: MessagePack's array of one, array of three, 16 octets, text of up to 255 octets, and what was the body.
UPDATE events SET body = '\x9193c410'::bytea || uuid_send(event_id)
    || '\xd9'::bytea || substring(int2send(octet_length(topic)::int2) FROM 2) || convert_to(topic, 'UTF8') || body;
ALTER TABLE events DROP COLUMN topic;
COMMENT ON COLUMN events.event_id IS 'the least of the ids of its events';
