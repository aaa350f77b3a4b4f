//! Rolls forward the teams that have something due: lots that close, lots that start while their team
//! owes, and facts that time alone makes true, such as a lot near its expiry.
//!
//! A look is a number of small transactions, each of at most so many teams, which it locks in the order
//! of all writers and skipping those that are locked. It is idempotent: what is due is read under the
//! lock. Where nobody posts to a team, this is what turns a closing lot into a journal row.

use std::{collections::HashSet, sync::Arc};

use drawdown_ledger_core::roll_forward;
use tokio_util::sync::CancellationToken;

use crate::{
    config::DueConfig,
    error::Error,
    noting,
    posting::closed,
    service::{Ledger, connection},
    store::{
        due, teams,
        write::{self, LotNote, PlanRows, TeamUsage},
    },
};

/// The job.
pub struct Due {
    ledger: Arc<Ledger>,
    config: DueConfig,
}

// === impl Due ===

impl Due {
    /// Over this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>, config: DueConfig) -> Self {
        Self { ledger, config }
    }

    /// Looks again and again until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(self.config.interval);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first tick is at once: after a standstill, batches that wait must get here before a close does.
        interval.tick().await;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            if let Err(error) = self.look().await {
                self.ledger.metrics.failure(&error);
                let error = anyhow::Error::from(error);
                tracing::warn!(error.chain = %drawdown_service::refusal::chain(&error), "lots that are due could not be looked at");
            }
        }
    }

    /// One look; gives the number of teams that were rolled forward.
    ///
    /// # Errors
    /// Where the database does not play along; what was committed before stays.
    pub async fn look(&self) -> Result<usize, Error> {
        let mut rolled = 0_usize;
        for _ in 0..self.config.rounds_max {
            let (teams, changed) = self.round().await?;
            rolled = rolled.saturating_add(changed);
            if teams < usize::try_from(self.config.teams_max).unwrap_or(usize::MAX) {
                break;
            }
        }
        Ok(rolled)
    }

    /// The teams that were due and those of them that something became of: a look at the same moment may have dealt
    /// with one between this one's choice and its lock.
    async fn round(&self) -> Result<(usize, usize), Error> {
        let ledger = &self.ledger;
        let mut tx = ledger.begin().await?;
        let at = connection(&mut tx);
        let now = ledger.clock.now();
        let until = ledger.settled_until(now);
        let ids = due::lock_in_tx(at, now, until, self.config.teams_max.into()).await?;
        if ids.is_empty() {
            return Ok((0, 0));
        }
        let (mut stored, _) = teams::load_in_tx(at, &ids, &[]).await?;
        let mut teams: Vec<_> = stored.iter().map(|stored| stored.team.clone()).collect();
        let plan = roll_forward(&mut teams, now, until, &ledger.settings);
        let noted = noting::advance(&mut stored, teams, &plan, now, &ledger.notice_rules, &ledger.settings);
        let balances: Vec<_> = stored
            .iter()
            .map(|stored| {
                let usage = TeamUsage {
                    charges: stored.charges,
                    last_window: stored.last_window,
                    watch: stored.watch,
                };
                (&stored.team.balance, usage)
            })
            .collect();
        let rows = PlanRows {
            batch: (0, 0),
            charges: &[],
            plan: &plan,
            balances: &balances,
            noted: &noted,
            note: &LotNote::default(),
            sub_batch: ledger.limits.sub_batch_lines,
        };
        write::write_in_tx(at, &rows).await?;
        tx.commit().await?;
        let (lots, expired) = closed(&plan);
        ledger.metrics.lots_closed(lots, expired);
        if !noted.notices.is_empty() {
            ledger.fresh.notify_one();
        }
        let moved = plan.balances.iter().map(|balance| balance.team_id);
        let changed: HashSet<_> = moved.chain(noted.notices.iter().map(|notice| notice.team_id)).collect();
        Ok((ids.len(), changed.len()))
    }
}
