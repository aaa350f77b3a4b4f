//! Random histories put to the crate and to a naive ledger written from the domain's rules alone.
//!
//! `PROPTEST_CASES` sets how many histories are tried (20,000 without it), `PROPTEST_RNG_SEED` which.

#![expect(clippy::unwrap_used, reason = "tests and their helpers fail by panicking")]

mod both;

mod store;

use std::{cell::RefCell, collections::BTreeSet};

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

use drawdown_ledger_model::{Hits, history, rules};

use crate::both::Both;

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(20_000)
}

/// The same histories every time, unless told otherwise: a rule must not be missed by chance.
fn config() -> Config {
    let config = Config { cases: cases(), failure_persistence: None, ..Config::default() };
    match config.rng_seed {
        RngSeed::Random => Config { rng_seed: RngSeed::Fixed(20_260_131), ..config },
        RngSeed::Fixed(_) => config,
    }
}

#[test]
fn both_ledgers_agree_and_every_rule_is_hit() {
    let config = config();
    let hits = RefCell::new(Hits::new());
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&history::history(), |(setup, ops)| {
        let mut both = Both::new(&setup);
        for op in &ops {
            both.step(op);
            let case = match op {
                history::Op::Batch { split: true, lines, .. } if lines.len() > 1 => "a batch cut in two",
                history::Op::Job { .. } => "a job",
                _ => continue,
            };
            *hits.borrow_mut().entry(case).or_default() += 1;
        }
        both.end();
        for (rule, count) in both.into_hits() {
            *hits.borrow_mut().entry(rule).or_default() += count;
        }
        Ok::<(), TestCaseError>(())
    });
    let hits = hits.into_inner();
    hits.iter().for_each(|(rule, count)| println!("{count:>10}  {rule}"));
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let known: BTreeSet<_> = rules::of_the_core().collect();
    let hit: BTreeSet<_> = hits.into_keys().collect();
    assert_eq!(known.difference(&hit).collect::<Vec<_>>(), Vec::<&&str>::new(), "rules with no hit");
    assert_eq!(hit.difference(&known).collect::<Vec<_>>(), Vec::<&&str>::new(), "rules that are not listed");
}
