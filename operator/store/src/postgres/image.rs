//! The rows that a command works on: loaded at its beginning, decided on in memory, written at its end.
//!
//! The decisions are those of the SQLite store, record after record, so that a batch may hold a record twice. Nobody else changes these rows
//! meanwhile: the command holds its realm's lock.

use super::codec::{get, read_id, stored_id};
use super::error::Failure;
use super::session::{Ask, Session, ask};
use super::{lane, records};
use crate::StoreError;
use crate::rows::books::Books;
use crate::rows::codec::{IdBytes, pack_keys, unpack_keys};
use crate::rows::lane::Lane;
use crate::rows::record::{Body, Keys};
use std::collections::{BTreeMap, HashMap, HashSet};
use tokio_postgres::Row;
use uuid::Uuid;

/// Rows at hand. `'c` is the command's lifetime: bodies and states are borrowed from it until they are written.
pub(super) struct Image<'c> {
    realm: i64,
    records: HashMap<IdBytes, Stored<'c>>,
    /// By record and participant.
    identities: HashMap<(i64, i64), Named<'c>>,
    /// How many identities a record has.
    holders: HashMap<i64, i64>,
    /// Whose an external id is, by participant.
    owners: HashMap<(i64, String), i64>,
    /// By record and target. In order, so that rows are written in the order of their keys.
    lanes: BTreeMap<(i64, i64), Place>,
    /// Which live records at hand carry a key.
    carried: HashMap<i64, HashSet<i64>>,
    /// Keys that a live record carries which is not at hand.
    carried_elsewhere: HashSet<i64>,
    fresh: std::vec::IntoIter<i64>,
    /// Whose arrival, or end, frees what waits for them: in one target, or everywhere.
    freed: BTreeMap<i64, Vec<IdBytes>>,
    freed_everywhere: Vec<IdBytes>,
}

/// A stored record.
#[derive(Clone)]
pub(super) struct Stored<'c> {
    pub(super) row: i64,
    pub(super) version: i64,
    pub(super) lives: bool,
    pub(super) merged_into: Option<i64>,
    keys: Vec<i64>,
    /// The keys that stand in the database.
    keys_before: Vec<i64>,
    write: Write<'c>,
}

#[derive(Clone, Copy)]
enum Write<'c> {
    Nothing,
    Insert(&'c Body),
    Update(&'c Body),
    Keys,
}

/// An identity.
struct Named<'c> {
    external_id: String,
    settled: i64,
    /// What is to be written: the state, and the sequence unless the commit gives it.
    write: Option<(&'c str, Option<i64>)>,
    is_new: bool,
}

struct Place {
    lane: Lane,
    loaded: bool,
    changed: bool,
}

/// What came of naming a record.
#[derive(PartialEq, Eq)]
pub(super) enum Naming {
    /// The participant holds the record since now.
    New,
    /// It was known.
    Known,
    /// The external id stands for another record, the record has another external id there, or the state is older than the stored one.
    Conflict,
}

impl<'c> Image<'c> {
    /// What is asked to load the records `ids` with all that hangs on them; see [`Image::of`].
    pub(super) fn ask(realm: i64, ids: &[Uuid]) -> [Ask; 3] {
        [records::by_id(realm, ids.to_vec()), records::identities(realm, ids.to_vec()), lane::of_records(realm, ids.to_vec())]
    }

    /// The image of what [`Image::ask`] was answered.
    pub(super) fn of(realm: i64, [by_id, identities, lanes]: [&[Row]; 3]) -> Result<Self, Failure> {
        let mut image = Self {
            realm,
            records: HashMap::with_capacity(by_id.len()),
            identities: HashMap::with_capacity(identities.len()),
            holders: HashMap::new(),
            owners: HashMap::new(),
            lanes: BTreeMap::new(),
            carried: HashMap::new(),
            carried_elsewhere: HashSet::new(),
            fresh: Vec::new().into_iter(),
            freed: BTreeMap::new(),
            freed_everywhere: Vec::new(),
        };
        for row in by_id {
            let keys = unpack_keys(get::<&[u8]>(row, 5)?);
            let stored = Stored {
                row: get(row, 1)?,
                version: get(row, 2)?,
                lives: get(row, 3)?,
                merged_into: get(row, 4)?,
                keys_before: keys.clone(),
                keys,
                write: Write::Nothing,
            };
            if stored.lives {
                image.carry(stored.row, &stored.keys);
            }
            image.records.insert(get::<Uuid>(row, 0)?.into_bytes(), stored);
        }
        for row in identities {
            let (record, participant): (i64, i64) = (get(row, 0)?, get(row, 1)?);
            let external_id = read_id(get(row, 2)?);
            image.owners.insert((participant, external_id.clone()), record);
            image.identities.insert((record, participant), Named { external_id, settled: get(row, 3)?, write: None, is_new: false });
            *image.holders.entry(record).or_default() += 1;
        }
        for row in lanes {
            let lane = lane::of_row(row)?;
            image.lanes.insert((lane.record, lane.target), Place { lane, loaded: true, changed: false });
        }
        Ok(image)
    }

    /// Adds whose these external ids are ([`records::owners`]).
    pub(super) fn add_owners(&mut self, participant: i64, rows: &[Row]) -> Result<(), Failure> {
        for row in rows {
            self.owners.insert((participant, read_id(get(row, 0)?)), get(row, 1)?);
        }
        Ok(())
    }

    /// Adds who carries these keys ([`records::carriers`]).
    pub(super) fn add_carriers(&mut self, rows: &[Row]) -> Result<(), Failure> {
        let at_hand: HashSet<i64> = self.records.values().map(|stored| stored.row).collect();
        for row in rows {
            let (hash, record): (i64, i64) = (get(row, 0)?, get(row, 1)?);
            if !at_hand.contains(&record) {
                self.carried_elsewhere.insert(hash);
            }
        }
        Ok(())
    }

    /// Adds rows for new records ([`records::fresh`]).
    pub(super) fn add_fresh(&mut self, rows: &[Row]) -> Result<(), Failure> {
        self.fresh = rows.iter().map(|row| get(row, 0)).collect::<Result<Vec<i64>, _>>()?.into_iter();
        Ok(())
    }

    // ---- records ------------------------------------------------------------------------------------------------------------------------

    pub(super) fn find(&self, id: &IdBytes) -> Option<&Stored<'c>> {
        self.records.get(id)
    }

    fn carry(&mut self, row: i64, keys: &[i64]) {
        for key in keys {
            self.carried.entry(*key).or_default().insert(row);
        }
    }

    fn drop_carried(&mut self, row: i64, keys: &[i64]) {
        for key in keys {
            if let Some(rows) = self.carried.get_mut(key) {
                rows.remove(&row);
            }
        }
    }

    /// Whether a live record carries one of the match keys already.
    pub(super) fn is_matched(&self, body: &Body) -> bool {
        let carries = |key: &i64| self.carried_elsewhere.contains(key) || self.carried.get(key).is_some_and(|rows| !rows.is_empty());
        body.keys.matching.iter().any(carries)
    }

    /// Adds a record; returns its row.
    pub(super) fn insert(&mut self, id: IdBytes, body: &'c Body) -> Result<i64, Failure> {
        let row = self.fresh.next().ok_or_else(|| StoreError::Other("too few rows were asked for".into()))?;
        let keys = body.keys.all.clone();
        if body.lives() {
            self.carry(row, &keys);
        }
        let (version, lives, write) = (body.version, body.lives(), Write::Insert(body));
        self.records.insert(id, Stored { row, version, lives, merged_into: None, keys, keys_before: Vec::new(), write });
        Ok(row)
    }

    pub(super) fn update(&mut self, id: &IdBytes, body: &'c Body) {
        self.change(id, |stored| {
            stored.version = body.version;
            stored.lives = body.lives();
            stored.keys.clone_from(&body.keys.all);
            stored.write = if matches!(stored.write, Write::Insert(_)) { Write::Insert(body) } else { Write::Update(body) };
        });
    }

    /// Gives a record other keys, and changes nothing else of it.
    pub(super) fn reindex(&mut self, id: &IdBytes, keys: &Keys) {
        self.change(id, |stored| {
            if stored.keys != keys.all {
                stored.keys.clone_from(&keys.all);
                stored.write = Write::Keys;
            }
        });
    }

    /// The record is a tombstone from now on, which nothing is found by; the caller writes it.
    pub(super) fn bury(&mut self, id: &IdBytes, survivor: i64) {
        self.change(id, |stored| {
            stored.version += 1;
            stored.lives = false;
            stored.keys.clear();
            stored.merged_into = Some(survivor);
        });
    }

    fn change(&mut self, id: &IdBytes, how: impl FnOnce(&mut Stored<'c>)) {
        let Some(mut stored) = self.records.remove(id) else { return };
        self.drop_carried(stored.row, &stored.keys);
        how(&mut stored);
        if stored.lives {
            let keys = stored.keys.clone();
            self.carry(stored.row, &keys);
        }
        self.records.insert(*id, stored);
    }

    // ---- identities -----------------------------------------------------------------------------------------------------------------------

    /// Notes what a participant holds of a record. `settled` is the sequence that the state knows of, or `None` for the commit's own; a state
    /// that does not know of a later write of ours is refused.
    pub(super) fn name(&mut self, (record, participant): (i64, i64), external_id: &str, state: &'c str, settled: Option<i64>) -> Naming {
        if let Some(present) = self.identities.get_mut(&(record, participant)) {
            if present.external_id != external_id || settled.is_some_and(|settled| present.settled > settled) {
                return Naming::Conflict;
            }
            present.settled = settled.unwrap_or(i64::MAX);
            present.write = Some((state, settled));
            return Naming::Known;
        }
        let key = (participant, external_id.to_owned());
        if self.owners.contains_key(&key) {
            return Naming::Conflict;
        }
        self.owners.insert(key, record);
        let write = Some((state, settled));
        let named = Named { external_id: external_id.to_owned(), settled: settled.unwrap_or(i64::MAX), write, is_new: true };
        self.identities.insert((record, participant), named);
        *self.holders.entry(record).or_default() += 1;
        Naming::New
    }

    pub(super) fn is_held(&self, record: i64, participant: i64) -> bool {
        self.identities.contains_key(&(record, participant))
    }

    /// How many participants hold the record.
    pub(super) fn holders(&self, record: i64) -> i64 {
        self.holders.get(&record).copied().unwrap_or_default()
    }

    /// The participants that hold the record, with their external ids, in order.
    pub(super) fn identities_of(&self, record: i64) -> Vec<(i64, String)> {
        let of = |(key, named): (&(i64, i64), &Named<'c>)| (key.0 == record).then(|| (key.1, named.external_id.clone()));
        let mut found: Vec<_> = self.identities.iter().filter_map(of).collect();
        found.sort_unstable();
        found
    }

    /// The identity is another record's from now on; the caller writes it.
    pub(super) fn move_identity(&mut self, (from, to): (i64, i64), participant: i64) {
        if let Some(named) = self.identities.remove(&(from, participant)) {
            self.owners.insert((participant, named.external_id.clone()), to);
            self.identities.insert((to, participant), named);
            *self.holders.entry(from).or_default() -= 1;
            *self.holders.entry(to).or_default() += 1;
        }
    }

    /// Keeps the counts of live and matched records when an identity was added to a record that lived before and lives now, or not.
    pub(super) fn count(&self, books: &mut Books, record: i64, (lived, lives): (bool, bool), added: bool) {
        if lived != lives || (lives && added) {
            let holds = self.holders(record);
            books.record((lived, holds - i64::from(added)), (lives, holds));
        }
    }

    // ---- lanes ------------------------------------------------------------------------------------------------------------------------------

    /// Whether a write of the record in this lane is in flight, or was and has no known outcome.
    pub(super) fn is_open(&self, record: i64, target: i64) -> bool {
        self.lane(record, target).is_some_and(Lane::is_open)
    }

    /// The same in any lane.
    pub(super) fn has_open_writes(&self, record: i64) -> bool {
        self.targets_of(record).into_iter().any(|target| self.is_open(record, target))
    }

    pub(super) fn lane(&self, record: i64, target: i64) -> Option<&Lane> {
        self.lanes.get(&(record, target)).map(|place| &place.lane).filter(|lane| !lane.is_empty())
    }

    /// The place, to be changed; a new one unless it is there.
    fn place(&mut self, record: i64, target: i64, held: impl FnOnce() -> bool) -> &mut Lane {
        let place = self.lanes.entry((record, target)).or_insert_with(|| Place {
            lane: Lane::new(record, target, false),
            loaded: false,
            changed: true,
        });
        if place.lane.is_empty() {
            // What is left of an emptied place is as if it had never been.
            place.lane = Lane::new(record, target, held());
        }
        place.changed = true;
        &mut place.lane
    }

    /// Changes a place that is there.
    pub(super) fn with_lane<T>(&mut self, record: i64, target: i64, how: impl FnOnce(&mut Lane) -> T) -> Option<T> {
        let place = self.lanes.get_mut(&(record, target)).filter(|place| !place.lane.is_empty())?;
        place.changed = true;
        Some(how(&mut place.lane))
    }

    /// The targets in whose lanes the record stands.
    pub(super) fn targets_of(&self, record: i64) -> Vec<i64> {
        self.lanes
            .range((record, i64::MIN)..=(record, i64::MAX))
            .filter(|(_, place)| !place.lane.is_empty())
            .map(|(key, _)| key.1)
            .collect()
    }

    /// Puts a record in a lane and keeps the books of it; `held` says whether the target holds the record, if it does not stand there yet.
    pub(super) fn enter(
        &mut self,
        books: &mut Books,
        (record, target): (i64, i64),
        (origin, version, at_once): (i64, i64, bool),
        (since, now): (i64, i64),
        held: bool,
    ) {
        let realm = self.realm;
        let lane = self.place(record, target, || held);
        let overtaken = lane.enter(origin, version, since.min(now), at_once);
        books.entered((realm, target, origin));
        if let Some(older) = overtaken {
            books.superseded((realm, target, older));
        }
    }

    /// The entry of another record goes on as one of this record, without entering the books anew.
    pub(super) fn take_over(&mut self, (record, target): (i64, i64), (origin, version): (i64, i64), since: i64, held: bool) {
        self.place(record, target, || held).enter(origin, version, since, false);
    }

    /// The target holds the record now, so writing it creates nothing.
    pub(super) fn mark_held(&mut self, record: i64, target: i64) {
        self.with_lane(record, target, |lane| lane.held = true);
    }

    /// The record died or came to life again: in a target without an id for it there is something to create, or not.
    pub(super) fn mark_life(&mut self, record: i64, lives: bool) {
        for target in self.targets_of(record) {
            let held = !lives || self.is_held(record, target);
            self.with_lane(record, target, |lane| lane.held = held);
        }
    }

    /// The target has an id for `id` now, or never will: what waits for it there is due at once.
    pub(super) fn free_waiting(&mut self, target: i64, id: IdBytes, now: i64) {
        self.set_free(&id, Some(target), now);
        self.freed.entry(target).or_default().push(id);
    }

    /// The record `id` is dead: what waits for it anywhere is to be judged again.
    pub(super) fn free_from_dead(&mut self, id: IdBytes, now: i64) {
        self.set_free(&id, None, now);
        self.freed_everywhere.push(id);
    }

    fn set_free(&mut self, id: &IdBytes, only: Option<i64>, now: i64) {
        let waits = |place: &&mut Place| place.lane.waits_for.as_ref() == Some(id) && only.is_none_or(|target| place.lane.target == target);
        for place in self.lanes.values_mut().filter(waits) {
            lane::set_free(&mut place.lane, now);
            place.changed = true;
        }
    }

    // ---- writing ----------------------------------------------------------------------------------------------------------------------------

    /// Everything that was decided, except identities ([`Image::identity_writes`]). What is freed comes first: places at hand know of it.
    pub(super) fn writes(&self, session: &Session, now: i64) -> Result<Vec<Ask>, Failure> {
        let mut asks = Vec::new();
        for (target, ids) in &self.freed {
            asks.push(lane::free(self.realm, *target, ids, now));
        }
        if !self.freed_everywhere.is_empty() {
            asks.push(lane::free_from_dead(self.realm, &self.freed_everywhere, now));
        }
        let mut all: Vec<(&IdBytes, &Stored<'c>)> = self.records.iter().collect();
        all.sort_unstable_by_key(|(_, stored)| stored.row);
        self.record_writes(session, &all, &mut asks)?;
        self.key_writes(&all, &mut asks);
        let changed = self.lanes.values().filter(|place| place.changed).map(|place| (&place.lane, place.loaded));
        asks.extend(lane::store(self.realm, changed));
        Ok(asks)
    }

    fn record_writes(&self, session: &Session, all: &[(&IdBytes, &Stored<'c>)], asks: &mut Vec<Ask>) -> Result<(), Failure> {
        fn column<T>(bodies: &[(i64, Uuid, &Body)], of: impl Fn(&Body) -> T) -> Vec<T> {
            bodies.iter().map(|(_, _, body)| of(body)).collect()
        }
        let (mut inserted, mut updated) = (Vec::new(), Vec::new());
        let (mut rekeyed, mut keys) = (Vec::new(), Vec::new());
        for (id, stored) in all {
            match stored.write {
                Write::Nothing => {}
                Write::Insert(body) => inserted.push((stored.row, Uuid::from_bytes(**id), body)),
                Write::Update(body) => updated.push((stored.row, Uuid::from_bytes(**id), body)),
                Write::Keys => {
                    rekeyed.push(stored.row);
                    keys.push(pack_keys(&stored.keys));
                }
            }
        }
        for (bodies, insert) in [(inserted, true), (updated, false)] {
            if bodies.is_empty() {
                continue;
            }
            let rows: Vec<i64> = bodies.iter().map(|body| body.0).collect();
            let homes = bodies.iter().map(|(_, _, body)| session.name(&body.home)).collect::<Result<Vec<_>, _>>()?;
            let versions = column(&bodies, |body| body.version);
            let deleted = column(&bodies, |body| body.deleted_at);
            let keys = column(&bodies, |body| pack_keys(&body.keys.all));
            let provenance = column(&bodies, |body| body.provenance.clone());
            let documents = column(&bodies, |body| body.document.clone());
            asks.push(if insert {
                let ids: Vec<Uuid> = bodies.iter().map(|body| body.1).collect();
                ask!(records::INSERT, self.realm, rows, ids, versions, homes, deleted, keys, provenance, documents)
            } else {
                ask!(records::UPDATE, rows, versions, homes, deleted, keys, provenance, documents)
            });
        }
        if !rekeyed.is_empty() {
            asks.push(ask!(records::REINDEX, rekeyed, keys));
        }
        Ok(())
    }

    /// Keys that stay are not touched: they lie at random places.
    fn key_writes(&self, all: &[(&IdBytes, &Stored<'c>)], asks: &mut Vec<Ask>) {
        let (mut gone, mut added) = (Vec::new(), Vec::new());
        for (_, stored) in all {
            gone.extend(stored.keys_before.iter().filter(|key| !stored.keys.contains(key)).map(|key| (*key, stored.row)));
            added.extend(stored.keys.iter().filter(|key| !stored.keys_before.contains(key)).map(|key| (*key, stored.row)));
        }
        for (sql, mut keys) in [(records::DROP_KEYS, gone), (records::ADD_KEYS, added)] {
            if !keys.is_empty() {
                keys.sort_unstable();
                let (hashes, rows): (Vec<i64>, Vec<i64>) = keys.into_iter().unzip();
                asks.push(ask!(sql, self.realm, hashes, rows));
            }
        }
    }

    /// The identities. Where the commit's sequence goes into them they belong after the statement that raises it.
    pub(super) fn identity_writes(&self) -> Vec<Ask> {
        let (mut new, mut known) = (Vec::new(), Vec::new());
        for (key, named) in &self.identities {
            if let Some((state, settled)) = named.write {
                let row = (key.0, key.1, settled, named.external_id.as_str(), state);
                if named.is_new { new.push(row) } else { known.push(row) }
            }
        }
        let mut asks = Vec::new();
        for (rows, is_new) in [(&mut new, true), (&mut known, false)] {
            if rows.is_empty() {
                continue;
            }
            rows.sort_unstable();
            let records: Vec<i64> = rows.iter().map(|row| row.0).collect();
            let participants: Vec<i64> = rows.iter().map(|row| row.1).collect();
            let settled: Vec<Option<i64>> = rows.iter().map(|row| row.2).collect();
            let states: Vec<String> = rows.iter().map(|row| row.4.to_owned()).collect();
            asks.push(if is_new {
                let external_ids: Vec<String> = rows.iter().map(|row| stored_id(row.3).into_owned()).collect();
                ask!(records::NAME, self.realm, records, participants, settled, external_ids, states)
            } else {
                ask!(records::SET_STATE, records, participants, settled, states)
            });
        }
        asks
    }
}
