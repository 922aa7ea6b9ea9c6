//! Records as JSON: references with their names, amounts as number tokens, sublists as links or inline.

use super::schema::{Entity, Field, Kind, country};
use super::tables::{Record, Tables};
use crate::core::value::{Fields, Value};
use bigdecimal::BigDecimal;
use chrono::{DateTime, SecondsFormat, Utc};
use std::str::FromStr;

/// How a record is shown.
#[derive(Debug, Clone, Default)]
pub(super) struct View<'a> {
    /// Scheme and authority for links; none leaves links out.
    pub(super) address: Option<&'a str>,
    /// Sublists inline rather than as links.
    pub(super) expand: bool,
    /// Only these fields; all if empty.
    pub(super) only: Vec<&'a str>,
}

/// The URL of a record.
pub(super) fn url(address: &str, record_type: &str, id: impl std::fmt::Display) -> String {
    format!("{address}/services/rest/record/v1/{record_type}/{id}")
}

/// A list with one link to `href`.
pub(super) fn links(href: String) -> Value {
    Value::List(vec![link("self", href)])
}

/// One link.
pub(super) fn link(rel: &str, href: String) -> Value {
    Value::object([("rel", Value::text(rel)), ("href", Value::Text(href))])
}

/// A point in time as it stands in records.
pub(super) fn stamp(time: DateTime<Utc>) -> Value {
    Value::Text(time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// The whole record; fields without a value are left out.
pub(super) fn record(tables: &Tables, entity: Entity, record: &Record, view: &View<'_>) -> Value {
    let mut shown = Fields::new();
    if let Some(address) = view.address {
        shown.insert("links".to_owned(), links(url(address, entity.name(), record.id)));
    }
    for field in entity.fields() {
        let wanted = view.only.is_empty() || view.only.contains(&field.name) || field.kind == Kind::Key;
        if let Some(value) = wanted.then(|| shown_field(tables, entity, record, field, view)).flatten() {
            shown.insert(field.name.to_owned(), value);
        }
    }
    Value::Object(shown)
}

fn shown_field(tables: &Tables, entity: Entity, record: &Record, field: &Field, view: &View<'_>) -> Option<Value> {
    match field.kind {
        Kind::Key => Some(Value::text(record.id.to_string())),
        Kind::Stamp if field.name == "dateCreated" => Some(stamp(record.created)),
        Kind::Stamp => Some(stamp(record.modified)),
        Kind::Addresses if view.expand => Some(addresses(record, view.address)),
        Kind::Addresses => view.address.map(|address| {
            let href = format!("{}/{}", url(address, entity.name(), record.id), field.name);
            Value::object([("links", links(href))])
        }),
        Kind::Money => match record.fields.get(field.name)? {
            Value::Number(token) => Some(Value::Number(amount(token))),
            other => Some(other.clone()),
        },
        Kind::Reference(target) => {
            let id = record.fields.get(field.name)?.as_str()?;
            let mut reference = Fields::new();
            if let Some(address) = view.address {
                reference.insert("links".to_owned(), links(url(address, target.record_type(), id)));
            }
            reference.insert("id".to_owned(), Value::text(id));
            if let Some(name) = tables.reference_name(target, id) {
                reference.insert("refName".to_owned(), Value::Text(name));
            }
            Some(Value::Object(reference))
        }
        _ => record.fields.get(field.name).cloned(),
    }
}

/// An amount as the vendor writes it: no trailing zeros, but always a fraction (`120.5`, `5000.0`).
fn amount(token: &str) -> String {
    let Ok(number) = BigDecimal::from_str(token) else {
        return token.to_owned();
    };
    let text = number.normalized().to_plain_string();
    if text.contains('.') { text } else { format!("{text}.0") }
}

/// The address book as a collection with its addresses inline.
pub(super) fn addresses(record: &Record, address: Option<&str>) -> Value {
    let lines = record.fields.get("addressBook").and_then(Value::as_list).unwrap_or_default();
    let base = address.map(|address| format!("{}/addressBook", url(address, "customer", record.id)));
    let with_links = |href: Option<String>| {
        let mut fields = Fields::new();
        if let Some(href) = href {
            fields.insert("links".to_owned(), links(href));
        }
        fields
    };
    let items = lines.iter().filter_map(Value::as_object).map(|line| {
        let id = line.get("id").and_then(Value::as_str).unwrap_or_default();
        let mut item = with_links(base.as_ref().map(|base| format!("{base}/{id}")));
        item.insert("id".to_owned(), Value::number(id));
        item.insert("internalId".to_owned(), Value::number(id));
        item.insert("addressId".to_owned(), Value::text(id));
        for flag in ["defaultBilling", "defaultShipping"] {
            item.insert(flag.to_owned(), line.get(flag).cloned().unwrap_or(Value::Bool(false)));
        }
        if let Some(label) = line.get("label").filter(|label| !label.is_null()) {
            item.insert("label".to_owned(), label.clone());
        }
        let mut inner = with_links(base.as_ref().map(|base| format!("{base}/{id}/addressBookAddress")));
        for (name, value) in line.get("addressBookAddress").and_then(Value::as_object).into_iter().flatten() {
            let value = match (name.as_str(), value.as_str()) {
                ("country", Some(code)) => Value::object([("id", Value::text(code)), ("refName", Value::Text(country(code)))]),
                _ => value.clone(),
            };
            inner.insert(name.clone(), value);
        }
        item.insert("addressBookAddress".to_owned(), Value::Object(inner));
        Value::Object(item)
    });
    let items: Vec<Value> = items.collect();
    let mut shown = with_links(base.clone());
    shown.extend(collection(items.len(), 0, false, items.len()));
    shown.insert("items".to_owned(), Value::List(items));
    Value::Object(shown)
}

/// The counters of a collection.
pub(super) fn collection(count: usize, offset: usize, has_more: bool, total: usize) -> Fields {
    let number = |number: usize| Value::Number(number.to_string());
    Fields::from_iter([
        ("count".to_owned(), number(count)),
        ("hasMore".to_owned(), Value::Bool(has_more)),
        ("offset".to_owned(), number(offset)),
        ("totalResults".to_owned(), number(total)),
    ])
}
