//! Accounts and teams.

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use drawdown_client::entitlement::{accounts, hierarchy};
use drawdown_proto::entitlement::v1::{
    self as pb, ChangeContractRequest, CreateAccountRequest, CreateTeamRequest, EndTrialRequest,
    GetAccountRequest, LiftSuspensionRequest, ListSuspensionsRequest, ListTeamsRequest, SuspendRequest,
};
use drawdown_types::Timestamp;

use super::{
    Change, Connection, Pages, Session,
    import_accounts::{EXAMPLE, ImportAccounts},
    wire,
};
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
    /// Imports accounts of another platform: teams, people, apps and credentials, with their histories
    #[command(after_help = EXAMPLE)]
    Import(ImportAccounts),
    /// Shows an account
    #[command(after_help = "Example:\n  drawdown account get acct_01j2gv5gymfsfrn6rc3mq3yjjv")]
    Get {
        /// The account
        account_id: String,
    },
    /// Suspends an account at once: its calls are refused, everything else goes on
    #[command(
        after_help = "Example:\n  drawdown account suspend acct_01j2gv5gymfsfrn6rc3mq3yjjv --note 'unpaid invoice 4711'"
    )]
    Suspend {
        /// The account
        account_id: String,
        #[command(flatten)]
        why: Why,
    },
    /// Lifts the suspension of an account at once
    #[command(after_help = "Example:\n  drawdown account lift acct_01j2gv5gymfsfrn6rc3mq3yjjv --note paid")]
    Lift {
        /// The account
        account_id: String,
        #[command(flatten)]
        why: Why,
    },
    /// Lists suspensions of an account and of its teams, those that were lifted too
    #[command(after_help = "Example:\n  drawdown account suspensions acct_01j2gv5gymfsfrn6rc3mq3yjjv")]
    Suspensions {
        /// The account
        account_id: String,
        #[command(flatten)]
        pages: Pages,
    },
    /// Ends the trial of an account early, from the next edge of a window on
    #[command(after_help = "Example:\n  drawdown account end-trial acct_01j2gv5gymfsfrn6rc3mq3yjjv")]
    EndTrial {
        /// The account
        account_id: String,
        /// From when on; a later instant is scheduled, an earlier one is set-up [default: now]
        #[arg(long, value_name = "INSTANT")]
        from: Option<Timestamp>,
        #[command(flatten)]
        change: Change,
    },
    /// Changes the kind of contract of an account where a month begins
    #[command(
        after_help = "Example:\n  drawdown account change-contract acct_01j2gv5gymfsfrn6rc3mq3yjjv enterprise --from 2027-01-01T00:00:00Z"
    )]
    ChangeContract {
        /// The account
        account_id: String,
        /// The kind from then on
        contract: Contract,
        /// From when on, rounded up to the beginning of a month; an earlier one is set-up [default: the next month]
        #[arg(long, value_name = "INSTANT")]
        from: Option<Timestamp>,
        #[command(flatten)]
        change: Change,
    },
}

/// Why, and under which request id.
#[derive(Args, Debug)]
struct Why {
    /// Why, for the history and the audit log
    #[arg(long)]
    note: String,
    #[command(flatten)]
    change: Change,
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
    /// Suspends a team at once: calls of its apps are refused, everything else goes on
    #[command(
        after_help = "Example:\n  drawdown team suspend team_01j2gv5gymfsfrn6rc3mq3yjjv --note 'keys were leaked'"
    )]
    Suspend {
        /// The team
        team_id: String,
        #[command(flatten)]
        why: Why,
    },
    /// Lifts the suspension of a team at once
    #[command(after_help = "Example:\n  drawdown team lift team_01j2gv5gymfsfrn6rc3mq3yjjv --note cleared")]
    Lift {
        /// The team
        team_id: String,
        #[command(flatten)]
        why: Why,
    },
}

const ACCOUNT: [Column; 8] = [
    text("account", "account_id"),
    text("name", "name"),
    name("contract", "contract_kind", "CONTRACT_KIND_"),
    text("created", "created_at"),
    text("trial from", "trial_started_at"),
    text("trial to", "trial_ends_at"),
    text("cell", "cell"),
    text("suspended since", "suspended_since"),
];
const SUSPENSION: [Column; 6] = [
    text("account", "account_id"),
    text("team", "team_id"),
    text("from", "from"),
    text("why", "note"),
    text("to", "to"),
    text("lifted because", "end_note"),
];
const TEAM: [Column; 5] = [
    text("team", "team_id"),
    text("account", "account_id"),
    text("name", "name"),
    text("created", "created_at"),
    text("suspended since", "suspended_since"),
];

impl From<Contract> for pb::ContractKind {
    fn from(contract: Contract) -> Self {
        match contract {
            Contract::Flex => Self::Flex,
            Contract::Enterprise => Self::Enterprise,
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
            AccountAction::Import(import) => return import.run(&session).await,
            AccountAction::Get { account_id } => {
                let answer = client.get_account(GetAccountRequest { account_id }).await?.into_inner();
                json_of("drawdown.entitlement.v1.GetAccountResponse", &answer)?
            }
            AccountAction::Suspend { account_id, why } => {
                return why.suspend(&session, (account_id, String::new())).await;
            }
            AccountAction::Lift { account_id, why } => {
                return why.lift(&session, (account_id, String::new())).await;
            }
            AccountAction::Suspensions { account_id, pages } => {
                return list_suspensions(&session, account_id, pages).await;
            }
            AccountAction::EndTrial { account_id, from, change } => {
                let request = EndTrialRequest { account_id, from: wire(from), request_id: change.id() };
                let answer = accounts(&session.entitlement).end_trial(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.EndTrialResponse", &answer)?;
                return session.output.record(&answer, "", &[text("commercial from", "from")]);
            }
            AccountAction::ChangeContract { account_id, contract, from, change } => {
                let request = ChangeContractRequest {
                    account_id,
                    contract_kind: pb::ContractKind::from(contract).into(),
                    from: wire(from),
                    request_id: change.id(),
                };
                let answer = accounts(&session.entitlement).change_contract(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.ChangeContractResponse", &answer)?;
                return session.output.record(&answer, "", &[text("from", "from")]);
            }
        };
        session.output.record(&answer, "account", &ACCOUNT)
    }
}

impl Why {
    /// Suspends an account or a team, the other one being empty.
    async fn suspend(self, session: &Session, (account_id, team_id): (String, String)) -> Result<()> {
        let request = SuspendRequest { account_id, team_id, note: self.note, request_id: self.change.id() };
        let answer = accounts(&session.entitlement).suspend(request).await?.into_inner();
        let answer = json_of("drawdown.entitlement.v1.SuspendResponse", &answer)?;
        session.output.record(&answer, "suspension", &SUSPENSION)
    }

    async fn lift(self, session: &Session, (account_id, team_id): (String, String)) -> Result<()> {
        let request =
            LiftSuspensionRequest { account_id, team_id, note: self.note, request_id: self.change.id() };
        let answer = accounts(&session.entitlement).lift_suspension(request).await?.into_inner();
        if answer.suspension.is_none() {
            session.output.line("nothing was suspended")?;
        }
        let answer = json_of("drawdown.entitlement.v1.LiftSuspensionResponse", &answer)?;
        session.output.record(&answer, "suspension", &SUSPENSION)
    }
}

async fn list_suspensions(session: &Session, account_id: String, pages: Pages) -> Result<()> {
    let client = accounts(&session.entitlement);
    let name = "drawdown.entitlement.v1.ListSuspensionsResponse";
    let answer = pages
        .collect(name, "suspensions", |page_size, page_token| {
            let request = ListSuspensionsRequest { account_id: account_id.clone(), page_size, page_token };
            let mut client = client.clone();
            async move { client.list_suspensions(request).await }
        })
        .await?;
    session.output.table(&answer, "suspensions", &SUSPENSION)
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
            TeamAction::Suspend { team_id, why } => why.suspend(&session, (String::new(), team_id)).await,
            TeamAction::Lift { team_id, why } => why.lift(&session, (String::new(), team_id)).await,
        }
    }
}
