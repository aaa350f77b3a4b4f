//! Calendar arithmetic in UTC.

use drawdown_types::Timestamp;
use jiff::{Span, Zoned, tz::TimeZone};

fn zoned(at: Timestamp) -> Option<Zoned> {
    jiff::Timestamp::from_microsecond(at.as_micros()).ok().map(|instant| instant.to_zoned(TimeZone::UTC))
}

fn instant(at: &Zoned) -> Option<Timestamp> {
    Timestamp::from_micros(at.timestamp().as_microsecond()).ok()
}

/// The same date and time one calendar year later; 29 February becomes 28 February (D2).
pub(crate) fn one_year_after(at: Timestamp) -> Option<Timestamp> {
    let later = zoned(at)?.checked_add(Span::new().try_years(1).ok()?).ok()?;
    instant(&later)
}

/// The first instant of the month of `at`, and of the month after it.
pub(crate) fn month_of(at: Timestamp) -> Option<(Timestamp, Timestamp)> {
    let first = zoned(at)?.first_of_month().ok()?.start_of_day().ok()?;
    let next = first.checked_add(Span::new().try_months(1).ok()?).ok()?;
    Some((instant(&first)?, instant(&next).unwrap_or(Timestamp::MAX)))
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
