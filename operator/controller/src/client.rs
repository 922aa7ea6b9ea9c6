//! The client of the API server, from KUBECONFIG or in-cluster credentials, with the time limits that the rest of this room relies on.
//!
//! Retries are left to the callers: each has its own backoff, and a client that retries by itself would hide how long something failed.

use std::time::Duration;

use kube::client::ClientBuilder;
use kube::{Client, Config};
use tower::timeout::TimeoutLayer;

/// No answer's head takes longer; callers that wait for a whole answer set shorter limits of their own.
const HEAD_DEADLINE: Duration = Duration::from_secs(15);
/// A connection on which nothing arrives for so long is dead. An API server sends a bookmark on every watch about once a minute.
const IDLE: Duration = Duration::from_secs(150);
/// A connection is made in this time or not at all.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither KUBECONFIG nor in-cluster credentials can be used.
    #[error("no credentials for a cluster: set KUBECONFIG, or run in a pod with a service account")]
    Credentials(#[source] kube::config::InferConfigError),
    /// The credentials make no client.
    #[error("the cluster's credentials cannot be used")]
    Client(#[source] kube::Error),
}

/// A client for the cluster that KUBECONFIG or the pod's service account names.
///
/// # Errors
/// There are no credentials, or they cannot be used. Whether the API server answers is not tried.
pub async fn connect() -> Result<Client, ConnectError> {
    let config = Config::infer().await.map_err(ConnectError::Credentials)?;
    client(config).map_err(ConnectError::Client)
}

fn client(mut config: Config) -> Result<Client, kube::Error> {
    config.connect_timeout = Some(CONNECT_DEADLINE);
    config.read_timeout = Some(IDLE);
    config.default_retry = false;
    let agent = concat!("fairlead-operator/", env!("CARGO_PKG_VERSION"));
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(agent)));
    Ok(ClientBuilder::try_from(config)?.with_layer(&TimeoutLayer::new(HEAD_DEADLINE)).build())
}
