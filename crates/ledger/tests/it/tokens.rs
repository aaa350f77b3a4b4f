//! Buying, granting, expiry, netting, reading; what is refused and why.

use drawdown_ledger::{config::DueConfig, jobs::due::Due};
use drawdown_proto::ledger::v1::{
    GetBalanceRequest, GrantTokensRequest, ListChargesRequest, ListLotsRequest, LotState, PoolKind,
    PurchaseTokensRequest, token_service_server::TokenService,
};
use drawdown_types::{AccountId, TeamId};
use tonic::{Code, Request};

use crate::world::{Buyer, DAY, NOW, World, at, calls, calls_at, proto, reason, refusal, request_id};

const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);

fn purchase(buyer: Buyer, tokens: i64) -> PurchaseTokensRequest {
    PurchaseTokensRequest {
        account_id: buyer.account.to_string(),
        team_id: buyer.team.to_string(),
        tokens,
        purchased_at: None,
        request_id: request_id(),
        note: "spring".to_owned(),
    }
}

fn grant(buyer: Buyer) -> GrantTokensRequest {
    GrantTokensRequest {
        account_id: buyer.account.to_string(),
        team_id: buyer.team.to_string(),
        micros: 5_000_000,
        pool_kind: PoolKind::Promotional.into(),
        starts_at: None,
        expires_at: proto(at("2026-03-11T00:00:30Z")),
        note: "welcome".to_owned(),
        leaves_older_debts: false,
        request_id: request_id(),
    }
}

#[tokio::test]
async fn d2_a_purchase_is_a_lot_for_a_year() {
    let world = World::new().await;
    let buyer = world.buyer();
    let answer = world.tokens.purchase_tokens(Request::new(purchase(buyer, 100))).await.unwrap().into_inner();
    let lot = answer.lot.unwrap();
    assert!(answer.order_id.starts_with("ord_") && lot.lot_id.starts_with("lot_"));
    assert_eq!(lot.state(), LotState::Open);
    assert_eq!(
        (lot.granted_micros, lot.remaining_micros, lot.note.as_str()),
        (100_000_000, 100_000_000, "spring")
    );
    assert_eq!(lot.purchased_at, proto(at(NOW)));
    assert_eq!(lot.starts_at, proto(at("2026-03-10T12:00:00Z")));
    assert_eq!(lot.expires_at, proto(at("2027-03-10T12:01:00Z")));
    assert_eq!(lot.closes_at, proto(at("2027-03-11T12:01:00Z")));
    assert_eq!(world.lots(buyer).await, [lot]);
    world.assert_clean().await;
}

#[tokio::test]
async fn every_wrong_field_of_a_purchase_is_named_at_once() {
    let world = World::new().await;
    let buyer = world.buyer();
    let request = PurchaseTokensRequest {
        account_id: buyer.team.to_string(),
        team_id: String::new(),
        tokens: 99,
        purchased_at: Some(prost_types::Timestamp { seconds: 1, nanos: -1 }),
        request_id: String::new(),
        note: "x".repeat(201),
    };
    let status = world.tokens.purchase_tokens(Request::new(request)).await.unwrap_err();
    let (code, reason, fields) = refusal(&status);
    assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "PURCHASE_TOO_SMALL"));
    assert_eq!(fields, ["request_id", "account_id", "team_id", "tokens", "purchased_at", "note"]);
}

#[tokio::test]
async fn purchases_that_can_not_be_are_refused_with_their_reason() {
    let world = World::new().await;
    let buyer = world.buyer();
    let in_trial = world.buyer();
    world.know(in_trial, Some(at("2026-03-01T00:00:00Z")), Some(at("2026-05-30T00:00:00Z")));
    let stranger = Buyer { team: TeamId::generate(), ..buyer };
    let other_account = Buyer { account: AccountId::generate(), ..buyer };
    let future =
        PurchaseTokensRequest { purchased_at: proto(at("2026-03-11T00:00:00Z")), ..purchase(buyer, 100) };
    let cases = [
        (purchase(buyer, 99), Code::InvalidArgument, "PURCHASE_TOO_SMALL", "tokens"),
        (purchase(buyer, 1_000_000_001), Code::InvalidArgument, "LOT_TOO_LARGE", "tokens"),
        (purchase(stranger, 100), Code::NotFound, "TEAM_UNKNOWN", "team_id"),
        (purchase(other_account, 100), Code::FailedPrecondition, "TEAM_NOT_OF_ACCOUNT", "team_id"),
        (purchase(in_trial, 100), Code::FailedPrecondition, "TRIAL_ACTIVE", "account_id"),
        (future, Code::InvalidArgument, "INSTANT_IN_FUTURE", "purchased_at"),
    ];
    for (request, code, reason, field) in cases {
        let status = world.tokens.purchase_tokens(Request::new(request)).await.unwrap_err();
        assert_eq!(refusal(&status), (code, reason.to_owned(), vec![field.to_owned()]));
    }
    assert!(world.lots(buyer).await.is_empty());
    world.assert_clean().await;
}

#[tokio::test]
async fn d53_the_sums_of_a_team_are_bounded() {
    let world = World::new().await;
    let buyer = world.buyer();
    world.purchase(buyer, 100, None).await.unwrap();
    // Nine thousand of the largest lots would do it as well.
    let sql = "alter table ledger.balance disable trigger all;
               update ledger.balance set issued_micros = 9223372036854775807 - 99999999";
    sqlx::raw_sql(sql).execute(world.database.pool()).await.unwrap();
    assert_eq!(reason(world.purchase(buyer, 100, None).await), "BALANCE_OVERFLOW");
}

#[tokio::test]
async fn grants_that_can_not_be_are_refused_with_their_reason() {
    let world = World::new().await;
    let buyer = world.buyer();
    let flex = GrantTokensRequest {
        pool_kind: PoolKind::Flex.into(),
        micros: 0,
        note: String::new(),
        ..grant(buyer)
    };
    let (_, _, fields) = refusal(&world.tokens.grant_tokens(Request::new(flex)).await.unwrap_err());
    assert_eq!(fields, ["micros", "pool_kind", "note"]);
    let cases = [
        (GrantTokensRequest { expires_at: proto(at(NOW)), starts_at: proto(at(NOW)), ..grant(buyer) }, None),
        (
            GrantTokensRequest { expires_at: proto(at("2026-03-10T11:00:00Z")), ..grant(buyer) },
            Some("REQUEST_INVALID"),
        ),
        (GrantTokensRequest { expires_at: None, ..grant(buyer) }, Some("REQUEST_INVALID")),
        (GrantTokensRequest { micros: i64::MAX, ..grant(buyer) }, Some("LOT_TOO_LARGE")),
    ];
    for (request, expected) in cases {
        let outcome = world.tokens.grant_tokens(Request::new(request)).await;
        assert_eq!(outcome.map_err(|status| refusal(&status).1).err().as_deref(), expected);
    }
    // Grants are allowed in the trial (D50).
    let in_trial = world.buyer();
    world.know(in_trial, Some(at("2026-03-01T00:00:00Z")), None);
    assert!(world.tokens.grant_tokens(Request::new(grant(in_trial))).await.is_ok());
}

#[tokio::test]
async fn a_request_id_has_one_effect_and_one_content() {
    let world = World::new().await;
    let buyer = world.buyer();
    let request = purchase(buyer, 100);
    let first = world.tokens.purchase_tokens(Request::new(request.clone())).await.unwrap().into_inner();
    let again = world.tokens.purchase_tokens(Request::new(request.clone())).await.unwrap().into_inner();
    assert_eq!(first, again);
    assert_eq!(world.lots(buyer).await.len(), 1);
    let other = PurchaseTokensRequest { tokens: 101, ..request.clone() };
    assert_eq!(reason(world.tokens.purchase_tokens(Request::new(other)).await), "REQUEST_ID_CONFLICT");
    let other_method = GrantTokensRequest { request_id: request.request_id.clone(), ..grant(buyer) };
    assert_eq!(reason(world.tokens.grant_tokens(Request::new(other_method)).await), "REQUEST_ID_CONFLICT");
    // The same at one moment: one effect, one answer.
    let request = purchase(buyer, 200);
    let calls = (0..8).map(|_| world.tokens.purchase_tokens(Request::new(request.clone())));
    let answers: Vec<_> = futures::future::join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|answer| answer.get_ref() == answers[0].get_ref()));
    assert_eq!(world.balance(buyer).await.purchased_micros, 300_000_000);
    world.assert_clean().await;
}

#[tokio::test]
async fn d3_a_lot_leaves_the_balance_at_its_expiry_and_pays_late_settlement_until_it_closes() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.grant(buyer, 5_000_000, None, "2026-03-10T13:00:00Z").await.unwrap();
    world.clock.set(at("2026-03-10T12:59:59.999999Z"));
    assert_eq!(world.balance(buyer).await.available_micros, 5_000_000);
    world.clock.set(at("2026-03-10T13:00:00Z"));
    let balance = world.balance(buyer).await;
    assert_eq!((balance.available_micros, balance.closing_micros, balance.expired_micros), (0, 5_000_000, 0));
    assert_eq!(world.lots(buyer).await[0].state(), LotState::Closing);
    // Usage just before the expiry, settled after it, is paid; usage after it is owed.
    let posted = world
        .settle(
            producer,
            vec![calls_at(buyer, 4, "2026-03-10T12:59:00Z"), calls_at(buyer, 6, "2026-03-10T13:00:00Z")],
        )
        .await;
    assert_eq!(posted.amount_micros, 5_000_000);
    let balance = world.balance(buyer).await;
    assert_eq!((balance.closing_micros, balance.uncharged_micros), (3_000_000, 3_000_000));
    world.assert_clean().await;
    // Closed: a day after the expiry and the allowance for what is on its way.
    let job = Due::new(
        std::sync::Arc::clone(&world.ledger),
        DueConfig { interval: HOUR, teams_max: 1, rounds_max: 9 },
    );
    world.clock.set(at("2026-03-11T13:04:59Z"));
    assert_eq!(job.look().await.unwrap(), 0);
    world.clock.set(at("2026-03-11T13:05:00Z"));
    let read_before = world.balance(buyer).await;
    assert_eq!(job.look().await.unwrap(), 1);
    assert_eq!(job.look().await.unwrap(), 0);
    let balance = world.balance(buyer).await;
    assert_eq!((balance.closing_micros, balance.expired_micros), (0, 3_000_000));
    assert_eq!(balance, read_before);
    let lot = world.lots(buyer).await.remove(0);
    assert_eq!((lot.state(), lot.remaining_micros, lot.expired_micros), (LotState::Closed, 0, 3_000_000));
    let last = world.journal(buyer).await.pop().unwrap();
    assert_eq!((last.kind.as_str(), last.effective_at), ("expiry", proto(at("2026-03-10T13:00:00Z"))));
    world.assert_clean().await;
}

#[tokio::test]
async fn d55_usage_received_in_time_is_paid_after_a_standstill() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.grant(buyer, 5_000_000, None, "2026-03-10T13:00:00Z").await.unwrap();
    // Nothing was settled for three days: the lot's close is long due when the batch arrives.
    world.clock.advance(3 * DAY);
    world.settle(producer, vec![calls_at(buyer, 4, "2026-03-10T12:59:00Z")]).await;
    let paid = world.balance(buyer).await;
    assert_eq!((paid.uncharged_micros, paid.used_micros), (0, 2_000_000));
    // What was received later comes after the close.
    world.settle(producer, vec![calls_at(buyer, 1, "2026-03-13T11:59:00Z")]).await;
    let balance = world.balance(buyer).await;
    assert_eq!((balance.uncharged_micros, balance.expired_micros), (500_000, 3_000_000));
    world.assert_clean().await;
}

#[tokio::test]
async fn d4_lots_are_drawn_by_kind_then_by_expiry() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let flex = world.purchase(buyer, 100, None).await.unwrap();
    let long = world.grant(buyer, 1_000_000, None, "2026-05-01T00:00:00Z").await.unwrap();
    let short = world.grant(buyer, 1_000_000, None, "2026-04-01T00:00:00Z").await.unwrap();
    world.settle(producer, vec![calls(buyer, 5)]).await;
    let paid: Vec<_> = world
        .journal(buyer)
        .await
        .into_iter()
        .filter(|row| row.kind == "charge")
        .map(|row| (row.lot_id, row.amount_micros))
        .collect();
    let expected = [(short.lot_id, 1_000_000), (long.lot_id, 1_000_000), (flex.lot_id, 500_000)];
    assert_eq!(paid, expected);
    world.assert_clean().await;
}

#[tokio::test]
async fn a_scheduled_lot_pays_debts_from_its_start_on_whether_or_not_a_job_ran() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.settle(producer, vec![calls(buyer, 2)]).await;
    world.grant(buyer, 5_000_000, Some("2026-03-10T13:00:00Z"), "2026-04-10T00:00:00Z").await.unwrap();
    let before = world.balance(buyer).await;
    assert_eq!((before.scheduled_micros, before.uncharged_micros), (5_000_000, 1_000_000));
    world.clock.set(at("2026-03-10T14:00:00Z"));
    let read = world.balance(buyer).await;
    assert_eq!((read.available_micros, read.uncharged_micros), (4_000_000, 0));
    let job = Due::new(
        std::sync::Arc::clone(&world.ledger),
        DueConfig { interval: HOUR, teams_max: 9, rounds_max: 9 },
    );
    assert_eq!(job.look().await.unwrap(), 1);
    assert_eq!(world.balance(buyer).await, read);
    let netting = world.journal(buyer).await.pop().unwrap();
    assert_eq!((netting.kind.as_str(), netting.posted_at), ("netting", proto(at("2026-03-10T13:00:00Z"))));
    world.assert_clean().await;
}

#[tokio::test]
async fn d61_set_up_is_refused_once_usage_of_those_windows_is_settled() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let lot = world.purchase(buyer, 100, Some("2025-12-24T08:30:00Z")).await.unwrap();
    assert_eq!(lot.expires_at, proto(at("2026-12-24T08:30:00Z")));
    world.settle(producer, vec![calls(buyer, 1)]).await;
    let settled = world.purchase(buyer, 100, Some("2026-03-10T12:00:10Z")).await;
    assert_eq!(reason(settled), "WINDOW_SETTLED");
    let settled = world.grant(buyer, 1, Some("2026-03-01T00:00:00Z"), "2026-04-01T00:00:00Z").await;
    assert_eq!(reason(settled), "WINDOW_SETTLED");
    world.clock.advance(DAY);
    assert!(world.purchase(buyer, 100, Some("2026-03-10T12:01:00Z")).await.is_ok());
    world.assert_clean().await;
}

#[tokio::test]
async fn reads_answer_for_an_instant_and_name_what_is_wrong() {
    let world = World::new().await;
    let buyer = world.buyer();
    let balance = world.balance(buyer).await;
    assert_eq!((balance.version, balance.at), (0, proto(at(NOW))));
    world.purchase(buyer, 100, None).await.unwrap();
    let ask = |team_id: String, instant: &str| {
        world.tokens.get_balance(Request::new(GetBalanceRequest {
            team_id,
            at: proto(at(instant)),
            ..GetBalanceRequest::default()
        }))
    };
    let team = buyer.team.to_string();
    let next_year = ask(team.clone(), "2027-03-10T12:01:00Z").await.unwrap().into_inner().balance.unwrap();
    assert_eq!((next_year.available_micros, next_year.closing_micros), (0, 100_000_000));
    assert_eq!(reason(ask(team.clone(), "2026-03-10T12:00:29Z").await), "INSTANT_BEFORE_POSTING");
    assert_eq!(reason(ask("team_x".to_owned(), NOW).await), "REQUEST_INVALID");
    assert_eq!(reason(ask(TeamId::generate().to_string(), NOW).await), "TEAM_UNKNOWN");
    let lots = ListLotsRequest { team_id: TeamId::generate().to_string(), ..ListLotsRequest::default() };
    assert_eq!(reason(world.tokens.list_lots(Request::new(lots)).await), "TEAM_UNKNOWN");
}

#[tokio::test]
async fn pages_go_on_where_they_ended_and_only_there() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, other, producer) = (world.buyer(), world.buyer(), world.producer().await);
    world.settle(producer, vec![calls(buyer, 1), calls(other, 1)]).await;
    for events in 2..=5 {
        world.settle(producer, vec![calls(buyer, events)]).await;
    }
    let page = |buyer: Buyer, page_token: String| {
        let request = ListChargesRequest {
            team_id: buyer.team.to_string(),
            page_size: 2,
            page_token,
            ..ListChargesRequest::default()
        };
        world.tokens.list_charges(Request::new(request))
    };
    let (mut events, mut token) = (Vec::new(), String::new());
    loop {
        let answer = page(buyer, token).await.unwrap().into_inner();
        events.extend(answer.charges.iter().map(|charge| charge.events));
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
        assert_eq!(reason(page(other, token.clone()).await), "PAGE_TOKEN_INVALID");
    }
    assert_eq!(events, [1, 2, 3, 4, 5]);
    assert_eq!(reason(page(buyer, "00".to_owned()).await), "PAGE_TOKEN_INVALID");
}
