//! Step 3 of the worker: a sealed batch's blobs become one post, or are named as damaged.
//!
//! Everything that ties the blobs together is checked: count and fingerprint against the seal, indexes,
//! checksums, generation, batch and shard, each lane's ranges and chains end to end, and that every
//! name was defined earlier in the list under the same dictionary. What passes is a pure function of the
//! sealed list, so every worker posts the same lines in the same order with the same digest, whenever.
//!
//! A sum that would pass 64 bits must not stop a shard for ever: the part that does not fit is counted
//! as refused (QUANTITY_OVERFLOW), in the order of the list, so every worker refuses the same part.

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use drawdown_types::{MeterSlug, Timestamp};
use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::Xxh3;

use crate::{
    aggregate::LaneSpan,
    blob::{Decoded, FINGERPRINT_START, Fault, fingerprint_next},
    meter::Aggregation,
    reason,
    series::SeriesKey,
    shard::Lane,
};

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
    /// The series.
    pub series: Arc<SeriesKey>,
    /// How its events were counted.
    pub aggregation: Aggregation,
    /// Start of the window of event time.
    pub window_start: Timestamp,
    /// Start of the window of the receipt.
    pub received_window_start: Timestamp,
    /// Events.
    pub events: u64,
    /// Sum of quantities; for meters that count, the events.
    pub quantity: i64,
}

/// Sums over one meter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Events.
    pub events: u64,
    /// Sum of quantities.
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

/// Merges the entries of a sealed batch's list, in the order of the list.
///
/// # Errors
/// [`Damage`]: what does not hold, and where.
pub fn merge<E: AsRef<[u8]>>(sealed: &SealedBatch, entries: &[E]) -> Result<MergedBatch, Damage> {
    if u64::try_from(entries.len()) != Ok(sealed.seal.count) {
        return Err(Damage::Count { found: entries.len(), sealed: sealed.seal.count });
    }
    let mut merge = Merge::default();
    let mut fingerprint = FINGERPRINT_START.to_owned();
    for (at, entry) in entries.iter().enumerate() {
        let blob = Decoded::read(entry.as_ref()).map_err(|fault| Damage::Blob { at, fault })?;
        if u32::try_from(at) != Ok(blob.index) {
            return Err(Damage::Index { at, index: blob.index });
        }
        if (blob.shard, blob.generation, blob.batch) != (sealed.shard, sealed.generation, sealed.batch) {
            return Err(Damage::Foreign { at });
        }
        fingerprint = fingerprint_next(&fingerprint, blob.checksum);
        merge.take(at, &blob)?;
    }
    if fingerprint != sealed.seal.fingerprint {
        return Err(Damage::Fingerprint { found: fingerprint, sealed: sealed.seal.fingerprint.clone() });
    }
    Ok(merge.finish())
}

struct Series {
    key: Arc<SeriesKey>,
    bytes: Box<[u8]>,
    aggregation: Aggregation,
    meter: usize,
}

#[derive(Default)]
struct Merge {
    series: Vec<Series>,
    by_bytes: FxHashMap<Box<[u8]>, usize>,
    /// Series of each name, by dictionary.
    names: FxHashMap<u64, Vec<usize>>,
    meters: Vec<(MeterSlug, Total)>,
    by_meter: FxHashMap<MeterSlug, usize>,
    counters: FxHashMap<(usize, Timestamp, Timestamp), Total>,
    lanes: BTreeMap<Lane, LaneSpan>,
    events: u64,
    clamped: u64,
    refused: BTreeMap<String, u64>,
}

impl Merge {
    fn take(&mut self, at: usize, blob: &Decoded<'_>) -> Result<(), Damage> {
        for span in &blob.lanes {
            self.take_lane(at, span)?;
        }
        let mut names = self.names.remove(&blob.dictionary).unwrap_or_default();
        if u64::try_from(names.len()) != Ok(blob.names_before) {
            return Err(Damage::Names { at, dictionary: blob.dictionary });
        }
        for name in &blob.names {
            names.push(self.series(name.series, name.aggregation).ok_or(Damage::Series { at })?);
        }
        for counter in &blob.counters {
            let name = usize::try_from(counter.name).ok().and_then(|name| names.get(name));
            let series = *name.ok_or(Damage::Names { at, dictionary: blob.dictionary })?;
            let part = Total { events: counter.events, quantity: counter.quantity };
            let key = (series, counter.window_start, counter.received_window_start);
            self.count(key, part).ok_or(Damage::Series { at })?;
        }
        self.names.insert(blob.dictionary, names);
        self.clamped = self.clamped.saturating_add(blob.clamped);
        for (reason, events) in &blob.refused {
            self.refuse(reason, *events);
        }
        Ok(())
    }

    fn take_lane(&mut self, at: usize, span: &LaneSpan) -> Result<(), Damage> {
        let Some(known) = self.lanes.get_mut(&span.lane) else {
            self.lanes.insert(span.lane, *span);
            return Ok(());
        };
        if span.before() != known.after() || span.epoch < known.epoch {
            return Err(Damage::Lane { at, lane: span.lane, from: span.from });
        }
        known.to = span.to;
        known.chain_after = span.chain_after;
        known.epoch = span.epoch;
        Ok(())
    }

    /// The same series under several names, or dictionaries, is one.
    fn series(&mut self, bytes: &[u8], aggregation: Aggregation) -> Option<usize> {
        if let Some(at) = self.by_bytes.get(bytes) {
            let series = self.series.get(*at)?;
            return (series.aggregation == aggregation).then_some(*at);
        }
        let key = Arc::new(SeriesKey::decode(bytes)?);
        let meter = *self.by_meter.entry(key.meter().clone()).or_insert(self.meters.len());
        if meter == self.meters.len() {
            self.meters.push((key.meter().clone(), Total::default()));
        }
        let at = self.series.len();
        self.series.push(Series { key, bytes: bytes.into(), aggregation, meter });
        self.by_bytes.insert(bytes.into(), at);
        Some(at)
    }

    fn count(&mut self, key: (usize, Timestamp, Timestamp), part: Total) -> Option<()> {
        let series = self.series.get(key.0)?;
        if series.aggregation == Aggregation::Count && u64::try_from(part.quantity) != Ok(part.events) {
            return None;
        }
        let (_, total) = self.meters.get_mut(series.meter)?;
        let sum = self.counters.get(&key).copied().unwrap_or_default();
        match (sum.plus(part), total.plus(part)) {
            (Some(sum), Some(new_total)) => {
                *total = new_total;
                self.counters.insert(key, sum);
                self.events = self.events.saturating_add(part.events);
            }
            _ => self.refuse(reason::QUANTITY_OVERFLOW, part.events),
        }
        Some(())
    }

    fn refuse(&mut self, reason: &str, events: u64) {
        match self.refused.get_mut(reason) {
            Some(sum) => *sum = sum.saturating_add(events),
            None => drop(self.refused.insert(reason.to_owned(), events)),
        }
    }

    fn finish(self) -> MergedBatch {
        let Self { series, counters, .. } = self;
        let mut keyed: Vec<_> = counters
            .into_iter()
            .filter_map(|((at, window, received), total)| Some((series.get(at)?, window, received, total)))
            .collect();
        keyed.sort_unstable_by(|a, b| (&a.0.bytes, a.1, a.2).cmp(&(&b.0.bytes, b.1, b.2)));
        let lines = keyed
            .into_iter()
            .map(|(series, window_start, received_window_start, total)| Line {
                series: Arc::clone(&series.key),
                aggregation: series.aggregation,
                window_start,
                received_window_start,
                events: total.events,
                quantity: total.quantity,
            })
            .collect();
        MergedBatch {
            lanes: self.lanes.into_values().collect(),
            lines,
            events: self.events,
            clamped: self.clamped,
            refused: self.refused,
            totals: self.meters.into_iter().filter(|(_, total)| total.events > 0).collect(),
        }
    }
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
        }
        hash.digest128().to_be_bytes()
    }
}

fn len(len: usize) -> [u8; 8] {
    u64::try_from(len).unwrap_or(u64::MAX).to_be_bytes()
}
