//! Posting a batch: money, lane positions and the cursor move in one transaction, or nothing does.
//!
//! | statement | what | why there |
//! |---|---|---|
//! | 1 | lock the cursor of the shard, and the version of the catalogue for reading; then read the receipt of that number and the lanes | two posts of a shard never overlap; a price can not change under a post; a lock that waits refreshes only the locked row, so what it guards is read by a later statement, inside of one function |
//! | – | the gate's checks 1 to 6, in memory | nothing was written yet; a settled batch is answered by its receipt |
//! | 2 | lock the balances, by team id, and read their revisions | one order for all writers: they wait, they never deadlock |
//! | – | take the instant | after the locks, so that it can not be overtaken (D40) |
//! | 3 | load lots, holds and usage states of teams that this process does not know in that revision ([`KnownTeams`]); and periods, where a line's meter has them (D19) | again a later statement than the lock |
//! | – | fold in the core: who pays what | pure; the same function that readers and the replay use |
//! | 4 | write charges; once for each sub-batch of them | arrays, so the cost is by row and not by round trip |
//! | 5 | write journal, lots, balances, states; and periods, where there are any | few charges go with it instead |
//! | 6 | write batch, ranges, unattributed lines; move lanes and cursor | |
//!
//! What a statement needs is made while the one before it is under way (`settle`).
//!
//! So a post is six statements at most, five where all its teams are known, and one more for each further sub-batch.
//! Where a line names a hold, the windows of the holds are read before 3, and the holds that changed are
//! written after 5; where a meter keeps largest or distinct values, its periods are a statement of their own in 3 and in
//! 5: two more for each of the two, so ten at most (`tests/it/sent.rs` counts them). A batch that is the first to name a team begins again and inserts its balance before it
//! locks any. The catalogue is read (two more statements) only when its version moved. A line is never refused:
//! usage has happened, so what can not be charged is kept as unattributed with its reason. A team whose
//! rows the database refuses is found by bisection, once, and its lines are set apart as `poison`.

mod batch;
mod beside;
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
mod settle;

use std::{collections::HashSet, sync::Arc, time::Duration};

use drawdown_ledger_core::{NoticeRules, Settings};
use drawdown_types::{Clock, TeamId, Timestamp};

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
    catalogue::Remembered,
    cells::Cells,
    error::Error,
    store::{Pool, settlement::Receipt},
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
pub(crate) const fn is_by_content(error: &Error) -> bool {
    match error {
        Error::Permanent(_) | Error::Stored { .. } | Error::Broken(_) => true,
        Error::Transient(_) | Error::Refused(_) | Error::Peer { .. } => false,
    }
}
