//! Events whose money is another cell's, as the leading cell claimed them.
//!
//! Read and written under the cursor of their slot, as events are (`super::events`): an id is an event here or a claim
//! for one other cell, never both.

use std::collections::HashMap;

use drawdown_types::{EventName, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Instant, events::EventKey};
use crate::error::Error;

/// A claimed event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// SHA-256 over its content.
    pub content: [u8; 32],
    /// When it was claimed.
    pub claimed_at: Timestamp,
    /// The event as it was first sent: a `NamedUsage`, encoded.
    pub usage: Vec<u8>,
}

/// An event to be claimed.
#[derive(Clone, Copy, Debug)]
pub struct ClaimRow<'a> {
    /// What it is found by.
    pub key: EventKey,
    /// Its name.
    pub name: &'a EventName,
    /// SHA-256 over its content.
    pub content: &'a [u8; 32],
    /// The cell that has its money.
    pub cell: u8,
    /// The event as it was sent: a `NamedUsage`, encoded.
    pub usage: &'a [u8],
}

/// Which of these events are claimed; the cursor of their slot is locked.
pub async fn known_in_tx(
    tx: &mut PgConnection,
    keys: &[EventKey],
) -> Result<HashMap<EventKey, Claim>, Error> {
    let names: Vec<Uuid> = keys.iter().map(EventKey::as_uuid).collect();
    let rows = sqlx::query!(
        r#"select name, content, recorded_at as "recorded_at: Instant", usage
           from ledger.event_claim where name = any($1)"#,
        &names,
    )
    .fetch_all(tx)
    .await?;
    let mut claims = HashMap::with_capacity(rows.len());
    for row in rows {
        let content = <[u8; 32]>::try_from(row.content)
            .map_err(|_| Error::Broken("a digest has not 32 bytes".to_owned()))?;
        let claim = Claim { content, claimed_at: row.recorded_at.0, usage: row.usage };
        claims.insert(EventKey::from_uuid(row.name), claim);
    }
    Ok(claims)
}

/// Claims events at `now`.
pub async fn claim_in_tx(tx: &mut PgConnection, rows: &[ClaimRow<'_>], now: Timestamp) -> Result<(), Error> {
    sqlx::query!(
        "insert into ledger.event_claim (name, recorded_at, source, id, content, cell, usage)
         select unnest($1::uuid[]), $2, unnest($3::text[]), unnest($4::text[]), unnest($5::bytea[]),
                unnest($6::smallint[]), unnest($7::bytea[])",
        &rows.iter().map(|row| row.key.as_uuid()).collect::<Vec<_>>(),
        Instant(now) as _,
        rows.iter().map(|row| row.name.source.as_str()).collect::<Vec<_>>() as _,
        rows.iter().map(|row| row.name.id.as_str()).collect::<Vec<_>>() as _,
        rows.iter().map(|row| &row.content[..]).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| i16::from(row.cell)).collect::<Vec<_>>(),
        rows.iter().map(|row| row.usage).collect::<Vec<_>>() as _,
    )
    .execute(tx)
    .await?;
    Ok(())
}
