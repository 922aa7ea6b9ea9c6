//! A customer on both sides, and short ways to write rows and documents.
#![allow(clippy::unwrap_used, clippy::panic, dead_code, unreachable_pub)]

use fairlead_mapping::{Finding, Lookups, Table, TableSource};
use fairlead_model::document::Document;
use fairlead_model::schema::{CanonicalSchema, NativeSchema};
use fairlead_model::unit::{LookupTable, RowUnit, ValuePair};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub fn native() -> NativeSchema {
    serde_json::from_value(json!({
        "Id": {"type": "String", "nullable": false, "writable": false},
        "Name": {"type": "String", "nullable": false, "maxLength": 20},
        "Nick": {"type": "String"},
        "Type": {"type": "String", "values": ["Customer", "Prospect"]},
        "Tax_Number__c": {"type": "String"},
        "BillingCity": {"type": "String", "maxLength": 10},
        "BillingCountryCode": {"type": "String"},
        "AnnualRevenue": {"type": "Decimal"},
        "Score": {"type": "Float"},
        "Employees": {"type": "Integer"},
        "IsActive": {"type": "Boolean"},
        "Active__c": {"type": "String", "values": ["T", "F"]},
        "Since": {"type": "Date"},
        "SeenAt": {"type": "DateTime"},
        "LastModifiedDate": {"type": "DateTime", "writable": false},
        "ParentId": {"type": "Reference"},
        "RecordTypeId": {"type": "String", "maxLength": 18},
        "Fairlead_Id__c": {"type": "String", "maxLength": 36},
        "Short_Id__c": {"type": "String", "maxLength": 18},
        "Extra": {"type": "Any"},
        "Tags": {"type": "String"},
        "Contacts.records[]": {"type": "List"},
        "Contacts.records[].Id": {"type": "String", "nullable": false, "writable": false},
        "Contacts.records[].Email": {"type": "String"},
        "Contacts.records[].LastName": {"type": "String", "nullable": false},
        "Contacts.records[].Quota": {"type": "Decimal"},
        "Notes.records[]": {"type": "List", "writable": false},
        "Notes.records[].Title": {"type": "String", "writable": false},
    }))
    .unwrap()
}

pub fn canonical() -> CanonicalSchema {
    let field = |kind: &str| json!({"type": kind, "nullable": true, "required": false});
    let required = |kind: &str| json!({"type": kind, "nullable": false, "required": true});
    serde_json::from_value(json!({
        "name": required("String"),
        "nick": field("String"),
        "status": {"type": "String", "nullable": true, "required": false, "values": ["customer", "prospect"]},
        "taxId": {"type": "String", "nullable": true, "required": false, "classification": "Personal"},
        "address": field("Object"),
        "address.city": field("String"),
        "address.country": field("String"),
        "annualRevenue": field("Decimal"),
        "amount": required("Decimal"),
        "employees": field("Integer"),
        "active": field("Boolean"),
        "since": field("Date"),
        "seenAt": field("DateTime"),
        "parentId": field("String"),
        "extra": field("Object"),
        "tags[]": field("List"),
        "contacts[]": field("List"),
        "contacts[].email": field("String"),
        "contacts[].name": field("String"),
        "contacts[].quota": field("Decimal"),
        "notes[]": field("List"),
        "notes[].title": field("String"),
    }))
    .unwrap()
}

/// Tables of countries and of stages.
pub fn lookups() -> Lookups {
    let table = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(canonical, native)| ValuePair { canonical: (*canonical).into(), native: (*native).into() });
        Arc::new(LookupTable::new(pairs.collect()))
    };
    Lookups::of(&BTreeMap::from([
        ("countries".to_owned(), table(&[("DE", "Germany"), ("KR", "Korea, Republic of"), ("CI", "Côte d’Ivoire")])),
        ("synonyms".to_owned(), table(&[("DE", "Germany"), ("DE", "Deutschland")])),
        ("unclear".to_owned(), table(&[("GB", "Britain"), ("UK", "Britain")])),
        ("sizes".to_owned(), table(&[("small", "1"), ("big", "100")])),
        ("kinds".to_owned(), table(&[("customer", "Customer"), ("prospect", "Porspect"), ("former", "Former")])),
    ]))
}

pub fn rows(rows: Value) -> Vec<RowUnit> {
    serde_json::from_value(rows).unwrap()
}

/// Compiles rows for a participant that is read and written.
pub fn compile(list: Value) -> Result<Table, Vec<Finding>> {
    compile_with(list, |_| ())
}

pub fn compile_with(list: Value, change: impl FnOnce(&mut TableSource<'_>)) -> Result<Table, Vec<Finding>> {
    let (rows, lookups, native, canonical) = (rows(list), lookups(), native(), canonical());
    let mut source = TableSource {
        rows: &rows,
        lookups: &lookups,
        native: &native,
        canonical: &canonical,
        entity: "customer",
        key: None,
        when: None,
        read: true,
        write: true,
    };
    change(&mut source);
    Table::compile(&source)
}

/// A table that must compile.
pub fn table(list: Value) -> Table {
    compile(list).unwrap_or_else(|findings| panic!("{findings:#?}"))
}

pub fn document(value: Value) -> Document {
    value.as_object().cloned().unwrap()
}
