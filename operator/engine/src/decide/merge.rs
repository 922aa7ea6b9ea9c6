//! What a vendor's merge of two records means: what the survivor is from now on, who hears of it, and what becomes of a second external id.
//!
//! The caller has looked both up, and what refers to them; this module decides, and neither reads nor writes.

use crate::decide::direct;
use crate::decide::inbound::{elsewhere, in_step};
use crate::decide::ownership;
use crate::program::{Participant, Program};
use fairlead_model::unit::OnMerge;
use fairlead_model::{Document, ExternalId, FieldPath, RecordId, Timestamp, document};
use fairlead_store::{FieldChange, Identity, Known, Origin, Record, RecordChange, Referring, Survivor};
use serde_json::Value;
use std::collections::BTreeSet;

/// What lives on when `source` has merged `loser` into `survivor`.
#[must_use]
pub fn fold(program: &Program, source: &Participant, loser: &Known, survivor: &Known, modified: Option<Timestamp>) -> Survivor {
    let mut canonical = survivor.record.document.clone();
    for unit in units(program, &loser.record.document) {
        let own = document::present(&canonical, &unit).cloned();
        if let Some(brought) = brought(program, &unit, loser, survivor, own.is_some()) {
            document::set(&mut canonical, &unit, brought);
        }
    }
    // A record that was above or below the other now would be above itself, whichever Integration knows of that.
    let own_id = survivor.record.id.to_string();
    replace(&mut canonical, &loser.record.id.to_string(), &own_id);
    for unit in units(program, &canonical) {
        if document::present(&canonical, &unit).and_then(Value::as_str) == Some(own_id.as_str()) {
            document::remove(&mut canonical, &unit);
        }
    }
    let record = Record { version: survivor.record.version + 1, document: canonical, ..survivor.record.clone() };
    let lives = record.deleted_at.is_none();
    let origin = || Origin::Source(source.unit.name.clone());
    let writable = || program.participants.iter().filter(|participant| participant.writable());
    let enqueue = writable()
        .filter(|target| {
            let name = &target.unit.name;
            let held = survivor.identity(name).or_else(|| loser.identity(name));
            if lives { belongs(target, &record.document, held) } else { held.is_some_and(|identity| !identity.state.deleted) }
        })
        .map(|target| target.unit.name.as_str())
        .chain(elsewhere(program).filter(|target| {
            let held = survivor.identity(target).or_else(|| loser.identity(target));
            held.map_or(lives, |identity| !identity.state.deleted)
        }))
        .map(|target| (target.to_owned(), origin()))
        .collect();
    // What another Integration does with a second external id is found out in its lane.
    let doubled = |target: &&str| survivor.identity(target).is_some() && ownership::holds(loser, target);
    let put_away = writable()
        .filter(|target| target.unit.name != source.unit.name)
        .filter(|target| target.unit.write.as_ref().is_some_and(|write| write.on_merge == OnMerge::Archive))
        .map(|target| target.unit.name.as_str())
        .chain(elsewhere(program))
        .filter(doubled)
        .map(|target| (target.to_owned(), origin()))
        .collect();
    let gone = loser.identity(&source.unit.name).map(|identity| {
        let mut state = identity.state.clone();
        state.deleted = true;
        state.modified = modified.map(|at| at.0).or(state.modified);
        (source.unit.name.clone(), state)
    });
    let keys = program.keys_of(&record, survivor.lives_on(None) || loser.lives_on(None));
    Survivor::Record { record, keys, enqueue, put_away, aliases: gone.into_iter().collect() }
}

/// What a merge makes of the fields of its survivor.
#[must_use]
pub fn history(program: &Program, before: &Record, survivor: &Survivor) -> Vec<FieldChange> {
    let Survivor::Record { record, .. } = survivor else { return Vec::new() };
    direct::history(program, before, record)
}

/// What becomes of records that refer to either of the two, and which of them are to be read again: in the system that merged, the vendor
/// has pointed them at the survivor itself.
#[must_use]
pub fn referring(
    program: &Program,
    source: &Participant,
    page: &[Known],
    (loser, survivor): (RecordId, RecordId),
) -> (Vec<Referring>, Vec<ExternalId>) {
    let mut found = Vec::new();
    let mut rereads = Vec::new();
    for known in page.iter().filter(|known| known.record.id != loser && known.record.id != survivor) {
        let mut document = known.record.document.clone();
        let changed = replace(&mut document, &loser.to_string(), &survivor.to_string());
        let lives = known.record.deleted_at.is_none();
        let enqueue = program
            .participants
            .iter()
            .filter(|target| lives && target.writable() && target.unit.name != source.unit.name)
            .filter(|target| match known.identity(&target.unit.name) {
                Some(identity) => !identity.state.deleted,
                None => target.table.accepts(&document).unwrap_or(true),
            })
            .map(|target| target.unit.name.as_str())
            .chain(elsewhere(program).filter(|target| lives && known.identity(target).is_none_or(|identity| !identity.state.deleted)))
            .map(|target| (target.to_owned(), Origin::Source(source.unit.name.clone())))
            .collect();
        let change = if changed {
            let record = Record { version: known.record.version + 1, document, ..known.record.clone() };
            RecordChange::Update { keys: program.keys_of(&record, known.lives_on(None)), record }
        } else {
            RecordChange::Keep { version: known.record.version }
        };
        rereads.extend(known.identity(&source.unit.name).filter(|_| changed && lives).map(|identity| identity.external_id.clone()));
        found.push(Referring { id: known.record.id, change, enqueue });
    }
    (found, rereads)
}

/// Whether an external id that was merged away is shown alive again: somebody took the merge back. A read from before the merge, which the
/// vendor's stamp tells, shows nothing of the sort.
#[must_use]
pub fn undone(alias: &Identity, deleted: bool, modified: Option<Timestamp>) -> bool {
    let newer = match (alias.state.modified, modified) {
        (Some(merged), Some(shown)) => shown.0 > merged,
        _ => true,
    };
    alias.state.deleted && !deleted && newer
}

/// The loser's value, where the survivor is to have it: its owner holds the loser and not the survivor, or nobody who owns it holds either
/// and the survivor has none. A field without an owner is as the vendor left it. What is deleted stays what it was, and is found by that if it is
/// entered again.
fn brought(program: &Program, unit: &FieldPath, loser: &Known, survivor: &Known, has_own: bool) -> Option<Value> {
    let role = ownership::owner(&program.unit.ownership, unit)?;
    let holds = |known: &Known| program.unit.roles().any(|(name, of)| of == role && ownership::holds(known, name));
    let takes = survivor.record.deleted_at.is_none() && !holds(survivor) && (holds(loser) || !has_own);
    document::present(&loser.record.document, unit).filter(|_| takes).cloned()
}

/// Whether the record is to be looked at in the lane of `target`.
fn belongs(target: &Participant, canonical: &Document, held: Option<&Identity>) -> bool {
    match held {
        Some(identity) => !identity.state.deleted && (target.derives || !in_step(target, canonical, &identity.state)),
        None => target.table.accepts(canonical).unwrap_or(true),
    }
}

/// Every canonical unit that some participant reads or writes, be it another Integration's: then the contract's word is all there is, and
/// the fields of another business unit are one.
fn units(program: &Program, document: &Document) -> BTreeSet<FieldPath> {
    let tables = program.participants.iter().map(|participant| &participant.table);
    let own = tables.flat_map(|table| table.readable_units().iter().chain(table.writable_units())).cloned();
    let others = if program.unit.siblings().is_empty() { Vec::new() } else { direct::changes(program, document, &Document::new()) };
    own.chain(others.into_iter().map(|(unit, _)| unit)).collect()
}

/// Puts `new` wherever a document holds the text `old`; whether it did anywhere.
fn replace(document: &mut Document, old: &str, new: &str) -> bool {
    fn within(value: &mut Value, old: &str, new: &str) -> bool {
        match value {
            Value::String(text) if text == old => {
                *text = new.to_owned();
                true
            }
            Value::Array(items) => items.iter_mut().fold(false, |any, item| within(item, old, new) | any),
            Value::Object(fields) => fields.values_mut().fold(false, |any, field| within(field, old, new) | any),
            _ => false,
        }
    }
    document.values_mut().fold(false, |any, value| within(value, old, new) | any)
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
