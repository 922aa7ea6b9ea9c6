//! Which route answers which path and host, and who gets a path that two contracts claim. Pure.

use fairlead_model::route::hosts_meet;
use fairlead_model::unit::ObjectKey;
use std::collections::{BTreeMap, HashMap};

/// A path and the hosts under which it is claimed; no hosts means any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) path: String,
    pub(crate) hosts: Vec<String>,
}

impl Claim {
    fn overlaps(&self, other: &Self) -> bool {
        self.path == other.path && hosts_meet(&self.hosts, &other.hosts)
    }

    /// Host names are in lower case, in contracts and, as it is read, in a request.
    pub(crate) fn answers(&self, host: Option<&str>) -> bool {
        self.hosts.is_empty() || host.is_some_and(|host| self.hosts.iter().any(|known| known == host))
    }
}

/// What is to become of one contract.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    /// What is served of it now.
    pub(crate) served: Option<Claim>,
    /// What it would like; none if its new unit does not compile.
    pub(crate) wanted: Option<Claim>,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// The new unit is served.
    New,
    /// What is served stays; the conflicting contract if that is why.
    Old(Option<ObjectKey>),
    /// Nothing can be served.
    Nothing(Option<ObjectKey>),
}

/// First come stays: who is served keeps its place, then who is served and moves, then who is new, each by name.
pub(crate) fn place(wishes: &BTreeMap<ObjectKey, Wish>) -> BTreeMap<ObjectKey, Place> {
    let rank = |wish: &Wish| match (&wish.served, &wish.wanted) {
        (Some(served), Some(wanted)) if served == wanted => 0,
        (Some(_), None) => 0,
        (Some(_), Some(_)) => 1,
        (None, _) => 2,
    };
    let mut order: Vec<(&ObjectKey, &Wish)> = wishes.iter().collect();
    order.sort_by_key(|(_, wish)| rank(wish));
    let mut taken: Vec<(&ObjectKey, &Claim)> = vec![];
    let mut places = BTreeMap::new();
    for (key, wish) in order {
        let holder = |claim: &Claim, taken: &[(&ObjectKey, &Claim)]| {
            taken.iter().find(|(_, other)| other.overlaps(claim)).map(|(holder, _)| (*holder).clone())
        };
        let conflict = wish.wanted.as_ref().map(|wanted| holder(wanted, &taken));
        let (place, claim) = match (conflict, &wish.served) {
            (Some(None), _) => (Place::New, wish.wanted.as_ref()),
            (conflict, Some(served)) => match holder(served, &taken) {
                None => (Place::Old(conflict.flatten()), Some(served)),
                Some(holder) => (Place::Nothing(Some(holder)), None),
            },
            (conflict, None) => (Place::Nothing(conflict.flatten()), None),
        };
        taken.extend(claim.map(|claim| (key, claim)));
        places.insert(key.clone(), place);
    }
    places
}

/// Finds the value that answers a path and host.
#[derive(Debug)]
pub(crate) struct Table<T> {
    paths: HashMap<String, Vec<(Claim, T)>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { paths: HashMap::new() }
    }
}

impl<T> Table<T> {
    pub(crate) fn insert(&mut self, claim: Claim, value: T) {
        self.paths.entry(claim.path.clone()).or_default().push((claim, value));
    }

    /// The value at `/<domain>/<entity>/v<major>`, and what follows it in the path.
    pub(crate) fn find<'t, 'p>(&'t self, path: &'p str, host: Option<&str>) -> Option<(&'t T, &'p str)> {
        let end = path.match_indices('/').nth(3).map_or(path.len(), |(at, _)| at);
        let (prefix, rest) = path.split_at_checked(end)?;
        let value = self.paths.get(prefix)?.iter().find(|(claim, _)| claim.answers(host)).map(|(_, value)| value)?;
        Some((value, rest))
    }

    /// All values that answer on a host.
    pub(crate) fn on_host<'t>(&'t self, host: Option<&str>) -> impl Iterator<Item = &'t T> {
        self.paths.values().flatten().filter(move |(claim, _)| claim.answers(host)).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(path: &str, hosts: &[&str]) -> Claim {
        Claim { path: path.into(), hosts: hosts.iter().map(|host| (*host).to_owned()).collect() }
    }

    fn placed(wishes: &[(&str, Option<Claim>, Option<Claim>)]) -> Vec<Place> {
        let wishes = wishes
            .iter()
            .map(|(key, served, wanted)| (ObjectKey((*key).to_owned()), Wish { served: served.clone(), wanted: wanted.clone() }));
        place(&wishes.collect()).into_values().collect()
    }

    #[test]
    fn who_is_served_keeps_the_path_against_a_newcomer_whatever_their_names() {
        let a = claim("/a", &[]);
        assert_eq!(
            placed(&[("a", None, Some(a.clone())), ("b", Some(a.clone()), Some(a))]),
            [Place::Nothing(Some(ObjectKey("b".into()))), Place::New]
        );
    }

    #[test]
    fn who_moves_to_a_taken_path_stays_where_it_was() {
        let (a, b) = (claim("/a", &[]), claim("/b", &[]));
        assert_eq!(
            placed(&[("a", Some(a), Some(b.clone())), ("b", Some(b.clone()), Some(b))]),
            [Place::Old(Some(ObjectKey("b".into()))), Place::New]
        );
    }

    #[test]
    fn two_may_change_places_and_a_bad_unit_keeps_its_own() {
        let (a, b) = (claim("/a", &[]), claim("/b", &[]));
        assert_eq!(placed(&[("a", Some(a.clone()), Some(b.clone())), ("b", Some(b), Some(a.clone()))]), [Place::New, Place::New]);
        assert_eq!(
            placed(&[("a", Some(a.clone()), None), ("b", None, Some(a))]),
            [Place::Old(None), Place::Nothing(Some(ObjectKey("a".into())))]
        );
    }

    #[test]
    fn hosts_keep_claims_apart_and_no_host_is_any() {
        let with = |hosts: &[&str]| Some(claim("/a", hosts));
        let two = |x, y| placed(&[("a", None, x), ("b", None, y)]);
        assert_eq!(two(with(&["x.example"]), with(&["y.example"])), [Place::New, Place::New]);
        for (x, y) in [(&["x.example"][..], &[][..]), (&["x.example", "y.example"], &["y.example"])] {
            assert_eq!(two(with(x), with(y)), [Place::New, Place::Nothing(Some(ObjectKey("a".into())))], "{x:?} {y:?}");
        }
    }

    #[test]
    fn a_path_is_found_with_what_follows() {
        let mut table = Table::default();
        table.insert(claim("/sales/customer/v1", &["a.example"]), 1);
        assert_eq!(table.find("/sales/customer/v1", Some("a.example")), Some((&1, "")));
        assert_eq!(table.find("/sales/customer/v1/x/y", Some("a.example")), Some((&1, "/x/y")));
        assert_eq!(table.find("/sales/customer/v1", Some("example")), None);
        assert_eq!(table.find("/sales/customer/v10", Some("a.example")), None);
        assert_eq!(table.find("/sales", None), None);
    }
}
