//! What two things cost: to be behind a pooler, and to verify after a history of some length.
//!
//!   cargo xtask servers cargo run --release --package drawdown-ledger --example costs

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement, not a part of the service")]

#[expect(dead_code, reason = "a measurement needs some of what the tests have")]
#[path = "../tests/it/world.rs"]
mod world;

use std::time::Duration;

use drawdown_ledger::{store::Pooler, verify::Scope};
use drawdown_testkit::Database;
use tokio::time::Instant;
use world::{Buyer, User, World, batch, calls};

const READS: u32 = 2_000;
const POSTS: u32 = 100;
const LINES: u64 = 200;
/// Batches of the history, each with one line of each team and series of them.
const HISTORY_BATCHES: u32 = 60;
const TEAMS: usize = 500;
const LINES_A_TEAM: usize = 10;
/// Batches after it, each of a tenth of the teams.
const LATER_BATCHES: u32 = 5;

#[tokio::main]
async fn main() {
    poolers().await;
    verifications().await;
}

async fn poolers() {
    println!("{:<42} {:>12} {:>18}", "", "reads/s", "posts of 200/s");
    for way in ["directly", "directly, told as behind a pooler", "through PgBouncer, transaction mode"] {
        let database = Database::create_with("ledger", drawdown_ledger::migrate).await.unwrap();
        let user = User::create(&database).await;
        let pooler = if way.starts_with("through") {
            Some(drawdown_testkit::pooler(&user.url, 4).await.unwrap())
        } else {
            None
        };
        let url = pooler.as_ref().map_or_else(|| user.url.clone(), |pooler| pooler.url().to_owned());
        let world = World::on(database, |options| {
            options.database.url = url;
            options.database.role.clear();
            options.database.pooler = if way == "directly" { Pooler::None } else { Pooler::Transaction };
        });
        let (reads, posts) = measure(&world).await;
        println!("{way:<42} {:>12.0} {:>18.1}", per_second(READS, reads), per_second(POSTS, posts));
        drop((world, pooler));
        user.drop().await;
    }
}

async fn measure(world: &World) -> (Duration, Duration) {
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.purchase(buyer, 1_000_000, None).await.unwrap();
    let mut posts = Duration::ZERO;
    for _ in 0..POSTS {
        let batch =
            batch(&world.shard(1).await, producer, (1..=LINES).map(|n| calls(buyer, 1 + n % 7)).collect());
        let started = Instant::now();
        world.post(&batch).await.unwrap();
        posts += started.elapsed();
    }
    let started = Instant::now();
    for _ in 0..READS {
        world.balance(buyer).await;
    }
    (started.elapsed(), posts)
}

async fn verifications() {
    let world = World::new().await;
    world.priced().await;
    let (buyers, producer): (Vec<Buyer>, _) =
        ((0..TEAMS).map(|_| world.buyer()).collect(), world.producer().await);
    for buyer in &buyers {
        world.purchase(*buyer, 1_000_000, None).await.unwrap();
    }
    println!("\n{:<42} {:>12} {:>12} {:>12}", "", "rows read", "batches", "seconds");
    for (batches, share) in [(HISTORY_BATCHES, 1), (LATER_BATCHES, 10)] {
        for _ in 0..batches {
            let paying = buyers.iter().take(TEAMS / share);
            let lines = paying.flat_map(|buyer| (0..LINES_A_TEAM).map(|_| calls(*buyer, 1))).collect();
            let batch = batch(&world.shard(1).await, producer, lines);
            world.post(&batch).await.unwrap();
        }
        sqlx::raw_sql("analyze").execute(world.database.pool()).await.unwrap();
        let scopes: &[Scope] =
            if share == 1 { &[Scope::Full, Scope::Incremental] } else { &[Scope::Incremental, Scope::Full] };
        for scope in scopes {
            let started = Instant::now();
            let verified = world.verify(*scope).await;
            let took = started.elapsed().as_secs_f64();
            assert!(verified.is_clean());
            let what = format!(
                "{scope:?} after {} batches",
                if share == 1 { batches } else { HISTORY_BATCHES + batches }
            );
            let effort = verified.effort;
            println!("{what:<42} {:>12} {:>12} {took:>12.2}", effort.journal_rows, effort.batches);
        }
    }
}

fn per_second(times: u32, took: Duration) -> f64 {
    f64::from(times) / took.as_secs_f64()
}
