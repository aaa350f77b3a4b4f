//! The hook for metrics: what a producer has to tell, by group, frame and answer.
//!
//! Nothing is told by event: an event adds to sums that exist anyway, and refused ones to a count by reason. Without
//! a hook not even clocks are read.

use std::{fmt, time::Duration};

use super::{error::LaneStop, progress::LostRange};

/// A group that was made durable, or is kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupCommit {
    /// Its events.
    pub events: u64,
    /// Its frames: one or more for each lane with events.
    pub frames: u64,
    /// What it took, with the fsync; without a log, the work of putting it into memory.
    pub took: Duration,
    /// Bytes that are kept after it: of the log on disk, or of events in memory.
    pub kept_bytes: u64,
}

/// How far events got; see [`super::Progress`] for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// In the log or in memory.
    pub kept: u64,
    /// Counted by metering. Falls where its store loses something.
    pub applied: u64,
    /// Settled in the ledger. Falls where that is restored to an older state.
    pub settled: u64,
}

/// Hears what a producer does. Calls come from its own threads, never from one that appends, and hold it up: record
/// and return.
pub trait ProducerMetrics: fmt::Debug + Send + Sync {
    /// A group was committed.
    fn committed(&self, group: &GroupCommit) {
        let _ = group;
    }

    /// So many events were shed since the last call, because there was no room. Told within about a second.
    fn shed(&self, events: u64) {
        let _ = events;
    }

    /// So many appends were refused for this reason since the last call ([`super::AppendError::label`]).
    fn not_taken(&self, reason: &'static str, events: u64) {
        let _ = (reason, events);
    }

    /// A frame was handed to a stream, for the first time or again.
    fn sent(&self, events: u64, bytes: usize) {
        let _ = (events, bytes);
    }

    /// An answer of metering has moved something.
    fn reached(&self, reached: &Reached) {
        let _ = reached;
    }

    /// Metering refused so many events of a frame; the ledger counts them by reason.
    fn refused(&self, reason: &str, events: u64) {
        let _ = (reason, events);
    }

    /// Settled segments or frames were freed.
    fn freed(&self, kept_bytes: u64) {
        let _ = kept_bytes;
    }

    /// A restored ledger named a range of events as lost, which this log had freed before.
    fn lost(&self, range: &LostRange) {
        let _ = range;
    }

    /// A stream was opened.
    fn connected(&self) {}

    /// A stream, or the attempt to open one, ended; another one follows after a pause.
    fn disconnected(&self, why: &str) {
        let _ = why;
    }

    /// A lane was stopped, or could not be adopted in time.
    fn lane_stopped(&self, stop: &LaneStop) {
        let _ = stop;
    }
}
