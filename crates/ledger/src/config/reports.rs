//! The section `[ledger.reports]`: how much a report may read, and how long.

use drawdown_service::config::{Count, Millis};
use serde::Deserialize;

use crate::reports::ReportLimits;

/// The section `[ledger.reports]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReportOptions {
    /// How long one statement of a report may run, in ms.
    pub statement_timeout_ms: Millis,
    /// After how long whatever was posted at an instant is surely committed, and lots that were due are closed, in ms.
    pub recorded_lag_ms: Millis,
    /// The most groups of one answer.
    pub groups_max: Count,
    /// The most teams of an account that one report adds up.
    pub teams_max: Count,
    /// The most teams of an account that one call issues statements for.
    pub statement_teams_max: Count,
    /// The rows of one message of a stream.
    pub stream_rows: Count,
    /// The most messages of a stream that wait for a slow reader.
    pub stream_messages_max: Count,
    /// The most explanations and what-ifs at once: each holds a connection of the database, and reads what it is asked about from its
    /// beginning.
    pub whole_reads_max: Count,
    /// The most journal rows of a team whose charges are explained: they are replayed in memory.
    pub explain_rows_max: Count,
    /// The most exports at once; each holds a connection of the database.
    pub exports_max: Count,
    /// How long an export may take, however slow its reader, in ms.
    pub export_timeout_ms: Millis,
    /// The size of one part of a file, in bytes.
    pub export_part_bytes: Count,
    /// The lines of a group of a Parquet file, which is kept in memory until it is full.
    pub export_group_rows: Count,
}

impl Default for ReportOptions {
    fn default() -> Self {
        Self {
            statement_timeout_ms: Millis::from_millis(120_000),
            recorded_lag_ms: Millis::from_millis(600_000),
            groups_max: Count::of(10_000),
            teams_max: Count::of(10_000),
            statement_teams_max: Count::of(1_000),
            stream_rows: Count::of(1_000),
            stream_messages_max: Count::of(2),
            whole_reads_max: Count::of(2),
            explain_rows_max: Count::of(500_000),
            exports_max: Count::of(4),
            export_timeout_ms: Millis::from_millis(600_000),
            export_part_bytes: Count::of(65_536),
            export_group_rows: Count::of(20_000),
        }
    }
}

impl ReportOptions {
    /// As the reports take it.
    #[must_use]
    pub fn limits(&self) -> ReportLimits {
        ReportLimits {
            statement_timeout: self.statement_timeout_ms.duration(),
            recorded_lag: self.recorded_lag_ms.duration(),
            groups_max: self.groups_max.get_u32(),
            teams_max: self.teams_max.get_u32(),
            statement_teams_max: self.statement_teams_max.get_u32(),
            stream_rows: self.stream_rows.get_u32(),
            stream_messages_max: self.stream_messages_max.get(),
            whole_reads_max: self.whole_reads_max.get(),
            explain_rows_max: i64::from(self.explain_rows_max.get_u32()),
            exports_max: self.exports_max.get(),
            export_timeout: self.export_timeout_ms.duration(),
            export_part_bytes: self.export_part_bytes.get(),
            export_group_rows: self.export_group_rows.get(),
        }
    }
}
