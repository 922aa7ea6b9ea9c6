//! One run: a world, its processes and their fates, people at work; then no more faults, and the wait for the wanted state and for quiet.

use crate::chance::{Dice, Trace, VirtualClock};
use crate::people::People;
use crate::process::{Carrier, Fate, Process, Seen, Sim};
use crate::world::World;
use fairlead_engine::{Config, Engine, crash, invariants, letters};
use fairlead_model::Clock;
use fairlead_simulators::history::{self, Report, Told};
use fairlead_store::{DeadLetterFilter, SqliteStore, Stage, Store};
use fairlead_systems::{EndpointPolicy, Outside};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// After the last fault and the last edit, the wanted state is reached within this time.
const SETTLES: Duration = Duration::from_secs(15 * 60);
/// And stands for this time, without a write.
const QUIET: Duration = Duration::from_secs(2 * 60);
/// So often a person looks after it.
const LOOK: Duration = Duration::from_secs(20);

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) events: u64,
    pub(crate) hash: u64,
    pub(crate) tail: String,
    pub(crate) reached: BTreeMap<String, u64>,
    pub(crate) failures: Vec<String>,
}

/// Runs a seed. `told` prints every event.
pub(crate) fn run(seed: u64, told: bool) -> Outcome {
    play(seed, told, |clock, trace| Run::new(seed, clock, trace).all())
}

/// Plays a story in paused time.
pub(crate) fn play<F: Future<Output = ()>>(seed: u64, told: bool, story: impl FnOnce(Arc<VirtualClock>, Arc<Trace>) -> F) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let trace = runtime.block_on(async {
        let clock = VirtualClock::begin();
        let trace = Arc::new(Trace::new(Arc::clone(&clock), told));
        story(clock, Arc::clone(&trace)).await;
        trace
    });
    drop(runtime);
    crash::listen(|_| {});
    let (events, hash, tail, reached, failures) = trace.end();
    Outcome { seed, events, hash, tail, reached, failures }
}

/// A place for a process: the one that runs there, if one does.
struct Place {
    number: usize,
    started: u64,
    running: Option<(Arc<Process>, Arc<Engine>)>,
}

pub(crate) struct Run {
    seed: u64,
    pub(crate) sim: Arc<Sim>,
    pub(crate) world: Arc<World>,
    pub(crate) trace: Arc<Trace>,
    pub(crate) clock: Arc<VirtualClock>,
    pub(crate) store: Arc<dyn Store>,
    dice: Dice,
    people: Arc<Dice>,
    places: Mutex<Vec<Place>>,
    /// What a person last wrote into the resource as `resync`.
    resync: Mutex<Option<String>>,
}

impl Run {
    fn new(seed: u64, clock: Arc<VirtualClock>, trace: Arc<Trace>) -> Arc<Self> {
        let world = Arc::new(World::draw(&Dice::new(seed, "world"), &Dice::new(seed, "masters"), clock.now().0));
        let dice = Dice::new(seed, "fates");
        let rates = (*dice.pick(&[0, 20, 50, 100, 200]), *dice.pick(&[0, 0, 5, 20]));
        // Lanes are one process's, or several share them.
        let partitions = *Dice::new(seed, "lanes").pick(&[1, 1, 1, 4]);
        if partitions > 1 {
            trace.reach("lanes in partitions");
        }
        let two = dice.permille(300) || partitions > 1;
        if two {
            trace.reach("two processes");
        }
        if world.is_golden() {
            trace.reach("golden records");
        }
        trace.event(format!("seed {seed} rates {rates:?} partitions {partitions} {}", world.told()));
        Self::of(seed, world, dice, rates, (1 + usize::from(two), partitions), clock, trace)
    }

    /// So many processes in this world, and partitions of its lanes; so many requests, and commands of the store, of a thousand meet a fault.
    pub(crate) fn of(
        seed: u64,
        world: Arc<World>,
        dice: Dice,
        rates: (u64, u64),
        (processes, partitions): (usize, u32),
        clock: Arc<VirtualClock>,
        trace: Arc<Trace>,
    ) -> Arc<Self> {
        let sim = Sim::new(Arc::clone(&world), Arc::clone(&trace), Arc::clone(&clock), Dice::new(seed, "faults"), rates);
        let places = (0..processes).map(|number| Place { number, started: 0, running: None }).collect();
        Arc::new(Self {
            seed,
            sim,
            world,
            trace,
            clock,
            store: Arc::new(SqliteStore::open_in_memory().unwrap().partitioned(partitions)),
            dice,
            people: Arc::new(Dice::new(seed, "people")),
            places: Mutex::new(places),
            resync: Mutex::default(),
        })
    }

    async fn all(self: Arc<Self>) {
        let count = self.places.lock().unwrap().len();
        for place in 0..count {
            self.start(place);
        }
        let end = Instant::now() + Duration::from_secs(self.dice.of(40..=160));
        let again = Dice::new(self.seed, "again");
        let people =
            People::new(Arc::clone(&self.world), Arc::clone(&self.people), again, Arc::clone(&self.trace), Arc::clone(&self.clock));
        tokio::spawn(people.work(end));
        self.fates(end).await;
        tokio::time::sleep_until(end).await;
        self.heal().await;
        self.settle().await;
    }

    // === Processes ===

    fn units(&self) -> fairlead_model::unit::Units {
        self.world.units(self.resync.lock().unwrap().as_deref())
    }

    pub(crate) fn start(self: &Arc<Self>, place: usize) {
        let name = {
            let mut places = self.places.lock().unwrap();
            places[place].started += 1;
            format!("p{}.{}", places[place].number, places[place].started)
        };
        self.trace.event(format!("{name} starts"));
        let process = Process::new(Arc::clone(&self.sim), name.clone());
        let store = Arc::new(Seen { process: Arc::clone(&process), store: Arc::clone(&self.store) });
        let endpoints = EndpointPolicy { allow: vec!["10.0.0.0/8".parse().unwrap()] };
        let outside = Outside {
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            random: Arc::new(Dice::new(self.seed, &name)),
            transport: Some(Arc::new(Carrier(Arc::clone(&process)))),
            ..Outside::new(Arc::clone(&process) as _, endpoints)
        };
        let config = Config { outside, metrics: Arc::default(), holder: name, witness: None, works: true, store };
        let engine = Arc::new(Engine::start(config));
        self.places.lock().unwrap()[place].running = Some((Arc::clone(&process), Arc::clone(&engine)));
        // A process that dies while it begins never comes to the end of it.
        tokio::spawn({
            let (engine, units) = (Arc::clone(&engine), self.units());
            async move { engine.apply(&units).await }
        });
        tokio::spawn(Arc::clone(self).look_after(place, process, engine));
    }

    /// Takes note of the guard, and starts a process anew that has died.
    async fn look_after(self: Arc<Self>, place: usize, process: Arc<Process>, engine: Arc<Engine>) {
        let again = Duration::from_millis(self.dice.of(500..=20_000));
        let mut reports = engine.reports();
        loop {
            let guarded = engine.reports().borrow().integrations.values().any(|report| report.guard.is_some());
            process.guarded.store(guarded, Ordering::SeqCst);
            if process.is_dead() {
                break;
            }
            let stopped = self.places.lock().unwrap()[place].running.as_ref().is_none_or(|(running, _)| !Arc::ptr_eq(running, &process));
            if stopped || reports.changed().await.is_err() {
                return;
            }
        }
        self.places.lock().unwrap()[place].running = None;
        drop(engine);
        tokio::time::sleep(again).await;
        self.start(place);
    }

    fn running(&self) -> Vec<(usize, Arc<Process>, Arc<Engine>)> {
        let places = self.places.lock().unwrap();
        let running = places.iter().enumerate();
        running
            .filter_map(|(at, place)| place.running.as_ref().map(|(process, engine)| (at, Arc::clone(process), Arc::clone(engine))))
            .collect()
    }

    /// A person has changed the resource.
    fn apply(&self) {
        for (_, _, engine) in self.running() {
            let units = self.units();
            tokio::spawn(async move { engine.apply(&units).await });
        }
    }

    // === Fates ===

    async fn fates(self: &Arc<Self>, end: Instant) {
        loop {
            let pause = Duration::from_millis(self.dice.of(3000..=30_000));
            if Instant::now() + pause >= end {
                return;
            }
            tokio::time::sleep(pause).await;
            let mut fate = self.sim.fate.lock().unwrap();
            match self.dice.of(0..=12) {
                0..=4 => *fate = Some(Fate::At(self.dice.pick::<&str>(&crash::POINTS), self.dice.of(1..=3))),
                5 => *fate = Some(Fate::Request(self.dice.of(1..=20))),
                6 => *fate = Some(Fate::Command(self.dice.of(1..=40), false)),
                7 => *fate = Some(Fate::Command(self.dice.of(1..=40), true)),
                8 => self.pause(),
                9 => self.restart(),
                10 => {
                    self.trace.reach("resync");
                    *self.resync.lock().unwrap() = Some(self.dice.of(0..=u64::MAX).to_string());
                    self.apply();
                }
                11 => {
                    self.trace.reach("tokens expire");
                    let place = self.dice.of(0..=self.world.sides.len() as u64 - 1);
                    self.world.systems[usize::try_from(place).unwrap()].lock().unwrap().expire_tokens();
                }
                _ => {
                    let place = usize::try_from(self.dice.of(0..=self.world.sides.len() as u64 - 1)).unwrap();
                    let until = Instant::now() + Duration::from_secs(self.dice.of(5..=60));
                    self.sim.away.lock().unwrap()[place] = Some(until);
                }
            }
        }
    }

    fn pause(self: &Arc<Self>) {
        let Some((_, process, _)) = self.running().into_iter().next() else { return };
        let pause = Duration::from_secs(self.dice.of(16..=50));
        self.trace.reach("process paused past its leases");
        process.pause();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            process.resume();
        });
    }

    fn restart(self: &Arc<Self>) {
        let Some((place, _, engine)) = self.running().into_iter().next() else { return };
        self.trace.reach("process stopped and started");
        let run = Arc::clone(self);
        tokio::spawn(async move {
            engine.stop().await;
            let still = run.running().iter().any(|(at, _, running)| *at == place && Arc::ptr_eq(running, &engine));
            if still {
                run.places.lock().unwrap()[place].running = None;
                run.start(place);
            }
        });
    }

    /// No more faults from now on.
    async fn heal(self: &Arc<Self>) {
        self.trace.event("no more faults");
        self.sim.faults.store(false, Ordering::SeqCst);
        self.sim.fate.lock().unwrap().take();
        self.sim.away.lock().unwrap().fill(None);
        for (_, process, _) in self.running() {
            process.resume();
        }
    }

    // === The end ===

    /// Waits for the wanted state and for quiet.
    pub(crate) async fn settle(self: &Arc<Self>) {
        let healed = Instant::now();
        let mut writes = self.sim.writes.load(Ordering::SeqCst);
        let mut quiet_since = Instant::now();
        while quiet_since.elapsed() < QUIET {
            tokio::time::sleep(LOOK).await;
            let (unsettled, wrong) = self.unsettled().await;
            if self.trace.failed() {
                return;
            }
            let now = self.sim.writes.load(Ordering::SeqCst);
            if unsettled.is_empty() && now == writes {
                continue;
            }
            if healed.elapsed() > SETTLES {
                let loud = (now > writes).then(|| format!("it is not quiet: {} writes within {LOOK:?}", now - writes));
                self.trace.fail(format!("it does not settle:\n{}", loud.into_iter().chain(unsettled).collect::<Vec<_>>().join("\n")));
                return;
            }
            // What is pending comes to its end by itself; a person acts where something is wrong, or where it comes to none (behind a dead letter, say).
            if wrong || healed.elapsed() > SETTLES / 3 {
                self.replay().await;
            }
            (writes, quiet_since) = (now, Instant::now());
        }
        let records = self.store.records(&self.world.realm(), None, 10_000).await.unwrap();
        invariants::identities(&records).into_iter().for_each(|violation| self.trace.fail(violation.to_string()));
    }

    /// What is not yet as it is to be, and whether something of it is wrong, and not pending alone.
    async fn unsettled(&self) -> (Vec<String>, bool) {
        let mut found = Vec::new();
        let snapshot = self.store.snapshot(&self.world.realm(), self.clock.now()).await.unwrap();
        for violation in invariants::ledger(&snapshot) {
            self.trace.fail(violation.to_string());
        }
        for place in 0..self.world.sides.len() {
            let name = self.world.participant(place);
            let pending = snapshot.pending.get(&name).map_or(0, |pending| pending.keys);
            let waiting = self.waiting(&name).await;
            if pending > waiting {
                found.push(format!("{pending} keys in the lane of {name}, {waiting} of them wait for ever"));
            }
        }
        let pending = found.len();
        let report = self.judge();
        for (fault, told) in report.faults() {
            // Idle writes are work for nothing, not a wrong state.
            if fault != "idle" && told.count > 0 {
                found.push(format!("{fault}: {}\n  {}", told.count, told.examples.join("\n  ")));
            }
        }
        for (_, process, _) in self.running() {
            if process.guarded.load(Ordering::SeqCst) {
                found.push(format!("the guard holds in {}", process.name));
            }
        }
        let wrong = found.len() > pending;
        if !found.is_empty() {
            for letter in self
                .store
                .dead_letters(&DeadLetterFilter { realm: Some(self.world.realm()), max: 50, ..DeadLetterFilter::default() })
                .await
                .unwrap()
            {
                let letter = letter.letter;
                let id = letter.record.map(|id| id.to_string()).or(letter.external_id.map(|id| id.0)).unwrap_or_default();
                found.push(format!("letter: {} {id} {} {}", letter.participant, letter.reason, letter.message));
            }
        }
        (found, wrong)
    }

    /// Keys of a lane whose records wait for one that is never made there, since it is a dead letter itself.
    async fn waiting(&self, target: &str) -> u64 {
        let realm = self.world.realm();
        let ids: Vec<_> = self.store.records(&realm, None, 10_000).await.unwrap().into_iter().map(|known| known.record.id).collect();
        let waits = self.store.waits_for(&realm, target, &ids).await.unwrap();
        waits.into_iter().flatten().count() as u64
    }

    fn judge(&self) -> Report {
        let told: Vec<Told> = (0..self.world.systems.len())
            .map(|place| {
                let system = self.world.systems[place].lock().unwrap();
                let owned = self.world.owned(place);
                let (before, log) = (system.known_before(self.world.before(place), &owned), system.known_log(&owned));
                Told { before, log, after: system.records() }
            })
            .collect();
        history::check(&self.world.agreement(), &told.iter().collect::<Vec<_>>())
    }

    /// A person tries dead letters again.
    async fn replay(&self) {
        let filter = DeadLetterFilter { realm: Some(self.world.realm()), max: 1000, ..DeadLetterFilter::default() };
        for letter in self.store.dead_letters(&filter).await.unwrap() {
            if matches!(letter.letter.stage, Stage::Outbound | Stage::Delivery) || letter.letter.external_id.is_some() {
                self.trace.event(format!("replay of {} {}: {}", letter.letter.participant, letter.letter.reason, letter.letter.message));
                letters::replay(self.store.as_ref(), &letter, "mia", self.clock.now()).await.unwrap();
            }
        }
    }
}
