//! What was done outside the money, in the transaction that did it, and who called.

use drawdown_service::identity;
use drawdown_types::Timestamp;
use sqlx::PgConnection;

use super::Instant;
use crate::error::Error;

/// Notes an act of the caller in hand.
pub async fn note_in_tx(
    tx: &mut PgConnection,
    now: Timestamp,
    action: &'static str,
    subject: &str,
    detail: &serde_json::Value,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into ledger.audit_log (at, caller, action, subject, detail) values ($1, $2, $3, $4, $5::text::jsonb)",
        Instant(now) as _,
        identity::current().to_string(),
        action,
        subject,
        detail.to_string(),
    )
    .execute(tx)
    .await?;
    Ok(())
}
