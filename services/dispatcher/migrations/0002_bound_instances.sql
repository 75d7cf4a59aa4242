-- Whether an instance has a bind: one that has none for long leaves its partitions to a peer that has.
ALTER TABLE instances ADD COLUMN bound boolean NOT NULL DEFAULT false;
