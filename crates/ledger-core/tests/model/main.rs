//! Random histories put to the crate and to a naive ledger written from the domain's rules alone.
//!
//! `PROPTEST_CASES` sets how many histories are tried (20,000 without it), `PROPTEST_RNG_SEED` which.

#![expect(clippy::unwrap_used, reason = "tests and their helpers fail by panicking")]

mod both;

mod store;

use std::{cell::RefCell, collections::BTreeSet};

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

use drawdown_ledger_model::{Hits, history};

use crate::both::Both;

/// Every rule and case that random histories must come upon.
const RULES: [&str; 100] = [
    "D1 a purchase is refused",
    "D2 from 29 February",
    "D2 one year",
    "D3 a closing lot pays late usage",
    "D3 a closing lot pays nothing newer",
    "D3 an empty lot closes",
    "D3 gone from the balance at its expiry",
    "D3 the rest is forfeited",
    "D4 by expiry",
    "D4 by lot id",
    "D4 by original size",
    "D4 by pool",
    "D4 by purchase time",
    "D5 D44 a change is refused",
    "D5 a grant is refused",
    "D5 a scheduled grant",
    "D5 an adjustment down",
    "D5 an adjustment up",
    "D6 below zero",
    "D6 zero is fine",
    "D7 a new lot pays a part",
    "D7 a new lot pays all debt",
    "D7 an item paid in part",
    "D7 several items in one netting",
    "D9 later than the limit",
    "D9 what came later pays no earlier window",
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
    "D42 an adjustment pays debt",
    "D42 and ahead of older debt",
    "D42 what comes back to a closing lot pays nothing else",
    "D42 what comes back to a closing lot pays usage of its validity",
    "D43 a correction is refused",
    "D43 a part of a line",
    "D43 a payment goes back",
    "D43 a refund reaches the latest lines",
    "D43 a whole line",
    "D43 charged again through a closed lot",
    "D43 charged again through a lot that moved",
    "D43 charged again through what came back",
    "D43 charged again to another team",
    "D43 what goes back follows a lot that moved",
    "D43 what goes back to a closed lot expires",
    "D43 what is owed is taken first",
    "D44 a chargeback",
    "D44 a chargeback is refused",
    "D44 a chargeback of a lot that moved",
    "D44 a part leaves its hold",
    "D44 a refund",
    "D44 what had expired is void",
    "D44 what it had paid is owed again",
    "D45 a heartbeat",
    "D45 a hold",
    "D45 a hold of several parts",
    "D45 a hold takes less",
    "D45 a hold that can not be",
    "D45 a last capture",
    "D45 a release",
    "D45 a release of what is over",
    "D45 a time-out",
    "D45 an extension is refused",
    "D45 an extension with more",
    "D45 an overrun is ordinary usage",
    "D45 too little for a hold",
    "D45 usage draws its hold",
    "D45 usage of a hold belongs to its window",
    "D45 usage of no open hold is ordinary usage",
    "D46 a lot comes back",
    "D46 a lot moves",
    "D46 a lot that moved pays debt",
    "D46 a move is refused",
    "D47 a changed price begins anew",
    "D47 an unchanged price goes on",
    "D48 the clock goes on",
    "D48 the clock is cleared",
    "D48 the clock starts",
    "D53 what does not fit",
    "D55 a close waits for settlement",
    "D61 a debt arrives",
    "D61 a debt that arrives is paid at once",
    "D61 a lot arrives",
    "D61 a lot arrives after its expiry",
    "D61 a lot arrives before its start",
    "D61 a lot is set up",
    "D61 an import is refused",
    "D61 an import that does not tie",
    "D61 the clock began before",
    "a batch cut in two",
    "a job",
    "a read before the last posting",
];

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
    let known: BTreeSet<_> = RULES.into();
    let hit: BTreeSet<_> = hits.into_keys().collect();
    assert_eq!(known.difference(&hit).collect::<Vec<_>>(), Vec::<&&str>::new(), "rules with no hit");
    assert_eq!(hit.difference(&known).collect::<Vec<_>>(), Vec::<&&str>::new(), "rules that are not listed");
}
