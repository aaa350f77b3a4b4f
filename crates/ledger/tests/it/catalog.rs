//! Meters and rate cards.

use drawdown_proto::ledger::v1::{
    Aggregation, CreateMeterRequest, ListMetersRequest, ListRateCardsRequest, Meter, PublishRateCardRequest,
    RateCard, catalog_service_server::CatalogService,
};
use tonic::{Code, Request};

use crate::world::{World, at, calls, price, proto, reason, refusal, request_id};

#[tokio::test]
async fn a_meter_never_changes() {
    let world = World::new().await;
    let meter = world.meter("call", Aggregation::Count).await.unwrap();
    // The same again, under another request id, is no fault.
    assert_eq!(world.meter("call", Aggregation::Count).await.unwrap(), meter);
    let status = world.meter("call", Aggregation::Sum).await.unwrap_err();
    assert_eq!(
        refusal(&status),
        (Code::AlreadyExists, "METER_EXISTS".to_owned(), vec!["meter.slug".to_owned()])
    );
}

#[tokio::test]
async fn every_wrong_field_of_a_meter_is_named_at_once() {
    let world = World::new().await;
    let meter = Meter {
        slug: "Call".to_owned(),
        unit: String::new(),
        aggregation: 0,
        dimensions: vec!["a".to_owned(), "a".to_owned(), "B".to_owned()],
        limit: 9,
        ..Meter::default()
    };
    let request = CreateMeterRequest { meter: Some(meter), request_id: request_id() };
    let (_, reason, fields) = refusal(&world.catalog.create_meter(Request::new(request)).await.unwrap_err());
    assert_eq!(reason, "REQUEST_INVALID");
    let expected = [
        "meter.slug",
        "meter.unit",
        "meter.aggregation",
        "meter.limit",
        "meter.dimensions[1]",
        "meter.dimensions[2]",
    ];
    assert_eq!(fields, expected);
    let request = CreateMeterRequest { meter: None, request_id: "with space".to_owned() };
    let (_, _, fields) = refusal(&world.catalog.create_meter(Request::new(request)).await.unwrap_err());
    assert_eq!(fields, ["request_id", "meter"]);
}

#[tokio::test]
async fn d12_versions_follow_one_another() {
    let world = World::new().await;
    world.meter("call", Aggregation::Count).await.unwrap();
    let call = || vec![price("call", 1, 1)];
    // Now is 12:00:30; the lead of 5 s makes 12:01 the first edge.
    assert_eq!(
        reason(world.publish("web", "2026-03-10T12:00:00Z", call(), false).await),
        "RATE_CARD_TOO_EARLY"
    );
    let card = world.publish("web", "2026-03-10T12:00:31Z", call(), false).await.unwrap();
    assert_eq!(card.effective_from, proto(at("2026-03-10T12:01:00Z")));
    let again = world.publish("web", "2026-03-10T12:01:00Z", call(), false).await;
    assert_eq!(reason(again), "RATE_CARD_OUT_OF_ORDER");
    let earlier = world.publish("web", "2026-03-01T00:00:00Z", call(), true).await;
    assert_eq!(reason(earlier), "RATE_CARD_OUT_OF_ORDER");
    let elsewhere = world.publish("api", "2026-03-10T13:00:00Z", call(), false).await.unwrap_err();
    let field = vec!["rate_card.prices[0].meter".to_owned()];
    assert_eq!(refusal(&elsewhere), (Code::InvalidArgument, "METER_PRICED_ELSEWHERE".to_owned(), field));
    let unknown = vec![price("call", 1, 1), price("photo", 1, 1)];
    let unknown = world.publish("web", "2026-03-10T13:00:00Z", unknown, false).await.unwrap_err();
    let field = vec!["rate_card.prices[1].meter".to_owned()];
    assert_eq!(refusal(&unknown), (Code::InvalidArgument, "METER_UNKNOWN".to_owned(), field));
}

#[tokio::test]
async fn every_wrong_field_of_a_rate_card_is_named_at_once() {
    let world = World::new().await;
    let rate_card = RateCard {
        rate_card_id: "card_1".to_owned(),
        name: String::new(),
        contract_kind: 0,
        effective_from: None,
        prices: vec![price("Call", -1, 0)],
    };
    let request =
        PublishRateCardRequest { rate_card: Some(rate_card), set_up: true, request_id: request_id() };
    let (_, reason, fields) =
        refusal(&world.catalog.publish_rate_card(Request::new(request)).await.unwrap_err());
    assert_eq!(reason, "REQUEST_INVALID");
    let expected = [
        "rate_card.rate_card_id",
        "rate_card.name",
        "rate_card.contract_kind",
        "rate_card.effective_from",
        "rate_card.prices[0].meter",
        "rate_card.prices[0].micros",
        "rate_card.prices[0].per_units",
    ];
    assert_eq!(fields, expected);
}

#[tokio::test]
async fn without_an_instant_a_version_begins_as_soon_as_it_may() {
    let world = World::new().await;
    world.meter("call", Aggregation::Count).await.unwrap();
    let rate_card = RateCard {
        name: "web".to_owned(),
        contract_kind: 1,
        prices: vec![price("call", 1, 1)],
        ..RateCard::default()
    };
    let request =
        PublishRateCardRequest { rate_card: Some(rate_card), set_up: false, request_id: request_id() };
    let first = world.catalog.publish_rate_card(Request::new(request.clone())).await.unwrap().into_inner();
    assert_eq!(first.rate_card.as_ref().unwrap().effective_from, proto(at("2026-03-10T12:01:00Z")));
    let again = world.catalog.publish_rate_card(Request::new(request)).await.unwrap().into_inner();
    assert_eq!(first, again);
}

#[tokio::test]
async fn d61_a_price_of_settled_windows_can_not_be_set_up() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.settle(producer, vec![calls(buyer, 1)]).await;
    let settled = world.publish("web", "2026-03-10T12:00:00Z", vec![price("call", 1, 1)], true).await;
    assert_eq!(reason(settled), "WINDOW_SETTLED");
    let not_yet = world.publish("web", "2026-03-10T12:01:00Z", vec![price("call", 1, 1)], true).await;
    assert!(not_yet.is_ok());
}

#[tokio::test]
async fn lists_are_sorted_and_paged() {
    let world = World::new().await;
    for slug in ["b", "a-b", "a.b", "a", "c"] {
        world.meter(slug, Aggregation::Count).await.unwrap();
    }
    let (mut slugs, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListMetersRequest { page_size: 2, page_token };
        let answer = world.catalog.list_meters(Request::new(request)).await.unwrap().into_inner();
        slugs.extend(answer.meters.into_iter().map(|meter| meter.slug));
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(slugs, ["a", "a-b", "a.b", "b", "c"]);
    for (name, from) in
        [("y", "2026-01-01T00:00:00Z"), ("x", "2026-02-01T00:00:00Z"), ("x", "2026-01-01T00:00:00Z")]
    {
        let prices = if name == "y" { vec![price("a", 1, 1)] } else { vec![price("b", 1, 1)] };
        let outcome = world.publish(name, from, prices, true).await;
        assert_eq!(outcome.is_ok(), from != "2026-01-01T00:00:00Z" || name == "y");
    }
    world.publish("x", "2026-03-01T00:00:00Z", vec![price("b", 2, 1)], true).await.unwrap();
    let (mut cards, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListRateCardsRequest { page_size: 1, page_token };
        let answer = world.catalog.list_rate_cards(Request::new(request)).await.unwrap().into_inner();
        cards.extend(answer.rate_cards.into_iter().map(|card| (card.name, card.prices.len())));
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(cards, [("x".to_owned(), 1), ("x".to_owned(), 1), ("y".to_owned(), 1)]);
}
