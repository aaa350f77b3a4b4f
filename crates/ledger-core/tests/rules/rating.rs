//! D13, D14, D18, D20, D25, D53: what usage costs.

use drawdown_ledger_core::{
    Attribution, Batch, FoldError, Periods, Rated, Terms, Unattributable, Usage, fold_batch, price_of,
    usage_keys,
};
use drawdown_types::{ChargeId, MicroTokens, Quantity, TeamId};
use proptest::prelude::*;

use crate::world::{STANDARD, World, at, id, on, reasons, tokens};

#[test]
fn d13_the_card_of_2022_11_is_exact() {
    let price = |micros, per_units, quantity| {
        price_of(&Terms::new(micros, per_units, false).unwrap(), Quantity::new(quantity).unwrap())
    };
    assert_eq!(price(2_000_000, 3_600, 5_400), Some(tokens("3")), "automation: 2 tokens an hour");
    assert_eq!(price(500_000, 1, 3), Some(tokens("1.5")), "complex jobs");
    assert_eq!(price(1_000_000, 50, 75), Some(tokens("1.5")), "50 photos a token");
    assert_eq!(price(1, 3, 2), Some(MicroTokens::ZERO), "rounded down");
    assert_eq!(price(i64::MAX, 1, 2), None);
    assert_eq!(price(i64::MAX, i64::MAX, i64::MAX), Some(MicroTokens::from_micros(i64::MAX)));
}

#[test]
fn d14_rests_add_up_across_batches_of_a_month_and_end_with_it() {
    let mut world = World::new();
    let mut charge = |quantity, window: &str| {
        let line = world.line("third", quantity, at(window));
        world.post(&[line], at("2026-07-01T00:10:00Z")).charges[0].amount.as_micros()
    };
    let june = "2026-06-30T23:59:00Z";
    assert_eq!([charge(1, june), charge(1, june), charge(1, june), charge(2, june)], [0, 0, 1, 0]);
    // A new month begins at nothing; late usage of the old one goes on where that stood.
    assert_eq!([charge(1, "2026-07-01T00:00:00Z"), charge(1, june)], [0, 1]);
}

#[test]
fn d47_a_version_that_leaves_the_price_goes_on_with_its_state() {
    let mut world = World::new();
    world.publish("2026-06-10T13:00:00Z", &STANDARD);
    let mut other = STANDARD;
    other[2].2 = 4;
    world.publish("2026-06-10T14:00:00Z", &other);
    let windows = ["12:00:00", "12:59:00", "13:00:00", "14:00:00", "14:01:00", "14:02:00", "14:03:00"];
    let amounts = windows.map(|window| {
        let line = world.line("third", 1, on(window));
        world.post(&[line], on("15:00:00")).charges[0].amount.as_micros()
    });
    assert_eq!(amounts, [0, 0, 1, 0, 0, 0, 1]);
    assert_eq!(world.states.len(), 2);
}

#[test]
fn usage_that_costs_nothing_by_rule_is_recorded_and_enters_no_state() {
    let mut world = World::new();
    world.buy(1, 100, on("12:00:00"));
    let mut trial = world.line("token", 5, on("12:00:00"));
    if let Attribution::Payer(payer) = &mut trial.attribution {
        payer.in_trial = true;
    }
    let mut failed = world.line("job", 5, on("12:00:00"));
    failed.failed = true;
    let unpriced = world.line("unheard-of", 5, on("12:00:00"));
    let before = world.row().version;
    let plan = world.post(&[trial, failed.clone(), unpriced], on("12:05:00"));
    let mut rated: Vec<_> = plan.charges.iter().map(|charge| (charge.line, charge.rated)).collect();
    rated.sort_by_key(|(line, _)| *line);
    assert_eq!(rated, [(0, Rated::Trial), (1, Rated::FailedFree), (2, Rated::Unpriced)]);
    for charge in &plan.charges {
        assert_eq!(
            (charge.amount, charge.quantity.as_units(), charge.journal_seq),
            (MicroTokens::ZERO, 5, None)
        );
    }
    assert!(plan.states.is_empty() && world.row().version == before);
    // A card that does not say so charges failed jobs too (D18).
    failed.meter = world.line("token", 1, on("12:00:00")).meter;
    assert_eq!(world.post(&[failed], on("12:05:00")).charges[0].amount, tokens("5"));
}

#[test]
fn counting_meters_take_events_for_quantity() {
    let mut world = World::new();
    let mut line = world.line("cent", 0, on("12:00:00"));
    (line.events, line.usage) = (250, Usage::Count);
    let charge = world.post(&[line], on("12:01:00")).charges.remove(0);
    assert_eq!((charge.quantity.as_units(), charge.amount), (250, tokens("2.5")));
}

#[test]
fn d53_what_does_not_fit_goes_to_review_and_the_rest_is_charged() {
    let mut world = World::new();
    let big = world.line("token", i64::MAX / 1_000_000 + 1, on("12:00:00"));
    let mut uncountable = world.line("cent", 0, on("12:00:00"));
    (uncountable.events, uncountable.usage) = (u64::MAX, Usage::Count);
    let fine = world.line("cent", 100, on("12:00:00"));
    let plan = world.post(&[big, fine, uncountable], on("12:01:00"));
    assert_eq!(reasons(&plan), [(0, Unattributable::Overflow), (2, Unattributable::Overflow)]);
    assert_eq!((plan.charges.len(), world.balance(on("12:01:00"))), (1, "-1".to_owned()));
    // The state of a key, and the sum of a team.
    let full = world.line("token", i64::MAX / 1_000_000 - 1, on("12:00:00"));
    assert_eq!(reasons(&world.post(std::slice::from_ref(&full), on("12:02:00"))), []);
    let next_month = world.line("token", 10, at("2026-07-01T00:00:00Z"));
    assert_eq!(reasons(&world.post(&[full], on("12:03:00"))), [(0, Unattributable::Overflow)]);
    assert_eq!(reasons(&world.post(&[next_month], on("12:04:00"))), [(0, Unattributable::Overflow)]);
    assert_eq!(world.states.iter().map(|state| state.key.cycle).collect::<Vec<_>>().len(), 2);
}

#[test]
fn d25_lines_of_nobody_keep_their_reason_beside_charged_ones() {
    let mut world = World::new();
    let mut lines = [0, 1, 2].map(|_| world.line("cent", 100, on("12:00:00")));
    lines[0].attribution = Attribution::Nobody(Unattributable::UnknownClient);
    lines[2].attribution = Attribution::Nobody(Unattributable::NoTeam);
    let plan = world.post(&lines, on("12:01:00"));
    assert_eq!(reasons(&plan), [(0, Unattributable::UnknownClient), (2, Unattributable::NoTeam)]);
    assert_eq!(plan.charges.iter().map(|charge| charge.line).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_team_that_is_not_loaded_is_the_callers_mistake() {
    let world = World::new();
    let lines = [world.line("cent", 1, on("12:00:00"))];
    let batch = Batch {
        lines: &lines,
        states: &[],
        periods: &Periods::default(),
        prices: &world.prices,
        settings: &world.settings,
        now: on("12:01:00"),
        settled_until: on("12:01:00"),
        last_of_holds: &[],
    };
    let missing = fold_batch(&mut [], &batch, || id::<ChargeId>("chg", 1));
    assert_eq!(missing, Err(FoldError::TeamMissing(id::<TeamId>("team", 1))));
}

/// A line by its meter, quantity, minute and batch.
fn usage() -> impl Strategy<Value = Vec<(usize, i64, u32, usize)>> {
    prop::collection::vec((0usize..3, 0i64..50, 0u32..180, 0usize..4), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn d14_no_split_changes_the_sum_of_a_key(usage in usage()) {
        let meters = ["third", "cent", "token"];
        let story = |split: bool| {
            let mut world = World::new();
            world.buy(1, 100, on("12:00:00"));
            let mut other = STANDARD;
            other[2].2 = 7;
            world.publish("2026-06-10T13:30:00Z", &other);
            let line = |world: &World, (meter, quantity, minute): (usize, i64, u32)| {
                let window = format!("{:02}:{:02}:00", 12 + minute / 60, minute % 60);
                world.line(meters[meter], quantity, on(&window))
            };
            for part in 0..4 {
                let mine = usage.iter().filter(|(.., batch)| !split || *batch == part);
                let lines: Vec<_> = mine.map(|(m, q, t, _)| line(&world, (*m, *q, *t))).collect();
                if split || part == 0 {
                    world.post(&lines, on("16:00:00"));
                }
            }
            world.states.sort_by_key(|state| state.meter.clone());
            let mut states: Vec<_> =
                world.states.iter().map(|state| (state.meter.clone(), state.quantity)).collect();
            states.sort();
            (states, world.row().consumed, world.balance(on("16:00:00")))
        };
        prop_assert_eq!(story(true), story(false));
    }

    #[test]
    fn d14_cuts_in_posting_order_change_no_lot_no_debt_and_no_clock(usage in usage(), cut in 0usize..40) {
        let meters = ["third", "cent", "token"];
        let story = |cut: usize| {
            let mut world = World::new();
            world.give(1, drawdown_ledger_core::PoolKind::Credit, "20", (on("12:30:00"), on("13:30:00")), on("12:00:00"));
            world.buy(2, 100, on("13:00:00"));
            let mut lines: Vec<_> = usage
                .iter()
                .map(|(meter, quantity, minute, _)| {
                    let window = format!("{:02}:{:02}:00", 12 + minute / 60, minute % 60);
                    world.line(meters[*meter], *quantity, on(&window))
                })
                .collect();
            lines.sort_by(drawdown_ledger_core::Line::posting_order);
            let (first, second) = lines.split_at(cut.min(lines.len()));
            for part in [first, second] {
                world.post(part, on("16:00:00"));
            }
            let mut journal = world.journal.clone();
            journal.iter_mut().for_each(|row| row.transaction = 0);
            world.team.balance.transactions = 0;
            (world.team, journal)
        };
        prop_assert_eq!(story(cut), story(0));
    }

    #[test]
    fn d14_a_price_never_falls_as_usage_grows(
        micros in 0i64..1 << 50, per_units in 1i64..1 << 40, a in 0i64..1 << 40, b in 0i64..1 << 40
    ) {
        let terms = Terms::new(micros, per_units, false).unwrap();
        let price = |units| price_of(&terms, Quantity::new(units).unwrap());
        if let (Some(less), Some(more)) = (price(a.min(b)), price(a.max(b))) {
            prop_assert!(less <= more);
        }
    }
}

#[test]
fn the_states_a_batch_needs_are_named_once_each() {
    let world = World::new();
    let lines = [
        world.line("cent", 1, on("12:00:00")),
        world.line("cent", 1, on("12:30:00")),
        world.line("cent", 1, at("2026-07-01T00:00:00Z")),
        world.line("unheard-of", 1, on("12:00:00")),
    ];
    let cycles: Vec<_> =
        usage_keys(&world.prices, &lines, &[]).iter().map(|key| key.cycle.start().to_string()).collect();
    assert_eq!(cycles, ["2026-06-01T00:00:00Z", "2026-07-01T00:00:00Z"]);
}
