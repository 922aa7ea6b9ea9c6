//! Field paths as people write them in field tables: `address.country`, `contacts[]`, `contacts[].email`.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

/// The longest path the API accepts, in characters.
pub const MAX_LENGTH: usize = 256;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// A field of an object.
    Field(String),
    /// A field that holds a list; what follows speaks of each element.
    List(String),
}

impl Segment {
    /// The field's name, without the list mark.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Field(name) | Self::List(name) => name,
        }
    }
}

/// A non-empty sequence of steps from a record's root. A clone shares the steps and their text: mapping gives one with each value, and what is
/// known of it is looked up by its text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldPath(Arc<Steps>);

struct Steps {
    text: SmolStr,
    segments: Box<[Segment]>,
}

/// Why a text is not a field path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing, or a step without a name (`a..b`).
    #[error("a path needs a name between its dots")]
    EmptyStep,
    /// Longer than [`MAX_LENGTH`].
    #[error("a path has at most {MAX_LENGTH} characters")]
    TooLong,
    /// A character that no step may hold.
    #[error("unexpected {0:?}: steps are letters, digits, '_' and '-', a list is marked by '[]'")]
    Unexpected(char),
}

impl FieldPath {
    fn of(segments: &[Segment]) -> Self {
        let mut text = String::new();
        for (index, segment) in segments.iter().enumerate() {
            text.push_str(if index == 0 { "" } else { "." });
            text.push_str(segment.name());
            text.push_str(if matches!(segment, Segment::List(_)) { "[]" } else { "" });
        }
        Self(Arc::new(Steps { text: text.into(), segments: segments.into() }))
    }

    /// The steps.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.0.segments
    }

    /// The path as it is written.
    #[must_use]
    pub fn text(&self) -> &SmolStr {
        &self.0.text
    }

    /// The path up to and including its first list (`contacts[]` of `contacts[].email`), if it passes through one.
    #[must_use]
    pub fn list_root(&self) -> Option<Self> {
        let end = self.segments().iter().position(|s| matches!(s, Segment::List(_)))?;
        self.segments().get(..=end).map(Self::of)
    }

    /// What remains after the first list (`email` of `contacts[].email`).
    #[must_use]
    pub fn within_list(&self) -> Option<Self> {
        let end = self.segments().iter().position(|s| matches!(s, Segment::List(_)))?;
        let rest = self.segments().get(end + 1..)?;
        (!rest.is_empty()).then(|| Self::of(rest))
    }

    /// True when `self` is `other` or lies inside it.
    #[must_use]
    pub fn starts_with(&self, other: &Self) -> bool {
        let (own, others) = (self.segments(), other.segments());
        own.len() >= others.len() && own.iter().zip(others).all(|(a, b)| a.name() == b.name())
    }

    /// The same path without list marks, as a JSON pointer (RFC 6901) over one element.
    #[must_use]
    pub fn to_pointer(&self) -> String {
        self.segments().iter().map(|s| format!("/{}", s.name())).collect()
    }
}

impl FromStr for FieldPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text.chars().count() > MAX_LENGTH {
            return Err(PathError::TooLong);
        }
        text.split('.')
            .map(|step| {
                let (name, list) = step.strip_suffix("[]").map_or((step, false), |name| (name, true));
                if name.is_empty() {
                    return Err(PathError::EmptyStep);
                }
                if let Some(bad) = name.chars().find(|c| !(c.is_alphanumeric() || matches!(c, '_' | '-'))) {
                    return Err(PathError::Unexpected(bad));
                }
                Ok(if list { Segment::List(name.to_owned()) } else { Segment::Field(name.to_owned()) })
            })
            .collect::<Result<Vec<_>, _>>()
            .map(|segments| Self::of(&segments))
    }
}

impl TryFrom<String> for FieldPath {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        text.parse()
    }
}

impl From<FieldPath> for String {
    fn from(path: FieldPath) -> Self {
        path.to_string()
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

impl fmt::Debug for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.text().as_str(), f)
    }
}

// Two paths of one text are one; they are ordered by their steps.
impl PartialEq for FieldPath {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.text() == other.text()
    }
}

impl Eq for FieldPath {}

impl Hash for FieldPath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text().hash(state);
    }
}

impl PartialOrd for FieldPath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for FieldPath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.segments().cmp(other.segments())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_print_as_they_were_written() {
        for text in ["name", "address.country", "contacts[]", "contacts[].email", "Contacts.records[].Id", "custentity_x-1"] {
            assert_eq!(text.parse::<FieldPath>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_paths_say_what_is_wrong() {
        assert_eq!("".parse::<FieldPath>(), Err(PathError::EmptyStep));
        assert_eq!("a..b".parse::<FieldPath>(), Err(PathError::EmptyStep));
        assert_eq!("a b".parse::<FieldPath>(), Err(PathError::Unexpected(' ')));
        assert_eq!("a".repeat(257).parse::<FieldPath>(), Err(PathError::TooLong));
    }

    #[test]
    fn a_list_splits_a_path_in_two() {
        let path: FieldPath = "Contacts.records[].Email".parse().unwrap();
        assert_eq!(path.list_root().unwrap().to_string(), "Contacts.records[]");
        assert_eq!(path.within_list().unwrap().to_string(), "Email");
    }
}
