//! The job that rolls teams forward, where the database refuses some of them.

use std::sync::Arc;

use drawdown_ledger::{config::DueConfig, jobs::due::Due};

use crate::world::{Buyer, DAY, World, at};

async fn expired(world: &World, buyer: Buyer) -> (i64, i64) {
    let rows = world.journal(buyer).await;
    let expiries = rows.iter().filter(|row| row.kind == "expiry");
    (i64::try_from(rows.len()).unwrap(), expiries.map(|row| row.amount_micros).sum())
}

#[tokio::test]
async fn a_team_that_the_database_refuses_stops_nobody_else() {
    let world = World::new().await;
    let mut buyers = [world.buyer(), world.buyer(), world.buyer()];
    buyers.sort_unstable_by_key(|buyer| buyer.team);
    for buyer in buyers {
        world.grant(buyer, 1_000_000, None, "2026-03-11T00:00:00Z").await.unwrap();
    }
    // The first in the order of all writers: whatever expires there breaks a constraint.
    let [sick, first, second] = buyers;
    let refuse = format!(
        "alter table ledger.balance add constraint sick check (team_id <> '{}' or expired_micros = 0)",
        sick.team.as_uuid()
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(refuse)).execute(world.database.pool()).await.unwrap();
    world.clock.set(at("2026-03-13T00:00:00Z"));
    let due = |teams_max| {
        Due::new(Arc::clone(&world.ledger), DueConfig { interval: DAY, teams_max, rounds_max: 9 })
    };
    // A round that is full of such teams is no reason to stop either.
    let job = due(1);
    assert_eq!(job.look().await.unwrap(), 2);
    assert_eq!(job.look().await.unwrap(), 0);
    let mut seen = Vec::new();
    for buyer in buyers {
        seen.push(expired(&world, buyer).await);
    }
    assert_eq!(seen, [(1, 0), (2, 1_000_000), (2, 1_000_000)]);
    // Those that come later are not held up, by another process that knows nothing of it neither.
    for buyer in [first, second] {
        world.grant(buyer, 2_000_000, None, "2026-03-14T00:00:00Z").await.unwrap();
    }
    world.clock.set(at("2026-03-16T00:00:00Z"));
    assert_eq!(due(200).look().await.unwrap(), 2);
    // What was set apart is tried again, and goes on once it can.
    let mend = "alter table ledger.balance drop constraint sick";
    sqlx::raw_sql(mend).execute(world.database.pool()).await.unwrap();
    assert_eq!(job.look().await.unwrap(), 1);
    assert_eq!(expired(&world, sick).await, (2, 1_000_000));
    world.assert_clean().await;
}
