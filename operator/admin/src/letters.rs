//! Dead letters over HTTP. Listings hold no value of any record; one letter shows its fields, masked where they are personal.

use crate::problem::Problem;
use crate::surface::Surface;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use fairlead_engine::letters;
use fairlead_engine::masks::Form;
use fairlead_model::{Clock, ErrorClass, FieldPath, SystemClock, Timestamp, realm};
use fairlead_store::{DeadLetter, DeadLetterFilter, Stage};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most letters listed at once.
const MAX: usize = 500;
/// The longest name of an author.
const MAX_AUTHOR: usize = 64;

#[derive(Debug, Deserialize)]
pub(crate) struct Filter {
    integration: Option<String>,
    participant: Option<String>,
    stage: Option<Stage>,
    class: Option<ErrorClass>,
    reason: Option<String>,
    before: Option<String>,
    text: Option<String>,
    #[serde(default)]
    closed: bool,
    max: Option<usize>,
}

pub(crate) async fn list(
    State(surface): State<Arc<Surface>>,
    Query(filter): Query<Filter>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    surface.guard.admit_reading(&headers)?;
    let before = filter.before.as_deref().map(|text| {
        let wrong = || Problem::new(StatusCode::BAD_REQUEST, format!("before={text:?} is no moment; write it as 2026-01-31T10:00:00Z"));
        Timestamp::parse(text).ok_or_else(wrong)
    });
    let before = before.transpose()?;
    let max = filter.max.unwrap_or(MAX).clamp(1, MAX);
    let wanted = DeadLetterFilter {
        realm: filter.integration,
        participant: filter.participant,
        stage: filter.stage,
        class: filter.class,
        reason: filter.reason,
        before,
        text: filter.text,
        closed: filter.closed,
        max: max + 1,
        ..DeadLetterFilter::default()
    };
    let mut found = letters::list(surface.store.as_ref(), &wanted).await?;
    let more = found.len() > max;
    found.truncate(max);
    Ok(Json(json!({"items": found.iter().map(summary).collect::<Vec<_>>(), "more": more})))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Asked {
    #[serde(default)]
    personal: bool,
}

pub(crate) async fn show(
    State(surface): State<Arc<Surface>>,
    Path(id): Path<i64>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    surface.guard.admit_reading(&headers)?;
    if asked.personal {
        surface.guard.admit(&headers)?;
        tracing::info!(letter = id, "a dead letter's personal fields were asked for");
    }
    let missing = || Problem::new(StatusCode::NOT_FOUND, format!("there is no dead letter {id}"));
    let dead = letters::find(surface.store.as_ref(), id).await?.ok_or_else(missing)?;
    let letter = &dead.letter;
    let masks = surface.masks(&dead.realm, &letter.participant);
    let form = match letter.stage {
        Stage::Inbound | Stage::Identity => Form::Native,
        Stage::Outbound | Stage::Delivery => Form::Canonical,
    };
    let fields = |text: &str, form: Form| fields(text, |path| asked.personal || masks.shows(form, path));
    let mut shown = summary(&dead);
    shown["original"] = fields(&letter.original, form);
    shown["payload"] = letter.payload.as_deref().map_or(Value::Null, |payload| fields(payload, Form::Native));
    // It may repeat any value, whatever the masks say of its fields.
    if let Some(corrected) = letters::corrected(surface.store.as_ref(), &dead).await? {
        let value = |path: &FieldPath, value: Value| if asked.personal || masks.shows(Form::Native, path) { value } else { Value::Null };
        let changes = corrected.changes.into_iter();
        let changes: Vec<Value> = changes
            .map(|(field, before, after)| json!({"field": field, "from": value(&field, before), "to": value(&field, after)}))
            .collect();
        shown["corrected"] = json!({"author": corrected.author, "at": corrected.at.to_rfc3339(), "changes": changes});
    }
    shown["detail"] = json!(letter.detail.as_ref().filter(|_| asked.personal));
    shown["correctable"] = json!(match letter.stage {
        Stage::Inbound | Stage::Identity if letter.external_id.is_some() => "original",
        Stage::Delivery => "payload",
        _ => "",
    });
    Ok(Json(shown))
}

fn summary(dead: &DeadLetter) -> Value {
    let letter = &dead.letter;
    json!({
        "id": dead.id,
        "integration": realm::integration(&dead.realm, &letter.participant),
        "at": dead.at.to_rfc3339(),
        "participant": realm::called(&letter.participant),
        "stage": letter.stage,
        "externalId": letter.external_id,
        "record": letter.record,
        "class": letter.class,
        "reason": letter.reason,
        "field": letter.field,
        "message": letter.message,
        "attempts": letter.attempts,
        "parent": letter.parent,
        "closed": dead.closed.as_ref().map(|(reason, at, author)| json!({"reason": reason, "at": at.to_rfc3339(), "author": author})),
    })
}

/// A document as a flat list of fields; a field that is not shown has no value. Lists are one field each.
fn fields(text: &str, shows: impl Fn(&FieldPath) -> bool) -> Value {
    fn walk(object: &Map<String, Value>, prefix: &str, shows: &impl Fn(&FieldPath) -> bool, fields: &mut Vec<Value>) {
        for (name, value) in object {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match value {
                Value::Object(inner) if !inner.is_empty() => walk(inner, &path, shows, fields),
                _ => {
                    let parsed = path.parse::<FieldPath>().ok();
                    let shown = value.is_null() || parsed.as_ref().is_some_and(shows);
                    // Elements of a list cannot be corrected one by one.
                    let whole = parsed.is_some() && !value.is_array() && !value.is_object();
                    fields.push(match shown {
                        true => json!({"path": path, "value": value, "masked": false, "correctable": whole}),
                        false => json!({"path": path, "value": null, "masked": true, "correctable": whole}),
                    });
                }
            }
        }
    }
    let mut found = Vec::new();
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(object)) => walk(&object, "", &shows, &mut found),
        _ => found.push(json!({"path": "(unreadable)", "value": null, "masked": true, "correctable": false})),
    }
    Value::Array(found)
}

#[derive(Debug, Deserialize)]
pub(crate) struct Author {
    author: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Correction {
    author: Option<String>,
    set: BTreeMap<FieldPath, Value>,
}

/// Who decides so; recorded.
fn author(told: Option<String>) -> String {
    let told: String = told.unwrap_or_default().trim().chars().filter(|c| !c.is_control()).take(MAX_AUTHOR).collect();
    if told.is_empty() { "console".to_owned() } else { told }
}

pub(crate) async fn replay(
    State(surface): State<Arc<Surface>>,
    Path(id): Path<i64>,
    headers: HeaderMap,
    Json(body): Json<Author>,
) -> Result<Json<Value>, Problem> {
    surface.guard.admit(&headers)?;
    let dead = letters::open(surface.store.as_ref(), id).await?;
    letters::replay(surface.store.as_ref(), &dead, &author(body.author), SystemClock.now()).await?;
    tracing::info!(letter = id, integration = %dead.realm, "dead letter replayed");
    done("it is tried again")
}

pub(crate) async fn edit(
    State(surface): State<Arc<Surface>>,
    Path(id): Path<i64>,
    headers: HeaderMap,
    Json(body): Json<Correction>,
) -> Result<Json<Value>, Problem> {
    surface.guard.admit(&headers)?;
    let dead = letters::open(surface.store.as_ref(), id).await?;
    let fields = body.set.len();
    letters::correct(surface.store.as_ref(), &dead, body.set, &author(body.author), SystemClock.now()).await?;
    tracing::info!(letter = id, integration = %dead.realm, fields, "dead letter corrected");
    done("it is tried again with the correction; the letter closes when that is through")
}

pub(crate) async fn discard(
    State(surface): State<Arc<Surface>>,
    Path(id): Path<i64>,
    headers: HeaderMap,
    Json(body): Json<Author>,
) -> Result<Json<Value>, Problem> {
    surface.guard.admit(&headers)?;
    let dead = letters::open(surface.store.as_ref(), id).await?;
    letters::discard(surface.store.as_ref(), &[id], &author(body.author), SystemClock.now()).await?;
    tracing::info!(letter = id, integration = %dead.realm, "dead letter discarded");
    done("it is given up")
}

fn done(message: &str) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({"message": message})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_not_shown_has_no_value() {
        let text = r#"{"Name": "ACME", "Owner": {"Email": "a@b.example", "Team": null}, "Lines": [{"x": 1}], "strange name": 1}"#;
        let shown = fields(text, |path| path.to_string() == "Name");
        assert_eq!(
            shown,
            json!([
                {"path": "Lines", "value": null, "masked": true, "correctable": false},
                {"path": "Name", "value": "ACME", "masked": false, "correctable": true},
                {"path": "Owner.Email", "value": null, "masked": true, "correctable": true},
                {"path": "Owner.Team", "value": null, "masked": false, "correctable": true},
                {"path": "strange name", "value": null, "masked": true, "correctable": false},
            ])
        );
        assert!(!fields("not JSON a@b.example", |_| true).to_string().contains("a@b"));
    }

    #[test]
    fn an_author_is_short_and_plain() {
        assert_eq!(author(None), "console");
        assert_eq!(author(Some(" Ada\n\u{1b}[31m ".into())), "Ada[31m");
        assert_eq!(author(Some("x".repeat(500))).len(), MAX_AUTHOR);
    }
}
