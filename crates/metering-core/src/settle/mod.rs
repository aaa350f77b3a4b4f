//! Step 3 of the worker: a sealed batch's blobs become one post, or are named as damaged.
//!
//! Everything that ties the blobs together is checked: count and fingerprint against the seal, indexes,
//! checksums, generation, batch and shard, each lane's ranges and chains end to end, and that every
//! name was defined earlier in the list under the same dictionary. What passes is a pure function of the
//! sealed list, so every worker posts the same lines in the same order with the same digest, whenever.
//!
//! Partial states of one series, window and receipt window merge by sum, maximum or set union (D19), whichever its
//! meter asks for, so order and cut of the blobs change nothing. Series of a unique meter that differ in the counted
//! dimension alone are one line, with their values as its state.
//!
//! A sum that would pass 64 bits must not stop a shard for ever: the part that does not fit is counted
//! as refused (QUANTITY_OVERFLOW), in the order of the list, so every worker refuses the same part. The same holds
//! for a line with more than [`VALUES_MAX`] distinct values (VALUES_TOO_MANY), as long as the list can not be posted
//! in parts.

mod merge;

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use drawdown_types::{MeterSlug, Timestamp};
use xxhash_rust::xxh3::Xxh3;

use crate::{aggregate::LaneSpan, blob::Fault, meter::Aggregation, series::SeriesKey, shard::Lane};

pub use merge::{LineKey, LineView, Merging, merge};

/// The most distinct values of one line: what the contract of the post allows.
pub const VALUES_MAX: usize = 100_000;

/// The seal of a batch: how many blobs, and their fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Blobs.
    pub count: u64,
    /// Fingerprint over them.
    pub fingerprint: String,
}

/// The text is no seal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a seal of the form count:fingerprint")]
pub struct SealError(pub String);

impl FromStr for Seal {
    type Err = SealError;

    fn from_str(text: &str) -> Result<Self, SealError> {
        let parse = || {
            let (count, fingerprint) = text.split_once(':')?;
            Some(Self { count: count.parse().ok()?, fingerprint: fingerprint.to_owned() })
        };
        parse().ok_or_else(|| SealError(text.chars().take(128).collect()))
    }
}

impl std::fmt::Display for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.count, self.fingerprint)
    }
}

/// Which batch a list is read as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedBatch {
    /// The shard.
    pub shard: u32,
    /// The generation.
    pub generation: u64,
    /// The number.
    pub batch: u64,
    /// The seal.
    pub seal: Seal,
}

/// Why a sealed batch can not be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Blobs are missing or too many.
    #[error("the list has {found} blobs, {sealed} were sealed")]
    Count {
        /// In the list.
        found: usize,
        /// In the seal.
        sealed: u64,
    },
    /// A blob can not be read.
    #[error("blob {at} is damaged: {fault}")]
    Blob {
        /// Its place in the list.
        at: usize,
        /// What is wrong.
        fault: Fault,
    },
    /// A blob stands at another place than it was appended.
    #[error("blob {at} has index {index}")]
    Index {
        /// Its place in the list.
        at: usize,
        /// The index that it was given.
        index: u32,
    },
    /// A blob was made for another shard, generation or batch.
    #[error("blob {at} belongs to another shard, generation or batch")]
    Foreign {
        /// Its place in the list.
        at: usize,
    },
    /// The blobs are not those that were sealed.
    #[error("the fingerprint is {found}, {sealed} was sealed")]
    Fingerprint {
        /// Over the list.
        found: String,
        /// In the seal.
        sealed: String,
    },
    /// A lane does not go on where it ended, or its chain does not join.
    #[error("lane {lane} does not join at {from} in blob {at}")]
    Lane {
        /// Its place in the list.
        at: usize,
        /// The lane.
        lane: Lane,
        /// The first sequence that does not join.
        from: u64,
    },
    /// A dictionary has another number of names than a blob counts on, or a name it has not defined.
    #[error("blob {at} uses names that dictionary {dictionary:016x} has not defined")]
    Names {
        /// Its place in the list.
        at: usize,
        /// The dictionary.
        dictionary: u64,
    },
    /// A name is no series, or its counters contradict the way its meter is counted.
    #[error("blob {at} has a name or counter that no meter has")]
    Series {
        /// Its place in the list.
        at: usize,
    },
}

/// Usage of one series in one window, by receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The series; of a unique meter without the counted dimension.
    pub series: Arc<SeriesKey>,
    /// How its events were counted.
    pub aggregation: Aggregation,
    /// Start of the window of event time.
    pub window_start: Timestamp,
    /// Start of the window of the receipt.
    pub received_window_start: Timestamp,
    /// Events.
    pub events: u64,
    /// Sum of quantities, number of events, largest quantity or number of distinct values.
    pub quantity: i64,
    /// The distinct values, sorted, each once; of a unique meter only.
    pub values: Vec<Arc<str>>,
}

/// Sums over one meter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Events.
    pub events: u64,
    /// Σ quantity of the lines.
    pub quantity: i64,
}

/// A whole batch, as it is posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergedBatch {
    /// Lane ranges, by lane.
    pub lanes: Vec<LaneSpan>,
    /// Lines, sorted by (canonical bytes of the series, window, receipt window), each once.
    pub lines: Vec<Line>,
    /// Events in lines.
    pub events: u64,
    /// Events whose time was set to their receipt.
    pub clamped: u64,
    /// Events refused, by reason; events + refused = Σ events of the lanes.
    pub refused: BTreeMap<String, u64>,
    /// Sums of the lines, by meter.
    pub totals: BTreeMap<MeterSlug, Total>,
}

impl Total {
    fn plus(self, part: Self) -> Option<Self> {
        Some(Self {
            events: self.events.checked_add(part.events)?,
            quantity: self.quantity.checked_add(part.quantity)?,
        })
    }
}

impl MergedBatch {
    /// Lines and their distinct values: what a post of it is measured by.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.lines.iter().fold(0, |sum, line| sum.saturating_add(1).saturating_add(line.values.len()))
    }

    /// 128 bits over raw counters, lanes and chains, in their canonical order: the batch's identity.
    /// What is resolved later is not in it, so resolving again on a retry changes nothing.
    #[must_use]
    pub fn digest128(&self) -> [u8; 16] {
        let mut hash = Xxh3::new();
        let mut bytes = Vec::with_capacity(128);
        hash.update(&len(self.lanes.len()));
        for span in &self.lanes {
            hash.update(span.lane.producer.as_uuid().as_bytes());
            hash.update(&span.lane.map_version.to_be_bytes());
            hash.update(&span.lane.shard.to_be_bytes());
            for value in [span.from, span.to, span.chain_before, span.chain_after] {
                hash.update(&value.to_be_bytes());
            }
        }
        hash.update(&len(self.lines.len()));
        for line in &self.lines {
            bytes.clear();
            line.series.encode_into(&mut bytes);
            hash.update(&len(bytes.len()));
            hash.update(&bytes);
            hash.update(&[line.aggregation.as_byte()]);
            hash.update(&line.window_start.as_micros().to_be_bytes());
            hash.update(&line.received_window_start.as_micros().to_be_bytes());
            hash.update(&line.events.to_be_bytes());
            hash.update(&line.quantity.to_be_bytes());
            for value in &line.values {
                hash.update(&len(value.len()));
                hash.update(value.as_bytes());
            }
        }
        hash.digest128().to_be_bytes()
    }
}

fn len(len: usize) -> [u8; 8] {
    u64::try_from(len).unwrap_or(u64::MAX).to_be_bytes()
}
