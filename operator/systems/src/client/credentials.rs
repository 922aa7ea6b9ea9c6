//! Credentials in use: the Secret's content, the token made with it, and the pause after a refusal.
//!
//! Flow: a call asks for its authorisation; one caller at a time reads the Secret and fetches a token, the others wait for its result. After
//! a refusal the client is paused: nothing more is sent until the Secret has changed or a re-check is due (5 s, backing off to 60 s), so that
//! a wrong password is one condition and no storm. Whoever was let in before shares a refusal that came meanwhile: of all who stood in line one
//! has asked. Credentials go to no host that the Secret does not name.

use super::classify::{self, Tried};
use super::gate::Showed;
use super::sign::{self, Keys, OAuth1};
use super::transport::{Outgoing, Transport};
use crate::definition::Definition;
use crate::definition::format::{AuthFormat, ClientPlace, TokenFormat};
use crate::definition::template;
use crate::secret::{SecretData, SecretError, SecretSource, SecretString};
use crate::{decode, egress, message, reason};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fairlead_model::report::Failure;
use fairlead_model::{Clock, ErrorClass, ObjectRef, Random, RemoteError, Timestamp};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// How old the Secret's content may become before it is read again.
const SECRET_AGE: Duration = Duration::from_secs(600);

/// First and longest wait between re-checks of refused credentials; the first holds for [`RECHECK_FAST`], then it doubles.
const RECHECK: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
const RECHECK_FAST: Duration = Duration::from_secs(60);

/// The most secret values that are remembered for taking them out of texts.
const MAX_KNOWN: usize = 256;

/// A failure on the way to an authorisation, and what it showed of the vendor.
pub(crate) struct AuthFailure {
    /// Boxed, since every answer of the way there carries it.
    pub(crate) error: Box<RemoteError>,
    pub(crate) showed: Showed,
}

impl AuthFailure {
    fn own(error: RemoteError) -> Self {
        Self { error: Box::new(error), showed: Showed::Nothing }
    }
}

/// What a call needs to be authorised.
#[derive(Clone)]
pub(crate) struct Authorization {
    kind: Kind,
    secret: Arc<SecretData>,
    /// Where data calls go, if the token's answer named it.
    pub(crate) instance: Option<Url>,
    /// Which token or Secret this is; a refusal names it.
    pub(crate) generation: u64,
}

#[derive(Clone)]
enum Kind {
    Header(HeaderName, SecretString),
    OAuth1 { realm: String },
}

pub(crate) struct Credentials {
    source: Arc<dyn SecretSource>,
    object: ObjectRef,
    auth: AuthFormat,
    /// Token endpoint, realm and audience with the connector's parameters put in.
    rendered: Rendered,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    state: tokio::sync::Mutex<State>,
    refusals: Mutex<Refusals>,
    known: Known,
}

/// Refusals so far, and the pause after the last, while it lasts.
#[derive(Default)]
struct Refusals {
    count: u64,
    pause: Option<Pause>,
}

/// That a call was let in, and after how many refusals.
pub(crate) struct Admitted(u64);

/// Secret values in use, so that they can be taken out of what a vendor repeats. Former ones stay: they may still be good, and answers to
/// requests that were signed with them are still to come.
#[derive(Default)]
pub(crate) struct Known(Mutex<Vec<SecretString>>);

impl Known {
    /// Takes secret values out of a text for people.
    pub(crate) fn redact(&self, text: &str) -> String {
        message::redact(text, &self.lock())
    }

    /// Remembers values; the newest are kept.
    pub(crate) fn remember(&self, values: impl IntoIterator<Item = SecretString>) {
        let mut known = self.lock();
        for value in values {
            known.retain(|known| known.expose() != value.expose());
            known.push(value);
        }
        let excess = known.len().saturating_sub(MAX_KNOWN);
        known.drain(..excess);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<SecretString>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token endpoint, and the form fields that go there besides the grant's own.
type TokenPlace = (Option<Url>, Vec<(String, String)>);

#[derive(Default)]
struct Rendered {
    token_url: Option<Url>,
    form: Vec<(String, String)>,
    audience: String,
    realm: String,
}

#[derive(Default)]
struct State {
    secret: Option<Arc<SecretData>>,
    /// When the Secret was read; `None` wants it read anew.
    read: Option<Timestamp>,
    token: Option<Token>,
    generation: u64,
}

struct Token {
    value: SecretString,
    instance: Option<Url>,
    renew_at: Option<Timestamp>,
}

struct Pause {
    failure: Failure,
    next: Timestamp,
    wait: Duration,
}

impl Pause {
    fn refusal(&self, now: Timestamp) -> RemoteError {
        self.failure.error.clone().retry_after(Some(self.next.since(now)))
    }
}

impl Credentials {
    pub(crate) fn new(
        definition: &Definition,
        method: &str,
        render: &dyn Fn(&str) -> Result<String, RemoteError>,
        source: Arc<dyn SecretSource>,
        object: ObjectRef,
        clock: &Arc<dyn Clock>,
        random: &Arc<dyn Random>,
    ) -> Result<Self, RemoteError> {
        let auth = definition.format.auth.iter().find(|auth| auth.name() == method).cloned().ok_or_else(|| {
            let offered: Vec<&str> = definition.format.auth.iter().map(AuthFormat::name).collect();
            let text = format!("{} offers no authentication method {method:?}; it offers {}", definition.system(), offered.join(", "));
            RemoteError::new(ErrorClass::Configuration, reason::DEFINITION_INVALID, text)
        })?;
        let token = |token: &TokenFormat| -> Result<TokenPlace, RemoteError> {
            let text = render(&token.url)?;
            let url = Url::parse(&text).map_err(|_| invalid(format!("{text:?} is not a token endpoint")))?;
            let form = token.form.iter().map(|(name, value)| Ok((name.clone(), render(value)?))).collect::<Result<_, RemoteError>>()?;
            Ok((Some(url), form))
        };
        let mut rendered = Rendered::default();
        match &auth {
            AuthFormat::ApiKey { .. } | AuthFormat::Basic { .. } => {}
            AuthFormat::OAuth1 { realm, .. } => rendered.realm = render(realm)?,
            AuthFormat::ClientCredentials { token: format, .. } | AuthFormat::ClientAssertion { token: format, .. } => {
                (rendered.token_url, rendered.form) = token(format)?;
            }
            AuthFormat::JwtBearer { token: format, audience, .. } => {
                (rendered.token_url, rendered.form) = token(format)?;
                rendered.audience = render(audience)?;
            }
        }
        Ok(Self {
            source,
            object,
            auth,
            rendered,
            clock: Arc::clone(clock),
            random: Arc::clone(random),
            state: tokio::sync::Mutex::default(),
            refusals: Mutex::default(),
            known: Known::default(),
        })
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses while paused, but lets one call through when a re-check is due; that call reads the Secret anew.
    pub(crate) async fn admit(&self) -> Result<Admitted, RemoteError> {
        let now = self.clock.now();
        let admitted = {
            let mut refusals = self.refusals();
            let admitted = Admitted(refusals.count);
            let Some(pause) = refusals.pause.as_mut() else { return Ok(admitted) };
            if now < pause.next {
                return Err(pause.refusal(now));
            }
            if now.since(pause.failure.at) >= RECHECK_FAST {
                pause.wait = pause.wait.saturating_mul(2).min(RECHECK.1);
            }
            pause.next = now.plus(pause.wait);
            admitted
        };
        let mut state = self.state.lock().await;
        state.read = None;
        state.token = None;
        Ok(admitted)
    }

    /// Refuses a call that was let in before a refusal which still stands.
    fn stands(&self, admitted: &Admitted) -> Result<(), RemoteError> {
        let refusals = self.refusals();
        match &refusals.pause {
            Some(pause) if refusals.count != admitted.0 => Err(pause.refusal(self.clock.now())),
            _ => Ok(()),
        }
    }

    /// The credentials work.
    pub(crate) fn accepted(&self) {
        self.refusals().pause = None;
    }

    /// The credentials do not work: pauses the client.
    pub(crate) fn refused(&self, error: &RemoteError) {
        let now = self.clock.now();
        let mut refusals = self.refusals();
        refusals.count += 1;
        let failure = Failure { at: now, error: error.clone().detail(None) };
        let same = |pause: &Pause| pause.failure.error.reason == error.reason && pause.failure.error.message == error.message;
        match refusals.pause.as_mut() {
            Some(pause) if same(pause) => {}
            Some(pause) => pause.failure = failure,
            None => refusals.pause = Some(Pause { failure, next: now.plus(RECHECK.0), wait: RECHECK.0 }),
        }
    }

    pub(crate) fn paused(&self) -> Option<Failure> {
        self.refusals().pause.as_ref().map(|pause| pause.failure.clone())
    }

    /// The secret values in use.
    pub(crate) fn known(&self) -> &Known {
        &self.known
    }

    /// Reads the Secret now. If it changed, tokens are dropped and a pause ends.
    pub(crate) async fn refresh(&self) -> Result<(), RemoteError> {
        let mut state = self.state.lock().await;
        if self.reread(&mut state).await.map_err(|error| self.unreadable(&error))? {
            self.refusals().pause = None;
        }
        Ok(())
    }

    /// Drops the token of this generation, and reads the Secret anew if it is older than the refusal.
    /// True when trying again may help: there is another token to get, or the Secret has changed.
    pub(crate) async fn renew(&self, generation: u64) -> bool {
        let mut state = self.state.lock().await;
        if state.generation != generation {
            return true;
        }
        if state.token.take().is_some() {
            state.generation += 1;
            return true;
        }
        self.reread(&mut state).await.unwrap_or(false)
    }

    /// Reads the Secret now; true when its content is another than before, and then the token that was made with the former is dropped.
    async fn reread(&self, state: &mut State) -> Result<bool, SecretError> {
        let secret = Arc::new(self.source.get(&self.object).await?);
        let changed = state.secret.as_ref().is_none_or(|before| before.version != secret.version);
        if changed {
            state.token = None;
            state.generation += 1;
        }
        // What is in use becomes the newest of what is known, the token too.
        let token = state.token.as_ref().map(|token| token.value.clone());
        self.known.remember(secret.values.values().cloned().chain(pairs(&secret)).chain(token));
        (state.secret, state.read) = (Some(secret), Some(self.clock.now()));
        Ok(changed)
    }

    /// The Secret's content, read if there is none or it is old. One that cannot be read just now is used a while longer.
    async fn secret(&self, state: &mut State) -> Result<Arc<SecretData>, RemoteError> {
        let now = self.clock.now();
        if state.secret.is_none() || state.read.is_none_or(|read| now.since(read) >= SECRET_AGE) {
            match self.reread(state).await {
                Ok(_) => {}
                Err(SecretError::Unavailable(_)) if state.secret.is_some() => {}
                Err(error) => return Err(self.unreadable(&error)),
            }
        }
        state.secret.clone().ok_or_else(|| self.unreadable(&SecretError::NotFound))
    }

    fn unreadable(&self, error: &SecretError) -> RemoteError {
        let (class, word, hint) = match error {
            SecretError::NotFound => {
                (ErrorClass::Configuration, reason::SECRET_NOT_FOUND, "create it, or name another under auth.secretRef")
            }
            SecretError::Forbidden => (ErrorClass::Configuration, reason::SECRET_NOT_READABLE, "grant the worker's account `get` on it"),
            SecretError::Unavailable(_) => (ErrorClass::Transient, reason::SECRET_NOT_READABLE, "it is read again shortly"),
        };
        RemoteError::new(class, word, format!("Secret {}: {}; {hint}", self.object, message::clean(&error.to_string(), 200)))
    }

    fn value<'a>(&self, secret: &'a SecretData, key: &str) -> Result<&'a SecretString, RemoteError> {
        secret.values.get(key).filter(|value| !value.expose().trim().is_empty()).ok_or_else(|| {
            let text = format!("Secret {} has no key {key:?}, which authentication method {} needs", self.object, self.auth.name());
            RemoteError::new(ErrorClass::Configuration, reason::SECRET_KEY_MISSING, text)
        })
    }

    /// Whether credentials may go to this URL's host.
    fn consent(&self, secret: &SecretData, url: &Url) -> Result<(), RemoteError> {
        let host = url.host_str().unwrap_or_default();
        if secret.allows(host, url.port_or_known_default().unwrap_or_default()) {
            return Ok(());
        }
        let text = format!(
            "Secret {} may not be used for host {}; add the host to its annotation {}",
            self.object,
            message::clean(host, 120),
            crate::secret::ALLOWED_HOSTS
        );
        Err(RemoteError::new(ErrorClass::Configuration, reason::SECRET_HOST_NOT_ALLOWED, text))
    }

    /// What a call that was let in is authorised with. `may_ask` is asked right before a token is asked for. A refusal pauses the client before
    /// the next caller has its turn.
    pub(crate) async fn authorize(
        &self,
        definition: &Definition,
        transport: &dyn Transport,
        may_ask: &(dyn Fn() -> Result<(), RemoteError> + Sync),
        admitted: &Admitted,
        deadline: Instant,
    ) -> Result<Authorization, AuthFailure> {
        let mut state = self.state.lock().await;
        self.stands(admitted).map_err(AuthFailure::own)?;
        let authorized = self.authorized(&mut state, definition, transport, may_ask, deadline).await;
        if let Err(failure) = &authorized
            && matches!(failure.error.class, ErrorClass::Auth | ErrorClass::Configuration)
        {
            self.refused(&failure.error);
        }
        authorized
    }

    async fn authorized(
        &self,
        state: &mut State,
        definition: &Definition,
        transport: &dyn Transport,
        may_ask: &(dyn Fn() -> Result<(), RemoteError> + Sync),
        deadline: Instant,
    ) -> Result<Authorization, AuthFailure> {
        let secret = self.secret(state).await.map_err(AuthFailure::own)?;
        let header = |name: &str, value: String| {
            let name = HeaderName::try_from(name).map_err(|_| AuthFailure::own(invalid("the header of the API key has no usable name")))?;
            Ok(Kind::Header(name, SecretString::new(value)))
        };
        let value = |key: &str| self.value(&secret, key).map(SecretString::expose).map_err(AuthFailure::own);
        let (kind, instance) = match &self.auth {
            AuthFormat::ApiKey { header: name, prefix, secret_key, .. } => {
                (header(name, format!("{prefix}{}", value(secret_key)?.trim()))?, None)
            }
            AuthFormat::Basic { .. } => {
                let pair = STANDARD.encode(format!("{}:{}", value("username")?.trim(), value("password")?.trim()));
                (header("authorization", format!("Basic {pair}"))?, None)
            }
            AuthFormat::OAuth1 { .. } => {
                for key in ["consumerKey", "consumerSecret", "tokenId", "tokenSecret"] {
                    value(key)?;
                }
                (Kind::OAuth1 { realm: self.rendered.realm.clone() }, None)
            }
            AuthFormat::ClientCredentials { token, .. }
            | AuthFormat::JwtBearer { token, .. }
            | AuthFormat::ClientAssertion { token, .. } => {
                let now = self.clock.now();
                let fresh = state.token.as_ref().is_some_and(|token| token.renew_at.is_none_or(|renew| now < renew));
                if !fresh {
                    may_ask().map_err(AuthFailure::own)?;
                    let token = self.fetch(definition, transport, token, &secret, deadline).await?;
                    self.known.remember([token.value.clone()]);
                    state.token = Some(token);
                    state.generation += 1;
                }
                match &state.token {
                    Some(token) => (header("authorization", format!("Bearer {}", token.value.expose()))?, token.instance.clone()),
                    None => return Err(AuthFailure::own(invalid("there is no token"))),
                }
            }
        };
        Ok(Authorization { kind, secret, instance, generation: state.generation })
    }

    /// Puts the credentials on a request, if the Secret consents to its host.
    pub(crate) fn sign(&self, authorization: &Authorization, outgoing: &mut Outgoing) -> Result<(), RemoteError> {
        self.consent(&authorization.secret, &outgoing.url)?;
        let (name, value) = match &authorization.kind {
            Kind::Header(name, value) => (name.clone(), value.clone()),
            Kind::OAuth1 { realm } => {
                let secret = &authorization.secret;
                let nonce = format!("{:016x}{:016x}", self.random.bits(), self.random.bits());
                let trimmed = |key: &str| self.value(secret, key).map(|value| SecretString::new(value.expose().trim()));
                let (consumer_key, consumer_secret) = (trimmed("consumerKey")?, trimmed("consumerSecret")?);
                let (token, token_secret) = (trimmed("tokenId")?, trimmed("tokenSecret")?);
                let oauth = OAuth1 {
                    realm,
                    consumer_key: &consumer_key,
                    consumer_secret: &consumer_secret,
                    token: &token,
                    token_secret: &token_secret,
                    nonce: &nonce,
                    timestamp: self.clock.now().0 / 1000,
                };
                let header =
                    oauth.header(outgoing.method.as_str(), &outgoing.url).ok_or_else(|| invalid("the request cannot be signed"))?;
                (http::header::AUTHORIZATION, header)
            }
        };
        let mut value = HeaderValue::from_str(value.expose()).map_err(|_| {
            let text =
                format!("Secret {} holds characters that cannot stand in a header; remove line breaks and control characters", self.object);
            RemoteError::new(ErrorClass::Configuration, reason::SECRET_KEY_MISSING, text)
        })?;
        value.set_sensitive(true);
        outgoing.headers.insert(name, value);
        Ok(())
    }

    /// Asks the token endpoint.
    async fn fetch(
        &self,
        definition: &Definition,
        transport: &dyn Transport,
        format: &TokenFormat,
        secret: &SecretData,
        deadline: Instant,
    ) -> Result<Token, AuthFailure> {
        let url = self.rendered.token_url.clone().ok_or_else(|| AuthFailure::own(invalid("there is no token endpoint")))?;
        self.consent(secret, &url).map_err(AuthFailure::own)?;
        let outgoing = self.token_request(secret, url).map_err(AuthFailure::own)?;
        let tried = Tried { system: definition.system(), what: "the request for a token", write: false, values: false, known: &self.known };
        let answer = transport.send(outgoing, deadline).await.map_err(|error| {
            let showed = if matches!(error, super::transport::SendError::Refused(_)) { Showed::Nothing } else { Showed::Outage };
            AuthFailure { error: Box::new(error.into_remote(tried.what, false)), showed }
        })?;
        if let Some(mut judged) = classify::judge(&definition.format, tried, &answer, self.clock.now()) {
            if matches!(answer.status, 400 | 401 | 403) && !matches!(judged.error.class, ErrorClass::Throttled | ErrorClass::Transient) {
                judged.error.class = ErrorClass::Auth;
                judged.error.reason = reason::AUTHENTICATION_FAILED.into();
                judged.error.message = format!("{}; check the values of Secret {}", judged.error.message, self.object);
            }
            return Err(AuthFailure { error: Box::new(judged.error), showed: judged.showed });
        }
        let unusable = || {
            let judged = classify::no_data(tried, &answer);
            AuthFailure { error: Box::new(judged.error), showed: judged.showed }
        };
        let body = decode::json(&answer.body).map_err(|_| unusable())?;
        let value = body.get("access_token").and_then(Value::as_str).filter(|token| !token.is_empty()).ok_or_else(unusable)?;
        let life = match body.get("expires_in") {
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => text.parse().ok(),
            _ => None,
        };
        let instance = match format.instance.as_ref().and_then(|path| path.text(&body)) {
            None => None,
            Some(text) => {
                let url = Url::parse(&text).map_err(|_| AuthFailure::own(invalid("the token's answer names an unusable host")))?;
                self.consent(secret, &url).map_err(AuthFailure::own)?;
                Some(url)
            }
        };
        // Four fifths of its life, so that no token ends under way.
        let renew_at = life.map(|seconds| self.clock.now().plus(Duration::from_secs(seconds.saturating_mul(4) / 5)));
        Ok(Token { value: SecretString::new(value), instance, renew_at })
    }

    fn token_request(&self, secret: &SecretData, url: Url) -> Result<Outgoing, RemoteError> {
        let value = |key: &str| self.value(secret, key).map(|value| value.expose().trim().to_owned());
        let now = self.clock.now().0 / 1000;
        let mut form: Vec<(String, zeroize::Zeroizing<String>)> = Vec::new();
        let mut put = |name: &str, value: String| form.push((name.to_owned(), zeroize::Zeroizing::new(value)));
        let mut headers = HeaderMap::new();
        let signed = |claims: Value, key_id: Option<&str>, keys: Keys| {
            sign::assertion(&claims, key_id, self.value(secret, "privateKey")?, keys).map_err(|wanted| {
                let text = format!("key \"privateKey\" of Secret {} is not usable: it must be {wanted}", self.object);
                RemoteError::new(ErrorClass::Configuration, reason::SECRET_KEY_MISSING, text)
            })
        };
        let seconds = |lifetime: &crate::definition::path::Span| i64::try_from(lifetime.0.as_secs()).unwrap_or(180);
        match &self.auth {
            AuthFormat::ClientCredentials { client, .. } => {
                put("grant_type", "client_credentials".into());
                let (id, secret) = (value("clientId")?, value("clientSecret")?);
                match client {
                    ClientPlace::Form => {
                        put("client_id", id);
                        put("client_secret", secret);
                    }
                    ClientPlace::Basic => {
                        // RFC 6749 section 2.3.1 wants both form-encoded first; vendors differ where that matters, and ids without such characters are the rule.
                        let pair = STANDARD.encode(format!("{id}:{secret}"));
                        let mut header = HeaderValue::from_str(&format!("Basic {pair}"))
                            .map_err(|_| invalid("the client's id cannot stand in a header"))?;
                        header.set_sensitive(true);
                        headers.insert(http::header::AUTHORIZATION, header);
                    }
                }
            }
            AuthFormat::JwtBearer { lifetime, .. } => {
                let claims = json!({
                    "iss": value("clientId")?, "sub": value("username")?, "aud": self.rendered.audience, "exp": now + seconds(lifetime),
                });
                put("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer".into());
                put("assertion", signed(claims, None, Keys::Rs256)?.expose().to_owned());
            }
            AuthFormat::ClientAssertion { scopes, lifetime, .. } => {
                let claims = json!({
                    "iss": value("clientId")?, "scope": scopes, "aud": url.as_str(), "iat": now, "exp": now + seconds(lifetime),
                });
                put("grant_type", "client_credentials".into());
                put("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".into());
                put("client_assertion", signed(claims, Some(&value("certificateId")?), Keys::Es256OrPs256)?.expose().to_owned());
            }
            AuthFormat::ApiKey { .. } | AuthFormat::Basic { .. } | AuthFormat::OAuth1 { .. } => {
                return Err(invalid("this method has no token"));
            }
        }
        for (name, value) in &self.rendered.form {
            put(name, value.clone());
        }
        let body: Vec<String> =
            form.iter().map(|(name, value)| format!("{}={}", template::encode(name), template::encode(value))).collect();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(http::header::ACCEPT, HeaderValue::from_static("application/json"));
        Ok(Outgoing { method: Method::POST, url, headers, body: Some(Bytes::from(body.join("&"))) })
    }
}

/// What Basic authentication sends of a Secret: name and password, or a client's id and secret, in Base64.
fn pairs(secret: &SecretData) -> impl Iterator<Item = SecretString> {
    let pair = move |(name, password)| {
        let value = |key: &str| secret.values.get(key).map(|value| value.expose().trim());
        Some(SecretString::new(STANDARD.encode(format!("{}:{}", value(name)?, value(password)?))))
    };
    [("username", "password"), ("clientId", "clientSecret")].into_iter().filter_map(pair)
}

/// A definition or unit that cannot do what is asked.
pub(crate) fn invalid(text: impl Into<String>) -> RemoteError {
    RemoteError::new(ErrorClass::Configuration, reason::DEFINITION_INVALID, text)
}

/// Judges the URL of an endpoint before anything is done with it.
pub(crate) fn endpoint(policy: &egress::EndpointPolicy, text: &str) -> Result<Url, RemoteError> {
    // The text itself is not repeated: it may carry a password before an '@'.
    let refuse = |why: &str| {
        let text = format!("the connector's endpoint cannot be used: {}", message::clean(why, 250));
        RemoteError::new(ErrorClass::Configuration, reason::ENDPOINT_NOT_ALLOWED, text)
    };
    let url = Url::parse(text).map_err(|_| refuse("it is no URL; write for example https://acme.example.com"))?;
    policy.judge_url(&url).map_err(|refused| refuse(&refused.0))?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("it carries a query or fragment; write scheme, host and path alone"));
    }
    Ok(url)
}
