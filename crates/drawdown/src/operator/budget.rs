//! Budgets of accounts, teams and apps.

use anyhow::Result;
use clap::{Args, Subcommand};
use drawdown_client::ledger::budget;
use drawdown_proto::ledger::v1::{GetBudgetRequest, ListBudgetsRequest, SetBudgetRequest};
use drawdown_types::MicroTokens;

use super::{Change, Connection, Pages};
use crate::output::{Column, json_of, name, number, text, tokens};

/// Sets and shows what an account, a team, or one of its apps, may use in a month
#[derive(Args, Debug)]
pub(crate) struct BudgetCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: BudgetAction,
}

#[derive(Subcommand, Debug)]
enum BudgetAction {
    /// Sets the budget of an account, a team or an app, from the present month on
    #[command(
        after_help = "Example:\n  drawdown budget set --cap 500 --soft 50 --soft 80 --hard --account acct_01j2gv5gymfsfrn6rc3mq3yjjv --team team_01j2gv5gymfsfrn6rc3mq3yjjv"
    )]
    Set {
        /// The account
        #[arg(long, value_name = "ACCOUNT_ID")]
        account: String,
        /// The team of that account [default: the whole account]
        #[arg(long, value_name = "TEAM_ID", default_value = "")]
        team: String,
        /// The app in that team [default: the whole team]
        #[arg(long, value_name = "APP_ID", default_value = "")]
        app: String,
        /// The cap in tokens, exact to a millionth [default: none, usage is counted only]
        #[arg(long, value_name = "TOKENS")]
        cap: Option<MicroTokens>,
        /// A level to be told of, in percent of the cap; may be given several times, ascending
        #[arg(long = "soft", value_name = "PERCENT")]
        soft: Vec<u32>,
        /// Usage is to be refused once the cap is reached
        #[arg(long)]
        hard: bool,
        #[command(flatten)]
        change: Change,
    },
    /// Shows a budget in a month
    #[command(
        after_help = "Example:\n  drawdown budget get budget_01j2gv5gymfsfrn6rc3mq3yjjv --month 2026-03"
    )]
    Get {
        /// The budget
        budget_id: String,
        /// The month in UTC [default: the present one]
        #[arg(long, value_name = "YYYY-MM", default_value = "")]
        month: String,
    },
    /// Lists the budgets of an account in a month
    #[command(
        after_help = "Example:\n  drawdown budget list --account acct_01j2gv5gymfsfrn6rc3mq3yjjv --month 2026-03"
    )]
    List {
        /// The account
        #[arg(long, value_name = "ACCOUNT_ID")]
        account: String,
        /// One team of it [default: all]
        #[arg(long, value_name = "TEAM_ID", default_value = "")]
        team: String,
        /// The month in UTC [default: the present one]
        #[arg(long, value_name = "YYYY-MM", default_value = "")]
        month: String,
        #[command(flatten)]
        pages: Pages,
    },
}

const BUDGET: [Column; 9] = [
    text("budget", "budget_id"),
    text("team", "team_id"),
    text("app", "app_id"),
    text("month", "month"),
    tokens("used", "used_micros"),
    tokens("cap", "cap_micros"),
    tokens("remaining", "remaining_micros"),
    name("state", "state", "BUDGET_STATE_"),
    number("reached %", "reached_percent"),
];

impl BudgetCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let mut client = budget(&session.ledger);
        match self.action {
            BudgetAction::Set { account, team, app, cap, soft, hard, change } => {
                let request = SetBudgetRequest {
                    account_id: account,
                    team_id: team,
                    app_id: app,
                    cap_micros: cap.map(MicroTokens::as_micros),
                    soft_percent: soft,
                    hard,
                    request_id: change.id(),
                };
                let answer = client.set_budget(request).await?.into_inner();
                let answer = json_of("drawdown.ledger.v1.SetBudgetResponse", &answer)?;
                session.output.record(&answer, "budget", &BUDGET)
            }
            BudgetAction::Get { budget_id, month } => {
                let answer = client.get_budget(GetBudgetRequest { budget_id, month }).await?.into_inner();
                let answer = json_of("drawdown.ledger.v1.GetBudgetResponse", &answer)?;
                session.output.record(&answer, "budget", &BUDGET)
            }
            BudgetAction::List { account, team, month, pages } => {
                let answer = pages
                    .collect("drawdown.ledger.v1.ListBudgetsResponse", "budgets", |page_size, page_token| {
                        let request = ListBudgetsRequest {
                            account_id: account.clone(),
                            team_id: team.clone(),
                            month: month.clone(),
                            page_size,
                            page_token,
                        };
                        let mut client = client.clone();
                        async move { client.list_budgets(request).await }
                    })
                    .await?;
                session.output.table(&answer, "budgets", &BUDGET)
            }
        }
    }
}
