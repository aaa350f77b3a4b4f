//! Transfers of apps.

use drawdown_proto::entitlement::v1;
use drawdown_service::{Refusal, Violations};
use prost::Message;

use super::{Keyed, keyed, member::actor};
use crate::{
    acts::{
        AcceptTransfer, Act, ChooseTransferTeam, ConfirmTransfer, DeclineTransfer, InviteTransfer,
        OnTransfer, RemoveEditor, WithdrawTransfer,
    },
    reason,
    store::TransfersOf,
};

pub(crate) fn invite(request: &v1::InviteTransferRequest) -> Result<Keyed<InviteTransfer>, Refusal> {
    let mut violations = Violations::new();
    let app_id = violations.field("app_id", || request.app_id.parse());
    let to = violations.field("to_user_id", || request.to_user_id.parse());
    let actor = actor(&mut violations, &request.by_user_id);
    let act = app_id.zip(to).zip(actor).map(|((app_id, to), actor)| InviteTransfer { app_id, to, actor });
    keyed(violations, act, request, &request.request_id)
}

fn on(violations: &mut Violations, transfer_id: &str, by_user_id: &str) -> Option<OnTransfer> {
    let transfer_id = violations.field("transfer_id", || transfer_id.parse());
    let actor = actor(violations, by_user_id);
    transfer_id.zip(actor).map(|(transfer_id, actor)| OnTransfer { transfer_id, actor })
}

fn plain<A: Act>(
    request: &impl Message,
    (transfer_id, by_user_id, request_id): (&str, &str, &str),
    act: fn(OnTransfer) -> A,
) -> Result<Keyed<A>, Refusal> {
    let mut violations = Violations::new();
    let on = on(&mut violations, transfer_id, by_user_id);
    keyed(violations, on.map(act), request, request_id)
}

pub(crate) fn accept(request: &v1::AcceptTransferRequest) -> Result<Keyed<AcceptTransfer>, Refusal> {
    plain(request, (&request.transfer_id, &request.by_user_id, &request.request_id), AcceptTransfer)
}

pub(crate) fn confirm(request: &v1::ConfirmTransferRequest) -> Result<Keyed<ConfirmTransfer>, Refusal> {
    plain(request, (&request.transfer_id, &request.by_user_id, &request.request_id), ConfirmTransfer)
}

pub(crate) fn withdraw(request: &v1::WithdrawTransferRequest) -> Result<Keyed<WithdrawTransfer>, Refusal> {
    plain(request, (&request.transfer_id, &request.by_user_id, &request.request_id), WithdrawTransfer)
}

pub(crate) fn decline(request: &v1::DeclineTransferRequest) -> Result<Keyed<DeclineTransfer>, Refusal> {
    plain(request, (&request.transfer_id, &request.by_user_id, &request.request_id), DeclineTransfer)
}

pub(crate) fn choose_team(
    request: &v1::ChooseTransferTeamRequest,
) -> Result<Keyed<ChooseTransferTeam>, Refusal> {
    let mut violations = Violations::new();
    let on = on(&mut violations, &request.transfer_id, &request.by_user_id);
    let team_id = violations.field("team_id", || request.team_id.parse());
    let act = on.zip(team_id).map(|(on, team_id)| ChooseTransferTeam { on, team_id });
    keyed(violations, act, request, &request.request_id)
}

pub(crate) fn remove_editor(request: &v1::RemoveEditorRequest) -> Result<Keyed<RemoveEditor>, Refusal> {
    let mut violations = Violations::new();
    let app_id = violations.field("app_id", || request.app_id.parse());
    let user_id = violations.field("user_id", || request.user_id.parse());
    let actor = actor(&mut violations, &request.by_user_id);
    let act = app_id.zip(user_id).zip(actor).map(|((app_id, user_id), actor)| RemoveEditor {
        app_id,
        user_id,
        actor,
    });
    keyed(violations, act, request, &request.request_id)
}

/// An app, an account or a person: exactly one of them.
pub(crate) fn transfers_of(request: &v1::ListTransfersRequest) -> Result<TransfersOf, Refusal> {
    let mut violations = Violations::new();
    let of = match (request.app_id.as_str(), request.account_id.as_str(), request.user_id.as_str()) {
        ("", "", "") => {
            violations.push("app_id", "must be given, or another one of the ids");
            None
        }
        (app_id, "", "") => violations.field("app_id", || app_id.parse()).map(TransfersOf::App),
        ("", account_id, "") => {
            violations.field("account_id", || account_id.parse()).map(TransfersOf::Account)
        }
        ("", "", user_id) => violations.field("user_id", || user_id.parse()).map(TransfersOf::Invited),
        _ => {
            violations.push("app_id", "only one of the ids can be given");
            None
        }
    };
    violations.finish(reason::REQUEST_INVALID, of)
}
