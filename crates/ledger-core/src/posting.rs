//! The one place where money moves.
//!
//! [`Posting`] works on one team: transactions are opened and ended one after the other, and inside
//! them the acts (paying in `pay`, lots in `lots`, holds in `holds`, what comes back in `back`) do nothing but write rows; `row`
//! alone changes a lot or a balance, so the books are right whatever the callers do. The lots of the
//! team stay sorted in draw order (D4) all along.
//!
//! Two things always hold when a transaction ends: no open lot has anything left while the team
//! owes what it may pay (D42, D57), and a row's interval of the running debt lies at its end (opened) or at its first
//! unsettled part (paid), so that the debts are paid in posting order (D7). Ahead of their turn are settled
//! only what a lot pays that is closing, or leaves older debts, of usage inside its validity, and usage that is taken back.

mod back;
mod holds;
mod lots;
mod pay;

use drawdown_types::{ChargeId, HoldId, MicroTokens, PriceId, Timestamp};

use crate::{
    journal::{Book, DebtInterval, JournalRow, Kind},
    lot::{Lot, draw_order},
    plan::Plan,
    settings::Settings,
    team::{Balance, DebtItem, Team},
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) charge_id: Option<ChargeId>,
    pub(crate) price_id: Option<PriceId>,
    pub(crate) window: Timestamp,
}

/// What a row is about, beside its amount.
#[derive(Clone, Copy, Debug)]
struct About {
    lot: Option<usize>,
    cause: Option<Cause>,
    hold: Option<HoldId>,
    reverses: Option<i64>,
    debt: Option<DebtInterval>,
    window: Option<Timestamp>,
    effective_at: Timestamp,
}

impl About {
    const fn lot(index: usize, effective_at: Timestamp) -> Self {
        Self { lot: Some(index), ..Self::nothing(effective_at) }
    }

    const fn nothing(effective_at: Timestamp) -> Self {
        Self { lot: None, cause: None, hold: None, reverses: None, debt: None, window: None, effective_at }
    }
}

/// Sums that were checked before any row was written, or parts that are at most the whole: they
/// always fit, saturation is never reached.
fn plus(a: MicroTokens, b: MicroTokens) -> MicroTokens {
    MicroTokens::from_micros(a.as_micros().saturating_add(b.as_micros()))
}

fn minus(a: MicroTokens, b: MicroTokens) -> MicroTokens {
    MicroTokens::from_micros(a.as_micros().saturating_sub(b.as_micros()))
}

pub(crate) use back::Returned;

pub(crate) struct Posting<'a> {
    team: &'a mut Team,
    plan: &'a mut Plan,
    settings: &'a Settings,
    /// Beside each lot of the team: it is new or changed.
    touched: Vec<bool>,
    /// Lots that have something left, by their place in the draw order.
    live: Vec<usize>,
    /// Beside each hold of the team: it is new or changed.
    touched_holds: Vec<bool>,
    at: Timestamp,
    /// Since when the team is below zero, where that is known better than by the open transaction.
    since: Option<Timestamp>,
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
        let touched_holds = vec![false; team.holds.len()];
        let mut posting = Self {
            team,
            plan,
            settings,
            touched,
            live: Vec::new(),
            touched_holds,
            at: Timestamp::MIN,
            since: None,
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

    /// The rows of the plan so far.
    pub(crate) fn written(&self) -> &[JournalRow] {
        &self.plan.journal
    }

    pub(crate) const fn at(&self) -> Timestamp {
        self.at
    }

    /// Opens a transaction at `at`; instants never go back.
    pub(crate) fn begin(&mut self, at: Timestamp) {
        self.at = at;
        self.since = None;
        self.numbered = false;
        self.active = false;
    }

    /// Ends the transaction: the grace clock is set by where the balance ends, not by where it
    /// passed (D48). It is below zero where anything is owed: what is owed, no open lot may pay.
    pub(crate) fn end(&mut self) {
        if !self.active {
            return;
        }
        self.changed = true;
        let since = self.since.unwrap_or(self.at);
        let balance = &mut self.team.balance;
        balance.posted_at = Some(self.at);
        if balance.uncharged() > MicroTokens::ZERO {
            balance.negative_since.get_or_insert(since);
        } else {
            balance.negative_since = None;
        }
    }

    /// Hands over the rows of lots and balance.
    pub(crate) fn finish(self) {
        let changed = self.team.lots.iter().zip(&self.touched).filter(|(_, touched)| **touched);
        self.plan.lots.extend(changed.map(|(lot, _)| lot.clone()));
        let changed = self.team.holds.iter().zip(&self.touched_holds).filter(|(_, touched)| **touched);
        self.plan.holds.extend(changed.map(|(hold, _)| hold.clone()));
        if self.changed {
            self.plan.balances.push(self.team.balance.clone());
        }
    }

    /// Writes one row and applies it to the books. Nothing else changes an amount.
    fn row(&mut self, kind: Kind, amount: MicroTokens, about: About) {
        let (debit, credit) = kind.books();
        let mut lot = about.lot.and_then(|index| self.team.lots.get_mut(index));
        if let Some(lot) = lot.as_deref_mut() {
            move_in_lot(lot, kind, amount);
        }
        let (lot_id, lot_state) = (lot.as_ref().map(|lot| lot.lot_id), lot.map(|lot| lot.state_at(self.at)));
        move_in_balance(&mut self.team.balance, kind, amount);
        if credit == Book::Uncharged
            && let Some(debt) = about.debt
        {
            self.settle(debt);
        }
        if debit == Book::Uncharged
            && let Some((interval, cause)) = about.debt.zip(about.cause)
        {
            self.team.items.push(DebtItem { interval, window: cause.window });
        }
        let balance = &mut self.team.balance;
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
            lot_id,
            lot_state,
            charge_id: about.cause.and_then(|cause| cause.charge_id),
            price_id: about.cause.and_then(|cause| cause.price_id),
            hold_id: about.hold,
            reverses: about.reverses,
            debt: about.debt,
            window: about.window.or_else(|| about.cause.map(|cause| cause.window)),
            posted_at: self.at,
            effective_at: about.effective_at,
        });
        if let Some(touched) = about.lot.and_then(|index| self.touched.get_mut(index)) {
            *touched = true;
        }
    }

    /// Counts an interval of the running debt as settled: at the first unsettled position it moves that
    /// position on, over everything that was settled ahead; elsewhere it is settled ahead itself.
    fn settle(&mut self, debt: DebtInterval) {
        let Team { balance, settled_ahead, .. } = &mut *self.team;
        let place = settled_ahead.partition_point(|ahead| ahead.from < debt.from);
        settled_ahead.insert(place, debt);
        balance.debt_ahead = plus(balance.debt_ahead, minus(debt.to, debt.from));
        while let Some(ahead) = settled_ahead.first().copied()
            && ahead.from <= balance.debt_paid
        {
            settled_ahead.remove(0);
            if ahead.to > balance.debt_paid {
                balance.debt_ahead = minus(balance.debt_ahead, minus(ahead.to, balance.debt_paid));
                balance.debt_paid = ahead.to;
            }
        }
    }
}

/// What a row of `kind` does to its lot.
fn move_in_lot(lot: &mut Lot, kind: Kind, amount: MicroTokens) {
    let (taken, given) = match kind {
        Kind::Purchase | Kind::Grant | Kind::Adjustment | Kind::Import | Kind::MoveIn => {
            lot.granted = plus(lot.granted, amount);
            lot.remaining = plus(lot.remaining, amount);
            return;
        }
        Kind::Uncharged | Kind::PriorDebt | Kind::Cancellation => return,
        Kind::MoveOut => (&mut lot.remaining, &mut lot.moved),
        Kind::Void => (&mut lot.remaining, &mut lot.void),
        Kind::VoidExpired => (&mut lot.expired, &mut lot.void),
        Kind::Chargeback => (&mut lot.consumed, &mut lot.void),
        Kind::Hold => (&mut lot.remaining, &mut lot.held),
        Kind::Release => (&mut lot.held, &mut lot.remaining),
        Kind::Charge | Kind::Netting => (&mut lot.remaining, &mut lot.consumed),
        Kind::Capture => (&mut lot.held, &mut lot.consumed),
        Kind::Expiry => (&mut lot.remaining, &mut lot.expired),
        Kind::Reversal => (&mut lot.consumed, &mut lot.remaining),
    };
    *taken = minus(*taken, amount);
    *given = plus(*given, amount);
}

/// What a row of `kind` does to the books of its team. Issued, moved and uncharged are kept as totals
/// that only grow, one for each side, so that a position of the debt never moves.
fn move_in_balance(balance: &mut Balance, kind: Kind, amount: MicroTokens) {
    let (debit, credit) = kind.books();
    match debit {
        Book::Issued => balance.issued = plus(balance.issued, amount),
        Book::Moved => balance.moved_in = plus(balance.moved_in, amount),
        Book::Uncharged => balance.debt_opened = plus(balance.debt_opened, amount),
        Book::Lot => balance.lot = minus(balance.lot, amount),
        Book::Held => balance.held = minus(balance.held, amount),
        Book::Consumed => balance.consumed = minus(balance.consumed, amount),
        Book::Expired => balance.expired = minus(balance.expired, amount),
        Book::Void => balance.void = minus(balance.void, amount),
    }
    match credit {
        // What is settled of the debt is counted by its interval.
        Book::Issued | Book::Uncharged => {}
        Book::Moved => balance.moved_out = plus(balance.moved_out, amount),
        Book::Lot => balance.lot = plus(balance.lot, amount),
        Book::Held => balance.held = plus(balance.held, amount),
        Book::Consumed => balance.consumed = plus(balance.consumed, amount),
        Book::Expired => balance.expired = plus(balance.expired, amount),
        Book::Void => balance.void = plus(balance.void, amount),
    }
}
