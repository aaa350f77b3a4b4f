//! An app changes its owner: invite, accept, choose a team, confirm, with every guard (D26).

use std::{collections::BTreeSet, sync::Arc};

use drawdown_entitlement::{AccessPolicy, Memory, Parts};
use drawdown_entitlement_core::Rules;
use drawdown_proto::entitlement::v1::{
    AcceptTransferRequest, ChooseTransferTeamRequest, ConfirmTransferRequest, CreateAppRequest,
    DeclineTransferRequest, GetTeamRequest, GetTransferRequest, InviteTransferRequest, ListAppsRequest,
    ListTransfersRequest, RemoveEditorRequest, Role, Transfer, TransferStage, WithdrawTransferRequest,
    hierarchy_service_server::HierarchyService as _, transfer_service_server::TransferService as _,
};
use drawdown_types::{Timestamp, TransferId};
use tonic::{Request, Status};

use crate::world::{Chain, World, access_policy, at, instant, ok, reason, refused, wire};

/// An app of one account, and a person of another account who may take it over.
struct Sides {
    giving: Chain,
    owner: String,
    client_id: String,
    receiving: Chain,
    invited: String,
}

impl World {
    async fn sides(&self) -> Sides {
        let (giving, receiving) = (self.chain().await, self.chain().await);
        let [owner, invited] = [self.user("owner@example.com").await, self.user("invited@example.com").await];
        let request = CreateAppRequest {
            account_id: giving.account_id.clone(),
            owner_user_id: owner.clone(),
            name: "tiles".to_owned(),
            request_id: String::new(),
        };
        let app_id = ok(self.hierarchy.create_app(Request::new(request)).await).app.unwrap().app_id;
        let giving = Chain { app_id, ..giving };
        let client_id = self.credential(&giving.app_id, Some("2026-02-01T00:00:00Z")).await.client_id;
        self.assign(&giving.app_id, &giving.team_id, Some("2026-02-01T00:00:00Z")).await;
        self.give_role(&invited, Role::SecondaryAdmin, &receiving.team_id).await;
        Sides { giving, owner, client_id, receiving, invited }
    }

    async fn invite(&self, app_id: &str, to: &str, by: &str) -> Result<Transfer, Status> {
        let (app_id, to_user_id, by_user_id) = (app_id.to_owned(), to.to_owned(), by.to_owned());
        let request = InviteTransferRequest { app_id, to_user_id, by_user_id, request_id: String::new() };
        let answer = self.transfers.invite_transfer(Request::new(request)).await;
        answer.map(|answer| answer.into_inner().transfer.unwrap())
    }

    async fn accept(&self, transfer_id: &str, by: &str) -> Result<Transfer, Status> {
        let (transfer_id, by_user_id) = (transfer_id.to_owned(), by.to_owned());
        let request = AcceptTransferRequest { transfer_id, by_user_id, request_id: String::new() };
        let answer = self.transfers.accept_transfer(Request::new(request)).await;
        answer.map(|answer| answer.into_inner().transfer.unwrap())
    }

    async fn choose(&self, transfer_id: &str, team_id: &str, by: &str) -> Result<Transfer, Status> {
        let (transfer_id, team_id, by_user_id) = (transfer_id.to_owned(), team_id.to_owned(), by.to_owned());
        let request =
            ChooseTransferTeamRequest { transfer_id, team_id, by_user_id, request_id: String::new() };
        let answer = self.transfers.choose_transfer_team(Request::new(request)).await;
        answer.map(|answer| answer.into_inner().transfer.unwrap())
    }

    async fn confirm(&self, transfer_id: &str, by: &str) -> Result<Transfer, Status> {
        let (transfer_id, by_user_id) = (transfer_id.to_owned(), by.to_owned());
        let request = ConfirmTransferRequest { transfer_id, by_user_id, request_id: String::new() };
        let answer = self.transfers.confirm_transfer(Request::new(request)).await;
        answer.map(|answer| answer.into_inner().transfer.unwrap())
    }

    async fn withdraw(&self, transfer_id: &str, by: &str) -> Result<Transfer, Status> {
        let (transfer_id, by_user_id) = (transfer_id.to_owned(), by.to_owned());
        let request = WithdrawTransferRequest { transfer_id, by_user_id, request_id: String::new() };
        let answer = self.transfers.withdraw_transfer(Request::new(request)).await;
        answer.map(|answer| answer.into_inner().transfer.unwrap())
    }

    /// The whole way at once, by the operator; what is refused on it is withdrawn. From which edge on.
    pub(crate) async fn hand_over(&self, app_id: &str, team_id: &str) -> Result<Timestamp, Status> {
        let invited = self.user(&format!("{}@example.com", TransferId::generate())).await;
        let request = GetTeamRequest { team_id: team_id.to_owned() };
        self.hierarchy.get_team(Request::new(request)).await?;
        self.give_role(&invited, Role::SecondaryAdmin, team_id).await;
        let transfer = self.invite(app_id, &invited, "").await?.transfer_id;
        let rest = async {
            self.accept(&transfer, "").await?;
            self.choose(&transfer, team_id, "").await?;
            self.confirm(&transfer, "").await
        };
        match rest.await {
            Ok(done) => Ok(instant(done.effective_from.as_ref())),
            Err(refusal) => {
                self.withdraw(&transfer, "").await?;
                Err(refusal)
            }
        }
    }
}

#[tokio::test]
async fn d26_an_app_moves_at_an_edge_and_nothing_else_does() {
    let world = &World::new().await;
    let sides = world.sides().await;
    let Sides { giving, owner, client_id, receiving, invited } = &sides;
    let staying = world.app(&giving.account_id).await;
    world.assign(&staying, &giving.team_id, Some("2026-02-01T00:00:00Z")).await;
    let transfer = world.invite(&giving.app_id, invited, owner).await.unwrap();
    assert_eq!(
        (transfer.stage(), transfer.expires_at),
        (TransferStage::Invited, wire(at("2026-03-15T12:00:00Z")))
    );
    let id = transfer.transfer_id.as_str();
    assert_eq!(world.accept(id, invited).await.unwrap().stage(), TransferStage::Accepted);
    assert_eq!(
        world.choose(id, &receiving.team_id, invited).await.unwrap().stage(),
        TransferStage::TeamChosen
    );
    world.clock.set(at("2026-03-01T12:30:57Z"));
    let done = world.confirm(id, invited).await.unwrap();
    let edge = at("2026-03-01T12:32:00Z");
    assert_eq!((done.stage(), done.effective_from), (TransferStage::Confirmed, wire(edge)));
    let just_before = Timestamp::from_micros(edge.as_micros() - 1).unwrap();
    let billed = world.who_pays(client_id, &[just_before, edge]).await;
    let payers = billed.into_iter().map(|billed| billed.map(|billed| (billed.team_id, billed.account_id)));
    let both = |chain: &Chain| Ok((chain.team_id.clone(), chain.account_id.clone()));
    assert_eq!(payers.collect::<Vec<_>>(), [both(giving), both(receiving)]);
    // the same again, with no request id
    assert_eq!(world.confirm(id, invited).await.unwrap(), done);
    let apps = |account_id: &str| {
        let request = ListAppsRequest { account_id: account_id.to_owned(), ..Default::default() };
        async move { ok(world.hierarchy.list_apps(Request::new(request)).await).apps }
    };
    let ids = |apps: Vec<drawdown_proto::entitlement::v1::App>| {
        apps.into_iter().map(|app| app.app_id).collect::<Vec<_>>()
    };
    assert!(ids(apps(&giving.account_id).await).contains(&giving.app_id), "until the edge");
    world.clock.set(edge);
    let left = ids(apps(&giving.account_id).await);
    assert!(left.contains(&staying) && !left.contains(&giving.app_id));
    let moved =
        apps(&receiving.account_id).await.into_iter().find(|app| app.app_id == giving.app_id).unwrap();
    assert_eq!((&moved.owner_user_id, &moved.team_id), (invited, &receiving.team_id));
    assert_eq!(&moved.editor_user_ids, std::slice::from_ref(owner), "the old owner becomes an editor");
    assert_eq!(&moved.client_ids, std::slice::from_ref(client_id));
    // from then on it is the new account's: its teams take it, those of the old account do not
    let told =
        refused(world.hierarchy.assign_app(World::assignment(&giving.app_id, &giving.team_id, None)).await);
    assert_eq!(told.0, "APP_AND_TEAM_DIFFER");
    let second = world.team(&receiving.account_id, None).await;
    world.assign(&giving.app_id, &second, None).await;
}

#[tokio::test]
async fn d26_only_those_concerned_act() {
    let world = World::new().await;
    let Sides { giving, owner, receiving, invited, .. } = &world.sides().await;
    let [manager, admin, member, stranger] = [
        world.user("manager@example.com").await,
        world.user("admin@example.com").await,
        world.user("member@example.com").await,
        world.user("stranger@example.com").await,
    ];
    world.give_role(&manager, Role::ContractManager, &giving.account_id).await;
    world.give_role(&admin, Role::PrimaryAdmin, &giving.team_id).await;
    world.give_role(&member, Role::Member, &giving.team_id).await;
    for nobody in [&member, &stranger, invited] {
        let refusal = world.invite(&giving.app_id, invited, nobody).await.unwrap_err();
        assert_eq!(
            (refusal.code(), reason(&refusal).as_str()),
            (tonic::Code::PermissionDenied, "TRANSFER_NOT_PERMITTED")
        );
    }
    for giver in [owner.as_str(), &manager, &admin, ""] {
        let id = world.invite(&giving.app_id, invited, giver).await.unwrap().transfer_id;
        for nobody in [owner, &manager, &stranger] {
            for refusal in [
                world.accept(&id, nobody).await,
                world.choose(&id, &receiving.team_id, nobody).await,
                world.confirm(&id, nobody).await,
            ] {
                assert_eq!(reason(&refusal.unwrap_err()), "TRANSFER_NOT_PERMITTED");
            }
        }
        assert_eq!(reason(&world.withdraw(&id, invited).await.unwrap_err()), "TRANSFER_NOT_PERMITTED");
        let withdrawn = world.withdraw(&id, giver).await.unwrap();
        assert_eq!(withdrawn.stage(), TransferStage::Withdrawn);
        assert_eq!(world.withdraw(&id, giver).await.unwrap(), withdrawn, "the same again is no change");
        assert_eq!(reason(&world.accept(&id, invited).await.unwrap_err()), "TRANSFER_OVER");
    }
    let refusal = world.invite(&giving.app_id, owner, owner).await.unwrap_err();
    assert_eq!(reason(&refusal), "USER_OWNS_APP");
}

#[tokio::test]
async fn d26_one_invitation_at_a_time_until_it_is_declined_or_expires() {
    let world =
        World::with(Rules { invitation: std::time::Duration::from_secs(3_600), ..Rules::default() }).await;
    let Sides { giving, owner, receiving, invited, .. } = &world.sides().await;
    world.warm().await;
    let ask = || world.invite(&giving.app_id, invited, owner);
    let (a, b) = tokio::join!(ask(), ask());
    let (won, lost): (Vec<_>, Vec<_>) = [a, b].into_iter().partition(Result::is_ok);
    assert_eq!(reason(lost[0].as_ref().unwrap_err()), "TRANSFER_OPEN");
    let first = won[0].as_ref().unwrap().transfer_id.clone();
    let decline = DeclineTransferRequest {
        transfer_id: first.clone(),
        by_user_id: invited.clone(),
        request_id: String::new(),
    };
    let declined = ok(world.transfers.decline_transfer(Request::new(decline)).await).transfer.unwrap();
    assert_eq!((declined.stage(), declined.closed_at), (TransferStage::Declined, wire(world.now())));
    let second = ask().await.unwrap();
    world.accept(&second.transfer_id, invited).await.unwrap();
    world.choose(&second.transfer_id, &receiving.team_id, invited).await.unwrap();
    world.clock.set(at("2026-03-01T13:00:00Z"));
    for refusal in [
        world.confirm(&second.transfer_id, invited).await,
        world.withdraw(&second.transfer_id, owner).await,
        world.accept(&second.transfer_id, invited).await,
    ] {
        assert_eq!(reason(&refusal.unwrap_err()), "TRANSFER_OVER", "it expired");
    }
    let get = GetTransferRequest { transfer_id: second.transfer_id.clone() };
    let read = ok(world.transfers.get_transfer(Request::new(get)).await).transfer.unwrap();
    assert_eq!((read.stage(), read.closed_at), (TransferStage::Expired, None));
    let third = ask().await.unwrap();
    let stages = |app_id: &str, account_id: &str, user_id: &str| {
        let (app_id, account_id, user_id) = (app_id.to_owned(), account_id.to_owned(), user_id.to_owned());
        let request = ListTransfersRequest { app_id, account_id, user_id, ..Default::default() };
        async {
            let listed = ok(world.transfers.list_transfers(Request::new(request)).await).transfers;
            listed.iter().map(Transfer::stage).collect::<Vec<_>>()
        }
    };
    let all = [TransferStage::Declined, TransferStage::Expired, TransferStage::Invited];
    assert_eq!(stages(&giving.app_id, "", "").await, all);
    assert_eq!(stages("", &giving.account_id, "").await, all);
    assert_eq!(stages("", "", invited).await, all);
    assert_eq!(stages("", &receiving.account_id, "").await, []);
    assert_ne!(third.transfer_id, first);
}

#[tokio::test]
async fn d26_steps_come_in_their_order_and_the_team_is_another_one_that_may_be_used() {
    let world = World::new().await;
    let Sides { giving, owner, receiving, invited, .. } = &world.sides().await;
    let id = world.invite(&giving.app_id, invited, owner).await.unwrap().transfer_id;
    assert_eq!(
        reason(&world.choose(&id, &receiving.team_id, invited).await.unwrap_err()),
        "TRANSFER_OUT_OF_ORDER"
    );
    assert_eq!(reason(&world.confirm(&id, invited).await.unwrap_err()), "TRANSFER_OUT_OF_ORDER");
    world.accept(&id, invited).await.unwrap();
    assert_eq!(reason(&world.confirm(&id, invited).await.unwrap_err()), "TRANSFER_OUT_OF_ORDER");
    world.give_role(invited, Role::SecondaryAdmin, &giving.team_id).await;
    let same = world.choose(&id, &giving.team_id, invited).await.unwrap_err();
    assert_eq!(reason(&same), "TRANSFER_SAME_TEAM");
    let closed = world.team(&receiving.account_id, None).await;
    assert_eq!(reason(&world.choose(&id, &closed, invited).await.unwrap_err()), "PRODUCT_NOT_ASSIGNED");
    world.give_role(invited, Role::Member, &closed).await;
    assert_eq!(reason(&world.choose(&id, &closed, invited).await.unwrap_err()), "PRODUCT_NOT_ASSIGNED");
    world.assign_product(&closed, invited, "").await.unwrap();
    assert_eq!(world.choose(&id, &closed, invited).await.unwrap().to_team_id, closed);
    assert_eq!(world.choose(&id, &receiving.team_id, invited).await.unwrap().to_team_id, receiving.team_id);
    // what held at the choice has to hold at the confirmation
    world.give_role(invited, Role::Member, &receiving.team_id).await;
    assert_eq!(reason(&world.confirm(&id, invited).await.unwrap_err()), "PRODUCT_NOT_ASSIGNED");
    world.give_role(invited, Role::SecondaryAdmin, &receiving.team_id).await;
    world
        .assign(&giving.app_id, &world.team(&giving.account_id, None).await, Some("2026-04-01T00:00:00Z"))
        .await;
    assert_eq!(reason(&world.confirm(&id, invited).await.unwrap_err()), "ASSIGNMENT_OVERLAP");
}

#[tokio::test]
async fn d26_both_sides_are_at_full_access() {
    let world = World::new().await;
    let Sides { giving, owner, receiving, invited, client_id } = &world.sides().await;
    let id = world.invite(&giving.app_id, invited, owner).await.unwrap().transfer_id;
    world.accept(&id, invited).await.unwrap();
    world.choose(&id, &receiving.team_id, invited).await.unwrap();
    let before = world.team_at(client_id, at("2026-04-01T00:00:00Z")).await;
    for team_id in [&giving.team_id, &receiving.team_id] {
        world.ledger.balances.lock().unwrap().insert(team_id.clone(), -1);
        assert_eq!(reason(&world.confirm(&id, invited).await.unwrap_err()), "BALANCE_BELOW_ZERO");
        world.ledger.balances.lock().unwrap().clear();
    }
    for subject in [&giving.team_id, &giving.account_id, &receiving.team_id, &receiving.account_id] {
        world.suspend(subject, "unpaid").await;
        assert_eq!(reason(&world.confirm(&id, invited).await.unwrap_err()), "SUSPENDED", "{subject}");
        let further = world.invite(&giving.app_id, invited, owner).await.unwrap_err();
        assert_eq!(reason(&further), "TRANSFER_OPEN");
        world.lift(subject, "paid").await.unwrap();
    }
    world.ledger.is_away.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(reason(&world.confirm(&id, invited).await.unwrap_err()), "LEDGER_UNAVAILABLE");
    world.ledger.is_away.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(world.team_at(client_id, at("2026-04-01T00:00:00Z")).await, before, "nothing moved");
    world.confirm(&id, invited).await.unwrap();
    assert_eq!(world.team_at(client_id, at("2026-04-01T00:00:00Z")).await, Ok(receiving.team_id.clone()));
}

#[tokio::test]
async fn d26_no_side_is_in_its_trial_and_the_app_has_a_team() {
    let world = World::new().await;
    let account_id = world.account(Some("2026-02-01T00:00:00Z"), false).await;
    let trial = Chain {
        team_id: world.team(&account_id, Some("2026-02-01T00:00:00Z")).await,
        app_id: world.app(&account_id).await,
        account_id,
    };
    world.credential(&trial.app_id, None).await;
    world.assign(&trial.app_id, &trial.team_id, Some("2026-02-01T00:00:00Z")).await;
    let chain = world.chain().await;
    let commercial = world.hand_over(&trial.app_id, &chain.team_id).await.unwrap_err();
    assert_eq!(reason(&commercial), "TRANSFER_IN_TRIAL");
    assert_eq!(
        reason(&world.hand_over(&chain.app_id, &trial.team_id).await.unwrap_err()),
        "APP_WITHOUT_TEAM"
    );
    world.assign(&chain.app_id, &chain.team_id, Some("2026-02-01T00:00:00Z")).await;
    assert_eq!(
        reason(&world.hand_over(&chain.app_id, &trial.team_id).await.unwrap_err()),
        "TRANSFER_IN_TRIAL"
    );
    world.clock.set(world.end_trial(&trial.account_id, None).await);
    world.hand_over(&chain.app_id, &trial.team_id).await.unwrap();
    world.hand_over(&trial.app_id, &chain.team_id).await.unwrap();
}

#[tokio::test]
async fn d26_an_app_goes_to_another_cell_and_back_each_ledger_asked_for_its_own_side() {
    let mut world = World::new().await;
    let (here, there) = (world.chain().await, world.chain_in(2).await.unwrap());
    world.assign(&here.app_id, &here.team_id, Some("2026-02-01T00:00:00Z")).await;
    let client_id = world.credential(&here.app_id, None).await.client_id;
    let moved = world.hand_over(&here.app_id, &there.team_id).await.unwrap();
    let asked = std::mem::take(&mut *world.ledger.asked_for_balances.lock().unwrap());
    assert_eq!(asked, [(0, here.team_id.clone()), (2, there.team_id.clone())]);
    let before = Timestamp::from_micros(moved.as_micros() - 1).unwrap();
    let payers = world.who_pays(&client_id, &[before, moved]).await;
    let payers: Vec<_> = payers.into_iter().map(|payer| payer.unwrap()).collect();
    assert_eq!((&payers[0].team_id, payers[0].cell), (&here.team_id, 0), "use before it stays");
    assert_eq!((&payers[1].team_id, payers[1].cell), (&there.team_id, 2));

    world.clock.set(moved);
    world.ledger.balances.lock().unwrap().insert(there.team_id.clone(), -1);
    let below = world.hand_over(&here.app_id, &here.team_id).await.unwrap_err();
    assert_eq!(reason(&below), "BALANCE_BELOW_ZERO");
    // an instance that does not know the ledger of a side can not ask it
    let (parts, policy) = (world.parts.clone(), AccessPolicy { others: BTreeSet::new(), ..access_policy() });
    let clock = Arc::clone(&parts.clock);
    let memory = Memory::new(parts.pool.clone(), clock, (parts.rules, false), policy, &parts.meter);
    world.parts = Parts { memory, ..parts };
    world.rebuild();
    let unreached = world.hand_over(&here.app_id, &here.team_id).await.unwrap_err();
    assert_eq!(reason(&unreached), "CELL_UNREACHED");
}

#[tokio::test]
async fn two_apps_that_change_places_at_once_wait_for_each_other() {
    let world = World::new().await;
    world.warm().await;
    let (a, b) = (world.chain().await, world.chain().await);
    for chain in [&a, &b] {
        world.assign(&chain.app_id, &chain.team_id, Some("2026-02-01T00:00:00Z")).await;
    }
    let (there, back) =
        tokio::join!(world.hand_over(&a.app_id, &b.team_id), world.hand_over(&b.app_id, &a.team_id));
    assert_eq!((there.unwrap(), back.unwrap()), (at("2026-03-01T12:01:00Z"), at("2026-03-01T12:01:00Z")));
}

#[tokio::test]
async fn the_right_of_an_editor_can_be_taken() {
    let world = World::new().await;
    let Sides { giving, owner, receiving, .. } = &world.sides().await;
    world.clock.set(world.hand_over(&giving.app_id, &receiving.team_id).await.unwrap());
    let remove = |by: &str| {
        let (app_id, user_id, by_user_id) = (giving.app_id.clone(), owner.clone(), by.to_owned());
        let request = RemoveEditorRequest { app_id, user_id, by_user_id, request_id: String::new() };
        world.transfers.remove_editor(Request::new(request))
    };
    assert_eq!(refused(remove(owner).await).0, "TRANSFER_NOT_PERMITTED", "an editor is no owner");
    assert_eq!(ok(remove("").await).at, wire(world.now()));
    assert_eq!(ok(remove("").await).at, None);
    let request = ListAppsRequest { account_id: receiving.account_id.clone(), ..Default::default() };
    let apps = ok(world.hierarchy.list_apps(Request::new(request)).await).apps;
    assert!(apps.iter().all(|app| app.editor_user_ids.is_empty()));
}
