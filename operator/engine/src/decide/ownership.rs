//! Ownership: whose value of a field wins.
//!
//! The first rule that names a field (or `*`) gives its owning role. The owner's changes are taken; anybody else's are taken only while no
//! participant of the owning role has the record (a record is seeded with all of its creator's fields until their owner has it). Of several
//! participants of the owning role, `tie` says whose counts. A field that no rule names belongs to whoever changed it last by the vendors'
//! own stamps. Participants of other Integrations that feed the same golden records count like one's own.

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
    let Some(role) = owner(&unit.ownership, field) else { return latest(known, source, field, modified) };
    if role != source.role {
        let owner_has_it = of_role(unit, role).any(|name| holds(known, name));
        return if owner_has_it { Verdict::Foreign } else { Verdict::Accept };
    }
    let tied = of_role(unit, role).count() > 1;
    match unit.tie {
        _ if !tied => Verdict::Accept,
        Tie::Latest => latest(known, source, field, modified),
        Tie::Home if speaker(unit, role, known).is_none_or(|name| name == source.name) => Verdict::Accept,
        Tie::Home => Verdict::Foreign,
    }
}

/// Which of several participants of a role has the word: the one where the record was born; where it was born elsewhere, the first by name
/// of those that hold it.
fn speaker<'a>(unit: &'a IntegrationUnit, role: &str, known: &Known) -> Option<&'a str> {
    let home = of_role(unit, role).find(|name| *name == known.record.home);
    home.or_else(|| of_role(unit, role).filter(|name| holds(known, name)).min())
}

/// Whether `participant` has the word on `field` of this record, or may have it: a value of its own there gives way to nobody's, or, where the latest
/// of its role counts, to a later one's.
#[must_use]
pub fn may_have_the_word(unit: &IntegrationUnit, participant: &ParticipantUnit, field: &FieldPath, known: &Known) -> bool {
    let role = participant.role.as_str();
    owner(&unit.ownership, field) == Some(role)
        && (unit.tie == Tie::Latest || of_role(unit, role).count() == 1 || speaker(unit, role, known) == Some(&participant.name))
}

/// Who says that a living record is deleted: where it was born, or, where nobody bears that name any more, the first by name that holds it.
#[must_use]
pub fn home<'k>(unit: &IntegrationUnit, known: &'k Known) -> &'k str {
    let born = &known.record.home;
    if unit.roles().any(|(name, _)| name == born) {
        return born;
    }
    let holders = known.identities.iter().filter(|identity| !identity.state.deleted).map(|identity| identity.participant.as_str());
    holders.filter(|holder| unit.roles().any(|(name, _)| name == *holder)).min().unwrap_or(born)
}

fn of_role<'a>(unit: &'a IntegrationUnit, role: &str) -> impl Iterator<Item = &'a str> {
    unit.roles().filter(move |(_, of)| *of == role).map(|(name, _)| name)
}

/// Whether a participant has the record, and has not deleted it.
pub(crate) fn holds(known: &Known, participant: &str) -> bool {
    known.identity(participant).is_some_and(|identity| !identity.state.deleted)
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

/// The newer vendor stamp wins, of two equal ones that of the first participant by name; without stamps the newcomer does, because it is what
/// somebody did last as far as anyone can tell.
fn latest(known: &Known, source: &ParticipantUnit, field: &FieldPath, modified: Option<Timestamp>) -> Verdict {
    match (known.record.provenance.get(field.text()), modified) {
        (Some(last), Some(modified)) if modified < last.at => Verdict::Foreign,
        (Some(last), Some(modified)) if modified == last.at && last.participant < source.name => Verdict::Foreign,
        _ => Verdict::Accept,
    }
}

#[cfg(test)]
#[path = "ownership_tests.rs"]
mod tests;
