//! The section `[ledger.notices]`: what others are told, how it is handed out and how long it is kept.

use std::time::Duration;

use drawdown_ledger_core::{NoticeRules, NoticeRulesError};
use drawdown_service::{
    Problem,
    config::{Count, Millis, Problems},
};
use serde::Deserialize;

const GRACE_SECS_MAX: u64 = 366 * 86_400;
const RETENTION_SECS_MAX: u64 = 10 * 366 * 86_400;

/// The section as read.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NoticeOptions {
    /// Levels of what is left, in percent of what the open lots were granted, ascending (D30).
    pub levels_percent: Vec<u8>,
    /// Percentage points above a level at which it can be told again without a new lot.
    pub rearm_points: u8,
    /// Days before the expiry of a lot, ascending (D32).
    pub expiring_days: Vec<u16>,
    /// How long a team may stay below zero, in seconds (D21).
    pub grace_secs: u64,
    /// How often facts that are committed are given their places where nothing wakes the relay, in ms.
    pub relay_interval_ms: Millis,
    /// The most facts that one transaction of the relay gives places to.
    pub relay_rows_max: Count,
    /// How long a fact is kept, in seconds.
    pub retention_secs: u64,
    /// How often old facts are looked for, in ms.
    pub sweep_interval_ms: Millis,
    /// The most facts that one statement removes.
    pub sweep_rows_max: Count,
    /// The most streams of facts at once.
    pub streams_max: Count,
    /// After how long without a fact a stream tells its cursor, in ms.
    pub heartbeat_ms: Millis,
    /// The most facts of one message of a stream.
    pub message_rows_max: Count,
}

/// Checked [`NoticeOptions`].
#[derive(Clone, Debug)]
pub struct NoticeConfig {
    /// What others are told.
    pub rules: NoticeRules,
    /// Limits of the relay.
    pub relay: RelayConfig,
    /// Limits of streams.
    pub watch: WatchConfig,
}

/// Limits of the job that gives places and removes what is old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayConfig {
    /// How often it looks.
    pub interval: Duration,
    /// Facts of one transaction.
    pub rows_max: u32,
    /// How long a fact is kept.
    pub retention: Duration,
    /// How often old facts are looked for.
    pub sweep_interval: Duration,
    /// Facts that one statement removes.
    pub sweep_rows_max: u32,
}

/// Limits of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchConfig {
    /// Streams at once.
    pub streams_max: usize,
    /// After how long without a fact it tells its cursor.
    pub heartbeat: Duration,
    /// Facts of one message.
    pub rows_max: u32,
}

impl Default for NoticeOptions {
    fn default() -> Self {
        let rules = NoticeRules::default();
        Self {
            levels_percent: rules.levels().to_vec(),
            rearm_points: rules.rearm_points(),
            expiring_days: rules.expiring_days().to_vec(),
            grace_secs: rules.grace().as_secs(),
            relay_interval_ms: Millis::from_millis(500),
            relay_rows_max: Count::of(5_000),
            retention_secs: 90 * 86_400,
            sweep_interval_ms: Millis::from_millis(60_000),
            sweep_rows_max: Count::of(10_000),
            streams_max: Count::of(64),
            heartbeat_ms: Millis::from_millis(15_000),
            message_rows_max: Count::of(500),
        }
    }
}

impl NoticeOptions {
    /// Checks all values.
    ///
    /// # Errors
    /// Every problem, by the path inside the section.
    pub fn validate(&self) -> Result<NoticeConfig, Vec<Problem>> {
        let mut problems = Problems::new();
        let fits = (1..=GRACE_SECS_MAX).contains(&self.grace_secs);
        problems.ensure(fits, "grace_secs", format!("is not between 1 and {GRACE_SECS_MAX}"));
        let fits = (1..=RETENTION_SECS_MAX).contains(&self.retention_secs);
        problems.ensure(fits, "retention_secs", format!("is not between 1 and {RETENTION_SECS_MAX}"));
        let grace = Duration::from_secs(self.grace_secs);
        let rules = NoticeRules::new(&self.levels_percent, self.rearm_points, &self.expiring_days, grace);
        let rules = rules
            .map_err(|error| {
                let field = match error {
                    NoticeRulesError::Levels => "levels_percent",
                    NoticeRulesError::Margin => "rearm_points",
                    NoticeRulesError::Days => "expiring_days",
                };
                problems.push(field, error.to_string());
            })
            .ok();
        let relay = RelayConfig {
            interval: self.relay_interval_ms.duration(),
            rows_max: self.relay_rows_max.get_u32(),
            retention: Duration::from_secs(self.retention_secs),
            sweep_interval: self.sweep_interval_ms.duration(),
            sweep_rows_max: self.sweep_rows_max.get_u32(),
        };
        let watch = WatchConfig {
            streams_max: self.streams_max.get(),
            heartbeat: self.heartbeat_ms.duration(),
            rows_max: self.message_rows_max.get_u32(),
        };
        problems.finish(rules.map(|rules| NoticeConfig { rules, relay, watch }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_value_is_named_at_once() {
        let wrong = |options: NoticeOptions| {
            let problems = options.validate().unwrap_err();
            problems.into_iter().map(|problem| problem.field).collect::<Vec<_>>()
        };
        let options = NoticeOptions {
            levels_percent: vec![50, 20],
            grace_secs: 0,
            retention_secs: 0,
            ..Default::default()
        };
        assert_eq!(wrong(options), ["grace_secs", "retention_secs", "levels_percent"]);
        assert_eq!(wrong(NoticeOptions { rearm_points: 100, ..Default::default() }), ["rearm_points"]);
        assert_eq!(
            wrong(NoticeOptions { expiring_days: vec![30, 7], ..Default::default() }),
            ["expiring_days"]
        );
        assert!(NoticeOptions { levels_percent: Vec::new(), ..Default::default() }.validate().is_ok());
    }
}
