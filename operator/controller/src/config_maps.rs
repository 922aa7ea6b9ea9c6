//! The ConfigMaps that resources name: system definitions and certificates. Their names are watched (metadata only); the content of those
//! that somebody names, and of no others, is read with `get` when it is first named and when its version changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fairlead_model::ObjectRef;
use fairlead_plan::ConfigMapView;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use kube::{Api, Client, ResourceExt};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::watches::{Scope, jittered};

/// One `get` takes no longer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Reads under way at once.
const CONCURRENCY: usize = 8;
/// The pauses after failed reads.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What is known of one named ConfigMap.
#[derive(Debug, Default)]
struct Entry {
    /// What it held when it was read last; nothing if it was not there or could not be read yet.
    data: Option<BTreeMap<String, String>>,
    /// The version that was read.
    version: Option<String>,
    /// It was read, or the reading failed, at least once.
    tried: bool,
    /// It is to be read, not before this time.
    due: Option<Instant>,
    /// It is being read.
    reading: bool,
    failures: u32,
}

type Answer = (ObjectRef, Result<Option<ConfigMap>, String>);

/// The named ConfigMaps.
pub(crate) struct ConfigMaps {
    client: Client,
    entries: BTreeMap<ObjectRef, Entry>,
    reads: JoinSet<Answer>,
    /// Per scope: what a listing under way has shown so far.
    listed: BTreeMap<Scope, BTreeSet<ObjectRef>>,
    synced: BTreeSet<Scope>,
}

impl ConfigMaps {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, entries: BTreeMap::new(), reads: JoinSet::new(), listed: BTreeMap::new(), synced: BTreeSet::new() }
    }

    /// Whether each of these scopes was listed once.
    pub(crate) fn is_synced(&self, scopes: &[Scope]) -> bool {
        scopes.iter().all(|scope| self.synced.contains(scope))
    }

    /// These are named now, and no others.
    pub(crate) fn name<'a>(&mut self, names: impl Iterator<Item = &'a ObjectRef>) {
        let names: BTreeSet<&ObjectRef> = names.collect();
        self.entries.retain(|name, _| names.contains(name));
        for name in names {
            if !self.entries.contains_key(name) {
                self.entries.insert(name.clone(), Entry { due: Some(Instant::now()), ..Entry::default() });
            }
        }
        self.read();
    }

    /// Whether one that is named has not been tried yet: a plan made now would take it for missing.
    pub(crate) fn is_pending(&self) -> bool {
        self.entries.values().any(|entry| !entry.tried)
    }

    /// What they hold.
    pub(crate) fn views(&self) -> Vec<ConfigMapView> {
        let view = |(object, entry): (&ObjectRef, &Entry)| Some(ConfigMapView { object: object.clone(), data: entry.data.clone()? });
        self.entries.iter().filter_map(view).collect()
    }

    /// Something came on a watch.
    pub(crate) fn saw(&mut self, scope: &Scope, event: Event<PartialObjectMeta<ConfigMap>>) {
        let named = |object: &PartialObjectMeta<ConfigMap>| fairlead_plan::object_ref(&object.metadata);
        match event {
            Event::Apply(object) => self.changed(&named(&object), object.metadata.resource_version.as_deref()),
            Event::Delete(object) => self.changed(&named(&object), None),
            Event::Init => {
                self.listed.insert(scope.clone(), BTreeSet::new());
            }
            Event::InitApply(object) => {
                let name = named(&object);
                self.changed(&name, object.metadata.resource_version.as_deref());
                // Only what is named is remembered, so foreign ConfigMaps cost no memory.
                if self.entries.contains_key(&name) {
                    self.listed.entry(scope.clone()).or_default().insert(name);
                }
            }
            Event::InitDone => {
                let listed = self.listed.remove(scope).unwrap_or_default();
                let within = |name: &ObjectRef| scope.as_deref().is_none_or(|namespace| namespace == name.namespace);
                let gone: Vec<ObjectRef> = self.entries.keys().filter(|name| within(name) && !listed.contains(*name)).cloned().collect();
                gone.iter().for_each(|name| self.changed(name, None));
                self.synced.insert(scope.clone());
            }
        }
        self.read();
    }

    fn changed(&mut self, name: &ObjectRef, version: Option<&str>) {
        if let Some(entry) = self.entries.get_mut(name)
            && (entry.version.as_deref() != version || entry.reading)
        {
            entry.due = Some(Instant::now());
        }
    }

    /// Starts the reads that are due.
    fn read(&mut self) {
        let now = Instant::now();
        for (name, entry) in &mut self.entries {
            if self.reads.len() >= CONCURRENCY {
                break;
            }
            if entry.reading || entry.due.is_none_or(|due| due > now) {
                continue;
            }
            entry.reading = true;
            entry.due = None;
            let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &name.namespace);
            let name = name.clone();
            self.reads.spawn(async move {
                let answer = match tokio::time::timeout(DEADLINE, api.get_opt(&name.name)).await {
                    Ok(answer) => answer.map_err(|error| error.to_string()),
                    Err(_) => Err("the API server did not answer in time".to_owned()),
                };
                (name, answer)
            });
        }
    }

    /// Waits for a read to end, or for one to be due. Whether the content of a ConfigMap changed, or is now known to be missing.
    pub(crate) async fn next(&mut self) -> bool {
        let due = self.entries.values().filter(|entry| !entry.reading).filter_map(|entry| entry.due).min();
        let room = self.reads.len() < CONCURRENCY;
        tokio::select! {
            Some(ended) = self.reads.join_next() => {
                let changed = ended.is_ok_and(|answer| self.took(answer));
                self.read();
                changed
            }
            () = until(due.filter(|_| room)) => {
                self.read();
                false
            }
        }
    }

    fn took(&mut self, (name, answer): Answer) -> bool {
        let Some(entry) = self.entries.get_mut(&name) else { return false };
        entry.reading = false;
        let first = !std::mem::replace(&mut entry.tried, true);
        match answer {
            Ok(found) => {
                entry.failures = 0;
                entry.version = found.as_ref().and_then(ResourceExt::resource_version);
                let data = found.map(|found| found.data.unwrap_or_default());
                let changed = entry.data != data;
                entry.data = data;
                first || changed
            }
            Err(error) => {
                tracing::warn!(config_map = %name, %error, "a ConfigMap could not be read and is tried again");
                let pause = SHORTEST_PAUSE.saturating_mul(1 << entry.failures.min(6)).min(LONGEST_PAUSE);
                entry.failures = entry.failures.saturating_add(1);
                entry.due = Some(Instant::now() + jittered(pause));
                first
            }
        }
    }
}

/// Waits until then, or for ever.
pub(crate) async fn until(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeApi, answer, failure};
    use serde_json::{Value, json};
    use std::sync::{Arc, Mutex};

    fn meta(name: &str, version: &str) -> PartialObjectMeta<ConfigMap> {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "sales", "resourceVersion": version}})).unwrap()
    }

    fn server(content: Value) -> (FakeApi, ConfigMaps, Arc<Mutex<Value>>) {
        let content = Arc::new(Mutex::new(content));
        let held = Arc::clone(&content);
        let (api, client) = FakeApi::new(move |_| match &*held.lock().unwrap() {
            Value::Number(code) => failure(u16::try_from(code.as_u64().unwrap()).unwrap()),
            found => answer(200, found),
        });
        (api, ConfigMaps::new(client), content)
    }

    fn map(version: &str, text: &str) -> Value {
        json!({"metadata": {"name": "acme", "namespace": "sales", "resourceVersion": version}, "data": {"definition.yaml": text}})
    }

    #[tokio::test(start_paused = true)]
    async fn only_named_ones_are_read_and_again_only_when_their_version_changes() {
        let (api, mut maps, content) = server(map("1", "a"));
        let name = ObjectRef::new("sales", "acme");
        maps.saw(&None, Event::Apply(meta("foreign", "7")));
        maps.name([&name].into_iter());
        assert!(maps.is_pending());
        assert!(maps.next().await);
        assert!(!maps.is_pending());
        assert_eq!(maps.views()[0].data["definition.yaml"], "a");

        maps.saw(&None, Event::Apply(meta("acme", "1")));
        maps.saw(&None, Event::Apply(meta("foreign", "8")));
        assert_eq!(api.requests().len(), 1, "nothing new to read");

        *content.lock().unwrap() = map("2", "b");
        maps.saw(&None, Event::Apply(meta("acme", "2")));
        assert!(maps.next().await);
        assert_eq!(maps.views()[0].data["definition.yaml"], "b");

        *content.lock().unwrap() = json!(404);
        maps.saw(&None, Event::Init);
        maps.saw(&None, Event::InitDone);
        assert!(maps.next().await, "a deletion that no event told is found by the next listing");
        assert!(maps.views().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_read_keeps_what_is_known_and_is_tried_again() {
        let (_, mut maps, content) = server(map("1", "a"));
        let name = ObjectRef::new("sales", "acme");
        maps.name([&name].into_iter());
        maps.next().await;
        *content.lock().unwrap() = json!(500);
        maps.saw(&None, Event::Apply(meta("acme", "2")));
        assert!(!maps.next().await);
        assert_eq!(maps.views().len(), 1);
        *content.lock().unwrap() = map("2", "b");
        while !maps.next().await {}
        assert_eq!(maps.views()[0].data["definition.yaml"], "b");
    }
}
