//! Days left, the red mark and forecasts, as they are served.

use drawdown_proto::ledger::v1::{
    Aggregation, Forecast, ForecastMethod, GetForecastRequest, Price, PriceTier,
    report_service_server::ReportService,
};
use drawdown_types::TeamId;
use tonic::{Code, Request, Status};

use crate::world::{Buyer, NOW, World, at, calls_at, price, proto, reason, refusal};

async fn forecast(world: &World, buyer: Buyer, micros_per_day: Option<i64>) -> Result<Forecast, Status> {
    let request = GetForecastRequest {
        account_id: buyer.account.to_string(),
        team_id: buyer.team.to_string(),
        micros_per_day,
    };
    let answer = world.reports.get_forecast(Request::new(request)).await?.into_inner();
    assert!(answer.completeness.is_some());
    Ok(answer.forecast.unwrap())
}

#[tokio::test]
async fn d30_lots_have_their_days_left_and_a_balance_its_red_mark() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    assert!(world.balance(buyer).await.red);
    world.grant(buyer, 10_000_000, None, "2026-03-15T12:00:00Z").await.unwrap();
    let balance = world.balance(buyer).await;
    assert_eq!((balance.granted_of_open_micros, balance.red), (10_000_000, false));
    assert_eq!(world.lots(buyer).await[0].days_left, 4);
    world.settle(producer, vec![calls_at(buyer, 16, "2026-03-10T12:00:00Z")]).await;
    let balance = world.balance(buyer).await;
    assert_eq!(
        (balance.available_micros, balance.granted_of_open_micros, balance.red),
        (2_000_000, 10_000_000, true)
    );
    world.clock.set(at("2026-03-15T11:59:00Z"));
    assert_eq!(world.lots(buyer).await[0].days_left, 0);
}

#[tokio::test]
async fn d35_the_rate_is_the_mean_of_the_last_whole_days() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.grant(buyer, 20_000_000, None, "2026-03-20T12:00:00Z").await.unwrap();
    world.grant(buyer, 5_000_000, None, "2026-04-30T12:00:00Z").await.unwrap();
    // No day is over yet: no rate, so everything will expire.
    world.settle(producer, vec![calls_at(buyer, 4, "2026-03-10T12:00:00Z")]).await;
    let first = forecast(&world, buyer, None).await.unwrap();
    assert_eq!((first.rate_micros, first.rate_days), (0, 1));
    assert_eq!(first.runs_out_at, proto(at("2026-04-30T12:00:00Z")));
    assert_eq!(first.unused_micros, 23_000_000);
    // Two whole days with 2 and 4 tokens; what today uses is no whole day.
    world.clock.set(at("2026-03-11T12:00:30Z"));
    world.settle(producer, vec![calls_at(buyer, 8, "2026-03-11T12:00:00Z")]).await;
    world.clock.set(at("2026-03-12T12:00:00Z"));
    world.settle(producer, vec![calls_at(buyer, 2, "2026-03-12T11:59:00Z")]).await;
    let found = forecast(&world, buyer, None).await.unwrap();
    assert_eq!(found.method(), ForecastMethod::TrailingMean);
    assert_eq!((found.rate_micros, found.rate_days), (6_000_000, 2));
    assert_eq!(
        (found.rate_from, found.rate_to),
        (proto(at("2026-03-10T00:00:00Z")), proto(at("2026-03-12T00:00:00Z")))
    );
    // 13 tokens at 3 a day are gone after 4 days and 8 hours, then 5 more: a day and 16 hours.
    let lots: Vec<_> =
        found.lots.iter().map(|lot| (lot.days_left, lot.remaining_micros, lot.unused_micros)).collect();
    assert_eq!(lots, [(8, 13_000_000, 0), (49, 5_000_000, 0)]);
    assert_eq!(found.lots[0].empty_at, proto(at("2026-03-16T20:00:00Z")));
    assert_eq!(found.lots[1].empty_at, proto(at("2026-03-18T12:00:00Z")));
    assert_eq!(found.runs_out_at, found.lots[1].empty_at);
    assert_eq!(found.unused_micros, 0);
    // At one token a day the first lot has 5 tokens left at its expiry.
    let slower = forecast(&world, buyer, Some(1_000_000)).await.unwrap();
    assert_eq!((slower.method(), slower.unused_micros), (ForecastMethod::Given, 5_000_000));
    assert_eq!((slower.rate_from, slower.rate_days), (None, 1));
    assert_eq!(slower.lots[1].empty_at, proto(at("2026-03-25T12:00:00Z")));
    world.assert_clean().await;
}

#[tokio::test]
async fn d35_days_whose_corrections_gave_back_more_than_they_cost_are_a_rate_of_nothing() {
    let world = World::new().await;
    // The first ten calls of a month cost a fifth of a token each, the next 3 tokens.
    world.meter("call", Aggregation::Count).await.unwrap();
    let tiers = vec![PriceTier { above: 10, micros: 3_000_000 }];
    let prices = vec![Price { tiers, ..price("call", 200_000, 1) }];
    world.publish("web", "2020-01-01T00:00:00Z", prices, true).await.unwrap();
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.grant(buyer, 90_000_000, None, "2026-06-10T12:00:00Z").await.unwrap();
    // The expensive ones come later, and are of the day before.
    for window in ["2026-03-10T12:00:00Z", "2026-03-09T23:59:00Z"] {
        world.settle(producer, vec![calls_at(buyer, 10, window)]).await;
    }
    let charges = world.charges(buyer).await;
    assert_eq!((charges[0].amount_micros, charges[1].amount_micros), (2_000_000, 30_000_000));
    world.clock.set(at("2026-03-11T12:00:00Z"));
    // Without the first ten, the others are the cheap ones: the month costs 30 tokens less (D43).
    let back = world.correct(buyer, &charges[0].charge_id, 0, None).await.unwrap().taken_back.unwrap();
    assert_eq!(back.amount_micros, -30_000_000);
    let found = forecast(&world, buyer, None).await.unwrap();
    assert_eq!((found.rate_micros, found.rate_days), (0, 1));
    assert_eq!(
        (found.rate_from, found.rate_to),
        (proto(at("2026-03-10T00:00:00Z")), proto(at("2026-03-11T00:00:00Z")))
    );
    assert_eq!(found.runs_out_at, proto(at("2026-06-10T12:00:00Z")));
    world.assert_clean().await;
}

#[tokio::test]
async fn d35_a_team_that_owes_has_run_out() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, idle, producer) = (world.buyer(), world.buyer(), world.producer().await);
    world.settle(producer, vec![calls_at(buyer, 4, "2026-03-10T12:00:00Z")]).await;
    let found = forecast(&world, buyer, Some(0)).await.unwrap();
    assert_eq!((found.runs_out_at, found.lots.len()), (proto(at(NOW)), 0));
    let nothing = forecast(&world, idle, None).await.unwrap();
    assert_eq!((nothing.runs_out_at, nothing.rate_micros), (proto(at(NOW)), 0));
    let status = forecast(&world, buyer, Some(-1)).await.unwrap_err();
    let expected = (Code::InvalidArgument, "REQUEST_INVALID".to_owned(), vec!["micros_per_day".to_owned()]);
    assert_eq!(refusal(&status), expected);
    let unknown = Buyer { team: TeamId::generate(), ..buyer };
    assert_eq!(reason(forecast(&world, unknown, None).await), "TEAM_UNKNOWN");
    let foreign = Buyer { account: idle.account, ..buyer };
    assert_eq!(reason(forecast(&world, foreign, None).await), "TEAM_UNKNOWN");
}
