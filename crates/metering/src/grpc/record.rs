//! `RecordService`: events by id, in messages of ours and as `CloudEvents`.

use std::sync::Arc;

use drawdown_metering_core::{fault::FieldFault, series::SeriesParts};
use drawdown_proto::{
    ledger::v1::{EventAnswer, EventOutcome},
    metering::v1::{self as wire, RecordedUsage},
    scalar::timestamp_from_proto,
};
use drawdown_service::{Code, Refusal, refusal};
use tonic::Status;

use crate::{
    cloud, reason,
    record::{Answer, Checked, Fields, Flaws, RETRY_AFTER, Recorder, Sent, Unanswered, reason_of},
};

/// The service.
#[derive(Clone)]
pub(crate) struct Record {
    recorder: Arc<Recorder>,
}

impl Record {
    pub(crate) const fn new(recorder: Arc<Recorder>) -> Self {
        Self { recorder }
    }

    /// The most events of one call.
    pub(super) fn events_max(&self) -> usize {
        self.recorder.events_max()
    }

    async fn answers(&self, sent: Vec<Result<Checked, Flaws>>) -> Result<Vec<RecordedUsage>, Status> {
        let answers = self.recorder.record(sent).await.map_err(unanswered)?;
        Ok(answers.into_iter().map(answer).collect())
    }
}

/// A call without answers.
fn unanswered(why: Unanswered) -> Status {
    match why {
        Unanswered::Shed => Refusal::new(Code::ResourceExhausted, reason::EVENTS_WAITING, why.to_string())
            .retry_after(RETRY_AFTER)
            .into(),
        Unanswered::Late | Unanswered::Ending => refusal::unavailable(why),
        Unanswered::Peer(error) if error.is_transient() => refusal::unavailable(Unanswered::Peer(error)),
        Unanswered::Peer(_) => refusal::internal(why),
    }
}

fn answer(answer: Answer) -> RecordedUsage {
    match answer {
        Answer::Wrong(flaws) => RecordedUsage {
            outcome: wire::RecordOutcome::Refused.into(),
            reason: flaws.reason.to_owned(),
            problems: flaws.fields.into_iter().map(problem).collect(),
            ..RecordedUsage::default()
        },
        Answer::Told(told) => self::told(*told),
    }
}

fn problem(FieldFault { field, description }: FieldFault) -> wire::FieldProblem {
    wire::FieldProblem { field, description }
}

fn told(told: EventAnswer) -> RecordedUsage {
    let outcome = match told.outcome() {
        EventOutcome::Recorded => wire::RecordOutcome::Recorded,
        EventOutcome::Conflict => wire::RecordOutcome::Conflict,
        EventOutcome::Refused | EventOutcome::Elsewhere | EventOutcome::Unspecified => {
            wire::RecordOutcome::Refused
        }
    };
    let problem = told.problem();
    RecordedUsage {
        outcome: outcome.into(),
        already_recorded: told.already_recorded,
        reason: reason_of(&told).to_owned(),
        problems: problem.into_iter().map(self::problem).collect(),
        recorded_at: told.recorded_at,
        window_start: told.window_start,
        charge_id: told.charge_id,
        unattributed_reason: told.unattributed_reason,
    }
}

/// What is wrong with an event that the ledger did not record.
pub(crate) trait Problem {
    /// The field, unless it is recorded.
    fn problem(&self) -> Option<FieldFault>;
}

impl Problem for EventAnswer {
    fn problem(&self) -> Option<FieldFault> {
        let bound = || {
            let bound = self.time_bound.as_ref().and_then(|bound| timestamp_from_proto(bound).ok());
            bound.map_or_else(|| "the bound".to_owned(), |bound| bound.to_string())
        };
        match self.outcome() {
            EventOutcome::Recorded => None,
            EventOutcome::Conflict => {
                Some(FieldFault::new("id", "is recorded with another content, which stays"))
            }
            EventOutcome::Refused | EventOutcome::Elsewhere | EventOutcome::Unspecified => {
                let side = if reason_of(self) == crate::record::IN_FUTURE { "after" } else { "before" };
                Some(FieldFault::new("time", format!("is {side} {}", bound())))
            }
        }
    }
}

/// An event of ours.
fn sent(event: &wire::UsageEvent) -> Result<Checked, Flaws> {
    let mut flaws = Vec::new();
    let time = event.time.as_ref().and_then(|time| match timestamp_from_proto(time) {
        Ok(time) => Some(time),
        Err(error) => {
            flaws.push(FieldFault::new("time", error.to_string()));
            None
        }
    });
    let series = event.series.as_ref().map(|series| SeriesParts {
        client_id: series.client_id.as_bytes(),
        meter: series.meter.as_bytes(),
        outcome: u64::try_from(series.outcome).unwrap_or(u64::MAX),
        dimensions: series
            .dimensions
            .iter()
            .map(|dimension| (dimension.name.as_bytes(), dimension.value.as_bytes()))
            .collect(),
        hold_id: series.hold_id.as_bytes(),
    });
    let series = series.unwrap_or_default();
    Sent { source: &event.source, id: &event.id, series, quantity: event.quantity, time }
        .check(Fields::OURS, flaws)
}

/// Events were counted where the message was read.
impl Record {
    pub(super) async fn record_usage(
        &self,
        request: wire::RecordUsageRequest,
    ) -> Result<wire::RecordUsageResponse, Status> {
        let answers = self.answers(request.events.iter().map(sent).collect()).await?;
        Ok(wire::RecordUsageResponse { answers })
    }

    pub(super) async fn record_cloud_events(
        &self,
        request: wire::RecordCloudEventsRequest,
    ) -> Result<wire::RecordCloudEventsResponse, Status> {
        let events = request.batch.unwrap_or_default().events;
        let answers = self.answers(events.iter().map(cloud::of_message).collect()).await?;
        Ok(wire::RecordCloudEventsResponse { answers })
    }
}
