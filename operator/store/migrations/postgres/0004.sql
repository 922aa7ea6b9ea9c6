-- Schema 4. Lanes are drained by partitions, each under a lease of its own whose epochs begin anew. What was claimed under the one lease that a
-- lane had before belongs to an epoch before all of these.
UPDATE lane SET c_epoch = 0 WHERE c_epoch IS NOT NULL;
