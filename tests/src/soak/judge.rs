//! Judges what a target was sent. Pure, and proven with wrong courses of writes to find each of these (`tests/tests/soak.rs`).
//!
//! | fault | means |
//! |---|---|
//! | lost | an order that the target shall hold is not there, or not at its newest version |
//! | doubled | an order has a second record |
//! | inverted | a record was given an older version after a newer one |
//! | invented | a record of an order, or a version of one, that the target shall not hold |
//!
//! A version that a record holds already and was given again is no fault, since it changes nothing, and is counted as repeated: after a crash nobody may know
//! whether it arrived. The caller says how many are allowed.

use std::collections::HashMap;
use std::fmt;

/// So many examples of a fault are kept.
const EXAMPLES: usize = 8;

/// One write that took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// The target's record.
    pub record: u32,
    /// The order's number.
    pub order: u32,
    /// The order's version.
    pub version: u16,
    /// When, in milliseconds since the target began: for people, who compare it with the deaths.
    pub at: u32,
}

/// How often something happened, with examples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// How often.
    pub count: u64,
    /// The first of them, for people.
    pub examples: Vec<String>,
}

impl Fault {
    fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(example());
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.count)?;
        if !self.examples.is_empty() {
            write!(f, " ({}{})", self.examples.join("; "), if self.count > EXAMPLES as u64 { "; ..." } else { "" })?;
        }
        Ok(())
    }
}

/// What came of a course of writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Writes in all.
    pub writes: u64,
    /// Records in the end.
    pub records: u64,
    /// See the table above.
    pub lost: Fault,
    /// See the table above.
    pub doubled: Fault,
    /// See the table above.
    pub inverted: Fault,
    /// See the table above.
    pub invented: Fault,
    /// Writes that changed nothing.
    pub repeated: Fault,
}

impl Verdict {
    /// The faults, each with its name; none when all is well.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let named = [("lost", &self.lost), ("doubled", &self.doubled), ("inverted", &self.inverted), ("invented", &self.invented)];
        named.into_iter().filter(|(_, fault)| fault.count > 0).map(|(name, fault)| format!("{name}: {fault}")).collect()
    }
}

/// Judges `writes`, in the order in which they took effect, by what the target shall hold in the end: by number, the version of each order that belongs
/// there.
#[must_use]
pub fn judge(wanted: &[Option<u16>], writes: &[Write]) -> Verdict {
    let mut verdict = Verdict { writes: writes.len() as u64, ..Verdict::default() };
    let mut records: HashMap<u32, Write> = HashMap::with_capacity(wanted.len());
    // By number: the record that the order got first.
    let mut of_order: Vec<Option<u32>> = vec![None; wanted.len()];
    for write in writes {
        let Write { record, order, version, at } = *write;
        match wanted.get(order as usize).copied().flatten() {
            Some(newest) if version <= newest => {}
            _ => verdict.invented.add(|| format!("order {order} version {version}")),
        }
        let before = records.insert(record, *write);
        match before {
            Some(before) if before.order != order => {
                verdict.invented.add(|| format!("record {record} of order {} became {order}", before.order))
            }
            Some(before) if version < before.version => {
                verdict.inverted.add(|| format!("order {order}: {version} at {at} ms after {} at {} ms", before.version, before.at))
            }
            Some(before) if version == before.version => {
                verdict.repeated.add(|| format!("order {order} version {version} at {} ms and {at} ms", before.at))
            }
            Some(_) => {}
            None => match of_order.get_mut(order as usize) {
                Some(Some(first)) => verdict.doubled.add(|| format!("order {order}: records {first} and {record}")),
                Some(first) => *first = Some(record),
                None => {}
            },
        }
    }
    verdict.records = records.len() as u64;
    for (order, version) in wanted.iter().enumerate().filter_map(|(order, version)| Some((order, (*version)?))) {
        match of_order[order].and_then(|record| records.get(&record)) {
            Some(held) if held.version == version => {}
            Some(held) => verdict.lost.add(|| format!("order {order}: version {} of {version}", held.version)),
            None => verdict.lost.add(|| format!("order {order} is not there")),
        }
    }
    verdict
}
