//! The server around a vendor: sockets, TLS, faults carried out, and the pages for tests.
//!
//! | page | does |
//! |---|---|
//! | `GET /__fairlead/log[?since=N]` | array of [`super::log::Entry`] with a sequence above N |
//! | `GET /__fairlead/records/{entity}` | array of everything present, all fields |
//! | `GET /__fairlead/requests` | `{"total", "byKind": {kind: {status: count}}, "faultsFired": [..]}` |
//! | `POST /__fairlead/faults` | replaces the fault script (YAML or JSON); 204, or 400 with what is wrong |
//! | `POST /__fairlead/edit` | `{"entity","id","values"[,"secondsAgo"]}`: a person edits a record; answers the record |
//! | `POST /__fairlead/create` | `{"entity","values"}` |
//! | `POST /__fairlead/delete` | `{"entity","id"}` |
//! | `POST /__fairlead/undelete` | `{"entity","id"}`: out of the recycle bin, where the vendor has one |
//! | `POST /__fairlead/merge` | `{"entity","id","into"}`: merged into another record, where the vendor tells its API of that |
//! | `POST /__fairlead/expire-tokens` | makes all tokens invalid; 204 |
//!
//! These pages are never subject to faults and need no credentials: a simulator holds made-up data only. HTTP/1.1 alone is
//! spoken, so that cutting an answer means cutting a connection.
//!
//! Caveat of `answered`: it is true as soon as the answer went to the socket. A caller that was killed at that very moment
//! may not have read it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use http::header::CONTENT_LENGTH;
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use indexmap::IndexMap;
use percent_encoding::percent_decode_str;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::faults::{FaultScript, Faults, Verdict};
use super::log::{Log, Origin};
use super::universe::Universe;
use super::value::{Fields, Value};
use super::vendor::{Act, Class, Desk, Exchange, Operation, Refusal, Reply, Request, Vendor};
use crate::{Options, Setting, System};

/// The largest body that is taken, in bytes (NetSuite's documented cap is the larger of the two).
const MAX_BODY: usize = 104 * 1024 * 1024;

/// How many pieces a dripped body comes in.
const DRIPS: usize = 40;

/// Why a simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address could not be taken.
    #[error("cannot listen on {address}: {source}; give another address, or port 0 for a free one")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(String),
    /// The vendor's tables or keys could not be made.
    #[error("cannot prepare the {system} simulator: {message}")]
    Vendor {
        /// The system.
        system: &'static str,
        /// What went wrong.
        message: String,
    },
}

/// A running simulator. Dropping it stops it; [`Simulator::stop`] also waits until its port is free.
#[derive(Debug)]
pub struct Simulator {
    system: System,
    address: SocketAddr,
    endpoint: String,
    credentials: IndexMap<String, String>,
    authority: Option<String>,
    task: JoinHandle<()>,
    _running: DropGuard,
}

impl Simulator {
    /// Builds the tables, takes the address and serves.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let listener = TcpListener::bind(options.listen).await.map_err(|source| StartError::Listen { address: options.listen, source })?;
        let address = listener.local_addr().map_err(|source| StartError::Listen { address: options.listen, source })?;
        let host = if address.ip().is_unspecified() { "localhost".to_owned() } else { address.ip().to_string() };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let endpoint = format!("{}://{host}:{}", if options.tls { "https" } else { "http" }, address.port());
        let (acceptor, authority) = match options.tls {
            true => {
                let (acceptor, pem) = tls(&address).map_err(StartError::Certificate)?;
                (Some(acceptor), Some(pem))
            }
            false => (None, None),
        };
        let setting = Setting {
            endpoint: endpoint.clone(),
            seed: options.seed,
            universe: Universe::new(options.seed),
            companies: options.first..options.first.saturating_add(options.records),
        };
        let system = options.system;
        let vendor = tokio::task::spawn_blocking(move || crate::vendor(system, &setting))
            .await
            .map_err(|error| error.to_string())
            .and_then(|made| made.map_err(|error| format!("{error:#}")))
            .map_err(|message| StartError::Vendor { system: system.name(), message })?;
        let credentials = vendor.credentials();
        let shared = Arc::new(Shared {
            endpoint: endpoint.clone(),
            vendor,
            log: Log::default(),
            faults: Faults::new(options.faults.unwrap_or_default(), options.seed),
            requests: AtomicU64::new(0),
            running: AtomicUsize::new(0),
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, acceptor, shared, stop.clone()));
        Ok(Self { system, address, endpoint, credentials, authority, task, _running: stop.drop_guard() })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Scheme and authority under which clients reach it, without a slash at the end.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What goes into the Kubernetes Secret.
    #[must_use]
    pub fn credentials(&self) -> &IndexMap<String, String> {
        &self.credentials
    }

    /// The certificate of the authority to trust, in PEM, where it speaks TLS.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// The line that tells a script how to reach it: `{"system", "endpoint", "credentials": {..}}`, with `ca` under TLS.
    #[must_use]
    pub fn announcement(&self) -> serde_json::Value {
        let mut line = serde_json::json!({
            "system": self.system.name(),
            "endpoint": self.endpoint,
            "credentials": self.credentials,
        });
        if let (Some(fields), Some(authority)) = (line.as_object_mut(), &self.authority) {
            fields.insert("ca".to_owned(), authority.clone().into());
        }
        line
    }

    /// Stops serving, cuts open connections, and returns when the port is free.
    pub async fn stop(self) {
        let Self { task, _running, .. } = self;
        drop(_running);
        if let Err(error) = task.await {
            tracing::warn!(%error, "simulator ended badly");
        }
    }
}

struct Shared {
    endpoint: String,
    vendor: Arc<dyn Vendor>,
    log: Log,
    faults: Faults,
    requests: AtomicU64,
    running: AtomicUsize,
}

/// A request that is being answered, until the last byte of the answer; counts towards the vendor's concurrency.
struct Running(Arc<Shared>);

impl Running {
    /// Counts one more, and tells how many there are now.
    fn enter(shared: &Arc<Shared>) -> (Self, usize) {
        let before = shared.running.fetch_add(1, Ordering::SeqCst);
        (Self(Arc::clone(shared)), before + 1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The connection is to be cut without an answer.
#[derive(Debug, thiserror::Error)]
#[error("cut by a fault script")]
struct Cut;

async fn serve(listener: TcpListener, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, acceptor.clone(), Arc::clone(&shared)));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    // Without this, small answers wait for the peer's delayed acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    match acceptor {
        None => speak(stream, shared).await,
        Some(acceptor) => match acceptor.accept(stream).await {
            Ok(stream) => speak(stream, shared).await,
            Err(error) => tracing::debug!(%error, "TLS handshake failed"),
        },
    }
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, shared: Arc<Shared>) {
    let service = service_fn(move |request| respond(Arc::clone(&shared), request));
    if let Err(error) = auto::Builder::new(TokioExecutor::new()).http1_only().serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(error, "connection ended");
    }
}

async fn respond(shared: Arc<Shared>, incoming: http::Request<Incoming>) -> Result<Response<Body>, Cut> {
    let (parts, body) = incoming.into_parts();
    let Ok(body) = axum::body::to_bytes(Body::new(body), MAX_BODY).await else {
        return Ok(finish(Reply::empty(413), false));
    };
    let raw = parts.uri.query().unwrap_or_default();
    let request = Request {
        method: parts.method,
        endpoint: shared.endpoint.clone(),
        path: parts.uri.path().to_owned(),
        segments: parts
            .uri
            .path()
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect(),
        query: url::form_urlencoded::parse(raw.as_bytes()).into_owned().collect(),
        headers: parts.headers,
        body,
    };
    let head = request.method == Method::HEAD;
    if request.segments.first().is_some_and(|first| first == "__fairlead") {
        return Ok(finish(page(&shared, &request), head));
    }
    let number = shared.requests.fetch_add(1, Ordering::SeqCst) + 1;
    let class = shared.vendor.classify(&request);
    let (running, crowd) = Running::enter(&shared);
    if shared.vendor.concurrency().is_some_and(|most| crowd > most) {
        let plain = Desk { log: &shared.log, origin: Origin::Api, answered: true, request: number, late: Duration::ZERO };
        refused(&class, plain, "REFUSED_BY_CONCURRENCY");
        let reply = shared.vendor.refuse(&request, Refusal::Limit { retry_after: None });
        shared.log.count(class.kind, &reply.status.to_string());
        return Ok(finish(reply, head));
    }
    let verdict = shared.faults.verdict(&request, &class, Instant::now());
    let plain = Desk { log: &shared.log, origin: Origin::Api, answered: true, request: number, late: Duration::ZERO };
    let exchange = Exchange { request: &request, desk: plain, stale: None, partial: None };
    let reply = match verdict {
        Verdict::Pass => shared.vendor.answer(&exchange),
        Verdict::Refuse(refusal) => {
            refused(&class, plain, "REFUSED_BY_FAULT");
            shared.vendor.refuse(&request, refusal)
        }
        Verdict::CutBefore(delay) => {
            shared.log.count(class.kind, "cut");
            refused(&class, Desk { answered: false, ..plain }, "CUT_BY_FAULT");
            tokio::time::sleep(delay).await;
            return Err(Cut);
        }
        Verdict::CutAfter(delay) => {
            shared.log.count(class.kind, "cut");
            shared.vendor.answer(&Exchange { desk: Desk { answered: false, ..plain }, ..exchange });
            tokio::time::sleep(delay).await;
            return Err(Cut);
        }
        Verdict::Partial(partial) => shared.vendor.answer(&Exchange { partial: Some(&partial), ..exchange }),
        Verdict::ExpireTokens => {
            shared.vendor.expire_tokens();
            shared.vendor.answer(&exchange)
        }
        Verdict::Stale(age) => shared.vendor.answer(&Exchange { stale: Some(age), ..exchange }),
        Verdict::Drip(duration) => {
            let reply = shared.vendor.answer(&exchange);
            shared.log.count(class.kind, &reply.status.to_string());
            return Ok(drip(running, number, reply, duration));
        }
    };
    shared.log.count(class.kind, &reply.status.to_string());
    Ok(finish(reply, head))
}

/// A write that a fault kept from the vendor was still tried.
fn refused(class: &Class, desk: Desk<'_>, code: &str) {
    if class.operation == Operation::Write {
        desk.record(super::log::Attempt {
            entity: class.entity.as_deref().unwrap_or_default(),
            key: "",
            external_id: None,
            operation: class.kind,
            values: Value::Null,
            outcome: super::log::Outcome::Rejected,
            code: Some(code),
        });
    }
}

fn finish(reply: Reply, head: bool) -> Response<Body> {
    let length = reply.body.len();
    let body = if head { Bytes::new() } else { reply.body };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    if head {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response
}

/// Sends a body in small pieces over a while. A caller that does not wait for the end has not got the answer.
fn drip(running: Running, number: u64, mut reply: Reply, duration: Duration) -> Response<Body> {
    let body = std::mem::take(&mut reply.body);
    let pause = duration / u32::try_from(DRIPS).unwrap_or(1);
    let size = body.len().div_ceil(DRIPS).max(1);
    let unfinished = Unfinished { running, number, done: body.is_empty() };
    let pieces = futures::stream::unfold((body, unfinished), move |(mut body, mut unfinished)| async move {
        if body.is_empty() {
            return None;
        }
        tokio::time::sleep(pause).await;
        let piece = body.split_to(size.min(body.len()));
        unfinished.done = body.is_empty();
        Some((Ok::<_, Infallible>(piece), (body, unfinished)))
    });
    let mut response = finish(reply, false);
    response.headers_mut().remove(CONTENT_LENGTH);
    *response.body_mut() = Body::from_stream(pieces.boxed());
    response
}

struct Unfinished {
    running: Running,
    number: u64,
    done: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.done {
            self.running.0.log.unanswered(self.number);
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Counters {
    total: u64,
    by_kind: BTreeMap<String, BTreeMap<String, u64>>,
    faults_fired: Vec<u64>,
}

fn page(shared: &Shared, request: &Request) -> Reply {
    let answer = match (&request.method, request.parts().as_slice()) {
        (&Method::GET, ["__fairlead", "log"]) => {
            let since = request.parameter("since").unwrap_or("0").parse::<u64>();
            since.map_err(|_| (400, "since is not a sequence number".to_owned())).and_then(|since| plain_json(&shared.log.since(since)))
        }
        (&Method::GET, ["__fairlead", "records", entity]) => match shared.vendor.records(entity) {
            Some(records) => plain_json(&records),
            None => Err((404, format!("there is no entity {entity:?}"))),
        },
        (&Method::GET, ["__fairlead", "requests"]) => plain_json(&Counters {
            total: shared.requests.load(Ordering::SeqCst),
            by_kind: shared.log.requests(),
            faults_fired: shared.faults.fired(),
        }),
        (&Method::POST, ["__fairlead", "faults"]) => std::str::from_utf8(&request.body)
            .map_err(|_| (400, "the script is not UTF-8".to_owned()))
            .and_then(|text| FaultScript::parse(text).map_err(|error| (400, error.to_string())))
            .map(|script| {
                shared.faults.replace(script);
                Reply::empty(204)
            }),
        (&Method::POST, ["__fairlead", "expire-tokens"]) => {
            shared.vendor.expire_tokens();
            Ok(Reply::empty(204))
        }
        (&Method::POST, ["__fairlead", act @ ("edit" | "create" | "delete" | "undelete" | "merge")]) => person(shared, request, act),
        _ => Err((404, "there is no such page".to_owned())),
    };
    answer.unwrap_or_else(|(status, message)| Reply::json(status, JSON, &Value::object([("error", Value::text(message))])))
}

const JSON: &str = "application/json";

fn plain_json<T: Serialize>(body: &T) -> Result<Reply, (u16, String)> {
    let body = serde_json::to_vec(body).map_err(|error| (500, error.to_string()))?;
    Ok(Reply { status: 200, headers: vec![("content-type", JSON.to_owned())], body: Bytes::from(body) })
}

fn person(shared: &Shared, request: &Request, act: &str) -> Result<Reply, (u16, String)> {
    let body = Value::parse(&request.body).map_err(|error| (400, error.to_string()))?;
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| (400, format!("{name} is missing")));
    let values = || -> Result<Fields, (u16, String)> {
        let values = body.get("values").and_then(Value::as_object);
        Ok(values.ok_or_else(|| (400, "values is missing".to_owned()))?.clone())
    };
    let entity = text("entity")?;
    let act = match act {
        "edit" => Act::Edit { id: text("id")?, values: values()? },
        "create" => Act::Create { values: values()? },
        "undelete" => Act::Undelete { id: text("id")? },
        "merge" => Act::Merge { id: text("id")?, into: text("into")? },
        _ => Act::Delete { id: text("id")? },
    };
    let number = shared.requests.load(Ordering::SeqCst);
    let late = match body.get("secondsAgo") {
        None => 0,
        Some(Value::Number(seconds)) => seconds.parse().map_err(|_| (400, "secondsAgo is not a whole number".to_owned()))?,
        Some(_) => return Err((400, "secondsAgo is not a number".to_owned())),
    };
    let late = Duration::from_secs(late);
    let desk = Desk { log: &shared.log, origin: Origin::Person, answered: true, request: number, late };
    let record = shared.vendor.person(&entity, &act, &desk).map_err(|message| (400, message))?;
    plain_json(&record)
}

/// A certificate for this address and for localhost, by an authority made for it alone.
fn tls(address: &SocketAddr) -> Result<(TlsAcceptor, String), String> {
    let told = |error: rcgen::Error| error.to_string();
    let authority_key = rcgen::KeyPair::generate().map_err(told)?;
    let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).map_err(told)?;
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    authority.distinguished_name.push(rcgen::DnType::CommonName, "Fairlead simulator authority");
    let root = authority.self_signed(&authority_key).map_err(told)?;
    let issuer = rcgen::Issuer::new(authority, authority_key);

    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let own = address.ip().to_string();
    if !address.ip().is_unspecified() && !names.contains(&own) {
        names.push(own);
    }
    let key = rcgen::KeyPair::generate().map_err(told)?;
    let mut leaf = rcgen::CertificateParams::new(names).map_err(told)?;
    leaf.distinguished_name.push(rcgen::DnType::CommonName, "Fairlead simulator");
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let leaf = leaf.signed_by(&key, &issuer).map_err(told)?;

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone()];
    let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|error| error.to_string())?;
    Ok((TlsAcceptor::from(Arc::new(config)), root.pem()))
}
