//! D13, D15, D16, D17: prices of every shape, with numbers worked out by hand.

use drawdown_ledger_core::{Plan, Rated, Terms, TermsDraft, Tier, Unattributable, price_of};
use drawdown_types::{MicroTokens, Quantity};
use proptest::prelude::*;

use crate::world::{World, at, on, reasons, tokens};

fn quantity(units: i64) -> Quantity {
    Quantity::new(units).unwrap()
}

fn draft(micros: i64, per_units: i64) -> TermsDraft {
    TermsDraft { micros, per_units, ..TermsDraft::default() }
}

fn price(draft: TermsDraft, units: i64) -> Option<i64> {
    price_of(&draft.check().unwrap(), quantity(units)).map(MicroTokens::as_micros)
}

/// The card of 2025-12: 3 tokens an hour, in whole units of 20 minutes.
fn automation() -> TermsDraft {
    TermsDraft { charged_unit: Some(1_200), ..draft(3_000_000, 3_600) }
}

/// A world in which `meter` costs `draft` from 2026 on.
fn world(meter: &'static str, draft: TermsDraft) -> World {
    let mut world = World::new();
    world.publish_terms("2026-01-01T00:00:00Z", vec![(meter, draft.check().unwrap())]);
    world
}

/// Uses so much of `meter` in the minute of `window`.
fn used(world: &mut World, meter: &str, units: i64, window: &str) -> Plan {
    let line = world.line(meter, units, at(window));
    world.post(&[line], at("2026-12-01T00:00:00Z"))
}

/// What it costs, in tokens.
fn cost(world: &mut World, meter: &str, units: i64, window: &str) -> String {
    used(world, meter, units, window).charges[0].amount.to_string()
}

#[test]
fn d15_the_card_of_2025_12_charges_whole_20_minutes() {
    let seconds = [0, 1_199, 1_200, 2_399, 2_400, 3_600, 5_400];
    let micros = [0, 0, 1_000_000, 1_000_000, 2_000_000, 3_000_000, 4_000_000];
    assert_eq!(seconds.map(|units| price(automation(), units)), micros.map(Some));
}

#[test]
fn d15_the_unfinished_part_of_a_unit_rolls_into_the_next_month() {
    let mut world = world("automation", automation());
    let mut cost = |units, window| cost(&mut world, "automation", units, window);
    // June: 50 minutes are two units, and 10 minutes are left.
    assert_eq!(cost(3_000, "2026-06-30T23:59:00Z"), "2");
    // July: 9:59 more is not a unit yet; one more second is.
    assert_eq!(cost(599, "2026-07-01T00:00:00Z"), "0");
    assert_eq!(cost(1, "2026-07-01T00:01:00Z"), "1");
    // Nothing used in August; September finishes what July began.
    assert_eq!(cost(1_000, "2026-07-31T23:59:00Z"), "0");
    assert_eq!(cost(200, "2026-09-15T12:00:00Z"), "1");
    // Late usage of June goes on where all of it stands.
    assert_eq!(cost(1_250, "2026-06-30T23:59:00Z"), "1");
    assert_eq!(cost(1_150, "2026-09-15T12:00:00Z"), "1");
    let months: Vec<_> = world
        .states
        .iter()
        .map(|state| (state.key.cycle.start().to_string(), state.quantity.as_units()))
        .collect();
    let row = |at: &str, units| (at.to_owned(), units);
    let mut sorted = months;
    sorted.sort();
    assert_eq!(
        sorted,
        [
            row("0001-01-01T00:00:00Z", 7_200),
            row("2026-06-01T00:00:00Z", 4_250),
            row("2026-07-01T00:00:00Z", 1_600),
            row("2026-09-01T00:00:00Z", 1_350),
        ]
    );
    assert_eq!(world.row().consumed, tokens("6"));
}

#[test]
fn d15_free_units_come_off_each_month_first_and_the_excess_runs_on() {
    // One hour free each month.
    let mut world = world("automation", TermsDraft { free_quota: 3_600, ..automation() });
    let mut cost = |units, window| cost(&mut world, "automation", units, window);
    assert_eq!(cost(3_600, "2026-06-10T00:00:00Z"), "0");
    assert_eq!(cost(1_900, "2026-06-10T00:01:00Z"), "1", "1,900 s above: one unit, 700 s run on");
    assert_eq!(cost(3_600, "2026-07-10T00:00:00Z"), "0", "July has an hour of its own");
    assert_eq!(cost(499, "2026-07-10T00:01:00Z"), "0");
    assert_eq!(cost(1, "2026-07-10T00:02:00Z"), "1", "700 + 500");
    assert_eq!(cost(3_599, "2026-08-10T00:00:00Z"), "0");
    assert_eq!(cost(1_201, "2026-08-10T00:01:00Z"), "1", "the last free second, then 1,200");
}

#[test]
fn d47_the_unfinished_unit_of_an_ended_price_waits_for_late_usage_of_that_price() {
    let mut world = world("automation", automation());
    let dearer = TermsDraft { charged_unit: Some(1_200), ..draft(6_000_000, 3_600) };
    world.publish_terms("2026-07-01T00:00:00Z", vec![("automation", dearer.check().unwrap())]);
    let mut cost = |units, window| cost(&mut world, "automation", units, window);
    assert_eq!(cost(1_199, "2026-06-30T00:00:00Z"), "0");
    assert_eq!(cost(1_199, "2026-07-01T00:00:00Z"), "0", "the new price begins with nothing");
    assert_eq!(cost(1, "2026-07-01T00:01:00Z"), "2");
    assert_eq!(cost(1, "2026-06-30T00:01:00Z"), "1", "late usage completes the old unit at the old price");
}

#[test]
fn d16_a_quota_is_free_each_month_and_not_rolled_over() {
    let mut world = world("call", TermsDraft { free_quota: 1_000, ..draft(1_000_000, 100) });
    let mut cost = |units, window| cost(&mut world, "call", units, window);
    assert_eq!(cost(400, "2026-06-01T00:00:00Z"), "0");
    assert_eq!(cost(750, "2026-06-02T00:00:00Z"), "1.5", "150 above");
    assert_eq!(cost(100, "2026-07-01T00:00:00Z"), "0");
    assert_eq!(cost(1_000, "2026-08-01T00:00:00Z"), "0", "what July left is gone");
    assert_eq!(cost(1, "2026-08-01T00:01:00Z"), "0.01");
    assert_eq!(cost(1, "2026-06-30T00:00:00Z"), "0.01", "late usage of June is above June's quota");
}

#[test]
fn d16_a_meter_that_is_free_only_records_what_is_over_its_quota() {
    let free = TermsDraft { free_quota: 10, free_only: true, ..draft(0, 1) };
    let mut world = world("preview", free);
    world.buy(1, 100, on("12:00:00"));
    let mut rated = |units, window| {
        let plan = used(&mut world, "preview", units, window);
        assert_eq!(plan.charges[0].amount, MicroTokens::ZERO);
        (plan.charges[0].rated, plan.states[0].quantity.as_units())
    };
    let june = "2026-06-01T00:00:00Z";
    let (Rated::Priced(price_id), 10) = rated(10, june) else { panic!("the quota itself is no excess") };
    assert_eq!(rated(1, june), (Rated::OverQuota(price_id), 11));
    assert_eq!(rated(0, june), (Rated::Priced(price_id), 11));
    assert_eq!(rated(12, "2026-07-01T00:00:00Z"), (Rated::OverQuota(price_id), 12), "in part");
    assert_eq!(world.left(1), "100");
}

#[test]
fn d17_each_tier_has_a_price_of_its_own() {
    let tiers = vec![Tier { above: 100, micros: 20 }, Tier { above: 1_000, micros: 5 }];
    let graduated = TermsDraft { tiers, ..draft(50, 7) };
    // 50/7 a unit up to 100, 20/7 up to 1,000, 5/7 above.
    let units = [1, 100, 101, 1_000, 1_001, 10_000];
    let sevenths = [50, 5_000, 5_020, 23_000, 23_005, 68_000];
    for (units, sevenths) in units.into_iter().zip(sevenths) {
        assert_eq!(price(graduated.clone(), units), Some(sevenths / 7), "{units}");
    }
    let with_quota = TermsDraft { free_quota: 40, ..graduated };
    assert_eq!(price(with_quota.clone(), 40), Some(0));
    assert_eq!(price(with_quota, 141), Some(5_020 / 7), "tiers begin above the quota");
}

#[test]
fn d17_tiers_begin_anew_each_month() {
    let tiers = vec![Tier { above: 10, micros: 1_000_000 }];
    let mut world = world("photo", TermsDraft { tiers, ..draft(2_000_000, 1) });
    let mut cost = |units, window| cost(&mut world, "photo", units, window);
    assert_eq!(cost(9, "2026-06-01T00:00:00Z"), "18");
    assert_eq!(cost(3, "2026-06-02T00:00:00Z"), "4", "one at 2, two at 1");
    assert_eq!(cost(10, "2026-07-01T00:00:00Z"), "20");
}

#[test]
fn d53_every_step_is_checked_at_the_limits() {
    let max = i64::MAX;
    assert_eq!(price(draft(max, 1), 1), Some(max));
    assert_eq!(price(draft(max, 1), 2), None);
    let tiers = |micros| vec![Tier { above: max - 1, micros }];
    assert_eq!(price(TermsDraft { tiers: tiers(0), ..draft(max, max) }, max), Some(max - 1));
    assert_eq!(price(TermsDraft { tiers: tiers(max), ..draft(max, 1) }, max), None);
    assert_eq!(price(TermsDraft { tiers: tiers(max), ..draft(max, max) }, max), Some(max));
    assert_eq!(price(TermsDraft { charged_unit: Some(max), ..draft(max, max) }, max), Some(max));
    assert_eq!(price(TermsDraft { charged_unit: Some(max), ..draft(max, 1) }, max - 1), Some(0));
    assert_eq!(price(TermsDraft { free_quota: max, ..draft(max, 1) }, max), Some(0));
    // The sum over all months of what is above the quota.
    let mut world = world("unit", TermsDraft { charged_unit: Some(1), ..draft(0, 1) });
    let mut left = |units, window| reasons(&used(&mut world, "unit", units, window));
    assert_eq!(left(max, "2026-06-01T00:00:00Z"), []);
    assert_eq!(left(1, "2026-07-01T00:00:00Z"), [(0, Unattributable::Overflow)]);
    assert_eq!(left(0, "2026-07-01T00:00:00Z"), []);
    assert_eq!(left(1, "2026-06-01T00:00:00Z"), [(0, Unattributable::Overflow)], "the month's own sum");
}

fn any_terms() -> impl Strategy<Value = Terms> {
    let tiers = prop::collection::btree_map(1i64..200, 0i64..50, 0..4);
    let rest = (prop::option::of(1i64..60), prop_oneof![Just(0i64), 1i64..150], any::<bool>());
    (0i64..50, 1i64..9, tiers, rest).prop_map(|(micros, per_units, tiers, (unit, free_quota, units))| {
        let tiers = tiers.into_iter().map(|(above, micros)| Tier { above, micros });
        let (tiers, charged_unit) = if units { (Vec::new(), unit) } else { (tiers.collect(), None) };
        TermsDraft { tiers, charged_unit, free_quota, ..draft(micros, per_units) }.check().unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn d14_no_split_and_no_order_changes_the_sum_of_a_price(
        terms in any_terms(),
        usage in prop::collection::vec((0i64..90, 0usize..3, 0usize..4), 1..30),
    ) {
        let windows = ["2026-06-30T23:59:00Z", "2026-07-01T00:00:00Z", "2026-08-09T10:11:00Z"];
        let story = |order: &[usize], batches: usize| {
            let mut world = world("m", terms.draft());
            for part in 0..batches {
                let mine = order.iter().map(|at| usage[*at]).filter(|(.., batch)| batch % batches == part);
                let lines: Vec<_> =
                    mine.map(|(units, window, _)| world.line("m", units, at(windows[window]))).collect();
                world.post(&lines, at("2026-12-01T00:00:00Z"));
            }
            world.states.sort_by_key(|state| state.key);
            (world.states.iter().map(|state| (state.key.cycle, state.quantity)).collect::<Vec<_>>(), world.row().consumed)
        };
        let ascending: Vec<usize> = (0..usage.len()).collect();
        let descending: Vec<usize> = ascending.iter().rev().copied().collect();
        let once = story(&ascending, 1);
        prop_assert_eq!(&story(&ascending, 4), &once);
        prop_assert_eq!(&story(&descending, 3), &once);
    }

    #[test]
    fn a_price_never_falls_as_usage_grows(terms in any_terms(), a in 0i64..500, b in 0i64..500) {
        prop_assert!(price_of(&terms, quantity(a.min(b))) <= price_of(&terms, quantity(a.max(b))));
    }
}
