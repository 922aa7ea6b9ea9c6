//! The floor of `make bench`: the same orders by the same libraries, with the same rows written in the same commits; nothing is read back, and nothing decided.
//! What Fairlead costs above it is its own doing; what a peer costs below it, it saves by keeping nothing.
//!
//! A page is fetched, parsed, turned into canonical orders and committed with an identity and a place in a lane for each; then the batch is marked as
//! claimed, noted as sent, sent, and settled with the target's identity, a commit each. Two rows have the place of a state, as long as Fairlead's.

use anyhow::Context as _;
use rusqlite::{Connection, ToSql, params};
use serde_json::{Map, Value, json};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long Fairlead's packed states of an order are, in the feed and in the target (`avg(length(state))` of a run), and its note of what was sent (by its layout).
const FEED_STATE: usize = 267;
const TARGET_STATE: usize = 521;
const SENT: usize = 610;
/// Native places in the feed, and in the target.
const FIELDS: [(&[&str], &str); 8] = [
    (&["number"], "orderNo"),
    (&["status"], "state"),
    (&["currency"], "currency"),
    (&["total"], "amount"),
    (&["customer", "name"], "customerName"),
    (&["customer", "email"], "customerEmail"),
    (&["customer", "address", "country"], "country"),
    (&["notes"], "comment"),
];
const LINE: [(&str, &str); 4] = [("lineId", "lineId"), ("sku", "sku"), ("quantity", "qty"), ("unitPrice", "price")];

const SCHEMA: &str = "
    PRAGMA page_size = 8192;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA wal_autocheckpoint = 4096;
    PRAGMA cache_size = -16384;
    CREATE TABLE record (row INTEGER PRIMARY KEY, id BLOB NOT NULL, version INTEGER NOT NULL, document TEXT NOT NULL) STRICT;
    CREATE UNIQUE INDEX record_by_id ON record (id);
    CREATE TABLE identity (record INTEGER NOT NULL, participant INTEGER NOT NULL, external_id TEXT NOT NULL, state TEXT NOT NULL,
        PRIMARY KEY (record, participant)) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX identity_by_external ON identity (participant, external_id);
    CREATE TABLE lane (record INTEGER NOT NULL, target INTEGER NOT NULL, phase INTEGER NOT NULL, due INTEGER NOT NULL, sent TEXT,
        PRIMARY KEY (record, target)) STRICT, WITHOUT ROWID;
    CREATE INDEX lane_order ON lane (target, phase, due);
    CREATE TABLE book (entered INTEGER NOT NULL, delivered INTEGER NOT NULL) STRICT;
    INSERT INTO book VALUES (0, 0);
    CREATE TABLE cursor (page INTEGER NOT NULL) STRICT;
    INSERT INTO cursor VALUES (0);";

#[tokio::main]
#[expect(clippy::disallowed_methods, reason = "feed and target are the bench's own")]
async fn main() -> anyhow::Result<()> {
    let argument = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let (feed, target, pages) = (argument("FEED")?, argument("TARGET")?, argument("PAGES")?.parse::<u32>()?);
    let folder = tempfile::tempdir()?;
    let connection = Connection::open(folder.path().join("state"))?;
    connection.execute_batch(SCHEMA)?;
    let client = reqwest::Client::new();
    for page in 0..pages {
        let body = client.get(format!("{feed}/orders?page={page}")).send().await?.error_for_status()?.bytes().await?;
        let body: Value = serde_json::from_slice(&body)?;
        let orders: Option<Vec<Map<String, Value>>> = body["data"].as_array().into_iter().flatten().map(canonical).collect();
        let orders = orders.context("an order lacks a field")?;
        let rows = absorb(&connection, &orders, page)?;
        let records: Vec<Value> = rows.iter().map(|(_, record)| record.clone()).collect();
        mark(&connection, &rows, "UPDATE lane SET phase = ?2 WHERE record = ?1", &3)?;
        mark(&connection, &rows, "UPDATE lane SET sent = ?2 WHERE record = ?1", &"s".repeat(SENT))?;
        let sent = serde_json::to_vec(&json!({"records": records}))?;
        let request = client.post(format!("{target}/orders/batch")).header("content-type", "application/json").body(sent);
        let answer: Value = serde_json::from_slice(&request.send().await?.error_for_status()?.bytes().await?)?;
        settle(&connection, &rows, &answer)?;
    }
    Ok(())
}

fn canonical(order: &Value) -> Option<Map<String, Value>> {
    let mut canonical = Map::new();
    for (from, to) in FIELDS {
        let value = from.iter().try_fold(order, |value, step| value.get(step))?;
        let value = match to {
            "state" => json!(match value.as_str()? {
                "A" => "draft",
                "B" => "confirmed",
                _ => "shipped",
            }),
            "country" => json!(value.as_str()?.to_uppercase()),
            "amount" => json!(value.to_string()),
            _ => value.clone(),
        };
        canonical.insert(to.to_owned(), value);
    }
    let line = |line: &Value| LINE.iter().map(|(from, to)| ((*to).to_owned(), line[*from].clone())).collect::<Map<_, _>>();
    canonical.insert("lines".to_owned(), order["items"].as_array()?.iter().map(line).collect());
    Some(canonical)
}

/// Commits a page; the rows of its records, and what each sends.
fn absorb(connection: &Connection, orders: &[Map<String, Value>], page: u32) -> anyhow::Result<Vec<(i64, Value)>> {
    let state = "s".repeat(FEED_STATE);
    let transaction = connection.unchecked_transaction()?;
    let mut rows = Vec::with_capacity(orders.len());
    for order in orders {
        let id = uuid::Uuid::now_v7();
        let number = order["orderNo"].as_str().unwrap_or_default();
        connection
            .prepare_cached("INSERT INTO record (id, version, document) VALUES (?1, 1, ?2)")?
            .execute(params![id.as_bytes(), serde_json::to_string(order)?])?;
        let row = connection.last_insert_rowid();
        connection.prepare_cached("INSERT INTO identity VALUES (?1, 1, ?2, ?3)")?.execute(params![row, number, state])?;
        connection.prepare_cached("INSERT INTO lane VALUES (?1, 2, 0, ?2, NULL)")?.execute(params![row, page])?;
        let mut record = order.clone();
        record.insert("externalRef".to_owned(), json!(id.to_string()));
        rows.push((row, Value::Object(record)));
    }
    connection.execute("UPDATE cursor SET page = ?1", [page])?;
    connection.execute("UPDATE book SET entered = entered + ?1", [i64::try_from(rows.len())?])?;
    transaction.commit()?;
    Ok(rows)
}

/// Commits one step of a batch.
fn mark(connection: &Connection, rows: &[(i64, Value)], step: &str, value: &dyn ToSql) -> anyhow::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    for (row, _) in rows {
        connection.prepare_cached(step)?.execute(params![row, value])?;
    }
    Ok(transaction.commit()?)
}

fn settle(connection: &Connection, rows: &[(i64, Value)], answer: &Value) -> anyhow::Result<()> {
    let state = "s".repeat(TARGET_STATE);
    let transaction = connection.unchecked_transaction()?;
    for ((row, _), result) in rows.iter().zip(answer["results"].as_array().into_iter().flatten()) {
        let id = result["id"].as_str().with_context(|| format!("the target answered {result}"))?;
        connection.prepare_cached("INSERT INTO identity VALUES (?1, 2, ?2, ?3)")?.execute(params![row, id, state])?;
        connection.prepare_cached("DELETE FROM lane WHERE record = ?1 AND target = 2")?.execute([row])?;
    }
    connection.execute("UPDATE book SET delivered = delivered + ?1", [i64::try_from(rows.len())?])?;
    Ok(transaction.commit()?)
}
