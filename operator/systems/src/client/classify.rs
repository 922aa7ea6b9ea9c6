//! What an answer means, by the definition's table of errors; and what a person is told of it.
//!
//! Pure. A message carries the vendor's code and the field it names; never a raw body. The vendor's own words, cleaned and cut, stand beside it
//! as `detail`, for they may repeat values of the record. They are in the message only where they speak of the set-up (credentials, permissions,
//! the question) and the request carried no values. Secrets are taken out of everything that the vendor said, before anything is cut.

use super::credentials::Known;
use super::gate::{MAX_WAIT, Showed};
use super::transport::Answer;
use crate::definition::format::{Effect, ErrorRule, Format};
use crate::definition::path::AnswerPath;
use crate::{decode, message, reason};
use fairlead_model::{ErrorClass, RemoteError, Timestamp};
use serde_json::Value;
use std::time::Duration;

/// What was tried, for messages and for judging.
#[derive(Clone, Copy)]
pub(crate) struct Tried<'a> {
    /// The system's name.
    pub(crate) system: &'a str,
    /// `update of Account`.
    pub(crate) what: &'a str,
    /// It may have had an effect.
    pub(crate) write: bool,
    /// It carried values of records, which the vendor may repeat.
    pub(crate) values: bool,
    /// The secrets that the vendor may repeat.
    pub(crate) known: &'a Known,
}

/// A failed answer, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) error: RemoteError,
    pub(crate) showed: Showed,
}

/// What the vendor says went wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) field: Option<String>,
}

/// Judges an answer; `None` is a success.
pub(crate) fn judge(format: &Format, tried: Tried<'_>, answer: &Answer, now: Timestamp) -> Option<Judged> {
    if (200..300).contains(&answer.status) {
        return None;
    }
    let page = answer.is_page();
    let body = if page { None } else { decode::json(&answer.body).ok() };
    let told = body.as_ref().map(|body| read(format, body)).unwrap_or_default();
    let rule = find(format, answer.status, told.code.as_deref());
    let told = match (rule, &body) {
        (Some(rule), Some(body)) => Told {
            message: rule.message.as_ref().and_then(|path| path.text(body)).or(told.message),
            field: rule.field.as_ref().and_then(|path| path.text(body)).or(told.field),
            ..told
        },
        _ => told,
    };
    let status = Some(answer.status);
    let mut error = error(rule, status, &told, tried);
    let server = answer.status >= 500;
    if server && page && error.class == ErrorClass::Transient {
        error.reason = reason::MAINTENANCE_PAGE.into();
    }
    let wait = match error.class {
        ErrorClass::Throttled | ErrorClass::Transient => answer.header("retry-after").and_then(|text| retry_after(text, now)),
        _ => None,
    };
    let showed = match error.class {
        ErrorClass::Throttled => Showed::Throttling { wait, exhausted: rule.is_some_and(|rule| rule.quota_exhausted) },
        _ if server || answer.status == 408 => Showed::Outage,
        _ => Showed::Alive,
    };
    Some(Judged { error: error.retry_after(wait), showed })
}

/// Judges the refusal of one item of a batch that was answered as a whole.
pub(crate) fn judge_item(format: &Format, tried: Tried<'_>, told: &Told) -> RemoteError {
    // Nothing of an item that the vendor refused took effect, whatever the table says of whole answers.
    let rule = format.errors.iter().find(|rule| !rule.code.is_empty() && matches(rule, None, told.code.as_deref()));
    error(rule, None, told, tried)
}

/// A page for people, or something else that is no data, in an answer that claims success.
pub(crate) fn no_data(tried: Tried<'_>, answer: &Answer) -> Judged {
    let Tried { system, what, write, .. } = tried;
    let (word, text) = if answer.is_page() {
        (
            reason::MAINTENANCE_PAGE,
            format!("{system} answered {what} with a web page where data was expected: maintenance, or the endpoint is not its API"),
        )
    } else {
        (reason::UNEXPECTED_RESPONSE, format!("{system} answered {what} with something that is not JSON"))
    };
    let error = if write {
        RemoteError::new(ErrorClass::UnknownOutcome, reason::OUTCOME_UNKNOWN, format!("{text}; it is looked up before it is sent again"))
    } else {
        RemoteError::new(ErrorClass::Transient, word, text)
    };
    Judged { error, showed: Showed::Outage }
}

/// What the error body says.
fn read(format: &Format, body: &Value) -> Told {
    let first = |paths: &[AnswerPath]| paths.iter().find_map(|path| path.text(body));
    let places = &format.error_body;
    Told { code: first(&places.code), message: first(&places.message), field: first(&places.field) }
}

fn find<'a>(format: &'a Format, status: u16, code: Option<&str>) -> Option<&'a ErrorRule> {
    format.errors.iter().find(|rule| matches(rule, Some(status), code))
}

fn matches(rule: &ErrorRule, status: Option<u16>, code: Option<&str>) -> bool {
    let status_fits = rule.status.is_none() || rule.status == status;
    let code_fits = rule.code.is_empty()
        || code.is_some_and(|code| {
            rule.code.iter().any(|pattern| pattern.strip_suffix('*').map_or(pattern == code, |start| code.starts_with(start)))
        });
    status_fits && code_fits
}

fn error(rule: Option<&ErrorRule>, status: Option<u16>, told: &Told, tried: Tried<'_>) -> RemoteError {
    let mut class = rule.map_or_else(|| default_class(status), |rule| rule.class);
    let mut word = rule.and_then(|rule| rule.reason.as_deref()).unwrap_or_else(|| default_reason(class)).to_owned();
    let server = status.is_some_and(|status| status >= 500);
    let effect = rule.and_then(|rule| rule.effect).unwrap_or(if server { Effect::Maybe } else { Effect::None });
    if tried.write && effect == Effect::Maybe && matches!(class, ErrorClass::Transient | ErrorClass::UnknownOutcome) {
        class = ErrorClass::UnknownOutcome;
        word = reason::OUTCOME_UNKNOWN.into();
    }
    if !tried.write && class == ErrorClass::Data {
        // A read has no record that could be wrong: what is wrong is the question.
        class = ErrorClass::Configuration;
    }
    let cleaned = |text: &Option<String>, clean: fn(&str) -> String| {
        text.as_deref().map(|text| clean(&tried.known.redact(text))).filter(|text| !text.is_empty())
    };
    let code = cleaned(&told.code, message::code);
    let field = cleaned(&told.field, |text| message::clean(text, 120));
    let words = cleaned(&told.message, |text| message::clean(text, message::MAX_VENDOR_TEXT));
    let of_set_up = !tried.values && matches!(class, ErrorClass::Auth | ErrorClass::Permission | ErrorClass::Configuration);
    let mut text = format!("{} refused {}", tried.system, tried.what);
    if let Some(status) = status {
        text = format!("{} answered {} with {status}", tried.system, tried.what);
    }
    if let Some(code) = code {
        text.push(' ');
        text.push_str(&code);
    }
    if let Some(field) = &field {
        text.push_str(&format!(" (field {field})"));
    }
    if let Some(words) = words.as_ref().filter(|_| of_set_up) {
        text.push_str(&format!(": {words}"));
    }
    RemoteError::new(class, word, text).field(field).detail(words.filter(|_| !of_set_up))
}

fn default_class(status: Option<u16>) -> ErrorClass {
    match status {
        Some(401) => ErrorClass::Auth,
        Some(403) => ErrorClass::Permission,
        Some(404) => ErrorClass::NotFound,
        Some(408 | 425 | 500..) => ErrorClass::Transient,
        Some(409 | 412) => ErrorClass::Conflict,
        Some(410) => ErrorClass::Configuration,
        Some(429) => ErrorClass::Throttled,
        Some(100..=399) => ErrorClass::Configuration,
        Some(_) | None => ErrorClass::Data,
    }
}

fn default_reason(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Transient => reason::SERVER_ERROR,
        ErrorClass::Throttled => reason::RATE_LIMITED,
        ErrorClass::Auth => reason::AUTHENTICATION_FAILED,
        ErrorClass::Permission => reason::ENTITY_PERMISSION_MISSING,
        ErrorClass::Data => reason::VALIDATION_FAILED,
        ErrorClass::Conflict => reason::RECORD_CONFLICT,
        ErrorClass::NotFound => reason::RECORD_NOT_FOUND,
        ErrorClass::UnknownOutcome => reason::OUTCOME_UNKNOWN,
        ErrorClass::Configuration => reason::UNEXPECTED_RESPONSE,
    }
}

/// `Retry-After`: seconds, or a date (RFC 9110 section 10.2.3). Whatever the vendor says, somebody looks again after [`MAX_WAIT`].
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let wait = match text.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => Timestamp(chrono::DateTime::parse_from_rfc2822(text.trim()).ok()?.timestamp_millis()).since(now),
    };
    Some(wait.min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalog;
    use http::HeaderMap;

    fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        Answer { status, headers: map, body: body.as_bytes().to_vec() }
    }

    fn judged(system: &str, write: bool, answer: &Answer) -> Judged {
        let format = &Catalog::builtin().get(system).unwrap().format;
        let known = Known::default();
        judge(format, Tried { system, what: "update of thing", write, values: write, known: &known }, answer, Timestamp(0)).unwrap()
    }

    #[test]
    fn salesforce_errors_are_known_by_their_codes() {
        use ErrorClass::{Auth, Configuration, Conflict, Data, NotFound, Permission, Throttled, Transient, UnknownOutcome};
        for (status, code, class, word) in [
            (400, "REQUIRED_FIELD_MISSING", Data, "ValidationFailed"),
            (400, "DUPLICATE_VALUE", Conflict, "RecordConflict"),
            (400, "UNABLE_TO_LOCK_ROW", Transient, "RecordConflict"),
            (400, "INSUFFICIENT_ACCESS_OR_READONLY", Permission, "EntityPermissionMissing"),
            (401, "INVALID_SESSION_ID", Auth, "AuthenticationFailed"),
            (403, "REQUEST_LIMIT_EXCEEDED", Throttled, "RateLimited"),
            (403, "API_DISABLED_FOR_ORG", Auth, "AuthenticationFailed"),
            (404, "ENTITY_IS_DELETED", NotFound, "RecordNotFound"),
            (410, "GONE", Configuration, "VersionRetired"),
            (500, "UNKNOWN_EXCEPTION", UnknownOutcome, "OutcomeUnknown"),
            (503, "SERVER_UNAVAILABLE", Transient, "ServerError"),
        ] {
            let judged = judged(
                "salesforce",
                true,
                &answer(status, &[], &format!(r#"[{{"errorCode":"{code}","message":"it <failed>\u001b[2J"}}]"#)),
            );
            assert_eq!((judged.error.class, judged.error.reason.as_str()), (class, word), "{code}");
            assert!(judged.error.message.ends_with(&format!("with {status} {code}")), "{}", judged.error.message);
            assert_eq!(judged.error.detail.as_deref(), Some("it ‹failed› [2J"));
        }
    }

    #[test]
    fn the_vendors_words_are_in_the_message_only_where_they_cannot_repeat_a_value() {
        let told = |write, status, code: &str, words: &str| {
            let body = format!(r#"[{{"errorCode":"{code}","message":"{words}","fields":["Email"]}}]"#);
            let error = judged("salesforce", write, &answer(status, &[], &body)).error;
            (error.message, error.detail)
        };
        let (message, detail) = told(true, 400, "INVALID_EMAIL_ADDRESS", "Email: invalid email address: jane@example.com");
        assert_eq!(message, "salesforce answered update of thing with 400 INVALID_EMAIL_ADDRESS (field Email)");
        assert_eq!(detail.as_deref(), Some("Email: invalid email address: jane@example.com"));
        let (message, detail) = told(false, 400, "INVALID_FIELD", "No such column 'Gone__c'");
        assert!(message.ends_with("400 INVALID_FIELD (field Email): No such column 'Gone__c'") && detail.is_none(), "{message}");
        let (message, detail) = told(false, 500, "UNKNOWN_EXCEPTION", "while showing jane@example.com");
        assert!(!message.contains("jane") && detail.is_some(), "a failing server may say anything: {message}");
        let error = RemoteError::new(ErrorClass::Data, "ValidationFailed", "refused").detail(detail.map(Into::into));
        assert!(!format!("{error} {}", serde_json::to_string(&error).unwrap()).contains("jane"), "reports carry no such words");
    }

    #[test]
    fn netsuite_errors_are_known_by_their_codes_and_name_the_field() {
        use ErrorClass::{Auth, Conflict, Data, NotFound, Permission, Throttled};
        for (status, code, class) in [
            (400, "INVALID_CONTENT", Data),
            (400, "USER_ERROR", Data),
            (400, "DUP_RCRD", Conflict),
            (400, "SSS_REQUEST_LIMIT_EXCEEDED", Throttled),
            (401, "INVALID_LOGIN", Auth),
            (401, "consumer_key_unknown", Auth),
            (403, "INSUFFICIENT_PERMISSION", Permission),
            (404, "NONEXISTENT_ID", NotFound),
            (429, "CONCURRENCY_LIMIT_EXCEEDED", Throttled),
        ] {
            let body = format!(r#"{{"title":"Bad","o:errorDetails":[{{"detail":"no","o:errorCode":"{code}","o:errorPath":"email"}}]}}"#);
            let judged = judged("netsuite", true, &answer(status, &[], &body));
            assert_eq!((judged.error.class, judged.error.field.as_deref()), (class, Some("email")), "{code}");
        }
    }

    #[test]
    fn a_failing_server_is_an_outage_and_a_refused_record_is_not() {
        assert_eq!(
            judged("salesforce", false, &answer(502, &[("content-type", "text/html")], "<h1>down</h1>")).error.reason,
            "MaintenancePage"
        );
        assert_eq!(judged("salesforce", false, &answer(502, &[], "")).showed, Showed::Outage);
        assert_eq!(judged("salesforce", false, &answer(404, &[], "[]")).showed, Showed::Alive);
        assert_eq!(judged("netsuite", true, &answer(503, &[], "")).error.class, ErrorClass::UnknownOutcome);
        assert_eq!(judged("netsuite", false, &answer(503, &[], "")).error.class, ErrorClass::Transient);
        assert_eq!(
            judged("netsuite", false, &answer(302, &[("location", "https://evil.example")], "")).error.class,
            ErrorClass::Configuration
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let told = judged("netsuite", false, &answer(429, &[("retry-after", "7")], "")).showed;
        assert_eq!(told, Showed::Throttling { wait: Some(Duration::from_secs(7)), exhausted: false });
        assert_eq!(retry_after("Thu, 01 Jan 1970 00:01:00 GMT", Timestamp(0)), Some(Duration::from_secs(60)));
        assert_eq!(retry_after("soon", Timestamp(0)), None);
        for endless in ["18446744073709551615", "Fri, 31 Dec 9999 23:59:59 GMT"] {
            for system in ["salesforce", "netsuite"] {
                let refused = judged(system, false, &answer(503, &[("retry-after", endless)], "")).error;
                assert_eq!((refused.class, refused.retry_after), (ErrorClass::Transient, Some(MAX_WAIT)), "{system}: {endless}");
            }
        }
    }
}
