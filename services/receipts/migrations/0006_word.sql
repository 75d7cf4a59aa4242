-- The carrier's own word for a state that we have none for, so that a receipt which had to wait says it too.
ALTER TABLE parked ADD COLUMN word text;
