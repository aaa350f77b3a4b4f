//! Apps, their credentials, and who pays for a client id.

use anyhow::Result;
use clap::{Args, Subcommand};
use drawdown_client::entitlement::{hierarchy, resolution};
use drawdown_proto::entitlement::v1::{
    AssignAppRequest, ClientInstant, CreateAppRequest, CreateCredentialRequest, ListAppsRequest,
    ResolveRequest,
};
use drawdown_types::{Clock, SystemClock, Timestamp};

use super::{Change, Connection, Pages, wire};
use crate::output::{Column, json_of, name, text};

/// Apps: registered programs
#[derive(Args, Debug)]
pub(crate) struct AppCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: AppAction,
}

#[derive(Subcommand, Debug)]
enum AppAction {
    /// Registers an app
    #[command(
        after_help = "Example:\n  drawdown app create --account acct_01j2gv5gymfsfrn6rc3mq3yjjv --name tiles"
    )]
    Create {
        /// The account of its owner
        #[arg(long, value_name = "ACCOUNT_ID")]
        account: String,
        /// What people call it
        #[arg(long)]
        name: String,
        /// Its owner, where it is not set up by the platform's operator
        #[arg(long, value_name = "USER_ID", default_value = "")]
        owner: String,
        #[command(flatten)]
        change: Change,
    },
    /// Assigns an app to a team of its account, from the next edge of a window on
    #[command(
        after_help = "Example:\n  drawdown app assign app_01j2gv5gymfsfrn6rc3mq3yjjv --team team_01j2gv5gymfsfrn6rc3mq3yjjv"
    )]
    Assign {
        /// The app
        app_id: String,
        /// The team
        #[arg(long, value_name = "TEAM_ID")]
        team: String,
        /// From when on; a later instant is scheduled, an earlier one is set-up [default: now]
        #[arg(long, value_name = "INSTANT")]
        from: Option<Timestamp>,
        #[command(flatten)]
        change: Change,
    },
    /// Lists apps with their present team
    #[command(after_help = "Example:\n  drawdown app list --account acct_01j2gv5gymfsfrn6rc3mq3yjjv")]
    List {
        /// Only this account's
        #[arg(long, value_name = "ACCOUNT_ID", default_value = "")]
        account: String,
        #[command(flatten)]
        pages: Pages,
    },
}

/// Credentials: the client ids that usage is metered by
#[derive(Args, Debug)]
pub(crate) struct CredentialCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: CredentialAction,
}

#[derive(Subcommand, Debug)]
enum CredentialAction {
    /// Makes a client id and its secret, which is shown this once
    #[command(after_help = "Example:\n  drawdown credential create app_01j2gv5gymfsfrn6rc3mq3yjjv")]
    Create {
        /// The app
        app_id: String,
        /// Set-up: in force since this instant [default: now]
        #[arg(long, value_name = "INSTANT")]
        created_at: Option<Timestamp>,
        #[command(flatten)]
        change: Change,
    },
}

/// Tells who pays for a client id at an instant
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  drawdown resolve client_7f3a --at 2026-01-31T12:00:00Z")]
pub(crate) struct ResolveCommand {
    /// The client id
    client_id: String,
    /// The instant [default: now]
    #[arg(long, value_name = "INSTANT")]
    at: Option<Timestamp>,
    #[command(flatten)]
    connection: Connection,
}

const APP: [Column; 6] = [
    text("app", "app_id"),
    text("account", "account_id"),
    text("name", "name"),
    text("owner", "owner_user_id"),
    text("team", "team_id"),
    text("client ids", "client_ids"),
];

impl AppCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let mut client = hierarchy(&session.entitlement);
        match self.action {
            AppAction::Create { account, name, owner, change } => {
                let request = CreateAppRequest {
                    account_id: account,
                    owner_user_id: owner,
                    name,
                    request_id: change.id(),
                };
                let answer = client.create_app(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.CreateAppResponse", &answer)?;
                session.output.record(&answer, "app", &APP)
            }
            AppAction::Assign { app_id, team, from, change } => {
                let request =
                    AssignAppRequest { app_id, team_id: team, from: wire(from), request_id: change.id() };
                let answer = client.assign_app(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.AssignAppResponse", &answer)?;
                session.output.record(&answer, "", &[text("from", "from")])
            }
            AppAction::List { account, pages } => {
                let answer = pages
                    .collect("drawdown.entitlement.v1.ListAppsResponse", "apps", |page_size, page_token| {
                        let request = ListAppsRequest { account_id: account.clone(), page_size, page_token };
                        let mut client = client.clone();
                        async move { client.list_apps(request).await }
                    })
                    .await?;
                session.output.table(&answer, "apps", &APP)
            }
        }
    }
}

impl CredentialCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let CredentialAction::Create { app_id, created_at, change } = self.action;
        let request =
            CreateCredentialRequest { app_id, created_at: wire(created_at), request_id: change.id() };
        let answer = hierarchy(&session.entitlement).create_credential(request).await?.into_inner();
        let answer = json_of("drawdown.entitlement.v1.CreateCredentialResponse", &answer)?;
        let columns = [
            text("credential", "credential_id"),
            text("client id", "client_id"),
            text("secret, shown this once", "client_secret"),
        ];
        session.output.record(&answer, "", &columns)
    }
}

impl ResolveCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let at = self.at.unwrap_or_else(|| SystemClock.now());
        let query = Some(ClientInstant { client_id: self.client_id, at: wire(Some(at)) });
        let answer = resolution(&session.entitlement).resolve(ResolveRequest { query }).await?.into_inner();
        let answer = json_of("drawdown.entitlement.v1.ResolveResponse", &answer)?;
        let columns = [
            text("client id", "client_id"),
            text("app", "billed_to.app_id"),
            text("team", "billed_to.team_id"),
            text("account", "billed_to.account_id"),
            name("contract", "billed_to.contract_kind", "CONTRACT_KIND_"),
            text("in trial", "billed_to.in_trial"),
            name("nobody pays", "unresolved", "UNRESOLVED_REASON_"),
        ];
        session.output.record(&answer, "resolution", &columns)
    }
}
