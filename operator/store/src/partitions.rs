//! A lane in parts, so that several processes drain it.

use crate::Fence;
use std::collections::BTreeMap;

/// The leases under which a process drains a target's lane: of the whole lane, or of some of its partitions.
///
/// A record's place lies in the partition *n mod count*, where *n* is the number of the record's row. Rows are numbered in the order in which
/// records arrive and keep their number, so the partitions are of one size whatever the ids look like, a record's place is always in the same
/// one, and no column is needed that tells. All processes that drain lanes of one store divide them by the same count ([`crate::Store::partitions`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneFence {
    count: u32,
    held: BTreeMap<u32, Fence>,
}

/// The whole lane under one lease.
impl From<Fence> for LaneFence {
    fn from(fence: Fence) -> Self {
        Self { count: 1, held: BTreeMap::from([(0, fence)]) }
    }
}

impl LaneFence {
    /// The most partitions that a lane can have.
    pub const MOST: u32 = 32;

    /// The leases that are held of a lane in `count` partitions, by the partition's number.
    #[must_use]
    pub fn new(count: u32, held: BTreeMap<u32, Fence>) -> Self {
        let count = count.clamp(1, Self::MOST);
        Self { count, held: held.into_iter().filter(|(partition, _)| *partition < count).collect() }
    }

    /// The leases, each of which every commit is checked against.
    pub fn fences(&self) -> impl Iterator<Item = &Fence> {
        self.held.values()
    }

    /// How many partitions the lane has.
    pub(crate) fn count(&self) -> i64 {
        i64::from(self.count)
    }

    /// The epoch under which the record of this row may be claimed; none in a partition that is not held.
    pub(crate) fn epoch(&self, row: i64) -> Option<i64> {
        let partition = u32::try_from(row.rem_euclid(self.count())).ok()?;
        self.held.get(&partition).map(|fence| fence.epoch.cast_signed())
    }

    /// The epoch of each partition in order; -1, which no claim has, where it is not held.
    pub(crate) fn epochs(&self) -> Vec<i64> {
        (0..self.count).map(|partition| self.held.get(&partition).map_or(-1, |fence| fence.epoch.cast_signed())).collect()
    }

    /// One bit per partition that is held.
    pub(crate) fn mask(&self) -> i64 {
        self.held.keys().fold(0, |mask, partition| mask | (1_i64 << partition))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_model::Timestamp;

    fn fence(epoch: u64) -> Fence {
        Fence { key: format!("lane/r/erp/{epoch}"), holder: "h".into(), epoch, until: Timestamp(0) }
    }

    #[test]
    fn a_row_lies_in_one_partition_and_has_the_epoch_of_its_lease() {
        let lane = LaneFence::new(4, BTreeMap::from([(1, fence(7)), (3, fence(9)), (4, fence(11))]));
        assert_eq!((lane.count(), lane.mask(), lane.epochs()), (4, 0b1010, vec![-1, 7, -1, 9]));
        let epochs: Vec<_> = (1..=8).map(|row| lane.epoch(row)).collect();
        assert_eq!(epochs, [Some(7), None, Some(9), None, Some(7), None, Some(9), None]);
        assert_eq!(lane.fences().count(), 2, "what lies beyond the count is no partition");
        let whole = LaneFence::from(fence(3));
        assert_eq!((whole.epoch(5), whole.epoch(6), whole.mask(), whole.epochs()), (Some(3), Some(3), 1, vec![3]));
        assert_eq!(LaneFence::new(0, BTreeMap::from([(0, fence(3))])), whole);
    }
}
