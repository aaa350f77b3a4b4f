//! Posting a batch: money, lane positions and the cursor move in one transaction, or nothing does.
//!
//! | statement | what | why there |
//! |---|---|---|
//! | 1 | lock the cursor of the shard, and the version of the catalogue for reading | two posts of a shard never overlap; a price can not change under a post |
//! | 2 | read the receipt of that number and the lanes | a lock that waits refreshes only the locked row, so what it guards is read by a later statement |
//! | – | the gate's checks 1 to 6, in memory | nothing was written yet; a settled batch is answered by its receipt |
//! | 3 | lock the balances, by team id, and read their revisions | one order for all writers: they wait, they never deadlock |
//! | – | take the instant | after the locks, so that it can not be overtaken (D40) |
//! | 4 | load lots, holds and usage states of teams that this process does not know in that revision ([`KnownTeams`]); and periods, where a line's meter has them (D19) | again a later statement than the lock |
//! | – | fold in the core: who pays what | pure; the same function that readers and the replay use |
//! | 5 | write charges, journal, lots, balances, states; once for each sub-batch of charges; and periods, where there are any | arrays, so the cost is by row and not by round trip |
//! | 6 | write batch, ranges, unattributed lines; move lanes and cursor | |
//!
//! Where a line names a hold, the windows of the holds are read before 4, and the holds that changed are
//! written after 5. A batch that is the first to name a team begins again and inserts its balance before it
//! locks any. The catalogue is read (two more statements) only when its version moved. A line is never refused:
//! usage has happened, so what can not be charged is kept as unattributed with its reason. A team whose
//! rows the database refuses is found by bisection, once, and its lines are set apart as `poison`.

mod batch;
mod capture;
mod clients;
mod direct;
mod elsewhere;
mod events;
mod gate;
mod ids;
mod known;
mod load;
mod rows;

use std::{collections::HashSet, sync::Arc, time::Duration};

use drawdown_ledger_core::{
    Batch, FoldError, Line, NoticeRules, Periods, Plan, Settings, UsageState, fold_batch, periods_wanted,
    usage_keys,
};
use drawdown_types::{Clock, HoldId, TeamId, Timestamp};
use sqlx::{Postgres, Transaction};

pub use batch::{Elsewhere, LineDetail, MeterTotal, Part, SealedBatch, by_meter};
pub(crate) use capture::{Capture, Captured};
pub use clients::SettledClients;
pub(crate) use direct::{Content, Direct};
pub use events::{EVENT_SHARDS, EventLimits, NamedEvent, Recorded, Recording, Verdict};
pub use gate::{Fault, Gate, check};
pub use known::{KnownLimits, KnownStates, KnownTeams};
pub(crate) use rows::closed;

use self::{elsewhere::Passed, events::Fresh};
use crate::{
    catalogue::{Catalogue, Remembered},
    cells::Cells,
    error::Error,
    noting,
    store::{
        Pool, events as names,
        events::Kept,
        periods, settlement,
        settlement::Receipt,
        teams,
        teams::{StoredTeam, Wanted},
        write::{self, Noted},
    },
};

/// What posting needs.
#[derive(Clone)]
pub struct Poster {
    /// The database.
    pub pool: Pool,
    /// Where instants come from.
    pub clock: Arc<dyn Clock>,
    /// The rules' settings.
    pub settings: Arc<Settings>,
    /// What others are told.
    pub notice_rules: Arc<NoticeRules>,
    /// Meters and prices.
    pub catalogue: Arc<Remembered>,
    /// Which cell this is.
    pub cells: Arc<Cells>,
    /// Client ids whose newest window is committed.
    pub clients: Arc<SettledClients>,
    /// Teams as this process left them.
    pub known: Arc<KnownTeams>,
    /// Most charges that one statement writes.
    pub sub_batch_lines: usize,
    /// How long after its close date a lot still waits for usage that is on its way (D55).
    pub settle_allowance: Duration,
    /// Bounds of events by id.
    pub events: EventLimits,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posted {
    /// It is settled now.
    Settled(Summary),
    /// It was settled before: the receipt of then.
    Already(Receipt),
}

/// What a post wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The instant of its transaction.
    pub posted_at: Timestamp,
    /// Charges written.
    pub charges: i64,
    /// Lines left unattributed.
    pub unattributed: i64,
    /// Σ price of its charges, in micro-tokens.
    pub amount_micros: i64,
    /// What no lot covered of it.
    pub uncharged_micros: i64,
    /// Lines without a price in force.
    pub unpriced: u64,
    /// Teams whose lines had to be set apart.
    pub poisoned_teams: u64,
    /// Lots that closed on the way.
    pub closed_lots: u64,
    /// What they forfeited.
    pub expired_micros: i64,
    /// Facts that others are told.
    pub notices: usize,
    /// Teams that the database was asked for.
    pub teams_loaded: u64,
    /// Teams that this process knew.
    pub teams_known: u64,
}

/// Why a batch was not posted.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// The gate refused it; nothing was written.
    #[error(transparent)]
    Refused(#[from] Fault),
    /// It could not be done.
    #[error("batch could not be posted")]
    Failed(#[from] Error),
}

/// What happens at the end of an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Commit,
    /// Only to see whether the database takes the rows.
    RollBack,
}

/// How a post is tried.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    /// Teams whose lines are set apart.
    poisoned: &'a HashSet<TeamId>,
    ending: Ending,
    balances: Balances,
}

/// What is tried without some teams.
#[derive(Clone, Copy)]
enum Tried<'a> {
    Batch(&'a SealedBatch),
    Events(&'a Recording),
}

/// What is posted: a batch, and what is remembered of its events, where they have ids.
struct Post<'a> {
    batch: &'a SealedBatch,
    events: &'a [Fresh<'a>],
}

/// What is known of the balances of a batch's teams.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Balances {
    /// They are expected to exist.
    Known,
    /// One was missing.
    ToBeMade,
}

// === impl Poster ===

impl Poster {
    /// Posts a sealed batch, or gives the receipt of the time it was posted.
    ///
    /// # Errors
    /// [`PostError::Refused`] by the gate, [`PostError::Failed`] where the database does not play along.
    pub async fn post(&self, batch: &SealedBatch) -> Result<Posted, PostError> {
        match self.attempt(batch, &HashSet::new(), Ending::Commit).await {
            Err(PostError::Failed(error)) if is_by_content(&error) => {
                let poisoned = self.find_poison(batch.teams(), Tried::Batch(batch)).await?;
                if poisoned.is_empty() {
                    return Err(PostError::Failed(error));
                }
                tracing::error!(
                    batch.shard = batch.shard,
                    batch.number = batch.number,
                    teams = ?poisoned,
                    error = %error,
                    "teams can not be posted to, their lines are set apart"
                );
                self.attempt(batch, &poisoned, Ending::Commit).await
            }
            outcome => outcome,
        }
    }

    async fn attempt(
        &self,
        batch: &SealedBatch,
        poisoned: &HashSet<TeamId>,
        ending: Ending,
    ) -> Result<Posted, PostError> {
        for balances in [Balances::Known, Balances::ToBeMade] {
            let attempt = Attempt { poisoned, ending, balances };
            if let Some(posted) = self.attempt_with(batch, attempt).await? {
                return Ok(posted);
            }
        }
        Err(Error::Broken("balances were made and are missing".to_owned()).into())
    }

    /// Nothing, where a balance is missing and none is to be made.
    async fn attempt_with(
        &self,
        batch: &SealedBatch,
        attempt: Attempt<'_>,
    ) -> Result<Option<Posted>, PostError> {
        let mut tx = self.pool.begin_posting().await?;
        let version = match self.pass_in_tx(&mut tx, batch).await? {
            Passed::Open { version } => version,
            Passed::Settled(receipt) => return Ok(Some(Posted::Already(receipt))),
        };
        let settled = self.settle(tx, &Post { batch, events: &[] }, version, attempt).await?;
        Ok(settled.map(|(summary, _)| Posted::Settled(summary)))
    }

    /// Settles a batch whose cursor is locked, with what is remembered of its events. Nothing, where a balance is missing
    /// and none is to be made.
    async fn settle(
        &self,
        mut tx: Transaction<'static, Postgres>,
        &Post { batch, events }: &Post<'_>,
        version: i64,
        Attempt { poisoned, ending, balances }: Attempt<'_>,
    ) -> Result<Option<(Summary, Vec<Kept>)>, PostError> {
        let catalogue = self.catalogue.of_version(&mut tx, version).await?;
        let mut lines = batch::charged_lines(batch, &catalogue, poisoned);
        let payers = batch::payers(&lines);
        let team_ids: Vec<TeamId> = payers.iter().map(|(_, team)| *team).collect();
        let locked = match balances {
            Balances::ToBeMade => Some(teams::lock_in_tx(&mut tx, payers).await?),
            Balances::Known => teams::lock_known_in_tx(&mut tx, &team_ids).await?,
        };
        let Some(locked) = locked else {
            tx.rollback().await.map_err(Error::from)?;
            return Ok(None);
        };
        let now = self.clock.now();
        // Usage under a hold belongs to the hold's window, so which states are needed is known only then.
        let holds = batch::holds(&lines);
        let holds = if holds.is_empty() { Vec::new() } else { teams::holds_in_tx(&mut tx, &holds).await? };
        let keys = usage_keys(&catalogue.prices, &lines, &holds);
        let months = noting::months(&lines, &holds);
        let wanted = Wanted { keys: &keys, months: &months, lots: &[], items: false };
        let mut loaded = self.load_in_tx(&mut tx, &locked, &wanted).await?;
        let by_period = periods_wanted(&catalogue.prices, &lines, &holds);
        let known = periods::load_in_tx(&mut tx, &by_period).await?;
        batch::set_apart_foreign(&mut lines, &loaded.stored);
        let until = self.settled_until(&lines, now);
        let states = (&loaded.states[..], &known);
        let (plan, noted) = self.fold(&lines, (&[], until), &mut loaded.stored, states, &catalogue, now)?;
        let rows = rows::Rows::new(batch, &lines, &plan, &loaded.stored, now)?.without_known(&self.clients);
        let usage = rows.usage(&loaded.stored);
        let plan_rows = write::PlanRows {
            batch: (batch.shard, batch.number),
            charges: rows.charges(),
            plan: &plan,
            balances: &usage,
            noted: &noted,
            note: &write::LotNote::default(),
            sub_batch: self.sub_batch_lines,
        };
        let revision = write::write_in_tx(&mut tx, &plan_rows).await?;
        let (accounts, values) = (rows.accounts(), rows.values());
        periods::write_in_tx(&mut tx, &accounts, &plan.periods, &values).await?;
        let settled = rows.settled();
        settlement::settle_in_tx(&mut tx, &settled).await?;
        self.keep_parts_in_tx(&mut tx, batch, settled.posted_at).await?;
        let kept = events::kept(events, &lines, &plan, settled.posted_at)?;
        if !events.is_empty() {
            let place = (batch.shard, batch.number);
            names::remember_in_tx(&mut tx, place, &events::rows(events, &kept)).await?;
        }
        let summary = Summary {
            poisoned_teams: count(poisoned.len()),
            notices: noted.notices.len(),
            teams_loaded: count(loaded.from_database),
            teams_known: count(loaded.stored.len().saturating_sub(loaded.from_database)),
            ..rows.summary()
        };
        match ending {
            Ending::Commit => {
                let usage: Vec<_> = usage.into_iter().map(|(_, usage)| usage).collect();
                tx.commit().await.map_err(Error::from)?;
                self.clients.remember(rows.clients());
                // Nothing may come between a commit that has no answer and this: what is unknown is not remembered.
                self.known.put(loaded.committed(&plan, &usage, revision));
            }
            Ending::RollBack => tx.rollback().await.map_err(Error::from)?,
        }
        Ok(Some((summary, kept)))
    }

    /// Folds on copies of the teams inside `stored`, which are afterwards as the plan leaves them; gives what
    /// others are told too. No lot closes that waits for usage received before `settled_until`.
    fn fold(
        &self,
        lines: &[Line],
        (last_of_holds, settled_until): (&[HoldId], Timestamp),
        stored: &mut [StoredTeam],
        (states, periods): (&[UsageState], &Periods),
        catalogue: &Catalogue,
        now: Timestamp,
    ) -> Result<(Plan, Noted), Error> {
        let mut teams: Vec<_> = stored.iter().map(|stored| stored.team.clone()).collect();
        let batch = Batch {
            lines,
            states,
            periods,
            prices: &catalogue.prices,
            settings: &self.settings,
            now,
            settled_until,
            last_of_holds,
        };
        let plan = fold_batch(&mut teams, &batch, ids::charge_ids())
            .map_err(|error: FoldError| Error::Broken(error.to_string()))?;
        let at = plan.instant.unwrap_or(now);
        let mut noted = noting::advance(stored, teams, &plan, at, &self.notice_rules, &self.settings);
        noting::count(&mut noted, stored, lines, &plan, None);
        Ok((plan, noted))
    }

    /// No lot closes before everything received before its close is settled (D55): what this batch
    /// brings was not settled until now, and the rest is given the allowance.
    fn settled_until(&self, lines: &[Line], now: Timestamp) -> Timestamp {
        let received = lines.iter().map(|line| line.received_window).min().unwrap_or(now);
        now.checked_sub(self.settle_allowance).unwrap_or(Timestamp::MIN).min(received)
    }

    /// The teams that the database refuses rows of, by halving: each half is tried alone and rolled
    /// back. Runs under no lock in between; the attempt that follows decides.
    async fn find_poison(
        &self,
        teams: HashSet<TeamId>,
        tried: Tried<'_>,
    ) -> Result<HashSet<TeamId>, PostError> {
        let mut all: Vec<TeamId> = teams.into_iter().collect();
        all.sort_unstable();
        let mut poisoned = HashSet::new();
        let mut suspects = vec![all.clone()];
        while let Some(group) = suspects.pop() {
            let others = all.iter().filter(|team| !group.contains(team)).copied().collect();
            let outcome = match tried {
                Tried::Batch(batch) => self.attempt(batch, &others, Ending::RollBack).await.map(drop),
                Tried::Events(call) => self.record_without(call, &others, Ending::RollBack).await.map(drop),
            };
            match outcome {
                Ok(()) => {}
                Err(PostError::Failed(error)) if is_by_content(&error) => match group.as_slice() {
                    [] => {}
                    [team] => {
                        poisoned.insert(*team);
                    }
                    many => {
                        let (left, right) = many.split_at(many.len() / 2);
                        suspects.extend([left.to_vec(), right.to_vec()]);
                    }
                },
                Err(other) => return Err(other),
            }
        }
        Ok(poisoned)
    }
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// The rows themselves were refused or could not be read: trying again does not help.
const fn is_by_content(error: &Error) -> bool {
    match error {
        Error::Permanent(_) | Error::Stored { .. } | Error::Broken(_) => true,
        Error::Transient(_) | Error::Refused(_) | Error::Peer { .. } => false,
    }
}
