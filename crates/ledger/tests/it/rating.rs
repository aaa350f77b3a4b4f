//! Prices of every shape and meters of every aggregation, from a published card to the stored states.

use drawdown_proto::ledger::v1::{
    Aggregation, AggregationPeriod, CreateMeterRequest, Line, Meter, Price, PriceTier,
    PublishRateCardRequest, RateCard, catalog_service_server::CatalogService as _, line,
};
use tonic::{Code, Request};

use crate::world::{
    Buyer, SHARD, World, at, distinct, largest, payer, price, proto, refusal, request_id, sum, usage_at,
};

impl World {
    /// A meter and a price of every shape, and usage of each that fits it.
    pub(crate) async fn shapes(&self) -> Vec<(&'static str, line::State)> {
        let (day, month, none) =
            (AggregationPeriod::Day, AggregationPeriod::Month, AggregationPeriod::Unspecified);
        for (slug, aggregation, period, unique) in [
            ("automation", Aggregation::Sum, none, ""),
            ("graduated", Aggregation::Sum, none, ""),
            ("allowance", Aggregation::Sum, none, ""),
            ("preview", Aggregation::Sum, none, ""),
            ("peak", Aggregation::Max, day, ""),
            ("seat", Aggregation::Unique, day, "user"),
            ("monthly-seat", Aggregation::Unique, month, "user"),
        ] {
            self.meter_by(slug, aggregation, period, unique).await.unwrap();
        }
        self.publish("shapes", "2020-01-01T00:00:00Z", shapes(), true).await.unwrap();
        vec![
            ("automation", sum(1_500)),
            ("graduated", sum(15)),
            ("allowance", sum(80)),
            ("preview", sum(7)),
            ("peak", largest(5)),
            ("seat", distinct(&["ann", "bob"])),
            ("monthly-seat", distinct(&["ann"])),
        ]
    }

    /// Settles one line and gives what it cost, in micro-tokens.
    async fn cost(&self, buyer: Buyer, meter: &str, state: line::State, window: &str) -> i64 {
        let producer = self.producer().await;
        self.settle(producer, vec![usage_at(buyer, meter, state, window)]).await.amount_micros
    }
}

fn shapes() -> Vec<Price> {
    let tiers = vec![PriceTier { above: 10, micros: 50 }, PriceTier { above: 20, micros: 10 }];
    vec![
        Price { charged_unit: Some(1_200), ..price("automation", 3_000_000, 3_600) },
        Price { tiers, ..price("graduated", 100, 3) },
        Price { free_quota: 100, ..price("allowance", 1_000, 1) },
        Price { free_quota: 10, free_only: true, ..price("preview", 0, 1) },
        price("peak", 1_000, 1),
        price("seat", 1_000_000, 1),
        price("monthly-seat", 1_000_000, 1),
    ]
}

async fn states(world: &World) -> Vec<(String, String, i64)> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "select meter, to_char(cycle at time zone 'UTC', 'YYYY-MM'), quantity from ledger.usage_state order by 1, 2",
    )
    .fetch_all(world.database.pool())
    .await
    .unwrap();
    rows
}

#[tokio::test]
async fn a_card_of_every_shape_is_kept_as_it_was_published() {
    let world = World::new().await;
    world.shapes().await;
    let request = drawdown_proto::ledger::v1::ListRateCardsRequest::default();
    let cards = world.catalog.list_rate_cards(Request::new(request)).await.unwrap().into_inner();
    let mut expected = shapes();
    expected.sort_by(|a, b| a.meter.cmp(&b.meter));
    assert_eq!(cards.rate_cards[0].prices, expected);
}

#[tokio::test]
async fn d15_a_unit_rolls_over_the_months_end_and_late_usage_goes_on_where_all_stands() {
    let world = World::new().await;
    world.shapes().await;
    let buyer = world.buyer();
    let cost = async |seconds, window| world.cost(buyer, "automation", sum(seconds), window).await;
    world.clock.set(at("2026-04-01T00:10:00Z"));
    assert_eq!(cost(3_000, "2026-03-31T23:58:00Z").await, 2_000_000, "50 minutes: two units");
    assert_eq!(cost(599, "2026-04-01T00:00:00Z").await, 0);
    assert_eq!(cost(1, "2026-04-01T00:01:00Z").await, 1_000_000, "10 minutes of March, 10 of April");
    assert_eq!(cost(1_199, "2026-03-31T23:59:00Z").await, 0, "late usage of March");
    assert_eq!(cost(1, "2026-04-01T00:02:00Z").await, 1_000_000);
    let row = |cycle: &str, quantity| ("automation".to_owned(), cycle.to_owned(), quantity);
    assert_eq!(states(&world).await, [row("0001-01", 4_800), row("2026-03", 4_199), row("2026-04", 601)]);
    world.assert_clean().await;
}

#[tokio::test]
async fn d16_d17_quotas_and_tiers_count_by_the_month() {
    let world = World::new().await;
    world.shapes().await;
    let buyer = world.buyer();
    let window = "2026-03-10T12:00:00Z";
    let cost = async |meter: &'static str, units| world.cost(buyer, meter, sum(units), window).await;
    assert_eq!([cost("allowance", 99).await, cost("allowance", 3).await], [0, 2_000]);
    // 10 at 100/3, then 10 at 50/3, then 10/3 each; rounded down once, as a whole.
    assert_eq!([cost("graduated", 11).await, cost("graduated", 10).await], [350, 153]);
    assert_eq!([cost("preview", 10).await, cost("preview", 1).await], [0, 0]);
    let told: Vec<(i64, Option<String>)> =
        sqlx::query_as("select quantity, zero_rated from ledger.charge where meter = 'preview' order by seq")
            .fetch_all(world.database.pool())
            .await
            .unwrap();
    assert_eq!(told, [(10, None), (1, Some("over_quota".to_owned()))]);
    world.assert_clean().await;
}

#[tokio::test]
async fn d19_largest_and_distinct_values_are_charged_once_a_period_whatever_the_split() {
    let world = World::new().await;
    world.shapes().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let line = |meter: &str, state, window: &str| usage_at(buyer, meter, state, window);
    let (noon, next) = ("2026-03-10T12:00:00Z", "2026-03-11T00:00:00Z");
    let first = vec![
        line("peak", largest(5), noon),
        line("peak", largest(4), "2026-03-10T11:59:00Z"),
        line("seat", distinct(&["ann", "bob"]), noon),
        line("monthly-seat", distinct(&["ann", "bob"]), noon),
    ];
    assert_eq!(world.settle(producer, first).await.amount_micros, 5_000 + 4_000_000);
    world.clock.set(at("2026-03-11T00:05:00Z"));
    let second = vec![
        line("peak", largest(7), noon),
        line("peak", largest(2), next),
        line("seat", distinct(&["bob", "cid", ""]), noon),
        line("seat", distinct(&["ann"]), next),
        line("monthly-seat", distinct(&["bob"]), next),
        line("monthly-seat", distinct(&[]), next),
    ];
    assert_eq!(world.settle(producer, second).await.amount_micros, 4_000 + 3_000_000);
    let row = |meter: &str, quantity| (meter.to_owned(), "2026-03".to_owned(), quantity);
    assert_eq!(states(&world).await, [row("monthly-seat", 2), row("peak", 9), row("seat", 5)]);
    world.assert_clean().await;
}

#[tokio::test]
async fn d19_more_distinct_values_than_allowed_go_to_review_with_their_values() {
    let world =
        World::with(|options| options.unique_values_max = drawdown_service::config::Count::of(2)).await;
    world.shapes().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let noon = "2026-03-10T12:00:00Z";
    let lines = vec![
        usage_at(buyer, "seat", distinct(&["ann"]), "2026-03-10T11:00:00Z"),
        usage_at(buyer, "seat", distinct(&["bob", "cid"]), noon),
        usage_at(buyer, "peak", largest(1), noon),
    ];
    let posted = world.settle(producer, lines).await;
    assert_eq!((posted.charges, posted.unattributed, posted.amount_micros), (2, 1, 1_001_000));
    let kept: (String, Vec<Vec<u8>>) =
        sqlx::query_as("select reason, distinct_values from ledger.unattributed")
            .fetch_one(world.database.pool())
            .await
            .unwrap();
    assert_eq!(kept, ("overflow".to_owned(), vec![b"bob".to_vec(), b"cid".to_vec()]));
    world.assert_clean().await;
}

#[tokio::test]
async fn zero_rated_usage_of_such_meters_enters_no_state_but_keeps_its_values() {
    let world = World::new().await;
    world.shapes().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let noon = "2026-03-10T12:00:00Z";
    let trial =
        line::Attribution::Payer(drawdown_proto::ledger::v1::Payer { in_trial: true, ..payer(buyer) });
    let lines = vec![
        Line { failed: true, ..usage_at(buyer, "seat", distinct(&["ann"]), noon) },
        Line { attribution: Some(trial), ..usage_at(buyer, "automation", sum(5_000), noon) },
    ];
    assert_eq!(world.settle(producer, lines).await.amount_micros, 0);
    assert_eq!(states(&world).await, []);
    let kept: i64 = sqlx::query_scalar("select count(*) from ledger.charge_values")
        .fetch_one(world.database.pool())
        .await
        .unwrap();
    assert_eq!(kept, 1);
    world.assert_clean().await;
}

#[tokio::test]
async fn a_line_of_another_kind_than_its_meter_and_bad_values_are_told_apart() {
    let world = World::new().await;
    world.shapes().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let noon = "2026-03-10T12:00:00Z";
    let lines = vec![usage_at(buyer, "seat", largest(1), noon), usage_at(buyer, "peak", sum(1), noon)];
    assert_eq!(world.settle(producer, lines).await.unattributed, 2);
    let reasons: Vec<_> = world.unattributed().await.into_iter().map(|usage| usage.reason).collect();
    assert_eq!(reasons, ["poison", "poison"]);
    let long = "v".repeat(129);
    for values in [&["ann", "ann"][..], &[long.as_str()]] {
        let lines = vec![usage_at(buyer, "seat", distinct(values), noon)];
        let batch = world.batch(SHARD, producer, lines).await;
        let (code, _, fields) = refusal(&world.post(&batch).await.unwrap_err());
        assert_eq!((code, fields), (Code::InvalidArgument, vec!["lines[0].unique.values".to_owned()]));
    }
    world.assert_clean().await;
}

#[tokio::test]
async fn d47_what_counts_by_the_month_is_published_for_a_months_beginning_only() {
    let world = World::new().await;
    world.shapes().await;
    let mut changed = shapes();
    changed[2].free_quota = 50;
    changed.remove(0);
    let refused = world.publish("shapes", "2026-03-11T00:00:00Z", changed.clone(), false).await.unwrap_err();
    let fields = vec!["rate_card.prices[1].meter".to_owned(), "rate_card.prices".to_owned()];
    assert_eq!(refusal(&refused), (Code::InvalidArgument, "PRICE_INSIDE_MONTH".to_owned(), fields));
    let taken = world.publish("shapes", "2026-04-01T00:00:00Z", changed, false).await.unwrap();
    assert_eq!(taken.effective_from, proto(at("2026-04-01T00:00:00Z")));
}

#[tokio::test]
async fn every_wrong_field_of_terms_and_of_aggregations_is_named_at_once() {
    let world = World::new().await;
    world.shapes().await;
    let tiers = vec![PriceTier { above: 5, micros: -1 }, PriceTier { above: 5, micros: 1 }];
    let prices = vec![
        Price { tiers, charged_unit: Some(0), free_quota: -1, ..price("graduated", 1, 1) },
        Price { free_only: true, ..price("preview", 1, 1) },
    ];
    let rate_card = RateCard {
        name: "shapes".to_owned(),
        contract_kind: 1,
        effective_from: proto(at("2026-04-01T00:00:00Z")),
        prices,
        ..RateCard::default()
    };
    let request =
        PublishRateCardRequest { rate_card: Some(rate_card), set_up: false, request_id: request_id() };
    let (_, reason, fields) =
        refusal(&world.catalog.publish_rate_card(Request::new(request)).await.unwrap_err());
    assert_eq!(reason, "REQUEST_INVALID");
    let expected = [
        "rate_card.prices[0].tiers[0].micros",
        "rate_card.prices[0].tiers[1].above",
        "rate_card.prices[0].charged_unit",
        "rate_card.prices[0].charged_unit",
        "rate_card.prices[0].free_quota",
        "rate_card.prices[1].free_only",
        "rate_card.prices[1].free_only",
    ];
    assert_eq!(fields, expected);
    let meter = |aggregation: Aggregation, period, unique: &str| Meter {
        slug: "new".to_owned(),
        unit: "unit".to_owned(),
        aggregation: aggregation.into(),
        dimensions: vec!["user".to_owned()],
        period,
        unique_dimension: unique.to_owned(),
        ..Meter::default()
    };
    for (meter, fields) in [
        (meter(Aggregation::Unique, 0, ""), &["meter.period", "meter.unique_dimension"][..]),
        (meter(Aggregation::Unique, 1, "region"), &["meter.unique_dimension"]),
        (meter(Aggregation::Max, 9, "user"), &["meter.period", "meter.unique_dimension"]),
        (meter(Aggregation::Sum, 1, ""), &["meter.period"]),
    ] {
        let request = CreateMeterRequest { meter: Some(meter), request_id: request_id() };
        let refused = world.catalog.create_meter(Request::new(request)).await.unwrap_err();
        assert_eq!(refusal(&refused).2, fields);
    }
}
