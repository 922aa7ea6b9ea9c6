//! Field paths as people write them in field tables: `address.country`, `contacts[]`, `contacts[].email`.

use serde::{Deserialize, Serialize};
use std::fmt;
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

/// A non-empty sequence of steps from a record's root. A clone shares the steps: mapping gives one with each value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldPath(Arc<[Segment]>);

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
    /// The steps.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// The path up to and including its first list (`contacts[]` of `contacts[].email`), if it passes through one.
    #[must_use]
    pub fn list_root(&self) -> Option<Self> {
        let end = self.0.iter().position(|s| matches!(s, Segment::List(_)))?;
        Some(Self(self.0.get(..=end)?.into()))
    }

    /// What remains after the first list (`email` of `contacts[].email`).
    #[must_use]
    pub fn within_list(&self) -> Option<Self> {
        let end = self.0.iter().position(|s| matches!(s, Segment::List(_)))?;
        let rest = self.0.get(end + 1..)?;
        (!rest.is_empty()).then(|| Self(rest.into()))
    }

    /// True when `self` is `other` or lies inside it.
    #[must_use]
    pub fn starts_with(&self, other: &Self) -> bool {
        self.0.len() >= other.0.len() && self.0.iter().zip(other.0.iter()).all(|(a, b)| a.name() == b.name())
    }

    /// The same path without list marks, as a JSON pointer (RFC 6901) over one element.
    #[must_use]
    pub fn to_pointer(&self) -> String {
        self.0.iter().map(|s| format!("/{}", s.name())).collect()
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
            .collect::<Result<_, _>>()
            .map(Self)
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
        for (index, segment) in self.0.iter().enumerate() {
            let dot = if index == 0 { "" } else { "." };
            match segment {
                Segment::Field(name) => write!(f, "{dot}{name}")?,
                Segment::List(name) => write!(f, "{dot}{name}[]")?,
            }
        }
        Ok(())
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
