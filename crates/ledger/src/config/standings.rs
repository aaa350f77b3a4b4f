//! The section `[ledger.standings]`: what gates are told of teams, and how.

use std::time::Duration;

use drawdown_service::{
    Problem,
    config::{Count, Millis, Problems},
};
use drawdown_types::MicroTokens;
use serde::Deserialize;

use crate::service::StandingLimits;

const DEBT_LIMIT_TOKENS_MAX: i64 = 1_000_000_000;

/// The section as read.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StandingOptions {
    /// A team that owes more than so many tokens is limited at once, whatever its grace (D48); below 0 for no limit.
    pub debt_limit_tokens: i64,
    /// The most steps that one team's future is told in.
    pub steps_max: Count,
    /// The most streams at once.
    pub streams_max: Count,
    /// How often a stream looks for changes, in ms.
    pub poll_interval_ms: Millis,
    /// After how long without a change a stream tells that there was none, in ms.
    pub heartbeat_ms: Millis,
    /// The most teams of one message of a stream.
    pub message_teams_max: Count,
    /// The most teams that one look brings up; a reader that is further behind begins anew.
    pub behind_teams_max: Count,
    /// How long it is kept which teams changed, in ms: as long may a reader be away, or be slow.
    pub keep_ms: Millis,
    /// How often what is older is looked for, in ms.
    pub sweep_interval_ms: Millis,
    /// The most rows that one statement removes.
    pub sweep_rows_max: Count,
}

/// Checked [`StandingOptions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandingConfig {
    /// Limits of streams.
    pub feed: FeedConfig,
    /// Limits of the job that removes what is old.
    pub sweep: FeedSweepConfig,
}

/// Limits of streams of standings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedConfig {
    /// Streams at once.
    pub streams_max: usize,
    /// How often one looks.
    pub poll_interval: Duration,
    /// After how long without a change it says so.
    pub heartbeat: Duration,
    /// Teams of one message.
    pub message_teams_max: usize,
    /// Teams of one look.
    pub behind_teams_max: usize,
}

/// Limits of the job that removes changes that are old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedSweepConfig {
    /// How long they are kept.
    pub keep: Duration,
    /// How often it looks.
    pub interval: Duration,
    /// Rows of one statement.
    pub rows_max: u32,
}

impl Default for StandingOptions {
    fn default() -> Self {
        Self {
            debt_limit_tokens: -1,
            steps_max: Count::of(32),
            streams_max: Count::of(64),
            poll_interval_ms: Millis::from_millis(100),
            heartbeat_ms: Millis::from_millis(1_000),
            message_teams_max: Count::of(1_000),
            behind_teams_max: Count::of(500_000),
            keep_ms: Millis::from_millis(900_000),
            sweep_interval_ms: Millis::from_millis(30_000),
            sweep_rows_max: Count::of(10_000),
        }
    }
}

impl StandingOptions {
    /// As the handlers take it, once it is checked.
    #[must_use]
    pub fn limits(&self) -> StandingLimits {
        let limit = (self.debt_limit_tokens >= 0).then(|| self.debt_limit_tokens.saturating_mul(1_000_000));
        StandingLimits { debt_limit: limit.map(MicroTokens::from_micros), steps_max: self.steps_max.get() }
    }

    /// Checks all values.
    ///
    /// # Errors
    /// Every problem, by the path inside the section.
    pub fn validate(&self) -> Result<StandingConfig, Vec<Problem>> {
        let mut problems = Problems::new();
        let fits = self.debt_limit_tokens <= DEBT_LIMIT_TOKENS_MAX;
        problems.ensure(fits, "debt_limit_tokens", format!("is above {DEBT_LIMIT_TOKENS_MAX}"));
        problems.finish(Some(StandingConfig {
            feed: FeedConfig {
                streams_max: self.streams_max.get(),
                poll_interval: self.poll_interval_ms.duration(),
                heartbeat: self.heartbeat_ms.duration(),
                message_teams_max: self.message_teams_max.get(),
                behind_teams_max: self.behind_teams_max.get(),
            },
            sweep: FeedSweepConfig {
                keep: self.keep_ms.duration(),
                interval: self.sweep_interval_ms.duration(),
                rows_max: self.sweep_rows_max.get_u32(),
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_nothing_is_a_limit_and_one_below_it_is_none() {
        let limit = |debt_limit_tokens| {
            let options = StandingOptions { debt_limit_tokens, ..StandingOptions::default() };
            options.validate().map(|_| options.limits().debt_limit.map(MicroTokens::as_micros))
        };
        assert_eq!(limit(-1).unwrap(), None);
        assert_eq!(limit(0).unwrap(), Some(0));
        assert_eq!(limit(5).unwrap(), Some(5_000_000));
        let problems = limit(DEBT_LIMIT_TOKENS_MAX + 1).unwrap_err();
        assert_eq!(problems.into_iter().map(|p| p.field).collect::<Vec<_>>(), ["debt_limit_tokens"]);
    }
}
