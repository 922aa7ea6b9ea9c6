//! What every schema must have so that the API server takes it, its costs stay bounded, and kubectl can explain it.

use fairlead_api::{Kind, crd};
use serde_json::{Value, json};

/// The keywords that may appear. `schema.rs` judges by these; a new one must be taught there first.
const KEYWORDS: &[&str] = &[
    "type",
    "description",
    "properties",
    "required",
    "items",
    "additionalProperties",
    "enum",
    "pattern",
    "format",
    "default",
    "maxLength",
    "minLength",
    "maxItems",
    "minItems",
    "maxProperties",
    "minimum",
    "maximum",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-validations",
    "x-kubernetes-preserve-unknown-fields",
];

fn walk(schema: &Value, path: &str, faults: &mut Vec<String>) {
    let object = schema.as_object().unwrap();
    let has = |key: &str| object.contains_key(key);
    let mut fault = |text: &str| faults.push(format!("{path}: {text}"));
    for key in object.keys().filter(|key| !KEYWORDS.contains(&key.as_str())) {
        fault(&format!("uses {key}"));
    }
    if object.get("description").and_then(Value::as_str).is_none_or(str::is_empty) && !path.ends_with("[]") && path != "metadata" {
        fault("has no description");
    }
    match object.get("type").and_then(Value::as_str) {
        None => fault("has no type"),
        Some("string") => {
            if !has("maxLength") && !has("enum") && object.get("format") != Some(&json!("date-time")) {
                fault("has no maxLength");
            }
            if let Some(pattern) = object.get("pattern").and_then(Value::as_str) {
                assert!(pattern.starts_with('^') && pattern.ends_with('$'), "{path}: the pattern is not anchored");
                regex::Regex::new(pattern).unwrap();
            }
        }
        Some("integer") => {
            if !has("minimum") {
                fault("has no minimum");
            }
            if path.starts_with("spec") && !has("maximum") {
                fault("has no maximum");
            }
        }
        Some("array") => {
            if !has("maxItems") {
                fault("has no maxItems");
            }
            match object.get("x-kubernetes-list-type").and_then(Value::as_str) {
                None => fault("does not say what kind of list it is"),
                Some("map") => {
                    let items = &object["items"];
                    for key in object["x-kubernetes-list-map-keys"].as_array().unwrap() {
                        let required = items["required"].as_array().is_some_and(|all| all.contains(key));
                        let default = !items["properties"][key.as_str().unwrap()]["default"].is_null();
                        if !required && !default {
                            fault(&format!("is keyed by {key}, which is neither required nor defaulted"));
                        }
                    }
                }
                Some(_) => {}
            }
        }
        Some("object") => {
            let free = object.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
            if has("additionalProperties") && !has("maxProperties") {
                fault("has no maxProperties");
            }
            if !has("properties") && !has("additionalProperties") && !free {
                fault("has no properties");
            }
        }
        Some("boolean") => {}
        Some(other) => fault(&format!("is of type {other}")),
    }
    if has("default") && !path.ends_with(".canonical") && !path.ends_with(".native") {
        fault("has a default, which GitOps tools show as drift");
    }
    if let Some(format) = object.get("format").and_then(Value::as_str)
        && !["int32", "int64", "date-time"].contains(&format)
    {
        fault(&format!("has the format {format}"));
    }
    for (name, child) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
        walk(child, format!("{path}.{name}").trim_start_matches('.'), faults);
    }
    if let Some(items) = object.get("items") {
        walk(items, &format!("{path}[]"), faults);
    }
    if let Some(values) = object.get("additionalProperties") {
        walk(values, &format!("{path}.*"), faults);
    }
}

#[test]
fn every_field_has_a_type_a_bound_and_a_description() {
    let mut faults = Vec::new();
    for kind in Kind::ALL {
        walk(&crd::schema(kind), "", &mut faults);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_definition_has_one_stored_version_with_a_status_subresource() {
    for crd in fairlead_api::crds() {
        assert_eq!(crd.spec.group, fairlead_api::GROUP);
        assert_eq!(crd.spec.scope, "Namespaced");
        assert_eq!(crd.spec.names.categories, Some(vec!["fairlead".to_owned()]));
        let [version] = crd.spec.versions.as_slice() else { panic!("{} has several versions", crd.spec.names.kind) };
        assert!(version.storage && version.served && version.name == fairlead_api::VERSION);
        assert!(version.subresources.as_ref().is_some_and(|subresources| subresources.status.is_some()));
        let kind: Kind = crd.spec.names.kind.parse().unwrap();
        assert_eq!(crd.spec.names.plural, kind.plural());
        assert_eq!(crd.spec.names.short_names, Some(vec![kind.short_name().to_owned()]));
    }
}

#[test]
fn every_rule_compiles_and_its_words_fit() {
    for kind in Kind::ALL {
        let schema = crd::schema(kind);
        let compiled = kube_cel::compile_schema(&schema);
        assert!(!compiled.has_errors(), "{kind}: {:?}", compiled.compilation_errors());
        fn messages(schema: &Value, each: &mut dyn FnMut(&str)) {
            for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                each(rule["message"].as_str().unwrap());
            }
            for child in schema["properties"].as_object().into_iter().flat_map(|all| all.values()) {
                messages(child, each);
            }
            if schema["items"].is_object() {
                messages(&schema["items"], each);
            }
        }
        messages(&schema, &mut |message| {
            assert!(message.len() <= 2048 && !message.contains('\n'), "the API server refuses the message: {message}");
        });
    }
}
