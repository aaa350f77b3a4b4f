//! `CloudEvents` 1.0 over HTTP: `POST /v1/events`, and the same at `/api/v1/events`, where clients of OpenMeter send to.
//!
//! Shape: read the body within its limit, find the mode by the content type, turn what came into events with their flaws,
//! record, answer. A call is answered when the ledger has settled what it recorded: 204, or 200 with an answer for each
//! event where the caller prefers that. Where an event of it is not recorded the answer is a problem (RFC 9457) that lists
//! each of those by its place; the others are recorded all the same, and the call may be repeated as it was.

mod answer;
mod read;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Request},
    response::Response,
    routing::post,
};
use bytes::BytesMut;
use drawdown_service::json::OwnPaths;
use futures::StreamExt as _;
use tokio::sync::Semaphore;

use self::answer::{Problem, answered};
use crate::{config::RecordOptions, reason, record::Recorder};

/// What a handler needs.
#[derive(Clone)]
struct Intake {
    recorder: Arc<Recorder>,
    calls: Arc<Semaphore>,
    call_bytes_max: usize,
    /// A body and its answers together.
    call_time_max: Duration,
}

/// Where events come in, and what each call is for the layers of the server.
pub(crate) const PATHS: OwnPaths = OwnPaths {
    paths: &["/v1/events", "/api/v1/events"],
    stand_for: "/drawdown.metering.v1.RecordService/RecordCloudEvents",
};

/// Takes events; the server around it drains.
pub(crate) fn router(recorder: Arc<Recorder>, options: &RecordOptions, call_time_max: Duration) -> Router {
    let intake = Intake {
        recorder,
        calls: Arc::new(Semaphore::new(options.http_calls_max.get().min(Semaphore::MAX_PERMITS))),
        call_bytes_max: options.call_bytes_max.get(),
        call_time_max,
    };
    Router::new().route("/v1/events", post(take)).route("/api/v1/events", post(take)).with_state(intake)
}

async fn take(State(intake): State<Intake>, request: Request<Body>) -> Response {
    let Ok(_call) = intake.calls.clone().try_acquire_owned() else {
        return Problem::busy(reason::EVENTS_WAITING, "as many calls are in hand as may be").into_response();
    };
    let (head, body) = request.into_parts();
    let outcome = tokio::time::timeout(intake.call_time_max, record(&intake, &head.headers, body)).await;
    match outcome {
        Ok(Ok(response)) => response,
        Ok(Err(problem)) => problem.into_response(),
        Err(_) => Problem::late().into_response(),
    }
}

async fn record(intake: &Intake, headers: &HeaderMap, body: Body) -> Result<Response, Box<Problem>> {
    let body = whole(body, intake.call_bytes_max).await?;
    let events = read::events(headers, &body, intake.recorder.events_max())?;
    drop(body);
    let (names, sent): (Vec<_>, Vec<_>) = events.into_iter().unzip();
    let answers = intake.recorder.record(sent).await.map_err(Problem::unanswered)?;
    answered(headers, &names, answers)
}

/// All of a body; no more of one that is too large is read than what shows it.
async fn whole(body: Body, max: usize) -> Result<BytesMut, Box<Problem>> {
    let mut parts = body.into_data_stream();
    let mut whole = BytesMut::new();
    while let Some(part) = parts.next().await {
        let part =
            part.map_err(|_| Problem::bad(reason::MESSAGE_MALFORMED, "the body did not come whole"))?;
        if whole.len().saturating_add(part.len()) > max {
            return Err(Problem::too_large(max));
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole)
}
