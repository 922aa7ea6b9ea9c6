//! A plan as text that people read and diff: what would run, and what is wrong.
//!
//! For tests, `fairlead check -o` and reviews. It shows what was declared and decided; a contract's schema, a system's fields and a
//! definition's text are left out, since they stand elsewhere and would bury the rest.

use crate::finding::{Check, render};
use crate::planned::{Planned, Verdict};
use fairlead_api::Kind;
use fairlead_model::ObjectRef;
use fairlead_model::route::RouteUnit;
use fairlead_model::unit::{ConnectorUnit, IntegrationUnit, ObjectKey};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// The whole plan: each resource with its verdict, findings and unit, then who needs whom.
#[must_use]
pub fn plan_text(planned: &Planned) -> String {
    let mut text: String = planned.verdicts().map(|verdict| resource_text(planned, verdict)).collect();
    if let Some(at) = planned.next_check {
        let _ = writeln!(text, "next check: {at}");
    }
    text
}

/// One resource of it.
#[must_use]
pub fn resource_text(planned: &Planned, verdict: &Verdict) -> String {
    let mut text = format!("=== {} {}\n", verdict.kind, verdict.object);
    let _ = writeln!(text, "accepted: {}\nresolved: {}", word(&verdict.accepted), word(&verdict.resolved));
    if !verdict.used_by.is_empty() {
        let users: Vec<String> = verdict.used_by.iter().map(ObjectRef::to_string).collect();
        let _ = writeln!(text, "used by: {}", users.join(", "));
    }
    text.push_str(&render(&verdict.findings));
    let key = ObjectKey::from(&verdict.object);
    let unit = match verdict.kind {
        Kind::Connector => planned.units.connectors.get(&key).map(|unit| connector(unit)),
        Kind::Integration => planned.units.integrations.get(&key).map(|unit| integration(unit)),
        Kind::ApiContract => planned.units.routes.get(&key).map(|unit| route(unit)),
    };
    if let Some(mut unit) = unit {
        tidy(&mut unit);
        let yaml = serde_saphyr::to_string(&unit).unwrap_or_else(|error| format!("cannot be shown: {error}"));
        let _ = write!(text, "--- unit\n{}", yaml.trim_end());
        text.push('\n');
    }
    text.push('\n');
    text
}

fn word(check: &Check) -> String {
    match check {
        Check::Ok => "yes".to_owned(),
        Check::Failed { reason, .. } => format!("no, {reason}"),
        Check::Unknown { reason, .. } => format!("unknown, {reason}"),
    }
}

fn connector(unit: &ConnectorUnit) -> Value {
    let mut shown = shorn(unit, &["object", "generation", "digest", "definition", "caPem"]);
    shown.insert("definition".into(), json!(format!("of {}, complete", unit.system)));
    if unit.ca_pem.is_some() {
        shown.insert("caPem".into(), json!("given"));
    }
    Value::Object(shown)
}

fn integration(unit: &IntegrationUnit) -> Value {
    let mut shown = shorn(unit, &["object", "generation", "digest", "revision", "contract", "participants", "lookups"]);
    let contract = &unit.contract;
    shown.insert("contract".into(), json!({"object": contract.object, "fields": contract.fields.len()}));
    if !unit.lookups.is_empty() {
        let lines = unit.lookups.iter().map(|(name, table)| (name.clone(), json!({"lines": table.pairs.len()}))).collect();
        shown.insert("lookups".into(), Value::Object(lines));
    }
    let participants = unit.participants.iter().map(|participant| {
        let mut shown = shorn(participant, &["native", "rows"]);
        let rows = participant.rows.iter().map(|row| {
            let mut shown = shorn(row, &[]);
            // The digest of a table is no news beside its name.
            if let Some(Value::Object(lookup)) = shown.get_mut("lookup") {
                lookup.remove("digest");
            }
            Value::Object(shown)
        });
        let rows = rows.collect();
        shown.insert("rows".into(), Value::Array(rows));
        Value::Object(shown)
    });
    shown.insert("participants".into(), participants.collect());
    Value::Object(shown)
}

fn route(unit: &RouteUnit) -> Value {
    let mut shown = shorn(unit, &["object", "generation", "digest", "schema", "fields", "domain", "entity", "major"]);
    shown.insert("path".into(), json!(unit.path()));
    shown.insert("fields".into(), json!(unit.fields.len()));
    Value::Object(shown)
}

/// Durations as people write them, and nothing that is not there.
fn tidy(value: &mut Value) {
    if let (Some(seconds), Some(nanos)) = (value.get("secs").and_then(Value::as_u64), value.get("nanos").and_then(Value::as_u64)) {
        *value = fairlead_api::Duration::from_millis(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000)).to_string().into();
        return;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(tidy);
        }
        _ => {}
    }
}

/// A value's fields without some of them and without nulls.
fn shorn(value: &impl serde::Serialize, without: &[&str]) -> Map<String, Value> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(value) else { return Map::new() };
    fields.retain(|name, value| !without.contains(&name.as_str()) && !value.is_null());
    fields
}
