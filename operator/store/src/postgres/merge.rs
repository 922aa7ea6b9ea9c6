//! The command `merge`: one record is folded into another, or goes on under another external id.

use super::absorb::{code_of, name_of};
use super::books::{write, write_guard};
use super::codec::{stored_id, uuid_of};
use super::command::{Done, Job};
use super::error::Failure;
use super::image::Image;
use super::session::{Session, ask, lock_realm};
use super::{history, lane, leases, letters, reads, records};
use crate::crash::{Command, Step, reach};
use crate::rows::absorb::ChangeRow;
use crate::rows::books::Books;
use crate::rows::codec::{REPLAY, id_bytes};
use crate::rows::packed::encode_state;
use crate::rows::record::Body;
use crate::{CloseReason, Haste, Merge, Origin, RecordChange, StoreError, Survivor};
use async_trait::async_trait;
use fairlead_model::RecordId;
use fairlead_model::state::ParticipantState;
use std::collections::BTreeSet;
use uuid::Uuid;

const MOVE_IDENTITY: &str = "UPDATE identity SET record = $2 WHERE record = $1 AND participant = ANY($3::int8[])";
const SET_STATE: &str = "UPDATE identity SET settled = $3, state = $4 WHERE record = $1 AND participant = $2";
const RENAME: &str = "UPDATE identity SET external_id = $3, settled = $4, state = $5 WHERE record = $1 AND participant = $2";
const BURY: &str =
    "UPDATE record SET version = version + 1, deleted_at = coalesce(deleted_at, $3), index_keys = '', merged_into = $2 WHERE row = $1";
/// Those that were folded into the loser before are the survivor's now.
const BURY_DEEPER: &str = "UPDATE record SET merged_into = $2 WHERE merged_into = $1";
/// A reader that looked the record up before must look again: it knows the old id.
const RAISE_VERSION: &str = "UPDATE record SET version = version + 1 WHERE row = $1";
const ADD_TOMBSTONE: &str = "INSERT INTO record (realm, id, version, home, deleted_at, index_keys, document, merged_into)
     VALUES ($1, $2, 1, $3, $4, '', '{}', $5) RETURNING row";
const ADD_ALIAS: &str = "INSERT INTO identity (record, participant, realm, external_id, settled, state) VALUES ($1, $2, $3, $4, $5, $6)";

/// A [`Merge`] with the bodies of what it writes.
pub(super) struct Folding<'m> {
    command: &'m Merge,
    survivor: Option<Body>,
    referring: Vec<Option<Body>>,
    history: Vec<ChangeRow>,
}

impl<'m> Folding<'m> {
    pub(super) fn new(command: &'m Merge) -> Result<Self, StoreError> {
        let survivor = match &command.survivor {
            Survivor::Record { record, keys, .. } => Some(Body::new(record, keys)?),
            Survivor::Later | Survivor::ExternalId { .. } => None,
        };
        let body = |change: &RecordChange| match change {
            RecordChange::Update { record, keys } => Body::new(record, keys).map(Some),
            RecordChange::Keep { .. } | RecordChange::Insert { .. } => Ok(None),
        };
        let referring = command.referring.iter().map(|item| body(&item.change)).collect::<Result<_, _>>()?;
        let history = command.history.iter().map(ChangeRow::new).collect::<Result<_, _>>()?;
        Ok(Self { command, survivor, referring, history })
    }
}

#[async_trait]
impl Job for Folding<'_> {
    type Answer = ();
    const COMMAND: Command = Command::Merge;

    fn names(&self) -> Vec<&str> {
        let Merge { realm, participant, survivor, referring, .. } = self.command;
        let mut names = BTreeSet::from([realm.as_str(), participant.as_str(), self.command.guard.book(realm)]);
        names.extend(self.survivor.iter().chain(self.referring.iter().flatten()).map(|body| body.home.as_str()));
        let mut lanes: Vec<&(String, Origin)> = referring.iter().flat_map(|item| &item.enqueue).collect();
        if let Survivor::Record { enqueue, put_away, aliases, .. } = survivor {
            lanes.extend(enqueue.iter().chain(put_away));
            names.extend(aliases.iter().map(|(participant, _)| participant.as_str()));
        }
        for (target, origin) in lanes {
            names.insert(target);
            names.extend(name_of(origin));
        }
        names.into_iter().collect()
    }

    async fn run(&self, session: &mut Session) -> Result<Done<()>, Failure> {
        let command = self.command;
        let (realm, participant) = (session.name(&command.realm)?, session.name(&command.participant)?);
        let [_, fence] = session.all([lock_realm(realm), leases::check(&command.fence)]).await?;
        leases::held(&command.fence, &fence)?;
        reach(Command::Merge, Step::Fenced);
        let mut merging = Merging { session, realm, participant, books: Books::default(), now: command.now.0 };
        // It may have been committed before, and the answer was lost.
        let repeated = self.referring(&mut merging).await?;
        reach(Command::Merge, Step::Partly);
        if !repeated {
            match &command.survivor {
                Survivor::Later => {}
                Survivor::Record { .. } => self.merge_into_record(&mut merging).await?,
                Survivor::ExternalId { .. } => self.under_another_id(&mut merging).await?,
            }
            let book = session.name(command.guard.book(&command.realm))?;
            let mut asks = history::add((realm, participant), &self.history, command.now);
            asks.extend(write_guard((realm, book), &command.guard, command.now));
            merging.session.run(asks).await?;
        }
        reach(Command::Merge, Step::Rows);
        let again: Vec<(&str, Option<&str>)> = command.rereads.iter().map(|id| (id.as_str(), None)).collect();
        let done = reads::done((realm, participant), command.reread_done.iter().map(|id| id.as_str()), command.began);
        merging.session.run(done.into_iter().collect()).await?;
        reach(Command::Merge, Step::Reads);
        let mut last = write(merging.books, realm);
        last.extend(reads::request((realm, participant), &again, Haste::Soon, command.now));
        Ok(Done::Commit((), last))
    }
}

/// A merge under way.
struct Merging<'s> {
    session: &'s Session,
    realm: i64,
    participant: i64,
    books: Books,
    now: i64,
}

impl Merging<'_> {
    async fn load<'c>(&self, ids: &[RecordId]) -> Result<Image<'c>, Failure> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let [records, identities, lanes] = self.session.all(Image::ask(self.realm, &ids)).await?;
        Image::of(self.realm, [&records, &identities, &lanes])
    }

    async fn write(&self, image: &Image<'_>) -> Result<(), Failure> {
        self.session.run(image.writes(self.session, self.now)?).await?;
        Ok(())
    }

    fn enter_all(
        &mut self,
        image: &mut Image<'_>,
        (row, version, lives): (i64, i64, bool),
        lanes: &[(String, Origin)],
    ) -> Result<(), Failure> {
        for (target, origin) in lanes {
            let target = self.session.name(target)?;
            let code = code_of(self.session, origin)?;
            let held = !lives || image.is_held(row, target);
            image.enter(&mut self.books, (row, target), (code, version, code == REPLAY), (self.now, self.now), held);
        }
        Ok(())
    }

    /// A write that is in flight, or was and has no known outcome, comes to its end first.
    fn refuse_open_writes(image: &Image<'_>, id: RecordId, row: i64) -> Result<(), Failure> {
        if image.has_open_writes(row) { Err(StoreError::Conflict(vec![id]).into()) } else { Ok(()) }
    }

    /// Letters of what an external id showed are void: it is not absorbed any more.
    async fn read_well(&mut self, participant: i64, external_id: &str, now: fairlead_model::Timestamp) -> Result<(), Failure> {
        let closed = self.session.ask(letters::read_well(self.realm, participant, [external_id], now)).await?;
        letters::tell(&mut self.books, &closed, CloseReason::Superseded)
    }
}

impl Folding<'_> {
    /// Records that refer to the two; whether the merge was committed before.
    async fn referring(&self, merging: &mut Merging<'_>) -> Result<bool, Failure> {
        let command = self.command;
        let ids: Vec<RecordId> = command.referring.iter().map(|item| item.id).chain([command.loser]).collect();
        let mut image = merging.load(&ids).await?;
        let loser = image.find(&id_bytes(command.loser)).ok_or_else(|| StoreError::Conflict(vec![command.loser]))?;
        if loser.merged_into.is_some() {
            return Ok(true);
        }
        if loser.version != command.loser_version.cast_signed() {
            return Err(StoreError::Conflict(vec![command.loser]).into());
        }
        let mut conflicts = Vec::new();
        for (item, body) in command.referring.iter().zip(&self.referring) {
            let id = id_bytes(item.id);
            let stored = image.find(&id).map(|stored| (stored.row, stored.version, stored.lives));
            let (row, version, lives) = match (&item.change, body, stored) {
                (RecordChange::Keep { version }, _, Some(stored)) if stored.1 == version.cast_signed() => stored,
                (RecordChange::Update { .. }, Some(body), Some((row, version, lives))) if version + 1 == body.version => {
                    image.update(&id, body);
                    (row, body.version, lives)
                }
                _ => {
                    conflicts.push(item.id);
                    continue;
                }
            };
            merging.enter_all(&mut image, (row, version, lives), &item.enqueue)?;
        }
        if !conflicts.is_empty() {
            return Err(StoreError::Conflict(conflicts).into());
        }
        merging.write(&image).await?;
        Ok(false)
    }

    async fn merge_into_record(&self, merging: &mut Merging<'_>) -> Result<(), Failure> {
        let command = self.command;
        let (Survivor::Record { record, enqueue, put_away, aliases, .. }, Some(body)) = (&command.survivor, &self.survivor) else {
            return Ok(());
        };
        let (realm, now) = (merging.realm, merging.now);
        let (loser_id, survivor_id) = (id_bytes(command.loser), id_bytes(record.id));
        let mut image = merging.load(&[command.loser, record.id]).await?;
        let Some(loser) = image.find(&loser_id).cloned() else { return Err(StoreError::Conflict(vec![command.loser]).into()) };
        let survivor = image
            .find(&survivor_id)
            .filter(|stored| stored.version + 1 == body.version && stored.merged_into.is_none() && stored.row != loser.row)
            .cloned()
            .ok_or_else(|| StoreError::Conflict(vec![record.id]))?;
        Merging::refuse_open_writes(&image, command.loser, loser.row)?;
        Merging::refuse_open_writes(&image, record.id, survivor.row)?;

        let held = (image.holders(loser.row), image.holders(survivor.row));
        let mut moved = Vec::new();
        for (participant, external_id) in image.identities_of(loser.row) {
            if image.is_held(survivor.row, participant) {
                merging.read_well(participant, &external_id, command.now).await?;
            } else {
                image.move_identity((loser.row, survivor.row), participant);
                image.mark_held(survivor.row, participant);
                moved.push(participant);
            }
        }
        let mut asks = vec![ask!(MOVE_IDENTITY, loser.row, survivor.row, moved)];
        asks.extend(history::move_to(realm, command.loser, record.id));
        for (participant, state) in aliases {
            let participant = merging.session.name(participant)?;
            asks.push(ask!(SET_STATE, loser.row, participant, state.settled.cast_signed(), encode_state(state)?));
        }
        asks.push(ask!(BURY, loser.row, survivor.row, now));
        asks.push(ask!(BURY_DEEPER, loser.row, survivor.row));
        image.bury(&loser_id, survivor.row);
        image.update(&survivor_id, body);
        merging.books.record((loser.lives, held.0), (false, 0));
        merging.books.record((survivor.lives, held.1), (body.lives(), image.holders(survivor.row)));
        fold_lanes(merging, &mut image, loser.row, (survivor.row, body.version, body.lives()));

        asks.extend(image.writes(merging.session, now)?);
        asks.extend(lane::free_all_waiting(realm, (loser_id, survivor_id), survivor.row, now));
        merging.session.run(asks).await?;
        let [closed, _] = merging.session.all(letters::fold(realm, (loser_id, survivor_id), command.now)).await?;
        letters::tell(&mut merging.books, &closed, CloseReason::Superseded)?;

        // What waited for the loser may be one of the two themselves.
        let mut image = merging.load(&[command.loser, record.id]).await?;
        merging.enter_all(&mut image, (survivor.row, body.version, body.lives()), enqueue)?;
        merging.enter_all(&mut image, (loser.row, loser.version + 1, false), put_away)?;
        merging.write(&image).await
    }

    /// The same record under an external id that no record has; a tombstone of its own carries the old one.
    async fn under_another_id(&self, merging: &mut Merging<'_>) -> Result<(), Failure> {
        let command = self.command;
        let Survivor::ExternalId { external_id, state, alias, alias_state } = &command.survivor else { return Ok(()) };
        let (realm, participant, now) = (merging.realm, merging.participant, merging.now);
        let conflict = || Failure::from(StoreError::Conflict(vec![command.loser]));
        let image = merging.load(&[command.loser]).await?;
        let Some((row, lives)) = image.find(&id_bytes(command.loser)).map(|stored| (stored.row, stored.lives)) else {
            return Err(conflict());
        };
        if !lives {
            // It may live again under that id: first ends what may be removing it elsewhere.
            Merging::refuse_open_writes(&image, command.loser, row)?;
        }
        // What is written elsewhere is the same record as before.
        if image.is_open(row, participant) {
            return Err(conflict());
        }
        let taken = merging.session.ask(records::owners(realm, participant, vec![stored_id(external_id.as_str()).into_owned()])).await?;
        let former = image.identities_of(row).into_iter().find(|(of, _)| *of == participant).map(|(_, external_id)| external_id);
        let Some(former) = former.filter(|_| taken.is_empty()) else { return Err(conflict()) };

        let settled = |state: &ParticipantState| state.settled.cast_signed();
        let new_id = stored_id(external_id.as_str()).into_owned();
        let mut asks = vec![
            ask!(RENAME, row, participant, new_id, settled(state), encode_state(state)?),
            ask!(RAISE_VERSION, row),
            ask!(ADD_TOMBSTONE, realm, uuid_of(id_bytes(*alias)), participant, now, row),
        ];
        asks.extend(reads::free(realm, participant, [external_id.as_str()]));
        let answers = merging.session.run(asks).await?;
        let Some(tombstone) = answers.get(2).and_then(|rows| rows.first()) else { return Err(conflict()) };
        let tombstone: i64 = super::codec::get(tombstone, 0)?;
        let former_id = stored_id(&former).into_owned();
        let added = ask!(ADD_ALIAS, tombstone, participant, realm, former_id, settled(alias_state), encode_state(alias_state)?);
        merging.session.ask(added).await?;
        merging.read_well(participant, &former, command.now).await
    }
}

/// What the loser waits for in a lane, the survivor waits for; where that one waits already, the loser's entry is superseded.
fn fold_lanes(merging: &mut Merging<'_>, image: &mut Image<'_>, loser: i64, (survivor, version, lives): (i64, i64, bool)) {
    for target in image.targets_of(loser) {
        let Some(entry) = image.with_lane(loser, target, |lane| lane.pending.take()).flatten() else { continue };
        if image.lane(survivor, target).is_some_and(|place| place.pending.is_some()) {
            merging.books.superseded((merging.realm, target, entry.origin));
            continue;
        }
        let held = !lives || image.is_held(survivor, target);
        image.take_over((survivor, target), (entry.origin, version), entry.since.min(merging.now), held);
    }
}
