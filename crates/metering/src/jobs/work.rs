//! One shard of a worker: the steps of exactly-once.md, "worker loop".

use std::{sync::atomic::Ordering, time::Duration};

use drawdown_client::channel::MESSAGE_BYTES_MAX;
use drawdown_metering_core::{
    cells::LEADING,
    look::{Cursor, Head, Remedy, ResetHistory, Trouble, Verdict, after_trouble, look},
    settle::SealedBatch,
    shard::Lane,
};
use prost::Message as _;
use tokio::time::Instant;

use super::{
    batch::{self, PostLimits},
    isolation::Isolation,
    settle::{Seen, Worker},
};
use crate::{
    instance::retry::Retry,
    metrics::{BatchOutcome, Metrics},
    peer::{self, LanesOf, Posted},
    redis::{self, HeadFault, Install, Installed, Retired, Sealed},
};

/// Steps of one task: sealed batches that wait, and looks again.
const STEPS_MAX: usize = 32;

/// What a worker remembers of a shard.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) retry: Retry,
    trouble: Option<Trouble>,
    resets: ResetHistory,
    isolation: Isolation,
    swept_at: Option<Instant>,
    /// When idle lanes were looked for last.
    pub(super) rested_at: Option<Instant>,
    /// The task under way has sealed a batch: it settles what is sealed and leaves the open batch to the next
    /// round. Under load there is always something in it, so a task that sealed again and again would post ever
    /// smaller batches and keep its place from the other shards.
    has_sealed: bool,
}

/// Why a step was not done. Nothing follows from it but another round.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("redis was not asked")]
    Redis(#[from] redis::Error),
    #[error("another service was not asked")]
    Peer(#[from] peer::Error),
    #[error("cell {cell} refused batch {batch}, which the leading cell has settled: {reason}: {message}")]
    Cell { cell: u8, batch: u64, reason: String, message: String },
}

/// What follows a step.
enum Next {
    /// Another look, at once.
    Look,
    /// Nothing for now.
    Rest,
    /// The same batch again, after a pause.
    Pause,
}

impl Work {
    pub(super) const fn new(retry: Retry) -> Self {
        Self {
            retry,
            trouble: None,
            resets: ResetHistory::new(),
            isolation: Isolation::new(),
            swept_at: None,
            rested_at: None,
            has_sealed: false,
        }
    }
}

impl Failed {
    /// Once, where it is handled.
    pub(super) fn log(self, metrics: &Metrics, shard: Option<u32>) {
        match &self {
            Self::Redis(_) => metrics.redis_error("settle"),
            Self::Peer(error) => metrics.peer_error(error.peer()),
            Self::Cell { .. } => metrics.cell_refused(),
        }
        let chain = drawdown_service::refusal::chain(&self.into());
        tracing::warn!(shard, error = %chain, "settlement waits");
    }
}

impl Worker {
    pub(super) async fn settle(&self, work: &mut Work, shard: u32, first: Seen) {
        let mut seen = first;
        work.has_sealed = false;
        for _ in 0..STEPS_MAX {
            match self.step(work, shard, &seen).await {
                Ok(Next::Rest) => {
                    work.retry.succeeded();
                    break;
                }
                Ok(Next::Pause) => {
                    work.retry.failed(Instant::now());
                    break;
                }
                Ok(Next::Look) => match self.see(shard).await {
                    Ok(again) => seen = again,
                    Err(failed) => return self.failed(work, shard, failed),
                },
                Err(failed) => return self.failed(work, shard, failed),
            }
        }
        for done in [self.sweep(work, shard).await, self.retire_lanes(work, shard, &seen).await] {
            if let Err(failed) = done {
                failed.log(&self.instance.metrics, Some(shard));
            }
        }
    }

    fn failed(&self, work: &mut Work, shard: u32, failed: Failed) {
        failed.log(&self.instance.metrics, Some(shard));
        work.retry.failed(Instant::now());
    }

    async fn see(&self, shard: u32) -> Result<Seen, Failed> {
        let seen = self.look(&[shard]).await?.pop().ok_or_else(|| no_shard(shard))?;
        self.instance.observe(shard, &seen.standing.told(), seen.head.as_ref().ok());
        Ok(seen)
    }

    /// The cursor again (B), with the lanes of a head that was read before.
    async fn cursor(&self, shard: u32, head: Option<&Head>) -> Result<Cursor, Failed> {
        let lanes = LanesOf::heads(head);
        let mut shards = self.instance.ledger().shards(&[shard], &lanes, LEADING).await?;
        Ok(shards.cursors.remove(&shard).ok_or_else(|| no_shard(shard))?)
    }

    async fn step(&self, work: &mut Work, shard: u32, seen: &Seen) -> Result<Next, Failed> {
        if self.catch_up(shard, &seen.standing).await? {
            return Ok(Next::Look);
        }
        let (head, cursor) = (seen.head.as_ref().ok(), &seen.standing.leading);
        let verdict = match look(cursor, head, None) {
            Verdict::Confirm(_) => {
                let later = self.cursor(shard, head).await?;
                look(cursor, head, Some(&later))
            }
            verdict => verdict,
        };
        match (verdict, head) {
            (Verdict::Damaged(cause), _) => self.reset(work, shard, seen, "damaged", cause.to_string()).await,
            (Verdict::Idle, _) if work.isolation.is_over(Instant::now()) => {
                self.next_lane(work, shard, seen).await
            }
            (Verdict::Settle { batch, seal }, Some(head)) => {
                self.settle_batch(work, shard, seen, head, batch, &seal).await
            }
            (Verdict::Seal { batch }, Some(head)) if !work.has_sealed => {
                work.has_sealed = true;
                match self.seal(shard, head.generation, batch).await? {
                    Some(seal) => self.settle_batch(work, shard, seen, head, batch, &seal).await,
                    None => Ok(Next::Rest),
                }
            }
            (Verdict::Again | Verdict::Confirm(_), _) => Ok(Next::Pause),
            (Verdict::Idle | Verdict::Settle { .. } | Verdict::Seal { .. }, _) => Ok(Next::Rest),
        }
    }

    async fn seal(&self, shard: u32, generation: u64, batch: u64) -> Result<Option<String>, Failed> {
        let cap = u64::try_from(self.instance.config.settle.sealed_batches_max.get()).unwrap_or(u64::MAX);
        match self.instance.store.seal(shard, generation, batch, cap).await? {
            Sealed::Ok(seal) => {
                self.instance.metrics.sealed();
                Ok(Some(seal))
            }
            // Another worker was faster, or the next look says what is wrong.
            Sealed::Empty | Sealed::Cap | Sealed::Refused(_) => Ok(None),
        }
    }

    async fn settle_batch(
        &self,
        work: &mut Work,
        shard: u32,
        seen: &Seen,
        head: &Head,
        batch: u64,
        seal: &str,
    ) -> Result<Next, Failed> {
        let began = Instant::now();
        let generation = head.generation;
        let mut posted = self.post(shard, generation, batch, seal).await;
        if let Ok(Ok(_)) = &posted
            && let Err(failed) = self.follow_all(shard, batch).await
        {
            posted = Err(failed);
        }
        if posted.is_err() {
            self.make_room(shard, head).await?;
        }
        match posted? {
            Ok(done) => {
                work.trouble = None;
                self.lines.fetch_add(done.weight, Ordering::Relaxed);
                let outcome = if done.repeated { BatchOutcome::Repeated } else { BatchOutcome::Settled };
                self.instance.metrics.batch(outcome);
                if done.partial {
                    let cause = "a batch has more lines or bytes than one post may have".to_owned();
                    return self.reset(work, shard, seen, "too_large", cause).await;
                }
                self.retire(shard, generation, batch, seal).await?;
                if !done.repeated {
                    self.instance.metrics.settled(done.events, done.lines, began.elapsed());
                }
                if work.isolation.is_active() {
                    // This lane was not it.
                    return self.next_lane(work, shard, seen).await;
                }
                // Also tells the streams what is settled now.
                Ok(Next::Look)
            }
            Err(Unsettleable { cause, lanes }) => {
                self.instance.metrics.batch(BatchOutcome::Refused);
                tracing::warn!(shard, batch, cause, "a sealed batch can not be settled");
                let trouble = Trouble { generation, batch, seal: seal.to_owned() };
                match after_trouble(work.trouble.as_ref(), &trouble) {
                    Remedy::LookAgain => {
                        work.trouble = Some(trouble);
                        Ok(Next::Look)
                    }
                    Remedy::Reset => {
                        work.trouble = None;
                        self.suspect(work, shard, &lanes);
                        self.reset(work, shard, seen, "refused", cause).await
                    }
                }
            }
        }
    }

    /// Reads, merges, resolves and posts. The inner error is trouble: the batch can not be settled as it is.
    async fn post(
        &self,
        shard: u32,
        generation: u64,
        batch: u64,
        seal: &str,
    ) -> Result<Result<Done, Unsettleable>, Failed> {
        let damaged = |cause: String| Ok(Err(Unsettleable { cause, lanes: Vec::new() }));
        let seal = match seal.parse() {
            Ok(seal) => seal,
            Err(error) => return damaged(format!("{error}")),
        };
        let sealed = SealedBatch { shard, generation, batch, seal };
        let count = sealed.seal.count;
        let entries = self.instance.store.entries(shard, generation, batch, count).await?;
        let settle = &self.instance.config.settle;
        let limits = PostLimits { lines: settle.post_lines_max.get(), bytes: settle.post_bytes_max.get() };
        let to_post = match batch::merge_to_fit(&sealed, &entries, limits) {
            Ok(to_post) => to_post,
            Err(damage) => return damaged(damage.to_string()),
        };
        drop(entries);
        let merged = &to_post.merged;
        let answers = self.resolver.resolve(batch::questions(&merged.lines)).await?;
        let others: Vec<u8> = self.instance.config.cells.keys().copied().collect();
        let request = batch::request(&sealed, merged, &answers, &others)
            .map_err(|error| peer::Error::answer("entitlement", "BatchResolve", error))?;
        let lanes = || merged.lanes.iter().map(|span| span.lane).collect();
        let bytes = request.encoded_len();
        if bytes > MESSAGE_BYTES_MAX {
            // One blob, which can not be cut; the transport would not say why it does not take it.
            let cause = format!("a post of it has {bytes} bytes, at most {MESSAGE_BYTES_MAX} are taken");
            return Ok(Err(Unsettleable { cause, lanes: lanes() }));
        }
        match self.instance.ledger().post(request).await? {
            Posted::Settled(receipt) => Ok(Ok(Done {
                events: merged.events,
                lines: merged.lines.len(),
                weight: merged.weight(),
                partial: to_post.partial,
                repeated: receipt.already_settled,
            })),
            Posted::Refused { reason, message } => Ok(Err(Unsettleable {
                cause: format!("the ledger refused it: {reason}: {message}"),
                lanes: lanes(),
            })),
        }
    }

    async fn retire(&self, shard: u32, generation: u64, batch: u64, seal: &str) -> Result<(), Failed> {
        match self.instance.store.retire(shard, generation, batch, seal).await? {
            Retired::Ok => {}
            // Another worker was faster, or another batch stands there: the next look tells.
            Retired::Fingerprint | Retired::Refused(_) => {
                tracing::debug!(shard, batch, "a settled batch was not there to retire");
            }
        }
        Ok(())
    }

    /// Where no cursor could be read: the heads alone say what is full, and a seal asks nothing else.
    pub(super) async fn make_room_without_ledger(&self, shards: &[u32]) -> Result<(), Failed> {
        for (shard, head) in shards.iter().zip(self.instance.store.look(shards).await?) {
            // One that is damaged or being reset is left to a look that can say what is wrong.
            if let Ok(head) = head {
                self.make_room(*shard, &head).await?;
            }
        }
        Ok(())
    }

    /// While the ledger does not answer, a full open batch is sealed, up to the cap: then its shard waits.
    async fn make_room(&self, shard: u32, head: &Head) -> Result<(), Failed> {
        let full = u64::try_from(self.instance.config.flush.batch_blobs_max.get()).unwrap_or(u64::MAX);
        if head.blobs >= full {
            self.seal(shard, head.generation, head.open).await?;
        }
        Ok(())
    }

    async fn reset(
        &self,
        work: &mut Work,
        shard: u32,
        seen: &Seen,
        label: &'static str,
        cause: String,
    ) -> Result<Next, Failed> {
        let detail = cause.clone();
        let Some(cursor) =
            self.instance.ledger().begin_reset(shard, seen.standing.leading.generation, cause).await?
        else {
            return Ok(Next::Look);
        };
        let repeats = work.resets.note(&cursor);
        self.instance.metrics.reset(label, repeats > 0);
        if repeats > 0 {
            tracing::error!(
                shard,
                repeats,
                cause = detail,
                "a shard was reset again and nothing had settled"
            );
        } else {
            tracing::warn!(
                shard,
                cause = detail,
                "a shard is reset; producers send again what is not settled"
            );
        }
        work.isolation.reset(repeats, Instant::now() + self.instance.config.settle.isolation_ms.duration());
        self.install(work, shard, seen, &cursor).await?;
        Ok(Next::Pause)
    }

    async fn install(&self, work: &mut Work, shard: u32, seen: &Seen, cursor: &Cursor) -> Result<(), Failed> {
        let install = install(shard, &seen.head, cursor, &work.isolation);
        match self.instance.store.install(&install).await? {
            Installed::Ok => {}
            Installed::Generation(_) => tracing::debug!(shard, "another worker has installed a head"),
        }
        work.swept_at = None;
        self.instance.observe(shard, cursor, None);
        Ok(())
    }

    /// The lanes of a batch that is refused whenever it comes: one of them is to blame.
    fn suspect(&self, work: &mut Work, shard: u32, lanes: &[Lane]) {
        if let Some(lane) = work.isolation.blame(lanes) {
            self.instance.metrics.lane_aside();
            tracing::error!(shard, %lane, "a lane is set aside: the ledger refuses it whenever it comes alone");
        }
    }

    /// The next of the lanes that are settled one by one gets its turn, or all of them again.
    async fn next_lane(&self, work: &mut Work, shard: u32, seen: &Seen) -> Result<Next, Failed> {
        let now = Instant::now();
        work.isolation.next(now + self.instance.config.settle.isolation_ms.duration());
        let cause = "lanes are settled one by one".to_owned();
        let begun =
            self.instance.ledger().begin_reset(shard, seen.standing.leading.generation, cause).await?;
        if let Some(cursor) = begun {
            self.install(work, shard, seen, &cursor).await?;
        }
        Ok(Next::Rest)
    }

    /// Drops lists that nothing refers to: at the first round, after a reset, and now and then.
    async fn sweep(&self, work: &mut Work, shard: u32) -> Result<(), Failed> {
        let every: Duration = self.instance.config.settle.sweep_interval_ms.duration();
        if work.swept_at.is_some_and(|at| at.elapsed() < every) {
            return Ok(());
        }
        let dropped = self.instance.store.sweep(shard).await?;
        if dropped > 0 {
            tracing::info!(shard, lists = dropped, "lists that nothing referred to were dropped");
        }
        work.swept_at = Some(Instant::now());
        Ok(())
    }
}

/// A batch that the ledger has.
struct Done {
    events: u64,
    lines: usize,
    /// Lines and distinct values.
    weight: usize,
    partial: bool,
    repeated: bool,
}

/// A batch that can not be settled as it is.
struct Unsettleable {
    cause: String,
    /// Its lanes, where it could be merged.
    lanes: Vec<Lane>,
}

pub(super) fn no_shard(shard: u32) -> peer::Error {
    peer::Error::answer("ledger", "GetShards", format!("shard {shard} is missing"))
}

fn install(shard: u32, head: &Result<Head, HeadFault>, cursor: &Cursor, isolation: &Isolation) -> Install {
    let (seen, seen_batches) = match head {
        Ok(head) => (Some(head.generation), (head.retired.saturating_add(1)..=head.open).collect()),
        Err(HeadFault::Unreadable { generation, .. }) => (*generation, Vec::new()),
        Err(HeadFault::Absent) => (None, Vec::new()),
    };
    Install {
        shard,
        seen,
        // A head that was written by somebody else may claim any number of batches.
        seen_batches,
        generation: cursor.generation,
        last_batch: cursor.last_batch,
        only: isolation.turn(),
        aside: isolation.aside(),
    }
}
