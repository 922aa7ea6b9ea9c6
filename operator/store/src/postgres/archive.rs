//! Everything a realm holds, told and taken over in portions of rows.

use super::codec::{get, plain, read_id, stored_id, uuid_of};
use super::error::{Failure, contradiction};
use super::session::{Session, ask, lock_realm, raise_sequence};
use super::{forget, leases, query, schema};
use crate::StoreError;
use crate::archive::{Cells, Head, Import, Row, Rows, Sink};
use crate::crash::{Command, Step, reach};
use crate::rows::table::{API_WRITE, Cell, Column, Kind, LETTER, MERGED, NOTE, OF_REALM, OF_STORE, RECORD, Reach, Table, hashes};
use deadpool_postgres::Pool;
use fairlead_model::{Document, Timestamp, realm};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap, HashSet};
use uuid::Uuid;

/// Rows that are fetched or added at once.
const PORTION: usize = 500;

/// A portion is added earlier when its rows are so long.
const PORTION_BYTES: usize = 4 * 1024 * 1024;

/// A reader or writer of the text may be slow for so long: a pipe, say.
const PATIENCE: &str = "SET LOCAL idle_in_transaction_session_timeout = '10min'";

// ---- export -----------------------------------------------------------------------------------------------------------------------------

pub(super) async fn export(session: &mut Session, only: Option<&str>, now: Timestamp, sink: &mut dyn Sink) -> Result<(), Failure> {
    session.begin_moment().await?;
    session.ask(ask!(PATIENCE)).await?;
    let mut realms = query::all_realms(session).await?;
    if let Some(only) = only {
        realms.retain(|realm| !realm::is_connector(realm));
        if !realms.iter().any(|realm| realm == only) {
            return Err(crate::archive::no_such_realm(only, &realms).into());
        }
        realms = vec![only.to_owned()];
    }
    let (schema, sequence) = (format!("postgresql {}", schema::wanted()), query::sequence(session).await?);
    sink.begin(Head { format: crate::archive::FORMAT, at: now, schema, sequence, realms: realms.clone() })?;
    let names = query::names(session).await?;
    let number = |realm: &str| names.iter().find(|(_, text)| *text == realm).map_or(-1, |(id, _)| *id);
    for realm in &realms {
        let id = number(realm);
        let rows = session.ask(ask!(LETTERS, id)).await?;
        let letters: (Option<i64>, Option<i64>) =
            rows.first().map_or(Ok((None, None)), |row| Ok::<_, Failure>((get(row, 0)?, get(row, 1)?)))?;
        sink.row(&Row::Realm { name: realm.clone(), letters: letters.0.zip(letters.1) })?;
        for row in session.ask(leases::epochs(realm)).await? {
            sink.row(&Row::Epoch { lease: get(&row, 0)?, epoch: get(&row, 1)? })?;
        }
        for table in &OF_REALM {
            tell(session, &names, table, id, sink).await?;
        }
    }
    if only.is_none() {
        for table in &OF_STORE {
            tell(session, &names, table, 0, sink).await?;
        }
    }
    session.rollback().await?;
    Ok(sink.end()?)
}

const LETTERS: &str = "SELECT min(id), max(id) FROM dead_letter WHERE realm = $1";

/// Through a cursor of the server's, so that neither side holds the whole table.
async fn tell(
    session: &Session,
    names: &HashMap<i64, String>,
    table: &'static Table,
    realm: i64,
    sink: &mut dyn Sink,
) -> Result<(), Failure> {
    session.batch(&format!("DECLARE telling NO SCROLL CURSOR FOR {}", table.select(&realm.to_string()))).await?;
    let fetch = session.prepare_once(&format!("FETCH {PORTION} FROM telling")).await?;
    let name = |id: i64| names.get(&id).cloned().ok_or_else(super::records::unnamed);
    loop {
        let rows = session.fetch(&fetch).await?;
        for row in &rows {
            let mut cells = Vec::with_capacity(table.columns.len());
            for (place, column) in table.columns.iter().enumerate() {
                cells.push(column.kind.value(cell(row, place, column)?, &name)?);
            }
            sink.row(&Row::Cells(Cells { table, cells }))?;
        }
        if rows.len() < PORTION {
            break;
        }
    }
    session.batch("CLOSE telling").await
}

fn cell(row: &tokio_postgres::Row, place: usize, column: &Column) -> Result<Cell, Failure> {
    let cell = match column.kind {
        Kind::Name | Kind::Origin | Kind::Stage | Kind::Int | Kind::Claim => get::<Option<i64>>(row, place)?.map(Cell::Int),
        Kind::Flag => get::<Option<bool>>(row, place)?.map(Cell::Flag),
        Kind::Record | Kind::Id => get::<Option<Uuid>>(row, place)?.map(|id| Cell::Id(*id.as_bytes())),
        Kind::External => get::<Option<String>>(row, place)?.map(|id| Cell::Text(read_id(id))),
        Kind::Keys => get::<Option<Vec<u8>>>(row, place)?.map(Cell::Bytes),
        Kind::Text | Kind::Json | Kind::Document | Kind::State | Kind::Provenance => get::<Option<String>>(row, place)?.map(Cell::Text),
    };
    Ok(cell.unwrap_or(Cell::Null))
}

// ---- import -----------------------------------------------------------------------------------------------------------------------------

/// The command `import`. It is not tried again: its rows come once.
pub(super) async fn import(pool: &Pool, import: &Import, given: Option<Timestamp>, rows: Rows) -> Result<(), StoreError> {
    reach(Command::Import, Step::Received);
    let mut session = Session::new(pool).await.map_err(|failure| failure.error)?;
    // Dropped with its transaction open, should anything fail: the server undoes it all.
    take_over(&mut session, pool, (import, given), rows).await.map_err(|failure| failure.error)?;
    reach(Command::Import, Step::Answered);
    Ok(())
}

const RAISE: &str = "UPDATE store SET sequence = greatest(sequence, $1)";

async fn take_over(session: &mut Session, pool: &Pool, (import, given): (&Import, Option<Timestamp>), rows: Rows) -> Result<(), Failure> {
    let realms: Vec<&str> = import.head.realms.iter().map(String::as_str).collect();
    session.begin(&realms).await?;
    reach(Command::Import, Step::Begun);
    session.ask(ask!(PATIENCE)).await?;
    let mut numbers = realms.iter().map(|realm| session.name(realm)).collect::<Result<Vec<_>, _>>()?;
    numbers.sort_unstable();
    session.run(numbers.into_iter().map(lock_realm).collect()).await?;
    let held = query::realms(session).await?;
    let connectors = query::all_realms(session).await?.into_iter().filter(|realm| realm::is_connector(realm)).collect();
    for realm in &import.head.realms {
        if let Some(row) = session.ask(leases::live(realm, given)).await?.first() {
            return Err(crate::archive::still_held(realm, get(row, 0)?).into());
        }
        session.ask(leases::end_all(realm)).await?;
        match (held.contains(realm), import.replace) {
            (true, false) => return Err(crate::archive::not_empty(realm).into()),
            (true, true) => forget::rows(session, session.name(realm)?).await?,
            (false, _) => {}
        }
    }
    let mut taking =
        Taking { session, pool, names: HashMap::new(), connectors, realm: 0, known: false, numbers: HashMap::new(), portion: None };
    for (place, row) in rows.enumerate() {
        let (line, row) = row?;
        taking.row(line, row).await?;
        if place == 0 {
            reach(Command::Import, Step::Partly);
        }
    }
    taking.flush().await?;
    reach(Command::Import, Step::Rows);
    session.all([ask!(RAISE, import.head.sequence.cast_signed()), raise_sequence()]).await?;
    reach(Command::Import, Step::Books);
    session.commit().await?;
    reach(Command::Import, Step::Committed);
    Ok(())
}

/// An import under way.
struct Taking<'s> {
    session: &'s Session,
    pool: &'s Pool,
    names: HashMap<String, i64>,
    /// Connectors of which something is noted here.
    connectors: HashSet<String>,
    realm: i64,
    /// What is noted here of the Connector whose realm it is tells more than what was exported.
    known: bool,
    /// Letters of the realm that get other numbers.
    numbers: HashMap<i64, i64>,
    portion: Option<Portion>,
}

/// Rows of one table that are added together.
struct Portion {
    table: &'static Table,
    first: u64,
    last: u64,
    rows: Vec<Cells>,
    bytes: usize,
}

impl Taking<'_> {
    async fn row(&mut self, line: u64, row: Row) -> Result<(), Failure> {
        match row {
            Row::Realm { name, letters } => {
                self.flush().await?;
                self.realm = self.session.name(&name)?;
                self.known = self.connectors.contains(&name);
                self.numbers.clear();
                // No number that is given meanwhile lies among those of the realm.
                if let Some((_, last)) = letters {
                    self.session.ask(ask!(GIVE, last)).await?;
                }
            }
            Row::Epoch { lease, epoch } => drop(self.session.ask(leases::raise(&lease, epoch)).await?),
            Row::Cells(cells) if self.known && cells.table.word == NOTE.word => {}
            Row::Cells(cells) => {
                let table = cells.table;
                if self.portion.as_ref().is_some_and(|portion| portion.table.word != table.word) {
                    self.flush().await?;
                }
                let portion = self.portion.get_or_insert(Portion { table, first: line, last: line, rows: Vec::new(), bytes: 0 });
                portion.last = line;
                portion.bytes += cells.cells.iter().map(weight).sum::<usize>();
                portion.rows.push(cells);
                if portion.rows.len() >= PORTION || portion.bytes >= PORTION_BYTES {
                    self.flush().await?;
                }
            }
        }
        Ok(())
    }

    /// A letter keeps its number unless another realm's has it. A new one is above all that were given, here and in the export.
    async fn number(&mut self, rows: &mut [Cells]) -> Result<(), Failure> {
        let letters: Vec<i64> = rows.iter().filter_map(Cells::letter).collect();
        if !letters.is_empty() {
            for row in self.session.ask(ask!(OTHERS, letters, self.realm)).await? {
                self.numbers.insert(get(&row, 0)?, get(&row, 1)?);
            }
        }
        rows.iter_mut().for_each(|cells| cells.renumber(&self.numbers));
        Ok(())
    }

    /// Adds the rows that have gathered.
    async fn flush(&mut self) -> Result<(), Failure> {
        let Some(Portion { table, first, last, mut rows, .. }) = self.portion.take() else { return Ok(()) };
        self.number(&mut rows).await?;
        let rows: Vec<Vec<Value>> = rows.into_iter().map(|row| row.cells).collect();
        self.intern(table, &rows).await?;
        let name =
            |text: &str| self.names.get(text).copied().ok_or_else(|| StoreError::Other(format!("the name {text} was not asked for")));
        let mut objects = Vec::with_capacity(rows.len());
        for row in &rows {
            let mut object = Document::new();
            for (column, value) in table.columns.iter().zip(row) {
                object.insert(column.name.to_owned(), written(column, column.cell(value, &name)?));
                if column.kind == Kind::Keys {
                    object.insert("hashes".to_owned(), hashes(value).into());
                }
            }
            objects.push(Value::Object(object));
        }
        let text = Value::Array(objects).to_string();
        let mut added = self.session.add(&statement(table, self.realm), &text).await?;
        if table.word == RECORD.word && added.is_ok() {
            added = self.session.add(&index_keys(self.realm), &text).await?.map(|_| rows.len() as u64);
        }
        let contradicted =
            |what: &str| StoreError::Refused(format!("lines {first} to {last}: one contradicts the lines before it ({what}); export anew"));
        match added {
            Ok(count) if count == rows.len() as u64 || table.reach == Reach::Store => Ok(()),
            Ok(_) => Err(contradicted("it speaks of a record that is not there").into()),
            Err(error) => match contradiction(&error) {
                Some(what) => Err(contradicted(&what).into()),
                None => Err(error.into()),
            },
        }
    }

    /// Names that have no number yet get one, in a commit of their own: nobody else who needs them waits for the end of this.
    async fn intern(&mut self, table: &Table, rows: &[Vec<Value>]) -> Result<(), Failure> {
        let named = rows.iter().flat_map(|row| table.columns.iter().zip(row)).filter_map(|(column, value)| column.kind.name_in(value));
        let unknown: BTreeSet<&str> = named.filter(|name| !self.names.contains_key(*name)).collect();
        if !unknown.is_empty() {
            let unknown: Vec<&str> = unknown.into_iter().collect();
            self.names.extend(Session::new(self.pool).await?.intern(&unknown).await?);
        }
        Ok(())
    }
}

/// New numbers for those letters whose numbers another realm's have.
const OTHERS: &str =
    "SELECT id, nextval(pg_get_serial_sequence('dead_letter', 'id')) FROM dead_letter WHERE id = ANY($1::int8[]) AND realm <> $2";
const GIVE: &str = "SELECT setval(pg_get_serial_sequence('dead_letter', 'id'),
       greatest($1::int8, pg_sequence_last_value(pg_get_serial_sequence('dead_letter', 'id')::regclass)))";

/// How many bytes a value takes, about.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + weight(value)).sum(),
        _ => 8,
    }
}

/// A cell in JSON, as PostgreSQL reads it into the column's type.
fn written(column: &Column, cell: Cell) -> Value {
    match (column.kind, cell) {
        (_, Cell::Null) => Value::Null,
        (_, Cell::Int(number)) => Value::from(number),
        (_, Cell::Flag(flag)) => Value::Bool(flag),
        (_, Cell::Id(id)) => Value::String(uuid_of(id).to_string()),
        (Kind::External, Cell::Text(id)) => Value::String(stored_id(&id).into_owned()),
        (_, Cell::Text(text)) => Value::String(plain(&text)),
        (_, Cell::Bytes(bytes)) => {
            use std::fmt::Write as _;
            Value::String(bytes.iter().fold("\\x".to_owned(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            }))
        }
    }
}

/// The type of a column where it is told as JSON.
const fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Name | Kind::Int | Kind::Claim | Kind::Origin | Kind::Stage => "int8",
        Kind::Record | Kind::Id => "uuid",
        Kind::Flag => "bool",
        Kind::Keys => "bytea, hashes int8[]",
        Kind::External | Kind::Text | Kind::Json | Kind::Document | Kind::State | Kind::Provenance => "text",
    }
}

/// The rows of `$1`, a list of objects by the columns' names.
fn told(table: &Table) -> String {
    let columns: Vec<String> = table.columns.iter().map(|column| format!("{} {}", column.name, type_of(column.kind))).collect();
    format!("json_to_recordset($1::text::json) AS n({})", columns.join(", "))
}

/// What adds the rows of `$1`.
fn statement(table: &Table, realm: i64) -> String {
    let told = told(table);
    if table.word == MERGED.word {
        return format!(
            "UPDATE record SET merged_into = own.row FROM {told} JOIN record AS own ON own.realm = {realm} AND own.id = n.merged_into
             WHERE record.realm = {realm} AND record.id = n.id"
        );
    }
    let mut columns: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
    let mut values: Vec<String> = table
        .columns
        .iter()
        .map(|column| if column.kind == Kind::Record { "r.row".to_owned() } else { format!("n.{}", column.name) })
        .collect();
    let mut end = String::new();
    match table.reach {
        Reach::Realm => {}
        Reach::Record => end = format!(" JOIN record AS r ON r.realm = {realm} AND r.id = n.record"),
        Reach::Store => end.push_str(" ON CONFLICT (scope) DO NOTHING"),
    }
    if table.reach != Reach::Store {
        columns.push("realm");
        values.push(realm.to_string());
    }
    debug_assert!(table.reach != Reach::Store || table.name == API_WRITE.name, "what else is everybody's has another key");
    let numbers = if table.word == LETTER.word { "OVERRIDING SYSTEM VALUE " } else { "" };
    format!("INSERT INTO {} ({}) {numbers}SELECT {} FROM {told}{end}", table.name, columns.join(", "), values.join(", "))
}

/// What adds the index keys of the records in `$1`.
fn index_keys(realm: i64) -> String {
    format!(
        "INSERT INTO index_key (realm, hash, record) SELECT {realm}, hash, r.row
         FROM {} JOIN record AS r ON r.realm = {realm} AND r.id = n.id CROSS JOIN LATERAL unnest(n.hashes) AS hash",
        told(&RECORD)
    )
}

impl Session {
    /// The ids of these names, which get some if they have none.
    async fn intern(&mut self, names: &[&str]) -> Result<HashMap<String, i64>, Failure> {
        self.begin(names).await?;
        let known = names.iter().map(|name| Ok(((*name).to_owned(), self.name(name)?))).collect::<Result<_, Failure>>()?;
        self.rollback().await?;
        Ok(known)
    }
}
