-- For how long an instance believes in its lease after a beat (seconds); null if an older release began it. Replicas may be given another
-- length one after the other, and peers must not judge it by theirs.
ALTER TABLE instances ADD COLUMN lease_seconds double precision;
