//! Who is a worker: the API server says whose a token is, and for what it was made.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fairlead_model::hash::Digest;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;

/// One review takes no longer.
const DEADLINE: Duration = Duration::from_secs(5);
/// A token that was good is good for so long: a worker posts every few seconds.
const GOOD: Duration = Duration::from_secs(60);
/// So many tokens are remembered.
const REMEMBERED: usize = 1024;

/// Judges the tokens of workers.
pub struct WorkerTokens {
    client: Client,
    audience: String,
    accounts: Vec<String>,
    /// By their digests.
    good: Mutex<HashMap<String, Instant>>,
}

impl WorkerTokens {
    /// Tokens made for `audience`, of one of these accounts, as the API server names them (`system:serviceaccount:NAMESPACE:NAME`).
    #[must_use]
    pub fn new(client: Client, audience: &str, accounts: Vec<String>) -> Self {
        Self { client, audience: audience.to_owned(), accounts, good: Mutex::default() }
    }

    /// Whether the bearer of `token` is a worker; `None` if the API server cannot be asked.
    pub async fn is_worker(&self, token: &str) -> Option<bool> {
        let key = Digest::of(&token.into()).0;
        if self.good.lock().unwrap_or_else(PoisonError::into_inner).get(&key).is_some_and(|since| since.elapsed() < GOOD) {
            return Some(true);
        }
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let spec = TokenReviewSpec { audiences: Some(vec![self.audience.clone()]), token: token.to_owned() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let parameters = PostParams::default();
        let answer = match tokio::time::timeout(DEADLINE, reviews.create(&parameters, &review)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::warn!(%error, "a worker's token cannot be judged");
                return None;
            }
            Err(_) => {
                tracing::warn!("a worker's token cannot be judged: the API server did not answer in time");
                return None;
            }
        };
        let status = answer.status.unwrap_or_default();
        let user = status.user.and_then(|user| user.username).unwrap_or_default();
        // A server that knows no audiences answers none, and then the token may have been made for anything.
        let meant = status.audiences.iter().flatten().any(|audience| *audience == self.audience);
        let good = status.authenticated == Some(true) && meant && self.accounts.contains(&user);
        if good {
            let mut known = self.good.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= REMEMBERED {
                known.retain(|_, since| since.elapsed() < GOOD);
            }
            if known.len() < REMEMBERED {
                known.insert(key, Instant::now());
            }
        } else {
            tracing::warn!(user, "a caller with a token that is no worker's was sent away");
        }
        Some(good)
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
            "status": {"authenticated": true, "user": {"username": user}, "audiences": audiences},
        })
    }

    async fn judged(handle: impl Fn() -> http::Response<kube::client::Body> + Send + Sync + 'static) -> (Option<bool>, usize) {
        let (api, client) = FakeApi::new(move |_| handle());
        let tokens = WorkerTokens::new(client, "fairlead-workers", vec![WORKER.into()]);
        let first = tokens.is_worker("t").await;
        assert_eq!(first, tokens.is_worker("t").await);
        let asked: Vec<_> = api.requests().iter().map(|request| format!("{} {}", request.method, request.path)).collect();
        assert!(asked.iter().all(|asked| asked == "POST /apis/authentication.k8s.io/v1/tokenreviews"), "{asked:?}");
        (first, asked.len())
    }

    #[tokio::test]
    async fn a_worker_is_an_account_that_was_named_with_a_token_that_was_made_for_this() {
        let good = status(WORKER, json!(["fairlead-workers"]));
        assert_eq!(judged(move || answer(201, &good)).await, (Some(true), 1), "what was good is not asked again at once");
        for bad in [
            status("system:serviceaccount:sales:default", json!(["fairlead-workers"])),
            status(WORKER, json!(["https://kubernetes.default.svc"])),
            status(WORKER, Value::Null),
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {}, "status": {"authenticated": false}}),
        ] {
            assert_eq!(judged(move || answer(201, &bad)).await, (Some(false), 2));
        }
        assert_eq!(judged(|| failure(500)).await.0, None);
    }
}
