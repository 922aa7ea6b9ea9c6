//! Chance as something that comes in from outside: the jitter of a wait, the random part of an id. A run whose clock and chance are given repeats
//! itself. Nothing that must stay secret is drawn from here.

use std::ops::RangeInclusive;

/// Where chance comes from. Tests hand in their own.
pub trait Random: Send + Sync + 'static {
    /// The next 64 bits.
    fn bits(&self) -> u64;

    /// A number of this range, which is not empty. Even enough for waits.
    fn within(&self, range: RangeInclusive<u64>) -> u64 {
        let (first, last) = range.into_inner();
        match last.saturating_sub(first).checked_add(1) {
            Some(width) => first + self.bits() % width,
            None => self.bits(),
        }
    }
}

/// The machine's own chance.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn bits(&self) -> u64 {
        rand::random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u64);

    impl Random for Fixed {
        fn bits(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn a_number_is_of_its_range() {
        for bits in [0, 1, 7, u64::MAX] {
            for range in [0..=0, 3..=9, 0..=u64::MAX, u64::MAX..=u64::MAX] {
                assert!(range.contains(&Fixed(bits).within(range.clone())), "{bits} {range:?}");
            }
        }
    }
}
