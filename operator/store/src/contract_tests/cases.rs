//! The cases, by command.

use super::world::{
    CRM, ERP, REALM, TTL, World, at, crm_id, deleted, delivered, erp_id, id, inserted, lease, letter, record, retry, state, updated,
};
use super::{Case, books};
use crate::{
    Absorb, AbsorbRecord, Checkpoint, CloseDeadLetters, CloseReason, DeadLetterFilter, GuardCounts, Keys, LaneEntry, MatchKey,
    NewDeadLetter, Origin, Outcome, Pending, RecordChange, SourceLedger, Stage, Store, StoreError,
};
use fairlead_model::state::ParticipantState;
use fairlead_model::{ErrorClass, RecordId};
use serde_json::json;
use std::sync::Arc;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// Every case. A case that is not named here is dead code, which the compiler reports.
        pub(super) fn all() -> Vec<Case> {
            vec![$(Case { name: stringify!($name), run: |store| Box::pin($name(store)) }),*]
        }
    };
}

cases![
    a_lease_is_prolonged_for_its_holder_and_refused_to_others,
    an_expired_lease_is_granted_under_a_higher_epoch_even_to_its_former_holder,
    a_released_lease_is_free_at_once_and_its_epoch_rises,
    a_holder_that_was_replaced_commits_nothing,
    a_lease_that_ran_out_and_nobody_took_still_commits,
    an_absorbed_record_is_known_with_all_its_parts,
    what_is_unknown_is_answered_in_its_place,
    a_record_that_changed_meanwhile_is_a_conflict_and_nothing_of_the_batch_stays,
    an_external_id_stands_for_one_record_and_a_record_has_one_per_participant,
    a_state_that_does_not_know_of_a_settled_write_is_a_conflict,
    a_change_that_does_not_know_of_a_write_in_flight_is_a_conflict,
    a_record_that_another_reader_found_first_is_not_inserted_again,
    one_batch_may_hold_a_record_twice,
    every_command_raises_the_sequence_and_a_delivery_keeps_it,
    only_live_records_match_and_their_keys_are_replaced_as_a_whole,
    the_checkpoint_moves_with_its_batch,
    claims_come_oldest_first_and_once,
    a_claim_shows_the_record_as_it_is_now,
    keys_left_in_flight_come_back_under_a_newer_epoch,
    an_intent_outlives_the_epoch_and_ends_with_a_known_outcome,
    an_intent_needs_a_claim,
    an_outcome_that_was_never_found_out_is_looked_up_by_the_next_entry,
    a_retry_waits_for_its_time_and_counts_attempts,
    newer_entries_overtake_waiting_ones_and_leave_their_age,
    an_entry_beside_one_in_flight_stays_when_that_is_settled,
    a_retried_entry_gives_way_to_a_newer_one,
    a_result_that_was_settled_before_is_ignored,
    an_external_id_of_another_record_refuses_the_settlement,
    a_key_waits_for_another_record_until_the_target_holds_it,
    without_creates_only_held_deleted_or_unsure_keys_are_claimed,
    filtered_keys_are_counted_by_reason,
    what_was_learnt_without_a_write_is_kept,
    a_newer_dead_letter_replaces_the_open_one,
    a_good_version_closes_dead_letters_by_itself,
    dead_letters_are_replayed_and_discarded_with_balanced_books,
    dead_letters_are_found_by_filter,
    enqueue_finds_live_records_and_leaves_out_unknown_ones,
    reads_by_key_wait_for_what_they_need,
    the_source_book_counts_every_record_read,
    the_guard_counts_by_hours,
    notes_are_kept_by_name,
    the_snapshot_counts_what_lives_and_what_waits,
    a_forgotten_realm_is_gone_and_its_holders_are_fenced,
    pages_follow_one_another,
    realms_do_not_see_each_other,
    the_books_balance_whatever_happens,
];

// ---- leases -----------------------------------------------------------------------------------------------------------------------------

async fn a_lease_is_prolonged_for_its_holder_and_refused_to_others(store: Arc<dyn Store>) {
    let first = lease(&*store, "k", "a", at(0)).await.unwrap();
    assert_eq!((first.epoch, first.until), (1, at(0).plus(TTL)));
    assert_eq!(lease(&*store, "k", "b", at(14)).await, None);
    let renewed = lease(&*store, "k", "a", at(14)).await.unwrap();
    assert_eq!((renewed.epoch, renewed.until), (1, at(14).plus(TTL)));
    assert_eq!(lease(&*store, "k", "b", at(16)).await, None);
    assert_eq!(lease(&*store, "other", "b", at(16)).await.unwrap().epoch, 1);
}

async fn an_expired_lease_is_granted_under_a_higher_epoch_even_to_its_former_holder(store: Arc<dyn Store>) {
    lease(&*store, "k", "a", at(0)).await.unwrap();
    assert_eq!(lease(&*store, "k", "a", at(15)).await.unwrap().epoch, 2);
    assert_eq!(lease(&*store, "k", "b", at(30)).await.unwrap().epoch, 3);
}

async fn a_released_lease_is_free_at_once_and_its_epoch_rises(store: Arc<dyn Store>) {
    let first = lease(&*store, "k", "a", at(0)).await.unwrap();
    store.release(&first).await.unwrap();
    let second = lease(&*store, "k", "b", at(1)).await.unwrap();
    assert_eq!(second.epoch, 2);
    // A late release by the former holder takes nothing from the present one.
    store.release(&first).await.unwrap();
    assert_eq!(lease(&*store, "k", "a", at(2)).await, None);
}

async fn a_holder_that_was_replaced_commits_nothing(store: Arc<dyn Store>) {
    let paused = World::new(Arc::clone(&store), "a").await;
    paused.absorb(vec![inserted(1), inserted(2)], at(1)).await;
    paused.try_claim(1, true, at(1)).await.unwrap();
    let later = at(20);
    for key in [&paused.reader.key, &paused.lane.key] {
        lease(&*store, key, "b", later).await.unwrap();
    }
    let before = (store.snapshot(REALM, later).await.unwrap(), paused.known(1).await);
    let fenced = |key: &str| StoreError::Fenced { key: key.to_owned() };
    // The paused process still believes that its lease is good.
    assert_eq!(paused.try_absorb(vec![updated(1, 2)], at(2)).await.unwrap_err(), fenced(&paused.reader.key));
    assert_eq!(paused.try_claim(10, true, at(2)).await.unwrap_err(), fenced(&paused.lane.key));
    assert_eq!(paused.intend(&[id(1)], at(2)).await.unwrap_err(), fenced(&paused.lane.key));
    assert_eq!(paused.try_settle(vec![(id(1), 1, delivered(1, 1))], at(2)).await.unwrap_err(), fenced(&paused.lane.key));
    assert_eq!((store.snapshot(REALM, later).await.unwrap(), paused.known(1).await), before);
}

async fn a_lease_that_ran_out_and_nobody_took_still_commits(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1)], at(100)).await;
    assert_eq!(world.claim(at(100)).await.len(), 1);
    // Released, it is nobody's.
    world.store.release(&world.reader).await.unwrap();
    assert!(matches!(world.try_absorb(vec![inserted(2)], at(100)).await, Err(StoreError::Fenced { .. })));
}

// ---- absorb -----------------------------------------------------------------------------------------------------------------------------

async fn an_absorbed_record_is_known_with_all_its_parts(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1)], at(1)).await;
    let known = world.known(1).await.unwrap();
    assert_eq!(known.record, record(1, 1));
    assert_eq!(known.identities.len(), 1);
    let identity = known.identity(CRM).unwrap();
    assert_eq!((&identity.external_id, &identity.state), (&crm_id(1), &state(1)));
    assert_eq!(known.lanes, [LaneEntry { target: ERP.to_owned(), in_flight: false }]);
    assert_eq!(world.store.known_by_external(REALM, CRM, &[crm_id(1)]).await.unwrap(), [Some(known.clone())]);
    // A later version replaces it; a record that stays keeps its document and takes the new state.
    world.absorb(vec![updated(1, 2)], at(2)).await;
    let state = ParticipantState { vendor_version: Some("7".into()), modified: Some(5), settled: 0, deleted: false, ..state(9) };
    let kept = AbsorbRecord { change: RecordChange::Keep { version: 2 }, state: state.clone(), enqueue: Vec::new(), ..inserted(1) };
    world.absorb(vec![kept], at(3)).await;
    let known = world.known(1).await.unwrap();
    assert_eq!((known.record.clone(), &known.identity(CRM).unwrap().state), (record(1, 2), &state));
}

async fn what_is_unknown_is_answered_in_its_place(store: Arc<dyn Store>) {
    assert_eq!(store.known_by_id("nowhere", &[id(1)]).await.unwrap(), [None]);
    let world = World::new(store, "a").await;
    world.in_step([1, 2], at(1)).await;
    let store = &world.store;
    let ids = [id(2), id(9), id(1)];
    assert_eq!(store.external_ids(REALM, ERP, &ids).await.unwrap(), [Some(erp_id(2)), None, Some(erp_id(1))]);
    assert_eq!(store.external_ids(REALM, "nobody", &ids).await.unwrap(), [None, None, None]);
    assert_eq!(store.record_ids(REALM, ERP, &[erp_id(2), erp_id(9)]).await.unwrap(), [Some(id(2)), None]);
    let known = store.known_by_external(REALM, CRM, &[crm_id(9), crm_id(1)]).await.unwrap();
    assert_eq!(known.iter().map(|known| known.as_ref().map(|known| known.record.id)).collect::<Vec<_>>(), [None, Some(id(1))]);
}

async fn a_record_that_changed_meanwhile_is_a_conflict_and_nothing_of_the_batch_stays(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1)], at(1)).await;
    let before = world.snapshot(at(9)).await;
    let kept = |n: u64, version: u64| AbsorbRecord { change: RecordChange::Keep { version }, ..inserted(n) };
    for wrong in [inserted(1), updated(1, 1), updated(1, 3), updated(9, 2), kept(1, 2), kept(9, 1)] {
        let wrong_id = wrong.id;
        let batch = Absorb {
            records: vec![inserted(2), wrong],
            dead_letters: vec![letter(3, Stage::Inbound)],
            rereads: vec![(crm_id(4), None)],
            checkpoint: Some(Checkpoint { slice: "main".into(), cursor: json!(1), complete: true }),
            unchanged: 5,
            guard: GuardCounts { changes: 2, deletes: 1 },
            conflicts: 1,
            ..world.batch(at(2))
        };
        assert_eq!(world.store.absorb(&batch).await.unwrap_err(), StoreError::Conflict(vec![wrong_id]));
    }
    assert_eq!(world.snapshot(at(9)).await, before);
    assert_eq!(world.known(2).await, None);
    assert_eq!(world.store.match_records(REALM, &[MatchKey { hash: u64::MAX - 2 }]).await.unwrap(), [Vec::<RecordId>::new()]);
    assert_eq!(world.store.checkpoint(REALM, CRM, "main").await.unwrap(), None);
    assert!(world.store.pending_reads(REALM, CRM, 10).await.unwrap().is_empty());
    assert_eq!(world.store.changes_since(REALM, at(0)).await.unwrap(), GuardCounts::default());
}

async fn an_external_id_stands_for_one_record_and_a_record_has_one_per_participant(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1), inserted(2)], at(1)).await;
    let theirs = AbsorbRecord { external_id: crm_id(1), ..inserted(3) };
    assert_eq!(world.try_absorb(vec![theirs], at(2)).await.unwrap_err(), StoreError::Conflict(vec![id(3)]));
    let second = AbsorbRecord { external_id: crm_id(7), ..updated(2, 2) };
    assert_eq!(world.try_absorb(vec![second], at(2)).await.unwrap_err(), StoreError::Conflict(vec![id(2)]));
    assert_eq!(world.store.record_ids(REALM, CRM, &[crm_id(1), crm_id(7)]).await.unwrap(), [Some(id(1)), None]);
}

async fn a_state_that_does_not_know_of_a_settled_write_is_a_conflict(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.in_step([1], at(1)).await;
    let erp_reader = lease(&*world.store, "reader/sales/customers/erp", "a", at(1)).await.unwrap();
    let looked_up = world.known(1).await.unwrap().identity(ERP).unwrap().state.clone();
    // Between the reader's look-up and its commit, the lane settles a write.
    world.enqueue(Keys::Records(vec![id(1)]), Origin::Resync, at(2)).await;
    world.claim(at(2)).await;
    world.settle(1, 1, delivered(1, 1), at(2)).await;
    let read = |state: &ParticipantState| Absorb {
        participant: ERP.to_owned(),
        fence: erp_reader.clone(),
        records: vec![AbsorbRecord {
            change: RecordChange::Keep { version: 1 },
            external_id: erp_id(1),
            state: ParticipantState { vendor_version: Some("2".into()), ..state.clone() },
            enqueue: Vec::new(),
            ..inserted(1)
        }],
        ..world.batch(at(3))
    };
    assert_eq!(world.store.absorb(&read(&looked_up)).await.unwrap_err(), StoreError::Conflict(vec![id(1)]));
    let present = world.known(1).await.unwrap().identity(ERP).unwrap().state.clone();
    world.store.absorb(&read(&present)).await.unwrap();
    let stored = world.known(1).await.unwrap().identity(ERP).unwrap().state.clone();
    assert_eq!((stored.settled, stored.vendor_version.as_deref()), (present.settled, Some("2")));
}

async fn a_change_that_does_not_know_of_a_write_in_flight_is_a_conflict(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.in_step([1], at(1)).await;
    let erp_reader = lease(&*world.store, "reader/sales/customers/erp", "a", at(1)).await.unwrap();
    let looked_up = world.known(1).await.unwrap().identity(ERP).unwrap().state.clone();
    // Between the reader's look-up and its commit, the lane claims the record: it will settle by the state it was shown.
    world.enqueue(Keys::Records(vec![id(1)]), Origin::Resync, at(2)).await;
    world.claim(at(2)).await;
    let read = |state: ParticipantState, changed: bool| Absorb {
        participant: ERP.to_owned(),
        fence: erp_reader.clone(),
        records: vec![AbsorbRecord {
            change: RecordChange::Keep { version: 1 },
            external_id: erp_id(1),
            state,
            enqueue: Vec::new(),
            counts_as_changed: changed,
            ..inserted(1)
        }],
        ..world.batch(at(3))
    };
    assert_eq!(world.store.absorb(&read(looked_up.clone(), true)).await.unwrap_err(), StoreError::Conflict(vec![id(1)]));
    // What shows nothing new may be noted.
    world.store.absorb(&read(looked_up, false)).await.unwrap();
    world.settle(1, 1, delivered(1, 1), at(4)).await;
    let present = world.known(1).await.unwrap().identity(ERP).unwrap().state.clone();
    world.store.absorb(&read(present, true)).await.unwrap();
}

async fn a_record_that_another_reader_found_first_is_not_inserted_again(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1)], at(1)).await;
    let same = RecordChange::Insert { record: record(2, 1), match_keys: vec![MatchKey { hash: 5 }, MatchKey { hash: u64::MAX - 1 }] };
    let twin = AbsorbRecord { change: same, ..inserted(2) };
    assert_eq!(world.try_absorb(vec![twin.clone()], at(2)).await.unwrap_err(), StoreError::Conflict(vec![id(2)]));
    // What is deleted matches nothing.
    world.absorb(vec![deleted(1, 2, at(3))], at(3)).await;
    world.absorb(vec![twin], at(4)).await;
}

async fn one_batch_may_hold_a_record_twice(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1), updated(1, 2)], at(1)).await;
    assert_eq!(world.known(1).await.unwrap().record, record(1, 2));
    let book = world.book(CRM).await;
    assert_eq!((book.entered, book.superseded, book.pending), (2, 1, 1));
}

async fn every_command_raises_the_sequence_and_a_delivery_keeps_it(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    let before = world.store.sequence().await.unwrap();
    let absorbed = world.absorb(vec![inserted(1)], at(1)).await.sequence;
    assert!(before < absorbed);
    assert_eq!(world.store.sequence().await.unwrap(), absorbed);
    world.claim(at(1)).await;
    world.settle(1, 1, delivered(1, 1), at(1)).await;
    let settled = world.known(1).await.unwrap().identity(ERP).unwrap().state.settled;
    assert!(settled > absorbed);
    assert_eq!(settled, world.store.sequence().await.unwrap());
}

async fn only_live_records_match_and_their_keys_are_replaced_as_a_whole(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    let key = |hash: u64| MatchKey { hash };
    let with = |n: u64, version: u64, keys: &[u64]| {
        let (record, match_keys) = (record(n, version), keys.iter().map(|hash| key(*hash)).collect());
        let change = if version == 1 { RecordChange::Insert { record, match_keys } } else { RecordChange::Update { record, match_keys } };
        AbsorbRecord { change, state: state(version), ..inserted(n) }
    };
    world.absorb((1..=4).map(|n| with(n, 1, &[n])).collect(), at(1)).await;
    world.absorb(vec![with(1, 2, &[10, 11]), with(2, 2, &[10, 10]), with(3, 2, &[10]), with(4, 2, &[10])], at(1)).await;
    let found = world.store.match_records(REALM, &[key(11), key(10), key(1)]).await.unwrap();
    assert_eq!((found[0].clone(), found[1].len(), found[2].len()), (vec![id(1)], 3, 0));
    world.absorb(vec![with(1, 3, &[11, 12]), deleted(3, 3, at(2)), deleted(4, 3, at(2))], at(2)).await;
    let found = world.store.match_records(REALM, &[key(10), key(11), key(12)]).await.unwrap();
    assert_eq!(found, [vec![id(2)], vec![id(1)], vec![id(1)]]);
}

async fn the_checkpoint_moves_with_its_batch(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    for (cursor, complete) in [(json!({"page": 1}), false), (json!("2026-01-01T00:00:00Z"), true)] {
        let checkpoint = Checkpoint { slice: "main".into(), cursor, complete };
        world.store.absorb(&Absorb { checkpoint: Some(checkpoint.clone()), ..world.batch(at(1)) }).await.unwrap();
        assert_eq!(world.store.checkpoint(REALM, CRM, "main").await.unwrap(), Some(checkpoint));
    }
    assert_eq!(world.store.checkpoint(REALM, CRM, "deletes").await.unwrap(), None);
    assert_eq!(world.store.checkpoint(REALM, ERP, "main").await.unwrap(), None);
}

// ---- claim and settle -------------------------------------------------------------------------------------------------------------------

async fn claims_come_oldest_first_and_once(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(3)], at(1)).await;
    world.absorb(vec![inserted(1)], at(2)).await;
    world.absorb(vec![inserted(2)], at(3)).await;
    let numbers = |claimed: Vec<crate::Claimed>| claimed.iter().map(|key| key.known.record.id).collect::<Vec<_>>();
    assert_eq!(numbers(world.try_claim(2, true, at(4)).await.unwrap()), [id(3), id(1)]);
    assert_eq!(numbers(world.claim(at(4)).await), [id(2)]);
    assert!(world.claim(at(4)).await.is_empty());
}

async fn a_claim_shows_the_record_as_it_is_now(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1)], at(1)).await;
    // A change that this target need not hear of still belongs to what it will be sent.
    world.absorb(vec![AbsorbRecord { enqueue: Vec::new(), ..updated(1, 2) }], at(2)).await;
    let claimed = world.claim(at(3)).await.remove(0);
    assert_eq!(claimed.known.record, record(1, 2));
    assert_eq!((claimed.origin, claimed.since, claimed.attempts, claimed.intent), (Origin::Source(CRM.into()), at(1), 0, None));
    assert_eq!(claimed.known.lanes, [LaneEntry { target: ERP.to_owned(), in_flight: true }]);
    assert_eq!(world.known(1).await.unwrap().lanes, claimed.known.lanes);
    world.settle(1, 2, delivered(1, 2), at(4)).await;
    let known = world.known(1).await.unwrap();
    assert!(known.lanes.is_empty());
    assert_eq!(known.identity(ERP).unwrap().external_id, erp_id(1));
}

async fn keys_left_in_flight_come_back_under_a_newer_epoch(store: Arc<dyn Store>) {
    let dead = World::new(Arc::clone(&store), "a").await;
    dead.absorb(vec![inserted(1), inserted(2), inserted(3)], at(1)).await;
    dead.try_claim(2, true, at(2)).await.unwrap();
    dead.intend(&[id(1)], at(3)).await.unwrap();
    let lane = lease(&*store, &dead.lane.key, "b", at(30)).await.unwrap();
    let heir = World { lane, ..dead };
    // Even when nothing may be created: what was sent must be looked up. What was claimed and never sent waits like any other.
    let unsure = heir.try_claim(10, false, at(30)).await.unwrap();
    let seen: Vec<_> = unsure.iter().map(|key| (key.known.record.id, key.intent.is_some())).collect();
    assert_eq!(seen, [(id(1), true)]);
    let rest = heir.claim(at(31)).await;
    let seen: Vec<_> = rest.iter().map(|key| (key.known.record.id, key.intent.is_some())).collect();
    assert_eq!(seen, [(id(2), false), (id(3), false)]);
    let book = heir.book(CRM).await;
    assert_eq!((book.entered, book.pending), (3, 3));
}

async fn an_intent_outlives_the_epoch_and_ends_with_a_known_outcome(store: Arc<dyn Store>) {
    let mut world = World::new(store, "a").await;
    world.absorb(vec![inserted(1)], at(1)).await;
    world.claim(at(2)).await;
    world.intend(&[id(1)], at(3)).await.unwrap();
    world.lane = lease(&*world.store, &world.lane.key, "b", at(30)).await.unwrap();
    let intent = world.claim(at(30)).await.remove(0).intent.unwrap();
    assert_eq!((intent.at, intent.version, &intent.sent), (at(3), 1, &json!({"to": id(1).to_string()})));
    // The look-up itself failed: still unknown, and what was sent is still told.
    world.settle(1, 1, Outcome::Retry { at: at(31), attempt: false, unknown: true }, at(30)).await;
    assert_eq!(world.claim(at(31)).await.remove(0).intent.unwrap(), intent);
    // Nothing was found, it is sent again, and refused for sure.
    world.intend(&[id(1)], at(32)).await.unwrap();
    world.settle(1, 1, retry(at(33)), at(32)).await;
    assert_eq!(world.claim(at(33)).await.remove(0).intent, None);
    // Sent without an answer.
    world.intend(&[id(1)], at(34)).await.unwrap();
    world.settle(1, 1, Outcome::Retry { at: at(35), attempt: true, unknown: true }, at(34)).await;
    assert!(world.known(1).await.unwrap().lanes[0].in_flight, "a reader must not take what this write may have done for somebody's edit");
    assert_eq!(world.claim(at(35)).await.remove(0).intent.unwrap().at, at(34));
    world.settle(1, 1, delivered(1, 1), at(36)).await;
    world.enqueue(Keys::Records(vec![id(1)]), Origin::Resync, at(37)).await;
    assert_eq!(world.claim(at(37)).await.remove(0).intent, None);
}

async fn an_intent_needs_a_claim(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1), inserted(2)], at(1)).await;
    world.try_claim(1, true, at(2)).await.unwrap();
    assert_eq!(world.intend(&[id(1), id(2), id(9)], at(3)).await.unwrap_err(), StoreError::Conflict(vec![id(2), id(9)]));
    // Nothing of it was committed, so the next epoch need not look anything up.
    world.store.release(&world.lane).await.unwrap();
    let lane = lease(&*world.store, &world.lane.key, "a", at(4)).await.unwrap();
    let heir = World { lane, ..world };
    assert!(heir.claim(at(4)).await.iter().all(|key| key.intent.is_none()));
}

async fn an_outcome_that_was_never_found_out_is_looked_up_by_the_next_entry(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1)], at(1)).await;
    world.claim(at(2)).await;
    world.intend(&[id(1)], at(3)).await.unwrap();
    let lost = NewDeadLetter { class: ErrorClass::UnknownOutcome, reason: "OutcomeUnknown".into(), ..letter(1, Stage::Delivery) };
    world.settle(1, 1, Outcome::DeadLetter(Box::new(lost)), at(4)).await;
    assert!(world.known(1).await.unwrap().lanes.is_empty());
    assert_eq!(world.snapshot(at(5)).await.pending.get(ERP), None);
    assert!(world.claim(at(5)).await.is_empty());
    world.absorb(vec![updated(1, 2)], at(6)).await;
    let claimed = world.claim(at(6)).await.remove(0);
    assert_eq!(claimed.intent.map(|intent| (intent.at, intent.version)), Some((at(3), 1)));
    world.settle(1, 2, delivered(1, 2), at(7)).await;
    world.enqueue(Keys::All, Origin::Resync, at(8)).await;
    assert_eq!(world.claim(at(8)).await.remove(0).intent, None);
}

async fn a_retry_waits_for_its_time_and_counts_attempts(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1)], at(1)).await;
    assert_eq!(world.store.next_due(REALM, ERP).await.unwrap(), None);
    world.claim(at(2)).await;
    world.settle(1, 1, retry(at(10)), at(2)).await;
    assert_eq!(world.store.next_due(REALM, ERP).await.unwrap(), Some(at(10)));
    assert!(world.claim(at(9)).await.is_empty());
    let claimed = world.claim(at(10)).await.remove(0);
    assert_eq!((claimed.attempts, claimed.since), (1, at(1)));
    world.settle(1, 1, Outcome::Retry { at: at(11), attempt: false, unknown: false }, at(10)).await;
    assert_eq!(world.claim(at(11)).await.remove(0).attempts, 1);
    // Put off again, a newer version does not come before its time, and a replay does.
    world.settle(1, 1, retry(at(60)), at(12)).await;
    world.absorb(vec![updated(1, 2)], at(13)).await;
    assert!(world.claim(at(14)).await.is_empty());
    world.enqueue(Keys::Records(vec![id(1)]), Origin::Replay, at(15)).await;
    assert_eq!(world.claim(at(15)).await.remove(0).attempts, 0);
}

async fn newer_entries_overtake_waiting_ones_and_leave_their_age(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1)], at(1)).await;
    world.absorb(vec![updated(1, 2)], at(5)).await;
    world.enqueue(Keys::Records(vec![id(1)]), Origin::Restore, at(6)).await;
    let source = world.book(CRM).await;
    assert_eq!((source.entered, source.superseded, source.pending), (2, 2, 0));
    let claimed = world.claim(at(7)).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!((&claimed[0].origin, claimed[0].since, claimed[0].known.record.version), (&Origin::Restore, at(1), 2));
    world.settle(1, 2, delivered(1, 2), at(8)).await;
    let restore = world.book("Restore").await;
    assert_eq!((restore.entered, restore.delivered, restore.pending), (1, 1, 0));
}

async fn an_entry_beside_one_in_flight_stays_when_that_is_settled(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1)], at(1)).await;
    world.claim(at(2)).await;
    world.absorb(vec![updated(1, 2)], at(3)).await;
    assert!(world.claim(at(4)).await.is_empty(), "one write at a time");
    let book = world.book(CRM).await;
    assert_eq!((book.entered, book.superseded, book.pending), (2, 0, 2));
    assert_eq!(world.snapshot(at(4)).await.pending[ERP], Pending { keys: 1, oldest: Some(at(1)) });
    world.settle(1, 1, delivered(1, 1), at(5)).await;
    let claimed = world.claim(at(5)).await.remove(0);
    assert_eq!((claimed.known.record.version, claimed.since, claimed.attempts), (2, at(3), 0));
    world.settle(1, 2, delivered(1, 2), at(6)).await;
    let book = world.book(CRM).await;
    assert_eq!((book.entered, book.delivered, book.pending), (2, 2, 0));
}

async fn a_retried_entry_gives_way_to_a_newer_one(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1)], at(1)).await;
    world.claim(at(2)).await;
    world.intend(&[id(1)], at(2)).await.unwrap();
    world.absorb(vec![updated(1, 2)], at(3)).await;
    world.settle(1, 1, Outcome::Retry { at: at(9), attempt: true, unknown: true }, at(4)).await;
    let book = world.book(CRM).await;
    assert_eq!((book.entered, book.superseded, book.pending), (2, 1, 1));
    assert!(world.claim(at(8)).await.is_empty());
    let claimed = world.claim(at(9)).await.remove(0);
    assert_eq!((claimed.known.record.version, claimed.since, claimed.attempts), (2, at(1), 1));
    assert_eq!(claimed.intent.map(|intent| intent.version), Some(1));
}

async fn a_result_that_was_settled_before_is_ignored(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1)], at(1)).await;
    world.claim(at(2)).await;
    world.settle(1, 1, delivered(1, 1), at(3)).await;
    let before = world.snapshot(at(9)).await;
    world.settle(1, 1, delivered(1, 1), at(3)).await;
    world.settle(9, 1, delivered(9, 1), at(3)).await;
    assert_eq!(world.snapshot(at(9)).await, before);
}

async fn an_external_id_of_another_record_refuses_the_settlement(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.in_step([1], at(1)).await;
    world.absorb(vec![inserted(2), inserted(3)], at(2)).await;
    world.claim(at(2)).await;
    let before = world.snapshot(at(9)).await;
    let theirs = Outcome::Delivered { external_id: erp_id(1), state: state(1) };
    let refused = world.try_settle(vec![(id(3), 1, delivered(3, 1)), (id(2), 1, theirs)], at(3)).await;
    assert_eq!(refused.unwrap_err(), StoreError::Conflict(vec![id(2)]));
    assert_eq!(world.snapshot(at(9)).await, before);
    world.settle(2, 1, Outcome::DeadLetter(Box::new(letter(2, Stage::Delivery))), at(4)).await;
    world.settle(3, 1, delivered(3, 1), at(4)).await;
    let book = world.book(CRM).await;
    assert_eq!((book.delivered, book.dead_lettered, book.pending), (2, 1, 0));
}

async fn a_key_waits_for_another_record_until_the_target_holds_it(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1), inserted(2), inserted(3), inserted(4)], at(1)).await;
    world.claim(at(2)).await;
    let wait = |n: u64| Outcome::WaitFor { record: id(n) };
    world.settle(1, 1, wait(2), at(3)).await;
    world.settle(4, 1, wait(3), at(3)).await;
    assert!(world.claim(at(100)).await.is_empty());
    assert_eq!(world.snapshot(at(100)).await.pending[ERP], Pending { keys: 4, oldest: Some(at(1)) });
    // One arrives by a delivery, the other because the ERP itself is read.
    world.settle(2, 1, delivered(2, 1), at(4)).await;
    assert_eq!(world.claim(at(4)).await.remove(0).known.record.id, id(1));
    world.settle(3, 1, wait(77), at(4)).await;
    let erp_reader = lease(&*world.store, "reader/sales/customers/erp", "a", at(1)).await.unwrap();
    let read = AbsorbRecord { change: RecordChange::Keep { version: 1 }, external_id: erp_id(3), enqueue: Vec::new(), ..inserted(3) };
    let batch = Absorb { participant: ERP.to_owned(), fence: erp_reader, records: vec![read], ..world.batch(at(5)) };
    world.store.absorb(&batch).await.unwrap();
    assert_eq!(world.claim(at(5)).await.remove(0).known.record.id, id(4));
    // What is there already is not waited for.
    world.settle(4, 1, wait(3), at(6)).await;
    assert_eq!(world.claim(at(6)).await.remove(0).known.record.id, id(4));
    // A newer version of what waits may no longer have to.
    assert!(world.claim(at(7)).await.is_empty());
    world.absorb(vec![updated(3, 2)], at(8)).await;
    assert_eq!(world.claim(at(8)).await.remove(0).known.record.id, id(3));
}

async fn without_creates_only_held_deleted_or_unsure_keys_are_claimed(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.in_step([1], at(1)).await;
    world.absorb(vec![updated(1, 2), inserted(2), inserted(3), inserted(4), inserted(5)], at(2)).await;
    world.absorb(vec![deleted(3, 2, at(3))], at(3)).await;
    let erp_reader = lease(&*world.store, "reader/sales/customers/erp", "a", at(1)).await.unwrap();
    let read = AbsorbRecord { change: RecordChange::Keep { version: 1 }, external_id: erp_id(4), enqueue: Vec::new(), ..inserted(4) };
    let batch = Absorb { participant: ERP.to_owned(), fence: erp_reader, records: vec![read], ..world.batch(at(4)) };
    world.store.absorb(&batch).await.unwrap();
    let claimed = world.try_claim(10, false, at(5)).await.unwrap();
    let mut numbers: Vec<_> = claimed.iter().map(|key| key.known.record.id).collect();
    numbers.sort();
    assert_eq!(numbers, [id(1), id(3), id(4)]);
    // A deleted record that comes to life again is one to create.
    world.settle(3, 2, retry(at(6)), at(5)).await;
    world.absorb(vec![updated(3, 3)], at(6)).await;
    assert!(world.try_claim(10, false, at(7)).await.unwrap().is_empty());
    assert_eq!(world.claim(at(7)).await.len(), 3);
}

async fn filtered_keys_are_counted_by_reason(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb((1..=3).map(inserted).collect(), at(1)).await;
    world.claim(at(2)).await;
    for (n, reason) in [(1, "When"), (2, "When"), (3, "NeverCreated")] {
        world.settle(n, 1, Outcome::Filtered { reason: reason.to_owned() }, at(3)).await;
    }
    let book = world.book(CRM).await;
    assert_eq!(book.filtered.into_iter().collect::<Vec<_>>(), [("NeverCreated".to_owned(), 1), ("When".to_owned(), 2)]);
    assert!(world.known(1).await.unwrap().lanes.is_empty());
}

async fn what_was_learnt_without_a_write_is_kept(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1), inserted(2)], at(1)).await;
    world.claim(at(2)).await;
    world.settle(1, 1, Outcome::Unchanged { learnt: Some((erp_id(1), state(1))) }, at(3)).await;
    world.settle(2, 1, Outcome::Unchanged { learnt: None }, at(3)).await;
    assert_eq!(world.known(1).await.unwrap().identity(ERP).unwrap().external_id, erp_id(1));
    assert_eq!(world.known(2).await.unwrap().identity(ERP), None);
    let snapshot = world.snapshot(at(4)).await;
    assert_eq!((world.book(CRM).await.unchanged, snapshot.matched, snapshot.last_delivered), (2, 1, None));
}

// ---- dead letters -----------------------------------------------------------------------------------------------------------------------

fn open_letters() -> DeadLetterFilter {
    DeadLetterFilter { realm: Some(REALM.to_owned()), max: 100, ..DeadLetterFilter::default() }
}

async fn a_newer_dead_letter_replaces_the_open_one(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1)], at(1)).await;
    for (version, now) in [(1, at(2)), (2, at(4))] {
        world.claim(now).await;
        world.settle(1, version, Outcome::DeadLetter(Box::new(letter(1, Stage::Delivery))), now).await;
        let book = world.book(CRM).await;
        assert_eq!((book.dead_lettered, book.superseded, book.pending), (1, version - 1, 0));
        world.absorb(vec![updated(1, version + 1)], now).await;
    }
    let all = world.store.dead_letters(&DeadLetterFilter { closed: true, ..open_letters() }).await.unwrap();
    assert_eq!(
        all.iter().map(|letter| letter.closed.as_ref().map(|closed| closed.0)).collect::<Vec<_>>(),
        [None, Some(CloseReason::Superseded)]
    );
    // Another stage, another record and another participant are other letters.
    let batch = Absorb {
        dead_letters: vec![letter(1, Stage::Inbound), letter(1, Stage::Identity), letter(2, Stage::Inbound), letter(2, Stage::Inbound)],
        ..world.batch(at(5))
    };
    world.store.absorb(&batch).await.unwrap();
    assert_eq!(world.store.dead_letters(&open_letters()).await.unwrap().len(), 4);
    let snapshot = world.snapshot(at(6)).await;
    assert_eq!((snapshot.dead_letters[CRM], snapshot.dead_letters[ERP], snapshot.sources[CRM].dead_lettered), (3, 1, 4));
}

async fn a_good_version_closes_dead_letters_by_itself(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    let batch = Absorb { dead_letters: vec![letter(1, Stage::Inbound), letter(2, Stage::Inbound)], ..world.batch(at(1)) };
    world.store.absorb(&batch).await.unwrap();
    let ids = [crm_id(1), crm_id(3)];
    assert_eq!(world.store.dead_lettered(REALM, CRM, &ids).await.unwrap(), [true, false]);
    world.absorb(vec![inserted(1)], at(2)).await;
    assert_eq!(world.store.dead_lettered(REALM, CRM, &ids).await.unwrap(), [false, false]);
    assert_eq!(world.snapshot(at(3)).await.dead_letters[CRM], 1);
    world.claim(at(3)).await;
    world.settle(1, 1, Outcome::DeadLetter(Box::new(letter(1, Stage::Outbound))), at(3)).await;
    // Reading the record well says nothing of its delivery.
    world.absorb(vec![updated(1, 2)], at(4)).await;
    assert_eq!(world.book(CRM).await.dead_lettered, 1);
    world.claim(at(5)).await;
    world.settle(1, 2, delivered(1, 2), at(5)).await;
    let book = world.book(CRM).await;
    assert_eq!((book.dead_lettered, book.superseded, book.delivered), (0, 1, 1));
}

async fn dead_letters_are_replayed_and_discarded_with_balanced_books(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1), inserted(2), inserted(3)], at(1)).await;
    world.claim(at(2)).await;
    for n in [1, 2, 3] {
        world.settle(n, 1, Outcome::DeadLetter(Box::new(letter(n, Stage::Delivery))), at(2)).await;
    }
    let numbers: Vec<i64> = world.store.dead_letters(&open_letters()).await.unwrap().iter().map(|letter| letter.id).collect();
    let discard = CloseDeadLetters { ids: vec![numbers[0], 4711], reason: CloseReason::Discarded, author: "kim".into(), now: at(3) };
    assert_eq!(world.store.close_dead_letters(&discard).await.unwrap(), 1);
    assert_eq!(world.store.close_dead_letters(&discard).await.unwrap(), 0, "closed is closed");
    let book = world.book(CRM).await;
    assert_eq!((book.discarded, book.dead_lettered), (1, 2));
    assert_eq!(world.enqueue(Keys::DeadLetters, Origin::Replay, at(4)).await, 2);
    let (source, replay) = (world.book(CRM).await, world.book("Replay").await);
    assert_eq!((source.superseded, source.dead_lettered, replay.entered, replay.pending), (2, 0, 2, 2));
    let closed = world.store.dead_letters(&DeadLetterFilter { closed: true, ..open_letters() }).await.unwrap();
    let reasons: Vec<_> = closed.iter().map(|letter| letter.closed.clone().unwrap()).collect();
    assert_eq!(reasons[0], (CloseReason::Discarded, at(3), "kim".to_owned()));
    assert_eq!((reasons[1].0, reasons[2].0), (CloseReason::Replayed, CloseReason::Replayed));
}

async fn dead_letters_are_found_by_filter(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    let batch = Absorb { dead_letters: (1..=3).map(|n| letter(n, Stage::Inbound)).collect(), ..world.batch(at(1)) };
    world.store.absorb(&batch).await.unwrap();
    let all = world.store.dead_letters(&open_letters()).await.unwrap();
    assert_eq!(all.iter().map(|found| found.letter.clone()).collect::<Vec<_>>(), [3, 2, 1].map(|n| letter(n, Stage::Inbound)));
    assert!(all.iter().all(|found| found.realm == REALM && found.at == at(1) && found.closed.is_none()));
    let find = async |filter: DeadLetterFilter| world.store.dead_letters(&filter).await.unwrap().len();
    assert_eq!(find(DeadLetterFilter { max: 2, ..open_letters() }).await, 2);
    assert_eq!(find(DeadLetterFilter { ids: vec![all[1].id, 4711], ..open_letters() }).await, 1);
    assert_eq!(find(DeadLetterFilter { participant: Some(CRM.into()), ..open_letters() }).await, 3);
    assert_eq!(find(DeadLetterFilter { participant: Some("nobody".into()), ..open_letters() }).await, 0);
    assert_eq!(find(DeadLetterFilter { realm: Some("nowhere".into()), ..open_letters() }).await, 0);
    assert_eq!(find(DeadLetterFilter { realm: None, ..open_letters() }).await, 3);
}

// ---- the rest ---------------------------------------------------------------------------------------------------------------------------

async fn enqueue_finds_live_records_and_leaves_out_unknown_ones(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.in_step([1, 2, 3], at(1)).await;
    world.absorb(vec![AbsorbRecord { enqueue: Vec::new(), ..deleted(3, 2, at(2)) }], at(2)).await;
    assert_eq!(world.enqueue(Keys::Records(vec![id(3), id(9)]), Origin::Repair, at(3)).await, 1);
    assert_eq!(world.enqueue(Keys::All, Origin::Remap, at(4)).await, 2);
    assert_eq!(world.claim(at(5)).await.len(), 3);
    assert_eq!((world.book("Remap").await.entered, world.book("Repair").await.entered), (2, 1));
}

async fn reads_by_key_wait_for_what_they_need(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.store.request_reads(REALM, CRM, &[crm_id(5), crm_id(4)], at(1)).await.unwrap();
    let batch = Absorb { rereads: vec![(crm_id(6), Some(crm_id(1))), (crm_id(7), None)], ..world.batch(at(2)) };
    world.store.absorb(&batch).await.unwrap();
    let due = async |max: usize| world.store.pending_reads(REALM, CRM, max).await.unwrap();
    assert_eq!(due(10).await, [crm_id(4), crm_id(5), crm_id(7)]);
    assert_eq!(due(1).await, [crm_id(4)]);
    world.absorb(vec![inserted(1)], at(3)).await;
    assert_eq!(due(10).await, [crm_id(4), crm_id(5), crm_id(6), crm_id(7)]);
    // Done, and asked for again in the same batch: what it waits for is there by now.
    let batch = Absorb {
        reread_done: vec![crm_id(4), crm_id(5), crm_id(6)],
        rereads: vec![(crm_id(6), Some(crm_id(1))), (crm_id(5), Some(crm_id(99)))],
        ..world.batch(at(4))
    };
    world.store.absorb(&batch).await.unwrap();
    assert_eq!(due(10).await, [crm_id(7), crm_id(6)]);
    // A request without a condition prevails.
    world.store.request_reads(REALM, CRM, &[crm_id(5)], at(5)).await.unwrap();
    assert_eq!(due(10).await.len(), 3);
}

async fn the_source_book_counts_every_record_read(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    let kept = AbsorbRecord { change: RecordChange::Keep { version: 1 }, counts_as_changed: false, ..inserted(1) };
    let batch = Absorb {
        records: vec![inserted(1), inserted(2), kept],
        dead_letters: vec![letter(3, Stage::Inbound), letter(4, Stage::Identity)],
        unchanged: 4,
        conflicts: 2,
        ..world.batch(at(1))
    };
    world.store.absorb(&batch).await.unwrap();
    let snapshot = world.snapshot(at(2)).await;
    assert_eq!(snapshot.sources[CRM], SourceLedger { read: 9, changed: 2, unchanged: 5, dead_lettered: 2 });
    assert_eq!(snapshot.conflicts, 2);
}

async fn the_guard_counts_by_hours(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    for hour in 0..3 {
        let guard = GuardCounts { changes: 10, deletes: 1 };
        world.store.absorb(&Absorb { guard, ..world.batch(at(hour * 3600)) }).await.unwrap();
    }
    let since = async |seconds: i64| world.store.changes_since(REALM, at(seconds)).await.unwrap();
    assert_eq!(since(0).await, GuardCounts { changes: 30, deletes: 3 });
    assert_eq!(since(2 * 3600).await, GuardCounts { changes: 10, deletes: 1 });
    assert_eq!(since(3 * 3600).await, GuardCounts::default());
}

async fn notes_are_kept_by_name(store: Arc<dyn Store>) {
    assert_eq!(store.note(REALM, "resync").await.unwrap(), None);
    for value in [json!("first"), json!({"token": 2})] {
        store.put_note(REALM, "resync", &value).await.unwrap();
        assert_eq!(store.note(REALM, "resync").await.unwrap(), Some(value));
    }
    assert_eq!(store.note(REALM, "other").await.unwrap(), None);
    assert_eq!(store.note("nowhere", "resync").await.unwrap(), None);
}

async fn the_snapshot_counts_what_lives_and_what_waits(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.in_step([1, 2], at(1)).await;
    world.absorb(vec![inserted(3)], at(2)).await;
    let snapshot = world.snapshot(at(3)).await;
    assert_eq!((snapshot.live, snapshot.matched, snapshot.last_delivered), (3, 2, Some(at(1))));
    assert_eq!(snapshot.pending[ERP], Pending { keys: 1, oldest: Some(at(2)) });
    world.claim(at(3)).await;
    world.settle(3, 1, retry(at(50)), at(4)).await;
    // What waits for its time is not late.
    assert_eq!(world.snapshot(at(5)).await.pending[ERP], Pending { keys: 1, oldest: None });
    assert_eq!(world.snapshot(at(50)).await.pending[ERP], Pending { keys: 1, oldest: Some(at(2)) });
    world.absorb(vec![deleted(1, 2, at(6))], at(6)).await;
    let snapshot = world.snapshot(at(7)).await;
    assert_eq!((snapshot.live, snapshot.matched), (2, 1));
    world.absorb(vec![updated(1, 3)], at(8)).await;
    let snapshot = world.snapshot(at(9)).await;
    assert_eq!((snapshot.live, snapshot.matched), (3, 2));
}

async fn a_forgotten_realm_is_gone_and_its_holders_are_fenced(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.in_step([1], at(1)).await;
    world.absorb(vec![inserted(2)], at(2)).await;
    let batch = Absorb {
        dead_letters: vec![letter(3, Stage::Inbound)],
        rereads: vec![(crm_id(4), None)],
        checkpoint: Some(Checkpoint { slice: "main".into(), cursor: json!(1), complete: true }),
        guard: GuardCounts { changes: 1, deletes: 1 },
        ..world.batch(at(2))
    };
    world.store.absorb(&batch).await.unwrap();
    world.store.put_note(REALM, "resync", &json!(1)).await.unwrap();
    world.store.put_note("sales/customers-eu", "resync", &json!(2)).await.unwrap();
    let neighbour = lease(&*world.store, "lane/sales/customers-eu/erp", "a", at(2)).await.unwrap();
    assert_eq!(world.store.realms().await.unwrap(), [REALM, "sales/customers-eu"]);
    world.store.forget(REALM).await.unwrap();
    assert_eq!(world.store.realms().await.unwrap(), ["sales/customers-eu"]);
    assert_eq!(world.snapshot(at(3)).await, crate::Snapshot::default());
    assert_eq!(world.known(1).await, None);
    assert_eq!(world.store.checkpoint(REALM, CRM, "main").await.unwrap(), None);
    assert_eq!(world.store.note(REALM, "resync").await.unwrap(), None);
    assert!(world.store.pending_reads(REALM, CRM, 10).await.unwrap().is_empty());
    assert!(world.store.dead_letters(&DeadLetterFilter { closed: true, ..open_letters() }).await.unwrap().is_empty());
    // Who still runs brings nothing back; neighbours go on; a new beginning has a higher epoch.
    assert!(matches!(world.try_absorb(vec![inserted(5)], at(3)).await, Err(StoreError::Fenced { .. })));
    assert_eq!(lease(&*world.store, &neighbour.key, "a", at(3)).await.unwrap().epoch, neighbour.epoch);
    let reader = lease(&*world.store, &world.reader.key, "b", at(3)).await.unwrap();
    assert_eq!(reader.epoch, world.reader.epoch + 1);
    let anew = World { reader, ..world };
    anew.absorb(vec![inserted(1)], at(4)).await;
    assert_eq!(anew.snapshot(at(5)).await.live, 1);
}

async fn pages_follow_one_another(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.in_step(1..=7, at(1)).await;
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = world.store.records(REALM, after, 3).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.record.id);
        seen.extend(page.into_iter().map(|known| known.record.id));
    }
    assert_eq!(seen, (1..=7).map(id).collect::<Vec<_>>());
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = world.store.participant_ids(REALM, ERP, after.as_ref(), 3).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        seen.extend(page);
    }
    assert_eq!(seen, (1..=7).map(erp_id).collect::<Vec<_>>());
}

async fn realms_do_not_see_each_other(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1)], at(1)).await;
    let other = Absorb { realm: "sales/other".into(), records: vec![inserted(1)], ..world.batch(at(2)) };
    // The same ids, another record: an Integration keeps its own.
    world.store.absorb(&other).await.unwrap();
    world.absorb(vec![updated(1, 2)], at(3)).await;
    let theirs = world.store.known_by_id("sales/other", &[id(1)]).await.unwrap().remove(0).unwrap();
    assert_eq!(theirs.record.version, 1);
    assert_eq!(world.store.snapshot("sales/other", at(4)).await.unwrap().live, 1);
    assert_eq!(world.claim(at(4)).await.len(), 1);
    assert_eq!(world.store.snapshot("sales/other", at(4)).await.unwrap().pending[ERP].keys, 1);
}

/// A fixed walk through the space that the property test searches; see [`books`].
async fn the_books_balance_whatever_happens(store: Arc<dyn Store>) {
    let seed = 20_260_101;
    println!("seed {seed}");
    books::walk(store, &books::steps_from_seed(seed, 400)).await;
}
