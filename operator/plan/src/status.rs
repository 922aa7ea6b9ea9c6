//! Status: what the conditions of each resource say, from its verdict and what a runtime reported. Pure.
//!
//! Rules that hold in all three kinds (OPERATOR.md 4.2 and 5, API.md):
//! - Every positive condition is always there. `Ready` is True only if all other positives are, for this generation, and no negative is there.
//! - `Stalled` is there when a person must act, `Reconciling` when waiting helps; never both. A resource that is not Ready says one of them.
//! - No report is not good news: what the runtime alone can know becomes Unknown when it falls silent, and False when it stays so.
//! - Nothing moves because a poll happened. A status that would say the same ([`fairlead_api::status::Meaning`]) is given back as it was;
//!   numbers ride along with what else changes. How soon a change is written tells [`pace`].
//!
//! Assumption: `Moment::listening_since` is when this operator began to listen. For [`Config::silent_after`] from then on, a resource keeps the
//! conditions it had for the same generation if its runtime has not spoken of it, has not looked at the data, or is still finding out that
//! everything was read before: so a restart of operator or runtime moves nothing that settles again.

mod conditions;
mod connector;
mod contract;
mod integration;
mod pace;
#[cfg(test)]
mod tests;

pub use connector::connector_status;
pub use contract::contract_status;
pub use integration::integration_status;
pub use pace::{Pace, pace};

use crate::config::Config;
use crate::planned::Planned;
use crate::world::{World, object_ref};
use fairlead_api::{ApiContractStatus, ConnectorStatus, ErrorClass, IntegrationStatus, LastError, Reason};
use fairlead_model::report::{Failure, Reports};
use fairlead_model::unit::ObjectKey;
use fairlead_model::{ObjectRef, RemoteError, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;

/// When a status is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The present.
    pub now: Timestamp,
    /// Since when this operator listens to runtimes.
    pub listening_since: Timestamp,
}

/// What was heard of one resource.
#[derive(Debug)]
pub struct Heard<'a, R> {
    /// What its runtime said of it last, if it spoke of it.
    pub report: Option<&'a R>,
    /// When that runtime last spoke at all.
    pub at: Option<Timestamp>,
}

impl<R> Clone for Heard<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Heard<'_, R> {}

/// A status, and when it would change by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged<S> {
    /// The status to show; equal to the previous one if there is nothing new to say.
    pub status: S,
    /// When the passing of time alone would change it.
    pub next_check: Option<Timestamp>,
}

/// The status of every resource.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Statuses {
    /// Of the Connectors.
    pub connectors: BTreeMap<ObjectRef, ConnectorStatus>,
    /// Of the ApiContracts.
    pub contracts: BTreeMap<ObjectRef, ApiContractStatus>,
    /// Of the Integrations.
    pub integrations: BTreeMap<ObjectRef, IntegrationStatus>,
    /// When the passing of time alone would change one of them.
    pub next_check: Option<Timestamp>,
}

/// Judges every resource that was planned. The previous statuses are those in the world's resources. For one runtime that reports on
/// everything; a controller with several calls the three parts itself.
#[must_use]
pub fn statuses(world: &World, planned: &Planned, reports: Option<&Reports>, moment: Moment, config: &Config) -> Statuses {
    let mut all = Statuses::default();
    let at = reports.map(|reports| reports.at);
    let mut soonest = |next: Option<Timestamp>| all.next_check = [all.next_check, next].into_iter().flatten().min();

    let previous: BTreeMap<ObjectRef, &ConnectorStatus> =
        world.connectors.iter().filter_map(|c| Some((object_ref(&c.metadata), c.status.as_ref()?))).collect();
    for (object, verdict) in &planned.connectors {
        let report = reports.and_then(|reports| reports.connectors.get(&ObjectKey::from(object)));
        let judged = connector_status(verdict, Heard { report, at }, previous.get(object).copied(), moment, config);
        soonest(judged.next_check);
        all.connectors.insert(object.clone(), judged.status);
    }
    let previous: BTreeMap<ObjectRef, &ApiContractStatus> =
        world.contracts.iter().filter_map(|c| Some((object_ref(&c.metadata), c.status.as_ref()?))).collect();
    for (object, verdict) in &planned.contracts {
        let report = reports.and_then(|reports| reports.routes.get(&ObjectKey::from(object)));
        let judged = contract_status(verdict, Heard { report, at }, previous.get(object).copied(), moment, config);
        soonest(judged.next_check);
        all.contracts.insert(object.clone(), judged.status);
    }
    let previous: BTreeMap<ObjectRef, &IntegrationStatus> =
        world.integrations.iter().filter_map(|i| Some((object_ref(&i.metadata), i.status.as_ref()?))).collect();
    for (object, verdict) in &planned.integrations {
        let report = reports.and_then(|reports| reports.integrations.get(&ObjectKey::from(object)));
        let judged = integration_status(verdict, Heard { report, at }, &all.connectors, previous.get(object).copied(), moment, config);
        soonest(judged.next_check);
        all.integrations.insert(object.clone(), judged.status);
    }
    all
}

/// How well a runtime is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hearing {
    /// It speaks.
    Clear,
    /// The operator has just begun to listen; nothing was heard yet.
    Listening,
    /// It has said nothing for a while.
    Silent,
    /// It has said nothing for long.
    Lost,
}

/// How well the runtime that spoke last at `at` is heard, and when that changes if it says nothing more.
fn hearing(at: Option<Timestamp>, moment: Moment, config: &Config) -> (Hearing, Option<Timestamp>) {
    let since = at.map_or(moment.listening_since, |at| at.max(moment.listening_since));
    let quiet = moment.now.since(since);
    if quiet >= config.lost_after {
        (Hearing::Lost, None)
    } else if quiet >= config.silent_after {
        (Hearing::Silent, Some(since.plus(config.lost_after)))
    } else {
        (if at.is_some() { Hearing::Clear } else { Hearing::Listening }, Some(since.plus(config.silent_after)))
    }
}

/// Whether what was not spoken of yet may keep the conditions it had: shortly after the operator began to listen. And until when.
fn settling(moment: Moment, config: &Config) -> Option<Timestamp> {
    let end = moment.listening_since.plus(config.silent_after);
    (moment.now < end).then_some(end)
}

const SILENT: &str = "the runtime has not reported for a while, so nothing is known about it";
const LOST: &str = "the runtime does not report; nothing is known about it until it does. Look at its pods and logs";

/// The documented word for an error. The systems room has finer words of its own; each means one of the documented ones.
fn reason_of(error: &RemoteError) -> Reason {
    use fairlead_model::ErrorClass as Class;
    if let Ok(reason) = error.reason.parse() {
        return reason;
    }
    match (error.reason.as_str(), error.class) {
        ("SecretForbidden" | "SecretUnavailable", _) => Reason::SecretNotReadable,
        ("CertificateInvalid" | "VersionRetired", _) => Reason::UnsupportedValue,
        ("ServerError" | "MaintenancePage" | "AnswerTooLarge" | "UnexpectedResponse" | "Busy", _) => Reason::RemoteError,
        (_, Class::Transient) => Reason::EndpointUnreachable,
        (_, Class::Throttled) => Reason::RateLimited,
        (_, Class::Auth) => Reason::AuthenticationFailed,
        (_, Class::Permission) => Reason::EntityPermissionMissing,
        (_, Class::Data | Class::Conflict | Class::NotFound) => Reason::ValidationFailed,
        (_, Class::UnknownOutcome) => Reason::OutcomeUnknown,
        (_, Class::Configuration) => Reason::InvalidSpec,
    }
}

/// The longest text of an error that a status carries, in characters.
const MAX_ERROR_TEXT: usize = 1024;

/// Text from outside on one line: control characters become spaces, the end is cut.
fn clean(text: &str) -> String {
    let mut cleaned: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_ERROR_TEXT).collect();
    if text.chars().count() > MAX_ERROR_TEXT {
        cleaned.truncate(cleaned.char_indices().rev().nth(2).map_or(0, |(index, _)| index));
        cleaned.push_str("...");
    }
    cleaned
}

/// "reason: message", as far as there is a message.
fn told(error: &RemoteError) -> String {
    let message = clean(&error.message);
    if message.is_empty() { format!("the runtime reports {}", clean(&error.reason)) } else { message }
}

/// In whose hands an error is.
fn class_of(error: &RemoteError) -> ErrorClass {
    use fairlead_model::ErrorClass as Class;
    match error.class {
        Class::Auth | Class::Permission | Class::Configuration => ErrorClass::User,
        Class::Data | Class::Conflict | Class::NotFound => ErrorClass::Data,
        Class::Transient | Class::Throttled | Class::UnknownOutcome => ErrorClass::Remote,
    }
}

fn last_error(failure: &Failure) -> LastError {
    LastError {
        at: time(failure.at),
        participant: None,
        external_id: None,
        record: None,
        class: class_of(&failure.error),
        reason: reason_of(&failure.error).as_str().to_owned(),
        message: told(&failure.error),
    }
}

fn time(at: Timestamp) -> Time {
    fairlead_api::conditions::time(utc(at))
}

fn utc(at: Timestamp) -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::from_timestamp_millis(at.0).unwrap_or_default()
}

/// The earliest of several moments.
fn earliest(moments: impl IntoIterator<Item = Option<Timestamp>>) -> Option<Timestamp> {
    moments.into_iter().flatten().min()
}
