//! Apps and their assignments.

use drawdown_entitlement_core::{Change, History, plan::Assignment};
use drawdown_types::{AccountId, AppId, HubId, TeamId, Timestamp, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Instant, Lock, Made, Store, records::behalf};
use crate::Error;

/// Whose an app is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) account_id: AccountId,
    /// Nobody where the operator set the app up.
    pub(crate) user_id: Option<UserId>,
}

/// An app as stored.
#[derive(Clone, Debug)]
pub(crate) struct AppRecord {
    /// Whose it was when it was registered.
    pub(crate) first: Owner,
    /// Whose it is since transfers.
    pub(crate) later: History<Owner>,
}

impl AppRecord {
    /// Whose it is at `at`.
    pub(crate) fn owner_at(&self, at: Timestamp) -> Owner {
        self.later.at(at).copied().unwrap_or(self.first)
    }
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
    pub(crate) editors: Vec<UserId>,
    /// The hub that it is in, and whose that is.
    pub(crate) hub: Option<(HubId, AccountId)>,
}

struct AppRow {
    app_id: Uuid,
    account_id: Uuid,
    owner_user_id: Option<Uuid>,
    name: String,
    team_id: Option<Uuid>,
    client_ids: Vec<String>,
    editors: Vec<Uuid>,
    hub_id: Option<Uuid>,
    hub_account_id: Option<Uuid>,
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
            editors: row.editors.into_iter().map(UserId::from_uuid).collect(),
            hub: row.hub_id.map(HubId::from_uuid).zip(row.hub_account_id.map(AccountId::from_uuid)),
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
    let row = sqlx::query!(
        "SELECT account_id, owner_user_id FROM entitlement.app WHERE app_id = $1",
        app_id.as_uuid()
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let changes = sqlx::query!(
        "SELECT valid_from, account_id, owner_user_id FROM entitlement.app_owner WHERE app_id = $1",
        app_id.as_uuid()
    )
    .fetch_all(tx)
    .await?;
    let owner = |account_id, user_id: Option<Uuid>| Owner {
        account_id: AccountId::from_uuid(account_id),
        user_id: user_id.map(UserId::from_uuid),
    };
    let later = changes.into_iter().map(|change| Change {
        from: change.valid_from.0,
        value: owner(change.account_id, Some(change.owner_user_id)),
    });
    let later = History::from_changes(later).map_err(|conflict| Error::stored("owners", conflict))?;
    Ok(Some(AppRecord { first: owner(row.account_id, row.owner_user_id), later }))
}

/// The assignments of an app. The caller holds the lock of the app.
pub(crate) async fn assignments_in_tx(
    tx: &mut PgConnection,
    app_id: AppId,
) -> Result<History<TeamId>, Error> {
    let rows = sqlx::query!(
        "SELECT valid_from, team_id FROM entitlement.app_team WHERE app_id = $1 AND voided_at IS NULL",
        app_id.as_uuid()
    )
    .fetch_all(tx)
    .await?;
    let changes =
        rows.into_iter().map(|row| Change { from: row.valid_from.0, value: TeamId::from_uuid(row.team_id) });
    History::from_changes(changes).map_err(|conflict| Error::stored("assignments", conflict))
}

pub(crate) async fn append_assignment_in_tx(
    tx: &mut PgConnection,
    link: &Assignment,
    made: Made,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO entitlement.app_team (app_id, valid_from, team_id, set_up, made_at, made_by, made_through)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        link.app_id.as_uuid(),
        Instant(link.from),
        link.team_id.as_uuid(),
        link.set_up,
        Instant(made.at),
        behalf(made.by),
        made.through,
    )
    .execute(tx)
    .await?;
    Ok(())
}

impl Store {
    /// Whether there is such an app.
    pub(crate) async fn app_exists(&self, app_id: AppId) -> Result<bool, Error> {
        let mut connection = self.reader().await?;
        Ok(app_in_tx(&mut connection, app_id, Lock::No).await?.is_some())
    }

    /// Up to `rows` apps after `after`, in the order of their ids, with the team of the instant `now`.
    pub(crate) async fn apps(
        &self,
        account_id: Option<AccountId>,
        after: AppId,
        rows: i64,
        now: Timestamp,
    ) -> Result<Vec<AppListing>, Error> {
        let rows = match account_id {
            Some(account_id) => {
                apps_of_account(&mut *self.reader().await?, account_id, after, rows, now).await?
            }
            None => all_apps(&mut *self.reader().await?, after, rows, now).await?,
        };
        Ok(rows.into_iter().map(AppListing::from).collect())
    }
}

async fn all_apps(
    reader: &mut PgConnection,
    after: AppId,
    rows: i64,
    now: Timestamp,
) -> Result<Vec<AppRow>, sqlx::Error> {
    sqlx::query_as!(
        AppRow,
        r#"SELECT a.app_id, coalesce(o.account_id, a.account_id) AS "account_id!",
                CASE WHEN o.owner_id IS NULL THEN a.owner_user_id ELSE o.owner_user_id END AS owner_user_id, a.name,
                h.hub_id AS "hub_id?", h.account_id AS "hub_account_id?",
                ARRAY(SELECT e.user_id FROM entitlement.app_editor e
                      WHERE e.app_id = a.app_id AND e.from_at <= $3 AND (e.to_at IS NULL OR e.to_at > $3)
                      ORDER BY e.editor_id) AS "editors!",
                (SELECT l.team_id FROM entitlement.app_team l
                 WHERE l.app_id = a.app_id AND l.voided_at IS NULL AND l.valid_from <= $3
                 ORDER BY l.valid_from DESC LIMIT 1) AS team_id,
                ARRAY(SELECT c.client_id FROM entitlement.credential c
                      WHERE c.app_id = a.app_id AND NOT EXISTS (
                            SELECT FROM entitlement.credential_revocation r
                            WHERE r.credential_id = c.credential_id AND r.voided_at IS NULL AND r.unknown_from <= $3)
                      ORDER BY c.created_at, c.credential_id) AS "client_ids!"
         FROM entitlement.app a
         LEFT JOIN entitlement.app_hub p ON p.app_id = a.app_id AND p.to_at IS NULL
         LEFT JOIN entitlement.hub h ON h.hub_id = p.hub_id
         LEFT JOIN LATERAL (
            SELECT owner_id, account_id, owner_user_id FROM entitlement.app_owner o
            WHERE o.app_id = a.app_id AND o.valid_from <= $3 ORDER BY o.valid_from DESC LIMIT 1) o ON true
         WHERE a.app_id > $1 ORDER BY a.app_id LIMIT $2"#,
        after.as_uuid(),
        rows,
        Instant(now),
    )
    .fetch_all(reader)
    .await
}

/// A statement of its own: one statement for both would have one plan for both.
async fn apps_of_account(
    reader: &mut PgConnection,
    account_id: AccountId,
    after: AppId,
    rows: i64,
    now: Timestamp,
) -> Result<Vec<AppRow>, sqlx::Error> {
    sqlx::query_as!(
        AppRow,
        r#"SELECT a.app_id, coalesce(o.account_id, a.account_id) AS "account_id!",
                CASE WHEN o.owner_id IS NULL THEN a.owner_user_id ELSE o.owner_user_id END AS owner_user_id, a.name,
                h.hub_id AS "hub_id?", h.account_id AS "hub_account_id?",
                ARRAY(SELECT e.user_id FROM entitlement.app_editor e
                      WHERE e.app_id = a.app_id AND e.from_at <= $4 AND (e.to_at IS NULL OR e.to_at > $4)
                      ORDER BY e.editor_id) AS "editors!",
                (SELECT l.team_id FROM entitlement.app_team l
                 WHERE l.app_id = a.app_id AND l.voided_at IS NULL AND l.valid_from <= $4
                 ORDER BY l.valid_from DESC LIMIT 1) AS team_id,
                ARRAY(SELECT c.client_id FROM entitlement.credential c
                      WHERE c.app_id = a.app_id AND NOT EXISTS (
                            SELECT FROM entitlement.credential_revocation r
                            WHERE r.credential_id = c.credential_id AND r.voided_at IS NULL AND r.unknown_from <= $4)
                      ORDER BY c.created_at, c.credential_id) AS "client_ids!"
         FROM entitlement.app a
         LEFT JOIN entitlement.app_hub p ON p.app_id = a.app_id AND p.to_at IS NULL
         LEFT JOIN entitlement.hub h ON h.hub_id = p.hub_id
         LEFT JOIN LATERAL (
            SELECT owner_id, account_id, owner_user_id FROM entitlement.app_owner o
            WHERE o.app_id = a.app_id AND o.valid_from <= $4 ORDER BY o.valid_from DESC LIMIT 1) o ON true
         WHERE a.app_id IN (
                SELECT app_id FROM entitlement.app WHERE account_id = $1
                UNION SELECT app_id FROM entitlement.app_owner WHERE account_id = $1)
            AND coalesce(o.account_id, a.account_id) = $1 AND a.app_id > $2
         ORDER BY a.app_id LIMIT $3"#,
        account_id.as_uuid(),
        after.as_uuid(),
        rows,
        Instant(now),
    )
    .fetch_all(reader)
    .await
}
