-- Schema 11. What is to be read again may wait for several records at once, with a row for each: whichever comes, it is read.
ALTER TABLE reread RENAME TO reread_before;
CREATE TABLE reread (
  realm       INTEGER NOT NULL,
  participant INTEGER NOT NULL,
  external_id TEXT NOT NULL,
  since       INTEGER NOT NULL,
  waits_for   TEXT,                      -- an external id of the same participant
  bulk        INTEGER NOT NULL,
  asked       INTEGER NOT NULL DEFAULT 0 -- the sequence of the commit that asked for it last
) STRICT;
INSERT INTO reread SELECT realm, participant, external_id, since, waits_for, bulk, asked FROM reread_before;
DROP TABLE reread_before;
CREATE UNIQUE INDEX reread_of ON reread (realm, participant, external_id, ifnull(waits_for, ''));
CREATE INDEX reread_order ON reread (realm, participant, bulk, since, external_id) WHERE waits_for IS NULL;
CREATE INDEX reread_waiting ON reread (realm, participant, waits_for) WHERE waits_for IS NOT NULL;
