//! Documents onto the wire: decimals that are text inside become number tokens where the vendor wants numbers. No float on the way.

use crate::definition::Entity;
use crate::shape::Shape;
use fairlead_model::decimal::is_canonical;
use fairlead_model::{Decimal, Document};
use serde_json::Value;

/// The JSON text of a record, with `extra` members put before its own (`attributes`, `id`, the correlation field).
pub(crate) fn record(entity: &Entity, body: &Document, extra: &[(&str, Value)]) -> String {
    let mut out = vec![b'{'];
    for (name, value) in extra {
        member(&mut out, name);
        plain(value, &mut out);
    }
    for (name, value) in body {
        if extra.iter().any(|(taken, _)| taken == name) {
            continue;
        }
        member(&mut out, name);
        write(entity.shape.field(name), value, &mut out);
    }
    out.push(b'}');
    // Only text was put into it.
    String::from_utf8(out).unwrap_or_default()
}

fn member(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    text(name, out);
    out.push(b':');
}

fn write(place: &Shape, value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(fields) => {
            out.push(b'{');
            for (name, value) in fields {
                member(out, name);
                write(place.field(name), value, out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(place.item(), item, out);
            }
            out.push(b']');
        }
        // The canonical form of a decimal is a valid JSON number.
        Value::String(string) if place.is_number() && is_canonical(string) => out.extend_from_slice(string.as_bytes()),
        Value::String(string) if place.is_number() => match string.parse::<Decimal>() {
            Ok(number) => out.extend_from_slice(number.as_str().as_bytes()),
            Err(_) => text(string, out),
        },
        Value::String(string) => text(string, out),
        Value::Null | Value::Bool(_) | Value::Number(_) => plain(value, out),
    }
}

fn text(text: &str, out: &mut Vec<u8>) {
    // Nothing can go wrong in memory.
    _ = serde_json::to_writer(out, text);
}

fn plain(value: &Value, out: &mut Vec<u8>) {
    _ = serde_json::to_writer(out, value);
}

/// A request body from its template: `.records` and `.record` outside of strings are replaced; `None` where the template is neither.
pub(crate) fn body_text(template: &str, record: &str, records: &str) -> Option<String> {
    let mut out = String::with_capacity(template.len() + record.len());
    let mut rest = template;
    let mut quoted = false;
    while let Some(c) = rest.chars().next() {
        if !quoted && let Some(after) = rest.strip_prefix(".records") {
            out.push_str(records);
            rest = after;
            continue;
        }
        if !quoted && let Some(after) = rest.strip_prefix(".record") {
            out.push_str(record);
            rest = after;
            continue;
        }
        if quoted && c == '\\' {
            let end = rest.char_indices().nth(2).map_or(rest.len(), |(at, _)| at);
            out.push_str(rest.get(..end)?);
            rest = rest.get(end..)?;
            continue;
        }
        if c == '"' {
            quoted = !quoted;
        }
        out.push(c);
        rest = rest.get(c.len_utf8()..)?;
    }
    (!quoted).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Definition;
    use proptest::prelude::*;
    use serde_json::json;

    fn definition() -> Definition {
        Definition::parse(
            r"
system: s
auth: [{method: Basic}]
probe: {path: /ping}
entities:
- name: e
  key: .id
  create: {request: {method: POST, path: /e, body: .record}, result: {id: .id}}
  fields:
  - {name: id, type: String}
  - {name: amount, type: Decimal}
  - {name: text, type: String}
  - {name: exact, type: Decimal, wire: String}
  - {name: 'lines[]', type: List, children: Nested}
  - {name: 'lines[].price', type: Decimal}
",
        )
        .unwrap()
    }

    #[test]
    fn decimals_become_number_tokens_and_texts_of_digits_stay_texts() {
        let definition = definition();
        let body =
            json!({"amount": "9007199254740993.01", "text": "12.5", "exact": "1.5", "lines": [{"price": "0.1"}, {"price": null}], "n": 7});
        let text = record(definition.entity("e").unwrap(), body.as_object().unwrap(), &[("id", json!("x"))]);
        assert_eq!(
            text,
            r#"{"id":"x","amount":9007199254740993.01,"exact":"1.5","lines":[{"price":0.1},{"price":null}],"n":7,"text":"12.5"}"#
        );
    }

    #[test]
    fn a_body_template_replaces_outside_of_strings_only() {
        assert_eq!(body_text(r#"{"a\"": ".record", "r": .records}"#, "{}", "[1]").as_deref(), Some(r#"{"a\"": ".record", "r": [1]}"#));
        assert_eq!(body_text(".record", "{}", "[]").as_deref(), Some("{}"));
        assert_eq!(body_text("{\"open", "{}", "[]"), None);
    }

    proptest! {
        #[test]
        fn no_digit_is_lost_on_the_way_out(text in "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,12})?") {
            let definition = definition();
            let decimal: Decimal = text.parse().unwrap();
            let body = json!({"amount": decimal.as_str()});
            let wire = record(definition.entity("e").unwrap(), body.as_object().unwrap(), &[]);
            prop_assert_eq!(wire, format!("{{\"amount\":{decimal}}}"));
        }
    }
}
