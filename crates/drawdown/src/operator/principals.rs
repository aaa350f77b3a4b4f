//! Programs that call the services, and their API keys.

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use drawdown_client::entitlement::principals;
use drawdown_proto::entitlement::v1::{
    self as pb, CreateKeyRequest, CreatePrincipalRequest, EndPrincipalRequest, ListKeysRequest,
    ListPrincipalsRequest, RevokeKeyRequest, RotateKeyRequest,
};
use drawdown_types::Timestamp;

use super::{Change, Connection, Pages, Session, wire};
use crate::output::{Column, json_of, name, text};

/// Programs that call the services, and what they may do
#[derive(Args, Debug)]
pub(crate) struct PrincipalsCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: PrincipalsAction,
}

#[derive(Subcommand, Debug)]
enum PrincipalsAction {
    /// Makes a principal, without a key
    #[command(
        after_help = "Example:\n  drawdown principals create --name 'billing of Northwind' --role billing-reader --account acct_01j2gv5gymfsfrn6rc3mq3yjjv"
    )]
    Create {
        /// What people call it
        #[arg(long)]
        name: String,
        /// What it may do; several times for several
        #[arg(long = "role", value_name = "ROLE", required = true)]
        roles: Vec<Role>,
        /// The one account whose things it may touch [default: everybody's]
        #[arg(long, value_name = "ACCOUNT_ID", default_value = "")]
        account: String,
        /// The one team of that account [default: all of it]
        #[arg(long, value_name = "TEAM_ID", default_value = "")]
        team: String,
        /// The person that it acts for, and for nobody else
        #[arg(long, value_name = "USER_ID", default_value = "")]
        user: String,
        #[command(flatten)]
        change: Change,
    },
    /// Lists principals, those that ended too
    #[command(after_help = "Example:\n  drawdown principals list")]
    List {
        /// Of this account
        #[arg(long, value_name = "ACCOUNT_ID", default_value = "")]
        account: String,
        #[command(flatten)]
        pages: Pages,
    },
    /// Ends a principal: none of its keys is good from then on
    #[command(
        after_help = "Example:\n  drawdown principals end prin_01j2gv5gymfsfrn6rc3mq3yjjv --note 'contract ended'"
    )]
    End {
        /// The principal
        principal_id: String,
        /// Why
        #[arg(long)]
        note: String,
        #[command(flatten)]
        change: Change,
    },
}

/// API keys of principals
#[derive(Args, Debug)]
pub(crate) struct KeysCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: KeysAction,
}

#[derive(Subcommand, Debug)]
enum KeysAction {
    /// Makes a key; its text is shown this once
    #[command(after_help = "Example:\n  drawdown keys create prin_01j2gv5gymfsfrn6rc3mq3yjjv")]
    Create {
        /// Whose key
        principal_id: String,
        /// When it expires [default: never]
        #[arg(long, value_name = "INSTANT")]
        expires_at: Option<Timestamp>,
        #[command(flatten)]
        change: Change,
    },
    /// Lists keys of a principal, those that are revoked too
    #[command(after_help = "Example:\n  drawdown keys list prin_01j2gv5gymfsfrn6rc3mq3yjjv")]
    List {
        /// Whose keys
        principal_id: String,
        #[command(flatten)]
        pages: Pages,
    },
    /// Makes a key that takes the place of another one, both being good until the old one is revoked
    #[command(
        after_help = "Example:\n  drawdown keys rotate key_01j2gv5gymfsfrn6rc3mq3yjjv --old-until 2027-01-08T00:00:00Z"
    )]
    Rotate {
        /// The old key
        key_id: String,
        /// When the old one is revoked [default: not before `keys revoke`]
        #[arg(long, value_name = "INSTANT")]
        old_until: Option<Timestamp>,
        /// When the new one expires [default: never]
        #[arg(long, value_name = "INSTANT")]
        expires_at: Option<Timestamp>,
        #[command(flatten)]
        change: Change,
    },
    /// Revokes a key: every service refuses it within seconds, and ends its streams
    #[command(after_help = "Example:\n  drawdown keys revoke key_01j2gv5gymfsfrn6rc3mq3yjjv")]
    Revoke {
        /// The key
        key_id: String,
        /// When [default: now]
        #[arg(long, value_name = "INSTANT")]
        at: Option<Timestamp>,
        #[command(flatten)]
        change: Change,
    },
}

/// What a principal may do.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// Sends usage, asks for access, holds tokens
    Gateway,
    /// Reads balances, charges, statements and who pays
    BillingReader,
    /// Acts for one team
    TeamAdmin,
    /// Acts for one account
    ContractManager,
    /// Runs the platform
    Operator,
}

const PRINCIPAL: [Column; 7] = [
    text("principal", "principal_id"),
    text("name", "name"),
    name("roles", "roles", "PRINCIPAL_ROLE_"),
    text("account", "account_id"),
    text("team", "team_id"),
    text("user", "user_id"),
    text("ended", "ended_at"),
];
const KEY: [Column; 4] = [
    text("key", "key_id"),
    text("principal", "principal_id"),
    text("made", "created_at"),
    text("ends", "ends_at"),
];
/// A new key, with its text.
const NEW: [Column; 4] = [
    text("key", "key.key_id"),
    text("principal", "key.principal_id"),
    text("ends", "key.ends_at"),
    text("text", "text"),
];

impl From<Role> for pb::PrincipalRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Gateway => Self::Gateway,
            Role::BillingReader => Self::BillingReader,
            Role::TeamAdmin => Self::TeamAdmin,
            Role::ContractManager => Self::ContractManager,
            Role::Operator => Self::Operator,
        }
    }
}

impl PrincipalsCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let mut client = principals(&session.entitlement);
        match self.action {
            PrincipalsAction::Create { name, roles, account, team, user, change } => {
                let request = CreatePrincipalRequest {
                    name,
                    roles: roles.into_iter().map(|role| pb::PrincipalRole::from(role).into()).collect(),
                    account_id: account,
                    team_id: team,
                    user_id: user,
                    request_id: change.id(),
                };
                let answer = client.create_principal(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.CreatePrincipalResponse", &answer)?;
                session.output.record(&answer, "principal", &PRINCIPAL)
            }
            PrincipalsAction::List { account, pages } => list_principals(&session, account, pages).await,
            PrincipalsAction::End { principal_id, note, change } => {
                let request = EndPrincipalRequest { principal_id, note, request_id: change.id() };
                let answer = client.end_principal(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.EndPrincipalResponse", &answer)?;
                session.output.record(&answer, "", &[text("ended", "ended_at")])
            }
        }
    }
}

async fn list_principals(session: &Session, account_id: String, pages: Pages) -> Result<()> {
    let client = principals(&session.entitlement);
    let name = "drawdown.entitlement.v1.ListPrincipalsResponse";
    let answer = pages
        .collect(name, "principals", |page_size, page_token| {
            let request = ListPrincipalsRequest { account_id: account_id.clone(), page_size, page_token };
            let mut client = client.clone();
            async move { client.list_principals(request).await }
        })
        .await?;
    session.output.table(&answer, "principals", &PRINCIPAL)
}

impl KeysCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let mut client = principals(&session.entitlement);
        match self.action {
            KeysAction::Create { principal_id, expires_at, change } => {
                let request =
                    CreateKeyRequest { principal_id, expires_at: wire(expires_at), request_id: change.id() };
                let answer = client.create_key(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.CreateKeyResponse", &answer)?;
                session.output.record(&answer, "", &NEW)
            }
            KeysAction::List { principal_id, pages } => list_keys(&session, principal_id, pages).await,
            KeysAction::Rotate { key_id, old_until, expires_at, change } => {
                let request = RotateKeyRequest {
                    key_id,
                    old_until: wire(old_until),
                    expires_at: wire(expires_at),
                    request_id: change.id(),
                };
                let answer = client.rotate_key(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.RotateKeyResponse", &answer)?;
                session.output.record(&answer, "", &NEW)
            }
            KeysAction::Revoke { key_id, at, change } => {
                let request = RevokeKeyRequest { key_id, at: wire(at), request_id: change.id() };
                let answer = client.revoke_key(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.RevokeKeyResponse", &answer)?;
                session.output.record(&answer, "key", &KEY)
            }
        }
    }
}

async fn list_keys(session: &Session, principal_id: String, pages: Pages) -> Result<()> {
    let client = principals(&session.entitlement);
    let name = "drawdown.entitlement.v1.ListKeysResponse";
    let answer = pages
        .collect(name, "keys", |page_size, page_token| {
            let request = ListKeysRequest { principal_id: principal_id.clone(), page_size, page_token };
            let mut client = client.clone();
            async move { client.list_keys(request).await }
        })
        .await?;
    session.output.table(&answer, "keys", &KEY)
}
