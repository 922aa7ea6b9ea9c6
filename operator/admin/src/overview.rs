//! What stands where, in numbers: from the resources' statuses, the runtime's reports and the ledger. Pure.

use fairlead_model::report::{ConnectorReport, IntegrationReport, Reports};
use fairlead_model::unit::ObjectKey;
use fairlead_model::{RemoteError, Timestamp, realm};
use fairlead_store::{LaneLedger, Snapshot};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Everything at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// When the runtime said so (RFC 3339).
    pub at: String,
    /// By namespace and name.
    pub integrations: Vec<IntegrationView>,
    /// By namespace and name.
    pub connectors: Vec<ConnectorView>,
    /// By namespace and name.
    pub contracts: Vec<ContractView>,
}

/// A resource and what its status says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The Ready condition: `True`, `False`, `Unknown`; empty while there is no status.
    pub ready: String,
    /// That condition's reason.
    pub reason: String,
    /// That condition's message.
    pub message: String,
    /// All conditions.
    pub conditions: Vec<ConditionView>,
}

/// One condition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionView {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    /// When it was first seen in this form.
    pub at: String,
    /// The participant, if it is one's.
    pub participant: Option<String>,
    /// The class of error, which decides what happens next.
    pub class: String,
    /// In one word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The field or mapping row.
    pub field: Option<String>,
}

impl Trouble {
    fn of(at: Timestamp, participant: Option<String>, error: &RemoteError) -> Self {
        Self {
            at: at.to_rfc3339(),
            participant,
            class: format!("{:?}", error.class),
            reason: error.reason.clone(),
            message: error.message.clone(),
            field: error.field.clone(),
        }
    }
}

/// How many in a minute, from the last minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    /// Records read.
    pub read_per_minute: u64,
    /// Writes acknowledged.
    pub delivered_per_minute: u64,
}

/// An Integration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IntegrationView {
    /// What its status says.
    #[serde(flatten)]
    pub standing: Standing,
    /// `Backfill`, `Previewed`, `Live`, `Paused`, `Guarded`; empty while it does not run.
    pub phase: String,
    /// Lag, while it can be told.
    pub lag_seconds: Option<u64>,
    /// Keys that wait in all lanes.
    pub pending: u64,
    /// Open dead letters.
    pub dead_letters: u64,
    /// Live canonical records.
    pub records: u64,
    /// Edits of fields that another system owns, so far.
    pub conflicts: u64,
    /// Rates over the last minute.
    #[serde(flatten)]
    pub rate: Rate,
    /// The last acknowledged write.
    pub last_delivered: Option<String>,
    /// The last thing that went wrong.
    pub last_error: Option<Trouble>,
    /// Whether the ledger adds up.
    pub balanced: bool,
    /// Per participant.
    pub participants: Vec<ParticipantView>,
    /// The books of each source.
    pub sources: Vec<SourceView>,
    /// The books of each lane and origin.
    pub lanes: Vec<LaneView>,
}

/// A participant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParticipantView {
    /// Its name.
    pub name: String,
    /// `Backfill`, `Live`, `Paused`, `WriteOnly`.
    pub state: String,
    /// Keys that wait in its lane.
    pub pending: u64,
    /// Open dead letters that come from it or go to it.
    pub dead_letters: u64,
    /// The last complete reading.
    pub last_read: Option<String>,
    /// Why it is paused.
    pub paused_by: Option<String>,
}

/// The books of a source: `read = changed + unchanged + deadLettered`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceView {
    /// The participant.
    pub participant: String,
    /// Records read.
    pub read: u64,
    /// Of these, changed something.
    pub changed: u64,
    /// Of these, equal to what was known.
    pub unchanged: u64,
    /// Of these, dead letters.
    pub dead_lettered: u64,
    /// Whether they add up.
    pub balanced: bool,
}

/// The books of a lane and origin:
/// `entered = delivered + unchanged + filtered + superseded + discarded + deadLettered + pending`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaneView {
    /// The target.
    pub target: String,
    /// Who put the keys there: a participant, or `Restore`, `Remap`, `Resync`, `Repair`, `Replay`.
    pub origin: String,
    /// Entries made.
    pub entered: u64,
    /// Written and acknowledged.
    pub delivered: u64,
    /// Found to be in step.
    pub unchanged: u64,
    /// Not belonging there, by reason.
    pub filtered: BTreeMap<String, u64>,
    /// Overtaken by a newer entry.
    pub superseded: u64,
    /// Given up by a person.
    pub discarded: u64,
    /// Open dead letters now.
    pub dead_lettered: u64,
    /// Waiting now.
    pub pending: u64,
    /// Whether they add up.
    pub balanced: bool,
}

impl From<&LaneLedger> for LaneView {
    fn from(lane: &LaneLedger) -> Self {
        Self {
            target: lane.target.clone(),
            origin: lane.origin.clone(),
            entered: lane.entered,
            delivered: lane.delivered,
            unchanged: lane.unchanged,
            filtered: lane.filtered.clone(),
            superseded: lane.superseded,
            discarded: lane.discarded,
            dead_lettered: lane.dead_lettered,
            pending: lane.pending,
            balanced: lane.balanced(),
        }
    }
}

/// A Connector.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectorView {
    /// What its status says.
    #[serde(flatten)]
    pub standing: Standing,
    /// The system.
    pub system: String,
    /// `Closed`, `HalfOpen` or `Open`; empty while it does not run.
    pub circuit: String,
    /// What is left of the vendor's quota: `Ample`, `Low`, `Exhausted`; empty while it does not run.
    pub quota: String,
    /// The vendor asked to wait until then.
    pub throttled_until: Option<String>,
    /// The last authenticated probe that succeeded, if the last one did.
    pub probed: Option<String>,
    /// The last error of any call.
    pub last_error: Option<Trouble>,
}

/// An ApiContract.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContractView {
    /// What its status says.
    #[serde(flatten)]
    pub standing: Standing,
    /// The canonical entity.
    pub entity: String,
    /// Its version.
    pub version: String,
}

impl Overview {
    /// Puts together what is known. `listing` is a Kubernetes List of the resources; `books` are the ledgers by realm.
    #[must_use]
    pub fn of(listing: &Value, reports: &Reports, books: &BTreeMap<ObjectKey, Snapshot>, rates: &BTreeMap<ObjectKey, Rate>) -> Self {
        let mut overview = Self { at: reports.at.to_rfc3339(), ..Self::default() };
        for item in listing["items"].as_array().into_iter().flatten() {
            let standing = standing(item);
            let key = ObjectKey(format!("{}/{}", standing.namespace, standing.name));
            match item["kind"].as_str() {
                Some("Integration") => overview.integrations.push(integration(
                    standing,
                    reports.integrations.get(&key),
                    books.get(&key),
                    rates.get(&key).copied().unwrap_or_default(),
                )),
                Some("Connector") => overview.connectors.push(connector(standing, item, reports.connectors.get(&key))),
                Some("ApiContract") => {
                    let (entity, version) = (text(item, "/spec/entity"), text(item, "/spec/version"));
                    overview.contracts.push(ContractView { standing, entity, version });
                }
                _ => {}
            }
        }
        overview.integrations.sort_by(|a, b| a.standing.key().cmp(&b.standing.key()));
        overview.connectors.sort_by(|a, b| a.standing.key().cmp(&b.standing.key()));
        overview.contracts.sort_by(|a, b| a.standing.key().cmp(&b.standing.key()));
        overview
    }
}

impl Standing {
    fn key(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn standing(item: &Value) -> Standing {
    let conditions: Vec<ConditionView> = item
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|condition| ConditionView {
            kind: text(condition, "/type"),
            status: text(condition, "/status"),
            reason: text(condition, "/reason"),
            message: text(condition, "/message"),
        })
        .collect();
    let ready = conditions.iter().find(|condition| condition.kind == "Ready").cloned().unwrap_or_default();
    Standing {
        namespace: text(item, "/metadata/namespace"),
        name: text(item, "/metadata/name"),
        ready: ready.status,
        reason: ready.reason,
        message: ready.message,
        conditions,
    }
}

fn integration(standing: Standing, report: Option<&IntegrationReport>, books: Option<&Snapshot>, rate: Rate) -> IntegrationView {
    let mut view = IntegrationView { standing, rate, balanced: true, ..IntegrationView::default() };
    if let Some(report) = report {
        view.phase = format!("{:?}", report.phase);
        view.lag_seconds = report.lag.map(|lag| lag.age.as_secs());
        view.last_delivered = report.last_delivered.map(Timestamp::to_rfc3339);
        view.last_error = report.last_error.as_ref().map(|last| Trouble::of(last.at, Some(last.participant.clone()), &last.error));
        view.participants = report
            .participants
            .iter()
            .map(|participant| ParticipantView {
                name: participant.name.clone(),
                state: format!("{:?}", participant.state),
                pending: participant.pending,
                dead_letters: participant.dead_letters,
                last_read: participant.last_read.map(Timestamp::to_rfc3339),
                paused_by: participant.paused_by.as_ref().map(|error| error.message.clone()),
            })
            .collect();
    }
    if let Some(books) = books {
        view.pending = books.pending.values().map(|pending| pending.keys).sum();
        view.dead_letters = books.dead_letters.values().sum();
        view.records = books.live;
        view.conflicts = books.conflicts();
        view.balanced = books.balanced();
        // Golden records know a participant by its full name; within its Integration people do not.
        let own = realm::prefix(&ObjectKey(format!("{}/{}", view.standing.namespace, view.standing.name)));
        let called = |name: &str| name.strip_prefix(&own).unwrap_or(name).to_owned();
        view.lanes = books.lanes.iter().map(LaneView::from).collect();
        view.lanes.iter_mut().for_each(|lane| (lane.target, lane.origin) = (called(&lane.target), called(&lane.origin)));
        view.sources = books
            .sources
            .iter()
            .map(|(participant, source)| SourceView {
                participant: called(participant),
                read: source.read,
                changed: source.changed,
                unchanged: source.unchanged,
                dead_lettered: source.dead_lettered,
                balanced: source.balanced(),
            })
            .collect();
    }
    view
}

fn connector(standing: Standing, item: &Value, report: Option<&ConnectorReport>) -> ConnectorView {
    let mut view = ConnectorView { standing, system: text(item, "/status/system/name"), ..ConnectorView::default() };
    if view.system.is_empty() {
        view.system = text(item, "/spec/system");
    }
    if let Some(report) = report {
        view.circuit = format!("{:?}", report.circuit);
        view.quota = format!("{:?}", report.quota);
        view.throttled_until = report.throttled_until.map(Timestamp::to_rfc3339);
        view.probed = report.probe.as_ref().and_then(|probe| probe.as_ref().ok()).map(|at| at.to_rfc3339());
        view.last_error = report.last_error.as_ref().map(|failure| Trouble::of(failure.at, None, &failure.error));
    }
    view
}
