//! Clock-driven work: the worker that moves what Redis holds into the ledger, and the catalogue's refresh.

mod batch;
mod drift;
mod follow;
mod idle;
mod isolation;
mod lease;
mod look;
mod settle;
mod work;

pub(crate) use drift::unsettled;
pub(crate) use settle::Worker;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::instance::Instance;

/// Reads the catalogue of meters again and again until the signal to stop.
pub(crate) async fn refresh_meters(instance: Arc<Instance>, stop: CancellationToken) {
    let every = instance.config.meters.refresh_ms.duration();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        match instance.meters.refresh().await {
            Ok(()) => instance.spread_meters(),
            Err(error) => {
                instance.metrics.peer_error(error.peer());
                let chain = drawdown_service::refusal::chain(&error.into());
                tracing::warn!(error = %chain, "the catalogue of meters was not read");
            }
        }
    }
}
