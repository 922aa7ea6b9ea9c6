//! The CustomResourceDefinitions, generated from the types. `crds/` holds what [`crds_yaml`] gives; a test compares.
//!
//! Three things are settled here, because neither the types nor kube's generator say them: nothing is `nullable` (the API server
//! then drops explicit nulls, so `field: null` means the same as leaving it out), object names are limited to labels,
//! and the root's text is the kind's own. Use [`crds`], not the `crd()` that kube derives.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::common::{LABEL, MAX_LABEL};
use crate::manifest::Kind;

/// The three definitions, in the order of their names.
pub fn crds() -> Vec<CustomResourceDefinition> {
    Kind::ALL.iter().map(|kind| definition(*kind)).collect()
}

/// The definitions as files: name and YAML text. The text is the one checked in under `crds/`.
pub fn crds_yaml() -> Vec<(String, String)> {
    crds()
        .iter()
        .map(|crd| {
            let name = crd.metadata.name.clone().unwrap_or_default();
            let mut value = serde_json::to_value(crd).unwrap_or_default();
            whole_numbers(&mut value);
            let text = serde_saphyr::to_string(&value).unwrap_or_default();
            (format!("{name}.yaml"), text)
        })
        .collect()
}

/// The definition of one kind.
pub fn definition(kind: Kind) -> CustomResourceDefinition {
    let mut crd = match kind {
        Kind::Connector => crate::Connector::crd(),
        Kind::ApiContract => crate::ApiContract::crd(),
        Kind::Integration => crate::Integration::crd(),
    };
    for version in &mut crd.spec.versions {
        let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else {
            continue;
        };
        let Ok(mut value) = serde_json::to_value(&*schema) else { continue };
        settle(&mut value);
        value["description"] = json!(kind.description());
        value["properties"]["metadata"] = metadata();
        if let Ok(settled) = serde_json::from_value(value) {
            *schema = settled;
        }
    }
    crd
}

/// The schema of a kind's manifest, as JSON.
pub fn schema(kind: Kind) -> Value {
    let crd = definition(kind);
    let schema = crd.spec.versions.into_iter().next().and_then(|version| version.schema);
    let mut value = schema.and_then(|schema| schema.open_api_v3_schema).map(|schema| json!(schema)).unwrap_or_default();
    whole_numbers(&mut value);
    value
}

/// What a name must be: a label, for it stands in labels, and references to it are written as `namespace/name`. The name is the one
/// part of the metadata that a definition may bound; the API server refuses anything else here, a description included.
fn metadata() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {
                "type": "string", "maxLength": MAX_LABEL, "pattern": LABEL,
                "description": "The object's name: small letters, digits and dashes.",
            },
        },
    })
}

/// Takes out what the generator adds and the API server should not see.
fn settle(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("nullable");
    object.remove("title");
    if object.get("type") == Some(&json!("string")) && object.get("minLength") == Some(&json!(0)) {
        object.remove("minLength");
    }
    if let Some(Value::String(description)) = object.get_mut("description") {
        *description = description.replace('\n', " ");
    }
    each_child(object, settle);
}

/// An optional block's schema comes as "this or null", and kube's generator then lets the type's words win over the field's. The
/// field's say more (what holds when it is left out), so the choice is taken out here, before kube sees it.
pub(crate) fn keep_field_words(schema: &mut schemars::Schema) {
    if let Some(object) = schema.as_object_mut() {
        each_child(object, unwrap_option);
    }
}

fn unwrap_option(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some([inner, null]) = object.get("anyOf").and_then(Value::as_array).map(Vec::as_slice)
        && null.get("type") == Some(&json!("null"))
        && let Some(mut inner) = inner.as_object().cloned()
    {
        object.remove("anyOf");
        inner.append(object);
        *object = inner;
    }
    each_child(object, unwrap_option);
}

/// Runs over the schemas directly below a schema.
pub(crate) fn each_child(object: &mut Map<String, Value>, mut visit: impl FnMut(&mut Value)) {
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(&mut visit);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = object.get_mut(key)
            && child.is_object()
        {
            visit(child);
        }
    }
}

/// Bounds are floats in the API's own types; whole ones are written as whole numbers.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Number(number) if number.is_f64() => {
            if let Some(whole) = number.to_string().strip_suffix(".0").and_then(|text| text.parse::<i64>().ok()) {
                *value = json!(whole);
            }
        }
        _ => {}
    }
}
