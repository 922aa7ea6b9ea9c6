//! `fairlead trace`: what is known of one record, from the state beside a running process (both may have it open).
//!
//! The state holds no contract, so nothing tells here which fields are personal: values are shown only to whoever asks for them.

use crate::screen::{self, columns, cut};
use crate::state::StateArgs;
use anyhow::bail;
use clap::{Args, ValueEnum};
use fairlead_engine::records::{self, Found, Name};
use fairlead_model::state::Standing;
use fairlead_model::{Clock, Document, ExternalId, RecordId, SmolStr, SystemClock, realm};
use fairlead_store::{Identity, Provenance};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;

/// What stands in place of a value.
const MASKED: &str = "•••";

/// Show what is known of one record: its fields and their history, where it stands, and what waits.
#[derive(Debug, Args)]
pub(crate) struct Trace {
    /// The record's canonical id; with --participant, that system's id of it.
    record: String,
    /// Only a record that this Integration keeps or feeds now, as namespace/name.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    integration: Option<String>,
    /// The participant whose id is given; of golden records with its --integration, or in full.
    #[arg(long)]
    participant: Option<String>,
    /// Show the values, whatever they are; without this, each is masked.
    #[arg(long)]
    values: bool,
    #[command(flatten)]
    state: StateArgs,
    /// How it is printed.
    #[arg(short, long, default_value = "table")]
    output: Output,
}

/// How a record is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For scripts.
    Json,
}

impl Trace {
    /// Shows it.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let name = match (self.participant, RecordId::parse(&self.record)) {
            (Some(participant), _) => Name::External { participant, id: ExternalId(self.record.clone()) },
            (None, Some(id)) => Name::Canonical(id),
            (None, None) => bail!("{:?} is no canonical id; if it is a system's, name that with --participant", self.record),
        };
        let store = self.state.open_existing(".fairlead").await?;
        let found = records::find(store.as_ref(), self.integration.as_deref(), &name, SystemClock.now()).await?;
        if found.is_empty() {
            bail!("no record {} is known", self.record);
        }
        let shown: Vec<Value> = found.iter().map(|found| to_json(found, self.values)).collect();
        match self.output {
            Output::Json => screen::print(serde_json::to_string_pretty(&shown)?),
            Output::Table => shown.iter().flat_map(table).for_each(|line| screen::print(cut(&line, usize::MAX))),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A value, or what stands in its place.
fn value(value: Option<&Value>, values: bool) -> Value {
    match value {
        Some(value) if values => value.clone(),
        Some(_) => json!(MASKED),
        None => Value::Null,
    }
}

/// The fields of a document by path; a list is one.
fn fields(document: &Document, values: bool) -> Map<String, Value> {
    fn walk(object: &Map<String, Value>, prefix: &str, values: bool, out: &mut Map<String, Value>) {
        for (name, field) in object {
            match field {
                Value::Object(inner) if !inner.is_empty() => walk(inner, &format!("{prefix}{name}."), values, out),
                field => drop(out.insert(format!("{prefix}{name}"), value(Some(field), values))),
            }
        }
    }
    let mut out = Map::new();
    walk(document, "", values, &mut out);
    out
}

/// Who set each unit of comparison last, and when; a list counts as a whole.
fn set_by(provenance: &BTreeMap<SmolStr, Provenance>) -> Map<String, Value> {
    let known = provenance.iter().filter(|(_, setter)| !setter.is_nobodys());
    known
        .map(|(unit, setter)| {
            let told = json!({"participant": setter.participant, "at": setter.at.to_rfc3339()});
            (unit.trim_end_matches("[]").to_owned(), told)
        })
        .collect()
}

fn standing(identity: &Identity) -> &'static str {
    match &identity.state {
        state if state.deleted => "Deleted",
        state if state.standing == Some(Standing::Left) => "Archived",
        _ => "Held",
    }
}

fn to_json(found: &Found, values: bool) -> Value {
    let Found { realm, known, history, letters } = found;
    let record = &known.record;
    let waits = |participant: &str| known.lanes.iter().find(|lane| lane.target == participant);
    let lane = |participant: &str| match waits(participant) {
        None => "",
        Some(lane) if lane.in_flight => "InFlight",
        Some(_) => "Waiting",
    };
    let held = known.identities.iter().map(|identity| {
        let name = &identity.participant;
        json!({
            "participant": name, "integration": realm::integration(realm, name), "externalId": identity.external_id,
            "standing": standing(identity), "lane": lane(name),
        })
    });
    let coming = known.lanes.iter().filter(|lane| known.identity(&lane.target).is_none()).map(|waiting| {
        let name = &waiting.target;
        json!({
            "participant": name, "integration": realm::integration(realm, name), "externalId": null, "standing": "Absent", "lane": lane(name),
        })
    });
    json!({
        "realm": realm,
        "record": record.id,
        "version": record.version,
        "home": record.home,
        "deletedAt": record.deleted_at.map(|at| at.to_rfc3339()),
        "fields": fields(&record.document, values),
        "setBy": set_by(&record.provenance),
        "participants": held.chain(coming).collect::<Vec<_>>(),
        "history": history.iter().map(|past| json!({
            "at": past.at.to_rfc3339(),
            "participant": past.participant,
            "field": past.change.field,
            "from": value(past.change.from.as_ref(), values),
            "to": value(past.change.to.as_ref(), values),
            "fate": format!("{:?}", past.change.fate),
        })).collect::<Vec<_>>(),
        "deadLetters": letters.iter().map(|dead| dead.id).collect::<Vec<_>>(),
    })
}

/// A cell of a table.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn rows(shown: &Value, list: &str, heads: &[&str], keys: &[&str]) -> Vec<String> {
    let items = shown[list].as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        return Vec::new();
    }
    let mut rows = vec![heads.iter().map(|head| (*head).to_owned()).collect::<Vec<_>>()];
    rows.extend(items.iter().map(|item| keys.iter().map(|key| cell(&item[*key])).collect()));
    std::iter::once(String::new()).chain(columns(&rows, &[])).collect()
}

fn table(shown: &Value) -> Vec<String> {
    let mut lines = vec![format!(
        "{} of {}, version {}, from {}{}",
        cell(&shown["record"]),
        cell(&shown["realm"]),
        cell(&shown["version"]),
        cell(&shown["home"]),
        shown["deletedAt"].as_str().map(|at| format!(", deleted {at}")).unwrap_or_default()
    )];
    let fields = shown["fields"].as_object().into_iter().flatten();
    let mut held = vec![["FIELD", "VALUE", "SET BY", "AT"].map(str::to_owned).to_vec()];
    held.extend(fields.map(|(field, value)| {
        let setter = &shown["setBy"][field];
        vec![field.clone(), cell(value), cell(&setter["participant"]), cell(&setter["at"])]
    }));
    lines.push(String::new());
    lines.extend(columns(&held, &[]));
    lines.extend(rows(
        shown,
        "participants",
        &["PARTICIPANT", "ID", "STANDING", "LANE"],
        &["participant", "externalId", "standing", "lane"],
    ));
    let heads = ["CHANGED", "PARTICIPANT", "FIELD", "FROM", "TO", "FATE"];
    lines.extend(rows(shown, "history", &heads, &["at", "participant", "field", "from", "to", "fate"]));
    let letters = shown["deadLetters"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !letters.is_empty() {
        let numbers: Vec<String> = letters.iter().map(cell).collect();
        lines.extend([String::new(), format!("open dead letters: {}", numbers.join(", "))]);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_model::Timestamp;
    use fairlead_model::state::ParticipantState;
    use fairlead_store::{Fate, FieldChange, Known, LaneEntry, PastChange, Record};
    use uuid::Uuid;

    fn found() -> Found {
        let id = RecordId(Uuid::from_u128(7));
        let document = json!({"name": "Acme", "address": {"city": "Bonn"}, "tags": ["a"]}).as_object().cloned().unwrap();
        let setter = |participant: &str| Provenance { participant: participant.into(), at: Timestamp(1_790_000_000_000) };
        let setters = [("address.city", setter("eu/a/crm")), ("tags[]", setter("us/a/erp")), ("name", Provenance::nobodys())];
        let setters = setters.map(|(field, setter)| (field.into(), setter));
        let identity = |participant: &str, deleted| Identity {
            participant: participant.into(),
            external_id: ExternalId("001".into()),
            state: ParticipantState { deleted, ..ParticipantState::default() },
        };
        Found {
            realm: "contract:contracts/customer".into(),
            known: Known {
                record: Record { id, version: 3, document, home: "eu/a/crm".into(), provenance: setters.into(), deleted_at: None },
                identities: vec![identity("eu/a/crm", false), identity("us/a/erp", true)],
                lanes: vec![LaneEntry { target: "us/a/crm".into(), in_flight: true, attempts: 0 }],
                merged_into: None,
            },
            history: vec![PastChange {
                change: FieldChange {
                    record: id,
                    field: Some("address.city".parse().unwrap()),
                    from: Some(json!("Bonn")),
                    to: Some(json!("Köln")),
                    fate: Fate::Conflict,
                },
                participant: "us/a/erp".into(),
                at: Timestamp(1_790_000_000_000),
            }],
            letters: Vec::new(),
        }
    }

    #[test]
    fn values_are_shown_to_who_asks_for_them() {
        let masked = table(&to_json(&found(), false)).join("\n");
        assert!(!masked.contains("Acme") && !masked.contains("Bonn") && !masked.contains("Köln"), "{masked}");
        let shown = table(&to_json(&found(), true)).join("\n");
        for expected in [
            "address.city  Bonn   eu/a/crm  2026-09-21",
            "name          Acme   -",
            "us/a/erp  2026-09-21",
            "us/a/crm     -    Absent    InFlight",
            "us/a/erp     001  Deleted",
            "address.city  Bonn  Köln  Conflict",
        ] {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
    }
}
