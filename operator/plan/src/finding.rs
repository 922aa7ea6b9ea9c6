//! Findings: what is wrong with a resource, in the words that `fairlead check` prints and a condition carries.
//!
//! One text serves both places, so that a person who saw the one recognises the other. A finding names the field as `kubectl` writes
//! paths, says what is wrong, and says what to do. It never holds a secret or a remote text.

use fairlead_api::{Reason, Violation};
use std::fmt;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The resource cannot run like this.
    Error,
    /// It runs, but perhaps not as meant.
    Warning,
    /// It could not be judged: what it refers to is not among what was given.
    Unknown,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
        })
    }
}

/// Which condition a finding speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aspect {
    /// `Accepted`: the resource by itself, and together with what it is compiled against.
    Spec,
    /// `ResolvedRefs`: what it refers to.
    References,
}

/// One thing that is wrong, or could not be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it weighs.
    pub severity: Severity,
    /// Which condition it moves.
    pub aspect: Aspect,
    /// The documented word.
    pub reason: Reason,
    /// Where, as `spec.sync.participants[0].fields[3].fromCanonical`.
    pub field: String,
    /// The row of the field table, counted from 0, where it is about one.
    pub row: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl Finding {
    /// An error of the resource itself.
    pub(crate) fn error(reason: Reason, field: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            aspect: Aspect::Spec,
            reason,
            field: field.into(),
            row: None,
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// An error of something it refers to.
    pub(crate) fn reference(reason: Reason, field: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { aspect: Aspect::References, ..Self::error(reason, field, message, hint) }
    }

    /// The same finding with less weight.
    pub(crate) fn with_severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    /// The same finding about a row.
    pub(crate) fn in_row(self, row: usize) -> Self {
        Self { row: Some(row), ..self }
    }
}

impl From<Violation> for Finding {
    fn from(violation: Violation) -> Self {
        Self::error(Reason::InvalidSpec, violation.field, violation.message, violation.hint)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}

/// The findings for people, one a line; warnings and what could not be judged say so first.
#[must_use]
pub fn render(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("{}{finding}\n", prefix(finding.severity))).collect()
}

fn prefix(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "",
        Severity::Warning => "warning: ",
        Severity::Unknown => "not checked: ",
    }
}

/// The longest text of findings that a condition carries, in characters. `fairlead check` shows all of it.
pub(crate) const MAX_CONDITION_TEXT: usize = 1024;

/// The same texts in one condition's message: joined by "; ", whole findings only, and how many more there are.
#[must_use]
pub fn condition_message<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> String {
    let texts: Vec<String> = findings.into_iter().map(ToString::to_string).collect();
    let mut message = String::new();
    for (index, text) in texts.iter().enumerate() {
        let separator = if index == 0 { "" } else { "; " };
        let more = format!("; and {} more (see `fairlead check`)", texts.len() - index);
        if message.chars().count() + separator.len() + text.chars().count() + more.len() > MAX_CONDITION_TEXT {
            if index == 0 {
                // Even the first does not fit: its beginning says more than nothing.
                let room = MAX_CONDITION_TEXT.saturating_sub(more.len() + 3);
                message = text.chars().take(room).chain("...".chars()).collect();
                if texts.len() > 1 {
                    message.push_str(&format!("; and {} more (see `fairlead check`)", texts.len() - 1));
                }
                return message;
            }
            message.push_str(&more);
            return message;
        }
        message.push_str(separator);
        message.push_str(text);
    }
    message
}

/// What was found of one aspect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Nothing is wrong.
    Ok,
    /// Something is wrong.
    Failed {
        /// The first finding's word.
        reason: Reason,
        /// All of them, as [`condition_message`] has it.
        message: String,
    },
    /// It could not be judged with what was given.
    Unknown {
        /// The first finding's word.
        reason: Reason,
        /// All of them.
        message: String,
    },
}

impl Check {
    /// The check of `aspect` that these findings amount to.
    #[must_use]
    pub fn of(aspect: Aspect, findings: &[Finding]) -> Self {
        let of = |severity: Severity| findings.iter().filter(move |f| f.aspect == aspect && f.severity == severity);
        if let Some(first) = of(Severity::Error).next() {
            return Self::Failed { reason: first.reason, message: condition_message(of(Severity::Error)) };
        }
        if let Some(first) = of(Severity::Unknown).next() {
            return Self::Unknown { reason: first.reason, message: condition_message(of(Severity::Unknown)) };
        }
        Self::Ok
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        *self == Self::Ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(field: &str, text: &str) -> Finding {
        Finding::error(Reason::MappingInvalid, field, text, "correct it")
    }

    #[test]
    fn a_condition_says_what_the_checker_says() {
        let found = finding("spec.sync.participants[0].fields[3].native", "no field `Nmae`");
        assert_eq!(render(std::slice::from_ref(&found)).trim_end(), condition_message([&found]));
    }

    #[test]
    fn a_condition_stays_short_and_counts_what_it_leaves_out() {
        let many: Vec<Finding> = (0..300).map(|n| finding(&format!("spec.fields[{n}]"), "is wrong in one of many ways")).collect();
        let message = condition_message(&many);
        assert!(message.chars().count() <= MAX_CONDITION_TEXT, "{}", message.len());
        assert!(message.contains("more (see `fairlead check`)"), "{message}");
        let long = finding("spec", &"x".repeat(5000));
        let message = condition_message([&long, &long]);
        assert!(message.chars().count() <= MAX_CONDITION_TEXT);
        assert!(message.ends_with("...; and 1 more (see `fairlead check`)"), "{message}");
    }
}
