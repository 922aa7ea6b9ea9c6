//! The guard: more deletes or changes than a person said could be right hold the Integration until a person says otherwise.
//!
//! Percentages are of live records within 24 hours, and of whole records: below [`FLOOR`] records a percentage means nothing (one delete
//! among three records is a third), so so few never trip it. The first load is exempt for changes: everything changes then.

use fairlead_model::Timestamp;
use fairlead_model::hash::ValueHash;
use fairlead_model::report::GuardStop;
use fairlead_model::unit::Guard;
use fairlead_store::GuardCounts;

/// So few records never trip the guard.
pub const FLOOR: u64 = 10;
/// What is absorbed is counted by the hour, in milliseconds.
const HOUR: i64 = 3_600_000;

/// What the guard knows when a batch is about to be absorbed.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Absorbed since the window began, and in this batch.
    pub counts: GuardCounts,
    /// Live records before this batch.
    pub live: u64,
    /// The window's beginning in milliseconds; part of the token, so that a confirmation counts for one overrun only.
    pub began: i64,
    /// A first load is under way.
    pub first_load: bool,
}

/// The beginning of the next hour.
#[must_use]
pub const fn hour_after(at: Timestamp) -> Timestamp {
    Timestamp((at.0.div_euclid(HOUR) + 1) * HOUR)
}

/// What counts after a confirmation: everything that was absorbed `from` its hour on, but for what that hour held when it was given (`excused`). A
/// record counts in the hour of its last change: what was excused and changes once more `after` that hour, counts again. Others that change in the
/// hour of the confirmation take its place there, so that as many as were excused may go uncounted at most.
#[must_use]
pub const fn beyond(from: GuardCounts, after: GuardCounts, excused: GuardCounts) -> GuardCounts {
    const fn count(from: u64, after: u64, excused: u64) -> u64 {
        after + from.saturating_sub(after).saturating_sub(excused)
    }
    GuardCounts {
        changes: count(from.changes, after.changes, excused.changes),
        deletes: count(from.deletes, after.deletes, excused.deletes),
    }
}

/// `None` if the batch may be absorbed.
#[must_use]
pub fn judge(realm: &str, guard: &Guard, window: Window) -> Option<GuardStop> {
    let overrun = |what: &str, count: u64, percent: Option<u32>| {
        let percent = percent?;
        let allowed = (window.live.saturating_mul(u64::from(percent)) / 100).max(FLOOR);
        (count > allowed).then(|| GuardStop {
            message: format!(
                "{count} {what} within 24h are more than {percent} % of {} live records; if this is meant, set spec.sync.guard.confirm to the token, or raise the limit",
                window.live
            ),
            token: format!("{:016x}", ValueHash::of_text(&format!("{realm}/{what}/{}", window.began)).0),
            deletes: window.counts.deletes,
            changes: window.counts.changes,
            live: window.live,
        })
    };
    overrun("deletes", window.counts.deletes, guard.max_delete_percent)
        .or_else(|| if window.first_load { None } else { overrun("changes", window.counts.changes, guard.max_change_percent) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(changes: u64, deletes: u64, first_load: bool) -> Window {
        Window { counts: GuardCounts { changes, deletes }, live: 1000, began: 7, first_load }
    }

    fn guard() -> Guard {
        Guard { max_delete_percent: Some(5), max_change_percent: Some(30), confirm: None }
    }

    #[test]
    fn five_percent_of_deletes_pass_and_one_more_does_not() {
        assert_eq!(judge("r", &guard(), window(0, 50, false)), None);
        let stop = judge("r", &guard(), window(0, 51, false)).unwrap();
        assert!(stop.message.contains("51 deletes") && stop.message.contains("guard.confirm"), "{}", stop.message);
    }

    #[test]
    fn the_first_load_may_change_everything_but_not_delete_everything() {
        assert_eq!(judge("r", &guard(), window(1000, 0, true)), None);
        assert!(judge("r", &guard(), window(1000, 0, false)).is_some());
        assert!(judge("r", &guard(), window(0, 1000, true)).is_some());
    }

    #[test]
    fn what_was_confirmed_is_excused_once() {
        let counts = |changes: u64, deletes: u64| GuardCounts { changes, deletes };
        assert_eq!(beyond(counts(310, 0), counts(0, 0), counts(310, 0)), counts(0, 0));
        assert_eq!(beyond(counts(320, 5), counts(3, 5), counts(310, 0)), counts(10, 5), "in the same hour, and in a batch after it");
        assert_eq!(beyond(counts(310, 0), counts(310, 0), counts(310, 0)), counts(310, 0), "the same records once more, hours later");
        assert_eq!(hour_after(Timestamp(HOUR * 5)), Timestamp(HOUR * 6));
        assert_eq!(hour_after(Timestamp(HOUR * 6 - 1)), Timestamp(HOUR * 6));
    }

    #[test]
    fn a_handful_of_records_never_trips_it() {
        let few = Window { counts: GuardCounts { changes: 3, deletes: 1 }, live: 3, began: 0, first_load: false };
        assert_eq!(judge("r", &guard(), few), None);
    }

    #[test]
    fn the_token_is_good_for_one_window_only() {
        let one = judge("r", &guard(), window(0, 51, false)).unwrap();
        let other = judge("r", &guard(), Window { began: 8, ..window(0, 51, false) }).unwrap();
        assert_ne!(one.token, other.token);
    }
}
