//! Roles: one primary admin a team, one role a person, all of it kept.

use drawdown_proto::entitlement::v1::{
    CreateUserRequest, Role, SetRoleRequest, hierarchy_service_server::HierarchyService as _,
};
use drawdown_types::Timestamp;
use tonic::{Request, Response, Status};

use crate::world::{World, at, instant, ok, reason, refused};

fn request(user_id: &str, role: Role, scope: &str) -> Request<SetRoleRequest> {
    let of_team = scope.starts_with("team_");
    Request::new(SetRoleRequest {
        user_id: user_id.to_owned(),
        role: role.into(),
        team_id: if of_team { scope.to_owned() } else { String::new() },
        account_id: if of_team { String::new() } else { scope.to_owned() },
        request_id: String::new(),
    })
}

async fn set(world: &World, user_id: &str, role: Role, scope: &str) -> Timestamp {
    instant(ok(world.hierarchy.set_role(request(user_id, role, scope)).await).from.as_ref())
}

async fn history(world: &World) -> Vec<(String, bool)> {
    sqlx::query_as("SELECT role, to_at IS NULL FROM entitlement.role_history ORDER BY role_id")
        .fetch_all(world.database.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_role_follows_another_and_both_are_kept() {
    let world = World::new().await;
    let chain = world.chain().await;
    let user = world.user("a@example.com").await;
    assert_eq!(set(&world, &user, Role::Member, &chain.team_id).await, world.now());
    world.clock.set(at("2026-03-02T00:00:00.000001Z"));
    let since = set(&world, &user, Role::PrimaryAdmin, &chain.team_id).await;
    assert_eq!(since, world.now(), "at once, not at an edge");
    set(&world, &user, Role::ContractManager, &chain.account_id).await;
    world.clock.set(at("2026-03-03T00:00:00Z"));
    assert_eq!(set(&world, &user, Role::PrimaryAdmin, &chain.team_id).await, since, "nothing new");
    let kept = [("member", false), ("primary_admin", true), ("contract_manager", true)];
    assert_eq!(history(&world).await, kept.map(|(role, open)| (role.to_owned(), open)));
}

#[tokio::test]
async fn a_team_has_one_primary_admin_also_in_a_race() {
    let world = World::new().await;
    let chain = world.chain().await;
    let (a, b) = (world.user("a@example.com").await, world.user("b@example.com").await);
    let ask = |user: &str| world.hierarchy.set_role(request(user, Role::PrimaryAdmin, &chain.team_id));
    let (one, two) = tokio::join!(ask(&a), ask(&b));
    let refusals: Vec<Status> = [one, two].into_iter().filter_map(Result::err).collect();
    assert_eq!(refusals.iter().map(reason).collect::<Vec<_>>(), ["PRIMARY_ADMIN_TAKEN"]);
    let holder: uuid::Uuid = sqlx::query_scalar("SELECT user_id FROM entitlement.role_history")
        .fetch_one(world.database.pool())
        .await
        .unwrap();
    let holder = drawdown_types::UserId::from_uuid(holder).to_string();
    let other = if holder == a { b } else { a };
    set(&world, &holder, Role::SecondaryAdmin, &chain.team_id).await;
    set(&world, &other, Role::PrimaryAdmin, &chain.team_id).await;
    let told = refused(ask(&holder).await);
    assert_eq!(told, ("PRIMARY_ADMIN_TAKEN".to_owned(), vec!["role".to_owned()]));
}

#[tokio::test]
async fn a_mail_address_belongs_to_one_person() {
    let world = World::new().await;
    world.user("Ada@Example.com").await;
    let create = |email: &str| {
        let request =
            CreateUserRequest { email: email.to_owned(), name: "Ada".to_owned(), request_id: String::new() };
        world.hierarchy.create_user(Request::new(request))
    };
    let told = refused(create("ada@example.COM").await);
    assert_eq!(told, ("EMAIL_TAKEN".to_owned(), vec!["email".to_owned()]));
    let other: Response<_> = create("ada2@example.com").await.unwrap();
    assert_eq!(other.into_inner().user.unwrap().email, "ada2@example.com");
}
