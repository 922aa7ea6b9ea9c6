-- Schema 5. Conflicts are counted by participant and kept for a while. Guard counts stand in books, so that each of several Integrations that
-- feed one realm has its own; a record counts in the book of whoever changed it last.
ALTER TABLE source_book ADD COLUMN conflicts bigint NOT NULL DEFAULT 0;
ALTER TABLE realm_book DROP COLUMN conflicts;

CREATE TABLE past_conflict (
  number      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  realm       bigint NOT NULL,
  record      uuid NOT NULL,
  participant bigint NOT NULL,
  field       text,                       -- NULL: the record was deleted there
  shown       text,                       -- JSON; NULL: no value
  kept        text,
  at          bigint NOT NULL
);
CREATE INDEX past_conflict_by_record ON past_conflict (realm, record, number);
CREATE INDEX past_conflict_by_age ON past_conflict (realm, at, number);

ALTER TABLE record ADD COLUMN changed_book bigint;        -- the book of `guard_book` in which it is counted; NULL: the realm's
ALTER TABLE record ADD COLUMN deleted_book bigint;
ALTER TABLE guard_book ADD COLUMN book bigint;            -- the name of whoever guards; the realm's own where that is one
UPDATE guard_book SET book = realm;
ALTER TABLE guard_book ALTER COLUMN book SET NOT NULL;
ALTER TABLE guard_book DROP CONSTRAINT guard_book_pkey;
ALTER TABLE guard_book ADD PRIMARY KEY (realm, book, hour);

-- Who waits for another record waits for a day (see `WAITS_FOR`); before, what waited was never due by itself.
UPDATE lane SET due = since + 86400000 WHERE phase = 2;
