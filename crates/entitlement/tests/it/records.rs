//! Around every act: one effect a request id, one line in the audit log, and rows that nobody changes.

use drawdown_proto::entitlement::v1::{
    CreateAccountRequest, CreateTeamRequest, hierarchy_service_server::HierarchyService as _,
};
use tonic::Request;

use crate::world::{World, at, ok, refused};

fn account(name: &str, request_id: &str) -> Request<CreateAccountRequest> {
    Request::new(CreateAccountRequest {
        name: name.to_owned(),
        contract_kind: 1,
        request_id: request_id.to_owned(),
        ..Default::default()
    })
}

async fn count(world: &World, table: &str) -> i64 {
    let statement = format!("SELECT count(*) FROM entitlement.{table}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_one(world.database.pool()).await.unwrap()
}

#[tokio::test]
async fn a_request_id_has_one_effect_also_in_a_race() {
    let world = World::new().await;
    let ask = || world.hierarchy.create_account(account("A", "open-a"));
    let (a, b, c) = tokio::join!(ask(), ask(), ask());
    let (a, b, c) = (ok(a), ok(b), ok(c));
    assert!(a == b && b == c);
    world.clock.set(at("2027-01-01T00:00:00Z"));
    assert_eq!(ok(ask().await), a, "years later as well");
    assert_eq!((count(&world, "account").await, count(&world, "audit_log").await), (1, 1));
    let told = refused(world.hierarchy.create_account(account("B", "open-a")).await);
    assert_eq!(told, ("REQUEST_ID_CONFLICT".to_owned(), vec!["request_id".to_owned()]));
    ok(world.hierarchy.create_account(account("A", "")).await);
    ok(world.hierarchy.create_account(account("A", "")).await);
    assert_eq!(count(&world, "account").await, 3, "without a request id each call is one of its own");
}

#[tokio::test]
async fn a_refused_act_leaves_its_request_id_free() {
    let world = World::new().await;
    let account_id = world.account(None, true).await;
    let team = |created_at| {
        Request::new(CreateTeamRequest {
            account_id: account_id.clone(),
            name: "T".to_owned(),
            created_at,
            request_id: "team-1".to_owned(),
        })
    };
    let early = crate::world::wire(at("2020-01-01T00:00:00Z"));
    assert_eq!(refused(world.hierarchy.create_team(team(early)).await).0, "INSTANT_BEFORE_ACCOUNT");
    ok(world.hierarchy.create_team(team(None)).await);
}

#[tokio::test]
async fn every_act_has_its_line_in_the_audit_log() {
    let world = World::new().await;
    let chain = world.chain().await;
    let other = world.team(&chain.account_id, None).await;
    world.user("a@example.com").await;
    world.credential(&chain.app_id, None).await;
    world.assign(&chain.app_id, &chain.team_id, Some("2026-02-01T00:00:00Z")).await;
    world.assign(&chain.app_id, &other, None).await;
    let lines: Vec<(String, String, Option<String>)> = sqlx::query_as(
        "SELECT actor, method, before->>'team_id' FROM entitlement.audit_log ORDER BY audit_id",
    )
    .fetch_all(world.database.pool())
    .await
    .unwrap();
    let methods: Vec<&str> = lines.iter().map(|(_, method, _)| method.as_str()).collect();
    assert_eq!(
        methods,
        [
            "CreateAccount",
            "CreateTeam",
            "CreateApp",
            "CreateTeam",
            "CreateUser",
            "CreateCredential",
            "AssignApp",
            "AssignApp"
        ]
    );
    assert!(lines.iter().all(|(actor, _, _)| actor == "operator"));
    assert_eq!(lines[7].2.as_deref(), Some(chain.team_id.as_str()));
}

#[tokio::test]
async fn what_was_written_stays() {
    let world = World::new().await;
    let chain = world.chain().await;
    world.credential(&chain.app_id, None).await;
    world.assign(&chain.app_id, &chain.team_id, None).await;
    let user = world.user("a@example.com").await;
    let role = drawdown_proto::entitlement::v1::SetRoleRequest {
        user_id: user,
        role: 3,
        team_id: chain.team_id.clone(),
        ..Default::default()
    };
    ok(world.hierarchy.set_role(Request::new(role)).await);
    let revoked = world.credential(&chain.app_id, None).await.credential_id;
    world.revoke(&revoked, Some("2026-03-08T00:00:00Z")).await;
    world.revoke(&revoked, None).await;
    world.suspend(&chain.account_id, "unpaid").await;
    let before = world.dump().await;
    for statement in [
        "UPDATE entitlement.audit_log SET actor = 'nobody'",
        "DELETE FROM entitlement.audit_log",
        "TRUNCATE entitlement.audit_log",
        "UPDATE entitlement.app_team SET valid_from = valid_from - interval '1 day'",
        "DELETE FROM entitlement.app_team",
        "UPDATE entitlement.credential_revocation SET unknown_from = unknown_from + interval '1 day'",
        "UPDATE entitlement.credential_revocation SET voided_at = NULL",
        "DELETE FROM entitlement.credential_revocation",
        "UPDATE entitlement.suspension SET from_at = from_at - interval '1 day'",
        "UPDATE entitlement.suspension SET end_note = 'x'",
        "DELETE FROM entitlement.suspension",
        "UPDATE entitlement.account_contract SET kind = 'enterprise'",
        "DELETE FROM entitlement.account_contract",
        "UPDATE entitlement.credential SET client_id = 'client_other'",
        "DELETE FROM entitlement.credential",
        "TRUNCATE entitlement.credential CASCADE",
        "DELETE FROM entitlement.role_history",
        "UPDATE entitlement.role_history SET role = 'primary_admin'",
        "UPDATE entitlement.role_history SET from_at = from_at, to_at = NULL",
    ] {
        let error = sqlx::query(statement).execute(world.database.pool()).await.unwrap_err();
        let code = error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned());
        assert_eq!(code.as_deref(), Some("23001"), "{statement}");
        // The service has not even the right, but to end a role or a suspension and to void, which are updates.
        let error = sqlx::query(statement).execute(&world.parts.pool).await.unwrap_err();
        let code = error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned());
        let ends = ["UPDATE entitlement.role_history", "SET voided_at", "SET end_note"];
        let may = ends.iter().any(|part| statement.contains(part));
        assert_eq!(code.as_deref(), Some(if may { "23001" } else { "42501" }), "{statement}");
    }
    assert_eq!(world.dump().await, before);
}
