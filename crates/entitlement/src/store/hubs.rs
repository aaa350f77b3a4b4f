//! Hubs, and which app is in which (D29).

use drawdown_types::{AccountId, AppId, HubId, Timestamp};
use sqlx::PgConnection;

use super::{Instant, Store};
use crate::Error;

/// A hub as stored.
#[derive(Clone, Debug)]
pub(crate) struct HubRecord {
    pub(crate) hub_id: HubId,
    pub(crate) account_id: AccountId,
    pub(crate) name: String,
    pub(crate) created_at: Timestamp,
}

/// Where an app is, or was last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) hub_id: HubId,
    pub(crate) from: Timestamp,
    pub(crate) to: Option<Timestamp>,
}

pub(crate) async fn insert_hub_in_tx(tx: &mut PgConnection, hub: &HubRecord) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO entitlement.hub (hub_id, account_id, name, created_at) VALUES ($1, $2, $3, $4)",
        hub.hub_id.as_uuid(),
        hub.account_id.as_uuid(),
        hub.name,
        Instant(hub.created_at),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Whose a hub is.
pub(crate) async fn hub_account_in_tx(
    tx: &mut PgConnection,
    hub_id: HubId,
) -> Result<Option<AccountId>, Error> {
    let account_id =
        sqlx::query_scalar!("SELECT account_id FROM entitlement.hub WHERE hub_id = $1", hub_id.as_uuid())
            .fetch_optional(tx)
            .await?;
    Ok(account_id.map(AccountId::from_uuid))
}

/// Where an app is, or was last. The caller holds the lock of the app.
pub(crate) async fn place_in_tx(tx: &mut PgConnection, app_id: AppId) -> Result<Option<Place>, Error> {
    let row = sqlx::query!(
        "SELECT hub_id, from_at, to_at FROM entitlement.app_hub WHERE app_id = $1 ORDER BY place_id DESC LIMIT 1",
        app_id.as_uuid(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| Place {
        hub_id: HubId::from_uuid(row.hub_id),
        from: row.from_at.0,
        to: row.to_at.map(|at| at.0),
    }))
}

pub(crate) async fn leave_hub_in_tx(
    tx: &mut PgConnection,
    app_id: AppId,
    at: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE entitlement.app_hub SET to_at = $2 WHERE app_id = $1 AND to_at IS NULL",
        app_id.as_uuid(),
        Instant(at),
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) async fn enter_hub_in_tx(
    tx: &mut PgConnection,
    app_id: AppId,
    hub_id: HubId,
    at: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO entitlement.app_hub (app_id, hub_id, from_at) VALUES ($1, $2, $3)",
        app_id.as_uuid(),
        hub_id.as_uuid(),
        Instant(at),
    )
    .execute(tx)
    .await?;
    Ok(())
}

impl Store {
    /// Up to `rows` hubs of an account after `after`, in the order of their ids.
    pub(crate) async fn hubs(
        &self,
        account_id: AccountId,
        after: HubId,
        rows: i64,
    ) -> Result<Vec<HubRecord>, Error> {
        let rows = sqlx::query!(
            "SELECT hub_id, account_id, name, created_at FROM entitlement.hub
             WHERE account_id = $1 AND hub_id > $2 ORDER BY hub_id LIMIT $3",
            account_id.as_uuid(),
            after.as_uuid(),
            rows,
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        let record = rows.into_iter().map(|row| HubRecord {
            hub_id: HubId::from_uuid(row.hub_id),
            account_id: AccountId::from_uuid(row.account_id),
            name: row.name,
            created_at: row.created_at.0,
        });
        Ok(record.collect())
    }
}
