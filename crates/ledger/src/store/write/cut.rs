//! The charges and journal rows of a transaction, cut into statements.

use drawdown_ledger_core::{Book, JournalRow, Kind, LotState, Plan};
use drawdown_types::{ChargeId, MicroTokens, TeamId};
use rustc_hash::FxHashMap;

use super::{
    ChargeRow, PlanRows, Revision, Statement,
    statement::{self, Ending},
};
use crate::error::Error;

/// From so many charges on they are written apart from what they change. Below, one more round trip costs more than what
/// is done while it lasts.
const APART_FROM: usize = 512;

/// A charge as it is stored.
pub(super) struct Stored<'a> {
    pub(super) row: &'a ChargeRow<'a>,
    /// Its place in the journal, which never goes back in posting order: its first row or, where it moved nothing, one
    /// before it.
    pub(super) place: i64,
    /// Where one lot paid all of it at once: the journal row that it is itself.
    pub(super) own: Option<&'a JournalRow>,
}

/// What one transaction writes of charges and journal.
pub(crate) struct Cut<'a> {
    batch: (i32, i64),
    charges: Vec<Stored<'a>>,
    /// Rows that no charge is.
    journal: Vec<&'a JournalRow>,
    /// Charges of a statement.
    chunk: usize,
    /// Statements that are sent before the last one.
    before: usize,
}

// === impl Cut ===

impl<'a> Cut<'a> {
    /// Charges of a batch with the journal of their plan; where each team's journal ends afterwards; most charges of one
    /// statement.
    pub(crate) fn new(
        batch: (i32, i64),
        rows: &'a [ChargeRow<'a>],
        plan: &'a Plan,
        ends: impl IntoIterator<Item = (TeamId, i64)>,
        sub_batch: usize,
    ) -> Self {
        let (charges, journal) = stored(rows, plan, ends);
        let chunk = sub_batch.max(1);
        let before = if charges.len() < APART_FROM.min(chunk) { 0 } else { charges.len().div_ceil(chunk) };
        Self { batch, charges, journal, chunk, before }
    }

    /// How many statements go before the last one.
    pub(crate) const fn before(&self) -> usize {
        self.before
    }

    /// One of the statements that go before the last one, counted from 0: a sub-batch of charges.
    pub(crate) fn statement(&self, number: usize, revision: Revision) -> Statement {
        let charges = self.charges.chunks(self.chunk).nth(number).unwrap_or_default();
        statement::of(self.batch, charges, self.journal(number), &Ending::none(), revision)
    }

    /// The last one: everything that is left.
    ///
    /// # Errors
    /// Where a notice can not be told.
    pub(crate) fn last(&self, rows: &PlanRows<'_>, revision: Revision) -> Result<Statement, Error> {
        let charges = if self.before == 0 { &self.charges[..] } else { &[] };
        let ending = Ending::of(rows)?;
        Ok(statement::of(self.batch, charges, self.journal(self.before), &ending, revision))
    }

    /// Every statement bears its share of the journal, which has few rows a charge.
    fn journal(&self, number: usize) -> &[&'a JournalRow] {
        let share = self.journal.len().div_ceil(self.before.saturating_add(1)).max(1);
        self.journal.chunks(share).nth(number).unwrap_or_default()
    }
}

/// Charges as they are stored, and the journal rows that none of them is (`ledger.full_journal`).
fn stored<'a>(
    rows: &'a [ChargeRow<'a>],
    plan: &'a Plan,
    ends: impl IntoIterator<Item = (TeamId, i64)>,
) -> (Vec<Stored<'a>>, Vec<&'a JournalRow>) {
    let mut last: FxHashMap<TeamId, i64> = ends.into_iter().collect();
    for row in plan.journal.iter().rev() {
        last.insert(row.team_id, row.seq.saturating_sub(1));
    }
    let charges = rows.iter().map(|row| {
        let place = last.entry(row.charge.team_id).or_default();
        *place = row.charge.journal_seq.unwrap_or(*place);
        Stored { row, place: *place, own: None }
    });
    let mut charges: Vec<_> = charges.collect();
    let by_id: FxHashMap<ChargeId, usize> =
        charges.iter().enumerate().map(|(index, stored)| (stored.row.charge.charge_id, index)).collect();
    let mut others = Vec::new();
    for row in &plan.journal {
        let index = row.charge_id.and_then(|charge| by_id.get(&charge));
        match index.and_then(|index| charges.get_mut(*index)) {
            Some(stored) if is_all_of(row, stored.row) => stored.own = Some(row),
            _ => others.push(row),
        }
    }
    (charges, others)
}

/// Nothing of the row would be lost if only the charge were written: each field is compared, so a row that says anything
/// else stays a row.
fn is_all_of(row: &JournalRow, ChargeRow { charge, account_id, taken_back, .. }: &ChargeRow<'_>) -> bool {
    let JournalRow {
        account_id: account,
        team_id,
        seq,
        transaction: _,
        kind,
        debit,
        credit,
        amount,
        lot_id,
        lot_state,
        charge_id: _,
        price_id,
        hold_id,
        reverses,
        debt,
        window,
        posted_at,
        effective_at,
    } = row;
    !taken_back
        && (account, *team_id) == (account_id, charge.team_id)
        && (*kind, *debit, *credit) == (Kind::Charge, Book::Lot, Book::Consumed)
        && charge.journal_seq == Some(*seq)
        && *amount == charge.amount
        && charge.uncharged == MicroTokens::ZERO
        && lot_id.is_some()
        && matches!(lot_state, Some(LotState::Open | LotState::Closing))
        && price_id.is_some()
        && *price_id == charge.rated.price_id()
        && hold_id.is_none()
        && reverses.is_none()
        && debt.is_none()
        && *window == Some(charge.window)
        && *effective_at == charge.window
        && *posted_at == charge.posted_at
}
