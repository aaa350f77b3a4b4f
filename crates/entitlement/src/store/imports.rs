//! What an import has to know of what is here already.

use std::collections::{HashMap, HashSet};

use drawdown_types::UserId;
use sqlx::PgConnection;

use crate::Error;

/// Waits until no other import is under way: two could bring the same client ids.
pub(crate) async fn hold_imports_in_tx(tx: &mut PgConnection) -> Result<(), Error> {
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended('drawdown.entitlement.import', 0))")
        .execute(tx)
        .await?;
    Ok(())
}

/// Those of `client_ids` that were given before.
pub(crate) async fn taken_client_ids_in_tx(
    tx: &mut PgConnection,
    client_ids: &[String],
) -> Result<HashSet<String>, Error> {
    let taken = sqlx::query_scalar!(
        "SELECT client_id FROM entitlement.credential WHERE client_id = ANY($1)",
        client_ids,
    )
    .fetch_all(tx)
    .await?;
    Ok(taken.into_iter().collect())
}

/// Who has these mail addresses, whatever the case of their letters; by the address as it is given.
pub(crate) async fn users_by_email_in_tx(
    tx: &mut PgConnection,
    emails: &[String],
) -> Result<HashMap<String, UserId>, Error> {
    let rows = sqlx::query!(
        r#"SELECT e.email AS "email!", u.user_id FROM unnest($1::text[]) AS e (email)
         JOIN entitlement.app_user u ON lower(u.email) = lower(e.email)"#,
        emails,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.email, UserId::from_uuid(row.user_id))).collect())
}
