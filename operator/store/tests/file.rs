//! What is particular to a store in a file: several processes on it, files that are not ours, older and newer schemas, its end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use fairlead_store::contract_tests::world::{CRM, REALM, World, at, crm_id, id, inserted, lease, record, state};
use fairlead_store::{Absorb, Haste, SqliteStore, Store, StoreError};
use rusqlite::{Connection, params};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

async fn open(path: &Path) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(path).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nested/store.db");
    let (first, second) = (open(&path).await, open(&path).await);
    let mine = World::new(Arc::clone(&first), "first").await;
    assert_eq!(lease(&*second, &mine.lane.key, "second", at(1)).await, None);
    // Both commit at once, each under its own leases, and neither loses or waits for ever.
    let work = |store: Arc<dyn Store>, realm: &'static str, fence: fairlead_store::Fence| async move {
        let world = World { store, reader: fence.clone(), lane: fence };
        for n in 0..60 {
            let batch = Absorb { realm: realm.into(), records: vec![inserted(n)], ..world.batch(at(1)) };
            world.store.absorb(&batch).await.unwrap();
        }
    };
    let theirs = lease(&*second, "reader/other/crm", "second", at(0)).await.unwrap();
    let before = first.sequence().await.unwrap();
    tokio::join!(work(Arc::clone(&first), REALM, mine.reader.clone()), work(Arc::clone(&second), "other", theirs));
    assert_eq!(first.sequence().await.unwrap(), before + 120);
    assert_eq!(first.snapshot("other", at(1)).await.unwrap().live, 60);
    assert_eq!(second.snapshot(REALM, at(1)).await.unwrap().live, 60);
    // The first is paused past its lease; the second takes over; the first wakes up and commits nothing.
    let heir = lease(&*second, &mine.reader.key, "second", at(100)).await.unwrap();
    assert_eq!(heir.epoch, mine.reader.epoch + 1);
    assert!(matches!(mine.try_absorb(vec![inserted(999)], at(2)).await, Err(StoreError::Fenced { .. })));
    assert_eq!(second.snapshot(REALM, at(100)).await.unwrap().live, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_come_at_once_are_each_answered_for_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(open(&folder.path().join("store.db")).await, "a").await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200 {
        let world = world.clone();
        // Every fourth repeats another's record, so that one of the two is a conflict.
        let number = if n % 4 == 3 { n - 1 } else { n };
        tasks.spawn(async move { world.try_absorb(vec![inserted(number)], at(1)).await });
    }
    let (mut good, mut refused) = (0, 0);
    while let Some(done) = tasks.join_next().await {
        match done.unwrap() {
            Ok(_) => good += 1,
            Err(StoreError::Conflict(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((good, refused), (150, 50));
    assert_eq!(world.snapshot(at(2)).await.live, 150);
}

#[tokio::test]
async fn what_was_sent_before_the_end_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = Arc::new(SqliteStore::open(&path).unwrap());
    assert_eq!(store.path(), Some(path.as_path()));
    let world = World::new(store.clone(), "a").await;
    world.absorb(vec![inserted(1)], at(1)).await;
    store.close().await;
    assert_eq!(world.try_absorb(vec![inserted(2)], at(1)).await.unwrap_err(), StoreError::Other("the store is closed".into()));
    drop((world, store));
    let again = open(&path).await;
    assert_eq!(again.known_by_id(REALM, &[id(1)]).await.unwrap()[0].as_ref().unwrap().record, record(1, 1));
}

#[tokio::test]
async fn a_file_that_is_not_ours_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "not a database, ".repeat(100)).unwrap();
    let before = std::fs::read(&text).unwrap();
    assert!(matches!(SqliteStore::open(&text), Err(StoreError::Unusable(_))));
    assert_eq!(std::fs::read(&text).unwrap(), before);

    let foreign = folder.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1);").unwrap();
    let before = std::fs::read(&foreign).unwrap();
    let Err(StoreError::Unusable(message)) = SqliteStore::open(&foreign) else { panic!("a foreign file was opened") };
    assert_eq!(message, "the file is a SQLite database, but not a Fairlead store; name another file");
    assert_eq!(std::fs::read(&foreign).unwrap(), before);
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_both_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    drop(SqliteStore::open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 4711).unwrap();
    let Err(StoreError::Unusable(message)) = SqliteStore::open(&path) else { panic!("a newer schema was opened") };
    assert!(message.starts_with("the file has schema 4711 and this Fairlead knows schemas up to "), "{message}");
}

#[tokio::test]
async fn a_damaged_file_is_named_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let world = World::new(open(&path).await, "a").await;
    world.absorb((1..200).map(inserted).collect(), at(1)).await;
    drop(world);
    let mut bytes = std::fs::read(&path).unwrap();
    let from = 2 * 8192;
    bytes[from..].fill(0xA5);
    std::fs::write(&path, bytes).unwrap();
    let outcome = match SqliteStore::open(&path) {
        Err(error) => Err(error),
        Ok(store) => store.known_by_external(REALM, CRM, &[crm_id(1)]).await,
    };
    assert!(matches!(outcome, Err(StoreError::Unusable(_))), "{outcome:?}");
}

/// A file as schema 1 made it, with rows as they were written then. A later schema must still read them.
#[tokio::test]
async fn a_store_of_schema_1_is_opened_with_all_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../migrations/sqlite/0001.sql")).unwrap();
    old.pragma_update(None, "application_id", 0x464C_4544).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    old.execute_batch(
        "INSERT INTO name VALUES (1, 'sales/customers'), (2, 'crm'), (3, 'erp');
         UPDATE store SET sequence = 77;
         INSERT INTO lease VALUES ('lane/sales/customers/erp', 'gone', 6, 0);
         INSERT INTO match_key VALUES (1, -2, 1);
         INSERT INTO identity VALUES (1, 2, 1, 'c1', 12, '{\"f\":{\"name\":{\"s\":1}}}');
         INSERT INTO lane VALUES (1, 3, 1, 3, 5, 0, 2, NULL, NULL, NULL, NULL, 2, 4, 1, 6, 5, 5, 1, '{\"to\":\"erp\"}');
         INSERT INTO lane_book VALUES (1, 3, 2, 1, 0, 0, 0, 0);
         INSERT INTO reread VALUES (1, 2, 'c1', 5, NULL), (1, 2, 'c2', 9000000000000, NULL);
         INSERT INTO realm_book VALUES (1, 1, 0, 0, NULL);
         INSERT INTO checkpoint VALUES (1, 2, 'main', '{\"page\":3}', 1);
         INSERT INTO note VALUES (1, 'resync', '\"t\"');",
    )
    .unwrap();
    let document = serde_json::to_string(&record(1, 1).document).unwrap();
    let provenance = r#"{"name":{"p":"crm","t":1790000000000}}"#;
    old.execute(
        "INSERT INTO record VALUES (1, 1, ?1, 1, 2, NULL, ?2, ?3, ?4)",
        params![id(1).0.as_bytes(), (u64::MAX - 1).to_le_bytes(), provenance, document],
    )
    .unwrap();
    drop(old);

    let store = open(&path).await;
    assert_eq!(store.sequence().await.unwrap(), 77);
    let lane = lease(&*store, "lane/sales/customers/erp", "new", at(1)).await.unwrap();
    assert_eq!(lane.epoch, 7);
    let world = World { store, reader: lane.clone(), lane };
    let claimed = world.claim(at(1)).await.remove(0);
    assert_eq!(claimed.known.record, record(1, 1));
    let identity = claimed.known.identity(CRM).unwrap();
    assert_eq!((identity.external_id.clone(), identity.state.settled), (crm_id(1), 12));
    assert_eq!(identity.state.fields, state(1).fields);
    assert_eq!((claimed.attempts, claimed.intent.unwrap().sent), (2, json!({"to": "erp"})));
    assert_eq!(world.snapshot(at(1)).await.live, 1);
    let key = fairlead_store::contract_tests::world::key(u64::MAX - 1);
    assert_eq!(world.store.match_records(REALM, &[key]).await.unwrap(), [vec![id(1)]]);
    assert!(world.store.checkpoint(REALM, CRM, "main").await.unwrap().unwrap().complete);
    // What was put behind the time to come was asked for in bulk.
    for (haste, n) in [(Haste::Soon, 1), (Haste::Bulk, 2)] {
        assert_eq!(world.store.pending_reads_of(REALM, CRM, haste, 9).await.unwrap(), [crm_id(n)]);
    }
}
