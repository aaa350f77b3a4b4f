//! Acts in each other's way, and acts that take longer than the edge they planned for is away.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use drawdown_entitlement::{Hierarchy, Parts};
use drawdown_proto::entitlement::v1::{
    CreateAppRequest, CreateCredentialRequest, CreateTeamRequest, Role, SetRoleRequest,
    hierarchy_service_server::HierarchyService as _,
};
use drawdown_types::{Clock, Timestamp};
use futures::future::join_all;
use tonic::{Request, Status};

use crate::world::{Chain, World, at, instant, ok, reason, refused};

/// Every look at this clock takes its step.
struct SteppingClock {
    start: Timestamp,
    step: Duration,
    looks: AtomicU64,
}

impl Clock for SteppingClock {
    fn now(&self) -> Timestamp {
        let looks = u32::try_from(self.looks.fetch_add(1, Ordering::SeqCst)).unwrap();
        self.start.checked_add(self.step * looks).unwrap()
    }
}

fn stepping(world: &World, start: &str, step_secs: u64) -> Hierarchy {
    let clock =
        SteppingClock { start: at(start), step: Duration::from_secs(step_secs), looks: AtomicU64::default() };
    Hierarchy::new(&Parts { clock: Arc::new(clock), ..world.parts.clone() })
}

#[tokio::test]
async fn an_edge_that_comes_too_near_while_writing_is_planned_again() {
    let world = World::new().await;
    let chain = world.chain().await;
    // planned at :54 for 12:01, written at :58: too near; planned again at 12:01:06 for 12:02
    let service = stepping(&world, "2026-03-01T12:00:50Z", 4);
    let request = World::assignment(&chain.app_id, &chain.team_id, None);
    let from = instant(ok(service.assign_app(request).await).from.as_ref());
    assert_eq!(from, at("2026-03-01T12:02:00Z"));
    let links: i64 = sqlx::query_scalar("SELECT count(*) FROM entitlement.app_team")
        .fetch_one(world.database.pool())
        .await
        .unwrap();
    assert_eq!(links, 1, "the first try left nothing");
}

#[tokio::test]
async fn an_act_that_never_keeps_up_is_given_up() {
    let world = World::new().await;
    let chain = world.chain().await;
    let before = world.dump().await;
    let service = stepping(&world, "2026-03-01T12:00:50Z", 61);
    let told = refused(service.assign_app(World::assignment(&chain.app_id, &chain.team_id, None)).await);
    assert_eq!(told.0, "OVERTAKEN");
    assert_eq!(world.dump().await, before);
}

async fn one_act(world: &World, chain: &Chain, user_id: &str, number: usize) -> Result<(), Status> {
    let service = &world.hierarchy;
    let (app_id, account_id) = (chain.app_id.clone(), chain.account_id.clone());
    let (name, request_id) = ("x".to_owned(), format!("act-{number}"));
    match number % 6 {
        0 | 3 => {
            let request = CreateCredentialRequest { app_id, created_at: None, request_id };
            service.create_credential(Request::new(request)).await.map(drop)
        }
        1 => {
            let request = CreateTeamRequest { account_id, name, created_at: None, request_id };
            service.create_team(Request::new(request)).await.map(drop)
        }
        2 => {
            let request =
                CreateAppRequest { account_id, owner_user_id: user_id.to_owned(), name, request_id };
            service.create_app(Request::new(request)).await.map(drop)
        }
        4 => service.assign_app(World::assignment(&app_id, &chain.team_id, None)).await.map(drop),
        _ => {
            let role = if number % 12 == 5 { Role::Member } else { Role::SecondaryAdmin };
            let (user_id, team_id) = (user_id.to_owned(), chain.team_id.clone());
            let request =
                SetRoleRequest { user_id, role: role.into(), team_id, account_id: String::new(), request_id };
            service.set_role(Request::new(request)).await.map(drop)
        }
    }
}

#[tokio::test]
async fn acts_on_one_account_wait_for_each_other_and_never_deadlock() {
    let world = World::new().await;
    let chain = world.chain().await;
    let user_id = world.user("a@example.com").await;
    let acts = (0..60).map(|number| one_act(&world, &chain, &user_id, number));
    let failed: Vec<String> =
        join_all(acts).await.into_iter().filter_map(Result::err).map(|status| reason(&status)).collect();
    assert_eq!(failed, Vec::<String>::new());
}
