//! D11, D43: charges that are taken back, and charged again where they belong.

use drawdown_proto::ledger::v1::{
    Aggregation, AggregationPeriod, CorrectChargeRequest, CorrectChargeResponse, InsteadUsage,
    MoveLotRequest, correction_service_server::CorrectionService, lot_service_server::LotService,
};
use tonic::{Code, Request};

use crate::world::{
    Buyer, DAY, World, at, calls, calls_at, distinct, instead, largest, price, proto, reason, refusal,
    request_id, usage_at,
};

async fn correct(world: &World, buyer: Buyer, which: usize, quantity: i64) -> CorrectChargeResponse {
    let charge = world.charges(buyer).await.remove(which);
    world.correct(buyer, &charge.charge_id, quantity, None).await.unwrap()
}

async fn kinds(world: &World, buyer: Buyer, after: i64) -> Vec<(String, i64)> {
    let rows = world.journal(buyer).await.into_iter().filter(|row| row.seq > after);
    rows.map(|row| (row.kind, row.amount_micros)).collect()
}

#[tokio::test]
async fn d43_what_is_owed_is_cancelled_and_the_rest_goes_back_to_the_lot() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.grant(buyer, 1_000_000, None, "2026-04-10T00:00:00Z").await.unwrap();
    world.settle(producer, vec![calls(buyer, 5)]).await;
    assert_eq!(world.balance(buyer).await.balance_micros, -1_500_000);
    let answer = correct(&world, buyer, 0, 4).await;
    let back = answer.taken_back.unwrap();
    assert_eq!(
        (back.quantity, back.events, back.amount_micros, back.uncharged_micros),
        (-4, -4, -2_000_000, -1_500_000)
    );
    assert_eq!(answer.cancelled_micros, 1_500_000);
    assert_eq!(
        kinds(&world, buyer, 3).await,
        [("cancellation".to_owned(), 1_500_000), ("reversal".to_owned(), 500_000)]
    );
    let balance = world.balance(buyer).await;
    assert_eq!((balance.balance_micros, balance.negative_since), (500_000, None));
    let charges = world.charges(buyer).await;
    assert_eq!((charges[1].corrects.as_str(), charges[0].open_micros), (charges[0].charge_id.as_str(), 0));
    world.assert_clean().await;
}

#[tokio::test]
async fn d43_a_charge_of_the_wrong_team_is_charged_to_the_right_one() {
    let world = World::new().await;
    world.priced().await;
    let (wrong, producer) = (world.buyer(), world.producer().await);
    let right = world.sibling(wrong);
    let lot = world.purchase(wrong, 100, None).await.unwrap();
    world.purchase(right, 100, None).await.unwrap();
    world.settle(producer, vec![calls(wrong, 40)]).await;
    // The lot that paid lives with the right team by now: what comes back follows it and pays first.
    let request = MoveLotRequest {
        account_id: wrong.account.to_string(),
        lot_id: lot.lot_id.clone(),
        from_team_id: wrong.team.to_string(),
        to_team_id: right.team.to_string(),
        reason: "test".to_owned(),
        request_id: request_id(),
    };
    world.lot_service.move_lot(Request::new(request)).await.unwrap();
    let charge = world.charges(wrong).await.remove(0);
    let usage = InsteadUsage {
        team_id: right.team.to_string(),
        app_id: right.app.to_string(),
        client_id: "client-right".to_owned(),
        ..instead(30)
    };
    let answer = world.correct(wrong, &charge.charge_id, 0, Some(usage)).await.unwrap();
    let new = answer.instead.unwrap();
    assert_eq!((new.team_id, new.quantity, new.amount_micros), (right.team.to_string(), 30, 15_000_000));
    assert_eq!((new.corrects, new.open_micros), (charge.charge_id, 0));
    assert_eq!(
        (world.balance(wrong).await.used_micros, world.balance(right).await.used_micros),
        (0, 15_000_000)
    );
    let lots = world.lots(right).await;
    let moved = lots.iter().find(|other| other.lot_id == lot.lot_id).unwrap();
    assert_eq!((moved.remaining_micros, moved.granted_micros), (85_000_000, 100_000_000));
    world.assert_clean().await;
}

#[tokio::test]
async fn d43_a_closed_lot_gets_back_what_expires_at_once_or_pays_again() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.grant(buyer, 5_000_000, None, "2026-03-11T00:00:00Z").await.unwrap();
    world.settle(producer, vec![calls(buyer, 10)]).await;
    world.clock.advance(DAY * 9);
    world.purchase(buyer, 100, None).await.unwrap();
    let charge = world.charges(buyer).await.remove(0);
    world.correct(buyer, &charge.charge_id, 0, Some(instead(7))).await.unwrap();
    let row = |kind: &str, micros| (kind.to_owned(), micros);
    assert_eq!(
        kinds(&world, buyer, 3).await,
        [row("reversal", 5_000_000), row("charge", 3_500_000), row("expiry", 1_500_000)]
    );
    let balance = world.balance(buyer).await;
    assert_eq!((balance.available_micros, balance.expired_micros), (100_000_000, 1_500_000));
    world.assert_clean().await;
}

#[tokio::test]
async fn d43_a_refund_reaches_the_latest_lines_however_many_and_up_to_a_limit() {
    let world = World::with(|options| {
        options.correction_lines_max = drawdown_service::config::Count::of(60);
    })
    .await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let card = drawdown_proto::ledger::v1::Price { free_quota: 50, ..price("call", 500_000, 1) };
    world
        .publish("web", "2026-03-01T00:00:00Z", vec![card, price("byte", 1_000_000, 1000)], true)
        .await
        .unwrap();
    world.purchase(buyer, 100, None).await.unwrap();
    // The first line is free; each of the others costs half a token.
    world.settle(producer, vec![calls_at(buyer, 50, "2026-03-10T11:00:00Z")]).await;
    for minute in 0..3 {
        let window = format!("2026-03-10T11:0{}:00Z", minute + 1);
        let line = |number: usize| drawdown_proto::ledger::v1::Line {
            client_id: format!("client-{number:02}"),
            ..calls_at(buyer, 1, &window)
        };
        world.settle(producer, (0..30).map(line).collect()).await;
    }
    assert_eq!(world.balance(buyer).await.used_micros, 45_000_000);
    let free = world.charges(buyer).await.remove(0);
    let wide = world.correct(buyer, &free.charge_id, 0, None).await;
    assert!(wide.is_ok(), "50 of the 90 lines are within the limit: {wide:?}");
    assert_eq!(world.balance(buyer).await.used_micros, 20_000_000);
    world.assert_clean().await;
}

#[tokio::test]
async fn d43_a_correction_wider_than_the_limit_is_refused_and_writes_nothing() {
    let world = World::with(|options| {
        options.correction_lines_max = drawdown_service::config::Count::of(4);
    })
    .await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let card = drawdown_proto::ledger::v1::Price { free_quota: 5, ..price("call", 500_000, 1) };
    world.publish("web", "2026-03-01T00:00:00Z", vec![card], true).await.unwrap();
    world.settle(producer, vec![calls_at(buyer, 5, "2026-03-10T11:00:00Z")]).await;
    for minute in 1..6 {
        world.settle(producer, vec![calls_at(buyer, 1, &format!("2026-03-10T11:0{minute}:00Z"))]).await;
    }
    let (free, rows) = (world.charges(buyer).await.remove(0), world.journal(buyer).await.len());
    let refused = world.correct(buyer, &free.charge_id, 5, None).await;
    assert_eq!(
        refusal(&refused.unwrap_err()),
        (Code::FailedPrecondition, "CORRECTION_TOO_WIDE".to_owned(), vec!["quantity".to_owned()])
    );
    assert_eq!((world.journal(buyer).await.len(), world.charges(buyer).await.len()), (rows, 6));
    world.correct(buyer, &free.charge_id, 4, None).await.unwrap();
    assert_eq!(world.balance(buyer).await.uncharged_micros, 500_000);
    world.assert_clean().await;
}

#[tokio::test]
async fn d19_d43_largest_values_and_distinct_ones_are_taken_back_whole() {
    let world = World::new().await;
    let day = AggregationPeriod::Day;
    world.meter_by("seats", Aggregation::Max, day, "").await.unwrap();
    world.meter_by("users", Aggregation::Unique, day, "user").await.unwrap();
    let prices = vec![price("seats", 1_000_000, 1), price("users", 1_000_000, 1)];
    world.publish("web", "2020-01-01T00:00:00Z", prices, true).await.unwrap();
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.purchase(buyer, 100, None).await.unwrap();
    let window = "2026-03-10T11:00:00Z";
    for (seats, users) in [(4, &["a", "b"][..]), (9, &["b", "c", "d"]), (6, &["d"])] {
        let lines = vec![
            usage_at(buyer, "seats", largest(seats), window),
            usage_at(buyer, "users", distinct(users), window),
        ];
        world.settle(producer, lines).await;
    }
    assert_eq!(world.balance(buyer).await.used_micros, 13_000_000);
    let charges = world.charges(buyer).await;
    let part = world.correct(buyer, &charges[2].charge_id, 3, None).await;
    assert_eq!(reason(part), "CHARGE_WHOLE_ONLY");
    let seats = correct(&world, buyer, 2, 0).await.taken_back.unwrap();
    let users = correct(&world, buyer, 3, 0).await.taken_back.unwrap();
    // 6 seats are the largest that is left; c is seen no more, b and d by other lines.
    assert_eq!((seats.amount_micros, users.amount_micros), (-3_000_000, -1_000_000));
    world.assert_clean().await;
    // What is seen no more counts again.
    world.settle(producer, vec![usage_at(buyer, "users", distinct(&["c"]), window)]).await;
    assert_eq!(world.balance(buyer).await.used_micros, 10_000_000);
    world.assert_clean().await;
}

#[tokio::test]
async fn d42_what_comes_back_to_a_lot_that_started_and_expired_meanwhile_pays_usage_of_its_validity() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    // The second line is of a window that the lot is valid for, as seen by a gateway whose clock is ahead.
    let lines = vec![calls_at(buyer, 3, "2026-03-10T12:00:00Z"), calls_at(buyer, 1, "2026-03-10T12:15:00Z")];
    world.settle(producer, lines).await;
    let starts_at = Some("2026-03-10T12:10:00Z");
    world.grant(buyer, 1_000_000, starts_at, "2026-03-10T12:20:00Z").await.unwrap();
    world.clock.set(at("2026-03-10T12:25:00Z"));
    // At its start the lot paid 1 of the 1.5 that the first line left owed; now 0.5 is cancelled and 1 comes back.
    let answer = correct(&world, buyer, 0, 0).await;
    assert_eq!(answer.cancelled_micros, 500_000);
    let rows = kinds(&world, buyer, 2).await;
    let row = |kind: &str, micros| (kind.to_owned(), micros);
    assert_eq!(
        rows,
        [
            row("grant", 1_000_000),
            row("netting", 1_000_000),
            row("cancellation", 500_000),
            row("reversal", 1_000_000),
            row("netting", 500_000)
        ]
    );
    let balance = world.balance(buyer).await;
    assert_eq!((balance.uncharged_micros, balance.negative_since), (0, None));
    world.assert_clean().await;
}

#[tokio::test]
async fn d43_nothing_is_taken_back_of_nothing_and_what_cost_nothing_is_taken_back_whole() {
    let world = World::new().await;
    let day = AggregationPeriod::Day;
    world.meter_by("seats", Aggregation::Max, day, "").await.unwrap();
    world.meter_by("users", Aggregation::Unique, day, "user").await.unwrap();
    let prices = vec![price("seats", 1_000_000, 1), price("users", 1_000_000, 1)];
    world.publish("web", "2020-01-01T00:00:00Z", prices, true).await.unwrap();
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let window = "2026-03-10T11:00:00Z";
    let nothing =
        vec![usage_at(buyer, "seats", largest(0), window), usage_at(buyer, "users", distinct(&[]), window)];
    world.settle(producer, nothing).await;
    let failed = usage_at(buyer, "users", distinct(&["a", "b"]), "2026-03-10T10:00:00Z");
    world.settle(producer, vec![drawdown_proto::ledger::v1::Line { failed: true, ..failed }]).await;
    let charges = world.charges(buyer).await;
    for charge in &charges[..2] {
        let refused = world.correct(buyer, &charge.charge_id, 0, None).await;
        assert_eq!(reason(refused), "CHARGE_STANDS_LESS");
    }
    assert_eq!(charges[2].zero_rated, "failed");
    assert_eq!(reason(world.correct(buyer, &charges[2].charge_id, 1, None).await), "CHARGE_WHOLE_ONLY");
    assert_eq!(correct(&world, buyer, 2, 0).await.taken_back.unwrap().quantity, -2);
    world.assert_clean().await;
}

#[tokio::test]
async fn d59_a_budget_counts_what_is_taken_back_as_less() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.budget(buyer, None, 10_000_000, &[50]).await.unwrap();
    world.settle(producer, vec![calls(buyer, 12)]).await;
    correct(&world, buyer, 0, 10).await;
    let used = sqlx::query_scalar::<_, i64>("select used_micros from ledger.budget_month");
    assert_eq!(used.fetch_all(world.database.pool()).await.unwrap(), [1_000_000]);
    world.assert_clean().await;
}

#[tokio::test]
async fn a_trial_run_answers_what_would_be_and_writes_nothing() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.settle(producer, vec![calls(buyer, 5)]).await;
    let charge = world.charges(buyer).await.remove(0);
    let request = CorrectChargeRequest {
        account_id: buyer.account.to_string(),
        team_id: buyer.team.to_string(),
        charge_id: charge.charge_id,
        quantity: 2,
        reason: "test".to_owned(),
        request_id: request_id(),
        validate_only: true,
        ..CorrectChargeRequest::default()
    };
    let dry = world.corrections.correct_charge(Request::new(request.clone())).await.unwrap().into_inner();
    assert_eq!((dry.cancelled_micros, world.charges(buyer).await.len()), (1_000_000, 1));
    let real = CorrectChargeRequest { validate_only: false, ..request };
    let done = world.corrections.correct_charge(Request::new(real.clone())).await.unwrap().into_inner();
    let same = |answer: &CorrectChargeResponse| {
        let back = answer.taken_back.clone().unwrap();
        (back.quantity, back.amount_micros, back.uncharged_micros, back.seq, answer.cancelled_micros)
    };
    assert_eq!(same(&dry), same(&done));
    // The same request once more is one correction; another content is none.
    let again = world.corrections.correct_charge(Request::new(real.clone())).await.unwrap().into_inner();
    assert_eq!((again, world.charges(buyer).await.len()), (done, 2));
    let other = CorrectChargeRequest { quantity: 1, ..real };
    assert_eq!(reason(world.corrections.correct_charge(Request::new(other)).await), "REQUEST_ID_CONFLICT");
}

#[tokio::test]
async fn what_can_not_be_corrected_is_refused_by_name() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.settle(producer, vec![calls(buyer, 5)]).await;
    let charge = world.charges(buyer).await.remove(0);
    let correction = world.correct(buyer, &charge.charge_id, 4, None).await.unwrap().taken_back.unwrap();
    let refused = [
        (world.correct(buyer, &charge.charge_id, 2, None).await, "CHARGE_STANDS_LESS"),
        (world.correct(buyer, &correction.charge_id, 1, None).await, "CHARGE_UNKNOWN"),
        (world.correct(world.sibling(buyer), &charge.charge_id, 1, None).await, "CHARGE_UNKNOWN"),
        (world.correct(world.buyer(), &charge.charge_id, 1, None).await, "CHARGE_UNKNOWN"),
    ];
    for (outcome, expected) in refused {
        assert_eq!(reason(outcome), expected);
    }
    let other = InsteadUsage { meter: "nothing".to_owned(), ..instead(1) };
    assert_eq!(reason(world.correct(buyer, &charge.charge_id, 1, Some(other)).await), "METER_UNKNOWN");
    let bad = InsteadUsage { team_id: "x".to_owned(), quantity: -1, ..InsteadUsage::default() };
    let (code, _, fields) = refusal(&world.correct(buyer, "y", -2, Some(bad)).await.unwrap_err());
    assert_eq!(
        (code, fields),
        (
            Code::InvalidArgument,
            ["charge_id", "quantity", "instead.team_id", "instead.quantity"].map(str::to_owned).to_vec()
        )
    );
    world.assert_clean().await;
}

#[tokio::test]
async fn nothing_is_charged_to_a_window_that_has_not_come() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.settle(producer, vec![calls(buyer, 4)]).await;
    let charge = world.charges(buyer).await.remove(0);
    let at_window = async |window: &str| {
        let usage = InsteadUsage { window_start: proto(at(window)), ..instead(1) };
        world.correct(buyer, &charge.charge_id, 1, Some(usage)).await
    };
    for window in ["2062-03-10T12:00:00Z", "2026-03-11T12:01:00Z"] {
        let refused = refusal(&at_window(window).await.unwrap_err());
        let expected =
            (Code::InvalidArgument, "REQUEST_INVALID".to_owned(), vec!["instead.window_start".to_owned()]);
        assert_eq!(refused, expected, "{window}");
    }
    // The clocks of others may be as far ahead as events may.
    at_window("2026-03-11T12:00:00Z").await.unwrap();
    world.assert_clean().await;
}
