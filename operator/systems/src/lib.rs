//! Talking to business systems: what a system is like (a *definition*), and one live connection to one of them (a [`Client`]).
//!
//! A definition is YAML: authentication, entities with field types, reading, writing, errors, throttling. The built-in systems are the same
//! kind of file (`catalog/`); what is code is protocol work that others can reuse: SOQL, SuiteQL, sObject collections, signatures. A client
//! reads pages, reads by key, searches and writes, inside the account's limits, behind a circuit breaker, and sends credentials to no host
//! that the Secret does not allow.
//!
//! This room knows only `model`. It must not know Kubernetes, the store, mappings or canonical records: documents in and out are native.
//!
//! | where | what |
//! |---|---|
//! | [`definition`] | the format, its checks, `extends` |
//! | [`catalog`] | the built-in definitions |
//! | [`client`] | one live connector |
//! | `client::gate`, `turns`, `budget` | when a request may leave: waits, circuit, whose turn it is, quota |
//! | [`client::transport`] | what carries its requests: sockets, or systems of a simulation |
//! | [`egress`] | which addresses may be connected to |
//! | [`Fetcher`] | documents from addresses that users name, by the same rules |
//! | [`secret`] | credentials: where they come from, and a type that cannot be printed |
//! | [`reason`] | every reason word that an error of this room may carry |
//!
//! A team's own fields, on top of a built-in system:
//!
//! ```
//! use fairlead_systems::Catalog;
//!
//! let text = "
//! extends: salesforce
//! entities:
//! - name: Account
//!   fields:
//!   - {name: Fairlead_Id__c, type: String, maxLength: 64, correlation: true}
//! ";
//! let definition = Catalog::builtin().resolve(text).map_err(|findings| findings[0].to_string())?;
//! let account = definition.entity("Account").ok_or("no Account")?;
//! assert!(account.idempotent_create(Some("Fairlead_Id__c")));
//! # Ok::<(), String>(())
//! ```

pub mod catalog;
pub mod client;
pub mod definition;
pub mod egress;
pub mod reason;
pub mod secret;

mod decode;
mod encode;
mod fetch;
mod message;
mod shape;

pub use catalog::Catalog;
pub use client::{
    CallCounters, Client, NativeRecord, Outside, Page, Priority, ReadRequest, Share, Unusable, Usage, Use, WriteBatch, WriteItem,
    WriteOperation, Written,
};
pub use definition::{AuthMethod, Definition, DefinitionFinding, EndOfLife, Entity, Parameter, SecretKey};
pub use egress::EndpointPolicy;
pub use fetch::Fetcher;
pub use secret::{SecretData, SecretError, SecretSource, SecretString};
