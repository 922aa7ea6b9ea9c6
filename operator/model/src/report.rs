//! Reports: what a runtime says of each unit it runs. The controller turns them into status; live numbers go to metrics.

use crate::error::RemoteError;
use crate::hash::Digest;
use crate::id::RecordId;
use crate::route::RouteReport;
use crate::time::Timestamp;
use crate::unit::ObjectKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// One snapshot of everything a runtime runs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Reports {
    /// When the snapshot was taken; an old one means the runtime does not report.
    pub at: Timestamp,
    /// By Connector.
    pub connectors: BTreeMap<ObjectKey, ConnectorReport>,
    /// By Integration.
    pub integrations: BTreeMap<ObjectKey, IntegrationReport>,
    /// By ApiContract, of those that are served.
    #[serde(default)]
    pub routes: BTreeMap<ObjectKey, RouteReport>,
    /// Removed Integrations whose clean-up is done.
    pub forgotten: Vec<ObjectKey>,
}

/// State of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum Circuit {
    /// Requests flow.
    #[default]
    Closed,
    /// One request decides.
    HalfOpen,
    /// Nothing is sent.
    Open,
}

/// How much of the account's quota is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum Quota {
    /// Plenty.
    #[default]
    Ample,
    /// Little: backfills wait.
    Low,
    /// Nothing, but for what is kept for callers of the API.
    Exhausted,
}

/// A span of time for which an account has a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Window {
    /// The day (UTC), of which the Connector's `limits.dailyRequests` may be used; counted by Fairlead.
    Day,
    /// The vendor's own, as far as its answers tell.
    Vendor,
}

impl Window {
    /// The word for it in metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Vendor => "vendor",
        }
    }
}

/// Which quota is used up, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Whose.
    pub window: Window,
    /// Nothing is sent before.
    pub until: Timestamp,
    /// The window ends then. Else that is not known, and it is only asked again then.
    pub ends: bool,
}

/// What one connector is like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectorReport {
    /// The unit that runs.
    pub digest: Digest,
    /// The last authenticated probe: `None` before the first, then success or the failure.
    pub probe: Option<Result<Timestamp, Failure>>,
    /// Circuit.
    pub circuit: Circuit,
    /// Quota.
    pub quota: Quota,
    /// The quota that is used up for what keeps records in step.
    #[serde(default)]
    pub spent: Option<Spent>,
    /// Throttled until then: by the vendor, or because the quota is used up.
    pub throttled_until: Option<Timestamp>,
    /// The last error of any call.
    pub last_error: Option<Failure>,
}

/// An error with its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// When it was first seen in this form.
    pub at: Timestamp,
    /// What it was.
    pub error: RemoteError,
}

/// What one Integration is like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IntegrationReport {
    /// The unit that runs.
    pub digest: Digest,
    /// Why the unit could not be taken over, while the last good one goes on.
    pub rejected: Option<String>,
    /// Where it stands.
    pub phase: Phase,
    /// Per participant, in the unit's order.
    pub participants: Vec<ParticipantReport>,
    /// The readers of other Integrations for which its first load waits, while it waits for nothing else.
    #[serde(default)]
    pub awaited: Vec<String>,
    /// Lag, if it can be told.
    pub lag: Option<Lag>,
    /// The last delivered change.
    pub last_delivered: Option<Timestamp>,
    /// The last thing that went wrong with a record or a call.
    pub last_error: Option<RecordFailure>,
    /// Whether the ledger adds up.
    pub balanced: bool,
    /// Counts while the first apply is only previewed.
    pub preview: Option<Preview>,
    /// Set while the guard holds the Integration.
    pub guard: Option<GuardStop>,
    /// What the last reconciliation found.
    #[serde(default)]
    pub reconciliation: Option<Reconciliation>,
    /// Which revision is in force, and which is on trial; unknown until that was looked up.
    #[serde(default)]
    pub revision: Option<Revisions>,
    /// Trouble with the store (full disk, read-only), named.
    pub store_error: Option<String>,
}

impl IntegrationReport {
    /// The report of a unit of which nothing is known yet.
    #[must_use]
    pub fn begun(digest: Digest, phase: Phase) -> Self {
        Self {
            digest,
            rejected: None,
            phase,
            participants: Vec::new(),
            awaited: Vec::new(),
            lag: None,
            last_delivered: None,
            last_error: None,
            balanced: true,
            preview: None,
            guard: None,
            reconciliation: None,
            revision: None,
            store_error: None,
        }
    }
}

/// Where an Integration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Some reading participant's first backfill is not complete.
    Backfill,
    /// The preview's counts are complete; nothing is written.
    Previewed,
    /// Records flow.
    Live,
    /// Paused by its spec.
    Paused,
    /// Held by the guard.
    Guarded,
}

/// Where one participant stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ParticipantReport {
    /// Its name.
    pub name: String,
    /// `Backfill`, `Live`, `Paused` (entity permission missing or connector pause), or `WriteOnly`.
    pub state: ParticipantState,
    /// Open dead letters that come from it or go to it.
    pub dead_letters: u64,
    /// Keys waiting in its lane.
    pub pending: u64,
    /// Changes made there to fields that another owns, so far.
    #[serde(default)]
    pub conflicts: u64,
    /// The last complete reading since the runtime started.
    pub last_read: Option<Timestamp>,
    /// Why this participant is paused, if it is.
    pub paused_by: Option<RemoteError>,
}

/// Where one participant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ParticipantState {
    /// First read under way.
    Backfill,
    /// Polled.
    Live,
    /// Waiting for a cause to be mended.
    Paused,
    /// Never read.
    WriteOnly,
}

/// Lag: the age of the oldest lane entry that should have been delivered, plus the age of the last successful read beyond its schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lag {
    /// The sum.
    pub age: Duration,
    /// Keys waiting.
    pub pending: u64,
}

/// A failure of one record or call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordFailure {
    /// When.
    pub at: Timestamp,
    /// Which participant.
    pub participant: String,
    /// The vendor's id of the record, if it has one.
    pub external_id: Option<String>,
    /// The canonical id, if known.
    pub record: Option<RecordId>,
    /// What went wrong.
    pub error: RemoteError,
}

/// What a first apply would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// Records that more than one participant holds.
    pub matched: u64,
    /// Records with several candidates.
    pub ambiguous: u64,
    /// Creations that would be sent.
    pub would_create: u64,
    /// Records that would be written because they differ.
    pub would_change: u64,
}

/// What came of one reconciliation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reconciliation {
    /// When it ended.
    pub at: Timestamp,
    /// How it ended.
    pub outcome: ReconciliationOutcome,
    /// Records that were compared, once per system.
    pub compared: u64,
    /// The differences.
    pub drift: Drift,
    /// Differences that were put on their way to be put right.
    pub repaired: u64,
    /// Why it is incomplete, and of which participant; or why differences were left that are to be put right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The end of the last one after which nothing was left to put right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
}

/// Differences between what the systems hold and what is known of them, by kind. What is on its way, and what is a dead letter, is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// Records that should be in a system and are not.
    pub missing: u64,
    /// Records that hold other values in a system than were read from it, or than they should.
    pub different: u64,
    /// Records of a system that were never read.
    pub unread: u64,
    /// Records that a system does not show any more, and that were not read as deleted.
    pub gone: u64,
}

impl Drift {
    /// The counts with their words.
    #[must_use]
    pub fn by_kind(self) -> [(&'static str, u64); 4] {
        [("missing", self.missing), ("different", self.different), ("unread", self.unread), ("gone", self.gone)]
    }

    /// All of them.
    #[must_use]
    pub fn total(self) -> u64 {
        self.by_kind().into_iter().map(|(_, count)| count).sum()
    }
}

/// How a reconciliation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReconciliationOutcome {
    /// No differences.
    InStep,
    /// Differences were found and are being put right.
    Repaired,
    /// Differences were found and left.
    Drifted,
    /// More differences were found than may be put right without a person.
    ThresholdExceeded,
    /// Not everything could be compared.
    Incomplete,
}

/// Which revision of an Integration maps its records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revisions {
    /// The number of the one in force, if revisions are counted.
    pub active: Option<i64>,
    /// The one that is to take over.
    pub trial: Option<TrialReport>,
}

/// A revision on trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrialReport {
    /// Its number, if revisions are counted.
    pub revision: Option<i64>,
    /// Where it stands.
    pub phase: TrialPhase,
    /// Since when.
    pub since: Timestamp,
    /// Records that it was tried on: in all systems while it is only compared, of its share afterwards.
    pub tried: u64,
    /// Of these, what it would write otherwise than the revision in force.
    pub different: u64,
    /// Of these, what it cannot map or bring to its target.
    pub failing: u64,
    /// Why it was stopped.
    pub stopped: Option<String>,
}

/// Where a revision on trial stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TrialPhase {
    /// It is compared with the revision in force, and writes nothing.
    Shadow,
    /// It maps a share of the records.
    Canary,
    /// It did worse than the revision in force, and maps nothing any more.
    Stopped,
}

impl TrialPhase {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Shadow, Self::Canary, Self::Stopped];

    /// The word for it in metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Canary => "canary",
            Self::Stopped => "stopped",
        }
    }
}

/// Why the guard holds an Integration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardStop {
    /// `deletes` or `changes`, with the numbers.
    pub message: String,
    /// Repeat it in `guard.confirm` to let this overrun through.
    pub token: String,
    /// Deletes within the window, the batch that was held included.
    pub deletes: u64,
    /// Changes within the window, the batch that was held included.
    pub changes: u64,
    /// Live records that the percentages are of.
    pub live: u64,
}
