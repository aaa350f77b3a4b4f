//! What the reader holds of one shard: its batches that are not settled, merged as far as they were read.
//!
//! Blobs are only ever appended, so what was read of a list is never read again; but Redis may lose the end of a list and
//! get another one. Therefore each reading begins with the last entry that is known: where it is another one, or the
//! list is shorter, or the generation changed, the shard is forgotten and read anew, and watchers get all of it again.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use drawdown_metering_core::{
    look::{Cursor, Head},
    settle::{LineKey, LineView, Merging, Seal},
};
use drawdown_types::Timestamp;
use rustc_hash::FxHashSet;

use super::{Standing, Usage};

/// Blobs of one reading.
const BLOBS_MAX: u64 = 256;

/// Bounds of one shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Lines and distinct values.
    pub(super) lines_max: usize,
    /// Changes that are remembered.
    pub(super) changes_max: usize,
}

/// Entries of a list that are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) generation: u64,
    pub(super) batch: u64,
    pub(super) first: u64,
    pub(super) count: u64,
}

/// What became of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absorbed {
    /// They are in.
    Taken,
    /// The list ends before: it was retired, or a part of it is lost.
    Short,
    /// It is not the list that it was; everything is forgotten.
    Forgotten,
    /// The shard has more lines than it may; everything is forgotten.
    TooLarge,
}

#[derive(Debug)]
struct Batch {
    merging: Merging,
    /// The last entry that was read.
    last: Bytes,
}

/// Where a watcher is in a shard.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    reading: u64,
    version: u64,
    settled: u64,
}

/// What a watcher has not been told of a shard.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) standing: Standing,
    pub(super) complete_up_to: Timestamp,
    /// All there is, instead of what has changed.
    pub(super) snapshot: bool,
    pub(super) usage: Vec<Usage>,
}

/// There are more lines than one answer may have.
#[derive(Debug)]
pub(super) struct TooMany(pub(super) usize);

/// One shard.
#[derive(Debug)]
pub(super) struct Shard {
    number: u32,
    limits: Limits,
    /// Which reading from the beginning this is, from 1.
    reading: u64,
    standing: Option<Standing>,
    batches: BTreeMap<u64, Batch>,
    /// Grows with each reading that changes something.
    version: u64,
    changes: VecDeque<(u64, u64, LineKey)>,
    /// Changes up to this version are not remembered any more.
    forgotten_up_to: u64,
    /// `None` until the shard was read once from the beginning.
    complete_up_to: Option<Timestamp>,
    is_too_large: bool,
}

impl Shard {
    pub(super) fn new(number: u32, limits: Limits) -> Self {
        Self {
            number,
            limits,
            reading: 1,
            standing: None,
            batches: BTreeMap::new(),
            version: 0,
            changes: VecDeque::new(),
            forgotten_up_to: 0,
            complete_up_to: None,
            is_too_large: false,
        }
    }

    /// What was too much before may fit now.
    pub(super) const fn begin_round(&mut self) {
        self.is_too_large = false;
    }

    /// Nobody watches, or it has to be read anew.
    pub(super) fn forget(&mut self) {
        *self = Self { reading: self.reading.saturating_add(1), ..Self::new(self.number, self.limits) };
    }

    /// There is something to forget.
    pub(super) fn is_known(&self) -> bool {
        self.is_too_large || self.standing.is_some() || !self.batches.is_empty()
    }

    pub(super) const fn complete_up_to(&self) -> Option<Timestamp> {
        self.complete_up_to
    }

    /// What is to be read next of the lists that a head tells of, of batches after one; with the last entry known, if
    /// there is one.
    pub(super) fn next_part(&mut self, head: &Head, after: u64) -> Option<Part> {
        if self.standing.is_some_and(|standing| standing.generation != head.generation) {
            self.forget();
        }
        let after = after.max(self.standing.map_or(0, |standing| standing.settled));
        let sealed =
            head.sealed.iter().filter_map(|(batch, seal)| Some((*batch, seal.parse::<Seal>().ok()?.count)));
        for (batch, count) in sealed.chain([(head.open, head.blobs)]).filter(|(batch, _)| *batch > after) {
            let known = self.batches.get(&batch).map_or(0, |batch| batch.merging.count());
            let known = u64::try_from(known).unwrap_or(u64::MAX);
            if known > count {
                self.forget();
                return self.next_part(head, after);
            }
            if known < count {
                let first = known.saturating_sub(1);
                let count = count.saturating_sub(first).min(BLOBS_MAX);
                return Some(Part { generation: head.generation, batch, first, count });
            }
        }
        None
    }

    /// Takes entries that were read for [`Shard::next_part`].
    pub(super) fn absorb(&mut self, part: Part, entries: &[Bytes]) -> Absorbed {
        let Part { generation, batch: number, .. } = part;
        let known = self.batches.contains_key(&number);
        if u64::try_from(entries.len()) != Ok(part.count) {
            return Absorbed::Short;
        }
        let batch = self.batches.entry(number).or_insert_with(|| Batch {
            merging: Merging::new(self.number, generation, number).watched(),
            last: Bytes::new(),
        });
        let mut new = entries.iter();
        let is_same = !known || new.next().is_some_and(|first| *first == batch.last);
        if !is_same || !new.all(|entry| batch.merging.push(entry).is_ok()) {
            self.forget();
            return Absorbed::Forgotten;
        }
        if let Some(last) = entries.last() {
            batch.last = last.clone();
        }
        self.version = self.version.saturating_add(1);
        for key in batch.merging.take_touched() {
            self.changes.push_back((self.version, number, key));
        }
        while self.changes.len() > self.limits.changes_max {
            let dropped = self.changes.pop_front();
            self.forgotten_up_to = dropped.map_or(self.forgotten_up_to, |(version, ..)| version);
        }
        let weights = self.batches.values().map(|batch| batch.merging.weight());
        if weights.fold(0, usize::saturating_add) > self.limits.lines_max {
            self.forget();
            self.is_too_large = true;
            return Absorbed::TooLarge;
        }
        Absorbed::Taken
    }

    /// Ends a round: everything that `head` tells of was read, and after it the cursor.
    pub(super) fn end_round(&mut self, head: &Head, cursor: &Cursor, began: Timestamp) {
        self.batches.retain(|batch, _| *batch > cursor.last_batch);
        self.standing = Some(Standing {
            shard: self.number,
            generation: head.generation,
            settled: cursor.last_batch,
            open: head.open.max(cursor.last_batch),
        });
        self.complete_up_to = Some(began);
    }

    /// What has changed since a mark, as far as it is wanted; moves the mark. `None` where there is nothing to tell.
    pub(super) fn since(
        &self,
        mark: &mut Mark,
        lines_max: usize,
        takes: impl Fn(&LineView<'_>) -> bool,
    ) -> Result<Option<Changes>, TooMany> {
        if self.is_too_large {
            return Err(TooMany(self.limits.lines_max));
        }
        let (Some(standing), Some(complete_up_to)) = (self.standing, self.complete_up_to) else {
            return Ok(None);
        };
        let snapshot = mark.reading != self.reading || mark.version < self.forgotten_up_to;
        let mut usage = Vec::new();
        let mut add = |number: u64, batch: &Batch, key: &LineKey| {
            let Some(line) = batch.merging.line(key).filter(|line| takes(line)) else { return Ok(()) };
            if usage.len() >= lines_max {
                return Err(TooMany(lines_max));
            }
            usage.push(part_of(self.number, number, &line));
            Ok(())
        };
        if snapshot {
            for (number, batch) in &self.batches {
                batch.merging.keys().try_for_each(|key| add(*number, batch, &key))?;
            }
        } else {
            let from = self.changes.partition_point(|(version, ..)| *version <= mark.version);
            let changed: FxHashSet<(u64, LineKey)> =
                self.changes.range(from..).map(|(_, batch, key)| (*batch, *key)).collect();
            for (number, key) in &changed {
                if let Some(batch) = self.batches.get(number) {
                    add(*number, batch, key)?;
                }
            }
        }
        let is_news = snapshot || !usage.is_empty() || mark.settled != standing.settled;
        *mark = Mark { reading: self.reading, version: self.version, settled: standing.settled };
        Ok(is_news.then_some(Changes { standing, complete_up_to, snapshot, usage }))
    }
}

fn part_of(shard: u32, batch: u64, line: &LineView<'_>) -> Usage {
    Usage {
        series: std::sync::Arc::clone(line.series),
        aggregation: line.aggregation,
        window_start: line.window_start,
        events: line.events,
        quantity: line.quantity,
        part: Some((shard, batch, line.received_window_start)),
        app_id: None,
    }
}

#[cfg(test)]
mod tests;
