//! What a tenant sees: its own rows and no others, by policies that nobody forgets and no posting feels.

use drawdown_ledger::store::pool::{SERVICE_ROLE, TENANT_ROLE};
use drawdown_proto::ledger::v1::{
    GetBalanceRequest, ListChargesRequest, ListJournalRequest, ListLotsRequest,
    token_service_server::TokenService,
};
use drawdown_service::identity::{self, Caller, Role, Roles, Scope};
use drawdown_testkit::Database;
use drawdown_types::AccountId;
use sqlx::{AssertSqlSafe, Connection as _};
use std::sync::Arc;
use tonic::Request;

use super::{session, texts, used};
use crate::world::{Buyer, World, at, calls, calls_at, reason};

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
    // a caller of one account asks for that account, though it names none
    let caller = |account| {
        let roles = Roles::of(&[Role::BillingReader]);
        Arc::new(Caller { roles, scope: Scope::Account(account), ..Caller::certified("test") })
    };
    let own = identity::scope(caller(mine.account), read(String::new())).await;
    assert_eq!(own.0.unwrap(), read(String::new()).await.0.unwrap());
    assert!(own.1.is_ok() && own.2.is_ok() && own.3.is_ok());
    let foreign = identity::scope(caller(stranger.account), read(String::new())).await;
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
        ("load_teams", include_str!("../../../sql/load_teams.sql")),
        ("write_plan", include_str!("../../../sql/write_plan.sql")),
        ("settle", include_str!("../../../sql/settle.sql")),
    ] {
        let (owner, service) = (plan(&world, "none", sql).await, plan(&world, SERVICE_ROLE, sql).await);
        assert!(owner.len() > 5, "{name}: {owner:?}");
        assert_eq!(owner, service, "{name}");
        let tenant = plan(&world, TENANT_ROLE, include_str!("../../../sql/load_teams.sql")).await;
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
