//! Copying a value from one side to the other: which types may be copied, and how a value becomes the other side's form.
//!
//! Only conversions that lose nothing and leave no choice are made. Everything else is a person's decision and takes an expression or a value
//! table. Values in messages are never repeated.

use crate::shape::{Field, word};
use fairlead_model::schema::FieldType;
use fairlead_model::{Decimal, Timestamp, document};
use serde_json::Value;
use std::collections::BTreeSet;

/// Which way a row runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToCanonical,
    FromCanonical,
}

impl Direction {
    /// Who gets the value.
    pub(crate) fn receiver(self) -> &'static str {
        match self {
            Self::ToCanonical => "contract",
            Self::FromCanonical => "native field",
        }
    }
}

/// Whether a value of `from` can be copied to `to`; if not, what to do. `source` is how an expression calls the value (`.record.Name`).
pub(crate) fn copyable(from: FieldType, to: FieldType, direction: Direction, source: &str) -> Result<(), String> {
    use FieldType as T;
    let (here, other) = match direction {
        Direction::ToCanonical => ("toCanonical", "fromCanonical"),
        Direction::FromCanonical => ("fromCanonical", "toCanonical"),
    };
    match (from, to) {
        (T::Float, T::Float) if direction == Direction::FromCanonical => Ok(()),
        (T::Float, _) => Err(format!(
            "if the vendor means exact digits, declare the field as Decimal in the system definition; if not, say how to round: {here}: 'decimal_round!({source}, 2)'"
        )),
        (T::Decimal, T::Integer) if direction == Direction::FromCanonical => Ok(()),
        (from, to) if from == to => Ok(()),
        (T::Integer, T::Decimal) | (T::Any, _) | (_, T::Any) | (T::Reference, T::String) | (T::String, T::Reference) => Ok(()),
        (T::String | T::Integer, T::Boolean) | (T::Boolean, T::String | T::Integer) => {
            Err("say which value means which: values: [{canonical: \"true\", native: ...}, {canonical: \"false\", native: ...}]".into())
        }
        (T::String, T::Decimal) => Err(format!("{here}: 'to_decimal!({source})' reads digits from a text")),
        (T::String, T::Integer) => Err(format!("{here}: 'parse_int!({source}, 10)' reads a whole number from a text")),
        (T::Integer, T::String) => Err(format!("{here}: 'to_string({source})' writes it as a text")),
        (T::DateTime, T::Date) => Err(format!(
            "the day depends on the time zone: {here}: 'format_timestamp!(parse_timestamp!({source}, \"%+\"), \"%F\", timezone: \"Europe/Berlin\")'"
        )),
        (T::Decimal, T::Integer) => Err(format!("say how to round: {here}: 'parse_int!(decimal_round!({source}, 0), 10)'")),
        _ => Err(format!("convert it with {here}, and {other} for the way back")),
    }
}

/// Turns values into the form of one field.
#[derive(Debug, Clone)]
pub(crate) struct Convert {
    kind: FieldType,
    max_length: Option<u32>,
    /// The closed set of values, where there is one.
    values: BTreeSet<String>,
    whose: &'static str,
}

impl Convert {
    pub(crate) fn to(field: &Field, direction: Direction) -> Self {
        Self { kind: field.kind, max_length: field.max_length, values: field.values.iter().cloned().collect(), whose: direction.receiver() }
    }

    /// The value in the field's form; null stays null.
    pub(crate) fn apply(&self, value: &Value) -> Result<Value, String> {
        let value = match (self.kind, value) {
            (_, Value::Null) => return Ok(Value::Null),
            (FieldType::String | FieldType::Reference, Value::String(text)) => Value::String(text.clone()),
            (FieldType::String | FieldType::Reference, Value::Number(number)) if !number.is_f64() => Value::String(number.to_string()),
            (FieldType::Boolean, Value::Bool(_)) => value.clone(),
            // An empty text in a field that holds no text is how some systems spell "no value".
            (
                FieldType::Integer | FieldType::Decimal | FieldType::Float | FieldType::Date | FieldType::DateTime | FieldType::Boolean,
                Value::String(text),
            ) if text.is_empty() => return Ok(Value::Null),
            (FieldType::Integer, value) => integer(value)?,
            (FieldType::Decimal | FieldType::Float, value) => Value::String(decimal(value)?.into()),
            (FieldType::Date, Value::String(text)) => date(text)?,
            (FieldType::DateTime, Value::String(text)) => date_time(text)?,
            (FieldType::List, Value::Array(_)) | (FieldType::Object, Value::Object(_)) | (FieldType::Any, _) => {
                if document::has_float(value) {
                    return Err("holds a binary floating-point number, which no document may".into());
                }
                value.clone()
            }
            (kind, value) => return Err(format!("is {}, the {} wants {}", json_word(value), self.whose, word(kind))),
        };
        self.check_text(&value)?;
        Ok(value)
    }

    /// A text of a table in the field's form. The table was compiled for the field, so its texts fit.
    pub(crate) fn text(&self, text: &str) -> Result<Value, String> {
        match (self.kind, text) {
            (FieldType::Boolean, "true") => Ok(Value::Bool(true)),
            (FieldType::Boolean, "false") => Ok(Value::Bool(false)),
            (FieldType::Integer, text) => text.parse::<i64>().map(Value::from).map_err(|_| "is no whole number in the table".into()),
            (_, text) => Ok(Value::from(text)),
        }
    }

    fn check_text(&self, value: &Value) -> Result<(), String> {
        if !self.values.is_empty() {
            let known = match value {
                Value::String(text) => self.values.contains(text),
                Value::Number(_) | Value::Bool(_) => self.values.contains(&value.to_string()),
                _ => true,
            };
            if !known {
                let some: Vec<&str> = self.values.iter().map(String::as_str).take(8).collect();
                let more = if self.values.len() > some.len() { ", ..." } else { "" };
                return Err(format!("is none of the values that the {} allows ({}{more})", self.whose, some.join(", ")));
            }
        }
        if let (Some(most), Value::String(text)) = (self.max_length, value) {
            let length = text.chars().count();
            if length > most as usize {
                return Err(format!("has {length} characters, the {} takes {most}", self.whose));
            }
        }
        Ok(())
    }
}

fn integer(value: &Value) -> Result<Value, String> {
    if let Value::Number(number) = value
        && !number.is_f64()
    {
        return Ok(value.clone());
    }
    let decimal = decimal(value)?;
    if decimal.scale() > 0 {
        return Err("has a fraction, a whole number is wanted".into());
    }
    decimal.as_str().parse::<i64>().map(Value::from).map_err(|_| "is beyond 64 bits, a whole number of at most 64 bits is wanted".into())
}

fn decimal(value: &Value) -> Result<Decimal, String> {
    match value {
        Value::String(text) => text.parse().map_err(|error| format!("is {error}")),
        Value::Number(number) if !number.is_f64() => number.to_string().parse().map_err(|error| format!("is {error}")),
        Value::Number(_) => Err("is a binary floating-point number; digits may be lost already".into()),
        other => Err(format!("is {}, a number is wanted", json_word(other))),
    }
}

fn date(text: &str) -> Result<Value, String> {
    let valid = text.len() == 10
        && text.bytes().all(|b| b.is_ascii_digit() || b == b'-')
        && Timestamp::parse(&format!("{text}T00:00:00Z")).is_some();
    if valid { Ok(Value::String(text.to_owned())) } else { Err("is no date of the form YYYY-MM-DD".into()) }
}

fn date_time(text: &str) -> Result<Value, String> {
    let moment = Timestamp::parse(text).ok_or("is no moment with an offset (2026-05-06T07:08:09Z)")?;
    Ok(Value::String(moment.to_canonical()))
}

/// What kind of value it is, without the value, which may be personal.
pub(crate) fn class(value: &Value) -> String {
    match value {
        Value::String(text) => match text.chars().count() {
            0 => "an empty text".into(),
            1 => "a text of 1 character".into(),
            length => format!("a text of {length} characters"),
        },
        Value::Number(_) => "a number".into(),
        other => format!("a {}", json_word(other)),
    }
}

/// What a JSON value is called in messages.
pub(crate) fn json_word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}
