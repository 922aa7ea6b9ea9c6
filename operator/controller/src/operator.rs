//! The main loop: what comes from the API server is planned, handed to the runtime, and what comes back is judged and written.
//!
//! One task owns the caches, the plan and the queue of writes, so there is nothing to lock. Whatever takes long happens elsewhere: calls to
//! the API server, taking units over, compiling.

use std::sync::Arc;
use std::time::Duration;

use fairlead_api::Kind;
use fairlead_model::report::Reports;
use fairlead_model::unit::Units;
use fairlead_model::{Clock, SystemClock, Timestamp};
use fairlead_plan::{Config, Moment, Planned, Planner, RefKind, merge_last_good};
use fairlead_systems::Catalog;
use kube::Client;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, Key};
use crate::config_maps::{ConfigMaps, until};
use crate::directory::{Directory, Questions};
use crate::election::{Campaign, LeaseSettings, may_write};
use crate::events::Events;
use crate::health::Health;
use crate::judge::Judge;
use crate::metrics::Metrics;
use crate::revisions::Revisions;
use crate::runtime::Runtime;
use crate::watches::{Scope, Seen, Watches, scopes};
use crate::writer::{self, Writer};

/// How long to wait for more changes before one plan of all of them.
const GATHER: Duration = Duration::from_millis(25);
/// The loop comes round at least this often.
const TICK: Duration = Duration::from_secs(5);
/// How long the runtime may take to settle what is in flight; together with what follows less than the 25 s that a stop may take.
const SETTLE: Duration = Duration::from_secs(20);

/// What the operator runs with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The namespaces to look at; none means all of them.
    pub namespaces: Vec<String>,
    /// The lease.
    pub lease: LeaseSettings,
    /// How long is long.
    pub plan: Config,
}

/// The operator of one cluster.
pub struct Operator {
    client: Client,
    settings: Settings,
    runtime: Arc<dyn Runtime>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    directory: Directory,
    questions: Questions,
}

impl Operator {
    /// An operator that does nothing until it is run.
    #[must_use]
    pub fn new(client: Client, settings: Settings, runtime: Arc<dyn Runtime>, metrics: Arc<Metrics>, health: Arc<Health>) -> Self {
        let (directory, questions) = Directory::new();
        Self { client, settings, runtime, clock: Arc::new(SystemClock), metrics, health, directory, questions }
    }

    /// Tells what this operator knows of the resources while it runs.
    #[must_use]
    pub fn directory(&self) -> Directory {
        self.directory.clone()
    }

    /// Runs until `stop` is cancelled; then lets what is in flight settle and gives the lease back.
    pub async fn run(self, stop: CancellationToken) {
        let (campaign, leadership) =
            Campaign::new(self.client.clone(), &self.settings.lease, Arc::clone(&self.metrics), Arc::clone(&self.health));
        // Writes end before the lease is given back.
        let campaigning = CancellationToken::new();
        let campaign = tokio::spawn(campaign.run(campaigning.clone()));
        let publishing = CancellationToken::new();
        let instance = self.settings.lease.identity.clone();
        let events = Events::start(self.client.clone(), instance, Arc::clone(&self.metrics), leadership.clone(), publishing.clone());
        let applying = CancellationToken::new();
        let (apply, applier) = applier(Arc::clone(&self.runtime), Arc::clone(&self.metrics), applying.clone());

        let runtime = Arc::clone(&self.runtime);
        let health = Arc::clone(&self.health);
        let mut pass = Pass::new(self, apply, events);
        pass.run(leadership, stop).await;
        health.set_ready(false);
        health.retire("main");
        drop(pass);

        campaigning.cancel();
        applying.cancel();
        let stopping = async {
            let settled = async {
                // A swap under way is completed first: cut off, it would leave behind what it had just taken out.
                let _ = applier.await;
                runtime.stop().await;
            };
            if tokio::time::timeout(SETTLE, settled).await.is_err() {
                tracing::warn!("what is in flight has not settled in time; it is looked up at the next start");
            }
        };
        let ((), _) = tokio::join!(stopping, campaign);
        publishing.cancel();
    }
}

/// Takes units over one set after the other; the newest counts.
fn applier(runtime: Arc<dyn Runtime>, metrics: Arc<Metrics>, stop: CancellationToken) -> (watch::Sender<Arc<Units>>, JoinHandle<()>) {
    let (send, mut receive) = watch::channel(Arc::new(Units::default()));
    let task = tokio::spawn(async move {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = receive.changed() => if changed.is_err() { return },
            }
            let (units, runtime) = (Arc::clone(&receive.borrow_and_update()), Arc::clone(&runtime));
            // In a task of its own, so that a defect in there does not end this one without a word.
            if let Err(error) = tokio::spawn(async move { runtime.apply(&units).await }).await {
                metrics.panicked();
                tracing::error!(%error, "units could not be taken over; this is a defect of Fairlead");
            }
        }
    });
    (send, task)
}

/// What the loop owns.
struct Pass {
    scopes: Vec<Scope>,
    watches: Watches,
    cache: Cache,
    config_maps: ConfigMaps,
    revisions: Revisions,
    planner: Planner,
    planned: Planned,
    /// What runs: the one copy on this side, shared with whoever takes it over.
    units: Arc<Units>,
    apply: watch::Sender<Arc<Units>>,
    reports: watch::Receiver<Arc<Reports>>,
    /// How old the last report was when it came, and when that was.
    heard: Option<(Duration, Instant)>,
    judge: Judge,
    writer: Writer,
    events: Events,
    /// Something changed, and a plan is due then.
    plan_at: Option<Instant>,
    listening_since: Timestamp,
    config: Config,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    leading: Option<Instant>,
    has_planned: bool,
    questions: Questions,
}

impl Pass {
    fn new(operator: Operator, apply: watch::Sender<Arc<Units>>, events: Events) -> Self {
        let Operator { client, settings, runtime, clock, metrics, health, questions, .. } = operator;
        let scopes = scopes(&settings.namespaces);
        metrics.objective(settings.plan.lag_objective);
        Self {
            watches: Watches::new(&client, &scopes, &metrics),
            scopes,
            cache: Cache::new(),
            config_maps: ConfigMaps::new(client.clone()),
            revisions: Revisions::new(client.clone()),
            planner: Planner::default(),
            planned: Planned::default(),
            units: Arc::default(),
            apply,
            reports: runtime.reports(),
            heard: None,
            judge: Judge::default(),
            writer: Writer::new(client, Arc::clone(&clock), Arc::clone(&metrics), settings.plan.clone()),
            events,
            plan_at: None,
            listening_since: clock.now(),
            config: settings.plan,
            clock,
            metrics,
            health,
            leading: None,
            has_planned: false,
            questions,
        }
    }

    async fn run(&mut self, mut leadership: watch::Receiver<Option<Instant>>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut reporting, mut electing) = (true, true);
        loop {
            self.health.beat("main");
            let plan_at = self.plan_at.filter(|_| self.may_plan());
            let check_at = self.check_at();
            let write_at = self.writer.next_due();
            let record_at = self.revisions.next_due().filter(|_| may_write(self.leading, writer::DEADLINE));
            tokio::select! {
                () = stop.cancelled() => break,
                seen = self.watches.next() => self.saw(seen),
                changed = self.revisions.ended() => if changed { self.plan_soon() },
                changed = self.config_maps.next() => if changed { self.config_maps_changed() },
                changed = self.reports.changed(), if reporting => match changed {
                    Ok(()) => self.reported(),
                    Err(_) => reporting = false,
                },
                (key, written) = self.writer.ended() => self.ended(key, written),
                changed = leadership.changed(), if electing => {
                    electing = changed.is_ok();
                    let now = *leadership.borrow_and_update();
                    self.leads(now.filter(|_| electing));
                },
                Some(answer) = self.questions.recv() => {
                    // Whoever asked may be gone.
                    let _ = answer.send(self.cache.listing());
                }
                () = until(plan_at) => self.plan().await,
                () = until(check_at) => {}
                () = until(record_at) => {}
                () = until(write_at) => {
                    for key in self.writer.due() {
                        self.consider(&key);
                    }
                }
                _ = tick.tick() => {}
            }
            self.judge();
            if may_write(self.leading, writer::DEADLINE) {
                self.writer.pump(&self.cache, &self.judge);
                self.revisions.keep(&self.planned, &self.cache);
            }
        }
        self.writer.clear();
        let finish = async {
            while self.writer.is_busy() {
                let (key, written) = self.writer.ended().await;
                self.ended(key, written);
                self.writer.clear();
            }
        };
        if tokio::time::timeout(writer::DEADLINE, finish).await.is_err() {
            tracing::warn!("status writes did not end in time");
        }
    }

    fn saw(&mut self, seen: Seen) {
        match seen {
            Seen::Object(kind, scope, event) => {
                let change = self.cache.saw(kind, &scope, event);
                if change.declared {
                    let (objects, undecodable) = self.cache.count(kind);
                    self.metrics.holds(kind, objects, undecodable);
                    self.plan_soon();
                }
                if let Some(key) = change.touched {
                    self.judge.touch(key);
                }
            }
            Seen::ConfigMap(scope, event) => self.config_maps.saw(&scope, event),
            Seen::Revision(scope, event) => {
                if self.revisions.saw(&scope, event) {
                    self.plan_soon();
                }
            }
        }
        if !self.health.is_ready() && self.is_synced() {
            tracing::info!("everything is listed");
            self.health.set_ready(true);
            self.plan_soon();
        }
    }

    fn is_synced(&self) -> bool {
        self.cache.is_synced(&self.scopes) && self.config_maps.is_synced(&self.scopes) && self.revisions.is_synced(&self.scopes)
    }

    fn config_maps_changed(&mut self) {
        self.cache.set_config_maps(self.config_maps.views());
        self.plan_soon();
    }

    fn plan_soon(&mut self) {
        if self.plan_at.is_none() {
            self.plan_at = Some(Instant::now() + GATHER);
        }
    }

    /// Nothing is planned from a part of the world: what was not listed yet would look deleted, a ConfigMap that was not read yet missing.
    fn may_plan(&self) -> bool {
        self.is_synced() && !self.config_maps.is_pending()
    }

    async fn plan(&mut self) {
        self.plan_at = None;
        let started = Instant::now();
        self.cache.set_history(self.revisions.newest(&self.cache));
        let (world, mut planner, config, now) =
            (self.cache.world(), std::mem::take(&mut self.planner), self.config.clone(), self.clock.now());
        let planning = tokio::task::spawn_blocking(move || {
            let planned = planner.plan(&world, Catalog::builtin(), &config, now);
            (planner, planned)
        });
        let planned = match planning.await {
            Ok((planner, planned)) => {
                self.planner = planner;
                planned
            }
            Err(error) => {
                // What ran before goes on; the next change is planned from scratch.
                self.metrics.panicked();
                tracing::error!(%error, "planning failed; this is a defect of Fairlead");
                return;
            }
        };
        self.config_maps.name(planned.references.named(RefKind::ConfigMap));
        if self.config_maps.is_pending() {
            // Something new is named: planned again as soon as it was read.
            self.plan_soon();
            return;
        }
        self.metrics.planned(started.elapsed(), now.0 / 1000);
        let before = std::mem::replace(&mut self.planned, planned);
        self.judge.planned(&before, &self.planned);
        self.revisions.planned(&self.planned);
        for kind in Kind::ALL {
            let (objects, undecodable) = self.cache.count(kind);
            self.metrics.holds(kind, objects, undecodable);
        }
        let units = merge_last_good(&self.units, &self.planned);
        // They stand in what was merged; a second copy of a thousand would only lie about.
        self.planned.units = Units::default();
        if units != *self.units || !self.has_planned {
            self.units = Arc::new(units);
            self.apply.send_replace(Arc::clone(&self.units));
        }
        self.has_planned = true;
        tracing::debug!(took = ?started.elapsed(), "planned");
    }

    fn reported(&mut self) {
        let reports = Arc::clone(&self.reports.borrow_and_update());
        self.metrics.reported(reports.at.0 / 1000);
        self.heard = (reports.at > Timestamp(0)).then(|| (self.clock.now().since(reports.at), Instant::now()));
        // What a runtime has forgotten need not be told to it again.
        for key in &reports.forgotten {
            if self.units.removed.contains_key(key) {
                Arc::make_mut(&mut self.units).removed.remove(key);
                tracing::info!(integration = %key, "its removal is complete");
            }
        }
        self.judge.reported(reports, &self.planned, &self.config);
    }

    /// When the passing of time alone asks for a judgement or a plan.
    fn check_at(&self) -> Option<Instant> {
        let now = self.clock.now();
        let judged = self.judge.next_check();
        let planned = self.planned.next_check.filter(|_| self.plan_at.is_none());
        // A moment's pause, so that a time which has passed already never makes the loop spin.
        [judged, planned].into_iter().flatten().min().map(|at| Instant::now() + at.since(now).max(GATHER))
    }

    fn judge(&mut self) {
        if !self.has_planned {
            return;
        }
        if self.planned.next_check.is_some_and(|at| at <= self.clock.now()) {
            self.plan_soon();
        }
        let started = Instant::now();
        let moment = Moment { now: self.clock.now(), listening_since: self.listening_since };
        if let Some((age, came)) = self.heard {
            self.judge.heard(moment.now.before(age + came.elapsed()));
        }
        let judged = self.judge.judge(&self.planned, &self.cache, moment, &self.config);
        let Some(each) = u32::try_from(judged.len()).ok().and_then(|count| started.elapsed().checked_div(count)) else { return };
        for key in judged {
            self.metrics.judged(key.0, each);
            self.consider(&key);
        }
    }

    fn consider(&mut self, key: &Key) {
        if self.leading.is_some() {
            self.writer.consider(key, &self.cache, &self.judge);
        }
    }

    fn ended(&mut self, key: Option<Key>, written: Option<writer::Written>) {
        if let Some(written) = written {
            self.cache.wrote(&written.key, &written.uid, &written.resource_version, written.after.clone());
            self.events.tell(&written.key, &written.uid, written.before.as_ref(), &written.after);
            self.judge.touch(written.key);
        }
        if let Some(key) = key {
            self.consider(&key);
        }
    }

    /// Leadership came, went or was prolonged. Whoever begins to lead looks at everything.
    fn leads(&mut self, now: Option<Instant>) {
        let before = std::mem::replace(&mut self.leading, now);
        match (before, now) {
            (None, Some(_)) => {
                let keys: Vec<Key> = self.cache.keys().cloned().collect();
                keys.iter().for_each(|key| self.consider(key));
            }
            (Some(_), None) => self.writer.clear(),
            _ => {}
        }
    }
}
