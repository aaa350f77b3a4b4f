//! D19: `max` and `unique`, per UTC day or month, exact and per team.

use drawdown_ledger_core::{
    Aggregation, DistinctValues, Line, Period, Terms, Unattributable, Usage, periods_wanted, usage_keys,
};
use drawdown_types::{Quantity, Timestamp};
use proptest::prelude::*;

use crate::world::{World, at, reasons};

fn quantity(units: i64) -> Quantity {
    Quantity::new(units).unwrap()
}

fn values(text: &str) -> DistinctValues {
    DistinctValues::new(text.split_whitespace().map(|value| value.as_bytes().into()))
}

/// `meter` aggregates so and costs one token a unit; `cent` adds up and costs a hundredth.
fn world(meter: &'static str, aggregation: Aggregation) -> World {
    let mut world = World::new();
    world.aggregate(meter, aggregation);
    let cent = ("cent", Terms::new(10_000, 1, false).unwrap());
    let prices = vec![(meter, Terms::new(1_000_000, 1, true).unwrap()), cent];
    world.publish_terms("2026-01-01T00:00:00Z", prices);
    world
}

fn max_line(world: &World, meter: &str, value: i64, window: Timestamp) -> Line {
    Line { usage: Usage::Max(quantity(value)), ..world.line(meter, 0, window) }
}

fn unique_line(world: &World, meter: &str, text: &str, window: Timestamp) -> Line {
    Line { usage: Usage::Unique(values(text)), ..world.line(meter, 0, window) }
}

fn cost(world: &mut World, line: Line) -> String {
    world.post(&[line], at("2026-12-01T00:00:00Z")).charges[0].amount.to_string()
}

#[test]
fn d19_max_charges_the_largest_value_of_each_day() {
    let mut world = world("peak", Aggregation::Max(Period::Day));
    let mut cost = |value, window: &str| {
        let line = max_line(&world, "peak", value, at(window));
        cost(&mut world, line)
    };
    assert_eq!(cost(5, "2026-06-10T00:00:00Z"), "5");
    assert_eq!(cost(3, "2026-06-10T12:00:00Z"), "0");
    assert_eq!(cost(8, "2026-06-10T23:59:00Z"), "3");
    assert_eq!(cost(4, "2026-06-11T00:00:00Z"), "4", "a new day");
    assert_eq!(cost(9, "2026-06-10T08:00:00Z"), "1", "late usage of the day before");
    assert_eq!(world.states[0].quantity, quantity(13), "a month is the sum over its days");
    assert_eq!(world.periods.states.len(), 2);
}

#[test]
fn d19_max_by_month_is_one_value_a_month() {
    let mut world = world("peak", Aggregation::Max(Period::Month));
    let mut cost = |value, window: &str| {
        let line = max_line(&world, "peak", value, at(window));
        cost(&mut world, line)
    };
    assert_eq!(cost(5, "2026-06-01T00:00:00Z"), "5");
    assert_eq!(cost(6, "2026-06-30T23:59:00Z"), "1");
    assert_eq!(cost(6, "2026-07-01T00:00:00Z"), "6");
}

#[test]
fn d19_one_charge_for_each_user_and_day() {
    let mut world = world("seat", Aggregation::Unique(Period::Day));
    let mut cost = |text, window: &str| {
        let line = unique_line(&world, "seat", text, at(window));
        cost(&mut world, line)
    };
    assert_eq!(cost("ann bob", "2026-06-10T00:00:00Z"), "2");
    assert_eq!(cost("bob ann", "2026-06-10T12:00:00Z"), "0");
    assert_eq!(cost("bob cid", "2026-06-10T23:59:00Z"), "1");
    assert_eq!(cost("ann", "2026-06-11T00:00:00Z"), "1", "a new day");
    assert_eq!(cost("", "2026-06-11T00:01:00Z"), "0", "no values at all");
    assert_eq!(world.states[0].quantity, quantity(4));
    assert_eq!(world.periods.values.len(), 4, "each value of a day is kept once");
}

#[test]
fn d19_lines_of_one_batch_see_each_other_and_apps_of_a_team_share_a_period() {
    let mut world = world("seat", Aggregation::Unique(Period::Month));
    let window = at("2026-06-10T00:00:00Z");
    let mut lines = ["ann bob", "bob cid", "ann"].map(|text| unique_line(&world, "seat", text, window));
    for (app, line) in (1..).zip(&mut lines) {
        let drawdown_ledger_core::Attribution::Payer(payer) = &mut line.attribution else { panic!() };
        payer.app_id = crate::world::id("app", app);
    }
    let plan = world.post(&lines, at("2026-06-10T00:02:00Z"));
    let amounts: Vec<_> = plan.charges.iter().map(|charge| charge.amount.to_string()).collect();
    assert_eq!(amounts, ["2", "1", "0"]);
    let counts: Vec<_> = plan.charges.iter().map(|charge| charge.quantity.as_units()).collect();
    assert_eq!(counts, [2, 2, 1], "a charge keeps what its line says");
    assert_eq!(plan.periods.states.len(), 1);
}

#[test]
fn d19_above_the_bound_a_line_goes_to_review_and_the_rest_is_charged() {
    let mut world = world("seat", Aggregation::Unique(Period::Day));
    world.settings.unique_values_max = 3;
    let (june, next) = (at("2026-06-10T00:00:00Z"), at("2026-06-11T00:00:00Z"));
    let lines = [
        unique_line(&world, "seat", "ann bob", june),
        unique_line(&world, "seat", "cid dan", at("2026-06-10T00:01:00Z")),
        world.line("cent", 100, june),
        unique_line(&world, "seat", "eve", next),
        unique_line(&world, "seat", "ann bob", at("2026-06-10T00:03:00Z")),
        unique_line(&world, "seat", "fay", at("2026-06-12T00:00:00Z")),
    ];
    let plan = world.post(&lines, at("2026-06-12T00:01:00Z"));
    assert_eq!(reasons(&plan), [(1, Unattributable::Overflow), (5, Unattributable::Overflow)]);
    assert_eq!(plan.charges.len(), 4);
    assert_eq!(world.periods.values.len(), 3, "a refused line leaves nothing behind");
    // A month of its own has a bound of its own.
    let july = unique_line(&world, "seat", "ann bob cid", at("2026-07-01T00:00:00Z"));
    assert_eq!(reasons(&world.post(&[july], at("2026-07-02T00:00:00Z"))), []);
}

#[test]
fn d53_periods_are_checked_at_the_limits() {
    let mut world = world("peak", Aggregation::Max(Period::Day));
    world.aggregate("free", Aggregation::Max(Period::Day));
    world.publish_terms("2026-02-01T00:00:00Z", vec![("free", Terms::new(0, 1, true).unwrap())]);
    let mut left = |value, window: &str| {
        let line = max_line(&world, "free", value, at(window));
        reasons(&world.post(&[line], at("2026-12-01T00:00:00Z")))
    };
    assert_eq!(left(i64::MAX, "2026-06-10T00:00:00Z"), []);
    assert_eq!(left(i64::MAX, "2026-06-10T00:00:00Z"), []);
    assert_eq!(left(1, "2026-06-11T00:00:00Z"), [(0, Unattributable::Overflow)]);
    assert_eq!(left(0, "2026-06-11T00:00:00Z"), []);
}

#[test]
fn usage_of_another_kind_than_its_meter_is_poison() {
    let mut world = world("peak", Aggregation::Max(Period::Day));
    let window = at("2026-06-10T00:00:00Z");
    let lines = [
        world.line("peak", 5, window),
        max_line(&world, "cent", 5, window),
        unique_line(&world, "cent", "ann", window),
    ];
    assert_eq!(reasons(&world.post(&lines, window)), [0, 1, 2].map(|line| (line, Unattributable::Poison)));
}

#[test]
fn zero_rated_lines_enter_no_period() {
    let mut world = world("seat", Aggregation::Unique(Period::Day));
    let mut line = unique_line(&world, "seat", "ann", at("2026-06-10T00:00:00Z"));
    line.failed = true;
    let plan = world.post(&[line], at("2026-06-10T00:02:00Z"));
    assert!(plan.periods.is_empty() && plan.states.is_empty());
}

#[test]
fn what_a_batch_needs_of_periods_is_named_once_each() {
    let world = world("seat", Aggregation::Unique(Period::Day));
    let june = at("2026-06-10T00:00:00Z");
    let lines = [
        unique_line(&world, "seat", "ann bob", june),
        unique_line(&world, "seat", "bob", at("2026-06-10T12:00:00Z")),
        unique_line(&world, "seat", "bob", at("2026-06-11T12:00:00Z")),
        world.line("cent", 1, june),
    ];
    let wanted = periods_wanted(&world.prices, &lines, &[]);
    assert_eq!((wanted.keys.len(), wanted.values.len()), (2, 3));
    assert_eq!(usage_keys(&world.prices, &lines, &[]).len(), 2);
    assert_eq!(periods_wanted(&world.prices, &lines[3..], &[]), Default::default());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Partial states merge by maximum and set union: lines may be cut and come in any order.
    #[test]
    fn d19_no_split_and_no_order_changes_a_period(
        by_month in any::<bool>(),
        usage in prop::collection::vec((0usize..4, prop::collection::vec(0u8..7, 0..4), 0i64..30, 0usize..3), 1..20),
    ) {
        let windows =
            ["2026-06-29T23:59:00Z", "2026-06-30T00:00:00Z", "2026-06-30T23:59:00Z", "2026-07-01T00:00:00Z"];
        let period = if by_month { Period::Month } else { Period::Day };
        let story = |reversed: bool, batches: usize| {
            let mut world = world("seat", Aggregation::Unique(period));
            world.aggregate("peak", Aggregation::Max(period));
            let terms = |micros| Terms::new(micros, 7, true).unwrap();
            world.publish_terms("2026-02-01T00:00:00Z", vec![("seat", terms(3)), ("peak", terms(5))]);
            let mut usage = usage.clone();
            if reversed {
                usage.reverse();
            }
            for part in 0..batches {
                let mine = usage.iter().filter(|(.., batch)| batch % batches == part);
                let lines: Vec<Line> = mine
                    .flat_map(|(window, seen, value, _)| {
                        let window = at(windows[*window]);
                        let seen = DistinctValues::new(seen.iter().map(|value| vec![*value].into()));
                        let unique = Line { usage: Usage::Unique(seen), ..world.line("seat", 0, window) };
                        [unique, max_line(&world, "peak", *value, window)]
                    })
                    .collect();
                world.post(&lines, at("2026-12-01T00:00:00Z"));
            }
            world.states.sort_by_key(|state| state.meter.clone());
            let mut periods: Vec<_> =
                world.periods.states.iter().map(|state| (state.key.start, state.quantity)).collect();
            periods.sort();
            let mut states: Vec<_> =
                world.states.iter().map(|state| (state.meter.clone(), state.key.cycle, state.quantity)).collect();
            states.sort();
            (states, periods, world.periods.values.len(), world.row().consumed)
        };
        let once = story(false, 1);
        prop_assert_eq!(&story(false, 3), &once);
        prop_assert_eq!(&story(true, 2), &once);
    }
}
