//! Canonical schemas: which JSON Schemas may describe a canonical entity, what fields they give, and whether a document keeps to them.
//!
//! A contract's schema is JSON Schema 2020-12, kept to a subset in which every field has one path and one type, so that a field table can be
//! type-checked against it without running anything. What lies outside the subset is refused with the place and a way out, never ignored.
//!
//! This room decides; it does no I/O, resolves no reference beyond the schema itself, and knows nothing of Kubernetes, of vendors or of mappings.
//!
//! ```
//! let schema = serde_json::json!({
//!     "type": "object",
//!     "properties": {"name": {"type": "string"}, "revenue": {"type": "string", "format": "decimal"}},
//!     "required": ["name"],
//!     "additionalProperties": false,
//! });
//! let contract = fairlead_contract::Contract::compile(&schema).map_err(|findings| findings[0].to_string())?;
//! let document = serde_json::json!({"name": "ACME", "revenue": "1.5e"});
//! let violations = contract.validate(document.as_object().ok_or("no object")?).err().unwrap_or_default();
//! assert_eq!(violations[0].to_string(), "revenue: is not a decimal (digits with an optional sign and point, as a string)");
//! # Ok::<(), String>(())
//! ```

mod contract;
mod extension;
mod subset;

pub use contract::{Contract, Violation};
pub use extension::{EXTENSIONS, extended};
pub use subset::{MAX_FIELDS, MAX_PATTERN, MAX_SCHEMA_BYTES, SchemaFinding};

use fairlead_model::hash::Digest;
use serde_json::Value;

/// The digest that names a schema's content; key order and white space do not matter.
#[must_use]
pub fn digest(schema: &Value) -> Digest {
    Digest::of(schema)
}
