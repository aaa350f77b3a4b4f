//! Apps, their credentials, and who pays for a client id.

use anyhow::Result;
use clap::{Args, Subcommand};
use drawdown_client::entitlement::{credentials, hierarchy, resolution};
use drawdown_proto::entitlement::v1::{
    AssignAppRequest, ClientInstant, CreateAppRequest, CreateCredentialRequest, ListAppsRequest,
    ListCredentialsRequest, ResolveRequest, RevokeCredentialRequest, RotateCredentialRequest,
};
use drawdown_types::{Clock, SystemClock, Timestamp};

use super::{Change, Connection, Pages, Session, wire};
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
    /// Lists credentials of an app, those that are revoked too
    #[command(after_help = "Example:\n  drawdown credential list app_01j2gv5gymfsfrn6rc3mq3yjjv")]
    List {
        /// The app
        app_id: String,
        #[command(flatten)]
        pages: Pages,
    },
    /// Makes a credential that takes the place of another one, both being in force until the old one is revoked
    #[command(
        after_help = "Example:\n  drawdown credential rotate cred_01j2gv5gymfsfrn6rc3mq3yjjv --old-until 2027-01-08T00:00:00Z"
    )]
    Rotate {
        /// The old credential
        credential_id: String,
        /// When the old one is revoked [default: not before `credential revoke`]
        #[arg(long, value_name = "INSTANT")]
        old_until: Option<Timestamp>,
        #[command(flatten)]
        change: Change,
    },
    /// Revokes a credential: its secret at once, its client id from the next edge of a window on
    #[command(after_help = "Example:\n  drawdown credential revoke cred_01j2gv5gymfsfrn6rc3mq3yjjv")]
    Revoke {
        /// The credential
        credential_id: String,
        /// When; a later instant is scheduled [default: now]
        #[arg(long, value_name = "INSTANT")]
        at: Option<Timestamp>,
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

const CREDENTIAL: [Column; 6] = [
    text("credential", "credential_id"),
    text("client id", "client_id"),
    text("created", "created_at"),
    text("known from", "known_from"),
    text("revoked", "revoked_at"),
    text("unknown from", "unknown_from"),
];
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
        let mut client = credentials(&session.entitlement);
        match self.action {
            CredentialAction::Create { app_id, created_at, change } => {
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
            CredentialAction::List { app_id, pages } => list_credentials(&session, app_id, pages).await,
            CredentialAction::Rotate { credential_id, old_until, change } => {
                let request = RotateCredentialRequest {
                    credential_id,
                    old_until: wire(old_until),
                    request_id: change.id(),
                };
                let answer = client.rotate_credential(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.RotateCredentialResponse", &answer)?;
                let columns = [
                    text("credential", "credential.credential_id"),
                    text("client id", "credential.client_id"),
                    text("secret, shown this once", "client_secret"),
                    text("old client id", "old.client_id"),
                    text("old one revoked", "old.revoked_at"),
                ];
                session.output.record(&answer, "", &columns)
            }
            CredentialAction::Revoke { credential_id, at, change } => {
                let request =
                    RevokeCredentialRequest { credential_id, at: wire(at), request_id: change.id() };
                let answer = client.revoke_credential(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.RevokeCredentialResponse", &answer)?;
                session.output.record(&answer, "credential", &CREDENTIAL)
            }
        }
    }
}

async fn list_credentials(session: &Session, app_id: String, pages: Pages) -> Result<()> {
    let client = credentials(&session.entitlement);
    let name = "drawdown.entitlement.v1.ListCredentialsResponse";
    let answer = pages
        .collect(name, "credentials", |page_size, page_token| {
            let request = ListCredentialsRequest { app_id: app_id.clone(), page_size, page_token };
            let mut client = client.clone();
            async move { client.list_credentials(request).await }
        })
        .await?;
    session.output.table(&answer, "credentials", &CREDENTIAL)
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
