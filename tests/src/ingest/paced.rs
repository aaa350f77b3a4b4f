//! A paced load: so many events a second in even ticks, and how long each tick takes until it is applied.

use std::{
    collections::VecDeque,
    fs::File,
    io::Write as _,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use drawdown_client::producer::Producer;
use hdrhistogram::Histogram;

use crate::load::{Draws, LoadSeries};

/// Events of a second come in as many parts.
const TICKS_PER_S: u32 = 1000;
/// How often the producer is asked how far metering has come.
const LOOK_EVERY: Duration = Duration::from_micros(200);
const PROBE_EVERY: Duration = Duration::from_millis(100);
const PROBE_BYTES: usize = 8192;

/// What a paced run came to, in ms.
#[derive(Debug, Clone, Copy)]
pub struct PacedRun {
    /// Events appended.
    pub events: u64,
    /// How long it took to append them.
    pub took: Duration,
    /// Median of the time from the append of a tick until all of it was applied.
    pub ack_p50_ms: f64,
    /// Its 99th percentile.
    pub ack_p99_ms: f64,
    /// 99th percentile of an 8 KiB append with fdatasync on the same disk in the same time.
    pub fsync_p99_ms: f64,
}

/// Ticks that are not applied yet: all events appended by then, and when.
type Ticks = Arc<Mutex<VecDeque<(u64, Instant)>>>;

/// Runs `work` again and again on a thread of its own until it is stopped; gives what it collected, in µs.
struct Beside {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<Histogram<u64>>>,
}

impl Beside {
    fn start(
        every: Duration,
        mut work: impl FnMut(&mut Histogram<u64>) -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut found = Histogram::new(3)?;
        let thread = std::thread::Builder::new().name("beside".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                work(&mut found)?;
                std::thread::park_timeout(every);
            }
            Ok(found)
        })?;
        Ok(Self { stop, thread })
    }

    fn end(self) -> Result<Histogram<u64>> {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        self.thread.join().map_err(|_| anyhow::anyhow!("a probe panicked"))?
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn percentile_ms(found: &Histogram<u64>, quantile: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a figure needs no more than 52 bits")]
    let micros = found.value_at_quantile(quantile) as f64;
    micros / 1000.0
}

/// Appends `per_second` events a second for `length`, in even ticks; where a tick is late the next ones follow at
/// once. `dir` is where the disk is probed.
///
/// # Errors
/// Where the producer stops, or the disk can not be written.
pub async fn run(
    producer: &Producer,
    series: &mut [LoadSeries],
    per_second: u32,
    length: Duration,
    dir: &Path,
) -> Result<PacedRun> {
    let ticks: Ticks = Arc::default();
    let acks = {
        let (producer, ticks) = (producer.clone(), Arc::clone(&ticks));
        let before = producer.progress().applied;
        Beside::start(LOOK_EVERY, move |found| {
            let applied = producer.progress().applied.saturating_sub(before);
            let mut ticks = ticks.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some((_, at)) = ticks.pop_front_if(|(through, _)| *through <= applied) {
                found.record(micros(at))?;
            }
            Ok(())
        })?
    };
    let mut file = File::create(dir.join("paced-probe"))?;
    let fsyncs = Beside::start(PROBE_EVERY, move |found| {
        let start = Instant::now();
        file.write_all(&[0x5a; PROBE_BYTES])?;
        file.sync_data()?;
        found.record(micros(start))?;
        Ok(())
    })?;
    let (mut drawn, mut events, start) = (Draws::of(series), 0_u64, Instant::now());
    let per_tick = usize::try_from(per_second / TICKS_PER_S)?;
    let mut clock = tokio::time::interval(Duration::from_secs(1) / TICKS_PER_S);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    while start.elapsed() < length {
        // When the events were due, not when the load got to them: what is late counts.
        let at = clock.tick().await.into_std();
        drawn.append(producer, series, per_tick).await?;
        events += per_tick as u64;
        ticks.lock().unwrap_or_else(PoisonError::into_inner).push_back((events, at));
    }
    let took = start.elapsed();
    producer.await_settled().await.context("waiting until all is settled")?;
    let (acks, fsyncs) = (acks.end()?, fsyncs.end()?);
    Ok(PacedRun {
        events,
        took,
        ack_p50_ms: percentile_ms(&acks, 0.5),
        ack_p99_ms: percentile_ms(&acks, 0.99),
        fsync_p99_ms: percentile_ms(&fsyncs, 0.99),
    })
}
