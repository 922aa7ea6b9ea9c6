//! What is exported is imported as it was, wherever it goes, and never half.

use super::world::{CRM, ERP, REALM, World, at, contested, crm_id, deleted, id, inserted, key, lease, letter, merge_into, retry, updated};
use crate::archive::{self, Head, Options, Summary};
use crate::{
    Absorb, BeginWrite, Checkpoint, CloseDeadLetters, CloseReason, DeadLetterFilter, Fate, FieldChange, Guarded, Keys, Merge, Origin,
    Outcome, SqliteStore, Stage, Store, StoreError, WriteBegun,
};
use fairlead_model::{ExternalId, Timestamp};
use serde_json::json;
use std::io::{Cursor, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What an export writes.
pub async fn text_of(store: &dyn Store, only: Option<&str>) -> String {
    let paper = Paper::default();
    archive::export(store, only, at(5000), paper.clone()).await.unwrap();
    String::from_utf8(std::mem::take(&mut *paper.0.lock().unwrap())).unwrap()
}

/// The lines of a text but the first, which tells of the database, and the last, whose digest is over that, too.
#[must_use]
pub fn rows(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().skip(1).collect();
    lines.pop();
    lines
}

/// Imports a text.
///
/// # Errors
/// The store's.
pub async fn import(store: &dyn Store, text: &str, replace: bool, now: Timestamp) -> Result<(Head, Summary), StoreError> {
    archive::import(store, Cursor::new(text.to_owned()), Options { replace, behind: false, now }).await
}

fn begin(scope: &str, now: Timestamp) -> BeginWrite {
    let (held, keep) = (Duration::from_secs(10), Duration::from_secs(100_000));
    BeginWrite { scope: scope.to_owned(), fingerprint: "x".to_owned(), held, keep, now }
}

fn memory() -> Arc<dyn Store> {
    Arc::new(SqliteStore::open_in_memory().unwrap())
}

/// A realm with something of everything: lanes in every phase, letters in every state, a merge, and names that databases find hard.
async fn fill(store: Arc<dyn Store>, holder: &str) -> World {
    let world = World::new(store, holder).await;
    world.in_step(1..=4, at(1)).await;
    let batch = Absorb {
        records: vec![updated(1, 2), inserted(5), inserted(6), inserted(7)],
        dead_letters: vec![letter(21, Stage::Inbound), letter(22, Stage::Identity)],
        rereads: vec![
            (crm_id(30), None),
            (crm_id(31), Some(crm_id(32))),
            (crm_id(31), Some(crm_id(33))),
            (ExternalId("a\0b\u{E000}".into()), None),
        ],
        checkpoint: Some(Checkpoint { slice: "main".into(), cursor: json!({"from": "2026-01-01", "pages": 3}), complete: true }),
        unchanged: 2,
        guard: Guarded { book: Some("europe/customers".into()), changed: vec![id(1)], deleted: vec![id(2)] },
        history: vec![
            contested(3, "credit"),
            FieldChange { fate: Fate::Won, ..contested(1, "name") },
            FieldChange::of_existence(id(1), Fate::Conflict),
        ],
        ..world.batch(at(2))
    };
    world.store.absorb(&batch).await.unwrap();
    world.claim(at(3)).await;
    world.intend(&[id(1), id(5)], at(3)).await.unwrap();
    let lost = Outcome::DeadLetter(Box::new(letter(6, Stage::Delivery)));
    let unknown = Outcome::Retry { at: at(60), attempt: true, unknown: true };
    world.try_settle(vec![(id(6), 1, lost), (id(5), 1, unknown), (id(7), 1, Outcome::WaitFor { record: id(5) })], at(4)).await.unwrap();
    // The first is in flight, and a newer version waits beside it.
    world.enqueue(Keys::Records(vec![id(1), id(4)]), Origin::Repair, at(5)).await;
    world.absorb(vec![deleted(2, 2, at(6))], at(6)).await;
    world
        .store
        .merge(&Merge { guard: Guarded { deleted: vec![id(3)], ..Guarded::default() }, ..merge_into(&world, (3, 1), (4, 1), at(7)) })
        .await
        .unwrap();
    let letters = world.store.dead_letters(&DeadLetterFilter { max: 9, ..DeadLetterFilter::default() }).await.unwrap();
    let first = letters.last().unwrap().id;
    let close = CloseDeadLetters { ids: vec![first], reason: CloseReason::Edited, author: "kim".into(), now: at(8) };
    world.store.close_dead_letters(&close).await.unwrap();
    let again =
        Absorb { dead_letters: vec![crate::NewDeadLetter { parent: Some(first), ..letter(21, Stage::Inbound) }], ..world.batch(at(9)) };
    world.store.absorb(&again).await.unwrap();
    for (name, value) in [
        ("resync", json!(null)),
        ("index", json!({"digest": u64::MAX, "fields": ["name"], "complete": true, "after": null})),
        (&*format!("{}{first}", archive::CORRECTED), json!({"letter": first, "author": "kim"})),
        (&*format!("{}crm/c21", archive::CORRECTION), json!({"letter": first, "author": "kim"})),
        ("of/crm/a\0b\u{E000}", json!(1)),
    ] {
        world.store.put_note(REALM, name, &value).await.unwrap();
    }
    world
}

pub(super) async fn what_is_exported_is_imported_as_it_was(store: Arc<dyn Store>) {
    let world = fill(Arc::clone(&store), "a").await;
    assert_eq!(store.begin_write(&begin("scope", at(9))).await, Ok(WriteBegun::Fresh));
    store.finish_write("scope", "{\"status\":201}").await.unwrap();
    store.put_note("sales/other", "resync", &json!(1)).await.unwrap();
    let text = text_of(&*store, None).await;
    for word in [
        "record",
        "merged",
        "identity",
        "lane",
        "checkpoint",
        "reread",
        "letter",
        "note",
        "laneBook",
        "sourceBook",
        "realmBook",
        "guardBook",
        "conflict",
        "epoch",
        "write",
    ] {
        assert!(text.contains(&format!("\n{{\"{word}\":")), "nothing is told of {word}:\n{text}");
    }
    // Into another database, and from there back over what is here.
    let other = memory();
    let (head, summary) = import(&*other, &text, false, at(5000)).await.unwrap();
    assert_eq!(head.realms, [REALM, "sales/other"]);
    assert_eq!((summary.rows["record"], summary.rows["merged"], summary.rows["write"]), (7, 1, 1));
    let there = text_of(&*other, None).await;
    assert_eq!(rows(&there), rows(&text));
    assert_eq!(other.snapshot(REALM, at(10)).await.unwrap(), world.snapshot(at(10)).await);
    assert!(other.sequence().await.unwrap() >= store.sequence().await.unwrap());
    import(&*store, &there, true, at(5000)).await.unwrap();
    assert_eq!(rows(&text_of(&*store, None).await), rows(&text));
    // Whoever goes on finds what was in flight, with its intent, and its books balance to the end.
    let (history, guard) = (world.store.history(REALM, id(1), at(10)).await.unwrap(), Guarded::default());
    assert_eq!(history.len(), 2);
    let guards = [guard.clone(), Guarded { book: Some("europe/customers".into()), ..guard }];
    for store in [other, store] {
        assert_eq!(store.history(REALM, id(1), at(10)).await.unwrap(), history);
        let mut counted = Vec::new();
        for guard in &guards {
            let counts = store.changes_since(REALM, at(0), guard).await.unwrap();
            counted.push((counts.changes, counts.deletes));
        }
        assert_eq!(counted, [(0, 1), (1, 1)], "each book is its own");
        let heir = World::new(Arc::clone(&store), "heir").await;
        assert_eq!(heir.lane.epoch, world.lane.epoch + 1);
        let claimed = heir.claim(at(6000)).await;
        let mut seen: Vec<_> = claimed.iter().map(|key| (key.known.record.id, key.intent.is_some())).collect();
        seen.sort_unstable();
        assert_eq!(seen, [(id(1), true), (id(2), false), (id(4), false), (id(5), true)]);
        let results = claimed.iter().map(|key| (key.known.record.id, key.known.record.version, retry(at(7000)))).collect();
        heir.try_settle(results, at(6000)).await.unwrap();
        heir.snapshot(at(6000)).await;
        assert_eq!(store.match_records(REALM, &[key(u64::MAX - 5), key(u64::MAX - 3)]).await.unwrap(), [vec![id(5)], vec![]]);
        assert_eq!(store.begin_write(&begin("scope", at(10))).await, Ok(WriteBegun::Done("{\"status\":201}".into())));
        assert_eq!(store.record_ids(REALM, CRM, &[crm_id(3)]).await.unwrap(), [Some(id(4))], "an alias resolves");
    }
}

pub(super) async fn an_import_is_all_or_nothing_and_asks_for_an_empty_realm_that_nobody_works_on(store: Arc<dyn Store>) {
    let (source, target) = (fill(memory(), "a").await, World::new(Arc::clone(&store), "b").await);
    let text = text_of(&*source.store, Some(REALM)).await;
    let refused = async |text: &str, replace: bool, now: Timestamp, said: &str| {
        let before = text_of(&*store, None).await;
        match import(&*store, text, replace, now).await {
            Err(StoreError::Refused(what)) => assert!(what.contains(said), "{what}"),
            other => panic!("{said}: {other:?}"),
        }
        assert_eq!(rows(&text_of(&*store, None).await), rows(&before), "{said}");
    };
    refused(&text, false, at(1), "somebody works on sales/customers (the lease lane/sales/customers/erp is held)").await;
    refused(&text, true, at(1), "somebody works on sales/customers").await;
    target.absorb(vec![inserted(9)], at(2)).await;
    refused(&text, false, at(100), "the store holds something of sales/customers already").await;
    // What is wrong near the end undoes what was read before.
    let cut = &text[..text.len() - 10];
    refused(cut, true, at(100), "was cut off").await;
    refused(&text.replace("\"live\":", "\"alive\":"), true, at(100), "realmBook.").await;
    let strange = text.lines().find(|line| line.starts_with("{\"identity\"")).unwrap();
    let twice = text.replace(strange, &format!("{strange}\n{strange}"));
    refused(&twice, true, at(100), "contradicts the lines before it").await;
    let homeless = text.replace(strange, &strange.replace(&id(1).to_string(), &id(99).to_string()));
    refused(&homeless, true, at(100), "contradicts the lines before it").await;
    refused(&text.replace("\"format\":6", "\"format\":99"), true, at(100), "format 99").await;
    let missing = archive::export(&*store, Some("no/where"), at(1), std::io::sink()).await;
    assert!(matches!(&missing, Err(StoreError::Refused(what)) if what.contains("it holds sales/customers")), "{missing:?}");
    // The lease has run out, but its holder only sleeps: it finds that it is the holder no more.
    import(&*store, &text, true, at(100)).await.unwrap();
    assert!(matches!(target.try_absorb(vec![inserted(8)], at(101)).await, Err(StoreError::Fenced { .. })));
    assert_eq!(store.known_by_id(REALM, &[id(9)]).await.unwrap(), [None], "what was there before");
}

pub(super) async fn epochs_and_the_sequence_never_go_back(store: Arc<dyn Store>) {
    let source = memory();
    let lane = format!("lane/{REALM}/{ERP}");
    for now in [0, 100, 200] {
        lease(&*source, &lane, "x", at(now)).await.unwrap();
    }
    source.put_note(REALM, "some", &json!(1)).await.unwrap();
    let reader = format!("reader/{REALM}/{CRM}");
    for now in [0, 100, 200, 300] {
        lease(&*store, &reader, "y", at(now)).await.unwrap();
        lease(&*store, "reader/sales/other/crm", "y", at(now)).await.unwrap();
    }
    let before = store.sequence().await.unwrap().max(source.sequence().await.unwrap());
    import(&*store, &text_of(&*source, None).await, false, at(1000)).await.unwrap();
    assert!(store.sequence().await.unwrap() >= before);
    let epochs = [(lane.as_str(), 4), (reader.as_str(), 5), ("reader/sales/other/crm", 5)];
    for (key, epoch) in epochs {
        assert_eq!(lease(&*store, key, "z", at(1000)).await.unwrap().epoch, epoch, "{key}");
    }
}

pub(super) async fn imported_letters_get_numbers_that_nobody_else_has(store: Arc<dyn Store>) {
    let source = fill(memory(), "a").await;
    let text = text_of(&*source.store, Some(REALM)).await;
    // Another realm's letters have the same numbers here.
    let fence = lease(&*store, "reader/sales/other/crm", "b", at(0)).await.unwrap();
    let theirs =
        Absorb { dead_letters: (1..9).map(|n| letter(n, Stage::Inbound)).collect(), ..Absorb::empty("sales/other", CRM, fence, at(1)) };
    store.absorb(&theirs).await.unwrap();
    import(&*store, &text, false, at(1000)).await.unwrap();
    let letters = |realm: &str| {
        let filter = DeadLetterFilter { realm: Some(realm.into()), closed: true, max: 99, ..DeadLetterFilter::default() };
        let store = Arc::clone(&store);
        async move { store.dead_letters(&filter).await.unwrap() }
    };
    let (ours, others) = (letters(REALM).await, letters("sales/other").await);
    assert_eq!((ours.len(), others.len()), (4, 8));
    assert!(ours.iter().all(|ours| others.iter().all(|other| other.id < ours.id)));
    let (child, first) = (&ours[0], ours.last().unwrap());
    assert_eq!(child.letter.parent, Some(first.id));
    let corrected = store.note(REALM, &format!("{}{}", archive::CORRECTED, first.id)).await.unwrap();
    assert_eq!(corrected.unwrap()["letter"], json!(first.id));
    let waits = store.note(REALM, &format!("{}crm/c21", archive::CORRECTION)).await.unwrap();
    assert_eq!(waits.unwrap()["letter"], json!(first.id));
    // The next one is new.
    let fence = lease(&*store, "reader/sales/other/crm", "b", at(2000)).await.unwrap();
    let next = Absorb { dead_letters: vec![letter(40, Stage::Inbound)], ..Absorb::empty("sales/other", CRM, fence, at(2000)) };
    store.absorb(&next).await.unwrap();
    assert!(letters("sales/other").await[0].id > ours[0].id);
    // Where nobody has them, numbers stay.
    let fresh = memory();
    import(&*fresh, &text, false, at(1000)).await.unwrap();
    assert_eq!(rows(&text_of(&*fresh, None).await), rows(&text));
}

/// Letters of several realms are numbered as they come, so that those of one lie between those of another.
pub(super) async fn letters_keep_their_numbers_where_nobody_else_has_them(store: Arc<dyn Store>) {
    let mut realms = Vec::new();
    for realm in ["a/a", "b/b"] {
        realms.push((realm, lease(&*store, &format!("reader/{realm}/{CRM}"), "a", at(0)).await.unwrap()));
    }
    for n in 0..6 {
        for (realm, fence) in &realms {
            let dead_letters = vec![letter(n, Stage::Inbound)];
            store.absorb(&Absorb { dead_letters, ..Absorb::empty(*realm, CRM, fence.clone(), at(1)) }).await.unwrap();
        }
    }
    let (both, one) = (text_of(&*store, None).await, text_of(&*store, Some("a/a")).await);
    let fresh = memory();
    import(&*fresh, &both, false, at(1000)).await.unwrap();
    assert_eq!(rows(&text_of(&*fresh, None).await), rows(&both));
    import(&*store, &one, true, at(1000)).await.unwrap();
    assert_eq!(rows(&text_of(&*store, None).await), rows(&both), "one put back between the other's");
}

pub(super) async fn what_a_connector_was_asked_is_no_realm_and_is_carried_along(store: Arc<dyn Store>) {
    store.put_note(REALM, "resync", &json!(1)).await.unwrap();
    let connector = fairlead_model::realm::of_connector(&fairlead_model::unit::ObjectKey("sales/crm".into()));
    store.put_note(&connector, "requests", &json!({"day": 20_000, "requests": 7})).await.unwrap();
    assert_eq!(store.begin_write(&begin("scope", at(9))).await, Ok(WriteBegun::Fresh));
    assert_eq!(store.realms().await.unwrap(), [REALM]);
    let refused = archive::export(&*store, Some(&connector), at(1), std::io::sink()).await;
    assert!(matches!(&refused, Err(StoreError::Refused(what)) if what.contains("it holds sales/customers")), "{refused:?}");
    let text = text_of(&*store, None).await;
    let fresh = memory();
    import(&*fresh, &text, false, at(1000)).await.unwrap();
    assert_eq!(fresh.note(&connector, "requests").await.unwrap().unwrap()["requests"], json!(7));
    // Where it is known how often it was asked, that is not forgotten for an older count, nor does it stand in the way.
    for store in [store, fresh] {
        store.put_note(&connector, "requests", &json!({"day": 20_000, "requests": 9})).await.unwrap();
        store.forget(REALM).await.unwrap();
        for replace in [false, true] {
            import(&*store, &text, replace, at(2000)).await.unwrap();
            assert_eq!(store.note(&connector, "requests").await.unwrap().unwrap()["requests"], json!(9));
            assert_eq!(store.note(REALM, "resync").await.unwrap(), Some(json!(1)));
        }
        assert_eq!(store.begin_write(&begin("scope", at(9))).await, Ok(WriteBegun::Running));
    }
}
