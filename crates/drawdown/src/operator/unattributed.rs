//! Usage that no team could be charged for, and decisions about it.

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use drawdown_client::ledger::{review, token};
use drawdown_proto::ledger::v1::{
    ChargeUnattributedRequest, DismissUnattributedRequest, ListUnattributedRequest, ReviewState,
    UnattributedFilter,
};
use drawdown_types::Timestamp;

use super::{Change, Connection, Pages, Session, wire};
use crate::output::{Column, json_of, name, number, text, tokens};

/// Lists usage that no team could be charged for, and decides about it
#[derive(Args, Debug)]
pub(crate) struct UnattributedCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: UnattributedAction,
}

#[derive(Subcommand, Debug)]
enum UnattributedAction {
    /// Lists usage that no team could be charged for, with what was decided about it
    #[command(
        after_help = "Example:\n  drawdown unattributed list\n  drawdown unattributed list --state open --why late --window-from 2026-03-01T00:00:00Z"
    )]
    List {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        pages: Pages,
    },
    /// Charges entries of the list to a team, at the prices and lots of their windows, whatever their age
    #[command(
        after_help = "Example:\n  drawdown unattributed charge 17 18 --account acct_01j2gv5gymfsfrn6rc3mq3yjjv --team team_01j2gv5gymfsfrn6rc3mq3yjjv --app app_01j2gv5gymfsfrn6rc3mq3yjjv --reason 'the gateway was cut off' --by ann --dry-run"
    )]
    Charge {
        #[command(flatten)]
        decision: Decision,
        /// The account that is billed
        #[arg(long, value_name = "ACCOUNT_ID")]
        account: String,
        /// The team
        #[arg(long, value_name = "TEAM_ID")]
        team: String,
        /// The app whose usage it is
        #[arg(long, value_name = "APP_ID")]
        app: String,
    },
    /// Decides that entries of the list are charged to nobody
    #[command(after_help = "Example:\n  drawdown unattributed dismiss 17 --reason 'a test of ours' --by ann")]
    Dismiss {
        #[command(flatten)]
        decision: Decision,
    },
}

#[derive(Args, Debug)]
struct Filter {
    /// Only usage that was kept for this reason
    #[arg(long)]
    why: Vec<Why>,
    /// Only these client ids
    #[arg(long, value_name = "CLIENT_ID")]
    client_id: Vec<String>,
    /// Only these meters
    #[arg(long)]
    meter: Vec<String>,
    /// Only windows that start at or after this instant
    #[arg(long, value_name = "INSTANT")]
    window_from: Option<Timestamp>,
    /// Only windows that start before this instant
    #[arg(long, value_name = "INSTANT")]
    window_to: Option<Timestamp>,
    /// Only usage received in windows that start at or after this instant
    #[arg(long, value_name = "INSTANT")]
    received_from: Option<Timestamp>,
    /// Only usage received in windows that start before this instant
    #[arg(long, value_name = "INSTANT")]
    received_to: Option<Timestamp>,
    /// Only entries without a decision, or with one
    #[arg(long)]
    state: Option<State>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Why {
    NoTeam,
    UnknownClient,
    Late,
    Poison,
    Overflow,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    Open,
    Decided,
}

#[derive(Args, Debug)]
struct Decision {
    /// Entries of the list
    #[arg(required = true)]
    entries: Vec<i64>,
    /// Why
    #[arg(long)]
    reason: String,
    /// Who decides
    #[arg(long, value_name = "NAME")]
    by: String,
    /// Only shows what would be
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    change: Change,
}

const USAGE: [Column; 10] = [
    number("entry", "entry"),
    text("window", "window_start"),
    text("received", "received_window_start"),
    text("client id", "client_id"),
    text("meter", "meter"),
    text("reason", "reason"),
    number("events", "events"),
    number("quantity", "quantity"),
    name("decision", "decision.kind", "DECISION_KIND_"),
    text("team", "decision.team_id"),
];
const CHARGED: [Column; 6] = [
    number("entry", "entry"),
    text("window", "window_start"),
    tokens("tokens", "amount_micros"),
    tokens("uncharged", "uncharged_micros"),
    text("costs nothing", "zero_rated"),
    text("charge", "charge_id"),
];
const LEFT: [Column; 2] = [number("left", "entry"), text("why", "reason")];

impl Filter {
    fn wire(&self) -> UnattributedFilter {
        let why = self.why.iter().filter_map(ValueEnum::to_possible_value);
        UnattributedFilter {
            reasons: why.map(|value| value.get_name().to_owned()).collect(),
            client_ids: self.client_id.clone(),
            meters: self.meter.clone(),
            window_from: wire(self.window_from),
            window_to: wire(self.window_to),
            received_from: wire(self.received_from),
            received_to: wire(self.received_to),
            state: match self.state {
                None => ReviewState::Unspecified,
                Some(State::Open) => ReviewState::Open,
                Some(State::Decided) => ReviewState::Decided,
            }
            .into(),
        }
    }
}

impl UnattributedCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        match self.action {
            UnattributedAction::List { filter, pages } => list(&session, &filter, pages).await,
            UnattributedAction::Charge { decision, account, team, app } => {
                let request = ChargeUnattributedRequest {
                    entries: decision.entries,
                    account_id: account,
                    team_id: team,
                    app_id: app,
                    reason: decision.reason,
                    decided_by: decision.by,
                    validate_only: decision.dry_run,
                    request_id: decision.change.id(),
                };
                let answer = review(&session.ledger).charge_unattributed(request).await?.into_inner();
                let any_left = !answer.left.is_empty();
                let answer = json_of("drawdown.ledger.v1.ChargeUnattributedResponse", &answer)?;
                session.output.table(&answer, "charged", &CHARGED)?;
                // With --json the first table was the whole answer.
                if any_left && !session.json { session.output.table(&answer, "left", &LEFT) } else { Ok(()) }
            }
            UnattributedAction::Dismiss { decision } => {
                let request = DismissUnattributedRequest {
                    entries: decision.entries,
                    reason: decision.reason,
                    decided_by: decision.by,
                    validate_only: decision.dry_run,
                    request_id: decision.change.id(),
                };
                let answer = review(&session.ledger).dismiss_unattributed(request).await?.into_inner();
                let answer = json_of("drawdown.ledger.v1.DismissUnattributedResponse", &answer)?;
                session.output.record(&answer, "", &[number("dismissed", "dismissed")])
            }
        }
    }
}

async fn list(session: &Session, filter: &Filter, pages: Pages) -> Result<()> {
    let client = token(&session.ledger);
    let filter = filter.wire();
    let page = |page_size, page_token| {
        let request = ListUnattributedRequest { page_size, page_token, filter: Some(filter.clone()) };
        let mut client = client.clone();
        async move { client.list_unattributed(request).await }
    };
    let answer = pages.collect("drawdown.ledger.v1.ListUnattributedResponse", "usage", page).await?;
    session.output.table(&answer, "usage", &USAGE)
}
