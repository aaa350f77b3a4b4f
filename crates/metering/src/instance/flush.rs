//! The flusher: the only one who writes to Redis, and who judges what came of it.
//!
//! Shape: one task. A round looks at the shards whose head is not known (one call), then appends one blob for
//! each dirty shard and attaches lanes that ask (one call, all shards). One round is under way at a time; the
//! next begins a pause after it, which is longer where a round carries many counters. So a flush carries whatever came while the one before it was under way.
//!
//! Every answer but OK, and every call without an answer, leads to a look. The look decides: exactly our
//! positions in Redis means applied; exactly the positions before means not applied, and the same flush is
//! written again under a new dictionary id, because the call that seemed lost may still arrive and must find
//! another state than it expects; anything else means that everything not applied is forgotten and sent again.

use std::time::Duration;

use drawdown_metering_core::{aggregate::Flush, look::Head, series::OTHER, shard::Lane};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Instance,
    seat::{Found, Phase},
    shard::{Belief, Shard, State},
};
use crate::{
    reason,
    redis::{
        Applied, Apply, ApplyLane, Asked, Attach, AttachLane, Attached, Error, HeadFault, LaneRefusal,
        Refused, Roll, Write, Written,
    },
};
use drawdown_metering_core::reason as lane_reason;

/// What one write of a round was for.
struct Sent {
    shard: u32,
    /// Lanes that ask, in the order of the call; empty for a blob.
    asked: Vec<Lane>,
    counters: usize,
    bytes: usize,
}

/// What a shard needs in this round.
enum Need {
    Nothing,
    /// The head has to be read first.
    Look,
    Write,
    /// Not before this.
    Pause(Instant),
}

impl Instance {
    /// Flushes until the signal to stop, then until nothing waits or `drain` is over.
    pub(crate) async fn flush(&self, stop: CancellationToken, drain: Duration) {
        let mut next = Instant::now();
        let mut deadline = None;
        loop {
            if stop.is_cancelled() {
                let now = Instant::now();
                let deadline = *deadline.get_or_insert(now + drain);
                if now >= deadline || self.shards.iter().all(Shard::is_idle) {
                    self.flushed.cancel();
                    return;
                }
            }
            match self.next_work() {
                Some(at) => {
                    tokio::time::sleep_until(at.max(next)).await;
                    let counters = self.round().await;
                    next = Instant::now() + self.config.flush.pause(counters);
                }
                None => tokio::select! {
                    () = self.dirty.notified() => {}
                    () = stop.cancelled() => {}
                },
            }
        }
    }

    /// When the next round has something to do; `None` where nothing waits.
    fn next_work(&self) -> Option<Instant> {
        let now = Instant::now();
        self.shards
            .iter()
            .filter_map(|shard| match shard.need(now) {
                Need::Nothing => None,
                Need::Look | Need::Write => Some(now),
                Need::Pause(until) => Some(until),
            })
            .min()
    }

    /// Gives the number of counters that it wrote.
    async fn round(&self) -> usize {
        let looks = self.shards_that(|need| matches!(need, Need::Look));
        if !looks.is_empty() {
            self.look(&looks).await;
        }
        let mut writes = Vec::new();
        let mut sent = Vec::new();
        for shard in self.shards_that(|need| matches!(need, Need::Write)) {
            if let Some(shard) = self.shard(shard) {
                shard.plan(self.config.flush.batch_blobs_max.get(), &mut writes, &mut sent);
            }
        }
        if writes.is_empty() {
            return 0;
        }
        let counters = sent.iter().fold(0_usize, |sum, sent| sum.saturating_add(sent.counters));
        let began = Instant::now();
        let answers = self.store.write(&writes).await;
        self.metrics.flushed(began.elapsed());
        for (sent, answer) in sent.iter().zip(answers) {
            if let Some(shard) = self.shard(sent.shard) {
                self.answered(shard, sent, answer);
            }
        }
        counters
    }

    fn shards_that(&self, wanted: impl Fn(&Need) -> bool) -> Vec<u32> {
        let now = Instant::now();
        let shards = self.shards.iter().filter(|shard| wanted(&shard.need(now)));
        shards.map(|shard| shard.number).collect()
    }

    async fn look(&self, numbers: &[u32]) {
        match self.store.look(numbers).await {
            Ok(heads) => {
                for (number, head) in numbers.iter().zip(heads) {
                    if let Some(shard) = self.shard(*number) {
                        self.looked(shard, head);
                    }
                }
            }
            Err(error) => {
                self.metrics.redis_error("look");
                tracing::warn!(error = %drawdown_service::refusal::chain(&error.into()), "redis can not be read");
                for number in numbers {
                    if let Some(shard) = self.shard(*number) {
                        shard.lock().retry.failed(Instant::now());
                    }
                }
            }
        }
    }

    fn looked(&self, shard: &Shard, head: Result<Head, HeadFault>) {
        let mut guard = shard.lock();
        let state = &mut *guard;
        let head = match head {
            Ok(head) => head,
            Err(fault) => {
                tracing::debug!(shard = shard.number, ?fault, "there is no head to write to");
                state.retry.failed(Instant::now());
                self.want_look(shard);
                return;
            }
        };
        state.suspect = false;
        let roll = Roll { generation: head.generation, number: head.roll };
        state.head = Some(Belief { roll, open: head.open });
        let moved = state.generation.replace(head.generation).is_some_and(|before| before != head.generation);
        let verdict = if moved { Reconciled::Lost } else { reconcile(state, &head) };
        match verdict {
            Reconciled::Same => {}
            Reconciled::Applied => self.settle_doubt(state, shard),
            Reconciled::Lost => self.lost(state, shard, if moved { "generation" } else { "position" }),
        }
        if state.ask_again(roll) {
            self.wanted.notify_one();
        }
    }

    fn settle_doubt(&self, state: &mut State, shard: &Shard) {
        if let Some(flush) = state.pending.take() {
            state.names.forget();
            self.applied(shard.number, &flush, 0);
            state.acknowledge(&flush);
            shard.moved.notify_waiters();
        }
    }

    /// A flush is known to be in Redis.
    fn applied(&self, shard: u32, flush: &Flush, bytes: usize) {
        self.metrics.applied(events_of(flush), flush.clamped, &flush.refused, bytes);
        if flush.overflowed > 0 {
            self.metrics.overflowed(flush.overflowed);
        }
        for (meter, dimension) in &flush.overflows {
            tracing::warn!(
                shard,
                %meter,
                %dimension,
                "a dimension has more values today than are told apart; the others are counted as {OTHER}"
            );
        }
    }

    fn lost(&self, state: &mut State, shard: &Shard, cause: &'static str) {
        let rewound = state.lose();
        if rewound > 0 {
            tracing::info!(
                shard = shard.number,
                lanes = rewound,
                cause,
                "lanes are sent again from where redis is"
            );
            self.metrics.doubt(cause);
        }
        for _ in 0..rewound {
            self.metrics.lane_rewound();
        }
        shard.moved.notify_waiters();
        self.wanted.notify_one();
    }

    fn answered(&self, shard: &Shard, sent: &Sent, answer: Result<Written, Error>) {
        let mut guard = shard.lock();
        let state = &mut *guard;
        match answer {
            Ok(Written::Applied(Applied::Ok(_))) => {
                state.retry.succeeded();
                if let Some(flush) = state.pending.take() {
                    state.names.commit();
                    self.applied(shard.number, &flush, sent.bytes);
                    state.acknowledge(&flush);
                }
                shard.moved.notify_waiters();
            }
            Ok(Written::Attached(Attached::Ok(lanes))) => {
                state.retry.succeeded();
                for (lane, found) in sent.asked.iter().zip(lanes) {
                    self.attached(state, shard, lane, found);
                }
                shard.moved.notify_waiters();
            }
            Ok(Written::Applied(Applied::Lanes(refused))) => self.lanes_refused(state, shard, &refused),
            Ok(
                Written::Applied(Applied::Refused(refused)) | Written::Attached(Attached::Refused(refused)),
            ) => {
                self.refused(state, shard, &refused);
            }
            Err(error) => {
                self.metrics.redis_error("write");
                self.metrics.doubt("no_answer");
                tracing::warn!(
                    shard = shard.number,
                    error = %drawdown_service::refusal::chain(&error.into()),
                    "the outcome of a write is not known"
                );
                state.head = None;
                state.suspect = true;
                state.retry.failed(Instant::now());
            }
        }
    }

    fn attached(&self, state: &mut State, shard: &Shard, lane: &Lane, answer: Asked) {
        let Some(seat) = state.seats.get_mut(lane) else { return };
        let Phase::Asking { found: Found { told, .. }, registered, .. } = seat.phase else { return };
        let stop = match answer {
            Asked::Known(found) if found.epoch > seat.sender.epoch => {
                (reason::FENCED, "redis has seen a newer epoch of this producer")
            }
            Asked::Known(found) => {
                if state.go_live(lane, found.applied, told, registered) {
                    self.want_look(shard);
                }
                return;
            }
            Asked::Wait => {
                seat.phase = Phase::Parked;
                return;
            }
            Asked::Aside => (reason::LANE_SET_ASIDE, "its usage can not be settled; an operator has to look"),
        };
        self.metrics.lane_stopped(stop.0);
        state.stop(lane, stop.0, stop.1);
    }

    /// Nothing was written. Lanes that can not go on are stopped; the look that follows tells the others.
    fn lanes_refused(&self, state: &mut State, shard: &Shard, refused: &[(usize, LaneRefusal)]) {
        let lanes: Vec<(Lane, u64)> = state
            .pending
            .iter()
            .flat_map(|flush| flush.lanes.iter().map(|span| (span.lane, span.epoch)))
            .collect();
        let mut stopped = false;
        for (place, refusal) in refused {
            let Some((lane, epoch)) = lanes.get(*place) else { continue };
            let (reason, detail) = match refusal {
                LaneRefusal::Absent | LaneRefusal::Sequence(_) => continue,
                LaneRefusal::Fenced(_) => (reason::FENCED, "redis has seen a newer epoch of this producer"),
                LaneRefusal::Diverged(_) => {
                    (lane_reason::DIVERGED, "redis holds other events at the same sequence")
                }
            };
            stopped = true;
            if state.seats.get(lane).is_some_and(|seat| seat.sender.epoch > *epoch) {
                // It is sent by a newer process now, which has nothing to do with what the older one left here.
                continue;
            }
            self.metrics.lane_stopped(reason);
            tracing::warn!(shard = shard.number, lane = %lane, reason, "a lane was stopped");
            state.stop(lane, reason, detail);
        }
        self.metrics.doubt("lane");
        state.head = None;
        state.suspect = true;
        if stopped {
            // Its part of the flush can not be told from the others'.
            self.lost(state, shard, "stopped_lane");
        }
    }

    fn refused(&self, state: &mut State, shard: &Shard, refused: &Refused) {
        state.names.forget();
        let cause = match refused {
            // The routine of every seal: the flush goes into the next batch.
            Refused::Batch => "batch",
            Refused::Generation(_) => "generation",
            Refused::Roll => "roll",
            Refused::Names => "names",
            Refused::Damaged => "damaged",
            Refused::Full => "full",
        };
        self.metrics.doubt(cause);
        state.head = None;
        state.suspect = true;
        if matches!(refused, Refused::Damaged | Refused::Full) {
            // Only a worker helps.
            state.retry.failed(Instant::now());
            self.want_look(shard);
        }
    }
}

enum Reconciled {
    Same,
    Applied,
    Lost,
}

/// Compares what this instance believes with what Redis holds, when nothing of it is under way.
fn reconcile(state: &State, head: &Head) -> Reconciled {
    let applied = |lane: &Lane| head.lanes.get(lane).map(|lane| lane.applied);
    let pending = state.pending.as_ref().map_or(&[][..], |flush| &flush.lanes);
    let is_pending = |lane: &Lane| pending.iter().any(|span| span.lane == *lane);
    let others_moved = state
        .seats
        .iter()
        .any(|(lane, seat)| seat.is_live() && !is_pending(lane) && applied(lane) != Some(seat.acked));
    if others_moved {
        return Reconciled::Lost;
    }
    if !pending.is_empty() && pending.iter().all(|span| applied(&span.lane) == Some(span.after())) {
        return Reconciled::Applied;
    }
    if pending.iter().all(|span| applied(&span.lane) == Some(span.before())) {
        return Reconciled::Same;
    }
    Reconciled::Lost
}

fn events_of(flush: &Flush) -> u64 {
    flush.lanes.iter().fold(0, |sum, span| sum.saturating_add(span.events()))
}

impl Shard {
    fn need(&self, now: Instant) -> Need {
        let state = self.lock();
        if !state.has_work() {
            return Need::Nothing;
        }
        match state.retry.until() {
            Some(until) if !state.retry.is_due(now) => Need::Pause(until),
            _ if state.head.is_none() || state.suspect => Need::Look,
            _ => Need::Write,
        }
    }

    /// Adds what this shard has to write. A lane of which something is under way here asks Redis when that is
    /// decided: an older process of the producer may have sent it, so it must neither be refused for the epoch that
    /// the question raises, nor come after an answer from which a newer process goes on with other events.
    fn plan(&self, blobs_max: usize, writes: &mut Vec<Write>, sent: &mut Vec<Sent>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(head) = state.head else { return };
        if state.pending.is_none() && !state.aggregator.is_empty() {
            state.pending = Some(state.aggregator.take());
        }
        if let Some(flush) = &state.pending {
            let generation = head.roll.generation;
            let blob = state.names.encode(flush, generation, head.open, rand::random());
            let lanes = flush.lanes.iter().map(|span| ApplyLane {
                lane: span.lane,
                epoch: span.epoch,
                before: span.before(),
                after: span.after(),
            });
            let (counters, bytes) = (flush.counters.len(), blob.bytes.len());
            sent.push(Sent { shard: self.number, asked: Vec::new(), counters, bytes });
            writes.push(Write::Apply(Apply {
                shard: self.number,
                generation,
                batch: head.open,
                blobs_max: u64::try_from(blobs_max).unwrap_or(u64::MAX),
                checksum: blob.checksum,
                dictionary: blob.dictionary,
                names_before: blob.names_before,
                names: blob.names_defined,
                lanes: lanes.collect(),
                blob: blob.bytes.into(),
            }));
        }
        let asking = state.seats.iter().filter_map(|(lane, seat)| match seat.phase {
            Phase::Asking { found, roll, .. } if roll == head.roll && !state.is_under_way(lane) => {
                let settled = found.settled;
                Some(AttachLane { lane: *lane, epoch: seat.sender.epoch, settled })
            }
            Phase::Asking { .. } | Phase::Wanted | Phase::Parked | Phase::Live => None,
        });
        let lanes: Vec<AttachLane> = asking.collect();
        if !lanes.is_empty() {
            let asked = lanes.iter().map(|ask| ask.lane).collect();
            sent.push(Sent { shard: self.number, asked, counters: 0, bytes: 0 });
            writes.push(Write::Attach(Attach { shard: self.number, roll: head.roll, lanes }));
        }
    }
}

#[cfg(test)]
mod tests;
