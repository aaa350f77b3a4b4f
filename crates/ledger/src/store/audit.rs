//! What was done outside the money, in the transaction that did it.

use drawdown_types::Timestamp;
use sqlx::PgConnection;

use super::Instant;
use crate::error::Error;

/// Notes an act.
pub async fn note_in_tx(
    tx: &mut PgConnection,
    now: Timestamp,
    action: &'static str,
    subject: &str,
    detail: &serde_json::Value,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into ledger.audit_log (at, action, subject, detail) values ($1, $2, $3, $4::text::jsonb)",
        Instant(now) as _,
        action,
        subject,
        detail.to_string(),
    )
    .execute(tx)
    .await?;
    Ok(())
}
