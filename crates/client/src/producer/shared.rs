//! What the handle, the writer's thread and the sender's task share.
//!
//! Locks: `pending`, then nothing; `index`, then nothing. No function holds both, and none is held
//! across an await or a system call. News go out through one watch channel, after the state they
//! speak of.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use drawdown_types::Clock;
use tokio::sync::watch;

use super::{
    adoption::NOT_ADOPTED,
    error::{Fault, LaneStop},
    index::Index,
    log::{LogError, Positions},
    metrics::{ProducerMetrics, Reached},
    options::ProducerOptions,
    pending::{Group, Pending},
    progress::LostRange,
};

/// How often settled segments are looked at while nothing else happens.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// What changes while a producer is open.
#[derive(Clone, Debug, Default)]
pub(super) struct Status {
    /// Operations (events and marks) that are where they are kept: durable, or in memory with their place in
    /// their lane.
    pub(super) kept_operations: u64,
    /// Raised with every change of the index or of the room in the log.
    pub(super) changes: u64,
    /// Why the producer stopped for good.
    pub(super) fault: Option<Arc<Fault>>,
    /// Lanes that metering stopped.
    pub(super) stopped_lanes: Vec<LaneStop>,
    /// Ranges that were named as lost.
    pub(super) lost: Vec<LostRange>,
    /// Whether a stream is open.
    pub(super) connected: bool,
    /// The writer has ended; nothing becomes durable any more.
    pub(super) closed: bool,
}

#[derive(Debug)]
struct Work {
    pending: Pending,
    flush: bool,
    closing: bool,
    /// Nothing is appended any more: closing, or stopped for good.
    refusing: bool,
    settled_moved: bool,
}

/// Shared by all parts of one producer.
pub(super) struct Shared {
    pub(super) options: ProducerOptions,
    pub(super) clock: Arc<dyn Clock>,
    metrics: Option<Arc<dyn ProducerMetrics>>,
    work: Mutex<Work>,
    wake: Condvar,
    index: Mutex<Index>,
    pub(super) status: watch::Sender<Status>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What the writer does next.
pub(super) enum Next {
    Write(Group),
    Maintain,
    Close,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere does not make the state here less true: every change is whole before unlock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(
        options: ProducerOptions,
        clock: Arc<dyn Clock>,
        metrics: Option<Arc<dyn ProducerMetrics>>,
        pending: Pending,
        index: Index,
    ) -> Self {
        Self {
            options,
            clock,
            metrics,
            work: Mutex::new(Work {
                pending,
                flush: false,
                closing: false,
                refusing: false,
                settled_moved: false,
            }),
            wake: Condvar::new(),
            index: Mutex::new(index),
            status: watch::Sender::new(Status::default()),
        }
    }

    /// Tells the hook, where there is one.
    pub(super) fn measure(&self, tell: impl FnOnce(&dyn ProducerMetrics)) {
        if let Some(metrics) = &self.metrics {
            tell(&**metrics);
        }
    }

    /// Tells the hook what was shed or not taken since the last time.
    pub(super) fn measure_refusals(&self) {
        self.measure(|metrics| {
            let (shed, not_taken) = self.with_pending(Pending::take_counts);
            if shed > 0 {
                metrics.shed(shed);
            }
            for (reason, events) in not_taken {
                metrics.not_taken(reason, events);
            }
        });
    }

    /// Tells the hook how far events got.
    pub(super) fn measure_reached(&self) {
        self.measure(|metrics| {
            let totals = self.with_index(|index| index.totals());
            let (kept, applied, settled) = (totals.kept, totals.applied, totals.settled);
            metrics.reached(&Reached { kept, applied, settled });
        });
    }

    /// Runs `change` on what is not durable yet; wakes the writer when there is something new for it.
    pub(super) fn with_pending<T>(&self, change: impl FnOnce(&mut Pending) -> T) -> T {
        self.change(lock(&self.work), change)
    }

    /// Runs `change` unless the producer has stopped or is closing.
    pub(super) fn with_open<T>(&self, change: impl FnOnce(&mut Pending) -> T) -> Option<T> {
        let work = lock(&self.work);
        if work.refusing { None } else { Some(self.change(work, change)) }
    }

    fn change<T>(&self, mut work: MutexGuard<'_, Work>, change: impl FnOnce(&mut Pending) -> T) -> T {
        let (had_work, was_large) = (work.pending.first_at().is_some(), self.is_large(&work.pending));
        let answer = change(&mut work.pending);
        let wake =
            (!had_work && work.pending.first_at().is_some()) || (!was_large && self.is_large(&work.pending));
        drop(work);
        if wake {
            self.wake.notify_one();
        }
        answer
    }

    fn is_large(&self, pending: &Pending) -> bool {
        pending.is_large(&self.options)
    }

    pub(super) fn with_index<T>(&self, change: impl FnOnce(&mut Index) -> T) -> T {
        change(&mut lock(&self.index))
    }

    /// Asks the writer not to linger; answers the operation to wait for.
    pub(super) fn request_flush(&self) -> u64 {
        let mut work = lock(&self.work);
        work.flush = true;
        let through = work.pending.operations();
        drop(work);
        self.wake.notify_one();
        through
    }

    pub(super) fn request_close(&self) {
        let mut work = lock(&self.work);
        work.closing = true;
        work.refusing = true;
        drop(work);
        self.wake.notify_one();
    }

    /// Tells the writer that segments or frames may have become free or lanes were adopted, and everybody who waits.
    pub(super) fn settled_moved(&self) {
        lock(&self.work).settled_moved = true;
        self.wake.notify_one();
        self.changed();
    }

    pub(super) fn changed(&self) {
        self.status.send_modify(|status| status.changes = status.changes.wrapping_add(1));
    }

    /// Says of every lane that is not adopted yet that it should be.
    pub(super) fn name_unadopted(&self) {
        let overdue = self.with_index(|index| index.unadopted());
        for stop in &overdue {
            tracing::error!(lane = %stop.lane, detail = stop.detail, "a lane could not be adopted in time");
            self.measure(|metrics| metrics.lane_stopped(stop));
        }
        if !overdue.is_empty() {
            self.status.send_modify(|status| status.stopped_lanes.extend(overdue));
        }
    }

    /// Takes that back for lanes that were adopted late.
    pub(super) fn forget_adopted(&self) {
        let late = |stop: &LaneStop| stop.reason == NOT_ADOPTED;
        if self.status.borrow().stopped_lanes.iter().any(late) {
            let waiting: Vec<_> =
                self.with_index(|index| index.unadopted().into_iter().map(|stop| stop.lane).collect());
            let stands = |stop: &LaneStop| !late(stop) || waiting.contains(&stop.lane);
            self.status.send_modify(|status| status.stopped_lanes.retain(stands));
        }
    }

    pub(super) fn fail(&self, fault: Fault) {
        tracing::error!(error = &fault as &dyn std::error::Error, "producer stopped");
        // First why, then that: whoever is refused finds the reason.
        self.status.send_modify(|status| {
            status.fault.get_or_insert_with(|| Arc::new(fault));
        });
        lock(&self.work).refusing = true;
    }

    pub(super) fn fail_log(&self, error: LogError) {
        self.fail(Fault::Log(error));
    }

    pub(super) fn settled(&self) -> Positions {
        self.with_index(|index| index.settled())
    }

    /// Waits for the writer's next piece of work; an event may wait for others as long as `linger`.
    pub(super) fn next(&self, linger: Duration) -> Next {
        let idle_until = Instant::now() + MAINTENANCE_INTERVAL;
        let mut work = lock(&self.work);
        loop {
            let now = Instant::now();
            let until = match work.turn(now, idle_until, linger, &self.options) {
                Turn::Now(next) => return next,
                Turn::Until(until) => until,
            };
            let wait = until.saturating_duration_since(now);
            work = self.wake.wait_timeout(work, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// What the writer has to do at some instant.
enum Turn {
    Now(Next),
    /// Nothing before this, unless something comes.
    Until(Instant),
}

impl Work {
    /// A group is cut when its first event has waited for `linger`, or at once where it is large or somebody waits for it.
    fn turn(
        &mut self,
        now: Instant,
        idle_until: Instant,
        linger: Duration,
        options: &ProducerOptions,
    ) -> Turn {
        let due = self.pending.first_at().map(|first| first + linger);
        let asked = self.flush || self.closing;
        let hurry = asked || self.pending.is_large(options);
        let shed_due = self.pending.has_unwritten_shed() && (asked || now >= idle_until);
        if (due.is_some_and(|due| hurry || due <= now) || shed_due)
            && let Some(group) = self.pending.take()
        {
            self.flush = false;
            return Turn::Now(Next::Write(group));
        }
        self.flush = false;
        if self.closing {
            return Turn::Now(Next::Close);
        }
        if now >= idle_until || std::mem::take(&mut self.settled_moved) {
            return Turn::Now(Next::Maintain);
        }
        Turn::Until(due.map_or(idle_until, |due| due.min(idle_until)))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use drawdown_metering_core::{series::Outcome, shard::ShardMap};
    use drawdown_types::Timestamp;

    use super::{
        super::{
            log::{Marks, StreamLimits},
            pending::Limits,
            series::SeriesTable,
            usage::Usage,
        },
        *,
    };

    const MAP: ShardMap = ShardMap { version: 1, shard_count: NonZeroU32::MIN };

    fn work(options: &ProducerOptions) -> Work {
        let stream =
            StreamLimits { frame_bytes_max: 1 << 20, frame_events_max: 1 << 20, series_max: 1 << 20 };
        let limits = Limits::new(options, stream);
        let pending = Pending::new(SeriesTable::new(Vec::new(), MAP, 100), MAP, limits, &Marks::new(), 0);
        Work { pending, flush: false, closing: false, refusing: false, settled_moved: false }
    }

    fn append(work: &mut Work) {
        let (outcome, at) = (Outcome::Succeeded, Timestamp::EPOCH);
        let (client_id, meter, dimensions, hold_id) = ("c", "m", &[][..], None);
        let usage = Usage { client_id, meter, quantity: 1 << 40, at, outcome, dimensions, hold_id };
        work.pending.append(&usage).unwrap();
    }

    /// Events of the group that is cut at this instant.
    fn cut(work: &mut Work, now: Instant, options: &ProducerOptions) -> Result<u64, Instant> {
        let linger = Duration::from_millis(options.linger_ms);
        match work.turn(now, now + MAINTENANCE_INTERVAL, linger, options) {
            Turn::Now(Next::Write(group)) => Ok(group.events),
            Turn::Now(Next::Maintain | Next::Close) => panic!("nothing to be done"),
            Turn::Until(until) => Err(until),
        }
    }

    #[test]
    fn a_group_is_cut_when_its_first_event_has_waited() {
        let options = ProducerOptions { linger_ms: 40, ..ProducerOptions::at("log") };
        let mut work = work(&options);
        append(&mut work);
        let first = work.pending.first_at().unwrap();
        let due = first + Duration::from_millis(40);
        assert_eq!(cut(&mut work, first, &options), Err(due));
        append(&mut work);
        // Later events do not put it off.
        assert_eq!(cut(&mut work, due - Duration::from_nanos(1), &options), Err(due));
        assert_eq!(cut(&mut work, due, &options), Ok(2));
        let idle = due + MAINTENANCE_INTERVAL;
        assert_eq!(cut(&mut work, due, &options), Err(idle), "nothing is left");
    }

    #[test]
    fn a_group_is_cut_when_it_is_large_or_somebody_waits() {
        let options =
            ProducerOptions { linger_ms: 10_000, group_bytes_max: 64 << 10, ..ProducerOptions::at("log") };
        let mut work = work(&options);
        append(&mut work);
        let first = work.pending.first_at().unwrap();
        let mut events = 1;
        while !work.pending.is_large(&options) {
            assert!(cut(&mut work, first, &options).is_err(), "after {events} events");
            append(&mut work);
            events += 1;
        }
        assert!(events > 1_000);
        assert_eq!(cut(&mut work, first, &options), Ok(events));
        append(&mut work);
        work.flush = true;
        assert_eq!(cut(&mut work, first, &options), Ok(1));
        append(&mut work);
        assert!(cut(&mut work, first, &options).is_err(), "asked for once");
    }

    #[test]
    fn a_group_is_cut_when_half_of_what_memory_may_hold_waits() {
        let options =
            ProducerOptions { linger_ms: 10_000, pending_events_max: 9, ..ProducerOptions::at("log") };
        let mut work = work(&options);
        (0..4).for_each(|_| append(&mut work));
        let first = work.pending.first_at().unwrap();
        assert!(cut(&mut work, first, &options).is_err());
        append(&mut work);
        assert_eq!(cut(&mut work, first, &options), Ok(5));
        // What the writer is at counts for the room, and not for the next group.
        (0..4).for_each(|_| append(&mut work));
        assert!(cut(&mut work, first, &options).is_err());
    }

    #[test]
    fn a_group_has_frames_of_bounded_size() {
        let options = ProducerOptions { frame_events_max: 100, ..ProducerOptions::at("log") };
        let mut work = work(&options);
        (0..250).for_each(|_| append(&mut work));
        work.flush = true;
        let now = work.pending.first_at().unwrap();
        let Turn::Now(Next::Write(group)) = work.turn(now, now, Duration::ZERO, &options) else {
            panic!("not cut")
        };
        let events: Vec<u32> = group.frames.iter().map(|frame| frame.builder.events()).collect();
        assert_eq!(events, [100, 100, 50]);
    }
}
