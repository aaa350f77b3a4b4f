//! What usage costs, by adding up all earlier charges (D12 to D14, D18, D20, D47).

use super::{Card, Ledger, Rate};

impl Ledger {
    /// The rate in force at a window, and when it began to be what it is (D12, D47).
    pub(crate) fn rate(&mut self, kind: &str, meter: &str, window: i64) -> Option<(Rate, i64)> {
        let in_order = |card: &&Card| card.kind == kind && card.from <= window;
        let mut versions: Vec<Card> = self.cards.iter().filter(in_order).cloned().collect();
        versions.sort_by_key(|card| card.from);
        let newest = versions.pop()?;
        let rate = *newest.rates.get(meter)?;
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

    /// D14: what the usage costs on top of everything used under the same key before.
    pub(crate) fn price(
        &mut self,
        team: usize,
        key: &(String, i64, (i64, i64)),
        rate: Rate,
        quantity: i64,
    ) -> Option<i64> {
        let same = self.teams[team].charges.iter().filter(|charge| charge.key.as_ref() == Some(key));
        let before: i128 = same.clone().map(|charge| i128::from(charge.quantity)).sum();
        let cost: i128 = same.map(|charge| i128::from(charge.amount)).sum();
        let after = before + i128::from(quantity);
        let total = after * i128::from(rate.micros) / i128::from(rate.per_units);
        if before > 0 {
            self.hit("D14 a state goes on");
        }
        if after * i128::from(rate.micros) % i128::from(rate.per_units) != 0 {
            self.hit("D13 a rational with a rest");
        }
        let used: i128 = self.teams[team].charges.iter().map(|charge| i128::from(charge.amount)).sum();
        let amount = total - cost;
        let fits = |value: i128| value <= i128::from(i64::MAX);
        let owed = i128::from(self.teams[team].owed_ever) + amount;
        (fits(after) && fits(total) && fits(used + amount) && fits(owed)).then(|| amount.try_into().unwrap())
    }
}
