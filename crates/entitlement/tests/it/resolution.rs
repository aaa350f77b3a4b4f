//! Who pays: reasons, trial, contract, order, and ten thousand questions at once.

use drawdown_proto::entitlement::v1::{
    BatchResolveRequest, ClientInstant, ContractKind, CreateAccountRequest, CreateTeamRequest,
    ResolveRequest, UnresolvedReason, hierarchy_service_server::HierarchyService as _, resolution::Answer,
    resolution_service_server::ResolutionService as _,
};
use drawdown_types::Timestamp;
use tonic::Request;

use crate::world::{World, at, ok, wire};

#[tokio::test]
async fn reasons_say_why_nobody_pays() {
    let world = World::new().await;
    let chain = world.chain().await;
    let client_id = world.credential(&chain.app_id, Some("2026-02-01T00:00:30Z")).await.client_id;
    let instants = ["2026-01-31T23:59:59.999999Z", "2026-02-01T00:00:00Z", "2026-03-01T12:00:00Z"].map(at);
    assert_eq!(
        world.who_pays(&client_id, &instants).await,
        [Err(UnresolvedReason::UnknownClient), Err(UnresolvedReason::NoTeam), Err(UnresolvedReason::NoTeam)],
        "known from the window of its credential on"
    );
    let stranger = world.who_pays("client_00000000000000000000000000", &[at("2026-03-01T12:00:00Z")]).await;
    assert_eq!(stranger, [Err(UnresolvedReason::UnknownClient)]);
}

#[tokio::test]
async fn the_trial_and_the_contract_are_those_of_the_window() {
    let world = World::new().await;
    let account = CreateAccountRequest {
        name: "EBA".to_owned(),
        contract_kind: ContractKind::Enterprise.into(),
        created_at: wire(at("2025-01-01T00:00:00Z")),
        ..Default::default()
    };
    let account_id =
        ok(world.hierarchy.create_account(Request::new(account)).await).account.unwrap().account_id;
    let team = CreateTeamRequest {
        account_id: account_id.clone(),
        name: "T".to_owned(),
        created_at: wire(at("2025-01-01T00:00:00Z")),
        request_id: String::new(),
    };
    let team_id = ok(world.hierarchy.create_team(Request::new(team)).await).team.unwrap().team_id;
    let app_id = world.app(&account_id).await;
    let client_id = world.credential(&app_id, Some("2025-02-01T10:00:30Z")).await.client_id;
    world.assign(&app_id, &team_id, Some("2025-01-01T00:00:00Z")).await;
    // 90 × 24 h after 10:00:30, rounded up
    for (instant, in_trial) in [
        ("2025-02-01T10:00:00Z", true),
        ("2025-05-02T10:00:59.999999Z", true),
        ("2025-05-02T10:01:00Z", false),
        ("2030-01-01T00:00:00Z", false),
    ] {
        let billed = world.who_pays(&client_id, &[at(instant)]).await.remove(0).unwrap();
        assert_eq!(billed.in_trial, in_trial, "{instant}");
        assert_eq!(billed.contract_kind(), ContractKind::Enterprise);
        assert_eq!((&billed.account_id, &billed.app_id), (&account_id, &app_id));
    }
}

#[tokio::test]
async fn one_question_is_answered_like_a_batch_of_one() {
    let world = World::new().await;
    let chain = world.chain().await;
    let client_id = world.credential(&chain.app_id, Some("2026-02-01T00:00:00Z")).await.client_id;
    world.assign(&chain.app_id, &chain.team_id, Some("2026-02-01T00:00:00Z")).await;
    let query = ClientInstant { client_id: client_id.clone(), at: wire(at("2026-02-01T00:00:00Z")) };
    let one =
        ok(world.resolutions.resolve(Request::new(ResolveRequest { query: Some(query.clone()) })).await);
    let batch = BatchResolveRequest { queries: vec![query] };
    let many = ok(world.resolutions.batch_resolve(Request::new(batch)).await);
    assert_eq!(one.resolution.as_ref(), many.resolutions.first());
    assert!(matches!(one.resolution.unwrap().answer, Some(Answer::BilledTo(_))));
}

#[tokio::test]
async fn ten_thousand_questions_are_answered_in_the_order_asked() {
    let world = World::new().await;
    let chain = world.chain().await;
    world.many_credentials(&chain, 9_000).await;
    let instant = |n: usize| ["2026-01-01T00:00:00Z", "2026-01-20T00:00:00Z", "2026-02-02T00:00:00Z"][n % 3];
    let queries: Vec<ClientInstant> = (1..=10_000)
        .map(|n| ClientInstant { client_id: format!("client_{n}"), at: wire(at(instant(n))) })
        .collect();
    let asked = queries.clone();
    let answer = world.resolutions.batch_resolve(Request::new(BatchResolveRequest { queries })).await;
    let resolutions = ok(answer).resolutions;
    assert_eq!(resolutions.len(), 10_000);
    let unresolved = |reason: UnresolvedReason| Answer::Unresolved(reason.into());
    for (index, (query, resolution)) in asked.iter().zip(resolutions).enumerate() {
        let n = index + 1;
        assert_eq!(query.client_id, resolution.client_id);
        let answer = resolution.answer.unwrap();
        match (n % 3, n > 9_000, n % 10 == 0) {
            (0, _, _) | (_, true, _) => {
                assert_eq!(answer, unresolved(UnresolvedReason::UnknownClient), "{n}")
            }
            (1, _, _) | (_, _, true) => assert_eq!(answer, unresolved(UnresolvedReason::NoTeam), "{n}"),
            _ => {
                assert!(matches!(answer, Answer::BilledTo(billed) if billed.team_id == chain.team_id), "{n}")
            }
        }
    }
}

#[tokio::test]
async fn repeated_questions_cost_no_more_than_one() {
    let world = World::new().await;
    let chain = world.chain().await;
    let client_id = world.credential(&chain.app_id, Some("2026-02-01T00:00:00Z")).await.client_id;
    world.assign(&chain.app_id, &chain.team_id, Some("2026-02-02T00:00:00Z")).await;
    let start = at("2026-02-02T00:00:00Z").as_micros() - 5_000 * 60_000_000;
    let minutes: Vec<Timestamp> =
        (0..10_000_i64).map(|n| Timestamp::from_micros(start + n * 60_000_000).unwrap()).collect();
    let answers = world.who_pays(&client_id, &minutes).await;
    let first_billed = answers.iter().position(Result::is_ok);
    assert_eq!((first_billed, answers.len()), (Some(5_000), 10_000));
    assert!(answers[5_000..].iter().all(Result::is_ok));
}
