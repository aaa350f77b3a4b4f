//! What an aggregator hands over at a flush.

use std::sync::Arc;

use drawdown_types::{DimensionName, MeterSlug};

use crate::{
    meter::Counting,
    series::SeriesKey,
    shard::{Lane, Position},
};

/// The range of one lane that counters came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSpan {
    /// The lane.
    pub lane: Lane,
    /// The epoch under which it was taken.
    pub epoch: u64,
    /// First sequence.
    pub from: u64,
    /// Last sequence.
    pub to: u64,
    /// The chain before the first.
    pub chain_before: u64,
    /// The chain after the last.
    pub chain_after: u64,
}

impl LaneSpan {
    pub(crate) fn between(lane: Lane, epoch: u64, before: Position, after: Position) -> Self {
        Self {
            lane,
            epoch,
            from: before.sequence.saturating_add(1),
            to: after.sequence,
            chain_before: before.chain,
            chain_after: after.chain,
        }
    }

    /// The position before it.
    #[must_use]
    pub const fn before(&self) -> Position {
        Position { sequence: self.from.saturating_sub(1), chain: self.chain_before }
    }

    /// The position after it.
    #[must_use]
    pub const fn after(&self) -> Position {
        Position { sequence: self.to, chain: self.chain_after }
    }

    /// Events in it.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.to.saturating_add(1).saturating_sub(self.from)
    }
}

/// A series that counters of a flush are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlushSeries {
    /// Its slot, for as long as the table is the same.
    pub(crate) slot: u32,
    /// The series.
    pub key: Arc<SeriesKey>,
    /// How its events were counted.
    pub counting: Counting,
}

/// One counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushCounter {
    /// Index of its series in [`Flush::series`].
    pub series: u32,
    /// Start of the window of event time, in s since the epoch.
    pub window_start_secs: i64,
    /// Start of the window of the receipt, in s since the epoch.
    pub received_window_start_secs: i64,
    /// Events.
    pub events: u64,
    /// Sum of quantities; the events where they are counted, the largest quantity where that is kept, and 1 where
    /// the series is a value.
    pub quantity: i64,
}

/// Counters and the lane ranges they came from: what one blob carries. It may be encoded any number
/// of times, until one of them is known to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flush {
    /// The shard.
    pub shard: u32,
    pub(crate) table: u64,
    /// Lane ranges, by lane.
    pub lanes: Vec<LaneSpan>,
    /// Series of the counters, each once.
    pub series: Vec<FlushSeries>,
    /// Counters, each (series, window, receipt window) once.
    pub counters: Vec<FlushCounter>,
    /// Events whose time was set to their receipt.
    pub clamped: u64,
    /// Events refused, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Events counted under [`crate::series::OTHER`]; not part of a blob.
    pub overflowed: u64,
    /// Dimensions that had one value too many, told once in a UTC day; not part of a blob.
    pub overflows: Vec<(MeterSlug, DimensionName)>,
}

impl Flush {
    /// It carries nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Events that were counted.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.counters.iter().fold(0, |sum, counter| sum.saturating_add(counter.events))
    }
}
