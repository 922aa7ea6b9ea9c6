//! Reading by plain requests, as the definition words them: pages by parameters that answers hand out, increments by `{{cursor}}`.

use super::credentials::invalid;
use super::line::{Call, Line};
use super::query::{bad_cursor, no_id, unexpected};
use super::types::{NativeRecord, Page};
use crate::decode::{self, Types};
use crate::definition::Entity;
use crate::definition::format::{CursorFormat, GetFormat, ReadFormat, RequestFormat, SearchFormat};
use fairlead_model::{ErrorClass, ExternalId, FieldPath, RemoteError, Timestamp, document};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// The most pages of one pass.
const MAX_PAGES: u32 = 100_000;

/// How far the clock in the vendor's answers may be ahead of the one that stamps its records.
const SKEW: Duration = Duration::from_secs(60);

/// Where a reader stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Position {
    /// What `{{cursor}}` is in this pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// The newest stamp from before this pass began: where the next pass may safely begin, but for the lag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    newest: Option<String>,
    /// The vendor's clock when it answered the pass's first page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    began: Option<Timestamp>,
    /// The parameters of the next page.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    next: BTreeMap<String, String>,
    #[serde(default)]
    pages: u32,
}

/// Reads one page.
pub(crate) async fn read(
    line: &Line,
    entity: &Entity,
    read: &ReadFormat,
    request: &RequestFormat,
    cursor: Option<&Value>,
    deadline: Instant,
) -> Result<Page, RemoteError> {
    let mut position = match cursor {
        Some(cursor) => serde_json::from_value::<Position>(cursor.clone()).map_err(|_| bad_cursor())?,
        None => Position::default(),
    };
    if position.pages >= MAX_PAGES {
        return Err(unexpected("the list of records does not end"));
    }
    let from = position.from.clone().unwrap_or_default();
    let mut call = line.call(format!("the list of {}", entity.name()), request, &[("cursor", &from)], false)?;
    call.deadline = deadline;
    for (name, value) in &position.next {
        call.query.retain(|(known, _)| known != name);
        call.query.push((name.clone(), value.clone()));
    }
    let (answer, body) = line.json(&call).await?;
    let items = read.records.as_ref().and_then(|path| path.get(&body)).and_then(Value::as_array);
    let items = items.ok_or_else(|| unexpected(format!("the answer to {} holds no list of records", call.what)))?;
    let types = Types::of(&entity.format.fields);
    let (mut records, mut unusable) = (Vec::new(), Vec::new());
    for (at, item) in items.iter().enumerate() {
        match record(entity, &types, item) {
            Some(record) => records.push(record),
            None => unusable.push(no_id(entity.name(), at, item)),
        }
    }
    if let Some(CursorFormat { field, .. }) = &read.cursor {
        let begins = position.pages == 0;
        if begins {
            position.began = answer.date();
        }
        // Lists need not be ordered: the newest stamp counts, and only once the pass has ended. It must not be newer than the pass's
        // beginning, or a record that was read first and changed meanwhile would lie before it. The first page shows nothing newer; of
        // later pages counts what is older by the vendor's own clock. Without them a list that begins with its oldest records would be read
        // from its second page on, then from its third, and so on.
        let old = |stamp: &str| {
            let moments = position.began.zip(Timestamp::parse(stamp));
            moments.is_some_and(|(began, moment)| moment.plus(SKEW) <= began)
        };
        let stamps = items.iter().filter_map(|item| field.text(item)).filter(|stamp| begins || old(stamp));
        position.newest = stamps.chain(position.newest).max_by_key(|stamp| order(stamp));
    }
    let next: BTreeMap<String, String> = read.next.iter().filter_map(|(name, path)| Some((name.clone(), path.text(&body)?))).collect();
    let next: BTreeMap<String, String> = next.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    if !next.is_empty() && next == position.next {
        return Err(unexpected(format!("{} answers the same page again and again", line.definition.system())));
    }
    let caught_up = next.is_empty();
    let position = if caught_up {
        let lag = read.cursor.as_ref().map(|cursor| cursor.lag.0).unwrap_or_default();
        let from = position.newest.as_deref().map(|stamp| match Timestamp::parse(stamp) {
            Some(moment) => Timestamp(moment.0.saturating_sub(i64::try_from(lag.as_millis()).unwrap_or(0))).to_rfc3339(),
            None => stamp.to_owned(),
        });
        // Never back: everything from before this pass's beginning has been seen, and a stamp that is none must not move the cursor.
        Position { from: from.into_iter().chain(position.from).max_by_key(|stamp| order(stamp)), ..Position::default() }
    } else {
        Position { next, pages: position.pages + 1, ..position }
    };
    let cursor = serde_json::to_value(&position).map_err(|_| unexpected("the cursor cannot be written"))?;
    Ok(Page { records, cursor, caught_up, unusable })
}

/// Stamps in order: moments by time, anything else by number or text.
fn order(stamp: &str) -> (i64, String) {
    let number = Timestamp::parse(stamp).map(|moment| moment.0).or_else(|| stamp.parse().ok());
    (number.unwrap_or(0), stamp.to_owned())
}

fn record(entity: &Entity, types: &Types, item: &Value) -> Option<NativeRecord> {
    let id = entity.format.key.text(item)?;
    let (version, modified) = decode::stamp(entity.format.modified.as_ref(), item);
    let raw = item.to_string();
    let Value::Object(body) = types.apply("", item.clone()) else { return None };
    Some(NativeRecord { id: ExternalId(id), version, modified, deleted: false, merged_into: None, body, raw })
}

/// One record by its id; `None` where there is none.
pub(crate) async fn get(line: &Line, entity: &Entity, get: &GetFormat, id: &str) -> Result<Option<NativeRecord>, RemoteError> {
    let call: Call = line.call(format!("reading one {}", entity.name()), &get.request, &[("id", id)], false)?;
    let body = match line.json(&call).await {
        Ok((_, body)) => body,
        Err(error) if error.class == ErrorClass::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let item = get.record.get(&body).ok_or_else(|| unexpected(format!("the answer to {} holds no record", call.what)))?;
    record(entity, &Types::of(&entity.format.fields), item)
        .map(Some)
        .ok_or_else(|| unexpected(format!("a record of {} has no id", entity.name())))
}

/// Records by the value of a field; further criteria are compared here.
pub(crate) async fn search(
    line: &Line,
    entity: &Entity,
    search: &SearchFormat,
    criteria: &[(FieldPath, Value)],
) -> Result<Vec<NativeRecord>, RemoteError> {
    let Some((field, value)) = criteria.first() else { return Err(invalid("a search needs at least one field")) };
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let values = [("field", field.to_string()), ("value", text)];
    let values: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut call = line.call(format!("the search for {}", entity.name()), &search.request, &values, false)?;
    call.values = true;
    let (_, body) = line.json(&call).await?;
    let items = search.records.get(&body).and_then(Value::as_array);
    let items = items.ok_or_else(|| unexpected(format!("the answer to {} holds no list of records", call.what)))?;
    let types = Types::of(&entity.format.fields);
    let records = items.iter().map(|item| record(entity, &types, item)).collect::<Option<Vec<_>>>();
    let mut records = records.ok_or_else(|| unexpected(format!("a record of {} has no id", entity.name())))?;
    records.retain(|record| criteria.iter().all(|(field, value)| document::get(&record.body, field) == Some(value)));
    Ok(records)
}
