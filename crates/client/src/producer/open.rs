//! The handle.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use drawdown_types::{Clock, ProducerId};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    error::{AppendError, LaneStop, OpenError, WaitError},
    log::{LogError, Meta},
    metrics::ProducerMetrics,
    opening::{self, Opened},
    options::{Keep, ProducerOptions},
    pending::Pending,
    progress::{LaneProgress, Progress},
    sender::Sender,
    shared::{Shared, Status},
    usage::{Appended, Mark, SeriesHandle, SeriesUsage, Usage},
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

impl Producer {
    /// Opens the log and starts sending what is in it. A new log is registered with metering first; an
    /// old one is usable at once, whether metering can be reached or not. Without a log ([`Keep::Memory`])
    /// metering has to register each start; then events are taken at once, and sent when their lane is settled
    /// as far as the process before has brought it.
    ///
    /// # Errors
    /// [`OpenError`]: wrong options, a log that is in use or corrupt, an unknown producer.
    pub async fn open(
        options: ProducerOptions,
        channel: Channel,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        Self::open_maybe_with(options, channel, clock, None).await
    }

    /// The same, with a hook for metrics.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_with(
        options: ProducerOptions,
        channel: Channel,
        clock: Arc<dyn Clock>,
        metrics: Arc<dyn ProducerMetrics>,
    ) -> Result<Self, OpenError> {
        Self::open_maybe_with(options, channel, clock, Some(metrics)).await
    }

    pub(super) async fn open_maybe_with(
        options: ProducerOptions,
        channel: Channel,
        clock: Arc<dyn Clock>,
        metrics: Option<Arc<dyn ProducerMetrics>>,
    ) -> Result<Self, OpenError> {
        let opened = opening::open(&options, &channel).await?;
        Self::start(options, channel, clock, metrics, opened)
    }

    fn start(
        options: ProducerOptions,
        channel: Channel,
        clock: Arc<dyn Clock>,
        metrics: Option<Arc<dyn ProducerMetrics>>,
        opened: Opened,
    ) -> Result<Self, OpenError> {
        let Opened { keeper, index, pending, meta, registered, torn_bytes } = opened;
        if torn_bytes > 0 {
            tracing::warn!(torn_bytes, "the log's last group was half written and was cut");
        }
        let producer_id = meta.producer_id;
        let shared = Arc::new(Shared::new(options, clock, metrics, pending, index));
        let writer = Writer { shared: Arc::clone(&shared), keeper };
        std::thread::Builder::new()
            .name("drawdown-writer".to_owned())
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

    /// Where events are kept: whether they survive this process.
    #[must_use]
    pub fn keep(&self) -> &Keep {
        &self.inner.shared.options.keep
    }

    /// Takes an event. It is durable within about `linger_ms`, on a slow disk `linger_max_ms` (never, where events are
    /// kept in memory only); nothing waits here.
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
        self.change_counted(|pending| pending.append_many(usages))
    }

    /// Looks the series of an event up, for [`Producer::append_series`]; takes no event. Who has one event after another of
    /// the same series spares looking its texts up each time: with many series that is most of what an event costs here.
    /// The same series has the same handle, and there are as many handles at most as series.
    ///
    /// # Errors
    /// [`AppendError`]; the quantity and the time are not looked at.
    pub fn series(&self, usage: &Usage<'_>) -> Result<SeriesHandle, AppendError> {
        self.change(|pending| pending.series(usage))
    }

    /// Takes events of series that were looked up, in order, until one is not taken; answers how many were, and why not the
    /// next. They are counted as those of [`Producer::append_many`] are.
    pub fn append_series(&self, usages: &[SeriesUsage]) -> (usize, Option<AppendError>) {
        self.change_counted(|pending| pending.append_series(usages))
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
        let counted = |pending: &mut Pending| change(pending).inspect_err(|error| pending.refuse(error));
        match self.inner.shared.with_open(counted) {
            Some(outcome) => outcome,
            None => Err(match &self.inner.shared.status.borrow().fault {
                Some(fault) => AppendError::Stopped(Arc::clone(fault)),
                None => AppendError::Closed,
            }),
        }
    }

    fn change_counted(
        &self,
        change: impl FnOnce(&mut Pending) -> (usize, Option<AppendError>),
    ) -> (usize, Option<AppendError>) {
        let mut taken = 0;
        let outcome = self.change(|pending| {
            let (count, refused) = change(pending);
            taken = count;
            refused.map_or(Ok(()), Err)
        });
        (taken, outcome.err())
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

    /// Waits until everything appended so far is durable, and the count of what was shed. In memory only nothing ever is; then it waits until
    /// everything has its place in its lane, which it keeps while the process lives.
    ///
    /// # Errors
    /// [`WaitError`]; in memory only also where a lane with waiting events was not adopted in time.
    pub async fn flush(&self) -> Result<(), WaitError> {
        let shared = &self.inner.shared;
        let through = shared.request_flush();
        self.wait(|status| {
            if status.kept_operations >= through {
                return Some(Ok(()));
            }
            let awaited = |stop: &&LaneStop| shared.with_index(|index| index.is_awaited(stop.lane));
            let lane_stop = status.stopped_lanes.iter().find(awaited).cloned();
            lane_stop.map(|stop| Err(WaitError::LaneStopped(stop))).or_else(|| stopped(status))
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
            let behind = |stop: &&LaneStop| {
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

    /// How far each lane is, in their order.
    #[must_use]
    pub fn lanes(&self) -> Vec<LaneProgress> {
        self.inner.shared.with_index(|index| index.progress())
    }

    /// How far events got.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let shared = &self.inner.shared;
        let (totals, refused) = shared.with_index(|index| (index.totals(), index.refused().clone()));
        let (pending, shed, kept_bytes) =
            shared.with_pending(|pending| (pending.events(), pending.shed_events(), pending.kept_bytes()));
        let status = shared.status.borrow();
        Progress {
            appended: totals.kept.saturating_add(pending),
            durable: if shared.options.keep.is_durable() { totals.kept } else { 0 },
            applied: totals.applied,
            settled: totals.settled,
            shed,
            refused,
            kept_bytes,
            connected: status.connected,
            lost: status.lost.clone(),
            stopped_lanes: status.stopped_lanes.clone(),
        }
    }

    /// Makes everything durable, stops sending and releases the log. What is not settled is sent when
    /// the log is opened again. In memory only it is lost: wait for [`Producer::await_settled`] first.
    ///
    /// # Errors
    /// [`WaitError::Stopped`] where the producer had stopped, or the log failed now; [`WaitError::Unsettled`] says
    /// how many events were lost.
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
        if let Some(fault) = &self.inner.shared.status.borrow().fault {
            return Err(WaitError::Stopped(Arc::clone(fault)));
        }
        let events = self.inner.shared.with_index(|index| index.totals().unsettled());
        if events > 0 && !self.keep().is_durable() {
            return Err(WaitError::Unsettled { events });
        }
        Ok(())
    }
}

fn stopped<T>(status: &Status) -> Option<Result<T, WaitError>> {
    match &status.fault {
        Some(fault) => Some(Err(WaitError::Stopped(Arc::clone(fault)))),
        None if status.closed => Some(Err(WaitError::Closed)),
        None => None,
    }
}
