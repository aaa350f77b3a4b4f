//! Who may do what in the schema: each guard is tried alone, and what a later table could forget is looked for in
//! the catalogue of the database. What tenants see is in `tenants`.

mod tenants;

use drawdown_ledger::{
    Options,
    store::pool::{READER_ROLE, SERVICE_ROLE, TENANT_ROLE, pool},
};
use drawdown_proto::ledger::v1::{GetBalanceRequest, token_service_server::TokenService};
use drawdown_testkit::Database;
use drawdown_types::AccountId;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};
use tonic::Request;

use crate::world::{Buyer, User, World, calls};

/// Tables whose rows are corrected by new rows only (D11).
const ONLY_GROW: &[&str] = &[
    "adoption",
    "audit_log",
    "batch_lane",
    "charge",
    "charge_values",
    "event",
    "journal",
    "lost_range",
    "review_decision",
    "settlement_batch",
    "unattributed",
    "usage_day",
    "usage_hour",
];

async fn session(database: &Database, role: &str) -> PgConnection {
    let mut session = PgConnection::connect(database.url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("set role {role}"))).execute(&mut session).await.unwrap();
    session
}

async fn texts(pool: &PgPool, sql: &str) -> Vec<String> {
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(pool).await.unwrap()
}

async fn code_of(session: &mut PgConnection, sql: String) -> Option<String> {
    let outcome = sqlx::raw_sql(AssertSqlSafe(sql)).execute(session).await;
    let error = outcome.err()?;
    Some(error.as_database_error().unwrap().code().unwrap().into_owned())
}

/// Everything that would change rows of a table; the first column takes its own value.
async fn changes(pool: &PgPool, table: &str) -> Vec<String> {
    let column = format!(
        "select quote_ident(attname) from pg_attribute where attrelid = 'ledger.{table}'::regclass and attnum > 0
           and attidentity = '' and not attisdropped order by attnum limit 1"
    );
    let column = texts(pool, &column).await.remove(0);
    vec![
        format!("update ledger.{table} set {column} = {column}"),
        format!("delete from ledger.{table}"),
        format!("truncate ledger.{table} cascade"),
    ]
}

/// Those tables and their partitions, which rows could be changed in by their own names.
async fn only_grow(pool: &PgPool) -> Vec<String> {
    let partitions = "select c.relname::text from pg_class c where c.relnamespace = 'ledger'::regnamespace
          and c.relkind = 'r' and c.relispartition order by 1";
    let partitions = texts(pool, partitions).await;
    assert!(
        ["charge_2026_03", "charge_default", "event_2026_03", "journal_2026_03"]
            .iter()
            .all(|name| partitions.iter().any(|p| p == name))
    );
    ONLY_GROW.iter().map(|table| (*table).to_owned()).chain(partitions).collect()
}

/// A ledger with rows in every table that posting fills.
async fn used() -> (World, Buyer) {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.purchase(buyer, 100, None).await.unwrap();
    world.settle(producer, vec![calls(buyer, 3)]).await;
    (world, buyer)
}

#[tokio::test]
async fn d11_triggers_alone_refuse_changes_even_by_the_owner() {
    let (world, _) = used().await;
    let mut owner = world.database.pool().acquire().await.unwrap();
    for table in only_grow(world.database.pool()).await {
        for change in changes(world.database.pool(), &table).await {
            assert_eq!(code_of(&mut owner, change.clone()).await.as_deref(), Some("23001"), "{change}");
        }
    }
}

#[tokio::test]
async fn d11_grants_alone_refuse_changes_by_the_service() {
    let (world, _) = used().await;
    let off = "do $$ declare t record; begin
        for t in select oid::regclass as name from pg_class
                 where relnamespace = 'ledger'::regnamespace and relkind in ('r', 'p') loop
            execute format('alter table %s disable trigger user', t.name); end loop; end $$";
    sqlx::raw_sql(off).execute(world.database.pool()).await.unwrap();
    for role in [SERVICE_ROLE, READER_ROLE, TENANT_ROLE] {
        let mut session = session(&world.database, role).await;
        for table in only_grow(world.database.pool()).await {
            for change in changes(world.database.pool(), &table).await {
                let code = code_of(&mut session, change.clone()).await;
                assert_eq!(code.as_deref(), Some("42501"), "{role}: {change}");
            }
        }
    }
    // Without grant and trigger nothing would be in the way.
    let mut owner = world.database.pool().acquire().await.unwrap();
    let change = changes(world.database.pool(), "journal").await.remove(0);
    assert_eq!(code_of(&mut owner, change).await, None);
}

#[tokio::test]
async fn d11_what_only_grows_has_the_trigger_and_no_grant() {
    let (world, _) = used().await;
    let with_trigger =
        "select distinct c.relname::text from pg_class c join pg_trigger t on t.tgrelid = c.oid
        where c.relnamespace = 'ledger'::regnamespace and not c.relispartition
          and t.tgfoid = 'ledger.refuse_change()'::regprocedure order by 1";
    let with_trigger = texts(world.database.pool(), with_trigger).await;
    let missing: Vec<_> =
        ONLY_GROW.iter().filter(|table| !with_trigger.iter().any(|t| t == *table)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // Postgres hands no such trigger down to a partition: each has its own.
    let bare = "select i.inhrelid::regclass::text from pg_inherits i join pg_class p on p.oid = i.inhparent
        where p.relnamespace = 'ledger'::regnamespace and p.relkind = 'p' and not exists (
            select from pg_trigger t where t.tgrelid = i.inhrelid
              and t.tgfoid = 'ledger.refuse_change()'::regprocedure)";
    assert_eq!(texts(world.database.pool(), bare).await, Vec::<String>::new());
    // One trigger for each of update, delete and truncate, before any row is touched.
    let bits = "select c.relname::text from pg_class c join pg_trigger t on t.tgrelid = c.oid
        where t.tgfoid = 'ledger.refuse_change()'::regprocedure and (t.tgtype & 58) <> 58";
    assert_eq!(texts(world.database.pool(), bits).await, Vec::<String>::new());
    let granted = format!(
        "select distinct c.relname::text from pg_class c join pg_trigger t on t.tgrelid = c.oid
         where c.relnamespace = 'ledger'::regnamespace and t.tgfoid = 'ledger.refuse_change()'::regprocedure
           and has_table_privilege('{SERVICE_ROLE}', c.oid, 'update, delete, truncate, references, trigger')"
    );
    assert_eq!(texts(world.database.pool(), &granted).await, Vec::<String>::new());
}

#[tokio::test]
async fn nobody_has_more_than_they_need() {
    let database = Database::create_with("ledger", drawdown_ledger::migrate).await.unwrap();
    let relations =
        "from pg_class c where c.relnamespace = 'ledger'::regnamespace and c.relkind in ('r', 'p', 'v', 'm')";
    let found = |role: &str, privileges: &str| {
        format!(
            "select c.relname::text {relations} and has_table_privilege('{role}', c.oid, '{privileges}') order by 1"
        )
    };
    for (role, privileges) in [
        (SERVICE_ROLE, "truncate, references, trigger"),
        (READER_ROLE, "insert, update, delete, truncate, references, trigger"),
        (TENANT_ROLE, "insert, update, delete, truncate, references, trigger"),
        ("public", "select, insert, update, delete, truncate, references, trigger"),
    ] {
        let more = texts(database.pool(), &found(role, privileges)).await;
        assert_eq!(more, Vec::<String>::new(), "{role}: {privileges}");
    }
    // What others were told is no truth, and goes when it is old.
    let forgotten = ["outbox", "standing_change", "usage_value"];
    assert_eq!(texts(database.pool(), &found(SERVICE_ROLE, "delete")).await, forgotten);
    let fixed = ["idempotency", "installation", "meter", "price", "rate_card", "_sqlx_migrations"];
    let updated = texts(database.pool(), &found(SERVICE_ROLE, "update")).await;
    let wrong: Vec<_> = fixed.iter().filter(|table| updated.iter().any(|t| t == *table)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(updated.contains(&"balance".to_owned()));
    let attributes = format!(
        "select rolname::text from pg_roles where rolname in ('{SERVICE_ROLE}', '{READER_ROLE}', '{TENANT_ROLE}')
           and (rolcanlogin or rolsuper or rolcreaterole or rolcreatedb or rolbypassrls or rolreplication)"
    );
    assert_eq!(texts(database.pool(), &attributes).await, Vec::<String>::new());
    for role in [SERVICE_ROLE, READER_ROLE, TENANT_ROLE] {
        let mut session = session(&database, role).await;
        for sql in [
            "create table ledger.mine ()",
            "select ledger.apply_roles()",
            "table ledger._sqlx_migrations",
            "select ledger.cut_default()",
            "select ledger.add_months('{charge}', 'posted_at', now(), now(), 1)",
            "select ledger.detach_month(now(), now(), 4)",
            "select ledger.attach_month(now())",
            "select ledger.drop_month(now(), now())",
            "select ledger.restored_month(now())",
            "insert into ledger.archived_month select now(), now(), now(), 0, 0",
            "create table ledger_archive.mine ()",
        ] {
            assert_eq!(
                code_of(&mut session, sql.to_owned()).await.as_deref(),
                Some("42501"),
                "{role}: {sql}"
            );
        }
    }
    // The one thing of the kind that the service may do; what it makes belongs to who migrates.
    let (mut service, mut tenant) =
        (session(&database, SERVICE_ROLE).await, session(&database, TENANT_ROLE).await);
    let make = "select ledger.make_months(now(), 7)".to_owned();
    assert_eq!(code_of(&mut tenant, make.clone()).await.as_deref(), Some("42501"));
    assert_eq!(code_of(&mut service, make).await, None);
    let owned = "select distinct pg_get_userbyid(c.relowner)::text from pg_class c
        where c.relnamespace = 'ledger'::regnamespace and c.relispartition and c.relkind = 'r'";
    assert_eq!(
        texts(database.pool(), owned).await,
        texts(database.pool(), "select current_user::text").await
    );
    let more = texts(database.pool(), &found(SERVICE_ROLE, "truncate, references, trigger")).await;
    assert_eq!(more, Vec::<String>::new());
}

#[tokio::test]
async fn a_user_that_owns_nothing_signs_in_and_serves() {
    let database = Database::create_with("ledger", drawdown_ledger::migrate).await.unwrap();
    let user = User::create(&database).await;
    {
        let world = World::on(database, |options| {
            options.database.role.clear();
            options.database.url = user.url.as_str().into();
        });
        world.priced().await;
        let (buyer, producer) = (world.buyer(), world.producer().await);
        world.purchase(buyer, 100, None).await.unwrap();
        world.settle(producer, vec![calls(buyer, 3)]).await;
        world.assert_clean().await;
        let request = GetBalanceRequest {
            team_id: buyer.team.to_string(),
            account_id: buyer.account.to_string(),
            ..GetBalanceRequest::default()
        };
        let read = world.tokens.get_balance(Request::new(request)).await.unwrap().into_inner();
        assert_eq!(read.balance.unwrap().used_micros, 1_500_000);
    }
    user.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_are_made_once_by_many_databases_at_a_time() {
    let mut databases = Vec::new();
    for _ in 0..4 {
        databases.push(Database::create_with("ledger", drawdown_ledger::migrate).await.unwrap());
    }
    let role = format!("race_{}", &databases[0].name()[1..]);
    let make = format!("select ledger.make_role('{role}', 'made once')");
    let all = databases.iter().flat_map(|database| [database.pool(), database.pool()]);
    let made = all.map(|pool| sqlx::raw_sql(AssertSqlSafe(make.clone())).execute(pool));
    futures::future::try_join_all(made).await.unwrap();
    let known = format!("select rolname::text from pg_roles where rolname = '{role}' and not rolcanlogin");
    assert_eq!(texts(databases[0].pool(), &known).await, std::slice::from_ref(&role));
    // So are rights: migrating again changes nothing, however many do it.
    let again = databases.iter().flat_map(|database| [database.pool(), database.pool()]);
    futures::future::try_join_all(again.map(drawdown_ledger::migrate)).await.unwrap();
    let drop = format!("drop role {role}");
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(databases[0].pool()).await.unwrap();
}

#[tokio::test]
async fn connections_are_told_their_role_and_limits_by_name() {
    let database = Database::create_with("ledger", drawdown_ledger::migrate).await.unwrap();
    let mut options = Options::default();
    options.database.url = database.url().into();
    SERVICE_ROLE.clone_into(&mut options.database.role);
    let pool = pool(&options.validate().unwrap().database);
    let mut reader = pool.read().await.unwrap();
    let mut tenant = pool.read_of(Some(AccountId::generate())).await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    let mut snapshot = pool.snapshot().await.unwrap();
    let level: String = sqlx::query_scalar("select current_setting('transaction_isolation')")
        .fetch_one(&mut *snapshot)
        .await
        .unwrap();
    assert_eq!(level, "repeatable read");
    let sessions = [(&mut *reader, SERVICE_ROLE), (&mut *tenant, TENANT_ROLE), (&mut *tx, SERVICE_ROLE)];
    for (session, role) in sessions {
        for (name, expected) in [
            ("role", role),
            ("synchronous_commit", "on"),
            ("statement_timeout", "30s"),
            ("lock_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "30s"),
            ("transaction_isolation", "read committed"),
            ("jit", "off"),
            ("application_name", "drawdown-ledger"),
        ] {
            let set: String = sqlx::query_scalar("select current_setting($1)")
                .bind(name)
                .fetch_one(&mut *session)
                .await
                .unwrap();
            assert_eq!(set, expected, "{name} of {role}");
        }
    }
}
