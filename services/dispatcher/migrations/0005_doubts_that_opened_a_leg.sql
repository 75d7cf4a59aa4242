-- When a doubt that a late refusal has ended had opened the next leg (`inDoubt: resend_once`); null where none had, or an older release stored
-- the refusal. Whoever finds the refusal in the doubt's place tells of that leg with this time, as the one who declared the doubt does.
ALTER TABLE attempts ADD COLUMN leg_opened_at timestamptz;
