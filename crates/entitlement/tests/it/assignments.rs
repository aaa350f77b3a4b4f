//! Assigning apps: edges, schedules, pasts, foreign teams, races.

use std::sync::atomic::Ordering;

use drawdown_proto::entitlement::v1::{UnresolvedReason, hierarchy_service_server::HierarchyService as _};
use drawdown_types::Timestamp;

use crate::world::{World, at, refused};

fn one_micro_before(edge: Timestamp) -> Timestamp {
    Timestamp::from_micros(edge.as_micros() - 1).unwrap()
}

#[tokio::test]
async fn an_assignment_holds_from_its_edge_on_and_not_a_microsecond_before() {
    let world = World::new().await;
    let chain = world.chain().await;
    let other = world.team(&chain.account_id, None).await;
    let client_id = world.credential(&chain.app_id, Some("2026-02-01T00:00:00Z")).await.client_id;
    world.clock.set(at("2026-03-01T12:00:55.000001Z"));
    let first = world.assign(&chain.app_id, &chain.team_id, None).await;
    assert_eq!(first, at("2026-03-01T12:02:00Z"), "the edge at 12:01 is less than five seconds away");
    let second = world.assign(&chain.app_id, &other, Some("2026-03-02T00:00:00.000001Z")).await;
    assert_eq!(second, at("2026-03-02T00:01:00Z"), "rounded up");
    for (instant, team) in [
        (at("2026-02-01T00:00:00Z"), Err(UnresolvedReason::NoTeam)),
        (one_micro_before(first), Err(UnresolvedReason::NoTeam)),
        (first, Ok(chain.team_id.clone())),
        (one_micro_before(second), Ok(chain.team_id.clone())),
        (second, Ok(other.clone())),
        (at("2036-01-01T00:00:00Z"), Ok(other.clone())),
    ] {
        assert_eq!(world.team_at(&client_id, instant).await, team, "{instant}");
    }
}

#[tokio::test]
async fn the_same_team_again_changes_nothing() {
    let world = World::new().await;
    let chain = world.chain().await;
    let first = world.assign(&chain.app_id, &chain.team_id, None).await;
    let before = world.dump().await;
    world.clock.set(at("2026-04-01T00:00:00Z"));
    assert_eq!(world.assign(&chain.app_id, &chain.team_id, None).await, first);
    assert_eq!(world.dump().await, before);
}

#[tokio::test]
async fn a_link_that_begins_later_is_never_cut() {
    let world = World::new().await;
    let chain = world.chain().await;
    let other = world.team(&chain.account_id, None).await;
    world.assign(&chain.app_id, &other, Some("2026-03-01T13:00:00Z")).await;
    let before = world.dump().await;
    for from in
        [None, Some("2026-03-01T12:30:00Z"), Some("2026-03-01T13:00:00Z"), Some("2026-02-01T00:00:00Z")]
    {
        let request = World::assignment(&chain.app_id, &chain.team_id, from);
        let told = refused(world.hierarchy.assign_app(request).await);
        assert_eq!(told, ("ASSIGNMENT_OVERLAP".to_owned(), vec!["from".to_owned()]), "{from:?}");
    }
    assert_eq!(world.dump().await, before);
}

#[tokio::test]
async fn a_past_is_entered_where_nothing_of_it_is_settled() {
    let world = World::new().await;
    let chain = world.chain().await;
    let client_id = world.credential(&chain.app_id, Some("2026-01-01T00:00:00Z")).await.client_id;
    let another = world.credential(&chain.app_id, Some("2026-01-01T00:00:00Z")).await.client_id;
    let edge = at("2026-02-01T00:01:00Z");
    let from = Some("2026-02-01T00:00:30Z");
    // settled in the window before the edge: that answer does not change
    world.ledger.settle(&client_id, at("2026-02-01T00:00:00Z"));
    world.ledger.settle(&another, edge);
    let before = world.dump().await;
    let request = World::assignment(&chain.app_id, &chain.team_id, from);
    let told = refused(world.hierarchy.assign_app(request).await);
    assert_eq!(told, ("WINDOW_SETTLED".to_owned(), vec!["from".to_owned()]));
    assert_eq!(world.dump().await, before);
    assert_eq!(
        world.ledger.questions.lock().unwrap().as_slice(),
        [(2, edge)],
        "asked once, for all credentials"
    );
    world.ledger.settle(&another, at("2026-02-01T00:00:00Z"));
    assert_eq!(world.assign(&chain.app_id, &chain.team_id, from).await, edge);
    assert_eq!(world.team_at(&client_id, one_micro_before(edge)).await, Err(UnresolvedReason::NoTeam));
    assert_eq!(world.team_at(&client_id, edge).await, Ok(chain.team_id));
}

#[tokio::test]
async fn an_absent_ledger_stops_pasts_and_nothing_else() {
    let world = World::new().await;
    let chain = world.chain().await;
    world.credential(&chain.app_id, None).await;
    world.ledger.is_away.store(true, Ordering::SeqCst);
    let before = world.dump().await;
    let request = World::assignment(&chain.app_id, &chain.team_id, Some("2026-02-01T00:00:00Z"));
    assert_eq!(refused(world.hierarchy.assign_app(request).await).0, "LEDGER_UNAVAILABLE");
    assert_eq!(world.dump().await, before);
    assert_eq!(world.assign(&chain.app_id, &chain.team_id, None).await, at("2026-03-01T12:01:00Z"));
}

#[tokio::test]
async fn a_team_of_another_account_is_refused_and_nothing_changes() {
    let world = World::new().await;
    let (chain, stranger) = (world.chain().await, world.chain().await);
    let client_id = world.credential(&chain.app_id, Some("2026-01-01T00:00:00Z")).await.client_id;
    world.assign(&chain.app_id, &chain.team_id, Some("2026-01-01T00:00:00Z")).await;
    let before = world.dump().await;
    for from in [None, Some("2026-02-01T00:00:00Z"), Some("2026-06-01T00:00:00Z")] {
        let request = World::assignment(&chain.app_id, &stranger.team_id, from);
        let told = refused(world.hierarchy.assign_app(request).await);
        assert_eq!(told, ("APP_AND_TEAM_DIFFER".to_owned(), vec!["team_id".to_owned()]));
    }
    assert_eq!(world.dump().await, before);
    assert_eq!(world.team_at(&client_id, at("2027-01-01T00:00:00Z")).await, Ok(chain.team_id));
}

#[tokio::test]
async fn of_two_that_race_for_one_edge_one_wins() {
    let world = World::new().await;
    let chain = world.chain().await;
    let other = world.team(&chain.account_id, None).await;
    world.warm().await;
    for round in 0..10 {
        let app_id = world.app(&chain.account_id).await;
        let ask = |team_id: &str| world.hierarchy.assign_app(World::assignment(&app_id, team_id, None));
        let (a, b) = tokio::join!(ask(&chain.team_id), ask(&other));
        let refusals = [a, b].into_iter().filter_map(Result::err).collect::<Vec<_>>();
        let reasons: Vec<_> = refusals.iter().map(crate::world::reason).collect();
        assert_eq!(reasons, ["ASSIGNMENT_OVERLAP"], "round {round}");
    }
}
