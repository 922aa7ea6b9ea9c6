//! Live connectors: one client and one probe loop each.
//!
//! A healthy connector is probed at its own interval. An unhealthy one is looked at again after five seconds, backing off to that interval, or to
//! a minute where that is longer; each look reads the Secret again, so that repairing the cause is all that a person has to do. Where a Connector
//! limits its requests a day, their count is kept in the store.
//!
//! Where several processes share the work, an account's limits are divided among those that use it ([`Neighbours::share_of`]), anew at every look at
//! who is there. What a vendor asks one of them to wait is a lease of that length, which the others see at their next look.

use crate::metrics::Load;
use crate::neighbours::{LOOK_EVERY, Neighbours, UsedBy};
use crate::shared::lock;
use crate::system::System;
use crate::usage;
use fairlead_model::report::{ConnectorReport, Failure};
use fairlead_model::unit::{ConnectorUnit, ObjectKey, Units};
use fairlead_model::{Clock, RemoteError, Timestamp};
use fairlead_store::{LeaseRequest, Store, StoreError};
use fairlead_systems::{Client, Definition, Outside, Priority};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The first look after a failure.
const FIRST_RECHECK: Duration = Duration::from_secs(5);

/// So long a wait is taken over from another process at every look: until the next one, even if that comes late.
const HELD: Duration = LOOK_EVERY.saturating_mul(3);

/// One live connector.
pub(crate) struct Connection {
    unit: Arc<ConnectorUnit>,
    definition: Result<Arc<Definition>, RemoteError>,
    /// By priority, in the order of [`Priority::ALL`].
    systems: Result<[Arc<dyn System>; 4], RemoteError>,
    client: Option<Client>,
    probe: Mutex<Option<Result<Timestamp, Failure>>>,
    /// One at a time notes what was sent, or it would be noted twice.
    noting: tokio::sync::Mutex<()>,
    /// The wait that the others were told of.
    passed_on: Mutex<Option<Timestamp>>,
    cancel: CancellationToken,
}

impl Connection {
    fn start(
        unit: Arc<ConnectorUnit>,
        definition: Result<Arc<Definition>, RemoteError>,
        outside: &Outside,
        store: &Arc<dyn Store>,
        before: Option<&Self>,
    ) -> Arc<Self> {
        let client = definition.clone().and_then(|definition| Client::connect(&unit, definition, outside));
        // What the account was told outlives an edit of its Connector.
        let before = before.filter(|before| is_same_account(&before.unit, &unit)).and_then(|before| before.client.as_ref());
        if let (Ok(client), Some(wait)) = (&client, before.and_then(Client::asked_to_wait)) {
            client.wait(wait);
        }
        let at = |client: &Client| Priority::ALL.map(|priority| Arc::new(client.at(priority)) as Arc<dyn System>);
        let systems = client.as_ref().map(at).map_err(Clone::clone);
        let client = client.ok();
        let (probe, noting, cancel) = (Mutex::default(), tokio::sync::Mutex::default(), CancellationToken::new());
        let connection = Arc::new(Self { unit, definition, systems, client, probe, noting, passed_on: Mutex::default(), cancel });
        tokio::spawn(Arc::clone(&connection).probe_forever(Arc::clone(&outside.clock)));
        if connection.counts() {
            tokio::spawn(Arc::clone(&connection).note_forever(Arc::clone(store)));
        }
        connection
    }

    /// The system for requests of this priority, or why it cannot be used.
    pub(crate) fn system(&self, priority: Priority) -> Result<&Arc<dyn System>, &RemoteError> {
        self.systems.as_ref().map(|systems| &systems[priority as usize])
    }

    /// What the definition says of an entity.
    pub(crate) fn entity(&self, name: &str) -> Option<&fairlead_systems::Entity> {
        self.definition.as_ref().ok()?.entity(name)
    }

    /// The failure that keeps every call from succeeding for now: unusable configuration, or refused credentials.
    pub(crate) fn blocked(&self) -> Option<RemoteError> {
        match self.system(Priority::Live) {
            Err(error) => Some(error.clone()),
            Ok(system) => system.auth_paused().map(|failure| failure.error),
        }
    }

    /// The lease that lasts while the vendor wants nothing sent.
    fn wait_key(&self) -> String {
        // No realm is called so.
        format!("wait/account:{}", self.unit.object)
    }

    /// Takes its part of the account, and waits with another process that was told to.
    fn divide(&self, neighbours: &Neighbours, used_by: &BTreeSet<UsedBy>) {
        let Ok(system) = self.system(Priority::Live) else { return };
        system.divide(neighbours.share_of(used_by));
        if neighbours.another_has(&self.wait_key()) {
            system.hold(HELD);
        }
    }

    /// Tells the other processes what the vendor asked this one to wait.
    async fn pass_on(&self, store: &dyn Store, clock: &dyn Clock, holder: &str) -> Result<(), StoreError> {
        let until = self.system(Priority::Live).ok().and_then(|system| system.told_to_wait());
        let Some(until) = until.filter(|until| *lock(&self.passed_on) != Some(*until)) else { return Ok(()) };
        let now = clock.now();
        let request = LeaseRequest { keys: vec![self.wait_key()], holder: holder.to_owned(), ttl: until.since(now), now };
        // Where another one has it, that one's wait counts until it is over; then this one's, if it is longer.
        if store.lease(&request).await?.iter().any(Option::is_some) {
            *lock(&self.passed_on) = Some(until);
        }
        Ok(())
    }

    /// Whether its requests are counted beyond the life of the process.
    fn counts(&self) -> bool {
        self.unit.limits.daily_requests.is_some()
    }

    /// Notes what was sent today, and takes in what is noted.
    async fn note(&self, store: &dyn Store) {
        let Ok(system) = self.system(Priority::Live) else { return };
        let _one = self.noting.lock().await;
        if let Err(error) = usage::keep(store, &ObjectKey::from(&self.unit.object), system.as_ref()).await {
            tracing::debug!(connector = %self.unit.object, %error, "the day's requests are noted later");
        }
    }

    async fn note_forever(self: Arc<Self>, store: Arc<dyn Store>) {
        loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return,
                () = tokio::time::sleep(usage::EVERY) => {}
            }
            self.note(store.as_ref()).await;
        }
    }

    async fn probe_forever(self: Arc<Self>, clock: Arc<dyn Clock>) {
        let mut wait = FIRST_RECHECK;
        loop {
            let result = match self.system(Priority::Live) {
                Err(error) => Err(error.clone()),
                Ok(system) => {
                    let paused = system.auth_paused().is_some();
                    let failed = matches!(*self.probe.lock().unwrap_or_else(PoisonError::into_inner), Some(Err(_)));
                    if paused || failed {
                        system.refresh_secret().await;
                    }
                    system.probe().await
                }
            };
            let now = clock.now();
            let healthy = result.is_ok();
            {
                let mut probe = self.probe.lock().unwrap_or_else(PoisonError::into_inner);
                let since = match &*probe {
                    Some(Err(failure)) if result.as_ref().err() == Some(&failure.error) => failure.at,
                    _ => now,
                };
                if let Err(error) = &result
                    && since == now
                {
                    tracing::warn!(connector = %self.unit.object, reason = %error.reason, detail = %error.message, "connector is not reachable");
                }
                if healthy && !matches!(*probe, Some(Ok(_))) {
                    tracing::info!(connector = %self.unit.object, "connector is reachable");
                }
                *probe = Some(result.map(|()| now).map_err(|error| Failure { at: since, error }));
            }
            let pause = if healthy {
                wait = FIRST_RECHECK;
                self.unit.probe_every
            } else {
                let pause = wait.min(self.unit.probe_every.max(FIRST_RECHECK));
                // Twelve looks within the first minute, then backing off: a cause mended soon is seen soon.
                let failing_for = match &*self.probe.lock().unwrap_or_else(PoisonError::into_inner) {
                    Some(Err(failure)) => clock.now().since(failure.at),
                    _ => Duration::ZERO,
                };
                if failing_for > Duration::from_secs(60) {
                    wait = (wait * 2).min(Duration::from_secs(60));
                }
                pause
            };
            // A call for data may find the credentials refused while all was well at the last look: the next one then comes soon too.
            let next = Instant::now() + pause;
            while Instant::now() < next && !(healthy && self.blocked().is_some()) {
                tokio::select! {
                    biased;
                    () = self.cancel.cancelled() => return,
                    () = tokio::time::sleep_until(next.min(Instant::now() + FIRST_RECHECK)) => {}
                }
            }
        }
    }

    fn report(&self) -> ConnectorReport {
        let probe = self.probe.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match self.system(Priority::Live) {
            Ok(system) => {
                // Refused credentials show at once, not only at the next probe.
                let probe = system.auth_paused().map(Err).or(probe);
                ConnectorReport {
                    digest: self.unit.digest.clone(),
                    probe,
                    circuit: system.circuit(),
                    quota: system.quota(),
                    spent: system.spent(),
                    throttled_until: system.throttled_until(),
                    last_error: system.last_error(),
                }
            }
            Err(_) => ConnectorReport {
                digest: self.unit.digest.clone(),
                last_error: probe.as_ref().and_then(|probe| probe.as_ref().err().cloned()),
                probe,
                circuit: fairlead_model::report::Circuit::Closed,
                quota: fairlead_model::report::Quota::Ample,
                spent: None,
                throttled_until: None,
            },
        }
    }

    fn load(&self) -> Load {
        match self.system(Priority::Live) {
            Ok(system) => Load { uses: system.uses(), waiting: system.waiting().to_vec() },
            Err(_) => Load::default(),
        }
    }
}

/// All live connectors.
pub(crate) struct Connectors {
    outside: Outside,
    store: Arc<dyn Store>,
    neighbours: Neighbours,
    live: Mutex<BTreeMap<ObjectKey, Arc<Connection>>>,
    /// What each is used for.
    used_by: Mutex<BTreeMap<ObjectKey, BTreeSet<UsedBy>>>,
}

impl Connectors {
    /// None yet.
    pub(crate) fn new(outside: Outside, store: Arc<dyn Store>, neighbours: Neighbours) -> Self {
        Self { outside, store, neighbours, live: Mutex::default(), used_by: Mutex::default() }
    }

    /// Keeps to its part of every account, as other processes come and go; not at all where the store is one process's.
    pub(crate) async fn share_forever(self: Arc<Self>, holder: String, cancel: CancellationToken) {
        let mut neighbours = self.neighbours.clone();
        while self.neighbours.share() {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = neighbours.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            self.divide();
            let live: Vec<_> = lock(&self.live).values().cloned().collect();
            for connection in live {
                if let Err(error) = connection.pass_on(self.store.as_ref(), self.outside.clock.as_ref(), &holder).await {
                    tracing::debug!(connector = %connection.unit.object, %error, "the others learn of the vendor's wait later");
                }
            }
        }
    }

    /// Divides every account anew.
    fn divide(&self) {
        let (live, used_by) = (lock(&self.live), lock(&self.used_by));
        let none = BTreeSet::new();
        live.iter().for_each(|(key, connection)| connection.divide(&self.neighbours, used_by.get(key).unwrap_or(&none)));
    }

    /// Starts what is new or changed, stops what is gone; untouched ones keep their tokens, limits and circuit. When it returns, those that are new
    /// know what was sent today before them, unless the store could not tell. Returns their names.
    pub(crate) async fn apply(&self, units: &Units) -> BTreeSet<ObjectKey> {
        *lock(&self.used_by) = used_by(units);
        let (gone, new) = self.swap(&units.connectors);
        self.divide();
        for connections in [&gone, &new] {
            let counted = connections.iter().filter(|connection| connection.counts());
            let noted = futures::future::join_all(counted.map(|connection| connection.note(self.store.as_ref())));
            // A store that does not answer holds up nobody; it is asked again.
            let _ = tokio::time::timeout(usage::EVERY, noted).await;
        }
        new.iter().map(|connection| ObjectKey::from(&connection.unit.object)).collect()
    }

    /// Those that are gone, and those that are new.
    fn swap(&self, units: &BTreeMap<ObjectKey, Arc<ConnectorUnit>>) -> (Vec<Arc<Connection>>, Vec<Arc<Connection>>) {
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|key, connection| {
            let keep = units.get(key).is_some_and(|unit| unit.digest == connection.unit.digest);
            if !keep {
                connection.cancel.cancel();
                gone.push(Arc::clone(connection));
            }
            keep
        });
        // Connectors of one system share its definition, as their units share its text.
        let mut shared: HashMap<_, _> = live.values().map(|connection| (text(&connection.unit), connection.definition.clone())).collect();
        for (key, unit) in units.iter() {
            if !live.contains_key(key) {
                let definition = shared.entry(text(unit)).or_insert_with(|| Definition::of_unit(unit).map(Arc::new)).clone();
                let before = gone.iter().find(|before: &&Arc<Connection>| ObjectKey::from(&before.unit.object) == *key);
                let before = before.map(AsRef::as_ref);
                let connection = Connection::start(Arc::clone(unit), definition, &self.outside, &self.store, before);
                live.insert(key.clone(), Arc::clone(&connection));
                new.push(connection);
            }
        }
        (gone, new)
    }

    /// The live connector `key`, if it runs.
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Arc<Connection>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// What each is like.
    pub(crate) fn reports(&self) -> BTreeMap<ObjectKey, ConnectorReport> {
        self.live
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(key, connection)| (key.clone(), connection.report()))
            .collect()
    }

    /// What each has to do.
    pub(crate) fn loads(&self) -> BTreeMap<ObjectKey, Load> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.iter().map(|(key, connection)| (key.clone(), connection.load())).collect()
    }
}

/// Whether two units of a Connector speak with one account of the vendor's, as far as can be told.
fn is_same_account(one: &ConnectorUnit, other: &ConnectorUnit) -> bool {
    let of = |unit: &ConnectorUnit| (unit.system.clone(), unit.endpoint.clone(), unit.parameters.clone(), unit.secret.clone());
    of(one) == of(other)
}

/// What each Connector is used for.
fn used_by(units: &Units) -> BTreeMap<ObjectKey, BTreeSet<UsedBy>> {
    let mut used: BTreeMap<ObjectKey, BTreeSet<UsedBy>> = BTreeMap::new();
    for unit in units.integrations.values() {
        for participant in &unit.participants {
            let by = UsedBy { realm: unit.realm(), participant: participant.name.clone() };
            used.entry(ObjectKey::from(&participant.connector)).or_default().insert(by);
        }
    }
    used
}

/// Where the text of a unit's definition lies; the planner gives units of one definition the same one.
fn text(unit: &ConnectorUnit) -> usize {
    unit.definition.as_ptr().addr()
}
