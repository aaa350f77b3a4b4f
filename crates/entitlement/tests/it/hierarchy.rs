//! What was entered is what is read: accounts, teams, users, apps, pages.

use drawdown_proto::entitlement::v1::{
    ContractKind, CreateAccountRequest, CreateAppRequest, GetAccountRequest, GetTeamRequest, ListAppsRequest,
    ListTeamsRequest, hierarchy_service_server::HierarchyService as _,
};
use tonic::Request;

use crate::world::{World, at, instant, ok, refused};

#[tokio::test]
async fn an_account_is_read_as_it_was_opened() {
    let world = World::new().await;
    let request = CreateAccountRequest {
        name: "Bauhaus GmbH & Söhne".to_owned(),
        contract_kind: ContractKind::Enterprise.into(),
        ..CreateAccountRequest::default()
    };
    let opened = ok(world.hierarchy.create_account(Request::new(request)).await).account.unwrap();
    assert_eq!(instant(opened.created_at.as_ref()), world.now());
    assert_eq!((opened.trial_started_at, opened.trial_ends_at), (None, None));
    let request = GetAccountRequest { account_id: opened.account_id.clone() };
    let read = ok(world.hierarchy.get_account(Request::new(request)).await).account.unwrap();
    assert_eq!(read, opened);
    assert_eq!(read.contract_kind(), ContractKind::Enterprise);
}

#[tokio::test]
async fn the_first_credential_begins_the_trial() {
    let world = World::new().await;
    let account_id = world.account(Some("2026-01-01T00:00:30.5Z"), false).await;
    let app_id = world.app(&account_id).await;
    world.credential(&app_id, None).await;
    world.credential(&app_id, None).await;
    let request = GetAccountRequest { account_id };
    let read = ok(world.hierarchy.get_account(Request::new(request)).await).account.unwrap();
    assert_eq!(instant(read.created_at.as_ref()), at("2026-01-01T00:00:30.5Z"));
    assert_eq!(instant(read.trial_started_at.as_ref()), world.now());
    assert_eq!(instant(read.trial_ends_at.as_ref()), at("2026-05-30T12:00:00Z"));
}

#[tokio::test]
async fn a_team_comes_with_its_account() {
    let world = World::new().await;
    let chain = world.chain().await;
    let request = GetTeamRequest { team_id: chain.team_id.clone() };
    let answer = ok(world.hierarchy.get_team(Request::new(request)).await);
    let (team, account) = (answer.team.unwrap(), answer.account.unwrap());
    assert_eq!((team.team_id, team.account_id), (chain.team_id, chain.account_id.clone()));
    assert_eq!(account.account_id, chain.account_id);
    assert_eq!((account.trial_started_at, account.trial_ends_at), (None, None), "commercial");
}

#[tokio::test]
async fn apps_are_listed_with_their_present_team_and_their_client_ids() {
    let world = World::new().await;
    let chain = world.chain().await;
    let owner = world.user("owner@example.com").await;
    let second = world.credential(&chain.app_id, None).await.client_id;
    let first = world.credential(&chain.app_id, Some("2026-02-01T00:00:00Z")).await.client_id;
    let request = CreateAppRequest {
        account_id: chain.account_id.clone(),
        owner_user_id: owner.clone(),
        name: "Other".to_owned(),
        request_id: String::new(),
    };
    let other = ok(world.hierarchy.create_app(Request::new(request)).await).app.unwrap();
    assert_eq!(other.owner_user_id, owner);
    let edge = world.assign(&chain.app_id, &chain.team_id, None).await;
    let list = || {
        let request = ListAppsRequest { account_id: chain.account_id.clone(), ..ListAppsRequest::default() };
        world.hierarchy.list_apps(Request::new(request))
    };
    let before = ok(list().await).apps;
    assert_eq!(before.iter().map(|app| &app.app_id).collect::<Vec<_>>(), [&chain.app_id, &other.app_id]);
    assert_eq!(before[0].client_ids, [first, second]);
    assert_eq!(before[0].team_id, "", "the edge is ahead");
    world.clock.set(edge);
    assert_eq!(ok(list().await).apps[0].team_id, chain.team_id);
}

#[tokio::test]
async fn pages_join_without_gap_or_repetition() {
    let world = World::new().await;
    let chain = world.chain().await;
    let stranger = world.chain().await;
    let mut teams = vec![chain.team_id.clone()];
    for _ in 0..6 {
        teams.push(world.team(&chain.account_id, None).await);
    }
    let (mut read, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let account_id = chain.account_id.clone();
        // more than the most rows of a page: it gets the most
        let request = ListTeamsRequest { account_id, page_size: 50, page_token };
        let answer = ok(world.hierarchy.list_teams(Request::new(request)).await);
        assert!(answer.teams.len() <= 3);
        read.extend(answer.teams.into_iter().map(|team| team.team_id));
        pages += 1;
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    teams.sort();
    assert_eq!((read, pages), (teams, 3));

    let request = ListTeamsRequest { page_size: 1, ..ListTeamsRequest::default() };
    let token = ok(world.hierarchy.list_teams(Request::new(request)).await).next_page_token;
    let of_other = ListTeamsRequest { account_id: stranger.account_id, page_size: 1, page_token: token };
    let (reason, fields) = refused(world.hierarchy.list_teams(Request::new(of_other)).await);
    assert_eq!((reason.as_str(), fields), ("PAGE_TOKEN_INVALID", vec!["page_token".to_owned()]));
}
