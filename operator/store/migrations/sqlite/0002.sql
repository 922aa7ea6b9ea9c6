-- Schema 2: merges. A record that was folded into another stays as a tombstone that carries the external ids it keeps: the aliases.

ALTER TABLE record ADD COLUMN merged_into INTEGER;         -- the row of the record that it was folded into, never a merged one itself
CREATE INDEX record_merged ON record (merged_into) WHERE merged_into IS NOT NULL;
