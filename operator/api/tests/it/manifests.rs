//! Manifests in, typed resources or words out; and what is typed goes out as it came in.

use fairlead_api::*;
use proptest::prelude::*;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{samples, strategies};

#[derive(Deserialize)]
struct Wrong {
    case: String,
    base: String,
    set: serde_json::Map<String, Value>,
    says: Vec<String>,
}

fn set(manifest: &mut Value, pointer: &str, value: Value) {
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    let parent = manifest.pointer_mut(parent).unwrap_or_else(|| panic!("nothing at {parent}"));
    match (parent, value) {
        (Value::Object(fields), Value::Null) => drop(fields.remove(last)),
        (Value::Object(fields), value) => drop(fields.insert(last.to_owned(), value)),
        (Value::Array(items), Value::Null) => drop(items.remove(last.parse().unwrap())),
        (Value::Array(items), value) => items[last.parse::<usize>().unwrap()] = value,
        (other, _) => panic!("{pointer} leads into {other}"),
    }
}

#[test]
fn wrong_manifests_are_refused_in_words_that_name_the_field_and_the_cure() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/wrong.yaml");
    let table: Vec<Wrong> = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let samples = samples();
    let mut failures = Vec::new();
    for wrong in table {
        let (_, base) = samples.iter().find(|(name, _)| *name == wrong.base).unwrap();
        let mut manifest = base.clone();
        for (pointer, value) in &wrong.set {
            set(&mut manifest, pointer, value.clone());
        }
        let said: Vec<String> = match Resource::read(&manifest) {
            Ok(_) => vec!["nothing".into()],
            Err(violations) => violations.iter().map(ToString::to_string).collect(),
        };
        if said != wrong.says {
            failures.push(format!("{}:\n  says  {}\n  wants {}", wrong.case, said.join("\n        "), wrong.says.join("\n        ")));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_samples_are_valid_and_come_out_as_they_went_in() {
    for (name, manifest) in samples() {
        let resource = Resource::read(&manifest)
            .unwrap_or_else(|violations| panic!("{name}: {}", violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")));
        assert_eq!(resource.to_value().unwrap(), manifest, "{name}");
        assert_eq!(manifest["metadata"]["name"], resource.name());
        assert_eq!(manifest["metadata"]["namespace"], resource.namespace());
    }
}

#[test]
fn the_samples_use_every_field_of_every_spec() {
    fn fields(schema: &Value, path: &str, out: &mut Vec<String>) {
        for (name, child) in schema["properties"].as_object().into_iter().flatten() {
            out.push(format!("{path}.{name}"));
            fields(child, &format!("{path}.{name}"), out);
            fields(&child["items"], &format!("{path}.{name}[]"), out);
        }
    }
    fn used(schema: &Value, value: &Value, path: &str, out: &mut Vec<String>) {
        for (name, child) in value.as_object().into_iter().flatten() {
            let schema = &schema["properties"][name];
            if schema.is_null() {
                continue;
            }
            out.push(format!("{path}.{name}"));
            used(schema, child, &format!("{path}.{name}"), out);
            for item in child.as_array().into_iter().flatten() {
                used(&schema["items"], item, &format!("{path}.{name}[]"), out);
            }
        }
    }
    for kind in Kind::ALL {
        let schema = &crd::schema(kind)["properties"]["spec"];
        let (mut all, mut seen) = (Vec::new(), Vec::new());
        fields(schema, "spec", &mut all);
        for (_, manifest) in samples().iter().filter(|(_, manifest)| manifest["kind"] == kind.name()) {
            used(schema, &manifest["spec"], "spec", &mut seen);
        }
        all.retain(|field| !seen.contains(field));
        assert!(all.is_empty(), "{kind}: no sample shows {all:?}");
    }
}

#[test]
fn an_explicit_null_is_the_same_as_leaving_the_field_out() {
    let (_, mut manifest) = samples().into_iter().find(|(name, _)| name == "integration.yaml").unwrap();
    manifest["spec"]["delivery"] = Value::Null;
    manifest["spec"]["sync"]["tie"] = Value::Null;
    let Resource::Integration(integration) = Resource::read(&manifest).unwrap() else { panic!("another kind") };
    assert_eq!(integration.spec.delivery, None);
    assert_eq!(integration.spec.retry().attempts, 8);
}

#[test]
fn a_status_that_nobody_can_read_does_not_hide_the_spec() {
    let (_, mut manifest) = samples().into_iter().find(|(name, _)| name == "connector.yaml").unwrap();
    manifest["status"] = json!({ "quota": "Plenty" });
    let Resource::Connector(connector) = Resource::read(&manifest).unwrap() else { panic!("another kind") };
    assert_eq!(connector.status, None);
    assert_eq!(connector.spec.host().as_deref(), Some("acme.my.salesforce.com"));
}

#[test]
fn several_documents_in_one_file_are_read_and_others_are_left_to_others() {
    let text = "---\nkind: Secret\napiVersion: v1\n---\n# nothing here\n---\napiVersion: fairlead.dev/v1alpha1\nkind: Connector\n";
    let documents = manifest::from_yaml(text).unwrap();
    assert_eq!(documents.len(), 2);
    assert!(!manifest::is_ours(&documents[0]) && manifest::is_ours(&documents[1]));
    assert!(manifest::from_yaml("a: [").is_err());
}

#[test]
fn what_is_no_yaml_is_told_with_its_line_and_without_a_field() {
    let told = manifest::from_yaml("a:\n\t- b\n").unwrap_err().to_string();
    assert!(
        told.starts_with("is not YAML (") && told.contains("line 2") && told.ends_with("; correct the text at the place named"),
        "{told}"
    );
}

#[test]
fn a_schema_beyond_its_limit_is_refused() {
    let (_, mut manifest) = samples().into_iter().find(|(name, _)| name == "apicontract.yaml").unwrap();
    manifest["spec"]["schema"]["description"] = json!("x".repeat(256 * 1024));
    let said = Resource::read(&manifest).unwrap_err();
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].field, "spec.schema");
}

#[test]
fn consent_is_needed_only_across_namespaces() {
    let consent = AllowedNamespaces { names: vec!["europe".into()] };
    assert!(AllowedNamespaces::permit(None, "contracts", "contracts"));
    assert!(!AllowedNamespaces::permit(None, "contracts", "europe"));
    assert!(AllowedNamespaces::permit(Some(&consent), "contracts", "europe"));
    assert!(!AllowedNamespaces::permit(Some(&consent), "contracts", "asia"));
}

#[test]
fn a_connector_is_named_here_or_in_another_namespace() {
    let (_, manifest) = samples().into_iter().find(|(name, _)| name == "integration.yaml").unwrap();
    let Resource::Integration(integration) = Resource::read(&manifest).unwrap() else { panic!("another kind") };
    let keys: Vec<_> = integration.spec.sync.participants.iter().map(|each| each.connector_key("north-america")).collect();
    assert_eq!(keys, [("north-america", "salesforce"), ("finance", "netsuite")]);
}

fn comes_back<T: Validate + DeserializeOwned + PartialEq + std::fmt::Debug>(spec: &T) -> Result<(), TestCaseError> {
    let value = serde_json::to_value(spec).unwrap();
    prop_assert_eq!(&serde_json::from_value::<T>(value.clone()).unwrap(), spec);
    let yaml = serde_saphyr::to_string(&value).unwrap();
    prop_assert_eq!(&manifest::from_yaml(&yaml).unwrap().remove(0), &value, "{}", yaml);
    // Nothing that a spec of our types can hold is unknown to its schema.
    let unknown: Vec<_> = schema::check_spec(T::KIND, &value).into_iter().filter(|fault| fault.message == "unknown field").collect();
    prop_assert!(unknown.is_empty(), "{:?}", unknown);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_connector_survives_json_and_yaml(spec in strategies::connector()) {
        comes_back(&spec)?;
    }

    #[test]
    fn every_contract_survives_json_and_yaml(spec in strategies::contract()) {
        comes_back(&spec)?;
    }

    #[test]
    fn every_integration_survives_json_and_yaml(spec in strategies::integration()) {
        comes_back(&spec)?;
    }

    #[test]
    fn no_value_makes_the_reader_panic(pointer in prop::sample::select(vec!["/spec", "/spec/sync", "/spec/sync/participants", "/spec/sync/participants/0", "/spec/sync/match", "/spec/contract", "/metadata", "/metadata/name"]), value in prop::sample::select(vec![json!(null), json!(1), json!(1.5), json!(u64::MAX), json!("x"), json!([]), json!([[]]), json!({}), json!([{}]), json!(true)])) {
        let (_, mut manifest) = samples().into_iter().find(|(name, _)| name == "integration.yaml").unwrap();
        set(&mut manifest, pointer, value);
        let _ = Resource::read(&manifest);
    }
}
