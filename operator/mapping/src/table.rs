//! A compiled table and how it runs. Compiling is in `compile`.

use crate::convert::{Convert, Direction};
use crate::expression::{Expression, Roots};
use crate::finding::{Finding, RowError};
use crate::lookup::{Lookup, Lookups};
use fairlead_model::document::{self, Document};
use fairlead_model::schema::{CanonicalSchema, NativeSchema};
use fairlead_model::unit::{OnCycle, OnError, Reference, RowOrigin, RowUnit};
use fairlead_model::{ExternalId, FieldPath, RecordId};
use serde_json::Value;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What a table is compiled from.
#[derive(Debug, Clone, Copy)]
pub struct TableSource<'a> {
    /// The rows, in order.
    pub rows: &'a [RowUnit],
    /// The lookup tables that rows name.
    pub lookups: &'a Lookups,
    /// The native entity's fields.
    pub native: &'a NativeSchema,
    /// The canonical entity's fields.
    pub canonical: &'a CanonicalSchema,
    /// The canonical entity's name; references may point to it.
    pub entity: &'a str,
    /// The native field that holds the canonical id (`write.key`).
    pub key: Option<&'a str>,
    /// Which records are written (`write.when`).
    pub when: Option<&'a str>,
    /// Whether the participant is read.
    pub read: bool,
    /// Whether the participant is written.
    pub write: bool,
}

/// A compiled table. Immutable; share it behind an `Arc`.
#[derive(Debug)]
pub struct Table {
    /// How many rows the table has.
    pub(crate) rows: usize,
    pub(crate) inbound: Vec<Rule>,
    pub(crate) outbound: Vec<Rule>,
    pub(crate) when: Option<Expression>,
    pub(crate) warnings: Vec<Finding>,
    pub(crate) native_paths: Vec<FieldPath>,
    pub(crate) canonical_units: Vec<FieldPath>,
    pub(crate) readable_units: Vec<FieldPath>,
    pub(crate) writable_units: Vec<FieldPath>,
    /// Top-level native fields that expressions look at.
    pub(crate) native_names: BTreeSet<String>,
    /// Top-level canonical fields that expressions look at.
    pub(crate) canonical_names: BTreeSet<String>,
    /// The top-level objects of which the contract says what they hold, and what that is.
    pub(crate) objects: BTreeMap<String, BTreeSet<String>>,
}

/// One row in one direction. The same shape serves both: a source in one document, a target in the other.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) row: usize,
    pub(crate) origin: Option<RowOrigin>,
    pub(crate) digest: u64,
    pub(crate) canonical: Option<FieldPath>,
    pub(crate) native: Option<FieldPath>,
    /// The canonical unit of comparison.
    pub(crate) unit: Option<FieldPath>,
    /// Where the value goes: in the other document, or (for a rule of a list) in the other element.
    pub(crate) target: FieldPath,
    pub(crate) source: Source,
    /// The row's own field on the source side; when it is empty, a failing expression gives no value.
    pub(crate) own: Option<FieldPath>,
    /// All fields of the source side that it looks at.
    pub(crate) inputs: Vec<FieldPath>,
    pub(crate) convert: Convert,
    pub(crate) on_error: OnError,
}

/// Where a rule's value comes from.
#[derive(Debug)]
pub(crate) enum Source {
    Copy(FieldPath),
    Values { from: FieldPath, table: HashMap<String, Value>, quote: bool },
    Lookup { from: FieldPath, name: String, table: Arc<Lookup>, direction: Direction, otherwise: Option<Value> },
    Expression(Box<Expression>),
    Constant(Value),
    Reference { from: FieldPath, reference: Reference },
    List { from: FieldPath, key: Option<FieldPath>, elements: Vec<Rule>, empty: Empty },
}

/// What a list without elements becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Empty {
    /// No value: absent, null and empty are one.
    Absent,
    /// An empty list: the contract requires one.
    List,
    /// Whatever it was: no value stays none, an empty list stays empty.
    Same,
}

/// A native record, made canonical.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Inbound {
    /// Per unit of comparison its value, in table order; null means absent.
    pub fields: Vec<(FieldPath, Value)>,
    /// Fields that refer to another record, by the id that this system knows it by. The caller resolves it into the text of a
    /// [`RecordId`]. Such a unit is not in `fields`; one without a value is, as null.
    pub references: Vec<(FieldPath, Reference, ExternalId)>,
    /// Units whose row failed and says `onError: Skip`: they stay as they are.
    pub skipped: Vec<FieldPath>,
}

/// A canonical record in a system's form.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outbound {
    /// One per writable row, in table order; rows that are skipped or wait for a reference are left out.
    pub rows: Vec<OutboundRow>,
    /// Records that are referred to and have no id in this system yet, and what the row says of cycles.
    pub unresolved: Vec<(RecordId, OnCycle)>,
}

/// What one row writes.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboundRow {
    /// A stable hash of the row's source; another one means the row was edited.
    pub digest: u64,
    /// The canonical unit it belongs to; none for constants and rows without a canonical field.
    pub unit: Option<FieldPath>,
    /// The native field.
    pub native: FieldPath,
    /// Its value; null empties it.
    pub value: Value,
}

/// How a canonical unit and native fields depend on each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// The canonical unit.
    pub unit: FieldPath,
    /// Where its value is read from.
    pub read: Option<Trace>,
    /// What is written from it.
    pub write: Vec<Trace>,
}

/// One row of a lineage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The row's index in the table, from 0.
    pub row: usize,
    /// How.
    pub how: How,
    /// The native fields: inputs when reading, the field written when writing.
    pub native: Vec<FieldPath>,
    /// The canonical fields: the one read into when reading, inputs when writing.
    pub canonical: Vec<FieldPath>,
}

/// How a value passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum How {
    /// As it is, normalised.
    Copy,
    /// By a value table.
    Values,
    /// By a lookup table.
    Lookup,
    /// By an expression.
    Expression,
    /// A constant.
    Constant,
    /// As the identity of another record.
    Reference,
    /// Element by element.
    List,
}

impl Table {
    /// Compiles and type-checks a table.
    ///
    /// # Errors
    /// Everything that was found, warnings included, when at least one finding forbids the table.
    pub fn compile(source: &TableSource<'_>) -> Result<Self, Vec<Finding>> {
        crate::compile::compile(source)
    }

    /// Findings that do not forbid the table.
    #[must_use]
    pub fn warnings(&self) -> &[Finding] {
        &self.warnings
    }

    /// The native fields that reading needs, those of expressions and the correlation field included; sorted.
    #[must_use]
    pub fn native_paths(&self) -> &[FieldPath] {
        &self.native_paths
    }

    /// The units of comparison, in table order: paths of single fields, and roots of lists (`contacts[]`).
    #[must_use]
    pub fn canonical_units(&self) -> &[FieldPath] {
        &self.canonical_units
    }

    /// The units that are read from this system.
    #[must_use]
    pub fn readable_units(&self) -> &[FieldPath] {
        &self.readable_units
    }

    /// The units that are written to this system.
    #[must_use]
    pub fn writable_units(&self) -> &[FieldPath] {
        &self.writable_units
    }

    /// Makes a native record canonical.
    ///
    /// # Errors
    /// The first row that fails and does not say `onError: Skip`.
    pub fn to_canonical(&self, native: &Document) -> Result<Inbound, RowError> {
        let mut roots = Roots::new(native, &self.native_names);
        let mut inbound = Inbound { fields: Vec::with_capacity(self.inbound.len()), ..Inbound::default() };
        for rule in &self.inbound {
            if let Source::Reference { from, reference } = &rule.source {
                match external_id(document::present(native, from)) {
                    Ok(Some(id)) => inbound.references.push((rule.target.clone(), reference.clone(), id)),
                    Ok(None) => inbound.fields.push((rule.target.clone(), Value::Null)),
                    Err(_) if rule.on_error == OnError::Skip => inbound.skipped.push(rule.target.clone()),
                    Err(message) => return Err(rule.error(message)),
                }
                continue;
            }
            match rule.value(native, &mut roots) {
                Ok(value) => inbound.fields.push((rule.target.clone(), value)),
                Err(Failure { skip: true, .. }) => inbound.skipped.push(rule.target.clone()),
                Err(Failure { error, .. }) => return Err(error),
            }
        }
        Ok(inbound)
    }

    /// Puts a canonical record into this system's form. `resolve` tells by which id this system knows another record.
    ///
    /// # Errors
    /// The first row that fails and does not say `onError: Skip`.
    pub fn to_native(
        &self,
        canonical: &Document,
        resolve: &dyn Fn(&Reference, RecordId) -> Option<ExternalId>,
    ) -> Result<Outbound, RowError> {
        let canonical = &*self.own(canonical);
        let mut roots = Roots::new(canonical, &self.canonical_names);
        let mut outbound = Outbound { rows: Vec::with_capacity(self.outbound.len()), ..Outbound::default() };
        for rule in &self.outbound {
            let value = match &rule.source {
                Source::Reference { from, reference } => match record_id(document::present(canonical, from)) {
                    Ok(None) => Ok(Value::Null),
                    Ok(Some(id)) => match resolve(reference, id) {
                        Some(external) => rule.convert.apply(&Value::String(external.0)).map_err(|message| rule.failure(message)),
                        None => {
                            outbound.unresolved.push((id, reference.on_cycle));
                            continue;
                        }
                    },
                    Err(message) => Err(rule.failure(message)),
                },
                _ => rule.value(canonical, &mut roots),
            };
            match value {
                Ok(value) => {
                    outbound.rows.push(OutboundRow { digest: rule.digest, unit: rule.unit.clone(), native: rule.target.clone(), value })
                }
                Err(Failure { skip: true, .. }) => {}
                Err(Failure { error, .. }) => return Err(error),
            }
        }
        Ok(outbound)
    }

    /// Whether this system gets the record (`write.when`); true where there is no such condition.
    ///
    /// # Errors
    /// When the condition fails on this record; the row number is that of no row (the table's length).
    pub fn accepts(&self, canonical: &Document) -> Result<bool, RowError> {
        let Some(when) = &self.when else { return Ok(true) };
        let canonical = &*self.own(canonical);
        let error = |message: String| RowError { row: self.rows, origin: None, canonical: None, native: None, message };
        match when.run(&mut Roots::new(canonical, when.names())) {
            Ok(Value::Bool(accepts)) => Ok(accepts),
            Ok(_) => Err(error("when: gave no boolean".into())),
            Err(message) => Err(error(format!("when: {message}"))),
        }
    }

    /// The record as the contract of this table knows it. A golden record holds fields of other business units as well (`ext.europe`), which are
    /// not this system's to get: not even by an expression over the whole record.
    fn own<'d>(&self, canonical: &'d Document) -> Cow<'d, Document> {
        let known = |name: &str| self.objects.get(name);
        let foreign = |(name, value): (&String, &Value)| {
            value.as_object().zip(known(name)).is_some_and(|(fields, known)| fields.keys().any(|field| !known.contains(field)))
        };
        if !canonical.iter().any(foreign) {
            return Cow::Borrowed(canonical);
        }
        let mut own = canonical.clone();
        for (name, value) in &mut own {
            if let (Value::Object(fields), Some(known)) = (value, known(name)) {
                fields.retain(|field, _| known.contains(field));
            }
        }
        Cow::Owned(own)
    }

    /// Per canonical unit, in table order: which native fields it is read from and which are written from it, and how.
    #[must_use]
    pub fn lineage(&self) -> Vec<Lineage> {
        let trace =
            |rule: &Rule, native: Vec<FieldPath>, canonical: Vec<FieldPath>| Trace { row: rule.row, how: rule.how(), native, canonical };
        self.canonical_units
            .iter()
            .map(|unit| Lineage {
                unit: unit.clone(),
                read: self
                    .inbound
                    .iter()
                    .find(|rule| rule.target == *unit)
                    .map(|rule| trace(rule, rule.inputs.clone(), vec![unit.clone()])),
                write: self
                    .outbound
                    .iter()
                    .filter(|rule| rule.inputs.iter().any(|input| input.starts_with(unit) || unit.starts_with(input)))
                    .map(|rule| trace(rule, vec![rule.target.clone()], rule.inputs.clone()))
                    .collect(),
            })
            .collect()
    }
}

/// A failed rule, and whether the row forgives it.
struct Failure {
    error: RowError,
    skip: bool,
}

impl Rule {
    fn how(&self) -> How {
        match &self.source {
            Source::Copy(_) => How::Copy,
            Source::Values { .. } => How::Values,
            Source::Lookup { .. } => How::Lookup,
            Source::Expression(_) => How::Expression,
            Source::Constant(_) => How::Constant,
            Source::Reference { .. } => How::Reference,
            Source::List { .. } => How::List,
        }
    }

    fn error(&self, message: String) -> RowError {
        RowError { row: self.row, origin: self.origin.clone(), canonical: self.canonical.clone(), native: self.native.clone(), message }
    }

    fn failure(&self, message: String) -> Failure {
        Failure { error: self.error(message), skip: self.on_error == OnError::Skip }
    }

    /// The value for the target. `from` is the document, or the element of a list, that the rule's plain paths start at.
    fn value<'d>(&'d self, from: &'d Document, roots: &mut Roots<'d>) -> Result<Value, Failure> {
        match &self.source {
            Source::Copy(path) => match document::present(from, path) {
                Some(value) => self.convert.apply(value).map_err(|message| self.failure(message)),
                None => Ok(Value::Null),
            },
            Source::Values { from: path, table, quote } => match document::present(from, path) {
                Some(value) => self.look_up(value, table, *quote).map_err(|message| self.failure(message)),
                None => Ok(Value::Null),
            },
            Source::Lookup { from: path, name, table, direction, otherwise } => match document::present(from, path) {
                Some(value) => match find(value, table, *direction) {
                    Ok(Some(text)) => self.convert.text(text).map_err(|message| self.failure(message)),
                    Ok(None) => otherwise.clone().ok_or_else(|| {
                        let class = crate::convert::class(value);
                        self.failure(format!("{class} has no line in the lookup table {name}"))
                    }),
                    Err(message) => Err(self.failure(message)),
                },
                None => Ok(Value::Null),
            },
            Source::Constant(value) => Ok(value.clone()),
            Source::Expression(expression) => match expression.run(roots).and_then(|value| self.convert.apply(&value)) {
                Ok(value) => Ok(value),
                Err(_) if self.own.as_ref().is_some_and(|own| document::present(from, own).is_none()) => Ok(Value::Null),
                Err(message) => Err(self.failure(message)),
            },
            Source::List { from: path, key, elements, empty } => {
                self.list(document::present(from, path), key.as_ref(), elements, *empty, roots)
            }
            // References never stand inside lists; the table's own loops resolve the others.
            Source::Reference { .. } => Ok(Value::Null),
        }
    }

    fn look_up(&self, value: &Value, table: &HashMap<String, Value>, quote: bool) -> Result<Value, String> {
        let found = match value {
            Value::String(text) => table.get(text.as_str()),
            Value::Number(_) | Value::Bool(_) => table.get(&value.to_string()),
            _ => return Err(format!("is {}, the value table wants a single value", crate::convert::json_word(value))),
        };
        found.cloned().ok_or_else(|| {
            if quote {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let short: String = text.chars().take(40).map(|c| if c.is_control() { ' ' } else { c }).collect();
                format!("{short:?} is not in the value table")
            } else {
                "a value is not in the value table".into()
            }
        })
    }

    fn list<'d>(
        &'d self,
        value: Option<&'d Value>,
        key: Option<&FieldPath>,
        elements: &'d [Rule],
        empty: Empty,
        roots: &mut Roots<'d>,
    ) -> Result<Value, Failure> {
        let items = match value {
            Some(Value::Array(items)) => items.as_slice(),
            None if empty == Empty::Same => return Ok(Value::Null),
            None => &[],
            Some(other) => return Err(self.failure(format!("is {}, a list is wanted", crate::convert::json_word(other)))),
        };
        if items.is_empty() {
            return Ok(if empty == Empty::Absent { Value::Null } else { Value::Array(vec![]) });
        }
        let mut objects = Vec::with_capacity(items.len());
        for item in items {
            match item.as_object() {
                Some(object) => objects.push((object, item)),
                None => return Err(self.failure(format!("an element is {}, an object is wanted", crate::convert::json_word(item)))),
            }
        }
        if let Some(key) = key {
            // Systems give children in any order; by their own key the same list is the same value each time.
            objects.sort_by(|(a, _), (b, _)| by_key(document::present(a, key), document::present(b, key)));
        }
        let mut mapped = Vec::with_capacity(objects.len());
        for (object, item) in objects {
            roots.set_item(Some(item));
            let mut element = Document::new();
            for rule in elements {
                let value = rule.value(object, roots);
                match value {
                    Ok(Value::Null) => {}
                    Ok(value) => document::set(&mut element, &rule.target, value),
                    // A list is written as a whole, so one field of one element cannot be left as it is: the list is.
                    Err(failure) => {
                        roots.set_item(None);
                        return Err(failure);
                    }
                }
            }
            mapped.push(Value::Object(element));
        }
        roots.set_item(None);
        Ok(Value::Array(mapped))
    }
}

/// What stands for a value in a lookup table.
fn find<'t>(value: &Value, table: &'t Lookup, direction: Direction) -> Result<Option<&'t str>, String> {
    let of = |key: &str| match direction {
        Direction::ToCanonical => table.canonical(key),
        Direction::FromCanonical => table.native(key),
    };
    match value {
        Value::String(text) => Ok(of(text)),
        Value::Number(_) | Value::Bool(_) => Ok(of(&value.to_string())),
        _ => Err(format!("is {}, the lookup table wants a single value", crate::convert::json_word(value))),
    }
}

/// Whole numbers by value, everything else by text; what has no key comes last.
fn by_key(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let number = |value: &Value| value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    match (a, b) {
        (Some(a), Some(b)) => match (number(a), number(b)) {
            (Some(x), Some(y)) => x.cmp(&y),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => match (a, b) {
                (Value::String(a), Value::String(b)) => a.cmp(b),
                _ => text(a).cmp(&text(b)),
            },
        },
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

fn external_id(value: Option<&Value>) -> Result<Option<ExternalId>, String> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(ExternalId(text.clone()))),
        Some(Value::Number(number)) if !number.is_f64() => Ok(Some(ExternalId(number.to_string()))),
        Some(other) => Err(format!("is {}, the id of a record is wanted", crate::convert::json_word(other))),
    }
}

fn record_id(value: Option<&Value>) -> Result<Option<RecordId>, String> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) => RecordId::parse(text).map(Some).ok_or_else(|| "is no canonical id".to_owned()),
        Some(other) => Err(format!("is {}, a canonical id is wanted", crate::convert::json_word(other))),
    }
}
