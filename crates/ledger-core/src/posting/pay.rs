//! Who pays: holds, lots, debts.

use std::cmp::{max, min};

use drawdown_types::{HoldId, MicroTokens};

use super::{About, Cause, Charged, Posting, minus, plus};
use crate::{
    journal::{DebtInterval, Kind},
    lot::LotState,
};

impl Posting<'_> {
    /// Whether `amount` more of usage fits the team's sums (D53). The running debt may hold more than
    /// everything used, since what a chargeback takes back is owed once more.
    pub(crate) fn can_consume(&self, amount: MicroTokens) -> bool {
        let balance = &self.team.balance;
        balance.consumed.checked_add(amount).is_some() && balance.debt_opened.checked_add(amount).is_some()
    }

    /// Records usage that costs nothing: no rows, but the transaction counts.
    pub(crate) fn record(&mut self) -> Charged {
        self.active = true;
        Charged { uncharged: MicroTokens::ZERO, first_seq: None }
    }

    /// Pays `amount` for usage (D41): the parts of its own hold; lots valid at its window in draw
    /// order, open or closing; the rest becomes debt, and open lots pay debt at once.
    pub(crate) fn charge(&mut self, cause: Cause, amount: MicroTokens, hold: Option<HoldId>) -> Charged {
        self.active = true;
        let before = self.team.balance.version;
        let mut left = amount;
        if let Some(hold_id) = hold {
            left = minus(left, self.capture(cause, hold_id, amount));
        }
        left = self.draw(cause, left);
        if left > MicroTokens::ZERO {
            let from = self.team.balance.debt_opened;
            let debt = Some(DebtInterval { from, to: plus(from, left) });
            let about = About { cause: Some(cause), debt, ..About::nothing(cause.window) };
            self.row(Kind::Uncharged, left, about);
            self.net();
        }
        let first_seq = (self.team.balance.version > before).then(|| before.saturating_add(1));
        Charged { uncharged: left, first_seq }
    }

    /// Owes `amount` of usage from before an import, as a new item of the running debt (D61). The team counts as
    /// below zero since `since`, should it be below zero in the end and not be already.
    pub(crate) fn owe_prior(
        &mut self,
        amount: MicroTokens,
        window: drawdown_types::Timestamp,
        since: drawdown_types::Timestamp,
    ) {
        let from = self.team.balance.debt_opened;
        let debt = Some(DebtInterval { from, to: plus(from, amount) });
        let cause = Some(Cause { charge_id: None, price_id: None, window });
        self.row(Kind::PriorDebt, amount, About { cause, debt, ..About::nothing(since) });
        self.since = Some(self.since.map_or(since, |earlier| earlier.min(since)));
    }

    /// Draws from lots valid at the window; gives what they do not cover.
    fn draw(&mut self, cause: Cause, amount: MicroTokens) -> MicroTokens {
        let mut left = amount;
        let mut drained = false;
        let mut place = 0_usize;
        while left > MicroTokens::ZERO
            && let Some(index) = self.live.get(place).copied()
            && let Some(lot) = self.team.lots.get(index)
        {
            place = place.saturating_add(1);
            if lot.state_at(self.at) == LotState::Scheduled || !lot.is_valid_for(cause.window) {
                continue;
            }
            let part = min(lot.remaining, left);
            drained |= part == lot.remaining;
            left = minus(left, part);
            let about = About { cause: Some(cause), ..About::lot(index, cause.window) };
            self.row(Kind::Charge, part, about);
        }
        if drained {
            self.list_live();
        }
        left
    }

    /// Open lots pay debt, oldest first, lots in draw order, whatever the windows (D7, D42): one row
    /// for each lot and gapless part of the queue, however many items it covers.
    pub(crate) fn net(&mut self) {
        let mut place = 0_usize;
        let mut drained = false;
        while let Some(debt) = self.first_debt()
            && let Some(index) = self.live.get(place).copied()
            && let Some(lot) = self.team.lots.get(index)
        {
            if lot.state_at(self.at) != LotState::Open || lot.remaining == MicroTokens::ZERO {
                place = place.saturating_add(1);
                continue;
            }
            let part = min(lot.remaining, minus(debt.to, debt.from));
            drained |= part == lot.remaining;
            self.pay_debt(index, debt.from, part);
        }
        if drained {
            self.list_live();
        }
    }

    /// The first gapless part of the debt that is open.
    fn first_debt(&self) -> Option<DebtInterval> {
        let balance = &self.team.balance;
        let from = balance.debt_paid;
        let to = self.team.settled_ahead.first().map_or(balance.debt_opened, |ahead| ahead.from);
        (from < to).then_some(DebtInterval { from, to })
    }

    /// What came back to a closing lot pays items inside its validity, oldest first, and nothing else
    /// (D42).
    pub(super) fn net_closing(&mut self, index: usize) {
        let mut place = 0_usize;
        while let Some(item) = self.team.items.get(place).copied()
            && let Some(lot) = self.team.lots.get(index)
        {
            let inside = lot.is_valid_for(item.window);
            let open = self.open_part(item.interval).filter(|_| inside && lot.remaining > MicroTokens::ZERO);
            let Some(open) = open else {
                place = place.saturating_add(1);
                continue;
            };
            let part = min(lot.remaining, minus(open.to, open.from));
            self.pay_debt(index, open.from, part);
        }
        self.list_live();
    }

    /// The first part of `item` that is not settled.
    fn open_part(&self, item: DebtInterval) -> Option<DebtInterval> {
        let mut from = max(item.from, self.team.balance.debt_paid);
        for ahead in &self.team.settled_ahead {
            if ahead.from <= from {
                from = max(from, ahead.to);
            } else {
                let to = min(item.to, ahead.from);
                return (from < to).then_some(DebtInterval { from, to });
            }
        }
        (from < item.to).then_some(DebtInterval { from, to: item.to })
    }

    fn pay_debt(&mut self, index: usize, from: MicroTokens, part: MicroTokens) {
        let debt = Some(DebtInterval { from, to: plus(from, part) });
        self.row(Kind::Netting, part, About { debt, ..About::lot(index, self.at) });
    }
}
