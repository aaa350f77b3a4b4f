//! Compares the clock with the database's now and then, and sounds the alarm where they differ too
//! much: every edge is found on the one, every other service's instants may come from the other.

use std::{sync::Arc, time::Duration};

use drawdown_types::{Clock, Timestamp};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::{metrics::Metrics, store::Store};

/// What the loop needs.
pub(crate) struct ClockCheck {
    pub(crate) store: Store,
    pub(crate) pool: PgPool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    pub(crate) interval: Duration,
    pub(crate) alarm: Duration,
}

impl ClockCheck {
    /// Runs until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            self.connections();
            let before = self.clock.now();
            match self.store.database_now().await {
                Ok(database) => self.compare(before, database, self.clock.now()),
                Err(error) => {
                    tracing::warn!(error = %error, "the clock can not be compared with the database's");
                }
            }
        }
    }

    /// The database read its clock between `before` and `after`: nothing inside of that is a skew.
    fn compare(&self, before: Timestamp, database: Timestamp, after: Timestamp) {
        let ahead = before.saturating_since(database);
        let behind = database.saturating_since(after);
        self.metrics.clock_skew(ahead.as_secs_f64() - behind.as_secs_f64());
        if ahead.max(behind) > self.alarm {
            tracing::error!(
                ahead_ms = %ahead.as_millis(),
                behind_ms = %behind.as_millis(),
                "this clock and the database's differ"
            );
        }
    }

    fn connections(&self) {
        let idle = u64::try_from(self.pool.num_idle()).unwrap_or_default();
        self.metrics.connections(u64::from(self.pool.size()).saturating_sub(idle), idle);
    }
}
