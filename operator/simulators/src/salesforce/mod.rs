//! Salesforce: the REST API of one org, as a sync connector and public clients use it.
//!
//! Spoken: token endpoint (client credentials, JWT bearer), versions, limits, describe, SOQL with locators, single records
//! by id and external id, collections, `updated` and `deleted`. Not spoken: Bulk, Composite with references, Pub/Sub, SOAP.
//! A path may end with a slash. Every answer to an authenticated call carries `Sforce-Limit-Info`.
//!
//! Assumptions where the vendor's documents are silent, all of them on the strict side: an update without a difference moves
//! the stamps; the second of two records of one collection that name the same record fails; `AND` and `OR` do not mix.

mod auth;
mod dml;
mod errors;
mod ids;
mod org;
mod query;
mod schema;
mod soql;
mod writes;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use http::Method;
use indexmap::IndexMap;

use crate::Setting;
use crate::core::log::{Attempt, Outcome};
use crate::core::value::Value;
use crate::core::vendor::{Act, Class, Desk, Exchange, Operation, Refusal, Reply, Request, Vendor};
use auth::Auth;
use errors::ApiError;
use org::{Cursor, Org, Row, moment, stamp};
use query::Plan;
use schema::ENTITIES;

/// The content type of every answer.
const API: &str = "application/json;charset=UTF-8";

/// The newest API version that the org speaks, and the oldest.
const VERSIONS: std::ops::RangeInclusive<u32> = 31..=67;

/// Calls in 24 hours: Enterprise Edition with 15 licences.
const DAILY_CALLS: u64 = 115_000;

/// Rows on a page of a query, and the fewest that a client may ask for.
const PAGE: usize = 2_000;
const SMALLEST_PAGE: usize = 200;

/// Rows on a page where rows are wide: the platform sends fewer than it may, and only `done` tells the end.
const WIDE_PAGE: usize = 500;

/// The longest address and headers that the platform takes, in bytes.
const HEAD: usize = 16_384;

/// The most ids in one read by ids.
const READ_IDS: usize = 2_000;

/// One simulated org.
pub struct Salesforce {
    auth: Auth,
    org: Mutex<Org>,
}

impl Salesforce {
    /// An org that holds the companies of this setting.
    pub fn new(setting: &Setting) -> anyhow::Result<Self> {
        let org = Org::new(setting);
        let auth = Auth::new(&setting.endpoint, setting.seed, &org.id, &org.user)?;
        Ok(Self { auth, org: Mutex::new(org) })
    }

    fn org(&self) -> MutexGuard<'_, Org> {
        self.org.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer to a call under `/services/data/vXX.0`.
    fn data(&self, exchange: &Exchange<'_>, version: &str, rest: &[&str]) -> Result<Reply, ApiError> {
        let request = exchange.request;
        if head_size(request) > HEAD {
            return Err(ApiError::new(414, "URI_TOO_LONG", format!("URI and headers are longer than {HEAD} bytes")));
        }
        if !self.auth.admits(request) {
            return Err(ApiError::session());
        }
        let base = supported(version)?;
        let mut org = self.org();
        org.calls += 1;
        if org.calls > DAILY_CALLS {
            return Err(ApiError::new(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."));
        }
        let reply = route(&mut org, exchange, &base, rest);
        let usage = format!("api-usage={}/{DAILY_CALLS}", org.calls);
        let reply = reply.or_else(|error| {
            if classify(request).operation == Operation::Write {
                reject(exchange, &error);
            }
            Ok::<_, ApiError>(error.reply())
        })?;
        Ok(reply.with("sforce-limit-info", usage))
    }
}

impl Vendor for Salesforce {
    fn credentials(&self) -> IndexMap<String, String> {
        self.auth.credentials()
    }

    fn classify(&self, request: &Request) -> Class {
        let mut class = classify(request);
        if let ["services", "data", _, "query" | "queryAll", locator] = request.parts().as_slice() {
            let id = locator.split_once('-').map_or(*locator, |(id, _)| id);
            class.entity = self.org().cursor(id).map(|cursor| ENTITIES[cursor.plan.entity].name.to_owned());
        }
        class
    }

    fn answer(&self, exchange: &Exchange<'_>) -> Reply {
        let request = exchange.request;
        match (&request.method, request.parts().as_slice()) {
            (&Method::POST, ["services", "oauth2", "token"]) => self.auth.token(request),
            (&Method::POST, ["services", "oauth2", "revoke"]) => self.auth.revoke(request),
            (_, ["services", "oauth2", ..]) => ApiError::method().reply(),
            (&Method::GET, ["services", "data"]) => versions(),
            (_, ["services", "data", version, rest @ ..]) => self.data(exchange, version, rest).unwrap_or_else(|error| {
                // Refused before the org was looked at.
                if classify(request).operation == Operation::Write {
                    reject(exchange, &error);
                }
                error.reply()
            }),
            _ => ApiError::not_found().reply(),
        }
    }

    fn refuse(&self, request: &Request, refusal: Refusal) -> Reply {
        let token = request.parts().get(1) == Some(&"oauth2");
        match refusal {
            Refusal::Limit { retry_after } => {
                let reply = ApiError::new(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.").reply();
                let reply = reply.with("sforce-limit-info", format!("api-usage={DAILY_CALLS}/{DAILY_CALLS}"));
                // The vendor never sends it; a proxy in front of it may.
                retry_after.map_or(reply.clone(), |after| reply.with("retry-after", after.as_secs().to_string()))
            }
            Refusal::Status(status) if token && status < 500 => {
                let mut reply = auth::refused("invalid_grant", "authentication failure");
                reply.status = status;
                reply
            }
            Refusal::Status(status) => status_error(status).reply(),
            Refusal::Maintenance(status) => maintenance(status),
        }
    }

    fn expire_tokens(&self) {
        self.auth.expire();
    }

    fn records(&self, entity: &str) -> Option<Vec<Value>> {
        let entity = schema::entity(entity)?;
        let org = self.org();
        let present = org.tables[entity].rows.values().filter(|row| !row.deleted);
        Some(present.map(|row| plain(entity, row)).collect())
    }

    fn person(&self, entity: &str, act: &Act, desk: &Desk<'_>) -> Result<Value, String> {
        let entity = schema::entity(entity).ok_or_else(|| format!("there is no entity {entity:?}"))?;
        let mut org = self.org();
        let id = writes::person(&mut org, entity, act, desk).map_err(|error| format!("{}: {}", error.code, error.message))?;
        org.tables[entity].rows.get(&id).map(|row| plain(entity, row)).ok_or_else(|| "the record is gone".to_owned())
    }
}

/// A record without the `attributes` that the API adds.
fn plain(entity: usize, row: &Row) -> Value {
    match query::single(entity, row, None, "") {
        Value::Object(mut fields) => {
            fields.shift_remove("attributes");
            Value::Object(fields)
        }
        other => other,
    }
}

/// A write that was refused as a whole.
fn reject(exchange: &Exchange<'_>, error: &ApiError) {
    let class = classify(exchange.request);
    exchange.desk.record(Attempt {
        entity: class.entity.as_deref().unwrap_or_default(),
        key: "",
        external_id: None,
        operation: class.kind,
        values: Value::parse(&exchange.request.body).unwrap_or_default(),
        outcome: Outcome::Rejected,
        code: Some(&error.code),
    });
}

fn classify(request: &Request) -> Class {
    let class = |operation, kind, entity: Option<&str>| Class {
        operation,
        kind,
        entity: entity.map(|name| schema::entity(name).map_or(name, |entity| ENTITIES[entity].name).to_owned()),
    };
    let first_type = || {
        let body = Value::parse(&request.body).ok()?;
        let record = body.get("records")?.as_list()?.first()?;
        record.get("attributes")?.get("type")?.as_str().map(str::to_owned)
    };
    let (read, write) = (Operation::Read, Operation::Write);
    let parts = request.parts();
    let (Some("services"), rest) = (parts.first().copied(), parts.get(1..).unwrap_or_default()) else {
        return class(read, "other", None);
    };
    let method = request.method.as_str();
    match rest {
        ["oauth2", "token"] => class(Operation::Auth, "token", None),
        ["oauth2", ..] => class(Operation::Auth, "revoke", None),
        ["data"] => class(read, "versions", None),
        ["data", _, rest @ ..] => match (method, rest) {
            (_, []) => class(read, "resources", None),
            (_, ["limits"]) => class(read, "limits", None),
            (_, ["query" | "queryAll"]) => {
                let statement = request.parameter("q").and_then(|text| soql::parse(text).ok());
                class(read, "query", statement.as_ref().map(|statement| statement.from.text.as_str()))
            }
            (_, ["query" | "queryAll", _]) => class(read, "queryMore", None),
            (_, ["sobjects"]) => class(read, "sobjects", None),
            (_, ["sobjects", entity, "describe"]) => class(read, "describe", Some(entity)),
            (_, ["sobjects", entity, "updated"]) => class(read, "updated", Some(entity)),
            (_, ["sobjects", entity, "deleted"]) => class(read, "deleted", Some(entity)),
            ("POST", ["sobjects", entity]) => class(write, "create", Some(entity)),
            ("GET", ["sobjects", entity]) => class(read, "sobject", Some(entity)),
            ("GET", ["sobjects", entity, ..]) => class(read, "get", Some(entity)),
            ("PATCH", ["sobjects", entity, _]) => class(write, "update", Some(entity)),
            ("PATCH", ["sobjects", entity, _, _]) => class(write, "upsert", Some(entity)),
            ("DELETE", ["sobjects", entity, ..]) => class(write, "delete", Some(entity)),
            ("POST", ["composite", "sobjects"]) => class(write, "createCollection", first_type().as_deref()),
            ("PATCH", ["composite", "sobjects"]) => class(write, "updateCollection", first_type().as_deref()),
            ("PATCH", ["composite", "sobjects", entity, _]) => class(write, "upsertCollection", Some(entity)),
            ("DELETE", ["composite", "sobjects"]) => class(write, "deleteCollection", None),
            (_, ["composite", "sobjects", entity]) => class(read, "getCollection", Some(entity)),
            _ => class(read, "other", None),
        },
        _ => class(read, "other", None),
    }
}

fn route(org: &mut Org, exchange: &Exchange<'_>, base: &str, rest: &[&str]) -> Result<Reply, ApiError> {
    let request = exchange.request;
    let entity = |name: &str| schema::entity(name).ok_or_else(|| ApiError::new(404, "NOT_FOUND", "The requested resource does not exist"));
    match (request.method.as_str(), rest) {
        ("GET", []) => Ok(resources(base)),
        ("GET", ["limits"]) => Ok(limits(org)),
        ("GET", ["query"]) => start(org, exchange, base, false),
        ("GET", ["queryAll"]) => start(org, exchange, base, true),
        ("GET", ["query" | "queryAll", locator]) => more(org, base, locator),
        ("GET", ["sobjects"]) => {
            let entities = ENTITIES.iter().map(|entity| schema::summary(entity, base)).collect();
            Ok(answer(&Value::object([
                ("encoding", Value::text("UTF-8")),
                ("maxBatchSize", Value::int(200)),
                ("sobjects", Value::List(entities)),
            ])))
        }
        ("GET", ["sobjects", name]) => {
            let described = schema::summary(&ENTITIES[entity(name)?], base);
            Ok(answer(&Value::object([("objectDescribe", described), ("recentItems", Value::List(Vec::new()))])))
        }
        ("GET", ["sobjects", name, "describe"]) => describe(request, entity(name)?, base),
        ("GET", ["sobjects", name, "updated"]) => updated(org, request, entity(name)?),
        ("GET", ["sobjects", name, "deleted"]) => deleted(org, request, entity(name)?),
        ("POST", ["sobjects", name]) => writes::create(org, exchange, entity(name)?, base),
        ("GET", ["sobjects", name, id]) => get(org, exchange, entity(name)?, id, base),
        ("PATCH", ["sobjects", name, id]) => writes::update(org, exchange, entity(name)?, id),
        ("DELETE", ["sobjects", name, id]) => Ok(writes::delete(org, exchange, entity(name)?, id)),
        (method, ["sobjects", name, field, value]) => {
            let entity = entity(name)?;
            if method == "PATCH" {
                return writes::upsert(org, exchange, entity, field, value, base);
            }
            let found = org.matching(entity, writes::external(entity, field)?, value);
            match (method, found.as_slice()) {
                ("GET" | "DELETE", []) => Err(ApiError::not_found()),
                ("GET" | "DELETE", [_, _, ..]) => Ok(writes::several(entity, &found, base)),
                ("GET", [id]) => get(org, exchange, entity, id, base),
                ("DELETE", [id]) => Ok(writes::delete(org, exchange, entity, id)),
                _ => Err(ApiError::method()),
            }
        }
        ("POST", ["composite", "sobjects"]) => writes::collection(org, exchange, "create", None),
        ("PATCH", ["composite", "sobjects"]) => writes::collection(org, exchange, "update", None),
        ("DELETE", ["composite", "sobjects"]) => writes::delete_collection(org, exchange),
        ("PATCH", ["composite", "sobjects", name, field]) => {
            let entity = entity(name)?;
            let position = writes::external(entity, field)?;
            writes::collection(org, exchange, "upsert", Some((entity, position)))
        }
        ("GET" | "POST", ["composite", "sobjects", name]) => get_collection(org, exchange, entity(name)?, base),
        (_, [] | ["limits" | "query" | "queryAll" | "sobjects" | "composite", ..]) => Err(ApiError::method()),
        _ => Err(ApiError::not_found()),
    }
}

fn answer(body: &Value) -> Reply {
    Reply::json(200, API, body)
}

/// About how many bytes the request line and headers take.
fn head_size(request: &Request) -> usize {
    let encoded = |text: &str| {
        let plain = text.bytes().filter(|byte| byte.is_ascii_alphanumeric() || b"-._~,".contains(byte)).count();
        plain + (text.len() - plain) * 3
    };
    let query: usize = request.query.iter().map(|(name, value)| encoded(name) + encoded(value) + 2).sum();
    let headers: usize = request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    request.path.len() + query + headers
}

/// The base path of a version that the org speaks.
fn supported(version: &str) -> Result<String, ApiError> {
    let number = version.strip_prefix('v').and_then(|text| text.strip_suffix(".0")).and_then(|text| text.parse::<u32>().ok());
    match number {
        Some(number) if VERSIONS.contains(&number) => Ok(format!("/services/data/{version}")),
        Some(number) if number < *VERSIONS.start() => Err(ApiError::new(410, "UNSUPPORTED_API_VERSION", "This API version is retired.")),
        _ => Err(ApiError::not_found()),
    }
}

fn versions() -> Reply {
    let version = |number: u32| {
        // Three releases a year: v67.0 is Summer '26.
        let season = ["Spring", "Summer", "Winter"][usize::try_from(number % 3).unwrap_or_default()];
        Value::object([
            ("label", Value::Text(format!("{season} '{:02}", 4 + (number + 1) / 3))),
            ("url", Value::Text(format!("/services/data/v{number}.0"))),
            ("version", Value::Text(format!("{number}.0"))),
        ])
    };
    answer(&Value::List(VERSIONS.map(version).collect()))
}

fn resources(base: &str) -> Reply {
    let names = ["sobjects", "query", "queryAll", "limits", "composite"];
    answer(&Value::object(names.map(|name| (name, Value::Text(format!("{base}/{name}"))))))
}

fn limits(org: &Org) -> Reply {
    let limit = |max: u64, remaining: u64| Value::object([("Max", Value::int(max)), ("Remaining", Value::int(remaining))]);
    answer(&Value::object([
        ("DailyApiRequests", limit(DAILY_CALLS, DAILY_CALLS.saturating_sub(org.calls))),
        ("DailyBulkApiBatches", limit(15_000, 15_000)),
        ("DailyBulkV2QueryJobs", limit(10_000, 10_000)),
        ("DailyBulkV2QueryFileStorageMB", limit(976_562, 976_562)),
        ("DataStorageMB", limit(1_073, 1_024)),
        ("FileStorageMB", limit(1_073, 1_073)),
    ]))
}

/// The moment after which a stale reader knows nothing.
fn horizon(stale: Option<Duration>) -> Option<DateTime<Utc>> {
    Some(Utc::now() - TimeDelta::from_std(stale?).ok()?)
}

fn start(org: &mut Org, exchange: &Exchange<'_>, base: &str, deleted: bool) -> Result<Reply, ApiError> {
    let text = exchange.request.parameter("q").unwrap_or_default();
    let plan = Plan::new(text, deleted, Utc::now())?;
    let rows = query::run(org, &plan, horizon(exchange.stale));
    if plan.count {
        return Ok(answer(&Value::object([
            ("totalSize", Value::Number(rows.len().to_string())),
            ("done", Value::Bool(true)),
            ("records", Value::List(Vec::new())),
        ])));
    }
    let wanted = exchange.request.header("sforce-query-options").and_then(|options| {
        let size = options.split([',', ';']).find_map(|option| option.trim().strip_prefix("batchSize="))?;
        size.trim().parse::<usize>().ok()
    });
    let most = if plan.wide() { WIDE_PAGE } else { PAGE };
    let page = wanted.unwrap_or(PAGE).clamp(SMALLEST_PAGE, most);
    let cursor = Cursor { plan: Arc::new(plan), rows: Arc::new(rows), page };
    let id = if cursor.rows.len() > page { org.open(cursor.clone()) } else { String::new() };
    Ok(page_of(org, &cursor, &id, 0, base))
}

fn more(org: &Org, base: &str, locator: &str) -> Result<Reply, ApiError> {
    let gone = || ApiError::data("INVALID_QUERY_LOCATOR", "invalid query locator", &[]);
    let (id, offset) = locator.split_once('-').ok_or_else(gone)?;
    let offset: usize = offset.parse().map_err(|_| gone())?;
    let cursor = org.cursor(id).filter(|cursor| offset <= cursor.rows.len()).cloned().ok_or_else(gone)?;
    Ok(page_of(org, &cursor, id, offset, base))
}

fn page_of(org: &Org, cursor: &Cursor, id: &str, offset: usize, base: &str) -> Reply {
    let end = (offset + cursor.page).min(cursor.rows.len());
    let done = end == cursor.rows.len();
    let mut body = vec![("totalSize", Value::Number(cursor.rows.len().to_string())), ("done", Value::Bool(done))];
    if !done {
        body.push(("nextRecordsUrl", Value::Text(format!("{base}/query/{id}-{end}"))));
    }
    body.push(("records", query::page(org, &cursor.plan, &cursor.rows[offset..end], base)));
    answer(&Value::object(body))
}

fn describe(request: &Request, entity: usize, base: &str) -> Result<Reply, ApiError> {
    // The schema never changes while the simulator runs; this is when it was last changed.
    const CHANGED: &str = "Mon, 06 Jan 2025 08:00:00 GMT";
    if let Some(since) = request.header("if-modified-since") {
        let since =
            writes::http_date(since).ok_or_else(|| ApiError::new(400, "INVALID_HEADER", "If-Modified-Since is not an HTTP date"))?;
        if writes::http_date(CHANGED).is_some_and(|changed| changed <= since) {
            return Ok(Reply::empty(304));
        }
    }
    Ok(answer(&schema::describe(&ENTITIES[entity], base)).with("last-modified", CHANGED))
}

fn positions(entity: usize, names: impl Iterator<Item = impl AsRef<str>>) -> Result<Vec<usize>, ApiError> {
    let position = |name: &str| {
        ENTITIES[entity].position(name).ok_or_else(|| {
            let message = format!("No such column '{name}' on sobject of type {}", ENTITIES[entity].name);
            ApiError::data("INVALID_FIELD", message, &[])
        })
    };
    names.map(|name| position(name.as_ref().trim())).collect()
}

fn get(org: &Org, exchange: &Exchange<'_>, entity: usize, id: &str, base: &str) -> Result<Reply, ApiError> {
    let request = exchange.request;
    let fields = request.parameter("fields").map(|names| positions(entity, names.split(','))).transpose()?;
    let row = org.row(entity, id)?;
    let row = match horizon(exchange.stale) {
        Some(horizon) => row.at(horizon).ok_or_else(ApiError::not_found)?,
        None => row,
    };
    if let (Some(since), Some(at)) = (request.header("if-modified-since"), writes::modified(org, entity, id))
        && writes::http_date(since).is_some_and(|since| at <= since)
    {
        return Ok(Reply::empty(304));
    }
    Ok(answer(&query::single(entity, row, fields.as_deref(), base)))
}

fn get_collection(org: &Org, exchange: &Exchange<'_>, entity: usize, base: &str) -> Result<Reply, ApiError> {
    let request = exchange.request;
    let (wanted, fields): (Vec<String>, Vec<String>) = if request.method == Method::POST {
        let body = writes::body(request)?;
        let texts = |name: &str| -> Vec<String> {
            let items = body.get(name).and_then(Value::as_list).unwrap_or_default();
            items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        (texts("ids"), texts("fields"))
    } else {
        let split = |name: &str| request.parameter(name).unwrap_or_default().split(',').map(str::to_owned).collect();
        (split("ids"), split("fields"))
    };
    if wanted.len() > READ_IDS {
        let message = format!("cannot retrieve more than {READ_IDS} records in one call");
        return Err(ApiError::data("EXCEEDED_ID_LIMIT", message, &[]));
    }
    if fields.is_empty() {
        return Err(ApiError::data("REQUIRED_FIELD_MISSING", "Required fields are missing: [fields]", &[]));
    }
    let fields = positions(entity, fields.iter())?;
    let horizon = horizon(exchange.stale);
    let shown = wanted.iter().map(|id| {
        let row = match org.row(entity, id) {
            Ok(row) => horizon.map_or(Some(row), |horizon| row.at(horizon)),
            Err(error) if error.code == "MALFORMED_ID" => return Err(error),
            Err(_) => None,
        };
        Ok(row.map_or(Value::Null, |row| query::single(entity, row, Some(&fields), base)))
    });
    Ok(answer(&Value::List(shown.collect::<Result<_, _>>()?)))
}

/// The window of a replication call, in whole minutes.
fn window(request: &Request, days: i64) -> Result<(DateTime<Utc>, DateTime<Utc>), ApiError> {
    let invalid = |message: &str| ApiError::data("INVALID_REPLICATION_DATE", message, &[]);
    let minute = |name: &str| {
        let text = request.parameter(name).ok_or_else(|| invalid(&format!("{name} is missing")))?;
        let at = DateTime::parse_from_rfc3339(text).map_err(|_| invalid(&format!("{name} is not a date with a time and an offset")))?;
        at.with_timezone(&Utc).duration_trunc(TimeDelta::minutes(1)).map_err(|_| invalid("the date is out of range"))
    };
    let (from, to) = (minute("start")?, minute("end")?);
    if from < Utc::now() - TimeDelta::days(days) {
        return Err(invalid(&format!("startDate is more than {days} days ago")));
    }
    if to <= from {
        return Err(invalid("startDate before endDate by at least one minute is required"));
    }
    Ok((from, to))
}

fn covered(to: DateTime<Utc>) -> Value {
    let now = Utc::now().duration_trunc(TimeDelta::minutes(1)).unwrap_or(to);
    Value::Text(stamp(to.min(now)))
}

/// The rows whose stamp lies in a window.
fn within(org: &Org, entity: usize, from: DateTime<Utc>, to: DateTime<Utc>) -> impl Iterator<Item = (&Arc<Row>, DateTime<Utc>)> {
    let position = ENTITIES[entity].position("SystemModstamp");
    org.tables[entity].rows.values().filter_map(move |row| {
        let at = moment(row.values[position?].as_str()?)?;
        (at >= from && at < to).then_some((row, at))
    })
}

fn updated(org: &Org, request: &Request, entity: usize) -> Result<Reply, ApiError> {
    let (from, to) = window(request, 30)?;
    let ids = within(org, entity, from, to).filter(|(row, _)| !row.deleted).map(|(row, _)| Value::text(&row.id));
    Ok(answer(&Value::object([("ids", Value::List(ids.collect())), ("latestDateCovered", covered(to))])))
}

fn deleted(org: &Org, request: &Request, entity: usize) -> Result<Reply, ApiError> {
    let (from, to) = window(request, 15)?;
    let gone = within(org, entity, from, to)
        .filter(|(row, _)| row.deleted)
        .map(|(row, at)| Value::object([("deletedDate", Value::Text(stamp(at))), ("id", Value::text(&row.id))]));
    Ok(answer(&Value::object([
        ("deletedRecords", Value::List(gone.collect())),
        ("earliestDateAvailable", Value::Text(stamp(Utc::now() - TimeDelta::days(15)))),
        ("latestDateCovered", covered(to)),
    ])))
}

fn status_error(status: u16) -> ApiError {
    let (code, message) = match status {
        401 => ("INVALID_SESSION_ID", "Session expired or invalid"),
        403 => ("API_DISABLED_FOR_ORG", "API is not enabled for this Organization or Partner"),
        404 => ("NOT_FOUND", "The requested resource does not exist"),
        405 => ("METHOD_NOT_ALLOWED", "HTTP Method not allowed for this resource"),
        400..=499 => ("UNKNOWN_EXCEPTION", "The request could not be understood"),
        503 => ("SERVER_UNAVAILABLE", "The server is unavailable. Try again later."),
        _ => ("UNKNOWN_EXCEPTION", "An unexpected error occurred. Please include this ErrorId if you contact support: 1041862-79"),
    };
    ApiError::new(status, code, message)
}

/// The page that people see while the platform is maintained.
fn maintenance(status: u16) -> Reply {
    const PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Salesforce Maintenance</title></head>\n<body><h1>We are down for maintenance.</h1>\
                        <p>Sorry for the inconvenience. We'll be back shortly.</p></body></html>\n";
    let headers = vec![("content-type", "text/html;charset=UTF-8".to_owned())];
    Reply { status, headers, body: Bytes::from_static(PAGE.as_bytes()) }
}
