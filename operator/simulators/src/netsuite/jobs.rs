//! Asynchronous requests: a job with one task, whose result is what the synchronous answer would have been.
//!
//! The work is done when the request is taken; the job says so from the second look on, so that a caller which does not
//! poll is found out. The idempotency key is honoured here and only here.

use super::errors::Problem;
use super::render;
use super::{CONTENT_TYPE, auth};
use crate::core::value::{Fields, Value};
use crate::core::vendor::{Reply, Request};
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, HashMap};

/// The header that makes an asynchronous request repeatable.
const KEY: &str = "X-NetSuite-Idempotency-Key";

/// The jobs of the account.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    jobs: BTreeMap<u64, Job>,
    keys: HashMap<String, u64>,
}

#[derive(Debug)]
struct Job {
    started: DateTime<Utc>,
    looked_at: bool,
    reply: Reply,
}

fn path(id: u64) -> String {
    format!("/services/rest/async/v1/job/{id}")
}

impl Jobs {
    /// Takes a request: runs `work` and answers with the job, unless a job with the same key exists.
    pub(super) fn submit(&mut self, request: &Request, work: impl FnOnce() -> Reply) -> Result<Reply, Problem> {
        let key = request.header(KEY).map(str::trim);
        if let Some(key) = key {
            if uuid::Uuid::parse_str(key).is_err() {
                return Err(Problem::header(KEY, format!("The header {KEY} must be a UUID.")));
            }
            if let Some(id) = self.keys.get(key) {
                return Err(Problem::idempotency(path(*id)));
            }
        }
        let id = self.jobs.last_key_value().map_or(1, |(id, _)| id + 1);
        let started = Utc::now();
        let reply = work();
        self.jobs.insert(id, Job { started, looked_at: false, reply });
        if let Some(key) = key {
            self.keys.insert(key.to_owned(), id);
        }
        Ok(Reply::empty(202).with("preference-applied", "respond-async").with("location", path(id)))
    }

    /// Answers below `async/v1/job/{id}`.
    pub(super) fn answer(&mut self, request: &Request, id: &str, rest: &[&str]) -> Result<Reply, Problem> {
        let address = auth::address(request);
        let number: u64 = id.parse().map_err(|_| Problem::absent(&format!("job {id}")))?;
        let job = self.jobs.get_mut(&number).ok_or_else(|| Problem::absent(&format!("job {id}")))?;
        let base = format!("{address}{}", path(number));
        let completed = job.looked_at;
        let progress = |done: &str| Value::text(if completed { done } else { "pending" });
        let body = match rest {
            [] => {
                job.looked_at = true;
                Value::object([
                    ("links", render::links(base.clone())),
                    ("id", Value::text(id)),
                    ("completed", Value::Bool(completed)),
                    ("progress", progress("succeeded")),
                    ("task", Value::object([("links", render::links(format!("{base}/task/")))])),
                ])
            }
            ["task"] => {
                let task = Value::object([("links", render::links(format!("{base}/task/1"))), ("id", Value::text("1"))]);
                let mut body = Fields::from_iter([("links".to_owned(), render::links(format!("{base}/task/")))]);
                body.extend(render::collection(1, 0, false, 1));
                body.insert("items".to_owned(), Value::List(vec![task]));
                Value::Object(body)
            }
            ["task", "1"] => {
                let failed = job.reply.status >= 400;
                let end = if completed { render::stamp(job.started) } else { Value::Null };
                let related = format!("{base}/task/1/result");
                let mut body = Fields::from_iter([
                    (
                        "links".to_owned(),
                        Value::List(vec![render::link("self", format!("{base}/task/1")), render::link("related", related)]),
                    ),
                    ("id".to_owned(), Value::text("1")),
                    ("completed".to_owned(), Value::Bool(completed)),
                    ("progress".to_owned(), progress(if failed { "failed" } else { "succeeded" })),
                    ("startTime".to_owned(), render::stamp(job.started)),
                    ("endTime".to_owned(), end),
                ]);
                body.retain(|_, value| !value.is_null());
                job.looked_at = true;
                Value::Object(body)
            }
            ["task", "1", "result"] if completed => return Ok(job.reply.clone()),
            ["task", "1", "result"] => return Err(Problem::new(404, "NONEXISTENT_ID", "The task has no result yet.")),
            _ => return Err(Problem::absent(&format!("job {id}"))),
        };
        Ok(Reply::json(200, CONTENT_TYPE, &body))
    }
}
