//! Who sends a lane through this instance, and how far that has come.

use std::sync::Arc;

use drawdown_metering_core::shard::Position;

use super::outbox::Outbox;
use crate::redis::Roll;

/// A stream, as its lanes know it.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    /// The stream's number in this process.
    pub(crate) stream: u64,
    /// Its epoch.
    pub(crate) epoch: u64,
    /// Where its news goes.
    pub(crate) outbox: Arc<Outbox>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The ledger has to be asked where the lane stands.
    Wanted,
    /// Redis has to be asked; the ledger was when the head had this roll.
    Asking { found: Found, registered: u64, roll: Roll },
    /// Lanes are settled one by one, and it is not its turn before the next generation.
    Parked,
    /// Frames are taken.
    Live,
}

/// Where the ledger has a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// What Redis may go on from.
    pub(crate) settled: Position,
    /// What its producer is told: settled in all cells.
    pub(crate) told: Position,
}

/// A lane and the stream that sends it.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) sender: Sender,
    pub(super) phase: Phase,
    /// The stream was told where the lane stands since it asked last.
    pub(super) told: bool,
    /// Frames that do not follow were sent before the stream heard of its rewind.
    pub(super) rewound: bool,
    /// What Redis is known to hold.
    pub(super) acked: Position,
    /// A look found Redis behind this position; found again, it is no look that came too early.
    pub(super) doubted: Option<Position>,
    /// What the stream was told to be settled.
    pub(super) settled: Position,
    /// What the producer has freed.
    pub(super) freed: u64,
}

impl Seat {
    /// A lane that a stream asks for; `again` where it is its own already.
    pub(super) const fn new(sender: Sender, freed: u64, again: bool) -> Self {
        Self {
            sender,
            phase: Phase::Wanted,
            told: false,
            rewound: again,
            acked: Position::START,
            doubted: None,
            settled: Position::START,
            freed,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// A look saw this in Redis, perhaps some time ago. Says whether Redis has gone back.
    pub(super) fn seen(&mut self, applied: Option<Position>) -> bool {
        if applied.is_some_and(|applied| applied.sequence >= self.acked.sequence) {
            self.doubted = None;
            return false;
        }
        let again = self.doubted == Some(self.acked);
        self.doubted = Some(self.acked);
        again
    }
}
