//! Handing an app to another owner: invite, accept, choose a team, confirm.

use anyhow::Result;
use clap::{Args, Subcommand};
use drawdown_client::entitlement::transfers;
use drawdown_proto::entitlement::v1::{
    AcceptTransferRequest, ChooseTransferTeamRequest, ConfirmTransferRequest, DeclineTransferRequest,
    GetTransferRequest, InviteTransferRequest, ListTransfersRequest, RemoveEditorRequest,
    WithdrawTransferRequest,
};

use super::{Change, Connection, Pages, Session};
use crate::output::{Column, json_of, name, text};

/// Hands an app to another owner: invite, accept, choose-team, confirm
#[derive(Args, Debug)]
pub(crate) struct TransferCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: TransferAction,
}

/// What every step needs.
#[derive(Args, Debug)]
struct OnTransfer {
    /// The transfer
    transfer_id: String,
    #[command(flatten)]
    by: By,
}

/// Who acts.
#[derive(Args, Debug)]
struct By {
    /// The person who acts [default: the platform's operator]
    #[arg(long, value_name = "USER_ID", default_value = "")]
    by: String,
    #[command(flatten)]
    change: Change,
}

#[derive(Subcommand, Debug)]
enum TransferAction {
    /// Invites a person to take over an app
    #[command(
        after_help = "Example:\n  drawdown transfer invite app_01j2gv5gymfsfrn6rc3mq3yjjv --to user_01j2gv5gymfsfrn6rc3mq3yjjv"
    )]
    Invite {
        /// The app
        app_id: String,
        /// The person invited
        #[arg(long, value_name = "USER_ID")]
        to: String,
        #[command(flatten)]
        by: By,
    },
    /// The person invited accepts
    #[command(after_help = "Example:\n  drawdown transfer accept xfer_01j2gv5gymfsfrn6rc3mq3yjjv")]
    Accept(OnTransfer),
    /// The person invited chooses the team that the app goes to
    #[command(
        after_help = "Example:\n  drawdown transfer choose-team xfer_01j2gv5gymfsfrn6rc3mq3yjjv --team team_01j2gv5gymfsfrn6rc3mq3yjjv"
    )]
    ChooseTeam {
        #[command(flatten)]
        on: OnTransfer,
        /// The team
        #[arg(long, value_name = "TEAM_ID")]
        team: String,
    },
    /// The person invited confirms: the app changes team and owner at the next edge of a window
    #[command(after_help = "Example:\n  drawdown transfer confirm xfer_01j2gv5gymfsfrn6rc3mq3yjjv")]
    Confirm(OnTransfer),
    /// The giving side takes the invitation back
    #[command(after_help = "Example:\n  drawdown transfer withdraw xfer_01j2gv5gymfsfrn6rc3mq3yjjv")]
    Withdraw(OnTransfer),
    /// The person invited does not want the app
    #[command(after_help = "Example:\n  drawdown transfer decline xfer_01j2gv5gymfsfrn6rc3mq3yjjv")]
    Decline(OnTransfer),
    /// Shows a transfer
    #[command(after_help = "Example:\n  drawdown transfer get xfer_01j2gv5gymfsfrn6rc3mq3yjjv")]
    Get {
        /// The transfer
        transfer_id: String,
    },
    /// Lists transfers of an app, of the account that gives, or of the person invited
    #[command(after_help = "Example:\n  drawdown transfer list --app app_01j2gv5gymfsfrn6rc3mq3yjjv")]
    List {
        /// Of this app
        #[arg(long, value_name = "APP_ID", default_value = "")]
        app: String,
        /// That this account gives
        #[arg(long, value_name = "ACCOUNT_ID", default_value = "")]
        account: String,
        /// To which this person is invited
        #[arg(long, value_name = "USER_ID", default_value = "")]
        user: String,
        #[command(flatten)]
        pages: Pages,
    },
    /// Takes the right of an editor to change an app; who hands an app over becomes one
    #[command(
        after_help = "Example:\n  drawdown transfer remove-editor app_01j2gv5gymfsfrn6rc3mq3yjjv user_01j2gv5gymfsfrn6rc3mq3yjjv"
    )]
    RemoveEditor {
        /// The app
        app_id: String,
        /// The editor
        user_id: String,
        #[command(flatten)]
        by: By,
    },
}

const TRANSFER: [Column; 9] = [
    text("transfer", "transfer_id"),
    text("app", "app_id"),
    text("from account", "from_account_id"),
    text("to user", "to_user_id"),
    text("to team", "to_team_id"),
    name("stage", "stage", "TRANSFER_STAGE_"),
    text("invited", "invited_at"),
    text("expires", "expires_at"),
    text("effective from", "effective_from"),
];

/// A call for one step, its answer as a record.
macro_rules! step {
    ($session:expr, $on:expr, $call:ident, $request:ident, $answer:expr) => {{
        let OnTransfer { transfer_id, by: By { by, change } } = $on;
        let request = $request { transfer_id, by_user_id: by, request_id: change.id() };
        let answer = transfers(&$session.entitlement).$call(request).await?.into_inner();
        $session.output.record(&json_of($answer, &answer)?, "transfer", &TRANSFER)
    }};
}

impl TransferCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        match self.action {
            TransferAction::Invite { app_id, to, by: By { by, change } } => {
                let request =
                    InviteTransferRequest { app_id, to_user_id: to, by_user_id: by, request_id: change.id() };
                let answer = transfers(&session.entitlement).invite_transfer(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.InviteTransferResponse", &answer)?;
                session.output.record(&answer, "transfer", &TRANSFER)
            }
            TransferAction::Accept(on) => {
                let name = "drawdown.entitlement.v1.AcceptTransferResponse";
                step!(session, on, accept_transfer, AcceptTransferRequest, name)
            }
            TransferAction::ChooseTeam { on: OnTransfer { transfer_id, by: By { by, change } }, team } => {
                let request = ChooseTransferTeamRequest {
                    transfer_id,
                    team_id: team,
                    by_user_id: by,
                    request_id: change.id(),
                };
                let answer =
                    transfers(&session.entitlement).choose_transfer_team(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.ChooseTransferTeamResponse", &answer)?;
                session.output.record(&answer, "transfer", &TRANSFER)
            }
            TransferAction::Confirm(on) => {
                let name = "drawdown.entitlement.v1.ConfirmTransferResponse";
                step!(session, on, confirm_transfer, ConfirmTransferRequest, name)
            }
            TransferAction::Withdraw(on) => {
                let name = "drawdown.entitlement.v1.WithdrawTransferResponse";
                step!(session, on, withdraw_transfer, WithdrawTransferRequest, name)
            }
            TransferAction::Decline(on) => {
                let name = "drawdown.entitlement.v1.DeclineTransferResponse";
                step!(session, on, decline_transfer, DeclineTransferRequest, name)
            }
            TransferAction::Get { transfer_id } => {
                let request = GetTransferRequest { transfer_id };
                let answer = transfers(&session.entitlement).get_transfer(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.GetTransferResponse", &answer)?;
                session.output.record(&answer, "transfer", &TRANSFER)
            }
            TransferAction::List { app, account, user, pages } => {
                list(&session, (app, account, user), pages).await
            }
            TransferAction::RemoveEditor { app_id, user_id, by: By { by, change } } => {
                let request =
                    RemoveEditorRequest { app_id, user_id, by_user_id: by, request_id: change.id() };
                let answer = transfers(&session.entitlement).remove_editor(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.RemoveEditorResponse", &answer)?;
                session.output.record(&answer, "", &[text("at", "at")])
            }
        }
    }
}

async fn list(
    session: &Session,
    (app_id, account_id, user_id): (String, String, String),
    pages: Pages,
) -> Result<()> {
    let client = transfers(&session.entitlement);
    let answer = pages
        .collect("drawdown.entitlement.v1.ListTransfersResponse", "transfers", |page_size, page_token| {
            let request = ListTransfersRequest {
                app_id: app_id.clone(),
                account_id: account_id.clone(),
                user_id: user_id.clone(),
                page_size,
                page_token,
            };
            let mut client = client.clone();
            async move { client.list_transfers(request).await }
        })
        .await?;
    session.output.table(&answer, "transfers", &TRANSFER)
}
