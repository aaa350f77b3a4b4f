//! `cargo xtask bench ledger-history`: what becomes of the figures when a ledger has grown.
//!
//! Two ledgers stand on one server: one with as many charges as asked for (ten millions), one with a
//! hundredth of it. Both histories are made by real posting, over a month that a clock runs through, so
//! they hold what posting makes. Then both take turns in posting, so that a ratio compares one minute with
//! itself, and balances are read. Every invariant of both is checked. At last one more team has a busy month in
//! the large one, of which a statement and a file are made.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use drawdown_ledger::verify::Scope;
use drawdown_proto::ledger::v1::{self, token_service_server::TokenService as _};
use drawdown_types::ManualClock;
use tonic::Request;

use super::{
    bench::{LOTS, median, rate, settle},
    expected::{Expected, difference_micros},
    fleet::{Fleet, enter_catalog, window_of},
    month::{self, Month},
    world::LedgerWorld,
    writer::ShardWriter,
};
use crate::{
    figures::{Figures, cpu_probe_ms},
    load::Bits,
};

/// How big a run is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Charges of the large ledger.
    pub charges: usize,
    /// Teams of each ledger.
    pub teams: usize,
    /// Charges of the month of a statement.
    pub statement_charges: usize,
}

/// How many times as large the large ledger is.
const TIMES: usize = 100;
/// Charges of the large ledger in a run that counts; what a smaller one finds has other names.
pub const FULL: usize = 10_000_000;
const BATCH: usize = 5000;
const ROUNDS: usize = 9;
/// Batches of each ledger in a round.
const BATCHES_PER_ROUND: usize = 2;
const READS: usize = 2000;
const BEGINNING: &str = "2026-03-01T00:00:00Z";
/// What the history spans: most of a month, so that a statement has one.
const SPAN: Duration = Duration::from_secs(30 * 86_400);

/// A ledger with a history.
struct Grown {
    world: LedgerWorld,
    clock: Arc<ManualClock>,
    fleet: Fleet,
    expected: Expected,
    writer: ShardWriter,
    bits: Bits,
    place: usize,
}

/// Runs the bench.
///
/// # Errors
/// Where something is refused, an invariant is violated or a micro-token is missing.
pub async fn run(size: Size) -> Result<Figures> {
    let clock = Arc::new(ManualClock::new(BEGINNING.parse()?));
    let world = LedgerWorld::start(Arc::clone(&clock) as _, |_| {}).await?;
    println!("postgres: {}", world.durability().await?);
    let mut figures = Figures::new("ledger-history", world.dir())?;
    let other = Arc::new(ManualClock::new(BEGINNING.parse()?));
    let neighbour = world.neighbour("small", Arc::clone(&other) as _, |_| {}).await?;
    let mut small = Grown::set_up(neighbour, other, size.teams).await?;
    let mut large = Grown::set_up(world, clock, size.teams).await?;
    small.grow(size.charges / TIMES).await?;
    large.grow(size.charges).await?;
    for grown in [&small, &large] {
        sqlx::raw_sql("vacuum analyze").execute(&grown.world.pool).await?;
    }
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let rates = (large.post(BATCHES_PER_ROUND).await?, small.post(BATCHES_PER_ROUND).await?);
        println!(
            "round {round}: large {:.0}, small {:.0} charges/s (cpu probe {:.1} ms)",
            rates.0,
            rates.1,
            cpu_probe_ms()
        );
        ratios.push(rates.0 / rates.1);
    }
    let ratio =
        if size.charges == FULL { "charges_1e7_vs_1e5_ratio" } else { "charges_large_vs_small_ratio" };
    figures.add(ratio, median(ratios));
    figures.add("balance_read_p99_ms", large.balance_read_p99_ms().await?);
    figures.add("history_charges_count", as_f64(large.place));
    for (grown, name) in [(&small, "verify_small_s"), (&large, "verify_full_s")] {
        figures.add(name, grown.verify(Scope::Full).await?);
    }
    // What a verification costs that goes on from the clean one before, after a round of postings.
    large.post(BATCHES_PER_ROUND).await?;
    figures.add("verify_incremental_s", large.verify(Scope::Incremental).await?);
    large.month(size.statement_charges, &mut figures).await?;
    figures.add("conservation_difference_micros", 0.0);
    figures.add("cpu_probe_ms", cpu_probe_ms());
    small.world.stop().await?;
    large.world.stop().await?;
    Ok(figures)
}

#[expect(clippy::cast_precision_loss, reason = "a figure needs no more than 52 bits")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

// === impl Grown ===

impl Grown {
    async fn set_up(world: LedgerWorld, clock: Arc<ManualClock>, teams: usize) -> Result<Self> {
        enter_catalog(&world).await?;
        let mut fleet = Fleet::of(teams, 5, 2);
        let series = fleet.series_count();
        ensure!(series >= BATCH, "{series} series are less than a batch: more teams");
        fleet.move_in(&world, &LOTS).await?;
        let writer = ShardWriter::open(&world.handlers, 0).await?;
        Ok(Self { world, clock, fleet, expected: Expected::default(), writer, bits: Bits(1), place: 0 })
    }

    async fn batch(&mut self) -> Result<Duration> {
        let window = window_of(self.world.clock().now());
        let lines = (self.place..self.place + BATCH).map(|place| {
            let series = self.fleet.series(place);
            self.fleet.line(series, window, &mut self.bits, &mut self.expected)
        });
        let batch = self.writer.seal(lines.collect());
        self.place += BATCH;
        let started = Instant::now();
        settle(&self.world.handlers, batch).await?;
        Ok(started.elapsed())
    }

    /// Posts until there are so many charges; the clock runs through the month meanwhile.
    async fn grow(&mut self, charges: usize) -> Result<()> {
        let batches = charges.div_ceil(BATCH);
        let step = SPAN / u32::try_from(batches.max(1))?;
        let started = Instant::now();
        for done in 0..batches {
            self.batch().await?;
            self.clock.advance(step);
            if done % 200 == 199 {
                println!("{} charges after {:.0} s", self.place, started.elapsed().as_secs_f64());
            }
        }
        Ok(())
    }

    async fn post(&mut self, batches: usize) -> Result<f64> {
        let mut took = Duration::ZERO;
        for _ in 0..batches {
            took += self.batch().await?;
        }
        Ok(rate(batches * BATCH, took))
    }

    /// Balances of teams drawn at random, one after the other.
    async fn balance_read_p99_ms(&mut self) -> Result<f64> {
        let mut took = Vec::with_capacity(READS);
        for _ in 0..READS {
            let team = usize::try_from(self.bits.draw() >> 33)? % self.fleet.teams.len();
            let team_id = self.fleet.teams[team].id().to_owned();
            let request = v1::GetBalanceRequest { team_id, ..v1::GetBalanceRequest::default() };
            let started = Instant::now();
            let answer = self.world.handlers.tokens.get_balance(Request::new(request)).await?;
            took.push(started.elapsed().as_secs_f64() * 1000.0);
            answer.into_inner().balance.context("no balance")?;
        }
        took.sort_unstable_by(f64::total_cmp);
        took.get(READS * 99 / 100).copied().context("no reads")
    }

    /// A month of one more team beside the others, its statement and its file.
    async fn month(&mut self, charges: usize, figures: &mut Figures) -> Result<()> {
        let month = Month::post(&self.world, &self.clock, charges).await?;
        let names = if charges == month::FULL {
            ["statement_1m_s", "statement_again_1m_s", "export_1m_s"]
        } else {
            ["statement_s", "statement_again_s", "export_s"]
        };
        let (issued, again) = month.statement_s(&self.world).await?;
        let (export, lines) = month.export_s(&self.world).await?;
        for (name, figure) in names.into_iter().zip([issued, again, export]) {
            figures.add(name, figure);
        }
        figures.add("export_lines_count", as_f64(usize::try_from(lines)?));
        let fleets = [(&self.fleet, &self.expected), (&month.fleet, &month.expected)];
        let difference = difference_micros(&self.world.pool, &fleets).await?;
        ensure!(difference == 0, "the ledger is {difference} micro-tokens off after the month");
        Ok(())
    }

    /// Every invariant and every micro-token; gives the seconds that the invariants took.
    async fn verify(&self, scope: Scope) -> Result<f64> {
        let difference = difference_micros(&self.world.pool, &[(&self.fleet, &self.expected)]).await?;
        ensure!(difference == 0, "the ledger is {difference} micro-tokens off: no figure is worth printing");
        let started = Instant::now();
        let verified = self.world.handlers.ledger.verify(scope).await?;
        let violated: Vec<_> = verified.verdicts.iter().filter(|verdict| verdict.violations > 0).collect();
        ensure!(violated.is_empty(), "{violated:?}");
        Ok(started.elapsed().as_secs_f64())
    }
}
