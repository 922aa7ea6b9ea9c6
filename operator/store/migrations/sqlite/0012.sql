-- Schema 12. Changes of fields that won, and what stood in the way when a system was seen first, are kept beside conflicts.
ALTER TABLE past_conflict ADD COLUMN fate INTEGER NOT NULL DEFAULT 0; -- 0 conflict, 1 won, 2 first seen; `kept` is what the record held, `shown` what was to be
DROP INDEX past_conflict_by_record;
CREATE INDEX past_conflict_by_record ON past_conflict (realm, record, fate, number);
