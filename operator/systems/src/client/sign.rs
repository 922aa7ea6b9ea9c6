//! Signatures: OAuth 1.0a with HMAC-SHA256 (RFC 5849) and JWT assertions (RFC 7523). Pure: time and nonce come from outside.

use crate::definition::template::encode;
use crate::secret::SecretString;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::Value;
use sha2::Sha256;
use url::Url;

/// What an OAuth 1.0a signature is made from.
pub(crate) struct OAuth1<'a> {
    pub(crate) realm: &'a str,
    pub(crate) consumer_key: &'a SecretString,
    pub(crate) consumer_secret: &'a SecretString,
    pub(crate) token: &'a SecretString,
    pub(crate) token_secret: &'a SecretString,
    pub(crate) nonce: &'a str,
    /// Epoch seconds.
    pub(crate) timestamp: i64,
}

impl OAuth1<'_> {
    fn parameters(&self) -> [(&'static str, String); 6] {
        [
            ("oauth_consumer_key", self.consumer_key.expose().to_owned()),
            ("oauth_token", self.token.expose().to_owned()),
            ("oauth_signature_method", "HMAC-SHA256".to_owned()),
            ("oauth_timestamp", self.timestamp.to_string()),
            ("oauth_nonce", self.nonce.to_owned()),
            ("oauth_version", "1.0".to_owned()),
        ]
    }

    /// The signature over a request without a form body.
    pub(crate) fn signature(&self, method: &str, url: &Url) -> Option<String> {
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        let base_uri = format!("{}://{}{port}{}", url.scheme(), url.host_str()?.to_ascii_lowercase(), url.path());
        let query = url.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
            (decode(name), decode(value))
        });
        let own = self.parameters().into_iter().map(|(name, value)| (name.to_owned(), value));
        let mut pairs: Vec<(String, String)> = own.chain(query).map(|(name, value)| (encode(&name), encode(&value))).collect();
        pairs.sort();
        let normal: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let base = format!("{}&{}&{}", method.to_ascii_uppercase(), encode(&base_uri), encode(&normal.join("&")));
        let key = zeroize::Zeroizing::new(format!("{}&{}", encode(self.consumer_secret.expose()), encode(self.token_secret.expose())));
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).ok()?;
        mac.update(base.as_bytes());
        Some(STANDARD.encode(mac.finalize().into_bytes()))
    }

    /// The whole `Authorization` header.
    pub(crate) fn header(&self, method: &str, url: &Url) -> Option<SecretString> {
        let signature = self.signature(method, url)?;
        let mut parts = vec![format!("realm=\"{}\"", encode(self.realm))];
        parts.extend(self.parameters().iter().map(|(name, value)| format!("{name}=\"{}\"", encode(value))));
        parts.push(format!("oauth_signature=\"{}\"", encode(&signature)));
        Some(SecretString::new(format!("OAuth {}", parts.join(", "))))
    }
}

/// What kinds of key an assertion may be signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// RSA with PKCS#1 v1.5 (RS256).
    Rs256,
    /// EC P-256 (ES256) or RSA with PSS (PS256), by the kind of key.
    Es256OrPs256,
}

/// Signs `claims`. The error says what the private key must be, and nothing of the key.
pub(crate) fn assertion(
    claims: &Value,
    key_id: Option<&str>,
    private_key: &SecretString,
    keys: Keys,
) -> Result<SecretString, &'static str> {
    let pem = private_key.expose().as_bytes();
    let (algorithm, key) = match keys {
        Keys::Rs256 => (Algorithm::RS256, EncodingKey::from_rsa_pem(pem).map_err(|_| "an RSA private key in PEM form")?),
        Keys::Es256OrPs256 => match EncodingKey::from_ec_pem(pem) {
            Ok(key) => (Algorithm::ES256, key),
            Err(_) => {
                (Algorithm::PS256, EncodingKey::from_rsa_pem(pem).map_err(|_| "an EC P-256 or RSA private key in PEM form (PKCS#8)")?)
            }
        },
    };
    let mut header = Header::new(algorithm);
    header.kid = key_id.map(str::to_owned);
    let wanted = if algorithm == Algorithm::ES256 {
        "an EC P-256 private key in PEM form (PKCS#8)"
    } else {
        "an RSA private key of at least 2048 bits in PEM form"
    };
    jsonwebtoken::encode(&header, claims, &key).map(SecretString::new).map_err(|_| wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(method: &str, url: &str) -> String {
        let secret = SecretString::new;
        let (key, key_secret, token, token_secret) =
            (secret("ck-demo-0001"), secret("cs-demo/secret+1"), secret("tk-demo-0002"), secret("ts-demo=secret~2"));
        let oauth = OAuth1 {
            realm: "1234567_SB1",
            consumer_key: &key,
            consumer_secret: &key_secret,
            token: &token,
            token_secret: &token_secret,
            nonce: "n0nceFixed01",
            timestamp: 1_700_000_000,
        };
        let url = Url::parse(url).unwrap();
        assert!(
            oauth.header(method, &url).unwrap().expose().starts_with("OAuth realm=\"1234567_SB1\", oauth_consumer_key=\"ck-demo-0001\"")
        );
        oauth.signature(method, &url).unwrap()
    }

    /// Vectors computed with oauthlib 4.0.1.
    #[test]
    fn token_based_signatures_agree_with_an_independent_signer() {
        let host = "https://1234567-sb1.suitetalk.api.netsuite.com/services/rest";
        let list = format!("{host}/record/v1/customer?limit=2&offset=0&q=lastModifiedDate%20AFTER%20%2201/02/2026%2003:04%20AM%22");
        assert_eq!(sign("GET", &list), "fhLo+xDpxbIVhyV4Dmqvn+1OmIjiLtP7wkdoWZ2o4PM=");
        assert_eq!(sign("POST", &format!("{host}/query/v1/suiteql?limit=1000&offset=0")), "kmnaGUpq11eD5jFbn2b4ovt1vToWbu2L8YZR90R63mo=");
    }

    #[test]
    fn the_kind_of_key_chooses_the_algorithm() {
        let algorithm = |token: SecretString| jsonwebtoken::decode_header(token.expose()).unwrap();
        let claims = serde_json::json!({"iss": "client"});
        let ec = SecretString::new(rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem());
        let rsa =
            SecretString::new(rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap().serialize_pem());
        let header = algorithm(assertion(&claims, Some("cert-1"), &ec, Keys::Es256OrPs256).unwrap_or_else(|e| panic!("{e}")));
        assert_eq!((header.alg, header.kid.as_deref()), (Algorithm::ES256, Some("cert-1")));
        assert_eq!(algorithm(assertion(&claims, None, &rsa, Keys::Es256OrPs256).unwrap_or_else(|e| panic!("{e}"))).alg, Algorithm::PS256);
        assert_eq!(algorithm(assertion(&claims, None, &rsa, Keys::Rs256).unwrap_or_else(|e| panic!("{e}"))).alg, Algorithm::RS256);
        assert_eq!(assertion(&claims, None, &ec, Keys::Rs256).err(), Some("an RSA private key in PEM form"));
        assert!(assertion(&claims, None, &SecretString::new("nonsense"), Keys::Es256OrPs256).is_err());
    }
}
