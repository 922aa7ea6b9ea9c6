//! The world as the API server has shown it: what is declared, decoded once, and beside it the status that stands in each object.
//!
//! Statuses are kept apart from what is declared, so that a status write (ours come back through the watch) asks for no new plan.
//!
//! A status that we have just written is newer than what the watch shows until it has caught up; an older version of an object therefore
//! never brings back an older status, though what it declares counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairlead_api::manifest::Resource as Typed;
use fairlead_api::{Integration, Kind};
use fairlead_model::ObjectRef;
use fairlead_plan::{ConfigMapView, Recorded, Undecodable, World, object_ref};
use kube::Resource;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use crate::guarded::{Decoded, Guarded};
use crate::judge::Status;
use crate::watches::Scope;

/// One object of ours.
pub(crate) type Key = (Kind, ObjectRef);

/// What is known of an object besides what it declares.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) uid: String,
    /// The newest version that is known, from the watch or from a write of ours.
    pub(crate) resource_version: String,
    pub(crate) status: Option<Status>,
    /// The version that the watch has shown.
    shown: String,
    undecodable: bool,
}

/// What an event meant.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Something that is planned changed.
    pub(crate) declared: bool,
    /// The object whose version or status changed.
    pub(crate) touched: Option<Key>,
}

/// The cache.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    world: Arc<World>,
    entries: BTreeMap<Key, Entry>,
    /// Per kind and scope: what a listing under way has shown so far.
    listed: BTreeMap<(Kind, Scope), BTreeSet<ObjectRef>>,
    synced: BTreeSet<(Kind, Scope)>,
}

impl Cache {
    /// Whether everything in these scopes was listed once.
    pub(crate) fn is_synced(&self, scopes: &[Scope]) -> bool {
        Kind::ALL.iter().all(|kind| scopes.iter().all(|scope| self.synced.contains(&(*kind, scope.clone()))))
    }

    /// What is declared.
    pub(crate) fn world(&self) -> Arc<World> {
        Arc::clone(&self.world)
    }

    /// What is known of an object.
    pub(crate) fn entry(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// All objects.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.entries.keys()
    }

    /// How many objects of a kind there are, and how many of them cannot be decoded.
    pub(crate) fn count(&self, kind: Kind) -> (usize, usize) {
        let of_kind = || self.entries.iter().filter(move |((k, _), _)| *k == kind);
        (of_kind().count(), of_kind().filter(|(_, entry)| entry.undecodable).count())
    }

    /// Takes over the ConfigMaps.
    pub(crate) fn set_config_maps(&mut self, views: Vec<ConfigMapView>) {
        Arc::make_mut(&mut self.world).config_maps = views;
    }

    /// Takes over the newest recorded revisions.
    pub(crate) fn set_history(&mut self, newest: BTreeMap<ObjectRef, Recorded>) {
        if self.world.history.as_ref() != Some(&newest) {
            Arc::make_mut(&mut self.world).history = Some(newest);
        }
    }

    /// What an Integration declares.
    pub(crate) fn integration(&self, object: &ObjectRef) -> Option<&Integration> {
        find(&self.world.integrations, object)
    }

    /// Something came on a watch.
    pub(crate) fn saw(&mut self, kind: Kind, scope: &Scope, event: Event<Guarded>) -> Change {
        match event {
            Event::Apply(object) => self.put(kind, object),
            Event::Delete(object) => Change { declared: self.remove(&(kind, object.object())), touched: None },
            Event::Init => {
                self.listed.insert((kind, scope.clone()), BTreeSet::new());
                Change::default()
            }
            Event::InitApply(object) => {
                self.listed.entry((kind, scope.clone())).or_default().insert(object.object());
                self.put(kind, object)
            }
            Event::InitDone => {
                let listed = self.listed.remove(&(kind, scope.clone())).unwrap_or_default();
                let within = |object: &ObjectRef| scope.as_deref().is_none_or(|namespace| namespace == object.namespace);
                let gone: Vec<Key> =
                    self.entries.keys().filter(|(k, object)| *k == kind && within(object) && !listed.contains(object)).cloned().collect();
                let removed = gone.iter().filter(|key| self.remove(key)).count();
                let first = self.synced.insert((kind, scope.clone()));
                Change { declared: first || removed > 0, touched: None }
            }
        }
    }

    /// Our own write came back with this version.
    pub(crate) fn wrote(&mut self, key: &Key, uid: &str, resource_version: &str, status: Status) {
        if let Some(entry) = self.entries.get_mut(key)
            && entry.uid == uid
            && !is_older(resource_version, &entry.resource_version)
        {
            entry.resource_version = resource_version.to_owned();
            entry.status = Some(status);
        }
    }

    fn put(&mut self, kind: Kind, object: Guarded) -> Change {
        let key = (kind, object.object());
        let known = self.entries.get(&key).filter(|entry| Some(&entry.uid) == object.meta().uid.as_ref());
        if known.is_some_and(|entry| entry.shown == object.version() || is_older(object.version(), &entry.shown)) {
            return Change::default();
        }
        let decoded = object.decode(kind);
        let undecodable = decoded.body.is_err();
        let shown = decoded.resource_version.clone();
        let (resource_version, status) = match known {
            Some(entry) if is_older(&shown, &entry.resource_version) => (entry.resource_version.clone(), entry.status.clone()),
            _ => (shown.clone(), decoded.status.clone()),
        };
        if undecodable {
            told(kind, &decoded);
        }
        self.entries.insert(key.clone(), Entry { uid: decoded.uid.clone(), resource_version, status, shown, undecodable });
        let declared = self.declare(kind, decoded);
        Change { declared, touched: Some(key) }
    }

    /// Puts what is declared in its place. Whether anything changed.
    fn declare(&mut self, kind: Kind, decoded: Decoded) -> bool {
        let object = decoded.object;
        // Looked at before anything is taken apart: most versions of an object differ in their status only.
        match &decoded.body {
            Ok(resource) if self.holds(resource) => return false,
            Err(faults) => {
                let now = Undecodable { kind, object: object.clone(), generation: decoded.generation, faults: faults.clone() };
                if self.world.undecodable.contains(&now) {
                    return false;
                }
            }
            Ok(_) => {}
        }
        let world = Arc::make_mut(&mut self.world);
        withdraw(world, kind, &object);
        match decoded.body {
            Ok(Typed::ApiContract(resource)) => insert(&mut world.contracts, *resource),
            Ok(Typed::Connector(resource)) => insert(&mut world.connectors, *resource),
            Ok(Typed::Integration(resource)) => insert(&mut world.integrations, *resource),
            Err(faults) => world.undecodable.push(Undecodable { kind, object, generation: decoded.generation, faults }),
        }
        true
    }

    fn holds(&self, resource: &Typed) -> bool {
        match resource {
            Typed::ApiContract(resource) => find(&self.world.contracts, &object_ref(&resource.metadata)) == Some(&**resource),
            Typed::Connector(resource) => find(&self.world.connectors, &object_ref(&resource.metadata)) == Some(&**resource),
            Typed::Integration(resource) => find(&self.world.integrations, &object_ref(&resource.metadata)) == Some(&**resource),
        }
    }

    /// Every object with its status, as a Kubernetes List. One that cannot be decoded has its name and status only.
    pub(crate) fn listing(&self) -> Value {
        let item = |((kind, object), entry): (&Key, &Entry)| {
            let declared = match kind {
                Kind::ApiContract => find(&self.world.contracts, object).map(serde_json::to_value),
                Kind::Connector => find(&self.world.connectors, object).map(serde_json::to_value),
                Kind::Integration => find(&self.world.integrations, object).map(serde_json::to_value),
            };
            let mut item = declared
                .and_then(Result::ok)
                .unwrap_or_else(|| json!({"kind": kind.to_string(), "metadata": {"namespace": object.namespace, "name": object.name}}));
            if let Some(status) = entry.status.as_ref().and_then(|status| status.to_value().ok()) {
                item["status"] = status;
            }
            item
        };
        json!({"apiVersion": "v1", "kind": "List", "items": self.entries.iter().map(item).collect::<Vec<_>>()})
    }

    fn remove(&mut self, key: &Key) -> bool {
        self.entries.remove(key);
        withdraw(Arc::make_mut(&mut self.world), key.0, &key.1)
    }
}

fn told(kind: Kind, decoded: &Decoded) {
    let faults = decoded.body.as_ref().err().map_or(&[][..], Vec::as_slice);
    let field = faults.first().map_or("", |fault| fault.field.as_str());
    tracing::warn!(%kind, object = %decoded.object, field, faults = faults.len(), "an object does not fit its schema; what ran before goes on");
}

/// Whether version `a` came before version `b`. Versions that are no numbers cannot be compared and count as later.
fn is_older(a: &str, b: &str) -> bool {
    matches!((a.parse::<u128>(), b.parse::<u128>()), (Ok(a), Ok(b)) if a < b)
}

/// Lists are kept in the order of their names, so that one object is found and replaced without touching the others.
fn place<T: Resource>(list: &[T], object: &ObjectRef) -> Result<usize, usize> {
    let name = |item: &T| (item.meta().namespace.clone().unwrap_or_default(), item.meta().name.clone().unwrap_or_default());
    list.binary_search_by(|item| {
        let (namespace, name) = name(item);
        (namespace.as_str(), name.as_str()).cmp(&(object.namespace.as_str(), object.name.as_str()))
    })
}

fn find<'a, T: Resource>(list: &'a [T], object: &ObjectRef) -> Option<&'a T> {
    place(list, object).ok().and_then(|index| list.get(index))
}

fn insert<T: Resource>(list: &mut Vec<T>, item: T) {
    match place(list, &object_ref(item.meta())) {
        Ok(index) => list[index] = item,
        Err(index) => list.insert(index, item),
    }
}

fn withdraw(world: &mut World, kind: Kind, object: &ObjectRef) -> bool {
    fn take<T: Resource>(list: &mut Vec<T>, object: &ObjectRef) -> bool {
        place(list, object).map(|index| list.remove(index)).is_ok()
    }
    let before = world.undecodable.len();
    world.undecodable.retain(|each| (each.kind, &each.object) != (kind, object));
    let unread = world.undecodable.len() < before;
    unread
        | match kind {
            Kind::ApiContract => take(&mut world.contracts, object),
            Kind::Connector => take(&mut world.connectors, object),
            Kind::Integration => take(&mut world.integrations, object),
        }
}

impl Cache {
    /// A cache of a world that is all there is.
    pub(crate) fn new() -> Self {
        Self { world: Arc::new(World { complete: true, ..World::default() }), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connector(name: &str, version: &str, system: &str, status: Value) -> Guarded {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "sales", "uid": "u", "resourceVersion": version, "generation": 1},
            "spec": {"system": system, "endpoint": "https://acme.example", "auth": {"method": "ClientCredentials", "secretRef": {"name": "s"}}},
            "status": status,
        }))
        .unwrap()
    }

    fn key(name: &str) -> Key {
        (Kind::Connector, ObjectRef::new("sales", name))
    }

    fn listed(cache: &mut Cache, objects: Vec<Guarded>) -> bool {
        cache.saw(Kind::Connector, &None, Event::Init);
        let mut declared = false;
        for object in objects {
            declared |= cache.saw(Kind::Connector, &None, Event::InitApply(object)).declared;
        }
        declared | cache.saw(Kind::Connector, &None, Event::InitDone).declared
    }

    #[test]
    fn a_status_asks_for_no_plan_and_a_spec_does() {
        let mut cache = Cache::new();
        listed(&mut cache, vec![connector("crm", "1", "salesforce", json!({}))]);
        let change = cache.saw(Kind::Connector, &None, Event::Apply(connector("crm", "2", "salesforce", json!({"usedBy": 3}))));
        assert_eq!(change, Change { declared: false, touched: Some(key("crm")) });
        assert!(matches!(&cache.entry(&key("crm")).unwrap().status, Some(Status::Connector(status)) if status.used_by == Some(3)));
        assert!(cache.saw(Kind::Connector, &None, Event::Apply(connector("crm", "3", "netsuite", json!({"usedBy": 3})))).declared);
        assert!(cache.world().connectors[0].status.is_none(), "statuses stand apart");
    }

    #[test]
    fn an_undecodable_object_stands_beside_the_others_until_it_is_mended() {
        let mut cache = Cache::new();
        let bad = || {
            serde_json::from_value::<Guarded>(
                json!({"metadata": {"name": "bad", "namespace": "sales", "uid": "u", "resourceVersion": "2"}, "spec": 1}),
            )
            .unwrap()
        };
        assert!(listed(&mut cache, vec![connector("crm", "1", "salesforce", json!({})), bad()]));
        assert_eq!((cache.world().connectors.len(), cache.world().undecodable.len(), cache.count(Kind::Connector)), (1, 1, (2, 1)));
        assert!(!listed(&mut cache, vec![connector("crm", "1", "salesforce", json!({})), bad()]), "the same again is nothing new");
        cache.saw(Kind::Connector, &None, Event::Apply(connector("bad", "3", "salesforce", json!({}))));
        assert_eq!((cache.world().connectors.len(), cache.world().undecodable.len(), cache.count(Kind::Connector)), (2, 0, (2, 0)));
    }

    #[test]
    fn what_a_new_listing_does_not_show_is_gone() {
        let mut cache = Cache::new();
        listed(&mut cache, vec![connector("a", "1", "salesforce", json!({})), connector("b", "1", "salesforce", json!({}))]);
        assert!(listed(&mut cache, vec![connector("b", "1", "salesforce", json!({}))]));
        assert_eq!(cache.world().connectors.len(), 1);
        assert!(cache.entry(&key("a")).is_none());
    }

    #[test]
    fn an_older_version_never_brings_back_an_older_status() {
        let mut cache = Cache::new();
        listed(&mut cache, vec![connector("crm", "9", "salesforce", json!({}))]);
        let Some(Status::Connector(written)) =
            serde_json::from_value::<Guarded>(json!({"status": {"usedBy": 5}})).unwrap().decode(Kind::Connector).status
        else {
            panic!("a status")
        };
        cache.wrote(&key("crm"), "u", "11", Status::Connector(written));
        let used_by = |cache: &Cache| match &cache.entry(&key("crm")).unwrap().status {
            Some(Status::Connector(status)) => status.used_by,
            _ => None,
        };
        let change = cache.saw(Kind::Connector, &None, Event::Apply(connector("crm", "10", "netsuite", json!({"usedBy": 1}))));
        assert!(change.declared, "what it declares counts");
        assert_eq!(used_by(&cache), Some(5));
        cache.saw(Kind::Connector, &None, Event::Apply(connector("crm", "12", "netsuite", json!({"usedBy": 6}))));
        assert_eq!(used_by(&cache), Some(6));
        assert_eq!(cache.saw(Kind::Connector, &None, Event::Apply(connector("crm", "11", "netsuite", json!({})))), Change::default());
    }
}
