//! What would become of one record: for `fairlead preview` and `fairlead test`.
//!
//! The decisions are those of the running engine, with no store, no system and no clock around them. The record is taken for a new one, so
//! what a target gets is what its creation there would send; match rules, ownership and what the participants hold play no part.

use crate::decide::inbound;
use crate::decide::outbound::{self, Step};
use crate::program::{Participant, Program};
use fairlead_model::unit::{InitialLoad, IntegrationUnit, ParticipantUnit};
use fairlead_model::{Document, ErrorClass, ExternalId, FieldPath, RecordId, RemoteError, Timestamp, document};
use fairlead_store::{Claimed, Known, Origin, Outcome, Record, Stage};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// The record on trial; in no document, since no row may write the correlation field.
const ITSELF: RecordId = RecordId(Uuid::nil());

/// An Integration on which records are tried.
pub struct Trial {
    program: Program,
    others: Vec<Other>,
}

/// Another record that is known, so that references to it resolve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    /// Its canonical id.
    pub id: RecordId,
    /// By which id a participant knows it.
    pub ids: BTreeMap<String, ExternalId>,
}

/// A record in canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Canonical {
    /// What the participant tells of it.
    pub document: Document,
    /// Fields that refer to a record that is not known, with the id that the participant gives.
    pub waits: Vec<(FieldPath, ExternalId)>,
}

/// What would become of a record in a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// It is created with these fields (and the correlation field, where the target has one).
    Payload(Document),
    /// It does not belong there: its `when` is false.
    Filtered,
    /// It waits until the record with this id is there.
    Waits(RecordId),
    /// It becomes a dead letter.
    Refused(Refusal),
}

/// The dead letter that a record would become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Where in its way.
    pub stage: Stage,
    /// What would happen next.
    pub class: ErrorClass,
    /// The word.
    pub reason: String,
    /// The field that is meant, if one is.
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
}

impl Refusal {
    fn new(stage: Stage, error: RemoteError) -> Self {
        Self { stage, class: error.class, reason: error.reason, field: error.field, message: error.message }
    }
}

impl Trial {
    /// Compiles a unit, to be tried with these other records.
    ///
    /// # Errors
    /// What cannot be compiled, for people.
    pub fn new(unit: &IntegrationUnit, others: Vec<Other>) -> Result<Self, String> {
        // What a first load may do is not a matter of one record: where nothing may be created, the payload is of interest nevertheless.
        // Nobody else takes part, so each participant goes by the name that people know.
        let named = |each: &Arc<ParticipantUnit>| Arc::new(ParticipantUnit { name: each.called().to_owned(), ..(**each).clone() });
        let participants = unit.participants.iter().map(named).collect();
        let unit = IntegrationUnit { initial_load: InitialLoad::MatchOrCreate, participants, master: None, ..unit.clone() };
        Ok(Self { program: Program::compile(Arc::new(unit))?, others })
    }

    /// The compiled Integration.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Makes a participant's record canonical.
    ///
    /// # Errors
    /// The dead letter that it would become.
    pub fn canonical(&self, source: &Participant, native: &Document) -> Result<Canonical, Refusal> {
        let inbound = inbound::canonical(source, &self.program.contract, native).map_err(|error| Refusal::new(Stage::Inbound, error))?;
        let mut canonical = Canonical { document: inbound::partial(&inbound.fields), waits: Vec::new() };
        for (field, _, external) in inbound.references {
            match self.others.iter().find(|other| other.ids.get(&source.unit.name) == Some(&external)) {
                Some(other) => document::set(&mut canonical.document, &field, other.id.to_string().into()),
                None => canonical.waits.push((field, external)),
            }
        }
        Ok(canonical)
    }

    /// What a target would get of a canonical record.
    #[must_use]
    pub fn sent(&self, target: &Participant, canonical: &Document) -> Sent {
        let record = Record {
            id: ITSELF,
            version: 1,
            document: canonical.clone(),
            home: String::new(),
            provenance: BTreeMap::new(),
            deleted_at: None,
        };
        let known = Known { record, identities: Vec::new(), lanes: Vec::new(), merged_into: None };
        let origin = Origin::Source(String::new());
        let claimed = Claimed { known, haste: origin.haste(), origin, since: Timestamp(0), attempts: 0, waited: false, intent: None };
        let resolve = |id: RecordId| self.others.iter().find(|other| other.id == id)?.ids.get(&target.unit.name).cloned();
        let map = |document: &Document| target.table.to_native(document, &|_, id| resolve(id));
        match outbound::decide(&self.program, target, &claimed, &map) {
            Step::Write(planned) => Sent::Payload(planned.item.body),
            Step::Settle(Outcome::WaitFor { record }) => Sent::Waits(record),
            Step::Settle(Outcome::DeadLetter(letter)) => Sent::Refused(Refusal {
                stage: letter.stage,
                class: letter.class,
                reason: letter.reason,
                field: letter.field,
                message: letter.message,
            }),
            Step::Settle(_) => Sent::Filtered,
        }
    }
}
