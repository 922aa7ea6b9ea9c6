//! Types of fields on both sides of a mapping: what a system definition says of a native field, and what a contract says of a canonical one.

use crate::path::FieldPath;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The type of a native or canonical field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FieldType {
    /// Text.
    String,
    /// A whole number of at most 64 bits.
    Integer,
    /// A decimal number; a string in documents, a number token on wires that want one.
    Decimal,
    /// A binary floating-point number that really is one. Refused for money; a document holds it as a decimal string.
    Float,
    /// True or false.
    Boolean,
    /// A calendar date, `YYYY-MM-DD`.
    Date,
    /// A moment, RFC 3339.
    DateTime,
    /// The vendor's id of another record.
    Reference,
    /// A list of objects (child rows) or scalars.
    List,
    /// An object with fields of its own.
    Object,
    /// Anything; the definition or contract says no more.
    Any,
}

/// One native field, from a system definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NativeField {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// Whether it may be null or absent.
    #[serde(default = "yes")]
    pub nullable: bool,
    /// Whether it may be written.
    #[serde(default = "yes")]
    pub writable: bool,
    /// The most characters the vendor takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u32>,
    /// The closed set of values, where there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

fn yes() -> bool {
    true
}

/// The fields of one native entity, by path (`Name`, `Contacts.records[].Email`).
pub type NativeSchema = BTreeMap<FieldPath, NativeField>;

/// How sensitive a canonical field is (`x-classification`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Classification {
    /// Personal data: masked outside the store.
    Personal,
    /// Money matters.
    Financial,
}

/// One canonical field, from a contract's schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanonicalField {
    /// Its type. A JSON Schema string with format `decimal` is a [`FieldType::Decimal`], `date` and `date-time` likewise.
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// Whether the schema admits null.
    pub nullable: bool,
    /// Whether the object that holds it requires it.
    pub required: bool,
    /// How sensitive it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<Classification>,
    /// The closed set of values, where there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// The fields of a canonical entity, by path (`name`, `contacts[].email`).
pub type CanonicalSchema = BTreeMap<FieldPath, CanonicalField>;
