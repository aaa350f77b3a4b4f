//! The gate, over sequences: what is committed, and what each lane was charged.

use std::collections::BTreeMap;

use drawdown_metering_core::{
    look::{Cursor, LaneSettled},
    shard::Lane,
};

use super::at;

/// The range of each lane of a batch: from (exclusive) and to.
pub(super) type Ranges = BTreeMap<Lane, (u64, u64)>;

#[derive(Clone, Debug)]
pub(super) struct Ledger {
    pub(super) generation: u64,
    batches: Vec<Ranges>,
    /// Events that were charged, by lane.
    pub(super) charged: BTreeMap<Lane, u64>,
}

impl Ledger {
    pub(super) const fn new(generation: u64) -> Self {
        Self { generation, batches: Vec::new(), charged: BTreeMap::new() }
    }

    pub(super) fn last(&self) -> u64 {
        u64::try_from(self.batches.len()).unwrap()
    }

    pub(super) fn settled(&self, lane: &Lane) -> u64 {
        self.batches.iter().rev().find_map(|ranges| ranges.get(lane)).map_or(0, |(_, to)| *to)
    }

    pub(super) fn cursor(&self) -> Cursor {
        let lanes = self.charged.keys();
        let lanes =
            lanes.map(|lane| (*lane, LaneSettled { epoch: 1, settled: at(lane, self.settled(lane)) }));
        Cursor { generation: self.generation, last_batch: self.last(), lanes: lanes.collect() }
    }

    /// Whether the batch is settled then.
    pub(super) fn post(&mut self, generation: u64, number: u64, ranges: &Ranges) -> bool {
        if let Some(known) = usize::try_from(number - 1).ok().and_then(|at| self.batches.get(at)) {
            return known == ranges;
        }
        let joins = |(lane, (from, to)): (&Lane, &(u64, u64))| self.settled(lane) == *from && from < to;
        if number != self.last() + 1 || generation != self.generation || !ranges.iter().all(joins) {
            return false;
        }
        for (lane, (from, to)) in ranges {
            *self.charged.entry(*lane).or_default() += to - from;
        }
        self.batches.push(ranges.clone());
        true
    }
}
