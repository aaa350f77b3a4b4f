//! Everything that can be in the way of use.

use drawdown_entitlement::{Accounts, Hubs, Limits};
use drawdown_proto::entitlement::v1::{
    AccessAnswer, AccessLevel as Level, AccessReason as Reason, AssignProductRequest, CreateAppRequest,
    CreateCredentialResponse, CreateHubRequest, LiftSuspensionRequest, MoveAppRequest,
    RevokeCredentialRequest, Role, SetRoleRequest, SuspendRequest,
    account_service_server::AccountService as _, credential_service_server::CredentialService as _,
    hierarchy_service_server::HierarchyService as _, hub_service_server::HubService as _,
    member_service_server::MemberService as _,
};
use tonic::Request;

use super::gate::{Gate, told};
use crate::world::{World, access_policy, ok};

/// A client id with everything in its way: account and team are suspended, its app is in no hub, and the app's owner
/// may not use tokens.
struct Obstructed {
    gate: Gate,
    account_id: String,
    team_id: String,
    owner: String,
    app_id: String,
    credential: CreateCredentialResponse,
}

impl Obstructed {
    async fn new() -> Self {
        let mut world = World::new().await;
        world.parts.limits = Limits { hub_mode: true, ..world.parts.limits };
        let gate = Gate::with(world, access_policy()).await;
        let world = &gate.world;
        let since = Some("2026-01-01T00:00:00Z");
        let account_id = world.account(since, true).await;
        let team_id = world.team(&account_id, since).await;
        let owner = world.user("owner@example.org").await;
        let request = CreateAppRequest {
            account_id: account_id.clone(),
            name: "App".to_owned(),
            owner_user_id: owner.clone(),
            ..Default::default()
        };
        let app_id = ok(world.hierarchy.create_app(Request::new(request)).await).app.unwrap().app_id;
        let credential = world.credential(&app_id, None).await;
        world.assign(&app_id, &team_id, Some("2026-02-01T00:00:00Z")).await;
        let obstructed = Self { gate, account_id, team_id, owner, app_id, credential };
        obstructed.suspend().await;
        obstructed
    }

    /// The account as one, the team as another.
    fn suspended(&self) -> [(String, String); 2] {
        [(self.account_id.clone(), String::new()), (String::new(), self.team_id.clone())]
    }

    async fn suspend(&self) {
        let accounts = Accounts::new(&self.gate.world.parts);
        for (account_id, team_id) in self.suspended() {
            let request =
                SuspendRequest { account_id, team_id, note: "a test".to_owned(), ..Default::default() };
            ok(accounts.suspend(Request::new(request)).await);
        }
    }

    async fn lift(&self) {
        let accounts = Accounts::new(&self.gate.world.parts);
        for (account_id, team_id) in self.suspended() {
            let request = LiftSuspensionRequest {
                account_id,
                team_id,
                note: "a test".to_owned(),
                ..Default::default()
            };
            ok(accounts.lift_suspension(Request::new(request)).await);
        }
    }

    async fn move_to_hub(&self) {
        let hubs = Hubs::new(&self.gate.world.parts);
        let account_id = self.account_id.clone();
        let request = CreateHubRequest { account_id, name: "Hub".to_owned(), ..Default::default() };
        let hub_id = ok(hubs.create_hub(Request::new(request)).await).hub.unwrap().hub_id;
        let request = MoveAppRequest { app_id: self.app_id.clone(), hub_id, ..Default::default() };
        ok(hubs.move_app(Request::new(request)).await);
    }

    async fn make_member(&self) {
        let (user_id, team_id) = (self.owner.clone(), self.team_id.clone());
        let request = SetRoleRequest { user_id, team_id, role: Role::Member.into(), ..Default::default() };
        ok(self.gate.world.hierarchy.set_role(Request::new(request)).await);
    }

    async fn assign_product(&self) {
        let (user_id, team_id) = (self.owner.clone(), self.team_id.clone());
        let request = AssignProductRequest { user_id, team_id, ..Default::default() };
        ok(self.gate.world.members.assign_product(Request::new(request)).await);
    }

    async fn revoke(&self) {
        let credential_id = self.credential.credential_id.clone();
        let request = RevokeCredentialRequest { credential_id, ..Default::default() };
        ok(self.gate.world.credentials.revoke_credential(Request::new(request)).await);
    }

    async fn ask(&self, meter: &str) -> AccessAnswer {
        self.gate.ask(&self.credential.client_id, meter).await
    }

    async fn told(&self, meter: &str) -> (bool, Level, Reason) {
        told(&self.ask(meter).await)
    }

    /// What is in the way of a meter.
    async fn ways(&self, meter: &str) -> Vec<Reason> {
        self.ask(meter).await.remedies.iter().map(|remedy| remedy.reason()).collect()
    }
}

#[tokio::test]
async fn everything_in_the_way_is_told_at_once_and_goes_away_at_once() {
    let client = Obstructed::new().await;
    let all = [Reason::AccountSuspended, Reason::TeamSuspended, Reason::AppArchived, Reason::ProductMissing];
    assert_eq!(client.ways("tile").await, all);
    assert_eq!(client.ask("tile").await.level(), Level::Suspended);
    let free = client.ways("tile.free").await;
    assert_eq!(free, all[..3], "who may use tokens is asked of charged use only (D27)");
    assert_eq!(client.ways("no.such.meter").await[3], Reason::MeterNotKnown);
    client.lift().await;
    assert_eq!(client.ways("tile").await, all[2..]);
    client.move_to_hub().await;
    assert_eq!(client.ways("tile").await, all[3..]);
    assert_eq!(client.told("tile.free").await, (true, Level::Full, Reason::FreeOfCharge));
    client.make_member().await;
    assert_eq!(client.told("tile").await.2, Reason::ProductMissing, "a member is no buyer");
    client.assign_product().await;
    assert_eq!(client.told("tile").await, (true, Level::Full, Reason::InFull));
    client.revoke().await;
    assert_eq!(client.told("tile").await, (false, Level::Unspecified, Reason::ClientRevoked), "at once");
}

#[tokio::test]
async fn a_client_id_that_nobody_has_is_unknown() {
    let gate = Gate::new().await;
    let nobody = gate.told("client_nobody", "tile").await;
    assert_eq!(nobody, (false, Level::Unspecified, Reason::ClientUnknown));
    assert_eq!(gate.told("not well formed", "tile").await.2, Reason::ClientUnknown);
}
