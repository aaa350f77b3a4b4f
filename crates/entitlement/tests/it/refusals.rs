//! Bad input: each kind has its own reason and names its fields, all at once, and writes nothing.

use drawdown_proto::entitlement::v1::{
    AssignAppRequest, BatchResolveRequest, ClientInstant, CreateAccountRequest, CreateAppRequest,
    CreateCredentialRequest, CreateTeamRequest, CreateUserRequest, GetAccountRequest, GetTeamRequest,
    ResolveRequest, Role, SetRoleRequest, hierarchy_service_server::HierarchyService as _,
    resolution_service_server::ResolutionService as _,
};
use drawdown_types::{AccountId, AppId, TeamId, UserId};
use tonic::Request;

use crate::world::{World, at, refused, wire};

fn check(told: (String, Vec<String>), reason: &str, fields: &[&str]) {
    assert_eq!((told.0.as_str(), told.1), (reason, fields.iter().map(|f| (*f).to_owned()).collect()));
}

#[tokio::test]
async fn every_wrong_field_is_named_at_once() {
    let world = World::new().await;
    let service = &world.hierarchy;
    let never = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
    let long = "x".repeat(201);
    let account =
        CreateAccountRequest { created_at: never, request_id: "é".to_owned(), ..Default::default() };
    let told = refused(service.create_account(Request::new(account)).await);
    check(told, "REQUEST_INVALID", &["name", "contract_kind", "created_at", "request_id"]);
    let team = CreateTeamRequest { name: long.clone(), created_at: never, ..Default::default() };
    let told = refused(service.create_team(Request::new(team)).await);
    check(told, "REQUEST_INVALID", &["account_id", "name", "created_at"]);
    for email in ["", "a", "@b", "a@", "a b@c", "a\0@c", &format!("{long}{long}@c")] {
        let user =
            CreateUserRequest { email: email.to_owned(), name: "a\nb".to_owned(), ..Default::default() };
        let told = refused(service.create_user(Request::new(user)).await);
        check(told, "REQUEST_INVALID", &["email", "name"]);
    }
    let app = CreateAppRequest { owner_user_id: "me".to_owned(), name: " ".to_owned(), ..Default::default() };
    let told = refused(service.create_app(Request::new(app)).await);
    check(told, "REQUEST_INVALID", &["account_id", "owner_user_id", "name"]);
    let assign = AssignAppRequest { from: never, request_id: "x".repeat(129), ..Default::default() };
    let told = refused(service.assign_app(Request::new(assign)).await);
    check(told, "REQUEST_INVALID", &["app_id", "team_id", "from", "request_id"]);
    let credential = CreateCredentialRequest { created_at: never, ..Default::default() };
    let told = refused(service.create_credential(Request::new(credential)).await);
    check(told, "REQUEST_INVALID", &["app_id", "created_at"]);
}

#[tokio::test]
async fn a_role_belongs_to_a_team_or_to_an_account() {
    let world = World::new().await;
    let request = |role: Role, team_id: &str, account_id: &str| SetRoleRequest {
        user_id: UserId::generate().to_string(),
        role: role.into(),
        team_id: team_id.to_owned(),
        account_id: account_id.to_owned(),
        request_id: String::new(),
    };
    let (team, account) = (TeamId::generate().to_string(), AccountId::generate().to_string());
    for (role, team_id, account_id, fields) in [
        (Role::Unspecified, team.as_str(), "", &["role"][..]),
        (Role::Member, "", "", &["team_id"]),
        (Role::Member, &team, &account, &["account_id"]),
        (Role::PrimaryAdmin, "", &account, &["account_id", "team_id"]),
        (Role::ContractManager, &team, "", &["team_id", "account_id"]),
    ] {
        let told = refused(world.hierarchy.set_role(Request::new(request(role, team_id, account_id))).await);
        check(told, "REQUEST_INVALID", fields);
    }
}

#[tokio::test]
async fn what_does_not_exist_is_said_to_be_unknown() {
    let world = World::new().await;
    let chain = world.chain().await;
    let before = world.dump().await;
    let service = &world.hierarchy;
    let [account, team, app, user] = [
        AccountId::generate().to_string(),
        TeamId::generate().to_string(),
        AppId::generate().to_string(),
        UserId::generate().to_string(),
    ];
    let name = || "x".to_owned();
    let request = GetAccountRequest { account_id: account.clone() };
    check(refused(service.get_account(Request::new(request)).await), "ACCOUNT_UNKNOWN", &["account_id"]);
    let request = GetTeamRequest { team_id: team.clone() };
    check(refused(service.get_team(Request::new(request)).await), "TEAM_UNKNOWN", &["team_id"]);
    let request = CreateTeamRequest { account_id: account.clone(), name: name(), ..Default::default() };
    check(refused(service.create_team(Request::new(request)).await), "ACCOUNT_UNKNOWN", &["account_id"]);
    let request = CreateAppRequest { account_id: account, name: name(), ..Default::default() };
    check(refused(service.create_app(Request::new(request)).await), "ACCOUNT_UNKNOWN", &["account_id"]);
    let request = CreateAppRequest {
        account_id: chain.account_id.clone(),
        owner_user_id: user.clone(),
        name: name(),
        request_id: String::new(),
    };
    check(refused(service.create_app(Request::new(request)).await), "USER_UNKNOWN", &["user_id"]);
    let request = CreateCredentialRequest { app_id: app.clone(), ..Default::default() };
    check(refused(service.create_credential(Request::new(request)).await), "APP_UNKNOWN", &["app_id"]);
    let request = World::assignment(&app, &chain.team_id, None);
    check(refused(service.assign_app(request).await), "APP_UNKNOWN", &["app_id"]);
    let request = World::assignment(&chain.app_id, &team, None);
    check(refused(service.assign_app(request).await), "TEAM_UNKNOWN", &["team_id"]);
    let role = |team_id: &str, user_id: &str| SetRoleRequest {
        user_id: user_id.to_owned(),
        role: Role::Member.into(),
        team_id: team_id.to_owned(),
        ..Default::default()
    };
    check(refused(service.set_role(Request::new(role(&team, &user))).await), "TEAM_UNKNOWN", &["team_id"]);
    let told = refused(service.set_role(Request::new(role(&chain.team_id, &user))).await);
    check(told, "USER_UNKNOWN", &["user_id"]);
    assert_eq!(world.dump().await, before);
}

#[tokio::test]
async fn impossible_instants_have_reasons_of_their_own() {
    let world = World::new().await;
    let chain = world.chain().await;
    let before = world.dump().await;
    let service = &world.hierarchy;
    let (future, early) = (wire(at("2026-03-01T12:00:00.000001Z")), wire(at("2025-12-31T23:59:59.999999Z")));
    let account = CreateAccountRequest {
        name: "x".to_owned(),
        contract_kind: 1,
        created_at: future,
        ..Default::default()
    };
    let told = refused(service.create_account(Request::new(account)).await);
    check(told, "INSTANT_IN_FUTURE", &["created_at"]);
    for (created_at, reason) in [(future, "INSTANT_IN_FUTURE"), (early, "INSTANT_BEFORE_ACCOUNT")] {
        let account_id = chain.account_id.clone();
        let team =
            CreateTeamRequest { account_id, name: "x".to_owned(), created_at, request_id: String::new() };
        check(refused(service.create_team(Request::new(team)).await), reason, &["created_at"]);
        let app_id = chain.app_id.clone();
        let credential = CreateCredentialRequest { app_id, created_at, request_id: String::new() };
        check(refused(service.create_credential(Request::new(credential)).await), reason, &["created_at"]);
    }
    for (from, reason) in [
        ("2025-12-31T23:59:00Z", "INSTANT_BEFORE_TEAM"),
        ("2027-04-05T12:01:00.000001Z", "ASSIGNMENT_TOO_FAR_AHEAD"),
    ] {
        let request = World::assignment(&chain.app_id, &chain.team_id, Some(from));
        check(refused(service.assign_app(request).await), reason, &["from"]);
    }
    assert_eq!(world.dump().await, before);
}

#[tokio::test]
async fn questions_are_checked_all_at_once() {
    let world = World::new().await;
    let service = &world.resolutions;
    let query = |client_id: &str, at| ClientInstant { client_id: client_id.to_owned(), at };
    let now = wire(world.now());
    let ask = |queries| service.batch_resolve(Request::new(BatchResolveRequest { queries }));
    check(refused(ask(vec![]).await), "REQUEST_INVALID", &["queries"]);
    let many = vec![query("client_a", now); 10_001];
    check(refused(ask(many).await), "BATCH_TOO_LARGE", &["queries"]);
    let bad = Some(prost_types::Timestamp { seconds: 0, nanos: -1 });
    let mixed = vec![query("a b", now), query("a", now), query("a", None), query("", bad)];
    check(
        refused(ask(mixed).await),
        "REQUEST_INVALID",
        &["queries[0].client_id", "queries[2].at", "queries[3].client_id", "queries[3].at"],
    );
    let told = refused(service.resolve(Request::new(ResolveRequest { query: None })).await);
    check(told, "REQUEST_INVALID", &["query"]);
    let request = ResolveRequest { query: Some(query("", None)) };
    let told = refused(service.resolve(Request::new(request)).await);
    check(told, "REQUEST_INVALID", &["query.client_id", "query.at"]);
}
