//! `drawdown up` and levels of access as an operator sees them: trial, full, grace, limited, and full again.

use std::path::Path;

use anyhow::{Result, ensure};
use drawdown_tests::{
    process::wait_until,
    up::{UP_LIMIT, Up, text},
};
use serde_json::Value;
use tempfile::TempDir;

/// Windows of a second, a trial and a grace of a few.
const SHORT: [(&str, &str); 4] = [
    ("DRAWDOWN_ENTITLEMENT__WINDOW_SECS", "1"),
    ("DRAWDOWN_LEDGER__WINDOW_SECS", "1"),
    ("DRAWDOWN_ENTITLEMENT__TRIAL_SECS", "6"),
    ("DRAWDOWN_LEDGER__NOTICES__GRACE_SECS", "4"),
];
const CARD: &str = "name = \"tiles\"\ncontract = \"flex\"\neffective_from = \"2020-01-01T00:00:00Z\"\n\
    [[prices]]\nmeter = \"tile\"\ntokens = \"2.5\"\nper_units = 1\n\
    [[prices]]\nmeter = \"tile.free\"\ntokens = \"0\"\nper_units = 1\n";

/// A team with an app.
struct Team {
    account: String,
    team: String,
    client: String,
}

fn set_up(up: &Up, dir: &Path) -> Result<Team> {
    let since = ["--created-at", "2026-01-01T00:00:00Z"];
    for meter in ["tile", "tile.free"] {
        up.json(&["meter", "create", meter, "--unit", "call", "--aggregation", "count"])?;
    }
    let card = dir.join("card.toml");
    std::fs::write(&card, CARD)?;
    up.json(&["rate-card", "publish", &card.to_string_lossy(), "--set-up"])?;
    let account =
        up.json(&[&["account", "create", "--name", "A", "--contract", "flex"][..], &since].concat())?;
    let account = text(&account, "/account/account_id")?.to_owned();
    let team = up.json(&[&["team", "create", "--account", &account, "--name", "T"][..], &since].concat())?;
    let team = text(&team, "/team/team_id")?.to_owned();
    let app = up.json(&["app", "create", "--account", &account, "--name", "tiles"])?;
    let app = text(&app, "/app/app_id")?;
    up.json(&["app", "assign", app, "--team", &team, "--from", "2026-01-01T00:00:00Z"])?;
    let credential = up.json(&["credential", "create", app])?;
    let client = text(&credential, "/client_id")?.to_owned();
    Ok(Team { account, team, client })
}

fn level(up: &Up, client: &str) -> Result<(String, Value)> {
    let told = up.json(&["access", "check", client, "tile"])?;
    let level = text(&told, "/answer/level")?.trim_start_matches("ACCESS_LEVEL_").to_owned();
    Ok((level, told))
}

async fn becomes(up: &Up, client: &str, expected: &str) -> Result<Value> {
    let wait = || async { Ok(level(up, client)?.0 == expected) };
    wait_until(expected, UP_LIMIT, wait).await?;
    Ok(level(up, client)?.1)
}

/// Two calls, now.
fn use_tiles(up: &Up, dir: &Path, client: &str) -> Result<()> {
    let (log, rules) = (dir.join("access.jsonl"), dir.join("rules.toml"));
    let line = "{\"time\":\"2026-01-01T00:00:00Z\",\"method\":\"GET\",\"path\":\"/tile\",\"status\":200}\n";
    std::fs::write(&log, line.repeat(2))?;
    std::fs::write(
        &rules,
        format!("[[rule]]\npath = \"/tile\"\nclient_id = \"{client}\"\nmeter = \"tile\"\n"),
    )?;
    let producer = up.json(&["producer", "create", "--name", "gateway"])?;
    let producer = text(&producer, "/producer_id")?;
    let (log, rules, log_dir) = (log.to_string_lossy(), rules.to_string_lossy(), dir.join("log"));
    let replay = ["replay", &log, "--rules", &rules, "--shift-end", "now", "--producer", producer];
    up.json(&[&replay[..], &["--log-dir", &log_dir.to_string_lossy()]].concat())?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn levels_of_access_are_walked_through_by_real_time_and_real_money() -> Result<()> {
    let dir = TempDir::with_prefix("drawdown-access-")?;
    let up = Up::start_with(dir.path(), &SHORT).await?;
    let Team { account, team, client } = set_up(&up, dir.path())?;
    let trial = becomes(&up, &client, "TRIAL").await?;
    ensure!(trial["answer"]["allowed"] == true && trial["answer"]["balance_micros"].is_null(), "{trial}");
    let purchase = ["tokens", "purchase", "100", "--account", &account, "--team", &team];
    let refused = up.cli(&purchase)?;
    ensure!(String::from_utf8_lossy(&refused.stderr).contains("TRIAL_ACTIVE"), "a purchase in the trial");
    let full = becomes(&up, &client, "FULL").await?;
    ensure!(full["answer"]["balance_micros"].as_i64() == Some(0), "{full}");
    let watch = ["access", "watch", &client, "tile", "--json", "--limit", "1"];
    ensure!(up.cli(&watch)?.status.success(), "the first answer of a watch");
    use_tiles(&up, dir.path(), &client)?;
    let grace = becomes(&up, &client, "GRACE").await?;
    ensure!(grace["answer"]["balance_micros"].as_i64() == Some(-5_000_000), "{grace}");
    ensure!(text(&grace, "/answer/grace_deadline").is_ok() && grace["answer"]["allowed"] == true, "{grace}");
    let limited = becomes(&up, &client, "LIMITED").await?;
    ensure!(text(&limited, "/answer/reason")? == "ACCESS_REASON_GRACE_OVER", "{limited}");
    ensure!(limited["answer"]["remedies"][0]["tokens_micros"].as_i64() == Some(5_000_000), "{limited}");
    let free = up.json(&["access", "check", &client, "tile.free"])?;
    ensure!(free["answer"]["allowed"] == true, "{free}");
    let bought = tokio::time::Instant::now();
    up.json(&purchase)?;
    let full = becomes(&up, &client, "FULL").await?;
    let known = bought.elapsed();
    ensure!(full["answer"]["balance_micros"].as_i64() == Some(95_000_000), "{full}");
    ensure!(text(&full, "/answer/billed_to/team_id")? == team && known.as_secs() < 10, "{known:?} {full}");
    up.stop().await
}
