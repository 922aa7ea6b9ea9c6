//! Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-07): the same write sent again gets the same answer and is not done again.

use crate::problem::{Kind, Problem};
use async_trait::async_trait;
use fairlead_model::hash::Digest;
use fairlead_model::route::OperationKind;
use fairlead_model::unit::ObjectKey;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The longest key.
pub const MAX_KEY: usize = 255;

/// Remembers writes and their answers, for as long as it says it does (a day or more).
#[async_trait]
pub trait IdempotencyLog: Send + Sync + 'static {
    /// Notes that the write of `scope` begins, unless it is known.
    ///
    /// A key that stays without an answer for `held` belongs to a process that died; it is [`Begin::Fresh`] again, as one that was let go is.
    /// That repeats a write whose outcome is unknown, which the backend makes harmless (see [`crate::Backend::create`]).
    ///
    /// # Errors
    /// The log cannot be used, for people; the write is then not begun.
    async fn begin(&self, scope: &Scope, fingerprint: &Digest, held: Duration) -> Result<Begin, String>;

    /// Keeps the answer. A log that cannot tells its own log; the write has happened all the same.
    async fn finish(&self, scope: &Scope, answer: &Answer);

    /// Lets go of a write that has no final answer: the same request is [`Begin::Fresh`] again at once. What was asked stays known, so that
    /// another request under its key is a [`Begin::Mismatch`], whatever became of the first one.
    async fn release(&self, scope: &Scope);
}

/// What a key is unique in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Scope {
    /// The contract.
    pub contract: ObjectKey,
    /// The operation.
    pub operation: OperationKind,
    /// The consumer.
    pub consumer: String,
    /// The caller's key.
    pub key: String,
}

/// What is known of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// Nothing, or that its outcome is open: do it.
    Fresh,
    /// It is being done.
    Running,
    /// It was done, with this answer.
    Done(Answer),
    /// The key was used for another request.
    Mismatch,
}

/// An answer as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers that belong to the answer: content type, entity tag, location.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// The key of a request: a structured string (`"..."`) as the draft wants it, or the bare text that most clients send.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let bad = || Problem::new(Kind::InvalidHeader).detail("Idempotency-Key must stand once and hold 1 to 255 visible ASCII characters");
    let text = value.to_str().map_err(|_| bad())?.trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let sane = !text.is_empty() && text.len() <= MAX_KEY && text.bytes().all(|byte| byte.is_ascii_graphic());
    if sane && values.next().is_none() { Ok(Some(text.to_owned())) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_be_quoted_or_bare_and_nothing_else() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("idempotency-key", text.parse().unwrap());
            key(&headers).map_err(|_| ())
        };
        assert_eq!(read("\"8e03978e\""), Ok(Some("8e03978e".into())));
        assert_eq!(read("8e03978e"), Ok(Some("8e03978e".into())));
        for bad in ["", "\"\"", "a b", &"x".repeat(256)] {
            assert_eq!(read(bad), Err(()), "{bad:?}");
        }
        assert_eq!(key(&HeaderMap::new()).ok(), Some(None));
    }
}
