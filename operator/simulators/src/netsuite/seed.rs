//! The account's first data: the companies of the universe as its accountants hold them, and their contacts.
//!
//! No record has an external id: nobody has integrated this account yet. The tax number is what other systems know it by.

use super::schema::{CURRENCIES, Entity};
use super::tables::Tables;
use crate::core::universe::{Company, INDUSTRIES, Status, mix};
use crate::core::value::{Fields, Value};
use crate::{Setting, System};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use std::collections::HashMap;

/// The internal id of the first customer.
const FIRST_ID: u64 = 1_001;

/// A moment within the 400 days before `now`, always the same for a number.
fn moment(now: DateTime<Utc>, number: u64) -> DateTime<Utc> {
    let seconds = i64::try_from(mix(number) % (400 * 86_400)).unwrap_or(0);
    (now - TimeDelta::seconds(seconds + 3_600)).trunc_subsecs(0)
}

/// Fills the tables.
pub(super) fn fill(tables: &mut Tables, setting: &Setting, now: DateTime<Utc>) {
    let companies: Vec<Company> = setting.companies.clone().map(|index| setting.universe.view(index, System::Netsuite)).collect();
    let ids: HashMap<u64, u64> = setting.companies.clone().zip(FIRST_ID..).collect();
    let mut contact_id = FIRST_ID + setting.companies.end.saturating_sub(setting.companies.start);
    for company in companies {
        let Some(&id) = ids.get(&company.index) else { continue };
        let modified = moment(now, setting.seed ^ company.index);
        let created = modified - TimeDelta::days(30);
        let parent = company.parent.and_then(|parent| ids.get(&parent)).copied();
        let line = tables.next_address();
        tables.seed(Entity::Customer, id, customer(&company, id, parent, line), created, modified);
        for person in &company.contacts {
            let fields = contact(&company, person, id);
            let modified = moment(now, setting.seed ^ mix(contact_id));
            tables.seed(Entity::Contact, contact_id, fields, created, modified);
            contact_id += 1;
        }
    }
}

fn subsidiary(company: &Company) -> &'static str {
    match company.country_code.as_str() {
        "US" | "CA" => "2",
        _ => "3",
    }
}

fn currency(company: &Company) -> &'static str {
    let code = match company.country_code.as_str() {
        "US" => "USD",
        "CA" => "CAD",
        "GB" => "GBP",
        "PL" => "PLN",
        "JP" => "JPY",
        _ => "EUR",
    };
    CURRENCIES.iter().find(|(_, name)| *name == code).map_or("1", |(id, _)| id)
}

/// Fields that have a value, in the order given.
fn present(pairs: impl IntoIterator<Item = (&'static str, Value)>) -> Fields {
    pairs.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.to_owned(), value)).collect()
}

fn customer(company: &Company, id: u64, parent: Option<u64>, line: u64) -> Fields {
    let category = INDUSTRIES.iter().position(|industry| *industry == company.industry).map(|at| (at + 1).to_string());
    let rating = ["A", "B", "C", "D"].get(usize::try_from(mix(company.index) % 5).unwrap_or(4));
    let (addr1, addr2) = match company.street.split_once('\n') {
        Some((first, second)) => (first, Some(second)),
        None => (company.street.as_str(), None),
    };
    let address = present([
        ("addressee", Value::text(&company.name)),
        ("addr1", Value::text(addr1)),
        ("addr2", Value::maybe(addr2)),
        ("city", Value::text(&company.city)),
        ("state", Value::maybe(company.state.as_deref())),
        ("zip", Value::text(&company.postal_code)),
        ("country", Value::text(&company.country_code)),
    ]);
    let book = present([
        ("id", Value::text(line.to_string())),
        ("defaultBilling", Value::Bool(true)),
        ("defaultShipping", Value::Bool(true)),
        ("label", Value::text(addr1)),
        ("addressBookAddress", Value::Object(address)),
    ]);
    present([
        ("entityId", Value::text(format!("CUST{id}"))),
        ("isPerson", Value::Bool(false)),
        ("companyName", Value::text(&company.name)),
        ("email", Value::maybe(company.email.as_deref())),
        ("phone", Value::maybe(company.phone.as_deref())),
        ("url", Value::maybe(company.website.as_deref())),
        ("subsidiary", Value::text(subsidiary(company))),
        ("currency", Value::text(currency(company))),
        ("creditLimit", company.credit_limit.clone().map_or(Value::Null, Value::Number)),
        ("vatRegNumber", Value::maybe(company.tax_id.as_deref())),
        ("comments", Value::maybe(company.description.as_deref())),
        ("category", Value::maybe(category)),
        ("parent", Value::maybe(parent.map(|parent| parent.to_string()))),
        ("isInactive", Value::Bool(company.status == Status::Former)),
        ("custentity_segment", Value::text(&company.segment)),
        ("custentity_credit_rating", Value::maybe(rating.copied())),
        ("addressBook", Value::List(vec![Value::Object(book)])),
    ])
}

fn contact(company: &Company, person: &crate::core::universe::Contact, customer: u64) -> Fields {
    let name = format!("{} {}", person.first_name.as_deref().unwrap_or_default(), person.last_name);
    present([
        ("entityId", Value::text(name.trim())),
        ("firstName", Value::maybe(person.first_name.as_deref())),
        ("lastName", Value::text(&person.last_name)),
        ("title", Value::maybe(person.title.as_deref())),
        ("email", Value::maybe(person.email.as_deref())),
        ("phone", Value::maybe(person.phone.as_deref())),
        ("company", Value::text(customer.to_string())),
        ("subsidiary", Value::text(subsidiary(company))),
        ("isInactive", Value::Bool(false)),
    ])
}
