//! How urgent the engine's requests are. What people or systems changed goes before what is loaded, compared or put right in bulk; only what a caller
//! of the API waits for goes before that.

use fairlead_store::Origin;
use fairlead_systems::Priority;

/// Of reading pages; `whole` where everything is read, for the first time or anew.
#[must_use]
pub fn of_pages(whole: bool) -> Priority {
    if whole { Priority::Backfill } else { Priority::Live }
}

/// Of reading `count` records by key, of which `most` are read at once. Nobody tells why they are asked for, but so many are only after a mapping
/// was changed, or a reconciliation.
#[must_use]
pub fn of_keys(count: usize, most: usize) -> Priority {
    if count >= most { Priority::Backfill } else { Priority::Live }
}

/// Of writing a batch of lane entries: one that cannot wait takes the others along.
#[must_use]
pub fn of_writes<'a>(origins: impl IntoIterator<Item = &'a Origin>) -> Priority {
    let has_time = |origin: &Origin| match origin {
        Origin::Remap | Origin::Resync | Origin::Repair => true,
        Origin::Source(_) | Origin::Restore | Origin::Replay | Origin::Api => false,
    };
    if origins.into_iter().all(has_time) { Priority::Backfill } else { Priority::Live }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_goes_before_what_is_compared() {
        use Origin::{Api, Remap, Repair, Replay, Restore, Resync, Source};
        for (origins, priority) in [
            (vec![Remap], Priority::Backfill),
            (vec![Repair, Resync, Remap], Priority::Backfill),
            (vec![Remap, Source("crm".into()), Remap], Priority::Live),
            (vec![Restore], Priority::Live),
            (vec![Replay, Repair], Priority::Live),
            (vec![Api], Priority::Live),
        ] {
            assert_eq!(of_writes(&origins), priority, "{origins:?}");
        }
        assert_eq!((of_pages(true), of_pages(false)), (Priority::Backfill, Priority::Live));
        assert_eq!((of_keys(200, 200), of_keys(199, 200)), (Priority::Backfill, Priority::Live));
    }
}
