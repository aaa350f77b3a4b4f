//! Clients of others against `drawdown up`: what they send by whatever way, and again by another way, is in the ledger
//! once, whatever process takes it.
#![expect(clippy::print_stdout, reason = "a check prints")]

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use drawdown_tests::{
    foreign::{Platform, Sums, verify},
    process::Program,
    up::{Up, text},
};
use drawdown_types::{Clock as _, SystemClock};
use tempfile::TempDir;

const CLIENTS: u64 = 3;
const METERS: [(&str, &str); 2] = [("events.call", "count"), ("events.byte", "sum")];
const WAYS: [&str; 5] = ["binary", "structured", "batch", "openmeter", "openmeter-batch"];
/// A part of them by each way.
const EVENTS: u64 = 150;
const SENDER_LIMIT: Duration = Duration::from_secs(120);

/// Runs clients in Python.
#[derive(Debug, Parser)]
struct Args {
    /// The interpreter that has their packages.
    #[arg(long)]
    python: PathBuf,
    /// What sends by them.
    #[arg(long)]
    sender: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let dir = TempDir::with_prefix("drawdown-events-")?;
    let up = Up::start(dir.path()).await?;
    let platform = Platform::set_up(&up, dir.path(), CLIENTS, &METERS)?;
    let events = dir.path().join("events.jsonl");
    let sums = write_events(&events, &platform)?;
    send(&args, &up, &events, dir.path()).await?;
    platform.judge(&up, &sums)?;

    // Other processes, with nothing but the database: all of it once more, and nothing is counted again.
    up.stop().await?;
    let up = Up::start(dir.path()).await?;
    send(&args, &up, &events, dir.path()).await?;
    platform.judge(&up, &sums)?;
    verify(&up)?;
    println!("{}", sums.report());
    up.stop().await
}

/// Writes events, and adds up what they have to come to.
fn write_events(path: &Path, platform: &Platform) -> Result<Sums> {
    let now = SystemClock.now();
    let mut sums = Sums::default();
    let mut lines = String::new();
    for number in 0..EVENTS {
        let client = platform.clients.get(usize::try_from(number % CLIENTS)?).context("a client")?;
        let way = WAYS.get(usize::try_from(number)? % WAYS.len()).context("a way")?;
        let [call, byte] = METERS.map(|(meter, _)| meter);
        let (meter, quantity) = if number % 4 == 0 { (call, 1) } else { (byte, number * 7 % 1_000) };
        let time = now.checked_sub(Duration::from_millis(number * 7_919 % 180_000)).context("a time")?;
        let event = serde_json::json!({
            "id": format!("event-{number}"), "type": meter, "subject": client, "time": time.to_string(),
            "quantity": quantity, "way": way,
        });
        writeln!(lines, "{event}")?;
        sums.add(meter, quantity);
    }
    std::fs::write(path, lines)?;
    Ok(sums)
}

async fn send(args: &Args, up: &Up, events: &Path, dir: &Path) -> Result<()> {
    let addresses = up.addresses()?;
    let url = text(&addresses, "/services/metering/grpc")?;
    let mut command = Command::new(&args.python);
    command.arg(&args.sender).arg(url).arg(events);
    let mut sender = Program::start("sender", command, dir)?;
    let status = sender.wait(SENDER_LIMIT).await?;
    ensure!(status.success(), "the sender ended with {status}; {}", sender.log_tail());
    Ok(())
}
