//! The command `reindex`: stored records are found by other keys from now on.

use super::command::{Done, Job};
use super::error::Failure;
use super::image::Image;
use super::notes;
use super::session::{Session, lock_realm};
use crate::StoreError;
use crate::crash::{Command, Step, reach};
use crate::rows::codec::id_bytes;
use crate::rows::reindex::Page;
use async_trait::async_trait;

#[async_trait]
impl Job for Page {
    type Answer = ();
    const COMMAND: Command = Command::Reindex;

    fn names(&self) -> Vec<&str> {
        vec![&self.realm]
    }

    async fn run(&self, session: &mut Session) -> Result<Done<()>, Failure> {
        let realm = session.name(&self.realm)?;
        let ids: Vec<_> = self.records.iter().map(|(id, ..)| id.0).collect();
        let [records, identities, lanes] = Image::ask(realm, &ids);
        let [_, records, identities, lanes] = session.all([lock_realm(realm), records, identities, lanes]).await?;
        let mut image = Image::of(realm, [&records, &identities, &lanes])?;
        let mut conflicts = Vec::new();
        for (id, version, keys) in &self.records {
            let bytes = id_bytes(*id);
            match image.find(&bytes) {
                Some(stored) if stored.version == *version => image.reindex(&bytes, keys),
                _ => conflicts.push(*id),
            }
        }
        if !conflicts.is_empty() {
            return Err(StoreError::Conflict(conflicts).into());
        }
        session.run(image.writes(session, 0)?).await?;
        reach(Command::Reindex, Step::Partly);
        session.ask(notes::put(realm, &self.note, &self.state)).await?;
        reach(Command::Reindex, Step::Rows);
        Ok(Done::Commit((), Vec::new()))
    }
}
