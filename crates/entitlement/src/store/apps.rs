//! Apps, their assignments and their credentials.

use drawdown_entitlement_core::{
    Change, History,
    plan::{Assignment, UsageScope},
};
use drawdown_types::{AccountId, AppId, CredentialId, TeamId, Timestamp, UserId};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Instant, Lock, Store};
use crate::Error;

/// An app as stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AppRecord {
    pub(crate) account_id: AccountId,
}

/// An app as it is listed.
#[derive(Clone, Debug)]
pub(crate) struct AppListing {
    pub(crate) app_id: AppId,
    pub(crate) account_id: AccountId,
    pub(crate) owner: Option<UserId>,
    pub(crate) name: String,
    pub(crate) team_id: Option<TeamId>,
    pub(crate) client_ids: Vec<String>,
}

/// What is stored of a new credential: its secret only as a hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewCredentialRow<'a> {
    pub(crate) credential_id: CredentialId,
    pub(crate) app_id: AppId,
    pub(crate) client_id: &'a str,
    pub(crate) secret_hmac: &'a [u8],
    pub(crate) created_at: Timestamp,
    pub(crate) known_from: Timestamp,
}

/// What a secret is compared with.
#[derive(Clone, Debug)]
pub(crate) struct StoredSecret {
    pub(crate) hmac: Vec<u8>,
    pub(crate) created_at: Timestamp,
}

struct AppRow {
    app_id: Uuid,
    account_id: Uuid,
    owner_user_id: Option<Uuid>,
    name: String,
    team_id: Option<Uuid>,
    client_ids: Vec<String>,
}

impl From<AppRow> for AppListing {
    fn from(row: AppRow) -> Self {
        Self {
            app_id: AppId::from_uuid(row.app_id),
            account_id: AccountId::from_uuid(row.account_id),
            owner: row.owner_user_id.map(UserId::from_uuid),
            name: row.name,
            team_id: row.team_id.map(TeamId::from_uuid),
            client_ids: row.client_ids,
        }
    }
}

pub(crate) async fn insert_app_in_tx(
    tx: &mut PgConnection,
    app_id: AppId,
    account_id: AccountId,
    owner: Option<UserId>,
    name: &str,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO entitlement.app (app_id, account_id, owner_user_id, name) VALUES ($1, $2, $3, $4)",
        app_id.as_uuid(),
        account_id.as_uuid(),
        owner.map(UserId::as_uuid),
        name,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// An app; held until the end of the transaction if asked for.
pub(crate) async fn app_in_tx(
    tx: &mut PgConnection,
    app_id: AppId,
    lock: Lock,
) -> Result<Option<AppRecord>, Error> {
    if lock == Lock::Held {
        sqlx::query!(
            "SELECT app_id FROM entitlement.app WHERE app_id = $1 FOR NO KEY UPDATE",
            app_id.as_uuid()
        )
        .fetch_optional(&mut *tx)
        .await?;
    }
    let account_id =
        sqlx::query_scalar!("SELECT account_id FROM entitlement.app WHERE app_id = $1", app_id.as_uuid())
            .fetch_optional(tx)
            .await?;
    Ok(account_id.map(|account_id| AppRecord { account_id: AccountId::from_uuid(account_id) }))
}

/// The assignments of an app. The caller holds the lock of the app.
pub(crate) async fn assignments_in_tx(
    tx: &mut PgConnection,
    app_id: AppId,
) -> Result<History<TeamId>, Error> {
    let rows = sqlx::query!(
        "SELECT valid_from, team_id FROM entitlement.app_team WHERE app_id = $1",
        app_id.as_uuid()
    )
    .fetch_all(tx)
    .await?;
    let changes =
        rows.into_iter().map(|row| Change { from: row.valid_from.0, value: TeamId::from_uuid(row.team_id) });
    History::from_changes(changes).map_err(|conflict| Error::stored("assignments", conflict))
}

pub(crate) async fn append_assignment_in_tx(tx: &mut PgConnection, link: &Assignment) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO entitlement.app_team (app_id, valid_from, team_id, set_up) VALUES ($1, $2, $3, $4)",
        link.app_id.as_uuid(),
        Instant(link.from),
        link.team_id.as_uuid(),
        link.set_up,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// How many credentials an app has. The caller holds the lock of the app.
pub(crate) async fn credentials_in_tx(tx: &mut PgConnection, app_id: AppId) -> Result<u32, Error> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM entitlement.credential WHERE app_id = $1"#,
        app_id.as_uuid()
    )
    .fetch_one(tx)
    .await?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

pub(crate) async fn insert_credential_in_tx(
    tx: &mut PgConnection,
    new: NewCredentialRow<'_>,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO entitlement.credential (credential_id, app_id, client_id, secret_hmac, created_at, known_from)
         VALUES ($1, $2, $3, $4, $5, $6)",
        new.credential_id.as_uuid(),
        new.app_id.as_uuid(),
        new.client_id,
        new.secret_hmac,
        Instant(new.created_at),
        Instant(new.known_from),
    )
    .execute(tx)
    .await?;
    Ok(())
}

impl Store {
    /// Up to `rows` apps after `after`, in the order of their ids, with the team of the instant `now`.
    pub(crate) async fn apps(
        &self,
        account_id: Option<AccountId>,
        after: AppId,
        rows: i64,
        now: Timestamp,
    ) -> Result<Vec<AppListing>, Error> {
        let rows = match account_id {
            Some(account_id) => apps_of_account(&self.pool, account_id, after, rows, now).await?,
            None => all_apps(&self.pool, after, rows, now).await?,
        };
        Ok(rows.into_iter().map(AppListing::from).collect())
    }

    /// Up to `rows` client ids of a scope after `after`, in their order.
    pub(crate) async fn client_ids(
        &self,
        scope: UsageScope,
        after: &str,
        rows: i64,
    ) -> Result<Vec<String>, Error> {
        let (app_id, account_id) = match scope {
            UsageScope::App(app_id) => (Some(app_id.as_uuid()), None),
            UsageScope::Account(account_id) => (None, Some(account_id.as_uuid())),
        };
        Ok(sqlx::query_scalar!(
            "SELECT c.client_id FROM entitlement.credential c JOIN entitlement.app a USING (app_id)
             WHERE (a.app_id = $1 OR a.account_id = $2) AND c.client_id > $3
             ORDER BY c.client_id LIMIT $4",
            app_id,
            account_id,
            after,
            rows,
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// What the secret of a client id is compared with.
    pub(crate) async fn secret_of(&self, client_id: &str) -> Result<Option<StoredSecret>, Error> {
        let row = sqlx::query!(
            "SELECT secret_hmac, created_at FROM entitlement.credential WHERE client_id = $1",
            client_id,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| StoredSecret { hmac: row.secret_hmac, created_at: row.created_at.0 }))
    }
}

async fn all_apps(
    pool: &PgPool,
    after: AppId,
    rows: i64,
    now: Timestamp,
) -> Result<Vec<AppRow>, sqlx::Error> {
    sqlx::query_as!(
        AppRow,
        r#"SELECT a.app_id, a.account_id, a.owner_user_id, a.name,
                (SELECT l.team_id FROM entitlement.app_team l
                 WHERE l.app_id = a.app_id AND l.valid_from <= $3
                 ORDER BY l.valid_from DESC LIMIT 1) AS team_id,
                ARRAY(SELECT c.client_id FROM entitlement.credential c
                      WHERE c.app_id = a.app_id ORDER BY c.created_at, c.credential_id) AS "client_ids!"
         FROM entitlement.app a WHERE a.app_id > $1 ORDER BY a.app_id LIMIT $2"#,
        after.as_uuid(),
        rows,
        Instant(now),
    )
    .fetch_all(pool)
    .await
}

/// A statement of its own: one statement for both would have one plan for both.
async fn apps_of_account(
    pool: &PgPool,
    account_id: AccountId,
    after: AppId,
    rows: i64,
    now: Timestamp,
) -> Result<Vec<AppRow>, sqlx::Error> {
    sqlx::query_as!(
        AppRow,
        r#"SELECT a.app_id, a.account_id, a.owner_user_id, a.name,
                (SELECT l.team_id FROM entitlement.app_team l
                 WHERE l.app_id = a.app_id AND l.valid_from <= $4
                 ORDER BY l.valid_from DESC LIMIT 1) AS team_id,
                ARRAY(SELECT c.client_id FROM entitlement.credential c
                      WHERE c.app_id = a.app_id ORDER BY c.created_at, c.credential_id) AS "client_ids!"
         FROM entitlement.app a WHERE a.account_id = $1 AND a.app_id > $2 ORDER BY a.app_id LIMIT $3"#,
        account_id.as_uuid(),
        after.as_uuid(),
        rows,
        Instant(now),
    )
    .fetch_all(pool)
    .await
}
