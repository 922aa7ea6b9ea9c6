//! A rule in CEL and its Rust form give one verdict, on the same field, in the same words.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use fairlead_api::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::Value;

use crate::strategies;

struct Judge {
    schema: kube_cel::CompiledSchema,
}

impl Judge {
    fn of(kind: Kind) -> Self {
        Self { schema: kube_cel::compile_schema(&crd::schema(kind)["properties"]["spec"]) }
    }

    fn verdict<T: Validate>(&self, new: &T, old: Option<&T>) -> BTreeSet<String> {
        let json = |spec: &T| serde_json::to_value(spec).unwrap();
        let old: Option<Value> = old.map(json);
        match kube_cel::Validator::new().validate_compiled(&self.schema, &json(new), old.as_ref()) {
            Ok(()) => BTreeSet::new(),
            Err(errors) => errors
                .as_slice()
                .iter()
                .map(|error| {
                    assert_eq!(error.kind, kube_cel::ErrorKind::ValidationFailure, "{error}");
                    let path = error.field_path.trim_start_matches('.');
                    let path = if path.is_empty() { "spec".to_owned() } else { format!("spec.{path}") };
                    format!("{path}: {}", error.message)
                })
                .collect(),
        }
    }
}

static CONNECTOR: LazyLock<Judge> = LazyLock::new(|| Judge::of(Kind::Connector));
static CONTRACT: LazyLock<Judge> = LazyLock::new(|| Judge::of(Kind::ApiContract));
static INTEGRATION: LazyLock<Judge> = LazyLock::new(|| Judge::of(Kind::Integration));

fn said(violations: Vec<Violation>) -> BTreeSet<String> {
    violations.iter().map(ToString::to_string).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn connector_rules_agree(spec in strategies::connector()) {
        prop_assert_eq!(CONNECTOR.verdict(&spec, None), said(spec.rules()));
    }

    #[test]
    fn integration_rules_agree(spec in strategies::integration()) {
        prop_assert_eq!(INTEGRATION.verdict(&spec, None), said(spec.rules()));
    }

    #[test]
    fn contract_rules_agree_on_changes(old in strategies::contract(), new in strategies::contract()) {
        let mut own = said(new.rules());
        own.extend(said(new.changes(&old)));
        prop_assert_eq!(CONTRACT.verdict(&new, Some(&old)), own);
    }
}

#[test]
fn a_contract_stays_with_its_scope() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let any = strategies::contract().new_tree(&mut runner).unwrap().current();
    let of = |scope: Option<MasterScope>| ApiContractSpec { master: Some(Master { scope, ..Master::default() }), ..any.clone() };
    let (golden, own, none) =
        (of(Some(MasterScope::Contract)), of(Some(MasterScope::Integration)), ApiContractSpec { master: None, ..any.clone() });
    assert!(own.changes(&none).is_empty() && none.changes(&of(None)).is_empty() && golden.changes(&golden).is_empty());
    for (old, new) in [(&none, &golden), (&golden, &own)] {
        assert!(new.changes(old)[0].to_string().starts_with("spec.master: the scope cannot change within one object"));
    }
}

#[test]
fn a_contract_may_raise_its_minor_version_but_not_its_major_one() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let old = strategies::contract().new_tree(&mut runner).unwrap().current();
    let old = ApiContractSpec { version: "1.4.0".into(), ..old };
    let minor = ApiContractSpec { version: "1.5.0".into(), ..old.clone() };
    let major = ApiContractSpec { version: "2.0.0".into(), ..old.clone() };
    assert!(minor.changes(&old).is_empty());
    assert_eq!(
        major.changes(&old)[0].to_string(),
        "spec.version: the major part of the version cannot change within one object; create a second ApiContract for the new major version and let both stand side by side"
    );
}
