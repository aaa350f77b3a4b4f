//! What a caller of one account sees: its own and nothing else, by the service and by the database.

use drawdown_client::reason_of;
use drawdown_entitlement::TENANT_ROLE;
use drawdown_proto::entitlement::v1::{
    CreateHubRequest, GetAccountRequest, GetTeamRequest, ListAppsRequest, ListAuditRequest,
    ListCredentialsRequest, ListHubsRequest, ListProductAssignmentsRequest, ListRolesRequest,
    ListScheduledChangesRequest, ListSuspensionsRequest, ListTeamsRequest, ListTransfersRequest,
    MoveAppRequest, PrincipalRole,
};
use drawdown_service::identity::{self, Caller, Role, Roles, Scope};
use drawdown_testkit::Database;
use drawdown_types::AccountId;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::{sync::Arc, time::Duration};
use tonic::{Code, Status};

use crate::{
    principals::{Guarded, principal, with_key},
    world::Chain,
};

/// Tables that a tenant may see rows of, with what decides; of every other one it sees nothing.
const SEEN: &str = "
    SELECT c.relname::text || ': ' || coalesce(
        CASE WHEN NOT c.relrowsecurity THEN 'no row-level security' END,
        CASE WHEN has_any_column_privilege('drawdown_entitlement_tenant', c.oid, 'SELECT')
                <> EXISTS (SELECT FROM pg_policies p WHERE p.schemaname = 'entitlement' AND p.tablename = c.relname
                           AND roles @> ARRAY['drawdown_entitlement_tenant']::name[])
             THEN 'a right without a policy, or a policy without a right' END,
        CASE WHEN EXISTS (SELECT FROM pg_policies p WHERE p.schemaname = 'entitlement' AND p.tablename = c.relname
                          AND (p.roles @> ARRAY['public']::name[]
                               OR p.roles @> ARRAY['drawdown_entitlement_tenant']::name[]
                                  AND (p.policyname <> 'tenant_reads' OR p.cmd <> 'SELECT' OR p.qual = 'true')))
             THEN 'another policy' END,
        CASE WHEN has_table_privilege('drawdown_entitlement_tenant', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
             THEN 'a right to write' END)
    FROM pg_class c
    WHERE c.relnamespace = 'entitlement'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
      AND c.relname <> '_sqlx_migrations'
      AND (NOT c.relrowsecurity
        OR has_any_column_privilege('drawdown_entitlement_tenant', c.oid, 'SELECT')
            <> EXISTS (SELECT FROM pg_policies p WHERE p.schemaname = 'entitlement' AND p.tablename = c.relname
                       AND roles @> ARRAY['drawdown_entitlement_tenant']::name[])
        OR EXISTS (SELECT FROM pg_policies p WHERE p.schemaname = 'entitlement' AND p.tablename = c.relname
                   AND (p.roles @> ARRAY['public']::name[]
                        OR p.roles @> ARRAY['drawdown_entitlement_tenant']::name[]
                           AND (p.policyname <> 'tenant_reads' OR p.cmd <> 'SELECT' OR p.qual = 'true')))
        OR has_table_privilege('drawdown_entitlement_tenant', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE'))
    ORDER BY 1";

#[tokio::test]
async fn every_table_shows_a_tenant_its_rows_or_nothing() {
    let database = Database::create_with("entitlement", drawdown_entitlement::migrate).await.unwrap();
    let found: Vec<String> = sqlx::query_scalar(SEEN).fetch_all(database.pool()).await.unwrap();
    assert_eq!(found, Vec::<String>::new());
    // the check itself: each way to forget it is found
    for (forgotten, table) in [
        ("CREATE TABLE entitlement.forgotten (account_id uuid)", "forgotten"),
        ("ALTER TABLE entitlement.team DISABLE ROW LEVEL SECURITY", "team"),
        ("DROP POLICY tenant_reads ON entitlement.hub", "hub"),
        ("ALTER POLICY tenant_reads ON entitlement.app USING (true)", "app"),
        ("CREATE POLICY more ON entitlement.audit_log FOR SELECT USING (true)", "audit_log"),
        ("GRANT SELECT (user_id) ON entitlement.app_user TO drawdown_entitlement_tenant", "app_user"),
        ("GRANT UPDATE ON entitlement.team TO drawdown_entitlement_tenant", "team"),
    ] {
        let mut tx = database.pool().begin().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(forgotten)).execute(&mut *tx).await.unwrap();
        let found: Vec<String> = sqlx::query_scalar(SEEN).fetch_all(&mut *tx).await.unwrap();
        assert!(found.len() == 1 && found[0].starts_with(&format!("{table}: ")), "{forgotten}: {found:?}");
    }
    sqlx::raw_sql("CREATE TABLE entitlement.later (account_id uuid)").execute(database.pool()).await.unwrap();
    drawdown_entitlement::migrate(database.pool()).await.unwrap();
    let found: Vec<String> = sqlx::query_scalar(SEEN).fetch_all(database.pool()).await.unwrap();
    assert_eq!(
        found,
        Vec::<String>::new(),
        "a later table is secured by the step that follows every migration"
    );
    let secret = "SELECT has_column_privilege('drawdown_entitlement_tenant', 'entitlement.credential', 'secret_hmac', 'SELECT')";
    assert!(!sqlx::query_scalar::<_, bool>(secret).fetch_one(database.pool()).await.unwrap());
}

/// Two accounts with everything that a tenant can read.
async fn two(guarded: &Guarded) -> (Chain, Chain) {
    let world = &guarded.world;
    let mut chains = Vec::new();
    for name in ["one", "two"] {
        let chain = world.chain().await;
        world.credential(&chain.app_id, None).await;
        world.assign(&chain.app_id, &chain.team_id, None).await;
        let key = guarded.manager(&chain).await;
        let mut hubs = drawdown_client::entitlement::hubs(&guarded.channel);
        let hub = CreateHubRequest {
            account_id: chain.account_id.clone(),
            name: name.to_owned(),
            request_id: String::new(),
        };
        let hub = hubs.create_hub(with_key(hub, &key)).await.unwrap().into_inner().hub.unwrap();
        let moved =
            MoveAppRequest { app_id: chain.app_id.clone(), hub_id: hub.hub_id, ..MoveAppRequest::default() };
        hubs.move_app(with_key(moved, &key)).await.unwrap();
        chains.push(chain);
    }
    let second = chains.pop().unwrap();
    (chains.pop().unwrap(), second)
}

/// Everything that a tenant can read of a chain, as texts, or the first refusal.
async fn read(guarded: &Guarded, key: &str, chain: &Chain) -> Vec<Result<String, Status>> {
    let Chain { account_id, team_id, app_id } = chain;
    let channel = &guarded.channel;
    let mut hierarchy = drawdown_client::entitlement::hierarchy(channel);
    macro_rules! ask {
        ($client:expr, $method:ident, $request:expr) => {
            $client.$method(with_key($request, key)).await.map(|answer| format!("{:?}", answer.into_inner()))
        };
    }
    let (account_id, team_id, app_id) = (account_id.clone(), team_id.clone(), app_id.clone());
    let of_account = || account_id.clone();
    vec![
        ask!(hierarchy, get_account, GetAccountRequest { account_id: of_account() }),
        ask!(hierarchy, get_team, GetTeamRequest { team_id: team_id.clone() }),
        ask!(hierarchy, list_teams, ListTeamsRequest { account_id: of_account(), ..Default::default() }),
        ask!(hierarchy, list_apps, ListAppsRequest { account_id: of_account(), ..Default::default() }),
        ask!(
            drawdown_client::entitlement::hubs(channel),
            list_hubs,
            ListHubsRequest { account_id: of_account(), ..Default::default() }
        ),
        ask!(
            drawdown_client::entitlement::credentials(channel),
            list_credentials,
            ListCredentialsRequest { app_id, ..Default::default() }
        ),
        ask!(
            drawdown_client::entitlement::accounts(channel),
            list_suspensions,
            ListSuspensionsRequest { account_id: of_account(), ..Default::default() }
        ),
        ask!(
            drawdown_client::entitlement::histories(channel),
            list_scheduled_changes,
            ListScheduledChangesRequest { account_id: of_account(), ..Default::default() }
        ),
        ask!(
            drawdown_client::entitlement::histories(channel),
            list_audit,
            ListAuditRequest { account_id: of_account(), ..Default::default() }
        ),
        ask!(
            drawdown_client::entitlement::members(channel),
            list_roles,
            ListRolesRequest { team_id: team_id.clone(), ..Default::default() }
        ),
        ask!(
            drawdown_client::entitlement::members(channel),
            list_product_assignments,
            ListProductAssignmentsRequest { team_id: team_id.clone(), ..Default::default() }
        ),
        ask!(
            drawdown_client::entitlement::transfers(channel),
            list_transfers,
            ListTransfersRequest { account_id: of_account(), ..Default::default() }
        ),
    ]
}

#[tokio::test]
async fn a_tenant_reads_what_an_operator_reads_of_it_and_nothing_of_others() {
    let guarded = Guarded::start().await;
    let (mine, other) = two(&guarded).await;
    let manager = guarded.manager(&mine).await;
    let operator = guarded.world.key_of(principal(PrincipalRole::Operator, "", "")).await;
    // to the edge from which the apps have their teams
    guarded.world.clock.advance(Duration::from_secs(120));
    let told = |answers: Vec<Result<String, Status>>| -> Vec<String> {
        answers.into_iter().map(|answer| answer.unwrap()).collect()
    };
    let (own, all) =
        (told(read(&guarded, &manager, &mine).await), told(read(&guarded, &operator, &mine).await));
    assert_eq!(own, all);
    assert!(own[3].contains(&mine.team_id) && own[3].contains("hub_"), "{}", own[3]);
    for (index, answer) in read(&guarded, &manager, &other).await.into_iter().enumerate() {
        let status = answer.unwrap_err();
        let told = (status.code(), reason_of(&status).unwrap_or_default());
        assert_eq!(told, (Code::PermissionDenied, "NOT_IN_SCOPE".to_owned()), "{index}: {status:?}");
    }
    // a token of a list is none of another's list, whoever shows it
    let mut hierarchy = drawdown_client::entitlement::hierarchy(&guarded.channel);
    for _ in 0..3 {
        guarded.world.team(&other.account_id, None).await;
    }
    let request = ListTeamsRequest {
        account_id: other.account_id.clone(),
        page_size: 2,
        ..ListTeamsRequest::default()
    };
    let token =
        hierarchy.list_teams(with_key(request, &operator)).await.unwrap().into_inner().next_page_token;
    assert!(!token.is_empty());
    let request = ListTeamsRequest {
        account_id: mine.account_id.clone(),
        page_token: token,
        ..ListTeamsRequest::default()
    };
    let status = hierarchy.list_teams(with_key(request, &manager)).await.unwrap_err();
    assert_eq!(reason_of(&status).as_deref(), Some("PAGE_TOKEN_INVALID"));
}

#[tokio::test]
async fn the_database_shows_a_tenant_nothing_of_others_whatever_is_asked() {
    let guarded = Guarded::start().await;
    let (mine, other) = two(&guarded).await;
    let id = |text: &str| text.parse::<AccountId>().unwrap();
    let mut session = PgConnection::connect(guarded.world.database.url()).await.unwrap();
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT tablename::text FROM pg_policies WHERE schemaname = 'entitlement' AND policyname = 'tenant_reads'",
    )
    .fetch_all(&mut session)
    .await
    .unwrap();
    assert!(tables.len() >= 16, "{tables:?}");
    for table in &tables {
        let column = if table == "credential" { "client_id" } else { "*" };
        let mut seen = Vec::new();
        for account in [AccountId::generate(), id(&mine.account_id), id(&other.account_id)] {
            let mut tx = session.begin().await.unwrap();
            let set =
                format!("SET LOCAL ROLE {TENANT_ROLE}; SET LOCAL drawdown.account = '{}'", account.as_uuid());
            sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut *tx).await.unwrap();
            let rows = format!(
                "SELECT coalesce(string_agg(t::text, E'\\n'), '') FROM (SELECT {column} FROM entitlement.{table}) t"
            );
            seen.push(
                sqlx::query_scalar::<_, String>(AssertSqlSafe(rows)).fetch_one(&mut *tx).await.unwrap(),
            );
        }
        assert_eq!(seen[0], "", "{table}");
        for (rows, foreign) in [(&seen[1], &other), (&seen[2], &mine)] {
            let foreign = id(&foreign.account_id).as_uuid().to_string();
            assert!(!rows.contains(&foreign), "{table}: {rows}");
        }
        if ["account", "team", "app", "app_team", "credential", "hub", "app_hub", "audit_log"]
            .contains(&table.as_str())
        {
            assert!(!seen[1].is_empty() && !seen[2].is_empty() && seen[1] != seen[2], "{table}");
        }
    }
}

#[tokio::test]
async fn a_handler_that_asks_for_more_gets_only_what_is_the_callers() {
    use drawdown_proto::entitlement::v1::hierarchy_service_server::HierarchyService as _;
    let guarded = Guarded::start().await;
    let (mine, other) = two(&guarded).await;
    let account_id: AccountId = mine.account_id.parse().unwrap();
    let roles = Roles::of(&[Role::ContractManager]);
    let caller = Arc::new(Caller { roles, scope: Scope::Account(account_id), ..Caller::certified("test") });
    // past the layers, as if the check of names were missing
    let hierarchy = guarded.world.hierarchy.clone();
    let (teams, foreign) = identity::scope(caller, async move {
        let teams = hierarchy.list_teams(tonic::Request::new(ListTeamsRequest::default())).await;
        let request = GetAccountRequest { account_id: other.account_id };
        (teams, hierarchy.get_account(tonic::Request::new(request)).await)
    })
    .await;
    let teams = teams.unwrap().into_inner().teams;
    assert_eq!(teams.iter().map(|team| team.team_id.as_str()).collect::<Vec<_>>(), [mine.team_id.as_str()]);
    assert_eq!(foreign.unwrap_err().code(), Code::NotFound);
}
