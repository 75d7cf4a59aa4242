-- Records wait for others of their message, so some beyond `next_offset` are folded in already: none from `reached` on.
ALTER TABLE offsets ADD COLUMN reached bigint;
UPDATE offsets SET reached = next_offset;
ALTER TABLE offsets ALTER COLUMN reached SET NOT NULL;
