//! Every act of an admin is in the audit log, with who did what: each method of the contracts that changes anything is
//! done once, in an order in which one needs the other. A method that is added has to be done here too.

use std::{collections::BTreeSet, sync::Mutex};

use drawdown_entitlement::{Hubs, Imports};
use drawdown_proto::entitlement::v1::{
    AcceptTransferRequest, AccountImport, AssignProductRequest, CancelScheduledChangeRequest,
    ChooseTransferTeamRequest, ConfirmTransferRequest, CorrectAssignmentRequest, CreateAccountRequest,
    CreateAppRequest, CreateCredentialRequest, CreateHubRequest, CreateKeyRequest, CreateTeamRequest,
    CreateUserRequest, DeclineTransferRequest, EndPrincipalRequest, EndProductAssignmentRequest,
    EndRoleRequest, EndTrialRequest, ImportAccountsRequest, InviteTransferRequest, LiftSuspensionRequest,
    MoveAppRequest, PreparePurchaseRequest, PrincipalRole, RemoveEditorRequest, RevokeCredentialRequest,
    RevokeKeyRequest, Role, RotateCredentialRequest, RotateKeyRequest, SetRoleRequest, SuspendRequest,
    WithdrawTransferRequest, account_service_server::AccountService as _,
    credential_service_server::CredentialService as _, hierarchy_service_server::HierarchyService as _,
    history_service_server::HistoryService as _, hub_service_server::HubService as _,
    import_service_server::ImportService as _, member_service_server::MemberService as _,
    principal_service_server::PrincipalService as _, transfer_service_server::TransferService as _,
};
use drawdown_service::identity::RULES;
use tonic::{Request, Response, Status};

use crate::{
    principals::principal,
    world::{World, at, ok, wire},
};

/// How methods begin that change nothing.
const READS: [&str; 9] =
    ["Get", "List", "Check", "BatchCheck", "StreamCheck", "Watch", "Resolve", "BatchResolve", "Explain"];
/// Reads under other names: whether a secret is somebody's.
const PROOFS: [&str; 2] = ["VerifyCredential", "AuthenticateKey"];

/// A world, and the acts that were done in it.
struct Audited {
    world: World,
    done: Mutex<BTreeSet<&'static str>>,
}

impl Audited {
    /// Does an act, and looks for its line: one, of this method, by somebody, about something.
    async fn act<T>(
        &self,
        method: &'static str,
        act: impl Future<Output = Result<Response<T>, Status>>,
    ) -> T {
        let before = self.lines().await.len();
        let answer = act.await;
        let answer = ok(answer.map_err(|status| Status::new(status.code(), format!("{method}: {status:?}"))));
        let lines = self.lines().await;
        let [(said, caller, actor, subject, after)] = &lines[before..] else {
            panic!("{method} left {:?}", &lines[before..])
        };
        assert_eq!(said, method);
        assert!(!caller.is_empty() && !actor.is_empty() && !subject.is_empty(), "{method}: {caller} {actor}");
        assert!(after.starts_with('{'), "{method}: {after}");
        self.done.lock().unwrap().insert(method);
        answer
    }

    async fn lines(&self) -> Vec<(String, String, String, String, String)> {
        let lines =
            "SELECT method, caller, actor, subject, after::text FROM entitlement.audit_log ORDER BY audit_id";
        sqlx::query_as(lines).fetch_all(self.world.database.pool()).await.unwrap()
    }

    /// An account with two teams, an app with credentials, and what becomes of them.
    async fn hierarchy(&self) -> (String, String, String) {
        let world = &self.world;
        let opened = CreateAccountRequest {
            name: "A".to_owned(),
            contract_kind: 1,
            created_at: wire(at("2026-01-01T00:00:00Z")),
            ..Default::default()
        };
        let account = self.act("CreateAccount", world.hierarchy.create_account(Request::new(opened))).await;
        let account_id = account.account.unwrap().account_id;
        let team = CreateTeamRequest {
            account_id: account_id.clone(),
            name: "T".to_owned(),
            created_at: wire(at("2026-01-01T00:00:00Z")),
            ..Default::default()
        };
        let team = self.act("CreateTeam", world.hierarchy.create_team(Request::new(team))).await;
        let team_id = team.team.unwrap().team_id;
        let app =
            CreateAppRequest { account_id: account_id.clone(), name: "X".to_owned(), ..Default::default() };
        let app_id =
            self.act("CreateApp", world.hierarchy.create_app(Request::new(app))).await.app.unwrap().app_id;
        let credential = CreateCredentialRequest { app_id: app_id.clone(), ..Default::default() };
        let made =
            self.act("CreateCredential", world.hierarchy.create_credential(Request::new(credential))).await;
        let assignment = World::assignment(&app_id, &team_id, Some("2026-02-01T00:00:00Z"));
        self.act("AssignApp", world.hierarchy.assign_app(assignment)).await;
        let rotation =
            RotateCredentialRequest { credential_id: made.credential_id.clone(), ..Default::default() };
        self.act("RotateCredential", world.credentials.rotate_credential(Request::new(rotation))).await;
        let revocation = RevokeCredentialRequest { credential_id: made.credential_id, ..Default::default() };
        self.act("RevokeCredential", world.credentials.revoke_credential(Request::new(revocation))).await;
        self.act("ChangeContract", world.accounts.change_contract(World::contract(&account_id, None))).await;
        let change_id = world.scheduled(&account_id).await.pop().unwrap().change_id;
        let back =
            CancelScheduledChangeRequest { change_id, note: "n".to_owned(), request_id: String::new() };
        self.act("CancelScheduledChange", world.histories.cancel_scheduled_change(Request::new(back))).await;
        let end = EndTrialRequest { account_id: account_id.clone(), ..Default::default() };
        self.act("EndTrial", world.accounts.end_trial(Request::new(end))).await;
        let (of, note) = (account_id.clone(), "n".to_owned());
        let suspend = SuspendRequest { account_id: of.clone(), note: note.clone(), ..Default::default() };
        self.act("Suspend", world.accounts.suspend(Request::new(suspend))).await;
        let lift = LiftSuspensionRequest { account_id: of, note, ..Default::default() };
        self.act("LiftSuspension", world.accounts.lift_suspension(Request::new(lift))).await;
        (account_id, team_id, app_id)
    }

    async fn corrected_and_in_a_hub(&self, account_id: &str, app_id: &str) {
        let world = &self.world;
        let other = world.team(account_id, Some("2026-01-01T00:00:00Z")).await;
        // what the ledger was told of first teams may not change, and it was told of none
        let correction = CorrectAssignmentRequest {
            app_id: app_id.to_owned(),
            team_id: other,
            from: wire(at("2026-02-10T00:00:00Z")),
            to: wire(at("2026-02-11T00:00:00Z")),
            note: "n".to_owned(),
            request_id: String::new(),
        };
        self.act("CorrectAssignment", world.histories.correct_assignment(Request::new(correction))).await;
        let hubs = Hubs::new(&world.parts);
        let hub = CreateHubRequest {
            account_id: account_id.to_owned(),
            name: "H".to_owned(),
            ..Default::default()
        };
        let hub_id = self.act("CreateHub", hubs.create_hub(Request::new(hub))).await.hub.unwrap().hub_id;
        let place = MoveAppRequest { app_id: app_id.to_owned(), hub_id, ..Default::default() };
        self.act("MoveApp", hubs.move_app(Request::new(place))).await;
    }

    async fn people(&self, team_id: &str) -> String {
        let world = &self.world;
        let user = CreateUserRequest {
            email: "p@example.org".to_owned(),
            name: "P".to_owned(),
            ..Default::default()
        };
        let user = self.act("CreateUser", world.hierarchy.create_user(Request::new(user))).await;
        let (user_id, team) = (user.user.unwrap().user_id, team_id.to_owned());
        let role = SetRoleRequest {
            user_id: user_id.clone(),
            role: Role::Member.into(),
            team_id: team.clone(),
            ..Default::default()
        };
        self.act("SetRole", world.hierarchy.set_role(Request::new(role))).await;
        let product =
            AssignProductRequest { team_id: team.clone(), user_id: user_id.clone(), ..Default::default() };
        self.act("AssignProduct", world.members.assign_product(Request::new(product))).await;
        let product = EndProductAssignmentRequest {
            team_id: team.clone(),
            user_id: user_id.clone(),
            ..Default::default()
        };
        let ended = world.members.end_product_assignment(Request::new(product));
        self.act("EndProductAssignment", ended).await;
        let role = EndRoleRequest { user_id: user_id.clone(), team_id: team, ..Default::default() };
        self.act("EndRole", world.members.end_role(Request::new(role))).await;
        user_id
    }

    /// A transfer that goes through, one that is taken back, and one that is not wanted.
    async fn transfers(&self, app_id: &str, owner: &str) {
        let (world, transfers) = (&self.world, &self.world.transfers);
        let chain = world.chain().await;
        let invited = world.user("invited@example.org").await;
        world.give_role(&invited, Role::SecondaryAdmin, &chain.team_id).await;
        let invite = || {
            let (app_id, to_user_id) = (app_id.to_owned(), invited.clone());
            Request::new(InviteTransferRequest { app_id, to_user_id, ..Default::default() })
        };
        let invited = || self.act("InviteTransfer", transfers.invite_transfer(invite()));
        let transfer_id = invited().await.transfer.unwrap().transfer_id;
        let withdraw = WithdrawTransferRequest { transfer_id, ..Default::default() };
        self.act("WithdrawTransfer", transfers.withdraw_transfer(Request::new(withdraw))).await;
        let transfer_id = invited().await.transfer.unwrap().transfer_id;
        let decline = DeclineTransferRequest { transfer_id, ..Default::default() };
        self.act("DeclineTransfer", transfers.decline_transfer(Request::new(decline))).await;
        let transfer_id = invited().await.transfer.unwrap().transfer_id;
        let id = || transfer_id.clone();
        let accept = AcceptTransferRequest { transfer_id: id(), ..Default::default() };
        self.act("AcceptTransfer", transfers.accept_transfer(Request::new(accept))).await;
        let choose = ChooseTransferTeamRequest {
            transfer_id: id(),
            team_id: chain.team_id.clone(),
            ..Default::default()
        };
        self.act("ChooseTransferTeam", transfers.choose_transfer_team(Request::new(choose))).await;
        let confirm = ConfirmTransferRequest { transfer_id: id(), ..Default::default() };
        self.act("ConfirmTransfer", transfers.confirm_transfer(Request::new(confirm))).await;
        world.clock.set(at("2026-03-02T00:00:00Z"));
        let (app_id, user_id) = (app_id.to_owned(), owner.to_owned());
        let editor = RemoveEditorRequest { app_id, user_id, ..Default::default() };
        self.act("RemoveEditor", transfers.remove_editor(Request::new(editor))).await;
    }

    async fn callers(&self) {
        let principals = &self.world.principals;
        let made = principal(PrincipalRole::Gateway, "", "");
        let made = self.act("CreatePrincipal", principals.create_principal(Request::new(made))).await;
        let principal_id = made.principal.unwrap().principal_id;
        let key = CreateKeyRequest { principal_id: principal_id.clone(), ..Default::default() };
        let key = self.act("CreateKey", principals.create_key(Request::new(key))).await;
        let rotate = RotateKeyRequest { key_id: key.key.unwrap().key_id, ..Default::default() };
        let key = self.act("RotateKey", principals.rotate_key(Request::new(rotate))).await;
        let revoke = RevokeKeyRequest { key_id: key.key.unwrap().key_id, ..Default::default() };
        self.act("RevokeKey", principals.revoke_key(Request::new(revoke))).await;
        let end = EndPrincipalRequest { principal_id, note: "n".to_owned(), ..Default::default() };
        self.act("EndPrincipal", principals.end_principal(Request::new(end))).await;
    }
}

#[tokio::test]
async fn every_method_that_changes_anything_leaves_its_line() {
    let audited = Audited { world: World::new().await, done: Mutex::default() };
    let world = &audited.world;
    let (account_id, team_id, app_id) = audited.hierarchy().await;
    audited.corrected_and_in_a_hub(&account_id, &app_id).await;
    let user_id = audited.people(&team_id).await;
    let owned = CreateAppRequest {
        account_id: account_id.clone(),
        owner_user_id: user_id.clone(),
        name: "Y".to_owned(),
        ..Default::default()
    };
    let owned = ok(world.hierarchy.create_app(Request::new(owned)).await).app.unwrap().app_id;
    world.assign(&owned, &team_id, Some("2026-02-01T00:00:00Z")).await;
    // the trial of its account is over from the next edge on
    world.clock.set(at("2026-03-01T12:02:00Z"));
    audited.transfers(&owned, &user_id).await;
    audited.callers().await;
    let bare = world.account(None, true).await;
    let purchase = PreparePurchaseRequest { account_id: bare, ..Default::default() };
    audited.act("PreparePurchase", world.accounts.prepare_purchase(Request::new(purchase))).await;
    let imports = Imports::new(&world.parts);
    let import = AccountImport {
        name: "I".to_owned(),
        created_at: wire(at("2025-06-01T00:00:00Z")),
        contract_kind: 1,
        ..Default::default()
    };
    let import = ImportAccountsRequest { accounts: vec![import], note: "n".to_owned(), ..Default::default() };
    audited.act("ImportAccounts", imports.import_accounts(Request::new(import))).await;

    let of_entitlement = RULES.iter().copied().flatten();
    let methods = of_entitlement.filter_map(|rule| rule.method.strip_prefix("drawdown.entitlement.v1."));
    let methods = methods.filter_map(|method| Some(method.split_once('/')?.1));
    let changes = methods
        .filter(|method| !READS.iter().any(|read| method.starts_with(read)) && !PROOFS.contains(method));
    let changes: BTreeSet<&str> = changes.collect();
    assert_eq!(*audited.done.lock().unwrap(), changes);
}
