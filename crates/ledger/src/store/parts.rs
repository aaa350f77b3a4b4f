//! What the leading cell keeps of a batch for the others, and a batch as another cell takes it.

use drawdown_types::{ProducerId, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Instant, Pool, settlement::LaneRange, shards::LaneKey};
use crate::{
    error::Error,
    posting::{Part, by_meter},
};

/// Keeps the parts of a settled batch of a shard, and lets go of older ones: whoever posts a batch has seen that all
/// cells have the one before it.
pub async fn keep_in_tx(
    tx: &mut PgConnection,
    (shard, number): (i32, i64),
    parts: &[Part],
    posted_at: Timestamp,
    old: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into ledger.batch_part (shard, number, cell, lines, events, totals, content, posted_at)
         select $1, $2, p.cell, p.lines, p.events, p.totals::jsonb, p.content, $8
         from unnest($3::smallint[], $4::bigint[], $5::bigint[], $6::text[], $7::bytea[])
             as p (cell, lines, events, totals, content)
         order by p.cell",
        shard,
        number,
        &parts.iter().map(|part| i16::from(part.cell)).collect::<Vec<_>>(),
        &parts.iter().map(|part| part.lines).collect::<Vec<_>>(),
        &parts.iter().map(|part| part.events).collect::<Vec<_>>(),
        &parts.iter().map(|part| by_meter(&part.totals).to_string()).collect::<Vec<_>>(),
        &parts.iter().map(|part| part.content.clone()).collect::<Vec<_>>(),
        Instant(posted_at) as _,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "update ledger.batch_part set content = null
         where shard = $1 and content is not null and posted_at < $3 and number < $2::bigint - 1",
        shard,
        number,
        Instant(old) as _,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A settled batch with what it has for another cell.
#[derive(Clone, Debug)]
pub struct StoredPart {
    /// The generation it was sealed under.
    pub generation: u64,
    /// Its digest.
    pub digest: Vec<u8>,
    /// Sums of the whole batch by meter, as a JSON object.
    pub totals: String,
    /// Its lane ranges.
    pub lanes: Vec<LaneRange>,
    /// Ranges lost between its lane ranges and what was settled before.
    pub lost: Vec<LaneRange>,
    /// What the cell gets; nothing where it was added later.
    pub gets: Option<StoredLines>,
}

/// Lines of another cell.
#[derive(Clone, Debug)]
pub struct StoredLines {
    /// Events in them.
    pub events: i64,
    /// Their sums by meter, as a JSON object.
    pub totals: String,
    /// The lines; gone where they are old.
    pub content: Option<Vec<u8>>,
}

/// Batch `number` of a shard as another cell gets it; `None` where it is not settled.
pub async fn part(pool: &Pool, shard: i32, number: i64, cell: u8) -> Result<Option<StoredPart>, Error> {
    let mut tx = pool.snapshot().await?;
    let row = sqlx::query!(
        r#"select b.generation, b.digest, b.totals::text as "totals!",
                  p.events as "events?", p.totals::text as part_totals, p.content as "content?"
           from ledger.settlement_batch b
           left join ledger.batch_part p on p.shard = b.shard and p.number = b.number and p.cell = $3
           where b.shard = $1 and b.number = $2"#,
        shard,
        number,
        i16::from(cell),
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let lanes = lanes_in_tx(&mut tx, shard, number).await?;
    let lost = lost_in_tx(&mut tx, shard, number).await?;
    tx.commit().await?;
    let gets = row.events.zip(row.part_totals);
    Ok(Some(StoredPart {
        generation: row.generation.cast_unsigned(),
        digest: row.digest,
        totals: row.totals,
        lanes,
        lost,
        gets: gets.map(|(events, totals)| StoredLines { events, totals, content: row.content }),
    }))
}

/// A range of a lane as stored.
struct RangeRow {
    producer_id: Uuid,
    map_version: i32,
    epoch: i64,
    from_sequence: i64,
    to_sequence: i64,
    chain_before: i64,
    chain_after: i64,
}

impl From<RangeRow> for LaneRange {
    fn from(row: RangeRow) -> Self {
        Self {
            key: LaneKey {
                producer_id: ProducerId::from_uuid(row.producer_id),
                map_version: row.map_version,
            },
            epoch: row.epoch,
            from: row.from_sequence,
            to: row.to_sequence,
            chain_before: row.chain_before.cast_unsigned(),
            chain_after: row.chain_after.cast_unsigned(),
        }
    }
}

async fn lanes_in_tx(tx: &mut PgConnection, shard: i32, number: i64) -> Result<Vec<LaneRange>, Error> {
    let rows = sqlx::query_as!(
        RangeRow,
        "select producer_id, map_version, epoch, from_sequence, to_sequence, chain_before, chain_after
         from ledger.batch_lane where shard = $1 and number = $2 order by producer_id, map_version",
        shard,
        number,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(LaneRange::from).collect())
}

/// Ranges lost between the batch's ranges and the ones before. There are hardly ever any, so the look for the range
/// before is made for those only.
async fn lost_in_tx(tx: &mut PgConnection, shard: i32, number: i64) -> Result<Vec<LaneRange>, Error> {
    let rows = sqlx::query_as!(
        RangeRow,
        "select l.producer_id, l.map_version, l.epoch, l.from_sequence, l.to_sequence, l.chain_before, l.chain_after
         from ledger.batch_lane b
         join ledger.lost_range l using (producer_id, map_version, shard)
         where b.shard = $1 and b.number = $2 and l.to_sequence < b.from_sequence
           and l.from_sequence > coalesce((
               select e.to_sequence from ledger.batch_lane e
               where e.shard = $1 and e.number < $2
                 and e.producer_id = b.producer_id and e.map_version = b.map_version
               order by e.number desc limit 1), 0)
         order by l.producer_id, l.map_version, l.from_sequence",
        shard,
        number,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(LaneRange::from).collect())
}
