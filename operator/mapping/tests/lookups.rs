//! Lookup tables: there and back, what has no line, and what a user reads when a table does not fit.
#![allow(clippy::unwrap_used)]

mod common;

use common::{compile, compile_with, document, table};
use fairlead_mapping::{Finding, How, Severity, Table};
use serde_json::{Value, json};

const COUNTRY: &str = "address.country";

fn countries(lookup: Value) -> Table {
    let mut row = json!({"canonical": COUNTRY, "native": "BillingCountryCode", "lookup": {"name": "countries", "digest": ""}});
    row["lookup"].as_object_mut().unwrap().extend(document(lookup));
    table(json!([{"canonical": "name", "native": "Name"}, row]))
}

fn read(table: &Table, value: Value) -> Result<Value, String> {
    let inbound = table.to_canonical(&document(json!({"Name": "A", "BillingCountryCode": value}))).map_err(|error| error.to_string())?;
    Ok(inbound.fields.into_iter().find(|(unit, _)| unit.to_string() == COUNTRY).unwrap().1)
}

fn written(table: &Table, value: Value) -> Result<Value, String> {
    let canonical = document(json!({"name": "A", "address": {"country": value}}));
    let outbound = table.to_native(&canonical, &|_, _| None).map_err(|error| error.to_string())?;
    Ok(outbound.rows.into_iter().find(|row| row.native.to_string() == "BillingCountryCode").unwrap().value)
}

fn told(result: Result<Table, Vec<Finding>>) -> Vec<String> {
    let findings = result.map_or_else(|findings| findings, |table| table.warnings().to_vec());
    let mark = |finding: &Finding| if finding.severity == Severity::Warning { "warning: " } else { "" };
    findings.iter().map(|finding| format!("{}{finding}", mark(finding))).collect()
}

fn with(canonical: &str, native: &str, name: &str) -> Value {
    json!([{"canonical": "name", "native": "Name"}, {"canonical": canonical, "native": native, "lookup": {"name": name, "digest": ""}}])
}

#[test]
fn values_are_translated_there_and_back() {
    let table = countries(json!({}));
    for (canonical, native) in [("DE", "Germany"), ("KR", "Korea, Republic of"), ("CI", "Côte d’Ivoire")] {
        assert_eq!(read(&table, json!(native)), Ok(json!(canonical)));
        assert_eq!(written(&table, json!(canonical)), Ok(json!(native)));
    }
    assert_eq!((read(&table, Value::Null), written(&table, Value::Null)), (Ok(Value::Null), Ok(Value::Null)));
    let lineage = table.lineage();
    assert!(lineage.iter().any(|field| field.read.as_ref().is_some_and(|trace| trace.how == How::Lookup)), "{lineage:?}");
}

#[test]
fn a_value_without_a_line_is_a_failure_that_names_the_field_and_not_the_value() {
    let table = countries(json!({}));
    let place = "row 1 (address.country, BillingCountryCode): ";
    assert_eq!(read(&table, json!("Atlantis")), Err(format!("{place}a text of 8 characters has no line in the lookup table countries")));
    assert_eq!(written(&table, json!("XX")), Err(format!("{place}a text of 2 characters has no line in the lookup table countries")));
    assert_eq!(read(&table, json!(["Germany"])), Err(format!("{place}is list, the lookup table wants a single value")));
}

#[test]
fn or_it_is_the_value_declared_for_all_others() {
    let table = countries(json!({"canonical": "ZZ", "native": "Other"}));
    assert_eq!((read(&table, json!("Atlantis")), written(&table, json!("XX"))), (Ok(json!("ZZ")), Ok(json!("Other"))));
    assert_eq!(read(&table, json!("Germany")), Ok(json!("DE")));
    let one_way = countries(json!({"canonical": "ZZ"}));
    assert!(written(&one_way, json!("XX")).is_err());
}

#[test]
fn whole_numbers_and_rows_in_lists_are_looked_up_too() {
    let numbers = table(json!([
        {"canonical": "name", "native": "Name"},
        {"canonical": "nick", "native": "Employees", "lookup": {"name": "sizes", "digest": ""}},
        {"canonical": "contacts[]", "native": "Contacts.records[]", "key": "Id"},
        {"canonical": "contacts[].name", "native": "Contacts.records[].LastName", "lookup": {"name": "countries", "digest": ""}},
    ]));
    let native = document(json!({"Name": "A", "Employees": 100, "Contacts": {"records": [{"Id": "1", "LastName": "Germany"}]}}));
    let inbound = numbers.to_canonical(&native).unwrap();
    assert_eq!(inbound.fields[1].1, json!("big"));
    assert_eq!(inbound.fields[2].1, json!([{"name": "DE"}]));
    let back = numbers.to_native(&document(json!({"name": "A", "nick": "small", "contacts": [{"name": "KR"}]})), &|_, _| None).unwrap();
    assert_eq!((&back.rows[1].value, &back.rows[2].value), (&json!(1), &json!([{"LastName": "Korea, Republic of"}])));
}

#[test]
fn a_table_that_cannot_be_inverted_is_only_read() {
    let rows = with(COUNTRY, "BillingCountryCode", "synonyms");
    let why = "synonyms cannot be inverted, since \"DE\" stands for \"Germany\" and for \"Deutschland\"";
    assert_eq!(
        told(compile(rows.clone())),
        [format!(
            "warning: row 1: address.country: {why}: the row is only read; give each canonical value one native value to have it written"
        )]
    );
    let table = table(rows.clone());
    assert_eq!((read(&table, json!("Germany")), read(&table, json!("Deutschland"))), (Ok(json!("DE")), Ok(json!("DE"))));
    assert!(!table.writable_units().iter().any(|unit| unit.to_string() == COUNTRY));
    assert_eq!(
        told(compile_with(rows, |source| source.read = false)),
        [format!("row 1: address.country: {why}; give each canonical value one native value")]
    );
}

#[test]
fn what_does_not_fit_is_told() {
    assert_eq!(
        told(compile(with(COUNTRY, "BillingCountryCode", "unclear"))),
        ["row 1: address.country: the native value \"Britain\" of unclear stands for \"GB\" and for \"UK\"; give it one canonical value"]
    );
    assert_eq!(
        told(compile(with(COUNTRY, "BillingCountryCode", "nothing"))),
        ["row 1: address.country: there is no lookup table nothing; create its ConfigMap, or correct the name"]
    );
    assert_eq!(
        told(compile(with("status", "Type", "kinds"))),
        [
            "row 1: status: kinds: \"Porspect\" is none of the values of the native field; did you mean Prospect?",
            "row 1: status: kinds: \"former\" is none of the values of the contract",
            "row 1: status: kinds: \"Former\" is none of the values of the native field",
        ]
    );
    let mut rows = with("status", "Type", "countries");
    rows[1]["toCanonical"] = json!(".record.Type");
    assert_eq!(
        told(compile(rows)),
        ["row 1: status: a lookup table and another way to make the value exclude each other; keep one of them"]
    );
    let mut rows = with(COUNTRY, "BillingCountryCode", "countries");
    rows[1]["lookup"]["native"] = json!("More than ten characters");
    rows[1]["native"] = json!("BillingCity");
    assert!(
        told(compile(rows))
            .iter()
            .any(|line| line.contains("countries: \"Korea, Republic of\" has 18 characters, the native field takes 10"))
    );
}
