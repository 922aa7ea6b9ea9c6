//! How much CPU the store costs per record: look up, absorb, claim, intend and settle, first creating records, then changing them in random
//! order. `cargo run --release --example bench_store -p fairlead-store [records] [batch]`; the store lies in the temporary folder.
//!
//! CPU time of the whole process is the figure to compare (several threads take part); wall time depends on the disk.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::float_arithmetic, reason = "a measuring tool for people")]

use fairlead_model::hash::ValueHash;
use fairlead_model::state::{FieldState, ParticipantState};
use fairlead_model::{ExternalId, RecordId, Timestamp};
use fairlead_store::{
    Absorb, AbsorbRecord, Claim, Fence, Guarded, IndexKey, Intend, LeaseRequest, Origin, Outcome, Record, RecordChange, Settle, Settlement,
    SqliteStore, Store,
};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use uuid::Uuid;

const REALM: &str = "bench/customers";

fn state(version: u64) -> ParticipantState {
    let field = |n: u64| FieldState { seen: Some(ValueHash(n * 7919 + version)), sent: Some(ValueHash(n)), ..FieldState::default() };
    ParticipantState { fields: (0..12).map(|n| (format!("address.field{n}"), field(n))).collect(), ..ParticipantState::default() }
}

/// About 1 KB.
fn record(n: u64, version: u64) -> Record {
    let fields =
        (0..20).map(|field| (format!("field{field}"), serde_json::json!(format!("value {n} of field {field} in version {version}"))));
    Record {
        id: RecordId(Uuid::from_u64_pair(0x0190_0000_0000_7000 + (n >> 8), 0x8000_0000_0000_0000 | n)),
        version,
        document: fields.collect(),
        home: "crm".into(),
        provenance: BTreeMap::new(),
        deleted_at: None,
    }
}

fn cpu() -> Duration {
    // utime and stime of the process, in ticks of a hundredth of a second.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    Duration::from_millis((fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10)
}

struct Bench {
    store: SqliteStore,
    reader: Fence,
    lane: Fence,
}

impl Bench {
    async fn pass(&self, numbers: &[u64], version: u64, batch: usize) {
        let now = Timestamp(1_790_000_000_000 + i64::try_from(version).unwrap() * 1000);
        for chunk in numbers.chunks(batch) {
            let externals: Vec<ExternalId> = chunk.iter().map(|n| ExternalId(format!("0015g00000{n:08}"))).collect();
            let known = self.store.known_by_external(REALM, "crm", &externals).await.unwrap();
            assert!(known.iter().all(|known| known.is_some() == (version > 1)));
            let records = chunk.iter().zip(externals).map(|(n, external_id)| {
                let key = IndexKey { hash: n.wrapping_mul(0x9E37_79B9_7F4A_7C15), matches: true };
                let (record, keys) = (record(*n, version), vec![key]);
                let id = record.id;
                let change = if version == 1 { RecordChange::Insert { record, keys } } else { RecordChange::Update { record, keys } };
                let enqueue = vec![("erp".to_owned(), Origin::Source("crm".into()))];
                AbsorbRecord { id, change, external_id, state: state(version), enqueue, counts_as_changed: true }
            });
            let absorb = Absorb {
                realm: REALM.into(),
                participant: "crm".into(),
                fence: self.reader.clone(),
                records: records.collect(),
                dead_letters: Vec::new(),
                rereads: Vec::new(),
                reread_done: Vec::new(),
                gone: Vec::new(),
                checkpoint: None,
                unchanged: 0,
                guard: Guarded::default(),
                conflicts: 0,
                direct: 0,
                now,
            };
            self.store.absorb(&absorb).await.unwrap();
            let (realm, target, fence) = (REALM.to_owned(), "erp".to_owned(), self.lane.clone());
            let claim = Claim { realm: realm.clone(), target: target.clone(), fence: fence.clone(), max: batch, creates: true, now };
            let claimed = self.store.claim(&claim).await.unwrap();
            assert_eq!(claimed.len(), chunk.len());
            let sent = claimed.iter().map(|key| (key.known.record.id, serde_json::Value::Null)).collect();
            let intend = Intend { realm: realm.clone(), target: target.clone(), fence: fence.clone(), sent, now };
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
            self.store.settle(&Settle { realm, target, fence, results: results.collect(), now }).await.unwrap();
        }
    }
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>().unwrap());
    let count = arguments.next().unwrap_or(200_000);
    let batch = usize::try_from(arguments.next().unwrap_or(200)).unwrap();
    let folder = std::env::temp_dir().join(format!("fairlead-bench-{}", std::process::id()));
    let store = SqliteStore::open(&folder.join("store.db")).unwrap();
    let now = Timestamp(1_790_000_000_000);
    let lease = async |key: &str| {
        let request = LeaseRequest { key: key.into(), holder: "bench".into(), ttl: Duration::from_secs(3600), now };
        store.lease(&request).await.unwrap().unwrap()
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
    for (what, numbers, version) in [("create", &in_order, 1), ("update in random order", &shuffled, 2)] {
        let (cpu_before, begun) = (cpu(), Instant::now());
        bench.pass(numbers, version, batch).await;
        let per_record = |time: Duration| time.as_micros() as f64 / count as f64;
        println!(
            "{what}: {count} records in batches of {batch}: {:.1} us CPU, {:.1} us wall per record",
            per_record(cpu() - cpu_before),
            per_record(begun.elapsed())
        );
    }
    let begun = Instant::now();
    let snapshot = bench.store.snapshot(REALM, now).await.unwrap();
    assert!(snapshot.balanced());
    println!("snapshot: {:?}", begun.elapsed());
    drop(bench);
    std::fs::remove_dir_all(folder).unwrap();
}
