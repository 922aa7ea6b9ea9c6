//! Answers off the wire: JSON without floats, typed by the definition.
//!
//! Numbers are read as text: whole numbers within 64 bits stay numbers, all others become decimal strings with every digit they had. What a
//! field is says its definition, never the look of its value. Depth is bounded before anything is built.

use crate::definition::path::AnswerPath;
use fairlead_model::decimal::is_canonical;
use fairlead_model::schema::FieldType;
use fairlead_model::{Decimal, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};
use sonic_rs::{JsonContainerTrait, JsonType, JsonValueTrait};

/// The deepest nesting of an answer.
pub(crate) const MAX_DEPTH: usize = 32;

/// Why an answer is not usable JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("the answer is not JSON")]
    Malformed,
    #[error("the answer is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// Parses an answer.
pub(crate) fn json(bytes: &[u8]) -> Result<Value, DecodeError> {
    if depth(bytes) > MAX_DEPTH {
        return Err(DecodeError::TooDeep);
    }
    // sonic-rs reads surrounding white space and the value; what follows must be nothing.
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Malformed)?;
    let mut reader = sonic_rs::Deserializer::from_str(text).use_rawnumber();
    let value = sonic_rs::Value::deserialize(&mut reader).map_err(|_| DecodeError::Malformed)?;
    reader.end().map_err(|_| DecodeError::Malformed)?;
    Ok(plain(&value))
}

/// The deepest nesting of brackets outside of strings.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut rest) = (0usize, 0usize, bytes);
    while let Some((byte, after)) = rest.split_first() {
        rest = match byte {
            b'"' => after_string(after),
            _ => after,
        };
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// What follows the end of a string that has begun: most of an answer lies within strings, and is not looked at byte by byte.
fn after_string(mut rest: &[u8]) -> &[u8] {
    while let Some(place) = memchr::memchr2(b'"', b'\\', rest) {
        if rest[place] == b'"' {
            return &rest[place + 1..];
        }
        rest = rest.get(place + 2..).unwrap_or_default();
    }
    &[]
}

fn plain(value: &sonic_rs::Value) -> Value {
    match value.get_type() {
        JsonType::Null => Value::Null,
        JsonType::Boolean => Value::Bool(value.is_true()),
        JsonType::String => Value::String(value.as_str().unwrap_or_default().to_owned()),
        JsonType::Number => value.as_raw_number().map_or(Value::Null, |number| number_value(number.as_str())),
        JsonType::Array => Value::Array(value.as_array().map(|items| items.iter().map(plain).collect()).unwrap_or_default()),
        JsonType::Object => {
            let fields =
                value.as_object().map(|fields| fields.iter().map(|(name, value)| (name.to_owned(), plain(value))).collect::<Map<_, _>>());
            Value::Object(fields.unwrap_or_default())
        }
    }
}

fn number_value(text: &str) -> Value {
    match text.parse::<i64>() {
        // `-0` is no integer that survives.
        Ok(number) if !text.starts_with("-0") => Value::from(number),
        _ => Value::String(text.parse::<Decimal>().map_or_else(|_| text.to_owned(), String::from)),
    }
}

/// Whether [`typed`] would leave the value as it is; never where it would not.
pub(crate) fn keeps(kind: FieldType, value: &Value) -> bool {
    match (kind, value) {
        (FieldType::Decimal | FieldType::Float, Value::String(text)) => is_canonical(text),
        (FieldType::DateTime, Value::String(text)) => Timestamp::parse(text).is_some_and(|stamp| stamp.to_rfc3339() == *text),
        (FieldType::Integer | FieldType::Boolean, Value::String(_)) => false,
        (FieldType::Decimal | FieldType::Float | FieldType::String | FieldType::Reference, Value::Number(_)) => false,
        _ => true,
    }
}

/// The value of a field as its definition types it. What does not fit its type stays as it came: the mapping names the field.
pub(crate) fn typed(kind: FieldType, value: Value) -> Value {
    match (kind, value) {
        (FieldType::Decimal | FieldType::Float | FieldType::Integer, Value::String(text)) if text.is_empty() => Value::Null,
        (FieldType::Decimal | FieldType::Float, Value::String(text)) => Value::String(text.parse::<Decimal>().map_or(text, String::from)),
        (FieldType::Decimal | FieldType::Float, Value::Number(number)) => Value::String(number.to_string()),
        (FieldType::Integer, Value::String(text)) => {
            let whole = text.parse::<Decimal>().ok().and_then(|decimal| decimal.as_str().parse::<i64>().ok());
            whole.map_or(Value::String(text), Value::from)
        }
        (FieldType::Boolean, Value::String(text)) => match text.as_str() {
            "T" | "true" => Value::Bool(true),
            "F" | "false" => Value::Bool(false),
            _ => Value::String(text),
        },
        (FieldType::String | FieldType::Reference, Value::Number(number)) => Value::String(number.to_string()),
        (FieldType::DateTime, Value::String(text)) => match Timestamp::parse(&text).or_else(|| Timestamp::parse(&format!("{text}Z"))) {
            Some(stamp) => Value::String(stamp.to_rfc3339()),
            None => Value::String(text),
        },
        (_, value) => value,
    }
}

/// The stamp at `path`, as the vendor spells it and as a moment.
pub(crate) fn stamp(path: Option<&AnswerPath>, record: &Value) -> (Option<String>, Option<Timestamp>) {
    let text = path.and_then(|path| path.text(record));
    let moment = text.as_deref().and_then(|text| Timestamp::parse(text).or_else(|| Timestamp::parse(&format!("{text}Z"))));
    (text, moment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn numbers_keep_every_digit_and_none_becomes_a_float() {
        let value = json(br#"{"a":120.50,"b":9007199254740993,"c":123456789012345678901234,"d":1e3,"e":-0.0,"f":[0.1,5],"g":-7}"#).unwrap();
        assert_eq!(
            value,
            json!({"a":"120.5","b":9007199254740993i64,"c":"123456789012345678901234","d":"1000","e":"0","f":["0.1",5],"g":-7})
        );
        assert!(!fairlead_model::document::has_float(&value));
    }

    #[test]
    fn what_is_no_json_or_too_deep_is_refused() {
        for bad in [&b"<html>"[..], b"", b"{\"a\":", b"[1] x", b"{\"a\":\"\xff\"}", b"{'a':1}", b"\"\\ud800\""] {
            assert_eq!(json(bad), Err(DecodeError::Malformed), "{:?}", String::from_utf8_lossy(bad));
        }
        assert_eq!(json("[".repeat(100_000).as_bytes()), Err(DecodeError::TooDeep));
        assert!(json(format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH)).as_bytes()).is_ok());
        assert!(json(br#"{"text":"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"{{{{"}"#).is_ok(), "brackets in strings are text");
    }

    #[test]
    fn the_definition_says_what_a_value_is() {
        assert_eq!(typed(FieldType::Decimal, json!("120.50")), json!("120.5"));
        assert_eq!(typed(FieldType::Decimal, json!(5)), json!("5"));
        assert_eq!(typed(FieldType::Decimal, json!("")), json!(null));
        assert_eq!(typed(FieldType::Integer, json!("42")), json!(42));
        assert_eq!(typed(FieldType::Integer, json!("5.0")), json!(5));
        assert_eq!(typed(FieldType::Integer, json!("5.5")), json!("5.5"));
        assert_eq!(typed(FieldType::Boolean, json!("T")), json!(true));
        assert_eq!(typed(FieldType::String, json!(107)), json!("107"));
        assert_eq!(typed(FieldType::String, json!("T")), json!("T"));
        assert_eq!(typed(FieldType::DateTime, json!("2026-05-06T07:08:09.000+0000")), json!("2026-05-06T07:08:09.000Z"));
        assert_eq!(typed(FieldType::DateTime, json!("2026-05-06T07:08:09")), json!("2026-05-06T07:08:09.000Z"));
    }

    #[test]
    fn brackets_within_strings_are_no_depth_wherever_a_string_ends() {
        for (text, deepest) in [
            (r#"[{"a":"]}","b":[1]}]"#, 3),
            (r#"{"a\\":["\"[["]}"#, 2),
            (r#"{"a":"\\"}[["#, 2),
            (r#"["never ends [["#, 1),
            (r#"["ends in its escape\"#, 1),
            (r#"\"[["#, 0),
        ] {
            assert_eq!(depth(text.as_bytes()), deepest, "{text}");
        }
    }

    const KINDS: [FieldType; 11] = [
        FieldType::String,
        FieldType::Integer,
        FieldType::Decimal,
        FieldType::Float,
        FieldType::Boolean,
        FieldType::Date,
        FieldType::DateTime,
        FieldType::Reference,
        FieldType::List,
        FieldType::Object,
        FieldType::Any,
    ];

    proptest! {
        #[test]
        fn what_a_type_keeps_is_what_it_would_give(number in any::<bool>(), place in 0..KINDS.len(), text in "-?[0-9]{0,3}(\\.[0-9]{1,3})?|true|T|2026-05-06T07:08:09(\\.[0-9]{3})?Z?") {
            let value = text.parse::<i64>().ok().filter(|_| number).map_or(Value::String(text), Value::from);
            if keeps(KINDS[place], &value) {
                prop_assert_eq!(typed(KINDS[place], value.clone()), value);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = json(&bytes) {
                prop_assert!(!fairlead_model::document::has_float(&value));
            }
        }

        #[test]
        fn any_number_comes_back_with_its_value(text in "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?") {
            let value = json(text.as_bytes()).unwrap();
            let back: Decimal = value.as_str().map_or_else(|| value.to_string(), str::to_owned).parse().unwrap();
            prop_assert_eq!(back, text.parse::<Decimal>().unwrap());
        }
    }
}
