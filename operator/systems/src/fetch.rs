//! Fetching a document from an address that a user named, such as an issuer's key set: by the rules of egress, within a size and a time.

use crate::client::transport::{Outgoing, SendError, Sockets, Transport as _};
use crate::egress::{EndpointPolicy, system_lookup};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// Fetches documents. Each request is judged like those to a business system: no redirect, no proxy, only allowed addresses.
pub struct Fetcher {
    transport: Sockets,
}

impl Fetcher {
    /// A fetcher that keeps to `policy`.
    ///
    /// # Errors
    /// The machine's own certificates cannot be used.
    pub fn new(policy: &EndpointPolicy) -> Result<Self, String> {
        let transport = Sockets::new(policy, None, &system_lookup()).map_err(|error| error.message)?;
        Ok(Self { transport })
    }

    /// The body of a successful answer of at most `most` bytes, within `patience`.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub async fn get(&self, address: &str, most: usize, patience: Duration) -> Result<Bytes, String> {
        let url = Url::parse(address).map_err(|error| format!("it is no URL ({error})"))?;
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("application/json"))]);
        let outgoing = Outgoing { method: Method::GET, url, headers, body: None };
        let answer = self.transport.send(outgoing, Instant::now() + patience).await.map_err(|error| match error {
            SendError::Refused(refused) => refused.0,
            SendError::NotSent(why) | SendError::Cut(why) => why,
            SendError::TooLarge => "the answer is too large".to_owned(),
        })?;
        match answer.status {
            200..=299 if answer.body.len() <= most => Ok(answer.body.into()),
            200..=299 => Err(format!("the answer is larger than {most} bytes")),
            status => Err(format!("the answer has the status {status}")),
        }
    }
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").finish_non_exhaustive()
    }
}
