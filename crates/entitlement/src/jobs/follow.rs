//! Follows a ledger: lists what it knows once, then hears of every change. Each cell has a follower of its own, so one that
//! is out of reach makes the answers about its own accounts stale and no others.
//!
//! Where the stream ends, or is silent for too long, it is opened again at the last cursor; where the ledger does not
//! take the cursor, everything is listed anew. The age of what is known is the ledger's own word (`as_of`), so a
//! stream that stands still makes answers stale, whatever the transport thinks of it. A ledger that says it is another
//! cell than it is called as is not believed: its teams would have nothing, instead of being unknown.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use drawdown_types::{TeamId, Timestamp};
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    memory::{Listed, Memory, Told},
    standing::{Standings, told_by_list, told_by_watch},
};

/// The most teams that are asked for again at a time.
const AGAIN_MAX: usize = 100;

/// How the ledger is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowConfig {
    /// How long it may be silent before it is called again.
    pub silence_max: Duration,
    /// How long to wait before it is called again.
    pub retry: Duration,
}

/// The job.
pub struct Follower {
    memory: Arc<Memory>,
    cell: u8,
    standings: Arc<dyn Standings>,
    config: FollowConfig,
    cursor: Option<String>,
    /// Teams whose steps are told up to an instant only.
    again: BTreeSet<(Timestamp, TeamId)>,
}

impl Follower {
    /// Follows `standings`, the ledger of `cell`, into `memory`.
    #[must_use]
    pub fn new(memory: Arc<Memory>, cell: u8, standings: Arc<dyn Standings>, config: FollowConfig) -> Self {
        Self { memory, cell, standings, config, cursor: None, again: BTreeSet::new() }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut reached = true;
        loop {
            let Some(ended) = stop.run_until_cancelled(self.follow()).await else { return };
            let Err(status) = ended;
            // once per outage: the age of what is known is a metric
            if std::mem::take(&mut reached) {
                tracing::warn!(cell = self.cell, error = %status, "a ledger's standings can not be followed");
            }
            if !drawdown_client::is_transient(&status) {
                self.cursor = None;
            }
            if stop.run_until_cancelled(tokio::time::sleep(self.config.retry)).await.is_none() {
                return;
            }
            reached |= self.memory.is_fresh(self.cell);
        }
    }

    /// Until something fails: a stream that ends is a failure too.
    async fn follow(&mut self) -> Result<std::convert::Infallible, Status> {
        let cursor = match self.cursor.clone() {
            Some(cursor) => cursor,
            None => self.list().await?,
        };
        let mut changes = self.within(self.standings.watch(cursor)).await??;
        loop {
            let message = self.within(changes.next()).await?;
            let message = message.ok_or_else(|| Status::unavailable("the stream of standings ended"))??;
            self.check(message.cell)?;
            let cursor = message.cursor.clone();
            self.take(told_by_watch(&message)?);
            self.cursor = Some(cursor);
            self.ask_again().await?;
        }
    }

    /// Refuses what another cell than the one called tells.
    fn check(&self, cell: u32) -> Result<(), Status> {
        if cell == u32::from(self.cell) {
            return Ok(());
        }
        let why = format!("called as cell {}, the ledger says that it is cell {cell}", self.cell);
        Err(Status::failed_precondition(why))
    }

    async fn within<T>(&self, answer: impl Future<Output = T>) -> Result<T, Status> {
        let answer = tokio::time::timeout(self.config.silence_max, answer).await;
        answer.map_err(|_| Status::deadline_exceeded("the ledger is silent"))
    }

    /// Lists everything; gives the cursor from which on changes are heard.
    async fn list(&mut self) -> Result<String, Status> {
        let (mut listed, mut page_token, mut first) = (Listed::default(), String::new(), None);
        let mut debt_limit_micros = None;
        loop {
            let page = self.within(self.standings.list(Vec::new(), page_token)).await??;
            self.check(page.cell)?;
            page_token = page.next_page_token.clone();
            let cursor = page.cursor.clone();
            let mut told = told_by_list(&page)?;
            // what is known is as old as the first page until all pages are there
            let as_of = told.as_of.take();
            // and without an instant nothing is heard that the limit could be part of
            debt_limit_micros = told.debt_limit_micros.take().or(debt_limit_micros);
            let (cursor, as_of) = first.get_or_insert((cursor, as_of)).clone();
            listed.add(&told);
            self.take(told);
            if page_token.is_empty() {
                self.memory.listed(self.cell, &listed);
                self.take(Told { as_of, debt_limit_micros, ..Told::default() });
                self.cursor = Some(cursor.clone());
                return Ok(cursor);
            }
        }
    }

    fn take(&mut self, told: Told) {
        for (team_id, _, standing) in &told.teams {
            self.again.retain(|(_, other)| other != team_id);
            if let Some(until) = standing.steps_until {
                self.again.insert((until, *team_id));
            }
        }
        self.memory.told(self.cell, told);
    }

    /// Asks for the teams whose steps are not told any further.
    async fn ask_again(&mut self) -> Result<(), Status> {
        let now = self.memory.now();
        let due = self.again.iter().take_while(|(until, _)| *until <= now).take(AGAIN_MAX);
        let due: Vec<(Timestamp, TeamId)> = due.copied().collect();
        if due.is_empty() {
            return Ok(());
        }
        let team_ids = due.iter().map(|(_, team_id)| team_id.to_string()).collect();
        let page = self.within(self.standings.list(team_ids, String::new())).await??;
        self.check(page.cell)?;
        let mut told = told_by_list(&page)?;
        // one that is not told of any more has no steps
        self.again.retain(|key| !due.contains(key));
        // what others have is as old as before
        told.as_of = None;
        self.take(told);
        Ok(())
    }
}
