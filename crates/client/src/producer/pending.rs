//! Events that are not durable yet: columns by shard, cut into frames, handed over as one group.
//!
//! Under one lock, shared by everybody who appends and by the writer, which holds it only to take a
//! whole group away. Sequences and chains are given later, by the writer alone; here only the lane is
//! fixed. A mark belongs to the group that holds the events appended before it.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use drawdown_metering_core::{fault::FieldFault, frame::FrameBuilder, series::SeriesKey, shard::ShardMap};

use super::{
    error::AppendError,
    log::{Marks, StreamLimits},
    options::{EVENT_BYTES_MAX, ProducerOptions, WhenFull},
    series::{Placed, SeriesTable},
    usage::{Appended, Mark, SeriesHandle, SeriesUsage, Usage, check_quantity},
};

/// Events whose series are looked up together: enough that their memory is fetched side by side, few enough that what is
/// written of them stays near.
const ASKED_MAX: usize = 32;
/// Most builders kept for the next frames.
const SPARE_MAX: usize = 512;

/// A frame whose events are chosen; the writer gives it its place.
#[derive(Debug)]
pub(super) struct CutFrame {
    pub(super) map_version: u32,
    pub(super) shard: u32,
    pub(super) builder: FrameBuilder,
}

/// What becomes durable at once.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) frames: Vec<CutFrame>,
    pub(super) first_series: u32,
    pub(super) series: Vec<Arc<SeriesKey>>,
    pub(super) marks: Marks,
    pub(super) shed: u64,
    /// Every operation up to this one is in this group or in one before it.
    pub(super) through: u64,
    pub(super) events: u64,
}

/// Limits that `pending` keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) frame_bytes_max: usize,
    pub(super) frame_events_max: u32,
    pub(super) pending_events_max: u64,
    pub(super) kept_bytes_max: u64,
    /// Whether marks can be kept: they are worth nothing where they are not durable.
    pub(super) marks: bool,
    pub(super) sources_max: usize,
    pub(super) when_full: WhenFull,
}

impl Limits {
    pub(super) fn new(options: &ProducerOptions, stream: StreamLimits) -> Self {
        let frame_bytes_max = options.frame_bytes_max.min(stream.frame_bytes_max);
        Self {
            frame_bytes_max: usize::try_from(frame_bytes_max).unwrap_or(usize::MAX),
            frame_events_max: options.frame_events_max.min(stream.frame_events_max).max(1),
            pending_events_max: options.pending_events_max,
            kept_bytes_max: options.kept_bytes_max(),
            marks: options.keep.is_durable(),
            sources_max: options.sources_max,
            when_full: options.when_full,
        }
    }
}

/// What is not durable yet.
#[derive(Debug)]
pub(super) struct Pending {
    table: SeriesTable,
    map: ShardMap,
    limits: Limits,
    lanes: Vec<FrameBuilder>,
    /// Shards whose lane has events.
    touched: Vec<u32>,
    cut: Vec<CutFrame>,
    spare: Vec<FrameBuilder>,
    /// Series that earlier groups hold.
    handed_series: usize,
    marks: Marks,
    /// Sources that the log knows; each costs its mark in every segment's head.
    sources: std::collections::BTreeSet<Box<[u8]>>,
    shed: u64,
    handed_shed: u64,
    /// What the hook for metrics was told to be shed, and what it was not told yet of other refusals.
    told_shed: u64,
    not_taken: BTreeMap<&'static str, u64>,
    /// Events in memory: in the open group and in the one that the writer is at.
    events: u64,
    open_events: u64,
    /// Bytes of the open group, and of the one that the writer is at.
    bytes: usize,
    handed_bytes: usize,
    /// Bytes of everything before them that is not freed.
    kept_bytes: u64,
    operations: u64,
    first_at: Option<Instant>,
}

impl Pending {
    pub(super) fn new(table: SeriesTable, map: ShardMap, limits: Limits, marks: &Marks, shed: u64) -> Self {
        let handed_series = table.len();
        Self {
            table,
            map,
            limits,
            lanes: lanes_of(map),
            touched: Vec::new(),
            cut: Vec::new(),
            spare: Vec::new(),
            handed_series,
            marks: Marks::new(),
            sources: marks.keys().cloned().collect(),
            shed,
            handed_shed: shed,
            told_shed: shed,
            not_taken: BTreeMap::new(),
            events: 0,
            open_events: 0,
            bytes: 0,
            handed_bytes: 0,
            kept_bytes: 0,
            operations: 0,
            first_at: None,
        }
    }

    /// Takes an event, or says why not.
    pub(super) fn append(&mut self, usage: &Usage<'_>) -> Result<Appended, AppendError> {
        self.table.ask(std::slice::from_ref(usage));
        self.append_asked(0, usage)
    }

    /// Takes events in order until one is not taken; answers how many were, and why not the next.
    pub(super) fn append_many(&mut self, usages: &[Usage<'_>]) -> (usize, Option<AppendError>) {
        let mut taken = 0_usize;
        for usages in usages.chunks(ASKED_MAX) {
            self.table.ask(usages);
            for (at, usage) in usages.iter().enumerate() {
                if let Err(error) = self.append_asked(at, usage) {
                    return (taken, Some(error));
                }
                taken = taken.saturating_add(1);
            }
        }
        (taken, None)
    }

    /// Takes an event whose series was asked for.
    fn append_asked(&mut self, at: usize, usage: &Usage<'_>) -> Result<Appended, AppendError> {
        check_quantity(usage.quantity)?;
        if self.sheds()? {
            // A wrong event is refused as such even where a right one would be shed.
            self.table.check(at, usage)?;
            return Ok(self.shed());
        }
        let placed = self.table.place(at, usage)?;
        self.take_event(placed, usage.quantity, usage.at.as_millis())
    }

    /// Looks a series up, for [`Pending::append_series`].
    pub(super) fn series(&mut self, usage: &Usage<'_>) -> Result<SeriesHandle, AppendError> {
        self.table.prepare(usage)
    }

    /// Takes events of series that were looked up, in order, until one is not taken; answers how many were, and why not
    /// the next.
    pub(super) fn append_series(&mut self, usages: &[SeriesUsage]) -> (usize, Option<AppendError>) {
        let mut taken = 0_usize;
        for usage in usages {
            if let Err(error) = self.append_of(usage) {
                return (taken, Some(error));
            }
            taken = taken.saturating_add(1);
        }
        (taken, None)
    }

    fn append_of(&mut self, usage: &SeriesUsage) -> Result<Appended, AppendError> {
        check_quantity(usage.quantity)?;
        if self.sheds()? {
            // A series gets its number with an event that defines it, so none is given here.
            self.table.check_prepared(usage.series)?;
            return Ok(self.shed());
        }
        let placed = self.table.place_prepared(usage.series)?;
        self.take_event(placed, usage.quantity, usage.at.as_millis())
    }

    /// Whether an event that is right is shed; the error says why it has to wait instead.
    fn sheds(&self) -> Result<bool, AppendError> {
        match self.room() {
            Ok(()) => Ok(false),
            Err(AppendError::Full { .. }) if self.limits.when_full == WhenFull::Shed => Ok(true),
            Err(full) => Err(full),
        }
    }

    fn shed(&mut self) -> Appended {
        self.shed = self.shed.saturating_add(1);
        // Not `operation`: it may wait for a group, but a flush has to find it.
        self.operations = self.operations.saturating_add(1);
        Appended::Shed
    }

    fn take_event(&mut self, placed: Placed, quantity: u64, time_ms: i64) -> Result<Appended, AppendError> {
        let Some(lane) = usize::try_from(placed.shard).ok().and_then(|at| self.lanes.get_mut(at)) else {
            let description = format!("belongs to shard {}, which the map has not", placed.shard);
            return Err(AppendError::Invalid(vec![FieldFault::new("usage.client_id", description)]));
        };
        if lane.is_empty() {
            self.touched.push(placed.shard);
        }
        let before = lane.bytes_at_most();
        if placed.new
            && let Some(key) = self.table.key(placed.number)
        {
            lane.define(placed.number, key);
        }
        lane.push(placed.number, quantity, time_ms);
        let bytes = lane.bytes_at_most();
        let full = lane.events() >= self.limits.frame_events_max
            || bytes.saturating_add(EVENT_BYTES_MAX) > self.limits.frame_bytes_max;
        self.bytes = self.bytes.saturating_add(bytes.saturating_sub(before));
        self.events = self.events.saturating_add(1);
        self.open_events = self.open_events.saturating_add(1);
        self.operation();
        if full {
            self.cut_lane(placed.shard);
            self.touched.retain(|shard| *shard != placed.shard);
        }
        Ok(Appended::Taken)
    }

    /// Takes an event together with the position of its source, or neither.
    pub(super) fn append_marked(
        &mut self,
        usage: &Usage<'_>,
        mark: Mark<'_>,
    ) -> Result<Appended, AppendError> {
        self.check_mark(mark)?;
        let appended = self.append(usage)?;
        self.mark(mark).map(|()| appended)
    }

    fn check_mark(&self, mark: Mark<'_>) -> Result<(), AppendError> {
        if !self.limits.marks {
            return Err(AppendError::MarksNeedLog);
        }
        mark.check()?;
        if !self.sources.contains(mark.source) && self.sources.len() >= self.limits.sources_max {
            return Err(AppendError::SourcesExhausted(self.limits.sources_max));
        }
        Ok(())
    }

    /// Notes where a source stands after everything appended so far.
    pub(super) fn mark(&mut self, mark: Mark<'_>) -> Result<(), AppendError> {
        self.check_mark(mark)?;
        if !self.sources.contains(mark.source) {
            self.sources.insert(mark.source.into());
        }
        match self.marks.get_mut(mark.source) {
            Some(position) if position.len() == mark.position.len() => {
                position.copy_from_slice(mark.position)
            }
            Some(position) => *position = mark.position.into(),
            None => {
                self.marks.insert(mark.source.into(), mark.position.into());
            }
        }
        self.operation();
        Ok(())
    }

    fn operation(&mut self) {
        self.operations = self.operations.saturating_add(1);
        if self.first_at.is_none() {
            self.first_at = Some(Instant::now());
        }
    }

    /// Whether one more event may come.
    pub(super) fn room(&self) -> Result<(), AppendError> {
        let open_bytes = u64::try_from(self.bytes.saturating_add(self.handed_bytes)).unwrap_or(u64::MAX);
        let kept_bytes = self.kept_bytes.saturating_add(open_bytes);
        if kept_bytes >= self.limits.kept_bytes_max {
            return Err(AppendError::Full { kept_bytes, kept_bytes_max: self.limits.kept_bytes_max });
        }
        if self.events >= self.limits.pending_events_max {
            return Err(AppendError::Backlogged { pending_events: self.events });
        }
        Ok(())
    }

    fn cut_lane(&mut self, shard: u32) {
        let Some(lane) = usize::try_from(shard).ok().and_then(|at| self.lanes.get_mut(at)) else { return };
        if lane.is_empty() {
            return;
        }
        let builder = std::mem::replace(lane, self.spare.pop().unwrap_or_default());
        self.cut.push(CutFrame { map_version: self.map.version, shard, builder });
    }

    /// Takes everything away as one group; `None` where there is nothing.
    pub(super) fn take(&mut self) -> Option<Group> {
        if self.first_at.is_none() && self.shed == self.handed_shed {
            return None;
        }
        for shard in std::mem::take(&mut self.touched) {
            self.cut_lane(shard);
        }
        let series = self.table.after(self.handed_series);
        let first_series = u32::try_from(self.handed_series.saturating_add(1)).unwrap_or(u32::MAX);
        self.handed_series = self.table.len();
        self.handed_shed = self.shed;
        self.first_at = None;
        self.handed_bytes = std::mem::take(&mut self.bytes);
        Some(Group {
            frames: std::mem::take(&mut self.cut),
            first_series,
            series,
            marks: std::mem::take(&mut self.marks),
            shed: self.shed,
            through: self.operations,
            events: std::mem::take(&mut self.open_events),
        })
    }

    /// The writer has put a group of so many events where they are kept.
    pub(super) fn done(&mut self, events: u64, kept_bytes: u64, builders: Vec<FrameBuilder>) {
        self.events = self.events.saturating_sub(events);
        self.kept_bytes = kept_bytes;
        self.handed_bytes = 0;
        self.take_back(builders);
    }

    /// Builders for the next frames.
    pub(super) fn take_back(&mut self, mut builders: Vec<FrameBuilder>) {
        builders.truncate(SPARE_MAX.saturating_sub(self.spare.len()));
        self.spare.append(&mut builders);
    }

    /// Counts an event that was not taken.
    pub(super) fn refuse(&mut self, error: &AppendError) {
        let count = self.not_taken.entry(error.label()).or_default();
        *count = count.saturating_add(1);
    }

    /// What was shed and what was not taken since the last call.
    pub(super) fn take_counts(&mut self) -> (u64, BTreeMap<&'static str, u64>) {
        let shed = self.shed.saturating_sub(std::mem::replace(&mut self.told_shed, self.shed));
        (shed, std::mem::take(&mut self.not_taken))
    }

    pub(super) const fn set_kept_bytes(&mut self, kept_bytes: u64) {
        self.kept_bytes = kept_bytes;
    }

    /// New events go by this map; what is here already keeps its lanes.
    pub(super) fn set_map(&mut self, map: ShardMap, limits: Limits) {
        self.limits = limits;
        if map == self.map {
            return;
        }
        for shard in std::mem::take(&mut self.touched) {
            self.cut_lane(shard);
        }
        self.map = map;
        self.lanes = lanes_of(map);
        self.table.set_map(map);
    }

    pub(super) const fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }

    pub(super) const fn first_at(&self) -> Option<Instant> {
        self.first_at
    }

    /// Whether a group of what is here waits for nothing more: it has the bytes of one, or half of what may be in memory,
    /// so that the other half can come while it is written.
    pub(super) const fn is_large(&self, options: &ProducerOptions) -> bool {
        self.bytes >= options.group_bytes_max || self.open_events >= options.pending_events_max.div_ceil(2)
    }

    pub(super) const fn events(&self) -> u64 {
        self.events
    }

    pub(super) const fn operations(&self) -> u64 {
        self.operations
    }

    pub(super) const fn shed_events(&self) -> u64 {
        self.shed
    }

    pub(super) const fn has_unwritten_shed(&self) -> bool {
        self.shed != self.handed_shed
    }
}

fn lanes_of(map: ShardMap) -> Vec<FrameBuilder> {
    let count = usize::try_from(map.shard_count.get()).unwrap_or(usize::MAX);
    std::iter::repeat_with(FrameBuilder::new).take(count).collect()
}
