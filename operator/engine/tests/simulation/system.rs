//! A business system of the simulation: things in a table, behind one of the protocols that a definition can word. It does no I/O and never
//! waits; what goes wrong on the way lies in [`crate::process`].

use fairlead_model::Timestamp;
use fairlead_simulators::core::value::Value as Native;
use fairlead_simulators::history::{Entry, Origin, Outcome};
use fairlead_systems::Definition;
use serde_json::{Map, Value, json};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

/// The fields that people edit, in the systems' words.
pub(crate) const FIELDS: [&str; 5] = ["Code", "Name", "Phone", "Label", "Parent"];

/// So long a caller may take from looking at a record to the effect of its write: two requests that are slow, and what lies between them.
const LOOK_TO_WRITE: i64 = 30_000;

/// How a system is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// By a list with a cursor.
    Listed,
    /// By SOQL.
    Queried,
}

/// How a system is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    /// A request for each record.
    Single,
    /// So many records with one request.
    Batch(usize),
    /// sObject Collections.
    Collections(usize),
}

/// What a system is like.
#[derive(Debug, Clone)]
pub(crate) struct Style {
    /// Its name.
    pub(crate) name: &'static str,
    /// How it is read.
    pub(crate) reads: Reads,
    /// How it is written.
    pub(crate) writes: Writes,
    /// It has a field for the canonical id, and creates by it once however often it is asked.
    pub(crate) keyed: bool,
    /// It answers writes with the record.
    pub(crate) answers: bool,
    /// It keeps phone numbers in capitals and without spaces around them.
    pub(crate) normalises: bool,
    /// Rows on a page.
    pub(crate) page: usize,
    /// How long after its stamp a change may become visible, in milliseconds.
    pub(crate) lag: i64,
    /// How long what the API made may stay unseen in lists and searches.
    pub(crate) visible_after: i64,
    /// How long reads may show what was before.
    pub(crate) stale_for: i64,
    /// What its stamps are multiples of.
    pub(crate) resolution: i64,
    /// It tells the time in its answers.
    pub(crate) dated: bool,
}

impl Style {
    /// What a team would write about it.
    pub(crate) fn definition(&self) -> Definition {
        let record = if self.answers { ", record: ." } else { "" };
        let item = if self.answers { ", record: .record" } else { "" };
        let key = if self.keyed { "  - {name: Key, type: String, correlation: true}\n" } else { "" };
        let read = match self.reads {
            Reads::Listed => format!(
                "  read:\n    request: {{path: /things, query: {{since: '{{{{cursor}}}}', limit: {page}}}}}\n    records: .data\n    next: {{after: .next}}\n    cursor: {{field: .Stamp, lag: {lag}s}}\n  get: {{request: {{path: '/things/{{{{id}}}}'}}}}\n  search: {{request: {{path: /search, query: {{field: '{{{{field}}}}', equals: '{{{{value}}}}'}}}}, records: .data}}\n",
                page = self.page,
                lag = self.lag / 1000,
            ),
            Reads::Queried => format!(
                "  read: {{soql: {{from: Thing, stamp: Stamp, lag: {lag}s, page: {page}, deleted: IsDeleted, merged: MergedInto}}}}\n",
                lag = self.lag / 1000,
                page = self.page,
            ),
        };
        let create = if self.keyed {
            format!(
                "  upsert: {{request: {{method: PUT, path: '/by-key/{{{{key}}}}', body: .record}}, result: {{id: .Id{record}}}, idempotent: true}}\n"
            )
        } else {
            format!("  create: {{request: {{method: POST, path: /things, body: .record}}, result: {{id: .Id{record}}}}}\n")
        };
        let singles = format!(
            "{create}  update: {{request: {{method: PATCH, path: '/things/{{{{id}}}}', body: .record}}, result: {{id: .Id{record}}}, idempotent: true}}\n  delete: {{request: {{method: DELETE, path: '/things/{{{{id}}}}'}}}}\n"
        );
        let write = match self.writes {
            Writes::Single => singles,
            Writes::Batch(max) => format!(
                "{singles}  batch: {{request: {{method: POST, path: /batch, body: '{{\"records\": .records}}'}}, max: {max}, results: .results, result: {{id: .id, status: .status, ok: [ok]{item}}}, idempotent: true}}\n"
            ),
            Writes::Collections(max) => format!("  collections: {{max: {max}}}\n"),
        };
        let text = format!(
            "system: {name}
auth: [{{method: ClientCredentials, token: {{url: '{{{{endpoint}}}}/token'}}}}]
timeout: 20s
throttle: {{initial: 1s, max: 10s}}
errorBody: {{code: [.code], message: [.message]}}
errors:
- {{code: [LOCKED], class: Transient, effect: None}}
- {{status: 401, class: Auth}}
- {{status: 404, class: NotFound}}
- {{status: 429, class: Throttled, retryAfter: header}}
- {{code: [NOT_FOUND, ENTITY_IS_DELETED], class: NotFound}}
probe: {{path: /me}}
entities:
- name: Thing
  key: .Id
  modified: .Stamp
  visibleAfter: {visible}s
  staleFor: {stale}s
  archive: {{Active: false}}
  fields:
  - {{name: Id, type: String, writable: false}}
{key}  - {{name: Code, type: String}}
  - {{name: Name, type: String}}
  - {{name: Phone, type: String}}
  - {{name: Label, type: String}}
  - {{name: Parent, type: Reference}}
  - {{name: Active, type: Boolean}}
{read}{write}",
            name = self.name,
            visible = self.visible_after / 1000,
            stale = self.stale_for / 1000,
        );
        Definition::parse(&text).unwrap_or_else(|findings| panic!("{findings:?}\n{text}"))
    }

    /// Whether deletions are told.
    pub(crate) fn tells_deletions(&self) -> bool {
        self.reads == Reads::Queried
    }
}

/// A request, as the system sees it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) token: Option<String>,
    pub(crate) body: String,
    /// Its number.
    pub(crate) number: u64,
}

impl Asked {
    /// It may change records.
    pub(crate) fn writes(&self) -> bool {
        self.method != "GET" && self.path != "/token"
    }

    /// It goes on with a pass over all records.
    pub(crate) fn goes_on(&self) -> bool {
        self.query.contains_key("after") || self.query.get("q").is_some_and(|text| text.contains(" > "))
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Told {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self { status, headers: vec![("content-type", "application/json".into())], body: body.to_string() }
    }

    fn error(status: u16, code: &str) -> Self {
        Self::json(status, &json!({"code": code, "message": "as the system says"}))
    }
}

/// How a request is treated besides.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Treatment {
    /// Which items of a batch are refused, bit by bit.
    pub(crate) refused: u64,
    /// Reads show what was so long ago.
    pub(crate) stale: i64,
    /// The page that was told before is told again.
    pub(crate) page_before: bool,
    /// The caller gets the answer.
    pub(crate) answered: bool,
}

#[derive(Debug, Clone, Default)]
struct Row {
    fields: Map<String, Value>,
    stamp: i64,
    deleted: bool,
    merged_into: Option<String>,
    /// Not in lists and searches before.
    visible_at: i64,
    /// When it became what it is, and what it was before that.
    since: i64,
    before: Option<(Map<String, Value>, i64)>,
    /// The place in the log of that change.
    change: usize,
    /// When a caller last looked at this very record, and how much of the log it could know of then.
    looked: Cell<Option<(i64, usize)>>,
    /// Fields in which somebody was ever shown a value.
    told: RefCell<BTreeSet<&'static str>>,
    /// What a caller last wrote or was shown of each field, and how much of the log that includes.
    known: RefCell<BTreeMap<&'static str, (Value, usize)>>,
    /// A caller has kept what it was shown of the record, or has written it.
    kept: bool,
}

impl Row {
    /// A caller has written these values; so much of the log it may know.
    fn written(&self, values: &Map<String, Value>, place: usize) {
        self.told.borrow_mut().extend(filled(values));
        self.known.borrow_mut().extend(FIELDS.into_iter().filter_map(|field| Some((field, (values.get(field)?.clone(), place)))));
    }

    /// A caller is shown the record like this. What is outdated says nothing of what is there now.
    fn shown(&self, fields: &Map<String, Value>, place: usize, outdated: bool) {
        self.told.borrow_mut().extend(filled(fields));
        if outdated {
            let of = |field: &str| fields.get(field).cloned().unwrap_or_default();
            return self.known.borrow_mut().retain(|field, (value, _)| *value == of(field));
        }
        self.known.borrow_mut().extend(FIELDS.map(|field| (field, (fields.get(field).cloned().unwrap_or_default(), place))));
    }
}

/// Who changes something, and when.
#[derive(Debug, Clone, Copy)]
struct Hand {
    origin: Origin,
    now: i64,
    stamp: i64,
    answered: bool,
    request: u64,
}

/// A system.
pub(crate) struct System {
    pub(crate) style: Style,
    rows: BTreeMap<String, Row>,
    log: Vec<Entry>,
    /// What people entered, by entry and field, of which no caller could know (see [`System::known_log`]).
    unknown: BTreeSet<(u64, &'static str)>,
    /// Fields, by the record's id, that count as empty from the start, for nobody was shown what they held at first.
    blank: BTreeSet<(String, &'static str)>,
    token: u64,
    made: u64,
    /// The last page of a pass.
    page: Option<Value>,
}

impl System {
    pub(crate) fn new(style: Style) -> Self {
        Self {
            style,
            rows: BTreeMap::new(),
            log: Vec::new(),
            unknown: BTreeSet::new(),
            blank: BTreeSet::new(),
            token: 1,
            made: 0,
            page: None,
        }
    }

    // === What people do ===

    /// A record that is there from the beginning.
    pub(crate) fn seed(&mut self, values: Map<String, Value>, stamp: i64) -> String {
        let id = self.new_id();
        let fields = self.normal(values);
        self.rows.insert(id.clone(), Row { fields, stamp, since: stamp, ..Row::default() });
        id
    }

    /// A person makes a record.
    pub(crate) fn create(&mut self, values: Map<String, Value>, now: i64, stamp: i64) -> String {
        let hand = Hand { origin: Origin::Person, now, stamp, answered: true, request: 0 };
        self.insert(values, None, "create", hand)
    }

    /// A person edits a record. A transaction that ends late has the stamp of its beginning, unless the record was changed since.
    pub(crate) fn edit(&mut self, id: &str, values: Map<String, Value>, now: i64, stamp: i64) {
        let newest = self.rows.get(id).map_or(0, |row| row.since);
        let stamp = if newest < stamp { stamp } else { now };
        let hand = Hand { origin: Origin::Person, now, stamp, answered: true, request: 0 };
        let entered: Vec<&str> = FIELDS.into_iter().filter(|field| values.contains_key(*field)).collect();
        self.change(id, values.clone(), None, "edit", hand);
        let Some(row) = self.rows.get(id) else { return };
        let (told, known) = (row.told.borrow().clone(), row.known.borrow().clone());
        for field in entered {
            if values[field].is_null() && !told.contains(field) {
                self.nobody_knows(id, field, 0);
                self.blank.insert((id.to_owned(), field));
            }
            if let Some((_, since)) = known.get(field).filter(|(value, _)| *value == values[field]) {
                self.nobody_knows(id, field, *since);
            }
        }
    }

    /// No caller could know what people have entered in a field since this place in the log.
    fn nobody_knows(&mut self, id: &str, field: &'static str, since: usize) {
        let entries = self.log.iter().skip(since).filter(|entry| entry.key == id && entry.origin == Origin::Person);
        let entries = entries.filter(|entry| entry.values.get(field).is_some());
        self.unknown.extend(entries.map(|entry| (entry.sequence, field)));
    }

    /// A caller keeps what it was shown of a record, with nothing in these fields. What an answer had shown there before that, of which nothing was
    /// kept (its page could not be stored, or its reader died), nobody knows.
    pub(crate) fn keep(&mut self, id: &str, empty: &[&'static str]) {
        let Some(row) = self.rows.get_mut(id) else { return };
        if std::mem::replace(&mut row.kept, true) {
            return;
        }
        for field in empty {
            let by_hand = |entry: &&Entry| entry.key == id && entry.origin == Origin::Person && entry.values.get(field).is_some();
            let entries: Vec<&Entry> = self.log.iter().filter(by_hand).collect();
            let Some(cleared) = entries.iter().rposition(|entry| entry.values.get(field) == Some(&Native::Null)) else { continue };
            self.unknown.extend(entries[..=cleared].iter().map(|entry| (entry.sequence, *field)));
            self.blank.insert((id.to_owned(), *field));
        }
    }

    /// A person deletes a record, or merges it into another; what referred to it refers to that one, or to nothing.
    pub(crate) fn delete(&mut self, id: &str, into: Option<&str>, now: i64) {
        let hand = Hand { origin: Origin::Person, now, stamp: now, answered: true, request: 0 };
        let parent = into.map_or(Value::Null, |into| json!(into));
        let children: Vec<String> = self.live().filter(|(_, fields)| fields.get("Parent") == Some(&json!(id))).map(|(id, _)| id).collect();
        for child in children {
            // A record is not its own parent.
            let parent = if Some(child.as_str()) == into { Value::Null } else { parent.clone() };
            self.change(&child, Map::from_iter([("Parent".to_owned(), parent)]), None, "edit", hand);
        }
        self.remove(id, into, if into.is_some() { "merge" } else { "delete" }, hand);
    }

    /// All tokens are of no use any more.
    pub(crate) fn expire_tokens(&mut self) {
        self.token += 1;
    }

    /// What is there: id and fields.
    pub(crate) fn live(&self) -> impl Iterator<Item = (String, Map<String, Value>)> + use<'_> {
        self.rows.iter().filter(|(_, row)| !row.deleted).map(|(id, row)| (id.clone(), row.fields.clone()))
    }

    /// Everything present, for the history.
    pub(crate) fn records(&self) -> Vec<Native> {
        let whole = |(id, mut fields): (String, Map<String, Value>)| {
            fields.insert("Id".into(), json!(id));
            native(&Value::Object(fields))
        };
        self.live().map(whole).collect()
    }

    /// Everything that was done, in order.
    pub(crate) fn log(&self) -> Vec<Entry> {
        self.log.clone()
    }

    /// The same, as far as a caller could know of it in `fields`. What is left out is not promised to be kept, see `docs/reliability.md`:
    /// - what a person entered after the caller looked at the record and before its write took effect, for there are no preconditions here;
    /// - what a person filled in and cleared again, or cleared, before anybody was shown a value there, and kept it: the field is empty, as it was;
    /// - what a person entered and put back before anybody was shown the record: it shows what was known of it.
    pub(crate) fn known_log(&self, fields: &[&'static str]) -> Vec<Entry> {
        let known = |mut entry: Entry| {
            if let Native::Object(values) = &mut entry.values {
                let hidden = |name: &str| fields.iter().any(|field| *field == name && self.unknown.contains(&(entry.sequence, *field)));
                values.retain(|name, _| !hidden(name));
            }
            entry
        };
        self.log.iter().cloned().map(known).collect()
    }

    /// What was there at first, as far as a caller could know of it in `fields`.
    pub(crate) fn known_before(&self, before: &[Native], fields: &[&'static str]) -> Vec<Native> {
        let known = |record: &Native| {
            let mut record = record.clone();
            if let Native::Object(values) = &mut record {
                let id = values.get("Id").cloned();
                let hidden = |name: &str| self.blank.iter().any(|(of, field)| *field == name && id == Some(native(&json!(of))));
                values.retain(|name, _| !(fields.contains(&name.as_str()) && hidden(name)));
            }
            record
        };
        before.iter().map(known).collect()
    }

    // === The table ===

    fn new_id(&mut self) -> String {
        self.made += 1;
        match self.style.reads {
            Reads::Listed => format!("{}-{:04}", self.style.name, self.made),
            // As long as ids of this language are.
            Reads::Queried => format!("{:X<4}{:014}", self.style.name, self.made),
        }
    }

    fn normal(&self, mut values: Map<String, Value>) -> Map<String, Value> {
        if self.style.normalises
            && let Some(Value::String(phone)) = values.get_mut("Phone")
        {
            *phone = phone.trim().to_uppercase();
        }
        values.retain(|field, _| field != "Id" && field != "attributes" && field != "id");
        values
    }

    fn stamp(&self, at: i64) -> i64 {
        at - at.rem_euclid(self.style.resolution)
    }

    #[allow(clippy::too_many_arguments, reason = "one entry of the log, which would only be a struct once more")]
    fn note(
        &mut self,
        id: &str,
        key: Option<&str>,
        operation: &str,
        values: &Map<String, Value>,
        outcome: Outcome,
        code: Option<&str>,
        hand: Hand,
    ) {
        self.log.push(Entry {
            sequence: self.log.len() as u64 + 1,
            time: Timestamp(hand.now).to_rfc3339(),
            entity: "Thing".into(),
            key: id.to_owned(),
            external_id: key.map(str::to_owned),
            operation: operation.to_owned(),
            values: native(&Value::Object(values.clone())),
            outcome,
            code: code.map(str::to_owned),
            answered: hand.answered,
            origin: hand.origin,
            request: hand.request,
        });
    }

    fn insert(&mut self, values: Map<String, Value>, key: Option<&str>, operation: &str, hand: Hand) -> String {
        let id = self.new_id();
        let mut fields = self.normal(values);
        if let Some(key) = key {
            fields.insert("Key".into(), json!(key));
        }
        self.note(&id, key, operation, &fields, Outcome::Created, None, hand);
        let hidden = if hand.origin == Origin::Api { self.style.visible_after } else { 0 };
        let stamp = self.stamp(hand.stamp);
        let kept = hand.origin == Origin::Api;
        let row = Row { stamp, since: hand.now, visible_at: hand.now + hidden, kept, ..Row::default() };
        if hand.origin == Origin::Api {
            row.written(&fields, self.log.len());
        }
        self.rows.insert(id.clone(), Row { fields, ..row });
        id
    }

    /// Whether the record was there.
    fn change(&mut self, id: &str, values: Map<String, Value>, key: Option<&str>, operation: &str, hand: Hand) -> bool {
        let values = self.normal(values);
        let stamp = self.stamp(hand.stamp);
        let Some(row) = self.rows.get_mut(id).filter(|row| !row.deleted) else {
            self.note(id, key, operation, &values, Outcome::Rejected, Some("NOT_FOUND"), hand);
            return false;
        };
        let fields = row.fields.clone();
        let of = |fields: &Map<String, Value>, field: &String| fields.get(field).cloned().unwrap_or_default();
        let same = values.iter().all(|(field, value)| of(&fields, field) == *value);
        let looked = row.looked.get().filter(|(at, _)| hand.origin == Origin::Api && hand.now - at <= LOOK_TO_WRITE);
        let overwritten = |field: &&str| values.get(*field).is_some_and(|value| of(&fields, &(*field).to_owned()) != *value);
        let overwritten: Vec<&str> = FIELDS.into_iter().filter(overwritten).collect();
        row.change = self.log.len();
        row.before = Some((fields, row.stamp));
        row.since = hand.now;
        row.stamp = stamp;
        row.fields.extend(values.clone());
        if hand.origin == Origin::Api {
            // What a caller wrote, it knows.
            row.written(&values, self.log.len());
            row.kept = true;
            // The next write needs another look.
            row.looked.set(None);
        }
        if let Some((_, since)) = looked {
            overwritten.into_iter().for_each(|field| self.nobody_knows(id, field, since));
        }
        self.note(id, key, operation, &values, if same { Outcome::Unchanged } else { Outcome::Updated }, None, hand);
        true
    }

    /// Whether the record was there.
    fn remove(&mut self, id: &str, into: Option<&str>, operation: &str, hand: Hand) -> bool {
        let stamp = self.stamp(hand.stamp);
        let Some(row) = self.rows.get_mut(id).filter(|row| !row.deleted) else {
            self.note(id, None, operation, &Map::new(), Outcome::Rejected, Some("NOT_FOUND"), hand);
            return false;
        };
        row.before = None;
        (row.deleted, row.stamp, row.since) = (true, stamp, hand.now);
        row.merged_into = into.map(str::to_owned);
        let told = into.map(|into| ("MergedInto".to_owned(), json!(into)));
        self.note(id, None, operation, &told.into_iter().collect(), Outcome::Deleted, None, hand);
        true
    }

    /// A row as it is shown, with its stamp; none where it is not shown yet.
    fn shown(&self, id: &str, row: &Row, now: i64, stale: i64, by_id: bool) -> Option<(i64, Map<String, Value>)> {
        if !by_id && now < row.visible_at {
            return None;
        }
        let (mut fields, stamp) = match &row.before {
            Some((fields, stamp)) if now - row.since < stale => (fields.clone(), *stamp),
            _ => (row.fields.clone(), row.stamp),
        };
        fields.insert("Id".into(), json!(id));
        fields.insert("Stamp".into(), json!(Timestamp(stamp).to_rfc3339()));
        if self.style.reads == Reads::Queried {
            fields.insert("IsDeleted".into(), json!(row.deleted));
            fields.insert("MergedInto".into(), json!(row.merged_into));
        }
        Some((stamp, fields))
    }

    /// Takes note that a caller is shown these rows, and whether it looked at just them.
    fn tell(&self, shown: &[Map<String, Value>], now: i64, how: Treatment, by_id: bool) {
        for fields in shown.iter().filter(|_| how.answered) {
            let Some(row) = fields["Id"].as_str().and_then(|id| self.rows.get(id)) else { continue };
            let outdated = row.before.is_some() && now - row.since < how.stale;
            let known = if outdated { row.change } else { self.log.len() };
            row.shown(fields, known, outdated);
            match row.looked.get() {
                _ if by_id => row.looked.set(Some((now, known))),
                // What a list has shown since, the caller knows as well.
                Some((at, before)) => row.looked.set(Some((at, before.max(known)))),
                None => {}
            }
        }
    }

    fn record(&self, id: &str) -> Value {
        let shown = self.rows.get(id).and_then(|row| self.shown(id, row, row.since, 0, true));
        Value::Object(shown.map(|(_, fields)| fields).unwrap_or_default())
    }

    fn by_key(&self, key: &str) -> Option<String> {
        self.rows.iter().find(|(_, row)| !row.deleted && row.fields.get("Key") == Some(&json!(key))).map(|(id, _)| id.clone())
    }

    // === The protocol ===

    /// What a request does, and its answer.
    pub(crate) fn answer(&mut self, asked: &Asked, now: i64, how: Treatment) -> Told {
        let mut told = self.respond(asked, now, how);
        if self.style.dated || self.style.reads == Reads::Queried {
            told.headers.push(("date", http_date(now)));
        }
        told
    }

    fn respond(&mut self, asked: &Asked, now: i64, how: Treatment) -> Told {
        if asked.path == "/token" {
            return Told::json(200, &json!({"access_token": format!("token-{}", self.token), "token_type": "Bearer"}));
        }
        if asked.token.as_deref() != Some(&format!("Bearer token-{}", self.token)) {
            return Told::error(401, "EXPIRED");
        }
        let body: Value = serde_json::from_str(&asked.body).unwrap_or_default();
        let hand = Hand { origin: Origin::Api, now, stamp: now, answered: how.answered, request: asked.number };
        let rest: Vec<&str> = asked.path.trim_start_matches('/').split('/').collect();
        match (asked.method.as_str(), rest.as_slice()) {
            ("GET", ["me"]) => Told::json(200, &json!({})),
            ("GET", ["things"]) => self.list(asked, now, how),
            ("GET", ["search"]) => {
                let (field, value) = (&asked.query["field"], &asked.query["equals"]);
                let fits = |fields: &Map<String, Value>| fields.get(field).and_then(Value::as_str) == Some(value);
                let rows = self.rows.iter().filter(|(_, row)| !row.deleted);
                let found: Vec<_> = rows
                    .filter_map(|(id, row)| self.shown(id, row, now, how.stale, false))
                    .map(|(_, fields)| fields)
                    .filter(fits)
                    .collect();
                self.tell(&found, now, how, false);
                Told::json(200, &json!({"data": found}))
            }
            ("GET", ["things", id]) => match self.rows.get(*id).filter(|row| !row.deleted) {
                Some(row) => {
                    let fields = self.shown(id, row, now, how.stale, true).unwrap().1;
                    self.tell(std::slice::from_ref(&fields), now, how, true);
                    Told::json(200, &Value::Object(fields))
                }
                None => Told::error(404, "NOT_FOUND"),
            },
            ("PUT", ["by-key", key]) => {
                let id = self.upsert(key, object(body), "upsert", hand).0;
                Told::json(200, &self.record(&id))
            }
            ("POST", ["things"]) => {
                let id = self.insert(object(body), None, "create", hand);
                Told::json(200, &self.record(&id))
            }
            ("PATCH", ["things", id]) => match self.change(id, object(body), None, "update", hand) {
                true => Told::json(200, &self.record(id)),
                false => Told::error(404, "NOT_FOUND"),
            },
            ("DELETE", ["things", id]) => match self.remove(id, None, "delete", hand) {
                true => Told::json(200, &json!({})),
                false => Told::error(404, "NOT_FOUND"),
            },
            ("POST", ["batch"]) => self.batch(&body, how, hand),
            ("GET", ["query" | "queryAll"]) => self.query(asked, now, how),
            (_, ["composite", "sobjects", rest @ ..]) => self.collection(asked, rest, &body, how, hand),
            _ => Told::error(404, "NO_SUCH_PAGE"),
        }
    }

    fn upsert(&mut self, key: &str, values: Map<String, Value>, operation: &str, hand: Hand) -> (String, bool) {
        match self.by_key(key) {
            Some(id) => {
                self.change(&id, values, Some(key), operation, hand);
                (id, false)
            }
            None => (self.insert(values, Some(key), operation, hand), true),
        }
    }

    fn list(&mut self, asked: &Asked, now: i64, how: Treatment) -> Told {
        if how.page_before
            && let Some(page) = &self.page
        {
            return Told::json(200, page);
        }
        let since = asked.query.get("since").and_then(|since| Timestamp::parse(since)).unwrap_or_default();
        let after = asked.query.get("after").cloned().unwrap_or_default();
        let rows = self.rows.iter().filter(|(id, row)| !row.deleted && **id > after);
        let mut found: Vec<_> = rows
            .filter_map(|(id, row)| self.shown(id, row, now, how.stale, false))
            .filter(|(stamp, _)| *stamp >= since.0)
            .map(|(_, fields)| fields)
            .collect();
        let more = found.len() > self.style.page;
        found.truncate(self.style.page);
        self.tell(&found, now, how, false);
        let next = if more { found.last().unwrap()["Id"].clone() } else { json!("") };
        let page = json!({"data": found, "next": next});
        self.page = Some(page.clone());
        Told::json(200, &page)
    }

    fn batch(&mut self, body: &Value, how: Treatment, hand: Hand) -> Told {
        let items = body["records"].as_array().cloned().unwrap_or_default();
        let mut results = Vec::new();
        for (at, item) in items.into_iter().enumerate() {
            let values = object(item);
            let text = |field: &str| values.get(field).and_then(Value::as_str).map(str::to_owned);
            if refused(how, at) {
                self.note(&text("Id").unwrap_or_default(), None, "batch", &values, Outcome::Rejected, Some("LOCKED"), hand);
                results.push(json!({"status": "failed", "code": "LOCKED"}));
                continue;
            }
            let id = match (text("Id"), text("Key")) {
                (Some(id), _) => self.change(&id, values, None, "update", hand).then_some(id),
                (None, Some(key)) => Some(self.upsert(&key, values, "upsert", hand).0),
                (None, None) => Some(self.insert(values, None, "create", hand)),
            };
            results.push(match id {
                Some(id) => json!({"status": "ok", "id": id, "record": self.record(&id)}),
                None => json!({"status": "failed", "code": "NOT_FOUND"}),
            });
        }
        Told::json(200, &json!({"results": results}))
    }

    fn collection(&mut self, asked: &Asked, rest: &[&str], body: &Value, how: Treatment, hand: Hand) -> Told {
        let failed = |code: &str| json!({"success": false, "errors": [{"statusCode": code, "message": "as the system says"}]});
        let ids = asked.query.get("ids").map(|ids| ids.split(',').map(|id| json!({"id": id})).collect());
        let items: Vec<Value> = ids.or_else(|| body["records"].as_array().cloned()).unwrap_or_default();
        let mut results = Vec::new();
        for (at, item) in items.into_iter().enumerate() {
            let values = object(item);
            let text = |field: &str| values.get(field).and_then(Value::as_str).map(str::to_owned);
            let (id, key) = (text("id"), text("Key"));
            if refused(how, at) {
                self.note(&id.unwrap_or_default(), key.as_deref(), "collection", &values, Outcome::Rejected, Some("LOCKED"), hand);
                results.push(failed("LOCKED"));
                continue;
            }
            let done = match (asked.method.as_str(), rest, id, key) {
                ("PATCH", [_, _], _, Some(key)) => Some(self.upsert(&key, values, "upsert", hand)),
                ("POST", ..) => Some((self.insert(values, None, "create", hand), true)),
                ("PATCH", _, Some(id), _) => self.change(&id, values, None, "update", hand).then_some((id, false)),
                ("DELETE", _, Some(id), _) => self.remove(&id, None, "delete", hand).then_some((id, false)),
                _ => None,
            };
            results.push(match done {
                Some((id, created)) => json!({"success": true, "id": id, "created": created}),
                None => failed("ENTITY_IS_DELETED"),
            });
        }
        Told::json(200, &Value::Array(results))
    }

    /// The few forms of SOQL in which a client asks.
    fn query(&mut self, asked: &Asked, now: i64, how: Treatment) -> Told {
        if how.page_before
            && let Some(page) = &self.page
        {
            return Told::json(200, page);
        }
        let text = &asked.query["q"];
        let (head, limit) = text.rsplit_once(" LIMIT ").unwrap();
        let (head, _) = head.split_once(" ORDER BY ").unwrap();
        let condition = head.split_once(" WHERE ").map(|(_, condition)| condition).unwrap_or_default();
        let by_id = condition.starts_with("Id IN ");
        let all = asked.path == "/queryAll";
        let mut rows: Vec<(i64, Map<String, Value>)> = self
            .rows
            .iter()
            .filter(|(_, row)| all || !row.deleted)
            .filter_map(|(id, row)| self.shown(id, row, now, how.stale, by_id))
            .filter(|(stamp, fields)| holds(condition, *stamp, fields))
            .collect();
        rows.sort_by_key(|(stamp, fields)| (*stamp, fields["Id"].as_str().map(str::to_owned)));
        rows.truncate(limit.parse().unwrap());
        let records: Vec<_> = rows.into_iter().map(|(_, fields)| fields).collect();
        self.tell(&records, now, how, by_id);
        let page = json!({"done": true, "records": records});
        if !by_id && all {
            self.page = Some(page.clone());
        }
        Told::json(200, &page)
    }
}

/// The fields that have a value.
fn filled(values: &Map<String, Value>) -> impl Iterator<Item = &'static str> + use<'_> {
    FIELDS.into_iter().filter(|field| values.get(*field).is_some_and(|value| !value.is_null()))
}

fn refused(how: Treatment, at: usize) -> bool {
    how.refused >> (at % 64) & 1 == 1
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// Whether a row fits a condition: a page of a pass, some ids, or values of fields.
fn holds(condition: &str, stamp: i64, fields: &Map<String, Value>) -> bool {
    let moment = |text: &str| Timestamp::parse(text).unwrap().0;
    if condition.is_empty() {
        return true;
    }
    if let Some(from) = condition.strip_prefix("Stamp >= ") {
        return stamp >= moment(from);
    }
    if let Some(rest) = condition.strip_prefix("((Stamp = ") {
        let (at, rest) = rest.split_once(" AND Id > '").unwrap();
        let (id, _) = rest.split_once('\'').unwrap();
        return stamp > moment(at) || (stamp == moment(at) && fields["Id"].as_str().unwrap() > id);
    }
    if let Some(ids) = condition.strip_prefix("Id IN (") {
        return ids.contains(&format!("'{}'", fields["Id"].as_str().unwrap()));
    }
    condition.split(" AND ").all(|one| {
        let (field, value) = one.split_once(" = ").unwrap();
        fields.get(field).and_then(Value::as_str) == Some(value.trim_matches('\''))
    })
}

fn http_date(now: i64) -> String {
    chrono::DateTime::from_timestamp_millis(now).unwrap().format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

pub(crate) fn native(value: &Value) -> Native {
    Native::parse(value.to_string().as_bytes()).unwrap()
}

#[test]
fn what_is_cleared_before_anybody_kept_it_was_never_there() {
    let style = Style { reads: Reads::Queried, ..crate::world::World::three_targets().sides[0].style.clone() };
    let phone = |value: Value| Map::from_iter([("Phone".to_owned(), value)]);
    let (told, fields) = (Treatment { answered: true, ..Treatment::default() }, ["Phone"]);
    let told_and_cleared = |keeps: bool| {
        let mut system = System::new(style.clone());
        let id = system.seed(phone(json!("p1")), 0);
        let before = system.records();
        system.tell(&[system.shown(&id, &system.rows[&id], 1, 0, false).unwrap().1], 1, told, false);
        if keeps {
            system.keep(&id, &[]);
        }
        system.edit(&id, phone(Value::Null), 2, 2);
        system.keep(&id, &fields);
        let held = |values: &Native| values.get("Phone").is_some();
        (held(&system.known_before(&before, &fields)[0]), held(&system.known_log(&fields)[0].values))
    };
    assert_eq!(told_and_cleared(true), (true, true), "it was known, and is to be cleared elsewhere");
    assert_eq!(told_and_cleared(false), (false, false));
}
