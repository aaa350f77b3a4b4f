//! Holds (D45) through the handlers and on the real database.

use std::{sync::Arc, time::Duration};

use drawdown_ledger::{config::DueConfig, jobs::due::Due};
use drawdown_proto::ledger::v1::{
    CaptureHoldRequest, CaptureHoldResponse, ExtendHoldRequest, GetHoldRequest, Hold, HoldState, Line,
    ListHoldsRequest, ReleaseHoldRequest, ReserveTokensRequest, hold_service_server::HoldService,
};
use tonic::{Request, Status};

use crate::world::{Buyer, DAY, World, at, calls, calls_at, reason, request_id};

const MINUTE_MS: i64 = 60_000;

pub(crate) async fn reserve(
    world: &World,
    buyer: Buyer,
    micros: i64,
    least: i64,
    lasts_ms: i64,
) -> Result<Hold, Status> {
    let request = ReserveTokensRequest {
        account_id: buyer.account.to_string(),
        team_id: buyer.team.to_string(),
        app_id: String::new(),
        micros,
        at_least_micros: least,
        lasts_ms,
        note: "a long job".to_owned(),
        request_id: request_id(),
    };
    Ok(world.hold_service.reserve_tokens(Request::new(request)).await?.into_inner().hold.unwrap())
}

pub(crate) async fn extend(
    world: &World,
    buyer: Buyer,
    hold: &Hold,
    lasts_ms: i64,
    more: i64,
) -> Result<Hold, Status> {
    let request = ExtendHoldRequest {
        team_id: buyer.team.to_string(),
        hold_id: hold.hold_id.clone(),
        lasts_ms,
        more_micros: more,
        request_id: request_id(),
    };
    Ok(world.hold_service.extend_hold(Request::new(request)).await?.into_inner().hold.unwrap())
}

fn capture_request(buyer: Buyer, hold: &Hold, calls: i64, last: bool) -> CaptureHoldRequest {
    CaptureHoldRequest {
        team_id: buyer.team.to_string(),
        hold_id: hold.hold_id.clone(),
        app_id: buyer.app.to_string(),
        client_id: "client".to_owned(),
        meter: "call".to_owned(),
        quantity: calls,
        failed: false,
        last,
        request_id: request_id(),
    }
}

pub(crate) async fn capture(
    world: &World,
    buyer: Buyer,
    hold: &Hold,
    calls: i64,
    last: bool,
) -> Result<CaptureHoldResponse, Status> {
    let request = capture_request(buyer, hold, calls, last);
    Ok(world.hold_service.capture_hold(Request::new(request)).await?.into_inner())
}

pub(crate) async fn release(world: &World, buyer: Buyer, hold: &Hold) -> Result<i64, Status> {
    let request = ReleaseHoldRequest {
        team_id: buyer.team.to_string(),
        hold_id: hold.hold_id.clone(),
        request_id: request_id(),
    };
    Ok(world.hold_service.release_hold(Request::new(request)).await?.into_inner().released_micros)
}

async fn get(world: &World, buyer: Buyer, hold: &Hold) -> Hold {
    let request = GetHoldRequest { team_id: buyer.team.to_string(), hold_id: hold.hold_id.clone() };
    world.hold_service.get_hold(Request::new(request)).await.unwrap().into_inner().hold.unwrap()
}

fn held_calls(buyer: Buyer, events: u64, hold: &Hold) -> Line {
    Line { hold_id: hold.hold_id.clone(), ..calls(buyer, events) }
}

async fn ready() -> (World, Buyer) {
    let world = World::new().await;
    world.priced().await;
    let buyer = world.buyer();
    world.purchase(buyer, 100, None).await.unwrap();
    (world, buyer)
}

#[tokio::test]
async fn a_hold_takes_from_the_lots_and_a_release_gives_back() {
    let (world, buyer) = ready().await;
    world.grant(buyer, 1_000_000, None, "2026-04-01T00:00:00Z").await.unwrap();
    let hold = reserve(&world, buyer, 31_000_000, 0, MINUTE_MS).await.unwrap();
    let parts: Vec<i64> = hold.parts.iter().map(|part| part.taken_micros).collect();
    assert_eq!((parts, hold.state()), (vec![1_000_000, 30_000_000], HoldState::Open), "in draw order");
    let balance = world.balance(buyer).await;
    assert_eq!((balance.available_micros, balance.held_micros), (70_000_000, 31_000_000));
    world.assert_clean().await;
    assert_eq!(release(&world, buyer, &hold).await.unwrap(), 31_000_000);
    let balance = world.balance(buyer).await;
    assert_eq!((balance.available_micros, balance.held_micros), (101_000_000, 0));
    assert_eq!(get(&world, buyer, &hold).await.state(), HoldState::Released);
    world.assert_clean().await;
}

#[tokio::test]
async fn all_or_nothing_unless_less_will_do() {
    let (world, buyer) = ready().await;
    assert_eq!(reason(reserve(&world, buyer, 100_000_001, 0, MINUTE_MS).await), "HOLD_INSUFFICIENT");
    let hold = reserve(&world, buyer, 200_000_000, 50_000_000, MINUTE_MS).await.unwrap();
    assert_eq!(hold.taken_micros, 100_000_000);
    assert_eq!(reason(reserve(&world, buyer, 1, 0, MINUTE_MS).await), "HOLD_INSUFFICIENT");
    let list = ListHoldsRequest { team_id: buyer.team.to_string(), page_size: 1, page_token: String::new() };
    let page = world.hold_service.list_holds(Request::new(list.clone())).await.unwrap().into_inner();
    assert_eq!((page.holds.len(), page.holds[0].hold_id.clone()), (1, hold.hold_id.clone()));
    let next = ListHoldsRequest { page_token: page.next_page_token, ..list };
    let page = world.hold_service.list_holds(Request::new(next)).await.unwrap().into_inner();
    assert_eq!((page.holds.len(), page.next_page_token), (0, String::new()));
    world.assert_clean().await;
}

#[tokio::test]
async fn usage_that_names_a_hold_draws_it_first_and_an_overrun_eats_no_other_hold() {
    let (world, buyer) = ready().await;
    let producer = world.producer().await;
    let mine = reserve(&world, buyer, 10_000_000, 0, MINUTE_MS).await.unwrap();
    let other = reserve(&world, buyer, 85_000_000, 0, MINUTE_MS).await.unwrap();
    world.settle(producer, vec![held_calls(buyer, 40, &mine)]).await;
    // 20 tokens: 10 of its hold, the 5 that nobody holds, and 5 that no lot covers.
    let rows = world.journal(buyer).await;
    let paid: Vec<_> = rows.iter().skip(3).map(|row| (row.kind.as_str(), row.amount_micros)).collect();
    assert_eq!(paid, [("capture", 10_000_000), ("charge", 5_000_000), ("uncharged", 5_000_000)]);
    assert_eq!(get(&world, buyer, &mine).await.remaining_micros, 0);
    assert_eq!(get(&world, buyer, &other).await.remaining_micros, 85_000_000, "not eaten");
    assert_eq!(world.balance(buyer).await.balance_micros, -5_000_000);
    world.assert_clean().await;
    // What the other hold gives back pays the debt at once.
    release(&world, buyer, &other).await.unwrap();
    let balance = world.balance(buyer).await;
    assert_eq!((balance.available_micros, balance.uncharged_micros), (80_000_000, 0));
    world.assert_clean().await;
}

#[tokio::test]
async fn a_capture_charges_at_once_and_the_last_one_ends_the_hold() {
    let (world, buyer) = ready().await;
    let hold = reserve(&world, buyer, 10_000_000, 0, MINUTE_MS).await.unwrap();
    let request = capture_request(buyer, &hold, 6, false);
    let first = world.hold_service.capture_hold(Request::new(request.clone())).await.unwrap().into_inner();
    let again = world.hold_service.capture_hold(Request::new(request)).await.unwrap().into_inner();
    assert_eq!(first, again, "the same request captures once");
    assert_eq!((first.amount_micros, first.from_hold_micros), (3_000_000, 3_000_000));
    assert_eq!(first.hold.unwrap().remaining_micros, 7_000_000);
    let last = capture(&world, buyer, &hold, 2, true).await.unwrap();
    assert_eq!(last.hold.unwrap().state(), HoldState::Captured);
    let balance = world.balance(buyer).await;
    assert_eq!(
        (balance.available_micros, balance.held_micros, balance.used_micros),
        (96_000_000, 0, 4_000_000)
    );
    assert_eq!(reason(capture(&world, buyer, &hold, 1, false).await), "HOLD_OVER");
    assert_eq!(reason(release(&world, buyer, &hold).await), "HOLD_OVER");
    assert_eq!(reason(extend(&world, buyer, &hold, MINUTE_MS, 0).await), "HOLD_OVER");
    world.assert_clean().await;
}

#[tokio::test]
async fn a_capture_above_its_hold_is_ordinary_usage() {
    let (world, buyer) = ready().await;
    let hold = reserve(&world, buyer, 1_000_000, 0, MINUTE_MS).await.unwrap();
    let other = reserve(&world, buyer, 99_000_000, 0, MINUTE_MS).await.unwrap();
    let over = capture(&world, buyer, &hold, 6, true).await.unwrap();
    assert_eq!(
        (over.amount_micros, over.from_hold_micros, over.uncharged_micros),
        (3_000_000, 1_000_000, 2_000_000)
    );
    assert_eq!(get(&world, buyer, &other).await.remaining_micros, 99_000_000);
    world.assert_clean().await;
}

#[tokio::test]
async fn a_capture_of_a_released_hold_or_of_a_strangers_is_refused() {
    let (world, buyer) = ready().await;
    let hold = reserve(&world, buyer, 1_000_000, 0, MINUTE_MS).await.unwrap();
    release(&world, buyer, &hold).await.unwrap();
    assert_eq!(reason(capture(&world, buyer, &hold, 1, false).await), "HOLD_OVER");
    let stranger = world.buyer();
    assert_eq!(reason(capture(&world, stranger, &hold, 1, false).await), "HOLD_UNKNOWN");
    assert_eq!(reason(release(&world, stranger, &hold).await), "HOLD_UNKNOWN");
    let open = reserve(&world, buyer, 1_000_000, 0, MINUTE_MS).await.unwrap();
    let unknown =
        CaptureHoldRequest { meter: "nothing".to_owned(), ..capture_request(buyer, &open, 1, false) };
    assert_eq!(reason(world.hold_service.capture_hold(Request::new(unknown)).await), "METER_UNKNOWN");
    let bad = CaptureHoldRequest { quantity: -1, ..capture_request(buyer, &open, 1, false) };
    assert_eq!(reason(world.hold_service.capture_hold(Request::new(bad)).await), "REQUEST_INVALID");
    assert_eq!(world.balance(buyer).await.used_micros, 0);
    world.assert_clean().await;
}

#[tokio::test]
async fn a_hold_times_out_to_the_instant_for_every_reader_and_the_job_only_writes_it_down() {
    let (world, buyer) = ready().await;
    let producer = world.producer().await;
    let hold = reserve(&world, buyer, 10_000_000, 0, MINUTE_MS).await.unwrap();
    world.clock.set(at("2026-03-10T12:01:29.999999Z"));
    assert_eq!(world.balance(buyer).await.held_micros, 10_000_000);
    world.clock.set(at("2026-03-10T12:01:30Z"));
    let balance = world.balance(buyer).await;
    assert_eq!((balance.available_micros, balance.held_micros), (100_000_000, 0), "no job has run");
    let seen = get(&world, buyer, &hold).await;
    assert_eq!((seen.state(), seen.remaining_micros), (HoldState::TimedOut, 0));
    world.clock.set(at("2026-03-10T12:05:00Z"));
    let config = DueConfig { interval: DAY, teams_max: 10, rounds_max: 9 };
    let due = Due::new(Arc::clone(&world.ledger), config);
    assert_eq!(due.look().await.unwrap(), 1);
    let rows = world.journal(buyer).await;
    let given_back = rows.last().unwrap();
    assert_eq!(given_back.kind, "release");
    assert_eq!(given_back.posted_at, crate::world::proto(at("2026-03-10T12:01:30Z")), "at its own instant");
    assert_eq!(due.look().await.unwrap(), 0);
    // The same usage is ordinary usage now, streamed or captured.
    world.settle(producer, vec![held_calls(buyer, 2, &hold)]).await;
    let late = capture(&world, buyer, &hold, 2, true).await.unwrap();
    assert_eq!((late.amount_micros, late.from_hold_micros), (1_000_000, 0));
    assert_eq!(world.journal(buyer).await.iter().filter(|row| row.kind == "capture").count(), 0);
    world.assert_clean().await;
}

#[tokio::test]
async fn a_heartbeat_keeps_a_hold_for_a_long_stream_up_to_the_lateness_limit() {
    let (world, buyer) = ready().await;
    let producer = world.producer().await;
    let hold = reserve(&world, buyer, 10_000_000, 0, MINUTE_MS).await.unwrap();
    for minute in 1..=10 {
        world.clock.set(at(&format!("2026-03-10T12:{minute:02}:00Z")));
        extend(&world, buyer, &hold, 2 * MINUTE_MS, 0).await.unwrap();
    }
    let more = extend(&world, buyer, &hold, 3 * MINUTE_MS, 5_000_000).await.unwrap();
    assert_eq!((more.taken_micros, more.parts.len()), (15_000_000, 2));
    assert_eq!(more.window_start, hold.window_start, "a new part at the first window");
    assert_eq!(reason(extend(&world, buyer, &hold, 1, 0).await), "HOLD_TIME_OUT_OF_RANGE");
    assert_eq!(reason(extend(&world, buyer, &hold, 25 * 60 * MINUTE_MS, 0).await), "HOLD_TIME_OUT_OF_RANGE");
    assert_eq!(reason(extend(&world, buyer, &hold, 4 * MINUTE_MS, 1_000_000_000).await), "HOLD_INSUFFICIENT");
    // Usage of a later window belongs to the window of the hold.
    let line = Line { hold_id: hold.hold_id.clone(), ..calls_at(buyer, 2, "2026-03-10T12:09:00Z") };
    world.settle(producer, vec![line]).await;
    let charge = world.charges(buyer).await.remove(0);
    assert_eq!(charge.window_start, hold.window_start);
    world.assert_clean().await;
}

#[tokio::test]
async fn a_lot_with_a_held_part_does_not_move_and_a_chargeback_takes_the_part_out() {
    use drawdown_proto::ledger::v1::{ChargeBackLotRequest, MoveLotRequest, lot_service_server::LotService};
    let (world, buyer) = ready().await;
    let right = world.sibling(buyer);
    let hold = reserve(&world, buyer, 10_000_000, 0, MINUTE_MS).await.unwrap();
    let request = MoveLotRequest {
        account_id: buyer.account.to_string(),
        lot_id: hold.parts[0].lot_id.clone(),
        from_team_id: buyer.team.to_string(),
        to_team_id: right.team.to_string(),
        reason: "a move".to_owned(),
        request_id: request_id(),
    };
    assert_eq!(reason(world.lot_service.move_lot(Request::new(request)).await), "LOT_HELD");
    let request = ChargeBackLotRequest {
        account_id: buyer.account.to_string(),
        lot_id: hold.parts[0].lot_id.clone(),
        reason: "the bank says so".to_owned(),
        request_id: request_id(),
    };
    world.lot_service.charge_back_lot(Request::new(request)).await.unwrap();
    assert_eq!(get(&world, buyer, &hold).await.remaining_micros, 0);
    let balance = world.balance(buyer).await;
    assert_eq!((balance.held_micros, balance.void_micros, balance.balance_micros), (0, 100_000_000, 0));
    world.assert_clean().await;
}

#[tokio::test]
async fn a_hold_of_another_app_pays_nothing_for_this_one() {
    let (world, buyer) = ready().await;
    let producer = world.producer().await;
    let request = ReserveTokensRequest {
        account_id: buyer.account.to_string(),
        team_id: buyer.team.to_string(),
        app_id: world.buyer().app.to_string(),
        micros: 10_000_000,
        lasts_ms: MINUTE_MS,
        request_id: request_id(),
        ..ReserveTokensRequest::default()
    };
    let hold = world.hold_service.reserve_tokens(Request::new(request)).await.unwrap();
    let hold = hold.into_inner().hold.unwrap();
    world.settle(producer, vec![held_calls(buyer, 2, &hold)]).await;
    assert_eq!(get(&world, buyer, &hold).await.remaining_micros, 10_000_000);
    assert_eq!(reason(capture(&world, buyer, &hold, 1, false).await), "HOLD_OF_OTHER_APP");
    world.assert_clean().await;
}

#[tokio::test]
async fn holds_postings_and_releases_at_once_never_deadlock_and_end_exact() {
    let (world, buyer) = ready().await;
    let producer = world.producer().await;
    let one = |index: u64| {
        let world = &world;
        async move {
            let hold = reserve(world, buyer, 1_000_000, 0, MINUTE_MS).await.unwrap();
            if index.is_multiple_of(2) {
                capture(world, buyer, &hold, 1, true).await.unwrap();
            } else {
                release(world, buyer, &hold).await.unwrap();
            }
        }
    };
    let all = futures::future::join_all((0..16).map(one));
    let (_, _) = tokio::join!(all, world.settle(producer, vec![calls(buyer, 10)]));
    let balance = world.balance(buyer).await;
    assert_eq!((balance.held_micros, balance.used_micros), (0, 9_000_000));
    assert_eq!(balance.available_micros, 91_000_000);
    world.assert_clean().await;
}

#[tokio::test]
async fn holds_of_many_teams_that_are_over_at_once_give_back_in_the_order_they_took() {
    let world = World::new().await;
    world.priced().await;
    let producer = world.producer().await;
    let buyers: Vec<Buyer> = (0..12).map(|_| world.buyer()).collect();
    for &buyer in &buyers {
        for day in 1..=8 {
            world.grant(buyer, 1_000_000, None, &format!("2026-05-{day:02}T00:00:00Z")).await.unwrap();
        }
    }
    // In turn, so that neither the rows of a team nor its holds stand together.
    for _ in 0..3 {
        for &buyer in &buyers {
            reserve(&world, buyer, 2_500_000, 0, MINUTE_MS).await.unwrap();
        }
    }
    world.clock.advance(Duration::from_millis(MINUTE_MS.unsigned_abs()));
    world.settle(producer, buyers.iter().map(|&buyer| calls(buyer, 1)).collect()).await;
    world.assert_clean().await;
}
