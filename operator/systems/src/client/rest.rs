//! Reading by plain requests, as the definition words them: pages by parameters that answers hand out, increments by `{{cursor}}`.

use super::credentials::invalid;
use super::line::{Call, Line};
use super::query::{bad_cursor, no_id, unexpected};
use super::types::{NativeRecord, Page};
use crate::decode;
use crate::definition::Entity;
use crate::definition::format::{GetFormat, ReadFormat, RequestFormat, SearchFormat};
use crate::definition::path::AnswerPath;
use crate::reason;
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

/// The most times that a pass is begun anew.
const MOST_AGAIN: u32 = 8;

/// So far behind UTC may the clock be that spells a moment without its zone.
const WESTMOST: Duration = Duration::from_secs(12 * 3600);

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
    /// So often the mark that led to the next page was good no more, and the pass was begun anew.
    #[serde(default)]
    again: u32,
}

/// How a stamp spells a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// With its zone.
    Zoned,
    /// Without one, and nobody says which is meant; perhaps to the minute or the day only.
    Bare,
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Millis,
}

/// The moment that `stamp` spells. A number of a likely size is one where a lag is to be taken from it: without, it may as well count changes.
fn moment(stamp: &str, lag: Duration) -> Option<(Timestamp, Spelling)> {
    if let Some(at) = Timestamp::parse(stamp) {
        return Some((at, Spelling::Zoned));
    }
    if let Some(at) = ["Z", ":00Z", "T00:00:00Z"].iter().find_map(|rest| Timestamp::parse(&format!("{stamp}{rest}"))) {
        return Some((at, Spelling::Bare));
    }
    let number: i64 = stamp.parse().ok().filter(|_| !lag.is_zero())?;
    // From 2001 on, for two hundred years.
    match number {
        1_000_000_000..10_000_000_000 => Some((Timestamp(number * 1000), Spelling::Seconds)),
        1_000_000_000_000..10_000_000_000_000 => Some((Timestamp(number), Spelling::Millis)),
        _ => None,
    }
}

/// `stamp` less the lag, as it is spelled; `None` where there is a lag and the stamp is no moment.
fn less(stamp: &str, lag: Duration) -> Option<String> {
    let Some((at, spelling)) = moment(stamp, lag) else { return lag.is_zero().then(|| stamp.to_owned()) };
    let at = Timestamp(at.0.saturating_sub(i64::try_from(lag.as_millis()).unwrap_or(i64::MAX)));
    Some(match spelling {
        Spelling::Zoned => at.to_rfc3339(),
        Spelling::Bare if lag.is_zero() => stamp.to_owned(),
        // As far as the stamp goes: the rest of a second, of a minute, of a day is read once more.
        Spelling::Bare => {
            let mut text: String = at.to_rfc3339().trim_end_matches('Z').chars().take(stamp.len()).collect();
            if stamp.as_bytes().get(10) == Some(&b' ') {
                text.replace_range(10..11, " ");
            }
            text
        }
        Spelling::Seconds => at.0.div_euclid(1000).to_string(),
        Spelling::Millis => at.0.to_string(),
    })
}

/// Whether `stamp` is surely from before `began`, by the vendor's own clock.
fn is_before(stamp: &str, lag: Duration, began: Timestamp) -> bool {
    moment(stamp, lag).is_some_and(|(at, spelling)| {
        let ahead = if spelling == Spelling::Bare { WESTMOST } else { Duration::ZERO };
        at.plus(ahead).plus(SKEW) <= began
    })
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
    let (answer, mut body) = match line.json(&call).await {
        Ok(answered) => answered,
        // The marks that lead from page to page may be good for a while only. A page that is refused each time is not asked for for ever.
        Err(error) if !position.next.is_empty() && is_refused(&error) => {
            if position.again >= MOST_AGAIN {
                let text = format!(
                    "{}; so it did after the list had been begun anew {MOST_AGAIN} times: see why it refuses a page that it has named itself, then set this participant's checkpoint (fairlead state set-checkpoint)",
                    error.message
                );
                return Err(RemoteError { message: text, ..error });
            }
            let anew = Position { from: position.from, again: position.again + 1, ..Position::default() };
            return Ok(Page { records: Vec::new(), cursor: written(&anew)?, caught_up: false, unusable: Vec::new() });
        }
        Err(error) => return Err(error),
    };
    let next: BTreeMap<String, String> = read.next.iter().filter_map(|(name, path)| Some((name.clone(), path.text(&body)?))).collect();
    let next: BTreeMap<String, String> = next.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let items = take_items(read.records.as_ref(), &mut body, &call.what)?;
    let stamps: Vec<String> = read.cursor.iter().flat_map(|cursor| items.iter().filter_map(|item| cursor.field.text(item))).collect();
    let stamp = stamps.first().cloned();
    let (mut records, mut unusable) = (Vec::new(), Vec::new());
    for (at, item) in items.into_iter().enumerate() {
        match record(entity, item) {
            Ok(record) => records.push(record),
            Err(item) => unusable.push(no_id(entity.name(), at, &item)),
        }
    }
    let lag = read.cursor.as_ref().map(|cursor| cursor.lag.0).unwrap_or_default();
    if read.cursor.is_some() {
        let begins = position.pages == 0;
        if begins {
            position.began = answer.date();
        }
        // Lists need not be ordered: the newest stamp counts, and only once the pass has ended. It must not be newer than the pass's
        // beginning, or a record that was read first and changed meanwhile would lie before it. The first page shows nothing newer; of
        // later pages counts what is older by the vendor's own clock. Without them a list that begins with its oldest records would be read
        // from its second page on, then from its third, and so on.
        let old = |stamp: &str| position.began.is_some_and(|began| is_before(stamp, lag, began));
        let usable = |stamp: &str| lag.is_zero() || moment(stamp, lag).is_some();
        let stamps = stamps.into_iter().filter(|stamp| (begins || old(stamp)) && usable(stamp));
        position.newest = stamps.chain(position.newest).max_by_key(|stamp| order(stamp));
    }
    if !next.is_empty() && next == position.next {
        return Err(unexpected(format!("{} answers the same page again and again", line.definition.system())));
    }
    let caught_up = next.is_empty();
    let position = if caught_up {
        let from = position.newest.as_deref().and_then(|stamp| less(stamp, lag));
        if let Some(stamp) = stamp.filter(|_| from.is_none() && position.from.is_none()) {
            tracing::warn!(system = line.definition.system(), entity = entity.name(), %stamp, "no record has a stamp that a lag can be taken from, so all of them are read each time: leave cursor.lag out, or name a field of moments");
        }
        // Never back: everything from before this pass's beginning has been seen, and a stamp that is none must not move the cursor.
        Position { from: from.into_iter().chain(position.from).max_by_key(|stamp| order(stamp)), ..Position::default() }
    } else {
        Position { next, pages: position.pages + 1, ..position }
    };
    Ok(Page { records, cursor: written(&position)?, caught_up, unusable })
}

fn written(position: &Position) -> Result<Value, RemoteError> {
    serde_json::to_value(position).map_err(|_| unexpected("the cursor cannot be written"))
}

/// Whether the vendor does not take a request as it stands. What is refused on this side (a Secret that is not there) says nothing of the mark.
fn is_refused(error: &RemoteError) -> bool {
    let theirs = [reason::VALIDATION_FAILED, reason::UNEXPECTED_RESPONSE, reason::VERSION_RETIRED];
    match error.class {
        ErrorClass::NotFound | ErrorClass::Conflict => true,
        ErrorClass::Configuration => theirs.contains(&error.reason.as_str()),
        _ => false,
    }
}

/// Stamps in order: moments by time, anything else by number or text.
fn order(stamp: &str) -> (i64, String) {
    let number = Timestamp::parse(stamp).map(|moment| moment.0).or_else(|| stamp.parse().ok());
    (number.unwrap_or(0), stamp.to_owned())
}

/// A record as it came; given back where it is none, or has no id.
fn record(entity: &Entity, item: Value) -> Result<NativeRecord, Value> {
    let Some(id) = entity.format.key.text(&item) else { return Err(item) };
    let (version, modified) = decode::stamp(entity.format.modified.as_ref(), &item);
    let (body, raw) = entity.shape.record(item)?;
    Ok(NativeRecord { id: ExternalId(id), version, modified, deleted: false, merged_into: None, body, raw })
}

/// The list of records in an answer.
fn take_items(place: Option<&AnswerPath>, body: &mut Value, what: &str) -> Result<Vec<Value>, RemoteError> {
    match place.and_then(|place| place.get_mut(body)).map(Value::take) {
        Some(Value::Array(items)) => Ok(items),
        _ => Err(unexpected(format!("the answer to {what} holds no list of records"))),
    }
}

/// One record by its id; `None` where there is none.
pub(crate) async fn get(line: &Line, entity: &Entity, get: &GetFormat, id: &str) -> Result<Option<NativeRecord>, RemoteError> {
    let call: Call = line.call(format!("reading one {}", entity.name()), &get.request, &[("id", id)], false)?;
    let mut body = match line.json(&call).await {
        Ok((_, body)) => body,
        Err(error) if error.class == ErrorClass::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let item =
        get.record.get_mut(&mut body).map(Value::take).ok_or_else(|| unexpected(format!("the answer to {} holds no record", call.what)))?;
    record(entity, item).map(Some).map_err(|_| unexpected(format!("a record of {} has no id", entity.name())))
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
    let (_, mut body) = line.json(&call).await?;
    let items = take_items(Some(&search.records), &mut body, &call.what)?;
    let records = items.into_iter().map(|item| record(entity, item)).collect::<Result<Vec<_>, _>>();
    let mut records = records.map_err(|_| unexpected(format!("a record of {} has no id", entity.name())))?;
    records.retain(|record| criteria.iter().all(|(field, value)| document::get(&record.body, field) == Some(value)));
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_taken_from_a_stamp_as_the_vendor_spells_it() {
        let lag = Duration::from_secs(30);
        for (stamp, less_30) in [
            ("2026-05-06T10:00:05Z", "2026-05-06T09:59:35.000Z"),
            ("2026-05-06T10:00:05+02:00", "2026-05-06T07:59:35.000Z"),
            ("2026-05-06T10:00:05", "2026-05-06T09:59:35"),
            ("2026-05-06 10:00:05", "2026-05-06 09:59:35"),
            ("2026-05-06T10:00:05.250", "2026-05-06T09:59:35.250"),
            ("2026-05-06T10:00", "2026-05-06T09:59"),
            ("2026-05-06", "2026-05-05"),
            ("1778061605", "1778061575"),
            ("1778061605250", "1778061575250"),
        ] {
            assert_eq!(less(stamp, lag).as_deref(), Some(less_30));
            if !stamp.contains(['Z', '+']) {
                assert_eq!(less(stamp, Duration::ZERO).as_deref(), Some(stamp));
            }
        }
        for stamp in ["20260506", "1600", "v-17"] {
            assert_eq!((less(stamp, lag), less(stamp, Duration::ZERO).as_deref()), (None, Some(stamp)));
        }
    }

    #[test]
    fn a_stamp_without_a_zone_is_before_a_moment_wherever_it_was_spelled() {
        let began = Timestamp::parse("2026-05-06T10:00:00Z").unwrap();
        let is_before = |stamp: &str, lag: u64| super::is_before(stamp, Duration::from_secs(lag), began);
        assert!(is_before("2026-05-06T09:58:00Z", 0) && !is_before("2026-05-06T09:59:30Z", 0));
        assert!(is_before("2026-05-05T21:58:00", 0) && !is_before("2026-05-06T09:58:00", 0));
        assert!(is_before("1700000000", 30) && !is_before("1700000000", 0), "without a lag it may count changes");
        assert!(!is_before("1600", 30) && !is_before("20260506", 30));
    }
}
