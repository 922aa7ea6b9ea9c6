//! A unit compiled: everything that serving it needs, computed once.

use crate::auth::{KeySets, TrustedIssuer};
use crate::backend::{Backend, Backends, Record};
use crate::limits::Limit;
use crate::metrics::{Metrics, OperationMetrics};
use crate::openapi;
use crate::shape::{Declared, Shape};
use bytes::Bytes;
use fairlead_contract::Contract;
use fairlead_model::hash::Digest;
use fairlead_model::route::{OperationKind, OperationUnit, RouteUnit};
use fairlead_model::unit::ObjectKey;
use http::HeaderValue;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

/// One contract, ready to serve.
pub(crate) struct Route {
    pub(crate) key: ObjectKey,
    pub(crate) unit: Arc<RouteUnit>,
    pub(crate) path: String,
    pub(crate) judge: Arc<Judge>,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) issuers: Vec<TrustedIssuer>,
    /// By issuer and client id; empty where every client may call.
    consumers: HashMap<String, HashMap<String, Arc<Consumer>>>,
    metrics: BTreeMap<OperationKind, OperationMetrics>,
    /// `Allow` for the collection and for one record; none where nothing is offered there.
    pub(crate) allow_collection: HeaderValue,
    pub(crate) allow_record: HeaderValue,
    pub(crate) openapi: Bytes,
    pub(crate) openapi_tag: HeaderValue,
}

/// What documents are judged by; one per schema, whatever else changes around it.
pub(crate) struct Judge {
    schema: Digest,
    pub(crate) contract: Contract,
    pub(crate) shape: Shape,
}

/// Who may call.
pub(crate) struct Consumer {
    pub(crate) name: String,
    operations: Vec<OperationKind>,
    pub(crate) limit: Option<Arc<Limit>>,
}

impl Consumer {
    pub(crate) fn may(&self, operation: OperationKind) -> bool {
        self.operations.is_empty() || self.operations.contains(&operation)
    }
}

/// What compiling a unit needs of the world.
pub(crate) struct Workshop {
    pub(crate) backends: Arc<dyn Backends>,
    pub(crate) keys: KeySets,
    pub(crate) metrics: Arc<Metrics>,
}

/// Compiles `unit`. What `old` has and that did not change is taken over: validator, limits that are counting.
///
/// # Errors
/// Why it cannot be served, for people.
pub(crate) fn compile(workshop: &Workshop, key: &ObjectKey, unit: Arc<RouteUnit>, old: Option<&Route>) -> Result<Route, String> {
    // What a contract's schema admits, and no more: characters that no client or proxy spells in another way, and never `.` or `..`.
    for (name, part) in [("domain", &unit.domain), ("entity", &unit.entity)] {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if !part.starts_with(|first: char| first.is_ascii_alphanumeric()) || !part.bytes().all(plain) {
            return Err(format!(
                "the {name} {part:?} cannot stand in a path: use letters, digits, '-', '.' and '_', a letter or digit first"
            ));
        }
    }
    let schema = Digest::of(&unit.schema);
    let judge = match old.map(|old| &old.judge).filter(|judge| judge.schema == schema) {
        Some(judge) => judge.clone(),
        None => {
            let contract = Contract::compile(&unit.schema).map_err(|findings| {
                let told: Vec<String> = findings.iter().take(3).map(ToString::to_string).collect();
                format!("the schema cannot be used: {}", told.join("; "))
            })?;
            let shape = Shape::of(contract.fields());
            Arc::new(Judge { schema, contract, shape })
        }
    };
    for (kind, operation) in &unit.operations {
        if let Some(unknown) = operation.filters.iter().find(|filter| !judge.contract.fields().contains_key(*filter)) {
            return Err(format!("operation {} filters by {unknown}, which the schema does not declare", kind.as_str()));
        }
    }
    let mut consumers: HashMap<String, HashMap<String, Arc<Consumer>>> = HashMap::new();
    for consumer in &unit.consumers {
        let known = |rate| old.and_then(|old| old.limit(&consumer.name)).filter(|limit| limit.rate() == rate);
        let limit = match consumer.rate {
            Some(rate) => Some(match known(rate) {
                Some(limit) => limit,
                None => Arc::new(Limit::new(rate).map_err(|problem| format!("consumer {}: {problem}", consumer.name))?),
            }),
            None => None,
        };
        let compiled = Arc::new(Consumer { name: consumer.name.clone(), operations: consumer.operations.clone(), limit });
        let known = consumers.entry(consumer.issuer.clone()).or_default();
        for client in &consumer.client_ids {
            if known.insert(client.clone(), compiled.clone()).is_some() {
                return Err(format!("client id {client:?} belongs to two consumers"));
            }
        }
    }
    let backend = workshop.backends.bind(&unit)?;
    let issuers = unit
        .issuers
        .iter()
        .map(|issuer| TrustedIssuer {
            issuer: issuer.issuer.clone(),
            audiences: issuer.audiences.clone(),
            keys: workshop.keys.get(&issuer.jwks_uri),
        })
        .collect();
    let document = openapi::document(&unit).to_string();
    let openapi_tag = quoted(document.as_bytes());
    Ok(Route {
        key: key.clone(),
        path: unit.path(),
        judge,
        backend,
        issuers,
        consumers,
        metrics: unit.operations.keys().map(|kind| (*kind, workshop.metrics.operation(key, *kind))).collect(),
        allow_collection: allow(&unit, &[OperationKind::List, OperationKind::Create]),
        allow_record: allow(&unit, &[OperationKind::Get, OperationKind::Update]),
        openapi: document.into(),
        openapi_tag,
        unit,
    })
}

impl Route {
    pub(crate) fn operation(&self, kind: OperationKind) -> Option<(&OperationUnit, &OperationMetrics)> {
        self.unit.operations.get(&kind).zip(self.metrics.get(&kind))
    }

    /// The consumer that an issuer's client is: `Ok(None)` where the contract lists none.
    pub(crate) fn consumer(&self, issuer: &str, client_id: &str) -> Result<Option<&Consumer>, ()> {
        if self.unit.consumers.is_empty() {
            return Ok(None);
        }
        self.consumers.get(issuer).and_then(|clients| clients.get(client_id)).map(|consumer| Some(&**consumer)).ok_or(())
    }

    fn limit(&self, consumer: &str) -> Option<Arc<Limit>> {
        self.consumers.values().flat_map(HashMap::values).find(|known| known.name == consumer).and_then(|known| known.limit.clone())
    }

    /// A strong entity tag: the same record at the same version under the same contract has the same bytes.
    pub(crate) fn tag(&self, record: &Record) -> HeaderValue {
        quoted(&[record.id.0.as_bytes(), record.version.to_le_bytes().as_slice(), self.unit.digest.0.as_bytes()].concat())
    }

    /// A record as callers see it.
    pub(crate) fn shown<'a>(&'a self, record: &'a Record) -> Shown<'a> {
        Shown { id: record.id.to_string(), version: record.version, data: Declared(&self.judge.shape, &record.document) }
    }
}

/// The envelope of a record.
#[derive(Debug, Serialize)]
pub(crate) struct Shown<'a> {
    id: String,
    version: u64,
    data: Declared<'a>,
}

/// An entity tag of these bytes.
fn quoted(bytes: &[u8]) -> HeaderValue {
    // Hexadecimal digits are always a header's.
    HeaderValue::try_from(format!("\"{:032x}\"", xxh3_128(bytes))).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

fn allow(unit: &RouteUnit, kinds: &[OperationKind]) -> HeaderValue {
    let methods: Vec<&str> = kinds
        .iter()
        .filter(|kind| unit.operations.contains_key(kind))
        .flat_map(|kind| match kind {
            OperationKind::List | OperationKind::Get => &["GET", "HEAD"][..],
            OperationKind::Create => &["POST"],
            OperationKind::Update => &["PATCH"],
        })
        .copied()
        .chain(["OPTIONS"])
        .collect();
    HeaderValue::try_from(methods.join(", ")).unwrap_or_else(|_| HeaderValue::from_static("OPTIONS"))
}
