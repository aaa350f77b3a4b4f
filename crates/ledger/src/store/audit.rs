//! The audit log: who did what, and what was there before and after. A line is written in the transaction of
//! its act, so there is none of an act that was taken back.

use drawdown_service::identity;
use drawdown_types::Timestamp;
use sqlx::PgConnection;

use super::Instant;
use crate::error::Error;

/// An act of the caller in hand.
#[derive(Clone, Debug)]
pub struct Line {
    /// What was done.
    pub action: &'static str,
    /// The id of what it was done to.
    pub subject: String,
    /// What else is to be known of it: an object.
    pub detail: serde_json::Value,
    /// What it changed, as it was; none where nothing was there.
    pub before: Option<serde_json::Value>,
    /// The same, and what is new, as it is now.
    pub after: serde_json::Value,
}

/// Writes a line: `before` and `after` are members of its detail.
pub async fn note_in_tx(tx: &mut PgConnection, now: Timestamp, line: Line) -> Result<(), Error> {
    let Line { action, subject, detail, before, after } = line;
    let serde_json::Value::Object(mut detail) = detail else {
        return Err(Error::Broken(format!("the detail of {action} has no members")));
    };
    detail.extend(before.map(|before| ("before".to_owned(), before)));
    detail.insert("after".to_owned(), after);
    sqlx::query!(
        "insert into ledger.audit_log (at, caller, action, subject, detail) values ($1, $2, $3, $4, $5::text::jsonb)",
        Instant(now) as _,
        identity::current().to_string(),
        action,
        subject,
        serde_json::Value::Object(detail).to_string(),
    )
    .execute(tx)
    .await?;
    Ok(())
}
