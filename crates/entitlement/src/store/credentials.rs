//! Credentials and their revocations. The secret is here only as a hash.

use drawdown_entitlement_core::{Revocation, plan::UsageScope};
use drawdown_types::{AppId, CredentialId, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Instant, Made, Store, records::behalf};
use crate::Error;

/// What is stored of a new credential: its secret only as a hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewCredentialRow<'a> {
    pub(crate) credential_id: CredentialId,
    pub(crate) app_id: AppId,
    pub(crate) client_id: &'a str,
    pub(crate) secret_hmac: &'a [u8],
    pub(crate) created_at: Timestamp,
    pub(crate) known_from: Timestamp,
    pub(crate) made: Made,
}

/// What a secret is compared with.
#[derive(Clone, Debug)]
pub(crate) struct StoredSecret {
    pub(crate) hmac: Vec<u8>,
    pub(crate) created_at: Timestamp,
    pub(crate) revoked_at: Option<Timestamp>,
}

/// A credential as stored, without its secret.
#[derive(Clone, Debug)]
pub(crate) struct CredentialRecord {
    pub(crate) credential_id: CredentialId,
    pub(crate) app_id: AppId,
    pub(crate) client_id: String,
    pub(crate) created_at: Timestamp,
    pub(crate) known_from: Timestamp,
    pub(crate) revocation: Option<Revocation>,
}

struct CredentialRow {
    credential_id: Uuid,
    app_id: Uuid,
    client_id: String,
    created_at: Instant,
    known_from: Instant,
    revoked_at: Option<Instant>,
    unknown_from: Option<Instant>,
}

impl From<CredentialRow> for CredentialRecord {
    fn from(row: CredentialRow) -> Self {
        Self {
            credential_id: CredentialId::from_uuid(row.credential_id),
            app_id: AppId::from_uuid(row.app_id),
            client_id: row.client_id,
            created_at: row.created_at.0,
            known_from: row.known_from.0,
            revocation: revocation(row.revoked_at, row.unknown_from),
        }
    }
}

pub(super) fn revocation(revoked_at: Option<Instant>, unknown_from: Option<Instant>) -> Option<Revocation> {
    let both = revoked_at.zip(unknown_from);
    both.map(|(Instant(revoked_at), Instant(unknown_from))| Revocation { revoked_at, unknown_from })
}

/// How many credentials of an app are not revoked at `now`. The caller holds the lock of the app.
pub(crate) async fn credentials_in_tx(
    tx: &mut PgConnection,
    app_id: AppId,
    now: Timestamp,
) -> Result<u32, Error> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM entitlement.credential c
         WHERE c.app_id = $1 AND NOT EXISTS (
            SELECT FROM entitlement.credential_revocation r
            WHERE r.credential_id = c.credential_id AND r.voided_at IS NULL AND r.revoked_at <= $2)"#,
        app_id.as_uuid(),
        Instant(now),
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
        "INSERT INTO entitlement.credential 
            (credential_id, app_id, client_id, secret_hmac, created_at, known_from, made_at, made_by, made_through)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        new.credential_id.as_uuid(),
        new.app_id.as_uuid(),
        new.client_id,
        new.secret_hmac,
        Instant(new.created_at),
        Instant(new.known_from),
        Instant(new.made.at),
        behalf(new.made.by),
        new.made.through,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A credential; its revocation is what it is under the lock of its app.
pub(crate) async fn credential_in_tx(
    tx: &mut PgConnection,
    credential_id: CredentialId,
) -> Result<Option<CredentialRecord>, Error> {
    let row = sqlx::query_as!(
        CredentialRow,
        r#"SELECT c.credential_id, c.app_id, c.client_id, c.created_at, c.known_from,
                r.revoked_at AS "revoked_at?", r.unknown_from AS "unknown_from?"
         FROM entitlement.credential c
         LEFT JOIN entitlement.credential_revocation r ON r.credential_id = c.credential_id AND r.voided_at IS NULL
         WHERE c.credential_id = $1"#,
        credential_id.as_uuid(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(CredentialRecord::from))
}

/// Voids the revocation that a credential has. The caller holds the lock of its app.
pub(crate) async fn void_revocation_in_tx(
    tx: &mut PgConnection,
    credential_id: CredentialId,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE entitlement.credential_revocation SET voided_at = $2
         WHERE credential_id = $1 AND voided_at IS NULL",
        credential_id.as_uuid(),
        Instant(now),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The caller holds the lock of the app.
pub(crate) async fn append_revocation_in_tx(
    tx: &mut PgConnection,
    credential_id: CredentialId,
    revocation: Revocation,
    made: Made,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO entitlement.credential_revocation
            (credential_id, revoked_at, unknown_from, made_at, made_by, made_through)
         VALUES ($1, $2, $3, $4, $5, $6)",
        credential_id.as_uuid(),
        Instant(revocation.revoked_at),
        Instant(revocation.unknown_from),
        Instant(made.at),
        behalf(made.by),
        made.through,
    )
    .execute(tx)
    .await?;
    Ok(())
}

impl Store {
    /// Up to `rows` credentials of an app after `after`, in the order of their ids.
    pub(crate) async fn credentials(
        &self,
        app_id: AppId,
        after: CredentialId,
        rows: i64,
    ) -> Result<Vec<CredentialRecord>, Error> {
        let rows = sqlx::query_as!(
            CredentialRow,
            r#"SELECT c.credential_id, c.app_id, c.client_id, c.created_at, c.known_from,
                    r.revoked_at AS "revoked_at?", r.unknown_from AS "unknown_from?"
             FROM entitlement.credential c
             LEFT JOIN entitlement.credential_revocation r
                 ON r.credential_id = c.credential_id AND r.voided_at IS NULL
             WHERE c.app_id = $1 AND c.credential_id > $2 ORDER BY c.credential_id LIMIT $3"#,
            app_id.as_uuid(),
            after.as_uuid(),
            rows,
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        Ok(rows.into_iter().map(CredentialRecord::from).collect())
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
             WHERE (a.app_id = $1 OR a.account_id = $2 OR EXISTS (
                    SELECT FROM entitlement.app_owner o WHERE o.app_id = a.app_id AND o.account_id = $2))
                AND c.client_id > $3
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
            r#"SELECT c.secret_hmac, c.created_at, r.revoked_at AS "revoked_at?"
             FROM entitlement.credential c
             LEFT JOIN entitlement.credential_revocation r
                 ON r.credential_id = c.credential_id AND r.voided_at IS NULL
             WHERE c.client_id = $1"#,
            client_id,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| StoredSecret {
            hmac: row.secret_hmac,
            created_at: row.created_at.0,
            revoked_at: row.revoked_at.map(|at| at.0),
        }))
    }
}
