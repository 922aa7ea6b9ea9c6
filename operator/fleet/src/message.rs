//! What is said on the way: units from the planner, line by line, and reports from the workers.

use fairlead_model::report::Reports;
use fairlead_model::unit::{ConnectorUnit, DeletionPolicy, IntegrationUnit, ObjectKey, Units};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The longest line that a worker takes.
pub const MAX_LINE: usize = 64 * 1024 * 1024;

/// So many units in one line, so that no line grows with the number of resources.
const PER_LINE: usize = 32;

/// A line is begun anew once it has so many bytes: a whole contract, its tables and its definition may stand in each unit. One unit is never divided.
const LINE: usize = 4 * 1024 * 1024;

/// One line of the stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    /// Units, or a part of them.
    Units(Change),
    /// Nothing has changed, and the planner is there.
    Beat,
}

/// What has become another: units that are new or changed, and the keys of those that are gone.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Change {
    /// It begins from nothing: what is not named, is not there.
    pub whole: bool,
    /// It goes on in the next line; nothing is to be taken over before its last one.
    pub more: bool,
    /// Connectors.
    pub connectors: BTreeMap<ObjectKey, Option<Arc<ConnectorUnit>>>,
    /// Integrations.
    pub integrations: BTreeMap<ObjectKey, Option<Arc<IntegrationUnit>>>,
    /// Integrations whose resource is gone.
    pub removed: BTreeMap<ObjectKey, Option<DeletionPolicy>>,
}

impl Change {
    /// All units, for one who has none.
    #[must_use]
    pub fn whole(units: &Units) -> Self {
        Self { whole: true, ..Self::between(&Units::default(), units) }
    }

    /// What makes `after` of `before`. Routes are no worker's.
    #[must_use]
    pub fn between(before: &Units, after: &Units) -> Self {
        Self {
            whole: false,
            more: false,
            connectors: differences(&before.connectors, &after.connectors),
            integrations: differences(&before.integrations, &after.integrations),
            removed: differences(&before.removed, &after.removed),
        }
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.whole && self.connectors.is_empty() && self.integrations.is_empty() && self.removed.is_empty()
    }

    /// The same in pieces of a bounded number of units and bytes, each but the last with `more`.
    #[must_use]
    pub fn pieces(self) -> Vec<Self> {
        let empty = || Self { more: true, ..Self::default() };
        let (mut pieces, mut piece) = (Vec::new(), Self { whole: self.whole, ..empty() });
        let (mut units, mut bytes) = (0, 0);
        let mut room = |piece: &mut Self, wanted: usize| {
            if units > 0 && (units == PER_LINE || bytes + wanted > LINE) {
                pieces.push(std::mem::replace(piece, empty()));
                (units, bytes) = (0, 0);
            }
            (units, bytes) = (units + 1, bytes + wanted);
        };
        for (key, unit) in self.connectors {
            room(&mut piece, size(&(&key, &unit)));
            piece.connectors.insert(key, unit);
        }
        for (key, unit) in self.integrations {
            room(&mut piece, size(&(&key, &unit)));
            piece.integrations.insert(key, unit);
        }
        for (key, policy) in self.removed {
            room(&mut piece, size(&(&key, &policy)));
            piece.removed.insert(key, policy);
        }
        pieces.push(Self { more: false, ..piece });
        pieces
    }

    /// Changes `units` accordingly.
    pub fn apply(self, units: &mut Units) {
        if self.whole {
            *units = Units::default();
        }
        set(&mut units.connectors, self.connectors);
        set(&mut units.integrations, self.integrations);
        set(&mut units.removed, self.removed);
    }
}

/// How long a value is as JSON. One that cannot be written is found out when it is.
fn size(value: &impl Serialize) -> usize {
    struct Counted(usize);
    impl std::io::Write for Counted {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0 += text.len();
            Ok(text.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counted = Counted(0);
    if serde_json::to_writer(&mut counted, value).is_ok() { counted.0 } else { 0 }
}

fn differences<V: PartialEq + Clone>(before: &BTreeMap<ObjectKey, V>, after: &BTreeMap<ObjectKey, V>) -> BTreeMap<ObjectKey, Option<V>> {
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), None));
    let other = after.iter().filter(|(key, unit)| before.get(*key) != Some(*unit)).map(|(key, unit)| (key.clone(), Some(unit.clone())));
    gone.chain(other).collect()
}

fn set<V>(units: &mut BTreeMap<ObjectKey, V>, change: BTreeMap<ObjectKey, Option<V>>) {
    for (key, unit) in change {
        match unit {
            Some(unit) => units.insert(key, unit),
            None => units.remove(&key),
        };
    }
}

/// What a worker posts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Posted {
    /// The worker, by the name under which it holds leases.
    pub worker: String,
    /// How old the reports were when it was sent, by the worker's own clock.
    pub age: Duration,
    /// Its reports; none when it leaves.
    pub reports: Option<Reports>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(keys: impl IntoIterator<Item = (u32, DeletionPolicy)>) -> Units {
        Units { removed: keys.into_iter().map(|(key, policy)| (ObjectKey(format!("a/{key:03}")), policy)).collect(), ..Units::default() }
    }

    #[test]
    fn a_change_makes_one_of_the_other_in_pieces_through_text() {
        let before = removed((0..100).map(|key| (key, DeletionPolicy::Retain)));
        let after = removed((50..170).map(|key| (key, if key < 60 { DeletionPolicy::Delete } else { DeletionPolicy::Retain })));
        let change = Change::between(&before, &after);
        assert_eq!(change.removed.len(), 50 + 10 + 70, "gone, changed and new ones, and no others");
        let pieces = change.pieces();
        assert_eq!(pieces.iter().map(|piece| piece.removed.len()).collect::<Vec<_>>(), [32, 32, 32, 32, 2]);
        assert_eq!(pieces.iter().map(|piece| piece.more).collect::<Vec<_>>(), [true, true, true, true, false]);
        let mut units = before;
        for piece in pieces {
            let text = serde_json::to_string(&Line::Units(piece)).unwrap();
            assert!(!text.contains('\n'));
            match serde_json::from_str(&text).unwrap() {
                Line::Units(piece) => piece.apply(&mut units),
                Line::Beat => panic!("{text}"),
            }
        }
        assert_eq!(units, after);
    }

    #[test]
    fn a_line_is_bounded_in_bytes_and_one_unit_is_whole() {
        let long = |letter: char, length: usize| (ObjectKey(letter.to_string().repeat(length)), DeletionPolicy::Retain);
        let keys = [('a', LINE / 2), ('b', LINE / 3), ('c', LINE / 3), ('d', 2 * LINE), ('e', 1), ('f', 1)];
        let units = Units { removed: keys.into_iter().map(|(letter, length)| long(letter, length)).collect(), ..Units::default() };
        let pieces = Change::whole(&units).pieces();
        let told: Vec<String> =
            pieces.iter().map(|piece| piece.removed.keys().map(|key| key.0.chars().next().unwrap()).collect()).collect();
        assert_eq!(told, ["ab", "c", "d", "ef"]);
        let mut again = Units::default();
        pieces.into_iter().for_each(|piece| piece.apply(&mut again));
        assert_eq!(again, units);
    }

    #[test]
    fn everything_replaces_what_was_there_and_nothing_is_said_of_no_change() {
        let (before, after) = (removed([(1, DeletionPolicy::Retain)]), removed([(2, DeletionPolicy::Delete)]));
        let mut units = before.clone();
        let whole = Change::whole(&after).pieces();
        assert_eq!(whole.len(), 1);
        whole.into_iter().for_each(|piece| piece.apply(&mut units));
        assert_eq!(units, after);
        assert!(Change::between(&after, &after).is_empty());
        let nothing = Change::whole(&Units::default());
        assert!(!nothing.is_empty(), "that there is nothing to run is worth saying");
        assert_eq!(nothing.pieces().len(), 1);
        assert_eq!(serde_json::to_string(&Line::Beat).unwrap(), "\"beat\"");
    }
}
