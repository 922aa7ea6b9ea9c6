//! The gateway in this process: its flags, what it serves (the engine's records), what it remembers in the store, and the runtime that the
//! engine and it make together.

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use clap::Args;
use fairlead_contract::Violation;
use fairlead_controller::Runtime;
use fairlead_engine::Engine;
use fairlead_engine::decide::direct::Refused;
use fairlead_engine::serve::{Records, ServeError};
use fairlead_fleet::Planner;
use fairlead_gateway as gateway;
use fairlead_gateway::issuer::DevelopmentIssuer;
use fairlead_gateway::{Backend, BackendError, Begin, Call, CertificateFiles, Certificates, Gateway, ListQuery, Page, Server, Update};
use fairlead_mapping::Predicate;
use fairlead_model::hash::Digest;
use fairlead_model::report::Reports;
use fairlead_model::route::{Backend as Source, OperationKind, ParticipantTarget, RouteUnit};
use fairlead_model::unit::{ObjectKey, Units};
use fairlead_model::{Clock, Document, RecordId, SystemClock};
use fairlead_store::{BeginWrite, Store, WriteBegun};
use fairlead_systems::{EndpointPolicy, Fetcher};
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;

/// The largest key set of an issuer.
const MAX_KEY_SET: usize = 256 * 1024;
/// How long fetching it may take.
const FETCH: Duration = Duration::from_secs(5);
/// How often the certificate's files are looked at.
const CERTIFICATE: Duration = Duration::from_secs(5);
/// How long writes are remembered by their Idempotency-Key.
const REMEMBER: Duration = Duration::from_secs(24 * 3600);
/// How long requests may take to finish when the process is told to stop; what then follows has its own time.
const DRAIN: Duration = Duration::from_secs(8);
/// The namespace of the ids of created records, so that the same request always means the same record.
const CREATED: Uuid = Uuid::from_u128(0x6d1f_21c8_3b0e_4f6a_9c57_0a5d_2f0e_8b11);
/// Where the gateway keeps the key that seals its page tokens.
const NOTES: &str = "fairlead/gateway";

/// How contracts are served.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct GatewayArgs {
    /// Serve the operations of contracts here; without it, nothing is served.
    #[arg(long, env = "FAIRLEAD_GATEWAY_LISTEN")]
    pub(crate) gateway_listen: Option<SocketAddr>,
    /// The certificate chain in PEM, for HTTPS; read again when it changes.
    #[arg(long, env = "FAIRLEAD_GATEWAY_TLS_CERT", requires_all = ["gateway_listen", "gateway_tls_key"])]
    pub(crate) gateway_tls_cert: Option<PathBuf>,
    /// Its private key in PEM.
    #[arg(long, env = "FAIRLEAD_GATEWAY_TLS_KEY", requires_all = ["gateway_listen", "gateway_tls_cert"])]
    pub(crate) gateway_tls_key: Option<PathBuf>,
    /// Where callers reach it, such as https://api.acme.example; for status. The listening address when left out.
    #[arg(long, env = "FAIRLEAD_GATEWAY_URL", requires = "gateway_listen")]
    pub(crate) gateway_url: Option<String>,
}

/// A gateway that listens.
pub(crate) struct Serving {
    gateway: Gateway,
    server: Server,
    /// Where callers reach it.
    pub(crate) url: String,
}

/// Starts the gateway, if the flags ask for one.
pub(crate) async fn start(
    args: &GatewayArgs,
    engine: &Engine,
    store: &Arc<dyn Store>,
    endpoints: &EndpointPolicy,
    registry: &mut Registry,
) -> anyhow::Result<Option<Serving>> {
    let Some(address) = args.gateway_listen else { return Ok(None) };
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; choose another address with --gateway-listen"))?;
    let address = listener.local_addr()?;
    let parts = gateway::Parts {
        backends: Arc::new(EngineBackends(engine.records())),
        idempotency: Arc::new(StoreLog(Arc::clone(store))),
        keys: Arc::new(Keys(Fetcher::new(endpoints).map_err(|error| anyhow::anyhow!("{error}"))?)),
        clock: Arc::new(SystemClock),
    };
    let gateway = Gateway::new(parts, gateway::Options::new(page_token_key(store.as_ref()).await?));
    gateway.metrics().register(registry);
    let certificates = match (&args.gateway_tls_cert, &args.gateway_tls_key) {
        (Some(certificate), Some(key)) => {
            let files = CertificateFiles { certificate: certificate.clone(), key: key.clone() };
            let certificates = Certificates::load(files, gateway.metrics()).context("start the gateway")?;
            tokio::spawn(Arc::clone(&certificates).watch(CERTIFICATE));
            Some(certificates)
        }
        _ => None,
    };
    let url = match &args.gateway_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("{}://{address}", if certificates.is_some() { "https" } else { "http" }),
    };
    if reqwest::Url::parse(&url).is_err() {
        bail!("--gateway-url: {url:?} is no URL; write one as https://api.acme.example");
    }
    let server = gateway.serve(listener, certificates.as_deref(), gateway::ServerLimits::default())?;
    tracing::info!(%address, url, tls = certificates.is_some(), "serving contracts");
    Ok(Some(Serving { gateway, server, url }))
}

/// Starts the issuer of tokens for development.
pub(crate) async fn issuer(address: SocketAddr, audience: &str) -> anyhow::Result<DevelopmentIssuer> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; choose another address with --dev-tokens"))?;
    let issuer = DevelopmentIssuer::start(listener, audience, Arc::new(SystemClock))?;
    tracing::warn!(issuer = issuer.issuer(), keys = issuer.jwks_uri(), "giving tokens to anybody who asks; for development only");
    Ok(issuer)
}

/// The key that seals page tokens: kept, so that a client's walk through the pages outlives a restart.
async fn page_token_key(store: &dyn Store) -> anyhow::Result<[u8; 32]> {
    let known = store.note(NOTES, "page-token-key").await?;
    if let Some(key) = known.and_then(|key| <[u8; 32]>::try_from(serde_json::from_value::<Vec<u8>>(key).ok()?).ok()) {
        return Ok(key);
    }
    let (one, another) = (Uuid::new_v4(), Uuid::new_v4());
    let key: Vec<u8> = [one.into_bytes(), another.into_bytes()].concat();
    store.put_note(NOTES, "page-token-key", &serde_json::json!(key)).await?;
    <[u8; 32]>::try_from(key).map_err(|_| anyhow::anyhow!("no key for page tokens could be made"))
}

/// The engine, or the workers that run units in its place, and the gateway, where there is one: one runtime for the controller.
pub(crate) struct Runtimes {
    engine: Arc<Engine>,
    planner: Option<Arc<Planner>>,
    gateway: Option<Gateway>,
    server: Mutex<Option<Server>>,
    reports: watch::Receiver<Arc<Reports>>,
}

impl Runtimes {
    pub(crate) fn new(engine: Arc<Engine>, planner: Option<Arc<Planner>>, serving: Option<Serving>) -> Self {
        let (gateway, server) = serving.map(|serving| (serving.gateway, serving.server)).unzip();
        let running = planner.as_ref().map_or_else(|| engine.reports(), |planner| planner.reports());
        let reports = match &gateway {
            None => running,
            Some(gateway) => joined(running, gateway.reports()),
        };
        Self { engine, planner, gateway, server: Mutex::new(server), reports }
    }
}

/// What an engine needs that answers from the store while workers run the units: no system is talked to, and nothing cleaned up here.
fn answered(units: &Units) -> Units {
    Units { integrations: units.integrations.clone(), ..Units::default() }
}

/// Both reports as one; the moment is the engine's, which speaks all the time.
fn joined(mut engine: watch::Receiver<Arc<Reports>>, mut gateway: watch::Receiver<gateway::Reports>) -> watch::Receiver<Arc<Reports>> {
    let (send, receive) = watch::channel(Arc::default());
    tokio::spawn(async move {
        loop {
            let mut reports = Reports::clone(&engine.borrow_and_update());
            reports.routes.clone_from(&gateway.borrow_and_update());
            send.send_replace(Arc::new(reports));
            let gone = tokio::select! {
                changed = engine.changed() => changed.is_err(),
                changed = gateway.changed() => changed.is_err(),
                () = send.closed() => true,
            };
            if gone {
                return;
            }
        }
    });
    receive
}

#[async_trait]
impl Runtime for Runtimes {
    async fn apply(&self, units: &Units) {
        let serve = async {
            if let Some(gateway) = &self.gateway {
                gateway.apply(units.routes.clone()).await;
            }
        };
        let run = async {
            match &self.planner {
                None => self.engine.apply(units).await,
                Some(planner) => {
                    planner.publish(units);
                    self.engine.apply(&answered(units)).await;
                }
            }
        };
        tokio::join!(run, serve);
    }

    fn reports(&self) -> watch::Receiver<Arc<Reports>> {
        self.reports.clone()
    }

    async fn stop(&self) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(server) = server {
            let drained = server.drain(DRAIN).await;
            if drained.cut > 0 {
                tracing::warn!(connections = drained.cut, "requests did not finish in time and were cut");
            }
        }
        self.engine.stop().await;
    }
}

/// Issuers' keys by the rules of egress.
struct Keys(Fetcher);

#[async_trait]
impl gateway::KeyFetcher for Keys {
    async fn fetch(&self, jwks_uri: &str) -> Result<bytes::Bytes, String> {
        self.0.get(jwks_uri, MAX_KEY_SET, FETCH).await
    }
}

/// Writes and their answers in the store.
struct StoreLog(Arc<dyn Store>);

fn scope_text(scope: &gateway::Scope) -> String {
    serde_json::to_string(scope).unwrap_or_default()
}

#[async_trait]
impl gateway::IdempotencyLog for StoreLog {
    async fn begin(&self, scope: &gateway::Scope, fingerprint: &Digest, held: Duration) -> Result<Begin, String> {
        let begin =
            BeginWrite { scope: scope_text(scope), fingerprint: fingerprint.to_string(), held, keep: REMEMBER, now: SystemClock.now() };
        match self.0.begin_write(&begin).await.map_err(|error| error.to_string())? {
            WriteBegun::Fresh => Ok(Begin::Fresh),
            WriteBegun::Running => Ok(Begin::Running),
            WriteBegun::Mismatch => Ok(Begin::Mismatch),
            WriteBegun::Done(answer) => serde_json::from_str(&answer).map(Begin::Done).map_err(|error| error.to_string()),
        }
    }

    async fn finish(&self, scope: &gateway::Scope, answer: &gateway::Answer) {
        let text = serde_json::to_string(answer).unwrap_or_default();
        if let Err(error) = self.0.finish_write(&scope_text(scope), &text).await {
            tracing::error!(%error, "the answer to a write could not be kept; the same write again finds the record made");
        }
    }

    async fn release(&self, scope: &gateway::Scope) {
        if let Err(error) = self.0.abandon_write(&scope_text(scope)).await {
            tracing::warn!(%error, "a write without a final answer could not be let go; it may be repeated later");
        }
    }
}

/// The engine's records as what the gateway serves.
struct EngineBackends(Records);

impl gateway::Backends for EngineBackends {
    fn bind(&self, unit: &RouteUnit) -> Result<Arc<dyn Backend>, String> {
        let mut bound = Bound { records: self.0.clone(), list: None, get: None, create: Vec::new(), update: Vec::new() };
        for (kind, operation) in &unit.operations {
            match (kind, &operation.backend) {
                (OperationKind::Create, Source::Participants { targets }) => bound.create = compile(targets, unit)?,
                (OperationKind::Update, Source::Participants { targets }) => bound.update = compile(targets, unit)?,
                (OperationKind::List, Source::Store { realm }) => bound.list = Some(realm.clone()),
                (OperationKind::Get, Source::Store { realm }) => bound.get = Some(realm.clone()),
                (kind, _) => return Err(format!("the operation {} goes where it cannot", kind.as_str())),
            }
        }
        Ok(Arc::new(bound))
    }
}

/// A participant and the condition under which it takes a document.
struct Target {
    when: Option<Predicate>,
    to: ParticipantTarget,
}

fn compile(targets: &[ParticipantTarget], unit: &RouteUnit) -> Result<Vec<Target>, String> {
    let compile = |to: &ParticipantTarget| {
        let when = to.when.as_deref().map(|when| Predicate::compile(when, &unit.fields)).transpose();
        let when = when.map_err(|wrong| wrong.first().map(|(message, _)| message.clone()).unwrap_or_default())?;
        Ok(Target { when, to: to.clone() })
    };
    targets.iter().map(compile).collect()
}

/// The first target that takes the document.
fn choose<'a>(targets: &'a [Target], document: &Document) -> Result<&'a ParticipantTarget, BackendError> {
    for target in targets {
        let takes = match &target.when {
            None => true,
            Some(when) => when.holds(document).map_err(|why| BackendError::Rejected {
                detail: format!("it cannot be told where the record goes: {why}"),
                violations: Vec::new(),
            })?,
        };
        if takes {
            return Ok(&target.to);
        }
    }
    Err(BackendError::NoTarget)
}

/// One contract's operations.
struct Bound {
    records: Records,
    /// Whose records are listed.
    list: Option<ObjectKey>,
    /// Whose records are given one by one.
    get: Option<ObjectKey>,
    create: Vec<Target>,
    update: Vec<Target>,
}

#[async_trait]
impl Backend for Bound {
    async fn list(&self, _: &Call, query: ListQuery) -> Result<Page, BackendError> {
        let Some(realm) = &self.list else { return Err(BackendError::NotFound) };
        let after = match query.after.as_deref() {
            None => None,
            Some(after) => Some(RecordId::parse(after).ok_or_else(|| BackendError::Internal("a page token of another kind".into()))?),
        };
        let filters: Vec<_> = query.filters.into_iter().map(|filter| (filter.field, filter.value)).collect();
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let page = self.records.list(realm, &filters, after, limit).await.map_err(told)?;
        let next = page.records.last().filter(|_| page.more).map(|last| last.id.to_string());
        Ok(Page { records: page.records.into_iter().map(record).collect(), next })
    }

    async fn get(&self, call: &Call, id: RecordId) -> Result<gateway::Record, BackendError> {
        if call.operation != OperationKind::Update {
            let Some(realm) = &self.get else { return Err(BackendError::NotFound) };
            return self.records.get(realm, id).await.map(record).map_err(told);
        }
        // What is to be updated lies with one of those who would take the update.
        for target in &self.update {
            match self.records.get(&target.to.integration, id).await {
                Err(ServeError::NotFound) => {}
                found => return found.map(record).map_err(told),
            }
        }
        Err(BackendError::NotFound)
    }

    async fn create(&self, call: &Call, document: Document) -> Result<gateway::Record, BackendError> {
        let target = choose(&self.create, &document)?;
        let id = match &call.idempotency_key {
            Some(key) => created(&call.contract, &call.consumer, key, &document),
            None => Uuid::now_v7(),
        };
        let made = self.records.create(&target.integration, &target.participant, RecordId(id), document, call.deadline).await;
        made.map(record).map_err(told)
    }

    async fn update(&self, call: &Call, update: Update) -> Result<gateway::Record, BackendError> {
        let target = choose(&self.update, &update.document)?;
        let (integration, participant) = (&target.integration, &target.participant);
        let made = self.records.update(integration, participant, update.id, update.base, update.document, call.deadline).await;
        made.map(record).map_err(told)
    }
}

/// The id of a created record. The same request is the same record, however often it is sent, wherever a process died meanwhile, and whether or
/// not its key is still remembered. What is to be created belongs to the request: under a key that was used before, other data is another record.
fn created(contract: &ObjectKey, consumer: &str, key: &str, document: &Document) -> Uuid {
    let request = serde_json::json!([contract.0, consumer, key, Digest::of_serialized(document).0]);
    Uuid::new_v5(&CREATED, request.to_string().as_bytes())
}

fn record(record: fairlead_store::Record) -> gateway::Record {
    gateway::Record { id: record.id, version: record.version, document: record.document }
}

fn told(error: ServeError) -> BackendError {
    match error {
        ServeError::NotFound => BackendError::NotFound,
        ServeError::Gone => BackendError::Gone,
        ServeError::Changed => BackendError::Changed,
        ServeError::Conflict(detail) => BackendError::Conflict { detail, violations: Vec::new(), retry_after: None },
        ServeError::NotYet { detail, fields, retry_after } => {
            BackendError::Conflict { detail, violations: violations(fields), retry_after: Some(retry_after) }
        }
        ServeError::Refused { detail, fields } => BackendError::Rejected { detail, violations: violations(fields) },
        ServeError::Throttled(retry_after) => BackendError::Throttled { retry_after },
        ServeError::Unavailable { detail, retry_after } => BackendError::Unavailable { detail, retry_after },
        ServeError::Late => BackendError::Timeout { sent: false },
        ServeError::Unknown => BackendError::Timeout { sent: true },
        ServeError::Defect(why) => BackendError::Internal(why),
    }
}

fn violations(fields: Vec<Refused>) -> Vec<Violation> {
    let violation =
        |refused: Refused| Violation { path: refused.field.to_string(), pointer: refused.field.to_pointer(), message: refused.message };
    fields.into_iter().map(violation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_key_makes_one_record_of_one_request_and_another_of_other_data() {
        let id =
            |consumer: &str, key: &str, data: Value| created(&ObjectKey("sales/customer".into()), consumer, key, data.as_object().unwrap());
        let first = id("shop", "k", json!({"name": "A", "taxId": "1"}));
        assert_eq!(first, id("shop", "k", json!({"taxId": "1", "name": "A"})), "the order of fields is no difference");
        for other in [
            id("shop", "k", json!({"name": "B", "taxId": "1"})),
            id("shop", "l", json!({"name": "A", "taxId": "1"})),
            id("office", "k", json!({"name": "A", "taxId": "1"})),
        ] {
            assert_ne!(first, other);
        }
    }
}
