-- What was scheduled before there was a column for it has its priority in its event alone. No text can say so: a quote in it is written
-- as \". What another has locked leaves or ends at this moment; to wait for it might be a deadlock.
WITH high AS MATERIALIZED (
    SELECT e.message_id, e.cycle, e.leg FROM entries AS e JOIN events AS v USING (message_id, cycle, leg)
    WHERE e.settled_at IS NULL AND e.priority = 'normal' AND position('"priority":"high"'::bytea IN v.event) > 0
    FOR UPDATE OF e SKIP LOCKED)
UPDATE entries AS e SET priority = 'high' FROM high AS h WHERE (e.message_id, e.cycle, e.leg) = (h.message_id, h.cycle, h.leg);
