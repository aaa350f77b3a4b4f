//! Usage of callers without a log: events by id, settled before they are answered.
//!
//! Shape: a call checks its events, and puts those that hold into the queues of their slots; one task a slot takes
//! whatever has come, asks who pays, and has the ledger record it in one transaction ([`lanes`], [`posts`]). So a lone
//! caller waits for one post, and many share posts. Nothing is kept here and nothing in Redis: the ledger alone knows an id, and a
//! call that got no answer may be repeated as it was, anywhere.
//!
//! Memory is bounded by `events_waiting_max`: more is refused at once with a hint, before anything is queued.

mod event;
mod lanes;
mod metrics;
mod posts;

use std::{sync::Arc, time::Duration};

use drawdown_metering_core::reason as core_reason;
use drawdown_proto::ledger::v1 as ledger;
use drawdown_types::{EVENT_SLOTS, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::{
    event::{Checked, Fields, Flaws, Sent},
    metrics::RecordMetrics,
};
use self::{
    lanes::Lane,
    posts::{Placed, Posts},
};
use crate::{
    config::RecordOptions,
    instance::Instance,
    peer::{self, Events, Resolver},
    reason,
};

/// The reason of an event whose time lies too far ahead.
pub(crate) const IN_FUTURE: &str = core_reason::EVENT_TIME_IN_FUTURE;
/// When a caller that was shed tries again.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What became of an event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// The ledger has it, or has refused it by its id or time.
    Told(Box<ledger::EventAnswer>),
    /// It is wrong by itself.
    Wrong(Flaws),
}

/// Why a call has no answers. It may be repeated as it was.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// As many events wait as may.
    #[error("as many events wait as may")]
    Shed,
    /// Not in time.
    #[error("the ledger took too long")]
    Late,
    /// Something that is needed does not answer.
    #[error("a service that is needed did not answer")]
    Peer(#[source] Arc<peer::Error>),
    /// The service is ending.
    #[error("the service is ending")]
    Ending,
}

/// Records events.
pub(crate) struct Recorder {
    instance: Arc<Instance>,
    options: RecordOptions,
    metrics: Arc<RecordMetrics>,
    lanes: Vec<Lane<Placed>>,
    waiting: Arc<Semaphore>,
}

impl Recorder {
    /// Begins the tasks of all slots, which end when nobody can ask any more, or with `stop`.
    pub(crate) fn start(
        instance: Arc<Instance>,
        resolver: &Arc<Resolver>,
        (events, metrics): (&Events, RecordMetrics),
        parts: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let options = instance.config.record.clone();
        let metrics = Arc::new(metrics);
        let posts = Posts {
            resolver: Arc::clone(resolver),
            events: events.clone(),
            metrics: Arc::clone(&metrics),
            parts: parts.clone(),
            stop: stop.clone(),
        };
        let lanes = (0..EVENT_SLOTS).map(|slot| posts.start(slot, &options)).collect();
        let waiting = options.events_waiting_max.get().min(Semaphore::MAX_PERMITS);
        Arc::new(Self { lanes, waiting: Arc::new(Semaphore::new(waiting)), options, metrics, instance })
    }

    /// The most events of one call.
    pub(crate) fn events_max(&self) -> usize {
        self.options.events_per_call_max.get()
    }

    /// Records what holds of some events; one answer for each, in their order. An event with flaws keeps them.
    pub(crate) async fn record(&self, sent: Vec<Result<Checked, Flaws>>) -> Result<Vec<Answer>, Unanswered> {
        let events = u32::try_from(sent.len()).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.waiting).try_acquire_many_owned(events) else {
            self.metrics.shed(sent.len());
            return Err(Unanswered::Shed);
        };
        let patience = self.options.wait_max_ms.duration();
        let answers = tokio::time::timeout(patience, self.record_all(sent, Arc::new(room))).await;
        let answers = answers.map_err(|_| Unanswered::Late).flatten()?;
        self.metrics.answered(&answers);
        Ok(answers)
    }

    async fn record_all(
        &self,
        sent: Vec<Result<Checked, Flaws>>,
        room: Arc<OwnedSemaphorePermit>,
    ) -> Result<Vec<Answer>, Unanswered> {
        let received = self.instance.clock.now();
        let meters = sent.iter().filter_map(|sent| Some(sent.as_ref().ok()?.series.meter()));
        let learned = self.instance.learn_meters(meters).await;
        learned.map_err(|error| Unanswered::Peer(Arc::new(error)))?;
        let mut answers: Vec<Option<Answer>> = vec![None; sent.len()];
        let mut of_slots: Vec<(Vec<usize>, Vec<Placed>)> = vec![Default::default(); self.lanes.len()];
        for (at, sent) in sent.into_iter().enumerate() {
            match sent.and_then(|event| self.place(event, received)) {
                Ok(placed) => {
                    let slot = usize::try_from(placed.event.name.slot()).unwrap_or_default();
                    if let Some((places, events)) = of_slots.get_mut(slot) {
                        places.push(at);
                        events.push(placed);
                    }
                }
                Err(flaws) => {
                    if let Some(answer) = answers.get_mut(at) {
                        *answer = Some(Answer::Wrong(flaws));
                    }
                }
            }
        }
        let mut pending = Vec::new();
        for (lane, (places, events)) in self.lanes.iter().zip(of_slots) {
            if !events.is_empty() {
                pending.push((places, lane.ask(events, &room)?));
            }
        }
        for (places, told) in pending {
            let told = told.await.map_err(|_| Unanswered::Ending)??;
            for (at, told) in places.into_iter().zip(told) {
                if let Some(answer) = answers.get_mut(at) {
                    *answer = Some(Answer::Told(Box::new(told)));
                }
            }
        }
        // A lane answers all of a question or none.
        answers.into_iter().collect::<Option<_>>().ok_or(Unanswered::Ending)
    }

    /// An event with how it is counted and where, unless its meter does not take it.
    fn place(&self, event: Checked, received: Timestamp) -> Result<Placed, Flaws> {
        let counting = self.instance.meters.table().admit(&event.series);
        let counting = counting.map_err(|reason| Flaws::of_meter(reason, &event.series))?;
        let window = self.instance.window;
        let ahead = received.checked_add(self.instance.config.events.clock_skew_max_ms.duration());
        // A clock that is ahead must not choose the window; the ledger refuses what is too far ahead.
        let time = event.time.filter(|time| ahead.is_none_or(|ahead| *time <= ahead)).unwrap_or(received);
        let (window_start, received_window) = (window.floor(time), window.floor(received));
        Ok(Placed { event, counting, window_start, received_window })
    }
}

/// The stable reason of an answer that is not a record; nothing of one that is.
pub(crate) fn reason_of(answer: &ledger::EventAnswer) -> &str {
    match answer.outcome() {
        ledger::EventOutcome::Conflict => reason::EVENT_ID_CONFLICT,
        ledger::EventOutcome::Refused if answer.refused_reason.is_empty() => core_reason::EVENT_TIME_TOO_OLD,
        ledger::EventOutcome::Refused => &answer.refused_reason,
        ledger::EventOutcome::Recorded
        | ledger::EventOutcome::Elsewhere
        | ledger::EventOutcome::Unspecified => "",
    }
}
