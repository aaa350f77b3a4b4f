//! Makes the partitions of charges, journal and events by id ahead, forgets old ids, and tells how it stands with the
//! first two.
//!
//! No posting waits for this: rows of a month without a partition go to the default ones, which is the alarm
//! `ledger.partitions.default.used`. A look that does not get its lock within half a second fails, so that it holds up
//! nobody, and the next one tries again; months are made long before they are needed.

use std::{sync::Arc, time::Duration};

use drawdown_types::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::{
    config::MonthsConfig,
    error::Error,
    service::{Ledger, connection},
    store::{events, partitions},
};

/// The job.
pub struct Months {
    ledger: Arc<Ledger>,
    config: MonthsConfig,
}

// === impl Months ===

impl Months {
    /// Over this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>, config: MonthsConfig) -> Self {
        Self { ledger, config }
    }

    /// Looks again and again until it is told to stop; the first look was made by [`Self::attempt`].
    pub async fn run(self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(self.config.interval);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        interval.tick().await;
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            self.attempt().await;
        }
    }

    /// One look that may fail: a service begins without its months if it has to.
    pub async fn attempt(&self) {
        if let Err(error) = self.look().await {
            self.ledger.metrics.failure(&error);
            let error = anyhow::Error::from(error);
            tracing::warn!(error.chain = %drawdown_service::refusal::chain(&error), "partitions could not be made ahead");
        }
    }

    /// One look; gives the number of partitions that were made.
    ///
    /// # Errors
    /// Where the database does not play along, or somebody held a lock for long.
    pub async fn look(&self) -> Result<i32, Error> {
        let now = self.ledger.clock.now();
        let ahead = i32::try_from(self.config.ahead).unwrap_or(i32::MAX);
        let mut tx = self.ledger.begin().await?;
        let made = partitions::make_in_tx(connection(&mut tx), now, ahead).await;
        // What is there is told in any case: that nothing could be made is when it matters.
        let made = match made {
            Ok(made) => tx.commit().await.map(|()| made).map_err(Error::from),
            Err(error) => tx.rollback().await.map_err(Error::from).and(Err(error)),
        };
        let events = self.look_at_events(now, ahead).await;
        let ahead = partitions::ahead(&mut *self.ledger.pool.read().await?, now).await?;
        self.ledger.metrics.partitions(ahead.months, ahead.default_is_empty);
        if !ahead.default_is_empty {
            tracing::error!(
                "rows are in a default partition: `drawdown ledger partitions cut` gives them their months"
            );
        }
        events?;
        made
    }

    /// Months of events by id: made like the others, and forgotten when nothing of them has to be known any more.
    async fn look_at_events(&self, now: Timestamp, ahead: i32) -> Result<(), Error> {
        let secs = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let limits = self.ledger.events();
        let mut tx = self.ledger.begin().await?;
        events::make_months_in_tx(connection(&mut tx), now, ahead).await?;
        let (keep, ahead) = (secs(limits.keep), secs(limits.ahead_max));
        let forgotten = events::forget_in_tx(connection(&mut tx), now, keep, ahead).await?;
        tx.commit().await?;
        if forgotten > 0 {
            tracing::info!(months = forgotten, "ids of events were forgotten");
        }
        Ok(())
    }
}
