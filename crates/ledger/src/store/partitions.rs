//! Charges and journal by month of posting: what partitions there are, and the one step that the service may
//! take about them. Everything that takes rows away is done by who migrates ([`crate::archive`]).

use drawdown_types::{AccountId, TeamId, Timestamp};
use sqlx::PgConnection;

use super::Instant;
use crate::error::Error;

/// How it stands with the months ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// Months after the present one whose partitions are made.
    pub months: i32,
    /// No row is in a default partition.
    pub default_is_empty: bool,
}

/// Makes what is missing of the present month and of so many after it; gives the number of partitions made.
/// Where somebody else is at it, that is 0.
pub async fn make_in_tx(tx: &mut PgConnection, now: Timestamp, ahead: i32) -> Result<i32, Error> {
    let made =
        sqlx::query_scalar!(r#"select ledger.make_months($1, $2) as "made!""#, Instant(now) as _, ahead)
            .fetch_one(tx)
            .await?;
    Ok(made)
}

/// How it stands with the months ahead.
pub async fn ahead(at: &mut PgConnection, now: Timestamp) -> Result<Ahead, Error> {
    let ahead = sqlx::query_as!(
        Ahead,
        r#"select ledger.months_ahead($1) as "months!", ledger.default_is_empty() as "default_is_empty!""#,
        Instant(now) as _,
    )
    .fetch_one(at)
    .await?;
    Ok(ahead)
}

/// Where the archive of an account, or of one of its teams, ends: what was posted before is not here. None where
/// nothing of it is archived.
pub async fn archived_until(
    at: &mut PgConnection,
    account: AccountId,
    team: Option<TeamId>,
) -> Result<Option<Timestamp>, Error> {
    let until = sqlx::query_scalar!(
        r#"select ledger.archived_until() as "until!: Instant" from ledger.archived_team
           where account_id = $1 and ($2::uuid is null or team_id = $2) limit 1"#,
        account.as_uuid(),
        team.map(TeamId::as_uuid),
    )
    .fetch_optional(at)
    .await?;
    Ok(until.map(Timestamp::from))
}

/// Whether any month is archived.
pub async fn any_archived(at: &mut PgConnection) -> Result<bool, Error> {
    let any = sqlx::query_scalar!(r#"select exists (select from ledger.archived_month) as "any!""#)
        .fetch_one(at)
        .await?;
    Ok(any)
}

/// The last archived journal row of a team; 0 where none is.
pub async fn archived_journal(at: &mut PgConnection, account: AccountId, team: TeamId) -> Result<i64, Error> {
    let seq = sqlx::query_scalar!(
        r#"select ledger.archived_seq($1, $2, false) as "seq!""#,
        account.as_uuid(),
        team.as_uuid(),
    )
    .fetch_one(at)
    .await?;
    Ok(seq)
}
