//! The declared fields as a tree: what may enter, what may leave, and how a value is spelled.

use fairlead_contract::Violation;
use fairlead_model::path::Segment;
use fairlead_model::schema::{CanonicalField, CanonicalSchema, FieldType};
use fairlead_model::{Decimal, Document, FieldPath, Timestamp};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::collections::BTreeMap;

/// A declared field and those inside it. The root is an object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    kind: FieldType,
    fields: BTreeMap<String, Shape>,
}

impl Shape {
    /// The tree of a canonical schema.
    pub(crate) fn of(schema: &CanonicalSchema) -> Self {
        let mut root = Self { kind: FieldType::Object, fields: BTreeMap::new() };
        for (path, field) in schema {
            let mut at = &mut root;
            for segment in path.segments() {
                let kind = if matches!(segment, Segment::List(_)) { FieldType::List } else { FieldType::Object };
                at = at.fields.entry(segment.name().to_owned()).or_insert_with(|| Self { kind, fields: BTreeMap::new() });
            }
            at.kind = field.kind;
        }
        root
    }

    /// Fields that no contract declares. Null is no value, and so no field.
    pub(crate) fn undeclared(&self, document: &Document) -> Vec<Violation> {
        let mut found = vec![];
        self.find_undeclared(document, "", "", &mut found);
        found
    }

    fn find_undeclared(&self, document: &Document, pointer: &str, path: &str, found: &mut Vec<Violation>) {
        for (name, value) in document.iter().filter(|(_, value)| !value.is_null()) {
            let pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match (self.fields.get(name), value) {
                (None, _) => found.push(Violation { path, pointer, message: "is no field of the contract".into() }),
                (Some(inner), Value::Object(fields)) if inner.kind == FieldType::Object => {
                    inner.find_undeclared(fields, &pointer, &path, found);
                }
                (Some(inner), Value::Array(items)) if inner.kind == FieldType::List => {
                    for (index, item) in items.iter().enumerate() {
                        if let Value::Object(fields) = item {
                            inner.find_undeclared(fields, &format!("{pointer}/{index}"), &format!("{path}[]"), found);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// The same document with the one spelling that equal values have: decimals without trailing zeros, moments in UTC with
    /// milliseconds only where there are some.
    pub(crate) fn canonical(&self, document: Document) -> Document {
        let spell = |(name, value): (String, Value)| {
            let value = match self.fields.get(&name) {
                Some(inner) => inner.canonical_value(value),
                None => value,
            };
            (name, value)
        };
        document.into_iter().map(spell).collect()
    }

    fn canonical_value(&self, value: Value) -> Value {
        match value {
            Value::Object(fields) => Value::Object(self.canonical(fields)),
            Value::Array(items) => Value::Array(items.into_iter().map(|item| self.canonical_value(item)).collect()),
            Value::String(text) => canonical_text(self.kind, text).into(),
            value => value,
        }
    }

    /// The declared part of `document`.
    pub(crate) fn declared(&self, document: &Document) -> Document {
        match serde_json::to_value(Declared(self, document)) {
            Ok(Value::Object(fields)) => fields,
            _ => Document::new(),
        }
    }

    /// Whether objects may stand here: an object's fields, or those of a list's elements.
    fn holds_objects(&self) -> bool {
        self.kind == FieldType::Object || (self.kind == FieldType::List && !self.fields.is_empty())
    }

    fn admits(&self, value: &Value) -> bool {
        match value {
            Value::Object(_) => self.holds_objects(),
            Value::Array(_) => self.kind == FieldType::List,
            _ => true,
        }
    }
}

/// The one spelling of a text of this type.
fn canonical_text(kind: FieldType, text: String) -> String {
    match kind {
        FieldType::Decimal => text.parse::<Decimal>().map_or(text, String::from),
        FieldType::DateTime => Timestamp::parse(&text).map_or(text, Timestamp::to_canonical),
        _ => text,
    }
}

/// Writes the declared part of a document, without copying it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Declared<'a>(pub(crate) &'a Shape, pub(crate) &'a Document);

impl Serialize for Declared<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.1 {
            if let Some(inner) = self.0.fields.get(name).filter(|inner| inner.admits(value)) {
                map.serialize_entry(name, &DeclaredValue(inner, value))?;
            }
        }
        map.end()
    }
}

struct DeclaredValue<'a>(&'a Shape, &'a Value);

impl Serialize for DeclaredValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.1 {
            Value::Object(fields) => Declared(self.0, fields).serialize(serializer),
            Value::Array(items) => {
                let mut list = serializer.serialize_seq(None)?;
                // An element that is a list has no field path, and so is not declared.
                for item in items.iter().filter(|item| !item.is_array() && self.0.admits(item)) {
                    list.serialize_element(&DeclaredValue(self.0, item))?;
                }
                list.end()
            }
            value => value.serialize(serializer),
        }
    }
}

/// A value as it stands in a query, typed by its field.
///
/// # Errors
/// What the value should look like.
pub(crate) fn filter_value(field: &CanonicalField, text: &str) -> Result<Value, String> {
    if !field.values.is_empty() && !field.values.iter().any(|value| value == text) {
        return Err("is none of the values that the contract allows".into());
    }
    match field.kind {
        FieldType::Integer => text.parse::<i64>().map(Value::from).map_err(|_| "is no whole number of 64 bits".into()),
        FieldType::Boolean => text.parse::<bool>().map(Value::from).map_err(|_| "is neither true nor false".into()),
        FieldType::Decimal => text.parse::<Decimal>().map(|d| String::from(d).into()).map_err(|_| "is no decimal".into()),
        FieldType::DateTime => {
            Timestamp::parse(text).map(|t| t.to_canonical().into()).ok_or_else(|| "is no moment in RFC 3339 (2026-05-06T07:08:09Z)".into())
        }
        FieldType::String | FieldType::Date | FieldType::Reference => Ok(text.into()),
        FieldType::Float | FieldType::List | FieldType::Object | FieldType::Any => Err("cannot be filtered by".into()),
    }
}

/// `document` after a JSON Merge Patch (RFC 7396).
pub(crate) fn merge(document: &mut Document, patch: &Document) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                document.remove(name);
            }
            Value::Object(inner) => {
                let at = document.entry(name.clone()).or_insert(Value::Null);
                if !at.is_object() {
                    *at = Value::Object(Document::new());
                }
                if let Value::Object(fields) = at {
                    merge(fields, inner);
                }
            }
            value => {
                document.insert(name.clone(), value.clone());
            }
        }
    }
}

/// The top-level fields that a patch speaks of; names that are no path are undeclared and told as such.
pub(crate) fn touched(patch: &Document) -> Vec<FieldPath> {
    patch.keys().filter_map(|name| name.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn shape() -> Shape {
        let schema = json!({
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "revenue": {"type": "string", "format": "decimal"},
                "since": {"type": "string", "format": "date-time"},
                "address": {"type": "object", "properties": {"country": {"type": "string"}}},
                "tags": {"type": "array", "items": {"type": "string"}},
                "contacts": {"type": "array", "items": {"type": "object", "properties": {"email": {"type": "string"}}}},
            },
        });
        Shape::of(fairlead_contract::Contract::compile(&schema).unwrap().fields())
    }

    fn document(value: Value) -> Document {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn only_declared_fields_leave() {
        let stored = document(json!({
            "name": {"first": "undeclared object"}, "secret": 1,
            "address": {"country": "DE", "door": 4}, "tags": ["a", {"x": 1}, ["y"]],
            "contacts": [{"email": "e", "phone": "p"}], "revenue": "1.5",
        }));
        let shape = shape();
        let shown = json!({"address": {"country": "DE"}, "tags": ["a"], "contacts": [{"email": "e"}], "revenue": "1.5"});
        assert_eq!(serde_json::to_value(Declared(&shape, &stored)).unwrap(), shown);
        assert_eq!(Value::Object(shape.declared(&stored)), shown);
    }

    #[test]
    fn undeclared_fields_are_found_where_they_stand() {
        let sent = document(json!({"name": "n", "x/y": 1, "gone": null, "address": {"door": 4}, "contacts": [{}, {"phone": "p"}]}));
        let found: Vec<String> = shape().undeclared(&sent).into_iter().map(|violation| violation.pointer).collect();
        assert_eq!(found, ["/address/door", "/contacts/1/phone", "/x~1y"]);
    }

    #[test]
    fn equal_values_get_one_spelling() {
        let sent = document(json!({"revenue": "1.50", "since": "2026-05-06T09:08:09+02:00", "name": "1.50"}));
        assert_eq!(Value::Object(shape().canonical(sent)), json!({"revenue": "1.5", "since": "2026-05-06T07:08:09Z", "name": "1.50"}));
    }

    #[test]
    fn a_filter_spells_a_moment_as_documents_do() {
        let field =
            CanonicalField { kind: FieldType::DateTime, nullable: false, required: false, classification: None, values: Vec::new() };
        for text in ["2026-05-06T09:08:09+02:00", "2026-05-06T07:08:09.250Z"] {
            let sent = shape().canonical(document(json!({"since": text})));
            assert_eq!(filter_value(&field, text).as_ref(), Ok(&sent["since"]));
        }
    }

    #[test]
    fn the_examples_of_rfc_7396_hold() {
        for (original, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut merged = document(original);
            merge(&mut merged, &document(patch.clone()));
            assert_eq!(Value::Object(merged), result, "{patch}");
        }
    }

    proptest! {
        #[test]
        fn a_patch_applied_twice_is_applied_once(a in "[ab]{1,2}", b in "[ab]{1,2}", value in proptest::option::of(any::<i64>())) {
            let mut once = document(json!({"a": {"b": 1}, "b": 2}));
            let patch = document(json!({a: {b: value}}));
            merge(&mut once, &patch);
            let mut twice = once.clone();
            merge(&mut twice, &patch);
            prop_assert_eq!(once, twice);
        }
    }
}
