//! Budgets by example, and under any split.

use drawdown_ledger_core::{
    BudgetMonth, BudgetState, BudgetTerms, BudgetTermsError, Fact, Notice, Spent, budget_set, month_of, spend,
};
use drawdown_types::{AppId, MicroTokens, TeamId, Timestamp};
use proptest::prelude::*;

use crate::world::{at, id, tokens};

fn terms(cap: &str, soft: &[u16]) -> BudgetTerms {
    BudgetTerms::new(tokens(cap), soft, true).unwrap()
}

fn budget(app: Option<u64>, month: &str, terms: Option<BudgetTerms>) -> BudgetMonth {
    BudgetMonth {
        budget_id: id("budget", app.unwrap_or_default() + 1),
        account_id: id("acct", 1),
        team_id: id("team", 1),
        app_id: app.map(|app| id("app", app)),
        month: at(month),
        used: MicroTokens::ZERO,
        terms,
    }
}

fn part(app: u64, window: &str, amount: i64) -> Spent {
    let amount = amount * 1_000_000;
    Spent { team_id: id::<TeamId>("team", 1), app_id: id::<AppId>("app", app), window: at(window), amount }
}

fn percents(notices: &[Notice]) -> Vec<u16> {
    let percent = |notice: &Notice| match &notice.fact {
        Fact::BudgetReached { percent, .. } => *percent,
        other => unreachable!("{other:?}"),
    };
    notices.iter().map(percent).collect()
}

const MARCH: &str = "2026-03-01T00:00:00Z";
const APRIL: &str = "2026-04-01T00:00:00Z";

#[test]
fn d59_usage_counts_in_the_month_of_its_window_however_late_it_is_posted() {
    let mut budgets = [
        budget(None, MARCH, Some(terms("100", &[50, 80]))),
        budget(None, APRIL, Some(terms("100", &[50, 80]))),
        budget(Some(7), MARCH, Some(terms("10", &[]))),
    ];
    let posted = at("2026-04-01T00:00:30Z");
    let spent = [
        part(1, "2026-03-31T23:59:00Z", 60),
        part(7, "2026-03-31T23:59:00Z", 9),
        part(7, "2026-04-01T00:00:00Z", 40),
        Spent { team_id: id("team", 2), ..part(7, MARCH, 99) },
    ];
    let (changed, notices) = spend(&mut budgets, spent, posted);
    assert_eq!(changed, [0, 1, 2]);
    assert_eq!(budgets.each_ref().map(|budget| budget.used), [tokens("69"), tokens("40"), tokens("9")]);
    assert_eq!(percents(&notices), [50]);
    let Fact::BudgetReached { late, used, .. } = notices[0].fact else { unreachable!() };
    assert!(late && used == tokens("69"));
    // Beyond the cap of a month that is over: shown and told, never refused.
    let (_, notices) = spend(&mut budgets, [part(7, MARCH, 32)], posted);
    assert_eq!(percents(&notices), [80, 100, 100]);
    assert_eq!(budgets[0].terms.as_ref().unwrap().state(budgets[0].used), BudgetState::CapReached);
}

#[test]
fn a_level_is_told_once_and_again_after_a_correction() {
    let mut budgets = [budget(None, MARCH, Some(terms("100", &[50])))];
    let mut told = |amount| percents(&spend(&mut budgets, [part(1, MARCH, amount)], at(MARCH)).1);
    assert_eq!(
        [told(49), told(1), told(10), told(-11), told(1), told(60)],
        [vec![], vec![50], vec![], vec![], vec![50], vec![100]]
    );
}

#[test]
fn new_terms_tell_what_they_put_below_what_is_used() {
    let mut set = budget(None, MARCH, Some(terms("100", &[50])));
    set.used = tokens("60");
    let now = at("2026-03-15T00:00:00Z");
    assert_eq!(percents(&budget_set(&set, None, now)), [50]);
    assert_eq!(percents(&budget_set(&set, Some(&terms("200", &[50])), now)), [50]);
    assert_eq!(percents(&budget_set(&set, Some(&terms("110", &[50])), now)), Vec::<u16>::new());
    set.terms = None;
    assert!(budget_set(&set, Some(&terms("110", &[50])), now).is_empty());
}

#[test]
fn terms_that_can_not_be_are_refused() {
    let new = |cap, soft: &[u16]| BudgetTerms::new(MicroTokens::from_micros(cap), soft, false).map(drop);
    assert_eq!(new(0, &[]), Err(BudgetTermsError::Cap(MicroTokens::ZERO)));
    for soft in [&[80, 50][..], &[50, 50], &[0], &[100]] {
        assert_eq!(new(1, soft), Err(BudgetTermsError::Soft), "{soft:?}");
    }
    assert_eq!(new(1, &[1, 99]), Ok(()));
    let terms = terms("0.000003", &[33, 34]);
    assert_eq!(
        [0, 1, 2, 3].map(|used| terms.state(MicroTokens::from_micros(used))),
        [
            BudgetState::Under,
            BudgetState::SoftReached(33),
            BudgetState::SoftReached(34),
            BudgetState::CapReached
        ]
    );
    assert_eq!(month_of(at("2026-03-31T23:59:59Z")), (at(MARCH), at(APRIL)));
}

proptest! {
    #[test]
    fn no_split_changes_what_is_used_or_what_is_told(
        amounts in proptest::collection::vec((0_u64..3, 0_i64..40, any::<bool>()), 1..30),
        cut in 1_usize..10,
    ) {
        let fresh = || [
            budget(None, MARCH, Some(terms("100", &[10, 50, 90]))),
            budget(Some(1), MARCH, Some(terms("30", &[50]))),
            budget(Some(2), APRIL, None),
        ];
        let parts: Vec<Spent> = amounts
            .iter()
            .map(|(app, amount, march)| part(*app, if *march { MARCH } else { APRIL }, *amount))
            .collect();
        let run = |cut: usize| {
            let (mut budgets, mut told) = (fresh(), Vec::new());
            for parts in parts.chunks(cut) {
                let (_, notices) = spend(&mut budgets, parts.iter().copied(), Timestamp::MIN);
                told.extend(notices.into_iter().map(|notice| match notice.fact {
                    Fact::BudgetReached { budget_id, percent, .. } => (budget_id, percent),
                    other => unreachable!("{other:?}"),
                }));
            }
            told.sort_unstable();
            (budgets, told)
        };
        prop_assert_eq!(run(cut), run(parts.len()));
    }
}
