-- A summary per block range never shrinks, and what is deleted makes room for new rows anywhere: after one keeping time, each look for
-- what is old read the whole table (docs/decisions/0009).
DROP INDEX provider_ids_registered;
CREATE INDEX provider_ids_registered ON provider_ids (registered_at);
DROP INDEX parked_observed;
CREATE INDEX parked_observed ON parked (observed_at);
CREATE INDEX doubts_doubted ON doubts (doubted_at);
