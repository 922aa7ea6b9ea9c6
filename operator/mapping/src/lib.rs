//! Field tables: one flat table of rows between a native entity and a canonical one, compiled, type-checked and run both ways.
//!
//! What a row means:
//!
//! | row | reading (native to canonical) | writing (canonical to native) |
//! |---|---|---|
//! | `{canonical, native}` | copies | copies |
//! | `{canonical, native, values}` | by the value table | by the value table |
//! | `{canonical, native, lookup}` | by the lookup table, or the value declared for all others | likewise, where the table can be inverted |
//! | `{canonical, native, reference}` | gives the other record's native id, to be resolved | looks the native id up |
//! | `{canonical, native?, toCanonical}` | evaluates | does nothing |
//! | `{canonical, native, fromCanonical}` | does nothing | evaluates |
//! | `{canonical, native, toCanonical, fromCanonical}` | evaluates | evaluates |
//! | `{native, fromCanonical}` | does nothing | evaluates |
//! | `{native, value}` | does nothing | gives the constant |
//! | `{canonical: a[], native: B[], key?}` with rows `{canonical: a[].x, native: B[].Y}` | maps each element | maps each element |
//!
//! A copy is made where the types agree and nothing is lost or guessed; a row with an expression for one direction runs in that direction only,
//! since undoing somebody's expression would be a guess. An expression that fails while the row's own source field is empty gives no value.
//! `onError: Skip` leaves the field as it is on the other side; otherwise the failure stops the record, which becomes a dead letter.
//!
//! This room is pure: no I/O, no clock, nothing of Kubernetes, of vendors' wire formats or of stores. Plain copies never pay for the expression
//! language. No value that comes out holds a binary float.
//!
//! ```
//! use fairlead_mapping::{Lookups, Table, TableSource};
//! use serde_json::{from_value, json};
//!
//! let native = from_value(json!({"Name": {"type": "String"}, "Revenue": {"type": "Decimal"}}))?;
//! let canonical = from_value(json!({
//!     "name": {"type": "String", "nullable": false, "required": false},
//!     "revenue": {"type": "Decimal", "nullable": true, "required": false},
//! }))?;
//! let rows: Vec<_> = from_value(json!([
//!     {"canonical": "name", "native": "Name"},
//!     {"canonical": "revenue", "native": "Revenue", "toCanonical": "decimal_mul!(.record.Revenue, 1000)"},
//! ]))?;
//! let source = TableSource {
//!     rows: &rows,
//!     lookups: &Lookups::default(),
//!     native: &native,
//!     canonical: &canonical,
//!     entity: "customer",
//!     key: None,
//!     when: None,
//!     read: true,
//!     write: true,
//! };
//! let table = Table::compile(&source).map_err(|findings| findings[0].to_string())?;
//! let record = json!({"Name": "ACME", "Revenue": "9007199254740.99301"});
//! let inbound = table.to_canonical(record.as_object().ok_or("no object")?)?;
//! assert_eq!(inbound.fields[1].1, json!("9007199254740993.01"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod compile;
mod convert;
mod expression;
mod finding;
mod lookup;
mod predicate;
mod shape;
mod table;

pub use expression::{LANGUAGE, MAX_EXPRESSION};
pub use finding::{Column, Finding, RowError, Severity};
pub use lookup::Lookups;
pub use predicate::Predicate;
pub use table::{How, Inbound, Lineage, Outbound, OutboundRow, Table, TableSource, Trace};
