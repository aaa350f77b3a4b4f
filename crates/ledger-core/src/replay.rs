//! Replaying a team's journal through the allocator: the same rows must come out (`ledger verify`).
//!
//! What a journal cannot tell is taken from it: which lots were made, moved, adjusted or taken back,
//! which amounts were charged or reserved, what a correction reversed, when holds ended and when lots closed
//! (D55). Everything else is recomputed: which lot paid, in which order, which interval of the debt was opened
//! or paid, when a lot that started paid, and where what a correction gave back went. Usage that cost nothing leaves no row and changes no lot, so it is not
//! missed.

use std::time::Duration;

use drawdown_types::{HoldId, LotId, MicroTokens, Timestamp};

use crate::{
    hold::{Hold, HoldEnd},
    journal::{Book, JournalRow, Kind},
    lot::{Lot, LotState},
    plan::Plan,
    posting::{Cause, Posting, Returned},
    roll::bring_forward,
    settings::Settings,
    team::{Balance, Team},
};

/// Where a journal and the allocator part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A row is not what the allocator writes there.
    #[error("row {seq} is not what the allocator writes: expected {expected:?}")]
    Row {
        /// The row's sequence.
        seq: i64,
        /// What the allocator writes, if anything.
        expected: Option<Box<JournalRow>>,
    },
    /// The allocator writes a row that the journal has not.
    #[error("a row is missing at sequence {seq}: {expected:?}")]
    Missing {
        /// The sequence it would have.
        seq: i64,
        /// The row.
        expected: Box<JournalRow>,
    },
    /// A row names a lot that the team has not, or has already.
    #[error("row {seq} names lot {lot_id:?}, which is not there")]
    Lot {
        /// The row's sequence.
        seq: i64,
        /// The lot.
        lot_id: Option<LotId>,
    },
    /// A lot closed before it may.
    #[error("row {seq} closes lot {lot_id} before {closes_at}")]
    ClosedEarly {
        /// The row's sequence.
        seq: i64,
        /// The lot.
        lot_id: LotId,
        /// When it may close.
        closes_at: Timestamp,
    },
    /// The amounts of a lot are not those of its journal.
    #[error("lot {0} holds other amounts than its journal")]
    LotAmounts(LotId),
    /// The sums of the balance are not those of its journal.
    #[error("the balance differs from its journal, which gives {0:?}")]
    Balance(Box<Balance>),
}

/// Replays `journal`, the whole journal of a team by sequence, and compares rows, lots and balance
/// with what is `stored`, which must hold every lot of the team, closed ones too. Cost: that of
/// posting the journal once, in memory.
///
/// # Errors
/// The first [`Violation`].
pub fn replay(stored: &Team, journal: &[JournalRow], settings: &Settings) -> Result<(), Violation> {
    let nothing = Team::new(stored.balance.account_id, stored.balance.team_id);
    replay_from(nothing, stored, journal, settings).map(drop)
}

/// The same from a team as an earlier replay left it: `journal` is what was posted after that. What went before is
/// taken on trust. Gives the team as this replay leaves it, for the next one to go on from.
///
/// # Errors
/// The first [`Violation`].
pub fn replay_from(
    mut team: Team,
    stored: &Team,
    journal: &[JournalRow],
    settings: &Settings,
) -> Result<Team, Violation> {
    for rows in journal.chunk_by(|a, b| a.transaction == b.transaction) {
        transaction(&mut team, stored, rows, settings)?;
    }
    for lot in &stored.lots {
        let amounts = |lot: &Lot| {
            [lot.granted, lot.remaining, lot.held, lot.consumed, lot.expired, lot.void, lot.moved]
        };
        let replayed = team.lots.iter().find(|other| other.lot_id == lot.lot_id).map(amounts);
        if replayed != Some(amounts(lot)) {
            return Err(Violation::LotAmounts(lot.lot_id));
        }
    }
    // Usage that cost nothing moved the last instant, but no sum.
    team.balance.posted_at = stored.balance.posted_at;
    if team.balance != stored.balance {
        return Err(Violation::Balance(Box::new(team.balance)));
    }
    // What is settled or over can matter to no later row.
    let paid = team.balance.debt_paid;
    team.items.retain(|item| item.interval.to > paid);
    team.settled_ahead.retain(|settled| settled.to > paid);
    team.holds.retain(|hold| hold.ended.is_none());
    Ok(team)
}

/// The team as it was before the row `seq`, the first of a charge; of a charge that a correction made, as it was
/// before the correction.
///
/// # Errors
/// The first [`Violation`] before that row.
pub(crate) fn replay_before(
    stored: &Team,
    journal: &[JournalRow],
    seq: i64,
    settings: &Settings,
) -> Result<Team, Violation> {
    let mut team = Team::new(stored.balance.account_id, stored.balance.team_id);
    let before = journal.partition_point(|row| row.seq < seq);
    let (mut before, rest) = journal.split_at_checked(before).unwrap_or_default();
    let transaction = rest.first().map(|row| row.transaction);
    let charges = |row: &&JournalRow| row.credit == Book::Consumed || row.kind == Kind::Netting;
    let own = before.iter().rev().take_while(|row| Some(row.transaction) == transaction);
    // Charges of one transaction follow one another, so what stands before one of them is a transaction too.
    if !own.clone().all(|row| charges(&row)) {
        before = before.get(..before.len().saturating_sub(own.count())).unwrap_or_default();
    }
    for rows in before.chunk_by(|a, b| a.transaction == b.transaction) {
        self::transaction(&mut team, stored, rows, settings)?;
    }
    Ok(team)
}

fn transaction(
    team: &mut Team,
    stored: &Team,
    rows: &[JournalRow],
    settings: &Settings,
) -> Result<(), Violation> {
    let Some(first) = rows.first() else { return Ok(()) };
    let at = first.posted_at;
    let mut plan = Plan::default();
    let mut posting = Posting::new(team, &mut plan, settings);
    // What started before is in the journal already, so this must write nothing; closes are taken
    // from the journal.
    let just_before = at.checked_sub(Duration::from_micros(1)).unwrap_or(Timestamp::MIN);
    bring_forward(&mut posting, just_before, Timestamp::MIN);
    posting.begin(at);
    if first.kind == Kind::Expiry {
        check_closes(posting.team(), rows, at)?;
        posting.close(|lot| rows.iter().any(|row| row.lot_id == Some(lot.lot_id)));
    } else if first.kind != Kind::Release {
        // Lots that start now pay before the command does anything, but after what times out now (D40).
        posting.net();
    }
    posting.end();
    posting.begin(at);
    act(&mut posting, stored, rows, first)?;
    posting.end();
    posting.finish();
    compare(rows, &plan.journal)
}

/// What the command of a transaction did.
fn act(
    posting: &mut Posting<'_>,
    stored: &Team,
    rows: &[JournalRow],
    first: &JournalRow,
) -> Result<(), Violation> {
    if rows.iter().any(|row| matches!(row.kind, Kind::Void | Kind::VoidExpired | Kind::Chargeback)) {
        return take_back(posting, rows);
    }
    if rows.iter().any(|row| gives_back(posting, row)) {
        return correct(posting, rows);
    }
    match first.kind {
        Kind::Netting
        | Kind::Reversal
        | Kind::Cancellation
        | Kind::Expiry
        | Kind::Void
        | Kind::VoidExpired
        | Kind::Chargeback => {}
        Kind::Purchase | Kind::Grant | Kind::MoveIn => {
            let lot = blank(stored, posting.team(), first)?;
            posting.add_lot(lot, first.kind, first.amount);
            posting.net();
        }
        Kind::Import | Kind::PriorDebt => import(posting, stored, rows)?,
        Kind::Adjustment => {
            let place = place_of(posting, first)?;
            posting.change_lot(place, first.kind, first.amount, at_of(first));
            posting.net();
        }
        Kind::MoveOut => {
            let place = place_of(posting, first)?;
            let rest = posting.team().lots.get(place).map_or(MicroTokens::ZERO, |lot| lot.remaining);
            posting.change_lot(place, first.kind, rest, at_of(first));
            posting.send_away(place, first.team_id);
        }
        Kind::Hold => reserve(posting, rows, first)?,
        Kind::Charge | Kind::Capture | Kind::Uncharged | Kind::Release => {
            for (cause, hold_id, amount) in charges(rows) {
                posting.charge(cause, amount, hold_id);
            }
            end_holds(posting, rows);
        }
    }
    Ok(())
}

const fn at_of(row: &JournalRow) -> Timestamp {
    row.effective_at
}

fn place_of(posting: &Posting<'_>, row: &JournalRow) -> Result<usize, Violation> {
    let place = row.lot_id.and_then(|lot_id| posting.place_of(lot_id));
    place.ok_or(Violation::Lot { seq: row.seq, lot_id: row.lot_id })
}

/// Lots and debts of another platform are taken from the journal; what pays the debts is computed.
fn import(posting: &mut Posting<'_>, stored: &Team, rows: &[JournalRow]) -> Result<(), Violation> {
    for row in rows {
        match row.kind {
            Kind::Import => {
                let lot = blank(stored, posting.team(), row)?;
                posting.add_lot(lot, row.kind, row.amount);
            }
            Kind::PriorDebt => {
                posting.owe_prior(row.amount, row.window.unwrap_or(row.effective_at), row.effective_at);
            }
            _ => {}
        }
    }
    posting.net();
    Ok(())
}

/// Tokens set aside: how much is taken from the journal, of which lots is computed.
fn reserve(posting: &mut Posting<'_>, rows: &[JournalRow], first: &JournalRow) -> Result<(), Violation> {
    let (Some(hold_id), Some(window)) = (first.hold_id, first.window) else {
        return Err(Violation::Row { seq: first.seq, expected: None });
    };
    if posting.open_hold(hold_id).is_none() {
        posting.add_hold(Hold {
            hold_id,
            team_id: first.team_id,
            app_id: None,
            window,
            made_at: first.posted_at,
            // When it ends is taken from the journal.
            expires_at: Timestamp::MAX,
            parts: Vec::new(),
            ended: None,
        });
    }
    let amount = rows.iter().filter(|row| row.kind == Kind::Hold).map(|row| row.amount);
    posting.take(hold_id, amount.fold(MicroTokens::ZERO, |sum, part| sum.checked_add(part).unwrap_or(sum)));
    Ok(())
}

fn end_holds(posting: &mut Posting<'_>, rows: &[JournalRow]) {
    for row in rows.iter().filter(|row| row.kind == Kind::Release) {
        if let Some(hold_id) = row.hold_id.filter(|hold_id| posting.open_hold(*hold_id).is_some()) {
            posting.end_hold(hold_id, HoldEnd::Released);
        }
    }
}

/// Amounts that were taken back are taken from the journal; what pays the debts they leave is computed.
fn take_back(posting: &mut Posting<'_>, rows: &[JournalRow]) -> Result<(), Violation> {
    let mut pulled = false;
    for row in rows {
        let place = place_of(posting, row)?;
        if row.lot_state == Some(LotState::Closed) {
            // An empty lot closes without a row.
            posting.close_void(place);
        }
        match row.kind {
            Kind::Release if !pulled => {
                posting.pull_out_of_holds(place);
                pulled = true;
            }
            Kind::Void | Kind::VoidExpired => posting.change_lot(place, row.kind, row.amount, at_of(row)),
            Kind::Chargeback => {
                let cause = Cause {
                    charge_id: row.charge_id,
                    price_id: row.price_id,
                    window: row.window.unwrap_or(row.effective_at),
                };
                posting.charge_back(place, cause, row.amount, row.reverses.unwrap_or_default());
            }
            Kind::Purchase
            | Kind::Grant
            | Kind::Adjustment
            | Kind::Import
            | Kind::PriorDebt
            | Kind::MoveOut
            | Kind::MoveIn
            | Kind::Hold
            | Kind::Release
            | Kind::Charge
            | Kind::Capture
            | Kind::Uncharged
            | Kind::Netting
            | Kind::Expiry
            | Kind::Reversal
            | Kind::Cancellation => {}
        }
    }
    posting.net();
    Ok(())
}

/// A row by which a correction gives back, here or from another team: the lot lives here then.
fn gives_back(posting: &Posting<'_>, row: &JournalRow) -> bool {
    let lives = |lot: &Lot| Some(lot.lot_id) == row.lot_id && lot.is_here();
    match row.kind {
        Kind::Reversal | Kind::Cancellation => true,
        Kind::MoveIn => posting.team().lots.iter().any(lives),
        _ => false,
    }
}

/// What was reversed is taken from the journal; who pays for what is charged again, and where the rest goes,
/// is computed.
fn correct(posting: &mut Posting<'_>, rows: &[JournalRow]) -> Result<(), Violation> {
    let mut returned = Returned::default();
    for row in rows {
        if row.lot_state == Some(LotState::Closed) {
            // An empty lot closes without a row.
            posting.close_void(place_of(posting, row)?);
        }
        let cause = Cause {
            charge_id: row.charge_id,
            price_id: row.price_id,
            window: row.window.unwrap_or(row.effective_at),
        };
        match (row.kind, row.debt) {
            (Kind::Cancellation, Some(debt)) => posting.cancel(cause, debt),
            (Kind::Reversal, debt) => {
                let part = (row.amount, row.reverses.unwrap_or_default());
                posting.give_back(&mut returned, place_of(posting, row)?, cause, part, debt);
            }
            (Kind::MoveIn, _) => posting.arrive(&mut returned, place_of(posting, row)?, row.amount),
            _ => {}
        }
    }
    for (cause, _, amount) in charges(rows) {
        posting.charge_again(cause, amount, &mut returned);
    }
    posting.settle_returned(returned);
    Ok(())
}

/// The lot that `row` makes or brings back, as it was before the row filled it.
fn blank(stored: &Team, replayed: &Team, row: &JournalRow) -> Result<Lot, Violation> {
    let named = |lot: &&Lot| Some(lot.lot_id) == row.lot_id;
    let unknown = || Violation::Lot { seq: row.seq, lot_id: row.lot_id };
    let known = replayed.lots.iter().find(named);
    let back = known.is_some_and(|lot| row.kind == Kind::MoveIn && lot.moved_to.is_some());
    if known.is_some() && !back {
        return Err(unknown());
    }
    let lot = stored.lots.iter().find(named).ok_or_else(unknown)?;
    Ok(lot.arriving(row.team_id, row.window.unwrap_or(lot.valid_from)))
}

/// The charges of a transaction in posting order, each with all that its rows add up to and the hold
/// that paid for it, if one did. A row without its window cannot be replayed; it shows as a difference.
fn charges(rows: &[JournalRow]) -> Vec<(Cause, Option<HoldId>, MicroTokens)> {
    let mut charges: Vec<(Cause, Option<HoldId>, MicroTokens)> = Vec::new();
    for row in rows.iter().filter(|row| row.credit == Book::Consumed) {
        let Some(window) = row.window else { continue };
        let cause = Cause { charge_id: row.charge_id, price_id: row.price_id, window };
        match charges.last_mut() {
            Some((last, hold_id, amount)) if last.charge_id == row.charge_id => {
                *hold_id = hold_id.or(row.hold_id);
                *amount = amount.checked_add(row.amount).unwrap_or(*amount);
            }
            _ => charges.push((cause, row.hold_id, row.amount)),
        }
    }
    charges
}

fn check_closes(team: &Team, rows: &[JournalRow], at: Timestamp) -> Result<(), Violation> {
    for row in rows {
        let lot = team.lots.iter().find(|lot| Some(lot.lot_id) == row.lot_id);
        let lot = lot.ok_or(Violation::Lot { seq: row.seq, lot_id: row.lot_id })?;
        if lot.closes_at > at {
            let (lot_id, closes_at) = (lot.lot_id, lot.closes_at);
            return Err(Violation::ClosedEarly { seq: row.seq, lot_id, closes_at });
        }
    }
    Ok(())
}

fn compare(rows: &[JournalRow], replayed: &[JournalRow]) -> Result<(), Violation> {
    for (index, row) in rows.iter().enumerate() {
        let expected = replayed.get(index);
        if expected != Some(row) {
            return Err(Violation::Row { seq: row.seq, expected: expected.cloned().map(Box::new) });
        }
    }
    match replayed.get(rows.len()) {
        Some(extra) => Err(Violation::Missing { seq: extra.seq, expected: Box::new(extra.clone()) }),
        None => Ok(()),
    }
}
