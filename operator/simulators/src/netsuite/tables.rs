//! The account's data: customers, contacts, what was deleted; and the only way to change it.
//!
//! A write is checked whole before anything changes. Stamps move in whole seconds, also for a write that leaves a record as
//! it was: saving is saving. Earlier states of changed records are kept for a while, so that a read can be served as a
//! replica that lags would serve it.

use super::errors::{Detail, Problem};
use super::schema::{Entity, Kind, Target};
use super::suiteql::{Cell, Row};
use super::values::{self, Lookup, wrong};
use crate::core::value::{Fields, Value};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// How long earlier states are kept for lagging reads.
const MEMORY: TimeDelta = TimeDelta::minutes(10);

/// One state of one record.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) id: u64,
    /// Stored values by field name; a field without a value is absent.
    pub(super) fields: Fields,
    pub(super) created: DateTime<Utc>,
    pub(super) modified: DateTime<Utc>,
    /// The same record as a row of its SuiteQL table, in the order of [`columns`].
    pub(super) row: Row,
    /// The addresses of its address book as rows: the line's id, then [`ADDRESS_COLUMNS`].
    pub(super) addresses: Vec<Row>,
}

/// The columns of an address after its key.
pub(super) const ADDRESS_COLUMNS: [&str; 9] = ["addressee", "attention", "addr1", "addr2", "addr3", "city", "state", "zip", "country"];

/// A record's present and recent past.
#[derive(Debug, Default)]
struct Slot {
    current: Option<Arc<Record>>,
    /// States that ended, with the moment of their end, oldest first.
    past: Vec<(DateTime<Utc>, Option<Arc<Record>>)>,
}

impl Slot {
    fn at(&self, moment: Option<DateTime<Utc>>) -> Option<&Arc<Record>> {
        let earlier = moment.and_then(|moment| self.past.iter().find(|(until, _)| *until > moment));
        earlier.map_or(self.current.as_ref(), |(_, state)| state.as_ref())
    }

    fn put(&mut self, state: Option<Arc<Record>>, now: DateTime<Utc>) {
        self.past.retain(|(until, _)| now - *until < MEMORY);
        let ended = std::mem::replace(&mut self.current, state);
        self.past.push((now, ended));
    }
}

/// The records of one type.
#[derive(Debug, Default)]
struct Store {
    slots: BTreeMap<u64, Slot>,
    external_ids: HashMap<String, u64>,
    entity_ids: HashMap<String, u64>,
}

/// A line of `deletedrecord`.
#[derive(Debug, Clone)]
pub(super) struct Deleted {
    pub(super) entity: Entity,
    pub(super) id: u64,
    pub(super) name: Option<String>,
    /// With sub-second precision; tables show seconds.
    pub(super) at: DateTime<Utc>,
}

/// How strictly a write is read.
#[derive(Debug, Clone, Default)]
pub(super) struct Strictness {
    /// Unknown names are errors; otherwise they are dropped without a word.
    pub(super) names: bool,
    /// Values of the wrong type are dropped without a word instead of being errors.
    pub(super) lenient_values: bool,
    /// Sublists to replace whole.
    pub(super) replace: Vec<String>,
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) id: u64,
    /// False where the record's content is what it was.
    pub(super) changed: bool,
}

/// Everything the account holds.
#[derive(Debug, Default)]
pub(super) struct Tables {
    customers: Store,
    contacts: Store,
    deleted: Vec<Deleted>,
    last_id: u64,
    last_address: u64,
}

/// The SuiteQL columns of a record type, in the order of its rows.
pub(super) fn columns(entity: Entity) -> Arc<[String]> {
    let plain = entity.fields().iter().filter(|field| field.kind != Kind::Addresses).map(|field| field.name.to_lowercase());
    let extra: &[&str] = match entity {
        Entity::Customer => &["defaultbillingaddress", "defaultshippingaddress"],
        Entity::Contact => &[],
    };
    plain.chain(extra.iter().map(|name| (*name).to_owned())).collect()
}

fn row(entity: Entity, id: u64, fields: &Fields, created: DateTime<Utc>, modified: DateTime<Utc>) -> Row {
    let cell = |name: &str, kind: Kind| match (kind, fields.get(name)) {
        (Kind::Key, _) => Cell::number(&id.to_string()),
        (Kind::Stamp, _) if name == "dateCreated" => Cell::Time(created),
        (Kind::Stamp, _) => Cell::Time(modified),
        (_, Some(Value::Bool(flag))) => Cell::boolean(*flag),
        (Kind::Money | Kind::Reference(_), Some(Value::Number(text) | Value::Text(text))) => Cell::number(text),
        (_, Some(Value::Text(text))) => Cell::text(text),
        _ => Cell::Null,
    };
    let plain = entity.fields().iter().filter(|field| field.kind != Kind::Addresses).map(|field| cell(field.name, field.kind));
    let default = |flag: &str| {
        let lines = fields.get("addressBook").and_then(Value::as_list).unwrap_or_default();
        let line = lines.iter().find(|line| line.get(flag).and_then(Value::as_bool) == Some(true));
        line.and_then(|line| line.get("id")).and_then(Value::as_str).map_or(Cell::Null, Cell::number)
    };
    match entity {
        Entity::Customer => plain.chain([default("defaultBilling"), default("defaultShipping")]).collect(),
        Entity::Contact => plain.collect(),
    }
}

fn addresses(fields: &Fields) -> Vec<Row> {
    let row = |line: &Value| {
        let id = Cell::number(line.get("id").and_then(Value::as_str).unwrap_or_default());
        let address = line.get("addressBookAddress");
        let text = |name: &&str| Cell::optional(address.and_then(|address| address.get(name)).and_then(Value::as_str));
        std::iter::once(id).chain(ADDRESS_COLUMNS.iter().map(text)).collect()
    };
    fields.get("addressBook").and_then(Value::as_list).unwrap_or_default().iter().map(row).collect()
}

/// References resolved against the tables.
impl Lookup for Tables {
    fn by_id(&self, target: Target, id: &str) -> Option<String> {
        match target {
            Target::Customer => self.current(Entity::Customer, id.parse().ok()?).map(|record| record.id.to_string()),
            list => list.entry(id).map(|_| id.to_owned()),
        }
    }

    fn by_external_id(&self, target: Target, external_id: &str) -> Option<String> {
        match target {
            Target::Customer => self.customers.external_ids.get(external_id).map(u64::to_string),
            _ => None,
        }
    }
}

impl Tables {
    fn store(&self, entity: Entity) -> &Store {
        match entity {
            Entity::Customer => &self.customers,
            Entity::Contact => &self.contacts,
        }
    }

    fn store_mut(&mut self, entity: Entity) -> &mut Store {
        match entity {
            Entity::Customer => &mut self.customers,
            Entity::Contact => &mut self.contacts,
        }
    }

    // === Reading; `moment` is the time that a lagging reader has reached ===

    fn current(&self, entity: Entity, id: u64) -> Option<&Arc<Record>> {
        self.get(entity, id, None)
    }

    pub(super) fn get(&self, entity: Entity, id: u64, moment: Option<DateTime<Utc>>) -> Option<&Arc<Record>> {
        self.store(entity).slots.get(&id)?.at(moment)
    }

    /// All records, by internal id.
    pub(super) fn all(&self, entity: Entity, moment: Option<DateTime<Utc>>) -> impl Iterator<Item = &Arc<Record>> {
        self.store(entity).slots.values().filter_map(move |slot| slot.at(moment))
    }

    /// The internal id behind a path segment: an internal id, or `eid:` and an external one.
    pub(super) fn resolve(&self, entity: Entity, segment: &str) -> Option<u64> {
        match segment.strip_prefix("eid:") {
            Some(external) => self.store(entity).external_ids.get(external).copied(),
            None => segment.parse().ok(),
        }
    }

    /// What was deleted, oldest first.
    pub(super) fn deleted(&self, moment: Option<DateTime<Utc>>) -> impl Iterator<Item = &Deleted> {
        self.deleted.iter().filter(move |line| moment.is_none_or(|moment| line.at <= moment))
    }

    /// What a reference is called.
    pub(super) fn reference_name(&self, target: Target, id: &str) -> Option<String> {
        match target {
            Target::Customer => {
                let customer = self.current(Entity::Customer, id.parse().ok()?)?;
                let name = customer.fields.get("companyName").or_else(|| customer.fields.get("entityId"))?;
                name.as_str().map(str::to_owned)
            }
            list => list.entry(id).map(str::to_owned),
        }
    }

    // === Writing ===

    /// Creates a record. `external_id` comes from the path and wins over the body's.
    pub(super) fn create(
        &mut self,
        entity: Entity,
        body: &Fields,
        external_id: Option<&str>,
        strictness: &Strictness,
        now: DateTime<Utc>,
    ) -> Result<Written, Problem> {
        let fields = self.checked(entity, None, body, external_id, strictness)?;
        let id = self.last_id + 1;
        self.last_id = id;
        let stamp = now.trunc_subsecs(0);
        self.put(entity, id, fields, stamp, stamp, now);
        Ok(Written { id, changed: true })
    }

    /// Changes the named fields of a record.
    pub(super) fn update(
        &mut self,
        entity: Entity,
        id: u64,
        body: &Fields,
        strictness: &Strictness,
        now: DateTime<Utc>,
    ) -> Result<Written, Problem> {
        let before = self.current(entity, id).cloned().ok_or_else(|| Problem::absent(&format!("{} {id}", entity.name())))?;
        let fields = self.checked(entity, Some(&before), body, None, strictness)?;
        let changed = fields != before.fields;
        self.put(entity, id, fields, before.created, now.trunc_subsecs(0), now);
        Ok(Written { id, changed })
    }

    /// Deletes a record and remembers that it was there.
    pub(super) fn delete(&mut self, entity: Entity, id: u64, now: DateTime<Utc>) -> Result<(), Problem> {
        let before = self.current(entity, id).cloned().ok_or_else(|| Problem::absent(&format!("{} {id}", entity.name())))?;
        if entity == Entity::Customer {
            let key = id.to_string();
            let names = |record: &&Arc<Record>, field: &str| record.fields.get(field).and_then(Value::as_str) == Some(&key);
            if self.all(Entity::Customer, None).any(|record| names(&record, "parent")) {
                return Err(Problem::new(400, "USER_ERROR", "This record cannot be deleted because it has dependent records."));
            }
            let people: Vec<Arc<Record>> = self.all(Entity::Contact, None).filter(|record| names(record, "company")).cloned().collect();
            for person in people {
                let mut fields = person.fields.clone();
                fields.shift_remove("company");
                self.put(Entity::Contact, person.id, fields, person.created, now.trunc_subsecs(0), now);
            }
        }
        let store = self.store_mut(entity);
        forget(store, &before);
        store.slots.entry(id).or_default().put(None, now);
        let name = before.fields.get("entityId").and_then(Value::as_str).map(str::to_owned);
        self.deleted.push(Deleted { entity, id, name, at: now });
        Ok(())
    }

    /// Puts a record of the initial data in, unchecked, with these stamps, as if it had always been so.
    pub(super) fn seed(&mut self, entity: Entity, id: u64, fields: Fields, created: DateTime<Utc>, modified: DateTime<Utc>) {
        self.last_id = self.last_id.max(id);
        self.put(entity, id, fields, created, modified, modified);
        if let Some(slot) = self.store_mut(entity).slots.get_mut(&id) {
            slot.past.clear();
        }
    }

    /// A new id for a line of an address book.
    pub(super) fn next_address(&mut self) -> u64 {
        self.last_address += 1;
        self.last_address
    }

    fn put(&mut self, entity: Entity, id: u64, fields: Fields, created: DateTime<Utc>, modified: DateTime<Utc>, now: DateTime<Utc>) {
        let row = row(entity, id, &fields, created, modified);
        let addresses = addresses(&fields);
        let record = Arc::new(Record { id, fields, created, modified, row, addresses });
        let store = self.store_mut(entity);
        if let Some(before) = store.slots.get(&id).and_then(|slot| slot.current.clone()) {
            forget(store, &before);
        }
        let text = |name: &str| record.fields.get(name).and_then(Value::as_str).map(str::to_owned);
        if let Some(external) = text("externalId") {
            store.external_ids.insert(external, id);
        }
        if let Some(name) = text("entityId") {
            store.entity_ids.insert(name, id);
        }
        store.slots.entry(id).or_default().put(Some(record), now);
    }

    /// The fields that a record would have after a write; nothing is changed.
    fn checked(
        &mut self,
        entity: Entity,
        before: Option<&Record>,
        body: &Fields,
        external_id: Option<&str>,
        strictness: &Strictness,
    ) -> Result<Fields, Problem> {
        let mut fields = before.map(|record| record.fields.clone()).unwrap_or_default();
        let mut details: Vec<Detail> = Vec::new();
        for (name, value) in body {
            if name == "links" {
                continue;
            }
            let Some(field) = entity.field(name) else {
                if strictness.names {
                    let text = format!(
                        "Invalid content in the request body. The property '{name}' does not exist in record type '{}'.",
                        entity.name()
                    );
                    details.push(wrong("INVALID_CONTENT", name, text));
                }
                continue;
            };
            if !field.writable() {
                continue;
            }
            let stored = if field.kind == Kind::Addresses {
                let replace = strictness.replace.iter().any(|list| list == name);
                let before = fields.get(name).cloned();
                values::addresses(before.as_ref(), value, replace, &mut || self.next_address())
            } else {
                values::stored(field, value, self)
            };
            match stored {
                Ok(Value::Null) => _ = fields.shift_remove(name),
                Ok(value) => _ = fields.insert(name.clone(), value),
                Err(detail) if strictness.lenient_values && detail.code == "INVALID_CONTENT" => {}
                Err(detail) => details.push(detail),
            }
        }
        if let Some(external) = external_id {
            fields.insert("externalId".to_owned(), Value::text(external));
        }
        self.completed(entity, before.map(|record| record.id), &mut fields, &mut details);
        match Problem::all(details) {
            Some(problem) => Err(problem),
            None => Ok(fields),
        }
    }

    /// Defaults, required values, uniqueness.
    fn completed(&self, entity: Entity, id: Option<u64>, fields: &mut Fields, details: &mut Vec<Detail>) {
        for flag in ["isPerson", "isInactive"] {
            if entity.field(flag).is_some() && !fields.contains_key(flag) {
                fields.insert(flag.to_owned(), Value::Bool(false));
            }
        }
        let text = |fields: &Fields, name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
        let person = fields.get("isPerson").and_then(Value::as_bool) == Some(true);
        let mut required = vec!["subsidiary"];
        match (entity, person) {
            (Entity::Customer, false) => required.push("companyName"),
            (Entity::Customer, true) | (Entity::Contact, _) => required.push("lastName"),
        }
        for name in required {
            if !fields.contains_key(name) {
                let title = entity.field(name).map_or(name, |field| field.title);
                details.push(wrong("USER_ERROR", name, format!("Error while accessing a resource. Please enter value(s) for: {title}.")));
            }
        }
        if !fields.contains_key("entityId") {
            let name = match entity {
                // Numbered by the account; the number is the internal id that the record will get.
                Entity::Customer => format!("CUST{}", id.unwrap_or(self.last_id + 1)),
                Entity::Contact => {
                    let names = ["firstName", "lastName"].map(|name| text(fields, name).unwrap_or_default());
                    names.join(" ").trim().to_owned()
                }
            };
            fields.insert("entityId".to_owned(), Value::Text(name));
        }
        let taken = |index: &HashMap<String, u64>, value: Option<String>| {
            value.and_then(|value| index.get(&value).copied()).is_some_and(|holder| Some(holder) != id)
        };
        let store = self.store(entity);
        if taken(&store.external_ids, text(fields, "externalId")) {
            details.push(wrong(
                "DUP_RCRD",
                "externalId",
                "Error while accessing a resource. This entity already exists: the external ID is in use.",
            ));
        }
        if entity == Entity::Customer && taken(&store.entity_ids, text(fields, "entityId")) {
            let words = "Error while accessing a resource. A customer record with this ID already exists. You must enter a unique customer ID for each record you create.";
            details.push(wrong("UNIQUE_CUST_ID_REQD", "entityId", words));
        }
        if let (Entity::Customer, Some(id), Some(parent)) = (entity, id, text(fields, "parent"))
            && self.descends(&parent, id)
        {
            details.push(wrong("INVALID_CONTENT", "parent", "Error while accessing a resource. A record cannot be its own parent."));
        }
    }

    /// Whether `from` is `ancestor` or one of its descendants.
    fn descends(&self, from: &str, ancestor: u64) -> bool {
        let mut next = from.parse::<u64>().ok();
        let mut steps = 0;
        while let Some(id) = next {
            if id == ancestor {
                return true;
            }
            steps += 1;
            let record = (steps < 100).then(|| self.current(Entity::Customer, id)).flatten();
            next = record.and_then(|record| record.fields.get("parent")?.as_str()?.parse().ok());
        }
        false
    }
}

/// Takes a record's unique names out of the indexes.
fn forget(store: &mut Store, record: &Record) {
    let text = |name: &str| record.fields.get(name).and_then(Value::as_str);
    if let Some(external) = text("externalId") {
        store.external_ids.remove(external);
    }
    // Contacts may share a name; only the holder of the entry gives it up.
    if let Some(name) = text("entityId")
        && store.entity_ids.get(name) == Some(&record.id)
    {
        store.entity_ids.remove(name);
    }
}
