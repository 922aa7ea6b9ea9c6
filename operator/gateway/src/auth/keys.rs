//! Issuers' keys: fetched, kept, rotated.
//!
//! Keys are fetched when a route first names their address, again every so often, and when a token names a key that is not known (once at a
//! time, and not more often than [`KeyOptions::min_between`], whoever sends such tokens). While fetching fails the keys stay for
//! [`KeyOptions::keep`]. Each key is good for exactly one algorithm, and none for HMAC.

use crate::metrics::Metrics;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use fairlead_model::{Clock, Timestamp};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// The largest key set.
const MAX_BYTES: usize = 256 * 1024;
/// The most keys that are taken from a set.
const MAX_KEYS: usize = 100;
/// The smallest RSA modulus, in bytes (RFC 8725, section 3.5).
const MIN_MODULUS: usize = 256;

/// Fetches key sets. The address comes from a user: whoever implements this keeps to the egress rules.
#[async_trait]
pub trait KeyFetcher: Send + Sync + 'static {
    /// The body of a successful answer, read with a limit.
    ///
    /// # Errors
    /// Why there is none, for people.
    async fn fetch(&self, jwks_uri: &str) -> Result<Bytes, String>;
}

/// How keys are kept.
#[derive(Debug, Clone)]
pub struct KeyOptions {
    /// How often keys are fetched again.
    pub refresh: Duration,
    /// How soon after a failure.
    pub retry: Duration,
    /// The least time between two fetches that unknown keys cause.
    pub min_between: Duration,
    /// How long keys serve while fetching fails.
    pub keep: Duration,
    /// How long one fetch may take.
    pub timeout: Duration,
}

impl Default for KeyOptions {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(300),
            retry: Duration::from_secs(10),
            min_between: Duration::from_secs(10),
            keep: Duration::from_secs(24 * 3600),
            timeout: Duration::from_secs(5),
        }
    }
}

/// All key sets that routes name.
pub(crate) struct KeySets {
    fetcher: Arc<dyn KeyFetcher>,
    clock: Arc<dyn Clock>,
    options: KeyOptions,
    metrics: Arc<Metrics>,
    /// Told whenever a set's keys changed, or why they cannot be used.
    changed: watch::Sender<u64>,
    sets: Mutex<HashMap<String, Weak<KeySet>>>,
}

impl KeySets {
    pub(crate) fn new(fetcher: Arc<dyn KeyFetcher>, clock: Arc<dyn Clock>, options: KeyOptions, metrics: Arc<Metrics>) -> Self {
        Self { fetcher, clock, options, metrics, changed: watch::Sender::new(0), sets: Mutex::default() }
    }

    /// Resolves when a set's keys, or why they cannot be used, changed since the receiver last looked.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The set at this address, kept fresh as long as somebody holds it.
    pub(crate) fn get(&self, uri: &str) -> Arc<KeySet> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        sets.retain(|_, set| set.strong_count() > 0);
        if let Some(set) = sets.get(uri).and_then(Weak::upgrade) {
            return set;
        }
        let set = Arc::new(KeySet {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            uri: uri.to_owned(),
            fetcher: self.fetcher.clone(),
            clock: self.clock.clone(),
            options: self.options.clone(),
            metrics: self.metrics.clone(),
            changed: self.changed.clone(),
            state: ArcSwap::from_pointee(State::default()),
            last_attempt: tokio::sync::Mutex::new(None),
        });
        sets.insert(uri.to_owned(), Arc::downgrade(&set));
        tokio::spawn(keep_fresh(Arc::downgrade(&set)));
        set
    }
}

/// Fetches again and again until nobody holds the set.
async fn keep_fresh(set: Weak<KeySet>) {
    loop {
        let pause = match set.upgrade() {
            Some(set) => {
                set.refresh(None).await;
                if set.state.load().failure.is_some() { set.options.retry } else { set.options.refresh }
            }
            None => return,
        };
        tokio::time::sleep(pause).await;
    }
}

/// The keys at one address.
pub(crate) struct KeySet {
    /// Tells sets apart in the token cache.
    pub(crate) id: u64,
    uri: String,
    fetcher: Arc<dyn KeyFetcher>,
    clock: Arc<dyn Clock>,
    options: KeyOptions,
    metrics: Arc<Metrics>,
    changed: watch::Sender<u64>,
    state: ArcSwap<State>,
    /// When a fetch last began; held while one runs.
    last_attempt: tokio::sync::Mutex<Option<Timestamp>>,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet").field("uri", &self.uri).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    keys: Vec<Key>,
    /// Rises when the keys become others.
    generation: u64,
    fetched: Option<Timestamp>,
    failure: Option<String>,
    /// Whether the keys served when they were last fetched, or could not be: what was told.
    usable: bool,
}

/// A public key, and the one algorithm that it is for (RFC 8725, section 3.1).
#[derive(Clone)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    /// To see whether a key became another under its name.
    source: Value,
    key: DecodingKey,
}

/// Looking for a key.
pub(crate) enum Found {
    Key {
        key: DecodingKey,
        generation: u64,
    },
    /// The issuer has no such key.
    Unknown,
    /// The issuer's keys are not known at all.
    Unavailable,
}

impl KeySet {
    /// The generation of the present keys; a token verified under another one must be verified again.
    pub(crate) fn generation(&self) -> u64 {
        self.state.load().generation
    }

    /// Whether they were fetched once, or could not be.
    pub(crate) fn asked(&self) -> bool {
        let state = self.state.load();
        state.fetched.is_some() || state.failure.is_some()
    }

    /// Why no token can be judged by these keys, if so. A fetch that failed is no reason while the keys from before still serve.
    pub(crate) fn unusable(&self) -> Option<String> {
        let state = self.state.load();
        let why = || state.failure.clone().unwrap_or_else(|| "they have not been fetched yet".to_owned());
        (!self.serve(state.fetched, self.clock.now())).then(why)
    }

    /// Whether keys that were fetched then still serve.
    fn serve(&self, fetched: Option<Timestamp>, now: Timestamp) -> bool {
        fetched.is_some_and(|fetched| now.since(fetched) <= self.options.keep)
    }

    /// The key that a token names. An unknown one causes a fetch, if the last one is not too recent.
    pub(crate) async fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Found {
        let seen = self.state.load_full();
        let found = self.look(&seen, id, algorithm);
        if let Found::Key { .. } = found {
            return found;
        }
        self.refresh(Some((id, algorithm))).await;
        self.look(&self.state.load(), id, algorithm)
    }

    fn look(&self, state: &State, id: Option<&str>, algorithm: Algorithm) -> Found {
        if !self.serve(state.fetched, self.clock.now()) {
            return Found::Unavailable;
        }
        let mut fitting = state.keys.iter().filter(|key| key.algorithm == algorithm && (id.is_none() || key.id.as_deref() == id));
        // A token that names no key fits only where there is no choice.
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Found::Key { key: key.key.clone(), generation: state.generation },
            _ => Found::Unknown,
        }
    }

    /// Fetches, unless (for a key that was `missing`) others have just done so, or brought that key while this one waited for its turn. What they
    /// brought may be older than the key: a fetch that began before it was published is none for it.
    async fn refresh(&self, missing: Option<(Option<&str>, Algorithm)>) {
        let mut last = self.last_attempt.lock().await;
        let now = self.clock.now();
        if let Some((id, algorithm)) = missing
            && (matches!(self.look(&self.state.load(), id, algorithm), Found::Key { .. })
                || last.is_some_and(|last| now.since(last) < self.options.min_between))
        {
            return;
        }
        *last = Some(now);
        let fetched = tokio::time::timeout(self.options.timeout, self.fetcher.fetch(&self.uri)).await;
        let outcome = fetched.unwrap_or_else(|_| Err("no answer in time".into())).and_then(|bytes| parse(&bytes));
        self.metrics.keys_fetched(outcome.is_ok());
        let old = self.state.load_full();
        let next = match outcome {
            Ok(keys) => {
                let same =
                    old.fetched.is_some() && keys.len() == old.keys.len() && keys.iter().zip(&old.keys).all(|(a, b)| a.source == b.source);
                let generation = if same { old.generation } else { old.generation.saturating_add(1) };
                State { keys, generation, fetched: Some(now), failure: None, usable: true }
            }
            Err(failure) => {
                tracing::warn!(jwks_uri = self.uri, error = failure, "an issuer's keys cannot be fetched");
                let usable = self.serve(old.fetched, now);
                State { keys: old.keys.clone(), generation: old.generation, fetched: old.fetched, failure: Some(failure), usable }
            }
        };
        let told = next.generation != old.generation || next.usable != old.usable || (!next.usable && next.failure != old.failure);
        self.state.store(Arc::new(next));
        if told {
            self.changed.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

/// The usable keys of a set (RFC 7517); others are passed over, as section 5 has it.
fn parse(bytes: &[u8]) -> Result<Vec<Key>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    if bytes.len() > MAX_BYTES {
        return Err(format!("the key set has more than {MAX_BYTES} bytes"));
    }
    let set: Set = serde_json::from_slice(bytes).map_err(|_| "the answer is no JSON Web Key Set".to_owned())?;
    let keys: Vec<Key> = set.keys.into_iter().take(MAX_KEYS).filter_map(usable).collect();
    if keys.is_empty() {
        return Err("the key set holds no key for signatures by RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA".into());
    }
    Ok(keys)
}

fn usable(source: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(source.clone()).ok()?;
    let common = &jwk.common;
    let for_signatures = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let algorithm = match (&jwk.algorithm, common.key_algorithm) {
        (AlgorithmParameters::RSA(_), None | Some(KeyAlgorithm::RS256)) => Algorithm::RS256,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::RS384)) => Algorithm::RS384,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::RS512)) => Algorithm::RS512,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::PS256)) => Algorithm::PS256,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::PS384)) => Algorithm::PS384,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::PS512)) => Algorithm::PS512,
        (AlgorithmParameters::EllipticCurve(key), None | Some(KeyAlgorithm::ES256)) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        (AlgorithmParameters::EllipticCurve(key), None | Some(KeyAlgorithm::ES384)) if key.curve == EllipticCurve::P384 => Algorithm::ES384,
        (AlgorithmParameters::OctetKeyPair(key), None | Some(KeyAlgorithm::EdDSA)) if key.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let strong = match key.kind() {
        jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. } => n.iter().skip_while(|byte| **byte == 0).count() >= MIN_MODULUS,
        jsonwebtoken::DecodingKeyKind::SecretOrDer(_) => true,
    };
    (for_signatures && strong).then(|| Key { id: common.key_id.clone(), algorithm, source, key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_taken_for_one_algorithm_each_and_never_for_hmac_or_encryption() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let set = json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "good"},
            {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "encryption", "use": "enc"},
            {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "signing only", "key_ops": ["sign"]},
            {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "other algorithm", "alg": "ES256"},
            {"kty": "oct", "k": "c2VjcmV0", "kid": "hmac", "alg": "HS256"},
            {"kty": "RSA", "n": "sXch", "e": "AQAB", "kid": "too short"},
            {"kty": "new", "kid": "unknown kind"},
        ]});
        let keys = parse(set.to_string().as_bytes()).unwrap();
        let taken: Vec<_> = keys.iter().map(|key| (key.id.as_deref(), key.algorithm)).collect();
        assert_eq!(taken, [(Some("good"), Algorithm::EdDSA)]);
        assert!(parse(b"{\"keys\":[]}").is_err() && parse(b"<html>").is_err());
    }
}
