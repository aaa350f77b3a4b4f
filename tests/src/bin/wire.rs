//! A producer in another language against `drawdown up`: what it sends is in the ledger, once, though its connection
//! is cut in the middle of a stream and its process is killed in the middle of another.
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
    relay::Relay,
    up::{Up, text},
};
use drawdown_types::{Clock as _, SystemClock};
use tempfile::TempDir;

const CLIENTS: u64 = 12;
const METERS: [(&str, &str); 2] = [("wire.call", "count"), ("wire.byte", "sum")];
/// Events of each half.
const EVENTS: u64 = 6_000;
/// Far less than half of the events are in so many bytes.
const CUT_BYTES: u64 = 40_000;
const PRODUCER_LIMIT: Duration = Duration::from_secs(120);

/// Runs a producer in Python.
#[derive(Debug, Parser)]
struct Args {
    /// The interpreter that has its packages.
    #[arg(long)]
    python: PathBuf,
    /// The producer.
    #[arg(long)]
    producer: PathBuf,
    /// The folder of its generated code.
    #[arg(long)]
    stubs: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let dir = TempDir::with_prefix("drawdown-wire-")?;
    let up = Up::start(dir.path()).await?;
    let platform = Platform::set_up(&up, dir.path(), CLIENTS, &METERS)?;
    let id = up.json(&["producer", "create", "--name", "python"])?;
    let id = text(&id, "/producer_id")?;
    let metering = up.addresses()?;
    let metering = text(&metering, "/services/metering/grpc")?.trim_start_matches("http://").to_owned();
    let relay = Relay::to(&metering).await?;
    let events = dir.path().join("events.jsonl");
    let mut sums = Sums::default();

    // The line is cut once; the same process goes on over another one.
    write_events(&events, &platform, 0..EVENTS, &mut sums)?;
    relay.cut_after(CUT_BYTES);
    let mut producer = start(&args, id, &relay, &events, dir.path())?;
    finish(&mut producer).await?;
    let log = producer.log_tail();
    ensure!(relay.connections() >= 2 && log.contains("again:"), "the line was not cut; {log}");
    platform.judge(&up, &sums)?;

    // The process is killed; another one goes on with its log.
    write_events(&events, &platform, EVENTS..2 * EVENTS, &mut sums)?;
    let killed_at = relay.passed().saturating_add(CUT_BYTES);
    let mut producer = start(&args, id, &relay, &events, dir.path())?;
    let passed = tokio::time::timeout(PRODUCER_LIMIT, relay.wait_passed(killed_at)).await;
    passed.with_context(|| producer.log_tail())??;
    ensure!(producer.is_running()?, "it was done before it could be killed; {}", producer.log_tail());
    producer.kill()?;
    let mut producer = start(&args, id, &relay, &events, dir.path())?;
    finish(&mut producer).await?;
    platform.judge(&up, &sums)?;

    // Once more, with nothing new: nothing is counted again.
    let mut producer = start(&args, id, &relay, &events, dir.path())?;
    finish(&mut producer).await?;
    platform.judge(&up, &sums)?;
    verify(&up)?;
    println!("{}", sums.report());
    up.stop().await
}

/// Appends events, and adds up what they have to come to.
fn write_events(
    path: &Path,
    platform: &Platform,
    numbers: std::ops::Range<u64>,
    sums: &mut Sums,
) -> Result<()> {
    let now_ms = SystemClock.now().as_millis();
    let mut lines = if path.exists() { std::fs::read_to_string(path)? } else { String::new() };
    for number in numbers {
        let client = platform.clients.get(usize::try_from(number % CLIENTS)?).context("a client")?;
        let [call, byte] = METERS.map(|(meter, _)| meter);
        let (meter, quantity) = if number % 3 == 0 { (call, 1) } else { (byte, number % 1_000) };
        let time_ms = now_ms - i64::try_from(number * 7_919 % 180_000)?;
        writeln!(
            lines,
            "{{\"client_id\":\"{client}\",\"meter\":\"{meter}\",\"quantity\":{quantity},\"time_ms\":{time_ms}}}"
        )?;
        sums.add(meter, quantity);
    }
    Ok(std::fs::write(path, lines)?)
}

fn start(args: &Args, id: &str, relay: &Relay, events: &Path, dir: &Path) -> Result<Program> {
    let mut command = Command::new(&args.python);
    command.arg(&args.producer).arg(&args.stubs).arg(relay.address().to_string());
    command.arg(id).arg(dir.join("log.jsonl")).arg(events);
    Program::start("producer", command, dir)
}

async fn finish(producer: &mut Program) -> Result<()> {
    let status = producer.wait(PRODUCER_LIMIT).await?;
    ensure!(status.success(), "the producer ended with {status}; {}", producer.log_tail());
    Ok(())
}
