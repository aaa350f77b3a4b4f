//! Sequences that share a database, and the run of many such groups.

use std::{collections::BTreeSet, thread, time::Instant};

use drawdown_ledger::verify::{Scope, Verdict};
use drawdown_ledger_model::{
    self as naive, Hits,
    history::{self, HOUR, KINDS, Op, POOLS, Setup},
    rules,
};
use drawdown_proto::ledger::v1::{
    Aggregation, ContractKind, ListUnattributedRequest, Price, RateCard, token_service_server::TokenService,
};
use drawdown_service::config::Count;
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestCaseError, TestRunner},
};
use tonic::Request;

use super::{Both, instant};
use crate::world::{World, proto};

/// Sequences of one database.
const SIDE_BY_SIDE: u32 = 25;
/// Parts of the run, each a thread with databases of its own. Some more than cores: one may wait for the disk.
const PARTS: u32 = 4;
/// Seconds of which a late line is still in time. The service knows no limit of 0.
pub(super) fn lateness_secs(setup: &Setup) -> i64 {
    i64::from(setup.window_secs) * setup.lateness_windows.max(1)
}

struct Group {
    /// As an operator sees it.
    world: World,
    sequences: Vec<Both>,
}

impl Group {
    async fn new(setup: &Setup, sequences: usize) -> Self {
        let change = |options: &mut drawdown_ledger::Options| {
            options.window_secs = setup.window_secs;
            options.lateness_limit_secs = lateness_secs(setup).unsigned_abs();
            options.pool_order = setup.pools.iter().map(|pool| POOLS[*pool].to_owned()).collect();
            // A statement is planned once, not anew for every call: half of a sequence's time would be that.
            options.growth.months_ahead = Count::of(1);
            // Few sessions, since each of them does so.
            options.database.connections_max = Count::of(2);
            options.database.url.push_str("?options=-c%20plan_cache_mode%3Dforce_generic_plan");
        };
        let world = World::begun_at(instant(setup.start), change).await;
        let mut group = Self { world, sequences: Vec::with_capacity(sequences) };
        let cards = group.price(setup).await;
        for number in 0..sequences {
            let beside = group.world.beside(change);
            let number = u32::try_from(number).unwrap();
            group.sequences.push(Both::new(beside, number, setup, cards.clone()).await);
        }
        group
    }

    /// One card for each kind of contract, for ever.
    async fn price(&self, setup: &Setup) -> Vec<naive::Card> {
        let window = i64::from(setup.window_secs) * naive::SECOND;
        let from = (setup.start - 40 * 24 * HOUR).div_euclid(window) * window;
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
        let mut cards = Vec::new();
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
            cards.push(naive::Card { kind, from, rates: rates.map(rate).into_iter().collect() });
        }
        cards
    }

    /// The n-th step of every sequence that has one, then every invariant.
    async fn round(&mut self, histories: &[Vec<Op>], n: usize) {
        for (sequence, ops) in self.sequences.iter_mut().zip(histories) {
            if let Some(op) = ops.get(n) {
                sequence.step(op).await;
            }
        }
        self.compare_unattributed().await;
        self.assert_clean(Scope::Incremental).await;
    }

    async fn compare_unattributed(&self) {
        let request = ListUnattributedRequest { page_size: 10_000, ..ListUnattributedRequest::default() };
        let answer = self.world.tokens.list_unattributed(Request::new(request)).await.unwrap().into_inner();
        assert_eq!(answer.next_page_token, "");
        let mut left: Vec<(String, String)> =
            answer.usage.into_iter().map(|usage| (usage.client_id, usage.reason)).collect();
        let mut theirs: Vec<_> = self.sequences.iter().flat_map(Both::unattributed).collect();
        left.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(left, theirs);
    }

    async fn assert_clean(&self, scope: Scope) {
        let verified = self.world.verify(scope).await;
        let violated = verified.verdicts.into_iter().filter(|verdict| verdict.violations > 0);
        assert_eq!(violated.collect::<Vec<Verdict>>(), Vec::new());
    }
}

/// What a part of the run did.
#[derive(Default)]
struct Outcome {
    hits: Hits,
    steps: usize,
    failure: Option<String>,
}

/// Runs so many sequences, some at a time; the same ones for the same seed.
fn part(sequences: u32, seed: u64) -> Outcome {
    let config = Config {
        cases: sequences.div_ceil(SIDE_BY_SIDE),
        failure_persistence: None,
        max_shrink_iters: 64,
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = std::cell::RefCell::new(Outcome::default());
    let side_by_side = usize::try_from(SIDE_BY_SIDE.min(sequences)).unwrap();
    let histories = prop::collection::vec(history::ops(), side_by_side);
    let ended = TestRunner::new(config).run(&(history::setup(), histories), |(setup, histories)| {
        let group = runtime.block_on(async {
            let mut group = Group::new(&setup, histories.len()).await;
            let rounds = histories.iter().map(Vec::len).max().unwrap_or_default();
            for n in 0..rounds {
                group.round(&histories, n).await;
            }
            group.assert_clean(Scope::Full).await;
            group
        });
        let mut outcome = outcome.borrow_mut();
        outcome.steps += histories.iter().map(Vec::len).sum::<usize>();
        for (rule, count) in group.sequences.into_iter().flat_map(|sequence| sequence.naive.hits) {
            *outcome.hits.entry(rule).or_default() += count;
        }
        Ok::<(), TestCaseError>(())
    });
    Outcome { failure: ended.err().map(|failure| failure.to_string()), ..outcome.into_inner() }
}

fn sequences() -> u32 {
    std::env::var("LEDGER_SEQUENCES").ok().and_then(|count| count.parse().ok()).unwrap_or(2_000)
}

fn seed() -> u64 {
    match Config::default().rng_seed {
        RngSeed::Random => 20_261_126,
        RngSeed::Fixed(seed) => seed,
    }
}

#[test]
fn the_service_agrees_with_the_naive_ledger_and_every_invariant_holds_after_every_step() {
    let started = Instant::now();
    let each = sequences().div_ceil(PARTS);
    let parts: Vec<_> =
        (0..PARTS).map(|number| thread::spawn(move || part(each, seed() + u64::from(number)))).collect();
    let (mut hits, mut steps, mut failures) = (Hits::new(), 0, Vec::new());
    for part in parts {
        let outcome = part.join().unwrap();
        for (rule, count) in outcome.hits {
            *hits.entry(rule).or_default() += count;
        }
        steps += outcome.steps;
        failures.extend(outcome.failure);
    }
    hits.iter().for_each(|(rule, count)| println!("{count:>10}  {rule}"));
    println!("{} sequences of {steps} steps in {:.0?}", each * PARTS, started.elapsed());
    assert_eq!(failures, Vec::<String>::new());
    let hit: BTreeSet<_> = hits.into_keys().collect();
    let missing: Vec<_> = rules::of_the_service().filter(|rule| !hit.contains(rule)).collect();
    assert_eq!(missing, Vec::<&str>::new(), "rules with no hit");
}
