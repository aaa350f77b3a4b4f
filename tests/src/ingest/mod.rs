//! `cargo xtask bench ingest`, `ingest-soak`, `ingest-growth`: events through the real services into the ledger.
//!
//! The load is the client's own producer with its durable log, or a sender of rows; quantities are drawn for each
//! event, and what was drawn is added up. After a run the ledger must have charged exactly that, else no figure is
//! printed. Everything shares the machine: load, services, Redis with its log fsynced at every write, Postgres.
//!
//! What a figure is compared with runs in the same minute on the same servers: a null server (the same listener and layers,
//! nothing behind them), an increment in Redis for each event, an insert in Postgres for each event.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

pub mod baseline;
pub mod callers;
pub mod calls;
pub mod decode;
pub mod growth;
pub mod paced;
pub mod rows;
pub mod soak;

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use drawdown_client::{
    channel::{Channel, ChannelOptions, connect},
    clients::ledger,
    producer::{Producer, ProducerOptions},
};
use drawdown_proto::ledger::v1::CreateProducerRequest;
use drawdown_types::{ProducerId, SystemClock};

use crate::{
    figures::Figures,
    installation::{Installation, Settings},
    load::{self, By, LoadRun, LoadSeries, settled_lag_p99_ms},
    load_platform::{LoadPlatform, LoadSize, ledger_totals, set_up},
    null_server::NullServer,
    platform::Channels,
};

/// What a producer in memory only may hold: some seconds of full load.
const MEMORY_BYTES_MAX: u64 = 512 << 20;
/// Rows of a message: between a hundred and a thousand.
const ROWS_PER_MESSAGE: usize = 500;
/// Events a second of the paced run.
const PACE: u32 = 1_000_000;
/// A paced producer cuts a group after this long.
const PACED_LINGER_MS: u64 = 1;
/// The default of `metering.flush.pause_ms`.
const FLUSH_INTERVAL_MS: f64 = 5.0;
/// Callers without a log, at once.
const CALLERS: usize = 64;
/// Events of a call, in the run with many of them.
const EVENTS_PER_CALL: usize = 100;
/// The longest that callers without a log are measured, each time.
const CALLS_LENGTH_MAX: Duration = Duration::from_secs(4);
/// The sustained run is as many times as long as the others.
const SUSTAINED: u32 = 6;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Of each run; the sustained one is six times as long.
    pub length: Duration,
    /// Apps; each uses ten meters.
    pub apps: usize,
}

/// Events a second.
#[must_use]
pub fn per_second(events: u64, after: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a figure needs no more than 52 bits")]
    let events = events as f64;
    (events / after.as_secs_f64()).round()
}

/// A new producer id.
///
/// # Errors
/// Where the ledger refuses.
pub async fn new_producer(channels: &Channels, name: &str) -> Result<String> {
    let request = CreateProducerRequest { name: name.to_owned(), request_id: format!("bench-{name}") };
    Ok(ledger::settlement(&channels.ledger).create_producer(request).await?.into_inner().producer_id)
}

/// A producer with its log under `dir`, which frees what is settled at once.
///
/// # Errors
/// Where it can not be opened.
pub async fn open(dir: &Path, endpoint: &str, id: &str, linger_ms: Option<u64>) -> Result<Producer> {
    let id: ProducerId = id.parse()?;
    open_with(ProducerOptions { producer_id: Some(id), ..ProducerOptions::at(dir) }, endpoint, linger_ms)
        .await
}

async fn open_with(options: ProducerOptions, endpoint: &str, linger_ms: Option<u64>) -> Result<Producer> {
    let options = ProducerOptions {
        retain_after_settled_ms: 0,
        linger_ms: linger_ms.unwrap_or(options.linger_ms),
        linger_max_ms: linger_ms.unwrap_or(options.linger_max_ms),
        ..options
    };
    let channel = connect(&ChannelOptions::to(endpoint))?;
    Ok(Producer::open(options, channel, Arc::new(SystemClock)).await?)
}

/// Closes a producer that refused nothing.
///
/// # Errors
/// Where metering refused events, or the producer had stopped.
pub async fn close(producer: Producer) -> Result<()> {
    let refused = producer.progress().refused;
    ensure!(refused.is_empty(), "events were refused: {refused:?}");
    Ok(producer.close().await?)
}

struct Bench {
    installation: Installation,
    platform: LoadPlatform,
    figures: Figures,
    length: Duration,
    /// All events that the services were given.
    events: u64,
}

/// Runs all of `bench ingest`.
///
/// # Errors
/// Where something is refused, or the ledger's sums are not those of the generators.
pub async fn run(size: Size) -> Result<Figures> {
    let installation = Installation::start(&Settings::default()).await?;
    let (redis, postgres) = servers(&installation);
    println!("{}", baseline::durability(&redis, &postgres).await?);
    let figures = Figures::new("ingest", installation.dir())?;
    println!("setting up {} apps on 10 meters …", size.apps);
    let platform =
        set_up(installation.channels(), LoadSize { teams: 10, apps: size.apps, meters: 10 }).await?;
    let mut bench = Bench { installation, platform, figures, length: size.length, events: 0 };
    let run = bench.measure().await;
    run.with_context(|| bench.installation.logs())?;
    bench.installation.stop().await?;
    Ok(bench.figures)
}

/// Redis and Postgres.
fn servers(installation: &Installation) -> (String, String) {
    let sandbox = installation.sandbox();
    (sandbox.redis_url().to_owned(), sandbox.postgres_url().to_owned())
}

impl Bench {
    async fn measure(&mut self) -> Result<()> {
        for (name, nanos) in tokio::task::spawn_blocking(decode::measure).await?? {
            self.figures.add(name, nanos);
        }
        let prost_null = self.rows_at_null().await?;
        let null = self.columns_at_null().await?;
        let applied = self.columns().await?;
        self.figures.add("applied_vs_null_ratio", applied / null);
        self.figures.add("applied_vs_prost_null_ratio", applied / prost_null);
        self.columns_by_handles().await?;
        self.columns_without_log().await?;
        let rows = self.rows().await?;
        self.figures.add("row_applied_vs_prost_null_ratio", rows / prost_null);
        self.paced().await?;
        self.calls().await?;
        self.check().await?;
        let (redis, postgres) = servers(&self.installation);
        println!("one increment in Redis for each event …");
        let hincrby = baseline::hincrby(&redis, &self.platform.series, self.length).await?;
        println!("one insert in Postgres for each event …");
        let insert = baseline::insert(&postgres, &self.platform.series, self.length).await?;
        for (name, rate) in [("hincrby", hincrby), ("insert", insert)] {
            self.figures.add(&format!("{name}_events_per_s"), rate.round());
            self.figures.add(&format!("applied_vs_{name}_ratio"), applied / rate);
        }
        Ok(())
    }

    fn dir(&self, name: &str) -> std::path::PathBuf {
        self.installation.dir().join(name)
    }

    async fn rows_at_null(&mut self) -> Result<f64> {
        println!("rows to a null server with generated code …");
        let server = NullServer::start().await?;
        let channel = connect(&ChannelOptions::to(server.endpoint()))?;
        let mut series = self.platform.series.clone();
        let id = &self.platform.producer;
        let run = rows::run(&channel, id, &mut series, ROWS_PER_MESSAGE, self.length).await?;
        server.stop().await?;
        let rate = per_second(run.events, run.applied_after);
        self.figures.add("prost_null_events_per_s", rate);
        Ok(rate)
    }

    async fn columns_at_null(&mut self) -> Result<f64> {
        println!("columns to a null server …");
        let server = NullServer::start().await?;
        let id = &self.platform.producer;
        let producer = open(&self.dir("null-log"), &server.endpoint(), id, None).await?;
        let mut series: Vec<LoadSeries> = self.platform.series.clone();
        let run = load::run(&producer, &mut series, self.length).await?;
        producer.close().await?;
        server.stop().await?;
        let rate = per_second(run.events, run.applied_after);
        self.figures.add("null_events_per_s", rate);
        Ok(rate)
    }

    async fn columns(&mut self) -> Result<f64> {
        println!("columns to the services, sustained …");
        let endpoint = &self.installation.endpoints().metering;
        let producer = open(&self.dir("load-log"), endpoint, &self.platform.producer, None).await?;
        let length = self.length * SUSTAINED;
        let run: LoadRun = load::run(&producer, &mut self.platform.series, length).await?;
        close(producer).await?;
        self.events += run.events;
        let applied = per_second(run.events, run.applied_after);
        let settled = per_second(run.events, run.settled_after);
        self.figures.add("applied_events_per_s", applied);
        self.figures.add("settled_events_per_s", settled);
        self.figures.add("settled_vs_applied_ratio", settled / applied);
        self.figures.add("settled_lag_p99_ms", settled_lag_p99_ms(&run.samples));
        Ok(applied)
    }

    /// The same load by a caller who keeps handles of its series.
    async fn columns_by_handles(&mut self) -> Result<()> {
        println!("columns to the services, series looked up once …");
        let id = new_producer(self.installation.channels(), "handles").await?;
        let endpoint = &self.installation.endpoints().metering;
        let producer = open(&self.dir("handles-log"), endpoint, &id, None).await?;
        let run = load::run_by(By::Handles, &producer, &mut self.platform.series, self.length * 2).await?;
        close(producer).await?;
        self.events += run.events;
        self.figures.add("applied_by_handle_events_per_s", per_second(run.events, run.applied_after));
        self.figures.add("settled_by_handle_events_per_s", per_second(run.events, run.settled_after));
        Ok(())
    }

    async fn columns_without_log(&mut self) -> Result<()> {
        println!("columns of a producer in memory only …");
        let id = new_producer(self.installation.channels(), "memory").await?;
        let endpoint = &self.installation.endpoints().metering;
        let options = ProducerOptions::in_memory_only(id.parse()?, MEMORY_BYTES_MAX);
        let producer = open_with(options, endpoint, None).await?;
        let run = load::run(&producer, &mut self.platform.series, self.length).await?;
        close(producer).await?;
        self.events += run.events;
        self.figures.add("applied_nolog_events_per_s", per_second(run.events, run.applied_after));
        Ok(())
    }

    async fn rows(&mut self) -> Result<f64> {
        println!("rows to the services …");
        let channel: Channel = connect(&ChannelOptions::to(&self.installation.endpoints().metering))?;
        let id = new_producer(self.installation.channels(), "rows").await?;
        let run = rows::run(&channel, &id, &mut self.platform.series, ROWS_PER_MESSAGE, self.length).await?;
        self.events += run.events;
        let rate = per_second(run.events, run.applied_after);
        self.figures.add("row_applied_events_per_s", rate);
        Ok(rate)
    }

    async fn paced(&mut self) -> Result<()> {
        println!("{PACE} events a second …");
        let (redis, _) = servers(&self.installation);
        let id = new_producer(self.installation.channels(), "paced").await?;
        let endpoint = &self.installation.endpoints().metering;
        let producer = open(&self.dir("paced-log"), endpoint, &id, Some(PACED_LINGER_MS)).await?;
        let before = baseline::redis_cpu_s(&redis).await?;
        let series = &mut self.platform.series;
        let dir = self.installation.dir();
        let run = paced::run(&producer, series, PACE, self.length * 2, dir).await?;
        let used = baseline::redis_cpu_s(&redis).await? - before;
        close(producer).await?;
        self.events += run.events;
        let bound = 3.0 * FLUSH_INTERVAL_MS + 10.0 * run.fsync_p99_ms;
        for (name, value) in [
            ("paced_events_per_s", per_second(run.events, run.took)),
            ("paced_ack_p50_ms", run.ack_p50_ms),
            ("paced_ack_p99_ms", run.ack_p99_ms),
            ("paced_fsync_p99_ms", run.fsync_p99_ms),
            ("paced_ack_p99_bound_ms", bound),
            ("redis_cores_at_1m", used / run.took.as_secs_f64()),
        ] {
            self.figures.add(name, value);
        }
        Ok(())
    }

    async fn calls(&mut self) -> Result<()> {
        let endpoint = self.installation.endpoints().metering.clone();
        let length = self.length.min(CALLS_LENGTH_MAX);
        for (name, events) in [("one", 1), ("many", EVENTS_PER_CALL)] {
            println!("{CALLERS} callers without a log, {events} a call …");
            let calls = calls::Calls { endpoint: &endpoint, name, callers: CALLERS, events };
            let run = calls::run(calls, &mut self.platform.series, length).await?;
            self.events += run.events;
            let name = if events == 1 { "record_calls_per_s_64" } else { "record_events_per_s_64" };
            self.figures.add(name, per_second(run.calls * u64::try_from(events)?, run.took));
        }
        Ok(())
    }

    /// The ledger has charged what was drawn, to the unit.
    async fn check(&self) -> Result<()> {
        let appended = self
            .platform
            .series
            .iter()
            .fold((0_u64, 0_u64), |sum, series| (sum.0 + series.events, sum.1 + series.quantity));
        ensure!(appended.0 == self.events, "the generators counted {} and {}", appended.0, self.events);
        let charged = ledger_totals(self.installation.channels(), &self.platform).await?;
        ensure!(
            charged == appended,
            "charged {charged:?}, appended {appended:?}: no figure is worth printing"
        );
        println!("the ledger has charged all {} events, {} units", charged.0, charged.1);
        Ok(())
    }
}
