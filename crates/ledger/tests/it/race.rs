//! Writers at the same time: they wait for each other, no lock is taken crosswise, no micro-token is lost.

use std::sync::Arc;

use drawdown_proto::ledger::v1::Line;

use crate::world::{Buyer, DAY, World, batch, calls};

const SHARDS: u32 = 8;
const ROUNDS: u64 = 6;
const LOT_TOKENS: i64 = 100;

/// Posts to `buyers` from every shard at once, while tokens are bought; gives the price of everything.
async fn race(world: &Arc<World>, buyers: Vec<Buyer>) {
    world.priced().await;
    let mut writers = tokio::task::JoinSet::new();
    for shard in 0..SHARDS {
        let (world, mut buyers) = (Arc::clone(world), buyers.clone());
        // Each shard names the teams in another order.
        let turn = usize::try_from(shard).unwrap() % buyers.len();
        buyers.rotate_left(turn);
        writers.spawn(async move {
            let producer = world.producer().await;
            for round in 1..=ROUNDS {
                let lines: Vec<Line> = buyers.iter().map(|buyer| calls(*buyer, round)).collect();
                let batch = batch(&world.shard(shard).await, producer, lines);
                world.post(&batch).await.unwrap();
            }
        });
    }
    for buyer in buyers.clone() {
        let world = Arc::clone(world);
        writers.spawn(async move {
            world.purchase(buyer, LOT_TOKENS, None).await.unwrap();
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let calls_of_team = i64::from(SHARDS) * i64::try_from((1..=ROUNDS).sum::<u64>()).unwrap();
    for buyer in buyers {
        let balance = world.balance(buyer).await;
        assert_eq!(balance.used_micros, calls_of_team * 500_000);
        assert_eq!(balance.balance_micros, LOT_TOKENS * 1_000_000 - balance.used_micros);
    }
    world.clock.advance(DAY);
    world.assert_clean().await;
    let deadlocks: i64 =
        sqlx::query_scalar("select deadlocks from pg_stat_database where datname = current_database()")
            .fetch_one(world.database.pool())
            .await
            .unwrap();
    assert_eq!(deadlocks, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_to_one_team_wait_for_each_other() {
    let world = Arc::new(World::new().await);
    let buyers = vec![world.buyer()];
    race(&world, buyers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_to_many_teams_in_any_order_never_deadlock() {
    let world = Arc::new(World::new().await);
    let buyers = (0..40).map(|_| world.buyer()).collect();
    race(&world, buyers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_makes_a_team_first_nobody_else_fails() {
    let world = Arc::new(World::new().await);
    world.priced().await;
    let buyers: Vec<Buyer> = (0..30).map(|_| world.buyer()).collect();
    let mut writers = tokio::task::JoinSet::new();
    for shard in 0..4 {
        let (world, mut buyers) = (Arc::clone(&world), buyers.clone());
        buyers.rotate_left(usize::try_from(shard).unwrap() * 7);
        writers.spawn(async move {
            let producer = world.producer().await;
            for some in buyers.chunks(3) {
                let lines = some.iter().map(|buyer| calls(*buyer, 1)).collect();
                let batch = batch(&world.shard(shard).await, producer, lines);
                world.post(&batch).await.unwrap();
            }
        });
    }
    for buyer in buyers.iter().flat_map(|buyer| [*buyer; 2]) {
        let world = Arc::clone(&world);
        writers.spawn(async move {
            world.purchase(buyer, LOT_TOKENS, None).await.unwrap();
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    for buyer in buyers {
        let balance = world.balance(buyer).await;
        assert_eq!(balance.used_micros, 4 * 500_000);
        assert_eq!(balance.balance_micros, 2 * LOT_TOKENS * 1_000_000 - balance.used_micros);
    }
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_with_one_batch_settle_it_once() {
    let world = Arc::new(World::new().await);
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let batch = world.batch(1, producer, vec![calls(buyer, 10)]).await;
    let posts = (0..6).map(|_| world.post(&batch));
    let answers: Vec<_> = futures::future::join_all(posts).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| !answer.already_settled).count(), 1);
    assert_eq!(world.balance(buyer).await.used_micros, 5_000_000);
    world.assert_clean().await;
}
