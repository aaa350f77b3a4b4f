//! Live usage: what is applied in Redis and not settled in the ledger yet, for queries and for watchers.
//!
//! The source are the blobs of the batches that are not retired: the very bytes that will be settled, so there is no
//! second count that could differ, and nothing is written for it. A *query* reads what it needs and forgets it. All
//! *watchers* of this instance share one reader: it reads each new blob once and merges it into what it
//! holds of its shard ([`state::Shard`]); watchers look into that under a short lock when a round has passed. Only
//! shards that somebody watches are read.
//!
//! Order of a round, for each shard: clock, head, new blobs, cursor. So a batch that settles meanwhile is either
//! still in the answer or known to be settled, never in neither; and what was acknowledged before the clock was read
//! is in one of the two.
//!
//! Memory: of each query (`queries_max`) what it merges (`query_lines_max`); lines of a shard (`watch_lines_max`) × shards watched, its last changes (`watch_changes_max`), and for each
//! watcher the lines of one answer (`answer_lines_max`). A watcher that is slow holds nobody up: it finds
//! later what has changed since, or everything anew where that is not remembered any more.

mod query;
mod reader;
mod state;
mod watcher;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drawdown_metering_core::{meter::Aggregation, series::SeriesKey};
use drawdown_types::{ClientId, DimensionName, MeterSlug, Timestamp};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

pub(crate) use query::query;
pub(crate) use reader::read;
pub(crate) use watcher::{News, Watcher};

use crate::{instance::Instance, peer, peer::Resolver, redis};

/// Which usage is wanted; all that is given has to hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Sorted; empty for all.
    pub(crate) client_ids: Vec<ClientId>,
    /// `app_…`; empty for all.
    pub(crate) app_ids: Vec<String>,
    pub(crate) meter: Option<MeterSlug>,
    /// Each with this value.
    pub(crate) dimensions: Vec<(DimensionName, String)>,
    /// Say whose app it is, also where no app is asked for.
    pub(crate) resolve_apps: bool,
}

/// Where a shard stood when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) shard: u32,
    pub(crate) generation: u64,
    /// Batches up to this one are settled, and not in the answer.
    pub(crate) settled: u64,
    /// Batches up to this one are in the answer.
    pub(crate) open: u64,
}

/// Usage of one series in one window, or a part of it.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    pub(crate) series: Arc<SeriesKey>,
    pub(crate) aggregation: Aggregation,
    pub(crate) window_start: Timestamp,
    pub(crate) events: u64,
    pub(crate) quantity: i64,
    /// Of usage by batch: shard, batch, start of the window of the receipt.
    pub(crate) part: Option<(u32, u64, Timestamp)>,
    /// Where it was asked for and somebody pays.
    pub(crate) app_id: Option<String>,
}

/// Why usage was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("redis was not read")]
    Redis(#[from] redis::Error),
    #[error("another service was not asked")]
    Peer(#[from] peer::Error),
    #[error("shard {0} has no head; it is being reset")]
    Resetting(u32),
    #[error("shard {0} moved on while it was read")]
    Moving(u32),
    #[error("{0} would be too much for one answer")]
    TooLarge(String),
    #[error("as many queries are under way as may")]
    Busy,
}

/// What queries and watchers share.
pub(crate) struct Live {
    pub(crate) instance: Arc<Instance>,
    resolver: Arc<Resolver>,
    shards: Vec<Mutex<state::Shard>>,
    /// How many watch each shard.
    watched: Mutex<Vec<usize>>,
    /// A shard is watched that was not.
    wanted: Notify,
    rounds: watch::Sender<()>,
    watchers: Arc<Semaphore>,
    queries: Semaphore,
}

/// Shards that somebody watches, until it is dropped.
pub(crate) struct Watching {
    live: Arc<Live>,
    shards: Vec<u32>,
    _permit: OwnedSemaphorePermit,
}

impl Filter {
    fn takes(&self, series: &SeriesKey) -> bool {
        let dimension = |(name, value): &(DimensionName, String)| {
            series.dimensions().iter().any(|(known, found)| known == name && **found == **value)
        };
        (self.client_ids.is_empty() || self.client_ids.binary_search(series.client_id()).is_ok())
            && self.meter.as_ref().is_none_or(|meter| meter == series.meter())
            && self.dimensions.iter().all(dimension)
    }

    fn needs_apps(&self) -> bool {
        self.resolve_apps || !self.app_ids.is_empty()
    }
}

impl Live {
    pub(crate) fn new(instance: Arc<Instance>, resolver: Arc<Resolver>) -> Arc<Self> {
        let usage = &instance.config.usage;
        let limits = state::Limits {
            lines_max: usage.watch_lines_max.get(),
            changes_max: usage.watch_changes_max.get(),
        };
        let numbers = instance.shard_numbers();
        Arc::new(Self {
            shards: numbers.iter().map(|number| Mutex::new(state::Shard::new(*number, limits))).collect(),
            watched: Mutex::new(vec![0; numbers.len()]),
            wanted: Notify::new(),
            rounds: watch::Sender::new(()),
            watchers: Arc::new(Semaphore::new(usage.watchers_max.get().min(Semaphore::MAX_PERMITS))),
            queries: Semaphore::new(usage.queries_max.get().min(Semaphore::MAX_PERMITS)),
            resolver,
            instance,
        })
    }

    /// The shards that usage of a filter may be in, under all maps.
    fn shards_of(&self, filter: &Filter) -> Vec<u32> {
        if filter.client_ids.is_empty() {
            return self.instance.shard_numbers();
        }
        let maps = self.instance.config.maps.iter();
        let mut shards: Vec<u32> =
            maps.flat_map(|map| filter.client_ids.iter().map(|id| map.shard_of(id.as_str()))).collect();
        shards.sort_unstable();
        shards.dedup();
        shards
    }

    /// Watches the shards of a filter; `None` where as many watch as may.
    pub(crate) fn watch(self: &Arc<Self>, filter: &Filter) -> Option<Watching> {
        let permit = Arc::clone(&self.watchers).try_acquire_owned().ok()?;
        let shards = self.shards_of(filter);
        let mut watched = self.watched();
        for shard in &shards {
            if let Some(watchers) = at_mut(&mut watched, *shard) {
                *watchers = watchers.saturating_add(1);
            }
        }
        drop(watched);
        self.wanted.notify_one();
        Some(Watching { live: Arc::clone(self), shards, _permit: permit })
    }

    fn watched(&self) -> MutexGuard<'_, Vec<usize>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard(&self, number: u32) -> Option<MutexGuard<'_, state::Shard>> {
        let shard = usize::try_from(number).ok().and_then(|at| self.shards.get(at))?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says whose app each usage is of, at its window, and keeps what is wanted. Nobody's usage has no app.
    async fn resolve(&self, filter: &Filter, usage: Vec<Usage>) -> Result<Vec<Usage>, Error> {
        if !filter.needs_apps() {
            return Ok(usage);
        }
        let mut questions = Vec::with_capacity(usage.len());
        for usage in &usage {
            questions.push((usage.series.client_id().clone(), usage.window_start));
        }
        let answers = self.resolver.resolve(questions).await?;
        let named = usage.into_iter().map(|mut usage| {
            let answer = answers.get(&(usage.series.client_id().clone(), usage.window_start));
            usage.app_id = answer.and_then(|answer| answer.app_id().map(ToOwned::to_owned));
            usage
        });
        let wanted = |usage: &Usage| {
            filter.app_ids.is_empty() || usage.app_id.as_ref().is_some_and(|app| filter.app_ids.contains(app))
        };
        Ok(named.filter(wanted).collect())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut watched = self.live.watched();
        for shard in &self.shards {
            if let Some(watchers) = at_mut(&mut watched, *shard) {
                *watchers = watchers.saturating_sub(1);
            }
        }
    }
}

fn at_mut(watched: &mut [usize], shard: u32) -> Option<&mut usize> {
    usize::try_from(shard).ok().and_then(|at| watched.get_mut(at))
}
