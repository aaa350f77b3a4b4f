//! The examples of D7, D9, D40–D48, and the cases that broke other systems.

use drawdown_ledger_core::{
    DebtInterval, Kind, LotState, PoolKind, ReadError, Unattributable, balance_at, lots_at, next_due,
};
use drawdown_types::MicroTokens;

use crate::world::{World, at, on, reasons, tokens};

fn debt(from: &str, to: &str) -> Option<DebtInterval> {
    Some(DebtInterval { from: tokens(from), to: tokens(to) })
}

#[test]
fn d7_minus_5_then_plus_100_gives_95() {
    let mut world = World::new();
    world.spend(5, on("12:00:00"), on("12:01:00"));
    assert_eq!(world.balance(on("12:01:00")), "-5");
    world.buy(1, 100, on("12:02:00"));
    assert_eq!((world.balance(on("12:02:00")), world.left(1)), ("95".to_owned(), "95".to_owned()));
    assert_eq!(world.row().uncharged(), MicroTokens::ZERO);
}

#[test]
fn d7_minus_101_then_plus_100_gives_minus_1() {
    let mut world = World::new();
    world.spend(101, on("12:00:00"), on("12:01:00"));
    world.buy(1, 100, on("12:02:00"));
    assert_eq!((world.balance(on("12:02:00")), world.left(1)), ("-1".to_owned(), "0".to_owned()));
    let netting = world.journal.last().unwrap();
    assert_eq!((netting.kind, netting.debt), (Kind::Netting, debt("0", "100")));
}

#[test]
fn d7_one_row_pays_any_number_of_items_oldest_first() {
    let mut world = World::new();
    for amount in 1..=50 {
        world.spend(amount % 3 + 1, on("12:00:00"), on("12:01:00"));
    }
    let before = world.row().version;
    world.buy(1, 100, on("12:02:00"));
    assert_eq!(world.rows_since(before).len(), 2, "the purchase and one interval");
    let opened: Vec<_> = world.journal.iter().filter(|row| row.kind == Kind::Uncharged).collect();
    for pair in opened.windows(2) {
        assert_eq!(pair[0].debt.unwrap().to, pair[1].debt.unwrap().from, "the queue has no gaps");
    }
}

#[test]
fn d7_inside_a_batch_debts_queue_by_window_app_meter() {
    let mut world = World::new();
    let lines = [
        world.line("token", 1, on("12:01:00")),
        world.line("token", 2, on("12:00:00")),
        world.line("cent", 300, on("12:00:00")),
    ];
    let plan = world.post(&lines, on("12:05:00"));
    let order: Vec<usize> = plan.charges.iter().map(|charge| charge.line).collect();
    assert_eq!(order, [2, 1, 0]);
    let debts: Vec<_> = plan.journal.iter().map(|row| row.debt).collect();
    assert_eq!(debts, [debt("0", "3"), debt("3", "5"), debt("5", "6")]);
}

#[test]
fn d6_zero_is_fine() {
    let mut world = World::new();
    world.buy(1, 100, on("12:00:00"));
    world.spend(100, on("12:00:00"), on("12:01:00"));
    assert_eq!((world.balance(on("12:01:00")), world.row().negative_since), ("0".to_owned(), None));
    world.spend(1, on("12:00:00"), on("12:02:00"));
    assert_eq!(world.row().negative_since, Some(on("12:02:00")));
}

#[test]
fn d10_an_expiry_never_makes_a_balance_negative() {
    let mut world = World::new();
    let life = (on("12:00:00"), on("13:00:00"));
    world.give(1, PoolKind::Promotional, "5", life, on("12:00:00"));
    world.spend(3, on("12:00:00"), on("12:01:00"));
    for now in [on("12:59:59"), on("13:00:00"), at("2026-06-11T13:00:00Z"), at("2030-01-01T00:00:00Z")] {
        let view = world.view(now);
        assert!(!view.balance.is_negative() && view.row.negative_since.is_none());
    }
}

#[test]
fn case_usage_just_before_an_expiry_is_paid_by_that_lot_when_it_settles_just_after() {
    let mut world = World::new();
    world.give(1, PoolKind::Promotional, "5", (on("12:00:00"), on("13:00:00")), on("12:00:00"));
    world.spend(2, on("12:59:00"), on("13:00:01"));
    assert_eq!(world.left(1), "3");
    assert_eq!(world.journal.last().unwrap().lot_state, Some(LotState::Closing));
    assert_eq!(world.balance(on("13:00:01")), "0", "what is left is not available");
}

#[test]
fn case_usage_of_the_window_at_an_expiry_is_not_paid_by_that_lot() {
    let mut world = World::new();
    world.give(1, PoolKind::Promotional, "5", (on("12:00:00"), on("13:00:00")), on("12:00:00"));
    world.spend(2, on("13:00:00"), on("13:00:01"));
    assert_eq!((world.left(1), world.balance(on("13:00:01"))), ("5".to_owned(), "-2".to_owned()));
}

#[test]
fn case_an_expiry_racing_a_burn_has_one_answer_whoever_comes_first() {
    let story = |job_first: bool| {
        let mut world = World::new();
        world.give(1, PoolKind::Promotional, "5", (on("12:00:00"), on("13:00:00")), on("12:00:00"));
        if job_first {
            world.job(on("13:00:00"));
        }
        world.spend(2, on("12:59:00"), on("13:00:00"));
        world.job(on("13:00:00"));
        (world.team, world.journal)
    };
    assert_eq!(story(true), story(false));
}

#[test]
fn case_a_late_event_of_a_lots_validity_is_paid_until_the_lot_closes() {
    let story = |posted| {
        let mut world = World::new();
        world.give(1, PoolKind::Promotional, "5", (on("12:00:00"), on("13:00:00")), on("12:00:00"));
        world.spend(2, on("12:30:00"), posted);
        world.balance(posted)
    };
    assert_eq!(story(at("2026-06-11T12:59:59Z")), "0");
    assert_eq!(story(at("2026-06-11T13:00:00Z")), "-2", "closed at that instant: it owes");
}

#[test]
fn case_a_lot_added_while_negative_repays_first() {
    let mut world = World::new();
    world.spend(30, on("12:00:00"), on("12:01:00"));
    world.buy(1, 100, on("12:02:00"));
    world.spend(80, on("12:02:00"), on("12:03:00"));
    assert_eq!(world.balance(on("12:03:00")), "-10");
    let kinds: Vec<_> = world.rows_since(0).into_iter().map(|(kind, _, amount)| (kind, amount)).collect();
    let row = |kind, amount: &str| (kind, amount.to_owned());
    assert_eq!(
        kinds,
        [
            row(Kind::Uncharged, "30"),
            row(Kind::Purchase, "100"),
            row(Kind::Netting, "30"),
            row(Kind::Charge, "70"),
            row(Kind::Uncharged, "10"),
        ]
    );
}

#[test]
fn case_a_grant_made_later_never_pays_for_a_closed_window_except_as_debt() {
    let mut world = World::new();
    let now = on("13:00:30");
    world.give(1, PoolKind::Promotional, "5", (on("12:00:00"), on("15:00:00")), now);
    assert_eq!((world.lot(1).starts_at, world.lot(1).valid_from), (on("12:00:00"), on("13:00:00")));
    let before = world.row().version;
    world.spend(2, on("12:59:00"), now);
    let kinds: Vec<_> = world.rows_since(before).into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, [Kind::Uncharged, Kind::Netting]);
    let before = world.row().version;
    world.spend(2, on("13:00:00"), on("13:01:00"));
    assert_eq!(world.rows_since(before), [(Kind::Charge, "1".to_owned(), "2".to_owned())]);
}

#[test]
fn case_a_balance_that_dips_and_recovers_inside_one_batch_starts_no_clock() {
    let mut world = World::new();
    // Valid from 13:00 only, so usage of 12:59 is owed first and paid at once.
    world.give(1, PoolKind::Promotional, "5", (on("12:00:00"), on("15:00:00")), on("13:00:00"));
    world.spend(5, on("12:59:00"), on("13:00:00"));
    assert_eq!((world.row().debt_opened, world.row().negative_since), (tokens("5"), None));
}

#[test]
fn d9_lateness_is_counted_from_the_windows_end_to_receipt() {
    let mut world = World::new();
    let mut in_time = world.line("token", 1, on("12:00:00"));
    in_time.received_window = at("2026-06-11T12:01:00Z");
    let mut late = in_time.clone();
    late.received_window = at("2026-06-11T12:02:00Z");
    // Settled much later: standing still makes nothing late (D55).
    let plan = world.post(&[late, in_time], at("2026-07-01T00:00:00Z"));
    assert_eq!(reasons(&plan), [(0, Unattributable::Late)]);
    assert_eq!(plan.charges.iter().map(|charge| charge.line).collect::<Vec<_>>(), [1]);
}

#[test]
fn d41_a_scheduled_lot_pays_nothing_and_at_its_start_it_pays_debt_first() {
    let mut world = World::new();
    world.give(1, PoolKind::Promotional, "5", (on("13:00:00"), on("15:00:00")), on("12:00:00"));
    world.spend(2, on("13:01:00"), on("12:59:59"));
    assert_eq!(world.balance(on("12:59:59")), "-2");
    assert_eq!(next_due(&world.team), Some(on("13:00:00")));
    assert_eq!(world.balance(on("13:00:00")), "3", "no job has run");
    let view = world.view(on("14:00:00"));
    assert_eq!((view.row.posted_at, view.row.negative_since), (Some(on("13:00:00")), None));
    world.spend(1, on("13:30:00"), on("14:00:00"));
    let netting = &world.journal[2];
    assert_eq!(
        (netting.kind, netting.posted_at),
        (Kind::Netting, on("13:00:00")),
        "at its own instant (D40)"
    );
}

#[test]
fn d42_lots_that_start_together_pay_in_draw_order() {
    let mut world = World::new();
    let life = |end| (on("13:00:00"), on(end));
    world.give(1, PoolKind::Promotional, "5", life("16:00:00"), on("12:00:00"));
    world.give(2, PoolKind::Promotional, "5", life("15:00:00"), on("12:00:00"));
    world.spend(7, on("12:00:00"), on("12:01:00"));
    world.job(on("13:30:00"));
    assert_eq!((world.left(1), world.left(2)), ("3".to_owned(), "0".to_owned()));
    let rows: Vec<_> = world.journal.iter().filter(|row| row.kind == Kind::Netting).collect();
    assert_eq!(rows[0].transaction, rows[1].transaction);
}

#[test]
fn d48_a_partial_top_up_does_not_restart_the_clock() {
    let mut world = World::new();
    world.spend(150, on("12:00:00"), on("12:01:00"));
    world.buy(1, 100, on("12:02:00"));
    assert_eq!(world.row().negative_since, Some(on("12:01:00")));
    world.buy(2, 100, on("12:03:00"));
    assert_eq!(world.row().negative_since, None);
    // Old usage starts the clock when it is posted, not when it was used.
    world.spend(51, on("12:00:00"), on("12:10:00"));
    assert_eq!(world.row().negative_since, Some(on("12:10:00")));
}

#[test]
fn d40_an_instant_is_never_earlier_than_the_last_posting() {
    let mut world = World::new();
    world.buy(1, 100, on("12:10:00"));
    let charge = world.spend(1, on("12:10:00"), on("12:09:00"));
    assert_eq!(charge.posted_at, on("12:10:00"));
    let early = on("12:09:59");
    let refused = ReadError::BeforeLastPosting { at: early, posted_at: on("12:10:00") };
    assert_eq!(balance_at(&world.team, early, early, &world.settings), Err(refused.clone()));
    assert_eq!(lots_at(&world.team, early, early, &world.settings), Err(refused));
}

#[test]
fn case_reading_or_rolling_at_any_moment_changes_no_answer() {
    let story = |jobs: &[&str]| {
        let mut world = World::new();
        world.give(1, PoolKind::Promotional, "5", (on("12:00:00"), on("12:30:00")), on("12:00:00"));
        world.give(2, PoolKind::Credit, "5", (on("13:00:00"), on("15:00:00")), on("12:00:00"));
        world.spend(9, on("12:29:00"), on("12:31:00"));
        for job in jobs {
            let now = on(job);
            let seen = world.view(now);
            world.job(now);
            assert_eq!(world.view(now), seen);
        }
        world.spend(2, on("14:00:00"), on("14:01:00"));
        (world.team, world.journal)
    };
    assert_eq!(story(&[]), story(&["12:31:00", "12:59:59.999999", "13:00:00", "13:00:00", "14:00:59"]));
}

#[test]
fn d40_at_one_instant_lots_close_before_lots_start_and_the_command_comes_last() {
    let mut world = World::new();
    let tomorrow = at("2026-06-11T13:00:00Z");
    world.give(1, PoolKind::Promotional, "5", (on("12:00:00"), on("13:00:00")), on("12:00:00"));
    world.give(2, PoolKind::Promotional, "5", (tomorrow, at("2026-06-12T00:00:00Z")), on("12:00:00"));
    world.spend(3, on("13:00:00"), on("13:01:00"));
    let before = world.row().version;
    world.buy(3, 100, tomorrow);
    let rows: Vec<_> = world.rows_since(before).into_iter().map(|(kind, lot, _)| (kind, lot)).collect();
    let row = |kind, lot: &str| (kind, lot.to_owned());
    assert_eq!(rows, [row(Kind::Expiry, "1"), row(Kind::Netting, "2"), row(Kind::Purchase, "3")]);
    let transactions: Vec<_> = world.journal.iter().rev().take(3).map(|row| row.transaction).collect();
    assert_eq!(transactions, [6, 5, 4], "each is a transaction of its own");
    assert!(world.journal.iter().rev().take(3).all(|row| row.posted_at == tomorrow));
}
