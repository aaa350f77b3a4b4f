//! The ledger is told of an app's first team: once it is in force, at least once, and of nothing else (D49).

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use drawdown_entitlement::{AdoptionConfig, Adoptions, FirstTeam};
use drawdown_proto::entitlement::v1::hierarchy_service_server::HierarchyService as _;

use crate::world::{World, at, refused};

impl World {
    /// One look of the job; gives how many apps the ledger was told of.
    pub(crate) async fn tells(&self) -> usize {
        let config = AdoptionConfig { interval: Duration::from_secs(1), rows_max: 2 };
        Adoptions::new(&self.parts, Arc::clone(&self.ledger) as _, config).look().await.unwrap()
    }

    pub(crate) fn told(&self) -> Vec<FirstTeam> {
        self.ledger.adopted.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn d49_a_first_team_is_told_once_it_is_in_force() {
    let world = World::new().await;
    let chain = world.chain().await;
    let client_id = world.credential(&chain.app_id, Some("2026-02-01T00:00:00Z")).await.client_id;
    let edge = world.assign(&chain.app_id, &chain.team_id, None).await;
    assert_eq!(world.tells().await, 0, "the edge lies ahead");
    // A credential of before the edge belongs to it.
    let second = world.credential(&chain.app_id, None).await.client_id;
    world.clock.set(edge);
    world.tells().await;
    let told = world.told();
    let FirstTeam { account_id, account_since, team_id, app_id, client_ids, assigned_from, .. } =
        told[0].clone();
    assert_eq!(
        (account_id.to_string(), team_id.to_string(), app_id.to_string()),
        (chain.account_id.clone(), chain.team_id.clone(), chain.app_id.clone())
    );
    assert_eq!((account_since, assigned_from), (at("2026-01-01T00:00:00Z"), edge));
    let mut expected = [client_id, second];
    expected.sort();
    assert_eq!(client_ids, expected);
    assert_eq!(world.tells().await, 0);
    // Another team is not the first.
    let other = world.team(&chain.account_id, None).await;
    let next = world.assign(&chain.app_id, &other, None).await;
    world.clock.set(next);
    assert_eq!(world.tells().await, 0);
    assert!(world.told().iter().all(|told| told.team_id == team_id));
}

#[tokio::test]
async fn what_the_ledger_did_not_take_is_told_again_and_as_the_same_call() {
    let world = World::new().await;
    let chain = world.chain().await;
    world.credential(&chain.app_id, None).await;
    world.clock.set(world.assign(&chain.app_id, &chain.team_id, None).await);
    world.ledger.is_away.store(true, Ordering::SeqCst);
    assert_eq!(world.tells().await, 0);
    world.ledger.is_away.store(false, Ordering::SeqCst);
    // The ledger did it, and this service stopped before it noted so.
    world.ledger.loses_answers.store(true, Ordering::SeqCst);
    assert_eq!(world.tells().await, 0);
    world.ledger.loses_answers.store(false, Ordering::SeqCst);
    assert_eq!(world.tells().await, 1);
    let told = world.told();
    assert_eq!((told.len(), &told[0]), (2, &told[1]));
    assert_eq!(world.tells().await, 0);
}

#[tokio::test]
async fn a_credential_of_before_the_first_team_is_told_when_it_is_entered() {
    let world = World::new().await;
    let chain = world.chain().await;
    world.credential(&chain.app_id, Some("2026-02-01T00:00:00Z")).await;
    let edge = world.assign(&chain.app_id, &chain.team_id, None).await;
    world.clock.set(edge);
    assert_eq!(world.tells().await, 1);
    // Since the edge: it has no usage without a team.
    world.credential(&chain.app_id, None).await;
    assert_eq!(world.tells().await, 0);
    let earlier = world.credential(&chain.app_id, Some("2026-02-10T00:00:00Z")).await.client_id;
    assert_eq!(world.tells().await, 1);
    let last = world.told().pop().unwrap();
    assert!(last.client_ids.contains(&earlier) && last.assigned_from == edge);
    assert_ne!(last.request_id, world.told()[0].request_id);
}

#[tokio::test]
async fn a_refused_assignment_and_an_app_without_credentials_tell_nothing() {
    let world = World::new().await;
    let chain = world.chain().await;
    let stranger = world.chain().await;
    let request = World::assignment(&chain.app_id, &stranger.team_id, None);
    assert_eq!(refused(world.hierarchy.assign_app(request).await).0, "APP_AND_TEAM_DIFFER");
    world.clock.set(world.assign(&stranger.app_id, &stranger.team_id, None).await);
    assert_eq!(world.tells().await, 1, "the row is done");
    assert!(world.told().is_empty(), "and there was nothing to tell");
}

#[tokio::test]
async fn an_app_that_the_ledger_refuses_does_not_stop_the_others() {
    let world = World::new().await;
    let mut chains = Vec::new();
    for _ in 0..5 {
        let chain = world.chain().await;
        world.credential(&chain.app_id, None).await;
        world.clock.set(world.assign(&chain.app_id, &chain.team_id, None).await);
        chains.push(chain);
    }
    world.ledger.refuses.lock().unwrap().insert(chains[0].app_id.clone());
    assert_eq!(world.tells().await, 4);
    world.ledger.refuses.lock().unwrap().clear();
    assert_eq!(world.tells().await, 1);
}
