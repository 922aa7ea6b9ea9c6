//! A document: JSON that has no floating-point numbers in it.
//!
//! The decoder at the border turns fractions and integers beyond 64 bits into decimal *strings*; what a string means (text, decimal, date)
//! is told by the schema. So a document is an ordinary JSON object, and every room may use `serde_json` on it without losing a digit.

use crate::path::{FieldPath, Segment};
use serde_json::{Map, Value};

/// A JSON object without floats.
pub type Document = Map<String, Value>;

/// The value at `path`, if every step of it is there. A path with a list segment (`a[]`) yields the list itself.
#[must_use]
pub fn get<'a>(document: &'a Document, path: &FieldPath) -> Option<&'a Value> {
    let mut segments = path.segments().iter();
    let mut value = document.get(segments.next()?.name())?;
    for segment in segments {
        value = value.as_object()?.get(segment.name())?;
    }
    Some(value)
}

/// Like [`get`], but `null` counts as absent: between systems, "no value" has two spellings and one meaning.
#[must_use]
pub fn present<'a>(document: &'a Document, path: &FieldPath) -> Option<&'a Value> {
    get(document, path).filter(|value| !value.is_null())
}

/// Puts `value` at `path`, making the objects in between. A step through something that is no object replaces it.
pub fn set(document: &mut Document, path: &FieldPath, value: Value) {
    fn descend(document: &mut Document, segments: &[Segment], value: Value) {
        match segments {
            [] => {}
            [last] => {
                document.insert(last.name().to_owned(), value);
            }
            [first, rest @ ..] => {
                let next = document.entry(first.name().to_owned()).or_insert(Value::Null);
                if !next.is_object() {
                    *next = Value::Object(Document::new());
                }
                if let Value::Object(inner) = next {
                    descend(inner, rest, value);
                }
            }
        }
    }
    descend(document, path.segments(), value);
}

/// Takes the value at `path` away, and the objects that became empty by it.
pub fn remove(document: &mut Document, path: &FieldPath) -> Option<Value> {
    fn descend(document: &mut Document, segments: &[Segment]) -> Option<Value> {
        match segments {
            [] => None,
            [last] => document.remove(last.name()),
            [first, rest @ ..] => {
                let Some(Value::Object(inner)) = document.get_mut(first.name()) else {
                    return None;
                };
                let removed = descend(inner, rest);
                if inner.is_empty() {
                    document.remove(first.name());
                }
                removed
            }
        }
    }
    descend(document, path.segments())
}

/// True when a floating-point number hides anywhere in `value`. Borders assert it; nothing inside should ever see one.
#[must_use]
pub fn has_float(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_float),
        Value::Object(fields) => fields.values().any(has_float),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn set_get_and_remove_agree_and_leave_no_empty_shells() {
        let path: FieldPath = "address.country".parse().unwrap();
        let mut document = Document::new();
        set(&mut document, &path, json!("DE"));
        assert_eq!(get(&document, &path), Some(&json!("DE")));
        assert_eq!(remove(&mut document, &path), Some(json!("DE")));
        assert!(document.is_empty());
    }

    #[test]
    fn null_counts_as_absent() {
        let document = json!({"a": null}).as_object().cloned().unwrap();
        let path: FieldPath = "a".parse().unwrap();
        assert_eq!(get(&document, &path), Some(&Value::Null));
        assert_eq!(present(&document, &path), None);
    }
}
