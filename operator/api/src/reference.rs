//! The field reference of each kind, as Markdown, from the generated schema: what `kubectl explain` says, on one page.
//! `docs/reference/` holds what [`pages`] gives; a test compares.

use std::fmt::Write as _;

use serde_json::Value;

use crate::crd;
use crate::manifest::Kind;

/// The reference pages as files: name and Markdown text.
pub fn pages() -> Vec<(String, String)> {
    Kind::ALL.into_iter().map(|kind| (format!("{}.md", kind.name().to_lowercase()), page(kind))).collect()
}

fn page(kind: Kind) -> String {
    let schema = crd::schema(kind);
    let mut page = format!(
        "# {kind}\n\n{}\n\n`apiVersion: {}`, short name `{}`. Fields marked * are required.\n",
        kind.description(),
        crate::API_VERSION,
        kind.short_name()
    );
    for part in ["spec", "status"] {
        let _ = writeln!(page, "\n## {part}\n\n| field | type | meaning |\n|---|---|---|");
        if let Some(schema) = schema.pointer(&format!("/properties/{part}")) {
            fields(&mut page, schema, "");
        }
        let mut rules = Vec::new();
        if let Some(schema) = schema.pointer(&format!("/properties/{part}")) {
            collect_rules(schema, part, &mut rules);
        }
        if !rules.is_empty() {
            let _ = writeln!(page, "\nRules:\n");
            for (place, message) in rules {
                let _ = writeln!(page, "- `{place}`: {message}");
            }
        }
    }
    page
}

fn fields(page: &mut String, schema: &Value, prefix: &str) {
    let required: Vec<&str> = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let star = if required.contains(&name.as_str()) { "*" } else { "" };
        let meaning = text(field, "description").replace('|', "\\|");
        let _ = writeln!(page, "| `{prefix}{name}`{star} | {} | {meaning} |", type_of(field).replace('|', "\\|"));
        fields(page, field, &format!("{prefix}{name}."));
        if let Some(items) = field.get("items") {
            fields(page, items, &format!("{prefix}{name}[]."));
        }
    }
}

fn type_of(field: &Value) -> String {
    if let Some(words) = field.get("enum").and_then(Value::as_array) {
        return words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" | ");
    }
    if text(field, "pattern") == crate::duration::PATTERN {
        return "duration".into();
    }
    let number = |key: &str| field.get(key).and_then(Value::as_i64);
    match text(field, "type") {
        "array" => {
            let most = number("maxItems").map(|most| format!(", at most {most}")).unwrap_or_default();
            format!("list of {}{most}", field.get("items").map(type_of).unwrap_or_default())
        }
        "integer" => match (number("minimum"), number("maximum")) {
            (Some(least), Some(most)) => format!("integer, {least} to {most}"),
            _ => "integer".into(),
        },
        "object" if field.get("additionalProperties").is_some() => "map of text".into(),
        "string" => match number("maxLength") {
            Some(most) => format!("text, at most {most}"),
            None => "time".into(),
        },
        other => other.into(),
    }
}

fn collect_rules(schema: &Value, place: &str, rules: &mut Vec<(String, String)>) {
    for rule in schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
        rules.push((format!("{place}{}", text(rule, "fieldPath")), text(rule, "message").to_owned()));
    }
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        collect_rules(field, &format!("{place}.{name}"), rules);
    }
    if let Some(items) = schema.get("items") {
        collect_rules(items, &format!("{place}[]"), rules);
    }
}

fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}
