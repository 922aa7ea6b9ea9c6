//! A span of time as people write it: the Gateway API's duration string (GEP-2257), `30s`, `5m`, `1h30m`, `250ms`.
//!
//! Units are h, m, s and ms, at most four parts of at most five digits each; there is no day, for a day is not always 24 hours.
//! The text form is normalised on the way out (`60s` becomes `1m`). It may not hold more than 99999 hours.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The pattern that the schema demands, word for word the one of the Gateway API.
pub const PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";
/// The longest text that the pattern can match.
const MAX_LENGTH: usize = 28;
const MAX_HOURS: u64 = 99_999;

/// A Gateway API duration; `.0` is the span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub std::time::Duration);

/// What is wrong with a text that should be a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration; write whole numbers with the units h, m, s or ms, such as 30s, 5m or 1h30m (there is no d)")]
pub struct DurationError(String);

impl Duration {
    /// So many whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }

    /// So many milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(std::time::Duration::from_millis(milliseconds))
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let wrong = || DurationError(text.chars().take(64).collect());
        let mut rest = text;
        let mut total: u64 = 0;
        let mut parts = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 || digits > 5 || parts == 4 {
                return Err(wrong());
            }
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            // "ms" first: "m" is a prefix of it.
            let (unit, milliseconds) = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)]
                .into_iter()
                .find(|(unit, _)| rest.starts_with(unit))
                .ok_or_else(wrong)?;
            rest = &rest[unit.len()..];
            total += number * milliseconds;
            parts += 1;
        }
        if parts == 0 || total > MAX_HOURS * 3_600_000 {
            return Err(wrong());
        }
        Ok(Self::from_millis(total))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX).min(MAX_HOURS * 3_600_000);
        if total == 0 {
            return f.write_str("0s");
        }
        let parts = [(total / 3_600_000, "h"), (total / 60_000 % 60, "m"), (total / 1_000 % 60, "s"), (total % 1_000, "ms")];
        for (number, unit) in parts {
            if number > 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "maxLength": MAX_LENGTH })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_units_of_the_gateway_api_are_read_and_nothing_else() {
        let read = |text: &str| text.parse::<Duration>().map(|d| d.0.as_millis());
        assert_eq!(read("30s"), Ok(30_000));
        assert_eq!(read("1h30m"), Ok(5_400_000));
        assert_eq!(read("250ms"), Ok(250));
        assert_eq!(read("0s"), Ok(0));
        for wrong in ["", "1d", "30", "s", "1.5s", "-1s", "100000s", "1h1m1s1ms1h", "99999h99999h", " 1s", "1s ", "1µs"] {
            assert!(read(wrong).is_err(), "{wrong} must not be a duration");
        }
    }

    proptest! {
        #[test]
        fn every_duration_survives_its_own_text_which_matches_the_schema(ms in 0..=MAX_HOURS * 3_600_000) {
            let duration = Duration::from_millis(ms);
            let text = duration.to_string();
            prop_assert!(regex::Regex::new(PATTERN).unwrap().is_match(&text), "{text}");
            prop_assert!(text.len() <= MAX_LENGTH);
            prop_assert_eq!(text.parse::<Duration>().unwrap(), duration);
        }
    }
}
