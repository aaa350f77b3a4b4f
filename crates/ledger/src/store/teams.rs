//! Teams: locked in one order, then loaded by a later statement.
//!
//! A lock that had to wait refreshes the locked row only, not the rest of its statement's snapshot;
//! so locking and loading must stay two statements, or a lot could be drawn twice.

mod row;

use drawdown_ledger_core::{BudgetMonth, Hold, PoolKind, Team, UnknownName, UsageKey, UsageState, Watch};
use drawdown_types::{AccountId, AppId, HoldId, LotId, TeamId, Timestamp};
use futures::FutureExt as _;
use sqlx::PgConnection;
use uuid::Uuid;

use self::row::TeamRow;
use super::{Instant, write::Statement};
use crate::error::Error;

/// Names the transaction that changed anything of a team last: what is loaded of it, under its lock, is the same for the
/// same revision. Random, so that a database restored to an older state never comes to one again with another content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revision(Uuid);

impl Revision {
    /// A new one, unlike every other.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// As stored.
    #[must_use]
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

/// A team as stored, with what the core does not need to know.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Whether it has budgets, in these months or others.
    pub has_budgets: bool,
}

/// Makes sure that each team has a balance and locks all of them, in order of team id. A team that
/// exists under another account keeps it: the caller compares after loading. Gives their revisions, by team id.
///
/// First the missing ones are made, then all are locked, and nothing is locked before: who inserts waits
/// only for others who insert, all in one order, and who locks holds nothing that they wait for. An insert
/// after a lock could wait for a row whose maker's successor waits for that lock. One upsert for both would
/// be shorter, but it forgives a conflict of one unique index only, and a balance has two: of two writers
/// who make a team at the same time the second would fail.
pub async fn lock_in_tx(
    tx: &mut PgConnection,
    mut teams: Vec<(AccountId, TeamId)>,
) -> Result<Vec<(TeamId, Revision)>, Error> {
    teams.sort_by_key(|(_, team)| *team);
    teams.dedup_by_key(|(_, team)| *team);
    let (accounts, ids): (Vec<Uuid>, Vec<Uuid>) =
        teams.iter().map(|(account, team)| (account.as_uuid(), team.as_uuid())).unzip();
    let there = sqlx::query_scalar!(
        r#"select count(*) as "count!" from ledger.balance where team_id = any($1)"#,
        &ids
    )
    .fetch_one(&mut *tx)
    .await?;
    if usize::try_from(there).unwrap_or_default() < ids.len() {
        make_in_tx(tx, &accounts, &ids).await?;
    }
    let teams: Vec<TeamId> = teams.into_iter().map(|(_, team)| team).collect();
    lock_known_in_tx(tx, &teams)
        .await?
        .ok_or_else(|| Error::Broken("a balance that was made is not there".to_owned()))
}

/// Makes the balances that are missing, and what counts for the budget of an account that has one. Who sets such a
/// budget is waited for, and waits: the statement after the lock sees what it set.
async fn make_in_tx(tx: &mut PgConnection, accounts: &[Uuid], teams: &[Uuid]) -> Result<(), Error> {
    sqlx::query!(
        "select pg_advisory_xact_lock_shared(ledger.account_budget_key(account))
         from (select distinct account from unnest($1::uuid[]) as a (account) order by 1) a",
        accounts,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "with made as (
             insert into ledger.balance (account_id, team_id)
             select account_id, team_id from unnest($1::uuid[], $2::uuid[]) as t (account_id, team_id)
             order by team_id
             on conflict do nothing
             returning account_id, team_id
         ), counted as (
             insert into ledger.budget (account_id, team_id, budget_id, app_id, from_month)
             select m.account_id, m.team_id, gen_random_uuid(), null, a.from_month
             from made m join ledger.account_budget a on a.account_id = m.account_id
             returning account_id, team_id, budget_id, from_month
         )
         insert into ledger.budget_terms (account_id, team_id, budget_id, from_month, cap_micros, soft_percent, hard)
         select account_id, team_id, budget_id, from_month, null, '{}', false from counted",
        accounts,
        teams,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Locks the balances of teams, each named once, in order of team id, and gives their revisions under the locks, by team
/// id. Nothing where one does not exist: then the caller gives its transaction up and begins again with [`lock_in_tx`].
pub async fn lock_known_in_tx(
    tx: &mut PgConnection,
    teams: &[TeamId],
) -> Result<Option<Vec<(TeamId, Revision)>>, Error> {
    let ids: Vec<Uuid> = teams.iter().map(|team| team.as_uuid()).collect();
    let rows = sqlx::query!(
        r#"select team_id as "team_id!", revision as "revision!" from ledger.lock_teams($1)"#,
        &ids,
    )
    .fetch_all(tx)
    .await?;
    if rows.len() != ids.len() {
        return Ok(None);
    }
    let locked = rows.into_iter().map(|row| (TeamId::from_uuid(row.team_id), Revision(row.revision)));
    let mut locked: Vec<_> = locked.collect();
    locked.sort_unstable_by_key(|(team, _)| *team);
    Ok(Some(locked))
}

/// [`lock_known_in_tx`], to be sent.
pub(crate) fn lock_known(teams: Vec<TeamId>) -> Statement<Option<Vec<(TeamId, Revision)>>> {
    Statement::new(move |tx| async move { lock_known_in_tx(tx, &teams).await }.boxed())
}

/// Loads teams with their live lots and open holds, and those usage states of `keys` that exist.
pub async fn load_in_tx(
    tx: &mut PgConnection,
    teams: &[TeamId],
    keys: &[UsageKey],
) -> Result<(Vec<StoredTeam>, Vec<UsageState>), Error> {
    load_wanted_in_tx(tx, teams, &Wanted { keys, ..Wanted::default() }).await
}

/// What is loaded beside the teams themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Keys of usage states.
    pub keys: &'a [UsageKey],
    /// Months of budgets, each named by its first instant.
    pub months: &'a [Timestamp],
    /// Lots whatever their state, which may have moved away or closed, and with them the items of the debt that
    /// they could pay out of turn.
    pub lots: &'a [LotId],
    /// All open items of the debt, because a lot may come that leaves older debts (D57).
    pub items: bool,
}

/// Keys of states by team, and which of them, counted from 1, are of each team; none where the last is before the
/// first.
struct KeyRows {
    firsts: Vec<i32>,
    lasts: Vec<i32>,
    prices: Vec<Uuid>,
    cycles: Vec<Instant>,
}

impl KeyRows {
    fn of(teams: &[TeamId], keys: &[UsageKey]) -> Result<Self, Error> {
        let mut keys: Vec<&UsageKey> = keys.iter().collect();
        keys.sort_unstable_by_key(|key| key.team_id);
        let place = |place: usize| i32::try_from(place).map_err(|e| Error::Broken(e.to_string()));
        let first = |team: &TeamId| place(keys.partition_point(|key| key.team_id < *team).saturating_add(1));
        let last = |team: &TeamId| place(keys.partition_point(|key| key.team_id <= *team));
        Ok(Self {
            firsts: teams.iter().map(first).collect::<Result<_, _>>()?,
            lasts: teams.iter().map(last).collect::<Result<_, _>>()?,
            prices: keys.iter().map(|key| key.price_id.as_uuid()).collect(),
            cycles: keys.iter().map(|key| Instant(key.cycle.start())).collect(),
        })
    }
}

/// Loads teams with what is wanted beside them, by team id.
pub async fn load_wanted_in_tx(
    tx: &mut PgConnection,
    teams: &[TeamId],
    wanted: &Wanted<'_>,
) -> Result<(Vec<StoredTeam>, Vec<UsageState>), Error> {
    let Wanted { keys, months, lots, items } = *wanted;
    let lots: Vec<Uuid> = lots.iter().map(|lot| lot.as_uuid()).collect();
    let months: Vec<Instant> = months.iter().copied().map(Instant).collect();
    let mut teams = teams.to_vec();
    teams.sort_unstable();
    teams.dedup();
    let ids: Vec<Uuid> = teams.iter().map(|team| team.as_uuid()).collect();
    let keys = KeyRows::of(&teams, keys)?;
    let rows = sqlx::query_file_as!(
        TeamRow,
        "sql/load_teams.sql",
        &ids,
        &keys.firsts,
        &keys.lasts,
        &keys.prices,
        &keys.cycles[..] as _,
        &months[..] as _,
        &lots,
        items,
    )
    .fetch_all(tx)
    .await?;
    let mut loaded = Vec::with_capacity(rows.len());
    let mut states = Vec::with_capacity(keys.prices.len());
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

/// Holds by name, whatever became of them, without their parts: what is needed to know their windows
/// before the states of their usage are loaded.
pub async fn holds_in_tx(tx: &mut PgConnection, holds: &[HoldId]) -> Result<Vec<Hold>, Error> {
    let ids: Vec<Uuid> = holds.iter().map(|hold| hold.as_uuid()).collect();
    let rows = sqlx::query!(
        "select hold_id, team_id, app_id, window_start, made_at, expires_at, ended_at, ended_how
         from ledger.hold where hold_id = any($1)",
        &ids,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            let end = row.ended_how.map(|how| how.parse()).transpose();
            let end = end.map_err(|e: UnknownName| Error::stored("end of a hold")(e.into()))?;
            Ok(Hold {
                hold_id: HoldId::from_uuid(row.hold_id),
                team_id: TeamId::from_uuid(row.team_id),
                app_id: row.app_id.map(AppId::from_uuid),
                window: row.window_start.0,
                made_at: row.made_at.0,
                expires_at: row.expires_at.0,
                parts: Vec::new(),
                ended: row.ended_at.map(Timestamp::from).zip(end),
            })
        })
        .collect()
}

/// A stored pool kind.
pub(super) fn pool_kind(text: &str) -> Result<PoolKind, Error> {
    text.parse().map_err(|e: UnknownName| Error::stored("pool kind")(e.into()))
}
