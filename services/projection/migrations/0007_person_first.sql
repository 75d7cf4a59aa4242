-- A message is looked up by (tenant, message_id), its primary key. In a partition that is still empty, an index that begins with the tenant looks
-- as good to the planner, which then walks all of the tenant's messages until the partition has statistics: seconds a batch, each new week.
DROP INDEX messages_person;
CREATE INDEX messages_person ON messages (person, kind, tenant, message_id);
