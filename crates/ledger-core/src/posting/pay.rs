//! Who pays: holds, lots, debts.

use std::cmp::min;

use drawdown_types::{HoldId, MicroTokens};

use super::{About, Cause, Charged, Posting, minus, plus};
use crate::{
    journal::{DebtInterval, Kind},
    lot::{Lot, LotState},
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
    /// for each lot and gapless part of the queue, however many items it covers. While a lot that leaves older
    /// debts has something left (D57), the items of its validity are parts of their own.
    pub(crate) fn net(&mut self) {
        let mut cursor = self.team.balance.debt_paid;
        let mut place = 0_usize;
        let mut drained = false;
        while let Some(open) = self.next_debt(cursor) {
            while self.live.get(place).is_some_and(|index| !self.can_net(*index)) {
                place = place.saturating_add(1);
            }
            let payers = self.live.get(place..).unwrap_or_default();
            let (debt, window) = self.first_part(open, payers);
            let may = |lot: &Lot| !lot.leaves_older_debts || window.is_some_and(|at| lot.is_valid_for(at));
            let able = |index: &&usize| self.can_net(**index) && self.team.lots.get(**index).is_some_and(may);
            let Some(index) = payers.iter().find(able).copied() else {
                if payers.is_empty() {
                    break;
                }
                cursor = debt.to;
                continue;
            };
            let remaining = self.team.lots.get(index).map_or(MicroTokens::ZERO, |lot| lot.remaining);
            let part = min(remaining, debt.length());
            drained |= part == remaining;
            self.pay_debt(index, debt.from, part);
            cursor = plus(debt.from, part);
        }
        if drained {
            self.list_live();
        }
    }

    /// The lot of that place is open and has something left.
    fn can_net(&self, index: usize) -> bool {
        let lot = self.team.lots.get(index);
        lot.is_some_and(|lot| lot.state_at(self.at) == LotState::Open && lot.remaining > MicroTokens::ZERO)
    }

    /// The first gapless part of the debt that is open, at `cursor` or after it.
    fn next_debt(&self, cursor: MicroTokens) -> Option<DebtInterval> {
        let opened = self.team.balance.debt_opened;
        self.team.open_part(DebtInterval { from: cursor, to: opened })
    }

    /// Of an open part of the debt the first that is either of one window, which one of `payers` that leaves older debts
    /// may pay, or of windows that none of these may.
    fn first_part(
        &self,
        open: DebtInterval,
        payers: &[usize],
    ) -> (DebtInterval, Option<drawdown_types::Timestamp>) {
        let lots = payers.iter().filter(|index| self.can_net(**index));
        let mut lots =
            lots.filter_map(|index| self.team.lots.get(*index)).filter(|lot| lot.leaves_older_debts);
        let first = lots.next();
        let Some(first) = first else { return (open, None) };
        let lots: Vec<&Lot> = [first].into_iter().chain(lots).collect();
        let items = self.team.items.partition_point(|item| item.interval.to <= open.from);
        let items = self.team.items.get(items..).unwrap_or_default();
        let item = items.iter().find(|item| lots.iter().any(|lot| lot.is_valid_for(item.window)));
        match item.filter(|item| item.interval.from < open.to) {
            Some(item) if item.interval.from <= open.from => {
                (DebtInterval { to: min(open.to, item.interval.to), ..open }, Some(item.window))
            }
            Some(item) => (DebtInterval { to: item.interval.from, ..open }, None),
            None => (open, None),
        }
    }

    /// What came back to a closing lot pays items inside its validity, oldest first, and nothing else
    /// (D42).
    pub(super) fn net_closing(&mut self, index: usize) {
        let mut place = 0_usize;
        while let Some(item) = self.team.items.get(place).copied()
            && let Some(lot) = self.team.lots.get(index)
        {
            let inside = lot.is_valid_for(item.window);
            let open =
                self.team.open_part(item.interval).filter(|_| inside && lot.remaining > MicroTokens::ZERO);
            let Some(open) = open else {
                place = place.saturating_add(1);
                continue;
            };
            let part = min(lot.remaining, minus(open.to, open.from));
            self.pay_debt(index, open.from, part);
        }
        self.list_live();
    }

    fn pay_debt(&mut self, index: usize, from: MicroTokens, part: MicroTokens) {
        let debt = Some(DebtInterval { from, to: plus(from, part) });
        self.row(Kind::Netting, part, About { debt, ..About::lot(index, self.at) });
    }
}
