//! The history of the Integrations: what was declared, each time that was something else, as a ControllerRevision that the Integration owns. It is
//! for people, who look and go back; which revision is in force, the engine knows.
//!
//! A revision is never changed: it is created once, under a name that tells its Integration and its number, and deleted when there are too many,
//! or by the garbage collector with its Integration. So two operators cannot make one number twice: the second creation is refused, the watch shows
//! why, and the next plan counts on. Of the recorded ones only number and digest are kept here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fairlead_api::{API_VERSION, INTEGRATION_LABEL, Integration, Kind, MANAGED_BY, REVISION_ANNOTATION, SPEC_DIGEST_ANNOTATION};
use fairlead_model::ObjectRef;
use fairlead_model::hash::{Digest, ValueHash};
use fairlead_plan::{Planned, Recorded};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use kube::{Client, Error};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::FIELD_MANAGER;
use crate::cache::Cache;
use crate::judge::Status;
use crate::watches::{Scope, jittered};

/// So many revisions of an Integration are kept; and the one in force, however old it is.
pub const HISTORY: usize = 10;
/// One write takes no longer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Writes under way at once.
const CONCURRENCY: usize = 4;
/// The pauses after a write that failed.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest name of an object.
const LONGEST_NAME: usize = 253;
/// The longest value of a label.
const LONGEST_LABEL: usize = 63;

/// The selector of what is watched.
pub(crate) fn selector() -> String {
    format!("{}={}", MANAGED_BY.0, MANAGED_BY.1)
}

/// A recorded revision.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    integration: ObjectRef,
    owner: String,
    recorded: Recorded,
}

/// One write.
enum Write {
    Create(Box<ControllerRevision>),
    Delete(ObjectRef),
}

/// A write that came to its end.
struct Ended {
    integration: ObjectRef,
    result: Result<Option<PartialObjectMeta<ControllerRevision>>, Error>,
}

/// The writes of one Integration's revisions.
#[derive(Debug, Default)]
struct Track {
    under_way: usize,
    failures: u32,
    not_before: Option<Instant>,
}

/// The recorded revisions, and those to record.
pub(crate) struct Revisions {
    client: Client,
    known: BTreeMap<ObjectRef, Known>,
    /// Per scope: what a listing under way has shown so far.
    listed: BTreeMap<Scope, BTreeSet<ObjectRef>>,
    synced: BTreeSet<Scope>,
    /// Integrations that have a revision to record or to delete.
    todo: BTreeSet<ObjectRef>,
    tracks: BTreeMap<ObjectRef, Track>,
    writes: JoinSet<Ended>,
}

impl Revisions {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            known: BTreeMap::new(),
            listed: BTreeMap::new(),
            synced: BTreeSet::new(),
            todo: BTreeSet::new(),
            tracks: BTreeMap::new(),
            writes: JoinSet::new(),
        }
    }

    /// Whether each of these scopes was listed once.
    pub(crate) fn is_synced(&self, scopes: &[Scope]) -> bool {
        scopes.iter().all(|scope| self.synced.contains(scope))
    }

    /// Something came on a watch. Whether there is another history now.
    pub(crate) fn saw(&mut self, scope: &Scope, event: Event<PartialObjectMeta<ControllerRevision>>) -> bool {
        match event {
            Event::Apply(object) => self.put(&object),
            Event::Delete(object) => self.remove(&fairlead_plan::object_ref(&object.metadata)),
            Event::Init => {
                self.listed.insert(scope.clone(), BTreeSet::new());
                false
            }
            Event::InitApply(object) => {
                self.listed.entry(scope.clone()).or_default().insert(fairlead_plan::object_ref(&object.metadata));
                self.put(&object)
            }
            Event::InitDone => {
                let listed = self.listed.remove(scope).unwrap_or_default();
                let within = |name: &ObjectRef| scope.as_deref().is_none_or(|namespace| namespace == name.namespace);
                let gone: Vec<ObjectRef> = self.known.keys().filter(|name| within(name) && !listed.contains(*name)).cloned().collect();
                let removed = gone.iter().filter(|name| self.remove(name)).count();
                self.synced.insert(scope.clone()) || removed > 0
            }
        }
    }

    fn put(&mut self, object: &PartialObjectMeta<ControllerRevision>) -> bool {
        let name = fairlead_plan::object_ref(&object.metadata);
        // What does not say whose revision it is, is none of ours.
        let Some(known) = known(&object.metadata) else { return self.remove(&name) };
        self.todo.insert(known.integration.clone());
        let before = self.known.insert(name, known.clone());
        before != Some(known)
    }

    fn remove(&mut self, name: &ObjectRef) -> bool {
        let removed = self.known.remove(name);
        self.todo.extend(removed.iter().map(|known| known.integration.clone()));
        removed.is_some()
    }

    /// The newest revision of each Integration that there is. Those of an earlier one of the same name are not its own.
    pub(crate) fn newest(&self, cache: &Cache) -> BTreeMap<ObjectRef, Recorded> {
        let mut newest: BTreeMap<ObjectRef, Recorded> = BTreeMap::new();
        for known in self.known.values() {
            let owner = cache.entry(&(Kind::Integration, known.integration.clone())).map(|entry| entry.uid.as_str());
            if owner != Some(known.owner.as_str()) {
                continue;
            }
            let place = newest.entry(known.integration.clone()).or_insert_with(|| known.recorded.clone());
            if place.number < known.recorded.number {
                *place = known.recorded.clone();
            }
        }
        newest
    }

    /// A plan was made: what it found unrecorded is to be recorded.
    pub(crate) fn planned(&mut self, planned: &Planned) {
        let unrecorded = |(object, verdict): (&ObjectRef, &fairlead_plan::Verdict)| {
            let new = verdict.is_good() && verdict.revision.as_ref().is_some_and(|revision| !revision.recorded);
            new.then(|| object.clone())
        };
        self.todo.extend(planned.integrations.iter().filter_map(unrecorded));
        self.tracks.retain(|object, track| track.under_way > 0 || planned.integrations.contains_key(object));
    }

    /// Starts the writes that are due. Only the replica that leads calls this.
    pub(crate) fn keep(&mut self, planned: &Planned, cache: &Cache) {
        let now = Instant::now();
        for object in std::mem::take(&mut self.todo) {
            let waits = |track: &Track| track.under_way > 0 || track.not_before.is_some_and(|then| then > now);
            if self.writes.len() >= CONCURRENCY || self.tracks.get(&object).is_some_and(waits) {
                self.todo.insert(object);
                continue;
            }
            for write in self.wanted(&object, planned, cache) {
                self.tracks.entry(object.clone()).or_default().under_way += 1;
                self.writes.spawn(perform(self.client.clone(), object.clone(), write));
            }
        }
    }

    /// What is to be written of an Integration's history.
    fn wanted(&self, object: &ObjectRef, planned: &Planned, cache: &Cache) -> Vec<Write> {
        let Some(entry) = cache.entry(&(Kind::Integration, object.clone())) else { return Vec::new() };
        let mine = || self.known.iter().filter(|(_, known)| known.integration == *object && known.owner == entry.uid);
        let mut wanted = Vec::new();
        let verdict = planned.integrations.get(object).filter(|verdict| verdict.is_good());
        let unrecorded = verdict.and_then(|verdict| verdict.revision.as_ref()).filter(|revision| !revision.recorded);
        if let (Some(revision), Some(resource)) = (unrecorded, cache.integration(object))
            && let Some(number) = revision.unit.number
            && mine().all(|(_, known)| known.recorded.number != number)
            // What was declared since is planned in a moment.
            && Digest::of_serialized(&resource.spec) == revision.unit.spec
        {
            let recorded = Recorded { number, spec: revision.unit.spec.clone() };
            wanted.extend(record(object, &entry.uid, &recorded, resource).map(|revision| Write::Create(Box::new(revision))));
        }
        let mut numbers: Vec<(i64, &ObjectRef)> = mine().map(|(name, known)| (known.recorded.number, name)).collect();
        numbers.sort_unstable();
        let active = match &entry.status {
            Some(Status::Integration(status)) => status.revision.as_ref().map(|revision| revision.active),
            _ => None,
        };
        let many = numbers.len().saturating_sub(HISTORY);
        wanted.extend(
            numbers.iter().take(many).filter(|(number, _)| Some(*number) != active).map(|(_, name)| Write::Delete((*name).clone())),
        );
        wanted
    }

    /// When a write is due that waits for its time.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.todo
            .iter()
            .filter_map(|object| self.tracks.get(object))
            .filter(|track| track.under_way == 0)
            .filter_map(|track| track.not_before)
            .min()
    }

    /// Waits for a write to end; pending while none is under way. Whether there is another history now.
    pub(crate) async fn ended(&mut self) -> bool {
        let Some(ended) = self.writes.join_next().await else { return std::future::pending().await };
        let Ok(Ended { integration, result }) = ended else { return false };
        let track = self.tracks.entry(integration.clone()).or_default();
        track.under_way = track.under_way.saturating_sub(1);
        match result {
            Ok(written) => {
                (track.failures, track.not_before) = (0, None);
                written.is_some_and(|object| self.put(&object))
            }
            Err(error) => {
                // Somebody else may have made that number: the watch will tell.
                tracing::warn!(%integration, %error, "a revision could not be recorded and is tried again");
                let pause = SHORTEST_PAUSE.saturating_mul(1 << track.failures.min(10)).min(LONGEST_PAUSE);
                track.failures = track.failures.saturating_add(1);
                track.not_before = Some(Instant::now() + jittered(pause));
                self.todo.insert(integration);
                false
            }
        }
    }
}

/// What a ControllerRevision says of itself, if it is one of ours.
fn known(metadata: &ObjectMeta) -> Option<Known> {
    let owner = metadata
        .owner_references
        .as_ref()?
        .iter()
        .find(|owner| owner.kind == Kind::Integration.name() && owner.api_version == API_VERSION)?;
    let annotation = |name: &str| metadata.annotations.as_ref()?.get(name).cloned();
    Some(Known {
        integration: ObjectRef::new(metadata.namespace.clone()?, owner.name.clone()),
        owner: owner.uid.clone(),
        recorded: Recorded { number: annotation(REVISION_ANNOTATION)?.parse().ok()?, spec: Digest(annotation(SPEC_DIGEST_ANNOTATION)?) },
    })
}

/// The ControllerRevision of a revision.
fn record(object: &ObjectRef, owner: &str, recorded: &Recorded, resource: &Integration) -> Option<ControllerRevision> {
    let label = (object.name.len() <= LONGEST_LABEL).then_some(object.name.as_str());
    let revision = json!({
        "metadata": {
            "name": name(object, owner, recorded.number),
            "namespace": object.namespace,
            "labels": {MANAGED_BY.0: MANAGED_BY.1},
            "annotations": {REVISION_ANNOTATION: recorded.number.to_string(), SPEC_DIGEST_ANNOTATION: recorded.spec},
        },
        "revision": recorded.number,
        "data": {"spec": resource.spec},
    });
    let mut revision: ControllerRevision = serde_json::from_value(revision).ok()?;
    let labels = revision.metadata.labels.get_or_insert_default();
    labels.extend(label.map(|label| (INTEGRATION_LABEL.to_owned(), label.to_owned())));
    // Without blockOwnerDeletion: that would take the right to set finalizers, and nothing waits for these.
    revision.metadata.owner_references = Some(vec![OwnerReference {
        api_version: API_VERSION.to_owned(),
        kind: Kind::Integration.name().to_owned(),
        name: object.name.clone(),
        uid: owner.to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    Some(revision)
}

/// The name of a revision: another Integration of the same name, later, has other ones.
fn name(object: &ObjectRef, owner: &str, number: i64) -> String {
    let tail = format!("-{:08x}-{number}", ValueHash::of_text(owner).0 & 0xffff_ffff);
    let head: String = object.name.chars().take(LONGEST_NAME - tail.len()).collect();
    format!("{}{tail}", head.trim_end_matches(['.', '-']))
}

async fn perform(client: Client, integration: ObjectRef, write: Write) -> Ended {
    let api: Api<ControllerRevision> = Api::namespaced(client, &integration.namespace);
    let work = async {
        match write {
            Write::Create(revision) => {
                let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
                let created = api.create(&parameters, &*revision).await?;
                Ok(Some(PartialObjectMeta { metadata: created.metadata, ..PartialObjectMeta::default() }))
            }
            Write::Delete(name) => match api.delete(&name.name, &DeleteParams::default()).await {
                Ok(_) => Ok(None),
                Err(Error::Api(status)) if status.code == 404 => Ok(None),
                Err(error) => Err(error),
            },
        }
    };
    let late = || Error::Service("the API server did not answer in time".into());
    let result = tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| Err(late()));
    Ended { integration, result }
}

/// A revision of an Integration, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// Its number.
    pub number: i64,
    /// What was declared.
    pub spec: Value,
}

/// The revisions of an Integration that the cluster holds, the oldest first.
///
/// # Errors
/// What the API server says.
pub async fn revisions(client: Client, integration: &ObjectRef) -> Result<Vec<Revision>, Error> {
    let api: Api<ControllerRevision> = Api::namespaced(client, &integration.namespace);
    let all = api.list(&ListParams::default().labels(&selector())).await?;
    let of = |revision: ControllerRevision| {
        known(&revision.metadata).filter(|known| known.integration == *integration)?;
        Some(Revision { number: revision.revision, spec: revision.data?.0.get("spec")?.clone() })
    };
    let mut revisions: Vec<Revision> = all.items.into_iter().filter_map(of).collect();
    revisions.sort_by_key(|revision| revision.number);
    Ok(revisions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeApi, answer, failure};
    use fairlead_model::Timestamp;
    use fairlead_plan::{Config, Planner, World};
    use fairlead_systems::Catalog;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU16, Ordering};

    /// A world with one Integration that plans, and an API server that answers creations with `code`.
    struct Scene {
        api: FakeApi,
        cache: Cache,
        revisions: Revisions,
        planner: Planner,
        planned: Planned,
        code: Arc<AtomicU16>,
    }

    const BASE: &str = include_str!("../../plan/tests/golden/base.yaml");

    fn customers() -> ObjectRef {
        ObjectRef::new("north-america", "customers")
    }

    impl Scene {
        fn new() -> Self {
            let code = Arc::new(AtomicU16::new(201));
            let answers = Arc::clone(&code);
            let (api, client) = FakeApi::new(move |request| match answers.load(Ordering::SeqCst) {
                201 => answer(201, &request.body),
                code => failure(code),
            });
            let mut scene = Self {
                api,
                cache: Cache::new(),
                revisions: Revisions::new(client),
                planner: Planner::default(),
                planned: Planned::default(),
                code,
            };
            scene.revisions.saw(&None, Event::Init);
            scene.revisions.saw(&None, Event::InitDone);
            let documents = fairlead_api::manifest::from_yaml(BASE).unwrap();
            scene.cache.set_config_maps(World::of_manifests(&documents, true).config_maps);
            documents.into_iter().for_each(|document| scene.declare(document));
            scene.plan();
            scene
        }

        fn declare(&mut self, mut document: Value) {
            let Ok(kind) = document["kind"].as_str().unwrap().parse::<Kind>() else { return };
            document["metadata"]["uid"] = json!("u1");
            document["metadata"]["resourceVersion"] = json!((self.cache.keys().count() + 1).to_string());
            self.cache.saw(kind, &None, Event::Apply(serde_json::from_value(document).unwrap()));
        }

        fn plan(&mut self) {
            self.cache.set_history(self.revisions.newest(&self.cache));
            self.planned = self.planner.plan(&self.cache.world(), Catalog::builtin(), &Config::default(), Timestamp(0));
            let verdict = &self.planned.integrations[&customers()];
            assert!(verdict.is_good(), "{:?}", verdict.findings);
            self.revisions.planned(&self.planned);
            self.revisions.keep(&self.planned, &self.cache);
        }

        fn number(&self) -> (i64, bool) {
            let revision = self.planned.integrations[&customers()].revision.clone().unwrap();
            (revision.unit.number.unwrap(), revision.recorded)
        }

        /// Somebody declares it with another owner.
        fn edit(&mut self, team: &str) {
            let integration = self.cache.integration(&customers()).unwrap();
            let mut document = serde_json::to_value(integration).unwrap();
            document["spec"]["owner"] = json!({"team": team});
            document["metadata"]["resourceVersion"] = json!("99");
            document["apiVersion"] = json!(API_VERSION);
            document["kind"] = json!("Integration");
            self.cache.saw(Kind::Integration, &None, Event::Apply(serde_json::from_value(document).unwrap()));
        }
    }

    #[tokio::test]
    async fn each_spec_is_recorded_once_and_an_equal_one_makes_no_new_revision() {
        let mut scene = Scene::new();
        assert_eq!(scene.number(), (1, false));
        assert!(scene.revisions.ended().await);
        scene.plan();
        assert_eq!(scene.number(), (1, true));
        let request = scene.api.requests().pop().unwrap();
        let body = &request.body;
        assert!(request.path.ends_with("/apis/apps/v1/namespaces/north-america/controllerrevisions"), "{}", request.path);
        assert_eq!((&body["revision"], &body["data"]["spec"]["contract"]["name"]), (&json!(1), &json!("customer-v1")));
        let owner = &body["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["kind"], &owner["uid"], &owner["controller"]), (&json!("Integration"), &json!("u1"), &json!(true)));
        assert!(owner.get("blockOwnerDeletion").is_none());

        scene.edit("sales");
        scene.plan();
        assert_eq!(scene.number(), (2, false));
        assert!(scene.revisions.ended().await);
        scene.plan();
        assert_eq!((scene.number(), scene.api.requests().len()), ((2, true), 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_creation_that_is_refused_is_tried_again_after_a_pause() {
        let mut scene = Scene::new();
        scene.code.store(409, Ordering::SeqCst);
        assert!(!scene.revisions.ended().await);
        scene.revisions.keep(&scene.planned, &scene.cache);
        let refused = scene.api.requests().len();
        let due = scene.revisions.next_due().unwrap();
        scene.code.store(201, Ordering::SeqCst);
        tokio::time::sleep_until(due).await;
        scene.revisions.keep(&scene.planned, &scene.cache);
        assert!(scene.revisions.ended().await);
        assert_eq!(scene.api.requests().len(), refused + 1);
    }

    #[tokio::test]
    async fn of_too_many_the_oldest_go_and_those_of_an_earlier_integration_are_not_counted() {
        let mut scene = Scene::new();
        assert!(scene.revisions.ended().await);
        let integration = scene.cache.integration(&customers()).unwrap().clone();
        let mut add = |number: i64, owner: &str| {
            let recorded = Recorded { number, spec: Digest::of(&json!(number)) };
            let metadata = record(&customers(), owner, &recorded, &integration).unwrap().metadata;
            scene.revisions.saw(&None, Event::Apply(PartialObjectMeta { metadata, ..PartialObjectMeta::default() }))
        };
        assert!(add(50, "an earlier one"));
        assert!((2..=i64::try_from(HISTORY).unwrap() + 2).all(|number| add(number, "u1")));
        assert_eq!(scene.revisions.newest(&scene.cache)[&customers()].number, 12);
        scene.revisions.keep(&scene.planned, &scene.cache);
        while !scene.revisions.writes.is_empty() {
            scene.revisions.ended().await;
        }
        let deleted: Vec<String> = scene.api.requests()[1..].iter().map(|request| request.path.clone()).collect();
        assert_eq!(deleted.len(), 2, "{deleted:?}");
        assert!(deleted[0].ends_with("-1") && deleted[1].ends_with("-2"), "{deleted:?}");
    }

    #[test]
    fn names_are_names_however_long_the_integrations_is() {
        let long = ObjectRef::new("sales", "a".repeat(240) + "." + &"b".repeat(12));
        let name = name(&long, "u1", 1234);
        assert!(name.len() <= LONGEST_NAME && name.ends_with("-1234") && !name.contains(".-"), "{name}");
    }
}
