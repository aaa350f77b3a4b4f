//! What lanes post: events to the leading ledger, and what that one has claimed for other cells to these.
//!
//! The ledger works off a slot one post after the other, so a second post at once would only wait there. A lane asks who
//! pays for all of a post in one question.
//!
//! With several cells the leading ledger answers first. What it claimed for another cell goes into a lane of that cell,
//! where a call waits beside others; its own task puts the answers together. So a cell that is down keeps those waiting
//! who wait for it, and no next post of others. Such tasks are bounded as calls are, by the room that each holds.

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
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Checked, RecordMetrics, Unanswered,
    lanes::{Asked, Lane, Post, Told},
};
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

/// What posts need.
#[derive(Clone)]
pub(super) struct Posts {
    pub(super) resolver: Arc<Resolver>,
    pub(super) events: Events,
    pub(super) metrics: Arc<RecordMetrics>,
    pub(super) parts: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// Events of one slot, for the leading ledger.
struct Leading {
    slot: u32,
    posts: Posts,
    /// By cell: what is claimed for it.
    others: Arc<BTreeMap<u32, Lane<NamedUsage>>>,
}

/// What is claimed of one slot for another cell.
struct Claimed {
    slot: u32,
    cell: u32,
    posts: Posts,
}

impl Posts {
    /// Begins the lane of a slot, and those of it to other cells.
    pub(super) fn start(&self, slot: u32, options: &RecordOptions) -> Lane<Placed> {
        let others = self.events.cells().map(u32::from);
        let others =
            others.map(|cell| (cell, self.lane(Claimed { slot, cell, posts: self.clone() }, options)));
        let others = Arc::new(others.collect());
        self.lane(Leading { slot, posts: self.clone(), others }, options)
    }

    fn lane<P: Post>(&self, post: P, options: &RecordOptions) -> Lane<P::Event> {
        let (lane, worker) = Lane::new(post, options);
        self.parts.spawn(self.stop.clone().run_until_cancelled_owned(worker));
        lane
    }

    async fn timed(
        &self,
        events: usize,
        call: impl Future<Output = Result<Vec<EventAnswer>, peer::Error>>,
    ) -> Result<Vec<EventAnswer>, peer::Error> {
        let started = tokio::time::Instant::now();
        let told = call.await;
        self.metrics.post(events, started.elapsed(), told.is_ok());
        told
    }
}

impl Post for Leading {
    type Event = Placed;

    async fn post(&self, events: &[&Placed]) -> Result<Vec<EventAnswer>, peer::Error> {
        let question =
            |placed: &&Placed| -> Question { (placed.event.series.client_id().clone(), placed.window_start) };
        let payers = self.posts.resolver.resolve(events.iter().map(question)).await?;
        let named = events.iter().map(|placed| {
            let payer = payers.get(&question(placed));
            let payer = payer.ok_or_else(|| {
                peer::Error::answer("entitlement", "BatchResolve", "a question has no answer")
            })?;
            Ok(named(placed, payer.clone()))
        });
        let request =
            RecordEventsRequest { slot: self.slot, events: named.collect::<Result<_, peer::Error>>()? };
        self.posts.timed(events.len(), self.posts.events.record(request)).await
    }

    /// At once, or when other cells have recorded what the leading ledger claimed for them.
    fn tell(&self, call: Asked<Placed>, told: Vec<EventAnswer>) {
        if told.iter().all(|answer| answer.outcome() != EventOutcome::Elsewhere) {
            call.tell(Ok(told));
            return;
        }
        let others = Arc::clone(&self.others);
        self.posts.parts.spawn(self.posts.stop.clone().run_until_cancelled_owned(async move {
            let told = elsewhere(&others, call.room(), told).await;
            call.tell(told);
        }));
    }
}

impl Post for Claimed {
    type Event = NamedUsage;

    async fn post(&self, events: &[&NamedUsage]) -> Result<Vec<EventAnswer>, peer::Error> {
        let claimed = events.iter().map(|event| (*event).clone()).collect();
        let request = RecordEventsRequest { slot: self.slot, events: claimed };
        let told = self.posts.timed(events.len(), self.posts.events.record_in(self.cell, request)).await?;
        if told.iter().any(|answer| answer.outcome() == EventOutcome::Elsewhere) {
            let detail = "an event is claimed for a cell that claims it for another one";
            return Err(peer::Error::answer("ledger", "RecordEvents", detail));
        }
        Ok(told)
    }

    fn tell(&self, call: Asked<NamedUsage>, told: Vec<EventAnswer>) {
        call.tell(Ok(told));
    }
}

/// Has other cells record what was claimed for them, each in the order of the call, and puts their answers in its place.
async fn elsewhere(
    others: &BTreeMap<u32, Lane<NamedUsage>>,
    room: &Arc<OwnedSemaphorePermit>,
    mut told: Vec<EventAnswer>,
) -> Told {
    let mut of_cells: BTreeMap<u32, (Vec<usize>, Vec<NamedUsage>)> = BTreeMap::new();
    for (at, answer) in told.iter_mut().enumerate() {
        if let Some(claimed) = answer.claimed.take() {
            let (places, events) = of_cells.entry(claimed.cell).or_default();
            places.push(at);
            events.push(claimed);
        }
    }
    let mut pending = Vec::new();
    for (cell, (places, claimed)) in of_cells {
        let lane = others.get(&cell).ok_or_else(|| {
            let detail = format!("cell {cell} is not one of the settings");
            Unanswered::Peer(Arc::new(peer::Error::answer("ledger", "RecordEvents", detail)))
        })?;
        pending.push((places, lane.ask(claimed, room)?));
    }
    for (places, theirs) in pending {
        let theirs = theirs.await.map_err(|_| Unanswered::Ending)??;
        for (at, theirs) in places.into_iter().zip(theirs) {
            if let Some(told) = told.get_mut(at) {
                *told = theirs;
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
