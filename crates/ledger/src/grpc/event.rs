//! `EventService`.

use std::sync::Arc;

use drawdown_proto::{
    ledger::v1::{
        EventAnswer, EventOutcome, RecordEventsRequest, RecordEventsResponse,
        event_service_server::EventService,
    },
    scalar::timestamp_to_proto,
};
use drawdown_service::{Code, Refusal};
use tonic::{Request, Response, Status};

use super::{decode_event, status};
use crate::{
    posting::Verdict,
    reason,
    service::Ledger,
    store::events::{Fate, Kept},
};

/// `EventService` over a ledger.
#[derive(Clone)]
pub struct Events(Arc<Ledger>);

impl Events {
    /// Serves this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>) -> Self {
        Self(ledger)
    }

    /// An id is looked up where its money is. With several cells the same event could be charged in two of them: once
    /// when nobody paid for it, once when its app had a team elsewhere.
    fn in_one_cell(&self) -> Result<(), Refusal> {
        if self.0.cells.leads() && self.0.cells.others.is_empty() {
            return Ok(());
        }
        let why = "events by id are not taken where accounts are spread over several cells: send a stream";
        Err(Refusal::new(Code::FailedPrecondition, reason::EVENTS_NEED_ONE_CELL, why))
    }
}

fn answer(verdict: &Verdict) -> EventAnswer {
    let known = |kept: &Kept, outcome: EventOutcome| EventAnswer {
        outcome: outcome.into(),
        recorded_at: Some(timestamp_to_proto(kept.recorded_at)),
        window_start: Some(timestamp_to_proto(kept.window)),
        ..EventAnswer::default()
    };
    let refused = |reason: &str, bound| EventAnswer {
        outcome: EventOutcome::Refused.into(),
        refused_reason: reason.to_owned(),
        time_bound: Some(timestamp_to_proto(bound)),
        ..EventAnswer::default()
    };
    match verdict {
        Verdict::Recorded { kept, already } => {
            let (charge_id, unattributed_reason) = match kept.fate {
                Fate::Charged(charge) => (charge.to_string(), String::new()),
                Fate::Left(reason) => (String::new(), reason.as_str().to_owned()),
            };
            let known = known(kept, EventOutcome::Recorded);
            EventAnswer { already_recorded: *already, charge_id, unattributed_reason, ..known }
        }
        // Of another content nothing is told but that it is there: whoever knows an id need not know its usage.
        Verdict::Conflict(kept) => EventAnswer { window_start: None, ..known(kept, EventOutcome::Conflict) },
        Verdict::TooOld { bound } => refused(reason::EVENT_TIME_TOO_OLD, *bound),
        Verdict::InFuture { bound } => refused(reason::EVENT_TIME_IN_FUTURE, *bound),
    }
}

#[tonic::async_trait]
impl EventService for Events {
    async fn record_events(
        &self,
        request: Request<RecordEventsRequest>,
    ) -> Result<Response<RecordEventsResponse>, Status> {
        self.in_one_cell()?;
        let (size, events_max) = (self.0.settings.window_size, self.0.events().per_call_max);
        let call = decode_event::recording(request.get_ref(), size, events_max)?;
        drop(request);
        let recorded = self.0.record(&call).await.map_err(|error| status::of_post(error, &self.0.metrics))?;
        Ok(Response::new(RecordEventsResponse { answers: recorded.verdicts.iter().map(answer).collect() }))
    }
}
