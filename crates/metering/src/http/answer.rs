//! Answers over HTTP: nothing where all is well, else a problem that names each event that is not recorded.

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::Response,
};
use drawdown_metering_core::fault::FieldFault;
use drawdown_proto::{ledger::v1::EventOutcome, scalar::timestamp_from_proto};
use drawdown_service::refusal::chain;
use serde_json::{Value, json};

use super::read::{Called, wants_answers};
use crate::{
    grpc::Problem as _,
    reason,
    record::{Answer, Unanswered, reason_of},
};

const PROBLEM: &str = "application/problem+json";
const JSON: &str = "application/json";

/// A call that is not answered with 2xx.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) reason: &'static str,
    pub(super) detail: String,
    /// Each event that is not recorded, with its place.
    events: Vec<Value>,
    /// How many of the call are recorded.
    recorded: usize,
}

// === impl Problem ===

impl Problem {
    fn new(status: StatusCode, reason: &'static str, detail: impl Into<String>) -> Box<Self> {
        Box::new(Self { status, reason, detail: detail.into(), events: Vec::new(), recorded: 0 })
    }

    pub(super) fn bad(reason: &'static str, detail: impl Into<String>) -> Box<Self> {
        Self::new(StatusCode::BAD_REQUEST, reason, detail)
    }

    pub(super) fn media(detail: &str) -> Box<Self> {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason::CONTENT_TYPE_UNKNOWN, detail)
    }

    pub(super) fn busy(reason: &'static str, detail: impl Into<String>) -> Box<Self> {
        Self::new(StatusCode::TOO_MANY_REQUESTS, reason, detail)
    }

    pub(super) fn late() -> Box<Self> {
        let why = "the call took longer than it may; repeat it as it was";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, drawdown_service::reason::UNAVAILABLE, why)
    }

    pub(super) fn too_large(max: usize) -> Box<Self> {
        let why = format!("the body has more than {max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, reason::MESSAGE_TOO_LARGE, why)
    }

    pub(super) fn unanswered(why: Unanswered) -> Box<Self> {
        match &why {
            Unanswered::Shed => Self::busy(reason::EVENTS_WAITING, why.to_string()),
            Unanswered::Late | Unanswered::Ending => Self::late(),
            Unanswered::Peer(error) => {
                let transient = error.is_transient();
                tracing::warn!(error.chain = %chain(&why.into()), "events by id were not recorded");
                if transient {
                    Self::late()
                } else {
                    let why = "the service failed; the cause is in its log";
                    Self::new(StatusCode::INTERNAL_SERVER_ERROR, drawdown_service::reason::INTERNAL, why)
                }
            }
        }
    }

    pub(super) fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("refused");
        let body = json!({
            "type": "about:blank", "title": title, "status": self.status.as_u16(), "reason": self.reason,
            "detail": self.detail, "recorded": self.recorded, "events": self.events,
        });
        let mut response = with_body(self.status, PROBLEM, &body);
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            let secs = crate::record::RETRY_AFTER.as_secs();
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(secs));
        }
        response
    }
}

fn with_body(status: StatusCode, kind: &'static str, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The answer to a call whose events were all looked at.
pub(super) fn answered(
    headers: &HeaderMap,
    called: &[Called],
    answers: Vec<Answer>,
) -> Result<Response, Box<Problem>> {
    let count = answers.len();
    let (mut events, mut refused, mut reason) = (Vec::new(), false, reason::EVENT_ID_CONFLICT);
    for ((index, answer), called) in answers.iter().enumerate().zip(called) {
        match told(answer) {
            Told { outcome: "recorded", .. } => {}
            told => {
                if told.outcome == "refused" && !refused {
                    (refused, reason) = (true, reason::EVENT_INVALID);
                }
                events.push(told.listed(index, called));
            }
        }
    }
    if !events.is_empty() {
        let recorded = count.saturating_sub(events.len());
        let detail = format!("{} of {count} events are not recorded; the others are", events.len());
        let status = if refused { StatusCode::BAD_REQUEST } else { StatusCode::CONFLICT };
        return Err(Box::new(Problem { status, reason, detail, events, recorded }));
    }
    if !wants_answers(headers) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    let all = answers.iter().enumerate().zip(called);
    let all: Vec<_> = all.map(|((index, answer), called)| told(answer).listed(index, called)).collect();
    let mut response = with_body(StatusCode::OK, JSON, &json!({ "events": all }));
    response.headers_mut().insert("preference-applied", HeaderValue::from_static("return=representation"));
    Ok(response)
}

/// What is told of an event.
struct Told {
    outcome: &'static str,
    members: Vec<(&'static str, Value)>,
}

impl Told {
    fn listed(self, index: usize, called: &Called) -> Value {
        let named = [
            ("index", json!(index)),
            ("source", json!(called.source)),
            ("id", json!(called.id)),
            ("outcome", json!(self.outcome)),
        ];
        let members = named.into_iter().chain(self.members).map(|(name, value)| (name.to_owned(), value));
        Value::Object(members.collect())
    }
}

fn told(answer: &Answer) -> Told {
    let problem = |FieldFault { field, description }: &FieldFault| json!({ "field": field, "description": description });
    let told = match answer {
        Answer::Wrong(flaws) => {
            let problems = flaws.fields.iter().map(problem).collect();
            return Told {
                outcome: "refused",
                members: vec![("reason", json!(flaws.reason)), ("problems", problems)],
            };
        }
        Answer::Told(told) => told,
    };
    let instant = |at: Option<prost_types::Timestamp>| {
        at.and_then(|at| timestamp_from_proto(&at).ok()).map_or(Value::Null, |at| json!(at.to_string()))
    };
    match told.outcome() {
        EventOutcome::Recorded => {
            let mut members = vec![
                ("already_recorded", json!(told.already_recorded)),
                ("recorded_at", instant(told.recorded_at)),
                ("window_start", instant(told.window_start)),
            ];
            members.push(match told.unattributed_reason.as_str() {
                "" => ("charge_id", json!(told.charge_id)),
                reason => ("unattributed_reason", json!(reason)),
            });
            Told { outcome: "recorded", members }
        }
        outcome @ (EventOutcome::Conflict
        | EventOutcome::Refused
        | EventOutcome::Elsewhere
        | EventOutcome::Unspecified) => {
            let conflict = outcome == EventOutcome::Conflict;
            let problems = told.problem().iter().map(problem).collect();
            let mut members = vec![("reason", json!(reason_of(told))), ("problems", problems)];
            if conflict {
                members.push(("recorded_at", instant(told.recorded_at)));
            }
            Told { outcome: if conflict { "conflict" } else { "refused" }, members }
        }
    }
}
