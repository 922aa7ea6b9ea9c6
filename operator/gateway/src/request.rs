//! What a request's headers say, read once and checked: its id, the trace it belongs to, the host, what may be answered, entity tags.

use http::HeaderMap;
use http::header::{self, HeaderName};
use rand::RngCore;
use std::fmt::Write as _;

/// The header that carries a request's id.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// The longest request id that is taken over.
const MAX_REQUEST_ID: usize = 128;
/// The longest tracestate that is taken over (W3C asks for at least 512).
const MAX_TRACESTATE: usize = 512;

/// The caller's request id if it is sane (letters, digits, `-_.:`), else a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let sane = |text: &&str| {
        !text.is_empty()
            && text.len() <= MAX_REQUEST_ID
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':'))
    };
    given.filter(sane).map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

/// A place in a distributed trace (W3C Trace Context, level 1): the trace, and the span that this request is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// The caller's span, if it sent one: 16 hexadecimal digits.
    pub parent_id: Option<String>,
    /// This request's span: 16 hexadecimal digits.
    pub span_id: String,
    /// Whether the caller records it.
    pub sampled: bool,
    /// Vendors' own part, passed on unread.
    pub state: Option<String>,
}

impl TraceContext {
    /// The trace of a request: the caller's, or a new one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let span_id = random_hex::<8>();
        match headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()).and_then(traceparent) {
            Some((trace_id, parent, sampled)) => {
                let state: Vec<&str> = headers.get_all(TRACESTATE).iter().filter_map(|value| value.to_str().ok()).collect();
                let state = state.join(",");
                Self {
                    trace_id,
                    parent_id: Some(parent),
                    span_id,
                    sampled,
                    state: (!state.is_empty() && state.len() <= MAX_TRACESTATE).then_some(state),
                }
            }
            None => Self { trace_id: random_hex::<16>(), parent_id: None, span_id, sampled: false, state: None },
        }
    }

    /// The header for a request made on behalf of this one.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

/// Trace, parent and whether it is sampled; later versions may have more fields, which are not ours to read.
fn traceparent(text: &str) -> Option<(String, String, bool)> {
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length: usize| text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |text: &str| text.bytes().all(|b| b == b'0');
    let sane = hex(version, 2) && version != "ff" && hex(trace, 32) && !zero(trace) && hex(parent, 16) && !zero(parent) && hex(flags, 2);
    let more = parts.next().is_some();
    if !sane || (version == "00" && more) {
        return None;
    }
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some((trace.to_owned(), parent.to_owned(), flags & 1 == 1))
}

fn random_hex<const N: usize>() -> String {
    let mut bytes = [0u8; N];
    rand::rng().fill_bytes(&mut bytes);
    // All zero is no id; the odds are those of a collision.
    bytes.iter().fold(String::with_capacity(2 * N), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The host that is asked for, in lower case and without port.
pub(crate) fn host(uri: &http::Uri, headers: &HeaderMap) -> Option<String> {
    let authority = match uri.authority() {
        Some(authority) => authority.clone(),
        None => headers.get(header::HOST)?.to_str().ok()?.parse().ok()?,
    };
    Some(authority.host().trim_end_matches('.').to_ascii_lowercase())
}

/// Whether `media` (`type/subtype`) may be answered with.
pub(crate) fn accepts(headers: &HeaderMap, media: &str) -> bool {
    let mut given = headers.get_all(header::ACCEPT).iter().peekable();
    if given.peek().is_none() {
        return true;
    }
    let kind = media.split('/').next().unwrap_or_default();
    given.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let range = parts.next().unwrap_or_default().to_ascii_lowercase();
        let refused = parts.any(|parameter| {
            let Some((name, value)) = parameter.split_once('=') else { return false };
            name.trim().eq_ignore_ascii_case("q") && value.trim().bytes().all(|byte| matches!(byte, b'0' | b'.'))
        });
        !refused && (range == "*/*" || range == media || range.strip_suffix("/*") == Some(kind))
    })
}

/// The media type of the body, in lower case and without parameters; none where there are two, or another character set than UTF-8 is declared.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let mut given = headers.get_all(header::CONTENT_TYPE).iter();
    let text = given.next().filter(|_| given.next().is_none())?.to_str().ok()?;
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next()?.to_ascii_lowercase();
    let foreign = parts.any(|parameter| {
        let Some((name, value)) = parameter.split_once('=') else { return false };
        name.trim().eq_ignore_ascii_case("charset") && !value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    (!foreign).then_some(media)
}

/// A condition on entity tags (RFC 9110, section 13.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TagCondition {
    any: bool,
    tags: Vec<String>,
}

impl TagCondition {
    /// Reads `If-Match` or `If-None-Match`.
    pub(crate) fn read(headers: &HeaderMap, name: HeaderName) -> Option<Self> {
        let mut given = headers.get_all(name).iter().peekable();
        given.peek()?;
        let all: Vec<&str> = given.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim).collect();
        Some(Self { any: all.contains(&"*"), tags: all.into_iter().map(str::to_owned).collect() })
    }

    /// Strong comparison, for `If-Match`.
    pub(crate) fn strong(&self, tag: &str) -> bool {
        self.any || self.tags.iter().any(|given| given == tag)
    }

    /// Weak comparison, for `If-None-Match`.
    pub(crate) fn weak(&self, tag: &str) -> bool {
        self.any || self.tags.iter().any(|given| given.strip_prefix("W/").unwrap_or(given) == tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_sane_request_id_is_taken_over_and_any_other_replaced() {
        assert_eq!(request_id(&headers(&[("x-request-id", "abc-1")])), "abc-1");
        for bad in ["", "a b", "<script>", &"x".repeat(129)] {
            assert_ne!(request_id(&headers(&[("x-request-id", bad)])), bad);
        }
    }

    #[test]
    fn a_callers_trace_is_continued_in_a_span_of_our_own() {
        let sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = TraceContext::of(&headers(&[("traceparent", sent), ("tracestate", "vendor=1")]));
        assert_eq!((trace.trace_id.as_str(), trace.sampled), ("4bf92f3577b34da6a3ce929d0e0e4736", true));
        assert_eq!(trace.parent_id.as_deref(), Some("00f067aa0ba902b7"));
        assert_eq!(trace.state.as_deref(), Some("vendor=1"));
        assert_ne!(trace.span_id, "00f067aa0ba902b7");
        assert_eq!(trace.traceparent(), format!("00-{}-{}-01", trace.trace_id, trace.span_id));
    }

    #[test]
    fn a_trace_that_is_none_begins_anew() {
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert_eq!(TraceContext::of(&headers(&[("traceparent", bad)])).parent_id, None, "{bad}");
        }
    }

    #[test]
    fn accept_is_read_with_its_wildcards_and_refusals() {
        for (accept, wanted) in [
            ("application/json", true),
            ("*/*", true),
            ("text/html, application/*;q=0.1", true),
            ("text/html", false),
            ("application/json;q=0", false),
            ("application/json; q=0.000", false),
            ("application/json;q=0.5", true),
        ] {
            assert_eq!(accepts(&headers(&[("accept", accept)]), "application/json"), wanted, "{accept}");
        }
        assert!(accepts(&HeaderMap::new(), "application/json"));
    }

    #[test]
    fn tags_compare_strongly_for_writes_and_weakly_for_reads() {
        let condition = TagCondition::read(&headers(&[("if-match", "\"a\", W/\"b\"")]), header::IF_MATCH).unwrap();
        assert!(condition.strong("\"a\"") && !condition.strong("\"b\"") && condition.weak("\"b\"") && !condition.weak("\"c\""));
        assert!(TagCondition::read(&headers(&[("if-match", "*")]), header::IF_MATCH).unwrap().strong("\"x\""));
    }
}
