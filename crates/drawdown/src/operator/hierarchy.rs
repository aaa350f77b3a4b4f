//! Accounts, teams, people and roles.

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use drawdown_client::entitlement::hierarchy;
use drawdown_proto::entitlement::v1::{
    self as pb, CreateAccountRequest, CreateTeamRequest, CreateUserRequest, GetAccountRequest,
    ListTeamsRequest, SetRoleRequest,
};
use drawdown_types::Timestamp;

use super::{Change, Connection, Pages, wire};
use crate::output::{Column, json_of, name, text};

/// The kind of contract of an account.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Contract {
    /// Buys tokens as it goes
    Flex,
    /// Enterprise agreement
    Enterprise,
}

/// Accounts: contract owners who buy tokens
#[derive(Args, Debug)]
pub(crate) struct AccountCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: AccountAction,
}

#[derive(Subcommand, Debug)]
enum AccountAction {
    /// Opens an account
    #[command(
        after_help = "Example:\n  drawdown account create --name Northwind --contract flex --commercial"
    )]
    Create {
        /// What people call it
        #[arg(long)]
        name: String,
        /// The kind of contract
        #[arg(long)]
        contract: Contract,
        /// Commercial from the start: no trial
        #[arg(long)]
        commercial: bool,
        /// Set-up: the original instant, such as 2025-01-01T00:00:00Z [default: now]
        #[arg(long, value_name = "INSTANT")]
        created_at: Option<Timestamp>,
        /// Which ledger has its tokens and charges, for ever: 0 for the only or the leading one
        #[arg(long, default_value_t = 0)]
        cell: u8,
        #[command(flatten)]
        change: Change,
    },
    /// Shows an account
    #[command(after_help = "Example:\n  drawdown account get acct_01j2gv5gymfsfrn6rc3mq3yjjv")]
    Get {
        /// The account
        account_id: String,
    },
}

/// Teams: groups that own lots and bear charges
#[derive(Args, Debug)]
pub(crate) struct TeamCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: TeamAction,
}

#[derive(Subcommand, Debug)]
enum TeamAction {
    /// Creates a team of an account
    #[command(
        after_help = "Example:\n  drawdown team create --account acct_01j2gv5gymfsfrn6rc3mq3yjjv --name Maps"
    )]
    Create {
        /// Its account
        #[arg(long, value_name = "ACCOUNT_ID")]
        account: String,
        /// What people call it
        #[arg(long)]
        name: String,
        /// Set-up: the original instant [default: now]
        #[arg(long, value_name = "INSTANT")]
        created_at: Option<Timestamp>,
        #[command(flatten)]
        change: Change,
    },
    /// Lists teams
    #[command(after_help = "Example:\n  drawdown team list --account acct_01j2gv5gymfsfrn6rc3mq3yjjv")]
    List {
        /// Only this account's
        #[arg(long, value_name = "ACCOUNT_ID", default_value = "")]
        account: String,
        #[command(flatten)]
        pages: Pages,
    },
}

/// People
#[derive(Args, Debug)]
pub(crate) struct UserCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: UserAction,
}

#[derive(Subcommand, Debug)]
enum UserAction {
    /// Registers a person
    #[command(after_help = "Example:\n  drawdown user create --email ada@example.com --name 'Ada Lovelace'")]
    Create {
        /// The mail address
        #[arg(long)]
        email: String,
        /// The name
        #[arg(long)]
        name: String,
        #[command(flatten)]
        change: Change,
    },
}

/// What people may do
#[derive(Args, Debug)]
pub(crate) struct RoleCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: RoleAction,
}

#[derive(Subcommand, Debug)]
enum RoleAction {
    /// Gives a person a role, in a team or for an account
    #[command(
        after_help = "Example:\n  drawdown role set user_01j2gv5gymfsfrn6rc3mq3yjjv primary-admin --team team_01j2gv5gymfsfrn6rc3mq3yjjv"
    )]
    Set {
        /// The person
        user_id: String,
        /// The role
        role: Role,
        /// For a role in a team
        #[arg(long, value_name = "TEAM_ID", default_value = "")]
        team: String,
        /// For the contract manager of an account
        #[arg(long, value_name = "ACCOUNT_ID", default_value = "")]
        account: String,
        #[command(flatten)]
        change: Change,
    },
}

/// What a person may do.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// The one primary admin of a team
    PrimaryAdmin,
    /// Another admin of a team
    SecondaryAdmin,
    /// A member of a team
    Member,
    /// The contract manager of an account
    ContractManager,
}

const ACCOUNT: [Column; 7] = [
    text("account", "account_id"),
    text("name", "name"),
    name("contract", "contract_kind", "CONTRACT_KIND_"),
    text("created", "created_at"),
    text("trial from", "trial_started_at"),
    text("trial to", "trial_ends_at"),
    text("cell", "cell"),
];
const TEAM: [Column; 4] = [
    text("team", "team_id"),
    text("account", "account_id"),
    text("name", "name"),
    text("created", "created_at"),
];

impl From<Contract> for pb::ContractKind {
    fn from(contract: Contract) -> Self {
        match contract {
            Contract::Flex => Self::Flex,
            Contract::Enterprise => Self::Enterprise,
        }
    }
}

impl From<Role> for pb::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::PrimaryAdmin => Self::PrimaryAdmin,
            Role::SecondaryAdmin => Self::SecondaryAdmin,
            Role::Member => Self::Member,
            Role::ContractManager => Self::ContractManager,
        }
    }
}

impl AccountCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let mut client = hierarchy(&session.entitlement);
        let answer = match self.action {
            AccountAction::Create { name, contract, commercial, created_at, cell, change } => {
                let request = CreateAccountRequest {
                    name,
                    contract_kind: pb::ContractKind::from(contract).into(),
                    created_at: wire(created_at),
                    commercial,
                    cell: cell.into(),
                    request_id: change.id(),
                };
                let answer = client.create_account(request).await?.into_inner();
                json_of("drawdown.entitlement.v1.CreateAccountResponse", &answer)?
            }
            AccountAction::Get { account_id } => {
                let answer = client.get_account(GetAccountRequest { account_id }).await?.into_inner();
                json_of("drawdown.entitlement.v1.GetAccountResponse", &answer)?
            }
        };
        session.output.record(&answer, "account", &ACCOUNT)
    }
}

impl TeamCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let client = hierarchy(&session.entitlement);
        match self.action {
            TeamAction::Create { account, name, created_at, change } => {
                let request = CreateTeamRequest {
                    account_id: account,
                    name,
                    created_at: wire(created_at),
                    request_id: change.id(),
                };
                let answer = client.clone().create_team(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.CreateTeamResponse", &answer)?;
                session.output.record(&answer, "team", &TEAM)
            }
            TeamAction::List { account, pages } => {
                let answer = pages
                    .collect("drawdown.entitlement.v1.ListTeamsResponse", "teams", |page_size, page_token| {
                        let request = ListTeamsRequest { account_id: account.clone(), page_size, page_token };
                        let mut client = client.clone();
                        async move { client.list_teams(request).await }
                    })
                    .await?;
                session.output.table(&answer, "teams", &TEAM)
            }
        }
    }
}

impl UserCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let UserAction::Create { email, name, change } = self.action;
        let request = CreateUserRequest { email, name, request_id: change.id() };
        let answer = hierarchy(&session.entitlement).create_user(request).await?.into_inner();
        let answer = json_of("drawdown.entitlement.v1.CreateUserResponse", &answer)?;
        let columns = [text("user", "user_id"), text("email", "email"), text("name", "name")];
        session.output.record(&answer, "user", &columns)
    }
}

impl RoleCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let RoleAction::Set { user_id, role, team, account, change } = self.action;
        let request = SetRoleRequest {
            user_id,
            role: pb::Role::from(role).into(),
            team_id: team,
            account_id: account,
            request_id: change.id(),
        };
        let answer = hierarchy(&session.entitlement).set_role(request).await?.into_inner();
        let answer = json_of("drawdown.entitlement.v1.SetRoleResponse", &answer)?;
        session.output.record(&answer, "", &[text("from", "from")])
    }
}
