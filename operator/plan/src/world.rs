//! The world as the planner sees it: the resources, the ConfigMaps they name, and the objects that could not be read.
//!
//! Whoever fills it (watches in a cluster, files without one) decides what belongs in; the planner only looks. Objects on their way out
//! (with a deletion timestamp) are left out by [`World::present`], so that what they ran stops.

use crate::finding::Finding;
use fairlead_api::{ApiContract, Connector, Integration, IntegrationSpec, Kind, Resource, Violation, manifest};
use fairlead_model::ObjectRef;
use fairlead_model::hash::Digest;
use fairlead_model::unit::RevisionUnit;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Everything that was declared.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct World {
    /// The Connectors.
    pub connectors: Vec<Connector>,
    /// The ApiContracts.
    pub contracts: Vec<ApiContract>,
    /// The Integrations.
    pub integrations: Vec<Integration>,
    /// The ConfigMaps that Connectors name (others do no harm).
    pub config_maps: Vec<ConfigMapView>,
    /// Objects of our kinds that are there and cannot be decoded.
    pub undecodable: Vec<Undecodable>,
    /// The newest revision of each Integration that is recorded; nothing where nobody records any.
    pub history: Option<BTreeMap<ObjectRef, Recorded>>,
    /// Whether this is all there is. False for a check of some files: a reference to something that is not given is then unknown, not wrong.
    pub complete: bool,
}

/// A recorded revision: its number, and what was declared by its digest. No plan needs more of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its number.
    pub number: i64,
    /// The digest of the spec.
    pub spec: Digest,
}

/// A ConfigMap's name and text entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMapView {
    /// The ConfigMap.
    pub object: ObjectRef,
    /// Its `data`.
    pub data: BTreeMap<String, String>,
}

/// An object that exists but does not fit its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecodable {
    /// Its kind.
    pub kind: Kind,
    /// The object.
    pub object: ObjectRef,
    /// Its generation.
    pub generation: i64,
    /// What does not fit; never empty.
    pub faults: Vec<Violation>,
}

impl Undecodable {
    /// An object of which only the decoder's words are known.
    #[must_use]
    pub fn new(kind: Kind, object: ObjectRef, generation: i64, message: impl Into<String>) -> Self {
        let fault = Violation {
            field: String::new(),
            message: format!("the object does not fit its schema: {}", message.into()),
            hint: "correct the field and apply the manifest again".into(),
        };
        Self { kind, object, generation, faults: vec![fault] }
    }

    /// What does not fit, in one line.
    pub(crate) fn message(&self) -> String {
        self.findings().first().map(ToString::to_string).unwrap_or_default()
    }

    pub(crate) fn findings(&self) -> Vec<Finding> {
        self.faults.iter().cloned().map(Finding::from).collect()
    }
}

/// The namespace and name of an object; `default` where a manifest names no namespace, as kubectl has it.
#[must_use]
pub fn object_ref(metadata: &ObjectMeta) -> ObjectRef {
    ObjectRef::new(metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()), metadata.name.clone().unwrap_or_default())
}

impl World {
    /// The world of some manifests (documents of YAML or JSON files, of any kind). What is ours and cannot be read becomes undecodable, with
    /// every fault by its field; what is neither ours nor a ConfigMap is left out.
    #[must_use]
    pub fn of_manifests<'a>(manifests: impl IntoIterator<Item = &'a Value>, complete: bool) -> Self {
        let mut resources = Vec::new();
        let mut config_maps = Vec::new();
        let mut undecodable = Vec::new();
        for document in manifests {
            if manifest::is_ours(document) {
                match Resource::read(document) {
                    Ok(resource) => resources.push(resource),
                    Err(faults) => undecodable.push(unread(document, faults)),
                }
            } else if document.get("kind").and_then(Value::as_str) == Some("ConfigMap") {
                config_maps.push(config_map(document));
            }
        }
        Self { undecodable, ..Self::of(resources, config_maps, complete) }
    }

    /// A world of these resources and ConfigMaps.
    #[must_use]
    pub fn of(resources: impl IntoIterator<Item = Resource>, config_maps: Vec<ConfigMapView>, complete: bool) -> Self {
        let mut world = Self { config_maps, complete, ..Self::default() };
        for resource in resources {
            match resource {
                Resource::Connector(object) => world.connectors.push(*object),
                Resource::ApiContract(object) => world.contracts.push(*object),
                Resource::Integration(object) => world.integrations.push(*object),
            }
        }
        world
    }
}

fn named(document: &Value) -> ObjectRef {
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
    ObjectRef::new(text("/metadata/namespace").unwrap_or("default"), text("/metadata/name").unwrap_or_default())
}

/// A document whose kind cannot be told either is judged as an Integration: its faults say that the kind is wrong.
fn unread(document: &Value, faults: Vec<Violation>) -> Undecodable {
    let kind = document.get("kind").and_then(Value::as_str).and_then(|kind| kind.parse().ok()).unwrap_or(Kind::Integration);
    let generation = document.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default();
    Undecodable { kind, object: named(document), generation, faults }
}

fn config_map(document: &Value) -> ConfigMapView {
    let entries = document.get("data").and_then(Value::as_object).into_iter().flatten();
    let data = entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
    ConfigMapView { object: named(document), data }
}

/// The same by name, without what is on its way out.
#[derive(Debug)]
pub(crate) struct Index<'a> {
    pub(crate) connectors: BTreeMap<ObjectRef, &'a Connector>,
    pub(crate) contracts: BTreeMap<ObjectRef, &'a ApiContract>,
    pub(crate) integrations: BTreeMap<ObjectRef, &'a Integration>,
    pub(crate) config_maps: BTreeMap<&'a ObjectRef, &'a BTreeMap<String, String>>,
    pub(crate) undecodable: BTreeMap<(Kind, &'a ObjectRef), &'a Undecodable>,
    pub(crate) history: Option<&'a BTreeMap<ObjectRef, Recorded>>,
    pub(crate) complete: bool,
    /// Objects that were given more than once; the first counts.
    pub(crate) doubled: Vec<(Kind, ObjectRef)>,
}

impl<'a> Index<'a> {
    pub(crate) fn of(world: &'a World) -> Self {
        let mut doubled = Vec::new();
        let connectors = by_name(Kind::Connector, &world.connectors, |c| &c.metadata, &mut doubled);
        let contracts = by_name(Kind::ApiContract, &world.contracts, |c| &c.metadata, &mut doubled);
        let integrations = by_name(Kind::Integration, &world.integrations, |c| &c.metadata, &mut doubled);
        Self {
            connectors,
            contracts,
            integrations,
            config_maps: world.config_maps.iter().map(|map| (&map.object, &map.data)).collect(),
            undecodable: world.undecodable.iter().map(|each| ((each.kind, &each.object), each)).collect(),
            history: world.history.as_ref(),
            complete: world.complete,
            doubled,
        }
    }

    /// Which revision of its Integration a spec is: the newest that is recorded, or the next one. An equal spec makes no new one.
    pub(crate) fn revision(&self, object: &ObjectRef, spec: &IntegrationSpec) -> RevisionUnit {
        let spec = Digest::of_serialized(spec);
        let number = self.history.map(|history| match history.get(object) {
            None => 1,
            Some(newest) if newest.spec == spec => newest.number,
            Some(newest) => newest.number + 1,
        });
        RevisionUnit { number, spec }
    }

    /// Whether a revision is recorded, or is to be.
    pub(crate) fn is_recorded(&self, object: &ObjectRef, revision: &RevisionUnit) -> bool {
        self.history.is_none_or(|history| history.get(object).is_some_and(|newest| newest.spec == revision.spec))
    }

    /// The undecodable object of this kind and name.
    pub(crate) fn unreadable(&self, kind: Kind, object: &ObjectRef) -> Option<&'a Undecodable> {
        self.undecodable.get(&(kind, object)).copied()
    }

    /// Whether an object was given more than once.
    pub(crate) fn is_doubled(&self, kind: Kind, object: &ObjectRef) -> bool {
        self.doubled.iter().any(|(k, o)| *k == kind && o == object)
    }
}

fn by_name<'a, T>(
    kind: Kind,
    objects: &'a [T],
    metadata: impl Fn(&T) -> &ObjectMeta,
    doubled: &mut Vec<(Kind, ObjectRef)>,
) -> BTreeMap<ObjectRef, &'a T> {
    let mut named: BTreeMap<ObjectRef, &'a T> = BTreeMap::new();
    for object in objects.iter().filter(|object| metadata(object).deletion_timestamp.is_none()) {
        let name = object_ref(metadata(object));
        match named.entry(name) {
            Entry::Vacant(place) => _ = place.insert(object),
            Entry::Occupied(first) => doubled.push((kind, first.key().clone())),
        }
    }
    named
}
