//! A token issuer for development: gives anybody who asks a token for any client and any scopes.
//!
//! `fairlead run`, `fairlead demo` and tests start it so that a served contract can be called at once, with an ordinary OAuth 2.0 client:
//!
//! ```text
//! curl -d grant_type=client_credentials -d client_id=web-shop -d scope=customers.read http://127.0.0.1:8090/token
//! ```
//!
//! Its key is made at start and kept nowhere. Whoever reaches it, is whoever they say: beside a running Fairlead it listens on loopback only and
//! refuses anything else. [`DevelopmentIssuer::simulate`] is for a test cluster whose pods must reach it.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use fairlead_model::Clock;
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// How long a token lives.
pub const LIFETIME: Duration = Duration::from_secs(3600);

/// Why there is no issuer.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// It would be reachable from elsewhere.
    #[error("{0} is no loopback address; the development issuer gives tokens to anybody and must not be reachable from elsewhere")]
    NotLoopback(SocketAddr),
    /// No key could be made.
    #[error("no key could be made")]
    NoKey,
    /// It cannot listen.
    #[error("cannot listen: {0}")]
    Listen(#[from] std::io::Error),
}

/// What a token is to say.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The client.
    pub client_id: String,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// Whom it is for.
    pub audience: String,
    /// How long it lives.
    pub lifetime: Duration,
}

/// A running issuer; it ends when this is dropped.
#[derive(Debug)]
pub struct DevelopmentIssuer {
    inner: Arc<Inner>,
    task: AbortHandle,
}

struct Inner {
    issuer: String,
    audience: String,
    clock: Arc<dyn Clock>,
    /// The key that signs, first, and the one before it.
    keys: Mutex<Vec<SigningKey>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

struct SigningKey {
    id: String,
    pair: Ed25519KeyPair,
}

impl SigningKey {
    fn generate() -> Result<Self, IssuerError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| IssuerError::NoKey)?;
        Ok(Self { id: uuid::Uuid::new_v4().to_string(), pair })
    }
}

impl DevelopmentIssuer {
    /// Starts it on `listener`, a loopback address. Tokens are for `audience` unless the client asks for another.
    ///
    /// # Errors
    /// The listener is reachable from elsewhere, or no key can be made.
    pub fn start(listener: TcpListener, audience: &str, clock: Arc<dyn Clock>) -> Result<Self, IssuerError> {
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            return Err(IssuerError::NotLoopback(address));
        }
        Self::simulate(listener, audience, clock)
    }

    /// Starts it on `listener` wherever that is, as a stand-in for a company's authorization server in a test.
    ///
    /// # Errors
    /// No key can be made.
    pub fn simulate(listener: TcpListener, audience: &str, clock: Arc<dyn Clock>) -> Result<Self, IssuerError> {
        let address = listener.local_addr()?;
        let keys = Mutex::new(vec![SigningKey::generate()?]);
        let inner = Arc::new(Inner { issuer: format!("http://{address}"), audience: audience.to_owned(), clock, keys });
        let router = Router::new()
            .route("/token", post(token))
            .route("/jwks.json", get(key_set))
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .with_state(inner.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await }).abort_handle();
        Ok(Self { inner, task })
    }

    /// The `iss` claim: also the URL below which everything is.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.inner.issuer
    }

    /// Where its keys are.
    #[must_use]
    pub fn jwks_uri(&self) -> String {
        format!("{}/jwks.json", self.inner.issuer)
    }

    /// A signed token (RFC 9068).
    #[must_use]
    pub fn token(&self, grant: &Grant) -> String {
        self.inner.sign(grant)
    }

    /// Signs with a new key from now on. The key before it stays in the set, so that its tokens stay good; older ones go.
    ///
    /// # Errors
    /// No key can be made; the old one stays.
    pub fn rotate(&self) -> Result<(), IssuerError> {
        let mut keys = self.inner.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.insert(0, SigningKey::generate()?);
        keys.truncate(2);
        Ok(())
    }
}

impl Drop for DevelopmentIssuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Inner {
    fn sign(&self, grant: &Grant) -> String {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(key) = keys.first() else { return String::new() };
        let now = self.clock.now();
        let header = json!({"typ": "at+jwt", "alg": "EdDSA", "kid": key.id});
        let claims = json!({
            "iss": self.issuer,
            "sub": grant.client_id,
            "client_id": grant.client_id,
            "aud": grant.audience,
            "scope": grant.scopes.join(" "),
            "iat": now.0.div_euclid(1000),
            "exp": now.plus(grant.lifetime).0.div_euclid(1000),
            "jti": uuid::Uuid::new_v4(),
        });
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(key.pair.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

async fn key_set(State(inner): State<Arc<Inner>>) -> Json<Value> {
    let keys = inner.keys.lock().unwrap_or_else(PoisonError::into_inner);
    let keys: Vec<Value> = keys
        .iter()
        .map(|key| {
            let x = URL_SAFE_NO_PAD.encode(key.pair.public_key());
            json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.id, "x": x})
        })
        .collect();
    Json(json!({"keys": keys}))
}

/// RFC 8414.
async fn metadata(State(inner): State<Arc<Inner>>) -> Json<Value> {
    let issuer = &inner.issuer;
    Json(json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/jwks.json"),
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
    }))
}

#[derive(Deserialize)]
struct Asked {
    grant_type: String,
    client_id: Option<String>,
    scope: Option<String>,
    audience: Option<String>,
    /// RFC 8707's word for the audience.
    resource: Option<String>,
}

/// RFC 6749, section 4.4. A secret is taken and not looked at.
async fn token(State(inner): State<Arc<Inner>>, headers: HeaderMap, Form(asked): Form<Asked>) -> impl IntoResponse {
    const NO_STORE: [(HeaderName, HeaderValue); 1] = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    let refused = |error: &str| (StatusCode::BAD_REQUEST, NO_STORE, Json(json!({"error": error})));
    if asked.grant_type != "client_credentials" {
        return refused("unsupported_grant_type");
    }
    let Some(client_id) = asked.client_id.or_else(|| basic(&headers)) else { return refused("invalid_request") };
    let scopes: Vec<String> = asked.scope.unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
    let scope = scopes.join(" ");
    let audience = asked.audience.or(asked.resource).unwrap_or_else(|| inner.audience.clone());
    let token = inner.sign(&Grant { client_id, scopes, audience, lifetime: LIFETIME });
    let answer = json!({"access_token": token, "token_type": "Bearer", "expires_in": LIFETIME.as_secs(), "scope": scope});
    (StatusCode::OK, NO_STORE, Json(answer))
}

fn basic(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let decoded = String::from_utf8(STANDARD.decode(text).ok()?).ok()?;
    decoded.split_once(':').map(|(client, _)| client.to_owned())
}
