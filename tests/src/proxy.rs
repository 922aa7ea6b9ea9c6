//! A proxy before the API server, in TLS on loopback, that a test tells what to do wrong.
//!
//! Flow: an operator's kubeconfig names the proxy ([`Proxy::kubeconfig`]); each request is classified into a [`Call`], the first
//! [`Rule`] that takes it decides the [`Fault`], everything else passes to the API server under the operator's own certificate.
//!
//! What holds here:
//! - A fault point has a name and counts how often it was reached; [`Proxy::all_reached`] fails a test whose fault never happened.
//! - Chances are drawn per rule from the seed, in the order in which calls arrive: the same calls meet the same faults.
//! - Every call is told ([`Proxy::calls`]) with its answer, so that a test can count them and see what was given up by the caller.
//! - HTTP/1.1 alone is spoken, so that cutting an answer means cutting a connection.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::control_plane::ControlPlane;
use crate::pki::Pki;
use crate::wait::{Seen, wait_until};

/// The largest request body and the largest list that are taken, in bytes.
const MAX_BODY: usize = 64 * 1024 * 1024;
/// How long an event is held back at most for another one to overtake it.
const OVERTAKEN_WITHIN: Duration = Duration::from_secs(2);

/// What is done to the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// One object.
    Get,
    /// All objects.
    List,
    /// What changes from a version on.
    Watch,
    /// A new object.
    Create,
    /// An object as a whole.
    Update,
    /// Parts of an object.
    Patch,
    /// Its deletion.
    Delete,
}

impl Verb {
    /// Those that change something.
    pub const WRITES: &[Self] = &[Self::Create, Self::Update, Self::Patch, Self::Delete];
    /// Those that change nothing.
    pub const READS: &[Self] = &[Self::Get, Self::List, Self::Watch];
}

/// A request as the API server understands it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// The verb.
    pub verb: Verb,
    /// The resource's plural; empty outside the resource paths.
    pub resource: String,
    /// `status` or empty.
    pub subresource: String,
    /// The object; empty for lists, watches and creations.
    pub name: String,
}

impl fmt::Display for Call {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} {} {} {}", self.verb, self.resource, self.name, self.subresource)
    }
}

impl Call {
    /// Whether it changes something other than the lease, which is renewed whatever happens.
    pub fn is_work(&self) -> bool {
        Verb::WRITES.contains(&self.verb) && self.resource != "leases"
    }

    fn of(method: &Method, path: &str, query: &str) -> Self {
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        // /api/v1/... or /apis/GROUP/VERSION/...
        let versioned = match segments.next() {
            Some("api") => segments.next().is_some(),
            Some("apis") => segments.next().and(segments.next()).is_some(),
            _ => false,
        };
        let mut rest: VecDeque<&str> = if versioned { segments.collect() } else { VecDeque::new() };
        if rest.len() > 2 && rest.front() == Some(&"namespaces") {
            rest.drain(..2);
        }
        let mut next = || rest.pop_front().unwrap_or_default().to_owned();
        let (resource, name, subresource) = (next(), next(), next());
        let watches = query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"));
        let verb = match *method {
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE => Verb::Delete,
            _ if watches => Verb::Watch,
            _ if name.is_empty() => Verb::List,
            _ => Verb::Get,
        };
        Self { verb, resource, subresource, name }
    }
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing: the call passes, and is counted at this point.
    Pass,
    /// It passes on after a while.
    Delay(Duration),
    /// It passes on when the test says so ([`Proxy::let_pass`]), as a request that was long under way.
    Late,
    /// The connection ends without an answer and nothing was passed on.
    Drop,
    /// It takes effect, and the connection ends without an answer.
    Lost,
    /// It takes effect, and the connection ends in the middle of the answer; a watch ends in the middle of its first event.
    Cut,
    /// It is sent twice; the second answer counts.
    Twice,
    /// It is refused with this HTTP status, and has no effect. 429 tells to come back after so many seconds.
    Refuse(u16, u32),
    /// It takes effect, and its answer says that it was refused with this HTTP status.
    RefuseAfter(u16),
    /// It never arrives: the caller waits until it gives up.
    Silent,
    /// It takes effect, and the caller waits for the answer until it gives up; of a watch the head arrives.
    Held,
    /// A list shows what the list at this point showed when it was recorded ([`Proxy::record`]).
    Stale,
    /// A watch ends with an event that says that its version is too old.
    Expired,
    /// Of a watch's events so many in a hundred never arrive.
    Missed(u32),
    /// Of a watch's events so many in a hundred arrive twice.
    Doubled(u32),
    /// Of a watch's events so many in a hundred arrive after the next one.
    Swapped(u32),
}

/// Which calls meet which fault.
#[derive(Clone, Debug)]
pub struct Rule {
    point: &'static str,
    fault: Fault,
    verbs: Vec<Verb>,
    resource: Option<String>,
    work: bool,
    skip: usize,
    times: usize,
    percent: u32,
}

impl Rule {
    /// Every call meets `fault`, at a point of this name. Narrowed by the methods below.
    pub fn new(point: &'static str, fault: Fault) -> Self {
        Self { point, fault, verbs: Vec::new(), resource: None, work: false, skip: 0, times: usize::MAX, percent: 100 }
    }

    /// Only these verbs.
    #[must_use]
    pub fn on(mut self, verbs: &[Verb]) -> Self {
        self.verbs = verbs.to_vec();
        self
    }

    /// Only this resource.
    #[must_use]
    pub fn resource(mut self, plural: &str) -> Self {
        self.resource = Some(plural.to_owned());
        self
    }

    /// Only calls that change something other than the lease.
    #[must_use]
    pub fn work(mut self) -> Self {
        self.work = true;
        self
    }

    /// The first so many calls are spared.
    #[must_use]
    pub fn after(mut self, calls: usize) -> Self {
        self.skip = calls;
        self
    }

    /// So many calls meet it at most.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// So many in a hundred calls meet it.
    #[must_use]
    pub fn percent(mut self, percent: u32) -> Self {
        self.percent = percent;
        self
    }

    fn takes(&self, call: &Call) -> bool {
        (self.verbs.is_empty() || self.verbs.contains(&call.verb))
            && self.resource.as_ref().is_none_or(|resource| *resource == call.resource)
            && (!self.work || call.is_work())
    }
}

/// A rule at work.
struct Armed {
    rule: Rule,
    seen: usize,
    met: usize,
    random: StdRng,
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The API server's, or one made up: the HTTP status.
    Code(u16),
    /// None, by a fault.
    None,
    /// The caller gave up after so long.
    GivenUp(Duration),
    /// The API server did not answer.
    Unreachable,
}

/// A call and its answer.
#[derive(Clone, Debug)]
pub struct Told {
    /// The call.
    pub call: Call,
    /// What became of it.
    pub answer: Answer,
    /// The fault point that it met.
    pub point: Option<&'static str>,
    /// When it arrived.
    pub at: Instant,
}

#[derive(Default)]
struct State {
    rules: Vec<Armed>,
    reached: BTreeMap<&'static str, usize>,
    events: Vec<(&'static str, String)>,
    calls: Vec<Told>,
    recorded: BTreeMap<String, Bytes>,
    recording: bool,
    connections: Vec<AbortHandle>,
}

struct Shared {
    server: String,
    upstream: reqwest::Client,
    seed: u64,
    state: Mutex<State>,
    tls: Mutex<TlsAcceptor>,
    gate: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn met(&self, point: &'static str, event: String) {
        let mut state = self.state();
        *state.reached.entry(point).or_default() += 1;
        state.events.push((point, event));
    }

    /// The fault that this call meets. Faults on a watch's events are counted by the events that meet them.
    fn verdict(&self, call: &Call) -> Option<(&'static str, Fault, u64)> {
        let mut state = self.state();
        for armed in &mut state.rules {
            if !armed.rule.takes(call) {
                continue;
            }
            armed.seen += 1;
            if armed.seen <= armed.rule.skip || armed.met >= armed.rule.times {
                continue;
            }
            if armed.rule.percent < 100 && armed.random.random_range(0..100) >= armed.rule.percent {
                continue;
            }
            armed.met += 1;
            let met = (armed.rule.point, armed.rule.fault.clone(), armed.random.random());
            if !matches!(met.1, Fault::Missed(_) | Fault::Doubled(_) | Fault::Swapped(_)) {
                *state.reached.entry(met.0).or_default() += 1;
            }
            return Some(met);
        }
        None
    }
}

/// A running proxy. Dropping it ends it and cuts its connections.
pub struct Proxy {
    plane: ControlPlane,
    user: String,
    address: String,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

impl Proxy {
    /// Starts one that speaks to `plane` as `user`, whoever speaks to it.
    ///
    /// # Errors
    /// When certificates cannot be made or the address cannot be taken.
    pub async fn start(plane: &ControlPlane, user: &str, seed: u64) -> anyhow::Result<Self> {
        let pki = Pki::at(plane.folder());
        plane.kubeconfig_for(user, &[])?;
        let read = |path: PathBuf| fs::read(&path).with_context(|| format!("read {}", path.display()));
        let mut identity = read(pki.key(user))?;
        identity.extend(read(pki.certificate(user))?);
        let upstream = reqwest::Client::builder()
            .no_proxy()
            .http1_only()
            .tls_certs_only([reqwest::Certificate::from_pem(&read(pki.authority_certificate())?).context("take the authority")?])
            .identity(reqwest::Identity::from_pem(&identity).context("take the user's certificate")?)
            .build()
            .context("make a client")?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("take a port")?;
        let address = format!("https://{}", listener.local_addr().context("read the port")?);
        let tls = Mutex::new(acceptor(&pki)?);
        let shared =
            Arc::new(Shared { server: plane.server().to_owned(), upstream, seed, state: Mutex::default(), tls, gate: Notify::new() });
        let mut task = JoinSet::new();
        task.spawn(serve(listener, Arc::clone(&shared)));
        Ok(Self { plane: plane.clone(), user: user.to_owned(), address, shared, _task: task })
    }

    /// A kubeconfig whose API server is this proxy.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig(&self) -> anyhow::Result<PathBuf> {
        let port = self.address.rsplit(':').next().unwrap_or_default();
        let path = self.plane.folder().join("users").join(format!("{}-by-proxy-{port}.kubeconfig", self.user));
        Pki::at(self.plane.folder()).kubeconfig(&self.address, &self.user, &[], &path)?;
        Ok(path)
    }

    /// What goes wrong from now on; what did so far stays counted.
    pub fn set(&self, rules: Vec<Rule>) {
        let armed = |(index, rule): (usize, Rule)| {
            let seed = self.shared.seed.wrapping_add(u64::try_from(index).unwrap_or_default());
            Armed { rule, seen: 0, met: 0, random: StdRng::seed_from_u64(seed) }
        };
        self.shared.state().rules = rules.into_iter().enumerate().map(armed).collect();
    }

    /// Nothing goes wrong from now on.
    pub fn clear(&self) {
        self.set(Vec::new());
    }

    /// Lets through what is [`Fault::Late`] now.
    pub fn let_pass(&self) {
        self.shared.gate.notify_waiters();
    }

    /// Ends every connection at once, watches too.
    pub fn cut_connections(&self) {
        for connection in self.shared.state().connections.drain(..) {
            connection.abort();
        }
    }

    /// Takes down what the next list of each resource shows, for [`Fault::Stale`].
    pub fn record(&self) {
        let mut state = self.shared.state();
        state.recording = true;
        state.recorded.clear();
    }

    /// Takes nothing down any more; what was taken down stays. Gives the resources.
    pub fn stop_recording(&self) -> Vec<String> {
        let mut state = self.shared.state();
        state.recording = false;
        state.recorded.keys().cloned().collect()
    }

    /// Serves a new certificate from now on: of the authority that clients trust, or of a stranger.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn rotate_certificate(&self, trusted: bool) -> anyhow::Result<()> {
        let pki = if trusted {
            Pki::at(self.plane.folder())
        } else {
            let pki = Pki::at(&self.plane.folder().join("stranger"));
            pki.create(&[])?;
            pki
        };
        *self.shared.tls.lock().unwrap_or_else(PoisonError::into_inner) = acceptor(&pki)?;
        self.cut_connections();
        Ok(())
    }

    /// How often a fault point was reached.
    pub fn reached(&self, point: &str) -> usize {
        self.shared.state().reached.get(point).copied().unwrap_or_default()
    }

    /// Waits until a fault point was reached so often.
    ///
    /// # Errors
    /// When it is not in time; says what was asked instead.
    pub async fn until_reached(&self, point: &str, times: usize, deadline: Duration) -> anyhow::Result<()> {
        wait_until(&format!("{point} to be reached {times} times"), deadline, async || {
            let reached = self.reached(point);
            let last = self.shared.state().calls.last().map(|told| told.call.to_string());
            Ok(Seen::when(reached >= times, format!("{reached} times; the last call was {last:?}")))
        })
        .await
    }

    /// Waits until an event of a watch met the fault at this point, told as `MODIFIED name generation`.
    ///
    /// # Errors
    /// When it does not in time; says which events did.
    pub async fn until_met(&self, point: &str, event: &str, deadline: Duration) -> anyhow::Result<()> {
        wait_until(&format!("{event} to be {point}"), deadline, async || {
            let state = self.shared.state();
            let met: Vec<_> = state.events.iter().filter(|(at, _)| *at == point).map(|(_, event)| event.clone()).collect();
            Ok(Seen::when(met.iter().any(|each| each == event), format!("{met:?}")))
        })
        .await
    }

    /// Holds that each of these fault points was reached: a fault that never happened has shown nothing.
    ///
    /// # Errors
    /// When one was not.
    pub fn all_reached(&self, points: &[&str]) -> anyhow::Result<()> {
        let missed: Vec<_> = points.iter().filter(|point| self.reached(point) == 0).collect();
        ensure!(missed.is_empty(), "these faults never happened: {missed:?}; reached were {:?}", self.shared.state().reached);
        Ok(())
    }

    /// Every call that has an answer, and every watch that began.
    pub fn calls(&self) -> Vec<Told> {
        self.shared.state().calls.clone()
    }
}

/// With a certificate of its own: tests in other processes have proxies beside the same control plane.
fn acceptor(pki: &Pki) -> anyhow::Result<TlsAcceptor> {
    let name = &format!("proxy-{}", uuid::Uuid::new_v4().simple());
    pki.server(name)?;
    let chain = CertificateDer::pem_file_iter(pki.certificate(name)).context("read the proxy's certificate")?;
    let chain = chain.collect::<Result<Vec<_>, _>>().context("parse the proxy's certificate")?;
    let key = PrivateKeyDer::from_pem_file(pki.key(name)).context("read the proxy's key")?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("take the proxy's certificate")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let handle = connections.spawn(connection(stream, Arc::clone(&shared)));
                let mut state = shared.state();
                state.connections.retain(|each| !each.is_finished());
                state.connections.push(handle);
            }
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    // Without this, small answers wait for the peer's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let tls = shared.tls.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // A caller that does not trust us says so itself.
    let Ok(stream) = tls.accept(stream).await else { return };
    let service = service_fn(move |request| respond(Arc::clone(&shared), request));
    // How a connection ends is what the rules decide, or the caller.
    let _ = auto::Builder::new(TokioExecutor::new()).http1_only().serve_connection(TokioIo::new(stream), service).await;
}

/// The connection ends here.
#[derive(Debug)]
struct Ended;

impl fmt::Display for Ended {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ended by a fault")
    }
}

impl std::error::Error for Ended {}

/// Tells a call when it is over, also when the caller goes away before.
struct Teller {
    shared: Arc<Shared>,
    told: Option<Told>,
}

impl Teller {
    fn answer(mut self, answer: Answer) {
        if let Some(mut told) = self.told.take() {
            told.answer = answer;
            self.shared.state().calls.push(told);
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        if let Some(mut told) = self.told.take() {
            told.answer = Answer::GivenUp(told.at.elapsed());
            self.shared.state().calls.push(told);
        }
    }
}

async fn respond(shared: Arc<Shared>, incoming: Request<Incoming>) -> Result<Response<Body>, Ended> {
    let (parts, body) = incoming.into_parts();
    let call = Call::of(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or_default());
    let at = Instant::now();
    let verdict = shared.verdict(&call);
    let point = verdict.as_ref().map(|(point, _, _)| *point);
    let teller = Teller { shared: Arc::clone(&shared), told: Some(Told { call: call.clone(), answer: Answer::None, point, at }) };
    let Ok(body) = axum::body::to_bytes(Body::new(body), MAX_BODY).await else { return Err(Ended) };
    let send = async || forward(&shared, &parts, body.clone()).await;
    let (point, fault, draw) = verdict.unwrap_or(("", Fault::Pass, 0));

    // What needs no answer of the API server.
    match &fault {
        Fault::Delay(long) => tokio::time::sleep(*long).await,
        Fault::Late => shared.gate.notified().await,
        Fault::Drop => {
            teller.answer(Answer::None);
            return Err(Ended);
        }
        Fault::Refuse(code, after) => {
            teller.answer(Answer::Code(*code));
            return Ok(refusal(*code, *after));
        }
        Fault::Silent => {
            // Ended by the caller; the teller then says after how long.
            std::future::pending::<()>().await;
        }
        Fault::Stale => {
            let recorded = shared.state().recorded.get(&call.resource).cloned();
            if let (Verb::List, Some(recorded)) = (call.verb, recorded) {
                teller.answer(Answer::Code(200));
                return Ok(json_answer(StatusCode::OK, Body::from(recorded)));
            }
        }
        Fault::Twice => {
            // Whether the first was answered at all shows in the second.
            let _ = send().await;
        }
        _ => {}
    }

    let answer = match send().await {
        Ok(answer) => answer,
        Err(_) => {
            teller.answer(Answer::Unreachable);
            return Err(Ended);
        }
    };
    let code = answer.status().as_u16();
    match fault {
        Fault::Lost => {
            teller.answer(Answer::None);
            Err(Ended)
        }
        Fault::RefuseAfter(code) => {
            teller.answer(Answer::Code(code));
            Ok(refusal(code, 0))
        }
        Fault::Held if call.verb != Verb::Watch => {
            std::future::pending::<()>().await;
            Err(Ended)
        }
        Fault::Held => {
            let (mut answer, _) = split(answer);
            *answer.body_mut() = Body::from_stream(futures::stream::pending::<io::Result<Bytes>>().map(hold(teller)));
            Ok(answer)
        }
        Fault::Cut => {
            teller.answer(Answer::None);
            let (mut answer, mut stream) = split(answer);
            let first = stream.next().await.and_then(Result::ok).unwrap_or_default();
            let half = first.slice(..first.len() / 2);
            // The length of the whole is told, and does not come.
            let pieces = futures::stream::iter([Ok(half), Err(io::Error::from(io::ErrorKind::ConnectionReset))]);
            *answer.body_mut() = Body::from_stream(pieces);
            Ok(answer)
        }
        Fault::Expired if call.verb == Verb::Watch => {
            teller.answer(Answer::Code(410));
            let mut event = json!({"type": "ERROR", "object": status(410, 0)}).to_string();
            event.push('\n');
            Ok(json_answer(StatusCode::OK, Body::from(event)))
        }
        Fault::Missed(_) | Fault::Doubled(_) | Fault::Swapped(_) if call.verb == Verb::Watch => {
            teller.answer(Answer::Code(code));
            let (mut answer, stream) = split(answer);
            let meddler = Meddler { shared, point, fault, random: StdRng::seed_from_u64(draw) };
            *answer.body_mut() = Body::from_stream(meddled(stream, meddler));
            Ok(answer)
        }
        _ if call.verb == Verb::List && shared.state().recording => {
            let (mut answer, mut stream) = split(answer);
            let mut whole = BytesMut::new();
            while let Some(Ok(piece)) = stream.next().await {
                whole.extend_from_slice(&piece);
            }
            let whole = whole.freeze();
            shared.state().recorded.insert(call.resource, whole.clone());
            teller.answer(Answer::Code(code));
            *answer.body_mut() = Body::from(whole);
            Ok(answer)
        }
        _ => {
            teller.answer(Answer::Code(code));
            let (mut answer, stream) = split(answer);
            *answer.body_mut() = Body::from_stream(stream);
            Ok(answer)
        }
    }
}

/// Keeps the teller as long as the stream lives.
fn hold(teller: Teller) -> impl FnMut(io::Result<Bytes>) -> io::Result<Bytes> {
    move |piece| {
        let _ = &teller;
        piece
    }
}

type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

async fn forward(shared: &Shared, parts: &http::request::Parts, body: Bytes) -> anyhow::Result<reqwest::Response> {
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut headers = parts.headers.clone();
    for name in [header::HOST, header::CONTENT_LENGTH, header::CONNECTION, header::ACCEPT_ENCODING] {
        headers.remove(name);
    }
    // Plain, so that events can be told apart.
    headers.insert(header::ACCEPT_ENCODING, http::HeaderValue::from_static("identity"));
    let request = shared.upstream.request(parts.method.clone(), format!("{}{path}", shared.server)).headers(headers).body(body);
    Ok(request.send().await?)
}

/// The head, and what follows.
fn split(answer: reqwest::Response) -> (Response<Body>, Pieces) {
    let mut head = Response::new(Body::empty());
    *head.status_mut() = answer.status();
    *head.headers_mut() = answer.headers().clone();
    head.headers_mut().remove(header::TRANSFER_ENCODING);
    (head, answer.bytes_stream().map(|piece| piece.map_err(io::Error::other)).boxed())
}

/// The API server's way to say no.
fn status(code: u16, after: u32) -> Value {
    let reason = match code {
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": "refused by the proxy of a test", "details": {"retryAfterSeconds": after},
    })
}

fn refusal(code: u16, after: u32) -> Response<Body> {
    let mut answer =
        json_answer(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Body::from(status(code, after).to_string()));
    if after > 0 {
        answer.headers_mut().insert(header::RETRY_AFTER, after.into());
    }
    answer
}

fn json_answer(code: StatusCode, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = code;
    answer.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    answer
}

/// Decides over each event of one watch.
struct Meddler {
    shared: Arc<Shared>,
    point: &'static str,
    fault: Fault,
    random: StdRng,
}

impl Meddler {
    /// Whether this event meets the fault. Bookmarks and errors tell of no object and never do; nor does anything once the rule is gone.
    fn meets(&mut self, line: &[u8], percent: u32) -> bool {
        if !self.shared.state().rules.iter().any(|armed| armed.rule.point == self.point) {
            return false;
        }
        let Ok(event) = serde_json::from_slice::<Value>(line) else { return false };
        let of_object = matches!(event["type"].as_str(), Some("ADDED" | "MODIFIED" | "DELETED"));
        let met = of_object && self.random.random_range(0..100) < percent;
        if met {
            let [kind, name] = [&event["type"], &event["object"]["metadata"]["name"]].map(|each| each.as_str().unwrap_or_default());
            self.shared.met(self.point, format!("{kind} {name} {}", event["object"]["metadata"]["generation"]));
        }
        met
    }
}

/// The events of a watch, meddled with. One event is one line.
fn meddled(stream: Pieces, meddler: Meddler) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    struct Reading {
        stream: Pieces,
        meddler: Meddler,
        rest: BytesMut,
        /// Lines that are complete.
        lines: VecDeque<Bytes>,
        held: Option<Bytes>,
    }
    let reading = Reading { stream, meddler, rest: BytesMut::new(), lines: VecDeque::new(), held: None };
    futures::stream::unfold(reading, |mut reading| async move {
        loop {
            let Some(line) = reading.lines.pop_front() else {
                let piece = if reading.held.is_some() {
                    match tokio::time::timeout(OVERTAKEN_WITHIN, reading.stream.next()).await {
                        Ok(piece) => piece,
                        // Nobody came to overtake.
                        Err(_) => return reading.held.take().map(|held| (Ok(held), reading)),
                    }
                } else {
                    reading.stream.next().await
                };
                let Some(Ok(piece)) = piece else {
                    return reading.held.take().map(|held| (Ok(held), reading));
                };
                reading.rest.extend_from_slice(&piece);
                while let Some(end) = reading.rest.iter().position(|byte| *byte == b'\n') {
                    let line = reading.rest.split_to(end + 1).freeze();
                    reading.lines.push_back(line);
                }
                continue;
            };
            if let Some(held) = reading.held.take() {
                let both = [line, held].concat();
                return Some((Ok(Bytes::from(both)), reading));
            }
            match reading.meddler.fault.clone() {
                Fault::Missed(percent) if reading.meddler.meets(&line, percent) => {}
                Fault::Doubled(percent) if reading.meddler.meets(&line, percent) => {
                    return Some((Ok(Bytes::from([&line[..], &line[..]].concat())), reading));
                }
                Fault::Swapped(percent) if reading.meddler.meets(&line, percent) => reading.held = Some(line),
                _ => return Some((Ok(line), reading)),
            }
        }
    })
}

/// The ways in which an API server fails, each met by so many in a hundred of the calls that it fits, and the names of their points. Four
/// in a hundred each make more than a fifth of all calls fail.
pub fn failing(percent: u32) -> (Vec<Rule>, Vec<&'static str>) {
    let ways: [(&'static str, Fault, &[Verb]); 10] = [
        ("dropped", Fault::Drop, &[]),
        ("500", Fault::Refuse(500, 0), &[]),
        ("503", Fault::Refuse(503, 0), &[]),
        ("429", Fault::Refuse(429, 1), &[]),
        ("delayed", Fault::Delay(Duration::from_secs(1)), &[]),
        ("cut", Fault::Cut, &[]),
        ("lost after effect", Fault::Lost, Verb::WRITES),
        ("500 after effect", Fault::RefuseAfter(500), Verb::WRITES),
        ("409", Fault::Refuse(409, 0), &[Verb::Update, Verb::Patch]),
        ("410", Fault::Expired, &[Verb::Watch]),
    ];
    let points = ways.iter().map(|(point, _, _)| *point).collect();
    (ways.into_iter().map(|(point, fault, verbs)| Rule::new(point, fault).on(verbs).percent(percent)).collect(), points)
}
