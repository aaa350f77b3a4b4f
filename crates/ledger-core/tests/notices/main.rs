//! Facts that others are told: found once, at their instants, whoever looks and how often.

#![expect(clippy::unwrap_used, reason = "tests and their helpers fail by panicking")]

mod naive;
mod simulation;

use std::{cell::RefCell, collections::BTreeMap};

use drawdown_ledger_core::{Notice, NoticeRules, Team, Watch, notices};
use drawdown_types::{Timestamp, WindowSize};
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestCaseError, TestRunner},
};

use crate::simulation::{Simulation, Step, history};

/// Kinds of facts, and cases of them, that random histories must come upon.
const HITS: [&str; 12] = [
    "a dip inside one transaction",
    "a level reached by an expiry",
    "a level told again",
    "back_at_zero",
    "below_zero",
    "debt_netted",
    "level_reached",
    "lot_added",
    "lot_closed",
    "lot_expired",
    "lot_expiring",
    "told by a job",
];

fn told(simulation: &Simulation, every: usize, jobs: bool) -> (Vec<Notice>, u64) {
    let (rules, size) = (NoticeRules::default(), WindowSize::MINUTE);
    let (mut found, mut watch, mut by_jobs) = (Vec::new(), Watch::default(), 0);
    let mut before: &Team = &simulation.states[0].1;
    let mut journal = Vec::new();
    let mut look = |before: &Team, after: &Team, journal: &[_], to: Timestamp| {
        let told = notices(before, watch, after, journal, to, &rules, size);
        // Looking again at the same state changes nothing, as a job does that runs twice.
        let again = notices(after, told.watch, after, &[], to, &rules, size);
        assert_eq!((again.notices, again.watch), (Vec::new(), told.watch));
        watch = told.watch;
        if journal.is_empty() {
            by_jobs += told.notices.len() as u64;
        }
        found.extend(told.notices);
    };
    for (place, step) in simulation.steps.iter().enumerate() {
        match step {
            Step::Job(at) if jobs && journal.is_empty() => look(before, before, &[], *at),
            Step::Job(_) => {}
            Step::Transaction(index) => {
                let (at, after, rows) = &simulation.states[*index];
                journal.extend(rows.iter().cloned());
                if place % every == 0 {
                    look(before, after, &journal, *at);
                    journal.clear();
                    before = after;
                }
            }
        }
    }
    let (_, last, _) = simulation.states.last().unwrap();
    look(before, last, &journal, simulation.end);
    (found, by_jobs)
}

#[test]
fn facts_are_those_of_the_sequence_of_balances_however_it_is_cut() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1000);
    let config = Config {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(20_260_131),
        ..Config::default()
    };
    let hits: RefCell<BTreeMap<&str, u64>> = RefCell::default();
    let hit = |name, times| *hits.borrow_mut().entry(name).or_default() += times;
    let outcome = TestRunner::new(config).run(&(history(), 1_usize..5), |(ops, every)| {
        let simulation = Simulation::run(&ops);
        let expected = naive::facts(&simulation);
        let (one_by_one, by_jobs) = told(&simulation, 1, true);
        prop_assert_eq!(&one_by_one, &expected.notices, "with jobs");
        let (together, _) = told(&simulation, every, false);
        prop_assert_eq!(&together, &expected.notices, "{} transactions at a time, no job", every);
        let mut keys: Vec<String> = expected.notices.iter().map(Notice::key).collect();
        keys.sort_unstable();
        keys.dedup();
        prop_assert_eq!(keys.len(), expected.notices.len(), "each fact has its own key");
        expected.hits.into_iter().for_each(|name| hit(name, 1));
        hit("told by a job", by_jobs);
        Ok::<(), TestCaseError>(())
    });
    let hits = hits.into_inner();
    hits.iter().for_each(|(hit, count)| println!("{count:>10}  {hit}"));
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let missed: Vec<_> =
        HITS.iter().filter(|hit| hits.get(**hit).copied().unwrap_or_default() == 0).collect();
    assert!(missed.is_empty(), "cases with no hit: {missed:?}");
}
