//! Ownership: whose value of a field wins.
//!
//! The first rule that names a field (or `*`) gives its owning role. The owner's changes are taken; anybody else's are taken only while no
//! participant of the owning role has the record (a record is seeded with all of its creator's fields until their owner has it). A field
//! that no rule names belongs to whoever changed it last by the vendors' own stamps.

use fairlead_model::unit::{IntegrationUnit, OwnershipRule, ParticipantUnit, Tie};
use fairlead_model::{FieldPath, Timestamp};
use fairlead_store::Known;

/// Whether a change by one participant is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It becomes the canonical value.
    Accept,
    /// Another system owns the field.
    Foreign,
}

/// Judges a change of `field` by `source`, modified there at `modified`.
#[must_use]
pub fn judge(
    unit: &IntegrationUnit,
    source: &ParticipantUnit,
    field: &FieldPath,
    known: Option<&Known>,
    modified: Option<Timestamp>,
) -> Verdict {
    let Some(known) = known else { return Verdict::Accept };
    let Some(role) = owner(&unit.ownership, field) else { return latest(known, field, modified) };
    if role == source.role {
        let tied = unit.participants.iter().filter(|p| p.role == role).count() > 1;
        return match (tied, unit.tie) {
            (false, _) => Verdict::Accept,
            (true, Tie::Latest) => latest(known, field, modified),
            (true, Tie::Home) => {
                let home_ties = unit.participant(&known.record.home).is_some_and(|home| home.role == role);
                if !home_ties || known.record.home == source.name { Verdict::Accept } else { Verdict::Foreign }
            }
        };
    }
    let owner_has_it = unit
        .participants
        .iter()
        .filter(|p| p.role == role)
        .any(|p| known.identity(&p.name).is_some_and(|identity| !identity.state.deleted));
    if owner_has_it { Verdict::Foreign } else { Verdict::Accept }
}

/// The role that owns `field`, if a rule names it.
#[must_use]
pub fn owner<'a>(rules: &'a [OwnershipRule], field: &FieldPath) -> Option<&'a str> {
    rules.iter().find(|rule| rule.fields.iter().any(|named| names(named, field))).map(|rule| rule.role.as_str())
}

/// Whether another role than `role` owns `field`.
#[must_use]
pub fn is_foreign(rules: &[OwnershipRule], field: &FieldPath, role: &str) -> bool {
    owner(rules, field).is_some_and(|owner| owner != role)
}

fn names(named: &str, field: &FieldPath) -> bool {
    named == "*" || named.parse::<FieldPath>().is_ok_and(|named| field.starts_with(&named))
}

/// The newer vendor stamp wins; without stamps the newcomer does, because it is what somebody did last as far as anyone can tell.
fn latest(known: &Known, field: &FieldPath, modified: Option<Timestamp>) -> Verdict {
    match (known.record.provenance.get(&field.to_string()), modified) {
        (Some(last), Some(modified)) if modified < last.at => Verdict::Foreign,
        _ => Verdict::Accept,
    }
}
