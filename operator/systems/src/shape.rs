//! A record type's fields as a tree: what a value is says its definition, wherever in a record it stands.

use crate::decode;
use crate::definition::format::{FieldFormat, Wire};
use fairlead_model::Document;
use fairlead_model::path::Segment;
use fairlead_model::schema::FieldType;
use serde_json::Value;
use std::collections::BTreeMap;

/// A place in a record, and what lies below it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Shape {
    kind: Option<FieldType>,
    /// A decimal or whole number that travels as a number.
    number: bool,
    fields: BTreeMap<String, Shape>,
    /// What the elements of a list are.
    items: Option<Box<Shape>>,
}

/// What nothing is known of.
static UNKNOWN: Shape = Shape { kind: None, number: false, fields: BTreeMap::new(), items: None };

impl Shape {
    pub(crate) fn of(fields: &[FieldFormat]) -> Self {
        let mut record = Self::default();
        for field in fields {
            let place = field.name.segments().iter().fold(&mut record, |place, segment| {
                let place = place.fields.entry(segment.name().to_owned()).or_default();
                match segment {
                    Segment::Field(_) => place,
                    Segment::List(_) => place.items.get_or_insert_default(),
                }
            });
            place.kind = Some(field.kind);
            let numeric = matches!(field.kind, FieldType::Decimal | FieldType::Float | FieldType::Integer);
            place.number = numeric && field.wire == Wire::Number;
        }
        record
    }

    /// The place of a field below.
    pub(crate) fn field(&self, name: &str) -> &Self {
        self.fields.get(name).unwrap_or(&UNKNOWN)
    }

    /// The place of an element.
    pub(crate) fn item(&self) -> &Self {
        self.items.as_deref().unwrap_or(&UNKNOWN)
    }

    /// Whether a text that is a decimal stands here, and travels as a number.
    pub(crate) const fn is_number(&self) -> bool {
        self.number
    }

    /// A record that stands here, typed, and as it came where that is something else; given back where it is none.
    pub(crate) fn record(&self, value: Value) -> Result<(Document, Option<Value>), Value> {
        match value {
            value @ Value::Object(_) if !self.keeps(&value) => match self.typed(&value) {
                Value::Object(body) => Ok((body, Some(value))),
                _ => Err(value),
            },
            Value::Object(body) => Ok((body, None)),
            other => Err(other),
        }
    }

    /// Whether [`Self::typed`] would leave a value as it is.
    fn keeps(&self, value: &Value) -> bool {
        match value {
            Value::Object(fields) => !fields.contains_key("attributes") && fields.iter().all(|(name, value)| self.field(name).keeps(value)),
            Value::Array(items) => items.iter().all(|item| self.item().keeps(item)),
            scalar => self.kind.is_none_or(|kind| decode::keeps(kind, scalar)),
        }
    }

    /// A value that stands here, typed, and everything below it. Salesforce's `attributes` are of no record.
    pub(crate) fn typed(&self, value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let fields = fields.iter().filter(|(name, _)| *name != "attributes");
                Value::Object(fields.map(|(name, value)| (name.clone(), self.field(name).typed(value))).collect())
            }
            Value::Array(items) => Value::Array(items.iter().map(|item| self.item().typed(item)).collect()),
            scalar => match self.kind {
                Some(kind) => decode::typed(kind, scalar.clone()),
                None => scalar.clone(),
            },
        }
    }
}
