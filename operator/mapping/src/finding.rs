//! What compiling a table has to say: findings for people, each naming the row by its paths and the column that is meant.

use fairlead_model::path::FieldPath;
use fairlead_model::unit::RowOrigin;
use std::fmt;

/// Whether a finding forbids the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The table cannot be used.
    Error,
    /// The table can be used; some records will not pass, or something is probably not meant.
    Warning,
}

/// The part of a row, or of the table's surroundings, that a finding speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Column {
    /// The row as a whole.
    Row,
    /// `canonical`.
    Canonical,
    /// `native`.
    Native,
    /// `value`.
    Value,
    /// `values`.
    Values,
    /// `toCanonical`.
    ToCanonical,
    /// `fromCanonical`.
    FromCanonical,
    /// `reference`.
    Reference,
    /// `lookup`.
    Lookup,
    /// `key`: of a list row, or (without a row) the correlation field.
    Key,
    /// `when` of the write block.
    When,
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Row => "row",
            Self::Canonical => "canonical",
            Self::Native => "native",
            Self::Value => "value",
            Self::Values => "values",
            Self::ToCanonical => "toCanonical",
            Self::FromCanonical => "fromCanonical",
            Self::Reference => "reference",
            Self::Lookup => "lookup",
            Self::Key => "key",
            Self::When => "when",
        })
    }
}

/// Something that compiling a table found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it forbids the table.
    pub severity: Severity,
    /// The row's index in the table, from 0; none for the table as a whole.
    pub row: Option<usize>,
    /// The column.
    pub column: Column,
    /// What is wrong; begins with the row's canonical path, or its native one.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(row) = self.row {
            write!(f, "row {row}: ")?;
        }
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

/// Why a record did not pass. Never holds a value that may be personal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", self.place())]
pub struct RowError {
    /// The row's index in the table, from 0; the table's length for its `when`.
    pub row: usize,
    /// Where the row stands, if not in the Integration itself.
    pub origin: Option<RowOrigin>,
    /// The row's canonical path.
    pub canonical: Option<FieldPath>,
    /// The row's native path.
    pub native: Option<FieldPath>,
    /// What went wrong.
    pub message: String,
}

impl RowError {
    /// How people call the row: `row 3`, or `row 3 of TABLE`.
    #[must_use]
    pub fn called(&self) -> String {
        RowOrigin::called(self.origin.as_ref(), self.row)
    }

    fn place(&self) -> String {
        let paths: Vec<String> = self.canonical.iter().chain(&self.native).map(ToString::to_string).collect();
        if paths.is_empty() { String::new() } else { format!("{} ({}): ", self.called(), paths.join(", ")) }
    }
}

/// How a row is called in messages.
pub(crate) fn label(canonical: Option<&FieldPath>, native: Option<&FieldPath>) -> String {
    canonical.or(native).map_or_else(|| "a row without paths".to_owned(), ToString::to_string)
}
