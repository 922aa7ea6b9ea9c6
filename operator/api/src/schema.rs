//! Judges a value by the generated schema, as the API server would, and refuses unknown fields besides.
//!
//! Only the keywords that our own schemas use are known here; the lint test fails when a schema begins to use another. Rules in CEL
//! are not evaluated: `rules` holds their Rust form.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::crd;
use crate::manifest::Kind;
use crate::rules::Violation;

/// The schemas, generated once.
static SCHEMAS: LazyLock<BTreeMap<Kind, Value>> = LazyLock::new(|| Kind::ALL.into_iter().map(|kind| (kind, crd::schema(kind))).collect());

/// The compiled patterns of all schemas.
static PATTERNS: LazyLock<BTreeMap<String, Regex>> = LazyLock::new(|| {
    let mut patterns = BTreeMap::new();
    for schema in SCHEMAS.values() {
        collect_patterns(schema, &mut patterns);
    }
    patterns
});

fn collect_patterns(schema: &Value, patterns: &mut BTreeMap<String, Regex>) {
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && let Ok(compiled) = Regex::new(pattern)
    {
        patterns.insert(pattern.to_owned(), compiled);
    }
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flat_map(|map| map.values());
    let below = ["items", "additionalProperties"].into_iter().filter_map(|key| schema.get(key));
    for child in properties.chain(below) {
        collect_patterns(child, patterns);
    }
}

/// Judges a whole manifest: name and `spec` by the schema, and no field beside `metadata`, `spec` and `status`. The status is not judged;
/// it is not the author's.
pub fn check_manifest(kind: Kind, manifest: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    let Some(object) = manifest.as_object() else {
        return vec![violation("", "is not an object", "write a manifest with apiVersion, kind, metadata and spec")];
    };
    for field in object.keys() {
        if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&field.as_str()) {
            found.push(violation(field, "unknown field", "remove it or correct its spelling"));
        }
    }
    let name = object.get("metadata").and_then(|metadata| metadata.get("name")).filter(|name| !name.is_null());
    let schema = SCHEMAS.get(&kind).and_then(|schema| schema.pointer("/properties/metadata/properties/name"));
    match (name, schema) {
        (Some(name), Some(schema)) => check(schema, name, "metadata.name", &mut found),
        _ => found.push(violation("metadata.name", "is required", "give the object a name")),
    }
    match object.get("spec") {
        Some(spec) => found.extend(check_spec(kind, spec)),
        None => found.push(violation("spec", "is required", "describe what you want under spec")),
    }
    found
}

/// Judges a spec by the schema of its kind. Paths begin with `spec`.
pub fn check_spec(kind: Kind, spec: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    if let Some(schema) = SCHEMAS.get(&kind).and_then(|schema| schema.pointer("/properties/spec")) {
        check(schema, spec, "spec", &mut found);
    }
    found
}

/// Judges a shared field table: an owner and rows, as an Integration has them.
pub(crate) fn check_field_table(table: &Value) -> Vec<Violation> {
    const SPEC: &str = "/properties/spec/properties";
    let part = |pointer: &str| SCHEMAS.get(&Kind::Integration).and_then(|schema| schema.pointer(&format!("{SPEC}{pointer}"))).cloned();
    let rows = part("/sync/properties/participants/items/properties/fields");
    let (Some(owner), Some(mut rows)) = (part("/owner"), rows) else { return Vec::new() };
    rows["minItems"] = 1.into();
    let schema = serde_json::json!({"type": "object", "required": ["fields"], "properties": {"owner": owner, "fields": rows}});
    let mut found = Vec::new();
    check(&schema, table, "", &mut found);
    // The document itself has no name that a path could begin with.
    for violation in &mut found {
        violation.field = violation.field.trim_start_matches('.').to_owned();
    }
    found
}

/// Judges a status by the schema of its kind, as the API server will. Paths begin with `status`.
pub fn check_status(kind: Kind, status: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    if let Some(schema) = SCHEMAS.get(&kind).and_then(|schema| schema.pointer("/properties/status")) {
        check(schema, status, "status", &mut found);
    }
    found
}

fn violation(field: &str, message: impl Into<String>, hint: impl Into<String>) -> Violation {
    Violation { field: field.to_owned(), message: message.into(), hint: hint.into() }
}

fn check(schema: &Value, value: &Value, path: &str, found: &mut Vec<Violation>) {
    match (text(schema, "type"), value) {
        ("object", Value::Object(fields)) => check_object(schema, fields, path, found),
        ("array", Value::Array(items)) => check_list(schema, items, path, found),
        ("string", Value::String(content)) => check_text(schema, content, path, found),
        ("boolean", Value::Bool(_)) => {}
        ("integer", Value::Number(number)) if number.is_i64() => check_integer(schema, number.as_i64(), path, found),
        (wanted, _) => found.push(violation(
            path,
            format!("is {}, not {}", article(kind_of(value)), article(wanted)),
            match (wanted, value) {
                ("string", Value::Number(_) | Value::Bool(_)) => "put the value in quotes".to_owned(),
                _ => format!("write {} here", article(wanted)),
            },
        )),
    }
}

fn check_object(schema: &Value, fields: &serde_json::Map<String, Value>, path: &str, found: &mut Vec<Violation>) {
    let properties = schema.get("properties").and_then(Value::as_object);
    let additional = schema.get("additionalProperties").filter(|schema| schema.is_object());
    let free = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    for required in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if fields.get(required).is_none_or(Value::is_null) {
            let what = properties.and_then(|all| all.get(required)).map_or("", |field| text(field, "description"));
            found.push(violation(&format!("{path}.{required}"), "is required", format!("set it; {what}")));
        }
    }
    if let Some(most) = integer(schema, "maxProperties").filter(|most| exceeds(fields.len(), *most)) {
        found.push(violation(path, format!("has {} entries, more than {most}", fields.len()), "take some out"));
    }
    for (name, value) in fields {
        let below = format!("{path}.{name}");
        match properties.and_then(|all| all.get(name)).or(additional) {
            // An explicit null is the same as leaving the field out.
            Some(_) if value.is_null() => {}
            Some(child) => check(child, value, &below, found),
            None if free => {}
            None => found.push(violation(&below, "unknown field", did_you_mean(name, properties))),
        }
    }
}

fn check_list(schema: &Value, items: &[Value], path: &str, found: &mut Vec<Violation>) {
    if let Some(most) = integer(schema, "maxItems").filter(|most| exceeds(items.len(), *most)) {
        found.push(violation(path, format!("has {} entries, more than {most}", items.len()), "take some out"));
        return;
    }
    if let Some(least) = integer(schema, "minItems").filter(|least| *least > 0 && exceeds_or_equals(*least, items.len())) {
        found.push(violation(path, format!("has {} entries, fewer than {least}", items.len()), "add at least one"));
    }
    if let Some(child) = schema.get("items") {
        for (index, item) in items.iter().enumerate() {
            check(child, item, &format!("{path}[{index}]"), found);
        }
    }
    let keys: Vec<&str> = match text(schema, "x-kubernetes-list-type") {
        "map" => {
            schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
        }
        "set" => Vec::new(),
        _ => return,
    };
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let key = if keys.is_empty() {
            item.to_string()
        } else {
            let parts = keys.iter().map(|key| format!("{key}: {}", item.get(key).and_then(Value::as_str).unwrap_or("")));
            parts.collect::<Vec<_>>().join(", ")
        };
        if !seen.insert(key.clone()) {
            found.push(violation(&format!("{path}[{index}]"), format!("appears a second time ({key})"), "remove one of the two"));
        }
    }
}

fn check_text(schema: &Value, content: &str, path: &str, found: &mut Vec<Violation>) {
    let length = content.chars().count();
    if let Some(most) = integer(schema, "maxLength").filter(|most| exceeds(length, *most)) {
        found.push(violation(path, format!("has {length} characters, more than {most}"), "write a shorter text"));
        return;
    }
    if let Some(least) = integer(schema, "minLength").filter(|least| *least > 0 && exceeds_or_equals(*least, length)) {
        found.push(violation(path, format!("has {length} characters, fewer than {least}"), "fill it in"));
        return;
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array) {
        let words: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
        if !words.contains(&content) {
            let shown: String = content.chars().take(64).collect();
            found.push(violation(path, format!("`{shown}` is not supported"), format!("use one of {}", words.join(", "))));
        }
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && PATTERNS.get(pattern).is_some_and(|compiled| !compiled.is_match(content))
    {
        let hint = match pattern {
            crate::duration::PATTERN => "write whole numbers with h, m, s or ms, such as 30s, 5m or 1h30m (there is no d)".into(),
            other => format!("it must match {other}"),
        };
        let shown: String = content.chars().take(64).collect();
        found.push(violation(path, format!("`{shown}` does not have the right form"), hint));
    }
}

fn check_integer(schema: &Value, value: Option<i64>, path: &str, found: &mut Vec<Violation>) {
    let Some(value) = value else { return };
    let least = integer(schema, "minimum");
    let most = integer(schema, "maximum");
    if least.is_some_and(|least| value < least) || most.is_some_and(|most| value > most) {
        let bound = match (least, most) {
            (Some(least), Some(most)) => format!("between {least} and {most}"),
            (Some(least), None) => format!("of at least {least}"),
            (None, Some(most)) => format!("of at most {most}"),
            (None, None) => String::new(),
        };
        found.push(violation(path, format!("{value} is out of range"), format!("write a number {bound}")));
    }
}

fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn integer(schema: &Value, key: &str) -> Option<i64> {
    schema.get(key).and_then(Value::as_i64)
}

fn exceeds(length: usize, most: i64) -> bool {
    i64::try_from(length).map_or(true, |length| length > most)
}

fn exceeds_or_equals(least: i64, length: usize) -> bool {
    i64::try_from(length).is_ok_and(|length| length < least)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn article(kind: &str) -> String {
    match kind {
        "integer" => "a whole number".into(),
        "number" => "a fraction".into(),
        "array" => "a list".into(),
        "string" => "text".into(),
        "object" => "a block of fields".into(),
        "boolean" => "true or false".into(),
        other => other.into(),
    }
}

/// Names the known field that a typo most likely meant.
fn did_you_mean(name: &str, properties: Option<&serde_json::Map<String, Value>>) -> String {
    // A name longer than any of ours is no typo, and the distance costs length times length.
    let nearest = properties
        .filter(|_| name.len() <= 64)
        .into_iter()
        .flat_map(|all| all.keys())
        .map(|known| (strsim::damerau_levenshtein(&known.to_lowercase(), &name.to_lowercase()), known))
        .min()
        .filter(|(distance, known)| *distance <= (known.len() / 4).max(1));
    match nearest {
        Some((_, known)) => format!("did you mean {known}?"),
        None => "remove it or correct its spelling".into(),
    }
}
