//! The console's files: a page, a style sheet and a few modules, compiled in. They ask only this address, and everything from outside is
//! put in place as text.

use crate::surface::Surface;
use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use std::sync::Arc;

/// Nothing from elsewhere, nothing inline, nobody's frame, no markup from text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Name, type, content.
const FILES: &[(&str, &str, &str)] = &[
    ("", HTML, include_str!("../console/index.html")),
    ("console.css", CSS, include_str!("../console/console.css")),
    ("icon.svg", SVG, include_str!("../console/icon.svg")),
    ("main.js", JS, include_str!("../console/main.js")),
    ("api.js", JS, include_str!("../console/api.js")),
    ("dom.js", JS, include_str!("../console/dom.js")),
    ("overview.js", JS, include_str!("../console/overview.js")),
    ("integration.js", JS, include_str!("../console/integration.js")),
    ("letters.js", JS, include_str!("../console/letters.js")),
];

pub(crate) fn routes() -> Router<Arc<Surface>> {
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/console/") }))
        .route("/console", get(|| async { Redirect::permanent("/console/") }))
        .route("/console/", get(|| async { file("") }))
        .route("/console/{name}", get(|Path(name): Path<String>| async move { file(&name) }))
}

fn file(name: &str) -> Response {
    let Some((_, kind, content)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let headers: [(HeaderName, HeaderValue); 7] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
        // A new binary brings new files under the same names.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, *content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_holds_nothing_that_its_policy_refuses() {
        for (name, kind, content) in FILES {
            assert!(!content.contains("innerHTML") && !content.contains("insertAdjacentHTML"), "{name} makes markup from text");
            assert!(!content.contains("http://") || *kind == SVG, "{name} names another address");
            assert!(!content.contains("https://"), "{name} names another address");
            if *kind == HTML {
                assert!(!content.contains("style=") && !content.contains("<script>") && !content.contains(" onclick"), "{name} is inline");
            }
            if *kind == JS {
                for imported in content.lines().filter_map(|line| line.strip_prefix("import ")?.rsplit_once("\"./")?.1.strip_suffix("\";"))
                {
                    assert!(FILES.iter().any(|(known, ..)| *known == imported), "{name} imports {imported}, which is not served");
                }
            }
        }
    }
}
