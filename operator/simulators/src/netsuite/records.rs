//! `record/v1/{type}`: reading and writing records one at a time, and in batches where the request is asynchronous.
//!
//! Every write, accepted or not, is reported to the desk while the tables are held, so that the log has the order of the
//! effects. A batch is not atomic: each item succeeds or fails alone.

use super::auth;
use super::errors::Problem;
use super::paging::Paging;
use super::render::{self, View};
use super::schema::Entity;
use super::tables::{Record, Strictness, Tables};
use super::{CONTENT_TYPE, media_type};
use crate::core::log::{Attempt, Outcome};
use crate::core::value::{Fields, Value};
use crate::core::vendor::{Desk, Exchange, Reply, Request};
use chrono::{DateTime, Utc};
use http::Method;

/// The most records that one batch may carry.
const BATCH: usize = 100;

/// The media type that makes a body a batch.
const COLLECTION: &str = "application/vnd.oracle.resource+json; type=collection";

/// What a caller wants done to one record.
#[derive(Debug, Clone, Copy)]
pub(super) enum Intent<'a> {
    Create(&'a Fields),
    /// By internal id, or by `eid:`.
    Update(&'a str, &'a Fields),
    /// By external id.
    Upsert(&'a str, &'a Fields),
    /// By internal id, or by `eid:`.
    Delete(&'a str),
}

impl Intent<'_> {
    fn word(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Update(..) => "update",
            Self::Upsert(..) => "upsert",
            Self::Delete(_) => "delete",
        }
    }

    fn values(&self) -> Value {
        match self {
            Self::Create(body) | Self::Update(_, body) | Self::Upsert(_, body) => Value::Object((*body).clone()),
            Self::Delete(_) => Value::Null,
        }
    }

    /// The external id by which the caller names the record.
    fn external_id(&self) -> Option<&str> {
        match self {
            Self::Create(body) => body.get("externalId").and_then(Value::as_str),
            Self::Upsert(external, _) => Some(external),
            Self::Update(segment, _) | Self::Delete(segment) => segment.strip_prefix("eid:"),
        }
    }
}

/// Carries out one intent and reports it under `operation` (the intent's own word if none). `fails` keeps it from
/// happening. Answers the internal id.
pub(super) fn perform(
    tables: &mut Tables,
    desk: &Desk<'_>,
    entity: Entity,
    intent: Intent<'_>,
    operation: Option<&str>,
    strictness: &Strictness,
    fails: Option<Problem>,
) -> Result<u64, Problem> {
    let now = Utc::now();
    let known = match intent {
        Intent::Create(_) => None,
        Intent::Upsert(external, _) => tables.resolve(entity, &format!("eid:{external}")),
        Intent::Update(segment, _) | Intent::Delete(segment) => tables.resolve(entity, segment),
    };
    let absent = |segment: &str| Problem::absent(&format!("{} {segment}", entity.name()));
    let done = match (fails, intent, known) {
        (Some(problem), ..) => Err(problem),
        (None, Intent::Create(body), _) => tables.create(entity, body, None, strictness, now).map(|written| (written.id, Outcome::Created)),
        (None, Intent::Upsert(external, body), None) => {
            tables.create(entity, body, Some(external), strictness, now).map(|written| (written.id, Outcome::Created))
        }
        (None, Intent::Upsert(external, body), Some(id)) => {
            // The path names the record; a body cannot move it to another external id.
            let mut body = body.clone();
            body.insert("externalId".to_owned(), Value::text(external));
            updated(tables, entity, id, &body, strictness, now)
        }
        (None, Intent::Update(_, body), Some(id)) => updated(tables, entity, id, body, strictness, now),
        (None, Intent::Delete(_), Some(id)) => tables.delete(entity, id, now).map(|()| (id, Outcome::Deleted)),
        (None, Intent::Update(segment, _) | Intent::Delete(segment), None) => Err(absent(segment)),
    };
    let key = done.as_ref().ok().map(|(id, _)| *id).or(known).map(|id| id.to_string()).unwrap_or_default();
    desk.record(Attempt {
        entity: entity.name(),
        key: &key,
        external_id: intent.external_id(),
        operation: operation.unwrap_or(intent.word()),
        values: intent.values(),
        outcome: done.as_ref().map_or(Outcome::Rejected, |(_, outcome)| *outcome),
        code: done.as_ref().err().map(Problem::code),
    });
    done.map(|(id, _)| id)
}

fn updated(
    tables: &mut Tables,
    entity: Entity,
    id: u64,
    body: &Fields,
    strictness: &Strictness,
    now: DateTime<Utc>,
) -> Result<(u64, Outcome), Problem> {
    let written = tables.update(entity, id, body, strictness, now)?;
    Ok((written.id, if written.changed { Outcome::Updated } else { Outcome::Unchanged }))
}

/// What the request's headers and parameters ask of a write.
fn strictness(request: &Request) -> Result<Strictness, Problem> {
    let word = |name: &'static str, default: &'static str| {
        let word = request.header(name).unwrap_or(default).trim().to_ascii_lowercase();
        match word.as_str() {
            "error" | "warning" | "ignore" => Ok(word),
            _ => Err(Problem::header(name, format!("The header {name} must be Error, Warning or Ignore."))),
        }
    };
    Ok(Strictness {
        // A misspelt name is dropped without a word unless the caller asks for errors.
        names: word("X-NetSuite-PropertyNameValidation", "warning")? == "error",
        lenient_values: word("X-NetSuite-PropertyValueValidation", "error")? != "error",
        replace: request.parameter("replace").map(|list| list.split(',').map(|name| name.trim().to_owned()).collect()).unwrap_or_default(),
    })
}

fn object(request: &Request) -> Result<Fields, Problem> {
    match Value::parse(&request.body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Problem::new(400, "INVALID_CONTENT", "The request body must be a JSON object.")),
        Err(error) => Err(Problem::new(400, "INVALID_CONTENT", format!("The request body is not JSON: {error}."))),
    }
}

// === Writing ===

/// Answers a write to `record/v1/{type}...`. `asynchronous` lets it be a batch.
pub(super) fn write(
    exchange: &Exchange<'_>,
    tables: &mut Tables,
    entity: Entity,
    rest: &[&str],
    asynchronous: bool,
) -> Result<Reply, Problem> {
    let request = exchange.request;
    let strictness = strictness(request)?;
    let address = auth::address(request);
    let media = media_type(request);
    let many = media == COLLECTION.replace(' ', "") || (request.method == Method::DELETE && rest.is_empty());
    if many && rest.is_empty() {
        if !asynchronous {
            return Err(Problem::header("Prefer", "A batch must be asynchronous. Provide 'Prefer: respond-async'."));
        }
        return batch(exchange, tables, entity, &strictness, &address);
    }
    if request.method != Method::DELETE
        && !media.is_empty()
        && !media.starts_with("application/json")
        && !media.starts_with("application/vnd.oracle.resource+json")
    {
        return Err(Problem::new(415, "INVALID_HEADER", format!("The media type {media} is not supported.")));
    }
    let body = if request.method == Method::DELETE { Fields::new() } else { object(request)? };
    let intent = match (&request.method, rest) {
        (&Method::POST, []) => Intent::Create(&body),
        (&Method::PATCH, [segment]) => Intent::Update(segment, &body),
        (&Method::PUT, [segment]) => match segment.strip_prefix("eid:") {
            Some(external) if !external.is_empty() => Intent::Upsert(external, &body),
            _ => return Err(Problem::new(400, "INVALID_CONTENT", "PUT takes an external ID: record/v1/{type}/eid:{externalId}.")),
        },
        (&Method::DELETE, [segment]) => Intent::Delete(segment),
        (method, []) => return Err(Problem::method(method, "GET, POST")),
        (method, _) => return Err(Problem::method(method, "GET, PATCH, PUT, DELETE")),
    };
    let fails = exchange.item_fails(0).then(|| failure(exchange));
    let id = perform(tables, &exchange.desk, entity, intent, None, &strictness, fails)?;
    let reply = Reply::empty(204);
    Ok(match intent {
        Intent::Delete(_) => reply,
        _ => reply.with("location", render::url(&address, entity.name(), id)),
    })
}

/// What an item says that a fault script makes fail.
fn failure(exchange: &Exchange<'_>) -> Problem {
    let code = exchange.partial.and_then(|partial| partial.code.as_deref()).unwrap_or("UNEXPECTED_ERROR");
    let status = match code {
        "UNEXPECTED_ERROR" => 500,
        "CONCURRENCY_LIMIT_EXCEEDED" | "REQUEST_LIMIT_EXCEEDED" => 429,
        _ => 400,
    };
    Problem::new(status, code, "An error has occurred while this record was processed.")
}

fn batch(exchange: &Exchange<'_>, tables: &mut Tables, entity: Entity, strictness: &Strictness, address: &str) -> Result<Reply, Problem> {
    let request = exchange.request;
    let ids: Vec<String> = request.parameter("ids").map(|ids| ids.split(',').map(|id| id.trim().to_owned()).collect()).unwrap_or_default();
    let items: Vec<Fields> = match request.method {
        Method::DELETE => vec![Fields::new(); ids.len()],
        Method::POST | Method::PATCH | Method::PUT => object(request)?
            .get("items")
            .and_then(Value::as_list)
            .ok_or_else(|| Problem::content("items", "A batch has the property 'items'."))?
            .iter()
            .map(|item| item.as_object().cloned().unwrap_or_default())
            .collect(),
        _ => return Err(Problem::method(&request.method, "POST, PATCH, PUT, DELETE")),
    };
    if items.is_empty() || items.len() > BATCH {
        return Err(Problem::content("items", format!("A batch has between 1 and {BATCH} records, not {}.", items.len())));
    }
    let text = |item: &Fields, name: &str| match item.get(name) {
        Some(Value::Text(text)) => Some(text.clone()),
        Some(Value::Number(token)) => Some(token.clone()),
        _ => None,
    };
    let mut outcomes = Vec::new();
    for (position, item) in items.iter().enumerate() {
        let external = text(item, "externalId");
        let segment = text(item, "id").or_else(|| external.as_ref().map(|external| format!("eid:{external}")));
        let intent = match (&request.method, &segment, &external) {
            (&Method::POST, ..) => Some(Intent::Create(item)),
            (&Method::PATCH, Some(segment), _) => Some(Intent::Update(segment, item)),
            (&Method::PUT, _, Some(external)) => Some(Intent::Upsert(external, item)),
            (&Method::DELETE, ..) => ids.get(position).map(|id| Intent::Delete(id)),
            _ => None,
        };
        let fails = exchange.item_fails(position).then(|| failure(exchange));
        let done = match intent {
            Some(intent) => perform(tables, &exchange.desk, entity, intent, None, strictness, fails),
            None => Err(Problem::content(format!("items[{position}]"), "The item names no record: id or externalId is required.")),
        };
        outcomes.push(match done {
            Ok(id) => {
                Value::object([("links", render::links(render::url(address, entity.name(), id))), ("id", Value::text(id.to_string()))])
            }
            Err(problem) => problem.body(),
        });
    }
    let mut body = Fields::from_iter([("links".to_owned(), Value::List(Vec::new()))]);
    body.extend(render::collection(outcomes.len(), 0, false, outcomes.len()));
    body.insert("items".to_owned(), Value::List(outcomes));
    Ok(Reply::json(200, "application/vnd.oracle.resource+json; type=collection", &Value::Object(body)))
}

// === Reading ===

/// Answers `GET record/v1/{type}...` as of `moment` (now if none).
pub(super) fn read(
    request: &Request,
    tables: &Tables,
    entity: Entity,
    rest: &[&str],
    moment: Option<DateTime<Utc>>,
) -> Result<Reply, Problem> {
    let address = auth::address(request);
    let flag = |name: &str| request.parameter(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let view = View {
        address: Some(&address),
        expand: flag("expandSubResources"),
        only: request
            .parameter("fields")
            .map(|list| list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect())
            .unwrap_or_default(),
    };
    let find = |segment: &str| {
        let id = tables.resolve(entity, segment);
        id.and_then(|id| tables.get(entity, id, moment)).ok_or_else(|| Problem::absent(&format!("{} {segment}", entity.name())))
    };
    match rest {
        [] => list(request, tables, entity, moment, &view, flag("expandRecords")),
        [segment] => {
            let record = render::record(tables, entity, find(segment)?, &view);
            Ok(Reply::json(200, "application/vnd.oracle.resource+json; type=singular", &record))
        }
        [segment, "addressBook"] if entity == Entity::Customer => {
            let record = find(segment)?;
            Ok(Reply::json(200, CONTENT_TYPE, &render::addresses(record, Some(&address))))
        }
        _ => Err(Problem::unknown_type(&rest.join("/"))),
    }
}

/// Without `expandRecords` a list has ids and links only.
fn list(
    request: &Request,
    tables: &Tables,
    entity: Entity,
    moment: Option<DateTime<Utc>>,
    view: &View<'_>,
    expand: bool,
) -> Result<Reply, Problem> {
    let paging = Paging::of(request)?;
    let address = view.address.unwrap_or_default();
    let path = format!("{address}{}", request.path);
    if request.parameter("q").is_some_and(|q| !q.trim().is_empty()) {
        return Err(Problem::parameter("q", "The simulated account has no record collection filter; filter with SuiteQL instead."));
    }
    let found: Vec<&std::sync::Arc<Record>> = match request.parameter("ids") {
        Some(ids) => ids.split(',').filter_map(|segment| tables.get(entity, tables.resolve(entity, segment.trim())?, moment)).collect(),
        None => tables.all(entity, moment).collect(),
    };
    let total = found.len();
    let range = paging.range();
    let shown = found.into_iter().skip(range.start).take(range.len()).map(|record| {
        if expand {
            return render::record(tables, entity, record, view);
        }
        let href = render::url(address, entity.name(), record.id);
        Value::object([("links", render::links(href)), ("id", Value::text(record.id.to_string()))])
    });
    let items = shown.collect();
    Ok(Reply::json(200, CONTENT_TYPE, &paging.envelope(&path, items, total)))
}
