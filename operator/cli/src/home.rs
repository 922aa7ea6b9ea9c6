//! Fairlead without a cluster: the same loop as the operator's, with a folder of manifests in place of the API server.
//!
//! Files are looked at every second; a change is planned, applied, and shows in the status as it would in a cluster. The status of each
//! resource lives in memory and is told by [`Home::listing`] in the shape of `kubectl get -o json`.

use crate::files::{self, FileSecrets, Loaded, Problem};
use crate::gateway::{self, GatewayArgs, Runtimes};
use fairlead_api::{API_VERSION, Kind};
use fairlead_controller::Runtime as _;
use fairlead_engine::way::Witness;
use fairlead_engine::{Config as EngineConfig, Engine};
use fairlead_fleet as fleet;
use fairlead_model::report::{ParticipantState, Reports};
use fairlead_model::unit::Units;
use fairlead_model::{Clock, ObjectRef, SystemClock, Timestamp};
use fairlead_plan::{Config, Finding, Moment, Planned, Planner, Statuses, Undecodable, World, merge_last_good, object_ref, statuses};
use fairlead_store::Store;
use fairlead_systems::{Catalog, EndpointPolicy};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// A running folder.
pub(crate) struct Home {
    folder: Vec<PathBuf>,
    engine: Arc<Engine>,
    runtime: Runtimes,
    secrets: Arc<FileSecrets>,
    planner: Planner,
    config: Config,
    listening_since: Timestamp,
    world: World,
    problems: Vec<Problem>,
    fingerprint: Option<u64>,
    glimpsed: Option<u64>,
    generations: BTreeMap<(Kind, ObjectRef), (String, i64)>,
    planned: Planned,
    units: Units,
    statuses: Statuses,
}

impl Home {
    /// Starts an engine on `store`, and a gateway if one is asked for, for the manifests in `folder`. Where there is a planner, its workers run them.
    /// Metrics go to `registry`.
    ///
    /// # Errors
    /// The gateway cannot start.
    pub(crate) async fn new(
        folder: Vec<PathBuf>,
        store: Arc<dyn Store>,
        endpoints: EndpointPolicy,
        gateway: &GatewayArgs,
        planner: Option<Arc<fleet::Planner>>,
        registry: &mut Registry,
        witness: Option<Arc<dyn Witness>>,
    ) -> anyhow::Result<Self> {
        let secrets = Arc::new(FileSecrets::default());
        let metrics = Arc::new(fairlead_engine::metrics::Metrics::default());
        metrics.register(registry);
        let config = EngineConfig::new(Arc::clone(&store), Arc::clone(&secrets) as _, endpoints.clone());
        let engine = Arc::new(Engine::start(EngineConfig { metrics, witness, works: planner.is_none(), ..config }));
        let serving = gateway::start(gateway, &engine, &store, &endpoints, registry).await?;
        let config = Config { gateway: serving.as_ref().map(|serving| serving.url.clone()), ..Config::default() };
        Ok(Self {
            engine: Arc::clone(&engine),
            folder,
            runtime: Runtimes::new(engine, planner, serving),
            secrets,
            planner: Planner::default(),
            config,
            listening_since: SystemClock.now(),
            world: World::default(),
            problems: Vec::new(),
            fingerprint: None,
            glimpsed: None,
            generations: BTreeMap::new(),
            planned: Planned::default(),
            units: Units::default(),
            statuses: Statuses::default(),
        })
    }

    /// The engine, for the admin address.
    #[must_use]
    pub(crate) fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine)
    }

    /// Looks at the files, takes over what changed, and judges the status anew. Returns true when the files had changed.
    ///
    /// # Errors
    /// The folder is gone.
    pub(crate) async fn tick(&mut self) -> std::io::Result<bool> {
        let files = files::find(&self.folder)?;
        let fingerprint = fingerprint(&files);
        // A file that is just being written looks empty or is gone for a moment: a change counts when it has been there for two looks.
        let rests = self.fingerprint.is_none() || self.glimpsed == Some(fingerprint);
        self.glimpsed = Some(fingerprint);
        let changed = rests && self.fingerprint != Some(fingerprint);
        if changed {
            self.fingerprint = Some(fingerprint);
            self.take_over(files::load(&files, true)).await;
        }
        self.judge();
        Ok(changed)
    }

    async fn take_over(&mut self, loaded: Loaded) {
        let mut world = loaded.world;
        self.count_generations(&mut world);
        self.secrets.replace(loaded.secrets);
        self.problems = loaded.problems;
        self.planned = self.planner.plan(&world, Catalog::builtin(), &self.config, SystemClock.now());
        self.units = merge_last_good(&self.units, &self.planned);
        self.world = world;
        // What was said before of an object that is still there stays its status until it is judged anew.
        self.show();
        self.runtime.apply(&self.units).await;
    }

    /// Files have no generation; an edit of a spec makes the next one, as the API server would.
    fn count_generations(&mut self, world: &mut World) {
        let mut count = |kind: Kind, metadata: &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta, spec: Value| {
            let text = spec.to_string();
            let entry = self.generations.entry((kind, object_ref(metadata))).or_insert_with(|| (text.clone(), 1));
            if entry.0 != text {
                *entry = (text, entry.1 + 1);
            }
            metadata.generation = Some(entry.1);
        };
        let value = |spec: Result<Value, serde_json::Error>| spec.unwrap_or(Value::Null);
        world.connectors.iter_mut().for_each(|o| count(Kind::Connector, &mut o.metadata, value(serde_json::to_value(&o.spec))));
        world.contracts.iter_mut().for_each(|o| count(Kind::ApiContract, &mut o.metadata, value(serde_json::to_value(&o.spec))));
        world.integrations.iter_mut().for_each(|o| count(Kind::Integration, &mut o.metadata, value(serde_json::to_value(&o.spec))));
    }

    fn judge(&mut self) {
        let reports = self.reports();
        let moment = Moment { now: SystemClock.now(), listening_since: self.listening_since };
        // The previous statuses stand in the world's resources, as they do in a cluster.
        let heard = (reports.at > Timestamp(0)).then_some(&*reports);
        self.statuses = statuses(&self.world, &self.planned, heard, moment, &self.config);
        self.show();
    }

    /// Puts the statuses on their objects, as the API server would.
    fn show(&mut self) {
        for object in &mut self.world.connectors {
            object.status = self.statuses.connectors.get(&object_ref(&object.metadata)).cloned();
        }
        for object in &mut self.world.contracts {
            object.status = self.statuses.contracts.get(&object_ref(&object.metadata)).cloned();
        }
        for object in &mut self.world.integrations {
            object.status = self.statuses.integrations.get(&object_ref(&object.metadata)).cloned();
        }
    }

    /// The runtime's latest reports.
    #[must_use]
    pub(crate) fn reports(&self) -> Arc<Reports> {
        self.runtime.reports().borrow().clone()
    }

    /// Its reports as they come.
    #[must_use]
    pub(crate) fn reporting(&self) -> watch::Receiver<Arc<Reports>> {
        self.runtime.reports()
    }

    /// What is wrong with the manifests, for people.
    #[must_use]
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        for verdict in self.planned.verdicts() {
            lines.extend(verdict.findings.iter().map(|finding: &Finding| format!("{} {}: {finding}", verdict.kind, verdict.object)));
        }
        lines
    }

    /// Logs what is wrong with the manifests.
    pub(crate) fn tell_faults(&self) {
        for finding in self.faults() {
            tracing::warn!(%finding, "something is wrong with the manifests");
        }
    }

    /// What is wrong with the manifests, and which resources are not Ready.
    #[must_use]
    pub(crate) fn findings(&self) -> Vec<String> {
        let mut lines = self.faults();
        lines.extend(self.not_ready());
        lines
    }

    /// Resources that are not Ready, with their reason.
    #[must_use]
    pub(crate) fn not_ready(&self) -> Vec<String> {
        let listing = self.listing();
        let Some(items) = listing["items"].as_array() else { return Vec::new() };
        items
            .iter()
            .filter_map(|item| {
                let ready = condition(item, "Ready");
                if ready.is_some_and(|ready| ready["status"] == "True") {
                    return None;
                }
                let name = format!("{} {}/{}", text(item, "/kind"), text(item, "/metadata/namespace"), text(item, "/metadata/name"));
                Some(match ready {
                    Some(ready) => format!("{name} is not Ready: {} ({})", text(ready, "/message"), text(ready, "/reason")),
                    None => format!("{name} has no status yet"),
                })
            })
            .collect()
    }

    /// Every resource with its status, as `kubectl get -o json` would print it.
    #[must_use]
    pub(crate) fn listing(&self) -> Value {
        let mut items: Vec<Value> = Vec::new();
        items.extend(self.world.contracts.iter().filter_map(|object| serde_json::to_value(object).ok()));
        items.extend(self.world.connectors.iter().filter_map(|object| serde_json::to_value(object).ok()));
        items.extend(self.world.integrations.iter().filter_map(|object| serde_json::to_value(object).ok()));
        items.extend(self.world.undecodable.iter().map(|each| self.unread(each)));
        for item in &mut items {
            if item.pointer("/metadata/namespace").is_none() {
                item["metadata"]["namespace"] = json!("default");
            }
        }
        json!({"apiVersion": "v1", "kind": "List", "items": items})
    }

    /// An object that cannot be read, as far as it is known, with its status.
    fn unread(&self, each: &Undecodable) -> Value {
        let status = match each.kind {
            Kind::ApiContract => serde_json::to_value(self.statuses.contracts.get(&each.object)),
            Kind::Connector => serde_json::to_value(self.statuses.connectors.get(&each.object)),
            Kind::Integration => serde_json::to_value(self.statuses.integrations.get(&each.object)),
        };
        json!({
            "apiVersion": API_VERSION,
            "kind": each.kind.name(),
            "metadata": {"name": each.object.name, "namespace": each.object.namespace, "generation": each.generation},
            "status": status.unwrap_or_default(),
        })
    }

    /// Whether anything still moves, and if not, whether all is well.
    #[must_use]
    pub(crate) fn standing(&self) -> Standing {
        let reports = self.reports();
        let resting = self.units.integrations.iter().all(|(key, unit)| {
            let Some(report) = reports.integrations.get(key) else { return false };
            if report.digest != unit.digest && report.rejected.is_none() {
                return false;
            }
            use fairlead_model::report::Phase;
            match report.phase {
                Phase::Paused | Phase::Guarded | Phase::Previewed => true,
                Phase::Backfill => report.participants.iter().any(|p| p.state == ParticipantState::Paused),
                Phase::Live => report.participants.iter().all(|participant| {
                    participant.state == ParticipantState::Paused
                        || (participant.pending == 0
                            && (participant.state == ParticipantState::WriteOnly || participant.last_read.is_some()))
                }),
            }
        });
        let dead_letters: u64 = reports.integrations.values().flat_map(|report| &report.participants).map(|p| p.dead_letters).sum();
        let pending: u64 = reports.integrations.values().flat_map(|report| &report.participants).map(|p| p.pending).sum();
        let well = self.problems.is_empty() && self.not_ready().is_empty() && dead_letters == 0 && pending == 0;
        let balanced = reports.integrations.values().all(|report| report.balanced);
        Standing { at: reports.at, resting: resting && (well || self.nothing_reconciles()), well: well && balanced, dead_letters, pending }
    }

    /// No resource says that waiting helps.
    fn nothing_reconciles(&self) -> bool {
        let listing = self.listing();
        listing["items"]
            .as_array()
            .is_some_and(|items| items.iter().all(|item| !condition(item, "Reconciling").is_some_and(|c| c["status"] == "True")))
    }

    /// Stops everything after what is in flight has settled.
    pub(crate) async fn stop(self) {
        self.runtime.stop().await;
    }
}

/// Where everything stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    /// When the runtime said so.
    pub at: Timestamp,
    /// Nothing moves any more by itself.
    pub resting: bool,
    /// Everything is Ready, the lanes are empty, no dead letter is open, the ledger adds up.
    pub well: bool,
    /// Open dead letters.
    pub dead_letters: u64,
    /// Keys waiting in lanes.
    pub pending: u64,
}

/// A condition of a resource in JSON.
pub(crate) fn condition<'a>(item: &'a Value, kind: &str) -> Option<&'a Value> {
    item.pointer("/status/conditions")?.as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Changes when a file does: path, size and modification time.
fn fingerprint(files: &[PathBuf]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.hash(&mut hasher);
        if let Ok(metadata) = std::fs::metadata(file) {
            metadata.len().hash(&mut hasher);
            metadata.modified().ok().hash(&mut hasher);
        }
    }
    hasher.finish()
}
