//! Tables that stand in ConfigMaps: shared field tables and lookup tables. Text in, the table or everything that is wrong with it out.
//!
//! What a row means together with a contract and a system is the planner's question, as it is for the rows of an Integration.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::common::{MAX_TEXT, Owner};
use crate::integration::{FieldRow, ValuePair};
use crate::rules::{Violation, judge_rows};
use crate::{manifest, schema};

/// The most lines of a lookup table. A ConfigMap holds 1 MiB at most, which is about as many short ones.
pub const MAX_LINES: usize = 50_000;
/// The most faults of a lookup table that are told.
const MAX_FAULTS: usize = 10;

/// Rows that several Integrations share.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldTable {
    /// Who answers for the table.
    pub owner: Option<Owner>,
    /// The rows, as an Integration has them.
    pub fields: Vec<FieldRow>,
}

impl FieldTable {
    /// Reads a table.
    ///
    /// # Errors
    /// Everything that is wrong with its form, by field (`fields[3].native`).
    pub fn read(text: &str) -> Result<Self, Vec<Violation>> {
        let one = |message: String, hint: &str| vec![Violation { field: String::new(), message, hint: hint.into() }];
        let mut documents = manifest::from_yaml(text).map_err(|violation| vec![violation])?;
        let count = documents.len();
        let Some(document) = documents.pop().filter(|_| count == 1) else {
            return Err(one(format!("holds {count} YAML documents"), "write one, with the rows under `fields`"));
        };
        let found = schema::check_field_table(&document);
        if !found.is_empty() {
            return Err(found);
        }
        let table = Self::deserialize(&document)
            .map_err(|error| one(format!("cannot be read ({error})"), "correct the value that the message names"))?;
        let mut found = Vec::new();
        judge_rows(&table.fields, "fields", &mut found);
        if found.is_empty() { Ok(table) } else { Err(found) }
    }
}

/// Which canonical value stands for which of a system's, line by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupTable {
    /// The lines, in order.
    pub pairs: Vec<ValuePair>,
}

impl LookupTable {
    /// Reads a table from CSV (RFC 4180, with a header `canonical,native`).
    ///
    /// # Errors
    /// What is wrong with its form, by line; at most ten faults.
    pub fn read(text: &str) -> Result<Self, Vec<Violation>> {
        const HEADER: [&str; 2] = ["canonical", "native"];
        let fault = |line: u64, message: String, hint: &str| Violation { field: format!("line {line}"), message, hint: hint.into() };
        // A spreadsheet's export may begin with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).has_headers(false).from_reader(text.as_bytes());
        let (mut pairs, mut found, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut is_header = true;
        for record in reader.records() {
            if found.len() >= MAX_FAULTS {
                break;
            }
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    let line = error.position().map_or(0, csv::Position::line);
                    found.push(fault(line, "is no CSV".into(), "check the quotes: a text with commas stands in double quotes"));
                    break;
                }
            };
            let line = record.position().map_or(0, csv::Position::line);
            if std::mem::take(&mut is_header) {
                if record.iter().ne(HEADER) {
                    let hint = "begin with the line canonical,native; the canonical values come first";
                    return Err(vec![fault(line, "is not the header".into(), hint)]);
                }
                continue;
            }
            let (Some(canonical), Some(native), None) = (record.get(0), record.get(1), record.get(2)) else {
                let hint = "write canonical,native; a text with commas stands in double quotes";
                found.push(fault(line, format!("has {} values, two are wanted", record.len()), hint));
                continue;
            };
            if canonical.is_empty() || native.is_empty() {
                found.push(fault(line, "has an empty value".into(), "fill it in, or take the line away"));
            } else if [canonical, native].iter().any(|text| text.chars().count() > MAX_TEXT) {
                found.push(fault(line, format!("has a value of more than {MAX_TEXT} characters"), "shorten it"));
            } else if !seen.insert((canonical.to_owned(), native.to_owned())) {
                found.push(fault(line, "appears a second time".into(), "remove one of the two"));
            } else {
                pairs.push(ValuePair { canonical: canonical.to_owned(), native: native.to_owned() });
            }
        }
        if pairs.is_empty() && found.is_empty() {
            found.push(fault(1, "is followed by no value".into(), "write one line per value"));
        }
        if pairs.len() > MAX_LINES {
            found.push(fault(MAX_LINES as u64, format!("there are {} lines, more than {MAX_LINES}", pairs.len()), "split the table"));
        }
        if found.is_empty() { Ok(Self { pairs }) } else { Err(found) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(read: Result<impl std::fmt::Debug, Vec<Violation>>) -> Vec<String> {
        read.err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_field_table_has_an_owner_and_rows() {
        let table =
            FieldTable::read("owner: {team: crm}\nfields:\n- {canonical: name, native: Name}\n- {native: RecordTypeId, value: x}\n")
                .unwrap();
        assert_eq!((table.owner.unwrap().team.as_str(), table.fields.len()), ("crm", 2));
        assert_eq!(table.fields[1].canonical, "");
    }

    #[test]
    fn faults_of_a_field_table_name_the_row() {
        assert_eq!(
            told(FieldTable::read("fields:\n- {canonical: name, native: Name}\n- {canonical: name, nativ: Name}\n")),
            ["fields[1].nativ: unknown field; did you mean native?"]
        );
        assert_eq!(
            told(FieldTable::read("fields:\n- {canonical: name}\n")),
            ["fields[0]: nothing fills the canonical field; set native, or toCanonical for a field that is computed"]
        );
        assert_eq!(
            told(FieldTable::read("- {canonical: name, native: Name}\n")),
            ["is a list, not a block of fields; write a block of fields here"]
        );
        assert_eq!(told(FieldTable::read("fields: []\n")), ["fields: has 0 entries, fewer than 1; add at least one"]);
        assert_eq!(told(FieldTable::read("")), ["holds 0 YAML documents; write one, with the rows under `fields`"]);
    }

    #[test]
    fn a_lookup_table_is_csv_with_a_header() {
        let table = LookupTable::read("\u{feff}canonical,native\nDE, Germany\nKR,\"Korea, Republic of\"\nCI,Côte d’Ivoire\n").unwrap();
        let natives: Vec<&str> = table.pairs.iter().map(|pair| pair.native.as_str()).collect();
        assert_eq!(natives, ["Germany", "Korea, Republic of", "Côte d’Ivoire"]);
    }

    #[test]
    fn faults_of_a_lookup_table_name_the_line() {
        let first = |text: &str| told(LookupTable::read(text)).remove(0);
        assert_eq!(
            first("DE,Germany\n"),
            "line 1: is not the header; begin with the line canonical,native; the canonical values come first"
        );
        assert_eq!(
            first("canonical,native\nDE,Germany\nKR,Korea, Republic of\n"),
            "line 3: has 3 values, two are wanted; write canonical,native; a text with commas stands in double quotes"
        );
        assert_eq!(first("canonical,native\nDE,\n"), "line 2: has an empty value; fill it in, or take the line away");
        assert_eq!(first("canonical,native\nDE,Germany\nDE,Germany\n"), "line 3: appears a second time; remove one of the two");
        assert_eq!(first("canonical,native\n"), "line 1: is followed by no value; write one line per value");
    }
}
