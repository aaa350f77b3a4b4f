//! Suspensions of accounts and teams, with their ends in the row: "does one hold now" is asked at every call, and two
//! unique indexes keep one a subject.

use drawdown_types::{AccountId, TeamId, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Instant, Store};
use crate::Error;

/// A suspension as stored.
#[derive(Clone, Debug)]
pub(crate) struct SuspensionRecord {
    pub(crate) suspension_id: i64,
    pub(crate) account_id: AccountId,
    pub(crate) team_id: Option<TeamId>,
    pub(crate) from: Timestamp,
    pub(crate) note: String,
    pub(crate) to: Option<Timestamp>,
    pub(crate) end_note: Option<String>,
}

struct SuspensionRow {
    suspension_id: i64,
    account_id: Uuid,
    team_id: Option<Uuid>,
    from_at: Instant,
    note: String,
    to_at: Option<Instant>,
    end_note: Option<String>,
}

impl From<SuspensionRow> for SuspensionRecord {
    fn from(row: SuspensionRow) -> Self {
        Self {
            suspension_id: row.suspension_id,
            account_id: AccountId::from_uuid(row.account_id),
            team_id: row.team_id.map(TeamId::from_uuid),
            from: row.from_at.0,
            note: row.note,
            to: row.to_at.map(|at| at.0),
            end_note: row.end_note,
        }
    }
}

/// The suspension that holds of a team, or of an account as a whole. The caller holds the lock of that one.
pub(crate) async fn suspension_in_tx(
    tx: &mut PgConnection,
    account_id: AccountId,
    team_id: Option<TeamId>,
) -> Result<Option<SuspensionRecord>, Error> {
    let row = sqlx::query_as!(
        SuspensionRow,
        "SELECT suspension_id, account_id, team_id, from_at, note, to_at, end_note FROM entitlement.suspension
         WHERE account_id = $1 AND team_id IS NOT DISTINCT FROM $2 AND to_at IS NULL",
        account_id.as_uuid(),
        team_id.map(TeamId::as_uuid),
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(SuspensionRecord::from))
}

pub(crate) async fn begin_suspension_in_tx(
    tx: &mut PgConnection,
    account_id: AccountId,
    team_id: Option<TeamId>,
    at: Timestamp,
    note: &str,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO entitlement.suspension (account_id, team_id, from_at, note) VALUES ($1, $2, $3, $4)",
        account_id.as_uuid(),
        team_id.map(TeamId::as_uuid),
        Instant(at),
        note,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) async fn end_suspension_in_tx(
    tx: &mut PgConnection,
    suspension_id: i64,
    at: Timestamp,
    note: &str,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE entitlement.suspension SET to_at = $2, end_note = $3 WHERE suspension_id = $1",
        suspension_id,
        Instant(at),
        note,
    )
    .execute(tx)
    .await?;
    Ok(())
}

impl Store {
    /// Up to `rows` suspensions of an account and its teams after `after`, oldest first.
    pub(crate) async fn suspensions(
        &self,
        account_id: AccountId,
        after: i64,
        rows: i64,
    ) -> Result<Vec<SuspensionRecord>, Error> {
        let rows = sqlx::query_as!(
            SuspensionRow,
            "SELECT suspension_id, account_id, team_id, from_at, note, to_at, end_note
             FROM entitlement.suspension WHERE account_id = $1 AND suspension_id > $2
             ORDER BY suspension_id LIMIT $3",
            account_id.as_uuid(),
            after,
            rows,
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        Ok(rows.into_iter().map(SuspensionRecord::from).collect())
    }
}
