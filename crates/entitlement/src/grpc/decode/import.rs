//! An import, whose every place has a path.

use drawdown_entitlement_core::{
    Change,
    plan::{AccountImport, AppImport, CredentialImport, PersonImport, TeamImport},
};
use drawdown_proto::{entitlement::v1, scalar::timestamp_from_proto};
use drawdown_service::{Refusal, Violations};
use drawdown_types::{ClientId, Timestamp};

use super::{Keyed, account::note, contract_kind, email, instant, keyed, name, role};
use crate::{Limits, acts::ImportAccounts, reason};

/// The number of accounts and of what belongs to them, before any of it is looked at.
pub(crate) fn check_size(request: &v1::ImportAccountsRequest, limits: &Limits) -> Result<(), Refusal> {
    let mut violations = Violations::new();
    let accounts = request.accounts.len();
    if accounts == 0 {
        violations.push("accounts", "must hold at least 1");
    }
    let rows_max = limits.import_rows_max;
    // a whole file is tried at once, whatever number of requests it is imported by: only its rows bound that
    let accounts_max = if request.validate_only { rows_max } else { limits.import_accounts_max };
    if accounts > accounts_max {
        let problem = format!("holds {accounts}, at most {accounts_max} are allowed");
        violations.push_as(reason::BATCH_TOO_LARGE, "accounts", problem);
    }
    let rows: usize = request.accounts.iter().map(rows_of).sum();
    if rows > rows_max {
        let problem = format!("holds {rows} rows, at most {rows_max} are allowed");
        violations.push_as(reason::BATCH_TOO_LARGE, "accounts", problem);
    }
    violations.check(reason::REQUEST_INVALID)
}

/// What belongs to an account. Lengths of lists that are in memory do not overflow.
fn rows_of(account: &v1::AccountImport) -> usize {
    let people: usize = account.teams.iter().map(|team| team.members.len()).sum();
    let of_apps: usize =
        account.apps.iter().map(|app| app.assignments.len().saturating_add(app.credentials.len())).sum();
    let own = [account.contracts.len(), account.teams.len(), account.managers.len(), account.hubs.len()];
    own.into_iter().chain([account.apps.len(), people, of_apps]).sum()
}

pub(crate) fn accounts(request: &v1::ImportAccountsRequest) -> Result<Keyed<ImportAccounts>, Refusal> {
    let mut violations = Violations::new();
    let mut cells = Vec::with_capacity(request.accounts.len());
    let accounts = each(&mut violations, "accounts", &request.accounts, |violations, import| {
        let cell = violations.field("cell", || {
            u8::try_from(import.cell).map_err(|_| format!("{} is above {}", import.cell, u8::MAX))
        });
        cells.push(cell.unwrap_or_default());
        account(violations, import)
    });
    let note = note(&mut violations, "note", &request.note);
    let act = accounts.zip(note).map(|(accounts, note)| ImportAccounts {
        accounts,
        cells,
        note,
        validate_only: request.validate_only,
    });
    keyed(violations, act, request, &request.request_id)
}

/// Every element, each under its path; none where one is wrong.
fn each<Q, T>(
    violations: &mut Violations,
    list: &str,
    elements: &[Q],
    mut decode: impl FnMut(&mut Violations, &Q) -> Option<T>,
) -> Option<Vec<T>> {
    let decoded: Vec<_> = elements
        .iter()
        .enumerate()
        .map(|(n, element)| violations.within(&format!("{list}[{n}]"), |inner| decode(inner, element)))
        .collect();
    decoded.into_iter().collect()
}

fn at(violations: &mut Violations, field: &str, at: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    let at = violations.require(field, at)?;
    violations.field(field, || timestamp_from_proto(at))
}

fn account(violations: &mut Violations, import: &v1::AccountImport) -> Option<AccountImport> {
    let name = name(violations, "name", &import.name);
    let created_at = at(violations, "created_at", import.created_at.as_ref());
    let opened_as = contract_kind(violations, import.contract_kind());
    let contracts = each(violations, "contracts", &import.contracts, |violations, change| {
        let from = at(violations, "from", change.from.as_ref());
        let kind = contract_kind(violations, change.contract_kind());
        from.zip(kind).map(|(from, value)| Change { from, value })
    });
    let commercial_from = instant(violations, "commercial_from", import.commercial_from.as_ref());
    let teams = each(violations, "teams", &import.teams, team);
    let managers = each(violations, "managers", &import.managers, person);
    let hubs = each(violations, "hubs", &import.hubs, |violations, hub| self::name(violations, "", hub));
    let apps = each(violations, "apps", &import.apps, app);
    Some(AccountImport {
        name: name?,
        created_at: created_at?,
        opened_as: opened_as?,
        contracts: contracts?,
        commercial_from: commercial_from?,
        teams: teams?,
        managers: managers?,
        hubs: hubs?,
        apps: apps?,
    })
}

fn team(violations: &mut Violations, import: &v1::TeamImport) -> Option<TeamImport> {
    let name = name(violations, "name", &import.name);
    let created_at = at(violations, "created_at", import.created_at.as_ref());
    let members = each(violations, "members", &import.members, person);
    Some(TeamImport { name: name?, created_at: created_at?, members: members? })
}

fn person(violations: &mut Violations, import: &v1::PersonImport) -> Option<PersonImport> {
    let email = violations.field("email", || email(&import.email));
    let name = name(violations, "name", &import.name);
    let role = role(violations, import.role());
    let from = at(violations, "from", import.from.as_ref());
    let uses_tokens = import.uses_tokens;
    Some(PersonImport { email: email?, name: name?, role: role?, from: from?, uses_tokens })
}

fn app(violations: &mut Violations, import: &v1::AppImport) -> Option<AppImport> {
    let name = name(violations, "name", &import.name);
    let owner_email = match import.owner_email.as_str() {
        "" => Some(String::new()),
        text => violations.field("owner_email", || email(text)),
    };
    let assignments = each(violations, "assignments", &import.assignments, |violations, link| {
        let from = at(violations, "from", link.from.as_ref());
        from.map(|from| Change { from, value: link.team.clone() })
    });
    let credentials = each(violations, "credentials", &import.credentials, credential);
    Some(AppImport {
        name: name?,
        owner_email: owner_email?,
        hub: import.hub.clone(),
        assignments: assignments?,
        credentials: credentials?,
    })
}

fn credential(violations: &mut Violations, import: &v1::CredentialImport) -> Option<CredentialImport> {
    let client_id = violations.field("client_id", || ClientId::new(&import.client_id));
    let created_at = at(violations, "created_at", import.created_at.as_ref());
    let revoked_at = instant(violations, "revoked_at", import.revoked_at.as_ref());
    Some(CredentialImport { client_id: client_id?, created_at: created_at?, revoked_at: revoked_at? })
}
