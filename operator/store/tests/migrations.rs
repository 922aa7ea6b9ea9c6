//! Every schema that a Fairlead wrote, in either database, is opened with all it holds: the same rows, written by a schema and by each that came after
//! it, are the same state when they are migrated.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use fairlead_model::RecordId;
use fairlead_store::contract_tests::archive::{rows as lines, text_of};
use fairlead_store::contract_tests::server::Server;
use fairlead_store::contract_tests::world::{CRM, REALM, World, at, id, inserted, record};
use fairlead_store::{PostgresStore, SqliteStore, Store};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

/// What PostgreSQL's schemas hold, by the number of the SQLite schema that holds the same; the first came with SQLite's fifth.
const AGES_OF_POSTGRES: [usize; 9] = [5, 6, 7, 7, 8, 9, 10, 11, 12];

/// The newest of SQLite's.
const NEWEST: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Database {
    Sqlite,
    Postgres,
}

impl Database {
    /// The migrations in their order.
    fn migrations(self) -> Vec<String> {
        let name = if self == Self::Sqlite { "sqlite" } else { "postgres" };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(name);
        let count = std::fs::read_dir(&folder).unwrap().count();
        (1..=count).map(|number| std::fs::read_to_string(folder.join(format!("{number:04}.sql"))).unwrap()).collect()
    }

    fn bytes(self, bytes: &[u8]) -> String {
        let mut digits = String::new();
        bytes.iter().for_each(|byte| write!(digits, "{byte:02x}").unwrap());
        if self == Self::Sqlite { format!("x'{digits}'") } else { format!("'\\x{digits}'::bytea") }
    }

    fn id(self, id: RecordId) -> String {
        if self == Self::Sqlite { self.bytes(id.0.as_bytes()) } else { format!("'{id}'::uuid") }
    }

    /// A row; numbers that the database would give itself are given.
    fn row(self, table: &str, columns: &[(&str, String)]) -> String {
        let (names, values): (Vec<_>, Vec<_>) = columns.iter().map(|(name, value)| (*name, value.as_str())).unzip();
        let overriding = if self == Self::Postgres { " OVERRIDING SYSTEM VALUE" } else { "" };
        format!("INSERT INTO {table} ({}){overriding} VALUES ({});\n", names.join(", "), values.join(", "))
    }
}

/// A text as a literal.
fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A flag as a literal of either database.
fn flag(database: Database, flag: bool) -> String {
    if database == Database::Sqlite { u8::from(flag).to_string() } else { flag.to_string() }
}

/// `[("a", 1)]`: columns whose values are numbers.
fn numbers<const N: usize>(columns: [(&'static str, i64); N]) -> Vec<(&'static str, String)> {
    columns.map(|(name, value)| (name, value.to_string())).into()
}

/// What the Fairlead of schema `writer` stored, in the tables of schema `schema`, which is the same or a later one. Both are counted as SQLite's.
fn rows(database: Database, writer: usize, schema: usize, packed: &Packed) -> String {
    let (realm, crm, erp) = (1, 2, 3);
    let mut sql = String::new();
    let mut add = |table: &str, columns: &[Vec<(&'static str, String)>]| sql += &database.row(table, &columns.concat());
    for (number, name) in [(realm, REALM), (crm, CRM), (erp, "erp")] {
        add("name", &[numbers([("id", number)]), vec![("text", text(name))]]);
    }
    add("lease", &[vec![("key", text(&format!("lane/{REALM}/erp")))], numbers([("epoch", 6), ("until", 0)])]);

    let [keys, changed] = if schema < 3 { ["match_keys", ""] } else { ["index_keys", "changed_hour"] };
    let hour = at(0).0 / 3_600_000;
    for n in 1..=if writer < 2 { 2 } else { 3 } {
        let written = record(n, 1);
        let (document, hash) = (serde_json::to_string(&written.document).unwrap(), u64::MAX - n);
        let row = i64::try_from(n).unwrap();
        let mut columns = numbers([("row", row), ("realm", realm), ("version", 1), ("home", crm)]);
        columns.extend([("id", database.id(id(n))), (keys, database.bytes(&hash.to_le_bytes())), ("document", text(&document))]);
        let json = format!(r#"{{"name":{{"p":"crm","t":{}}}}}"#, at(0).0);
        columns.push(("provenance", text(if writer < 10 { &json } else { &packed.provenance })));
        match n {
            1 if writer >= 3 => columns.extend(numbers([(changed, hour)])),
            2 => columns.extend(numbers([("deleted_at", at(3).0)])),
            3 => columns.extend(numbers([("deleted_at", at(4).0), ("merged_into", 1)])),
            _ => {}
        }
        if n == 1 && writer >= 8 {
            columns.extend(numbers([("changed_book", realm)]));
        }
        add("record", &[columns]);
        if n == 1 {
            add(
                if schema < 3 { "match_key" } else { "index_key" },
                &[numbers([("realm", realm), ("hash", hash.cast_signed()), ("record", row)])],
            );
        }
        let state = text(if writer < 10 { r#"{"f":{"name":{"s":1}}}"# } else { &packed.state });
        let whose = numbers([("record", row), ("participant", crm), ("realm", realm), ("settled", 12)]);
        add("identity", &[whose, vec![("external_id", text(&format!("c{n}"))), ("state", state)]]);
    }

    // Sent and not answered, and beside it a later version that waits. PostgreSQL's epochs began anew with partitions.
    let epoch = if database == Database::Postgres { 0 } else { 6 };
    let mut lane = numbers([("record", 1), ("target", erp), ("realm", realm), ("phase", 3), ("due", 5), ("attempts", 2)]);
    lane.extend(numbers([
        ("origin", crm),
        ("since", 6),
        ("version", 1),
        ("c_origin", crm),
        ("c_since", 5),
        ("c_version", 1),
        ("c_epoch", epoch),
    ]));
    lane.extend(numbers([("c_at", 5), ("i_at", 5), ("i_version", 1)]));
    lane.extend([("held", flag(database, false)), ("i_sent", text(r#"{"to":"erp"}"#))]);
    add("lane", &[lane]);
    if writer >= 9 {
        let lane = numbers([("record", 2), ("target", erp), ("realm", realm), ("phase", 1), ("due", 5), ("attempts", 0)]);
        let waits = numbers([("origin", crm), ("since", 6), ("version", 1)]);
        add("lane", &[lane, waits, vec![("held", flag(database, true)), ("bulk", flag(database, true))]]);
    }

    let mut checkpoint = numbers([("realm", realm), ("participant", crm)]);
    checkpoint.extend([("slice", text("main")), ("cursor", text(r#"{"page":3}"#)), ("complete", flag(database, true))]);
    if writer >= 6 {
        checkpoint.extend(numbers([("at", at(7).0)]));
    }
    add("checkpoint", &[checkpoint]);

    let reread = |external: &str, since: i64, bulk: bool| {
        let mut columns = numbers([("realm", realm), ("participant", crm), ("since", since)]);
        columns.push(("external_id", text(external)));
        if schema >= 9 {
            columns.push(("bulk", flag(database, bulk)));
        }
        columns
    };
    add("reread", &[reread("c4", 5, false)]);
    // What has time was put behind all that is due by a time that has not come; since schema 9 it has a word of its own.
    add("reread", &[reread("c5", 9_000_000_000_000, true)]);
    for parent in if writer < 11 { &["c8"][..] } else { &["c8", "c9"] } {
        add("reread", &[reread("c6", 5, false), vec![("waits_for", text(parent))]]);
    }

    for (number, closed) in [(1, false), (2, true)] {
        let mut letter = numbers([("id", number), ("realm", realm), ("participant", crm), ("stage", 0), ("at", at(8).0), ("attempts", 1)]);
        letter.extend([
            ("external_id", text("c7")),
            ("original", text("{}")),
            ("class", text("Data")),
            ("reason", text("ValidationFailed")),
        ]);
        letter.push(("message", text("name: must not be empty")));
        if closed {
            letter.extend(numbers([("closed_at", at(9).0)]));
            letter.extend([("close_reason", text("Edited")), ("closed_by", text("kim"))]);
        }
        if writer >= 5 {
            letter.push(("detail", text("'' is no name")));
        }
        add("dead_letter", &[letter]);
    }

    let waiting = i64::from(writer >= 9);
    let mut book = numbers([("realm", realm), ("target", erp), ("origin", crm), ("entered", 9 + waiting), ("delivered", 1)]);
    book.extend(numbers([("unchanged", 0), ("superseded", 1), ("discarded", 0)]));
    if writer >= 8 {
        book.extend(numbers([("last_delivered", at(9).0)]));
    }
    add("lane_book", &[book]);
    let filtered = numbers([("realm", realm), ("target", erp), ("origin", crm), ("count", 5)]);
    add("filtered_book", &[filtered, vec![("reason", text("NotInScope"))]]);
    let mut source = numbers([("realm", realm), ("participant", crm), ("read", 9), ("changed", 2), ("unchanged", 6), ("dead_lettered", 1)]);
    if writer >= 8 {
        source.extend(numbers([("conflicts", 1)]));
        let past = numbers([("number", 1), ("realm", realm), ("participant", crm), ("at", at(9).0)]);
        let values = vec![("record", database.id(id(1))), ("field", text("name")), ("shown", text("1")), ("kept", text("\"2\""))];
        let fate = if writer < 12 { Vec::new() } else { numbers([("fate", 1)]) };
        add("past_conflict", &[past, values, fate]);
    }
    add("source_book", &[source]);
    let mut book = numbers([("realm", realm), ("live", 1), ("matched", 0), ("last_delivered", at(9).0)]);
    if schema < 8 {
        book.extend(numbers([("conflicts", 0)]));
    }
    add("realm_book", &[book]);
    let guard = numbers([("realm", realm), ("hour", hour), ("changes", 1), ("deletes", 0)]);
    if schema < 8 {
        add("guard_book", &[guard]);
    } else {
        add("guard_count", &[guard, numbers([("book", realm)])]);
    }
    add("note", &[numbers([("realm", realm)]), vec![("name", text("resync")), ("value", text("\"t\""))]]);
    if writer >= 4 {
        let write = numbers([("number", 1), ("held_until", 5), ("expires", at(99_999).0)]);
        add("api_write", &[write, vec![("scope", text("s")), ("fingerprint", text("x")), ("answer", text("{}"))]]);
    }
    sql + "UPDATE store SET sequence = 77;\n"
}

/// What a Fairlead writes since schema 10 for [`record`] and its state.
struct Packed {
    provenance: String,
    state: String,
}

async fn packed() -> Packed {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    World::new(Arc::new(SqliteStore::open(&path).unwrap()), "a").await.absorb(vec![inserted(1)], at(1)).await;
    let written = Connection::open(&path).unwrap();
    let one = |sql: &str| written.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    Packed { provenance: one("SELECT provenance FROM record"), state: one("SELECT state FROM identity") }
}

/// How many rows of each kind there are when the newest schema wrote them.
fn counted(lines: &[String]) -> BTreeMap<&str, usize> {
    let mut counted = BTreeMap::new();
    for line in lines {
        *counted.entry(line.split('"').nth(1).unwrap()).or_default() += 1;
    }
    counted
}

async fn export(store: &dyn Store) -> Vec<String> {
    let exported = text_of(store, None).await;
    lines(&exported).into_iter().map(ToOwned::to_owned).collect()
}

async fn of_sqlite(schema: usize, writer: usize, packed: &Packed) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let old = Connection::open(&path).unwrap();
    for step in &Database::Sqlite.migrations()[..schema] {
        old.execute_batch(step).unwrap();
    }
    old.pragma_update(None, "application_id", 0x464C_4544).unwrap();
    old.pragma_update(None, "user_version", i64::try_from(schema).unwrap()).unwrap();
    old.execute_batch(&rows(Database::Sqlite, writer, schema, packed)).unwrap();
    drop(old);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.sequence().await.unwrap(), 77);
    assert!(store.snapshot(REALM, at(10)).await.unwrap().balanced(), "schema {schema}, rows of {writer}");
    export(&store).await
}

#[tokio::test]
async fn every_schema_of_sqlite_is_opened_with_all_it_holds() {
    assert_eq!(Database::Sqlite.migrations().len(), NEWEST, "tell in `rows` what the schema that came holds");
    let packed = packed().await;
    for writer in 1..=NEWEST {
        let first = of_sqlite(writer, writer, &packed).await;
        for schema in writer + 1..=NEWEST {
            assert_eq!(of_sqlite(schema, writer, &packed).await, first, "schema {schema} beside {writer}");
        }
    }
    let newest = of_sqlite(NEWEST, NEWEST, &packed).await;
    let kinds = [
        ("checkpoint", 1),
        ("conflict", 1),
        ("epoch", 1),
        ("filteredBook", 1),
        ("guardBook", 1),
        ("identity", 3),
        ("lane", 2),
        ("laneBook", 1),
        ("letter", 2),
        ("merged", 1),
        ("note", 1),
        ("realm", 1),
        ("realmBook", 1),
        ("record", 3),
        ("reread", 4),
        ("sourceBook", 1),
        ("write", 1),
    ];
    assert_eq!(counted(&newest), BTreeMap::from(kinds), "{newest:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_schema_of_postgres_is_opened_with_all_it_holds() {
    let migrations = Database::Postgres.migrations();
    assert_eq!(migrations.len(), AGES_OF_POSTGRES.len(), "tell in `rows` what the schema that came holds");
    let packed = packed().await;
    let server = Server::start();
    let url = server.database("schemas");
    for (writer, age) in AGES_OF_POSTGRES.iter().enumerate() {
        let same = of_sqlite(*age, *age, &packed).await;
        for (schema, tables) in AGES_OF_POSTGRES.iter().enumerate().skip(writer) {
            let name = format!("of_{}_in_{}", writer + 1, schema + 1);
            let mut sql = format!("CREATE SCHEMA {name}; SET search_path = {name};\n");
            sql += "CREATE TABLE migration (number int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now());\n";
            for (number, step) in migrations.iter().enumerate().take(schema + 1) {
                writeln!(sql, "{step}\nINSERT INTO migration (number) VALUES ({});", number + 1).unwrap();
            }
            server.sql("schemas", &(sql + &rows(Database::Postgres, *age, *tables, &packed)));
            let store = PostgresStore::open(&format!("{url}&options=-c%20search_path%3D{name}")).await.unwrap();
            assert_eq!(store.sequence().await.unwrap(), 77);
            assert!(store.snapshot(REALM, at(10)).await.unwrap().balanced(), "{name}");
            let ours: Vec<String> = export(&store).await.into_iter().map(|line| line.replace("\"epoch\":0", "\"epoch\":6")).collect();
            assert_eq!(ours, same, "{name}");
        }
    }
}
