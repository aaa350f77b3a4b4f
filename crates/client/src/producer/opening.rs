//! What has to be there before a producer runs: its log, read and checked, or its place in the ledger.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use drawdown_types::ProducerId;

use super::{
    error::OpenError,
    index::Index,
    log::{DirectoryLock, Log, LogError, LogLimits, Meta, Recovered, recover},
    memory::Memory,
    options::{Keep, ProducerOptions},
    pending::{Limits, Pending},
    registration::{Registration, register},
    sender::status_of,
    series::SeriesTable,
    writer::{Keeper, LogWriter},
};
use crate::channel::Channel;

/// Everything that a producer begins with.
pub(super) struct Opened {
    pub(super) keeper: Keeper,
    pub(super) index: Index,
    pub(super) pending: Pending,
    pub(super) meta: Meta,
    /// Whether this process has its epoch already.
    pub(super) registered: bool,
    pub(super) torn_bytes: u64,
}

pub(super) async fn open(options: &ProducerOptions, channel: &Channel) -> Result<Opened, OpenError> {
    let problems = options.problems();
    if !problems.is_empty() {
        return Err(OpenError::Options(problems));
    }
    match (&options.keep, options.producer_id) {
        (Keep::Log(dir), _) => open_with_log(options, dir, channel).await,
        (Keep::Memory { .. }, Some(producer)) => {
            Ok(begin_in_memory(options, producer, &register_in_time(options, channel, producer).await?))
        }
        (Keep::Memory { .. }, None) => Err(OpenError::ProducerIdMissing),
    }
}

async fn open_with_log(
    options: &ProducerOptions,
    dir: &Path,
    channel: &Channel,
) -> Result<Opened, OpenError> {
    let path = dir.to_owned();
    let (lock, meta) = blocking(move || {
        let lock = DirectoryLock::take(&path)?;
        let meta = Meta::read(&path)?;
        Ok((lock, meta))
    })
    .await?;
    let registered = meta.is_none();
    let meta = match (meta, options.producer_id) {
        (Some(meta), Some(asked)) if meta.producer_id != asked => {
            return Err(OpenError::Log(LogError::OtherProducer { found: meta.producer_id, asked }));
        }
        (Some(meta), _) => meta,
        (None, None) => return Err(OpenError::ProducerIdMissing),
        (None, Some(producer)) => register_new(options, dir, channel, producer).await?,
    };
    let (options, path) = (options.clone(), dir.to_owned());
    blocking(move || open_log(&options, path, lock, meta, registered)).await
}

/// Registers a new log and notes that in its directory.
async fn register_new(
    options: &ProducerOptions,
    dir: &Path,
    channel: &Channel,
    producer: ProducerId,
) -> Result<Meta, OpenError> {
    let registration = register_in_time(options, channel, producer).await?;
    // A new log agrees with nothing but a producer that has settled nothing.
    let mut empty = Index::new(&Recovered::default(), 0);
    registration.check(&mut empty).map(drop).map_err(|fault| OpenError::Fault(Arc::new(fault)))?;
    let (meta, dir) = (registration.meta(producer), dir.to_owned());
    blocking(move || meta.write(&dir).map(|()| meta)).await
}

/// Asks metering for an epoch and a map until it answers or the time is up.
async fn register_in_time(
    options: &ProducerOptions,
    channel: &Channel,
    producer: ProducerId,
) -> Result<Registration, OpenError> {
    let pauses = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(options.reconnect_min_ms))
        .with_max_delay(Duration::from_millis(options.reconnect_max_ms))
        .without_max_times()
        .with_jitter();
    let mut last = None;
    let attempts = async {
        let mut pauses = pauses.build();
        loop {
            match register(channel, producer, 0).await.map_err(status_of) {
                Ok(registration) => return Ok(registration),
                Err(Err(fault)) => return Err(OpenError::Fault(Arc::new(fault))),
                Err(Ok(status)) => last = Some(Box::new(status)),
            }
            let longest = Duration::from_millis(options.reconnect_max_ms);
            tokio::time::sleep(pauses.next().unwrap_or(longest)).await;
        }
    };
    let registered = tokio::time::timeout(Duration::from_millis(options.register_timeout_ms), attempts).await;
    registered.unwrap_or(Err(OpenError::NotRegistered(last)))
}

fn begin_in_memory(options: &ProducerOptions, producer: ProducerId, registration: &Registration) -> Opened {
    let meta = registration.meta(producer);
    let table = SeriesTable::new(Vec::new(), meta.map(), options.series_max);
    let limits = Limits::new(options, meta.limits());
    let pending = Pending::new(table, meta.map(), limits, &Recovered::default().marks, 0);
    let memory = Memory::new(producer, registration.lanes(producer).map(|(lane, _)| lane));
    let index = Index::adopting(registration.lanes(producer));
    Opened { keeper: Keeper::Memory(memory), index, pending, meta, registered: true, torn_bytes: 0 }
}

fn open_log(
    options: &ProducerOptions,
    dir: PathBuf,
    lock: DirectoryLock,
    meta: Meta,
    registered: bool,
) -> Result<Opened, LogError> {
    let recovered = recover(&dir, meta.producer_id)?;
    let table = SeriesTable::new(recovered.series.clone(), meta.map(), options.series_max);
    let limits = Limits::new(options, meta.limits());
    let pending = Pending::new(table, meta.map(), limits, &recovered.marks, recovered.shed);
    let index = Index::new(&recovered, options.unsent_bytes_max);
    let torn_bytes = recovered.torn_bytes;
    let limits = LogLimits {
        segment_bytes: options.segment_bytes,
        crowded_bytes: options.log_bytes_max.saturating_sub(options.segment_bytes),
        retain: Duration::from_millis(options.retain_after_settled_ms),
        freed_bytes: options.freed_bytes_max,
    };
    let log = Log::open(&dir, lock, meta.producer_id, limits, recovered)?;
    let keeper = Keeper::Log(Box::new(LogWriter::new(log, meta.producer_id)));
    Ok(Opened { keeper, index, pending, meta, registered, torn_bytes })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, OpenError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(OpenError::Log),
        Err(error) => Err(OpenError::Thread(std::io::Error::other(error))),
    }
}
