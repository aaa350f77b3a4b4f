//! A month of one busy team, and what is made of it: its statement, and its file of usage.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use drawdown_proto::{
    ledger::v1::{self, report_service_server::ReportService as _},
    scalar::timestamp_to_proto,
};
use drawdown_types::{ManualClock, Timestamp};
use futures::StreamExt as _;
use tonic::Request;

use super::{
    bench::{HOT_LOTS, settle},
    expected::Expected,
    fleet::{Fleet, window_of},
    world::LedgerWorld,
    writer::ShardWriter,
};
use crate::load::Bits;

/// Charges of the month in a run that counts; what a smaller one finds has other names.
pub const FULL: usize = 1_000_000;
const APPS: usize = 500;
const METERS: usize = 10;
const BATCH: usize = 5000;
/// No other writer of a bench has it.
const SHARD: u32 = 60;
const LENGTH: Duration = Duration::from_secs(30 * 86_400);
/// Whole days, so that a file can be of them.
const DAY: Duration = Duration::from_secs(86_400);

/// A month that is over.
pub struct Month {
    /// Of one team.
    pub fleet: Fleet,
    /// What it used.
    pub expected: Expected,
    from: Timestamp,
    to: Timestamp,
    charges: usize,
}

// === impl Month ===

impl Month {
    /// Posts the charges of a month that begins with the next day; the clock runs through it, and stands at
    /// its end afterwards.
    ///
    /// # Errors
    /// Where something is refused.
    pub async fn post(world: &LedgerWorld, clock: &ManualClock, charges: usize) -> Result<Self> {
        let now = world.clock().now();
        let since = Duration::from_micros(u64::try_from(now.as_micros())?);
        let whole = Duration::from_secs(since.as_secs() / DAY.as_secs() * DAY.as_secs());
        clock.advance(whole + DAY - since);
        let from = world.clock().now();
        let mut fleet = Fleet::of(1, APPS, METERS);
        fleet.move_in(world, &HOT_LOTS).await?;
        let mut writer = ShardWriter::open(&world.handlers, SHARD).await?;
        let (mut expected, mut bits) = (Expected::default(), Bits(2));
        let batches = charges.div_ceil(BATCH);
        let step = LENGTH / u32::try_from(batches.max(1))?;
        for batch in 0..batches {
            let window = window_of(world.clock().now());
            let lines = (batch * BATCH..(batch + 1) * BATCH)
                .map(|place| fleet.line(fleet.series(place), window, &mut bits, &mut expected));
            let sealed = writer.seal(lines.collect());
            settle(&world.handlers, sealed).await?;
            clock.advance(step);
        }
        let to = from.checked_add(LENGTH).context("the end of the month")?;
        clock.advance(Duration::from_micros(u64::try_from(
            (to.as_micros() - world.clock().now().as_micros()).max(0),
        )?));
        sqlx::raw_sql("vacuum analyze").execute(&world.pool).await?;
        Ok(Self { fleet, expected, from, to, charges: batches * BATCH })
    }

    /// What it must have cost, in micro-tokens.
    fn amount(&self) -> i64 {
        self.expected.of_teams(1).iter().map(|sums| sums.amount).sum()
    }

    /// Seconds until its statement is issued, and until it is made again.
    ///
    /// # Errors
    /// Where it is refused, or says anything but what was used.
    pub async fn statement_s(&self, world: &LedgerWorld) -> Result<(f64, f64)> {
        let team = self.fleet.teams.first().context("no team")?;
        let reports = &world.handlers.reports;
        let request = v1::IssueStatementsRequest {
            account_id: team.account_id().to_owned(),
            team_id: team.id().to_owned(),
            from: Some(timestamp_to_proto(self.from)),
            to: Some(timestamp_to_proto(self.to)),
            request_id: "month".to_owned(),
        };
        let started = Instant::now();
        let issued = reports.issue_statements(Request::new(request)).await?.into_inner();
        let issue = started.elapsed().as_secs_f64();
        let issued = issued.statements.into_iter().next().context("no statement")?;
        let statement_id = issued.statement.context("no statement")?.statement_id;
        let request = v1::GetStatementRequest { account_id: team.account_id().to_owned(), statement_id };
        let started = Instant::now();
        let made = reports.get_statement(Request::new(request)).await?.into_inner();
        let again = started.elapsed().as_secs_f64();
        let made = made.statement.context("no statement")?;
        ensure!(made.digest == issued.digest, "the statement made again is another one");
        let statement = made.statement.context("no statement")?;
        let used = |at: Option<&v1::StatementBalance>| at.map_or(0, |balance| balance.used_micros);
        let difference = used(statement.closing.as_ref()) - used(statement.opening.as_ref());
        let amount = self.amount();
        ensure!(difference == amount, "the statement says that {difference} were used, and {amount} were");
        Ok((issue, again))
    }

    /// Seconds until its file of usage is whole, and its lines.
    ///
    /// # Errors
    /// Where it is refused, or its sums are not what was used.
    pub async fn export_s(&self, world: &LedgerWorld) -> Result<(f64, i64)> {
        let team = self.fleet.teams.first().context("no team")?;
        let filter = v1::ChargeFilter {
            from: Some(timestamp_to_proto(self.from)),
            to: Some(timestamp_to_proto(self.to)),
            ..v1::ChargeFilter::default()
        };
        let request = v1::ExportUsageRequest {
            account_id: team.account_id().to_owned(),
            team_id: team.id().to_owned(),
            filter: Some(filter),
            format: v1::ExportFormat::Csv.into(),
            focus: None,
        };
        let started = Instant::now();
        let mut parts = world.handlers.reports.export_usage(Request::new(request)).await?.into_inner();
        let mut summary = None;
        while let Some(part) = parts.next().await {
            summary = part?.summary;
        }
        let took = started.elapsed().as_secs_f64();
        let summary = summary.context("the file is not whole")?;
        let sums = summary.sums.context("no sums")?;
        let found = (usize::try_from(sums.charges)?, sums.amount_micros);
        let expected = (self.charges, self.amount());
        ensure!(found == expected, "the file has {found:?} charges and micro-tokens, and not {expected:?}");
        Ok((took, summary.lines))
    }
}
