//! Planning of one ApiContract: its schema compiles, its key exists.

use crate::finding::Finding;
use crate::integration::{MasterRules, Rules};
use crate::nearest;
use crate::planned::{Memo, Verdict};
use fairlead_api::{ApiContract, Extension, Kind, Reason, Validate};
use fairlead_contract::{Contract, EXTENSIONS, SchemaFinding, extended};
use fairlead_model::schema::FieldType;
use fairlead_model::{FieldPath, ObjectRef};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A schema compiled, or what is wrong with it.
pub(crate) type Compiled = Arc<Result<Contract, Vec<SchemaFinding>>>;

/// A contract, judged.
#[derive(Debug)]
pub(crate) struct PlannedContract<'a> {
    pub(crate) resource: &'a ApiContract,
    pub(crate) verdict: Verdict,
    /// What everybody's records are, and those of units with fields of their own, by namespace.
    core: Schema,
    units: BTreeMap<String, Schema>,
    /// With the fields of all units: what is served.
    pub(crate) served: Schema,
    /// The rules of the golden records, if all its Integrations feed one.
    pub(crate) master: Option<MasterRules>,
}

/// A schema, and what came of compiling it.
#[derive(Debug, Clone)]
pub(crate) struct Schema {
    /// As JSON.
    pub(crate) text: Arc<Value>,
    pub(crate) compiled: Compiled,
}

impl Schema {
    /// The compiled contract, if the schema is right.
    pub(crate) fn contract(&self) -> Option<&Contract> {
        self.compiled.as_ref().as_ref().ok()
    }

    fn of(schema: Value, memo: &Memo, fresh: &mut Memo) -> Self {
        let digest = fairlead_contract::digest(&schema);
        let compile = || {
            let compiled = Arc::new(Contract::compile(&schema));
            (Arc::new(schema), compiled)
        };
        let (text, compiled) =
            fresh.contracts.entry(digest.clone()).or_insert_with(|| memo.contracts.get(&digest).cloned().unwrap_or_else(compile)).clone();
        Self { text, compiled }
    }
}

impl PlannedContract<'_> {
    /// The schema of the records of Integrations in `namespace`.
    pub(crate) fn schema_for(&self, namespace: &str) -> &Schema {
        self.units.get(namespace).unwrap_or(&self.core)
    }
}

pub(crate) fn plan<'a>(object: &ObjectRef, resource: &'a ApiContract, memo: &Memo, fresh: &mut Memo) -> PlannedContract<'a> {
    let spec = &resource.spec;
    let mut findings: Vec<Finding> = spec.validate().into_iter().map(Finding::from).collect();
    let schema_with = |units: &[Extension]| extended(&spec.schema, units.iter().map(|unit| (unit.namespace.as_str(), &unit.schema)));
    let core = Schema::of(schema_with(&[]), memo, fresh);
    let mut units = BTreeMap::new();
    for unit in &spec.extensions {
        units.insert(unit.namespace.clone(), Schema::of(schema_with(std::slice::from_ref(unit)), memo, fresh));
    }
    let served = Schema::of(schema_with(&spec.extensions), memo, fresh);
    match core.compiled.as_ref() {
        Err(wrong) => findings.extend(wrong.iter().map(|finding| told(finding, "spec.schema", &finding.pointer))),
        Ok(contract) => {
            keys(&spec.key, contract, &mut findings);
            if !spec.extensions.is_empty() && contract.fields().keys().any(|path| path.to_string() == EXTENSIONS) {
                findings.push(Finding::error(
                    Reason::SchemaInvalid,
                    format!("spec.schema.properties.{EXTENSIONS}"),
                    format!("`{EXTENSIONS}` is where the fields of spec.extensions stand"),
                    "give the field another name",
                ));
            } else {
                extensions(&spec.extensions, &units, &served, &mut findings);
            }
        }
    }
    let master = spec.master.as_ref().filter(|master| master.is_golden()).map(|master| {
        // Fields of one unit alone are filled by nobody else, so the rules of all speak of the others. Of a broken schema nothing is known.
        let Some(contract) = core.contract() else { return MasterRules::default() };
        let rules = Rules {
            place: "spec.master",
            matching: &master.match_rules,
            ownership: &master.ownership,
            fields: contract.fields(),
            participants: &[],
        };
        rules.judge(master.tie(), &mut findings)
    });
    let verdict = Verdict::of(Kind::ApiContract, object.clone(), resource.metadata.generation.unwrap_or_default(), findings);
    PlannedContract { resource, verdict, core, units, served, master }
}

fn told(finding: &SchemaFinding, place: &str, pointer: &str) -> Finding {
    let place = format!("{place}{}", dotted(pointer));
    Finding::error(Reason::SchemaInvalid, place, finding.message.clone(), finding.hint.clone().unwrap_or_default())
}

/// The contract's key is made of its fields.
fn keys(keys: &[String], contract: &Contract, findings: &mut Vec<Finding>) {
    let names: Vec<String> = contract.fields().keys().map(ToString::to_string).collect();
    for (index, key) in keys.iter().enumerate() {
        let place = format!("spec.key[{index}]");
        match key.parse::<FieldPath>().ok().and_then(|path| contract.fields().get(&path)) {
            None => findings.push(Finding::error(
                Reason::SchemaInvalid,
                place,
                format!("the schema has no field `{key}`"),
                nearest::hint(key, names.iter().map(String::as_str), "name a property of spec.schema"),
            )),
            Some(field) if matches!(field.kind, FieldType::List | FieldType::Object) => findings.push(Finding::error(
                Reason::SchemaInvalid,
                place,
                format!("`{key}` holds more than one value"),
                "a key is made of single values",
            )),
            Some(_) => {}
        }
    }
}

/// Each unit's schema fits into the contract's, and all of them together do.
fn extensions(extensions: &[Extension], units: &BTreeMap<String, Schema>, served: &Schema, findings: &mut Vec<Finding>) {
    let before = findings.len();
    for (number, extension) in extensions.iter().enumerate() {
        let place = format!("spec.extensions[{number}].schema");
        let wrong = units.get(&extension.namespace).and_then(|unit| unit.compiled.as_ref().as_ref().err());
        let own = format!("/properties/{EXTENSIONS}/properties/{}", extension.namespace);
        findings.extend(
            wrong.into_iter().flatten().map(|finding| told(finding, &place, finding.pointer.strip_prefix(&own).unwrap_or_default())),
        );
        if extension.schema.get("type").and_then(Value::as_str) != Some("object") {
            findings.push(Finding::error(
                Reason::SchemaInvalid,
                format!("{place}.type"),
                "a unit's fields are an object, never null",
                "write type: object",
            ));
        }
    }
    // Together they may have too many fields, or too many bytes.
    if let (true, Err(wrong)) = (findings.len() == before, served.compiled.as_ref()) {
        findings.extend(wrong.iter().map(|finding| told(finding, "spec.extensions", "")));
    }
}

/// A JSON pointer as a continuation of a field's path: `/properties/a~1b/0` becomes `.properties.a/b[0]`.
fn dotted(pointer: &str) -> String {
    pointer
        .split('/')
        .skip(1)
        .map(|step| {
            let step = step.replace("~1", "/").replace("~0", "~");
            if !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit()) { format!("[{step}]") } else { format!(".{step}") }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::dotted;

    #[test]
    fn a_pointer_reads_like_the_rest_of_the_path() {
        assert_eq!(dotted("/properties/a~1b/anyOf/0"), ".properties.a/b.anyOf[0]");
        assert_eq!(dotted(""), "");
    }
}
