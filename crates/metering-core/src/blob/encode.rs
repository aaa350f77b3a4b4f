//! Writing blobs.

use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::xxh3_64;

use super::{MAGIC_1, MAGIC_2};
use crate::{
    aggregate::{Flush, FlushSeries, LaneSpan},
    meter::Counting,
    wire::{put_len, put_prefixed, put_varint, zigzag},
};

/// A blob, ready to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its bytes, without an index.
    pub bytes: Vec<u8>,
    /// Its checksum, which extends the fingerprint.
    pub checksum: u64,
    /// The id of the dictionary that names its series.
    pub dictionary: u64,
    /// Names that the dictionary had before it; `apply` compares.
    pub names_before: u64,
    /// Names that it defines.
    pub names_defined: u64,
}

/// One dictionary: which series this instance has named in the open batch of one shard.
#[derive(Debug)]
pub struct NameBook {
    id: u64,
    generation: u64,
    batch: u64,
    table: u64,
    count: u64,
    /// Name + 1 by slot; 0 for none.
    by_slot: Vec<u64>,
    committed: bool,
}

impl Default for NameBook {
    fn default() -> Self {
        Self::new()
    }
}

impl NameBook {
    /// Names nothing, and takes the next fresh id.
    #[must_use]
    pub const fn new() -> Self {
        Self { id: 0, generation: 0, batch: 0, table: 0, count: 0, by_slot: Vec::new(), committed: false }
    }

    /// The blob encoded last is known to be applied: its names hold. Never call it for any answer but OK.
    pub fn commit(&mut self) {
        self.committed = true;
    }

    /// Forgets all names: after a doubt that no encoding followed.
    pub fn forget(&mut self) {
        self.committed = false;
    }

    /// Packs a flush for batch `batch` of `generation`. `fresh` is a random id, used where the names can
    /// not be trusted any more.
    pub fn encode(&mut self, flush: &Flush, generation: u64, batch: u64, fresh: u64) -> Blob {
        let holds = self.committed
            && (self.generation, self.batch, self.table) == (generation, batch, flush.table)
            && self.id != 0;
        if !holds {
            *self = Self { id: fresh, generation, batch, table: flush.table, ..Self::new() };
        }
        self.committed = false;

        let names_before = self.count;
        let mut names = Vec::new();
        let of_series: Vec<u64> = flush.series.iter().map(|series| self.name(series, &mut names)).collect();
        let names_defined = self.count.saturating_sub(names_before);

        let mut out = Vec::with_capacity(flush.counters.len().saturating_mul(8).saturating_add(256));
        let is_first = flush.series.iter().all(|series| series.counting.aggregation().adds_up());
        out.extend_from_slice(if is_first { MAGIC_1 } else { MAGIC_2 });
        out.extend_from_slice(&generation.to_be_bytes());
        put_varint(&mut out, batch);
        put_varint(&mut out, u64::from(flush.shard));
        out.extend_from_slice(&self.id.to_be_bytes());
        put_varint(&mut out, names_before);
        put_varint(&mut out, names_defined);
        out.extend_from_slice(&names);
        put_len(&mut out, flush.lanes.len());
        for span in &flush.lanes {
            put_lane(&mut out, span);
        }
        put_varint(&mut out, flush.clamped);
        put_len(&mut out, flush.refused.len());
        for (reason, events) in &flush.refused {
            put_prefixed(&mut out, reason.as_bytes());
            put_varint(&mut out, *events);
        }
        put_counters(&mut out, flush, &of_series);
        let checksum = xxh3_64(&out);
        out.extend_from_slice(&checksum.to_be_bytes());
        Blob { bytes: out, checksum, dictionary: self.id, names_before, names_defined }
    }

    /// The name of a series; written to `names` where it is new.
    fn name(&mut self, series: &FlushSeries, names: &mut Vec<u8>) -> u64 {
        let slot = usize::try_from(series.slot).unwrap_or_default();
        if slot >= self.by_slot.len() {
            self.by_slot.resize(slot.saturating_add(1), 0);
        }
        let Some(known) = self.by_slot.get_mut(slot) else { return u64::MAX };
        if *known == 0 {
            self.count = self.count.saturating_add(1);
            *known = self.count;
            names.push(series.counting.aggregation().as_byte());
            if let Counting::Unique(at) = series.counting {
                names.push(at);
            }
            put_prefixed(names, &series.key.encode());
        }
        known.saturating_sub(1)
    }
}

fn put_lane(out: &mut Vec<u8>, span: &LaneSpan) {
    out.extend_from_slice(span.lane.producer.as_uuid().as_bytes());
    put_varint(out, u64::from(span.lane.map_version));
    put_varint(out, span.epoch);
    put_varint(out, span.from);
    put_varint(out, span.to.saturating_sub(span.from));
    out.extend_from_slice(&span.chain_before.to_be_bytes());
    out.extend_from_slice(&span.chain_after.to_be_bytes());
}

fn put_counters(out: &mut Vec<u8>, flush: &Flush, names: &[u64]) {
    let mut pairs: Vec<(i64, i64)> = Vec::new();
    let mut counters = Vec::with_capacity(flush.counters.len().saturating_mul(6));
    let mut quantity: i128 = 0;
    let mut pair_ids: FxHashMap<(i64, i64), usize> = FxHashMap::default();
    for counter in &flush.counters {
        let pair = (counter.window_start_secs, counter.received_window_start_secs);
        let pair_id = *pair_ids.entry(pair).or_insert(pairs.len());
        if pair_id == pairs.len() {
            pairs.push(pair);
        }
        let name = usize::try_from(counter.series).ok().and_then(|at| names.get(at));
        put_varint(&mut counters, name.copied().unwrap_or(u64::MAX));
        put_len(&mut counters, pair_id);
        put_varint(&mut counters, counter.events);
        put_varint(&mut counters, counter.quantity.cast_unsigned());
        quantity = quantity.saturating_add(i128::from(counter.quantity));
    }
    put_varint(out, flush.events());
    out.extend_from_slice(&quantity.to_be_bytes());
    put_len(out, pairs.len());
    for (window, received) in pairs {
        put_varint(out, zigzag(window));
        put_varint(out, zigzag(received));
    }
    put_len(out, flush.counters.len());
    out.extend_from_slice(&counters);
}
