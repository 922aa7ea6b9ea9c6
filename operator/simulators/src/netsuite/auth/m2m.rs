//! OAuth 2.0 client credentials with a signed JWT assertion: what the token endpoint accepts.
//!
//! The assertion must be signed with the private key of a certificate mapped in the account (`kid`), by an allowed
//! algorithm (RS256 is not), name the integration (`iss`) and **exactly** the token endpoint (`aud`), and live less than an
//! hour. Pure but for the generation of the keys.

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

/// The grant's fixed words.
const GRANT: &str = "client_credentials";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A certificate mapped to a role, with the private key that the simulator hands out.
pub(super) struct Certificate {
    pub(super) id: String,
    pub(super) private_key: String,
    public: DecodingKey,
    algorithms: &'static [Algorithm],
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Certificate {
    /// A P-256 key, for ES256.
    pub(super) fn elliptic(id: &str) -> anyhow::Result<Self> {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let public = DecodingKey::from_ec_pem(pair.public_key_pem().as_bytes())?;
        Ok(Self { id: id.to_owned(), private_key: pair.serialize_pem(), public, algorithms: &[Algorithm::ES256] })
    }

    /// A 3072-bit RSA key, for PS256, PS384 and PS512.
    pub(super) fn rsa(id: &str) -> anyhow::Result<Self> {
        let pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_3072)?;
        let public = DecodingKey::from_rsa_pem(pair.public_key_pem().as_bytes())?;
        let algorithms = &[Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];
        Ok(Self { id: id.to_owned(), private_key: pair.serialize_pem(), public, algorithms })
    }
}

/// An error of RFC 6749: HTTP status and word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused(pub(super) u16, pub(super) &'static str);

const INVALID_REQUEST: Refused = Refused(400, "invalid_request");
const INVALID_GRANT: Refused = Refused(400, "invalid_grant");
const INVALID_CLIENT: Refused = Refused(401, "invalid_client");

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    iat: i64,
    exp: i64,
    scope: Scope,
}

/// The vendor's prose says comma separated, its sample carries an array: both are in use.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scope {
    List(Vec<String>),
    Text(String),
}

impl Scope {
    fn allows_rest(&self) -> bool {
        match self {
            Self::List(scopes) => scopes.iter().any(|scope| scope == "rest_webservices"),
            Self::Text(scopes) => scopes.split([',', ' ']).any(|scope| scope == "rest_webservices"),
        }
    }
}

/// Checks a token request. `token_url` is the endpoint as the caller addressed it, `now` in epoch seconds.
pub(super) fn check(
    form: &[(String, String)],
    certificates: &[Certificate],
    client_id: &str,
    token_url: &str,
    now: i64,
) -> Result<(), Refused> {
    let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).ok_or(INVALID_REQUEST);
    if field("grant_type")? != GRANT {
        return Err(Refused(400, "unsupported_grant_type"));
    }
    if field("client_assertion_type")? != ASSERTION_TYPE {
        return Err(INVALID_REQUEST);
    }
    let assertion = field("client_assertion")?;
    let header = jsonwebtoken::decode_header(assertion).map_err(|_| INVALID_REQUEST)?;
    let certificate =
        certificates.iter().find(|certificate| header.kid.as_deref() == Some(certificate.id.as_str())).ok_or(INVALID_CLIENT)?;
    if !certificate.algorithms.contains(&header.alg) {
        return Err(INVALID_REQUEST);
    }
    let mut validation = Validation::new(header.alg);
    // Times and audience are checked below, against the clock and the address of this request.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let claims = jsonwebtoken::decode::<Claims>(assertion, &certificate.public, &validation)
        .map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => INVALID_CLIENT,
            _ => INVALID_REQUEST,
        })?
        .claims;
    if claims.iss != client_id {
        return Err(INVALID_CLIENT);
    }
    let lifetime = claims.exp.saturating_sub(claims.iat);
    let in_time = claims.exp > now && claims.iat <= now.saturating_add(60);
    if claims.aud != token_url || !in_time || !(1..3_600).contains(&lifetime) {
        return Err(INVALID_GRANT);
    }
    if !claims.scope.allows_rest() {
        return Err(Refused(400, "invalid_scope"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::{Value, json};

    const URL: &str = "http://127.0.0.1:9/services/rest/auth/oauth2/v1/token";
    const NOW: i64 = 1_800_000_000;

    struct Bench {
        certificates: Vec<Certificate>,
    }

    impl Bench {
        fn new() -> Self {
            Self { certificates: vec![Certificate::elliptic("ec").unwrap(), Certificate::rsa("rsa").unwrap()] }
        }

        fn form(&self, key: usize, algorithm: Algorithm, kid: &str, claims: &Value) -> Vec<(String, String)> {
            let pem = self.certificates[key].private_key.as_bytes();
            let key = if key == 0 { EncodingKey::from_ec_pem(pem) } else { EncodingKey::from_rsa_pem(pem) }.unwrap();
            let header = Header { kid: Some(kid.to_owned()), ..Header::new(algorithm) };
            let assertion = jsonwebtoken::encode(&header, claims, &key).unwrap();
            [("grant_type", GRANT), ("client_assertion_type", ASSERTION_TYPE), ("client_assertion", &assertion)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec()
        }

        fn check(&self, form: &[(String, String)]) -> Result<(), Refused> {
            check(form, &self.certificates, "client", URL, NOW)
        }
    }

    fn claims(changes: Value) -> Value {
        let mut claims = json!({"iss": "client", "aud": URL, "iat": NOW, "exp": NOW + 3_599, "scope": ["rest_webservices"]});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    }

    #[test]
    fn assertions_are_accepted_and_refused_as_the_vendor_documents() {
        let bench = Bench::new();
        let good = |key, algorithm, kid| bench.check(&bench.form(key, algorithm, kid, &claims(json!({}))));
        assert_eq!(good(0, Algorithm::ES256, "ec"), Ok(()));
        assert_eq!(good(1, Algorithm::PS256, "rsa"), Ok(()));
        assert_eq!(good(1, Algorithm::PS512, "rsa"), Ok(()));
        assert_eq!(good(1, Algorithm::RS256, "rsa"), Err(INVALID_REQUEST), "RS256");
        assert_eq!(good(0, Algorithm::ES256, "other"), Err(INVALID_CLIENT), "unknown certificate");
        assert_eq!(good(0, Algorithm::ES256, "rsa"), Err(INVALID_REQUEST), "certificate of another key");

        let table = [
            (json!({"scope": "restlets,rest_webservices"}), Ok(())),
            (json!({"scope": ["restlets"]}), Err(Refused(400, "invalid_scope"))),
            (json!({"iss": "someone"}), Err(INVALID_CLIENT)),
            (json!({"aud": format!("{URL}/")}), Err(INVALID_GRANT)),
            (json!({"aud": "https://system.netsuite.com"}), Err(INVALID_GRANT)),
            (json!({"exp": NOW + 3_600}), Err(INVALID_GRANT)),
            (json!({"exp": NOW, "iat": NOW - 10}), Err(INVALID_GRANT)),
            (json!({"iat": NOW + 61, "exp": NOW + 100}), Err(INVALID_GRANT)),
            (json!({"exp": NOW - 1}), Err(INVALID_GRANT)),
        ];
        for (changes, verdict) in table {
            let form = bench.form(0, Algorithm::ES256, "ec", &claims(changes.clone()));
            assert_eq!(bench.check(&form), verdict, "{changes}");
        }
    }

    #[test]
    fn a_foreign_signature_is_refused() {
        let (bench, other) = (Bench::new(), Bench::new());
        let form = other.form(0, Algorithm::ES256, "ec", &claims(json!({})));
        assert_eq!(bench.check(&form), Err(INVALID_CLIENT));
    }

    #[test]
    fn a_form_that_lacks_something_is_refused() {
        let bench = Bench::new();
        let form = bench.form(0, Algorithm::ES256, "ec", &claims(json!({})));
        for missing in 0..form.len() {
            let mut form = form.clone();
            form.remove(missing);
            assert_eq!(bench.check(&form), Err(INVALID_REQUEST), "without field {missing}");
        }
        let mut other = form;
        other[0].1 = "authorization_code".into();
        assert_eq!(bench.check(&other), Err(Refused(400, "unsupported_grant_type")));
    }
}
