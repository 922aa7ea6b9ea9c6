//! How urgent the engine's requests are. What people or systems changed goes before what is loaded, compared or put right in bulk; only what a caller
//! of the API waits for goes before that.

use fairlead_store::Haste;
use fairlead_systems::Priority;

/// Of reading pages; `whole` where everything is read, for the first time or anew.
#[must_use]
pub fn of_pages(whole: bool) -> Priority {
    if whole { Priority::Backfill } else { Priority::Live }
}

/// Of reading records by key that are wanted so soon; while a participant is read for the first time, they are a part of that.
#[must_use]
pub fn of_keys(haste: Haste, loaded: bool) -> Priority {
    if loaded { of_writes(haste) } else { Priority::Backfill }
}

/// Of writing lane entries that are wanted so soon.
#[must_use]
pub fn of_writes(haste: Haste) -> Priority {
    match haste {
        Haste::Soon => Priority::Live,
        Haste::Bulk => Priority::Backfill,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_store::Origin;

    #[test]
    fn what_was_changed_goes_before_what_is_compared() {
        use Origin::{Api, Remap, Repair, Replay, Restore, Resync, Source};
        for (origin, priority) in [
            (Remap, Priority::Backfill),
            (Repair, Priority::Backfill),
            (Resync, Priority::Backfill),
            (Source("crm".into()), Priority::Live),
            (Restore, Priority::Live),
            (Replay, Priority::Live),
            (Api, Priority::Live),
        ] {
            assert_eq!(of_writes(origin.haste()), priority, "{origin:?}");
        }
        assert_eq!((of_pages(true), of_pages(false)), (Priority::Backfill, Priority::Live));
        let of_keys = |loaded| [Haste::Soon, Haste::Bulk].map(|haste| of_keys(haste, loaded));
        assert_eq!(of_keys(true), [Priority::Live, Priority::Backfill]);
        assert_eq!(of_keys(false), [Priority::Backfill; 2]);
    }
}
