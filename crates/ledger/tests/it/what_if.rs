//! A past month by other prices: the same prices give what was charged, and nothing is touched.

use drawdown_ledger::grpc::WhatIf;
use drawdown_proto::ledger::v1::{
    ContractKind, Line, MeterWhatIf, Price, PriceDraft, PriceMonthRequest, PriceMonthResponse, WhatIfNote,
    price_month_request::{By, Scope},
    what_if_service_server::WhatIfService as _,
};
use tonic::{Request, Status};

use crate::world::{Buyer, World, at, calls_at, distinct, largest, price, proto, refusal, sum, usage_at};

pub(crate) async fn ask(world: &World, scope: Scope, by: By) -> Result<PriceMonthResponse, Status> {
    let month = proto(at("2026-03-31T23:00:00Z"));
    let request = PriceMonthRequest { scope: Some(scope), month, by: Some(by) };
    let answer = WhatIf::new(std::sync::Arc::clone(&world.ledger)).price_month(Request::new(request)).await?;
    Ok(answer.into_inner())
}

async fn draft(world: &World, buyer: Buyer, prices: Vec<Price>) -> PriceMonthResponse {
    let scope = Scope::TeamId(buyer.team.to_string());
    ask(world, scope, By::Draft(PriceDraft { prices })).await.unwrap()
}

fn meter<'a>(answer: &'a PriceMonthResponse, slug: &str) -> &'a MeterWhatIf {
    answer.meters.iter().find(|meter| meter.meter == slug).unwrap()
}

/// Usage of every shape over three days of March and one of April, with failed jobs.
async fn used(world: &World, buyer: Buyer) {
    world.priced().await;
    let shapes = world.shapes().await;
    let producer = world.producer().await;
    world.clock.set(at("2026-04-02T00:00:00Z"));
    for window in
        ["2026-02-28T23:59:00Z", "2026-03-01T00:00:00Z", "2026-03-10T12:00:00Z", "2026-04-01T00:00:00Z"]
    {
        let lines = shapes.iter().map(|(meter, state)| usage_at(buyer, meter, state.clone(), window));
        let failed = Line { failed: true, ..calls_at(buyer, 9, window) };
        let lines = lines.chain([calls_at(buyer, 7, window), failed]);
        world.settle(producer, lines.collect()).await;
    }
}

#[tokio::test]
async fn the_same_prices_give_exactly_what_was_charged() {
    let world = World::new().await;
    let buyer = world.buyer();
    used(&world, buyer).await;
    let scope = || Scope::TeamId(buyer.team.to_string());
    let answer = ask(&world, scope(), By::InForce(ContractKind::Flex.into())).await.unwrap();
    let charged = world.charges(buyer).await;
    let march = |charge: &&drawdown_proto::ledger::v1::Charge| {
        let second = |text: &str| at(text).as_micros() / 1_000_000;
        let seconds = charge.window_start.unwrap().seconds;
        (second("2026-03-01T00:00:00Z")..second("2026-04-01T00:00:00Z")).contains(&seconds)
    };
    let charged: i64 = charged.iter().filter(march).map(|charge| charge.amount_micros).sum();
    assert_eq!((answer.cost_micros, answer.would_cost_micros), (charged, Some(charged)));
    assert_eq!(answer.meters.len(), 8);
    for meter in &answer.meters {
        assert_eq!(meter.would_cost_micros, Some(meter.cost_micros), "{}", meter.meter);
        assert_eq!(meter.difference_micros, Some(0));
        let carried = meter.meter == "automation";
        assert_eq!(meter.notes == [i32::from(WhatIfNote::CarriedOver)], carried);
    }
    // 300 s of February are left over: with the 3,000 s of March they are two units and 900 s.
    assert_eq!(meter(&answer, "automation").cost_micros, 2_000_000);
    assert_eq!(
        (answer.from, answer.to),
        (proto(at("2026-03-01T00:00:00Z")), proto(at("2026-04-01T00:00:00Z")))
    );
    let account = Scope::AccountId(buyer.account.to_string());
    assert_eq!(ask(&world, account, By::InForce(ContractKind::Flex.into())).await.unwrap(), answer);
    world.assert_clean().await;
}

#[tokio::test]
async fn usage_that_was_posted_before_its_month_began_is_of_its_month() {
    let world = World::begun_at(at("2026-02-28T12:00:00Z"), |_| {}).await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    // A clock that is twelve hours ahead.
    world.settle(producer, vec![calls_at(buyer, 7, "2026-03-01T00:00:00Z")]).await;
    world.clock.set(at("2026-04-02T00:00:00Z"));
    let scope = Scope::TeamId(buyer.team.to_string());
    let answer = ask(&world, scope, By::InForce(ContractKind::Flex.into())).await.unwrap();
    assert_eq!((answer.cost_micros, answer.would_cost_micros), (3_500_000, Some(3_500_000)));
}

/// What every table holds: how many rows, and a digest of them.
async fn tables(world: &World) -> Vec<(String, i64, String)> {
    let names = "select relname::text from pg_class where relnamespace = 'ledger'::regnamespace
        and relkind in ('r', 'p') and not relispartition order by 1";
    let names: Vec<String> = sqlx::query_scalar(names).fetch_all(world.database.pool()).await.unwrap();
    let mut tables = Vec::new();
    for name in names {
        let digest = format!(
            "select count(*), coalesce(md5(string_agg(t::text, e'\\n' order by t::text)), '') from ledger.{name} t"
        );
        let digest = sqlx::query_as(sqlx::AssertSqlSafe(digest)).fetch_one(world.database.pool()).await;
        let (rows, digest): (i64, String) = digest.unwrap();
        tables.push((name, rows, digest));
    }
    tables
}

#[tokio::test]
async fn a_what_if_changes_no_row_of_any_table() {
    let world = World::new().await;
    let buyer = world.buyer();
    used(&world, buyer).await;
    let before = tables(&world).await;
    let rows = |name: &str| before.iter().find(|(table, ..)| table == name).map_or(0, |(_, rows, _)| *rows);
    assert!(["charge", "journal", "usage_state", "balance"].iter().all(|name| rows(name) > 0), "{before:?}");
    let scopes = [Scope::TeamId(buyer.team.to_string()), Scope::AccountId(buyer.account.to_string())];
    for scope in scopes {
        for by in [
            By::InForce(ContractKind::Flex.into()),
            By::Draft(PriceDraft { prices: vec![price("call", 10, 1), price("seat", 10, 1)] }),
        ] {
            ask(&world, scope.clone(), by).await.unwrap();
        }
    }
    assert_eq!(tables(&world).await, before);
}

#[tokio::test]
async fn other_prices_are_put_to_the_months_quantity() {
    let world = World::new().await;
    let buyer = world.buyer();
    used(&world, buyer).await;
    let prices = vec![
        Price { failed_is_free: false, ..price("call", 10, 1) },
        Price { free_quota: 150, ..price("allowance", 5_000, 1) },
        price("seat", 10, 1),
        price("peak", 7, 1),
        price("graduated", i64::MAX, 1),
        Price { charged_unit: Some(2_000), ..price("automation", 1, 1) },
    ];
    let before = world.journal(buyer).await;
    let answer = draft(&world, buyer, prices).await;
    let would = |slug: &str| meter(&answer, slug).would_cost_micros;
    // Failed calls cost something here: 14 and 18.
    assert_eq!((would("call"), meter(&answer, "call").quantity), (Some(320), 32));
    assert_eq!(would("allowance"), Some(50_000));
    assert_eq!((would("seat"), would("peak")), (Some(40), Some(70)), "two days");
    assert_eq!(would("automation"), Some(2_000), "a price of its own begins with nothing");
    let notes = |slug: &str| meter(&answer, slug).notes().collect::<Vec<_>>();
    assert_eq!((would("graduated"), notes("graduated")), (None, vec![WhatIfNote::DoesNotFit]));
    assert_eq!((would("preview"), notes("preview")), (Some(0), vec![WhatIfNote::Unpriced]));
    assert_eq!(answer.would_cost_micros, None, "a sum with a hole is no sum");
    assert_eq!(world.journal(buyer).await, before);
}

#[tokio::test]
async fn what_entered_no_state_can_be_priced_by_a_card_that_charges_it() {
    let world = World::new().await;
    world.shapes().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let window = "2026-03-10T12:00:00Z";
    let failed = |meter: &str, state| Line { failed: true, ..usage_at(buyer, meter, state, window) };
    let lines = vec![
        usage_at(buyer, "seat", distinct(&["ann", "bob"]), window),
        failed("seat", distinct(&["bob", "cid"])),
        usage_at(buyer, "peak", largest(3), window),
        failed("peak", largest(8)),
        usage_at(buyer, "never-heard-of", sum(5), window),
    ];
    world.settle(producer, lines).await;
    let charging = |meter: &str| Price { failed_is_free: false, ..price(meter, 1, 1) };
    let prices = ["seat", "peak", "never-heard-of"].map(charging).to_vec();
    let answer = draft(&world, buyer, prices).await;
    let would = |slug: &str| meter(&answer, slug).would_cost_micros;
    assert_eq!((would("seat"), would("peak"), would("never-heard-of")), (Some(3), Some(8), Some(5)));
}

#[tokio::test]
async fn a_price_that_changed_inside_the_month_is_priced_by_its_parts() {
    let world = World::new().await;
    world.priced().await;
    world.publish("web", "2026-03-10T12:02:00Z", vec![price("call", 1, 3)], true).await.unwrap();
    world.clock.set(at("2026-03-10T12:10:00Z"));
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let lines = vec![
        calls_at(buyer, 3, "2026-03-10T12:01:00Z"),
        calls_at(buyer, 4, "2026-03-10T12:02:00Z"),
        calls_at(buyer, 1, "2026-03-10T12:05:00Z"),
    ];
    assert_eq!(world.settle(producer, lines).await.amount_micros, 1_500_001);
    let scope = || Scope::TeamId(buyer.team.to_string());
    let same = ask(&world, scope(), By::InForce(ContractKind::Flex.into())).await.unwrap();
    assert_eq!(same.would_cost_micros, Some(1_500_001));
    let enterprise = ask(&world, scope(), By::InForce(ContractKind::Enterprise.into())).await.unwrap();
    assert_eq!(enterprise.would_cost_micros, Some(0));
    assert_eq!(enterprise.meters[0].notes, [i32::from(WhatIfNote::Unpriced)]);
}

#[tokio::test]
async fn bad_questions_are_refused_with_every_field() {
    let world = World::new().await;
    let empty = WhatIf::new(std::sync::Arc::clone(&world.ledger))
        .price_month(Request::new(PriceMonthRequest::default()))
        .await
        .unwrap_err();
    assert_eq!(refusal(&empty).2, ["scope", "month", "by"]);
    let scope = || Scope::TeamId(world.buyer().team.to_string());
    let card = drawdown_types::RateCardId::generate().to_string();
    let unknown = ask(&world, scope(), By::RateCardId(card)).await.unwrap_err();
    assert_eq!(refusal(&unknown).1, "RATE_CARD_UNKNOWN");
    let twice = vec![price("a", 1, 1), price("a", 1, 1), Price { per_units: 0, ..price("b", 1, 1) }];
    let twice = ask(&world, scope(), By::Draft(PriceDraft { prices: twice })).await.unwrap_err();
    assert_eq!(refusal(&twice).2, ["draft.prices[2].per_units", "draft.prices[1].meter"]);
    let nothing = ask(&world, scope(), By::Draft(PriceDraft { prices: vec![price("a", 1, 1)] })).await;
    assert_eq!(nothing.unwrap().meters, [], "a team that never used anything");
}
