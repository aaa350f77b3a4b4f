//! A calendar counted in days.

use super::SECOND;

const DAY: i64 = 86_400 * SECOND;

/// Days since 1970-01-01 of a civil date (proleptic Gregorian).
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let shifted_month = (month + 9) % 12;
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    365 * shifted_year + shifted_year.div_euclid(4) - shifted_year.div_euclid(100)
        + shifted_year.div_euclid(400)
        + day_of_year
        - 719_468
}

/// The civil date of an instant.
pub fn date_of(at: i64) -> (i64, i64, i64) {
    let days = at.div_euclid(DAY);
    let mut year = 1970 + days / 366 - 1;
    while days_of(year + 1, 1, 1) <= days {
        year += 1;
    }
    let month = (1..=12).rev().find(|month| days_of(year, *month, 1) <= days).unwrap();
    (year, month, days - days_of(year, month, 1) + 1)
}

/// D2.
pub fn year_later(at: i64) -> i64 {
    let (year, month, day) = date_of(at);
    let day = if (month, day) == (2, 29) { 28 } else { day };
    days_of(year + 1, month, day) * DAY + at.rem_euclid(DAY)
}

/// The first instant of the month that lies so many months after that of an instant.
#[must_use]
pub fn month_of(at: i64, after: i64) -> i64 {
    let (year, month, _) = date_of(at);
    let months = year * 12 + month - 1 + after;
    days_of(months.div_euclid(12), months.rem_euclid(12) + 1, 1) * DAY
}
