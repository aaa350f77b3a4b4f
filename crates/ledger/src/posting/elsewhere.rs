//! What a post does for the sake of other cells (see [`crate::cells`]): nothing where there is but one.

use drawdown_types::Timestamp;
use sqlx::PgConnection;

use super::{
    PostError, Poster,
    batch::SealedBatch,
    gate::{Fault, Gate, check},
};
use crate::{
    error::Error,
    store::{
        parts, settlement,
        settlement::Receipt,
        shards::{self, LostRange},
    },
};

/// What the gate said, with its locks held.
pub(super) enum Passed {
    /// Go on, with this version of the catalogue.
    Open {
        /// The version.
        version: i64,
    },
    /// It is settled.
    Settled(Receipt),
}

impl Poster {
    /// Statement 1 and the gate's checks. A cell that follows learns of producers, before, and of lost ranges here.
    pub(super) async fn pass_in_tx(
        &self,
        tx: &mut PgConnection,
        batch: &SealedBatch,
    ) -> Result<Passed, PostError> {
        let lanes = batch.lane_keys();
        if !self.cells.leads() {
            shards::know_producers_in_tx(tx, &lanes, self.clock.now()).await?;
        }
        let gate = settlement::gate_in_tx(tx, batch.shard, batch.number, &lanes).await?;
        let Some((cursor, version, facts)) = gate else {
            return Err(Fault::ShardUnknown { shard: batch.shard }.into());
        };
        if let Gate::Settled(receipt) = check(batch, &cursor, &facts, &self.cells)? {
            return Ok(Passed::Settled(receipt));
        }
        for range in &batch.elsewhere.lost {
            if facts.lanes.get(&range.key).is_some_and(|stand| range.to <= stand.settled) {
                continue;
            }
            let lost = LostRange {
                shard: batch.shard,
                key: range.key,
                epoch: range.epoch,
                from: range.from,
                to: range.to,
                chain_before: range.chain_before,
                chain_after: range.chain_after,
            };
            shards::name_lost_in_tx(tx, &lost, self.clock.now()).await?;
        }
        Ok(Passed::Open { version })
    }

    /// Keeps what other cells get of a batch that is settled in this transaction.
    pub(super) async fn keep_parts_in_tx(
        &self,
        tx: &mut PgConnection,
        batch: &SealedBatch,
        posted_at: Timestamp,
    ) -> Result<(), Error> {
        let gets = &batch.elsewhere.parts;
        if gets.is_empty() {
            return Ok(());
        }
        let old = posted_at.checked_sub(self.cells.parts_keep).unwrap_or(Timestamp::MIN);
        parts::keep_in_tx(tx, (batch.shard, batch.number), gets, posted_at, old).await
    }
}
