//! `{{name}}` in text: endpoints, paths, queries. Values are put in as they are, or percent-encoded where the text is part of a URL.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but RFC 3986's unreserved characters.
pub(crate) const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes everything but unreserved characters.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// The names between `{{` and `}}`, or `None` where braces do not close.
pub(crate) fn names(text: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("{{") {
        let (name, tail) = after.split_once("}}")?;
        names.push(name.trim().to_owned());
        rest = tail;
    }
    Some(names)
}

/// Puts values in; a name without a value is the error.
pub(crate) fn render(text: &str, value: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let (name, tail) = after.split_once("}}").ok_or_else(|| text.to_owned())?;
        out.push_str(&value(name.trim()).ok_or_else(|| name.trim().to_owned())?);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}
