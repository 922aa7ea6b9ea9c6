//! Talking to business systems: definitions, protocol engine, throttling.
