//! Facts that others react to: listed, or followed as they come.

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use drawdown_client::ledger::{notice, notice_stream};
use drawdown_proto::ledger::v1::{self as pb, ListNoticesRequest, NoticeFilter, WatchNoticesRequest};
use drawdown_types::MicroTokens;
use serde_json::{Value, json};

use super::{Connection, Pages, Session};
use crate::output::{Column, complain, json_of, name, number, text};

/// Lists and follows facts about teams: levels, expiries, debts, budgets
#[derive(Args, Debug)]
pub(crate) struct NoticeCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: NoticeAction,
}

#[derive(Subcommand, Debug)]
enum NoticeAction {
    /// Lists notices in the order in which they were told
    #[command(
        after_help = "Example:\n  drawdown notice list --team team_01j2gv5gymfsfrn6rc3mq3yjjv --kind below-zero"
    )]
    List {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        pages: Pages,
    },
    /// Follows notices as they come, one a line; with --json each beside a cursor from which it goes on without a gap
    #[command(
        after_help = "Example:\n  drawdown notice watch --new-only\n  drawdown notice watch --json --limit 10 --account acct_01j2gv5gymfsfrn6rc3mq3yjjv"
    )]
    Watch {
        #[command(flatten)]
        filter: Filter,
        /// Goes on behind what was followed before [default: all that are kept]
        #[arg(long, value_name = "CURSOR", default_value = "")]
        cursor: String,
        /// Only notices that are not there yet
        #[arg(long, conflicts_with = "cursor")]
        new_only: bool,
        /// Ends after this many [default: never]
        #[arg(long, value_name = "NOTICES")]
        limit: Option<u64>,
    },
}

#[derive(Args, Debug)]
struct Filter {
    /// Of this account
    #[arg(long, value_name = "ACCOUNT_ID", default_value = "")]
    account: String,
    /// Of this team
    #[arg(long, value_name = "TEAM_ID", default_value = "")]
    team: String,
    /// Of this kind; may be given several times
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<Kind>,
}

/// What a notice is about.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// A lot came to the team
    LotAdded,
    /// What is left fell to a level
    LevelReached,
    /// A lot expires in so many days
    LotExpiring,
    /// A lot left the balance
    LotExpired,
    /// A lot closed and forfeited the rest
    LotClosed,
    /// The balance fell below zero
    BelowZero,
    /// The balance is at or above zero again
    BackAtZero,
    /// A lot paid a part of the debt
    DebtNetted,
    /// A month's usage reached a level of a budget
    BudgetReached,
}

const NOTICE: [Column; 5] = [
    number("place", "position"),
    text("occurred", "occurred_at"),
    name("kind", "kind", "NOTICE_KIND_"),
    text("team", "team_id"),
    text("what", "what"),
];

impl From<Kind> for pb::NoticeKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::LotAdded => Self::LotAdded,
            Kind::LevelReached => Self::LevelReached,
            Kind::LotExpiring => Self::LotExpiring,
            Kind::LotExpired => Self::LotExpired,
            Kind::LotClosed => Self::LotClosed,
            Kind::BelowZero => Self::BelowZero,
            Kind::BackAtZero => Self::BackAtZero,
            Kind::DebtNetted => Self::DebtNetted,
            Kind::BudgetReached => Self::BudgetReached,
        }
    }
}

impl Filter {
    fn wire(self) -> NoticeFilter {
        let kinds = self.kinds.into_iter().map(|kind| pb::NoticeKind::from(kind).into()).collect();
        NoticeFilter { account_id: self.account, team_id: self.team, kinds }
    }
}

impl NoticeCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        match self.action {
            NoticeAction::List { filter, pages } => list(&session, filter.wire(), pages).await,
            NoticeAction::Watch { filter, cursor, new_only, limit } => {
                let request = WatchNoticesRequest { filter: Some(filter.wire()), cursor, new_only };
                watch(&session, request, limit.unwrap_or(u64::MAX)).await
            }
        }
    }
}

async fn list(session: &Session, filter: NoticeFilter, pages: Pages) -> Result<()> {
    let client = notice(&session.ledger);
    let mut answer = pages
        .collect("drawdown.ledger.v1.ListNoticesResponse", "notices", |page_size, page_token| {
            let request = ListNoticesRequest { filter: Some(filter.clone()), page_size, page_token };
            let mut client = client.clone();
            async move { client.list_notices(request).await }
        })
        .await?;
    if !session.json
        && let Some(rows) = answer.get_mut("notices").and_then(Value::as_array_mut)
    {
        rows.iter_mut().for_each(describe);
    }
    session.output.table(&answer, "notices", &NOTICE)
}

async fn watch(session: &Session, request: WatchNoticesRequest, limit: u64) -> Result<()> {
    let mut left = limit;
    let mut cursor = request.cursor.clone();
    let mut stream = notice_stream(&session.ledger).watch_notices(request).await?.into_inner();
    while left > 0 {
        let message = match stream.message().await {
            Ok(Some(message)) => message,
            Ok(None) => {
                complain(&format!("the service ended the stream; go on with --cursor {cursor}\n"));
                return Ok(());
            }
            Err(status) => {
                complain(&format!("the stream broke; go on with --cursor {cursor}\n"));
                return Err(status.into());
            }
        };
        let mut json = json_of("drawdown.ledger.v1.WatchNoticesResponse", &message)?;
        let rows = json.get_mut("notices").and_then(Value::as_array_mut).map(std::mem::take);
        let rows = rows.unwrap_or_default();
        let last = rows.len().saturating_sub(1);
        if rows.is_empty() {
            cursor.clone_from(&message.cursor);
        }
        for (place, mut row) in rows.into_iter().enumerate() {
            if left == 0 {
                return Ok(());
            }
            left = left.saturating_sub(1);
            if place == last {
                cursor.clone_from(&message.cursor);
            }
            if session.json {
                // Inside a message the way on is still the one behind the message before.
                session.output.row(&json!({ "notice": row, "cursor": cursor }), &[])?;
            } else {
                describe(&mut row);
                session.output.row(&row, &NOTICE)?;
            }
        }
    }
    Ok(())
}

/// The fact of a notice in words, as a value of its own for the table.
fn describe(row: &mut Value) {
    let fact = row.as_object().and_then(|row| row.values().find_map(Value::as_object));
    let words = fact.map(|fact| fact.iter().filter_map(word).collect::<Vec<_>>().join(", "));
    if let Some(row) = row.as_object_mut() {
        row.insert("what".to_owned(), words.unwrap_or_default().into());
    }
}

fn word((key, value): (&String, &Value)) -> Option<String> {
    let value = match (key.strip_suffix("_micros"), value) {
        (_, Value::Null | Value::Bool(false)) => return None,
        (_, Value::Bool(true)) => return Some(key.replace('_', " ")),
        (_, Value::String(text)) if text.is_empty() => return None,
        (_, Value::String(text)) => text.clone(),
        (Some(_), value) => MicroTokens::from_micros(value.as_i64()?).to_string(),
        (None, value) => value.to_string(),
    };
    Some(format!("{} {value}", key.trim_end_matches("_micros").replace('_', " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_is_told_in_words() {
        let fact = pb::notice::Fact::LevelReached(pb::LevelReachedFact {
            percent: 20,
            available_micros: 15_500_000,
            granted_micros: 100_000_000,
        });
        let notice = pb::Notice {
            kind: pb::NoticeKind::LevelReached.into(),
            fact: Some(fact),
            ..pb::Notice::default()
        };
        let mut row = json_of("drawdown.ledger.v1.Notice", &notice).unwrap();
        describe(&mut row);
        assert_eq!(row["what"], "available 15.5, granted 100, percent 20");
    }
}
