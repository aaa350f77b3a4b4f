//! The real service on a real Postgres against the naive ledger: random histories through the handlers, everything
//! visible compared and every invariant checked after every step.
//!
//! `LEDGER_SEQUENCES` sets how many histories are tried (24 without it), `PROPTEST_RNG_SEED` which. What the service
//! guards beyond the rules (set-up, D61) and what only the core is told (settlement standing still) is left out.

mod batches;
mod compare;
mod corrections;
mod holds;
mod lots;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use drawdown_ledger::{config::DueConfig, jobs::due::Due};
use drawdown_ledger_model::{
    self as naive, Hits, Ledger,
    history::{self, HOUR, KINDS, Op, POOLS, Setup, TEAMS, When},
};
use drawdown_proto::ledger::v1::{Aggregation, ContractKind, Price, RateCard};
use drawdown_types::{AppId, Timestamp};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

use crate::world::{Buyer, DAY, World, proto};

/// As the service's own setting.
const ALLOWANCE: i64 = 300 * naive::SECOND;

fn instant(at: i64) -> Timestamp {
    Timestamp::from_micros(at).unwrap()
}

struct Both {
    world: World,
    naive: Ledger,
    teams: Vec<Buyer>,
    apps: Vec<AppId>,
    producer: drawdown_types::ProducerId,
    now: i64,
    made: u64,
    batches: usize,
    lots: BTreeMap<u64, String>,
    holds: BTreeMap<u64, String>,
}

impl Both {
    async fn new(setup: &Setup) -> Self {
        let world = World::with(|options| {
            options.window_secs = setup.window_secs;
            options.lateness_limit_secs =
                u64::from(setup.window_secs) * setup.lateness_windows.max(1).unsigned_abs();
            options.pool_order = setup.pools.iter().map(|pool| POOLS[*pool].to_owned()).collect();
        })
        .await;
        world.clock.set(instant(setup.start));
        let flex = world.buyer();
        let teams = vec![flex, world.sibling(flex)];
        for (buyer, kind) in teams.iter().zip(KINDS) {
            world.contract(*buyer, kind.parse().unwrap());
        }
        let window = i64::from(setup.window_secs) * naive::SECOND;
        let naive = Ledger {
            window,
            lateness: window * setup.lateness_windows.max(1),
            pools: setup.pools.iter().map(|pool| POOLS[*pool]).collect(),
            cards: Vec::new(),
            teams: KINDS.iter().map(|kind| naive::Team { kind, ..naive::Team::default() }).collect(),
            unattributed: Default::default(),
            hits: Hits::new(),
        };
        let producer = world.producer().await;
        let apps = (0..3).map(|_| AppId::generate()).collect();
        let (lots, holds) = (BTreeMap::new(), BTreeMap::new());
        let mut both =
            Self { world, naive, teams, apps, producer, now: setup.start, made: 0, batches: 0, lots, holds };
        both.price(setup.start - 40 * 24 * HOUR).await;
        both
    }

    /// One card for each kind of contract, for ever.
    async fn price(&mut self, from: i64) {
        let from = from.div_euclid(self.naive.window) * self.naive.window;
        let rates = [
            ("call", 1, 3, false),
            ("photo", 1_000_000, 50, false),
            ("job", 1_000, 1, true),
            ("whale", i64::MAX, 1 << 44, false),
        ];
        for (meter, ..) in rates {
            let aggregation = if meter == "call" { Aggregation::Count } else { Aggregation::Sum };
            self.world.meter(meter, aggregation).await.unwrap();
        }
        for (kind, contract) in KINDS.into_iter().zip([ContractKind::Flex, ContractKind::Enterprise]) {
            let price = |(meter, micros, per_units, failed_is_free): (&str, i64, i64, bool)| Price {
                meter: meter.to_owned(),
                micros,
                per_units,
                failed_is_free,
                ..Price::default()
            };
            let card = RateCard {
                name: kind.to_owned(),
                contract_kind: contract.into(),
                effective_from: proto(instant(from)),
                prices: rates.map(price).to_vec(),
                ..RateCard::default()
            };
            self.world.publish_card(card).await.unwrap();
            let rate = |(meter, micros, per_units, failed_is_free): (&str, i64, i64, bool)| {
                (meter.to_owned(), naive::Rate { micros, per_units, failed_is_free })
            };
            let rates = rates.map(rate).into_iter().collect();
            self.naive.cards.push(naive::Card { kind, from, rates });
        }
    }

    fn settled(&self) -> i64 {
        self.now - ALLOWANCE
    }

    fn resolve(&self, when: When) -> i64 {
        when.at(&self.naive, self.now)
    }

    async fn step(&mut self, op: &Op) {
        match op {
            Op::Clock(when) => {
                let to = self.resolve(*when).max(self.now - 30 * naive::SECOND);
                self.now = to;
                self.world.clock.set(instant(to));
            }
            Op::Job { .. } => self.job().await,
            Op::Purchase { team, tokens, .. } => self.purchase(*team, *tokens).await,
            Op::Grant { .. } => self.grant(op).await,
            Op::Batch { lines, .. } => self.batch(lines).await,
            Op::Read { team, at } => self.read(*team, self.resolve(*at)).await,
            Op::Move { lot, from, to } => self.move_lot(*lot, *from, *to).await,
            Op::Adjust { lot, team, delta } => self.adjust(*lot, *team, *delta).await,
            Op::Refund { lot, team, amount } => self.refund(*lot, *team, *amount).await,
            Op::Chargeback { lot } => self.charge_back(*lot).await,
            Op::Reserve { .. } => self.reserve(op).await,
            Op::Extend { team, hold, lasts, more } => self.extend(*team, *hold, *lasts, *more).await,
            Op::Release { team, hold } => self.release(*team, *hold).await,
            Op::Correct { .. } => self.correct(op).await,
            Op::Publish { .. } | Op::Settlement { .. } | Op::Import { .. } => {}
        }
        self.compare().await;
    }

    fn number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    async fn job(&mut self) {
        let config = DueConfig { interval: DAY, teams_max: 10, rounds_max: 9 };
        Due::new(Arc::clone(&self.world.ledger), config).look().await.unwrap();
        for team in 0..TEAMS {
            self.naive.advance(team, self.now, self.settled());
        }
    }

    fn latest(&self, team: usize) -> i64 {
        self.naive.teams[team].posted.map_or(self.now, |posted| posted.max(self.now))
    }
}

fn sequences() -> u32 {
    std::env::var("LEDGER_SEQUENCES").ok().and_then(|count| count.parse().ok()).unwrap_or(24)
}

#[test]
fn the_service_agrees_with_the_naive_ledger_and_every_invariant_holds_after_every_step() {
    let config =
        Config { cases: sequences(), failure_persistence: None, max_shrink_iters: 64, ..Config::default() };
    let config = match config.rng_seed {
        RngSeed::Random => Config { rng_seed: RngSeed::Fixed(20_261_126), ..config },
        RngSeed::Fixed(_) => config,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let hits = std::cell::RefCell::new(Hits::new());
    let outcome = TestRunner::new(config).run(&history::history(), |(setup, ops)| {
        runtime.block_on(async {
            let mut both = Both::new(&setup).await;
            for op in &ops {
                both.step(op).await;
            }
            for (rule, count) in both.naive.hits {
                *hits.borrow_mut().entry(rule).or_default() += count;
            }
        });
        Ok::<(), TestCaseError>(())
    });
    hits.borrow().iter().for_each(|(rule, count)| println!("{count:>10}  {rule}"));
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
}
