//! The gateway over real sockets, with backends, log and keys in memory. One binary, so that it links once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "scenarios are test code")]

mod access;
mod connections;
mod documents;
mod reads;
mod support;
mod swaps;
mod writes;
