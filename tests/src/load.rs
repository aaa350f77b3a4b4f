//! The load of benches: many series, skewed as real traffic is, with a closed form to compare with.
//!
//! Series are drawn by Zipf's law with exponent 1 through an alias table (Vose), quantities from 0 to
//! 1023; what was drawn is added up per series, so the sum of everything is known before any service
//! has seen it. Drawing costs a few nanoseconds an event.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use drawdown_client::producer::{AppendError, Outcome, Producer, SeriesHandle, SeriesUsage, Usage};
use drawdown_types::{Clock as _, SystemClock, Timestamp};
use tokio_util::sync::CancellationToken;

/// Events drawn and appended in one go.
const CHUNK: usize = 1024;
/// The dimension that load with very many series has.
pub const DIMENSION: &str = "part";
/// Largest quantity, plus one; a power of two.
pub(crate) const QUANTITY_END: u64 = 1024;

/// A skewed choice among `n`.
#[derive(Debug)]
pub struct Zipf {
    accept: Vec<u32>,
    alias: Vec<u32>,
}

impl Zipf {
    /// Item `i` of `n` is drawn in proportion to 1 / (i + 1).
    #[must_use]
    pub fn new(n: usize) -> Self {
        let weights: Vec<f64> = (0..n).map(|i| 1.0 / to_f64(i + 1)).collect();
        let total: f64 = weights.iter().sum();
        let mut scaled: Vec<f64> = weights.iter().map(|weight| weight * to_f64(n) / total).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..n).partition(|i| scaled[*i] < 1.0);
        let mut accept = vec![u32::MAX; n];
        let mut alias: Vec<u32> = (0..n).map(|i| u32::try_from(i).unwrap_or(u32::MAX)).collect();
        while let (Some(low), Some(high)) = (small.pop(), large.pop()) {
            accept[low] = threshold(scaled[low]);
            alias[low] = u32::try_from(high).unwrap_or(u32::MAX);
            scaled[high] -= 1.0 - scaled[low];
            if scaled[high] < 1.0 { small.push(high) } else { large.push(high) }
        }
        Self { accept, alias }
    }

    /// One item, by 64 random bits.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the bits are used one by one")]
    pub fn draw(&self, bits: u64) -> usize {
        let n = self.accept.len() as u64;
        let column = usize::try_from((u64::from((bits >> 32) as u32) * n) >> 32).unwrap_or_default();
        if (bits as u32) <= self.accept[column] { column } else { self.alias[column] as usize }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of 2^32, at most that")]
fn threshold(share: f64) -> u32 {
    (share * f64::from(u32::MAX)) as u32
}

#[expect(clippy::cast_precision_loss, reason = "figures and weights need no more than 52 bits")]
fn to_f64(n: usize) -> f64 {
    n as f64
}

/// A fast generator of random bits (splitmix64), seeded so that runs are alike.
#[derive(Debug)]
pub struct Bits(pub u64);

impl Bits {
    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// One series of the load, with what was appended to it. Texts that series have in common are shared, as small as they are in a
/// program that has just read them: else with many series the load itself would wait for memory most.
#[derive(Debug, Clone)]
pub struct LoadSeries {
    /// The client id.
    pub client_id: Arc<str>,
    /// The meter.
    pub meter: Arc<str>,
    /// The value of [`DIMENSION`], where it has one.
    pub dimension: Option<Arc<str>>,
    /// Events appended.
    pub events: u64,
    /// Quantity appended.
    pub quantity: u64,
}

/// How far a run was at an instant.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Since the first append.
    pub at: Duration,
    /// Appended by then.
    pub appended: u64,
    /// Applied by then.
    pub applied: u64,
    /// Settled by then.
    pub settled: u64,
}

/// What a run of load came to.
#[derive(Debug)]
pub struct LoadRun {
    /// Events appended.
    pub events: u64,
    /// From the first append until all were applied.
    pub applied_after: Duration,
    /// From the first append until all were settled.
    pub settled_after: Duration,
    /// Samples, some ten milliseconds apart.
    pub samples: Vec<Sample>,
}

/// How often progress is sampled.
const SAMPLE_EVERY: Duration = Duration::from_millis(10);

/// How the load names the series of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// By its texts, each time.
    Names,
    /// By a handle, looked up once before the load begins.
    Handles,
}

/// Appends for `length`, then waits until everything is settled; progress is sampled beside it.
///
/// # Errors
/// Where the producer stops or a lane is stopped.
pub async fn run(producer: &Producer, series: &mut Vec<LoadSeries>, length: Duration) -> Result<LoadRun> {
    run_by(By::Names, producer, series, length).await
}

/// The same, by names or by handles.
///
/// # Errors
/// As [`run`].
pub async fn run_by(
    by: By,
    producer: &Producer,
    series: &mut Vec<LoadSeries>,
    length: Duration,
) -> Result<LoadRun> {
    let drawn = match by {
        By::Names => Draws::of(series),
        By::Handles => Draws::by_handles(producer, series)?,
    };
    let start = Instant::now();
    let stop = CancellationToken::new();
    let sampling = tokio::spawn(sample(producer.clone(), start, stop.clone()));
    let appending = {
        let (producer, mut own) = (producer.clone(), std::mem::take(series));
        tokio::spawn(async move {
            let events = append_for(drawn, &producer, &mut own, length).await?;
            Ok::<_, anyhow::Error>((events, own))
        })
    };
    let (events, appended) = appending.await??;
    *series = appended;
    producer.await_settled().await.context("waiting until all is settled")?;
    let settled_after = start.elapsed();
    stop.cancel();
    let samples = sampling.await?;
    let applied_after =
        samples.iter().find(|sample| sample.applied >= events).map_or(settled_after, |sample| sample.at);
    Ok(LoadRun { events, applied_after, settled_after, samples })
}

async fn sample(producer: Producer, start: Instant, stop: CancellationToken) -> Vec<Sample> {
    let mut ticks = tokio::time::interval(SAMPLE_EVERY);
    let before = producer.progress();
    let mut samples = Vec::new();
    while !stop.is_cancelled() {
        ticks.tick().await;
        let progress = producer.progress();
        samples.push(Sample {
            at: start.elapsed(),
            appended: progress.appended - before.appended,
            applied: progress.applied.saturating_sub(before.applied),
            settled: progress.settled - before.settled,
        });
    }
    samples
}

async fn append_for(
    mut drawn: Draws,
    producer: &Producer,
    series: &mut [LoadSeries],
    length: Duration,
) -> Result<u64> {
    let (mut events, start) = (0_u64, Instant::now());
    while start.elapsed() < length {
        drawn.append(producer, series, CHUNK).await?;
        events += CHUNK as u64;
        tokio::task::yield_now().await;
    }
    Ok(events)
}

/// Events drawn for series, and appended.
#[derive(Debug)]
pub struct Draws {
    zipf: Zipf,
    bits: Bits,
    chosen: Vec<(usize, u64)>,
    /// Of each series; empty where they are named by their texts.
    handles: Vec<SeriesHandle>,
}

impl Draws {
    /// Draws for these series.
    #[must_use]
    pub fn of(series: &[LoadSeries]) -> Self {
        Self { zipf: Zipf::new(series.len()), bits: Bits(42), chosen: Vec::new(), handles: Vec::new() }
    }

    /// Draws for these series, each looked up here.
    ///
    /// # Errors
    /// Where the producer does not take one.
    pub fn by_handles(producer: &Producer, series: &[LoadSeries]) -> Result<Self> {
        let handle = |series: &LoadSeries| {
            let dimension = series.dimension();
            producer.series(&series.usage(&dimension, 0, Timestamp::EPOCH))
        };
        let handles: Result<Vec<SeriesHandle>, AppendError> = series.iter().map(handle).collect();
        Ok(Self { handles: handles?, ..Self::of(series) })
    }

    /// Appends `count` events of the present instant, and counts them beside their series.
    ///
    /// # Errors
    /// Where the producer stops.
    pub async fn append(
        &mut self,
        producer: &Producer,
        series: &mut [LoadSeries],
        count: usize,
    ) -> Result<()> {
        let Self { zipf, bits, chosen, handles } = self;
        chosen.clear();
        chosen.extend((0..count).map(|_| (zipf.draw(bits.draw()), bits.draw() & (QUANTITY_END - 1))));
        let at = SystemClock.now();
        let mut done = 0;
        while done < count {
            let left = &chosen[done..];
            let (taken, refused) = if handles.is_empty() {
                by_names(producer, series, left, at)
            } else {
                by_handles(producer, handles, left, at)
            };
            done += taken;
            match refused {
                None => {}
                Some(error) if error.is_transient() => producer.ready().await?,
                Some(error) => return Err(error.into()),
            }
        }
        for (index, quantity) in chosen {
            series[*index].events += 1;
            series[*index].quantity += *quantity;
        }
        Ok(())
    }
}

type Taken = (usize, Option<AppendError>);

fn by_names(producer: &Producer, series: &[LoadSeries], chosen: &[(usize, u64)], at: Timestamp) -> Taken {
    let dimensions: Vec<_> = chosen.iter().map(|(index, _)| series[*index].dimension()).collect();
    let usages: Vec<Usage<'_>> = chosen
        .iter()
        .zip(&dimensions)
        .map(|((index, quantity), dimension)| series[*index].usage(dimension, *quantity, at))
        .collect();
    producer.append_many(&usages)
}

fn by_handles(
    producer: &Producer,
    handles: &[SeriesHandle],
    chosen: &[(usize, u64)],
    at: Timestamp,
) -> Taken {
    let usages: Vec<SeriesUsage> = chosen
        .iter()
        .map(|(index, quantity)| SeriesUsage { series: handles[*index], quantity: *quantity, at })
        .collect();
    producer.append_series(&usages)
}

impl LoadSeries {
    fn dimension(&self) -> Option<[(&str, &str); 1]> {
        self.dimension.as_deref().map(|value| [(DIMENSION, value)])
    }

    fn usage<'a>(
        &'a self,
        dimension: &'a Option<[(&'a str, &'a str); 1]>,
        quantity: u64,
        at: Timestamp,
    ) -> Usage<'a> {
        Usage {
            client_id: &self.client_id,
            meter: &self.meter,
            quantity,
            at,
            outcome: Outcome::Succeeded,
            dimensions: dimension.as_ref().map_or(&[], |one| &one[..]),
            hold_id: None,
        }
    }
}

/// The 99th percentile of the age of the oldest event not settled, in ms, over the samples.
#[must_use]
pub fn settled_lag_p99_ms(samples: &[Sample]) -> f64 {
    let mut lags: Vec<Duration> = Vec::with_capacity(samples.len());
    let mut oldest = 0;
    for sample in samples {
        while samples[oldest].appended <= sample.settled && samples[oldest].at < sample.at {
            oldest += 1;
        }
        if sample.settled < sample.appended {
            lags.push(sample.at.saturating_sub(samples[oldest].at));
        }
    }
    lags.sort_unstable();
    let index = lags.len().saturating_mul(99) / 100;
    lags.get(index).map_or(0.0, |lag| lag.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_item_is_drawn_as_often_as_zipf_says() {
        let zipf = Zipf::new(100);
        let harmonic: f64 = (1..=100).map(|i| 1.0 / f64::from(i)).sum();
        let mut bits = Bits(7);
        let drawn = (0..1_000_000).filter(|_| zipf.draw(bits.draw()) == 0).count();
        let share = to_f64(drawn) / 1_000_000.0;
        assert!((share - 1.0 / harmonic).abs() < 0.003, "{share}");
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_unsettled_event() {
        let sample = |ms, appended, settled| Sample {
            at: Duration::from_millis(ms),
            appended,
            applied: appended,
            settled,
        };
        let samples = [sample(0, 10, 0), sample(10, 20, 0), sample(20, 30, 10), sample(30, 30, 30)];
        assert!((settled_lag_p99_ms(&samples) - 10.0).abs() < 0.001);
    }
}
