//! Statements and forecasts.

use anyhow::Result;
use clap::{Args, Subcommand};
use drawdown_client::ledger::reports;
use drawdown_proto::ledger::v1::{
    GetForecastRequest, GetStatementRequest, IssueStatementsRequest, ListStatementsRequest,
};
use drawdown_types::{MicroTokens, Timestamp};
use serde_json::Value;

use super::{Change, Connection, Pages, Session, reports::complete, wire};
use crate::output::{Column, json_of, name, number, text, tokens};

/// Statements of periods: issues them, makes them again, lists them
#[derive(Args, Debug)]
pub(crate) struct StatementCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: StatementAction,
}

#[derive(Subcommand, Debug)]
enum StatementAction {
    /// Issues the statement of a period that is over, for a team or for each team of an account
    #[command(
        after_help = "Example:\n  drawdown statement issue --account acct_01j2gv5gymfsfrn6rc3mq3yjjv --from 2026-03-01T00:00:00Z --to 2026-04-01T00:00:00Z"
    )]
    Issue {
        /// The account
        #[arg(long, value_name = "ACCOUNT_ID")]
        account: String,
        /// One team of it [default: each of them]
        #[arg(long, value_name = "TEAM_ID", default_value = "")]
        team: String,
        /// First instant of the period
        #[arg(long, value_name = "INSTANT")]
        from: Timestamp,
        /// First instant after the period
        #[arg(long, value_name = "INSTANT")]
        to: Timestamp,
        #[command(flatten)]
        change: Change,
    },
    /// Makes an issued statement again, byte for byte
    #[command(
        after_help = "Example:\n  drawdown statement get stmt_01j2gv5gymfsfrn6rc3mq3yjjv --account acct_01j2gv5gymfsfrn6rc3mq3yjjv"
    )]
    Get {
        /// The statement
        statement_id: String,
        /// The account
        #[arg(long, value_name = "ACCOUNT_ID")]
        account: String,
    },
    /// Lists issued statements by team and period
    #[command(after_help = "Example:\n  drawdown statement list --account acct_01j2gv5gymfsfrn6rc3mq3yjjv")]
    List {
        /// The account
        #[arg(long, value_name = "ACCOUNT_ID")]
        account: String,
        /// One team of it [default: all of them]
        #[arg(long, value_name = "TEAM_ID", default_value = "")]
        team: String,
        #[command(flatten)]
        pages: Pages,
    },
}

/// Shows when the tokens of a team run out and which of them will expire unused
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  drawdown forecast team_01j2gv5gymfsfrn6rc3mq3yjjv --account acct_01j2gv5gymfsfrn6rc3mq3yjjv"
)]
pub(crate) struct ForecastCommand {
    /// The team
    team_id: String,
    /// The account
    #[arg(long, value_name = "ACCOUNT_ID")]
    account: String,
    /// A rate to suppose [default: that of the last 28 whole days]
    #[arg(long, value_name = "TOKENS")]
    tokens_per_day: Option<MicroTokens>,
    #[command(flatten)]
    connection: Connection,
}

const HEAD: [Column; 5] = [
    text("statement", "statement_id"),
    text("team", "team_id"),
    text("from", "from"),
    text("to", "to"),
    text("issued", "issued_at"),
];
const STATEMENT: [Column; 27] = [
    text("statement", "statement_id"),
    text("account", "account_id"),
    text("team", "team_id"),
    text("from", "from"),
    text("to", "to"),
    text("issued", "issued_at"),
    number("rows after", "opening_seq"),
    number("rows up to", "closing_seq"),
    text("first window", "first_window_start"),
    text("last window ends", "last_window_end"),
    tokens("opening balance", "opening.balance_micros"),
    tokens("  available", "opening.available_micros"),
    tokens("  scheduled", "opening.scheduled_micros"),
    tokens("  closing", "opening.closing_micros"),
    tokens("  held", "opening.held_micros"),
    tokens("  uncharged", "opening.uncharged_micros"),
    tokens("  used", "opening.used_micros"),
    tokens("  expired", "opening.expired_micros"),
    tokens("closing balance", "closing.balance_micros"),
    tokens("  available", "closing.available_micros"),
    tokens("  scheduled", "closing.scheduled_micros"),
    tokens("  closing", "closing.closing_micros"),
    tokens("  held", "closing.held_micros"),
    tokens("  uncharged", "closing.uncharged_micros"),
    tokens("  used", "closing.used_micros"),
    tokens("  expired", "closing.expired_micros"),
    tokens("  void", "closing.void_micros"),
];
const MOVEMENT: [Column; 6] = [
    text("movement", "kind"),
    text("from book", "debit_book"),
    text("to book", "credit_book"),
    text("earlier", "earlier"),
    number("rows", "rows"),
    tokens("tokens", "amount_micros"),
];
const LOT: [Column; 9] = [
    text("lot", "lot_id"),
    name("pool", "pool_kind", "POOL_KIND_"),
    text("expires", "expires_at"),
    name("opening", "opening_state", "LOT_STATE_"),
    tokens("remaining", "opening.remaining_micros"),
    name("closing", "closing_state", "LOT_STATE_"),
    tokens("remaining", "closing.remaining_micros"),
    tokens("used", "closing.used_micros"),
    tokens("expired", "closing.expired_micros"),
];
const FORECAST: [Column; 9] = [
    text("team", "team_id"),
    text("at", "at"),
    name("method", "method", "FORECAST_METHOD_"),
    tokens("rate", "rate_micros"),
    number("in days", "rate_days"),
    text("days from", "rate_from"),
    text("days to", "rate_to"),
    text("runs out", "runs_out_at"),
    tokens("will expire unused", "unused_micros"),
];
const LOT_FORECAST: [Column; 7] = [
    text("lot", "lot_id"),
    text("expires", "expires_at"),
    number("days left", "days_left"),
    tokens("remaining", "remaining_micros"),
    tokens("will be used", "used_micros"),
    tokens("will expire", "unused_micros"),
    text("empty", "empty_at"),
];

impl StatementCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let mut client = reports(&session.ledger);
        match self.action {
            StatementAction::Issue { account, team, from, to, change } => {
                let request = IssueStatementsRequest {
                    account_id: account,
                    team_id: team,
                    from: wire(Some(from)),
                    to: wire(Some(to)),
                    request_id: change.id(),
                };
                let answer = client.issue_statements(request).await?.into_inner();
                let answer = json_of("drawdown.ledger.v1.IssueStatementsResponse", &answer)?;
                if session.json {
                    return session.output.record(&answer, "", &[]);
                }
                let issued = answer.get("statements").and_then(Value::as_array);
                issued.into_iter().flatten().try_for_each(|issued| show(&session, issued))
            }
            StatementAction::Get { statement_id, account } => {
                let request = GetStatementRequest { account_id: account, statement_id };
                let answer = client.get_statement(request).await?.into_inner();
                let answer = json_of("drawdown.ledger.v1.GetStatementResponse", &answer)?;
                if session.json {
                    return session.output.record(&answer, "", &[]);
                }
                answer.get("statement").map_or(Ok(()), |issued| show(&session, issued))
            }
            StatementAction::List { account, team, pages } => {
                let answer = pages
                    .collect(
                        "drawdown.ledger.v1.ListStatementsResponse",
                        "statements",
                        |page_size, page_token| {
                            let request = ListStatementsRequest {
                                account_id: account.clone(),
                                team_id: team.clone(),
                                page_size,
                                page_token,
                            };
                            let mut client = client.clone();
                            async move { client.list_statements(request).await }
                        },
                    )
                    .await?;
                session.output.table(&answer, "statements", &HEAD)
            }
        }
    }
}

/// A statement for people: its balances, then what moved, then its lots.
fn show(session: &Session, issued: &Value) -> Result<()> {
    let output = session.output;
    output.record(issued, "statement", &STATEMENT)?;
    output.line("")?;
    output.table(issued, "statement.movements", &MOVEMENT)?;
    output.line("")?;
    output.table(issued, "statement.lots", &LOT)?;
    output.line("")
}

impl ForecastCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let request = GetForecastRequest {
            account_id: self.account,
            team_id: self.team_id,
            micros_per_day: self.tokens_per_day.map(MicroTokens::as_micros),
        };
        let answer = reports(&session.ledger).get_forecast(request).await?.into_inner();
        let answer = json_of("drawdown.ledger.v1.GetForecastResponse", &answer)?;
        session.output.record(&answer, "forecast", &FORECAST)?;
        if session.json {
            return Ok(());
        }
        session.output.line("")?;
        session.output.table(&answer, "forecast.lots", &LOT_FORECAST)?;
        complete(&session, &answer)
    }
}
