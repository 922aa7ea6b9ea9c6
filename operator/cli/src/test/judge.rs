//! Judges cases: what a record becomes is compared with what was expected, and each difference names the row that made it.
//!
//! Pure; the mapping, the contract and the decisions are those of the engine ([`fairlead_engine::trial`]).

use super::format::{Broken, Case, Expect, Given, Landing, Letter};
use fairlead_contract::Contract;
use fairlead_engine::program::Participant;
use fairlead_engine::trial::{Refusal, Sent, Trial};
use fairlead_model::unit::RowUnit;
use fairlead_model::{Document, FieldPath};
use fairlead_plan::nearest;
use serde_json::Value;
use std::collections::BTreeSet;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Problem {
    /// What is compared: `canonical`, `erp payload`, ...; empty for the case as a whole.
    pub of: String,
    /// The field in it, with the numbers of list elements; empty for all of it.
    pub at: String,
    /// What is wrong.
    pub message: String,
    /// The row that makes the field.
    pub row: Option<String>,
    /// The value that was expected, and the one that came; none where it is absent or does not matter.
    pub values: Option<(Option<Value>, Option<Value>)>,
}

impl Problem {
    pub(crate) fn new(of: impl Into<String>, message: impl Into<String>) -> Self {
        Self { of: of.into(), message: message.into(), ..Self::default() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place: Vec<&str> = [self.of.as_str(), self.at.as_str()].into_iter().filter(|text| !text.is_empty()).collect();
        if !place.is_empty() {
            write!(f, "{}: ", place.join(" "))?;
        }
        f.write_str(&self.message)?;
        self.row.as_ref().map_or(Ok(()), |row| write!(f, " [{row}]"))
    }
}

/// Judges a case of an Integration.
pub(crate) fn integration(trial: &Trial, case: &Case) -> Vec<Problem> {
    let mut problems = Vec::new();
    let canonical = match &case.given {
        Given::Canonical(document) => document.clone(),
        Given::Native(name, record) => {
            let Some(source) = trial.program().participant(name) else {
                return vec![Problem::new("given", no_participant(trial, name, |_| true))];
            };
            if !source.readable() {
                return vec![Problem::new("given", format!("{name} is not read, so no record comes from it"))];
            }
            misspelt(source, record, &mut problems);
            match (trial.canonical(source, record), &case.expect.dead_letter) {
                (Err(refusal), Some(letter)) => {
                    dead_letter("deadLetter", letter, &refusal, &mut problems);
                    return problems;
                }
                (Err(refusal), None) => {
                    problems.push(Problem::new("canonical", became(&refusal)));
                    return problems;
                }
                (Ok(_), Some(_)) => {
                    problems.push(Problem::new("deadLetter", "the record passes, and none was made"));
                    return problems;
                }
                (Ok(canonical), None) => {
                    if let Some(expected) = &case.expect.canonical {
                        let rows = Rows::reading(source);
                        compare("canonical", expected, &canonical.document, case.expect.subset, &rows, &mut problems);
                    }
                    waits(&case.expect, &canonical.waits, &mut problems);
                    canonical.document
                }
            }
        }
    };
    for (name, landing) in &case.expect.targets {
        let Some(target) = trial.program().participant(name) else {
            problems.push(Problem::new("targets", no_participant(trial, name, Participant::writable)));
            continue;
        };
        if !target.writable() {
            problems.push(Problem::new("targets", format!("{name} is not written")));
        } else if matches!(&case.given, Given::Native(source, _) if source == name) {
            problems.push(Problem::new("targets", format!("{name} is where the record comes from")));
        } else {
            self::landing(target, landing, trial.sent(target, &canonical), case.expect.subset, &mut problems);
        }
    }
    problems
}

/// Judges a case of a contract.
pub(crate) fn contract(contract: &Contract, case: &Case) -> Vec<Problem> {
    let (Given::Canonical(document), Some(expected)) = (&case.given, &case.expect.violations) else { return Vec::new() };
    let found = contract.validate(document).err().unwrap_or_default();
    let is_meant = |broken: &Broken, path: &str, message: &str| {
        broken.field == path && broken.message.as_ref().is_none_or(|part| message.contains(part.as_str()))
    };
    let missing = expected.iter().filter(|broken| !found.iter().any(|violation| is_meant(broken, &violation.path, &violation.message)));
    let mut problems: Vec<Problem> = missing
        .map(|broken| {
            let message = match (&broken.message, found.iter().find(|violation| violation.path == broken.field)) {
                (_, None) => "expected, and it keeps the contract".to_owned(),
                (part, Some(violation)) => {
                    format!("expected a message with {:?}, got {:?}", part.as_deref().unwrap_or_default(), violation.message)
                }
            };
            Problem { at: broken.field.clone(), ..Problem::new("violations", message) }
        })
        .collect();
    if !case.expect.subset {
        let more = found.iter().filter(|violation| !expected.iter().any(|broken| broken.field == violation.path));
        problems.extend(more.map(|violation| Problem {
            at: violation.path.clone(),
            ..Problem::new("violations", format!("not expected: {}", violation.message))
        }));
    }
    problems
}

fn no_participant(trial: &Trial, name: &str, suits: impl Fn(&Participant) -> bool) -> String {
    let names: Vec<&str> = trial.program().participants.iter().filter(|each| suits(each)).map(|each| each.unit.name.as_str()).collect();
    format!("there is no participant {name:?} ({})", nearest::hint(name, names, "name one of the Integration"))
}

/// A field in the given record that is none of the system's, and was probably meant for one. Others stand in any record that was copied
/// from a system.
fn misspelt(source: &Participant, record: &Document, problems: &mut Vec<Problem>) {
    let known: BTreeSet<&str> = source.unit.native.keys().filter_map(|path| path.segments().first().map(|first| first.name())).collect();
    for name in record.keys().filter(|name| !known.contains(name.as_str())) {
        if let Some(meant) = nearest::nearest(name, known.iter().copied()) {
            let message = format!("{} has no such field (did you mean `{meant}`?)", source.unit.entity);
            problems.push(Problem { at: name.clone(), ..Problem::new("given record", message) });
        }
    }
}

fn became(refusal: &Refusal) -> String {
    let field = refusal.field.as_ref().map(|field| format!(" at {field}")).unwrap_or_default();
    format!("the record becomes a dead letter: {}{field}: {}", refusal.reason, refusal.message)
}

fn dead_letter(of: &str, expected: &Letter, got: &Refusal, problems: &mut Vec<Problem>) {
    let whole = became(got);
    let words = [
        ("stage", expected.stage.map(|stage| format!("{stage:?}")), format!("{:?}", got.stage)),
        ("reason", expected.reason.clone(), got.reason.clone()),
        ("field", expected.field.clone(), got.field.clone().unwrap_or_default()),
    ];
    for (what, expected, got) in words {
        if let Some(expected) = expected.filter(|expected| *expected != got) {
            problems.push(Problem { at: what.into(), ..Problem::new(of, format!("expected {expected:?}, got {got:?}; {whole}")) });
        }
    }
    if let Some(part) = expected.message.as_ref().filter(|part| !got.message.contains(part.as_str())) {
        problems.push(Problem { at: "message".into(), ..Problem::new(of, format!("{part:?} is not in {:?}", got.message)) });
    }
}

fn waits(expect: &Expect, got: &[(FieldPath, fairlead_model::ExternalId)], problems: &mut Vec<Problem>) {
    // What nobody asked for is told as well: a record that waits is not what the canonical record in the case looks like.
    let Some(expected) = expect.waits_for.as_ref().or_else(|| expect.canonical.as_ref().map(|_| const { &Vec::new() })) else { return };
    for path in expected.iter().filter(|path| !got.iter().any(|(field, _)| field == *path)) {
        problems.push(Problem { at: path.to_string(), ..Problem::new("waitsFor", "does not wait") });
    }
    for (field, id) in got.iter().filter(|(field, _)| !expected.contains(field)) {
        let message = format!("waits for the record that is {:?} there; give it under spec.records, or expect it", id.as_str());
        problems.push(Problem { at: field.to_string(), ..Problem::new("waitsFor", message) });
    }
}

fn landing(target: &Participant, expected: &Landing, got: Sent, subset: bool, problems: &mut Vec<Problem>) {
    let name = &target.unit.name;
    let told = match &got {
        Sent::Payload(_) => "it is written".to_owned(),
        Sent::Filtered => "it is skipped: write.when is false".to_owned(),
        Sent::Waits(id) => format!("it waits for the record {id}, which has no id there; give it under spec.records"),
        Sent::Refused(refusal) => became(refusal),
    };
    match (expected, &got) {
        (Landing::Payload(expected), Sent::Payload(payload)) => {
            compare(&format!("{name} payload"), expected, payload, subset, &Rows::writing(target), problems);
        }
        (Landing::DeadLetter(letter), Sent::Refused(refusal)) => dead_letter(&format!("{name} deadLetter"), letter, refusal, problems),
        (Landing::Skipped, Sent::Filtered) | (Landing::Waits, Sent::Waits(_)) => {}
        (Landing::Payload(_), _) => problems.push(Problem::new(format!("{name} payload"), told)),
        (Landing::Skipped, _) => problems.push(Problem::new(name, format!("expected to be skipped; {told}"))),
        (Landing::Waits, _) => problems.push(Problem::new(name, format!("expected to wait; {told}"))),
        (Landing::DeadLetter(_), _) => problems.push(Problem::new(format!("{name} deadLetter"), format!("none was made; {told}"))),
    }
}

/// The rows that make one side's fields.
struct Rows<'a> {
    participant: &'a Participant,
    /// The side that is made.
    side: fn(&RowUnit) -> Option<&FieldPath>,
    makes: fn(&RowUnit) -> bool,
    verb: &'static str,
}

impl<'a> Rows<'a> {
    fn reading(participant: &'a Participant) -> Self {
        let makes = |row: &RowUnit| row.to_canonical.is_some() || row.from_canonical.is_none();
        Self { participant, side: |row| row.canonical.as_ref(), makes, verb: "reads" }
    }

    fn writing(participant: &'a Participant) -> Self {
        let makes = |row: &RowUnit| row.from_canonical.is_some() || row.to_canonical.is_none();
        Self { participant, side: |row| row.native.as_ref(), makes, verb: "writes" }
    }

    /// The row that makes the field at these steps: the one whose path covers the most of them.
    fn of(&self, steps: &[&str]) -> Option<String> {
        let rows = self.participant.unit.rows.iter().enumerate().filter(|(_, row)| (self.makes)(row));
        let covered = rows.filter_map(|(number, row)| {
            let path = (self.side)(row)?;
            let names: Vec<&str> = path.segments().iter().map(|segment| segment.name()).collect();
            let shared = names.len().min(steps.len());
            (names[..shared] == steps[..shared]).then_some((shared, number, row))
        });
        let (_, number, row) = covered.max_by_key(|(shared, number, _)| (*shared, std::cmp::Reverse(*number)))?;
        let paths: Vec<String> = row.canonical.iter().chain(&row.native).map(ToString::to_string).collect();
        Some(format!("{} ({})", row.called(number), paths.join(", ")))
    }

    /// Where no row makes a field: which one was probably meant.
    fn no_row(&self, steps: &[&str]) -> String {
        let names: Vec<String> =
            self.participant.unit.rows.iter().filter(|row| (self.makes)(row)).filter_map(self.side).map(ToString::to_string).collect();
        let meant = nearest::nearest(&steps.join("."), names.iter().map(String::as_str));
        let hint = meant.map(|meant| format!(" (did you mean `{meant}`?)")).unwrap_or_default();
        format!("no row of {} {} it{hint}", self.participant.unit.name, self.verb)
    }
}

fn compare(of: &str, expected: &Document, got: &Document, subset: bool, rows: &Rows<'_>, problems: &mut Vec<Problem>) {
    let mut found = Vec::new();
    differences(Some(&Value::Object(expected.clone())), Some(&Value::Object(got.clone())), subset, "", &mut found);
    for Difference { at, expected, got, message } in found {
        let without_numbers: String = at.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect();
        let steps: Vec<&str> = without_numbers.split('.').collect();
        let row = rows.of(&steps);
        let nobody = if row.is_none() { format!("; {}", rows.no_row(&steps)) } else { String::new() };
        problems.push(Problem { of: of.to_owned(), at, message: format!("{message}{nobody}"), row, values: Some((expected, got)) });
    }
}

struct Difference {
    at: String,
    expected: Option<Value>,
    got: Option<Value>,
    message: String,
}

/// Where two values differ, down to single fields. Absent and null are one; where a subset is asserted, null asserts that nothing is there.
fn differences(expected: Option<&Value>, got: Option<&Value>, subset: bool, at: &str, found: &mut Vec<Difference>) {
    let present = |value: Option<&'_ Value>| value.is_some_and(|value| !value.is_null());
    match (expected, got) {
        (Some(Value::Object(wanted)), Some(Value::Object(have))) => {
            let names: BTreeSet<&String> = wanted.keys().chain(have.keys().filter(|_| !subset)).collect();
            for name in names {
                let dot = if at.is_empty() { "" } else { "." };
                differences(wanted.get(name), have.get(name), subset, &format!("{at}{dot}{name}"), found);
            }
        }
        (Some(Value::Array(wanted)), Some(Value::Array(have))) if wanted.len() == have.len() => {
            for (number, (wanted, have)) in wanted.iter().zip(have).enumerate() {
                differences(Some(wanted), Some(have), subset, &format!("{at}[{number}]"), found);
            }
        }
        _ if !present(expected) && !present(got) || expected == got => {}
        _ => {
            let told =
                |value: Option<&Value>| value.filter(|value| !value.is_null()).map_or_else(|| "nothing".to_owned(), Value::to_string);
            let message = match (expected, got) {
                (Some(Value::Array(wanted)), Some(Value::Array(have))) => {
                    format!("expected {} elements, got {}: {}", wanted.len(), have.len(), told(got))
                }
                _ => format!("expected {}, got {}", told(expected), told(got)),
            };
            found.push(Difference { at: at.to_owned(), expected: expected.cloned(), got: got.cloned(), message });
        }
    }
}
