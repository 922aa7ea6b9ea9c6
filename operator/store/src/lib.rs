//! Durable state behind a few coarse commands.
