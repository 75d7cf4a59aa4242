-- NULL where a message has none; rows of before have an empty array.
ALTER TABLE messages ALTER COLUMN tags DROP NOT NULL;
