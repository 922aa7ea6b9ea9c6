//! How many records a table maps per second on one core: copies alone, and with expressions. Run with `--profile measured` for figures to quote.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use fairlead_mapping::{Lookups, Table, TableSource};
use fairlead_model::document::{Document, set};
use fairlead_model::schema::{CanonicalSchema, NativeSchema};
use fairlead_model::unit::RowUnit;
use serde_json::{Value, json};
use std::time::Instant;

/// The fields of a customer as they usually are: mostly texts.
const KINDS: [&str; 20] = [
    "String", "String", "String", "String", "String", "String", "String", "String", "String", "String", "String", "String", "Decimal",
    "Decimal", "Decimal", "Integer", "Integer", "Boolean", "Date", "DateTime",
];
const FIELDS: usize = KINDS.len();

fn main() {
    let mut native_fields = json!({});
    let mut canonical_fields = json!({});
    let mut record = json!({});
    for (n, kind) in KINDS.into_iter().enumerate() {
        let value = match kind {
            "Decimal" => json!("12345.67"),
            "Integer" => json!(42),
            "Boolean" => json!(true),
            "Date" => json!("2026-05-06"),
            "DateTime" => json!("2026-05-06T07:08:09.000+0000"),
            _ => json!("Llanfairpwllgwyngyll"),
        };
        native_fields[format!("F{n}")] = json!({"type": kind});
        canonical_fields[format!("f{n}")] = json!({"type": kind, "nullable": true, "required": false});
        record[format!("F{n}")] = value;
    }
    let native: NativeSchema = serde_json::from_value(native_fields).unwrap();
    let canonical: CanonicalSchema = serde_json::from_value(canonical_fields).unwrap();
    let record: Document = record.as_object().cloned().unwrap();

    let copies: Vec<Value> = (0..FIELDS).map(|n| json!({"canonical": format!("f{n}"), "native": format!("F{n}")})).collect();
    let mut some = copies.clone();
    some[3] = json!({"canonical": "f3", "native": "F3", "toCanonical": "upcase(string!(.record.F3))", "fromCanonical": ".record.f3"});
    some[12] = json!({"canonical": "f12", "native": "F12", "toCanonical": "decimal_mul!(.record.F12, \"1.19\")", "fromCanonical": "decimal_round!(.record.f12, 2)"});
    let all: Vec<Value> = (0..FIELDS)
        .map(|n| {
            let cast = match KINDS[n] {
                "Integer" => "int",
                "Boolean" => "bool",
                _ => "string",
            };
            json!({"canonical": format!("f{n}"), "native": format!("F{n}"), "toCanonical": format!("{cast}!(.record.F{n})"), "fromCanonical": format!("{cast}!(.record.f{n})")})
        })
        .collect();

    for (name, rows) in [("copies only", copies), ("two expressions", some), ("all expressions", all)] {
        let rows: Vec<RowUnit> = serde_json::from_value(Value::Array(rows)).unwrap();
        let source = TableSource {
            rows: &rows,
            lookups: &Lookups::default(),
            native: &native,
            canonical: &canonical,
            entity: "thing",
            key: None,
            when: None,
            read: true,
            write: true,
        };
        let start = Instant::now();
        let table = Table::compile(&source).unwrap();
        let compiled = start.elapsed();
        let mut there = Document::new();
        for (unit, value) in table.to_canonical(&record).unwrap().fields {
            set(&mut there, &unit, value);
        }
        let rate = |run: &dyn Fn()| {
            let start = Instant::now();
            let mut count = 0u128;
            while start.elapsed().as_millis() < 500 {
                (0..100).for_each(|_| run());
                count += 100;
            }
            count * 1_000_000 / start.elapsed().as_micros().max(1)
        };
        let inbound = rate(&|| {
            std::hint::black_box(table.to_canonical(&record).unwrap());
        });
        let outbound = rate(&|| {
            std::hint::black_box(table.to_native(&there, &|_, _| None).unwrap());
        });
        println!("{name}: {FIELDS} rows, compiled in {compiled:?}; to canonical {inbound}/s, to native {outbound}/s");
    }
}
