//! The section `[ledger.growth]`: how charges and journal are cut by month, how long months stay, and how usage
//! of closed windows is rolled up.

use std::time::Duration;

use drawdown_service::{
    Problem,
    config::{Count, Millis, Problems},
};
use serde::Deserialize;

use crate::posting::EventLimits;

/// The most months that are made ahead: what the database takes.
const MONTHS_AHEAD_MAX: u32 = 60;
/// Fewer can not be kept: forecasts, adoption (D49) and the months under way need their rows.
const KEEP_MONTHS_MIN: u32 = 4;
const DAY_SECS: u64 = 86_400;
/// Ids of events that are kept for longer would outlive what they were charged as.
const EVENT_KEEP_DAYS_MAX: u32 = 366;
/// More events in one call would be a statement too large.
const EVENTS_PER_CALL_MAX: usize = 10_000;

/// The section as read.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrowthOptions {
    /// How many months after the present one have their partitions made.
    pub months_ahead: Count,
    /// How often they are looked at, in ms.
    pub months_interval_ms: Millis,
    /// How many months, the present one included, can not be detached.
    pub keep_months: Count,
    /// How often closed windows are rolled up, in ms.
    pub roll_up_interval_ms: Millis,
    /// How long after midnight (UTC) usage of the day before is still posted as a rule, in seconds.
    pub roll_up_slack_secs: u64,
    /// How many teams one transaction of that job rolls up.
    pub roll_up_teams_max: Count,
    /// How many charges of each of them.
    pub roll_up_rows_max: Count,
    /// How many such transactions one look may take.
    pub roll_up_rounds_max: Count,
    /// For how many days the ids of events are kept at least; an event that is older is refused.
    pub event_keep_days: Count,
    /// How far ahead the time of such an event may lie, in seconds.
    pub event_ahead_secs: u64,
    /// How many of them one call may have.
    pub events_per_call_max: Count,
}

/// Checked [`GrowthOptions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrowthConfig {
    /// Partitions made ahead.
    pub months: MonthsConfig,
    /// Months that stay, the present one included.
    pub keep_months: u32,
    /// Usage rolled up.
    pub compact: CompactConfig,
    /// Events by id.
    pub events: EventLimits,
}

/// Limits of the job that rolls usage up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactConfig {
    /// How often it looks.
    pub interval: Duration,
    /// How long after midnight usage of the day before is still posted as a rule.
    pub slack: Duration,
    /// Teams of one transaction.
    pub teams_max: u32,
    /// Charges of each team in one transaction.
    pub rows_max: u32,
    /// Transactions of one look.
    pub rounds_max: usize,
}

/// Limits of the job that makes partitions ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonthsConfig {
    /// Months after the present one.
    pub ahead: u32,
    /// How often it looks.
    pub interval: Duration,
}

impl Default for GrowthOptions {
    fn default() -> Self {
        Self {
            months_ahead: Count::of(3),
            months_interval_ms: Millis::from_millis(3_600_000),
            keep_months: Count::of(25),
            roll_up_interval_ms: Millis::from_millis(600_000),
            roll_up_slack_secs: 900,
            roll_up_teams_max: Count::of(20),
            roll_up_rows_max: Count::of(20_000),
            roll_up_rounds_max: Count::of(1_000),
            event_keep_days: Count::of(40),
            event_ahead_secs: DAY_SECS,
            events_per_call_max: Count::of(5_000),
        }
    }
}

// === impl GrowthOptions ===

impl GrowthOptions {
    pub(super) fn validate(&self) -> Result<GrowthConfig, Vec<Problem>> {
        let mut problems = Problems::new();
        let (ahead, keep_months) = (self.months_ahead.get_u32(), self.keep_months.get_u32());
        problems.ensure(ahead <= MONTHS_AHEAD_MAX, "months_ahead", format!("is above {MONTHS_AHEAD_MAX}"));
        problems.ensure(keep_months >= KEEP_MONTHS_MIN, "keep_months", format!("is below {KEEP_MONTHS_MIN}"));
        problems.ensure(
            self.roll_up_slack_secs < DAY_SECS,
            "roll_up_slack_secs",
            format!("is not below {DAY_SECS}"),
        );
        let days = self.event_keep_days.get_u32();
        problems.ensure(
            days <= EVENT_KEEP_DAYS_MAX,
            "event_keep_days",
            format!("is above {EVENT_KEEP_DAYS_MAX}"),
        );
        problems.ensure(
            self.event_ahead_secs <= DAY_SECS,
            "event_ahead_secs",
            format!("is above {DAY_SECS}"),
        );
        let per_call_max = self.events_per_call_max.get();
        problems.ensure(
            per_call_max <= EVENTS_PER_CALL_MAX,
            "events_per_call_max",
            format!("is above {EVENTS_PER_CALL_MAX}"),
        );
        let events = EventLimits {
            per_call_max,
            keep: Duration::from_secs(u64::from(days).saturating_mul(DAY_SECS)),
            ahead_max: Duration::from_secs(self.event_ahead_secs),
        };
        let compact = CompactConfig {
            interval: self.roll_up_interval_ms.duration(),
            slack: Duration::from_secs(self.roll_up_slack_secs),
            teams_max: self.roll_up_teams_max.get_u32(),
            rows_max: self.roll_up_rows_max.get_u32(),
            rounds_max: self.roll_up_rounds_max.get(),
        };
        let months = MonthsConfig { ahead, interval: self.months_interval_ms.duration() };
        problems.finish(Some(GrowthConfig { months, keep_months, compact, events }))
    }
}
