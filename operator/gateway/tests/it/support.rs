//! The scenario that all tests begin with: a customer contract served on loopback, and everything around it in memory.

use async_trait::async_trait;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use fairlead_gateway::*;
use fairlead_model::hash::Digest;
use fairlead_model::route::{Backend as Target, Consumer, Idempotency, Issuer, OperationKind, OperationUnit, RouteUnit};
use fairlead_model::unit::ObjectKey;
use fairlead_model::{Clock, Document, ObjectRef, RecordId, Timestamp};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub(crate) const ISSUER: &str = "https://login.example";
pub(crate) const AUDIENCE: &str = "https://api.example";
pub(crate) const PATH: &str = "/sales/customer/v1";

// === Time ===

/// A clock that stands still until it is moved.
pub(crate) struct StillClock(AtomicI64);

impl StillClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }
}

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

// === Tokens ===

/// An issuer's key, and tokens as nobody should make them.
pub(crate) struct Signer {
    pub(crate) id: String,
    pair: Ed25519KeyPair,
}

impl Signer {
    pub(crate) fn new(id: &str) -> Self {
        Self { id: id.into(), pair: Ed25519KeyPair::generate().unwrap() }
    }

    pub(crate) fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key());
        json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": self.id, "x": x})
    }

    pub(crate) fn header(&self) -> Value {
        json!({"typ": "at+jwt", "alg": "EdDSA", "kid": self.id})
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.pair.sign(message.as_bytes())))
    }
}

// === Keys ===

/// Key sets by address. What is not there cannot be fetched.
#[derive(Default)]
pub(crate) struct KeyServer {
    sets: Mutex<BTreeMap<String, Value>>,
    pub(crate) fetches: AtomicUsize,
    /// Whoever holds this keeps the sets that were asked for on their way.
    pub(crate) way: tokio::sync::RwLock<()>,
}

impl KeyServer {
    pub(crate) fn publish(&self, uri: &str, keys: &[&Signer]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        self.sets.lock().unwrap().insert(uri.into(), json!({"keys": keys}));
    }

    pub(crate) fn publish_raw(&self, uri: &str, keys: Vec<Value>) {
        self.sets.lock().unwrap().insert(uri.into(), json!({"keys": keys}));
    }

    pub(crate) fn go_away(&self, uri: &str) {
        self.sets.lock().unwrap().remove(uri);
    }
}

#[async_trait]
impl KeyFetcher for KeyServer {
    async fn fetch(&self, uri: &str) -> Result<Bytes, String> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let set = self.sets.lock().unwrap().get(uri).cloned();
        drop(self.way.read().await);
        set.map(|set| set.to_string().into()).ok_or_else(|| "connection refused".into())
    }
}

// === Records ===

/// A store of records that can be told to fail or to wait.
pub(crate) struct Records {
    pub(crate) records: Mutex<BTreeMap<RecordId, Record>>,
    pub(crate) failures: Mutex<VecDeque<BackendError>>,
    pub(crate) calls: Mutex<Vec<Call>>,
    pub(crate) writes: AtomicUsize,
    /// Each call takes one permit; while there is none, it waits.
    pub(crate) gate: Semaphore,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            records: Mutex::default(),
            failures: Mutex::default(),
            calls: Mutex::default(),
            writes: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        }
    }
}

impl Records {
    pub(crate) fn put(&self, document: Value) -> RecordId {
        let id = RecordId(uuid::Uuid::now_v7());
        let record = Record { id, version: 1, document: document.as_object().cloned().unwrap() };
        self.records.lock().unwrap().insert(id, record);
        id
    }

    pub(crate) fn fail_next(&self, error: BackendError) {
        self.failures.lock().unwrap().push_back(error);
    }

    /// Resolves when `count` calls have begun.
    pub(crate) async fn begun(&self, count: usize) {
        while self.calls.lock().unwrap().len() < count {
            tokio::task::yield_now().await;
        }
    }

    async fn enter(&self, call: &Call) -> Result<(), BackendError> {
        self.calls.lock().unwrap().push(call.clone());
        self.gate.acquire().await.unwrap().forget();
        self.failures.lock().unwrap().pop_front().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Backend for Records {
    async fn list(&self, call: &Call, query: ListQuery) -> Result<Page, BackendError> {
        self.enter(call).await?;
        let records = self.records.lock().unwrap();
        let fits = |record: &&Record| {
            query.filters.iter().all(|filter| fairlead_model::document::present(&record.document, &filter.field) == Some(&filter.value))
        };
        let after = query.after.as_deref().and_then(RecordId::parse);
        let mut found: Vec<Record> = records.values().filter(fits).filter(|r| after.is_none_or(|after| r.id > after)).cloned().collect();
        let more = found.len() > query.limit as usize;
        found.truncate(query.limit as usize);
        let next = found.last().filter(|_| more).map(|last| last.id.to_string());
        Ok(Page { records: found, next })
    }

    async fn get(&self, call: &Call, id: RecordId) -> Result<Record, BackendError> {
        self.enter(call).await?;
        self.records.lock().unwrap().get(&id).cloned().ok_or(BackendError::NotFound)
    }

    async fn create(&self, call: &Call, document: Document) -> Result<Record, BackendError> {
        self.enter(call).await?;
        self.writes.fetch_add(1, Ordering::SeqCst);
        let id = self.put(Value::Object(document));
        Ok(self.records.lock().unwrap()[&id].clone())
    }

    async fn update(&self, call: &Call, update: Update) -> Result<Record, BackendError> {
        self.enter(call).await?;
        let mut records = self.records.lock().unwrap();
        let record = records.get_mut(&update.id).ok_or(BackendError::NotFound)?;
        if record.version != update.base {
            return Err(BackendError::Changed);
        }
        self.writes.fetch_add(1, Ordering::SeqCst);
        record.version += 1;
        record.document = update.document;
        Ok(record.clone())
    }
}

/// Gives the records to every route, and refuses those that name the domain `broken`.
struct Bound(Arc<Records>);

impl Backends for Bound {
    fn bind(&self, unit: &RouteUnit) -> Result<Arc<dyn Backend>, String> {
        if unit.domain == "broken" { Err("expression does not compile".into()) } else { Ok(self.0.clone()) }
    }
}

// === Remembered answers ===

#[derive(Default)]
pub(crate) struct Log(Mutex<BTreeMap<Scope, (Digest, Known)>>);

enum Known {
    Running,
    Released,
    Done(Answer),
}

#[async_trait]
impl IdempotencyLog for Log {
    async fn begin(&self, scope: &Scope, fingerprint: &Digest, _: Duration) -> Result<Begin, String> {
        let mut log = self.0.lock().unwrap();
        match log.get(scope) {
            Some((known, _)) if known != fingerprint => return Ok(Begin::Mismatch),
            Some((_, Known::Done(answer))) => return Ok(Begin::Done(answer.clone())),
            Some((_, Known::Running)) => return Ok(Begin::Running),
            Some((_, Known::Released)) | None => {}
        }
        log.insert(scope.clone(), (fingerprint.clone(), Known::Running));
        Ok(Begin::Fresh)
    }

    async fn finish(&self, scope: &Scope, answer: &Answer) {
        if let Some((_, kept)) = self.0.lock().unwrap().get_mut(scope) {
            *kept = Known::Done(answer.clone());
        }
    }

    async fn release(&self, scope: &Scope) {
        if let Some((_, kept)) = self.0.lock().unwrap().get_mut(scope) {
            *kept = Known::Released;
        }
    }
}

// === Units ===

pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 80},
            "status": {"type": "string", "enum": ["active", "closed"]},
            "revenue": {"type": "string", "format": "decimal"},
            "employees": {"type": "integer", "minimum": 0},
            "key": {"type": "boolean"},
            "address": {"$ref": "#/$defs/Address"},
            "contacts": {"type": "array", "items": {"type": "object", "additionalProperties": false, "properties": {"email": {"type": "string", "format": "email"}}}},
        },
        "$defs": {"Address": {"type": "object", "additionalProperties": false, "properties": {"country": {"type": "string", "pattern": "^[A-Z]{2}$"}}}},
    })
}

fn operation(scope: &str, filters: &[&str]) -> OperationUnit {
    OperationUnit {
        scopes: vec![scope.into()],
        backend: Target::Store { realm: ObjectKey("sales/customers".into()) },
        filters: filters.iter().map(|path| path.parse().unwrap()).collect(),
        timeout: Duration::from_secs(20),
        idempotency: Idempotency::Optional,
    }
}

/// The contract under the name `sales/<name>`.
pub(crate) fn unit(name: &str) -> RouteUnit {
    let schema = schema();
    RouteUnit {
        object: ObjectRef::new("sales", name),
        generation: 1,
        digest: Digest::default(),
        domain: "sales".into(),
        entity: "customer".into(),
        major: 1,
        version: "1.4.0".into(),
        fields: fairlead_contract::Contract::compile(&schema).unwrap().fields().clone(),
        schema: schema.into(),
        hostnames: vec![],
        issuers: vec![Issuer { issuer: ISSUER.into(), jwks_uri: format!("{ISSUER}/keys"), audiences: vec![AUDIENCE.into()] }],
        max_token_age: None,
        consumers: vec![],
        operations: BTreeMap::from([
            (OperationKind::List, operation("customers.read", &["address.country", "status", "revenue", "employees", "key"])),
            (OperationKind::Get, operation("customers.read", &[])),
            (OperationKind::Create, operation("customers.write", &[])),
            (OperationKind::Update, operation("customers.write", &[])),
        ]),
    }
    .sealed()
}

pub(crate) fn changed(mut unit: RouteUnit, change: impl FnOnce(&mut RouteUnit)) -> RouteUnit {
    change(&mut unit);
    unit.sealed()
}

pub(crate) fn key(unit: &RouteUnit) -> ObjectKey {
    ObjectKey::from(&unit.object)
}

pub(crate) fn consumer(name: &str, client: &str) -> Consumer {
    Consumer { name: name.into(), issuer: ISSUER.into(), client_ids: vec![client.into()], operations: vec![], rate: None }
}

// === The world ===

pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) server: Server,
    pub(crate) records: Arc<Records>,
    pub(crate) keys: Arc<KeyServer>,
    pub(crate) clock: Arc<StillClock>,
    pub(crate) signer: Signer,
    pub(crate) client: reqwest::Client,
    pub(crate) scheme: &'static str,
}

pub(crate) struct Setting {
    pub(crate) options: Options,
    pub(crate) limits: ServerLimits,
    pub(crate) certificates: Option<(CertificateFiles, Vec<u8>)>,
}

impl Default for Setting {
    fn default() -> Self {
        Self { options: Options::new([7; 32]), limits: ServerLimits::default(), certificates: None }
    }
}

impl World {
    /// One customer contract, served in the clear.
    pub(crate) async fn new() -> Self {
        Self::with(vec![unit("customer")], Setting::default()).await
    }

    pub(crate) async fn serving(units: Vec<RouteUnit>) -> Self {
        Self::with(units, Setting::default()).await
    }

    pub(crate) async fn with(units: Vec<RouteUnit>, options: Setting) -> Self {
        let world = Self::started(options).await;
        world.apply(units).await;
        world
    }

    /// A gateway that listens, and that no units were given to yet.
    pub(crate) async fn started(options: Setting) -> Self {
        let signer = Signer::new("first");
        let keys = Arc::new(KeyServer::default());
        keys.publish(&format!("{ISSUER}/keys"), &[&signer]);
        let records = Arc::new(Records::default());
        let clock = Arc::new(StillClock(AtomicI64::new(1_800_000_000_000)));
        let parts = Parts {
            backends: Arc::new(Bound(records.clone())),
            idempotency: Arc::new(Log::default()),
            keys: keys.clone(),
            clock: clock.clone(),
        };
        let gateway = Gateway::new(parts, options.options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let certificates = options.certificates.map(|(files, ca)| {
            client = std::mem::take(&mut client).tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()]);
            Certificates::load(files, gateway.metrics()).unwrap()
        });
        let scheme = if certificates.is_some() { "https" } else { "http" };
        let server = gateway.serve(listener, certificates.as_deref(), options.limits).unwrap();
        Self { gateway, server, records, keys, clock, signer, client: client.build().unwrap(), scheme }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://localhost:{}{path}", self.scheme, self.server.address().port())
    }

    pub(crate) fn claims(&self) -> Value {
        let now = self.clock.now().0 / 1000;
        json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": "web-shop", "client_id": "web-shop", "jti": uuid::Uuid::new_v4(),
            "iat": now, "exp": now + 600, "scope": "customers.read customers.write",
        })
    }

    /// A good token.
    pub(crate) fn token(&self) -> String {
        self.signer.sign(&self.signer.header(), &self.claims())
    }

    pub(crate) fn token_with(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = self.claims();
        change(&mut claims);
        self.signer.sign(&self.signer.header(), &claims)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, self.url(path)).bearer_auth(self.token())
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        Got::of(self.request(Method::GET, path)).await
    }

    pub(crate) async fn get_with(&self, token: &str) -> Got {
        Got::of(self.client.get(self.url(PATH)).bearer_auth(token)).await
    }

    pub(crate) fn post(&self, data: &Value) -> reqwest::RequestBuilder {
        let body = json!({"data": data}).to_string();
        self.request(Method::POST, PATH).header("content-type", "application/json").body(body)
    }

    pub(crate) fn patch(&self, id: RecordId, data: &Value) -> reqwest::RequestBuilder {
        let body = json!({"data": data}).to_string();
        self.request(Method::PATCH, &format!("{PATH}/{id}")).header("content-type", "application/merge-patch+json").body(body)
    }

    pub(crate) async fn apply(&self, units: Vec<RouteUnit>) {
        self.gateway.apply(units.into_iter().map(|unit| (key(&unit), Arc::new(unit))).collect()).await;
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
    pub(crate) version: reqwest::Version,
}

impl Got {
    pub(crate) async fn of(request: reqwest::RequestBuilder) -> Self {
        Self::try_of(request).await.unwrap()
    }

    pub(crate) async fn try_of(request: reqwest::RequestBuilder) -> reqwest::Result<Self> {
        let mut response = request.send().await?;
        let mut bytes = vec![];
        while let Some(chunk) = response.chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        let text = String::from_utf8(bytes).unwrap();
        Ok(Self { status: response.status(), headers: response.headers().clone(), version: response.version(), text })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).to_str().unwrap()
    }

    /// Status and the slug of the problem's type.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let body = self.json();
        assert_eq!(body["status"], self.status.as_u16(), "{body}");
        let slug = body["type"].as_str().unwrap().strip_prefix(TYPE_BASE).unwrap().to_owned();
        (self.status.as_u16(), slug)
    }
}

pub(crate) fn is(status: u16, slug: &str) -> (u16, String) {
    (status, slug.to_owned())
}
