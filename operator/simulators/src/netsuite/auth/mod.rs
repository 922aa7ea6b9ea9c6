//! Who may call: bearer tokens of the client-credentials grant, or a request signed by Token-Based Authentication.
//!
//! The account knows one integration with two certificates (an elliptic and an RSA key) and one pre-issued token. Keys and
//! secrets are made at start and announced, so nothing here is a secret of anybody.

mod m2m;
mod tba;

use super::errors::Problem;
use crate::core::value::Value;
use crate::core::vendor::{Reply, Request};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use indexmap::IndexMap;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

/// Life of a bearer token in seconds; constant at this vendor.
const TOKEN_LIFE: i64 = 3_600;

/// The path of the token endpoint.
const TOKEN_PATH: &str = "/services/rest/auth/oauth2/v1/token";

/// The account's integration record and what it has given out.
#[derive(Debug)]
pub(super) struct Accounts {
    client_id: String,
    certificates: Vec<m2m::Certificate>,
    keys: tba::Keys,
    issued: Mutex<Issued>,
}

#[derive(Debug, Default)]
struct Issued {
    tokens: HashMap<String, DateTime<Utc>>,
    nonces: HashSet<(i64, String)>,
}

/// Scheme and authority under which the caller addressed this request: signatures and audiences speak of that.
pub(super) fn address(request: &Request) -> String {
    let scheme = request.endpoint.split_once("://").map_or("http", |(scheme, _)| scheme);
    match request.header("host") {
        Some(host) => format!("{scheme}://{}", host.to_ascii_lowercase()),
        None => request.endpoint.clone(),
    }
}

impl Accounts {
    /// New keys and secrets; the account number comes from the seed.
    pub(super) fn new(seed: u64) -> anyhow::Result<Self> {
        let word = || uuid::Uuid::new_v4().simple().to_string();
        let secret = || format!("{}{}", word(), word());
        Ok(Self {
            client_id: secret(),
            certificates: vec![m2m::Certificate::elliptic(&format!("ec-{}", word()))?, m2m::Certificate::rsa(&format!("rsa-{}", word()))?],
            keys: tba::Keys {
                account: format!("{}_SB1", 1_000_000 + seed % 9_000_000),
                consumer_key: secret(),
                consumer_secret: secret(),
                token: secret(),
                token_secret: secret(),
            },
            issued: Mutex::default(),
        })
    }

    /// Everything a Secret may need, for either way to authenticate.
    pub(super) fn credentials(&self) -> IndexMap<String, String> {
        let mut credentials: IndexMap<String, String> = [
            ("account", &self.keys.account),
            ("clientId", &self.client_id),
            ("consumerKey", &self.keys.consumer_key),
            ("consumerSecret", &self.keys.consumer_secret),
            ("tokenId", &self.keys.token),
            ("tokenSecret", &self.keys.token_secret),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect();
        for (certificate, (id, key)) in
            self.certificates.iter().zip([("certificateId", "privateKey"), ("rsaCertificateId", "rsaPrivateKey")])
        {
            credentials.insert(id.to_owned(), certificate.id.clone());
            credentials.insert(key.to_owned(), certificate.private_key.clone());
        }
        credentials
    }

    /// Answers the token endpoint.
    pub(super) fn token(&self, request: &Request, now: DateTime<Utc>) -> Reply {
        let url = format!("{}{TOKEN_PATH}", address(request));
        let form = request.form();
        match m2m::check(&form, &self.certificates, &self.client_id, &url, now.timestamp()) {
            Ok(()) => {
                let token = fresh_token(now);
                self.lock().tokens.insert(token.clone(), now + TimeDelta::seconds(TOKEN_LIFE));
                let body = Value::object([
                    ("access_token", Value::text(token)),
                    ("expires_in", Value::int(TOKEN_LIFE)),
                    ("token_type", Value::text("bearer")),
                ]);
                Reply::json(200, "application/json", &body)
            }
            Err(m2m::Refused(status, word)) => Reply::json(status, "application/json", &Value::object([("error", Value::text(word))])),
        }
    }

    /// Checks the `Authorization` header of a call.
    pub(super) fn check(&self, request: &Request, now: DateTime<Utc>) -> Result<(), Problem> {
        let header = request.header("authorization").ok_or_else(Problem::login)?;
        let (scheme, rest) = header.split_once(' ').ok_or_else(Problem::login)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            let valid = self.lock().tokens.get(rest.trim()).is_some_and(|expires| *expires > now);
            return if valid { Ok(()) } else { Err(Problem::login()) };
        }
        if !scheme.eq_ignore_ascii_case("oauth") {
            return Err(Problem::login());
        }
        let uri = format!("{}{}", address(request), request.path);
        let accepted = tba::check(&self.keys, header, request.method.as_str(), &uri, &request.query, now.timestamp());
        let accepted = accepted.map_err(|refused| match refused {
            tba::Refused::Login => Problem::login(),
            tba::Refused::UnknownConsumer => Problem::new(401, "consumer_key_unknown", "No integration record has this consumer key."),
            tba::Refused::Missing(name) => {
                Problem::new(401, "MissingTokenPassportRequiredFields", format!("The authorization header lacks {name}."))
            }
        })?;
        let mut issued = self.lock();
        issued.nonces.retain(|(timestamp, _)| now.timestamp() - timestamp <= tba::TOLERANCE);
        if issued.nonces.insert((accepted.timestamp, accepted.nonce)) { Ok(()) } else { Err(Problem::login()) }
    }

    /// Makes every bearer token invalid.
    pub(super) fn expire(&self) {
        self.lock().tokens.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Issued> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that looks like the vendor's token, a JWT; only this process can tell whether it is valid.
fn fresh_token(now: DateTime<Utc>) -> String {
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    let header = part(r#"{"kid":"c.SYSTEM.2026","typ":"at+jwt","alg":"PS256"}"#.to_owned());
    let expires = now.timestamp() + TOKEN_LIFE;
    let claims = part(format!(
        r#"{{"iss":"https://system.netsuite.com","scope":["rest_webservices"],"exp":{expires},"jti":"{}"}}"#,
        uuid::Uuid::new_v4()
    ));
    format!("{header}.{claims}.{}", part(format!("{}{}", uuid::Uuid::new_v4(), uuid::Uuid::new_v4())))
}
