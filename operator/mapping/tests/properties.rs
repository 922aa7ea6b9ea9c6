//! What holds for any digits, any texts and any expression. The seed of a failing run is printed and kept by proptest.
#![allow(clippy::unwrap_used)]

mod common;

use common::{compile, document, table};
use fairlead_mapping::Table;
use fairlead_model::document::{Document, has_float, set};
use fairlead_model::{Decimal, FieldPath};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::LazyLock;

static COPIES: LazyLock<Table> = LazyLock::new(|| {
    table(json!([
        {"canonical": "nick", "native": "Nick"},
        {"canonical": "address.country", "native": "BillingCountryCode"},
        {"canonical": "annualRevenue", "native": "AnnualRevenue"},
        {"canonical": "employees", "native": "Employees"},
        {"canonical": "active", "native": "IsActive"},
        {"canonical": "since", "native": "Since"},
        {"canonical": "seenAt", "native": "SeenAt"},
        {"canonical": "contacts[]", "native": "Contacts.records[]"},
        {"canonical": "contacts[].email", "native": "Contacts.records[].Email"},
        {"canonical": "contacts[].quota", "native": "Contacts.records[].Quota"},
    ]))
});

static EXPRESSIONS: LazyLock<Table> = LazyLock::new(|| {
    table(json!([
        {"canonical": "annualRevenue", "native": "AnnualRevenue", "toCanonical": "to_decimal!(.record.AnnualRevenue)", "fromCanonical": "decimal_add!(.record.annualRevenue, 0)"},
        {"canonical": "nick", "native": "Nick", "toCanonical": "string!(.record.Nick)", "fromCanonical": "string!(.record.nick)"},
    ]))
});

fn inbound(table: &Table, native: &Document) -> Document {
    let mut result = Document::new();
    for (unit, value) in table.to_canonical(native).unwrap().fields {
        assert!(!has_float(&value));
        set(&mut result, &unit, value);
    }
    result
}

fn outbound(table: &Table, canonical: &Document) -> Document {
    let mut result = Document::new();
    for row in table.to_native(canonical, &|_, _| None).unwrap().rows {
        assert!(!has_float(&row.value));
        set(&mut result, &row.native, row.value);
    }
    result
}

fn at<'d>(document: &'d Document, path: &str) -> &'d Value {
    fairlead_model::document::get(document, &path.parse::<FieldPath>().unwrap()).unwrap()
}

proptest! {
    #[test]
    fn a_decimal_keeps_every_digit_on_its_way_and_back(text in "-?[0-9]{1,60}(\\.[0-9]{1,40})?(e-?[0-9])?") {
        let value: Decimal = text.parse().unwrap();
        for table in [&*COPIES, &*EXPRESSIONS] {
            let canonical = inbound(table, &document(json!({"AnnualRevenue": text, "Nick": "n"})));
            prop_assert_eq!(at(&canonical, "annualRevenue"), &json!(value.as_str()));
            let native = outbound(table, &canonical);
            prop_assert_eq!(at(&native, "AnnualRevenue"), &json!(value.as_str()));
            prop_assert_eq!(&inbound(table, &native), &canonical);
        }
    }

    #[test]
    fn copies_there_and_back_change_nothing(
        nick in proptest::option::of(".{0,40}"),
        country in proptest::option::of("[A-Z]{2}"),
        revenue in proptest::option::of("-?[0-9]{1,20}(\\.[0-9]{1,8})?"),
        employees in proptest::option::of(any::<i64>()),
        active in proptest::option::of(any::<bool>()),
        day in proptest::option::of((1970..2100i32, 1..=12u8, 1..=28u8)),
        millis in proptest::option::of(0..4_102_444_800_000i64),
        quotas in proptest::collection::vec(proptest::option::of(any::<i64>()), 0..4),
    ) {
        let contacts: Vec<Value> = quotas.iter().enumerate().map(|(n, quota)| json!({"Email": format!("{n}@example.com"), "Quota": quota})).collect();
        let native = document(json!({
            "Nick": nick, "BillingCountryCode": country, "AnnualRevenue": revenue, "Employees": employees, "IsActive": active,
            "Since": day.map(|(y, m, d)| format!("{y:04}-{m:02}-{d:02}")),
            "SeenAt": millis.map(|millis| fairlead_model::Timestamp(millis).to_rfc3339()),
            "Contacts": {"records": contacts},
        }));
        let once = inbound(&COPIES, &native);
        let back = outbound(&COPIES, &once);
        prop_assert_eq!(inbound(&COPIES, &back), once.clone());
        prop_assert_eq!(outbound(&COPIES, &once), back);
    }

    #[test]
    fn any_text_passes_an_expression_unchanged(text in ".{1,200}") {
        let canonical = inbound(&EXPRESSIONS, &document(json!({"Nick": text})));
        prop_assert_eq!(at(&canonical, "nick"), &json!(text));
        let native = outbound(&EXPRESSIONS, &canonical);
        prop_assert_eq!(at(&native, "Nick"), &json!(text));
    }

    #[test]
    fn no_text_makes_the_compiler_panic(source in ".{0,200}") {
        let _ = compile(json!([{"canonical": "nick", "native": "Nick", "toCanonical": source}]));
    }

    #[test]
    fn no_run_of_tokens_makes_the_compiler_or_the_record_panic(tokens in proptest::collection::vec(prop_oneof![
        Just(".record"), Just(".Nick"), Just(".item"), Just(".Contacts"), Just(".records"), Just("[0]"), Just("("), Just(")"), Just("{"), Just("}"),
        Just("["), Just("]"), Just("->"), Just("|"), Just("a"), Just("="), Just("=="), Just("!"), Just("??"), Just("||"), Just("&&"), Just("+"),
        Just("-"), Just("*"), Just("/"), Just(","), Just(";"), Just("\n"), Just("if"), Just("else"), Just("null"), Just("true"), Just("1"),
        Just("1.5"), Just("\"t\""), Just("s'r'"), Just("r'x'"), Just("t'2026-01-01T00:00:00Z'"), Just("string!"), Just("upcase"), Just("map_values"),
        Just("filter"), Just("decimal_sum!"), Just("decimal_add!"), Just("parse_int!"), Just("slice!"), Just("abort"), Just("return"), Just("%"), Just("exists"),
    ], 0..40)) {
        let source = tokens.join(" ");
        let rows = json!([{"canonical": "nick", "toCanonical": source}, {"canonical": "name", "native": "Name"}]);
        if let Ok(table) = compile(rows) {
            let native = document(json!({"Name": "A", "Nick": "n", "Contacts": {"records": [{"Id": "1"}]}}));
            if let Ok(result) = table.to_canonical(&native) {
                prop_assert!(result.fields.iter().all(|(_, value)| !has_float(value)));
            }
        }
    }
}

/// Nesting costs VRL's type check more than length does; what is taken must compile fast, and what is not must be refused, not overflow.
#[test]
fn deep_expressions_are_refused_before_they_cost_anything() {
    let deep = [
        format!("{}1{}", "(".repeat(511), ")".repeat(511)),
        format!("{}true", "!".repeat(1000)),
        format!("{}1{}", "[".repeat(511), "]".repeat(511)),
        vec!["1"; 512].join("+"),
        format!("{}1{}", "{\"a\":".repeat(170), "}".repeat(170)),
        format!("{}1{}", "if true {".repeat(90), "}".repeat(90)),
        format!("{}1{}", "upcase(".repeat(120), ")".repeat(120)),
    ];
    for source in deep {
        let start = std::time::Instant::now();
        assert!(compile(json!([{"canonical": "nick", "toCanonical": source}, {"canonical": "name", "native": "Name"}])).is_err());
        assert!(start.elapsed().as_secs() < 2, "{source}");
    }
}

/// The deepest expressions that are taken, in the shapes that cost most.
#[test]
fn the_deepest_expression_that_is_taken_compiles_fast() {
    let depth = 22;
    let shapes = [
        format!("{}\"a\"{}", "(".repeat(depth), ")".repeat(depth)),
        vec!["\"a\""; depth].join(" + "),
        vec!["string(.record.Nick)"; depth].join(" ?? ") + " ?? \"a\"",
        format!("{}\"a\"{}", "if .record.Nick == \"x\" { ".repeat(depth), " } else { \"b\" }".repeat(depth)),
        format!("{}\"a\"{}", "upcase(".repeat(depth), ")".repeat(depth)),
        format!("join!(map_values({}) -> |v| {{ \"a\" }})", "[".repeat(8) + &"]".repeat(8)),
        format!("{}\"a\"{}", "{ x = ".repeat(10), " }".repeat(10)),
    ];
    let mut slow = vec![];
    for source in shapes {
        let start = std::time::Instant::now();
        let result = compile(json!([{"canonical": "nick", "toCanonical": source}, {"canonical": "name", "native": "Name"}]));
        slow.push((start.elapsed().as_millis(), result.is_ok(), source));
    }
    assert!(slow.iter().all(|(millis, ..)| *millis < 2000), "{slow:#?}");
}
