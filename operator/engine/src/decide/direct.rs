//! A write of an API caller that goes to one participant at once: what it changes, what of it is refused, and what is known when the
//! participant has acknowledged it.
//!
//! It counts as an edit that was made in that participant: other participants get it through their lanes, and ownership is the participant's.
//! A person who edits a field that another system owns sees it put back; a caller is told beforehand.

use crate::decide::inbound;
use crate::decide::ownership::{self, Verdict};
use crate::program::{Participant, Program};
use fairlead_contract::EXTENSIONS;
use fairlead_model::schema::{CanonicalSchema, FieldType};
use fairlead_model::state::ParticipantState;
use fairlead_model::{Document, ExternalId, FieldPath, RecordId, Timestamp, document};
use fairlead_store::{AbsorbRecord, Fate, FieldChange, Known, Origin, Provenance, Record, RecordChange};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A field that cannot be written, and why, without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The canonical field.
    pub field: FieldPath,
    /// Why.
    pub message: String,
}

/// The canonical units (a list counts as one) that differ between two documents, with the values they should have; null takes one away.
#[must_use]
pub fn changes(program: &Program, before: &Document, after: &Document) -> Vec<(FieldPath, Value)> {
    let fields = &program.unit.contract.fields;
    let is_shell = |path: &FieldPath, kind: FieldType| {
        kind == FieldType::Object && fields.keys().any(|other| other != path && other.starts_with(path))
    };
    let units: BTreeSet<FieldPath> = fields
        .iter()
        .filter(|(path, field)| !is_shell(path, field.kind))
        .map(|(path, _)| path.list_root().unwrap_or_else(|| path.clone()))
        .collect();
    units
        .into_iter()
        .chain(foreign_extensions(fields, before, after))
        .filter(|unit| document::present(before, unit) != document::present(after, unit))
        .map(|unit| {
            let value = document::present(after, &unit).cloned().unwrap_or(Value::Null);
            (unit, value)
        })
        .collect()
}

/// The same as the history of a record, which `after` is from now on.
#[must_use]
pub fn history(program: &Program, before: &Record, after: &Record) -> Vec<FieldChange> {
    let change = |(unit, to): (FieldPath, Value)| FieldChange {
        record: after.id,
        from: document::present(&before.document, &unit).cloned(),
        to: Some(to).filter(|to| !to.is_null()),
        field: Some(unit),
        fate: Fate::Won,
    };
    changes(program, &before.document, &after.document).into_iter().map(change).collect()
}

/// The fields of business units that this Integration does not know (`ext.europe`): the contract has them, and its callers may send them to an
/// Integration of another namespace. They must be refused there and not lost.
fn foreign_extensions(fields: &CanonicalSchema, before: &Document, after: &Document) -> BTreeSet<FieldPath> {
    let units = [before, after].into_iter().filter_map(|document| document.get(EXTENSIONS)?.as_object()).flat_map(|units| units.keys());
    let paths = units.filter_map(|unit| format!("{EXTENSIONS}.{unit}").parse::<FieldPath>().ok());
    paths.filter(|path| !fields.keys().any(|field| field.starts_with(path))).collect()
}

/// What `source` cannot take of these changes to a record, which is new where nothing is known.
#[must_use]
pub fn refused(
    program: &Program,
    source: &Participant,
    changes: &[(FieldPath, Value)],
    known: Option<&Known>,
    now: Timestamp,
) -> Vec<Refused> {
    let held: BTreeSet<&FieldPath> = source.table.writable_units().iter().collect();
    changes
        .iter()
        .filter_map(|(field, _)| {
            let message = if !held.contains(field) {
                format!("is not written to {}", source.unit.called())
            } else if ownership::judge(&program.unit, &source.unit, field, known, Some(now)) == Verdict::Foreign {
                let owner = ownership::owner(&program.unit.ownership, field).unwrap_or("another system");
                format!("belongs to {owner} and would be put back")
            } else {
                return None;
            };
            Some(Refused { field: field.clone(), message })
        })
        .collect()
}

/// A document with changes laid over it.
#[must_use]
pub fn apply(mut document: Document, changes: &[(FieldPath, Value)]) -> Document {
    for (unit, value) in changes {
        if value.is_null() {
            document::remove(&mut document, unit);
        } else {
            document::set(&mut document, unit, value.clone());
        }
    }
    document
}

/// The record as it will be when the write is acknowledged.
#[must_use]
pub fn wanted(source: &Participant, id: RecordId, known: Option<&Known>, changes: &[(FieldPath, Value)], now: Timestamp) -> Record {
    let base = known.map(|known| known.record.clone()).unwrap_or_else(|| Record {
        id,
        version: 0,
        document: Document::new(),
        home: source.unit.name.clone(),
        provenance: BTreeMap::new(),
        deleted_at: None,
    });
    let mut provenance = base.provenance;
    for (unit, _) in changes {
        provenance.insert(unit.text().clone(), Provenance { participant: source.unit.name.as_str().into(), at: now });
    }
    Record { version: base.version + 1, document: apply(base.document, changes), provenance, ..base }
}

/// What to commit once `source` has acknowledged the write: the record, its identity there, and the lanes of everybody else.
#[must_use]
pub fn absorbed(
    program: &Program,
    source: &Participant,
    known: Option<&Known>,
    record: Record,
    external_id: ExternalId,
    state: ParticipantState,
) -> AbsorbRecord {
    let seen_before = known.is_some_and(|known| known.identity(&source.unit.name).is_some());
    let enqueue = inbound::lanes(program, source, &record, &state, known, true, false, seen_before)
        .into_iter()
        // What this participant still lacks of earlier changes stands in its lane already.
        .filter(|(target, _)| *target != source.unit.name)
        .map(|(target, _)| (target, Origin::Api))
        .collect();
    let (id, keys) = (record.id, program.index_keys(&record.document));
    let change = match known {
        None => RecordChange::Insert { record, keys },
        Some(_) => RecordChange::Update { record, keys },
    };
    AbsorbRecord { id, change, external_id, state, enqueue, counts_as_changed: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::sample::{World, document};
    use serde_json::json;

    #[test]
    fn fields_of_a_unit_that_the_integration_does_not_know_are_refused_and_not_lost() {
        let world = World::new();
        let erp = world.participant("erp");
        let sent = document(json!({"note": "n", "ext": {"europe": {"vatGroup": "DE1"}}}));
        let changed = changes(&world.program, &Document::new(), &sent);
        let told: Vec<String> = refused(&world.program, erp, &changed, None, Timestamp(0))
            .iter()
            .map(|each| format!("{} {}", each.field, each.message))
            .collect();
        assert_eq!(told, ["ext.europe is not written to erp"]);
        assert!(changes(&world.program, &sent, &sent).is_empty(), "what the record holds already is no change");
    }
}
