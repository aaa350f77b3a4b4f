//! Writes what the core planned: one statement of data-modifying CTEs over arrays, whatever the number
//! of rows. A posting with more charges than a sub-batch writes the rest by further statements of the
//! same transaction; the balances, lots and states go with the last.
//!
//! A charge that one lot paid whole is written once: it is its journal row too (`ledger.full_journal`).

use std::collections::HashMap;

use drawdown_ledger_core::{
    Balance, Book, BudgetMonth, Charge, JournalRow, Kind, Lot, LotState, Notice, Plan, Rated, Watch,
};
use drawdown_types::{
    AccountId, AppId, ChargeId, HoldId, LotId, MicroTokens, NoticeId, OrderId, TeamId, Timestamp,
};
use rustc_hash::{FxHashMap, FxHashSet};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Instant, instants, teams::Revision};
use crate::error::Error;

/// A charge with what the plan does not repeat from its line.
#[derive(Clone, Copy, Debug)]
pub struct ChargeRow<'a> {
    /// The charge; of a correction, what is taken back.
    pub charge: &'a Charge,
    /// It is taken back: its amounts are stored below zero.
    pub taken_back: bool,
    /// The charge that it corrects or replaces (D43).
    pub corrects: Option<ChargeId>,
    /// The billed account.
    pub account_id: AccountId,
    /// Posting order in the team.
    pub seq: i64,
    /// The app.
    pub app_id: AppId,
    /// The client id as metered.
    pub client_id: &'a str,
    /// The meter's slug.
    pub meter: &'a str,
    /// The metered job failed.
    pub failed: bool,
    /// Dimensions as a JSON object.
    pub dimensions: &'a str,
    /// The hold it was made under.
    pub hold_id: Option<HoldId>,
    /// Events.
    pub events: i64,
}

impl ChargeRow<'_> {
    const fn signed(&self, value: i64) -> i64 {
        if self.taken_back { -value } else { value }
    }
}

/// What a balance row says beside its books.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TeamUsage {
    /// The last charge sequence.
    pub charges: i64,
    /// Newest window charged.
    pub last_window: Option<Timestamp>,
    /// What was told of the team.
    pub watch: Watch,
}

/// Facts to write, and the instant of the transaction that found them.
#[derive(Clone, Debug)]
pub struct Noted {
    /// The facts, those of a team in the order in which they became true.
    pub notices: Vec<Notice>,
    /// Budgets whose usage changed, as they are afterwards.
    pub budgets: Vec<BudgetMonth>,
    /// The instant.
    pub at: Timestamp,
}

impl Noted {
    /// Nothing, at `at`.
    #[must_use]
    pub const fn at(at: Timestamp) -> Self {
        Self { notices: Vec::new(), budgets: Vec::new(), at }
    }
}

/// What a new lot says beside its amounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LotNote {
    /// The order it was bought by.
    pub order_id: Option<OrderId>,
    /// A note from whoever made it.
    pub note: String,
    /// Where several lots are made at once: what each of them says instead.
    pub each: HashMap<LotId, LotNote>,
}

impl LotNote {
    /// What a lot says.
    #[must_use]
    pub fn of(&self, lot: LotId) -> &Self {
        self.each.get(&lot).unwrap_or(self)
    }
}

/// Everything one transaction writes.
#[derive(Debug)]
pub struct PlanRows<'a> {
    /// The shard and number of the batch that the charges are of.
    pub batch: (i32, i64),
    /// New charges.
    pub charges: &'a [ChargeRow<'a>],
    /// The plan: its journal, lots and states.
    pub plan: &'a Plan,
    /// Every team that the plan or a charge touches, as it is afterwards.
    pub balances: &'a [(&'a Balance, TeamUsage)],
    /// The facts that follow from the plan.
    pub noted: &'a Noted,
    /// Of the new lot, where there is one.
    pub note: &'a LotNote,
    /// Most charges that one statement writes.
    pub sub_batch: usize,
}

/// A charge as it is stored.
struct Stored<'a> {
    row: &'a ChargeRow<'a>,
    /// Its place in the journal, which never goes back in posting order: its first row or, where it moved nothing, one
    /// before it.
    place: i64,
    /// Where one lot paid all of it at once: the journal row that it is itself.
    own: Option<&'a JournalRow>,
}

/// Charges as they are stored, and the journal rows that none of them is (`ledger.full_journal`).
fn stored<'a>(rows: &'a PlanRows<'a>) -> (Vec<Stored<'a>>, Vec<&'a JournalRow>) {
    let mut last: FxHashMap<TeamId, i64> =
        rows.balances.iter().map(|(balance, _)| (balance.team_id, balance.version)).collect();
    for row in rows.plan.journal.iter().rev() {
        last.insert(row.team_id, row.seq.saturating_sub(1));
    }
    let charges = rows.charges.iter().map(|row| {
        let place = last.entry(row.charge.team_id).or_default();
        *place = row.charge.journal_seq.unwrap_or(*place);
        Stored { row, place: *place, own: None }
    });
    let mut charges: Vec<_> = charges.collect();
    let by_id: FxHashMap<ChargeId, usize> =
        charges.iter().enumerate().map(|(index, stored)| (stored.row.charge.charge_id, index)).collect();
    let mut others = Vec::new();
    for row in &rows.plan.journal {
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

/// Writes all rows; one statement for each sub-batch of charges, at least one. Gives the revision that every team of
/// [`PlanRows::balances`] has from now on, and with it whatever is written of the team here.
pub async fn write_in_tx(tx: &mut PgConnection, rows: &PlanRows<'_>) -> Result<Revision, Error> {
    let revision = Revision::generate();
    let statements = rows.charges.len().div_ceil(rows.sub_batch.max(1)).max(1);
    let (charges, journal) = stored(rows);
    let journal_chunk = journal.len().div_ceil(statements).max(1);
    let mut charges = charges.chunks(rows.sub_batch.max(1));
    let mut journal = journal.chunks(journal_chunk);
    for statement in 1..=statements {
        let ending = (statement == statements).then_some(rows);
        write_chunk(
            tx,
            rows.batch,
            charges.next().unwrap_or_default(),
            journal.next().unwrap_or_default(),
            &Ending::of(ending)?,
            revision,
        )
        .await?;
    }
    if !rows.plan.holds.is_empty() {
        write_holds(tx, rows).await?;
    }
    Ok(revision)
}

/// Holds and their parts: a statement of its own, since nearly no transaction has any.
async fn write_holds(tx: &mut PgConnection, rows: &PlanRows<'_>) -> Result<(), Error> {
    let accounts: FxHashMap<TeamId, Uuid> =
        rows.balances.iter().map(|(row, _)| (row.team_id, row.account_id.as_uuid())).collect();
    let account = |team: TeamId| accounts.get(&team).copied().unwrap_or_default();
    let holds = &rows.plan.holds;
    let parts: Vec<_> = holds
        .iter()
        .flat_map(|hold| (0_i32..).zip(&hold.parts).map(move |(number, part)| (hold, number, part)))
        .collect();
    sqlx::query_file!(
        "sql/write_holds.sql",
        &col(holds, |h| account(h.team_id)),
        &col(holds, |h| h.team_id.as_uuid()),
        &col(holds, |h| h.hold_id.as_uuid()),
        col(holds, |h| h.app_id.map(AppId::as_uuid)) as _,
        col(holds, |h| Instant(h.window)) as _,
        col(holds, |h| Instant(h.made_at)) as _,
        col(holds, |h| Instant(h.expires_at)) as _,
        instants(holds.iter().map(|h| h.ended.map(|(at, _)| at))) as _,
        col(holds, |h| h.ended.map(|(_, end)| end.as_str())) as _,
        rows.note.note,
        &col(&parts, |(h, ..)| account(h.team_id)),
        &col(&parts, |(h, ..)| h.team_id.as_uuid()),
        &col(&parts, |(h, ..)| h.hold_id.as_uuid()),
        &col(&parts, |(_, number, _)| *number),
        &col(&parts, |(.., p)| p.lot_id.as_uuid()),
        &col(&parts, |(.., p)| p.taken.as_micros()),
        &col(&parts, |(.., p)| p.remaining.as_micros()),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// What goes with the last statement only; nothing before it.
struct Ending<'a> {
    /// New lots, and beside them what they say.
    lots: Vec<&'a Lot>,
    notes: Vec<&'a str>,
    orders: Vec<Option<Uuid>>,
    /// Lots that exist, and changed.
    drawn: Vec<&'a Lot>,
    states: &'a [drawdown_ledger_core::UsageState],
    state_accounts: Vec<Uuid>,
    balances: &'a [(&'a Balance, TeamUsage)],
    notices: &'a [Notice],
    details: Vec<String>,
    budgets: &'a [BudgetMonth],
    noted_at: Timestamp,
}

// === impl Ending ===

impl<'a> Ending<'a> {
    fn of(rows: Option<&'a PlanRows<'a>>) -> Result<Self, Error> {
        let Some(PlanRows { plan, balances, noted, note, .. }) = rows else {
            return Ok(Self {
                lots: Vec::new(),
                notes: Vec::new(),
                orders: Vec::new(),
                drawn: Vec::new(),
                states: &[],
                state_accounts: Vec::new(),
                balances: &[],
                notices: &[],
                details: Vec::new(),
                budgets: &[],
                noted_at: Timestamp::EPOCH,
            });
        };
        let accounts: FxHashMap<TeamId, Uuid> =
            balances.iter().map(|(row, _)| (row.team_id, row.account_id.as_uuid())).collect();
        let new: FxHashSet<_> = plan.new_lots.iter().copied().collect();
        let is_new = |lot: &&Lot| new.contains(&(lot.team_id, lot.lot_id));
        let (lots, drawn): (Vec<&Lot>, Vec<&Lot>) = plan.lots.iter().partition(is_new);
        let flex = |lot: &Lot| lot.pool_kind == drawdown_ledger_core::PoolKind::Flex;
        let order = |lot: &Lot| note.of(lot.lot_id).order_id.map_or_else(Uuid::nil, OrderId::as_uuid);
        let details = noted.notices.iter().map(|notice| serde_json::to_string(&notice.fact));
        Ok(Self {
            notes: lots.iter().map(|lot| note.of(lot.lot_id).note.as_str()).collect(),
            orders: lots.iter().map(|lot| flex(lot).then(|| order(lot))).collect(),
            lots,
            drawn,
            states: &plan.states,
            state_accounts: plan
                .states
                .iter()
                .map(|state| accounts.get(&state.key.team_id).copied().unwrap_or_default())
                .collect(),
            balances,
            notices: &noted.notices,
            details: details.collect::<Result<_, _>>().map_err(|e| Error::Broken(e.to_string()))?,
            budgets: &noted.budgets,
            noted_at: noted.at,
        })
    }
}

/// A column: one value of each row.
fn col<'a, R, T>(rows: &'a [R], value: impl FnMut(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// Why a charge costs nothing by rule, as it is stored.
pub(crate) const fn zero_rated(rated: Rated) -> Option<&'static str> {
    match rated {
        Rated::Priced(_) => None,
        Rated::Trial => Some("trial"),
        Rated::FailedFree => Some("failed"),
        Rated::Unpriced => Some("unpriced"),
        Rated::OverQuota(_) => Some("over_quota"),
    }
}

#[expect(clippy::too_many_lines, reason = "one argument for each column, in the order of the statement")]
async fn write_chunk(
    tx: &mut PgConnection,
    (shard, batch): (i32, i64),
    charges: &[Stored<'_>],
    journal: &[&JournalRow],
    end: &Ending<'_>,
    revision: Revision,
) -> Result<(), Error> {
    let (lots, drawn) = (&end.lots[..], &end.drawn[..]);
    let (states, balances, notices) = (end.states, end.balances, end.notices);
    let changed = sqlx::query_file!(
        "sql/write_plan.sql",
        shard,
        batch,
        &col(charges, |c| c.row.account_id.as_uuid()),
        &col(charges, |c| c.row.charge.team_id.as_uuid()),
        &col(charges, |c| c.row.seq),
        col(charges, |c| Instant(c.row.charge.posted_at)) as _,
        &col(charges, |c| c.row.charge.charge_id.as_uuid()),
        &col(charges, |c| c.row.app_id.as_uuid()),
        col(charges, |c| c.row.client_id) as _,
        col(charges, |c| c.row.meter) as _,
        &col(charges, |c| c.row.failed),
        col(charges, |c| Instant(c.row.charge.window)) as _,
        col(charges, |c| c.row.dimensions) as _,
        col(charges, |c| c.row.hold_id.map(HoldId::as_uuid)) as _,
        &col(charges, |c| c.row.signed(c.row.events)),
        &col(charges, |c| c.row.signed(c.row.charge.quantity.as_units())),
        &col(charges, |c| c.row.signed(c.row.charge.amount.as_micros())),
        &col(charges, |c| c.row.signed(c.row.charge.uncharged.as_micros())),
        col(charges, |c| c.row.charge.rated.price_id().map(|id| id.as_uuid())) as _,
        col(charges, |c| zero_rated(c.row.charge.rated)) as _,
        &col(charges, |c| c.place),
        &col(journal, |j| j.account_id.as_uuid()),
        &col(journal, |j| j.team_id.as_uuid()),
        &col(journal, |j| j.seq),
        col(journal, |j| Instant(j.posted_at)) as _,
        &col(journal, |j| j.transaction),
        col(journal, |j| j.kind.as_str()) as _,
        col(journal, |j| j.debit.as_str()) as _,
        col(journal, |j| j.credit.as_str()) as _,
        &col(journal, |j| j.amount.as_micros()),
        col(journal, |j| j.lot_id.map(|id| id.as_uuid())) as _,
        col(journal, |j| j.charge_id.map(|id| id.as_uuid())) as _,
        col(journal, |j| j.price_id.map(|id| id.as_uuid())) as _,
        instants(journal.iter().map(|j| j.window)) as _,
        &col(journal, |j| j.debt.map_or(0, |debt| debt.from.as_micros())),
        &col(journal, |j| j.debt.map_or(0, |debt| debt.to.as_micros())),
        col(journal, |j| j.lot_state.map(|state| state.as_str())) as _,
        col(journal, |j| Instant(j.effective_at)) as _,
        col(journal, |j| j.hold_id.map(HoldId::as_uuid)) as _,
        col(journal, |j| j.reverses) as _,
        &col(lots, |l| l.account_id.as_uuid()),
        &col(lots, |l| l.team_id.as_uuid()),
        &col(lots, |l| l.lot_id.as_uuid()),
        col(lots, |l| l.pool_kind.as_str()) as _,
        &col(lots, |l| l.original.as_micros()),
        &col(lots, |l| l.granted.as_micros()),
        &col(lots, |l| l.remaining.as_micros()),
        &col(lots, |l| l.held.as_micros()),
        &col(lots, |l| l.consumed.as_micros()),
        &col(lots, |l| l.expired.as_micros()),
        &col(lots, |l| l.void.as_micros()),
        &col(lots, |l| l.moved.as_micros()),
        col(lots, |l| Instant(l.purchased_at)) as _,
        col(lots, |l| Instant(l.starts_at)) as _,
        col(lots, |l| Instant(l.valid_from)) as _,
        col(lots, |l| Instant(l.expires_at)) as _,
        col(lots, |l| Instant(l.closes_at)) as _,
        instants(lots.iter().map(|l| l.closed_at)) as _,
        col(lots, |l| l.moved_to.map(TeamId::as_uuid)) as _,
        &end.orders[..] as _,
        &end.notes[..] as _,
        &end.state_accounts,
        &col(states, |s| s.key.team_id.as_uuid()),
        &col(states, |s| s.key.price_id.as_uuid()),
        col(states, |s| Instant(s.key.cycle.start())) as _,
        col(states, |s| s.meter.as_str()) as _,
        &col(states, |s| s.quantity.as_units()),
        &col(balances, |(b, _)| b.team_id.as_uuid()),
        &col(balances, |(b, _)| b.lot.as_micros()),
        &col(balances, |(b, _)| b.held.as_micros()),
        &col(balances, |(b, _)| b.consumed.as_micros()),
        &col(balances, |(b, _)| b.expired.as_micros()),
        &col(balances, |(b, _)| b.issued.as_micros()),
        &col(balances, |(b, _)| b.void.as_micros()),
        &col(balances, |(b, _)| b.moved_in.as_micros()),
        &col(balances, |(b, _)| b.moved_out.as_micros()),
        &col(balances, |(b, _)| b.debt_opened.as_micros()),
        &col(balances, |(b, _)| b.debt_paid.as_micros()),
        &col(balances, |(b, _)| b.debt_ahead.as_micros()),
        &col(balances, |(b, _)| b.version),
        &col(balances, |(b, _)| b.transactions),
        &col(balances, |(_, usage)| usage.charges),
        instants(balances.iter().map(|(b, _)| b.negative_since)) as _,
        instants(balances.iter().map(|(b, _)| b.posted_at)) as _,
        instants(balances.iter().map(|(_, usage)| usage.last_window)) as _,
        col(balances, |(_, usage)| usage.watch.told_percent.map(i16::from)) as _,
        instants(balances.iter().map(|(_, usage)| usage.watch.due)) as _,
        &col(notices, |n| n.account_id.as_uuid()),
        &col(notices, |n| n.team_id.as_uuid()),
        &col(notices, |_| NoticeId::generate().as_uuid()),
        col(notices, |n| n.fact.kind()) as _,
        &col(notices, Notice::key),
        col(notices, |n| Instant(n.occurred_at)) as _,
        Instant(end.noted_at) as _,
        &end.details,
        &col(end.budgets, |b| b.account_id.as_uuid()),
        &col(end.budgets, |b| b.team_id.as_uuid()),
        &col(end.budgets, |b| b.budget_id.as_uuid()),
        col(end.budgets, |b| Instant(b.month)) as _,
        &col(end.budgets, |b| b.used.as_micros()),
        col(charges, |c| c.row.corrects.map(ChargeId::as_uuid)) as _,
        &col(lots, |l| l.leaves_older_debts),
        col(charges, |c| c.own.and_then(|row| row.lot_id).map(LotId::as_uuid)) as _,
        col(charges, |c| c.own.and_then(|row| row.lot_state).map(LotState::as_str)) as _,
        col(charges, |c| c.own.map(|row| row.transaction)) as _,
        revision.as_uuid(),
        &col(drawn, |l| l.account_id.as_uuid()),
        &col(drawn, |l| l.team_id.as_uuid()),
        &col(drawn, |l| l.lot_id.as_uuid()),
        &col(drawn, |l| l.granted.as_micros()),
        &col(drawn, |l| l.remaining.as_micros()),
        &col(drawn, |l| l.held.as_micros()),
        &col(drawn, |l| l.consumed.as_micros()),
        &col(drawn, |l| l.expired.as_micros()),
        &col(drawn, |l| l.void.as_micros()),
        &col(drawn, |l| l.moved.as_micros()),
        col(drawn, |l| Instant(l.valid_from)) as _,
        instants(drawn.iter().map(|l| l.closed_at)) as _,
        col(drawn, |l| l.moved_to.map(TeamId::as_uuid)) as _,
    )
    .fetch_one(tx)
    .await?;
    let planned = (drawn.len(), balances.len());
    if (usize::try_from(changed.drawn), usize::try_from(changed.balances)) == (Ok(planned.0), Ok(planned.1)) {
        return Ok(());
    }
    Err(Error::Broken(format!("{changed:?} rows changed, planned were {planned:?} lots and balances")))
}
