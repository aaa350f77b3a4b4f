//! The records around an act: its request id and its line in the audit log, both in the act's own
//! transaction, so that there is one effect a request id and no effect without its line.

use drawdown_entitlement_core::plan::Actor;
use drawdown_service::identity;
use drawdown_types::{AccountId, Timestamp};
use sqlx::PgConnection;

use super::Instant;
use crate::Error;

/// A request id within its method, with the hash of the content it came with. Whose it is, the caller says: what a
/// tenant calls its request takes nothing from another one, nor from the platform.
#[derive(Clone, Debug)]
pub(crate) struct RequestKey {
    pub(crate) method: &'static str,
    /// Empty: the caller does not ask for harmless retries.
    pub(crate) request_id: String,
    pub(crate) hash: Vec<u8>,
}

/// What comes of claiming a request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is new, and ours until the transaction ends.
    Ours,
    /// It was used for the same content; this was answered.
    Answered(Vec<u8>),
    /// It was used for other content.
    Reused,
}

/// One line of the audit log.
#[derive(Clone, Debug)]
pub(crate) struct AuditEntry {
    pub(crate) at: Timestamp,
    pub(crate) actor: Actor,
    /// Why, where the act asks for it.
    pub(crate) reason: Option<String>,
    pub(crate) subject: String,
    pub(crate) account_id: Option<AccountId>,
    pub(crate) before: Option<serde_json::Value>,
    pub(crate) after: serde_json::Value,
}

/// Who made a row of a history, when and by which act.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) at: Timestamp,
    pub(crate) by: Actor,
    pub(crate) through: &'static str,
}

/// On whose behalf something is done: the person that the act names, else the one that the caller acts for, else the
/// caller itself where it is of one account, else the operator.
pub(crate) fn behalf(actor: Actor) -> String {
    let caller = identity::current();
    match (actor, caller.user_id) {
        (Actor::User(user_id), _) | (Actor::Operator, Some(user_id)) => user_id.to_string(),
        (Actor::Operator, None) if caller.account().is_some() => caller.to_string(),
        (Actor::Operator, None) => actor.to_string(),
    }
}

/// Whose request ids those of the caller are: of its account; empty for callers of the platform.
fn account_of_caller() -> String {
    identity::current_account().map(|account_id| account_id.to_string()).unwrap_or_default()
}

/// Claims a request id. Where another transaction is about to use it, this waits for its end.
pub(crate) async fn claim_in_tx(
    tx: &mut PgConnection,
    key: &RequestKey,
    now: Timestamp,
) -> Result<Claim, Error> {
    if key.request_id.is_empty() {
        return Ok(Claim::Ours);
    }
    let account = account_of_caller();
    let inserted = sqlx::query!(
        "INSERT INTO entitlement.idempotency (account, method, request_id, request_hash, created_at)
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        account,
        key.method,
        key.request_id,
        key.hash.as_slice(),
        Instant(now),
    )
    .execute(&mut *tx)
    .await?;
    if inserted.rows_affected() == 1 {
        return Ok(Claim::Ours);
    }
    let row = sqlx::query!(
        "SELECT request_hash, response FROM entitlement.idempotency
         WHERE account = $1 AND method = $2 AND request_id = $3",
        account,
        key.method,
        key.request_id,
    )
    .fetch_one(tx)
    .await?;
    if row.request_hash != key.hash {
        return Ok(Claim::Reused);
    }
    row.response
        .map(Claim::Answered)
        .ok_or_else(|| Error::stored("answer", "a request id was committed without its answer"))
}

/// Keeps the answer of an act for its retries. It must hold no secret.
pub(crate) async fn keep_answer_in_tx(
    tx: &mut PgConnection,
    key: &RequestKey,
    response: &[u8],
) -> Result<(), Error> {
    if key.request_id.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE entitlement.idempotency SET response = $4
         WHERE account = $1 AND method = $2 AND request_id = $3",
        account_of_caller(),
        key.method,
        key.request_id,
        response,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) async fn append_audit_in_tx(
    tx: &mut PgConnection,
    method: &str,
    entry: &AuditEntry,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO entitlement.audit_log (at, actor, caller, method, subject, account_id, reason, before, after)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb, $9::text::jsonb)",
        Instant(entry.at),
        behalf(entry.actor),
        identity::current().to_string(),
        method,
        entry.subject,
        entry.account_id.map(AccountId::as_uuid),
        entry.reason.as_deref(),
        entry.before.as_ref().map(ToString::to_string),
        entry.after.to_string(),
    )
    .execute(tx)
    .await?;
    Ok(())
}
