//! D1–D5: making lots, their life, and the order in which they are drawn.

use drawdown_ledger_core::{
    Grant, GrantError, Kind, LOT_MAX_TOKENS, LotJournal, LotState, PoolKind, PoolOrder, Purchase,
    PurchaseError, Team, charge_back, draw_order, grant, lots_at, move_lot, next_due, purchase, replay,
};
use drawdown_types::{MicroTokens, Timestamp};

use crate::world::{World, at, id, lot_id, on, tokens};

fn try_buy(count: i64, purchased_at: Option<Timestamp>) -> Result<(), PurchaseError> {
    let mut world = World::new();
    let before = world.team.clone();
    let order = Purchase { lot_id: lot_id(1), tokens: count, purchased_at };
    let bought = purchase(&mut world.team, &order, on("12:00:00"), on("12:00:00"), &world.settings);
    assert!(bought.is_ok() || world.team == before, "a refusal changes nothing");
    bought.map(drop)
}

#[test]
fn d1_a_purchase_is_at_least_100_whole_tokens() {
    assert_eq!(try_buy(99, None), Err(PurchaseError::BelowMinimum { tokens: 99, min: 100 }));
    assert_eq!(try_buy(-5, None), Err(PurchaseError::BelowMinimum { tokens: -5, min: 100 }));
    assert_eq!(try_buy(100, None), Ok(()));
    assert_eq!(try_buy(LOT_MAX_TOKENS, None), Ok(()));
    let max = LOT_MAX_TOKENS;
    assert_eq!(try_buy(max + 1, None), Err(PurchaseError::AboveLotMax { tokens: max + 1, max }));
}

#[test]
fn d2_a_lot_lives_from_its_window_to_the_edge_after_one_year() {
    let lot = World::new().buy(1, 100, on("12:00:30.5"));
    assert_eq!(lot.purchased_at, on("12:00:30.5"));
    assert_eq!((lot.starts_at, lot.valid_from), (on("12:00:00"), on("12:00:00")));
    assert_eq!(lot.expires_at, at("2027-06-10T12:01:00Z"));
    assert_eq!(lot.closes_at, at("2027-06-11T12:01:00Z"));
    let leap = World::new().buy(1, 100, at("2024-02-29T10:00:00Z"));
    assert_eq!(leap.expires_at, at("2025-02-28T10:00:00Z"));
}

#[test]
fn d61_a_purchase_may_have_its_original_instant_but_not_a_future_one() {
    assert_eq!(try_buy(100, Some(on("12:00:00"))), Ok(()));
    assert_eq!(
        try_buy(100, Some(on("12:00:01"))),
        Err(PurchaseError::SetUpInFuture { purchased_at: on("12:00:01"), now: on("12:00:00") })
    );
    assert!(try_buy(100, Some(Timestamp::MIN)).is_ok());
}

#[test]
fn d61_a_lot_that_is_set_up_after_its_close_is_forfeited_at_once() {
    let mut world = World::new();
    let order = Purchase { lot_id: lot_id(1), tokens: 100, purchased_at: Some(at("2020-01-01T00:00:00Z")) };
    let now = on("12:00:00");
    let plan = purchase(&mut world.team, &order, now, now, &world.settings).unwrap();
    let rows: Vec<_> = plan.journal.iter().map(|row| (row.kind, row.transaction, row.effective_at)).collect();
    assert_eq!(
        rows,
        [(Kind::Purchase, 1, at("2020-01-01T00:00:00Z")), (Kind::Expiry, 2, at("2021-01-01T00:00:00Z"))]
    );
    assert_eq!(world.row().expired, tokens("100"));
    assert_eq!(world.lot(1).closed_at, Some(now));
}

#[test]
fn the_end_of_the_calendar_is_an_answer() {
    let mut world = World::new();
    let order = Purchase { lot_id: lot_id(1), tokens: 100, purchased_at: None };
    let last = Timestamp::MAX;
    assert_eq!(
        purchase(&mut world.team, &order, last, last, &world.settings),
        Err(PurchaseError::CalendarEnd)
    );
}

fn try_grant(change: impl FnOnce(&mut Grant)) -> Result<(), GrantError> {
    let mut world = World::new();
    let before = world.team.clone();
    let mut wish = Grant {
        leaves_older_debts: false,
        lot_id: lot_id(1),
        amount: MicroTokens::from_micros(1),
        pool_kind: PoolKind::Promotional,
        starts_at: None,
        expires_at: on("13:00:00"),
        set_up: false,
    };
    change(&mut wish);
    let now = on("12:00:30");
    let granted = grant(&mut world.team, &wish, now, now, &world.settings);
    assert!(granted.is_ok() || world.team == before, "a refusal changes nothing");
    granted.map(drop)
}

#[test]
fn d5_bad_grants_are_refused_each_with_its_reason() {
    let now = on("12:00:30");
    let zero = MicroTokens::ZERO;
    assert_eq!(try_grant(|_| ()), Ok(()));
    assert_eq!(try_grant(|wish| wish.amount = zero), Err(GrantError::NotPositive(zero)));
    let amount = tokens("1000000000.000001");
    let too_much = GrantError::AboveLotMax { amount, max: LOT_MAX_TOKENS };
    assert_eq!(try_grant(|wish| wish.amount = amount), Err(too_much));
    assert_eq!(try_grant(|wish| wish.pool_kind = PoolKind::Flex), Err(GrantError::Flex));
    let upside_down =
        GrantError::ExpiryNotAfterStart { starts_at: on("13:00:00"), expires_at: on("13:00:00") };
    assert_eq!(try_grant(|wish| wish.starts_at = Some(on("13:00:59"))), Err(upside_down));
    let past = (Some(on("10:00:00")), on("11:59:01"));
    let expired = GrantError::AlreadyExpired { expires_at: on("12:00:00"), now };
    assert_eq!(try_grant(|wish| (wish.starts_at, wish.expires_at) = past), Err(expired));
    assert_eq!(
        try_grant(|wish| (wish.starts_at, wish.expires_at, wish.set_up) = (past.0, past.1, true)),
        Ok(())
    );
}

#[test]
fn d3_at_the_very_instant_of_its_expiry_a_lot_has_left_the_balance() {
    let mut world = World::new();
    world.give(1, PoolKind::Promotional, "5", (on("12:00:00"), on("13:00:00")), on("12:00:00"));
    assert_eq!(world.balance(on("12:59:59.999999")), "5");
    let view = world.view(on("13:00:00"));
    assert_eq!((view.available, view.closing), (MicroTokens::ZERO, tokens("5")));
    assert_eq!(view.row.expired, MicroTokens::ZERO, "closing, not expired (D54)");
    let closes = at("2026-06-11T13:00:00Z");
    assert_eq!(next_due(&world.team), Some(closes));
    assert_eq!(world.view(closes).row.expired, tokens("5"));
    assert!(world.job(closes.checked_sub(std::time::Duration::from_micros(1)).unwrap()).journal.is_empty());
    let plan = world.job(at("2026-06-20T00:00:00Z"));
    let row = &plan.journal[0];
    assert_eq!((row.posted_at, row.effective_at), (closes, on("13:00:00")), "at its own instant (D40)");
    assert_eq!((row.lot_state, next_due(&world.team)), (Some(LotState::Closed), None));
}

#[test]
fn d55_a_lot_does_not_close_before_what_was_received_is_settled() {
    let mut world = World::new();
    world.give(1, PoolKind::Promotional, "5", (on("12:00:00"), on("13:00:00")), on("12:00:00"));
    let (later, behind) = (at("2026-06-12T00:00:00Z"), at("2026-06-11T12:59:59Z"));
    let state = |settled_until| {
        lots_at(&world.team, later, settled_until, &world.settings).unwrap().first().map(|view| view.state)
    };
    assert_eq!((state(behind), state(later)), (Some(LotState::Closing), Some(LotState::Closed)));
}

#[test]
fn d4_each_step_of_the_draw_order_decides_where_the_ones_before_tie() {
    let base = World::new().buy(5, 100, on("12:00:00"));
    let pools = PoolOrder::default();
    let mut first = base.clone();
    let check = |first: &drawdown_ledger_core::Lot, why: &str| {
        assert!(
            draw_order(&pools, first, &base).is_lt() && draw_order(&pools, &base, first).is_gt(),
            "{why}"
        );
    };
    first.lot_id = lot_id(4);
    check(&first, "lot id");
    (first.lot_id, first.purchased_at) = (lot_id(6), on("11:59:59"));
    check(&first, "purchase time");
    (first.purchased_at, first.original) = (on("12:00:01"), tokens("99"));
    check(&first, "smaller original size");
    (first.original, first.expires_at) = (tokens("101"), on("23:00:00"));
    check(&first, "earliest expiry");
    (first.expires_at, first.pool_kind) = (at("2030-01-01T00:00:00Z"), PoolKind::Promotional);
    check(&first, "pool kind");
    // What is left never decides.
    let mut other = base.clone();
    other.remaining = MicroTokens::ZERO;
    assert!(draw_order(&pools, &other, &base).is_eq());
}

#[test]
fn d4_the_default_order_of_pools_is_free_enterprise_credit_promotional_flex() {
    let mut world = World::new();
    let life = (on("12:00:00"), on("20:00:00"));
    let pools = [PoolKind::Promotional, PoolKind::Credit, PoolKind::Free, PoolKind::Enterprise];
    world.buy(1, 100, on("12:00:00"));
    for (number, pool) in (2..).zip(pools) {
        world.give(number, pool, "1", life, on("12:00:00"));
    }
    let before = world.row().version;
    world.spend(5, on("12:00:00"), on("12:01:00"));
    let paid: Vec<String> = world.rows_since(before).into_iter().map(|(_, lot, _)| lot).collect();
    assert_eq!(paid, ["4", "5", "3", "2", "1"]);
}

#[test]
fn d53_the_sums_of_a_team_are_checked() {
    let mut world = World::new();
    world.team.balance.issued = MicroTokens::from_micros(i64::MAX - 100_000_000 + 1);
    let order = Purchase { lot_id: lot_id(1), tokens: 100, purchased_at: None };
    let (now, before) = (on("12:00:00"), world.team.clone());
    assert_eq!(purchase(&mut world.team, &order, now, now, &world.settings), Err(PurchaseError::Overflow));
    assert_eq!(world.team, before);
    world.team.balance.issued = MicroTokens::from_micros(i64::MAX - 100_000_000);
    assert!(purchase(&mut world.team, &order, now, now, &world.settings).is_ok());
}

#[test]
fn d44_where_a_lot_only_moved_on_a_chargeback_finds_nothing_to_take_back() {
    let mut world = World::new();
    world.buy(1, 100, on("08:00:00"));
    let mut right = Team::new(world.team.balance.account_id, id("team", 2));
    let (nine, ten) = (on("09:00:00"), on("10:00:00"));
    move_lot(&mut world.team, &mut right, lot_id(1), nine, nine, &world.settings).unwrap();
    let mut teams = [world.team, right].map(|team| (team, LotJournal::default()));
    let plan = charge_back(&mut teams, lot_id(1), ten, ten, &world.settings).unwrap();
    let rows: Vec<_> = plan.journal.iter().map(|row| (row.team_id, row.kind, row.amount)).collect();
    assert_eq!(rows, [(id("team", 2), Kind::Void, tokens("100"))]);
    let after =
        teams.map(|(team, _)| (team.lots[0].state_at(ten), team.lots[0].closed_at, team.lots[0].void));
    assert_eq!(
        after,
        [(LotState::Moved, None, tokens("0")), (LotState::Closed, Some(ten), tokens("100"))],
        "it moved from the one team and is void in the other"
    );
}

#[test]
fn d57_a_lot_that_leaves_older_debts_pays_usage_of_its_own_windows_only() {
    let mut world = World::new();
    world.spend(5, on("12:00:00"), on("12:01:00"));
    world.settings.purchase_min_tokens = 1;
    let wish = Grant {
        leaves_older_debts: true,
        lot_id: lot_id(1),
        amount: tokens("10"),
        pool_kind: PoolKind::Enterprise,
        starts_at: None,
        expires_at: on("18:00:00"),
        set_up: false,
    };
    let plan = grant(&mut world.team, &wish, on("12:10:00"), on("12:10:00"), &world.settings).unwrap();
    world.journal.extend(plan.journal);
    // The debt stays and so does its clock; what the lot has is there for usage from its own first window on.
    assert_eq!((world.left(1), world.balance(on("12:10:00"))), ("10".to_owned(), "5".to_owned()));
    assert_eq!(world.row().negative_since, Some(on("12:01:00")));
    world.spend(4, on("12:10:00"), on("12:11:00"));
    world.spend(1, on("12:09:00"), on("12:11:00"));
    assert_eq!((world.left(1), world.row().uncharged()), ("6".to_owned(), tokens("6")));
    // Its expiry starts no clock that was not running (D10).
    assert_eq!(world.view(on("18:00:00")).row.negative_since, Some(on("12:01:00")));
    // Another lot pays all of it, though it comes later in the draw order.
    let before = world.row().version;
    world.buy(2, 100, on("13:00:00"));
    let paid: Vec<_> = world.rows_since(before).into_iter().skip(1).collect();
    assert_eq!(paid, [(Kind::Netting, "2".to_owned(), "6".to_owned())]);
    assert_eq!((world.left(1), world.row().negative_since), ("6".to_owned(), None));
    assert_eq!(replay(&world.team, &world.journal, &world.settings), Ok(()));
}
