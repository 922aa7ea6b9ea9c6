//! SuiteQL, as far as integrations use it: a `SELECT` over the simulator's tables, evaluated row by row.
//!
//! The text is parsed by `sqlparser` (Oracle dialect), compiled against the tables it names, and run. What SuiteQL does
//! to the unwary is kept: an empty string is NULL, a date column without `TO_CHAR` shows only its day, and **rows that the
//! `ORDER BY` leaves tied come in another order on each request**, so that a reader who pages without a unique order
//! repeats some rows and never sees others.
//!
//! It decides nothing about HTTP and holds no data: tables come in through [`Catalog`], rows go out as [`Cell`]s.

mod cell;
mod compile;
mod evaluate;

use chrono::{DateTime, Utc};
use rand::RngCore;
use std::ops::Range;
use std::sync::Arc;

pub use cell::{Cell, account_date, format_time, parse_time};

/// One row of a table; shared, since a query rarely changes what it passes on.
pub type Row = Arc<[Cell]>;

/// A table as a query sees it: lower-case column names and rows of the same width.
#[derive(Debug, Clone)]
pub struct Table {
    /// Column names in lower case.
    pub columns: Arc<[String]>,
    /// The rows, in no promised order.
    pub rows: Vec<Row>,
}

/// Where a query finds its tables.
pub trait Catalog {
    /// The table of this lower-case name, or nothing where the account has none.
    fn table(&self, name: &str) -> Option<Table>;
    /// What `BUILTIN.DF` shows instead of the stored value; nothing where the value is its own display.
    fn display(&self, table: &str, column: &str, value: &Cell) -> Option<String>;
    /// The account's clock (`SYSDATE`).
    fn now(&self) -> DateTime<Utc>;
}

/// Part of a result: the rows of one page, and how many there are in all.
#[derive(Debug)]
pub struct Page {
    /// Output names in lower case.
    pub columns: Vec<String>,
    /// The page's rows, as wide as `columns`.
    pub rows: Vec<Vec<Cell>>,
    /// Rows of the whole result.
    pub total: usize,
}

/// Why a query was refused, in the words that the service uses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The text is not a query of this dialect.
    #[error("Invalid or unsupported search. {0}")]
    Syntax(String),
    /// The account has no such table, or the role may not see it.
    #[error("Record '{0}' was not found.")]
    UnknownTable(String),
    /// The table has no such column.
    #[error("Field '{field}' for record '{record}' was not found. Reason: NOT_EXISTS - Field does not exist.")]
    UnknownField {
        /// The table as the query names it.
        record: String,
        /// The column as the query names it.
        field: String,
    },
    /// A value has the wrong form for what the query does with it.
    #[error("{0}")]
    Value(String),
}

/// Runs `sql` and returns the rows of `page`; `shuffle` orders what the query leaves tied.
pub fn run(catalog: &dyn Catalog, sql: &str, page: Range<usize>, shuffle: &mut dyn RngCore) -> Result<Page, QueryError> {
    let query = compile::parse(sql)?;
    evaluate::run(catalog, &query, Some(page), shuffle)
}

#[cfg(test)]
mod tests;
