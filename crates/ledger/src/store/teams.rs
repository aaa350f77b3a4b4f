//! Teams: locked in one order, then loaded by a later statement.
//!
//! A lock that had to wait refreshes the locked row only, not the rest of its statement's snapshot;
//! so locking and loading must stay two statements, or a lot could be drawn twice.

use drawdown_ledger_core::{Balance, BudgetMonth, Cycle, Lot, PoolKind, Team, UsageKey, UsageState, Watch};
use drawdown_types::{AccountId, LotId, MeterSlug, MicroTokens, PriceId, Quantity, TeamId, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Instant, budgets};
use crate::error::Error;

/// A team as stored, with what the core does not need to know.
#[derive(Clone, Debug)]
pub struct StoredTeam {
    /// What the core works on.
    pub team: Team,
    /// The last charge sequence.
    pub charges: i64,
    /// Newest window charged.
    pub last_window: Option<Timestamp>,
    /// What was told of it.
    pub watch: Watch,
    /// Its budgets, in the months that were asked for.
    pub budgets: Vec<BudgetMonth>,
}

/// Makes sure that each team has a balance and locks all of them, in order of team id. A team that
/// exists under another account keeps it: the caller compares after loading.
pub async fn lock_in_tx(tx: &mut PgConnection, mut teams: Vec<(AccountId, TeamId)>) -> Result<(), Error> {
    teams.sort_by_key(|(_, team)| *team);
    teams.dedup_by_key(|(_, team)| *team);
    let (accounts, teams): (Vec<Uuid>, Vec<Uuid>) =
        teams.into_iter().map(|(account, team)| (account.as_uuid(), team.as_uuid())).unzip();
    // An upsert that updates nothing inserts what is missing and locks what is there, row by row in the
    // order of its input, in one statement. Without the ORDER BY two batches could lock crosswise.
    sqlx::query!(
        "insert into ledger.balance (account_id, team_id)
         select account_id, team_id from unnest($1::uuid[], $2::uuid[]) as t (account_id, team_id)
         order by team_id
         on conflict (team_id) do update set version = excluded.version where false",
        &accounts,
        &teams,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Loads teams with their live lots, and those usage states of `keys` that exist.
pub async fn load_in_tx(
    tx: &mut PgConnection,
    teams: &[TeamId],
    keys: &[UsageKey],
) -> Result<(Vec<StoredTeam>, Vec<UsageState>), Error> {
    load_with_budgets_in_tx(tx, teams, keys, &[]).await
}

/// The same with the teams' budgets in `months`, each named by its first instant.
pub async fn load_with_budgets_in_tx(
    tx: &mut PgConnection,
    teams: &[TeamId],
    keys: &[UsageKey],
    months: &[Timestamp],
) -> Result<(Vec<StoredTeam>, Vec<UsageState>), Error> {
    let months: Vec<Instant> = months.iter().copied().map(Instant).collect();
    let ids: Vec<Uuid> = teams.iter().map(|team| team.as_uuid()).collect();
    let key_teams: Vec<Uuid> = keys.iter().map(|key| key.team_id.as_uuid()).collect();
    let key_prices: Vec<Uuid> = keys.iter().map(|key| key.price_id.as_uuid()).collect();
    let key_cycles: Vec<Instant> = keys.iter().map(|key| Instant(key.cycle.start())).collect();
    let rows = sqlx::query_file_as!(
        TeamRow,
        "sql/load_teams.sql",
        &ids,
        &key_teams,
        &key_prices,
        &key_cycles[..] as _,
        &months[..] as _
    )
    .fetch_all(tx)
    .await?;
    let mut loaded = Vec::with_capacity(rows.len());
    let mut states = Vec::with_capacity(keys.len());
    for row in rows {
        states.extend(row.states()?);
        loaded.push(row.team()?);
    }
    Ok((loaded, states))
}

/// One team with its live lots, as committed; `None` where nothing was ever posted to it.
pub async fn load(at: &mut PgConnection, team: TeamId) -> Result<Option<StoredTeam>, Error> {
    let (mut teams, _) = load_in_tx(at, &[team], &[]).await?;
    Ok(teams.pop())
}

struct TeamRow {
    account_id: Uuid,
    team_id: Uuid,
    lot_micros: i64,
    consumed_micros: i64,
    expired_micros: i64,
    issued_micros: i64,
    debt_opened_micros: i64,
    debt_paid_micros: i64,
    version: i64,
    transactions: i64,
    charges: i64,
    negative_since: Option<Instant>,
    posted_at: Option<Instant>,
    last_window: Option<Instant>,
    notice_told: Option<i16>,
    notice_due: Option<Instant>,
    lot_ids: Vec<Uuid>,
    lot_pools: Vec<String>,
    lot_granted: Vec<i64>,
    lot_remaining: Vec<i64>,
    lot_consumed: Vec<i64>,
    lot_expired: Vec<i64>,
    lot_purchased_at: Vec<Instant>,
    lot_starts_at: Vec<Instant>,
    lot_valid_from: Vec<Instant>,
    lot_expires_at: Vec<Instant>,
    lot_closes_at: Vec<Instant>,
    state_prices: Vec<Uuid>,
    state_cycles: Vec<Instant>,
    state_meters: Vec<String>,
    state_quantities: Vec<i64>,
    budgets: Option<String>,
}

// === impl TeamRow ===

impl TeamRow {
    fn team(self) -> Result<StoredTeam, Error> {
        let balance = Balance {
            account_id: AccountId::from_uuid(self.account_id),
            team_id: TeamId::from_uuid(self.team_id),
            issued: MicroTokens::from_micros(self.issued_micros),
            lot: MicroTokens::from_micros(self.lot_micros),
            consumed: MicroTokens::from_micros(self.consumed_micros),
            expired: MicroTokens::from_micros(self.expired_micros),
            debt_opened: MicroTokens::from_micros(self.debt_opened_micros),
            debt_paid: MicroTokens::from_micros(self.debt_paid_micros),
            version: self.version,
            transactions: self.transactions,
            posted_at: self.posted_at.map(Timestamp::from),
            negative_since: self.negative_since.map(Timestamp::from),
        };
        let charges = self.charges;
        let last_window = self.last_window.map(Timestamp::from);
        let told = self.notice_told.map(u8::try_from).transpose();
        let watch = Watch {
            told_percent: told.map_err(|e| Error::stored("level of a notice")(e.into()))?,
            due: self.notice_due.map(Timestamp::from),
        };
        let lots = (0..self.lot_ids.len()).map(|index| self.lot(index)).collect::<Result<_, _>>()?;
        let budgets = match &self.budgets {
            Some(text) => budgets::parse(balance.account_id, balance.team_id, text)?,
            None => Vec::new(),
        };
        Ok(StoredTeam { team: Team { balance, lots }, charges, last_window, watch, budgets })
    }

    fn lot(&self, index: usize) -> Result<Lot, Error> {
        Ok(Lot {
            lot_id: LotId::from_uuid(at(&self.lot_ids, index)?),
            account_id: AccountId::from_uuid(self.account_id),
            team_id: TeamId::from_uuid(self.team_id),
            pool_kind: pool_kind(self.lot_pools.get(index).map_or("", String::as_str))?,
            granted: MicroTokens::from_micros(at(&self.lot_granted, index)?),
            remaining: MicroTokens::from_micros(at(&self.lot_remaining, index)?),
            consumed: MicroTokens::from_micros(at(&self.lot_consumed, index)?),
            expired: MicroTokens::from_micros(at(&self.lot_expired, index)?),
            purchased_at: at(&self.lot_purchased_at, index)?.0,
            starts_at: at(&self.lot_starts_at, index)?.0,
            valid_from: at(&self.lot_valid_from, index)?.0,
            expires_at: at(&self.lot_expires_at, index)?.0,
            closes_at: at(&self.lot_closes_at, index)?.0,
            closed_at: None,
        })
    }

    fn states(&self) -> Result<Vec<UsageState>, Error> {
        let state = |index| {
            let meter = self.state_meters.get(index).map_or("", String::as_str);
            Ok(UsageState {
                key: UsageKey {
                    team_id: TeamId::from_uuid(self.team_id),
                    price_id: PriceId::from_uuid(at(&self.state_prices, index)?),
                    cycle: Cycle::of(at(&self.state_cycles, index)?.0),
                },
                meter: MeterSlug::new(meter).map_err(|e| Error::stored("meter slug")(e.into()))?,
                quantity: Quantity::new(at(&self.state_quantities, index)?)
                    .map_err(|e| Error::stored("quantity of a usage state")(e.into()))?,
            })
        };
        (0..self.state_prices.len()).map(state).collect()
    }
}

/// An element of one of several arrays that one aggregate made; all of them have the same length.
fn at<T: Copy>(values: &[T], index: usize) -> Result<T, Error> {
    values.get(index).copied().ok_or_else(|| Error::Broken("arrays of one team differ in length".to_owned()))
}

/// A stored pool kind.
pub(super) fn pool_kind(text: &str) -> Result<PoolKind, Error> {
    text.parse().map_err(|e: drawdown_ledger_core::UnknownName| Error::stored("pool kind")(e.into()))
}
