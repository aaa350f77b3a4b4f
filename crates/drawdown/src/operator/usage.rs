//! Producers, and usage that is not settled yet.

use anyhow::Result;
use clap::{Args, Subcommand};
use drawdown_client::ledger::settlement;
use drawdown_proto::ledger::v1::CreateProducerRequest;

use super::{
    Change, Connection,
    export::ExportArguments,
    live::{LiveArguments, WatchArguments},
    reports::ReportArguments,
};
use crate::output::{json_of, text};

/// Producers: owners of a durable log of usage
#[derive(Args, Debug)]
pub(crate) struct ProducerCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: ProducerAction,
}

#[derive(Subcommand, Debug)]
enum ProducerAction {
    /// Registers a producer
    #[command(after_help = "Example:\n  drawdown producer create --name gateway-eu-1")]
    Create {
        /// What people call it
        #[arg(long)]
        name: String,
        #[command(flatten)]
        change: Change,
    },
}

/// Reports of usage: added up, and what metering holds and the ledger does not have yet
#[derive(Args, Debug)]
pub(crate) struct UsageCommand {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: UsageAction,
}

#[derive(Subcommand, Debug)]
enum UsageAction {
    /// Shows usage that is applied and not settled
    #[command(
        after_help = "Example:\n  drawdown usage live client_7f3a client_91bc --meter web.call\n  drawdown usage live --app app_01j2gv5gymfsfrn6rc3mq3yjjv --dimension region=eu --by-batch"
    )]
    Live(LiveArguments),
    /// Follows usage that is applied and not settled: all there is at first, then what changes, one line of a batch a line
    #[command(
        after_help = "Example:\n  drawdown usage watch client_7f3a --meter web.call\n  drawdown usage watch --app app_01j2gv5gymfsfrn6rc3mq3yjjv --dimension region=eu --json --limit 100"
    )]
    Watch(WatchArguments),
    /// Adds settled usage up by any keys
    #[command(
        after_help = "Example:\n  drawdown usage report --account acct_01j2gv5gymfsfrn6rc3mq3yjjv --from 2026-03-01 --to 2026-04-01 --by team,day"
    )]
    Report(ReportArguments),
    /// Writes a file of settled usage: one line for each UTC day and every key
    #[command(
        after_help = "Example:\n  drawdown usage export --format csv --account acct_01j2gv5gymfsfrn6rc3mq3yjjv --from 2026-03-01 --to 2026-04-01 --out usage.csv\n  drawdown usage export --format focus --account acct_01j2gv5gymfsfrn6rc3mq3yjjv --from 2026-03-01 --to 2026-04-01 --billing-currency EUR --token-price 3 --provider Acme --service 'Acme API' --out focus.csv"
    )]
    Export(ExportArguments),
}

impl ProducerCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let ProducerAction::Create { name, change } = self.action;
        let request = CreateProducerRequest { name, request_id: change.id() };
        let answer = settlement(&session.ledger).create_producer(request).await?.into_inner();
        let answer = json_of("drawdown.ledger.v1.CreateProducerResponse", &answer)?;
        session.output.record(&answer, "", &[text("producer", "producer_id")])
    }
}

impl UsageCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        match self.action {
            UsageAction::Live(live) => live.run(&session).await,
            UsageAction::Watch(watch) => watch.run(&session).await,
            UsageAction::Report(report) => report.run(&session).await,
            UsageAction::Export(export) => export.run(&session).await,
        }
    }
}
