//! `/metrics` and `/healthz` over plain HTTP.

use std::time::Duration;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Health;
use crate::Telemetry;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers until the signal to stop, and a scrape in hand for at most `drain` longer.
pub(super) async fn serve(
    listener: TcpListener,
    telemetry: Telemetry,
    health: Health,
    stopped: CancellationToken,
    drain: Duration,
) {
    let router = Router::new()
        .route("/metrics", get(metrics).with_state(telemetry))
        .route("/healthz", get(healthz).with_state(health));
    let signal = stopped.clone();
    let serving =
        axum::serve(listener, router).with_graceful_shutdown(async move { signal.cancelled().await });
    // A scraper keeps its connection open without a call in hand: it must not hold up the end of the process.
    let idle = async {
        stopped.cancelled().await;
        tokio::time::sleep(drain.min(IDLE_CONNECTION)).await;
    };
    tokio::select! {
        served = serving => if let Err(error) = served {
            tracing::error!(%error, "the scrape page is gone");
        },
        () = idle => {}
    }
}

/// How long an open connection to the scrape page may live after the signal to stop.
const IDLE_CONNECTION: Duration = Duration::from_millis(250);

async fn metrics(State(telemetry): State<Telemetry>) -> Response {
    match telemetry.scrape() {
        Ok(page) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response(),
        Err(error) => {
            tracing::error!(%error, "the scrape page can not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn healthz(State(health): State<Health>) -> (StatusCode, &'static str) {
    if health.is_serving() {
        (StatusCode::OK, "serving\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not serving\n")
    }
}
