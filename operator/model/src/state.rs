//! What is known of a record in one system: per canonical field what a read showed, what we last wrote, and what the system made of it.
//!
//! These are hashes, never values. A field is *in step* when the canonical value is what a read showed, or is what we sent while the system
//! still shows what it made of that (vendors trim, round and upper-case what they are given, and that is no change).

use crate::RecordId;
use crate::hash::ValueHash;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// What is known of one canonical field in one system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct FieldState {
    /// What the last read showed.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<ValueHash>,
    /// What we last wrote.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<ValueHash>,
    /// What the system made of what we last wrote.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub rendered: Option<ValueHash>,
    /// The last value that a read showed in place of `sent` and that was put back; the same pair once more is a rendering, not an edit.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub disputed: Option<ValueHash>,
    /// A look at the record has shown another value than `seen`, which is yet to be read: whatever a read shows next, somebody has entered.
    #[serde(rename = "e", default, skip_serializing_if = "std::ops::Not::not")]
    pub edited: bool,
}

impl FieldState {
    /// Whether a system in this state holds `canonical` as far as we can know.
    #[must_use]
    pub fn in_step(&self, canonical: ValueHash) -> bool {
        self.seen == Some(canonical) || (self.sent == Some(canonical) && self.seen.is_some() && self.seen == self.rendered)
    }
}

/// What a system holds at one native path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct RowState {
    /// The digest of the field-table row under which this was read or written: a changed row is compared with `native`, an unchanged one is
    /// in step when its canonical field is.
    #[serde(rename = "d")]
    pub digest: u64,
    /// The hash of the native value.
    #[serde(rename = "h")]
    pub native: ValueHash,
}

/// Everything known of one record in one system. The store keeps it as one text and does not ask what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ParticipantState {
    /// By canonical path (list fields by their root).
    #[serde(rename = "f", default)]
    pub fields: BTreeMap<SmolStr, FieldState>,
    /// Per written native path (by [`ValueHash::of_text`] of the path): what the system holds there, and under which row.
    #[serde(rename = "n", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rows: BTreeMap<u64, RowState>,
    /// The vendor's version of the record (ETag, modification stamp), as text that can be compared for equality.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub vendor_version: Option<String>,
    /// When the vendor says the record was last modified, in milliseconds.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<i64>,
    /// When a write of ours was last acknowledged, in milliseconds: for a while after it, a vendor may still show what was before.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub written: Option<i64>,
    /// The store's sequence when this was last settled by a write of ours; a read that began before it is stale.
    #[serde(rename = "q", default)]
    pub settled: u64,
    /// The record is deleted or archived in this system.
    #[serde(rename = "x", default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// Where the target does something about records that leave it (`onLeave: Archive`): whether this one was inside.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Standing>,
    /// The record was split off another one, and its correlation field may still hold the id of this one: it is to get its own.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub keyed_as: Option<RecordId>,
}

impl ParticipantState {
    /// Whether nothing was read or written yet of what the external id stands for.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        *self == Self { settled: self.settled, ..Self::default() }
    }
}

/// A record's standing in a target whose `when` may turn false.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// `when` was true for it.
    #[serde(rename = "i")]
    Inside,
    /// It was archived when `when` turned false.
    #[serde(rename = "l")]
    Left,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rendering_is_in_step_and_a_later_edit_is_not() {
        let (sent, shown, edited) = (ValueHash(7), ValueHash(8), ValueHash(9));
        let mut field = FieldState { seen: Some(shown), sent: Some(sent), rendered: Some(shown), ..FieldState::default() };
        assert!(field.in_step(sent));
        assert!(field.in_step(shown));
        field.seen = Some(edited);
        assert!(!field.in_step(sent));
        assert!(!FieldState::default().in_step(ValueHash::ABSENT));
    }
}
