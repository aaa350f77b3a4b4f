//! Records as messages.

use drawdown_entitlement_core::{ContractKind, Resolution};
use drawdown_proto::{entitlement::v1, scalar::timestamp_to_proto};
use drawdown_types::Timestamp;

use crate::store::{AccountRecord, AppListing, TeamRecord};

const fn kind(kind: ContractKind) -> v1::ContractKind {
    match kind {
        ContractKind::Flex => v1::ContractKind::Flex,
        ContractKind::Enterprise => v1::ContractKind::Enterprise,
    }
}

/// An account, with the contract of the instant `now`.
pub(crate) fn account(account: &AccountRecord, now: Timestamp) -> v1::Account {
    let at_present = account.contract.at(now).copied().unwrap_or(account.opened_as);
    v1::Account {
        account_id: account.account_id.to_string(),
        name: account.name.clone(),
        contract_kind: kind(at_present).into(),
        created_at: Some(timestamp_to_proto(account.created_at)),
        trial_started_at: account.trial.trial.map(|trial| timestamp_to_proto(trial.started_at)),
        trial_ends_at: account.trial.ends_at().map(timestamp_to_proto),
        cell: account.cell.into(),
    }
}

pub(crate) fn team(team: TeamRecord) -> v1::Team {
    v1::Team {
        team_id: team.team_id.to_string(),
        account_id: team.account_id.to_string(),
        name: team.name,
        created_at: Some(timestamp_to_proto(team.created_at)),
    }
}

pub(crate) fn app(app: AppListing) -> v1::App {
    v1::App {
        app_id: app.app_id.to_string(),
        account_id: app.account_id.to_string(),
        owner_user_id: app.owner.map(|owner| owner.to_string()).unwrap_or_default(),
        name: app.name,
        team_id: app.team_id.map(|team_id| team_id.to_string()).unwrap_or_default(),
        client_ids: app.client_ids,
    }
}

pub(crate) fn resolution(client_id: String, resolution: &Resolution) -> v1::Resolution {
    use v1::resolution::Answer;
    let unresolved = |reason: v1::UnresolvedReason| Answer::Unresolved(reason.into());
    let answer = match resolution {
        Resolution::BilledTo(billed) => Answer::BilledTo(v1::BilledTo {
            app_id: billed.app_id.to_string(),
            team_id: billed.team_id.to_string(),
            account_id: billed.account_id.to_string(),
            contract_kind: kind(billed.contract_kind).into(),
            in_trial: billed.in_trial,
            cell: billed.cell.into(),
        }),
        Resolution::UnknownClient => unresolved(v1::UnresolvedReason::UnknownClient),
        Resolution::NoTeam => unresolved(v1::UnresolvedReason::NoTeam),
    };
    v1::Resolution { client_id, answer: Some(answer) }
}
