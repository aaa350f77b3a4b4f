//! Whether a client id may use a meter now: asked for, or followed as it changes.

use anyhow::Result;
use clap::{Args, Subcommand};
use drawdown_client::entitlement;
use drawdown_proto::entitlement::v1::{AccessQuestion, CheckAccessRequest, WatchAccessRequest};
use serde_json::Value;

use super::{Connection, Session};
use crate::output::{Column, complain, json_of, name, text, tokens};

/// Access: may a client id use a meter now
#[derive(Args, Debug)]
pub(crate) struct AccessCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: AccessAction,
}

#[derive(Subcommand, Debug)]
enum AccessAction {
    /// Says whether a use is allowed, why, and what would have to be done
    #[command(after_help = "Example:\n  drawdown access check client_b1 tile --quantity 20")]
    Check(Asked),
    /// Follows the answer: once as it is, then whenever it changes
    #[command(after_help = "Example:\n  drawdown access watch client_b1 tile --limit 3")]
    Watch {
        #[command(flatten)]
        asked: Asked,
        /// Ends after this many answers [default: never]
        #[arg(long, value_name = "ANSWERS")]
        limit: Option<u64>,
    },
}

#[derive(Args, Debug)]
struct Asked {
    /// The client id
    client_id: String,
    /// The meter
    meter: String,
    /// How much is to be used, in base units of the meter
    #[arg(long, default_value_t = 1)]
    quantity: u64,
}

const ANSWER: [Column; 10] = [
    text("allowed", "allowed"),
    name("level", "level", "ACCESS_LEVEL_"),
    name("reason", "reason", "ACCESS_REASON_"),
    tokens("balance", "balance_micros"),
    text("grace ends", "grace_deadline"),
    text("changes at", "changes_at"),
    text("stale", "stale"),
    text("app", "billed_to.app_id"),
    text("team", "billed_to.team_id"),
    text("account", "billed_to.account_id"),
];
const REMEDY: [Column; 3] = [
    name("in the way", "reason", "ACCESS_REASON_"),
    tokens("tokens missing", "tokens_micros"),
    text("until", "at"),
];
const BUDGET: [Column; 4] = [
    name("budget", "scope", "BUDGET_SCOPE_"),
    tokens("cap", "cap_micros"),
    tokens("used", "used_micros"),
    text("hard", "hard"),
];

impl Asked {
    fn question(self) -> AccessQuestion {
        AccessQuestion { client_id: self.client_id, meter: self.meter, quantity: self.quantity }
    }
}

impl AccessCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        match self.action {
            AccessAction::Check(asked) => check(&session, asked).await,
            AccessAction::Watch { asked, limit } => watch(&session, asked, limit.unwrap_or(u64::MAX)).await,
        }
    }
}

async fn check(session: &Session, asked: Asked) -> Result<()> {
    let request = CheckAccessRequest { question: Some(asked.question()), with_billed_to: true };
    let answer = entitlement::access(&session.entitlement).check_access(request).await?.into_inner();
    let answer = json_of("drawdown.entitlement.v1.CheckAccessResponse", &answer)?;
    session.output.record(&answer, "answer", &ANSWER)?;
    if session.json {
        return Ok(());
    }
    for (list, columns) in [("answer.remedies", &REMEDY[..]), ("answer.budgets", &BUDGET)] {
        let has_rows = |rows: &Value| rows.as_array().is_some_and(|rows| !rows.is_empty());
        let pointer = format!("/{}", list.replace('.', "/"));
        if answer.pointer(&pointer).is_some_and(has_rows) {
            session.output.table(&answer, list, columns)?;
        }
    }
    Ok(())
}

async fn watch(session: &Session, asked: Asked, limit: u64) -> Result<()> {
    let request =
        WatchAccessRequest { questions: vec![asked.question()], with_billed_to: true, with_amounts: true };
    let mut stream =
        entitlement::access_streams(&session.entitlement).watch_access(request).await?.into_inner();
    let mut left = limit;
    while left > 0 {
        let Some(message) = stream.message().await? else {
            complain("the service ended the stream; another one begins with everything\n");
            return Ok(());
        };
        let json = json_of("drawdown.entitlement.v1.WatchAccessResponse", &message)?;
        for row in json.get("answers").and_then(Value::as_array).into_iter().flatten() {
            session.output.row(row.get("answer").unwrap_or(row), &ANSWER)?;
            left = left.saturating_sub(1);
        }
    }
    Ok(())
}
