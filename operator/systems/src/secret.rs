//! Credentials: where they come from, and a type that cannot be printed.
//!
//! A value lives in a [`SecretString`], which has neither `Debug` nor `Display` nor `Serialize` and is zeroed when it goes. A Secret says for
//! which hosts it may be used (annotation [`ALLOWED_HOSTS`]); a Secret that names none is used for none.

use async_trait::async_trait;
use fairlead_model::ObjectRef;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// The annotation by which a Secret consents: a comma-separated list of `host`, `host:port` or `*.domain`.
pub const ALLOWED_HOSTS: &str = "fairlead.dev/allowed-hosts";

/// A secret value.
#[derive(Clone)]
pub struct SecretString(Zeroizing<String>);

impl SecretString {
    /// Takes a value in.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// The value, for the one place that signs or sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// What a Secret holds.
#[derive(Clone)]
pub struct SecretData {
    /// Its keys.
    pub values: BTreeMap<String, SecretString>,
    /// The hosts for which it may be used (annotation [`ALLOWED_HOSTS`]).
    pub allowed_hosts: Vec<String>,
    /// Changes when the content does (the resourceVersion).
    pub version: String,
}

impl SecretData {
    /// Splits the annotation's text into hosts.
    #[must_use]
    pub fn hosts(annotation: &str) -> Vec<String> {
        annotation.split([',', ' ', '\n']).map(str::trim).filter(|host| !host.is_empty()).map(str::to_ascii_lowercase).collect()
    }

    /// Whether credentials may go to `host` (as a URL spells it) at `port`.
    #[must_use]
    pub fn allows(&self, host: &str, port: u16) -> bool {
        let host = host.to_ascii_lowercase();
        self.allowed_hosts.iter().any(|entry| {
            let entry = entry.to_ascii_lowercase();
            if let Some(domain) = entry.strip_prefix("*.") {
                return host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'));
            }
            entry == host || entry == format!("{host}:{port}")
        })
    }
}

/// Why a Secret could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It is not there.
    #[error("there is no such Secret")]
    NotFound,
    /// It may not be read.
    #[error("reading the Secret is not permitted")]
    Forbidden,
    /// It cannot be read at the moment.
    #[error("the Secret cannot be read at the moment: {0}")]
    Unavailable(String),
}

/// Where Secrets are read, by name. Never lists, never watches.
#[async_trait]
pub trait SecretSource: Send + Sync {
    /// The present content of `secret`.
    async fn get(&self, secret: &ObjectRef) -> Result<SecretData, SecretError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(annotation: &str) -> SecretData {
        SecretData { values: BTreeMap::new(), allowed_hosts: SecretData::hosts(annotation), version: "1".into() }
    }

    #[test]
    fn a_secret_is_for_the_hosts_it_names_and_no_others() {
        let secret = data("acme.my.salesforce.com, 127.0.0.1:8080,*.suitetalk.api.netsuite.com");
        assert!(secret.allows("ACME.my.salesforce.com", 443));
        assert!(secret.allows("127.0.0.1", 8080));
        assert!(secret.allows("1234567-sb1.suitetalk.api.netsuite.com", 443));
        for (host, port) in [
            ("127.0.0.1", 8081),
            ("evil.example", 443),
            ("acme.my.salesforce.com.evil.example", 443),
            ("xacme.my.salesforce.com", 443),
            ("suitetalk.api.netsuite.com", 443),
            ("evilsuitetalk.api.netsuite.com", 443),
        ] {
            assert!(!secret.allows(host, port), "{host}:{port}");
        }
        assert!(!data("").allows("acme.my.salesforce.com", 443), "no annotation allows no host");
    }
}
