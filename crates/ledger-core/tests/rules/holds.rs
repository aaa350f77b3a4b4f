//! D42, D44, D45: what random histories come upon rarely, case by case.

use drawdown_ledger_core::{
    HoldError, Kind, LotState, PoolKind, Reservation, extend_hold, lots_at, next_due, refund_lot,
    release_hold, replay, reserve,
};
use drawdown_types::{HoldId, MicroTokens, Timestamp};

use crate::world::{World, at, id, lot_id, on, tokens};

fn hold_id(number: u64) -> HoldId {
    id("hold", number)
}

fn try_hold(
    world: &mut World,
    number: u64,
    amount: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<(), HoldError> {
    let wish = Reservation {
        hold_id: hold_id(number),
        app_id: None,
        amount: tokens(amount),
        at_least: None,
        expires_at: until,
    };
    let plan = reserve(&mut world.team, &wish, now, now, &world.settings)?;
    world.journal.extend(plan.journal);
    Ok(())
}

fn release(world: &mut World, number: u64, now: Timestamp) {
    let plan = release_hold(&mut world.team, hold_id(number), now, now, &world.settings).unwrap();
    world.journal.extend(plan.journal);
}

#[test]
fn d42_what_comes_back_to_a_closing_lot_pays_usage_of_its_validity_and_ahead_of_older_debt() {
    let mut world = World::new();
    world.give(1, PoolKind::Promotional, "10", (on("12:10:00"), on("13:00:00")), on("12:10:00"));
    try_hold(&mut world, 1, "10", on("12:10:00"), on("14:00:00")).unwrap();
    // Owed: 3 of a window before the lot, then 4 of its validity, then 2 of after it.
    for (amount, window) in [(3, "12:00:00"), (4, "12:30:00"), (2, "13:00:00")] {
        world.spend(amount, on(window), on("13:30:00"));
    }
    assert_eq!(world.balance(on("13:30:00")), "-9");
    let before = world.row().version;
    release(&mut world, 1, on("13:30:00"));
    let rows = world.rows_since(before);
    assert_eq!(
        rows,
        [(Kind::Release, "1".to_owned(), "10".to_owned()), (Kind::Netting, "1".to_owned(), "4".to_owned()),]
    );
    assert_eq!((world.row().debt_paid, world.row().debt_ahead), (MicroTokens::ZERO, tokens("4")));
    assert_eq!((world.balance(on("13:30:00")), world.left(1)), ("-5".to_owned(), "6".to_owned()));
    // A new lot pays what is left of the queue in two parts, around what is settled.
    let before = world.row().version;
    world.buy(2, 100, on("13:31:00"));
    let parts: Vec<_> =
        world.rows_since(before).into_iter().map(|(kind, _, amount)| (kind, amount)).collect();
    assert_eq!(parts[1..], [(Kind::Netting, "3".to_owned()), (Kind::Netting, "2".to_owned())]);
    assert_eq!((world.row().uncharged(), world.row().debt_ahead), (MicroTokens::ZERO, MicroTokens::ZERO));
}

#[test]
fn d45_at_one_instant_a_hold_times_out_before_its_lot_closes() {
    let mut world = World::new();
    world.give(1, PoolKind::Promotional, "10", (on("12:00:00"), on("13:00:00")), on("12:00:00"));
    let closes = at("2026-06-11T13:00:00Z");
    let last = on("12:59:59").checked_add(world.settings.lateness_limit).unwrap();
    try_hold(&mut world, 1, "4", on("12:59:59"), last).unwrap();
    assert_eq!(next_due(&world.team), Some(last));
    let plan = world.job(closes);
    let rows: Vec<_> = plan.journal.iter().map(|row| (row.kind, row.posted_at, row.amount)).collect();
    assert_eq!(rows, [(Kind::Release, last, tokens("4")), (Kind::Expiry, closes, tokens("10"))]);
    assert_eq!(lots_at(&world.team, closes, closes, &world.settings).unwrap()[0].state, LotState::Closed);
}

#[test]
fn d45_with_all_extensions_a_hold_lasts_at_most_the_lateness_limit() {
    let mut world = World::new();
    world.buy(1, 100, on("12:00:00"));
    let latest = on("12:00:00").checked_add(world.settings.lateness_limit).unwrap();
    let later = latest.checked_add(std::time::Duration::from_micros(1)).unwrap();
    let refused = try_hold(&mut world, 1, "1", on("12:00:00"), later);
    assert_eq!(refused, Err(HoldError::TooLate { expires_at: later, latest }));
    try_hold(&mut world, 1, "1", on("12:00:00"), on("13:00:00")).unwrap();
    let extend = |world: &mut World, until| {
        let (now, none) = (on("12:30:00"), MicroTokens::ZERO);
        extend_hold(&mut world.team, hold_id(1), until, none, now, now, &world.settings).map(drop)
    };
    assert_eq!(extend(&mut world, later), Err(HoldError::TooLate { expires_at: later, latest }));
    let early = on("12:59:59");
    let current = on("13:00:00");
    assert_eq!(extend(&mut world, early), Err(HoldError::TooEarly { expires_at: early, earliest: current }));
    assert_eq!(extend(&mut world, latest), Ok(()));
}

#[test]
fn d45_a_hold_outlives_no_lot_that_was_made_under_a_shorter_limit() {
    let mut world = World::new();
    world.give(1, PoolKind::Promotional, "10", (on("12:00:00"), on("13:00:00")), on("12:00:00"));
    world.settings.lateness_limit = std::time::Duration::from_secs(48 * 3_600);
    world.buy(2, 100, on("12:00:00"));
    // The first lot closes before a hold of 40 hours would be over, whatever it takes of the second.
    let (closes, later) = (at("2026-06-11T13:00:00Z"), at("2026-06-12T05:00:00Z"));
    let refused = Err(HoldError::TooLate { expires_at: later, latest: closes });
    for amount in ["6", "20"] {
        assert_eq!(try_hold(&mut world, 1, amount, on("12:59:00"), later), refused);
    }
    try_hold(&mut world, 1, "6", on("12:59:00"), on("13:30:00")).unwrap();
    let extend = |world: &mut World, number, until, more, now| {
        extend_hold(&mut world.team, hold_id(number), until, more, now, now, &world.settings).map(drop)
    };
    let now = on("12:59:30");
    assert_eq!(extend(&mut world, 1, later, MicroTokens::ZERO, now), refused);
    assert_eq!(extend(&mut world, 1, closes, MicroTokens::ZERO, now), Ok(()));
    // The rest of the first lot is forfeited by then, and no hold is made of it: one of the second lasts longer.
    try_hold(&mut world, 2, "5", on("13:00:00"), later).unwrap();
    assert_eq!(extend(&mut world, 2, at("2026-06-12T13:00:00Z"), tokens("1"), on("13:00:30")), Ok(()));
    let plan = world.job(closes);
    let rows: Vec<_> = plan.journal.iter().map(|row| (row.kind, row.posted_at, row.amount)).collect();
    assert_eq!(rows, [(Kind::Release, closes, tokens("6")), (Kind::Expiry, closes, tokens("10"))]);
    assert_eq!((world.lot(1).held, world.lot(2).held), (MicroTokens::ZERO, tokens("6")));
}

#[test]
fn d44_a_refund_takes_nothing_that_a_hold_has_set_aside() {
    let mut world = World::new();
    world.buy(1, 100, on("12:00:00"));
    try_hold(&mut world, 1, "30", on("12:00:00"), on("13:00:00")).unwrap();
    let now = on("12:01:00");
    let all = refund_lot(&mut world.team, lot_id(1), None, now, now, &world.settings).unwrap();
    assert_eq!(all.journal[0].amount, tokens("70"));
    assert_eq!((world.lot(1).held, world.lot(1).void), (tokens("30"), tokens("70")));
}

#[test]
fn d45_below_zero_nothing_can_be_set_aside() {
    let mut world = World::new();
    world.spend(1, on("12:00:00"), on("12:01:00"));
    let refused = try_hold(&mut world, 1, "1", on("12:01:00"), on("13:00:00"));
    assert_eq!(refused, Err(HoldError::Insufficient { wanted: tokens("1"), available: MicroTokens::ZERO }));
}

#[test]
fn d40_d42_a_hold_that_times_out_where_a_lot_starts_and_the_team_owes() {
    let mut world = World::new();
    world.give(1, PoolKind::Promotional, "10", (on("12:00:00"), on("18:00:00")), on("12:00:00"));
    world.give(2, PoolKind::Free, "1", (on("14:00:00"), on("18:00:00")), on("12:00:00"));
    try_hold(&mut world, 1, "4", on("12:00:00"), on("14:00:00")).unwrap();
    try_hold(&mut world, 2, "6", on("12:00:00"), on("14:00:00")).unwrap();
    world.spend(7, on("12:30:00"), on("12:30:00"));
    assert_eq!(world.balance(on("13:59:59")), "-7");
    let before = world.row().version;
    world.job(on("14:00:00"));
    // What the first hold gives back is there before the start is, but the lot that starts is open at that instant.
    let row = |kind, lot: &str, amount: &str| (kind, lot.to_owned(), amount.to_owned());
    assert_eq!(
        world.rows_since(before),
        [
            row(Kind::Release, "1", "4"),
            row(Kind::Netting, "2", "1"),
            row(Kind::Netting, "1", "4"),
            row(Kind::Release, "1", "6"),
            row(Kind::Netting, "1", "2"),
        ]
    );
    assert_eq!(replay(&world.team, &world.journal, &world.settings), Ok(()));
}
