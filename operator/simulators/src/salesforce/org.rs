//! The tables of the simulated org, and what stands in them at the start.
//!
//! Rows are immutable and shared: a query's locator keeps the rows that it found, and a stale read finds what a row was
//! before. Nothing here validates; [`super::dml`] does, and [`super::query`] reads.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use chrono::{DateTime, Duration, TimeZone, Utc};

use super::ids;
use super::query::Plan;
use super::schema::{ENTITIES, Entity, Field, Kind};
use crate::core::universe::{Company, Status};
use crate::core::value::Value;
use crate::{Setting, System};

/// Positions in [`ENTITIES`].
pub(super) const ACCOUNT: usize = 0;
pub(super) const CONTACT: usize = 1;
const USER: usize = 2;
const ORGANIZATION: usize = 3;

/// How long a row remembers what it was, in seconds: the reach of a stale read.
const MEMORY: i64 = 120;

/// How many locators a user may have open; the oldest gives way.
const CURSORS: usize = 10;

/// One version of a record.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: String,
    /// By the position of the field in its entity.
    pub(super) values: Vec<Value>,
    pub(super) deleted: bool,
    /// When this version came to be, exactly; stamps on the wire have whole seconds.
    pub(super) changed: DateTime<Utc>,
    previous: Option<Arc<Row>>,
}

/// The records of one type.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) rows: BTreeMap<String, Arc<Row>>,
    /// (field, value) to ids: external id fields of rows that are not deleted, and references to parents of all rows.
    index: HashMap<(usize, String), BTreeSet<String>>,
    next: u64,
}

/// A query whose later pages are still to be fetched.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    pub(super) plan: Arc<Plan>,
    pub(super) rows: Arc<Vec<Arc<Row>>>,
    pub(super) page: usize,
}

/// The state of the org.
#[derive(Debug)]
pub(super) struct Org {
    pub(super) tables: Vec<Table>,
    cursors: VecDeque<(String, Cursor)>,
    cursor_number: u64,
    /// The user that API clients and people act as.
    pub(super) user: String,
    /// The org's id, 18 characters.
    pub(super) id: String,
    /// API calls so far.
    pub(super) calls: u64,
}

/// A stamp as it stands on the wire: whole seconds, UTC, no colon in the offset.
pub(super) fn stamp(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%dT%H:%M:%S.000+0000").to_string()
}

/// The moment of a stamp on the wire.
pub(super) fn moment(stamp: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_str(stamp, "%Y-%m-%dT%H:%M:%S%.3f%z").ok().map(|at| at.with_timezone(&Utc))
}

impl Row {
    /// The version that a reader sees who is behind by what happened after `horizon`.
    pub(super) fn at(self: &Arc<Self>, horizon: DateTime<Utc>) -> Option<&Arc<Self>> {
        let mut row = self;
        while row.changed > horizon {
            row = row.previous.as_ref()?;
        }
        Some(row)
    }
}

impl Table {
    /// The ids of the records that have this value in a field: an external id (not deleted ones), or a reference to a
    /// parent (deleted ones too).
    pub(super) fn find(&self, entity: &Entity, position: usize, value: &str) -> Vec<String> {
        let key = (position, index_key(entity, position, value));
        self.index.get(&key).map(|ids| ids.iter().cloned().collect()).unwrap_or_default()
    }

    /// The id for the next new record.
    pub(super) fn next_id(&mut self, prefix: &str) -> String {
        self.next += 1;
        ids::make(prefix, self.next)
    }

    /// Stores a version; the one before stays reachable for a while.
    pub(super) fn put(&mut self, entity: &Entity, mut row: Row) {
        let old = self.rows.get(&row.id).cloned();
        if let Some(old) = &old {
            self.unindex(entity, old);
        }
        for key in indexed(entity, &row) {
            self.index.entry(key).or_default().insert(row.id.clone());
        }
        row.previous = old.map(|old| match row.changed - old.changed > Duration::seconds(MEMORY) {
            true => Arc::new(Row { previous: None, ..(*old).clone() }),
            false => old,
        });
        self.rows.insert(row.id.clone(), Arc::new(row));
    }

    fn unindex(&mut self, entity: &Entity, row: &Row) {
        for key in indexed(entity, row) {
            if let Some(ids) = self.index.get_mut(&key) {
                ids.remove(&row.id);
                if ids.is_empty() {
                    self.index.remove(&key);
                }
            }
        }
    }
}

fn indexed(entity: &Entity, row: &Row) -> Vec<(usize, String)> {
    let key = |(position, field): (usize, &Field)| {
        let wanted = if field.external { !row.deleted } else { is_parent(field.kind) };
        row.values[position].as_str().filter(|_| wanted).map(|value| (position, index_key(entity, position, value)))
    };
    entity.fields.iter().enumerate().filter_map(key).collect()
}

/// True for a reference by which children are found.
fn is_parent(kind: Kind) -> bool {
    matches!(kind, Kind::Reference(to, _) if to != "User")
}

fn index_key(entity: &Entity, position: usize, value: &str) -> String {
    let field = &entity.fields[position];
    if field.unique || is_parent(field.kind) { value.to_owned() } else { value.to_lowercase() }
}

impl Org {
    /// The org with the companies of this setting.
    pub(super) fn new(setting: &Setting) -> Self {
        let user = ids::make("005", 1);
        let id = ids::make("00D", setting.seed);
        let mut org =
            Self { tables: vec![Table::default(); ENTITIES.len()], cursors: VecDeque::new(), cursor_number: 0, user, id, calls: 0 };
        org.seed_house();
        let mut accounts = HashMap::new();
        for index in setting.companies.clone() {
            let id = org.tables[ACCOUNT].next_id(ENTITIES[ACCOUNT].prefix);
            accounts.insert(index, id);
        }
        for index in setting.companies.clone() {
            let company = setting.universe.view(index, System::Salesforce);
            // Groups of seven share a second, so that a stable order needs more than the stamp.
            let at = epoch() + Duration::seconds(i64::try_from(index / 7).unwrap_or_default() * 61);
            org.seed_company(&company, &accounts, at);
        }
        org
    }

    /// The user and the organization itself.
    fn seed_house(&mut self) {
        let user = self.user.clone();
        let org_id = self.id.clone();
        self.seed(
            USER,
            super::auth::person(),
            epoch(),
            &[
                ("Username", Value::text("pat@fairlead.example")),
                ("Name", Value::text("Pat Person")),
                ("Email", Value::text("pat@fairlead.example")),
                ("IsActive", Value::Bool(true)),
            ],
        );
        self.seed(
            USER,
            user,
            epoch(),
            &[
                ("Username", Value::text(super::auth::USERNAME)),
                ("Name", Value::text("Integration User")),
                ("Email", Value::text("integration@fairlead.example")),
                ("IsActive", Value::Bool(true)),
            ],
        );
        self.seed(
            ORGANIZATION,
            org_id,
            epoch(),
            &[
                ("Name", Value::text("Fairlead Simulated Org")),
                ("IsSandbox", Value::Bool(true)),
                ("InstanceName", Value::text("HS0")),
                ("OrganizationType", Value::text("Enterprise Edition")),
            ],
        );
    }

    fn seed_company(&mut self, company: &Company, accounts: &HashMap<u64, String>, at: DateTime<Utc>) {
        let Some(id) = accounts.get(&company.index) else { return };
        let text = |value: &str| Value::text(value);
        let maybe = |value: &Option<String>| Value::maybe(value.clone());
        let money = |value: &Option<String>| value.as_deref().and_then(super::dml::money).map_or(Value::Null, Value::Number);
        let kind = match company.status {
            Status::Prospect => "Prospect",
            Status::Customer => "Customer",
            Status::Former => "Former Customer",
        };
        let parent = company.parent.and_then(|parent| accounts.get(&parent)).cloned();
        self.seed(
            ACCOUNT,
            id.clone(),
            at,
            &[
                ("Name", text(&company.name)),
                ("Type", text(kind)),
                ("ParentId", Value::maybe(parent)),
                ("BillingStreet", text(&company.street)),
                ("BillingCity", text(&company.city)),
                ("BillingState", maybe(&company.state)),
                ("BillingPostalCode", text(&company.postal_code)),
                ("BillingCountry", text(&company.country)),
                ("BillingCountryCode", text(&company.country_code)),
                ("Phone", maybe(&company.phone)),
                ("Website", maybe(&company.website)),
                ("Industry", text(&company.industry)),
                ("AnnualRevenue", money(&company.annual_revenue)),
                ("NumberOfEmployees", company.employees.map_or(Value::Null, Value::int)),
                ("Description", maybe(&company.description)),
                ("Tax_Number__c", maybe(&company.tax_id)),
                ("Credit_Limit__c", money(&company.credit_limit)),
                ("Segment__c", text(&company.segment)),
                ("Email__c", maybe(&company.email)),
            ],
        );
        for person in &company.contacts {
            let contact = self.tables[CONTACT].next_id(ENTITIES[CONTACT].prefix);
            self.seed(
                CONTACT,
                contact,
                at,
                &[
                    ("AccountId", text(id)),
                    ("FirstName", maybe(&person.first_name)),
                    ("LastName", text(&person.last_name)),
                    ("Name", Value::Text(super::dml::full_name(person.first_name.as_deref(), &person.last_name))),
                    ("Email", maybe(&person.email)),
                    ("Phone", maybe(&person.phone)),
                    ("Title", maybe(&person.title)),
                ],
            );
        }
    }

    fn seed(&mut self, entity: usize, id: String, at: DateTime<Utc>, values: &[(&str, Value)]) {
        let mut row = self.blank(entity, id, at);
        for (name, value) in values {
            if let Some(position) = ENTITIES[entity].position(name) {
                row.values[position] = match value {
                    // The platform keeps no spaces at either end and no empty text.
                    Value::Text(text) if text.trim().is_empty() => Value::Null,
                    Value::Text(text) => Value::text(text.trim()),
                    other => other.clone(),
                };
            }
        }
        self.tables[entity].put(&ENTITIES[entity], row);
    }

    /// A new row with nothing but its system fields.
    pub(super) fn blank(&self, entity: usize, id: String, at: DateTime<Utc>) -> Row {
        let values = ENTITIES[entity].fields.iter().map(|field| match (field.name, field.kind) {
            ("Id", _) => Value::text(&id),
            ("OwnerId" | "CreatedById" | "LastModifiedById", _) => Value::text(&self.user),
            ("CreatedDate" | "LastModifiedDate" | "SystemModstamp", _) => Value::Text(stamp(at)),
            (_, Kind::Boolean) => Value::Bool(false),
            _ => Value::Null,
        });
        Row { values: values.collect(), id, deleted: false, changed: at, previous: None }
    }

    /// Puts the tables back to what they were; ids that were given out are not given again.
    pub(super) fn restore(&mut self, mut tables: Vec<Table>) {
        for (before, now) in tables.iter_mut().zip(&self.tables) {
            before.next = now.next;
        }
        self.tables = tables;
    }

    /// Opens a locator and returns its id; the oldest gives way.
    pub(super) fn open(&mut self, cursor: Cursor) -> String {
        self.cursor_number += 1;
        let id = ids::make("01g", self.cursor_number);
        self.cursors.push_back((id.clone(), cursor));
        if self.cursors.len() > CURSORS {
            self.cursors.pop_front();
        }
        id
    }

    /// A locator that is still open.
    pub(super) fn cursor(&self, id: &str) -> Option<&Cursor> {
        self.cursors.iter().find(|(open, _)| open == id).map(|(_, cursor)| cursor)
    }
}

/// When the oldest seeded record was made.
fn epoch() -> DateTime<Utc> {
    Utc.timestamp_opt(1_736_150_400, 0).single().unwrap_or_default()
}
