//! The durable log: one directory, one owner, segment files of checksummed records.
//!
//! Shape: `lock` (held exclusively while the log is open), `meta` (who we are and the last epoch,
//! replaced by rename), and segments `<number>.segment`. A segment is a *head* record (everything
//! that older segments defined: series, marks, lane positions) followed by *group* records; so any
//! segment can be deleted without losing a definition, and the oldest head says what is freed.
//! A group is everything that one fsync makes durable: frames of several lanes, the marks of the
//! sources whose events they hold, the series they define. It has one checksum, so a source's mark
//! and the events up to it become durable together or not at all.
//!
//! Deleted segments leave the ends of their frames behind, in files of their own (`freed`).
//!
//! Cost: one write and one `fdatasync` a group; recovery reads every retained byte once.
//!
//! Not to be reordered: `meta` with the new epoch before the first frame of that epoch is sent; a
//! segment's head is durable (file and directory entry) before a group follows it; a group is durable
//! before anything learns of its frames. After a failed write or fsync the file's end is unknown, so
//! the log refuses everything until it is opened again.
//!
//! Torn or corrupt: only the last record of the last segment can be half written. Bad bytes there are
//! cut and reported; bad bytes with a sound record anywhere after them are corruption and nothing is
//! opened. A flipped bit in the very last record of a log that was not closed looks like a torn
//! tail; if that record had been sent, the lane's chain tells (DIVERGED).

mod codec;
mod error;
mod freed;
mod meta;
mod record;
mod recover;
mod store;

pub use error::LogError;
pub(crate) use freed::{FreedFrames, find as find_freed};
pub(crate) use meta::{DirectoryLock, Meta, StreamLimits};
pub(crate) use record::GroupBuilder;
pub(crate) use recover::{Body, FrameRef, Recovered, recover};
pub(crate) use store::{FrameReader, Log, LogLimits};

/// Marks by source: what the log knows of every source's last durable event.
pub(crate) type Marks = std::collections::BTreeMap<Box<[u8]>, Box<[u8]>>;

/// Where lanes stand.
pub(crate) type Positions =
    std::collections::BTreeMap<drawdown_metering_core::shard::Lane, drawdown_metering_core::shard::Position>;

#[cfg(test)]
mod tests;
