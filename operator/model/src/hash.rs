//! Two kinds of hash: short ones that tell whether a value differs from the last one seen, and digests that name content.
//!
//! Both are taken over a canonical walk (object keys sorted, strings and numbers by text), so they do not depend on how a document was
//! parsed. The short ones are only ever compared with hashes of the same field of the same record, or of the same range, so 64 bits are ample.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::fmt;
use xxhash_rust::xxh3::xxh3_64;

/// So many bytes of the memory for gathering stay with a thread.
const MOST_KEPT: usize = 64 * 1024;

thread_local! {
    /// The bytes of the value that is being hashed.
    static GATHERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A 64-bit XXH3 hash of a value; 0 is reserved for "absent or null".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct ValueHash(pub u64);

impl ValueHash {
    /// The hash of "no value".
    pub const ABSENT: Self = Self(0);

    /// The hash of `value`; absent and `null` are one.
    #[must_use]
    pub fn of(value: Option<&Value>) -> Self {
        match value {
            None | Some(Value::Null) => Self::ABSENT,
            // Hashing what was gathered is several times cheaper than hashing it bit by bit: most values are short.
            Some(value) => GATHERED.with_borrow_mut(|gathered| {
                gathered.clear();
                walk(value, &mut |bytes| gathered.extend_from_slice(bytes));
                let hash = Self(xxh3_64(gathered).max(1));
                gathered.shrink_to(MOST_KEPT);
                hash
            }),
        }
    }

    /// The hash of a text, for match keys and names.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        Self(xxh3_64(text.as_bytes()).max(1))
    }
}

/// The hash over what a range of records shows: of each its id and the hashes of some fields, in an order that whoever compares keeps as well.
/// Where two are equal, no record of the range needs to be looked at.
#[derive(Debug, Default)]
pub struct RangeHash(Vec<u8>);

impl RangeHash {
    /// Takes in a record.
    pub fn add(&mut self, id: &str, fields: impl IntoIterator<Item = ValueHash>) {
        self.0.extend((id.len() as u64).to_le_bytes());
        self.0.extend(id.as_bytes());
        self.0.extend(fields.into_iter().flat_map(|field| field.0.to_le_bytes()));
    }

    /// The hash over the records so far.
    #[must_use]
    pub fn finish(&self) -> ValueHash {
        ValueHash(xxh3_64(&self.0))
    }
}

/// A SHA-256 over content, written `sha256:<hex>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Digest(pub String);

impl Digest {
    /// The digest of a value's canonical walk.
    #[must_use]
    pub fn of(value: &Value) -> Self {
        let mut hasher = Sha256::new();
        walk(value, &mut |bytes| hasher.update(bytes));
        Self(format!("sha256:{}", hex::encode(hasher.finalize())))
    }

    /// The digest of a serialisable value. What cannot be serialised (it has no such shape here) hashes as null.
    #[must_use]
    pub fn of_serialized<T: Serialize>(value: &T) -> Self {
        Self::of(&serde_json::to_value(value).unwrap_or(Value::Null))
    }
}

/// A [`Digest`] over lines of text, each with its line feed, so that `sha256sum` of the same lines gives the same.
#[derive(Debug, Clone, Default)]
pub struct LineDigest(Sha256);

impl LineDigest {
    /// Takes in a line, which comes without its line feed.
    pub fn add(&mut self, line: &str) {
        self.0.update(line.as_bytes());
        self.0.update(b"\n");
    }

    /// The digest of the lines so far.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(format!("sha256:{}", hex::encode(self.0.clone().finalize())))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Feeds `value` to `sink` in a form in which different values never look alike: a tag, then a length or an end mark, then the bytes.
fn walk(value: &Value, sink: &mut impl FnMut(&[u8])) {
    match value {
        Value::Null => sink(b"n"),
        Value::Bool(true) => sink(b"t"),
        Value::Bool(false) => sink(b"f"),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => text(b'#', itoa::Buffer::new().format(whole), sink),
            None => text(b'#', &number.to_string(), sink),
        },
        Value::String(string) => text(b's', string, sink),
        Value::Array(items) => {
            sink(b"[");
            items.iter().for_each(|item| walk(item, sink));
            sink(b"]");
        }
        Value::Object(fields) => {
            sink(b"{");
            let mut field = |(key, value): (&String, &Value)| {
                text(b'k', key, sink);
                walk(value, sink);
            };
            // They are in order, unless something has serde_json keep the order of arrival.
            if fields.keys().is_sorted() {
                fields.iter().for_each(field);
            } else {
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_by_key(|(key, _)| *key);
                fields.into_iter().for_each(&mut field);
            }
            sink(b"}");
        }
    }
}

fn text(tag: u8, text: &str, sink: &mut impl FnMut(&[u8])) {
    sink(&[tag]);
    sink(&(text.len() as u64).to_le_bytes());
    sink(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn order_of_keys_does_not_matter_and_nesting_does() {
        let a: Value = serde_json::from_str(r#"{"a":1,"b":[1,2]}"#).unwrap();
        let b: Value = serde_json::from_str(r#"{"b":[1,2],"a":1}"#).unwrap();
        assert_eq!(ValueHash::of(Some(&a)), ValueHash::of(Some(&b)));
        assert_eq!(Digest::of(&a), Digest::of(&b));
        assert_ne!(ValueHash::of(Some(&json!([[1], 2]))), ValueHash::of(Some(&json!([1, [2]]))));
        assert_ne!(ValueHash::of(Some(&json!("1"))), ValueHash::of(Some(&json!(1))));
    }

    #[test]
    fn a_range_is_its_records_with_their_fields_in_order() {
        let hash = |records: &[(&str, &[u64])]| {
            let mut range = RangeHash::default();
            records.iter().for_each(|(id, fields)| range.add(id, fields.iter().map(|field| ValueHash(*field))));
            range.finish()
        };
        let (a, b) = (("a", &[1, 2][..]), ("b", &[1, 3][..]));
        assert_eq!(hash(&[a, b]), hash(&[a, b]));
        for other in [&[b, a][..], &[a], &[a, ("b", &[1, 2][..])], &[a, ("b", &[3, 1])], &[a, ("c", &[1, 3])]] {
            assert_ne!(hash(&[a, b]), hash(other), "{other:?}");
        }
    }

    #[test]
    fn a_hash_is_that_of_the_walk_however_it_is_fed_and_stays_what_it_was() {
        let long = "ä".repeat(5000);
        for value in [json!("x"), json!(-7), json!(true), json!(long), json!({"b": [1, {"a": "y"}, []], "a": long})] {
            let mut streamed = xxhash_rust::xxh3::Xxh3Default::new();
            walk(&value, &mut |bytes| streamed.update(bytes));
            assert_eq!(ValueHash::of(Some(&value)).0, streamed.digest());
        }
        // Of what was stored by earlier releases: XXH3 of the letter, the length in eight bytes and the text.
        assert_eq!(ValueHash::of(Some(&json!("x"))).0, xxh3_64(b"s\x01\0\0\0\0\0\0\0x"));
    }

    #[test]
    fn the_digest_of_lines_is_that_of_their_text() {
        let mut lines = LineDigest::default();
        lines.add("a");
        lines.add("b");
        // printf 'a\nb\n' | sha256sum
        assert_eq!(lines.digest().0, "sha256:911169ddaaf146aff539f58c26c489af3b892dff0fe283c1c264c65ae5aa59a2");
    }

    #[test]
    fn null_and_absent_are_one() {
        assert_eq!(ValueHash::of(None), ValueHash::of(Some(&Value::Null)));
        assert_ne!(ValueHash::of(None), ValueHash::of(Some(&json!(""))));
    }
}
