//! `cargo xtask bench record`: callers without a log, alone and many at once, on one installation.
//!
//! Each caller waits for its answer and calls again. Beside calls a second it tells how long a call took and how many
//! events shared a post: a post is one transaction of the ledger, so its cost is what they share.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{calls, per_second};
use crate::{
    figures::Figures,
    installation::{Installation, Settings},
    load_platform::{LoadPlatform, LoadSize, ledger_totals, set_up},
    scrape,
};

/// Callers at once, and events of a call.
const STEPS: [(usize, usize); 5] = [(1, 1), (16, 1), (64, 1), (256, 1), (64, 100)];
/// What the ledger was sent: events, posts, and seconds that these took.
const POSTED: [&str; 3] = [
    "drawdown_metering_record_events_posted_total",
    "drawdown_metering_record_post_duration_seconds_count",
    "drawdown_metering_record_post_duration_seconds_sum",
];

/// Runs all steps, each for `length`.
///
/// # Errors
/// Where a call is refused, or the ledger's sums are not those of the callers.
pub async fn run(length: Duration, apps: usize) -> Result<Figures> {
    let installation = Installation::start(&Settings::default()).await?;
    let mut figures = Figures::new("record", installation.dir())?;
    let mut platform = set_up(installation.channels(), LoadSize { teams: 10, apps, meters: 10 }).await?;
    for (callers, events) in STEPS {
        let step = step(&installation, &mut platform, (callers, events), length, &mut figures).await;
        step.with_context(|| installation.logs())?;
    }
    check(&installation, &platform).await?;
    installation.stop().await?;
    Ok(figures)
}

async fn step(
    installation: &Installation,
    platform: &mut LoadPlatform,
    (callers, events): (usize, usize),
    length: Duration,
    figures: &mut Figures,
) -> Result<()> {
    let name = format!("{callers}_callers_{events}_events");
    let page = &installation.metrics()[0];
    let before = scrape::page(page).await?;
    let calls = calls::Calls { endpoint: &installation.endpoints().metering, name: &name, callers, events };
    let run = calls::run(calls, &mut platform.series, length).await?;
    let after = scrape::page(page).await?;
    let mut grown = [0.0; 3];
    for (grown, metric) in grown.iter_mut().zip(POSTED) {
        // Before the first post there is none.
        let before = scrape::sum(&before, metric).unwrap_or_default();
        *grown = scrape::sum(&after, metric).context(metric)? - before;
    }
    let [posted, posts, secs] = grown;
    let [p50, p99] = [0.5, 0.99].map(|quantile| run.quantile_ms(quantile));
    let rate = per_second(run.calls, run.took);
    println!("{name}: {rate} calls/s, p50 {p50:.1} ms, p99 {p99:.1} ms");
    for (what, value) in [
        ("calls_per_s", rate),
        ("p50_ms", p50),
        ("p99_ms", p99),
        ("events_per_post", posted / posts),
        ("post_mean_ms", 1000.0 * secs / posts),
    ] {
        figures.add(&format!("record_{name}_{what}"), value);
    }
    Ok(())
}

/// The ledger has charged what was drawn, to the unit.
async fn check(installation: &Installation, platform: &LoadPlatform) -> Result<()> {
    let add = |sum: (u64, u64), (events, quantity)| (sum.0 + events, sum.1 + quantity);
    let sent = platform.series.iter().map(|series| (series.events, series.quantity)).fold((0, 0), add);
    let charged = ledger_totals(installation.channels(), platform).await?;
    ensure!(charged == sent, "charged {charged:?}, sent {sent:?}: no figure is worth printing");
    println!("the ledger has charged all {} events, {} units", charged.0, charged.1);
    Ok(())
}
