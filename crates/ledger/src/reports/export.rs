//! Files of usage. The database adds up and hands out line after line, as fast as they are taken; a reader
//! that stops taking stops the statement, and the export's own limit ends it. So an export holds one
//! connection and one state of the database while it lasts, and there are only so many at once. What is in
//! memory is one group of a Parquet file and a few parts, whatever the size of the file.

use std::{collections::BTreeMap, sync::Arc};

use drawdown_service::{Code, Refusal, refusal};
use drawdown_types::{AppId, TeamId, Timestamp};
use futures::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::{Reach, Scope, check_rows_in_tx};
use crate::{
    error::Error,
    export::{Encoder, Format, UsageLine},
    reason,
    service::{Ledger, connection},
    store::{
        catalog,
        charges::{ChargeFilter, DayUsage, LineQuery},
        verification, watermarks,
    },
};

/// What a file is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExportQuestion {
    /// Whose usage.
    pub(crate) whose: Scope,
    /// Only these charges; both ends of the days are set.
    pub(crate) filter: ChargeFilter,
    /// The form of the file.
    pub(crate) format: Format,
}

/// What went into a file.
#[derive(Clone, Debug)]
pub(crate) struct Exported {
    /// Sums over its lines.
    pub(crate) sums: ExportSums,
    /// How far the data reaches.
    pub(crate) reach: Reach,
    /// Bytes of the file.
    pub(crate) size_bytes: i64,
    /// SHA-256 of the file.
    pub(crate) sha256: [u8; 32],
}

/// Sums over the lines of a file: 64 bits each, fewer than 2^63 of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExportSums {
    /// Lines.
    pub(crate) lines: i64,
    /// Charges.
    pub(crate) charges: i128,
    /// Events.
    pub(crate) events: i128,
    /// Quantity.
    pub(crate) quantity: i128,
    /// Prices in micro-tokens.
    pub(crate) amount: i128,
    /// Still uncharged, in micro-tokens.
    pub(crate) open: i128,
}

/// Takes the parts of a file; false where nobody wants them any more.
pub(crate) trait Taker: Send {
    /// Waits until the part can be taken.
    fn take(&mut self, part: Vec<u8>) -> impl Future<Output = bool> + Send;
}

/// Cuts what was written into parts, and counts it.
struct Cutter<'a, T> {
    taker: &'a mut T,
    part_bytes: usize,
    size_bytes: i64,
    digest: Sha256,
}

impl ExportSums {
    fn add(&mut self, line: &UsageLine) {
        self.lines = self.lines.saturating_add(1);
        self.charges = self.charges.saturating_add(line.charges.into());
        self.events = self.events.saturating_add(line.events.into());
        self.quantity = self.quantity.saturating_add(line.quantity.into());
        self.amount = self.amount.saturating_add(line.amount_micros.into());
        self.open = self.open.saturating_add(line.open_micros.into());
    }
}

impl<T: Taker> Cutter<'_, T> {
    /// A group of a Parquet file may be larger than one message.
    async fn hand(&mut self, written: &[u8]) -> bool {
        self.digest.update(written);
        self.size_bytes = self.size_bytes.saturating_add(i64::try_from(written.len()).unwrap_or(i64::MAX));
        for part in written.chunks(self.part_bytes) {
            if !self.taker.take(part.to_vec()).await {
                return false;
            }
        }
        true
    }
}

fn line(usage: DayUsage, units: &BTreeMap<String, String>) -> UsageLine {
    UsageLine {
        day: usage.day.0,
        corrected_in: usage.corrected_in.map(Timestamp::from),
        team_id: TeamId::from_uuid(usage.team_id).to_string(),
        app_id: AppId::from_uuid(usage.app_id).to_string(),
        // Metering refuses unknown meters before; what came all the same has no unit to tell.
        unit: units.get(&usage.meter).cloned().unwrap_or_else(|| "Units".to_owned()),
        client_id: usage.client_id,
        meter: usage.meter,
        failed: usage.failed,
        dimensions: usage.dimensions,
        charges: usage.charges,
        events: usage.events,
        quantity: usage.quantity,
        amount_micros: usage.amount_micros,
        open_micros: usage.open_micros,
    }
}

fn broken(error: std::io::Error) -> Error {
    Error::stored("usage that can not be written to a file")(error.into())
}

// === impl Ledger ===

impl Ledger {
    /// A place among the exports that may run at once.
    pub(crate) fn begin_export(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.exports).try_acquire_owned().map_err(|_| {
            let why = format!("{} exports are running, which is the most", self.limits.reports.exports_max);
            Refusal::new(Code::ResourceExhausted, reason::EXPORTS_EXHAUSTED, why)
                .retry_after(refusal::RETRY_AFTER_DEFAULT)
                .into()
        })
    }

    /// Hands the parts of a file to `taker`, and says what went into it; nothing where the taker has gone.
    /// The database shows this export the rows of its account only.
    pub(crate) async fn export(
        &self,
        asked: ExportQuestion,
        taker: &mut impl Taker,
    ) -> Result<Option<Exported>, Error> {
        let limits = self.limits.reports;
        let now = self.clock.now();
        let account = asked.whose.account_id;
        let meters = catalog::meters_in_tx(&mut *self.pool.read().await?).await?;
        let units = meters.into_iter().map(|meter| (meter.slug.to_string(), meter.unit)).collect();
        let mut encoder = Encoder::new(account, asked.format, limits.export_group_rows).map_err(broken)?;
        let mut sums = ExportSums::default();
        let part_bytes = limits.export_part_bytes;
        let mut cutter = Cutter { taker, part_bytes, size_bytes: 0, digest: Sha256::new() };
        let mut tx = self.pool.snapshot_of(Some(account)).await?;
        let connection = connection(&mut tx);
        verification::limit_in_tx(connection, limits.export_timeout).await?;
        check_rows_in_tx(&mut *connection, asked.whose, asked.filter.from).await?;
        let stored = self.scope_in_tx(connection, asked.whose).await?;
        let settled = watermarks::read_in_tx(&mut *connection).await?;
        let (seen, reach) = self.seen(&stored, now, settled);
        let query = LineQuery::new(connection, account, &seen, &asked.filter).await?;
        let mut lines = query.lines(connection);
        while let Some(usage) = lines.try_next().await? {
            let line = line(usage, &units);
            sums.add(&line);
            encoder.write(&line).map_err(broken)?;
            if let Some(written) = encoder.take(part_bytes)
                && !cutter.hand(&written).await
            {
                return Ok(None);
            }
        }
        drop(lines);
        tx.commit().await?;
        let rest = encoder.finish().map_err(broken)?;
        let wanted = cutter.hand(&rest).await;
        let (size_bytes, sha256) = (cutter.size_bytes, cutter.digest.finalize().into());
        Ok(wanted.then_some(Exported { sums, reach, size_bytes, sha256 }))
    }
}
