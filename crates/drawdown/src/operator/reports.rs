//! Reports: usage added up.

use std::str::FromStr;

use anyhow::Result;
use clap::{Args, ValueEnum};
use drawdown_client::ledger::reports;
use drawdown_proto::ledger::v1::{self as pb, SummarizeUsageRequest};
use drawdown_types::{TimeError, Timestamp};
use serde_json::Value;

use super::{Session, wire};
use crate::output::{Column, json_of, name, number, text, tokens};

/// A UTC day on a command line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Day(Timestamp);

impl FromStr for Day {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let start = format!("{text}T00:00:00Z").parse();
        start.map(Self).map_err(|_| TimeError::Malformed(text.chars().take(64).collect()))
    }
}

/// Which charges.
#[derive(Args, Clone, Debug)]
pub(crate) struct Filter {
    /// Only these apps
    #[arg(long, value_name = "APP_ID")]
    app: Vec<String>,
    /// Only these client ids, one for each credential
    #[arg(long, value_name = "CLIENT_ID")]
    client_id: Vec<String>,
    /// Only these meters
    #[arg(long)]
    meter: Vec<String>,
    /// Only usage with this value of a dimension
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    dimension: Vec<(String, String)>,
    /// First UTC day of the usage
    #[arg(long, value_name = "DAY")]
    from: Option<Day>,
    /// The UTC day after the last one
    #[arg(long, value_name = "DAY")]
    to: Option<Day>,
    /// Only jobs that ended so
    #[arg(long)]
    outcome: Option<Outcome>,
    /// Only what was recorded by this instant
    #[arg(long, value_name = "INSTANT")]
    recorded_until: Option<Timestamp>,
}

pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// How metered jobs ended.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Outcome {
    /// They succeeded
    Succeeded,
    /// They failed
    Failed,
}

impl Filter {
    pub(crate) fn wire(&self) -> pb::ChargeFilter {
        let outcome = match self.outcome {
            None => pb::ChargeOutcome::Unspecified,
            Some(Outcome::Succeeded) => pb::ChargeOutcome::Succeeded,
            Some(Outcome::Failed) => pb::ChargeOutcome::Failed,
        };
        pb::ChargeFilter {
            app_ids: self.app.clone(),
            client_ids: self.client_id.clone(),
            meters: self.meter.clone(),
            dimensions: self.dimension.iter().cloned().collect(),
            from: wire(self.from.map(|day| day.0)),
            to: wire(self.to.map(|day| day.0)),
            outcome: outcome.into(),
            recorded_until: wire(self.recorded_until),
        }
    }
}

/// Usage added up.
#[derive(Args, Debug)]
pub(crate) struct ReportArguments {
    /// The account
    #[arg(long, value_name = "ACCOUNT_ID")]
    account: String,
    /// One team of it [default: all of them together]
    #[arg(long, value_name = "TEAM_ID", default_value = "")]
    team: String,
    #[command(flatten)]
    filter: Filter,
    /// Keys of the groups; none for the totals alone
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    by: Vec<Key>,
    /// Dimensions that are keys too
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    by_dimension: Vec<String>,
}

/// What sums are grouped by.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Key {
    /// The team
    Team,
    /// The app
    App,
    /// The client id
    ClientId,
    /// The meter
    Meter,
    /// The UTC day
    Day,
    /// The UTC hour
    Hour,
    /// How the jobs ended
    Outcome,
}

impl Key {
    const fn wire(self) -> pb::UsageKey {
        match self {
            Self::Team => pb::UsageKey::Team,
            Self::App => pb::UsageKey::App,
            Self::ClientId => pb::UsageKey::ClientId,
            Self::Meter => pb::UsageKey::Meter,
            Self::Day => pb::UsageKey::Day,
            Self::Hour => pb::UsageKey::Hour,
            Self::Outcome => pb::UsageKey::Outcome,
        }
    }

    const fn column(self) -> Column {
        match self {
            Self::Team => text("team", "team_id"),
            Self::App => text("app", "app_id"),
            Self::ClientId => text("client id", "client_id"),
            Self::Meter => text("meter", "meter"),
            Self::Day => text("day", "day"),
            Self::Hour => text("hour", "hour"),
            Self::Outcome => name("outcome", "outcome", "CHARGE_OUTCOME_"),
        }
    }
}

const SUMS: [Column; 5] = [
    number("events", "sums.events"),
    number("quantity", "sums.quantity"),
    tokens("tokens", "sums.amount_micros"),
    tokens("charged", "sums.charged_micros"),
    tokens("uncharged", "sums.open_micros"),
];
const TOTALS: [Column; 6] = [
    number("charges", "charges"),
    number("events", "events"),
    number("quantity", "quantity"),
    tokens("tokens", "amount_micros"),
    tokens("charged", "charged_micros"),
    tokens("uncharged", "open_micros"),
];

impl ReportArguments {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let request = SummarizeUsageRequest {
            account_id: self.account,
            team_id: self.team,
            filter: Some(self.filter.wire()),
            group_by: self.by.iter().map(|key| key.wire().into()).collect(),
            group_by_dimensions: self.by_dimension.clone(),
        };
        let answer = reports(&session.ledger).summarize_usage(request).await?.into_inner();
        let mut answer = json_of("drawdown.ledger.v1.SummarizeUsageResponse", &answer)?;
        let output = session.output;
        if self.by.is_empty() && self.by_dimension.is_empty() {
            output.record(&answer, "totals", &TOTALS)?;
        } else {
            let mut columns: Vec<Column> = self.by.iter().map(|key| key.column()).collect();
            if !self.by_dimension.is_empty() {
                columns.push(text("dimensions", "dimension_text"));
            }
            columns.extend(SUMS);
            if !session.json {
                spell_dimensions(&mut answer);
            }
            output.table(&answer, "groups", &columns)?;
        }
        complete(session, &answer)
    }
}

/// A table shows the dimensions of a group in one column.
fn spell_dimensions(answer: &mut Value) {
    let groups = answer.get_mut("groups").and_then(Value::as_array_mut);
    for group in groups.into_iter().flatten() {
        let word = |pair: &Value, key: &str| pair.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        let pairs = group.get("dimensions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let words: Vec<String> =
            pairs.iter().map(|pair| format!("{}={}", word(pair, "name"), word(pair, "value"))).collect();
        if let Some(group) = group.as_object_mut() {
            group.insert("dimension_text".to_owned(), words.join(" ").into());
        }
    }
}

/// Says how far the data reaches (D31), where the answer does.
pub(crate) fn complete(session: &Session, answer: &Value) -> Result<()> {
    if answer.get("completeness").is_none_or(Value::is_null) {
        return Ok(());
    }
    let instant = |path: &str| {
        answer
            .pointer(&format!("/completeness/{path}"))
            .and_then(Value::as_str)
            .unwrap_or("(none)")
            .to_owned()
    };
    session.output.line(&format!(
        "complete up to {}, newest window ends {}, final up to {}",
        instant("complete_up_to"),
        instant("newest_window_end"),
        instant("final_up_to")
    ))?;
    match stands_on(answer) {
        Some(batches) => session.output.line(&format!("settled batches by shard: {batches}")),
        None => Ok(()),
    }
}

/// The last batch of each shard, as `shard:batch`; nothing where the answer names none.
fn stands_on(answer: &Value) -> Option<String> {
    let settled = answer.pointer("/completeness/settled")?.as_array()?;
    // A 64-bit number is a text in JSON.
    let number = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let shard = |shard: &Value| {
        let of = |key: &str| shard.get(key).map_or_else(|| "0".to_owned(), number);
        format!("{}:{}", of("shard"), of("batch"))
    };
    let batches: Vec<String> = settled.iter().map(shard).collect();
    (!batches.is_empty()).then(|| batches.join(" "))
}
