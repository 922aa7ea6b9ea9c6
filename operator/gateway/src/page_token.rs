//! Page tokens: the backend's cursor, sealed, so that it comes back as it went out and for the same query.

use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Bytes of the seal.
const SEAL: usize = 16;
/// The longest token that is looked at.
const MAX_TOKEN: usize = 2048;

/// Seals and opens page tokens.
#[derive(Debug, Clone)]
pub(crate) struct Sealer(hmac::Key);

impl Sealer {
    /// With this key; the same key opens tokens of other processes and earlier starts.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// A token for `cursor`, which only `query` may use.
    pub(crate) fn seal(&self, query: &str, cursor: &str) -> String {
        let mut bytes = self.mac(query, cursor).to_vec();
        bytes.extend_from_slice(cursor.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The cursor of a token that was sealed for `query`.
    pub(crate) fn open(&self, query: &str, token: &str) -> Option<String> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (seal, cursor) = bytes.split_at_checked(SEAL)?;
        let cursor = std::str::from_utf8(cursor).ok()?;
        constant_time::verify_slices_are_equal(seal, &self.mac(query, cursor)).ok()?;
        Some(cursor.to_owned())
    }

    fn mac(&self, query: &str, cursor: &str) -> [u8; SEAL] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&(query.len() as u64).to_le_bytes());
        context.update(query.as_bytes());
        context.update(cursor.as_bytes());
        let tag = context.sign();
        let mut seal = [0; SEAL];
        seal.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        seal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_opens_for_its_own_query_only() {
        let sealer = Sealer::new(&[7; 32]);
        let token = sealer.seal("/a?x=1", "cursor");
        assert_eq!(sealer.open("/a?x=1", &token).as_deref(), Some("cursor"));
        assert_eq!(sealer.open("/a?x=2", &token), None);
        assert_eq!(Sealer::new(&[8; 32]).open("/a?x=1", &token), None);
    }

    proptest! {
        #[test]
        fn a_token_that_was_touched_does_not_open(at in 0usize..30, with in any::<u8>()) {
            let sealer = Sealer::new(&[7; 32]);
            let token = sealer.seal("q", "cursor");
            let mut bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != with);
            bytes[at] = with;
            prop_assert_eq!(sealer.open("q", &URL_SAFE_NO_PAD.encode(bytes)), None);
        }
    }
}
