//! Writing: what the platform accepts, what it makes of it, and what it refuses.
//!
//! Everything a caller or a person writes goes through [`Org::write`] or [`Org::delete`], so each rule stands once. Normal
//! forms: text is trimmed and empty text is null; currency is rounded to its scale; a country and its code move together.
//! An update that changes nothing still moves the stamps, as the platform does.

use std::str::FromStr;

use bigdecimal::num_bigint::Sign;
use bigdecimal::{BigDecimal, RoundingMode};
use chrono::{DateTime, Utc};

use super::errors::ApiError;
use super::ids;
use super::org::{ACCOUNT, CONTACT, Org, Row, stamp};
use super::schema::{self, COUNTRIES, ENTITIES, Entity, Field, Kind};
use crate::core::log::Outcome;
use crate::core::value::{Fields, Value};

/// Which record a write is for.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// A new one.
    New,
    /// The one with this id, as the caller wrote it.
    Id(String),
    /// The one with this value in this external id field, or a new one.
    External { position: usize, value: String },
}

/// What a write did.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) id: String,
    pub(super) outcome: Outcome,
}

/// A change that another change brought with it.
#[derive(Clone, Debug)]
pub(super) struct Cascade {
    pub(super) entity: usize,
    pub(super) id: String,
    pub(super) outcome: Outcome,
}

/// The parts of addresses that move together: name of the country, its code.
const COUNTRY_FIELDS: [(&str, &str); 3] =
    [("BillingCountry", "BillingCountryCode"), ("ShippingCountry", "ShippingCountryCode"), ("MailingCountry", "MailingCountryCode")];

impl Org {
    /// Finds the row that a caller's id names.
    pub(super) fn row(&self, entity: usize, id: &str) -> Result<&std::sync::Arc<Row>, ApiError> {
        let normal = ids::normal(id).ok_or_else(|| ApiError::malformed_id(id))?;
        match self.tables[entity].rows.get(&normal) {
            Some(row) if row.deleted => Err(ApiError::deleted()),
            Some(row) => Ok(row),
            None => Err(ApiError::not_found()),
        }
    }

    /// The records that an external id names.
    pub(super) fn matching(&self, entity: usize, position: usize, value: &str) -> Vec<String> {
        self.tables[entity].find(&ENTITIES[entity], position, value)
    }

    /// Creates or changes one record.
    pub(super) fn write(&mut self, entity: usize, target: &Target, wanted: &Fields, now: DateTime<Utc>) -> Result<Written, ApiError> {
        let schema = &ENTITIES[entity];
        if !schema.writable {
            let message = format!("entity type {} does not support DML", schema.name);
            return Err(ApiError::data("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", message, &[]));
        }
        let current = match target {
            Target::New => None,
            Target::Id(id) => Some(self.row(entity, id)?.clone()),
            Target::External { position, value } => match self.matching(entity, *position, value).as_slice() {
                [] => None,
                [one] => Some(self.row(entity, one)?.clone()),
                several => {
                    let field = schema.fields[*position].name;
                    let message = format!("{field}: more than one record found for external id field: [{}]", several.join(", "));
                    return Err(ApiError::data("DUPLICATE_EXTERNAL_ID", message, &[field]));
                }
            },
        };
        let mut assignments = self.assignments(entity, wanted, current.is_none())?;
        if let (Target::External { position, value }, None) = (target, &current) {
            let field = &schema.fields[*position];
            assignments.push((*position, normal(field, &Value::text(value))?));
        }
        settle_countries(schema, &mut assignments)?;
        let mut row = match &current {
            Some(current) => (**current).clone(),
            None => {
                let id = self.tables[entity].next_id(schema.prefix);
                self.blank(entity, id, now)
            }
        };
        for (position, value) in assignments {
            row.values[position] = value;
        }
        derive_name(schema, &mut row);
        self.check(entity, &row)?;
        let outcome = match &current {
            None => Outcome::Created,
            Some(current) if current.values == row.values => Outcome::Unchanged,
            Some(_) => Outcome::Updated,
        };
        touch(schema, &mut row, &self.user, now);
        let id = row.id.clone();
        self.tables[entity].put(schema, row);
        Ok(Written { id, outcome })
    }

    /// Moves a record to the recycle bin, and what goes with it: an account takes its contacts along and leaves its
    /// children without a parent.
    pub(super) fn delete(&mut self, entity: usize, id: &str, now: DateTime<Utc>) -> Result<(String, Vec<Cascade>), ApiError> {
        let schema = &ENTITIES[entity];
        if !schema.writable {
            let message = format!("entity type {} does not support delete", schema.name);
            return Err(ApiError::data("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", message, &[]));
        }
        let mut row = (**self.row(entity, id)?).clone();
        let id = row.id.clone();
        row.deleted = true;
        if let Some(position) = schema.position("IsDeleted") {
            row.values[position] = Value::Bool(true);
        }
        touch(schema, &mut row, &self.user, now);
        self.tables[entity].put(schema, row);
        let mut cascades = Vec::new();
        if entity == ACCOUNT {
            for contact in self.referring(CONTACT, "AccountId", &id) {
                self.delete(CONTACT, &contact, now)?;
                cascades.push(Cascade { entity: CONTACT, id: contact, outcome: Outcome::Deleted });
            }
            for child in self.referring(ACCOUNT, "ParentId", &id) {
                let mut orphan = (**self.row(ACCOUNT, &child)?).clone();
                if let Some(position) = schema.position("ParentId") {
                    orphan.values[position] = Value::Null;
                }
                orphan.changed = now;
                self.tables[ACCOUNT].put(schema, orphan);
                cascades.push(Cascade { entity: ACCOUNT, id: child, outcome: Outcome::Updated });
            }
        }
        Ok((id, cascades))
    }

    /// Takes a record out of the recycle bin. One that was merged comes back as a record of its own; what went with it stays where it is.
    pub(super) fn undelete(&mut self, entity: usize, id: &str, now: DateTime<Utc>) -> Result<String, ApiError> {
        let schema = &ENTITIES[entity];
        let normal = ids::normal(id).ok_or_else(|| ApiError::malformed_id(id))?;
        let found = self.tables[entity].rows.get(&normal).filter(|row| row.deleted);
        let mut row = (**found.ok_or_else(|| ApiError::data("UNDELETE_FAILED", "Entity is not in the recycle bin", &[]))?).clone();
        row.deleted = false;
        for (name, value) in [("IsDeleted", Value::Bool(false)), ("MasterRecordId", Value::Null)] {
            if let Some(position) = schema.position(name) {
                row.values[position] = value;
            }
        }
        self.check(entity, &row)?;
        touch(schema, &mut row, &self.user, now);
        self.tables[entity].put(schema, row);
        Ok(normal)
    }

    /// Merges `id` into `into`, as the merge of the screens and of SOAP does: the one is deleted and names the other as its master, whose
    /// values stay as they are; the children of the one become the other's.
    pub(super) fn merge(&mut self, entity: usize, id: &str, into: &str, now: DateTime<Utc>) -> Result<(String, Vec<Cascade>), ApiError> {
        let schema = &ENTITIES[entity];
        let Some(master_at) = schema.position("MasterRecordId") else {
            return Err(ApiError::data("INVALID_TYPE", format!("entity type {} cannot be merged", schema.name), &[]));
        };
        let (mut gone, mut master) = ((**self.row(entity, id)?).clone(), (**self.row(entity, into)?).clone());
        if gone.id == master.id {
            return Err(ApiError::data("INVALID_ID_FIELD", "a record cannot be merged into itself", &[]));
        }
        let mut cascades = Vec::new();
        if entity == ACCOUNT {
            for (child_entity, field) in [(CONTACT, "AccountId"), (ACCOUNT, "ParentId")] {
                let Some(position) = ENTITIES[child_entity].position(field) else { continue };
                for child in self.referring(child_entity, field, &gone.id) {
                    let mut row = (**self.row(child_entity, &child)?).clone();
                    row.values[position] = Value::text(&master.id);
                    // No account stands above itself, were it by way of others.
                    if self.check(child_entity, &row).is_err() {
                        row.values[position] = Value::Null;
                    }
                    touch(&ENTITIES[child_entity], &mut row, &self.user, now);
                    if child_entity == ACCOUNT && child == master.id {
                        master = row.clone();
                    }
                    self.tables[child_entity].put(&ENTITIES[child_entity], row);
                    cascades.push(Cascade { entity: child_entity, id: child, outcome: Outcome::Updated });
                }
            }
        }
        touch(schema, &mut master, &self.user, now);
        gone.deleted = true;
        gone.values[master_at] = Value::text(&master.id);
        if let Some(position) = schema.position("IsDeleted") {
            gone.values[position] = Value::Bool(true);
        }
        touch(schema, &mut gone, &self.user, now);
        let id = gone.id.clone();
        self.tables[entity].put(schema, master);
        self.tables[entity].put(schema, gone);
        Ok((id, cascades))
    }

    fn referring(&self, entity: usize, field: &str, id: &str) -> Vec<String> {
        let Some(position) = ENTITIES[entity].position(field) else { return Vec::new() };
        let table = &self.tables[entity];
        let mut ids = table.find(&ENTITIES[entity], position, id);
        ids.retain(|id| table.rows.get(id).is_some_and(|row| !row.deleted));
        ids
    }

    /// What a caller's fields mean: positions and values in normal form.
    fn assignments(&self, entity: usize, wanted: &Fields, insert: bool) -> Result<Vec<(usize, Value)>, ApiError> {
        let schema = &ENTITIES[entity];
        let mut assignments = Vec::new();
        let mut read_only = Vec::new();
        for (name, value) in wanted {
            if name == "attributes" {
                continue;
            }
            let Some(position) = schema.position(name) else {
                match (schema.parent(name), value) {
                    (Some((position, parent, _)), Value::Object(by)) => {
                        assignments.push((position, self.resolve(parent, name, by)?));
                    }
                    _ => {
                        let message = format!("No such column '{name}' on sobject of type {}", schema.name);
                        return Err(ApiError::data("INVALID_FIELD", message, &[]));
                    }
                }
                continue;
            };
            let field = &schema.fields[position];
            let allowed = if insert { field.createable } else { field.updateable };
            if !allowed {
                read_only.push(field.name);
                continue;
            }
            let value = normal(field, value)?;
            if let (Kind::Reference(parent, _), Value::Text(id)) = (field.kind, &value) {
                self.exists(parent, field, id)?;
            }
            assignments.push((position, value));
        }
        if !read_only.is_empty() {
            let message = format!(
                "Unable to create/update fields: {}. Please check the security settings of this field and verify that it is \
                 read/write for your profile or permission set.",
                read_only.join(", ")
            );
            return Err(ApiError::data("INVALID_FIELD_FOR_INSERT_UPDATE", message, &read_only));
        }
        Ok(assignments)
    }

    /// A parent named by its external id.
    fn resolve(&self, parent: &str, name: &str, by: &Fields) -> Result<Value, ApiError> {
        let unknown = |message: String| ApiError::data("INVALID_FIELD", message, &[]);
        let entity = schema::entity(parent).ok_or_else(|| unknown(format!("No such relationship {name}")))?;
        let mut keys = by.iter().filter(|(key, _)| *key != "attributes");
        let (Some((key, value)), None) = (keys.next(), keys.next()) else {
            return Err(unknown(format!("{name} must name exactly one external id field")));
        };
        let position = ENTITIES[entity].position(key).filter(|position| ENTITIES[entity].fields[*position].external);
        let position = position.ok_or_else(|| unknown(format!("Field name provided, {key} is not an External ID for {parent}")))?;
        let value = value.as_str().unwrap_or_default();
        match self.matching(entity, position, value).as_slice() {
            [one] => Ok(Value::text(one)),
            [] => {
                let message = format!("Foreign key external ID: {value} not found for field {key} in entity {parent}");
                Err(ApiError::data("INVALID_FIELD", message, &[]))
            }
            several => {
                let message = format!("{key}: more than one record found for external id field: [{}]", several.join(", "));
                Err(ApiError::data("DUPLICATE_EXTERNAL_ID", message, &[]))
            }
        }
    }

    fn exists(&self, parent: &str, field: &Field, id: &str) -> Result<(), ApiError> {
        let wrong = || ApiError::data("MALFORMED_ID", format!("{}: id value of incorrect type: {id}", field.label), &[field.name]);
        let entity = schema::entity(parent).ok_or_else(wrong)?;
        if !id.starts_with(ENTITIES[entity].prefix) {
            return Err(wrong());
        }
        match self.row(entity, id) {
            Ok(_) => Ok(()),
            Err(error) if error.code == "ENTITY_IS_DELETED" => Err(ApiError::data("ENTITY_IS_DELETED", "entity is deleted", &[field.name])),
            Err(_) => Err(ApiError::data("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", &[field.name])),
        }
    }

    /// The rules that need the whole record: required fields, unique values, no account above itself.
    fn check(&self, entity: usize, row: &Row) -> Result<(), ApiError> {
        let schema = &ENTITIES[entity];
        let fields = || schema.fields.iter().enumerate();
        let missing: Vec<&str> = fields()
            .filter(|(at, field)| !field.nillable && field.createable && row.values[*at].is_null())
            .map(|(_, field)| field.name)
            .collect();
        if !missing.is_empty() {
            let message = format!("Required fields are missing: [{}]", missing.join(", "));
            return Err(ApiError::data("REQUIRED_FIELD_MISSING", message, &missing));
        }
        for (position, field) in fields().filter(|(_, field)| field.unique) {
            let Some(value) = row.values[position].as_str() else { continue };
            if let Some(other) = self.matching(entity, position, value).into_iter().find(|other| *other != row.id) {
                let message = format!("duplicate value found: {} duplicates value on record with id: {other}", field.name);
                return Err(ApiError::data("DUPLICATE_VALUE", message, &[field.name]));
            }
        }
        if let (ACCOUNT, Some(position)) = (entity, schema.position("ParentId")) {
            let mut above = row.values[position].as_str().map(str::to_owned);
            while let Some(id) = above {
                if id == row.id {
                    let message = "Circular dependency: an account cannot be its own parent";
                    return Err(ApiError::data("CIRCULAR_DEPENDENCY", message, &["ParentId"]));
                }
                let parent = self.tables[ACCOUNT].rows.get(&id);
                above = parent.and_then(|parent| parent.values[position].as_str()).map(str::to_owned);
            }
        }
        Ok(())
    }
}

fn touch(schema: &Entity, row: &mut Row, user: &str, now: DateTime<Utc>) {
    row.changed = now;
    for (name, value) in [("LastModifiedDate", stamp(now)), ("SystemModstamp", stamp(now)), ("LastModifiedById", user.to_owned())] {
        if let Some(position) = schema.position(name) {
            row.values[position] = Value::Text(value);
        }
    }
}

/// The name of a person: given name, family name.
pub(super) fn full_name(first: Option<&str>, last: &str) -> String {
    first.map_or_else(|| last.to_owned(), |first| format!("{first} {last}"))
}

fn derive_name(schema: &Entity, row: &mut Row) {
    if let (Some(first), Some(last), Some(name)) = (schema.position("FirstName"), schema.position("LastName"), schema.position("Name")) {
        row.values[name] = match row.values[last].as_str() {
            Some(last) => Value::Text(full_name(row.values[first].as_str(), last)),
            None => Value::Null,
        };
    }
}

/// With country picklists on, a country's name and its code are one thing.
fn settle_countries(schema: &Entity, assignments: &mut Vec<(usize, Value)>) -> Result<(), ApiError> {
    for (name, code) in COUNTRY_FIELDS {
        let (Some(name_at), Some(code_at)) = (schema.position(name), schema.position(code)) else { continue };
        let given = |at: usize| assignments.iter().rev().find(|(position, _)| *position == at).map(|(_, value)| value.clone());
        let (by_name, by_code) = (given(name_at), given(code_at));
        if by_name.is_none() && by_code.is_none() {
            continue;
        }
        let told = |value: &Option<Value>| value.as_ref().and_then(Value::as_str).map(str::to_owned);
        let (wanted_name, wanted_code) = (told(&by_name), told(&by_code));
        let found = match (&wanted_code, &wanted_name) {
            (None, None) => None,
            (Some(code), _) => COUNTRIES.iter().find(|(known, _)| known == code),
            (None, Some(name)) => COUNTRIES.iter().find(|(code, known)| known.eq_ignore_ascii_case(name) || code == name),
        };
        let fits = match (&wanted_name, found) {
            (Some(name), Some((code, known))) => known.eq_ignore_ascii_case(name) || code == name,
            (Some(_), None) => false,
            (None, _) => true,
        };
        if !fits {
            let message = format!(
                "There's a problem with this country, even though it may appear correct. Please select a country/territory from \
                 the list of valid countries.: {name}"
            );
            return Err(ApiError::data("FIELD_INTEGRITY_EXCEPTION", message, &[name]));
        }
        assignments.retain(|(position, _)| *position != name_at && *position != code_at);
        assignments.push((name_at, Value::maybe(found.map(|(_, name)| *name))));
        assignments.push((code_at, Value::maybe(found.map(|(code, _)| *code))));
    }
    Ok(())
}

/// The value as the platform stores it.
fn normal(field: &Field, value: &Value) -> Result<Value, ApiError> {
    let mismatch = |token: &str| {
        let message = format!("Cannot deserialize instance of {} from {token}", field.kind.name());
        ApiError::data("JSON_PARSER_ERROR", message, &[field.name])
    };
    match (field.kind, value) {
        (Kind::Boolean, Value::Bool(_)) => Ok(value.clone()),
        (Kind::Boolean, Value::Null) => Ok(Value::Bool(false)),
        (_, Value::Null) => Ok(Value::Null),
        (Kind::Int(digits), Value::Number(token) | Value::Text(token)) => {
            let number = whole(token).ok_or_else(|| mismatch(&format!("VALUE_STRING value {token}")))?;
            match number.trim_start_matches('-').len() <= digits {
                true => Ok(Value::Number(number)),
                false => Err(out_of_range(field, token)),
            }
        }
        (Kind::Currency(precision, scale), Value::Number(token) | Value::Text(token)) => {
            let amount = BigDecimal::from_str(token.trim()).map_err(|_| mismatch(&format!("VALUE_STRING value {token}")))?;
            let amount = amount.with_scale_round(i64::try_from(scale).unwrap_or_default(), RoundingMode::HalfUp);
            let digits = amount.as_bigint_and_exponent().0.magnitude().to_string().len();
            match digits <= precision {
                true => Ok(Value::Number(written(&amount))),
                false => Err(out_of_range(field, token)),
            }
        }
        (Kind::Boolean | Kind::Int(_) | Kind::Currency(..), _) => Err(mismatch("VALUE_STRING")),
        (kind, Value::Text(text)) => {
            let text = text.trim();
            if text.is_empty() { Ok(Value::Null) } else { normal_text(field, kind, text) }
        }
        (_, Value::Number(token)) => Err(mismatch(&format!("VALUE_NUMBER value {token}"))),
        (_, Value::Bool(flag)) => Err(mismatch(&format!("VALUE_{}", flag.to_string().to_uppercase()))),
        (_, Value::List(_)) => Err(mismatch("START_ARRAY")),
        (_, Value::Object(_)) => Err(mismatch("START_OBJECT")),
    }
}

fn normal_text(field: &Field, kind: Kind, text: &str) -> Result<Value, ApiError> {
    match kind {
        Kind::Reference(..) | Kind::Id => {
            let wrong = || ApiError::data("MALFORMED_ID", format!("{}: id value of incorrect type: {text}", field.label), &[field.name]);
            return ids::normal(text).map(Value::Text).ok_or_else(wrong);
        }
        Kind::Email if !is_email(text) => {
            let message = format!("{}: invalid email address: {text}", field.label);
            return Err(ApiError::data("INVALID_EMAIL_ADDRESS", message, &[field.name]));
        }
        Kind::Picklist { values, restricted: true } if !values.contains(&text) => {
            let message = format!("{}: bad value for restricted picklist field: {text}", field.label);
            return Err(ApiError::data("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", message, &[field.name]));
        }
        _ => {}
    }
    let length = kind.length();
    if text.chars().count() > length {
        let shown: String = text.chars().take(40).collect();
        let message = format!("{}: data value too large: {shown}... (max length={length})", field.label);
        return Err(ApiError::data("STRING_TOO_LONG", message, &[field.name]));
    }
    Ok(Value::text(text))
}

fn out_of_range(field: &Field, token: &str) -> ApiError {
    let message = format!("{}: value outside of valid range on numeric field: {token}", field.label);
    ApiError::data("NUMBER_OUTSIDE_VALID_RANGE", message, &[field.name])
}

fn whole(token: &str) -> Option<String> {
    let number = BigDecimal::from_str(token.trim()).ok()?;
    number.is_integer().then(|| number.with_scale(0).to_plain_string())
}

/// The wire's form of a decimal text: a plain number with no needless zeros but at least one place.
pub(super) fn money(text: &str) -> Option<String> {
    BigDecimal::from_str(text).ok().map(|amount| written(&amount))
}

fn written(amount: &BigDecimal) -> String {
    if amount.sign() == Sign::NoSign {
        return "0.0".to_owned();
    }
    let text = amount.normalized().to_plain_string();
    if text.contains('.') { text } else { format!("{text}.0") }
}

fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let plain = |part: &str| !part.is_empty() && !part.chars().any(|letter| letter.is_whitespace() || letter == '@' || letter == ',');
    plain(local) && plain(domain) && domain.contains('.') && !domain.starts_with('.') && !domain.ends_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_written_without_a_float_and_without_needless_zeros() {
        for (given, wire) in
            [("100.00", "100.0"), ("0", "0.0"), ("9007199254740993.10", "9007199254740993.1"), ("1e3", "1000.0"), ("-0.05", "-0.05")]
        {
            assert_eq!(money(given).as_deref(), Some(wire));
        }
    }

    #[test]
    fn money_is_rounded_half_up_to_its_scale_and_refused_beyond_its_precision() {
        let field = ENTITIES[ACCOUNT].fields.iter().find(|field| field.name == "Credit_Limit__c").unwrap();
        assert_eq!(normal(field, &Value::number("1.005")).unwrap(), Value::number("1.01"));
        assert_eq!(normal(field, &Value::number("9999999999999999.99")).unwrap(), Value::number("9999999999999999.99"));
        assert_eq!(normal(field, &Value::number("10000000000000000")).unwrap_err().code, "NUMBER_OUTSIDE_VALID_RANGE");
    }
}
