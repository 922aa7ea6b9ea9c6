//! A feed of orders, and what an HTTP target is to make of them: the work of `make bench` and of the soak.
//!
//! An order (1.1 KB, five lines) follows from its number and its version, so that whoever receives one can judge it without having kept it. The feed
//! is a list of entries, oldest first; an order that changes again gets another entry at the end, and only the newest one of each is
//! shown. Pages are ranges of entries, so nothing moves from one to another while somebody turns them.

use std::fmt::Write as _;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use anyhow::Context as _;
use axum::Router;
use fairlead_model::Decimal;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpListener;

/// Entries on a page of the feed, and records in a batch to a target.
pub const PAGE: usize = 200;
/// The manifests of an Integration that carries the feed to an HTTP target; both are reached at [`ENDPOINT`].
pub const MANIFESTS: &str = include_str!("orders.yaml");
/// Of an order changes this many parts: state, amount, lines and note.
pub const PARTS: usize = 4;
/// What stands in [`MANIFESTS`] for the address of feed and target.
pub const ENDPOINT: &str = "http://orders.example";
/// The currency of one order in ten; the others are in euros.
pub const RARE_CURRENCY: &str = "CHF";
/// The entries of the feed come one a second since this moment, in milliseconds since 1970. All of them are past, as the vendor's clock tells them.
const BEGIN: i64 = 1_735_689_600_000;
/// What the feed says of an order's state, and what a target is told.
const STATES: [(&str, &str); 3] = [("A", "draft"), ("B", "confirmed"), ("C", "shipped")];

/// Serves on loopback until the process ends; the address.
///
/// # Errors
/// When there is no port.
pub async fn serve(router: Router) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
    let address = listener.local_addr().context("read the address")?.to_string();
    let router = router.layer(axum::extract::DefaultBodyLimit::max(16 << 20));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

// ---- an order -------------------------------------------------------------------------------------------------------------------------------

/// Whether the order is one of the few in [`RARE_CURRENCY`].
#[must_use]
pub fn is_rare(number: usize) -> bool {
    number % 10 == 7
}

/// Its state, as a target is told.
#[must_use]
pub fn state(number: usize, version: u16) -> &'static str {
    STATES[(number + usize::from(version)) % STATES.len()].1
}

/// Its total, as text.
#[must_use]
pub fn amount(number: usize, version: u16) -> String {
    hundredths(lines(number, version).0 as u64)
}

/// Its note, which names the version.
#[must_use]
pub fn comment(number: usize, version: u16) -> String {
    let revision = if version == 0 { String::new() } else { format!(", revision {version}") };
    format!("Deliver to the rear entrance between eight and four; call the warehouse before you arrive. Reference {number}{revision}.")
}

/// Whether each part of an order is the same in two of its versions.
#[must_use]
pub fn same_parts(number: usize, one: u16, other: u16) -> [bool; PARTS] {
    let (total, quantities) = lines(number, one);
    let (other_total, other_quantities) = lines(number, other);
    [state(number, one) == state(number, other), total == other_total, quantities == other_quantities, one == other]
}

/// A number of hundredths, as text.
#[must_use]
pub fn hundredths(value: u64) -> String {
    format!("{}.{:02}", value / 100, value % 100)
}

/// The total of an order, and quantity and price of each of its lines.
fn lines(number: usize, version: u16) -> (usize, [(usize, usize); 5]) {
    let version = usize::from(version);
    let lines: [(usize, usize); 5] =
        std::array::from_fn(|line| (1 + (number + line + version) % 9, 101 + (number * 37 + line * 11) % 9899));
    (lines.iter().map(|(quantity, price)| quantity * price).sum(), lines)
}

/// The moment of an entry.
fn stamp(place: usize) -> String {
    let at = chrono::DateTime::from_timestamp_millis(BEGIN + i64::try_from(place).unwrap_or(0) * 1000).unwrap_or_default();
    at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// One order as the feed shows it.
fn order(number: usize, version: u16, place: usize, out: &mut String) {
    let (total, lines) = lines(number, version);
    let (total, notes, customer) = (hundredths(total as u64), comment(number, version), number % 10_007);
    let status = STATES[(number + usize::from(version)) % STATES.len()].0;
    let currency = if is_rare(number) { RARE_CURRENCY } else { "EUR" };
    let (created, updated) = (stamp(number), stamp(place));
    // Writing to a String does not fail.
    let _ = write!(
        out,
        r#"{{"id":"O-{number:09}","number":"SO-{number:09}","status":"{status}","currency":"{currency}","total":{total},"createdAt":"{created}","updatedAt":"{updated}","customer":{{"id":"C-{customer:06}","name":"Müller & Söhne GmbH {customer}","email":"orders-{customer}@customer.example","address":{{"street":"Hafenstraße {customer}","city":"Hamburg","zip":"20457","country":"de"}}}},"notes":"{notes}","items":["#
    );
    for (line, (quantity, price)) in lines.into_iter().enumerate() {
        let (comma, price) = (if line == 0 { "" } else { "," }, hundredths(price as u64));
        let _ = write!(
            out,
            r#"{comma}{{"lineId":"{number}-{line}","sku":"SKU-{:05}","description":"Stainless bracket, type {line}","quantity":{quantity},"unitPrice":{price}}}"#,
            (number * 7 + line) % 50_000
        );
    }
    out.push_str("]}");
}

// ---- the feed -------------------------------------------------------------------------------------------------------------------------------

/// What a reader asks for: a page of the entries since a moment.
#[derive(Debug, Deserialize)]
pub struct Ask {
    #[serde(default)]
    page: Option<usize>,
    #[serde(default)]
    since: Option<String>,
}

/// The orders that are published, and their changes.
#[derive(Clone, Debug, Default)]
pub struct Feed(Arc<RwLock<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    /// Number and version, oldest first.
    all: Vec<(u32, u16)>,
    /// By number: the place of the order's newest entry.
    newest: Vec<u32>,
}

impl Entries {
    fn add(&mut self, number: u32, version: u16) -> u32 {
        let place = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        self.all.push((number, version));
        place
    }
}

impl Feed {
    /// A feed of so many orders.
    #[must_use]
    pub fn of(orders: usize) -> Self {
        let feed = Self::default();
        feed.publish(orders);
        feed
    }

    fn entries(&self) -> RwLockReadGuard<'_, Entries> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries_mut(&self) -> RwLockWriteGuard<'_, Entries> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many orders there are.
    #[must_use]
    pub fn orders(&self) -> usize {
        self.entries().newest.len()
    }

    /// Adds orders until there are so many.
    pub fn publish(&self, orders: usize) {
        let mut entries = self.entries_mut();
        while entries.newest.len() < orders {
            let number = u32::try_from(entries.newest.len()).unwrap_or(u32::MAX);
            let place = entries.add(number, 0);
            entries.newest.push(place);
        }
    }

    /// Changes an order that there is.
    pub fn change(&self, number: usize) {
        let mut entries = self.entries_mut();
        let Some((order, version)) = entries.newest.get(number).and_then(|place| entries.all.get(*place as usize)).copied() else { return };
        let place = entries.add(order, version.saturating_add(1));
        entries.newest[number] = place;
    }

    /// By number: the version that each order has now.
    #[must_use]
    pub fn versions(&self) -> Vec<u16> {
        let entries = self.entries();
        entries.newest.iter().map(|place| entries.all[*place as usize].1).collect()
    }

    /// A page as JSON: `data`, and in `next` the number of the page that follows.
    #[must_use]
    pub fn page(&self, ask: &Ask) -> String {
        let entries = self.entries();
        let since = ask.since.as_ref().and_then(|since| chrono::DateTime::parse_from_rfc3339(since).ok());
        let first = since.map_or(0, |since| usize::try_from((since.timestamp_millis() - BEGIN + 999) / 1000).unwrap_or(0));
        let page = ask.page.unwrap_or(0);
        let begin = (first + page * PAGE).min(entries.all.len());
        let end = (begin + PAGE).min(entries.all.len());
        let mut out = String::with_capacity(PAGE * 1200);
        out.push_str(r#"{"data":["#);
        let mut comma = "";
        for place in begin..end {
            let (number, version) = entries.all[place];
            let number = number as usize;
            if entries.newest[number] as usize == place {
                out.push_str(comma);
                order(number, version, place, &mut out);
                comma = ",";
            }
        }
        out.push_str(&if end < entries.all.len() { format!(r#"],"next":{}}}"#, page + 1) } else { r#"],"next":null}"#.to_owned() });
        out
    }
}

// ---- what a target is sent ------------------------------------------------------------------------------------------------------------------

/// A batch as a target receives it.
#[derive(Debug, Deserialize)]
pub struct Batch {
    /// Its orders.
    pub records: Vec<Sent>,
}

/// What is judged of an order that arrives; a change carries what changed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    /// The target's own id, where the sender knows it.
    #[serde(default)]
    pub id: Option<String>,
    /// The sender's key.
    #[serde(default)]
    pub external_ref: Option<String>,
    /// The order's number, as text.
    #[serde(default)]
    pub order_no: Option<String>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    country: Option<String>,
    #[serde(default)]
    amount: Option<Value>,
    #[serde(default)]
    comment: Option<String>,
    #[serde(default)]
    lines: Option<Vec<SentLine>>,
}

#[derive(Debug, Deserialize)]
struct SentLine {
    sku: String,
    qty: u64,
}

impl Sent {
    /// The order's number.
    #[must_use]
    pub fn number(&self) -> Option<usize> {
        self.order_no.as_ref()?.strip_prefix("SO-")?.parse().ok()
    }

    /// The version that its note names.
    #[must_use]
    pub fn version(&self) -> Option<u16> {
        match self.comment.as_ref()?.rsplit_once(", revision ") {
            Some((_, version)) => version.trim_end_matches('.').parse().ok(),
            None => Some(0),
        }
    }

    /// Whether all that stands in it is this version of this order.
    #[must_use]
    pub fn is_right(&self, number: usize, version: u16) -> bool {
        let decimal = |text: &str| text.parse::<Decimal>().ok();
        let right_lines = |sent: &Vec<SentLine>| {
            let quantities = sent.iter().map(|line| line.qty).eq(lines(number, version).1.iter().map(|(quantity, _)| *quantity as u64));
            quantities && sent.iter().all(|line| line.sku.starts_with("SKU-"))
        };
        self.order_no.as_ref().is_none_or(|_| self.number() == Some(number))
            && self.state.as_ref().is_none_or(|sent| sent == state(number, version))
            && self.country.as_ref().is_none_or(|sent| sent == "DE")
            && self.amount.as_ref().is_none_or(|sent| decimal(sent.to_string().trim_matches('"')) == decimal(&amount(number, version)))
            && self.comment.as_ref().is_none_or(|sent| *sent == comment(number, version))
            && self.lines.as_ref().is_none_or(right_lines)
    }

    /// Which of state, amount, lines and note it has.
    #[must_use]
    pub fn parts(&self) -> [bool; PARTS] {
        [self.state.is_some(), self.amount.is_some(), self.lines.is_some(), self.comment.is_some()]
    }

    /// Whether it has what a short order has: number, state, amount and note.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.order_no.is_some() && self.state.is_some() && self.amount.is_some() && self.comment.is_some()
    }

    /// Whether it has everything that a target may be told of an order.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_short() && self.country.is_some() && self.lines.is_some()
    }
}
