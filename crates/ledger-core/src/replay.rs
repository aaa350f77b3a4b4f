//! Replaying a team's journal through the allocator: the same rows must come out (`ledger verify`).
//!
//! What a journal cannot tell is taken from it: which lots were made, which amounts were charged,
//! when lots closed (D55). Everything else is recomputed: which lot paid, in which order, which
//! interval of the debt was opened or paid, and when a lot that started paid. Usage that cost
//! nothing leaves no row and changes no lot, so it is not missed.

use std::time::Duration;

use drawdown_types::{ChargeId, LotId, MicroTokens, Timestamp};

use crate::{
    journal::{JournalRow, Kind},
    lot::Lot,
    plan::Plan,
    posting::{Cause, Posting},
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
    let mut team = Team::new(stored.balance.account_id, stored.balance.team_id);
    for rows in journal.chunk_by(|a, b| a.transaction == b.transaction) {
        transaction(&mut team, stored, rows, settings)?;
    }
    for lot in &stored.lots {
        let amounts = |lot: &Lot| (lot.granted, lot.remaining, lot.consumed, lot.expired);
        let replayed = team.lots.iter().find(|other| other.lot_id == lot.lot_id).map(amounts);
        if replayed != Some(amounts(lot)) {
            return Err(Violation::LotAmounts(lot.lot_id));
        }
    }
    // Usage that cost nothing moved the last instant, but no sum.
    team.balance.posted_at = stored.balance.posted_at;
    if team.balance == stored.balance { Ok(()) } else { Err(Violation::Balance(Box::new(team.balance))) }
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
    } else {
        // Lots that start now pay before the command does anything (D40).
        posting.net();
    }
    posting.end();
    posting.begin(at);
    match first.kind {
        Kind::Netting | Kind::Expiry => {}
        Kind::Purchase | Kind::Grant => {
            posting.add_lot(blank(stored, posting.team(), first)?, first.kind);
            posting.net();
        }
        Kind::Charge | Kind::Uncharged => {
            for (cause, amount) in charges(rows) {
                posting.charge(cause, amount);
            }
        }
    }
    posting.end();
    posting.finish();
    compare(rows, &plan.journal)
}

/// The lot that `row` makes, as it was before the row filled it.
fn blank(stored: &Team, replayed: &Team, row: &JournalRow) -> Result<Lot, Violation> {
    let named = |lot: &&Lot| Some(lot.lot_id) == row.lot_id;
    let unknown = || Violation::Lot { seq: row.seq, lot_id: row.lot_id };
    if replayed.lots.iter().any(|lot| named(&lot)) {
        return Err(unknown());
    }
    let lot = stored.lots.iter().find(named).ok_or_else(unknown)?;
    let nothing = MicroTokens::ZERO;
    Ok(Lot { remaining: nothing, consumed: nothing, expired: nothing, closed_at: None, ..lot.clone() })
}

/// The charges of a transaction in posting order, each with all that its rows add up to. A row
/// without its charge or price cannot be replayed; it shows as a difference.
fn charges(rows: &[JournalRow]) -> Vec<(Cause, MicroTokens)> {
    let mut charges: Vec<(Cause, MicroTokens)> = Vec::new();
    let cause = |row: &JournalRow| -> Option<(ChargeId, Cause)> {
        let (charge_id, price_id, window) = (row.charge_id?, row.price_id?, row.window?);
        Some((charge_id, Cause { charge_id, price_id, window }))
    };
    for row in rows {
        let Some((charge_id, cause)) = cause(row) else { continue };
        match charges.last_mut() {
            Some((last, amount)) if last.charge_id == charge_id => {
                *amount = amount.checked_add(row.amount).unwrap_or(*amount);
            }
            _ => charges.push((cause, row.amount)),
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
