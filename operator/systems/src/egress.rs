//! Which addresses may be connected to. Endpoints come from users and are hostile until shown otherwise.
//!
//! Guarantee: every connection goes to an address that was judged at connect time, whether the URL names it literally (in any spelling) or a
//! name resolves to it. A name with one refused address is refused whole, so that a mixed answer cannot win by retrying. Plain HTTP is
//! for addresses that the operator's configuration allows, and for no others. Redirects and environment proxies are never followed.

use crate::reason;
use fairlead_model::{ErrorClass, RemoteError};
use futures::future::BoxFuture;
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use url::{Host, Url};

/// The operator's configuration of egress (`--allow-endpoints`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointPolicy {
    /// Networks that are allowed although they are not public; plain HTTP is allowed within them.
    pub allow: Vec<IpNet>,
}

/// An address was refused, and why. Found again in the chain of a connect error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub(crate) String);

impl EndpointPolicy {
    /// Judges an address. `plain` is plain HTTP.
    pub(crate) fn judge(&self, address: IpAddr, plain: bool) -> Result<(), Refused> {
        let address = canonical(address);
        if self.allow.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        if plain {
            return Err(Refused(format!("{address} is reached by plain http, which is for explicitly allowed networks only; use https")));
        }
        match refused_kind(address) {
            Some(kind) => Err(Refused(format!("{address} is {kind}; the operator's --allow-endpoints does not list it"))),
            None => Ok(()),
        }
    }

    /// Judges what can be judged of a URL without resolving its name: scheme, user information, literal addresses.
    pub(crate) fn judge_url(&self, url: &Url) -> Result<(), Refused> {
        let plain = match url.scheme() {
            "https" => false,
            "http" => true,
            _ => return Err(Refused("only https endpoints can be called".into())),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused("an endpoint must not carry user information before an '@'".into()));
        }
        match url.host() {
            Some(Host::Ipv4(address)) => self.judge(IpAddr::V4(address), plain),
            Some(Host::Ipv6(address)) => self.judge(IpAddr::V6(address), plain),
            Some(Host::Domain(_)) if plain && self.allow.is_empty() => {
                Err(Refused("plain http is for explicitly allowed networks only; use https".into()))
            }
            Some(Host::Domain(name)) if !name.is_empty() => Ok(()),
            _ => Err(Refused("the endpoint names no host".into())),
        }
    }
}

/// The error for a refused address.
pub(crate) fn not_allowed(refused: &Refused) -> RemoteError {
    RemoteError::new(ErrorClass::Configuration, reason::ENDPOINT_NOT_ALLOWED, crate::message::clean(&refused.0, 300))
}

/// The address that is really meant: IPv4 addresses hide in several IPv6 forms.
fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return IpAddr::V4(v4);
    }
    match v6.segments() {
        // NAT64, RFC 6052: what it translates to is what is reached.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let [a, b] = high.to_be_bytes();
            let [c, d] = low.to_be_bytes();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        _ => address,
    }
}

fn refused_kind(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => refused_v4(address),
        IpAddr::V6(address) => refused_v6(address),
    }
}

/// IANA's special-purpose registry for IPv4.
fn refused_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    Some(match (a, b, c) {
        (0, _, _) => "an address of this network",
        (10, _, _) | (192, 168, _) => "a private address",
        (172, 16..=31, _) => "a private address",
        (100, 64..=127, _) => "a shared carrier address",
        (127, _, _) => "a loopback address",
        (169, 254, _) => "a link-local address",
        (192, 0, 0) | (192, 88, 99) | (198, 18..=19, _) => "a special-purpose address",
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => "a documentation address",
        (224..=239, _, _) => "a multicast address",
        (240..=255, _, _) => "a reserved address",
        // Azure's wire server: public by number, a metadata service by use.
        (168, 63, 129) => "a metadata address",
        _ => return None,
    })
}

/// IPv6: only global unicast, without the blocks that tunnel or document.
fn refused_v6(address: Ipv6Addr) -> Option<&'static str> {
    let [first, second, ..] = address.segments();
    Some(match (first, second) {
        _ if address.is_loopback() => "a loopback address",
        _ if address.is_unspecified() => "the unspecified address",
        (0xfe80..=0xfebf, _) => "a link-local address",
        (0xfc00..=0xfdff, _) => "a private address",
        (0xff00..=0xffff, _) => "a multicast address",
        (0x2001, 0..=0x01ff) => "a special-purpose address",
        (0x2001, 0x0db8) | (0x3fff, 0..=0x0fff) => "a documentation address",
        (0x2002, _) => "a tunnelling address",
        (0x2000..=0x3fff, _) => return None,
        _ => "no public address",
    })
}

/// Resolves names; the system's resolver, or a test's.
pub(crate) type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> + Send + Sync>;

/// The system's resolver.
pub(crate) fn system_lookup() -> Lookup {
    Arc::new(|name| Box::pin(async move { Ok(tokio::net::lookup_host((name.as_str(), 0)).await?.map(|found| found.ip()).collect()) }))
}

/// A resolver that hands out only addresses that pass.
#[derive(Clone)]
pub(crate) struct GuardedResolver {
    policy: EndpointPolicy,
    plain: bool,
    lookup: Lookup,
}

impl GuardedResolver {
    pub(crate) fn new(policy: EndpointPolicy, plain: bool, lookup: Lookup) -> Self {
        Self { policy, plain, lookup }
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let this = self.clone();
        let name = name.as_str().to_owned();
        Box::pin(async move {
            let found = (this.lookup)(name.clone()).await?;
            if found.is_empty() {
                return Err(format!("{name} has no address").into());
            }
            for address in &found {
                this.policy.judge(*address, this.plain).map_err(|refused| Refused(format!("{name} resolves to {}", refused.0)))?;
            }
            let addresses: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests;
