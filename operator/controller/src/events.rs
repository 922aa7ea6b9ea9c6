//! Events: told when Ready changes, and when a person must act. Never for routine, and only after the status that says the same was written,
//! so that a restart repeats none.
//!
//! They are courtesy: a full queue or a failing API server drops them, and counts.

use std::sync::Arc;
use std::time::Duration;

use fairlead_api::API_VERSION;
use fairlead_api::conditions::{ConditionType, find, is_true};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::FIELD_MANAGER;
use crate::cache::Key;
use crate::election::{Leadership, may_write};
use crate::judge::Status;
use crate::metrics::Metrics;

/// Events that wait.
const QUEUE: usize = 256;
/// One event takes no longer.
const DEADLINE: Duration = Duration::from_secs(5);
/// The API's limit for a note, in bytes.
const MAX_NOTE: usize = 1024;

/// Where events go.
#[derive(Clone)]
pub(crate) struct Events {
    queue: mpsc::Sender<(Event, ObjectReference)>,
    metrics: Arc<Metrics>,
}

impl Events {
    /// Publishes until cancelled, and only while this replica leads: what waited while it was paused is another's to tell by now.
    pub(crate) fn start(client: Client, instance: String, metrics: Arc<Metrics>, leadership: Leadership, stop: CancellationToken) -> Self {
        let (queue, mut waiting) = mpsc::channel::<(Event, ObjectReference)>(QUEUE);
        let recorder = Recorder::new(client, Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(instance) });
        let counted = Arc::clone(&metrics);
        tokio::spawn(async move {
            loop {
                let (event, about) = tokio::select! {
                    () = stop.cancelled() => return,
                    next = waiting.recv() => match next {
                        Some(next) => next,
                        None => return,
                    },
                };
                if !may_write(*leadership.borrow(), DEADLINE) {
                    counted.event("dropped");
                    continue;
                }
                match tokio::time::timeout(DEADLINE, recorder.publish(&event, &about)).await {
                    Ok(Ok(())) => counted.event("published"),
                    Ok(Err(error)) => {
                        counted.event("failed");
                        tracing::debug!(%error, reason = event.reason, "an event could not be published");
                    }
                    Err(_) => counted.event("failed"),
                }
            }
        });
        Self { queue, metrics }
    }

    /// Tells what changed from one written status to the next.
    pub(crate) fn tell(&self, key: &Key, uid: &str, before: Option<&Status>, after: &Status) {
        let Some(event) = worth_telling(before, after) else { return };
        let about = ObjectReference {
            api_version: Some(API_VERSION.to_owned()),
            kind: Some(key.0.name().to_owned()),
            namespace: Some(key.1.namespace.clone()),
            name: Some(key.1.name.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        if self.queue.try_send((event, about)).is_err() {
            self.metrics.event("dropped");
        }
    }
}

/// The event for a transition, if it is worth one.
fn worth_telling(before: Option<&Status>, after: &Status) -> Option<Event> {
    let facts = |status: &Status| {
        let ready = find(status.conditions(), ConditionType::Ready)?;
        let act = is_true(status.conditions(), ConditionType::Stalled) || is_true(status.conditions(), ConditionType::Degraded);
        Some((ready.status == "True", act, ready.reason.clone()))
    };
    let (ready, act, reason) = facts(after)?;
    let earlier = before.and_then(facts);
    let (was_ready, acted, earlier_reason) = match &earlier {
        Some((ready, act, reason)) => (*ready, *act, Some(reason)),
        None => (false, false, None),
    };
    let lost = was_ready && !ready;
    let gained = ready && !was_ready;
    let other_cause = earlier_reason != Some(&reason);
    let told = gained || lost || (act && (!acted || other_cause)) || (ready && other_cause);
    if !told {
        return None;
    }
    let message = find(after.conditions(), ConditionType::Ready).map(|condition| condition.message.clone()).unwrap_or_default();
    Some(Event {
        type_: if ready { EventType::Normal } else { EventType::Warning },
        reason,
        note: Some(cut(message)),
        action: "Reconcile".to_owned(),
        secondary: None,
    })
}

fn cut(mut note: String) -> String {
    if note.len() > MAX_NOTE {
        let end = (0..=MAX_NOTE - 3).rev().find(|index| note.is_char_boundary(*index)).unwrap_or_default();
        note.truncate(end);
        note.push_str("...");
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_api::ConnectorStatus;
    use fairlead_api::Reason;
    use fairlead_api::conditions::{Truth, Wanted, replace_conditions};

    fn status(ready: Truth, reason: Reason, others: &[ConditionType]) -> Status {
        let ready = Wanted::new(ConditionType::Ready, ready, reason, "because");
        let others = others.iter().map(|kind| Wanted::new(*kind, true, reason, "because"));
        let conditions = replace_conditions(&[], std::iter::once(ready).chain(others), 1, chrono::Utc::now());
        Status::Connector(ConnectorStatus { conditions, ..ConnectorStatus::default() })
    }

    #[test]
    fn transitions_of_ready_and_calls_for_a_person_are_told_and_routine_is_not() {
        let good = status(Truth::True, Reason::Succeeded, &[]);
        let busy = status(Truth::False, Reason::Progressing, &[ConditionType::Reconciling]);
        let retrying = status(Truth::False, Reason::ProgressingWithRetry, &[ConditionType::Reconciling]);
        let stuck = status(Truth::False, Reason::SecretNotFound, &[ConditionType::Stalled]);
        let stuck_otherwise = status(Truth::False, Reason::AuthenticationFailed, &[ConditionType::Stalled]);
        let told = |before: Option<&Status>, after: &Status| {
            worth_telling(before, after).map(|event| (event.reason, event.type_ == EventType::Warning))
        };
        assert_eq!(told(None, &busy), None, "a first look is routine");
        assert_eq!(told(Some(&busy), &retrying), None);
        assert_eq!(told(Some(&busy), &good), Some(("Succeeded".into(), false)));
        assert_eq!(told(Some(&good), &good), None);
        assert_eq!(told(Some(&good), &busy), Some(("Progressing".into(), true)));
        assert_eq!(told(None, &stuck), Some(("SecretNotFound".into(), true)));
        assert_eq!(told(Some(&stuck), &stuck), None);
        assert_eq!(told(Some(&stuck), &stuck_otherwise), Some(("AuthenticationFailed".into(), true)));
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let note = cut("ü".repeat(600));
        assert!(note.len() <= MAX_NOTE && note.ends_with("ü..."));
    }
}
