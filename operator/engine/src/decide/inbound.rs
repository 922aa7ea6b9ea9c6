//! What one read record means: nothing, a new state, a change of the canonical record, and which lanes it enters.
//!
//! The caller has mapped the record, resolved references and identity, and looked up what is known. This module decides; it neither reads
//! nor writes.

use crate::decide::difference::{self, Sight};
use crate::decide::ownership::{self, Verdict};
use crate::program::{Participant, Program};
use fairlead_contract::Contract;
use fairlead_mapping::{Inbound, RowError};
use fairlead_model::hash::ValueHash;
use fairlead_model::state::{ParticipantState, RowState, Standing};
use fairlead_model::unit::{InitialLoad, OnForeignEdit};
use fairlead_model::{Document, ErrorClass, ExternalId, FieldPath, RecordId, RemoteError, SmolStr, Timestamp, document, realm};
use fairlead_store::{AbsorbRecord, Fate, FieldChange, Known, NewDeadLetter, Origin, Provenance, Record, RecordChange, Stage};
use fairlead_systems::reason;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

/// A read record in canonical form.
#[derive(Debug, Clone)]
pub struct ReadRecord {
    /// The vendor's id.
    pub external_id: ExternalId,
    /// The vendor's version.
    pub version: Option<String>,
    /// When the vendor says it was modified.
    pub modified: Option<Timestamp>,
    /// Deleted (or gone) at the vendor.
    pub deleted: bool,
    /// Canonical values by unit, references resolved; null is absent. Units whose reference could not be resolved yet are left out.
    pub fields: Vec<(FieldPath, Value)>,
    /// The native body, as the system really holds it.
    pub body: Document,
    /// Units that a person corrected (see [`crate::edits`]): their values are the person's word, not the system's.
    pub edited: BTreeSet<FieldPath>,
}

/// What surrounds the decision.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The id to give if the record is new.
    pub new_id: RecordId,
    /// The store's sequence when the read began.
    pub began: u64,
    /// It was read by its key: then it is the newest that the vendor has, whatever its stamp (a vendor restored from a backup shows older ones), unless
    /// the newer one is so fresh (`stale_for`) that the vendor may still show what was before.
    pub by_key: bool,
    /// How long after a change the vendor may still show what was before (`staleFor`).
    pub stale_for: Duration,
    /// The present moment.
    pub now: Timestamp,
}

/// What one participant says of a record, judged by the contract as far as this participant answers for it.
///
/// # Errors
/// Why the record becomes a dead letter: the row that fails, or the field that does not keep the contract.
pub fn canonical(participant: &Participant, contract: &Contract, native: &Document) -> Result<Inbound, RemoteError> {
    let inbound = participant.table.to_canonical(native).map_err(|error| unmapped("", &error))?;
    let waits = |unit: &FieldPath| inbound.references.iter().any(|(path, ..)| path == unit);
    let units = participant.table.readable_units().iter();
    let judged: Vec<&FieldPath> = units.filter(|unit| !inbound.skipped.contains(unit) && !waits(unit)).collect();
    // Most units are top-level fields, which need no document around them to be judged. No two units overlap.
    let nested = partial(inbound.fields.iter().filter(|(unit, _)| unit.segments().len() > 1));
    let top_level = |name: &str| {
        let unit = inbound.fields.iter().find(|(unit, _)| matches!(unit.segments(), [only] if only.name() == name));
        unit.map(|(_, value)| value).or_else(|| nested.get(name))
    };
    contract.validate_fields(top_level, &judged).map_err(|violations| {
        let first = violations.first();
        RemoteError::new(ErrorClass::Data, "ValidationFailed", first.map_or_else(String::new, ToString::to_string))
            .field(first.map(|violation| violation.path.clone()))
    })?;
    Ok(inbound)
}

/// The canonical document of what one participant maps, without what waits for references.
#[must_use]
pub fn partial<'f>(fields: impl IntoIterator<Item = &'f (FieldPath, Value)>) -> Document {
    let mut partial = Document::new();
    for (unit, value) in fields.into_iter().filter(|(_, value)| !value.is_null()) {
        document::set(&mut partial, unit, value.clone());
    }
    partial
}

/// The dead letter's words for a row that fails; `place` says where, if it is not the mapping of a record that was read.
pub(crate) fn unmapped(place: &str, error: &RowError) -> RemoteError {
    let field = error.canonical.as_ref().or(error.native.as_ref()).map(ToString::to_string);
    let space = if place.is_empty() { "" } else { " " };
    RemoteError::new(ErrorClass::Data, "MappingFailed", format!("{place}{space}{}: {}", error.called(), error.message)).field(field)
}

/// What a read record means.
#[derive(Debug)]
pub enum Decision {
    /// Equal to what is known.
    Unchanged,
    /// The read is older than a write of ours, or a write is in flight: read it again by key.
    Stale,
    /// To be absorbed.
    Absorb(Box<Absorbed>),
}

/// A decision to absorb, with what it counts as.
#[derive(Debug)]
pub struct Absorbed {
    /// For the store.
    pub record: AbsorbRecord,
    /// What became of the fields of a record that was known, foreign edits among it.
    pub history: Vec<FieldChange>,
    /// It replaces values of the canonical record (for the guard; what a system adds when it is seen first is no replacement).
    pub changes: bool,
    /// It deletes it.
    pub deletes: bool,
    /// The record lives again, and these targets have deleted theirs: nobody makes it there a second time without being asked.
    pub lost: Vec<String>,
}

/// Which record that is, by what each match rule hits, in their order: what lives; else the one that was deleted last of those of which copies live on
/// elsewhere than in `participant`. Several that live are a person's to tell apart.
#[must_use]
pub fn matching(by_rule: impl Iterator<Item = Vec<Known>>, participant: &str) -> Vec<Known> {
    let (mut live, mut deleted) = (Vec::new(), None);
    for hit in by_rule {
        let (lives, rest): (Vec<_>, Vec<_>) = hit.into_iter().partition(|known| known.record.deleted_at.is_none());
        if live.is_empty() {
            live = lives;
        }
        let copied = rest.into_iter().filter(|known| known.lives_on(None) && !ownership::holds(known, participant));
        deleted = deleted.or_else(|| copied.max_by_key(|known| (known.record.deleted_at, known.record.id)));
    }
    if live.is_empty() { deleted.into_iter().collect() } else { live }
}

/// Whether what a batch shows as `deleted` is to be absorbed before another id of `participant` can stand for the record: the id by which
/// it is still held there. What is known as deleted is merely shown again.
#[must_use]
pub fn deletion_goes_first(known: Option<&Known>, participant: &str, deleted: &HashSet<ExternalId>) -> bool {
    let held = known.and_then(|known| known.identity(participant)).filter(|identity| !identity.state.deleted);
    held.is_some_and(|identity| deleted.contains(&identity.external_id))
}

/// Decides about one read record of `source`; the values that count are taken out of it.
#[must_use]
pub fn decide(program: &Program, source: &Participant, read: &mut ReadRecord, known: Option<&Known>, context: Context) -> Decision {
    let held = known.and_then(|known| known.identity(&source.unit.name)).map(|identity| &identity.state);
    if read.deleted {
        return decide_deleted(program, source, read, known, held, context);
    }
    let before = held.cloned().unwrap_or_default();
    let mut state = before.clone();
    state.deleted = false;
    let mut canonical = known.map(|known| known.record.document.clone()).unwrap_or_default();
    let mut provenance = known.map(|known| known.record.provenance.clone()).unwrap_or_default();
    let (mut changed, mut seen_change, mut replaced, mut history) = (false, false, false, Vec::new());
    let change = |field: &FieldPath, (from, to): (Option<&Value>, &Value), fate: Fate| FieldChange {
        record: known.map_or(context.new_id, |known| known.record.id),
        field: Some(field.clone()),
        from: from.cloned(),
        to: Some(to).filter(|to| !to.is_null()).cloned(),
        fate,
    };

    let by = SmolStr::new(&source.unit.name);
    let any_left_behind = provenance.values().any(Provenance::is_nobodys);
    for (unit, value) in &mut read.fields {
        let shown = ValueHash::of(Some(&*value));
        let current = ValueHash::of(document::present(&canonical, unit));
        if read.edited.contains(unit) {
            // It is what a look has shown, or instead of it.
            if let Some(field) = state.fields.get_mut(unit.text()) {
                field.edited = false;
            }
            if shown != current {
                history.extend(known.map(|_| change(unit, (document::present(&canonical, unit), value), Fate::Won)));
                put(&mut canonical, unit, std::mem::take(value));
                changed = true;
            }
            seen_change = true;
            continue;
        }
        let field = state.fields.entry(unit.text().clone()).or_default();
        let sight = difference::observe(field, shown, current);
        // What came from somebody who left the record belongs to the first who shows a value of the field.
        let left_behind = any_left_behind && provenance.get(unit.text()).is_some_and(Provenance::is_nobodys);
        if sight == Sight::Same {
            if left_behind && shown == current {
                provenance.remove(unit.text());
                changed = true;
            }
            continue;
        }
        seen_change = true;
        // At first sight an empty value replaces nothing and a value fills what is empty, whoever owns the field; but what somebody has
        // emptied (only then has an empty value a provenance) stays so.
        let foreign = ownership::is_foreign(&program.unit.ownership, unit, &source.unit.role);
        let verdict = match sight {
            Sight::First if shown == ValueHash::ABSENT => Verdict::Foreign,
            Sight::First if left_behind => Verdict::Accept,
            Sight::First if current == ValueHash::ABSENT && !(foreign && provenance.contains_key(unit.text())) => Verdict::Accept,
            // Until its owner has the record, the creator's value stands.
            Sight::First if foreign => Verdict::Foreign,
            _ => ownership::judge(&program.unit, &source.unit, unit, known, read.modified),
        };
        match verdict {
            Verdict::Accept => {
                // What fills a field when a system is first seen replaces nothing.
                if known.is_some() && shown != current && (sight == Sight::Changed || current != ValueHash::ABSENT) {
                    history.push(change(unit, (document::present(&canonical, unit), value), Fate::Won));
                }
                put(&mut canonical, unit, std::mem::take(value));
                changed = true;
                replaced |= sight == Sight::Changed;
                if field.sent.is_some() {
                    // Shown in place of what we wrote: if it comes again for the same write, that is how the system renders it. So two
                    // systems that each re-case a field that nobody owns stop after one turn.
                    field.disputed = Some(shown);
                }
                if let Some(at) = read.modified {
                    provenance.insert(unit.text().clone(), Provenance { participant: by.clone(), at });
                } else if left_behind {
                    provenance.remove(unit.text());
                }
            }
            Verdict::Foreign => {
                if sight == Sight::Changed || ![shown, current].contains(&ValueHash::ABSENT) {
                    let fate = if sight == Sight::Changed { Fate::Conflict } else { Fate::FirstSeen };
                    history.push(change(unit, (document::present(&canonical, unit), value), fate));
                }
                if field.sent.is_some() && (sight == Sight::Changed || shown != ValueHash::ABSENT) {
                    // What stood there before anything was written was not shown in place of anything, nor was what was empty from the start:
                    // entered again, or emptied, later, it is an edit, and no rendering.
                    field.disputed = Some(shown);
                }
                // The owner's next value is written again, and so is one that has not been told here yet, or of which nobody knows whether it was: what
                // is shown may be what the system made of the value before.
                let certain = sight == Sight::First || field.rendered.is_some();
                let told = field.sent.is_none_or(|sent| sent == current && certain);
                if keeps_foreign_edits(source) && told && (sight == Sight::Changed || shown != ValueHash::ABSENT) {
                    // What stays counts as this system's rendering of the present value.
                    field.sent = Some(current);
                    field.rendered = Some(shown);
                }
            }
        }
    }
    // What changed elsewhere while it was deleted here was not written here.
    seen_change |= before.deleted;
    // A deleted record lives again where its home shows it, and where a copy is met that was never deleted: nobody knew of it, or it was entered since.
    let deleted = known.filter(|known| known.record.deleted_at.is_some());
    let joins = |known: &Known| held.map_or_else(|| !carries_id(source, read, known), ParticipantState::is_unread);
    let revived = deleted.is_some_and(|known| known.record.home == source.unit.name || joins(known));
    if revived && held.is_none() && deleted.is_some_and(|known| known.lanes.iter().any(|lane| lane.in_flight)) {
        // It may be under way to be deleted elsewhere: whether it was, is known when that has ended. What stands under another id waited for that before.
        return Decision::Stale;
    }
    if deleted.is_some() && !revived {
        // The home has deleted it; what others still do with their copy changes nothing until it is archived there.
        changed = false;
        seen_change = false;
        history.retain(|change| change.fate != Fate::Won);
    }
    let changed = changed || known.is_none() || revived;

    if is_stale(source, known, &before, read, context) {
        // What is seen first while a write is in flight may be what that write makes; who it is, its settlement tells.
        if seen_change || held.is_none() || before.fields.values().any(|field| field.edited) {
            return Decision::Stale;
        }
        if !changed {
            // Older than our last write, and no news: what it shows of rows without a canonical field was overwritten since.
            return Decision::Unchanged;
        }
    }
    state.vendor_version.clone_from(&read.version);
    state.modified = read.modified.map(|at| at.0);
    if known.is_some_and(|known| carries_id(source, read, known)) {
        state.keyed_as = None;
    }
    note_rows(source, &read.body, &mut state);
    unread_references(source, read, &before, &mut state);
    if source.archives_leavers && state.standing.is_none() && source.table.accepts(&canonical) == Ok(true) {
        state.standing = Some(Standing::Inside);
    }
    if !changed && known.is_some() && held.is_some() && state == before {
        return Decision::Unchanged;
    }

    let version = known.map_or(0, |known| known.record.version);
    let record = Record {
        id: known.map_or(context.new_id, |known| known.record.id),
        version: version + u64::from(changed),
        home: known.filter(|_| !revived).map_or_else(|| source.unit.name.clone(), |known| known.record.home.clone()),
        document: canonical,
        provenance,
        deleted_at: if revived { None } else { known.and_then(|known| known.record.deleted_at) },
    };
    let enqueue = if record.deleted_at.is_some() {
        Vec::new()
    } else {
        lanes(program, source, &record, &state, known, changed, seen_change, held.is_some())
    };
    let own = program
        .participants
        .iter()
        .filter(|target| target.unit.name != source.unit.name && target.writable() && target.table.accepts(&record.document) != Ok(false));
    let targets = own.map(|target| target.unit.name.as_str()).chain(elsewhere(program));
    let deleted_there = |target: &&str| known.and_then(|known| known.identity(target)).is_some_and(|identity| identity.state.deleted);
    let lost = targets.filter(|_| revived).filter(deleted_there).map(str::to_owned).collect();
    let id = record.id;
    let change = if known.is_none() {
        RecordChange::Insert { keys: program.index_keys(&record.document), record }
    } else if changed {
        RecordChange::Update { keys: program.index_keys(&record.document), record }
    } else {
        RecordChange::Keep { version }
    };
    Decision::Absorb(Box::new(Absorbed {
        history,
        changes: replaced && known.is_some(),
        deletes: false,
        lost,
        record: AbsorbRecord {
            id,
            change,
            external_id: read.external_id.clone(),
            state,
            enqueue,
            counts_as_changed: changed || seen_change,
        },
    }))
}

/// A deletion: taken from the record's home (see [`ownership::home`]), which whoever deletes it is from then on; counted and kept apart from anywhere else (existence has an owner too).
fn decide_deleted(
    program: &Program,
    source: &Participant,
    read: &ReadRecord,
    known: Option<&Known>,
    held: Option<&ParticipantState>,
    context: Context,
) -> Decision {
    let (Some(known), Some(held)) = (known, held) else { return Decision::Unchanged };
    if held.deleted {
        return Decision::Unchanged;
    }
    let ours = known.record.deleted_at.is_some();
    let at_home = ownership::home(&program.unit, known) == source.unit.name;
    if !ours && in_flight(known, &source.unit.name) {
        return Decision::Stale;
    }
    let mut state = held.clone();
    state.deleted = true;
    state.vendor_version.clone_from(&read.version);
    let absorb = |change, enqueue, deletes| {
        Decision::Absorb(Box::new(Absorbed {
            history: (!ours)
                .then(|| FieldChange::of_existence(known.record.id, if at_home { Fate::Won } else { Fate::Conflict }))
                .into_iter()
                .collect(),
            changes: false,
            deletes,
            lost: Vec::new(),
            record: AbsorbRecord {
                id: known.record.id,
                change,
                external_id: read.external_id.clone(),
                state: state.clone(),
                enqueue,
                counts_as_changed: !ours,
            },
        }))
    };
    if ours || !at_home {
        return absorb(RecordChange::Keep { version: known.record.version }, Vec::new(), false);
    }
    let home = source.unit.name.clone();
    let record = Record { version: known.record.version + 1, home, deleted_at: Some(context.now), ..known.record.clone() };
    let own = program.participants.iter().filter(|p| p.writable() && p.unit.name != source.unit.name).map(|p| p.unit.name.as_str());
    let enqueue = own
        .chain(elsewhere(program))
        .filter(|target| ownership::holds(known, target) || in_lane(known, target))
        .map(|target| (target.to_owned(), Origin::Source(source.unit.name.clone())))
        .collect();
    let keys = program.keys_of(&record, known.lives_on(Some(&source.unit.name)));
    absorb(RecordChange::Update { record, keys }, enqueue, true)
}

/// Whether the correlation field names this record.
fn carries_id(source: &Participant, read: &ReadRecord, known: &Known) -> bool {
    let carried = source.key.as_ref().and_then(|key| document::present(&read.body, key)?.as_str());
    carried.is_some_and(|id| id == known.record.id.to_string())
}

/// A read that differs may be older than what we wrote, or show a creation whose outcome is not settled: then it proves nothing and the
/// record is read again by key.
fn is_stale(source: &Participant, known: Option<&Known>, before: &ParticipantState, read: &ReadRecord, context: Context) -> bool {
    // By key an older stamp is a restored backup, once the vendor cannot show an older state any more.
    let older = match (before.modified, read.modified) {
        (Some(held), Some(shown)) => shown.0 < held && (!context.by_key || context.now.since(Timestamp(held)) < context.stale_for),
        _ => false,
    };
    // After our write the vendor's stamp moved on; while it has not, the read shows what was before. What we made and have not read yet
    // has no before: that it is shown at all is our write.
    let unmoved = match (before.modified, read.modified) {
        (Some(held), Some(shown)) => shown.0 <= held,
        (None, Some(_)) => false,
        (_, None) => true,
    };
    let lagging = before.written.is_some_and(|at| context.now.since(Timestamp(at)) < context.stale_for) && unmoved;
    older || lagging || before.settled > context.began || known.is_some_and(|known| in_flight(known, &source.unit.name))
}

fn in_flight(known: &Known, participant: &str) -> bool {
    known.lanes.iter().any(|lane| lane.target == participant && lane.in_flight)
}

fn in_lane(known: &Known, participant: &str) -> bool {
    known.lanes.iter().any(|lane| lane.target == participant)
}

/// Which lanes a record enters after `source` was read.
#[allow(clippy::too_many_arguments, reason = "one decision over everything that was found out; a struct would only rename it")]
pub(crate) fn lanes(
    program: &Program,
    source: &Participant,
    record: &Record,
    state: &ParticipantState,
    known: Option<&Known>,
    changed: bool,
    seen_change: bool,
    seen_before: bool,
) -> Vec<(String, Origin)> {
    let name = &source.unit.name;
    let mut lanes = Vec::new();
    for target in program.participants.iter().filter(|p| p.writable()) {
        if target.unit.name == *name {
            let differs = (changed || seen_change) && (!in_step(target, &record.document, state) || moves(target, &record.document, state));
            if differs || is_misnamed(target, state) || (!seen_before && lacks_constants(target, state)) {
                let origin = if seen_before { Origin::Restore } else { Origin::Source(record.home.clone()) };
                lanes.push((name.clone(), origin));
            }
            continue;
        }
        if !changed {
            continue;
        }
        let wanted = match known.and_then(|known| known.identity(&target.unit.name)) {
            Some(identity) => {
                let (document, state) = (&record.document, &identity.state);
                let differs = !in_step(target, document, state) || moves(target, document, state) || is_misnamed(target, state);
                // What stands in the lane may be about to write an older value over what is known there.
                let on_the_way = known.is_some_and(|known| in_lane(known, &target.unit.name));
                !state.deleted
                    && (target.derives || differs || on_the_way || known.is_some_and(|known| clears(target, known, document, state)))
            }
            // What `when` cannot judge enters the lane: there it becomes a dead letter with its reason.
            None => target.table.accepts(&record.document).unwrap_or(true),
        };
        if wanted {
            lanes.push((target.unit.name.clone(), Origin::Source(name.clone())));
        }
    }
    if changed {
        let still_there = |target: &&str| known.and_then(|known| known.identity(target)).is_none_or(|identity| !identity.state.deleted);
        lanes.extend(elsewhere(program).filter(still_there).map(|target| (target.to_owned(), Origin::Source(name.clone()))));
    }
    lanes
}

/// The targets of other Integrations. Whether a record belongs there, and what of it differs, is found out in their lanes. What one reads that
/// previews is told to nobody: when it is more than a preview, the others compare (see `crate::integration`).
pub(crate) fn elsewhere(program: &Program) -> impl Iterator<Item = &str> {
    let tells = program.unit.initial_load != InitialLoad::Preview;
    program.unit.siblings().iter().filter(move |sibling| tells && sibling.writes).map(|sibling| sibling.name.as_str())
}

/// Whether the target's `when` says otherwise of a record than when it was last in its lane, where that has consequences: what was archived,
/// for leaving or for a deletion, is made active again.
fn moves(target: &Participant, canonical: &Document, state: &ParticipantState) -> bool {
    let archived = state.standing == Some(Standing::Left);
    (target.archives_leavers || archived)
        && match target.table.accepts(canonical) {
            Ok(true) => state.standing != Some(Standing::Inside),
            Ok(false) => state.standing == Some(Standing::Inside),
            // The lane makes it a dead letter with its reason.
            Err(_) => true,
        }
}

/// The letter for a target that has deleted a record which lives again.
#[must_use]
pub fn lost(source: &Participant, target: &str, known: &Known) -> NewDeadLetter {
    let message = format!(
        "it lives again in {source} and was deleted or put away in {target}; bring it back there, or enter it there again with the same match values, then discard this",
        // The letter is the target's.
        source = realm::told(&source.unit.name, target),
        target = realm::called(target)
    );
    let original = Value::Object(known.record.document.clone()).to_string();
    let error = RemoteError::new(ErrorClass::Data, reason::RECORD_NOT_FOUND, message);
    NewDeadLetter {
        external_id: known.identity(target).map(|identity| identity.external_id.clone()),
        record: Some(known.record.id),
        ..NewDeadLetter::of(Stage::Delivery, target, original, &error)
    }
}

/// Whether everything that Fairlead writes in `target` is there already.
#[must_use]
pub fn in_step(target: &Participant, canonical: &Document, state: &ParticipantState) -> bool {
    target.table.writable_units().iter().all(|unit| {
        let wanted = ValueHash::of(document::present(canonical, unit));
        state.fields.get(unit.text()).map_or(wanted == ValueHash::ABSENT, |field| field.in_step(wanted))
    })
}

/// Whether something is empty now that the target is known to hold natively alone: nobody has told it so.
fn clears(target: &Participant, known: &Known, canonical: &Document, state: &ParticipantState) -> bool {
    target.table.writable_units().iter().any(|unit| {
        !state.fields.contains_key(unit.text())
            && document::present(&known.record.document, unit).is_some()
            && document::present(canonical, unit).is_none()
    })
}

/// Whether the target's correlation field may still tell that the record is the one that it was split off.
pub(crate) fn is_misnamed(target: &Participant, state: &ParticipantState) -> bool {
    target.key.is_some() && state.keyed_as.is_some()
}

/// Whether some constant of the field table is not what a read showed in its place.
fn lacks_constants(target: &Participant, state: &ParticipantState) -> bool {
    let constants = target.unit.rows.iter().filter(|row| row.canonical.is_none());
    constants.filter_map(|row| Some((row.native.as_ref()?, row.value.as_ref()?))).any(|(path, value)| {
        let shown = state.rows.get(&ValueHash::of_text(path.text()).0);
        shown.is_some_and(|row| row.native != ValueHash::of(Some(value)))
    })
}

/// With `onForeignEdit: Keep`, a foreign edit stays where it was made.
fn keeps_foreign_edits(source: &Participant) -> bool {
    source.unit.write.as_ref().is_some_and(|write| write.on_foreign_edit == OnForeignEdit::Keep)
}

/// Notes what the system holds natively in each place that Fairlead writes.
pub(crate) fn note_rows(source: &Participant, body: &Document, state: &mut ParticipantState) {
    if !source.writable() {
        return;
    }
    state.rows = source
        .write_rows
        .iter()
        .filter(|(path, _)| path.list_root().is_none())
        .map(|(path, digest)| {
            let native = ValueHash::of(document::present(body, path));
            (ValueHash::of_text(path.text()).0, RowState { digest: *digest, native })
        })
        .collect::<BTreeMap<_, _>>();
}

/// A reference to what is not known yet has not been read: what is noted natively there is what was read before, so that nothing is written over it as if
/// it had been.
fn unread_references(source: &Participant, read: &ReadRecord, before: &ParticipantState, state: &mut ParticipantState) {
    let references = source.unit.rows.iter().filter(|row| row.reference.is_some());
    for (native, unit) in references.filter_map(|row| row.native.as_ref().zip(row.canonical.as_ref())) {
        let place = ValueHash::of_text(native.text()).0;
        if state.rows.contains_key(&place) && !read.fields.iter().any(|(field, _)| field == unit) {
            match before.rows.get(&place) {
                Some(row) => state.rows.insert(place, *row),
                None => state.rows.remove(&place),
            };
        }
    }
}

fn put(canonical: &mut Document, unit: &FieldPath, value: Value) {
    if value.is_null() {
        document::remove(canonical, unit);
    } else {
        document::set(canonical, unit, value);
    }
}

#[cfg(test)]
#[path = "inbound_tests.rs"]
mod tests;
