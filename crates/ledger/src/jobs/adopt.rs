//! Adopts usage of apps from before their first team (D49): of every registered app whose client ids have
//! usage that nobody has looked at.
//!
//! A look goes through these apps by id, each in chunks of at most so many lines, each a transaction of its own
//! under the lock of its team; what was charged is decided, so a look that was cut short goes on where it was,
//! and two at once do nothing twice. What can not be charged stays open and is tried again when more usage of the
//! app arrives. One app that can not be worked on does not stop the others.

use std::sync::Arc;

use drawdown_types::AppId;
use tokio_util::sync::CancellationToken;

use crate::{
    config::AdoptionConfig,
    error::Error,
    service::Ledger,
    store::adoption::{self, Adoption},
};

/// Apps that are read at a time.
const APPS_PAGE: i64 = 100;

/// The job.
pub struct Adopt {
    ledger: Arc<Ledger>,
    config: AdoptionConfig,
}

// === impl Adopt ===

impl Adopt {
    /// Over this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>, config: AdoptionConfig) -> Self {
        Self { ledger, config }
    }

    /// Looks whenever an app was registered, and again and again, until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(self.config.interval);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
                () = self.ledger.adopted.notified() => {}
            }
            if let Err(error) = self.look().await {
                self.failed(error, "apps with usage to adopt could not be looked for");
            }
        }
    }

    /// One look; gives the number of lines that were charged.
    ///
    /// # Errors
    /// Where the apps can not be read; an app that can not be worked on is logged and tried again by the next
    /// look.
    pub async fn look(&self) -> Result<usize, Error> {
        let mut charged = 0_usize;
        let mut after: Option<AppId> = None;
        loop {
            let due = adoption::due(&mut *self.ledger.pool.read().await?, after, APPS_PAGE).await?;
            let Some(last) = due.last() else { return Ok(charged) };
            after = Some(last.app_id);
            for adopted in &due {
                match self.work(adopted).await {
                    Ok(lines) => charged = charged.saturating_add(lines),
                    Err(error) => self.failed(error, "usage of an app could not be adopted"),
                }
            }
        }
    }

    async fn work(&self, adopted: &Adoption) -> Result<usize, Error> {
        let facts = self.ledger.team_facts(adopted.team_id).await?;
        let (mut charged, mut place) = (0_usize, None);
        for _ in 0..self.config.rounds_max {
            let chunk =
                self.ledger.adopt_chunk(adopted, &facts, place.as_ref(), self.config.lines_max).await?;
            charged = charged.saturating_add(chunk.charged);
            if chunk.left > 0 {
                tracing::error!(app = %adopted.app_id, lines = chunk.left, "usage to adopt does not fit and stays in review");
            }
            place = chunk.next;
            if place.is_none() {
                break;
            }
        }
        Ok(charged)
    }

    fn failed(&self, error: Error, what: &'static str) {
        self.ledger.metrics.failure(&error);
        let error = anyhow::Error::from(error);
        tracing::warn!(error.chain = %drawdown_service::refusal::chain(&error), "{what}");
    }
}
