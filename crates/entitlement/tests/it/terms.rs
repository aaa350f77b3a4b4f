//! What becomes of an account: suspended by the operator, out of its trial, under another contract.

use drawdown_proto::entitlement::v1::{
    Account, ChangeContractRequest, ContractKind, ContractTerm, EndTrialRequest, GetAccountRequest,
    GetTeamRequest, LiftSuspensionRequest, ListSuspensionsRequest, SuspendRequest, Suspension,
    account_service_server::AccountService as _, hierarchy_service_server::HierarchyService as _,
};
use drawdown_types::{AccountId, TeamId, Timestamp};
use tonic::Request;

use crate::world::{World, at, instant, ok, refused, wire};

impl World {
    async fn read_account(&self, account_id: &str) -> Account {
        let request = GetAccountRequest { account_id: account_id.to_owned() };
        ok(self.hierarchy.get_account(Request::new(request)).await).account.unwrap()
    }

    pub(crate) async fn suspend(&self, id: &str, note: &str) -> Suspension {
        let (account_id, team_id) = either(id);
        let request =
            SuspendRequest { account_id, team_id, note: note.to_owned(), request_id: String::new() };
        ok(self.accounts.suspend(Request::new(request)).await).suspension.unwrap()
    }

    pub(crate) async fn lift(&self, id: &str, note: &str) -> Option<Suspension> {
        let (account_id, team_id) = either(id);
        let request =
            LiftSuspensionRequest { account_id, team_id, note: note.to_owned(), request_id: String::new() };
        ok(self.accounts.lift_suspension(Request::new(request)).await).suspension
    }

    pub(crate) async fn end_trial(&self, account_id: &str, from: Option<&str>) -> Timestamp {
        let request = EndTrialRequest {
            account_id: account_id.to_owned(),
            from: from.and_then(|text| wire(at(text))),
            request_id: String::new(),
        };
        instant(ok(self.accounts.end_trial(Request::new(request)).await).from.as_ref())
    }

    pub(crate) fn contract(account_id: &str, from: Option<&str>) -> Request<ChangeContractRequest> {
        Request::new(ChangeContractRequest {
            account_id: account_id.to_owned(),
            contract_kind: ContractKind::Enterprise.into(),
            from: from.and_then(|text| wire(at(text))),
            request_id: String::new(),
        })
    }
}

fn either(id: &str) -> (String, String) {
    let team = id.starts_with("team_");
    (if team { String::new() } else { id.to_owned() }, if team { id.to_owned() } else { String::new() })
}

#[tokio::test]
async fn d56_a_suspension_holds_at_once_and_stays_in_the_history() {
    let world = World::new().await;
    let chain = world.chain().await;
    let team = || async {
        let request = GetTeamRequest { team_id: chain.team_id.clone() };
        ok(world.hierarchy.get_team(Request::new(request)).await)
    };
    let begun = world.suspend(&chain.team_id, "fraud?").await;
    assert_eq!((begun.from, begun.note.as_str(), begun.to), (wire(world.now()), "fraud?", None));
    world.clock.set(at("2026-03-01T13:00:00.000001Z"));
    assert_eq!(world.suspend(&chain.team_id, "again").await, begun, "it holds already");
    let whole = world.suspend(&chain.account_id, "unpaid").await;
    let read = team().await;
    assert_eq!(read.team.unwrap().suspended_since, begun.from);
    assert_eq!(read.account.unwrap().suspended_since, whole.from);
    world.clock.set(at("2026-03-01T14:00:00Z"));
    let lifted = world.lift(&chain.team_id, "cleared").await.unwrap();
    assert_eq!((lifted.to, lifted.end_note.as_str()), (wire(world.now()), "cleared"));
    assert_eq!(world.lift(&chain.team_id, "cleared").await, None, "nothing is suspended");
    let read = team().await;
    assert_eq!(
        (read.team.unwrap().suspended_since, read.account.unwrap().suspended_since),
        (None, whole.from)
    );
    world.lift(&chain.account_id, "paid").await.unwrap();
    world.suspend(&chain.account_id, "unpaid again").await;
    world.suspend(&chain.team_id, "fraud").await;
    assert_eq!(world.read_account(&chain.account_id).await.suspended_since, wire(world.now()));
    let list = |page_token: String| {
        let account_id = chain.account_id.clone();
        world.accounts.list_suspensions(Request::new(ListSuspensionsRequest {
            account_id,
            page_size: 0,
            page_token,
        }))
    };
    let first = ok(list(String::new()).await);
    let second = ok(list(first.next_page_token).await);
    let all = first.suspensions.iter().chain(&second.suspensions);
    let notes: Vec<_> = all.map(|held| (held.note.as_str(), held.end_note.as_str())).collect();
    let expected = [("fraud?", "cleared"), ("unpaid", "paid"), ("unpaid again", ""), ("fraud", "")];
    assert_eq!((notes, second.next_page_token), (expected.to_vec(), String::new()));
}

#[tokio::test]
async fn d56_a_suspension_decides_about_no_charge() {
    let world = World::new().await;
    let chain = world.chain().await;
    let client_id = world.credential(&chain.app_id, Some("2026-01-01T00:00:00Z")).await.client_id;
    world.assign(&chain.app_id, &chain.team_id, Some("2026-01-01T00:00:00Z")).await;
    world.suspend(&chain.account_id, "unpaid").await;
    world.suspend(&chain.team_id, "unpaid").await;
    world.clock.set(at("2026-03-05T00:00:00Z"));
    assert_eq!(world.team_at(&client_id, world.now()).await, Ok(chain.team_id));
}

#[tokio::test]
async fn of_two_that_suspend_one_does() {
    let world = World::new().await;
    world.warm().await;
    for id in [world.chain().await.account_id, world.chain().await.team_id] {
        let (a, b, c) =
            tokio::join!(world.suspend(&id, "a"), world.suspend(&id, "b"), world.suspend(&id, "c"));
        assert!(a == b && b == c, "{id}");
    }
}

#[tokio::test]
async fn d50_an_ended_trial_ends_at_its_edge_for_resolution_and_for_the_account() {
    let world = World::new().await;
    let account_id = world.account(Some("2026-02-01T00:00:00Z"), false).await;
    let team_id = world.team(&account_id, Some("2026-02-01T00:00:00Z")).await;
    let app_id = world.app(&account_id).await;
    let client_id = world.credential(&app_id, Some("2026-02-10T00:00:00Z")).await.client_id;
    world.assign(&app_id, &team_id, Some("2026-02-10T00:00:00Z")).await;
    world.clock.set(at("2026-03-01T12:00:57Z"));
    let edge = world.end_trial(&account_id, None).await;
    assert_eq!(edge, at("2026-03-01T12:02:00Z"), "the edge at 12:01 is less than five seconds away");
    assert_eq!(world.read_account(&account_id).await.trial_ends_at, wire(edge));
    for (instant, in_trial) in [
        ("2026-02-10T00:00:00Z", true),
        ("2026-03-01T12:01:59.999999Z", true),
        ("2026-03-01T12:02:00Z", false),
        ("2026-04-01T00:00:00Z", false),
    ] {
        let billed = world.who_pays(&client_id, &[at(instant)]).await.remove(0).unwrap();
        assert_eq!(billed.in_trial, in_trial, "{instant}");
    }
    let before = world.dump().await;
    world.clock.set(at("2026-03-02T00:00:00Z"));
    assert_eq!(world.end_trial(&account_id, None).await, edge);
    assert_eq!(world.dump().await, before, "the same again is no change");
}

#[tokio::test]
async fn d61_a_past_end_of_a_trial_is_refused_where_usage_is_settled() {
    let world = World::new().await;
    let account_id = world.account(Some("2026-02-01T00:00:00Z"), false).await;
    let app_id = world.app(&account_id).await;
    let client_id = world.credential(&app_id, Some("2026-02-10T00:00:00Z")).await.client_id;
    world.ledger.settle(&client_id, at("2026-02-20T00:00:00Z"));
    let request =
        |from| EndTrialRequest { account_id: account_id.clone(), from: wire(at(from)), ..Default::default() };
    let before = world.dump().await;
    let told = refused(world.accounts.end_trial(Request::new(request("2026-02-20T00:00:00Z"))).await);
    assert_eq!(told, ("WINDOW_SETTLED".to_owned(), vec!["from".to_owned()]));
    let told = refused(world.accounts.end_trial(Request::new(request("2026-01-20T00:00:00Z"))).await);
    assert_eq!(told, ("INSTANT_BEFORE_ACCOUNT".to_owned(), vec!["from".to_owned()]));
    let told = refused(world.accounts.end_trial(Request::new(request("2027-12-20T00:00:00Z"))).await);
    assert_eq!(told, ("CHANGE_TOO_FAR_AHEAD".to_owned(), vec!["from".to_owned()]));
    assert_eq!(world.dump().await, before);
    let edge = world.end_trial(&account_id, Some("2026-02-20T00:00:01Z")).await;
    assert_eq!(edge, at("2026-02-20T00:01:00Z"));
}

#[tokio::test]
async fn d57_a_contract_changes_where_a_month_begins_and_not_before() {
    let world = World::new().await;
    let chain = world.chain().await;
    let client_id = world.credential(&chain.app_id, Some("2026-01-01T00:00:00Z")).await.client_id;
    world.assign(&chain.app_id, &chain.team_id, Some("2026-01-01T00:00:00Z")).await;
    world.clock.set(at("2026-03-15T08:00:00Z"));
    let reply = ok(world.accounts.change_contract(World::contract(&chain.account_id, None)).await);
    assert_eq!(reply.from, wire(at("2026-04-01T00:00:00Z")));
    for (instant, kind) in [
        ("2026-03-31T23:59:59.999999Z", ContractKind::Flex),
        ("2026-04-01T00:00:00Z", ContractKind::Enterprise),
    ] {
        let billed = world.who_pays(&client_id, &[at(instant)]).await.remove(0).unwrap();
        assert_eq!(billed.contract_kind(), kind, "{instant}");
    }
    assert_eq!(world.read_account(&chain.account_id).await.contract_kind(), ContractKind::Flex);
    let earlier =
        world.accounts.change_contract(World::contract(&chain.account_id, Some("2026-03-01T00:00:00Z")));
    assert_eq!(refused(earlier.await), ("CONTRACT_OVERLAP".to_owned(), vec!["from".to_owned()]));
    // All kinds are told at any time, the one to come too.
    let told = async || {
        let account = world.read_account(&chain.account_id).await;
        let term = |term: &ContractTerm| (term.from, term.contract_kind());
        account.contracts.iter().map(term).collect::<Vec<_>>()
    };
    let begun = |from, kind| (wire(at(from)), kind);
    let kinds = [
        (None, ContractKind::Flex),
        begun("2026-01-01T00:00:00Z", ContractKind::Flex),
        begun("2026-04-01T00:00:00Z", ContractKind::Enterprise),
    ];
    assert_eq!(told().await, kinds);
    world.clock.set(at("2026-04-01T00:00:00Z"));
    assert_eq!(world.read_account(&chain.account_id).await.contract_kind(), ContractKind::Enterprise);
    assert_eq!(told().await, kinds);
}

#[tokio::test]
async fn d61_a_past_contract_is_refused_where_usage_is_settled() {
    let world = World::new().await;
    let chain = world.chain().await;
    let client_id = world.credential(&chain.app_id, Some("2026-01-01T00:00:00Z")).await.client_id;
    world.ledger.settle(&client_id, at("2026-02-01T00:00:00Z"));
    let request =
        || world.accounts.change_contract(World::contract(&chain.account_id, Some("2026-01-20T00:00:00Z")));
    assert_eq!(refused(request().await), ("WINDOW_SETTLED".to_owned(), vec!["from".to_owned()]));
    world.ledger.settle(&client_id, at("2026-01-31T23:59:00Z"));
    assert_eq!(ok(request().await).from, wire(at("2026-02-01T00:00:00Z")));
}

#[tokio::test]
async fn what_can_not_be_suspended_or_ended_is_named() {
    let world = World::new().await;
    let chain = world.chain().await;
    let request = |account_id: &str, team_id: &str, note: &str| {
        let (account_id, team_id) = (account_id.to_owned(), team_id.to_owned());
        Request::new(SuspendRequest { account_id, team_id, note: note.to_owned(), request_id: String::new() })
    };
    let (account, team) = (AccountId::generate().to_string(), TeamId::generate().to_string());
    let before = world.dump().await;
    for (request, reason, fields) in [
        (request("", "", ""), "REQUEST_INVALID", &["account_id", "note"][..]),
        (request(&account, &team, &"x".repeat(501)), "REQUEST_INVALID", &["team_id", "note"]),
        (request("me", "", "x"), "REQUEST_INVALID", &["account_id"]),
        (request(&account, "", "x"), "ACCOUNT_UNKNOWN", &["account_id"]),
        (request("", &team, "x"), "TEAM_UNKNOWN", &["team_id"]),
    ] {
        let told = refused(world.accounts.suspend(request).await);
        assert_eq!((told.0.as_str(), told.1), (reason, fields.iter().map(|f| (*f).to_owned()).collect()));
    }
    let unknown = EndTrialRequest { account_id: account.clone(), ..Default::default() };
    assert_eq!(refused(world.accounts.end_trial(Request::new(unknown)).await).0, "ACCOUNT_UNKNOWN");
    let none = ChangeContractRequest { account_id: chain.account_id.clone(), ..Default::default() };
    let told = refused(world.accounts.change_contract(Request::new(none)).await);
    assert_eq!(told, ("REQUEST_INVALID".to_owned(), vec!["contract_kind".to_owned()]));
    let list = ListSuspensionsRequest { account_id: account, ..Default::default() };
    assert_eq!(refused(world.accounts.list_suspensions(Request::new(list)).await).0, "ACCOUNT_UNKNOWN");
    assert_eq!(world.dump().await, before);
}
