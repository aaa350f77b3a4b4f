//! Checks and repairs of the ledger.

use anyhow::Result;
use clap::{Args, Subcommand};
use drawdown_client::ledger::{audit, explain, review, settlement, token};
use drawdown_proto::{
    ledger::v1::{
        ExplainChargeRequest, ListAuditRequest, ListLostRangesRequest, ResetAllShardsRequest,
        VerifyLedgerRequest, VerifyLedgerResponse,
    },
    scalar::timestamp_to_proto,
};
use drawdown_types::Timestamp;

use super::{Connection, Pages, Session, correction::Correction, explain::story, postings::Postings};
use crate::{
    failure::Found,
    output::{json_of, number, text},
};

/// Runs the ledger service, or checks and repairs the ledger
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  drawdown ledger --config drawdown.toml\n  drawdown ledger verify")]
pub(crate) struct LedgerCommand {
    #[command(flatten)]
    pub(crate) serve: crate::serve::ServeArguments,
    #[command(subcommand)]
    pub(crate) action: Option<LedgerAction>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum LedgerAction {
    /// Runs every invariant of the ledger; ends with exit code 1 where one is violated
    #[command(
        after_help = "Example:\n  drawdown ledger verify --json\n  drawdown ledger verify --incremental"
    )]
    Verify {
        /// Checks only what came since the last clean run; a change of what was verified before stays unseen
        #[arg(long)]
        incremental: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Takes a charge or a part of it back, and charges other usage instead
    #[command(
        after_help = "Example:\n  drawdown ledger correct chg_01j2gv5gymfsfrn6rc3mq3yjjv --account acct_01j2gv5gymfsfrn6rc3mq3yjjv --team team_01j2gv5gymfsfrn6rc3mq3yjjv --quantity 40 --reason 'the gateway counted twice'\n  drawdown ledger correct chg_01j2gv5gymfsfrn6rc3mq3yjjv --account acct_01j2gv5gymfsfrn6rc3mq3yjjv --team team_01j2gv5gymfsfrn6rc3mq3yjjv --instead 40 --to-team team_01j2gv5gymfsfrn6rc3mq3yjjw --reason 'the app had moved' --dry-run"
    )]
    Correct(Box<Correction>),
    /// Tells in words why a charge costs what it costs and which lots paid it
    #[command(
        after_help = "Example:\n  drawdown ledger explain chg_01j2gv5gymfsfrn6rc3mq3yjjv --team team_01j2gv5gymfsfrn6rc3mq3yjjv"
    )]
    Explain {
        /// The charge
        #[arg(value_name = "CHARGE")]
        charge_id: String,
        /// The team that bears it
        #[arg(long, value_name = "TEAM")]
        team: String,
        #[command(flatten)]
        connection: Connection,
    },
    Partitions(crate::serve::PartitionsCommand),
    /// Lists everything that was posted to an account, each charge and each other row once, and tells where to go on
    #[command(
        after_help = "Example:\n  drawdown ledger postings --account acct_01j2gv5gymfsfrn6rc3mq3yjjv\n  drawdown ledger postings --account acct_01j2gv5gymfsfrn6rc3mq3yjjv --new-only --json\n  drawdown ledger postings --account acct_01j2gv5gymfsfrn6rc3mq3yjjv --cursor 6c2f --limit 10000 --json\n\nA cursor never grows old: whoever goes on behind the cursor of each answer gets every posting once."
    )]
    Postings(Box<Postings>),
    /// Lists what people and services did to the ledger, with what was there before and after, oldest first
    #[command(
        after_help = "Example:\n  drawdown ledger audit --from 2026-11-01T00:00:00Z\n  drawdown ledger audit --subject lot_01j2gv5gymfsfrn6rc3mq3yjjv --json"
    )]
    Audit {
        /// Only what was done to this, as the lines name it: a lot, a team, a meter [default: everything]
        #[arg(long, value_name = "ID", default_value = "")]
        subject: String,
        /// Only what was done at or after this instant
        #[arg(long, value_name = "TIME")]
        from: Option<Timestamp>,
        /// Only what was done before this instant
        #[arg(long, value_name = "TIME")]
        to: Option<Timestamp>,
        #[command(flatten)]
        pages: Pages,
        #[command(flatten)]
        connection: Connection,
    },
    /// Gives every shard a new generation: after a restore of Postgres, before anything connects
    #[command(
        after_help = "Example:\n  drawdown ledger reset-shards --cause 'restored the backup of Monday'"
    )]
    ResetShards {
        /// Why, for the log
        #[arg(long)]
        cause: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Lists the events, by range of their lane, that a restored Postgres lacks and their producers had freed
    #[command(
        after_help = "Example:\n  drawdown ledger lost-ranges\n  drawdown ledger lost-ranges --producer prod_01j2gv5gymfsfrn6rc3mq3yjjv --json"
    )]
    LostRanges {
        /// Only those of this producer
        #[arg(long, value_name = "PRODUCER", default_value = "")]
        producer: String,
        #[command(flatten)]
        pages: Pages,
        #[command(flatten)]
        connection: Connection,
    },
}

impl LedgerAction {
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Self::Verify { incremental, connection } => verify(&connection.open()?, incremental).await,
            Self::Correct(correction) => correction.run().await,
            Self::Explain { charge_id, team, connection } => {
                let session = connection.open()?;
                let request = ExplainChargeRequest { team_id: team, charge_id, account_id: String::new() };
                let answer = explain(&session.ledger).explain_charge(request).await?.into_inner();
                let json = json_of("drawdown.ledger.v1.ExplainChargeResponse", &answer)?;
                session.output.story(&json, &story(&answer))
            }
            Self::Partitions(command) => command.run().await,
            Self::Postings(postings) => postings.run().await,
            Self::ResetShards { cause, connection } => {
                let session = connection.open()?;
                let request = ResetAllShardsRequest { cause };
                let answer = settlement(&session.ledger).reset_all_shards(request).await?.into_inner();
                let answer = json_of("drawdown.ledger.v1.ResetAllShardsResponse", &answer)?;
                session.output.record(&answer, "", &[number("shards reset", "shards")])
            }
            Self::Audit { subject, from, to, pages, connection } => {
                let (from, to) = (from.map(timestamp_to_proto), to.map(timestamp_to_proto));
                let asked = ListAuditRequest { subject, from, to, ..ListAuditRequest::default() };
                done(&connection.open()?, &asked, pages).await
            }
            Self::LostRanges { producer, pages, connection } => {
                lost(&connection.open()?, producer, pages).await
            }
        }
    }
}

async fn done(session: &Session, asked: &ListAuditRequest, pages: Pages) -> Result<()> {
    let client = audit(&session.ledger);
    let name = "drawdown.ledger.v1.ListAuditResponse";
    let collected = pages.collect(name, "lines", |page_size, page_token| {
        let mut client = client.clone();
        let request = ListAuditRequest { page_size, page_token, ..asked.clone() };
        async move { client.list_audit(request).await }
    });
    let columns = [
        text("at", "at"),
        text("caller", "caller"),
        text("action", "action"),
        text("subject", "subject"),
        text("before", "before_json"),
        text("after", "after_json"),
    ];
    session.output.table(&collected.await?, "lines", &columns)
}

async fn lost(session: &Session, producer_id: String, pages: Pages) -> Result<()> {
    let client = review(&session.ledger);
    let name = "drawdown.ledger.v1.ListLostRangesResponse";
    let collected = pages.collect(name, "lost", |page_size, page_token| {
        let mut client = client.clone();
        let request = ListLostRangesRequest { producer_id: producer_id.clone(), page_size, page_token };
        async move { client.list_lost_ranges(request).await }
    });
    let columns = [
        text("producer", "producer_id"),
        number("map", "map_version"),
        number("shard", "shard"),
        number("from", "from_sequence"),
        number("to", "to_sequence"),
        text("named at", "named_at"),
    ];
    session.output.table(&collected.await?, "lost", &columns)
}

async fn verify(session: &Session, incremental: bool) -> Result<()> {
    let answer =
        token(&session.ledger).verify_ledger(VerifyLedgerRequest { incremental }).await?.into_inner();
    let columns = [
        text("invariant", "name"),
        number("violations", "violations"),
        text("statement", "statement"),
        text("examples", "examples"),
    ];
    session.output.table(
        &json_of("drawdown.ledger.v1.VerifyLedgerResponse", &answer)?,
        "invariants",
        &columns,
    )?;
    session.output.beside(&format!("{}\n", extent(&answer)))?;
    judge(&answer)
}

/// What was read, and what stayed unseen.
fn extent(answer: &VerifyLedgerResponse) -> String {
    let VerifyLedgerResponse { since, point, teams, journal_rows, batches, unseen, .. } = answer;
    let from = if *since == 0 { "everything".to_owned() } else { format!("what came since point {since}") };
    let read = format!("read {from}: {teams} teams replayed, {journal_rows} journal rows, {batches} batches");
    let written = if *point == 0 { String::new() } else { format!("; clean, written down as point {point}") };
    [format!("{read}{written}"), unseen.clone()]
        .into_iter()
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}

/// A check that ran nothing has proven nothing.
fn judge(answer: &VerifyLedgerResponse) -> Result<()> {
    let violated = answer.invariants.iter().filter(|invariant| invariant.violations != 0).count();
    match (answer.invariants.len(), violated) {
        (0, _) => Err(Found("no invariant was checked".to_owned()).into()),
        (_, 0) => Ok(()),
        (all, violated) => Err(Found(format!("{violated} of {all} invariants are violated")).into()),
    }
}

#[cfg(test)]
mod tests {
    use drawdown_proto::ledger::v1::InvariantResult;

    use super::*;

    #[test]
    fn only_a_clean_check_of_something_passes() {
        let result = |violations| InvariantResult { violations, ..InvariantResult::default() };
        for (invariants, clean) in
            [(vec![], false), (vec![result(0)], true), (vec![result(0), result(3)], false)]
        {
            let answer = VerifyLedgerResponse { invariants, ..VerifyLedgerResponse::default() };
            assert_eq!(judge(&answer).is_ok(), clean);
        }
    }
}
