//! What the gate reads and what a settled batch leaves behind. Everything here runs while the cursor of
//! the shard is locked: nobody else moves the lanes or the number.

use std::collections::HashMap;

use drawdown_ledger_core::{DistinctValues, Unattributable};
use drawdown_types::{AccountId, AppId, BatchId, ProducerId, TeamId, Timestamp};
use futures::FutureExt as _;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Instant,
    periods::literal,
    shards::{Cursor, LaneKey},
    write::Statement,
};
use crate::error::Error;

/// The locked cursor of a shard and the version of the catalogue, which stays as it is until the
/// transaction ends: whoever publishes a price waits for the postings that read the old ones.
pub async fn lock_in_tx(tx: &mut PgConnection, shard: i32) -> Result<Option<(Cursor, i64)>, Error> {
    let row = sqlx::query!(
        "select c.generation, c.last_batch, k.version
         from ledger.shard_cursor c cross join ledger.catalogue k
         where c.shard = $1
         for update of c for share of k",
        shard,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| {
        let cursor = Cursor { shard, generation: row.generation.cast_unsigned(), last_batch: row.last_batch };
        (cursor, row.version)
    }))
}

/// A batch as it was settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its digest.
    pub digest: Vec<u8>,
    /// When it was posted.
    pub posted_at: Timestamp,
    /// Charges written.
    pub charges: i64,
    /// Lines left unattributed.
    pub unattributed: i64,
    /// Σ price of its charges, in micro-tokens.
    pub amount_micros: i64,
    /// How it was split.
    pub split: Split,
}

/// How a batch was split between cells, as one of them has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Lines here.
    pub lines: i64,
    /// Events in them.
    pub events: i64,
    /// Events elsewhere.
    pub elsewhere_events: i64,
    /// Events and quantity elsewhere, by meter.
    pub elsewhere: serde_json::Value,
}

/// Where a lane stands for the gate. A lane of a known producer that never settled anything stands at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneStand {
    /// The last settled sequence.
    pub settled: i64,
    /// The chain after it.
    pub chain: u64,
}

/// What the gate compares a batch with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The batch of that number, if it is settled.
    pub receipt: Option<Receipt>,
    /// The lanes asked for whose producers are known.
    pub lanes: HashMap<LaneKey, LaneStand>,
}

/// The locked cursor, the version of the catalogue as in [`lock_in_tx`], and what the gate compares batch `number` of
/// `shard` with, read after the lock; nothing where the shard has no cursor. One message.
pub async fn gate_in_tx(
    tx: &mut PgConnection,
    shard: i32,
    number: i64,
    lanes: &[LaneKey],
) -> Result<Option<(Cursor, i64, Facts)>, Error> {
    let producers: Vec<Uuid> = lanes.iter().map(|lane| lane.producer_id.as_uuid()).collect();
    let maps: Vec<i32> = lanes.iter().map(|lane| lane.map_version).collect();
    let rows = sqlx::query!(
        r#"select generation as "generation!", last_batch as "last_batch!", catalogue as "catalogue!",
                  digest, posted_at, charges, unattributed, amount_micros,
                  lines, events, elsewhere_events, elsewhere,
                  producer_id, map_version, settled, chain
           from ledger.gate_facts($1, $2, $3, $4)"#,
        shard,
        number,
        &producers,
        &maps,
    )
    .fetch_all(tx)
    .await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let cursor = Cursor { shard, generation: first.generation.cast_unsigned(), last_batch: first.last_batch };
    let version = first.catalogue;
    let mut facts = Facts::default();
    for row in rows {
        if let (Some(digest), Some(posted_at), Some(charges), Some(unattributed), Some(amount_micros)) =
            (row.digest, row.posted_at, row.charges, row.unattributed, row.amount_micros)
        {
            let posted_at = posted_at.0;
            let elsewhere = row.elsewhere.as_deref().unwrap_or_default();
            let split = Split {
                lines: row.lines.unwrap_or_default(),
                events: row.events.unwrap_or_default(),
                elsewhere_events: row.elsewhere_events.unwrap_or_default(),
                elsewhere: serde_json::from_str(elsewhere)
                    .map_err(|error| Error::stored("sums of a batch")(error.into()))?,
            };
            facts.receipt = Some(Receipt { digest, posted_at, charges, unattributed, amount_micros, split });
        }
        if let (Some(producer_id), Some(map_version), Some(settled), Some(chain)) =
            (row.producer_id, row.map_version, row.settled, row.chain)
        {
            let key = LaneKey { producer_id: ProducerId::from_uuid(producer_id), map_version };
            facts.lanes.insert(key, LaneStand { settled, chain: chain.cast_unsigned() });
        }
    }
    Ok(Some((cursor, version, facts)))
}

/// The range of one lane that a batch settles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneRange {
    /// The lane.
    pub key: LaneKey,
    /// The epoch under which it was applied: kept, never compared.
    pub epoch: i64,
    /// First sequence.
    pub from: i64,
    /// Last sequence.
    pub to: i64,
    /// The chain before the first.
    pub chain_before: u64,
    /// The chain after the last.
    pub chain_after: u64,
}

/// A line that no team is charged for.
#[derive(Clone, Debug)]
pub struct UnattributedRow<'a> {
    /// The client id as metered.
    pub client_id: &'a str,
    /// The meter's slug.
    pub meter: &'a str,
    /// The metered job failed.
    pub failed: bool,
    /// Start of the window.
    pub window: Timestamp,
    /// Start of the window in which it was received.
    pub received_window: Timestamp,
    /// Dimensions as a JSON object.
    pub dimensions: &'a str,
    /// Events.
    pub events: i64,
    /// Quantity in the meter's base unit.
    pub quantity: i64,
    /// Why.
    pub reason: Unattributable,
    /// Its distinct values, of a unique meter.
    pub values: Option<&'a DistinctValues>,
    /// Who would have paid, where that is known.
    pub payer: Option<(AccountId, TeamId, AppId)>,
}

/// What makes a batch settled.
#[derive(Debug)]
pub struct SettledRows<'a> {
    /// Its name.
    pub batch_id: BatchId,
    /// The shard.
    pub shard: i32,
    /// Its number.
    pub number: i64,
    /// The generation it was sealed under.
    pub generation: u64,
    /// Its digest.
    pub digest: &'a [u8],
    /// The instant of its transaction.
    pub posted_at: Timestamp,
    /// The lane ranges.
    pub lanes: &'a [LaneRange],
    /// Lines.
    pub lines: i64,
    /// Events in lines.
    pub events: i64,
    /// Events refused by metering.
    pub refused: i64,
    /// Those by reason, as a JSON object.
    pub refused_by_reason: &'a str,
    /// Events and quantity by meter, as a JSON object.
    pub totals: &'a str,
    /// Events that other cells have.
    pub elsewhere_events: i64,
    /// Events and quantity that other cells have, by meter, as a JSON object.
    pub elsewhere: &'a str,
    /// Charges written.
    pub charges: i64,
    /// Σ price of its charges, in micro-tokens.
    pub amount_micros: i64,
    /// What no lot covered of it.
    pub uncharged_micros: i64,
    /// Lines that no team is charged for.
    pub unattributed: &'a [UnattributedRow<'a>],
    /// Newest window of each client id, each once.
    pub clients: &'a [(&'a str, Timestamp)],
}

fn col<'a, R, T>(rows: &'a [R], value: impl FnMut(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// The statement that writes the batch row, its ranges and its unattributed lines, and moves lanes and cursor: last, after
/// the money, in the same transaction.
pub(crate) fn statement(rows: &SettledRows<'_>) -> Statement {
    let (lanes, clients, left) = (rows.lanes, rows.clients, rows.unattributed);
    let left_count = i64::try_from(left.len()).unwrap_or(i64::MAX);
    let query = sqlx::query_file!(
        "sql/settle.sql",
        rows.shard,
        rows.number,
        rows.generation.cast_signed(),
        rows.digest,
        Instant(rows.posted_at) as _,
        rows.lines,
        rows.events,
        rows.refused,
        rows.refused_by_reason,
        rows.charges,
        left_count,
        rows.amount_micros,
        rows.uncharged_micros,
        &col(lanes, |l| l.key.producer_id.as_uuid()),
        &col(lanes, |l| l.key.map_version),
        &col(lanes, |l| l.epoch),
        &col(lanes, |l| l.from),
        &col(lanes, |l| l.to),
        &col(lanes, |l| l.chain_before.cast_signed()),
        &col(lanes, |l| l.chain_after.cast_signed()),
        rows.batch_id.as_uuid(),
        col(clients, |(client, _)| *client) as _,
        col(clients, |(_, window)| Instant(*window)) as _,
        col(left, |u| u.client_id) as _,
        col(left, |u| u.meter) as _,
        &col(left, |u| u.failed),
        col(left, |u| Instant(u.window)) as _,
        col(left, |u| Instant(u.received_window)) as _,
        col(left, |u| u.dimensions) as _,
        &col(left, |u| u.events),
        &col(left, |u| u.quantity),
        col(left, |u| u.reason.as_str()) as _,
        col(left, |u| u.payer.map(|(account, ..)| account.as_uuid())) as _,
        col(left, |u| u.payer.map(|(_, team, _)| team.as_uuid())) as _,
        col(left, |u| u.payer.map(|(.., app)| app.as_uuid())) as _,
        rows.totals,
        col(left, |u| u.values.map(literal)) as _,
        rows.elsewhere_events,
        rows.elsewhere,
    );
    Statement::new(move |tx| {
        async move {
            query.execute(tx).await?;
            Ok(())
        }
        .boxed()
    })
}

/// Notes the newest windows of client ids, sorted by client id, as a settled batch does for all of its own.
pub async fn note_clients_in_tx(tx: &mut PgConnection, clients: &[(&str, Timestamp)]) -> Result<(), Error> {
    sqlx::query!(
        "insert into ledger.client_usage (client_id, last_window)
         select * from unnest($1::text[], $2::timestamptz[]) as c (client_id, last_window) order by c.client_id
         on conflict (client_id) do update set last_window = excluded.last_window
             where ledger.client_usage.last_window < excluded.last_window",
        col(clients, |(client, _)| *client) as _,
        col(clients, |(_, window)| Instant(*window)) as _,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Whether usage at or after `from` is settled: of some client ids, of a team, or (with neither) at all.
pub async fn has_settled_usage(
    at: &mut PgConnection,
    clients: &[String],
    team: Option<TeamId>,
    from: Timestamp,
) -> Result<bool, Error> {
    let settled = sqlx::query_scalar!(
        r#"select exists (select 1 from ledger.client_usage where client_id = any($1) and last_window >= $3)
               or exists (select 1 from ledger.balance where team_id = $2 and last_window >= $3) as "settled!""#,
        clients,
        team.map(|team| team.as_uuid()),
        Instant(from) as _,
    )
    .fetch_one(at)
    .await?;
    Ok(settled)
}

/// Whether any usage of windows at or after `from` is settled. The catalogue is locked, so no posting
/// is under way.
pub async fn any_usage_in_tx(tx: &mut PgConnection, from: Timestamp) -> Result<bool, Error> {
    let settled = sqlx::query_scalar!(
        r#"select exists (select 1 from ledger.client_usage where last_window >= $1) as "settled!""#,
        Instant(from) as _,
    )
    .fetch_one(tx)
    .await?;
    Ok(settled)
}
