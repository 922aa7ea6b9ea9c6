//! Random commands against a store, with a model of the books beside it.
//!
//! The model holds every entry ever made as a thing of its own and moves it from place to place; the store holds counts. After each step
//! both must tell the same numbers, and at the end everything that waits can be brought home. Which keys a claim returns is the store's to
//! say (time decides that); that each of them had an entry is checked.

use super::world::{
    CRM, ERP, REALM, World, at, crm_id, deleted, erp_id, id, inserted, lease, letter, merge_into, split_off, state, updated,
};
use crate::{
    Absorb, AbsorbRecord, Claimed, CloseDeadLetters, CloseReason, DeadLetterFilter, Keys, LaneLedger, Merge, Origin, Outcome, Record,
    RecordChange, Settlement, SourceLedger, Split, Stage, Store, StoreError, Survivor,
};
use fairlead_model::RecordId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How many different records the walk uses: few, so that commands meet.
const RECORDS: u8 = 6;

/// One thing that happens. Numbers choose among what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The CRM shows the record, new or changed.
    Change(u8),
    /// The CRM deletes the record.
    Delete(u8),
    /// The CRM shows the record, and nothing is new.
    Touch(u8),
    /// The CRM shows something that cannot be read.
    BadRead(u8),
    /// The ERP shows the record as its own.
    Match(u8),
    /// A claim of at most so many.
    Claim(u8, bool),
    /// An intent for a claimed key.
    Intend(u8),
    /// A claimed key gets a result.
    Settle(u8, Ending),
    /// The last result is sent once more.
    Again,
    /// A record is put in the lane.
    Enqueue(u8, u8),
    /// Every live record is put in the lane.
    EnqueueAll(u8),
    /// The lane's dead letters are tried again.
    Replay,
    /// A person closes a dead letter.
    Close(u8, bool),
    /// Another epoch begins; what the old one claimed, it will not settle.
    TakeOver,
    /// The CRM merges one record into another.
    Merge(u8, u8),
    /// The ERP's id of a record leaves it for a new one.
    Split(u8),
    /// Time passes.
    Pass(u8),
}

/// What comes of a claimed key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// See [`Outcome::Delivered`].
    Delivered,
    /// See [`Outcome::Unchanged`]; with what was learnt, or without.
    Unchanged(bool),
    /// See [`Outcome::Filtered`].
    Filtered(bool),
    /// See [`Outcome::Retry`]: after so many seconds, attempt, unknown.
    Retry(u8, bool, bool),
    /// See [`Outcome::WaitFor`].
    WaitFor(u8),
    /// See [`Outcome::DeadLetter`]; outbound or delivery.
    DeadLetter(bool),
}

/// Steps from numbers, for a walk that a seed decides.
#[must_use]
pub fn steps_from_seed(seed: u64, count: usize) -> Vec<Step> {
    let mut state = seed;
    let mut next = || {
        // SplitMix64.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    (0..count).map(|_| step_from(next())).collect()
}

/// One step from one number.
#[must_use]
pub fn step_from(number: u64) -> Step {
    let [kind, a, b, c, d, ..] = number.to_le_bytes();
    let yes = b & 1 == 1;
    match kind % 32 {
        0..=4 => Step::Change(a),
        5 if c & 1 == 1 => Step::Split(a),
        5 => Step::Merge(a, b),
        6 => Step::Delete(a),
        7 => Step::Touch(a),
        8 => Step::BadRead(a),
        9 => Step::Match(a),
        10..=14 => Step::Claim(a % 4 + 1, yes),
        15..=16 => Step::Intend(a),
        17..=24 => {
            let ending = match c % 12 {
                0..=3 => Ending::Delivered,
                4 => Ending::Unchanged(yes),
                5 => Ending::Filtered(yes),
                6..=7 => Ending::Retry(d % 8, yes, b & 2 == 2),
                8 => Ending::WaitFor(d),
                _ => Ending::DeadLetter(yes),
            };
            Step::Settle(a, ending)
        }
        25 => Step::Again,
        26 => Step::Enqueue(a, b),
        27 => Step::EnqueueAll(b),
        28 => Step::Replay,
        29 => Step::Close(a, yes),
        30 => Step::TakeOver,
        _ => Step::Pass(a % 8),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Waits,
    Flies,
    /// When.
    Delivered(i64),
    Unchanged,
    Filtered(bool),
    Superseded,
    Discarded,
    Dead(Stage),
}

#[derive(Debug, Clone)]
struct Entry {
    record: u64,
    origin: String,
    place: Place,
}

#[derive(Debug, Clone, Copy, Default)]
struct Shape {
    version: u64,
    dead: bool,
    in_erp: bool,
    /// The CRM does not hold it.
    split_off: bool,
    /// By which number the ERP's id of it is made.
    erp: u64,
    settled: u64,
}

struct Model {
    world: World,
    now: i64,
    epochs: u64,
    records: BTreeMap<u64, Shape>,
    /// What was merged, into what.
    merged: BTreeMap<u64, u64>,
    /// The number of the next record that is split off, and of the ERP's next id.
    next: u64,
    entries: Vec<Entry>,
    source: SourceLedger,
    erp_source: SourceLedger,
    bad_reads: BTreeSet<u64>,
    flying: Vec<Claimed>,
    last: Option<(RecordId, u64, Outcome)>,
}

/// Takes `steps` on an empty store, and compares the books after each. Panics where they differ.
pub async fn walk(store: Arc<dyn Store>, steps: &[Step]) {
    let mut model = Model {
        world: World::new(store, "walker-1").await,
        now: 0,
        epochs: 1,
        records: BTreeMap::new(),
        merged: BTreeMap::new(),
        next: 1000,
        entries: Vec::new(),
        source: SourceLedger::default(),
        erp_source: SourceLedger::default(),
        bad_reads: BTreeSet::new(),
        flying: Vec::new(),
        last: None,
    };
    for (place, step) in steps.iter().enumerate() {
        model.step(*step).await;
        model.compare(&format!("step {place}: {step:?}")).await;
    }
    model.bring_home().await;
    model.compare("the end").await;
    assert!(model.entries.iter().all(|entry| !matches!(entry.place, Place::Waits | Place::Flies)), "something still waits");
}

impl Model {
    /// One of the records; the survivor, where it was merged.
    fn number(&self, choice: u8) -> u64 {
        let number = u64::from(choice % RECORDS) + 1;
        self.merged.get(&number).copied().unwrap_or(number)
    }

    fn find(&mut self, record: u64, wanted: impl Fn(Place) -> bool) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().filter(move |entry| entry.record == record && wanted(entry.place))
    }

    /// A new entry ends the one that waits; but a replay, which a person asked for, ends the new one.
    fn enter(&mut self, record: u64, origin: &str) {
        let replay = self.find(record, |place| place == Place::Waits).any(|older| older.origin == "Replay");
        if !replay {
            self.find(record, |place| place == Place::Waits).for_each(|older| older.place = Place::Superseded);
        }
        let place = if replay { Place::Superseded } else { Place::Waits };
        self.entries.push(Entry { record, origin: origin.to_owned(), place });
    }

    /// What is in flight waits again; of it and a newer one that waits, a replay stays, else the newer.
    fn put_back(&mut self, record: u64) {
        let newer = self.find(record, |place| place == Place::Waits).map(|entry| entry.origin.clone()).next();
        let stays = |origin: &str| newer.as_deref().is_none_or(|newer| origin == "Replay" && newer != "Replay");
        let stays = self.entries.iter().any(|entry| entry.record == record && entry.place == Place::Flies && stays(&entry.origin));
        if stays {
            self.find(record, |place| place == Place::Waits).for_each(|newer| newer.place = Place::Superseded);
        }
        let place = if stays { Place::Waits } else { Place::Superseded };
        self.find(record, |place| place == Place::Flies).for_each(|flight| flight.place = place);
    }

    async fn step(&mut self, step: Step) {
        let now = at(self.now);
        match step {
            Step::Change(choice) => {
                let number = self.number(choice);
                self.change(number, false).await;
            }
            Step::Delete(choice) => {
                let number = self.number(choice);
                if self.records.contains_key(&number) {
                    self.change(number, true).await;
                }
            }
            Step::Touch(choice) => {
                let number = self.number(choice);
                if let Some(shape) = self.records.get(&number) {
                    let change = RecordChange::Keep { version: shape.version };
                    let read = AbsorbRecord { change, enqueue: Vec::new(), counts_as_changed: false, ..inserted(number) };
                    let batch = Absorb { records: vec![read], unchanged: 2, ..self.world.batch(now) };
                    self.world.store.absorb(&batch).await.unwrap();
                    self.source.read += 3;
                    self.source.unchanged += 3;
                    self.bad_reads.remove(&number);
                }
            }
            Step::BadRead(choice) => {
                let number = self.number(choice);
                let batch = Absorb { dead_letters: vec![letter(number, Stage::Inbound)], ..self.world.batch(now) };
                self.world.store.absorb(&batch).await.unwrap();
                self.source.read += 1;
                self.source.dead_lettered += 1;
                self.bad_reads.insert(number);
            }
            Step::Match(choice) => {
                let number = self.number(choice);
                self.matched(number).await;
            }
            Step::Claim(max, creates) => {
                let claimed = self.world.try_claim(usize::from(max), creates, now).await.unwrap();
                self.take(claimed);
            }
            Step::Intend(choice) => {
                if let Some(key) = self.chosen(choice) {
                    self.world.intend(&[key.known.record.id], now).await.unwrap();
                }
            }
            Step::Settle(choice, ending) => {
                if let Some(key) = self.chosen(choice) {
                    self.flying.retain(|other| other.known.record.id != key.known.record.id);
                    self.settle(&key, ending).await;
                }
            }
            Step::Again => {
                // Only a result whose key is not claimed anew is a mere repetition.
                if let Some((id, version, outcome)) = self.last.clone()
                    && self.flying.iter().all(|key| key.known.record.id != id)
                {
                    self.world.try_settle(vec![(id, version, outcome)], now).await.unwrap();
                }
            }
            Step::Enqueue(choice, origin) => {
                let number = self.number(choice);
                let (origin, name) = origin_of(origin);
                let entered = self.world.enqueue(Keys::Records(vec![id(number)]), origin, now).await;
                assert_eq!(entered, u64::from(self.records.contains_key(&number)));
                if entered == 1 {
                    self.enter(number, name);
                }
            }
            Step::EnqueueAll(origin) => {
                let (origin, name) = origin_of(origin);
                self.world.enqueue(Keys::All, origin, now).await;
                let live: Vec<u64> = self.records.iter().filter(|(_, shape)| !shape.dead).map(|(number, _)| *number).collect();
                live.into_iter().for_each(|number| self.enter(number, name));
            }
            Step::Replay => {
                let entered = self.world.enqueue(Keys::DeadLetters, Origin::Replay, now).await;
                let mut again = BTreeSet::new();
                for entry in self.entries.iter_mut().filter(|entry| matches!(entry.place, Place::Dead(_))) {
                    entry.place = Place::Superseded;
                    again.insert(entry.record);
                }
                assert_eq!(entered, again.len() as u64);
                again.into_iter().for_each(|number| self.enter(number, "Replay"));
            }
            Step::Close(choice, discard) => self.close(choice, discard).await,
            Step::TakeOver => {
                self.world.store.release(&self.world.lane).await.unwrap();
                self.epochs += 1;
                let holder = format!("walker-{}", self.epochs);
                self.world.lane = lease(&*self.world.store, &self.world.lane.key, &holder, now).await.unwrap();
                assert_eq!(self.world.lane.epoch, self.epochs);
                self.flying.clear();
            }
            Step::Merge(loser, survivor) => {
                let (loser, survivor) = (self.number(loser), self.number(survivor));
                self.merge(loser, survivor).await;
            }
            Step::Split(choice) => {
                let number = self.number(choice);
                self.split(number).await;
            }
            Step::Pass(seconds) => self.now += i64::from(seconds),
        }
    }

    async fn change(&mut self, number: u64, delete: bool) {
        let now = at(self.now);
        let shape = self.records.entry(number).or_insert(Shape { erp: number, ..Shape::default() });
        shape.version += 1;
        shape.dead = delete;
        let version = shape.version;
        let read = match (version, delete) {
            (1, _) => inserted(number),
            (_, false) => updated(number, version),
            (_, true) => deleted(number, version, now),
        };
        self.world.absorb(vec![read], now).await;
        self.source.read += 1;
        self.source.changed += 1;
        self.bad_reads.remove(&number);
        self.enter(number, CRM);
    }

    /// The ERP is read and shows the record.
    async fn matched(&mut self, number: u64) {
        let now = at(self.now);
        let Some(shape) = self.records.get_mut(&number) else { return };
        let key = format!("reader/{REALM}/{ERP}");
        let fence = lease(&*self.world.store, &key, "walker", now).await.unwrap();
        let state = fairlead_model::state::ParticipantState { settled: shape.settled, ..state(shape.version) };
        let read = AbsorbRecord {
            change: RecordChange::Keep { version: shape.version },
            external_id: erp_id(shape.erp),
            enqueue: Vec::new(),
            state,
            counts_as_changed: false,
            ..inserted(number)
        };
        shape.in_erp = true;
        let batch = Absorb { participant: ERP.to_owned(), fence, records: vec![read], ..self.world.batch(now) };
        self.world.store.absorb(&batch).await.unwrap();
        self.erp_source.read += 1;
        self.erp_source.unchanged += 1;
    }

    /// A claim puts back what an earlier epoch left in flight; then what it returns had an entry that waited.
    fn take(&mut self, claimed: Vec<Claimed>) {
        let ours: BTreeSet<RecordId> = self.flying.iter().map(|key| key.known.record.id).collect();
        for number in (1..=u64::from(RECORDS)).chain(1000..self.next) {
            if !ours.contains(&id(number)) {
                self.put_back(number);
            }
        }
        for key in claimed {
            let number = self.number_of(key.known.record.id);
            self.find(number, |place| place == Place::Waits).for_each(|entry| entry.place = Place::Flies);
            let origins: Vec<String> = self.find(number, |place| place == Place::Flies).map(|entry| entry.origin.clone()).collect();
            assert_eq!(origins, [print(&key.origin)], "record {number} was claimed without an entry");
            assert_eq!(key.known.record.version, self.records[&number].version);
            assert!(self.flying.iter().all(|other| other.known.record.id != key.known.record.id), "record {number} was claimed twice");
            self.flying.push(key);
        }
    }

    fn number_of(&self, record: RecordId) -> u64 {
        self.records.keys().copied().find(|number| id(*number) == record).expect("an unknown record was claimed")
    }

    fn chosen(&self, choice: u8) -> Option<Claimed> {
        let count = self.flying.len();
        (count > 0).then(|| self.flying[usize::from(choice) % count].clone())
    }

    async fn settle(&mut self, key: &Claimed, ending: Ending) {
        let now = at(self.now);
        let (record, version) = (key.known.record.id, key.known.record.version);
        let number = self.number_of(record);
        let erp = self.records[&number].erp;
        let outcome = match ending {
            Ending::Delivered => Outcome::Delivered { external_id: erp_id(erp), state: state(version), incomplete: None },
            Ending::Unchanged(_) => Outcome::Unchanged,
            Ending::Filtered(when) => Outcome::Filtered { reason: reason(when) },
            Ending::Retry(after, attempt, unknown) => Outcome::Retry { at: at(self.now + i64::from(after)), attempt, unknown },
            Ending::WaitFor(choice) => Outcome::WaitFor { record: id(self.number(choice)) },
            Ending::DeadLetter(outbound) => Outcome::DeadLetter(Box::new(letter(number, stage(outbound)))),
        };
        let learnt = (ending == Ending::Unchanged(true)).then(|| (erp_id(erp), state(version)));
        self.world.try_settle_all(vec![Settlement { id: record, version, learnt, outcome: outcome.clone() }], now).await.unwrap();
        let place = match ending {
            Ending::Delivered => Some(Place::Delivered(self.now)),
            Ending::Unchanged(_) => Some(Place::Unchanged),
            Ending::Filtered(when) => Some(Place::Filtered(when)),
            Ending::DeadLetter(outbound) => {
                let stage = stage(outbound);
                self.find(number, |place| place == Place::Dead(stage)).for_each(|older| older.place = Place::Superseded);
                Some(Place::Dead(stage))
            }
            Ending::Retry(..) | Ending::WaitFor(_) => None,
        };
        match place {
            Some(place) => self.find(number, |place| place == Place::Flies).for_each(|entry| entry.place = place),
            None => self.put_back(number),
        }
        if matches!(ending, Ending::Delivered | Ending::Unchanged(_) | Ending::Filtered(_)) {
            self.find(number, |place| matches!(place, Place::Dead(_))).for_each(|void| void.place = Place::Superseded);
        }
        if matches!(ending, Ending::Delivered | Ending::Unchanged(true)) {
            let settled = self.world.store.sequence().await.unwrap();
            let shape = self.records.get_mut(&number).expect("a known record");
            (shape.in_erp, shape.settled) = (true, settled);
        }
        self.last = Some((record, version, outcome));
    }

    async fn merge(&mut self, loser: u64, survivor: u64) {
        let (Some(gone), Some(kept)) = (self.records.get(&loser).copied(), self.records.get(&survivor).copied()) else { return };
        if loser == survivor {
            return;
        }
        let merge = merge_into(&self.world, (loser, gone.version), (survivor, kept.version), at(self.now));
        let merge = Merge { survivor: alive_as(merge.survivor, kept.dead), ..merge };
        let merged = self.world.store.merge(&merge).await;
        if !self.is_done(merged).await {
            return;
        }
        self.records.remove(&loser);
        self.merged.insert(loser, survivor);
        self.merged.values_mut().filter(|into| **into == loser).for_each(|into| *into = survivor);
        self.bad_reads.remove(&loser);
        let shape = self.records.get_mut(&survivor).expect("a known record");
        shape.version += 1;
        if !kept.in_erp && gone.in_erp {
            (shape.in_erp, shape.erp, shape.settled) = (true, gone.erp, gone.settled);
        }
        for place in [Place::Waits, Place::Dead(Stage::Outbound), Place::Dead(Stage::Delivery)] {
            let own = self.find(survivor, |at| at == place).count() > 0;
            self.find(loser, |at| at == place).for_each(|entry| entry.place = if own { Place::Superseded } else { place });
            self.find(loser, |at| at == place).for_each(|entry| entry.record = survivor);
        }
        self.last = None;
    }

    /// Whether something was done to records, or else refused for a write that is open.
    async fn is_done(&self, result: Result<(), StoreError>) -> bool {
        let ids = match result {
            Ok(()) => return true,
            Err(StoreError::Conflict(ids)) => ids,
            Err(error) => panic!("{error}"),
        };
        let open = self.world.store.known_by_id(REALM, &ids).await.unwrap();
        let open = open.iter().flatten().any(|known| known.lanes.iter().any(|lane| lane.in_flight));
        // An outcome that was never found out is an open write that stands in no lane.
        assert!(open || self.entries.iter().any(|entry| ids.contains(&id(entry.record))), "refused without a write that is open");
        false
    }

    async fn split(&mut self, number: u64) {
        let Some(shape) = self.records.get(&number).copied().filter(|shape| shape.in_erp && !shape.dead) else { return };
        let new = self.next;
        let mut split = Split { notes: Vec::new(), rereads: Vec::new(), ..split_off((number, shape.version), new, at(self.now)) };
        for identity in &mut split.leaving {
            (identity.external_id, identity.state.settled) = (erp_id(shape.erp), shape.settled);
        }
        let split = self.world.store.split(&split).await;
        if !self.is_done(split).await {
            return;
        }
        self.next += 1;
        self.records.insert(new, Shape { version: 0, split_off: true, ..shape });
        self.records.insert(number, Shape { version: shape.version + 1, in_erp: false, erp: new, settled: 0, ..shape });
        self.enter(number, CRM);
        self.last = None;
    }

    async fn close(&mut self, choice: u8, discard: bool) {
        let letters = self.world.store.dead_letters(&DeadLetterFilter { max: 1000, ..DeadLetterFilter::default() }).await.unwrap();
        if letters.is_empty() {
            return;
        }
        let chosen = &letters[usize::from(choice) % letters.len()];
        let (reason, place) = if discard { (CloseReason::Discarded, Place::Discarded) } else { (CloseReason::Edited, Place::Superseded) };
        let close = CloseDeadLetters { ids: vec![chosen.id], reason, author: "kim".into(), now: at(self.now) };
        assert_eq!(self.world.store.close_dead_letters(&close).await.unwrap(), 1);
        match (chosen.letter.record, &chosen.letter.external_id) {
            (Some(record), _) => {
                let (number, stage) = (self.number_of(record), chosen.letter.stage);
                self.find(number, |at| at == Place::Dead(stage)).for_each(|entry| entry.place = place);
            }
            (None, external) => {
                let number = (1..=u64::from(RECORDS)).find(|number| Some(&crm_id(*number)) == external.as_ref());
                self.bad_reads.remove(&number.expect("a letter of an unknown record"));
            }
        }
    }

    /// Everything that waits is claimed and delivered, by a new epoch, long after.
    async fn bring_home(&mut self) {
        self.now += 1_000_000;
        self.step(Step::TakeOver).await;
        for number in self.records.keys().copied().collect::<Vec<_>>() {
            self.world.enqueue(Keys::Records(vec![id(number)]), Origin::Replay, at(self.now)).await;
            self.enter(number, "Replay");
        }
        loop {
            let claimed = self.world.try_claim(2, true, at(self.now)).await.unwrap();
            if claimed.is_empty() {
                break;
            }
            self.take(claimed);
            for key in std::mem::take(&mut self.flying) {
                self.settle(&key, Ending::Delivered).await;
            }
        }
    }

    async fn compare(&self, when: &str) {
        let snapshot = self.world.store.snapshot(REALM, at(self.now)).await.unwrap();
        assert!(snapshot.balanced(), "{when}: the books do not add up: {snapshot:#?}");
        let mut books: BTreeMap<String, LaneLedger> = BTreeMap::new();
        for entry in &self.entries {
            let book = books.entry(entry.origin.clone()).or_default();
            (book.target, book.origin) = (ERP.to_owned(), entry.origin.clone());
            book.entered += 1;
            match entry.place {
                Place::Waits | Place::Flies => book.pending += 1,
                Place::Delivered(when) => {
                    book.delivered += 1;
                    book.last_delivered = book.last_delivered.max(Some(at(when)));
                }
                Place::Unchanged => book.unchanged += 1,
                Place::Filtered(when) => *book.filtered.entry(reason(when)).or_default() += 1,
                Place::Superseded => book.superseded += 1,
                Place::Discarded => book.discarded += 1,
                Place::Dead(_) => book.dead_lettered += 1,
            }
        }
        let told: BTreeMap<String, LaneLedger> = snapshot.lanes.into_iter().map(|book| (book.origin.clone(), book)).collect();
        assert_eq!(told, books, "{when}: the lane's books");
        assert_eq!(snapshot.sources.get(CRM).copied().unwrap_or_default(), self.source, "{when}: the source's book");
        assert_eq!(snapshot.sources.get(ERP).copied().unwrap_or_default(), self.erp_source, "{when}: the target's book as a source");
        let waiting: BTreeSet<u64> =
            self.entries.iter().filter(|entry| matches!(entry.place, Place::Waits | Place::Flies)).map(|entry| entry.record).collect();
        assert_eq!(snapshot.pending.get(ERP).map_or(0, |pending| pending.keys), waiting.len() as u64, "{when}: keys that wait");
        let dead = self.entries.iter().filter(|entry| matches!(entry.place, Place::Dead(_))).count() as u64;
        assert_eq!(snapshot.dead_letters.get(ERP).copied().unwrap_or(0), dead, "{when}: dead letters of the target");
        assert_eq!(snapshot.dead_letters.get(CRM).copied().unwrap_or(0), self.bad_reads.len() as u64, "{when}: dead letters of the source");
        let live = self.records.values().filter(|shape| !shape.dead).count() as u64;
        let matched = self.records.values().filter(|shape| !shape.dead && !shape.split_off && shape.in_erp).count() as u64;
        assert_eq!((snapshot.live, snapshot.matched), (live, matched), "{when}: live and matched records");
        for (number, shape) in &self.records {
            let known = self.world.known(*number).await.unwrap();
            assert_eq!((known.record.version, known.record.deleted_at.is_some()), (shape.version, shape.dead), "{when}: record {number}");
            assert_eq!(
                known.identity(ERP).map(|identity| identity.state.settled),
                shape.in_erp.then_some(shape.settled),
                "{when}: record {number}"
            );
        }
        let refused = self.world.try_absorb(vec![updated(1, 1_000_000)], at(self.now)).await;
        assert_eq!(refused.unwrap_err(), StoreError::Conflict(vec![id(1)]), "{when}: a refused batch");
    }
}

/// The survivor of a merge, which is dead where it was before.
fn alive_as(survivor: Survivor, dead: bool) -> Survivor {
    match survivor {
        Survivor::Record { record, keys, enqueue, put_away, aliases } if dead => {
            let record = Record { deleted_at: Some(at(0)), ..record };
            drop(keys);
            Survivor::Record { record, keys: Vec::new(), enqueue, put_away, aliases }
        }
        survivor => survivor,
    }
}

fn origin_of(choice: u8) -> (Origin, &'static str) {
    match choice % 5 {
        0 => (Origin::Restore, "Restore"),
        1 => (Origin::Remap, "Remap"),
        2 => (Origin::Resync, "Resync"),
        3 => (Origin::Repair, "Repair"),
        _ => (Origin::Replay, "Replay"),
    }
}

fn print(origin: &Origin) -> String {
    match origin {
        Origin::Source(participant) => participant.clone(),
        other => format!("{other:?}"),
    }
}

fn reason(when: bool) -> String {
    if when { "When".to_owned() } else { "NeverCreated".to_owned() }
}

const fn stage(outbound: bool) -> Stage {
    if outbound { Stage::Outbound } else { Stage::Delivery }
}
