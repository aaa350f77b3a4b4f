//! People, their roles, and who may use the tokens of a team (D27).

use drawdown_proto::entitlement::v1::{
    AssignProductRequest, EndProductAssignmentRequest, EndRoleRequest, GetUserRequest,
    ListProductAssignmentsRequest, ListRolesRequest, ListUsersRequest, ProductAssignment, Role, RoleHeld,
    SetRoleRequest, hierarchy_service_server::HierarchyService as _,
    member_service_server::MemberService as _,
};
use drawdown_types::UserId;
use tonic::{Request, Response, Status};

use crate::world::{World, at, ok, reason, refused, wire};

impl World {
    pub(crate) async fn give_role(&self, user_id: &str, role: Role, scope: &str) {
        let of_team = scope.starts_with("team_");
        let request = SetRoleRequest {
            user_id: user_id.to_owned(),
            role: role.into(),
            team_id: if of_team { scope.to_owned() } else { String::new() },
            account_id: if of_team { String::new() } else { scope.to_owned() },
            request_id: String::new(),
        };
        ok(self.hierarchy.set_role(Request::new(request)).await);
    }

    async fn end_role(&self, user_id: &str, team_id: &str) -> Option<RoleHeld> {
        let (user_id, team_id) = (user_id.to_owned(), team_id.to_owned());
        let request = EndRoleRequest { user_id, team_id, ..Default::default() };
        ok(self.members.end_role(Request::new(request)).await).role
    }

    pub(crate) async fn assign_product(
        &self,
        team_id: &str,
        user_id: &str,
        by: &str,
    ) -> Result<ProductAssignment, Status> {
        let (team_id, user_id) = (team_id.to_owned(), user_id.to_owned());
        let request =
            AssignProductRequest { team_id, user_id, by_user_id: by.to_owned(), request_id: String::new() };
        let answer = self.members.assign_product(Request::new(request)).await;
        answer.map(|answer| answer.into_inner().assignment.unwrap())
    }

    async fn end_product(
        &self,
        team_id: &str,
        user_id: &str,
        by: &str,
    ) -> Result<Option<ProductAssignment>, Status> {
        let (team_id, user_id) = (team_id.to_owned(), user_id.to_owned());
        let request = EndProductAssignmentRequest {
            team_id,
            user_id,
            by_user_id: by.to_owned(),
            request_id: String::new(),
        };
        let answer = self.members.end_product_assignment(Request::new(request)).await;
        answer.map(|answer| answer.into_inner().assignment)
    }

    async fn products(&self, team_id: &str, user_id: &str, with_ended: bool) -> Vec<ProductAssignment> {
        let (team_id, user_id) = (team_id.to_owned(), user_id.to_owned());
        let request = ListProductAssignmentsRequest {
            team_id,
            user_id,
            with_ended,
            page_size: 0,
            page_token: String::new(),
        };
        ok(self.members.list_product_assignments(Request::new(request)).await).assignments
    }
}

#[tokio::test]
async fn people_are_read_as_they_were_registered() {
    let world = World::new().await;
    let mut made = Vec::new();
    for number in 0..5 {
        made.push(world.user(&format!("u{number}@example.com")).await);
    }
    let get = |user_id: String| world.members.get_user(Request::new(GetUserRequest { user_id }));
    assert_eq!(ok(get(made[2].clone()).await).user.unwrap().email, "u2@example.com");
    assert_eq!(refused(get(UserId::generate().to_string()).await).0, "USER_UNKNOWN");
    let list =
        |page_token| world.members.list_users(Request::new(ListUsersRequest { page_size: 0, page_token }));
    let first = ok(list(String::new()).await);
    let second = ok(list(first.next_page_token).await);
    let mut listed: Vec<String> =
        first.users.into_iter().chain(second.users).map(|user| user.user_id).collect();
    listed.sort();
    made.sort();
    assert_eq!((listed, second.next_page_token), (made, String::new()));
}

#[tokio::test]
async fn a_role_ends_at_once_and_stays_in_the_history() {
    let world = &World::new().await;
    let chain = world.chain().await;
    let user = world.user("a@example.com").await;
    world.give_role(&user, Role::Member, &chain.team_id).await;
    world.assign_product(&chain.team_id, &user, "").await.unwrap();
    world.clock.set(at("2026-03-02T00:00:00.000001Z"));
    let ended = world.end_role(&user, &chain.team_id).await.unwrap();
    assert_eq!((ended.role(), ended.to), (Role::Member, wire(world.now())));
    assert_eq!(world.end_role(&user, &chain.team_id).await, None, "the same again is no change");
    let products = world.products(&chain.team_id, "", true).await;
    assert_eq!(products[0].to, wire(world.now()), "with the role the assignment ends");
    world.give_role(&user, Role::PrimaryAdmin, &chain.team_id).await;
    world.give_role(&user, Role::ContractManager, &chain.account_id).await;
    let roles = |user_id: &str, team_id: &str, account_id: &str, with_ended| {
        let (user_id, team_id, account_id) = (user_id.to_owned(), team_id.to_owned(), account_id.to_owned());
        let request = ListRolesRequest { user_id, team_id, account_id, with_ended, ..Default::default() };
        async move {
            let roles = ok(world.members.list_roles(Request::new(request)).await).roles;
            roles.iter().map(RoleHeld::role).collect::<Vec<_>>()
        }
    };
    use Role::{ContractManager, Member, PrimaryAdmin};
    assert_eq!(roles(&user, "", "", true).await, [Member, PrimaryAdmin, ContractManager]);
    assert_eq!(roles(&user, "", "", false).await, [PrimaryAdmin, ContractManager]);
    assert_eq!(roles("", &chain.team_id, "", true).await, [Member, PrimaryAdmin]);
    assert_eq!(roles("", "", &chain.account_id, true).await, [ContractManager]);
    let none = world.members.list_roles(Request::new(ListRolesRequest::default())).await;
    assert_eq!(refused(none), ("REQUEST_INVALID".to_owned(), vec!["user_id".to_owned()]));
}

#[tokio::test]
async fn d27_an_admin_of_the_team_assigns_the_product_to_people_of_the_team() {
    let world = World::new().await;
    let chain = world.chain().await;
    let other = world.team(&chain.account_id, None).await;
    let [admin, member, stranger] = [
        world.user("a@example.com").await,
        world.user("m@example.com").await,
        world.user("s@example.com").await,
    ];
    world.give_role(&admin, Role::SecondaryAdmin, &chain.team_id).await;
    world.give_role(&member, Role::Member, &chain.team_id).await;
    world.give_role(&member, Role::PrimaryAdmin, &other).await;
    let before = world.dump().await;
    for (user, by, told) in [
        (&member, &member, "ADMIN_NEEDED"),
        (&member, &stranger, "ADMIN_NEEDED"),
        (&stranger, &admin, "USER_NOT_OF_TEAM"),
        (&member, &UserId::generate().to_string(), "USER_UNKNOWN"),
        (&UserId::generate().to_string(), &admin, "USER_UNKNOWN"),
    ] {
        let refusal = world.assign_product(&chain.team_id, user, by).await.unwrap_err();
        assert_eq!(reason(&refusal), told);
    }
    assert_eq!(world.dump().await, before);
    let made = world.assign_product(&chain.team_id, &member, &admin).await.unwrap();
    assert_eq!((&made.made_by_user_id, made.from, made.to), (&admin, wire(world.now()), None));
    world.clock.set(at("2026-03-02T00:00:00Z"));
    assert_eq!(world.assign_product(&chain.team_id, &member, "").await.unwrap(), made, "it holds already");
    assert_eq!(world.products("", &member, false).await, std::slice::from_ref(&made));
    let refusal = world.end_product(&chain.team_id, &member, &member).await.unwrap_err();
    assert_eq!(reason(&refusal), "ADMIN_NEEDED");
    let ended = world.end_product(&chain.team_id, &member, &admin).await.unwrap().unwrap();
    assert_eq!(ended, ProductAssignment { to: wire(world.now()), ..made });
    assert_eq!(world.end_product(&chain.team_id, &member, &admin).await.unwrap(), None);
    let again = world.assign_product(&chain.team_id, &member, "").await.unwrap();
    assert_eq!(again.made_by_user_id, "");
    assert_eq!(world.products("", &member, false).await, std::slice::from_ref(&again));
    assert_eq!(world.products("", &member, true).await, [ended, again]);
    let actors: Vec<String> = sqlx::query_scalar(
        "SELECT actor FROM entitlement.audit_log WHERE method LIKE '%Product%' ORDER BY audit_id",
    )
    .fetch_all(world.database.pool())
    .await
    .unwrap();
    assert_eq!(actors, [admin.clone(), admin, "operator".to_owned()]);
}

#[tokio::test]
async fn of_many_that_assign_at_once_one_does() {
    let world = World::new().await;
    let chain = world.chain().await;
    world.warm().await;
    let user = world.user("a@example.com").await;
    world.give_role(&user, Role::Member, &chain.team_id).await;
    let ask = || world.assign_product(&chain.team_id, &user, "");
    let (a, b, c) = tokio::join!(ask(), ask(), ask());
    assert_eq!(a.unwrap(), b.unwrap());
    c.unwrap();
    assert_eq!(world.products(&chain.team_id, "", true).await.len(), 1);
    let one: Response<_> = world
        .members
        .list_product_assignments(Request::new(ListProductAssignmentsRequest {
            user_id: user,
            ..Default::default()
        }))
        .await
        .unwrap();
    assert_eq!(one.into_inner().assignments.len(), 1);
}
