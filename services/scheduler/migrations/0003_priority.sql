-- What is of high priority leaves before all else that is due. The type `arrival` stays as it is: a replica of before, beside which this
-- is applied, writes with it.
ALTER TABLE entries ADD COLUMN priority text COLLATE "C" NOT NULL DEFAULT 'normal';

-- Short at any time: to look into it costs next to nothing, however many others are due.
CREATE INDEX entries_due_high ON entries (due_at, message_id, cycle, leg) WHERE settled_at IS NULL AND priority = 'high';
