//! Suspension, trial, contract.

use drawdown_proto::entitlement::v1;
use drawdown_service::{Refusal, Violations};

use super::{Keyed, contract_kind, instant, keyed, name, optional_id};
use crate::{
    acts::{ChangeContract, EndTrial, LiftSuspension, PreparePurchase, Suspend},
    store::Scope,
};

/// The most bytes of a note.
const NOTE_BYTES_MAX: usize = 500;

pub(crate) fn suspend(request: &v1::SuspendRequest) -> Result<Keyed<Suspend>, Refusal> {
    let mut violations = Violations::new();
    let scope = scope(&mut violations, &request.account_id, &request.team_id);
    let note = note(&mut violations, "note", &request.note);
    let act = scope.zip(note).map(|(scope, note)| Suspend { scope, note });
    keyed(violations, act, request, &request.request_id)
}

pub(crate) fn lift_suspension(request: &v1::LiftSuspensionRequest) -> Result<Keyed<LiftSuspension>, Refusal> {
    let mut violations = Violations::new();
    let scope = scope(&mut violations, &request.account_id, &request.team_id);
    let note = note(&mut violations, "note", &request.note);
    let act = scope.zip(note).map(|(scope, note)| LiftSuspension { scope, note });
    keyed(violations, act, request, &request.request_id)
}

pub(crate) fn end_trial(request: &v1::EndTrialRequest) -> Result<Keyed<EndTrial>, Refusal> {
    let mut violations = Violations::new();
    let account_id = violations.field("account_id", || request.account_id.parse());
    let from = instant(&mut violations, "from", request.from.as_ref());
    let act = account_id.zip(from).map(|(account_id, from)| EndTrial { account_id, from });
    keyed(violations, act, request, &request.request_id)
}

pub(crate) fn change_contract(request: &v1::ChangeContractRequest) -> Result<Keyed<ChangeContract>, Refusal> {
    let mut violations = Violations::new();
    let account_id = violations.field("account_id", || request.account_id.parse());
    let kind = contract_kind(&mut violations, request.contract_kind());
    let from = instant(&mut violations, "from", request.from.as_ref());
    let act = account_id.zip(kind).zip(from).map(|((account_id, kind), from)| ChangeContract {
        account_id,
        kind,
        from,
    });
    keyed(violations, act, request, &request.request_id)
}

pub(crate) fn prepare_purchase(
    request: &v1::PreparePurchaseRequest,
) -> Result<Keyed<PreparePurchase>, Refusal> {
    let mut violations = Violations::new();
    let account_id = violations.field("account_id", || request.account_id.parse());
    let team_id = optional_id(&mut violations, "team_id", &request.team_id);
    let by = optional_id(&mut violations, "by_user_id", &request.by_user_id);
    let team_name = match request.team_name.as_str() {
        "" => Some(None),
        text => name(&mut violations, "team_name", text).map(Some),
    };
    let act =
        account_id.zip(team_id).zip(by.zip(team_name)).map(|((account_id, team_id), (by, team_name))| {
            PreparePurchase { account_id, team_id, team_name, by }
        });
    keyed(violations, act, request, &request.request_id)
}

/// An account or a team, and not both.
pub(super) fn scope(violations: &mut Violations, account_id: &str, team_id: &str) -> Option<Scope> {
    match (account_id, team_id) {
        ("", "") => {
            violations.push("account_id", "must be given, or team_id");
            None
        }
        (account_id, "") => violations.field("account_id", || account_id.parse()).map(Scope::Account),
        ("", team_id) => violations.field("team_id", || team_id.parse()).map(Scope::Team),
        _ => {
            violations.push("team_id", "must be empty where account_id is given");
            None
        }
    }
}

/// Why somebody does what he does.
pub(super) fn note(violations: &mut Violations, field: &str, text: &str) -> Option<String> {
    violations.field(field, || {
        if text.trim().is_empty() {
            Err("is empty".to_owned())
        } else if text.len() > NOTE_BYTES_MAX {
            Err(format!("has {} bytes, at most {NOTE_BYTES_MAX} are allowed", text.len()))
        } else if text.contains('\0') {
            Err("has a zero byte".to_owned())
        } else {
            Ok(text.to_owned())
        }
    })
}
