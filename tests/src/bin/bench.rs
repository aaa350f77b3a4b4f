//! Benches: whole commands against real services on private servers, each beside what it is compared with.
//!
//! After a run the ledger's totals must equal what the generator appended, else no figure is printed.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use drawdown_tests::{check, figures::Figures, ingest, ledger, tls_cost};

// As the product has it: the ledger's handlers and the producers of the load run in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs one bench.
#[derive(Debug, Parser)]
struct Args {
    /// Which.
    name: Name,
    /// Where its figures are written as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Seconds of load: in each run of `ingest` (its sustained one is six times as long), `ingest-growth` and `record`, in all of `ledger`,
    /// of each side of each form of `check`.
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
    /// Apps of `ingest` and `record`; each uses ten meters.
    #[arg(long, default_value_t = 1000)]
    apps: usize,
    /// Minutes of load in `ingest-soak`.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// The most series of a step of `ingest-growth`.
    #[arg(long, default_value_t = 1_000_000)]
    series_max: usize,
    /// The most producers of a step of `ingest-growth`.
    #[arg(long, default_value_t = 64)]
    producers_max: usize,
    /// Client ids of `check`.
    #[arg(long, default_value_t = check::FULL)]
    credentials: usize,
    /// Changes that `check` waits for.
    #[arg(long, default_value_t = 200)]
    changes: usize,
    /// What a peer of `check` is told.
    #[arg(long, hide = true)]
    peer_config: Option<PathBuf>,
}

/// The benches that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Events through a producer's durable log into the ledger, beside null servers and naive ways.
    Ingest,
    /// Metering's memory under full load.
    IngestSoak,
    /// More series, more producers, more instances.
    IngestGrowth,
    /// Callers without a log, one and many at once.
    Record,
    /// Charges through the ledger's posting, beside a bare insert and one transaction a charge.
    Ledger,
    /// Posting and reading when the ledger has ten million charges.
    LedgerHistory,
    /// Calls by mTLS beside the same ones without TLS.
    Tls,
    /// Access answered from memory, beside an empty method and a check that asks Redis.
    Check,
    /// A peer of `check`, which starts it itself.
    #[value(hide = true)]
    CheckPeer,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    // the log of a peer is that of a service
    if args.name != Name::CheckPeer {
        ledger::log_failures();
    }
    match args.name {
        Name::Ingest => {
            let size = ingest::Size { length: Duration::from_secs(args.seconds), apps: args.apps };
            report(&args, &ingest::run(size).await?)
        }
        Name::IngestSoak => report(&args, &ingest::soak::run(Duration::from_secs(60 * args.minutes)).await?),
        Name::IngestGrowth => {
            let length = Duration::from_secs(args.seconds);
            report(&args, &ingest::growth::run(length, args.series_max, args.producers_max).await?)
        }
        Name::Record => {
            report(&args, &ingest::callers::run(Duration::from_secs(args.seconds), args.apps).await?)
        }
        Name::Check => {
            let (length, credentials, changes) =
                (Duration::from_secs(args.seconds), args.credentials, args.changes);
            report(&args, &check::run(check::Size { length, credentials, changes }).await?)
        }
        Name::CheckPeer => check::serve_peer(args.peer_config.as_deref().context("no --peer-config")?).await,
        Name::Tls => report(&args, &tls_cost::run(Duration::from_secs(args.seconds)).await?),
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
