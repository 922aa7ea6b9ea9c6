//! The streams from the API server: our three kinds, the names of ConfigMaps, and the recorded revisions, in the namespaces that are ours or everywhere.
//!
//! Each stream lists in pages and then watches; an error is counted, told, and followed by a growing pause. What comes out are events as
//! they are; the caches give them their meaning.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fairlead_api::Kind;
use futures::stream::{BoxStream, SelectAll};
use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::guarded::Guarded;
use crate::metrics::Metrics;
use crate::revisions;

/// The pauses of a stream that fails: below half of the time in which the operator is to have caught up after an outage.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A stream that has worked for so long starts again with the shortest pause.
const CALM: Duration = Duration::from_secs(60);

/// A stream lists anew after so many seconds, at random within them: an event that never came is made good then, whoever lost it.
const RELIST_SECONDS: RangeInclusive<u64> = 570..=630;

/// Where a stream looks: one namespace, or everywhere.
pub(crate) type Scope = Option<Arc<str>>;

/// Something came from the API server.
#[derive(Debug)]
pub(crate) enum Seen {
    /// Of an object of ours.
    Object(Kind, Scope, Event<Guarded>),
    /// Of a ConfigMap, by name.
    ConfigMap(Scope, Event<PartialObjectMeta<ConfigMap>>),
    /// Of a recorded revision, without what it holds.
    Revision(Scope, Event<PartialObjectMeta<ControllerRevision>>),
}

/// All streams as one.
pub(crate) struct Watches {
    streams: SelectAll<BoxStream<'static, Seen>>,
}

/// The scopes of these namespaces; none means everywhere.
pub(crate) fn scopes(namespaces: &[String]) -> Vec<Scope> {
    if namespaces.is_empty() { vec![None] } else { namespaces.iter().map(|namespace| Some(Arc::from(namespace.as_str()))).collect() }
}

impl Watches {
    pub(crate) fn new(client: &Client, scopes: &[Scope], metrics: &Arc<Metrics>) -> Self {
        let mut streams = SelectAll::new();
        for scope in scopes {
            for kind in Kind::ALL {
                let api: Api<Guarded> = match scope {
                    Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
                    None => Api::all_with(client.clone(), &kind),
                };
                let scope = scope.clone();
                let events = told(watched(api, watcher::Config::default()), kind.plural(), metrics);
                streams.push(events.map(move |event| Seen::Object(kind, scope.clone(), event)).boxed());
            }
            let api: Api<PartialObjectMeta<ConfigMap>> = match scope {
                Some(namespace) => Api::namespaced(client.clone(), namespace),
                None => Api::all(client.clone()),
            };
            let here = scope.clone();
            let events = told(watched(api, watcher::Config::default()), "configmaps", metrics);
            streams.push(events.map(move |event| Seen::ConfigMap(here.clone(), event)).boxed());
            let api: Api<PartialObjectMeta<ControllerRevision>> = match scope {
                Some(namespace) => Api::namespaced(client.clone(), namespace),
                None => Api::all(client.clone()),
            };
            let scope = scope.clone();
            let events = told(watched(api, watcher::Config::default().labels(&revisions::selector())), "controllerrevisions", metrics);
            streams.push(events.map(move |event| Seen::Revision(scope.clone(), event)).boxed());
        }
        Self { streams }
    }

    /// What comes next; pending for ever only if the streams have nothing to say.
    pub(crate) async fn next(&mut self) -> Seen {
        match self.streams.next().await {
            Some(seen) => seen,
            None => std::future::pending().await,
        }
    }
}

/// Lists, watches, and after a while begins again.
fn watched<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let once = move || {
        let again = tokio::time::sleep(Duration::from_secs(rand::random_range(RELIST_SECONDS)));
        watcher::watcher(api.clone(), config.clone()).take_until(again)
    };
    futures::stream::repeat_with(once).flatten()
}

/// The stream without its errors, which are told and paused after.
fn told<K: Send + 'static>(
    stream: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
    resource: &'static str,
    metrics: &Arc<Metrics>,
) -> Pin<Box<dyn Stream<Item = Event<K>> + Send>> {
    let metrics = Arc::clone(metrics);
    stream
        .backoff(Pauses::default())
        .filter_map(move |event| {
            let event = event.map_err(|error| {
                metrics.watch_failed(resource);
                explain(resource, &error);
            });
            std::future::ready(event.ok())
        })
        .boxed()
}

fn explain(resource: &'static str, error: &watcher::Error) {
    let code = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => {
            status.code
        }
        watcher::Error::WatchError(status) => status.code,
        _ => 0,
    };
    match code {
        404 => {
            tracing::error!(resource, "the API server does not know this kind; apply crds/ first (kubectl apply --server-side -f crds/)")
        }
        403 => {
            tracing::error!(resource, %error, "listing or watching is not permitted; grant get, list and watch (examples/operator/rbac.yaml)")
        }
        // An old version: the watcher lists again by itself.
        410 => tracing::debug!(resource, "the watch fell behind and begins again"),
        _ => tracing::warn!(resource, %error, "the watch failed and begins again"),
    }
}

/// Doubling pauses with jitter, starting over after a calm while.
#[derive(Debug)]
struct Pauses {
    next: Duration,
    last: Option<Instant>,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { next: SHORTEST_PAUSE, last: None }
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.last.is_some_and(|last| last.elapsed() > CALM) {
            self.next = SHORTEST_PAUSE;
        }
        self.last = Some(Instant::now());
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST_PAUSE);
        Some(jittered(pause))
    }
}

impl Backoff for Pauses {
    // Called after each good event; a stream that comes up and breaks at once must not spin, so only time calms it.
    fn reset(&mut self) {}
}

/// Between half of it and all of it.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let most = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(rand::random_range(most / 2..=most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeApi, answer, failure, silence};
    use serde_json::json;

    #[tokio::test(start_paused = true)]
    async fn one_undecodable_object_among_others_ends_no_stream() {
        let good = json!({"metadata": {"name": "good", "namespace": "sales", "resourceVersion": "1"}, "spec": {"system": "salesforce"}});
        let bad = json!({"metadata": {"name": "bad", "namespace": "sales", "resourceVersion": "2"}, "spec": ["no", "object"]});
        let (_, client) = FakeApi::new(move |request| {
            let items = if request.path.ends_with("/connectors") { vec![good.clone(), bad.clone()] } else { Vec::new() };
            answer(200, &json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "9"}, "items": items}))
        });
        let mut watches = Watches::new(&client, &scopes(&[]), &Arc::default());
        let mut names = Vec::new();
        loop {
            match watches.next().await {
                Seen::Object(Kind::Connector, _, Event::InitApply(object)) => names.push(object.object().name),
                Seen::Object(Kind::Connector, _, Event::InitDone) => break,
                _ => {}
            }
        }
        assert_eq!(names, ["good", "bad"]);
    }

    #[tokio::test(start_paused = true)]
    async fn everything_is_listed_again_about_every_ten_minutes_though_watches_say_nothing() {
        let (api, client) = FakeApi::new(|request| {
            if request.query.contains("watch=true") {
                return silence();
            }
            answer(200, &json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "9"}, "items": []}))
        });
        let mut watches = Watches::new(&client, &scopes(&[]), &Arc::default());
        let _ = tokio::time::timeout(Duration::from_secs(35 * 60), async {
            loop {
                watches.next().await;
            }
        })
        .await;
        let lists =
            api.requests().iter().filter(|request| request.path.ends_with("/connectors") && !request.query.contains("watch")).count();
        assert_eq!(lists, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_stream_is_counted_and_does_not_spin() {
        let (api, client) = FakeApi::new(|_| failure(500));
        let mut watches = Watches::new(&client, &scopes(&["sales".into()]), &Arc::default());
        let minute = tokio::time::timeout(Duration::from_secs(60), watches.next()).await;
        assert!(matches!(
            minute,
            Err(_) | Ok(Seen::Object(_, _, Event::Init) | Seen::ConfigMap(_, Event::Init) | Seen::Revision(_, Event::Init))
        ));
        let _ = tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                watches.next().await;
            }
        })
        .await;
        let asked = api.requests().iter().filter(|request| request.path.ends_with("/namespaces/sales/connectors")).count();
        assert!((5..=30).contains(&asked), "{asked} lists in two minutes");
    }

    #[test]
    fn pauses_grow_to_ten_seconds_and_no_further() {
        let pauses: Vec<_> = Pauses::default().take(20).collect();
        assert!(pauses[0] <= SHORTEST_PAUSE && pauses[0] >= SHORTEST_PAUSE / 2);
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE));
        assert!(pauses[19] >= LONGEST_PAUSE / 2);
    }
}
