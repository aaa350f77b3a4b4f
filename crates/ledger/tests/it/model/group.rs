//! Sequences that share a database, and the run of many such groups.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, resume_unwind},
    thread,
    time::Instant,
};

use drawdown_ledger::verify::{Scope, Verdict};
use drawdown_ledger_model::{
    self as naive, Adds, Hits, Ledger, Rate, Span,
    history::{self, KINDS, METERS, Op, POOLS, Setup},
    prices, rules,
};
use drawdown_proto::ledger::v1::{
    Aggregation, AggregationPeriod, ContractKind, ListUnattributedRequest, Price, PriceTier, RateCard,
    token_service_server::TokenService,
};
use drawdown_service::config::Count;
use drawdown_types::Clock as _;
use futures::FutureExt as _;
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestCaseError, TestRunner},
};
use tonic::Request;

use super::{Both, instant};
use crate::{
    standings::Gate,
    world::{World, proto},
};

/// Sequences of one database.
const SIDE_BY_SIDE: u32 = 25;
/// Parts of the run, each a thread with databases of its own. Some more than cores: one may wait for the disk.
const PARTS: u32 = 4;
/// As many as it takes to come upon every rule.
const SEQUENCES: u32 = 2_000;

/// After so many rounds a gate hears what changed.
const GATE_LOOKS: usize = 3;

/// How many seconds late a line may be. The service knows no limit of 0.
pub(super) fn lateness_secs(setup: &Setup) -> i64 {
    i64::from(setup.window_secs) * setup.lateness_windows.max(1)
}

struct Group {
    /// As an operator sees it.
    world: World,
    /// Before anything happened, with the rate cards.
    naive: Ledger,
    sequences: Vec<Both>,
    /// Has listed everything once, and hears of changes only.
    gate: Gate,
}

impl Group {
    async fn new(setup: &Setup, cards: &[Op], sequences: usize) -> Self {
        let change = |options: &mut drawdown_ledger::Options| {
            options.window_secs = setup.window_secs;
            options.lateness_limit_secs = lateness_secs(setup).unsigned_abs();
            options.pool_order = setup.pools.iter().map(|pool| POOLS[*pool].to_owned()).collect();
            options.unique_values_max = Count::of(usize::try_from(prices::DISTINCT_MAX).unwrap());
            options.growth.months_ahead = Count::of(1);
            // A statement is planned once, not anew for every call: half of a sequence's time would be that. Few
            // sessions, since each of them does so.
            options.database.connections_max = Count::of(2);
            let url = options.database.url.expose();
            options.database.url = format!("{url}?options=-c%20plan_cache_mode%3Dforce_generic_plan").into();
        };
        let world = World::begun_at(instant(setup.start), change).await;
        let naive = Ledger {
            window: i64::from(setup.window_secs) * naive::SECOND,
            lateness: lateness_secs(setup) * naive::SECOND,
            pools: setup.pools.iter().map(|pool| POOLS[*pool]).collect(),
            cards: Vec::new(),
            meters: prices::meters(),
            distinct_max: prices::DISTINCT_MAX,
            teams: KINDS.iter().map(|kind| naive::Team { kind, ..naive::Team::default() }).collect(),
            unattributed: Default::default(),
            leaving_older: Default::default(),
            hits: Hits::new(),
        };
        let mut group =
            Self { world, naive, sequences: Vec::with_capacity(sequences), gate: Gate::default() };
        group.set_up(setup, cards).await;
        for number in 0..sequences {
            let beside = group.world.beside(change);
            let number = u32::try_from(number).unwrap();
            let naive = Ledger { hits: Hits::new(), ..group.naive.clone() };
            group.sequences.push(Both::new(beside, number, setup, naive).await);
        }
        group.gate = Gate::open(&group.world).await;
        group
    }

    /// The catalogue: every meter but the last, a first version of each card, and then those of `cards`.
    async fn set_up(&mut self, setup: &Setup, cards: &[Op]) {
        let (last, meters) = METERS.split_last().unwrap();
        assert_eq!(*last, "unknown");
        for meter in meters {
            let (aggregation, span) = match prices::adds(meter) {
                Adds::Up if *meter == "call" => (Aggregation::Count, None),
                Adds::Up => (Aggregation::Sum, None),
                Adds::Largest(span) => (Aggregation::Max, Some(span)),
                Adds::Distinct(span) => (Aggregation::Unique, Some(span)),
            };
            let period = match span {
                None => AggregationPeriod::Unspecified,
                Some(Span::Day) => AggregationPeriod::Day,
                Some(Span::Month) => AggregationPeriod::Month,
            };
            let dimension = if aggregation == Aggregation::Unique { "user" } else { "" };
            self.world.meter_by(meter, aggregation, period, dimension).await.unwrap();
        }
        for kind in 0..KINDS.len() {
            self.publish(kind, naive::month_of(setup.start, -1), &[0; METERS.len()], true).await;
        }
        for op in cards {
            let Op::Publish { kind, from, change, careful } = op else { continue };
            let from = from.at(&self.naive, setup.start);
            self.publish(*kind, from, change, *careful).await;
        }
    }

    async fn publish(&mut self, kind: usize, from: i64, change: &[u8], careful: bool) {
        let rates = prices::rates(&self.naive, KINDS[kind], from, change, careful);
        let card = RateCard {
            name: KINDS[kind].to_owned(),
            contract_kind: [ContractKind::Flex, ContractKind::Enterprise][kind].into(),
            effective_from: proto(instant(from)),
            prices: rates.iter().map(|(meter, rate)| price(meter, rate)).collect(),
            ..RateCard::default()
        };
        let published = self.world.publish_card(card).await;
        assert_eq!(self.naive.publish(KINDS[kind], from, rates), published.is_ok(), "{published:?}");
    }

    /// The n-th step of every sequence that has one, then every invariant.
    async fn round(&mut self, histories: &[Vec<Op>], n: usize, only: Option<u32>) {
        for (sequence, ops) in self.sequences.iter_mut().zip(histories) {
            let Some(op) = ops.get(n).filter(|_| only.is_none_or(|only| only == sequence.number)) else {
                continue;
            };
            // One sequence is easier to read than all of them.
            if let Err(panic) = AssertUnwindSafe(sequence.step(op)).catch_unwind().await {
                println!("step {n} of sequence {} of {:#?}", sequence.number, ops.get(..=n));
                resume_unwind(panic);
            }
        }
        // Some changes of a team are told as one.
        if n.is_multiple_of(GATE_LOOKS) {
            self.gate.catch_up(&self.world).await;
            let begin = self.world.clock.now();
            self.sequences.iter_mut().for_each(|sequence| sequence.compare_gate(&self.gate, begin));
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

fn price(meter: &str, rate: &Rate) -> Price {
    let Rate { micros, per_units, tiers, unit, free, free_only, failed_is_free } = rate.clone();
    Price {
        meter: meter.to_owned(),
        micros,
        per_units,
        failed_is_free,
        tiers: tiers.into_iter().map(|(above, micros)| PriceTier { above, micros }).collect(),
        charged_unit: unit,
        free_quota: free,
        free_only,
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
fn part(number: u32, sequences: u32, seed: u64, only: Option<[u32; 3]>) -> Outcome {
    let config = Config {
        cases: sequences.div_ceil(SIDE_BY_SIDE),
        failure_persistence: None,
        // The sequence that failed is printed: it needs none of the others.
        max_shrink_iters: 0,
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = std::cell::RefCell::new(Outcome::default());
    let side_by_side = usize::try_from(SIDE_BY_SIDE.min(sequences)).unwrap();
    let histories = prop::collection::vec(history::ops(), side_by_side);
    let cards = prop::collection::vec(history::publish(), 0..5);
    let groups = std::cell::Cell::new(0);
    let random = (history::setup(), cards, histories);
    let ended = TestRunner::new(config).run(&random, |(setup, cards, histories)| {
        let here = groups.replace(groups.get() + 1);
        if only.is_some_and(|[part, group, _]| (part, group) != (number, here)) {
            return Ok(());
        }
        let group = runtime.block_on(async {
            let mut group = Group::new(&setup, &cards, histories.len()).await;
            let rounds = histories.iter().map(Vec::len).max().unwrap_or_default();
            for n in 0..rounds {
                group.round(&histories, n, only.map(|[.., sequence]| sequence)).await;
            }
            group.assert_clean(Scope::Full).await;
            group
        });
        let mut outcome = outcome.borrow_mut();
        outcome.steps += histories.iter().map(Vec::len).sum::<usize>();
        let ledgers = group.sequences.into_iter().map(|sequence| sequence.naive).chain([group.naive]);
        for (rule, count) in ledgers.flat_map(|ledger| ledger.hits) {
            *outcome.hits.entry(rule).or_default() += count;
        }
        Ok::<(), TestCaseError>(())
    });
    let named = |_| format!("LEDGER_ONLY={number}.{}.N, N the number of the sequence", groups.get() - 1);
    let failure = ended.err().map(named);
    Outcome { failure, ..outcome.into_inner() }
}

fn sequences() -> u32 {
    std::env::var("LEDGER_SEQUENCES").ok().and_then(|count| count.parse().ok()).unwrap_or(SEQUENCES)
}

/// The one sequence that is wanted, by part, group and its number there: a failure tells all three.
fn only() -> Option<[u32; 3]> {
    let named = std::env::var("LEDGER_ONLY").ok()?;
    let numbers: Vec<u32> = named.split('.').map(|number| number.parse().unwrap()).collect();
    Some(numbers.try_into().unwrap())
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
    let parts: Vec<_> = (0..PARTS)
        .map(|number| thread::spawn(move || part(number, each, seed() + u64::from(number), only())))
        .collect();
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
    if sequences() < SEQUENCES || only().is_some() {
        return;
    }
    let hit: BTreeSet<_> = hits.into_keys().collect();
    let missing: Vec<_> = rules::of_the_service().filter(|rule| !hit.contains(rule)).collect();
    assert_eq!(missing, Vec::<&str>::new(), "rules with no hit");
}
