//! Events by id, as a naive ledger keeps them: the first one counts.

use std::{collections::BTreeMap, sync::Arc};

use drawdown_proto::ledger::v1::{
    EventAnswer, EventOutcome, NamedUsage, RecordEventsRequest, RecordEventsResponse,
    event_service_server::EventService, line,
};
use drawdown_types::{EventName, HoldId};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::{
    gate::{Gate, Mode},
    rig::now,
};

/// (client id, meter, failed) → (events, quantity).
pub(crate) type Sums = BTreeMap<(String, String, bool), (u64, i64)>;

/// What is recorded.
#[derive(Default)]
pub(crate) struct Book {
    events: BTreeMap<(String, String), (Vec<u8>, EventAnswer)>,
    pub(crate) sums: Sums,
    /// What is claimed for other cells, as it was sent first.
    pub(crate) claims: BTreeMap<(String, String), NamedUsage>,
    /// Events of each call that came.
    pub(crate) calls: Vec<usize>,
    /// Calls that are held back, one permit each.
    pub(crate) held: Option<Arc<Semaphore>>,
    /// Refuse calls that name this id.
    pub(crate) poison: Option<String>,
}

impl Book {
    fn record(&mut self, event: &NamedUsage, own: u32) -> EventAnswer {
        let usage = event.usage.as_ref().unwrap();
        assert_eq!((usage.events, event.content_digest.len()), (1, 32));
        let key = (event.source.clone(), event.id.clone());
        if let Some((content, first)) = self.events.get(&key) {
            let same = *content == event.content_digest;
            return if same {
                EventAnswer { already_recorded: true, ..first.clone() }
            } else {
                EventAnswer {
                    outcome: EventOutcome::Conflict.into(),
                    recorded_at: first.recorded_at,
                    ..EventAnswer::default()
                }
            };
        }
        if own != 0 {
            assert_eq!(event.cell, own, "events of another cell");
        } else if event.cell != 0 || self.claims.contains_key(&key) {
            let claimed = self.claims.entry(key).or_insert_with(|| event.clone());
            let same = claimed.content_digest == event.content_digest;
            let outcome = if same { EventOutcome::Elsewhere } else { EventOutcome::Conflict };
            let claimed = same.then(|| claimed.clone());
            return EventAnswer { outcome: outcome.into(), claimed, ..EventAnswer::default() };
        }
        let quantity = match usage.state.as_ref().unwrap() {
            line::State::Sum(sum) => sum.quantity,
            _ => 1,
        };
        let sum = self.sums.entry((usage.client_id.clone(), usage.meter.clone(), usage.failed)).or_default();
        *sum = (sum.0 + 1, sum.1 + quantity);
        let unattributed_reason = match usage.attribution.as_ref().unwrap() {
            line::Attribution::UnattributedReason(reason) => reason.clone(),
            line::Attribution::Payer(_) => String::new(),
        };
        let answer = EventAnswer {
            outcome: EventOutcome::Recorded.into(),
            recorded_at: Some(drawdown_proto::scalar::timestamp_to_proto(now())),
            window_start: usage.window_start,
            charge_id: if unattributed_reason.is_empty() { "chg_1".to_owned() } else { String::new() },
            unattributed_reason,
            ..EventAnswer::default()
        };
        self.events.insert(key, (event.content_digest.clone(), answer.clone()));
        answer
    }
}

#[tonic::async_trait]
impl EventService for Gate {
    async fn record_events(
        &self,
        request: Request<RecordEventsRequest>,
    ) -> Result<Response<RecordEventsResponse>, Status> {
        let request = request.into_inner();
        let held = self.book().held.clone();
        if let Some(held) = held {
            held.acquire().await.unwrap().forget();
        }
        let (mode, own) = (self.mode(), self.state().cell);
        if matches!(mode, Mode::Down | Mode::Gone) {
            return Err(Status::unavailable("the test says so"));
        }
        let mut book = self.book();
        book.calls.push(request.events.len());
        if request.events.iter().any(|event| Some(&event.id) == book.poison.as_ref()) {
            return Err(Status::invalid_argument("the test says so"));
        }
        for event in &request.events {
            let name = EventName { source: event.source.parse().unwrap(), id: event.id.parse().unwrap() };
            assert_eq!(name.slot(), request.slot);
            let usage = event.usage.as_ref().unwrap();
            assert!(usage.hold_id.is_empty() || usage.hold_id.parse::<HoldId>().is_ok());
        }
        let answers = request.events.iter().map(|event| book.record(event, own)).collect();
        if mode == Mode::ReplyLost {
            return Err(Status::unavailable("the reply is lost"));
        }
        Ok(Response::new(RecordEventsResponse { answers }))
    }
}
