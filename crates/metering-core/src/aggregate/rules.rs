//! Which events are taken, by their times and quantities.

use std::time::Duration;

use drawdown_types::{Timestamp, WindowSize};

use crate::{fault::FrameFault, reason};

/// Bounds of event times against the receipt of their frame, and the window grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRules {
    /// The window size of the installation.
    pub window: WindowSize,
    /// An event at most this far ahead of its receipt is taken as it is; further, as of its receipt.
    pub clock_skew_max: Duration,
    /// An event further than this ahead of its receipt is refused; so is a receipt ahead of the clock.
    pub future_refused: Duration,
    /// An event further than this before its receipt is refused.
    pub age_refused: Duration,
}

impl Default for EventRules {
    /// 60 s; 5 minutes, 24 hours, 400 days.
    fn default() -> Self {
        Self {
            window: WindowSize::MINUTE,
            clock_skew_max: Duration::from_secs(5 * 60),
            future_refused: Duration::from_secs(24 * 3600),
            age_refused: Duration::from_secs(400 * 24 * 3600),
        }
    }
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl EventRules {
    pub(super) fn check_receipt(&self, received_at_ms: i64, now: Timestamp) -> Result<(), FrameFault> {
        let latest = now.as_millis().saturating_add(millis(self.future_refused));
        if received_at_ms > latest {
            let description = format!("is {received_at_ms}, at most {latest} is taken now");
            return Err(FrameFault::one(reason::RECEIPT_IN_FUTURE, "received_at_unix_ms", description));
        }
        Ok(())
    }

    /// The start of the window that holds an instant, in ms.
    pub(super) fn floor_ms(&self, at_ms: i64) -> i64 {
        let past_edge = at_ms.checked_rem_euclid(self.window_ms()).unwrap_or_default();
        at_ms.saturating_sub(past_edge)
    }

    pub(super) fn window_ms(&self) -> i64 {
        i64::from(self.window.as_secs()).saturating_mul(1000)
    }
}
