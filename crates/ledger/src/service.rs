//! The ledger as its handlers see it: one value that holds the database, the clock, the rules' settings
//! and the poster, cloned by reference into every gRPC service and job.

use std::{sync::Arc, time::Duration};

use drawdown_ledger_core::{NoticeRules, Settings};
use drawdown_service::{Code, Refusal};
use drawdown_types::{AccountId, Clock, MicroTokens, TeamId, Timestamp};
use prost::Message;
use sqlx::{PgConnection, Postgres, Transaction};
use tokio::sync::{Notify, Semaphore, watch};

use crate::{
    catalogue::Remembered,
    cells::Cells,
    directory::{Directory, TeamFacts},
    error::Error,
    metrics::Metrics,
    posting::{
        EventLimits, KnownLimits, KnownTeams, PostError, Posted, Poster, Recorded, Recording, SealedBatch,
        SettledClients,
    },
    reason,
    reports::ReportLimits,
    store::{
        Pool,
        idempotency::{self, Known, RequestKey},
        outbox::Head,
        teams,
    },
};

/// Limits of the handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most rows of one page.
    pub page_rows_max: u32,
    /// Most lines of one batch.
    pub batch_lines_max: usize,
    /// Most charges that one statement writes.
    pub sub_batch_lines: usize,
    /// Most of the latest lines of a key that one correction takes its refund from (D43).
    pub correction_lines_max: usize,
    /// Most that is remembered from one batch to the next.
    pub known: KnownLimits,
    /// Most entries of unattributed usage that one call decides about (D25).
    pub review_entries_max: usize,
    /// How long before the first team of an app usage is adopted (D49).
    pub adoption_age: Duration,
    /// How far ahead a published version begins at least (D51).
    pub change_lead: Duration,
    /// How long after its close date a lot still waits for usage that is on its way (D55).
    pub settle_allowance: Duration,
    /// How long one statement of a verification may run.
    pub verify_timeout: Duration,
    /// Limits of reports.
    pub reports: ReportLimits,
    /// Limits of imports.
    pub import: ImportLimits,
    /// What gates are told.
    pub standings: StandingLimits,
}

/// What gates are told of teams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandingLimits {
    /// What a team may owe before it is limited at once (D48).
    pub debt_limit: Option<MicroTokens>,
    /// Steps of a team's future.
    pub steps_max: usize,
}

/// Limits of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportLimits {
    /// Most teams of one request.
    pub teams_max: usize,
    /// Most lots and debts of all of them.
    pub rows_max: usize,
}

/// What the ledger is made of.
pub struct Parts {
    /// The database.
    pub pool: Pool,
    /// Where instants come from.
    pub clock: Arc<dyn Clock>,
    /// The rules' settings.
    pub settings: Settings,
    /// What others are told.
    pub notice_rules: NoticeRules,
    /// Limits of the handlers.
    pub limits: Limits,
    /// Bounds of events by id.
    pub events: EventLimits,
    /// Which cell this is.
    pub cells: Cells,
    /// Who knows the teams.
    pub directory: Arc<dyn Directory>,
    /// Instruments.
    pub metrics: Metrics,
}

/// The ledger.
pub struct Ledger {
    pub(crate) pool: Pool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) notice_rules: Arc<NoticeRules>,
    pub(crate) limits: Limits,
    pub(crate) cells: Arc<Cells>,
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) metrics: Metrics,
    /// Wakes whoever adopts usage, as soon as an app is registered.
    pub(crate) adopted: Notify,
    /// Wakes whoever gives facts their places, as soon as some are committed.
    pub(crate) fresh: Notify,
    /// Where the order of facts stands, as this process saw it last: what wakes the streams.
    pub(crate) head: watch::Sender<Option<Head>>,
    /// Places of explanations and what-ifs.
    pub(crate) whole_reads: Arc<Semaphore>,
    /// Places of exports.
    pub(crate) exports: Arc<Semaphore>,
    poster: Poster,
}

/// A request with an id: new, or answered before.
pub(crate) enum Once<R> {
    /// To be done and then remembered by this key.
    New(RequestKey),
    /// The answer of the first time.
    Answered(R),
}

// === impl Ledger ===

impl Ledger {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let settings = Arc::new(parts.settings);
        let notice_rules = Arc::new(parts.notice_rules);
        let cells = Arc::new(parts.cells);
        let poster = Poster {
            pool: parts.pool.clone(),
            clock: Arc::clone(&parts.clock),
            settings: Arc::clone(&settings),
            notice_rules: Arc::clone(&notice_rules),
            catalogue: Arc::new(Remembered::default()),
            clients: Arc::new(SettledClients::new(parts.limits.known.clients_max)),
            known: Arc::new(KnownTeams::new(parts.limits.known)),
            cells: Arc::clone(&cells),
            sub_batch_lines: parts.limits.sub_batch_lines,
            settle_allowance: parts.limits.settle_allowance,
            events: parts.events,
        };
        Self {
            pool: parts.pool,
            clock: parts.clock,
            settings,
            notice_rules,
            limits: parts.limits,
            cells,
            directory: parts.directory,
            metrics: parts.metrics,
            adopted: Notify::new(),
            fresh: Notify::new(),
            head: watch::Sender::new(None),
            whole_reads: Arc::new(Semaphore::new(parts.limits.reports.whole_reads_max)),
            exports: Arc::new(Semaphore::new(parts.limits.reports.exports_max)),
            poster,
        }
    }

    /// Posts a sealed batch and counts what became of it.
    ///
    /// # Errors
    /// As [`Poster::post`].
    pub async fn post(&self, batch: &SealedBatch) -> Result<Posted, PostError> {
        let started = tokio::time::Instant::now();
        let outcome = self.poster.post(batch).await;
        self.metrics.post(batch, &outcome, started.elapsed());
        if matches!(&outcome, Ok(Posted::Settled(summary)) if summary.notices > 0) {
            self.fresh.notify_one();
        }
        outcome
    }

    /// Records events by their ids and counts what became of them.
    ///
    /// # Errors
    /// As [`Poster::record`].
    pub async fn record(&self, call: &Recording) -> Result<Recorded, PostError> {
        let started = tokio::time::Instant::now();
        let outcome = self.poster.record(call).await;
        self.metrics.record(&outcome, started.elapsed());
        let notices =
            |recorded: &Recorded| recorded.summary.as_ref().is_some_and(|summary| summary.notices > 0);
        if outcome.as_ref().is_ok_and(notices) {
            self.fresh.notify_one();
        }
        outcome
    }

    /// Everything received before this instant counts as settled for a reader or a job at `at` (D55).
    pub(crate) fn settled_until(&self, at: Timestamp) -> Timestamp {
        at.checked_sub(self.limits.settle_allowance).unwrap_or(Timestamp::MIN)
    }

    /// The teams that are remembered from one batch to the next: to look at, for tests and diagnosis.
    #[must_use]
    pub fn known_teams(&self) -> &KnownTeams {
        &self.poster.known
    }

    pub(crate) const fn poster(&self) -> &Poster {
        &self.poster
    }

    /// Bounds of events by id.
    pub(crate) const fn events(&self) -> EventLimits {
        self.poster.events
    }

    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Postgres>, Error> {
        self.pool.begin().await
    }

    /// The number of its cell.
    #[must_use]
    pub fn cell(&self) -> u8 {
        self.cells.number
    }

    /// Who a team belongs to. A team whose account lives in another cell has nothing here and gets nothing here.
    pub(crate) async fn team_facts(&self, team: TeamId) -> Result<TeamFacts, Error> {
        let facts = self.directory.team(team).await?.ok_or_else(|| unknown_team(team))?;
        if facts.cell == self.cells.number {
            return Ok(facts);
        }
        let why = format!("the account lives in cell {}, this is cell {}", facts.cell, self.cells.number);
        Err(Refusal::new(Code::FailedPrecondition, reason::ACCOUNT_ELSEWHERE, why)
            .violation("team_id", "is of an account that lives in another cell")
            .into())
    }

    /// The account of a team.
    pub(crate) async fn account_of(&self, team: TeamId) -> Result<AccountId, Error> {
        // The connection goes back before anybody else is asked.
        let stored = teams::load(&mut *self.pool.read().await?, team).await?;
        match stored {
            Some(stored) => Ok(stored.team.balance.account_id),
            None => Ok(self.team_facts(team).await?.account_id),
        }
    }

    /// What is known of a request id.
    pub(crate) async fn once<R: Message + Default>(&self, key: RequestKey) -> Result<Once<R>, Error> {
        let known = idempotency::find(&mut *self.pool.read().await?, &key).await?;
        match known {
            Known::New => Ok(Once::New(key)),
            Known::Answered(bytes) => {
                Ok(Once::Answered(R::decode(&bytes[..]).map_err(|e| Error::stored("answer")(e.into()))?))
            }
            Known::Taken => Err(Refusal::new(
                Code::AlreadyExists,
                reason::REQUEST_ID_CONFLICT,
                "the request id was used before, for other content",
            )
            .violation("request_id", "must be new for new content")
            .into()),
        }
    }

    /// Remembers the answer in the transaction of its effect and commits. Where the same request id was
    /// answered meanwhile, this transaction is undone and that answer is given: one effect.
    pub(crate) async fn commit_once<R: Message + Default>(
        &self,
        mut tx: Transaction<'static, Postgres>,
        key: RequestKey,
        response: R,
        now: Timestamp,
    ) -> Result<R, Error> {
        if idempotency::remember_in_tx(connection(&mut tx), &key, &response.encode_to_vec(), now).await? {
            tx.commit().await?;
            // A command has usually something to tell; a look that finds nothing costs one short read.
            self.fresh.notify_one();
            return Ok(response);
        }
        tx.rollback().await?;
        match self.once(key).await? {
            Once::Answered(response) => Ok(response),
            Once::New(_) => Err(Error::Broken("a request id was taken and is not there".to_owned())),
        }
    }
}

pub(crate) fn unknown_team(team: TeamId) -> Error {
    Refusal::new(Code::NotFound, reason::TEAM_UNKNOWN, "there is no such team")
        .violation("team_id", format!("{team} is not known"))
        .into()
}

/// The connection of a transaction, as `*_in_tx` functions take it.
pub(crate) fn connection<'a>(tx: &'a mut Transaction<'static, Postgres>) -> &'a mut PgConnection {
    tx
}
