//! Handing apps to other owners (D26).
//!
//! Locks: both accounts in the order of their ids, then the app, then what hangs on it. Which accounts those are is
//! read first without a lock and compared afterwards: where the app or the transfer went on meanwhile, the act begins
//! again. Balances are asked of the ledger with no lock held; what a team spends between the answer and the commit is
//! not seen.

use drawdown_entitlement_core::plan::{
    Actor, Assignment, ConfirmFacts, ConfirmPlan, Party, Stage, Standing, TransferAct, TransferPlan,
    TransferState, plan_confirmation, plan_invitation, plan_team_choice, plan_transfer_step,
};
use drawdown_proto::entitlement::v1::{
    AcceptTransferResponse, ChooseTransferTeamResponse, ConfirmTransferResponse, DeclineTransferResponse,
    InviteTransferResponse, RemoveEditorResponse, Transfer, WithdrawTransferResponse,
};
use drawdown_proto::scalar::timestamp_to_proto;
use drawdown_types::{AppId, TeamId, Timestamp, TransferId, UserId};
use serde_json::{Value, json};

use super::{
    Act, Acts, Step, Told, existing,
    parties::{self, AppSide, Held},
};
use crate::{
    Error,
    error::Refused,
    grpc::encode,
    store::{self, AuditEntry, Made, TransferRecord, Tx},
};

/// Invites a person to take over an app.
#[derive(Clone, Debug)]
pub(crate) struct InviteTransfer {
    pub(crate) app_id: AppId,
    pub(crate) to: UserId,
    pub(crate) actor: Actor,
}

/// A transfer, and who acts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnTransfer {
    pub(crate) transfer_id: TransferId,
    pub(crate) actor: Actor,
}

/// The person invited accepts.
#[derive(Clone, Debug)]
pub(crate) struct AcceptTransfer(pub(crate) OnTransfer);

/// The giving side takes it back.
#[derive(Clone, Debug)]
pub(crate) struct WithdrawTransfer(pub(crate) OnTransfer);

/// The person invited does not want it.
#[derive(Clone, Debug)]
pub(crate) struct DeclineTransfer(pub(crate) OnTransfer);

/// The person invited chooses a team.
#[derive(Clone, Debug)]
pub(crate) struct ChooseTransferTeam {
    pub(crate) on: OnTransfer,
    pub(crate) team_id: TeamId,
}

/// The person invited confirms.
#[derive(Clone, Debug)]
pub(crate) struct ConfirmTransfer(pub(crate) OnTransfer);

/// Takes the right of an editor.
#[derive(Clone, Debug)]
pub(crate) struct RemoveEditor {
    pub(crate) app_id: AppId,
    pub(crate) user_id: UserId,
    pub(crate) actor: Actor,
}

impl Act for InviteTransfer {
    type Reply = InviteTransferResponse;

    const METHOD: &'static str = "InviteTransfer";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        let Some(app) = parties::hold_app(tx, acts, self.app_id, None).await? else {
            return Ok(Step::Again);
        };
        existing::user(tx, self.to).await?;
        let acting = app.acting(tx, self.actor).await?;
        let open = store::open_transfer_in_tx(tx, self.app_id).await?;
        let people = (app.owner.user_id, self.to);
        let state = open.as_ref().map(|open| open.state);
        let invitation = plan_invitation(app.now, acting, people, state, app.party, &acts.rules)?;
        if let Some(expired) = open.filter(|_| invitation.closes_expired) {
            let state = TransferState { stage: Stage::Expired, ..expired.state };
            store::update_transfer_in_tx(tx, expired.transfer_id, &state, app.now).await?;
        }
        let transfer = TransferRecord {
            transfer_id: TransferId::generate(),
            app_id: self.app_id,
            from: app.owner,
            invited_at: app.now,
            closed_at: None,
            state: TransferState {
                stage: Stage::Invited,
                to: self.to,
                expires_at: invitation.expires_at,
                team_id: None,
                effective_from: None,
            },
        };
        store::insert_transfer_in_tx(tx, &transfer, self.actor).await?;
        let entry = entry(&app, &transfer, self.actor, None);
        let reply = InviteTransferResponse { transfer: Some(encode::transfer(&transfer, app.now)) };
        Ok(Step::Done { reply, entry: Some(entry) })
    }
}

/// The line for the audit log.
fn entry(app: &AppSide, transfer: &TransferRecord, actor: Actor, before: Option<Stage>) -> AuditEntry {
    let state = &transfer.state;
    AuditEntry {
        at: app.now,
        actor,
        reason: None,
        subject: transfer.transfer_id.to_string(),
        account_id: Some(transfer.from.account_id),
        before: before.map(|stage| json!({ "stage": encode::stage(stage).as_str_name() })),
        after: json!({
            "app_id": transfer.app_id,
            "to_user_id": state.to,
            "stage": encode::stage(state.stage).as_str_name(),
            "team_id": state.team_id,
            "effective_from": state.effective_from,
        }),
    }
}

impl OnTransfer {
    async fn hold(self, tx: &mut Tx, acts: &Acts, team_id: Option<TeamId>) -> Result<Option<Held>, Error> {
        parties::hold_transfer(tx, acts, self.transfer_id, team_id).await
    }

    /// Accepts, withdraws or declines.
    async fn step(
        self,
        tx: &mut Tx,
        acts: &Acts,
        act: TransferAct,
        then: Stage,
    ) -> Result<Option<(Transfer, Option<AuditEntry>)>, Error> {
        let Some(Held { app, mut transfer, .. }) = self.hold(tx, acts, None).await? else { return Ok(None) };
        let acting = app.acting(tx, self.actor).await?;
        let before = transfer.state.stage;
        let plan = plan_transfer_step(app.now, transfer.state, act, acting, app.party)?;
        if plan == TransferPlan::Unchanged {
            return Ok(Some((encode::transfer(&transfer, app.now), None)));
        }
        transfer.state.stage = then;
        transfer.closed_at = (!then.is_open()).then_some(app.now);
        store::update_transfer_in_tx(tx, self.transfer_id, &transfer.state, app.now).await?;
        let entry = entry(&app, &transfer, self.actor, Some(before));
        Ok(Some((encode::transfer(&transfer, app.now), Some(entry))))
    }
}

macro_rules! plain_steps {
    ($($act:ident, $method:literal, $reply:ident, $then:expr, $what:expr;)*) => {$(
        impl Act for $act {
            type Reply = $reply;

            const METHOD: &'static str = $method;

            async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
                let Some((transfer, entry)) = self.0.step(tx, acts, $what, $then).await? else {
                    return Ok(Step::Again);
                };
                Ok(Step::Done { reply: $reply { transfer: Some(transfer) }, entry })
            }
        }
    )*};
}

plain_steps! {
    AcceptTransfer, "AcceptTransfer", AcceptTransferResponse, Stage::Accepted, TransferAct::Accept;
    WithdrawTransfer, "WithdrawTransfer", WithdrawTransferResponse, Stage::Withdrawn, TransferAct::Withdraw;
    DeclineTransfer, "DeclineTransfer", DeclineTransferResponse, Stage::Declined, TransferAct::Decline;
}

/// The other side of a transfer, and what the person invited is to its team.
async fn receiving(tx: &mut Tx, held: &Held) -> Result<Option<(Party, Standing)>, Error> {
    let Some(receiving) = held.receiving else { return Ok(None) };
    let Some(team_id) = receiving.team_id else { return Ok(None) };
    let invited = held.transfer.state.to;
    let standing = store::standing_in_tx(tx, invited, team_id, receiving.account_id).await?;
    Ok(Some((receiving, standing)))
}

impl Act for ChooseTransferTeam {
    type Reply = ChooseTransferTeamResponse;

    const METHOD: &'static str = "ChooseTransferTeam";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        let Some(held) = self.on.hold(tx, acts, Some(self.team_id)).await? else { return Ok(Step::Again) };
        let other = receiving(tx, &held).await?;
        let (receiving, standing) = other.ok_or(Refused::TeamNotFound(self.team_id))?;
        let Held { app, mut transfer, .. } = held;
        let acting = app.acting(tx, self.on.actor).await?;
        let sides = (app.party, receiving);
        let plan = plan_team_choice(app.now, transfer.state, acting, standing, sides)?;
        let done = |transfer: &TransferRecord| ChooseTransferTeamResponse {
            transfer: Some(encode::transfer(transfer, app.now)),
        };
        if plan == TransferPlan::Unchanged {
            return Ok(Step::Done { reply: done(&transfer), entry: None });
        }
        let before = transfer.state.stage;
        transfer.state.stage = Stage::TeamChosen;
        transfer.state.team_id = Some(self.team_id);
        store::update_transfer_in_tx(tx, transfer.transfer_id, &transfer.state, app.now).await?;
        let entry = entry(&app, &transfer, self.on.actor, Some(before));
        Ok(Step::Done { reply: done(&transfer), entry: Some(entry) })
    }
}

impl ConfirmTransfer {
    /// The app changes its team and its owner; the old owner becomes an editor.
    async fn write(
        &self,
        tx: &mut Tx,
        app: &AppSide,
        transfer: &TransferRecord,
        receiving: Party,
    ) -> Result<(), Error> {
        let made = Made { at: app.now, by: self.0.actor, through: Self::METHOD };
        let state = &transfer.state;
        let (Some(from), Some(team_id)) = (state.effective_from, state.team_id) else { return Ok(()) };
        let link = Assignment { app_id: transfer.app_id, team_id, from, set_up: false };
        store::append_assignment_in_tx(tx, &link, made).await?;
        store::append_owner_in_tx(tx, transfer, (receiving.account_id, from), made).await?;
        store::end_editor_in_tx(tx, transfer.app_id, state.to, from).await?;
        if let Some(old) = app.owner.user_id {
            store::begin_editor_in_tx(tx, transfer.app_id, old, from).await?;
        }
        store::update_transfer_in_tx(tx, transfer.transfer_id, state, app.now).await
    }
}

impl Act for ConfirmTransfer {
    type Reply = ConfirmTransferResponse;

    const METHOD: &'static str = "ConfirmTransfer";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, told: &Told) -> Result<Step<Self::Reply>, Error> {
        let Some(held) = self.0.hold(tx, acts, None).await? else { return Ok(Step::Again) };
        let other = receiving(tx, &held).await?;
        let Held { app, mut transfer, .. } = held;
        let acting = app.acting(tx, self.0.actor).await?;
        // without a team it is too early, which the plan of the step says
        let Some((receiving, standing)) = other else {
            plan_transfer_step(app.now, transfer.state, TransferAct::Confirm, acting, app.party)?;
            return Ok(Step::Again);
        };
        let facts = ConfirmFacts {
            now: app.now,
            transfer: transfer.state,
            acting,
            standing,
            giving: app.party,
            receiving,
            teams: &app.teams,
            balances: &told.balances,
        };
        let from = match plan_confirmation(&facts, &acts.rules)? {
            ConfirmPlan::AskBalances(teams) => return Ok(Step::AskBalances(teams)),
            ConfirmPlan::Unchanged { .. } => {
                let reply = ConfirmTransferResponse { transfer: Some(encode::transfer(&transfer, app.now)) };
                return Ok(Step::Done { reply, entry: None });
            }
            ConfirmPlan::Transfer { from } => from,
        };
        let before = transfer.state.stage;
        transfer.state.stage = Stage::Confirmed;
        transfer.state.effective_from = Some(from);
        transfer.closed_at = Some(app.now);
        self.write(tx, &app, &transfer, receiving).await?;
        if acts.came_too_near(from) {
            return Ok(Step::Again);
        }
        let mut entry = entry(&app, &transfer, self.0.actor, Some(before));
        let owner = app.owner;
        entry.before = Some(json!({
            "team_id": app.party.team_id,
            "account_id": owner.account_id,
            "owner_user_id": owner.user_id,
        }));
        if let Value::Object(after) = &mut entry.after {
            after.insert("account_id".to_owned(), json!(receiving.account_id));
        }
        let reply = ConfirmTransferResponse { transfer: Some(encode::transfer(&transfer, app.now)) };
        Ok(Step::Done { reply, entry: Some(entry) })
    }
}

impl Act for RemoveEditor {
    type Reply = RemoveEditorResponse;

    const METHOD: &'static str = "RemoveEditor";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        let Some(app) = parties::hold_app(tx, acts, self.app_id, None).await? else {
            return Ok(Step::Again);
        };
        existing::user(tx, self.user_id).await?;
        app.acting(tx, self.actor).await?.must_be_giving()?;
        let ended: Option<Timestamp> =
            store::end_editor_in_tx(tx, self.app_id, self.user_id, app.now).await?;
        let entry = ended.map(|at| AuditEntry {
            at: app.now,
            actor: self.actor,
            reason: None,
            subject: self.app_id.to_string(),
            account_id: Some(app.owner.account_id),
            before: Some(json!({ "editor_user_id": self.user_id })),
            after: json!({ "editor_user_id": Value::Null, "at": at }),
        });
        Ok(Step::Done { reply: RemoveEditorResponse { at: ended.map(timestamp_to_proto) }, entry })
    }
}
