//! Drills: break things on purpose, again and again, and count what survives.
#![expect(clippy::print_stdout, reason = "a drill prints what it finds")]

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use drawdown_tests::{
    crash::{Victim, disturbed},
    figures::Figures,
    ledger,
};

/// Runs one drill.
#[derive(Debug, Parser)]
struct Args {
    /// Which.
    name: Name,
    /// Where its figures are written as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// How often each part is killed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of `ledger`, all parts together.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// The drills that exist.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Name {
    /// Kills metering, the ledger, Redis with its data, and the replay, each in the middle of a run and at
    /// another place in every round; the sums must be those of an undisturbed run.
    Kill,
    /// Sixty-four writers on one team, on a hundred, and by Zipf's law, while lots are bought, granted,
    /// expire and close; no deadlock, no failed call, every invariant, every micro-token.
    Ledger,
}

/// Charges settled before the fault in the first round, and how many more in each next one.
const FIRST_FAULT: usize = 100;
const NEXT_FAULT: usize = 350;
/// Later than this the replay could be over before the fault.
const LAST_FAULT: usize = 1500;

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    ledger::log_failures();
    match args.name {
        Name::Kill => kill(&args).await,
        Name::Ledger => {
            let figures = ledger::drill::run(Duration::from_secs(args.seconds)).await?;
            println!("{}", serde_json::to_string_pretty(&figures)?);
            figures.write(args.json.as_deref())
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure needs no more than 52 bits")]
async fn kill(args: &Args) -> Result<()> {
    let mut figures = Figures::new("kill", &std::env::temp_dir())?;
    let (mut runs, mut found, mut slowest) = (0_usize, 0_usize, 0.0_f64);
    for round in 0..args.rounds {
        for victim in Victim::ALL {
            let after = FIRST_FAULT + round * NEXT_FAULT % (LAST_FAULT - FIRST_FAULT);
            let start = Instant::now();
            let (summary, differences) = disturbed(victim, after).await?;
            let took = start.elapsed().as_secs_f64();
            println!(
                "round {round}: {victim:?} killed after {after} charges: {} events settled, {} differences, {took:.1} s",
                summary.settled_events,
                differences.len()
            );
            for difference in &differences {
                println!("  DIFFERENCE  {difference}");
            }
            runs += 1;
            found += differences.len();
            slowest = slowest.max(took);
        }
    }
    figures.add("runs_count", runs as f64);
    figures.add("differences_count", found as f64);
    figures.add("slowest_run_s", slowest);
    println!("{}", serde_json::to_string_pretty(&figures)?);
    figures.write(args.json.as_deref())?;
    ensure!(found == 0, "{found} differences in {runs} runs");
    Ok(())
}
