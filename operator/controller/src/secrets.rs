//! Secrets by `get`, never by list or watch: what the runtime reads credentials through.

use std::time::Duration;

use async_trait::async_trait;
use fairlead_model::ObjectRef;
use fairlead_systems::{SecretData, SecretError, SecretSource, SecretString};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt};

/// One `get` takes no longer.
const DEADLINE: Duration = Duration::from_secs(5);

/// The Secrets of a cluster.
#[derive(Clone)]
pub struct ClusterSecrets {
    client: Client,
}

impl ClusterSecrets {
    /// Secrets read through `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl SecretSource for ClusterSecrets {
    async fn get(&self, secret: &ObjectRef) -> Result<SecretData, SecretError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &secret.namespace);
        let answer = match tokio::time::timeout(DEADLINE, secrets.get(&secret.name)).await {
            Err(_) => return Err(SecretError::Unavailable("the API server did not answer in time".into())),
            Ok(answer) => answer,
        };
        match answer {
            Ok(found) => Ok(data(&found)),
            Err(kube::Error::Api(status)) if status.code == 404 => Err(SecretError::NotFound),
            Err(kube::Error::Api(status)) if status.code == 403 => Err(SecretError::Forbidden),
            // The answer's own words stay out: they may hold what was sent.
            Err(kube::Error::Api(status)) => Err(SecretError::Unavailable(format!("the API server answered {}", status.code))),
            Err(error) => {
                tracing::debug!(%secret, %error, "a Secret could not be read");
                Err(SecretError::Unavailable("the API server could not be reached".into()))
            }
        }
    }
}

/// Values that are no text (a keystore, for one) are of no use to any definition and are left out; the finding then names the missing key.
fn data(secret: &Secret) -> SecretData {
    let values = secret.data.iter().flatten().filter_map(|(key, value)| {
        let text = String::from_utf8(value.0.clone()).ok()?;
        Some((key.clone(), SecretString::new(text)))
    });
    SecretData {
        values: values.collect(),
        allowed_hosts: SecretData::hosts(secret.annotations().get(fairlead_api::ALLOWED_HOSTS_ANNOTATION).map_or("", String::as_str)),
        version: secret.resource_version().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeApi, answer, failure};
    use serde_json::json;

    async fn get(handle: impl Fn() -> http::Response<kube::client::Body> + Send + Sync + 'static) -> Result<SecretData, SecretError> {
        let (api, client) = FakeApi::new(move |_| handle());
        let found = ClusterSecrets::new(client).get(&ObjectRef::new("sales", "crm")).await;
        let asked: Vec<_> = api.requests().iter().map(|request| format!("{} {}", request.method, request.path)).collect();
        assert_eq!(asked, ["GET /api/v1/namespaces/sales/secrets/crm"], "by name, once, and in no other way");
        found
    }

    #[tokio::test]
    async fn a_secret_is_read_by_name_with_the_hosts_it_allows() {
        let body = json!({
            "metadata": {"name": "crm", "namespace": "sales", "resourceVersion": "7", "annotations": {"fairlead.dev/allowed-hosts": "a.example, b.example"}},
            "data": {"clientId": "bWU=", "keystore": "/w=="},
        });
        let found = get(move || answer(200, &body)).await.ok().unwrap();
        assert_eq!(found.values["clientId"].expose(), "me");
        assert_eq!(found.values.len(), 1, "what is no text is left out");
        assert_eq!(found.allowed_hosts, ["a.example", "b.example"]);
        assert_eq!(found.version, "7");
    }

    #[tokio::test]
    async fn missing_forbidden_and_failing_are_told_apart() {
        assert_eq!(get(|| failure(404)).await.err(), Some(SecretError::NotFound));
        assert_eq!(get(|| failure(403)).await.err(), Some(SecretError::Forbidden));
        assert!(matches!(get(|| failure(500)).await.err(), Some(SecretError::Unavailable(_))));
    }
}
