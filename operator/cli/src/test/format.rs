//! Test files: what a person writes beside the manifests, and what it means.
//!
//! A test names an Integration or an ApiContract and lists cases. Everything is judged while reading: unknown fields, what excludes each
//! other, and cases that assert nothing, which would pass for ever.

use fairlead_model::document::has_float;
use fairlead_model::{Document, ExternalId, FieldPath, ObjectRef, RecordId};
use fairlead_store::Stage;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The group of files that are read by the command line alone and never applied to a cluster.
pub(crate) const GROUP: &str = "cli.fairlead.dev/";
/// The version of the form below.
const API_VERSION: &str = "cli.fairlead.dev/v1alpha1";
const KIND: &str = "Test";

/// Some cases of one resource.
#[derive(Debug)]
pub(crate) struct Test {
    /// Its name.
    pub object: ObjectRef,
    /// What is tested.
    pub subject: Subject,
    /// The cases; at least one.
    pub cases: Vec<Case>,
}

/// What is tested.
#[derive(Debug)]
pub(crate) enum Subject {
    /// An Integration, with other records that are known.
    Integration(ObjectRef, Vec<(RecordId, BTreeMap<String, ExternalId>)>),
    /// An ApiContract's schema.
    Contract(ObjectRef),
}

/// One case.
#[derive(Debug)]
pub(crate) struct Case {
    /// Its name.
    pub name: String,
    /// The record.
    pub given: Given,
    /// What is asserted.
    pub expect: Expect,
}

/// The record of a case.
#[derive(Debug)]
pub(crate) enum Given {
    /// As a participant shows it.
    Native(String, Document),
    /// As the contract says it.
    Canonical(Document),
}

/// What is asserted; never nothing.
#[derive(Debug, Default)]
pub(crate) struct Expect {
    /// Fields that are not listed may have any value.
    pub subset: bool,
    /// The canonical record.
    pub canonical: Option<Document>,
    /// Instead of a canonical record: the dead letter.
    pub dead_letter: Option<Letter>,
    /// The fields that wait for another record.
    pub waits_for: Option<Vec<FieldPath>>,
    /// What becomes of it in targets.
    pub targets: Vec<(String, Landing)>,
    /// What does not keep the contract; empty: nothing.
    pub violations: Option<Vec<Broken>>,
}

/// What becomes of a record in a target.
#[derive(Debug)]
pub(crate) enum Landing {
    /// It is created with these fields.
    Payload(Document),
    /// Its `when` is false.
    Skipped,
    /// It waits for another record.
    Waits,
    /// It becomes a dead letter.
    DeadLetter(Letter),
}

/// A dead letter, as far as the case says.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Letter {
    /// `Inbound` or `Outbound`.
    pub stage: Option<Stage>,
    /// The reason word.
    pub reason: Option<String>,
    /// The field.
    pub field: Option<String>,
    /// A part of the message.
    pub message: Option<String>,
}

/// A field that does not keep the contract.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Broken {
    /// The field.
    pub field: String,
    /// A part of the message.
    pub message: Option<String>,
}

// === What is written ===

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Manifest {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    spec: Spec,
}

/// Labels and annotations are whoever's; only the names matter here.
#[derive(Deserialize)]
struct Metadata {
    name: String,
    namespace: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    integration: Option<String>,
    contract: Option<String>,
    #[serde(default)]
    records: Vec<OtherRecord>,
    cases: Vec<WrittenCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OtherRecord {
    id: String,
    ids: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCase {
    name: String,
    given: WrittenGiven,
    expect: WrittenExpect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenGiven {
    participant: Option<String>,
    record: Option<Document>,
    canonical: Option<Document>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenExpect {
    #[serde(rename = "match", default)]
    comparison: Comparison,
    canonical: Option<Document>,
    dead_letter: Option<Letter>,
    waits_for: Option<Vec<String>>,
    #[serde(default)]
    targets: Vec<WrittenTarget>,
    valid: Option<bool>,
    violations: Option<Vec<Broken>>,
}

#[derive(Deserialize, Default, PartialEq, Eq)]
enum Comparison {
    #[default]
    Exact,
    Subset,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenTarget {
    name: String,
    payload: Option<Document>,
    #[serde(default)]
    skipped: bool,
    #[serde(default)]
    waits: bool,
    dead_letter: Option<Letter>,
}

/// Reads a test. All that is wrong with its meaning is told at once, each with its place; of its form, the first.
pub(crate) fn read(document: &Value) -> Result<Test, Vec<String>> {
    let text = |field: &str| document.get(field).and_then(Value::as_str).unwrap_or_default();
    if text("apiVersion") != API_VERSION || text("kind") != KIND {
        let found = format!("{} {}", text("apiVersion"), text("kind"));
        return Err(vec![format!("`{found}` is no test; a test has apiVersion: {API_VERSION} and kind: {KIND}")]);
    }
    let manifest: Manifest = serde_path_to_error::deserialize(document).map_err(|error| {
        let path = error.path().to_string();
        vec![format!("{path}: {}", error.into_inner())]
    })?;
    let mut reading = Reading { faults: Vec::new() };
    let test = reading.test(manifest);
    match test {
        Some(test) if reading.faults.is_empty() => Ok(test),
        _ => Err(reading.faults),
    }
}

struct Reading {
    faults: Vec<String>,
}

impl Reading {
    fn fault(&mut self, place: &str, what: impl std::fmt::Display) {
        self.faults.push(format!("{place}: {what}"));
    }

    fn test(&mut self, manifest: Manifest) -> Option<Test> {
        let Spec { integration, contract, records, cases } = manifest.spec;
        let namespace = manifest.metadata.namespace.unwrap_or_else(|| "default".to_owned());
        let qualified = |name: &str| match name.split_once('/') {
            Some((namespace, name)) => ObjectRef::new(namespace, name),
            None => ObjectRef::new(&namespace, name),
        };
        if contract.is_some() && !records.is_empty() {
            self.fault("spec.records", "only an Integration refers to other records");
        }
        let subject = match (integration, contract) {
            (Some(name), None) => Some(Subject::Integration(qualified(&name), self.others(records))),
            (None, Some(name)) => Some(Subject::Contract(qualified(&name))),
            _ => {
                self.fault("spec", "exactly one of integration and contract must be set");
                None
            }
        };
        if cases.is_empty() {
            self.fault("spec.cases", "there is no case");
        }
        let of_contract = matches!(subject, Some(Subject::Contract(_)));
        let mut known: Vec<Case> = Vec::new();
        for (number, case) in cases.into_iter().enumerate() {
            let place = format!("spec.cases[{number}]");
            if known.iter().any(|earlier| earlier.name == case.name) {
                self.fault(&place, format!("there is a case {:?} already", case.name));
            }
            let given = self.given(case.given, of_contract, &format!("{place}.given"));
            let canonical = matches!(given, Some(Given::Canonical(_)));
            let expect = self.expect(case.expect, of_contract, canonical, &format!("{place}.expect"));
            if let Some(given) = given {
                known.push(Case { name: case.name, given, expect });
            }
        }
        Some(Test { object: ObjectRef::new(namespace, manifest.metadata.name), subject: subject?, cases: known })
    }

    fn others(&mut self, records: Vec<OtherRecord>) -> Vec<(RecordId, BTreeMap<String, ExternalId>)> {
        let mut known = Vec::new();
        for (number, record) in records.into_iter().enumerate() {
            match RecordId::parse(&record.id) {
                Some(id) => known.push((id, record.ids.into_iter().map(|(name, id)| (name, ExternalId(id))).collect())),
                None => self.fault(&format!("spec.records[{number}].id"), "is no canonical id, which is a UUID"),
            }
        }
        known
    }

    fn given(&mut self, given: WrittenGiven, of_contract: bool, place: &str) -> Option<Given> {
        for (name, document) in [("record", &given.record), ("canonical", &given.canonical)] {
            if let Some(document) = document {
                self.exact(document, &format!("{place}.{name}"));
            }
        }
        match (given.participant, given.record, given.canonical) {
            (None, None, Some(canonical)) => Some(Given::Canonical(canonical)),
            (Some(participant), Some(record), None) if !of_contract => Some(Given::Native(participant, record)),
            _ if of_contract => {
                self.fault(place, "a contract is given a canonical record and nothing else");
                None
            }
            _ => {
                self.fault(place, "set participant and record (what that system shows), or canonical alone");
                None
            }
        }
    }

    fn expect(&mut self, written: WrittenExpect, of_contract: bool, canonical: bool, place: &str) -> Expect {
        if let Some(document) = &written.canonical {
            self.exact(document, &format!("{place}.canonical"));
        }
        let inbound = written.canonical.is_some() || written.dead_letter.is_some() || written.waits_for.is_some();
        let told = written.valid.is_some() || written.violations.is_some();
        if !inbound && !told && written.targets.is_empty() {
            let words = if of_contract { "valid or violations" } else { "canonical, deadLetter, waitsFor or targets" };
            self.fault(place, format!("nothing is asserted; set {words}"));
        } else if of_contract && (inbound || !written.targets.is_empty()) {
            self.fault(place, "of a contract, only valid and violations can be asserted");
        } else if !of_contract && told {
            self.fault(place, "valid and violations are asserted of a contract; of an Integration, deadLetter is");
        } else if canonical && inbound {
            self.fault(place, "the record is given in canonical form, so only its targets can be asserted");
        }
        if written.dead_letter.is_some() && (written.canonical.is_some() || written.waits_for.is_some() || !written.targets.is_empty()) {
            self.fault(place, "a dead letter has neither canonical form nor targets");
        }
        let violations = match (written.valid, written.violations) {
            (Some(true), None) => Some(Vec::new()),
            (None, Some(violations)) if !violations.is_empty() => Some(violations),
            (None, None) => None,
            _ => {
                self.fault(place, "write valid: true, or list the violations");
                None
            }
        };
        if let Some(letter) = &written.dead_letter {
            self.letter(letter, &format!("{place}.deadLetter"));
        }
        let mut waits_for: Option<Vec<FieldPath>> = None;
        for (number, text) in written.waits_for.iter().flatten().enumerate() {
            match text.parse() {
                Ok(path) => waits_for.get_or_insert_default().push(path),
                Err(error) => self.fault(&format!("{place}.waitsFor[{number}]"), format!("{text:?} is no field path: {error}")),
            }
        }
        let mut targets: Vec<(String, Landing)> = Vec::new();
        for (number, target) in written.targets.into_iter().enumerate() {
            let place = format!("{place}.targets[{number}]");
            if targets.iter().any(|(name, _)| *name == target.name) {
                self.fault(&place, format!("{:?} stands here already", target.name));
            }
            if let Some(landing) = self.landing(target.payload, target.skipped, target.waits, target.dead_letter, &place) {
                targets.push((target.name, landing));
            }
        }
        Expect {
            subset: written.comparison == Comparison::Subset,
            canonical: written.canonical,
            dead_letter: written.dead_letter,
            // An empty list asserts that nothing waits.
            waits_for: waits_for.or_else(|| written.waits_for.map(|_| Vec::new())),
            targets,
            violations,
        }
    }

    fn landing(&mut self, payload: Option<Document>, skipped: bool, waits: bool, letter: Option<Letter>, place: &str) -> Option<Landing> {
        match (payload, skipped, waits, letter) {
            (Some(payload), false, false, None) => {
                self.exact(&payload, &format!("{place}.payload"));
                Some(Landing::Payload(payload))
            }
            (None, true, false, None) => Some(Landing::Skipped),
            (None, false, true, None) => Some(Landing::Waits),
            (None, false, false, Some(letter)) => {
                self.letter(&letter, &format!("{place}.deadLetter"));
                Some(Landing::DeadLetter(letter))
            }
            _ => {
                self.fault(place, "set exactly one of payload, skipped: true, waits: true and deadLetter");
                None
            }
        }
    }

    fn letter(&mut self, letter: &Letter, place: &str) {
        if letter.stage.is_none() && letter.reason.is_none() && letter.field.is_none() && letter.message.is_none() {
            self.fault(place, "nothing is asserted; set reason, field, message or stage");
        }
    }

    /// Documents hold no binary fractions, in tests as elsewhere.
    fn exact(&mut self, document: &Document, place: &str) {
        for (name, value) in document {
            if has_float(value) {
                self.fault(&format!("{place}.{name}"), "holds a number with a fraction, which YAML rounds; decimals are text: \"1234.56\"");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(subject: Value, case: Value) -> Vec<String> {
        let mut spec = json!({"cases": [case]});
        spec.as_object_mut().unwrap().extend(subject.as_object().cloned().unwrap());
        let document = json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "t"}, "spec": spec});
        read(&document).err().unwrap_or_default()
    }

    fn case(given: Value, expect: Value) -> Vec<String> {
        faults(json!({"integration": "customers"}), json!({"name": "one", "given": given, "expect": expect}))
    }

    #[test]
    fn a_case_that_asserts_nothing_is_refused() {
        let native = json!({"participant": "crm", "record": {}});
        let nothing = "spec.cases[0].expect: nothing is asserted; set canonical, deadLetter, waitsFor or targets";
        assert_eq!(case(native.clone(), json!({})), [nothing]);
        assert_eq!(case(native.clone(), json!({"match": "Subset"})), [nothing]);
        let letter = "spec.cases[0].expect.deadLetter: nothing is asserted; set reason, field, message or stage";
        assert_eq!(case(native.clone(), json!({"deadLetter": {}})), [letter]);
        let target = "spec.cases[0].expect.targets[0]: set exactly one of payload, skipped: true, waits: true and deadLetter";
        assert_eq!(case(native.clone(), json!({"targets": [{"name": "erp"}]})), [target]);
        assert_eq!(case(native, json!({"waitsFor": []})), Vec::<String>::new(), "that nothing waits is an assertion");
        let of_contract = faults(json!({"contract": "c"}), json!({"name": "one", "given": {"canonical": {}}, "expect": {}}));
        assert_eq!(of_contract, ["spec.cases[0].expect: nothing is asserted; set valid or violations"]);
    }

    #[test]
    fn what_cannot_be_is_told_with_its_place() {
        let native = json!({"participant": "crm", "record": {"Limit": 0.1}});
        assert_eq!(
            case(native, json!({"canonical": {}, "violations": [{"field": "a"}]})),
            [
                "spec.cases[0].given.record.Limit: holds a number with a fraction, which YAML rounds; decimals are text: \"1234.56\"",
                "spec.cases[0].expect: valid and violations are asserted of a contract; of an Integration, deadLetter is",
            ]
        );
        assert_eq!(
            case(json!({"canonical": {}}), json!({"canonical": {}})),
            ["spec.cases[0].expect: the record is given in canonical form, so only its targets can be asserted"]
        );
        let misspelt = case(json!({"canonical": {}}), json!({"tragets": []}));
        assert!(misspelt[0].starts_with("spec.cases[0].expect.tragets: unknown field `tragets`, expected one of"), "{misspelt:?}");
        let both = faults(
            json!({"integration": "a", "contract": "b"}),
            json!({"name": "one", "given": {"canonical": {}}, "expect": {"valid": true}}),
        );
        assert!(both.contains(&"spec: exactly one of integration and contract must be set".to_owned()), "{both:?}");
        let other = read(&json!({"apiVersion": "cli.fairlead.dev/v9", "kind": "Test"})).unwrap_err();
        assert_eq!(other, ["`cli.fairlead.dev/v9 Test` is no test; a test has apiVersion: cli.fairlead.dev/v1alpha1 and kind: Test"]);
    }
}
