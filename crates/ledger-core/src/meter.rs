//! How the events of a meter become a quantity (D19).
//!
//! `sum` and `count` simply add up. `max` and `unique` have periods, UTC days or months: each period
//! of a team has one value, the largest seen or the number of distinct ones, and the quantity of a
//! month is the sum over its periods. Partial states merge by sum, maximum or set union, so lines may
//! come in any order and any split.

use std::sync::Arc;

use drawdown_types::Timestamp;

use crate::calendar;

/// How a meter's events become a quantity (D19).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Aggregation {
    /// Sum of quantities.
    #[default]
    Sum,
    /// Number of events.
    Count,
    /// The largest value of each period.
    Max(Period),
    /// The number of distinct values of each period.
    Unique(Period),
}

impl Aggregation {
    /// The period that has a value of its own; absent for what simply adds up.
    #[must_use]
    pub const fn period(self) -> Option<Period> {
        match self {
            Self::Sum | Self::Count => None,
            Self::Max(period) | Self::Unique(period) => Some(period),
        }
    }
}

/// A stretch of time with a value of its own, in UTC (D54). No period reaches over a month's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// A day.
    Day,
    /// A month.
    Month,
}

impl Period {
    /// The first instant of the period of `window`.
    #[must_use]
    pub fn start(self, window: Timestamp) -> Timestamp {
        match self {
            Self::Day => calendar::day_of(window),
            Self::Month => calendar::month_of(window).map_or(Timestamp::MIN, |(first, _)| first),
        }
    }
}

/// Distinct values of a dimension, as bytes: sorted, each once, and shared by clones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DistinctValues(Arc<[Box<[u8]>]>);

impl DistinctValues {
    /// Sorts the values and keeps each once.
    #[must_use]
    pub fn new(values: impl IntoIterator<Item = Box<[u8]>>) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_unstable();
        values.dedup();
        Self(values.into())
    }

    /// The values, in order of their bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[Box<[u8]>] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d54_days_and_months_are_utc() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let night = at("2026-02-28T23:59:59.999999Z");
        assert_eq!(Period::Day.start(night), at("2026-02-28T00:00:00Z"));
        assert_eq!(Period::Month.start(night), at("2026-02-01T00:00:00Z"));
        assert_eq!(Period::Day.start(at("1969-12-31T12:00:00Z")), at("1969-12-31T00:00:00Z"));
        for period in [Period::Day, Period::Month] {
            assert_eq!(period.start(at("2026-03-01T00:00:00Z")), at("2026-03-01T00:00:00Z"));
            assert_eq!(period.start(Timestamp::MIN), Timestamp::MIN);
        }
    }

    #[test]
    fn values_are_kept_once_in_order() {
        let values = ["b", "a", "b", ""].map(|value| value.as_bytes().into());
        let kept: Vec<_> = DistinctValues::new(values).as_slice().iter().map(|v| v.to_vec()).collect();
        assert_eq!(kept, [b"".to_vec(), b"a".to_vec(), b"b".to_vec()]);
    }
}
