//! The admin address: probes, metrics, what stands where, dead letters, and the console. One router for `operator` and `run`.
//!
//! | path | what |
//! |---|---|
//! | `/healthz`, `/readyz`, `/metrics` | for the kubelet and Prometheus |
//! | `/status` | every resource with its status, as `kubectl get -o json` would print it |
//! | `/api/v1/overview` | live numbers: lag, rates, quota, circuit, ledger; what `fairlead status` shows |
//! | `/api/v1/dead-letters` | what could not be delivered; `replay`, `edit`, `discard` |
//! | `/console/` | the same for people, in a browser |
//!
//! Guarantees: values of personal or unclassified fields leave only through a guarded request ([`Writing`]); whatever changes something
//! needs the page's own token, a JSON body and the same origin, so that no other site can make a browser send it; nothing is fetched from
//! elsewhere. Assumes: the address is reached by those who may see names and numbers (loopback, or a port of the pod that a
//! NetworkPolicy guards). Caveat: it speaks plain HTTP; a bearer token passes through a port-forward, or a proxy with TLS.
//!
//! This room must not know Kubernetes, vendors or mappings: resources come in as JSON.

mod console;
mod guard;
mod letters;
mod overview;
mod problem;
mod rates;
mod surface;

pub use guard::{Token, Writing};
pub use overview::{
    ConditionView, ConnectorView, ContractView, IntegrationView, LaneView, Overview, ParticipantView, Rate, SourceView, Standing, Trouble,
};
pub use rates::Rates;
pub use surface::{Resources, Surface};
