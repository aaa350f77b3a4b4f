//! One stream of changes of live usage.
//!
//! Shape: after each round of the reader, what is new in each shard, in messages of bounded size; now and then how far the
//! answers reach where nothing is new. Nothing is queued for a watcher that does not read: it goes on from what it was told
//! last, or gets all of a shard again where that is not remembered.

use std::sync::Arc;

use drawdown_proto::{metering::v1 as wire, scalar::timestamp_to_proto};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::encode;
use crate::{
    instance::Instance,
    live::{News, Watcher},
};

type Answers = mpsc::Sender<Result<wire::WatchLiveUsageResponse, Status>>;

/// Nobody reads any more, or the instance stops.
struct Gone;

/// Serves a watcher until it goes, the instance stops, or its usage can not be read.
pub(super) async fn serve(
    instance: Arc<Instance>,
    mut watcher: Watcher,
    answers: Answers,
    stop: CancellationToken,
) {
    instance.metrics.watcher(1);
    let served = tokio::select! {
        served = tell(&instance, &mut watcher, &answers) => served,
        () = answers.closed() => Ok(()),
        () = stop.cancelled() => Ok(()),
    };
    if let Err(status) = served {
        // However long it does not read: an end without the reason would look like the end of all changes.
        tokio::select! {
            _ = answers.send(Err(status)) => {}
            () = stop.cancelled() => {}
        }
    }
    instance.metrics.watcher(-1);
}

async fn tell(instance: &Instance, watcher: &mut Watcher, answers: &Answers) -> Result<(), Status> {
    let usage = &instance.config.usage;
    let mut beat = Instant::now() + usage.watch_heartbeat_ms.duration();
    loop {
        // Before the looks: what comes after it is not told yet.
        let complete_up_to = watcher.complete_up_to();
        for at in 0..watcher.shards() {
            let Some(news) = watcher.look(at).await? else { continue };
            if send(news, usage.message_lines_max.get(), answers).await.is_err() {
                return Ok(());
            }
        }
        if beat <= Instant::now()
            && let Some(complete_up_to) = complete_up_to
        {
            let message = wire::WatchLiveUsageResponse {
                complete_up_to: Some(timestamp_to_proto(complete_up_to)),
                ..wire::WatchLiveUsageResponse::default()
            };
            if answers.send(Ok(message)).await.is_err() {
                return Ok(());
            }
            beat = Instant::now() + usage.watch_heartbeat_ms.duration();
        }
        watcher.round().await;
    }
}

async fn send(news: News, lines_max: usize, answers: &Answers) -> Result<(), Gone> {
    let mut rest = news.usage.into_iter().map(encode::usage).peekable();
    let mut snapshot = news.snapshot;
    loop {
        let usage = rest.by_ref().take(lines_max).collect();
        let message = wire::WatchLiveUsageResponse {
            position: Some(encode::standing(news.standing)),
            snapshot,
            usage,
            more: rest.peek().is_some(),
            complete_up_to: Some(timestamp_to_proto(news.complete_up_to)),
        };
        let is_last = !message.more;
        answers.send(Ok(message)).await.map_err(|_| Gone)?;
        if is_last {
            return Ok(());
        }
        snapshot = false;
    }
}
