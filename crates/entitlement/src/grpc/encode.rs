//! Records as messages.

use drawdown_entitlement_core::{
    BilledTo, ContractKind, Resolution, is_archived,
    plan::{Actor, Role, Stage},
};
use drawdown_proto::{entitlement::v1, scalar::timestamp_to_proto};
use drawdown_types::Timestamp;

use crate::store::{
    AccountRecord, AppListing, CredentialRecord, HubRecord, ProductRecord, RoleRecord, Scope,
    SuspensionRecord, TeamRecord, TransferRecord, UserRecord,
};

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
        suspended_since: account.suspended_since.map(timestamp_to_proto),
        contracts: contracts(account),
    }
}

fn contracts(account: &AccountRecord) -> Vec<v1::ContractTerm> {
    let opened = v1::ContractTerm { from: None, contract_kind: kind(account.opened_as).into() };
    let changed = account.contract.links().map(|link| v1::ContractTerm {
        from: Some(timestamp_to_proto(link.from)),
        contract_kind: kind(*link.value).into(),
    });
    std::iter::once(opened).chain(changed).collect()
}

pub(crate) fn team(team: TeamRecord) -> v1::Team {
    v1::Team {
        team_id: team.team_id.to_string(),
        account_id: team.account_id.to_string(),
        name: team.name,
        created_at: Some(timestamp_to_proto(team.created_at)),
        suspended_since: team.suspended_since.map(timestamp_to_proto),
    }
}

pub(crate) fn suspension(suspension: SuspensionRecord) -> v1::Suspension {
    v1::Suspension {
        account_id: suspension.account_id.to_string(),
        team_id: suspension.team_id.map(|team_id| team_id.to_string()).unwrap_or_default(),
        from: Some(timestamp_to_proto(suspension.from)),
        note: suspension.note,
        to: suspension.to.map(timestamp_to_proto),
        end_note: suspension.end_note.unwrap_or_default(),
    }
}

pub(crate) fn user(user: UserRecord) -> v1::User {
    v1::User { user_id: user.user_id.to_string(), email: user.email, name: user.name }
}

const fn role(role: Role) -> v1::Role {
    match role {
        Role::PrimaryAdmin => v1::Role::PrimaryAdmin,
        Role::SecondaryAdmin => v1::Role::SecondaryAdmin,
        Role::Member => v1::Role::Member,
        Role::ContractManager => v1::Role::ContractManager,
    }
}

pub(crate) fn role_held(held: &RoleRecord) -> v1::RoleHeld {
    let (team_id, account_id) = match held.scope {
        Scope::Team(team_id) => (team_id.to_string(), String::new()),
        Scope::Account(account_id) => (String::new(), account_id.to_string()),
    };
    v1::RoleHeld {
        user_id: held.user_id.to_string(),
        role: role(held.role).into(),
        team_id,
        account_id,
        from: Some(timestamp_to_proto(held.from)),
        to: held.to.map(timestamp_to_proto),
    }
}

/// Empty for the platform's operator.
fn actor(actor: Actor) -> String {
    match actor {
        Actor::Operator => String::new(),
        Actor::User(user_id) => user_id.to_string(),
    }
}

pub(crate) fn product(product: &ProductRecord) -> v1::ProductAssignment {
    v1::ProductAssignment {
        team_id: product.team_id.to_string(),
        user_id: product.user_id.to_string(),
        from: Some(timestamp_to_proto(product.from)),
        made_by_user_id: actor(product.made_by),
        to: product.to.map(timestamp_to_proto),
    }
}

pub(crate) const fn stage(stage: Stage) -> v1::TransferStage {
    match stage {
        Stage::Invited => v1::TransferStage::Invited,
        Stage::Accepted => v1::TransferStage::Accepted,
        Stage::TeamChosen => v1::TransferStage::TeamChosen,
        Stage::Confirmed => v1::TransferStage::Confirmed,
        Stage::Withdrawn => v1::TransferStage::Withdrawn,
        Stage::Declined => v1::TransferStage::Declined,
        Stage::Expired => v1::TransferStage::Expired,
    }
}

/// A transfer, as far as it came at `now`.
pub(crate) fn transfer(transfer: &TransferRecord, now: Timestamp) -> v1::Transfer {
    let state = &transfer.state;
    v1::Transfer {
        transfer_id: transfer.transfer_id.to_string(),
        app_id: transfer.app_id.to_string(),
        from_account_id: transfer.from.account_id.to_string(),
        from_user_id: transfer.from.user_id.map(|user_id| user_id.to_string()).unwrap_or_default(),
        to_user_id: state.to.to_string(),
        to_team_id: state.team_id.map(|team_id| team_id.to_string()).unwrap_or_default(),
        stage: stage(state.stage_at(now)).into(),
        invited_at: Some(timestamp_to_proto(transfer.invited_at)),
        expires_at: Some(timestamp_to_proto(state.expires_at)),
        closed_at: transfer.closed_at.map(timestamp_to_proto),
        effective_from: state.effective_from.map(timestamp_to_proto),
    }
}

pub(crate) fn hub(hub: HubRecord) -> v1::Hub {
    v1::Hub {
        hub_id: hub.hub_id.to_string(),
        account_id: hub.account_id.to_string(),
        name: hub.name,
        created_at: Some(timestamp_to_proto(hub.created_at)),
    }
}

pub(crate) fn credential(credential: CredentialRecord) -> v1::Credential {
    let end = credential.revocation;
    v1::Credential {
        credential_id: credential.credential_id.to_string(),
        app_id: credential.app_id.to_string(),
        client_id: credential.client_id,
        created_at: Some(timestamp_to_proto(credential.created_at)),
        known_from: Some(timestamp_to_proto(credential.known_from)),
        revoked_at: end.map(|end| timestamp_to_proto(end.revoked_at)),
        unknown_from: end.map(|end| timestamp_to_proto(end.unknown_from)),
    }
}

/// An app, as it stands with hub mode on or off.
pub(crate) fn app(app: AppListing, hub_mode: bool) -> v1::App {
    let own_hub = app.hub.filter(|(_, account_id)| *account_id == app.account_id);
    v1::App {
        app_id: app.app_id.to_string(),
        account_id: app.account_id.to_string(),
        owner_user_id: app.owner.map(|owner| owner.to_string()).unwrap_or_default(),
        name: app.name,
        team_id: app.team_id.map(|team_id| team_id.to_string()).unwrap_or_default(),
        client_ids: app.client_ids,
        hub_id: own_hub.map(|(hub_id, _)| hub_id.to_string()).unwrap_or_default(),
        archived: is_archived(hub_mode, app.hub.map(|(_, account_id)| account_id), app.account_id),
        editor_user_ids: app.editors.iter().map(ToString::to_string).collect(),
    }
}

pub(crate) fn resolution(client_id: String, resolution: &Resolution) -> v1::Resolution {
    use v1::resolution::Answer;
    let unresolved = |reason: v1::UnresolvedReason| Answer::Unresolved(reason.into());
    let answer = match resolution {
        Resolution::BilledTo(billed) => Answer::BilledTo(billed_to(billed)),
        Resolution::UnknownClient => unresolved(v1::UnresolvedReason::UnknownClient),
        Resolution::NoTeam => unresolved(v1::UnresolvedReason::NoTeam),
    };
    v1::Resolution { client_id, answer: Some(answer) }
}

/// The chain at a window.
pub(crate) fn billed_to(billed: &BilledTo) -> v1::BilledTo {
    v1::BilledTo {
        app_id: billed.app_id.to_string(),
        team_id: billed.team_id.to_string(),
        account_id: billed.account_id.to_string(),
        contract_kind: kind(billed.contract_kind).into(),
        in_trial: billed.in_trial,
        cell: billed.cell.into(),
    }
}
