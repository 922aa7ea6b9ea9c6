//! Reading by a query language: the text of SOQL and SuiteQL queries, and the records in their answers.
//!
//! Texts are built from checked names and escaped literals only; a value never becomes syntax. What differs between the two languages stands
//! here; how pages follow each other stands in [`super::keyset`].

use super::credentials::invalid;
use super::line::{Call, Line, Path};
use super::types::{NativeRecord, Unusable};
use crate::decode;
use crate::definition::Entity;
use crate::definition::format::{ChildFormat, DeletesFormat, FieldFormat, SoqlFormat, SuiteqlFormat};
use crate::reason;
use crate::shape::Shape;
use fairlead_model::path::Segment;
use fairlead_model::schema::FieldType;
use fairlead_model::{Decimal, Document, ErrorClass, ExternalId, FieldPath, RemoteError, Timestamp, document};
use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

/// SuiteQL's mask for moments.
const MOMENT: &str = "YYYY-MM-DD\"T\"HH24:MI:SS";

/// The most follow-up pages of one answer (records that the vendor cut off, child rows).
const MAX_FOLLOW_UPS: usize = 50;

/// Where a child row's record holds its parent's id.
pub(crate) const PARENT: &str = "parent";

/// A place in the order of changes: stamp and id.
pub(crate) type Place = (String, String);

/// Which records are asked for.
pub(crate) enum Which<'a> {
    /// Everything after a place.
    After(&'a Place),
    /// Everything from a stamp on.
    From(&'a str),
    /// Everything.
    All,
    /// These ids.
    Ids(&'a [&'a str]),
    /// Records whose fields have these values, deleted ones left out.
    Equal(&'a [(FieldPath, Value)]),
}

/// A record with its stamp as cursors spell it. One without a usable stamp is a record all the same, but no place to go on from.
pub(crate) type Row = (Option<String>, NativeRecord);

/// Rows of an answer.
pub(crate) struct Rows {
    pub(crate) records: Vec<Row>,
    /// Rows without an id.
    pub(crate) unusable: Vec<Unusable>,
    /// The vendor holds more rows of this very query.
    pub(crate) cut: bool,
    /// The vendor's clock.
    pub(crate) server_time: Option<Timestamp>,
}

impl Rows {
    /// Makes records of items: `id` finds an item's id, `record` takes it with the rest.
    fn of(what: &str, items: Vec<Value>, id: impl Fn(&Value) -> Option<String>, record: impl Fn(String, Value) -> Row) -> Self {
        let mut rows = Self { records: Vec::with_capacity(items.len()), unusable: Vec::new(), cut: false, server_time: None };
        for (at, item) in items.into_iter().enumerate() {
            match id(&item) {
                Some(id) => rows.records.push(record(id, item)),
                None => rows.unusable.push(no_id(what, at, &item)),
            }
        }
        rows
    }

    /// How many rows there are.
    pub(crate) fn count(&self) -> usize {
        self.records.len() + self.unusable.len()
    }

    /// The records of a question that wants them all: one that cannot be used might be the one that was asked for.
    pub(crate) fn whole(self) -> Result<Vec<NativeRecord>, RemoteError> {
        match self.unusable.into_iter().next() {
            Some(unusable) => Err(RemoteError { class: ErrorClass::Transient, ..unusable.error }),
            None => Ok(self.records.into_iter().map(|(_, record)| record).collect()),
        }
    }
}

/// How one slice of an entity is queried.
pub(crate) enum Language<'a> {
    Soql {
        entity: &'a Entity,
        soql: &'a SoqlFormat,
    },
    /// Child rows; a record's body holds the parent's id under `parent`.
    Children {
        entity: &'a Entity,
        soql: &'a SoqlFormat,
        child: &'a ChildFormat,
    },
    Suiteql {
        entity: &'a Entity,
        suiteql: &'a SuiteqlFormat,
    },
    Deletes {
        entity: &'a Entity,
        suiteql: &'a SuiteqlFormat,
        deletes: &'a DeletesFormat,
    },
}

impl<'a> Language<'a> {
    /// The language of an entity's slice; `None` where it has none.
    pub(crate) fn of(entity: &'a Entity, slice: &str) -> Option<Self> {
        let read = entity.format.read.as_ref()?;
        match (&read.soql, &read.suiteql, slice) {
            (Some(soql), _, crate::definition::MAIN) => Some(Self::Soql { entity, soql }),
            (Some(soql), _, relation) => {
                Some(Self::Children { entity, soql, child: soql.children.iter().find(|child| child.name == relation)? })
            }
            (_, Some(suiteql), crate::definition::MAIN) => Some(Self::Suiteql { entity, suiteql }),
            (_, Some(suiteql), crate::definition::DELETES) => Some(Self::Deletes { entity, suiteql, deletes: suiteql.deletes.as_ref()? }),
            _ => None,
        }
    }

    /// The most rows of one page.
    pub(crate) fn page(&self) -> u32 {
        match self {
            Self::Soql { soql, .. } | Self::Children { soql, .. } => soql.page,
            Self::Suiteql { suiteql, .. } | Self::Deletes { suiteql, .. } => suiteql.page,
        }
    }

    /// How long after its stamp a record may become visible.
    pub(crate) fn lag(&self) -> std::time::Duration {
        match self {
            Self::Soql { soql, .. } | Self::Children { soql, .. } => soql.lag.0,
            Self::Suiteql { suiteql, .. } | Self::Deletes { suiteql, .. } => suiteql.lag.0,
        }
    }

    /// The most ids of one question.
    pub(crate) fn most_ids(&self) -> usize {
        match self {
            // 18 characters with quotes and comma, percent-encoded, within a URL of 16 KiB.
            Self::Soql { .. } | Self::Children { .. } => 200,
            Self::Suiteql { .. } | Self::Deletes { .. } => 500,
        }
    }

    /// Whether `id` can be an id here; others are not asked for.
    pub(crate) fn is_id(&self, id: &str) -> bool {
        match self {
            Self::Soql { .. } | Self::Children { .. } => matches!(id.len(), 15 | 18) && id.bytes().all(|b| b.is_ascii_alphanumeric()),
            Self::Suiteql { .. } | Self::Deletes { .. } => is_number(id),
        }
    }

    /// `stamp` less `lag`, in the same spelling.
    pub(crate) fn before(&self, stamp: &str, lag: std::time::Duration) -> Option<String> {
        let moment = moment(stamp)?;
        let earlier = Timestamp(moment.0.saturating_sub(i64::try_from(lag.as_millis()).unwrap_or(0)));
        Some(self.spell(earlier))
    }

    /// A moment as cursors spell it.
    pub(crate) fn spell(&self, moment: Timestamp) -> String {
        let text = moment.to_rfc3339();
        match self {
            Self::Soql { .. } | Self::Children { .. } => text,
            Self::Suiteql { .. } | Self::Deletes { .. } => text.get(..19).unwrap_or(&text).to_owned(),
        }
    }

    /// Whether the vendor's own clock may be compared with its stamps.
    pub(crate) fn trusts_server_time(&self) -> bool {
        matches!(self, Self::Soql { .. } | Self::Children { .. })
    }

    fn entity(&self) -> &'a Entity {
        match self {
            Self::Soql { entity, .. } | Self::Children { entity, .. } | Self::Suiteql { entity, .. } | Self::Deletes { entity, .. } => {
                entity
            }
        }
    }

    /// Asks.
    pub(crate) async fn rows(
        &self,
        line: &Line,
        fields: &[FieldPath],
        which: &Which<'_>,
        limit: u32,
        deadline: Instant,
    ) -> Result<Rows, RemoteError> {
        for field in fields {
            if self.entity().field(field).is_none() {
                return Err(invalid(format!("{} has no field {field} in its definition", self.entity().name())));
            }
        }
        match self {
            Self::Soql { entity, soql } => soql_rows(line, entity, soql, fields, which, limit, deadline).await,
            Self::Children { soql, child, .. } => child_rows(line, soql, child, which, limit, deadline).await,
            Self::Suiteql { entity, suiteql } => {
                let columns = columns(entity, suiteql, fields);
                let text = suiteql_text(entity, suiteql, &columns, which)?;
                let values = matches!(which, Which::Equal(_));
                let (items, server_time, more) = suiteql_items(line, suiteql, &text, limit, deadline, (entity.name(), values)).await?;
                let rows = Rows::of(entity.name(), items, cursor_id, |id, item| suiteql_record(&columns, id, item));
                Ok(Rows { cut: more, server_time, ..rows })
            }
            Self::Deletes { entity, suiteql, deletes } => {
                let text = deletes_text(deletes, which)?;
                let (items, server_time, more) = suiteql_items(line, suiteql, &text, limit, deadline, (&deletes.from, false)).await?;
                let rows = Rows::of(&format!("deletions of {}", entity.name()), items, cursor_id, deleted_record);
                Ok(Rows { cut: more, server_time, ..rows })
            }
        }
    }

    /// The newest stamp there is, if there is any record.
    pub(crate) async fn newest(&self, line: &Line, deadline: Instant) -> Result<Option<String>, RemoteError> {
        let (suiteql, text) = match self {
            Self::Soql { .. } | Self::Children { .. } => return Ok(None),
            Self::Suiteql { suiteql, .. } => {
                let condition = suiteql.condition.as_ref().map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
                (
                    suiteql,
                    format!("SELECT TO_CHAR(MAX({0}.{1}), '{MOMENT}') AS cursor_stamp FROM {0}{condition}", suiteql.from, suiteql.stamp),
                )
            }
            Self::Deletes { suiteql, deletes, .. } => (
                suiteql,
                format!(
                    "SELECT TO_CHAR(MAX({}), '{MOMENT}') AS cursor_stamp FROM {} WHERE {}",
                    deletes.stamp, deletes.from, deletes.condition
                ),
            ),
        };
        let (items, ..) = suiteql_items(line, suiteql, &text, 1, deadline, (self.entity().name(), false)).await?;
        Ok(items.first().and_then(|item| item.get("cursor_stamp")).and_then(Value::as_str).map(str::to_owned))
    }
}

fn moment(stamp: &str) -> Option<Timestamp> {
    Timestamp::parse(stamp).or_else(|| Timestamp::parse(&format!("{stamp}Z")))
}

fn is_number(id: &str) -> bool {
    !id.is_empty() && id.len() <= 18 && id.bytes().all(|b| b.is_ascii_digit())
}

/// An answer that the protocol does not promise.
pub(crate) fn unexpected(text: impl Into<String>) -> RemoteError {
    RemoteError::new(ErrorClass::Transient, reason::UNEXPECTED_RESPONSE, text)
}

/// A row that came at place `at` of a page, and has no id. Whose it is cannot be told, so nothing of it is repeated.
pub(crate) fn no_id(what: &str, at: usize, item: &Value) -> Unusable {
    let text = format!("row {} of a page of {what} has no id, so it cannot be kept", at + 1);
    Unusable { raw: item.to_string(), error: RemoteError::new(ErrorClass::Data, reason::UNEXPECTED_RESPONSE, text) }
}

/// A cursor that is not of this reader's making.
pub(crate) fn bad_cursor() -> RemoteError {
    invalid("the cursor is not one that this reader gave out; read again from the beginning")
}

// === SOQL ===

async fn soql_rows(
    line: &Line,
    entity: &Entity,
    soql: &SoqlFormat,
    fields: &[FieldPath],
    which: &Which<'_>,
    limit: u32,
    deadline: Instant,
) -> Result<Rows, RemoteError> {
    let text = soql_text(entity, soql, fields, which, limit)?;
    // `queryAll` shows deleted records too; a search wants living ones.
    let path = if matches!(which, Which::Equal(_)) { "/query" } else { "/queryAll" };
    let call = Call {
        what: format!("the query of {}", entity.name()),
        method: Method::GET,
        path: Path::Base(path.into()),
        query: vec![("q".into(), text)],
        headers: Vec::new(),
        body: None,
        write: false,
        values: matches!(which, Which::Equal(_)),
        deadline,
        allowed: None,
        probe: false,
    };
    let (answer, mut body) = line.json(&call).await?;
    let mut items = take_records(&mut body, entity.name())?;
    // A page of a pass goes on by its own order; other questions want their whole answer.
    let paging = matches!(which, Which::After(_) | Which::From(_) | Which::All);
    let mut more = next_link(&body);
    let cut = more.is_some();
    let mut follow_ups = 0;
    while let Some(link) = more.filter(|_| !paging) {
        follow_ups += 1;
        if follow_ups > MAX_FOLLOW_UPS {
            return Err(unexpected(format!("the query of {} does not end", entity.name())));
        }
        let mut page = follow(line, &call, &link).await?;
        items.extend(take_records(&mut page, entity.name())?);
        more = next_link(&page).filter(|next| *next != link);
    }
    for item in &mut items {
        complete_children(line, &call, fields, item).await?;
        if let Some(deleted) = &soql.deleted {
            relations(fields).iter().for_each(|relation| drop_deleted_children(item, relation, deleted));
        }
    }
    let id = |item: &Value| item.as_object().and_then(|_| entity.format.key.text(item));
    let rows = Rows::of(entity.name(), items, id, |id, item| soql_record(soql, &entity.shape, id, item));
    Ok(Rows { cut: cut && paging, server_time: answer.date(), ..rows })
}

/// Which child rows changed, and whose they are. `queryAll`: a child that is deleted is a change of its parent.
async fn child_rows(
    line: &Line,
    soql: &SoqlFormat,
    child: &ChildFormat,
    which: &Which<'_>,
    limit: u32,
    deadline: Instant,
) -> Result<Rows, RemoteError> {
    let stamp = &soql.stamp;
    let conditions = soql_which(soql, which)?.map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
    let text = format!("SELECT Id, {stamp}, {} FROM {}{conditions} ORDER BY {stamp}, Id LIMIT {limit}", child.parent, child.from);
    let call = Call {
        what: format!("the query of {}", child.from),
        method: Method::GET,
        path: Path::Base("/queryAll".into()),
        query: vec![("q".into(), text)],
        headers: Vec::new(),
        body: None,
        write: false,
        values: false,
        deadline,
        allowed: None,
        probe: false,
    };
    let (answer, mut body) = line.json(&call).await?;
    let cut = next_link(&body).is_some();
    let record = |id: String, item: Value| {
        let version = item.get(stamp).and_then(Value::as_str).map(str::to_owned);
        let modified = version.as_deref().and_then(moment);
        let parent = item.get(&child.parent).filter(|parent| parent.is_string()).cloned();
        let body = parent.map(|parent| Document::from_iter([(PARENT.to_owned(), parent)])).unwrap_or_default();
        let record = NativeRecord { id: ExternalId(id), version, modified, deleted: false, merged_into: None, body, raw: Some(item) };
        (modified.map(Timestamp::to_rfc3339), record)
    };
    let rows = Rows::of(&child.from, take_records(&mut body, &child.from)?, |item| item.get("Id").and_then(scalar), record);
    Ok(Rows { cut, server_time: answer.date(), ..rows })
}

fn take_records(body: &mut Value, what: &str) -> Result<Vec<Value>, RemoteError> {
    match body.get_mut("records").map(Value::take) {
        Some(Value::Array(items)) => Ok(items),
        _ => Err(unexpected(format!("the answer to the query of {what} holds no records"))),
    }
}

/// A link to more rows; only the query service's own.
fn next_link(body: &Value) -> Option<String> {
    let link = body.get("nextRecordsUrl")?.as_str()?;
    (link.starts_with("/services/data/") && !link.contains("..")).then(|| link.to_owned())
}

async fn follow(line: &Line, call: &Call, link: &str) -> Result<Value, RemoteError> {
    let next = Call { path: Path::Root(link.to_owned()), query: Vec::new(), ..call.clone() };
    Ok(line.json(&next).await?.1)
}

/// Child rows that the vendor cut off are fetched, so that a short list is never taken for the whole one.
async fn complete_children(line: &Line, call: &Call, fields: &[FieldPath], item: &mut Value) -> Result<(), RemoteError> {
    for relation in relations(fields) {
        let mut follow_ups = 0;
        while let Some(link) = item.get(&relation).and_then(next_link) {
            follow_ups += 1;
            if follow_ups > MAX_FOLLOW_UPS {
                return Err(unexpected(format!("the child rows {relation} do not end")));
            }
            let mut page = follow(line, call, &link).await?;
            let rest = page.get_mut("records").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
            let next = page.get_mut("nextRecordsUrl").map(Value::take).filter(|next| next.as_str() != Some(link.as_str()));
            let Some(child) = item.get_mut(&relation).and_then(Value::as_object_mut) else { break };
            if let Some(rows) = child.get_mut("records").and_then(Value::as_array_mut) {
                rows.extend(rest);
            }
            child.remove("nextRecordsUrl");
            if let Some(next) = next {
                child.insert("nextRecordsUrl".into(), next);
            }
        }
    }
    Ok(())
}

/// `queryAll` shows deleted child rows as well; a living parent's list has none of them.
fn drop_deleted_children(item: &mut Value, relation: &str, deleted: &str) {
    let rows = item.get_mut(relation).and_then(|child| child.get_mut("records")).and_then(Value::as_array_mut);
    if let Some(rows) = rows {
        rows.retain(|row| row.get(deleted) != Some(&Value::Bool(true)));
        for row in rows.iter_mut().filter_map(Value::as_object_mut) {
            row.remove(deleted);
        }
    }
}

/// The child relations that `fields` name (`Contacts` of `Contacts.records[].Email`), each once.
fn relations(fields: &[FieldPath]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for field in fields {
        if let [Segment::Field(relation), Segment::List(_), ..] = field.segments()
            && !found.iter().any(|known| known == relation)
        {
            found.push(relation.clone());
        }
    }
    found
}

fn soql_text(entity: &Entity, soql: &SoqlFormat, fields: &[FieldPath], which: &Which<'_>, limit: u32) -> Result<String, RemoteError> {
    let mut select: Vec<String> = vec!["Id".into(), soql.stamp.clone()];
    select.extend(soql.deleted.clone());
    select.extend(soql.merged.clone());
    for field in fields.iter().filter(|field| field.list_root().is_none()) {
        let text = entity.field(field).and_then(|known| known.column.clone()).unwrap_or_else(|| field.to_string());
        if !select.contains(&text) {
            select.push(text);
        }
    }
    for relation in relations(fields) {
        let mut inner: Vec<String> = vec!["Id".into()];
        inner.extend(soql.deleted.clone());
        for field in fields {
            let [Segment::Field(own), Segment::List(_), rest @ ..] = field.segments() else { continue };
            let text: Vec<&str> = rest.iter().map(Segment::name).collect();
            let text = text.join(".");
            if *own == relation && !text.is_empty() && !inner.contains(&text) {
                inner.push(text);
            }
        }
        select.push(format!("(SELECT {} FROM {relation})", inner.join(", ")));
    }
    let stamp = &soql.stamp;
    let mut conditions: Vec<String> = soql.condition.iter().map(|condition| format!("({condition})")).collect();
    conditions.extend(soql_which(soql, which)?);
    if let Which::Equal(criteria) = which {
        for (field, value) in *criteria {
            conditions.push(format!("{} = {}", filterable(entity, field)?, soql_literal(entity, field, value)?));
        }
    }
    let conditions = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    Ok(format!("SELECT {} FROM {}{conditions} ORDER BY {stamp}, Id LIMIT {limit}", select.join(", "), soql.from))
}

/// The condition of a page or of ids.
fn soql_which(soql: &SoqlFormat, which: &Which<'_>) -> Result<Option<String>, RemoteError> {
    let stamp = &soql.stamp;
    Ok(match which {
        Which::All | Which::Equal(_) => None,
        Which::From(from) => Some(format!("{stamp} >= {}", soql_moment(from)?)),
        Which::After((at, id)) => {
            let at = soql_moment(at)?;
            Some(format!("(({stamp} = {at} AND Id > {}) OR {stamp} > {at})", soql_string(id)))
        }
        Which::Ids(ids) => {
            let ids: Vec<String> = ids.iter().map(|id| soql_string(id)).collect();
            Some(format!("Id IN ({})", ids.join(", ")))
        }
    })
}

/// The name by which a field can be compared.
fn filterable(entity: &Entity, field: &FieldPath) -> Result<String, RemoteError> {
    let known = entity.field(field).filter(|_| field.list_root().is_none());
    let known = known.ok_or_else(|| invalid(format!("{} cannot be searched by {field}", entity.name())))?;
    Ok(known.column.clone().unwrap_or_else(|| field.to_string()))
}

fn soql_moment(stamp: &str) -> Result<String, RemoteError> {
    moment(stamp).map(Timestamp::to_rfc3339).ok_or_else(bad_cursor)
}

fn soql_string(text: &str) -> String {
    let mut out = String::from("'");
    for c in text.chars() {
        match c {
            '\'' => out.push_str("\\'"),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

fn soql_literal(entity: &Entity, field: &FieldPath, value: &Value) -> Result<String, RemoteError> {
    literal(entity, field, value, soql_string, |kind, text| match kind {
        FieldType::Date => Some(text.to_owned()).filter(|text| is_date(text)),
        FieldType::DateTime => moment(text).map(Timestamp::to_rfc3339),
        _ => None,
    })
}

/// A literal by the field's type: numbers and flags bare and checked, everything else a quoted string.
fn literal(
    entity: &Entity,
    field: &FieldPath,
    value: &Value,
    quote: fn(&str) -> String,
    time: fn(FieldType, &str) -> Option<String>,
) -> Result<String, RemoteError> {
    let kind = entity.field(field).map_or(FieldType::String, |field| field.kind);
    let wrong = || invalid(format!("{} cannot be searched: the value for {field} is not of its type", entity.name()));
    match (kind, value) {
        (_, Value::Null) => Ok("null".into()),
        (FieldType::Decimal | FieldType::Float | FieldType::Integer, Value::String(text)) => {
            text.parse::<Decimal>().map(String::from).map_err(|_| wrong())
        }
        (_, Value::Number(number)) if number.is_i64() || number.is_u64() => Ok(match kind {
            FieldType::Decimal | FieldType::Float | FieldType::Integer => number.to_string(),
            _ => quote(&number.to_string()),
        }),
        (FieldType::Boolean, Value::Bool(flag)) => Ok(flag.to_string()),
        (FieldType::Date | FieldType::DateTime, Value::String(text)) => time(kind, text).ok_or_else(wrong),
        (_, Value::String(text)) => Ok(quote(text)),
        _ => Err(wrong()),
    }
}

fn is_date(text: &str) -> bool {
    chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok()
}

fn soql_record(soql: &SoqlFormat, shape: &Shape, id: String, item: Value) -> Row {
    let version = item.get(&soql.stamp).and_then(Value::as_str).map(str::to_owned);
    let modified = version.as_deref().and_then(moment);
    let deleted = soql.deleted.as_ref().is_some_and(|field| item.get(field) == Some(&Value::Bool(true)));
    let master = soql.merged.as_ref().filter(|_| deleted).and_then(|field| item.get(field)?.as_str());
    let merged_into = master.filter(|master| !master.is_empty()).map(ExternalId::from);
    let (body, raw) = shape.record(item).unwrap_or_else(|other| (Document::new(), Some(other)));
    let record = NativeRecord { id: ExternalId(id), version, modified, deleted, merged_into, body, raw };
    (modified.map(Timestamp::to_rfc3339), record)
}

// === SuiteQL ===

/// A selected column: what is asked, under which name it comes, and where it goes.
struct Column<'a> {
    field: &'a FieldFormat,
    expression: String,
    alias: String,
}

fn columns<'a>(entity: &'a Entity, suiteql: &SuiteqlFormat, fields: &[FieldPath]) -> Vec<Column<'a>> {
    let known = fields
        .iter()
        .filter_map(|path| entity.field(path))
        .filter(|field| field.kind != FieldType::List && field.name.list_root().is_none());
    let mut columns: Vec<Column<'a>> = Vec::new();
    for field in known {
        if !columns.iter().any(|column| column.field.name == field.name) {
            let plain = field_column(suiteql, field);
            let expression = match field.kind {
                FieldType::DateTime if field.column.is_none() => format!("TO_CHAR({plain}, '{MOMENT}')"),
                FieldType::Date if field.column.is_none() => format!("TO_CHAR({plain}, 'YYYY-MM-DD')"),
                _ => plain,
            };
            columns.push(Column { field, expression, alias: format!("f{}", columns.len()) });
        }
    }
    columns
}

fn field_column(suiteql: &SuiteqlFormat, field: &FieldFormat) -> String {
    field.column.clone().unwrap_or_else(|| {
        let names: Vec<String> = field.name.segments().iter().map(|segment| segment.name().to_lowercase()).collect();
        format!("{}.{}", suiteql.from, names.join("_"))
    })
}

fn suiteql_text(entity: &Entity, suiteql: &SuiteqlFormat, columns: &[Column<'_>], which: &Which<'_>) -> Result<String, RemoteError> {
    let (table, id, stamp) = (&suiteql.from, format!("{}.{}", suiteql.from, suiteql.id), format!("{}.{}", suiteql.from, suiteql.stamp));
    let mut select = vec![format!("{id} AS cursor_id"), format!("TO_CHAR({stamp}, '{MOMENT}') AS cursor_stamp")];
    select.extend(columns.iter().map(|column| format!("{} AS {}", column.expression, column.alias)));
    let mut conditions: Vec<String> = suiteql.condition.iter().map(|condition| format!("({condition})")).collect();
    let mut named = select.join(" ");
    if let Which::Equal(criteria) = which {
        for (field, value) in *criteria {
            let known = entity.field(field).filter(|known| known.kind != FieldType::List && field.list_root().is_none());
            let known = known.ok_or_else(|| invalid(format!("{} cannot be searched by {field}", entity.name())))?;
            let column = field_column(suiteql, known);
            named.push(' ');
            named.push_str(&column);
            conditions.push(match suiteql_literal(entity, field, value)? {
                Some(text) => format!("{column} = {text}"),
                None => format!("{column} IS NULL"),
            });
        }
    }
    conditions.extend(suiteql_which(which, &id, &stamp)?);
    let joins: String =
        suiteql.joins.iter().filter(|join| named.contains(&format!("{}.", join.alias))).map(|join| format!(" {}", join.join)).collect();
    let conditions = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    Ok(format!("SELECT {} FROM {table}{joins}{conditions} ORDER BY {stamp}, {id}", select.join(", ")))
}

fn deletes_text(deletes: &DeletesFormat, which: &Which<'_>) -> Result<String, RemoteError> {
    let (id, stamp) = (&deletes.id, &deletes.stamp);
    let mut conditions = vec![format!("({})", deletes.condition)];
    conditions.extend(suiteql_which(which, id, stamp)?);
    Ok(format!(
        "SELECT {id} AS cursor_id, TO_CHAR({stamp}, '{MOMENT}') AS cursor_stamp FROM {} WHERE {} ORDER BY {stamp}, {id}",
        deletes.from,
        conditions.join(" AND ")
    ))
}

fn suiteql_which(which: &Which<'_>, id: &str, stamp: &str) -> Result<Option<String>, RemoteError> {
    let at = |text: &str| match moment(text) {
        Some(moment) => Ok(format!("TO_DATE('{}', '{MOMENT}')", moment.to_rfc3339().get(..19).unwrap_or_default())),
        None => Err(bad_cursor()),
    };
    Ok(match which {
        Which::All | Which::Equal(_) => None,
        Which::From(from) => Some(format!("{stamp} >= {}", at(from)?)),
        Which::After((place, last)) if is_number(last) => {
            let at = at(place)?;
            Some(format!("({stamp} > {at} OR ({stamp} = {at} AND {id} > {last}))"))
        }
        Which::Ids(ids) if ids.iter().all(|id| is_number(id)) => Some(format!("{id} IN ({})", ids.join(", "))),
        Which::After(_) | Which::Ids(_) => return Err(bad_cursor()),
    })
}

fn suiteql_literal(entity: &Entity, field: &FieldPath, value: &Value) -> Result<Option<String>, RemoteError> {
    fn quote(text: &str) -> String {
        format!("'{}'", text.replace('\'', "''"))
    }
    if value.is_null() {
        return Ok(None);
    }
    if let Value::Bool(flag) = value {
        return Ok(Some(if *flag { "'T'" } else { "'F'" }.into()));
    }
    let text = literal(entity, field, value, quote, |kind, text| match kind {
        FieldType::Date if is_date(text) => Some(format!("TO_DATE('{text}', 'YYYY-MM-DD')")),
        FieldType::DateTime => {
            moment(text).map(|moment| format!("TO_DATE('{}', '{MOMENT}')", moment.to_rfc3339().get(..19).unwrap_or_default()))
        }
        _ => None,
    })?;
    // References are numbers there.
    let reference = entity.field(field).is_some_and(|field| field.kind == FieldType::Reference);
    Ok(Some(match value.as_str() {
        Some(id) if reference && is_number(id) => id.to_owned(),
        _ => text,
    }))
}

async fn suiteql_items(
    line: &Line,
    suiteql: &SuiteqlFormat,
    text: &str,
    limit: u32,
    deadline: Instant,
    (what, values): (&str, bool),
) -> Result<(Vec<Value>, Option<Timestamp>, bool), RemoteError> {
    let call = Call {
        what: format!("the query of {what}"),
        method: Method::POST,
        path: Path::Base(suiteql.path.clone()),
        query: vec![("limit".into(), limit.to_string()), ("offset".into(), "0".into())],
        headers: vec![("Prefer".into(), "transient".into())],
        body: Some(json!({ "q": text }).to_string()),
        write: false,
        values,
        deadline,
        allowed: None,
        probe: false,
    };
    let (answer, mut body) = line.json(&call).await?;
    let more = body.get("hasMore") == Some(&Value::Bool(true));
    match body.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Ok((items, answer.date(), more)),
        _ => Err(unexpected(format!("the answer to {} holds no items", call.what))),
    }
}

fn cursor_id(item: &Value) -> Option<String> {
    item.get("cursor_id").and_then(scalar)
}

/// The stamp of a row, if it is one.
fn cursor_stamp(item: &Value) -> Option<(String, Timestamp)> {
    let stamp = item.get("cursor_stamp")?.as_str()?;
    Some((stamp.to_owned(), moment(stamp)?))
}

fn suiteql_record(columns: &[Column<'_>], id: String, mut item: Value) -> Row {
    let (stamp, modified) = cursor_stamp(&item).unzip();
    let mut body = Document::new();
    let mut raw = Document::new();
    for column in columns {
        let value = item.get_mut(&column.alias).map(Value::take).unwrap_or_default();
        if !value.is_null() {
            document::set(&mut raw, &column.field.name, value.clone());
        }
        document::set(&mut body, &column.field.name, decode::typed(column.field.kind, value));
    }
    let raw = Some(Value::Object(raw));
    let record = NativeRecord { id: ExternalId(id), version: stamp.clone(), modified, deleted: false, merged_into: None, body, raw };
    (stamp, record)
}

fn deleted_record(id: String, item: Value) -> Row {
    let (stamp, modified) = cursor_stamp(&item).unzip();
    let body = Document::new();
    let record = NativeRecord { id: ExternalId(id), version: None, modified, deleted: true, merged_into: None, body, raw: Some(item) };
    (stamp, record)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
