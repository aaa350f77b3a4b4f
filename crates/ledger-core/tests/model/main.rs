//! Random histories put to the crate and to a naive ledger written from the domain's rules alone.
//!
//! `PROPTEST_CASES` sets how many histories are tried (512 without it), `PROPTEST_RNG_SEED` which.

#![expect(clippy::unwrap_used, reason = "tests and their helpers fail by panicking")]

mod both;
mod history;
mod naive;
mod store;

use std::{cell::RefCell, collections::BTreeSet};

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

use crate::{both::Both, naive::Hits};

/// Every rule and case that random histories must come upon.
const RULES: [&str; 46] = [
    "D1 a purchase is refused",
    "D2 one year",
    "D2 from 29 February",
    "D3 gone from the balance at its expiry",
    "D3 a closing lot pays late usage",
    "D3 a closing lot pays nothing newer",
    "D3 the rest is forfeited",
    "D3 an empty lot closes",
    "D4 by pool",
    "D4 by expiry",
    "D4 by original size",
    "D4 by purchase time",
    "D4 by lot id",
    "D5 a grant is refused",
    "D5 a scheduled grant",
    "D6 zero is fine",
    "D6 below zero",
    "D7 a new lot pays all debt",
    "D7 a new lot pays a part",
    "D7 an item paid in part",
    "D7 several items in one netting",
    "D9 later than the limit",
    "D9 a grant made later",
    "D10 an expiry ends at zero",
    "D12 no price in force",
    "D13 a rational with a rest",
    "D14 a state goes on",
    "D18 a failed job is free",
    "D20 free in the trial",
    "D25 nobody's usage",
    "D40 a step at its own instant",
    "D40 the clock went back",
    "D41 a scheduled lot pays nothing",
    "D41 netting outside the validity",
    "D42 a lot starts and pays debt",
    "D47 a changed price begins anew",
    "D47 an unchanged price goes on",
    "D48 the clock starts",
    "D48 the clock goes on",
    "D48 the clock is cleared",
    "D53 what does not fit",
    "D55 a close waits for settlement",
    "D61 a lot is set up",
    "a batch cut in two",
    "a job",
    "a read before the last posting",
];

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(512)
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
                history::Op::Batch { split: true, lines } if lines.len() > 1 => "a batch cut in two",
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
    let known: BTreeSet<_> = RULES.into();
    let hit: BTreeSet<_> = hits.into_keys().collect();
    assert_eq!(known.difference(&hit).collect::<Vec<_>>(), Vec::<&&str>::new(), "rules with no hit");
    assert_eq!(hit.difference(&known).collect::<Vec<_>>(), Vec::<&&str>::new(), "rules that are not listed");
}
