//! The section `[metering.events]`: which times of events are taken.

use std::time::Duration;

use drawdown_metering_core::aggregate::EventRules;
use drawdown_service::config::Millis;
use drawdown_types::WindowSize;
use serde::Deserialize;

/// Bounds of event times.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventOptions {
    /// Ahead of the receipt and still taken as it is, in ms.
    pub clock_skew_max_ms: Millis,
    /// Ahead of the receipt and refused, in ms.
    pub future_refused_ms: Millis,
    /// Before the receipt and refused, in ms.
    pub age_refused_ms: u64,
}

impl Default for EventOptions {
    fn default() -> Self {
        Self {
            clock_skew_max_ms: Millis::from_millis(300_000),
            future_refused_ms: Millis::from_millis(86_400_000),
            age_refused_ms: 400 * 86_400_000,
        }
    }
}

impl EventOptions {
    /// As the aggregation asks for them.
    #[must_use]
    pub const fn rules(&self, window: WindowSize) -> EventRules {
        EventRules {
            window,
            clock_skew_max: self.clock_skew_max_ms.duration(),
            future_refused: self.future_refused_ms.duration(),
            age_refused: Duration::from_millis(self.age_refused_ms),
        }
    }
}
