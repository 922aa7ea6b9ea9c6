//! How much CPU the store costs per record: look up, absorb, claim, intend and settle, first creating records, then changing them in random
//! order; then comparing a range, by what is known of each record and by one hash, which is how a reconciliation begins. `cargo run --release --example bench_store -p fairlead-store [records] [batch] [sqlite|postgres]`; the store lies in the temporary
//! folder, for PostgreSQL in a server that is started for it.
//!
//! CPU time of the whole process, and of the server's processes, is the figure to compare (several threads take part); wall time depends on the
//! disk.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::float_arithmetic, reason = "a measuring tool for people")]

use fairlead_model::hash::ValueHash;
use fairlead_model::state::{FieldState, ParticipantState};
use fairlead_model::{ExternalId, RecordId, SmolStr, Timestamp};
use fairlead_store::contract_tests::server::Server;
use fairlead_store::{
    Absorb, AbsorbRecord, Claim, Fate, Fence, FieldChange, Guarded, IndexKey, Intend, LeaseRequest, Origin, Outcome, PostgresStore, Record,
    RecordChange, Settle, Settlement, SqliteStore, Store,
};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use uuid::Uuid;

const REALM: &str = "bench/customers";

fn state(version: u64) -> ParticipantState {
    let field = |n: u64| FieldState { seen: Some(ValueHash(n * 7919 + version)), sent: Some(ValueHash(n)), ..FieldState::default() };
    ParticipantState { fields: (0..12).map(|n| (format!("address.field{n}").into(), field(n))).collect(), ..ParticipantState::default() }
}

fn value(n: u64, field: usize, version: u64) -> serde_json::Value {
    format!("value {n} of field {field} in version {version}").into()
}

/// About 1 KB.
fn record(n: u64, version: u64) -> Record {
    let fields = (0..20).map(|field| (format!("field{field}"), value(n, field, version)));
    Record {
        id: RecordId(Uuid::from_u64_pair(0x0190_0000_0000_7000 + (n >> 8), 0x8000_0000_0000_0000 | n)),
        version,
        document: fields.collect(),
        home: "crm".into(),
        provenance: BTreeMap::new(),
        deleted_at: None,
    }
}

/// The parent of a process, and the CPU time of it and of its children that ended.
fn process(id: &str) -> Option<(i32, Duration)> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    // In ticks of a hundredth of a second.
    let ticks: u64 = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some((fields.get(1)?.parse().ok()?, Duration::from_millis(ticks * 10)))
}

fn cpu() -> Duration {
    process("self").unwrap().1
}

/// Of the server's first process and its children.
fn cpu_of_server(server: Option<&Server>) -> Duration {
    let Some(server) = server else { return Duration::ZERO };
    let ids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let ours = |id: &str| process(id).filter(|(parent, _)| *parent == server.pid() || id == server.pid().to_string());
    ids.filter_map(|id| ours(&id)).map(|(_, time)| time).sum()
}

struct Bench {
    store: Box<dyn Store>,
    reader: Fence,
    lane: Fence,
}

impl Bench {
    /// Reads, writes and settles each record once; where it is `told`, the change of a field goes into the history.
    async fn pass(&self, numbers: &[u64], version: u64, batch: usize, told: bool) {
        let now = Timestamp(1_790_000_000_000 + i64::try_from(version).unwrap() * 1000);
        for chunk in numbers.chunks(batch) {
            let externals: Vec<ExternalId> = chunk.iter().map(|n| ExternalId(format!("0015g00000{n:08}"))).collect();
            let known = self.store.known_by_external(REALM, "crm", &externals).await.unwrap();
            assert!(known.iter().all(|known| known.is_some() == (version > 1)));
            let (mut records, mut history) = (Vec::new(), Vec::new());
            for (n, external_id) in chunk.iter().zip(externals) {
                let key = IndexKey { hash: n.wrapping_mul(0x9E37_79B9_7F4A_7C15), matches: true };
                let (record, keys) = (record(*n, version), vec![key]);
                let id = record.id;
                let change = if version == 1 { RecordChange::Insert { record, keys } } else { RecordChange::Update { record, keys } };
                let enqueue = vec![("erp".to_owned(), Origin::Source("crm".into()))];
                records.push(AbsorbRecord { id, change, external_id, state: state(version), enqueue, counts_as_changed: true });
                if told {
                    let (from, to) = (Some(value(*n, 0, version - 1)), Some(value(*n, 0, version)));
                    history.push(FieldChange { record: id, field: Some("field0".parse().unwrap()), from, to, fate: Fate::Won });
                }
            }
            let absorb = Absorb {
                realm: REALM.into(),
                participant: "crm".into(),
                fence: self.reader.clone(),
                history,
                records,
                dead_letters: Vec::new(),
                rereads: Vec::new(),
                reread_done: Vec::new(),
                began: 0,
                gone: Vec::new(),
                checkpoint: None,
                unchanged: 0,
                guard: Guarded::default(),
                direct: 0,
                now,
            };
            self.store.absorb(&absorb).await.unwrap();
            let (realm, target, fence) = (REALM.to_owned(), "erp".to_owned(), self.lane.clone());
            let claim = Claim {
                realm: realm.clone(),
                target: target.clone(),
                fence: fence.clone().into(),
                max: batch,
                creates: true,
                bulk: true,
                now,
            };
            let claimed = self.store.claim(&claim).await.unwrap();
            assert_eq!(claimed.len(), chunk.len());
            let sent = claimed.iter().map(|key| (key.known.record.id, serde_json::Value::Null)).collect();
            let intend = Intend { realm: realm.clone(), target: target.clone(), fence: fence.clone().into(), sent, now };
            self.store.intend(&intend).await.unwrap();
            let results = claimed.iter().map(|key| Settlement {
                id: key.known.record.id,
                version,
                learnt: None,
                outcome: Outcome::Delivered {
                    external_id: ExternalId(format!("e{}", key.known.record.id)),
                    state: state(version),
                    incomplete: None,
                },
            });
            self.store.settle(&Settle { realm, target, fence: fence.into(), results: results.collect(), now }).await.unwrap();
        }
    }
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let count: u64 = arguments.next().map_or(200_000, |text| text.parse().unwrap());
    let batch: usize = arguments.next().map_or(200, |text| text.parse().unwrap());
    let server = (arguments.next().as_deref() == Some("postgres")).then(Server::start);
    let folder = std::env::temp_dir().join(format!("fairlead-bench-{}", std::process::id()));
    let store: Box<dyn Store> = match &server {
        Some(server) => Box::new(PostgresStore::open(&server.database("bench")).await.unwrap()),
        None => Box::new(SqliteStore::open(&folder.join("store.db")).unwrap()),
    };
    let now = Timestamp(1_790_000_000_000);
    let lease = async |key: &str| {
        let request = LeaseRequest { keys: vec![key.into()], holder: "bench".into(), ttl: Duration::from_secs(3600), now };
        store.lease(&request).await.unwrap().remove(0).unwrap()
    };
    let (reader, lane) = (lease("reader/bench/customers/crm").await, lease("lane/bench/customers/erp").await);
    let bench = Bench { store, reader, lane };
    let in_order: Vec<u64> = (0..count).collect();
    let mut shuffled = in_order.clone();
    let mut seed = 1_u64;
    for place in (1..shuffled.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        shuffled.swap(place, usize::try_from(seed >> 33).unwrap() % (place + 1));
    }
    let passes = [
        ("create", &in_order, 1, false),
        ("update in random order", &shuffled, 2, false),
        ("the same with a field's history", &shuffled, 3, true),
    ];
    for (what, numbers, version, told) in passes {
        let (cpu_before, server_before, begun) = (cpu(), cpu_of_server(server.as_ref()), Instant::now());
        bench.pass(numbers, version, batch, told).await;
        let per_record = |time: Duration| time.as_micros() as f64 / count as f64;
        println!(
            "{what}: {count} records in batches of {batch}: {:.1} us CPU, {:.1} us CPU of the server, {:.1} us wall per record",
            per_record(cpu() - cpu_before),
            per_record(cpu_of_server(server.as_ref()) - server_before),
            per_record(begun.elapsed())
        );
    }
    let fields: Vec<SmolStr> = state(2).fields.into_keys().collect();
    let ids: Vec<ExternalId> = in_order.iter().map(|n| ExternalId(format!("0015g00000{n:08}"))).collect();
    // In turn, so that neither has the warmer cache.
    let (mut by_record, mut by_range) = (Duration::ZERO, Duration::ZERO);
    for ids in ids.chunks(batch) {
        let before = cpu() + cpu_of_server(server.as_ref());
        let known = bench.store.known_by_external(REALM, "crm", ids).await.unwrap();
        assert!(known.iter().all(Option::is_some));
        let between = cpu() + cpu_of_server(server.as_ref());
        assert!(bench.store.seen(REALM, "crm", ids, &fields).await.unwrap().is_some());
        by_record += between - before;
        by_range += cpu() + cpu_of_server(server.as_ref()) - between;
    }
    let per_record = |time: Duration| time.as_micros() as f64 / count as f64;
    println!(
        "compare ranges of {batch}: {:.1} us CPU per record by all that is known, {:.1} by one hash",
        per_record(by_record),
        per_record(by_range)
    );
    let begun = Instant::now();
    let snapshot = bench.store.snapshot(REALM, now).await.unwrap();
    assert!(snapshot.balanced());
    println!("snapshot: {:?}", begun.elapsed());
    drop(bench);
    if server.is_none() {
        std::fs::remove_dir_all(folder).unwrap();
    }
}
