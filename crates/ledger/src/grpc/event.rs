//! `EventService`.

use std::sync::Arc;

use drawdown_proto::{
    ledger::v1::{
        EventAnswer, EventOutcome, NamedUsage, RecordEventsRequest, RecordEventsResponse,
        event_service_server::EventService,
    },
    scalar::timestamp_to_proto,
};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{decode_event, status};
use crate::{error::Error, posting::Verdict, reason, service::Ledger, store::events::Fate};

/// `EventService` over a ledger.
#[derive(Clone)]
pub struct Events(Arc<Ledger>);

impl Events {
    /// Serves this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>) -> Self {
        Self(ledger)
    }
}

fn answer(verdict: &Verdict, claims: &[Vec<u8>]) -> Result<EventAnswer, Error> {
    let refused = |reason: &str, bound| EventAnswer {
        outcome: EventOutcome::Refused.into(),
        refused_reason: reason.to_owned(),
        time_bound: Some(timestamp_to_proto(bound)),
        ..EventAnswer::default()
    };
    Ok(match verdict {
        Verdict::Recorded { kept, already } => {
            let (charge_id, unattributed_reason) = match kept.fate {
                Fate::Charged(charge) => (charge.to_string(), String::new()),
                Fate::Left(reason) => (String::new(), reason.as_str().to_owned()),
            };
            EventAnswer {
                outcome: EventOutcome::Recorded.into(),
                already_recorded: *already,
                recorded_at: Some(timestamp_to_proto(kept.recorded_at)),
                window_start: Some(timestamp_to_proto(kept.window)),
                charge_id,
                unattributed_reason,
                ..EventAnswer::default()
            }
        }
        // Of another content nothing is told but that it is there: whoever knows an id need not know its usage.
        Verdict::Conflict { since } => EventAnswer {
            outcome: EventOutcome::Conflict.into(),
            recorded_at: Some(timestamp_to_proto(*since)),
            ..EventAnswer::default()
        },
        Verdict::Elsewhere { claim } => {
            let usage = claims.get(*claim).map_or(&[][..], |usage| &usage[..]);
            let claimed = NamedUsage::decode(usage).map_err(|error| Error::stored("usage")(error.into()))?;
            let outcome = EventOutcome::Elsewhere.into();
            EventAnswer { outcome, claimed: Some(claimed), ..EventAnswer::default() }
        }
        Verdict::TooOld { bound } => refused(reason::EVENT_TIME_TOO_OLD, *bound),
        Verdict::InFuture { bound } => refused(reason::EVENT_TIME_IN_FUTURE, *bound),
    })
}

#[tonic::async_trait]
impl EventService for Events {
    async fn record_events(
        &self,
        request: Request<RecordEventsRequest>,
    ) -> Result<Response<RecordEventsResponse>, Status> {
        let (size, events_max) = (self.0.settings.window_size, self.0.events().per_call_max);
        let call = decode_event::recording(request.get_ref(), (size, &self.0.cells), events_max)?;
        drop(request);
        let recorded = self.0.record(&call).await.map_err(|error| status::of_post(error, &self.0.metrics))?;
        let answers = recorded.verdicts.iter().map(|verdict| answer(verdict, &recorded.claims));
        let answers =
            answers.collect::<Result<_, _>>().map_err(|error| status::of(error, &self.0.metrics))?;
        Ok(Response::new(RecordEventsResponse { answers }))
    }
}
