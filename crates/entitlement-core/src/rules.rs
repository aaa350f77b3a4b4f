//! The settings that the rules of this crate take, and the edges that follow from them.

use std::time::Duration;

use drawdown_types::{Timestamp, WindowSize};

/// Settings of an installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The size of every window.
    pub window: WindowSize,
    /// How long after its commit a change may take effect at the earliest (D51).
    pub lead: Duration,
    /// How long a trial lasts, before it is rounded up to an edge (D50).
    pub trial: Duration,
    /// How far ahead a change may be scheduled: a slip of the pen must not block an app for a lifetime.
    pub schedule_ahead_max: Duration,
    /// How many credentials an app may have.
    pub credentials_per_app_max: u32,
    /// How long an invitation to take over an app holds (D26).
    pub invitation: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        const DAY_SECS: u64 = 86_400;
        Self {
            window: WindowSize::MINUTE,
            lead: Duration::from_secs(5),
            trial: Duration::from_secs(90_u64.saturating_mul(DAY_SECS)),
            schedule_ahead_max: Duration::from_secs(400_u64.saturating_mul(DAY_SECS)),
            credentials_per_app_max: 100,
            invitation: Duration::from_secs(14_u64.saturating_mul(DAY_SECS)),
        }
    }
}

impl Rules {
    /// The first edge at which a change committed at `now` may take effect (D51).
    #[must_use]
    pub fn first_edge_after(&self, now: Timestamp) -> Timestamp {
        self.window.ceil(now.checked_add(self.lead).unwrap_or(Timestamp::MAX))
    }

    /// The edge of a change that is asked for at `now`: none given → the first possible one; one ahead → the first edge
    /// at or after it, but never before that same edge, since a change at once would cut windows in use; a past one
    /// → set-up, at the first edge at or after it.
    #[must_use]
    pub fn edge(&self, now: Timestamp, from: Option<Timestamp>) -> Timestamp {
        let first = self.first_edge_after(now);
        match from {
            None => first,
            Some(from) if from > now => self.window.ceil(from).max(first),
            Some(from) => self.window.ceil(from),
        }
    }

    /// The latest edge that may be scheduled at `now`.
    #[must_use]
    pub fn latest_edge(&self, now: Timestamp) -> Timestamp {
        self.first_edge_after(now).checked_add(self.schedule_ahead_max).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_waits_for_the_first_edge_at_least_five_seconds_on() {
        let rules = Rules::default();
        for (now, edge) in [
            ("2026-01-01T12:00:00Z", "2026-01-01T12:01:00Z"),
            ("2026-01-01T12:00:54.999999Z", "2026-01-01T12:01:00Z"),
            ("2026-01-01T12:00:55Z", "2026-01-01T12:01:00Z"),
            ("2026-01-01T12:00:55.000001Z", "2026-01-01T12:02:00Z"),
        ] {
            assert_eq!(rules.first_edge_after(now.parse().unwrap()), edge.parse().unwrap(), "{now}");
        }
    }
}
