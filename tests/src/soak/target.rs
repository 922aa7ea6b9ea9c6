//! A target that remembers every write, in the order in which they took effect, and hangs up when it is told to.
//!
//! What it received takes effect, even if whoever sent it is gone meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::judge::Write;
use crate::orders::{Batch, Feed, PARTS, Sent, amount, comment, is_rare, same_parts, state};
use crate::relay::{Moment, Relay};

/// A batch takes so long to take effect.
const WORK: Duration = Duration::from_millis(5);

/// How a target writes a record that it is sent without its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It looks for the sender's key, and makes a record only where there is none.
    Upserts,
    /// It makes a record each time. Records can be read, and searched for by their number. It holds the orders in the rare currency.
    Creates,
}

/// A target behind a relay of its own.
#[derive(Clone, Debug)]
pub struct Target {
    /// What it is reached through.
    pub relay: Relay,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    kind: Kind,
    begun: Instant,
    held: Mutex<Held>,
    /// At which moment of the next batch it hangs up.
    hangs_up: Mutex<Option<Moment>>,
}

#[derive(Debug, Default)]
struct Held {
    writes: Vec<Write>,
    /// By record: its order, and of which version it was sent each part last.
    records: Vec<(u32, [u16; PARTS])>,
    by_key: HashMap<String, u32>,
    by_order: HashMap<u32, Vec<u32>>,
    /// What was wrong with a write.
    wrong: Option<String>,
}

/// The id of a record names its order, too, so that the store can be asked whether it confused two.
fn id(order: u32, record: u32) -> String {
    format!("{order:09}-{record}")
}

fn record_of(id: &str) -> Option<u32> {
    id.split_once('-')?.1.parse().ok()
}

impl Held {
    /// Takes a record, and gives its id.
    fn take(&mut self, kind: Kind, sent: &Sent, at: u32) -> Option<String> {
        let version = sent.version()?;
        let known = match &sent.id {
            Some(id) => Some(record_of(id)?),
            None if kind == Kind::Upserts => self.by_key.get(sent.external_ref.as_ref()?).copied(),
            None => None,
        };
        let order = match known {
            Some(record) => self.records.get(record as usize)?.0,
            None => u32::try_from(sent.number()?).ok()?,
        };
        let complete = match (sent.id.is_some(), kind) {
            (true, _) => true,
            (false, Kind::Upserts) => sent.is_whole(),
            (false, Kind::Creates) => sent.is_short(),
        };
        if !complete || !sent.is_right(order as usize, version) {
            return None;
        }
        let record = match known {
            Some(record) => record,
            None => {
                let record = u32::try_from(self.records.len()).ok()?;
                self.records.push((order, [version; PARTS]));
                match kind {
                    Kind::Upserts => drop(self.by_key.insert(sent.external_ref.clone()?, record)),
                    Kind::Creates => self.by_order.entry(order).or_default().push(record),
                }
                record
            }
        };
        let held = &mut self.records[record as usize].1;
        for (part, _) in held.iter_mut().zip(sent.parts()).filter(|(_, sent)| *sent) {
            *part = version;
        }
        self.writes.push(Write { record, order, version, at });
        Some(id(order, record))
    }

    /// A record as JSON.
    fn shown(&self, record: u32) -> Option<String> {
        let (order, [of_state, of_amount, _, of_comment]) = *self.records.get(record as usize)?;
        let (id, number) = (id(order, record), order as usize);
        let (state, amount, comment) = (state(number, of_state), amount(number, of_amount), comment(number, of_comment));
        Some(format!(r#"{{"id":"{id}","orderNo":"SO-{number:09}","state":"{state}","amount":{amount},"comment":"{comment}"}}"#))
    }
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hangs_up(&self) -> MutexGuard<'_, Option<Moment>> {
        self.hangs_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, batch: &Batch) -> Value {
        let at = u32::try_from(self.begun.elapsed().as_millis()).unwrap_or(u32::MAX);
        let mut held = self.held();
        let mut results = Vec::with_capacity(batch.records.len());
        for sent in &batch.records {
            let id = held.take(self.kind, sent, at);
            if id.is_none() {
                held.wrong.get_or_insert_with(|| format!("{sent:?}"));
            }
            results.push(json!({"status": if id.is_some() { "ok" } else { "refused" }, "id": id}));
        }
        json!({"results": results})
    }
}

impl Target {
    /// Starts an empty one.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(kind: Kind) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
        let relay = Relay::start(listener.local_addr().context("read the address")?.port()).await?;
        let shared = Shared { kind, begun: Instant::now(), held: Mutex::default(), hangs_up: Mutex::default() };
        let target = Self { relay, shared: Arc::new(shared) };
        let router = Router::new()
            .route("/orders/batch", post(batch))
            .route("/invoices/batch", post(batch))
            .route("/invoices", get(search))
            .route("/invoices/{id}", get(show))
            .route("/me", get(async || Json(json!({}))))
            .layer(axum::extract::DefaultBodyLimit::max(16 << 20))
            .with_state(target.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(target)
    }

    /// Whether an order belongs there.
    #[must_use]
    pub fn wants(&self, order: usize) -> bool {
        self.shared.kind == Kind::Upserts || is_rare(order)
    }

    /// How it writes.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.shared.kind
    }

    /// By number: the version of each order of the feed that belongs there.
    #[must_use]
    pub fn wanted(&self, feed: &Feed) -> Vec<Option<u16>> {
        feed.versions().into_iter().enumerate().map(|(order, version)| self.wants(order).then_some(version)).collect()
    }

    /// How many writes took effect.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.shared.held().writes.len()
    }

    /// How many records it holds.
    #[must_use]
    pub fn records(&self) -> usize {
        self.shared.held().records.len()
    }

    /// All writes, as they took effect.
    #[must_use]
    pub fn told(&self) -> Vec<Write> {
        self.shared.held().writes.clone()
    }

    /// Records that hold a part of another version than the newest one, which differs there; with what kept each part.
    #[must_use]
    pub fn mixed(&self, versions: &[u16]) -> Vec<String> {
        let held = self.shared.held();
        let is_mixed = |(order, parts): &&(u32, [u16; PARTS])| {
            let order = *order as usize;
            let newest = versions.get(order).copied().unwrap_or_default();
            // A short order has no lines.
            let judged = [true, true, self.shared.kind == Kind::Upserts, true];
            (0..PARTS).any(|part| judged[part] && !same_parts(order, parts[part], newest)[part])
        };
        held.records.iter().filter(is_mixed).map(|(order, parts)| format!("order {order}: parts of versions {parts:?}")).collect()
    }

    /// The first write that was not what the feed shows, if there was one.
    #[must_use]
    pub fn wrong(&self) -> Option<String> {
        self.shared.held().wrong.clone()
    }

    /// Hangs up on every client when the next batch is there: before it takes effect, or when it has and nobody was answered.
    pub fn hang_up(&self, moment: Moment) {
        *self.shared.hangs_up() = Some(moment);
    }

    /// Cuts the connections, and is never over: no answer is to be on its way when they end.
    async fn cut(&self) -> StatusCode {
        self.relay.cut();
        std::future::pending().await
    }

    /// Whether the batch that was named to [`Target::hang_up`] has not come yet.
    #[must_use]
    pub fn awaits(&self) -> bool {
        self.shared.hangs_up().is_some()
    }
}

async fn batch(State(target): State<Target>, Json(batch): Json<Batch>) -> Result<Json<Value>, StatusCode> {
    let hangs_up = target.shared.hangs_up().take();
    if hangs_up == Some(Moment::Before) {
        return Err(target.cut().await);
    }
    // Apart from the connection, whose end would end it.
    let shared = Arc::clone(&target.shared);
    let taken = tokio::spawn(async move {
        tokio::time::sleep(WORK).await;
        shared.take(&batch)
    });
    let answer = taken.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    if hangs_up == Some(Moment::Answered) {
        return Err(target.cut().await);
    }
    Ok(Json(answer))
}

#[derive(Deserialize)]
struct Search {
    field: String,
    value: String,
}

type Shown = Result<([(&'static str, &'static str); 1], String), StatusCode>;
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

async fn search(State(target): State<Target>, Query(search): Query<Search>) -> Shown {
    let order = search.value.strip_prefix("SO-").and_then(|number| number.parse().ok());
    let order: u32 = order.filter(|_| search.field == "orderNo").ok_or(StatusCode::BAD_REQUEST)?;
    let held = target.shared.held();
    let found: Vec<String> = held.by_order.get(&order).into_iter().flatten().filter_map(|record| held.shown(*record)).collect();
    Ok((JSON, format!(r#"{{"records":[{}]}}"#, found.join(","))))
}

async fn show(State(target): State<Target>, Path(id): Path<String>) -> Shown {
    let shown = record_of(&id).and_then(|record| target.shared.held().shown(record));
    Ok((JSON, shown.ok_or(StatusCode::NOT_FOUND)?))
}
