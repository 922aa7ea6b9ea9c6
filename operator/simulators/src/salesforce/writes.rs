//! The calls that change records: single ones, collections, and what a person does in the screens.
//!
//! Every record that a call tries to write makes one line in the log, in the order of the effects and while the org is held.
//! A collection answers 200 even if every record failed; with `allOrNone` a failure takes everything back.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use super::dml::{Cascade, Target, Written};
use super::errors::ApiError;
use super::org::{Org, moment};
use super::schema::{self, ENTITIES};
use super::{API, ids};
use crate::core::log::{Attempt, Outcome};
use crate::core::value::{Fields, Value};
use crate::core::vendor::{Act, Desk, Exchange, Reply, Request};

/// The most records in one collection.
const COLLECTION: usize = 200;

/// One line for the log, kept back until it is known whether a collection stands.
struct Line {
    entity: usize,
    key: String,
    external_id: Option<String>,
    operation: &'static str,
    values: Value,
    result: Result<Outcome, ApiError>,
}

impl Line {
    fn record(&self, desk: &Desk<'_>) {
        desk.record(Attempt {
            entity: ENTITIES[self.entity].name,
            key: &self.key,
            external_id: self.external_id.as_deref(),
            operation: self.operation,
            values: self.values.clone(),
            outcome: *self.result.as_ref().unwrap_or(&Outcome::Rejected),
            code: self.result.as_ref().err().map(|error| error.code.as_ref()),
        });
    }
}

/// One record that a call wants to write.
struct Wish {
    entity: usize,
    target: Target,
    values: Fields,
    operation: &'static str,
}

impl Wish {
    fn line(self, done: &Result<Written, ApiError>) -> Line {
        let (key, external_id) = match self.target {
            Target::New => (None, None),
            Target::Id(id) => (ids::normal(&id).or(Some(id)), None),
            Target::External { value, .. } => (None, Some(value)),
        };
        Line {
            entity: self.entity,
            key: done.as_ref().ok().map(|written| written.id.clone()).or(key).unwrap_or_default(),
            external_id,
            operation: self.operation,
            values: Value::Object(self.values),
            result: done.as_ref().map(|written| written.outcome).map_err(Clone::clone),
        }
    }
}

/// The JSON body of a write; the platform insists on the content type.
pub(super) fn body(request: &Request) -> Result<Value, ApiError> {
    let kind = request.header("content-type").unwrap_or_default();
    if !kind.to_ascii_lowercase().starts_with("application/json") {
        let message = format!("'{kind}' is not a supported content type; use application/json");
        return Err(ApiError::new(415, "UNSUPPORTED_MEDIA_TYPE", message));
    }
    Value::parse(&request.body).map_err(|error| ApiError::data("JSON_PARSER_ERROR", error.to_string(), &[]))
}

fn object(value: Value) -> Result<Fields, ApiError> {
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(ApiError::data("JSON_PARSER_ERROR", "an object is expected", &[])),
    }
}

/// The position of a field by which records can be named in a path.
pub(super) fn external(entity: usize, name: &str) -> Result<usize, ApiError> {
    let position = ENTITIES[entity].position(name).filter(|position| ENTITIES[entity].fields[*position].external);
    position
        .ok_or_else(|| ApiError::new(404, "NOT_FOUND", format!("Provided external ID field does not exist or is not accessible: {name}")))
}

/// `POST /sobjects/{T}`.
pub(super) fn create(org: &mut Org, exchange: &Exchange<'_>, entity: usize, base: &str) -> Result<Reply, ApiError> {
    let values = object(body(exchange.request)?)?;
    let wish = Wish { entity, target: Target::New, values, operation: "create" };
    Ok(match write_one(org, exchange, wish) {
        Ok(written) => Reply::json(201, API, &success(&written.id, None))
            .with("location", format!("{base}/sobjects/{}/{}", ENTITIES[entity].name, written.id)),
        Err(error) => error.reply(),
    })
}

/// `PATCH /sobjects/{T}/{id}`.
pub(super) fn update(org: &mut Org, exchange: &Exchange<'_>, entity: usize, id: &str) -> Result<Reply, ApiError> {
    let values = object(body(exchange.request)?)?;
    let wish = Wish { entity, target: Target::Id(id.to_owned()), values, operation: "update" };
    if let Err(error) = unmodified(org, exchange.request, entity, id) {
        wish.line(&Err(error.clone())).record(&exchange.desk);
        return Ok(error.reply());
    }
    Ok(match write_one(org, exchange, wish) {
        Ok(_) => Reply::empty(204),
        Err(error) => error.reply(),
    })
}

/// `PATCH /sobjects/{T}/{field}/{value}`.
pub(super) fn upsert(
    org: &mut Org,
    exchange: &Exchange<'_>,
    entity: usize,
    field: &str,
    value: &str,
    base: &str,
) -> Result<Reply, ApiError> {
    let position = external(entity, field)?;
    let name = ENTITIES[entity].fields[position].name;
    let values = object(body(exchange.request)?)?;
    if values.keys().any(|key| key.eq_ignore_ascii_case(name)) {
        let message = format!("The {name} field should not be specified in the sobject data.");
        return Err(ApiError::data("INVALID_FIELD", message, &[name]));
    }
    let found = org.matching(entity, position, value);
    if found.len() > 1 {
        return Ok(several(entity, &found, base));
    }
    if found.is_empty() && exchange.request.parameter("updateOnly") == Some("true") {
        return Err(ApiError::not_found());
    }
    let target = Target::External { position, value: value.to_owned() };
    Ok(match write_one(org, exchange, Wish { entity, target, values, operation: "upsert" }) {
        Ok(written) => {
            let created = written.outcome == Outcome::Created;
            Reply::json(if created { 201 } else { 200 }, API, &success(&written.id, Some(created)))
        }
        Err(error) => error.reply(),
    })
}

/// `DELETE /sobjects/{T}/{id}`.
pub(super) fn delete(org: &mut Org, exchange: &Exchange<'_>, entity: usize, id: &str) -> Reply {
    match delete_one(org, exchange, 0, entity, id, &mut |line| line.record(&exchange.desk)) {
        Ok(_) => Reply::empty(204),
        Err(error) => error.reply(),
    }
}

/// The answer where an external id names more than one record.
pub(super) fn several(entity: usize, found: &[String], base: &str) -> Reply {
    let url = |id: &String| Value::Text(format!("{base}/sobjects/{}/{id}", ENTITIES[entity].name));
    Reply::json(300, API, &Value::List(found.iter().map(url).collect()))
}

fn write_one(org: &mut Org, exchange: &Exchange<'_>, wish: Wish) -> Result<Written, ApiError> {
    let done = apply(org, exchange, 0, &wish);
    wish.line(&done).record(&exchange.desk);
    done
}

fn apply(org: &mut Org, exchange: &Exchange<'_>, position: usize, wish: &Wish) -> Result<Written, ApiError> {
    match exchange.partial.filter(|_| exchange.item_fails(position)) {
        Some(partial) => Err(ApiError::lock(partial.code.as_deref())),
        None => org.write(wish.entity, &wish.target, &wish.values, Utc::now()),
    }
}

fn delete_one(
    org: &mut Org,
    exchange: &Exchange<'_>,
    position: usize,
    entity: usize,
    id: &str,
    tell: &mut dyn FnMut(Line),
) -> Result<String, ApiError> {
    let done = match exchange.partial.filter(|_| exchange.item_fails(position)) {
        Some(partial) => Err(ApiError::lock(partial.code.as_deref())),
        None => org.delete(entity, id, Utc::now()),
    };
    tell(Line {
        entity,
        key: ids::normal(id).unwrap_or_else(|| id.to_owned()),
        external_id: None,
        operation: "delete",
        values: Value::Null,
        result: done.as_ref().map(|_| Outcome::Deleted).map_err(Clone::clone),
    });
    let (id, cascades) = done?;
    cascades.into_iter().map(cascade).for_each(tell);
    Ok(id)
}

fn cascade(cascade: Cascade) -> Line {
    Line {
        entity: cascade.entity,
        key: cascade.id,
        external_id: None,
        operation: "cascade",
        values: Value::Null,
        result: Ok(cascade.outcome),
    }
}

fn success(id: &str, created: Option<bool>) -> Value {
    let mut fields = vec![("id", Value::text(id)), ("success", Value::Bool(true)), ("errors", Value::List(Vec::new()))];
    fields.extend(created.map(|created| ("created", Value::Bool(created))));
    Value::object(fields)
}

/// `If-Unmodified-Since` on a write.
fn unmodified(org: &Org, request: &Request, entity: usize, id: &str) -> Result<(), ApiError> {
    let Some(header) = request.header("if-unmodified-since") else { return Ok(()) };
    let since = http_date(header)
        .ok_or_else(|| ApiError::new(400, "INVALID_HEADER", format!("If-Unmodified-Since is not an HTTP date: {header}")))?;
    match modified(org, entity, id) {
        Some(at) if at > since => Err(ApiError::new(412, "PRECONDITION_FAILED", "The record was modified since")),
        _ => Ok(()),
    }
}

/// When a record was last modified, by its stamp.
pub(super) fn modified(org: &Org, entity: usize, id: &str) -> Option<DateTime<Utc>> {
    let position = ENTITIES[entity].position("LastModifiedDate")?;
    moment(org.row(entity, id).ok()?.values[position].as_str()?)
}

/// An HTTP date (`Tue, 10 Aug 2027 10:00:00 GMT`).
pub(super) fn http_date(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc2822(text).ok().map(|at| at.with_timezone(&Utc))
}

/// `POST|PATCH /composite/sobjects` and `PATCH /composite/sobjects/{T}/{field}`.
pub(super) fn collection(
    org: &mut Org,
    exchange: &Exchange<'_>,
    operation: &'static str,
    by: Option<(usize, usize)>,
) -> Result<Reply, ApiError> {
    let mut body = object(body(exchange.request)?)?;
    let all_or_none = body.get("allOrNone").and_then(Value::as_bool).unwrap_or(false);
    let Some(Value::List(records)) = body.swap_remove("records") else {
        return Err(ApiError::data("JSON_PARSER_ERROR", "records is missing", &[]));
    };
    bounded(records.len())?;
    // A wrong type anywhere is a malformed request: nothing of it is done.
    let mut wishes = Vec::new();
    for record in records {
        let record = object(record)?;
        wishes.push(wish(record, operation, by)?);
    }
    // Which records are named twice; the second and later ones fail.
    let mut named = HashSet::new();
    let steps: Vec<(Wish, Option<ApiError>)> = wishes
        .into_iter()
        .map(|wish| match wish {
            Ok(wish) => {
                let twice = twice(&wish, &mut named);
                (wish, twice)
            }
            Err((wish, error)) => (wish, Some(error)),
        })
        .collect();
    Ok(batch(org, exchange, all_or_none, operation == "upsert", steps))
}

fn bounded(count: usize) -> Result<(), ApiError> {
    match count {
        0 => Err(ApiError::data("REQUIRED_FIELD_MISSING", "Required fields are missing: [records]", &[])),
        1..=COLLECTION => Ok(()),
        _ => {
            let message = format!("record limit reached. cannot submit more than {COLLECTION} records into this call");
            Err(ApiError::data("EXCEEDED_ID_LIMIT", message, &[]))
        }
    }
}

/// What one record of a collection asks for; the inner error is that record's own.
#[allow(clippy::result_large_err)]
fn wish(mut record: Fields, operation: &'static str, by: Option<(usize, usize)>) -> Result<Result<Wish, (Wish, ApiError)>, ApiError> {
    let told = record.get("attributes").and_then(|attributes| attributes.get("type")).and_then(Value::as_str);
    let told = told.ok_or_else(|| ApiError::data("INVALID_TYPE", "every record needs attributes with a type", &[]))?;
    let entity =
        schema::entity(told).ok_or_else(|| ApiError::data("INVALID_TYPE", format!("sObject type '{told}' is not supported."), &[]))?;
    record.shift_remove("attributes");
    let mut take = |name: &str| {
        let key = record.keys().find(|key| key.eq_ignore_ascii_case(name)).cloned();
        key.and_then(|key| record.shift_remove(&key)).and_then(|value| value.as_str().map(str::to_owned))
    };
    let missing = |field: &str| ApiError::data("MISSING_ARGUMENT", format!("{field} not specified"), &[field]);
    let (target, error) = match (operation, by) {
        ("upsert", Some((wanted, _))) if wanted != entity => {
            let message = format!("the request is for {} and a record is a {}", ENTITIES[wanted].name, ENTITIES[entity].name);
            return Err(ApiError::data("INVALID_TYPE", message, &[]));
        }
        ("upsert", Some((_, position))) => {
            let field = ENTITIES[entity].fields[position].name;
            match take(field).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()) {
                Some(value) => (Target::External { position, value }, None),
                None => (Target::New, Some(missing(field))),
            }
        }
        ("update", _) => match take("Id") {
            Some(id) => (Target::Id(id), None),
            None => (Target::New, Some(missing("Id"))),
        },
        _ => (Target::New, None),
    };
    let wish = Wish { entity, target, values: record, operation };
    Ok(match error {
        None => Ok(wish),
        Some(error) => Err((wish, error)),
    })
}

fn twice(wish: &Wish, named: &mut HashSet<(usize, String)>) -> Option<ApiError> {
    let (name, message) = match &wish.target {
        Target::New => return None,
        Target::Id(id) => (ids::normal(id).unwrap_or_else(|| id.clone()), "duplicate id in list".to_owned()),
        Target::External { value, .. } => (value.clone(), format!("Duplicate external id specified: {value}")),
    };
    (!named.insert((wish.entity, name))).then(|| ApiError::data("DUPLICATE_VALUE", message, &[]))
}

fn batch(org: &mut Org, exchange: &Exchange<'_>, all_or_none: bool, upsert: bool, steps: Vec<(Wish, Option<ApiError>)>) -> Reply {
    let before = all_or_none.then(|| org.tables.clone());
    let mut results = Vec::new();
    let mut lines = Vec::new();
    for (position, (wish, error)) in steps.into_iter().enumerate() {
        let done = match error {
            Some(error) => Err(error),
            None => apply(org, exchange, position, &wish),
        };
        lines.push(wish.line(&done));
        results.push(done.map(|written| success(&written.id, upsert.then_some(written.outcome == Outcome::Created))));
    }
    settle(org, exchange, before, lines, results)
}

/// `DELETE /composite/sobjects?ids=..`.
pub(super) fn delete_collection(org: &mut Org, exchange: &Exchange<'_>) -> Result<Reply, ApiError> {
    let ids: Vec<&str> =
        exchange.request.parameter("ids").unwrap_or_default().split(',').map(str::trim).filter(|id| !id.is_empty()).collect();
    bounded(ids.len())?;
    let all_or_none = exchange.request.parameter("allOrNone") == Some("true");
    let before = all_or_none.then(|| org.tables.clone());
    let (mut results, mut lines) = (Vec::new(), Vec::new());
    for (position, id) in ids.into_iter().enumerate() {
        let entity = ENTITIES.iter().position(|entity| entity.writable && id.starts_with(entity.prefix));
        let done = match entity {
            Some(entity) => delete_one(org, exchange, position, entity, id, &mut |line| lines.push(line)),
            None => Err(ApiError::malformed_id(id)),
        };
        results.push(done.map(|id| success(&id, None)));
    }
    Ok(settle(org, exchange, before, lines, results))
}

/// Takes everything back if it must stand or fall together, writes the log, answers.
fn settle(
    org: &mut Org,
    exchange: &Exchange<'_>,
    before: Option<Vec<super::org::Table>>,
    mut lines: Vec<Line>,
    mut results: Vec<Result<Value, ApiError>>,
) -> Reply {
    if let Some(tables) = before.filter(|_| results.iter().any(Result::is_err)) {
        org.restore(tables);
        let back = || {
            let message = "Record rolled back because not all records were valid and the request was using AllOrNone header";
            ApiError::data("ALL_OR_NONE_OPERATION_ROLLED_BACK", message, &[])
        };
        for result in results.iter_mut().filter(|result| result.is_ok()) {
            *result = Err(back());
        }
        for line in lines.iter_mut().filter(|line| line.result.is_ok()) {
            line.result = Err(back());
            if !org.tables[line.entity].rows.contains_key(&line.key) {
                line.key.clear();
            }
        }
    }
    for line in &lines {
        line.record(&exchange.desk);
    }
    let answers = results.into_iter().map(|result| result.unwrap_or_else(|error| error.item()));
    Reply::json(200, API, &Value::List(answers.collect()))
}

/// What a person does in the screens; the same rules hold, and another user is named as the one who did it.
pub(super) fn person(org: &mut Org, entity: usize, act: &Act, desk: &Desk<'_>) -> Result<String, ApiError> {
    let api = std::mem::replace(&mut org.user, super::auth::person());
    let now = desk.stamp();
    let done = match act {
        Act::Delete { id } => org.delete(entity, id, now).map(|(id, cascades)| (id, Outcome::Deleted, cascades)),
        Act::Create { values } => org.write(entity, &Target::New, values, now).map(|written| (written.id, written.outcome, Vec::new())),
        Act::Edit { id, values } => {
            org.write(entity, &Target::Id(id.clone()), values, now).map(|written| (written.id, written.outcome, Vec::new()))
        }
        Act::Undelete { id } => org.undelete(entity, id, now).map(|id| (id, Outcome::Updated, Vec::new())),
        Act::Merge { id, into } => org.merge(entity, id, into, now).map(|(id, cascades)| (id, Outcome::Deleted, cascades)),
    };
    org.user = api;
    let (operation, key, values) = match act {
        Act::Edit { id, values } => ("edit", id.as_str(), Value::Object(values.clone())),
        Act::Create { values } => ("create", "", Value::Object(values.clone())),
        Act::Delete { id } => ("delete", id.as_str(), Value::Null),
        Act::Undelete { id } => ("undelete", id.as_str(), Value::Null),
        Act::Merge { id, into } => ("merge", id.as_str(), Value::object([("MasterRecordId", Value::text(into))])),
    };
    Line {
        entity,
        key: done.as_ref().map_or_else(|_| key.to_owned(), |(id, ..)| id.clone()),
        external_id: None,
        operation,
        values,
        result: done.as_ref().map(|(_, outcome, _)| *outcome).map_err(Clone::clone),
    }
    .record(desk);
    let (id, _, cascades) = done?;
    for line in cascades.into_iter().map(cascade) {
        line.record(desk);
    }
    Ok(id)
}
