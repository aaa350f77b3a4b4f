//! Builds the parts and owns the order of start and drain.
//!
//! Start: Redis is checked and refused by name; the ledger is waited for, because the window size, the meters
//! and every settled position come from it; then the ports are bound and the parts run.
//! Drain: streams read no more → what they gave is flushed → its acknowledgements are sent → streams end → the
//! worker finishes what it has begun. Nothing that was acknowledged depends on any of it: that is in Redis.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use drawdown_client::Channel;
use drawdown_proto::metering::v1::usage_service_server::UsageServiceServer;
use drawdown_service::{Context, Server, identity::Sources};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    grpc::{Ingest, IngestServer, Record, RecordServer, Usage},
    http,
    instance::{Instance, Parts, retry::Retry},
    jobs::{self, Worker},
    live::{self, Live},
    metrics::Metrics,
    peer::{Cell, Cells, Events, LanesOf, Ledger, Meters, Resolver},
    record::{RecordMetrics, Recorder},
    redis::Store,
};

/// Pauses between attempts at start.
const START_PAUSE_MIN: Duration = Duration::from_millis(50);
const START_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Runs the service until the context's signal to stop, then drains.
///
/// # Errors
/// Where Redis is not one to trust, a port can not be bound, or the transport fails.
pub async fn run(config: Config, context: Context) -> anyhow::Result<()> {
    let stop = context.shutdown.clone();
    let started = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        started = start(&config, &context) => started?,
    };
    let Started { instance, resolver, events, entitlement } = started;
    let server = Server::bind(&config.server, &context).await?.identify(Sources::remote(entitlement.unary()));
    let streams = TaskTracker::new();
    let message_bytes_max = config.server.message_bytes_max;
    let ingest = Ingest::new(Arc::clone(&instance), stop.clone(), streams.clone());
    let ingest = IngestServer::new(ingest, message_bytes_max);
    let live = Live::new(Arc::clone(&instance), Arc::clone(&resolver));
    let usage = Usage::new(Arc::clone(&instance), Arc::clone(&live), stop.clone(), streams.clone());
    let usage = UsageServiceServer::new(usage)
        .max_decoding_message_size(message_bytes_max)
        .max_encoding_message_size(usize::MAX);

    // The parts that streams and calls rely on end after them.
    let after_streams = CancellationToken::new();
    let parts = TaskTracker::new();
    let metrics = RecordMetrics::new(&context.telemetry.meter());
    let recorder =
        Recorder::start(Arc::clone(&instance), &resolver, (&events, metrics), &parts, &after_streams);
    let call_bytes_max = config.record.call_bytes_max.get().min(message_bytes_max);
    let record = RecordServer::new(Record::new(Arc::clone(&recorder)), call_bytes_max);
    let events = http::router(recorder, &config.record, config.server.call_time_max);
    let server =
        server.add_service(ingest).add_service(usage).add_service(record).add_own(http::PATHS, events);
    let drain = config.server.drain;
    let flusher = Arc::clone(&instance);
    let flusher_stop = stop.clone();
    parts.spawn(async move { flusher.flush(flusher_stop, drain).await });
    let attacher = Arc::clone(&instance);
    let attacher_stop = after_streams.clone();
    parts.spawn(async move { attacher.attach(attacher_stop).await });
    parts.spawn(jobs::refresh_meters(Arc::clone(&instance), after_streams.clone()));
    parts.spawn(live::read(live, after_streams.clone()));
    let worker = Worker::new(Arc::clone(&instance), resolver);
    parts.spawn(worker.run(after_streams.clone()));

    let served = server.serve().await;
    // Where the transport failed nobody else says so.
    stop.cancel();
    streams.close();
    if tokio::time::timeout(drain, streams.wait()).await.is_err() {
        tracing::warn!("streams were cut");
    }
    after_streams.cancel();
    parts.close();
    if tokio::time::timeout(drain, parts.wait()).await.is_err() {
        tracing::warn!("a worker was cut; the next one goes on where it was");
    }
    Ok(served?)
}

/// What the parts are made of.
struct Started {
    instance: Arc<Instance>,
    resolver: Arc<Resolver>,
    events: Events,
    entitlement: Channel,
}

async fn start(config: &Config, context: &Context) -> anyhow::Result<Started> {
    let ledger_channel = drawdown_client::connect(&config.ledger).context("ledger")?;
    let others = config.cells.iter().map(|(number, options)| {
        let channel =
            drawdown_client::connect(options).with_context(|| format!("ledger of cell {number}"))?;
        Ok((*number, channel))
    });
    let others = others.collect::<anyhow::Result<Vec<_>>>()?;
    let events = Events::new(&ledger_channel, &others);
    let cell = |(number, channel): &(u8, Channel)| Cell { number: *number, ledger: Ledger::new(channel) };
    let others = others.iter().map(cell).collect();
    let entitlement_channel = drawdown_client::connect(&config.entitlement).context("entitlement")?;
    let store = Arc::new(Store::connect(&config.redis).await.context("redis")?);
    let instance = assemble(config, context, store, &ledger_channel, others).await;
    let resolver = Resolver::new(&entitlement_channel, &config.settle, Arc::clone(&context.clock));
    Ok(Started { instance, resolver: Arc::new(resolver), events, entitlement: entitlement_channel })
}

/// Waits for the ledger, of every cell: without it no lane can be placed and no event judged.
async fn assemble(
    config: &Config,
    context: &Context,
    store: Arc<Store>,
    ledger_channel: &Channel,
    others: Vec<Cell>,
) -> Arc<Instance> {
    let cells = Cells { leading: Ledger::new(ledger_channel), others };
    let meters = Meters::new(ledger_channel, config.meters.clone());
    let shards: Vec<u32> = (0..config.shards()).collect();
    let mut retry = Retry::new(START_PAUSE_MIN, START_PAUSE_MAX);
    let window = loop {
        let known = async {
            meters.refresh().await?;
            cells.shards(&shards, &LanesOf::NOBODY).await
        };
        match known.await {
            Ok(shards) => break shards.window,
            Err(error) => {
                let chain = drawdown_service::refusal::chain(&error.into());
                tracing::info!(error = %chain, "waiting for the ledger");
                retry.failed(Instant::now());
                if let Some(until) = retry.until() {
                    tokio::time::sleep_until(until).await;
                }
            }
        }
    };
    Arc::new(Instance::new(Parts {
        config: config.clone(),
        window,
        store,
        cells,
        meters,
        metrics: Metrics::new(&context.telemetry.meter()),
        clock: Arc::clone(&context.clock),
    }))
}
