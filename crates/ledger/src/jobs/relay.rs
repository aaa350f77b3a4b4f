//! Gives facts their places in the order once they are committed, tells the streams of this process, and
//! removes facts that are old.
//!
//! Every ledger runs one; the lock of the head lets one at a time give places. What wakes it is a commit of
//! this process; the interval is for those of others, so nothing has to listen on a connection, which a
//! pooler would not allow. A look that finds nothing costs two short reads.

use std::sync::Arc;

use drawdown_types::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::{
    config::RelayConfig,
    error::Error,
    service::{Ledger, connection},
    store::outbox,
};

/// The job.
pub struct Relay {
    ledger: Arc<Ledger>,
    config: RelayConfig,
}

// === impl Relay ===

impl Relay {
    /// Over this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>, config: RelayConfig) -> Self {
        Self { ledger, config }
    }

    /// Looks again and again until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(self.config.interval);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sweep = tokio::time::interval(self.config.sweep_interval);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                () = self.ledger.fresh.notified() => self.look().await.map(drop),
                _ = interval.tick() => self.look().await.map(drop),
                _ = sweep.tick() => self.sweep().await.map(drop),
            };
            if let Err(error) = outcome {
                self.ledger.metrics.failure(&error);
                let error = anyhow::Error::from(error);
                tracing::warn!(error.chain = %drawdown_service::refusal::chain(&error), "notices could not be relayed");
            }
        }
    }

    /// One look: gives places to everything that is committed, and tells the streams where the order stands.
    /// Gives how many facts have their place now that had none before.
    ///
    /// # Errors
    /// Where the database does not play along; what was committed before stays.
    pub async fn look(&self) -> Result<u64, Error> {
        let mut placed = 0_u64;
        while let Some(oldest) = self.oldest_pending().await? {
            self.ledger.metrics.notice_lag(self.ledger.clock.now().saturating_since(oldest));
            let more = self.place().await?;
            placed = placed.saturating_add(more);
            if more == 0 {
                // Another one gave them their places in between.
                break;
            }
        }
        self.ledger.metrics.notice_lag(std::time::Duration::ZERO);
        let head = outbox::head(&mut *self.ledger.pool.read().await?).await?;
        self.ledger.head.send_if_modified(|known| known.replace(head) != Some(head));
        Ok(placed)
    }

    async fn oldest_pending(&self) -> Result<Option<Timestamp>, Error> {
        outbox::oldest_pending(&mut *self.ledger.pool.read().await?).await
    }

    async fn place(&self) -> Result<u64, Error> {
        let mut tx = self.ledger.begin().await?;
        outbox::lock_in_tx(connection(&mut tx)).await?;
        // A later statement than the lock: what another relay placed while this one waited has a place now.
        let placed = outbox::place_in_tx(connection(&mut tx), self.config.rows_max.into()).await?;
        tx.commit().await?;
        let mut sum = 0_u64;
        for (kind, count) in placed {
            let count = u64::try_from(count).unwrap_or_default();
            self.ledger.metrics.noted(&kind, count);
            sum = sum.saturating_add(count);
        }
        Ok(sum)
    }

    /// Removes facts that are older than they are kept; gives how many went.
    ///
    /// # Errors
    /// Where the database does not play along; what was committed before stays.
    pub async fn sweep(&self) -> Result<u64, Error> {
        let now = self.ledger.clock.now();
        let before = now.checked_sub(self.config.retention).unwrap_or(Timestamp::MIN);
        let mut swept = 0_u64;
        loop {
            let mut tx = self.ledger.begin().await?;
            outbox::lock_in_tx(connection(&mut tx)).await?;
            let gone =
                outbox::sweep_in_tx(connection(&mut tx), before, self.config.sweep_rows_max.into()).await?;
            tx.commit().await?;
            swept = swept.saturating_add(gone);
            if gone < self.config.sweep_rows_max.into() {
                return Ok(swept);
            }
        }
    }
}
