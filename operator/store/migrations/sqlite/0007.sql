-- Schema 7. Closed dead letters are removed some time after they were closed.
CREATE INDEX dead_letter_closed ON dead_letter (realm, closed_at) WHERE closed_at IS NOT NULL;
