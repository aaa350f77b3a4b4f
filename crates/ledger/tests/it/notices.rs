//! What others are told of a team: once a crossing, at its instant, in the transaction of its cause.

use std::{sync::Arc, time::Duration};

use drawdown_ledger::{config::DueConfig, jobs::due::Due};
use drawdown_proto::ledger::v1::{BelowZeroFact, Notice, NoticeFilter, NoticeKind, notice::Fact};

use crate::world::{Buyer, DAY, World, at, calls, calls_at, proto};

fn of(buyer: Buyer) -> Option<NoticeFilter> {
    Some(NoticeFilter { team_id: buyer.team.to_string(), ..NoticeFilter::default() })
}

/// A notice as a word or two.
fn word(notice: &Notice) -> String {
    match notice.fact.as_ref().unwrap() {
        Fact::LevelReached(level) => format!("{} %", level.percent),
        Fact::LotExpiring(lot) => format!("{} days", lot.days),
        Fact::DebtNetted(part) => format!("netted {}", part.debt_to_micros - part.debt_from_micros),
        Fact::LotClosed(lot) => format!("closed {}", lot.forfeited_micros),
        Fact::LotExpired(lot) => format!("expired {}", lot.left_micros),
        _ => notice.kind().as_str_name().trim_start_matches("NOTICE_KIND_").to_lowercase(),
    }
}

async fn words(world: &World, buyer: Buyer) -> Vec<String> {
    world.told(of(buyer)).await.iter().map(word).collect()
}

fn job(world: &World) -> Due {
    let config = DueConfig { interval: Duration::from_secs(3600), teams_max: 10, rounds_max: 9 };
    Due::new(Arc::clone(&world.ledger), config)
}

#[tokio::test]
async fn d32_each_crossing_is_told_once_in_order_of_posting() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, other, producer) = (world.buyer(), world.buyer(), world.producer().await);
    world.purchase(buyer, 100, None).await.unwrap();
    world.settle(producer, vec![calls(buyer, 90), calls(other, 1)]).await;
    assert_eq!(words(&world, buyer).await, ["lot_added"]);
    world.settle(producer, vec![calls(buyer, 80)]).await;
    world.settle(producer, vec![calls(buyer, 2)]).await;
    world.settle(producer, vec![calls(buyer, 40)]).await;
    world.settle(producer, vec![calls(buyer, 2)]).await;
    world.purchase(buyer, 100, None).await.unwrap();
    let told = world.told(of(buyer)).await;
    let expected = [
        "lot_added",
        "50 %",
        "20 %",
        "below_zero",
        "10 %",
        "0 %",
        "lot_added",
        "netted 7000000",
        "back_at_zero",
    ];
    assert_eq!(told.iter().map(word).collect::<Vec<_>>(), expected);
    let below = told.iter().find(|notice| notice.kind() == NoticeKind::BelowZero).unwrap();
    let fact = BelowZeroFact {
        lowest_micros: -6_000_000,
        balance_micros: -6_000_000,
        grace_deadline: proto(at("2026-03-24T12:01:00Z")),
    };
    assert_eq!(below.fact, Some(Fact::BelowZero(fact)));
    assert_eq!(
        (below.occurred_at, below.noted_at),
        (proto(at(crate::world::NOW)), proto(at(crate::world::NOW)))
    );
    // A team without tokens had nothing to fall from.
    assert_eq!(words(&world, other).await, ["below_zero"]);
    world.assert_clean().await;
}

#[tokio::test]
async fn time_alone_is_told_by_a_job_once_with_its_own_instant() {
    let world = World::new().await;
    let buyer = world.buyer();
    world.grant(buyer, 5_000_000, None, "2026-03-20T00:00:00Z").await.unwrap();
    world.clock.set(at("2026-03-12T23:59:59.999999Z"));
    assert_eq!(job(&world).look().await.unwrap(), 0);
    world.clock.set(at("2026-03-14T08:00:00Z"));
    let jobs = [job(&world), job(&world), job(&world), job(&world)];
    let looks = futures::future::join_all(jobs.iter().map(Due::look)).await;
    assert_eq!(looks.into_iter().map(Result::unwrap).sum::<usize>(), 1);
    assert_eq!(job(&world).look().await.unwrap(), 0);
    let told = world.told(of(buyer)).await;
    assert_eq!(told.iter().map(word).collect::<Vec<_>>(), ["lot_added", "7 days"]);
    assert_eq!(told[1].occurred_at, proto(at("2026-03-13T00:00:00Z")));
    assert_eq!(told[1].noted_at, proto(at("2026-03-14T08:00:00Z")));
    // Nobody looks for days: expiry, levels and close come at once, each at its own instant.
    world.clock.set(at("2026-04-01T00:00:00Z"));
    assert_eq!(job(&world).look().await.unwrap(), 1);
    assert_eq!(job(&world).look().await.unwrap(), 0);
    let told = world.told(of(buyer)).await;
    let expected = ["expired 5000000", "50 %", "20 %", "10 %", "0 %", "closed 5000000"];
    assert_eq!(told[2..].iter().map(word).collect::<Vec<_>>(), expected);
    assert!(told[2..7].iter().all(|notice| notice.occurred_at == proto(at("2026-03-20T00:00:00Z"))));
    assert_eq!(told[7].occurred_at, proto(at("2026-03-21T00:00:00Z")));
    world.assert_clean().await;
}

#[tokio::test]
async fn what_is_due_is_told_by_whoever_posts_first_with_what_was_left_then() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.grant(buyer, 5_000_000, None, "2026-03-17T13:00:00Z").await.unwrap();
    world.clock.set(at("2026-03-10T13:00:00Z"));
    world.settle(producer, vec![calls_at(buyer, 4, "2026-03-10T12:59:00Z")]).await;
    assert_eq!(job(&world).look().await.unwrap(), 0);
    let told = world.told(of(buyer)).await;
    let Some(Fact::LotExpiring(fact)) = &told[1].fact else { panic!("{told:?}") };
    assert_eq!((fact.days, fact.left_micros), (7, 5_000_000), "before the usage of the same instant");
    world.clock.advance(DAY);
    assert_eq!(words(&world, buyer).await, ["lot_added", "7 days"]);
}

#[tokio::test]
async fn a_post_that_finds_a_recovery_and_a_fall_tells_both_at_their_instants() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.settle(producer, vec![calls(buyer, 2)]).await;
    world.grant(buyer, 5_000_000, Some("2026-03-10T13:00:00Z"), "2026-04-10T00:00:00Z").await.unwrap();
    // No job ran when the lot started: the next batch finds that it paid, and spends what it left.
    world.clock.set(at("2026-03-10T14:00:00Z"));
    world.settle(producer, vec![calls_at(buyer, 20, "2026-03-10T13:59:00Z")]).await;
    let told = world.told(of(buyer)).await;
    let found: Vec<_> = told[2..].iter().map(|notice| (word(notice), notice.occurred_at)).collect();
    let (started, posted) = (proto(at("2026-03-10T13:00:00Z")), proto(at("2026-03-10T14:00:00Z")));
    let words = ["netted 1000000", "back_at_zero", "below_zero", "50 %", "20 %", "10 %", "0 %"];
    let instant = |place| if place < 2 { started } else { posted };
    let expected: Vec<_> =
        words.into_iter().enumerate().map(|(place, word)| (word.to_owned(), instant(place))).collect();
    assert_eq!(found, expected);
    assert_eq!(job(&world).look().await.unwrap(), 0);
    world.assert_clean().await;
}

#[tokio::test]
async fn a_debt_paid_line_by_line_is_one_fact_a_lot() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    // A lot granted now pays windows before it only as debt (D9): each line is owed and paid at once.
    world.grant(buyer, 50_000_000, None, "2027-01-01T00:00:00Z").await.unwrap();
    let windows = ["2026-03-10T11:50:00Z", "2026-03-10T11:51:00Z", "2026-03-10T11:52:00Z"];
    world.settle(producer, windows.map(|window| calls_at(buyer, 2, window)).to_vec()).await;
    assert_eq!(words(&world, buyer).await, ["lot_added", "netted 3000000"]);
    assert_eq!(world.journal(buyer).await.iter().filter(|row| row.kind == "netting").count(), 3);
}

#[tokio::test]
async fn what_is_rolled_back_is_not_told_and_a_repeated_batch_tells_nothing_new() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let batch = world.batch(crate::world::SHARD, producer, vec![calls(buyer, 2)]).await;
    for _ in 0..3 {
        world.post(&batch).await.unwrap();
    }
    let mut refused = world.batch(crate::world::SHARD, producer, vec![calls(buyer, 2)]).await;
    refused.number += 1;
    world.post(&refused).await.unwrap_err();
    assert_eq!(words(&world, buyer).await, ["below_zero"]);
}
