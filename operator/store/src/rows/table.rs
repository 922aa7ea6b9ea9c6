//! The tables whose rows an export carries, told once for both databases: a word for each, and per column its name in the text and what it
//! holds. A column more is one line here; a table more is one constant, and its place in [`OF_REALM`].

use super::codec::{IdBytes, encode, encode_word, origin_code, pack_keys, record_id, special_origin, stage_code, stage_of, unpack_keys};
use super::packed::{decode_provenance, decode_state, encode_provenance, encode_state};
use crate::{Haste, Origin, Provenance, Stage, StoreError};
use fairlead_model::state::ParticipantState;
use fairlead_model::{Document, RecordId, SmolStr};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A table, or a part of one.
#[derive(Debug)]
pub(crate) struct Table {
    /// The word for a row in the text.
    pub(crate) word: &'static str,
    /// Its name in the databases.
    pub(crate) name: &'static str,
    /// Whose rows it holds.
    pub(crate) reach: Reach,
    /// What its rows are ordered by: the same in every database.
    order: &'static str,
    /// Which of its rows, besides.
    filter: &'static str,
    /// What is exported of it.
    pub(crate) columns: &'static [Column],
}

/// Whose rows a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// A realm's.
    Realm,
    /// A record's: ordered by the records.
    Record,
    /// Everybody's.
    Store,
}

/// A column.
#[derive(Debug)]
pub(crate) struct Column {
    /// Its name in the databases.
    pub(crate) name: &'static str,
    /// Its name in the text.
    pub(crate) field: &'static str,
    /// What it holds.
    pub(crate) kind: Kind,
    /// What it holds where the text leaves it out.
    pub(crate) absent: Absent,
}

/// What a column holds where the text leaves it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// It may not be left out.
    Wrong,
    /// Nothing, and it is left out wherever it holds that.
    Null,
    /// Zero: exports before the column leave it out.
    Zero,
    /// The realm's name; likewise.
    Realm,
    /// Whether all of the row's origins have time: exports before format 3 leave it out.
    Bulk,
    /// False; exports before the column leave it out.
    False,
}

/// What a column holds: in the databases, and in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The id of an interned name: the name.
    Name,
    /// The row of a record: the record's id.
    Record,
    /// A record's id.
    Id,
    /// An external id.
    External,
    /// Text.
    Text,
    /// A whole number.
    Int,
    /// The epoch of a claim. Leases stay behind, and are not the same in every database: in the text it is 0, before all epochs.
    Claim,
    /// True or false.
    Flag,
    /// An origin's code: the origin.
    Origin,
    /// A stage's code: the stage.
    Stage,
    /// Index keys as one blob: their hashes.
    Keys,
    /// The text of a JSON value: the value.
    Json,
    /// The same, of a document.
    Document,
    /// A participant's packed state: as JSON.
    State,
    /// Who set which field, packed: as JSON.
    Provenance,
}

/// What a database holds in a column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Null,
    Int(i64),
    Flag(bool),
    Text(String),
    Id(IdBytes),
    Bytes(Vec<u8>),
}

const fn needs(name: &'static str, field: &'static str, kind: Kind) -> Column {
    Column { name, field, kind, absent: Absent::Wrong }
}

const fn may(name: &'static str, field: &'static str, kind: Kind) -> Column {
    Column { name, field, kind, absent: Absent::Null }
}

const fn added(name: &'static str, field: &'static str, kind: Kind, absent: Absent) -> Column {
    Column { name, field, kind, absent }
}

/// The text of a name's column, to order by: ids are given in another order in every database.
macro_rules! text {
    ($column:literal) => {
        concat!("(SELECT text FROM name WHERE name.id = ", $column, ")")
    };
}

/// Live and deleted records, in the order of their ids, which is that of time.
pub(crate) const RECORD: Table = Table {
    word: "record",
    name: "record",
    reach: Reach::Realm,
    order: "record.id",
    filter: "",
    columns: &[
        needs("id", "id", Kind::Id),
        needs("version", "version", Kind::Int),
        needs("home", "home", Kind::Name),
        may("deleted_at", "deletedAt", Kind::Int),
        may("changed_hour", "changedHour", Kind::Int),
        may("deleted_hour", "deletedHour", Kind::Int),
        may("changed_book", "changedBook", Kind::Name),
        may("deleted_book", "deletedBook", Kind::Name),
        needs("index_keys", "keys", Kind::Keys),
        may("provenance", "provenance", Kind::Provenance),
        needs("document", "document", Kind::Document),
    ],
};

/// Records that were folded into others: told after both are there.
pub(crate) const MERGED: Table = Table {
    word: "merged",
    name: "record",
    reach: Reach::Realm,
    order: "record.id",
    filter: " AND record.merged_into IS NOT NULL",
    columns: &[needs("id", "record", Kind::Id), needs("merged_into", "into", Kind::Record)],
};

const IDENTITY: Table = Table {
    word: "identity",
    name: "identity",
    reach: Reach::Record,
    order: text!("identity.participant"),
    filter: "",
    columns: &[
        needs("record", "record", Kind::Record),
        needs("participant", "participant", Kind::Name),
        needs("external_id", "externalId", Kind::External),
        needs("settled", "settled", Kind::Int),
        needs("state", "state", Kind::State),
    ],
};

const LANE: Table = Table {
    word: "lane",
    name: "lane",
    reach: Reach::Record,
    order: text!("lane.target"),
    filter: "",
    columns: &[
        needs("record", "record", Kind::Record),
        needs("target", "target", Kind::Name),
        needs("phase", "phase", Kind::Int),
        needs("held", "held", Kind::Flag),
        needs("due", "due", Kind::Int),
        needs("attempts", "attempts", Kind::Int),
        may("waits_for", "waitsFor", Kind::Id),
        may("origin", "origin", Kind::Origin),
        may("since", "since", Kind::Int),
        may("version", "version", Kind::Int),
        may("c_origin", "claimedOrigin", Kind::Origin),
        may("c_since", "claimedSince", Kind::Int),
        may("c_version", "claimedVersion", Kind::Int),
        may("c_epoch", "claimedEpoch", Kind::Claim),
        may("c_at", "claimedAt", Kind::Int),
        may("i_at", "intentAt", Kind::Int),
        may("i_version", "intentVersion", Kind::Int),
        may("i_sent", "intentSent", Kind::Text),
        added("bulk", "bulk", Kind::Flag, Absent::Bulk),
    ],
};

pub(crate) const CHECKPOINT: Table = Table {
    word: "checkpoint",
    name: "checkpoint",
    reach: Reach::Realm,
    order: concat!(text!("checkpoint.participant"), ", checkpoint.slice"),
    filter: "",
    columns: &[
        needs("participant", "participant", Kind::Name),
        needs("slice", "slice", Kind::Text),
        needs("cursor", "cursor", Kind::Json),
        needs("complete", "complete", Kind::Flag),
        may("at", "at", Kind::Int),
    ],
};

const REREAD: Table = Table {
    word: "reread",
    name: "reread",
    reach: Reach::Realm,
    order: concat!(text!("reread.participant"), ", reread.external_id, coalesce(reread.waits_for, '')"),
    filter: "",
    columns: &[
        needs("participant", "participant", Kind::Name),
        needs("external_id", "externalId", Kind::External),
        needs("since", "since", Kind::Int),
        may("waits_for", "waitsFor", Kind::External),
        added("bulk", "bulk", Kind::Flag, Absent::False),
    ],
};

/// Dead letters. The number of one, and where it is told as a parent, is given anew where another realm's letter has it.
pub(crate) const LETTER: Table = Table {
    word: "letter",
    name: "dead_letter",
    reach: Reach::Realm,
    order: "dead_letter.id",
    filter: "",
    columns: &[
        needs("id", "id", Kind::Int),
        needs("participant", "participant", Kind::Name),
        needs("stage", "stage", Kind::Stage),
        may("external_id", "externalId", Kind::External),
        may("record", "record", Kind::Id),
        may("target", "target", Kind::Name),
        may("origin", "origin", Kind::Origin),
        needs("at", "at", Kind::Int),
        needs("original", "original", Kind::Text),
        may("payload", "payload", Kind::Text),
        needs("class", "class", Kind::Text),
        needs("reason", "reason", Kind::Text),
        needs("message", "message", Kind::Text),
        may("detail", "detail", Kind::Text),
        may("field", "field", Kind::Text),
        needs("attempts", "attempts", Kind::Int),
        may("parent", "parent", Kind::Int),
        may("close_reason", "closeReason", Kind::Text),
        may("closed_at", "closedAt", Kind::Int),
        may("closed_by", "closedBy", Kind::Text),
    ],
};

pub(crate) const NOTE: Table = Table {
    word: "note",
    name: "note",
    reach: Reach::Realm,
    order: "note.name",
    filter: "",
    // A name may end in an external id.
    columns: &[needs("name", "name", Kind::External), needs("value", "value", Kind::Json)],
};

const LANE_BOOK: Table = Table {
    word: "laneBook",
    name: "lane_book",
    reach: Reach::Realm,
    order: concat!(text!("lane_book.target"), ", coalesce(", text!("lane_book.origin"), ", ''), lane_book.origin"),
    filter: "",
    columns: &[
        needs("target", "target", Kind::Name),
        needs("origin", "origin", Kind::Origin),
        needs("entered", "entered", Kind::Int),
        needs("delivered", "delivered", Kind::Int),
        needs("unchanged", "unchanged", Kind::Int),
        needs("superseded", "superseded", Kind::Int),
        needs("discarded", "discarded", Kind::Int),
        may("last_delivered", "lastDelivered", Kind::Int),
    ],
};

const FILTERED_BOOK: Table = Table {
    word: "filteredBook",
    name: "filtered_book",
    reach: Reach::Realm,
    order: concat!(
        text!("filtered_book.target"),
        ", coalesce(",
        text!("filtered_book.origin"),
        ", ''), filtered_book.origin, filtered_book.reason"
    ),
    filter: "",
    columns: &[
        needs("target", "target", Kind::Name),
        needs("origin", "origin", Kind::Origin),
        needs("reason", "reason", Kind::Text),
        needs("count", "count", Kind::Int),
    ],
};

const SOURCE_BOOK: Table = Table {
    word: "sourceBook",
    name: "source_book",
    reach: Reach::Realm,
    order: text!("source_book.participant"),
    filter: "",
    columns: &[
        needs("participant", "participant", Kind::Name),
        needs("read", "read", Kind::Int),
        needs("changed", "changed", Kind::Int),
        needs("unchanged", "unchanged", Kind::Int),
        needs("dead_lettered", "deadLettered", Kind::Int),
        added("conflicts", "conflicts", Kind::Int, Absent::Zero),
    ],
};

const REALM_BOOK: Table = Table {
    word: "realmBook",
    name: "realm_book",
    reach: Reach::Realm,
    order: "realm_book.realm",
    filter: "",
    columns: &[needs("live", "live", Kind::Int), needs("matched", "matched", Kind::Int), may("last_delivered", "lastDelivered", Kind::Int)],
};

const GUARD_BOOK: Table = Table {
    word: "guardBook",
    name: "guard_count",
    reach: Reach::Realm,
    order: concat!(text!("guard_count.book"), ", guard_count.hour"),
    filter: "",
    columns: &[
        added("book", "book", Kind::Name, Absent::Realm),
        needs("hour", "hour", Kind::Int),
        needs("changes", "changes", Kind::Int),
        needs("deletes", "deletes", Kind::Int),
    ],
};

/// What became of records' fields, the oldest first: their numbers are given anew in that order. Values are told as the text that is kept, since a
/// value may be null and may be none.
const PAST_CONFLICT: Table = Table {
    word: "conflict",
    name: "past_conflict",
    reach: Reach::Realm,
    order: "past_conflict.number",
    filter: "",
    columns: &[
        needs("record", "record", Kind::Id),
        needs("participant", "participant", Kind::Name),
        may("field", "field", Kind::Text),
        may("shown", "shown", Kind::Text),
        may("kept", "kept", Kind::Text),
        added("fate", "fate", Kind::Int, Absent::Zero),
        needs("at", "at", Kind::Int),
    ],
};

/// Writes of API callers. Their scopes name no realm.
pub(crate) const API_WRITE: Table = Table {
    word: "write",
    name: "api_write",
    reach: Reach::Store,
    order: "api_write.number",
    filter: "",
    columns: &[
        needs("scope", "scope", Kind::Text),
        needs("fingerprint", "fingerprint", Kind::Text),
        needs("held_until", "heldUntil", Kind::Int),
        needs("expires", "expires", Kind::Int),
        may("answer", "answer", Kind::Text),
    ],
};

/// What an export tells of a realm, in this order: what is referred to comes first.
pub(crate) static OF_REALM: [Table; 14] = [
    RECORD,
    MERGED,
    IDENTITY,
    LANE,
    CHECKPOINT,
    REREAD,
    LETTER,
    NOTE,
    LANE_BOOK,
    FILTERED_BOOK,
    SOURCE_BOOK,
    REALM_BOOK,
    GUARD_BOOK,
    PAST_CONFLICT,
];

/// What it tells once, after the realms.
pub(crate) static OF_STORE: [Table; 1] = [API_WRITE];

/// What exports of format 1 tell and nothing holds any more, by word and field: of the realm how many conflicts, which are counted per
/// participant since.
const FORMER: [(&str, &str); 1] = [(REALM_BOOK.word, "conflicts")];

impl Table {
    /// The table with this word.
    pub(crate) fn of(word: &str) -> Option<&'static Self> {
        OF_REALM.iter().chain(&OF_STORE).find(|table| table.word == word)
    }

    /// Its rows, as a statement that both databases take. `realm` is the realm's number, or the parameter that holds it.
    pub(crate) fn select(&self, realm: &str) -> String {
        let Self { name, order, filter, .. } = self;
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|column| match column.kind {
                Kind::Record => format!("(SELECT other.id FROM record AS other WHERE other.row = {name}.{})", column.name),
                // Small numbers of one database are as wide as all numbers of the other.
                Kind::Int | Kind::Claim | Kind::Stage => format!("CAST({name}.{} AS bigint)", column.name),
                _ => format!("{name}.{}", column.name),
            })
            .collect();
        let columns = columns.join(", ");
        match self.reach {
            Reach::Realm => format!("SELECT {columns} FROM {name} WHERE {name}.realm = {realm}{filter} ORDER BY {order}"),
            // From the records, which lie in order, so that nothing large is sorted.
            Reach::Record => format!(
                "SELECT {columns} FROM record CROSS JOIN {name} WHERE {name}.record = record.row AND record.realm = {realm}{filter}
                 ORDER BY record.id, {order}"
            ),
            Reach::Store => format!("SELECT {columns} FROM {name} ORDER BY {order}"),
        }
    }
}

impl Column {
    /// What a database holds for a value that the text gave. `name` tells the id of a name's text. A record's row is not known here: it is
    /// told by the record's id.
    pub(crate) fn cell(&self, value: &Value, name: &dyn Fn(&str) -> Result<i64, StoreError>) -> Result<Cell, StoreError> {
        if self.absent == Absent::Null && value.is_null() { Ok(Cell::Null) } else { self.kind.cell(value, name) }
    }
}

impl Kind {
    /// Whether this can stand in a column of the kind; says what is wanted where it cannot.
    pub(crate) fn check(self, value: &Value) -> Result<(), &'static str> {
        let (good, wanted) = match self {
            Self::Name | Self::External | Self::Text => (value.is_string(), "a text"),
            Self::Int | Self::Claim => (value.is_i64(), "a whole number"),
            Self::Flag => (value.is_boolean(), "true or false"),
            Self::Record | Self::Id => (value.as_str().and_then(RecordId::parse).is_some(), "a record's id"),
            Self::Origin => (Origin::deserialize(value).is_ok(), "an origin"),
            Self::Stage => (Stage::deserialize(value).is_ok(), "a stage"),
            Self::Keys => (value.as_array().is_some_and(|keys| keys.iter().all(Value::is_i64)), "a list of whole numbers"),
            Self::Json => (true, "anything"),
            Self::Document => (value.is_object(), "a document"),
            Self::State => (ParticipantState::deserialize(value).is_ok(), "a participant's state"),
            Self::Provenance => (Setters::deserialize(value).is_ok(), "who set which field"),
        };
        if good { Ok(()) } else { Err(wanted) }
    }

    /// The text's value of what a database holds. `name` tells the text of a name's id.
    pub(crate) fn value(self, cell: Cell, name: &dyn Fn(i64) -> Result<String, StoreError>) -> Result<Value, StoreError> {
        Ok(match (self, cell) {
            (_, Cell::Null) => Value::Null,
            (Self::Name, Cell::Int(id)) => Value::String(name(id)?),
            (Self::Origin, Cell::Int(code)) => {
                let origin = special_origin(code).map_or_else(|| name(code).map(Origin::Source), Ok)?;
                to_value(&origin)?
            }
            (Self::Stage, Cell::Int(code)) => Value::String(encode_word(&stage_of(code)?)?),
            (Self::Int, Cell::Int(number)) => Value::from(number),
            (Self::Claim, Cell::Int(_)) => Value::from(0),
            (Self::Flag, Cell::Int(number)) => Value::Bool(number != 0),
            (Self::Flag, Cell::Flag(flag)) => Value::Bool(flag),
            (Self::Record | Self::Id, Cell::Id(bytes)) => Value::String(record_id(bytes).to_string()),
            (Self::External | Self::Text, Cell::Text(text)) => Value::String(text),
            (Self::Keys, Cell::Bytes(bytes)) => unpack_keys(&bytes).into(),
            (Self::Json | Self::Document, Cell::Text(text)) => super::codec::decode("value", &text)?,
            (Self::State, Cell::Text(text)) => to_value(&decode_state(&text, 0)?)?,
            (Self::Provenance, Cell::Text(text)) => to_value(&decode_provenance(&text)?)?,
            (kind, cell) => return Err(StoreError::Unusable(format!("a row holds what no Fairlead writes: {cell:?} for {kind:?}"))),
        })
    }

    fn cell(self, value: &Value, name: &dyn Fn(&str) -> Result<i64, StoreError>) -> Result<Cell, StoreError> {
        let text = || value.as_str().unwrap_or_default();
        Ok(match self {
            Self::Json | Self::Document => Cell::Text(encode(value)?),
            Self::State => Cell::Text(encode_state(&ParticipantState::deserialize(value).unwrap_or_default())?),
            Self::Provenance => encode_provenance(&Setters::deserialize(value).unwrap_or_default())?.map_or(Cell::Null, Cell::Text),
            Self::Name => Cell::Int(name(text())?),
            Self::Origin => match Origin::deserialize(value) {
                Ok(origin) => Cell::Int(origin_code(&origin).map_or_else(|participant| name(participant), Ok)?),
                Err(_) => Cell::Null,
            },
            Self::Stage => Stage::deserialize(value).map_or(Cell::Null, |stage| Cell::Int(stage_code(stage))),
            Self::Int => value.as_i64().map_or(Cell::Null, Cell::Int),
            Self::Claim => value.as_i64().map_or(Cell::Null, |_| Cell::Int(0)),
            Self::Flag => value.as_bool().map_or(Cell::Null, Cell::Flag),
            Self::Record | Self::Id => RecordId::parse(text()).map_or(Cell::Null, |id| Cell::Id(super::codec::id_bytes(id))),
            Self::External | Self::Text => Cell::Text(text().to_owned()),
            Self::Keys => Cell::Bytes(pack_keys(&hashes(value))),
        })
    }

    /// The name that a value of this kind speaks of.
    pub(crate) fn name_in(self, value: &Value) -> Option<&str> {
        match self {
            Self::Name => value.as_str(),
            Self::Origin => value.get("Source")?.as_str(),
            _ => None,
        }
    }
}

/// Who set which field.
type Setters = BTreeMap<SmolStr, Provenance>;

fn to_value<T: Serialize>(value: &T) -> Result<Value, StoreError> {
    serde_json::to_value(value).map_err(|error| StoreError::Other(error.to_string()))
}

/// The hashes of index keys.
pub(crate) fn hashes(keys: &Value) -> Vec<i64> {
    keys.as_array().into_iter().flatten().filter_map(Value::as_i64).collect()
}

/// The cells of a row of `realm` as the text names them: all that the table has, nothing else, each of its kind; says what is wrong.
pub(crate) fn cells_of(table: &Table, realm: &str, mut fields: Document) -> Result<Vec<Value>, String> {
    for (_, field) in FORMER.into_iter().filter(|(word, _)| *word == table.word) {
        fields.remove(field);
    }
    let mut cells = Vec::with_capacity(table.columns.len());
    for column in table.columns {
        let cell = match (fields.remove(column.field), column.absent) {
            (None, Absent::Wrong) => return Err(format!("{}.{} is missing", table.word, column.field)),
            (None | Some(Value::Null), Absent::Null) => Value::Null,
            (None, Absent::Zero) => Value::from(0),
            (None, Absent::Realm) => Value::from(realm),
            (None, Absent::Bulk) => Value::from(have_time(table, &cells)),
            (None, Absent::False) => Value::from(false),
            (Some(value), _) => {
                column.kind.check(&value).map_err(|wanted| format!("{}.{} must be {wanted}", table.word, column.field))?;
                value
            }
        };
        cells.push(cell);
    }
    match fields.keys().next() {
        None => Ok(cells),
        Some(unknown) => Err(format!("{}.{unknown} is not known here", table.word)),
    }
}

/// Whether every origin that stands among the first cells of a row has time.
fn have_time(table: &Table, cells: &[Value]) -> bool {
    let origins = table.columns.iter().zip(cells).filter(|(column, _)| column.kind == Kind::Origin);
    origins.filter_map(|(_, cell)| Origin::deserialize(cell).ok()).all(|origin| origin.haste() == Haste::Bulk)
}

/// The same the other way.
pub(crate) fn fields_of(table: &Table, cells: &[Value]) -> Document {
    let columns = table.columns.iter().zip(cells).filter(|(column, cell)| column.absent != Absent::Null || !cell.is_null());
    columns.map(|(column, cell)| (column.field.to_owned(), cell.clone())).collect()
}
