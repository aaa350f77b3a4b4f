//! Files of usage.

use std::{
    collections::HashMap,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use drawdown_client::{entitlement::hierarchy, ledger::report_streams};
use drawdown_proto::{
    entitlement::v1::{GetAccountRequest, ListTeamsRequest},
    ledger::v1::{self as pb, ExportSummary, ExportUsageRequest, ExportUsageResponse, FocusSettings},
};
use sha2::{Digest as _, Sha256};
use tonic::Streaming;

use super::{
    Session,
    reports::{Filter, complete},
};
use crate::output::{Column, json_of, number, text, tokens};

/// Teams asked for at once.
const TEAMS_PAGE: u32 = 1000;

/// A file of usage.
#[derive(Args, Debug)]
pub(crate) struct ExportArguments {
    /// The form of the file
    #[arg(long)]
    format: ExportFormat,
    /// The account
    #[arg(long, value_name = "ACCOUNT_ID")]
    account: String,
    /// One team of it [default: all of them]
    #[arg(long, value_name = "TEAM_ID", default_value = "")]
    team: String,
    #[command(flatten)]
    filter: Filter,
    /// The file to write; it is there when it is whole [default: the standard output, with nothing beside it]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// FOCUS: the currency in which tokens are sold, three letters of ISO 4217
    #[arg(long, value_name = "CODE", required_if_eq("format", "focus"))]
    billing_currency: Option<String>,
    /// FOCUS: what a token costs in it
    #[arg(long, value_name = "DECIMAL", required_if_eq("format", "focus"))]
    token_price: Option<String>,
    /// FOCUS: who runs the platform and sends its invoices
    #[arg(long, value_name = "NAME", required_if_eq("format", "focus"))]
    provider: Option<String>,
    /// FOCUS: what the platform is called
    #[arg(long, value_name = "NAME", required_if_eq("format", "focus"))]
    service: Option<String>,
}

/// The form of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// RFC 4180, amounts in micro-tokens
    Csv,
    /// Apache Parquet, amounts in micro-tokens
    Parquet,
    /// FOCUS 1.2, the FinOps Open Cost and Usage Specification
    Focus,
}

const SUMMARY: [Column; 9] = [
    number("bytes", "size_bytes"),
    text("sha-256, base64", "sha256"),
    number("lines", "lines"),
    number("charges", "sums.charges"),
    number("events", "sums.events"),
    number("quantity", "sums.quantity"),
    tokens("tokens", "sums.amount_micros"),
    tokens("charged", "sums.charged_micros"),
    tokens("uncharged", "sums.open_micros"),
];

impl ExportArguments {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let format = match self.format {
            ExportFormat::Csv => pb::ExportFormat::Csv,
            ExportFormat::Parquet => pb::ExportFormat::Parquet,
            ExportFormat::Focus => pb::ExportFormat::Focus,
        };
        let focus = match self.format {
            ExportFormat::Focus => Some(self.focus(session).await?),
            ExportFormat::Csv | ExportFormat::Parquet => None,
        };
        let request = ExportUsageRequest {
            account_id: self.account,
            team_id: self.team,
            filter: Some(self.filter.wire()),
            format: format.into(),
            focus,
        };
        let stream = report_streams(&session.ledger).export_usage(request).await?.into_inner();
        let Some(out) = self.out else {
            return copy(stream, &mut std::io::stdout().lock()).await.map(drop);
        };
        let summary = save(stream, &out).await?;
        let summary = json_of("drawdown.ledger.v1.ExportSummary", &summary)?;
        session.output.record(&summary, "", &SUMMARY)?;
        complete(session, &summary)
    }

    /// What a FOCUS file must say: what was given, and the names that entitlement knows.
    async fn focus(&self, session: &Session) -> Result<FocusSettings> {
        let mut client = hierarchy(&session.entitlement);
        let account = GetAccountRequest { account_id: self.account.clone() };
        let account = client.get_account(account).await?.into_inner().account.context("no account")?;
        let (mut team_names, mut page_token) = (HashMap::new(), String::new());
        loop {
            let request =
                ListTeamsRequest { account_id: self.account.clone(), page_size: TEAMS_PAGE, page_token };
            let page = client.list_teams(request).await?.into_inner();
            team_names.extend(page.teams.into_iter().map(|team| (team.team_id, team.name)));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        Ok(FocusSettings {
            billing_currency: self.billing_currency.clone().unwrap_or_default(),
            token_price: self.token_price.clone().unwrap_or_default(),
            provider_name: self.provider.clone().unwrap_or_default(),
            service_name: self.service.clone().unwrap_or_default(),
            account_name: account.name,
            team_names,
        })
    }
}

/// Writes the parts beside the file and puts the file in its place when it is whole: who reads it never reads
/// half of one.
async fn save(stream: Streaming<ExportUsageResponse>, out: &Path) -> Result<ExportSummary> {
    let mut partial = out.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let beside = || format!("can not write {}", partial.display());
    let mut file = File::create(&partial).with_context(beside)?;
    let summary = copy(stream, &mut file).await?;
    file.sync_all().with_context(beside)?;
    std::fs::rename(&partial, out).with_context(|| format!("can not write {}", out.display()))?;
    Ok(summary)
}

/// Writes the parts of a file as they come. A file without its summary, or with another digest, is an error.
async fn copy(mut stream: Streaming<ExportUsageResponse>, to: &mut impl Write) -> Result<ExportSummary> {
    let (mut summary, mut digest) = (None, Sha256::new());
    while let Some(message) = stream.message().await? {
        digest.update(&message.part);
        to.write_all(&message.part).context("can not write the file")?;
        summary = message.summary.or(summary);
    }
    to.flush().context("can not write the file")?;
    let summary: ExportSummary = summary.context("the file ended before it was whole")?;
    ensure!(digest.finalize().as_slice() == summary.sha256, "the file is not as it was sent");
    Ok(summary)
}
