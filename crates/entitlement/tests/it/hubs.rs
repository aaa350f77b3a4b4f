//! Hub mode: an app outside of the hubs of its account is archived (D29).

use drawdown_entitlement::{Hierarchy, Hubs, Limits, Parts};
use drawdown_proto::entitlement::v1::{
    App, CreateHubRequest, Hub, ListAppsRequest, ListHubsRequest, MoveAppRequest, MoveAppResponse,
    hierarchy_service_server::HierarchyService as _, hub_service_server::HubService as _,
};
use drawdown_types::{AccountId, AppId, HubId};
use tonic::{Request, Response, Status};

use crate::world::{World, at, ok, refused, wire};

/// The same service with hub mode on.
struct HubMode {
    hierarchy: Hierarchy,
    hubs: Hubs,
}

impl HubMode {
    fn of(world: &World) -> Self {
        let limits = Limits { hub_mode: true, ..world.parts.limits };
        let parts = Parts { limits, ..world.parts.clone() };
        Self { hierarchy: Hierarchy::new(&parts), hubs: Hubs::new(&parts) }
    }

    async fn hub(&self, account_id: &str, name: &str) -> Hub {
        let (account_id, name) = (account_id.to_owned(), name.to_owned());
        let request = CreateHubRequest { account_id, name, request_id: String::new() };
        ok(self.hubs.create_hub(Request::new(request)).await).hub.unwrap()
    }

    async fn place(&self, app_id: &str, hub_id: &str) -> Result<Response<MoveAppResponse>, Status> {
        let (app_id, hub_id) = (app_id.to_owned(), hub_id.to_owned());
        self.hubs.move_app(Request::new(MoveAppRequest { app_id, hub_id, request_id: String::new() })).await
    }

    async fn app(&self, account_id: &str) -> App {
        let request = ListAppsRequest { account_id: account_id.to_owned(), ..Default::default() };
        ok(self.hierarchy.list_apps(Request::new(request)).await).apps.remove(0)
    }
}

#[tokio::test]
async fn d29_moving_an_app_in_restores_it_and_out_archives_it() {
    let world = World::new().await;
    let chain = world.chain().await;
    let mode = HubMode::of(&world);
    let (one, two) = (mode.hub(&chain.account_id, "One").await, mode.hub(&chain.account_id, "Two").await);
    let read = mode.app(&chain.account_id).await;
    assert_eq!((read.hub_id.as_str(), read.archived), ("", true), "it never was in a hub");
    for (now, hub_id, archived) in [
        ("2026-03-01T13:00:00.000001Z", one.hub_id.as_str(), false),
        ("2026-03-01T14:00:00Z", &two.hub_id, false),
        ("2026-03-01T15:00:00Z", "", true),
        ("2026-03-01T16:00:00Z", &one.hub_id, false),
    ] {
        world.clock.set(at(now));
        let moved = ok(mode.place(&chain.app_id, hub_id).await);
        assert_eq!(
            (moved.hub_id.as_str(), moved.from, moved.archived),
            (hub_id, wire(world.now()), archived),
            "at once, not at an edge"
        );
        let read = mode.app(&chain.account_id).await;
        assert_eq!((read.hub_id.as_str(), read.archived), (hub_id, archived));
        let before = world.dump().await;
        assert_eq!(ok(mode.place(&chain.app_id, hub_id).await), moved, "the same again is no change");
        assert_eq!(world.dump().await, before);
    }
    let stays: i64 = sqlx::query_scalar("SELECT count(*) FROM entitlement.app_hub")
        .fetch_one(world.database.pool())
        .await
        .unwrap();
    assert_eq!(stays, 3, "the history stays");
}

#[tokio::test]
async fn d29_without_hub_mode_no_app_is_archived() {
    let world = World::new().await;
    let chain = world.chain().await;
    let request = ListAppsRequest { account_id: chain.account_id.clone(), ..Default::default() };
    let apps = ok(world.hierarchy.list_apps(Request::new(request)).await).apps;
    assert!(!apps[0].archived);
}

#[tokio::test]
async fn d29_an_app_that_changed_its_account_is_outside_of_its_old_hub() {
    let world = World::new().await;
    let (giving, receiving) = (world.chain().await, world.chain().await);
    let mode = HubMode::of(&world);
    world.assign(&giving.app_id, &giving.team_id, Some("2026-02-01T00:00:00Z")).await;
    let old = mode.hub(&giving.account_id, "Old").await.hub_id;
    let new = mode.hub(&receiving.account_id, "New").await.hub_id;
    ok(mode.place(&giving.app_id, &old).await);
    let told = refused(mode.place(&giving.app_id, &new).await);
    assert_eq!(told, ("HUB_OF_OTHER_ACCOUNT".to_owned(), vec!["hub_id".to_owned()]));
    world.clock.set(world.hand_over(&giving.app_id, &receiving.team_id).await.unwrap());
    let request = ListAppsRequest { account_id: receiving.account_id.clone(), ..Default::default() };
    let apps = ok(mode.hierarchy.list_apps(Request::new(request)).await).apps;
    let moved = apps.iter().find(|app| app.app_id == giving.app_id).unwrap();
    assert_eq!((moved.hub_id.as_str(), moved.archived), ("", true));
    assert_eq!(refused(mode.place(&giving.app_id, &old).await).0, "HUB_OF_OTHER_ACCOUNT");
    assert!(!ok(mode.place(&giving.app_id, &new).await).archived);
}

#[tokio::test]
async fn hubs_are_listed_and_what_does_not_exist_is_named() {
    let world = World::new().await;
    let chain = world.chain().await;
    let mode = HubMode::of(&world);
    let mut made = Vec::new();
    for number in 0..4 {
        made.push(mode.hub(&chain.account_id, &format!("Hub {number}")).await);
    }
    let list = |account_id: String, page_token| {
        mode.hubs.list_hubs(Request::new(ListHubsRequest { account_id, page_size: 0, page_token }))
    };
    let first = ok(list(chain.account_id.clone(), String::new()).await);
    let second = ok(list(chain.account_id.clone(), first.next_page_token).await);
    let mut listed = [first.hubs, second.hubs].concat();
    listed.sort_by(|a, b| a.hub_id.cmp(&b.hub_id));
    made.sort_by(|a, b| a.hub_id.cmp(&b.hub_id));
    assert_eq!(listed, made);
    let nobody = AccountId::generate().to_string();
    assert_eq!(refused(list(nobody, String::new()).await).0, "ACCOUNT_UNKNOWN");
    let (app, hub) = (AppId::generate().to_string(), HubId::generate().to_string());
    assert_eq!(refused(mode.place(&app, "").await).0, "APP_UNKNOWN");
    assert_eq!(refused(mode.place(&chain.app_id, &hub).await).0, "HUB_UNKNOWN");
    let none = refused(mode.place(&chain.app_id, "hub").await);
    assert_eq!(none, ("REQUEST_INVALID".to_owned(), vec!["hub_id".to_owned()]));
}
