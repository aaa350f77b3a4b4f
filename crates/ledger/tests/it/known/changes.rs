//! Whatever happens between two posts: they end as those of a process that remembers nothing.

use std::{sync::Arc, time::Duration};

use drawdown_ledger::{config::DueConfig, grpc::Imports, jobs::due::Due};
use drawdown_proto::ledger::v1::{
    GrantTokensRequest, Holdings, PoolKind, import_service_server::ImportService,
    token_service_server::TokenService,
};
use tonic::Request;

use super::{Scene, TOKEN, WINDOW, is_known, lines};
use crate::{
    holds::{capture, extend, release, reserve},
    imports, lots,
    world::{DAY, SHARD, at, batch, proto, request_id},
};

const HOUR_MS: i64 = 3_600_000;

/// What happens between two posts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    Purchase,
    Grant,
    GrantForLater,
    GrantThatLeavesOlderDebts,
    Reserve,
    ReserveAndExtend,
    ReserveAndRelease,
    Capture,
    HoldTimesOut,
    LotExpires,
    BudgetSet,
    BudgetChanged,
    Import,
    Correction,
    Chargeback,
    Refund,
    Adjustment,
    MovesAway,
    MovesHere,
    AnotherProcessPosts,
    AnotherMonth,
    PricePublished,
}

impl Scene {
    async fn job(&self) {
        let config = DueConfig { interval: DAY, teams_max: 10, rounds_max: 9 };
        Due::new(Arc::clone(&self.world.ledger), config).look().await.unwrap();
    }

    async fn change(&self, change: Change) {
        let (world, buyer) = (&self.world, self.buyer);
        match change {
            Change::Nothing => {}
            Change::Purchase => drop(world.purchase(buyer, 100, None).await.unwrap()),
            Change::Grant => drop(world.grant(buyer, 3 * TOKEN, None, "2026-03-10T12:30:00Z").await.unwrap()),
            Change::GrantForLater => {
                let starts = Some("2026-03-10T12:02:00Z");
                world.grant(buyer, 3 * TOKEN, starts, "2026-03-11T00:00:00Z").await.unwrap();
            }
            Change::GrantThatLeavesOlderDebts => {
                let request = GrantTokensRequest {
                    account_id: buyer.account.to_string(),
                    team_id: buyer.team.to_string(),
                    micros: 2 * TOKEN,
                    pool_kind: PoolKind::Promotional.into(),
                    expires_at: proto(at("2026-03-10T12:20:00Z")),
                    leaves_older_debts: true,
                    note: "a trial".to_owned(),
                    request_id: request_id(),
                    ..GrantTokensRequest::default()
                };
                world.tokens.grant_tokens(Request::new(request)).await.unwrap();
            }
            Change::Reserve => drop(reserve(world, buyer, 90 * TOKEN, 0, HOUR_MS).await.unwrap()),
            Change::ReserveAndExtend => {
                let hold = reserve(world, buyer, 50 * TOKEN, 0, HOUR_MS).await.unwrap();
                extend(world, buyer, &hold, 2 * HOUR_MS, 10 * TOKEN).await.unwrap();
            }
            Change::ReserveAndRelease => {
                let hold = reserve(world, buyer, 50 * TOKEN, 0, HOUR_MS).await.unwrap();
                release(world, buyer, &hold).await.unwrap();
            }
            Change::Capture => {
                let hold = reserve(world, buyer, 50 * TOKEN, 0, HOUR_MS).await.unwrap();
                capture(world, buyer, &hold, 7, true).await.unwrap();
            }
            Change::HoldTimesOut => {
                reserve(world, buyer, 50 * TOKEN, 0, 60_000).await.unwrap();
                world.clock.advance(Duration::from_secs(90));
                self.job().await;
            }
            Change::LotExpires => {
                world.clock.advance(DAY + DAY);
                self.job().await;
            }
            more => self.change_more(more).await,
        }
    }

    async fn change_more(&self, change: Change) {
        let Self { world, buyer, sibling, producer, bought, granted } = self;
        let buyer = *buyer;
        match change {
            Change::BudgetSet => drop(world.budget(buyer, None, 6 * TOKEN, &[50]).await.unwrap()),
            Change::BudgetChanged => {
                world.budget(buyer, None, 100 * TOKEN, &[50]).await.unwrap();
                world.settle(*producer, lines(buyer, 1, WINDOW)).await;
                world.budget(buyer, None, 8 * TOKEN, &[90]).await.unwrap();
            }
            Change::Import => {
                // After the windows that are settled (D61).
                world.clock.set(at("2026-03-10T12:05:00Z"));
                let (from, to) = ("2026-03-10T12:02:00Z", "2026-03-10T15:00:00Z");
                let lot = imports::lot(PoolKind::Promotional, 9, 4, from, to);
                let balance = world.balance(buyer).await;
                let expected = Holdings {
                    available_micros: balance.available_micros + 4 * TOKEN,
                    balance_micros: balance.balance_micros + 4 * TOKEN,
                    ..Holdings::default()
                };
                let team = imports::team(buyer, vec![lot], Vec::new(), Some(expected));
                let service = Imports::new(Arc::clone(&world.ledger));
                service.import_teams(Request::new(imports::request(vec![team]))).await.unwrap();
            }
            Change::Correction => {
                let charge = world.charges(buyer).await.remove(0);
                world.correct(buyer, &charge.charge_id, 1, None).await.unwrap();
            }
            Change::Chargeback => drop(lots::charge_back(world, bought, buyer).await.unwrap()),
            Change::Refund => drop(lots::refund(world, bought, buyer, 0).await.unwrap()),
            Change::Adjustment => drop(lots::adjust(world, granted, buyer, 2 * TOKEN).await.unwrap()),
            Change::MovesAway => drop(lots::move_lot(world, bought, buyer, *sibling).await.unwrap()),
            Change::MovesHere => {
                let other = world.grant(*sibling, 3 * TOKEN, None, "2026-03-10T14:00:00Z").await.unwrap();
                lots::move_lot(world, &other, *sibling, buyer).await.unwrap();
            }
            Change::AnotherProcessPosts => {
                let other = world.beside(|_| {});
                let batch = batch(&other.shard(SHARD + 1).await, *producer, lines(buyer, 5, WINDOW));
                other.post(&batch).await.unwrap();
            }
            Change::AnotherMonth => {
                world.clock.set(at("2026-04-01T00:00:30Z"));
                world.settle(*producer, lines(buyer, 5, "2026-04-01T00:00:00Z")).await;
            }
            Change::PricePublished => {
                world.meter("else", drawdown_proto::ledger::v1::Aggregation::Count).await.unwrap();
                let prices =
                    vec![crate::world::price("call", 700_000, 1), crate::world::price("byte", TOKEN, 1000)];
                world.publish("web", "2026-03-10T12:01:00Z", prices, false).await.unwrap();
                world.clock.set(at("2026-03-10T12:01:30Z"));
            }
            other => unreachable!("{other:?}"),
        }
    }

    /// Everything visible that has no name of its own.
    async fn facts(&self) -> String {
        let Self { world, buyer, .. } = self;
        let mut facts = Vec::new();
        for buyer in [*buyer, self.sibling] {
            let lots = world.lots(buyer).await;
            let place = |id: &String| lots.iter().position(|lot| lot.lot_id == *id);
            let balance = world.balance(buyer).await;
            facts.push(format!(
                "{:?}",
                (
                    balance.available_micros,
                    balance.uncharged_micros,
                    balance.held_micros,
                    balance.used_micros
                )
            ));
            facts.push(format!("{:?}", (balance.version, balance.expired_micros, balance.negative_since)));
            facts.extend(lots.iter().map(|lot| {
                let of = (lot.remaining_micros, lot.held_micros, lot.granted_micros, lot.void_micros);
                format!("lot {:?} {:?}", lot.state(), of)
            }));
            facts.extend(world.journal(buyer).await.iter().map(|row| {
                format!("{} {} {} {:?}", row.seq, row.kind, row.amount_micros, place(&row.lot_id))
            }));
            facts.extend(world.charges(buyer).await.iter().map(|charge| {
                format!("{} {} {}", charge.quantity, charge.amount_micros, charge.uncharged_micros)
            }));
        }
        let told = world.told(None).await;
        facts.extend(told.iter().map(|notice| format!("{:?} {:?}", notice.kind(), notice.occurred_at)));
        facts.join("\n")
    }
}

async fn outcome(change: Change, teams_max: u32) -> String {
    let scene = Scene::new(teams_max).await;
    let (world, buyer) = (&scene.world, scene.buyer);
    assert_eq!(is_known(world, buyer.team).await, teams_max > 0);
    scene.change(change).await;
    let still =
        teams_max > 0 && matches!(change, Change::Nothing | Change::AnotherMonth | Change::PricePublished);
    assert_eq!(is_known(world, buyer.team).await, still, "{change:?}");
    // More than is left, then a little, then the same on another instant.
    world.settle(scene.producer, lines(buyer, 190, WINDOW)).await;
    is_known(world, buyer.team).await;
    world.settle(scene.producer, lines(buyer, 2, WINDOW)).await;
    is_known(world, buyer.team).await;
    world.clock.advance(Duration::from_secs(7_200));
    world.settle(scene.producer, lines(buyer, 6, "2026-03-10T12:01:00Z")).await;
    is_known(world, buyer.team).await;
    world.assert_clean().await;
    scene.facts().await
}

/// Posts after the change end as those of a process that remembers nothing.
async fn ends_alike(change: Change) {
    // One after the other: whoever ends drops its database, which waits for every session that is being made. The other
    // one's would be, on this very thread.
    let remembering = outcome(change, 100).await;
    let forgetting = outcome(change, 0).await;
    assert_eq!(remembering, forgetting);
}

/// A test for each change.
macro_rules! whatever_happens_between_two_posts {
    ($($name:ident: $change:ident,)*) => {
        mod whatever_happens_between_two_posts {
            use super::{Change, ends_alike};

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    ends_alike(Change::$change).await;
                }
            )*
        }
    };
}

whatever_happens_between_two_posts! {
    nothing: Nothing,
    purchase: Purchase,
    grant: Grant,
    grant_for_later: GrantForLater,
    grant_that_leaves_older_debts: GrantThatLeavesOlderDebts,
    reserve: Reserve,
    reserve_and_extend: ReserveAndExtend,
    reserve_and_release: ReserveAndRelease,
    capture: Capture,
    hold_times_out: HoldTimesOut,
    lot_expires: LotExpires,
    budget_set: BudgetSet,
    budget_changed: BudgetChanged,
    import: Import,
    correction: Correction,
    chargeback: Chargeback,
    refund: Refund,
    adjustment: Adjustment,
    moves_away: MovesAway,
    moves_here: MovesHere,
    another_process_posts: AnotherProcessPosts,
    another_month: AnotherMonth,
    price_published: PricePublished,
}
