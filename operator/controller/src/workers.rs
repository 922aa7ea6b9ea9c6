//! Who is a worker: the API server says whose a token is, for what it was made, and to which pod it is bound.
//!
//! Anybody who reaches the port can show tokens, so few are judged at once, and what was judged is remembered for a while, good or bad.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fairlead_model::hash::Digest;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// One review takes no longer.
const DEADLINE: Duration = Duration::from_secs(5);
/// A token that was good is good for so long: a worker posts every few seconds.
const GOOD: Duration = Duration::from_secs(60);
/// A token that was bad is bad for so long.
const BAD: Duration = Duration::from_secs(10);
/// So many tokens are remembered of either kind.
const REMEMBERED: usize = 1024;
/// So many are judged at once; the others wait their turn.
const AT_ONCE: usize = 8;
/// Where a token is bound to a pod, the API server tells its name by this.
const POD: &str = "authentication.kubernetes.io/pod-name";

/// What is known of a token's bearer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// It is a worker, in this pod if its token is bound to one.
    Worker {
        /// The pod's name.
        pod: Option<String>,
    },
    /// It is none.
    Stranger,
    /// The API server cannot be asked.
    Unknown,
}

/// Judges the tokens of workers.
pub struct WorkerTokens {
    client: Client,
    audience: String,
    accounts: Vec<String>,
    known: Mutex<Known>,
    asking: Semaphore,
}

/// Tokens by their digests, and when they were judged.
#[derive(Default)]
struct Known {
    good: HashMap<String, (Instant, Option<String>)>,
    bad: HashMap<String, Instant>,
}

impl Known {
    fn find(&self, key: &str) -> Option<Judged> {
        let good = self.good.get(key).filter(|(since, _)| since.elapsed() < GOOD);
        let bad = self.bad.get(key).filter(|since| since.elapsed() < BAD);
        good.map(|(_, pod)| Judged::Worker { pod: pod.clone() }).or_else(|| bad.map(|_| Judged::Stranger))
    }

    fn keep(&mut self, key: String, judged: &Judged) {
        match judged {
            Judged::Worker { pod } => {
                if self.good.len() >= REMEMBERED {
                    self.good.retain(|_, (since, _)| since.elapsed() < GOOD);
                }
                if self.good.len() < REMEMBERED {
                    self.good.insert(key, (Instant::now(), pod.clone()));
                }
            }
            Judged::Stranger => {
                if self.bad.len() >= REMEMBERED {
                    self.bad.retain(|_, since| since.elapsed() < BAD);
                }
                if self.bad.len() < REMEMBERED {
                    self.bad.insert(key, Instant::now());
                }
            }
            Judged::Unknown => {}
        }
    }
}

impl WorkerTokens {
    /// Tokens made for `audience`, of one of these accounts, as the API server names them (`system:serviceaccount:NAMESPACE:NAME`).
    #[must_use]
    pub fn new(client: Client, audience: &str, accounts: Vec<String>) -> Self {
        Self { client, audience: audience.to_owned(), accounts, known: Mutex::default(), asking: Semaphore::new(AT_ONCE) }
    }

    /// Whether the bearer of `token` is a worker.
    pub async fn judge(&self, token: &str) -> Judged {
        let key = Digest::of(&token.into()).0;
        if let Some(judged) = self.known(&key) {
            return judged;
        }
        let judged = match tokio::time::timeout(DEADLINE, self.ask(&key, token)).await {
            Ok(judged) => judged,
            Err(_) => {
                tracing::warn!("a worker's token cannot be judged: the API server did not answer in time");
                Judged::Unknown
            }
        };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).keep(key, &judged);
        judged
    }

    fn known(&self, key: &str) -> Option<Judged> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).find(key)
    }

    async fn ask(&self, key: &str, token: &str) -> Judged {
        let Ok(_turn) = self.asking.acquire().await else { return Judged::Unknown };
        // Another request may have shown the same one meanwhile.
        if let Some(judged) = self.known(key) {
            return judged;
        }
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let spec = TokenReviewSpec { audiences: Some(vec![self.audience.clone()]), token: token.to_owned() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = match reviews.create(&PostParams::default(), &review).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(%error, "a worker's token cannot be judged");
                return Judged::Unknown;
            }
        };
        let status = answer.status.unwrap_or_default();
        let user = status.user.unwrap_or_default();
        let name = user.username.unwrap_or_default();
        // A server that knows no audiences answers none, and then the token may have been made for anything.
        let meant = status.audiences.iter().flatten().any(|audience| *audience == self.audience);
        if status.authenticated == Some(true) && meant && self.accounts.contains(&name) {
            return Judged::Worker { pod: user.extra.and_then(|mut extra| extra.remove(POD)?.pop()) };
        }
        tracing::warn!(user = name, "a caller with a token that is no worker's was sent away");
        Judged::Stranger
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeApi, answer, failure};
    use serde_json::{Value, json};

    const WORKER: &str = "system:serviceaccount:fairlead-system:fairlead-worker";

    fn status(user: &str, audiences: Value) -> Value {
        json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {},
            "status": {
                "authenticated": true, "audiences": audiences,
                "user": {"username": user, "extra": {"authentication.kubernetes.io/pod-name": ["worker-0"]}},
            },
        })
    }

    async fn judged(handle: impl Fn() -> http::Response<kube::client::Body> + Send + Sync + 'static) -> (Judged, usize) {
        let (api, client) = FakeApi::new(move |_| handle());
        let tokens = WorkerTokens::new(client, "fairlead-workers", vec![WORKER.into()]);
        let first = tokens.judge("t").await;
        assert_eq!(first, tokens.judge("t").await);
        let asked: Vec<_> = api.requests().iter().map(|request| format!("{} {}", request.method, request.path)).collect();
        assert!(asked.iter().all(|asked| asked == "POST /apis/authentication.k8s.io/v1/tokenreviews"), "{asked:?}");
        (first, asked.len())
    }

    #[tokio::test]
    async fn a_worker_is_an_account_that_was_named_with_a_token_that_was_made_for_this() {
        let good = status(WORKER, json!(["fairlead-workers"]));
        let worker = Judged::Worker { pod: Some("worker-0".into()) };
        assert_eq!(judged(move || answer(201, &good)).await, (worker, 1), "what was good is not asked again at once");
        for bad in [
            status("system:serviceaccount:sales:default", json!(["fairlead-workers"])),
            status(WORKER, json!(["https://kubernetes.default.svc"])),
            status(WORKER, Value::Null),
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {}, "status": {"authenticated": false}}),
        ] {
            assert_eq!(judged(move || answer(201, &bad)).await, (Judged::Stranger, 1), "nor is what was bad");
        }
        assert_eq!(judged(|| failure(500)).await.0, Judged::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn few_tokens_are_judged_at_once_and_a_bad_one_may_become_good() {
        let bad = status("system:serviceaccount:sales:default", json!(["fairlead-workers"]));
        let (api, client) = FakeApi::new(move |_| answer(201, &bad));
        let tokens = WorkerTokens::new(client, "fairlead-workers", vec![WORKER.into()]);
        let others = tokens.asking.acquire_many(u32::try_from(AT_ONCE).unwrap()).await.unwrap();
        assert_eq!((tokens.judge("t").await, api.requests().len()), (Judged::Unknown, 0), "no turn came in time");
        drop(others);
        assert_eq!((tokens.judge("t").await, api.requests().len()), (Judged::Stranger, 1));
        tokio::time::advance(BAD).await;
        assert_eq!((tokens.judge("t").await, api.requests().len()), (Judged::Stranger, 2));
    }
}
