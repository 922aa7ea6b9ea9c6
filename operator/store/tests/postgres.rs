//! The PostgreSQL store keeps the contract on the real server, shared by several processes, cut off at every place, and told no.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use fairlead_model::Timestamp;
use fairlead_store::contract_tests::server::{PASSWORD, ROLE, Server, Small};
use fairlead_store::contract_tests::world::{CRM, ERP, REALM, World, at, delivered, id, inserted, key, lease, record, updated};
use fairlead_store::contract_tests::{all, archive, books};
use fairlead_store::{Absorb, AbsorbRecord, Claim, LaneFence, LeaseRequest, PostgresStore, RecordChange, SqliteStore, Store, StoreError};
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A store on which tests make time pass.
async fn open(url: &str) -> Arc<dyn Store> {
    Arc::new(PostgresStore::open(url).await.unwrap().on_given_time())
}

async fn refusal(url: &str) -> StoreError {
    let refused = PostgresStore::open(url).await.unwrap_err();
    assert!(!refused.to_string().contains(PASSWORD) && !refused.to_string().contains("hunter2"), "{refused}");
    refused
}

/// One server is enough for what only wants a database.
#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept() {
    let server = Server::start();
    let url = server.database("contract");
    for (place, case) in all().into_iter().enumerate() {
        println!("contract: {}", case.name);
        case.run(open(&format!("{url}&options=-c%20search_path%3Dcase{place}")).await).await;
    }
}

#[test]
fn the_books_balance_after_every_command() {
    let server = Server::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (url, walks) = (server.database("walks"), AtomicUsize::new(0));
    // Proptest prints the steps of the shortest failing walk.
    proptest!(
        ProptestConfig { cases: 8, failure_persistence: None, max_shrink_iters: 60, ..ProptestConfig::default() },
        |(steps in proptest::collection::vec(any::<u64>().prop_map(books::step_from), 1..60))| {
            let url = format!("{url}&options=-c%20search_path%3Dwalk{}", walks.fetch_add(1, Ordering::Relaxed));
            runtime.block_on(async { books::walk(open(&url).await, &steps).await });
        }
    );
}

// ---- several processes ------------------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_share_a_database() {
    let server = Server::start();
    let url = server.database("shared");
    // They start at once, on an empty database.
    let (first, second, third) = tokio::join!(open(&url), open(&url), open(&url));
    println!("match keys");
    the_first_insert_of_a_match_key_wins(&first, &second).await;
    println!("epochs");
    whoever_was_replaced_commits_nothing(&first, &second).await;
    println!("sequences");
    whoever_sees_a_sequence_sees_every_commit_up_to_it([&first, &second, &third]).await;
    println!("claims");
    no_key_is_claimed_twice([first, second, third, open(&url).await]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_clock_says_which_leases_have_run_out() {
    let server = Server::start();
    let url = server.database("clocks");
    let store = PostgresStore::open(&url).await.unwrap();
    let ask = |holder: &str, ttl: u64, now: Timestamp| LeaseRequest {
        keys: vec!["lane/r/erp/0".into()],
        holder: holder.into(),
        ttl: Duration::from_millis(ttl),
        now,
    };
    let (behind, ahead) = (Timestamp(0), at(1_000_000_000));
    let first = store.lease(&ask("behind", 600_000, behind)).await.unwrap().remove(0).unwrap();
    assert_eq!((first.epoch, first.until), (1, Timestamp(600_000)), "the holder counts by its own clock");
    assert_eq!(store.lease(&ask("ahead", 600_000, ahead)).await.unwrap(), [None], "a clock that is years ahead takes nothing");
    assert_eq!(store.leases(ahead).await.unwrap().len(), 1);
    let again = store.lease(&ask("behind", 200, behind)).await.unwrap().remove(0).unwrap();
    assert_eq!(again.epoch, 1, "and its holder prolongs it");
    let mut taken = None;
    while taken.is_none() {
        taken = store.lease(&ask("late", 600_000, behind)).await.unwrap().remove(0);
    }
    assert_eq!(taken.unwrap().epoch, 2, "it ran out by the server's clock, which no clock of theirs shows");
}

async fn the_first_insert_of_a_match_key_wins(first: &Arc<dyn Store>, second: &Arc<dyn Store>) {
    let mine = lease(&**first, "reader/twins/crm", "first", at(0)).await.unwrap();
    let theirs = lease(&**second, "reader/twins/erp", "second", at(0)).await.unwrap();
    for round in 0..10 {
        let batch = |participant: &str, fence: &fairlead_store::Fence, n: u64| Absorb {
            records: vec![AbsorbRecord {
                change: RecordChange::Insert { record: record(n, 1), keys: vec![key(round)] },
                enqueue: Vec::new(),
                ..inserted(n)
            }],
            ..Absorb::empty("twins", participant, fence.clone(), at(1))
        };
        let (mine, theirs) = (batch("crm", &mine, 2 * round + 1), batch(ERP, &theirs, 2 * round + 2));
        let (one, other) = tokio::join!(first.absorb(&mine), second.absorb(&theirs));
        let lost = [(one, 2 * round + 1), (other, 2 * round + 2)].into_iter().find_map(|(done, n)| done.err().map(|error| (error, n)));
        let (error, n) = lost.expect("both inserted the same record");
        assert_eq!(error, StoreError::Conflict(vec![id(n)]));
        assert_eq!(first.match_records("twins", &[key(round)]).await.unwrap()[0].len(), 1);
    }
    assert_eq!(first.snapshot("twins", at(2)).await.unwrap().live, 10);
}

async fn whoever_was_replaced_commits_nothing(first: &Arc<dyn Store>, second: &Arc<dyn Store>) {
    let mine = World::new(Arc::clone(first), "first").await;
    assert_eq!(lease(&**second, &mine.lane.key, "second", at(1)).await, None);
    let before = first.sequence().await.unwrap();
    // Two campaign for a lease that has run out: one has it.
    let (one, other) =
        tokio::join!(lease(&**first, &mine.reader.key, "heir-1", at(100)), lease(&**second, &mine.reader.key, "heir-2", at(100)));
    assert_eq!([one, other].into_iter().flatten().map(|fence| fence.epoch).collect::<Vec<_>>(), [mine.reader.epoch + 1]);
    assert!(matches!(mine.try_absorb(vec![inserted(999)], at(2)).await, Err(StoreError::Fenced { .. })));
    assert_eq!(first.sequence().await.unwrap(), before + 1, "only one lease was committed");
    assert_eq!(second.snapshot(REALM, at(100)).await.unwrap().live, 0);
}

async fn whoever_sees_a_sequence_sees_every_commit_up_to_it(stores: [&Arc<dyn Store>; 3]) {
    let done = Arc::new(AtomicBool::new(false));
    let watch = {
        let (store, done) = (Arc::clone(stores[2]), Arc::clone(&done));
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let sequence = store.sequence().await.unwrap();
                let mut live = BTreeMap::new();
                for realm in ["seq/0", "seq/1", "seq/2", "seq/3"] {
                    live.insert(realm, store.snapshot(realm, at(1)).await.unwrap().live);
                }
                seen.push((sequence, live));
            }
            seen
        })
    };
    let writers = ["seq/0", "seq/1", "seq/2", "seq/3"].into_iter().enumerate().map(|(place, realm)| {
        let store = Arc::clone(stores[place % 2]);
        tokio::spawn(async move {
            let fence = lease(&*store, &format!("reader/{realm}/crm"), "w", at(0)).await.unwrap();
            let mut commits = Vec::new();
            for n in 1..=15 {
                let batch = Absorb { records: vec![inserted(n)], ..Absorb::empty(realm, "crm", fence.clone(), at(1)) };
                commits.push((store.absorb(&batch).await.unwrap().sequence, n));
            }
            (realm, commits)
        })
    });
    let mut commits = BTreeMap::new();
    for writer in writers.collect::<Vec<_>>() {
        let (realm, sequences) = writer.await.unwrap();
        commits.insert(realm, sequences);
    }
    done.store(true, Ordering::Relaxed);
    let all: std::collections::BTreeSet<u64> = commits.values().flatten().map(|(sequence, _)| *sequence).collect();
    assert_eq!(all.len(), 60, "every commit has a sequence of its own");
    for (sequence, live) in watch.await.unwrap() {
        for (realm, commits) in &commits {
            let due = commits.iter().filter(|commit| commit.0 <= sequence).count() as u64;
            assert!(live[realm] >= due, "{realm}: at sequence {sequence}, {due} were committed and {} were seen", live[realm]);
        }
    }
}

/// Workers come, die with keys in flight, and take over from each other, over the partitions of three lanes.
async fn no_key_is_claimed_twice(stores: [Arc<dyn Store>; 4]) {
    const KEYS: u64 = 30;
    let realms = ["lanes/0", "lanes/1", "lanes/2"];
    for realm in realms {
        let fence = lease(&*stores[0], &format!("reader/{realm}/crm"), "w", at(0)).await.unwrap();
        let batch = Absorb { records: (1..=KEYS).map(inserted).collect(), ..Absorb::empty(realm, "crm", fence, at(0)) };
        stores[0].absorb(&batch).await.unwrap();
    }
    let clock = Arc::new(AtomicUsize::new(1));
    let held: Arc<std::sync::Mutex<BTreeMap<(String, String), u64>>> = Arc::default();
    let workers = stores.iter().enumerate().map(|(number, store)| {
        let (store, clock, held) = (Arc::clone(store), Arc::clone(&clock), Arc::clone(&held));
        tokio::spawn(async move {
            let mut round = number;
            loop {
                let now = at(i64::try_from(clock.fetch_add(1, Ordering::Relaxed)).unwrap());
                let realm = realms[round % 3];
                round += 1;
                if round % 4 == 0 {
                    let mut left = 0;
                    for realm in realms {
                        left += store.snapshot(realm, now).await.unwrap().pending.len();
                    }
                    if left == 0 {
                        return;
                    }
                }
                let partition = u32::try_from(round).unwrap() % store.partitions();
                let key = format!("lane/{realm}/erp/{partition}");
                let Some(lease) = lease(&*store, &key, &format!("worker-{number}-{round}"), now).await else { continue };
                let fence = LaneFence::new(store.partitions(), BTreeMap::from([(partition, lease.clone())]));
                let claim = Claim { realm: realm.into(), target: ERP.into(), fence: fence.clone(), max: 7, creates: true, bulk: true, now };
                let claimed = match store.claim(&claim).await {
                    Ok(claimed) => claimed,
                    Err(StoreError::Fenced { .. }) => continue,
                    Err(error) => panic!("{error}"),
                };
                for key in &claimed {
                    let place = (realm.to_owned(), key.known.record.id.to_string());
                    let before = held.lock().unwrap().insert(place, lease.epoch);
                    assert!(before.is_none_or(|epoch| epoch < lease.epoch), "claimed under {before:?} and {}", lease.epoch);
                }
                if round % 5 == 0 {
                    // It dies with keys in flight; whoever comes next, comes when the lease has run out, or is the same one by another name.
                    continue;
                }
                let results = claimed.iter().map(|key| fairlead_store::Settlement {
                    id: key.known.record.id,
                    version: key.known.record.version,
                    learnt: None,
                    outcome: fairlead_store::Outcome::Delivered {
                        external_id: fairlead_model::ExternalId(format!("e-{}", key.known.record.id)),
                        state: fairlead_store::contract_tests::world::state(1),
                        incomplete: None,
                    },
                });
                let settle = fairlead_store::Settle {
                    realm: realm.into(),
                    target: ERP.into(),
                    fence: fence.clone(),
                    results: results.collect(),
                    now,
                };
                match store.settle(&settle).await {
                    Ok(()) | Err(StoreError::Fenced { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
                store.release(&lease).await.unwrap();
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    for realm in realms {
        let snapshot = stores[3].snapshot(realm, at(100_000)).await.unwrap();
        assert!(snapshot.balanced(), "{snapshot:#?}");
        assert_eq!((snapshot.lanes[0].delivered, snapshot.matched, snapshot.pending.len()), (KEYS, KEYS, 0));
    }
}

// ---- connections that are cut -----------------------------------------------------------------------------------------------------------

/// Where the next connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// When a transaction begins.
    Begin,
    /// Before the commit goes through.
    BeforeCommit,
    /// When the commit has gone through, before its answer.
    AfterCommit,
}

/// Passes bytes on between the store and the server, until it is told to cut.
struct Cutter {
    port: u16,
    next: Arc<std::sync::Mutex<Option<Cut>>>,
}

impl Cutter {
    async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cutter = Self { port: listener.local_addr().unwrap().port(), next: Arc::default() };
        let next = Arc::clone(&cutter.next);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let next = Arc::clone(&next);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await {
                        let _ = pass_on(client, server, &next).await;
                    }
                });
            }
        });
        cutter
    }

    fn cut(&self, cut: Cut) {
        *self.next.lock().unwrap() = Some(cut);
    }

    fn has_cut(&self) -> bool {
        self.next.lock().unwrap().is_none()
    }
}

async fn pass_on(mut client: TcpStream, mut server: TcpStream, next: &std::sync::Mutex<Option<Cut>>) -> std::io::Result<()> {
    let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let sent = &up[..read?];
                if sent.is_empty() {
                    return Ok(());
                }
                let holds = |text: &[u8]| sent.windows(text.len()).any(|window| window == text);
                let chosen = *next.lock().unwrap();
                match chosen {
                    Some(Cut::Begin) if holds(b"BEGIN\0") => {
                        *next.lock().unwrap() = None;
                        return Ok(());
                    }
                    Some(Cut::BeforeCommit) if holds(b"COMMIT\0") => {
                        *next.lock().unwrap() = None;
                        return Ok(());
                    }
                    Some(Cut::AfterCommit) if holds(b"COMMIT\0") => {
                        server.write_all(sent).await?;
                        // Whatever it answers never arrives.
                        let _ = server.read(&mut down).await?;
                        *next.lock().unwrap() = None;
                        return Ok(());
                    }
                    _ => server.write_all(sent).await?,
                }
            }
            read = server.read(&mut down) => {
                let answered = read?;
                if answered == 0 {
                    return Ok(());
                }
                client.write_all(&down[..answered]).await?;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_loses_and_doubles_nothing() {
    let server = Server::start();
    let direct = open(&server.database("cut")).await;
    let cutter = Cutter::before(server.port()).await;
    let url = server.url("cut").replace(&format!(":{}/", server.port()), &format!(":{}/", cutter.port));
    let mut world = World::new(open(&url).await, "a").await;
    let unknown = |error: StoreError| match error {
        StoreError::Other(text) => assert!(text.contains("whether it took effect is not known"), "{text}"),
        other => panic!("{other}"),
    };

    // Before anything was written: tried again inside, on another connection.
    cutter.cut(Cut::Begin);
    world.absorb(vec![inserted(1)], at(1)).await;
    assert!(cutter.has_cut());
    // The commit did not go through: nothing is there, and the same again succeeds.
    cutter.cut(Cut::BeforeCommit);
    unknown(world.try_absorb(vec![inserted(2)], at(1)).await.unwrap_err());
    assert_eq!(direct.known_by_id(REALM, &[id(2)]).await.unwrap(), [None]);
    world.absorb(vec![inserted(2)], at(1)).await;
    // It did: everything is there, and the same again is a conflict, as for any record that somebody else brought.
    cutter.cut(Cut::AfterCommit);
    unknown(world.try_absorb(vec![inserted(3)], at(1)).await.unwrap_err());
    assert!(direct.known_by_id(REALM, &[id(3)]).await.unwrap()[0].is_some());
    assert_eq!(world.try_absorb(vec![inserted(3)], at(1)).await, Err(StoreError::Conflict(vec![id(3)])));

    // A claim whose answer was lost: its keys come back under the next epoch, never sent.
    for cut in [Cut::BeforeCommit, Cut::AfterCommit] {
        cutter.cut(cut);
        unknown(world.try_claim(10, true, at(2)).await.unwrap_err());
        world.store.release(&world.lane).await.unwrap();
        world.lane = lease(&*world.store, &world.lane.key, "a", at(2)).await.unwrap();
    }
    let claimed = world.claim(at(3)).await;
    assert_eq!(
        claimed.iter().map(|key| (key.known.record.id, key.intent.is_some())).collect::<Vec<_>>(),
        [1, 2, 3].map(|n| (id(n), false))
    );
    // A settlement whose answer was lost is sent once more, and counts once.
    let results = || [1, 2, 3].map(|n| (id(n), 1, delivered(n, 1))).to_vec();
    for cut in [Cut::BeforeCommit, Cut::AfterCommit] {
        cutter.cut(cut);
        unknown(world.try_settle(results(), at(4)).await.unwrap_err());
    }
    world.try_settle(results(), at(4)).await.unwrap();
    let book = world.book("crm").await;
    assert_eq!((book.entered, book.delivered, book.pending), (3, 3, 0));
    // A lease is asked for once more, and is the same.
    cutter.cut(Cut::AfterCommit);
    let request = fairlead_store::LeaseRequest {
        keys: vec![world.lane.key.clone()],
        holder: "a".into(),
        ttl: std::time::Duration::from_secs(15),
        now: at(5),
    };
    unknown(world.store.lease(&request).await.unwrap_err());
    assert_eq!(world.store.lease(&request).await.unwrap().remove(0).unwrap().epoch, world.lane.epoch);

    // The server ends every session: nobody notices.
    server.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'cut'");
    world.absorb(vec![updated(1, 2)], at(6)).await;
    server.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'cut'");
    assert_eq!(direct.known_by_id(REALM, &[id(1)]).await.unwrap()[0].as_ref().unwrap().record.version, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_and_starts_again_needs_no_restart_of_ours() {
    let mut server = Server::start();
    let world = World::new(open(&server.database("restarted")).await, "a").await;
    world.absorb(vec![inserted(1)], at(1)).await;
    server.stop();
    for refused in [world.try_absorb(vec![inserted(2)], at(1)).await.unwrap_err(), world.store.sequence().await.unwrap_err()] {
        let StoreError::Other(text) = refused else { panic!("{refused}") };
        assert!(text.contains("cannot be reached") && !text.contains(PASSWORD), "{text}");
    }
    server.start_again();
    world.absorb(vec![inserted(2)], at(1)).await;
    assert_eq!(world.snapshot(at(2)).await.live, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_paused_in_mid_command_does_not_hold_the_others() {
    let server = Server::start();
    let url = server.database("paused");
    let world = World::new(open(&url).await, "a").await;
    // What a paused process leaves: a transaction that holds the realm's lock and the lease, and sends nothing more.
    let realm = server.sql("paused", &format!("SELECT id FROM fairlead.name WHERE text = '{REALM}'"));
    assert_eq!(realm, "", "the name comes with the first command");
    world.absorb(vec![inserted(1)], at(1)).await;
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("SET search_path = fairlead; SET idle_in_transaction_session_timeout = '300ms'").await.unwrap();
    client
        .batch_execute("BEGIN; SELECT pg_advisory_xact_lock(1179403588, id::int4) FROM name; SELECT 1 FROM lease FOR SHARE")
        .await
        .unwrap();
    // The server ends that session, and everybody else goes on.
    world.absorb(vec![inserted(2)], at(1)).await;
    assert_eq!(lease(&*world.store, &world.reader.key, "b", at(100)).await.unwrap().epoch, 2);
}

// ---- being told no ----------------------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_is_named_and_nothing_is_lost() {
    let server = Server::start();
    let url = server.database("told");
    let unusable = async |url: &str, said: &str| match refusal(url).await {
        StoreError::Unusable(text) => assert!(text.contains(said), "{text}"),
        other => panic!("{other:?}"),
    };
    unusable(&url.replace(PASSWORD, "hunter2"), "check the role and its password").await;
    unusable(&server.url("nowhere"), "create the database").await;
    let other = async |url: &str, said: &str| match refusal(url).await {
        StoreError::Other(text) => assert!(text.contains(said), "{text}"),
        other => panic!("{other:?}"),
    };
    other(&url.replace(&format!(":{}", server.port()), ":1"), "cannot be reached").await;

    // A role that may do nothing, then one that may do what is needed and no more, on one connection.
    server.sql("told", "CREATE ROLE limited LOGIN PASSWORD 'hunter2' CONNECTION LIMIT 1");
    let limited = url.replace(PASSWORD, "hunter2").replace(ROLE, "limited");
    unusable(&limited, "GRANT CREATE ON DATABASE").await;
    server.sql("told", "GRANT CREATE ON DATABASE told TO limited");
    // The server takes a moment to notice that the refused one has gone.
    while server.sql("told", "SELECT count(*) FROM pg_stat_activity WHERE usename = 'limited'") != "0" {}
    let world = World::new(open(&limited).await, "a").await;
    world.absorb(vec![inserted(1)], at(1)).await;
    other(&limited, "connection limit").await;
    server.sql("told", "ALTER ROLE limited CONNECTION LIMIT -1");
    assert_eq!(server.sql("told", "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0");

    // Read-only, and writable again.
    let set = |setting: &str| {
        server.sql("postgres", &format!("ALTER DATABASE told {setting}"));
        server.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'told'");
    };
    set("SET default_transaction_read_only = on");
    let refused = world.try_absorb(vec![inserted(2)], at(1)).await.unwrap_err();
    assert!(matches!(&refused, StoreError::ReadOnly(text) if text.contains("replica")), "{refused}");
    assert_eq!(world.known(1).await.unwrap().record, record(1, 1), "what is there can be read");
    drop(open(&limited).await);
    set("RESET default_transaction_read_only");
    world.absorb(vec![inserted(2)], at(1)).await;
    assert_eq!(world.snapshot(at(2)).await.live, 2);

    // Tables that are somebody else's, those of a newer Fairlead, and those in a schema of one's own choice.
    let url = server.database("foreign");
    server.sql("foreign", "CREATE SCHEMA fairlead; CREATE TABLE fairlead.theirs (x int)");
    unusable(&url, "tables that are not Fairlead's").await;
    assert_eq!(server.sql("foreign", "SELECT count(*) FROM pg_tables WHERE schemaname = 'fairlead'"), "1");
    let elsewhere = format!("{url}&options=-c%20search_path%3Dours");
    World::new(open(&elsewhere).await, "a").await;
    assert_eq!(server.sql("foreign", "SELECT count(*) > 10 FROM pg_tables WHERE schemaname = 'ours'"), "t");
    server.sql("foreign", "INSERT INTO ours.migration (number) VALUES (4711)");
    unusable(&elsewhere, "has schema 4711 and this Fairlead knows schemas up to").await;
}

/// An authority's certificate, and one that it gave to `localhost` with its key, as files that the server takes.
struct Certificates {
    authority: String,
    files: tempfile::TempDir,
}

impl Certificates {
    fn new() -> Self {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = params.self_signed(&authority_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(params, authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let files = tempfile::tempdir().unwrap();
        for (name, text) in [("ca.pem", &authority), ("server.pem", &certificate.pem()), ("server.key", &key.serialize_pem())] {
            std::fs::write(files.path().join(name), text).unwrap();
        }
        // The server wants its key for itself.
        let run = |program: &str, arguments: &[&str]| {
            assert!(std::process::Command::new(program).args(arguments).arg(files.path()).status().unwrap().success(), "{program}");
        };
        run("chmod", &["-R", "u=rwX,go="]);
        run("chown", &["-R", "postgres"]);
        Self { authority, files }
    }

    fn file(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sslmode_means_what_it_means_to_others() {
    let certificates = Certificates::new();
    let options =
        [format!("ssl_cert_file={}", certificates.file("server.pem")), format!("ssl_key_file={}", certificates.file("server.key"))];
    let server = Server::start_in(&std::env::temp_dir(), &["ssl=on", &options[0], &options[1]]);
    let url = server.database("tls");
    let by = |host: &str, mode: &str, authority: Option<&str>| {
        let root = authority.map(|file| format!("&sslrootcert={file}")).unwrap_or_default();
        url.replace("127.0.0.1", host).replace("sslmode=disable", &format!("sslmode={mode}{root}"))
    };
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("ca.pem").display().to_string(), folder.path().join("other.pem").display().to_string());
    std::fs::write(&ours, &certificates.authority).unwrap();
    std::fs::write(&theirs, &Certificates::new().authority).unwrap();
    let mut stores = Vec::new();
    for (host, mode, authority) in [
        ("127.0.0.1", "prefer", None),
        ("127.0.0.1", "require", None),
        ("127.0.0.1", "verify-ca", Some(ours.as_str())),
        ("localhost", "verify-full", Some(ours.as_str())),
    ] {
        let store = open(&by(host, mode, authority)).await;
        store.sequence().await.unwrap();
        stores.push(store);
    }
    let sessions = "FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'fairlead'";
    assert_eq!(server.sql("tls", &format!("SELECT count(*) >= 4 AND bool_and(ssl) {sessions}")), "t");
    for (host, mode, authority) in [
        ("127.0.0.1", "verify-full", Some(ours.as_str())),
        ("localhost", "verify-full", Some(theirs.as_str())),
        ("127.0.0.1", "verify-ca", Some(theirs.as_str())),
        ("127.0.0.1", "require", Some(theirs.as_str())),
        ("localhost", "verify-full", None),
    ] {
        let refused = refusal(&by(host, mode, authority)).await;
        let StoreError::Unusable(text) = &refused else { panic!("{host} {mode} {authority:?}: {refused}") };
        assert!(text.contains("sslrootcert"), "{host} {mode} {authority:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_goes_on_when_there_is_room() {
    let small = Small::mount("24m");
    let server = Server::start();
    let world = World::new(open(&server.database_in("small", small.path())).await, "a").await;
    let big = |n: u64| {
        let mut record = record(n, 1);
        // Noise, since the server compresses.
        let noise: String =
            (0..6000_u64).map(|place| char::from(b'!' + u8::try_from((n * 6007 + place * place * 31) % 90).unwrap())).collect();
        record.document.insert("noise".into(), json!(noise));
        AbsorbRecord { change: RecordChange::Insert { record, keys: vec![key(u64::MAX - n)] }, ..inserted(n) }
    };
    let mut stored = 0;
    let full = loop {
        match world.try_absorb((stored + 1..=stored + 50).map(big).collect(), at(1)).await {
            Ok(_) => stored += 50,
            Err(error) => break error,
        }
        assert!(stored < 20_000, "the disk never fills");
    };
    assert!(matches!(&full, StoreError::Full(text) if text.contains("more room")), "{full}");
    assert_eq!(world.snapshot(at(2)).await.live, stored);
    small.resize("96m");
    world.absorb((stored + 1..=stored + 50).map(big).collect(), at(1)).await;
    assert_eq!(world.snapshot(at(2)).await.live, stored + 50);
}

// ---- moving in --------------------------------------------------------------------------------------------------------------------------

/// More rows than go to the server at once, of each kind; and back again.
#[tokio::test(flavor = "multi_thread")]
async fn a_realm_moves_from_sqlite_to_the_server_and_back() {
    let server = Server::start();
    let url = server.database("moved");
    let source: Arc<dyn Store> = Arc::new(SqliteStore::open_in_memory().unwrap());
    books::walk(Arc::clone(&source), &books::steps_from_seed(7, 300)).await;
    let reader = lease(&*source, &format!("reader/{REALM}/{CRM}"), "late", at(100_000)).await.unwrap();
    let world = World { store: Arc::clone(&source), lane: reader.clone(), reader };
    for thousand in 0..3 {
        world.absorb((1..=1000).map(|n| inserted(1000 * thousand + 10_000 + n)).collect(), at(100_000)).await;
    }
    let before = source.snapshot(REALM, at(200_000)).await.unwrap();
    let text = archive::text_of(&*source, None).await;
    let target = open(&url).await;
    let (_, summary) = archive::import(&*target, &text, false, at(200_000)).await.unwrap();
    assert!(summary.rows["record"] > 3000 && summary.rows["lane"] >= 3000, "{summary:?}");
    assert_eq!(archive::rows(&archive::text_of(&*target, None).await), archive::rows(&text));
    assert_eq!(target.snapshot(REALM, at(200_000)).await.unwrap(), before);
    let back = SqliteStore::open_in_memory().unwrap();
    archive::import(&back, &archive::text_of(&*target, Some(REALM)).await, false, at(200_000)).await.unwrap();
    assert_eq!(archive::rows(&archive::text_of(&back, None).await), archive::rows(&text));
    // Who works there sees nothing of an import that is under way, and an import that fails leaves nothing.
    let worse = text.replace("\"lastDelivered\":", "\"lastDelivered\":1");
    let refused = archive::import(&*target, &worse, true, at(200_000)).await.unwrap_err();
    assert!(refused.to_string().contains("their count or digest differs"), "{refused}");
    assert_eq!(target.snapshot(REALM, at(200_000)).await.unwrap(), before);
}

// ---- the schema after, and before ------------------------------------------------------------------------------------------------------------------

/// How many leases somebody holds.
fn held(server: &Server, database: &str) -> String {
    server.sql(database, "SELECT count(*) FROM fairlead.lease WHERE holder IS NOT NULL")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_under_a_schema_that_it_does_not_know_gets_no_lease_and_says_why() {
    let server = Server::start();
    let url = server.database("newer");
    let world = World::new(open(&url).await, "a").await;
    server.sql("newer", "INSERT INTO fairlead.migration (number) VALUES (1000)");
    for holder in ["a", "b"] {
        let keys = vec![world.lane.key.clone()];
        let request = LeaseRequest { keys, holder: holder.into(), ttl: Duration::from_secs(15), now: at(4) };
        match world.store.lease(&request).await {
            Err(StoreError::Unusable(text)) => {
                assert!(text.contains("to schema 1000") && text.contains("replace it by the newer"), "{text}")
            }
            other => panic!("{other:?}"),
        }
    }
    let until = server.sql("newer", &format!("SELECT until FROM fairlead.lease WHERE key = '{}'", world.lane.key));
    assert_eq!(until, at(15).0.to_string(), "it was not prolonged");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_flight_before_lanes_had_partitions_is_found_in_them() {
    let server = Server::start();
    let url = server.database("before");
    let world = World::new(open(&url).await, "a").await;
    world.absorb((1..=16).map(inserted).collect(), at(1)).await;
    assert_eq!(world.claim(at(2)).await.len(), 16);
    // As if the database had only ever seen schema 3, under which a lane was one lease.
    server.sql(
        "before",
        "SET search_path TO fairlead; DELETE FROM migration WHERE number > 3; DROP TABLE past_conflict;
         ALTER TABLE source_book DROP COLUMN conflicts; ALTER TABLE lane_book DROP COLUMN last_delivered; ALTER TABLE realm_book ALTER COLUMN conflicts DROP DEFAULT;
         ALTER TABLE record DROP COLUMN changed_book, DROP COLUMN deleted_book; DROP TABLE guard_count;
         ALTER TABLE lane DROP COLUMN bulk; CREATE INDEX lane_order ON lane (realm, target, phase, due, record);
         DROP INDEX reread_of; ALTER TABLE reread DROP COLUMN bulk, DROP COLUMN asked, ADD PRIMARY KEY (realm, participant, external_id);
         CREATE INDEX reread_order ON reread (realm, participant, since, external_id)",
    );
    assert_eq!(held(&server, "before"), "2");
    let store = open(&url).await;
    assert_eq!(held(&server, "before"), "0", "who still runs under the schema before commits nothing more");
    let late = world.claim_of(1, true, true, at(3));
    assert!(matches!(world.store.claim(&late).await, Err(StoreError::Fenced { .. })));
    let mut found = 0;
    for partition in 0..store.partitions() {
        let lease = lease(&*store, &format!("lane/{REALM}/{ERP}/{partition}"), "b", at(30)).await.unwrap();
        assert_eq!(lease.epoch, 1, "the same number as that of the lease before");
        let fence = LaneFence::new(store.partitions(), BTreeMap::from([(partition, lease)]));
        let claim = Claim { realm: REALM.into(), target: ERP.into(), fence, max: 100, creates: true, bulk: true, now: at(30) };
        found += store.claim(&claim).await.unwrap().len();
    }
    assert_eq!(found, 16);
}

/// While processes are replaced one by one, the newest has migrated and those of the Fairlead before still write.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_fairlead_before_golden_records_writes_is_taken() {
    let server = Server::start();
    let world = World::new(open(&server.database("before")).await, "a").await;
    world.absorb(vec![inserted(1)], at(1)).await;
    server.sql(
        "before",
        "SET search_path TO fairlead;
         INSERT INTO realm_book AS book (realm, live, matched, conflicts, last_delivered) SELECT realm, 0, 0, 1, 5 FROM realm_book
           ON CONFLICT (realm) DO UPDATE SET conflicts = book.conflicts + excluded.conflicts;
         INSERT INTO source_book AS book (realm, participant, read, changed, unchanged, dead_lettered) VALUES (1, 2, 1, 0, 1, 0)
           ON CONFLICT (realm, participant) DO UPDATE SET read = book.read + excluded.read;
         INSERT INTO guard_book AS book (realm, hour, changes, deletes) VALUES (1, 1, 1, 0), (1, 2, 1, 0)
           ON CONFLICT (realm, hour) DO UPDATE SET changes = book.changes + excluded.changes",
    );
    assert_eq!(server.sql("before", "SELECT sum(conflicts) FROM fairlead.realm_book"), "1");
    world.absorb(vec![inserted(2)], at(2)).await;
    assert_eq!(world.snapshot(at(2)).await.live, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_too_old_for_the_schema_is_told_so() {
    let server = Server::start();
    let world = World::new(open(&server.database("newer")).await, "a").await;
    world.absorb(vec![inserted(1)], at(1)).await;
    let refused = async || match world.try_absorb(vec![inserted(2)], at(2)).await.unwrap_err() {
        StoreError::Unusable(text) => text,
        other => panic!("{other:?}"),
    };
    server.sql("newer", "ALTER TABLE fairlead.record RENAME COLUMN provenance TO origin");
    let text = refused().await;
    assert!(text.contains("restore it from a backup"), "{text}");
    server.sql("newer", "INSERT INTO fairlead.migration (number) VALUES (4711)");
    let text = refused().await;
    assert!(text.contains("a newer Fairlead has brought the database to schema 4711") && !text.contains("backup"), "{text}");
}
