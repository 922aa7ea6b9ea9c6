-- Schema 5. The vendor's own words about a dead letter; they may repeat values of the record, and are shown to whoever may see those.
ALTER TABLE dead_letter ADD COLUMN detail TEXT;
