//! What a process remembers of the teams it posted to: never anything else than a load would give, whatever happened
//! in between and whoever did it.

mod changes;
mod writers;

use std::sync::Arc;

use drawdown_ledger::{
    Options,
    store::teams::{self, Wanted},
};
use drawdown_ledger_core::{UsageKey, UsageState};
use drawdown_proto::ledger::v1::{Line, Lot};
use drawdown_types::{ProducerId, TeamId};
use uuid::Uuid;

use crate::world::{Buyer, SHARD, World, batch, calls, calls_at, sum, usage_at};

const TOKEN: i64 = 1_000_000;

/// Whether the team is remembered in the revision that it has; what is remembered is then what a load gives.
pub(crate) async fn is_known(world: &World, team: TeamId) -> bool {
    let Some((known, mut remembered, states)) = world.ledger.known_teams().look(team) else { return false };
    let keys: Vec<UsageKey> = states.iter().map(|(key, _)| *key).collect();
    let wanted = Wanted { keys: &keys, ..Wanted::default() };
    // Others may be posting: the revision and what is loaded have to be of one instant. Planned once, as postings do it:
    // this is asked after every step of the random sequences.
    let snapshot = "begin isolation level repeatable read; set local plan_cache_mode = force_generic_plan";
    let mut tx = world.database.pool().begin_with(snapshot).await.unwrap();
    let revision: Uuid = sqlx::query_scalar("select revision from ledger.balance where team_id = $1")
        .bind(team.as_uuid())
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    if known.as_uuid() != revision {
        return false;
    }
    let (mut loaded, mut loaded_states) = teams::load_wanted_in_tx(&mut tx, &[team], &wanted).await.unwrap();
    let mut loaded = loaded.remove(0);
    for stored in [&mut remembered, &mut loaded] {
        stored.team.lots.sort_unstable_by_key(|lot| lot.lot_id);
    }
    assert_eq!(remembered, loaded);
    loaded_states.sort_unstable_by_key(|state| state.key);
    let present: Vec<UsageState> = states.into_iter().filter_map(|(_, state)| state).collect();
    assert_eq!(present, loaded_states);
    true
}

/// A team that was posted to twice, with a lot that was bought and one that was granted.
struct Scene {
    world: World,
    buyer: Buyer,
    sibling: Buyer,
    producer: ProducerId,
    bought: Lot,
    granted: Lot,
}

fn lines(buyer: Buyer, events: u64, window: &str) -> Vec<Line> {
    vec![calls_at(buyer, events, window), usage_at(buyer, "byte", sum(1_500), window)]
}

const WINDOW: &str = "2026-03-10T12:00:00Z";

impl Scene {
    async fn new(teams_max: u32) -> Self {
        let world = World::with(|options| options.known.teams_max = teams_max).await;
        world.priced().await;
        let (buyer, producer) = (world.buyer(), world.producer().await);
        let sibling = world.sibling(buyer);
        let bought = world.purchase(buyer, 100, None).await.unwrap();
        let granted = world.grant(buyer, 5 * TOKEN, None, "2026-03-10T13:00:00Z").await.unwrap();
        let scene = Self { world, buyer, sibling, producer, bought, granted };
        scene.world.settle(producer, lines(buyer, 3, WINDOW)).await;
        scene.world.settle(producer, lines(buyer, 4, WINDOW)).await;
        scene
    }
}

#[tokio::test]
async fn a_team_in_its_revision_is_not_read_again_and_in_another_one_it_is() {
    let scene = Scene::new(100).await;
    let (world, buyer) = (&scene.world, scene.buyer);
    let tamper = async |revision: &str| {
        let sql = format!("update ledger.balance set charges = charges + 10 {revision} where team_id = $1");
        let done = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(buyer.team.as_uuid());
        done.execute(world.database.pool()).await.unwrap();
    };
    let last = async || -> i64 {
        let sql = "select max(seq) from ledger.charge where team_id = $1";
        sqlx::query_scalar(sql).bind(buyer.team.as_uuid()).fetch_one(world.database.pool()).await.unwrap()
    };
    tamper("").await;
    world.settle(scene.producer, lines(buyer, 1, WINDOW)).await;
    assert_eq!(last().await, 6);
    // A key that is not known is asked for with its team, whatever its revision.
    tamper(", revision = gen_random_uuid()").await;
    world.settle(scene.producer, lines(buyer, 1, WINDOW)).await;
    assert_eq!(last().await, 18);
}

#[tokio::test]
async fn no_more_teams_are_remembered_than_the_limit_says() {
    let world = World::with(|options| options.known.teams_max = 2).await;
    world.priced().await;
    let producer = world.producer().await;
    let buyers: Vec<Buyer> = (0..5).map(|_| world.buyer()).collect();
    for _ in 0..2 {
        world.settle(producer, buyers.iter().map(|buyer| calls(*buyer, 1)).collect()).await;
        assert_eq!(world.ledger.known_teams().len(), 2);
    }
    world.settle(producer, vec![calls(buyers[0], 1)]).await;
    assert!(is_known(&world, buyers[0].team).await);
    world.assert_clean().await;
}

#[tokio::test]
async fn a_commit_that_fails_makes_a_process_forget_its_teams() {
    let scene = Scene::new(100).await;
    let (world, buyer) = (&scene.world, scene.buyer);
    let refuse = "
        create function public.refuse() returns trigger language plpgsql as
            $$ begin raise exception 'not now' using errcode = 'serialization_failure'; end $$;
        create constraint trigger refuse after insert on ledger.settlement_batch
            deferrable initially deferred for each row execute function public.refuse()";
    sqlx::raw_sql(refuse).execute(world.database.pool()).await.unwrap();
    let next = world.batch(SHARD, scene.producer, lines(buyer, 5, WINDOW)).await;
    world.post(&next).await.unwrap_err();
    assert!(world.ledger.known_teams().look(buyer.team).is_none());
    sqlx::raw_sql("drop trigger refuse on ledger.settlement_batch")
        .execute(world.database.pool())
        .await
        .unwrap();
    world.post(&next).await.unwrap();
    assert!(is_known(world, buyer.team).await);
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_post_to_the_same_teams_at_the_same_time_agree() {
    const PROCESSES: u32 = 3;
    let world = Arc::new(World::new().await);
    world.priced().await;
    let buyers: Vec<Buyer> = (0..4).map(|_| world.buyer()).collect();
    for buyer in &buyers {
        world.purchase(*buyer, 100, None).await.unwrap();
    }
    let mut processes = tokio::task::JoinSet::new();
    for process in 0..PROCESSES {
        let (other, buyers) = (world.beside(|_: &mut Options| {}), buyers.clone());
        processes.spawn(async move {
            let producer = other.producer().await;
            for round in 1..=8 {
                let lines = buyers.iter().map(|buyer| calls(*buyer, round)).collect();
                let batch = batch(&other.shard(process).await, producer, lines);
                other.post(&batch).await.unwrap();
            }
            for buyer in buyers {
                is_known(&other, buyer.team).await;
            }
        });
    }
    while let Some(done) = processes.join_next().await {
        done.unwrap();
    }
    let used = i64::from(PROCESSES) * (1..=8).sum::<i64>() * 500_000;
    for buyer in buyers {
        assert_eq!(world.balance(buyer).await.used_micros, used);
    }
    world.assert_clean().await;
}
