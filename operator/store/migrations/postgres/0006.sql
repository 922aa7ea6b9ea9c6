-- Schema 6. What is wanted soon goes before what was asked for in bulk and has time: in lanes, and among the records that are read again by key. A
-- request to read one again is done by a read that began after it.
ALTER TABLE lane ADD COLUMN bulk boolean NOT NULL DEFAULT false;  -- everything that waits here has time
UPDATE lane SET bulk = true WHERE coalesce(origin, c_origin) IN (-2, -3, -4);
DROP INDEX lane_order;
CREATE INDEX lane_order ON lane (realm, target, phase, bulk, due, record);

ALTER TABLE reread ADD COLUMN bulk boolean NOT NULL DEFAULT false;
ALTER TABLE reread ADD COLUMN asked bigint NOT NULL DEFAULT 0;    -- the sequence of the commit that asked for it last
UPDATE reread SET bulk = true WHERE since > extract(epoch FROM now()) * 1000;
DROP INDEX reread_order;
CREATE INDEX reread_order ON reread (realm, participant, bulk, since, external_id) WHERE waits_for IS NULL;
