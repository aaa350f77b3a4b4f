//! `cargo xtask bench ledger`: charges a second through the real posting, beside a ceiling and a naive way.
//!
//! All contenders take turns in short slices on one server, round after round, so that what else the
//! machine does falls on all of them; a figure is the median over the rounds and a ratio the median of the
//! rounds' own ratios. The clock runs from the message to its receipt, never while lines are drawn.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use drawdown_proto::ledger::v1;
use drawdown_testkit::Relay;
use drawdown_types::SystemClock;

use super::{
    baseline::Baselines,
    expected::{Expected, difference_micros},
    fleet::{Fleet, LotSize, enter_catalog, window_of},
    world::{Handlers, LedgerWorld},
    writer::{ShardWriter, post},
};
use crate::{
    figures::{Figures, cpu_probe_ms, fsync_p50_us},
    load::Bits,
};

/// How big a run is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Measured time of all contenders together.
    pub length: Duration,
    /// Teams that usage is spread over.
    pub teams: usize,
}

/// The figures that a round gives, in the order of its slices.
const SLICES: usize = 8;
const SLICE: Duration = Duration::from_millis(400);
const LARGEST: usize = 5000;
const APPS_PER_TEAM: usize = 5;
const METERS_PER_TEAM: usize = 2;
const HOT_APPS: usize = 1000;
const HOT_METERS: usize = 5;

/// In minutes.
const MONTH: i64 = 30 * 86_400 / 60;

/// Small lots that run dry on the way, and one that does not.
pub(super) const LOTS: [LotSize; 3] = [
    LotSize { tokens: 2, pool: v1::PoolKind::Free, minutes: MONTH },
    LotSize { tokens: 20, pool: v1::PoolKind::Promotional, minutes: 2 * MONTH },
    LotSize { tokens: 10_000_000, pool: v1::PoolKind::Flex, minutes: 12 * MONTH },
];
pub(super) const HOT_LOTS: [LotSize; 3] = [
    LotSize { tokens: 2_000, pool: v1::PoolKind::Free, minutes: MONTH },
    LotSize { tokens: 20_000, pool: v1::PoolKind::Promotional, minutes: 2 * MONTH },
    LotSize { tokens: 500_000_000, pool: v1::PoolKind::Flex, minutes: 12 * MONTH },
];

/// A fleet with what was drawn for it.
struct Load {
    fleet: Fleet,
    expected: Expected,
    place: usize,
}

// === impl Load ===

impl Load {
    fn of(fleet: Fleet) -> Self {
        Self { fleet, expected: Expected::default(), place: 0 }
    }
}

struct Bench {
    world: LedgerWorld,
    baselines: Baselines,
    spread: Load,
    hot: Load,
    writers: [ShardWriter; 2],
    bits: Bits,
    /// By the name of its figure: one rate for each round.
    rates: BTreeMap<&'static str, Vec<f64>>,
}

/// Runs the bench and gives its figures; none where a micro-token is missing.
///
/// # Errors
/// Where something is refused, or the ledger's sums are not those of the generator.
pub async fn run(size: Size) -> Result<Figures> {
    let world = LedgerWorld::start(Arc::new(SystemClock), |_| {}).await?;
    println!("postgres: {}", world.durability().await?);
    let mut figures = Figures::new("ledger", world.dir())?;
    let mut bench = Bench::set_up(world, size).await?;
    let statements = bench.statements_per_sub_batch().await?;
    let rounds = (size.length.as_millis() / (SLICE.as_millis() * SLICES as u128)).max(1);
    for round in 0..u64::try_from(rounds)? {
        bench.round(round).await?;
        println!("round {round}: {}", bench.last_round()?);
    }
    let fleets = [(&bench.spread.fleet, &bench.spread.expected), (&bench.hot.fleet, &bench.hot.expected)];
    let difference = difference_micros(&bench.world.pool, &fleets).await?;
    ensure!(difference == 0, "the ledger is {difference} micro-tokens off: no figure is worth printing");
    for (name, rates) in &bench.rates {
        figures.add(name, median(rates.clone()).round());
    }
    let per_round = |over: &str, under: &str| bench.ratios(over, under);
    figures.add("charges_vs_ceiling_ratio", median(per_round("charges_per_s_5000", "ceiling_rows_per_s")));
    figures.add("hot_vs_naive_ratio", median(per_round("hot_charges_per_s", "naive_hot_charges_per_s")));
    figures.add("statements_per_sub_batch", statements);
    figures.add("conservation_difference_micros", 0.0);
    figures.add("cpu_probe_ms", cpu_probe_ms());
    bench.world.stop().await?;
    Ok(figures)
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[expect(clippy::cast_precision_loss, reason = "a figure needs no more than 52 bits")]
pub(super) fn rate(rows: usize, took: Duration) -> f64 {
    rows as f64 / took.as_secs_f64()
}

// === impl Bench ===

impl Bench {
    async fn set_up(world: LedgerWorld, size: Size) -> Result<Self> {
        enter_catalog(&world).await?;
        let mut fleet = Fleet::of(size.teams, APPS_PER_TEAM, METERS_PER_TEAM);
        let series = fleet.series_count();
        ensure!(series >= LARGEST, "{series} series are less than a batch: more teams");
        fleet.move_in(&world, &LOTS).await?;
        let mut hot = Fleet::of(1, HOT_APPS, HOT_METERS);
        hot.move_in(&world, &HOT_LOTS).await?;
        let baselines = Baselines::set_up(world.url(), &[&fleet, &hot]).await?;
        let handlers = &world.handlers;
        let writers = [ShardWriter::open(handlers, 0).await?, ShardWriter::open(handlers, 1).await?];
        let (spread, hot) = (Load::of(fleet), Load::of(hot));
        Ok(Self { world, baselines, spread, hot, writers, bits: Bits(1), rates: BTreeMap::new() })
    }

    fn add(&mut self, name: &'static str, rate: f64) {
        self.rates.entry(name).or_default().push(rate);
    }

    fn ratios(&self, over: &str, under: &str) -> Vec<f64> {
        let of = |name: &str| self.rates.get(name).cloned().unwrap_or_default();
        of(over).into_iter().zip(of(under)).map(|(over, under)| over / under).collect()
    }

    fn last_round(&self) -> Result<String> {
        let last = self.rates.iter().filter_map(|(name, rates)| Some(format!("{name} {:.0}", rates.last()?)));
        let last: Vec<String> = last.collect();
        let (disk, cpu) = (fsync_p50_us(self.world.dir())?, cpu_probe_ms());
        Ok(format!("{} (fsync {disk} µs, cpu probe {cpu:.1} ms)", last.join(", ")))
    }

    /// Every contender once.
    async fn round(&mut self, round: u64) -> Result<()> {
        for (name, lines) in [("charges_per_s_100", 100), ("charges_per_s_1000", 1000)] {
            let rate = self.posting(lines, false).await?;
            self.add(name, rate);
        }
        let rate = self.posting(LARGEST, false).await?;
        self.add("charges_per_s_5000", rate);
        let rate = self.ceiling().await?;
        self.add("ceiling_rows_per_s", rate);
        let rate = self.two_writers().await?;
        self.add("charges_per_s_two_writers", rate);
        let rate = self.posting(LARGEST, true).await?;
        self.add("hot_charges_per_s", rate);
        let seed = round * 1000;
        let (charged, took) = self.baselines.charge_for(&self.spread.fleet, SLICE, seed).await?;
        self.add("naive_charges_per_s", rate_of(charged, took)?);
        let (charged, took) = self.baselines.charge_for(&self.hot.fleet, SLICE, seed).await?;
        self.add("naive_hot_charges_per_s", rate_of(charged, took)?);
        Ok(())
    }

    /// The next batch of a writer.
    fn seal(&mut self, writer: usize, lines: usize, hot: bool) -> v1::PostBatchRequest {
        let window = window_of(self.world.clock().now());
        let load = if hot { &mut self.hot } else { &mut self.spread };
        let places = load.place..load.place + lines;
        load.place = places.end;
        let lines = places.map(|place| {
            let series = load.fleet.series(place);
            load.fleet.line(series, window, &mut self.bits, &mut load.expected)
        });
        let lines = lines.collect();
        self.writers[writer].seal(lines)
    }

    /// One writer posts batches of so many lines for a slice.
    async fn posting(&mut self, lines: usize, hot: bool) -> Result<f64> {
        let (mut took, mut posted) = (Duration::ZERO, 0);
        while took < SLICE {
            let batch = self.seal(0, lines, hot);
            let started = Instant::now();
            settle(&self.world.handlers, batch).await?;
            took += started.elapsed();
            posted += lines;
        }
        Ok(rate(posted, took))
    }

    /// Two writers post batches that name the same teams, as two shards do.
    async fn two_writers(&mut self) -> Result<f64> {
        let known = self.rates.get("charges_per_s_5000").and_then(|rates| rates.last()).copied();
        let expected = known.unwrap_or_default() * SLICE.as_secs_f64() / 5000.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
        let batches = (expected.ceil() as usize).max(1);
        let mut queues = [Vec::new(), Vec::new()];
        for _ in 0..batches {
            for (writer, queue) in queues.iter_mut().enumerate() {
                let batch = self.seal(writer, LARGEST, false);
                queue.push(batch);
            }
        }
        let started = Instant::now();
        let writers = queues.map(|queue| {
            let handlers = self.world.handlers.clone();
            tokio::spawn(async move {
                for batch in queue {
                    settle(&handlers, batch).await?;
                }
                Ok::<_, anyhow::Error>(())
            })
        });
        for writer in writers {
            writer.await??;
        }
        Ok(rate(2 * batches * LARGEST, started.elapsed()))
    }

    async fn ceiling(&mut self) -> Result<f64> {
        let (mut took, mut written) = (Duration::ZERO, 0);
        // drawn for the ceiling alone, never part of what the ledger must have
        let mut apart = Expected::default();
        while took < SLICE {
            let now = self.world.clock().now();
            let places: Vec<usize> = (written..written + LARGEST).collect();
            let fleet = &self.spread.fleet;
            let line =
                |place: &usize| fleet.line(fleet.series(*place), window_of(now), &mut self.bits, &mut apart);
            let lines: Vec<v1::Line> = places.iter().map(line).collect();
            let rows = self.baselines.rows(fleet, &places, &lines, now);
            took += self.baselines.write(&rows).await?;
            written += LARGEST;
        }
        Ok(rate(written, took))
    }

    /// Counted on the wire, for a batch that is one sub-batch, after one that prepared the statements.
    async fn statements_per_sub_batch(&mut self) -> Result<f64> {
        let relay = Relay::to(self.world.url()).await?;
        let handlers = self.world.beside(relay.url().to_owned())?;
        let warm = self.seal(0, LARGEST, false);
        settle(&handlers, warm).await?;
        let _of_warming = relay.take();
        let counted = self.seal(0, LARGEST, false);
        settle(&handlers, counted).await?;
        let counted = relay.take();
        println!("a batch of {LARGEST} lines crosses the wire as {counted:?}");
        ensure!(counted.transactional == 2, "BEGIN and COMMIT did not pass the relay");
        Ok(f64::from(u32::try_from(counted.statements)?))
    }
}

fn rate_of(charged: u64, took: Duration) -> Result<f64> {
    Ok(rate(usize::try_from(charged)?, took))
}

pub(super) async fn settle(handlers: &Handlers, batch: v1::PostBatchRequest) -> Result<()> {
    let lines = batch.lines.len() as u64;
    let receipt = post(handlers, batch).await.context("post")?;
    ensure!(receipt.charges == lines, "{} of {lines} lines were charged", receipt.charges);
    Ok(())
}
