//! From what a caller wrote to what is stored: types, lengths, references, and the vendor's own normalisation.
//!
//! Stored values are plain: text trimmed (an empty one is no value), mail addresses in lower case, amounts rounded to two
//! decimals, references as the internal id. Pure: references are looked up through [`Lookup`].

use super::errors::{Detail, Place};
use super::schema::{Field, Kind, Target};
use crate::core::value::{Fields, Value};
use bigdecimal::{BigDecimal, RoundingMode, Signed};
use std::str::FromStr;

/// Finds what a reference names.
pub(super) trait Lookup {
    /// The internal id, if a record of that target has it.
    fn by_id(&self, target: Target, id: &str) -> Option<String>;
    /// The internal id of the record with this external id.
    fn by_external_id(&self, target: Target, external_id: &str) -> Option<String>;
}

pub(super) fn wrong(code: &str, path: &str, text: impl Into<String>) -> Detail {
    Detail { code: code.to_owned(), text: text.into(), place: Some(Place::Property(path.to_owned())) }
}

fn mistyped(path: &str, expected: &str) -> Detail {
    wrong("INVALID_CONTENT", path, format!("Invalid content in the request body. The property '{path}' must be {expected}."))
}

/// The stored form of `value`; `Null` clears.
pub(super) fn stored(field: &Field, value: &Value, lookup: &dyn Lookup) -> Result<Value, Detail> {
    if value.is_null() {
        return Ok(Value::Null);
    }
    match field.kind {
        Kind::Key | Kind::Stamp | Kind::Addresses => Ok(Value::Null),
        Kind::Text(most) => text(field.name, value, most),
        Kind::Email => match text(field.name, value, 254)? {
            Value::Text(mail) if is_email(&mail) => Ok(Value::Text(mail.to_lowercase())),
            Value::Null => Ok(Value::Null),
            _ => Err(wrong("USER_ERROR", field.name, "Error while accessing a resource. Invalid email address.")),
        },
        Kind::Flag => match value {
            Value::Bool(_) => Ok(value.clone()),
            _ => Err(mistyped(field.name, "a boolean")),
        },
        Kind::Money => match value {
            Value::Number(token) => {
                let amount = BigDecimal::from_str(token).map_err(|_| mistyped(field.name, "a number"))?;
                let amount = amount.with_scale_round(2, RoundingMode::HalfUp);
                if amount.is_negative() || amount.digits() > 19 {
                    return Err(wrong(
                        "USER_ERROR",
                        field.name,
                        format!("Error while accessing a resource. Invalid number (must be positive) for {}.", field.name),
                    ));
                }
                Ok(Value::Number(amount.to_plain_string()))
            }
            _ => Err(mistyped(field.name, "a number")),
        },
        Kind::Reference(target) => reference(field.name, value, target, lookup),
    }
}

fn text(path: &str, value: &Value, most: usize) -> Result<Value, Detail> {
    let text = value.as_str().ok_or_else(|| mistyped(path, "a string"))?.trim();
    let length = text.chars().count();
    if length > most {
        return Err(wrong(
            "USER_ERROR",
            path,
            format!(
                "Error while accessing a resource. The field {path} contained more than the maximum number ( {most} ) of characters allowed: {length}."
            ),
        ));
    }
    Ok(if text.is_empty() { Value::Null } else { Value::text(text) })
}

/// One `@` with something before it, and a domain with an inner dot after it.
fn is_email(text: &str) -> bool {
    let allowed = |c: char| !c.is_whitespace() && !matches!(c, ',' | ';' | '<' | '>' | '"' | '(' | ')');
    text.split_once('@').is_some_and(|(local, domain)| {
        let labels: Vec<&str> = domain.split('.').collect();
        !local.is_empty()
            && text.chars().all(allowed)
            && !domain.contains('@')
            && labels.len() >= 2
            && labels.iter().all(|label| !label.is_empty())
    })
}

fn reference(path: &str, value: &Value, target: Target, lookup: &dyn Lookup) -> Result<Value, Detail> {
    let named = |name: &str| match value.get(name) {
        Some(Value::Text(text)) => Some(text.trim().to_owned()),
        Some(Value::Number(token)) => Some(token.clone()),
        _ => None,
    };
    let found = match (named("id"), named("externalId")) {
        (Some(id), _) => lookup.by_id(target, &id).ok_or(id),
        (None, Some(external)) => lookup.by_external_id(target, &external).ok_or(external),
        (None, None) => return Err(mistyped(path, "a reference such as {\"id\": \"1\"}")),
    };
    found.map(Value::Text).map_err(|given| {
        wrong(
            "INVALID_CONTENT",
            path,
            format!("Error while accessing a resource. Invalid field value {given} for the following field: {path}."),
        )
    })
}

// === Address book ===

const ADDRESS_TEXTS: [(&str, usize); 9] = [
    ("addressee", 200),
    ("attention", 150),
    ("addr1", 150),
    ("addr2", 150),
    ("addr3", 150),
    ("city", 50),
    ("state", 50),
    ("zip", 36),
    ("addrPhone", 32),
];

/// The stored address book after a write: lines that carry the id of a stored one change it, others are added; `replace`
/// starts from nothing. `next` gives a new line its id.
pub(super) fn addresses(stored: Option<&Value>, written: &Value, replace: bool, next: &mut dyn FnMut() -> u64) -> Result<Value, Detail> {
    let mut lines: Vec<Fields> = match stored.and_then(Value::as_list) {
        Some(lines) if !replace => lines.iter().filter_map(Value::as_object).cloned().collect(),
        _ => Vec::new(),
    };
    let items = match written {
        Value::Null => return Ok(Value::Null),
        other => other.get("items").and_then(Value::as_list).ok_or_else(|| mistyped("addressBook", "an object with items"))?,
    };
    for (position, item) in items.iter().enumerate() {
        let path = format!("addressBook.items[{position}]");
        let item = item.as_object().ok_or_else(|| mistyped(&path, "an object"))?;
        let named = match item.get("id").or_else(|| item.get("internalId")) {
            Some(Value::Text(id)) | Some(Value::Number(id)) if !replace => Some(id.as_str()),
            _ => None,
        };
        let place = match named {
            None => {
                let id = Value::Text(next().to_string());
                lines.push(Fields::from_iter([("id".to_owned(), id)]));
                lines.len() - 1
            }
            Some(id) => lines
                .iter()
                .position(|line| line.get("id").and_then(Value::as_str) == Some(id))
                .ok_or_else(|| wrong("INVALID_CONTENT", &path, format!("The address line {id} does not exist.")))?,
        };
        for flag in ["defaultBilling", "defaultShipping"] {
            match item.get(flag) {
                None => {}
                Some(Value::Bool(chosen)) => {
                    if *chosen {
                        for line in &mut lines {
                            line.insert(flag.to_owned(), Value::Bool(false));
                        }
                    }
                    lines[place].insert(flag.to_owned(), Value::Bool(*chosen));
                }
                Some(_) => return Err(mistyped(&format!("{path}.{flag}"), "a boolean")),
            }
        }
        if let Some(label) = item.get("label").filter(|label| !label.is_null()) {
            lines[place].insert("label".to_owned(), text(&format!("{path}.label"), label, 150)?);
        }
        if let Some(address) = item.get("addressBookAddress") {
            let path = format!("{path}.addressBookAddress");
            let address = address.as_object().ok_or_else(|| mistyped(&path, "an object"))?;
            let mut merged = lines[place].get("addressBookAddress").and_then(Value::as_object).cloned().unwrap_or_default();
            for (name, most) in ADDRESS_TEXTS {
                match address.get(name) {
                    None => {}
                    Some(Value::Null) => _ = merged.shift_remove(name),
                    Some(value) => match text(&format!("{path}.{name}"), value, most)? {
                        Value::Null => _ = merged.shift_remove(name),
                        value => _ = merged.insert(name.to_owned(), value),
                    },
                }
            }
            if let Some(country) = address.get("country") {
                let code = country.get("id").and_then(Value::as_str).or(country.as_str());
                let code = code.filter(|code| code.len() == 2 && code.bytes().all(|b| b.is_ascii_uppercase()));
                let code = code.ok_or_else(|| mistyped(&format!("{path}.country"), "a country such as {\"id\": \"US\"}"))?;
                merged.insert("country".to_owned(), Value::text(code));
            }
            lines[place].insert("addressBookAddress".to_owned(), Value::Object(merged));
        }
    }
    Ok(if lines.is_empty() { Value::Null } else { Value::List(lines.into_iter().map(Value::Object).collect()) })
}
