//! A process of the simulation: what it asks of its store and of the systems goes through here, and here it meets its faults, is paused, and
//! dies. A process that is dead never gets an answer again: for the world that is the same as if it were gone, wherever it stood.

use crate::chance::{Dice, Trace, VirtualClock};
use crate::points;
use crate::system::{Asked, FIELDS, Told, Treatment};
use crate::world::{CANONICAL, World};
use async_trait::async_trait;
use fairlead_engine::invariants::{self, Violation, Watch};
use fairlead_model::hash::ValueHash;
use fairlead_model::{Clock, ExternalId, ObjectRef, RecordId, SmolStr, Timestamp};
use fairlead_store::archive::{Import, Rows, Sink};
use fairlead_store::*;
use fairlead_systems::client::transport::{Answer, Outgoing, SendError, Transport};
use fairlead_systems::{SecretData, SecretError, SecretSource, SecretString};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

thread_local! {
    /// The process whose task is running: the last one that came back from a call.
    static RUNNING: RefCell<Option<Arc<Process>>> = const { RefCell::new(None) };
}

/// At which places a process is to die next, and after how many passes.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    /// At a crash point of the engine.
    At(&'static str, u64),
    /// Within a request.
    Request(u64),
    /// Within a command of the store, before or after its commit.
    Command(u64, bool),
}

/// What all of a world share.
pub(crate) struct Sim {
    pub(crate) world: Arc<World>,
    pub(crate) trace: Arc<Trace>,
    pub(crate) clock: Arc<VirtualClock>,
    pub(crate) watch: Mutex<Watch>,
    /// Faults of requests and of the store, drawn in the order in which these are made.
    dice: Dice,
    /// So many requests, and commands, of a thousand meet a fault.
    pub(crate) rates: (u64, u64),
    /// Faults happen.
    pub(crate) faults: AtomicBool,
    pub(crate) fate: Mutex<Option<Fate>>,
    /// Systems that are away until then.
    pub(crate) away: Mutex<Vec<Option<Instant>>>,
    requests: AtomicU64,
    /// Requests that write.
    pub(crate) writes: AtomicU64,
}

impl Sim {
    pub(crate) fn new(world: Arc<World>, trace: Arc<Trace>, clock: Arc<VirtualClock>, dice: Dice, rates: (u64, u64)) -> Arc<Self> {
        let away = Mutex::new(vec![None; world.sides.len()]);
        let sim = Arc::new(Self {
            world,
            trace,
            clock,
            watch: Mutex::default(),
            dice,
            rates,
            faults: AtomicBool::new(true),
            fate: Mutex::default(),
            away,
            requests: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        });
        let of = Arc::clone(&sim);
        fairlead_engine::crash::listen(move |point| of.passes(point));
        sim
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn broken(&self, violation: Option<Violation>) {
        if let Some(violation) = violation {
            self.trace.fail(violation.to_string());
        }
    }

    /// The engine passes one of its crash points.
    fn passes(&self, point: &'static str) {
        let dies = {
            let mut fate = self.fate.lock().unwrap();
            match fate.as_mut() {
                Some(Fate::At(at, left)) if *at == point => {
                    *left -= 1;
                    *left == 0
                }
                _ => false,
            }
        };
        if dies {
            let process = RUNNING.with_borrow(Clone::clone).unwrap();
            self.fate.lock().unwrap().take();
            process.die(&points::death(point));
        }
    }

    /// Whether a process is to die in this request or command.
    fn doomed(&self, fits: impl Fn(&Fate) -> bool) -> bool {
        let mut fate = self.fate.lock().unwrap();
        let left = match fate.as_mut() {
            Some(known) if fits(known) => match known {
                Fate::At(_, left) | Fate::Request(left) | Fate::Command(left, _) => {
                    *left -= 1;
                    *left
                }
            },
            _ => return false,
        };
        if left == 0 {
            fate.take();
        }
        left == 0
    }

    fn faulty(&self, permille: u64) -> bool {
        self.faults.load(Ordering::SeqCst) && permille > 0 && self.dice.permille(permille)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Paused,
    Dead,
}

/// A process.
pub(crate) struct Process {
    pub(crate) name: String,
    sim: Arc<Sim>,
    state: Mutex<State>,
    changed: Notify,
    /// Its report says that the guard holds.
    pub(crate) guarded: AtomicBool,
}

impl Process {
    pub(crate) fn new(sim: Arc<Sim>, name: String) -> Arc<Self> {
        Arc::new(Self { name, sim, state: Mutex::new(State::Running), changed: Notify::new(), guarded: AtomicBool::new(false) })
    }

    /// It never does anything again.
    pub(crate) fn die(&self, point: &str) {
        *self.state.lock().unwrap() = State::Dead;
        self.sim.trace.reach(point);
        self.sim.trace.event(format!("{} dies", self.name));
        self.changed.notify_waiters();
    }

    /// It stands still until [`Process::resume`].
    pub(crate) fn pause(&self) {
        let mut state = self.state.lock().unwrap();
        if *state == State::Running {
            *state = State::Paused;
            self.sim.trace.event(format!("{} stands still", self.name));
        }
    }

    /// It goes on where it stood.
    pub(crate) fn resume(&self) {
        let mut state = self.state.lock().unwrap();
        if *state == State::Paused {
            *state = State::Running;
            self.sim.trace.event(format!("{} goes on", self.name));
            self.changed.notify_waiters();
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        *self.state.lock().unwrap() == State::Dead
    }

    /// Waits until it runs; for ever, if it is dead.
    async fn runs(self: &Arc<Self>) {
        loop {
            let changed = self.changed.notified();
            if *self.state.lock().unwrap() == State::Running {
                RUNNING.set(Some(Arc::clone(self)));
                return;
            }
            changed.await;
        }
    }

    /// Does not come back if the process has died meanwhile.
    async fn came_back<T>(self: &Arc<Self>, answer: T) -> T {
        self.runs().await;
        answer
    }
}

#[async_trait]
impl SecretSource for Process {
    async fn get(&self, _: &ObjectRef) -> Result<SecretData, SecretError> {
        let values = ["clientId", "clientSecret"].map(|key| (key.to_owned(), SecretString::new("made-up")));
        let hosts = (0..4).map(crate::world::host).collect();
        Ok(SecretData { values: BTreeMap::from(values), allowed_hosts: hosts, version: "1".into() })
    }
}

// === Requests ===

/// What carries the requests of a process.
pub(crate) struct Carrier(pub(crate) Arc<Process>);

/// What happens to a request on its way.
struct Way {
    fault: Option<&'static str>,
    there: Duration,
    back: Duration,
}

#[async_trait]
impl Transport for Carrier {
    async fn send(&self, outgoing: Outgoing, deadline: Instant) -> Result<Answer, SendError> {
        let (process, sim) = (&self.0, &self.0.sim);
        let (place, asked) = self.asked(&outgoing);
        let client = format!("{}/{}", process.name, sim.world.sides[place].style.name);
        let what = format!("#{} {} {}", asked.number, asked.method, asked.path);
        // By what the client was told when it let the request go: an answer that is received in the moment in which a process goes on again comes
        // too late for what has passed the gate.
        let too_early = sim.watch.lock().unwrap().sends(&client, &what, sim.now());
        process.runs().await;
        if deadline <= Instant::now() {
            return Err(SendError::NotSent("its time was over before it was sent".into()));
        }
        sim.broken(too_early);
        if asked.writes() {
            let watch = sim.watch.lock().unwrap();
            sim.writes.fetch_add(1, Ordering::SeqCst);
            sim.broken(watch.writes(&client, &what, process.guarded.load(Ordering::SeqCst)));
        }
        let query: Vec<String> = asked.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        sim.trace.event(format!("{client} {what} {} {}", query.join("&"), asked.body));
        let away = sim.away.lock().unwrap()[place].is_some_and(|until| until > Instant::now());
        if away {
            sim.trace.reach("system away");
            return Err(SendError::NotSent("the system is away".into()));
        }
        let way = self.draw(&asked, place);
        if let Some(fault) = way.fault {
            sim.trace.reach(fault);
        }
        if way.fault == Some("request not sent") {
            return Err(SendError::NotSent("as drawn".into()));
        }
        // The system goes on although the process may be gone.
        let (tell, told) = tokio::sync::oneshot::channel();
        let system = {
            let (sim, asked, fault) = (Arc::clone(sim), asked.clone(), way.fault);
            async move {
                tokio::time::sleep(way.there).await;
                let told = meet(&sim, place, &asked, fault);
                tokio::time::sleep(way.back).await;
                let _ = tell.send(told);
            }
        };
        tokio::spawn(system);
        if sim.doomed(|fate| matches!(fate, Fate::Request(_))) {
            process.die("process dies within a request");
        }
        let told = tokio::time::timeout_at(deadline, told).await;
        process.runs().await;
        let told = match told {
            Err(_) => Err(SendError::Cut("no whole answer came before the deadline".into())),
            Ok(Ok(Some(told))) => Ok(told),
            Ok(_) => Err(SendError::Cut("as drawn".into())),
        };
        match told {
            Err(error) => {
                sim.trace.event(format!("{client} #{} has no answer: {error:?}", asked.number));
                Err(error)
            }
            Ok(told) => {
                sim.trace.event(format!("{client} #{} is answered {} {}", asked.number, told.status, told.body));
                if told.status == 401 {
                    sim.trace.reach("token refused");
                }
                self.learn_wait(&client, &told);
                let mut headers = http::HeaderMap::new();
                for (name, value) in told.headers {
                    headers.insert(name, value.parse().unwrap());
                }
                Ok(Answer { status: told.status, headers, body: told.body.into_bytes() })
            }
        }
    }
}

impl Carrier {
    fn asked(&self, outgoing: &Outgoing) -> (usize, Asked) {
        let host = outgoing.url.host_str().unwrap();
        let place = (0..4).find(|place| crate::world::host(*place) == host).unwrap();
        let decoded = |text: &str| url::form_urlencoded::parse(text.as_bytes()).into_owned().collect::<BTreeMap<_, _>>();
        let asked = Asked {
            method: outgoing.method.to_string(),
            path: outgoing.url.path().to_owned(),
            query: outgoing.url.query().map(decoded).unwrap_or_default(),
            token: outgoing.headers.get("authorization").map(|token| token.to_str().unwrap().to_owned()),
            body: outgoing.body.as_ref().map(|body| String::from_utf8(body.to_vec()).unwrap()).unwrap_or_default(),
            number: self.0.sim.requests.fetch_add(1, Ordering::SeqCst) + 1,
        };
        (place, asked)
    }

    fn draw(&self, asked: &Asked, place: usize) -> Way {
        let sim = &self.0.sim;
        let millis = |least, most| Duration::from_millis(sim.dice.of(least..=most));
        let (mut there, mut back) = (millis(1, 80), millis(1, 80));
        if !sim.faulty(sim.rates.0) {
            return Way { fault: None, there, back };
        }
        let style = &sim.world.sides[place].style;
        let batched = asked.writes() && (asked.path == "/batch" || asked.path.starts_with("/composite"));
        let fits = |point: &&&str| match **point {
            "answer some items refused" => batched,
            "answer the page before" => asked.goes_on(),
            "answer from an older state" => !asked.writes() && style.stale_for > 0,
            _ => true,
        };
        let fitting: Vec<&'static str> = points::REQUEST.iter().filter(fits).copied().collect();
        let fault = *sim.dice.pick(&fitting);
        match fault {
            "request answered too late" => (there, back) = (millis(1, 8000), Duration::from_secs(30)),
            "request slow to arrive" => there = millis(500, 12_000),
            "answer slow" => back = millis(500, 12_000),
            _ => {}
        }
        Way { fault: Some(fault), there, back }
    }

    fn learn_wait(&self, client: &str, told: &Told) {
        let header = told.headers.iter().find(|(name, _)| *name == "retry-after").map(|(_, value)| value);
        let sim = &self.0.sim;
        let now = sim.now();
        let until = header.and_then(|value| match value.parse::<u64>() {
            Ok(seconds) => Some(now.plus(Duration::from_secs(seconds))),
            Err(_) => chrono::DateTime::parse_from_rfc2822(value).ok().map(|date| Timestamp(date.timestamp_millis())),
        });
        if let Some(until) = until.filter(|_| told.status == 429) {
            sim.watch.lock().unwrap().told_to_wait(client, until);
        }
    }
}

/// What the system makes of a request that reached it; `None` is a cut connection.
fn meet(sim: &Sim, place: usize, asked: &Asked, fault: Option<&'static str>) -> Option<Told> {
    let fault = fault.unwrap_or_default();
    let refused = |status, headers: Vec<(&'static str, String)>, body: &str| Some(Told { status, headers, body: body.to_owned() });
    let mut system = sim.world.systems[place].lock().unwrap();
    let now = sim.now().0;
    match fault {
        "request cut before its effect" => return None,
        "answer 500 before the effect" => return refused(500, Vec::new(), "{}"),
        "answer 503" => return refused(503, Vec::new(), "{}"),
        "answer 429 with seconds" => return refused(429, vec![("retry-after", sim.dice.of(1..=15).to_string())], "{}"),
        "answer 429 with a date" => {
            let at = chrono::DateTime::from_timestamp_millis(now + i64::try_from(sim.dice.of(2..=15)).unwrap() * 1000).unwrap();
            return refused(429, vec![("retry-after", at.format("%a, %d %b %Y %H:%M:%S GMT").to_string())], "{}");
        }
        "answer 429 bare" => return refused(429, Vec::new(), "{}"),
        "answer maintenance page" => return refused(200, vec![("content-type", "text/html".into())], "<html>back soon</html>"),
        _ => {}
    }
    let lost = matches!(
        fault,
        "request cut after its effect" | "request answered too late" | "answer 500 after the effect" | "answer half a body"
    );
    let how = Treatment {
        refused: if fault == "answer some items refused" { sim.dice.of(1..=31) } else { 0 },
        stale: if fault == "answer from an older state" { system.style.stale_for - 1 } else { 0 },
        page_before: fault == "answer the page before",
        answered: !lost,
    };
    let told = system.answer(asked, now, how);
    match fault {
        "request cut after its effect" => None,
        "answer 500 after the effect" => refused(500, Vec::new(), "{}"),
        "answer half a body" => Some(Told { body: told.body.chars().take(told.body.len() / 2).collect(), ..told }),
        _ => Some(told),
    }
}

// === The store ===

/// The store as a process sees it.
pub(crate) struct Seen {
    pub(crate) process: Arc<Process>,
    pub(crate) store: Arc<dyn Store>,
}

impl Seen {
    /// A command: it may meet a fault before or after its commit, and the process may die on either side.
    async fn command<T: Send>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let (process, sim) = (&self.process, &self.process.sim);
        process.runs().await;
        if sim.doomed(|fate| matches!(fate, Fate::Command(_, false))) {
            process.die("process dies before a commit");
            process.runs().await;
        }
        let fault = sim.faulty(sim.rates.1).then(|| *sim.dice.pick(&points::STORE));
        if let Some(fault) = fault {
            sim.trace.reach(fault);
        }
        let drawn = || "as drawn".to_owned();
        match fault {
            Some("store full") => return Err(StoreError::Full(drawn())),
            Some("store read-only") => return Err(StoreError::ReadOnly(drawn())),
            Some("store fails before the commit") => return Err(StoreError::Other(drawn())),
            Some("store slow") => {
                tokio::time::sleep(Duration::from_millis(sim.dice.of(1..=3000))).await;
                process.runs().await;
            }
            _ => {}
        }
        let result = work.await;
        sim.trace.event(format!(
            "{} {name}: {}",
            process.name,
            result.as_ref().err().map_or_else(|| "done".to_owned(), ToString::to_string)
        ));
        if sim.doomed(|fate| matches!(fate, Fate::Command(_, true))) {
            process.die("process dies after a commit");
        }
        let result = if fault == Some("store fails after the commit") { Err(StoreError::Other(drawn())) } else { result };
        process.came_back(result).await
    }

    async fn query<T: Send>(&self, work: impl Future<Output = Result<T, StoreError>> + Send) -> Result<T, StoreError> {
        self.process.runs().await;
        let result = work.await;
        self.process.came_back(result).await
    }

    fn committed(&self, found: impl FnOnce(&Watch) -> Option<Violation>) {
        let sim = &self.process.sim;
        let found = found(&sim.watch.lock().unwrap());
        sim.broken(found);
    }

    /// The system takes note of what its reader has kept.
    fn kept(&self, batch: &Absorb) {
        let world = &self.process.sim.world;
        let Some(place) = (0..world.sides.len()).find(|place| world.participant(*place) == batch.participant) else { return };
        let mut system = world.systems[place].lock().unwrap();
        for record in &batch.records {
            let is_empty = |name: &str| record.state.fields.get(name).is_some_and(|field| field.seen == Some(ValueHash::ABSENT));
            let empty: Vec<_> = CANONICAL.iter().zip(FIELDS).filter(|(name, _)| is_empty(name)).map(|(_, native)| native).collect();
            system.keep(record.external_id.as_str(), &empty);
        }
    }
}

/// The store's commands and queries, each as it goes through: `fenced` ones are checked against the newest epoch.
macro_rules! through {
    (
        fenced { $($fenced:ident($batch:ident: [$($of:tt)*]) -> $done:ty;)* }
        lanes { $($drains:ident($keys:ident: [$($lane:tt)*]) -> $drained:ty;)* }
        commands { $($command:ident($($given:ident: [$($kind:tt)*]),*) -> $gives:ty;)* }
        queries { $($query:ident($($asked:ident: [$($what:tt)*]),*) -> $tells:ty;)* }
    ) => {
        #[async_trait]
        impl Store for Seen {
            async fn lease(&self, request: &LeaseRequest) -> Result<Vec<Option<Fence>>, StoreError> {
                let granted = async {
                    let granted = self.store.lease(request).await;
                    for fence in granted.iter().flatten().flatten() {
                        self.process.sim.watch.lock().unwrap().granted(fence);
                    }
                    granted
                };
                self.command("lease", granted).await
            }

            fn partitions(&self) -> u32 {
                self.store.partitions()
            }

            async fn snapshots(&self, only: Option<&str>, now: Timestamp) -> Result<BTreeMap<String, Snapshot>, StoreError> {
                let snapshots = self.query(self.store.snapshots(only, now)).await;
                for snapshot in snapshots.iter().flat_map(|realms| realms.values()) {
                    invariants::ledger(snapshot).into_iter().for_each(|violation| self.process.sim.broken(Some(violation)));
                }
                snapshots
            }

            async fn absorb(&self, batch: &Absorb) -> Result<Absorbed, StoreError> {
                let commit = async {
                    let result = self.store.absorb(batch).await;
                    if result.is_ok() {
                        self.committed(|watch| watch.committed("absorb", &batch.fence));
                        self.kept(batch);
                    }
                    result
                };
                self.command("absorb", commit).await
            }

            $(async fn $fenced(&self, $batch: $($of)*) -> Result<$done, StoreError> {
                let commit = async {
                    let result = self.store.$fenced($batch).await;
                    if result.is_ok() {
                        self.committed(|watch| watch.committed(stringify!($fenced), &$batch.fence));
                    }
                    result
                };
                self.command(stringify!($fenced), commit).await
            })*

            $(async fn $drains(&self, $keys: $($lane)*) -> Result<$drained, StoreError> {
                let commit = async {
                    let result = self.store.$drains($keys).await;
                    if result.is_ok() {
                        self.committed(|watch| watch.committed_in_lane(stringify!($drains), &$keys.fence));
                    }
                    result
                };
                self.command(stringify!($drains), commit).await
            })*

            $(async fn $command(&self, $($given: $($kind)*),*) -> Result<$gives, StoreError> {
                self.command(stringify!($command), self.store.$command($($given),*)).await
            })*

            $(async fn $query(&self, $($asked: $($what)*),*) -> Result<$tells, StoreError> {
                self.query(self.store.$query($($asked),*)).await
            })*
        }
    };
}

through! {
    fenced {
        merge(merge: [&Merge]) -> ();
    }
    lanes {
        claim(claim: [&Claim]) -> Vec<Claimed>;
        intend(intend: [&Intend]) -> ();
        settle(settle: [&Settle]) -> ();
    }
    commands {
        release(fence: [&Fence]) -> ();
        split(split: [&Split]) -> ();
        enqueue(enqueue: [&Enqueue]) -> u64;
        request_reads(realm: [&str], participant: [&str], ids: [&[ExternalId]], haste: [Haste], now: [Timestamp]) -> ();
        close_dead_letters(close: [&CloseDeadLetters]) -> u64;
        sweep(sweep: [&Sweep]) -> u64;
        reindex(page: [&Reindex]) -> ();
        set_checkpoint(set: [&SetCheckpoint]) -> ();
        put_note(realm: [&str], name: [&str], value: [&serde_json::Value]) -> ();
        replace_note(realm: [&str], name: [&str], known: [Option<&serde_json::Value>], value: [&serde_json::Value]) -> bool;
        forget(realm: [&str]) -> ();
        forget_participants(realm: [&str], prefix: [&str]) -> bool;
        import(import: [Import], rows: [Rows]) -> ();
        begin_write(begin: [&BeginWrite]) -> WriteBegun;
        finish_write(scope: [&str], answer: [&str]) -> ();
        abandon_write(scope: [&str]) -> ();
    }
    queries {
        known_by_external(realm: [&str], participant: [&str], ids: [&[ExternalId]]) -> Vec<Option<Known>>;
        seen(realm: [&str], participant: [&str], ids: [&[ExternalId]], fields: [&[SmolStr]]) -> Option<ValueHash>;
        known_by_id(realm: [&str], ids: [&[RecordId]]) -> Vec<Option<Known>>;
        match_records(realm: [&str], keys: [&[IndexKey]]) -> Vec<Vec<RecordId>>;
        find(realm: [&str], key: [IndexKey], after: [Option<RecordId>], max: [usize]) -> Vec<Known>;
        referring(realm: [&str], ids: [&[RecordId]], after: [Option<RecordId>], max: [usize]) -> Vec<Known>;
        external_ids(realm: [&str], participant: [&str], ids: [&[RecordId]]) -> Vec<Option<ExternalId>>;
        record_ids(realm: [&str], participant: [&str], ids: [&[ExternalId]]) -> Vec<Option<RecordId>>;
        sequence() -> u64;
        checkpoint(realm: [&str], participant: [&str], slice: [&str]) -> Option<Checkpoint>;
        checkpoints(realm: [&str]) -> Vec<Standing>;
        pending_reads(realm: [&str], participant: [&str], max: [usize]) -> Vec<ExternalId>;
        pending_reads_of(realm: [&str], participant: [&str], haste: [Haste], max: [usize]) -> Vec<ExternalId>;
        awaits_read(realm: [&str], participant: [&str], ids: [&[ExternalId]]) -> Vec<Option<Haste>>;
        note(realm: [&str], name: [&str]) -> Option<serde_json::Value>;
        history(realm: [&str], record: [RecordId], now: [Timestamp]) -> Vec<PastChange>;
        held(realm: [&str], participants: [&[String]]) -> u64;
        changes_since(realm: [&str], since: [Timestamp], with: [&Guarded]) -> GuardCounts;
        dead_letters(filter: [&DeadLetterFilter]) -> Vec<DeadLetter>;
        dead_lettered(realm: [&str], participant: [&str], ids: [&[ExternalId]]) -> Vec<bool>;
        dead_lettered_records(realm: [&str], participant: [&str], ids: [&[RecordId]]) -> Vec<bool>;
        records(realm: [&str], after: [Option<RecordId>], max: [usize]) -> Vec<Known>;
        participant_ids(realm: [&str], participant: [&str], after: [Option<&ExternalId>], max: [usize]) -> Vec<ExternalId>;
        waits_for(realm: [&str], target: [&str], ids: [&[RecordId]]) -> Vec<Option<RecordId>>;
        creating(realm: [&str], target: [&str]) -> bool;
        wanted_soon(realm: [&str], target: [&str], fence: [&LaneFence], creates: [bool], now: [Timestamp]) -> bool;
        next_due(realm: [&str], target: [&str], fence: [&LaneFence], bulk: [bool], now: [Timestamp]) -> Option<Timestamp>;
        leases(now: [Timestamp]) -> Vec<Fence>;
        export(only: [Option<&str>], now: [Timestamp], sink: [Box<dyn Sink>]) -> ();
        realms() -> Vec<String>;
    }
}
