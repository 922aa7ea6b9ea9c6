-- Schema 8. Conflicts are counted by participant and kept for a while. Guard counts stand in books, so that each of several Integrations that
-- feed one realm has its own; a record counts in the book of whoever changed it last.
ALTER TABLE lane_book ADD COLUMN last_delivered INTEGER;
ALTER TABLE source_book ADD COLUMN conflicts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE realm_book DROP COLUMN conflicts;

CREATE TABLE past_conflict (
  number      INTEGER PRIMARY KEY,
  realm       INTEGER NOT NULL,
  record      BLOB NOT NULL,
  participant INTEGER NOT NULL,
  field       TEXT,                      -- NULL: the record was deleted there
  shown       TEXT,                      -- JSON; NULL: no value
  kept        TEXT,
  at          INTEGER NOT NULL
) STRICT;
CREATE INDEX past_conflict_by_record ON past_conflict (realm, record, number);
CREATE INDEX past_conflict_by_age ON past_conflict (realm, at, number);

ALTER TABLE record ADD COLUMN changed_book INTEGER;        -- the book of `guard_count` in which it is counted; NULL: the realm's
ALTER TABLE record ADD COLUMN deleted_book INTEGER;
CREATE TABLE guard_count (
  realm   INTEGER NOT NULL,
  book    INTEGER NOT NULL,              -- the name of whoever guards; the realm's own where that is one
  hour    INTEGER NOT NULL,              -- hours since the Unix epoch
  changes INTEGER NOT NULL,
  deletes INTEGER NOT NULL,
  PRIMARY KEY (realm, book, hour)
) STRICT, WITHOUT ROWID;
INSERT INTO guard_count (realm, book, hour, changes, deletes) SELECT realm, realm, hour, changes, deletes FROM guard_book;
DROP TABLE guard_book;

-- Who waits for another record waits for a day (see `WAITS_FOR`); before, what waited was never due by itself.
UPDATE lane SET due = since + 86400000 WHERE phase = 2;
