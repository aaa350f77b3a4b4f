//! D57, D9: the contract kind that decides about a price is that of the window, whenever usage comes to be charged.

use drawdown_ledger_core::ContractKind;
use drawdown_proto::ledger::v1::{self, InsteadUsage, RateCard};

use crate::{
    adoption::adopt,
    holds::{capture, reserve},
    review::charge,
    world::{Buyer, World, at, calls, calls_at, instead, nobody, price, proto},
};

const HOUR_MS: i64 = 3_600_000;
const MARCH: &str = "2026-03-01T00:00:00Z";

/// A call costs half a token by flex, a tenth by enterprise.
async fn both_kinds(world: &World) {
    world.priced().await;
    let enterprise = RateCard {
        rate_card_id: String::new(),
        name: "eba".to_owned(),
        contract_kind: v1::ContractKind::Enterprise.into(),
        effective_from: proto(at("2020-01-01T00:00:00Z")),
        prices: vec![price("call", 100_000, 1)],
    };
    world.publish_card(enterprise).await.unwrap();
}

/// Enterprise since March.
fn changed(world: &World) -> Buyer {
    let buyer = world.buyer();
    world.contract(buyer, ContractKind::Enterprise, Some(at(MARCH)));
    buyer
}

async fn amounts(world: &World, buyer: Buyer) -> Vec<i64> {
    world.charges(buyer).await.iter().map(|charge| charge.amount_micros).collect()
}

#[tokio::test]
async fn d57_a_correction_charges_at_the_kind_of_the_window() {
    let world = World::new().await;
    both_kinds(&world).await;
    let (buyer, producer) = (changed(&world), world.producer().await);
    world.settle(producer, vec![calls(buyer, 10)]).await;
    let first = world.charges(buyer).await.remove(0).charge_id;
    let mut charged = Vec::new();
    for window in ["2026-02-28T23:59:00Z", MARCH] {
        let usage = InsteadUsage { window_start: proto(at(window)), ..instead(1) };
        let answer = world.correct(buyer, &first, 1, Some(usage)).await.unwrap();
        charged.push(answer.instead.unwrap().amount_micros);
    }
    assert_eq!(charged, [500_000, 100_000]);
    world.assert_clean().await;
}

#[tokio::test]
async fn d57_a_decision_charges_at_the_kind_of_the_window() {
    let world = World::new().await;
    both_kinds(&world).await;
    let (buyer, producer) = (changed(&world), world.producer().await);
    let late = |window: &str| nobody(calls_at(buyer, 1, window), "late");
    world.settle(producer, vec![late("2026-02-28T23:59:00Z"), late(MARCH)]).await;
    let entries: Vec<i64> = world.unattributed().await.iter().map(|usage| usage.entry).collect();
    world.decide(charge(buyer, &entries)).await.unwrap();
    assert_eq!(amounts(&world, buyer).await, [500_000, 100_000]);
    world.assert_clean().await;
}

#[tokio::test]
async fn d49_d57_usage_is_adopted_at_the_kind_of_its_window() {
    let world = World::new().await;
    both_kinds(&world).await;
    let (buyer, producer) = (changed(&world), world.producer().await);
    let early = |window: &str| nobody(calls_at(buyer, 1, window), "no_team");
    world.settle(producer, vec![early("2026-02-28T23:59:00Z"), early(MARCH)]).await;
    world.adopted(adopt(buyer, "2020-01-01T00:00:00Z")).await.unwrap();
    assert_eq!(world.adopts(1000).await, 2);
    assert_eq!(amounts(&world, buyer).await, [500_000, 100_000]);
    world.assert_clean().await;
}

#[tokio::test]
async fn d45_d57_a_capture_is_charged_by_the_window_of_its_hold_and_after_the_time_out_by_its_own() {
    let world = World::begun_at(at("2026-02-28T23:59:30Z"), |_| {}).await;
    both_kinds(&world).await;
    let (buyer, trying) = (changed(&world), world.buyer());
    // A trial that ends with February, before its hold does.
    world.know(trying, Some(at("2025-12-01T00:00:00Z")), Some(at(MARCH)));
    let mut holds = Vec::new();
    for buyer in [buyer, trying] {
        world.grant(buyer, 20_000_000, None, "2026-06-01T00:00:00Z").await.unwrap();
        holds.push(reserve(&world, buyer, 10_000_000, 0, HOUR_MS).await.unwrap());
    }
    let mut charged = Vec::new();
    for captured_at in ["2026-03-01T00:10:00Z", "2026-03-01T01:10:00Z"] {
        world.clock.set(at(captured_at));
        for (buyer, hold) in [buyer, trying].into_iter().zip(&holds) {
            charged.push(capture(&world, buyer, hold, 1, false).await.unwrap().amount_micros);
        }
    }
    assert_eq!(charged, [500_000, 0, 100_000, 500_000]);
    world.assert_clean().await;
}
