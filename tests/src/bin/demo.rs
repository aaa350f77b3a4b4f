//! The demo: real request logs in, tokens drawn from the right team's lots out.
//!
//! Starts the services as separate processes on private servers, sets a platform up, replays a real log
//! shifted to end now, waits until all of it is settled, and prints what each team used and which lot paid.
//! It compares the result with a recount by other code and ends with an error where they differ.
#![expect(clippy::print_stdout, reason = "a demo prints")]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use drawdown_tests::{
    installation::Settings,
    report::{Summary, TeamReport},
    run::Run,
    scrape,
};
use drawdown_types::MicroTokens;

/// Runs the main job from end to end and shows what came out.
#[derive(Debug, Parser)]
struct Args {
    /// Leave everything running and print the addresses; ctrl-c ends it.
    #[arg(long)]
    keep: bool,
    /// Where `summary.json` is written.
    #[arg(long, default_value = "target/demo/summary.json")]
    summary: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    if args.summary.exists() {
        std::fs::remove_file(&args.summary)?;
    }
    println!("starting Postgres, Redis, ledger, entitlement and metering …");
    let run = Run::prepare(&Settings::default()).await?;
    let trial = &run.trial;
    println!(
        "replaying {} real requests, shifted to {} … {}",
        trial.recount.lines, trial.scenario.period_start, trial.scenario.period_end
    );
    run.replay("max").await?;
    let (summary, differences) = run.judge().await?;
    print_summary(&summary);
    write(&args.summary, &summary)?;
    write_pages(&args.summary, &run).await?;
    for difference in &differences {
        println!("DIFFERENCE  {difference}");
    }
    ensure!(differences.is_empty(), "the ledger differs from the recount in {} places", differences.len());
    println!("recount by other code: the same, to the micro-token");
    if args.keep {
        keep(&run).await?;
    }
    run.installation.stop().await
}

async fn keep(run: &Run) -> Result<()> {
    let endpoints = run.installation.endpoints();
    println!("\nmetering     {}\nledger       {}", endpoints.metering, endpoints.ledger);
    println!(
        "entitlement  {}\nmetrics      {}",
        endpoints.entitlement,
        run.installation.metrics().join("  ")
    );
    println!("configuration  {}\n\nctrl-c ends it", run.installation.config().display());
    tokio::signal::ctrl_c().await.context("waiting for ctrl-c")
}

fn write(path: &Path, summary: &Summary) -> Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let text = serde_json::to_string_pretty(summary)?;
    std::fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    println!("\nwritten to {}", path.display());
    Ok(())
}

/// The scrape pages as they are now, beside the summary: `metering.prom`, `ledger.prom`, `entitlement.prom`.
async fn write_pages(summary: &Path, run: &Run) -> Result<()> {
    for (service, address) in ["metering", "ledger", "entitlement"].iter().zip(run.installation.metrics()) {
        let page = scrape::page(address).await.with_context(|| format!("scrape page of {service}"))?;
        std::fs::write(summary.with_file_name(format!("{service}.prom")), page)?;
    }
    Ok(())
}

fn tokens(micros: i64) -> String {
    MicroTokens::from_micros(micros).to_string()
}

fn print_summary(summary: &Summary) {
    for team in &summary.teams {
        print_team(team);
    }
    println!(
        "\nevents settled {}, unattributed {}, lines malformed {}, ignored {}",
        summary.settled_events, summary.unattributed_events, summary.malformed_lines, summary.ignored_lines
    );
    println!("first event to settled: {} ms", summary.first_event_to_settled_ms);
    println!("ledger verify: {} violations", summary.verify_violations);
}

fn print_team(team: &TeamReport) {
    println!("\nteam {}  ({})", team.name, team.team_id);
    println!(
        "  purchased {}  used {}  expired {}  closing {}  uncharged {}  available {}",
        tokens(team.purchased_micros),
        tokens(team.used_micros),
        tokens(team.expired_micros),
        tokens(team.closing_micros),
        tokens(team.uncharged_micros),
        tokens(team.available_micros)
    );
    println!("  {:<22} {:>9} {:>12} {:>12} {:>12}  expires", "lot", "state", "granted", "paid", "left");
    for lot in &team.lots {
        println!(
            "  {:<22} {:>9} {:>12} {:>12} {:>12}  {}",
            lot.name,
            lot.state,
            tokens(lot.granted_micros),
            tokens(lot.consumed_micros),
            tokens(lot.remaining_micros),
            lot.expires_at
        );
    }
    println!("  {:<16} {:<12} {:>8} {:>12} {:>14}", "app", "meter", "events", "quantity", "tokens");
    for app in &team.apps {
        println!(
            "  {:<16} {:<12} {:>8} {:>12} {:>14}",
            app.app,
            app.meter,
            app.events,
            app.quantity,
            tokens(app.amount_micros)
        );
    }
}
