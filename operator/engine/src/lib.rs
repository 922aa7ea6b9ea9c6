//! Sync workers: the loop that keeps each target reconciled.
