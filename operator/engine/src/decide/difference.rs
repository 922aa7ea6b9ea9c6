//! Difference: is what a read shows of one field a change made in that system, or only our own write coming back?
//!
//! Between two systems that each trim, round or re-case what they are given, this is the rule that ends the fight: a value shown in place
//! of what we sent, put back once and shown again without `sent` ever having been read in between, is how that system *renders* our value.

use fairlead_model::hash::ValueHash;
use fairlead_model::state::FieldState;

/// What one read shows of one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// Nothing new: equal to the last read, to our last write, or to a known rendering of it.
    Same,
    /// The first time this field is seen here, and it differs from the canonical value.
    First,
    /// Changed in this system since we last looked.
    Changed,
}

/// Takes note of a read that shows `shown` while the canonical value is `canonical`, and says what it means.
pub fn observe(field: &mut FieldState, shown: ValueHash, canonical: ValueHash) -> Sight {
    let first = field.seen.is_none();
    let edited = std::mem::take(&mut field.edited);
    if field.seen == Some(shown) && !edited {
        if field.sent == Some(shown) {
            field.disputed = None;
        }
        return Sight::Same;
    }
    // Whether anything else was seen since our write: then what we sent, shown again, is somebody's undo and not our echo.
    let untouched = !edited && (field.seen.is_none() || field.seen == field.rendered);
    field.seen = Some(shown);
    if shown == canonical {
        if field.sent == Some(shown) {
            field.rendered = Some(shown);
        }
        field.disputed = None;
        return Sight::Same;
    }
    if field.sent == Some(shown) && untouched {
        // Our own write, read back late; the canonical value has moved on since and its lane entry is on the way.
        field.rendered = Some(shown);
        return Sight::Same;
    }
    if field.sent == Some(canonical) && field.disputed == Some(shown) {
        field.rendered = Some(shown);
        return Sight::Same;
    }
    if first { Sight::First } else { Sight::Changed }
}

/// Takes note of a write of `sent`. Without an answer the system is taken to hold just that; a read that shows otherwise will tell.
pub fn wrote(field: &mut FieldState, sent: ValueHash, answered: Option<ValueHash>) {
    let held = answered.unwrap_or(sent);
    field.sent = Some(sent);
    field.seen = Some(held);
    field.rendered = Some(held);
    field.edited = false;
    if answered.is_some() {
        field.disputed = None;
    }
}

/// Takes note of a look that shows `shown`, of which nothing is absorbed before the next read.
pub fn glimpsed(field: &mut FieldState, shown: ValueHash) {
    field.edited |= field.seen.is_some_and(|seen| seen != shown);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: ValueHash = ValueHash(1);
    const SHOUTED: ValueHash = ValueHash(2);
    const OTHER: ValueHash = ValueHash(3);

    #[test]
    fn an_echo_is_no_change() {
        let mut field = FieldState::default();
        wrote(&mut field, ACME, None);
        assert_eq!(observe(&mut field, ACME, ACME), Sight::Same);
        assert!(field.in_step(ACME));
    }

    #[test]
    fn an_echo_of_an_older_write_is_no_change_either() {
        let mut field = FieldState::default();
        wrote(&mut field, ACME, Some(OTHER));
        assert_eq!(observe(&mut field, ACME, SHOUTED), Sight::Same);
    }

    #[test]
    fn an_edit_back_to_what_we_once_wrote_is_an_edit() {
        let mut field = FieldState::default();
        wrote(&mut field, ACME, None);
        assert_eq!(observe(&mut field, OTHER, ACME), Sight::Changed, "a person edits");
        assert_eq!(observe(&mut field, ACME, OTHER), Sight::Changed, "and thinks better of it");
    }

    #[test]
    fn what_was_seen_before_is_an_edit_once_a_look_has_shown_another_value() {
        let mut field = FieldState::default();
        wrote(&mut field, ACME, None);
        glimpsed(&mut field, ACME);
        assert_eq!(observe(&mut field, ACME, OTHER), Sight::Same);
        glimpsed(&mut field, SHOUTED);
        assert!(field.in_step(ACME), "nothing of it is absorbed");
        assert_eq!(observe(&mut field, ACME, OTHER), Sight::Changed);
        assert_eq!(observe(&mut field, ACME, OTHER), Sight::Same, "once");
        glimpsed(&mut field, SHOUTED);
        assert_eq!(observe(&mut field, SHOUTED, ACME), Sight::Changed);
    }

    #[test]
    fn two_systems_do_not_fight_over_capitals() {
        let mut field = FieldState::default();
        wrote(&mut field, ACME, None);
        assert_eq!(observe(&mut field, SHOUTED, ACME), Sight::Changed, "the first time it may be a person's edit");
        field.disputed = Some(SHOUTED);
        wrote(&mut field, ACME, None);
        assert_eq!(observe(&mut field, SHOUTED, ACME), Sight::Same, "put back once, shown again: that is how it renders");
        assert!(field.in_step(ACME));
        assert_eq!(observe(&mut field, OTHER, ACME), Sight::Changed, "a real edit afterwards is still seen");
    }

    #[test]
    fn the_same_edit_made_twice_is_an_edit_twice_when_our_value_was_read_in_between() {
        let mut field = FieldState::default();
        wrote(&mut field, ACME, None);
        assert_eq!(observe(&mut field, OTHER, ACME), Sight::Changed);
        field.disputed = Some(OTHER);
        wrote(&mut field, ACME, None);
        assert_eq!(observe(&mut field, ACME, ACME), Sight::Same);
        assert_eq!(observe(&mut field, OTHER, ACME), Sight::Changed);
    }

    #[test]
    fn an_answer_that_renders_is_in_step_at_once() {
        let mut field = FieldState::default();
        wrote(&mut field, ACME, Some(SHOUTED));
        assert!(field.in_step(ACME));
        assert_eq!(observe(&mut field, SHOUTED, ACME), Sight::Same);
    }

    #[test]
    fn a_first_sight_is_told_apart_from_a_change() {
        let mut field = FieldState::default();
        assert_eq!(observe(&mut field, OTHER, ACME), Sight::First);
        assert_eq!(observe(&mut field, SHOUTED, ACME), Sight::Changed);
    }
}
