//! A small world for tests of decisions: two systems, a CRM that owns a customer's name and an ERP that owns its credit; nobody owns the
//! note. It does to what is known what the store would do, so that a test can tell a story in a few lines.

use crate::decide::inbound::{self, Absorbed, Context, Decision, ReadRecord};
use crate::decide::outbound::{self, Step};
use crate::program::{Participant, Program};
use fairlead_contract::Contract;
use fairlead_model::hash::Digest;
use fairlead_model::unit::{
    ContractUnit, DeletionPolicy, Guard, InitialLoad, IntegrationUnit, MasterUnit, OnDelete, OnForeignEdit, OnLeave, OnMerge,
    OwnershipRule, ParticipantUnit, ReadUnit, Retry, RevisionUnit, Sibling, Tie, WriteUnit,
};
use fairlead_model::{Document, ExternalId, ObjectRef, RecordId, Timestamp};
use fairlead_store::{Claimed, Haste, Identity, Known, LaneEntry, Origin, Outcome, RecordChange};
use fairlead_systems::Written;
use serde_json::{Value, from_value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The record of every story.
pub(crate) const ID: RecordId = RecordId(Uuid::from_u128(7));

/// A JSON object.
pub(crate) fn document(value: Value) -> Document {
    value.as_object().cloned().unwrap()
}

fn participant(name: &str, key: &str) -> ParticipantUnit {
    let native = json!({
        "Id": {"type": "String"}, "Name": {"type": "String"}, "Credit": {"type": "String"}, "Note": {"type": "String"},
        "Parent": {"type": "Reference"}, "Label": {"type": "String"}, key: {"type": "String"},
    });
    let rows = json!([
        {"canonical": "name", "native": "Name"}, {"canonical": "credit", "native": "Credit"}, {"canonical": "note", "native": "Note"},
        {"canonical": "parentId", "native": "Parent", "reference": {"entity": "customer"}},
    ]);
    ParticipantUnit {
        name: name.into(),
        role: name.into(),
        connector: ObjectRef::new("default", name),
        entity: "customer".into(),
        native: from_value(native).unwrap(),
        read: Some(ReadUnit { every: Duration::from_secs(5) }),
        write: Some(WriteUnit {
            key: Some(key.into()),
            when: None,
            on_delete: OnDelete::Archive,
            on_merge: OnMerge::Keep,
            on_leave: OnLeave::Keep,
            on_foreign_edit: OnForeignEdit::Restore,
        }),
        rows: from_value(rows).unwrap(),
    }
}

/// The second participant of a unit, to be changed.
pub(crate) fn erp(unit: &mut IntegrationUnit) -> &mut ParticipantUnit {
    Arc::make_mut(&mut unit.participants[1])
}

/// The Integration of the stories.
pub(crate) fn unit() -> IntegrationUnit {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "additionalProperties": false,
        "properties": {
            "name": {"type": "string"}, "credit": {"type": "string"}, "note": {"type": "string"}, "parentId": {"type": "string"},
        },
    });
    let fields = Contract::compile(&schema).unwrap().fields().clone();
    let rule = |field: &str, role: &str| OwnershipRule { fields: vec![field.into()], role: role.into() };
    IntegrationUnit {
        object: ObjectRef::new("default", "customers"),
        generation: 1,
        digest: Digest::default(),
        entity: "customer".into(),
        contract: ContractUnit { object: ObjectRef::new("default", "customer"), schema: schema.into(), fields },
        participants: vec![participant("crm", "FairleadId").into(), participant("erp", "ExternalId").into()],
        lookups: BTreeMap::new(),
        initial_load: InitialLoad::MatchOrCreate,
        matching: vec![vec!["name".parse().unwrap()]],
        indexed: Vec::new(),
        ownership: vec![rule("name", "crm"), rule("credit", "erp"), rule("parentId", "crm")],
        tie: Tie::Home,
        guard: Guard::default(),
        resync: None,
        reconcile: None,
        retry: Retry { attempts: 3, initial: Duration::from_secs(1), max: Duration::from_secs(60) },
        keep_letters: Duration::from_secs(720 * 3600),
        revision: RevisionUnit::default(),
        rollout: None,
        paused: false,
        deletion_policy: DeletionPolicy::Retain,
        master: None,
    }
}

/// The same, and another Integration feeds its records as well: with a CRM that is only read, and an ERP that is only written.
pub(crate) fn golden() -> IntegrationUnit {
    let sibling = |role: &str, reads: bool| Sibling {
        name: format!("eu/customers/{role}"),
        role: role.into(),
        reads,
        writes: !reads,
        load: InitialLoad::MatchOrCreate,
    };
    IntegrationUnit { master: Some(MasterUnit { siblings: vec![sibling("crm", true), sibling("erp", false)] }), ..unit() }
}

/// What came of reading.
#[derive(Debug)]
pub(crate) enum Seen {
    Unchanged,
    Stale,
    Absorbed(Box<Absorbed>),
}

impl Seen {
    /// The lanes entered, as `target:origin`.
    pub(crate) fn lanes(&self) -> Vec<String> {
        let Self::Absorbed(absorbed) = self else { panic!("not absorbed: {self:?}") };
        let origin = |origin: &Origin| match origin {
            Origin::Source(name) => name.clone(),
            other => format!("{other:?}"),
        };
        absorbed.record.enqueue.iter().map(|(target, from)| format!("{target}:{}", origin(from))).collect()
    }

    pub(crate) fn absorbed(&self) -> &Absorbed {
        let Self::Absorbed(absorbed) = self else { panic!("not absorbed: {self:?}") };
        absorbed
    }

    /// How many foreign edits it held.
    pub(crate) fn conflicts(&self) -> usize {
        self.absorbed().history.iter().filter(|change| change.is_conflict()).count()
    }

    pub(crate) fn is_stale(&self) -> bool {
        matches!(self, Self::Stale)
    }
}

/// A program and what is known of one record.
pub(crate) struct World {
    pub(crate) program: Program,
    pub(crate) known: Option<Known>,
    /// The vendors' clock; each read and write is a second later.
    pub(crate) clock: i64,
    pub(crate) sequence: u64,
    /// Records are read by key.
    pub(crate) by_key: bool,
    /// The vendor shows old values for so long.
    pub(crate) stale_for: Duration,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of(unit())
    }

    pub(crate) fn of(unit: IntegrationUnit) -> Self {
        Self {
            program: Program::compile(unit.into()).unwrap(),
            known: None,
            clock: 1_000_000,
            sequence: 1,
            by_key: false,
            stale_for: Duration::ZERO,
        }
    }

    pub(crate) fn participant(&self, name: &str) -> &Participant {
        self.program.participant(name).unwrap()
    }

    pub(crate) fn known(&mut self) -> &mut Known {
        self.known.as_mut().unwrap()
    }

    pub(crate) fn canonical(&self) -> Value {
        Value::Object(self.known.as_ref().unwrap().record.document.clone())
    }

    /// What a read of `body` in `who` looks like now.
    pub(crate) fn shown(&self, who: &str, body: Value) -> ReadRecord {
        let body = document(body);
        ReadRecord {
            external_id: ExternalId(format!("{who}-1")),
            version: Some(self.clock.to_string()),
            modified: Some(Timestamp(self.clock)),
            deleted: false,
            fields: self.participant(who).table.to_canonical(&body).unwrap().fields,
            body,
            edited: BTreeSet::new(),
        }
    }

    /// `who` shows `body`.
    pub(crate) fn read(&mut self, who: &str, body: Value) -> Seen {
        self.clock += 1000;
        let read = self.shown(who, body);
        self.take(who, &read, self.sequence)
    }

    /// `who` has deleted it.
    pub(crate) fn read_deleted(&mut self, who: &str) -> Seen {
        self.clock += 1000;
        let read = ReadRecord { deleted: true, fields: Vec::new(), body: Document::new(), ..self.shown(who, json!({})) };
        self.take(who, &read, self.sequence)
    }

    /// Absorbs a read that began at `began`.
    pub(crate) fn take(&mut self, who: &str, read: &ReadRecord, began: u64) -> Seen {
        let context = Context { new_id: ID, began, by_key: self.by_key, stale_for: self.stale_for, now: Timestamp(self.clock) };
        match inbound::decide(&self.program, self.participant(who), &mut read.clone(), self.known.as_ref(), context) {
            Decision::Unchanged => Seen::Unchanged,
            Decision::Stale => Seen::Stale,
            Decision::Absorb(absorbed) => {
                self.store(who, &absorbed);
                Seen::Absorbed(absorbed)
            }
        }
    }

    fn store(&mut self, who: &str, absorbed: &Absorbed) {
        self.sequence += 1;
        let record = &absorbed.record;
        match &record.change {
            RecordChange::Insert { record, .. } => {
                self.known = Some(Known { record: record.clone(), identities: Vec::new(), lanes: Vec::new(), merged_into: None });
            }
            RecordChange::Update { record, .. } => self.known().record = record.clone(),
            RecordChange::Keep { version } => assert_eq!(*version, self.known().record.version),
        }
        self.learn(who, record.external_id.clone(), record.state.clone());
        for (target, _) in &record.enqueue {
            if !self.known().lanes.iter().any(|lane| lane.target == *target) {
                self.known().lanes.push(LaneEntry { target: target.clone(), in_flight: false, attempts: 0 });
            }
        }
    }

    pub(crate) fn learn(&mut self, who: &str, external_id: ExternalId, state: fairlead_model::state::ParticipantState) {
        let known = self.known();
        known.identities.retain(|identity| identity.participant != who);
        known.identities.push(Identity { participant: who.into(), external_id, state });
    }

    /// The key as the lane of a target claims it.
    pub(crate) fn claimed(&self) -> Claimed {
        Claimed {
            known: self.known.clone().unwrap(),
            origin: Origin::Source("crm".into()),
            haste: Haste::Soon,
            since: Timestamp(self.clock),
            attempts: 0,
            waited: false,
            intent: None,
        }
    }

    /// What the lane of `who` would do.
    pub(crate) fn step(&self, who: &str) -> Step {
        let target = self.participant(who);
        let map = |document: &Document| target.table.to_native(document, &|_, _| None);
        outbound::decide(&self.program, target, &self.claimed(), &map)
    }

    /// Drains the lane of `who`, with no answer from the vendor; the body that was sent, if anything was.
    pub(crate) fn write(&mut self, who: &str) -> Option<Value> {
        self.write_answered(who, None)
    }

    /// Drains the lane of `who`; the vendor answers with the record as it holds it now.
    pub(crate) fn write_answered(&mut self, who: &str, answer: Option<Value>) -> Option<Value> {
        self.clock += 1000;
        self.sequence += 1;
        let step = self.step(who);
        self.known().lanes.retain(|lane| lane.target != who);
        let Step::Write(planned) = step else { return None };
        let target = self.participant(who);
        let answered = answer.map(|answer| target.table.to_canonical(&document(answer)).unwrap().fields).unwrap_or_default();
        let written = Written { id: ExternalId(format!("{who}-1")), version: None, created: false, answer: None };
        let Outcome::Delivered { external_id, mut state, .. } =
            outbound::delivered(target, &self.claimed(), &planned, &written, &answered, Timestamp(self.clock))
        else {
            panic!("a write that was acknowledged is delivered")
        };
        state.settled = self.sequence;
        self.learn(who, external_id, state);
        Some(Value::Object(planned.item.body))
    }

    /// A write to `who` is under way.
    pub(crate) fn in_flight(&mut self, who: &str) {
        self.known().lanes.retain(|lane| lane.target != who);
        self.known().lanes.push(LaneEntry { target: who.into(), in_flight: true, attempts: 0 });
    }
}
