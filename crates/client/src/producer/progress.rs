//! How far a producer's events got.

use std::collections::BTreeMap;

use super::error::LaneStop;

/// A snapshot. Counts of events are over the whole life of the log, unless they say otherwise; of a producer that
/// keeps its events in memory only, over the life of this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Taken by `append`.
    pub appended: u64,
    /// Safe on disk; 0 where events are kept in memory only.
    pub durable: u64,
    /// Counted by metering, as far as its streams have told this process.
    pub applied: u64,
    /// Settled in the ledger.
    pub settled: u64,
    /// Shed because the log was full.
    pub shed: u64,
    /// Refused by metering, by reason, as told to this process.
    pub refused: BTreeMap<String, u64>,
    /// Bytes of the log on disk, or of the events in memory.
    pub kept_bytes: u64,
    /// Whether a stream to metering is open.
    pub connected: bool,
    /// Lanes that metering stopped.
    pub stopped_lanes: Vec<LaneStop>,
}
