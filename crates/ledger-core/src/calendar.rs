//! Calendar arithmetic in UTC, on civil dates: they reach to the last instant of the year 9999.

use drawdown_types::Timestamp;
use jiff::{
    SignedDuration, Span,
    civil::{DateTime, date},
};

const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

fn civil(at: Timestamp) -> Option<DateTime> {
    EPOCH.checked_add(SignedDuration::from_micros(at.as_micros())).ok()
}

fn instant(at: DateTime) -> Option<Timestamp> {
    let micros = i64::try_from(at.duration_since(EPOCH).as_micros()).ok()?;
    Timestamp::from_micros(micros).ok()
}

/// The same date and time one calendar year later; 29 February becomes 28 February (D2).
pub(crate) fn one_year_after(at: Timestamp) -> Option<Timestamp> {
    instant(civil(at)?.checked_add(Span::new().try_years(1).ok()?).ok()?)
}

/// The first instant of the day of `at`.
pub(crate) fn day_of(at: Timestamp) -> Timestamp {
    civil(at).and_then(|at| instant(at.start_of_day())).unwrap_or(Timestamp::MIN)
}

/// Where the next month begins, unless one begins at `at`.
pub(crate) fn inside_month(at: Timestamp) -> Option<Timestamp> {
    month_of(at).filter(|(first, _)| *first < at).map(|(_, next)| next)
}

/// The first instant of the month of `at`, and of the month after it.
pub(crate) fn month_of(at: Timestamp) -> Option<(Timestamp, Timestamp)> {
    let first = civil(at)?.first_of_month().start_of_day();
    let next = first.checked_add(Span::new().try_months(1).ok()?).ok();
    Some((instant(first)?, next.and_then(instant).unwrap_or(Timestamp::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn d2_a_year_is_a_calendar_year() {
        for (from, to) in [
            ("2026-01-31T12:00:00Z", "2027-01-31T12:00:00Z"),
            ("2024-02-29T23:59:59.999999Z", "2025-02-28T23:59:59.999999Z"),
            ("2023-02-28T00:00:00Z", "2024-02-28T00:00:00Z"),
            ("2023-03-01T00:00:00Z", "2024-03-01T00:00:00Z"),
        ] {
            assert_eq!(one_year_after(at(from)), Some(at(to)), "{from}");
        }
        assert_eq!(one_year_after(Timestamp::MAX), None);
    }

    #[test]
    fn d54_months_are_utc() {
        assert_eq!(
            month_of(at("2024-02-29T23:59:59.999999Z")),
            Some((at("2024-02-01T00:00:00Z"), at("2024-03-01T00:00:00Z")))
        );
        assert_eq!(
            month_of(at("2025-12-31T00:00:00Z")),
            Some((at("2025-12-01T00:00:00Z"), at("2026-01-01T00:00:00Z")))
        );
        assert_eq!(month_of(Timestamp::MAX).map(|(first, _)| first), Some(at("9999-12-01T00:00:00Z")));
        assert!(month_of(Timestamp::MIN).is_some());
    }
}
