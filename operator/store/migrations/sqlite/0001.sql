-- Schema 1. Integer row ids are given in order of arrival, so that records, identities and lanes that arrive together lie together; only
-- the two look-ups that must be (by canonical id, by external id) and the match keys touch pages at random.
-- Text names (realms, participants, targets) are interned in `name`, which is only ever added to.

CREATE TABLE store (
  one      INTEGER PRIMARY KEY CHECK (one = 1),
  sequence INTEGER NOT NULL              -- raised by every command
) STRICT;
INSERT INTO store (one, sequence) VALUES (1, 0);

CREATE TABLE name (
  id   INTEGER PRIMARY KEY,
  text TEXT NOT NULL UNIQUE
) STRICT;

-- Rows outlive their realm: an epoch never goes back.
CREATE TABLE lease (
  key    TEXT PRIMARY KEY,
  holder TEXT,                           -- NULL: released
  epoch  INTEGER NOT NULL,
  until  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE record (
  row        INTEGER PRIMARY KEY,
  realm      INTEGER NOT NULL,
  id         BLOB NOT NULL,              -- 16 bytes
  version    INTEGER NOT NULL,
  home       INTEGER NOT NULL,
  deleted_at INTEGER,
  match_keys BLOB NOT NULL,              -- 8 bytes each, as they stand in `match_key`
  provenance TEXT,
  document   TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX record_by_id ON record (realm, id);

CREATE TABLE identity (
  record      INTEGER NOT NULL,
  participant INTEGER NOT NULL,
  realm       INTEGER NOT NULL,
  external_id TEXT NOT NULL,
  settled     INTEGER NOT NULL,          -- the sequence of the last write of ours that settled
  state       TEXT NOT NULL,
  PRIMARY KEY (record, participant)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX identity_by_external ON identity (realm, participant, external_id);

CREATE TABLE match_key (
  realm  INTEGER NOT NULL,
  hash   INTEGER NOT NULL,
  record INTEGER NOT NULL,
  PRIMARY KEY (realm, hash, record)
) STRICT, WITHOUT ROWID;

-- A record's place in a target's lane: an entry that waits (origin, since, version) and one that is claimed (c_...), either or both.
CREATE TABLE lane (
  record    INTEGER NOT NULL,
  target    INTEGER NOT NULL,
  realm     INTEGER NOT NULL,
  phase     INTEGER NOT NULL,            -- 0 waits and would be created, 1 waits, 2 waits for another record, 3 claimed, 4 only an intent
  due       INTEGER NOT NULL,            -- in phase 3: when it was claimed
  held      INTEGER NOT NULL,            -- the target has an id for it, or the record is deleted
  attempts  INTEGER NOT NULL,
  waits_for BLOB,                        -- a record id
  origin    INTEGER,
  since     INTEGER,
  version   INTEGER,
  c_origin  INTEGER,
  c_since   INTEGER,
  c_version INTEGER,
  c_epoch   INTEGER,
  c_at      INTEGER,
  i_at      INTEGER,                     -- the open intent: a write that is sent, or was and has no known outcome
  i_version INTEGER,
  i_sent    TEXT,
  PRIMARY KEY (record, target)
) STRICT, WITHOUT ROWID;
CREATE INDEX lane_order ON lane (realm, target, phase, due);
CREATE INDEX lane_waiting ON lane (realm, target, waits_for) WHERE waits_for IS NOT NULL;

CREATE TABLE checkpoint (
  realm       INTEGER NOT NULL,
  participant INTEGER NOT NULL,
  slice       TEXT NOT NULL,
  cursor      TEXT NOT NULL,
  complete    INTEGER NOT NULL,
  PRIMARY KEY (realm, participant, slice)
) STRICT, WITHOUT ROWID;

-- External ids to read again by key.
CREATE TABLE reread (
  realm       INTEGER NOT NULL,
  participant INTEGER NOT NULL,
  external_id TEXT NOT NULL,
  since       INTEGER NOT NULL,
  waits_for   TEXT,                      -- an external id of the same participant
  PRIMARY KEY (realm, participant, external_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX reread_order ON reread (realm, participant, since) WHERE waits_for IS NULL;
CREATE INDEX reread_waiting ON reread (realm, participant, waits_for) WHERE waits_for IS NOT NULL;

-- Numbers are never used twice.
CREATE TABLE dead_letter (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  realm        INTEGER NOT NULL,
  participant  INTEGER NOT NULL,
  stage        INTEGER NOT NULL,         -- 0 inbound, 1 identity, 2 outbound, 3 delivery
  external_id  TEXT,
  record       BLOB,
  target       INTEGER,                  -- of a lane entry that became a dead letter: its books
  origin       INTEGER,
  at           INTEGER NOT NULL,
  original     TEXT NOT NULL,
  payload      TEXT,
  class        TEXT NOT NULL,
  reason       TEXT NOT NULL,
  message      TEXT NOT NULL,
  field        TEXT,
  attempts     INTEGER NOT NULL,
  parent       INTEGER,
  close_reason TEXT,
  closed_at    INTEGER,
  closed_by    TEXT
) STRICT;
CREATE INDEX dead_letter_by_realm ON dead_letter (realm);
CREATE INDEX dead_letter_open ON dead_letter (realm, participant, stage) WHERE closed_at IS NULL;
CREATE INDEX dead_letter_open_external ON dead_letter (realm, participant, external_id) WHERE closed_at IS NULL AND external_id IS NOT NULL;
CREATE INDEX dead_letter_open_record ON dead_letter (realm, participant, record) WHERE closed_at IS NULL AND record IS NOT NULL;

-- The books. Pending entries and open dead letters are counted from their tables, everything else here.
CREATE TABLE lane_book (
  realm      INTEGER NOT NULL,
  target     INTEGER NOT NULL,
  origin     INTEGER NOT NULL,           -- a name, or below zero one of the other origins
  entered    INTEGER NOT NULL,
  delivered  INTEGER NOT NULL,
  unchanged  INTEGER NOT NULL,
  superseded INTEGER NOT NULL,
  discarded  INTEGER NOT NULL,
  PRIMARY KEY (realm, target, origin)
) STRICT, WITHOUT ROWID;
CREATE TABLE filtered_book (
  realm  INTEGER NOT NULL,
  target INTEGER NOT NULL,
  origin INTEGER NOT NULL,
  reason TEXT NOT NULL,
  count  INTEGER NOT NULL,
  PRIMARY KEY (realm, target, origin, reason)
) STRICT, WITHOUT ROWID;
CREATE TABLE source_book (
  realm         INTEGER NOT NULL,
  participant   INTEGER NOT NULL,
  read          INTEGER NOT NULL,
  changed       INTEGER NOT NULL,
  unchanged     INTEGER NOT NULL,
  dead_lettered INTEGER NOT NULL,
  PRIMARY KEY (realm, participant)
) STRICT, WITHOUT ROWID;
CREATE TABLE realm_book (
  realm          INTEGER PRIMARY KEY,
  live           INTEGER NOT NULL,       -- live records
  matched        INTEGER NOT NULL,       -- of these, held by more than one participant
  conflicts      INTEGER NOT NULL,
  last_delivered INTEGER
) STRICT;
CREATE TABLE guard_book (
  realm   INTEGER NOT NULL,
  hour    INTEGER NOT NULL,              -- hours since the Unix epoch
  changes INTEGER NOT NULL,
  deletes INTEGER NOT NULL,
  PRIMARY KEY (realm, hour)
) STRICT, WITHOUT ROWID;

CREATE TABLE note (
  realm INTEGER NOT NULL,
  name  TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (realm, name)
) STRICT, WITHOUT ROWID;
