//! The engine: sync workers that treat a record as Kubernetes treats an object.
//!
//! The canonical record is the wanted state, what a system was last seen to hold is the observed state, and a lane is a work queue of keys.
//! Each target is *reconciled*, record by record, until it holds what it should; echoes, retries, crashes, replays, remapping and backfill
//! are all the same thing: put the key in the lane again.
//!
//! | where | what |
//! |---|---|
//! | [`decide`] | every decision, as pure functions |
//! | [`program`] | a compiled Integration |
//! | `source`, `lane` | the two loops of each participant: read and absorb; claim, write and settle |
//! | `integration` | one running Integration with its report |
//! | `revision` | which revision maps the records, and how another takes over; decided in [`decide::rollout`] |
//! | `lease`, `lane_lease`, `neighbours` | who may read and write, and how processes share that; decided in [`decide::share`] |
//! | `connector`, `usage` | live connectors, probed; how many requests each sent today |
//! | [`invariants`] | what must hold at every moment; for reports, metrics and tests |
//! | [`letters`], [`checkpoints`], [`backfill`] | what people do with what could not pass and with where reading stands, and have done again |
//! | [`records`], [`split`] | what is known of one record, for people; and two made of one, by their word |
//! | [`serve`] | records for callers of the API: read from the store, written to a participant at once |
//! | [`trial`] | what would become of one record, for `preview` and `test` |
//!
//! Guarantees: what `absorb` committed is delivered or stands as a dead letter; a write without an answer is looked up before it is sent
//! again; a process whose lease was taken commits nothing. Caveats: order holds per record, not across records; a vendor without an
//! idempotent write may see one unacknowledged batch twice after a crash.
//!
//! This room must not know Kubernetes: units come in, reports go out.

pub mod backfill;
pub mod checkpoints;
pub mod crash;
pub mod decide;
pub mod edits;
pub mod invariants;
pub mod letters;
pub mod masks;
pub mod metrics;
pub mod names;
pub mod program;
pub mod records;
pub mod serve;
pub mod split;
pub mod system;
pub mod trial;
pub mod way;

mod connector;
mod counts;
mod integration;
mod lane;
mod lane_lease;
mod lease;
mod look_up;
mod neighbours;
mod news;
mod reconcile;
mod retention;
mod revision;
mod shared;
mod source;
mod usage;

use connector::Connectors;
use counts::Look;
use fairlead_model::report::{IntegrationReport, Phase, Reports};
use fairlead_model::unit::{DeletionPolicy, IntegrationUnit, ObjectKey, Units};
use fairlead_model::{Clock, realm};
use fairlead_store::{Store, StoreError};
use fairlead_systems::{EndpointPolicy, Outside, SecretSource};
use integration::Running;
use metrics::Metrics;
use neighbours::Neighbours;
use program::Program;
use revision::Renewal;
use shared::Surroundings;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long somebody waits who looks at a page of a business system without a lease.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// How often reports go out.
const PUBLISH_EVERY: Duration = Duration::from_millis(250);
/// How often it is tried again to remove the state of what is gone.
const FORGET_AGAIN: Duration = Duration::from_secs(2);
/// How long to wait for more swaps before reports go out early.
const GATHER: Duration = Duration::from_millis(10);

/// What an engine runs with.
pub struct Config {
    /// Durable state.
    pub store: Arc<dyn Store>,
    /// Credentials, time, chance, and the way to business systems.
    pub outside: Outside,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// This process, for leases; unique per start.
    pub holder: String,
    /// Who listens to the steps of each record's way, if anybody does.
    pub witness: Option<Arc<dyn way::Witness>>,
    /// Whether it reads and writes. Where others do that, it only answers from the store ([`Engine::records`], [`Engine::masks`]).
    pub works: bool,
}

impl Config {
    /// With the machine's clock, chance and sockets, fresh metrics and a holder name of its own.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, secrets: Arc<dyn SecretSource>, endpoints: EndpointPolicy) -> Self {
        Self {
            store,
            outside: Outside::new(secrets, endpoints),
            metrics: Arc::default(),
            holder: format!("{}-{}", std::process::id(), uuid::Uuid::new_v4().simple()),
            witness: None,
            works: true,
        }
    }
}

/// A running engine.
pub struct Engine {
    around: Surroundings,
    running: Arc<std::sync::Mutex<BTreeMap<ObjectKey, Arc<Running>>>>,
    rejected: Arc<std::sync::Mutex<BTreeMap<ObjectKey, (fairlead_model::hash::Digest, String)>>>,
    forgetter: Arc<Forgetter>,
    reports: watch::Receiver<Arc<Reports>>,
    /// Something was swapped: reports go out at once.
    swapped: Arc<Notify>,
    /// Held while units are taken over: one hand at a time.
    swapping: Arc<Mutex<()>>,
    cancel: CancellationToken,
}

impl Engine {
    /// An engine that runs nothing yet.
    #[must_use]
    pub fn start(config: Config) -> Self {
        let (tell, looks) = news::channel(Look { at: Instant::now(), seen: None });
        tokio::spawn(counts::look_forever(Arc::clone(&config.store), Arc::clone(&config.outside.clock), tell));
        let neighbours = Neighbours::watch(&config.store, &config.outside.clock, config.holder.clone());
        let connectors = Arc::new(Connectors::new(config.outside.clone(), Arc::clone(&config.store), neighbours.clone()));
        let (renewals, renewed) = mpsc::unbounded_channel();
        let around = Surroundings {
            renewals,
            looks,
            neighbours,
            store: config.store,
            connectors,
            clock: config.outside.clock,
            random: config.outside.random,
            metrics: config.metrics,
            holder: config.holder,
            witness: config.witness,
            works: config.works,
        };
        let (publish, reports) = watch::channel(Arc::new(Reports::default()));
        let forgetter = Arc::new(Forgetter {
            store: Arc::clone(&around.store),
            clock: Arc::clone(&around.clock),
            holder: around.holder.clone(),
            removed: std::sync::Mutex::default(),
            at_work: tokio::sync::Mutex::default(),
            wake: Notify::new(),
            forgotten: std::sync::Mutex::default(),
        });
        let engine = Self {
            around,
            running: Arc::default(),
            rejected: Arc::default(),
            forgetter,
            reports,
            swapped: Arc::default(),
            swapping: Arc::default(),
            cancel: CancellationToken::new(),
        };
        let renewer = Renewer {
            running: Arc::clone(&engine.running),
            swapped: Arc::clone(&engine.swapped),
            swapping: Arc::clone(&engine.swapping),
            cancel: engine.cancel.clone(),
        };
        tokio::spawn(renewer.run(renewed));
        let publisher = Publisher {
            around: engine.around.clone(),
            running: Arc::clone(&engine.running),
            forgetter: Arc::clone(&engine.forgetter),
            rejected: Arc::clone(&engine.rejected),
        };
        if engine.around.works {
            let (store, clock) = (Arc::clone(&engine.around.store), Arc::clone(&engine.around.clock));
            tokio::spawn(retention::values(store, clock, engine.cancel.clone()));
        }
        tokio::spawn(Arc::clone(&engine.forgetter).go_forever(engine.cancel.clone()));
        let sharing = Arc::clone(&engine.around.connectors).share_forever(engine.around.holder.clone(), engine.cancel.clone());
        tokio::spawn(sharing);
        let (cancel, swapped) = (engine.cancel.clone(), Arc::clone(&engine.swapped));
        tokio::spawn(async move {
            loop {
                publish.send_replace(Arc::new(publisher.snapshot()));
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => return,
                    () = tokio::time::sleep(PUBLISH_EVERY) => {}
                    // Swaps come in flocks.
                    () = swapped.notified() => tokio::time::sleep(GATHER).await,
                }
            }
        });
        engine
    }

    /// The records of what runs, for callers of the API.
    #[must_use]
    pub fn records(&self) -> serve::Records {
        serve::Records { running: Arc::clone(&self.running), around: self.around.clone(), doors: Arc::default() }
    }

    /// Reports, renewed a few times a second.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<Arc<Reports>> {
        self.reports.clone()
    }

    /// Whose records a running Integration keeps.
    #[must_use]
    pub fn realm(&self, integration: &ObjectKey) -> Option<String> {
        shared::lock(&self.running).get(integration).map(|running| running.unit().realm())
    }

    /// Which fields of the records of a realm's participant may be shown outside the store; `None` while its Integration does not run.
    #[must_use]
    pub fn masks(&self, realm: &str, participant: &str) -> Option<masks::Masks> {
        let running = shared::lock(&self.running).get(&realm::integration(realm, participant)).cloned()?;
        running.masks(participant)
    }

    /// Makes `units` what runs: unchanged ones go on untouched, changed ones are swapped after what is in flight has settled, absent ones
    /// stop. A unit that does not compile leaves the last good one running and is named in the report.
    ///
    /// One that takes its time to settle holds up neither the others nor the reports.
    pub async fn apply(&self, units: &Units) {
        let _swapping = self.swapping.lock().await;
        *shared::lock(&self.forgetter.removed) = Removed::default();
        let running = shared::lock(&self.running).clone();
        let joins = |(key, unit): (&ObjectKey, &Arc<IntegrationUnit>)| {
            running.get(key).is_none_or(|running| running.unit().realm() != unit.realm())
        };
        if units.integrations.iter().any(joins) {
            // What is there again is not to be forgotten while it starts.
            drop(self.forgetter.at_work.lock().await);
        }
        let new = self.around.connectors.apply(units).await;
        shared::lock(&self.rejected).retain(|key, _| units.integrations.contains_key(key));
        running.values().for_each(|integration| integration.look_again(&new));
        let gone = running.iter().filter(|(key, _)| !units.integrations.contains_key(*key)).map(|(key, integration)| async move {
            integration.stop().await;
            integration.forget_counts();
            shared::lock(&self.running).remove(key);
            tracing::info!(integration = %key, "stopped");
        });
        // Integrations of one contract share it compiled, as their units share its schema; where that lies names it.
        let schema = |unit: &IntegrationUnit| Arc::as_ptr(&unit.contract.schema).addr();
        let contracts: HashMap<_, _> = running.values().map(|each| (schema(each.unit()), Arc::clone(each.contract()))).collect();
        let contracts = &std::sync::Mutex::new(contracts);
        let compile = move |unit: &Arc<IntegrationUnit>| {
            let known = shared::lock(contracts).get(&schema(unit)).cloned();
            let contract = known.map_or_else(|| Program::contract(unit), Ok)?;
            shared::lock(contracts).insert(schema(unit), Arc::clone(&contract));
            Program::with_contract(Arc::clone(unit), contract)
        };
        let mut by_realm: BTreeMap<String, Vec<Swap>> = BTreeMap::new();
        for (key, unit) in &units.integrations {
            let swap = self.swap(running.get(key), key, unit, compile);
            if let Some(swap) = swap {
                by_realm.entry(unit.realm()).or_default().push(swap);
            }
        }
        let swaps = by_realm.into_values().map(|swaps| self.take_over(swaps));
        tokio::join!(futures::future::join_all(gone), futures::future::join_all(swaps));
        let fed = units.integrations.values().map(|unit| unit.realm()).collect();
        *shared::lock(&self.forgetter.removed) = Removed { policies: units.removed.clone(), fed };
        self.forgetter.wake.notify_one();
    }

    /// What is to be done about a unit: nothing if it runs already, or cannot.
    fn swap(
        &self,
        before: Option<&Arc<Running>>,
        key: &ObjectKey,
        unit: &Arc<IntegrationUnit>,
        compile: impl FnOnce(&Arc<IntegrationUnit>) -> Result<Program, String>,
    ) -> Option<Swap> {
        shared::lock(&self.forgetter.forgotten).remove(key);
        let same = |before: &&Arc<Running>| before.unit().digest == unit.digest && before.unit().is_beside_the_same(unit);
        if let Some(before) = before.filter(same) {
            before.rejected(None);
            before.shared().wait_for_readers(unit.siblings());
            before.renumbered(&unit.revision);
            return None;
        }
        match compile(unit) {
            Err(why) => {
                tracing::error!(integration = %key, %why, "unit does not compile; the last good one goes on");
                match before {
                    Some(last_good) => last_good.rejected(Some(why)),
                    None => {
                        shared::lock(&self.rejected).insert(key.clone(), (unit.digest.clone(), why));
                    }
                }
                None
            }
            Ok(program) => {
                shared::lock(&self.rejected).remove(key);
                Some(Swap { key: key.clone(), before: before.cloned(), program })
            }
        }
    }

    /// Takes units of one realm over. Those before all end first: what one of them writes by rules of before, the others would not find.
    async fn take_over(&self, swaps: Vec<Swap>) {
        let before = swaps.iter().filter_map(|swap| swap.before.as_ref());
        futures::future::join_all(before.map(|before| before.stop())).await;
        for Swap { key, before, program } in swaps {
            tracing::info!(integration = %key, digest = %program.unit.digest, "running");
            let running = Running::start(program, self.around.clone(), before.as_deref());
            shared::lock(&self.running).insert(key, Arc::new(running));
            self.swapped.notify_one();
        }
    }

    /// Stops everything: no new work, what is in flight settles, leases are given back.
    pub async fn stop(&self) {
        let _swapping = self.swapping.lock().await;
        let running = std::mem::take(&mut *shared::lock(&self.running));
        futures::future::join_all(running.values().map(|integration| integration.stop())).await;
        self.around.connectors.apply(&Units::default()).await;
        self.cancel.cancel();
    }
}

/// Integrations whose resource is gone, and the realms that others feed.
#[derive(Default, Clone)]
struct Removed {
    policies: BTreeMap<ObjectKey, DeletionPolicy>,
    fed: BTreeSet<String>,
}

/// Removes the state of Integrations that are gone, once nobody works on it any more.
struct Forgetter {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    holder: String,
    removed: std::sync::Mutex<Removed>,
    /// Held while one of them is being forgotten, which takes its time.
    at_work: tokio::sync::Mutex<()>,
    /// There is something new to forget.
    wake: Notify,
    forgotten: std::sync::Mutex<BTreeSet<ObjectKey>>,
}

impl Forgetter {
    /// Forgets what is removed, and tries again what could not be done yet.
    async fn go_forever(self: Arc<Self>, cancel: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(FORGET_AGAIN) => {}
            }
            self.go().await;
        }
    }

    /// Forgets what can be.
    async fn go(&self) {
        let keys: Vec<ObjectKey> = shared::lock(&self.removed).policies.keys().cloned().collect();
        for key in &keys {
            let _at_work = self.at_work.lock().await;
            // It may be there again by now.
            let Removed { policies, fed } = shared::lock(&self.removed).clone();
            let Some(policy) = policies.get(key).filter(|_| !shared::lock(&self.forgotten).contains(key)) else { continue };
            if *policy == DeletionPolicy::Delete {
                match self.forget(key, &fed).await {
                    Ok(None) => {}
                    Ok(Some(lease)) => {
                        tracing::debug!(integration = %key, lease, "another process still works on it; its state is removed later");
                        continue;
                    }
                    Err(error) => {
                        tracing::warn!(integration = %key, %error, "state could not be removed yet");
                        continue;
                    }
                }
            }
            shared::lock(&self.forgotten).insert(key.clone());
        }
    }

    /// Removes the state of an Integration. Golden records outlive it while another one holds or feeds them; `fed` are the realms that are. Nothing
    /// goes while another process holds a lease on it, which is answered: that one would bring it back, as if everything were new.
    async fn forget(&self, key: &ObjectKey, fed: &BTreeSet<String>) -> Result<Option<String>, StoreError> {
        let store = &self.store;
        let prefix = realm::prefix(key);
        let mut contracts = Vec::new();
        for realm in store.realms().await?.into_iter().filter(|realm| realm::is_contract(realm)) {
            // The records of others are not looked at for one that never fed them.
            if !fed.contains(&realm) || store.note(&realm, &realm::note(&realm, key, names::PARTICIPANTS)).await?.is_some() {
                contracts.push(realm);
            }
        }
        let leases = store.leases(self.clock.now()).await?;
        let others: Vec<String> = leases.into_iter().filter(|lease| lease.holder != self.holder).map(|lease| lease.key).collect();
        let works = |realm: &str, on: &str| others.iter().find(|lease| shared::is_lease_on(lease, realm, on)).cloned();
        let busy = works(&key.0, "").or_else(|| contracts.iter().find_map(|realm| works(realm, &prefix)));
        if busy.is_some() {
            return Ok(busy);
        }
        store.forget(&key.0).await?;
        names::note_realm(store.as_ref(), key, &key.0).await?;
        for realm in contracts {
            let held = store.forget_participants(&realm, &prefix).await?;
            if !held && !fed.contains(&realm) {
                let busy = works(&realm, "");
                if busy.is_some() {
                    return Ok(busy);
                }
                store.forget(&realm).await?;
            }
        }
        Ok(None)
    }
}

/// A unit that takes the place of another, or of none.
struct Swap {
    key: ObjectKey,
    before: Option<Arc<Running>>,
    program: Program,
}

/// Takes Integrations over anew that are to run by other revisions than they do.
struct Renewer {
    running: Arc<std::sync::Mutex<BTreeMap<ObjectKey, Arc<Running>>>>,
    swapped: Arc<Notify>,
    swapping: Arc<Mutex<()>>,
    cancel: CancellationToken,
}

impl Renewer {
    async fn run(self, mut renewals: mpsc::UnboundedReceiver<Renewal>) {
        loop {
            let mut all = Vec::new();
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return,
                // One that takes its time to settle holds up none of those that come with it.
                count = renewals.recv_many(&mut all, usize::MAX) => if count == 0 { return },
            }
            let _swapping = self.swapping.lock().await;
            futures::future::join_all(all.into_iter().map(|renewal| self.renew(renewal))).await;
        }
    }

    /// Unless another unit has come meanwhile.
    async fn renew(&self, Renewal { of, arrangement }: Renewal) {
        let Some(shared) = of.upgrade() else { return };
        let running = shared::lock(&self.running).get(&shared.integration).cloned();
        let Some(before) = running.filter(|running| Arc::ptr_eq(running.shared(), &shared)) else { return };
        before.stop().await;
        tracing::info!(integration = %shared.integration, phase = ?arrangement.trial.as_ref().map(|trial| trial.phase), "running by another arrangement");
        shared::lock(&self.running).insert(shared.integration.clone(), Arc::new(before.again(arrangement)));
        self.swapped.notify_one();
    }
}

/// Nobody is told of anything any more.
impl Drop for Engine {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Collects what runs into one snapshot.
struct Publisher {
    around: Surroundings,
    running: Arc<std::sync::Mutex<BTreeMap<ObjectKey, Arc<Running>>>>,
    forgetter: Arc<Forgetter>,
    rejected: Arc<std::sync::Mutex<BTreeMap<ObjectKey, (fairlead_model::hash::Digest, String)>>>,
}

impl Publisher {
    fn snapshot(&self) -> Reports {
        let mut integrations: BTreeMap<_, _> =
            shared::lock(&self.running).iter().map(|(key, running)| (key.clone(), running.report())).collect();
        for (key, (digest, why)) in shared::lock(&self.rejected).iter() {
            integrations.entry(key.clone()).or_insert_with(|| IntegrationReport {
                rejected: Some(why.clone()),
                ..IntegrationReport::begun(digest.clone(), Phase::Paused)
            });
        }
        let connectors = self.around.connectors.reports();
        self.around.metrics.connectors(&connectors, &self.around.connectors.loads());
        Reports {
            // Its age is what counts, and a wall clock may be stepped.
            at: self.around.clock.now().before(self.around.looks.newest().at.elapsed()),
            connectors,
            routes: BTreeMap::new(),
            integrations,
            forgotten: shared::lock(&self.forgetter.forgotten).iter().cloned().collect(),
        }
    }
}
