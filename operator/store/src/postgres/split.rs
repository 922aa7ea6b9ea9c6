//! The command `split`: some of what holds a record leaves it for a new one.

use super::absorb::{code_of, name_of};
use super::books::write;
use super::codec::{get, stored_id};
use super::command::{Done, Job};
use super::error::Failure;
use super::image::Image;
use super::session::{Session, ask, lock_realm};
use super::{leases, notes, reads};
use crate::crash::{Command, Step, reach};
use crate::rows::books::Books;
use crate::rows::codec::{REPLAY, decode, encode, id_bytes};
use crate::rows::packed::{encode_provenance, encode_state};
use crate::{Haste, Identity, Split, StoreError};
use async_trait::async_trait;
use serde_json::Value;
use std::collections::BTreeSet;

const NOTE: &str = "SELECT value FROM note WHERE realm = $1 AND name = $2";
const ADD: &str = "INSERT INTO record (realm, id, version, home, deleted_at, index_keys, document) VALUES ($1, $2, 0, $3, NULL, '', '{}')
     RETURNING row";
/// For which record an external id stands, what that was folded into, when it was last written, and whether a write is open there.
const STANDS_FOR: &str = "SELECT r.row, r.merged_into, i.settled, EXISTS (SELECT 1 FROM lane WHERE lane.record = r.row AND lane.target = $2
         AND (lane.c_origin IS NOT NULL OR lane.i_at IS NOT NULL))
     FROM identity i JOIN record r ON r.row = i.record WHERE i.realm = $1 AND i.participant = $2 AND i.external_id = $3";
const LEAVE: &str = "UPDATE identity SET record = $3, settled = $4, state = $5 WHERE record = $1 AND participant = $2";
/// Not where a write was settled since it was looked up.
const SET_STATE: &str =
    "UPDATE identity SET settled = $3, state = $4 WHERE record = $1 AND participant = $2 AND settled <= $3 RETURNING true";
const STAY: &str = "UPDATE record SET version = $2, home = $3, provenance = $4 WHERE row = $1";

/// A [`Split`] in the form of its columns.
pub(super) struct Splitting<'s> {
    command: &'s Split,
    provenance: Option<String>,
    notes: Vec<String>,
}

impl<'s> Splitting<'s> {
    pub(super) fn new(command: &'s Split) -> Result<Self, StoreError> {
        let notes = command.notes.iter().map(|(_, _, value)| encode(value)).collect::<Result<_, _>>()?;
        Ok(Self { command, provenance: encode_provenance(&command.provenance)?, notes })
    }
}

#[async_trait]
impl Job for Splitting<'_> {
    type Answer = ();
    const COMMAND: Command = Command::Split;

    fn names(&self) -> Vec<&str> {
        let Split { realm, home, new_home, enqueue, states, leaving, rereads, .. } = self.command;
        let mut names = BTreeSet::from([realm.as_str(), home.as_str(), new_home.as_str()]);
        names.extend(states.iter().map(|(participant, _)| participant.as_str()));
        names.extend(leaving.iter().map(|identity| identity.participant.as_str()));
        names.extend(rereads.iter().map(|(participant, _)| participant.as_str()));
        for (target, origin) in enqueue {
            names.insert(target);
            names.extend(name_of(origin));
        }
        names.into_iter().collect()
    }

    async fn run(&self, session: &mut Session) -> Result<Done<()>, Failure> {
        let command = self.command;
        let realm = session.name(&command.realm)?;
        session.ask(lock_realm(realm)).await?;
        let conflict = || Failure::from(StoreError::Conflict(vec![command.id]));
        let [records, identities, lanes] = session.all(Image::ask(realm, &[command.id.0])).await?;
        let mut image = Image::of(realm, [&records, &identities, &lanes])?;
        let version = command.version.cast_signed();
        let row = image
            .find(&id_bytes(command.id))
            .filter(|stored| stored.version + 1 == version && stored.lives && stored.merged_into.is_none())
            .map(|stored| stored.row)
            .ok_or_else(conflict)?;
        for (name, before, _) in &command.notes {
            let rows = session.ask(ask!(NOTE, realm, name.clone())).await?;
            let stands = rows.first().map(|row| decode::<Value>("note", get(row, 0)?).map_err(Failure::from)).transpose()?;
            if stands != *before {
                return Err(StoreError::Conflict(Vec::new()).into());
            }
        }
        if image.has_open_writes(row) {
            return Err(conflict());
        }
        let added = session.ask(ask!(ADD, realm, command.new.0, session.name(&command.new_home)?)).await?;
        let new: i64 = get(added.first().ok_or_else(conflict)?, 0)?;
        reach(Command::Split, Step::Partly);

        let (held, mut leave, mut left) = (image.holders(row), Vec::new(), BTreeSet::new());
        for identity in &command.leaving {
            let Identity { participant, external_id, state } = identity;
            let participant = session.name(participant)?;
            let found = session.ask(ask!(STANDS_FOR, realm, participant, stored_id(external_id.as_str()).into_owned())).await?;
            let found = found.first().ok_or_else(conflict)?;
            let (from, settled): (i64, i64) = (get(found, 0)?, get(found, 2)?);
            let is_alias = get::<Option<i64>>(found, 1)? == Some(row);
            // An alias may be on its way to be put away.
            let stands = from == row || is_alias;
            if !stands || settled > state.settled.cast_signed() || get(found, 3)? || !left.insert(participant) {
                return Err(conflict());
            }
            if from == row {
                image.move_identity((row, new), participant);
                image.with_lane(row, participant, |lane| lane.held = false);
            }
            leave.push(ask!(LEAVE, from, participant, new, state.settled.cast_signed(), encode_state(state)?));
        }
        for (participant, state) in &command.states {
            let set = ask!(SET_STATE, row, session.name(participant)?, state.settled.cast_signed(), encode_state(state)?);
            session.ask(set).await?.first().ok_or_else(conflict)?;
        }
        leave.push(ask!(STAY, row, version, session.name(&command.home)?, self.provenance.clone()));
        let mut books = Books::default();
        books.record((true, held), (true, image.holders(row)));
        books.record((false, 0), (true, i64::try_from(command.leaving.len()).unwrap_or(i64::MAX)));
        for (target, origin) in &command.enqueue {
            let target = session.name(target)?;
            let (code, holds) = (code_of(session, origin)?, image.is_held(row, target));
            image.enter(&mut books, (row, target), (code, version, code == REPLAY), (command.now.0, command.now.0), holds);
        }
        leave.extend(image.writes(session, command.now.0)?);
        session.run(leave).await?;
        reach(Command::Split, Step::Rows);

        let ends = command.leases.iter().map(|lease| leases::end(lease));
        let told = command.notes.iter().zip(&self.notes).map(|((name, ..), value)| notes::put(realm, name, value));
        session.run(ends.chain(told).collect()).await?;
        reach(Command::Split, Step::Reads);
        let mut last = write(books, realm);
        for (participant, ids) in &command.rereads {
            let ids: Vec<(&str, Option<&str>)> = ids.iter().map(|id| (id.as_str(), None)).collect();
            last.extend(reads::request((realm, session.name(participant)?), &ids, Haste::Soon, command.now));
        }
        Ok(Done::Commit((), last))
    }
}
