//! Drift: what a system holds beside what is known of it.
//!
//! Reading by what changed sees what the vendor tells as changed, and writing sees what its lane holds. What slipped past both (a value that a
//! batch job set without a new stamp, a record restored from a backup, a deletion that nobody tells of) is found only by looking at everything.
//! What is on its way in a lane is no drift: it is about to be put right.

use crate::decide::difference::{self, Sight};
use crate::decide::inbound::in_step;
use crate::decide::outbound::brought_by;
use crate::program::{Participant, Program};
use fairlead_model::hash::{RangeHash, ValueHash};
use fairlead_model::report::Drift;
use fairlead_model::unit::InitialLoad;
use fairlead_model::{ExternalId, FieldPath, document};
use fairlead_store::{Identity, Known};
use serde_json::Value;

/// One difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// It should be in the system and is not.
    Missing,
    /// It holds other values there than were read, or than it should.
    Different,
    /// It was never read.
    Unread,
    /// The system does not show it any more.
    Gone,
}

impl Kind {
    /// Counts it.
    pub fn count(self, drift: &mut Drift) {
        let number = match self {
            Self::Missing => &mut drift.missing,
            Self::Different => &mut drift.different,
            Self::Unread => &mut drift.unread,
            Self::Gone => &mut drift.gone,
        };
        *number += 1;
    }
}

/// What a system shows of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Shown {
    /// It is deleted, or not there.
    Absent,
    /// Its canonical values, as far as they can be told; references resolved.
    Values(Vec<(FieldPath, Value)>),
    /// It is there, and its field table fails on it.
    Unmappable,
}

/// The hash over what `source` shows of a range of records, to be compared with the one over what is known ([`fairlead_store::Store::seen`]): where
/// they are equal, [`of_read`] finds no difference in any of them. `None` where one has to be looked at by itself: it is deleted, its table fails on
/// it, or it refers to a record that is not known.
#[must_use]
pub fn of_range<'a>(source: &Participant, shown: impl Iterator<Item = (&'a ExternalId, &'a Shown)>) -> Option<ValueHash> {
    let mut range = RangeHash::default();
    for (id, shown) in shown {
        let Shown::Values(values) = shown else { return None };
        let value = |unit: &FieldPath| values.iter().find(|(path, _)| path == unit).map(|(_, value)| ValueHash::of(Some(value)));
        let hashes: Option<Vec<ValueHash>> = source.table.readable_units().iter().map(value).collect();
        range.add(id.as_str(), hashes?);
    }
    Some(range.finish())
}

/// The difference between what `source` shows of a record and what is known of it.
#[must_use]
pub fn of_read(source: &Participant, shown: &Shown, known: Option<&Known>) -> Option<Kind> {
    let Some(known) = known else { return (*shown != Shown::Absent).then_some(Kind::Unread) };
    if *shown != Shown::Absent && taken_as_deleted(source, known) {
        return Some(Kind::Different);
    }
    let held = standing(source, known)?;
    match shown {
        Shown::Absent => Some(Kind::Gone),
        Shown::Unmappable => Some(Kind::Different),
        Shown::Values(values) => {
            let differs = |(unit, value): &(FieldPath, Value)| {
                let mut field = held.state.fields.get(unit.text()).copied().unwrap_or_default();
                let current = ValueHash::of(document::present(&known.record.document, unit));
                difference::observe(&mut field, ValueHash::of(Some(value)), current) != Sight::Same
            };
            values.iter().any(differs).then_some(Kind::Different)
        }
    }
}

/// The difference between what `target` is known to hold of a record and what it should hold.
#[must_use]
pub fn of_target(program: &Program, target: &Participant, known: &Known) -> Option<Kind> {
    let wanted = known.record.deleted_at.is_none() && !waits(target, known) && target.table.accepts(&known.record.document) == Ok(true);
    match known.identity(&target.unit.name) {
        None => {
            let made = program.unit.initial_load == InitialLoad::MatchOrCreate && brought_by(program, known).is_none();
            (wanted && made).then_some(Kind::Missing)
        }
        Some(held) => (wanted && !held.state.deleted && !in_step(target, &known.record.document, &held.state)).then_some(Kind::Different),
    }
}

/// What is known to stand in a system and to have its rest there. An alias is neither read nor written; what others do with their copy of a
/// deleted record changes nothing.
fn standing<'a>(participant: &Participant, known: &'a Known) -> Option<&'a Identity> {
    let rests = known.merged_into.is_none() && known.record.deleted_at.is_none() && !waits(participant, known);
    known.identity(&participant.unit.name).filter(|held| rests && !held.state.deleted)
}

/// Deleted because this system, its home, told so or did not show it: where it shows it again, it lives.
fn taken_as_deleted(participant: &Participant, known: &Known) -> bool {
    let home = known.record.home == participant.unit.name && known.record.deleted_at.is_some() && known.merged_into.is_none();
    home && !waits(participant, known) && known.identity(&participant.unit.name).is_some_and(|held| held.state.deleted)
}

fn waits(participant: &Participant, known: &Known) -> bool {
    known.lanes.iter().any(|lane| lane.target == participant.unit.name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::decide::sample::World;
    use fairlead_store::LaneEntry;
    use serde_json::json;

    fn values(name: &str, credit: &str) -> Shown {
        Shown::Values(vec![("name".parse().unwrap(), json!(name)), ("credit".parse().unwrap(), json!(credit))])
    }

    /// A record that both systems hold and that is in step.
    fn settled() -> World {
        let mut world = World::new();
        world.read("crm", json!({"Id": "c1", "Name": "Acme"}));
        world.write("erp");
        world
    }

    #[test]
    fn what_a_system_shows_as_it_was_read_is_no_drift() {
        let world = settled();
        let (crm, known) = (world.program.participant("crm").unwrap(), world.known.as_ref());
        let same = Shown::Values(vec![("name".parse().unwrap(), json!("Acme"))]);
        assert_eq!(of_read(crm, &same, known), None);
        assert_eq!(of_read(crm, &values("Other", ""), known), Some(Kind::Different));
        assert_eq!(of_read(crm, &Shown::Unmappable, known), Some(Kind::Different));
        assert_eq!(of_read(crm, &Shown::Absent, known), Some(Kind::Gone));
        assert_eq!(of_read(crm, &same, None), Some(Kind::Unread));
        assert_eq!(of_read(crm, &Shown::Absent, None), None);
    }

    #[test]
    fn a_range_has_one_hash_unless_a_record_needs_a_look() {
        let world = settled();
        let (crm, ids) = (world.program.participant("crm").unwrap(), [ExternalId("c1".into()), ExternalId("c2".into())]);
        let whole = |name: &str| {
            let value = |unit: &FieldPath| (unit.clone(), if unit.text() == "name" { json!(name) } else { Value::Null });
            Shown::Values(crm.table.readable_units().iter().map(value).collect())
        };
        let range = |shown: [Shown; 2]| of_range(crm, ids.iter().zip(&shown));
        let mut known = RangeHash::default();
        for id in &ids {
            let fields = crm.table.readable_units().iter().map(|unit| match unit.text().as_str() {
                "name" => ValueHash::of(Some(&json!("Acme"))),
                _ => ValueHash::ABSENT,
            });
            known.add(id.as_str(), fields);
        }
        assert_eq!(range([whole("Acme"), whole("Acme")]), Some(known.finish()));
        assert_ne!(range([whole("Acme"), whole("Other")]), Some(known.finish()));
        for special in [Shown::Absent, Shown::Unmappable, values("Acme", "")] {
            assert_eq!(range([whole("Acme"), special.clone()]), None, "{special:?}");
        }
    }

    #[test]
    fn what_its_home_shows_again_is_not_deleted() {
        let mut world = settled();
        let known = world.known.as_mut().unwrap();
        known.record.deleted_at = Some(fairlead_model::Timestamp(1));
        for identity in &mut known.identities {
            identity.state.deleted = true;
        }
        let judge = |who: &str, shown: &Shown| of_read(world.program.participant(who).unwrap(), shown, world.known.as_ref());
        let same = Shown::Values(vec![("name".parse().unwrap(), json!("Acme"))]);
        assert_eq!(judge("crm", &same), Some(Kind::Different));
        assert_eq!(judge("crm", &Shown::Absent), None);
        // What others still do with their copy changes nothing.
        assert_eq!(judge("erp", &same), None);
    }

    #[test]
    fn what_waits_in_a_lane_is_on_its_way() {
        let mut world = settled();
        let known = world.known.as_mut().unwrap();
        known.lanes.push(LaneEntry { target: "crm".into(), in_flight: false, attempts: 0 });
        let crm = world.program.participant("crm").unwrap();
        assert_eq!(of_read(crm, &values("Other", ""), world.known.as_ref()), None);
    }

    #[test]
    fn a_target_that_lacks_a_record_or_its_value_drifted() {
        let mut world = settled();
        let erp = "erp";
        let judge = |world: &World| of_target(&world.program, world.program.participant(erp).unwrap(), world.known.as_ref().unwrap());
        assert_eq!(judge(&world), None);
        let known = world.known.as_mut().unwrap();
        known.record.document.insert("name".into(), json!("Acme 2"));
        assert_eq!(judge(&world), Some(Kind::Different));
        let known = world.known.as_mut().unwrap();
        known.identities.retain(|identity| identity.participant != erp);
        assert_eq!(judge(&world), Some(Kind::Missing));
        let known = world.known.as_mut().unwrap();
        known.record.deleted_at = Some(fairlead_model::Timestamp(1));
        assert_eq!(judge(&world), None);
    }
}
