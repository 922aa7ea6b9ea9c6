//! The line to one system: every call of a client goes through here, in this order: pause, gate, authorisation, consent, exchange, judgement,
//! and once more after a refused token. What came of it is learnt by the gate, the credentials and the counters.

use super::budget::{self, Word};
use super::classify::{self, Judged, Told, Tried};
use super::credentials::{Credentials, endpoint, invalid};
use super::gate::{Errand, Gate, Showed};
use super::transport::{Answer, Outgoing, SendError, Sockets, Transport};
use super::turns::Priority;
use super::types::CallCounters;
use super::types::Outside;
use crate::definition::Definition;
use crate::definition::format::RequestFormat;
use crate::definition::template;
use crate::egress::{EndpointPolicy, Lookup};
use crate::{decode, message, reason};
use bytes::Bytes;
use fairlead_model::report::Failure;
use fairlead_model::unit::ConnectorUnit;
use fairlead_model::{Clock, ErrorClass, Random, RemoteError};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// One request, before it has a host and credentials.
#[derive(Clone)]
pub(crate) struct Call {
    /// `update of Account`, for messages.
    pub(crate) what: String,
    pub(crate) method: Method,
    pub(crate) path: Path,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<String>,
    /// It may have an effect.
    pub(crate) write: bool,
    /// It carries values of records.
    pub(crate) values: bool,
    pub(crate) deadline: Instant,
    /// Whether it still may be sent: asked while the request stands in line, and right before it goes out.
    pub(crate) allowed: Option<Allowed>,
    /// It is the probe: sent whatever is left of the quota.
    pub(crate) probe: bool,
}

/// Whether a request may still be sent: its caller's lease lasts, and nothing has called it off.
pub(crate) type Allowed = Arc<dyn Fn() -> bool + Send + Sync>;

/// So often a request that stands in line is asked whether it still may be sent.
const STILL_ALLOWED: Duration = Duration::from_millis(250);

impl Call {
    /// Ends when the call may not be sent any more.
    async fn called_off(&self) {
        let Some(allowed) = &self.allowed else { return std::future::pending().await };
        while allowed() {
            tokio::time::sleep(STILL_ALLOWED).await;
        }
    }

    fn not_sent(&self) -> RemoteError {
        let text =
            format!("{} was not sent: before its turn came it was called off, or the lease under which it was asked for ended", self.what);
        RemoteError::new(ErrorClass::Transient, reason::BUSY, text)
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("what", &self.what).finish_non_exhaustive()
    }
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub(crate) enum Path {
    /// Below the definition's base.
    Base(String),
    /// From the root of the same host: links that the vendor gives.
    Root(String),
}

/// The line to an account, for calls of one priority. A handle: all lines to an account share it.
#[derive(Clone)]
pub(crate) struct Line {
    account: Arc<Account>,
    pub(crate) priority: Priority,
}

impl std::ops::Deref for Line {
    type Target = Account;

    fn deref(&self) -> &Account {
        &self.account
    }
}

pub(crate) struct Account {
    pub(crate) definition: Arc<Definition>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) credentials: Credentials,
    pub(crate) gate: Gate,
    policy: EndpointPolicy,
    transport: Arc<dyn Transport>,
    parameters: BTreeMap<String, String>,
    endpoint: Url,
    headers: HeaderMap,
    counters: Mutex<CallCounters>,
    last_error: Mutex<Option<Failure>>,
}

impl Line {
    /// A line for live calls, until somebody wants another.
    pub(crate) fn new(unit: &ConnectorUnit, definition: Arc<Definition>, outside: &Outside, lookup: &Lookup) -> Result<Self, RemoteError> {
        let account = Arc::new(Account::new(unit, definition, outside, lookup)?);
        Ok(Self { account, priority: Priority::Live })
    }

    /// The same line for calls of another priority.
    pub(crate) fn at(&self, priority: Priority) -> Self {
        Self { account: Arc::clone(&self.account), priority }
    }

    /// Sends a call and returns its answer, whatever the body (but a web page is none).
    pub(crate) async fn send(&self, call: &Call) -> Result<Answer, RemoteError> {
        let result = Box::pin(self.exchange(call, false)).await;
        self.told(result).map(|(answer, _)| answer)
    }

    /// Sends a call whose answer must be JSON.
    pub(crate) async fn json(&self, call: &Call) -> Result<(Answer, Value), RemoteError> {
        let result = Box::pin(self.exchange(call, true)).await;
        self.told(result)
    }

    async fn exchange(&self, call: &Call, data: bool) -> Result<(Answer, Value), RemoteError> {
        let errand = if call.probe { Errand::Probe } else { Errand::Of(self.priority) };
        let admitted = self.held_back(self.in_time(call, self.credentials.admit()).await.and_then(|admitted| admitted))?;
        let entered = tokio::select! {
            biased;
            entered = self.gate.enter(errand, call.deadline) => entered,
            () = call.called_off() => Err(call.not_sent()),
        };
        let pass = self.held_back(entered)?;
        let mut again = true;
        let result = loop {
            // Another caller may be fetching the token, by a longer deadline than ours.
            let may_ask = || self.gate.waited_out();
            let authorize = self.credentials.authorize(&self.definition, self.transport.as_ref(), &may_ask, &admitted, call.deadline);
            let authorized = self.in_time(call, authorize).await;
            let authorization = match authorized {
                Err(error) => break Err(error),
                Ok(Ok(authorization)) => authorization,
                Ok(Err(failure)) => {
                    let wait = self.gate.learn(&failure.showed);
                    break Err(if wait.is_some() { failure.error.retry_after(wait) } else { *failure.error });
                }
            };
            let mut outgoing = self.outgoing(call, authorization.instance.as_ref())?;
            if let Err(error) = self.credentials.sign(&authorization, &mut outgoing) {
                self.credentials.refused(&error);
                break Err(error);
            }
            // While this one was authorised, another may have been told to wait.
            if let Err(error) = self.held_back(self.gate.waited_out()) {
                break Err(error);
            }
            if !call.allowed.as_ref().is_none_or(|allowed| allowed()) {
                break self.held_back(Err(call.not_sent()));
            }
            if let Err(error) = self.held_back(self.gate.leave(errand)) {
                break Err(error);
            }
            match self.once(call, outgoing, data).await {
                Err(error) if error.class == ErrorClass::Auth => {
                    // The vendor did nothing with a request it did not let in: sending it again is safe.
                    if again && self.credentials.renew(authorization.generation).await {
                        again = false;
                        continue;
                    }
                    self.credentials.refused(&error);
                    break Err(error);
                }
                result => {
                    if result.is_ok() {
                        self.credentials.accepted();
                    }
                    break result;
                }
            }
        };
        drop(pass);
        result
    }
}

impl Account {
    fn new(unit: &ConnectorUnit, definition: Arc<Definition>, outside: &Outside, lookup: &Lookup) -> Result<Self, RemoteError> {
        let Outside { secrets, endpoints: policy, clock, random, transport } = outside.clone();
        let mut parameters = BTreeMap::new();
        for parameter in definition.parameters() {
            if let Some(value) = unit.parameters.get(&parameter.name).cloned().or(parameter.default) {
                let fits = parameter
                    .pattern
                    .as_ref()
                    .is_none_or(|pattern| regex::Regex::new(&format!("^(?:{pattern})$")).is_ok_and(|pattern| pattern.is_match(&value)));
                if !fits {
                    return Err(invalid(format!(
                        "parameter {:?} does not have the form that {} wants",
                        parameter.name,
                        definition.system()
                    )));
                }
                parameters.insert(parameter.name, value);
            } else if parameter.required {
                return Err(invalid(format!("{} needs parameter {:?}: {}", definition.system(), parameter.name, parameter.description)));
            }
        }
        if let Some(unknown) = unit.parameters.keys().find(|name| !parameters.contains_key(*name)) {
            return Err(invalid(format!("{} declares no parameter {:?}", definition.system(), message::clean(unknown, 80))));
        }
        let version = if unit.version.is_empty() { definition.default_version().to_owned() } else { unit.version.clone() };
        if !version.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')) {
            return Err(invalid("the version holds characters that no version has"));
        }
        parameters.insert("version".into(), version);
        let endpoint = endpoint(&policy, &unit.endpoint)?;
        parameters.insert("endpoint".into(), endpoint.as_str().trim_end_matches('/').to_owned());
        let transport = match transport {
            Some(transport) => transport,
            None => Arc::new(Sockets::new(&policy, unit.ca_pem.as_deref(), lookup)?),
        };
        let render = |text: &str| {
            template::render(text, |name| parameters.get(name).cloned())
                .map_err(|name| invalid(format!("{} needs parameter {name:?} for what was asked of it", definition.system())))
        };
        let credentials = Credentials::new(&definition, &unit.auth_method, &render, secrets, unit.secret.clone(), &clock, &random)?;
        let mut headers = HeaderMap::new();
        for (name, value) in &definition.format.headers {
            put(&mut headers, name, &render(value)?)?;
        }
        let gate = Gate::new(&unit.limits, &unit.circuit_breaker, &definition.format.throttle, Arc::clone(&clock), Arc::clone(&random));
        Ok(Self {
            definition,
            clock,
            random,
            credentials,
            gate,
            policy,
            transport,
            parameters,
            endpoint,
            headers,
            counters: Mutex::default(),
            last_error: Mutex::default(),
        })
    }

    /// The longest that one request may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.definition.format.timeout.0
    }

    /// When a request that begins now must have ended.
    pub(crate) fn soon(&self) -> Instant {
        Instant::now() + self.timeout()
    }

    /// A call as a definition words it. `values` are the request's own placeholders; a query value that has none is left out.
    pub(crate) fn call(&self, what: String, request: &RequestFormat, values: &[(&str, &str)], write: bool) -> Result<Call, RemoteError> {
        let value = |name: &str| {
            let own = values.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            own.or_else(|| self.parameters.get(name).cloned())
        };
        let unknown = |name: String| invalid(format!("{what} needs a value for {name:?}, and there is none"));
        let path = template::render(&request.path, |name| value(name).map(|value| template::encode(&value))).map_err(unknown)?;
        let mut query = Vec::new();
        for (name, format) in &request.query {
            let text = format.text();
            // A placeholder that is known but has nothing to say (the first cursor) takes its parameter away.
            let absent = template::names(&text).unwrap_or_default().iter().any(|name| value(name).is_some_and(|value| value.is_empty()));
            if !absent {
                query.push((name.clone(), template::render(&text, value).map_err(unknown)?));
            }
        }
        let headers = request.headers.iter();
        let headers = headers.map(|(name, text)| Ok((name.clone(), template::render(text, value).map_err(unknown)?)));
        let headers = headers.collect::<Result<Vec<_>, RemoteError>>()?;
        let method = Method::try_from(request.method.as_str()).map_err(|_| invalid("a request has no usable method"))?;
        Ok(Call {
            what,
            method,
            path: Path::Base(path),
            query,
            headers,
            body: None,
            write,
            values: write,
            deadline: self.soon(),
            allowed: None,
            probe: false,
        })
    }

    pub(crate) fn counters(&self) -> CallCounters {
        let mut counters = *self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.throttle_seconds = self.gate.waited();
        counters
    }

    pub(crate) fn last_error(&self) -> Option<Failure> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tried<'a>(&'a self, call: &'a Call) -> Tried<'a> {
        Tried {
            system: self.definition.system(),
            what: &call.what,
            write: call.write,
            values: call.values,
            known: self.credentials.known(),
        }
    }

    /// Judges the refusal of one item of a batch.
    pub(crate) fn judge_item(&self, what: &str, told: &Told) -> RemoteError {
        let tried = Tried { system: self.definition.system(), what, write: true, values: true, known: self.credentials.known() };
        classify::judge_item(&self.definition.format, tried, told)
    }

    /// Counts, takes secrets out of the message, and keeps the error for status.
    fn told<T>(&self, result: Result<T, RemoteError>) -> Result<T, RemoteError> {
        let result = result.map_err(|mut error| {
            error.message = self.credentials.known().redact(&error.message);
            error
        });
        self.counters.lock().unwrap_or_else(PoisonError::into_inner).count(&result);
        if let Err(error) = &result {
            // The one log of the vendor's own words: off by default, secrets taken out, cut.
            let words = error.detail.as_deref().unwrap_or_default();
            tracing::debug!(system = self.definition.system(), class = %error.class, reason = error.reason, message = error.message, words, "call failed");
            let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
            if !last.as_ref().is_some_and(|last| last.error.reason == error.reason && last.error.message == error.message) {
                *last = Some(Failure { at: self.clock.now(), error: error.clone().detail(None) });
            }
        }
        result
    }

    fn held_back<T>(&self, result: Result<T, RemoteError>) -> Result<T, RemoteError> {
        if result.is_err() {
            self.counters.lock().unwrap_or_else(PoisonError::into_inner).held_back += 1;
        }
        result
    }

    /// Waits for credentials no longer than the call may take.
    async fn in_time<T>(&self, call: &Call, future: impl Future<Output = T>) -> Result<T, RemoteError> {
        let late = |_| {
            let text = format!("{} could not be sent: its credentials were not ready before the deadline", call.what);
            RemoteError::new(ErrorClass::Transient, reason::ENDPOINT_UNREACHABLE, text)
        };
        tokio::time::timeout_at(call.deadline, Box::pin(future)).await.map_err(late)
    }

    /// One exchange, judged. With `data`, an answer that is not JSON is a failure.
    async fn once(&self, call: &Call, outgoing: Outgoing, data: bool) -> Result<(Answer, Value), RemoteError> {
        let answer = match self.transport.send(outgoing, call.deadline).await {
            Ok(answer) => answer,
            Err(error) => {
                let showed = match &error {
                    SendError::Refused(_) => Showed::Nothing,
                    SendError::TooLarge => Showed::Alive,
                    SendError::NotSent(_) | SendError::Cut(_) => Showed::Outage,
                };
                self.gate.learn(&showed);
                return Err(error.into_remote(&call.what, call.write));
            }
        };
        let told = self.learn_quota(&answer);
        match classify::judge(&self.definition.format, self.tried(call), &answer, self.clock.now()) {
            Some(Judged { error, mut showed }) => {
                if let Showed::Throttling { wait: wait @ None, .. } = &mut showed {
                    // The end of a window that is used up is how long to wait, though it is said in another place.
                    *wait = told.filter(|word| word.left == 0).and_then(|word| Some(word.ends?.since(self.clock.now())));
                }
                let wait = self.gate.learn(&showed);
                Err(if wait.is_some() { error.retry_after(wait) } else { error })
            }
            None => {
                let body = match decode::json(&answer.body) {
                    Ok(body) => Some(body),
                    Err(_) if data || answer.is_page() => None,
                    Err(_) => Some(Value::Null),
                };
                let Some(body) = body else {
                    let judged = classify::no_data(self.tried(call), &answer);
                    self.gate.learn(&judged.showed);
                    return Err(judged.error);
                };
                self.gate.learn(&Showed::Alive);
                Ok((answer, body))
            }
        }
    }

    fn learn_quota(&self, answer: &Answer) -> Option<Word> {
        let format = self.definition.format.quota.as_ref();
        let word = format.and_then(|format| budget::read(format, answer, self.clock.now()));
        match word {
            Some(word) => self.gate.quota_told(word),
            None if format.is_none() && answer.status < 400 => self.gate.quota_unknown(),
            None => {}
        }
        word
    }

    /// The request that a call makes; nothing is sent.
    pub(crate) fn outgoing(&self, call: &Call, instance: Option<&Url>) -> Result<Outgoing, RemoteError> {
        let host = instance.unwrap_or(&self.endpoint);
        let text = match &call.path {
            Path::Base(path) => {
                let base = template::render(&self.definition.format.base, |name| match name {
                    "endpoint" => Some(host.as_str().trim_end_matches('/').to_owned()),
                    name => self.parameters.get(name).cloned(),
                });
                let base = base.map_err(|name| invalid(format!("the definition's base needs parameter {name:?}")))?;
                format!("{}{path}", base.trim_end_matches('/'))
            }
            Path::Root(path) => format!("{}{path}", host.origin().ascii_serialization()),
        };
        let mut url = Url::parse(&text).map_err(|_| invalid("the definition's base and path make no URL"))?;
        let same =
            url.host() == host.host() && url.port_or_known_default() == host.port_or_known_default() && url.scheme() == host.scheme();
        if !same {
            return Err(invalid("a path of the definition leads away from the endpoint's host"));
        }
        self.policy.judge_url(&url).map_err(|refused| crate::egress::not_allowed(&refused))?;
        if !call.query.is_empty() {
            let query: Vec<String> =
                call.query.iter().map(|(name, value)| format!("{}={}", template::encode(name), template::encode(value))).collect();
            let before = url.query().map(|query| format!("{query}&")).unwrap_or_default();
            url.set_query(Some(&format!("{before}{}", query.join("&"))));
        }
        let mut headers = self.headers.clone();
        headers.insert(http::header::ACCEPT, HeaderValue::from_static("application/json"));
        if call.body.is_some() {
            headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in &call.headers {
            put(&mut headers, name, value)?;
        }
        Ok(Outgoing { method: call.method.clone(), url, headers, body: call.body.clone().map(Bytes::from) })
    }
}

fn put(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), RemoteError> {
    let name = HeaderName::try_from(name).map_err(|_| invalid(format!("{:?} is not a header's name", message::clean(name, 80))))?;
    let value = HeaderValue::try_from(value).map_err(|_| invalid(format!("header {name} has a value that no header can have")))?;
    headers.insert(name, value);
    Ok(())
}
