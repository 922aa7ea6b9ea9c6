-- Schema 5. Conflicts are counted by participant and kept for a while. Guard counts stand in books, so that each of several Integrations that
-- feed one realm has its own; a record counts in the book of whoever changed it last.
--
-- Processes of the Fairlead before go on until they are replaced. What they ask and write stays as it was: `realm_book.conflicts` and
-- `guard_book`, which nobody else looks at any more. What they count there meanwhile is lost.
ALTER TABLE lane_book ADD COLUMN last_delivered bigint;
ALTER TABLE source_book ADD COLUMN conflicts bigint NOT NULL DEFAULT 0;
ALTER TABLE realm_book ALTER COLUMN conflicts SET DEFAULT 0;

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

ALTER TABLE record ADD COLUMN changed_book bigint;        -- the book of `guard_count` in which it is counted; NULL: the realm's
ALTER TABLE record ADD COLUMN deleted_book bigint;
CREATE TABLE guard_count (
  realm   bigint NOT NULL,
  book    bigint NOT NULL,                -- the name of whoever guards; the realm's own where that is one
  hour    bigint NOT NULL,                -- hours since the Unix epoch
  changes bigint NOT NULL,
  deletes bigint NOT NULL,
  PRIMARY KEY (realm, book, hour)
) WITH (fillfactor = 50);
INSERT INTO guard_count (realm, book, hour, changes, deletes) SELECT realm, realm, hour, changes, deletes FROM guard_book;

-- Who waits for another record waits for a day (see `WAITS_FOR`); before, what waited was never due by itself.
UPDATE lane SET due = since + 86400000 WHERE phase = 2;
