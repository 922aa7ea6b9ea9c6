//! The planner: what people declared goes in, what should run and what is wrong comes out; and from that and the runtimes' reports, status.
//!
//! Two pure functions carry this room. [`plan`] compiles a [`World`] into units and findings; [`statuses`] (and its three parts) turns
//! verdicts and reports into the status of each resource. Neither reads a clock, a file, a Secret or a server: the same inputs give the same
//! answer, here, in the offline checker and in the cluster, so what `fairlead check` accepts is what the operator accepts.
//!
//! Where the answer depends on time (a report that grows old, a throttle that ends), it says in `next_check` when it would change by
//! itself; until then, the same inputs give an equal answer at any later moment.
//!
//! This room must not know a client, a store or a wire. Secrets are not in the world: trouble with them arrives in reports.
//!
//! ```
//! use fairlead_model::Timestamp;
//! use fairlead_plan::{Config, World, plan, render};
//! use fairlead_systems::Catalog;
//!
//! let manifests = fairlead_api::manifest::from_yaml("
//! apiVersion: fairlead.dev/v1alpha1
//! kind: Connector
//! metadata: {name: crm, namespace: sales}
//! spec:
//!   system: salesforce
//!   endpoint: https://acme.my.salesforce.com
//!   auth: {method: JwtBaerer, secretRef: {name: crm-credentials}}
//! ").unwrap();
//! let planned = plan(&World::of_manifests(&manifests, true), Catalog::builtin(), &Config::default(), Timestamp(0));
//! let verdict = planned.verdicts().next().unwrap();
//! assert_eq!(
//!     render(&verdict.findings),
//!     "spec.auth.method: the system `salesforce` has no method `JwtBaerer` \
//!      (did you mean `JwtBearer`? `salesforce` offers `ClientCredentials` and `JwtBearer`)\n",
//! );
//! ```

mod config;
mod connector;
mod contract;
mod finding;
mod integration;
mod lineage;
mod merge;
pub mod nearest;
mod planned;
mod references;
mod route;
mod status;
mod tables;
mod text;
mod world;

pub use config::Config;
pub use finding::{Aspect, Check, Finding, Severity, condition_message, render};
pub use lineage::{Direction, Lineage, Passage};
pub use merge::merge_last_good;
pub use planned::{Planned, Planner, RevisionFacts, RouteFacts, SystemFacts, Verdict, plan};
pub use references::{RefKind, References, Target};
pub use status::{Heard, Judged, Moment, Pace, Statuses, connector_status, contract_status, integration_status, pace, statuses};
pub use text::{plan_text, resource_text};
pub use world::{ConfigMapView, Recorded, Undecodable, World, object_ref};
