//! Accounts of another platform as a file of JSON lines, one line an account with all that belongs to it.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use drawdown_client::entitlement::imports;
use drawdown_proto::{
    entitlement::v1::{
        AccountImport, AppImport, AssignmentImport, ContractImport, ContractKind, CredentialImport,
        ImportAccountsRequest, ImportAccountsResponse, PersonImport, Role, TeamImport,
    },
    scalar::timestamp_to_proto,
};
use drawdown_types::Timestamp;
use serde::Deserialize;

use super::{
    Session,
    lines::{Lines, Requests},
    wire,
};
use crate::output::{Column, json_of, number, text};

pub(super) const EXAMPLE: &str = "Example:
  drawdown account import old.jsonl --note 'moved from the old platform' --dry-run

  # old.jsonl: one line an account, here broken for reading
  { \"name\": \"Northwind\", \"created_at\": \"2025-05-31T23:00:10Z\", \"contract\": \"flex\",
    \"contracts\": [{ \"from\": \"2025-09-01T00:00:00Z\", \"contract\": \"enterprise\" }],
    \"commercial_from\": \"2025-07-01T10:00:00Z\",
    \"managers\": [{ \"email\": \"eva@example.org\", \"name\": \"Eva\", \"from\": \"2025-06-01T08:00:00Z\" }],
    \"teams\": [{ \"name\": \"Maps\", \"created_at\": \"2025-06-01T08:00:00Z\",
                 \"members\": [{ \"email\": \"bo@example.org\", \"name\": \"Bo\", \"role\": \"primary_admin\",
                               \"from\": \"2025-06-01T08:00:00Z\", \"uses_tokens\": false }] }],
    \"hubs\": [\"Europe\"],
    \"apps\": [{ \"name\": \"Atlas\", \"owner\": \"bo@example.org\", \"hub\": \"Europe\",
                \"teams\": [{ \"team\": \"Maps\", \"from\": \"2025-06-01T09:00:00Z\" }],
                \"credentials\": [{ \"client_id\": \"atlas-1\", \"created_at\": \"2025-06-01T09:00:59Z\",
                                  \"revoked_at\": \"2025-08-02T00:00:00Z\" }] }] }

Only name, created_at and contract are needed. Roles: primary_admin, secondary_admin, member. Without commercial_from the
trial begins with the earliest credential and runs to its end. Client ids stay what they are; secrets do not move: who needs
one rotates the credential. An account is refused, and nothing of its request written, where anything does not fit; every
place is told. An app's owner is of its account, of a line before it, or registered. Requests are of up to 100 lines; the same
file sent again goes on where it ended. A dry run is one request with all lines: entitlement.import_rows_max bounds what it may
hold. Lots and debts come afterwards, with `drawdown lot import`.";

const ACCOUNT: [Column; 6] = [
    text("account", "account.account_id"),
    text("name", "account.name"),
    number("teams", "teams_count"),
    number("apps", "apps_count"),
    number("credentials", "credentials_count"),
    number("new people", "people_new"),
];

/// What to import, and whether to.
#[derive(Args, Debug)]
pub(super) struct ImportAccounts {
    /// A file of JSON lines, one an account
    file: PathBuf,
    /// Why, for the audit log
    #[arg(long)]
    note: String,
    /// Tells what would be written and writes nothing
    #[arg(long)]
    dry_run: bool,
    /// Makes a retry harmless: the same id and content give the same answer [default: made of the file]
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

impl ImportAccounts {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        let lines = Lines::read(&self.file)?;
        let accounts = lines.parse::<AccountLine>()?;
        let mut client = imports(&session.entitlement);
        // what belongs to lines far apart is seen by who has all of them
        let requests = if self.dry_run { Requests::One } else { Requests::Bounded };
        let list = ("accounts", requests);
        let answers = lines.send(list, self.request_id, accounts, async |accounts, request_id| {
            let note = self.note.clone();
            let request = ImportAccountsRequest { accounts, note, validate_only: self.dry_run, request_id };
            client.import_accounts(request).await
        });
        let answers = answers.await?.into_iter();
        let accounts = answers.flat_map(|answer: ImportAccountsResponse| answer.accounts).collect();
        let all = ImportAccountsResponse { accounts, written: !self.dry_run };
        session.output.table(&summary(&all)?, "accounts", &ACCOUNT)?;
        session.output.beside(&format!("{}\n", verdict(&all)))
    }
}

/// The answer, with numbers beside the lists.
fn summary(answer: &ImportAccountsResponse) -> Result<serde_json::Value> {
    let mut json = json_of("drawdown.entitlement.v1.ImportAccountsResponse", answer)?;
    let accounts = json.get_mut("accounts").and_then(serde_json::Value::as_array_mut);
    let accounts = accounts.into_iter().flatten().filter_map(serde_json::Value::as_object_mut);
    for (account, imported) in accounts.zip(&answer.accounts) {
        account.insert("teams_count".to_owned(), imported.teams.len().into());
        account.insert("apps_count".to_owned(), imported.apps.len().into());
        let credentials: u64 = imported.apps.iter().map(|app| u64::from(app.credentials)).sum();
        account.insert("credentials_count".to_owned(), credentials.into());
    }
    Ok(json)
}

fn verdict(answer: &ImportAccountsResponse) -> String {
    let accounts = answer.accounts.len();
    if answer.written {
        format!("{accounts} accounts were imported")
    } else {
        format!("{accounts} accounts fit; nothing was written")
    }
}

// === the file ===

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountLine {
    name: String,
    created_at: Timestamp,
    contract: Contract,
    #[serde(default)]
    contracts: Vec<ContractLine>,
    commercial_from: Option<Timestamp>,
    #[serde(default)]
    cell: u8,
    #[serde(default)]
    managers: Vec<ManagerLine>,
    #[serde(default)]
    teams: Vec<TeamLine>,
    #[serde(default)]
    hubs: Vec<String>,
    #[serde(default)]
    apps: Vec<AppLine>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Contract {
    Flex,
    Enterprise,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ContractLine {
    from: Timestamp,
    contract: Contract,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ManagerLine {
    email: String,
    name: String,
    from: Timestamp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TeamLine {
    name: String,
    created_at: Timestamp,
    #[serde(default)]
    members: Vec<MemberLine>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TeamRole {
    PrimaryAdmin,
    SecondaryAdmin,
    Member,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberLine {
    email: String,
    name: String,
    role: TeamRole,
    from: Timestamp,
    #[serde(default)]
    uses_tokens: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppLine {
    name: String,
    #[serde(default)]
    owner: String,
    #[serde(default)]
    hub: String,
    #[serde(default)]
    teams: Vec<AssignmentLine>,
    #[serde(default)]
    credentials: Vec<CredentialLine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AssignmentLine {
    team: String,
    from: Timestamp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CredentialLine {
    client_id: String,
    created_at: Timestamp,
    revoked_at: Option<Timestamp>,
}

impl From<Contract> for i32 {
    fn from(contract: Contract) -> Self {
        match contract {
            Contract::Flex => ContractKind::Flex.into(),
            Contract::Enterprise => ContractKind::Enterprise.into(),
        }
    }
}

impl From<AccountLine> for AccountImport {
    fn from(line: AccountLine) -> Self {
        let change = |change: ContractLine| ContractImport {
            from: wire(Some(change.from)),
            contract_kind: change.contract.into(),
        };
        Self {
            name: line.name,
            created_at: wire(Some(line.created_at)),
            contract_kind: line.contract.into(),
            contracts: line.contracts.into_iter().map(change).collect(),
            commercial_from: wire(line.commercial_from),
            cell: line.cell.into(),
            teams: line.teams.into_iter().map(TeamImport::from).collect(),
            managers: line.managers.into_iter().map(PersonImport::from).collect(),
            hubs: line.hubs,
            apps: line.apps.into_iter().map(AppImport::from).collect(),
        }
    }
}

impl From<TeamLine> for TeamImport {
    fn from(line: TeamLine) -> Self {
        Self {
            name: line.name,
            created_at: wire(Some(line.created_at)),
            members: line.members.into_iter().map(PersonImport::from).collect(),
        }
    }
}

impl From<ManagerLine> for PersonImport {
    fn from(line: ManagerLine) -> Self {
        Self {
            email: line.email,
            name: line.name,
            role: Role::ContractManager.into(),
            from: wire(Some(line.from)),
            uses_tokens: false,
        }
    }
}

impl From<MemberLine> for PersonImport {
    fn from(line: MemberLine) -> Self {
        let role = match line.role {
            TeamRole::PrimaryAdmin => Role::PrimaryAdmin,
            TeamRole::SecondaryAdmin => Role::SecondaryAdmin,
            TeamRole::Member => Role::Member,
        };
        Self {
            email: line.email,
            name: line.name,
            role: role.into(),
            from: wire(Some(line.from)),
            uses_tokens: line.uses_tokens,
        }
    }
}

impl From<AppLine> for AppImport {
    fn from(line: AppLine) -> Self {
        let link = |link: AssignmentLine| AssignmentImport { team: link.team, from: wire(Some(link.from)) };
        let credential = |credential: CredentialLine| CredentialImport {
            client_id: credential.client_id,
            created_at: wire(Some(credential.created_at)),
            revoked_at: credential.revoked_at.map(timestamp_to_proto),
        };
        Self {
            name: line.name,
            owner_email: line.owner,
            hub: line.hub,
            assignments: line.teams.into_iter().map(link).collect(),
            credentials: line.credentials.into_iter().map(credential).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line of the help, as one.
    fn example() -> String {
        let lines = EXAMPLE.lines().skip_while(|line| !line.trim_start().starts_with('{'));
        lines.take_while(|line| !line.is_empty()).map(str::trim).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_example_of_the_help_is_a_line() {
        let account = AccountImport::from(serde_json::from_str::<AccountLine>(&example()).unwrap());
        assert_eq!((account.contract_kind(), account.cell), (ContractKind::Flex, 0));
        assert_eq!(account.contracts[0].contract_kind(), ContractKind::Enterprise);
        assert_eq!(account.managers[0].role(), Role::ContractManager);
        assert_eq!(account.teams[0].members[0].role(), Role::PrimaryAdmin);
        let [app] = &account.apps[..] else { panic!("one app") };
        assert_eq!((app.owner_email.as_str(), app.hub.as_str()), ("bo@example.org", "Europe"));
        assert_eq!((app.assignments[0].team.as_str(), app.credentials.len()), ("Maps", 1));
        assert_eq!(app.credentials[0].revoked_at.as_ref().map(|at| at.seconds), Some(1_754_092_800));
    }

    #[test]
    fn lines_of_another_form_are_refused() {
        for wrong in [
            example().replace("\"flex\"", "\"gold\""),
            example().replace("\"primary_admin\"", "\"contract_manager\""),
            example().replace("\"hub\"", "\"hubb\""),
        ] {
            assert!(serde_json::from_str::<AccountLine>(&wrong).is_err(), "{wrong}");
        }
    }
}
