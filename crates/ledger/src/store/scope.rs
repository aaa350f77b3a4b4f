//! Whose rows something is about.

use drawdown_types::{AccountId, TeamId};
use sqlx::PgConnection;

use crate::error::Error;

/// The teams of an account that something was posted to, by id, at most `limit`.
pub async fn teams_in_tx(
    tx: &mut PgConnection,
    account: AccountId,
    limit: i64,
) -> Result<Vec<TeamId>, Error> {
    let teams = sqlx::query_scalar!(
        "select team_id from ledger.balance where account_id = $1 order by team_id limit $2",
        account.as_uuid(),
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(teams.into_iter().map(TeamId::from_uuid).collect())
}
