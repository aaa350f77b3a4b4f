//! UTC months, which budgets and free quotas count by (D16, D54, D59).

use std::str::FromStr;

use drawdown_types::Timestamp;

use crate::calendar;

/// A UTC month, counted from January of the year 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(i32);

/// A text that is no month of the form `2026-03`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a month of the form 2026-03")]
pub struct MonthError;

impl Month {
    const MONTHS: i32 = 12;

    /// The month that holds `at`.
    #[must_use]
    pub fn of(at: Timestamp) -> Self {
        let (year, month) = calendar::month_of(at);
        Self(year.saturating_mul(Self::MONTHS).saturating_add(month).saturating_sub(1))
    }
}

impl FromStr for Month {
    type Err = MonthError;

    fn from_str(text: &str) -> Result<Self, MonthError> {
        let (year, month) = text.split_once('-').ok_or(MonthError)?;
        let digits = |text: &str, count: usize| -> Option<i32> {
            (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit()))
                .then(|| text.parse().ok())?
        };
        let year = digits(year, 4).ok_or(MonthError)?;
        let month = digits(month, 2).filter(|month| (1..=Self::MONTHS).contains(month)).ok_or(MonthError)?;
        Ok(Self(year.saturating_mul(Self::MONTHS).saturating_add(month).saturating_sub(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_that_of_its_instants() {
        for (at, text) in [
            ("2026-03-01T00:00:00Z", "2026-03"),
            ("2026-02-28T23:59:59.999999Z", "2026-02"),
            ("1969-12-31T23:59:59Z", "1969-12"),
        ] {
            assert_eq!(text.parse(), Ok(Month::of(at.parse().unwrap())), "{at}");
        }
        for text in ["", "2026", "2026-13", "2026-00", "26-03", "2026-3", "2026-+3"] {
            assert_eq!(text.parse::<Month>(), Err(MonthError), "{text}");
        }
    }
}
