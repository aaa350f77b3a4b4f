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
    error::{Fault, LaneStop},
    index::Index,
    log::{LogError, Positions},
    options::ProducerOptions,
    pending::{Group, Pending},
};

/// How often settled segments are looked at while nothing else happens.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// What changes while a producer is open.
#[derive(Clone, Debug, Default)]
pub(super) struct Status {
    /// Operations (events and marks) that are durable.
    pub(super) durable_operations: u64,
    /// Raised with every change of the index or of the room in the log.
    pub(super) changes: u64,
    /// Why the producer stopped for good.
    pub(super) fault: Option<Arc<Fault>>,
    /// Lanes that metering stopped.
    pub(super) stopped_lanes: Vec<LaneStop>,
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
        pending: Pending,
        index: Index,
    ) -> Self {
        Self {
            options,
            clock,
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
        pending.bytes() >= self.options.group_bytes_max
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

    /// Tells the writer that segments may have become free, and everybody who waits.
    pub(super) fn settled_moved(&self) {
        lock(&self.work).settled_moved = true;
        self.wake.notify_one();
        self.changed();
    }

    pub(super) fn changed(&self) {
        self.status.send_modify(|status| status.changes = status.changes.wrapping_add(1));
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

    /// Waits for the writer's next piece of work.
    pub(super) fn next(&self) -> Next {
        let linger = Duration::from_millis(self.options.linger_ms);
        let idle_until = Instant::now() + MAINTENANCE_INTERVAL;
        let mut work = lock(&self.work);
        loop {
            let now = Instant::now();
            let due = work.pending.first_at().map(|first| first + linger);
            let hurry = work.flush || work.closing || self.is_large(&work.pending);
            let shed_due = work.pending.has_unwritten_shed() && (now >= idle_until || work.closing);
            if (due.is_some_and(|due| hurry || due <= now) || shed_due)
                && let Some(group) = work.pending.take()
            {
                work.flush = false;
                return Next::Write(group);
            }
            work.flush = false;
            if work.closing {
                return Next::Close;
            }
            if now >= idle_until || std::mem::take(&mut work.settled_moved) {
                return Next::Maintain;
            }
            let until = due.map_or(idle_until, |due| due.min(idle_until));
            let wait = until.saturating_duration_since(now);
            work = self.wake.wait_timeout(work, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
