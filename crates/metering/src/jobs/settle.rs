//! The worker: looks, seals, reads, merges, resolves, posts, retires; resets what is damaged.
//!
//! Shape: one round asks the ledger, of every cell, for the cursors (A), then Redis for the heads (`look`), in this order, of the
//! shards whose lease this instance has or whose lanes its streams send; each leased shard that needs work gets a task,
//! a few at once, one at a time for each shard. Where a stream has met something that only a look can mend, the lease
//! does not matter. Any number of workers may run, in any number of processes, and safety needs no lease: every step
//! is compared and set, and a step that comes too late changes nothing. A transport error is no refusal: the next round posts the same batch again. Trouble has to
//! be seen twice, with a look in between, before a shard is reset.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use drawdown_metering_core::look::Head;
use tokio::{
    sync::{Mutex, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    drift::Drift,
    lease::Leases,
    look::Named,
    work::{Failed, Work},
};
use crate::{
    config::SettleOptions,
    instance::{Instance, retry::Retry},
    peer::{Resolver, Standing},
    redis::HeadFault,
};

/// Between two rounds that were asked for, at least.
const ROUND_PAUSE: Duration = Duration::from_millis(20);

/// One worker.
pub(crate) struct Worker {
    pub(super) instance: Arc<Instance>,
    pub(super) resolver: Arc<Resolver>,
    leases: Leases,
    pub(super) named: Named,
    works: Vec<Arc<Mutex<Work>>>,
    drifts: Mutex<Vec<Drift>>,
    at_once: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Lines and distinct values posted since the interval was chosen.
    pub(super) lines: AtomicUsize,
}

/// One shard, as a round saw it.
pub(super) struct Seen {
    pub(super) standing: Standing,
    pub(super) head: Result<Head, HeadFault>,
}

impl Worker {
    pub(crate) fn new(instance: Arc<Instance>, resolver: Arc<Resolver>) -> Arc<Self> {
        let settle = &instance.config.settle;
        let retry = Retry::new(settle.retry_pause_ms.duration(), settle.retry_pause_max_ms.duration());
        let numbers = instance.shard_numbers();
        Arc::new(Self {
            leases: Leases::new(settle.lease_ms.duration()),
            named: Named::default(),
            works: numbers.iter().map(|_| Arc::new(Mutex::new(Work::new(retry)))).collect(),
            drifts: Mutex::new(numbers.iter().map(|_| Drift::default()).collect()),
            at_once: Arc::new(Semaphore::new(settle.shards_at_once.get().min(Semaphore::MAX_PERMITS))),
            tasks: TaskTracker::new(),
            lines: AtomicUsize::new(0),
            resolver,
            instance,
        })
    }

    /// Settles until the signal to stop; what is under way then is finished, not begun.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let settle = self.instance.config.settle.clone();
        let mut retry = Retry::new(settle.retry_pause_ms.duration(), settle.retry_pause_max_ms.duration());
        let (mut next, mut kept_at) = (Instant::now(), None);
        let (keeper, keep_until) = (Arc::clone(&self), stop.clone());
        let keeping = tokio::spawn(async move { keeper.leases.keep(&keeper.instance, keep_until).await });
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(next) => {}
                () = self.instance.worker_wanted.notified(), if retry.is_due(Instant::now()) => {
                    tokio::time::sleep(ROUND_PAUSE).await;
                }
            }
            // First, so that after a standstill no lane of a stream goes for it.
            if let Err(failed) = self.keep_lanes(&mut kept_at).await {
                failed.log(&self.instance.metrics, None);
            }
            match self.round().await {
                Ok(()) => retry.succeeded(),
                Err(failed) => {
                    failed.log(&self.instance.metrics, None);
                    retry.failed(Instant::now());
                }
            }
            let regular = Instant::now() + interval(&settle, self.lines.swap(0, Ordering::Relaxed));
            next = retry.until().unwrap_or(regular);
        }
        self.tasks.close();
        self.tasks.wait().await;
        // Others take the leases that it gives back.
        let _ended = keeping.await;
    }

    /// Whether this instance is the one to look at a shard.
    pub(super) fn has_lease(&self, shard: u32) -> bool {
        self.leases.holds(shard, Instant::now())
    }

    async fn round(self: &Arc<Self>) -> Result<(), Failed> {
        let now = Instant::now();
        let mut due = Vec::new();
        let mut numbers = Vec::new();
        for number in self.instance.shard_numbers() {
            let Some(shard) = self.instance.shard(number) else { continue };
            let is_ours = self.leases.holds(number, now);
            let is_due = shard.take_look_wanted() || is_ours;
            if is_due || shard.is_seated() {
                numbers.push(number);
                due.push((is_ours, is_due));
            }
        }
        if numbers.is_empty() {
            return Ok(());
        }
        let looks = match self.look(&numbers).await {
            Ok(looks) => looks,
            Err(Failed::Peer(error)) => {
                self.make_room_without_ledger(&numbers).await?;
                return Err(error.into());
            }
            Err(failed) => return Err(failed),
        };
        let now = Instant::now();
        let mut drifts = self.drifts.lock().await;
        for ((number, seen), (is_ours, is_due)) in numbers.iter().zip(looks).zip(due) {
            let at = usize::try_from(*number).unwrap_or(usize::MAX);
            let (Some(work), Some(drift)) = (self.works.get(at), drifts.get_mut(at)) else { continue };
            let Seen { standing, head } = &seen;
            let told = standing.told();
            self.instance.observe(*number, &told, head.as_ref().ok());
            if let Ok(head) = head
                && is_ours
            {
                let (events, lag) = drift.seen(now, head, &told);
                self.instance.metrics.drift(*number, events, lag);
                self.instance.metrics.lanes(*number, head.lanes.len());
            }
            if !is_due {
                continue;
            }
            // A shard that is being settled is left to the task that does it.
            let Ok(mut work) = Arc::clone(work).try_lock_owned() else { continue };
            if !work.retry.is_due(now) {
                continue;
            }
            let (worker, number) = (Arc::clone(self), *number);
            self.tasks.spawn(async move {
                let Ok(_permit) = Arc::clone(&worker.at_once).acquire_owned().await else { return };
                worker.settle(&mut work, number, seen).await;
            });
        }
        Ok(())
    }
}

/// The time to the next round: longer where there are more lines than may be posted in a second.
fn interval(settle: &SettleOptions, lines: usize) -> Duration {
    let shortest = settle.interval_ms.duration();
    let millis = lines.saturating_mul(1000) / settle.lines_per_second.get();
    let needed = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
    needed.max(shortest).min(settle.interval_max_ms.duration())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_grows_with_the_lines() {
        let settle = SettleOptions::default();
        for (lines, secs) in [(0, 1), (50_000, 1), (500_000, 10), (usize::MAX, 60)] {
            assert_eq!(interval(&settle, lines).as_secs(), secs, "{lines}");
        }
    }
}
