//! The part of metering that takes events: lanes, aggregates, group commit.
//!
//! Shape: streams (grpc) offer frames to shards; the flusher writes all dirty shards in one round trip; the
//! attacher asks the ledger where lanes stand, many at once; workers (jobs) tell what they have seen. All of
//! them meet in [`Shard`] under one short lock a shard, and wake each other by notifications, never by queues:
//! what has to be done is state, so nothing can pile up.

mod attach;
mod flush;
pub(crate) mod outbox;
pub(crate) mod retry;
mod seat;
mod shard;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use drawdown_metering_core::{
    aggregate::Aggregator,
    look::{Cursor, Head},
    shard::Lane,
};
use drawdown_types::{Clock, MeterSlug, WindowSize};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

pub(crate) use seat::Sender;
pub(crate) use shard::{Offer, Shard};

use crate::{
    config::Config,
    metrics::Metrics,
    peer::{self, Cells, Ledger, Meters},
    redis::Store,
};

/// What all parts of the service share.
pub(crate) struct Instance {
    pub(crate) config: Config,
    /// The window size of the installation.
    pub(crate) window: WindowSize,
    pub(crate) store: Arc<Store>,
    /// The ledgers of all cells.
    pub(crate) cells: Cells,
    pub(crate) meters: Meters,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Arc<dyn Clock>,
    /// Streams that may still begin.
    pub(crate) streams: Arc<Semaphore>,
    shards: Vec<Shard>,
    next_stream: AtomicU64,
    /// The flusher has something to do.
    dirty: Notify,
    /// The attacher has something to do.
    wanted: Notify,
    /// A worker has to look now.
    pub(crate) worker_wanted: Notify,
    /// Cancelled when nothing will be flushed any more.
    pub(crate) flushed: CancellationToken,
}

/// What an [`Instance`] is made of.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) window: WindowSize,
    pub(crate) store: Arc<Store>,
    pub(crate) cells: Cells,
    pub(crate) meters: Meters,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Instance {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { config, window, store, cells, meters, metrics, clock } = parts;
        let rules = config.events.rules(window);
        let limits = shard::Limits {
            counters_max: config.ingest.shard_counters_max.get(),
            series_max: config
                .ingest
                .shard_series_max
                .get()
                .saturating_add(config.ingest.shard_counters_max.get()),
            lanes_max: config.ingest.lanes_per_shard_max.get(),
        };
        let pauses = (config.flush.retry_pause_ms.duration(), config.flush.retry_pause_max_ms.duration());
        let series_max = config.ingest.shard_series_max.get();
        let shards = (0..config.shards()).map(|number| {
            let aggregator = Aggregator::new(number, rules, series_max, meters.table());
            let aggregator = aggregator.with_value_limits(config.ingest.values());
            Shard::new(number, limits, aggregator, retry::Retry::new(pauses.0, pauses.1))
        });
        Self {
            shards: shards.collect(),
            streams: Arc::new(Semaphore::new(config.ingest.streams_max.get().min(Semaphore::MAX_PERMITS))),
            next_stream: AtomicU64::new(1),
            dirty: Notify::new(),
            wanted: Notify::new(),
            worker_wanted: Notify::new(),
            flushed: CancellationToken::new(),
            config,
            window,
            store,
            cells,
            meters,
            metrics,
            clock,
        }
    }

    /// The only ledger, or the leading one: it decides what Redis has to hold, and knows the producers.
    pub(crate) const fn ledger(&self) -> &Ledger {
        &self.cells.leading
    }

    /// A shard of some map.
    pub(crate) fn shard(&self, number: u32) -> Option<&Shard> {
        usize::try_from(number).ok().and_then(|at| self.shards.get(at))
    }

    /// The numbers of all shards.
    pub(crate) fn shard_numbers(&self) -> Vec<u32> {
        self.shards.iter().map(|shard| shard.number).collect()
    }

    /// A number that no other stream of this process has.
    pub(crate) fn next_stream(&self) -> u64 {
        self.next_stream.fetch_add(1, Ordering::Relaxed)
    }

    /// A frame was counted.
    pub(crate) fn wake_flusher(&self) {
        self.dirty.notify_one();
    }

    /// A lane was asked for: where the head is not known, the flusher reads it first.
    pub(crate) fn wake_attacher(&self) {
        self.wanted.notify_one();
        self.dirty.notify_one();
    }

    /// Lanes that streams of this instance send, by shard, with the generation that they were attached in.
    pub(crate) fn live_lanes(&self) -> Vec<(u32, u64, Vec<Lane>)> {
        self.shards.iter().filter_map(Shard::live).collect()
    }

    /// Something is wrong with a shard, and only a look by a worker helps.
    fn want_look(&self, shard: &Shard) {
        shard.want_look();
        self.worker_wanted.notify_one();
    }

    /// Waits until a shard that was full has room again.
    pub(crate) async fn wait_for_room(&self, shard: &Shard) {
        self.wake_flusher();
        shard.wait_for_room().await;
    }

    /// Makes sure that meters are known, or are not known to a catalogue that was read just now.
    pub(crate) async fn learn_meters<'a>(
        &self,
        slugs: impl IntoIterator<Item = &'a MeterSlug>,
    ) -> Result<(), peer::Error> {
        if self.meters.learn(slugs).await? {
            self.spread_meters();
        }
        Ok(())
    }

    /// Counts by the catalogue as read last.
    pub(crate) fn spread_meters(&self) {
        let table = self.meters.table();
        for shard in &self.shards {
            shard.set_meters(Arc::clone(&table));
        }
    }

    /// What is settled of a shard in all cells, and what a worker saw in Redis after it.
    pub(crate) fn observe(&self, number: u32, cursor: &Cursor, head: Option<&Head>) {
        if let Some(shard) = self.shard(number)
            && shard.observe(cursor, head)
        {
            self.wake_flusher();
        }
    }
}
