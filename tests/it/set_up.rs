//! Entering a platform with its original instants (D61).

use anyhow::{Context as _, Result, ensure};
use drawdown_tests::{
    installation::{Installation, Service, Settings},
    platform::set_up,
    replay::Trial,
    report::{lots, verify},
};
use drawdown_types::{Clock as _, SystemClock};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_up_that_is_sent_twice_is_entered_once() -> Result<()> {
    let services = vec![Service::Ledger, Service::Entitlement];
    let installation = Installation::start(&Settings { services, ..Settings::default() }).await?;
    let trial = Trial::ending_at(SystemClock.now())?;
    let channels = installation.channels();
    let first = set_up(channels, &trial.scenario).await?;
    let second = set_up(channels, &trial.scenario).await?;
    ensure!(first == second, "{first:#?}\n{second:#?}");
    let web = lots(channels, &first.teams["web"]).await?;
    let states: Vec<_> = web.iter().map(|lot| (lot.note.as_str(), lot.state().as_str_name())).collect();
    let expected = [
        ("web, expiring inside", "LOT_STATE_CLOSING"),
        ("web, open", "LOT_STATE_OPEN"),
        ("web, expired before", "LOT_STATE_CLOSED"),
    ];
    ensure!(states == expected, "{states:?}");
    let (violations, sentences) = verify(channels).await?;
    ensure!(violations == 0, "{sentences:#?}");
    installation.stop().await
}

/// What `drawdown ledger postings` tells: postings, the cursor behind them, and whether more follows.
fn postings(installation: &Installation, account: &str, more: &[&str]) -> Result<(Vec<Value>, String, bool)> {
    let answer = installation.json(&[&["ledger", "postings", "--account", account][..], more].concat())?;
    let postings = answer["postings"].as_array().context("no list")?.clone();
    let cursor = answer["cursor"].as_str().context("no cursor")?.to_owned();
    Ok((postings, cursor, answer["more"].as_bool().context("more or not")?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_posted_is_pulled_once_in_whatever_parts() -> Result<()> {
    let services = vec![Service::Ledger, Service::Entitlement];
    let installation = Installation::start(&Settings { services, ..Settings::default() }).await?;
    let trial = Trial::ending_at(SystemClock.now())?;
    let platform = set_up(installation.channels(), &trial.scenario).await?;
    for account in platform.accounts.values() {
        let (all, end, more) = postings(&installation, account, &[])?;
        ensure!(!more && all.len() > 1, "{account}: {all:#?}");
        let (mut pulled, mut cursor, mut more) = (Vec::new(), String::new(), true);
        while more {
            let between = ["--cursor", &cursor, "--until", &end, "--limit", "1"];
            let (part, next, follows) = postings(&installation, account, &between)?;
            ensure!(part.len() <= 1, "{part:#?}");
            pulled.extend(part);
            (cursor, more) = (next, follows);
        }
        ensure!(pulled == all && cursor == end, "{account}: {pulled:#?}, of {all:#?}");
        let of =
            |posting: &Value, path: &str| posting.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let told: Vec<_> = all.iter().filter_map(|posting| of(posting, "/row/lot_id")).collect();
        let teams: Vec<_> = all.iter().filter_map(|posting| of(posting, "/team_id")).collect();
        for team in platform.teams.values().filter(|team| teams.contains(team)) {
            for lot in lots(installation.channels(), team).await? {
                ensure!(told.contains(&lot.lot_id), "{} is not told", lot.lot_id);
            }
        }
        let (nothing, _, more) = postings(&installation, account, &["--new-only"])?;
        ensure!(nothing.is_empty() && !more, "{nothing:#?}");
    }
    installation.stop().await
}
