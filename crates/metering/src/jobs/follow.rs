//! Other cells than the leading one: each takes every batch that the leading cell has settled, from what that one
//! keeps for it and in the order of the numbers. Redis is not asked, so it does not matter what became of it.
//!
//! Two workers may do it at once: a cell answers a batch that it has from its receipt. A cell that refuses one can
//! not be mended by a reset, because the leading cell has settled it: the shard waits, and an alarm tells a person.

use super::{settle::Worker, work::Failed};
use crate::peer::{Cell, Error, Posted, Standing};

/// Batches that one step brings to one cell.
const BATCHES_MAX: u64 = 256;

impl Worker {
    /// Brings the cells that are behind closer to the leading one. Says whether there were any.
    pub(super) async fn catch_up(&self, shard: u32, standing: &Standing) -> Result<bool, Failed> {
        let mut found = false;
        for (number, last) in standing.behind() {
            let Some(cell) = self.instance.cells.others.iter().find(|cell| cell.number == number) else {
                continue;
            };
            found = true;
            let to = standing.leading.last_batch.min(last.saturating_add(BATCHES_MAX));
            for batch in last.saturating_add(1)..=to {
                self.follow(shard, cell, batch).await?;
            }
        }
        Ok(found)
    }

    /// Brings a batch that the leading cell has settled just now to all others, which have the one before it. They
    /// are asked whatever is known of them: only their answer says that they have this batch and no other.
    pub(super) async fn follow_all(&self, shard: u32, batch: u64) -> Result<(), Failed> {
        for cell in &self.instance.cells.others {
            self.follow(shard, cell, batch).await?;
        }
        Ok(())
    }

    async fn follow(&self, shard: u32, cell: &Cell, batch: u64) -> Result<(), Failed> {
        let part = self.instance.ledger().part(shard, batch, cell.number).await?;
        match cell.ledger.post(part).await.map_err(Error::of_cell(cell.number))? {
            Posted::Settled(_) => Ok(()),
            Posted::Refused { reason, message } => {
                tracing::error!(shard, batch, cell = cell.number, reason, "a cell refuses what is settled");
                Err(Failed::Cell { cell: cell.number, batch, reason, message })
            }
        }
    }
}
