//! One request, from its head to its answer.

use crate::auth::{Denied, Verified};
use crate::backend::{BackendError, Call, Filter, ListQuery, Record, Update};
use crate::decode;
use crate::gateway::{Shared, Snapshot};
use crate::idempotency::{self, Answer, Begin, Scope};
use crate::metrics::OperationMetrics;
use crate::openapi;
use crate::problem::{Kind, Problem};
use crate::request::{REQUEST_ID, TagCondition, TraceContext, accepts, host, media_type, request_id};
use crate::route::{Route, Shown};
use crate::shape::{filter_value, merge, touched};
use bytes::Bytes;
use fairlead_contract::Violation;
use fairlead_model::hash::Digest;
use fairlead_model::route::{Idempotency, OperationKind, OperationUnit};
use fairlead_model::{Document, RecordId};
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The most records of a page.
pub(crate) const MAX_LIMIT: u32 = 200;
/// Records of a page where the caller does not say.
pub(crate) const DEFAULT_LIMIT: u32 = 50;
/// The longest path and query.
const MAX_TARGET: usize = 8 * 1024;
/// How often a change is computed anew when the record changes under it.
const MAX_RETRIES: usize = 3;
/// When to come again while an issuer's keys are not known.
const KEYS_RETRY: Duration = Duration::from_secs(5);
/// When to come again for what passes by itself at any moment.
const SOON: Duration = Duration::from_secs(1);

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

type Answered = Response<Full<Bytes>>;

/// What becomes known of a request on its way, for the log, the metrics and every answer.
struct Exchange {
    started: Instant,
    request_id: String,
    trace: TraceContext,
    route: Option<Arc<Route>>,
    operation: Option<OperationKind>,
    consumer: Option<String>,
    metrics: Option<OperationMetrics>,
    /// Sent with the answer, good or bad.
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Answers `request`. `secure` is whether it came over TLS.
pub(crate) async fn answer(shared: Arc<Shared>, secure: bool, request: Request<Incoming>) -> Answered {
    let _in_flight = shared.metrics.in_flight();
    let (parts, body) = request.into_parts();
    let mut exchange = Exchange {
        started: Instant::now(),
        request_id: request_id(&parts.headers),
        trace: TraceContext::of(&parts.headers),
        route: None,
        operation: None,
        consumer: None,
        metrics: None,
        headers: vec![],
    };
    let outcome = dispatch(&shared, &mut exchange, secure, &parts, body).await;
    let problem = outcome.as_ref().err().map(|problem| problem.kind().slug());
    let mut response = outcome.unwrap_or_else(told);
    let headers = response.headers_mut();
    headers.extend(exchange.headers);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // It was checked to be a header's text, or made by us.
    if let Ok(id) = HeaderValue::try_from(&exchange.request_id) {
        headers.insert(REQUEST_ID, id);
    }
    let size = response.body().size_hint().lower();
    if parts.method == Method::HEAD {
        response.headers_mut().insert(header::CONTENT_LENGTH, size.into());
        *response.body_mut() = Full::default();
    }
    let (status, took) = (response.status(), exchange.started.elapsed());
    exchange.metrics.as_ref().unwrap_or(&shared.no_operation).answered(status, took);
    // Neither path nor query: ids and filters are records' data.
    tracing::info!(
        target: "fairlead::access",
        method = %parts.method,
        protocol = ?parts.version,
        route = exchange.route.as_ref().map(|route| route.key.0.as_str()),
        operation = exchange.operation.map(OperationKind::as_str),
        status = status.as_u16(),
        problem,
        consumer = exchange.consumer,
        duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        bytes = size,
        request_id = exchange.request_id,
        trace_id = exchange.trace.trace_id,
        "request"
    );
    response
}

fn told(problem: Problem) -> Answered {
    let (status, headers, body) = problem.into_parts();
    respond(status, headers, body)
}

fn respond(status: StatusCode, headers: HeaderMap, body: impl Into<Bytes>) -> Answered {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

async fn dispatch(shared: &Arc<Shared>, exchange: &mut Exchange, secure: bool, parts: &Parts, body: Incoming) -> Result<Answered, Problem> {
    let path = parts.uri.path();
    if path.len().saturating_add(parts.uri.query().map_or(0, str::len)) > MAX_TARGET {
        return Err(Problem::new(Kind::UriTooLong));
    }
    let host = host(&parts.uri, &parts.headers);
    let snapshot = shared.snapshot();
    if !snapshot.applied {
        // What is served is not known yet; to say "not found" would be a guess.
        return Err(Problem::new(Kind::Unavailable).detail("the gateway has only just started").retry_after(Some(SOON)));
    }
    if path == "/.well-known/api-catalog" {
        return catalog(&snapshot, secure, parts, host.as_deref());
    }
    let (route, rest) = snapshot.table.find(path, host.as_deref()).ok_or_else(|| Problem::new(Kind::NotFound))?;
    exchange.route = Some(route.clone());
    let target = match rest {
        "" | "/" => Target::Collection,
        "/openapi.json" => return description(route, parts),
        rest => Target::Record(rest.strip_prefix('/').unwrap_or(rest)),
    };
    let allow = match target {
        Target::Collection => &route.allow_collection,
        Target::Record(_) => &route.allow_record,
    };
    let kind = match (&target, &parts.method) {
        (_, &Method::OPTIONS) => {
            return Ok(respond(StatusCode::NO_CONTENT, HeaderMap::from_iter([(header::ALLOW, allow.clone())]), ""));
        }
        (Target::Collection, &Method::GET | &Method::HEAD) => Some(OperationKind::List),
        (Target::Collection, &Method::POST) => Some(OperationKind::Create),
        (Target::Record(_), &Method::GET | &Method::HEAD) => Some(OperationKind::Get),
        (Target::Record(_), &Method::PATCH) => Some(OperationKind::Update),
        _ => None,
    };
    let offered = kind.and_then(|kind| Some((kind, route.operation(kind)?)));
    let Some((kind, (operation, metrics))) = offered else {
        return Err(Problem::new(Kind::MethodNotAllowed).header(header::ALLOW, allow.clone()));
    };
    exchange.operation = Some(kind);
    exchange.metrics = Some(metrics.clone());
    let Caller { consumer, may_get } = admit(shared, exchange, route, kind, operation, &parts.headers).await?;
    exchange.consumer = Some(consumer.clone());
    if !accepts(&parts.headers, "application/json") {
        return Err(Problem::new(Kind::NotAcceptable));
    }
    let call = Call {
        contract: route.key.clone(),
        operation: kind,
        consumer,
        request_id: exchange.request_id.clone(),
        trace: exchange.trace.clone(),
        deadline: exchange.started.checked_add(operation.timeout).unwrap_or(exchange.started),
        idempotency_key: None,
    };
    let written = match (kind, &target) {
        (OperationKind::List, _) => return list(shared, route, operation, call, parts.uri.query().unwrap_or_default()).await,
        (OperationKind::Get, Target::Record(id)) => return get(route, call, id, &parts.headers).await,
        (OperationKind::Update, Target::Record(id)) => {
            let id = RecordId::parse(id).ok_or_else(|| Problem::new(Kind::NotFound))?;
            let if_match = TagCondition::read(&parts.headers, header::IF_MATCH);
            write(shared, route, operation, call, Asked::Update { id, if_match }, parts, body).await?
        }
        _ => write(shared, route, operation, call, Asked::Create, parts, body).await?,
    };
    Ok(give(written, may_get))
}

#[derive(Debug, Clone, Copy)]
enum Target<'a> {
    Collection,
    Record(&'a str),
}

/// Documents are public: they say what may be asked for, not what is there.
fn document(parts: &Parts, media: &'static str, tag: Option<&HeaderValue>, body: Bytes) -> Result<Answered, Problem> {
    let allow = HeaderValue::from_static("GET, HEAD, OPTIONS");
    match parts.method {
        Method::GET | Method::HEAD => {}
        Method::OPTIONS => return Ok(respond(StatusCode::NO_CONTENT, HeaderMap::from_iter([(header::ALLOW, allow)]), "")),
        _ => return Err(Problem::new(Kind::MethodNotAllowed).header(header::ALLOW, allow)),
    }
    let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(media))]);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Some(tag) = tag {
        headers.insert(header::ETAG, tag.clone());
        if not_modified(&parts.headers, tag) {
            return Ok(respond(StatusCode::NOT_MODIFIED, headers, ""));
        }
    }
    Ok(respond(StatusCode::OK, headers, body))
}

fn description(route: &Route, parts: &Parts) -> Result<Answered, Problem> {
    document(parts, "application/openapi+json", Some(&route.openapi_tag), route.openapi.clone())
}

fn catalog(snapshot: &Snapshot, secure: bool, parts: &Parts, host: Option<&str>) -> Result<Answered, Problem> {
    let authority = match parts.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()),
    };
    let base = format!("{}://{}", if secure { "https" } else { "http" }, authority.unwrap_or_default());
    let routes = snapshot.table.on_host(host).map(|route| &**route);
    document(parts, openapi::LINKSET, None, openapi::catalog(&base, routes).to_string().into())
}

fn not_modified(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let condition = TagCondition::read(headers, header::IF_NONE_MATCH);
    condition.is_some_and(|condition| condition.weak(tag.to_str().unwrap_or_default()))
}

// === Who calls ===

/// Somebody who was let in.
struct Caller {
    /// The consumer's name, or issuer and client id.
    consumer: String,
    /// Whether a `get` would be let in too: who may only write is told nothing of what a record holds.
    may_get: bool,
}

/// Lets a caller in, and counts it.
async fn admit(
    shared: &Shared,
    exchange: &mut Exchange,
    route: &Route,
    kind: OperationKind,
    operation: &OperationUnit,
    headers: &HeaderMap,
) -> Result<Caller, Problem> {
    let token = authenticate(shared, route, headers).await?;
    if !token.has_scopes(&operation.scopes) {
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{}\"", operation.scopes.join(" "));
        return Err(challenged(Kind::ScopeMissing, &challenge));
    }
    let Ok(consumer) = route.consumer(&token.issuer, &token.client_id) else { return Err(Problem::new(Kind::ConsumerUnknown)) };
    let may_get = route.operation(OperationKind::Get).is_some_and(|(get, _)| token.has_scopes(&get.scopes))
        && consumer.is_none_or(|consumer| consumer.may(OperationKind::Get));
    let Some(consumer) = consumer else { return Ok(Caller { consumer: format!("{} {}", token.issuer, token.client_id), may_get }) };
    if !consumer.may(kind) {
        return Err(Problem::new(Kind::OperationNotAllowed));
    }
    if let Some(limit) = &consumer.limit {
        let verdict = limit.check();
        if shared.options.rate_limit_headers {
            exchange.headers.push((RATE_LIMIT_POLICY, limit.policy.clone()));
            exchange.headers.push((RATE_LIMIT, verdict.header));
        }
        if verdict.wait.is_some() {
            exchange.consumer = Some(consumer.name.clone());
            return Err(Problem::new(Kind::TooManyRequests).retry_after(verdict.wait));
        }
    }
    Ok(Caller { consumer: consumer.name.clone(), may_get })
}

async fn authenticate(shared: &Shared, route: &Route, headers: &HeaderMap) -> Result<Arc<Verified>, Problem> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    // RFC 6750, section 3.1: without any token the challenge carries no error.
    let missing = || challenged(Kind::TokenMissing, "Bearer");
    let value = given.next().ok_or_else(missing)?;
    let token = value.to_str().ok().and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let (_, token) = token.ok_or_else(missing)?;
    if given.next().is_some() {
        return Err(invalid_token("there are two Authorization headers"));
    }
    let now = shared.clock.now();
    shared.verifier.verify(token.trim(), &route.issuers, route.unit.max_token_age, now).await.map_err(|denied| match denied {
        Denied::Invalid(why) => invalid_token(why),
        Denied::KeysUnavailable => Problem::new(Kind::KeysUnavailable).retry_after(Some(KEYS_RETRY)),
    })
}

fn invalid_token(why: &'static str) -> Problem {
    challenged(Kind::TokenInvalid, &format!("Bearer error=\"invalid_token\", error_description=\"{why}\"")).detail(why)
}

fn challenged(kind: Kind, challenge: &str) -> Problem {
    let challenge = HeaderValue::try_from(challenge).unwrap_or_else(|_| HeaderValue::from_static("Bearer"));
    Problem::new(kind).header(header::WWW_AUTHENTICATE, challenge)
}

// === Reads ===

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PageBody<'a> {
    items: Vec<Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

async fn list(shared: &Shared, route: &Route, operation: &OperationUnit, call: Call, query: &str) -> Result<Answered, Problem> {
    let wanted = Wanted::read(shared, route, operation, query)?;
    let page = in_time(call.deadline, route.backend.list(&call, wanted.query)).await?;
    let next = page.next.map(|cursor| shared.sealer.seal(&wanted.identity, &cursor));
    let body = PageBody { items: page.records.iter().map(|record| route.shown(record)).collect(), next_page_token: next };
    Ok(respond(StatusCode::OK, fresh_headers(), text(&body)?))
}

/// A list request, and the text that says which pages belong together: contract and filters.
struct Wanted {
    query: ListQuery,
    identity: String,
}

impl Wanted {
    fn read(shared: &Shared, route: &Route, operation: &OperationUnit, query: &str) -> Result<Self, Problem> {
        let bad = |name: &str, why: &str| Problem::new(Kind::InvalidParameter).parameter(name, why);
        let mut given = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if given.contains_key(&name) {
                return Err(bad(&name, "stands twice"));
            }
            given.insert(name, value);
        }
        let limit = match given.remove("limit") {
            None => DEFAULT_LIMIT,
            Some(text) => match text.parse() {
                Ok(limit @ 1..=MAX_LIMIT) => limit,
                _ => return Err(bad("limit", &format!("is no number from 1 to {MAX_LIMIT}"))),
            },
        };
        let token = given.remove("pageToken");
        let mut filters = vec![];
        let mut identity = format!("{} v{}", route.key, route.unit.major);
        for (name, text) in given {
            let declared = operation.filters.iter().find(|path| path.to_string() == name);
            let Some((path, field)) = declared.and_then(|path| route.judge.contract.fields().get_key_value(path)) else {
                return Err(bad(&name, "is no parameter and no field that can be filtered by"));
            };
            let value = filter_value(field, &text).map_err(|why| bad(&name, &why))?;
            let _ = write!(identity, " {}:{path}={value}", value.to_string().len());
            filters.push(Filter { field: path.clone(), value });
        }
        let after = match token {
            None => None,
            Some(token) => Some(
                shared
                    .sealer
                    .open(&identity, &token)
                    .ok_or_else(|| bad("pageToken", "is not from a page of this list with these filters"))?,
            ),
        };
        Ok(Self { query: ListQuery { filters, limit, after }, identity })
    }
}

async fn get(route: &Route, call: Call, id: &str, headers: &HeaderMap) -> Result<Answered, Problem> {
    let id = RecordId::parse(id).ok_or_else(|| Problem::new(Kind::NotFound))?;
    let record = in_time(call.deadline, route.backend.get(&call, id)).await?;
    let tag = route.tag(&record);
    let mut answer = fresh_headers();
    answer.insert(header::ETAG, tag.clone());
    if not_modified(headers, &tag) {
        return Ok(respond(StatusCode::NOT_MODIFIED, answer, ""));
    }
    Ok(respond(StatusCode::OK, answer, text(&route.shown(&record))?))
}

/// Records are for the caller alone, and to be asked for again before they are used again.
fn fresh_headers() -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, JSON), (header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"))])
}

fn text(body: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(body).map_err(|error| {
        tracing::error!(%error, "an answer could not be written");
        Problem::new(Kind::Internal)
    })
}

async fn in_time<T>(deadline: Instant, work: impl Future<Output = Result<T, BackendError>>) -> Result<T, Problem> {
    let done = tokio::time::timeout_at(deadline, work).await.unwrap_or(Err(BackendError::Timeout { sent: false }));
    done.map_err(log_internal)
}

fn log_internal(error: BackendError) -> Problem {
    if let BackendError::Internal(_) = &error {
        tracing::error!(%error, "a backend failed");
    }
    error.into()
}

// === Writes ===

enum Asked {
    Create,
    Update { id: RecordId, if_match: Option<TagCondition> },
}

/// The final answer to a write.
struct Written {
    answer: Answer,
    /// It was kept from an earlier request with the same key.
    replayed: bool,
}

async fn write(
    shared: &Arc<Shared>,
    route: &Arc<Route>,
    operation: &OperationUnit,
    mut call: Call,
    asked: Asked,
    parts: &Parts,
    body: Incoming,
) -> Result<Written, Problem> {
    let key = idempotency::key(&parts.headers)?;
    if key.is_none() && operation.idempotency == Idempotency::Required {
        return Err(Problem::new(Kind::IdempotencyKeyMissing));
    }
    media(&asked, &parts.headers)?;
    let bytes = read(shared, call.deadline, &parts.headers, body).await?;
    let data = decode::data(&bytes)?;
    let mut violations = route.judge.shape.undeclared(&data);
    if matches!(asked, Asked::Create) {
        violations.extend(route.judge.contract.validate(&data).err().into_iter().flatten());
    }
    refuse(violations)?;
    let data = route.judge.shape.canonical(data);
    let log = key.clone().map(|key| {
        let condition = parts.headers.get(header::IF_MATCH).and_then(|value| value.to_str().ok());
        let fingerprint = Digest::of(&json!([parts.method.as_str(), parts.uri.path(), condition, data]));
        let scope = Scope { contract: route.key.clone(), operation: call.operation, consumer: call.consumer.clone(), key };
        (scope, fingerprint)
    });
    call.idempotency_key = key;
    let deadline = call.deadline;
    // A caller that hangs up must not leave a write half done, nor its key without an answer: it runs by itself.
    let work = perform(shared.clone(), route.clone(), operation.timeout, call, asked, data, log);
    let late = || Problem::from(BackendError::Timeout { sent: true });
    match tokio::time::timeout_at(deadline, shared.writes.spawn(work)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(failure)) => {
            tracing::error!(error = %failure, "a write broke off");
            Err(Problem::new(Kind::Internal))
        }
        Err(_) => Err(late()),
    }
}

async fn perform(
    shared: Arc<Shared>,
    route: Arc<Route>,
    timeout: Duration,
    call: Call,
    asked: Asked,
    data: Document,
    log: Option<(Scope, Digest)>,
) -> Result<Written, Problem> {
    let Some((scope, fingerprint)) = log else {
        let done = execute(&route, &call, &asked, &data).await;
        return done.map(|answer| Written { answer, replayed: false }).map_err(|failure| failure.problem);
    };
    // Twice the caller's patience, and a minute for whatever must still settle.
    let held = timeout.saturating_mul(2).saturating_add(Duration::from_secs(60));
    let begun = shared.idempotency.begin(&scope, &fingerprint, held).await.map_err(|failure| {
        tracing::error!(error = failure, "the idempotency log cannot be used");
        Problem::new(Kind::Unavailable).detail("the gateway cannot remember the request, and so does not begin it")
    })?;
    match begun {
        Begin::Running => return Err(Problem::new(Kind::IdempotencyKeyRunning).retry_after(Some(SOON))),
        Begin::Mismatch => return Err(Problem::new(Kind::IdempotencyKeyReused)),
        Begin::Done(answer) => {
            shared.metrics.replayed();
            return Ok(Written { answer, replayed: true });
        }
        Begin::Fresh => {}
    }
    let outcome = execute(&route, &call, &asked, &data).await;
    let answer = match outcome {
        Ok(answer) => answer,
        Err(Failed { problem, keep: false }) => {
            shared.idempotency.release(&scope).await;
            return Err(problem);
        }
        Err(Failed { problem, keep: true }) => {
            let (status, headers, body) = problem.into_parts();
            stored(status, &headers, body)
        }
    };
    shared.idempotency.finish(&scope, &answer).await;
    Ok(Written { answer, replayed: false })
}

/// A write that did not succeed, and whether that is its final answer: whether the same request would get it at any time.
struct Failed {
    problem: Problem,
    keep: bool,
}

impl From<BackendError> for Failed {
    fn from(error: BackendError) -> Self {
        let keep = match &error {
            BackendError::NotFound
            | BackendError::Gone
            | BackendError::Changed
            | BackendError::Rejected { .. }
            | BackendError::NoTarget => true,
            // What is there changes, and what is away or broken is mended.
            BackendError::Conflict { .. }
            | BackendError::Throttled { .. }
            | BackendError::Unavailable { .. }
            | BackendError::Internal(_) => false,
            // The same write again finds out: it makes nothing a second time (see `Backend::create`).
            BackendError::Timeout { .. } => false,
        };
        Self { problem: log_internal(error), keep }
    }
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self { keep: problem.kind().status().is_client_error(), problem }
    }
}

async fn execute(route: &Route, call: &Call, asked: &Asked, data: &Document) -> Result<Answer, Failed> {
    match asked {
        Asked::Create => {
            let record = route.backend.create(call, data.clone()).await?;
            let location = HeaderValue::try_from(format!("{}/{}", route.path, record.id)).ok();
            Ok(done(route, StatusCode::CREATED, &record, location))
        }
        Asked::Update { id, if_match } => {
            for _ in 0..=MAX_RETRIES {
                let current = in_time(call.deadline, route.backend.get(call, *id)).await?;
                let before = route.judge.shape.declared(&current.document);
                let mut document = before.clone();
                merge(&mut document, data);
                if let Some(condition) = if_match
                    && !condition.strong(route.tag(&current).to_str().unwrap_or_default())
                {
                    // A repeated request whose first answer was lost meets its own work, which RFC 9110, section 13.1.1, lets succeed.
                    if call.idempotency_key.is_some() && document == before {
                        return Ok(done(route, StatusCode::OK, &current, None));
                    }
                    return Err(Problem::new(Kind::Changed).into());
                }
                // What the caller does not touch, it does not answer for.
                refuse(route.judge.contract.validate_fields(|name| document.get(name), &touched(data)).err().unwrap_or_default())?;
                let update = Update { id: *id, base: current.version, patch: data.clone(), document };
                match route.backend.update(call, update).await {
                    // Computed anew; a version that the caller named is then another one.
                    Err(BackendError::Changed) => {}
                    outcome => return Ok(done(route, StatusCode::OK, &outcome?, None)),
                }
            }
            let problem = Problem::new(Kind::Conflict).detail("the record changes faster than it can be updated").retry_after(Some(SOON));
            Err(Failed { problem, keep: false })
        }
    }
}

/// The answer about a record that was written.
fn done(route: &Route, status: StatusCode, record: &Record, location: Option<HeaderValue>) -> Answer {
    let mut headers = fresh_headers();
    headers.insert(header::ETAG, route.tag(record));
    headers.extend(location.map(|location| (header::LOCATION, location)));
    stored(status, &headers, serde_json::to_string(&route.shown(record)).unwrap_or_default())
}

fn stored(status: StatusCode, headers: &HeaderMap, body: String) -> Answer {
    let headers = headers.iter().filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
    Answer { status: status.as_u16(), headers: headers.collect(), body }
}

/// A kept answer as this caller gets it. Whole is how it is kept: the same request may come with another token.
fn give(Written { answer, replayed }: Written, may_get: bool) -> Answered {
    let mut headers = HeaderMap::new();
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    if replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = if status.is_success() && !may_get { receipt(&answer.body) } else { answer.body };
    respond(status, headers, body)
}

/// Which record an answer is about, without what it holds.
fn receipt(body: &str) -> String {
    #[derive(Serialize, Deserialize)]
    struct Receipt {
        id: String,
        version: u64,
    }
    serde_json::from_str::<Receipt>(body).and_then(|receipt| serde_json::to_string(&receipt)).unwrap_or_else(|_| "{}".to_owned())
}

fn refuse(mut violations: Vec<Violation>) -> Result<(), Problem> {
    if violations.is_empty() {
        return Ok(());
    }
    violations.sort_by(|a, b| a.pointer.cmp(&b.pointer));
    violations.dedup_by(|next, first| next.pointer == first.pointer);
    violations.truncate(20);
    Err(Problem::new(Kind::InvalidBody).violations(&violations))
}

/// The body's media type and encoding.
fn media(asked: &Asked, headers: &HeaderMap) -> Result<(), Problem> {
    let (accepted, name): (&[&str], HeaderName) = match asked {
        Asked::Create => (&["application/json"], HeaderName::from_static("accept-post")),
        Asked::Update { .. } => (&["application/merge-patch+json", "application/json"], HeaderName::from_static("accept-patch")),
    };
    let known = media_type(headers).is_some_and(|media| accepted.contains(&media.as_str()));
    let plain = headers.get(header::CONTENT_ENCODING).is_none_or(|encoding| encoding == "identity");
    if known && plain {
        return Ok(());
    }
    let list = HeaderValue::try_from(accepted.join(", ")).unwrap_or(JSON);
    Err(Problem::new(Kind::UnsupportedMediaType).header(name, list))
}

/// The body, within its limits of size and time.
async fn read(shared: &Shared, deadline: Instant, headers: &HeaderMap, body: Incoming) -> Result<Bytes, Problem> {
    let most = shared.options.max_body;
    let too_large = || Problem::new(Kind::BodyTooLarge).detail(format!("the most is {most} bytes"));
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > most)) {
        return Err(too_large());
    }
    let until = Instant::now().checked_add(shared.options.body_timeout).map_or(deadline, |until| until.min(deadline));
    match tokio::time::timeout_at(until, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Kind::InvalidBody).at("", "did not arrive whole")),
        Err(_) => Err(Problem::new(Kind::RequestTimeout)),
    }
}
