//! An engine between vendors of [`crate::vendor`], on a store in memory and a clock that a test may put forward.

use crate::vendor::Vendor;
use async_trait::async_trait;
use fairlead_contract::Contract;
use fairlead_engine::{Config, Engine};
use fairlead_model::hash::Digest;
use fairlead_model::report::IntegrationReport;
use fairlead_model::unit::{
    CircuitBreaker, ConnectorUnit, ContractUnit, DeletionPolicy, Guard, InitialLoad, IntegrationUnit, Limits, ObjectKey, OnCycle, OnDelete,
    OnForeignEdit, OnLeave, OnMerge, OwnershipRule, ParticipantUnit, ReadUnit, ReconcileUnit, Reference, Retry, RevisionUnit, Tie, Units,
    WriteUnit,
};
use fairlead_model::{Clock, ObjectRef, Timestamp};
use fairlead_store::{DeadLetter, DeadLetterFilter, SqliteStore, Store};
use fairlead_systems::{Definition, EndpointPolicy, SecretData, SecretError, SecretSource, SecretString};
use serde_json::{from_value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// The realm of all stories.
pub(crate) const REALM: &str = "test/things";

/// Longer than any step takes on a busy machine.
const SOON: Duration = Duration::from_secs(40);

/// The wall clock, put forward by so many milliseconds.
#[derive(Default)]
pub(crate) struct Hand(AtomicI64);

impl Hand {
    /// Time passes.
    pub(crate) fn pass(&self, time: Duration) {
        self.0.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(fairlead_model::SystemClock.now().0 + self.0.load(Ordering::SeqCst))
    }
}

/// The Secret, for keys and for tokens; its client's secret is `secret-1`, `secret-2` and so on.
#[derive(Default)]
pub(crate) struct Key(AtomicI64);

impl Key {
    /// Somebody puts other credentials into it.
    pub(crate) fn renew(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl SecretSource for Key {
    async fn get(&self, _: &ObjectRef) -> Result<SecretData, SecretError> {
        let version = (1 + self.0.load(Ordering::SeqCst)).to_string();
        let secret = format!("secret-{version}");
        let values = [("apiKey", "key"), ("clientId", "client"), ("clientSecret", secret.as_str())];
        let values = values.into_iter().map(|(key, value)| (key.to_owned(), SecretString::new(value))).collect();
        Ok(SecretData { values, allowed_hosts: SecretData::hosts("127.0.0.1"), version })
    }
}

/// What the definition of a vendor says.
#[derive(Clone, Copy)]
pub(crate) struct Offers {
    /// One record can be read by its id.
    pub(crate) get: bool,
    /// It keeps our key, by which it is written; else a record is found by its name alone once it is made.
    pub(crate) keyed: bool,
    /// A change that is sent twice does no harm.
    pub(crate) idempotent: bool,
    /// The longest request.
    pub(crate) timeout: &'static str,
    /// Its calls carry tokens, from `/token`.
    pub(crate) tokens: bool,
    /// So many records are a page of its list; 0 for all of them.
    pub(crate) page: usize,
}

impl Default for Offers {
    fn default() -> Self {
        Self { get: true, keyed: true, idempotent: true, timeout: "20s", tokens: false, page: 0 }
    }
}

impl Offers {
    fn definition(self) -> Definition {
        let auth = if self.tokens {
            "{method: ClientCredentials, client: Form, token: {url: '{{endpoint}}/token'}}"
        } else {
            "{method: ApiKey, header: X-Api-Key, secretKey: apiKey}"
        };
        let get = if self.get { "  get: {request: {path: '/things/{{id}}'}}\n" } else { "" };
        let make = if self.keyed {
            "upsert: {request: {method: PUT, path: '/things/{{key}}', body: .record}, result: {id: .id}, idempotent: true}"
        } else {
            "create: {request: {method: POST, path: /things, body: .record}, result: {id: .id}}"
        };
        let (limit, next) = match self.page {
            0 => (String::new(), ""),
            page => (format!(", limit: {page}"), "next: {after: .next}, "),
        };
        let text = format!(
            r#"
system: things
auth: [{auth}]
timeout: {}
probe: {{path: /me}}
entities:
- name: things
  key: .id
  modified: .updated
  fields:
  - {{name: id, type: String, writable: false}}
  - {{name: key, type: String, correlation: true}}
  - {{name: name, type: String}}
  - {{name: phone, type: String}}
  - {{name: parent, type: Reference}}
  read: {{request: {{path: /things, query: {{since: '{{{{cursor}}}}'{limit}}}}}, records: .data, {next}cursor: {{field: .updated}}}}
  search: {{request: {{path: /things, query: {{field: '{{{{field}}}}', equals: '{{{{value}}}}'}}}}, records: .data}}
  {make}
  update: {{request: {{method: PATCH, path: '/things/{{{{id}}}}', body: .record}}, idempotent: {}}}
  delete: {{request: {{method: DELETE, path: '/things/{{{{id}}}}'}}, idempotent: true}}
{get}"#,
            self.timeout, self.idempotent
        );
        Definition::parse(&text).unwrap_or_else(|findings| panic!("{findings:?}"))
    }
}

/// One system and its part in the Integration.
#[derive(Clone)]
pub(crate) struct Side {
    /// Its name and role.
    pub(crate) name: &'static str,
    /// The system.
    pub(crate) vendor: Vendor,
    /// What it offers.
    pub(crate) offers: Offers,
    /// It is read.
    pub(crate) read: bool,
    /// It is written.
    pub(crate) write: bool,
}

impl Side {
    fn connector(&self, limits: &Limits) -> ConnectorUnit {
        ConnectorUnit {
            object: ObjectRef::new("test", self.name),
            generation: 1,
            digest: Digest::of(&json!(self.name)),
            definition: self.offers.definition().text().clone(),
            system: "things".into(),
            version: String::new(),
            endpoint: self.vendor.endpoint().into(),
            parameters: BTreeMap::new(),
            auth_method: if self.offers.tokens { "ClientCredentials" } else { "ApiKey" }.into(),
            secret: ObjectRef::new("test", "key"),
            limits: limits.clone(),
            circuit_breaker: CircuitBreaker { failures: 100, within: Duration::from_secs(30), open_for: Duration::from_secs(1) },
            probe_every: Duration::from_secs(60),
            ca_pem: None,
        }
    }

    fn participant(&self, on_delete: OnDelete) -> ParticipantUnit {
        let rows = json!([{"canonical": "name", "native": "name"}, {"canonical": "phone", "native": "phone"}]);
        ParticipantUnit {
            name: self.name.into(),
            role: self.name.into(),
            connector: ObjectRef::new("test", self.name),
            entity: "things".into(),
            native: Arc::clone(self.offers.definition().entity("things").unwrap().native_schema()),
            read: self.read.then_some(ReadUnit { every: Duration::from_millis(200) }),
            write: self.write.then(|| WriteUnit {
                key: self.offers.keyed.then(|| "key".into()),
                when: None,
                on_delete,
                on_merge: OnMerge::Keep,
                on_leave: OnLeave::Keep,
                on_foreign_edit: OnForeignEdit::Restore,
            }),
            rows: from_value(rows).unwrap(),
        }
    }
}

/// A store, a clock, and the systems.
pub(crate) struct World {
    /// What is known.
    pub(crate) store: Arc<dyn Store>,
    /// The time.
    pub(crate) clock: Arc<Hand>,
    /// The systems that take part.
    pub(crate) sides: Vec<Side>,
    /// What the guard allows.
    pub(crate) guard: Guard,
    /// What a deletion becomes in each system that is written.
    pub(crate) on_delete: OnDelete,
    /// Which of several systems of one role has the word.
    pub(crate) tie: Tie,
    /// When it is reconciled.
    pub(crate) reconcile: Option<ReconcileUnit>,
    /// The limits of each Connector.
    pub(crate) limits: Limits,
    /// The Secret of each Connector.
    pub(crate) key: Arc<Key>,
}

impl World {
    /// A CRM that is read, and an ERP that is written, and read if `read`.
    pub(crate) async fn new(erp: Offers, read: bool) -> Self {
        let sides = vec![
            Side { name: "crm", vendor: Vendor::start().await, offers: Offers::default(), read: true, write: false },
            Side { name: "erp", vendor: Vendor::start().await, offers: erp, read, write: true },
        ];
        Self {
            store: Arc::new(SqliteStore::open_in_memory().unwrap()),
            clock: Arc::default(),
            sides,
            guard: Guard::default(),
            on_delete: OnDelete::Keep,
            tie: Tie::Home,
            reconcile: None,
            limits: Limits { requests_per_second: None, concurrency: 4, daily_requests: None, interactive_reserve_percent: 0 },
            key: Arc::default(),
        }
    }

    /// The system called `name`.
    pub(crate) fn vendor(&self, name: &str) -> &Vendor {
        &self.sides.iter().find(|side| side.name == name).unwrap().vendor
    }

    /// What runs.
    pub(crate) fn units(&self) -> Units {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "additionalProperties": false,
            "properties": {"name": {"type": "string", "maxLength": 30}, "phone": {"type": "string"}},
        });
        let fields = Contract::compile(&schema).unwrap().fields().clone();
        let unit = IntegrationUnit {
            object: ObjectRef::new("test", "things"),
            generation: 1,
            digest: Digest::of(&json!([self.sides.iter().map(|side| side.name).collect::<Vec<_>>(), self.guard.confirm])),
            entity: "thing".into(),
            contract: ContractUnit { object: ObjectRef::new("test", "thing"), schema: schema.into(), fields },
            participants: self.sides.iter().map(|side| Arc::new(side.participant(self.on_delete))).collect(),
            lookups: BTreeMap::new(),
            initial_load: InitialLoad::MatchOrCreate,
            matching: vec![vec!["name".parse().unwrap()]],
            indexed: Vec::new(),
            ownership: vec![OwnershipRule { fields: vec!["*".into()], role: "crm".into() }],
            tie: self.tie,
            guard: self.guard.clone(),
            resync: None,
            reconcile: self.reconcile.clone(),
            retry: Retry { attempts: 2, initial: Duration::from_millis(200), max: Duration::from_secs(1) },
            keep_letters: Duration::from_secs(720 * 3600),
            revision: RevisionUnit::default(),
            rollout: None,
            paused: false,
            deletion_policy: DeletionPolicy::Retain,
            master: None,
        };
        let connectors =
            self.sides.iter().map(|side| (ObjectKey(format!("test/{}", side.name)), Arc::new(side.connector(&self.limits)))).collect();
        Units { connectors, integrations: BTreeMap::from([(ObjectKey(REALM.into()), Arc::new(unit))]), ..Units::default() }
    }

    /// The same, and things have parents.
    pub(crate) fn units_with_parents(&self, on_cycle: OnCycle) -> Units {
        let mut units = self.units();
        for unit in units.integrations.values_mut() {
            let unit = Arc::make_mut(unit);
            let mut schema = json!({
                "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "additionalProperties": false,
                "properties": {"name": {"type": "string"}, "phone": {"type": "string"}},
            });
            schema["properties"]["parent"] = json!({"type": "string"});
            unit.contract.fields = Contract::compile(&schema).unwrap().fields().clone();
            unit.contract.schema = schema.into();
            let reference = Reference { entity: "thing".into(), on_cycle };
            let row = json!({"canonical": "parent", "native": "parent", "reference": reference});
            for participant in &mut unit.participants {
                Arc::make_mut(participant).rows.push(from_value(row.clone()).unwrap());
            }
        }
        units
    }

    /// What an engine needs.
    pub(crate) fn config(&self) -> Config {
        let endpoints = EndpointPolicy { allow: vec!["127.0.0.0/8".parse().unwrap()] };
        let mut config = Config::new(Arc::clone(&self.store), Arc::clone(&self.key) as _, endpoints);
        config.outside.clock = self.clock.clone();
        config
    }

    /// An engine at work.
    pub(crate) async fn engine(&self) -> Engine {
        let engine = Engine::start(self.config());
        engine.apply(&self.units()).await;
        engine
    }

    /// An engine at work on so many things, which both systems hold. What the systems tell as changed from here on, is read; of what went before, only
    /// the last thing is asked for again.
    pub(crate) async fn loaded(&self, things: usize) -> Engine {
        let (crm, erp) = (self.vendor("crm"), self.vendor("erp"));
        for number in 0..things {
            crm.put(&format!("c{number}"), json!({"name": format!("Thing {number}"), "phone": "0"}));
        }
        let engine = self.engine().await;
        until("the first load", async || {
            erp.count() == things && report(&engine).is_some_and(|report| report.lag.is_some_and(|lag| lag.pending == 0))
        })
        .await;
        let last = format!("Thing {}", things - 1);
        for vendor in [crm, erp] {
            vendor.put(&vendor.id_of(&last).unwrap(), json!({}));
            // The second poll that begins after that begins at the new stamp.
            let polls = vendor.asked("GET /things?since").len();
            until("two polls", async || vendor.asked("GET /things?since").len() >= polls + 2).await;
        }
        engine
    }

    /// The open dead letters.
    pub(crate) async fn letters(&self) -> Vec<DeadLetter> {
        let filter = DeadLetterFilter { realm: Some(REALM.into()), max: 100, ..DeadLetterFilter::default() };
        self.store.dead_letters(&filter).await.unwrap()
    }

    /// Waits for the one open letter, and that it is another than `before`.
    pub(crate) async fn letter(&self, before: i64) -> DeadLetter {
        until("a dead letter", async || matches!(self.letters().await.as_slice(), [letter] if letter.id > before)).await;
        self.letters().await.pop().unwrap()
    }
}

/// What the engine says of the Integration, if it has said something yet.
pub(crate) fn report(engine: &Engine) -> Option<IntegrationReport> {
    engine.reports().borrow().integrations.get(&ObjectKey(REALM.into())).cloned()
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so().await {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
