//! A platform moves here: accounts come from a file, their gateways go on with the client ids they have.

use std::path::Path;

use anyhow::{Result, ensure};
use drawdown_tests::up::{Up, text};
use serde_json::Value;
use tempfile::TempDir;

const OLD: &str = r#"{"name":"Northwind","created_at":"2025-06-01T00:00:00Z","contract":"flex","commercial_from":"2025-06-01T00:00:00Z","teams":[{"name":"Maps","created_at":"2025-06-01T00:00:00Z","members":[{"email":"bo@example.org","name":"Bo","role":"primary_admin","from":"2025-06-01T00:00:00Z"}]}],"apps":[{"name":"Atlas","owner":"bo@example.org","teams":[{"team":"Maps","from":"2025-06-01T00:00:00Z"}],"credentials":[{"client_id":"atlas-1","created_at":"2025-06-01T00:00:00Z"}]}]}

{"name":"Tailspin","created_at":"2025-07-01T00:00:00Z","contract":"flex","commercial_from":"2025-07-01T00:00:00Z"}
"#;
const CARD: &str = "name = \"tiles\"\ncontract = \"flex\"\neffective_from = \"2020-01-01T00:00:00Z\"\n\
    [[prices]]\nmeter = \"tile\"\ntokens = \"2.5\"\nper_units = 1\n";
const RULES: &str = "[[rule]]\npath_prefix = \"/\"\nclient_id = \"atlas-1\"\nmeter = \"tile\"\n";
const LINE: &str =
    "{\"time\":\"2026-01-01T00:00:00Z\",\"method\":\"GET\",\"path\":\"/1\",\"status\":200,\"bytes\":10}\n";

/// Imports the file of that name.
fn import(up: &Up, dir: &Path, more: &[&str]) -> Result<Value> {
    let file = dir.join("old.jsonl");
    up.json(&[&["account", "import", &file.to_string_lossy(), "--note", "moved"][..], more].concat())
}

/// The calls of the gateway go on under their old client id.
fn replay(up: &Up, dir: &Path) -> Result<()> {
    for (file, content) in [("card.toml", CARD), ("rules.toml", RULES), ("access.jsonl", LINE)] {
        std::fs::write(dir.join(file), content)?;
    }
    let file = |name: &str| dir.join(name).to_string_lossy().into_owned();
    up.json(&["meter", "create", "tile", "--unit", "call", "--aggregation", "count"])?;
    up.json(&["rate-card", "publish", &file("card.toml"), "--set-up"])?;
    let producer = up.json(&["producer", "create", "--name", "gateway"])?;
    let producer = text(&producer, "/producer_id")?;
    let (access, rules, log) = (file("access.jsonl"), file("rules.toml"), file("log"));
    let replay = ["replay", &access, "--rules", &rules, "--shift-end", "now", "--log-dir", &log];
    up.json(&[&replay[..], &["--producer", producer]].concat())?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d61_a_platform_moves_here_and_its_first_purchase_makes_the_first_team() -> Result<()> {
    let dir = TempDir::with_prefix("drawdown-moving-")?;
    let up = Up::start_with(dir.path(), &[]).await?;
    std::fs::write(dir.path().join("old.jsonl"), OLD)?;
    let told = import(&up, dir.path(), &["--dry-run"])?;
    ensure!(told["accounts"].as_array().is_some_and(|accounts| accounts.len() == 2), "{told}");
    ensure!(up.json(&["team", "list"])?["teams"].as_array().is_some_and(Vec::is_empty), "a dry run wrote");
    let moved = import(&up, dir.path(), &[])?;
    ensure!(import(&up, dir.path(), &[])? == moved, "the same file is another import");
    let maps = text(&moved, "/accounts/0/teams/0/team_id")?;
    let northwind = text(&moved, "/accounts/0/account/account_id")?;
    let tailspin = text(&moved, "/accounts/1/account/account_id")?;

    up.json(&["tokens", "purchase", "100", "--account", northwind])?;
    let bought = up.json(&["tokens", "purchase", "100", "--account", tailspin])?;
    let teams = up.json(&["team", "list", "--account", tailspin])?;
    let first = text(&teams, "/teams/0/team_id")?;
    ensure!(text(&bought, "/lot/team_id")? == first, "{bought} is not of {first}");
    ensure!(text(&teams, "/teams/0/name")? == "Tailspin", "{teams}");

    replay(&up, dir.path())?;
    let balance = up.json(&["balance", maps])?;
    ensure!(balance["balance"]["used_micros"].as_i64() == Some(2_500_000), "{balance}");

    std::fs::write(dir.path().join("old.jsonl"), OLD.replace("Northwind", "Southwind"))?;
    let file = dir.path().join("old.jsonl");
    let again = up.cli(&["account", "import", &file.to_string_lossy(), "--note", "again"])?;
    let told = String::from_utf8_lossy(&again.stderr);
    ensure!(!again.status.success() && told.contains("IMPORT_REFUSED"), "{told}");
    ensure!(told.contains("accounts[0].apps[0].credentials[0].client_id"), "{told}");
    up.stop().await
}
