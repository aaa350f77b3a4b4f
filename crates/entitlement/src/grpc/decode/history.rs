//! Corrections, changes that are taken back, and what is listed of the history.

use drawdown_proto::{entitlement::v1, scalar::timestamp_from_proto};
use drawdown_service::{Refusal, Violations};
use drawdown_types::{AccountId, ClientId, Timestamp};

use super::{Keyed, account::note, instant, keyed};
use crate::{
    acts::{CancelScheduledChange, CorrectAssignment},
    reason,
    store::ChangeRef,
};

/// The longest id.
const SUBJECT_BYTES_MAX: usize = 64;

pub(crate) fn cancel(
    request: &v1::CancelScheduledChangeRequest,
) -> Result<Keyed<CancelScheduledChange>, Refusal> {
    let mut violations = Violations::new();
    let change = violations.field("change_id", || {
        change_of(&request.change_id).ok_or("is not an id that ListScheduledChanges gives out")
    });
    let note = note(&mut violations, "note", &request.note);
    let act = change.zip(note).map(|(change, note)| CancelScheduledChange { change, note });
    keyed(violations, act, request, &request.request_id)
}

/// Which change an id of `ListScheduledChanges` means.
pub(crate) fn change_of(text: &str) -> Option<ChangeRef> {
    let (kind, id) = text.split_once('_')?;
    let number = || id.bytes().all(|digit| digit.is_ascii_digit()).then(|| id.parse::<i64>().ok()).flatten();
    match kind {
        "assignment" | "transfer" => number().map(ChangeRef::Assignment),
        "contract" => number().map(ChangeRef::Contract),
        "revocation" => number().map(ChangeRef::Revocation),
        "trial" => id.parse::<AccountId>().ok().map(ChangeRef::TrialEnd),
        _ => None,
    }
}

pub(crate) fn correct(request: &v1::CorrectAssignmentRequest) -> Result<Keyed<CorrectAssignment>, Refusal> {
    let mut violations = Violations::new();
    let app_id = violations.field("app_id", || request.app_id.parse());
    let team_id = violations.field("team_id", || request.team_id.parse());
    let from = violations.require("from", request.from.as_ref());
    let from = from.and_then(|from| violations.field("from", || timestamp_from_proto(from)));
    let to = instant(&mut violations, "to", request.to.as_ref());
    let note = note(&mut violations, "note", &request.note);
    let act =
        app_id.zip(team_id).zip(from.zip(to)).zip(note).map(|(((app_id, team_id), (from, to)), note)| {
            CorrectAssignment { app_id, team_id, from, to, note }
        });
    keyed(violations, act, request, &request.request_id)
}

/// A client id, and the instant asked about: where there is none, the present one.
pub(crate) fn question(
    request: &v1::ExplainResolutionRequest,
) -> Result<(ClientId, Option<Timestamp>), Refusal> {
    let mut violations = Violations::new();
    let client_id = violations.field("client_id", || ClientId::new(&request.client_id));
    let at = instant(&mut violations, "at", request.at.as_ref());
    violations.finish(reason::REQUEST_INVALID, client_id.zip(at))
}

/// An account, or anything by its id.
pub(crate) fn audit_of(request: &v1::ListAuditRequest) -> Result<(Option<AccountId>, String), Refusal> {
    let mut violations = Violations::new();
    let of = match (request.account_id.as_str(), request.subject.as_str()) {
        ("", "") => {
            violations.push("account_id", "must be given, or subject");
            None
        }
        (account_id, "") => {
            violations.field("account_id", || account_id.parse()).map(|id| (Some(id), String::new()))
        }
        ("", subject) => violations.field("subject", || {
            let plain =
                subject.len() <= SUBJECT_BYTES_MAX && subject.bytes().all(|byte| byte.is_ascii_graphic());
            if plain { Ok((None, subject.to_owned())) } else { Err("is not an id") }
        }),
        _ => {
            violations.push("subject", "must be empty where account_id is given");
            None
        }
    };
    violations.finish(reason::REQUEST_INVALID, of)
}
