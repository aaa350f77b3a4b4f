//! How far a producer's events got.

use std::collections::BTreeMap;

use drawdown_metering_core::shard::Lane;

use super::error::LaneStop;

/// Events of one lane that a restored ledger lacks and this log had freed before: in no charge any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostRange {
    /// The lane.
    pub lane: Lane,
    /// The first sequence.
    pub from_sequence: u64,
    /// The last sequence.
    pub to_sequence: u64,
}

/// How far one lane of the log is, in sequences: each event is one, from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneProgress {
    /// The lane.
    pub lane: Lane,
    /// The last event in the log.
    pub end_sequence: u64,
    /// The last event that is settled in the ledger, or named as lost there.
    pub settled_sequence: u64,
    /// The last event that was deleted and can not be sent again.
    pub freed_sequence: u64,
}

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
    /// Settled in the ledger, or named as lost there.
    pub settled: u64,
    /// Shed because the log was full.
    pub shed: u64,
    /// Refused by metering, by reason, as told to this process.
    pub refused: BTreeMap<String, u64>,
    /// Bytes of the log on disk, or of the events in memory.
    pub kept_bytes: u64,
    /// Whether a stream to metering is open.
    pub connected: bool,
    /// Ranges that a restored ledger named as lost, as told to this process; the ledger lists all of them.
    pub lost: Vec<LostRange>,
    /// Lanes that metering stopped.
    pub stopped_lanes: Vec<LaneStop>,
}
