//! The meters of random histories, how they add up, and what they may cost: four prices of each, of every shape.

use std::collections::{BTreeMap, BTreeSet};

use super::{Adds, Ledger, Rate, Span, month_of};

/// Every meter of a history; the last one never has a price.
pub const METERS: [&str; 13] = [
    "call", "photo", "job", "whale", "graph", "render", "lookup", "preview", "peak", "level", "user", "seat",
    "unknown",
];
/// So many distinct values are kept, few enough to be reached.
pub const DISTINCT_MAX: i64 = 6;
/// The distinct values of a line are some of this many.
pub const VALUES: u8 = 8;

/// How a meter adds up.
#[must_use]
pub fn adds(meter: &str) -> Adds {
    match meter {
        "peak" => Adds::Largest(Span::Day),
        "level" => Adds::Largest(Span::Month),
        "user" => Adds::Distinct(Span::Day),
        "seat" => Adds::Distinct(Span::Month),
        _ => Adds::Up,
    }
}

/// How all of them add up.
#[must_use]
pub fn meters() -> BTreeMap<String, Adds> {
    METERS.iter().map(|meter| ((*meter).to_owned(), adds(meter))).collect()
}

/// The distinct values that a bit each stands for.
#[must_use]
pub fn values(bits: u8) -> BTreeSet<u8> {
    (0..VALUES).filter(|value| bits >> value & 1 == 1).collect()
}

fn flat(micros: i64, per_units: i64) -> Rate {
    Rate { micros, per_units, ..Rate::default() }
}

/// One of the four prices of a meter; some have none at times.
fn price(meter: &str, which: u8) -> Option<Rate> {
    let n = i64::from(which);
    let free = |free: i64, rate: Rate| Rate { free, ..rate };
    let unit = |unit: i64, rate: Rate| Rate { unit: Some(unit), ..rate };
    let tiers = |tiers: &[(i64, i64)], rate: Rate| Rate { tiers: tiers.to_vec(), ..rate };
    let failed_is_free = |rate: Rate| Rate { failed_is_free: true, ..rate };
    Some(match (meter, which) {
        ("call", _) => flat(1 + n * 2, 3),
        ("photo", 1) => failed_is_free(flat(1_000_001, 50)),
        ("photo", _) => flat(1_000_000 + n, 50),
        ("job", 0..=2) => failed_is_free(flat(1_000 + n, 1)),
        ("whale", 0) => flat(i64::MAX, 1 << 44),
        ("whale", _) => flat(i64::MAX, 1 << 45),
        ("graph", 0) => tiers(&[(10, 400), (60, 50)], flat(900, 7)),
        ("graph", 1) => tiers(&[(10, 400), (60, 50)], free(5, flat(900, 7))),
        ("graph", 2) => failed_is_free(tiers(&[(25, 9_000)], flat(300, 1))),
        ("render", 0) => unit(20, flat(1_500, 1)),
        ("render", 1) => unit(20, free(15, flat(1_500, 1))),
        ("render", 2) => unit(7, flat(10_001, 3)),
        ("render", _) => failed_is_free(unit(20, free(4, flat(1_500, 1)))),
        ("lookup", 0) => free(20, flat(1_001, 2)),
        ("lookup", 1) => free(100, flat(1_001, 2)),
        ("lookup", _) => failed_is_free(free(20, flat(n * 2_000, 3))),
        ("preview", 1) => Rate { free_only: true, ..failed_is_free(free(3, flat(0, 1))) },
        ("preview", _) => Rate { free_only: true, ..free(10 + n * 20, flat(0, 1)) },
        ("peak", 0) => flat(2_000, 3),
        ("peak", 1) => tiers(&[(10, 100)], flat(2_000, 3)),
        ("peak", 2) => unit(15, free(4, flat(700, 1))),
        ("peak", _) => free(5, flat(2_000, 3)),
        ("level", 0) => flat(5_000, 1),
        ("level", 1) => free(10, flat(5_000, 1)),
        ("level", 2) => tiers(&[(20, 10_000)], flat(5_000, 1)),
        ("user", 0) => flat(10_000, 1),
        ("user", 1) => free(3, flat(10_000, 1)),
        ("user", 2) => tiers(&[(4, 2_000)], flat(9_999, 2)),
        ("user", _) => unit(3, flat(10_000, 1)),
        ("seat", 0) => failed_is_free(flat(20_000, 3)),
        ("seat", n) => free(n.into(), flat(20_000, 1)),
        (_, _) => return None,
    })
}

/// What a version of the card of `kind` says that is published for `from`: for each meter one of its prices, by
/// number. Who is careful keeps what counts by the month as it is, unless a month begins there.
#[must_use]
pub fn rates(ledger: &Ledger, kind: &str, from: i64, change: &[u8], careful: bool) -> BTreeMap<String, Rate> {
    let from = ledger.ceil(from);
    let keeps = careful && month_of(from, 0) != from;
    let before = ledger.cards.iter().filter(|card| card.kind == kind).max_by_key(|card| card.from);
    let mut rates = BTreeMap::new();
    for (meter, which) in METERS.iter().zip(change) {
        let old = before.and_then(|card| card.rates.get(*meter));
        let new = price(meter, *which);
        let monthly =
            adds(meter) != Adds::Up || [old, new.as_ref()].into_iter().flatten().any(Rate::is_monthly);
        let rate = if keeps && monthly { old.cloned() } else { new };
        rates.extend(rate.map(|rate| ((*meter).to_owned(), rate)));
    }
    rates
}
