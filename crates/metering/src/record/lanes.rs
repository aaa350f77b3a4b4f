//! One lane a slot: whatever has come while a post was under way goes with the next one.
//!
//! The ledger works off a slot one post after the other, so a second post at once would only wait there. A lane asks who
//! pays for all of a post in one question. What the ledger refuses as a whole is tried call by call, so that nobody waits
//! for the fault of another.
//!
//! With several cells the leading ledger answers first. What it claimed for another cell is recorded there by a task
//! of its own: a cell that is down keeps those waiting who wait for it, and no next post. Such tasks are bounded as
//! calls are, by the room that each holds.

use std::{collections::BTreeMap, sync::Arc};

use drawdown_metering_core::{meter::Counting, series::Outcome};
use drawdown_proto::{
    ledger::v1::{
        CountState, EventAnswer, EventOutcome, Line, MaxState, NamedUsage, RecordEventsRequest, SumState,
        UniqueState, line::State,
    },
    scalar::timestamp_to_proto,
};
use drawdown_types::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Checked, RecordMetrics, Unanswered};
use crate::{
    config::RecordOptions,
    peer::{self, Events, Question, Resolved, Resolver},
};

/// An event on its way to the ledger.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) event: Checked,
    pub(super) counting: Counting,
    pub(super) window_start: Timestamp,
    pub(super) received_window: Timestamp,
}

/// All answers to the events of one call in one slot, or why there are none.
type Told = Result<Vec<EventAnswer>, Arc<peer::Error>>;

struct Asked {
    events: Vec<Placed>,
    answer: oneshot::Sender<Told>,
    /// Held as long as the events are, also where their caller has gone away.
    _room: Arc<OwnedSemaphorePermit>,
}

/// Where calls put their events of a slot.
pub(super) struct Lane(mpsc::Sender<Asked>);

impl Lane {
    pub(super) fn start(
        slot: u32,
        (resolver, events, metrics): (&Arc<Resolver>, &Events, &Arc<RecordMetrics>),
        options: &RecordOptions,
        parts: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (sender, asked) = mpsc::channel(options.calls_per_slot_max.get());
        let poster = Poster {
            slot,
            metrics: Arc::clone(metrics),
            resolver: Arc::clone(resolver),
            events: events.clone(),
            events_max: options.events_per_post_max.get(),
            parts: parts.clone(),
            stop: stop.clone(),
        };
        parts.spawn(stop.clone().run_until_cancelled_owned(poster.run(asked)));
        Self(sender)
    }

    /// Queues events; the answer comes when they are settled.
    pub(super) fn ask(
        &self,
        events: Vec<Placed>,
        room: &Arc<OwnedSemaphorePermit>,
    ) -> Result<oneshot::Receiver<Told>, Unanswered> {
        let (answer, told) = oneshot::channel();
        self.0.try_send(Asked { events, answer, _room: Arc::clone(room) }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unanswered::Shed,
            mpsc::error::TrySendError::Closed(_) => Unanswered::Ending,
        })?;
        Ok(told)
    }
}

struct Poster {
    slot: u32,
    metrics: Arc<RecordMetrics>,
    resolver: Arc<Resolver>,
    events: Events,
    events_max: usize,
    parts: TaskTracker,
    stop: CancellationToken,
}

impl Poster {
    async fn run(self, mut asked: mpsc::Receiver<Asked>) {
        let mut next = None;
        loop {
            let first = match next.take() {
                Some(first) => first,
                None => match asked.recv().await {
                    Some(first) => first,
                    None => return,
                },
            };
            let mut events = first.events.len();
            let mut calls = vec![first];
            while let Ok(more) = asked.try_recv() {
                events = events.saturating_add(more.events.len());
                if events > self.events_max {
                    next = Some(more);
                    break;
                }
                calls.push(more);
            }
            // Who has gone away asks again, or not: nothing of it is recorded yet.
            calls.retain(|call| !call.answer.is_closed());
            self.answer(calls).await;
        }
    }

    async fn answer(&self, calls: Vec<Asked>) {
        let all: Vec<&Placed> = calls.iter().flat_map(|call| &call.events).collect();
        if all.is_empty() {
            return;
        }
        match self.post(&all).await {
            Ok(mut told) => {
                for call in calls {
                    let rest = told.split_off(call.events.len().min(told.len()));
                    self.tell(call, std::mem::replace(&mut told, rest));
                }
            }
            Err(error) if !error.is_transient() && calls.len() > 1 => {
                for call in calls {
                    let events: Vec<&Placed> = call.events.iter().collect();
                    match self.post(&events).await {
                        Ok(told) => self.tell(call, told),
                        Err(error) => drop(call.answer.send(Err(Arc::new(error)))),
                    }
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for call in calls {
                    drop(call.answer.send(Err(Arc::clone(&error))));
                }
            }
        }
    }

    /// Answers a call, at once or when other cells have recorded what the leading ledger claimed for them. Whoever does
    /// not wait any more does not need it.
    fn tell(&self, call: Asked, told: Vec<EventAnswer>) {
        if told.iter().all(|answer| answer.outcome() != EventOutcome::Elsewhere) {
            drop(call.answer.send(Ok(told)));
            return;
        }
        let (slot, events, metrics) = (self.slot, self.events.clone(), Arc::clone(&self.metrics));
        self.parts.spawn(self.stop.clone().run_until_cancelled_owned(async move {
            let told = elsewhere(slot, (&events, &metrics), told).await.map_err(Arc::new);
            drop(call.answer.send(told));
        }));
    }

    async fn post(&self, events: &[&Placed]) -> Result<Vec<EventAnswer>, peer::Error> {
        let question =
            |placed: &&Placed| -> Question { (placed.event.series.client_id().clone(), placed.window_start) };
        let payers = self.resolver.resolve(events.iter().map(question)).await?;
        let named = events.iter().map(|placed| {
            let payer = payers.get(&question(placed));
            let payer = payer.ok_or_else(|| {
                peer::Error::answer("entitlement", "BatchResolve", "a question has no answer")
            })?;
            Ok(named(placed, payer.clone()))
        });
        let request =
            RecordEventsRequest { slot: self.slot, events: named.collect::<Result<_, peer::Error>>()? };
        let started = tokio::time::Instant::now();
        let told = self.events.record(request).await;
        self.metrics.post(events.len(), started.elapsed(), told.is_ok());
        told
    }
}

/// Has other cells record what was claimed for them, each in the order of the call, and puts their answers in its place.
async fn elsewhere(
    slot: u32,
    (events, metrics): (&Events, &RecordMetrics),
    mut told: Vec<EventAnswer>,
) -> Result<Vec<EventAnswer>, peer::Error> {
    let mut of_cells: BTreeMap<u32, (Vec<usize>, Vec<NamedUsage>)> = BTreeMap::new();
    for (at, answer) in told.iter_mut().enumerate() {
        if let Some(claimed) = answer.claimed.take() {
            let (places, events) = of_cells.entry(claimed.cell).or_default();
            places.push(at);
            events.push(claimed);
        }
    }
    for (cell, (places, claimed)) in of_cells {
        let (count, started) = (claimed.len(), tokio::time::Instant::now());
        let theirs = events.record_in(cell, RecordEventsRequest { slot, events: claimed }).await;
        metrics.post(count, started.elapsed(), theirs.is_ok());
        let theirs = theirs?;
        if theirs.iter().any(|answer| answer.outcome() == EventOutcome::Elsewhere) {
            let detail = "an event is claimed for a cell that claims it for another one";
            return Err(peer::Error::answer("ledger", "RecordEvents", detail));
        }
        for (at, answer) in places.into_iter().zip(theirs) {
            if let Some(told) = told.get_mut(at) {
                *told = answer;
            }
        }
    }
    Ok(told)
}

fn named(placed: &Placed, Resolved { attribution, cell }: Resolved) -> NamedUsage {
    let Checked { name, series, quantity, time, content } = &placed.event;
    // The counted dimension of a unique meter is no part of what is charged.
    let counted = match placed.counting {
        Counting::Unique(at) => Some(usize::from(at)),
        Counting::Sum | Counting::Count | Counting::Max => None,
    };
    let dimensions = series.dimensions().iter().enumerate().filter(|(at, _)| Some(*at) != counted);
    let dimensions = dimensions.map(|(_, (name, value))| (name.to_string(), value.to_string())).collect();
    let state = match placed.counting {
        Counting::Sum => State::Sum(SumState { quantity: *quantity }),
        Counting::Count => State::Count(CountState {}),
        Counting::Max => State::Max(MaxState { value: *quantity }),
        Counting::Unique(at) => {
            let value = series.dimensions().get(usize::from(at));
            State::Unique(UniqueState {
                values: value.map(|(_, value)| value.as_bytes().to_vec()).into_iter().collect(),
            })
        }
    };
    let usage = Line {
        client_id: series.client_id().to_string(),
        meter: series.meter().to_string(),
        failed: series.outcome() == Outcome::Failed,
        dimensions,
        hold_id: series.hold_id().map(|id| id.to_string()).unwrap_or_default(),
        window_start: Some(timestamp_to_proto(placed.window_start)),
        received_window_start: Some(timestamp_to_proto(placed.received_window)),
        events: 1,
        state: Some(state),
        attribution: Some(attribution),
    };
    NamedUsage {
        source: name.source.to_string(),
        id: name.id.to_string(),
        content_digest: content.to_vec(),
        time: time.map(timestamp_to_proto),
        usage: Some(usage),
        cell: cell.into(),
    }
}
