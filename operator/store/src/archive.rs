//! A store's contents as text: what `fairlead state export` writes and `fairlead state import` reads (docs/state.md describes the format).
//!
//! One JSON object per line. The first line is the [`Head`]; each further one is a [`Row`]; the last one says how many there were, and a
//! digest over them, so that a text that was cut off or changed is refused as a whole. Everything is told by names and ids, nothing by row
//! numbers, so that it does not matter which database wrote the text and which one reads it: two stores that hold the same give the same
//! rows in the same order.
//!
//! # Guarantees
//! An export shows one moment, and takes the same memory whatever the store holds; so does an import, which is one transaction. Leases are
//! not exported; their epochs are, and never go back.
//!
//! # Caveats
//! The text holds personal data, as the store does. It holds no credentials: the store has none.

use crate::rows::table::{self, API_WRITE, CHECKPOINT, LETTER, NOTE, Table};
use crate::{Store, StoreError};
use fairlead_model::hash::{Digest, LineDigest};
use fairlead_model::{Document, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// The newest format of the text. It rises with whatever an older Fairlead would not understand.
pub const FORMAT: u32 = 6;

/// The first format whose digest is over the first line, too.
const FIRST_LINE_COUNTS: u32 = 3;

/// The longest line. Documents are bounded far below it.
const MAX_LINE: u64 = 256 * 1024 * 1024;

/// The beginning of the names of notes with a correction that waits. They name a dead letter in their field `letter`, and are told its new
/// number where an import gives it one.
pub const CORRECTION: &str = "edit/";

/// The beginning of the names of notes with what was corrected of a dead letter, followed by its number; likewise.
pub const CORRECTED: &str = "edited/";

/// What the text begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// The format of the text.
    pub format: u32,
    /// When it was written.
    pub at: Timestamp,
    /// Which database wrote it, and its schema; for people.
    pub schema: String,
    /// The store's sequence: the importing store's is no lower afterwards.
    pub sequence: u64,
    /// The realms, in order.
    pub realms: Vec<String>,
}

/// One line between the first and the last.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// A realm begins: what follows is of it.
    Realm {
        /// Its name.
        name: String,
        /// The lowest and highest number of its dead letters.
        letters: Option<(i64, i64)>,
    },
    /// The epoch of a lease of the realm.
    Epoch {
        /// The lease.
        lease: String,
        /// The highest that was given.
        epoch: i64,
    },
    /// A row of a table.
    Cells(Cells),
}

/// A row of a table, column by column.
#[derive(Debug, Clone)]
pub struct Cells {
    pub(crate) table: &'static Table,
    pub(crate) cells: Vec<Value>,
}

impl PartialEq for Cells {
    fn eq(&self, other: &Self) -> bool {
        self.table.word == other.table.word && self.cells == other.cells
    }
}

/// What an import is to do.
#[derive(Debug, Clone)]
pub struct Import {
    /// What the text begins with.
    pub head: Head,
    /// It takes the place of what the realms hold; else they must be empty.
    pub replace: bool,
    /// The present moment.
    pub now: Timestamp,
}

/// The rows of an import, each with its line. They end only after the last line was found to be right.
pub type Rows = Box<dyn Iterator<Item = Result<(u64, Row), StoreError>> + Send>;

/// Where an export goes.
pub trait Sink: Send {
    /// The first call.
    ///
    /// # Errors
    /// It cannot be written.
    fn begin(&mut self, head: Head) -> Result<(), StoreError>;
    /// Each row.
    ///
    /// # Errors
    /// It cannot be written.
    fn row(&mut self, row: &Row) -> Result<(), StoreError>;
    /// The last call: there is no more.
    ///
    /// # Errors
    /// It cannot be written.
    fn end(&mut self) -> Result<(), StoreError>;
}

/// How many rows there were of each kind, and the digest over them all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Rows by their word.
    pub rows: BTreeMap<String, u64>,
    /// SHA-256 over the lines before the last, each with its line feed; in the formats before 3 without the first.
    pub digest: Digest,
}

/// Writes the realm `only`, or all and the remembered writes of API callers, as text to `out`.
///
/// # Errors
/// [`StoreError::Refused`] for a realm that holds nothing and for a text that cannot be written; others are the store's.
pub async fn export(
    store: &dyn Store,
    only: Option<&str>,
    now: Timestamp,
    out: impl Write + Send + 'static,
) -> Result<Summary, StoreError> {
    let summary = Arc::default();
    let writer = Writer { out, count: Count::default(), summary: Arc::clone(&summary) };
    store.export(only, now, Box::new(writer)).await?;
    let summary = lock(&summary).clone();
    Ok(summary)
}

/// How a text is imported.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// It takes the place of what the store holds of its realms; else that must be nothing.
    pub replace: bool,
    /// The systems may have gone on since the export: its first full reads count as not yet complete, so that each participant is read from
    /// its checkpoint to the present before anything is created in it.
    pub behind: bool,
    /// The present moment.
    pub now: Timestamp,
}

/// Reads text that [`export`] wrote into `store`: all of it or nothing. The realms that it holds must be empty in the store, unless they
/// are to be replaced, and nobody may hold a lease of theirs.
///
/// # Errors
/// [`StoreError::Refused`] for whatever is wrong with the text, by its line, or stands against importing it; others are the store's.
pub async fn import(store: &dyn Store, input: impl BufRead + Send + 'static, options: Options) -> Result<(Head, Summary), StoreError> {
    let Options { replace, behind, now } = options;
    let reader = Reader { behind, ..Reader::open(input)? };
    let (head, summary) = (reader.head.clone(), Arc::clone(&reader.summary));
    store.import(Import { head: head.clone(), replace, now }, Box::new(reader)).await?;
    let summary = lock(&summary).clone();
    Ok((head, summary))
}

fn lock(summary: &Mutex<Summary>) -> std::sync::MutexGuard<'_, Summary> {
    summary.lock().unwrap_or_else(PoisonError::into_inner)
}

// ---- what stands against it -------------------------------------------------------------------------------------------------------------

pub(crate) fn no_such_realm(realm: &str, held: &[String]) -> StoreError {
    let held = if held.is_empty() { "it is empty".to_owned() } else { format!("it holds {}", held.join(", ")) };
    StoreError::Refused(format!("the store holds nothing of {realm}; {held}"))
}

pub(crate) fn not_empty(realm: &str) -> StoreError {
    StoreError::Refused(format!(
        "the store holds something of {realm} already; import into an empty store, or replace what is there (--replace)"
    ))
}

pub(crate) fn still_held(realm: &str, lease: &str) -> StoreError {
    StoreError::Refused(format!(
        "somebody works on {realm} (the lease {lease} is held): stop what runs it, or pause the Integration, and try again; a process that          died keeps its leases for 15 s"
    ))
}

/// Names the line of a row that was not taken.
pub(crate) fn at_line(line: u64, error: StoreError) -> StoreError {
    match error {
        StoreError::Refused(what) => StoreError::Refused(format!("line {line}: {what}; export anew")),
        other => other,
    }
}

// ---- rows -------------------------------------------------------------------------------------------------------------------------------

impl Row {
    /// The word for what it is.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Realm { .. } => "realm",
            Self::Epoch { .. } => "epoch",
            Self::Cells(row) => row.table.word,
        }
    }

    /// As a line of text, without its line feed.
    #[must_use]
    pub fn to_line(&self) -> String {
        let fields = match self {
            Self::Realm { name, letters: None } => json!({"name": name}),
            Self::Realm { name, letters: Some(letters) } => json!({"name": name, "letters": letters}),
            Self::Epoch { lease, epoch } => json!({"lease": lease, "epoch": epoch}),
            Self::Cells(row) => Value::Object(table::fields_of(row.table, &row.cells)),
        };
        Value::Object(Document::from_iter([(self.word().to_owned(), fields)])).to_string()
    }

    /// Reads a line of what belongs to `realm`; says what is wrong with it.
    fn parse(line: &str, realm: &str) -> Result<Self, String> {
        let row: Document = serde_json::from_str(line).map_err(|error| format!("it is no JSON object: {error}"))?;
        let mut parts = row.into_iter();
        let (Some((word, Value::Object(fields))), None) = (parts.next(), parts.next()) else {
            return Err("it must be an object with one field, the row".to_owned());
        };
        match word.as_str() {
            "realm" => {
                let Realm { name, letters } = part(&word, fields)?;
                Ok(Self::Realm { name, letters })
            }
            "epoch" => {
                let Epoch { lease, epoch } = part(&word, fields)?;
                Ok(Self::Epoch { lease, epoch })
            }
            _ => {
                let table = Table::of(&word).ok_or_else(|| format!("{word:?} is no row that is known here"))?;
                Ok(Self::Cells(Cells { table, cells: table::cells_of(table, realm, fields)? }))
            }
        }
    }
}

impl Cells {
    /// A checkpoint is one of a read that is not yet complete.
    fn fall_behind(&mut self) {
        if self.table.word == CHECKPOINT.word {
            let complete = self.table.columns.iter().zip(&mut self.cells).find(|(column, _)| column.name == "complete");
            complete.into_iter().for_each(|(_, complete)| *complete = Value::Bool(false));
        }
    }

    /// The number of a dead letter.
    pub(crate) fn letter(&self) -> Option<i64> {
        let mut columns = self.table.columns.iter().zip(&self.cells).filter(|_| self.table.word == LETTER.word);
        columns.find(|(column, _)| column.name == "id").and_then(|(_, id)| id.as_i64())
    }

    /// Gives dead letters, and what speaks of them, other numbers; those that are not named keep theirs.
    pub(crate) fn renumber(&mut self, numbers: &HashMap<i64, i64>) {
        if numbers.is_empty() {
            return;
        }
        let change = |number: &mut Value| {
            if let Some(other) = number.as_i64().and_then(|old| numbers.get(&old)) {
                *number = Value::from(*other);
            }
        };
        let columns = self.table.columns.iter().zip(&mut self.cells);
        if self.table.word == LETTER.word {
            columns.filter(|(column, _)| matches!(column.name, "id" | "parent")).for_each(|(_, cell)| change(cell));
        } else if self.table.word == NOTE.word
            && let [name, value] = self.cells.as_mut_slice()
            && let Some(text) = name.as_str()
        {
            let number = text.strip_prefix(CORRECTED).and_then(|number| number.parse::<i64>().ok());
            if let Some(letter) = value.get_mut("letter").filter(|_| number.is_some() || text.starts_with(CORRECTION)) {
                change(letter);
            }
            if let Some(other) = number.and_then(|number| numbers.get(&number)) {
                *name = Value::from(format!("{CORRECTED}{other}"));
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Realm {
    name: String,
    letters: Option<(i64, i64)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Epoch {
    lease: String,
    epoch: i64,
}

fn part<T: serde::de::DeserializeOwned>(word: &str, fields: Document) -> Result<T, String> {
    serde_json::from_value(Value::Object(fields)).map_err(|error| format!("{word}: {error}"))
}

// ---- text -------------------------------------------------------------------------------------------------------------------------------

/// What tells the text from others.
const KIND: &str = "state";

#[derive(Serialize, Deserialize)]
struct FirstLine {
    fairlead: String,
    #[serde(flatten)]
    head: Head,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LastLine {
    end: Summary,
}

/// Lines, counted and digested.
#[derive(Default)]
struct Count {
    rows: BTreeMap<&'static str, u64>,
    digest: LineDigest,
}

impl Count {
    fn add(&mut self, word: &'static str, line: &str) {
        *self.rows.entry(word).or_default() += 1;
        self.digest.add(line);
    }

    fn summary(&self) -> Summary {
        let rows = self.rows.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect();
        Summary { rows, digest: self.digest.digest() }
    }
}

struct Writer<W> {
    out: W,
    count: Count,
    summary: Arc<Mutex<Summary>>,
}

impl<W: Write> Writer<W> {
    fn line(&mut self, line: &str) -> Result<(), StoreError> {
        let written = self.out.write_all(line.as_bytes()).and_then(|()| self.out.write_all(b"\n"));
        written.map_err(|error| StoreError::Refused(format!("the export cannot be written: {error}")))
    }
}

impl<W: Write + Send> Sink for Writer<W> {
    fn begin(&mut self, head: Head) -> Result<(), StoreError> {
        let line = crate::rows::codec::encode(&FirstLine { fairlead: KIND.to_owned(), head })?;
        self.count.digest.add(&line);
        self.line(&line)
    }

    fn row(&mut self, row: &Row) -> Result<(), StoreError> {
        let line = row.to_line();
        self.count.add(row.word(), &line);
        self.line(&line)
    }

    fn end(&mut self) -> Result<(), StoreError> {
        let end = self.count.summary();
        lock(&self.summary).clone_from(&end);
        self.line(&crate::rows::codec::encode(&LastLine { end })?)?;
        self.out.flush().map_err(|error| StoreError::Refused(format!("the export cannot be written: {error}")))
    }
}

/// Reads rows, and sees to it that they are whole, in order, and nothing else.
struct Reader<R> {
    input: R,
    head: Head,
    behind: bool,
    line: u64,
    count: Count,
    /// How many realms have begun.
    begun: usize,
    ended: bool,
    summary: Arc<Mutex<Summary>>,
}

impl<R: BufRead> Reader<R> {
    fn open(mut input: R) -> Result<Self, StoreError> {
        let foreign =
            || StoreError::Refused("line 1: this is no export of Fairlead's state; name a file that `fairlead state export` wrote".into());
        let line = read_line(&mut input, 1)?.ok_or_else(foreign)?;
        let first: Value = serde_json::from_str(&line).map_err(|_| foreign())?;
        if first.get("fairlead").and_then(Value::as_str) != Some(KIND) {
            return Err(foreign());
        }
        // A newer one may have another head altogether.
        match first.get("format").and_then(Value::as_u64) {
            Some(format) if format <= u64::from(FORMAT) => {}
            format => {
                let format = format.map_or_else(|| "no known format".to_owned(), |format| format!("format {format}"));
                return Err(StoreError::Refused(format!(
                    "line 1: the export has {format}, and this Fairlead reads formats up to {FORMAT}; import it with the Fairlead that wrote it, or a newer one"
                )));
            }
        }
        let FirstLine { head, .. } = serde_json::from_value(first).map_err(|error| StoreError::Refused(format!("line 1: {error}")))?;
        let mut count = Count::default();
        if head.format >= FIRST_LINE_COUNTS {
            count.digest.add(&line);
        }
        Ok(Self { input, head, behind: false, line: 1, count, begun: 0, ended: false, summary: Arc::default() })
    }

    fn read(&mut self) -> Result<Option<(u64, Row)>, StoreError> {
        self.line += 1;
        let number = self.line;
        let wrong = |what: &str| StoreError::Refused(format!("line {number}: {what}"));
        let Some(line) = read_line(&mut self.input, number)? else {
            return Err(wrong("the export ends here without its last line: it was cut off; copy it again, or export anew"));
        };
        if line.starts_with("{\"end\":") {
            let LastLine { end } = serde_json::from_str(&line).map_err(|error| wrong(&error.to_string()))?;
            if end != self.count.summary() {
                return Err(wrong(
                    "the lines before are not those that were exported: their count or digest differs; copy the file again, or export anew",
                ));
            }
            if self.begun != self.head.realms.len() {
                return Err(wrong("not all realms that the first line names are there; export anew"));
            }
            if read_line(&mut self.input, number + 1)?.is_some() {
                return Err(StoreError::Refused(format!(
                    "line {}: there is more after the last line; import one export at a time",
                    number + 1
                )));
            }
            lock(&self.summary).clone_from(&end);
            return Ok(None);
        }
        let realm = self.begun.checked_sub(1).and_then(|place| self.head.realms.get(place)).map_or("", String::as_str);
        let mut row =
            Row::parse(&line, realm).map_err(|what| wrong(&format!("{what}; export anew, or import with the Fairlead that wrote it")))?;
        match &mut row {
            Row::Realm { name, .. } => {
                if self.head.realms.get(self.begun) != Some(&*name) {
                    return Err(wrong("it is not the realm that the first line names in this place; export anew"));
                }
                self.begun += 1;
            }
            Row::Cells(cells) if cells.table.word == API_WRITE.word => {}
            _ if self.begun == 0 => return Err(wrong("it belongs to no realm; export anew")),
            Row::Cells(cells) if self.behind => cells.fall_behind(),
            _ => {}
        }
        self.count.add(row.word(), &line);
        Ok(Some((number, row)))
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<(u64, Row), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let read = self.read().transpose();
        self.ended = !matches!(read, Some(Ok(_)));
        read
    }
}

/// A line without its line feed; `None` at the end.
fn read_line(input: &mut impl BufRead, number: u64) -> Result<Option<String>, StoreError> {
    let wrong = |what: String| StoreError::Refused(format!("line {number}: {what}"));
    let mut line = Vec::new();
    let read = input.take(MAX_LINE).read_until(b'\n', &mut line).map_err(|error| wrong(format!("it cannot be read: {error}")))?;
    if read == 0 {
        return Ok(None);
    }
    if line.pop_if(|last| *last == b'\n').is_none() {
        return Err(wrong("it has no end: the export was cut off; copy it again, or export anew".into()));
    }
    String::from_utf8(line).map(Some).map_err(|_| wrong("it is not UTF-8; export anew".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: &[&str]) -> String {
        text_of_format(1, lines)
    }

    fn text_of_format(format: u32, lines: &[&str]) -> String {
        let head = r#"{"fairlead":"state","format":1,"at":0,"schema":"sqlite 6","sequence":7,"realms":["a/b"]}"#;
        let head = head.replace("\"format\":1", &format!("\"format\":{format}"));
        let mut digest = LineDigest::default();
        if format >= 3 {
            digest.add(&head);
        }
        let mut rows = BTreeMap::new();
        for line in lines {
            digest.add(line);
            let word = line.split('"').nth(1).unwrap().to_owned();
            *rows.entry(word).or_insert(0_u64) += 1;
        }
        let end = serde_json::to_string(&LastLine { end: Summary { rows, digest: digest.digest() } }).unwrap();
        format!("{head}\n{}\n{end}\n", lines.join("\n"))
    }

    fn read(text: &str) -> Result<Vec<Row>, String> {
        let reader = Reader::open(text.as_bytes()).map_err(|error| error.to_string())?;
        reader.map(|row| row.map(|(_, row)| row).map_err(|error| error.to_string())).collect()
    }

    const REALM: &str = r#"{"realm":{"letters":[3,5],"name":"a/b"}}"#;
    const NOTE: &str = r#"{"note":{"name":"resync","value":null}}"#;

    #[test]
    fn what_was_written_is_read_as_it_was() {
        let lane = r#"{"lane":{"attempts":2,"due":9,"held":true,"phase":1,"record":"01900000-0000-7000-8000-000000000001","since":9,"target":"erp","origin":{"Source":"crm"},"version":4,"bulk":false}}"#;
        let epoch = r#"{"epoch":{"epoch":4,"lease":"lane/a/b/erp"}}"#;
        let rows = read(&text(&[REALM, epoch, lane, NOTE])).unwrap();
        assert_eq!(rows.len(), 4);
        for (row, line) in rows.iter().zip([REALM, epoch, lane, NOTE]) {
            let (written, read): (Value, Value) = (serde_json::from_str(&row.to_line()).unwrap(), serde_json::from_str(line).unwrap());
            assert_eq!(written, read);
        }
    }

    #[test]
    fn a_text_that_is_not_whole_is_refused_with_its_line() {
        let whole = text(&[REALM, NOTE]);
        for cut in 1..whole.len() {
            let refused = read(&whole[..cut]).unwrap_err();
            assert!(refused.starts_with("line "), "{cut}: {refused}");
        }
        let refused = read(&whole.replace("resync", "resyng")).unwrap_err();
        assert!(refused.starts_with("line 4: the lines before are not those that were exported"), "{refused}");
        let refused = read(&format!("{whole}\n")).unwrap_err();
        assert!(refused.starts_with("line 5: there is more after the last line"), "{refused}");
    }

    #[test]
    fn the_first_line_is_among_what_is_checked() {
        for format in [2, 3] {
            assert_eq!(read(&text_of_format(format, &[REALM, NOTE])).unwrap().len(), 2, "format {format}");
        }
        let refused = read(&text_of_format(3, &[REALM, NOTE]).replace("\"sequence\":7", "\"sequence\":8")).unwrap_err();
        assert!(refused.starts_with("line 4: the lines before are not those that were exported"), "{refused}");
    }

    /// Before format 3 a place in a lane did not say whether it has time.
    #[test]
    fn what_an_older_export_leaves_out_follows_from_the_rest() {
        let lane = r#"{"lane":{"attempts":0,"due":9,"held":true,"phase":1,"record":"01900000-0000-7000-8000-000000000001","target":"erp"ORIGINS}}"#;
        for (origins, bulk) in [
            (r#","origin":"Remap","since":9,"version":4"#, true),
            (r#","origin":{"Source":"crm"},"since":9,"version":4"#, false),
            (r#","origin":"Remap","claimedOrigin":"Api""#, false),
        ] {
            let read = Row::parse(&lane.replace("ORIGINS", origins), "a/b").unwrap().to_line();
            assert!(read.contains(&format!("\"bulk\":{bulk}")), "{read}");
        }
        let reread = Row::parse(r#"{"reread":{"participant":"crm","externalId":"c1","since":3}}"#, "a/b").unwrap().to_line();
        assert!(reread.contains("\"bulk\":false"), "{reread}");
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (line, said) in [
            (r#"{"note":{"name":"x"}}"#, "line 3: note.value is missing"),
            (r#"{"note":{"name":"x","value":1,"more":2}}"#, "line 3: note.more is not known here"),
            (r#"{"note":{"name":1,"value":1}}"#, "line 3: note.name must be a text"),
            (r#"{"merged":{"record":"x","into":"y"}}"#, "line 3: merged.record must be a record's id"),
            (r#"{"newcomer":{}}"#, "line 3: \"newcomer\" is no row that is known here"),
            (r#"{"realm":{"name":"c/d"}}"#, "line 3: it is not the realm that the first line names"),
            ("[]", "line 3: it is no JSON object"),
        ] {
            let refused = read(&text(&[REALM, NOTE]).replace(NOTE, line)).unwrap_err();
            assert!(refused.starts_with(said), "{refused}");
        }
        let refused = read(&text(&[NOTE])).unwrap_err();
        assert!(refused.starts_with("line 2: it belongs to no realm"), "{refused}");
    }

    /// As the format before had them: guards had one book per realm, and conflicts were counted by the realm.
    #[tokio::test]
    async fn an_export_of_format_1_is_read() {
        let source = r#"{"sourceBook":{"changed":2,"deadLettered":0,"participant":"crm","read":3,"unchanged":1}}"#;
        let realm = r#"{"realmBook":{"conflicts":4,"live":0,"matched":0}}"#;
        let guard = r#"{"guardBook":{"changes":5,"deletes":6,"hour":9}}"#;
        let store = crate::SqliteStore::open_in_memory().unwrap();
        let options = Options { replace: false, behind: false, now: Timestamp(0) };
        import(&store, std::io::Cursor::new(text(&[REALM, source, realm, guard])), options).await.unwrap();
        let snapshot = store.snapshot("a/b", Timestamp(0)).await.unwrap();
        assert_eq!((snapshot.sources["crm"].read, snapshot.conflicts()), (3, 0));
        let counts = store.changes_since("a/b", Timestamp(0), &crate::Guarded::default()).await.unwrap();
        assert_eq!((counts.changes, counts.deletes), (5, 6));
    }

    /// Before format 6 only conflicts were told.
    #[tokio::test]
    async fn what_an_export_of_format_5_tells_of_the_past_are_conflicts() {
        let record = uuid::Uuid::from_u128(7);
        let row =
            format!(r#"{{"conflict":{{"at":5,"field":"name","kept":"\"a\"","participant":"crm","record":"{record}","shown":"\"b\""}}}}"#);
        let store = crate::SqliteStore::open_in_memory().unwrap();
        let options = Options { replace: false, behind: false, now: Timestamp(0) };
        import(&store, std::io::Cursor::new(text_of_format(5, &[REALM, &row])), options).await.unwrap();
        let past = store.history("a/b", fairlead_model::RecordId(record), Timestamp(5)).await.unwrap().remove(0).change;
        assert_eq!((past.from, past.to, past.fate), (Some(Value::from("a")), Some(Value::from("b")), crate::Fate::Conflict));
    }

    #[test]
    fn other_texts_and_newer_formats_are_refused() {
        let newer = read(&text(&[REALM]).replace("\"format\":1", "\"format\":7")).unwrap_err();
        assert!(newer.contains("the export has format 7, and this Fairlead reads formats up to 6"), "{newer}");
        for other in ["", "{}\n", "PK\u{3}\u{4}\n", "{\"fairlead\":\"status\"}\n"] {
            assert!(read(other).unwrap_err().contains("this is no export") || other.is_empty(), "{other:?}");
        }
    }

    #[test]
    fn letters_and_what_speaks_of_them_get_new_numbers_together() {
        let shifted = |line: &str| {
            let Ok(Row::Cells(mut cells)) = Row::parse(line, "a/b") else { panic!("{line}") };
            cells.renumber(&HashMap::from([(3, 103), (4, 104)]));
            Row::Cells(cells).to_line()
        };
        let note = shifted(r#"{"note":{"name":"edited/4","value":{"letter":4,"author":"mia"}}}"#);
        assert!(note.contains("\"edited/104\"") && note.contains("\"letter\":104"), "{note}");
        let note = shifted(r#"{"note":{"name":"edit/crm/4","value":{"letter":4,"author":"mia"}}}"#);
        assert!(note.contains("\"edit/crm/4\"") && note.contains("\"letter\":104"), "{note}");
        assert!(shifted(r#"{"note":{"name":"resync","value":{"letter":4}}}"#).contains("\"letter\":4"));
        let letter = r#"{"letter":{"at":1,"attempts":1,"class":"Data","id":4,"message":"m","original":"{}","parent":3,"participant":"crm","reason":"r","stage":"Inbound"}}"#;
        let letter = shifted(letter);
        assert!(letter.contains("\"id\":104") && letter.contains("\"parent\":103"), "{letter}");
        let other = shifted(r#"{"note":{"name":"edited/5","value":{"letter":5,"author":"mia"}}}"#);
        assert!(other.contains("\"edited/5\"") && other.contains("\"letter\":5"), "{other}");
    }
}
