//! Which fields may be shown outside the store. Fields that the contract classifies as personal are masked, and so is what nobody
//! classified: a native field that no mapping row joins to a canonical field.

use crate::program::{Participant, Program};
use fairlead_model::FieldPath;
use fairlead_model::schema::Classification;
use std::collections::BTreeSet;

/// The fields of one participant's records that may be shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Masks {
    /// None of them is an object of which the contract says what it holds: a golden record may hold more there, of other business units.
    canonical: BTreeSet<FieldPath>,
    native: BTreeSet<FieldPath>,
}

/// Which form a document has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// By the contract.
    Canonical,
    /// As the system has it.
    Native,
}

impl Masks {
    pub(crate) fn of(program: &Program, participant: &Participant) -> Self {
        let fields = program.contract.fields();
        let personal: Vec<&FieldPath> =
            fields.iter().filter(|(_, field)| field.classification == Some(Classification::Personal)).map(|(path, _)| path).collect();
        let touches = |a: &FieldPath, b: &FieldPath| a.starts_with(b) || b.starts_with(a);
        let open = |path: &FieldPath| !personal.iter().any(|personal| touches(path, personal));
        let told = |path: &FieldPath| path.list_root().is_none() && fields.keys().any(|inner| inner != path && inner.starts_with(path));
        let canonical = fields.keys().filter(|path| open(path) && !told(path)).cloned().collect();
        let (mut native, mut closed) = (BTreeSet::new(), BTreeSet::new());
        for lineage in participant.table.lineage() {
            for trace in lineage.read.iter().chain(&lineage.write) {
                let shown = open(&lineage.unit) && trace.canonical.iter().all(open);
                let side = if shown { &mut native } else { &mut closed };
                side.extend(trace.native.iter().cloned());
            }
        }
        native.retain(|path| !closed.iter().any(|closed| touches(path, closed)));
        Self { canonical, native }
    }

    /// Whether the value at this path may be shown.
    #[must_use]
    pub fn shows(&self, form: Form, path: &FieldPath) -> bool {
        let open = match form {
            Form::Canonical => &self.canonical,
            Form::Native => &self.native,
        };
        open.contains(path) || open.iter().any(|open| path.starts_with(open))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::sample;
    use serde_json::{Value, json};
    use std::sync::Arc;

    #[test]
    fn what_lies_in_an_object_is_shown_only_where_the_contract_names_it() {
        let mut unit = sample::unit();
        let mut schema = Value::clone(&unit.contract.schema);
        let closed = |properties: Value| json!({"type": "object", "additionalProperties": false, "properties": properties});
        schema["properties"]["ext"] = closed(json!({"europe": closed(json!({"vatGroup": {"type": "string"}}))}));
        schema["properties"]["contacts"] = json!({"type": "array", "items": closed(json!({"title": {"type": "string"}}))});
        schema["properties"]["home"] = closed(json!({
            "city": {"type": "string"}, "street": {"type": "string", "x-classification": "Personal"},
        }));
        unit.contract.fields = fairlead_contract::Contract::compile(&schema).unwrap().fields().clone();
        unit.contract.schema = schema.into();
        let program = Program::compile(Arc::new(unit)).unwrap();
        let masks = Masks::of(&program, program.participant("crm").unwrap());
        let shows = |path: &str| masks.shows(Form::Canonical, &path.parse().unwrap());
        for shown in ["name", "ext.europe.vatGroup", "contacts", "home.city"] {
            assert!(shows(shown), "{shown}");
        }
        for masked in ["ext.america.ssn", "ext.europe.other", "ext", "home.street", "home.other", "nothing"] {
            assert!(!shows(masked), "{masked}");
        }
    }
}
