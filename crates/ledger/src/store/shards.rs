//! Cursors, lanes and producers: what the gate checks against (exactly-once.md, "Specification").
//!
//! Lock order of every writer here: cursor rows by shard, then producers, then lanes. A posting holds
//! its cursor row from its first statement on, so whoever holds it may read the lanes of the shard and
//! trust them until the commit. 64-bit generations and chains are stored as `bigint` of the same bits.

use drawdown_types::{ProducerId, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Instant, Pool};
use crate::error::Error;

/// What the gate knows of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The shard.
    pub shard: i32,
    /// The generation.
    pub generation: u64,
    /// The last settled batch; 0 before the first.
    pub last_batch: i64,
}

/// A lane of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneKey {
    /// Whose log.
    pub producer_id: ProducerId,
    /// The map version it was written under.
    pub map_version: i32,
}

/// Where a lane stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The shard.
    pub shard: i32,
    /// Which lane of it.
    pub key: LaneKey,
    /// The registered epoch of its producer.
    pub epoch: i64,
    /// The last settled sequence.
    pub settled: i64,
    /// The chain after it.
    pub chain: u64,
}

/// Gives every shard named a cursor, if it has none; `generations` are tried for those.
pub async fn ensure_cursors(
    pool: &Pool,
    shards: &[i32],
    generations: &[u64],
    now: Timestamp,
) -> Result<(), Error> {
    let generations: Vec<i64> = generations.iter().map(|bits| bits.cast_signed()).collect();
    let mut tx = pool.begin().await?;
    sqlx::query!(
        "insert into ledger.shard_cursor (shard, generation, changed_at)
         select shard, generation, $3 from unnest($1::int[], $2::bigint[]) as new (shard, generation)
         order by shard
         on conflict (shard) do nothing",
        shards,
        &generations,
        Instant(now) as _,
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

/// Whose lanes are told with the cursors of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LanesOf {
    /// All that the shards have: as many as there ever were.
    Everybody,
    /// Those of the producers that are asked for.
    ThoseProducers,
}

/// A cursor with one of its lanes, or with none.
struct CursorRow {
    shard: i32,
    generation: i64,
    last_batch: i64,
    producer_id: Option<Uuid>,
    map_version: Option<i32>,
    epoch: Option<i64>,
    settled: Option<i64>,
    chain: Option<i64>,
}

/// Cursors and lanes of some shards, all of one instant: two statements could tell of a batch whose
/// lanes have moved but whose number has not.
async fn cursors_in_tx(
    tx: &mut PgConnection,
    shards: &[i32],
    producers: &[ProducerId],
    lanes: LanesOf,
) -> Result<(Vec<Cursor>, Vec<Lane>), Error> {
    // Two statements, so that the one for some producers finds their lanes by the key whatever plan is kept.
    let rows = match lanes {
        LanesOf::Everybody => {
            sqlx::query_as!(
                CursorRow,
                r#"select c.shard, c.generation, c.last_batch,
                          l.producer_id as "producer_id?", l.map_version as "map_version?",
                          p.epoch as "epoch?", l.settled as "settled?", l.chain as "chain?"
                   from ledger.shard_cursor c
                   left join (ledger.lane_settled l join ledger.producer p using (producer_id)) on l.shard = c.shard
                   where c.shard = any($1)
                   order by c.shard, l.producer_id, l.map_version"#,
                shards,
            )
            .fetch_all(tx)
            .await?
        }
        LanesOf::ThoseProducers => {
            let producers: Vec<Uuid> = producers.iter().map(|id| id.as_uuid()).collect();
            sqlx::query_as!(
                CursorRow,
                r#"select c.shard, c.generation, c.last_batch,
                          l.producer_id as "producer_id?", l.map_version as "map_version?",
                          p.epoch as "epoch?", l.settled as "settled?", l.chain as "chain?"
                   from ledger.shard_cursor c
                   left join (ledger.lane_settled l join ledger.producer p using (producer_id))
                     on l.shard = c.shard and l.producer_id = any($2)
                   where c.shard = any($1)
                   order by c.shard, l.producer_id, l.map_version"#,
                shards,
                &producers,
            )
            .fetch_all(tx)
            .await?
        }
    };
    Ok(cursors_and_lanes(rows, shards.len()))
}

fn cursors_and_lanes(rows: Vec<CursorRow>, shards: usize) -> (Vec<Cursor>, Vec<Lane>) {
    let mut cursors: Vec<Cursor> = Vec::with_capacity(shards);
    let mut lanes = Vec::with_capacity(rows.len());
    for row in rows {
        if cursors.last().is_none_or(|last| last.shard != row.shard) {
            cursors.push(Cursor {
                shard: row.shard,
                generation: row.generation.cast_unsigned(),
                last_batch: row.last_batch,
            });
        }
        if let (Some(producer_id), Some(map_version), Some(epoch), Some(settled), Some(chain)) =
            (row.producer_id, row.map_version, row.epoch, row.settled, row.chain)
        {
            let key = LaneKey { producer_id: ProducerId::from_uuid(producer_id), map_version };
            lanes.push(Lane { shard: row.shard, key, epoch, settled, chain: chain.cast_unsigned() });
        }
    }
    (cursors, lanes)
}

/// Locks the cursor of a shard: the first lock of every posting and reset. Nothing else may be read in
/// this statement: rows that a lock waits for are fresh, the rest of the statement's snapshot is not.
pub async fn lock_cursor_in_tx(tx: &mut PgConnection, shard: i32) -> Result<Option<Cursor>, Error> {
    let row = sqlx::query!(
        "select generation, last_batch from ledger.shard_cursor where shard = $1 for update",
        shard,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| Cursor {
        shard,
        generation: row.generation.cast_unsigned(),
        last_batch: row.last_batch,
    }))
}

/// Gives a locked shard another generation.
pub async fn set_generation_in_tx(
    tx: &mut PgConnection,
    shard: i32,
    generation: u64,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "update ledger.shard_cursor set generation = $2, changed_at = $3 where shard = $1",
        shard,
        generation.cast_signed(),
        Instant(now) as _,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Locks the cursors of all shards, by shard.
pub async fn lock_all_cursors_in_tx(tx: &mut PgConnection) -> Result<Vec<Cursor>, Error> {
    let rows = sqlx::query!(
        "select shard, generation, last_batch from ledger.shard_cursor order by shard for update"
    )
    .fetch_all(tx)
    .await?;
    let cursor = |shard, generation: i64, last_batch| Cursor {
        shard,
        generation: generation.cast_unsigned(),
        last_batch,
    };
    Ok(rows.into_iter().map(|row| cursor(row.shard, row.generation, row.last_batch)).collect())
}

// === producers ===

/// Registers a producer.
pub async fn insert_producer_in_tx(
    tx: &mut PgConnection,
    id: ProducerId,
    name: &str,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into ledger.producer (producer_id, name, created_at) values ($1, $2, $3)",
        id.as_uuid(),
        name,
        Instant(now) as _,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Makes the producers of lanes known to a cell that follows: the leading one has registered them.
pub async fn know_producers_in_tx(
    tx: &mut PgConnection,
    lanes: &[LaneKey],
    now: Timestamp,
) -> Result<(), Error> {
    let ids: Vec<_> = lanes.iter().map(|lane| lane.producer_id.as_uuid()).collect();
    sqlx::query!(
        "insert into ledger.producer (producer_id, name, created_at)
         select distinct w.producer_id, 'of the leading cell', $2::timestamptz
         from unnest($1::uuid[]) as w (producer_id)
         left join ledger.producer p using (producer_id)
         where p.producer_id is null
         order by w.producer_id
         on conflict do nothing",
        &ids,
        Instant(now) as _,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Cursors, lanes and producers as the gate knew them at one instant.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Cursors, by shard.
    pub cursors: Vec<Cursor>,
    /// Their lanes, of whom was asked for.
    pub lanes: Vec<Lane>,
    /// Epochs of those producers that are registered.
    pub producers: Vec<(ProducerId, i64)>,
}

/// Reads some shards and producers at one instant. Without producers one statement is one instant.
pub async fn snapshot(
    pool: &Pool,
    shards: &[i32],
    producers: &[ProducerId],
    lanes: LanesOf,
) -> Result<Snapshot, Error> {
    if producers.is_empty() {
        let mut connection = pool.read().await?;
        let (cursors, lanes) = cursors_in_tx(&mut connection, shards, producers, lanes).await?;
        return Ok(Snapshot { cursors, lanes, producers: Vec::new() });
    }
    let mut tx = pool.snapshot().await?;
    let (cursors, lanes) = cursors_in_tx(&mut tx, shards, producers, lanes).await?;
    let producers = producers_in_tx(&mut tx, producers).await?;
    tx.commit().await?;
    Ok(Snapshot { cursors, lanes, producers })
}

/// The epochs of those producers that are registered.
pub async fn producers_in_tx(
    tx: &mut PgConnection,
    ids: &[ProducerId],
) -> Result<Vec<(ProducerId, i64)>, Error> {
    let ids: Vec<_> = ids.iter().map(|id| id.as_uuid()).collect();
    let rows =
        sqlx::query!("select producer_id, epoch from ledger.producer where producer_id = any($1)", &ids)
            .fetch_all(tx)
            .await?;
    Ok(rows.into_iter().map(|row| (ProducerId::from_uuid(row.producer_id), row.epoch)).collect())
}

/// Raises the epoch of a producer above both what is stored and what its log knows; `None` where the
/// producer is unknown.
pub async fn raise_epoch_in_tx(
    tx: &mut PgConnection,
    id: ProducerId,
    log_epoch: i64,
    now: Timestamp,
) -> Result<Option<i64>, Error> {
    let epoch = sqlx::query_scalar!(
        "update ledger.producer set epoch = greatest(epoch, $2) + 1, opened_at = $3
         where producer_id = $1 returning epoch",
        id.as_uuid(),
        log_epoch,
        Instant(now) as _,
    )
    .fetch_optional(tx)
    .await?;
    Ok(epoch)
}

/// All lanes of a producer.
pub async fn lanes_of_producer_in_tx(tx: &mut PgConnection, id: ProducerId) -> Result<Vec<Lane>, Error> {
    let rows = sqlx::query!(
        "select l.shard, l.map_version, p.epoch, l.settled, l.chain
         from ledger.lane_settled l join ledger.producer p using (producer_id)
         where l.producer_id = $1 order by l.map_version, l.shard",
        id.as_uuid(),
    )
    .fetch_all(tx)
    .await?;
    let lane = |shard, map_version, epoch, settled, chain: i64| Lane {
        shard,
        key: LaneKey { producer_id: id, map_version },
        epoch,
        settled,
        chain: chain.cast_unsigned(),
    };
    Ok(rows.into_iter().map(|r| lane(r.shard, r.map_version, r.epoch, r.settled, r.chain)).collect())
}

/// One lane as a locked cursor guards it; a lane of a known producer that never settled anything stands
/// at 0. `None` where the producer is unknown.
pub async fn lane_in_tx(tx: &mut PgConnection, shard: i32, key: LaneKey) -> Result<Option<Lane>, Error> {
    let row = sqlx::query!(
        r#"select p.epoch, coalesce(l.settled, 0) as "settled!", coalesce(l.chain, 0) as "chain!"
           from ledger.producer p
           left join ledger.lane_settled l
             on l.producer_id = p.producer_id and l.shard = $1 and l.map_version = $3
           where p.producer_id = $2"#,
        shard,
        key.producer_id.as_uuid(),
        key.map_version,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| Lane {
        shard,
        key,
        epoch: row.epoch,
        settled: row.settled,
        chain: row.chain.cast_unsigned(),
    }))
}

/// A range that no one has any more.
#[derive(Clone, Debug)]
pub struct LostRange {
    /// The shard.
    pub shard: i32,
    /// The lane.
    pub key: LaneKey,
    /// The registered epoch.
    pub epoch: i64,
    /// First sequence lost.
    pub from: i64,
    /// Last sequence lost.
    pub to: i64,
    /// The chain before the first.
    pub chain_before: u64,
    /// The chain after the last.
    pub chain_after: u64,
}

/// Notes a lost range and moves its lane past it. The cursor of the shard is locked.
pub async fn name_lost_in_tx(tx: &mut PgConnection, lost: &LostRange, now: Timestamp) -> Result<(), Error> {
    sqlx::query!(
        "with named as (
             insert into ledger.lost_range
                 (producer_id, map_version, shard, from_sequence, to_sequence, epoch, chain_before, chain_after, named_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9))
         insert into ledger.lane_settled (shard, producer_id, map_version, settled, chain)
         values ($3, $1, $2, $5, $8)
         on conflict (shard, producer_id, map_version) do update
             set settled = excluded.settled, chain = excluded.chain",
        lost.key.producer_id.as_uuid(),
        lost.key.map_version,
        lost.shard,
        lost.from,
        lost.to,
        lost.epoch,
        lost.chain_before.cast_signed(),
        lost.chain_after.cast_signed(),
        Instant(now) as _,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A lost range as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostRead {
    /// The shard.
    pub shard: i32,
    /// The lane.
    pub key: LaneKey,
    /// First sequence lost.
    pub from: i64,
    /// Last sequence lost.
    pub to: i64,
    /// When it was named.
    pub named_at: Instant,
}

/// A place in the list of lost ranges: producer, map version, shard, first sequence.
pub type LostPlace = (ProducerId, i32, i32, i64);

/// Lost ranges after a place, of one producer or of all, at most `limit`, in the order of their key.
pub async fn lost_ranges(
    at: &mut PgConnection,
    producer: Option<ProducerId>,
    after: Option<LostPlace>,
    limit: i64,
) -> Result<Vec<LostRead>, Error> {
    let after = after.unwrap_or((ProducerId::from_uuid(Uuid::nil()), 0, 0, 0));
    let rows = sqlx::query!(
        r#"select producer_id, map_version, shard, from_sequence, to_sequence, named_at as "named_at: Instant"
           from ledger.lost_range
           where ($1::uuid is null or producer_id = $1)
             and (producer_id, map_version, shard, from_sequence) > ($2, $3, $4, $5)
           order by producer_id, map_version, shard, from_sequence limit $6"#,
        producer.map(|id| id.as_uuid()),
        after.0.as_uuid(),
        after.1,
        after.2,
        after.3,
        limit,
    )
    .fetch_all(at)
    .await?;
    let read = rows.into_iter().map(|row| LostRead {
        shard: row.shard,
        key: LaneKey { producer_id: ProducerId::from_uuid(row.producer_id), map_version: row.map_version },
        from: row.from_sequence,
        to: row.to_sequence,
        named_at: row.named_at,
    });
    Ok(read.collect())
}
