//! Everything a realm holds, told and taken over row by row.

use super::names::Names;
use super::{forget, leases, query, schema};
use crate::StoreError;
use crate::archive::{Cells, Head, Import, Row, Rows, Sink};
use crate::crash::{Command, Step, reach};
use crate::rows::table::{API_WRITE, Cell, Kind, MERGED, NOTE, OF_REALM, OF_STORE, RECORD, Reach, Table, hashes};
use fairlead_model::{Timestamp, realm};
use rusqlite::types::{ToSqlOutput, Value as Stored, ValueRef};
use rusqlite::{Connection, OptionalExtension, ToSql, params, params_from_iter};
use serde_json::Value;
use std::collections::{HashMap, HashSet};

// ---- export -----------------------------------------------------------------------------------------------------------------------------

pub(super) fn export(connection: &Connection, only: Option<&str>, now: Timestamp, sink: &mut dyn Sink) -> Result<(), StoreError> {
    let mut realms = query::all_realms(connection)?;
    if let Some(only) = only {
        realms.retain(|realm| !realm::is_connector(realm));
        if !realms.iter().any(|realm| realm == only) {
            return Err(crate::archive::no_such_realm(only, &realms));
        }
        realms = vec![only.to_owned()];
    }
    let (schema, sequence) = (format!("sqlite {}", schema::version()), query::sequence(connection)?);
    sink.begin(Head { format: crate::archive::FORMAT, at: now, schema, sequence, realms: realms.clone() })?;
    let names = Names::new(connection);
    for realm in &realms {
        let number = names.find(realm)?.unwrap_or(-1);
        let mut statement = connection.prepare("SELECT min(id), max(id) FROM dead_letter WHERE realm = ?1")?;
        let letters: (Option<i64>, Option<i64>) = statement.query_row(params![number], |row| Ok((row.get(0)?, row.get(1)?)))?;
        sink.row(&Row::Realm { name: realm.clone(), letters: letters.0.zip(letters.1) })?;
        for (lease, epoch) in leases::epochs(connection, realm)? {
            sink.row(&Row::Epoch { lease, epoch })?;
        }
        for table in &OF_REALM {
            tell(connection, &names, table, Some(number), sink)?;
        }
    }
    if only.is_none() {
        for table in &OF_STORE {
            tell(connection, &names, table, None, sink)?;
        }
    }
    sink.end()
}

fn tell(
    connection: &Connection,
    names: &Names<'_>,
    table: &'static Table,
    realm: Option<i64>,
    sink: &mut dyn Sink,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare(&table.select("?1"))?;
    let mut rows = statement.query(params_from_iter(realm))?;
    while let Some(row) = rows.next()? {
        let mut cells = Vec::with_capacity(table.columns.len());
        for (place, column) in table.columns.iter().enumerate() {
            cells.push(column.kind.value(cell(row.get_ref(place)?, column.kind)?, &|id| names.text(id))?);
        }
        sink.row(&Row::Cells(Cells { table, cells }))?;
    }
    Ok(())
}

fn cell(stored: ValueRef<'_>, kind: Kind) -> Result<Cell, StoreError> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec());
    Ok(match stored {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Int(number),
        ValueRef::Text(bytes) => Cell::Text(text(bytes).map_err(|_| StoreError::Unusable("a row holds text that is not UTF-8".into()))?),
        ValueRef::Blob(bytes) => match (kind, <[u8; 16]>::try_from(bytes)) {
            (Kind::Id | Kind::Record, Ok(id)) => Cell::Id(id),
            _ => Cell::Bytes(bytes.to_vec()),
        },
        ValueRef::Real(_) => return Err(StoreError::Unusable("a row holds a number with a fraction, which no Fairlead writes".into())),
    })
}

// ---- import -----------------------------------------------------------------------------------------------------------------------------

pub(super) fn import(connection: &Connection, import: &Import, rows: Rows) -> Result<(), StoreError> {
    let held = query::realms(connection)?;
    let connectors: HashSet<String> = query::all_realms(connection)?.into_iter().filter(|realm| realm::is_connector(realm)).collect();
    for realm in &import.head.realms {
        if let Some(lease) = leases::live(connection, realm, import.now)? {
            return Err(crate::archive::still_held(realm, &lease));
        }
        leases::end_all(connection, realm)?;
        match (held.contains(realm), import.replace) {
            (true, false) => return Err(crate::archive::not_empty(realm)),
            (true, true) => forget::rows(connection, realm)?,
            (false, _) => {}
        }
    }
    let mut taking = Taking {
        connection,
        names: Names::new(connection),
        inserts: HashMap::new(),
        connectors,
        realm: 0,
        known: false,
        last: 0,
        numbers: HashMap::new(),
    };
    for (place, row) in rows.enumerate() {
        let (line, row) = row?;
        taking.row(row).map_err(|error| crate::archive::at_line(line, error))?;
        if place == 0 {
            reach(Command::Import, Step::Partly);
        }
    }
    connection.execute("UPDATE store SET sequence = max(sequence, ?1)", params![import.head.sequence.cast_signed()])?;
    reach(Command::Import, Step::Rows);
    Ok(())
}

/// An import under way.
struct Taking<'c> {
    connection: &'c Connection,
    names: Names<'c>,
    /// The statement that adds a row, by the table's word.
    inserts: HashMap<&'static str, String>,
    /// Connectors of which something is noted here.
    connectors: HashSet<String>,
    realm: i64,
    /// What is noted here of the Connector whose realm it is tells more than what was exported.
    known: bool,
    /// The highest number of the realm's letters.
    last: i64,
    /// Letters of the realm that get other numbers.
    numbers: HashMap<i64, i64>,
}

impl Taking<'_> {
    fn row(&mut self, row: Row) -> Result<(), StoreError> {
        match row {
            Row::Realm { name, letters } => {
                self.realm = self.names.intern(&name)?;
                self.known = self.connectors.contains(&name);
                self.last = letters.map_or(0, |(_, last)| last);
                self.numbers.clear();
                Ok(())
            }
            Row::Epoch { lease, epoch } => leases::raise(self.connection, &lease, epoch),
            Row::Cells(cells) if self.known && cells.table.word == NOTE.word => Ok(()),
            Row::Cells(mut cells) => {
                self.number(&cells)?;
                cells.renumber(&self.numbers);
                self.cells(&cells).map_err(contradicts)
            }
        }
    }

    /// A letter keeps its number unless another realm's has it. A new one is above all that were given, here and in the export.
    fn number(&mut self, cells: &Cells) -> Result<(), StoreError> {
        let Some(number) = cells.letter() else { return Ok(()) };
        let taken = "SELECT EXISTS (SELECT 1 FROM dead_letter WHERE id = ?1 AND realm <> ?2)";
        if self.connection.prepare_cached(taken)?.query_row(params![number, self.realm], |row| row.get(0))? {
            let given = "SELECT seq FROM sqlite_sequence WHERE name = 'dead_letter'";
            let given: Option<i64> = self.connection.prepare_cached(given)?.query_row([], |row| row.get(0)).optional()?;
            self.numbers.insert(number, given.unwrap_or_default().max(self.last).saturating_add(1));
        }
        Ok(())
    }

    fn cells(&mut self, Cells { table, cells }: &Cells) -> Result<(), StoreError> {
        let mut values = vec![Bound(Cell::Int(self.realm))];
        for (column, value) in table.columns.iter().zip(cells) {
            values.push(Bound(column.cell(value, &|name| self.names.intern(name))?));
        }
        let statement = self.inserts.entry(table.word).or_insert_with(|| statement(table));
        self.connection.prepare_cached(statement)?.execute(params_from_iter(values))?;
        if table.word == RECORD.word {
            let row = self.connection.last_insert_rowid();
            let keys = table.columns.iter().zip(cells).find(|(column, _)| column.kind == Kind::Keys).map_or(&Value::Null, |(_, keys)| keys);
            for hash in hashes(keys) {
                self.connection
                    .prepare_cached("INSERT INTO index_key (realm, hash, record) VALUES (?1, ?2, ?3)")?
                    .execute(params![self.realm, hash, row])?;
            }
        }
        Ok(())
    }
}

/// What adds a row; its first parameter is the realm, the others are the columns in order.
fn statement(table: &Table) -> String {
    if table.word == MERGED.word {
        return "UPDATE record SET merged_into = (SELECT other.row FROM record AS other WHERE other.realm = ?1 AND other.id = ?3)
                WHERE realm = ?1 AND id = ?2"
            .to_owned();
    }
    let places = table.columns.iter().enumerate().map(|(place, column)| match column.kind {
        Kind::Record => format!("(SELECT row FROM record WHERE realm = ?1 AND id = ?{})", place + 2),
        _ => format!("?{}", place + 2),
    });
    let (mut columns, mut values): (Vec<&str>, Vec<String>) = (table.columns.iter().map(|column| column.name).collect(), places.collect());
    let (name, mut otherwise) = (table.name, "");
    match table.reach {
        Reach::Realm | Reach::Record => {
            columns.push("realm");
            values.push("?1".to_owned());
        }
        // The realm is a parameter all the same, and no value.
        Reach::Store => otherwise = " WHERE ?1 IS NOT NULL ON CONFLICT (scope) DO NOTHING",
    }
    let (columns, values) = (columns.join(", "), values.join(", "));
    debug_assert!(table.reach != Reach::Store || table.name == API_WRITE.name, "what else is everybody's has another key");
    format!("INSERT INTO {name} ({columns}) SELECT {values}{otherwise}")
}

/// A row that the database does not take beside those before it.
fn contradicts(error: StoreError) -> StoreError {
    match error {
        StoreError::Other(text) if text.contains("constraint failed") => {
            StoreError::Refused(format!("it contradicts the lines before it ({text})"))
        }
        other => other,
    }
}

/// A cell as SQLite takes it.
struct Bound(Cell);

impl ToSql for Bound {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match &self.0 {
            Cell::Null => ToSqlOutput::Owned(Stored::Null),
            Cell::Int(number) => ToSqlOutput::Owned(Stored::Integer(*number)),
            Cell::Flag(flag) => ToSqlOutput::Owned(Stored::Integer(i64::from(*flag))),
            Cell::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Cell::Id(id) => ToSqlOutput::Borrowed(ValueRef::Blob(id)),
            Cell::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}
