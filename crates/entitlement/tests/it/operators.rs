//! What an operator alone does, also where the method is open to tenants: entering a past, taking back what an operator
//! scheduled. And request ids, which are of each tenant for itself.

use std::{future::Future, sync::Arc};

use drawdown_proto::entitlement::v1::{
    CreateCredentialRequest, CreateTeamRequest, EndTrialRequest, SetRoleRequest,
    account_service_server::AccountService as _, hierarchy_service_server::HierarchyService as _,
};
use drawdown_service::identity::{self, Caller, Role, Roles, Scope};
use drawdown_types::Timestamp;
use tonic::{Code, Request, Status};

use crate::world::{World, at, instant, ok, reason, wire};

/// Calls as the contract manager of an account.
async fn by_manager<F: Future>(account_id: &str, call: F) -> F::Output {
    let roles = Roles::of(&[Role::ContractManager]);
    let scope = Scope::Account(account_id.parse().unwrap());
    identity::scope(Arc::new(Caller { roles, scope, ..Caller::local() }), call).await
}

/// Four acts that a tenant may do, with an instant or without.
async fn acts(world: &World, account_id: &str, at: Option<Timestamp>) -> Vec<Result<(), Status>> {
    let (team_id, app_id) =
        (world.team(account_id, Some("2026-01-01T00:00:00Z")).await, world.app(account_id).await);
    let at = at.and_then(wire);
    let of_account = || account_id.to_owned();
    let team = CreateTeamRequest {
        account_id: of_account(),
        name: "T".to_owned(),
        created_at: at,
        ..CreateTeamRequest::default()
    };
    let credential =
        CreateCredentialRequest { app_id: app_id.clone(), created_at: at, request_id: String::new() };
    let mut assignment = World::assignment(&app_id, &team_id, None);
    assignment.get_mut().from = at;
    let end = EndTrialRequest { account_id: of_account(), from: at, ..EndTrialRequest::default() };
    let hierarchy = &world.hierarchy;
    vec![
        by_manager(account_id, hierarchy.create_team(Request::new(team))).await.map(drop),
        by_manager(account_id, hierarchy.create_credential(Request::new(credential))).await.map(drop),
        by_manager(account_id, hierarchy.assign_app(assignment)).await.map(drop),
        by_manager(account_id, world.accounts.end_trial(Request::new(end))).await.map(drop),
    ]
}

#[tokio::test]
async fn d61_a_past_is_entered_by_operators_only() {
    let world = World::new().await;
    let account_id = world.account(Some("2026-01-01T00:00:00Z"), false).await;
    world.clock.set(at("2026-03-01T12:10:00Z"));
    for past in ["2026-02-01T00:00:00Z", "2026-03-01T12:09:59.999999Z"] {
        for (n, answer) in acts(&world, &account_id, Some(at(past))).await.into_iter().enumerate() {
            let refusal = answer.unwrap_err();
            assert_eq!(
                (refusal.code(), reason(&refusal).as_str()),
                (Code::PermissionDenied, "OPERATOR_NEEDED"),
                "act {n} at {past}: {refusal:?}"
            );
        }
    }
    assert!(world.ledger.questions.lock().unwrap().is_empty(), "and the ledger was not asked for it");
    for (n, answer) in acts(&world, &account_id, None).await.into_iter().enumerate() {
        assert!(answer.is_ok(), "act {n} without an instant: {answer:?}");
    }
    // the operator goes on as before
    let (app_id, team_id) =
        (world.app(&account_id).await, world.team(&account_id, Some("2026-02-01T00:00:00Z")).await);
    world.credential(&app_id, Some("2026-02-01T00:00:00Z")).await;
    assert_eq!(
        world.assign(&app_id, &team_id, Some("2026-02-02T00:00:00Z")).await,
        at("2026-02-02T00:00:00Z")
    );
}

#[tokio::test]
async fn a_tenant_takes_its_own_changes_back_and_not_those_of_an_operator() {
    let world = World::new().await;
    let account_id = world.account(Some("2026-01-01T00:00:00Z"), false).await;
    ok(world.accounts.change_contract(World::contract(&account_id, None)).await);
    let change = world.scheduled(&account_id).await.remove(0).change_id;
    let refusal = by_manager(&account_id, world.cancel(&change)).await.unwrap_err();
    assert_eq!((refusal.code(), reason(&refusal).as_str()), (Code::PermissionDenied, "OPERATOR_NEEDED"));
    assert_eq!(world.scheduled(&account_id).await.remove(0).change_id, change);
    world.cancel(&change).await.unwrap();
    let request = EndTrialRequest {
        account_id: account_id.clone(),
        from: wire(at("2026-03-10T00:00:00Z")),
        request_id: String::new(),
    };
    by_manager(&account_id, world.accounts.end_trial(Request::new(request))).await.unwrap();
    let change = world.scheduled(&account_id).await.remove(0).change_id;
    by_manager(&account_id, world.cancel(&change)).await.unwrap();
}

#[tokio::test]
async fn a_trial_end_that_is_taken_back_leaves_the_one_before_it() {
    let world = World::new().await;
    let account_id = world.account(Some("2026-01-01T00:00:00Z"), false).await;
    let app_id = world.app(&account_id).await;
    world.credential(&app_id, None).await;
    let first = world.end_trial(&account_id, Some("2026-04-01T00:00:00Z")).await;
    let made_at = wire(world.now());
    world.clock.set(at("2026-03-01T13:00:00Z"));
    world.end_trial(&account_id, Some("2026-03-20T00:00:00Z")).await;
    world.end_trial(&account_id, Some("2026-03-10T00:00:00Z")).await;
    let ends = async || {
        let changes = world.scheduled(&account_id).await;
        changes.into_iter().map(|change| (instant(change.from.as_ref()), change.made_at)).next()
    };
    let cancel = async || {
        let change = world.scheduled(&account_id).await.remove(0);
        world.cancel(&change.change_id).await.unwrap();
    };
    let later = wire(world.now());
    for expected in [
        Some((at("2026-03-10T00:00:00Z"), later)),
        Some((at("2026-03-20T00:00:00Z"), later)),
        Some((first, made_at)),
    ] {
        assert_eq!(ends().await, expected);
        cancel().await;
    }
    assert_eq!(ends().await, None, "the trial runs to its own end");
}

#[tokio::test]
async fn a_request_id_is_of_the_account_of_its_caller() {
    let world = World::new().await;
    let (mine, other) = (world.chain().await, world.chain().await);
    let user_id = world.user("a@example.org").await;
    let role = |team_id: &str, role: i32| {
        Request::new(SetRoleRequest {
            user_id: user_id.clone(),
            role,
            team_id: team_id.to_owned(),
            request_id: "1".to_owned(),
            ..SetRoleRequest::default()
        })
    };
    // theirs, the platform's and mine are three
    by_manager(&other.account_id, world.hierarchy.set_role(role(&other.team_id, 3))).await.unwrap();
    ok(world.hierarchy.set_role(role(&other.team_id, 2)).await);
    let first = by_manager(&mine.account_id, world.hierarchy.set_role(role(&mine.team_id, 3))).await;
    let first = ok(first);
    world.clock.set(at("2026-04-01T00:00:00Z"));
    let again = by_manager(&mine.account_id, world.hierarchy.set_role(role(&mine.team_id, 3))).await;
    assert_eq!(ok(again), first, "a retry of mine");
    let changed = by_manager(&mine.account_id, world.hierarchy.set_role(role(&mine.team_id, 2))).await;
    assert_eq!(reason(&changed.unwrap_err()), "REQUEST_ID_CONFLICT");
}
