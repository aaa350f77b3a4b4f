//! Answers for a cache, as they change.
//!
//! Shape: whenever something changed, when time alone may have changed an answer, and with every sign of life, all
//! questions of the watcher are answered again, and what differs from what was sent last is sent. An answer takes some two
//! microseconds (`cargo xtask bench check`); a pause between two rounds bounds what a watcher costs. A round is made of one
//! instant.
//! Memory: the last answer of each question.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use drawdown_entitlement_core::{
    BilledTo,
    access::{BudgetView, Level, Reason, Reasons},
};
use drawdown_proto::{
    entitlement::v1::{AccessQuestion, WatchAccessRequest, WatchAccessResponse, WatchedAnswer},
    scalar::timestamp_to_proto,
};
use drawdown_types::Timestamp;
use futures::{Stream, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::Instant,
};
use tonic::Status;

use super::{access, encode_access};
use crate::{
    config::AccessLimits,
    memory::{Answered, Memory, View},
};

/// What makes an answer another one. Ages are not in it but for whether they are above the bound: they are told with every
/// message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    level: Option<Level>,
    reason: Reason,
    in_the_way: Reasons,
    grace_deadline: Option<Timestamp>,
    changes_at: Timestamp,
    billed_to: Option<BilledTo>,
    amounts: Option<(Option<i64>, [Option<BudgetView>; 3])>,
    stale: bool,
    /// Whose ledger it was made with.
    cell: u8,
}

/// One watcher.
pub(super) struct Watch {
    memory: Arc<Memory>,
    limits: AccessLimits,
    questions: Vec<AccessQuestion>,
    with_billed_to: bool,
    with_amounts: bool,
    sent: Vec<Option<Sent>>,
    changes: watch::Receiver<u64>,
    /// Where the round goes on; none between rounds.
    round: Option<(View, usize)>,
    /// When the last round began.
    began: Option<Instant>,
    said: Instant,
    complete: bool,
    _permit: OwnedSemaphorePermit,
}

impl Watch {
    pub(super) fn new(
        memory: Arc<Memory>,
        limits: AccessLimits,
        request: WatchAccessRequest,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            changes: memory.changes(),
            sent: vec![None; request.questions.len()],
            memory,
            limits,
            questions: request.questions,
            with_billed_to: request.with_billed_to,
            with_amounts: request.with_amounts,
            round: None,
            began: None,
            said: Instant::now(),
            complete: false,
            _permit: permit,
        }
    }

    pub(super) fn messages(self) -> impl Stream<Item = Result<WatchAccessResponse, Status>> + Send {
        stream::unfold(self, |mut watch| async move {
            let message = watch.next().await;
            Some((message, watch))
        })
    }

    async fn next(&mut self) -> Result<WatchAccessResponse, Status> {
        loop {
            let (view, from) = match self.round.take() {
                Some(round) => round,
                None => {
                    self.wait().await;
                    self.began = Some(Instant::now());
                    (access::view(&self.memory)?, 0)
                }
            };
            let (answers, next) = self.answer_from(&view, from);
            let over = next >= self.questions.len();
            let first = over && !self.complete;
            self.complete |= over;
            let due = self.said.elapsed() >= self.limits.watch_heartbeat;
            let message =
                (!answers.is_empty() || first || (over && due)).then(|| self.message(&view, answers));
            if !over {
                self.round = Some((view, next));
            }
            if let Some(message) = message {
                self.said = Instant::now();
                return Ok(message);
            }
        }
    }

    /// Until there may be something to say: never less than the pause after the beginning of the last round.
    async fn wait(&mut self) {
        let Some(began) = self.began else { return };
        let pause = began + self.limits.watch_pause;
        let now = self.memory.now();
        let by_time = self.sent.iter().flatten().map(|sent| sent.changes_at).min().unwrap_or(Timestamp::MAX);
        let by_time = by_time.saturating_since(now);
        let alive = self.limits.watch_heartbeat.saturating_sub(self.said.elapsed());
        tokio::select! {
            // the sender lives as long as the memory, which is held here
            _ = self.changes.changed() => {}
            () = tokio::time::sleep(by_time.min(alive)) => {}
        }
        tokio::time::sleep_until(pause).await;
        self.changes.mark_unchanged();
    }

    /// Answers that differ from those that were sent, up to a message full of them, and where to go on.
    fn answer_from(&mut self, view: &View, from: usize) -> (Vec<WatchedAnswer>, usize) {
        let mut answers = Vec::new();
        for index in from..self.questions.len() {
            if answers.len() >= self.limits.questions_max {
                return (answers, index);
            }
            let Some(question) = self.questions.get(index) else { break };
            let answered = self.memory.decide(view, access::asked(question), self.with_billed_to);
            let answer = self.sent_of(&answered);
            if let Some(sent) = self.sent.get_mut(index)
                && *sent != Some(answer)
            {
                *sent = Some(answer);
                let answer = Some(encode_access::answer(&answered));
                answers.push(WatchedAnswer { index: u32::try_from(index).unwrap_or(u32::MAX), answer });
            }
        }
        (answers, self.questions.len())
    }

    fn sent_of(&self, answered: &Answered) -> Sent {
        let Answered { decision, billed_to, cell } = answered;
        Sent {
            level: decision.level,
            reason: decision.reason,
            in_the_way: decision.in_the_way,
            grace_deadline: decision.grace_deadline,
            changes_at: decision.changes_at,
            billed_to: *billed_to,
            amounts: self.with_amounts.then_some((decision.balance_micros, decision.budgets)),
            stale: decision.stale,
            cell: *cell,
        }
    }

    fn message(&self, view: &View, answers: Vec<WatchedAnswer>) -> WatchAccessResponse {
        let cells: BTreeSet<u8> = self.sent.iter().flatten().map(|sent| sent.cell).collect();
        let ages = view.ages(cells);
        WatchAccessResponse {
            answers,
            complete: self.complete,
            as_of: Some(timestamp_to_proto(view.moment.now)),
            ledger_age_ms: ages.ledger.map(millis),
            directory_age_ms: millis(ages.directory),
            stale: ages.stale,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
