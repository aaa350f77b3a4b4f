//! Transfers of apps (D26), the owners that come of them, and editors.

use drawdown_entitlement_core::plan::{Actor, Stage, TransferState};
use drawdown_types::{AccountId, AppId, TeamId, Timestamp, TransferId, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Instant, Made, Owner, Store, records::behalf};
use crate::Error;

/// A transfer as stored.
#[derive(Clone, Debug)]
pub(crate) struct TransferRecord {
    pub(crate) transfer_id: TransferId,
    pub(crate) app_id: AppId,
    pub(crate) from: Owner,
    pub(crate) invited_at: Timestamp,
    pub(crate) closed_at: Option<Timestamp>,
    pub(crate) state: TransferState,
}

/// Whose transfers are listed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TransfersOf {
    App(AppId),
    Account(AccountId),
    Invited(UserId),
}

struct TransferRow {
    transfer_id: Uuid,
    app_id: Uuid,
    from_account_id: Uuid,
    from_user_id: Option<Uuid>,
    to_user_id: Uuid,
    invited_at: Instant,
    expires_at: Instant,
    accepted_at: Option<Instant>,
    to_team_id: Option<Uuid>,
    closed_at: Option<Instant>,
    closed_as: Option<String>,
    effective_from: Option<Instant>,
}

const fn stage_text(stage: Stage) -> Option<&'static str> {
    match stage {
        Stage::Invited | Stage::Accepted | Stage::TeamChosen => None,
        Stage::Confirmed => Some("confirmed"),
        Stage::Withdrawn => Some("withdrawn"),
        Stage::Declined => Some("declined"),
        Stage::Expired => Some("expired"),
    }
}

impl TryFrom<TransferRow> for TransferRecord {
    type Error = Error;

    fn try_from(row: TransferRow) -> Result<Self, Error> {
        let stage = match row.closed_as.as_deref() {
            Some("confirmed") => Stage::Confirmed,
            Some("withdrawn") => Stage::Withdrawn,
            Some("declined") => Stage::Declined,
            Some("expired") => Stage::Expired,
            Some(other) => return Err(Error::stored("stage of a transfer", format!("{other:?} is none"))),
            None if row.to_team_id.is_some() => Stage::TeamChosen,
            None if row.accepted_at.is_some() => Stage::Accepted,
            None => Stage::Invited,
        };
        Ok(Self {
            transfer_id: TransferId::from_uuid(row.transfer_id),
            app_id: AppId::from_uuid(row.app_id),
            from: Owner {
                account_id: AccountId::from_uuid(row.from_account_id),
                user_id: row.from_user_id.map(UserId::from_uuid),
            },
            invited_at: row.invited_at.0,
            closed_at: row.closed_at.map(|at| at.0),
            state: TransferState {
                stage,
                to: UserId::from_uuid(row.to_user_id),
                expires_at: row.expires_at.0,
                team_id: row.to_team_id.map(TeamId::from_uuid),
                effective_from: row.effective_from.map(|at| at.0),
            },
        })
    }
}

pub(crate) async fn insert_transfer_in_tx(
    tx: &mut PgConnection,
    transfer: &TransferRecord,
    by: Actor,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO entitlement.app_transfer
            (transfer_id, app_id, from_account_id, from_user_id, to_user_id, invited_at, invited_by, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        transfer.transfer_id.as_uuid(),
        transfer.app_id.as_uuid(),
        transfer.from.account_id.as_uuid(),
        transfer.from.user_id.map(UserId::as_uuid),
        transfer.state.to.as_uuid(),
        Instant(transfer.invited_at),
        behalf(by),
        Instant(transfer.state.expires_at),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A transfer; what it is holds under the lock of its app.
pub(crate) async fn transfer_in_tx(
    tx: &mut PgConnection,
    transfer_id: TransferId,
) -> Result<Option<TransferRecord>, Error> {
    let row = sqlx::query_as!(
        TransferRow,
        "SELECT transfer_id, app_id, from_account_id, from_user_id, to_user_id, invited_at, expires_at,
            accepted_at, to_team_id, closed_at, closed_as, effective_from
         FROM entitlement.app_transfer WHERE transfer_id = $1",
        transfer_id.as_uuid(),
    )
    .fetch_optional(tx)
    .await?;
    row.map(TransferRecord::try_from).transpose()
}

/// The transfer of an app that nobody closed. The caller holds the lock of the app.
pub(crate) async fn open_transfer_in_tx(
    tx: &mut PgConnection,
    app_id: AppId,
) -> Result<Option<TransferRecord>, Error> {
    let row = sqlx::query_as!(
        TransferRow,
        "SELECT transfer_id, app_id, from_account_id, from_user_id, to_user_id, invited_at, expires_at,
            accepted_at, to_team_id, closed_at, closed_as, effective_from
         FROM entitlement.app_transfer WHERE app_id = $1 AND closed_at IS NULL",
        app_id.as_uuid(),
    )
    .fetch_optional(tx)
    .await?;
    row.map(TransferRecord::try_from).transpose()
}

/// Writes how far a transfer came, at `now`. The caller holds the lock of its app.
pub(crate) async fn update_transfer_in_tx(
    tx: &mut PgConnection,
    transfer_id: TransferId,
    state: &TransferState,
    now: Timestamp,
) -> Result<(), Error> {
    let team_chosen = state.team_id.map(TeamId::as_uuid);
    let closed_as = stage_text(state.stage);
    sqlx::query!(
        "UPDATE entitlement.app_transfer SET
            accepted_at = CASE WHEN $2 THEN coalesce(accepted_at, $6) ELSE accepted_at END,
            team_chosen_at = CASE WHEN to_team_id IS DISTINCT FROM $3 THEN $6 ELSE team_chosen_at END,
            to_team_id = $3, closed_as = $4::text, closed_at = CASE WHEN $4::text IS NULL THEN NULL ELSE $6 END,
            effective_from = $5
         WHERE transfer_id = $1",
        transfer_id.as_uuid(),
        state.stage == Stage::Accepted || team_chosen.is_some(),
        team_chosen,
        closed_as,
        state.effective_from.map(Instant) as _,
        Instant(now),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The new owner of an app from an edge on. The caller holds the lock of the app.
pub(crate) async fn append_owner_in_tx(
    tx: &mut PgConnection,
    transfer: &TransferRecord,
    (account_id, from): (AccountId, Timestamp),
    made: Made,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO entitlement.app_owner
            (app_id, valid_from, account_id, owner_user_id, transfer_id, made_at, made_by, made_through)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        transfer.app_id.as_uuid(),
        Instant(from),
        account_id.as_uuid(),
        transfer.state.to.as_uuid(),
        transfer.transfer_id.as_uuid(),
        Instant(made.at),
        behalf(made.by),
        made.through,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Makes a person an editor from an instant on, who is none. The caller holds the lock of the app.
pub(crate) async fn begin_editor_in_tx(
    tx: &mut PgConnection,
    app_id: AppId,
    user_id: UserId,
    from: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO entitlement.app_editor (app_id, user_id, from_at) VALUES ($1, $2, $3)
         ON CONFLICT (app_id, user_id) WHERE to_at IS NULL DO NOTHING",
        app_id.as_uuid(),
        user_id.as_uuid(),
        Instant(from),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Ends the right of an editor, at `at` or when it begins, and says when. The caller holds the lock of the app.
pub(crate) async fn end_editor_in_tx(
    tx: &mut PgConnection,
    app_id: AppId,
    user_id: UserId,
    at: Timestamp,
) -> Result<Option<Timestamp>, Error> {
    let ended = sqlx::query_scalar!(
        r#"UPDATE entitlement.app_editor SET to_at = greatest(from_at, $3)
         WHERE app_id = $1 AND user_id = $2 AND to_at IS NULL RETURNING to_at AS "to_at!""#,
        app_id.as_uuid(),
        user_id.as_uuid(),
        Instant(at),
    )
    .fetch_optional(tx)
    .await?;
    Ok(ended.map(|at| at.0))
}

impl Store {
    /// One transfer.
    pub(crate) async fn transfer(&self, transfer_id: TransferId) -> Result<Option<TransferRecord>, Error> {
        let mut connection = self.reader().await?;
        transfer_in_tx(&mut connection, transfer_id).await
    }

    /// Up to `rows` transfers after `after`, in the order of their ids.
    pub(crate) async fn transfers(
        &self,
        of: TransfersOf,
        after: TransferId,
        rows: i64,
    ) -> Result<Vec<TransferRecord>, Error> {
        let (app_id, account_id, user_id) = match of {
            TransfersOf::App(app_id) => (Some(app_id.as_uuid()), None, None),
            TransfersOf::Account(account_id) => (None, Some(account_id.as_uuid()), None),
            TransfersOf::Invited(user_id) => (None, None, Some(user_id.as_uuid())),
        };
        let rows = sqlx::query_as!(
            TransferRow,
            "SELECT transfer_id, app_id, from_account_id, from_user_id, to_user_id, invited_at, expires_at,
                accepted_at, to_team_id, closed_at, closed_as, effective_from
             FROM entitlement.app_transfer
             WHERE (app_id = $1 OR from_account_id = $2 OR to_user_id = $3) AND transfer_id > $4
             ORDER BY transfer_id LIMIT $5",
            app_id,
            account_id,
            user_id,
            after.as_uuid(),
            rows,
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.into_iter().map(TransferRecord::try_from).collect()
    }
}
