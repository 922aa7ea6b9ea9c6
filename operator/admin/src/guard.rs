//! Who may change something, and see what is masked.
//!
//! Flow: a request that changes something must come from the console's own page: its token stands in `x-fairlead-csrf`, which no other site
//! can read, or send without asking; `Sec-Fetch-Site` and `Origin`, where a browser sends them, say the same. Then [`Writing`] decides: on a
//! laptop the address itself must be an IP address or `localhost`, so that a foreign name that resolves to it opens nothing (DNS
//! rebinding); elsewhere a bearer token is needed.

use crate::problem::Problem;
use axum::http::{HeaderMap, StatusCode, header};
use sha2::{Digest as _, Sha256};

/// The header that carries the page's token.
pub(crate) const CSRF_HEADER: &str = "x-fairlead-csrf";

/// Who may change something.
#[derive(Debug, Clone)]
pub enum Writing {
    /// Nobody; personal fields stay masked.
    Off,
    /// Whoever reaches the address under an IP address or `localhost`.
    Local,
    /// Whoever has the token.
    Token(Token),
}

/// A bearer token, kept as its digest: it cannot be printed, and comparing digests tells nothing by its time.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// The shortest one that is taken.
    pub const MIN: usize = 16;

    /// A token from the text of its file; `None` if it is shorter than [`Token::MIN`] characters.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (text.len() >= Self::MIN).then(|| Self(digest(text)))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// The guard of one process.
#[derive(Debug)]
pub(crate) struct Guard {
    writing: Writing,
    csrf: String,
}

impl Guard {
    pub(crate) fn new(writing: Writing) -> Self {
        Self { writing, csrf: hex::encode(rand::random::<[u8; 32]>()) }
    }

    /// The token that the page sends back.
    pub(crate) fn csrf(&self) -> &str {
        &self.csrf
    }

    /// What the page is told of its rights: `Off`, `Open`, `Token`.
    pub(crate) fn word(&self, headers: &HeaderMap) -> &'static str {
        match self.writing {
            Writing::Local if is_local(headers) => "Open",
            Writing::Token(_) => "Token",
            Writing::Off | Writing::Local => "Off",
        }
    }

    /// Whether records may be shown, masked: not under a foreign name that was made to resolve here.
    pub(crate) fn admit_reading(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if matches!(self.writing, Writing::Token(_)) || is_local(headers) {
            return Ok(());
        }
        Err(Problem::new(StatusCode::FORBIDDEN, "open the console by its IP address or as localhost (kubectl port-forward) to see records"))
    }

    /// Lets a request through or says why not.
    pub(crate) fn admit(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let foreign = || Problem::new(StatusCode::FORBIDDEN, "the request does not come from this console; load it again");
        if text("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") {
            return Err(foreign());
        }
        if let Some(origin) = text("origin") {
            let host = text("host").unwrap_or_default();
            let same = origin.split_once("://").is_some_and(|(scheme, rest)| matches!(scheme, "http" | "https") && rest == host);
            if !same {
                return Err(foreign());
            }
        }
        if text(CSRF_HEADER).is_none_or(|sent| digest(sent) != digest(&self.csrf)) {
            return Err(foreign());
        }
        match &self.writing {
            Writing::Off => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "this console only shows; start the operator with --console-write and a token file to change something here",
            )),
            Writing::Local if is_local(headers) => Ok(()),
            Writing::Local => {
                Err(Problem::new(StatusCode::FORBIDDEN, "open the console by its IP address or as localhost to change something here"))
            }
            Writing::Token(token) => {
                let sent = text(header::AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
                match sent {
                    Some(sent) if digest(sent.trim()) == token.0 => Ok(()),
                    _ => Err(Problem::new(StatusCode::UNAUTHORIZED, "the console's token is missing or wrong")),
                }
            }
        }
    }
}

/// Whether the browser was given an address that no foreign name server can make its own.
fn is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|value| value.to_str().ok()) else { return false };
    match url::Url::parse(&format!("http://{host}/")).ok().and_then(|url| url.host().map(|host| host.to_owned())) {
        Some(url::Host::Ipv4(_) | url::Host::Ipv6(_)) => true,
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn admitted(guard: &Guard, pairs: &[(&'static str, &str)]) -> Option<u16> {
        let mut all = headers(pairs);
        if !all.contains_key(CSRF_HEADER) {
            all.insert(CSRF_HEADER, guard.csrf().parse().unwrap());
        }
        use axum::response::IntoResponse as _;
        guard.admit(&all).err().map(|problem| problem.into_response().status().as_u16())
    }

    #[test]
    fn on_a_laptop_only_this_page_under_this_address_changes_anything() {
        let guard = Guard::new(Writing::Local);
        let host = ("host", "127.0.0.1:8080");
        assert_eq!(admitted(&guard, &[host]), None);
        assert_eq!(admitted(&guard, &[("host", "localhost:8080"), ("origin", "http://localhost:8080")]), None);
        assert_eq!(admitted(&guard, &[("host", "[::1]:8080"), ("sec-fetch-site", "same-origin")]), None);
        assert_eq!(admitted(&guard, &[("host", "rebound.example:8080")]), Some(403), "a foreign name that resolves to loopback");
        assert_eq!(admitted(&guard, &[host, ("origin", "https://evil.example")]), Some(403));
        assert_eq!(admitted(&guard, &[host, ("origin", "null")]), Some(403));
        assert_eq!(admitted(&guard, &[host, ("sec-fetch-site", "cross-site")]), Some(403));
        assert_eq!(admitted(&guard, &[host, (CSRF_HEADER, "guessed")]), Some(403));
        assert!(guard.admit(&headers(&[host])).is_err(), "without the page's token");
        assert!(guard.admit_reading(&headers(&[host])).is_ok());
        assert!(guard.admit_reading(&headers(&[("host", "rebound.example:8080")])).is_err());
    }

    #[test]
    fn with_a_token_file_the_token_decides_and_without_one_nobody_writes() {
        let guard = Guard::new(Writing::Token(Token::new("correct horse battery\n").unwrap()));
        let host = ("host", "console.example");
        assert_eq!(admitted(&guard, &[host, ("authorization", "Bearer correct horse battery")]), None);
        assert_eq!(admitted(&guard, &[host, ("authorization", "Bearer wrong horse battery")]), Some(401));
        assert_eq!(admitted(&guard, &[host]), Some(401));
        assert_eq!(admitted(&Guard::new(Writing::Off), &[("host", "127.0.0.1")]), Some(403));
        assert!(Token::new("short").is_none());
        assert_eq!(format!("{:?}", Writing::Token(Token::new("correct horse battery").unwrap())), "Token(Token)");
    }
}
