//! Forgets which teams changed once it is old: readers that are further behind begin anew.

use std::sync::Arc;

use drawdown_types::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::{config::FeedSweepConfig, error::Error, service::Ledger, store::standings};

/// The job.
pub struct FeedSweep {
    ledger: Arc<Ledger>,
    config: FeedSweepConfig,
}

// === impl FeedSweep ===

impl FeedSweep {
    /// Over this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>, config: FeedSweepConfig) -> Self {
        Self { ledger, config }
    }

    /// Looks again and again until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(self.config.interval);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            if let Err(error) = self.look().await {
                self.ledger.metrics.failure(&error);
                let error = anyhow::Error::from(error);
                tracing::warn!(error.chain = %drawdown_service::refusal::chain(&error), "old changes of teams could not be removed");
            }
        }
    }

    /// Removes what is older than it is kept; gives how many rows went.
    ///
    /// # Errors
    /// Where the database does not play along; what was removed before stays so.
    pub async fn look(&self) -> Result<u64, Error> {
        let before = self.ledger.clock.now().checked_sub(self.config.keep).unwrap_or(Timestamp::MIN);
        let mut removed = 0_u64;
        loop {
            let mut tx = self.ledger.begin().await?;
            let gone = standings::forget(&mut tx, before, self.config.rows_max.into()).await?;
            tx.commit().await?;
            removed = removed.saturating_add(gone);
            if gone < self.config.rows_max.into() {
                return Ok(removed);
            }
        }
    }
}
