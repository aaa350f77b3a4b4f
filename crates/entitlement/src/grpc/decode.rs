//! Messages as checked values. What is wrong with a message is told all at once, field by field.

pub(crate) mod account;
pub(crate) mod credential;
pub(crate) mod history;
pub(crate) mod hub;
pub(crate) mod import;
pub(crate) mod member;
pub(crate) mod principal;
pub(crate) mod transfer;

use drawdown_entitlement_core::{ContractKind, plan::Role};
use drawdown_proto::{entitlement::v1, scalar::timestamp_from_proto};
use drawdown_service::{Refusal, Violations};
use drawdown_types::{ClientId, Timestamp};
use prost::Message;
use sha2::{Digest as _, Sha256};

use crate::{
    acts::{Act, AssignApp, CreateAccount, CreateApp, CreateCredential, CreateTeam, CreateUser, SetRole},
    reason,
    store::{RequestKey, Scope},
};

/// The most bytes of a name.
const NAME_BYTES_MAX: usize = 200;
/// The most bytes of a mail address (RFC 5321).
const EMAIL_BYTES_MAX: usize = 254;
/// The most bytes of a request id.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// An act and the key under which a retry of it is known.
pub(crate) type Keyed<A> = (A, RequestKey);

pub(crate) fn create_account(request: &v1::CreateAccountRequest) -> Result<Keyed<CreateAccount>, Refusal> {
    let mut violations = Violations::new();
    let name = name(&mut violations, "name", &request.name);
    let kind = contract_kind(&mut violations, request.contract_kind());
    let created_at = instant(&mut violations, "created_at", request.created_at.as_ref());
    let cell = violations.field("cell", || {
        u8::try_from(request.cell).map_err(|_| format!("{} is above {}", request.cell, u8::MAX))
    });
    let act = name.zip(kind).zip(created_at.zip(cell)).map(|((name, kind), (created_at, cell))| {
        CreateAccount { name, kind, created_at, commercial: request.commercial, cell }
    });
    keyed(violations, act, request, &request.request_id)
}

pub(crate) fn create_team(request: &v1::CreateTeamRequest) -> Result<Keyed<CreateTeam>, Refusal> {
    let mut violations = Violations::new();
    let account_id = violations.field("account_id", || request.account_id.parse());
    let name = name(&mut violations, "name", &request.name);
    let created_at = instant(&mut violations, "created_at", request.created_at.as_ref());
    let act = account_id.zip(name).zip(created_at).map(|((account_id, name), created_at)| CreateTeam {
        account_id,
        name,
        created_at,
    });
    keyed(violations, act, request, &request.request_id)
}

pub(crate) fn create_user(request: &v1::CreateUserRequest) -> Result<Keyed<CreateUser>, Refusal> {
    let mut violations = Violations::new();
    let email = violations.field("email", || email(&request.email));
    let name = name(&mut violations, "name", &request.name);
    let act = email.zip(name).map(|(email, name)| CreateUser { email, name });
    keyed(violations, act, request, &request.request_id)
}

pub(crate) fn set_role(request: &v1::SetRoleRequest) -> Result<Keyed<SetRole>, Refusal> {
    let mut violations = Violations::new();
    let user_id = violations.field("user_id", || request.user_id.parse());
    let role = role(&mut violations, request.role());
    let scope = role.and_then(|role| scope(&mut violations, role, request));
    let act = user_id.zip(role).zip(scope).map(|((user_id, role), scope)| SetRole { user_id, role, scope });
    keyed(violations, act, request, &request.request_id)
}

fn role(violations: &mut Violations, role: v1::Role) -> Option<Role> {
    match role {
        v1::Role::Unspecified => {
            violations.push("role", "must be one of the roles");
            None
        }
        v1::Role::PrimaryAdmin => Some(Role::PrimaryAdmin),
        v1::Role::SecondaryAdmin => Some(Role::SecondaryAdmin),
        v1::Role::Member => Some(Role::Member),
        v1::Role::ContractManager => Some(Role::ContractManager),
    }
}

fn scope(violations: &mut Violations, role: Role, request: &v1::SetRoleRequest) -> Option<Scope> {
    if role == Role::ContractManager {
        if !request.team_id.is_empty() {
            violations.push("team_id", "must be empty for a contract manager");
        }
        return violations.field("account_id", || request.account_id.parse()).map(Scope::Account);
    }
    if !request.account_id.is_empty() {
        violations.push("account_id", "must be empty for a role in a team");
    }
    violations.field("team_id", || request.team_id.parse()).map(Scope::Team)
}

pub(crate) fn create_app(request: &v1::CreateAppRequest) -> Result<Keyed<CreateApp>, Refusal> {
    let mut violations = Violations::new();
    let account_id = violations.field("account_id", || request.account_id.parse());
    let owner = optional_id(&mut violations, "owner_user_id", &request.owner_user_id);
    let name = name(&mut violations, "name", &request.name);
    let act = account_id.zip(owner).zip(name).map(|((account_id, owner), name)| CreateApp {
        account_id,
        owner,
        name,
    });
    keyed(violations, act, request, &request.request_id)
}

pub(crate) fn assign_app(request: &v1::AssignAppRequest) -> Result<Keyed<AssignApp>, Refusal> {
    let mut violations = Violations::new();
    let app_id = violations.field("app_id", || request.app_id.parse());
    let team_id = violations.field("team_id", || request.team_id.parse());
    let from = instant(&mut violations, "from", request.from.as_ref());
    let act =
        app_id.zip(team_id).zip(from).map(|((app_id, team_id), from)| AssignApp { app_id, team_id, from });
    keyed(violations, act, request, &request.request_id)
}

pub(crate) fn create_credential(
    request: &v1::CreateCredentialRequest,
) -> Result<Keyed<CreateCredential>, Refusal> {
    let mut violations = Violations::new();
    let app_id = violations.field("app_id", || request.app_id.parse());
    let created_at = instant(&mut violations, "created_at", request.created_at.as_ref());
    let act = app_id.zip(created_at).map(|(app_id, created_at)| CreateCredential { app_id, created_at });
    keyed(violations, act, request, &request.request_id)
}

/// The id of one thing asked for.
pub(crate) fn id<T: std::str::FromStr<Err = drawdown_types::IdError>>(
    field: &str,
    text: &str,
) -> Result<T, Refusal> {
    let mut violations = Violations::new();
    let id = violations.field(field, || text.parse());
    violations.finish(reason::REQUEST_INVALID, id)
}

/// An id that may be empty.
fn optional_id<T: std::str::FromStr<Err = drawdown_types::IdError>>(
    violations: &mut Violations,
    field: &str,
    text: &str,
) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { violations.field(field, || text.parse()).map(Some) }
}

/// The account a list is about; all where empty.
pub(crate) fn account_filter(text: &str) -> Result<Option<drawdown_types::AccountId>, Refusal> {
    if text.is_empty() { Ok(None) } else { id("account_id", text).map(Some) }
}

/// One question of a batch.
pub(crate) fn query(violations: &mut Violations, query: &v1::ClientInstant) -> Option<(ClientId, Timestamp)> {
    let client_id = violations.field("client_id", || ClientId::new(&query.client_id));
    let at = violations.require("at", query.at.as_ref());
    let at = at.and_then(|at| violations.field("at", || timestamp_from_proto(at)));
    client_id.zip(at)
}

fn keyed<A: Act>(
    mut violations: Violations,
    act: Option<A>,
    request: &impl Message,
    request_id: &str,
) -> Result<Keyed<A>, Refusal> {
    if request_id.len() > REQUEST_ID_BYTES_MAX {
        violations.push("request_id", format!("is longer than {REQUEST_ID_BYTES_MAX} bytes"));
    }
    if !request_id.bytes().all(|byte| byte.is_ascii_graphic()) {
        violations.push("request_id", "has characters other than visible ASCII");
    }
    let act = violations.finish(reason::REQUEST_INVALID, act)?;
    let hash = Sha256::digest(request.encode_to_vec()).to_vec();
    Ok((act, RequestKey { method: A::METHOD, request_id: request_id.to_owned(), hash }))
}

fn name(violations: &mut Violations, field: &str, text: &str) -> Option<String> {
    violations.field(field, || {
        if text.trim().is_empty() {
            Err("is empty".to_owned())
        } else if text.len() > NAME_BYTES_MAX {
            Err(format!("has {} bytes, at most {NAME_BYTES_MAX} are allowed", text.len()))
        } else if text.chars().any(char::is_control) {
            Err("has control characters".to_owned())
        } else {
            Ok(text.to_owned())
        }
    })
}

fn email(text: &str) -> Result<String, String> {
    let plain = text.len() <= EMAIL_BYTES_MAX && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    match text.rsplit_once('@') {
        Some((local, host)) if plain && !local.is_empty() && !host.is_empty() => Ok(text.to_owned()),
        _ => Err(format!("is not a mail address of at most {EMAIL_BYTES_MAX} bytes")),
    }
}

fn contract_kind(violations: &mut Violations, kind: v1::ContractKind) -> Option<ContractKind> {
    match kind {
        v1::ContractKind::Unspecified => {
            violations.push("contract_kind", "must be flex or enterprise");
            None
        }
        v1::ContractKind::Flex => Some(ContractKind::Flex),
        v1::ContractKind::Enterprise => Some(ContractKind::Enterprise),
    }
}

/// An instant that may be absent.
fn instant(
    violations: &mut Violations,
    field: &str,
    at: Option<&prost_types::Timestamp>,
) -> Option<Option<Timestamp>> {
    at.map_or(Some(None), |at| violations.field(field, || timestamp_from_proto(at)).map(Some))
}
