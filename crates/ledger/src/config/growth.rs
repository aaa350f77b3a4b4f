//! The section `[ledger.growth]`: how charges and journal are cut by month, and how long months stay.

use std::time::Duration;

use drawdown_service::{
    Problem,
    config::{Count, Millis, Problems},
};
use serde::Deserialize;

/// The most months that are made ahead: what the database takes.
const MONTHS_AHEAD_MAX: u32 = 60;
/// Fewer can not be kept: forecasts, adoption (D49) and the months under way need their rows.
const KEEP_MONTHS_MIN: u32 = 4;

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
}

/// Checked [`GrowthOptions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrowthConfig {
    /// Partitions made ahead.
    pub months: MonthsConfig,
    /// Months that stay, the present one included.
    pub keep_months: u32,
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
        let months = MonthsConfig { ahead, interval: self.months_interval_ms.duration() };
        problems.finish(Some(GrowthConfig { months, keep_months }))
    }
}
