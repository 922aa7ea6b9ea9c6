//! The history checker: what systems say of themselves, judged for loss, duplicates, order and idle work.
//!
//! It reads what the simulators recorded (first content, log, last content) and nothing else, least of all Fairlead's own state: people's
//! entries in the logs are the truth about what was to arrive. It is pure, and proven with wrong histories to see each fault it names.
//!
//! | fault | means |
//! |---|---|
//! | lost | the last edit that a field's owner made, or a record that a person made, is not what the systems hold in the end |
//! | duplicates | one system holds a business key, or a correlation key, more than once, or was made to create it more than once |
//! | inversions | a system was given a field's older value after a newer one, or an owner's newer value was overwritten |
//! | invented | a system was given a value that none of them ever held |
//! | vanished | a record was deleted in one system although nobody deleted it in another |
//! | undead | a record that was deleted where it was made is still there where deletions are carried out |
//! | differences | a shared field, or a whole record, differs in the end |
//! | idle | a write through the API left its record as it was |
//!
//! Assumptions: a record's business key is not edited (it pairs the copies), and people give a field no value twice in a row. Nothing is owed for
//! a record that somebody deleted or merged away, nor in a system for one that refers to a record which does not belong there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr as _;

pub use crate::core::log::{Entry, Origin, Outcome};

use crate::core::value::Value;
use anyhow::Context as _;
use bigdecimal::BigDecimal;

/// So many examples of a fault are kept.
const EXAMPLES: usize = 8;

/// A system's word for a record that a person merged into another.
const MERGE: &str = "merge";

/// Where the log entry of a merge names the record that stays, by its id.
const MERGED_INTO: &str = "MergedInto";

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
    /// What is to happen there.
    pub part: Part,
}

/// A system's part in what is kept in step.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// What people do there is read.
    pub read: bool,
    /// It is given what it lacks.
    pub written: bool,
    /// Values of its own in fields of other owners stay as they are.
    pub keeps: bool,
    /// It tells what was deleted there.
    pub tells_deletions: bool,
    /// What was deleted where it was made is deleted here too.
    pub deletes: bool,
    /// It is given only records whose field of this name has this value.
    pub only: Option<(&'static str, &'static str)>,
}

impl Default for Part {
    fn default() -> Self {
        Self { read: true, written: true, keeps: false, tells_deletions: false, deletes: false, only: None }
    }
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
    /// References to the copies of one record.
    Reference,
}

/// A field that the systems hold.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Its name, for people.
    pub name: &'static str,
    /// Its name in each system.
    pub native: Vec<&'static str>,
    /// Whose value wins: the place of a system in the agreement.
    pub owner: usize,
    /// When two values are one.
    pub form: Form,
}

/// What systems are to hold in common.
#[derive(Clone, Debug)]
pub struct Agreement {
    /// The systems.
    pub naming: Vec<Naming>,
    /// The fields.
    pub fields: Vec<Shared>,
    /// Names of the fields of which the first that has a value is the business key.
    pub identity: Vec<&'static str>,
}

impl Agreement {
    /// What `examples/quickstart` declares: Salesforce accounts first, NetSuite customers second.
    #[must_use]
    pub fn quickstart() -> Self {
        let field = |name, left, right, owner, form| Shared { name, native: vec![left, right], owner, form };
        let part = Part::default();
        Self {
            naming: vec![
                Naming { system: "Salesforce", entity: "Account", id: "Id", key: "Fairlead_Id__c", part },
                Naming { system: "NetSuite", entity: "customer", id: "id", key: "externalId", part },
            ],
            fields: vec![
                field("name", "Name", "companyName", 0, Form::Text),
                field("taxId", "Tax_Number__c", "vatRegNumber", 0, Form::Text),
                field("email", "Email__c", "email", 0, Form::Caseless),
                field("phone", "Phone", "phone", 0, Form::Text),
                field("website", "Website", "url", 0, Form::Text),
                field("description", "Description", "comments", 0, Form::Text),
                field("segment", "Segment__c", "custentity_segment", 0, Form::Text),
                field("creditLimit", "Credit_Limit__c", "creditLimit", 1, Form::Amount),
                field("parent", "ParentId", "parent", 0, Form::Reference),
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
    pub undead: Found,
    /// Likewise.
    pub differences: Found,
    /// Likewise.
    pub idle: Found,
}

impl Report {
    /// Every fault by its name. Idle writes are work for nothing, not a wrong state, and may be told apart.
    #[must_use]
    pub fn faults(&self) -> [(&'static str, &Found); 8] {
        [
            ("lost", &self.lost),
            ("duplicates", &self.duplicates),
            ("inversions", &self.inversions),
            ("invented", &self.invented),
            ("vanished", &self.vanished),
            ("undead", &self.undead),
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

/// Judges what the systems of an agreement say, in its order.
#[must_use]
pub fn check(agreement: &Agreement, told: &[&Told]) -> Report {
    let mut books: Vec<Book<'_>> = told.iter().enumerate().map(|(place, told)| Book::new(agreement, place, told)).collect();
    let merged: BTreeMap<String, String> = books.iter().flat_map(|book| book.merged.clone()).collect();
    for book in &mut books {
        book.merged.clone_from(&merged);
        let mut given = std::mem::take(&mut book.given);
        for ((_, index), values) in &mut given {
            let field = &agreement.fields[*index];
            values.iter_mut().for_each(|given| given.value = book.follow(field, std::mem::take(&mut given.value)));
        }
        book.given = given;
    }
    let mut report = Report::default();
    let judge = Judge { agreement, books: &books };
    for place in 0..books.len() {
        judge.count(place, &mut report);
        judge.duplicates(place, &mut report);
        judge.vanished(place, &mut report);
        judge.losses(place, &mut report);
        judge.order(place, &mut report);
        judge.undead(place, &mut report);
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
    /// The business key of each record that was ever there, by the system's id, as it was last.
    keys: HashMap<String, String>,
    /// The business key of an entry's record at that moment, by the entry's sequence.
    at: HashMap<u64, String>,
    /// Business keys of records that people merged away, and of those that they went into; of all systems.
    merged: BTreeMap<String, String>,
    before: HashMap<String, &'a Value>,
    /// By business key; several where there are duplicates.
    after: BTreeMap<String, Vec<&'a Value>>,
    /// What each field of each record was given, in order: people's and the API's values alike, but not what changed nothing.
    given: BTreeMap<(String, usize), Vec<Given<'a>>>,
    /// Business keys of records that a person deleted.
    deleted: BTreeSet<String>,
}

impl<'a> Book<'a> {
    fn new(agreement: &Agreement, place: usize, told: &'a Told) -> Self {
        let naming = agreement.naming[place];
        let native = |field: &Shared| field.native[place];
        let id = |record: &Value| text(record.get(naming.id));
        let mine: Vec<&Entry> = told.log.iter().filter(|entry| entry.entity == naming.entity).collect();

        // What identifies a record may change when systems merge: one that takes over another's copy there writes its own key into it.
        let identity: Vec<&str> = agreement.identity.iter().filter_map(|name| agreement.field(name)).map(native).collect();
        let mut identities: HashMap<String, Vec<String>> = HashMap::new();
        let mut keys: HashMap<String, String> = HashMap::new();
        let mut learn = |keys: &mut HashMap<String, String>, id: &str, values: &Value| {
            let known = identities.entry(id.to_owned()).or_insert_with(|| vec![String::new(); identity.len()]);
            for (known, field) in known.iter_mut().zip(&identity) {
                if let Some(value) = values.get(field) {
                    *known = text(Some(value));
                }
            }
            if let Some(key) = known.iter().find(|value| !value.is_empty()) {
                keys.insert(id.to_owned(), key.clone());
            }
        };
        for record in &told.before {
            learn(&mut keys, &id(record), record);
        }
        let before = told.before.iter().filter_map(|record| Some((keys.get(&id(record))?.clone(), record))).collect();
        let mut at = HashMap::new();
        let mut merged = BTreeMap::new();
        let mut given: BTreeMap<(String, usize), Vec<Given<'a>>> = BTreeMap::new();
        let mut deleted = BTreeSet::new();
        for entry in mine {
            if matches!(entry.outcome, Outcome::Created | Outcome::Updated) {
                learn(&mut keys, &entry.key, &entry.values);
            }
            let key = keys.get(&entry.key).cloned().unwrap_or_else(|| format!("record {} of {}", entry.key, naming.system));
            at.insert(entry.sequence, key.clone());
            match (entry.outcome, entry.origin) {
                (Outcome::Created | Outcome::Updated, _) => {
                    for (index, field) in agreement.fields.iter().enumerate() {
                        if let Some(value) = entry.values.get(native(field)) {
                            let value = normal(field.form, value, &keys);
                            given.entry((key.clone(), index)).or_default().push(Given { entry, value });
                        }
                    }
                }
                (Outcome::Deleted, Origin::Person) => {
                    if let Some(survivor) = entry.values.get(MERGED_INTO).and_then(|id| keys.get(&text(Some(id)))) {
                        merged.insert(key.clone(), survivor.clone());
                    }
                    deleted.insert(key);
                }
                _ => {}
            }
        }
        for record in &told.after {
            learn(&mut keys, &id(record), record);
        }
        let mut after: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
        for record in &told.after {
            let key = keys.get(&id(record)).cloned().unwrap_or_else(|| format!("record {} of {}", id(record), naming.system));
            after.entry(key).or_default().push(record);
        }
        Self { naming, told, keys, at, merged, before, after, given, deleted }
    }

    /// The business key of an entry's record.
    fn key(&self, entry: &Entry) -> Option<&String> {
        self.at.get(&entry.sequence)
    }

    /// Whether a person deleted the record here, under its key, or one that it had before what it was merged into gave it another.
    fn has_deleted(&self, key: &str) -> bool {
        let by_person =
            |entry: &&Entry| entry.origin == Origin::Person && entry.outcome == Outcome::Deleted && entry.values.get(MERGED_INTO).is_none();
        let earlier = |gone: &String| self.survivor(gone).is_some_and(|survivor| survivor == key);
        self.deleted.contains(key) || self.told.log.iter().filter(by_person).filter_map(|entry| self.key(entry)).any(earlier)
    }

    /// What a record that was merged away went into, in the end.
    fn survivor(&self, key: &str) -> Option<&String> {
        std::iter::successors(self.merged.get(key), |key| self.merged.get(*key)).take(self.merged.len()).last()
    }

    /// A reference to what was merged away means what that went into.
    fn follow(&self, field: &Shared, value: String) -> String {
        self.survivor(&value).filter(|_| field.form == Form::Reference).cloned().unwrap_or(value)
    }

    fn system(&self) -> &'static str {
        self.naming.system
    }

    fn held(&self, record: &Value, field: &Shared, place: usize) -> String {
        let value = record.get(field.native[place]).map(|value| normal(field.form, value, &self.keys)).unwrap_or_default();
        self.follow(field, value)
    }

    fn given(&self, key: &str, field: usize) -> &[Given<'a>] {
        self.given.get(&(key.to_owned(), field)).map(Vec::as_slice).unwrap_or_default()
    }

    /// What the field held at first; nothing where the record was not there yet.
    fn first(&self, key: &str, field: &Shared, place: usize) -> String {
        self.before.get(key).map(|record| self.held(record, field, place)).unwrap_or_default()
    }

    /// What the field held one after another, from the beginning: a record that was made with a value was never without one.
    fn states(&self, key: &str, index: usize, field: &Shared, place: usize) -> Vec<String> {
        let given = self.given(key, index);
        let made_with_it = given.first().is_some_and(|first| first.entry.outcome == Outcome::Created) && !self.before.contains_key(key);
        let first = Some(self.first(key, field, place)).filter(|_| !made_with_it);
        first.into_iter().chain(given.iter().map(|given| given.value.clone())).collect()
    }
}

struct Judge<'a> {
    agreement: &'a Agreement,
    books: &'a [Book<'a>],
}

impl Judge<'_> {
    fn book(&self, place: usize) -> &Book<'_> {
        &self.books[place]
    }

    fn others(&self, place: usize) -> impl Iterator<Item = usize> + use<'_> {
        (0..self.books.len()).filter(move |other| *other != place)
    }

    /// Somebody deleted it somewhere, so nothing is owed for it any more; nor for what people merged, whose values come from both.
    fn deleted(&self, key: &str) -> bool {
        self.books.iter().any(|book| book.deleted.contains(key) || book.merged.values().any(|survivor| survivor == key))
    }

    /// What the field's owner holds in the end, if it has the record.
    fn owned(&self, key: &str, field: &Shared) -> Option<String> {
        let book = self.book(field.owner);
        let record = book.after.get(key).and_then(|records| records.first())?;
        Some(book.held(record, field, field.owner))
    }

    /// Whether anybody gave the field a value in the system at `place`: at first, or later by hand.
    fn spoke(&self, place: usize, key: &str, index: usize, field: &Shared) -> bool {
        !self.book(place).first(key, field, place).is_empty() || self.by_hand(place, key, index).next().is_some()
    }

    /// What people gave the field in the system at `place`.
    fn by_hand(&self, place: usize, key: &str, index: usize) -> impl DoubleEndedIterator<Item = &Given<'_>> {
        self.book(place).given(key, index).iter().filter(|given| given.entry.origin == Origin::Person)
    }

    /// The values of a field by which a condition may be judged: what its owner holds; where its copy was made for it and nobody has spoken there, the
    /// newest as well that a person gave it elsewhere and that stands there, for the owner's copy may have been known by then, or not.
    fn condition(&self, key: &str, name: &str) -> Option<Vec<String>> {
        let index = self.agreement.fields.iter().position(|field| field.name == name)?;
        let field = &self.agreement.fields[index];
        let owned = self.owned(key, field)?;
        if self.spoke(field.owner, key, index, field) {
            return Some(vec![owned]);
        }
        let stands = |place: usize| {
            let held = self.book(place).held(self.book(place).after.get(key)?.first()?, field, place);
            self.by_hand(place, key, index).next_back().filter(|given| given.value == held)
        };
        let read = self.others(field.owner).filter(|place| self.book(*place).naming.part.read);
        let newest = read.filter_map(stands).max_by_key(|given| &given.entry.time).map(|given| given.value.clone());
        Some(std::iter::once(owned).chain(newest).collect())
    }

    /// Whether the system at `place` is to be given the record: it is written, its condition holds, and what the record refers to belongs there too.
    fn belongs(&self, place: usize, key: &str) -> bool {
        self.belongs_within(place, key, &mut BTreeSet::new())
    }

    fn belongs_within(&self, place: usize, key: &str, on_the_way: &mut BTreeSet<String>) -> bool {
        let part = self.book(place).naming.part;
        let fits =
            part.only.is_none_or(|(name, value)| self.condition(key, name).is_some_and(|held| held.iter().all(|held| held == value)));
        if !part.written || !fits || self.deleted(key) {
            return false;
        }
        // Records that refer to each other are made one after the other.
        if !on_the_way.insert(key.to_owned()) {
            return true;
        }
        let references = self.agreement.fields.iter().filter(|field| field.form == Form::Reference);
        // Its owner may not have the record; any copy tells.
        let copies =
            |field| self.books.iter().enumerate().filter_map(move |(at, book)| Some(book.held(book.after.get(key)?.first()?, field, at)));
        let referred: BTreeSet<String> = references.flat_map(copies).filter(|other| !other.is_empty()).collect();
        referred.iter().all(|other| self.belongs_within(place, other, on_the_way))
    }

    /// Whether the system at `place` is bound to hold what the owner of the field holds: not where it may keep, or nobody reads, a value of its own.
    fn bound(&self, place: usize, key: &str, index: usize, field: &Shared) -> bool {
        let book = self.book(place);
        let part = book.naming.part;
        let edited = self.by_hand(place, key, index).next().is_some();
        let own = edited || (part.keeps && !book.first(key, field, place).is_empty());
        self.belongs(place, key)
            && (place == field.owner || !own || (part.read && !part.keeps && !self.entered_again(place, key, index, field)))
    }

    /// Whether a person entered over the owner's value, after it was put back, just what stood there before: as long as nobody has read it in
    /// between, that is how the system renders the owner's value.
    fn entered_again(&self, place: usize, key: &str, index: usize, field: &Shared) -> bool {
        let [.., first, put_back, last] = self.book(place).given(key, index) else { return false };
        let by = |given: &Given<'_>, origin| given.entry.origin == origin;
        let entered = by(first, Origin::Person) && by(put_back, Origin::Api) && by(last, Origin::Person) && first.value == last.value;
        entered && self.owned(key, field).is_some_and(|owned| owned == put_back.value)
    }

    /// Whether what the owner of the field said may have been said to nobody: where nothing is written, a field that was empty at first and is empty
    /// again looks as if nothing had been entered in between. What has arrived anywhere was seen.
    fn unseen(&self, key: &str, index: usize, field: &Shared) -> bool {
        let owner = self.book(field.owner);
        let states = owner.states(key, index, field, field.owner);
        let empty = owner.first(key, field, field.owner).is_empty() && states.last().is_some_and(String::is_empty);
        let seen = |given: &Given<'_>| given.entry.origin == Origin::Api && !given.value.is_empty() && states.contains(&given.value);
        let arrived = self.others(field.owner).any(|other| self.book(other).given(key, index).iter().any(seen));
        !owner.naming.part.written && empty && !arrived
    }

    fn count(&self, place: usize, report: &mut Report) {
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

    fn duplicates(&self, place: usize, report: &mut Report) {
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
        for (key, records) in book.after.iter().filter(|(key, records)| records.len() > 1 && !book.merged.contains_key(*key)) {
            let ids: Vec<String> = records.iter().map(|record| text(record.get(book.naming.id))).collect();
            report.duplicates.add(|| format!("{} holds {key} {} times: {}", book.system(), ids.len(), ids.join(", ")));
        }
        // What was made twice and removed once was visible twice.
        let mut created: BTreeMap<&String, Vec<&Entry>> = BTreeMap::new();
        for entry in book.told.log.iter().filter(|entry| entry.outcome == Outcome::Created && entry.entity == book.naming.entity) {
            if let Some(key) = book.key(entry) {
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

    fn vanished(&self, place: usize, report: &mut Report) {
        let book = self.book(place);
        for entry in &book.told.log {
            if entry.outcome == Outcome::Deleted && entry.origin == Origin::Api && entry.entity == book.naming.entity {
                let wanted = book.key(entry).is_some_and(|key| self.others(place).any(|other| self.book(other).has_deleted(key)));
                if !wanted {
                    report.vanished.add(|| format!("{}: {}", book.system(), line(entry)));
                }
            }
        }
    }

    /// What people did in the system at `place` and what both systems hold of it in the end.
    fn losses(&self, place: usize, report: &mut Report) {
        let here = self.book(place);
        for entry in &here.told.log {
            if entry.origin == Origin::Person && entry.outcome == Outcome::Created && entry.entity == here.naming.entity {
                report.creations += 1;
                let Some(key) = here.key(entry).filter(|_| here.naming.part.read) else { continue };
                for there in self.others(place).filter(|other| self.belongs(*other, key)).map(|other| self.book(other)) {
                    if !there.after.contains_key(key) {
                        report.lost.add(|| format!("{key}, made in {}, is not in {}: {}", here.system(), there.system(), line(entry)));
                    }
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
            let Some(last) = edits.next_back().filter(|_| !self.deleted(key) && !self.unseen(key, *index, field)) else { continue };
            for at in (0..self.books.len()).filter(|at| *at == place || self.bound(*at, key, *index, field)) {
                let book = self.book(at);
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
    fn order(&self, place: usize, report: &mut Report) {
        let here = self.book(place);
        for ((key, index), values) in here.given.iter().filter(|((key, _), _)| !self.deleted(key)) {
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
            let owner = self.book(field.owner).states(key, *index, field, field.owner);
            let given_there = self.book(field.owner).given(key, *index);
            let begun = owner.len() - given_there.len();
            let elsewhere = || self.others(place).flat_map(|other| self.book(other).states(key, *index, field, other));
            let people = values.iter().filter(|given| given.entry.origin == Origin::Person).map(|given| given.value.clone());
            let own: BTreeSet<String> = std::iter::once(here.first(key, field, place)).chain(people).collect();
            let mut reached = 0;
            for given in values.iter().filter(|given| given.entry.origin == Origin::Api) {
                // What the owner came to hold later, others may have held before.
                let since = |state: usize| {
                    state.checked_sub(begun).and_then(|number| given_there.get(number)).is_none_or(|by| by.entry.time <= given.entry.time)
                };
                if let Some(ahead) = (reached..owner.len()).find(|state| owner[*state] == given.value && since(*state)) {
                    reached = ahead;
                } else if let Some(older) = owner[..reached].iter().position(|state| *state == given.value) {
                    report.inversions.add(|| {
                        let (newest, by) = (&owner[reached], line(given.entry));
                        format!(
                            "{} of {key} in {} went back from {newest:?} (number {reached}) to number {older}: {by}",
                            field.name,
                            here.system()
                        )
                    });
                } else if !own.contains(&given.value) && !elsewhere().any(|state| state == given.value) {
                    report.invented.add(|| format!("{} of {key} was never {:?} anywhere: {}", field.name, given.value, line(given.entry)));
                }
            }
        }
    }

    /// Whether a person made the record once, and it was nowhere before: what is entered again has another home, or lives again.
    fn made_once(&self, key: &str) -> bool {
        let by_person = |entry: &&Entry| entry.origin == Origin::Person && entry.outcome == Outcome::Created;
        let made = |book: &Book<'_>| {
            book.told.log.iter().filter(by_person).filter(|entry| book.key(entry).is_some_and(|made| made == key)).count()
        };
        self.books.iter().all(|book| !book.before.contains_key(key)) && self.books.iter().map(made).sum::<usize>() == 1
    }

    /// Whether people had entered anew all that the copy was made with, but what identifies it, before anything else was written to it, and that not
    /// before `deletion` elsewhere: one that was made without a correlation key is then somebody else's to whoever does not know what became of its
    /// creation.
    fn is_disguised(&self, place: usize, key: &str, deletion: &Entry) -> bool {
        let book = self.book(place);
        let by_api = |entry: &&Entry| entry.origin == Origin::Api && entry.outcome == Outcome::Updated;
        let written = book.told.log.iter().filter(by_api).find(|entry| book.key(entry).is_some_and(|written| written == key));
        let known = written.map_or(u64::MAX, |entry| entry.sequence);
        let beyond = self.agreement.fields.iter().enumerate().filter(|(_, field)| !self.agreement.identity.contains(&field.name));
        let made = |given: &&[Given<'_>]| {
            given
                .first()
                .is_some_and(|made| made.entry.outcome == Outcome::Created && made.entry.external_id.is_none() && !made.value.is_empty())
        };
        let mut made = beyond.map(|(index, _)| book.given(key, index)).filter(made).peekable();
        let edited = |given: &[Given<'_>]| {
            let last = given.iter().take_while(|each| each.entry.sequence < known).last();
            last.is_some_and(|last| last.value != given[0].value)
        };
        written.is_none_or(|entry| entry.time > deletion.time) && made.peek().is_some() && made.all(edited)
    }

    /// What a person deleted where it was made is deleted where deletions are carried out.
    fn undead(&self, place: usize, report: &mut Report) {
        let here = self.book(place);
        if !here.naming.part.tells_deletions || !here.naming.part.read {
            return;
        }
        let by_person = |outcome| move |entry: &&Entry| entry.origin == Origin::Person && entry.outcome == outcome;
        let made: BTreeSet<&str> = here.told.log.iter().filter(by_person(Outcome::Created)).map(|entry| entry.key.as_str()).collect();
        for entry in here.told.log.iter().filter(by_person(Outcome::Deleted)) {
            if entry.operation == MERGE || !made.contains(entry.key.as_str()) {
                continue;
            }
            // What was merged elsewhere is another record's second copy here.
            let Some(key) = here.key(entry).filter(|key| !here.merged.contains_key(*key) && self.made_once(key)) else { continue };
            for other in self.others(place).filter(|other| self.book(*other).naming.part.deletes) {
                let there = self.book(other);
                if there.after.contains_key(key) && !self.is_disguised(other, key, entry) {
                    report.undead.add(|| format!("{key}, deleted in {}, is still in {}: {}", here.system(), there.system(), line(entry)));
                }
            }
        }
    }

    fn differences(&self, report: &mut Report) {
        let keys: BTreeSet<&String> = self.books.iter().filter(|book| book.naming.part.read).flat_map(|book| book.after.keys()).collect();
        let places = 0..self.books.len();
        for key in keys.into_iter().filter(|key| !self.deleted(key)) {
            let record = |place: usize| self.book(place).after.get(key).and_then(|records| records.first());
            let absent: Vec<usize> = places.clone().filter(|place| self.belongs(*place, key) && record(*place).is_none()).collect();
            if !absent.is_empty() {
                let named = |places: Vec<usize>| places.into_iter().map(|place| self.book(place).system()).collect::<Vec<_>>().join(", ");
                let present = places.clone().filter(|place| record(*place).is_some()).collect();
                report.differences.add(|| format!("{key} is only in {}, not in {}", named(present), named(absent)));
                continue;
            }
            for (index, field) in self.agreement.fields.iter().enumerate() {
                let held = |place: usize| Some((place, self.book(place).held(record(place)?, field, place)));
                let mut bound = places.clone().filter(|place| self.bound(*place, key, index, field)).filter_map(held);
                // Until its owner has the record, the others agree among themselves.
                // An owner's empty value replaces nothing at first, and where nothing is written it stays empty. What was made for the owner, and does
                // not belong there any more, is nobody's word.
                let says = |(place, _): &(usize, String)| {
                    self.belongs(*place, key) || (self.spoke(*place, key, index, field) && !self.unseen(key, index, field))
                };
                let Some((first, wanted)) = held(field.owner).filter(says).or_else(|| bound.next()) else { continue };
                for (place, other) in bound.filter(|(_, other)| *other != wanted) {
                    let (owner, one, two) = (self.book(field.owner).system(), self.book(first).system(), self.book(place).system());
                    report
                        .differences
                        .add(|| format!("{} of {key} (owned by {owner}): {wanted:?} in {one}, {other:?} in {two}", field.name));
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
