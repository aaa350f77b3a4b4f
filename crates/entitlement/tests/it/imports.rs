//! Accounts of another platform (D61): an import answers as the acts one by one, and writes all or nothing.

use std::sync::atomic::Ordering;

use drawdown_entitlement::Imports;
use drawdown_proto::entitlement::v1::{
    AccountImport, AppImport, AssignmentImport, ContractImport, ContractKind, CreateUserRequest,
    CredentialImport, ExplainResolutionRequest, ImportAccountsRequest, ImportAccountsResponse, LinkKind,
    ListAppsRequest, ListAuditRequest, ListProductAssignmentsRequest, ListRolesRequest, PersonImport, Role,
    TeamImport, VerifyCredentialRequest, credential_service_server::CredentialService as _,
    hierarchy_service_server::HierarchyService as _, history_service_server::HistoryService as _,
    import_service_server::ImportService as _, member_service_server::MemberService as _,
};
use tonic::{Request, Response, Status};

use crate::world::{World, at, ok, refused, wire};

const OPENED: &str = "2025-05-31T23:00:10Z";

fn person(email: &str, role: Role) -> PersonImport {
    PersonImport {
        email: email.to_owned(),
        name: "Somebody".to_owned(),
        role: role.into(),
        from: wire(at("2025-06-01T08:00:00Z")),
        uses_tokens: role == Role::Member,
    }
}

fn team(name: &str, members: Vec<PersonImport>) -> TeamImport {
    TeamImport { name: name.to_owned(), created_at: wire(at("2025-06-01T08:00:00Z")), members }
}

fn credential(client_id: &str, created_at: &str, revoked_at: Option<&str>) -> CredentialImport {
    CredentialImport {
        client_id: client_id.to_owned(),
        created_at: wire(at(created_at)),
        revoked_at: revoked_at.and_then(|text| wire(at(text))),
    }
}

fn link(team: &str, from: &str) -> AssignmentImport {
    AssignmentImport { team: team.to_owned(), from: wire(at(from)) }
}

/// An account with all that can be imported; its client ids begin with `prefix`.
fn account(prefix: &str) -> AccountImport {
    let id = |number: u32| format!("{prefix}-{number}");
    AccountImport {
        name: "Northwind".to_owned(),
        created_at: wire(at(OPENED)),
        contract_kind: ContractKind::Flex.into(),
        contracts: vec![ContractImport {
            from: wire(at("2025-09-01T00:00:00Z")),
            contract_kind: ContractKind::Enterprise.into(),
        }],
        commercial_from: wire(at("2025-07-01T10:00:01Z")),
        cell: 1,
        teams: vec![
            team(
                "Maps",
                vec![person("bo@example.org", Role::PrimaryAdmin), person("cy@example.org", Role::Member)],
            ),
            team("Search", vec![person("BO@example.org", Role::Member)]),
        ],
        managers: vec![person("eva@example.org", Role::ContractManager)],
        hubs: vec!["Europe".to_owned()],
        apps: vec![
            AppImport {
                name: "Atlas".to_owned(),
                owner_email: "Cy@example.org".to_owned(),
                hub: "Europe".to_owned(),
                assignments: vec![
                    link("Maps", "2025-06-01T09:00:00Z"),
                    link("Search", "2026-01-01T00:00:01Z"),
                    link("Maps", "2026-04-01T00:00:00Z"),
                ],
                credentials: vec![
                    credential(&id(2), "2025-08-01T00:00:00Z", None),
                    credential(&id(1), "2025-06-01T08:59:59Z", Some("2025-08-02T00:00:01Z")),
                ],
            },
            AppImport {
                name: "Idle".to_owned(),
                credentials: vec![credential(&id(3), "2025-06-03T00:00:00Z", None)],
                ..AppImport::default()
            },
        ],
    }
}

async fn import(
    world: &World,
    accounts: Vec<AccountImport>,
    change: impl FnOnce(&mut ImportAccountsRequest),
) -> Result<Response<ImportAccountsResponse>, Status> {
    let note = "moved here".to_owned();
    let mut request = ImportAccountsRequest { accounts, note, ..ImportAccountsRequest::default() };
    change(&mut request);
    Imports::new(&world.parts).import_accounts(Request::new(request)).await
}

#[tokio::test]
async fn d61_who_pays_is_answered_for_every_instant_of_the_past() {
    let world = World::new().await;
    let imported = ok(import(&world, vec![account("old")], |_| {}).await);
    let [northwind] = &imported.accounts[..] else { panic!("one account") };
    assert!(imported.written);
    assert_eq!((northwind.teams.len(), northwind.apps.len(), northwind.people_new), (2, 2, 3));
    assert_eq!(northwind.apps.iter().map(|app| app.credentials).collect::<Vec<_>>(), [2, 1]);
    let [maps, search] = &northwind.teams[..] else { panic!("two teams") };
    let instants = [
        ("old-1", "2025-06-01T08:58:59Z", Err("UnknownClient")),
        ("old-1", "2025-06-01T08:59:00Z", Err("NoTeam")),
        ("old-1", "2025-06-01T09:00:00Z", Ok((maps, ContractKind::Flex, true))),
        ("old-1", "2025-07-01T10:00:59Z", Ok((maps, ContractKind::Flex, true))),
        ("old-1", "2025-07-01T10:01:00Z", Ok((maps, ContractKind::Flex, false))),
        ("old-1", "2025-08-02T00:00:59Z", Ok((maps, ContractKind::Flex, false))),
        ("old-1", "2025-08-02T00:01:00Z", Err("UnknownClient")),
        ("old-2", "2025-07-31T23:59:59Z", Err("UnknownClient")),
        ("old-2", "2025-08-01T00:00:00Z", Ok((maps, ContractKind::Flex, false))),
        ("old-2", "2025-09-01T00:00:00Z", Ok((maps, ContractKind::Enterprise, false))),
        ("old-2", "2026-01-01T00:00:59Z", Ok((maps, ContractKind::Enterprise, false))),
        ("old-2", "2026-01-01T00:01:00Z", Ok((search, ContractKind::Enterprise, false))),
        ("old-2", "2026-04-01T00:00:00Z", Ok((maps, ContractKind::Enterprise, false))),
        ("old-3", "2026-04-01T00:00:00Z", Err("NoTeam")),
    ];
    for (client_id, instant, expected) in instants {
        let answer = world.who_pays(client_id, &[at(instant)]).await.remove(0);
        let answer = answer
            .as_ref()
            .map(|billed| (billed.team_id.as_str(), billed.contract_kind(), billed.in_trial))
            .map_err(|reason| format!("{reason:?}"));
        let expected = expected.map(|(team, kind, in_trial)| (team.team_id.as_str(), kind, in_trial));
        assert_eq!(answer, expected.map_err(str::to_owned), "{client_id} at {instant}");
    }
    let billed = world.who_pays("old-2", &[world.now()]).await.remove(0).unwrap();
    assert_eq!(billed.cell, 1);
}

#[tokio::test]
async fn an_import_answers_as_the_acts_one_by_one() {
    let world = World::new().await;
    let mut moved = account("moved");
    // what acts one by one can do as well: no second owner, no future that they would have to wait for
    moved.commercial_from = None;
    moved.contracts.clear();
    moved.apps[0].credentials[1].revoked_at = None;
    let imported = ok(import(&world, vec![moved], |_| {}).await).accounts.remove(0);
    let names: Vec<_> = imported.teams.iter().map(|team| team.team_id.clone()).collect();

    let account_id = world.account(Some(OPENED), false).await;
    let since = Some("2025-06-01T08:00:00Z");
    let teams = [world.team(&account_id, since).await, world.team(&account_id, since).await];
    let app_id = world.app(&account_id).await;
    let second = world.credential(&app_id, Some("2025-08-01T00:00:00Z")).await.client_id;
    let first = world.credential(&app_id, Some("2025-06-01T08:59:59Z")).await.client_id;
    world.assign(&app_id, &teams[0], Some("2025-06-01T09:00:00Z")).await;
    world.assign(&app_id, &teams[1], Some("2026-01-01T00:00:01Z")).await;
    world.assign(&app_id, &teams[0], Some("2026-04-01T00:00:00Z")).await;

    let begin = at("2025-05-31T23:00:00Z");
    let hours = 24 * 310;
    let instants: Vec<_> = (0..hours)
        .map(|hour| begin.checked_add(std::time::Duration::from_secs(3_600 * hour)).unwrap())
        .chain(["2025-06-01T08:59:00Z", "2026-01-01T00:00:59Z", "2026-01-01T00:01:00Z"].map(at))
        .collect();
    for (moved, made) in [("moved-1", &first), ("moved-2", &second)] {
        let place = |teams: &[String], id: &str| teams.iter().position(|team| team == id).unwrap();
        let of_import = world.who_pays(moved, &instants).await;
        let of_acts = world.who_pays(made, &instants).await;
        for ((instant, import), acts) in instants.iter().zip(of_import).zip(of_acts) {
            let import = import.map(|billed| (place(&names, &billed.team_id), billed.in_trial));
            let acts = acts.map(|billed| (place(&teams, &billed.team_id), billed.in_trial));
            assert_eq!(import, acts, "{moved} at {instant}");
        }
    }
}

#[tokio::test]
async fn people_hubs_and_the_audit_log_come_along() {
    let world = World::new().await;
    let eva = CreateUserRequest {
        email: "EVA@example.org".to_owned(),
        name: "Eva".to_owned(),
        ..CreateUserRequest::default()
    };
    let eva = ok(world.hierarchy.create_user(Request::new(eva)).await).user.unwrap().user_id;
    let imported = ok(import(&world, vec![account("old")], |_| {}).await).accounts.remove(0);
    assert_eq!(imported.people_new, 2, "Eva is known");
    let account_id = imported.account.unwrap().account_id;
    let request = ListRolesRequest { account_id: account_id.clone(), ..ListRolesRequest::default() };
    let managers = ok(world.members.list_roles(Request::new(request)).await).roles;
    assert_eq!(managers.iter().map(|role| &role.user_id).collect::<Vec<_>>(), [&eva]);
    let of_team = |team: usize| ListProductAssignmentsRequest {
        team_id: imported.teams[team].team_id.clone(),
        ..ListProductAssignmentsRequest::default()
    };
    let mut users = Vec::new();
    for team in 0..2 {
        let request = Request::new(of_team(team));
        let assigned = ok(world.members.list_product_assignments(request).await).assignments;
        users.extend(assigned.into_iter().map(|assignment| assignment.user_id));
    }
    let request = ListAppsRequest { account_id: account_id.clone(), ..ListAppsRequest::default() };
    let apps = ok(world.hierarchy.list_apps(Request::new(request)).await).apps;
    let atlas = apps.iter().find(|app| app.name == "Atlas").unwrap();
    assert_eq!(users.len(), 2, "one in each team");
    assert!(users.contains(&atlas.owner_user_id), "its owner uses tokens of Maps");
    assert!(atlas.hub_id.starts_with("hub_"));

    let request = ListAuditRequest { subject: account_id, ..ListAuditRequest::default() };
    let entries = ok(world.histories.list_audit(Request::new(request)).await).records;
    let [entry] = &entries[..] else { panic!("one entry") };
    assert_eq!((entry.method.as_str(), entry.reason.as_str()), ("ImportAccounts", "moved here"));
    assert!(
        entry.after_json.contains("old-3") && entry.after_json.contains("Search"),
        "{}",
        entry.after_json
    );

    let verify = |secret: &str| VerifyCredentialRequest {
        client_id: "old-2".to_owned(),
        client_secret: secret.to_owned(),
    };
    for secret in ["", "old-2", &"0".repeat(52)] {
        let answer = ok(world.hierarchy.verify_credential(Request::new(verify(secret))).await);
        assert!(!answer.valid, "nothing is its secret");
    }
    let request = drawdown_proto::entitlement::v1::ListCredentialsRequest {
        app_id: atlas.app_id.clone(),
        ..Default::default()
    };
    let credentials = ok(world.credentials.list_credentials(Request::new(request)).await).credentials;
    assert_eq!(credentials.len(), 2);
}

#[tokio::test]
async fn every_link_of_an_imported_chain_says_who_imported_it() {
    let world = World::new().await;
    ok(import(&world, vec![account("old")], |_| {}).await);
    for instant in ["2025-06-15T00:00:00Z", "2025-10-01T00:00:00Z"] {
        let request = ExplainResolutionRequest { client_id: "old-2".to_owned(), at: wire(at(instant)) };
        let request = if instant < "2025-08" {
            ExplainResolutionRequest { client_id: "old-1".to_owned(), ..request }
        } else {
            request
        };
        let links = ok(world.histories.explain_resolution(Request::new(request)).await).links;
        assert!(links.len() >= 5, "{links:?}");
        // the trial began by itself, and its end is the import's
        for link in links {
            let (by, through) = match link.kind() {
                LinkKind::Trial => (link.end_made_by, "ImportAccounts".to_owned()),
                _ => (link.made_by, link.made_through),
            };
            assert_eq!((by.as_str(), through.as_str()), ("operator", "ImportAccounts"), "{instant}");
        }
    }
}

#[tokio::test]
async fn a_dry_run_tells_the_same_and_writes_nothing() {
    let world = World::new().await;
    let before = world.dump().await;
    let dry = |request: &mut ImportAccountsRequest| {
        request.validate_only = true;
        request.request_id = "one".to_owned();
    };
    let told = ok(import(&world, vec![account("a"), account("b")], dry).await);
    assert!(!told.written);
    assert_eq!(world.dump().await, before);
    let named = |request: &mut ImportAccountsRequest| request.request_id = "one".to_owned();
    let done = ok(import(&world, vec![account("a"), account("b")], named).await);
    assert!(done.written);
    let shape = |answer: &ImportAccountsResponse| {
        let numbers = answer.accounts.iter().map(|account| (account.people_new, account.apps.len()));
        numbers.collect::<Vec<_>>()
    };
    assert_eq!((shape(&told), shape(&done)), (vec![(3, 2), (0, 2)], vec![(3, 2), (0, 2)]));
    assert_eq!(ok(import(&world, vec![account("a"), account("b")], named).await), done, "a retry");
}

/// More accounts than a request that writes may hold.
#[tokio::test]
async fn a_whole_file_is_tried_at_once_and_says_what_its_requests_will() {
    let world = World::new().await;
    let small = |prefix: &str| {
        let mut account = account(prefix);
        account.apps.truncate(1);
        account.apps[0].credentials.truncate(1);
        (account.managers, account.hubs, account.contracts) = (Vec::new(), Vec::new(), Vec::new());
        account.apps[0].hub.clear();
        account
    };
    let dry = |request: &mut ImportAccountsRequest| request.validate_only = true;
    // somebody of the first account owns an app of the last one
    let mut file: Vec<_> = ["a", "b", "c", "d"].map(small).into();
    file[3].teams[0].members.clear();
    let told = ok(import(&world, file.clone(), dry).await);
    assert_eq!(told.accounts.iter().map(|account| account.people_new).collect::<Vec<_>>(), [2, 0, 0, 0]);
    // what is there twice is found, however far apart
    let mut twice = file.clone();
    twice[3].apps[0].credentials[0].client_id = "a-2".to_owned();
    let (reason, fields) = refused(import(&world, twice, dry).await);
    assert_eq!((reason.as_str(), fields.len()), ("IMPORT_REFUSED", 1), "{fields:?}");
    // nobody of a later account is known to an earlier one: it may go out in an earlier request
    let mut later = file.clone();
    later[0].apps[0].owner_email = "zoe@example.org".to_owned();
    later[3].teams[0].members.push(person("zoe@example.org", Role::Member));
    for answer in
        [import(&world, later.clone(), dry).await, import(&world, later[..3].to_vec(), |_| {}).await]
    {
        let told = refused(answer);
        assert_eq!(told, ("IMPORT_REFUSED".to_owned(), vec!["accounts[0].apps[0].owner_email".to_owned()]));
    }
    let mut people = Vec::new();
    for request in [file[..3].to_vec(), file[3..].to_vec()] {
        let done = ok(import(&world, request, |_| {}).await);
        people.extend(done.accounts.iter().map(|account| account.people_new));
    }
    assert_eq!(people, [2, 0, 0, 0]);
}

#[tokio::test]
async fn what_does_not_fit_is_told_by_its_place_and_nothing_is_written() {
    let world = World::new().await;
    ok(import(&world, vec![account("taken")], |_| {}).await);
    let before = world.dump().await;
    let mut wrong = account("taken");
    wrong.cell = 3;
    wrong.apps[1].owner_email = "nobody@example.org".to_owned();
    let (reason, fields) = refused(import(&world, vec![account("new"), wrong], |_| {}).await);
    assert_eq!(reason, "IMPORT_REFUSED");
    let expected = [
        "cell",
        "apps[0].credentials[0].client_id",
        "apps[0].credentials[1].client_id",
        "apps[1].credentials[0].client_id",
        "apps[1].owner_email",
    ];
    assert_eq!(fields, expected.map(|field| format!("accounts[1].{field}")));
    let mut late = account("late");
    late.apps[0].assignments[0].from = wire(at("2025-01-01T00:00:00Z"));
    let (reason, fields) = refused(import(&world, vec![late], |_| {}).await);
    assert_eq!(
        (reason.as_str(), &fields[..]),
        ("IMPORT_REFUSED", &["accounts[0].apps[0].assignments[0].from".to_owned()][..])
    );
    let mut unnamed = account("x");
    unnamed.teams[0].members[1].email = "nobody".to_owned();
    unnamed.apps[0].credentials[0].client_id = "a b".to_owned();
    unnamed.created_at = None;
    let (reason, fields) = refused(import(&world, vec![unnamed], |request| request.note.clear()).await);
    assert_eq!(reason, "REQUEST_INVALID");
    let expected = ["created_at", "teams[0].members[1].email", "apps[0].credentials[0].client_id"];
    let expected: Vec<_> = expected.iter().map(|field| format!("accounts[0].{field}")).collect();
    assert_eq!(fields, [&expected[..], &["note".to_owned()]].concat());
    let (reason, _) = refused(import(&world, vec![account("a"); 4], |_| {}).await);
    assert_eq!(reason, "BATCH_TOO_LARGE");
    let mut long = account("a");
    long.hubs = (0..60).map(|number| format!("Hub {number}")).collect();
    assert_eq!(refused(import(&world, vec![long], |_| {}).await).0, "BATCH_TOO_LARGE");
    assert_eq!(refused(import(&world, Vec::new(), |_| {}).await).1, ["accounts"]);
    assert_eq!(world.dump().await, before);
}

#[tokio::test]
async fn d61_settled_usage_of_a_client_id_refuses_its_account() {
    let world = World::new().await;
    let (before, since) = (at("2025-06-01T08:58:00Z"), at("2025-06-01T08:59:00Z"));
    world.ledger.settle("old-1", before);
    let mut other = account("other");
    other.apps.clear();
    ok(import(&world, vec![account("old"), other], |_| {}).await);
    world.ledger.settle("new-3", since);
    let (reason, fields) = refused(import(&world, vec![account("a"), account("new")], |_| {}).await);
    assert_eq!((reason.as_str(), &fields[..]), ("IMPORT_REFUSED", &["accounts[1].apps".to_owned()][..]));
    world.ledger.is_away.store(true, Ordering::SeqCst);
    assert_eq!(refused(import(&world, vec![account("a")], |_| {}).await).0, "LEDGER_UNAVAILABLE");
}

#[tokio::test]
async fn d49_usage_before_the_first_team_is_told_to_the_ledger_where_there_can_be_some() {
    let world = World::new().await;
    let mut whole = account("whole");
    whole.apps[0].assignments[0].from = wire(at("2025-06-01T08:59:00Z"));
    ok(import(&world, vec![account("gap"), whole], |_| {}).await);
    let told: Vec<String> = sqlx::query_scalar(
        "SELECT c.client_id FROM entitlement.adoption d JOIN entitlement.credential c USING (app_id) ORDER BY 1",
    )
    .fetch_all(world.database.pool())
    .await
    .unwrap();
    assert_eq!(told, ["gap-1", "gap-2"], "the app that was never without a team is not told");
}

#[tokio::test]
async fn two_imports_of_the_same_client_ids_at_once_make_one() {
    let world = World::new().await;
    world.warm().await;
    let (one, other) = futures::future::join(
        import(&world, vec![account("same")], |_| {}),
        import(&world, vec![account("same")], |_| {}),
    )
    .await;
    let (done, late) = if one.is_ok() { (one, other) } else { (other, one) };
    assert!(ok(done).written);
    assert_eq!(refused(late).0, "IMPORT_REFUSED");
}
