//! What a producer without a log does instead of writing: frames get their places and stay in memory.
//!
//! Owned by the writer's thread, like a log. A frame whose lane is not adopted yet waits here without a place, in
//! the order of its group; everything else goes into the index at once. Bytes are counted by content: bodies of
//! placed frames, upper bounds of waiting ones, and a fixed cost for each. A placed body has its own allocation, so
//! a lane that settles late holds nothing but its own frames.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use drawdown_metering_core::{
    chain,
    frame::FrameBuilder,
    shard::{Lane, Position},
};
use drawdown_types::ProducerId;

use super::{
    log::{Body, FrameRef},
    pending::{CutFrame, Group},
    shared::Shared,
};

/// What a frame costs beside its bytes: its entry, and what the allocator keeps of it.
const FRAME_COST_BYTES: u64 = 160;

/// A frame that waits for its lane.
#[derive(Debug)]
struct Waiting {
    builder: FrameBuilder,
    received_at_ms: i64,
    /// Every operation up to this one belongs to an earlier group.
    after: u64,
}

/// Frames that are kept in memory.
#[derive(Debug)]
pub(super) struct Memory {
    producer: ProducerId,
    unadopted: BTreeSet<Lane>,
    /// Where adopted lanes end.
    ends: BTreeMap<Lane, Position>,
    waiting: BTreeMap<Lane, VecDeque<Waiting>>,
    /// The last operation that was handed over.
    through: u64,
    kept_bytes: u64,
    body: Vec<u8>,
}

fn cost(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(FRAME_COST_BYTES)
}

impl Memory {
    /// Empty; no lane is adopted.
    pub(super) fn new(producer: ProducerId, lanes: impl IntoIterator<Item = Lane>) -> Self {
        Self {
            producer,
            unadopted: lanes.into_iter().collect(),
            ends: BTreeMap::new(),
            waiting: BTreeMap::new(),
            through: 0,
            kept_bytes: 0,
            body: Vec::new(),
        }
    }

    /// Bytes of everything that is not freed.
    pub(super) const fn bytes(&self) -> u64 {
        self.kept_bytes
    }

    /// Takes a group. Its frames get their places now, or when their lanes are adopted.
    pub(super) fn commit(&mut self, group: Group, shared: &Shared) {
        let Group { frames, series, through, events, .. } = group;
        let received_at_ms = shared.clock.now().as_millis();
        let (mut placed, mut builders) = self.adopt(shared);
        for CutFrame { map_version, shard, mut builder } in frames {
            let lane = Lane { producer: self.producer, map_version, shard };
            match self.ends.get(&lane).copied() {
                Some(before) => {
                    placed.push(self.place(lane, before, &mut builder, received_at_ms));
                    builders.push(builder);
                }
                None => self.wait(lane, Waiting { builder, received_at_ms, after: self.through }, shared),
            }
        }
        self.through = through;
        shared.with_index(|index| index.keep(placed, &series));
        let kept_bytes = self.kept_bytes;
        shared.with_pending(|pending| pending.done(events, kept_bytes, builders));
        self.publish(shared);
    }

    /// Frees what is settled, and gives frames their places whose lanes have been adopted.
    pub(super) fn maintain(&mut self, shared: &Shared) {
        let (placed, builders) = self.adopt(shared);
        let adopted = !placed.is_empty();
        let freed = shared.with_index(|index| {
            index.keep(placed, &[]);
            index.free_settled()
        });
        if !adopted && freed.is_empty() {
            return;
        }
        for frame in freed {
            let bytes = match &frame.body {
                Body::Held(body) => cost(body.len()),
                Body::Stored(_) => 0,
            };
            self.kept_bytes = self.kept_bytes.saturating_sub(bytes);
        }
        let kept_bytes = self.kept_bytes;
        shared.with_pending(|pending| {
            pending.take_back(builders);
            pending.set_kept_bytes(kept_bytes);
        });
        self.publish(shared);
    }

    fn publish(&self, shared: &Shared) {
        let first_waiting = self.waiting.values().filter_map(|frames| frames.front());
        let placed = first_waiting.map(|frame| frame.after).min().unwrap_or(self.through);
        shared.status.send_modify(|status| {
            status.kept_operations = placed;
            status.changes = status.changes.wrapping_add(1);
        });
    }

    fn wait(&mut self, lane: Lane, frame: Waiting, shared: &Shared) {
        self.kept_bytes = self.kept_bytes.saturating_add(cost(frame.builder.bytes_at_most()));
        let events = u64::from(frame.builder.events());
        shared.with_index(|index| index.wait_for(lane, events));
        self.waiting.entry(lane).or_default().push_back(frame);
    }

    /// Places what waited for lanes that the sender has adopted since.
    fn adopt(&mut self, shared: &Shared) -> (Vec<FrameRef>, Vec<FrameBuilder>) {
        let (mut placed, mut builders) = (Vec::new(), Vec::new());
        if self.unadopted.is_empty() {
            return (placed, builders);
        }
        let adopted: Vec<(Lane, Position)> = shared.with_index(|index| {
            let ends = self.unadopted.iter().filter_map(|lane| Some((*lane, index.lane(*lane)?.adopted()?)));
            ends.collect()
        });
        for (lane, mut end) in adopted {
            self.unadopted.remove(&lane);
            self.ends.insert(lane, end);
            for Waiting { mut builder, received_at_ms, .. } in self.waiting.remove(&lane).unwrap_or_default()
            {
                self.kept_bytes = self.kept_bytes.saturating_sub(cost(builder.bytes_at_most()));
                let frame = self.place(lane, end, &mut builder, received_at_ms);
                end = frame.end;
                placed.push(frame);
                builders.push(builder);
            }
        }
        (placed, builders)
    }

    fn place(
        &mut self,
        lane: Lane,
        before: Position,
        builder: &mut FrameBuilder,
        received_at_ms: i64,
    ) -> FrameRef {
        let first_sequence = before.sequence.saturating_add(1);
        let sequence = before.sequence.saturating_add(u64::from(builder.events()));
        self.body.clear();
        builder.finish_into(lane, first_sequence, received_at_ms, &mut self.body);
        let end = Position { sequence, chain: chain::next(before.chain, &self.body) };
        self.ends.insert(lane, end);
        self.kept_bytes = self.kept_bytes.saturating_add(cost(self.body.len()));
        FrameRef { lane, first_sequence, end, body: Body::Held(Bytes::copy_from_slice(&self.body)) }
    }
}
