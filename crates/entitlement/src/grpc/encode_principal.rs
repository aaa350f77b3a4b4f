//! Principals and keys as messages.

use drawdown_proto::{entitlement::v1, scalar::timestamp_to_proto};
use drawdown_service::identity::{Owner, Role, Scope};
use drawdown_types::UserId;

use crate::store::{KeyRecord, PrincipalRecord};

const fn role(role: Role) -> v1::PrincipalRole {
    match role {
        Role::Gateway => v1::PrincipalRole::Gateway,
        Role::BillingReader => v1::PrincipalRole::BillingReader,
        Role::TeamAdmin => v1::PrincipalRole::TeamAdmin,
        Role::ContractManager => v1::PrincipalRole::ContractManager,
        Role::Operator => v1::PrincipalRole::Operator,
    }
}

pub(crate) fn principal(principal: &PrincipalRecord) -> v1::Principal {
    let team_id = match principal.scope {
        Scope::Team { team_id, .. } => team_id.to_string(),
        Scope::Platform | Scope::Account(_) => String::new(),
    };
    v1::Principal {
        principal_id: principal.principal_id.to_string(),
        name: principal.name.clone(),
        roles: principal.roles.iter().map(|held| role(held).into()).collect(),
        account_id: principal.scope.account().map(|id| id.to_string()).unwrap_or_default(),
        team_id,
        user_id: principal.user_id.as_ref().map(UserId::to_string).unwrap_or_default(),
        created_at: Some(timestamp_to_proto(principal.created_at)),
        ended_at: principal.ended_at.map(timestamp_to_proto),
    }
}

pub(crate) fn key(key: &KeyRecord) -> v1::Key {
    v1::Key {
        key_id: key.key_id.to_string(),
        principal_id: key.principal_id.to_string(),
        created_at: Some(timestamp_to_proto(key.created_at)),
        ends_at: key.ends_at.map(timestamp_to_proto),
    }
}

pub(crate) fn owners(owners: Vec<Owner>) -> v1::Owners {
    let owner = |owner| match owner {
        Owner::Account(account_id) => {
            v1::Owner { account_id: account_id.to_string(), ..v1::Owner::default() }
        }
        Owner::Team { account_id, team_id } => v1::Owner {
            account_id: account_id.to_string(),
            team_id: team_id.to_string(),
            ..v1::Owner::default()
        },
        Owner::User(user_id) => v1::Owner { user_id: user_id.to_string(), ..v1::Owner::default() },
    };
    v1::Owners { owners: owners.into_iter().map(owner).collect() }
}
