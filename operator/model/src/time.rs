//! Time as data: milliseconds since the Unix epoch, and the trait through which a clock is handed in.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Milliseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This moment plus `duration`, saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The moment `duration` earlier.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this moment lies; zero when it lies before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 text in UTC with milliseconds, as Kubernetes' MicroTime readers accept it.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        chrono::DateTime::from_timestamp_millis(self.0)
            .map(|t| t.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
            .unwrap_or_else(|| self.0.to_string())
    }

    /// The one spelling that a moment has in canonical documents: RFC 3339 in UTC, with milliseconds only where there are some. Equal moments
    /// have equal texts, whoever wrote them: a mapping, a caller of the API, a filter.
    #[must_use]
    pub fn to_canonical(self) -> String {
        let text = self.to_rfc3339();
        text.strip_suffix(".000Z").map_or_else(|| text.clone(), |seconds| format!("{seconds}Z"))
    }

    /// Parses RFC 3339 text, and the vendors' variant with an offset without colon (`+0000`).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        chrono::DateTime::parse_from_rfc3339(text)
            .or_else(|_| chrono::DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"))
            .ok()
            .map(|t| Self(t.timestamp_millis()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

/// Where the time comes from. Tests hand in their own.
pub trait Clock: Send + Sync + 'static {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(chrono::Utc::now().timestamp_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_moments_have_one_canonical_text() {
        for (text, canonical) in [
            ("2026-05-06T07:08:09Z", "2026-05-06T07:08:09Z"),
            ("2026-05-06T09:08:09.000+02:00", "2026-05-06T07:08:09Z"),
            ("2026-05-06T07:08:09.0000Z", "2026-05-06T07:08:09Z"),
            ("2026-05-06T07:08:09.500+0000", "2026-05-06T07:08:09.500Z"),
        ] {
            assert_eq!(Timestamp::parse(text).map(Timestamp::to_canonical).as_deref(), Some(canonical), "{text}");
        }
    }
}
