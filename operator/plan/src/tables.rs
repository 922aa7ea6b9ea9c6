//! The tables that an Integration's rows come from: shared field tables and lookup tables, found in ConfigMaps of its namespace and read.
//!
//! Read once per content: the memo keeps what a text gave, right or wrong, so that one edit among many objects reads one table.

use crate::finding::{Finding, Severity};
use crate::nearest;
use crate::planned::Memo;
use crate::world::Index;
use fairlead_api::{
    self as api, FIELD_TABLE_KEY, FIELD_TABLE_LABEL, FieldTable, Integration, LOOKUP_TABLE_KEY, LOOKUP_TABLE_LABEL, Reason, Violation,
};
use fairlead_model::ObjectRef;
use fairlead_model::unit::{LookupTable, ValuePair};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A table as it was read, or everything that is wrong with it.
pub(crate) type Read<T> = Arc<Result<T, Vec<Violation>>>;

/// Where a table should be.
#[derive(Debug, Clone)]
pub(crate) enum Found<T> {
    /// There.
    Table(Read<T>),
    /// There is no such ConfigMap.
    NoMap,
    /// It has other keys only.
    NoKey(Vec<String>),
}

impl<T> Found<T> {
    /// The table, if it is there and right.
    pub(crate) fn table(&self) -> Option<&T> {
        match self {
            Self::Table(read) => read.as_ref().as_ref().ok(),
            Self::NoMap | Self::NoKey(_) => None,
        }
    }

    /// Whether both are the same reading of one text. What is missing equals nothing: it also depends on what else there is.
    fn is_same(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Table(one), Self::Table(another)) if Arc::ptr_eq(one, another))
    }
}

/// The tables that one Integration names, by ConfigMap.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    pub(crate) fields: BTreeMap<String, Found<FieldTable>>,
    pub(crate) lookups: BTreeMap<String, Found<Arc<LookupTable>>>,
}

impl PartialEq for Tables {
    fn eq(&self, other: &Self) -> bool {
        fn same<T>(one: &BTreeMap<String, Found<T>>, another: &BTreeMap<String, Found<T>>) -> bool {
            one.len() == another.len() && one.iter().zip(another).all(|((a, x), (b, y))| a == b && x.is_same(y))
        }
        same(&self.fields, &other.fields) && same(&self.lookups, &other.lookups)
    }
}

impl Tables {
    /// Finds and reads what an Integration names.
    pub(crate) fn of(object: &ObjectRef, resource: &Integration, index: &Index<'_>, memo: &Memo, fresh: &mut Memo) -> Self {
        let participants = &resource.spec.sync.participants;
        let mut tables = Self::default();
        for name in participants.iter().flat_map(|participant| &participant.fields_from).map(|reference| &reference.name) {
            let found = find(object, name, FIELD_TABLE_KEY, index, &memo.field_tables, &mut fresh.field_tables, FieldTable::read);
            tables.fields.entry(name.clone()).or_insert(found);
        }
        let shared = tables.fields.values().filter_map(Found::table).flat_map(|table| &table.fields);
        let own = participants.iter().flat_map(|participant| &participant.fields);
        let named: BTreeSet<&String> = own.chain(shared).filter_map(|row| row.lookup.as_ref()).map(|lookup| &lookup.name).collect();
        let read = |text: &str| {
            let table = api::LookupTable::read(text)?;
            let pairs = table.pairs.into_iter().map(|pair| ValuePair { canonical: pair.canonical, native: pair.native });
            Ok(Arc::new(LookupTable::new(pairs.collect())))
        };
        let found: Vec<_> = named
            .into_iter()
            .map(|name| (name.clone(), find(object, name, LOOKUP_TABLE_KEY, index, &memo.lookups, &mut fresh.lookups, read)))
            .collect();
        tables.lookups.extend(found);
        tables
    }

    /// The ConfigMaps, those that are missing among them.
    pub(crate) fn names(&self, object: &ObjectRef) -> impl Iterator<Item = ObjectRef> {
        let names: BTreeSet<&String> = self.fields.keys().chain(self.lookups.keys()).collect();
        names.into_iter().map(|name| ObjectRef::new(&object.namespace, name)).collect::<Vec<_>>().into_iter()
    }
}

fn find<T>(
    object: &ObjectRef,
    name: &str,
    key: &str,
    index: &Index<'_>,
    memo: &BTreeMap<String, Read<T>>,
    fresh: &mut BTreeMap<String, Read<T>>,
    read: impl Fn(&str) -> Result<T, Vec<Violation>>,
) -> Found<T> {
    let Some(data) = index.config_maps.get(&ObjectRef::new(&object.namespace, name)).copied() else { return Found::NoMap };
    let Some(text) = data.get(key) else { return Found::NoKey(data.keys().cloned().collect()) };
    let known = fresh.get(text).or_else(|| memo.get(text)).cloned().unwrap_or_else(|| Arc::new(read(text)));
    Found::Table(Arc::clone(fresh.entry(text.clone()).or_insert(known)))
}

/// Tells what is wrong with a field table that is named at `place`.
pub(crate) fn field_table(map: &ObjectRef, found: &Found<FieldTable>, place: &str, index: &Index<'_>, findings: &mut Vec<Finding>) {
    let hint = format!("put the rows under it, and label the ConfigMap with {FIELD_TABLE_LABEL}");
    trouble(map, found, (FIELD_TABLE_KEY, &hint), place, index, findings);
}

/// Tells what is wrong with a lookup table that is named at `place`.
pub(crate) fn lookup_table(map: &ObjectRef, found: &Found<Arc<LookupTable>>, place: &str, index: &Index<'_>, findings: &mut Vec<Finding>) {
    let hint = format!("put the lines under it, and label the ConfigMap with {LOOKUP_TABLE_LABEL}");
    trouble(map, found, (LOOKUP_TABLE_KEY, &hint), place, index, findings);
}

fn trouble<T>(map: &ObjectRef, found: &Found<T>, key: (&str, &str), place: &str, index: &Index<'_>, findings: &mut Vec<Finding>) {
    let (key, put) = key;
    match found {
        Found::Table(read) => findings.extend(read.as_ref().as_ref().err().into_iter().flatten().map(|violation| {
            let at = if violation.field.is_empty() { String::new() } else { format!(", {}", violation.field) };
            let message = format!("ConfigMap {map}, {key}{at}: {}", violation.message);
            Finding::reference(Reason::TableInvalid, place, message, violation.hint.clone())
        })),
        Found::NoKey(keys) => {
            let message = format!("ConfigMap {map} has no key `{key}`");
            findings.push(Finding::reference(
                Reason::ConfigMapKeyMissing,
                place,
                message,
                nearest::hint(key, keys.iter().map(String::as_str), put),
            ));
        }
        Found::NoMap => findings.push(no_map(index, map, place)),
    }
}

/// A ConfigMap that is not there.
pub(crate) fn no_map(index: &Index<'_>, map: &ObjectRef, place: &str) -> Finding {
    if !index.complete {
        let message = format!("ConfigMap {map} is not among the given files");
        return Finding::reference(Reason::ConfigMapNotFound, place, message, "give its file too to have it checked")
            .with_severity(Severity::Unknown);
    }
    let names = index.config_maps.keys().filter(|known| known.namespace == map.namespace).map(|known| known.name.as_str());
    let close = nearest::nearest(&map.name, names);
    let hint = close.map_or_else(|| "create it, or correct the name".to_owned(), |close| format!("did you mean `{close}`?"));
    Finding::reference(Reason::ConfigMapNotFound, place, format!("ConfigMap {map} does not exist"), hint)
}
