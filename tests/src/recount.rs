//! A recount of the log by code that shares nothing with the product: its own line reader, its own
//! windows, its own prices. What the ledger says has to equal this, to the micro-token.
//!
//! The sum of the charges of one (team, meter, price, UTC month) is the floor of its whole quantity
//! times the price (D14), whatever the order of posting; so sums need no order at all.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::scenario::{CALL, IGNORED_SEGMENTS, PriceSpec, Scenario};

/// One line of the log that is usage.
#[derive(Debug, Clone)]
pub struct Request {
    /// Seconds since the epoch, as logged.
    pub at_secs: i64,
    /// First path segment, without query.
    pub segment: String,
    /// HTTP status.
    pub status: u16,
    /// Bytes sent.
    pub bytes: i64,
}

/// What the log holds.
#[derive(Debug, Default)]
pub struct Recount {
    /// Lines in all.
    pub lines: u64,
    /// Lines that are no log line.
    pub malformed: u64,
    /// Lines that no rule meters.
    pub ignored: u64,
    /// Lines of client ids without a credential.
    pub unattributed: u64,
    /// Lines of the twelve apps.
    pub settled: u64,
    /// Quantity and events by (team, app, meter).
    pub usage: BTreeMap<(String, String, String), Usage>,
    /// Price in micro-tokens by (team, meter).
    pub charged: BTreeMap<(String, String), i64>,
}

/// Usage of one app on one meter.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Events.
    pub events: i64,
    /// Quantity in base units.
    pub quantity: i64,
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Days since the epoch of a date, counted one year and month at a time.
fn days_of(year: i64, month: usize, day: i64) -> i64 {
    let leap = |y: i64| (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    let lengths = |y: i64| [31, if leap(y) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let years: i64 = (1970..year).map(|y| if leap(y) { 366 } else { 365 }).sum();
    let months: i64 = lengths(year).iter().take(month).sum();
    years + months + day - 1
}

/// `(year, month)` of an instant, by the same slow count.
fn month_of(secs: i64) -> (i64, usize) {
    let day = secs.div_euclid(86_400);
    let mut year = 1970;
    while days_of(year + 1, 0, 1) <= day {
        year += 1;
    }
    let month = (0..12).rev().find(|m| days_of(year, *m, 1) <= day).unwrap_or(0);
    (year, month)
}

/// Reads `17/May/2015:10:05:03 +0000`; the fixture has no other offset.
fn read_instant(text: &str) -> Option<i64> {
    let (date, zone) = text.split_once(' ')?;
    if zone != "+0000" {
        return None;
    }
    let mut parts = date.split(['/', ':']);
    let day: i64 = parts.next()?.parse().ok()?;
    let name = parts.next()?;
    let month = MONTHS.iter().position(|candidate| *candidate == name)?;
    let mut number = || parts.next()?.parse::<i64>().ok();
    let (year, hour, minute, second) = (number()?, number()?, number()?, number()?);
    Some(days_of(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Reads one combined log line; `None` for what is none.
#[must_use]
pub fn read_line(line: &str) -> Option<Request> {
    let (_, rest) = line.split_once('[')?;
    let (instant, rest) = rest.split_once("] \"")?;
    let (request, rest) = rest.split_once("\" ")?;
    let mut tail = rest.splitn(3, ' ');
    let status = tail.next()?.parse().ok()?;
    let bytes = match tail.next()? {
        "-" => 0,
        digits => digits.parse().ok()?,
    };
    let agents = tail.next()?;
    let whole =
        agents.starts_with('"') && agents.len() > 1 && agents.ends_with('"') && agents.contains("\" \"");
    let path = request.split(' ').nth(1)?.split('?').next()?;
    let segment = path.trim_start_matches('/').split('/').next()?.to_owned();
    whole.then_some(Request { at_secs: read_instant(instant)?, segment, status, bytes })
}

/// The instants of the first and the last good line, in seconds as logged.
///
/// # Errors
/// Where the log has no good line.
pub fn period(log: &str) -> Result<(i64, i64)> {
    let instants = || log.lines().filter_map(read_line).map(|request| request.at_secs);
    let first = instants().min().context("the log has no good line")?;
    let last = instants().max().context("the log has no good line")?;
    Ok((first, last))
}

/// Counts the whole log, every instant moved by `shift_secs`.
#[must_use]
pub fn recount(log: &str, shift_micros: i64, scenario: &Scenario) -> Recount {
    let mut all = Recount::default();
    let mut rated: BTreeMap<(String, String, bool, (i64, usize)), i64> = BTreeMap::new();
    for line in log.lines() {
        all.lines += 1;
        let Some(request) = read_line(line) else {
            all.malformed += 1;
            continue;
        };
        if IGNORED_SEGMENTS.contains(&request.segment.as_str()) {
            all.ignored += 1;
            continue;
        }
        let Some(app) = Scenario::app_of(&request.segment) else {
            all.unattributed += 1;
            continue;
        };
        all.settled += 1;
        let quantity = if app.meter == CALL { 1 } else { request.bytes };
        let usage =
            all.usage.entry((app.team.to_owned(), app.name.to_owned(), app.meter.to_owned())).or_default();
        usage.events += 1;
        usage.quantity += quantity;
        let at_micros = request.at_secs * 1_000_000 + shift_micros;
        let window_secs = at_micros.div_euclid(60_000_000) * 60;
        let after = window_secs * 1_000_000 >= scenario.price_change.as_micros();
        let prices = if after { &scenario.prices_after } else { &scenario.prices_before };
        let free = request.status >= 400 && prices.iter().any(|p| p.meter == app.meter && p.failed_is_free);
        if !free {
            let key = (app.team.to_owned(), app.meter.to_owned(), after, month_of(window_secs));
            *rated.entry(key).or_default() += quantity;
        }
    }
    for ((team, meter, after, _), quantity) in rated {
        let prices = if after { &scenario.prices_after } else { &scenario.prices_before };
        let price = prices.iter().find(|p| p.meter == meter).map_or(0, |p| floor_price(p, quantity));
        *all.charged.entry((team, meter)).or_default() += price;
    }
    all
}

fn floor_price(price: &PriceSpec, quantity: i64) -> i64 {
    let micros = i128::from(quantity) * i128::from(price.micros) / i128::from(price.per_units);
    i64::try_from(micros).unwrap_or(i64::MAX)
}
