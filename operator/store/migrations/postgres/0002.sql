-- Schema 2. When a checkpoint was last committed, for people; of one that was committed before, nothing is known.
ALTER TABLE checkpoint ADD COLUMN at bigint;
