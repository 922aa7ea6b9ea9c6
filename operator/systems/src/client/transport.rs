//! One HTTP exchange: sent once, answered within a deadline and a size, or an error that says whether anything can have taken effect.
//!
//! Everything that a client says to a system goes through a [`Transport`]: its credentials, limits, circuit and judgement lie above. A simulation
//! puts systems of its own making here, without sockets.
//!
//! [`Sockets`] promises: no redirect is followed, no proxy of the environment is used, every connection goes to a judged address, a body is read piece
//! by piece up to [`MAX_BODY`] bytes *after* inflation, and the deadline holds for the whole exchange, however slowly bytes drip.

use crate::egress::{EndpointPolicy, GuardedResolver, Lookup, Refused, not_allowed};
use crate::reason;
use async_trait::async_trait;
use bytes::Bytes;
use fairlead_model::{ErrorClass, RemoteError, Timestamp};
use http::{HeaderMap, Method};
use std::error::Error as _;
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// The largest answer, inflated.
pub(crate) const MAX_BODY: usize = 32 * 1024 * 1024;

/// The longest that a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// Carries requests to systems.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Sends once, and waits for the answer until `deadline`.
    ///
    /// # Errors
    /// Why there is no usable answer, and with that whether the request can have taken effect.
    async fn send(&self, outgoing: Outgoing, deadline: Instant) -> Result<Answer, SendError>;
}

/// What is sent.
#[derive(Clone)]
pub struct Outgoing {
    /// The method.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// The headers, credentials among them.
    pub headers: HeaderMap,
    /// The body.
    pub body: Option<Bytes>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, inflated.
    pub body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The server's clock, from the `Date` header.
    pub(crate) fn date(&self) -> Option<Timestamp> {
        let date = chrono::DateTime::parse_from_rfc2822(self.header("date")?).ok()?;
        Some(Timestamp(date.timestamp_millis()))
    }

    /// A page for people rather than data.
    pub(crate) fn is_page(&self) -> bool {
        let told = self.header("content-type").is_some_and(|kind| kind.to_ascii_lowercase().contains("html"));
        let first = self.body.iter().find(|byte| !byte.is_ascii_whitespace());
        first.is_some_and(|first| told || *first == b'<')
    }
}

/// Why there is no usable answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendError {
    /// The address is not allowed; nothing was sent.
    Refused(Refused),
    /// No connection came about; nothing was sent.
    NotSent(String),
    /// Something was sent, and the answer did not come whole.
    Cut(String),
    /// The answer is larger than [`MAX_BODY`].
    TooLarge,
}

impl SendError {
    /// The error that a caller sees. `write` tells that the request may have had an effect.
    pub(crate) fn into_remote(self, what: &str, write: bool) -> RemoteError {
        let unknown = |why: &str| {
            RemoteError::new(
                ErrorClass::UnknownOutcome,
                reason::OUTCOME_UNKNOWN,
                format!("{what} was sent, but {why}; it is looked up before it is sent again"),
            )
        };
        match self {
            Self::Refused(refused) => not_allowed(&refused),
            Self::NotSent(why) => {
                RemoteError::new(ErrorClass::Transient, reason::ENDPOINT_UNREACHABLE, format!("{what} could not be sent: {why}"))
            }
            Self::Cut(why) if write => unknown(&why),
            Self::Cut(why) => {
                RemoteError::new(ErrorClass::Transient, reason::ENDPOINT_UNREACHABLE, format!("{what} got no whole answer: {why}"))
            }
            Self::TooLarge if write => unknown("the answer is too large to be read"),
            Self::TooLarge => {
                let text =
                    format!("the answer to {what} is larger than {} MiB; ask for fewer fields or smaller pages", MAX_BODY / 1024 / 1024);
                RemoteError::new(ErrorClass::Transient, reason::ANSWER_TOO_LARGE, text)
            }
        }
    }
}

/// The HTTP clients of one connector: one for https, one for plain http within allowed networks.
pub(crate) struct Sockets {
    policy: EndpointPolicy,
    secure: reqwest::Client,
    plain: reqwest::Client,
}

impl Sockets {
    /// Builds the clients; no I/O but reading the machine's own certificates.
    pub(crate) fn new(policy: &EndpointPolicy, ca_pem: Option<&str>, lookup: &Lookup) -> Result<Self, RemoteError> {
        let unusable = |why: String| {
            let text = format!("the connector's certificates cannot be used: {why}; give PEM certificates under tls.caRef");
            RemoteError::new(ErrorClass::Configuration, reason::CERTIFICATE_INVALID, crate::message::clean(&text, 300))
        };
        let roots = match ca_pem {
            None => Vec::new(),
            Some(pem) => {
                let roots = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| unusable(chain(&error)))?;
                if roots.is_empty() {
                    return Err(unusable("there is no certificate in the text".into()));
                }
                roots
            }
        };
        let builder = |plain: bool| {
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .referer(false)
                .connect_timeout(CONNECT)
                .pool_idle_timeout(Duration::from_secs(30))
                .tls_version_min(reqwest::tls::Version::TLS_1_2)
                .user_agent(concat!("fairlead/", env!("CARGO_PKG_VERSION")))
                .dns_resolver(std::sync::Arc::new(GuardedResolver::new(policy.clone(), plain, lookup.clone())))
        };
        let secure = builder(false).https_only(true).tls_certs_merge(roots).build().map_err(|error| unusable(chain(&error)))?;
        let plain = builder(true).build().map_err(|error| unusable(chain(&error)))?;
        Ok(Self { policy: policy.clone(), secure, plain })
    }

    fn failure(error: &reqwest::Error) -> SendError {
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(refused) = cause.downcast_ref::<Refused>() {
                return SendError::Refused(refused.clone());
            }
            source = cause.source();
        }
        let why = crate::message::clean(&chain(error), 200);
        if error.is_connect() || error.is_builder() { SendError::NotSent(why) } else { SendError::Cut(why) }
    }
}

#[async_trait]
impl Transport for Sockets {
    async fn send(&self, outgoing: Outgoing, deadline: Instant) -> Result<Answer, SendError> {
        self.policy.judge_url(&outgoing.url).map_err(SendError::Refused)?;
        // Whoever stood still until now is too late: others may have written since.
        if deadline <= Instant::now() {
            return Err(SendError::NotSent("its time was over before it was sent".into()));
        }
        let client = if outgoing.url.scheme() == "https" { &self.secure } else { &self.plain };
        let mut request = reqwest::Request::new(outgoing.method, outgoing.url);
        *request.headers_mut() = outgoing.headers;
        *request.body_mut() = outgoing.body.map(Into::into);
        let exchange = async {
            let mut response = client.execute(request).await.map_err(|error| Self::failure(&error))?;
            let status = response.status().as_u16();
            let headers = std::mem::take(response.headers_mut());
            let mut body = Vec::new();
            while let Some(piece) =
                response.chunk().await.map_err(|_| SendError::Cut("the connection was cut in the middle of the answer".into()))?
            {
                if body.len() + piece.len() > MAX_BODY {
                    return Err(SendError::TooLarge);
                }
                body.extend_from_slice(&piece);
            }
            Ok(Answer { status, headers, body })
        };
        match tokio::time::timeout_at(deadline, Box::pin(exchange)).await {
            Ok(result) => result,
            Err(_) => Err(SendError::Cut("no whole answer came before the deadline".into())),
        }
    }
}

/// The innermost cause of an error: the part that says something. Never the URL, which may hold keys.
fn chain(error: &reqwest::Error) -> String {
    let mut innermost: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(next) = innermost.and_then(std::error::Error::source) {
        innermost = Some(next);
    }
    innermost.map_or_else(|| "the request failed".to_owned(), ToString::to_string)
}
