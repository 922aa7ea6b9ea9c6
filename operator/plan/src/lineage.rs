//! Lineage: for each canonical field, where its value comes from, where it goes, by which row, and whose value wins.
//!
//! Read off the units by the compiler that runtimes use, so that it tells of what runs and not of what was meant.

use crate::planned::Planned;
use fairlead_mapping::{How, Lookups, Table, TableSource, Trace};
use fairlead_model::unit::{IntegrationUnit, ObjectKey, ParticipantUnit};
use fairlead_model::{FieldPath, ObjectRef};
use std::collections::BTreeMap;

/// The lineage of an Integration's fields, by canonical path (lists by their root).
pub type Lineage = BTreeMap<FieldPath, Vec<Passage>>;

/// One row that carries a canonical field in or out of a system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// The participant.
    pub participant: String,
    /// Its Connector.
    pub connector: ObjectRef,
    /// The native entity.
    pub entity: String,
    /// Into the canonical record, or out of it.
    pub direction: Direction,
    /// The native fields: those looked at on the way in, the one written on the way out.
    pub native: Vec<FieldPath>,
    /// The row's number among the participant's rows, from 0.
    pub row: usize,
    /// How the value passes.
    pub how: How,
    /// Whether this participant's role owns the field: its value wins.
    pub owns: bool,
}

/// Which way a value passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the system into the canonical record.
    In,
    /// From the canonical record into the system.
    Out,
}

impl Planned {
    /// The lineage of an Integration that plans; empty otherwise.
    #[must_use]
    pub fn lineage(&self, object: &ObjectRef) -> Lineage {
        self.units.integrations.get(&ObjectKey::from(object)).map(|unit| lineage(unit)).unwrap_or_default()
    }
}

fn lineage(unit: &IntegrationUnit) -> Lineage {
    let mut lineage = Lineage::new();
    let lookups = Lookups::of(&unit.lookups);
    for participant in &unit.participants {
        let write = participant.write.as_ref();
        let table = Table::compile(&TableSource {
            rows: &participant.rows,
            lookups: &lookups,
            native: &participant.native,
            canonical: &unit.contract.fields,
            entity: &unit.entity,
            key: write.and_then(|write| write.key.as_deref()),
            when: write.and_then(|write| write.when.as_deref()),
            read: participant.read.is_some(),
            write: write.is_some(),
        });
        for field in table.iter().flat_map(Table::lineage) {
            let owns = owner(unit, &field.unit) == Some(participant.role.as_str());
            let inwards = field.read.iter().map(|trace| (Direction::In, trace));
            let outwards = field.write.iter().map(|trace| (Direction::Out, trace));
            let passages = inwards.chain(outwards).map(|(direction, trace)| passage(participant, direction, trace, owns));
            lineage.entry(field.unit.clone()).or_default().extend(passages);
        }
    }
    lineage
}

fn passage(participant: &ParticipantUnit, direction: Direction, trace: &Trace, owns: bool) -> Passage {
    Passage {
        participant: participant.called().to_owned(),
        connector: participant.connector.clone(),
        entity: participant.entity.clone(),
        direction,
        native: trace.native.clone(),
        row: trace.row,
        how: trace.how,
        owns,
    }
}

fn owner<'a>(unit: &'a IntegrationUnit, field: &FieldPath) -> Option<&'a str> {
    let name = field.to_string();
    unit.ownership.iter().find(|rule| rule.fields.iter().any(|each| each == "*" || *each == name)).map(|rule| rule.role.as_str())
}
