-- It has no primary key. Without an identity of its rows PostgreSQL would refuse to delete any while the table is published, as by
-- FOR ALL TABLES.
ALTER TABLE reported REPLICA IDENTITY FULL;
