//! `UsageService`: what metering holds and the ledger does not have yet.

use std::sync::Arc;

use drawdown_metering_core::cells::LEADING;
use drawdown_proto::{
    metering::v1::{self as wire, usage_service_server::UsageService},
    scalar::timestamp_to_proto,
};
use drawdown_service::{Code, Refusal, Violations, refusal};
use drawdown_types::{AppId, ClientId, DimensionName, MeterSlug};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status};

use super::{encode, watch};
use crate::{
    instance::Instance,
    live::{Error, Filter, Live, Watcher, query},
    peer::LanesOf,
    reason,
};

/// Messages that wait for a watcher that does not read them.
const MESSAGES_MAX: usize = 2;
/// Dimensions that a filter may name.
const DIMENSIONS_MAX: usize = 8;

/// The service.
#[derive(Clone)]
pub(crate) struct Usage {
    instance: Arc<Instance>,
    live: Arc<Live>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::TooLarge(what) => {
                let message = format!("{what} would be too much; ask for less, or later");
                Refusal::new(Code::ResourceExhausted, reason::USAGE_TOO_LARGE, message)
                    .retry_after(refusal::RETRY_AFTER_DEFAULT)
                    .into()
            }
            Error::Busy => {
                Refusal::new(Code::ResourceExhausted, reason::QUERIES_EXHAUSTED, error.to_string())
                    .retry_after(refusal::RETRY_AFTER_DEFAULT)
                    .into()
            }
            other => refusal::unavailable(other),
        }
    }
}

impl Usage {
    pub(crate) const fn new(
        instance: Arc<Instance>,
        live: Arc<Live>,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        Self { instance, live, stop, tasks }
    }

    fn ids_max(&self) -> usize {
        self.instance.config.usage.client_ids_max.get()
    }
}

/// What both requests ask with.
struct Asked<'a> {
    client_ids: &'a [String],
    app_ids: &'a [String],
    meter: &'a str,
    dimensions: &'a [wire::Dimension],
    resolve_apps: bool,
}

fn filter(asked: &Asked<'_>, ids_max: usize) -> Result<Filter, Refusal> {
    let mut violations = Violations::new();
    let mut filter = Filter { resolve_apps: asked.resolve_apps, ..Filter::default() };
    for (field, count) in [("client_ids", asked.client_ids.len()), ("app_ids", asked.app_ids.len())] {
        if count > ids_max {
            violations.push(field, format!("has {count} entries, at most {ids_max} are allowed"));
        }
    }
    if asked.client_ids.is_empty() && asked.app_ids.is_empty() {
        violations.push("client_ids", "has no entries, and neither has app_ids");
    }
    for (at, id) in asked.client_ids.iter().enumerate().take(ids_max) {
        let id = violations.field(&format!("client_ids[{at}]"), || ClientId::new(id));
        filter.client_ids.extend(id);
    }
    filter.client_ids.sort_unstable();
    filter.client_ids.dedup();
    for (at, id) in asked.app_ids.iter().enumerate().take(ids_max) {
        let id = violations.field(&format!("app_ids[{at}]"), || id.parse::<AppId>());
        filter.app_ids.extend(id.map(|id| id.to_string()));
    }
    if !asked.meter.is_empty() {
        filter.meter = violations.field("meter", || MeterSlug::new(asked.meter));
    }
    let count = asked.dimensions.len();
    if count > DIMENSIONS_MAX {
        violations.push("dimensions", format!("has {count} entries, at most {DIMENSIONS_MAX} are allowed"));
    }
    for (at, dimension) in asked.dimensions.iter().enumerate().take(DIMENSIONS_MAX) {
        let name =
            violations.field(&format!("dimensions[{at}].name"), || DimensionName::new(&dimension.name));
        filter.dimensions.extend(name.map(|name| (name, dimension.value.clone())));
    }
    violations.finish(reason::REQUEST_INVALID, Some(filter))
}

#[tonic::async_trait]
impl UsageService for Usage {
    async fn get_live_usage(
        &self,
        request: Request<wire::GetLiveUsageRequest>,
    ) -> Result<Response<wire::GetLiveUsageResponse>, Status> {
        let request = request.get_ref();
        let asked = Asked {
            client_ids: &request.client_ids,
            app_ids: &request.app_ids,
            meter: &request.meter,
            dimensions: &request.dimensions,
            resolve_apps: request.resolve_apps,
        };
        let filter = filter(&asked, self.ids_max())?;
        let answer = query(&self.live, &filter, request.by_batch).await?;
        Ok(Response::new(wire::GetLiveUsageResponse {
            usage: answer.usage.into_iter().map(encode::usage).collect(),
            complete_up_to: Some(timestamp_to_proto(answer.complete_up_to)),
            positions: answer.standings.into_iter().map(encode::standing).collect(),
        }))
    }

    type WatchLiveUsageStream = ReceiverStream<Result<wire::WatchLiveUsageResponse, Status>>;

    async fn watch_live_usage(
        &self,
        request: Request<wire::WatchLiveUsageRequest>,
    ) -> Result<Response<Self::WatchLiveUsageStream>, Status> {
        let request = request.get_ref();
        let asked = Asked {
            client_ids: &request.client_ids,
            app_ids: &request.app_ids,
            meter: &request.meter,
            dimensions: &request.dimensions,
            resolve_apps: request.resolve_apps,
        };
        let filter = filter(&asked, self.ids_max())?;
        let watcher = Watcher::new(&self.live, filter).ok_or_else(|| {
            let message = "as many watch live usage at this instance as may";
            Refusal::new(Code::ResourceExhausted, reason::WATCHERS_EXHAUSTED, message)
                .retry_after(refusal::RETRY_AFTER_DEFAULT)
        })?;
        let (answers, receiver) = mpsc::channel(MESSAGES_MAX);
        let serving = watch::serve(Arc::clone(&self.instance), watcher, answers, self.stop.clone());
        self.tasks.spawn(serving);
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_metering_status(
        &self,
        _: Request<wire::GetMeteringStatusRequest>,
    ) -> Result<Response<wire::GetMeteringStatusResponse>, Status> {
        let numbers = self.instance.shard_numbers();
        let heads = self.instance.store.look(&numbers).await.map_err(Error::from)?;
        let lanes = LanesOf::heads(heads.iter().flatten());
        let cursors =
            self.instance.ledger().shards(&numbers, &lanes, LEADING).await.map_err(Error::from)?.cursors;
        let shards = numbers.iter().zip(heads).map(|(shard, head)| {
            let empty = wire::ShardStatus { shard: *shard, ..wire::ShardStatus::default() };
            match (head, cursors.get(shard)) {
                (Ok(head), Some(cursor)) => wire::ShardStatus {
                    generation: head.generation,
                    open_batch: head.open,
                    sealed_batches: u32::try_from(head.sealed.len()).unwrap_or(u32::MAX),
                    open_blobs: u32::try_from(head.blobs).unwrap_or(u32::MAX),
                    unsettled_events: crate::jobs::unsettled(&head, cursor),
                    ..empty
                },
                _ => empty,
            }
        });
        Ok(Response::new(wire::GetMeteringStatusResponse { shards: shards.collect() }))
    }
}
