//! The hot accumulator: what one instance adds up for one shard between two flushes.
//!
//! Shape: an event costs one index into the stream's hints (checked in a first pass over the series
//! column), one index into `slots`, one into `counters`, and two adds. A slot remembers its counter of
//! the last window pair it saw; only a series that jumps between windows pays for a hash lookup.
//! Counters are kept per (series, window, receipt window), so that lateness is decided exactly, later.
//!
//! A frame is all or nothing: everything that can refuse it (its lane's position and chain, its
//! definitions, its series, its shard, its receipt) is checked before the first counter moves, and
//! from there on nothing fails: an event that does not hold is counted as refused, with its reason,
//! in its place of the sequence. A flush takes the counters together with the lane ranges they came
//! from; the two are never separated. When a write is refused or in doubt, [`Aggregator::clear`]
//! forgets all of it and the lanes are attached again where Redis says they stand.

mod count;
mod flush;
mod rules;
mod values;

use std::{collections::BTreeMap, sync::Arc};

use drawdown_types::{ProducerId, Timestamp};
use rustc_hash::{FxHashMap, FxHashSet};

pub use flush::{Flush, FlushCounter, FlushSeries, LaneSpan};
pub use rules::EventRules;
pub use values::ValueLimits;

use crate::{
    aggregate::{
        count::{Counters, Refusal, Status},
        values::ValueBook,
    },
    dictionary::{Dictionary, Tag},
    fault::{FieldFault, FrameFault},
    frame::{Frame, FrameView, Part},
    meter::{Counting, MeterTable},
    reason,
    series::SeriesKey,
    shard::{Lane, Position, ShardMap},
};

/// A frame, with what its stream knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a, F = FrameView<'a>> {
    /// Whose stream.
    pub producer: ProducerId,
    /// The stream's epoch.
    pub epoch: u64,
    /// The map of the frame's map version.
    pub map: ShardMap,
    /// The lane's chain before the frame.
    pub chain_before: u64,
    /// The lane's chain after the frame: [`Frame::chain_after`] of `chain_before`. It is
    /// a pass over all bytes, made once, by whoever checks that the frame is intact.
    pub chain_after: u64,
    /// The frame.
    pub frame: &'a F,
    /// The present instant.
    pub now: Timestamp,
}

/// What became of a frame that was not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Added {
    /// Its events are counted or refused, each in its place.
    Counted {
        /// Where its lane stands in this aggregator now.
        position: Position,
        /// Events that were refused, by reason.
        refused: Vec<RefusedEvents>,
    },
    /// Its lane is past it; nothing changed.
    Duplicate,
}

/// What became of an attempt to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// The lane stands here; frames from there on are taken.
    At(Position),
    /// Another instance applied more of the lane than is counted here and not flushed, so this flush
    /// would be refused: nothing changed, and [`Aggregator::clear`] is due.
    Overtaken,
}

/// Events of one frame that were refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedEvents {
    /// One of [`crate::reason`].
    pub reason: &'static str,
    /// How many.
    pub count: u32,
    /// The sequence of the first of them.
    pub first_sequence: u64,
    /// What was wrong with the first of them.
    pub fault: FieldFault,
}

#[derive(Clone, Copy, Debug)]
struct LaneProgress {
    epoch: u64,
    position: Position,
    /// Where the counters that are not flushed yet begin.
    unflushed_from: Option<Position>,
}

/// Adds frames up, for one shard.
#[derive(Debug)]
pub struct Aggregator {
    shard: u32,
    rules: EventRules,
    series_max: usize,
    meters: Arc<MeterTable>,
    /// Changes whenever slots are forgotten; names of a blob's dictionary hold for one table.
    table: u64,
    tags: Vec<(ShardMap, Tag)>,
    by_key: FxHashMap<Arc<SeriesKey>, u32>,
    series: Vec<Arc<SeriesKey>>,
    values: ValueBook,
    /// Slots that stand for more series than one, because their dimensions had too many values.
    shared: FxHashSet<u32>,
    /// Series were kept that have to be looked at again.
    stale: bool,
    counters: Counters,
    lanes: FxHashMap<Lane, LaneProgress>,
    clamped: u64,
    refused: BTreeMap<&'static str, u64>,
    scratch: Vec<u32>,
}

impl Aggregator {
    /// Empty. Remembers about `series_max` series from flush to flush.
    #[must_use]
    pub fn new(shard: u32, rules: EventRules, series_max: usize, meters: Arc<MeterTable>) -> Self {
        Self {
            shard,
            rules,
            series_max,
            meters,
            table: 1,
            tags: Vec::new(),
            by_key: FxHashMap::default(),
            series: Vec::new(),
            values: ValueBook::new(ValueLimits::default()),
            shared: FxHashSet::default(),
            stale: false,
            counters: Counters::default(),
            lanes: FxHashMap::default(),
            clamped: 0,
            refused: BTreeMap::new(),
            scratch: Vec::new(),
        }
    }

    /// Tells so many values of dimensions apart, instead of the usual number.
    #[must_use]
    pub fn with_value_limits(mut self, limits: ValueLimits) -> Self {
        self.values = ValueBook::new(limits);
        self
    }

    /// Counts by a newer catalogue from here on.
    pub fn set_meters(&mut self, meters: Arc<MeterTable>) {
        for (slot, key) in self.series.iter().enumerate() {
            // The values of a series that was refused until now are not known to the book.
            self.stale |= self.counters.set_status(slot, Status::of(meters.admit(key)));
        }
        self.meters = meters;
    }

    /// Starts a lane where Redis says it stands, and answers where it stands here. A lane that is here
    /// keeps what is not flushed yet: only its epoch is raised.
    pub fn attach(&mut self, lane: Lane, epoch: u64, applied: Position) -> Attached {
        let fresh = LaneProgress { epoch, position: applied, unflushed_from: None };
        let progress = self.lanes.entry(lane).or_insert(fresh);
        let moved_elsewhere = applied.sequence > progress.position.sequence;
        if moved_elsewhere && progress.unflushed_from.is_some() {
            return Attached::Overtaken;
        }
        progress.epoch = progress.epoch.max(epoch);
        if moved_elsewhere {
            progress.position = applied;
        }
        Attached::At(progress.position)
    }

    /// Where a lane stands here, counted or not flushed yet.
    #[must_use]
    pub fn position(&self, lane: &Lane) -> Option<Position> {
        self.lanes.get(lane).map(|progress| progress.position)
    }

    /// Whether something of a lane waits to be flushed.
    #[must_use]
    pub fn is_waiting(&self, lane: &Lane) -> bool {
        self.lanes.get(lane).is_some_and(|progress| progress.unflushed_from.is_some())
    }

    /// Forgets a lane that has nothing to flush; answers whether it did.
    pub fn detach(&mut self, lane: &Lane) -> bool {
        let idle = self.lanes.get(lane).is_some_and(|progress| progress.unflushed_from.is_none());
        if idle {
            self.lanes.remove(lane);
        }
        idle
    }

    /// Nothing waits to be flushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lanes.values().all(|progress| progress.unflushed_from.is_none())
    }

    /// Counters that the next flush will have.
    #[must_use]
    pub fn counters(&self) -> usize {
        self.counters.len()
    }

    /// Series that are remembered, counted or refused. Above the bound of the constructor they are forgotten with the next
    /// [`Aggregator::take`].
    #[must_use]
    pub fn series(&self) -> usize {
        self.series.len()
    }

    /// Adds a frame: its definitions, then its events, all or nothing.
    ///
    /// # Errors
    /// `LANE_UNKNOWN`, `FENCED`, `LANE_OUT_OF_SEQUENCE`, `DIVERGED`, `RECEIPT_IN_FUTURE`, `SERIES_CONFLICT`,
    /// `SERIES_TOO_MANY`, `SERIES_UNKNOWN`, `SHARD_MISMATCH`.
    pub fn add<F: Frame>(
        &mut self,
        incoming: &Incoming<'_, F>,
        dictionary: &mut Dictionary,
    ) -> Result<Added, FrameFault> {
        let frame = incoming.frame;
        let lane =
            Lane { producer: incoming.producer, map_version: frame.map_version(), shard: frame.shard() };
        if !self.extends(&lane, incoming)? {
            return Ok(Added::Duplicate);
        }
        self.rules.check_receipt(frame.received_at_ms(), incoming.now)?;
        self.values.note(incoming.now);
        dictionary.define(frame.definitions())?;
        self.resolve(incoming.map, frame, dictionary)?;

        let refusals = self.count(frame);
        let position = Position { sequence: *frame.sequences().end(), chain: incoming.chain_after };
        if let Some(progress) = self.lanes.get_mut(&lane) {
            progress.unflushed_from.get_or_insert(progress.position);
            progress.position = position;
            progress.epoch = progress.epoch.max(incoming.epoch);
        }
        let refused = refusals.into_iter().map(|refusal| refusal.name(frame, &self.rules)).collect();
        Ok(Added::Counted { position, refused })
    }

    /// Takes everything that is not flushed yet. Lanes stay where they stand.
    pub fn take(&mut self) -> Flush {
        let mut lanes: Vec<LaneSpan> = Vec::new();
        for (lane, progress) in &mut self.lanes {
            if let Some(from) = progress.unflushed_from.take() {
                lanes.push(LaneSpan::between(*lane, progress.epoch, from, progress.position));
            }
        }
        lanes.sort_by_key(|span| span.lane);
        let (counters, touched) = self.counters.take();
        let series = touched
            .iter()
            .filter_map(|(slot, counting)| {
                let key = usize::try_from(*slot).ok().and_then(|at| self.series.get(at))?;
                Some(FlushSeries { slot: *slot, key: Arc::clone(key), counting: *counting })
            })
            .collect();
        let overflowed = self.overflowed(&touched, &counters);
        let flush = Flush {
            shard: self.shard,
            table: self.table,
            lanes,
            series,
            counters,
            clamped: std::mem::take(&mut self.clamped),
            refused: std::mem::take(&mut self.refused).into_iter().collect(),
            overflowed,
            overflows: self.values.take_overflows(),
        };
        if self.series.len() > self.series_max || self.stale || self.values.is_over() {
            self.forget_series();
        }
        flush
    }

    /// Events that were counted under [`crate::series::OTHER`].
    fn overflowed(&self, touched: &[(u32, Counting)], counters: &[FlushCounter]) -> u64 {
        if self.shared.is_empty() {
            return 0;
        }
        let of = |counter: &FlushCounter| touched.get(usize::try_from(counter.series).ok()?).map(|of| of.0);
        let shared =
            counters.iter().filter(|counter| of(counter).is_some_and(|of| self.shared.contains(&of)));
        shared.fold(0, |sum, counter| sum.saturating_add(counter.events))
    }

    /// Forgets everything that is not flushed, and all lanes. Series are kept.
    pub fn clear(&mut self) {
        drop(self.counters.take());
        self.lanes.clear();
        self.clamped = 0;
        self.refused.clear();
    }

    /// True where the frame is next; false where its lane is past it.
    fn extends<F: Frame>(&self, lane: &Lane, incoming: &Incoming<'_, F>) -> Result<bool, FrameFault> {
        let frame = incoming.frame;
        if lane.shard != self.shard || lane.map_version != incoming.map.version {
            return Err(FrameFault::one(
                reason::LANE_UNKNOWN,
                "lane",
                "is another one than the frame was taken for",
            ));
        }
        let Some(progress) = self.lanes.get(lane) else {
            return Err(FrameFault::one(reason::LANE_UNKNOWN, "lane", "was not attached on this stream"));
        };
        if incoming.epoch < progress.epoch {
            let description = format!("is {}, this lane is at {}", incoming.epoch, progress.epoch);
            return Err(FrameFault::one(reason::FENCED, "epoch", description));
        }
        let (sequences, at) = (frame.sequences(), progress.position);
        let next = at.sequence.saturating_add(1);
        if *sequences.start() > next {
            let description = format!("is {}, the lane goes on at {next}", sequences.start());
            return Err(FrameFault::one(reason::LANE_OUT_OF_SEQUENCE, "first_sequence", description));
        }
        let diverged =
            |field: &str, description: &str| Err(FrameFault::one(reason::DIVERGED, field, description));
        if *sequences.start() == next {
            if incoming.chain_before != at.chain {
                return diverged("chain_before", "is not the chain of the events before");
            }
            return Ok(true);
        }
        // Frames are never split, so an end inside this one belongs to another log.
        if *sequences.end() > at.sequence {
            return diverged("first_sequence", "lies inside a frame that is counted already");
        }
        if *sequences.end() == at.sequence && incoming.chain_after != at.chain {
            return diverged("body", "is not the frame that is counted at this sequence");
        }
        Ok(false)
    }

    /// Fills `scratch` with the slot of each event, or names every event that has none.
    fn resolve(
        &mut self,
        map: ShardMap,
        frame: &impl Frame,
        dictionary: &mut Dictionary,
    ) -> Result<(), FrameFault> {
        let tag = self.tag(map);
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.resize(usize::try_from(frame.events()).unwrap_or_default(), 0);
        let (mut slots, mut place) = (scratch.iter_mut(), 0u32);
        let mut faults: BTreeMap<&'static str, Vec<FieldFault>> = BTreeMap::new();
        frame.for_each_series(|number| {
            let slot = match dictionary.hint(number, tag) {
                Some(slot) => slot,
                None => {
                    self.resolve_one(map, tag, number, dictionary).unwrap_or_else(|(reason, description)| {
                        let found = faults.entry(reason).or_default();
                        if found.len() < FAULTS_MAX {
                            found.push(FieldFault::new(frame.path(Part::Series, place), description));
                        }
                        0
                    })
                }
            };
            if let Some(place) = slots.next() {
                *place = slot;
            }
            place = place.saturating_add(1);
        });
        self.scratch = scratch;
        match faults.pop_first() {
            None => Ok(()),
            Some((reason, fields)) => Err(FrameFault::new(reason, fields)),
        }
    }

    #[cold]
    fn resolve_one(
        &mut self,
        map: ShardMap,
        tag: Tag,
        number: u32,
        dictionary: &mut Dictionary,
    ) -> Result<u32, (&'static str, String)> {
        let Some(key) = dictionary.get(number) else {
            return Err((reason::SERIES_UNKNOWN, format!("is {number}, which this stream has not defined")));
        };
        let shard = map.shard_of(key.client_id().as_str());
        if shard != self.shard {
            let description =
                format!("is of client id {}, whose shard is {shard}, not {}", key.client_id(), self.shard);
            return Err((reason::SHARD_MISMATCH, description));
        }
        let slot = match self.by_key.get(key) {
            Some(slot) => *slot,
            None => {
                let key = Arc::clone(key);
                self.slot_of(key)
            }
        };
        dictionary.set_hint(number, tag, slot);
        Ok(slot)
    }

    /// The slot of a series that has none by its own name. One with values beyond the bound shares the slot of
    /// [`crate::series::OTHER`] and is not remembered: there may be any number of them.
    fn slot_of(&mut self, key: Arc<SeriesKey>) -> u32 {
        let admitted = self.meters.admit(&key);
        let folded = admitted.ok().and_then(|counting| self.values.fold(&key, counting));
        let is_shared = folded.is_some();
        let key = folded.map_or(key, Arc::new);
        let slot = match self.by_key.get(&key) {
            Some(slot) => *slot,
            None => {
                let slot = self.counters.add_slot(Status::of(admitted));
                self.series.push(Arc::clone(&key));
                self.by_key.insert(key, slot);
                slot
            }
        };
        if is_shared {
            self.shared.insert(slot);
        }
        slot
    }

    fn tag(&mut self, map: ShardMap) -> Tag {
        if let Some((_, tag)) = self.tags.iter().find(|(known, _)| *known == map) {
            return *tag;
        }
        let tag = Tag::fresh();
        self.tags.push((map, tag));
        tag
    }

    /// The counters must be empty: they point into what is forgotten here.
    fn forget_series(&mut self) {
        self.by_key.clear();
        self.series.clear();
        self.counters.forget_slots();
        self.shared.clear();
        self.stale = false;
        if self.values.is_over() {
            self.values.begin();
        }
        self.tags.clear();
        self.table = self.table.wrapping_add(1);
    }

    fn count(&mut self, frame: &impl Frame) -> Vec<Refusal> {
        let counted = self.counters.add(frame, &self.scratch, &self.rules);
        self.clamped = self.clamped.saturating_add(u64::from(counted.clamped));
        for refusal in &counted.refused {
            let sum = self.refused.entry(refusal.reason).or_default();
            *sum = sum.saturating_add(u64::from(refusal.count));
        }
        counted.refused
    }
}

/// Events of one frame whose series fault is described.
const FAULTS_MAX: usize = 64;
