//! `drawdown up` and the operator's commands, as a person would type them.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use drawdown_tests::{
    process::{Program, wait_until},
    scrape,
    up::{UP_LIMIT, Up, text},
};
use serde_json::Value;
use tempfile::TempDir;

const RULES: &str = "[[rule]]\npath_prefix = \"/tiles\"\nclient_id = \"CLIENT\"\nmeter = \"tile\"\n";
const LINES: &str = concat!(
    "{\"time\":\"NOW\",\"method\":\"GET\",\"path\":\"/tiles/1\",\"status\":200,\"bytes\":10}\n",
    "{\"time\":\"NOW\",\"method\":\"GET\",\"path\":\"/tiles/2\",\"status\":200,\"bytes\":10}\n",
    "{\"time\":\"NOW\",\"method\":\"GET\",\"path\":\"/tiles/3\",\"status\":500,\"bytes\":10}\n",
    "{\"time\":\"NOW\",\"method\":\"GET\",\"path\":\"/health\",\"status\":200,\"bytes\":2}\n",
    "{\"time\":\"NOW\",\"method\":\n",
);

/// Rules of the meters of largest and distinct values, and what their log has: 70 bytes at most, and two users.
const COUNTED_RULES: &str = "[[rule]]\npath = \"/peak\"\nclient_id = \"CLIENT\"\nmeter = \"tile.peak\"\nquantity = \"bytes\"\n\
    [[rule]]\npath = \"/ann\"\nclient_id = \"CLIENT\"\nmeter = \"tile.user\"\ndimensions = { user = \"ann\" }\n\
    [[rule]]\npath = \"/bob\"\nclient_id = \"CLIENT\"\nmeter = \"tile.user\"\ndimensions = { user = \"bob\" }\n";
const COUNTED: [(&str, u32); 6] =
    [("/peak", 30), ("/ann", 1), ("/peak", 70), ("/bob", 1), ("/ann", 1), ("/peak", 50)];

/// A platform, and the arguments of a replay of its log.
struct Platform {
    team: String,
    app: String,
    client: String,
    replay: Vec<String>,
}

/// Enters a small platform since January, whose app has no team yet.
fn set_up(up: &Up, dir: &Path) -> Result<Platform> {
    let since = ["--created-at", "2026-01-01T00:00:00Z"];
    let account = ["account", "create", "--name", "A", "--contract", "flex", "--commercial"];
    let account = up.json(&[&account[..], &since].concat())?;
    let account = text(&account, "/account/account_id")?;
    let team = up.json(&[&["team", "create", "--account", account, "--name", "T"][..], &since].concat())?;
    let team = text(&team, "/team/team_id")?.to_owned();
    let app = up.json(&["app", "create", "--account", account, "--name", "tiles"])?;
    let app = text(&app, "/app/app_id")?.to_owned();
    let credential = up.json(&[&["credential", "create", &app][..], &since].concat())?;
    ensure!(text(&credential, "/client_secret")?.len() >= 40, "the secret is short");
    up.json(&["meter", "create", "tile", "--unit", "call", "--aggregation", "count"])?;
    let peak = ["meter", "create", "tile.peak", "--unit", "byte", "--aggregation", "max", "--per", "month"];
    up.json(&peak)?;
    let user =
        ["meter", "create", "tile.user", "--unit", "user", "--aggregation", "unique", "--per", "month"];
    up.json(&[&user[..], &["--unique", "user", "--dimension", "user"]].concat())?;
    std::fs::write(
        dir.join("card.toml"),
        "name = \"tiles\"\ncontract = \"flex\"\neffective_from = \"2020-01-01T00:00:00Z\"\n\
         [[prices]]\nmeter = \"tile\"\ntokens = \"2.5\"\nper_units = 1\nfailed_is_free = true\n\
         [[prices]]\nmeter = \"tile.peak\"\ntokens = \"0.5\"\nper_units = 1\n\
         [[prices]]\nmeter = \"tile.user\"\ntokens = \"3\"\nper_units = 1\n",
    )?;
    let card = dir.join("card.toml");
    up.json(&["rate-card", "publish", &card.to_string_lossy(), "--set-up"])?;
    let refused = up.cli(&["tokens", "purchase", "99", "--account", account, "--team", &team])?;
    ensure!(!refused.status.success(), "99 tokens were sold");
    let told = String::from_utf8_lossy(&refused.stderr);
    ensure!(told.contains("PURCHASE_TOO_SMALL"), "{told}");
    up.json(&["tokens", "purchase", "100", "--account", account, "--team", &team])?;
    touch_lots(up, account, &team)?;
    let producer = up.json(&["producer", "create", "--name", "gateway"])?;
    let producer = text(&producer, "/producer_id")?;
    let (log, rules) = (dir.join("access.jsonl"), dir.join("rules.toml"));
    let client = text(&credential, "/client_id")?.to_owned();
    std::fs::write(&rules, RULES.replace("CLIENT", &client))?;
    std::fs::write(&log, LINES.replace("NOW", "2026-01-01T00:00:00Z"))?;
    let replay = ["replay", &log.to_string_lossy(), "--rules", &rules.to_string_lossy()]
        .into_iter()
        .chain(["--shift-end", "now", "--producer", producer, "--log-dir"])
        .map(str::to_owned)
        .chain([dir.join("log").to_string_lossy().into_owned()])
        .collect();
    Ok(Platform { team, app, client, replay })
}

/// Holds tokens, gives them back, moves the lot to another team and back, and makes it larger and smaller.
fn touch_lots(up: &Up, account: &str, team: &str) -> Result<()> {
    let lots = up.json(&["lots", team])?;
    let lot = text(&lots, "/lots/0/lot_id")?;
    let owner = ["--account", account, "--team", team];
    let hold = up.json(&[&["hold", "reserve", "12.5", "--lasts-ms", "60000"][..], &owner].concat())?;
    let hold = text(&hold, "/hold/hold_id")?;
    let (spare, why) = (up.json(&["team", "create", "--account", account, "--name", "S"])?, "a test");
    let spare = text(&spare, "/team/team_id")?;
    let there = ["lot", "move", lot, "--account", account, "--from", team, "--to", spare, "--reason", why];
    let refused = up.cli(&there)?;
    let told = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && told.contains("LOT_HELD"), "{told}");
    up.json(&["hold", "extend", hold, "--team", team, "--lasts-ms", "120000", "--more", "1"])?;
    ensure!(up.json(&["hold", "list", team])?["holds"].as_array().is_some_and(|holds| holds.len() == 1));
    let released = up.json(&["hold", "release", hold, "--team", team])?;
    ensure!(text(&released, "/hold/state")? == "HOLD_STATE_RELEASED", "{released}");
    up.json(&["hold", "show", hold, "--team", team])?;
    up.json(&there)?;
    up.json(&["lot", "move", lot, "--account", account, "--from", spare, "--to", team, "--reason", why])?;
    let charge = ["ledger", "correct", "chg_01j2gv5gymfsfrn6rc3mq3yjjv", "--instead", "1", "--reason", why];
    let refused = up.cli(&[&charge[..], &owner].concat())?;
    let told = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && told.contains("CHARGE_UNKNOWN"), "{told}");
    for by in ["--by=2.5", "--by=-2.5"] {
        up.json(&[&["lot", "adjust", lot, by, "--reason", why][..], &owner].concat())?;
    }
    Ok(())
}

/// Usage of a meter of largest and one of distinct values costs what its largest and its distinct values cost (D19).
fn counted(up: &Up, dir: &Path, Platform { team, client, .. }: &Platform) -> Result<()> {
    let (log, rules) = (dir.join("counted.jsonl"), dir.join("counted.toml"));
    std::fs::write(&rules, COUNTED_RULES.replace("CLIENT", client))?;
    let line = |(path, bytes): &(&str, u32)| {
        format!(
            "{{\"time\":\"2026-01-01T00:00:00Z\",\"method\":\"GET\",\"path\":\"{path}\",\"status\":200,\"bytes\":{bytes}}}\n"
        )
    };
    std::fs::write(&log, COUNTED.iter().map(line).collect::<String>())?;
    let producer = up.json(&["producer", "create", "--name", "counted"])?;
    let (log, rules) = (log.to_string_lossy(), rules.to_string_lossy());
    let log_dir = dir.join("counted-log");
    let replay =
        ["replay", &log, "--rules", &rules, "--shift-end", "now", "--log-dir", &log_dir.to_string_lossy()];
    let replayed = up.json(&[&replay[..], &["--producer", text(&producer, "/producer_id")?]].concat())?;
    ensure!(replayed["events"].as_u64() == Some(6), "{replayed}");
    let charges = up.json(&["charges", team])?;
    for (meter, events, amount) in [("tile.peak", 3, 35_000_000), ("tile.user", 3, 6_000_000)] {
        let charges = charges["charges"].as_array().context("no charges")?;
        let of_meter = || charges.iter().filter(|charge| charge["meter"] == meter);
        let sum = |field: &str| of_meter().filter_map(|charge| charge[field].as_i64()).sum::<i64>();
        ensure!((sum("events"), sum("amount_micros")) == (events, amount), "{meter}: {charges:?}");
        ensure!(of_meter().all(|charge| charge["dimensions"]["user"].is_null()), "{charges:?}");
    }
    Ok(())
}

/// What was replayed was told while it was live, and is not live any more; every filter is understood.
async fn live(
    up: &Up,
    mut watcher: Program,
    Platform { app, client, .. }: &Platform,
    dir: &Path,
) -> Result<()> {
    let ended = watcher.wait(UP_LIMIT).await?;
    ensure!(ended.success(), "the watcher ended with {ended}; {}", watcher.log_tail());
    let told = std::fs::read_to_string(dir.join("watch.log"))?;
    let messages = told.lines().map(serde_json::from_str).collect::<serde_json::Result<Vec<Value>>>()?;
    let lines: Vec<&Value> =
        messages.iter().filter_map(|message| message["usage"].as_array()).flatten().collect();
    ensure!(!lines.is_empty(), "{told}");
    for line in lines {
        ensure!(text(line, "/app_id")? == app && text(line, "/series/client_id")? == client, "{told}");
        ensure!(line["part"]["batch"].as_u64().is_some_and(|batch| batch > 0), "{told}");
    }
    let by_all = [&["usage", "live", client, "--app", app, "--dimension", "region=eu"][..], &["--by-batch"]];
    for asked in [&["usage", "live", client][..], &["usage", "live", "--app", app], &by_all.concat()] {
        let live = up.json(asked)?;
        ensure!(live["usage"].as_array().is_some_and(Vec::is_empty), "{asked:?}: {live}");
        ensure!(text(&live, "/complete_up_to").is_ok(), "{live}");
    }
    let refused = up.cli(&["usage", "live"])?;
    ensure!(refused.status.code() == Some(64), "{}", String::from_utf8_lossy(&refused.stderr));
    Ok(())
}

/// Events of a list.
fn events(answer: &Value, list: &str) -> i64 {
    answer[list].as_array().into_iter().flatten().filter_map(|line| line["events"].as_i64()).sum()
}

/// Events charged to the team.
fn charged(up: &Up, team: &str) -> Result<i64> {
    Ok(events(&up.json(&["charges", team])?, "charges"))
}

/// Events that nobody was charged for yet.
fn open(up: &Up) -> Result<i64> {
    Ok(events(&up.json(&["unattributed", "list", "--state", "open"])?, "usage"))
}

/// Files of the team's usage, saved and to the standard output, say what its charges say.
fn exported(up: &Up, account: &str, team: &str, dir: &Path) -> Result<()> {
    let charges = up.json(&["charges", team])?;
    let charges = charges["charges"].as_array().context("no charges")?;
    let events: i64 = charges.iter().filter_map(|charge| charge["events"].as_i64()).sum();
    let focus =
        ["--billing-currency", "EUR", "--token-price", "1.5", "--provider", "Acme", "--service", "Tiles"];
    for (format, more) in [("csv", &[][..]), ("parquet", &[]), ("focus", &focus)] {
        let days = ["--account", account, "--team", team, "--from", "2020-01-01", "--to", "2100-01-01"];
        let asked = [&["usage", "export", "--format", format][..], &days, more].concat();
        let saved = dir.join(format);
        let summary = up.json(&[&asked[..], &["--out", &saved.to_string_lossy()]].concat())?;
        ensure!(summary["sums"]["events"].as_i64() == Some(events), "{events} events, and {summary}");
        let saved = std::fs::read(saved)?;
        ensure!(summary["size_bytes"].as_i64() == i64::try_from(saved.len()).ok(), "{summary}");
        let printed = up.cli(&asked)?;
        ensure!(printed.status.success() && printed.stdout == saved, "{format} is another file");
    }
    Ok(())
}

/// Who watches looks often, and what is applied stays unsettled for a while: else it may come and go between two looks, and a
/// watcher is rightly told of none of it.
const WATCHFUL: [(&str, &str); 2] = [
    ("DRAWDOWN_METERING__USAGE__WATCH_INTERVAL_MS", "20"),
    ("DRAWDOWN_METERING__SETTLE__INTERVAL_MS", "3000"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sets_up_meters_and_finds_everything_again_after_a_restart() -> Result<()> {
    let dir = TempDir::with_prefix("drawdown-up-")?;
    let up = Up::start_with(dir.path(), &WATCHFUL).await?;
    let platform = set_up(&up, dir.path())?;
    let Platform { team, app, replay, .. } = &platform;
    up.json(&["app", "assign", app, "--team", team, "--from", "2026-01-01T00:00:00Z"])?;
    let replay: Vec<&str> = replay.iter().map(String::as_str).collect();
    let watch = ["usage", "watch", "--app", app, "--meter", "tile", "--json", "--limit", "1"];
    let watcher = up.follow("watch", &watch, dir.path())?;
    let told = || async { Ok(std::fs::metadata(dir.path().join("watch.log"))?.len() > 0) };
    wait_until("the watcher to be told of what there is", UP_LIMIT, told).await?;
    let replayed = up.json(&replay)?;
    live(&up, watcher, &platform, dir.path()).await?;
    let tally = |value: &Value| {
        ["lines", "events", "malformed", "ignored"].map(|name| value[name].as_u64().unwrap_or_default())
    };
    ensure!(tally(&replayed) == [5, 3, 1, 1], "{replayed}");
    ensure!(tally(&up.json(&replay)?) == [5, 3, 1, 1], "the second run counted again");
    counted(&up, dir.path(), &platform)?;
    let verified = up.cli(&["ledger", "verify"])?;
    ensure!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    let before = up.json(&["balance", team])?;
    let earlier = up.json(&["balance", team, "--recorded-until", "2026-01-01T00:00:00Z"])?;
    ensure!(earlier["balance"]["purchased_micros"].as_i64().unwrap_or_default() == 0, "{earlier}");
    ensure!(earlier["as_of"]["final"] == true, "{earlier}");
    let addresses = up.addresses()?;
    for (service, metric) in [
        ("metering", "drawdown_metering_settlement_lag_seconds"),
        ("metering", "drawdown_metering_events_unsettled"),
        ("ledger", "drawdown_ledger_batches_posted_total"),
    ] {
        let page = scrape::page(text(&addresses, &format!("/services/{service}/metrics"))?).await?;
        ensure!(scrape::sum(&page, metric).is_some(), "no {metric} in\n{page}");
    }
    exported(&up, text(&before, "/balance/account_id")?, team, dir.path())?;
    ensure!(up.cli(&["status"])?.status.success(), "status says that something is down");
    up.stop().await?;
    let up = Up::start(dir.path()).await?;
    let after = up.json(&["balance", team])?;
    let used = "/balance/used_micros";
    ensure!(before.pointer(used) == after.pointer(used), "{before}\n{after}");
    ensure!((charged(&up, team)?, open(&up)?) == (9, 0), "not all of nine events are charged");
    up.stop().await
}

/// Windows of a second, so that the edge from which the app has its team is seconds away.
const SHORT_WINDOWS: [(&str, &str); 3] = [
    ("DRAWDOWN_ENTITLEMENT__WINDOW_SECS", "1"),
    ("DRAWDOWN_LEDGER__WINDOW_SECS", "1"),
    ("DRAWDOWN_ENTITLEMENT__ADOPTION_INTERVAL_MS", "200"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d49_what_an_app_used_before_its_first_team_is_charged_to_it() -> Result<()> {
    let dir = TempDir::with_prefix("drawdown-up-")?;
    let up = Up::start_with(dir.path(), &SHORT_WINDOWS).await?;
    let Platform { team, app, replay, .. } = set_up(&up, dir.path())?;
    let replay: Vec<&str> = replay.iter().map(String::as_str).collect();
    up.json(&replay)?;
    ensure!((charged(&up, &team)?, open(&up)?) == (0, 3), "somebody paid without a team");
    up.json(&["app", "assign", &app, "--team", &team])?;
    wait_until("adoption", UP_LIMIT, || async { Ok(open(&up)? == 0) }).await?;
    ensure!(charged(&up, &team)? == 3, "not all of three events are charged");
    let balance = up.json(&["balance", &team])?;
    ensure!(balance["balance"]["used_micros"].as_i64() == Some(5_000_000), "{balance}");
    let verified = up.cli(&["ledger", "verify"])?;
    ensure!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    up.stop().await
}
