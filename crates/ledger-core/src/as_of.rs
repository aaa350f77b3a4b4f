//! What the books said at an earlier instant, and of that what had taken effect by an instant of usage.
//!
//! Nothing is computed again: the team as it is now, rolled forward, less every row that was recorded later or
//! takes effect later. The rows that a reader's rolling forward adds bear their own due instants (D40), so they are
//! told apart like any other, and the answer does not depend on when a job wrote them down.
//!
//! An answer is final once nothing can be recorded before its instant any more. What was recorded at an instant is
//! everything posted at it or before. What took effect by an instant is every row of the windows that have begun by
//! then: a window is never cut (D51). So a sum of rows may be below zero where one takes effect before another that
//! it followed: a correction and what it corrects, an expiry and what a hold gave back after it.

use std::collections::HashMap;

use drawdown_types::{LotId, MicroTokens, Timestamp};

use crate::{
    journal::Kind,
    lot::{Lot, LotState},
    roll::roll_forward,
    settings::Settings,
    team::{Balance, BalanceView, LotView, Team},
};

/// The instants of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsOf {
    /// Only what was recorded by then.
    pub recorded: Timestamp,
    /// Of that, only what took effect by then; all of it where absent.
    pub event: Option<Timestamp>,
}

/// Rows of one kind and one lot, or no lot, added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowSum {
    /// The lot.
    pub lot_id: Option<LotId>,
    /// The kind.
    pub kind: Kind,
    /// Σ amounts in micro-tokens.
    pub micros: i128,
    /// How many of them were recorded later than asked for.
    pub recorded_later: i64,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BooksAsOf {
    /// The balance. Its grace clock and its instants are not known for the past and are left out; its version counts
    /// every row that was recorded by then.
    pub balance: BalanceView,
    /// Every lot that had come by then, in any order. An empty one that ever left for another team counts as moved.
    pub lots: Vec<LotView>,
    /// Something is due by the instant of the record that nobody has posted yet: the answer may change.
    pub is_pending: bool,
}

impl AsOf {
    /// Rows that take effect at or after this instant are left out: the end of the window that holds `event`.
    #[must_use]
    pub fn effect_limit(&self, settings: &Settings) -> Option<Timestamp> {
        let size = settings.window_size;
        let end = |event| size.floor(event).checked_add(size.as_duration());
        self.event.map(|event| end(event).unwrap_or(Timestamp::MAX))
    }

    /// Whether a row counts.
    fn holds(&self, posted_at: Timestamp, effective_at: Timestamp, limit: Option<Timestamp>) -> bool {
        posted_at <= self.recorded && limit.is_none_or(|limit| effective_at < limit)
    }
}

/// The books of `team`, which holds all its lots, as of `asked`. `undone` are its journal rows that were recorded
/// after [`AsOf::recorded`] or take effect at or after [`AsOf::effect_limit`]. The reader's instant is `now`.
#[must_use]
pub fn books_as_of(
    team: &Team,
    undone: &[RowSum],
    asked: AsOf,
    now: Timestamp,
    settled_until: Timestamp,
    settings: &Settings,
) -> BooksAsOf {
    let limit = asked.effect_limit(settings);
    let due = |lot: &Lot| lot.is_live() && lot.closes_at <= asked.recorded;
    let over = team.holds.iter().any(|hold| hold.ended.is_none() && hold.expires_at <= asked.recorded);
    let mut rolled = [team.clone()];
    let plan = roll_forward(&mut rolled, now, settled_until, settings);
    let [mut rolled] = rolled;
    let written = plan.journal.iter().any(|row| row.posted_at <= asked.recorded);
    let is_pending = team.lots.iter().any(due) || over || written;
    let not_yet = plan.journal.iter().filter(|row| !asked.holds(row.posted_at, row.effective_at, limit));
    let not_yet = not_yet.map(|row| RowSum {
        lot_id: row.lot_id,
        kind: row.kind,
        micros: row.amount.as_micros().into(),
        recorded_later: i64::from(row.posted_at > asked.recorded),
    });
    let places: HashMap<LotId, usize> =
        rolled.lots.iter().enumerate().map(|(place, lot)| (lot.lot_id, place)).collect();
    let mut later = 0_i64;
    let mut uncharged = i128::from(rolled.balance.uncharged().as_micros());
    for sum in undone.iter().copied().chain(not_yet) {
        later = later.saturating_add(sum.recorded_later);
        let place = sum.lot_id.and_then(|lot_id| places.get(&lot_id));
        if let Some(lot) = place.and_then(|place| rolled.lots.get_mut(*place)) {
            undo_in_lot(lot, sum.kind, sum.micros);
        }
        undo_in_balance(&mut rolled.balance, sum.kind, sum.micros);
        uncharged = uncharged.saturating_sub(owed(sum.kind, sum.micros));
    }
    let at = asked.event.unwrap_or(asked.recorded);
    let had_come = |lot: &Lot| lot.granted != MicroTokens::ZERO;
    let lots: Vec<_> =
        rolled.lots.iter().filter(|lot| had_come(lot)).map(|lot| view(lot, asked, at)).collect();
    let version = rolled.balance.version.saturating_sub(later);
    BooksAsOf { balance: balance(rolled.balance, &lots, at, micros(uncharged), version), lots, is_pending }
}

fn micros(sum: i128) -> MicroTokens {
    let bound = if sum < 0 { i64::MIN } else { i64::MAX };
    MicroTokens::from_micros(i64::try_from(sum).unwrap_or(bound))
}

fn less(amount: &mut MicroTokens, by: i128) {
    *amount = micros(i128::from(amount.as_micros()).saturating_sub(by));
}

fn more(amount: &mut MicroTokens, by: i128) {
    less(amount, by.saturating_neg());
}

/// Takes back what rows of `kind` did to their lot.
fn undo_in_lot(lot: &mut Lot, kind: Kind, sum: i128) {
    let (taken, given) = match kind {
        Kind::Purchase | Kind::Grant | Kind::Adjustment | Kind::Import | Kind::MoveIn => {
            less(&mut lot.granted, sum);
            return less(&mut lot.remaining, sum);
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
    more(taken, sum);
    less(given, sum);
}

/// Takes back what rows of `kind` did to the books of the team, but for what is owed.
fn undo_in_balance(balance: &mut Balance, kind: Kind, sum: i128) {
    use crate::journal::Book;
    let (debit, credit) = kind.books();
    match debit {
        Book::Issued => less(&mut balance.issued, sum),
        Book::Moved => less(&mut balance.moved_in, sum),
        Book::Uncharged => {}
        Book::Lot => more(&mut balance.lot, sum),
        Book::Held => more(&mut balance.held, sum),
        Book::Consumed => more(&mut balance.consumed, sum),
        Book::Expired => more(&mut balance.expired, sum),
        Book::Void => more(&mut balance.void, sum),
    }
    match credit {
        Book::Issued | Book::Uncharged => {}
        Book::Moved => less(&mut balance.moved_out, sum),
        Book::Lot => less(&mut balance.lot, sum),
        Book::Held => less(&mut balance.held, sum),
        Book::Consumed => less(&mut balance.consumed, sum),
        Book::Expired => less(&mut balance.expired, sum),
        Book::Void => less(&mut balance.void, sum),
    }
}

/// What rows of `kind` add to what is owed.
fn owed(kind: Kind, sum: i128) -> i128 {
    use crate::journal::Book;
    match kind.books() {
        (Book::Uncharged, _) => sum,
        (_, Book::Uncharged) => sum.saturating_neg(),
        _ => 0,
    }
}

/// The lot at `at`, by its amounts and dates. Its instant of closing counts if it was recorded.
fn view(lot: &Lot, asked: AsOf, at: Timestamp) -> LotView {
    let closed = lot.closed_at.filter(|closed| *closed <= asked.recorded);
    // A close takes effect at the expiry, or, of a lot that was taken back, when it was.
    let closed = closed.filter(|closed| at >= lot.expires_at.min(*closed));
    let is_empty = lot.remaining == MicroTokens::ZERO && lot.held == MicroTokens::ZERO;
    let dated = Lot { moved_to: None, closed_at: closed, ..lot.clone() };
    let state = if is_empty && lot.moved > MicroTokens::ZERO { LotState::Moved } else { dated.state_at(at) };
    LotView { lot: dated, state }
}

fn balance(
    row: Balance,
    lots: &[LotView],
    at: Timestamp,
    uncharged: MicroTokens,
    version: i64,
) -> BalanceView {
    let sum = |state, part: fn(&Lot) -> MicroTokens| {
        let of = lots
            .iter()
            .filter(|view| view.state == state)
            .map(|view| i128::from(part(&view.lot).as_micros()));
        micros(of.fold(0, i128::saturating_add))
    };
    let available = sum(LotState::Open, |lot| lot.remaining);
    let scheduled = sum(LotState::Scheduled, |lot| lot.remaining);
    // All that is left in the book: what is closed holds nothing, but where rows take effect out of their order.
    let closing = i128::from(row.lot.as_micros())
        .saturating_sub(available.as_micros().into())
        .saturating_sub(scheduled.as_micros().into());
    BalanceView {
        at,
        balance: micros(i128::from(available.as_micros()).saturating_sub(uncharged.as_micros().into())),
        available,
        scheduled,
        closing: micros(closing),
        held: row.held,
        uncharged,
        granted_of_open: sum(LotState::Open, |lot| lot.granted),
        row: Balance { version, posted_at: None, negative_since: None, ..row },
    }
}
