//! The quota of an account, shared by all that use it: against a system of a virtual time, which keeps a log of when each request left and judges it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use async_trait::async_trait;
use common::{Secrets, batch, change, class, local, paths};
use fairlead_model::report::{Quota, Window};
use fairlead_model::unit::Limits;
use fairlead_model::{Clock, ErrorClass, RemoteError, Timestamp};
use fairlead_systems::client::transport::{Answer, Outgoing, SendError, Transport};
use fairlead_systems::{Client, Definition, Outside, Priority, ReadRequest, Usage, WriteOperation};
use http::HeaderMap;
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

const DEFINITION: &str = "
system: acme
auth: [{method: ApiKey, header: X-Api-Key, secretKey: apiKey}]
errors: [{status: 429, class: Throttled}]
quota: {limit: X-Limit, remaining: X-Left, reset: X-Reset}
probe: {path: /probe}
entities:
- name: things
  key: .id
  fields: [{name: id, type: String}]
  read: {request: {path: /things}, records: .data}
  update: {request: {method: PATCH, path: '/things/{{id}}', body: .record}, idempotent: true}
";

/// Its ways to authenticate: with a key, or with tokens.
const KEY: &str = "[{method: ApiKey, header: X-Api-Key, secretKey: apiKey}]";
const TOKENS: &str = "[{method: ClientCredentials, token: {url: '{{endpoint}}/token'}}]";

/// A day that begins, in milliseconds.
const BEGIN: i64 = 20_000 * 24 * 3600 * 1000;

/// The time of a runtime whose time is paused.
struct Virtual(Instant);

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        Timestamp(BEGIN).plus(self.0.elapsed())
    }
}

/// A request, by its path, with the moments between which it was under way, in milliseconds since the beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    path: String,
    left: u64,
    answered: u64,
    status: u16,
}

type Script = dyn Fn(&str, usize, u64) -> (u16, Vec<(&'static str, String)>) + Send + Sync;

/// Answers by a script: the path, how many requests there were before, and the millisecond.
struct System {
    start: Instant,
    takes: Duration,
    script: Box<Script>,
    log: Mutex<Vec<Seen>>,
}

impl System {
    fn log(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }

    fn asked(&self, path: &str) -> usize {
        self.log().iter().filter(|seen| seen.path == path).count()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap()
    }
}

#[async_trait]
impl Transport for System {
    async fn send(&self, outgoing: Outgoing, _: Instant) -> Result<Answer, SendError> {
        let (left, path) = (self.now(), outgoing.url.path().to_owned());
        let at = {
            let mut log = self.log.lock().unwrap();
            log.push(Seen { path: path.clone(), left, answered: 0, status: 0 });
            log.len() - 1
        };
        let (status, told) = (self.script)(&path, at, left);
        tokio::time::sleep(self.takes).await;
        let mut log = self.log.lock().unwrap();
        log[at] = Seen { status, answered: self.now(), ..log[at].clone() };
        let mut headers = HeaderMap::new();
        for (name, value) in told {
            headers.insert(name, value.parse().unwrap());
        }
        let body = br#"{"data": [], "access_token": "token"}"#.to_vec();
        Ok(Answer { status, headers, body })
    }
}

struct Bed {
    system: Arc<System>,
    secrets: Arc<Secrets>,
    client: Client,
}

impl Bed {
    fn new(
        definition: &str,
        limits: Limits,
        takes: u64,
        script: impl Fn(&str, usize, u64) -> (u16, Vec<(&'static str, String)>) + Send + Sync + 'static,
    ) -> Self {
        let start = Instant::now();
        let (takes, log) = (Duration::from_millis(takes), Mutex::default());
        let system = Arc::new(System { start, takes, script: Box::new(script), log });
        let secrets = Secrets::of([("apiKey", "key"), ("clientId", "client"), ("clientSecret", "secret")], "127.0.0.1");
        let client = Self::connect(definition, limits, &system, &secrets);
        Self { system, secrets, client }
    }

    fn connect(definition: &str, limits: Limits, system: &Arc<System>, secrets: &Arc<Secrets>) -> Client {
        let definition = Definition::parse(definition).unwrap_or_else(|findings| panic!("{findings:?}"));
        let method = definition.auth_methods()[0].name.clone();
        let mut unit = common::unit(definition.text(), "acme", "http://127.0.0.1:1", &method);
        unit.limits = limits;
        let outside = Outside {
            clock: Arc::new(Virtual(system.start)),
            transport: Some(Arc::clone(system) as Arc<dyn Transport>),
            ..Outside::new(Arc::clone(secrets) as _, local())
        };
        Client::connect(&unit, Arc::new(definition), &outside).unwrap()
    }
}

fn limits(requests_per_second: Option<u32>, concurrency: u32, daily_requests: Option<u64>, interactive_reserve_percent: u32) -> Limits {
    Limits { requests_per_second, concurrency, daily_requests, interactive_reserve_percent }
}

fn served(_: &str, _: usize, _: u64) -> (u16, Vec<(&'static str, String)>) {
    (200, Vec::new())
}

async fn read(client: &Client) -> Result<(), RemoteError> {
    let (entity, slice, fields) = ("things".to_owned(), "main".to_owned(), paths(&["id"]));
    client.read_page(&ReadRequest { entity, slice, fields, cursor: None, deadline: Duration::from_secs(60) }).await.map(drop)
}

/// Reads again and again until `end`, as readers do: who is told to wait waits.
async fn read_until(client: &Client, end: Instant) {
    while Instant::now() < end {
        if let Err(error) = read(client).await {
            assert_eq!(error.class, ErrorClass::Throttled, "{error}");
            tokio::time::sleep(error.retry_after.unwrap()).await;
        }
    }
}

/// Every fifth request is refused, with the time after which the next may come: once by `Retry-After`, once by the end of the window alone.
#[tokio::test(start_paused = true)]
async fn nothing_leaves_before_the_time_that_a_refusal_states_and_then_the_rate_is_as_allowed() {
    const RATE: u64 = 100;
    const WINDOW: u64 = 1000;
    const TROUBLE: u64 = 20_000;
    let stated = |at: usize, now: u64| {
        let wait = 1 + u64::try_from(at % 3).unwrap();
        let header = if at.is_multiple_of(2) { ("retry-after", wait.to_string()) } else { ("x-reset", wait.to_string()) };
        (now + wait * 1000, vec![header, ("x-limit", "500".into()), ("x-left", "0".into())])
    };
    let rate = u32::try_from(RATE).unwrap();
    let bed = Bed::new(DEFINITION, limits(Some(rate), 8, None, 20), 40, move |_, at, now| {
        if now < TROUBLE && at % 5 == 4 { (429, stated(at, now).1) } else { (200, Vec::new()) }
    });
    let end = bed.system.start + Duration::from_millis(TROUBLE + 10 * WINDOW);
    let clients: Vec<Client> = (0..12).map(|at| bed.client.at(Priority::ALL[at % 4])).collect();
    futures::future::join_all(clients.iter().map(|client| read_until(client, end))).await;

    let log = bed.system.log();
    let refused: Vec<(usize, &Seen)> = log.iter().enumerate().filter(|(_, seen)| seen.status == 429).collect();
    assert!(refused.len() >= 5, "{} refusals", refused.len());
    let mut last = 0;
    for (at, refusal) in refused {
        // The vendor counts from its answer's beginning, Fairlead from its end: never too early.
        let until = stated(at, refusal.left).0;
        let early: Vec<&Seen> = log.iter().filter(|seen| seen.left > refusal.answered && seen.left < until).collect();
        assert!(early.is_empty(), "after {refusal:?}, which said {until}: {early:?}");
        last = until.max(last);
    }
    let back = last.max(TROUBLE) + WINDOW;
    let first = log.iter().map(|seen| seen.left).find(|left| *left >= last).unwrap();
    for (from, what) in [(first, "within the window after the last wait"), (back, "later")] {
        let sent = log.iter().filter(|seen| (from..from + WINDOW).contains(&seen.left)).count() as u64;
        assert!((RATE * 9 / 10..=RATE + 1).contains(&sent), "{sent} requests {what}");
    }
    assert!(first <= last + WINDOW, "{first} {last}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_of_the_api_does_not_wait_for_those_who_load() {
    let bed = Bed::new(DEFINITION, limits(None, 4, None, 20), 1000, served);
    let load = bed.client.at(Priority::Backfill);
    let start = Instant::now();
    let loading = futures::future::join_all((0..40).map(|_| read(&load)));
    let calling = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(bed.client.waiting().map(|(_, count)| count), [0, 0, 0, 37]);
        let caller = bed.client.at(Priority::Interactive);
        read(&caller).await.unwrap();
        assert_eq!(start.elapsed().as_millis(), 1500, "a place is kept");
        // Live requests have no place of their own, but the next one.
        read(&bed.client).await.unwrap();
        assert_eq!(start.elapsed().as_millis(), 3000);
    };
    let (loaded, ()) = tokio::join!(loading, calling);
    assert!(loaded.iter().all(Result::is_ok), "and those who load come to their end");
    let log = bed.system.log();
    let with = |seen: &Seen| log.iter().filter(|other| other.left <= seen.left && seen.left < other.answered).count();
    assert_eq!(log.iter().map(with).max(), Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_called_off_leaves_the_line_and_one_that_was_sent_comes_to_its_end() {
    let bed = Bed::new(DEFINITION, limits(None, 1, None, 0), 5000, served);
    let (start, load) = (Instant::now(), bed.client.at(Priority::Backfill));
    let write = |id: &str, until: u64| {
        let things = batch("things", vec![change(WriteOperation::Update, id, json!({"id": id}))]);
        let allowed = Arc::new(move || start.elapsed() < Duration::from_secs(until));
        let load = &load;
        async move { (load.write_while(&things, allowed).await.pop().unwrap(), start.elapsed().as_millis()) }
    };
    let (sent, called_off, other) = tokio::join!(write("a", 1), write("b", 2), write("c", 60));
    assert!(sent.0.is_ok() && sent.1 == 5000, "{sent:?}");
    assert_eq!((class(&called_off.0), called_off.1), (Some((ErrorClass::Transient, "Busy")), 2000));
    assert!(other.0.is_ok() && other.1 == 10_000, "the next has its turn: {other:?}");
    let paths: Vec<String> = bed.system.log().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["/things/a", "/things/c"]);
}

#[tokio::test(start_paused = true)]
async fn a_daily_budget_is_kept_to_by_priority_and_by_whoever_comes_after() {
    let bed = Bed::new(DEFINITION, limits(None, 8, Some(100), 20), 0, served);
    let mut sent = Vec::new();
    for priority in [Priority::Backfill, Priority::Flow, Priority::Live, Priority::Interactive] {
        let client = bed.client.at(priority);
        let before = bed.system.log().len();
        let results = futures::future::join_all((0..150).map(|_| read(&client))).await;
        sent.push(bed.system.log().len() - before);
        let refused = results.into_iter().find(Result::is_err).unwrap();
        assert_eq!(class(&refused), Some((ErrorClass::Throttled, "QuotaExhausted")));
        assert!(refused.unwrap_err().message.contains("nothing is sent before 2024-10-05T00:00:00.000Z"));
        assert_eq!(client.throttled_until(), Some(Timestamp(BEGIN + 24 * 3600 * 1000)));
        let quota = if priority < Priority::Flow { Quota::Exhausted } else { Quota::Low };
        assert_eq!(bed.client.quota(), quota, "after {priority:?}");
    }
    assert_eq!(sent, [60, 15, 5, 20], "at once or one after the other");
    assert_eq!(bed.client.spent().map(|spent| spent.window), Some(Window::Day));
    assert_eq!(bed.client.probe().await, Ok(()), "the probe is always sent");

    let note = bed.client.unnoted();
    assert_eq!(note, Usage { day: 20_000, requests: 101 });
    let next = Bed::connect(DEFINITION, limits(None, 8, Some(200), 20), &bed.system, &bed.secrets);
    let fresh = next.unnoted();
    next.noted(note.and(fresh), fresh);
    assert_eq!(next.uses()[0].used, 101, "another process goes on with the count");
    assert!(next.at(Priority::Backfill).spent().is_none());
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    assert_eq!((read(&bed.client.at(Priority::Backfill)).await, bed.client.quota()), (Ok(()), Quota::Ample), "another day");
}

#[tokio::test(start_paused = true)]
async fn a_vendors_word_is_read_and_the_probe_brings_news_of_it() {
    let bed = Bed::new(DEFINITION, limits(None, 8, None, 0), 0, |_, _, now| {
        let left = if now < 60_000 { "0" } else { "900" };
        (200, vec![("x-limit", "1000".into()), ("x-left", left.into())])
    });
    assert_eq!(read(&bed.client).await, Ok(()));
    assert_eq!((bed.client.quota(), bed.client.uses()[1].used), (Quota::Exhausted, 1000));
    let refused = read(&bed.client).await;
    assert_eq!(class(&refused), Some((ErrorClass::Throttled, "QuotaExhausted")));
    assert_eq!(bed.system.log().len(), 1, "nothing was sent for it");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bed.client.probe().await, Ok(()));
    assert_eq!((bed.client.quota(), read(&bed.client).await), (Quota::Ample, Ok(())));
}

/// All stand in line when the first is refused.
#[tokio::test(start_paused = true)]
async fn refused_credentials_are_asked_about_once_however_many_want_them() {
    // With a key it is the calls themselves that tell, and two are under way together.
    for (auth, path, requests) in [(TOKENS, "/token", 1), (KEY, "/things", 2)] {
        let bed = Bed::new(&DEFINITION.replace(KEY, auth), limits(None, 2, None, 0), 50, move |asked, _, now| {
            (if asked == path && now < 20_000 { 401 } else { 200 }, Vec::new())
        });
        let clients: Vec<Client> = (0..40).map(|at| bed.client.at(Priority::ALL[at % 4])).collect();
        let results = futures::future::join_all(clients.iter().map(read)).await;
        assert!(results.iter().all(|result| class(result) == Some((ErrorClass::Auth, "AuthenticationFailed"))), "{results:?}");
        assert_eq!(bed.system.asked(path), requests);
        assert_eq!(bed.system.log().len(), requests);
        for client in &clients {
            assert_eq!(class(&read(client).await), Some((ErrorClass::Auth, "AuthenticationFailed")));
        }
        assert_eq!(bed.system.log().len(), requests, "until it is time to look again, or the Secret changes");

        tokio::time::sleep(Duration::from_secs(3)).await;
        bed.client.refresh_secret().await.unwrap();
        assert!(bed.client.auth_paused().is_some(), "it is the same Secret still");
        tokio::time::sleep(Duration::from_secs(17)).await;
        bed.secrets.set("clientSecret", "another");
        bed.client.refresh_secret().await.unwrap();
        assert_eq!(bed.client.auth_paused(), None);
        let before = bed.system.asked(path);
        let results = futures::future::join_all(clients.iter().map(read)).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert_eq!(bed.system.asked(path) - before, if path == "/token" { 1 } else { 40 });
    }
}
