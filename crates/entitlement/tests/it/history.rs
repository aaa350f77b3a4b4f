//! The history behind an answer: explained, taken back before it comes, corrected, and recorded.

use drawdown_proto::entitlement::v1::{
    AuditRecord, CancelScheduledChangeRequest, ChangeKind, CorrectAssignmentRequest,
    CorrectAssignmentResponse, ExplainResolutionRequest, ExplainResolutionResponse, LinkKind,
    ListAuditRequest, ListScheduledChangesRequest, PreparePurchaseRequest, ScheduledChange, UnresolvedReason,
    account_service_server::AccountService as _, hierarchy_service_server::HierarchyService as _,
    history_service_server::HistoryService as _, resolution,
};
use drawdown_types::{AccountId, Timestamp};
use tonic::{Request, Response, Status};

use crate::world::{World, at, ok, reason, refused, wire};

impl World {
    async fn explain(&self, client_id: &str, instant: Timestamp) -> ExplainResolutionResponse {
        let request = ExplainResolutionRequest { client_id: client_id.to_owned(), at: wire(instant) };
        ok(self.histories.explain_resolution(Request::new(request)).await)
    }

    pub(crate) async fn scheduled(&self, account_id: &str) -> Vec<ScheduledChange> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let account_id = account_id.to_owned();
            let request = ListScheduledChangesRequest { account_id, page_size: 2, page_token };
            let answer = ok(self.histories.list_scheduled_changes(Request::new(request)).await);
            all.extend(answer.changes);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return all;
            }
        }
    }

    pub(crate) async fn cancel(&self, change_id: &str) -> Result<ScheduledChange, Status> {
        let (change_id, note) = (change_id.to_owned(), "a slip of the pen".to_owned());
        let request = CancelScheduledChangeRequest { change_id, note, request_id: String::new() };
        let answer = self.histories.cancel_scheduled_change(Request::new(request)).await;
        answer.map(|answer| answer.into_inner().change.unwrap())
    }

    pub(crate) async fn correct(
        &self,
        app_id: &str,
        team_id: &str,
        from: &str,
        to: Option<&str>,
    ) -> Result<Response<CorrectAssignmentResponse>, Status> {
        let request = CorrectAssignmentRequest {
            app_id: app_id.to_owned(),
            team_id: team_id.to_owned(),
            from: wire(at(from)),
            to: to.and_then(|text| wire(at(text))),
            note: "the wrong team was picked".to_owned(),
            request_id: String::new(),
        };
        self.histories.correct_assignment(Request::new(request)).await
    }

    async fn audit(&self, account_id: &str, subject: &str) -> Vec<AuditRecord> {
        let (account_id, subject) = (account_id.to_owned(), subject.to_owned());
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListAuditRequest {
                account_id: account_id.clone(),
                subject: subject.clone(),
                page_size: 0,
                page_token,
            };
            let answer = ok(self.histories.list_audit(Request::new(request)).await);
            all.extend(answer.records);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return all;
            }
        }
    }
}

fn kinds(explained: &ExplainResolutionResponse) -> Vec<LinkKind> {
    explained.links.iter().map(|link| link.kind()).collect()
}

#[tokio::test]
async fn an_explanation_gives_the_chain_with_its_dates_and_who_made_it() {
    let world = World::new().await;
    let account_id = world.account(Some("2026-01-01T00:00:00Z"), false).await;
    let team_id = world.team(&account_id, Some("2026-01-02T00:00:00Z")).await;
    let other = world.team(&account_id, None).await;
    let app_id = world.app(&account_id).await;
    let made = world.credential(&app_id, Some("2026-02-01T00:00:30Z")).await;
    world.assign(&app_id, &team_id, Some("2026-02-10T00:00:00Z")).await;
    let noon = world.now();
    world.clock.set(at("2026-03-01T13:00:00Z"));
    let edge = world.assign(&app_id, &other, None).await;
    ok(world.accounts.change_contract(World::contract(&account_id, None)).await);
    world.end_trial(&account_id, Some("2026-03-10T00:00:00Z")).await;
    world.revoke(&made.credential_id, Some("2026-03-20T00:00:00Z")).await;
    let explained = world.explain(&made.client_id, at("2026-02-20T12:34:56Z")).await;
    let resolved = world.who_pays(&made.client_id, &[at("2026-02-20T12:34:56Z")]).await.remove(0).unwrap();
    let answer = explained.resolution.as_ref().and_then(|resolution| resolution.answer.clone());
    assert_eq!(answer, Some(resolution::Answer::BilledTo(resolved)), "the answer that Resolve gives");
    use LinkKind::{Account, Contract, Credential, Owner, Team, Trial};
    assert_eq!(kinds(&explained), [Credential, Owner, Team, Account, Contract, Trial]);
    let told: Vec<_> = explained
        .links
        .iter()
        .map(|link| {
            (link.subject.as_str(), link.object.as_str(), link.from, link.to, link.made_through.as_str())
        })
        .collect();
    let (day, later) = (|text| wire(at(text)), at("2026-03-01T13:00:00Z"));
    assert_eq!(
        told,
        [
            (
                made.client_id.as_str(),
                app_id.as_str(),
                day("2026-02-01T00:00:00Z"),
                day("2026-03-20T00:00:00Z"),
                "CreateCredential"
            ),
            (&app_id, &account_id, None, None, "CreateApp"),
            (&app_id, &team_id, day("2026-02-10T00:00:00Z"), wire(edge), "AssignApp"),
            (&team_id, &account_id, day("2026-01-02T00:00:00Z"), None, "CreateTeam"),
            (&account_id, "flex", day("2026-01-01T00:00:00Z"), day("2026-04-01T00:00:00Z"), "CreateAccount"),
            (&account_id, "", day("2026-02-01T00:00:30Z"), day("2026-03-10T00:00:00Z"), ""),
        ]
    );
    assert!(explained.links[..5].iter().all(|link| link.made_by == "operator" && link.made_at == wire(noon)));
    for index in [0, 5] {
        let link = &explained.links[index];
        assert_eq!((link.end_made_at, link.end_made_by.as_str()), (wire(later), "operator"), "{link:?}");
    }
}

#[tokio::test]
async fn d37_a_team_that_a_purchase_made_says_so() {
    let world = World::new().await;
    let account_id = world.account(Some("2026-01-01T00:00:00Z"), true).await;
    let buyer_id = world.user("buyer@example.org").await;
    let request = PreparePurchaseRequest {
        account_id: account_id.clone(),
        by_user_id: buyer_id.clone(),
        ..PreparePurchaseRequest::default()
    };
    let made = ok(world.accounts.prepare_purchase(Request::new(request)).await);
    let (team_id, noon) = (made.team.unwrap().team_id, world.now());
    let app_id = world.app(&account_id).await;
    let client_id = world.credential(&app_id, None).await.client_id;
    let edge = world.assign(&app_id, &team_id, None).await;
    let explained = world.explain(&client_id, edge).await;
    let link = explained.links.iter().find(|link| link.kind() == LinkKind::Account).unwrap();
    assert_eq!(
        (link.made_through.as_str(), link.made_by.as_str(), link.made_at),
        ("PreparePurchase", buyer_id.as_str(), wire(noon))
    );
}

#[tokio::test]
async fn an_explanation_ends_where_a_link_is_missing() {
    let world = World::new().await;
    let chain = world.chain().await;
    let client_id = world.credential(&chain.app_id, Some("2026-02-01T00:00:00Z")).await.client_id;
    world.assign(&chain.app_id, &chain.team_id, Some("2026-02-10T00:00:00Z")).await;
    let unresolved =
        |explained: &ExplainResolutionResponse| match explained.resolution.as_ref().unwrap().answer {
            Some(resolution::Answer::Unresolved(reason)) => UnresolvedReason::try_from(reason).unwrap(),
            _ => UnresolvedReason::Unspecified,
        };
    let early = world.explain(&client_id, at("2026-01-31T23:59:59Z")).await;
    assert_eq!(
        (unresolved(&early), kinds(&early)),
        (UnresolvedReason::UnknownClient, vec![LinkKind::Credential])
    );
    let bare = world.explain(&client_id, at("2026-02-05T00:00:00Z")).await;
    assert_eq!(unresolved(&bare), UnresolvedReason::NoTeam);
    assert_eq!(kinds(&bare), [LinkKind::Credential, LinkKind::Owner]);
    let nobody = world.explain("client_x", world.now()).await;
    assert_eq!((unresolved(&nobody), kinds(&nobody)), (UnresolvedReason::UnknownClient, vec![]));
    let wrong = world.histories.explain_resolution(Request::new(ExplainResolutionRequest::default())).await;
    assert_eq!(refused(wrong), ("REQUEST_INVALID".to_owned(), vec!["client_id".to_owned()]));
}

#[tokio::test]
async fn a_transfer_is_in_the_chain_with_the_one_who_confirmed() {
    let world = World::new().await;
    let (giving, receiving) = (world.chain().await, world.chain().await);
    let client_id = world.credential(&giving.app_id, Some("2026-02-01T00:00:00Z")).await.client_id;
    world.assign(&giving.app_id, &giving.team_id, Some("2026-02-01T00:00:00Z")).await;
    let edge = world.hand_over(&giving.app_id, &receiving.team_id).await.unwrap();
    let owners = |explained: ExplainResolutionResponse| {
        let owner = explained.links.into_iter().find(|link| link.kind() == LinkKind::Owner).unwrap();
        (owner.object, owner.from, owner.to, owner.made_through)
    };
    let before = owners(world.explain(&client_id, at("2026-02-05T00:00:00Z")).await);
    assert_eq!(before, (giving.account_id.clone(), None, wire(edge), "CreateApp".to_owned()));
    let after = owners(world.explain(&client_id, edge).await);
    assert_eq!(after, (receiving.account_id.clone(), wire(edge), None, "ConfirmTransfer".to_owned()));
    let ahead = world.scheduled(&receiving.account_id).await;
    assert_eq!(ahead.iter().map(ScheduledChange::kind).collect::<Vec<_>>(), [ChangeKind::Transfer]);
    assert_eq!(reason(&world.cancel(&ahead[0].change_id).await.unwrap_err()), "CHANGE_OF_TRANSFER");
}

#[tokio::test]
async fn every_kind_of_scheduled_change_is_listed_and_taken_back() {
    let world = World::new().await;
    let account_id = world.account(Some("2026-01-01T00:00:00Z"), false).await;
    let (team_id, app_id) = (world.team(&account_id, None).await, world.app(&account_id).await);
    let made = world.credential(&app_id, None).await;
    world.assign(&app_id, &team_id, Some("2026-03-05T00:00:00Z")).await;
    world.end_trial(&account_id, Some("2026-03-06T00:00:00Z")).await;
    world.revoke(&made.credential_id, Some("2026-03-07T00:00:00Z")).await;
    ok(world.accounts.change_contract(World::contract(&account_id, None)).await);
    let before = world.dump().await;
    let listed = world.scheduled(&account_id).await;
    let told: Vec<_> = listed
        .iter()
        .map(|change| (change.kind(), change.subject.as_str(), change.object.as_str(), change.from))
        .collect();
    use ChangeKind::{Assignment, Contract, Revocation, TrialEnd};
    let day = |text| wire(at(text));
    assert_eq!(
        told,
        [
            (Assignment, app_id.as_str(), team_id.as_str(), day("2026-03-05T00:00:00Z")),
            (TrialEnd, &account_id, "", day("2026-03-06T00:00:00Z")),
            (Revocation, &made.credential_id, "", day("2026-03-07T00:00:00Z")),
            (Contract, &account_id, "enterprise", day("2026-04-01T00:00:00Z")),
        ]
    );
    assert!(listed.iter().all(|change| change.made_at == wire(world.now()) && change.made_by == "operator"));
    for change in &listed {
        assert_eq!(world.cancel(&change.change_id).await.unwrap(), *change);
        assert_eq!(reason(&world.cancel(&change.change_id).await.unwrap_err()), "CHANGE_UNKNOWN");
    }
    assert_eq!(world.scheduled(&account_id).await, []);
    assert_ne!(world.dump().await, before, "the rows are void, and stay");
    // as if nothing had been scheduled
    let later = [at("2026-03-05T00:00:00Z"), at("2026-04-02T00:00:00Z")];
    let nobody = world.who_pays(&made.client_id, &later).await;
    assert!(nobody.iter().all(|answer| *answer == Err(UnresolvedReason::NoTeam)), "{nobody:?}");
    let reasons: Vec<String> = world
        .audit(&account_id, "")
        .await
        .into_iter()
        .filter(|record| record.method == "CancelScheduledChange")
        .map(|record| record.reason)
        .collect();
    assert_eq!(reasons, ["a slip of the pen"; 4]);
    // and the same can be scheduled again
    world.assign(&app_id, &team_id, Some("2026-03-05T00:00:00Z")).await;
    let billed = world.who_pays(&made.client_id, &later).await.remove(1).unwrap();
    assert!(billed.in_trial && billed.contract_kind() == drawdown_proto::entitlement::v1::ContractKind::Flex);
}

#[tokio::test]
async fn d51_a_change_that_is_near_or_in_force_stays() {
    let world = World::new().await;
    let chain = world.chain().await;
    let made = world.credential(&chain.app_id, None).await;
    world.assign(&chain.app_id, &chain.team_id, None).await;
    world.revoke(&made.credential_id, None).await;
    let listed = world.scheduled(&chain.account_id).await;
    let [assignment, revocation] = &listed[..] else { panic!("{listed:?}") };
    // the secret has stopped already
    assert_eq!(reason(&world.cancel(&revocation.change_id).await.unwrap_err()), "CHANGE_TOO_NEAR");
    world.clock.set(at("2026-03-01T12:00:55.000001Z"));
    assert_eq!(reason(&world.cancel(&assignment.change_id).await.unwrap_err()), "CHANGE_TOO_NEAR");
    world.clock.set(at("2026-03-01T12:01:00Z"));
    for change in [assignment, revocation] {
        assert_eq!(reason(&world.cancel(&change.change_id).await.unwrap_err()), "CHANGE_UNKNOWN");
    }
    for wrong in ["", "assignment", "assignment_x", "assignment_-1", "trial_1", "other_1"] {
        assert_eq!(reason(&world.cancel(wrong).await.unwrap_err()), "REQUEST_INVALID", "{wrong}");
    }
    let nobody =
        ListScheduledChangesRequest { account_id: AccountId::generate().to_string(), ..Default::default() };
    assert_eq!(
        refused(world.histories.list_scheduled_changes(Request::new(nobody)).await).0,
        "ACCOUNT_UNKNOWN"
    );
}

#[tokio::test]
async fn d23_a_correction_changes_its_interval_says_why_and_keeps_what_was() {
    let world = World::new().await;
    let chain = world.chain().await;
    let (wrong, right) = (&chain.team_id, world.team(&chain.account_id, Some("2026-01-01T00:00:00Z")).await);
    let client_id = world.credential(&chain.app_id, Some("2026-01-01T00:00:00Z")).await.client_id;
    world.assign(&chain.app_id, wrong, Some("2026-01-01T00:00:00Z")).await;
    let corrected =
        ok(world.correct(&chain.app_id, &right, "2026-02-01T00:00:30Z", Some("2026-02-10T00:00:00Z")).await);
    let links: Vec<_> =
        corrected.assignments.iter().map(|link| (link.team_id.as_str(), link.from, link.to)).collect();
    let day = |text| wire(at(text));
    let edges = [day("2026-01-01T00:00:00Z"), day("2026-02-01T00:01:00Z"), day("2026-02-10T00:00:00Z")];
    assert_eq!(
        links,
        [(wrong.as_str(), edges[0], edges[1]), (&right, edges[1], edges[2]), (wrong, edges[2], None)]
    );
    for (instant, team) in [
        ("2026-02-01T00:00:59.999999Z", wrong),
        ("2026-02-01T00:01:00Z", &right),
        ("2026-02-09T23:59:59.999999Z", &right),
        ("2026-02-10T00:00:00Z", wrong),
    ] {
        assert_eq!(world.team_at(&client_id, at(instant)).await, Ok(team.clone()), "{instant}");
    }
    let before = world.dump().await;
    ok(world.correct(&chain.app_id, &right, "2026-02-01T00:00:30Z", Some("2026-02-10T00:00:00Z")).await);
    assert_eq!(world.dump().await, before, "the same again is no change");
    ok(world.correct(&chain.app_id, wrong, "2026-02-01T00:00:30Z", None).await);
    let explained = world.explain(&client_id, at("2026-02-05T00:00:00Z")).await;
    let voided = &explained.voided[..];
    assert_eq!(voided.len(), 1);
    assert_eq!((voided[0].object.as_str(), voided[0].voided_at), (right.as_str(), wire(world.now())));
    let audit = world.audit("", &chain.app_id).await;
    let corrections: Vec<_> = audit.iter().filter(|record| record.method == "CorrectAssignment").collect();
    assert_eq!(corrections.len(), 2);
    assert_eq!(
        (corrections[0].actor.as_str(), corrections[0].reason.as_str()),
        ("operator", "the wrong team was picked")
    );
    assert!(!corrections[0].before_json.contains(&right) && corrections[0].after_json.contains(&right));
}

#[tokio::test]
async fn d61_a_correction_is_refused_where_usage_from_there_on_is_settled() {
    let world = World::new().await;
    let (chain, stranger) = (world.chain().await, world.chain().await);
    let right = world.team(&chain.account_id, Some("2026-01-15T00:00:00Z")).await;
    let client_id = world.credential(&chain.app_id, Some("2026-01-01T00:00:00Z")).await.client_id;
    world.assign(&chain.app_id, &chain.team_id, Some("2026-01-01T00:00:00Z")).await;
    let before = world.dump().await;
    world.ledger.settle(&client_id, at("2026-02-01T00:00:00Z"));
    for (team, from, to, told) in [
        (&right, "2026-02-01T00:00:00Z", None, "WINDOW_SETTLED"),
        (&right, "2026-01-20T00:00:00Z", Some("2026-01-21T00:00:00Z"), "WINDOW_SETTLED"),
        (&right, "2026-01-14T00:00:00Z", None, "INSTANT_BEFORE_TEAM"),
        (&right, "2026-03-01T12:00:30Z", None, "INSTANT_IN_FUTURE"),
        (&right, "2026-02-10T00:00:00Z", Some("2026-02-10T00:00:00Z"), "INTERVAL_EMPTY"),
        (&stranger.team_id, "2026-02-10T00:00:00Z", None, "APP_AND_TEAM_DIFFER"),
        // the job may have told the ledger of the first team
        (&chain.team_id, "2025-12-31T00:00:00Z", None, "INSTANT_BEFORE_TEAM"),
    ] {
        let refusal = world.correct(&chain.app_id, team, from, to).await.unwrap_err();
        assert_eq!(reason(&refusal), told, "{from}");
    }
    assert_eq!(world.dump().await, before);
    ok(world.correct(&chain.app_id, &right, "2026-02-01T00:01:00Z", None).await);
    assert_eq!(
        world.team_at(&client_id, at("2026-02-01T00:00:00Z")).await,
        Ok(chain.team_id),
        "settled, and as it was"
    );
    assert_eq!(world.team_at(&client_id, at("2026-02-01T00:01:00Z")).await, Ok(right));
}

#[tokio::test]
async fn d49_a_first_team_that_is_taken_back_is_not_told() {
    let world = World::new().await;
    let chain = world.chain().await;
    let second = world.team(&chain.account_id, Some("2026-01-01T00:00:00Z")).await;
    world.credential(&chain.app_id, Some("2026-02-01T00:00:00Z")).await;
    let first = world.assign(&chain.app_id, &chain.team_id, Some("2026-03-02T00:00:00Z")).await;
    let next = world.assign(&chain.app_id, &second, Some("2026-03-03T00:00:00Z")).await;
    let listed = world.scheduled(&chain.account_id).await;
    world.cancel(&listed[0].change_id).await.unwrap();
    world.clock.set(first);
    assert_eq!(world.tells().await, 0);
    world.clock.set(next);
    assert_eq!(world.tells().await, 1);
    let told = world.told();
    assert_eq!((told[0].team_id.to_string(), told[0].assigned_from), (second, next));
    // once it was told it stays the first
    let refusal =
        world.correct(&chain.app_id, &chain.team_id, "2026-03-03T00:00:00Z", None).await.unwrap_err();
    assert_eq!(reason(&refusal), "FIRST_TEAM_TOLD");
}

#[tokio::test]
async fn records_are_of_an_account_or_of_one_thing() {
    let world = World::new().await;
    let (chain, stranger) = (world.chain().await, world.chain().await);
    world.suspend(&chain.team_id, "fraud?").await;
    let of_account: Vec<String> =
        world.audit(&chain.account_id, "").await.into_iter().map(|record| record.method).collect();
    assert_eq!(of_account, ["CreateAccount", "CreateTeam", "CreateApp", "Suspend"]);
    let of_team = world.audit("", &chain.team_id).await;
    assert_eq!(
        of_team.iter().map(|record| record.method.as_str()).collect::<Vec<_>>(),
        ["CreateTeam", "Suspend"]
    );
    let last = &of_team[1];
    assert_eq!((last.reason.as_str(), last.before_json.as_str()), ("fraud?", "{\"suspended\": false}"));
    assert!(world.audit("", &stranger.team_id).await.len() == 1);
    for (account_id, subject, field) in
        [("", "", "account_id"), ("x", "", "account_id"), ("", "a b", "subject"), ("x", "y", "subject")]
    {
        let (account_id, subject) = (account_id.to_owned(), subject.to_owned());
        let request = ListAuditRequest { account_id, subject, ..Default::default() };
        let told = refused(world.histories.list_audit(Request::new(request)).await);
        assert_eq!(told, ("REQUEST_INVALID".to_owned(), vec![field.to_owned()]));
    }
    // nothing else was written
    let request = World::assignment(&chain.app_id, &stranger.team_id, None);
    assert_eq!(refused(world.hierarchy.assign_app(request).await).0, "APP_AND_TEAM_DIFFER");
}
