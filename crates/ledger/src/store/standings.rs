//! Which teams changed since a reader looked last (see `migrations/0050_standings.sql`).
//!
//! A look is one statement, so its snapshot, the changes that became visible up to it and everything beside them are of
//! one instant. What is read of the teams afterwards may be newer and is never older.

use drawdown_types::{AccountId, TeamId, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Instant;
use crate::error::Error;

/// What a look at the feed saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Names the server, its timeline, the database and the sequence of notices: numbers of transactions mean nothing elsewhere.
    pub origin: String,
    /// Which transactions were visible, as Postgres writes it.
    pub snapshot: String,
    /// All transactions before this one are over.
    pub oldest: i64,
    /// The version of the catalogue.
    pub catalogue: i64,
    /// The newest transaction whose row was removed because of its age.
    pub removed: i64,
    /// Start of the newest window with settled usage.
    pub newest_window: Option<Timestamp>,
    /// Teams that changed and were not visible before, each once, at most as many as were asked for.
    pub teams: Vec<TeamId>,
}

/// The snapshot that saw everything before a transaction and nothing else.
#[must_use]
pub fn snapshot_before(oldest: i64) -> String {
    format!("{oldest}:{oldest}:")
}

/// Looks: what changed and was not visible in the snapshot `since`, at most `teams_max` teams. Without a snapshot
/// nothing is asked but where the feed stands.
pub async fn look(at: &mut PgConnection, since: Option<&str>, teams_max: i64) -> Result<Look, Error> {
    let row = sqlx::query!(
        r#"select (select system_identifier from pg_control_system()) || '/'
                      || left(pg_walfile_name(pg_current_wal_lsn()), 8) || '/'
                      || (select oid from pg_database where datname = current_database()) || '/'
                      || o.origin as "origin!",
                  pg_current_snapshot()::text as "snapshot!",
                  pg_snapshot_xmin(pg_current_snapshot())::text::bigint as "oldest!",
                  (select version from ledger.catalogue) as "catalogue!",
                  h.removed::text::bigint as "removed!",
                  (select max(last_window) from ledger.client_usage) as "newest_window: Instant",
                  array(select distinct team
                        from (select unnest(c.teams) as team
                              from ledger.standing_change c
                              where c.xid >= pg_snapshot_xmin($1::text::pg_snapshot)
                                and c.xid < pg_snapshot_xmax(pg_current_snapshot())
                                and not pg_visible_in_snapshot(c.xid, $1::text::pg_snapshot)) as t
                        limit $2) as "teams!"
           from ledger.standing_head h, ledger.outbox_head o"#,
        since,
        teams_max,
    )
    .fetch_one(at)
    .await?;
    Ok(Look {
        origin: row.origin,
        snapshot: row.snapshot,
        oldest: row.oldest,
        catalogue: row.catalogue,
        removed: row.removed,
        newest_window: row.newest_window.map(Timestamp::from),
        teams: row.teams.into_iter().map(TeamId::from_uuid).collect(),
    })
}

/// The next teams by id.
pub async fn page(at: &mut PgConnection, after: Option<TeamId>, limit: i64) -> Result<Vec<TeamId>, Error> {
    let teams = sqlx::query_scalar!(
        "select team_id from ledger.balance where team_id > $1 order by team_id limit $2",
        after.map_or_else(Uuid::nil, TeamId::as_uuid),
        limit,
    )
    .fetch_all(at)
    .await?;
    Ok(teams.into_iter().map(TeamId::from_uuid).collect())
}

/// Teams of these accounts that are below zero as stored, with their accounts.
pub async fn below_zero(
    at: &mut PgConnection,
    accounts: &[AccountId],
) -> Result<Vec<(AccountId, TeamId)>, Error> {
    let ids: Vec<Uuid> = accounts.iter().map(|account| account.as_uuid()).collect();
    let rows = sqlx::query!(
        "select b.account_id, b.team_id
         from unnest($1::uuid[]) as a (account_id)
         cross join lateral (
             select * from ledger.balance where account_id = a.account_id and negative_since is not null offset 0) b",
        &ids,
    )
    .fetch_all(at)
    .await?;
    let named = |(account, team)| (AccountId::from_uuid(account), TeamId::from_uuid(team));
    Ok(rows.into_iter().map(|row| named((row.account_id, row.team_id))).collect())
}

/// Removes at most `limit` rows from before `before`, of transactions that every later snapshot sees. Gives how many.
pub async fn forget(at: &mut PgConnection, before: Timestamp, limit: i64) -> Result<u64, Error> {
    let gone = sqlx::query_scalar!(
        r#"with old as (
             select xid from ledger.standing_change
             where xid < pg_snapshot_xmin(pg_current_snapshot()) and changed_at < $1
             order by xid limit $2
         ), gone as (
             delete from ledger.standing_change
             where xid in (select xid from old) and changed_at < $1
             returning xid
         ), last as (
             select xid from gone order by xid desc limit 1
         ), moved as (
             update ledger.standing_head h set removed = last.xid from last where h.removed < last.xid
         )
         select count(*) as "count!" from gone"#,
        Instant(before) as _,
        limit,
    )
    .fetch_one(at)
    .await?;
    Ok(u64::try_from(gone).unwrap_or_default())
}
