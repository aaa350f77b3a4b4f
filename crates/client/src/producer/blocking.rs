//! The producer for callers without a runtime.
//!
//! Shape: the same [`producer`](super::Producer) on a runtime of its own with one thread. `append` and `append_many`
//! go straight to it and never wait; what waits does so on a channel of the standard library, for at most as long
//! as the caller says. So a call from inside another runtime neither panics nor waits for a thread that it holds
//! itself: it blocks the calling thread, as any blocking call does, and comes back in time. Do that in
//! `spawn_blocking` where the thread has other work. Only a metering service that runs on the blocked thread itself
//! can not answer meanwhile; then the time runs out.

use std::{
    future::Future,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, sync_channel},
    },
    time::{Duration, Instant},
};

use drawdown_types::{Clock, ProducerId};
use tokio::runtime::Runtime;

use super::{
    AppendError, Appended, Keep, Mark, OpenError, ProducerMetrics, ProducerOptions, Progress, SeriesHandle,
    SeriesUsage, Usage, WaitError,
};
use crate::channel::{ChannelOptions, connect};

/// How much longer than asked a call waits for its own runtime to say that the time is up.
const GRACE: Duration = Duration::from_secs(1);

/// An open producer. Cheap to clone; it ends when it is closed or the last clone is gone.
///
/// ```no_run
/// use std::{sync::Arc, time::Duration};
///
/// use drawdown_client::{
///     ChannelOptions,
///     producer::{Outcome, ProducerOptions, Usage, blocking::Producer},
/// };
/// use drawdown_types::{Clock, SystemClock};
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let clock = Arc::new(SystemClock);
/// let options = ProducerOptions {
///     producer_id: Some("prod_01j2gv5gymfsfrn6rc3mq3yjjv".parse()?),
///     ..ProducerOptions::at("/var/lib/my-gateway/drawdown")
/// };
/// let metering = ChannelOptions::to("http://127.0.0.1:7401");
/// let producer = Producer::open(options, &metering, clock.clone())?;
/// let usage = Usage {
///     client_id: "client_01j2gv5gymfsfrn6rc3mq3yjjv",
///     meter: "model-derivative.complex-job",
///     quantity: 1,
///     at: clock.now(),
///     outcome: Outcome::Succeeded,
///     dimensions: &[],
///     hold_id: None,
/// };
/// producer.append_wait(&usage, None, Duration::from_secs(5))?;
/// producer.await_settled(Duration::from_secs(60))?;
/// producer.close(Duration::from_secs(10))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Producer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    producer: super::Producer,
    runtime: Option<Runtime>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A runtime that is dropped waits for its thread, which is not allowed inside another one.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Producer {
    /// See [`super::Producer::open`]. Waits for a new log, or a producer without one, to be registered, for at most
    /// `register_timeout_ms`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        options: ProducerOptions,
        metering: &ChannelOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        Self::start(options, metering, clock, None)
    }

    /// The same, with a hook for metrics.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_with(
        options: ProducerOptions,
        metering: &ChannelOptions,
        clock: Arc<dyn Clock>,
        metrics: Arc<dyn ProducerMetrics>,
    ) -> Result<Self, OpenError> {
        Self::start(options, metering, clock, Some(metrics))
    }

    fn start(
        options: ProducerOptions,
        metering: &ChannelOptions,
        clock: Arc<dyn Clock>,
        metrics: Option<Arc<dyn ProducerMetrics>>,
    ) -> Result<Self, OpenError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("drawdown-producer")
            .enable_all()
            .build()
            .map_err(OpenError::Thread)?;
        let channel = {
            let _entered = runtime.enter();
            connect(metering).map_err(OpenError::Channel)
        };
        let (tell, told) = sync_channel(1);
        let opened = channel.and_then(|channel| {
            runtime.spawn(async move {
                let opened = super::Producer::open_maybe_with(options, channel, clock, metrics).await;
                // Nobody else hears of it, and one place is free.
                drop(tell.try_send(opened));
            });
            told.recv().unwrap_or_else(|gone| Err(OpenError::Thread(std::io::Error::other(gone))))
        });
        match opened {
            Ok(producer) => Ok(Self { inner: Arc::new(Inner { producer, runtime: Some(runtime) }) }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// Waits on the own runtime, for at most `timeout`.
    fn wait<F>(&self, timeout: Duration, waiting: F) -> Result<(), WaitError>
    where
        F: Future<Output = Result<(), WaitError>> + Send + 'static,
    {
        let Some(runtime) = &self.inner.runtime else { return Err(WaitError::Closed) };
        let (tell, told) = sync_channel(1);
        runtime.spawn(async move {
            let outcome = tokio::time::timeout(timeout, waiting).await.unwrap_or(Err(WaitError::TimedOut));
            drop(tell.try_send(outcome));
        });
        match told.recv_timeout(timeout.saturating_add(GRACE)) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => Err(WaitError::TimedOut),
            Err(RecvTimeoutError::Disconnected) => Err(WaitError::Closed),
        }
    }

    /// Who this is.
    #[must_use]
    pub fn id(&self) -> ProducerId {
        self.inner.producer.id()
    }

    /// Where events are kept: whether they survive this process.
    #[must_use]
    pub fn keep(&self) -> &Keep {
        self.inner.producer.keep()
    }

    /// Bytes of a half-written group that were cut when the log was opened.
    #[must_use]
    pub fn torn_bytes(&self) -> u64 {
        self.inner.producer.torn_bytes()
    }

    /// Takes an event; never waits. See [`super::Producer::append`].
    ///
    /// # Errors
    /// [`AppendError`].
    pub fn append(&self, usage: &Usage<'_>, mark: Option<Mark<'_>>) -> Result<Appended, AppendError> {
        self.inner.producer.append(usage, mark)
    }

    /// Takes events in order until one is not taken; never waits. See [`super::Producer::append_many`].
    pub fn append_many(&self, usages: &[Usage<'_>]) -> (usize, Option<AppendError>) {
        self.inner.producer.append_many(usages)
    }

    /// Looks a series up. See [`super::Producer::series`].
    ///
    /// # Errors
    /// [`AppendError`].
    pub fn series(&self, usage: &Usage<'_>) -> Result<SeriesHandle, AppendError> {
        self.inner.producer.series(usage)
    }

    /// Takes events of series that were looked up; never waits. See [`super::Producer::append_series`].
    pub fn append_series(&self, usages: &[SeriesUsage]) -> (usize, Option<AppendError>) {
        self.inner.producer.append_series(usages)
    }

    /// Takes an event, waiting for room for at most `timeout`.
    ///
    /// # Errors
    /// [`AppendError`]; a transient one where there was no room in time.
    pub fn append_wait(
        &self,
        usage: &Usage<'_>,
        mark: Option<Mark<'_>>,
        timeout: Duration,
    ) -> Result<Appended, AppendError> {
        let began = Instant::now();
        loop {
            let error = match self.append(usage, mark) {
                Err(error) if error.is_transient() => error,
                decided => return decided,
            };
            let left = timeout.saturating_sub(began.elapsed());
            match self.ready(left) {
                Ok(()) if left.is_zero() => return Err(error),
                Ok(()) => {}
                Err(WaitError::Stopped(fault)) => return Err(AppendError::Stopped(fault)),
                Err(WaitError::Closed) => return Err(AppendError::Closed),
                Err(WaitError::TimedOut | WaitError::LaneStopped(_) | WaitError::Unsettled { .. }) => {
                    return Err(error);
                }
            }
        }
    }

    /// Notes where a source stands. See [`super::Producer::mark`].
    ///
    /// # Errors
    /// [`AppendError`].
    pub fn mark(&self, mark: Mark<'_>) -> Result<(), AppendError> {
        self.inner.producer.mark(mark)
    }

    /// Waits until there is room for an event.
    ///
    /// # Errors
    /// [`WaitError`].
    pub fn ready(&self, timeout: Duration) -> Result<(), WaitError> {
        let producer = self.inner.producer.clone();
        self.wait(timeout, async move { producer.ready().await })
    }

    /// Waits until everything appended so far is durable. See [`super::Producer::flush`].
    ///
    /// # Errors
    /// [`WaitError`].
    pub fn flush(&self, timeout: Duration) -> Result<(), WaitError> {
        let producer = self.inner.producer.clone();
        self.wait(timeout, async move { producer.flush().await })
    }

    /// Waits until everything appended so far is settled in the ledger. See [`super::Producer::await_settled`].
    ///
    /// # Errors
    /// [`WaitError`].
    pub fn await_settled(&self, timeout: Duration) -> Result<(), WaitError> {
        let producer = self.inner.producer.clone();
        self.wait(timeout, async move { producer.await_settled().await })
    }

    /// The last durable mark of a source.
    #[must_use]
    pub fn mark_of(&self, source: &[u8]) -> Option<Vec<u8>> {
        self.inner.producer.mark_of(source)
    }

    /// The last durable marks of all sources.
    #[must_use]
    pub fn marks(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.inner.producer.marks()
    }

    /// How far events got.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.inner.producer.progress()
    }

    /// Makes everything durable, stops sending and releases the log. See [`super::Producer::close`].
    ///
    /// # Errors
    /// [`WaitError`]; after [`WaitError::TimedOut`] the log is released when the disk has answered.
    pub fn close(self, timeout: Duration) -> Result<(), WaitError> {
        let producer = self.inner.producer.clone();
        self.wait(timeout, producer.close())
    }
}
