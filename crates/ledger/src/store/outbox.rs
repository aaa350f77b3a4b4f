//! Facts for others: placed in an order after their commit, read by that order, removed when they are old.
//!
//! Places are given under the lock of the head, to what the statement after it sees committed, in order of
//! entry. Writers of one team follow each other under the team's lock and draw their entries under it: whoever
//! sees the later one committed sees the earlier one too. So places of one team are in the order of posting,
//! places of all become visible in their own order, and none is missing in between.

use drawdown_ledger_core::Fact;
use drawdown_types::{AccountId, NoticeId, TeamId, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Instant;
use crate::error::Error;

/// Where the order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Names this sequence of places.
    pub origin: Uuid,
    /// The last place given out.
    pub position: i64,
    /// The last place that was removed because of its age.
    pub removed: i64,
}

/// Which facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Of this account.
    pub account: Option<AccountId>,
    /// Of this team, whose account is named then too.
    pub team: Option<TeamId>,
    /// Of these kinds; empty for all.
    pub kinds: Vec<&'static str>,
}

/// A fact that has its place.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its place.
    pub position: i64,
    /// Its name.
    pub notice_id: NoticeId,
    /// The account.
    pub account_id: AccountId,
    /// The team.
    pub team_id: TeamId,
    /// When it became true.
    pub occurred_at: Timestamp,
    /// The instant of the transaction that wrote it.
    pub noted_at: Timestamp,
    /// The fact.
    pub fact: Fact,
}

/// Where the order stands.
pub async fn head(at: &mut PgConnection) -> Result<Head, Error> {
    Ok(sqlx::query_as!(Head, "select origin, position, removed from ledger.outbox_head")
        .fetch_one(at)
        .await?)
}

/// When the oldest fact without a place was written; `None` where all have one.
pub async fn oldest_pending(at: &mut PgConnection) -> Result<Option<Timestamp>, Error> {
    let oldest = sqlx::query_scalar!(
        r#"select min(noted_at) as "oldest: Instant" from ledger.outbox where position is null"#
    )
    .fetch_one(at)
    .await?;
    Ok(oldest.map(Timestamp::from))
}

/// Waits until nobody else gives or removes places.
pub async fn lock_in_tx(tx: &mut PgConnection) -> Result<(), Error> {
    sqlx::query!("select position from ledger.outbox_head for update").fetch_one(tx).await?;
    Ok(())
}

/// Gives the next places to at most `limit` facts; the head is locked by an earlier statement. Gives how many
/// of each kind have one now.
pub async fn place_in_tx(tx: &mut PgConnection, limit: i64) -> Result<Vec<(String, i64)>, Error> {
    let placed = sqlx::query!(
        r#"with fresh as (
             select entry, row_number() over (order by entry) as place
             from (select entry from ledger.outbox where position is null order by entry limit $1) as first
         ), placed as (
             update ledger.outbox o set position = h.position + f.place
             from fresh f, ledger.outbox_head h
             where o.position is null and o.entry = f.entry
             returning o.kind
         ), moved as (
             update ledger.outbox_head set position = position + (select count(*) from placed)
             where exists (select from placed)
         )
         select kind, count(*) as "count!" from placed group by kind"#,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(placed.into_iter().map(|row| (row.kind, row.count)).collect())
}

/// Removes at most `limit` facts from before `before`, the first ones only: as soon as one is younger, all
/// after it stay. The head is locked. Gives how many went.
pub async fn sweep_in_tx(tx: &mut PgConnection, before: Timestamp, limit: i64) -> Result<u64, Error> {
    let removed = sqlx::query_scalar!(
        r#"with first as (
             select position, noted_at from ledger.outbox
             where position > (select removed from ledger.outbox_head)
             order by position limit $2
         ), judged as (
             select position, bool_and(noted_at < $1) over (order by position) as old from first
         ), gone as (
             delete from ledger.outbox where position in (select position from judged where old)
             returning position
         ), moved as (
             update ledger.outbox_head set removed = (select max(position) from gone)
             where exists (select from gone)
         )
         select count(*) as "count!" from gone"#,
        Instant(before) as _,
        limit,
    )
    .fetch_one(tx)
    .await?;
    Ok(u64::try_from(removed).unwrap_or_default())
}

/// Begins a new sequence of places: cursors of the old one are refused from here on.
pub async fn renew_in_tx(tx: &mut PgConnection) -> Result<(), Error> {
    sqlx::query!("update ledger.outbox_head set origin = gen_random_uuid()").execute(tx).await?;
    Ok(())
}

/// Facts with places after `after` up to `to`, in order, at most `limit`.
pub async fn read(
    at: &mut PgConnection,
    choice: &Choice,
    after: i64,
    to: i64,
    limit: i64,
) -> Result<Vec<Placed>, Error> {
    let kinds: Vec<String> = choice.kinds.iter().map(|kind| (*kind).to_owned()).collect();
    // Two statements: one plan for both would have to do without the index by account.
    let rows = match choice.account {
        Some(account) => {
            sqlx::query_as!(
                Row,
                r#"select position as "position!", notice_id, account_id, team_id, occurred_at, noted_at,
                          detail::text as "detail!"
                   from ledger.outbox
                   where account_id = $1 and ($2::uuid is null or team_id = $2)
                     and (cardinality($3::text[]) = 0 or kind = any($3))
                     and position > $4 and position <= $5
                   order by position limit $6"#,
                account.as_uuid(),
                choice.team.map(TeamId::as_uuid),
                &kinds,
                after,
                to,
                limit,
            )
            .fetch_all(at)
            .await?
        }
        None => {
            sqlx::query_as!(
                Row,
                r#"select position as "position!", notice_id, account_id, team_id, occurred_at, noted_at,
                          detail::text as "detail!"
                   from ledger.outbox
                   where (cardinality($1::text[]) = 0 or kind = any($1)) and position > $2 and position <= $3
                   order by position limit $4"#,
                &kinds,
                after,
                to,
                limit,
            )
            .fetch_all(at)
            .await?
        }
    };
    rows.into_iter().map(Row::placed).collect()
}

struct Row {
    position: i64,
    notice_id: Uuid,
    account_id: Uuid,
    team_id: Uuid,
    occurred_at: Instant,
    noted_at: Instant,
    detail: String,
}

impl Row {
    fn placed(self) -> Result<Placed, Error> {
        Ok(Placed {
            position: self.position,
            notice_id: NoticeId::from_uuid(self.notice_id),
            account_id: AccountId::from_uuid(self.account_id),
            team_id: TeamId::from_uuid(self.team_id),
            occurred_at: self.occurred_at.0,
            noted_at: self.noted_at.0,
            fact: serde_json::from_str(&self.detail).map_err(|e| Error::stored("fact")(e.into()))?,
        })
    }
}
