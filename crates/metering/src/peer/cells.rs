//! The ledgers of all cells: where a shard stands in each, read in the one order that can be judged.
//!
//! Doctrine: the leading cell is asked first. A cell that is seen one batch behind it may lack the last batch; one
//! that is further behind was restored or added (`drawdown_metering_core::cells`). Who asks for what Redis has to be
//! compared with takes the leading cell's cursor; who tells a producer takes what is settled in all.

use std::collections::{BTreeSet, HashMap};

use drawdown_metering_core::{
    cells::{LEADING, settled_in_all},
    look::Cursor,
    shard::{Lane, Position},
};
use drawdown_types::{ProducerId, WindowSize};

use super::{Error, LanesOf, Ledger};

/// Another cell than the leading one.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    /// Its number.
    pub(crate) number: u8,
    /// Its ledger.
    pub(crate) ledger: Ledger,
}

/// All cells.
#[derive(Clone, Debug)]
pub(crate) struct Cells {
    /// The only one, or the leading one.
    pub(crate) leading: Ledger,
    /// The others, by number.
    pub(crate) others: Vec<Cell>,
}

/// A shard in all cells.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// In the leading one.
    pub(crate) leading: Cursor,
    /// In the others, by number.
    pub(crate) others: Vec<(u8, Cursor)>,
}

/// Some shards in all cells, with the producers asked for.
#[derive(Clone, Debug)]
pub(crate) struct Standings {
    /// By shard.
    pub(crate) shards: HashMap<u32, Standing>,
    /// Registered epochs of those producers that are known.
    pub(crate) producers: HashMap<ProducerId, u64>,
    /// The window size of the installation.
    pub(crate) window: WindowSize,
}

// === impl Cells ===

impl Cells {
    /// Where some shards stand; every cell has to answer.
    pub(crate) async fn shards(&self, shards: &[u32], lanes: &LanesOf) -> Result<Standings, Error> {
        let leading = self.leading.shards(shards, lanes, LEADING).await?;
        let standing = |(shard, leading)| (shard, Standing { leading, others: Vec::new() });
        let mut found: HashMap<u32, Standing> = leading.cursors.into_iter().map(standing).collect();
        for Cell { number, ledger } in &self.others {
            let other = ledger.shards(shards, lanes, *number).await.map_err(Error::of_cell(*number))?;
            if other.window != leading.window {
                let detail = format!("its windows have {} s", other.window.as_secs());
                return Err(Error::of_cell(*number)(Error::answer("ledger", "GetShards", detail)));
            }
            for (shard, cursor) in other.cursors {
                if let Some(standing) = found.get_mut(&shard) {
                    standing.others.push((*number, cursor));
                }
            }
        }
        Ok(Standings { shards: found, producers: leading.producers, window: leading.window })
    }

    /// What a producer is told of its lanes, instead of what the leading cell says of them.
    pub(crate) async fn told(&self, lanes: Vec<(Lane, Position)>) -> Result<Vec<(Lane, Position)>, Error> {
        if self.others.is_empty() || lanes.is_empty() {
            return Ok(lanes);
        }
        let shards: BTreeSet<u32> = lanes.iter().map(|(lane, _)| lane.shard).collect();
        let shards: Vec<u32> = shards.into_iter().collect();
        let theirs = LanesOf::producers(lanes.iter().map(|(lane, _)| lane.producer));
        let standings = self.shards(&shards, &theirs).await?.shards;
        let told: HashMap<u32, Cursor> =
            standings.iter().map(|(shard, standing)| (*shard, standing.told())).collect();
        let position = |lane: &Lane| {
            told.get(&lane.shard).and_then(|cursor| cursor.lanes.get(lane)).map(|known| known.settled)
        };
        Ok(lanes.into_iter().map(|(lane, _)| (lane, position(&lane).unwrap_or_default())).collect())
    }
}

// === impl Standing ===

impl Standing {
    /// What producers are told.
    pub(crate) fn told(&self) -> Cursor {
        settled_in_all(&self.leading, self.others.iter().map(|(_, cursor)| cursor))
    }

    /// The others that lack what the leading one has settled, each with the last batch that it has.
    pub(crate) fn behind(&self) -> impl Iterator<Item = (u8, u64)> {
        let last = self.leading.last_batch;
        let behind = self.others.iter().filter(move |(_, cursor)| cursor.last_batch < last);
        behind.map(|(cell, cursor)| (*cell, cursor.last_batch))
    }
}
