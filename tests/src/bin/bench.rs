//! Benches: whole commands against real services on private servers, each beside what it is compared with.
//!
//! After a run the ledger's totals must equal what the generator appended, else no figure is printed.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use drawdown_client::{
    channel::{ChannelOptions, connect},
    producer::{Producer, ProducerOptions},
};
use drawdown_tests::{
    figures::Figures,
    installation::{Installation, Settings},
    ledger,
    load::{self, LoadRun, LoadSeries, settled_lag_p99_ms},
    load_platform::{LoadPlatform, LoadSize, ledger_totals, set_up},
    null_server::NullServer,
};
use drawdown_types::{ProducerId, SystemClock};

/// Runs one bench.
#[derive(Debug, Parser)]
struct Args {
    /// Which.
    name: Name,
    /// Where its figures are written as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Seconds of load: in each run of `ingest`, in all of `ledger`.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Teams of `ledger` and `ledger-history`.
    #[arg(long, default_value_t = 1000)]
    teams: usize,
    /// Charges of the large ledger of `ledger-history`; the small one has a hundredth.
    #[arg(long, default_value_t = ledger::history::FULL)]
    charges: usize,
    /// Charges of the month that `ledger-history` makes a statement of.
    #[arg(long, default_value_t = ledger::month::FULL)]
    statement_charges: usize,
    /// Apps; each uses ten meters.
    #[arg(long, default_value_t = 1000)]
    apps: usize,
}

/// The benches that exist.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Name {
    /// Events through a producer's durable log into the ledger, beside a null server.
    Ingest,
    /// Charges through the ledger's posting, beside a bare insert and one transaction a charge.
    Ledger,
    /// Posting and reading when the ledger has ten million charges.
    LedgerHistory,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    ledger::log_failures();
    match args.name {
        Name::Ingest => ingest(&args).await,
        Name::Ledger => {
            let size = ledger::bench::Size { length: Duration::from_secs(args.seconds), teams: args.teams };
            report(&args, &ledger::bench::run(size).await?)
        }
        Name::LedgerHistory => {
            let (charges, teams, statement_charges) = (args.charges, args.teams, args.statement_charges);
            let size = ledger::history::Size { charges, teams, statement_charges };
            report(&args, &ledger::history::run(size).await?)
        }
    }
}

fn report(args: &Args, figures: &Figures) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(figures)?);
    figures.write(args.json.as_deref())
}

async fn ingest(args: &Args) -> Result<()> {
    let length = Duration::from_secs(args.seconds);
    let installation = Installation::start(&Settings::default()).await?;
    let dir = installation.dir().to_owned();
    let mut figures = Figures::new("ingest", &dir)?;
    println!("setting up {} apps on 10 meters …", args.apps);
    let size = LoadSize { teams: 10, apps: args.apps, meters: 10 };
    let mut platform = set_up(installation.channels(), size).await?;
    println!("null server: {} s …", args.seconds);
    let null = null_run(&dir, &platform, length).await?;
    println!("services: {} s …", args.seconds);
    let run = metered_run(&dir, &installation, &mut platform, length).await;
    let run = run.with_context(|| installation.logs())?;
    check(&installation, &platform, &run).await?;
    let applied = per_second(run.events, run.applied_after);
    let null_rate = per_second(null.events, null.applied_after);
    figures.add("applied_events_per_s", applied);
    figures.add("settled_events_per_s", per_second(run.events, run.settled_after));
    figures.add("null_events_per_s", null_rate);
    figures.add("applied_vs_null_ratio", applied / null_rate);
    figures.add("settled_lag_p99_ms", settled_lag_p99_ms(&run.samples));
    report(args, &figures)?;
    installation.stop().await
}

fn per_second(events: u64, after: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a figure needs no more than 52 bits")]
    let events = events as f64;
    (events / after.as_secs_f64()).round()
}

async fn open(dir: &Path, endpoint: &str, id: &str) -> Result<Producer> {
    let options = ProducerOptions {
        producer_id: Some(id.parse::<ProducerId>()?),
        retain_after_settled_ms: 0,
        ..ProducerOptions::at(dir)
    };
    let channel = connect(&ChannelOptions::to(endpoint))?;
    Ok(Producer::open(options, channel, Arc::new(SystemClock)).await?)
}

async fn null_run(dir: &Path, platform: &LoadPlatform, length: Duration) -> Result<LoadRun> {
    let server = NullServer::start().await?;
    let producer = open(&dir.join("null-log"), &server.endpoint(), &platform.producer).await?;
    let mut series: Vec<LoadSeries> = platform.series.clone();
    let run = load::run(&producer, &mut series, length).await?;
    producer.close().await?;
    server.stop().await?;
    Ok(run)
}

async fn metered_run(
    dir: &Path,
    installation: &Installation,
    platform: &mut LoadPlatform,
    length: Duration,
) -> Result<LoadRun> {
    let endpoint = &installation.endpoints().metering;
    let producer = open(&dir.join("load-log"), endpoint, &platform.producer).await?;
    let run = load::run(&producer, &mut platform.series, length).await?;
    let refused = producer.progress().refused;
    ensure!(refused.is_empty(), "events were refused: {refused:?}");
    producer.close().await?;
    Ok(run)
}

async fn check(installation: &Installation, platform: &LoadPlatform, run: &LoadRun) -> Result<()> {
    let appended = platform
        .series
        .iter()
        .fold((0_u64, 0_u64), |sum, series| (sum.0 + series.events, sum.1 + series.quantity));
    ensure!(appended.0 == run.events, "the generator counted {} and {}", appended.0, run.events);
    let charged = ledger_totals(installation.channels(), platform).await?;
    ensure!(charged == appended, "charged {charged:?}, appended {appended:?}: no figure is worth printing");
    println!("the ledger has charged all {} events, {} units", charged.0, charged.1);
    Ok(())
}
