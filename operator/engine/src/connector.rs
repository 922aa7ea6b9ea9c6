//! Live connectors: one client and one probe loop each.
//!
//! A healthy connector is probed at its own interval. An unhealthy one is looked at again after five seconds, backing off to that interval;
//! each look reads the Secret again, so that repairing the cause is all that a person has to do.

use crate::system::System;
use fairlead_model::report::{ConnectorReport, Failure};
use fairlead_model::unit::{ConnectorUnit, ObjectKey};
use fairlead_model::{Clock, RemoteError, Timestamp};
use fairlead_systems::{Client, Definition, Outside};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The first look after a failure.
const FIRST_RECHECK: Duration = Duration::from_secs(5);

/// One live connector.
pub(crate) struct Connection {
    unit: Arc<ConnectorUnit>,
    definition: Result<Arc<Definition>, RemoteError>,
    system: Result<Arc<dyn System>, RemoteError>,
    probe: Mutex<Option<Result<Timestamp, Failure>>>,
    cancel: CancellationToken,
}

impl Connection {
    fn start(unit: Arc<ConnectorUnit>, definition: Result<Arc<Definition>, RemoteError>, outside: &Outside) -> Arc<Self> {
        let connect = |definition: Arc<Definition>| Client::connect(&unit, definition, outside);
        let system = definition.clone().and_then(connect).map(|client| Arc::new(client) as Arc<dyn System>);
        let connection = Arc::new(Self { unit, definition, system, probe: Mutex::new(None), cancel: CancellationToken::new() });
        tokio::spawn(Arc::clone(&connection).probe_forever(Arc::clone(&outside.clock)));
        connection
    }

    /// The system, or why it cannot be used.
    pub(crate) fn system(&self) -> Result<&Arc<dyn System>, &RemoteError> {
        self.system.as_ref()
    }

    /// What the definition says of an entity.
    pub(crate) fn entity(&self, name: &str) -> Option<&fairlead_systems::Entity> {
        self.definition.as_ref().ok()?.entity(name)
    }

    /// The failure that keeps every call from succeeding for now: unusable configuration, or refused credentials.
    pub(crate) fn blocked(&self) -> Option<RemoteError> {
        match &self.system {
            Err(error) => Some(error.clone()),
            Ok(system) => system.auth_paused().map(|failure| failure.error),
        }
    }

    async fn probe_forever(self: Arc<Self>, clock: Arc<dyn Clock>) {
        let mut wait = FIRST_RECHECK;
        loop {
            let result = match &self.system {
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
        match &self.system {
            Ok(system) => {
                // Refused credentials show at once, not only at the next probe.
                let probe = system.auth_paused().map(Err).or(probe);
                ConnectorReport {
                    digest: self.unit.digest.clone(),
                    probe,
                    circuit: system.circuit(),
                    quota: system.quota(),
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
                throttled_until: None,
            },
        }
    }
}

/// All live connectors.
pub(crate) struct Connectors {
    outside: Outside,
    live: Mutex<BTreeMap<ObjectKey, Arc<Connection>>>,
}

impl Connectors {
    /// None yet.
    pub(crate) fn new(outside: Outside) -> Self {
        Self { outside, live: Mutex::default() }
    }

    /// Starts what is new or changed, stops what is gone; untouched ones keep their tokens, limits and circuit.
    pub(crate) fn apply(&self, units: &BTreeMap<ObjectKey, Arc<ConnectorUnit>>) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|key, connection| {
            let keep = units.get(key).is_some_and(|unit| unit.digest == connection.unit.digest);
            if !keep {
                connection.cancel.cancel();
            }
            keep
        });
        // Connectors of one system share its definition, as their units share its text.
        let mut shared: HashMap<_, _> = live.values().map(|connection| (text(&connection.unit), connection.definition.clone())).collect();
        for (key, unit) in units.iter() {
            if !live.contains_key(key) {
                let definition = shared.entry(text(unit)).or_insert_with(|| Definition::of_unit(unit).map(Arc::new)).clone();
                live.insert(key.clone(), Connection::start(Arc::clone(unit), definition, &self.outside));
            }
        }
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
}

/// Where the text of a unit's definition lies; the planner gives units of one definition the same one.
fn text(unit: &ConnectorUnit) -> usize {
    unit.definition.as_ptr().addr()
}
