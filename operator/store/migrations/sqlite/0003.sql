-- Schema 3. Records are found by fields as well as by match rules, so what was the index of match keys is the index of keys. The guard
-- counts records, each in the hour of its last change.
ALTER TABLE match_key RENAME TO index_key;
ALTER TABLE record RENAME COLUMN match_keys TO index_keys;
ALTER TABLE record ADD COLUMN changed_hour INTEGER;   -- the hour of `guard_book` in which it is counted
ALTER TABLE record ADD COLUMN deleted_hour INTEGER;
