//! The one place where money moves.
//!
//! [`Posting`] works on one team: transactions are opened and ended one after the other, and inside
//! them [`Posting::charge`], [`Posting::net`], [`Posting::add_lot`] and [`Posting::close`] do
//! nothing but write rows; `row` alone changes a lot or a balance, so the books are right whatever
//! the callers do. The lots of the team stay sorted in draw order (D4) all along.
//!
//! Two things always hold when a transaction ends: no open lot has anything left while the team
//! owes (D42), and a row's interval of the running debt lies at its end (opened) or at its paid
//! part's end (paid), so that the debts are paid in posting order (D7).

use std::cmp::min;

use drawdown_types::{ChargeId, MicroTokens, PriceId, Timestamp};

use crate::{
    journal::{Book, DebtInterval, JournalRow, Kind},
    lot::{Lot, LotState, draw_order},
    plan::Plan,
    settings::Settings,
    team::Team,
};

/// What a charge leaves behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Charged {
    /// What no valid lot covered.
    pub(crate) uncharged: MicroTokens,
    /// The first of its rows.
    pub(crate) first_seq: Option<i64>,
}

/// Which charge, of which window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cause {
    pub(crate) charge_id: ChargeId,
    pub(crate) price_id: PriceId,
    pub(crate) window: Timestamp,
}

/// What a row is about, beside its amount.
#[derive(Clone, Copy, Debug)]
struct About {
    lot: Option<usize>,
    cause: Option<Cause>,
    debt: Option<DebtInterval>,
    effective_at: Timestamp,
}

/// Sums that were checked before any row was written, or parts that are at most the whole: they
/// always fit, saturation is never reached.
fn plus(a: MicroTokens, b: MicroTokens) -> MicroTokens {
    MicroTokens::from_micros(a.as_micros().saturating_add(b.as_micros()))
}

fn minus(a: MicroTokens, b: MicroTokens) -> MicroTokens {
    MicroTokens::from_micros(a.as_micros().saturating_sub(b.as_micros()))
}

pub(crate) struct Posting<'a> {
    team: &'a mut Team,
    plan: &'a mut Plan,
    settings: &'a Settings,
    /// Beside each lot of the team: it is new or changed.
    touched: Vec<bool>,
    /// Lots that have something left, by their place in the draw order.
    live: Vec<usize>,
    at: Timestamp,
    /// The open transaction has a number, because it has a row.
    numbered: bool,
    /// The open transaction did something.
    active: bool,
    /// Any transaction did something.
    changed: bool,
}

impl<'a> Posting<'a> {
    pub(crate) fn new(team: &'a mut Team, plan: &'a mut Plan, settings: &'a Settings) -> Self {
        team.lots.sort_by(|a, b| draw_order(&settings.pool_order, a, b));
        let touched = vec![false; team.lots.len()];
        let mut posting = Self {
            team,
            plan,
            settings,
            touched,
            live: Vec::new(),
            at: Timestamp::MIN,
            numbered: false,
            active: false,
            changed: false,
        };
        posting.list_live();
        posting
    }

    fn list_live(&mut self) {
        let live = self.team.lots.iter().enumerate().filter(|(_, lot)| lot.remaining > MicroTokens::ZERO);
        self.live = live.map(|(index, _)| index).collect();
    }

    pub(crate) fn team(&self) -> &Team {
        self.team
    }

    /// Opens a transaction at `at`; instants never go back.
    pub(crate) fn begin(&mut self, at: Timestamp) {
        self.at = at;
        self.numbered = false;
        self.active = false;
    }

    /// Ends the transaction: the grace clock is set by where the balance ends, not by where it
    /// passed (D48).
    pub(crate) fn end(&mut self) {
        if !self.active {
            return;
        }
        self.changed = true;
        let available: i128 = (self.team.lots.iter().filter(|lot| lot.state_at(self.at) == LotState::Open))
            .fold(0, |sum, lot| sum.saturating_add(i128::from(lot.remaining.as_micros())));
        let balance = &mut self.team.balance;
        balance.posted_at = Some(self.at);
        if available < i128::from(balance.uncharged().as_micros()) {
            balance.negative_since.get_or_insert(self.at);
        } else {
            balance.negative_since = None;
        }
    }

    /// Hands over the rows of lots and balance.
    pub(crate) fn finish(self) {
        let changed = self.team.lots.iter().zip(&self.touched).filter(|(_, touched)| **touched);
        self.plan.lots.extend(changed.map(|(lot, _)| lot.clone()));
        if self.changed {
            self.plan.balances.push(self.team.balance.clone());
        }
    }

    /// Whether `amount` more of usage fits the team's sums (D53). The running debt is a part of
    /// everything used, so it fits too.
    pub(crate) fn can_consume(&self, amount: MicroTokens) -> bool {
        self.team.balance.consumed.checked_add(amount).is_some()
    }

    /// Records usage that costs nothing: no rows, but the transaction counts.
    pub(crate) fn record(&mut self) -> Charged {
        self.active = true;
        Charged { uncharged: MicroTokens::ZERO, first_seq: None }
    }

    /// Pays `amount` for usage (D41): lots valid at its window in draw order, open or closing; the
    /// rest becomes debt, and open lots pay debt at once.
    pub(crate) fn charge(&mut self, cause: Cause, amount: MicroTokens) -> Charged {
        self.active = true;
        let before = self.team.balance.version;
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
            let about =
                About { lot: Some(index), cause: Some(cause), debt: None, effective_at: cause.window };
            self.row(Kind::Charge, part, about);
        }
        if drained {
            self.list_live();
        }
        if left > MicroTokens::ZERO {
            let from = self.team.balance.debt_opened;
            let debt = Some(DebtInterval { from, to: plus(from, left) });
            let about = About { lot: None, cause: Some(cause), debt, effective_at: cause.window };
            self.row(Kind::Uncharged, left, about);
            self.net();
        }
        let first_seq = (self.team.balance.version > before).then(|| before.saturating_add(1));
        Charged { uncharged: left, first_seq }
    }

    /// Open lots pay debt, oldest first, lots in draw order, whatever the windows (D7, D42): one
    /// row for each lot, however many items it covers.
    pub(crate) fn net(&mut self) {
        let mut place = 0_usize;
        let mut drained = false;
        while self.team.balance.uncharged() > MicroTokens::ZERO
            && let Some(index) = self.live.get(place).copied()
            && let Some(lot) = self.team.lots.get(index)
        {
            place = place.saturating_add(1);
            if lot.state_at(self.at) != LotState::Open {
                continue;
            }
            let part = min(lot.remaining, self.team.balance.uncharged());
            drained |= part == lot.remaining;
            let from = self.team.balance.debt_paid;
            let debt = Some(DebtInterval { from, to: plus(from, part) });
            let about = About { lot: Some(index), cause: None, debt, effective_at: self.at };
            self.row(Kind::Netting, part, about);
        }
        if drained {
            self.list_live();
        }
    }

    /// Adds `lot`, whose `remaining` is nothing yet: the row fills it. The caller has checked that
    /// the sum of everything issued fits.
    pub(crate) fn add_lot(&mut self, lot: Lot, kind: Kind) {
        let pools = &self.settings.pool_order;
        let index = self.team.lots.partition_point(|other| draw_order(pools, other, &lot).is_lt());
        let (amount, effective_at) = (lot.granted, lot.purchased_at);
        self.team.lots.insert(index, lot);
        self.touched.insert(index, true);
        self.row(kind, amount, About { lot: Some(index), cause: None, debt: None, effective_at });
        self.list_live();
    }

    /// Closes every lot that `due` names: what is left of it is forfeited, effective at its expiry (D3).
    pub(crate) fn close(&mut self, due: impl Fn(&Lot) -> bool) {
        for index in 0..self.team.lots.len() {
            let Some(lot) = self.team.lots.get_mut(index) else { continue };
            if lot.closed_at.is_some() || !due(lot) {
                continue;
            }
            lot.closed_at = Some(self.at);
            let (rest, effective_at) = (lot.remaining, lot.expires_at);
            if let Some(touched) = self.touched.get_mut(index) {
                *touched = true;
            }
            self.active = true;
            if rest > MicroTokens::ZERO {
                self.row(
                    Kind::Expiry,
                    rest,
                    About { lot: Some(index), cause: None, debt: None, effective_at },
                );
            }
        }
        self.list_live();
    }

    /// Writes one row and applies it to the books. Nothing else changes an amount.
    fn row(&mut self, kind: Kind, amount: MicroTokens, about: About) {
        let (debit, credit) = kind.books();
        let balance = &mut self.team.balance;
        let mut lot = about.lot.and_then(|index| self.team.lots.get_mut(index));
        for (book, sign) in [(debit, minus as fn(_, _) -> _), (credit, plus as fn(_, _) -> _)] {
            match book {
                Book::Lot => balance.lot = sign(balance.lot, amount),
                // These two only ever give on one side and take on the other: both are kept as
                // growing totals, so that a position of the debt never moves.
                Book::Issued => balance.issued = plus(balance.issued, amount),
                Book::Uncharged if book == debit => balance.debt_opened = plus(balance.debt_opened, amount),
                Book::Uncharged => balance.debt_paid = plus(balance.debt_paid, amount),
                Book::Consumed => balance.consumed = sign(balance.consumed, amount),
                Book::Expired => balance.expired = sign(balance.expired, amount),
                Book::Held | Book::Moved | Book::Void => {}
            }
        }
        if let Some(lot) = lot.as_deref_mut() {
            match kind {
                Kind::Purchase | Kind::Grant => lot.remaining = plus(lot.remaining, amount),
                Kind::Charge | Kind::Netting => {
                    lot.remaining = minus(lot.remaining, amount);
                    lot.consumed = plus(lot.consumed, amount);
                }
                Kind::Expiry => {
                    lot.remaining = minus(lot.remaining, amount);
                    lot.expired = plus(lot.expired, amount);
                }
                Kind::Uncharged => {}
            }
        }
        balance.version = balance.version.saturating_add(1);
        if !self.numbered {
            balance.transactions = balance.transactions.saturating_add(1);
        }
        self.numbered = true;
        self.active = true;
        self.plan.journal.push(JournalRow {
            account_id: balance.account_id,
            team_id: balance.team_id,
            seq: balance.version,
            transaction: balance.transactions,
            kind,
            debit,
            credit,
            amount,
            lot_id: lot.as_ref().map(|lot| lot.lot_id),
            lot_state: lot.as_ref().map(|lot| lot.state_at(self.at)),
            charge_id: about.cause.map(|cause| cause.charge_id),
            price_id: about.cause.map(|cause| cause.price_id),
            debt: about.debt,
            window: about.cause.map(|cause| cause.window),
            posted_at: self.at,
            effective_at: about.effective_at,
        });
        if let Some(touched) = about.lot.and_then(|index| self.touched.get_mut(index)) {
            *touched = true;
        }
    }
}
