//! A schedule: a cron expression in a time zone, and when it is next due.
//!
//! Five fields (minute, hour, day of month, month, day of week), as Kubernetes' CronJob has them, in an IANA time zone. Where a clock is put
//! forward over a time of the schedule, it is due right after the gap; where a clock is put back, a time of day is due once.

use crate::time::Timestamp;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use serde::{Deserialize, Serialize};

/// A schedule as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleText {
    /// The cron expression.
    pub cron: String,
    /// The IANA time zone.
    pub time_zone: String,
}

/// A schedule that can be asked.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: Tz,
}

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The cron expression.
    #[error("{0:?} is no cron expression of five fields ({1})")]
    Cron(String, String),
    /// It names a day that no year has.
    #[error("{0:?} is never due")]
    Never(String),
    /// The time zone.
    #[error("{0:?} is no time zone of the IANA database")]
    TimeZone(String),
}

impl Schedule {
    /// Understands a schedule.
    ///
    /// # Errors
    /// Which part is wrong, and how.
    pub fn parse(text: &ScheduleText) -> Result<Self, ScheduleError> {
        let zone: Tz = text.time_zone.parse().map_err(|_| ScheduleError::TimeZone(text.time_zone.clone()))?;
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(&text.cron).map_err(|error| ScheduleError::Cron(text.cron.clone(), error.to_string()))?;
        let schedule = Self { cron, zone };
        // Whatever is due at all, is due within the eight years between two leap days.
        schedule.next_after(Timestamp(0)).map(|_| schedule).ok_or_else(|| ScheduleError::Never(text.cron.clone()))
    }

    /// The first moment after `after` at which it is due.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after: DateTime<Utc> = DateTime::from_timestamp_millis(after.0)?;
        let next = self.cron.find_next_occurrence(&after.with_timezone(&self.zone), false).ok()?;
        Some(Timestamp(next.timestamp_millis()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(cron: &str, zone: &str) -> Result<Schedule, ScheduleError> {
        Schedule::parse(&ScheduleText { cron: cron.into(), time_zone: zone.into() })
    }

    fn next(cron: &str, zone: &str, after: &str) -> String {
        let after = Timestamp::parse(after).unwrap();
        schedule(cron, zone).unwrap().next_after(after).unwrap().to_canonical()
    }

    #[test]
    fn two_in_the_night_is_of_the_zone() {
        assert_eq!(next("0 2 * * *", "Europe/Berlin", "2026-01-10T12:00:00Z"), "2026-01-11T01:00:00Z");
        assert_eq!(next("0 2 * * *", "America/New_York", "2026-01-10T12:00:00Z"), "2026-01-11T07:00:00Z");
        assert_eq!(next("0 2 * * *", "UTC", "2026-01-10T02:00:00Z"), "2026-01-11T02:00:00Z", "what is due now was due");
    }

    #[test]
    fn a_day_on_which_the_clock_moves_has_the_schedule_once() {
        // 2026-03-29: 02:00 becomes 03:00 in Berlin; 2026-10-25: 03:00 becomes 02:00.
        assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z"), "2026-03-29T01:00:00Z", "right after the gap");
        let first = next("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z");
        assert_eq!(first, "2026-10-25T00:30:00Z");
        assert_eq!(next("30 2 * * *", "Europe/Berlin", &first), "2026-10-26T01:30:00Z");
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(matches!(schedule("0 2 * *", "UTC"), Err(ScheduleError::Cron(..))));
        assert!(matches!(schedule("0 0 2 * * *", "UTC"), Err(ScheduleError::Cron(..))), "seconds");
        assert_eq!(schedule("0 2 * * *", "Europe/Berlyn").unwrap_err(), ScheduleError::TimeZone("Europe/Berlyn".into()));
        assert_eq!(schedule("0 0 30 2 *", "UTC").unwrap_err(), ScheduleError::Never("0 0 30 2 *".into()));
        assert!(schedule("0 0 29 2 *", "UTC").is_ok());
    }
}
