//! What PostgreSQL's types want beyond the common codec.

use super::error::Failure;
use crate::StoreError;
use crate::rows::codec::IdBytes;
use fairlead_model::RecordId;
use std::borrow::Cow;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use uuid::Uuid;

pub(super) const fn uuid_of(bytes: IdBytes) -> Uuid {
    Uuid::from_bytes(bytes)
}

pub(super) fn uuids(ids: &[RecordId]) -> Vec<Uuid> {
    ids.iter().map(|id| id.0).collect()
}

/// A column of a row; what does not fit is damage.
pub(super) fn get<'r, T: FromSql<'r>>(row: &'r Row, column: usize) -> Result<T, Failure> {
    row.try_get(column).map_err(|error| StoreError::Unusable(format!("a row holds what no Fairlead writes: {error}")).into())
}

/// A count, never negative.
pub(super) fn count(row: &Row, column: usize) -> Result<u64, Failure> {
    get::<i64>(row, column).map(i64::cast_unsigned)
}

/// A place in a list, which a row tells by `WITH ORDINALITY`.
pub(super) fn place(row: &Row) -> Result<usize, Failure> {
    Ok(usize::try_from(get::<i64>(row, 0)? - 1).unwrap_or_default())
}

/// Marks what follows it in a stored external id.
const MARK: char = '\u{E000}';

/// An external id as it is stored. PostgreSQL's text holds no zero; one poisoned id must not stop a stream, and must come back as it was.
pub(super) fn stored_id(id: &str) -> Cow<'_, str> {
    if !id.contains(['\0', MARK]) {
        return Cow::Borrowed(id);
    }
    Cow::Owned(id.chars().fold(String::with_capacity(id.len() + 4), |mut text, letter| {
        match letter {
            '\0' => text.extend([MARK, '0']),
            MARK => text.extend([MARK, '1']),
            other => text.push(other),
        }
        text
    }))
}

/// An external id that was stored.
pub(super) fn read_id(stored: String) -> String {
    if !stored.contains(MARK) {
        return stored;
    }
    let mut text = String::with_capacity(stored.len());
    let mut letters = stored.chars();
    while let Some(letter) = letters.next() {
        text.push(match letter {
            MARK if letters.next() == Some('0') => '\0',
            other => other,
        });
    }
    text
}

pub(super) fn stored_ids<'a>(ids: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    ids.into_iter().map(|id| stored_id(id).into_owned()).collect()
}

/// Text for people; a zero in it is shown as what cannot be shown.
pub(super) fn plain(text: &str) -> String {
    text.replace('\0', "\u{FFFD}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_external_id_comes_back_as_it_was() {
        for id in ["", "0015g00000abc", "a\0b", "\u{E000}", "\u{E000}0", "\0\u{E000}1\0", "Ü"] {
            let stored = stored_id(id).into_owned();
            assert!(!stored.contains('\0'));
            assert_eq!(read_id(stored), id);
        }
        assert_ne!(stored_id("\0"), stored_id("\u{E000}0"));
    }
}
