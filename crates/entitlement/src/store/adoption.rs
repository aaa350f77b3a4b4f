//! What the ledger is to be told about first teams (D49).

use drawdown_types::{AccountId, AppId, TeamId, Timestamp};
use sqlx::PgConnection;

use super::{Instant, Store};
use crate::Error;

/// A row that is due, with what belongs to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DueAdoption {
    pub(crate) adoption_id: i64,
    pub(crate) account_id: AccountId,
    pub(crate) account_since: Timestamp,
    pub(crate) team_id: TeamId,
    pub(crate) app_id: AppId,
    pub(crate) assigned_from: Timestamp,
}

/// Notes that the ledger is to be told at `due_at` that `app_id` has `team_id` from an edge on.
pub(crate) async fn note_adoption_in_tx(
    tx: &mut PgConnection,
    app_id: AppId,
    team_id: TeamId,
    assigned_from: Timestamp,
    due_at: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO entitlement.adoption (app_id, team_id, assigned_from, due_at) VALUES ($1, $2, $3, $4)",
        app_id.as_uuid(),
        team_id.as_uuid(),
        Instant(assigned_from),
        Instant(due_at),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The first team of an app and since when it has it. The caller holds the lock of the app.
pub(crate) async fn first_team_in_tx(
    tx: &mut PgConnection,
    app_id: AppId,
) -> Result<Option<(TeamId, Timestamp)>, Error> {
    let row = sqlx::query!(
        "SELECT team_id, valid_from FROM entitlement.app_team
         WHERE app_id = $1 AND voided_at IS NULL ORDER BY valid_from LIMIT 1",
        app_id.as_uuid(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| (TeamId::from_uuid(row.team_id), row.valid_from.0)))
}

/// Whether the ledger was told of the first team of an app, or may be told at this moment. The caller holds the lock of
/// the app.
pub(crate) async fn adoption_begun_in_tx(
    tx: &mut PgConnection,
    app_id: AppId,
    now: Timestamp,
) -> Result<bool, Error> {
    let begun = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM entitlement.adoption
           WHERE app_id = $1 AND taken_back_at IS NULL AND (done_at IS NOT NULL OR due_at <= $2)) AS "begun!""#,
        app_id.as_uuid(),
        Instant(now),
    )
    .fetch_one(tx)
    .await?;
    Ok(begun)
}

/// Takes back what the ledger was not told yet of the first team of an app, and notes the first team that it has now.
/// The caller holds the lock of the app.
pub(crate) async fn renew_adoption_in_tx(
    tx: &mut PgConnection,
    app_id: AppId,
    now: Timestamp,
) -> Result<(), Error> {
    let taken_back = sqlx::query!(
        "UPDATE entitlement.adoption SET taken_back_at = $2
         WHERE app_id = $1 AND done_at IS NULL AND taken_back_at IS NULL",
        app_id.as_uuid(),
        Instant(now),
    )
    .execute(&mut *tx)
    .await?;
    if taken_back.rows_affected() == 0 {
        return Ok(());
    }
    match first_team_in_tx(tx, app_id).await? {
        Some((team_id, from)) => note_adoption_in_tx(tx, app_id, team_id, from, from).await,
        None => Ok(()),
    }
}

impl Store {
    /// Up to `rows` rows after `after` that are due at `now` and not done. Usage without a team is kept by the leading
    /// ledger, which can not charge it to a team of another one: such rows are left as they are.
    pub(crate) async fn due_adoptions(
        &self,
        now: Timestamp,
        after: i64,
        rows: u32,
    ) -> Result<Vec<DueAdoption>, Error> {
        let rows = sqlx::query!(
            "SELECT d.adoption_id, p.account_id, c.created_at, d.team_id, d.app_id, d.assigned_from
             FROM entitlement.adoption d
             JOIN entitlement.team p ON p.team_id = d.team_id
             JOIN entitlement.account c ON c.account_id = p.account_id
             WHERE d.done_at IS NULL AND d.taken_back_at IS NULL AND d.due_at <= $1 AND d.adoption_id > $2 AND c.cell = 0
             ORDER BY d.adoption_id LIMIT $3",
            Instant(now),
            after,
            i64::from(rows),
        )
        .fetch_all(&self.pool)
        .await?;
        let due = rows.into_iter().map(|row| DueAdoption {
            adoption_id: row.adoption_id,
            account_id: AccountId::from_uuid(row.account_id),
            account_since: row.created_at.0,
            team_id: TeamId::from_uuid(row.team_id),
            app_id: AppId::from_uuid(row.app_id),
            assigned_from: row.assigned_from.0,
        });
        Ok(due.collect())
    }

    /// The ledger has answered.
    pub(crate) async fn adoption_done(&self, adoption_id: i64, now: Timestamp) -> Result<(), Error> {
        sqlx::query!(
            "UPDATE entitlement.adoption SET done_at = $2
             WHERE adoption_id = $1 AND done_at IS NULL AND taken_back_at IS NULL",
            adoption_id,
            Instant(now),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
