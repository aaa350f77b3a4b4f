//! The ledger behind a PgBouncer in transaction mode that has fewer sessions than the ledger has connections, so that
//! every transaction may find itself on another session, and between two of them nothing is kept.

use std::sync::Arc;

use drawdown_ledger::{
    Options,
    config::DueConfig,
    jobs::{due::Due, relay::Relay},
    store::pool::{Pooler, SERVICE_ROLE, TENANT_ROLE, pool},
};
use drawdown_proto::ledger::v1::{GetBalanceRequest, Line, token_service_server::TokenService};
use drawdown_service::config::Millis;
use drawdown_testkit::Database;
use drawdown_types::AccountId;
use sqlx::Executor as _;
use tonic::Request;

use crate::world::{DAY, User, World, batch, calls, reason};

const SESSIONS: u32 = 2;
const WRITERS: u32 = 6;
const ROUNDS: u64 = 4;

/// A database behind a pooler, and who signs in.
struct Behind {
    database: Database,
    pooler: drawdown_testkit::Pooler,
    user: User,
}

impl Behind {
    async fn create() -> Self {
        let database = Database::create_with("ledger", drawdown_ledger::migrate).await.unwrap();
        let user = User::create(&database).await;
        let pooler = drawdown_testkit::pooler(&user.url, SESSIONS).await.unwrap();
        Self { database, pooler, user }
    }

    fn tell(&self, options: &mut Options) {
        options.database.url = self.pooler.url().into();
        options.database.role.clear();
        options.database.pooler = Pooler::Transaction;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posting_commands_reads_and_jobs_need_no_session_of_their_own() {
    let Behind { database, pooler, user } = Behind::create().await;
    let url = pooler.url().to_owned();
    let world = Arc::new(World::on(database, |options| {
        options.database.url = url.into();
        options.database.role.clear();
        options.database.pooler = Pooler::Transaction;
        // Two sessions for all: who is last may wait for a while on a busy machine.
        options.database.lock_timeout_ms = Millis::from_millis(60_000);
    }));
    world.priced().await;
    let buyers: Vec<_> = (0..5).map(|_| world.buyer()).collect();
    let mut writers = tokio::task::JoinSet::new();
    for shard in 0..WRITERS {
        let (world, buyers) = (Arc::clone(&world), buyers.clone());
        writers.spawn(async move {
            let producer = world.producer().await;
            for round in 1..=ROUNDS {
                let lines: Vec<Line> = buyers.iter().map(|buyer| calls(*buyer, round)).collect();
                let batch = batch(&world.shard(shard).await, producer, lines);
                world.post(&batch).await.unwrap();
                // A retry is answered by its receipt.
                assert!(world.post(&batch).await.unwrap().already_settled);
            }
        });
    }
    for buyer in buyers.clone() {
        let world = Arc::clone(&world);
        writers.spawn(async move {
            world.purchase(buyer, 100, None).await.unwrap();
            world.grant(buyer, 5_000_000, None, "2026-03-10T13:00:00Z").await.unwrap();
            for _ in 0..5 {
                world.balance(buyer).await;
                world.lots(buyer).await;
                world.charges(buyer).await;
                world.journal(buyer).await;
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    world.unattributed().await;
    let used = i64::from(WRITERS) * i64::try_from((1..=ROUNDS).sum::<u64>()).unwrap() * 500_000;
    for buyer in &buyers {
        let read = async |account: AccountId| {
            let request = GetBalanceRequest {
                team_id: buyer.team.to_string(),
                account_id: account.to_string(),
                ..GetBalanceRequest::default()
            };
            world.tokens.get_balance(Request::new(request)).await.map(|answer| answer.into_inner())
        };
        assert_eq!(read(buyer.account).await.unwrap().balance.unwrap().used_micros, used);
        assert_eq!(reason(read(AccountId::generate()).await), "TEAM_UNKNOWN");
    }
    world.clock.advance(DAY + DAY);
    let config = DueConfig { interval: DAY, teams_max: 2, rounds_max: 10 };
    assert_eq!(Due::new(Arc::clone(&world.ledger), config).look().await.unwrap(), buyers.len());
    let relay = Options::default().validate().unwrap().notices.relay;
    assert!(Relay::new(Arc::clone(&world.ledger), relay).look().await.unwrap() > 0);
    world.assert_clean().await;
    assert_eq!(sessions_of(&world, "drawdown-ledger").await, i64::from(SESSIONS));
    drop(world);
    drop(pooler);
    user.drop().await;
}

async fn sessions_of(world: &World, application: &str) -> i64 {
    let count =
        "select count(*) from pg_stat_activity where datname = current_database() and application_name = $1";
    sqlx::query_scalar(count).bind(application).fetch_one(world.database.pool()).await.unwrap()
}

#[tokio::test]
async fn every_transaction_is_told_its_limits_and_leaves_nothing_behind() {
    let behind = Behind::create().await;
    let mut options = Options::default();
    behind.tell(&mut options);
    let pool = pool(&options.validate().unwrap().database);
    for account in [None, Some(AccountId::generate()), None] {
        let (mut reader, mut tx) = (pool.read_of(account).await.unwrap(), pool.begin().await.unwrap());
        for (session, is_tenant) in [(&mut *reader, account.is_some()), (&mut *tx, false)] {
            let role = if is_tenant { TENANT_ROLE } else { "none" };
            for (name, expected) in [
                ("role", role),
                ("synchronous_commit", "on"),
                ("statement_timeout", "30s"),
                ("lock_timeout", "10s"),
                ("idle_in_transaction_session_timeout", "30s"),
                ("transaction_isolation", "read committed"),
                ("jit", "off"),
            ] {
                let set: String = sqlx::query_scalar("select current_setting($1)")
                    .bind(name)
                    .fetch_one(&mut *session)
                    .await
                    .unwrap();
                assert_eq!(set, expected, "{name} where {account:?}");
            }
        }
        tx.commit().await.unwrap();
    }
    let mut snapshot = pool.snapshot().await.unwrap();
    let level: String = sqlx::query_scalar("select current_setting('transaction_isolation')")
        .fetch_one(&mut *snapshot)
        .await
        .unwrap();
    assert_eq!(level, "repeatable read");
    drop(snapshot);
    // A plain session through the pooler finds the servers that those transactions were on as they were before.
    let plain: sqlx::PgPool = sqlx::postgres::PgPoolOptions::new()
        .connect_with(
            behind.pooler.url().parse::<sqlx::postgres::PgConnectOptions>().unwrap().extra_float_digits(None),
        )
        .await
        .unwrap();
    let left = "do $$ begin
        if current_setting('statement_timeout') <> '0' or current_setting('role') <> 'none'
            or nullif(current_setting('drawdown.account', true), '') is not null then
            raise exception 'something is left';
        end if; end $$";
    plain.execute(left).await.unwrap();
    plain.close().await;
    pool.close().await;
    let Behind { database, pooler, user } = behind;
    drop((pooler, database));
    user.drop().await;
}

#[tokio::test]
async fn what_a_pooler_would_lose_is_refused_at_the_start() {
    let mut options = Options::default();
    SERVICE_ROLE.clone_into(&mut options.database.role);
    options.database.pooler = Pooler::Transaction;
    let problems = options.validate().unwrap_err();
    assert_eq!(problems.iter().map(|problem| problem.field.as_str()).collect::<Vec<_>>(), ["database.role"]);
}
