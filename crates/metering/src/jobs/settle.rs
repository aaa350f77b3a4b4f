//! The worker: looks, seals, reads, merges, resolves, posts, retires; resets what is damaged.
//!
//! Shape: one round asks the ledger, of every cell, for all cursors (A), then Redis for all heads, in this order; each shard
//! that needs work gets a task, a few at once, one at a time for each shard. Any number of workers may run, in
//! any number of processes, without a lease: every step is compared and set, and a step that comes too late
//! changes nothing. A transport error is no refusal: the next round posts the same batch again. Trouble has to
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
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(next) => {}
                () = self.instance.worker_wanted.notified(), if retry.is_due(Instant::now()) => {
                    tokio::time::sleep(ROUND_PAUSE).await;
                }
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
    }

    async fn round(self: &Arc<Self>) -> Result<(), Failed> {
        let numbers = self.instance.shard_numbers();
        let mut standings = self.instance.cells.shards(&numbers, &[]).await?.shards;
        let heads = self.instance.store.look(&numbers).await?;
        let now = Instant::now();
        let mut drifts = self.drifts.lock().await;
        for (((number, head), work), drift) in
            numbers.iter().zip(heads).zip(&self.works).zip(drifts.iter_mut())
        {
            let Some(standing) = standings.remove(number) else { continue };
            let told = standing.told();
            self.instance.observe(*number, &told, head.as_ref().ok());
            if let Ok(head) = &head {
                let (events, lag) = drift.seen(now, head, &told);
                self.instance.metrics.drift(*number, events, lag);
            }
            // A shard that is being settled is left to the task that does it.
            let Ok(mut work) = Arc::clone(work).try_lock_owned() else { continue };
            if !work.retry.is_due(now) {
                continue;
            }
            let (worker, number, seen) = (Arc::clone(self), *number, Seen { standing, head });
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
