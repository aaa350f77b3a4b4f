//! Who may do what in the schema: each guard is tried alone, and what a later table could forget is looked for in
//! the catalogue of the database.

use drawdown_ledger::{
    Options,
    store::pool::{READER_ROLE, SERVICE_ROLE, TENANT_ROLE, pool},
};
use drawdown_proto::ledger::v1::{
    GetBalanceRequest, ListChargesRequest, ListJournalRequest, ListLotsRequest,
    token_service_server::TokenService,
};
use drawdown_testkit::Database;
use drawdown_types::AccountId;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};
use tonic::Request;

use crate::world::{Buyer, User, World, at, calls, calls_at, reason};

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
    assert_eq!(texts(database.pool(), &found(SERVICE_ROLE, "delete")).await, ["outbox", "usage_value"]);
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
async fn every_per_account_table_shows_a_tenant_only_its_rows() {
    let database = Database::create_with("ledger", drawdown_ledger::migrate).await.unwrap();
    assert_eq!(texts(database.pool(), UNSECURED).await, Vec::<String>::new());
    // The check itself: each way to forget it is found.
    for (forgotten, table) in [
        ("create table ledger.forgotten (account_id uuid)", "forgotten"),
        ("alter table ledger.charge disable row level security", "charge"),
        ("drop policy tenant_reads on ledger.lot", "lot"),
        ("alter policy tenant_reads on ledger.balance using (true)", "balance"),
        ("create policy more on ledger.journal for select using (true)", "journal"),
        ("grant select on ledger.idempotency to drawdown_ledger_tenant", "idempotency"),
        ("grant select (at) on ledger.audit_log to drawdown_ledger_tenant", "audit_log"),
        ("alter table ledger.charge_default disable row level security", "charge_default"),
        ("grant select on ledger.journal_default to drawdown_ledger_tenant", "journal_default"),
        ("create policy more on ledger.charge_default for select using (true)", "charge_default"),
        (
            "create table ledger.charge_2001 partition of ledger.charge for values from ('2001-01-01') to ('2002-01-01')",
            "charge_2001",
        ),
        ("alter view ledger.full_journal set (security_invoker = false)", "full_journal"),
        ("create view ledger.seen as table ledger.charge; grant select on ledger.seen to public", "seen"),
    ] {
        let mut tx = database.pool().begin().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(forgotten)).execute(&mut *tx).await.unwrap();
        let found: Vec<String> = sqlx::query_scalar(UNSECURED).fetch_all(&mut *tx).await.unwrap();
        assert_eq!(found, [table], "{forgotten}");
    }
    // A table that a later migration adds is secured by the step that follows every migration.
    let later = "create table ledger.later (account_id uuid);
        create table ledger.charge_2001 partition of ledger.charge for values from ('2001-01-01') to ('2002-01-01')";
    sqlx::raw_sql(later).execute(database.pool()).await.unwrap();
    drawdown_ledger::migrate(database.pool()).await.unwrap();
    assert_eq!(texts(database.pool(), UNSECURED).await, Vec::<String>::new());
}

/// Tables with an account but not exactly the policy of tenants, and whatever else a tenant could read.
const UNSECURED: &str = "
    with relations as (
        select c.oid, c.relname::text as name, c.relrowsecurity, c.relispartition,
               exists (select from pg_attribute a
                       where a.attrelid = c.oid and a.attname = 'account_id' and not a.attisdropped)
                   and c.relkind in ('r', 'p') as of_account,
               has_any_column_privilege('drawdown_ledger_tenant', c.oid, 'select') as readable,
               -- a view that shows its reader only what the policies of its tables do
               c.relkind = 'v' and coalesce('security_invoker=true' = any (c.reloptions), false) as as_reader
        from pg_class c
        where c.relnamespace = 'ledger'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
    ), policies as (
        select tablename, count(*) as policies, bool_and(cmd = 'SELECT' and policyname = 'tenant_reads'
                   and qual = '(account_id = ( SELECT ledger.tenant_account() AS tenant_account))') as exact
        from pg_policies
        where schemaname = 'ledger' and roles && array['drawdown_ledger_tenant', 'public']::name[]
        group by tablename
    )
    select name from relations r left join policies p on p.tablename = r.name
    where case
        when r.relispartition then r.readable or not r.relrowsecurity or p.policies is not null
        when r.of_account then not r.relrowsecurity or p.policies is distinct from 1 or not p.exact
        else r.readable and not r.as_reader
    end
    order by name";

#[tokio::test]
async fn a_tenant_sees_its_own_rows_and_no_others() {
    let (world, mine) = used().await;
    let (other, producer) = (world.buyer(), world.producer().await);
    world.grant(other, 7_000_000, None, "2026-03-11T00:00:00Z").await.unwrap();
    world.settle(producer, vec![calls(other, 2), calls(mine, 1)]).await;
    let tables = "select c.relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid
        where c.relnamespace = 'ledger'::regnamespace and c.relkind in ('r', 'p', 'v') and not c.relispartition
          and a.attname = 'account_id' and not a.attisdropped order by 1";
    let tables = texts(world.database.pool(), tables).await;
    let mut session = session(&world.database, TENANT_ROLE).await;
    let nobody = AccountId::generate();
    for table in &tables {
        let all: i64 = sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from ledger.{table}")))
            .fetch_one(world.database.pool())
            .await
            .unwrap();
        let mut seen = Vec::new();
        for account in [None, Some(nobody), Some(mine.account), Some(other.account)] {
            let mut tx = session.begin().await.unwrap();
            let account = account.map(|account| account.as_uuid().to_string()).unwrap_or_default();
            sqlx::query("select set_config('drawdown.account', $1, true)")
                .bind(&account)
                .execute(&mut *tx)
                .await
                .unwrap();
            let sql = format!(
                "select count(*), count(*) filter (where account_id::text <> $1) from ledger.{table}"
            );
            let (rows, foreign): (i64, i64) =
                sqlx::query_as(AssertSqlSafe(sql)).bind(&account).fetch_one(&mut *tx).await.unwrap();
            assert_eq!(foreign, 0, "{table}");
            seen.push(rows);
        }
        assert_eq!(seen[..2], [0, 0], "{table}");
        if ["balance", "charge", "full_journal", "journal", "lot"].contains(&table.as_str()) {
            assert!(seen[2] > 0 && seen[3] > 0 && seen[2] + seen[3] == all, "{table}: {seen:?} of {all}");
        }
    }
    // The setting ended with the transaction.
    let left: Option<String> =
        sqlx::query_scalar("select nullif(current_setting('drawdown.account', true), '')")
            .fetch_one(&mut session)
            .await
            .unwrap();
    assert_eq!(left, None);
}

#[tokio::test]
async fn reads_that_name_an_account_know_nothing_of_others() {
    let (world, mine) = used().await;
    let stranger = world.buyer();
    let untouched = Buyer { account: stranger.account, ..world.buyer() };
    world.know(untouched, None, None);
    let (team_id, tokens) = (mine.team.to_string(), &world.tokens);
    let read = async |account_id: String| {
        let team_id = team_id.clone();
        let balance = GetBalanceRequest {
            team_id: team_id.clone(),
            account_id: account_id.clone(),
            ..Default::default()
        };
        let lots = ListLotsRequest {
            team_id: team_id.clone(),
            account_id: account_id.clone(),
            ..Default::default()
        };
        let charges = ListChargesRequest {
            team_id: team_id.clone(),
            account_id: account_id.clone(),
            ..ListChargesRequest::default()
        };
        let journal = ListJournalRequest { team_id, account_id, ..ListJournalRequest::default() };
        (
            tokens.get_balance(Request::new(balance)).await.map(|answer| format!("{answer:?}")),
            tokens.list_lots(Request::new(lots)).await.map(|answer| format!("{answer:?}")),
            tokens.list_charges(Request::new(charges)).await.map(|answer| format!("{answer:?}")),
            tokens.list_journal(Request::new(journal)).await.map(|answer| format!("{answer:?}")),
        )
    };
    let (by_operator, by_owner) = (read(String::new()).await, read(mine.account.to_string()).await);
    assert_eq!(by_operator.0.unwrap(), by_owner.0.unwrap());
    assert_eq!(by_operator.1.unwrap(), by_owner.1.unwrap());
    assert_eq!(by_operator.2.unwrap(), by_owner.2.unwrap());
    assert_eq!(by_operator.3.unwrap(), by_owner.3.unwrap());
    let foreign = read(stranger.account.to_string()).await;
    for refused in [foreign.0, foreign.1, foreign.2, foreign.3] {
        assert_eq!(reason(refused), "TEAM_UNKNOWN");
    }
    let malformed = read("nonsense".to_owned()).await;
    assert_eq!(reason(malformed.0), "REQUEST_INVALID");
    // A team that nothing was posted to is known to its own account only.
    let empty = async |account: AccountId| {
        let request = GetBalanceRequest {
            team_id: untouched.team.to_string(),
            account_id: account.to_string(),
            ..GetBalanceRequest::default()
        };
        tokens.get_balance(Request::new(request)).await.map(|answer| answer.into_inner())
    };
    assert_eq!(empty(untouched.account).await.unwrap().balance.unwrap().balance_micros, 0);
    assert_eq!(reason(empty(mine.account).await), "TEAM_UNKNOWN");
}

#[tokio::test]
async fn policies_change_no_plan_of_a_posting() {
    let (world, buyer) = used().await;
    let producer = world.producer().await;
    for hour in 1..5 {
        world.clock.set(at(&format!("2026-03-10T1{hour}:30:00Z")));
        world.settle(producer, vec![calls_at(buyer, 5, &format!("2026-03-10T1{hour}:29:00Z"))]).await;
    }
    sqlx::raw_sql("analyze").execute(world.database.pool()).await.unwrap();
    for (name, sql) in [
        ("load_teams", include_str!("../../sql/load_teams.sql")),
        ("write_plan", include_str!("../../sql/write_plan.sql")),
        ("settle", include_str!("../../sql/settle.sql")),
    ] {
        let (owner, service) = (plan(&world, "none", sql).await, plan(&world, SERVICE_ROLE, sql).await);
        assert!(owner.len() > 5, "{name}: {owner:?}");
        assert_eq!(owner, service, "{name}");
        let tenant = plan(&world, TENANT_ROLE, include_str!("../../sql/load_teams.sql")).await;
        assert_ne!(tenant, owner, "a tenant's plan holds its policies");
    }
}

/// The generic plan of a statement: of all its parameters, whatever they are.
async fn plan(world: &World, role: &str, sql: &str) -> Vec<String> {
    let mut session = session(&world.database, role).await;
    let parameters = (1..).take_while(|n| sql.contains(&format!("${n}"))).count();
    let nulls = vec!["null"; parameters].join(", ");
    let setup = format!("set plan_cache_mode = force_generic_plan; prepare posting as {sql}");
    sqlx::raw_sql(AssertSqlSafe(setup)).execute(&mut session).await.unwrap();
    let explain = format!("explain (verbose) execute posting({nulls})");
    sqlx::query_scalar(AssertSqlSafe(explain)).fetch_all(&mut session).await.unwrap()
}

#[tokio::test]
async fn a_user_that_owns_nothing_signs_in_and_serves() {
    let database = Database::create_with("ledger", drawdown_ledger::migrate).await.unwrap();
    let user = User::create(&database).await;
    {
        let world = World::on(database, |options| {
            options.database.role.clear();
            user.url.clone_into(&mut options.database.url);
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
    database.url().clone_into(&mut options.database.url);
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
