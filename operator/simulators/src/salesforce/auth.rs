//! Tokens: client credentials and JWT bearer, as the org's own host gives them.
//!
//! Tokens are opaque, carry no lifetime, and end after two hours without use or when a fault says so; the only sign is the
//! 401 on the next call. Keys and secrets are made for one run of one simulator and open nothing else.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Duration, Utc};
use hmac::{Hmac, Mac};
use indexmap::IndexMap;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use rand::Rng;
use rand::distr::Alphanumeric;
use serde::Deserialize;
use sha2::Sha256;

use super::{API, ids};
use crate::core::value::Value;
use crate::core::vendor::{Reply, Request};

/// The user that clients act as.
pub(super) const USERNAME: &str = "integration@fairlead.example";

/// Idle time after which a session ends.
const IDLE: Duration = Duration::hours(2);

/// The longest life of an assertion that the platform takes.
const ASSERTION: i64 = 300;

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The app that an administrator has set up, and the sessions it holds.
pub(super) struct Auth {
    client_id: String,
    client_secret: String,
    private_key: String,
    public_key: DecodingKey,
    endpoint: String,
    org: String,
    user: String,
    sessions: Mutex<HashMap<String, DateTime<Utc>>>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    exp: Value,
}

impl Claims {
    /// Seconds until the assertion ends. Known clients send the number as text, and the platform takes it.
    fn left(&self) -> Option<i64> {
        let (Value::Number(text) | Value::Text(text)) = &self.exp else { return None };
        text.parse::<i64>().ok().map(|exp| exp - Utc::now().timestamp())
    }
}

impl Auth {
    pub(super) fn new(endpoint: &str, seed: u64, org: &str, user: &str) -> anyhow::Result<Self> {
        let pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)?;
        let public_key = DecodingKey::from_rsa_pem(pair.public_key_pem().as_bytes())?;
        Ok(Self {
            client_id: format!("3MVG9fairlead{:016x}", crate::core::universe::mix(seed)),
            client_secret: random(48),
            private_key: pair.serialize_pem(),
            public_key,
            endpoint: endpoint.to_owned(),
            org: org.to_owned(),
            user: user.to_owned(),
            sessions: Mutex::new(HashMap::new()),
        })
    }

    pub(super) fn credentials(&self) -> IndexMap<String, String> {
        [
            ("clientId", self.client_id.as_str()),
            ("clientSecret", &self.client_secret),
            ("username", USERNAME),
            ("privateKey", &self.private_key),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, DateTime<Utc>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn expire(&self) {
        self.sessions().clear();
    }

    /// True where the request carries a session that has not ended.
    pub(super) fn admits(&self, request: &Request) -> bool {
        let Some(token) = request.header("authorization").and_then(bearer) else { return false };
        let now = Utc::now();
        let mut sessions = self.sessions();
        match sessions.get_mut(token) {
            Some(used) if now - *used < IDLE => {
                *used = now;
                true
            }
            _ => false,
        }
    }

    /// `POST /services/oauth2/token`.
    pub(super) fn token(&self, request: &Request) -> Reply {
        let form = request.form();
        let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        match field("grant_type") {
            Some("client_credentials") => {
                let basic = request.header("authorization").and_then(basic);
                let (id, secret) = match &basic {
                    Some((id, secret)) => (Some(id.as_str()), Some(secret.as_str())),
                    None => (field("client_id"), field("client_secret")),
                };
                match (id, secret) {
                    (None, _) | (_, None) => refused("invalid_request", "missing required parameters: client_id or client_secret"),
                    (Some(id), _) if id != self.client_id => refused("invalid_client_id", "client identifier invalid"),
                    (_, Some(secret)) if secret != self.client_secret => refused("invalid_client", "invalid client credentials"),
                    _ => self.grant(),
                }
            }
            Some(JWT_BEARER) => match field("assertion") {
                None => refused("invalid_request", "missing required parameter: assertion"),
                Some(assertion) => self.assert(assertion),
            },
            None => refused("invalid_request", "missing required parameter: grant_type"),
            Some(_) => refused("unsupported_grant_type", "grant type not supported"),
        }
    }

    fn assert(&self, assertion: &str) -> Reply {
        let mut validation = Validation::new(Algorithm::RS256);
        let audiences = ["https://login.salesforce.com", "https://test.salesforce.com", self.endpoint.as_str()];
        validation.set_audience(&audiences);
        validation.set_required_spec_claims(&["iss", "sub", "aud"]);
        validation.validate_exp = false;
        match decode::<Claims>(assertion, &self.public_key, &validation) {
            Err(error) => {
                let description = match error.kind() {
                    jsonwebtoken::errors::ErrorKind::InvalidAudience => "audience is invalid",
                    _ => "invalid assertion",
                };
                refused("invalid_grant", description)
            }
            Ok(token) if token.claims.iss != self.client_id => refused("invalid_client_id", "client identifier invalid"),
            Ok(token) if token.claims.sub != USERNAME => refused("invalid_grant", "user hasn't approved this consumer"),
            Ok(token) => match token.claims.left() {
                Some(1..=ASSERTION) => self.grant(),
                Some(..=0) => refused("invalid_grant", "expired authorization code"),
                _ => refused("invalid_grant", "invalid assertion"),
            },
        }
    }

    fn grant(&self) -> Reply {
        let token = format!("{}!AQ{}", &self.org[..15], random(90));
        let now = Utc::now();
        self.sessions().insert(token.clone(), now);
        let issued = now.timestamp_millis().to_string();
        let identity = format!("https://login.salesforce.com/id/{}/{}", self.org, self.user);
        let signature = Hmac::<Sha256>::new_from_slice(self.client_secret.as_bytes())
            .map(|mac| STANDARD.encode(mac.chain_update(&identity).chain_update(&issued).finalize().into_bytes()))
            .unwrap_or_default();
        let body = Value::object([
            ("access_token", Value::Text(token)),
            ("signature", Value::Text(signature)),
            ("scope", Value::text("api")),
            ("instance_url", Value::text(&self.endpoint)),
            ("id", Value::Text(identity)),
            ("token_type", Value::text("Bearer")),
            ("issued_at", Value::Text(issued)),
            ("api_instance_url", Value::text("https://api.salesforce.com")),
        ]);
        Reply::json(200, API, &body).with("cache-control", "no-cache, no-store")
    }

    /// `POST /services/oauth2/revoke`.
    pub(super) fn revoke(&self, request: &Request) -> Reply {
        let form = request.form();
        let token = form.iter().find(|(key, _)| key == "token").map(|(_, token)| token.clone());
        match token.and_then(|token| self.sessions().remove(&token)) {
            Some(_) => Reply::empty(200),
            None => refused("unsupported_token_type", "this token type is not supported"),
        }
    }
}

/// An error of the token endpoint: an object, not an array.
pub(super) fn refused(error: &str, description: &str) -> Reply {
    let body = Value::object([("error", Value::text(error)), ("error_description", Value::text(description))]);
    Reply::json(400, API, &body)
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("oauth")).then(|| token.trim())
}

fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    let decoded = STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':').map(|(id, secret)| (id.to_owned(), secret.to_owned()))
}

fn random(length: usize) -> String {
    rand::rng().sample_iter(Alphanumeric).take(length).map(char::from).collect()
}

/// The second user of the org: the person who works in its screens.
pub(super) fn person() -> String {
    ids::make("005", 2)
}
