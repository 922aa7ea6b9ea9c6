//! NetSuite, SuiteTalk REST and SuiteQL as of 2026.1, over tables in memory.
//!
//! | path under `/services/rest` | does |
//! |---|---|
//! | `auth/oauth2/v1/token` | client credentials with a signed assertion |
//! | `query/v1/suiteql` | SuiteQL, see [`suiteql`] |
//! | `record/v1/{customer,contact}` | records; batches and any other write also asynchronously |
//! | `record/v1/metadata-catalog` | what the record types are made of |
//! | `async/v1/job/{id}` | jobs, their task and its result |
//! | `system/v1/governanceLimits` | the concurrency limit |
//!
//! Kept as the vendor has it, to catch a client that does not read its manual: writes answer without a body; misspelt
//! property names are dropped in silence unless the caller asks for errors; idempotency keys count on asynchronous requests
//! only; stamps have whole seconds; a page without a unique order repeats and loses rows; amounts are number tokens; text is
//! trimmed and mail addresses are lowered. Facts that no public document confirms: error codes beyond the published ones,
//! field lengths, the envelope of batch results.

mod auth;
mod errors;
mod jobs;
mod metadata;
mod paging;
mod query;
mod records;
mod render;
mod schema;
mod seed;
pub mod suiteql;
mod tables;
mod values;

use crate::Setting;
use crate::core::universe::mix;
use crate::core::value::Value;
use crate::core::vendor::{Act, Class, Desk, Exchange, Operation, Refusal, Reply, Request, Vendor};
use auth::Accounts;
use chrono::{DateTime, TimeDelta, Utc};
use errors::Problem;
use http::Method;
use indexmap::IndexMap;
use jobs::Jobs;
use rand::SeedableRng;
use rand::rngs::StdRng;
use records::Intent;
use render::View;
use schema::Entity;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use tables::{Strictness, Tables};

/// The media type of answers with a body.
const CONTENT_TYPE: &str = "application/vnd.oracle.resource+json";

/// How many requests the account answers at the same time: the limit of a sandbox and of the smallest service tier.
pub const CONCURRENCY: usize = 5;

/// A NetSuite account.
#[derive(Debug)]
pub struct Netsuite {
    accounts: Accounts,
    tables: RwLock<Tables>,
    jobs: Mutex<Jobs>,
    seed: u64,
    queries: AtomicU64,
}

/// The media type of a request's body, lower-case and without blanks.
fn media_type(request: &Request) -> String {
    request.header("content-type").unwrap_or_default().to_ascii_lowercase().replace(' ', "")
}

/// Whether the `Prefer` header names this preference.
fn prefers(request: &Request, preference: &str) -> bool {
    let headers = request.headers.get_all("prefer").iter();
    headers
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case(preference))
}

impl Netsuite {
    /// An account with this setting's data and new credentials.
    pub fn new(setting: &Setting) -> anyhow::Result<Self> {
        let mut tables = Tables::default();
        seed::fill(&mut tables, setting, Utc::now());
        Ok(Self {
            accounts: Accounts::new(setting.seed)?,
            tables: RwLock::new(tables),
            jobs: Mutex::default(),
            seed: setting.seed,
            queries: AtomicU64::new(0),
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, exchange: &Exchange<'_>) -> Result<Reply, Problem> {
        let request = exchange.request;
        let now = Utc::now();
        self.accounts.check(request, now)?;
        let moment = exchange.stale.map(|age| earlier(now, age));
        let parts = request.parts();
        match (&request.method, parts.as_slice()) {
            (&Method::POST, ["services", "rest", "query", "v1", "suiteql"]) => {
                // Each request draws its own order for what the query leaves tied.
                let number = self.queries.fetch_add(1, Ordering::Relaxed);
                let mut shuffle = StdRng::seed_from_u64(mix(self.seed ^ mix(number)));
                query::answer(request, &self.read(), moment, now, &mut shuffle)
            }
            (method, ["services", "rest", "query", "v1", "suiteql"]) => Err(Problem::method(method, "POST")),
            (&Method::GET, ["services", "rest", "record", "v1", "metadata-catalog", rest @ ..]) => {
                metadata::answer(request, rest, &auth::address(request))
            }
            (method, ["services", "rest", "record", "v1", name, rest @ ..]) => {
                let entity = Entity::named(name).ok_or_else(|| Problem::unknown_type(name))?;
                if *method == Method::GET {
                    return records::read(request, &self.read(), entity, rest, moment);
                }
                if prefers(request, "respond-async") {
                    let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
                    return jobs.submit(request, || self.written(exchange, entity, rest, true).unwrap_or_else(Reply::from));
                }
                self.written(exchange, entity, rest, false)
            }
            (&Method::GET, ["services", "rest", "async", "v1", "job", id, rest @ ..]) => {
                self.jobs.lock().unwrap_or_else(PoisonError::into_inner).answer(request, id, rest)
            }
            (&Method::GET, ["services", "rest", "system", "v1", "governanceLimits"]) => {
                let limit = Value::Number(CONCURRENCY.to_string());
                let body = Value::object([
                    ("accountConcurrencyLimit", limit.clone()),
                    ("accountUnallocatedConcurrencyLimit", limit),
                    ("accountLimitType", Value::text("accountConcurrencyLimit")),
                ]);
                Ok(Reply::json(200, CONTENT_TYPE, &body))
            }
            _ => Err(Problem::new(404, "NOT_FOUND", format!("The path {} does not exist.", request.path))),
        }
    }

    fn written(&self, exchange: &Exchange<'_>, entity: Entity, rest: &[&str], asynchronous: bool) -> Result<Reply, Problem> {
        records::write(exchange, &mut self.write(), entity, rest, asynchronous)
    }
}

/// The moment that lies this long before.
fn earlier(now: DateTime<Utc>, age: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(age).ok().and_then(|age| now.checked_sub_signed(age)).unwrap_or(DateTime::<Utc>::MIN_UTC)
}

impl Vendor for Netsuite {
    fn credentials(&self) -> IndexMap<String, String> {
        self.accounts.credentials()
    }

    fn concurrency(&self) -> Option<usize> {
        Some(CONCURRENCY)
    }

    fn classify(&self, request: &Request) -> Class {
        let class = |operation, kind, entity: Option<&str>| Class { operation, kind, entity: entity.map(str::to_owned) };
        match request.parts().as_slice() {
            ["services", "rest", "auth", ..] => class(Operation::Auth, "token", None),
            ["services", "rest", "query", ..] => {
                Class { operation: Operation::Read, kind: "query", entity: query::first_table(&request.body) }
            }
            ["services", "rest", "record", "v1", "metadata-catalog", ..] => class(Operation::Read, "metadata", None),
            ["services", "rest", "record", "v1", name, rest @ ..] => {
                let (operation, kind) = match (&request.method, rest.is_empty()) {
                    (&Method::GET, true) => (Operation::Read, "list"),
                    (&Method::GET, false) => (Operation::Read, "get"),
                    (&Method::POST, _) => (Operation::Write, "create"),
                    (&Method::PATCH, _) => (Operation::Write, "update"),
                    (&Method::PUT, _) => (Operation::Write, "upsert"),
                    (&Method::DELETE, _) => (Operation::Write, "delete"),
                    _ => (Operation::Read, "other"),
                };
                class(operation, kind, Some(name))
            }
            ["services", "rest", "async", ..] => class(Operation::Read, "job", None),
            _ => class(Operation::Read, "other", None),
        }
    }

    fn answer(&self, exchange: &Exchange<'_>) -> Reply {
        let request = exchange.request;
        match (&request.method, request.parts().as_slice()) {
            (&Method::POST, ["services", "rest", "auth", "oauth2", "v1", "token"]) => self.accounts.token(request, Utc::now()),
            _ => self.call(exchange).unwrap_or_else(Reply::from),
        }
    }

    fn refuse(&self, _request: &Request, refusal: Refusal) -> Reply {
        match refusal {
            Refusal::Limit { retry_after: None } => Problem::throttled().into(),
            // The vendor documents no such header; a script may insist.
            Refusal::Limit { retry_after: Some(after) } => {
                Reply::from(Problem::throttled()).with("retry-after", after.as_secs().to_string())
            }
            Refusal::Status(status) => Problem::usual(status).into(),
            Refusal::Maintenance(status) => {
                let page = "<!DOCTYPE html><html><head><title>NetSuite - Scheduled Maintenance</title></head><body>\
                            <h1>NetSuite is currently unavailable</h1><p>We are performing scheduled maintenance.</p></body></html>";
                Reply { status, headers: vec![("content-type", "text/html; charset=utf-8".to_owned())], body: page.into() }
            }
        }
    }

    fn expire_tokens(&self) {
        self.accounts.expire();
    }

    fn records(&self, entity: &str) -> Option<Vec<Value>> {
        let entity = Entity::named(entity)?;
        let tables = self.read();
        let view = View { address: None, expand: true, only: Vec::new() };
        Some(tables.all(entity, None).map(|record| render::record(&tables, entity, record, &view)).collect())
    }

    fn person(&self, entity: &str, act: &Act, desk: &Desk<'_>) -> Result<Value, String> {
        let entity = Entity::named(entity).ok_or_else(|| format!("there is no record type {entity:?}"))?;
        let mut tables = self.write();
        let view = View { address: None, expand: true, only: Vec::new() };
        let (intent, operation) = match act {
            Act::Edit { id, values } => (Intent::Update(id, values), "edit"),
            Act::Create { values } => (Intent::Create(values), "create"),
            Act::Delete { id } => (Intent::Delete(id), "delete"),
            Act::Undelete { .. } => return Err("NetSuite keeps no recycle bin".to_owned()),
            Act::Merge { .. } => {
                return Err("what NetSuite's API tells of its merge of duplicates is not known, so it is not simulated".to_owned());
            }
        };
        let last = match act {
            Act::Delete { id } => tables
                .resolve(entity, id)
                .and_then(|id| tables.get(entity, id, None))
                .map(|record| render::record(&tables, entity, record, &view)),
            _ => None,
        };
        // A person sees every field and its list: nothing is dropped in silence, and an address book is edited whole.
        let strictness = Strictness { names: true, lenient_values: false, replace: vec!["addressBook".to_owned()] };
        let id = records::perform(&mut tables, desk, entity, intent, Some(operation), &strictness, None)
            .map_err(|problem| format!("{}: {}", problem.code(), problem.text()))?;
        let now = tables.get(entity, id, None).map(|record| render::record(&tables, entity, record, &view));
        now.or(last).ok_or_else(|| "the record is gone".to_owned())
    }
}
