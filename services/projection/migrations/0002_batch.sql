-- The bulk call that a message came with. No index: the ids of a batch's messages have the batch id's millisecond, so the key finds them.
ALTER TABLE messages ADD COLUMN batch uuid;
ALTER TYPE message_row ADD ATTRIBUTE batch uuid;
