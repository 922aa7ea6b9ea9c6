//! The process is killed at every named place inside and between the commands, at every pass of it, and what is found afterwards is what
//! stood before the command or what stands after it, never anything between.
//!
//! This executable starts itself again as the one to be killed ([`victim`]); the reference is the same script, not killed, on
//! another store of the same kind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests")]

use fairlead_model::hash::LineDigest;
use fairlead_store::contract_tests::archive;
use fairlead_store::contract_tests::server::Server;
use fairlead_store::contract_tests::world::{
    CRM, ERP, REALM, World, at, contested, crm_id, deleted, delivered, id, inserted, key, lease, letter, merge_into, retry, split_off,
    state, updated,
};
use fairlead_store::crash::{VARIABLE, points};
use fairlead_store::{
    Absorb, BeginWrite, Checkpoint, CloseDeadLetters, CloseReason, DeadLetterFilter, Guarded, Haste, Identity, IndexState, Keys, Merge,
    Origin, Outcome, PostgresStore, RecordChange, Referring, Reindex, SetCheckpoint, Split, SqliteStore, Stage, Store, Sweep, WriteBegun,
};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Where the victim finds its store: a file, or the URL of a database. With neither, the victim's test does nothing.
const FILE: &str = "FAIRLEAD_STORE_TEST_FILE";
const DATABASE: &str = "FAIRLEAD_STORE_TEST_DATABASE";

/// The file in which the victim notes each answer.
const ANSWERED: &str = "FAIRLEAD_STORE_TEST_ANSWERED";

/// How many commands the script has.
const COMMANDS: usize = 34;

/// What is known of the leases before they are asked for again.
struct Actor {
    store: Arc<dyn Store>,
    world: Option<World>,
}

impl Actor {
    fn world(&self) -> &World {
        self.world.as_ref().expect("the leases come first")
    }

    /// The `n`th command of the script. Each is one command of the store.
    async fn act(&mut self, n: usize) {
        let now = at(n as i64);
        let letters = DeadLetterFilter { max: 100, ..DeadLetterFilter::default() };
        match n {
            0 => {
                let reader = lease(&*self.store, &format!("reader/{REALM}/{CRM}"), "victim", at(0)).await.unwrap();
                self.world = Some(World { store: Arc::clone(&self.store), lane: reader.clone(), reader });
            }
            1 => {
                let lane = lease(&*self.store, &format!("lane/{REALM}/{ERP}"), "victim", at(0)).await.unwrap();
                self.world.as_mut().unwrap().lane = lane;
            }
            2 => drop(self.world().absorb(vec![inserted(1), inserted(2), inserted(3)], now).await),
            3 => drop(self.world().claim(now).await),
            4 => self.world().intend(&[id(1), id(2)], now).await.unwrap(),
            5 => {
                let results = vec![(id(1), 1, delivered(1, 1)), (id(2), 1, retry(now)), (id(3), 1, Outcome::WaitFor { record: id(2) })];
                self.world().try_settle(results, now).await.unwrap();
            }
            6 => {
                let batch = Absorb {
                    records: vec![updated(1, 2), inserted(4)],
                    dead_letters: vec![letter(9, Stage::Inbound), letter(8, Stage::Identity)],
                    rereads: vec![(crm_id(5), None), (crm_id(6), Some(crm_id(7)))],
                    reread_done: vec![crm_id(4)],
                    checkpoint: Some(Checkpoint { slice: "main".into(), cursor: json!({"n": n}), complete: false }),
                    unchanged: 3,
                    guard: Guarded { changed: vec![id(1)], deleted: vec![id(2)], ..Guarded::default() },
                    history: vec![contested(1, "credit")],
                    ..self.world().batch(now)
                };
                self.store.absorb(&batch).await.unwrap();
            }
            7 => drop(self.world().claim(now).await),
            8 => self.world().intend(&[id(2), id(4)], now).await.unwrap(),
            9 => {
                let lost = Outcome::DeadLetter(Box::new(letter(4, Stage::Delivery)));
                let results = vec![(id(2), 1, delivered(2, 1)), (id(1), 2, delivered(1, 2)), (id(4), 1, lost)];
                self.world().try_settle(results, now).await.unwrap();
            }
            10 => self.store.request_reads(REALM, CRM, &[crm_id(1), crm_id(2)], Haste::Bulk, now).await.unwrap(),
            11 => self.store.put_note(REALM, "resync", &json!({"n": n})).await.unwrap(),
            12 => assert_eq!(self.world().enqueue(Keys::All, Origin::Resync, now).await, 4),
            13 => assert_eq!(self.world().enqueue(Keys::DeadLetters, Origin::Replay, now).await, 1),
            14 => drop(self.world().absorb(vec![deleted(1, 3, now), updated(2, 2)], now).await),
            15 => drop(self.world().try_claim(2, true, now).await.unwrap()),
            16 => {
                let ids = self.store.dead_letters(&letters).await.unwrap().iter().map(|letter| letter.id).collect();
                let close = CloseDeadLetters { ids, reason: CloseReason::Discarded, author: "kim".into(), now };
                assert_eq!(self.store.close_dead_letters(&close).await.unwrap(), 2);
            }
            17 => self.store.release(&self.world().lane.clone()).await.unwrap(),
            18 => {
                let lane = lease(&*self.store, &self.world().lane.key, "victim", now).await.unwrap();
                assert_eq!(lane.epoch, 2);
                self.world.as_mut().unwrap().lane = lane;
            }
            19 => drop(self.world().claim(now).await),
            20 => {
                let lost = Outcome::DeadLetter(Box::new(letter(3, Stage::Outbound)));
                self.world().try_settle(vec![(id(3), 1, lost), (id(2), 2, delivered(2, 2))], now).await.unwrap();
            }
            21 => self.store.put_note("sales/other", "resync", &json!(1)).await.unwrap(),
            22 => self.store.forget("sales/other").await.unwrap(),
            23 => drop(self.world().absorb(vec![updated(4, 2)], now).await),
            24 => {
                let referring =
                    vec![Referring { id: id(4), change: RecordChange::Keep { version: 2 }, enqueue: vec![(ERP.into(), Origin::Repair)] }];
                let merge = Merge { referring, ..merge_into(self.world(), (3, 1), (2, 2), now) };
                self.store.merge(&merge).await.unwrap();
            }
            25 => {
                let records = vec![(id(2), 3, vec![key(5)]), (id(4), 2, vec![key(5), key(6)])];
                let state = IndexState { digest: 1, fields: Vec::new(), complete: true, after: None };
                self.store.reindex(&Reindex { realm: REALM.into(), records, state, note: IndexState::NOTE.into() }).await.unwrap();
            }
            26 => assert_eq!(self.store.begin_write(&begin("once", now)).await, Ok(WriteBegun::Fresh)),
            27 => self.store.finish_write("once", "done").await.unwrap(),
            28 => assert_eq!(self.store.begin_write(&begin("never", now)).await, Ok(WriteBegun::Fresh)),
            29 => self.store.abandon_write("never").await.unwrap(),
            31 => {
                let set = SetCheckpoint {
                    realm: REALM.into(),
                    participant: CRM.into(),
                    before: Checkpoint { slice: "main".into(), cursor: json!({"n": 6}), complete: false },
                    cursor: json!({"n": n}),
                    lease: self.world().reader.key.clone(),
                    note: ("set".into(), json!(n)),
                    now,
                };
                self.store.set_checkpoint(&set).await.unwrap();
            }
            32 => {
                let sweep = Sweep { realm: REALM.into(), participants: None, closed_before: at(20), max: 1, now };
                assert_eq!(self.store.sweep(&sweep).await, Ok(1));
            }
            33 => {
                let leaving = vec![Identity { participant: CRM.into(), external_id: crm_id(2), state: state(2) }];
                self.store.split(&Split { leaving, ..split_off((2, 3), 7, now) }).await.unwrap();
            }
            30 => drop(archive::import(&*self.store, &copy(), false, now).await.unwrap()),
            _ => unreachable!("the script has {COMMANDS} commands"),
        }
    }
}

/// An export of a small realm. Written by hand, since a store that made it would pass the places where this process is to die.
fn copy() -> String {
    let rows = [
        r#"{"realm":{"name":"sales/copy"}}"#,
        r#"{"reread":{"externalId":"c1","participant":"crm","since":0}}"#,
        r#"{"note":{"name":"resync","value":7}}"#,
    ];
    let mut digest = LineDigest::default();
    rows.iter().for_each(|row| digest.add(row));
    let head = r#"{"fairlead":"state","format":1,"at":0,"schema":"by hand","sequence":1,"realms":["sales/copy"]}"#;
    let end = json!({"end": {"rows": {"realm": 1, "reread": 1, "note": 1}, "digest": digest.digest()}});
    format!("{head}\n{}\n{end}\n", rows.join("\n"))
}

fn begin(scope: &str, now: fairlead_model::Timestamp) -> BeginWrite {
    let (held, keep) = (std::time::Duration::from_secs(10), std::time::Duration::from_secs(10_000));
    BeginWrite { scope: scope.to_owned(), fingerprint: "x".to_owned(), held, keep, now }
}

/// Everything that can be asked of the store, as one value.
async fn contents(store: &dyn Store) -> Value {
    let letters = DeadLetterFilter { closed: true, max: 100, ..DeadLetterFilter::default() };
    let snapshot = store.snapshot(REALM, at(1000)).await.unwrap();
    assert!(snapshot.balanced(), "{snapshot:#?}");
    json!({
        "sequence": store.sequence().await.unwrap(),
        "snapshot": format!("{snapshot:?}"),
        "records": format!("{:?}", store.records(REALM, None, 100).await.unwrap()),
        "letters": format!("{:?}", store.dead_letters(&letters).await.unwrap()),
        "set": store.note(REALM, "set").await.unwrap(),
        "splits": store.note(REALM, "splits").await.unwrap(),
        "checkpoint": store.checkpoint(REALM, CRM, "main").await.unwrap(),
        "reads": store.pending_reads(REALM, CRM, 100).await.unwrap(),
        "guard": format!("{:?}", store.changes_since(REALM, at(0), &Guarded::default()).await.unwrap()),
        "note": store.note(REALM, "resync").await.unwrap(),
        "other": store.note("sales/other", "resync").await.unwrap(),
        "copy": [store.note("sales/copy", "resync").await.unwrap(), json!(store.pending_reads("sales/copy", CRM, 9).await.unwrap())],
        "realms": store.realms().await.unwrap(),
        "index": store.note(REALM, IndexState::NOTE).await.unwrap(),
        "matches": format!("{:?}", store.match_records(REALM, &[key(u64::MAX - 1), key(5), key(6)]).await.unwrap()),
    })
}

/// What an heir finds and does: both leases under higher epochs, every key of the lane with its intent, and in the end nothing waits.
async fn inherit(store: Arc<dyn Store>) -> Value {
    let world = World {
        reader: lease(&*store, &format!("reader/{REALM}/{CRM}"), "heir", at(2000)).await.unwrap(),
        lane: lease(&*store, &format!("lane/{REALM}/{ERP}"), "heir", at(2000)).await.unwrap(),
        store,
    };
    let mut seen = Vec::new();
    loop {
        let claimed = world.claim(at(2000)).await;
        if claimed.is_empty() {
            break;
        }
        for key in claimed {
            let n = (1..10).find(|n| id(*n) == key.known.record.id).unwrap();
            let version = key.known.record.version;
            seen.push(json!([n, version, key.attempts, key.since, key.intent.map(|intent| (intent.at, intent.version, intent.sent))]));
            world.settle(n, version, delivered(n, version), at(2000)).await;
        }
    }
    let snapshot = world.snapshot(at(2000)).await;
    assert!(snapshot.pending.is_empty(), "{snapshot:#?}");
    json!({ "epochs": [world.reader.epoch, world.lane.epoch], "keys": seen, "books": format!("{:?}", snapshot.lanes) })
}

/// A place for one store, empty at first, that the killed process and whoever looks afterwards open one after another.
trait Site {
    /// How the victim is told: the name and value of an environment variable.
    fn variable(&self) -> (&'static str, String);
    /// A folder for what the victim notes down.
    fn folder(&self) -> &Path;
    async fn open(&self) -> Arc<dyn Store>;
}

struct File(tempfile::TempDir);

impl File {
    /// In memory where the system offers that: a process is killed here, not the machine, so nothing is gained by waiting for a disk.
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        Self(if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() })
    }
}

impl Site for File {
    fn variable(&self) -> (&'static str, String) {
        (FILE, self.0.path().join("store.db").display().to_string())
    }
    fn folder(&self) -> &Path {
        self.0.path()
    }
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open_inline(&self.0.path().join("store.db")).unwrap())
    }
}

/// A schema of its own in a database.
struct Schema {
    url: String,
    folder: tempfile::TempDir,
}

impl Schema {
    fn new(database: &str, number: usize) -> Self {
        Self { url: format!("{database}&options=-c%20search_path%3Dkill{number}"), folder: tempfile::tempdir().unwrap() }
    }
}

impl Site for Schema {
    fn variable(&self) -> (&'static str, String) {
        (DATABASE, self.url.clone())
    }
    fn folder(&self) -> &Path {
        self.folder.path()
    }
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(PostgresStore::open(&self.url).await.unwrap().on_given_time())
    }
}

/// What must be found after the first `n` commands: the contents, and what an heir sees.
async fn reference(site: impl Site, n: usize) -> (Value, Value) {
    let store = site.open().await;
    let mut actor = Actor { store: Arc::clone(&store), world: None };
    for command in 0..n {
        actor.act(command).await;
    }
    (contents(&*store).await, inherit(store).await)
}

#[tokio::test]
async fn victim() {
    let store: Arc<dyn Store> = match (std::env::var(FILE), std::env::var(DATABASE)) {
        (Ok(file), _) => Arc::new(SqliteStore::open(Path::new(&file)).unwrap()),
        (_, Ok(url)) => Arc::new(PostgresStore::open(&url).await.unwrap().on_given_time()),
        _ => return,
    };
    let mut answered = std::fs::File::create(std::env::var(ANSWERED).unwrap()).unwrap();
    let mut actor = Actor { store, world: None };
    for command in 0..COMMANDS {
        actor.act(command).await;
        answered.write_all(b".").unwrap();
    }
}

#[tokio::test]
async fn a_kill_at_any_place_leaves_whole_commands() {
    kill_everywhere(File::new, usize::MAX).await;
}

/// The first pass of each place is enough: what a place is to later passes, the server decides by the same rule.
#[tokio::test]
async fn a_kill_at_any_place_leaves_whole_commands_on_postgresql() {
    let server = Server::start();
    let database = server.database("killed");
    let mut number = 0;
    let site = || {
        number += 1;
        Schema::new(&database, number)
    };
    kill_everywhere(site, 1).await;
}

/// Kills a process at every place, at the first `passes` passes of it.
async fn kill_everywhere<S: Site>(mut site: impl FnMut() -> S, passes: usize) {
    let mut expected = Vec::new();
    for n in 0..=COMMANDS {
        expected.push(reference(site(), n).await);
    }
    let mut kills = 0;
    for point in points() {
        let mut pass = 1;
        while pass <= passes {
            let site = site();
            let answered = site.folder().join("answered");
            let (name, value) = site.variable();
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "victim", "--nocapture"])
                .env(name, value)
                .env(ANSWERED, &answered)
                .env(VARIABLE, format!("{point}:{pass}"))
                .env_remove("NEXTEST_EXECUTION_MODE")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap();
            let answered = std::fs::read(answered).unwrap().len();
            if status.success() {
                assert_eq!(answered, COMMANDS, "{point}:{pass}");
                assert!(pass > 1, "{point} was never reached: the script has a hole");
                break;
            }
            kills += 1;
            let store = site.open().await;
            let found = contents(&*store).await;
            // The caller may have been answered and not have written it down.
            let committed = match point.split_once('/').unwrap().1 {
                "committed" => answered + 1..=answered + 1,
                "answered" => answered..=answered + 1,
                _ => answered..=answered,
            };
            let whole = committed.clone().find(|n| expected.get(*n).is_some_and(|(contents, _)| *contents == found));
            let Some(n) = whole else {
                panic!(
                    "{point}:{pass}: after {answered} answers the store holds\n{found:#}\nand not, as after {committed:?} commands,\n{:#}",
                    expected[answered].0
                )
            };
            assert_eq!(inherit(store).await, expected[n].1, "{point}:{pass}: what the heir sees");
            pass += 1;
        }
    }
    println!("{kills} kills");
    assert!(kills >= points().len());
}
