//! A record's way, for tracing: read, map, absorb at its source; claim, map, write, settle at each target.
//!
//! The trace of a record's version is named by the record and the version, so both halves, which meet only in the store, tell the same
//! trace without carrying anything along: across a crash, another process, or a retry hours later. A step is told when it is over, with the
//! times of the batch it was part of. Nothing is kept and no clock is read while nobody listens. Steps hold ids, names and outcomes, never a
//! value of a record.

use fairlead_model::RecordId;
use fairlead_model::hash::ValueHash;
use fairlead_store::{AbsorbRecord, Outcome, RecordChange, Settlement};
use std::sync::Arc;
use std::time::SystemTime;

/// One finished step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The trace: the same for all steps of one version of a record.
    pub trace: [u8; 16],
    /// This step.
    pub id: [u8; 8],
    /// The step that it is part of; the root has none.
    pub parent: Option<[u8; 8]>,
    /// What was done.
    pub name: &'static str,
    /// From when.
    pub start: SystemTime,
    /// Until when.
    pub end: SystemTime,
    /// The Integration, as `namespace/name`.
    pub integration: Arc<str>,
    /// The participant: the source or the target.
    pub participant: Arc<str>,
    /// The record.
    pub record: RecordId,
    /// Its version.
    pub version: u64,
    /// How many records the batch held.
    pub batch: usize,
    /// What came of it, for the last step at a target.
    pub outcome: Option<&'static str>,
    /// Whether that is a failure.
    pub failed: bool,
}

/// Somebody who listens.
pub trait Witness: Send + Sync + 'static {
    /// Whether the steps of this trace are wanted.
    fn wants(&self, trace: [u8; 16]) -> bool;
    /// Takes a step. Must not block.
    fn saw(&self, step: Step);
}

/// From when until when; `None` while nobody listens.
pub(crate) type Span = Option<(SystemTime, SystemTime)>;

/// Tells the steps of one participant.
#[derive(Clone)]
pub(crate) struct Way {
    witness: Option<Arc<dyn Witness>>,
    /// Whose records they are: what names a trace, also where several Integrations take part in it.
    realm: Arc<str>,
    integration: Arc<str>,
    participant: Arc<str>,
}

/// The times of a batch at its source.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SourceTimes {
    pub(crate) read: Span,
    pub(crate) map: Span,
    pub(crate) absorb: Span,
}

/// The times of a batch at its target.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TargetTimes {
    pub(crate) claim: Span,
    pub(crate) map: Span,
    pub(crate) write: Span,
    pub(crate) settle: Span,
}

impl Way {
    pub(crate) fn new(witness: Option<Arc<dyn Witness>>, realm: &str, integration: &str, participant: &str) -> Self {
        Self { witness, realm: realm.into(), integration: integration.into(), participant: participant.into() }
    }

    /// Now, if anybody wants to know.
    pub(crate) fn mark(&self) -> Option<SystemTime> {
        self.witness.as_ref().map(|_| SystemTime::now())
    }

    /// Since that mark.
    pub(crate) fn since(&self, mark: Option<SystemTime>) -> Span {
        Some((mark?, self.mark()?))
    }

    /// A batch is absorbed: what changed begins its way.
    pub(crate) fn absorbed(&self, records: &[AbsorbRecord], times: SourceTimes) {
        let (Some(witness), Some((start, _)), Some((_, end))) = (&self.witness, times.read, times.absorb) else { return };
        for absorbed in records {
            let (RecordChange::Insert { record, .. } | RecordChange::Update { record, .. }) = &absorbed.change else { continue };
            let Some(teller) = Teller::of(self, witness, record.id, record.version, records.len()) else { continue };
            witness.saw(teller.step("record", teller.root, None, (start, end)));
            for (name, span) in [("read", times.read), ("map", times.map), ("absorb", times.absorb)] {
                teller.part(name, teller.root, span);
            }
        }
    }

    /// A batch is settled at its target.
    pub(crate) fn settled(&self, results: &[Settlement], times: TargetTimes) {
        let (Some(witness), Some((start, _)), Some((_, end))) = (&self.witness, times.claim, times.settle) else { return };
        for result in results {
            let Some(teller) = Teller::of(self, witness, result.id, result.version, results.len()) else { continue };
            let deliver = teller.id("deliver", start);
            let mut whole = teller.step("deliver", deliver, Some(teller.root), (start, end));
            whole.outcome = Some(result.outcome.word());
            whole.failed = matches!(result.outcome, Outcome::DeadLetter(_) | Outcome::Retry { attempt: true, .. });
            witness.saw(whole);
            let sent = !matches!(result.outcome, Outcome::Unchanged | Outcome::Filtered { .. } | Outcome::WaitFor { .. });
            let write = times.write.filter(|_| sent);
            for (name, span) in [("claim", times.claim), ("map", times.map), ("write", write), ("settle", times.settle)] {
                teller.part(name, deliver, span);
            }
        }
    }
}

/// Tells the steps of one version of a record.
struct Teller<'a> {
    way: &'a Way,
    witness: &'a Arc<dyn Witness>,
    trace: [u8; 16],
    root: [u8; 8],
    record: RecordId,
    version: u64,
    batch: usize,
}

impl<'a> Teller<'a> {
    fn of(way: &'a Way, witness: &'a Arc<dyn Witness>, record: RecordId, version: u64, batch: usize) -> Option<Self> {
        let name = |part: &str| ValueHash::of_text(&format!("{}/{record}/{version}/{part}", way.realm)).0.to_be_bytes();
        let mut trace = [0; 16];
        trace[..8].copy_from_slice(&name("trace"));
        trace[8..].copy_from_slice(&name("trace, second half"));
        let root = name("root");
        witness.wants(trace).then_some(Self { way, witness, trace, root, record, version, batch })
    }

    /// The same step at another time is another one.
    fn id(&self, name: &str, start: SystemTime) -> [u8; 8] {
        let since = start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let text = format!("{}/{}/{}/{name}/{since}", self.record, self.version, self.way.participant);
        ValueHash::of_text(&text).0.to_be_bytes()
    }

    fn part(&self, name: &'static str, parent: [u8; 8], span: Span) {
        if let Some((start, end)) = span {
            self.witness.saw(self.step(name, self.id(name, start), Some(parent), (start, end)));
        }
    }

    fn step(&self, name: &'static str, id: [u8; 8], parent: Option<[u8; 8]>, (start, end): (SystemTime, SystemTime)) -> Step {
        Step {
            trace: self.trace,
            id,
            parent,
            name,
            start,
            end,
            integration: Arc::clone(&self.way.integration),
            participant: Arc::clone(&self.way.participant),
            record: self.record,
            version: self.version,
            batch: self.batch,
            outcome: None,
            failed: false,
        }
    }
}
