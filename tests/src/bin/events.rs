//! Clients of others against `drawdown up`: what they send by whatever way, and again by another way, is in the ledger
//! once, whatever process takes it.
#![expect(clippy::print_stdout, reason = "a check prints")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use drawdown_tests::{
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

struct Platform {
    team: String,
    clients: Vec<String>,
}

/// By meter: events, and quantity as the meter counts it.
type Sums = BTreeMap<String, (u64, u64)>;

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let dir = TempDir::with_prefix("drawdown-events-")?;
    let up = Up::start(dir.path()).await?;
    let platform = set_up(&up, dir.path())?;
    let events = dir.path().join("events.jsonl");
    let sums = write_events(&events, &platform)?;
    send(&args, &up, &events, dir.path()).await?;
    judge(&up, &platform, &sums)?;

    // Other processes, with nothing but the database: all of it once more, and nothing is counted again.
    up.stop().await?;
    let up = Up::start(dir.path()).await?;
    send(&args, &up, &events, dir.path()).await?;
    judge(&up, &platform, &sums)?;
    let verified = up.cli(&["ledger", "verify"])?;
    ensure!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    for (meter, (events, quantity)) in &sums {
        println!("{meter}: {events} events, {quantity} in all, as sent");
    }
    up.stop().await
}

fn set_up(up: &Up, dir: &Path) -> Result<Platform> {
    let since = ["--created-at", "2026-01-01T00:00:00Z"];
    let account = ["account", "create", "--name", "A", "--contract", "flex", "--commercial"];
    let account = up.json(&[&account[..], &since].concat())?;
    let account = text(&account, "/account/account_id")?;
    let team = up.json(&[&["team", "create", "--account", account, "--name", "T"][..], &since].concat())?;
    let team = text(&team, "/team/team_id")?.to_owned();
    let app = up.json(&["app", "create", "--account", account, "--name", "tiles"])?;
    let app = text(&app, "/app/app_id")?.to_owned();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let credential = up.json(&[&["credential", "create", &app][..], &since].concat())?;
        clients.push(text(&credential, "/client_id")?.to_owned());
    }
    let mut card =
        "name = \"events\"\ncontract = \"flex\"\neffective_from = \"2020-01-01T00:00:00Z\"\n".to_owned();
    for (meter, aggregation) in METERS {
        up.json(&["meter", "create", meter, "--unit", "call", "--aggregation", aggregation])?;
        write!(card, "[[prices]]\nmeter = \"{meter}\"\ntokens = \"0.001\"\nper_units = 1\n")?;
    }
    let file = dir.join("card.toml");
    std::fs::write(&file, card)?;
    up.json(&["rate-card", "publish", &file.to_string_lossy(), "--set-up"])?;
    up.json(&["app", "assign", &app, "--team", &team, "--from", "2026-01-01T00:00:00Z"])?;
    Ok(Platform { team, clients })
}

/// Writes events, and adds up what they have to come to.
fn write_events(path: &Path, platform: &Platform) -> Result<Sums> {
    let now = SystemClock.now();
    let mut sums = Sums::new();
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
        let sum = sums.entry(meter.to_owned()).or_default();
        *sum = (sum.0 + 1, sum.1 + quantity);
    }
    std::fs::write(path, lines)?;
    Ok(sums)
}

async fn send(args: &Args, up: &Up, events: &Path, dir: &Path) -> Result<()> {
    let addresses = up.addresses()?;
    let url = text(&addresses, "/services/metering/events")?;
    let mut command = Command::new(&args.python);
    command.arg(&args.sender).arg(url).arg(events);
    let mut sender = Program::start("sender", command, dir)?;
    let status = sender.wait(SENDER_LIMIT).await?;
    ensure!(status.success(), "the sender ended with {status}; {}", sender.log_tail());
    Ok(())
}

/// What the ledger charged is what was sent.
fn judge(up: &Up, platform: &Platform, sums: &Sums) -> Result<()> {
    let charges = up.json(&["charges", &platform.team])?;
    let mut found = Sums::new();
    for charge in charges["charges"].as_array().context("no charges")? {
        let number = |name: &str| charge[name].as_u64().with_context(|| format!("no {name} in {charge}"));
        let sum = found.entry(text(charge, "/meter")?.to_owned()).or_default();
        *sum = (sum.0 + number("events")?, sum.1 + number("quantity")?);
    }
    ensure!(found == *sums, "the ledger has {found:?}, sent were {sums:?}");
    let open = up.json(&["unattributed", "list", "--state", "open"])?;
    ensure!(open["usage"].as_array().is_none_or(Vec::is_empty), "{open}");
    Ok(())
}
