//! What one claimed key needs: a write of exactly what differs, or nothing, and why.
//!
//! A row is written when the target does not hold its native value, unless the target is known to hold the canonical value in its own
//! rendering and the row is the one it was rendered under. So an echo writes nothing, a normalised value is not sent again, and an edited
//! row is compared natively without reading anything.

use crate::decide::{difference, inbound, ownership};
use crate::edits::Edit;
use crate::program::{Participant, Program};
use fairlead_mapping::{Outbound, RowError, Table};
use fairlead_model::hash::ValueHash;
use fairlead_model::packed::{pack, unpack};
use fairlead_model::state::{FieldState, ParticipantState, RowState, Standing};
use fairlead_model::unit::{InitialLoad, OnCycle, OnDelete, OnMerge, RowUnit};
use fairlead_model::{Document, ErrorClass, ExternalId, FieldPath, RecordId, RemoteError, SmolStr, Timestamp, document};
use fairlead_store::{Claimed, Identity, Intent, Known, NewDeadLetter, Outcome, Stage, WAITS_FOR};
use fairlead_systems::{NativeRecord, WriteItem, WriteOperation, Written, reason};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

/// So many records of a cycle are named.
const NAMED: usize = 10;
/// The shortest time that a cycle is given to come apart by itself.
const CYCLE_PATIENCE: Duration = Duration::from_secs(10);

/// What to do with a claimed key.
#[derive(Debug)]
pub enum Step {
    /// Send this.
    Write(Box<Planned>),
    /// Nothing to send; settle with this.
    Settle(Outcome),
}

/// A write and what will be known once it is acknowledged.
#[derive(Debug, Clone)]
pub struct Planned {
    /// For the system.
    pub item: WriteItem,
    /// The rows in it.
    pub rows: Vec<PlannedRow>,
    /// A record whose id in the target is left out until it has one.
    pub incomplete: Option<RecordId>,
}

/// One row of a write.
#[derive(Debug, Clone)]
pub struct PlannedRow {
    /// The native path.
    pub native: FieldPath,
    /// The digest of the row.
    pub digest: u64,
    /// The hash of the native value.
    pub value: ValueHash,
    /// The canonical unit and the hash of its value, if the row carries one.
    pub unit: Option<(FieldPath, ValueHash)>,
}

impl Planned {
    /// Whether the correlation field of a record that is there gets another id.
    #[must_use]
    pub fn renames(&self) -> bool {
        let key = self.item.key.as_ref().filter(|_| self.item.operation != WriteOperation::Create);
        key.is_some_and(|(field, id)| document::present(&self.item.body, field).and_then(Value::as_str) == Some(id))
    }

    /// Whether the record goes, or is put away.
    #[must_use]
    pub const fn removes(&self) -> bool {
        matches!(self.item.operation, WriteOperation::Delete | WriteOperation::Archive)
    }

    /// Puts a person's correction in place of what the mapping gave. The canonical record is not touched by it.
    pub fn correct(&mut self, edit: &Edit) {
        for (path, value) in &edit.set {
            let hash = ValueHash::of(Some(value));
            match self.rows.iter_mut().find(|row| row.native == *path) {
                Some(row) => row.value = hash,
                None => self.rows.push(PlannedRow { native: path.clone(), digest: 0, value: hash, unit: None }),
            }
        }
        edit.apply(&mut self.item.body);
    }

    /// The corrected units as the target holds them once it has taken the correction: its rendering of the canonical values, which differ,
    /// and no edit of somebody's to be put back.
    #[must_use]
    pub fn corrected(&self, table: &Table, edit: &Edit) -> Vec<(FieldPath, Value)> {
        let is_corrected = |unit: &FieldPath| {
            self.rows.iter().any(|row| edit.set.contains_key(&row.native) && row.unit.as_ref().is_some_and(|(of_row, _)| of_row == unit))
        };
        canonical_of(table, &self.item.body).into_iter().filter(|(unit, _)| is_corrected(unit)).collect()
    }
}

impl PlannedRow {
    /// The unit whose value the system is told by this row. A creation tells nothing by leaving a field out: what the system puts there
    /// by itself is seen for the first time when it is read.
    fn told(&self, operation: &WriteOperation) -> Option<&(FieldPath, ValueHash)> {
        self.unit.as_ref().filter(|(_, value)| *value != ValueHash::ABSENT || !matches!(operation, WriteOperation::Create))
    }
}

/// Decides about one claimed key. `mapped` is what the field table made of its document (see [`fairlead_mapping::Table::to_native`]).
#[must_use]
pub fn decide(
    program: &Program,
    target: &Participant,
    claimed: &Claimed,
    mapped: &dyn Fn(&Document) -> Result<Outbound, RowError>,
) -> Step {
    decide_as(program, target, claimed, mapped, false)
}

/// Likewise for a record of a cycle in which each waits for the next: it is made without the references that may be completed later.
#[must_use]
pub fn decide_to_complete(
    program: &Program,
    target: &Participant,
    claimed: &Claimed,
    mapped: &dyn Fn(&Document) -> Result<Outbound, RowError>,
) -> Step {
    decide_as(program, target, claimed, mapped, true)
}

fn decide_as(
    program: &Program,
    target: &Participant,
    claimed: &Claimed,
    mapped: &dyn Fn(&Document) -> Result<Outbound, RowError>,
    to_complete: bool,
) -> Step {
    let record = &claimed.known.record;
    let held = claimed.known.identity(&target.unit.name);
    if record.deleted_at.is_some() {
        return delete(target, claimed);
    }
    if held.is_some_and(|identity| identity.state.deleted) {
        return Step::Settle(Outcome::Filtered { reason: "DeletedThere".into() });
    }
    if record.is_unread() {
        // It was split off another record; when somebody who holds it is read, it enters the lanes anew.
        return Step::Settle(Outcome::Filtered { reason: "Unread".into() });
    }
    match target.table.accepts(&record.document) {
        Err(error) => return Step::Settle(dead_letter(target, claimed, Stage::Outbound, &inbound::unmapped("when", &error), None)),
        Ok(false) => return leave(target, held),
        Ok(true) => {}
    }
    if held.is_none() && program.unit.initial_load == InitialLoad::MatchOnly {
        return Step::Settle(Outcome::Filtered { reason: "MatchOnly".into() });
    }
    if held.is_none()
        && let Some(load) = brought_by(program, &claimed.known)
    {
        return Step::Settle(Outcome::Filtered { reason: format!("{load:?}") });
    }
    let outbound = match mapped(&record.document) {
        Ok(outbound) => outbound,
        Err(error) => return Step::Settle(dead_letter(target, claimed, Stage::Outbound, &inbound::unmapped("mapping", &error), None)),
    };
    // What may be completed later is waited for last: then a record of a cycle that waits for such a one lacks nothing else.
    let must = outbound.unresolved.iter().find(|(_, on_cycle)| *on_cycle != OnCycle::Complete);
    if let Some((record, _)) = must.or(outbound.unresolved.first().filter(|_| !to_complete)) {
        return Step::Settle(Outcome::WaitFor { record: *record });
    }
    let incomplete = outbound.unresolved.first().map(|(record, _)| *record);
    let empty = ParticipantState::default();
    let state = held.map_or(&empty, |identity| &identity.state);
    let mut body = Document::new();
    let mut rows = Vec::new();
    for row in outbound.rows {
        let value = ValueHash::of(Some(&row.value));
        let unit = row.unit.as_ref().map(|unit| (unit.clone(), ValueHash::of(document::present(&record.document, unit))));
        let digest = target.write_rows.get(&row.native).copied().unwrap_or(row.digest);
        let needed = match held {
            None => value != ValueHash::ABSENT,
            Some(_) => differs(state, &row.native, digest, value, unit.as_ref()),
        };
        if needed {
            document::set(&mut body, &row.native, row.value);
        }
        if needed || held.is_none() {
            rows.push(PlannedRow { native: row.native, digest, value, unit });
        }
    }
    if let Some(key) = target.key.as_ref().filter(|_| held.is_some() && inbound::is_misnamed(target, state)) {
        document::set(&mut body, key, Value::String(record.id.to_string()));
    }
    let operation = match held {
        None => WriteOperation::Create,
        Some(_) if state.standing == Some(Standing::Left) => WriteOperation::Reactivate,
        Some(_) if body.is_empty() => return Step::Settle(Outcome::Unchanged),
        Some(_) => WriteOperation::Update,
    };
    Step::Write(Box::new(Planned {
        item: WriteItem {
            operation,
            id: held.map(|identity| identity.external_id.clone()),
            key: target.key.clone().map(|path| (path, record.id.to_string())),
            body,
        },
        rows,
        incomplete,
    }))
}

/// What keeps a record from being made: that only such Integrations hold it as preview, or as make nothing of what matches nothing.
pub(crate) fn brought_by(program: &Program, known: &Known) -> Option<InitialLoad> {
    let holders = known.identities.iter().filter(|identity| !identity.state.deleted);
    let load = |name: &str| program.unit.siblings().iter().find(|sibling| sibling.name == name).map(|sibling| sibling.load);
    // One's own brings what it holds, and so does whoever has left.
    let most = holders.map(|identity| load(&identity.participant).unwrap_or(InitialLoad::MatchOrCreate)).max()?;
    Some(most).filter(|most| *most < InitialLoad::MatchOrCreate)
}

/// What becomes of a record for which `when` is false. `onLeave: Archive` is about what was inside once, not about what the target had of
/// its own.
fn leave(target: &Participant, held: Option<&Identity>) -> Step {
    let Some(held) = held else { return Step::Settle(Outcome::Filtered { reason: "When".into() }) };
    if !target.archives_leavers || held.state.standing != Some(Standing::Inside) {
        return Step::Settle(Outcome::Filtered { reason: "Left".into() });
    }
    Step::Write(Box::new(Planned {
        item: WriteItem { operation: WriteOperation::Archive, id: Some(held.external_id.clone()), key: None, body: Document::new() },
        rows: Vec::new(),
        incomplete: None,
    }))
}

/// What is to be kept of a record that needs no write: that it belongs here, where leaving has consequences.
#[must_use]
pub fn inside(target: &Participant, claimed: &Claimed) -> Option<(ExternalId, ParticipantState)> {
    let held = claimed.known.identity(&target.unit.name)?;
    let news = target.archives_leavers
        && claimed.known.record.deleted_at.is_none()
        && !held.state.deleted
        && held.state.standing != Some(Standing::Inside);
    news.then(|| (held.external_id.clone(), ParticipantState { standing: Some(Standing::Inside), ..held.state.clone() }))
}

/// What becomes of a record that should be made active again in a target that does not say how: a letter to a person, and that it counts as
/// active from then on, so that a replay goes on with it.
#[must_use]
pub fn stays_archived(target: &Participant, claimed: &Claimed) -> Option<((ExternalId, ParticipantState), Outcome)> {
    let held = claimed.known.identity(&target.unit.name)?;
    let state = ParticipantState { standing: target.archives_leavers.then_some(Standing::Inside), ..held.state.clone() };
    let message = format!(
        "it was archived in {name} and lives again, and the definition does not say how it becomes active there; make it active by hand in {name}, then replay",
        name = target.unit.called()
    );
    let error = RemoteError::new(ErrorClass::Data, reason::DEFINITION_INVALID, message);
    Some(((held.external_id.clone(), state), dead_letter(target, claimed, Stage::Delivery, &error, None)))
}

/// What becomes of a record whose correlation field should get another id in a target that changes records by that field alone: a letter to a
/// person. Once it is put right there by hand, a reading tells, or its replay.
#[must_use]
pub fn stays_misnamed(target: &Participant, claimed: &Claimed, planned: &Planned) -> Outcome {
    let (field, id) = planned.item.key.as_ref().map(|(field, id)| (field.to_string(), id.as_str())).unwrap_or_default();
    let message = format!(
        "it was split off another record, whose id stands in {field}, and the definition does not say how a record is changed by its own id; put {id} into {field} by hand in {}, then replay",
        target.unit.called()
    );
    let error = RemoteError::new(ErrorClass::Data, reason::DEFINITION_INVALID, message);
    dead_letter(target, claimed, Stage::Delivery, &error, None)
}

/// That the correlation field of a record holds its own id by a person's word.
#[must_use]
pub fn is_renamed(target: &Participant, claimed: &Claimed) -> Option<(ExternalId, ParticipantState)> {
    let held = claimed.known.identity(&target.unit.name)?;
    Some((held.external_id.clone(), ParticipantState { keyed_as: None, ..held.state.clone() }))
}

/// What becomes of a record that is not made because another one, which was split off it, has carried its id in the correlation field for so
/// long that somebody should look.
#[must_use]
pub fn id_is_taken(target: &Participant, claimed: &Claimed) -> Outcome {
    let (field, hours) = (target.key.as_ref().map(ToString::to_string).unwrap_or_default(), WAITS_FOR.as_secs() / 3600);
    let message = format!(
        "its id stands in {field} of a record in {name} that was split off it {hours} hours ago and more; put that one's own id there by hand, then replay",
        name = target.unit.called()
    );
    let error = RemoteError::new(ErrorClass::Data, "DuplicateIdentity", message);
    dead_letter(target, claimed, Stage::Outbound, &error, None)
}

/// Whether a row must be written to a record that the target holds.
fn differs(state: &ParticipantState, native: &FieldPath, digest: u64, value: ValueHash, unit: Option<&(FieldPath, ValueHash)>) -> bool {
    let row = state.rows.get(&ValueHash::of_text(native.text()).0);
    let field = unit.and_then(|(unit, wanted)| Some((state.fields.get(unit.text())?, *wanted)));
    let in_step = field.map(|(field, wanted)| field.in_step(wanted));
    match (row, in_step) {
        // Seen to differ canonically: what was natively held then may have been overwritten since.
        (_, Some(false)) => true,
        (Some(row), Some(true)) => row.native != value && row.digest != digest,
        (Some(row), None) => row.native != value,
        (None, Some(true)) => false,
        (None, None) => value != ValueHash::ABSENT,
    }
}

/// Whether a deleted record stands under an external id of which nothing was read yet: somebody has entered it again there, or merged it into what was
/// never deleted, and it lives when that is read. Not for ever, for it may never be readable.
#[must_use]
pub fn may_live_again(claimed: &Claimed, now: Timestamp) -> bool {
    let known = &claimed.known;
    // What was merged away never lives again.
    let deleted = known.record.deleted_at.is_some() && known.merged_into.is_none();
    deleted && known.identities.iter().any(|identity| identity.state.is_unread()) && now.since(claimed.since) < WAITS_FOR
}

fn delete(target: &Participant, claimed: &Claimed) -> Step {
    let Some(held) = claimed.known.identity(&target.unit.name) else {
        return Step::Settle(Outcome::Filtered { reason: "NeverCreated".into() });
    };
    if held.state.deleted {
        return Step::Settle(Outcome::Unchanged);
    }
    let policy = target.unit.write.as_ref().map(|write| match (claimed.known.merged_into, write.on_merge) {
        (None, _) => write.on_delete,
        // A merged record stands here for the external id that it keeps: the second one of its survivor.
        (Some(_), OnMerge::Keep) => OnDelete::Keep,
        (Some(_), OnMerge::Archive) => OnDelete::Archive,
    });
    let operation = match policy {
        Some(OnDelete::Archive) if held.state.standing == Some(Standing::Left) => return Step::Settle(Outcome::Unchanged),
        Some(OnDelete::Archive) => WriteOperation::Archive,
        Some(OnDelete::Delete) => WriteOperation::Delete,
        Some(OnDelete::Keep) | None => return Step::Settle(Outcome::Filtered { reason: "Keep".into() }),
    };
    Step::Write(Box::new(Planned {
        item: WriteItem { operation, id: Some(held.external_id.clone()), key: None, body: Document::new() },
        rows: Vec::new(),
        incomplete: None,
    }))
}

/// The target's state after a write was acknowledged. `answered` is the vendor's answer in canonical form, if it gave one.
#[must_use]
pub fn delivered(
    target: &Participant,
    claimed: &Claimed,
    planned: &Planned,
    written: &Written,
    answered: &[(FieldPath, Value)],
    now: Timestamp,
) -> Outcome {
    let mut state = claimed.known.identity(&target.unit.name).map(|identity| identity.state.clone()).unwrap_or_default();
    match planned.item.operation {
        // Also for a deletion: the record is there and can be made active again, if its home brings it back.
        WriteOperation::Archive => state.standing = Some(Standing::Left),
        WriteOperation::Delete => state.deleted = true,
        WriteOperation::Create | WriteOperation::Update | WriteOperation::Reactivate => {
            state.standing = target.archives_leavers.then_some(Standing::Inside);
            if planned.renames() {
                state.keyed_as = None;
            }
        }
    }
    for row in &planned.rows {
        state.rows.insert(ValueHash::of_text(row.native.text()).0, RowState { digest: row.digest, native: row.value });
        if let Some((unit, wanted)) = row.told(&planned.item.operation) {
            let answer = answered.iter().find(|(path, _)| path == unit).map(|(_, value)| ValueHash::of(Some(value)));
            difference::wrote(state.fields.entry(unit.text().clone()).or_default(), *wanted, answer);
        }
    }
    state.written = Some(now.0);
    if written.version.is_some() {
        state.vendor_version.clone_from(&written.version);
    }
    Outcome::Delivered { external_id: written.id.clone(), state, incomplete: planned.incomplete }
}

/// The rows of a write that go over values on which the target itself may have the word: an empty field of its own that another one fills, a
/// reference that a merge elsewhere has turned. Rows of lists are kept by no read, so they cannot be compared; what is never read there, a look
/// says nothing of.
#[must_use]
pub fn own_rows<'p>(program: &Program, target: &Participant, claimed: &Claimed, planned: &'p Planned) -> Vec<&'p PlannedRow> {
    if claimed.known.identity(&target.unit.name).is_none() {
        return Vec::new();
    }
    let own = |unit: &FieldPath| {
        target.table.readable_units().contains(unit) && ownership::may_have_the_word(&program.unit, &target.unit, unit, &claimed.known)
    };
    let rows = planned.rows.iter().filter(|row| row.native.list_root().is_none());
    rows.filter(|row| row.unit.as_ref().is_some_and(|(unit, _)| own(unit))).collect()
}

/// What keeps a write from going over the target's own values: somebody edited them since they were read. Most vendors take no precondition
/// with a write, so the record is `shown` right before. A value that is merely written otherwise (a date with another zone) is the same.
#[must_use]
pub fn edited_since(
    program: &Program,
    target: &Participant,
    claimed: &Claimed,
    planned: &Planned,
    shown: &Document,
) -> Option<RemoteError> {
    let state = &claimed.known.identity(&target.unit.name)?.state;
    let read = |native: &FieldPath| state.rows.get(&ValueHash::of_text(native.text()).0).map_or(ValueHash::ABSENT, |row| row.native);
    let differs = |row: &&PlannedRow| ValueHash::of(document::present(shown, &row.native)) != read(&row.native);
    let rows: Vec<&PlannedRow> = own_rows(program, target, claimed, planned).into_iter().filter(differs).collect();
    let means = if rows.is_empty() { Vec::new() } else { canonical_of(&target.table, shown) };
    let is_known = |row: &&PlannedRow| {
        let means = row.unit.as_ref().and_then(|(unit, _)| means.iter().find(|(path, _)| path == unit));
        means.is_some_and(|(unit, value)| state.fields.get(unit.text()).and_then(|field| field.seen) == Some(ValueHash::of(Some(value))))
    };
    let edited = rows.into_iter().find(|row| !is_known(row))?;
    let message = format!(
        "{} was edited in {} since it was read, and is read again before it is written; if that cannot be read, see its own dead letter",
        edited.native,
        target.unit.called()
    );
    Some(RemoteError::new(ErrorClass::Conflict, reason::RECORD_CONFLICT, message).field(Some(edited.native.to_string())))
}

/// A call about a key that failed, and what surrounds it.
#[derive(Debug, Clone, Copy)]
pub struct Trouble<'a> {
    /// What went wrong.
    pub error: &'a RemoteError,
    /// The backoff for this attempt, with jitter, from outside.
    pub wait: Duration,
    /// The circuit is closed: it is no outage.
    pub circuit_closed: bool,
    /// Others of the same batch went through: what the account may not do, or the definition cannot, concerns this key and not all of them.
    pub alone: bool,
    /// The present moment.
    pub now: Timestamp,
}

impl Trouble<'_> {
    /// Whether this was an attempt. What the vendor put off, what somebody has to mend for all keys, and what was never sent are none.
    fn counts(&self) -> bool {
        self.circuit_closed
            && match self.error.class {
                ErrorClass::Throttled | ErrorClass::Auth => false,
                ErrorClass::Permission | ErrorClass::Configuration => self.alone,
                ErrorClass::Transient => !held_back(self.error),
                ErrorClass::Data | ErrorClass::Conflict | ErrorClass::NotFound | ErrorClass::UnknownOutcome => true,
            }
    }

    /// Whether it was an attempt, and the last one.
    fn ends(&self, program: &Program, claimed: &Claimed) -> bool {
        self.counts() && claimed.attempts + 1 >= program.unit.retry.attempts
    }

    /// To be tried again; `unknown` as for [`Outcome::Retry`].
    fn retry(&self, unknown: bool) -> Outcome {
        let after = match self.error.class {
            ErrorClass::Throttled | ErrorClass::Transient => self.error.retry_after.unwrap_or(self.wait),
            ErrorClass::Auth | ErrorClass::Permission | ErrorClass::Configuration => {
                self.error.retry_after.unwrap_or(self.wait).max(Duration::from_secs(2))
            }
            ErrorClass::Data | ErrorClass::Conflict | ErrorClass::NotFound | ErrorClass::UnknownOutcome => self.wait,
        };
        Outcome::Retry { at: self.now.plus(after), attempt: self.counts(), unknown }
    }
}

/// Whether a call was never sent: no turn came, its lease ended before or it was called off, or the circuit was open.
#[must_use]
pub fn held_back(error: &RemoteError) -> bool {
    error.class == ErrorClass::Transient && [reason::BUSY, reason::CIRCUIT_OPEN].contains(&error.reason.as_str())
}

/// What a failed write becomes.
#[derive(Debug)]
pub struct Failed {
    /// For the store.
    pub outcome: Outcome,
    /// The record should be read again by key, because somebody else changed it or it is gone.
    pub reread: Option<ExternalId>,
}

/// Decides about a failed write. `visible_after` is how long the vendor may take to show what it did.
#[must_use]
pub fn failed(
    program: &Program,
    target: &Participant,
    claimed: &Claimed,
    planned: &Planned,
    trouble: &Trouble<'_>,
    visible_after: Duration,
) -> Failed {
    let error = trouble.error;
    let keep = |outcome| Failed { outcome, reread: None };
    let held = claimed.known.identity(&target.unit.name);
    if let (ErrorClass::NotFound, WriteOperation::Delete, Some(identity)) = (error.class, planned.item.operation, held) {
        // What is to be deleted and is not there is deleted; a target that is only written has no reader to find that out.
        let state = ParticipantState { deleted: true, ..identity.state.clone() };
        return keep(Outcome::Delivered { external_id: identity.external_id.clone(), state, incomplete: None });
    }
    if error.class == ErrorClass::Data || trouble.ends(program, claimed) {
        // An unknown outcome's intent outlives the letter: whatever enters the lane next is looked up first.
        return keep(dead_letter(target, claimed, Stage::Delivery, error, serde_json::to_string(&planned.item.body).ok()));
    }
    match error.class {
        ErrorClass::UnknownOutcome => {
            let wait = visible_after.max(trouble.wait).max(Duration::from_millis(200));
            keep(Trouble { wait, ..*trouble }.retry(true))
        }
        ErrorClass::Conflict | ErrorClass::NotFound => {
            // Who has no reader would wait for ever for it.
            let reread = held.filter(|_| target.readable()).map(|identity| identity.external_id.clone());
            Failed { outcome: trouble.retry(false), reread }
        }
        _ => keep(trouble.retry(false)),
    }
}

/// Decides about a key that could not be looked up. While its outcome is unknown it is not written, and when the attempts run out, that is
/// what stays.
#[must_use]
pub fn look_up_failed(program: &Program, target: &Participant, claimed: &Claimed, trouble: &Trouble<'_>) -> Outcome {
    let unknown = claimed.intent.is_some();
    if !trouble.ends(program, claimed) {
        return trouble.retry(unknown);
    }
    let error = trouble.error;
    let told = if unknown { outcome_unknown(&format!("it cannot be looked up: {}", error.message)) } else { error.clone() };
    dead_letter(target, claimed, Stage::Delivery, &told, None)
}

/// What stays of a write whose outcome nobody can find out.
#[must_use]
pub fn outcome_unknown(why: &str) -> RemoteError {
    let message = format!("it was sent, no answer came, and {why}; see whether it is there, then replay or discard");
    RemoteError::new(ErrorClass::UnknownOutcome, reason::OUTCOME_UNKNOWN, message)
}

/// Until when a write of another process may still be under way: it may have been sent right after its intent was committed, take as long as
/// a request may, and show only some time later. What is looked up before proves nothing, and what is written before may be overwritten.
#[must_use]
pub fn under_way_until(intent: &Intent, request_timeout: Duration, visible_after: Duration) -> Timestamp {
    intent.at.plus(request_timeout).plus(visible_after)
}

/// The match rules as searches in a target, in their order: those of which it gets every field, by native path and value.
#[must_use]
pub fn searches(program: &Program, target: &Participant, mapped: &Outbound) -> Vec<Vec<(FieldPath, Value)>> {
    by_rules(program, target, |path| {
        let mut rows = mapped.rows.iter();
        let row = rows.find(|row| row.unit.as_ref() == Some(path) && row.native.list_root().is_none() && !row.value.is_null())?;
        Some((&row.native, &row.value))
    })
}

/// By which match rules, in their order, a record that the target holds is to be found once `planned` is written, and is not yet; up to the first by
/// which it is found already, for that one tells who it is.
#[must_use]
pub fn becomes(program: &Program, target: &Participant, claimed: &Claimed, planned: &Planned) -> Vec<Vec<(FieldPath, Value)>> {
    let Some(held) = claimed.known.identity(&target.unit.name).filter(|_| !planned.removes()) else { return Vec::new() };
    // A value that is merely mapped otherwise makes nobody somebody else.
    let becomes = |row: &PlannedRow| {
        let told = |unit: &FieldPath| held.state.fields.get(unit.text()).and_then(|field| field.sent);
        row.unit
            .as_ref()
            .is_some_and(|(unit, hash)| told(unit) != Some(*hash) && program.unit.matching.iter().flatten().any(|path| path == unit))
    };
    let new: Vec<&FieldPath> = planned.rows.iter().filter(|row| becomes(row)).map(|row| &row.native).collect();
    if new.is_empty() {
        return Vec::new();
    }
    let mapped = target.table.to_native(&claimed.known.record.document, &|_, _| None).ok();
    let mut rules = mapped.map(|mapped| searches(program, target, &mapped)).unwrap_or_default();
    // What a person has corrected is what it becomes.
    for (native, value) in rules.iter_mut().flatten() {
        if let Some(told) = document::present(&planned.item.body, native) {
            value.clone_from(told);
        }
    }
    rules.into_iter().take_while(|rule| rule.iter().any(|(native, _)| new.contains(&native))).collect()
}

/// What becomes of a record that stands under one id in a target that nobody reads, while records that stand for none fit it there as well.
#[must_use]
pub fn has_a_second(
    target: &Participant,
    claimed: &Claimed,
    planned: &Planned,
    seconds: &[ExternalId],
    criteria: &[(FieldPath, Value)],
) -> Outcome {
    let ids: Vec<&str> = seconds.iter().take(NAMED).map(ExternalId::as_str).collect();
    let fields: Vec<&str> = criteria.iter().map(|(field, _)| field.text().as_str()).collect();
    let message = format!(
        "{} in {name} fits it by {}, and it is {own} there; merge the other into {own} in {name}, or tell them apart, then replay",
        ids.join(", "),
        fields.join(", "),
        own = claimed.known.identity(&target.unit.name).map(|held| held.external_id.to_string()).unwrap_or_default(),
        name = target.unit.called()
    );
    let error = RemoteError::new(ErrorClass::Data, "DuplicateIdentity", message);
    dead_letter(target, claimed, Stage::Delivery, &error, serde_json::to_string(&planned.item.body).ok())
}

/// The match rules by native paths, each with what `native` says of a canonical one.
fn by_rules<'a>(
    program: &Program,
    target: &Participant,
    native: impl Fn(&FieldPath) -> Option<(&'a FieldPath, &'a Value)>,
) -> Vec<Vec<(FieldPath, Value)>> {
    let known = |path: &FieldPath| {
        let (path, value) = native(path).filter(|(path, _)| target.unit.native.contains_key(*path))?;
        Some((path.clone(), value.clone()))
    };
    program.unit.matching.iter().filter(|paths| !paths.is_empty()).filter_map(|paths| paths.iter().map(known).collect()).collect()
}

/// The state of a target in which `shown` was found: natively what it shows. Its canonical values are seen when it is read, and take part
/// then; what was never read has no say.
#[must_use]
pub fn adopted(target: &Participant, shown: &NativeRecord) -> ParticipantState {
    let mut state =
        ParticipantState { vendor_version: shown.version.clone(), modified: shown.modified.map(|at| at.0), ..ParticipantState::default() };
    inbound::note_rows(target, &shown.body, &mut state);
    state
}

/// Whether what was last modified at `modified` is surely newer than what is known of a record, and no older state that the vendor still shows.
#[must_use]
pub fn is_newer(state: &ParticipantState, modified: Option<Timestamp>, stale_for: Duration, now: Timestamp) -> bool {
    let past_echo = state.written.is_none_or(|at| now.since(Timestamp(at)) >= stale_for);
    past_echo && matches!((state.modified, modified), (Some(held), Some(shown)) if shown.0 > held)
}

/// Takes note in a target's state of what a look has shown, of which nothing is absorbed before the next read: nor is anything older then.
pub fn glimpsed(shown: &[(FieldPath, Value)], modified: Option<Timestamp>, state: &mut ParticipantState) {
    for (unit, value) in shown {
        if let Some(field) = state.fields.get_mut(unit.text()) {
            difference::glimpsed(field, ValueHash::of(Some(value)));
        }
    }
    state.modified = modified.map(|at| at.0);
}

/// What the field table makes of a native body, leaving out references and what cannot be mapped: enough for comparing.
#[must_use]
pub fn canonical_of(table: &Table, body: &Document) -> Vec<(FieldPath, Value)> {
    table.to_canonical(body).map(|inbound| inbound.fields).unwrap_or_default()
}

/// A key that cannot be delivered as it is.
#[must_use]
pub fn dead_letter(target: &Participant, claimed: &Claimed, stage: Stage, error: &RemoteError, payload: Option<String>) -> Outcome {
    let original = Value::Object(claimed.known.record.document.clone()).to_string();
    Outcome::DeadLetter(Box::new(NewDeadLetter {
        external_id: claimed.known.identity(&target.unit.name).map(|identity| identity.external_id.clone()),
        record: Some(claimed.known.record.id),
        payload,
        attempts: claimed.attempts + 1,
        ..NewDeadLetter::of(stage, &target.unit.name, original, error)
    }))
}

/// What looking a record up after an unknown outcome shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookedUp {
    /// Everything is as it was to be: the write took effect.
    TookEffect,
    /// Everything else is as it was before: the write did not take effect.
    NoEffect,
    /// It took effect, and some of it somebody has put back to what was there before: that is read before it is written over.
    PutBack,
    /// Somebody else edited it meanwhile: it must be read and absorbed before it is written again.
    Edited,
}

/// The layout of a packed [`Sent`].
const SENT: char = 'A';
/// Where a packed [`Sent`] stands beside what it can be searched for by, and where that does.
const PACKED: &str = "packed";
const SOUGHT: &str = "sought";

/// What a write was about to send, as it is kept with the intent: per row its native place, per unit its canonical value; hashes, but for what
/// a creation is searched for by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    rows: Vec<(u64, u64, ValueHash)>,
    units: BTreeMap<SmolStr, ValueHash>,
    /// What the target held before by a look-up whose teaching is not settled yet: the stored state says otherwise, or nothing at all.
    // The defaults are for the objects that older releases wrote.
    #[serde(default)]
    held: Option<BTreeMap<SmolStr, ValueHash>>,
    #[serde(default)]
    removal: bool,
    /// The match rules by native paths and values by which the record is found, where the target may hold one of which no id is stored: a creation
    /// without a correlation field, or a write over what a look-up found. Before it is looked up, the record may have got other values.
    #[serde(skip)]
    sought: Vec<Vec<(FieldPath, Value)>>,
}

impl Sent {
    /// What `planned` sends.
    #[must_use]
    pub fn of(planned: &Planned) -> Self {
        Self {
            rows: planned.rows.iter().map(|row| (ValueHash::of_text(row.native.text()).0, row.digest, row.value)).collect(),
            units: planned
                .rows
                .iter()
                .filter_map(|row| row.told(&planned.item.operation))
                .map(|(unit, hash)| (unit.text().clone(), *hash))
                .collect(),
            held: None,
            removal: matches!(planned.item.operation, WriteOperation::Archive | WriteOperation::Delete),
            sought: Vec::new(),
        }
    }

    /// The same, with what `planned` is found by if it is a creation without a correlation field and no answer comes.
    #[must_use]
    pub fn findable(mut self, program: &Program, target: &Participant, planned: &Planned) -> Self {
        if planned.item.operation == WriteOperation::Create && target.key.is_none() {
            self.sought = by_rules(program, target, |path| {
                let of_path =
                    |row: &&PlannedRow| row.unit.as_ref().is_some_and(|(unit, _)| unit == path) && row.native.list_root().is_none();
                let mut natives = planned.rows.iter().filter(of_path).map(|row| &row.native);
                natives.find_map(|native| Some((native, document::present(&planned.item.body, native)?)))
            });
        }
        self
    }

    /// The same, over a record that a look-up has just found for one that nobody knew: while it lives, it is found again by these, if this one's end
    /// is not known either.
    #[must_use]
    pub fn found_by(self, rules: Vec<Vec<(FieldPath, Value)>>) -> Self {
        Self { sought: rules, ..self }
    }

    /// By what it is found while its target has no id of it, in the order of the match rules.
    #[must_use]
    pub fn sought(&self) -> &[Vec<(FieldPath, Value)>] {
        &self.sought
    }

    /// The same, over what a look-up has just taught of the target: whoever looks after this one's death must not take what we wrote earlier
    /// for somebody's edit.
    #[must_use]
    pub fn over(mut self, learnt: &ParticipantState) -> Self {
        self.held = Some(learnt.fields.iter().filter_map(|(unit, field)| Some((unit.clone(), field.seen?))).collect());
        self
    }

    /// For the store: packed, for it is kept with every write that is under way.
    #[must_use]
    pub fn write(&self) -> Value {
        let packed = pack(SENT, self).map_or(Value::Null, Value::String);
        if self.sought.is_empty() { packed } else { json!({PACKED: packed, SOUGHT: self.sought}) }
    }

    /// From the store. An older Fairlead kept it as an object.
    #[must_use]
    pub fn read(value: &Value) -> Self {
        let unpacked = |text: &str| unpack(SENT, text).ok();
        match (value, value.get(PACKED).and_then(Value::as_str)) {
            (Value::String(text), _) => unpacked(text),
            (_, Some(text)) => {
                unpacked(text).map(|sent| Self { sought: Deserialize::deserialize(&value[SOUGHT]).unwrap_or_default(), ..sent })
            }
            _ => Self::deserialize(value).ok(),
        }
        .unwrap_or_default()
    }

    /// Nothing is known of what was sent (only that something was).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a record that was found by the match rules shows more of this than what it was found by, or of what a look-up had found before this
    /// was to be written over it.
    #[must_use]
    pub fn shows_beyond(&self, shown: &[(FieldPath, Value)], matching: &[Vec<FieldPath>]) -> bool {
        shown.iter().any(|(unit, value)| {
            let shown = ValueHash::of(Some(value));
            let beyond = !matching.iter().flatten().any(|path| path == unit);
            let ours = self.units.get(unit.text()) == Some(&shown) || self.held(unit.text()) == Some(shown);
            beyond && shown != ValueHash::ABSENT && ours
        })
    }

    /// Whether a record that was found by the match rules in a target that nobody reads is what this has made: natively it holds what it is found by as
    /// that was sent, and more of this, or all of it. A row of no unit (a constant, say) proves nothing.
    #[must_use]
    pub fn stands_in(&self, target: &Participant, shown: &Document, matching: &[Vec<FieldPath>]) -> bool {
        let (mut any, mut all, mut beyond) = (false, true, false);
        for (native, unit) in target.unit.rows.iter().filter_map(|row| row.native.as_ref().zip(row.canonical.as_ref())) {
            let sent = self.row(native).filter(|_| target.native_paths.contains(native) && self.units.contains_key(unit.text()));
            let Some((.., sent)) = sent.filter(|(.., sent)| *sent != ValueHash::ABSENT) else { continue };
            let same = ValueHash::of(document::present(shown, native)) == *sent;
            let finds = matching.iter().flatten().any(|path| path == unit);
            if finds && !same {
                return false;
            }
            (any, all, beyond) = (true, all && same, beyond || same && !finds);
        }
        beyond || any && all
    }

    /// The state of a target that shows these values: those that were sent so are its echo, and the others may be what it made of them.
    pub fn echoes(&self, shown: &[(FieldPath, Value)], state: &mut ParticipantState) {
        for (unit, value) in shown {
            let shown = ValueHash::of(Some(value));
            let Some(sent) = self.units.get(unit.text()).filter(|sent| **sent != ValueHash::ABSENT) else { continue };
            let field = state.fields.entry(unit.text().clone()).or_default();
            if *sent == shown {
                difference::wrote(field, shown, None);
            } else {
                // It may be what the system made of what was sent: no entry of its own that may stay over the owner's next value. What was sent,
                // shown from now on, somebody has entered.
                *field = FieldState { sent: Some(*sent), edited: true, ..FieldState::default() };
            }
        }
    }

    /// The state of a target that shows these values, and in which this did not take effect as far as anybody can tell.
    pub fn no_effect(&self, shown: &[(FieldPath, Value)], state: &mut ParticipantState) {
        let shown: BTreeMap<&SmolStr, ValueHash> = shown.iter().map(|(unit, value)| (unit.text(), ValueHash::of(Some(value)))).collect();
        for (unit, sent) in &self.units {
            let field = state.fields.entry(unit.clone()).or_default();
            match shown.get(unit) {
                // It is what was there before, or this part of it took effect after all.
                Some(shown) if self.held(unit) == Some(*shown) || (shown == sent && field.seen != Some(*shown)) => {
                    difference::wrote(field, *shown, None);
                }
                Some(shown) if [field.seen, field.sent, field.rendered].contains(&Some(*shown)) => {}
                // It may be what the system made of what was sent, or of what was sent before: no entry of its own that may stay over the
                // owner's value.
                _ => *field = FieldState { seen: field.seen, sent: Some(*sent), ..FieldState::default() },
            }
        }
    }

    /// The state of a target of which nobody can tell what this did: all of it is to be written once more, be it that the record has the values
    /// of before again. What is read (by listing it) tells by and by, compared with what was read last.
    pub fn unknown(&self, target: &Participant, state: &mut ParticipantState) {
        for (native, ..) in &self.rows {
            state.rows.remove(native);
        }
        for (unit, sent) in &self.units {
            let field = state.fields.entry(unit.clone()).or_default();
            *field = FieldState { seen: field.seen.filter(|_| target.readable()), sent: Some(*sent), ..FieldState::default() };
        }
    }

    /// The state of a target that nobody reads and that natively shows what `shown` holds: whatever this did, it is compared with that. Lists
    /// cannot be.
    pub fn held_natively(&self, target: &Participant, shown: &ParticipantState, state: &mut ParticipantState) {
        self.unknown(target, state);
        for (native, digest, _) in &self.rows {
            if let Some(row) = shown.rows.get(native) {
                state.rows.insert(*native, RowState { digest: *digest, native: row.native });
            }
        }
        let compared = |row: &&RowUnit| row.native.as_ref().is_some_and(|native| native.list_root().is_none());
        for unit in target.unit.rows.iter().filter(compared).filter_map(|row| row.canonical.as_ref()) {
            if self.units.contains_key(unit.text()) {
                state.fields.remove(unit.text());
            }
        }
    }

    fn held(&self, unit: &str) -> Option<ValueHash> {
        self.held.as_ref()?.get(unit).copied()
    }

    /// What was sent to a native place outside of lists.
    fn row(&self, native: &FieldPath) -> Option<&(u64, u64, ValueHash)> {
        let place = ValueHash::of_text(native.text()).0;
        self.rows.iter().find(|(row, ..)| *row == place).filter(|_| native.list_root().is_none())
    }

    /// The state of a record that a creation of ours made, which shows these values, and whether it shows others than it was told. If a
    /// look-up had found it before, this was no creation but a write over what had been made: of that, what is shown took effect.
    pub fn made(&self, shown: &[(FieldPath, Value)], state: &mut ParticipantState) -> bool {
        let Some(held) = &self.held else {
            self.took_effect(state);
            return shown.iter().any(|(unit, value)| self.units.get(unit.text()).is_some_and(|sent| *sent != ValueHash::of(Some(value))));
        };
        for (unit, held) in held {
            difference::wrote(state.fields.entry(unit.clone()).or_default(), *held, None);
        }
        let mut edited = false;
        for (unit, value) in shown {
            let (unit, shown) = (unit.text(), ValueHash::of(Some(value)));
            if self.units.get(unit) == Some(&shown) {
                difference::wrote(state.fields.entry(unit.clone()).or_default(), shown, None);
            } else {
                edited |= held.get(unit).is_some_and(|held| *held != shown);
            }
        }
        edited
    }

    /// The state of a target in which this took effect.
    pub fn took_effect(&self, state: &mut ParticipantState) {
        for (native, digest, value) in &self.rows {
            state.rows.insert(*native, RowState { digest: *digest, native: *value });
        }
        for (unit, sent) in &self.units {
            // It was read there: what somebody shows in its place from now on is an edit.
            difference::wrote(state.fields.entry(unit.clone()).or_default(), *sent, Some(*sent));
        }
    }

    /// What became of the references in this, which a look leaves out: each is compared natively, for somebody else may have entered the rest of what
    /// was sent. `before` is the state before the look; whether one leads to neither what was sent nor what was there, which is read first.
    pub fn references(&self, target: &Participant, shown: &Document, before: &ParticipantState, state: &mut ParticipantState) -> bool {
        let mut elsewhere = false;
        let references = target.unit.rows.iter().filter(|row| row.reference.is_some());
        for (native, unit) in references.filter_map(|row| row.native.as_ref().zip(row.canonical.as_ref())) {
            let (Some((place, digest, value)), Some(sent)) = (self.row(native), self.units.get(unit.text())) else { continue };
            let held = ValueHash::of(document::present(shown, native));
            if held == *value {
                state.rows.insert(*place, RowState { digest: *digest, native: *value });
                difference::wrote(state.fields.entry(unit.text().clone()).or_default(), *sent, Some(*sent));
                continue;
            }
            match before.rows.get(place) {
                Some(row) => state.rows.insert(*place, *row),
                None => state.rows.remove(place),
            };
            let known = before.fields.get(unit.text()).copied();
            // What a look-up has found meanwhile is known by its canonical value alone.
            let learnt = self.held(unit.text());
            let as_before = before.rows.get(place).map_or(ValueHash::ABSENT, |row| row.native) == held
                && learnt.is_none_or(|learnt| known.and_then(|field| field.seen) == Some(learnt));
            let field = match known.filter(|_| as_before) {
                Some(field) => field,
                None => FieldState { seen: learnt.or(known.and_then(|field| field.seen)), sent: Some(*sent), ..FieldState::default() },
            };
            state.fields.insert(unit.text().clone(), field);
            elsewhere |= !as_before;
        }
        elsewhere
    }
}

/// Compares what the target shows now with what was being sent and with what it held before.
#[must_use]
pub fn looked_up(state: &ParticipantState, shown: &[(FieldPath, Value)], sent: &Sent) -> LookedUp {
    if sent.removal {
        return LookedUp::NoEffect;
    }
    // A value that was there before proves nothing, and neither does a field that cannot be read.
    let (mut took_effect, mut evidence) = (true, false);
    for (unit, value) in shown {
        let name = unit.text();
        let Some(wanted) = sent.units.get(name) else { continue };
        let shown = ValueHash::of(Some(value));
        let before = state.fields.get(name);
        if shown == *wanted {
            evidence |= sent.held(name).or(before.and_then(|field| field.seen)) != Some(shown);
            continue;
        }
        took_effect = false;
        if sent.held(name) == Some(shown) {
            continue;
        }
        if before.is_some_and(|field| field.seen != Some(shown) && field.sent != Some(shown) && field.rendered != Some(shown)) {
            return LookedUp::Edited;
        }
    }
    // A write of one record takes effect as a whole.
    match (evidence, took_effect) {
        (true, true) => LookedUp::TookEffect,
        (true, false) => LookedUp::PutBack,
        (false, _) => LookedUp::NoEffect,
    }
}

/// Why waiting for `record`, which the target does not have, would never end; `None` while it may still come.
#[must_use]
pub fn never_there(program: &Program, target: &Participant, record: RecordId, known: Option<&Known>) -> Option<RemoteError> {
    let why = match known {
        Some(known) if known.record.deleted_at.is_none() => {
            if program.unit.initial_load == InitialLoad::MatchOnly {
                "which matches no record here and is not created under initialLoad: MatchOnly"
            } else if brought_by(program, known) == Some(InitialLoad::MatchOnly) {
                "which matches no record of others and is not made here under the initialLoad: MatchOnly of those that hold it"
            } else if target.table.accepts(&known.record.document) == Ok(false) {
                "which write.when keeps out of here"
            } else {
                return None;
            }
        }
        _ => "which is deleted",
    };
    let message = format!("it refers to record {record}, {why}; point it at another record in its source, or let that one in");
    Some(RemoteError::new(ErrorClass::Data, "ReferenceUnresolved", message))
}

/// Whether a key has waited for another record for so long that somebody should look.
#[must_use]
pub fn overdue(claimed: &Claimed, now: Timestamp) -> bool {
    claimed.waited && now.since(claimed.since) >= WAITS_FOR
}

/// Whether an overdue key waits in vain: not while the other record is on its way to the target itself, for what holds that one up (an outage,
/// a guard, another record) ends it or gives it a letter of its own.
#[must_use]
pub fn waits_in_vain(target: &Participant, awaited: Option<&Known>) -> bool {
    let name = &target.unit.name;
    !awaited.is_some_and(|known| known.identity(name).is_some() || known.lanes.iter().any(|lane| lane.target == *name))
}

/// What becomes of a key that has waited so long for `record`.
#[must_use]
pub fn not_there_in_time(target: &Participant, record: RecordId) -> RemoteError {
    let (hours, name) = (WAITS_FOR.as_secs() / 3600, target.unit.called());
    let message = format!(
        "it has waited {hours} hours for record {record}, which is not in {name} yet; see what holds that one up there, then replay"
    );
    RemoteError::new(ErrorClass::Data, "ReferenceUnresolved", message)
}

/// The cycle in which a record stands by what waits for what: from itself to the one that waits for it.
#[must_use]
pub fn cycle_of(id: RecordId, waits: &HashMap<RecordId, Option<RecordId>>) -> Option<Vec<RecordId>> {
    let (mut cycle, mut seen) = (vec![id], HashSet::from([id]));
    loop {
        let next = waits.get(cycle.last()?).copied().flatten()?;
        if next == id {
            return Some(cycle);
        }
        // It waits for a cycle that it does not stand in.
        if !seen.insert(next) {
            return None;
        }
        cycle.push(next);
    }
}

/// Whether a record of a cycle may be made before the one that it waits for: every row that refers to that one says so. `refers` are its references,
/// each resolved where records were merged.
#[must_use]
pub fn may_be_completed(mut refers: impl Iterator<Item = (RecordId, OnCycle)>, awaited: RecordId) -> bool {
    let mut any = false;
    refers.all(|(record, on_cycle)| {
        any |= record == awaited;
        record != awaited || on_cycle == OnCycle::Complete
    }) && any
}

/// How long a cycle is given to come apart by itself: until every reader has asked for news once more.
#[must_use]
pub fn cycle_patience(program: &Program) -> Duration {
    let reads = program.participants.iter().filter_map(|participant| participant.unit.read.as_ref());
    reads.map(|read| read.every * 2).fold(CYCLE_PATIENCE, Duration::max)
}

/// What becomes of a key that closes a cycle which did not come apart: of these records each refers to the next, and the last to the first, which is
/// the key's.
#[must_use]
pub fn closes_a_cycle(target: &Participant, claimed: &Claimed, cycle: &[RecordId]) -> Outcome {
    let mut named: Vec<String> = cycle.iter().chain(cycle.first()).take(NAMED).map(ToString::to_string).collect();
    if cycle.len() >= NAMED {
        named.push("...".into());
    }
    let message = format!(
        "it refers to itself by way of {} new records, none of which can be in {} before the next: {}; correct a reference at its source, or say \
         reference.onCycle: Complete in its row, then replay",
        cycle.len(),
        target.unit.called(),
        named.join(" -> ")
    );
    dead_letter(target, claimed, Stage::Outbound, &RemoteError::new(ErrorClass::Data, "ReferenceCycle", message), None)
}

/// The references a document makes in this target: which records must be there before it can be written, and what the row says of cycles.
pub fn references<'a>(target: &'a Participant, canonical: &'a Document) -> impl Iterator<Item = (RecordId, OnCycle)> + 'a {
    target.unit.rows.iter().filter_map(|row| {
        // What is only read has nothing to wait for.
        let (reference, unit) =
            (row.reference.as_ref()?, row.canonical.as_ref().filter(|unit| target.table.writable_units().contains(unit))?);
        let record = document::present(canonical, unit)?.as_str().and_then(RecordId::parse)?;
        Some((record, reference.on_cycle))
    })
}

#[cfg(test)]
#[path = "outbound_tests.rs"]
mod tests;
