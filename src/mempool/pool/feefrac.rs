//! A fee with the size that it pays for, compared by their ratio without rounding.
//!
//! Source: Bitcoin Core `util/feefrac.h`.

use std::cmp::Ordering;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

/// So many satoshi for so many weight units (or virtual bytes, where it says so).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeeFrac {
    pub fee: u64,
    pub size: u64,
}

impl FeeFrac {
    pub const fn new(fee: u64, size: u64) -> Self {
        Self { fee, size }
    }

    /// Which of the two pays more for a unit of size.
    pub fn cmp_rate(self, other: Self) -> Ordering {
        let ours = u128::from(self.fee) * u128::from(other.size);
        ours.cmp(&(u128::from(other.fee) * u128::from(self.size)))
    }

    /// Better rates first, and of equal rates the smaller size.
    pub fn cmp_better_first(self, other: Self) -> Ordering {
        other.cmp_rate(self).then(self.size.cmp(&other.size))
    }
}

impl Add for FeeFrac {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { fee: self.fee.saturating_add(other.fee), size: self.size.saturating_add(other.size) }
    }
}

impl AddAssign for FeeFrac {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for FeeFrac {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), Add::add)
    }
}
