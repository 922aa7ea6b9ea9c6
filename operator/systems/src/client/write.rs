//! Writing: items are sorted into the requests that the vendor offers, and each gets its own result, in its own place.
//!
//! A request that was sent and not answered, or answered with something unreadable, has an unknown outcome for every item in it.

use super::classify::Told;
use super::credentials::invalid;
use super::line::{Allowed, Call, Line, Path};
use super::transport::Answer;
use super::types::{WriteItem, WriteOperation, Written};
use crate::decode;
use crate::definition::Entity;
use crate::definition::format::{BatchFormat, ResultFormat, WriteFormat};
use crate::{encode, reason};
use fairlead_model::{Document, ErrorClass, ExternalId, RemoteError, document};
use futures::StreamExt;
use futures::stream;
use http::Method;
use serde_json::{Value, json};
use std::borrow::Cow;

/// Results by the position of their item.
type Results = Vec<(usize, Result<Written, RemoteError>)>;

/// What an item becomes on the wire.
struct Prepared<'a> {
    at: usize,
    item: &'a WriteItem,
    body: Cow<'a, Document>,
}

/// Writes all items; at most `concurrency` requests are under way at once.
pub(crate) async fn write(
    line: &Line,
    entity: &Entity,
    items: &[WriteItem],
    concurrency: usize,
    allowed: Option<&Allowed>,
) -> Vec<Result<Written, RemoteError>> {
    let mut results: Vec<Option<Result<Written, RemoteError>>> = items.iter().map(|_| None).collect();
    let mut prepared = Vec::new();
    for (at, item) in items.iter().enumerate() {
        match prepare(entity, item) {
            Ok(body) => prepared.push(Prepared { at, item, body }),
            Err(error) => place(&mut results, at, Err(error)),
        }
    }
    let requests = if entity.format.collections.is_some() {
        collections(line, entity, prepared, allowed)
    } else {
        singles(line, entity, prepared, allowed)
    };
    let mut running = stream::iter(requests).buffer_unordered(concurrency.max(1));
    while let Some(done) = running.next().await {
        for (at, result) in done {
            place(&mut results, at, result);
        }
    }
    let forgotten = || Err(invalid(format!("{} offers no way to write this item", entity.name())));
    results.into_iter().map(|result| result.unwrap_or_else(forgotten)).collect()
}

fn place(results: &mut [Option<Result<Written, RemoteError>>], at: usize, result: Result<Written, RemoteError>) {
    if let Some(slot) = results.get_mut(at) {
        *slot = Some(result);
    }
}

/// Checks an item against the definition, and lays the fields over it that make a record inactive, or active again.
fn prepare<'a>(entity: &Entity, item: &'a WriteItem) -> Result<Cow<'a, Document>, RemoteError> {
    let refuse = |why: String| Err(invalid(format!("{} of {}: {why}", item.operation.word(), entity.name())));
    if item.operation != WriteOperation::Create && item.id.is_none() {
        return refuse("the record's id is not known".into());
    }
    if let Some((field, value)) = &item.key {
        if !entity.key_fields().contains(field) {
            return refuse(format!("{field} is not a correlation field of the definition"));
        }
        if value.is_empty() {
            return refuse(format!("the value for {field} is empty"));
        }
    }
    let fields = match item.operation {
        WriteOperation::Archive if entity.format.archive.is_empty() => {
            return refuse("the definition does not say how a record is archived".into());
        }
        WriteOperation::Archive => entity.format.archive.clone(),
        WriteOperation::Reactivate => match entity.reactivation() {
            Some(fields) => fields,
            None => return refuse("the definition does not say how an archived record becomes active again".into()),
        },
        WriteOperation::Create | WriteOperation::Update | WriteOperation::Delete => return Ok(Cow::Borrowed(&item.body)),
    };
    let mut body = item.body.clone();
    for (field, value) in fields {
        document::set(&mut body, &field, value);
    }
    Ok(Cow::Owned(body))
}

type Request<'a> = futures::future::BoxFuture<'a, Results>;

fn all<'a>(items: &[Prepared<'a>], error: &RemoteError) -> Results {
    items.iter().map(|prepared| (prepared.at, Err(error.clone()))).collect()
}

fn unknown(line: &Line, what: &str, why: &str) -> RemoteError {
    let text = format!("{} answered {what}, but {why}; it is looked up before it is sent again", line.definition.system());
    RemoteError::new(ErrorClass::UnknownOutcome, reason::OUTCOME_UNKNOWN, text)
}

// === sObject Collections ===

/// Which collection request an item belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Group {
    Upsert(String),
    Insert,
    Update,
    Delete,
}

fn collections<'a>(line: &'a Line, entity: &'a Entity, items: Vec<Prepared<'a>>, allowed: Option<&'a Allowed>) -> Vec<Request<'a>> {
    let max = entity.batch_max();
    let mut groups: Vec<(Group, Vec<Prepared<'a>>)> = Vec::new();
    for prepared in items {
        let group = match (prepared.item.operation, &prepared.item.key) {
            (WriteOperation::Create, Some((field, _))) => Group::Upsert(field.to_string()),
            (WriteOperation::Create, None) => Group::Insert,
            (WriteOperation::Update | WriteOperation::Archive | WriteOperation::Reactivate, _) => Group::Update,
            (WriteOperation::Delete, _) => Group::Delete,
        };
        // A request may not name one record twice; a second item for it goes into a request of its own.
        let taken = |chunk: &Vec<Prepared<'a>>| chunk.iter().any(|other| other.item.id.is_some() && other.item.id == prepared.item.id);
        match groups.iter_mut().find(|(known, chunk)| *known == group && chunk.len() < max && !taken(chunk)) {
            Some((_, chunk)) => chunk.push(prepared),
            None => groups.push((group, vec![prepared])),
        }
    }
    groups.into_iter().map(|(group, chunk)| -> Request<'a> { Box::pin(collection(line, entity, group, chunk, allowed)) }).collect()
}

async fn collection(line: &Line, entity: &Entity, group: Group, chunk: Vec<Prepared<'_>>, allowed: Option<&Allowed>) -> Results {
    let name = entity.name();
    let (word, method, path) = match &group {
        Group::Upsert(field) => ("create", Method::PATCH, format!("/composite/sobjects/{name}/{field}")),
        Group::Insert => ("create", Method::POST, "/composite/sobjects".to_owned()),
        Group::Update => ("update", Method::PATCH, "/composite/sobjects".to_owned()),
        Group::Delete => ("delete", Method::DELETE, "/composite/sobjects".to_owned()),
    };
    let what = format!("the {word} of {} {name}", chunk.len());
    let id = |prepared: &Prepared<'_>| prepared.item.id.as_ref().map(|id| id.0.clone()).unwrap_or_default();
    let (query, body) = if group == Group::Delete {
        let ids: Vec<String> = chunk.iter().map(id).collect();
        (vec![("ids".to_owned(), ids.join(",")), ("allOrNone".to_owned(), "false".to_owned())], None)
    } else {
        let records = chunk.iter().map(|prepared| {
            let mut extra = vec![("attributes", json!({ "type": name }))];
            match (&group, &prepared.item.key) {
                (Group::Upsert(field), Some((_, value))) => extra.push((field.as_str(), json!(value))),
                (Group::Update, _) => extra.push(("id", json!(id(prepared)))),
                _ => {}
            }
            encode::record(entity, &prepared.body, &extra)
        });
        let records: Vec<String> = records.collect();
        (Vec::new(), Some(format!("{{\"allOrNone\":false,\"records\":[{}]}}", records.join(","))))
    };
    let call = Call {
        what,
        method,
        path: Path::Base(path),
        query,
        headers: Vec::new(),
        body,
        write: true,
        values: true,
        deadline: line.soon(),
        allowed: allowed.cloned(),
        probe: false,
    };
    let answer = match line.json(&call).await {
        Ok((_, Value::Array(answer))) => answer,
        Ok(_) => return all(&chunk, &unknown(line, &call.what, "not with a list of results")),
        Err(error) => return all(&chunk, &error),
    };
    if answer.len() != chunk.len() {
        return all(&chunk, &unknown(line, &call.what, "not with one result for each record"));
    }
    let results = chunk.iter().zip(answer).map(|(prepared, answer)| (prepared.at, collection_item(line, entity, prepared, &answer)));
    own_trouble(results.collect())
}

/// A permission that is missing for some records of a request and not for others is about those records, not about their type.
fn own_trouble(mut results: Results) -> Results {
    let missing = |result: &Result<Written, RemoteError>| result.as_ref().is_err_and(|error| error.class == ErrorClass::Permission);
    if results.iter().all(|(_, result)| missing(result)) {
        return results;
    }
    for (_, result) in &mut results {
        if let Err(error) = result
            && error.class == ErrorClass::Permission
        {
            error.class = ErrorClass::Data;
        }
    }
    results
}

fn collection_item(line: &Line, entity: &Entity, prepared: &Prepared<'_>, answer: &Value) -> Result<Written, RemoteError> {
    let what = format!("the {} of {}", prepared.item.operation.word(), entity.name());
    let id = answer.get("id").and_then(Value::as_str).map(ExternalId::from).or_else(|| prepared.item.id.clone());
    match (answer.get("success").and_then(Value::as_bool), id) {
        (Some(true), Some(id)) => {
            // An insert is not marked: only an upsert tells whether it created.
            let created = answer.get("created").and_then(Value::as_bool).unwrap_or(prepared.item.operation == WriteOperation::Create);
            Ok(Written { id, version: None, created, answer: None })
        }
        (Some(false), _) => {
            let first = answer.get("errors").and_then(|errors| errors.get(0)).unwrap_or(&Value::Null);
            let text = |name: &str| first.get(name).and_then(Value::as_str).map(str::to_owned);
            let field = first.get("fields").and_then(|fields| fields.get(0)).and_then(Value::as_str).map(str::to_owned);
            Err(line.judge_item(&what, &Told { code: text("statusCode").or_else(|| text("errorCode")), message: text("message"), field }))
        }
        _ => Err(unknown(line, &what, "without saying whether it succeeded")),
    }
}

// === Requests that the definition words ===

fn singles<'a>(line: &'a Line, entity: &'a Entity, items: Vec<Prepared<'a>>, allowed: Option<&'a Allowed>) -> Vec<Request<'a>> {
    let mut requests: Vec<Request<'a>> = Vec::new();
    let mut batched = Vec::new();
    for prepared in items {
        // A batch makes or changes records by their own ids; anything else goes alone.
        let fits = entity.format.batch.is_some() && prepared.item.operation != WriteOperation::Delete;
        if fits {
            batched.push(prepared);
        } else {
            requests.push(Box::pin(single(line, entity, prepared, allowed)));
        }
    }
    if let Some(batch) = &entity.format.batch {
        while !batched.is_empty() {
            let rest = batched.split_off(batched.len().min(batch.max.max(1)));
            let chunk = std::mem::replace(&mut batched, rest);
            requests.push(Box::pin(batch_request(line, entity, batch, chunk, allowed)));
        }
    }
    requests
}

async fn single(line: &Line, entity: &Entity, prepared: Prepared<'_>, allowed: Option<&Allowed>) -> Results {
    let at = prepared.at;
    vec![(at, Box::pin(single_item(line, entity, &prepared, allowed)).await)]
}

/// The request for an item, if the definition words one.
fn choose<'a>(entity: &'a Entity, item: &WriteItem) -> Option<&'a WriteFormat> {
    let format = &entity.format;
    match item.operation {
        WriteOperation::Create if item.key.is_some() => format.upsert.as_ref().or(format.create.as_ref()),
        WriteOperation::Create => format.create.as_ref(),
        WriteOperation::Update | WriteOperation::Archive | WriteOperation::Reactivate => format.update.as_ref().or(format.upsert.as_ref()),
        WriteOperation::Delete => format.delete.as_ref(),
    }
}

async fn single_item(line: &Line, entity: &Entity, prepared: &Prepared<'_>, allowed: Option<&Allowed>) -> Result<Written, RemoteError> {
    let item = prepared.item;
    let what = format!("the {} of {}", item.operation.word(), entity.name());
    let format = choose(entity, item).ok_or_else(|| invalid(format!("{} offers no way for {what}", line.definition.system())))?;
    let id = item.id.as_ref().map(|id| id.0.clone()).unwrap_or_default();
    let key = item.key.as_ref().map_or_else(|| id.clone(), |(_, value)| value.clone());
    let mut call = line.call(what, &format.request, &[("id", &id), ("key", &key)], true)?;
    call.allowed = allowed.cloned();
    if let Some(template) = &format.request.body {
        // A key that does not travel in the path travels in the body.
        let in_path = crate::definition::template::names(&format.request.path).unwrap_or_default().iter().any(|name| name == "key");
        let field = item.key.as_ref().filter(|_| !in_path).map(|(field, value)| (field.to_string(), json!(value)));
        let extra: Vec<(&str, Value)> = field.iter().map(|(field, value)| (field.as_str(), value.clone())).collect();
        let record = encode::record(entity, &prepared.body, &extra);
        call.body = encode::body_text(template, &record, &format!("[{record}]"));
    }
    let answer = line.send(&call).await?;
    single_result(entity, &format.result, item, &answer).map_err(|why| unknown(line, &call.what, why))
}

fn single_result(entity: &Entity, format: &ResultFormat, item: &WriteItem, answer: &Answer) -> Result<Written, &'static str> {
    let needs_body = format.id.is_some() || format.version.is_some() || format.record.is_some();
    let body = match decode::json(&answer.body) {
        Ok(body) => body,
        Err(_) if answer.is_page() => return Err("with a web page"),
        Err(_) if needs_body && !answer.body.is_empty() => return Err("with something that is not JSON"),
        Err(_) => Value::Null,
    };
    let from_header = || {
        let header = answer.header(format.id_header.as_deref()?)?;
        let last = header.trim_end_matches('/').rsplit('/').next()?;
        let last = percent_encoding::percent_decode_str(last).decode_utf8().ok()?;
        (!last.is_empty() && !last.contains(':')).then(|| last.into_owned())
    };
    let told = format.id.as_ref().and_then(|path| path.text(&body)).or_else(from_header);
    let id = told.map(ExternalId).or_else(|| item.id.clone()).ok_or("without the id of the record")?;
    let created = match format.created_status {
        Some(status) => answer.status == status,
        None => item.operation == WriteOperation::Create,
    };
    let record = format.record.as_ref().and_then(|path| path.get(&body));
    let record = record.map(|record| entity.shape.typed(record));
    let version = format.version.as_ref().and_then(|path| path.text(&body));
    Ok(Written { id, version, created, answer: record.and_then(object) })
}

fn object(value: Value) -> Option<Document> {
    match value {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

async fn batch_request(line: &Line, entity: &Entity, batch: &BatchFormat, chunk: Vec<Prepared<'_>>, allowed: Option<&Allowed>) -> Results {
    let what = format!("the writing of {} {}", chunk.len(), entity.name());
    let mut call = match line.call(what, &batch.request, &[], true) {
        Ok(call) => call,
        Err(error) => return all(&chunk, &error),
    };
    call.allowed = allowed.cloned();
    let records: Vec<String> = chunk
        .iter()
        .map(|prepared| {
            let item = prepared.item;
            let key = item.key.as_ref().map(|(field, value)| (field.to_string(), json!(value)));
            let id = item.id.as_ref().filter(|_| item.operation != WriteOperation::Create);
            let id = id.and_then(|id| Some((key_name(entity)?, json!(id.0))));
            let extra: Vec<(&str, Value)> = key.iter().chain(id.iter()).map(|(name, value)| (name.as_str(), value.clone())).collect();
            encode::record(entity, &prepared.body, &extra)
        })
        .collect();
    let template = batch.request.body.as_deref().unwrap_or(".records");
    call.body = encode::body_text(template, "null", &format!("[{}]", records.join(",")));
    let body = match line.json(&call).await {
        Ok((_, body)) => body,
        Err(error) => return all(&chunk, &error),
    };
    let results = batch.results.get(&body).and_then(Value::as_array).filter(|results| results.len() == chunk.len());
    let Some(results) = results else {
        return all(&chunk, &unknown(line, &call.what, "not with one result for each record"));
    };
    let each = chunk.iter().zip(results).map(|(prepared, answer)| {
        let status = batch.result.status.as_ref().and_then(|path| path.text(answer));
        let good = batch.result.status.is_none() || status.as_ref().is_some_and(|status| batch.result.ok.contains(status));
        if !good {
            let places = &line.definition.format.error_body;
            let first = |paths: &[crate::definition::path::AnswerPath]| paths.iter().find_map(|path| path.text(answer));
            let told = Told { code: first(&places.code).or(status), message: first(&places.message), field: first(&places.field) };
            let what = format!("the {} of {}", prepared.item.operation.word(), entity.name());
            return (prepared.at, Err(line.judge_item(&what, &told)));
        }
        let id = batch.result.id.as_ref().and_then(|path| path.text(answer)).map(ExternalId).or_else(|| prepared.item.id.clone());
        let record = batch.result.record.as_ref().and_then(|path| path.get(answer)).map(|record| entity.shape.typed(record));
        let result = id.map(|id| Written {
            id,
            version: batch.result.version.as_ref().and_then(|path| path.text(answer)),
            created: prepared.item.operation == WriteOperation::Create,
            answer: record.and_then(object),
        });
        (prepared.at, result.ok_or_else(|| unknown(line, &call.what, "without the id of a record")))
    });
    each.collect()
}

/// The name of the id within a record, where it is a plain field.
fn key_name(entity: &Entity) -> Option<String> {
    let text = String::from(entity.format.key.clone());
    let name = text.trim_start_matches('.');
    (!name.is_empty() && !name.contains(['.', '['])).then(|| name.to_owned())
}
