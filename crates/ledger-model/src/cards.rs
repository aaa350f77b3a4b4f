//! Rate cards: versions in order of time, and the price in force at a window (D12, D47, D57).

use std::collections::BTreeMap;

use super::{Adds, Card, Ledger, Rate, month_of};

impl Ledger {
    /// Publishes a version of the card of a contract kind; it begins at an edge, after the one before it.
    pub fn publish(&mut self, kind: &'static str, from: i64, rates: BTreeMap<String, Rate>) -> bool {
        let from = self.ceil(from);
        let mine = self.cards.iter().filter(|card| card.kind == kind);
        if mine.clone().any(|card| card.from >= from) {
            self.hit("D12 a version is refused");
            return false;
        }
        let before = mine.max_by_key(|card| card.from).map(|card| card.rates.clone()).unwrap_or_default();
        let inside = month_of(from, 0) != from;
        let changes = |meter: &&String| before.get(*meter) != rates.get(*meter);
        let monthly = |meter: &&String| {
            let rates = [before.get(*meter), rates.get(*meter)];
            self.adds(meter) != Adds::Up || rates.into_iter().flatten().any(Rate::is_monthly)
        };
        let changed: Vec<&String> = before.keys().chain(rates.keys()).filter(changes).collect();
        let some_monthly = changed.iter().any(monthly);
        if inside && some_monthly {
            self.hit("D47 a price that counts by the month can not change inside one");
            return false;
        }
        if some_monthly && !before.is_empty() {
            self.hit("D47 a price that counts by the month changes where one begins");
        } else if inside && !changed.is_empty() {
            self.hit("D47 a flat price changes inside a month");
        }
        self.cards.push(Card { kind, from, rates });
        true
    }

    /// How a meter adds up.
    #[must_use]
    pub fn adds(&self, meter: &str) -> Adds {
        self.meters.get(meter).copied().unwrap_or(Adds::Up)
    }

    /// The rate in force at a window, and when it began to be what it is (D12, D47).
    pub(crate) fn rate(&mut self, kind: &str, meter: &str, window: i64) -> Option<(Rate, i64)> {
        let in_order = |card: &&Card| card.kind == kind && card.from <= window;
        let mut versions: Vec<Card> = self.cards.iter().filter(in_order).cloned().collect();
        versions.sort_by_key(|card| card.from);
        let newest = versions.pop()?;
        let rate = newest.rates.get(meter)?.clone();
        let mut began = newest.from;
        while let Some(earlier) = versions.pop() {
            if earlier.rates.get(meter) != Some(&rate) {
                self.hit("D47 a changed price begins anew");
                break;
            }
            self.hit("D47 an unchanged price goes on");
            began = earlier.from;
        }
        Some((rate, began))
    }

    /// The rate of a meter that began at an instant.
    pub(crate) fn rate_of(&self, kind: &str, meter: &str, began: i64) -> &Rate {
        let mine = |card: &&Card| card.kind == kind && card.from == began;
        &self.cards.iter().find(mine).unwrap().rates[meter]
    }
}
