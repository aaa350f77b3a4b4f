//! What Redis checks and keeps, in memory: enough of `apply` and `seal` to drive several instances.

use std::collections::BTreeMap;

use drawdown_metering_core::{
    aggregate::Flush,
    blob::{self, Blob},
    settle::{Seal, SealedBatch},
    shard::{Lane, Position},
};

pub(crate) const GENERATION: u64 = 0xfeed;

pub(crate) struct Redis {
    pub(crate) open: u64,
    pub(crate) entries: Vec<Vec<u8>>,
    fingerprint: String,
    names: BTreeMap<u64, u64>,
    lanes: BTreeMap<Lane, Position>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    Ok,
    Names,
    Lane,
}

impl Redis {
    pub(crate) fn new() -> Self {
        Self {
            open: 1,
            entries: Vec::new(),
            fingerprint: blob::FINGERPRINT_START.to_owned(),
            names: BTreeMap::new(),
            lanes: BTreeMap::new(),
        }
    }

    pub(crate) fn applied(&self, lane: &Lane) -> Position {
        self.lanes.get(lane).copied().unwrap_or_default()
    }

    pub(crate) fn apply(&mut self, flush: &Flush, blob: &Blob) -> Applied {
        if self.names.get(&blob.dictionary).copied().unwrap_or_default() != blob.names_before {
            return Applied::Names;
        }
        if flush.lanes.iter().any(|span| self.applied(&span.lane) != span.before()) {
            return Applied::Lane;
        }
        let index = u32::try_from(self.entries.len()).unwrap();
        self.entries.push(blob::entry(index, &blob.bytes));
        self.fingerprint = blob::fingerprint_next(&self.fingerprint, blob.checksum);
        self.names.insert(blob.dictionary, blob.names_before + blob.names_defined);
        for span in &flush.lanes {
            self.lanes.insert(span.lane, span.after());
        }
        Applied::Ok
    }

    /// Seals the open batch and opens the next.
    pub(crate) fn seal(&mut self) -> (SealedBatch, Vec<Vec<u8>>) {
        let entries = std::mem::take(&mut self.entries);
        let fingerprint = std::mem::replace(&mut self.fingerprint, blob::FINGERPRINT_START.to_owned());
        let seal = Seal { count: u64::try_from(entries.len()).unwrap(), fingerprint };
        let sealed = SealedBatch { shard: 0, generation: GENERATION, batch: self.open, seal };
        self.names.clear();
        self.open += 1;
        (sealed, entries)
    }
}
