//! Where UTC months begin (D54, D57), on civil dates: they reach to the last instant of the year 9999.

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

/// The first instant at or after `at` where a UTC month begins; the last month of the year 9999 has none after it.
pub(crate) fn month_edge(at: Timestamp) -> Timestamp {
    let found = || {
        let first = civil(at)?.first_of_month().start_of_day();
        if instant(first)? == at {
            return Some(at);
        }
        instant(first.checked_add(Span::new().try_months(1).ok()?).ok()?)
    };
    found().unwrap_or(Timestamp::MAX)
}

/// Year and month, from 1, of an instant.
pub(crate) fn month_of(at: Timestamp) -> (i32, i32) {
    civil(at).map_or((0, 1), |at| (i32::from(at.year()), i32::from(at.month())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d57_months_begin_in_utc() {
        for (from, edge) in [
            ("2024-02-29T23:59:59.999999Z", "2024-03-01T00:00:00Z"),
            ("2026-02-01T00:00:00Z", "2026-02-01T00:00:00Z"),
            ("2026-02-01T00:00:00.000001Z", "2026-03-01T00:00:00Z"),
            ("2025-12-31T12:00:00Z", "2026-01-01T00:00:00Z"),
        ] {
            assert_eq!(month_edge(from.parse().unwrap()), edge.parse().unwrap(), "{from}");
        }
        assert_eq!(month_edge(Timestamp::MAX), Timestamp::MAX);
    }
}
