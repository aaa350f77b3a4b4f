//! `cargo xtask drill ledger`: everybody writes at once, to few teams, while time passes.
//!
//! Sixty-four writers post through as many shards; beside them lots are bought and granted, expire and are
//! closed by two jobs at once, tokens are held, captured, let go of and forgotten, and lots move between teams. The clock is moved by the posts themselves, so that a slow machine sees the
//! same mixture as a fast one. Nothing here tries a second time: a deadlock or a serialization failure ends
//! the drill. Afterwards every invariant is checked, the replay among them, and the micro-tokens are counted
//! against what the writers drew.
#![expect(clippy::print_stdout, reason = "a drill prints what it finds")]

mod beside;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use drawdown_ledger::{config::DueConfig, jobs::due::Due, verify::Scope};
use drawdown_proto::ledger::v1;
use drawdown_service::config::{Count, Millis};
use drawdown_types::{Clock as _, ManualClock};
use tonic::Status;
use tonic_types::StatusExt as _;

use self::beside::BesideTally;
use super::{
    expected::{Expected, difference_micros},
    fleet::{Fleet, LotSize, enter_catalog, issue, window_of},
    world::{Handlers, LedgerWorld},
    writer::{ShardWriter, post},
};
use crate::{
    figures::Figures,
    load::{Bits, Zipf},
};

/// Writers at once, each with a shard of its own.
const WRITERS: u32 = 64;
const BEGINNING: &str = "2026-03-10T12:00:00Z";
/// Most tokens of one lot: a few hundred charges, so that lots run dry and teams owe.
const LOT_TOKENS_MAX: u64 = 8;
const APPS_PER_TEAM: usize = 4;
const METERS_PER_TEAM: usize = 3;
/// Most lines of one batch.
const LINES_MAX: u64 = 40;
/// How far each post moves the clock: half an hour until all have posted once.
const STEP: Duration = Duration::from_secs(30);
/// A part is not over before so many posts, so that lots expire and close in it also on a slow machine.
const POSTS_MIN: u64 = 8 * 64;
/// The longest that a hold may last, too.
const LATENESS_SECS: u64 = 3600;
const ALLOWANCE_MS: u64 = 60_000;
/// Shortest life of a granted lot, and how much longer it may be, in minutes: the clock moves on while a grant
/// waits for its lock behind all writers.
const LIFE_MINUTES: (i64, u64) = (45, 60);

/// Kinds of journal rows that must come about.
const KINDS: [&str; 11] = [
    "capture",
    "charge",
    "expiry",
    "grant",
    "hold",
    "move_in",
    "move_out",
    "netting",
    "purchase",
    "release",
    "uncharged",
];

/// How the writers choose their teams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// All of them write to one.
    One,
    /// Each line to any of a hundred.
    Even,
    /// To a hundred, by Zipf's law.
    Zipf,
}

impl Spread {
    const ALL: [Self; 3] = [Self::One, Self::Even, Self::Zipf];

    const fn name(self) -> &'static str {
        match self {
            Self::One => "one_team",
            Self::Even => "even",
            Self::Zipf => "zipf",
        }
    }

    /// With one for lots to move to.
    const fn teams(self) -> usize {
        match self {
            Self::One => 2,
            Self::Even | Self::Zipf => 100,
        }
    }
}

/// What the calls of one part came to.
#[derive(Debug, Default)]
struct Tally {
    posts: AtomicU64,
    charges: AtomicU64,
    lots: AtomicU64,
    too_late: AtomicU64,
    looks: AtomicU64,
    rolled: AtomicU64,
}

/// One part of the drill, shared by its tasks.
struct Part {
    handlers: Handlers,
    clock: Arc<ManualClock>,
    fleet: Fleet,
    spread: Spread,
    zipf: Option<Zipf>,
    until: Instant,
    tally: Tally,
    beside: BesideTally,
}

/// Runs all parts for `length` together and gives what was found.
///
/// # Errors
/// At the first call that fails, and where a micro-token or an invariant is off.
pub async fn run(length: Duration) -> Result<Figures> {
    let clock = Arc::new(ManualClock::new(BEGINNING.parse()?));
    let world = LedgerWorld::start(Arc::clone(&clock) as _, |options| {
        options.lateness_limit_secs = LATENESS_SECS;
        options.purchase_min_tokens = 1;
        options.settle_allowance_ms = Millis::from_millis(ALLOWANCE_MS);
        options.database.connections_max = Count::of(WRITERS as usize + 16);
        options.database.acquire_timeout_ms = Millis::from_millis(30_000);
    });
    let world = world.await?;
    println!("postgres: {}", world.durability().await?);
    enter_catalog(&world).await?;
    let mut figures = Figures::new("ledger", world.dir())?;
    let mut writers = Vec::new();
    for shard in 0..WRITERS {
        writers.push(ShardWriter::open(&world.handlers, shard).await?);
    }
    let mut fleets = Vec::new();
    for spread in Spread::ALL {
        let part = length / u32::try_from(Spread::ALL.len())?;
        fleets.push(drill(&world, &clock, &mut writers, spread, part, &mut figures).await?);
    }
    judge(&world, &clock, &fleets, &mut figures).await?;
    world.stop().await?;
    Ok(figures)
}

#[expect(clippy::cast_precision_loss, reason = "figures need no more than 52 bits")]
async fn drill(
    world: &LedgerWorld,
    clock: &Arc<ManualClock>,
    writers: &mut [ShardWriter],
    spread: Spread,
    length: Duration,
    figures: &mut Figures,
) -> Result<(Fleet, Expected)> {
    let mut fleet = Fleet::of(spread.teams(), APPS_PER_TEAM, METERS_PER_TEAM);
    fleet.move_in(world, &[LotSize { tokens: 2, pool: v1::PoolKind::Flex, minutes: 0 }]).await?;
    let part = Arc::new(Part {
        handlers: world.handlers.clone(),
        clock: Arc::clone(clock),
        spread,
        zipf: (spread == Spread::Zipf).then(|| Zipf::new(spread.teams())),
        fleet,
        until: Instant::now() + length,
        tally: Tally::default(),
        beside: BesideTally::default(),
    });
    let posting: Vec<_> = (1_u64..)
        .zip(writers.iter())
        .map(|(seed, writer)| tokio::spawn(Part::write(Arc::clone(&part), writer.clone(), Bits(seed << 32))))
        .collect();
    let issuing: Vec<_> = (0..4).map(|seed| tokio::spawn(Part::issue(Arc::clone(&part), seed))).collect();
    let holding: Vec<_> =
        (0..3).map(|seed| tokio::spawn(Part::hold(Arc::clone(&part), seed + (7 << 40)))).collect();
    let moving: Vec<_> =
        (0..2).map(|seed| tokio::spawn(Part::transfer(Arc::clone(&part), seed + (9 << 40)))).collect();
    let closing: Vec<_> = (0..2).map(|_| tokio::spawn(Part::close(Arc::clone(&part)))).collect();
    let mut expected = Expected::default();
    for (writer, posting) in writers.iter_mut().zip(posting) {
        let drawn;
        (*writer, drawn) = posting.await??;
        expected.merge(&drawn);
    }
    let mut issued = vec![0_i64; spread.teams()];
    for task in issuing {
        for (team, micros) in task.await?? {
            issued[team] += micros;
        }
    }
    for task in holding {
        expected.merge(&task.await??);
    }
    for task in closing.into_iter().chain(moving) {
        task.await??;
    }
    let part = Arc::into_inner(part).context("a task is left")?;
    println!("{}: {:?}", spread.name(), part.beside);
    figures.add(&format!("{}_refused_count", spread.name()), part.beside.refused() as f64);
    let (mut fleet, tally) = (part.fleet, part.tally);
    for (team, micros) in fleet.teams.iter_mut().zip(issued) {
        team.issued += micros;
    }
    println!("{}: {tally:?}", spread.name());
    let counts = [("posts", tally.posts), ("charges", tally.charges), ("lots", tally.lots)];
    for (what, count) in counts {
        figures.add(&format!("{}_{what}_count", spread.name()), count.into_inner() as f64);
    }
    Ok((fleet, expected))
}

#[expect(clippy::cast_precision_loss, reason = "figures need no more than 52 bits")]
async fn judge(
    world: &LedgerWorld,
    clock: &ManualClock,
    fleets: &[(Fleet, Expected)],
    figures: &mut Figures,
) -> Result<()> {
    count_rows(world, figures).await?;
    // everything that can expire has, and is closed
    clock.advance(Duration::from_secs(86_400));
    due(&world.handlers).look().await?;
    let fleets: Vec<_> = fleets.iter().map(|(fleet, expected)| (fleet, expected)).collect();
    let difference = difference_micros(&world.pool, &fleets).await?;
    let verdicts = world.handlers.ledger.verify(Scope::Full).await?.verdicts;
    let violations: i64 = verdicts.iter().map(|verdict| verdict.violations).sum();
    for verdict in verdicts.iter().filter(|verdict| verdict.violations > 0) {
        println!("VIOLATED  {}: {:?}", verdict.name, verdict.examples);
    }
    let deadlocks = world.deadlocks().await?;
    println!("{} invariants: {violations} violations", verdicts.len());
    figures.add("writers_count", f64::from(WRITERS));
    figures.add("deadlocks_count", deadlocks as f64);
    figures.add("violations_count", violations as f64);
    figures.add("conservation_difference_micros", difference as f64);
    ensure!(deadlocks == 0, "{deadlocks} deadlocks");
    ensure!(violations == 0, "{violations} violations");
    ensure!(difference == 0, "the ledger is {difference} micro-tokens off");
    Ok(())
}

/// What happened while everybody wrote; a drill in which nothing expired or was owed shows nothing.
#[expect(clippy::cast_precision_loss, reason = "figures need no more than 52 bits")]
async fn count_rows(world: &LedgerWorld, figures: &mut Figures) -> Result<()> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("select kind, count(*) from ledger.full_journal group by kind order by kind")
            .fetch_all(&world.pool)
            .await?;
    println!("journal rows: {rows:?}");
    for kind in KINDS {
        let count = rows.iter().find(|(name, _)| name == kind).map_or(0, |(_, count)| *count);
        ensure!(count > 0, "no {kind} in the whole drill");
        figures.add(&format!("{kind}_rows_count"), count as f64);
    }
    Ok(())
}

fn is_about(status: &Status, field: &str) -> bool {
    let details = status.get_error_details();
    details.bad_request().is_some_and(|bad| bad.field_violations.iter().all(|wrong| wrong.field == field))
}

fn due(handlers: &Handlers) -> Due {
    let config = DueConfig { interval: STEP, teams_max: 20, rounds_max: 50 };
    Due::new(Arc::clone(&handlers.ledger), config)
}

// === impl Part ===

impl Part {
    fn team(&self, bits: &mut Bits) -> usize {
        let drawn = bits.draw();
        match &self.zipf {
            Some(zipf) => zipf.draw(drawn),
            None if self.spread == Spread::One => 0,
            None => usize::try_from(drawn >> 33).unwrap_or_default() % self.fleet.teams.len(),
        }
    }

    fn goes_on(&self) -> bool {
        Instant::now() < self.until || self.tally.posts.load(Ordering::Relaxed) < POSTS_MIN
    }

    /// Posts batch after batch; a series is in a batch at most once.
    async fn write(
        self: Arc<Self>,
        mut writer: ShardWriter,
        mut bits: Bits,
    ) -> Result<(ShardWriter, Expected)> {
        let mut expected = Expected::default();
        while self.goes_on() {
            let window = window_of(self.clock.now());
            let mut places = std::collections::BTreeSet::new();
            for _ in 0..=bits.draw() % LINES_MAX {
                let team = self.team(&mut bits);
                let turns = self.fleet.series_count() / self.fleet.teams.len();
                let turn = usize::try_from(bits.draw() >> 33)? % turns;
                places.insert(turn * self.fleet.teams.len() + team);
            }
            let lines: Vec<_> = places
                .into_iter()
                .map(|place| {
                    let series = self.fleet.series(place);
                    self.fleet.line(series, window, &mut bits, &mut expected)
                })
                .collect();
            let count = lines.len() as u64;
            let receipt = post(&self.handlers, writer.seal(lines)).await.context("post")?;
            ensure!(receipt.charges == count, "{} of {count} lines were charged", receipt.charges);
            self.tally.charges.fetch_add(count, Ordering::Relaxed);
            self.tally.posts.fetch_add(1, Ordering::Relaxed);
            self.clock.advance(STEP);
        }
        Ok((writer, expected))
    }

    /// Grants short lots, now and then of a pool with another place in the order, and buys some.
    async fn issue(self: Arc<Self>, seed: u64) -> Result<Vec<(usize, i64)>> {
        let mut bits = Bits(seed);
        let mut issued = Vec::new();
        let pools = [v1::PoolKind::Promotional, v1::PoolKind::Free, v1::PoolKind::Credit, v1::PoolKind::Flex];
        while self.goes_on() {
            let team = self.team(&mut bits);
            let drawn = bits.draw();
            let pool = pools[usize::try_from(drawn >> 60)? % pools.len()];
            let tokens = 1 + i64::try_from(drawn % LOT_TOKENS_MAX)?;
            let minutes = LIFE_MINUTES.0 + i64::try_from((drawn >> 16) % LIFE_MINUTES.1)?;
            let lot = LotSize { tokens, pool, minutes };
            let answer = issue(&self.handlers.tokens, &self.fleet.teams[team], lot, self.clock.now()).await;
            match answer {
                Ok(()) => issued.push((team, tokens * 1_000_000)),
                // it waited for its lock until after its own expiry: rightly refused, and nothing was issued
                Err(status) if is_about(&status, "expires_at") => {
                    self.tally.too_late.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                Err(status) => return Err(status).context("lot"),
            }
            self.tally.lots.fetch_add(1, Ordering::Relaxed);
        }
        Ok(issued)
    }

    /// Looks for lots that are due, again and again, beside another one that does the same.
    async fn close(self: Arc<Self>) -> Result<()> {
        let due = due(&self.handlers);
        while self.goes_on() {
            let rolled = due.look().await.context("due")?;
            self.tally.looks.fetch_add(1, Ordering::Relaxed);
            self.tally.rolled.fetch_add(rolled as u64, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
