-- Schema 8. What is to be read again may wait for several records at once, with a row for each: whichever comes, it is read.
ALTER TABLE reread DROP CONSTRAINT reread_pkey;
CREATE UNIQUE INDEX reread_of ON reread (realm, participant, external_id, coalesce(waits_for, ''));
