//! Who calls: access tokens (RFC 9068) verified by RFC 8725's rules with issuers' keys (RFC 7517).

mod keys;
mod token;

pub(crate) use keys::KeySets;
pub use keys::{KeyFetcher, KeyOptions};
pub(crate) use token::{Denied, TrustedIssuer, Verified, Verifier};
