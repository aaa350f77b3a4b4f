//! Rolls forward the teams that have something due: lots that close, lots that start while their team
//! owes, and facts that time alone makes true, such as a lot near its expiry.
//!
//! A look is a number of small transactions, each of at most so many teams, which it locks in the order
//! of all writers and skipping those that are locked. It is idempotent: what is due is read under the
//! lock. Where nobody posts to a team, this is what turns a closing lot into a journal row.
//!
//! Where the database refuses the rows of a round by their content, each of its teams is tried alone, and those that
//! fail are set apart: the others go on.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use drawdown_ledger_core::{Plan, roll_forward};
use drawdown_types::{TeamId, Timestamp};
use sqlx::{Postgres, Transaction};
use tokio_util::sync::CancellationToken;

use crate::{
    config::DueConfig,
    error::Error,
    noting,
    posting::{closed, is_by_content},
    service::{Ledger, connection},
    store::{
        due::{self, Which},
        teams,
        write::{self, LotNote, Noted, PlanRows, TeamUsage},
    },
};

/// The job.
pub struct Due {
    ledger: Arc<Ledger>,
    config: DueConfig,
    /// Teams whose rows the database refuses.
    apart: Mutex<BTreeSet<TeamId>>,
}

/// A round that was undone, and the teams that it was about.
struct Failed {
    teams: Vec<TeamId>,
    error: Error,
}

// === impl Due ===

impl Due {
    /// Over this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>, config: DueConfig) -> Self {
        Self { ledger, config, apart: Mutex::new(BTreeSet::new()) }
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
    /// Where the database does not play along; what was committed before stays. A team whose rows it refuses is set
    /// apart, and looked at alone by every look after the others: it stops none of them.
    pub async fn look(&self) -> Result<usize, Error> {
        let mut rolled = 0_usize;
        let again = self.apart();
        for _ in 0..self.config.rounds_max {
            let (teams, changed) = match self.round(Which::But(&self.apart())).await {
                Err(failed) if is_by_content(&failed.error) => {
                    (failed.teams.len(), self.one_by_one(failed).await?)
                }
                outcome => outcome.map_err(|failed| failed.error)?,
            };
            rolled = rolled.saturating_add(changed);
            if teams < usize::try_from(self.config.teams_max).unwrap_or(usize::MAX) {
                break;
            }
        }
        for team in again {
            rolled = rolled.saturating_add(self.alone(team).await?);
        }
        Ok(rolled)
    }

    /// Each team of a round that failed alone, so that only those fail that the database refuses rows of.
    async fn one_by_one(&self, failed: Failed) -> Result<usize, Error> {
        let mut rolled = 0_usize;
        let before = self.apart().len();
        for team in failed.teams {
            rolled = rolled.saturating_add(self.alone(team).await?);
        }
        if self.apart().len() == before && rolled == 0 {
            // None of them is to blame, and none came further: the next look may do better.
            return Err(failed.error);
        }
        Ok(rolled)
    }

    /// One team; where the database refuses its rows, it is set apart.
    async fn alone(&self, team: TeamId) -> Result<usize, Error> {
        match self.round(Which::Only(team)).await {
            Ok((_, changed)) => {
                if self.lock().remove(&team) {
                    tracing::info!(team.id = %team, "a team that was set apart can be rolled forward again");
                }
                Ok(changed)
            }
            Err(Failed { error, .. }) if is_by_content(&error) => {
                self.ledger.metrics.due_refused();
                if self.lock().insert(team) {
                    let error = anyhow::Error::from(error);
                    tracing::error!(
                        team.id = %team,
                        error.chain = %drawdown_service::refusal::chain(&error),
                        "a team can not be rolled forward, and is set apart"
                    );
                }
                Ok(0)
            }
            Err(failed) => Err(failed.error),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<TeamId>> {
        self.apart.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apart(&self) -> Vec<TeamId> {
        self.lock().iter().copied().collect()
    }

    /// The teams that were due and those of them that something became of: a look at the same moment may have dealt
    /// with one between this one's choice and its lock.
    async fn round(&self, which: Which<'_>) -> Result<(usize, usize), Failed> {
        let ledger = &self.ledger;
        let nobody = |error| Failed { teams: Vec::new(), error };
        let mut tx = ledger.begin().await.map_err(nobody)?;
        let now = ledger.clock.now();
        let until = ledger.settled_until(now);
        let limit = self.config.teams_max.into();
        let teams = due::lock_in_tx(connection(&mut tx), now, until, limit, which).await.map_err(nobody)?;
        if teams.is_empty() {
            return Ok((0, 0));
        }
        match self.roll(&mut tx, &teams, now, until).await {
            Ok(rolled) => {
                if let Err(error) = tx.commit().await {
                    return Err(Failed { teams, error: error.into() });
                }
                Ok((teams.len(), self.told(&rolled)))
            }
            Err(error) => {
                // Before anything else looks at them: who is locked is left out. A connection that is gone has no locks.
                let _taken_back = tx.rollback().await;
                Err(Failed { teams, error })
            }
        }
    }

    /// Rolls locked teams forward.
    async fn roll(
        &self,
        tx: &mut Transaction<'static, Postgres>,
        ids: &[TeamId],
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Rolled, Error> {
        let ledger = &self.ledger;
        let at = connection(tx);
        let (mut stored, _) = teams::load_in_tx(at, ids, &[]).await?;
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
        Ok(Rolled { plan, noted })
    }

    /// What was committed is counted and told; gives of how many teams something became.
    fn told(&self, Rolled { plan, noted }: &Rolled) -> usize {
        let (lots, expired) = closed(plan);
        self.ledger.metrics.lots_closed(lots, expired);
        if !noted.notices.is_empty() {
            self.ledger.fresh.notify_one();
        }
        let moved = plan.balances.iter().map(|balance| balance.team_id);
        let changed: HashSet<_> = moved.chain(noted.notices.iter().map(|notice| notice.team_id)).collect();
        changed.len()
    }
}

/// What became of some teams.
struct Rolled {
    plan: Plan,
    noted: Noted,
}
