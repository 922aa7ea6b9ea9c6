//! The cases, by command.

use super::archive::{
    an_import_is_all_or_nothing_and_asks_for_an_empty_realm_that_nobody_works_on, epochs_and_the_sequence_never_go_back,
    imported_letters_get_numbers_that_nobody_else_has, letters_keep_their_numbers_where_nobody_else_has_them,
    what_a_connector_was_asked_is_no_realm_and_is_carried_along, what_is_exported_is_imported_as_it_was,
};
use super::world::{
    CRM, ERP, REALM, TTL, World, at, contested, crm_id, deleted, delivered, erp_id, id, inserted, key, lease, leases, letter, merge_into,
    record, retry, split_off, state, updated,
};
use super::{Case, books};
use crate::archive;
use crate::{
    Absorb, AbsorbRecord, BeginWrite, Checkpoint, Claim, Claimed, CloseDeadLetters, CloseReason, DeadLetterFilter, Fate, FieldChange,
    GuardCounts, Guarded, HISTORY_FOR, HISTORY_PER_RECORD, HISTORY_VALUE, Haste, Identity, IndexKey, IndexState, Intend, Keys, LaneEntry,
    LaneFence, Merge, NewDeadLetter, Origin, Outcome, PastChange, Pending, Record, RecordChange, Referring, Reindex, SetCheckpoint, Settle,
    Settlement, SourceLedger, Split, Stage, Standing, Store, StoreError, Survivor, Sweep, WAITS_FOR, WriteBegun,
};
use fairlead_model::hash::{RangeHash, ValueHash};
use fairlead_model::state::ParticipantState;
use fairlead_model::{ErrorClass, RecordId, Timestamp};
use serde_json::{Value, json};
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
    several_leases_are_taken_at_once_each_on_its_own,
    leases_are_listed_while_they_are_held,
    a_holder_that_was_replaced_commits_nothing,
    a_lease_that_ran_out_and_nobody_took_still_commits,
    an_absorbed_record_is_known_with_all_its_parts,
    what_is_unknown_is_answered_in_its_place,
    a_range_is_hashed_by_what_was_last_seen_of_it,
    a_record_that_changed_meanwhile_is_a_conflict_and_nothing_of_the_batch_stays,
    an_external_id_stands_for_one_record_and_a_record_has_one_per_participant,
    a_state_that_does_not_know_of_a_settled_write_is_a_conflict,
    a_change_that_does_not_know_of_a_write_in_flight_is_a_conflict,
    a_record_that_another_reader_found_first_is_not_inserted_again,
    one_batch_may_hold_a_record_twice,
    every_command_raises_the_sequence_and_a_delivery_keeps_it,
    live_records_match_first_and_keys_are_replaced_as_a_whole,
    records_are_found_by_a_field_in_pages_and_may_share_it,
    stored_records_get_other_keys_unless_they_changed_meanwhile,
    the_checkpoint_moves_with_its_batch,
    a_checkpoint_that_a_person_sets_makes_the_reader_begin_anew,
    claims_come_oldest_first_and_once,
    a_claim_shows_the_record_as_it_is_now,
    keys_left_in_flight_come_back_under_a_newer_epoch,
    holders_of_partitions_share_a_lane,
    a_partition_that_moves_takes_its_keys_along,
    a_merge_moves_an_entry_to_the_partition_of_the_survivor,
    an_intent_outlives_the_epoch_and_ends_with_a_known_outcome,
    an_intent_needs_a_claim,
    an_outcome_that_was_never_found_out_is_looked_up_by_the_next_entry,
    what_is_wanted_soon_is_claimed_before_what_has_time,
    a_retry_waits_for_its_time_and_counts_attempts,
    newer_entries_overtake_waiting_ones_and_leave_their_age,
    an_entry_beside_one_in_flight_stays_when_that_is_settled,
    a_retried_entry_gives_way_to_a_newer_one,
    a_result_that_was_settled_before_is_ignored,
    an_external_id_of_another_record_refuses_the_settlement,
    a_key_waits_for_another_record_until_the_target_holds_it,
    what_waits_is_claimed_when_its_time_is_up,
    what_changes_while_it_waits_keeps_its_age_and_that_it_waited,
    what_waits_for_a_record_that_will_never_come_is_due_again,
    what_waits_is_no_open_write,
    without_creates_only_held_deleted_or_unsure_keys_are_claimed,
    filtered_keys_are_counted_by_reason,
    a_dead_letter_of_what_does_not_belong_there_any_more_closes,
    a_merged_record_lives_on_in_its_survivor,
    a_second_external_id_becomes_an_alias_that_resolves_and_is_not_absorbed,
    a_merge_folds_lanes_and_letters_with_balanced_books,
    a_merge_rewrites_what_refers_to_the_loser_and_frees_what_waited_for_it,
    a_merge_waits_for_writes_that_are_open,
    a_merge_is_a_conflict_when_a_record_changed_meanwhile_and_repeats_without_effect,
    merges_follow_one_another,
    a_record_goes_on_under_another_external_id,
    what_is_written_elsewhere_holds_up_another_external_id_of_a_deleted_record_alone,
    what_was_learnt_without_a_write_is_kept,
    what_was_wrong_with_a_record_that_is_gone_is_over,
    what_was_learnt_outlives_a_write_that_failed_then,
    records_that_wait_for_each_other_are_made_one_without_the_other,
    a_creation_without_a_known_outcome_is_told_until_it_has_one,
    a_newer_dead_letter_replaces_the_open_one,
    a_good_version_closes_dead_letters_by_itself,
    dead_letters_are_replayed_and_discarded_with_balanced_books,
    records_that_an_open_letter_names_are_told,
    a_letter_stays_until_its_correction_has_a_result,
    dead_letters_are_found_by_filter,
    what_was_closed_long_ago_is_removed_step_by_step_and_what_is_open_never,
    enqueue_finds_live_records_and_leaves_out_unknown_ones,
    reads_by_key_wait_for_what_they_need,
    reads_that_are_wanted_soon_come_before_those_that_have_time,
    a_read_is_done_for_those_who_asked_before_it_began,
    the_source_book_counts_every_record_read,
    the_guard_counts_each_record_once_in_its_window,
    the_guard_counts_each_record_in_the_book_of_its_last_change,
    history_is_kept_by_record_the_newest_and_for_a_while,
    the_history_of_a_merged_record_is_its_survivors,
    what_leaves_a_record_is_one_of_its_own,
    an_alias_leaves_its_record_and_another_one_stays,
    a_split_is_a_conflict_when_anything_of_it_has_changed_and_leaves_nothing_then,
    a_split_waits_for_writes_that_are_open,
    notes_are_kept_by_name,
    a_note_is_replaced_only_where_it_is_as_it_was_known,
    nothing_that_is_added_to_a_note_is_lost,
    a_write_past_the_lane_is_entered_and_delivered_at_once,
    a_write_with_a_key_is_done_once_and_its_answer_kept,
    a_key_without_an_answer_is_free_again_when_its_process_died_or_gave_it_up,
    a_key_is_remembered_as_long_as_was_said,
    the_snapshot_counts_what_lives_and_what_waits,
    a_forgotten_realm_is_gone_and_its_holders_are_fenced,
    forgotten_participants_leave_the_records_and_what_others_hold,
    pages_follow_one_another,
    realms_do_not_see_each_other,
    the_books_balance_whatever_happens,
    what_is_exported_is_imported_as_it_was,
    an_import_is_all_or_nothing_and_asks_for_an_empty_realm_that_nobody_works_on,
    epochs_and_the_sequence_never_go_back,
    imported_letters_get_numbers_that_nobody_else_has,
    letters_keep_their_numbers_where_nobody_else_has_them,
    what_a_connector_was_asked_is_no_realm_and_is_carried_along,
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

async fn several_leases_are_taken_at_once_each_on_its_own(store: Arc<dyn Store>) {
    lease(&*store, "b", "other", at(0)).await.unwrap();
    let taken = leases(&*store, ["c", "b", "a"], "mine", at(1)).await;
    let told: Vec<_> = taken.iter().map(|fence| fence.as_ref().map(|fence| (fence.key.as_str(), fence.epoch))).collect();
    assert_eq!(told, [Some(("c", 1)), None, Some(("a", 1))]);
    // One is renewed, one was let go, one has run out.
    store.release(taken[0].as_ref().unwrap()).await.unwrap();
    let again: Vec<_> =
        leases(&*store, ["a", "b", "c"], "mine", at(15)).await.into_iter().map(|fence| fence.map(|fence| fence.epoch)).collect();
    assert_eq!(again, [Some(1), Some(2), Some(2)]);
}

async fn leases_are_listed_while_they_are_held(store: Arc<dyn Store>) {
    assert_eq!(store.leases(at(0)).await.unwrap(), []);
    let first = lease(&*store, "reader/r/a", "one", at(0)).await.unwrap();
    let second = lease(&*store, "lane/r/a/0", "two", at(5)).await.unwrap();
    assert_eq!(store.leases(at(6)).await.unwrap(), [second.clone(), first.clone()]);
    assert_eq!(store.leases(at(15)).await.unwrap(), std::slice::from_ref(&second), "the first has run out");
    store.release(&second).await.unwrap();
    assert_eq!(store.leases(at(6)).await.unwrap(), [first]);
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
    assert_eq!(known.lanes, [LaneEntry { target: ERP.to_owned(), in_flight: false, attempts: 0 }]);
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

async fn a_range_is_hashed_by_what_was_last_seen_of_it(store: Arc<dyn Store>) {
    let range = |records: &[(u64, u64)]| {
        let mut range = RangeHash::default();
        records.iter().for_each(|(n, seen)| range.add(crm_id(*n).as_str(), [ValueHash(*seen)]));
        Some(range.finish())
    };
    let world = World::new(store, "a").await;
    world.absorb((1..=3).map(inserted).collect(), at(1)).await;
    let seen = async |records: &[u64], field: &str| {
        let ids: Vec<_> = records.iter().map(|n| crm_id(*n)).collect();
        world.store.seen(REALM, CRM, &ids, &[field.into()]).await.unwrap()
    };
    assert_eq!(seen(&[1, 2, 3], "name").await, range(&[(1, 1), (2, 1), (3, 1)]));
    assert_eq!(seen(&[3, 1], "name").await, range(&[(3, 1), (1, 1)]), "in the order asked for");
    world.absorb(vec![updated(2, 2)], at(2)).await;
    assert_eq!(seen(&[1, 2, 3], "name").await, range(&[(1, 1), (2, 2), (3, 1)]));
    for (story, records, field) in [("one is unknown", &[1, 9][..], "name"), ("a field was never seen", &[1, 2], "amount")] {
        assert_eq!(seen(records, field).await, None, "{story}");
    }
    let mut edited = state(2);
    edited.fields.values_mut().for_each(|field| field.edited = true);
    for (story, state) in [("edited", edited), ("deleted", ParticipantState { deleted: true, ..state(2) })] {
        let kept = AbsorbRecord { change: RecordChange::Keep { version: 2 }, state, enqueue: Vec::new(), ..inserted(2) };
        world.absorb(vec![kept], at(3)).await;
        assert_eq!(seen(&[1, 2], "name").await, None, "{story}");
        assert_eq!(seen(&[1, 3], "name").await, range(&[(1, 1), (3, 1)]), "{story}");
    }
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
            guard: guarded([1], [1]),
            history: vec![contested(1, "credit")],
            ..world.batch(at(2))
        };
        assert_eq!(world.store.absorb(&batch).await.unwrap_err(), StoreError::Conflict(vec![wrong_id]));
    }
    assert_eq!(world.snapshot(at(9)).await, before);
    assert_eq!(world.known(2).await, None);
    assert_eq!(world.store.match_records(REALM, &[key(u64::MAX - 2)]).await.unwrap(), [Vec::<RecordId>::new()]);
    assert_eq!(world.store.checkpoint(REALM, CRM, "main").await.unwrap(), None);
    assert!(world.store.pending_reads(REALM, CRM, 10).await.unwrap().is_empty());
    assert_eq!(world.store.changes_since(REALM, at(0), &Guarded::default()).await.unwrap(), GuardCounts::default());
    assert!(world.store.history(REALM, id(1), at(9)).await.unwrap().is_empty());
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
    let same = RecordChange::Insert { record: record(2, 1), keys: vec![key(5), key(u64::MAX - 1)] };
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

async fn live_records_match_first_and_keys_are_replaced_as_a_whole(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    let with = |n: u64, version: u64, keys: &[u64]| {
        let (record, keys) = (record(n, version), keys.iter().map(|hash| key(*hash)).collect());
        let change = if version == 1 { RecordChange::Insert { record, keys } } else { RecordChange::Update { record, keys } };
        AbsorbRecord { change, state: state(version), ..inserted(n) }
    };
    world.absorb((1..=4).map(|n| with(n, 1, &[n])).collect(), at(1)).await;
    world.absorb(vec![with(1, 2, &[10, 11]), with(2, 2, &[10, 10]), with(3, 2, &[10]), with(4, 2, &[10])], at(1)).await;
    let found = world.store.match_records(REALM, &[key(11), key(10), key(1)]).await.unwrap();
    assert_eq!((found[0].clone(), found[1].len(), found[2].len()), (vec![id(1)], 3, 0));
    world.absorb(vec![with(1, 3, &[11, 12]), deleted(3, 3, at(2)), deleted(4, 3, at(2))], at(2)).await;
    let found = world.store.match_records(REALM, &[key(10), key(11), key(12)]).await.unwrap();
    assert_eq!(found, [vec![id(2)], vec![id(1)], vec![id(1)]]);
    // What is deleted and keeps keys matches where nothing else does.
    let kept = |n: u64, deleted_at, keys: &[u64]| {
        let keys = keys.iter().map(|hash| key(*hash)).collect();
        let AbsorbRecord { change: RecordChange::Update { record, .. }, .. } = deleted(n, 4, deleted_at) else {
            panic!("a deletion is an update")
        };
        AbsorbRecord { change: RecordChange::Update { record, keys }, ..deleted(n, 4, deleted_at) }
    };
    world.absorb(vec![kept(3, at(3), &[10, 13]), kept(4, at(2), &[13])], at(3)).await;
    let found = world.store.match_records(REALM, &[key(10), key(13)]).await.unwrap();
    assert_eq!(found, [vec![id(2)], vec![id(3), id(4)]], "the one deleted last first");
    world.absorb(vec![with(5, 1, &[13])], at(4)).await;
    assert_eq!(world.store.match_records(REALM, &[key(13)]).await.unwrap(), [vec![id(5)]], "nor is it in the way of a new one");
}

/// The key of the field `country`.
fn country(value: &str) -> IndexKey {
    IndexKey::of_field(&"country".parse().unwrap(), &json!(value))
}

async fn records_are_found_by_a_field_in_pages_and_may_share_it(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    let with = |n: u64, keys: Vec<IndexKey>| AbsorbRecord { change: RecordChange::Insert { record: record(n, 1), keys }, ..inserted(n) };
    // They arrive in another order than that of their ids, and stay in the order in which they came.
    for n in [5, 1, 4, 2, 3] {
        world.absorb(vec![with(n, vec![country("DE"), key(n)])], at(1)).await;
    }
    world.absorb(vec![with(6, vec![country("FR"), key(6)])], at(1)).await;
    world.absorb(vec![deleted(4, 2, at(2))], at(2)).await;
    let page = async |value: &str, after: Option<u64>, max: usize| -> Vec<RecordId> {
        let found = world.store.find(REALM, country(value), after.map(id), max).await.unwrap();
        found.into_iter().map(|known| known.record.id).collect()
    };
    assert_eq!(page("DE", None, 2).await, [id(5), id(1)]);
    assert_eq!(page("DE", Some(1), 2).await, [id(2), id(3)]);
    assert_eq!(page("DE", Some(3), 2).await, []);
    // A page goes on after a record that was deleted meanwhile, and not after one that nobody knows.
    assert_eq!(page("DE", Some(4), 9).await, [id(2), id(3)]);
    assert_eq!(page("DE", Some(99), 9).await, []);
    assert_eq!(page("FR", None, 9).await, [id(6)]);
    assert_eq!(world.store.find(REALM, country("FR"), None, 1).await.unwrap()[0].record, record(6, 1));
    // A field is no match rule, and a match rule is no field.
    assert_eq!(world.store.match_records(REALM, &[country("XX"), key(6)]).await.unwrap(), [vec![], vec![id(6)]]);
}

async fn stored_records_get_other_keys_unless_they_changed_meanwhile(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb((1..=3).map(inserted).collect(), at(1)).await;
    let state = |after| IndexState { digest: 7, fields: vec!["country".parse().unwrap()], complete: false, after: Some(id(after)) };
    let reindex = async |records: Vec<(u64, u64)>, after: u64| {
        let records = records.into_iter().map(|(n, version)| (id(n), version, vec![country("DE"), key(100 + n)])).collect();
        world.store.reindex(&Reindex { realm: REALM.into(), records, state: state(after), note: IndexState::NOTE.into() }).await
    };
    let found = async |key: IndexKey| world.store.find(REALM, key, None, 9).await.unwrap().len();
    world.absorb(vec![updated(2, 2)], at(2)).await;
    assert_eq!(reindex(vec![(1, 1), (2, 1), (9, 1)], 9).await, Err(StoreError::Conflict(vec![id(2), id(9)])));
    assert_eq!((found(country("DE")).await, world.store.note(REALM, IndexState::NOTE).await.unwrap()), (0, None));

    let before = world.known(1).await;
    reindex(vec![(1, 1), (2, 2)], 2).await.unwrap();
    assert_eq!(world.known(1).await, before, "the record is what it was");
    assert_eq!(found(country("DE")).await, 2);
    let matched = world.store.match_records(REALM, &[key(101), key(u64::MAX - 1), key(u64::MAX - 3)]).await.unwrap();
    assert_eq!(matched, [vec![id(1)], vec![], vec![id(3)]], "the former keys are gone where the new ones are");
    let note = world.store.note(REALM, IndexState::NOTE).await.unwrap().unwrap();
    assert_eq!(serde_json::from_value::<IndexState>(note).unwrap(), state(2));
    // What is absorbed later replaces all keys as ever.
    world.absorb(vec![updated(1, 2)], at(3)).await;
    assert_eq!((found(country("DE")).await, found(key(u64::MAX - 1)).await), (1, 1));
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

async fn a_checkpoint_that_a_person_sets_makes_the_reader_begin_anew(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    let main = Checkpoint { slice: "main".into(), cursor: json!({"from": "2026-02-01"}), complete: true };
    let deletes = Checkpoint { slice: "deletes".into(), cursor: json!(null), complete: false };
    for (checkpoint, now) in [(&main, 1), (&deletes, 2)] {
        world.store.absorb(&Absorb { checkpoint: Some(checkpoint.clone()), ..world.batch(at(now)) }).await.unwrap();
    }
    let standing = |checkpoint: &Checkpoint, now| Standing { participant: CRM.into(), checkpoint: checkpoint.clone(), at: Some(at(now)) };
    assert_eq!(world.store.checkpoints(REALM).await.unwrap(), [standing(&deletes, 2), standing(&main, 1)]);
    assert!(world.store.checkpoints("no/where").await.unwrap().is_empty());

    let set = SetCheckpoint {
        realm: REALM.into(),
        participant: CRM.into(),
        before: main.clone(),
        cursor: json!({"from": "2026-01-01"}),
        lease: world.reader.key.clone(),
        note: ("checkpoint/crm/main".into(), json!({"author": "mia"})),
        now: at(3),
    };
    // The reader went on since somebody looked.
    let moved = SetCheckpoint { before: Checkpoint { cursor: json!({"from": "2026-01-31"}), ..main.clone() }, ..set.clone() };
    assert_eq!(world.store.set_checkpoint(&moved).await, Err(StoreError::Conflict(Vec::new())));
    world.absorb(vec![inserted(1)], at(3)).await;
    world.store.set_checkpoint(&set).await.unwrap();
    assert_eq!(world.store.checkpoint(REALM, CRM, "main").await.unwrap(), Some(Checkpoint { cursor: set.cursor.clone(), ..main.clone() }));
    assert_eq!(world.store.note(REALM, "checkpoint/crm/main").await.unwrap(), Some(json!({"author": "mia"})));
    // What it read from there comes too late, and the lane is nobody's concern.
    let late = Absorb { checkpoint: Some(main), ..world.batch(at(4)) };
    assert!(matches!(world.store.absorb(&late).await, Err(StoreError::Fenced { .. })));
    assert_eq!(world.claim(at(4)).await.len(), 1);
    let again = lease(&*world.store, &world.reader.key, "a", at(4)).await.unwrap();
    assert_eq!(again.epoch, world.reader.epoch + 1);
}

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
    assert_eq!(claimed.known.lanes, [LaneEntry { target: ERP.to_owned(), in_flight: true, attempts: 0 }]);
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

/// Leases on partitions of the ERP's lane, which has four.
async fn partitions(store: &dyn Store, wanted: &[u32], holder: &str, now: Timestamp) -> LaneFence {
    let keys: Vec<String> = wanted.iter().map(|partition| format!("lane/{REALM}/{ERP}/{partition}")).collect();
    let fences = leases(store, keys.iter().map(String::as_str), holder, now).await;
    LaneFence::new(4, wanted.iter().copied().zip(fences).map(|(partition, fence)| (partition, fence.unwrap())).collect())
}

async fn claim_of(store: &dyn Store, fence: &LaneFence, now: Timestamp) -> Vec<RecordId> {
    let claim = Claim { realm: REALM.to_owned(), target: ERP.to_owned(), fence: fence.clone(), max: 100, creates: true, bulk: true, now };
    store.claim(&claim).await.unwrap().into_iter().map(|key| key.known.record.id).collect()
}

async fn intend_of(store: &dyn Store, fence: &LaneFence, ids: &[RecordId], now: Timestamp) -> Result<(), StoreError> {
    let sent = ids.iter().map(|id| (*id, json!({}))).collect();
    store.intend(&Intend { realm: REALM.to_owned(), target: ERP.to_owned(), fence: fence.clone(), sent, now }).await
}

async fn settle_of(store: &dyn Store, fence: &LaneFence, results: Vec<(RecordId, Outcome)>, now: Timestamp) -> Result<(), StoreError> {
    let results = results.into_iter().map(|(id, outcome)| Settlement { id, version: 1, learnt: None, outcome }).collect();
    store.settle(&Settle { realm: REALM.to_owned(), target: ERP.to_owned(), fence: fence.clone(), results, now }).await
}

async fn holders_of_partitions_share_a_lane(store: Arc<dyn Store>) {
    let world = World::new(Arc::clone(&store), "reader").await;
    world.absorb((1..=20).map(inserted).collect(), at(1)).await;
    let (one, other) = (partitions(&*store, &[0, 1], "a", at(1)).await, partitions(&*store, &[2, 3], "b", at(1)).await);
    assert_eq!(claim_of(&*store, &LaneFence::new(4, [].into()), at(2)).await, [], "who holds nothing claims nothing");
    let (mine, theirs) = (claim_of(&*store, &one, at(2)).await, claim_of(&*store, &other, at(2)).await);
    assert!(mine.len() > 5 && theirs.len() > 5, "{} and {}", mine.len(), theirs.len());
    let all: std::collections::BTreeSet<_> = mine.iter().chain(&theirs).collect();
    assert_eq!((all.len(), mine.len() + theirs.len()), (20, 20));
    // What one has claimed the other can neither send nor settle.
    assert_eq!(intend_of(&*store, &other, &[theirs[0], mine[0]], at(3)).await, Err(StoreError::Conflict(vec![mine[0]])));
    settle_of(&*store, &other, vec![(mine[0], Outcome::Unchanged), (theirs[0], Outcome::Unchanged)], at(3)).await.unwrap();
    let in_flight = async |id: RecordId| {
        let known = store.known_by_id(REALM, &[id]).await.unwrap().remove(0).unwrap();
        known.lanes.iter().map(|place| place.in_flight).collect::<Vec<_>>()
    };
    assert_eq!((in_flight(mine[0]).await, in_flight(theirs[0]).await), (vec![true], vec![]));
    // Nor does it wake up for it.
    settle_of(&*store, &one, vec![(mine[0], retry(at(50)))], at(4)).await.unwrap();
    assert_eq!(store.next_due(REALM, ERP, &one, true, at(5)).await.unwrap(), Some(at(50)));
    assert_eq!(store.next_due(REALM, ERP, &other, true, at(5)).await.unwrap(), None);
}

async fn a_partition_that_moves_takes_its_keys_along(store: Arc<dyn Store>) {
    let world = World::new(Arc::clone(&store), "reader").await;
    world.absorb((1..=20).map(inserted).collect(), at(1)).await;
    let all = partitions(&*store, &[0, 1, 2, 3], "a", at(1)).await;
    let claimed = claim_of(&*store, &all, at(2)).await;
    assert_eq!(claimed.len(), 20);
    intend_of(&*store, &all, &claimed, at(2)).await.unwrap();
    // Paused past the leases; somebody takes half of them.
    let heir = partitions(&*store, &[2, 3], "b", at(20)).await;
    let arrived = |id: &RecordId| {
        let n = (1..=20).find(|n| self::id(*n) == *id).unwrap();
        (*id, delivered(n, 1))
    };
    let results = || claimed.iter().map(arrived).collect::<Vec<_>>();
    let refused = settle_of(&*store, &all, results(), at(21)).await;
    assert_eq!(refused, Err(StoreError::Fenced { key: format!("lane/{REALM}/{ERP}/2") }));
    assert!(matches!(intend_of(&*store, &all, &claimed[..1], at(21)).await, Err(StoreError::Fenced { .. })));
    // What is still its own it settles; the rest is looked up by the heir.
    let left = LaneFence::new(4, all.fences().take(2).cloned().zip(0..).map(|(fence, partition)| (partition, fence)).collect());
    settle_of(&*store, &left, results(), at(21)).await.unwrap();
    let claim =
        Claim { realm: REALM.to_owned(), target: ERP.to_owned(), fence: heir.clone(), max: 100, creates: false, bulk: true, now: at(22) };
    let rest = store.claim(&claim).await.unwrap();
    assert!(rest.len() > 5 && rest.len() < 15 && rest.iter().all(|key| key.intent.is_some()), "{}", rest.len());
    settle_of(&*store, &heir, rest.iter().map(|key| arrived(&key.known.record.id)).collect(), at(23)).await.unwrap();
    let book = world.book(CRM).await;
    assert_eq!((book.entered, book.delivered, book.pending), (20, 20, 0));
}

async fn a_merge_moves_an_entry_to_the_partition_of_the_survivor(store: Arc<dyn Store>) {
    let world = World::new(Arc::clone(&store), "a").await;
    world.absorb(vec![inserted(1), inserted(2)], at(1)).await;
    world.claim(at(1)).await;
    world.settle(1, 1, retry(at(3)), at(2)).await;
    world.settle(2, 1, delivered(2, 1), at(2)).await;
    world.store.merge(&merge_into(&world, (1, 1), (2, 1), at(3))).await.unwrap();
    let mut found = Vec::new();
    for partition in 0..4 {
        let fence = partitions(&*store, &[partition], "a", at(4)).await;
        found.push(claim_of(&*store, &fence, at(4)).await);
        assert_eq!(claim_of(&*store, &fence, at(4)).await, []);
    }
    assert_eq!(found.concat(), [id(2)], "{found:?}");
    assert_eq!(found.iter().filter(|keys| !keys.is_empty()).count(), 1);
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

async fn what_is_wanted_soon_is_claimed_before_what_has_time(store: Arc<dyn Store>) {
    let mut world = World::new(store, "a").await;
    world.in_step(1..=30, at(1)).await;
    world.enqueue(Keys::All, Origin::Remap, at(2)).await;
    world.absorb(vec![updated(28, 2), updated(29, 2)], at(3)).await;
    let ids = |claimed: &[Claimed]| claimed.iter().map(|key| (key.known.record.id, key.haste)).collect::<Vec<_>>();
    let (soon, bulk) = (|n: u64| (id(n), Haste::Soon), |n: u64| (id(n), Haste::Bulk));
    // What a Remap waits for is wanted soon since somebody changed it, and stays so when a Resync comes after that.
    world.enqueue(Keys::All, Origin::Resync, at(4)).await;
    let claimed = world.try_claim(4, true, at(5)).await.unwrap();
    assert_eq!(ids(&claimed), [soon(28), soon(29), bulk(1), bulk(2)]);
    assert_eq!(claimed[0].origin, Origin::Resync);
    // Of ten one has time.
    world.absorb((3..=27).map(|n| updated(n, 2)).collect(), at(6)).await;
    world.absorb(vec![inserted(31)], at(6)).await;
    let claimed = world.try_claim(10, true, at(7)).await.unwrap();
    let first: Vec<_> = (3..=11).map(soon).chain([bulk(30)]).collect();
    assert_eq!(ids(&claimed), first);
    // Where nothing else is served, what has time is left, also where a former holder has left it in flight.
    world.lane = lease(&*world.store, &world.lane.key, "b", at(30)).await.unwrap();
    world.enqueue(Keys::Records(vec![id(30)]), Origin::Repair, at(31)).await;
    let claimed = world.store.claim(&world.claim_of(100, true, false, at(32))).await.unwrap();
    assert_eq!(claimed.len(), 28, "all but 1, 2 and 30");
    assert!(claimed.iter().all(|key| key.haste == Haste::Soon));
    // They are put off, and only who takes what has time wakes for that.
    let all = world.claim(at(33)).await;
    assert_eq!(ids(&all), [bulk(1), bulk(2), bulk(30)]);
    world.settle(1, 1, retry(at(50)), at(34)).await;
    world.settle(3, 2, retry(at(60)), at(34)).await;
    let fence: LaneFence = world.lane.clone().into();
    let next = async |bulk: bool| world.store.next_due(REALM, ERP, &fence, bulk, at(35)).await.unwrap();
    assert_eq!((next(true).await, next(false).await), (Some(at(50)), Some(at(60))));
    // What has no time calls for a place when it is due, and beside what is in flight.
    let wanted = async |creates: bool, seconds: i64| world.store.wanted_soon(REALM, ERP, &fence, creates, at(seconds)).await.unwrap();
    assert_eq!((wanted(true, 59).await, wanted(true, 60).await), (false, true));
    world.absorb(vec![updated(30, 2)], at(36)).await;
    assert!(wanted(false, 36).await, "30 is in flight");
    world.snapshot(at(36)).await;
}

async fn a_retry_waits_for_its_time_and_counts_attempts(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1)], at(1)).await;
    assert_eq!(world.store.next_due(REALM, ERP, &world.lane.clone().into(), true, at(1)).await.unwrap(), None);
    world.claim(at(2)).await;
    world.settle(1, 1, retry(at(10)), at(2)).await;
    assert_eq!(world.store.next_due(REALM, ERP, &world.lane.clone().into(), true, at(2)).await.unwrap(), Some(at(10)));
    let place = |in_flight, attempts| [LaneEntry { target: ERP.to_owned(), in_flight, attempts }];
    assert_eq!(world.known(1).await.unwrap().lanes, place(false, 1));
    assert!(world.claim(at(9)).await.is_empty());
    let claimed = world.claim(at(10)).await.remove(0);
    assert_eq!((claimed.attempts, claimed.since), (1, at(1)));
    assert_eq!(claimed.known.lanes, place(true, 1));
    world.settle(1, 1, Outcome::Retry { at: at(11), attempt: false, unknown: false }, at(10)).await;
    assert_eq!(world.claim(at(11)).await.remove(0).attempts, 1);
    // Put off again, a newer version does not come before its time, and a replay does.
    world.settle(1, 1, retry(at(60)), at(12)).await;
    world.absorb(vec![updated(1, 2)], at(13)).await;
    assert!(world.claim(at(14)).await.is_empty());
    assert_eq!(world.known(1).await.unwrap().lanes, place(false, 2), "the newer version inherits them");
    world.enqueue(Keys::Records(vec![id(1)]), Origin::Replay, at(15)).await;
    let claimed = world.claim(at(15)).await.remove(0);
    assert_eq!((claimed.attempts, claimed.known.lanes), (0, place(true, 0).to_vec()));
    world.settle(1, 2, retry(at(16)), at(15)).await;
    world.claim(at(16)).await;
    world.settle(1, 2, delivered(1, 2), at(16)).await;
    world.enqueue(Keys::Records(vec![id(1)]), Origin::Resync, at(17)).await;
    assert_eq!(world.known(1).await.unwrap().lanes, place(false, 0), "what went through ends them");
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
    // What a person asked for keeps its name, whether the newer one comes while it waits or while it is in flight.
    world.enqueue(Keys::Records(vec![id(1)]), Origin::Replay, at(9)).await;
    world.absorb(vec![updated(1, 3)], at(10)).await;
    let claimed = world.claim(at(11)).await.remove(0);
    assert_eq!((&claimed.origin, claimed.since, claimed.known.record.version), (&Origin::Replay, at(9), 3));
    world.absorb(vec![updated(1, 4)], at(12)).await;
    world.settle(1, 3, retry(at(13)), at(12)).await;
    let claimed = world.claim(at(13)).await.remove(0);
    assert_eq!((&claimed.origin, claimed.since, claimed.known.record.version), (&Origin::Replay, at(9), 4));
    world.settle(1, 4, delivered(1, 4), at(14)).await;
    let (source, replay) = (world.book(CRM).await, world.book("Replay").await);
    assert_eq!((source.superseded, replay.superseded, replay.delivered, replay.pending), (4, 0, 1, 0));
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
    let theirs = Outcome::Delivered { external_id: erp_id(1), state: state(1), incomplete: None };
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

async fn what_waits_is_claimed_when_its_time_is_up(store: Arc<dyn Store>) {
    let day = i64::try_from(WAITS_FOR.as_secs()).unwrap();
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1), inserted(2), inserted(3)], at(1)).await;
    assert!(world.claim(at(2)).await.iter().all(|key| !key.waited));
    world.settle(1, 1, Outcome::WaitFor { record: id(9) }, at(3)).await;
    world.settle(2, 1, Outcome::WaitFor { record: id(9) }, at(4)).await;
    assert!(world.claim(at(day)).await.is_empty());
    assert!(world.try_claim(9, false, at(day + 3)).await.unwrap().is_empty(), "nothing may be made yet");
    let claimed = world.claim(at(day + 3)).await;
    assert_eq!(claimed.iter().map(|key| (key.known.record.id, key.waited, key.since)).collect::<Vec<_>>(), [(id(1), true, at(1))]);
    // It may wait once more; what has come is not waited for.
    world.settle(1, 1, Outcome::WaitFor { record: id(9) }, at(day + 3)).await;
    assert!(world.claim(at(day + 3)).await.is_empty());
    world.settle(3, 1, delivered(3, 1), at(day + 3)).await;
    world.claim(at(day + 4)).await;
    world.settle(2, 1, Outcome::WaitFor { record: id(3) }, at(day + 4)).await;
    let claimed = world.claim(at(day + 4)).await;
    assert_eq!(claimed.iter().map(|key| (key.known.record.id, key.waited)).collect::<Vec<_>>(), [(id(2), false)]);
}

async fn what_changes_while_it_waits_keeps_its_age_and_that_it_waited(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1)], at(1)).await;
    world.claim(at(2)).await;
    world.settle(1, 1, Outcome::WaitFor { record: id(9) }, at(3)).await;
    for version in [2, 3] {
        assert_eq!(world.store.waits_for(REALM, ERP, &[id(1)]).await.unwrap(), [Some(id(9))]);
        world.absorb(vec![updated(1, version)], at(10 * version.cast_signed())).await;
        assert_eq!(world.store.waits_for(REALM, ERP, &[id(1)]).await.unwrap(), [None], "it may not have to any more");
        let claimed = world.claim(at(10 * version.cast_signed() + 1)).await.remove(0);
        assert_eq!((claimed.known.record.version, claimed.waited, claimed.since), (version, true, at(1)));
        world.settle(1, version, Outcome::WaitFor { record: id(9) }, at(10 * version.cast_signed() + 2)).await;
        assert!(world.claim(at(10 * version.cast_signed() + 3)).await.is_empty());
    }
    // A person who asks begins anew, and so does what was freed by what it waited for.
    world.enqueue(Keys::Records(vec![id(1)]), Origin::Replay, at(50)).await;
    assert!(!world.claim(at(51)).await.remove(0).waited);
}

async fn what_waits_for_a_record_that_will_never_come_is_due_again(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1), inserted(2), inserted(3), inserted(4)], at(1)).await;
    world.claim(at(2)).await;
    world.settle(1, 1, Outcome::WaitFor { record: id(2) }, at(2)).await;
    world.settle(3, 1, Outcome::WaitFor { record: id(4) }, at(2)).await;
    // The one dies, the other is kept out of the target.
    world.settle(2, 1, retry(at(90)), at(2)).await;
    world.absorb(vec![deleted(2, 2, at(3))], at(3)).await;
    world.settle(4, 1, Outcome::Filtered { reason: "When".into() }, at(3)).await;
    let numbers: Vec<_> = world.claim(at(4)).await.iter().map(|key| key.known.record.id).collect();
    assert_eq!(numbers, [id(1), id(3)]);
    // Nobody waits for the dead.
    world.settle(1, 1, Outcome::WaitFor { record: id(2) }, at(5)).await;
    assert_eq!(world.claim(at(5)).await.remove(0).known.record.id, id(1));
}

async fn what_waits_is_no_open_write(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1), inserted(2)], at(1)).await;
    world.claim(at(2)).await;
    world.intend(&[id(1)], at(2)).await.unwrap();
    world.settle(1, 1, Outcome::Retry { at: at(3), attempt: true, unknown: true }, at(2)).await;
    assert!(world.store.creating(REALM, ERP).await.unwrap());
    let claimed = world.claim(at(3)).await.remove(0);
    assert!(claimed.intent.is_some());
    // It was looked up, had no effect, and waits now.
    world.settle(1, 1, Outcome::WaitFor { record: id(2) }, at(4)).await;
    assert!(!world.store.creating(REALM, ERP).await.unwrap());
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

async fn a_dead_letter_of_what_does_not_belong_there_any_more_closes(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1)], at(1)).await;
    world.claim(at(2)).await;
    world.settle(1, 1, Outcome::DeadLetter(Box::new(letter(1, Stage::Outbound))), at(2)).await;
    world.absorb(vec![updated(1, 2)], at(3)).await;
    world.claim(at(3)).await;
    world.settle(1, 2, Outcome::Filtered { reason: "When".into() }, at(4)).await;
    assert_eq!(world.store.dead_letters(&open_letters()).await.unwrap(), []);
    let book = world.book(CRM).await;
    assert_eq!((book.dead_lettered, book.superseded, book.filtered["When"]), (0, 1, 1));
}

// ---- merge ------------------------------------------------------------------------------------------------------------------------------

async fn a_merged_record_lives_on_in_its_survivor(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.in_step([1], at(1)).await;
    world.absorb(vec![inserted(2)], at(2)).await;
    world.store.merge(&merge_into(&world, (1, 1), (2, 1), at(3))).await.unwrap();
    let known = world.known(1).await.unwrap();
    assert_eq!((known.record.id, known.record.version, known.merged_into), (id(2), 2, None));
    assert_eq!(known.identity(CRM).unwrap().external_id, crm_id(2));
    // What the survivor did not have yet, it has from the loser; and its lane knows that nothing is to be created there.
    assert_eq!(known.identity(ERP).unwrap().external_id, erp_id(1));
    assert_eq!(world.try_claim(9, false, at(4)).await.unwrap().remove(0).known.record.id, id(2));
    assert_eq!(world.store.record_ids(REALM, CRM, &[crm_id(1), crm_id(2)]).await.unwrap(), [Some(id(2)), Some(id(2))]);
    assert_eq!(world.store.external_ids(REALM, ERP, &[id(1), id(2)]).await.unwrap(), [Some(erp_id(1)), Some(erp_id(1))]);
    assert_eq!(world.store.match_records(REALM, &[key(u64::MAX - 1)]).await.unwrap(), [Vec::new()]);
    let snapshot = world.snapshot(at(4)).await;
    assert_eq!((snapshot.live, snapshot.matched), (1, 1));
    assert_eq!(world.store.pending_reads(REALM, CRM, 9).await.unwrap(), [crm_id(2)]);
}

async fn a_second_external_id_becomes_an_alias_that_resolves_and_is_not_absorbed(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.in_step([1, 2], at(1)).await;
    let mut merge = merge_into(&world, (1, 1), (2, 1), at(2));
    if let Survivor::Record { put_away, .. } = &mut merge.survivor {
        put_away.push((ERP.to_owned(), Origin::Source(CRM.to_owned())));
    }
    world.store.merge(&merge).await.unwrap();
    assert_eq!(world.store.record_ids(REALM, ERP, &[erp_id(1)]).await.unwrap(), [Some(id(2))]);
    let alias = world.store.known_by_external(REALM, ERP, &[erp_id(1)]).await.unwrap().remove(0).unwrap();
    assert_eq!((alias.record.id, alias.merged_into, alias.record.deleted_at), (id(1), Some(id(2)), Some(at(2))));
    assert!(alias.identity(CRM).unwrap().state.deleted, "the state that was given for it");
    assert_eq!(world.store.participant_ids(REALM, ERP, None, 9).await.unwrap(), [erp_id(2)]);
    assert_eq!(world.try_absorb(vec![updated(1, 3)], at(3)).await.unwrap_err(), StoreError::Conflict(vec![id(1)]));
    // The alias itself is put away like any record that is gone.
    let claimed = world.claim(at(3)).await.remove(0);
    assert_eq!((claimed.known.record.id, claimed.known.merged_into), (id(1), Some(id(2))));
    world
        .settle(
            1,
            2,
            Outcome::Delivered { external_id: erp_id(1), state: ParticipantState { deleted: true, ..state(1) }, incomplete: None },
            at(4),
        )
        .await;
    assert!(world.known(2).await.unwrap().identity(ERP).is_some_and(|identity| !identity.state.deleted));
}

async fn a_merge_folds_lanes_and_letters_with_balanced_books(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb((1..=4).map(inserted).collect(), at(1)).await;
    // 1 waits and 2 waits; 3 and 4 are dead letters.
    let claimed = world.claim(at(1)).await;
    assert_eq!(claimed.len(), 4);
    for n in [1, 2] {
        world.settle(n, 1, retry(at(50)), at(2)).await;
    }
    for n in [3, 4] {
        world.settle(n, 1, Outcome::DeadLetter(Box::new(letter(n, Stage::Delivery))), at(2)).await;
    }
    for (loser, survivor) in [(1, 2), (3, 4)] {
        world.store.merge(&merge_into(&world, (loser, 1), (survivor, 1), at(3))).await.unwrap();
    }
    let book = world.book(CRM).await;
    assert_eq!((book.entered, book.superseded, book.pending, book.dead_lettered), (4, 2, 1, 1));
    assert_eq!(world.store.dead_letters(&open_letters()).await.unwrap()[0].letter.record, Some(id(4)));
    // Where the survivor has none, it takes the loser's.
    world.absorb(vec![inserted(5)], at(4)).await;
    world.enqueue(Keys::DeadLetters, Origin::Replay, at(4)).await;
    world.claim(at(60)).await;
    for n in [2, 4] {
        world.settle(n, 2, delivered(n, 2), at(60)).await;
    }
    world.settle(5, 1, Outcome::DeadLetter(Box::new(letter(5, Stage::Outbound))), at(60)).await;
    world.enqueue(Keys::Records(vec![id(5)]), Origin::Repair, at(60)).await;
    world.store.merge(&merge_into(&world, (5, 1), (2, 2), at(61))).await.unwrap();
    let (letters, claimed) = (world.store.dead_letters(&open_letters()).await.unwrap(), world.claim(at(61)).await);
    assert_eq!((letters.len(), letters[0].letter.record), (1, Some(id(2))));
    assert_eq!((claimed.len(), claimed[0].known.record.id, claimed[0].origin.clone()), (1, id(2), Origin::Repair));
    world.settle(2, 3, delivered(2, 3), at(62)).await;
    assert_eq!(world.snapshot(at(62)).await.dead_letters, std::collections::BTreeMap::new());
}

async fn a_merge_rewrites_what_refers_to_the_loser_and_frees_what_waited_for_it(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.in_step([2], at(1)).await;
    world.absorb(vec![inserted(1), inserted(3), inserted(4)], at(1)).await;
    world.claim(at(2)).await;
    world.settle(1, 1, retry(at(90)), at(2)).await;
    world.settle(3, 1, Outcome::WaitFor { record: id(1) }, at(2)).await;
    world.settle(4, 1, delivered(4, 1), at(2)).await;
    let refers = |to: u64, version: u64| {
        let mut record = record(4, version);
        record.document.insert("parentId".into(), json!(id(to).to_string()));
        RecordChange::Update { record, keys: Vec::new() }
    };
    world.absorb(vec![AbsorbRecord { change: refers(1, 2), enqueue: Vec::new(), ..updated(4, 2) }], at(3)).await;
    let found = world.store.referring(REALM, &[id(1)], None, 9).await.unwrap();
    assert_eq!(found.iter().map(|known| known.record.id).collect::<Vec<_>>(), [id(4)]);
    assert!(world.store.referring(REALM, &[id(1)], Some(id(4)), 9).await.unwrap().is_empty());
    let enqueue = vec![(ERP.to_owned(), Origin::Source(CRM.to_owned()))];
    let referring = vec![Referring { id: id(4), change: refers(2, 3), enqueue }];
    let part = Merge { survivor: Survivor::Later, referring: referring.clone(), ..merge_into(&world, (1, 1), (2, 1), at(4)) };
    world.store.merge(&Merge { reread_done: Vec::new(), rereads: Vec::new(), ..part }).await.unwrap();
    assert_eq!(world.known(1).await.unwrap().record.id, id(1), "not merged yet");
    assert!(world.store.referring(REALM, &[id(1)], None, 9).await.unwrap().is_empty());
    world.store.merge(&merge_into(&world, (1, 1), (2, 1), at(4))).await.unwrap();
    let mut due: Vec<_> = world.claim(at(5)).await.into_iter().map(|key| key.known.record.id).collect();
    due.sort();
    // 3 waited for 1, which the ERP holds as 2; what 1 itself waited for is 2's now, in its own time.
    assert_eq!(due, [id(2), id(3), id(4)]);
    world.settle(3, 1, Outcome::WaitFor { record: id(1) }, at(6)).await;
    assert_eq!(world.claim(at(6)).await.remove(0).known.record.id, id(3), "a late wait for the loser is no wait");
}

async fn a_merge_waits_for_writes_that_are_open(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1), inserted(2)], at(1)).await;
    world.try_claim(1, true, at(1)).await.unwrap();
    let merges = [merge_into(&world, (1, 1), (2, 1), at(2)), merge_into(&world, (2, 1), (1, 1), at(2))];
    for merge in &merges {
        assert_eq!(world.store.merge(merge).await.unwrap_err(), StoreError::Conflict(vec![id(1)]));
    }
    world.intend(&[id(1)], at(2)).await.unwrap();
    world.settle(1, 1, Outcome::Retry { at: at(3), attempt: true, unknown: true }, at(2)).await;
    for merge in &merges {
        assert_eq!(world.store.merge(merge).await.unwrap_err(), StoreError::Conflict(vec![id(1)]));
    }
    world.try_claim(1, false, at(3)).await.unwrap();
    world.settle(1, 1, delivered(1, 1), at(3)).await;
    world.store.merge(&merges[0]).await.unwrap();
}

async fn a_merge_is_a_conflict_when_a_record_changed_meanwhile_and_repeats_without_effect(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.in_step([1, 2, 3], at(1)).await;
    let merge = merge_into(&world, (1, 1), (2, 1), at(2));
    let stale = |n: u64| Referring { id: id(n), change: RecordChange::Keep { version: 7 }, enqueue: Vec::new() };
    let with_stale = Merge { referring: vec![stale(3)], ..merge.clone() };
    assert_eq!(world.store.merge(&with_stale).await.unwrap_err(), StoreError::Conflict(vec![id(3)]));
    for (loser, survivor, conflict) in [(7, 1, 1), (1, 7, 2)] {
        let merge = merge_into(&world, (1, loser), (2, survivor), at(2));
        assert_eq!(world.store.merge(&merge).await.unwrap_err(), StoreError::Conflict(vec![id(conflict)]));
    }
    world.store.request_reads(REALM, CRM, &[crm_id(1)], Haste::Soon, at(2)).await.unwrap();
    world.store.merge(&merge).await.unwrap();
    let before = (world.snapshot(at(2)).await, world.known(2).await);
    world.store.merge(&merge).await.unwrap();
    assert_eq!((world.snapshot(at(2)).await, world.known(2).await), before);
    assert_eq!(world.store.pending_reads(REALM, CRM, 9).await.unwrap(), [crm_id(2)]);
}

async fn merges_follow_one_another(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.in_step([1, 2, 3], at(1)).await;
    world.store.merge(&merge_into(&world, (1, 1), (2, 1), at(2))).await.unwrap();
    let into_merged = merge_into(&world, (3, 1), (1, 2), at(2));
    assert_eq!(world.store.merge(&into_merged).await.unwrap_err(), StoreError::Conflict(vec![id(1)]));
    world.store.merge(&merge_into(&world, (2, 2), (3, 1), at(3))).await.unwrap();
    for n in 1..=3 {
        assert_eq!(world.known(n).await.unwrap().record.id, id(3));
        assert_eq!(world.store.record_ids(REALM, ERP, &[erp_id(n)]).await.unwrap(), [Some(id(3))]);
    }
    let aliases = world.store.known_by_external(REALM, CRM, &[crm_id(1), crm_id(2)]).await.unwrap();
    assert!(aliases.iter().flatten().all(|alias| alias.merged_into == Some(id(3))));
    assert_eq!(world.snapshot(at(3)).await.live, 1);
}

async fn what_leaves_a_record_is_one_of_its_own(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.in_step([1, 2], at(1)).await;
    world.enqueue(Keys::Records(vec![id(1)]), Origin::Repair, at(1)).await;
    let lane = world.book(CRM).await;
    let split = Split { leases: vec![world.reader.key.clone()], ..split_off((1, 1), 50, at(2)) };
    world.store.split(&split).await.unwrap();
    let (stays, new) = (world.known(1).await.unwrap(), world.known(50).await.unwrap());
    assert_eq!((stays.record.version, stays.record.document.clone()), (2, record(1, 1).document), "its values stay");
    assert!(stays.record.provenance["name"].is_nobodys());
    assert_eq!(stays.identities.iter().map(|held| held.external_id.clone()).collect::<Vec<_>>(), [crm_id(1)]);
    assert_eq!((new.record.version, new.record.document.len(), new.record.home.as_str()), (0, 0, ERP));
    assert_eq!((new.record.deleted_at, new.merged_into, new.lanes.len()), (None, None, 0));
    assert_eq!(new.identity(ERP).unwrap().state.keyed_as, Some(id(1)));
    assert_eq!(world.store.record_ids(REALM, ERP, &[erp_id(1), erp_id(2)]).await.unwrap(), [Some(id(50)), Some(id(2))]);
    assert_eq!(world.store.external_ids(REALM, ERP, &[id(1), id(50)]).await.unwrap(), [None, Some(erp_id(1))]);
    assert_eq!(world.store.match_records(REALM, &[key(u64::MAX - 1)]).await.unwrap(), [vec![id(1)]], "it is found as before");
    assert_eq!(world.store.pending_reads(REALM, ERP, 9).await.unwrap(), [erp_id(1)]);
    assert_eq!(world.store.pending_reads(REALM, CRM, 9).await.unwrap(), [crm_id(1), crm_id(101)]);
    assert_eq!(world.store.note(REALM, "splits").await.unwrap(), Some(json!(1)));
    let snapshot = world.snapshot(at(2)).await;
    assert_eq!((snapshot.live, snapshot.matched), (3, 1));
    assert_eq!(world.store.referring(REALM, &[id(50)], None, 9).await.unwrap(), []);

    // Nothing is committed that was read before.
    assert!(matches!(world.try_absorb(vec![updated(2, 2)], at(3)).await, Err(StoreError::Fenced { .. })));
    // What waited there waits on; there is something to create now.
    assert!(world.try_claim(9, false, at(3)).await.unwrap().is_empty());
    let claimed = world.claim(at(3)).await.remove(0);
    assert_eq!((claimed.known.record.id, claimed.known.record.version), (id(1), 2));
    let made = Outcome::Delivered { external_id: erp_id(9), state: state(2), incomplete: None };
    world.try_settle(vec![(id(1), 2, made)], at(4)).await.unwrap();
    let book = world.book(CRM).await;
    assert_eq!((book.entered, book.delivered, book.pending), (lane.entered + 1, lane.delivered + 1, 0));
    assert_eq!((world.book("Repair").await.superseded, world.snapshot(at(4)).await.matched), (1, 2));

    // What is read of the new one makes it a record like any other.
    let reader = lease(&*world.store, "reader/erp", "a", at(5)).await.unwrap();
    let filled = AbsorbRecord {
        id: id(50),
        change: RecordChange::Update { record: Record { id: id(50), home: ERP.into(), ..record(50, 1) }, keys: vec![key(u64::MAX - 1)] },
        external_id: erp_id(1),
        state: ParticipantState { settled: u64::MAX >> 1, ..state(1) },
        enqueue: Vec::new(),
        counts_as_changed: true,
    };
    let sequence = world.store.sequence().await.unwrap();
    let batch = Absorb { reread_done: vec![erp_id(1)], began: sequence, ..Absorb::empty(REALM, ERP, reader, at(5)) };
    world.store.absorb(&Absorb { records: vec![filled], ..batch }).await.unwrap();
    assert_eq!(world.known(50).await.unwrap().record.version, 1);
    assert!(world.store.pending_reads(REALM, ERP, 9).await.unwrap().is_empty());
    let mut both = world.store.match_records(REALM, &[key(u64::MAX - 1)]).await.unwrap().remove(0);
    both.sort();
    assert_eq!(both, [id(1), id(50)], "who is like both is nobody's guess");
}

async fn an_alias_leaves_its_record_and_another_one_stays(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.in_step([1, 2], at(1)).await;
    let mut merge = merge_into(&world, (1, 1), (2, 1), at(2));
    if let Survivor::Record { put_away, .. } = &mut merge.survivor {
        put_away.push((ERP.to_owned(), Origin::Source(CRM.to_owned())));
    }
    world.store.merge(&merge).await.unwrap();
    let alias = |participant: &str, external_id| Identity { participant: participant.into(), external_id, state: state(1) };
    let of = |leaving: Identity| Split { leaving: vec![leaving], enqueue: Vec::new(), ..split_off((2, 2), 50, at(3)) };
    // On its way to be put away.
    world.claim(at(3)).await;
    let settled = |alias: Identity| Identity { state: ParticipantState { settled: u64::MAX >> 1, ..alias.state }, ..alias };
    let split = of(settled(alias(ERP, erp_id(1))));
    assert_eq!(world.store.split(&split).await, Err(StoreError::Conflict(vec![id(2)])));
    world.store.split(&of(alias(CRM, crm_id(1)))).await.unwrap();
    let (stays, new) = (world.known(2).await.unwrap(), world.known(50).await.unwrap());
    assert_eq!((stays.record.version, stays.identities.len()), (3, 2));
    assert_eq!(new.identities, [alias(CRM, crm_id(1))], "alive again");
    assert_eq!(world.store.record_ids(REALM, CRM, &[crm_id(1), crm_id(2)]).await.unwrap(), [Some(id(50)), Some(id(2))]);
    assert_eq!(world.store.record_ids(REALM, ERP, &[erp_id(1)]).await.unwrap(), [Some(id(2))], "the other alias stays one");
    assert_eq!(world.known(1).await.unwrap().record.id, id(2), "and so does the id that was folded");
    let snapshot = world.snapshot(at(4)).await;
    assert_eq!((snapshot.live, snapshot.matched), (2, 1));
}

async fn a_split_is_a_conflict_when_anything_of_it_has_changed_and_leaves_nothing_then(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.in_step([1, 2, 3, 4], at(1)).await;
    world.absorb(vec![deleted(3, 2, at(1))], at(1)).await;
    world.store.merge(&merge_into(&world, (4, 1), (2, 1), at(1))).await.unwrap();
    let everything = async || {
        let records = world.store.records(REALM, None, 99).await.unwrap();
        let reads = (world.store.pending_reads(REALM, CRM, 99).await.unwrap(), world.store.pending_reads(REALM, ERP, 99).await.unwrap());
        (records, reads, world.snapshot(at(2)).await, world.store.note(REALM, "splits").await.unwrap())
    };
    let before = everything().await;
    let split = split_off((1, 1), 50, at(2));
    let with = |how: fn(&mut Split)| {
        let mut split = split.clone();
        how(&mut split);
        split
    };
    for (refused, named) in [
        (split_off((1, 2), 50, at(2)), vec![id(1)]),
        (split_off((7, 1), 50, at(2)), vec![id(7)]),
        (split_off((3, 2), 50, at(2)), vec![id(3)]),
        (split_off((4, 2), 50, at(2)), vec![id(4)]),
        (with(|split| split.leaving[0].external_id = erp_id(2)), vec![id(1)]),
        (with(|split| split.leaving[0].external_id = erp_id(77)), vec![id(1)]),
        (with(|split| split.leaving[0].state.settled = 0), vec![id(1)]),
        (with(|split| split.leaving.push(split.leaving[0].clone())), vec![id(1)]),
        (with(|split| split.notes.push(("other".to_owned(), Some(json!(1)), json!(2)))), Vec::new()),
    ] {
        assert_eq!(world.store.split(&refused).await, Err(StoreError::Conflict(named)), "{refused:?}");
        assert_eq!(everything().await, before, "{refused:?}");
    }
    world.store.split(&split).await.unwrap();
    assert_eq!(world.store.split(&split).await, Err(StoreError::Conflict(vec![id(1)])), "it is done");
    assert_eq!(world.snapshot(at(2)).await.live, before.2.live + 1);
}

async fn a_split_waits_for_writes_that_are_open(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.in_step([1], at(1)).await;
    world.enqueue(Keys::Records(vec![id(1)]), Origin::Repair, at(1)).await;
    world.claim(at(2)).await;
    let split = split_off((1, 1), 50, at(2));
    assert_eq!(world.store.split(&split).await, Err(StoreError::Conflict(vec![id(1)])));
    world.intend(&[id(1)], at(2)).await.unwrap();
    world.settle(1, 1, Outcome::Retry { at: at(3), attempt: true, unknown: true }, at(2)).await;
    assert_eq!(world.store.split(&split).await, Err(StoreError::Conflict(vec![id(1)])), "of which nobody knows what it did");
    world.try_claim(1, false, at(3)).await.unwrap();
    world.settle(1, 1, delivered(1, 1), at(3)).await;
    world.store.split(&split).await.unwrap();
}

async fn a_record_goes_on_under_another_external_id(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.in_step([1, 2], at(1)).await;
    let rename = |external_id| {
        let alias_state = ParticipantState { deleted: true, ..state(1) };
        let survivor = Survivor::ExternalId { external_id, state: ParticipantState::default(), alias: id(50), alias_state };
        let merge = merge_into(&world, (1, 1), (1, 1), at(2));
        Merge { survivor, rereads: vec![crm_id(9)], reread_done: vec![crm_id(1)], ..merge }
    };
    assert_eq!(world.store.merge(&rename(crm_id(2))).await.unwrap_err(), StoreError::Conflict(vec![id(1)]), "that one is taken");
    world.store.merge(&rename(crm_id(9))).await.unwrap();
    let known = world.known(1).await.unwrap();
    assert_eq!((known.record.version, known.identity(CRM).unwrap().external_id.clone()), (2, crm_id(9)));
    assert_eq!(known.identity(CRM).unwrap().state, ParticipantState::default());
    let alias = world.store.known_by_external(REALM, CRM, &[crm_id(1)]).await.unwrap().remove(0).unwrap();
    assert_eq!((alias.record.id, alias.merged_into), (id(50), Some(id(1))));
    assert_eq!(world.store.record_ids(REALM, CRM, &[crm_id(1)]).await.unwrap(), [Some(id(1))]);
    assert_eq!(world.snapshot(at(3)).await.live, 2);
    assert_eq!(world.store.pending_reads(REALM, CRM, 9).await.unwrap(), [crm_id(9)]);
}

async fn what_is_written_elsewhere_holds_up_another_external_id_of_a_deleted_record_alone(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.in_step([1, 2], at(1)).await;
    let rename = |n: u64, version: u64| {
        let alias_state = ParticipantState { deleted: true, ..state(version) };
        let (external_id, alias) = (crm_id(90 + n), id(50 + n));
        let survivor = Survivor::ExternalId { external_id, state: ParticipantState::default(), alias, alias_state };
        Merge { survivor, rereads: Vec::new(), reread_done: Vec::new(), ..merge_into(&world, (n, version), (n, version), at(2)) }
    };
    world.enqueue(Keys::Records(vec![id(1)]), Origin::Resync, at(2)).await;
    world.claim(at(2)).await;
    world.store.merge(&rename(1, 1)).await.unwrap();
    world.settle(1, 1, delivered(1, 1), at(2)).await;
    // What is under way may remove it there.
    world.absorb(vec![deleted(2, 2, at(3))], at(3)).await;
    world.claim(at(3)).await;
    assert_eq!(world.store.merge(&rename(2, 2)).await.unwrap_err(), StoreError::Conflict(vec![id(2)]));
    world.settle(2, 2, delivered(2, 2), at(3)).await;
    world.store.merge(&rename(2, 2)).await.unwrap();
}

async fn what_was_wrong_with_a_record_that_is_gone_is_over(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    let batch = Absorb { dead_letters: vec![letter(1, Stage::Identity), letter(2, Stage::Inbound)], ..world.batch(at(1)) };
    world.store.absorb(&batch).await.unwrap();
    world.store.absorb(&Absorb { gone: vec![crm_id(1), crm_id(7)], ..world.batch(at(2)) }).await.unwrap();
    let open = world.store.dead_letters(&open_letters()).await.unwrap();
    assert_eq!(open.iter().map(|letter| letter.letter.external_id.clone()).collect::<Vec<_>>(), [Some(crm_id(2))]);
}

async fn what_was_learnt_without_a_write_is_kept(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1), inserted(2)], at(1)).await;
    world.claim(at(2)).await;
    world.try_settle_all(vec![learnt(1, Outcome::Unchanged)], at(3)).await.unwrap();
    world.settle(2, 1, Outcome::Unchanged, at(3)).await;
    assert_eq!(world.known(1).await.unwrap().identity(ERP).unwrap().external_id, erp_id(1));
    assert_eq!(world.known(2).await.unwrap().identity(ERP), None);
    let snapshot = world.snapshot(at(4)).await;
    assert_eq!((world.book(CRM).await.unchanged, snapshot.matched, snapshot.last_delivered), (2, 1, None));
}

/// The end of the record `n`'s claim, after it was found in the ERP.
fn learnt(n: u64, outcome: Outcome) -> Settlement {
    Settlement { id: id(n), version: 1, learnt: Some((erp_id(n), state(1))), outcome }
}

async fn what_was_learnt_outlives_a_write_that_failed_then(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb((1..=5).map(inserted).collect(), at(1)).await;
    world.claim(at(2)).await;
    let results = vec![
        learnt(1, retry(at(4))),
        learnt(2, Outcome::DeadLetter(Box::new(letter(2, Stage::Delivery)))),
        learnt(3, Outcome::WaitFor { record: id(4) }),
        learnt(5, Outcome::Filtered { reason: "When".into() }),
    ];
    world.try_settle_all(results, at(3)).await.unwrap();
    for n in [1, 2, 3, 5] {
        assert_eq!(world.known(n).await.unwrap().identity(ERP).unwrap().external_id, erp_id(n), "record {n}");
    }
    // Nothing of it is a creation any more.
    let claimed = world.try_claim(9, false, at(4)).await.unwrap();
    assert_eq!(claimed.iter().map(|key| key.known.record.id).collect::<Vec<_>>(), [id(1)]);
    // An id that stands for another record is refused as ever.
    let theirs = Settlement { learnt: Some((erp_id(2), state(1))), ..learnt(4, retry(at(9))) };
    assert_eq!(world.try_settle_all(vec![theirs], at(5)).await, Err(StoreError::Conflict(vec![id(4)])));
}

async fn records_that_wait_for_each_other_are_made_one_without_the_other(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1), inserted(2)], at(1)).await;
    world.claim(at(2)).await;
    world.settle(1, 1, Outcome::WaitFor { record: id(2) }, at(3)).await;
    let waits = world.store.waits_for(REALM, ERP, &[id(1), id(2), id(9)]).await.unwrap();
    assert_eq!(waits, [Some(id(2)), None, None]);
    let incomplete = Outcome::Delivered { external_id: erp_id(2), state: state(1), incomplete: Some(id(1)) };
    world.settle(2, 1, incomplete, at(4)).await;
    assert_eq!(world.store.waits_for(REALM, ERP, &[id(1), id(2)]).await.unwrap(), [None, Some(id(1))]);
    // The first is free, since the second is there; and when it is made, the second is completed.
    let claimed = world.claim(at(5)).await;
    assert_eq!(claimed.iter().map(|key| key.known.record.id).collect::<Vec<_>>(), [id(1)]);
    world.settle(1, 1, delivered(1, 1), at(6)).await;
    let claimed = world.claim(at(7)).await;
    assert_eq!(claimed.iter().map(|key| key.known.record.id).collect::<Vec<_>>(), [id(2)]);
    world.settle(2, 1, delivered(2, 1), at(8)).await;
    let book = world.book(CRM).await;
    assert_eq!((book.entered, book.delivered, book.pending), (3, 3, 0));
}

async fn a_creation_without_a_known_outcome_is_told_until_it_has_one(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    let creating = async || world.store.creating(REALM, ERP).await.unwrap();
    world.absorb(vec![inserted(1)], at(1)).await;
    world.claim(at(2)).await;
    assert!(!creating().await, "nothing was sent");
    world.intend(&[id(1)], at(2)).await.unwrap();
    assert!(creating().await, "in flight");
    world.settle(1, 1, Outcome::Retry { at: at(9), attempt: true, unknown: true }, at(3)).await;
    assert!(creating().await, "unknown");
    world.claim(at(9)).await;
    let mut lost = letter(1, Stage::Delivery);
    lost.class = ErrorClass::UnknownOutcome;
    world.settle(1, 1, Outcome::DeadLetter(Box::new(lost)), at(9)).await;
    assert!(!creating().await, "a person has it now");
    world.enqueue(Keys::DeadLetters, Origin::Replay, at(10)).await;
    world.claim(at(10)).await;
    assert!(creating().await, "looked up once more");
    world.settle(1, 1, delivered(1, 1), at(11)).await;
    assert!(!creating().await);
    // An update in flight creates nothing.
    world.absorb(vec![updated(1, 2)], at(12)).await;
    world.claim(at(12)).await;
    world.intend(&[id(1)], at(12)).await.unwrap();
    assert!(!creating().await);
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

async fn records_that_an_open_letter_names_are_told(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1), inserted(2), inserted(3)], at(1)).await;
    world.claim(at(1)).await;
    let lost = |n| (id(n), 1, Outcome::DeadLetter(Box::new(letter(n, Stage::Delivery))));
    world.try_settle(vec![lost(1), lost(2), (id(3), 1, delivered(3, 1))], at(2)).await.unwrap();
    let named =
        async |participant: &str| world.store.dead_lettered_records(REALM, participant, &[id(3), id(2), id(1), id(9)]).await.unwrap();
    assert_eq!(named(ERP).await, [false, true, true, false]);
    assert_eq!((named(CRM).await, named("nobody").await), (vec![false; 4], vec![false; 4]));
    world.absorb(vec![updated(2, 2)], at(3)).await;
    world.claim(at(3)).await;
    world.settle(2, 2, delivered(2, 2), at(4)).await;
    assert_eq!(named(ERP).await, [false, false, true, false]);
}

async fn a_letter_stays_until_its_correction_has_a_result(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    let batch = Absorb { dead_letters: (1..=3).map(|n| letter(n, Stage::Inbound)).collect(), ..world.batch(at(1)) };
    world.store.absorb(&batch).await.unwrap();
    let ids: Vec<i64> = world.store.dead_letters(&open_letters()).await.unwrap().iter().rev().map(|letter| letter.id).collect();
    let close = CloseDeadLetters { ids: ids.clone(), reason: CloseReason::Replayed, author: "kim".into(), now: at(2) };
    world.store.close_dead_letters(&close).await.unwrap();
    let note = format!("{}crm/c1", archive::CORRECTION);
    world.store.put_note(REALM, &note, &json!({"letter": ids[0], "author": "kim"})).await.unwrap();
    // One of another letter is over.
    world.store.put_note(REALM, &format!("{}crm/c2", archive::CORRECTION), &json!(null)).await.unwrap();
    let sweep = async |max| {
        world.store.sweep(&Sweep { realm: REALM.into(), participants: None, closed_before: at(9), max, now: at(9) }).await.unwrap()
    };
    let left = async || {
        let letters = world.store.dead_letters(&DeadLetterFilter { closed: true, ..open_letters() }).await.unwrap();
        letters.iter().map(|letter| letter.id).collect::<Vec<_>>()
    };
    assert_eq!((sweep(2).await, left().await), (2, vec![ids[0]]), "it stands in nobody's way");
    assert_eq!(sweep(2).await, 0);
    world.store.put_note(REALM, &note, &json!(null)).await.unwrap();
    assert_eq!((sweep(2).await, left().await), (1, vec![]));
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
    assert_eq!(find(DeadLetterFilter { record: Some(id(2)), ..open_letters() }).await, 0, "what names no record");

    let other = NewDeadLetter {
        class: ErrorClass::NotFound,
        reason: "RemoteError".into(),
        message: "It is not There".into(),
        field: Some("taxId".into()),
        ..letter(4, Stage::Identity)
    };
    world.store.absorb(&Absorb { dead_letters: vec![other], ..world.batch(at(5)) }).await.unwrap();
    let text = |text: &str| DeadLetterFilter { text: Some(text.into()), ..open_letters() };
    assert_eq!(find(DeadLetterFilter { stage: Some(Stage::Identity), ..open_letters() }).await, 1);
    assert_eq!(find(DeadLetterFilter { stage: Some(Stage::Delivery), ..open_letters() }).await, 0);
    assert_eq!(find(DeadLetterFilter { class: Some(ErrorClass::Data), ..open_letters() }).await, 3);
    assert_eq!(find(DeadLetterFilter { reason: Some("RemoteError".into()), ..open_letters() }).await, 1);
    assert_eq!(find(DeadLetterFilter { before: Some(at(5)), ..open_letters() }).await, 3);
    assert_eq!((find(text("not there")).await, find(text("TAXID")).await, find(text("c4")).await, find(text("%")).await), (1, 1, 1, 0));
    let both = DeadLetterFilter { class: Some(ErrorClass::Data), ..text("c2") };
    assert_eq!((find(both.clone()).await, find(DeadLetterFilter { stage: Some(Stage::Identity), ..both }).await), (1, 0));
    // Page by page, all of them once.
    let mut filter = DeadLetterFilter { max: 3, ..open_letters() };
    let first = world.store.dead_letters(&filter).await.unwrap();
    filter.below = first.last().map(|last| last.id);
    let second = world.store.dead_letters(&filter).await.unwrap();
    assert_eq!((first.len(), second.len(), second[0].id), (3, 1, all[2].id));

    let of_record = NewDeadLetter { record: Some(id(2)), external_id: None, ..letter(8, Stage::Delivery) };
    world.store.absorb(&Absorb { dead_letters: vec![of_record], ..world.batch(at(6)) }).await.unwrap();
    let of = async |n: u64| find(DeadLetterFilter { record: Some(id(n)), ..open_letters() }).await;
    assert_eq!((of(2).await, of(3).await), (1, 0));

    let named = NewDeadLetter { participant: "europe/customers/crm".into(), ..letter(7, Stage::Inbound) };
    world.store.absorb(&Absorb { dead_letters: vec![named], ..world.batch(at(9)) }).await.unwrap();
    for (participant, expected) in [("cr", 0), ("europe/customers/", 1), ("europe/", 1), ("europe", 0), ("north/", 0)] {
        assert_eq!(find(DeadLetterFilter { participant: Some(participant.into()), ..open_letters() }).await, expected, "{participant}");
    }
}

async fn what_was_closed_long_ago_is_removed_step_by_step_and_what_is_open_never(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    let batch = Absorb { dead_letters: (1..=6).map(|n| letter(n, Stage::Inbound)).collect(), ..world.batch(at(1)) };
    world.store.absorb(&batch).await.unwrap();
    let ids: Vec<i64> = world.store.dead_letters(&open_letters()).await.unwrap().iter().rev().map(|letter| letter.id).collect();
    let close = async |ids: &[i64], now| {
        let close = CloseDeadLetters { ids: ids.to_vec(), reason: CloseReason::Discarded, author: "kim".into(), now: at(now) };
        world.store.close_dead_letters(&close).await.unwrap();
    };
    let named = NewDeadLetter { participant: "europe/customers/crm".into(), ..letter(7, Stage::Inbound) };
    world.store.absorb(&Absorb { dead_letters: vec![named], ..world.batch(at(1)) }).await.unwrap();
    let ids = [ids, world.store.dead_letters(&open_letters()).await.unwrap().iter().take(1).map(|letter| letter.id).collect()].concat();
    close(&ids[6..], 10).await;
    let europe = Sweep { realm: REALM.into(), participants: Some("europe/".into()), closed_before: at(20), max: 9, now: at(30) };
    close(&ids[1..4], 10).await;
    assert_eq!(world.store.sweep(&europe).await, Ok(1), "what others closed at the same time stays");
    close(&ids[4..5], 20).await;
    let notes = [
        (format!("{}{}", archive::CORRECTED, ids[1]), json!({"letter": ids[1]})),
        (format!("{}{}", archive::CORRECTED, ids[4]), json!({"letter": ids[4]})),
        (format!("{}crm/c1", archive::CORRECTION), json!(null)),
        (format!("{}crm/c6", archive::CORRECTION), json!({"letter": ids[5]})),
        ("resync".to_owned(), json!(null)),
    ];
    for (name, value) in &notes {
        world.store.put_note(REALM, name, value).await.unwrap();
    }
    let before = world.snapshot(at(30)).await;
    let sweep = async |max| {
        world.store.sweep(&Sweep { realm: REALM.into(), participants: None, closed_before: at(20), max, now: at(30) }).await.unwrap()
    };
    assert_eq!((sweep(2).await, sweep(2).await, sweep(2).await), (2, 1, 0));
    let all = world.store.dead_letters(&DeadLetterFilter { closed: true, ..open_letters() }).await.unwrap();
    assert_eq!(all.iter().rev().map(|letter| letter.id).collect::<Vec<_>>(), [ids[0], ids[4], ids[5]]);
    let mut there = Vec::new();
    for (name, _) in &notes {
        there.push(world.store.note(REALM, name).await.unwrap().is_some());
    }
    assert_eq!(there, [false, true, false, true, true]);
    assert_eq!(world.snapshot(at(30)).await, before);
    assert_eq!(
        world.store.sweep(&Sweep { realm: "no/where".into(), participants: None, closed_before: at(90), max: 9, now: at(90) }).await,
        Ok(0)
    );
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
    world.store.request_reads(REALM, CRM, &[crm_id(5), crm_id(4)], Haste::Soon, at(1)).await.unwrap();
    let batch = Absorb { rereads: vec![(crm_id(6), Some(crm_id(1))), (crm_id(7), None)], ..world.batch(at(2)) };
    world.store.absorb(&batch).await.unwrap();
    let due = async |max: usize| world.store.pending_reads(REALM, CRM, max).await.unwrap();
    assert_eq!(due(10).await, [crm_id(4), crm_id(5), crm_id(7)]);
    assert_eq!(due(1).await, [crm_id(4)]);
    // What nobody waits for comes last, until somebody does.
    world.store.request_reads(REALM, CRM, &[crm_id(1), crm_id(2)], Haste::Soon, at(9000)).await.unwrap();
    world.store.request_reads(REALM, CRM, &[crm_id(8)], Haste::Soon, at(2)).await.unwrap();
    assert_eq!(due(10).await, [crm_id(4), crm_id(5), crm_id(7), crm_id(8), crm_id(1), crm_id(2)]);
    world.store.request_reads(REALM, CRM, &[crm_id(2)], Haste::Soon, at(2)).await.unwrap();
    assert_eq!(due(10).await, [crm_id(4), crm_id(5), crm_id(2), crm_id(7), crm_id(8), crm_id(1)]);
    world.store.absorb(&Absorb { reread_done: vec![crm_id(1), crm_id(2), crm_id(8)], ..world.batch(at(3)) }).await.unwrap();
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
    // A request without a condition is due at once.
    world.store.request_reads(REALM, CRM, &[crm_id(5)], Haste::Soon, at(5)).await.unwrap();
    assert_eq!(due(10).await, [crm_id(7), crm_id(6), crm_id(5)]);
    // What waits for several is due when any of them is there, and once.
    let rereads = [(8, 98), (8, 2), (8, 3), (8, 99)].map(|(id, after)| (crm_id(id), Some(crm_id(after)))).to_vec();
    let batch = Absorb { reread_done: vec![crm_id(5), crm_id(6), crm_id(7)], rereads, ..world.batch(at(6)) };
    world.store.absorb(&batch).await.unwrap();
    assert_eq!(due(10).await, []);
    world.absorb(vec![inserted(2), inserted(3)], at(7)).await;
    assert_eq!(due(10).await, [crm_id(8)]);
    world.store.absorb(&Absorb { reread_done: vec![crm_id(8)], ..world.batch(at(8)) }).await.unwrap();
    assert_eq!(due(10).await, []);
    world.absorb(vec![inserted(98)], at(9)).await;
    assert_eq!(due(10).await, [], "it was read meanwhile, and waits no more");
    for after in [96, 97] {
        let rereads = vec![(crm_id(8), Some(crm_id(after)))];
        world.store.absorb(&Absorb { rereads, ..world.batch(at(10)) }).await.unwrap();
    }
    world.absorb(vec![inserted(96)], at(11)).await;
    assert_eq!(due(10).await, [], "what is read tells anew what it waits for");
    world.absorb(vec![inserted(97)], at(12)).await;
    assert_eq!(due(10).await, [crm_id(8)]);
}

async fn reads_that_are_wanted_soon_come_before_those_that_have_time(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.store.request_reads(REALM, CRM, &[crm_id(1), crm_id(2), crm_id(3)], Haste::Bulk, at(1)).await.unwrap();
    world.store.request_reads(REALM, CRM, &[crm_id(4), crm_id(2)], Haste::Soon, at(2)).await.unwrap();
    // Who has time does not put off who has not.
    world.store.request_reads(REALM, CRM, &[crm_id(4)], Haste::Bulk, at(3)).await.unwrap();
    let batch = Absorb { rereads: vec![(crm_id(5), None), (crm_id(6), Some(crm_id(9)))], ..world.batch(at(4)) };
    world.store.absorb(&batch).await.unwrap();
    let of = async |haste: Haste| world.store.pending_reads_of(REALM, CRM, haste, 10).await.unwrap();
    assert_eq!(of(Haste::Soon).await, [crm_id(2), crm_id(4), crm_id(5)]);
    assert_eq!(of(Haste::Bulk).await, [crm_id(1), crm_id(3)]);
    let all = world.store.pending_reads(REALM, CRM, 4).await.unwrap();
    assert_eq!(all, [crm_id(2), crm_id(4), crm_id(5), crm_id(1)]);
    let asked = [6, 3, 5, 9].map(crm_id);
    assert_eq!(world.store.awaits_read(REALM, CRM, &asked).await.unwrap(), [None, Some(Haste::Bulk), Some(Haste::Soon), None]);
    assert_eq!(world.store.awaits_read(REALM, "nobody", &asked).await.unwrap(), [None; 4]);
}

async fn a_read_is_done_for_those_who_asked_before_it_began(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.in_step([7, 8], at(1)).await;
    world.store.request_reads(REALM, CRM, &[crm_id(1), crm_id(2), crm_id(7)], Haste::Soon, at(2)).await.unwrap();
    let began = world.store.sequence().await.unwrap();
    // Asked between the read and its commit: by a person, and by another batch.
    world.store.request_reads(REALM, CRM, &[crm_id(2)], Haste::Soon, at(3)).await.unwrap();
    let batch = Absorb { rereads: vec![(crm_id(3), None)], ..world.batch(at(3)) };
    world.store.absorb(&batch).await.unwrap();
    world.store.request_reads(REALM, CRM, &[crm_id(7)], Haste::Soon, at(3)).await.unwrap();
    let reread_done = vec![crm_id(1), crm_id(2), crm_id(3)];
    world.store.absorb(&Absorb { reread_done: reread_done.clone(), began, ..world.batch(at(4)) }).await.unwrap();
    let merge = Merge { rereads: Vec::new(), began, ..merge_into(&world, (7, 1), (8, 1), at(4)) };
    world.store.merge(&merge).await.unwrap();
    let mut left = world.store.pending_reads(REALM, CRM, 9).await.unwrap();
    left.sort();
    assert_eq!(left, [crm_id(2), crm_id(3), crm_id(7)]);
    let began = world.store.sequence().await.unwrap();
    world.store.absorb(&Absorb { reread_done, began, ..world.batch(at(5)) }).await.unwrap();
    assert_eq!(world.store.pending_reads(REALM, CRM, 9).await.unwrap(), [crm_id(7)]);
}

async fn the_source_book_counts_every_record_read(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    let kept = AbsorbRecord { change: RecordChange::Keep { version: 1 }, counts_as_changed: false, ..inserted(1) };
    let batch = Absorb {
        records: vec![inserted(1), inserted(2), kept],
        dead_letters: vec![letter(3, Stage::Inbound), letter(4, Stage::Identity)],
        unchanged: 4,
        history: vec![
            contested(1, "credit"),
            FieldChange { fate: Fate::Won, ..contested(1, "name") },
            FieldChange { fate: Fate::FirstSeen, ..contested(1, "name") },
            FieldChange::of_existence(id(2), Fate::Conflict),
        ],
        ..world.batch(at(1))
    };
    world.store.absorb(&batch).await.unwrap();
    let snapshot = world.snapshot(at(2)).await;
    assert_eq!(snapshot.sources[CRM], SourceLedger { read: 9, changed: 2, unchanged: 5, dead_lettered: 2, conflicts: 2 });
    assert_eq!(snapshot.conflicts(), 2);
}

/// The records whose change and whose deletion count.
fn guarded(changed: impl IntoIterator<Item = u64>, deleted: impl IntoIterator<Item = u64>) -> Guarded {
    Guarded { changed: changed.into_iter().map(id).collect(), deleted: deleted.into_iter().map(id).collect(), book: None }
}

async fn the_guard_counts_each_record_once_in_its_window(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    let since = async |hour: i64, with: Guarded| {
        let counts = world.store.changes_since(REALM, at(hour * 3600), &with).await.unwrap();
        (counts.changes, counts.deletes)
    };
    assert_eq!(since(0, guarded([1, 2], [3])).await, (2, 1), "nothing is stored yet");
    world.absorb((1..=9).map(inserted).collect(), at(0)).await;
    for (hour, guard) in [(0, guarded([1, 2], [])), (0, guarded([2], [9])), (1, guarded([2, 3], [])), (2, guarded([3, 4], [8]))] {
        world.store.absorb(&Absorb { guard, ..world.batch(at(hour * 3600)) }).await.unwrap();
    }
    assert_eq!(since(0, Guarded::default()).await, (4, 2));
    assert_eq!(since(1, Guarded::default()).await, (3, 1));
    assert_eq!(since(2, Guarded::default()).await, (2, 1));
    assert_eq!(since(3, Guarded::default()).await, (0, 0));
    assert_eq!(since(1, guarded([1, 2, 3, 5], [9, 8])).await, (5, 2), "those that count already count once");
}

async fn the_guard_counts_each_record_in_the_book_of_its_last_change(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb((1..=9).map(inserted).collect(), at(0)).await;
    let of = |book: &str, guard: Guarded| Guarded { book: Some(book.to_owned()), ..guard };
    let since = async |hour: i64, with: Guarded| {
        let counts = world.store.changes_since(REALM, at(hour * 3600), &with).await.unwrap();
        (counts.changes, counts.deletes)
    };
    let guards = [
        (0, of("eu", guarded([1, 2, 3], [9]))),
        (0, of("us", guarded([3, 4], [9]))),
        (0, guarded([5], [])),
        (1, of("eu", guarded([4], []))),
    ];
    for (hour, guard) in guards {
        world.store.absorb(&Absorb { guard, ..world.batch(at(hour * 3600)) }).await.unwrap();
    }
    assert_eq!(since(0, of("eu", Guarded::default())).await, (3, 0), "1, 2, and 4 in the next hour");
    assert_eq!(since(1, of("eu", Guarded::default())).await, (1, 0));
    assert_eq!(since(0, of("us", Guarded::default())).await, (1, 1), "3 was changed there last, and 4 here");
    assert_eq!(since(0, Guarded::default()).await, (1, 0), "the realm's own book");
    assert_eq!(since(0, of("us", guarded([1, 3], [8]))).await, (2, 2), "what counts elsewhere counts here as well");
    assert_eq!(since(0, of("new", guarded([1], []))).await, (1, 0));
}

async fn history_is_kept_by_record_the_newest_and_for_a_while(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1), inserted(2)], at(0)).await;
    let note = async |history: Vec<FieldChange>, seconds: i64| {
        world.store.absorb(&Absorb { history, ..world.batch(at(seconds)) }).await.unwrap();
    };
    let deleted = FieldChange::of_existence(id(1), Fate::Conflict);
    note(vec![contested(1, "credit"), contested(2, "credit"), deleted.clone()], 1).await;
    let kept = world.store.history(REALM, id(1), at(2)).await.unwrap();
    let past = |change| PastChange { change, participant: CRM.to_owned(), at: at(1) };
    assert_eq!(kept, [past(deleted), past(contested(1, "credit"))], "the newest first");
    assert!(world.store.history(REALM, id(3), at(2)).await.unwrap().is_empty());
    assert!(world.store.history("nowhere", id(1), at(2)).await.unwrap().is_empty());

    // Each fate has its own places.
    let most = i64::try_from(HISTORY_PER_RECORD).unwrap();
    let won = FieldChange { fate: Fate::Won, ..contested(1, "name") };
    note(vec![won.clone()], 1).await;
    for second in 2..=most + 1 {
        note(vec![contested(1, "name")], second).await;
    }
    let first = world.store.history(REALM, id(1), at(100)).await.unwrap().pop().unwrap();
    assert_eq!(first, past(won.clone()));
    note(vec![won; HISTORY_PER_RECORD], most + 1).await;
    let kept = world.store.history(REALM, id(1), at(100)).await.unwrap();
    let of = |fate: Fate| kept.iter().filter(|past| past.change.fate == fate).map(|past| past.at).collect::<Vec<_>>();
    assert_eq!(of(Fate::Won), vec![at(most + 1); HISTORY_PER_RECORD]);
    assert_eq!(of(Fate::Conflict), (2..=most + 1).rev().map(at).collect::<Vec<_>>());
    assert_eq!(world.store.history(REALM, id(2), at(100)).await.unwrap().len(), 1, "each record has its own");

    // Of a long value the beginning is kept.
    let long = FieldChange { to: Some(json!("ü".repeat(HISTORY_VALUE))), from: Some(json!("short")), ..contested(3, "name") };
    note(vec![long], most + 2).await;
    let kept = world.store.history(REALM, id(3), at(100)).await.unwrap().remove(0).change;
    let shown = kept.to.as_ref().and_then(|shown| shown.as_str()).unwrap();
    assert!(shown.starts_with("üüü") && shown.ends_with("… (4098 bytes)") && shown.len() < HISTORY_VALUE, "{shown}");
    assert_eq!(kept.from, Some(json!("short")));

    // What is too old is not told, and gone with the next one of the realm or the next sweep.
    let later = i64::try_from(HISTORY_FOR.as_secs()).unwrap() + 2;
    assert!(world.store.history(REALM, id(2), at(later)).await.unwrap().is_empty());
    note(vec![contested(1, "name")], later).await;
    assert!(world.store.history(REALM, id(2), at(100)).await.unwrap().is_empty());
    assert_eq!(world.snapshot(at(later)).await.conflicts(), 3 + u64::try_from(most).unwrap() + 2);
    let sweep = Sweep { realm: REALM.into(), participants: None, closed_before: at(0), max: 1, now: at(2 * later) };
    assert_eq!(world.store.sweep(&sweep).await, Ok(0), "only letters are counted");
    assert!(world.store.history(REALM, id(1), at(later)).await.unwrap().is_empty());
}

async fn the_history_of_a_merged_record_is_its_survivors(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.absorb(vec![inserted(1), inserted(2)], at(0)).await;
    let history = vec![contested(1, "credit"), contested(2, "name")];
    world.store.absorb(&Absorb { history, ..world.batch(at(1)) }).await.unwrap();
    // And what it brings to the survivor is told beside, once.
    let brought = vec![FieldChange { fate: Fate::Won, ..contested(2, "phone") }];
    let merge = Merge { history: brought, ..merge_into(&world, (1, 1), (2, 1), at(2)) };
    world.store.merge(&merge).await.unwrap();
    world.store.merge(&merge).await.unwrap();
    let kept = world.store.history(REALM, id(2), at(3)).await.unwrap();
    let fields: Vec<_> = kept.iter().filter_map(|past| past.change.field.as_ref()).map(ToString::to_string).collect();
    assert_eq!(fields, ["phone", "name", "credit"]);
}

async fn forgotten_participants_leave_the_records_and_what_others_hold(store: Arc<dyn Store>) {
    const EU: &str = "europe/customers/crm";
    let world = World::new(store, "a").await;
    world.in_step([1, 2], at(1)).await;
    let reader = lease(&*world.store, &format!("reader/{REALM}/{EU}"), "a", at(1)).await.unwrap();
    let seen = |n: u64| AbsorbRecord {
        change: RecordChange::Keep { version: 1 },
        external_id: erp_id(n),
        enqueue: vec![(ERP.to_owned(), Origin::Source(EU.to_owned())), (EU.to_owned(), Origin::Restore)],
        ..inserted(n)
    };
    let batch = Absorb {
        participant: EU.to_owned(),
        fence: reader.clone(),
        records: vec![seen(1)],
        dead_letters: vec![NewDeadLetter { participant: EU.to_owned(), ..letter(3, Stage::Inbound) }],
        rereads: vec![(crm_id(4), None)],
        checkpoint: Some(Checkpoint { slice: "main".into(), cursor: json!(1), complete: true }),
        guard: Guarded { book: Some("europe/customers".into()), ..guarded([1], []) },
        history: vec![contested(1, "credit")],
        ..world.batch(at(2))
    };
    world.store.absorb(&batch).await.unwrap();
    assert_eq!(world.store.held(REALM, &[EU.to_owned()]).await, Ok(1));
    world.absorb(vec![updated(2, 2)], at(2)).await;
    let notes = [
        "of/europe/customers/unit",
        "table/europe/customers/crm",
        "edit/europe/customers/crm/7",
        "table/crm",
        "of/europe/customers-b/unit",
        "of/of/europe/customers",
    ];
    for name in notes {
        world.store.put_note(REALM, name, &json!(1)).await.unwrap();
    }

    assert!(world.store.forget_participants(REALM, "europe/customers/").await.unwrap(), "others hold records");
    let held = async |participants: &[&str]| {
        let participants: Vec<String> = participants.iter().map(|name| (*name).to_owned()).collect();
        world.store.held(REALM, &participants).await.unwrap()
    };
    assert_eq!((held(&[CRM]).await, held(&[CRM, ERP]).await, held(&[EU]).await, held(&["nobody"]).await), (2, 2, 0, 0));
    let known = world.known(1).await.unwrap();
    let holders: Vec<_> = known.identities.iter().map(|identity| identity.participant.as_str()).collect();
    assert_eq!((holders.len(), known.record.version), (2, 1), "{holders:?}");
    let snapshot = world.snapshot(at(3)).await;
    assert_eq!((snapshot.live, snapshot.matched), (2, 2));
    assert!(!snapshot.sources.contains_key(EU) && !snapshot.pending.contains_key(EU) && !snapshot.dead_letters.contains_key(EU));
    assert_eq!(world.book(EU).await.entered, 1, "what others were told by them stays in the others' books");
    assert!(world.store.checkpoint(REALM, EU, "main").await.unwrap().is_none());
    assert!(world.store.pending_reads(REALM, EU, 10).await.unwrap().is_empty());
    assert!(world.store.history(REALM, id(1), at(3)).await.unwrap().is_empty());
    let guard = Guarded { book: Some("europe/customers".into()), ..Guarded::default() };
    assert_eq!(world.store.changes_since(REALM, at(0), &guard).await.unwrap(), GuardCounts::default());
    let mut left = Vec::new();
    for name in notes {
        left.extend(world.store.note(REALM, name).await.unwrap().map(|_| name));
    }
    assert_eq!(left, ["table/crm", "of/europe/customers-b/unit", "of/of/europe/customers"]);
    // Who still reads there is fenced; the others go on.
    let again = Absorb::empty(REALM, EU, reader, at(3));
    assert!(matches!(world.store.absorb(&again).await, Err(StoreError::Fenced { .. })));
    assert_eq!(world.claim(at(4)).await.len(), 2);

    // A record that nobody holds any more is gone, with what others were to be told of it.
    let alone = AbsorbRecord { enqueue: vec![(ERP.to_owned(), Origin::Source(EU.to_owned()))], external_id: erp_id(9), ..inserted(9) };
    let reader = lease(&*world.store, &format!("reader/{REALM}/{EU}"), "a", at(5)).await.unwrap();
    let batch = Absorb { participant: EU.to_owned(), fence: reader, records: vec![alone], ..world.batch(at(5)) };
    world.store.absorb(&batch).await.unwrap();
    assert_eq!((world.snapshot(at(5)).await.live, world.book(EU).await.entered), (3, 2));
    assert!(world.store.forget_participants(REALM, "europe/customers/").await.unwrap());
    let (snapshot, book) = (world.snapshot(at(5)).await, world.book(EU).await);
    assert_eq!((world.known(9).await, snapshot.live, book.superseded, book.pending), (None, 2, 1, 1));
    assert!(snapshot.balanced());
    assert_eq!(world.store.match_records(REALM, &[key(u64::MAX - 9)]).await.unwrap(), [Vec::new()]);

    assert!(world.store.forget_participants(REALM, "erp").await.unwrap());
    assert!(!world.store.forget_participants(REALM, "crm").await.unwrap(), "nobody is left");
    assert!(!world.store.forget_participants("nowhere", "crm").await.unwrap());
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

async fn a_note_is_replaced_only_where_it_is_as_it_was_known(store: Arc<dyn Store>) {
    let (one, two) = (json!({"day": 1, "requests": 7}), json!({"day": 1, "requests": 9}));
    let replace = async |known: Option<&Value>, value: &Value| store.replace_note(REALM, "requests", known, value).await.unwrap();
    assert!(!replace(Some(&one), &two).await, "there is none");
    assert!(replace(None, &one).await);
    assert!(!replace(None, &two).await, "there is one");
    assert!(!replace(Some(&two), &two).await, "it is another");
    assert_eq!(store.note(REALM, "requests").await.unwrap().as_ref(), Some(&one));
    assert!(replace(Some(&one), &two).await);
    assert_eq!(store.note(REALM, "requests").await.unwrap(), Some(two));
}

async fn nothing_that_is_added_to_a_note_is_lost(store: Arc<dyn Store>) {
    let add = |store: Arc<dyn Store>| async move {
        for _ in 0..10 {
            loop {
                let known = store.note(REALM, "count").await.unwrap();
                let value = json!(known.as_ref().and_then(Value::as_u64).unwrap_or(0) + 1);
                if store.replace_note(REALM, "count", known.as_ref(), &value).await.unwrap() {
                    break;
                }
            }
        }
    };
    let adding: Vec<_> = (0..4).map(|_| tokio::spawn(add(Arc::clone(&store)))).collect();
    for added in adding {
        added.await.unwrap();
    }
    assert_eq!(store.note(REALM, "count").await.unwrap(), Some(json!(40)));
}

async fn the_snapshot_counts_what_lives_and_what_waits(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    world.in_step([1, 2], at(1)).await;
    world.absorb(vec![inserted(3)], at(2)).await;
    let snapshot = world.snapshot(at(3)).await;
    let of = |name: &str| snapshot.of(|participant| participant == name).last_delivered;
    assert_eq!((of(ERP), of(CRM)), (Some(at(1)), None), "each target has its own");
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
        guard: guarded([1], [2]),
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

// ---- writes of API callers ---------------------------------------------------------------------------------------------------------------

async fn a_write_past_the_lane_is_entered_and_delivered_at_once(store: Arc<dyn Store>) {
    let world = World::new(store, "a").await;
    let batch = Absorb {
        records: vec![AbsorbRecord { enqueue: vec![(ERP.to_owned(), Origin::Api)], ..inserted(1) }],
        direct: 1,
        ..world.batch(at(1))
    };
    world.store.absorb(&batch).await.unwrap();
    let snapshot = world.snapshot(at(2)).await;
    let book = |target: &str| {
        let lane = snapshot.lanes.iter().find(|lane| lane.target == target && lane.origin == "Api").unwrap();
        (lane.entered, lane.delivered, lane.pending)
    };
    assert_eq!(book(CRM), (1, 1, 0));
    assert_eq!(book(ERP), (1, 0, 1));
    assert!(snapshot.balanced() && snapshot.last_delivered == Some(at(1)));
}

fn begin(scope: &str, fingerprint: &str, seconds: i64) -> BeginWrite {
    let (held, keep) = (std::time::Duration::from_secs(30), std::time::Duration::from_secs(3600));
    BeginWrite { scope: scope.to_owned(), fingerprint: fingerprint.to_owned(), held, keep, now: at(seconds) }
}

async fn a_write_with_a_key_is_done_once_and_its_answer_kept(store: Arc<dyn Store>) {
    assert_eq!(store.begin_write(&begin("a", "x", 0)).await, Ok(WriteBegun::Fresh));
    assert_eq!(store.begin_write(&begin("a", "x", 1)).await, Ok(WriteBegun::Running));
    assert_eq!(store.begin_write(&begin("a", "y", 1)).await, Ok(WriteBegun::Mismatch));
    assert_eq!(store.begin_write(&begin("b", "y", 1)).await, Ok(WriteBegun::Fresh));
    store.finish_write("a", "done").await.unwrap();
    store.abandon_write("a").await.unwrap();
    assert_eq!(store.begin_write(&begin("a", "x", 2)).await, Ok(WriteBegun::Done("done".into())));
    assert_eq!(store.begin_write(&begin("a", "y", 2)).await, Ok(WriteBegun::Mismatch));
}

async fn a_key_without_an_answer_is_free_again_when_its_process_died_or_gave_it_up(store: Arc<dyn Store>) {
    store.begin_write(&begin("a", "x", 0)).await.unwrap();
    assert_eq!(store.begin_write(&begin("a", "x", 30)).await, Ok(WriteBegun::Fresh));
    assert_eq!(store.begin_write(&begin("a", "x", 31)).await, Ok(WriteBegun::Running));
    store.abandon_write("a").await.unwrap();
    assert_eq!(store.begin_write(&begin("a", "y", 32)).await, Ok(WriteBegun::Mismatch), "it may have reached somebody");
    assert_eq!(store.begin_write(&begin("a", "x", 32)).await, Ok(WriteBegun::Fresh));
    assert_eq!(store.begin_write(&begin("a", "x", 33)).await, Ok(WriteBegun::Running));
}

async fn a_key_is_remembered_as_long_as_was_said(store: Arc<dyn Store>) {
    store.begin_write(&begin("a", "x", 0)).await.unwrap();
    store.finish_write("a", "done").await.unwrap();
    assert_eq!(store.begin_write(&begin("a", "x", 3599)).await, Ok(WriteBegun::Done("done".into())));
    assert_eq!(store.begin_write(&begin("a", "other", 3600)).await, Ok(WriteBegun::Fresh));
}
