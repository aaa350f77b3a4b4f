//! One statement of a plan, encoded: it can be made before the transaction is free to send it.

use drawdown_ledger_core::{Balance, BudgetMonth, JournalRow, Lot, LotState, Notice, UsageState};
use drawdown_types::{ChargeId, HoldId, LotId, NoticeId, OrderId, TeamId, Timestamp};
use futures::FutureExt as _;
use rustc_hash::{FxHashMap, FxHashSet};
use uuid::Uuid;

use super::{
    PlanRows, Statement, TeamUsage,
    columns::{Common, Repeated, col, rare},
    cut::Stored,
    zero_rated,
};
use crate::{
    error::Error,
    store::{Instant, instants, teams::Revision},
};

/// What goes with the last statement only; nothing before it.
#[derive(Default)]
pub(super) struct Ending<'a> {
    /// New lots, and beside them what they say.
    lots: Vec<&'a Lot>,
    notes: Vec<&'a str>,
    orders: Vec<Option<Uuid>>,
    /// Lots that exist, and changed.
    drawn: Vec<&'a Lot>,
    /// Usage states that are new, and that exist, with their accounts.
    states: Vec<(Uuid, &'a UsageState)>,
    counted: Vec<(Uuid, &'a UsageState)>,
    balances: &'a [(&'a Balance, TeamUsage)],
    notices: &'a [Notice],
    details: Vec<String>,
    budgets: &'a [BudgetMonth],
    /// Where there is anything to note.
    noted_at: Option<Timestamp>,
}

// === impl Ending ===

impl<'a> Ending<'a> {
    /// Of the statements before the last one.
    pub(super) fn none() -> Self {
        Self::default()
    }

    pub(super) fn of(rows: &'a PlanRows<'a>) -> Result<Self, Error> {
        let PlanRows { plan, balances, noted, note, .. } = rows;
        let accounts: FxHashMap<TeamId, Uuid> =
            balances.iter().map(|(row, _)| (row.team_id, row.account_id.as_uuid())).collect();
        let new: FxHashSet<_> = plan.new_lots.iter().copied().collect();
        let is_new = |lot: &&Lot| new.contains(&(lot.team_id, lot.lot_id));
        let (lots, drawn): (Vec<&Lot>, Vec<&Lot>) = plan.lots.iter().partition(is_new);
        let account = |state: &UsageState| accounts.get(&state.key.team_id).copied().unwrap_or_default();
        let states = plan.states.iter().map(|state| (account(state), state));
        // Both are in order of their keys.
        let is_stored = |(_, state): &(Uuid, &UsageState)| plan.new_states.binary_search(&state.key).is_err();
        let (counted, states) = states.partition(is_stored);
        let flex = |lot: &Lot| lot.pool_kind == drawdown_ledger_core::PoolKind::Flex;
        let order = |lot: &Lot| note.of(lot.lot_id).order_id.map_or_else(Uuid::nil, OrderId::as_uuid);
        let details = noted.notices.iter().map(|notice| serde_json::to_string(&notice.fact));
        Ok(Self {
            notes: lots.iter().map(|lot| note.of(lot.lot_id).note.as_str()).collect(),
            orders: lots.iter().map(|lot| flex(lot).then(|| order(lot))).collect(),
            lots,
            drawn,
            states,
            counted,
            balances,
            notices: &noted.notices,
            details: details.collect::<Result<_, _>>().map_err(|e| Error::Broken(e.to_string()))?,
            budgets: &noted.budgets,
            noted_at: Some(noted.at),
        })
    }
}

/// How many rows that exist a statement changed.
#[derive(Debug, PartialEq, Eq)]
struct Changed {
    drawn: i64,
    counted: i64,
    balances: i64,
}

#[expect(clippy::too_many_lines, reason = "one argument for each column, in the order of the statement")]
pub(super) fn of(
    (shard, batch): (i32, i64),
    charges: &[Stored<'_>],
    journal: &[&JournalRow],
    end: &Ending<'_>,
    revision: Revision,
) -> Statement {
    let (lots, drawn) = (&end.lots[..], &end.drawn[..]);
    let (states, counted) = (&end.states[..], &end.counted[..]);
    let (balances, notices) = (end.balances, end.notices);
    let dimensions = Repeated::of(charges, |c| c.row.dimensions);
    let posted_at = Common::of(charges, |c| Instant(c.row.charge.posted_at));
    let window = Common::of(charges, |c| Instant(c.row.charge.window));
    let query = sqlx::query_file_as!(
        Changed,
        "sql/write_plan.sql",
        shard,
        batch,
        &col(charges, |c| c.row.account_id.as_uuid()),
        &col(charges, |c| c.row.charge.team_id.as_uuid()),
        &col(charges, |c| c.row.seq),
        posted_at.each as _,
        &col(charges, |c| c.row.charge.charge_id.as_uuid()),
        &col(charges, |c| c.row.app_id.as_uuid()),
        col(charges, |c| c.row.client_id) as _,
        col(charges, |c| c.row.meter) as _,
        rare(charges, |c| c.row.failed.then_some(true)) as _,
        window.each as _,
        dimensions.others as _,
        rare(charges, |c| c.row.hold_id.map(HoldId::as_uuid)) as _,
        &col(charges, |c| c.row.signed(c.row.events)),
        &col(charges, |c| c.row.signed(c.row.charge.quantity.as_units())),
        &col(charges, |c| c.row.signed(c.row.charge.amount.as_micros())),
        &col(charges, |c| c.row.signed(c.row.charge.uncharged.as_micros())),
        col(charges, |c| c.row.charge.rated.price_id().map(|id| id.as_uuid())) as _,
        rare(charges, |c| zero_rated(c.row.charge.rated)) as _,
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
        &col(states, |(account, _)| *account),
        &col(states, |(_, s)| s.key.team_id.as_uuid()),
        &col(states, |(_, s)| s.key.price_id.as_uuid()),
        col(states, |(_, s)| Instant(s.key.cycle.start())) as _,
        col(states, |(_, s)| s.meter.as_str()) as _,
        &col(states, |(_, s)| s.quantity.as_units()),
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
        end.noted_at.map(Instant) as _,
        &end.details,
        &col(end.budgets, |b| b.account_id.as_uuid()),
        &col(end.budgets, |b| b.team_id.as_uuid()),
        &col(end.budgets, |b| b.budget_id.as_uuid()),
        col(end.budgets, |b| Instant(b.month)) as _,
        &col(end.budgets, |b| b.used.as_micros()),
        rare(charges, |c| c.row.corrects.map(ChargeId::as_uuid)) as _,
        &col(lots, |l| l.leaves_older_debts),
        rare(charges, |c| c.own.and_then(|row| row.lot_id).map(LotId::as_uuid)) as _,
        rare(charges, |c| c.own.and_then(|row| row.lot_state).map(LotState::as_str)) as _,
        rare(charges, |c| c.own.map(|row| row.transaction)) as _,
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
        &col(counted, |(account, _)| *account),
        &col(counted, |(_, s)| s.key.team_id.as_uuid()),
        &col(counted, |(_, s)| s.key.price_id.as_uuid()),
        col(counted, |(_, s)| Instant(s.key.cycle.start())) as _,
        &col(counted, |(_, s)| s.quantity.as_units()),
        dimensions.known as _,
        dimensions.places as _,
        posted_at.all as _,
        window.all as _,
    );
    let rows = |rows: usize| i64::try_from(rows).unwrap_or(i64::MAX);
    let planned =
        Changed { drawn: rows(drawn.len()), counted: rows(counted.len()), balances: rows(balances.len()) };
    Statement::new(move |tx| {
        async move {
            let changed = query.fetch_one(tx).await?;
            if changed == planned {
                return Ok(());
            }
            Err(Error::Broken(format!("rows that exist were changed: {changed:?}, planned were {planned:?}")))
        }
        .boxed()
    })
}
