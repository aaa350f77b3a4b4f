//! The history of who pays: why, what is to come, corrections, the audit log; and hubs.

use anyhow::Result;
use clap::{Args, Subcommand};
use drawdown_client::entitlement::{histories, hubs};
use drawdown_proto::entitlement::v1::{
    CancelScheduledChangeRequest, CorrectAssignmentRequest, CreateHubRequest, ExplainResolutionRequest,
    ListAuditRequest, ListHubsRequest, ListScheduledChangesRequest, MoveAppRequest,
};
use drawdown_types::Timestamp;

use super::{Change, Connection, Pages, wire};
use crate::output::{Column, json_of, name, text};

/// The history of who pays
#[derive(Args, Debug)]
pub(crate) struct HistoryCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: HistoryAction,
}

#[derive(Subcommand, Debug)]
enum HistoryAction {
    /// Tells why somebody pays for a client id: every link with its dates and who made it
    #[command(after_help = "Example:\n  drawdown history explain client_7f3a --at 2026-01-31T12:00:00Z")]
    Explain {
        /// The client id
        client_id: String,
        /// The instant [default: now]
        #[arg(long, value_name = "INSTANT")]
        at: Option<Timestamp>,
    },
    /// Lists changes of an account and its apps that take effect later
    #[command(after_help = "Example:\n  drawdown history scheduled acct_01j2gv5gymfsfrn6rc3mq3yjjv")]
    Scheduled {
        /// The account
        account_id: String,
        #[command(flatten)]
        pages: Pages,
    },
    /// Takes a scheduled change back before it takes effect
    #[command(after_help = "Example:\n  drawdown history cancel assignment_17 --note 'the wrong team'")]
    Cancel {
        /// The change, as `history scheduled` names it
        change_id: String,
        /// Why, for the audit log
        #[arg(long)]
        note: String,
        #[command(flatten)]
        change: Change,
    },
    /// Corrects which team an app had in a past, where none of its usage since then is settled
    #[command(
        after_help = "Example:\n  drawdown history correct app_01j2gv5gymfsfrn6rc3mq3yjjv --team team_01j2gv5gymfsfrn6rc3mq3yjjv --from 2026-01-01T00:00:00Z --note 'the wrong team was picked'"
    )]
    Correct {
        /// The app
        app_id: String,
        /// The team that it has had in truth
        #[arg(long, value_name = "TEAM_ID")]
        team: String,
        /// From when on
        #[arg(long, value_name = "INSTANT")]
        from: Timestamp,
        /// Until when [default: the next change]
        #[arg(long, value_name = "INSTANT")]
        to: Option<Timestamp>,
        /// Why, for the audit log
        #[arg(long)]
        note: String,
        #[command(flatten)]
        change: Change,
    },
    /// Lists what was done to an account and what belongs to it, or to one thing
    #[command(after_help = "Example:\n  drawdown history audit --account acct_01j2gv5gymfsfrn6rc3mq3yjjv")]
    Audit {
        /// To this account and what belongs to it
        #[arg(long, value_name = "ACCOUNT_ID", default_value = "")]
        account: String,
        /// To the thing with this id
        #[arg(long, value_name = "ID", default_value = "")]
        subject: String,
        #[command(flatten)]
        pages: Pages,
    },
}

/// Hubs, where apps have to be while hub mode is on
#[derive(Args, Debug)]
pub(crate) struct HubCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: HubAction,
}

#[derive(Subcommand, Debug)]
enum HubAction {
    /// Makes a hub of an account
    #[command(
        after_help = "Example:\n  drawdown hub create --account acct_01j2gv5gymfsfrn6rc3mq3yjjv --name Maps"
    )]
    Create {
        /// The account
        #[arg(long, value_name = "ACCOUNT_ID")]
        account: String,
        /// What people call it
        #[arg(long)]
        name: String,
        #[command(flatten)]
        change: Change,
    },
    /// Lists hubs of an account
    #[command(after_help = "Example:\n  drawdown hub list acct_01j2gv5gymfsfrn6rc3mq3yjjv")]
    List {
        /// The account
        account_id: String,
        #[command(flatten)]
        pages: Pages,
    },
    /// Moves an app into a hub of its account, or out of its hub
    #[command(
        after_help = "Example:\n  drawdown hub move app_01j2gv5gymfsfrn6rc3mq3yjjv --to hub_01j2gv5gymfsfrn6rc3mq3yjjv"
    )]
    Move {
        /// The app
        app_id: String,
        /// The hub [default: out of its hub]
        #[arg(long, value_name = "HUB_ID", default_value = "")]
        to: String,
        #[command(flatten)]
        change: Change,
    },
}

const LINK: [Column; 8] = [
    name("link", "kind", "LINK_KIND_"),
    text("of", "subject"),
    text("to", "object"),
    text("from", "from"),
    text("until", "to"),
    text("made", "made_at"),
    text("by", "made_by"),
    text("through", "made_through"),
];
const CHANGE: [Column; 7] = [
    text("change", "change_id"),
    name("kind", "kind", "CHANGE_KIND_"),
    text("of", "subject"),
    text("to", "object"),
    text("from", "from"),
    text("made", "made_at"),
    text("by", "made_by"),
];
const RECORD: [Column; 7] = [
    text("at", "at"),
    text("by", "actor"),
    text("what", "method"),
    text("of", "subject"),
    text("why", "reason"),
    text("before", "before_json"),
    text("after", "after_json"),
];
const HUB: [Column; 4] = [
    text("hub", "hub_id"),
    text("account", "account_id"),
    text("name", "name"),
    text("created", "created_at"),
];

impl HistoryCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let mut client = histories(&session.entitlement);
        match self.action {
            HistoryAction::Explain { client_id, at } => {
                let request = ExplainResolutionRequest { client_id, at: wire(at) };
                let answer = client.explain_resolution(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.ExplainResolutionResponse", &answer)?;
                session.output.table(&answer, "links", &LINK)
            }
            HistoryAction::Scheduled { account_id, pages } => {
                let name = "drawdown.entitlement.v1.ListScheduledChangesResponse";
                let answer = pages
                    .collect(name, "changes", |page_size, page_token| {
                        let request = ListScheduledChangesRequest {
                            account_id: account_id.clone(),
                            page_size,
                            page_token,
                        };
                        let mut client = client.clone();
                        async move { client.list_scheduled_changes(request).await }
                    })
                    .await?;
                session.output.table(&answer, "changes", &CHANGE)
            }
            HistoryAction::Cancel { change_id, note, change } => {
                let request = CancelScheduledChangeRequest { change_id, note, request_id: change.id() };
                let answer = client.cancel_scheduled_change(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.CancelScheduledChangeResponse", &answer)?;
                session.output.record(&answer, "change", &CHANGE)
            }
            HistoryAction::Correct { app_id, team, from, to, note, change } => {
                let request = CorrectAssignmentRequest {
                    app_id,
                    team_id: team,
                    from: wire(Some(from)),
                    to: wire(to),
                    note,
                    request_id: change.id(),
                };
                let answer = client.correct_assignment(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.CorrectAssignmentResponse", &answer)?;
                let columns = [text("team", "team_id"), text("from", "from"), text("to", "to")];
                session.output.table(&answer, "assignments", &columns)
            }
            HistoryAction::Audit { account, subject, pages } => {
                let answer = pages
                    .collect(
                        "drawdown.entitlement.v1.ListAuditResponse",
                        "records",
                        |page_size, page_token| {
                            let (account_id, subject) = (account.clone(), subject.clone());
                            let request = ListAuditRequest { account_id, subject, page_size, page_token };
                            let mut client = client.clone();
                            async move { client.list_audit(request).await }
                        },
                    )
                    .await?;
                session.output.table(&answer, "records", &RECORD)
            }
        }
    }
}

impl HubCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let mut client = hubs(&session.entitlement);
        match self.action {
            HubAction::Create { account, name, change } => {
                let request = CreateHubRequest { account_id: account, name, request_id: change.id() };
                let answer = client.create_hub(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.CreateHubResponse", &answer)?;
                session.output.record(&answer, "hub", &HUB)
            }
            HubAction::List { account_id, pages } => {
                let answer = pages
                    .collect("drawdown.entitlement.v1.ListHubsResponse", "hubs", |page_size, page_token| {
                        let request =
                            ListHubsRequest { account_id: account_id.clone(), page_size, page_token };
                        let mut client = client.clone();
                        async move { client.list_hubs(request).await }
                    })
                    .await?;
                session.output.table(&answer, "hubs", &HUB)
            }
            HubAction::Move { app_id, to, change } => {
                let request = MoveAppRequest { app_id, hub_id: to, request_id: change.id() };
                let answer = client.move_app(request).await?.into_inner();
                let answer = json_of("drawdown.entitlement.v1.MoveAppResponse", &answer)?;
                let columns = [text("hub", "hub_id"), text("from", "from"), text("archived", "archived")];
                session.output.record(&answer, "", &columns)
            }
        }
    }
}
