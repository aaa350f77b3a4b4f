//! Rolls charges up into usage by hour and by day, once nothing received in time for their windows can still come.
//!
//! A look is a number of small transactions, each of some teams and of so many of each one's next charges. It is
//! idempotent: a team's place says what is in the sums and moves in the transaction that writes them. Teams whose
//! place somebody else has are skipped. No answer hangs on whether or when this runs: reports add what is newer.

use std::sync::Arc;

use drawdown_types::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::{
    config::CompactConfig,
    error::Error,
    service::{Ledger, connection},
    store::rollups,
};

const DAY_MICROS: i64 = 86_400_000_000;

/// The job.
pub struct Compact {
    ledger: Arc<Ledger>,
    config: CompactConfig,
}

// === impl Compact ===

impl Compact {
    /// Over this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>, config: CompactConfig) -> Self {
        Self { ledger, config }
    }

    /// Looks again and again until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(self.config.interval);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            if let Err(error) = self.look().await {
                self.ledger.metrics.failure(&error);
                let error = anyhow::Error::from(error);
                tracing::warn!(error.chain = %drawdown_service::refusal::chain(&error), "usage could not be rolled up");
            }
        }
    }

    /// One look; gives the number of charges that were rolled up.
    ///
    /// # Errors
    /// Where the database does not play along; what was committed before stays.
    pub async fn look(&self) -> Result<i64, Error> {
        self.up_to(self.closed_before(self.ledger.clock.now())).await
    }

    /// Rolls up everything posted before an instant.
    ///
    /// # Errors
    /// Where the database does not play along; what was committed before stays.
    pub async fn up_to(&self, before: Timestamp) -> Result<i64, Error> {
        let mut tx = self.ledger.begin().await?;
        rollups::begin(connection(&mut tx)).await?;
        tx.commit().await?;
        let mut rolled = 0_i64;
        for _ in 0..self.config.rounds_max {
            let charges = self.round(before).await?;
            self.ledger.metrics.rolled_up(charges);
            rolled = rolled.saturating_add(charges);
            if charges == 0 {
                break;
            }
        }
        Ok(rolled)
    }

    async fn round(&self, before: Timestamp) -> Result<i64, Error> {
        let mut tx = self.ledger.begin().await?;
        let places = rollups::claim_in_tx(connection(&mut tx), before, self.config.teams_max.into()).await?;
        if places.is_empty() {
            return Ok(0);
        }
        // A later statement than the lock: its snapshot has what was posted before the place was had.
        let rows = self.config.rows_max.into();
        let rolled = rollups::roll_up_in_tx(connection(&mut tx), &places, before, rows).await?;
        tx.commit().await?;
        Ok(rolled)
    }

    /// Usage posted before this instant is of closed windows: they ended by then, and what was received in time for
    /// them (D9) is settled, if settlement did not stand still for longer than its allowance (D55). The instant is that of
    /// a day's start, and a little later, so that the last windows of a day are rolled up with it.
    fn closed_before(&self, now: Timestamp) -> Timestamp {
        let slack = self.config.slack;
        let wait = self.ledger.settings.lateness_limit.saturating_add(slack);
        let settled = self.ledger.settled_until(now).checked_sub(wait).unwrap_or(Timestamp::MIN);
        let day = settled.as_micros().div_euclid(DAY_MICROS).saturating_mul(DAY_MICROS);
        let day = Timestamp::from_micros(day).unwrap_or(Timestamp::MIN);
        day.checked_add(slack).unwrap_or(day)
    }
}
