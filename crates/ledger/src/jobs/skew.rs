//! Measures how far this clock and the database's are apart. Instants of postings come from this one; a
//! ledger beside it on another machine has its own, and a team's instants never go back (D40): a clock
//! that is far ahead would carry the teams with it.

use std::{sync::Arc, time::Duration};

use drawdown_types::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::{config::SkewConfig, error::Error, service::Ledger, store::clock};

/// The job.
pub struct Skew {
    ledger: Arc<Ledger>,
    config: SkewConfig,
}

impl Skew {
    /// Over this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>, config: SkewConfig) -> Self {
        Self { ledger, config }
    }

    /// Measures again and again until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(self.config.interval);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            match self.measure().await {
                Ok((ahead, behind)) => self.tell(ahead, behind),
                Err(error) => tracing::warn!(%error, "the database's clock can not be read"),
            }
        }
    }

    /// How far this clock is ahead, and how far it is behind; what the question took is neither.
    async fn measure(&self) -> Result<(Duration, Duration), Error> {
        let asked: Timestamp = self.ledger.clock.now();
        let theirs = clock::now(&mut *self.ledger.pool.read().await?).await?;
        let answered = self.ledger.clock.now();
        Ok((asked.saturating_since(theirs), theirs.saturating_since(answered)))
    }

    fn tell(&self, ahead: Duration, behind: Duration) {
        self.ledger.metrics.skew(ahead.as_secs_f64() - behind.as_secs_f64());
        if ahead.max(behind) > self.config.alarm {
            let (ahead_ms, behind_ms) = (ahead.as_millis(), behind.as_millis());
            tracing::error!(%ahead_ms, %behind_ms, "this clock and the database's are too far apart");
        }
    }
}
