//! What becomes of lines: who pays, and what is kept for review.

use drawdown_proto::ledger::v1::{Line, PostBatchResponse, SumState, line};
use drawdown_types::{AccountId, AppId};

use crate::world::{Buyer, World, at, calls, calls_at, nobody, payer, price, proto, reason};

fn bytes(buyer: Buyer, quantity: i64) -> Line {
    let state = Some(line::State::Sum(SumState { quantity }));
    Line { meter: "byte".to_owned(), state, ..calls(buyer, 1) }
}

#[tokio::test]
async fn d14_charges_are_cumulative_whatever_the_split() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.purchase(buyer, 100, None).await.unwrap();
    let mut amounts = Vec::new();
    for quantity in [1, 1, 2997, 1] {
        // One token per 1000 bytes: a byte is 1000 micros.
        amounts.push(world.settle(producer, vec![bytes(buyer, quantity)]).await.amount_micros);
    }
    assert_eq!(amounts, [1000, 1000, 2_997_000, 1000]);
    let charges = world.charges(buyer).await;
    assert_eq!(charges.iter().map(|charge| charge.quantity).collect::<Vec<_>>(), [1, 1, 2997, 1]);
    assert!(
        charges.iter().all(|charge| charge.uncharged_micros == 0 && charge.price_id.starts_with("price_"))
    );
    let balance = world.balance(buyer).await;
    assert_eq!((balance.available_micros, balance.used_micros), (97_000_000, 3_000_000));
    world.assert_clean().await;
}

#[tokio::test]
async fn what_no_lot_covers_is_owed_and_netted_by_the_next_lot() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let posted = world.settle(producer, vec![calls(buyer, 202)]).await;
    assert_eq!(posted.amount_micros, 101_000_000);
    let owed = world.balance(buyer).await;
    assert_eq!((owed.balance_micros, owed.uncharged_micros), (-101_000_000, 101_000_000));
    assert_eq!(owed.negative_since, proto(at(crate::world::NOW)));
    world.purchase(buyer, 100, None).await.unwrap();
    let balance = world.balance(buyer).await;
    assert_eq!((balance.balance_micros, balance.available_micros), (-1_000_000, 0));
    assert_eq!(balance.negative_since, owed.negative_since);
    world.purchase(buyer, 100, None).await.unwrap();
    let balance = world.balance(buyer).await;
    assert_eq!((balance.balance_micros, balance.uncharged_micros), (99_000_000, 0));
    assert_eq!((balance.negative_since, balance.version), (None, 5));
    let kinds: Vec<_> = world.journal(buyer).await.into_iter().map(|row| row.kind).collect();
    assert_eq!(kinds, ["uncharged", "purchase", "netting", "purchase", "netting"]);
    world.assert_clean().await;
}

#[tokio::test]
async fn usage_nobody_pays_for_is_kept_beside_what_is_charged() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let late = Line {
        received_window_start: proto(at("2026-03-11T12:02:00Z")),
        ..calls_at(buyer, 5, "2026-03-10T12:00:00Z")
    };
    let in_time = Line { received_window_start: proto(at("2026-03-11T12:01:00Z")), ..late.clone() };
    let other_account = Buyer { account: AccountId::generate(), app: AppId::generate(), ..buyer };
    let wrong_kind = Line { meter: "byte".to_owned(), ..calls(buyer, 6) };
    let lines = vec![
        calls(buyer, 1),
        nobody(calls(buyer, 2), "unknown_client"),
        nobody(calls(buyer, 3), "no_team"),
        late,
        in_time,
        Line { failed: true, ..calls(buyer, 7) },
        calls(other_account, 4),
        wrong_kind,
    ];
    let posted = world.settle(producer, lines).await;
    assert_eq!((posted.charges, posted.unattributed), (3, 5));
    let mut left: Vec<_> =
        world.unattributed().await.into_iter().map(|usage| (usage.reason, usage.events)).collect();
    left.sort();
    let expected = [("late", 5), ("no_team", 3), ("poison", 4), ("poison", 6), ("unknown_client", 2)];
    assert_eq!(left, expected.map(|(reason, events)| (reason.to_owned(), events)));
    // A failed job of a card that says so costs nothing and enters no state.
    assert_eq!(world.balance(buyer).await.used_micros, 3_000_000);
    world.assert_clean().await;
}

#[tokio::test]
async fn usage_that_costs_nothing_is_recorded() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let in_trial = Line {
        attribution: Some(line::Attribution::Payer(drawdown_proto::ledger::v1::Payer {
            in_trial: true,
            ..payer(buyer)
        })),
        ..calls(buyer, 9)
    };
    let unpriced = Line { meter: "photo".to_owned(), ..calls(buyer, 8) };
    let posted = world.settle(producer, vec![in_trial, unpriced]).await;
    assert_eq!((posted.charges, posted.amount_micros), (2, 0));
    let charges = world.charges(buyer).await;
    assert!(charges.iter().all(|charge| charge.price_id.is_empty() && charge.journal_seq == 0));
    assert_eq!(charges.iter().map(|charge| charge.quantity).sum::<i64>(), 17);
    world.assert_clean().await;
}

#[tokio::test]
async fn a_price_changes_at_its_edge_and_the_unchanged_one_goes_on() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let prices = vec![price("call", 2_000_000, 1), price("byte", 1_000_000, 1000)];
    world.publish("web", "2026-03-10T12:01:00Z", prices, true).await.unwrap();
    world.clock.set(at("2026-03-10T12:02:10Z"));
    let after = |line: Line| Line { window_start: proto(at("2026-03-10T12:01:00Z")), ..line };
    let posted = world
        .settle(
            producer,
            vec![
                calls(buyer, 1),
                after(calls(buyer, 1)),
                bytes(buyer, 1),
                Line { received_window_start: proto(at("2026-03-10T12:01:00Z")), ..after(bytes(buyer, 1)) },
            ],
        )
        .await;
    assert_eq!(posted.amount_micros, 500_000 + 2_000_000 + 1000 + 1000);
    let mut ids: Vec<_> =
        world.charges(buyer).await.into_iter().map(|charge| (charge.meter, charge.price_id)).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.iter().map(|(meter, _)| meter.as_str()).collect::<Vec<_>>(), ["byte", "call", "call"]);
    world.assert_clean().await;
}

#[tokio::test]
async fn sub_batches_change_nothing_but_the_number_of_statements() {
    let mut outcomes = Vec::new();
    for sub_batch_lines in [1, 7, 5000] {
        let world = World::with(|options| {
            options.sub_batch_lines = drawdown_service::config::Count::of(sub_batch_lines);
        })
        .await;
        world.priced().await;
        let producer = world.producer().await;
        let buyers: Vec<_> = (0..5).map(|_| world.buyer()).collect();
        for buyer in &buyers {
            world.purchase(*buyer, 100, None).await.unwrap();
        }
        let lines: Vec<Line> = (0..40_usize)
            .flat_map(|n| {
                let buyer = buyers[n % buyers.len()];
                [calls(buyer, n as u64 + 1), bytes(buyer, n as i64 * 777)]
            })
            .collect();
        let posted = world.settle(producer, lines).await;
        world.assert_clean().await;
        let mut sums = Vec::new();
        for buyer in buyers {
            let balance = world.balance(buyer).await;
            sums.push((balance.used_micros, balance.uncharged_micros, balance.version));
        }
        outcomes.push((posted.charges, posted.amount_micros, sums));
    }
    assert_eq!(outcomes[0], outcomes[1]);
    assert_eq!(outcomes[0], outcomes[2]);
}

#[tokio::test]
async fn a_team_that_can_not_be_posted_to_is_set_apart_once() {
    let world = World::new().await;
    world.priced().await;
    let (producer, healthy, sick) = (world.producer().await, world.buyer(), world.buyer());
    world.settle(producer, vec![calls(healthy, 1), calls(sick, 1)]).await;
    // A row that no rule allows: whatever is written on it breaks a constraint.
    let sql = format!(
        "alter table ledger.balance add constraint sick check (team_id <> '{}' or consumed_micros < 600000)",
        sick.team.as_uuid()
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(world.database.pool()).await.unwrap();
    let posted = world.settle(producer, vec![calls(healthy, 2), calls(sick, 3)]).await;
    let PostBatchResponse { charges, unattributed, amount_micros, .. } = posted;
    assert_eq!((charges, unattributed, amount_micros), (1, 1, 1_000_000));
    let left = world.unattributed().await;
    assert_eq!((left[0].reason.as_str(), left[0].events), ("poison", 3));
    assert_eq!(world.balance(healthy).await.used_micros, 1_500_000);
    world.assert_clean().await;
}

#[tokio::test]
async fn amounts_that_do_not_fit_go_to_review() {
    let world = World::new().await;
    world.meter("gold", drawdown_proto::ledger::v1::Aggregation::Sum).await.unwrap();
    world.publish("gold", "2020-01-01T00:00:00Z", vec![price("gold", i64::MAX, 1)], true).await.unwrap();
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let gold = |quantity| Line { meter: "gold".to_owned(), ..bytes(buyer, quantity) };
    let posted = world.settle(producer, vec![gold(1), gold(2)]).await;
    assert_eq!((posted.charges, posted.unattributed), (1, 1));
    assert_eq!(world.unattributed().await[0].reason, "overflow");
    world.assert_clean().await;
}

#[tokio::test]
async fn d61_the_guard_of_set_up_knows_what_is_settled() {
    use drawdown_proto::ledger::v1::{
        HasSettledUsageRequest, settlement_service_server::SettlementService as _,
    };
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.settle(producer, vec![calls(buyer, 1)]).await;
    let client = calls(buyer, 1).client_id;
    let ask = async |client_ids: Vec<String>, team_id: String, from: &str| {
        let request = HasSettledUsageRequest { client_ids, team_id, from: proto(at(from)) };
        world.settlement.has_settled_usage(tonic::Request::new(request)).await.unwrap().into_inner().settled
    };
    assert!(ask(vec![client.clone()], String::new(), "2026-03-10T12:00:00Z").await);
    assert!(!ask(vec![client], String::new(), "2026-03-10T12:01:00Z").await);
    assert!(!ask(vec!["other".to_owned()], String::new(), "2026-03-10T12:00:00Z").await);
    assert!(ask(Vec::new(), buyer.team.to_string(), "2026-03-10T12:00:00Z").await);
    assert!(!ask(Vec::new(), world.buyer().team.to_string(), "2020-03-10T12:00:00Z").await);
    let request = HasSettledUsageRequest { client_ids: Vec::new(), team_id: String::new(), from: None };
    assert_eq!(
        reason(world.settlement.has_settled_usage(tonic::Request::new(request)).await),
        "REQUEST_INVALID"
    );
}

#[tokio::test]
async fn d8_the_debt_of_an_app_that_moved_stays_with_its_old_team() {
    let world = World::new().await;
    world.priced().await;
    let (old, producer) = (world.buyer(), world.producer().await);
    // The same app, with the same client id, in another team of the account from the next window on.
    let new = Buyer { app: old.app, ..world.sibling(old) };
    let moved = Line { client_id: calls(old, 1).client_id, ..calls(new, 6) };
    world.settle(producer, vec![calls(old, 4)]).await;
    world.settle(producer, vec![moved]).await;
    let owed = async || [world.balance(old).await.balance_micros, world.balance(new).await.balance_micros];
    assert_eq!(owed().await, [-2_000_000, -3_000_000]);
    // What the new team buys pays what it owes itself, and nothing that the app left behind.
    world.purchase(new, 100, None).await.unwrap();
    assert_eq!(owed().await, [-2_000_000, 97_000_000]);
    // Usage of before that comes late is the old team's too.
    world.settle(producer, vec![calls_at(old, 2, "2026-03-10T11:59:00Z")]).await;
    assert_eq!(owed().await, [-3_000_000, 97_000_000]);
    world.purchase(old, 100, None).await.unwrap();
    assert_eq!(owed().await, [97_000_000, 97_000_000]);
    world.assert_clean().await;
}
