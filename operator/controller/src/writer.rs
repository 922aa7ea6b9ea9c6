//! The one writer of statuses: server-side apply to the status subresource, under one field manager.
//!
//! A status waits here as the *name* of its object only; what is written is what it should be at the moment of writing, so the queue is
//! bounded by the number of objects and nothing stale is sent. A write names the uid and the version it was judged from: a former leader's
//! late write, or one judged from an old view, is refused by the API server. Refused or failed writes wait (longer each time, with
//! jitter) and are judged again. Only the caller knows whether this replica leads, and asks nothing to be written while it does not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fairlead_model::{Clock, Timestamp};
use fairlead_plan::{Config, Pace};
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Error};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::FIELD_MANAGER;
use crate::cache::{Cache, Entry, Key};
use crate::guarded::Guarded;
use crate::judge::{Judge, Status};
use crate::metrics::Metrics;
use crate::watches::jittered;

/// One write takes no longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);
/// Writes under way at once.
pub(crate) const CONCURRENCY: usize = 8;
/// The pauses after a failed write.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The pause after a write that the API server refuses for what it is, which waiting alone will hardly cure.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// What is remembered of writing one object's status.
#[derive(Debug, Default)]
struct Track {
    under_way: bool,
    failures: u32,
    /// Not before then, after a failure.
    not_before: Option<Instant>,
    /// When this process last wrote it.
    written: Option<Timestamp>,
}

/// A status that was written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) key: Key,
    pub(crate) uid: String,
    pub(crate) before: Option<Status>,
    pub(crate) after: Status,
    pub(crate) resource_version: String,
}

struct Outcome {
    attempt: Written,
    result: Result<String, Refusal>,
}

/// Why a write did not succeed.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// The object is gone.
    Gone,
    /// It has another version by now.
    Conflict,
    /// Too many requests; after so long.
    Throttled(Duration),
    /// The API server refuses this write as such.
    Refused(u16),
    /// The API server fails or is away.
    Failed,
    /// No answer in time.
    TimedOut,
}

impl Refusal {
    fn of(error: &Error) -> Self {
        match error {
            Error::Api(status) => match status.code {
                404 => Self::Gone,
                409 => Self::Conflict,
                429 => {
                    let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
                    Self::Throttled(Duration::from_secs(u64::from(seconds)))
                }
                code @ 400..=499 => Self::Refused(code),
                _ => Self::Failed,
            },
            _ => Self::Failed,
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Conflict => "conflict",
            Self::Throttled(_) => "throttled",
            Self::Refused(_) => "refused",
            Self::Failed => "failed",
            Self::TimedOut => "timeout",
        }
    }

    /// How long to wait after so many failures in a row.
    fn pause(&self, failures: u32) -> Duration {
        let growing = jittered(SHORTEST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE));
        match self {
            Self::Throttled(told) => growing.max(*told),
            Self::Refused(_) => jittered(REFUSED_PAUSE),
            _ => growing,
        }
    }
}

/// The writer.
pub(crate) struct Writer {
    client: Client,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    config: Config,
    queue: VecDeque<Key>,
    queued: BTreeSet<Key>,
    later: BTreeMap<Key, Instant>,
    tracks: BTreeMap<Key, Track>,
    under_way: JoinSet<Outcome>,
}

impl Writer {
    pub(crate) fn new(client: Client, clock: Arc<dyn Clock>, metrics: Arc<Metrics>, config: Config) -> Self {
        Self {
            client,
            clock,
            metrics,
            config,
            queue: VecDeque::new(),
            queued: BTreeSet::new(),
            later: BTreeMap::new(),
            tracks: BTreeMap::new(),
            under_way: JoinSet::new(),
        }
    }

    /// Looks whether this object's status wants writing, and when.
    pub(crate) fn consider(&mut self, key: &Key, cache: &Cache, judge: &Judge) {
        self.later.remove(key);
        let (Some(entry), Some(wanted)) = (cache.entry(key), judge.wanted(key)) else {
            self.tracks.remove(key);
            return;
        };
        let track = self.tracks.entry(key.clone()).or_default();
        if track.under_way {
            // Considered again when it has ended.
            return;
        }
        let now = self.clock.now();
        match wanted.pace(entry.status.as_ref(), track.written, now, &self.config) {
            Pace::Never => {
                track.failures = 0;
                track.not_before = None;
            }
            Pace::At(then) => {
                self.later.insert(key.clone(), Instant::now() + then.since(now));
            }
            Pace::Now => match track.not_before.filter(|then| *then > Instant::now()) {
                Some(then) => {
                    self.later.insert(key.clone(), then);
                }
                None => {
                    if self.queued.insert(key.clone()) {
                        self.queue.push_back(key.clone());
                        self.metrics.queued();
                    }
                }
            },
        }
    }

    /// Starts writes as far as there is room.
    pub(crate) fn pump(&mut self, cache: &Cache, judge: &Judge) {
        while self.under_way.len() < CONCURRENCY {
            let Some(key) = self.queue.pop_front() else { break };
            self.queued.remove(&key);
            let (Some(entry), Some(wanted)) = (cache.entry(&key), judge.wanted(&key)) else { continue };
            let track = self.tracks.entry(key.clone()).or_default();
            let pace = wanted.pace(entry.status.as_ref(), track.written, self.clock.now(), &self.config);
            if track.under_way || pace != Pace::Now {
                continue;
            }
            track.under_way = true;
            let write = write(self.client.clone(), key, entry, wanted.clone());
            self.under_way.spawn(write);
        }
        self.metrics.writing(self.queue.len() + self.later.len(), self.under_way.len(), CONCURRENCY);
    }

    /// Everything that waits is forgotten; what is under way ends.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.queued.clear();
        self.later.clear();
    }

    /// When a write that waits for its time is to be considered again.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.later.values().min().copied()
    }

    /// What is due now, to be considered.
    pub(crate) fn due(&mut self) -> Vec<Key> {
        let now = Instant::now();
        self.later.iter().filter(|(_, then)| **then <= now).map(|(key, _)| key.clone()).collect()
    }

    /// Waits for the next write to end: its object, and what was written if it succeeded. Pending while none is under way.
    pub(crate) async fn ended(&mut self) -> (Option<Key>, Option<Written>) {
        let outcome = match self.under_way.join_next().await {
            None => return std::future::pending().await,
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => return (None, None),
        };
        let Outcome { mut attempt, result } = outcome;
        let key = attempt.key.clone();
        let track = self.tracks.entry(key.clone()).or_default();
        track.under_way = false;
        match result {
            Ok(resource_version) => {
                self.metrics.patched(key.0, "applied", false);
                *track = Track { written: Some(self.clock.now()), ..Track::default() };
                attempt.resource_version = resource_version;
                (Some(key), Some(attempt))
            }
            Err(refusal) => {
                self.metrics.patched(key.0, refusal.word(), !matches!(refusal, Refusal::Gone | Refusal::Conflict));
                match &refusal {
                    Refusal::Gone | Refusal::Conflict => {
                        tracing::debug!(kind = %key.0, object = %key.1, result = refusal.word(), "a status was not written")
                    }
                    _ => {
                        tracing::warn!(kind = %key.0, object = %key.1, result = refusal.word(), "a status was not written and is tried again")
                    }
                }
                track.not_before = Some(Instant::now() + refusal.pause(track.failures));
                track.failures = track.failures.saturating_add(1);
                (Some(key), None)
            }
        }
    }

    /// Whether writes are under way.
    pub(crate) fn is_busy(&self) -> bool {
        !self.under_way.is_empty()
    }
}

fn write(client: Client, key: Key, entry: &Entry, after: Status) -> impl Future<Output = Outcome> + Send + use<> {
    let attempt =
        Written { uid: entry.uid.clone(), before: entry.status.clone(), after, resource_version: entry.resource_version.clone(), key };
    async move {
        let result = match tokio::time::timeout(DEADLINE, patch(client, &attempt)).await {
            Ok(Ok(version)) => Ok(version),
            Ok(Err(error)) => {
                tracing::debug!(kind = %attempt.key.0, object = %attempt.key.1, %error, "status patch");
                Err(Refusal::of(&error))
            }
            Err(_) => Err(Refusal::TimedOut),
        };
        Outcome { attempt, result }
    }
}

async fn patch(client: Client, attempt: &Written) -> Result<String, Error> {
    let (kind, object) = &attempt.key;
    let api: Api<Guarded> = Api::namespaced_with(client, &object.namespace, kind);
    let body = json!({
        "apiVersion": fairlead_api::API_VERSION,
        "kind": kind.name(),
        "metadata": {
            "name": object.name,
            "namespace": object.namespace,
            "uid": attempt.uid,
            "resourceVersion": attempt.resource_version,
        },
        "status": attempt.after.to_value().map_err(Error::SerdeError)?,
    });
    // Forced: the status is ours alone, whatever a hand wrote into it.
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let answer = api.patch_status(&object.name, &parameters, &Patch::Apply(&body)).await?;
    Ok(answer.version().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeApi, answer, failure};
    use fairlead_api::Kind;
    use fairlead_model::{ObjectRef, SystemClock};
    use fairlead_plan::{Moment, Planner};
    use fairlead_systems::Catalog;
    use kube::runtime::watcher::Event;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU16, Ordering};

    /// One connector, planned and judged, and a writer whose API server answers with `code`.
    struct Scene {
        api: FakeApi,
        cache: Cache,
        judge: Judge,
        writer: Writer,
        code: Arc<AtomicU16>,
        key: Key,
    }

    impl Scene {
        fn new() -> Self {
            let code = Arc::new(AtomicU16::new(200));
            let answers = Arc::clone(&code);
            let versions = Mutex::new(10);
            let (api, client) = FakeApi::new(move |request| match answers.load(Ordering::SeqCst) {
                200 => {
                    *versions.lock().unwrap() += 1;
                    let mut body = request.body.clone();
                    body["metadata"]["resourceVersion"] = json!(versions.lock().unwrap().to_string());
                    answer(200, &body)
                }
                code => failure(code),
            });
            let mut cache = Cache::new();
            let object = json!({
                "metadata": {"name": "crm", "namespace": "sales", "uid": "u", "resourceVersion": "10", "generation": 1},
                "spec": {"system": "salesforce", "endpoint": "https://acme.my.salesforce.com", "auth": {"method": "ClientCredentials", "secretRef": {"name": "s"}}},
            });
            cache.saw(Kind::Connector, &None, Event::Apply(serde_json::from_value(object).unwrap()));
            let clock: Arc<dyn Clock> = Arc::new(SystemClock);
            let now = clock.now();
            let planned = Planner::default().plan(&cache.world(), Catalog::builtin(), &Config::default(), now);
            let mut judge = Judge::default();
            judge.planned(&fairlead_plan::Planned::default(), &planned);
            judge.judge(&planned, &cache, Moment { now, listening_since: now }, &Config::default());
            let writer = Writer::new(client, clock, Arc::default(), Config::default());
            Self { api, cache, judge, writer, code, key: (Kind::Connector, ObjectRef::new("sales", "crm")) }
        }

        fn pump(&mut self) {
            let keys: Vec<Key> = self.cache.keys().cloned().collect();
            keys.iter().for_each(|key| self.writer.consider(key, &self.cache, &self.judge));
            self.writer.pump(&self.cache, &self.judge);
        }

        async fn ended(&mut self) -> bool {
            let (_, written) = self.writer.ended().await;
            if let Some(written) = &written {
                self.cache.wrote(&written.key, &written.uid, &written.resource_version, written.after.clone());
            }
            written.is_some()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_status_is_applied_once_with_the_version_it_was_judged_from() {
        let mut scene = Scene::new();
        scene.pump();
        assert!(scene.ended().await);
        let requests = scene.api.requests();
        assert_eq!(
            (requests[0].method.as_str(), requests[0].path.as_str()),
            ("PATCH", "/apis/fairlead.dev/v1alpha1/namespaces/sales/connectors/crm/status")
        );
        assert_eq!(requests[0].query.trim_start_matches('&'), "force=true&fieldManager=fairlead-controller");
        assert_eq!(requests[0].body["metadata"], json!({"name": "crm", "namespace": "sales", "uid": "u", "resourceVersion": "10"}));
        assert_eq!(requests[0].body["status"]["observedGeneration"], 1);

        scene.pump();
        assert!(!scene.writer.is_busy(), "nothing new to say");
        assert_eq!(scene.api.requests().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_each_time_and_a_success_forgets_them() {
        let mut scene = Scene::new();
        scene.code.store(500, Ordering::SeqCst);
        let mut waits = Vec::new();
        for _ in 0..8 {
            scene.pump();
            assert!(!scene.ended().await);
            scene.pump();
            assert!(!scene.writer.is_busy(), "not before its time");
            let due = scene.writer.next_due().unwrap();
            waits.push(due - Instant::now());
            tokio::time::sleep_until(due).await;
            assert_eq!(scene.writer.due(), [scene.key.clone()]);
        }
        assert!(
            waits[0] <= SHORTEST_PAUSE && waits[7] >= LONGEST_PAUSE / 2 && waits.iter().all(|wait| *wait <= LONGEST_PAUSE),
            "{waits:?}"
        );
        scene.code.store(200, Ordering::SeqCst);
        scene.pump();
        assert!(scene.ended().await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_write_waits_as_long_as_it_was_told() {
        let mut scene = Scene::new();
        scene.code.store(429, Ordering::SeqCst);
        scene.pump();
        scene.ended().await;
        scene.pump();
        assert!(scene.writer.next_due().unwrap() - Instant::now() >= Duration::from_secs(20));
    }

    #[test]
    fn each_answer_has_its_class() {
        let refusal = |code: u16| Refusal::of(&Error::Api(kube::core::Status { code, ..kube::core::Status::default() }.boxed()));
        assert_eq!(refusal(404), Refusal::Gone);
        assert_eq!(refusal(409), Refusal::Conflict);
        assert_eq!(refusal(422), Refusal::Refused(422));
        assert_eq!(refusal(403), Refusal::Refused(403));
        assert_eq!(refusal(503), Refusal::Failed);
    }
}
