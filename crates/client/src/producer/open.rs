//! The handle.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use drawdown_types::{Clock, ProducerId};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    error::{AppendError, OpenError, WaitError},
    index::Index,
    log::{DirectoryLock, Log, LogError, LogLimits, Meta, Recovered, recover},
    options::ProducerOptions,
    pending::{Limits, Pending},
    progress::Progress,
    registration::register,
    sender::{Sender, status_of},
    series::SeriesTable,
    shared::{Shared, Status},
    usage::{Appended, Mark, Usage},
    writer::Writer,
};
use crate::channel::Channel;

/// An open producer. Cheap to clone; the log is released when it is closed, or the last clone is gone
/// and the writer has finished.
#[derive(Clone, Debug)]
pub struct Producer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    producer_id: ProducerId,
    torn_bytes: u64,
    closing: CancellationToken,
    sender: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.closing.cancel();
        self.shared.request_close();
    }
}

/// A log that is locked and read, before anything runs.
struct Opened {
    log: Log,
    recovered: Index,
    pending: Pending,
    meta: Meta,
    torn_bytes: u64,
}

impl Producer {
    /// Opens the log and starts sending what is in it. A new log is registered with metering first; an
    /// old one is usable at once, whether metering can be reached or not.
    ///
    /// # Errors
    /// [`OpenError`]: wrong options, a log that is in use or corrupt, an unknown producer.
    pub async fn open(
        options: ProducerOptions,
        channel: Channel,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let problems = options.problems();
        if !problems.is_empty() {
            return Err(OpenError::Options(problems));
        }
        let dir = options.dir.clone();
        let (lock, meta) = blocking(move || {
            let lock = DirectoryLock::take(&dir)?;
            let meta = Meta::read(&dir)?;
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
            (None, Some(producer)) => register_new(&options, &channel, producer).await?,
        };
        let opened = {
            let (options, meta) = (options.clone(), meta);
            blocking(move || open_log(&options, lock, meta)).await?
        };
        Self::start(options, channel, clock, opened, registered)
    }

    fn start(
        options: ProducerOptions,
        channel: Channel,
        clock: Arc<dyn Clock>,
        opened: Opened,
        registered: bool,
    ) -> Result<Self, OpenError> {
        let Opened { log, recovered, pending, meta, torn_bytes } = opened;
        if torn_bytes > 0 {
            tracing::warn!(torn_bytes, "the log's last group was half written and was cut");
        }
        let producer_id = meta.producer_id;
        let shared = Arc::new(Shared::new(options, clock, pending, recovered));
        let writer = Writer { shared: Arc::clone(&shared), log, producer: producer_id };
        std::thread::Builder::new()
            .name("drawdown-log".to_owned())
            .spawn(move || writer.run())
            .map_err(OpenError::Thread)?;
        let closing = CancellationToken::new();
        let sender =
            Sender::new(Arc::clone(&shared), channel, producer_id, meta, registered, closing.clone());
        let sender = Mutex::new(Some(tokio::spawn(sender.run())));
        Ok(Self { inner: Arc::new(Inner { shared, producer_id, torn_bytes, closing, sender }) })
    }

    /// The producer id of the log in `dir`; `None` where there is no log yet.
    ///
    /// # Errors
    /// [`LogError`] where `meta` can not be read.
    pub fn id_in(dir: &Path) -> Result<Option<ProducerId>, LogError> {
        Meta::read(dir).map(|meta| meta.map(|meta| meta.producer_id))
    }

    /// Who this is.
    #[must_use]
    pub fn id(&self) -> ProducerId {
        self.inner.producer_id
    }

    /// Bytes of a half-written group that were cut when the log was opened.
    #[must_use]
    pub fn torn_bytes(&self) -> u64 {
        self.inner.torn_bytes
    }

    /// Takes an event. It is durable within about `linger_ms`; nothing waits here.
    ///
    /// # Errors
    /// [`AppendError`]; after a transient one [`Producer::ready`] says when to try again.
    pub fn append(&self, usage: &Usage<'_>, mark: Option<Mark<'_>>) -> Result<Appended, AppendError> {
        self.change(|pending| match mark {
            Some(mark) => pending.append_marked(usage, mark),
            None => pending.append(usage),
        })
    }

    /// Takes events in order until one is not taken; answers how many were, and why not the next.
    pub fn append_many(&self, usages: &[Usage<'_>]) -> (usize, Option<AppendError>) {
        let mut taken = 0;
        let outcome = self.change(|pending| {
            for usage in usages {
                pending.append(usage)?;
                taken += 1;
            }
            Ok(())
        });
        (taken, outcome.err())
    }

    /// Notes where a source stands after everything appended so far, also without an event.
    ///
    /// # Errors
    /// [`AppendError`].
    pub fn mark(&self, mark: Mark<'_>) -> Result<(), AppendError> {
        self.change(|pending| pending.mark(mark))
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&mut Pending) -> Result<T, AppendError>,
    ) -> Result<T, AppendError> {
        match self.inner.shared.with_open(change) {
            Some(outcome) => outcome,
            None => Err(match &self.inner.shared.status.borrow().fault {
                Some(fault) => AppendError::Stopped(Arc::clone(fault)),
                None => AppendError::Closed,
            }),
        }
    }

    /// Waits until there is room for an event after a transient [`AppendError`].
    ///
    /// # Errors
    /// [`WaitError`] where there never will be.
    pub async fn ready(&self) -> Result<(), WaitError> {
        let shared = &self.inner.shared;
        self.wait(|status| {
            let room = shared.with_pending(|pending| pending.room().is_ok());
            room.then_some(Ok(())).or_else(|| stopped(status))
        })
        .await
    }

    /// Waits until everything appended so far is durable.
    ///
    /// # Errors
    /// [`WaitError`].
    pub async fn flush(&self) -> Result<(), WaitError> {
        let through = self.inner.shared.request_flush();
        self.wait(|status| {
            (status.durable_operations >= through).then_some(Ok(())).or_else(|| stopped(status))
        })
        .await
    }

    /// Waits until everything appended so far is settled in the ledger.
    ///
    /// # Errors
    /// [`WaitError`], also where a lane with unsettled events was stopped.
    pub async fn await_settled(&self) -> Result<(), WaitError> {
        self.flush().await?;
        let shared = &self.inner.shared;
        let ends = shared.with_index(|index| index.ends());
        self.wait(|status| {
            let Some(lane) = shared.with_index(|index| index.unsettled(&ends)) else { return Some(Ok(())) };
            // The lane in the way may be a healthy one while another can never settle.
            let behind = |stop: &&super::error::LaneStop| {
                let ends = ends.get_key_value(&stop.lane).map(|(lane, end)| (*lane, *end));
                ends.is_some_and(|end| shared.with_index(|index| index.unsettled(&[end].into()).is_some()))
            };
            tracing::trace!(lane = %lane, "not settled yet");
            let lane_stop = status.stopped_lanes.iter().find(behind).cloned();
            lane_stop.map(|stop| Err(WaitError::LaneStopped(stop))).or_else(|| stopped(status))
        })
        .await
    }

    async fn wait<T>(
        &self,
        mut check: impl FnMut(&Status) -> Option<Result<T, WaitError>>,
    ) -> Result<T, WaitError> {
        let mut news = self.inner.shared.status.subscribe();
        loop {
            let status = news.borrow_and_update().clone();
            if let Some(outcome) = check(&status) {
                return outcome;
            }
            news.changed().await.map_err(|_| WaitError::Closed)?;
        }
    }

    /// The last durable mark of a source.
    #[must_use]
    pub fn mark_of(&self, source: &[u8]) -> Option<Vec<u8>> {
        self.inner.shared.with_index(|index| index.mark(source).map(<[u8]>::to_vec))
    }

    /// The last durable marks of all sources.
    #[must_use]
    pub fn marks(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.inner.shared.with_index(|index| {
            let marks = index.marks().iter();
            marks.map(|(source, position)| (source.to_vec(), position.to_vec())).collect()
        })
    }

    /// How far events got.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let shared = &self.inner.shared;
        let (totals, refused) = shared.with_index(|index| (index.totals(), index.refused().clone()));
        let (pending, shed, log_bytes) =
            shared.with_pending(|pending| (pending.events(), pending.shed(), pending.log_bytes()));
        let status = shared.status.borrow();
        Progress {
            appended: totals.durable.saturating_add(pending),
            durable: totals.durable,
            applied: totals.applied,
            settled: totals.settled,
            shed,
            refused,
            log_bytes,
            connected: status.connected,
            stopped_lanes: status.stopped_lanes.clone(),
        }
    }

    /// Makes everything durable, stops sending and releases the log. What is not settled is sent when
    /// the log is opened again.
    ///
    /// # Errors
    /// [`WaitError::Stopped`] where the producer had stopped, or the log failed now.
    pub async fn close(self) -> Result<(), WaitError> {
        self.inner.closing.cancel();
        self.inner.shared.request_close();
        let sender = self.inner.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender
            && let Err(error) = sender.await
        {
            tracing::error!(error = &error as &dyn std::error::Error, "the sender ended badly");
        }
        self.wait(|status| status.closed.then_some(Ok(()))).await?;
        match &self.inner.shared.status.borrow().fault {
            Some(fault) => Err(WaitError::Stopped(Arc::clone(fault))),
            None => Ok(()),
        }
    }
}

fn stopped<T>(status: &Status) -> Option<Result<T, WaitError>> {
    match &status.fault {
        Some(fault) => Some(Err(WaitError::Stopped(Arc::clone(fault)))),
        None if status.closed => Some(Err(WaitError::Closed)),
        None => None,
    }
}

/// Asks metering for an epoch and a map until it answers or the time is up.
async fn register_new(
    options: &ProducerOptions,
    channel: &Channel,
    producer: ProducerId,
) -> Result<Meta, OpenError> {
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
    let registration = match registered {
        Ok(outcome) => outcome?,
        Err(_) => return Err(OpenError::NotRegistered(last)),
    };
    // A new log agrees with nothing but a producer that has settled nothing.
    let mut empty = Index::new(&Recovered::default(), 0);
    registration.check(&mut empty).map_err(|fault| OpenError::Fault(Arc::new(fault)))?;
    let dir = options.dir.clone();
    blocking(move || registration.write_meta(&dir, producer)).await
}

fn open_log(options: &ProducerOptions, lock: DirectoryLock, meta: Meta) -> Result<Opened, LogError> {
    let recovered = recover(&options.dir, meta.producer_id)?;
    let table = SeriesTable::new(recovered.series.clone(), meta.map(), options.series_max);
    let limits = Limits::new(options, meta.limits());
    let pending = Pending::new(table, meta.map(), limits, &recovered.marks, recovered.shed);
    let index = Index::new(&recovered, options.unsent_bytes_max);
    let torn_bytes = recovered.torn_bytes;
    let limits = LogLimits {
        segment_bytes: options.segment_bytes,
        crowded_bytes: options.log_bytes_max.saturating_sub(options.segment_bytes),
        retain: Duration::from_millis(options.retain_after_settled_ms),
    };
    let log = Log::open(&options.dir, lock, meta.producer_id, limits, recovered)?;
    Ok(Opened { log, recovered: index, pending, meta, torn_bytes })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, OpenError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(OpenError::Log),
        Err(error) => Err(OpenError::Thread(std::io::Error::other(error))),
    }
}
