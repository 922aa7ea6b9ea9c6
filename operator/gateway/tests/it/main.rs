//! The gateway over real sockets, with backends, log and keys in memory. One binary, so that it links once.

mod access;
mod connections;
mod documents;
mod reads;
mod support;
mod swaps;
mod writes;
