//! Adds the blobs of one batch up, one after the other.

use std::{collections::BTreeMap, sync::Arc};

use drawdown_types::{MeterSlug, Timestamp};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Damage, Line, MergedBatch, Seal, SealedBatch, Total, VALUES_MAX};
use crate::{
    aggregate::LaneSpan,
    blob::{Counter, Decoded, FINGERPRINT_START, fingerprint_next},
    meter::{Aggregation, Counting},
    reason,
    series::SeriesKey,
    shard::Lane,
};

/// Merges the entries of a sealed batch's list, in the order of the list.
///
/// # Errors
/// [`Damage`]: what does not hold, and where.
pub fn merge<E: AsRef<[u8]>>(sealed: &SealedBatch, entries: &[E]) -> Result<MergedBatch, Damage> {
    if u64::try_from(entries.len()) != Ok(sealed.seal.count) {
        return Err(Damage::Count { found: entries.len(), sealed: sealed.seal.count });
    }
    let mut merging = Merging::new(sealed.shard, sealed.generation, sealed.batch);
    for entry in entries {
        merging.push(entry.as_ref())?;
    }
    merging.finish(&sealed.seal)
}

/// Which line of a batch, for as long as it is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LineKey {
    series: usize,
    window_start: Timestamp,
    received_window_start: Timestamp,
}

/// A line as far as it is merged.
#[derive(Clone, Copy, Debug)]
pub struct LineView<'a> {
    /// The series; of a unique meter without the counted dimension.
    pub series: &'a Arc<SeriesKey>,
    /// How its events are counted.
    pub aggregation: Aggregation,
    /// Start of the window of event time.
    pub window_start: Timestamp,
    /// Start of the window of the receipt.
    pub received_window_start: Timestamp,
    /// Events.
    pub events: u64,
    /// Sum of quantities, number of events, largest quantity or number of distinct values.
    pub quantity: i64,
    /// The distinct values, in no order; of a unique meter only.
    pub values: Option<&'a FxHashSet<Arc<str>>>,
}

/// A batch whose blobs come one after the other: what `merge` makes of a whole list, at any point of it.
#[derive(Debug)]
pub struct Merging {
    shard: u32,
    generation: u64,
    batch: u64,
    /// The most distinct values of a line.
    values_max: usize,
    /// Blobs so far.
    count: usize,
    fingerprint: String,
    /// Raw series and, of unique meters, the series of their lines.
    series: Vec<Series>,
    by_bytes: FxHashMap<Box<[u8]>, usize>,
    /// Series of each name, by dictionary.
    names: FxHashMap<u64, Vec<usize>>,
    meters: Vec<(MeterSlug, Total)>,
    by_meter: FxHashMap<MeterSlug, usize>,
    counters: FxHashMap<LineKey, Total>,
    values: FxHashMap<LineKey, FxHashSet<Arc<str>>>,
    lanes: BTreeMap<Lane, LaneSpan>,
    events: u64,
    clamped: u64,
    refused: BTreeMap<String, u64>,
    /// Lines that were touched, where somebody wants to know.
    touched: Option<FxHashSet<LineKey>>,
}

#[derive(Debug)]
struct Series {
    key: Arc<SeriesKey>,
    bytes: Box<[u8]>,
    aggregation: Aggregation,
    meter: usize,
    /// Of a series that is a value: the series of its line, the place of the dimension, and the value.
    value: Option<(usize, u8, Arc<str>)>,
}

impl Merging {
    /// No blobs yet.
    #[must_use]
    pub fn new(shard: u32, generation: u64, batch: u64) -> Self {
        Self {
            shard,
            generation,
            batch,
            values_max: VALUES_MAX,
            count: 0,
            fingerprint: FINGERPRINT_START.to_owned(),
            series: Vec::new(),
            by_bytes: FxHashMap::default(),
            names: FxHashMap::default(),
            meters: Vec::new(),
            by_meter: FxHashMap::default(),
            counters: FxHashMap::default(),
            values: FxHashMap::default(),
            lanes: BTreeMap::new(),
            events: 0,
            clamped: 0,
            refused: BTreeMap::new(),
            touched: None,
        }
    }

    /// Keeps at most so many distinct values of a line, instead of [`VALUES_MAX`].
    #[must_use]
    pub const fn with_values_max(mut self, values_max: usize) -> Self {
        self.values_max = values_max;
        self
    }

    /// Remembers which lines each blob touches, for [`Merging::take_touched`].
    #[must_use]
    pub fn watched(mut self) -> Self {
        self.touched = Some(FxHashSet::default());
        self
    }

    /// Blobs so far.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Lines and distinct values so far.
    #[must_use]
    pub fn weight(&self) -> usize {
        let values = self.values.values().map(FxHashSet::len);
        values.fold(self.counters.len(), usize::saturating_add)
    }

    /// Adds the next entry of the list.
    ///
    /// # Errors
    /// [`Damage`]: what does not hold. The batch can not be read on then.
    pub fn push(&mut self, entry: &[u8]) -> Result<(), Damage> {
        let at = self.count;
        let blob = Decoded::read(entry).map_err(|fault| Damage::Blob { at, fault })?;
        if u32::try_from(at) != Ok(blob.index) {
            return Err(Damage::Index { at, index: blob.index });
        }
        if (blob.shard, blob.generation, blob.batch) != (self.shard, self.generation, self.batch) {
            return Err(Damage::Foreign { at });
        }
        self.fingerprint = fingerprint_next(&self.fingerprint, blob.checksum);
        self.count = at.saturating_add(1);
        self.take(at, &blob)
    }

    /// The whole batch, if it is the one that was sealed.
    ///
    /// # Errors
    /// [`Damage::Count`] or [`Damage::Fingerprint`].
    pub fn finish(self, seal: &Seal) -> Result<MergedBatch, Damage> {
        if u64::try_from(self.count) != Ok(seal.count) {
            return Err(Damage::Count { found: self.count, sealed: seal.count });
        }
        if self.fingerprint != seal.fingerprint {
            return Err(Damage::Fingerprint { found: self.fingerprint, sealed: seal.fingerprint.clone() });
        }
        Ok(self.into_batch())
    }

    /// Which lines there are, in no order.
    pub fn keys(&self) -> impl Iterator<Item = LineKey> {
        self.counters.keys().copied()
    }

    /// Lines that were touched since this was asked last; none where it is not watched.
    pub fn take_touched(&mut self) -> FxHashSet<LineKey> {
        self.touched.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// A line as it is now.
    #[must_use]
    pub fn line(&self, key: &LineKey) -> Option<LineView<'_>> {
        let (total, series) = (self.counters.get(key)?, self.series.get(key.series)?);
        Some(LineView {
            series: &series.key,
            aggregation: series.aggregation,
            window_start: key.window_start,
            received_window_start: key.received_window_start,
            events: total.events,
            quantity: total.quantity,
            values: self.values.get(key),
        })
    }

    fn take(&mut self, at: usize, blob: &Decoded<'_>) -> Result<(), Damage> {
        for span in &blob.lanes {
            self.take_lane(at, span)?;
        }
        let mut names = self.names.remove(&blob.dictionary).unwrap_or_default();
        if u64::try_from(names.len()) != Ok(blob.names_before) {
            return Err(Damage::Names { at, dictionary: blob.dictionary });
        }
        for name in &blob.names {
            names.push(self.series(name.series, name.counting).ok_or(Damage::Series { at })?);
        }
        for counter in &blob.counters {
            let name = usize::try_from(counter.name).ok().and_then(|name| names.get(name));
            let series = *name.ok_or(Damage::Names { at, dictionary: blob.dictionary })?;
            self.count_one(series, counter).ok_or(Damage::Series { at })?;
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
    fn series(&mut self, bytes: &[u8], counting: Counting) -> Option<usize> {
        let counted = match counting {
            Counting::Unique(at) => Some(at),
            Counting::Sum | Counting::Count | Counting::Max => None,
        };
        let aggregation = counting.aggregation();
        if let Some(at) = self.by_bytes.get(bytes) {
            let series = self.series.get(*at)?;
            let known = (series.aggregation, series.value.as_ref().map(|(_, at, _)| *at));
            return (known == (aggregation, counted)).then_some(*at);
        }
        let key = SeriesKey::decode(bytes)?;
        let value = match counted {
            None => None,
            Some(at) => {
                let (line, value) = key.split(at)?;
                Some((self.line_series(line)?, at, value))
            }
        };
        self.insert(key, bytes.into(), aggregation, value)
    }

    /// The series that lines of a unique meter have.
    fn line_series(&mut self, key: SeriesKey) -> Option<usize> {
        let bytes = key.encode();
        if let Some(at) = self.by_bytes.get(bytes.as_slice()) {
            let series = self.series.get(*at)?;
            return (series.aggregation == Aggregation::Unique && series.value.is_none()).then_some(*at);
        }
        self.insert(key, bytes.into(), Aggregation::Unique, None)
    }

    fn insert(
        &mut self,
        key: SeriesKey,
        bytes: Box<[u8]>,
        aggregation: Aggregation,
        value: Option<(usize, u8, Arc<str>)>,
    ) -> Option<usize> {
        let meter = *self.by_meter.entry(key.meter().clone()).or_insert(self.meters.len());
        if meter == self.meters.len() {
            self.meters.push((key.meter().clone(), Total::default()));
        }
        let at = self.series.len();
        self.by_bytes.insert(bytes.clone(), at);
        self.series.push(Series { key: Arc::new(key), bytes, aggregation, meter, value });
        Some(at)
    }

    fn count_one(&mut self, at: usize, counter: &Counter) -> Option<()> {
        let series = self.series.get(at)?;
        let key = LineKey {
            series: series.value.as_ref().map_or(at, |(line, _, _)| *line),
            window_start: counter.window_start,
            received_window_start: counter.received_window_start,
        };
        let before = self.counters.get(&key).copied().unwrap_or_default();
        let mut more = Total { events: counter.events, quantity: counter.quantity };
        match (series.aggregation, &series.value) {
            (Aggregation::Sum, _) => {}
            (Aggregation::Count, _) if u64::try_from(counter.quantity) == Ok(counter.events) => {}
            (Aggregation::Max, _) => {
                more.quantity = counter.quantity.max(before.quantity).checked_sub(before.quantity)?;
            }
            (Aggregation::Unique, Some((_, _, value))) if counter.quantity == 1 => {
                let known = self.values.get(&key);
                more.quantity = i64::from(known.is_none_or(|known| !known.contains(value)));
                if more.quantity > 0 && known.is_some_and(|known| known.len() >= self.values_max) {
                    self.refuse(reason::VALUES_TOO_MANY, counter.events);
                    return Some(());
                }
            }
            (Aggregation::Count | Aggregation::Unique, _) => return None,
        }
        let (_, total) = self.meters.get_mut(series.meter)?;
        match (before.plus(more), total.plus(more)) {
            (Some(sum), Some(new_total)) => {
                *total = new_total;
                if let Some((_, _, value)) = series.value.as_ref().filter(|_| more.quantity > 0) {
                    self.values.entry(key).or_default().insert(Arc::clone(value));
                }
                self.counters.insert(key, sum);
                self.events = self.events.saturating_add(counter.events);
                if let Some(touched) = &mut self.touched {
                    touched.insert(key);
                }
            }
            _ => self.refuse(reason::QUANTITY_OVERFLOW, counter.events),
        }
        Some(())
    }

    fn refuse(&mut self, reason: &str, events: u64) {
        match self.refused.get_mut(reason) {
            Some(sum) => *sum = sum.saturating_add(events),
            None => drop(self.refused.insert(reason.to_owned(), events)),
        }
    }

    fn into_batch(self) -> MergedBatch {
        let Self { series, counters, mut values, .. } = self;
        let mut keyed: Vec<_> = counters
            .into_iter()
            .filter_map(|(key, total)| Some((series.get(key.series)?, key, total)))
            .collect();
        keyed.sort_unstable_by(|(one, a, _), (other, b, _)| {
            let windows = |key: &LineKey| (key.window_start, key.received_window_start);
            one.bytes.cmp(&other.bytes).then_with(|| windows(a).cmp(&windows(b)))
        });
        let lines = keyed.into_iter().map(|(series, key, total)| {
            let mut values: Vec<_> = values.remove(&key).into_iter().flatten().collect();
            values.sort_unstable();
            Line {
                series: Arc::clone(&series.key),
                aggregation: series.aggregation,
                window_start: key.window_start,
                received_window_start: key.received_window_start,
                events: total.events,
                quantity: total.quantity,
                values,
            }
        });
        MergedBatch {
            lines: lines.collect(),
            lanes: self.lanes.into_values().collect(),
            events: self.events,
            clamped: self.clamped,
            refused: self.refused,
            totals: self.meters.into_iter().filter(|(_, total)| total.events > 0).collect(),
        }
    }
}
