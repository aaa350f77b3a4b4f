//! What is durable, by lane: where each frame stands on disk and how far it got.
//!
//! Shape: an entry for each frame that the log retains (about 80 bytes, freed with its segment) and a
//! bounded number of bodies that were not sent yet; others are read back from their segment. The writer
//! adds what it has made durable, the sender moves `applied` and `settled`. Nothing here waits.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use drawdown_metering_core::{
    resume::{ChainAt, LaneLog as LaneView},
    series::SeriesKey,
    shard::{Lane, Position},
};
use rustc_hash::FxHashMap;

use super::{
    log::{FrameRef, Marks, Positions, Recovered},
    refusals::Refusals,
};

/// One lane of the log.
#[derive(Debug, Default)]
pub(super) struct LaneLog {
    frames: VecDeque<FrameRef>,
    freed: Position,
    end: Position,
    settled: Position,
    applied: u64,
}

/// Every lane of the log, and bodies of frames that were not sent yet.
#[derive(Debug)]
pub(super) struct Index {
    lanes: BTreeMap<Lane, LaneLog>,
    series: Vec<Arc<SeriesKey>>,
    unsent: FxHashMap<(Lane, u64), Bytes>,
    unsent_bytes: usize,
    unsent_bytes_max: usize,
    marks: Marks,
    refusals: Refusals,
}

/// Events by how far they got, over the whole life of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) durable: u64,
    pub(super) applied: u64,
    pub(super) settled: u64,
}

impl LaneView for LaneLog {
    fn end(&self) -> Position {
        self.end
    }

    fn freed(&self) -> Position {
        self.freed
    }

    fn chain_at(&self, sequence: u64) -> ChainAt {
        if sequence == 0 {
            return ChainAt::Boundary(Position::START.chain);
        }
        if sequence == self.freed.sequence {
            return ChainAt::Boundary(self.freed.chain);
        }
        if sequence < self.freed.sequence {
            return ChainAt::Forgotten;
        }
        match self.frames.binary_search_by_key(&sequence, |frame| frame.end.sequence) {
            Ok(at) => {
                self.frames.get(at).map_or(ChainAt::NoBoundary, |frame| ChainAt::Boundary(frame.end.chain))
            }
            Err(_) => ChainAt::NoBoundary,
        }
    }
}

impl LaneLog {
    pub(super) const fn settled(&self) -> Position {
        self.settled
    }

    /// The frame that begins at `sequence`, and the chain before it.
    pub(super) fn frame_at(&self, sequence: u64) -> Option<(&FrameRef, u64)> {
        let at = self.frames.binary_search_by_key(&sequence, |frame| frame.first_sequence).ok()?;
        let before = match at.checked_sub(1) {
            Some(before) => self.frames.get(before)?.end.chain,
            None => self.freed.chain,
        };
        self.frames.get(at).map(|frame| (frame, before))
    }

    /// What a stream said last of `applied`; for reports only.
    pub(super) const fn set_applied(&mut self, sequence: u64) {
        self.applied = sequence;
    }

    /// Takes a settled position that was checked against the chain.
    pub(super) const fn set_settled(&mut self, settled: Position) {
        self.settled = settled;
    }
}

impl Index {
    pub(super) fn new(recovered: &Recovered, unsent_bytes_max: usize) -> Self {
        let mut lanes: BTreeMap<Lane, LaneLog> = BTreeMap::new();
        for (lane, freed) in &recovered.freed {
            // What was freed had been settled; the ledger's own word replaces it soon.
            lanes.insert(
                *lane,
                LaneLog {
                    freed: *freed,
                    end: *freed,
                    settled: *freed,
                    applied: freed.sequence,
                    ..LaneLog::default()
                },
            );
        }
        let mut index = Self {
            lanes,
            series: recovered.series.clone(),
            unsent: FxHashMap::default(),
            unsent_bytes: 0,
            unsent_bytes_max,
            marks: recovered.marks.clone(),
            refusals: Refusals::default(),
        };
        for frame in &recovered.frames {
            index.push(frame.clone());
        }
        index
    }

    fn push(&mut self, frame: FrameRef) {
        let lane = self.lanes.entry(frame.lane).or_default();
        lane.end = frame.end;
        lane.frames.push_back(frame);
    }

    /// Adds what has become durable.
    pub(super) fn publish(
        &mut self,
        frames: Vec<(FrameRef, Bytes)>,
        series: &[Arc<SeriesKey>],
        marks: Marks,
    ) {
        self.series.extend_from_slice(series);
        self.marks.extend(marks);
        for (frame, body) in frames {
            if self.unsent_bytes.saturating_add(body.len()) <= self.unsent_bytes_max {
                self.unsent_bytes = self.unsent_bytes.saturating_add(body.len());
                self.unsent.insert((frame.lane, frame.first_sequence), body);
            }
            self.push(frame);
        }
    }

    /// Forgets what was deleted from disk.
    pub(super) fn free(&mut self, through: &Positions) {
        for (lane, freed) in through {
            let Some(log) = self.lanes.get_mut(lane) else { continue };
            while log.frames.front().is_some_and(|frame| frame.end.sequence <= freed.sequence) {
                log.frames.pop_front();
            }
            if freed.sequence > log.freed.sequence {
                log.freed = *freed;
            }
        }
    }

    /// The body of a frame if it is still in memory; it is not kept any longer.
    pub(super) fn take_unsent(&mut self, lane: Lane, first_sequence: u64) -> Option<Bytes> {
        let body = self.unsent.remove(&(lane, first_sequence))?;
        self.unsent_bytes = self.unsent_bytes.saturating_sub(body.len());
        Some(body)
    }

    pub(super) fn lane(&self, lane: Lane) -> Option<&LaneLog> {
        self.lanes.get(&lane)
    }

    pub(super) fn lane_mut(&mut self, lane: Lane) -> Option<&mut LaneLog> {
        self.lanes.get_mut(&lane)
    }

    pub(super) fn lanes(&self) -> impl Iterator<Item = (Lane, &LaneLog)> {
        self.lanes.iter().map(|(lane, log)| (*lane, log))
    }

    pub(super) fn series(&self, number: u32) -> Option<&Arc<SeriesKey>> {
        self.series.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    pub(super) fn series_count(&self) -> usize {
        self.series.len()
    }

    pub(super) fn mark(&self, source: &[u8]) -> Option<&[u8]> {
        self.marks.get(source).map(|position| &**position)
    }

    pub(super) const fn marks(&self) -> &Marks {
        &self.marks
    }

    pub(super) fn refuse(&mut self, lane: Lane, first_sequence: u64, reason: String, count: u32) {
        self.refusals.add(lane, first_sequence, reason, count);
    }

    pub(super) fn settle_refusals(&mut self, lane: Lane, settled: Position) {
        self.refusals.settle(lane, settled);
    }

    pub(super) const fn refused(&self) -> &BTreeMap<String, u64> {
        self.refusals.by_reason()
    }

    /// Where every lane is settled.
    pub(super) fn settled(&self) -> Positions {
        self.lanes.iter().map(|(lane, log)| (*lane, log.settled)).collect()
    }

    /// Where every lane ends now.
    pub(super) fn ends(&self) -> BTreeMap<Lane, u64> {
        self.lanes.iter().map(|(lane, log)| (*lane, log.end.sequence)).collect()
    }

    /// The first lane that is not settled through its entry in `ends`.
    pub(super) fn unsettled(&self, ends: &BTreeMap<Lane, u64>) -> Option<Lane> {
        let behind =
            |(lane, end): &(&Lane, &u64)| self.lanes.get(lane).is_none_or(|log| log.settled.sequence < **end);
        ends.iter().find(behind).map(|(lane, _)| *lane)
    }

    pub(super) fn totals(&self) -> Totals {
        self.lanes.values().fold(Totals::default(), |sum, lane| Totals {
            durable: sum.durable.saturating_add(lane.end.sequence),
            // What is settled was applied, also where no stream of this process has said so yet.
            applied: sum.applied.saturating_add(lane.applied.max(lane.settled.sequence)),
            settled: sum.settled.saturating_add(lane.settled.sequence),
        })
    }
}
