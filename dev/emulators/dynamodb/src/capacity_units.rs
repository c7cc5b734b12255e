//! What DynamoDB charges by. Exact, so that tests compare for equality.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};

/// A number of read or write capacity units. DynamoDB counts in halves: an eventually consistent read costs one.
///
/// ```
/// use tollgate_dynamodb_emulator::CapacityUnits;
/// let two_and_a_half = CapacityUnits::whole(2) + CapacityUnits::halves(1);
/// assert_eq!(two_and_a_half.to_string(), "2.5");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CapacityUnits {
    halves: u64,
}

impl CapacityUnits {
    /// None.
    pub const ZERO: Self = Self { halves: 0 };

    /// So many units.
    pub const fn whole(units: u64) -> Self {
        Self { halves: units * 2 }
    }

    /// So many half units.
    pub const fn halves(halves: u64) -> Self {
        Self { halves }
    }

    /// As a number, for averages.
    #[expect(clippy::cast_precision_loss, reason = "no test consumes 2^52 units")]
    pub fn as_f64(self) -> f64 {
        self.halves as f64 / 2.0
    }

    /// As an answer reports it: a number of units that is never negative.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    pub(crate) fn reported(units: f64) -> Self {
        Self { halves: (units * 2.0).round() as u64 }
    }
}

impl fmt::Display for CapacityUnits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let half = if self.halves.is_multiple_of(2) { "" } else { ".5" };
        write!(formatter, "{}{half}", self.halves / 2)
    }
}

impl Add for CapacityUnits {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { halves: self.halves + other.halves }
    }
}

impl AddAssign for CapacityUnits {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for CapacityUnits {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { halves: self.halves - other.halves }
    }
}

impl Sum for CapacityUnits {
    fn sum<I: Iterator<Item = Self>>(units: I) -> Self {
        units.fold(Self::ZERO, Add::add)
    }
}
