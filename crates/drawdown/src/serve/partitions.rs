//! `drawdown ledger partitions`: months of charges and journal, taken out and put back by who migrates.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use drawdown_ledger::{
    archive::{self, Listed, Month, PgPool, Written},
    store::pool,
};
use drawdown_service::config::Sources;
use drawdown_types::{Clock as _, SystemClock};
use serde_json::json;

use super::part::{Config, Service};
use crate::{
    failure::{BadConfiguration, Found},
    output::{Output, number, text},
};

/// Months of charges and journal: with the database of the configuration, as who migrates
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  drawdown ledger partitions list --config drawdown.toml")]
pub(crate) struct PartitionsCommand {
    #[command(subcommand)]
    action: PartitionsAction,
    /// The configuration; every value can also be set as DRAWDOWN_<SECTION>__<NAME>
    #[arg(long, global = true, value_name = "FILE", env = "DRAWDOWN_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Prints the answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum PartitionsAction {
    /// Lists the months, and where the rows of each are
    #[command(after_help = "Example:\n  drawdown ledger partitions list")]
    List,
    /// Takes the oldest month out of the tables; refused while anything needs its rows
    #[command(after_help = "Example:\n  drawdown ledger partitions detach 2026-03 --dry-run")]
    Detach {
        /// The month in UTC
        month: Month,
        /// Only tells what still needs it
        #[arg(long)]
        dry_run: bool,
    },
    /// Writes a detached month to two files, reads them again and notes their SHA-256
    #[command(after_help = "Example:\n  drawdown ledger partitions archive 2026-03 --dir /archive --drop")]
    Archive {
        /// The month in UTC
        month: Month,
        /// Where the files go
        #[arg(long)]
        dir: PathBuf,
        /// Then removes its tables: the files are all there is of it
        #[arg(long)]
        drop: bool,
    },
    /// Compares the files of a month with what was noted when they were written
    #[command(after_help = "Example:\n  drawdown ledger partitions check 2026-03 --dir /archive")]
    Check {
        /// The month in UTC
        month: Month,
        /// Where the files are
        #[arg(long)]
        dir: PathBuf,
    },
    /// Puts the month that was detached last back into the tables
    #[command(after_help = "Example:\n  drawdown ledger partitions attach 2026-03 --dir /archive")]
    Attach {
        /// The month in UTC
        month: Month,
        /// Where its files are, where its tables were removed
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Gives rows of months that had no partition theirs
    #[command(after_help = "Example:\n  drawdown ledger partitions cut")]
    Cut,
}

impl PartitionsCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let sources = Sources::of_process(self.config.as_deref()).map_err(BadConfiguration::from)?;
        let Config::Ledger(config) = Service::Ledger.config(&sources).map_err(BadConfiguration)? else {
            anyhow::bail!("the section of the ledger is of another service");
        };
        let database = pool::owner(&config.database);
        let done = self.action.run(&database, config.growth.keep_months, Output::new(self.json)).await;
        database.close().await;
        done
    }
}

impl PartitionsAction {
    async fn run(self, pool: &PgPool, keep_months: u32, output: Output) -> Result<()> {
        let now = SystemClock.now();
        match self {
            Self::List => listed(output, &archive::list(pool).await?),
            Self::Detach { month, dry_run } => {
                let needs = archive::needs(pool, month, now, keep_months).await?;
                let columns = [text("still needed", "need")];
                let rows: Vec<_> = needs.iter().map(|need| json!({ "need": need })).collect();
                if !needs.is_empty() {
                    output.table(&json!({ "needs": rows }), "needs", &columns)?;
                    return Err(Found("the month is still needed".to_owned()).into());
                }
                if !dry_run {
                    archive::detach(pool, month, now, keep_months).await?;
                }
                output.value_or_line(&json!({ "needs": [], "detached": !dry_run }), done(dry_run))
            }
            Self::Archive { month, dir, drop } => {
                let files = archive::write(pool, month, &dir, now).await?;
                if drop {
                    archive::drop_tables(pool, month, &dir, now).await?;
                }
                written(output, &files)
            }
            Self::Check { month, dir } => written(output, &archive::check(pool, month, &dir).await?),
            Self::Attach { month, dir } => {
                archive::attach(pool, month, dir.as_deref()).await?;
                output.value_or_line(&json!({ "attached": true }), "attached; now verify the ledger in full")
            }
            Self::Cut => {
                let made = archive::cut(pool).await?;
                output.value_or_line(&json!({ "partitions": made }), &format!("{made} partitions made"))
            }
        }
    }
}

const fn done(dry_run: bool) -> &'static str {
    if dry_run { "nothing needs it" } else { "detached" }
}

fn listed(output: Output, months: &[Listed]) -> Result<()> {
    let columns = [
        text("month", "month"),
        text("state", "state"),
        number("charges", "charges"),
        number("journal rows", "journal_rows"),
        number("bytes", "bytes"),
    ];
    let months = serde_json::to_value(months).context("months are no JSON")?;
    output.table(&json!({ "months": months }), "months", &columns)
}

fn written(output: Output, files: &[Written]) -> Result<()> {
    let columns = [text("file", "path"), number("rows", "rows"), text("sha256", "sha256")];
    let files = serde_json::to_value(files).context("files are no JSON")?;
    output.table(&json!({ "files": files }), "files", &columns)
}
