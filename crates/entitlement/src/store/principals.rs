//! Principals and their keys. A secret is here only as a hash.

use drawdown_service::identity::{Role, Roles, Scope};
use drawdown_types::{AccountId, KeyId, PrincipalId, TeamId, Timestamp, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Instant, Store};
use crate::Error;

/// A principal as stored.
#[derive(Clone, Debug)]
pub(crate) struct PrincipalRecord {
    pub(crate) principal_id: PrincipalId,
    pub(crate) name: String,
    pub(crate) roles: Roles,
    pub(crate) scope: Scope,
    pub(crate) user_id: Option<UserId>,
    pub(crate) created_at: Timestamp,
    pub(crate) ended_at: Option<Timestamp>,
}

/// A key as stored, without its secret.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyRecord {
    pub(crate) key_id: KeyId,
    pub(crate) principal_id: PrincipalId,
    pub(crate) created_at: Timestamp,
    pub(crate) ends_at: Option<Timestamp>,
}

/// A key with what its secret is compared with, and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct StoredKey {
    pub(crate) hmac: Vec<u8>,
    pub(crate) ends_at: Option<Timestamp>,
    pub(crate) principal: PrincipalRecord,
}

struct PrincipalRow {
    principal_id: Uuid,
    name: String,
    roles: Vec<String>,
    account_id: Option<Uuid>,
    team_id: Option<Uuid>,
    user_id: Option<Uuid>,
    created_at: Instant,
    to_at: Option<Instant>,
}

struct KeyRow {
    key_id: Uuid,
    principal_id: Uuid,
    created_at: Instant,
    to_at: Option<Instant>,
}

impl TryFrom<PrincipalRow> for PrincipalRecord {
    type Error = Error;

    fn try_from(row: PrincipalRow) -> Result<Self, Error> {
        let roles = row.roles.iter().map(|role| role.parse::<Role>());
        let scope = match (row.account_id.map(AccountId::from_uuid), row.team_id.map(TeamId::from_uuid)) {
            (None, _) => Scope::Platform,
            (Some(account_id), None) => Scope::Account(account_id),
            (Some(account_id), Some(team_id)) => Scope::Team { account_id, team_id },
        };
        Ok(Self {
            principal_id: PrincipalId::from_uuid(row.principal_id),
            name: row.name,
            roles: roles.collect::<Result<_, _>>().map_err(|error| Error::stored("role", error))?,
            scope,
            user_id: row.user_id.map(UserId::from_uuid),
            created_at: row.created_at.0,
            ended_at: row.to_at.map(|at| at.0),
        })
    }
}

impl From<KeyRow> for KeyRecord {
    fn from(row: KeyRow) -> Self {
        Self {
            key_id: KeyId::from_uuid(row.key_id),
            principal_id: PrincipalId::from_uuid(row.principal_id),
            created_at: row.created_at.0,
            ends_at: row.to_at.map(|at| at.0),
        }
    }
}

pub(crate) async fn insert_principal_in_tx(
    tx: &mut PgConnection,
    new: &PrincipalRecord,
    made_by: &str,
) -> Result<(), Error> {
    let roles: Vec<String> = new.roles.iter().map(|role| role.to_string()).collect();
    let team_id = match new.scope {
        Scope::Team { team_id, .. } => Some(team_id.as_uuid()),
        Scope::Platform | Scope::Account(_) => None,
    };
    sqlx::query!(
        "INSERT INTO entitlement.principal
            (principal_id, name, roles, account_id, team_id, user_id, created_at, made_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        new.principal_id.as_uuid(),
        new.name,
        &roles,
        new.scope.account().map(AccountId::as_uuid),
        team_id,
        new.user_id.map(UserId::as_uuid),
        Instant(new.created_at),
        made_by,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A principal, locked until the transaction ends.
pub(crate) async fn principal_in_tx(
    tx: &mut PgConnection,
    principal_id: PrincipalId,
) -> Result<Option<PrincipalRecord>, Error> {
    let row = sqlx::query_as!(
        PrincipalRow,
        "SELECT principal_id, name, roles, account_id, team_id, user_id, created_at, to_at
         FROM entitlement.principal WHERE principal_id = $1 FOR UPDATE",
        principal_id.as_uuid(),
    )
    .fetch_optional(tx)
    .await?;
    row.map(PrincipalRecord::try_from).transpose()
}

pub(crate) async fn end_principal_in_tx(
    tx: &mut PgConnection,
    principal_id: PrincipalId,
    at: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE entitlement.principal SET to_at = $2 WHERE principal_id = $1",
        principal_id.as_uuid(),
        Instant(at),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// How many keys of a principal are good at `now`. The caller holds the lock of the principal.
pub(crate) async fn good_keys_in_tx(
    tx: &mut PgConnection,
    principal_id: PrincipalId,
    now: Timestamp,
) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM entitlement.principal_key
         WHERE principal_id = $1 AND (to_at IS NULL OR to_at > $2)"#,
        principal_id.as_uuid(),
        Instant(now),
    )
    .fetch_one(tx)
    .await?)
}

pub(crate) async fn insert_key_in_tx(
    tx: &mut PgConnection,
    new: &KeyRecord,
    hmac: &[u8],
    made_by: &str,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO entitlement.principal_key (key_id, principal_id, secret_hmac, created_at, made_by, to_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
        new.key_id.as_uuid(),
        new.principal_id.as_uuid(),
        hmac,
        Instant(new.created_at),
        made_by,
        new.ends_at.map(Instant) as Option<Instant>,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A key; its end is what it is under the lock of its principal.
pub(crate) async fn key_in_tx(tx: &mut PgConnection, key_id: KeyId) -> Result<Option<KeyRecord>, Error> {
    let row = sqlx::query_as!(
        KeyRow,
        "SELECT key_id, principal_id, created_at, to_at FROM entitlement.principal_key WHERE key_id = $1",
        key_id.as_uuid(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(KeyRecord::from))
}

pub(crate) async fn end_key_in_tx(tx: &mut PgConnection, key_id: KeyId, at: Timestamp) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE entitlement.principal_key SET to_at = $2 WHERE key_id = $1",
        key_id.as_uuid(),
        Instant(at),
    )
    .execute(tx)
    .await?;
    Ok(())
}

impl Store {
    /// Up to `rows` principals after `after`, in the order of their ids; of one account, or all.
    pub(crate) async fn principals(
        &self,
        account_id: Option<AccountId>,
        after: PrincipalId,
        rows: i64,
    ) -> Result<Vec<PrincipalRecord>, Error> {
        let rows = sqlx::query_as!(
            PrincipalRow,
            "SELECT principal_id, name, roles, account_id, team_id, user_id, created_at, to_at
             FROM entitlement.principal
             WHERE ($1::uuid IS NULL OR account_id = $1) AND principal_id > $2 ORDER BY principal_id LIMIT $3",
            account_id.map(AccountId::as_uuid),
            after.as_uuid(),
            rows,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(PrincipalRecord::try_from).collect()
    }

    /// Up to `rows` keys of a principal after `after`, in the order of their ids; `None` where there is no such principal.
    pub(crate) async fn keys(
        &self,
        principal_id: PrincipalId,
        after: KeyId,
        rows: i64,
    ) -> Result<Option<Vec<KeyRecord>>, Error> {
        let known = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM entitlement.principal WHERE principal_id = $1) AS "known!""#,
            principal_id.as_uuid(),
        );
        if !known.fetch_one(&self.pool).await? {
            return Ok(None);
        }
        let rows = sqlx::query_as!(
            KeyRow,
            "SELECT key_id, principal_id, created_at, to_at FROM entitlement.principal_key
             WHERE principal_id = $1 AND key_id > $2 ORDER BY key_id LIMIT $3",
            principal_id.as_uuid(),
            after.as_uuid(),
            rows,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(Some(rows.into_iter().map(KeyRecord::from).collect()))
    }

    /// What the secret of a key is compared with, and whose it is.
    pub(crate) async fn stored_key(&self, key_id: KeyId) -> Result<Option<StoredKey>, Error> {
        let row = sqlx::query!(
            r#"SELECT k.secret_hmac, k.to_at, p.principal_id, p.name, p.roles, p.account_id, p.team_id, p.user_id,
                    p.created_at, p.to_at AS ended_at
             FROM entitlement.principal_key k JOIN entitlement.principal p USING (principal_id)
             WHERE k.key_id = $1"#,
            key_id.as_uuid(),
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let principal = PrincipalRow {
            principal_id: row.principal_id,
            name: row.name,
            roles: row.roles,
            account_id: row.account_id,
            team_id: row.team_id,
            user_id: row.user_id,
            created_at: row.created_at,
            to_at: row.ended_at,
        };
        let ends_at = row.to_at.map(|at| at.0);
        Ok(Some(StoredKey { hmac: row.secret_hmac, ends_at, principal: principal.try_into()? }))
    }
}
