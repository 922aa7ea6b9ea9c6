//! A vendor of our own making: a few things behind a plain REST interface, with rules by which requests go wrong.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// What happens to a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// This answer, and nothing else.
    Status(u16),
    /// Too many requests; to be asked again after so many seconds.
    Throttled(u64),
    /// The answer takes so long.
    Slow(Duration),
    /// It is never answered, and takes effect when [`Vendor::release`] is called.
    Held,
}

struct Rule {
    part: String,
    fault: Fault,
    left: usize,
}

#[derive(Default)]
struct Things {
    by_id: BTreeMap<String, Map<String, Value>>,
    /// The next stamp, in seconds.
    now: u32,
    rules: Vec<Rule>,
    /// Every request, as `METHOD /path?query body`.
    log: Vec<String>,
}

/// The vendor.
#[derive(Clone, Default)]
pub(crate) struct Vendor {
    things: Arc<Mutex<Things>>,
    released: Arc<Notify>,
    endpoint: String,
}

impl Vendor {
    /// One that listens.
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let vendor = Self { endpoint: format!("http://{}", listener.local_addr().unwrap()), ..Self::default() };
        let router = Router::new().fallback(answer).with_state(vendor.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        vendor
    }

    /// Where it listens.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The next `times` requests that hold `part` go wrong. A word of hexadecimal digits ("bad") would stand in some ids, too.
    pub(crate) fn fault(&self, part: &str, fault: Fault, times: usize) {
        self.things.lock().unwrap().rules.push(Rule { part: part.into(), fault, left: times });
    }

    /// Nothing goes wrong any more.
    pub(crate) fn heal(&self) {
        self.things.lock().unwrap().rules.clear();
    }

    /// What is held takes effect now.
    pub(crate) fn release(&self) {
        self.released.notify_waiters();
    }

    /// Somebody makes or edits a thing.
    pub(crate) fn put(&self, id: &str, values: Value) {
        self.things.lock().unwrap().put(id, values);
    }

    /// Something changes or makes a thing without moving its stamp, as a restored backup does.
    pub(crate) fn slip(&self, id: &str, values: Value) {
        let mut things = self.things.lock().unwrap();
        let thing = things.by_id.entry(id.to_owned()).or_default();
        thing.entry("id").or_insert(json!(id));
        thing.entry("updated").or_insert(json!("2025-01-01T00:00:00.000Z"));
        thing.extend(values.as_object().cloned().unwrap());
    }

    /// A thing is gone, and nothing tells of it.
    pub(crate) fn vanish(&self, id: &str) {
        self.things.lock().unwrap().by_id.remove(id);
    }

    /// Its clock is put forward.
    pub(crate) fn forward(&self, seconds: u32) {
        self.things.lock().unwrap().now += seconds;
    }

    /// A thing is listed without its id from now on.
    pub(crate) fn hide_id(&self, id: &str) {
        self.things.lock().unwrap().by_id.get_mut(id).unwrap().remove("id");
    }

    /// A field of a thing.
    pub(crate) fn value(&self, id: &str, field: &str) -> Value {
        self.things.lock().unwrap().by_id.get(id).and_then(|thing| thing.get(field)).cloned().unwrap_or(Value::Null)
    }

    /// The id of the thing called `name`.
    pub(crate) fn id_of(&self, name: &str) -> Option<String> {
        let things = self.things.lock().unwrap();
        things.by_id.iter().find(|(_, thing)| thing.get("name") == Some(&json!(name))).map(|(id, _)| id.clone())
    }

    /// How many things there are.
    pub(crate) fn count(&self) -> usize {
        self.things.lock().unwrap().by_id.len()
    }

    /// The requests so far that hold `part`.
    pub(crate) fn asked(&self, part: &str) -> Vec<String> {
        self.things.lock().unwrap().log.iter().filter(|line| line.contains(part)).cloned().collect()
    }
}

impl Things {
    fn put(&mut self, id: &str, values: Value) -> Value {
        self.now += 1;
        let stamp = format!("2026-01-01T{:02}:{:02}:{:02}.000Z", self.now / 3600, self.now / 60 % 60, self.now % 60);
        let thing = self.by_id.entry(id.to_owned()).or_default();
        thing.extend(values.as_object().cloned().unwrap_or_default());
        thing.insert("id".into(), json!(id));
        thing.insert("updated".into(), json!(stamp));
        Value::Object(thing.clone())
    }

    fn fault(&mut self, line: &str) -> Option<Fault> {
        let rule = self.rules.iter_mut().find(|rule| rule.left > 0 && line.contains(&rule.part))?;
        rule.left -= 1;
        Some(rule.fault)
    }

    /// What a request does, and its answer.
    fn effect(&mut self, method: &str, path: &str, query: &BTreeMap<String, String>, body: &str) -> Option<Value> {
        let values = serde_json::from_str(body).unwrap_or(Value::Null);
        match (method, path.strip_prefix("/things/")) {
            ("GET", None) if path == "/things" => {
                let fits = |thing: &&Map<String, Value>| {
                    let text = |field: &str| thing.get(field).and_then(Value::as_str).unwrap_or_default();
                    query.get("since").is_none_or(|since| text("updated") >= since.as_str())
                        && query.get("field").is_none_or(|field| Some(text(field)) == query.get("equals").map(String::as_str))
                };
                let after = query.get("after").map_or("", String::as_str);
                let mut left = self.by_id.iter().filter(|(id, thing)| id.as_str() > after && fits(thing)).peekable();
                let page = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
                let page: Vec<_> = left.by_ref().take(page).collect();
                let next = page.last().filter(|_| left.peek().is_some()).map_or("", |(id, _)| id.as_str());
                Some(json!({ "data": page.iter().map(|(_, thing)| thing).collect::<Vec<_>>(), "next": next }))
            }
            ("GET", Some(id)) => self.by_id.get(id).map(|thing| Value::Object(thing.clone())),
            ("PUT", Some(key)) => {
                let known = self.by_id.iter().find(|(_, thing)| thing.get("key") == Some(&json!(key))).map(|(id, _)| id.clone());
                let id = known.unwrap_or_else(|| format!("made-{}", self.now));
                self.put(&id, json!({ "key": key }));
                Some(self.put(&id, values))
            }
            ("POST", None) if path == "/things" => Some(self.put(&format!("made-{}", self.now), values)),
            ("PATCH", Some(id)) if self.by_id.contains_key(id) => Some(self.put(id, values)),
            ("DELETE", Some(id)) => self.by_id.remove(id).map(Value::Object),
            ("POST", None) if path == "/token" => Some(json!({ "access_token": "token" })),
            ("GET", None) => Some(json!({})),
            _ => None,
        }
    }
}

async fn answer(State(vendor): State<Vendor>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body = String::from_utf8_lossy(&body).into_owned();
    let (method, path) = (parts.method.to_string(), parts.uri.path().to_owned());
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let line = format!("{method} {} {body}", parts.uri);
    let fault = {
        let mut things = vendor.things.lock().unwrap();
        things.log.push(line.clone());
        things.fault(&line)
    };
    match fault {
        Some(Fault::Status(status)) => return reply(status, &json!({"error": "as the script says"})),
        Some(Fault::Throttled(seconds)) => {
            let mut reply = reply(429, &json!({}));
            reply.headers_mut().insert("retry-after", seconds.into());
            return reply;
        }
        Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
        Some(Fault::Held) => {
            // The vendor goes on although the caller may be gone.
            let (vendor, released) = (vendor.clone(), Arc::clone(&vendor.released));
            let done = tokio::spawn(async move {
                released.notified().await;
                vendor.things.lock().unwrap().effect(&method, &path, &query, &body);
            });
            let _ = done.await;
            return reply(500, &json!({}));
        }
        None => {}
    }
    let done = vendor.things.lock().unwrap().effect(&method, &path, &query, &body);
    done.map_or_else(|| reply(404, &json!({})), |answer| reply(200, &answer))
}

fn reply(status: u16, body: &Value) -> Response {
    Response::builder().status(status).header("content-type", "application/json").body(body.to_string().into()).unwrap()
}
