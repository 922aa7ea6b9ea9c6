//! What the tests of clients share: Secrets in memory, units, and a simulator's pages for tests.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use async_trait::async_trait;
use fairlead_model::hash::Digest;
use fairlead_model::unit::{CircuitBreaker, ConnectorUnit, Limits};
use fairlead_model::{Document, ErrorClass, ExternalId, FieldPath, ObjectRef, RemoteError};
use fairlead_simulators::{Options, Simulator, System};
use fairlead_systems::{
    Catalog, Client, Definition, EndpointPolicy, NativeRecord, Outside, Page, ReadRequest, SecretData, SecretError, SecretSource,
    SecretString, WriteBatch, WriteItem, WriteOperation,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One Secret, which a test may change.
#[derive(Default)]
pub(crate) struct Secrets {
    data: Mutex<Option<(BTreeMap<String, String>, String)>>,
    version: AtomicU64,
    pub(crate) reads: AtomicU64,
}

impl Secrets {
    pub(crate) fn of<'a>(values: impl IntoIterator<Item = (&'a str, &'a str)>, hosts: &str) -> Arc<Self> {
        let secrets = Arc::new(Self::default());
        secrets.put(values, hosts);
        secrets
    }

    pub(crate) fn put<'a>(&self, values: impl IntoIterator<Item = (&'a str, &'a str)>, hosts: &str) {
        let values = values.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        *self.data.lock().unwrap() = Some((values, hosts.to_owned()));
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn set(&self, key: &str, value: &str) {
        if let Some((values, _)) = self.data.lock().unwrap().as_mut() {
            values.insert(key.to_owned(), value.to_owned());
        }
        self.version.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl SecretSource for Secrets {
    async fn get(&self, _: &ObjectRef) -> Result<SecretData, SecretError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let data = self.data.lock().unwrap();
        let (values, hosts) = data.as_ref().ok_or(SecretError::NotFound)?;
        Ok(SecretData {
            values: values.iter().map(|(key, value)| (key.clone(), SecretString::new(value.as_str()))).collect(),
            allowed_hosts: SecretData::hosts(hosts),
            version: self.version.load(Ordering::SeqCst).to_string(),
        })
    }
}

/// A unit with generous limits.
pub(crate) fn unit(definition: &str, system: &str, endpoint: &str, method: &str) -> ConnectorUnit {
    ConnectorUnit {
        object: ObjectRef::new("test", "connector"),
        generation: 1,
        digest: Digest::default(),
        definition: definition.into(),
        system: system.to_owned(),
        version: String::new(),
        endpoint: endpoint.to_owned(),
        parameters: BTreeMap::new(),
        auth_method: method.to_owned(),
        secret: ObjectRef::new("test", "credentials"),
        limits: Limits { requests_per_second: None, concurrency: 8, daily_requests: None, interactive_reserve_percent: 0 },
        circuit_breaker: CircuitBreaker { failures: 5, within: Duration::from_secs(30), open_for: Duration::from_secs(60) },
        probe_every: Duration::from_secs(60),
        ca_pem: None,
    }
}

pub(crate) fn local() -> EndpointPolicy {
    EndpointPolicy { allow: vec!["127.0.0.0/8".parse().unwrap()] }
}

pub(crate) fn connect(unit: &ConnectorUnit, secrets: &Arc<Secrets>) -> Client {
    let definition = Arc::new(Definition::of_unit(unit).unwrap());
    Client::connect(unit, definition, &Outside::new(secrets.clone(), local())).unwrap_or_else(|error| panic!("{error}"))
}

/// A simulator and a client of it.
pub(crate) struct Bed {
    pub(crate) simulator: Simulator,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) unit: ConnectorUnit,
    pub(crate) client: Client,
    http: reqwest::Client,
}

impl Bed {
    /// `records` companies of the system's default range, spoken to with `method`; `extension` extends the built-in definition.
    pub(crate) async fn start(system: System, records: u64, method: &str, extension: &str) -> Self {
        let simulator = Simulator::start(Options { records, ..Options::new(system) }).await.expect("the simulator starts");
        let definition = if extension.is_empty() {
            Catalog::builtin().get(system.name()).unwrap().clone()
        } else {
            Catalog::builtin().resolve(extension).unwrap_or_else(|findings| panic!("{findings:?}"))
        };
        let credentials = simulator.credentials();
        let secrets = Secrets::of(credentials.iter().map(|(key, value)| (key.as_str(), value.as_str())), "127.0.0.1");
        let mut unit = unit(definition.text(), system.name(), simulator.endpoint(), method);
        if let Some(account) = credentials.get("account").filter(|_| system == System::Netsuite) {
            unit.parameters.insert("account".into(), account.clone());
        }
        let client = connect(&unit, &secrets);
        Self { simulator, secrets, unit, client, http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    pub(crate) fn reconnect(&mut self, change: impl FnOnce(&mut ConnectorUnit)) {
        change(&mut self.unit);
        self.client = connect(&self.unit, &self.secrets);
    }

    async fn page(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}/__fairlead/{path}", self.simulator.endpoint());
        let mut request = self.http.request(method, url);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let mut response = request.send().await.unwrap();
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.unwrap() {
            bytes.extend_from_slice(&piece);
        }
        assert!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&bytes));
        if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() }
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.page(reqwest::Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        self.page(reqwest::Method::POST, path, Some(body)).await
    }

    pub(crate) async fn faults(&self, rules: Value) {
        self.post("faults", json!({ "rules": rules })).await;
    }

    /// Requests of one kind, however they ended.
    pub(crate) async fn requests(&self, kind: &str) -> u64 {
        let counters = self.get("requests").await;
        counters["byKind"][kind].as_object().map(|by| by.values().filter_map(Value::as_u64).sum()).unwrap_or(0)
    }

    pub(crate) async fn total(&self) -> u64 {
        self.get("requests").await["total"].as_u64().unwrap()
    }

    pub(crate) async fn read(&self, entity: &str, slice: &str, fields: &[&str], cursor: Option<Value>) -> Result<Page, RemoteError> {
        let request =
            ReadRequest { entity: entity.into(), slice: slice.into(), fields: paths(fields), cursor, deadline: Duration::from_secs(30) };
        self.client.read_page(&request).await
    }

    /// Reads pages until the present is reached.
    pub(crate) async fn pass(
        &self,
        entity: &str,
        slice: &str,
        fields: &[&str],
        mut cursor: Option<Value>,
    ) -> (Vec<NativeRecord>, Value, usize) {
        let mut records = Vec::new();
        for pages in 1.. {
            let page = self.read(entity, slice, fields, cursor).await.unwrap_or_else(|error| panic!("{error}"));
            records.extend(page.records);
            if page.caught_up {
                return (records, page.cursor, pages);
            }
            cursor = Some(page.cursor);
        }
        unreachable!("a pass ends")
    }
}

pub(crate) fn paths(names: &[&str]) -> Vec<FieldPath> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

pub(crate) fn document(value: Value) -> Document {
    value.as_object().cloned().unwrap()
}

pub(crate) fn create(key: Option<(&str, &str)>, body: Value) -> WriteItem {
    let key = key.map(|(field, value)| (field.parse().unwrap(), value.to_owned()));
    WriteItem { operation: WriteOperation::Create, id: None, key, body: document(body) }
}

pub(crate) fn change(operation: WriteOperation, id: &str, body: Value) -> WriteItem {
    WriteItem { operation, id: Some(ExternalId::from(id)), key: None, body: document(body) }
}

pub(crate) fn batch(entity: &str, items: Vec<WriteItem>) -> WriteBatch {
    WriteBatch { entity: entity.into(), items }
}

pub(crate) fn class<T>(result: &Result<T, RemoteError>) -> Option<(ErrorClass, &str)> {
    result.as_ref().err().map(|error| (error.class, error.reason.as_str()))
}
