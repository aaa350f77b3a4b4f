//! What usage costs, by pricing everything that stands under its price anew (D13 to D17, D19).

use std::collections::{BTreeMap, BTreeSet};

use super::{Adds, Charge, Key, Ledger, Rate, Span, date_of};

/// Year, month, and day, or 0 for the whole month.
type Period = (i64, i64, i64);

/// Usage as far as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stands {
    pub(crate) window: i64,
    pub(crate) quantity: i64,
    pub(crate) values: BTreeSet<u8>,
}

/// What usage comes to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quantities {
    /// Of each period that has a value of its own.
    pub(crate) periods: BTreeMap<Period, i128>,
    /// Of each month.
    pub(crate) months: BTreeMap<(i64, i64), i128>,
}

/// D19.
pub(crate) fn quantities(adds: Adds, lines: &[Stands]) -> Quantities {
    let mut found = Quantities::default();
    let mut distinct: BTreeMap<Period, BTreeSet<u8>> = BTreeMap::new();
    for line in lines {
        let (year, month, day) = date_of(line.window);
        let period = |span| if span == Span::Day { (year, month, day) } else { (year, month, 0) };
        match adds {
            Adds::Up => *found.months.entry((year, month)).or_default() += i128::from(line.quantity),
            Adds::Largest(span) => {
                let largest = found.periods.entry(period(span)).or_default();
                *largest = i128::from(line.quantity).max(*largest);
            }
            Adds::Distinct(span) => distinct.entry(period(span)).or_default().extend(&line.values),
        }
    }
    let counted = distinct.into_iter().map(|(period, values)| (period, values.len() as i128));
    found.periods.extend(counted);
    for ((year, month, _), quantity) in &found.periods {
        *found.months.entry((*year, *month)).or_default() += quantity;
    }
    found
}

impl Rate {
    /// What is above the free quota, of each month (D16).
    pub(crate) fn above(&self, found: &Quantities) -> BTreeMap<(i64, i64), i128> {
        let above = |quantity: &i128| (quantity - i128::from(self.free)).max(0);
        found.months.iter().map(|(month, quantity)| (*month, above(quantity))).collect()
    }

    /// What all of it costs: as many micro-tokens, over this many.
    fn fraction(&self, above: &BTreeMap<(i64, i64), i128>) -> (i128, i128) {
        let total: i128 = above.values().sum();
        let dearer = |quantity: &i128| {
            // Each tier changes the price of everything above its begin.
            let (mut micros, mut price) = (quantity * i128::from(self.micros), self.micros);
            for (begin, next) in &self.tiers {
                micros += (quantity - i128::from(*begin)).max(0) * (i128::from(*next) - i128::from(price));
                price = *next;
            }
            micros
        };
        let micros = match self.unit {
            _ if self.free_only => 0,
            Some(unit) => (total - total % i128::from(unit)) * i128::from(self.micros),
            None => above.values().map(dearer).sum(),
        };
        (micros, i128::from(self.per_units))
    }

    /// D13: a rational, rounded down once.
    pub(crate) fn cost(&self, found: &Quantities) -> i128 {
        let (micros, per) = self.fraction(&self.above(found));
        micros / per
    }
}

impl Ledger {
    /// Everything that stands under a key. What a correction took back of usage that adds up is usage below zero.
    pub(crate) fn stands(&self, team: usize, key: &Key) -> Vec<Stands> {
        let charges = &self.teams[team].charges;
        let whole = self.adds(&key.meter) != Adds::Up;
        let gone = |place: usize, charge: &Charge| {
            whole && (charge.corrects.is_some() || charges.iter().any(|other| other.corrects == Some(place)))
        };
        let mine = charges.iter().enumerate().filter(|(_, charge)| charge.key.as_ref() == Some(key));
        mine.filter(|(place, charge)| !gone(*place, charge)).map(|(_, charge)| Stands::of(charge)).collect()
    }

    /// D14: what a line costs on top of everything that stands under its key, and whether it is only recorded (D16);
    /// nothing where it does not fit (D53).
    pub(crate) fn price(&mut self, team: usize, key: &Key, rate: &Rate, line: Stands) -> Option<(i64, bool)> {
        let adds = self.adds(&key.meter);
        let mut lines = self.stands(team, key);
        let before = quantities(adds, &lines);
        lines.push(line);
        let after = quantities(adds, &lines);
        let total = rate.cost(&after);
        let amount = total - rate.cost(&before);
        let same = self.teams[team].charges.iter().filter(|charge| charge.key.as_ref() == Some(key));
        let paid: i128 = same.map(|charge| i128::from(charge.amount)).sum();
        assert_eq!(paid, rate.cost(&before), "what was charged is what its price says");
        // So many are kept of a team, price and month.
        let most = i128::from(self.distinct_max);
        let too_many = |(month, now): (_, &i128)| *now > most && before.months.get(month) != Some(now);
        if matches!(adds, Adds::Distinct(_)) && after.months.iter().any(too_many) {
            self.hit("D19 more distinct values than are kept");
            return None;
        }
        let fits = |value: i128| value <= i128::from(i64::MAX);
        let used: i128 = self.teams[team].charges.iter().map(|charge| i128::from(charge.amount)).sum();
        let owed = i128::from(self.teams[team].owed_ever) + amount;
        let units: i128 = rate.above(&after).values().sum();
        let all = after.months.values().chain(after.periods.values()).copied().all(fits);
        if !(all && fits(units) && fits(total) && fits(used + amount) && fits(owed)) {
            return None;
        }
        self.note(rate, adds, &before, &after);
        let over = rate.free_only && units > rate.above(&before).values().sum();
        Some((amount.try_into().unwrap(), over))
    }

    /// Which rules had a say.
    fn note(&mut self, rate: &Rate, adds: Adds, before: &Quantities, after: &Quantities) {
        let sum = |found: &Quantities| found.months.values().sum::<i128>();
        if sum(before) > 0 {
            self.hit("D14 a state goes on");
        }
        let (above_before, above) = (rate.above(before), rate.above(after));
        let (micros, per) = rate.fraction(&above);
        if micros % per != 0 {
            self.hit("D13 a rational with a rest");
        }
        let (from, to): (i128, i128) = (above_before.values().sum(), above.values().sum());
        if rate.free > 0 && sum(after) > sum(before) {
            self.hit(match () {
                () if from == to => "D16 inside the free quota",
                () if rate.free_only => "D16 over the quota of a meter that is free only",
                () if rate.unit.is_some() => "D15 the excess over the free units runs on",
                () if from == 0 => "D16 over the free quota in part",
                () => "D16 above the free quota",
            });
        }
        if let Some(unit) = rate.unit.map(i128::from).filter(|_| to > from) {
            let months = above_before.values().filter(|units| **units > 0).count();
            let grew = above.iter().find(|(month, units)| above_before.get(*month) != Some(units));
            let other =
                grew.is_some_and(|(month, _)| months > usize::from(above_before.get(month) > Some(&0)));
            self.hit(match () {
                () if to / unit == from / unit => "D15 the unfinished part of a unit waits",
                () if from % unit > 0 && other => "D15 a unit that another month began",
                () => "D15 whole units are charged",
            });
        }
        if !rate.tiers.is_empty() && to > from {
            let place =
                |units: i128| rate.tiers.iter().filter(|(begin, _)| units > i128::from(*begin)).count();
            self.hit(match (place(from.max(to.min(from + 1))), place(to)) {
                (0, 0) => "D17 the first tier",
                (a, b) if a == b => "D17 a later tier",
                _ => "D17 several tiers",
            });
        }
        self.note_periods(adds, before, after);
    }

    fn note_periods(&mut self, adds: Adds, before: &Quantities, after: &Quantities) {
        let known = before.periods.len();
        let new = after.periods.len() > known;
        let grown = after.periods.values().sum::<i128>() > before.periods.values().sum();
        match adds {
            Adds::Up => return,
            Adds::Largest(_) if grown && !new => self.hit("D19 a larger value"),
            Adds::Largest(_) if !new => self.hit("D19 no larger value"),
            Adds::Distinct(_) if grown && !new => self.hit("D19 new values of a period"),
            Adds::Distinct(_) if !new => self.hit("D19 values that were seen"),
            Adds::Largest(_) | Adds::Distinct(_) => {}
        }
        if new && grown && known > 0 {
            self.hit("D19 a month is the sum over its days");
        }
    }
}

impl Stands {
    pub(crate) fn of(charge: &Charge) -> Self {
        Self { window: charge.window, quantity: charge.quantity, values: charge.values.clone() }
    }
}
