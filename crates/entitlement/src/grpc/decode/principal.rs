//! Principals, keys, and what services ask about them.

use drawdown_proto::entitlement::v1;
use drawdown_service::{
    Refusal, Violations,
    identity::{KeyDigest, Kind, Named, Role, Roles, Scope},
};

use super::{Keyed, account::note, instant, keyed, name};
use crate::{
    acts::{CreateKey, CreatePrincipal, EndPrincipal, RevokeKey, RotateKey},
    reason,
};

/// The most things that owners are asked for at once: what the contract says.
const THINGS_MAX: usize = 10_000;

pub(crate) fn create(request: &v1::CreatePrincipalRequest) -> Result<Keyed<CreatePrincipal>, Refusal> {
    let mut violations = Violations::new();
    let name = name(&mut violations, "name", &request.name);
    let roles = roles(&mut violations, request);
    let scope = scope(&mut violations, request);
    let user_id = match request.user_id.as_str() {
        "" => Some(None),
        text => violations.field("user_id", || text.parse()).map(Some),
    };
    let act = name
        .zip(roles)
        .zip(scope.zip(user_id))
        .map(|((name, roles), (scope, user_id))| CreatePrincipal { name, roles, scope, user_id });
    keyed(violations, act, request, &request.request_id)
}

fn roles(violations: &mut Violations, request: &v1::CreatePrincipalRequest) -> Option<Roles> {
    let role = |role| match role {
        v1::PrincipalRole::Unspecified => None,
        v1::PrincipalRole::Gateway => Some(Role::Gateway),
        v1::PrincipalRole::BillingReader => Some(Role::BillingReader),
        v1::PrincipalRole::TeamAdmin => Some(Role::TeamAdmin),
        v1::PrincipalRole::ContractManager => Some(Role::ContractManager),
        v1::PrincipalRole::Operator => Some(Role::Operator),
    };
    let read = request.roles.iter().map(|number| v1::PrincipalRole::try_from(*number).ok().and_then(role));
    let roles: Option<Roles> = read.collect();
    let roles = roles.filter(|roles| !roles.is_empty());
    if roles.is_none() {
        violations.push("roles", "must be one or more of the roles");
    }
    roles
}

fn scope(violations: &mut Violations, request: &v1::CreatePrincipalRequest) -> Option<Scope> {
    match (request.account_id.as_str(), request.team_id.as_str()) {
        ("", "") => Some(Scope::Platform),
        ("", _) => {
            violations.push("account_id", "must be given with a team");
            None
        }
        (account_id, "") => violations.field("account_id", || account_id.parse()).map(Scope::Account),
        (account_id, team_id) => {
            let account_id = violations.field("account_id", || account_id.parse());
            let team_id = violations.field("team_id", || team_id.parse());
            account_id.zip(team_id).map(|(account_id, team_id)| Scope::Team { account_id, team_id })
        }
    }
}

pub(crate) fn end(request: &v1::EndPrincipalRequest) -> Result<Keyed<EndPrincipal>, Refusal> {
    let mut violations = Violations::new();
    let principal_id = violations.field("principal_id", || request.principal_id.parse());
    let note = note(&mut violations, "note", &request.note);
    let act = principal_id.zip(note).map(|(principal_id, note)| EndPrincipal { principal_id, note });
    keyed(violations, act, request, &request.request_id)
}

pub(crate) fn create_key(request: &v1::CreateKeyRequest) -> Result<Keyed<CreateKey>, Refusal> {
    let mut violations = Violations::new();
    let principal_id = violations.field("principal_id", || request.principal_id.parse());
    let expires_at = instant(&mut violations, "expires_at", request.expires_at.as_ref());
    let act =
        principal_id.zip(expires_at).map(|(principal_id, expires_at)| CreateKey { principal_id, expires_at });
    keyed(violations, act, request, &request.request_id)
}

pub(crate) fn rotate_key(request: &v1::RotateKeyRequest) -> Result<Keyed<RotateKey>, Refusal> {
    let mut violations = Violations::new();
    let key_id = violations.field("key_id", || request.key_id.parse());
    let old_until = instant(&mut violations, "old_until", request.old_until.as_ref());
    let expires_at = instant(&mut violations, "expires_at", request.expires_at.as_ref());
    let act = key_id.zip(old_until).zip(expires_at).map(|((key_id, old_until), expires_at)| RotateKey {
        key_id,
        old_until,
        expires_at,
    });
    keyed(violations, act, request, &request.request_id)
}

pub(crate) fn revoke_key(request: &v1::RevokeKeyRequest) -> Result<Keyed<RevokeKey>, Refusal> {
    let mut violations = Violations::new();
    let key_id = violations.field("key_id", || request.key_id.parse());
    let at = instant(&mut violations, "at", request.at.as_ref());
    let act = key_id.zip(at).map(|(key_id, at)| RevokeKey { key_id, at });
    keyed(violations, act, request, &request.request_id)
}

pub(crate) fn digest(request: &v1::AuthenticateKeyRequest) -> Result<KeyDigest, Refusal> {
    let mut violations = Violations::new();
    let key_id = violations.field("key_id", || request.key_id.parse());
    let digest = violations.field("secret_digest", || {
        <[u8; 32]>::try_from(request.secret_digest.as_slice()).map_err(|_| "has not 32 bytes")
    });
    let asked = key_id.zip(digest).map(|(key_id, digest)| KeyDigest { key_id, digest });
    violations.finish(reason::REQUEST_INVALID, asked)
}

pub(crate) fn things(request: &v1::ResolveOwnersRequest) -> Result<Vec<Named>, Refusal> {
    let mut violations = Violations::new();
    if request.things.len() > THINGS_MAX {
        violations.push("things", format!("are more than {THINGS_MAX}"));
        return violations.finish(reason::REQUEST_INVALID, None);
    }
    let mut named = Vec::with_capacity(request.things.len());
    for (index, thing) in request.things.iter().enumerate() {
        let kind = match thing.kind() {
            v1::ThingKind::Unspecified => {
                violations.push(&format!("things[{index}].kind"), "must be one of the kinds");
                continue;
            }
            v1::ThingKind::Team => Kind::Team,
            v1::ThingKind::App => Kind::App,
            v1::ThingKind::Credential => Kind::Credential,
            v1::ThingKind::Client => Kind::Client,
            v1::ThingKind::Transfer => Kind::Transfer,
            v1::ThingKind::Hub => Kind::Hub,
            v1::ThingKind::Change => Kind::Change,
        };
        named.push((kind, thing.id.clone()));
    }
    violations.finish(reason::REQUEST_INVALID, Some(named))
}
