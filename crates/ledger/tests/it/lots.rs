//! Lots that move, change and are taken back (D5, D44, D46), through the handlers and on the real database.

use std::time::Duration;

use drawdown_proto::ledger::v1::{
    AdjustLotRequest, ChargeBackLotRequest, GrantTokensRequest, JournalRow, Lot, LotState, MoveLotRequest,
    MoveLotResponse, PoolKind, RefundLotRequest, lot_service_server::LotService,
    token_service_server::TokenService,
};
use tonic::{Code, Request, Status};

use crate::world::{Buyer, World, at, calls, calls_at, proto, reason, refusal, request_id};

fn move_request(lot: &Lot, from: Buyer, to: Buyer) -> MoveLotRequest {
    MoveLotRequest {
        account_id: from.account.to_string(),
        lot_id: lot.lot_id.clone(),
        from_team_id: from.team.to_string(),
        to_team_id: to.team.to_string(),
        reason: "a project moves".to_owned(),
        request_id: request_id(),
    }
}

pub(crate) async fn move_lot(
    world: &World,
    lot: &Lot,
    from: Buyer,
    to: Buyer,
) -> Result<MoveLotResponse, Status> {
    let answer = world.lot_service.move_lot(Request::new(move_request(lot, from, to))).await?;
    Ok(answer.into_inner())
}

pub(crate) async fn adjust(world: &World, lot: &Lot, buyer: Buyer, delta_micros: i64) -> Result<Lot, Status> {
    let request = AdjustLotRequest {
        account_id: buyer.account.to_string(),
        team_id: buyer.team.to_string(),
        lot_id: lot.lot_id.clone(),
        delta_micros,
        reason: "a gesture".to_owned(),
        request_id: request_id(),
    };
    Ok(world.lot_service.adjust_lot(Request::new(request)).await?.into_inner().lot.unwrap())
}

pub(crate) async fn refund(
    world: &World,
    lot: &Lot,
    buyer: Buyer,
    micros: i64,
) -> Result<(Lot, i64), Status> {
    let request = RefundLotRequest {
        account_id: buyer.account.to_string(),
        team_id: buyer.team.to_string(),
        lot_id: lot.lot_id.clone(),
        micros,
        reason: "ordered twice".to_owned(),
        request_id: request_id(),
    };
    let answer = world.lot_service.refund_lot(Request::new(request)).await?.into_inner();
    Ok((answer.lot.unwrap(), answer.refunded_micros))
}

pub(crate) async fn charge_back(world: &World, lot: &Lot, buyer: Buyer) -> Result<(Vec<Lot>, i64), Status> {
    let request = ChargeBackLotRequest {
        account_id: buyer.account.to_string(),
        lot_id: lot.lot_id.clone(),
        reason: "the bank says so".to_owned(),
        request_id: request_id(),
    };
    let answer = world.lot_service.charge_back_lot(Request::new(request)).await?.into_inner();
    Ok((answer.lots, answer.owed_again_micros))
}

fn kinds(rows: &[JournalRow]) -> Vec<(&str, i64)> {
    rows.iter().map(|row| (row.kind.as_str(), row.amount_micros)).collect()
}

#[tokio::test]
async fn a_lot_moves_whole_with_its_dates_and_pays_the_debt_of_its_new_team() {
    let world = World::new().await;
    world.priced().await;
    let (left, producer) = (world.buyer(), world.producer().await);
    let right = world.sibling(left);
    let lot = world.purchase(left, 100, None).await.unwrap();
    world.settle(producer, vec![calls(left, 20), calls(right, 30)]).await;
    assert_eq!(world.balance(right).await.balance_micros, -15_000_000);

    let moved = move_lot(&world, &lot, left, right).await.unwrap();
    assert_eq!(moved.moved_micros, 90_000_000);
    let arrived = moved.lot.unwrap();
    let same = |lot: &Lot| (lot.lot_id.clone(), lot.expires_at, lot.purchased_at, lot.original_micros);
    assert_eq!(same(&arrived), same(&lot));
    assert_eq!((arrived.granted_micros, arrived.remaining_micros), (90_000_000, 75_000_000));

    let (old, new) = (world.balance(left).await, world.balance(right).await);
    assert_eq!((old.balance_micros, old.used_micros, old.moved_out_micros), (0, 10_000_000, 90_000_000));
    assert_eq!((new.balance_micros, new.uncharged_micros, new.moved_in_micros), (75_000_000, 0, 90_000_000));
    let stays = &world.lots(left).await[0];
    assert_eq!((stays.state(), stays.consumed_micros), (LotState::Moved, 10_000_000));
    assert_eq!(stays.moved_to_team_id, right.team.to_string());
    world.assert_clean().await;

    // And back: the row of its first life goes on.
    move_lot(&world, &lot, right, left).await.unwrap();
    let back = world.lots(left).await.remove(0);
    assert_eq!((back.state(), back.granted_micros), (LotState::Open, 175_000_000));
    assert_eq!((back.remaining_micros, back.moved_micros), (75_000_000, 90_000_000));
    world.assert_clean().await;
}

#[tokio::test]
async fn a_lot_never_leaves_its_account_and_moves_only_where_it_lives() {
    let world = World::new().await;
    world.priced().await;
    let (left, stranger) = (world.buyer(), world.buyer());
    let right = world.sibling(left);
    let lot = world.purchase(left, 100, None).await.unwrap();
    assert_eq!(reason(move_lot(&world, &lot, left, stranger).await), "TEAM_NOT_OF_ACCOUNT");
    assert_eq!(reason(move_lot(&world, &lot, right, left).await), "LOT_UNKNOWN");
    assert_eq!(reason(move_lot(&world, &lot, left, left).await), "REQUEST_INVALID");
    let nothing = MoveLotRequest::default();
    let refused = world.lot_service.move_lot(Request::new(nothing)).await.unwrap_err();
    let fields = ["request_id", "account_id", "from_team_id", "lot_id", "reason", "to_team_id"];
    assert_eq!(
        refusal(&refused),
        (Code::InvalidArgument, "REQUEST_INVALID".to_owned(), fields.map(str::to_owned).to_vec())
    );
    refund(&world, &lot, left, 0).await.unwrap();
    assert_eq!(reason(move_lot(&world, &lot, left, right).await), "LOT_EMPTY");
    let short = world.grant(left, 1_000_000, None, "2026-03-10T13:00:00Z").await.unwrap();
    world.clock.set(at("2026-03-10T13:00:00Z"));
    assert_eq!(reason(move_lot(&world, &short, left, right).await), "LOT_NOT_OPEN");
    world.assert_clean().await;
}

#[tokio::test]
async fn the_same_request_moves_once_and_another_content_is_a_conflict() {
    let world = World::new().await;
    let left = world.buyer();
    let right = world.sibling(left);
    let lot = world.purchase(left, 100, None).await.unwrap();
    let request = move_request(&lot, left, right);
    let first = world.lot_service.move_lot(Request::new(request.clone())).await.unwrap().into_inner();
    let again = world.lot_service.move_lot(Request::new(request.clone())).await.unwrap().into_inner();
    assert_eq!(first, again);
    assert_eq!(world.balance(right).await.moved_in_micros, 100_000_000);
    let other = MoveLotRequest { reason: "another".to_owned(), ..request };
    assert_eq!(reason(world.lot_service.move_lot(Request::new(other)).await), "REQUEST_ID_CONFLICT");
}

#[tokio::test]
async fn an_adjustment_raises_or_lowers_a_lot_and_what_is_added_pays_debt() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let lot = world.grant(buyer, 1_000_000, None, "2026-04-01T00:00:00Z").await.unwrap();
    world.settle(producer, vec![calls(buyer, 6)]).await;
    assert_eq!(world.balance(buyer).await.balance_micros, -2_000_000);
    let raised = adjust(&world, &lot, buyer, 5_000_000).await.unwrap();
    assert_eq!((raised.granted_micros, raised.remaining_micros), (6_000_000, 3_000_000));
    assert_eq!(raised.original_micros, 1_000_000);
    let lowered = adjust(&world, &lot, buyer, -3_000_000).await.unwrap();
    assert_eq!((lowered.remaining_micros, lowered.void_micros), (0, 3_000_000));
    assert_eq!(reason(adjust(&world, &lot, buyer, -1).await), "LOT_REMAINS_LESS");
    assert_eq!(reason(adjust(&world, &lot, buyer, i64::MAX).await), "LOT_TOO_LARGE");
    assert_eq!(reason(adjust(&world, &lot, buyer, 0).await), "REQUEST_INVALID");
    let rows = world.journal(buyer).await;
    let expected = [
        ("grant", 1_000_000),
        ("charge", 1_000_000),
        ("uncharged", 2_000_000),
        ("adjustment", 5_000_000),
        ("netting", 2_000_000),
        ("void", 3_000_000),
    ];
    assert_eq!(kinds(&rows), expected);
    world.assert_clean().await;
    let noted = "select count(*) from ledger.audit_log where action = 'lot.adjust' and detail->>'reason' = 'a gesture'";
    let noted: i64 = sqlx::query_scalar(noted).fetch_one(world.database.pool()).await.unwrap();
    assert_eq!(noted, 2);
}

#[tokio::test]
async fn a_refund_takes_back_at_most_what_remains_of_what_was_bought() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let lot = world.purchase(buyer, 100, None).await.unwrap();
    world.settle(producer, vec![calls(buyer, 20)]).await;
    assert_eq!(reason(refund(&world, &lot, buyer, 90_000_001).await), "LOT_REMAINS_LESS");
    let (after, taken) = refund(&world, &lot, buyer, 40_000_000).await.unwrap();
    assert_eq!((after.remaining_micros, taken), (50_000_000, 40_000_000));
    let (after, taken) = refund(&world, &lot, buyer, 0).await.unwrap();
    assert_eq!((after.remaining_micros, after.void_micros, taken), (0, 90_000_000, 50_000_000));
    let balance = world.balance(buyer).await;
    assert_eq!(
        (balance.purchased_micros, balance.void_micros, balance.balance_micros),
        (100_000_000, 90_000_000, 0)
    );
    let granted = world.grant(buyer, 1_000_000, None, "2026-04-01T00:00:00Z").await.unwrap();
    assert_eq!(reason(refund(&world, &granted, buyer, 0).await), "LOT_NOT_BOUGHT");
    let stranger = world.buyer();
    assert_eq!(reason(refund(&world, &granted, stranger, 0).await), "LOT_UNKNOWN");
    world.assert_clean().await;
}

#[tokio::test]
async fn a_chargeback_makes_what_a_lot_paid_a_debt_of_the_team_that_used_it() {
    let world = World::new().await;
    world.priced().await;
    let (left, producer) = (world.buyer(), world.producer().await);
    let right = world.sibling(left);
    world.settle(producer, vec![calls(right, 10)]).await;
    let lot = world.purchase(left, 100, None).await.unwrap();
    world.settle(producer, vec![calls(left, 20), calls(left, 4)]).await;
    move_lot(&world, &lot, left, right).await.unwrap();
    let other = world.grant(left, 3_000_000, None, "2026-04-01T00:00:00Z").await.unwrap();

    let (lots, owed) = charge_back(&world, &lot, left).await.unwrap();
    assert_eq!((lots.len(), owed), (2, 17_000_000));
    assert!(lots.iter().all(|lot| lot.remaining_micros == 0 && lot.consumed_micros == 0));
    // The left team owes 12 and pays 3 of it with its other lot at once; the right one owes its old debt.
    let (old, new) = (world.balance(left).await, world.balance(right).await);
    assert_eq!((old.balance_micros, old.used_micros, old.void_micros), (-9_000_000, 12_000_000, 12_000_000));
    assert_eq!((new.balance_micros, new.used_micros, new.void_micros), (-5_000_000, 5_000_000, 88_000_000));
    let rows = world.journal(left).await;
    let owed_again: Vec<_> = rows.iter().filter(|row| row.kind == "chargeback").collect();
    assert_eq!(owed_again.len(), 2, "one item for each charge that it paid");
    assert!(owed_again.iter().all(|row| row.reverses > 0 && !row.charge_id.is_empty()));
    assert_eq!(rows.last().unwrap().lot_id, other.lot_id);
    world.assert_clean().await;

    // A second one finds nothing to take back.
    let (_, owed) = charge_back(&world, &lot, left).await.unwrap();
    assert_eq!(owed, 0);
    assert_eq!(reason(charge_back(&world, &other, left).await), "LOT_NOT_BOUGHT");
    assert_eq!(reason(charge_back(&world, &lot, world.buyer()).await), "LOT_UNKNOWN");
    world.assert_clean().await;
}

#[tokio::test]
async fn a_chargeback_reaches_a_lot_that_moved_on_before_it_was_used() {
    let world = World::new().await;
    let left = world.buyer();
    let right = world.sibling(left);
    let lot = world.purchase(left, 100, None).await.unwrap();
    move_lot(&world, &lot, left, right).await.unwrap();
    let (lots, owed) = charge_back(&world, &lot, left).await.unwrap();
    assert_eq!((lots.len(), owed), (2, 0));
    let (old, new) = (world.balance(left).await, world.balance(right).await);
    assert_eq!((old.moved_out_micros, old.void_micros), (100_000_000, 0));
    assert_eq!((new.available_micros, new.void_micros), (0, 100_000_000));
    world.assert_clean().await;
}

#[tokio::test]
async fn lots_that_cross_between_two_teams_never_deadlock() {
    let world = World::new().await;
    let left = world.buyer();
    let right = world.sibling(left);
    let mut lots = Vec::new();
    for _ in 0..8 {
        lots.push((world.purchase(left, 100, None).await.unwrap(), left, right));
        lots.push((world.purchase(right, 100, None).await.unwrap(), right, left));
    }
    let moves = lots.iter().map(|(lot, from, to)| move_lot(&world, lot, *from, *to));
    for moved in futures::future::join_all(moves).await {
        assert_eq!(moved.unwrap().moved_micros, 100_000_000);
    }
    let (old, new) = (world.balance(left).await, world.balance(right).await);
    assert_eq!((old.moved_in_micros, old.moved_out_micros), (800_000_000, 800_000_000));
    assert_eq!(old.available_micros + new.available_micros, 1_600_000_000);
    world.assert_clean().await;
}

#[tokio::test]
async fn d44_a_chargeback_takes_back_what_a_time_out_just_paid() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let lot = world.purchase(buyer, 100, None).await.unwrap();
    world.hold(buyer, 100_000_000, Duration::from_secs(60)).await.unwrap();
    world.settle(producer, vec![calls(buyer, 10)]).await;
    assert_eq!(world.balance(buyer).await.uncharged_micros, 5_000_000);
    // Nobody has written yet that the hold is over and its tokens paid the debt.
    world.clock.advance(Duration::from_secs(120));
    let (lots, owed_again) = charge_back(&world, &lot, buyer).await.unwrap();
    assert_eq!(
        (lots[0].state(), lots[0].void_micros, owed_again),
        (LotState::Closed, 100_000_000, 5_000_000)
    );
    assert_eq!(world.balance(buyer).await.balance_micros, -5_000_000);
    world.assert_clean().await;
}

#[tokio::test]
async fn d57_a_lot_that_leaves_older_debts_pays_from_its_first_window_on_wherever_it_lives() {
    let world = World::new().await;
    world.priced().await;
    let (left, producer) = (world.buyer(), world.producer().await);
    let right = world.sibling(left);
    let old = |buyer| calls_at(buyer, 10, "2026-03-10T11:58:00Z");
    world.settle(producer, vec![old(left), calls(left, 4), old(right), calls(right, 6)]).await;
    let request = GrantTokensRequest {
        account_id: left.account.to_string(),
        team_id: left.team.to_string(),
        micros: 10_000_000,
        pool_kind: PoolKind::Enterprise.into(),
        starts_at: None,
        expires_at: proto(at("2026-03-10T20:00:00Z")),
        note: "contract year".to_owned(),
        request_id: request_id(),
        leaves_older_debts: true,
    };
    let granted = world.tokens.grant_tokens(Request::new(request)).await.unwrap().into_inner();
    let lot = granted.lot.unwrap();
    // Its first window is owed already: that it pays, ahead of the older debt.
    assert_eq!((lot.leaves_older_debts, lot.remaining_micros), (true, 8_000_000));
    let balance = world.balance(left).await;
    assert_eq!((balance.balance_micros, balance.uncharged_micros), (3_000_000, 5_000_000));
    assert_eq!(balance.negative_since, proto(at("2026-03-10T12:00:30Z")));
    world.assert_clean().await;
    // In the team that it moves to it is as old as its move.
    world.clock.set(at("2026-03-10T12:05:30Z"));
    move_lot(&world, &lot, left, right).await.unwrap();
    let balance = world.balance(right).await;
    assert_eq!((balance.available_micros, balance.uncharged_micros), (8_000_000, 8_000_000));
    world.settle(producer, vec![calls_at(right, 2, "2026-03-10T12:05:00Z"), old(right)]).await;
    let balance = world.balance(right).await;
    assert_eq!((balance.available_micros, balance.uncharged_micros), (7_000_000, 13_000_000));
    world.assert_clean().await;
    // A lot that is said to leave older debts and paid one is found, and so is one that could pay and does not.
    let bought = world.purchase(left, 100, None).await.unwrap();
    for (flag, which, invariant) in
        [("true", &bought, "netting_lots_are_open"), ("false", &lot, "debt_means_no_usable_lot")]
    {
        let id = drawdown_types::LotId::as_uuid(which.lot_id.parse().unwrap());
        let flip = format!("update ledger.lot set leaves_older_debts = {flag} where lot_id = '{id}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(flip)).execute(world.database.pool()).await.unwrap();
        let violated = world.violated().await;
        assert!(violated.iter().any(|verdict| verdict.name == invariant), "{flag}: {violated:?}");
    }
}
