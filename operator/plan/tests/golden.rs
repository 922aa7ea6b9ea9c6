//! Plans as text: each `golden/*.yaml` is planned, and `golden/*.txt` holds what must come out, findings word for word.
//!
//! A first line `# with: FILE` lays the file's documents over those of another; a document of the same kind and name replaces, `absent: true`
//! takes one away. A line `# incomplete` plans as a check of some files does. `UPDATE_GOLDEN=1` writes the texts anew; read the difference.

#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on says so by panicking.

use fairlead_api::Kind;
use fairlead_mapping::{Lookups, Table, TableSource};
use fairlead_model::Timestamp;
use fairlead_plan::{Aspect, Config, Moment, Severity, World, plan, plan_text, statuses};
use fairlead_systems::Catalog;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn documents(text: &str) -> Vec<Value> {
    fairlead_api::manifest::from_yaml(text).unwrap_or_else(|fault| panic!("{fault}"))
}

fn identity(document: &Value) -> [Option<&Value>; 3] {
    [document.get("kind"), document.pointer("/metadata/namespace"), document.pointer("/metadata/name")]
}

fn load(path: &Path) -> (Vec<Value>, bool) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let header = |mark: &str| text.lines().find_map(|line| line.strip_prefix(mark)).map(str::trim);
    let mut all = header("# with:").map(|base| load(&golden().join(base)).0).unwrap_or_default();
    for document in documents(&text) {
        all.retain(|known| identity(known) != identity(&document));
        if document.get("absent").is_none() {
            all.push(document);
        }
    }
    (all, header("# incomplete").is_none())
}

fn planned_text(documents: &[Value], complete: bool) -> String {
    let world = World::of_manifests(documents, complete);
    plan_text(&plan(&world, Catalog::builtin(), &Config::default(), Timestamp::parse("2026-11-23T00:00:00Z").unwrap()))
}

fn compare(path: &Path, text: &str) -> Option<String> {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, text).unwrap();
        return None;
    }
    let wanted = std::fs::read_to_string(path).unwrap_or_default();
    (wanted != text).then(|| format!("{} differs; now it would be:\n{text}", path.display()))
}

fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = std::fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    cases.sort();
    assert!(cases.len() > 8, "the golden files are not where they should be");
    cases
}

#[test]
fn plans_come_out_as_written() {
    let wrong: Vec<String> = cases()
        .into_iter()
        .filter_map(|case| {
            let (documents, complete) = load(&case);
            compare(&case.with_extension("txt"), &planned_text(&documents, complete))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Reason and message of the conditions `Accepted` and `ResolvedRefs`, where they are not True.
fn told(conditions: &[Condition]) -> BTreeMap<&str, (&str, &str)> {
    let judged = conditions.iter().filter(|told| ["Accepted", "ResolvedRefs"].contains(&&*told.type_) && told.status != "True");
    judged.map(|told| (&*told.type_, (&*told.reason, &*told.message))).collect()
}

/// `fairlead check` prints each finding's reason and text; the conditions carry the same.
#[test]
fn a_condition_says_what_the_checker_says_of_every_golden_fault() {
    let (mut compared, moment) = (0, Moment { now: Timestamp(0), listening_since: Timestamp(0) });
    for case in cases() {
        let (documents, complete) = load(&case);
        let world = World::of_manifests(&documents, complete);
        let planned = plan(&world, Catalog::builtin(), &Config::default(), Timestamp(0));
        let statuses = statuses(&world, &planned, None, moment, &Config::default());
        for verdict in planned.verdicts() {
            let object = &verdict.object;
            let conditions = match verdict.kind {
                Kind::Connector => &statuses.connectors[object].conditions,
                Kind::ApiContract => &statuses.contracts[object].conditions,
                Kind::Integration => &statuses.integrations[object].conditions,
            };
            let mut said = BTreeMap::new();
            let mut texts = BTreeMap::new();
            for (condition, aspect) in [("Accepted", Aspect::Spec), ("ResolvedRefs", Aspect::References)] {
                let of = |severity: Severity| verdict.findings.iter().filter(move |f| f.aspect == aspect && f.severity == severity);
                let weighty = if of(Severity::Error).next().is_some() { Severity::Error } else { Severity::Unknown };
                if let Some(first) = of(weighty).next() {
                    said.insert(condition, first.reason.to_string());
                    texts.insert(condition, of(weighty).map(ToString::to_string).collect::<Vec<_>>());
                }
            }
            let carried = told(conditions);
            let reasons: BTreeMap<&str, String> =
                carried.iter().map(|(condition, (reason, _))| (*condition, (*reason).to_owned())).collect();
            assert_eq!(reasons, said, "{}: {} {object}", case.display(), verdict.kind);
            for (condition, texts) in texts {
                let (message, whole) = (carried[condition].1, texts.join("; "));
                compared += texts.len();
                // A condition is short: whole findings from the first on, and how many more there are.
                let same = message == whole
                    || message.rsplit_once("; and ").is_some_and(|(begun, more)| {
                        whole.starts_with(begun)
                            && texts.iter().any(|text| begun.ends_with(text))
                            && more.ends_with("more (see `fairlead check`)")
                    });
                assert!(same, "{}: {} {object}: {condition}:\n{message}\n{whole}", case.display(), verdict.kind);
            }
        }
    }
    assert!(compared > 60, "{compared} findings are no table");
}

fn quickstart() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/quickstart");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files.iter().flat_map(|file| documents(&std::fs::read_to_string(file).unwrap())).collect()
}

#[test]
fn the_quickstart_plans_without_a_finding() {
    let documents = quickstart();
    let planned = plan(&World::of_manifests(&documents, true), Catalog::builtin(), &Config::default(), Timestamp(0));
    let findings: Vec<String> = planned.verdicts().flat_map(|verdict| &verdict.findings).map(ToString::to_string).collect();
    assert_eq!(findings, Vec::<String>::new());
    assert_eq!((planned.units.connectors.len(), planned.units.integrations.len()), (2, 1));
    let different = compare(&golden().join("quickstart.txt"), &planned_text(&documents, true));
    assert!(different.is_none(), "{}", different.unwrap_or_default());
}

#[test]
fn the_gateway_example_is_the_quickstarts_contract_with_operations_and_plans_without_a_finding() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/gateway/customer-v1.yaml");
    let served = documents(&std::fs::read_to_string(path).unwrap()).remove(0);
    let mut all = quickstart();
    let plain = all.iter_mut().find(|document| document["kind"] == "ApiContract").unwrap();
    for part in ["entity", "version", "key", "schema", "lifecycle"] {
        assert_eq!(plain["spec"][part], served["spec"][part], "{part}");
    }
    *plain = served;
    let planned = plan(&World::of_manifests(&all, true), Catalog::builtin(), &Config::default(), Timestamp(0));
    let findings: Vec<String> = planned.verdicts().flat_map(|verdict| &verdict.findings).map(ToString::to_string).collect();
    assert_eq!(findings, Vec::<String>::new());
    assert_eq!(planned.units.routes.values().map(|route| route.path()).collect::<Vec<_>>(), ["/sales/customer/v1"]);
}

#[test]
fn the_rollout_example_is_the_quickstarts_integration_with_a_rollout_and_plans_without_a_finding() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/rollout/integration.yaml");
    let rolled = documents(&std::fs::read_to_string(path).unwrap()).remove(0);
    let mut all = quickstart();
    let plain = all.iter_mut().find(|document| document["kind"] == "Integration").unwrap();
    plain["spec"]["rollout"] = rolled["spec"]["rollout"].clone();
    assert_eq!(*plain, rolled);
    let planned = plan(&World::of_manifests(&all, true), Catalog::builtin(), &Config::default(), Timestamp(0));
    let findings: Vec<String> = planned.verdicts().flat_map(|verdict| &verdict.findings).map(ToString::to_string).collect();
    assert_eq!(findings, Vec::<String>::new());
    let rollout = planned.units.integrations.values().next().and_then(|unit| unit.rollout.clone()).unwrap();
    assert_eq!((rollout.shadow.as_secs(), rollout.canary.map(|canary| (canary.percent, canary.lasts.as_secs()))), (300, Some((5, 600))));
}

#[test]
fn the_three_units_of_the_golden_record_example_plan_without_a_finding() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/golden-record");
    let files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let all: Vec<Value> = files.iter().flat_map(|file| documents(&std::fs::read_to_string(file).unwrap())).collect();
    let planned = plan(&World::of_manifests(&all, true), Catalog::builtin(), &Config::default(), Timestamp(0));
    // One system lacks a field that others hold, which is no fault.
    let errors: Vec<String> = planned
        .verdicts()
        .flat_map(|verdict| &verdict.findings)
        .filter(|f| f.severity == Severity::Error)
        .map(ToString::to_string)
        .collect();
    assert_eq!(errors, Vec::<String>::new());
    let units: Vec<_> =
        planned.units.integrations.values().map(|unit| (unit.realm(), unit.participants.len(), unit.siblings().len())).collect();
    assert_eq!(units, vec![("contract:contracts/customer-v1".to_owned(), 1, 2); 3]);
}

#[test]
fn a_quickstart_customer_that_netsuite_does_not_know_gets_a_subsidiary_by_country_and_keeps_the_one_it_has() {
    let planned = plan(&World::of_manifests(&quickstart(), true), Catalog::builtin(), &Config::default(), Timestamp(0));
    let unit = planned.units.integrations.values().next().unwrap();
    let erp = unit.participant("erp").unwrap();
    let table = Table::compile(&TableSource {
        rows: &erp.rows,
        lookups: &Lookups::default(),
        native: &erp.native,
        canonical: &unit.contract.fields,
        entity: &unit.entity,
        key: Some("externalId"),
        when: None,
        read: true,
        write: true,
    })
    .unwrap();
    let subsidiary = |record: Value| {
        let written = table.to_native(record.as_object().unwrap(), &|_, _| None).unwrap();
        written.rows.into_iter().find(|row| row.native.to_string() == "subsidiary.id").map(|row| row.value)
    };
    assert_eq!(subsidiary(json!({"name": "A", "address": {"country": "CA"}})), Some(json!("2")));
    assert_eq!(subsidiary(json!({"name": "A", "address": {"country": "FR"}})), Some(json!("3")));
    assert_eq!(subsidiary(json!({"name": "A"})), Some(json!("3")));
    assert_eq!(subsidiary(json!({"name": "A", "address": {"country": "FR"}, "subsidiary": "1"})), Some(json!("1")));
}
