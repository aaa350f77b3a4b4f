//! What is kept, by lane: where each frame stands, on disk or in memory, and how far it got.
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
    adoption::Adoption,
    error::LaneStop,
    log::{FrameRef, FreedFrames, Marks, Positions, Recovered},
    progress::LaneProgress,
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
    /// A freed position at which the ledger stands, as the log remembers it.
    remembered: Option<Position>,
    /// Where counts of this producer begin: 0, or where a lane was adopted.
    base: u64,
    /// What is known of a lane that has to be adopted first.
    adoption: Option<Adoption>,
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

/// Events by how far they got, over the whole life of the log, or of a process without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) kept: u64,
    pub(super) applied: u64,
    pub(super) settled: u64,
}

impl Totals {
    /// Events that are kept and not settled.
    pub(super) const fn unsettled(&self) -> u64 {
        self.kept.saturating_sub(self.settled)
    }
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
            let remembered = self.remembered.filter(|at| at.sequence == sequence);
            return remembered.map_or(ChainAt::Forgotten, |at| ChainAt::Boundary(at.chain));
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

    /// A lane whose last positions belong to an earlier process.
    fn adopting(settled: Position) -> Self {
        let mut lane = Self { adoption: Some(Adoption::default()), ..Self::default() };
        lane.stand_at(settled);
        lane
    }

    fn stand_at(&mut self, at: Position) {
        (self.freed, self.end, self.settled) = (at, at, at);
        (self.applied, self.base) = (at.sequence, at.sequence);
    }

    pub(super) const fn is_adopting(&self) -> bool {
        self.adoption.is_some()
    }

    /// Where a lane ends that needs not be adopted any more.
    pub(super) fn adopted(&self) -> Option<Position> {
        self.adoption.is_none().then_some(self.end)
    }

    /// Takes what was told of a lane that is not adopted; answers whether it is now, and from where it goes on.
    pub(super) fn adopt(
        &mut self,
        agreed: impl FnOnce(&mut Adoption) -> Option<Position>,
    ) -> Option<Position> {
        let position = agreed(self.adoption.as_mut()?)?;
        self.adoption = None;
        self.stand_at(position);
        Some(position)
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

    /// Of a producer without a log: every lane of its map, where it was settled when its epoch was raised.
    pub(super) fn adopting(lanes: impl IntoIterator<Item = (Lane, Position)>) -> Self {
        let lanes = lanes.into_iter().map(|(lane, settled)| (lane, LaneLog::adopting(settled)));
        let mut index = Self::new(&Recovered::default(), 0);
        index.lanes = lanes.collect();
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

    /// Adds what is kept in memory.
    pub(super) fn keep(&mut self, frames: Vec<FrameRef>, series: &[Arc<SeriesKey>]) {
        self.series.extend_from_slice(series);
        for frame in frames {
            self.push(frame);
        }
    }

    /// Events wait until their lane is adopted.
    pub(super) fn wait_for(&mut self, lane: Lane, events: u64) {
        if let Some(adoption) = self.lanes.get_mut(&lane).and_then(|log| log.adoption.as_mut()) {
            adoption.waiting_events = adoption.waiting_events.saturating_add(events);
        }
    }

    /// Whether events wait until this lane is adopted.
    pub(super) fn is_awaited(&self, lane: Lane) -> bool {
        let adoption = self.lanes.get(&lane).and_then(|log| log.adoption.as_ref());
        adoption.is_some_and(|adoption| adoption.waiting_events > 0)
    }

    /// Every lane that is not adopted yet, and why not.
    pub(super) fn unadopted(&self) -> Vec<LaneStop> {
        let lanes = self.lanes.iter();
        lanes.filter_map(|(lane, log)| Some(log.adoption.as_ref()?.overdue(*lane))).collect()
    }

    /// Forgets every frame that is settled; answers them.
    pub(super) fn free_settled(&mut self) -> Vec<FrameRef> {
        let mut freed = Vec::new();
        for log in self.lanes.values_mut() {
            while let Some(frame) =
                log.frames.pop_front_if(|frame| frame.end.sequence <= log.settled.sequence)
            {
                log.freed = frame.end;
                freed.push(frame);
            }
        }
        freed
    }

    /// Where the frames end that are about to be deleted.
    pub(super) fn frames_through(&self, through: &Positions) -> Vec<FreedFrames> {
        let frames = |(lane, last): (&Lane, &Position)| {
            let log = self.lanes.get(lane)?;
            let ends = log.frames.iter().map(|frame| frame.end);
            let ends: Vec<_> = ends.take_while(|end| end.sequence <= last.sequence).collect();
            (!ends.is_empty()).then_some(FreedFrames { lane: *lane, before: log.freed.sequence, ends })
        };
        through.iter().filter_map(frames).collect()
    }

    /// Takes what the log remembers of freed positions.
    pub(super) fn remember(&mut self, found: &Positions) {
        for (lane, at) in found {
            if let Some(log) = self.lanes.get_mut(lane) {
                log.remembered = Some(*at);
            }
        }
    }

    /// What was freed of these lanes and is not in the ledger was named as lost: they go on after it.
    pub(super) fn give_up(&mut self, lanes: impl IntoIterator<Item = Lane>) {
        for lane in lanes {
            if let Some(log) = self.lanes.get_mut(&lane) {
                (log.settled, log.remembered) = (log.freed, None);
            }
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

    pub(super) fn refuse(&mut self, lane: Lane, first_sequence: u64, reason: String, count: u32) -> bool {
        self.refusals.add(lane, first_sequence, reason, count)
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

    /// How far each lane is.
    pub(super) fn progress(&self) -> Vec<LaneProgress> {
        let progress = |(lane, log): (&Lane, &LaneLog)| LaneProgress {
            lane: *lane,
            end_sequence: log.end.sequence,
            settled_sequence: log.settled.sequence,
            freed_sequence: log.freed.sequence,
        };
        self.lanes.iter().map(progress).collect()
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
        self.lanes.values().fold(Totals::default(), |sum, lane| {
            let waiting = lane.adoption.as_ref().map_or(0, |adoption| adoption.waiting_events);
            let own = |sequence: u64| sequence.saturating_sub(lane.base);
            Totals {
                kept: sum.kept.saturating_add(own(lane.end.sequence)).saturating_add(waiting),
                // What is settled was applied, also where no stream of this process has said so yet.
                applied: sum.applied.saturating_add(own(lane.applied.max(lane.settled.sequence))),
                settled: sum.settled.saturating_add(own(lane.settled.sequence)),
            }
        })
    }
}
