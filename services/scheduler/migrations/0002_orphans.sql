-- A deferral that came again while its entry was being settled left its event, and with it a text, behind.
DELETE FROM events AS v WHERE NOT EXISTS (
    SELECT FROM entries AS e WHERE (e.message_id, e.cycle, e.leg) = (v.message_id, v.cycle, v.leg) AND e.outcome IS NULL);
