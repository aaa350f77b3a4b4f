//! Tells the ledger of apps that got their first team, so that it charges what they used before (D49).
//!
//! What has to be told is a row that the act of assigning writes in its own transaction, so nothing is lost
//! where this service stops between the two. A row is due at the edge from which the app has the team: by then its
//! client ids are known. The ledger is called without a lock held, under a request id that is made of the row and
//! of what is told, so telling it twice does nothing twice; the row is done when the ledger has answered. What
//! comes later for windows from before the edge is the ledger's own concern.

use std::{sync::Arc, time::Duration};

use drawdown_entitlement_core::plan::UsageScope;
use drawdown_types::Clock;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Parts,
    ledger::{Adopts, CLIENT_IDS_MAX, FirstTeam},
    store::{DueAdoption, Store},
};

/// Limits of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdoptionConfig {
    /// How often it looks.
    pub interval: Duration,
    /// Rows that one look reads at a time.
    pub rows_max: u32,
}

/// The job.
pub struct Adoptions {
    store: Store,
    clock: Arc<dyn Clock>,
    ledger: Arc<dyn Adopts>,
    config: AdoptionConfig,
}

// === impl Adoptions ===

impl Adoptions {
    /// Over the database and the clock of `parts`.
    #[must_use]
    pub fn new(parts: &Parts, ledger: Arc<dyn Adopts>, config: AdoptionConfig) -> Self {
        let (store, clock) = (Store::new(parts.pool.clone()), Arc::clone(&parts.clock));
        Self { store, clock, ledger, config }
    }

    /// Looks again and again until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.config.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = self.look().await {
                let error = anyhow::Error::from(error);
                tracing::warn!(error.chain = %drawdown_service::refusal::chain(&error), "apps with a first team could not be read");
            }
        }
    }

    /// One look; gives how many apps were told. One that the ledger does not take is logged and tried again by
    /// the next look, and does not stop the others.
    ///
    /// # Errors
    /// Where the database does not play along.
    pub async fn look(&self) -> Result<usize, Error> {
        let (mut told, mut after) = (0_usize, 0);
        loop {
            let due = self.store.due_adoptions(self.clock.now(), after, self.config.rows_max).await?;
            let Some(last) = due.last() else { return Ok(told) };
            after = last.adoption_id;
            for adoption in &due {
                match self.tell(adoption).await {
                    Ok(()) => {
                        self.store.adoption_done(adoption.adoption_id, self.clock.now()).await?;
                        told = told.saturating_add(1);
                    }
                    Err(error) => {
                        let error = anyhow::Error::from(error);
                        tracing::warn!(
                            app = %adoption.app_id,
                            error.chain = %drawdown_service::refusal::chain(&error),
                            "the ledger could not be told of an app's first team"
                        );
                    }
                }
            }
        }
    }

    /// Tells it all client ids of the app, a page at a time.
    async fn tell(&self, adoption: &DueAdoption) -> Result<(), Error> {
        let rows = i64::try_from(CLIENT_IDS_MAX).unwrap_or(i64::MAX);
        let mut after = String::new();
        loop {
            let page = self.store.client_ids(UsageScope::App(adoption.app_id), &after, rows).await?;
            let Some(last) = page.last().cloned() else { return Ok(()) };
            let whole = page.len() == CLIENT_IDS_MAX;
            let first_team = FirstTeam {
                account_id: adoption.account_id,
                account_since: adoption.account_since,
                team_id: adoption.team_id,
                app_id: adoption.app_id,
                assigned_from: adoption.assigned_from,
                request_id: request_id(adoption.adoption_id, &page),
                client_ids: page,
            };
            self.ledger.adopt(first_team).await.map_err(|status| Error::Ledger(Box::new(status)))?;
            if !whole {
                return Ok(());
            }
            after = last;
        }
    }
}

/// The same for the same client ids; another where a credential was made since the last attempt.
fn request_id(adoption_id: i64, client_ids: &[String]) -> String {
    let hash = client_ids
        .iter()
        .fold(Sha256::new(), |hash, client_id| hash.chain_update(client_id).chain_update([0]))
        .finalize();
    let short: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("adopt-{adoption_id}-{short}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_names_the_row_and_what_is_told() {
        let ids = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let one = request_id(1, &ids(&["ab", "c"]));
        assert_eq!(one, request_id(1, &ids(&["ab", "c"])));
        for other in [
            request_id(2, &ids(&["ab", "c"])),
            request_id(1, &ids(&["a", "bc"])),
            request_id(1, &ids(&["ab"])),
        ] {
            assert_ne!(one, other);
        }
        assert!(one.len() <= 128);
    }
}
