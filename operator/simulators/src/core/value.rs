//! JSON as it stands on the wire: a number keeps the text in which it was written.
//!
//! Money travels as JSON number tokens. Reading one through a binary float would change it, so numbers are text here from
//! the socket to the table and back. Nothing in this crate may turn a [`Value::Number`] into a float.

use std::fmt;

use indexmap::IndexMap;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::value::RawValue;

/// The fields of a record, in the order in which they were declared or written.
pub type Fields = IndexMap<String, Value>;

/// One JSON value; numbers are their raw text.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Value {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number token, exactly as written (`100.10` stays `100.10`).
    Number(String),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Value>),
    /// An object, in order.
    Object(Fields),
}

impl Value {
    /// Reads one JSON document. The error names line and column.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// A string value.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A number from an integer.
    pub fn int(number: impl Into<i128>) -> Self {
        Self::Number(number.into().to_string())
    }

    /// A number token from decimal text that is already in JSON's number form.
    pub fn number(token: impl Into<String>) -> Self {
        Self::Number(token.into())
    }

    /// A string, or null where there is none.
    pub fn maybe(text: Option<impl Into<String>>) -> Self {
        text.map_or(Self::Null, |text| Self::Text(text.into()))
    }

    /// An object from pairs.
    pub fn object<K: Into<String>>(pairs: impl IntoIterator<Item = (K, Value)>) -> Self {
        Self::Object(pairs.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }

    /// The text of a string value.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The truth of a boolean value.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// The members of an object value.
    pub fn as_object(&self) -> Option<&Fields> {
        match self {
            Self::Object(fields) => Some(fields),
            _ => None,
        }
    }

    /// The items of a list value.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// The member of an object, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_object().and_then(|fields| fields.get(key))
    }

    /// True for `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl From<Fields> for Value {
    fn from(fields: Fields) -> Self {
        Self::Object(fields)
    }
}

/// Writes compact JSON.
impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(flag) => serializer.serialize_bool(*flag),
            Self::Number(token) => RawValue::from_string(token.clone())
                .map_err(|_| serde::ser::Error::custom(format!("{token:?} is not a JSON number")))?
                .serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Self::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (key, value) in fields {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

/// Only serde_json can feed this: the raw text of a number is its own private arrangement.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        from_raw(&raw).map_err(D::Error::custom)
    }
}

fn from_raw(raw: &RawValue) -> Result<Value, serde_json::Error> {
    let text = raw.get();
    Ok(match text.as_bytes().first() {
        Some(b'n') => Value::Null,
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'"') => Value::Text(serde_json::from_str(text)?),
        Some(b'[') => Value::List(serde_json::from_str::<Vec<&RawValue>>(text)?.into_iter().map(from_raw).collect::<Result<_, _>>()?),
        Some(b'{') => Value::Object(
            serde_json::from_str::<IndexMap<String, &RawValue>>(text)?
                .into_iter()
                .map(|(key, value)| Ok::<_, serde_json::Error>((key, from_raw(value)?)))
                .collect::<Result<_, _>>()?,
        ),
        _ => Value::Number(text.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_keeps_the_text_in_which_it_was_written() {
        let text = r#"{"a":9007199254740993.10,"b":[1e3,-0,"x\"é"],"c":null,"d":{"e":true}}"#;
        assert_eq!(Value::parse(text.as_bytes()).unwrap().to_string(), text);
    }

    #[test]
    fn broken_json_is_an_error() {
        assert!(Value::parse(b"{\"a\":01}").is_err());
        assert!(Value::parse(b"{\"a\":1").is_err());
    }
}
