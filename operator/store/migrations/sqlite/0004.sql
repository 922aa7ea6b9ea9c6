-- Schema 4. Writes of API callers by their Idempotency-Key, with the answers that were given. Rows go when they expire, and the oldest ones when there
-- are too many; `number` rises with each row and is never used again, so the span of numbers bounds the count.
CREATE TABLE api_write (
  number      INTEGER PRIMARY KEY AUTOINCREMENT,
  scope       TEXT NOT NULL UNIQUE,
  fingerprint TEXT NOT NULL,
  held_until  INTEGER NOT NULL,          -- without an answer by then, its process died
  expires     INTEGER NOT NULL,
  answer      TEXT
) STRICT;
CREATE INDEX api_write_expires ON api_write (expires);
