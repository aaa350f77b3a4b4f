//! Reads of a verification: one instant, whatever time they take within their own limit; and its points.
//!
//! A point is written in the transaction that found the ledger clean, from the same snapshot. Only one verification
//! at a time writes points: another that runs meanwhile verifies all the same and writes none.

use std::time::Duration;

use drawdown_ledger_core::{JournalRow, Lot, Team};
use drawdown_types::{AccountId, TeamId, Timestamp};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::{Instant, journal, reads, teams};
use crate::error::Error;

/// Held by the verification that may write points.
const POINTS_LOCK: i64 = 0x6c65_6467_6572_7074;

/// What a verification read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// Teams replayed.
    pub teams: i64,
    /// Their journal rows.
    pub journal_rows: i64,
    /// Batches whose rows were added up.
    pub batches: i64,
}

impl Effort {
    /// Counts a team with that many rows.
    pub fn count(&mut self, rows: usize) {
        self.teams = self.teams.saturating_add(1);
        self.journal_rows = self.journal_rows.saturating_add(i64::try_from(rows).unwrap_or(i64::MAX));
    }
}

/// Gives the statements of a transaction a limit of their own.
pub async fn limit_in_tx(tx: &mut PgConnection, statement_timeout: Duration) -> Result<(), Error> {
    // A setting takes no parameters; this is a number.
    let limit = format!("set local statement_timeout = {}", statement_timeout.as_millis());
    sqlx::query(AssertSqlSafe(limit)).execute(tx).await?;
    Ok(())
}

/// Gives the statements of a verification their limit, and says whether it may write points.
pub async fn begin_in_tx(tx: &mut PgConnection, statement_timeout: Duration) -> Result<bool, Error> {
    limit_in_tx(tx, statement_timeout).await?;
    let alone = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "alone!""#, POINTS_LOCK)
        .fetch_one(tx)
        .await?;
    Ok(alone)
}

/// The number of the last point.
pub async fn last_in_tx(tx: &mut PgConnection) -> Result<Option<i64>, Error> {
    Ok(sqlx::query_scalar!("select max(verification) from ledger.verification").fetch_one(tx).await?)
}

/// Violations: how many, and some of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How many.
    pub violations: i64,
    /// The first, at most [`EXAMPLES_MAX`].
    pub examples: Vec<String>,
}

/// The violations that are told in words; the rest is counted.
pub const EXAMPLES_MAX: usize = 10;

// === impl Found ===

impl Found {
    /// Another one.
    pub fn count(&mut self, violation: impl FnOnce() -> String) {
        self.violations = self.violations.saturating_add(1);
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(violation());
        }
    }
}

/// What a statement of an invariant finds, counted by the database. The statements are files of this crate, each of one
/// text column; they are run by name, so the macro that checks a statement where it stands can not be used.
pub async fn violations_in_tx(tx: &mut PgConnection, sql: &'static str) -> Result<Found, Error> {
    let counted = format!(
        "select violation, count(*) over () from (\n{sql}\n) as found (violation) limit {EXAMPLES_MAX}"
    );
    let rows: Vec<(String, i64)> = sqlx::query_as(AssertSqlSafe(counted)).fetch_all(tx).await?;
    Ok(Found {
        violations: rows.first().map_or(0, |(_, violations)| *violations),
        examples: rows.into_iter().map(|(violation, _)| violation).collect(),
    })
}

/// The teams to replay, by id: all of them, or those that are not as their points say, or have rows since.
pub async fn teams_in_tx(tx: &mut PgConnection, changed: bool) -> Result<Vec<TeamId>, Error> {
    let ids = if changed {
        sqlx::query_scalar!(
            r#"select n.team_id as "team_id!"
               from ledger.teams_now() n
               left join ledger.verified_team v using (account_id, team_id)
               where v.team_id is null or v.balance <> n.balance or v.lots <> n.lots
                  or n.team_id in (select team_id from ledger.new_journal())
               order by n.team_id"#
        )
        .fetch_all(tx)
        .await?
    } else {
        sqlx::query_scalar!("select team_id from ledger.balance order by team_id").fetch_all(tx).await?
    };
    Ok(ids.into_iter().map(TeamId::from_uuid).collect())
}

/// Some teams as stored, by id, without their lots.
pub async fn loaded_in_tx(tx: &mut PgConnection, teams: &[TeamId]) -> Result<Vec<Team>, Error> {
    let (mut loaded, _) = teams::load_in_tx(tx, teams, &[]).await?;
    loaded.sort_by_key(|stored| stored.team.balance.team_id);
    Ok(loaded.into_iter().map(|stored| Team { lots: Vec::new(), ..stored.team }).collect())
}

/// How many batches there are: all of them, or those since the points.
pub async fn batches_in_tx(tx: &mut PgConnection, all: bool) -> Result<i64, Error> {
    let batches = if all {
        sqlx::query_scalar!(r#"select count(*) as "n!" from ledger.settlement_batch"#).fetch_one(tx).await?
    } else {
        sqlx::query_scalar!(r#"select count(*) as "n!" from ledger.new_batches()"#).fetch_one(tx).await?
    };
    Ok(batches)
}

/// A team as the replay of its point left it; none where it has no point, or one of a version that knew less of teams.
pub async fn point_in_tx(tx: &mut PgConnection, team: TeamId) -> Result<Option<Team>, Error> {
    let state = sqlx::query_scalar!(
        "select state from ledger.verified_replay
         where account_id = (select account_id from ledger.balance where team_id = $1) and team_id = $1",
        team.as_uuid(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(state.and_then(|state| serde_json::from_str(&state).ok()))
}

/// Keeps teams as their replay left them. It is undone with the transaction where the ledger is not clean.
pub async fn keep_in_tx(tx: &mut PgConnection, teams: &[Team]) -> Result<(), Error> {
    let mut states = Vec::with_capacity(teams.len());
    for team in teams {
        states.push(serde_json::to_string(team).map_err(|e| Error::stored("state of a team")(e.into()))?);
    }
    let accounts: Vec<Uuid> = teams.iter().map(|team| team.balance.account_id.as_uuid()).collect();
    let ids: Vec<Uuid> = teams.iter().map(|team| team.balance.team_id.as_uuid()).collect();
    sqlx::query!(
        "insert into ledger.verified_replay (account_id, team_id, state)
         select * from unnest($1::uuid[], $2::uuid[], $3::text[])
         on conflict (account_id, team_id) do update set state = excluded.state",
        &accounts,
        &ids,
        &states,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Writes the points of this instant under a number of their own; only what moved is written.
pub async fn save_in_tx(
    tx: &mut PgConnection,
    number: i64,
    incremental: bool,
    invariants: usize,
    effort: &Effort,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into ledger.verification (verification, at, incremental, teams, journal_rows, batches, invariants)
         values ($1, $2, $3, $4, $5, $6, $7)",
        number,
        Instant(now) as _,
        incremental,
        effort.teams,
        effort.journal_rows,
        effort.batches,
        i64::try_from(invariants).unwrap_or(i64::MAX),
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query_file!("sql/save_points.sql").execute(tx).await?;
    Ok(())
}

/// All lots of a team, closed ones too.
pub async fn lots_in_tx(tx: &mut PgConnection, team: TeamId) -> Result<Vec<Lot>, Error> {
    Ok(reads::lots(tx, team).await?.into_iter().map(|(lot, _)| lot).collect())
}

/// The journal of a team after a sequence; after 0 the whole.
pub async fn journal_in_tx(
    tx: &mut PgConnection,
    team: TeamId,
    after: i64,
) -> Result<Vec<JournalRow>, Error> {
    let account =
        sqlx::query_scalar!("select account_id from ledger.balance where team_id = $1", team.as_uuid())
            .fetch_optional(&mut *tx)
            .await?;
    match account {
        None => Ok(Vec::new()),
        Some(account) => journal::journal_rows(tx, AccountId::from_uuid(account), team, None, after).await,
    }
}
