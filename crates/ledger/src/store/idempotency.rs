//! Answers by request id, kept in the transaction of their effect. An id is of the account that its caller is of, or of
//! the platform: what one tenant has used says nothing to another.
//!
//! An answer is written last. Two calls with one id at the same moment both do the work, the second
//! waits at the unique key for the first to end, and its whole transaction is undone: one effect.

use drawdown_service::identity;
use drawdown_types::Timestamp;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::Instant;
use crate::error::Error;

/// Names a request and its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    method: &'static str,
    caller_account: String,
    request_id: String,
    hash: [u8; 32],
}

/// What is known of a request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    New,
    /// This very request: its answer.
    Answered(Vec<u8>),
    /// Another request.
    Taken,
}

impl RequestKey {
    /// The key of a call of `method` by the caller in hand with the encoded `content`.
    #[must_use]
    pub fn new(method: &'static str, request_id: &str, content: &[u8]) -> Self {
        let hash = Sha256::new_with_prefix(method).chain_update([0]).chain_update(content).finalize();
        let account = identity::current_account();
        Self {
            method,
            caller_account: account.map(|account| account.as_uuid().to_string()).unwrap_or_default(),
            request_id: request_id.to_owned(),
            hash: hash.into(),
        }
    }
}

/// What is known of the request id of `key`.
pub async fn find(at: &mut PgConnection, key: &RequestKey) -> Result<Known, Error> {
    let row = sqlx::query!(
        "select request_hash, response from ledger.idempotency where request_id = $1 and caller_account = $2",
        key.request_id,
        key.caller_account,
    )
    .fetch_optional(at)
    .await?;
    Ok(match row {
        None => Known::New,
        Some(row) if row.request_hash == key.hash => Known::Answered(row.response),
        Some(_) => Known::Taken,
    })
}

/// Keeps the answer; false where the request id was taken meanwhile, and the transaction is lost.
pub async fn remember_in_tx(
    tx: &mut PgConnection,
    key: &RequestKey,
    response: &[u8],
    now: Timestamp,
) -> Result<bool, Error> {
    let inserted = sqlx::query!(
        "insert into ledger.idempotency (request_id, caller_account, method, request_hash, response, created_at)
         values ($1, $2, $3, $4, $5, $6)",
        key.request_id,
        key.caller_account,
        key.method,
        &key.hash,
        response,
        Instant(now) as _,
    )
    .execute(tx)
    .await;
    match inserted {
        Ok(_) => Ok(true),
        Err(error) if error.as_database_error().is_some_and(|e| e.is_unique_violation()) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
