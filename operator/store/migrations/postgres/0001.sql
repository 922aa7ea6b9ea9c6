-- Schema 1. Integer row ids are given in order of arrival, so that records, identities and lanes that arrive together lie together; only
-- the look-ups that must be (by canonical id, by external id) and the index keys touch pages at random. Documents and states are in no index.
-- Text names (realms, participants, targets) are interned in `name`, which is only ever added to. Texts that are compared by order have the
-- collation "C", so that they order alike on every server.

CREATE TABLE store (
  one      smallint PRIMARY KEY CHECK (one = 1),
  sequence bigint NOT NULL                -- raised by every commit, as its last step
) WITH (fillfactor = 10);
INSERT INTO store (one, sequence) VALUES (1, 0);

CREATE TABLE name (
  id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  text text COLLATE "C" NOT NULL UNIQUE
);

-- Rows outlive their realm: an epoch never goes back.
CREATE TABLE lease (
  key    text COLLATE "C" PRIMARY KEY,
  holder text,                            -- NULL: released
  epoch  bigint NOT NULL,
  until  bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE record (
  row          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  realm        bigint NOT NULL,
  id           uuid NOT NULL,
  version      bigint NOT NULL,
  home         bigint NOT NULL,
  deleted_at   bigint,
  merged_into  bigint,                    -- the row of the record that it was folded into, never a merged one itself
  changed_hour bigint,                    -- the hour of `guard_book` in which it is counted
  deleted_hour bigint,
  index_keys   bytea NOT NULL,            -- 8 bytes each, as they stand in `index_key`
  provenance   text,
  document     text NOT NULL
) WITH (fillfactor = 85);
CREATE UNIQUE INDEX record_by_id ON record (realm, id);
CREATE INDEX record_merged ON record (merged_into) WHERE merged_into IS NOT NULL;

CREATE TABLE identity (
  record      bigint NOT NULL,
  participant bigint NOT NULL,
  realm       bigint NOT NULL,
  settled     bigint NOT NULL,            -- the sequence of the last write of ours that settled
  external_id text COLLATE "C" NOT NULL,
  state       text NOT NULL,
  PRIMARY KEY (record, participant)
) WITH (fillfactor = 85);
CREATE UNIQUE INDEX identity_by_external ON identity (realm, participant, external_id);

CREATE TABLE index_key (
  realm  bigint NOT NULL,
  hash   bigint NOT NULL,
  record bigint NOT NULL,
  PRIMARY KEY (realm, hash, record)
);

-- A record's place in a target's lane: an entry that waits (origin, since, version) and one that is claimed (c_...), either or both.
-- Rows come, change twice and go, so what is dead is swept early.
CREATE TABLE lane (
  record    bigint NOT NULL,
  target    bigint NOT NULL,
  realm     bigint NOT NULL,
  phase     smallint NOT NULL,            -- 0 waits and would be created, 1 waits, 2 waits for another record, 3 claimed, 4 only an intent
  held      boolean NOT NULL,             -- the target has an id for it, or the record is deleted
  due       bigint NOT NULL,              -- in phase 3: when it was claimed
  attempts  bigint NOT NULL,
  waits_for uuid,                         -- a record id
  origin    bigint,
  since     bigint,
  version   bigint,
  c_origin  bigint,
  c_since   bigint,
  c_version bigint,
  c_epoch   bigint,
  c_at      bigint,
  i_at      bigint,                       -- the open intent: a write that is sent, or was and has no known outcome
  i_version bigint,
  i_sent    text,
  PRIMARY KEY (record, target)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX lane_order ON lane (realm, target, phase, due, record);
CREATE INDEX lane_waiting ON lane (realm, waits_for, target) WHERE waits_for IS NOT NULL;

CREATE TABLE checkpoint (
  realm       bigint NOT NULL,
  participant bigint NOT NULL,
  slice       text COLLATE "C" NOT NULL,
  cursor      text NOT NULL,
  complete    boolean NOT NULL,
  PRIMARY KEY (realm, participant, slice)
) WITH (fillfactor = 50);

-- External ids to read again by key.
CREATE TABLE reread (
  realm       bigint NOT NULL,
  participant bigint NOT NULL,
  since       bigint NOT NULL,
  external_id text COLLATE "C" NOT NULL,
  waits_for   text COLLATE "C",           -- an external id of the same participant
  PRIMARY KEY (realm, participant, external_id)
);
CREATE INDEX reread_order ON reread (realm, participant, since, external_id) WHERE waits_for IS NULL;
CREATE INDEX reread_waiting ON reread (realm, participant, waits_for) WHERE waits_for IS NOT NULL;

-- Numbers are never used twice.
CREATE TABLE dead_letter (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  realm        bigint NOT NULL,
  participant  bigint NOT NULL,
  stage        smallint NOT NULL,         -- 0 inbound, 1 identity, 2 outbound, 3 delivery
  external_id  text COLLATE "C",
  record       uuid,
  target       bigint,                    -- of a lane entry that became a dead letter: its books
  origin       bigint,
  at           bigint NOT NULL,
  original     text NOT NULL,
  payload      text,
  class        text NOT NULL,
  reason       text NOT NULL,
  message      text NOT NULL,
  detail       text,                      -- the vendor's own words; they may repeat values of the record
  field        text,
  attempts     bigint NOT NULL,
  parent       bigint,
  close_reason text,
  closed_at    bigint,
  closed_by    text
);
CREATE INDEX dead_letter_by_realm ON dead_letter (realm, id);
CREATE INDEX dead_letter_open ON dead_letter (realm, participant, stage) WHERE closed_at IS NULL;
CREATE INDEX dead_letter_open_external ON dead_letter (realm, participant, external_id) WHERE closed_at IS NULL AND external_id IS NOT NULL;
CREATE INDEX dead_letter_open_record ON dead_letter (realm, record, participant) WHERE closed_at IS NULL AND record IS NOT NULL;

-- The books. Pending entries and open dead letters are counted from their tables, everything else here.
CREATE TABLE lane_book (
  realm      bigint NOT NULL,
  target     bigint NOT NULL,
  origin     bigint NOT NULL,             -- a name, or below zero one of the other origins
  entered    bigint NOT NULL,
  delivered  bigint NOT NULL,
  unchanged  bigint NOT NULL,
  superseded bigint NOT NULL,
  discarded  bigint NOT NULL,
  PRIMARY KEY (realm, target, origin)
) WITH (fillfactor = 50);
CREATE TABLE filtered_book (
  realm  bigint NOT NULL,
  target bigint NOT NULL,
  origin bigint NOT NULL,
  reason text COLLATE "C" NOT NULL,
  count  bigint NOT NULL,
  PRIMARY KEY (realm, target, origin, reason)
) WITH (fillfactor = 50);
CREATE TABLE source_book (
  realm         bigint NOT NULL,
  participant   bigint NOT NULL,
  read          bigint NOT NULL,
  changed       bigint NOT NULL,
  unchanged     bigint NOT NULL,
  dead_lettered bigint NOT NULL,
  PRIMARY KEY (realm, participant)
) WITH (fillfactor = 50);
CREATE TABLE realm_book (
  realm          bigint PRIMARY KEY,
  live           bigint NOT NULL,         -- live records
  matched        bigint NOT NULL,         -- of these, held by more than one participant
  conflicts      bigint NOT NULL,
  last_delivered bigint
) WITH (fillfactor = 50);
CREATE TABLE guard_book (
  realm   bigint NOT NULL,
  hour    bigint NOT NULL,                -- hours since the Unix epoch
  changes bigint NOT NULL,
  deletes bigint NOT NULL,
  PRIMARY KEY (realm, hour)
) WITH (fillfactor = 50);

CREATE TABLE note (
  realm bigint NOT NULL,
  name  text COLLATE "C" NOT NULL,
  value text NOT NULL,
  PRIMARY KEY (realm, name)
);

-- Writes of API callers by their Idempotency-Key, with the answers that were given. Rows go when they expire, and the oldest ones when
-- there are too many; `number` rises with each row, so the span of numbers bounds the count.
CREATE TABLE api_write (
  number      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  scope       text COLLATE "C" NOT NULL UNIQUE,
  fingerprint text NOT NULL,
  held_until  bigint NOT NULL,            -- without an answer by then, its process died
  expires     bigint NOT NULL,
  answer      text
);
CREATE INDEX api_write_expires ON api_write (expires);
