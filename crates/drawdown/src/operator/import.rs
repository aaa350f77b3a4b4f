//! Lots and debts of another platform as a file of JSON lines, one line a team: what belongs to a team is one
//! transaction, so it is one line, with the sums that it must end with.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use drawdown_client::ledger::import;
use drawdown_proto::{
    ledger::v1::{
        Holdings, ImportTeamsRequest, ImportTeamsResponse, ImportedLot, PoolKind, PriorDebt, TeamImport,
    },
    scalar::timestamp_to_proto,
};
use drawdown_types::{AmountError, MicroTokens, Timestamp};
use serde::Deserialize;

use super::{
    Session,
    lines::{Lines, Requests},
};
use crate::output::{Column, json_of, number, text, tokens};

pub(super) const EXAMPLE: &str = "Example:
  drawdown lot import old.jsonl --reason 'moved from the old platform' --dry-run

  # old.jsonl: one line a team, here broken for reading; tokens are texts, exact to a millionth
  { \"account\": \"acct_01j2gv5gymfsfrn6rc3mq3yjjv\", \"team\": \"team_01j2gv5gymfsfrn6rc3mq3yjjv\",
    \"lots\": [{ \"pool\": \"flex\", \"size\": \"120\", \"left\": \"40\", \"purchased_at\": \"2025-09-01T08:00:10Z\",
               \"starts_at\": \"2025-09-01T08:00:10Z\", \"expires_at\": \"2026-09-01T08:00:10Z\",
               \"order\": \"ord_01j2gv5gymfsfrn6rc3mq3yjjv\", \"note\": \"invoice 4711\" }],
    \"debts\": [{ \"tokens\": \"50\", \"used_at\": \"2026-02-20T10:00:00Z\" }],
    \"negative_since\": \"2026-02-20T10:05:00Z\",
    \"expected\": { \"available\": \"0\", \"uncharged\": \"10\", \"balance\": \"-10\", \"scheduled\": \"0\", \"closing\": \"0\" } }

Without starts_at a lot starts when it was bought; order, note and negative_since may be left out, as may scheduled and
closing where they are 0. Debts come oldest first. What is available pays what is owed, so expected never has both.
A team is refused, and nothing of its request written, where it would not hold what is expected. Requests are of up to
100 lines; the same file sent again goes on where it ended.";

const TEAM: [Column; 8] = [
    text("team", "team_id"),
    number("lots", "lots_count"),
    number("rows", "rows_count"),
    tokens("available", "balance.available_micros"),
    tokens("uncharged", "balance.uncharged_micros"),
    tokens("balance", "balance.balance_micros"),
    tokens("scheduled", "balance.scheduled_micros"),
    tokens("closing", "balance.closing_micros"),
];

/// What to import, and whether to.
#[derive(Args, Debug)]
pub(super) struct ImportLots {
    /// A file of JSON lines, one a team
    file: PathBuf,
    /// Why, for the audit log
    #[arg(long)]
    reason: String,
    /// Tells what would be written and writes nothing
    #[arg(long)]
    dry_run: bool,
    /// Makes a retry harmless: the same id and content give the same answer [default: made of the file]
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

impl ImportLots {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        let lines = Lines::read(&self.file)?;
        let teams = lines.parse::<TeamLine>()?;
        let mut client = import(&session.ledger);
        let answers =
            lines.send(("teams", Requests::Bounded), self.request_id, teams, async |teams, request_id| {
                let reason = self.reason.clone();
                let request = ImportTeamsRequest { teams, reason, validate_only: self.dry_run, request_id };
                client.import_teams(request).await
            });
        let teams = answers.await?.into_iter().flat_map(|answer: ImportTeamsResponse| answer.teams).collect();
        let all = ImportTeamsResponse { teams, written: !self.dry_run };
        session.output.table(&summary(&all)?, "teams", &TEAM)?;
        session.output.beside(&format!("{}\n", verdict(&all)))
    }
}

/// The answer, with the balance of each team beside the number of its lots and rows.
fn summary(answer: &ImportTeamsResponse) -> Result<serde_json::Value> {
    let mut json = json_of("drawdown.ledger.v1.ImportTeamsResponse", answer)?;
    let teams = json.get_mut("teams").and_then(serde_json::Value::as_array_mut);
    for team in teams.into_iter().flatten().filter_map(serde_json::Value::as_object_mut) {
        for list in ["lots", "rows"] {
            let count = team.get(list).and_then(serde_json::Value::as_array).map_or(0, Vec::len);
            team.insert(format!("{list}_count"), count.into());
        }
    }
    Ok(json)
}

fn verdict(answer: &ImportTeamsResponse) -> String {
    let teams = answer.teams.len();
    let sum = |part: fn(&drawdown_proto::ledger::v1::Balance) -> i64| {
        let balances = answer.teams.iter().filter_map(|team| team.balance.as_ref());
        MicroTokens::from_micros(balances.fold(0_i64, |sum, balance| sum.saturating_add(part(balance))))
    };
    let (available, uncharged) =
        (sum(|balance| balance.available_micros), sum(|balance| balance.uncharged_micros));
    let tied = format!(
        "every team holds what is expected: {teams} teams, {available} tokens available, {uncharged} uncharged"
    );
    if answer.written { tied } else { format!("{tied}; nothing was written") }
}

// === the file ===

/// Tokens as a text: a number would be read by way of a float.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(try_from = "String")]
struct Tokens(MicroTokens);

impl TryFrom<String> for Tokens {
    type Error = AmountError;

    fn try_from(text: String) -> Result<Self, AmountError> {
        text.parse().map(Self)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TeamLine {
    account: String,
    team: String,
    #[serde(default)]
    lots: Vec<LotLine>,
    #[serde(default)]
    debts: Vec<DebtLine>,
    negative_since: Option<Timestamp>,
    expected: ExpectedLine,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LotLine {
    pool: Pool,
    size: Tokens,
    left: Tokens,
    purchased_at: Timestamp,
    starts_at: Option<Timestamp>,
    expires_at: Timestamp,
    #[serde(default)]
    order: String,
    #[serde(default)]
    note: String,
    #[serde(default)]
    leaves_older_debts: bool,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Pool {
    Free,
    Enterprise,
    Credit,
    Promotional,
    Flex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DebtLine {
    tokens: Tokens,
    used_at: Timestamp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedLine {
    available: Tokens,
    uncharged: Tokens,
    balance: Tokens,
    #[serde(default)]
    scheduled: Tokens,
    #[serde(default)]
    closing: Tokens,
}

impl From<TeamLine> for TeamImport {
    fn from(line: TeamLine) -> Self {
        let TeamLine { account, team, lots, debts, negative_since, expected } = line;
        let debt = |debt: DebtLine| PriorDebt {
            amount_micros: debt.tokens.0.as_micros(),
            used_at: Some(timestamp_to_proto(debt.used_at)),
        };
        Self {
            account_id: account,
            team_id: team,
            lots: lots.into_iter().map(ImportedLot::from).collect(),
            debts: debts.into_iter().map(debt).collect(),
            negative_since: negative_since.map(timestamp_to_proto),
            expected: Some(Holdings {
                available_micros: expected.available.0.as_micros(),
                uncharged_micros: expected.uncharged.0.as_micros(),
                balance_micros: expected.balance.0.as_micros(),
                scheduled_micros: expected.scheduled.0.as_micros(),
                closing_micros: expected.closing.0.as_micros(),
            }),
        }
    }
}

impl From<LotLine> for ImportedLot {
    fn from(line: LotLine) -> Self {
        let pool = match line.pool {
            Pool::Free => PoolKind::Free,
            Pool::Enterprise => PoolKind::Enterprise,
            Pool::Credit => PoolKind::Credit,
            Pool::Promotional => PoolKind::Promotional,
            Pool::Flex => PoolKind::Flex,
        };
        Self {
            pool_kind: pool.into(),
            original_micros: line.size.0.as_micros(),
            left_micros: line.left.0.as_micros(),
            purchased_at: Some(timestamp_to_proto(line.purchased_at)),
            starts_at: line.starts_at.map(timestamp_to_proto),
            expires_at: Some(timestamp_to_proto(line.expires_at)),
            order_id: line.order,
            note: line.note,
            leaves_older_debts: line.leaves_older_debts,
        }
    }
}

#[cfg(test)]
mod tests {
    use drawdown_proto::ledger::v1::{Balance, ImportedTeam, JournalRow, Lot};

    use super::*;

    /// The line of the help, as one.
    fn example() -> String {
        let lines = EXAMPLE.lines().skip_while(|line| !line.trim_start().starts_with('{'));
        lines.take_while(|line| !line.is_empty()).map(str::trim).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_example_of_the_help_is_a_line() {
        let team = TeamImport::from(serde_json::from_str::<TeamLine>(&example()).unwrap());
        assert_eq!((team.lots[0].original_micros, team.lots[0].left_micros), (120_000_000, 40_000_000));
        assert_eq!(team.debts[0].amount_micros, 50_000_000);
        assert_eq!(team.expected.as_ref().map(|expected| expected.balance_micros), Some(-10_000_000));
        assert_eq!(team.negative_since.as_ref().map(|since| since.seconds), Some(1_771_581_900));
    }

    #[test]
    fn lines_of_another_form_are_refused() {
        for wrong in [
            example().replace("\"40\"", "40.5"),
            example().replace("\"flex\"", "\"gold\""),
            example().replace("\"note\"", "\"remark\""),
        ] {
            assert!(serde_json::from_str::<TeamLine>(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_was_written_is_told_with_its_sums() {
        let balance =
            Balance { available_micros: 7_500_000, balance_micros: 7_500_000, ..Balance::default() };
        let team = ImportedTeam {
            team_id: "team_00000000000000000000000001".to_owned(),
            lots: vec![Lot::default()],
            rows: vec![JournalRow::default(); 2],
            balance: Some(balance),
        };
        let mut answer = ImportTeamsResponse { teams: vec![team.clone(), team], written: true };
        assert_eq!(
            verdict(&answer),
            "every team holds what is expected: 2 teams, 15 tokens available, 0 uncharged"
        );
        answer.written = false;
        assert!(verdict(&answer).ends_with("; nothing was written"));
        let json = summary(&answer).unwrap();
        assert_eq!(
            (&json["teams"][0]["lots_count"], &json["teams"][1]["rows_count"]),
            (&1.into(), &2.into())
        );
        assert_eq!(json["teams"][0]["balance"]["available_micros"], 7_500_000);
    }
}
