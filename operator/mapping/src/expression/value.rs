//! Documents and types as VRL sees them, and back.
//!
//! Decimals, dates and moments go in as the text they are in documents. No value that leaves may hold a binary float.

use crate::shape::{Field, Tree};
use ::vrl::value::kind::{Collection, Kind};
use ::vrl::value::{ObjectMap, Value as Vrl};
use fairlead_model::Timestamp;
use fairlead_model::schema::FieldType;
use serde_json::{Map, Number, Value};

/// A document's value as VRL's.
pub(super) fn to_vrl(value: &Value) -> Vrl {
    match value {
        Value::Null => Vrl::Null,
        Value::Bool(flag) => Vrl::Boolean(*flag),
        // What is no i64 (an unsigned one beyond it; floats do not occur) is told by its digits.
        Value::Number(number) => number.as_i64().map_or_else(|| Vrl::from(number.to_string()), Vrl::Integer),
        Value::String(text) => Vrl::from(text.as_str()),
        Value::Array(items) => Vrl::Array(items.iter().map(to_vrl).collect()),
        Value::Object(fields) => {
            Vrl::Object(fields.iter().map(|(name, value)| (name.as_str().into(), to_vrl(value))).collect::<ObjectMap>())
        }
    }
}

/// A result of VRL as a document's value.
pub(super) fn from_vrl(value: Vrl) -> Result<Value, String> {
    Ok(match value {
        Vrl::Null => Value::Null,
        Vrl::Boolean(flag) => Value::Bool(flag),
        Vrl::Integer(number) => Value::Number(Number::from(number)),
        Vrl::Bytes(bytes) => Value::String(String::from_utf8(bytes.to_vec()).map_err(|_| "the result is no text but bytes")?),
        Vrl::String(text) => Value::String(text.to_string()),
        Vrl::Timestamp(moment) => Value::String(Timestamp(moment.timestamp_millis()).to_canonical()),
        Vrl::Array(items) => Value::Array(items.into_iter().map(from_vrl).collect::<Result<_, _>>()?),
        Vrl::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(name, value)| from_vrl(value).map(|value| (name.to_string(), value)))
                .collect::<Result<Map<_, _>, _>>()?,
        ),
        Vrl::Float(_) => return Err("the result holds a binary floating-point number; work with decimals as text".into()),
        Vrl::Regex(_) => return Err("the result is a regular expression".into()),
    })
}

/// The type of what stands at a node.
pub(super) fn kind_of(node: &Tree) -> Kind {
    let field = node.field();
    let nullable = field.nullable;
    let kind = if node.is_list() {
        Kind::array(Collection::from_unknown(element(node)))
    } else if node.children().is_empty() {
        leaf(&field)
    } else {
        object(node)
    };
    if nullable { kind.or_null() } else { kind }
}

/// The type of each element of a list.
pub(super) fn element(node: &Tree) -> Kind {
    if node.children().is_empty() { anything() } else { object(node) }
}

/// The object that a node's inner fields make; it has no others.
pub(super) fn object(node: &Tree) -> Kind {
    let known = node.children().iter().map(|(name, child)| (name.as_str().into(), kind_of(child))).collect();
    Kind::object(Collection::from_parts(known, Kind::undefined()))
}

fn leaf(field: &Field) -> Kind {
    match field.kind {
        FieldType::Integer => Kind::integer(),
        FieldType::Boolean => Kind::boolean(),
        FieldType::List => Kind::array(Collection::from_unknown(anything())),
        FieldType::Object => Kind::object(Collection::from_unknown(anything())),
        FieldType::Any => anything(),
        FieldType::String | FieldType::Decimal | FieldType::Float | FieldType::Date | FieldType::DateTime | FieldType::Reference => {
            Kind::bytes()
        }
    }
}

/// Whatever a document may hold: everything but floats, as far as types can say it.
fn anything() -> Kind {
    Kind::bytes().or_integer().or_boolean().or_null().or_array(Collection::any()).or_object(Collection::any())
}

/// The parts of a type, as messages name them; null comes last.
pub(super) fn words(kind: &Kind) -> Vec<&'static str> {
    [
        (kind.contains_bytes(), "string"),
        (kind.contains_integer(), "integer"),
        (kind.contains_float(), "float"),
        (kind.contains_boolean(), "boolean"),
        (kind.contains_timestamp(), "date-time"),
        (kind.contains_regex(), "regular expression"),
        (kind.contains_array(), "list"),
        (kind.contains_object(), "object"),
        (kind.contains_null() || kind.contains_undefined(), "null"),
    ]
    .into_iter()
    .filter_map(|(is, word)| is.then_some(word))
    .collect()
}
