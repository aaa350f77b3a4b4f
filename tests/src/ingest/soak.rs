//! `cargo xtask bench ingest-soak --minutes 10`: full load, and what metering's memory does meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{baseline, close, open, per_second, servers};
use crate::{
    figures::Figures,
    installation::{Installation, Service, Settings},
    load::{self, settled_lag_p99_ms},
    load_platform::{LoadSize, ledger_totals, set_up},
    process::Program,
};

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Share of the run, in percent, after which the slope is taken: caches are full by then.
const WARM_PERCENT: usize = 20;
const MIB: f64 = 1024.0 * 1024.0;

/// Limits of the run, so that the bound of `crates/metering/src/config.rs` is a figure: streams, series of a stream, blobs
/// of a batch.
const STREAMS: u32 = 4;
const SERIES: u32 = 16_384;
const BLOBS: u32 = 512;

/// The bound that these limits make, in MiB: of the stream 2 entries of at most 512 bytes a series, 3 messages of
/// 16 MiB and the events of a frame; of 16 shards 2 × 16,384 counters of 128 bytes; of 4 batches at once their blobs, of 64
/// bytes a counter of a thousand series.
fn bound_mib() -> f64 {
    let stream = 2.0 * f64::from(SERIES) * 512.0 + 3.0 * 16.0 * MIB + 65_536.0 * 24.0;
    let shards = 16.0 * 2.0 * 16_384.0 * 128.0;
    let batches = 4.0 * f64::from(BLOBS) * 1000.0 * 64.0;
    (f64::from(STREAMS) * stream + shards + batches) / MIB
}

/// Loads one installation for `length`.
///
/// # Errors
/// Where something is refused, or the ledger's sums are not those of the generator.
pub async fn run(length: Duration) -> Result<Figures> {
    let further_toml = format!(
        "[metering.ingest]\nstreams_max = {STREAMS}\nseries_per_stream_max = {SERIES}\nshard_counters_max = 16384\n\
         shard_series_max = 16384\n[metering.flush]\nbatch_blobs_max = {BLOBS}\n"
    );
    let settings = Settings { further_toml, ..Settings::default() };
    let mut installation = Installation::start(&settings).await?;
    let mut figures = Figures::new("ingest-soak", installation.dir())?;
    let (redis, postgres) = servers(&installation);
    println!("{}", baseline::durability(&redis, &postgres).await?);
    let size = LoadSize { teams: 10, apps: 1000, meters: 10 };
    let mut platform = set_up(installation.channels(), size).await?;
    let pid = installation.pid(Service::Metering)?;
    let endpoint = &installation.endpoints().metering;
    let producer = open(&installation.dir().join("soak-log"), endpoint, &platform.producer, None).await?;
    let start = Instant::now();
    let looking = tokio::spawn(async move {
        let (mut looks, mut seen) = (tokio::time::interval(LOOK_EVERY), Vec::new());
        while start.elapsed() < length {
            looks.tick().await;
            #[expect(clippy::cast_precision_loss, reason = "a figure needs no more than 52 bits")]
            let mib = Program::resident_bytes(pid)? as f64 / MIB;
            seen.push((start.elapsed().as_secs_f64() / 60.0, mib));
        }
        Ok::<_, anyhow::Error>(seen)
    });
    let run = load::run(&producer, &mut platform.series, length).await;
    let run = run.with_context(|| installation.logs())?;
    let seen = looking.await??;
    close(producer).await?;
    let charged = ledger_totals(installation.channels(), &platform).await?;
    let quantity: u64 = platform.series.iter().map(|series| series.quantity).sum();
    ensure!(
        charged == (run.events, quantity),
        "charged {charged:?}, appended {:?}: no figure is worth printing",
        (run.events, quantity)
    );
    println!("the ledger has charged all {} events, {} units", charged.0, charged.1);
    installation.stop().await?;
    let peak = seen.iter().map(|(_, mib)| *mib).fold(0.0, f64::max);
    ensure!(peak <= bound_mib(), "metering took {peak:.0} MiB, its limits allow {:.0}", bound_mib());
    let warm = &seen[seen.len() * WARM_PERCENT / 100..];
    figures.add("applied_events_per_s", per_second(run.events, run.applied_after));
    figures.add("settled_events_per_s", per_second(run.events, run.settled_after));
    figures.add("settled_lag_p99_ms", settled_lag_p99_ms(&run.samples));
    figures.add("metering_rss_peak_mib", peak);
    figures.add("metering_rss_bound_mib", bound_mib());
    figures.add("metering_rss_slope_kib_per_min", slope(warm) * 1024.0);
    Ok(figures)
}

/// The slope of the straight line through points, by least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    let n = points.len().max(1) as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let over: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let under: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if under > 0.0 { over / under } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn the_slope_of_a_line_is_found_through_noise_around_it() {
        let points: Vec<(f64, f64)> =
            (0..100).map(|x| (f64::from(x), 3.0 * f64::from(x) + f64::from(x % 2) - 0.5)).collect();
        assert!((slope(&points) - 3.0).abs() < 0.01, "{}", slope(&points));
        assert!(slope(&[(1.0, 2.0)]).abs() < f64::EPSILON);
    }
}
