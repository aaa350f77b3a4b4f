//! D43: usage that is taken back, with numbers worked out by hand.

use drawdown_ledger_core::{
    Aggregation, Attribution, Charge, CorrectionError, DistinctValues, Kind, Line, Period, PeriodShrink,
    PoolKind, Rated, SeenValue, TermsDraft, Tier, Usage,
};
use drawdown_types::{MicroTokens, Quantity};

use crate::world::{World, at, on, tokens};

fn world(draft: TermsDraft) -> World {
    let mut world = World::new();
    world.publish_terms("2026-01-01T00:00:00Z", vec![("token", draft.check().unwrap())]);
    world.buy(1, 100, on("00:00:00"));
    world
}

/// One token a unit, unless `draft` says otherwise.
fn each() -> TermsDraft {
    TermsDraft { micros: 1_000_000, per_units: 1, ..TermsDraft::default() }
}

fn use_all(world: &mut World, units: &[i64]) -> Vec<Charge> {
    let spend = |units: &i64| world.spend(*units, on("01:00:00"), on("01:05:00"));
    units.iter().map(spend).collect()
}

fn states(world: &World) -> Vec<i64> {
    world.states.iter().map(|state| state.quantity.as_units()).collect()
}

#[test]
fn d17_the_refund_is_what_the_state_costs_less_and_reaches_the_latest_lines() {
    let tiers = vec![Tier { above: 10, micros: 3_000_000 }];
    let mut world = world(TermsDraft { tiers, ..each() });
    // 10 at 1, then 2 at 3 tokens.
    let lines = use_all(&mut world, &[4, 6, 2]);
    let costs = |lines: &[Charge]| lines.iter().map(|line| line.amount.to_string()).collect::<Vec<_>>();
    assert_eq!(costs(&lines), ["4", "6", "6"]);
    let before = world.row().version;
    // Of 12, 4 are taken back: 16 - 8 tokens, of which the line paid 4 only; the rest comes off the latest.
    let (_, corrected) = world.correct(&lines, 0, 4, None, on("02:00:00")).unwrap();
    assert_eq!(corrected.amount, tokens("8"));
    let rows = world.rows_since(before);
    let row = |amount: &str| (Kind::Reversal, "1".to_owned(), amount.to_owned());
    assert_eq!(rows, [row("4"), row("4")]);
    assert_eq!((world.left(1), states(&world)), ("92".to_owned(), vec![8]));
}

#[test]
fn d16_what_a_free_quota_covered_gives_back_what_the_excess_cost() {
    let mut world = world(TermsDraft { free_quota: 5, ..each() });
    let lines = use_all(&mut world, &[5, 3]);
    assert_eq!(lines[0].amount, MicroTokens::ZERO);
    let (_, corrected) = world.correct(&lines, 0, 2, None, on("02:00:00")).unwrap();
    assert_eq!((corrected.amount, world.left(1)), (tokens("2"), "99".to_owned()));
    let first = corrected.journal_seq.map(|seq| world.rows_since(seq - 1)[0].0);
    assert_eq!(first, Some(Kind::Reversal));
}

#[test]
fn d15_charged_units_give_back_a_unit_that_is_no_longer_whole() {
    let mut world = world(TermsDraft { charged_unit: Some(10), ..each() });
    let lines = use_all(&mut world, &[9, 2, 8]);
    // 19 units: one whole unit of ten, paid by the second line.
    assert_eq!(lines.iter().map(|line| line.amount.to_string()).collect::<Vec<_>>(), ["0", "10", "0"]);
    let (_, none) = world.correct(&lines, 2, 8, None, on("02:00:00")).unwrap();
    assert_eq!((none.amount, none.journal_seq, world.left(1)), (MicroTokens::ZERO, None, "90".to_owned()));
    let (_, back) = world.correct(&lines, 0, 9, None, on("02:00:00")).unwrap();
    assert_eq!((back.amount, world.left(1), states(&world)), (tokens("10"), "100".to_owned(), vec![2, 2]));
}

#[test]
fn d19_a_largest_value_is_taken_back_whole_and_the_next_one_counts() {
    let mut world = World::new();
    world.aggregate("token", Aggregation::Max(Period::Day));
    world.publish_terms("2026-01-01T00:00:00Z", vec![("token", each().check().unwrap())]);
    world.buy(1, 100, on("00:00:00"));
    let mut lines = Vec::new();
    for value in [4, 9, 6] {
        let quantity = Quantity::new(value).unwrap();
        let line = Line { usage: Usage::Max(quantity), ..world.line("token", 0, on("01:00:00")) };
        lines.extend(world.post(&[line], on("01:05:00")).charges);
    }
    let key = world.periods.states[0].key;
    let shrink = |after: i64| PeriodShrink {
        key,
        before: Quantity::new(9).unwrap(),
        after: Quantity::new(after).unwrap(),
        gone: Vec::new(),
    };
    let part = world.correct_period(&lines, 1, 3, Some(shrink(6)), None, on("02:00:00"));
    assert_eq!(part, Err(CorrectionError::WholeOnly(lines[1].charge_id)));
    let (plan, corrected) =
        world.correct_period(&lines, 1, 9, Some(shrink(6)), None, on("02:00:00")).unwrap();
    // 9 were charged by 4 and 5; 6 are the largest that is left.
    assert_eq!((corrected.amount, world.left(1)), (tokens("3"), "94".to_owned()));
    assert_eq!(plan.periods.states[0].quantity.as_units(), 6);
    assert_eq!(states(&world), [6]);
}

#[test]
fn d19_distinct_values_that_no_other_line_has_are_gone() {
    let mut world = World::new();
    world.aggregate("token", Aggregation::Unique(Period::Day));
    world.publish_terms("2026-01-01T00:00:00Z", vec![("token", each().check().unwrap())]);
    world.buy(1, 100, on("00:00:00"));
    let mut lines = Vec::new();
    for values in [vec!["a", "b"], vec!["b", "c", "d"]] {
        let values = values.iter().map(|value| value.as_bytes().into()).collect::<Vec<Box<[u8]>>>();
        let usage = Usage::Unique(DistinctValues::new(values));
        let line = Line { usage, ..world.line("token", 0, on("01:00:00")) };
        lines.extend(world.post(&[line], on("01:05:00")).charges);
    }
    assert_eq!(world.left(1), "96");
    let key = world.periods.states[0].key;
    let gone = [b"c", b"d"].map(|value| SeenValue { key, value: Box::from(&value[..]) }).to_vec();
    let (before, after) = (Quantity::new(4).unwrap(), Quantity::new(2).unwrap());
    let shrink = PeriodShrink { key, before, after, gone: gone.clone() };
    let (_, corrected) = world.correct_period(&lines, 1, 3, Some(shrink), None, on("02:00:00")).unwrap();
    assert_eq!((corrected.amount, corrected.gone, world.left(1)), (tokens("2"), gone, "98".to_owned()));
}

#[test]
fn what_is_owed_is_taken_first_then_the_last_payment() {
    let mut world = World::new();
    world.give(1, PoolKind::Credit, "2", (on("00:00:00"), on("12:00:00")), on("00:00:00"));
    world.give(2, PoolKind::Credit, "3", (on("00:00:00"), on("13:00:00")), on("00:00:00"));
    let line = world.spend(9, on("01:00:00"), on("01:05:00"));
    assert_eq!((line.uncharged, world.balance(on("01:06:00"))), (tokens("4"), "-4".to_owned()));
    let before = world.row().version;
    let (_, corrected) = world.correct(&[line], 0, 6, None, on("02:00:00")).unwrap();
    assert_eq!((corrected.amount, corrected.cancelled), (tokens("6"), tokens("4")));
    let row = |kind, lot: &str, amount: &str| (kind, lot.to_owned(), amount.to_owned());
    assert_eq!(world.rows_since(before), [row(Kind::Cancellation, "", "4"), row(Kind::Reversal, "2", "2")]);
    assert_eq!(world.balance(on("02:00:00")), "2");
}

#[test]
fn a_charge_made_again_for_the_same_is_paid_as_it_was_even_by_a_closed_lot() {
    let mut world = World::new();
    world.give(1, PoolKind::Credit, "5", (on("00:00:00"), on("12:00:00")), on("00:00:00"));
    let lines = vec![world.spend(5, on("01:00:00"), on("01:05:00"))];
    let now = at("2026-07-10T00:00:00Z");
    world.buy(2, 100, now);
    let again = world.line("token", 4, on("01:00:00"));
    let before = world.row().version;
    let (plan, corrected) = world.correct(&lines, 0, 5, Some(&again), now).unwrap();
    assert_eq!((corrected.amount, plan.charges[0].amount), (tokens("5"), tokens("4")));
    let row = |kind, amount: &str| (kind, "1".to_owned(), amount.to_owned());
    let rows = [row(Kind::Reversal, "5"), row(Kind::Charge, "4"), row(Kind::Expiry, "1")];
    assert_eq!(world.rows_since(before), rows);
    assert_eq!(world.left(2), "100", "what was bought later pays nothing of it");
}

#[test]
fn more_than_stands_and_nothing_are_refused() {
    let mut world = world(each());
    let lines = use_all(&mut world, &[3]);
    let (asked, standing) = (Quantity::new(4).unwrap(), Quantity::new(3).unwrap());
    let charge_id = lines[0].charge_id;
    let more = world.correct(&lines, 0, 4, None, on("02:00:00"));
    assert_eq!(more, Err(CorrectionError::MoreThanStands { charge_id, asked, standing }));
    assert_eq!(world.correct(&lines, 0, 0, None, on("02:00:00")), Err(CorrectionError::Nothing));
}

/// A world in which a distinct value costs a token a day, and the line that uses these.
fn seats() -> World {
    let mut world = World::new();
    world.aggregate("token", Aggregation::Unique(Period::Day));
    world.publish_terms("2026-01-01T00:00:00Z", vec![("token", each().check().unwrap())]);
    world.buy(1, 100, on("00:00:00"));
    world
}

fn used_by(world: &World, users: &str) -> Line {
    let values = DistinctValues::new(users.split_whitespace().map(|user| user.as_bytes().into()));
    Line { usage: Usage::Unique(values), ..world.line("token", 0, on("01:00:00")) }
}

#[test]
fn d19_values_that_other_lines_have_are_not_new_to_what_is_charged_instead() {
    let mut world = seats();
    let mut lines = Vec::new();
    for users in ["ann bob", "bob cid"] {
        let line = used_by(&world, users);
        lines.extend(world.post(&[line], on("01:05:00")).charges);
    }
    assert_eq!(world.left(1), "97", "ann, bob and cid");
    let (key, ann) = (world.periods.states[0].key, Box::from(*b"ann"));
    let quantity = |units| Quantity::new(units).unwrap();
    let gone = vec![SeenValue { key, value: ann }];
    let without = PeriodShrink { key, before: quantity(3), after: quantity(2), gone };
    let again = used_by(&world, "ann bob");
    let (plan, back) =
        world.correct_period(&lines, 0, 2, Some(without), Some(&again), on("02:00:00")).unwrap();
    assert_eq!((back.amount, plan.charges[0].amount), (tokens("1"), tokens("1")), "ann went and came again");
    assert_eq!(plan.periods.states[0].quantity, quantity(3));
    assert_eq!(world.left(1), "97");
}

#[test]
fn d43_distinct_values_that_cost_nothing_are_taken_back_whole_too() {
    let mut world = seats();
    let mut line = used_by(&world, "ann bob");
    let Attribution::Payer(payer) = &mut line.attribution else { panic!() };
    payer.in_trial = true;
    let lines = world.post(&[line], on("01:05:00")).charges;
    let part = world.correct(&lines, 0, 1, None, on("02:00:00"));
    assert_eq!(part, Err(CorrectionError::WholeOnly(lines[0].charge_id)));
    let (_, back) = world.correct(&lines, 0, 2, None, on("02:00:00")).unwrap();
    assert_eq!((back.rated, back.amount), (Rated::Trial, MicroTokens::ZERO));
}
