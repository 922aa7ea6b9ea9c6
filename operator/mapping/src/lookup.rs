//! Lookup tables: many values, compiled once and shared by every row that names them.
//!
//! A table may be read backwards where it can be inverted: where no canonical value stands for two native ones.

use fairlead_model::unit::{LookupTable, ValuePair};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The compiled lookup tables of one unit, by name.
#[derive(Debug, Clone, Default)]
pub struct Lookups(BTreeMap<String, Arc<Lookup>>);

impl Lookups {
    /// Compiles a unit's tables.
    #[must_use]
    pub fn of(tables: &BTreeMap<String, Arc<LookupTable>>) -> Self {
        Self(tables.iter().map(|(name, table)| (name.clone(), Arc::new(Lookup::of(&table.pairs)))).collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Lookup>> {
        self.0.get(name)
    }
}

/// One table.
#[derive(Debug)]
pub(crate) struct Lookup {
    /// Canonical and native, line by line.
    pub(crate) pairs: Vec<(Arc<str>, Arc<str>)>,
    by_native: HashMap<Arc<str>, Arc<str>>,
    by_canonical: HashMap<Arc<str>, Arc<str>>,
    /// A native value with two canonical ones: the table cannot be read.
    pub(crate) native_twice: Option<Twice>,
    /// A canonical value with two native ones: the table cannot be inverted.
    pub(crate) canonical_twice: Option<Twice>,
}

/// A value that stands for two.
#[derive(Debug, Clone)]
pub(crate) struct Twice {
    pub(crate) value: Arc<str>,
    pub(crate) stands_for: [Arc<str>; 2],
}

impl Lookup {
    fn of(pairs: &[ValuePair]) -> Self {
        let pairs: Vec<(Arc<str>, Arc<str>)> =
            pairs.iter().map(|pair| (pair.canonical.as_str().into(), pair.native.as_str().into())).collect();
        let (by_native, native_twice) = index(pairs.iter().map(|(canonical, native)| (native, canonical)));
        let (by_canonical, canonical_twice) = index(pairs.iter().map(|(canonical, native)| (canonical, native)));
        Self { pairs, by_native, by_canonical, native_twice, canonical_twice }
    }

    pub(crate) fn canonical(&self, native: &str) -> Option<&str> {
        self.by_native.get(native).map(|value| &**value)
    }

    pub(crate) fn native(&self, canonical: &str) -> Option<&str> {
        self.by_canonical.get(canonical).map(|value| &**value)
    }
}

fn index<'p>(pairs: impl Iterator<Item = (&'p Arc<str>, &'p Arc<str>)>) -> (HashMap<Arc<str>, Arc<str>>, Option<Twice>) {
    let mut map: HashMap<Arc<str>, Arc<str>> = HashMap::new();
    let mut twice = None;
    for (key, value) in pairs {
        if let Some(earlier) = map.insert(Arc::clone(key), Arc::clone(value)) {
            twice.get_or_insert_with(|| Twice { value: Arc::clone(key), stands_for: [earlier, Arc::clone(value)] });
        }
    }
    (map, twice)
}
