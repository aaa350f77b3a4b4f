//! One shard in this instance: its aggregate, the lanes that streams send, and what is believed of Redis.
//!
//! Shape: everything of a shard is under one short lock; no await happens under it. Streams add frames, the
//! flusher is the only one who writes to Redis, the attacher the only one who asks the ledger. A lane has a
//! seat while a stream sends it: `Wanted` (the ledger has to be asked) → `Asking` (Redis has to be asked) →
//! `Live`, or `Parked` while lanes are settled one by one.
//!
//! What must not be reordered: a flush is taken with the ranges of its lanes and stays `pending` until it is
//! known to be applied or lost. A lane is acknowledged only after Redis answered OK for it, or was seen to hold
//! exactly it. When anything else is seen, everything that is not applied is forgotten and all lanes are asked
//! anew: producers send again from where Redis stands.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use drawdown_metering_core::{
    aggregate::{Added, Aggregator, Flush, Incoming, RefusedEvents},
    blob::NameBook,
    dictionary::Dictionary,
    fault::FrameFault,
    frame::Frame,
    look::{Cursor, Head},
    meter::MeterTable,
    reason as lane_reason,
    shard::{Lane, Position},
};
use tokio::sync::Notify;

use super::{
    outbox::{Mark, Standing, Stop},
    retry::Retry,
    seat::{Found, Phase, Seat, Sender},
};
use crate::{reason, redis::Roll};

/// What is believed of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Belief {
    pub(super) roll: Roll,
    pub(super) open: u64,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) aggregator: Aggregator,
    pub(super) names: NameBook,
    /// `None` where the head has to be read before anything is written.
    pub(super) head: Option<Belief>,
    /// The generation that positions here are of.
    pub(super) generation: Option<u64>,
    /// Taken from the aggregate and not known to be applied or lost.
    pub(super) pending: Option<Flush>,
    pub(super) seats: HashMap<Lane, Seat>,
    /// Something was seen that a look has to explain, even where nothing waits.
    pub(super) suspect: bool,
    pub(super) retry: Retry,
}

/// What became of a frame.
#[derive(Debug)]
pub(crate) enum Offer {
    /// Counted, but for these events.
    Counted(Vec<RefusedEvents>),
    /// The lane is past it.
    Duplicate,
    /// It was sent before the stream heard of a rewind, or before its lane was attached.
    Overtaken,
    /// The stream does not have the lane, or not any more.
    NotSeated,
    /// The shard has to be flushed first; nothing changed.
    Full,
    /// The frame stops its lane, which was settled up to there.
    Fault(FrameFault, Position),
}

/// Limits of one shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) counters_max: usize,
    /// A series whose events are refused has no counter, and its place until a flush was taken.
    pub(super) series_max: usize,
    pub(super) lanes_max: usize,
}

impl Limits {
    /// Whether a frame waits for a flush.
    fn is_reached(&self, aggregator: &Aggregator) -> bool {
        aggregator.counters() >= self.counters_max || aggregator.series() >= self.series_max
    }
}

/// One shard.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(super) number: u32,
    pub(super) limits: Limits,
    state: Mutex<State>,
    /// Only a look by a worker helps; this instance's looks, whoever has the lease.
    look_wanted: AtomicBool,
    /// Told when a flush made room, or a lane moved or stopped.
    pub(super) moved: Notify,
}

impl Shard {
    pub(super) fn new(number: u32, limits: Limits, aggregator: Aggregator, retry: Retry) -> Self {
        let state = State {
            aggregator,
            names: NameBook::new(),
            head: None,
            generation: None,
            pending: None,
            seats: HashMap::new(),
            suspect: false,
            retry,
        };
        let (state, look_wanted) = (Mutex::new(state), AtomicBool::new(false));
        Self { number, limits, state, look_wanted, moved: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker has to look.
    pub(super) fn want_look(&self) {
        self.look_wanted.store(true, Ordering::Relaxed);
    }

    /// Whether a worker has to look; it is asked once.
    pub(crate) fn take_look_wanted(&self) -> bool {
        self.look_wanted.swap(false, Ordering::Relaxed)
    }

    /// Whether any stream of this instance sends a lane of it.
    pub(crate) fn is_seated(&self) -> bool {
        !self.lock().seats.is_empty()
    }

    /// Gives a lane to a stream. Another stream that had it stops sending it.
    pub(crate) fn seat(&self, lane: Lane, sender: Sender, freed: u64) -> Result<(), Stop> {
        let mut state = self.lock();
        let (stream, epoch) = (sender.stream, sender.epoch);
        let again = match state.seats.get(&lane) {
            Some(seat) if seat.sender.epoch > epoch => {
                let stop = Stop::new(reason::FENCED, "a newer epoch of this producer sends the lane");
                return Err(stop.settled(seat.settled));
            }
            Some(seat) => seat.sender.stream == stream,
            None if state.seats.len() >= self.limits.lanes_max => {
                let detail = "this instance has as many lanes of the shard as it takes";
                return Err(Stop::new(reason::LANES_EXHAUSTED, detail));
            }
            None => false,
        };
        let before = state.seats.insert(lane, Seat::new(sender, freed, again));
        if let Some(before) = before.filter(|_| !again) {
            let (reason, who) = match before.sender.epoch {
                older if older < epoch => (reason::FENCED, "a newer epoch of this producer sends the lane"),
                _ => (reason::LANE_TAKEN, "another stream of this producer sends the lane"),
            };
            before.sender.outbox.stopped(lane, Stop::new(reason, who).settled(before.settled));
        }
        Ok(())
    }

    /// A stream ended: its lane is nobody's.
    pub(crate) fn leave(&self, lane: &Lane, stream: u64) {
        let mut state = self.lock();
        if state.seats.get(lane).is_some_and(|seat| seat.sender.stream == stream) {
            state.unseat(lane);
        }
    }

    /// Up to where a lane of a stream was told to be settled.
    pub(crate) fn settled(&self, lane: &Lane, stream: u64) -> Position {
        let state = self.lock();
        let seat = state.seats.get(lane).filter(|seat| seat.sender.stream == stream);
        seat.map_or(Position::START, |seat| seat.settled)
    }

    /// Waits until everything that was taken of a lane is acknowledged, or the lane is not the stream's.
    pub(crate) async fn wait_until_quiet(&self, lane: &Lane, stream: u64) {
        self.wait(|state| match state.seats.get(lane) {
            Some(seat) if seat.sender.stream == stream => {
                seat.is_live() && state.aggregator.position(lane).is_none_or(|at| at == seat.acked)
            }
            _ => true,
        })
        .await;
    }

    /// Waits until the aggregate has room for a frame.
    pub(super) async fn wait_for_room(&self) {
        self.wait(|state| !self.limits.is_reached(&state.aggregator)).await;
    }

    async fn wait(&self, done: impl Fn(&State) -> bool) {
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            // Before the look, so that nothing that happens after it is missed.
            moved.as_mut().enable();
            if done(&self.lock()) {
                return;
            }
            moved.await;
        }
    }

    /// Adds a frame of a stream to the aggregate.
    pub(crate) fn offer<F: Frame>(
        &self,
        stream: u64,
        incoming: &Incoming<'_, F>,
        dictionary: &mut Dictionary,
    ) -> Offer {
        let frame = incoming.frame;
        let lane =
            Lane { producer: incoming.producer, map_version: frame.map_version(), shard: frame.shard() };
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(seat) = state.seats.get_mut(&lane).filter(|seat| seat.sender.stream == stream) else {
            return Offer::NotSeated;
        };
        if !seat.is_live() {
            return Offer::Overtaken;
        }
        if self.limits.is_reached(&state.aggregator) {
            return Offer::Full;
        }
        match state.aggregator.add(incoming, dictionary) {
            Ok(Added::Counted { refused, .. }) => {
                seat.rewound = false;
                Offer::Counted(refused)
            }
            Ok(Added::Duplicate) => Offer::Duplicate,
            Err(fault) if seat.rewound && fault.reason == lane_reason::LANE_OUT_OF_SEQUENCE => {
                Offer::Overtaken
            }
            Err(fault) => {
                let settled = seat.settled;
                state.unseat(&lane);
                Offer::Fault(fault, settled)
            }
        }
    }

    /// Counts by a newer catalogue from here on.
    pub(super) fn set_meters(&self, meters: Arc<MeterTable>) {
        self.lock().aggregator.set_meters(meters);
    }

    /// Lanes that the ledger has to be asked about, with the roll that is known before. None where no roll is: an
    /// answer that is older than the roll could set a lane back that was retired in between.
    pub(super) fn wanted(&self) -> Vec<(Lane, Roll)> {
        let state = self.lock();
        let Some(head) = state.head else { return Vec::new() };
        let wanted = state.seats.iter().filter(|(_, seat)| seat.phase == Phase::Wanted);
        wanted.map(|(lane, _)| (*lane, head.roll)).collect()
    }

    /// The ledger's answer for a lane that was wanted, asked under that roll.
    pub(super) fn found(&self, lane: &Lane, roll: Roll, found: Found, registered: Option<u64>) {
        let mut state = self.lock();
        let is_current = state.head.is_none_or(|head| head.roll == roll);
        let Some(seat) = state.seats.get_mut(lane).filter(|seat| seat.phase == Phase::Wanted) else { return };
        match registered {
            None => state.stop(lane, reason::PRODUCER_UNKNOWN, "the ledger does not know this producer"),
            Some(registered) if registered > seat.sender.epoch => {
                seat.settled = found.told;
                state.stop(lane, reason::FENCED, "a newer epoch of this producer is registered");
            }
            Some(registered) if is_current => seat.phase = Phase::Asking { found, registered, roll },
            // Asked again.
            Some(_) => {}
        }
        drop(state);
        self.moved.notify_waiters();
    }

    /// What the ledger has committed, and what a worker saw in Redis after it. Says whether the flusher has to
    /// look for itself: only it knows what is under way.
    pub(super) fn observe(&self, cursor: &Cursor, head: Option<&Head>) -> bool {
        let mut guard = self.lock();
        let state = &mut *guard;
        let mut fenced = Vec::new();
        let mut suspect = state.generation.is_some_and(|generation| generation != cursor.generation);
        let head = head.filter(|head| Some(head.generation) == state.generation);
        for (lane, seat) in &mut state.seats {
            if let Some(known) = cursor.lanes.get(lane) {
                if known.epoch > seat.sender.epoch {
                    fenced.push(*lane);
                    continue;
                }
                if seat.is_live() && known.settled.sequence > seat.settled.sequence {
                    seat.settled = known.settled;
                    let mark = Mark { applied: seat.acked, settled: Some(known.settled) };
                    seat.sender.outbox.mark(*lane, mark);
                }
            }
            if let Some(head) = head.filter(|_| seat.is_live()) {
                suspect |= seat.seen(head.lanes.get(lane).map(|seen| seen.applied));
            }
        }
        for lane in fenced {
            state.stop(&lane, reason::FENCED, "a newer epoch of this producer is registered");
        }
        state.suspect |= suspect && !state.seats.is_empty();
        state.suspect
    }

    /// The lanes that streams send, with the generation that they were attached in.
    pub(crate) fn live(&self) -> Option<(u32, u64, Vec<Lane>)> {
        let state = self.lock();
        let live = state.seats.iter().filter(|(_, seat)| seat.is_live());
        let lanes: Vec<Lane> = live.map(|(lane, _)| *lane).collect();
        let generation = state.generation.filter(|_| !lanes.is_empty())?;
        Some((self.number, generation, lanes))
    }

    /// Nothing waits to be flushed.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.pending.is_none() && state.aggregator.is_empty()
    }
}

impl State {
    /// Forgets who sends a lane. What it has in the aggregate is flushed all the same.
    pub(super) fn unseat(&mut self, lane: &Lane) {
        self.seats.remove(lane);
        if !self.is_pending(lane) {
            self.aggregator.detach(lane);
        }
    }

    pub(super) fn stop(&mut self, lane: &Lane, reason: &'static str, detail: &str) {
        if let Some(seat) = self.seats.get(lane) {
            seat.sender.outbox.stopped(*lane, Stop::new(reason, detail).settled(seat.settled));
            self.unseat(lane);
        }
    }

    fn is_pending(&self, lane: &Lane) -> bool {
        self.pending.as_ref().is_some_and(|flush| flush.lanes.iter().any(|span| span.lane == *lane))
    }

    /// Whether something of a lane was taken and is neither known to be applied nor lost.
    pub(super) fn is_under_way(&self, lane: &Lane) -> bool {
        self.is_pending(lane) || self.aggregator.is_waiting(lane)
    }

    /// Whether the flusher has something to do here.
    pub(super) fn has_work(&self) -> bool {
        self.suspect
            || self.pending.is_some()
            || !self.aggregator.is_empty()
            || self.seats.values().any(|seat| match seat.phase {
                Phase::Asking { .. } => true,
                Phase::Wanted => self.head.is_none(),
                Phase::Parked | Phase::Live => false,
            })
    }

    /// The head was read: what the ledger was asked under another roll is asked again. Says whether any lane waits for it.
    pub(super) fn ask_again(&mut self, current: Roll) -> bool {
        let mut waits = false;
        for seat in self.seats.values_mut() {
            if matches!(seat.phase, Phase::Asking { roll, .. } if roll != current) {
                seat.phase = Phase::Wanted;
            }
            waits |= seat.phase == Phase::Wanted;
        }
        waits
    }

    /// Forgets everything that is not applied; all lanes are asked anew. Says how many had been live.
    pub(super) fn lose(&mut self) -> usize {
        self.pending = None;
        self.names.forget();
        self.aggregator.clear();
        let mut rewound = 0;
        for seat in self.seats.values_mut() {
            match seat.phase {
                Phase::Live => rewound += 1,
                // What the ledger said may be older than what was lost: its epoch counts in the next head.
                Phase::Parked | Phase::Asking { .. } => {}
                Phase::Wanted => continue,
            }
            seat.phase = Phase::Wanted;
        }
        rewound
    }

    /// Redis has told where a lane stands: its stream may send. Says whether the producer has freed what it
    /// would have to send: then a worker has to look at the shard.
    pub(super) fn go_live(
        &mut self,
        lane: &Lane,
        applied: Position,
        settled: Position,
        registered: u64,
    ) -> bool {
        if !self.is_pending(lane) {
            // Only then is Redis' word newer than what was remembered here.
            self.aggregator.detach(lane);
        }
        let Some(seat) = self.seats.get_mut(lane) else { return false };
        self.aggregator.attach(*lane, seat.sender.epoch, applied);
        // A restored ledger has taken back what it had settled; only the answer to an attach says so.
        let restored = settled.sequence < seat.settled.sequence;
        if seat.told && !restored {
            seat.sender.outbox.rewound(*lane, applied);
            if settled.sequence > seat.settled.sequence {
                seat.sender.outbox.mark(*lane, Mark { applied, settled: Some(settled) });
            }
        } else {
            let standing = Standing { applied, settled, registered_epoch: registered };
            seat.sender.outbox.attached(*lane, standing);
        }
        seat.rewound |= seat.told;
        seat.told = true;
        seat.phase = Phase::Live;
        seat.acked = applied;
        seat.doubted = None;
        seat.settled = settled;
        seat.freed > applied.sequence
    }

    /// A flush is known to be in Redis.
    pub(super) fn acknowledge(&mut self, flush: &Flush) {
        for span in &flush.lanes {
            match self.seats.get_mut(&span.lane) {
                Some(seat) if seat.is_live() => {
                    seat.acked = span.after();
                    seat.sender.outbox.mark(span.lane, Mark { applied: seat.acked, settled: None });
                }
                Some(_) => {}
                None => {
                    self.aggregator.detach(&span.lane);
                }
            }
        }
    }
}
