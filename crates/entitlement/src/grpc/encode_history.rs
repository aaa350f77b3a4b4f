//! The history as messages.

use drawdown_entitlement_core::History;
use drawdown_proto::{entitlement::v1, scalar::timestamp_to_proto};
use drawdown_types::{AccountId, AppId, CredentialId, TeamId};

use crate::{
    explain::{Explained, LinkKind},
    store::{self, AuditRecord, ChangeKind, ScheduledRecord},
};

pub(crate) fn explained(link: Explained) -> v1::ExplainedLink {
    let kind = match link.kind {
        LinkKind::Credential => v1::LinkKind::Credential,
        LinkKind::Owner => v1::LinkKind::Owner,
        LinkKind::Team => v1::LinkKind::Team,
        LinkKind::Account => v1::LinkKind::Account,
        LinkKind::Contract => v1::LinkKind::Contract,
        LinkKind::Trial => v1::LinkKind::Trial,
    };
    let (made_at, made_by, made_through) =
        link.made.map(|made| (Some(made.at), made.by, made.through)).unwrap_or_default();
    let (end_made_at, end_made_by) = link.end.map(|made| (Some(made.at), made.by)).unwrap_or_default();
    v1::ExplainedLink {
        kind: kind.into(),
        subject: link.subject,
        object: link.object,
        from: link.from.map(timestamp_to_proto),
        to: link.to.map(timestamp_to_proto),
        made_at: made_at.map(timestamp_to_proto),
        made_by,
        made_through,
        end_made_at: end_made_at.map(timestamp_to_proto),
        end_made_by,
        voided_at: link.voided_at.map(timestamp_to_proto),
    }
}

pub(crate) fn scheduled(change: &ScheduledRecord) -> v1::ScheduledChange {
    let kind = match change.kind {
        ChangeKind::Assignment => v1::ChangeKind::Assignment,
        ChangeKind::Contract => v1::ChangeKind::Contract,
        ChangeKind::TrialEnd => v1::ChangeKind::TrialEnd,
        ChangeKind::Revocation => v1::ChangeKind::Revocation,
        ChangeKind::Transfer => v1::ChangeKind::Transfer,
    };
    let subject = match change.kind {
        ChangeKind::Assignment | ChangeKind::Transfer => AppId::from_uuid(change.subject).to_string(),
        ChangeKind::Contract | ChangeKind::TrialEnd => AccountId::from_uuid(change.subject).to_string(),
        ChangeKind::Revocation => CredentialId::from_uuid(change.subject).to_string(),
    };
    let change_id = match change.kind {
        ChangeKind::TrialEnd => format!("trial_{subject}"),
        ChangeKind::Assignment | ChangeKind::Contract | ChangeKind::Revocation | ChangeKind::Transfer => {
            format!("{}_{}", change.kind.text(), change.number)
        }
    };
    let team_id = change.team_id.map(|team_id| team_id.to_string());
    let contract = change.contract.map(|kind| store::kind_text(kind).to_owned());
    v1::ScheduledChange {
        change_id,
        kind: kind.into(),
        subject,
        object: team_id.or(contract).unwrap_or_default(),
        from: Some(timestamp_to_proto(change.from)),
        made_at: Some(timestamp_to_proto(change.made_at)),
        made_by: change.made_by.clone(),
    }
}

pub(crate) fn assignments(history: &History<TeamId>) -> Vec<v1::Assignment> {
    let link = |link: drawdown_entitlement_core::Link<'_, TeamId>| v1::Assignment {
        team_id: link.value.to_string(),
        from: Some(timestamp_to_proto(link.from)),
        to: link.to.map(timestamp_to_proto),
    };
    history.links().map(link).collect()
}

pub(crate) fn audit(record: AuditRecord) -> v1::AuditRecord {
    v1::AuditRecord {
        at: Some(timestamp_to_proto(record.at)),
        actor: record.actor,
        method: record.method,
        subject: record.subject,
        account_id: record.account_id.map(|account_id| account_id.to_string()).unwrap_or_default(),
        reason: record.reason.unwrap_or_default(),
        before_json: record.before.unwrap_or_default(),
        after_json: record.after,
        caller: record.caller,
    }
}
