//! Planning of one ApiContract: its schema compiles, its key exists.

use crate::finding::Finding;
use crate::nearest;
use crate::planned::{Memo, Verdict};
use fairlead_api::{ApiContract, Kind, Reason, Validate};
use fairlead_contract::{Contract, SchemaFinding};
use fairlead_model::schema::FieldType;
use fairlead_model::{FieldPath, ObjectRef};
use serde_json::Value;
use std::sync::Arc;

/// A schema compiled, or what is wrong with it.
pub(crate) type Compiled = Arc<Result<Contract, Vec<SchemaFinding>>>;

/// A contract, judged.
#[derive(Debug)]
pub(crate) struct PlannedContract<'a> {
    pub(crate) resource: &'a ApiContract,
    pub(crate) verdict: Verdict,
    /// The schema as JSON.
    pub(crate) schema: Arc<Value>,
    pub(crate) compiled: Compiled,
}

pub(crate) fn plan<'a>(object: &ObjectRef, resource: &'a ApiContract, memo: &Memo, fresh: &mut Memo) -> PlannedContract<'a> {
    let spec = &resource.spec;
    let mut findings: Vec<Finding> = spec.validate().into_iter().map(Finding::from).collect();
    let schema = Value::Object(spec.schema.clone());
    let digest = fairlead_contract::digest(&schema);
    let compile = || {
        let compiled = Arc::new(Contract::compile(&schema));
        (Arc::new(schema), compiled)
    };
    let (schema, compiled) =
        fresh.contracts.entry(digest.clone()).or_insert_with(|| memo.contracts.get(&digest).cloned().unwrap_or_else(compile)).clone();
    match compiled.as_ref() {
        Err(wrong) => findings.extend(wrong.iter().map(|finding| {
            let place = format!("spec.schema{}", dotted(&finding.pointer));
            Finding::error(Reason::SchemaInvalid, place, finding.message.clone(), finding.hint.clone().unwrap_or_default())
        })),
        Ok(contract) => {
            let names: Vec<String> = contract.fields().keys().map(ToString::to_string).collect();
            for (index, key) in spec.key.iter().enumerate() {
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
    }
    let verdict = Verdict::of(Kind::ApiContract, object.clone(), resource.metadata.generation.unwrap_or_default(), findings);
    PlannedContract { resource, verdict, schema, compiled }
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
