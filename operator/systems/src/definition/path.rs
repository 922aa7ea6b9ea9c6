//! Paths into an answer: `.data`, `.errors[0].detail`, `.` for the whole. And durations as people write them: `30s`, `5m`, `1h30m`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A path into a JSON answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct AnswerPath {
    text: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
}

impl AnswerPath {
    /// The value at this path, if every step of it is there.
    pub(crate) fn get<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.steps.iter().try_fold(value, |value, step| match step {
            Step::Name(name) => value.as_object()?.get(name),
            Step::Index(index) => value.as_array()?.get(*index),
        })
    }

    /// The same, to be changed or taken.
    pub(crate) fn get_mut<'a>(&self, value: &'a mut Value) -> Option<&'a mut Value> {
        self.steps.iter().try_fold(value, |value, step| match step {
            Step::Name(name) => value.as_object_mut()?.get_mut(name),
            Step::Index(index) => value.as_array_mut()?.get_mut(*index),
        })
    }

    /// The scalar at this path, as text.
    pub(crate) fn text(&self, value: &Value) -> Option<String> {
        match self.get(value)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

impl FromStr for AnswerPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a path: write `.` or steps such as `.errors[0].detail`");
        let mut steps = Vec::new();
        let body = text.strip_prefix('.').unwrap_or(text);
        for part in body.split('.').filter(|_| !body.is_empty()) {
            let (name, mut rest) = part.split_at(part.find('[').unwrap_or(part.len()));
            if name.is_empty() && rest.is_empty() {
                return Err(wrong());
            }
            if !name.is_empty() {
                steps.push(Step::Name(name.to_owned()));
            }
            while let Some(inner) = rest.strip_prefix('[') {
                let (index, after) = inner.split_once(']').ok_or_else(wrong)?;
                steps.push(Step::Index(index.parse().map_err(|_| wrong())?));
                rest = after;
            }
            if !rest.is_empty() {
                return Err(wrong());
            }
        }
        Ok(Self { text: text.to_owned(), steps })
    }
}

impl TryFrom<String> for AnswerPath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<AnswerPath> for String {
    fn from(path: AnswerPath) -> Self {
        path.text
    }
}

/// A duration as the Gateway API writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a duration: write for example `500ms`, `30s`, `5m` or `1h30m`");
        let mut rest = text;
        let mut total = Duration::ZERO;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let (number, tail) = rest.split_at(digits);
            let number: u64 = number.parse().map_err(|_| wrong())?;
            // Milliseconds before minutes, for both begin with an m.
            let units: [(&str, u64); 4] = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
            let (unit, millis) = units.into_iter().find(|(unit, _)| tail.starts_with(unit)).ok_or_else(wrong)?;
            total = total.checked_add(Duration::from_millis(number.saturating_mul(millis))).ok_or_else(wrong)?;
            rest = tail.strip_prefix(unit).ok_or_else(wrong)?;
        }
        if text.is_empty() { Err(wrong()) } else { Ok(Self(total)) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0.as_millis())
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_reach_into_lists_and_odd_names() {
        let body = json!({"o:errorDetails": [{"o:errorCode": "X"}], "n": 5});
        assert_eq!(".o:errorDetails[0].o:errorCode".parse::<AnswerPath>().unwrap().text(&body).as_deref(), Some("X"));
        assert_eq!("n".parse::<AnswerPath>().unwrap().text(&body).as_deref(), Some("5"));
        assert_eq!(".".parse::<AnswerPath>().unwrap().get(&body), Some(&body));
        assert_eq!("[0].a".parse::<AnswerPath>().unwrap().text(&json!([{"a": "b"}])).as_deref(), Some("b"));
        for bad in [".a..b", "a[", "a[x]", "a[0]b", ".a."] {
            assert!(bad.parse::<AnswerPath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_read_as_people_write_them() {
        assert_eq!("1h30m".parse::<Span>().unwrap().0, Duration::from_secs(5400));
        assert_eq!("250ms".parse::<Span>().unwrap().0, Duration::from_millis(250));
        for bad in ["", "5", "5d", "m", "1.5s"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
