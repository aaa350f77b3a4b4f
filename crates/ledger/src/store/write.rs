//! Writes what the core planned: one statement of data-modifying CTEs over arrays, or a few of them ([`Cut`]).
//!
//! Below `cut::APART_FROM` charges everything is one statement. From there on charges go first, a sub-batch a statement, and lots,
//! states and balances with one after them: it can be made while the server writes the charges. All are of one
//! transaction, so nobody sees one without the other.
//!
//! A charge that one lot paid whole is written once: it is its journal row too (`ledger.full_journal`).

mod columns;
mod cut;
mod statement;

use std::collections::HashMap;

use drawdown_ledger_core::{Balance, BudgetMonth, Charge, Hold, Notice, Plan, Rated, Watch};
use drawdown_types::{AccountId, AppId, ChargeId, HoldId, LotId, OrderId, TeamId, Timestamp};
use futures::future::BoxFuture;
use rustc_hash::FxHashMap;
use sqlx::PgConnection;
use uuid::Uuid;

use self::columns::col;
pub(crate) use self::cut::Cut;

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

/// A statement with its rows, encoded: it is sent when the transaction is free.
pub(crate) struct Statement<T = ()>(Run<T>);

type Run<T> = Box<dyn for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>> + Send>;

// === impl Statement ===

impl<T> Statement<T> {
    /// One that is sent like this.
    pub(crate) fn new(
        run: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>> + Send + 'static,
    ) -> Self {
        Self(Box::new(run))
    }

    /// Sends it and waits for its end.
    pub(crate) async fn run_in_tx(self, tx: &mut PgConnection) -> Result<T, Error> {
        (self.0)(tx).await
    }
}

/// Writes all rows, one statement after the other. Gives the revision that every team of [`PlanRows::balances`] has from
/// now on, and with it whatever is written of the team here.
pub async fn write_in_tx(tx: &mut PgConnection, rows: &PlanRows<'_>) -> Result<Revision, Error> {
    let revision = Revision::generate();
    let ends = rows.balances.iter().map(|(balance, _)| (balance.team_id, balance.version));
    let cut = Cut::new(rows.batch, rows.charges, rows.plan, ends, rows.sub_batch);
    for number in 0..cut.before() {
        cut.statement(number, revision).run_in_tx(tx).await?;
    }
    cut.last(rows, revision)?.run_in_tx(tx).await?;
    let balances = rows.balances.iter().map(|(balance, _)| *balance);
    write_holds_in_tx(tx, &rows.plan.holds, balances, &rows.note.note).await?;
    Ok(revision)
}

/// Holds and their parts: a statement of its own, since nearly no transaction has any. `note` is what new ones say.
pub(crate) async fn write_holds_in_tx<'a>(
    tx: &mut PgConnection,
    holds: &[Hold],
    balances: impl Iterator<Item = &'a Balance>,
    note: &str,
) -> Result<(), Error> {
    if holds.is_empty() {
        return Ok(());
    }
    let accounts: FxHashMap<TeamId, Uuid> =
        balances.map(|balance| (balance.team_id, balance.account_id.as_uuid())).collect();
    let account = |team: TeamId| accounts.get(&team).copied().unwrap_or_default();
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
        note,
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
