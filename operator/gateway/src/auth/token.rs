//! One access token: RFC 9068's claims, RFC 8725's rules, and a cache of those that were verified.

use super::keys::{Found, KeySet};
use crate::metrics::Metrics;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fairlead_model::Timestamp;
use jsonwebtoken::Algorithm;
use quick_cache::sync::Cache;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Number, Value};
use std::sync::Arc;
use std::time::Duration;

/// The largest token that is looked at, in bytes.
const MAX_TOKEN: usize = 8 * 1024;
/// How far an issuer's clock may be ahead of ours.
const SKEW_MS: i64 = 30_000;
/// How long a verified token is believed without looking at its signature again.
const CACHED: Duration = Duration::from_secs(60);

/// Whose tokens a route accepts, with their keys.
#[derive(Debug)]
pub(crate) struct TrustedIssuer {
    pub(crate) issuer: String,
    pub(crate) audiences: Vec<String>,
    pub(crate) keys: Arc<KeySet>,
}

/// What a token with a good signature says.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) issuer: String,
    audiences: Vec<String>,
    pub(crate) client_id: String,
    scopes: Vec<String>,
    /// Milliseconds, as all below.
    expires: i64,
    issued: i64,
    not_before: Option<i64>,
}

impl Verified {
    /// Whether it has all of these scopes.
    pub(crate) fn has_scopes(&self, wanted: &[String]) -> bool {
        wanted.iter().all(|scope| self.scopes.contains(scope))
    }
}

/// Why a token does not get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// With what is wrong in our words.
    Invalid(&'static str),
    /// It cannot be told: the issuer's keys are not known.
    KeysUnavailable,
}

#[derive(Clone)]
struct Cached {
    token: Arc<Verified>,
    generation: u64,
    until: Timestamp,
}

/// Verifies tokens.
pub(crate) struct Verifier {
    /// By a keyed hash of token and key set: who can send tokens cannot aim at an entry, and a key set vouches for no other's tokens.
    cache: Cache<[u8; 16], Cached>,
    hash: hmac::Key,
    metrics: Arc<Metrics>,
}

impl Verifier {
    /// Remembers at most `capacity` tokens.
    pub(crate) fn new(capacity: usize, metrics: Arc<Metrics>) -> Self {
        let secret: [u8; 32] = rand::random();
        Self { cache: Cache::new(capacity), hash: hmac::Key::new(hmac::HMAC_SHA256, &secret), metrics }
    }

    /// Verifies `token` for a route that trusts `issuers`, and passes what it says to `then`.
    pub(crate) async fn verify(
        &self,
        token: &str,
        issuers: &[TrustedIssuer],
        max_age: Option<Duration>,
        now: Timestamp,
    ) -> Result<Arc<Verified>, Denied> {
        if token.len() > MAX_TOKEN {
            return Err(Denied::Invalid("it is too long"));
        }
        for trusted in issuers {
            let place = self.place(token, &trusted.keys);
            if let Some(cached) = self.cache.get(&place) {
                let fresh = now < cached.until && cached.generation == trusted.keys.generation();
                if fresh && cached.token.issuer == trusted.issuer {
                    self.metrics.token_cache(true);
                    admit(&cached.token, trusted, max_age, now)?;
                    return Ok(cached.token);
                }
            }
        }
        self.metrics.token_cache(false);
        let (claims, trusted, generation) = signature(token, issuers).await?;
        let until = Timestamp(claims.expires).min(now.plus(CACHED));
        admit(&claims, trusted, max_age, now)?;
        let verified = Arc::new(claims);
        self.cache.insert(self.place(token, &trusted.keys), Cached { token: verified.clone(), generation, until });
        Ok(verified)
    }

    /// Forgets all tokens: keys were rotated. Entries under old keys would not be believed anyway; this frees their memory.
    pub(crate) fn flush(&self) {
        self.cache.clear();
    }

    fn place(&self, token: &str, keys: &KeySet) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.hash);
        context.update(&keys.id.to_le_bytes());
        context.update(token.as_bytes());
        let mut place = [0; 16];
        place.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
        place
    }
}

/// What holds for a route and this moment, beyond the signature.
fn admit(token: &Verified, trusted: &TrustedIssuer, max_age: Option<Duration>, now: Timestamp) -> Result<(), Denied> {
    let too_old = |age: Duration| i64::try_from(age.as_millis()).is_ok_and(|age| now.0.saturating_sub(token.issued) > age);
    if token.expires <= now.0 {
        return Err(Denied::Invalid("it is expired"));
    }
    if token.issued > now.0.saturating_add(SKEW_MS) || token.not_before.is_some_and(|at| at > now.0.saturating_add(SKEW_MS)) {
        return Err(Denied::Invalid("it is not valid yet"));
    }
    if max_age.is_some_and(too_old) {
        return Err(Denied::Invalid("it was issued too long ago"));
    }
    if !trusted.audiences.iter().any(|audience| token.audiences.contains(audience)) {
        return Err(Denied::Invalid("it is for another audience"));
    }
    Ok(())
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<Value>,
}

/// RFC 9068, section 2.2: all of these are required there.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    exp: Number,
    aud: Audience,
    #[serde(rename = "sub")]
    _sub: String,
    client_id: String,
    iat: Number,
    #[serde(rename = "jti")]
    _jti: String,
    #[serde(default)]
    nbf: Option<Number>,
    #[serde(default)]
    scope: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

async fn signature<'a>(token: &str, issuers: &'a [TrustedIssuer]) -> Result<(Verified, &'a TrustedIssuer, u64), Denied> {
    const NO_TOKEN: Denied = Denied::Invalid("it is no signed JSON Web Token");
    let (message, signature) = token.rsplit_once('.').ok_or(NO_TOKEN)?;
    let (header, payload) = message.split_once('.').filter(|(_, payload)| !payload.contains('.')).ok_or(NO_TOKEN)?;
    let header: Header = part(header).ok_or(NO_TOKEN)?;
    if header.crit.is_some() {
        return Err(Denied::Invalid("its header has critical extensions"));
    }
    let typ = header.typ.as_deref().unwrap_or_default().to_ascii_lowercase();
    if typ.strip_prefix("application/").unwrap_or(&typ) != "at+jwt" {
        return Err(Denied::Invalid("its type is not at+jwt"));
    }
    let algorithm = match header.alg.parse::<Algorithm>() {
        Ok(Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) | Err(_) => {
            return Err(Denied::Invalid("its algorithm is not accepted"));
        }
        Ok(algorithm) => algorithm,
    };
    let claims: Claims = part(payload).ok_or(Denied::Invalid("it lacks a claim that RFC 9068 requires, or one has another form"))?;
    // Until the signature is checked, the issuer only says whose key to check it with.
    let trusted = issuers.iter().find(|trusted| trusted.issuer == claims.iss).ok_or(Denied::Invalid("its issuer is not accepted"))?;
    let (key, generation) = match trusted.keys.find(header.kid.as_deref(), algorithm).await {
        Found::Key { key, generation } => (key, generation),
        Found::Unknown => return Err(Denied::Invalid("its issuer has no such key")),
        Found::Unavailable => return Err(Denied::KeysUnavailable),
    };
    match jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key, algorithm) {
        Ok(true) => {}
        Ok(false) | Err(_) => return Err(Denied::Invalid("its signature is wrong")),
    }
    const NO_TIME: Denied = Denied::Invalid("a time in it is no number of seconds");
    let not_before = claims.nbf.as_ref().map(|at| milliseconds(at).ok_or(NO_TIME)).transpose()?;
    let verified = Verified {
        issuer: claims.iss,
        audiences: match claims.aud {
            Audience::One(audience) => vec![audience],
            Audience::Many(audiences) => audiences,
        },
        client_id: claims.client_id,
        scopes: claims.scope.unwrap_or_default().split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect(),
        expires: milliseconds(&claims.exp).ok_or(NO_TIME)?,
        issued: milliseconds(&claims.iat).ok_or(NO_TIME)?,
        not_before,
    };
    Ok((verified, trusted, generation))
}

fn part<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

/// A NumericDate (RFC 7519) in milliseconds; fractions of a second are cut.
fn milliseconds(seconds: &Number) -> Option<i64> {
    let whole = seconds.as_i64().or_else(|| seconds.to_string().split_once('.').and_then(|(whole, _)| whole.parse().ok()))?;
    whole.checked_mul(1000)
}
