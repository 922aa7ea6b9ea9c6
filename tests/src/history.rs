//! The history checker: what two systems say of themselves, judged for loss, duplicates, order and idle work.
//!
//! It reads what the simulators recorded (first content, log, last content) and nothing else, least of all Fairlead's own state: people's
//! entries in the logs are the truth about what was to arrive. It is pure, and proven with wrong histories to see each fault it names.
//!
//! | fault | means |
//! |---|---|
//! | lost | the last edit that a field's owner made, or a record that a person made, is not what both systems hold in the end |
//! | duplicates | one system holds a business key, or a correlation key, more than once, or was made to create it more than once |
//! | inversions | a system was given a field's older value after a newer one, or an owner's newer value was overwritten |
//! | invented | a system was given a value that neither of them ever held |
//! | vanished | a record was deleted in one system although nobody deleted it in the other |
//! | differences | a shared field, or a whole record, differs in the end |
//! | idle | a write through the API left its record as it was |
//!
//! Assumptions: a record's business key is not edited (it pairs the two copies), and people give a field no value twice in a row.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr as _;

use anyhow::Context as _;
use bigdecimal::BigDecimal;
use fairlead_simulators::core::value::Value;
use serde::Deserialize;

/// So many examples of a fault are kept.
const EXAMPLES: usize = 8;

/// One of the two systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The first.
    Left,
    /// The second.
    Right,
}

impl Place {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Left, Self::Right];

    fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }

    fn at<T>(self, pair: &[T; 2]) -> &T {
        match self {
            Self::Left => &pair[0],
            Self::Right => &pair[1],
        }
    }
}

/// How a system names what the checker looks at.
#[derive(Clone, Copy, Debug)]
pub struct Naming {
    /// The system, for people.
    pub system: &'static str,
    /// The record type.
    pub entity: &'static str,
    /// The field with the system's own id.
    pub id: &'static str,
    /// The field that holds the correlation key.
    pub key: &'static str,
}

/// When two native values are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Equal texts; an empty one is no value.
    Text,
    /// Texts that differ in capitals at most.
    Caseless,
    /// Equal amounts, however many zeros they are written with.
    Amount,
    /// References to the two copies of one record.
    Reference,
}

/// A field that both systems hold.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    /// Its name, for people.
    pub name: &'static str,
    /// Its name in each system.
    pub native: [&'static str; 2],
    /// Whose value wins.
    pub owner: Place,
    /// When two values are one.
    pub form: Form,
}

/// What two systems are to hold in common.
#[derive(Clone, Debug)]
pub struct Agreement {
    /// The systems.
    pub naming: [Naming; 2],
    /// The fields.
    pub fields: Vec<Shared>,
    /// Names of the fields of which the first that has a value is the business key.
    pub identity: Vec<&'static str>,
}

impl Agreement {
    /// What `examples/quickstart` declares: Salesforce accounts on the left, NetSuite customers on the right.
    #[must_use]
    pub fn quickstart() -> Self {
        let field = |name, left, right, owner, form| Shared { name, native: [left, right], owner, form };
        Self {
            naming: [
                Naming { system: "Salesforce", entity: "Account", id: "Id", key: "Fairlead_Id__c" },
                Naming { system: "NetSuite", entity: "customer", id: "id", key: "externalId" },
            ],
            fields: vec![
                field("name", "Name", "companyName", Place::Left, Form::Text),
                field("taxId", "Tax_Number__c", "vatRegNumber", Place::Left, Form::Text),
                field("email", "Email__c", "email", Place::Left, Form::Caseless),
                field("phone", "Phone", "phone", Place::Left, Form::Text),
                field("website", "Website", "url", Place::Left, Form::Text),
                field("description", "Description", "comments", Place::Left, Form::Text),
                field("segment", "Segment__c", "custentity_segment", Place::Left, Form::Text),
                field("creditLimit", "Credit_Limit__c", "creditLimit", Place::Right, Form::Amount),
                field("parent", "ParentId", "parent", Place::Left, Form::Reference),
            ],
            identity: vec!["taxId", "name"],
        }
    }

    /// The shared field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Shared> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// What a request did to a record, in the simulators' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It made it.
    Created,
    /// It changed it.
    Updated,
    /// It left it as it was.
    Unchanged,
    /// It deleted it.
    Deleted,
    /// It was refused.
    Rejected,
}

/// Who asked, in the simulators' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// A client of the API.
    Api,
    /// A person.
    Person,
}

/// One line of a simulator's log.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its place in the order of effects.
    pub sequence: u64,
    /// When.
    pub time: String,
    /// The record type.
    pub entity: String,
    /// The record's id.
    pub key: String,
    /// The external id by which it was named.
    #[serde(default)]
    pub external_id: Option<String>,
    /// The system's word for what was asked.
    pub operation: String,
    /// What was asked for.
    pub values: Value,
    /// What came of it.
    pub outcome: Outcome,
    /// Why it was refused.
    #[serde(default)]
    pub code: Option<String>,
    /// Whether the caller got the answer.
    pub answered: bool,
    /// Who asked.
    pub origin: Origin,
    /// The HTTP request it came with.
    pub request: u64,
}

impl Entry {
    /// Whether a client of the API changed something with it.
    #[must_use]
    pub fn is_effect_of_api(&self) -> bool {
        self.origin == Origin::Api && matches!(self.outcome, Outcome::Created | Outcome::Updated | Outcome::Deleted)
    }
}

/// What one simulator says of itself.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The records it held before anything happened.
    pub before: Vec<Value>,
    /// Everything that was written or tried, in order.
    pub log: Vec<Entry>,
    /// The records it holds now.
    pub after: Vec<Value>,
}

impl Told {
    /// Reads the log as a simulator serves it.
    ///
    /// # Errors
    /// When it is no log.
    pub fn read_log(json: &[u8]) -> anyhow::Result<Vec<Entry>> {
        serde_json::from_slice(json).context("this is no simulator's log")
    }

    /// Reads records as a simulator serves them.
    ///
    /// # Errors
    /// When it is no list of records.
    pub fn read_records(json: &[u8]) -> anyhow::Result<Vec<Value>> {
        serde_json::from_slice(json).context("this is no simulator's list of records")
    }
}

/// How often a fault was found, with a few examples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How often.
    pub count: u64,
    /// The first of them, in words.
    pub examples: Vec<String>,
}

impl Found {
    fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(example());
        }
    }
}

/// The verdict on a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Edits that people made of shared fields that their side owns; each of them was to arrive unless a later one replaced it.
    pub edits: u64,
    /// Edits that people made of fields that the other side owns; each was to be put back.
    pub foreign_edits: u64,
    /// Records that people made.
    pub creations: u64,
    /// Writes through the API that had an effect.
    pub writes: u64,
    /// Of these, the caller never got the answer.
    pub unanswered: u64,
    /// Writes through the API that were refused.
    pub rejected: u64,
    /// See the table at the head of this file.
    pub lost: Found,
    /// Likewise.
    pub duplicates: Found,
    /// Likewise.
    pub inversions: Found,
    /// Likewise.
    pub invented: Found,
    /// Likewise.
    pub vanished: Found,
    /// Likewise.
    pub differences: Found,
    /// Likewise.
    pub idle: Found,
}

impl Report {
    /// Every fault by its name. Idle writes are work for nothing, not a wrong state, and may be told apart.
    #[must_use]
    pub fn faults(&self) -> [(&'static str, &Found); 7] {
        [
            ("lost", &self.lost),
            ("duplicates", &self.duplicates),
            ("inversions", &self.inversions),
            ("invented", &self.invented),
            ("vanished", &self.vanished),
            ("differences", &self.differences),
            ("idle", &self.idle),
        ]
    }

    /// Fails with the whole report when there is a fault other than idle writes.
    ///
    /// # Errors
    /// The report, in words.
    pub fn correct(&self) -> anyhow::Result<()> {
        let wrong = self.faults().iter().any(|(name, found)| *name != "idle" && found.count > 0);
        anyhow::ensure!(!wrong, "the history is wrong:\n{self}");
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{} edits by owners, {} by others, {} records made by people; {} writes ({} unanswered), {} refused",
            self.edits, self.foreign_edits, self.creations, self.writes, self.unanswered, self.rejected
        )?;
        for (name, found) in self.faults() {
            writeln!(out, "{name}: {}", found.count)?;
            for example in &found.examples {
                writeln!(out, "  {example}")?;
            }
        }
        Ok(())
    }
}

/// Judges what the two systems of an agreement say, the left one first.
#[must_use]
pub fn check(agreement: &Agreement, told: [&Told; 2]) -> Report {
    let books = Place::BOTH.map(|place| Book::new(agreement, place, place.at::<&Told>(&told)));
    let mut report = Report::default();
    let judge = Judge { agreement, books: &books };
    for place in Place::BOTH {
        judge.count(place, &mut report);
        judge.duplicates(place, &mut report);
        judge.vanished(place, &mut report);
        judge.losses(place, &mut report);
        judge.order(place, &mut report);
    }
    judge.differences(&mut report);
    report
}

/// One value that a field was given.
struct Given<'a> {
    entry: &'a Entry,
    value: String,
}

/// One system's records and log, by business key.
struct Book<'a> {
    naming: Naming,
    told: &'a Told,
    /// The business key of each record that was ever there, by the system's id.
    keys: HashMap<String, String>,
    before: HashMap<String, &'a Value>,
    /// By business key; several where there are duplicates.
    after: BTreeMap<String, Vec<&'a Value>>,
    /// What each field of each record was given, in order: people's and the API's values alike, but not what changed nothing.
    given: BTreeMap<(String, usize), Vec<Given<'a>>>,
    /// Business keys of records that a person deleted.
    deleted: BTreeSet<String>,
}

impl<'a> Book<'a> {
    fn new(agreement: &Agreement, place: Place, told: &'a Told) -> Self {
        let naming = *place.at(&agreement.naming);
        let native = |field: &Shared| *place.at(&field.native);
        let business_key = |record: &Value| {
            let fields = agreement.identity.iter().filter_map(|name| agreement.field(name));
            fields.map(|field| text(record.get(native(field)))).find(|value| !value.is_empty())
        };
        let id = |record: &Value| text(record.get(naming.id));
        let mine: Vec<&Entry> = told.log.iter().filter(|entry| entry.entity == naming.entity).collect();

        let mut keys = HashMap::new();
        for entry in mine.iter().filter(|entry| entry.outcome == Outcome::Created) {
            if let Some(key) = business_key(&entry.values) {
                keys.insert(entry.key.clone(), key);
            }
        }
        for record in told.before.iter().chain(&told.after) {
            if let Some(key) = business_key(record) {
                keys.insert(id(record), key);
            }
        }
        let key_of = |id: &str| keys.get(id).cloned().unwrap_or_else(|| format!("record {id} of {}", naming.system));

        let mut after: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
        for record in &told.after {
            after.entry(key_of(&id(record))).or_default().push(record);
        }
        let mut given: BTreeMap<(String, usize), Vec<Given<'a>>> = BTreeMap::new();
        let mut deleted = BTreeSet::new();
        for entry in mine {
            match (entry.outcome, entry.origin) {
                (Outcome::Created | Outcome::Updated, _) => {
                    for (index, field) in agreement.fields.iter().enumerate() {
                        if let Some(value) = entry.values.get(native(field)) {
                            let value = normal(field.form, value, &keys);
                            given.entry((key_of(&entry.key), index)).or_default().push(Given { entry, value });
                        }
                    }
                }
                (Outcome::Deleted, Origin::Person) => {
                    deleted.insert(key_of(&entry.key));
                }
                _ => {}
            }
        }
        let before = told.before.iter().map(|record| (key_of(&id(record)), record)).collect();
        Self { naming, told, keys, before, after, given, deleted }
    }

    fn system(&self) -> &'static str {
        self.naming.system
    }

    fn held(&self, record: &Value, field: &Shared, place: Place) -> String {
        let native: &&str = place.at(&field.native);
        record.get(native).map(|value| normal(field.form, value, &self.keys)).unwrap_or_default()
    }

    fn given(&self, key: &str, field: usize) -> &[Given<'a>] {
        self.given.get(&(key.to_owned(), field)).map(Vec::as_slice).unwrap_or_default()
    }

    /// What the field held at first; nothing where the record was not there yet.
    fn first(&self, key: &str, field: &Shared, place: Place) -> String {
        self.before.get(key).map(|record| self.held(record, field, place)).unwrap_or_default()
    }

    /// What the field held one after another, from the beginning.
    fn states(&self, key: &str, index: usize, field: &Shared, place: Place) -> Vec<String> {
        std::iter::once(self.first(key, field, place)).chain(self.given(key, index).iter().map(|given| given.value.clone())).collect()
    }
}

struct Judge<'a> {
    agreement: &'a Agreement,
    books: &'a [Book<'a>; 2],
}

impl Judge<'_> {
    fn book(&self, place: Place) -> &Book<'_> {
        place.at(self.books)
    }

    /// Somebody deleted it on either side, so nothing is owed for it any more.
    fn deleted(&self, key: &str) -> bool {
        self.books.iter().any(|book| book.deleted.contains(key))
    }

    fn count(&self, place: Place, report: &mut Report) {
        let book = self.book(place);
        for entry in book.told.log.iter().filter(|entry| entry.origin == Origin::Api) {
            if entry.is_effect_of_api() {
                report.writes += 1;
                report.unanswered += u64::from(!entry.answered);
            }
            report.rejected += u64::from(entry.outcome == Outcome::Rejected);
            if entry.outcome == Outcome::Unchanged && entry.entity == book.naming.entity {
                report.idle.add(|| format!("{}: {}", book.system(), line(entry)));
            }
        }
    }

    fn duplicates(&self, place: Place, report: &mut Report) {
        let book = self.book(place);
        let mut correlated: BTreeMap<String, u64> = BTreeMap::new();
        for record in &book.told.after {
            let key = text(record.get(book.naming.key));
            if !key.is_empty() {
                *correlated.entry(key).or_default() += 1;
            }
        }
        for (key, count) in correlated.iter().filter(|(_, count)| **count > 1) {
            report.duplicates.add(|| format!("{} holds {count} records with correlation key {key}", book.system()));
        }
        for (key, records) in book.after.iter().filter(|(_, records)| records.len() > 1) {
            let ids: Vec<String> = records.iter().map(|record| text(record.get(book.naming.id))).collect();
            report.duplicates.add(|| format!("{} holds {key} {} times: {}", book.system(), ids.len(), ids.join(", ")));
        }
        // What was made twice and removed once was visible twice.
        let mut created: BTreeMap<&String, Vec<&Entry>> = BTreeMap::new();
        for entry in book.told.log.iter().filter(|entry| entry.outcome == Outcome::Created && entry.entity == book.naming.entity) {
            if let Some(key) = book.keys.get(&entry.key) {
                created.entry(key).or_default().push(entry);
            }
        }
        for (key, entries) in created {
            let present = book.after.get(key).map_or(0, Vec::len);
            let existed = usize::from(book.before.contains_key(key));
            let by_api = entries.iter().any(|entry| entry.origin == Origin::Api);
            if entries.len() + existed > 1 && by_api && present < 2 && !self.deleted(key) {
                report.duplicates.add(|| format!("{} was made to create {key} again: {}", book.system(), line(entries[entries.len() - 1])));
            }
        }
    }

    fn vanished(&self, place: Place, report: &mut Report) {
        let book = self.book(place);
        for entry in &book.told.log {
            if entry.outcome == Outcome::Deleted && entry.origin == Origin::Api && entry.entity == book.naming.entity {
                let wanted = book.keys.get(&entry.key).is_some_and(|key| self.book(place.other()).deleted.contains(key));
                if !wanted {
                    report.vanished.add(|| format!("{}: {}", book.system(), line(entry)));
                }
            }
        }
    }

    /// What people did in the system at `place` and what both systems hold of it in the end.
    fn losses(&self, place: Place, report: &mut Report) {
        let (here, there) = (self.book(place), self.book(place.other()));
        for entry in &here.told.log {
            if entry.origin == Origin::Person && entry.outcome == Outcome::Created && entry.entity == here.naming.entity {
                report.creations += 1;
                if let Some(key) = here.keys.get(&entry.key).filter(|key| !self.deleted(key))
                    && !there.after.contains_key(key)
                {
                    report.lost.add(|| format!("{key}, made in {}, is not in {}: {}", here.system(), there.system(), line(entry)));
                }
            }
        }
        for ((key, index), values) in &here.given {
            let field = &self.agreement.fields[*index];
            let mut edits = values.iter().filter(|given| given.entry.origin == Origin::Person);
            if field.owner != place {
                report.foreign_edits += edits.filter(|given| given.entry.outcome == Outcome::Updated).count() as u64;
                continue;
            }
            report.edits += edits.clone().filter(|given| given.entry.outcome == Outcome::Updated).count() as u64;
            let Some(last) = edits.next_back().filter(|_| !self.deleted(key)) else { continue };
            for (book, at) in [(here, place), (there, place.other())] {
                // A record that is missing altogether is told once, as a difference or a lost creation.
                let Some(record) = book.after.get(key).and_then(|records| records.first()) else { continue };
                let held = book.held(record, field, at);
                if held != last.value {
                    report.lost.add(|| {
                        format!(
                            "{} of {key} is {held:?} in {}, but {} was told: {}",
                            field.name,
                            book.system(),
                            here.system(),
                            line(last.entry)
                        )
                    });
                }
            }
        }
    }

    /// What the API gave the fields of the system at `place`, against what their owner held one after another.
    fn order(&self, place: Place, report: &mut Report) {
        let (here, there) = (self.book(place), self.book(place.other()));
        for ((key, index), values) in &here.given {
            let field = &self.agreement.fields[*index];
            if field.owner == place {
                let mut own: Option<&Given<'_>> = None;
                for given in values {
                    match (given.entry.origin, own) {
                        (Origin::Person, _) => own = Some(given),
                        (Origin::Api, Some(newer)) if given.value != newer.value => report.inversions.add(|| {
                            let (what, by) = (line(newer.entry), line(given.entry));
                            format!("{} of {key}, owned by {}, was overwritten after {what} by {by}", field.name, here.system())
                        }),
                        (Origin::Api, _) => {}
                    }
                }
                continue;
            }
            let owner = there.states(key, *index, field, place.other());
            let people = values.iter().filter(|given| given.entry.origin == Origin::Person).map(|given| given.value.clone());
            let own: BTreeSet<String> = std::iter::once(here.first(key, field, place)).chain(people).collect();
            let mut reached = 0;
            for given in values.iter().filter(|given| given.entry.origin == Origin::Api) {
                if let Some(ahead) = owner[reached..].iter().position(|state| *state == given.value) {
                    reached += ahead;
                } else if let Some(older) = owner.iter().position(|state| *state == given.value) {
                    report.inversions.add(|| {
                        let (newest, by) = (&owner[reached], line(given.entry));
                        format!(
                            "{} of {key} in {} went back from {newest:?} (number {reached}) to number {older}: {by}",
                            field.name,
                            here.system()
                        )
                    });
                } else if !own.contains(&given.value) {
                    report.invented.add(|| format!("{} of {key} was never {:?} anywhere: {}", field.name, given.value, line(given.entry)));
                }
            }
        }
    }

    fn differences(&self, report: &mut Report) {
        let keys: BTreeSet<&String> = self.books.iter().flat_map(|book| book.after.keys()).collect();
        for key in keys.into_iter().filter(|key| !self.deleted(key)) {
            let copies = Place::BOTH.map(|place| self.book(place).after.get(key).and_then(|records| records.first()));
            let [Some(left), Some(right)] = copies else {
                let only = if copies[0].is_some() { Place::Left } else { Place::Right };
                report.differences.add(|| format!("{key} is only in {}", self.book(only).system()));
                continue;
            };
            for field in &self.agreement.fields {
                let (a, b) =
                    (self.book(Place::Left).held(left, field, Place::Left), self.book(Place::Right).held(right, field, Place::Right));
                if a != b {
                    let owner = self.book(field.owner).system();
                    report.differences.add(|| format!("{} of {key} (owned by {owner}): {a:?} and {b:?}", field.name));
                }
            }
        }
    }
}

/// A line of a log, for people.
fn line(entry: &Entry) -> String {
    let who = if entry.origin == Origin::Person { "person" } else { "api" };
    let answered = if entry.answered { "" } else { ", unanswered" };
    format!("#{} {} {who} {} {} {}{answered}", entry.sequence, entry.time, entry.operation, entry.key, entry.values)
}

fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::Text(text)) => text.trim().to_owned(),
        Some(Value::Number(number)) => number.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(object @ Value::Object(_)) => text(object.get("id")),
        Some(Value::Null | Value::List(_)) | None => String::new(),
    }
}

/// A value as it is compared; `keys` tells which record a reference means.
fn normal(form: Form, value: &Value, keys: &HashMap<String, String>) -> String {
    let text = text(Some(value));
    match form {
        Form::Text => text,
        Form::Caseless => text.to_lowercase(),
        Form::Amount => BigDecimal::from_str(&text).map_or(text, |amount| amount.normalized().to_plain_string()),
        Form::Reference => keys.get(&text).cloned().unwrap_or(text),
    }
}
