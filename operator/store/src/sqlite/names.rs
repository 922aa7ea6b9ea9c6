//! Interned names. The table is only ever added to, so an id means the same for ever; nothing is remembered beyond one command all the
//! same, because a command may be rolled back and take the names that it added with it.

use crate::rows::codec::{origin_code, special_origin};
use crate::{Origin, StoreError};
use rusqlite::{Connection, OptionalExtension, params};
use std::cell::RefCell;
use std::collections::HashMap;

/// The names of one command or query.
pub(super) struct Names<'c> {
    connection: &'c Connection,
    ids: RefCell<HashMap<String, i64>>,
    texts: RefCell<HashMap<i64, String>>,
}

impl<'c> Names<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self { connection, ids: RefCell::default(), texts: RefCell::default() }
    }

    /// The id of `text`, if it has one.
    pub(super) fn find(&self, text: &str) -> Result<Option<i64>, StoreError> {
        if let Some(id) = self.ids.borrow().get(text) {
            return Ok(Some(*id));
        }
        let mut statement = self.connection.prepare_cached("SELECT id FROM name WHERE text = ?1")?;
        let id = statement.query_row(params![text], |row| row.get(0)).optional()?;
        if let Some(id) = id {
            self.ids.borrow_mut().insert(text.to_owned(), id);
        }
        Ok(id)
    }

    /// The id of `text`, given now if need be.
    pub(super) fn intern(&self, text: &str) -> Result<i64, StoreError> {
        if let Some(id) = self.find(text)? {
            return Ok(id);
        }
        self.connection.prepare_cached("INSERT INTO name (text) VALUES (?1)")?.execute(params![text])?;
        let id = self.connection.last_insert_rowid();
        self.ids.borrow_mut().insert(text.to_owned(), id);
        Ok(id)
    }

    /// The text of an id.
    pub(super) fn text(&self, id: i64) -> Result<String, StoreError> {
        if let Some(text) = self.texts.borrow().get(&id) {
            return Ok(text.clone());
        }
        let mut statement = self.connection.prepare_cached("SELECT text FROM name WHERE id = ?1")?;
        let text: String = statement.query_row(params![id], |row| row.get(0))?;
        self.texts.borrow_mut().insert(id, text.clone());
        Ok(text)
    }

    /// The code of an origin, for the books.
    pub(super) fn intern_origin(&self, origin: &Origin) -> Result<i64, StoreError> {
        match origin_code(origin) {
            Ok(code) => Ok(code),
            Err(participant) => self.intern(participant),
        }
    }

    /// The origin of a code.
    pub(super) fn origin(&self, code: i64) -> Result<Origin, StoreError> {
        match special_origin(code) {
            Some(origin) => Ok(origin),
            None => self.text(code).map(Origin::Source),
        }
    }
}
