//! Which fields may be shown outside the store. Fields that the contract classifies as personal are masked, and so is what nobody
//! classified: a native field that no mapping row joins to a canonical field.

use crate::program::{Participant, Program};
use fairlead_model::FieldPath;
use fairlead_model::schema::Classification;
use std::collections::BTreeSet;

/// The fields of one participant's records that may be shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Masks {
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
        let canonical = fields.keys().filter(|path| open(path)).cloned().collect();
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
