//! The worker: looks at every shard, seals, reads, merges, resolves, posts, retires; resets what is damaged.
//!
//! Any number of workers may run at any time. Nothing here needs a lease for safety: a sealed batch never
//! changes, the ledger takes each number once, and `retire` and `install` compare before they write.
//!
//! Order that must not change, per shard: the cursor is read before the head (A), and again (B) before a
//! suspicion becomes a verdict, so that another worker's progress is no false alarm; a batch is retired only
//! after the ledger has it, and only under the seal that was posted; a new generation is taken from the
//! ledger before it is installed in Redis.
//!
//! Cost of a round with nothing to do: one GetShards and one pipelined look, for all shards together. A batch
//! costs one seal, the read of its list, at most one BatchResolve per 10,000 unknown pairs, one post, one
//! retire. Published watermarks come from GetShards after the commit and from nowhere else.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use drawdown_metering_core::{
    look::{Cause, Cursor, Head, LaneApplied, Remedy, ResetHistory, Trouble, Verdict, after_trouble, look},
    settle::{MergedBatch, Seal, SealedBatch, merge},
};
use futures::{StreamExt as _, stream};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::post::{Place, request};
use crate::{
    config::SettleOptions,
    metrics::{BatchOutcome, Metrics},
    peer::{self, Ledger, Posted, Resolver},
    redis::{self, HeadFault, Install, Installed, Retired, Sealed, Store},
};

/// Steps that one shard may take in one round: enough for all sealed batches, a reset and its second look.
const STEPS_PER_ROUND_MAX: usize = 32;

/// Why a shard's round ended early; it is tried again in the next one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Redis did not answer.
    #[error("redis failed")]
    Redis(#[from] redis::Error),
    /// The ledger or entitlement did not answer.
    #[error("a peer failed")]
    Peer(#[from] peer::Error),
    /// Entitlement left a question out.
    #[error("nobody was named for client {0}")]
    Unresolved(String),
}

/// The settled cursors of all shards, as the ledger committed them: what streams wait for.
#[derive(Debug)]
pub struct Board {
    shards: BTreeMap<u32, watch::Sender<Option<Arc<Cursor>>>>,
}

impl Board {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(shards: &[u32]) -> Self {
        Self { shards: shards.iter().map(|shard| (*shard, watch::Sender::new(None))).collect() }
    }

    /// The cursors of a shard from now on; `None` for a shard that is not of this installation.
    #[must_use]
    pub fn subscribe(&self, shard: u32) -> Option<watch::Receiver<Option<Arc<Cursor>>>> {
        self.shards.get(&shard).map(watch::Sender::subscribe)
    }

    /// The cursor last read.
    #[must_use]
    pub fn cursor(&self, shard: u32) -> Option<Arc<Cursor>> {
        self.shards.get(&shard).and_then(|sender| sender.borrow().clone())
    }

    /// Shows a cursor that was read from the ledger; an older one than is shown is dropped.
    pub fn publish(&self, shard: u32, cursor: &Cursor) {
        if let Some(sender) = self.shards.get(&shard) {
            sender.send_if_modified(|shown| {
                let newer = match shown.as_deref() {
                    Some(old) if old.generation == cursor.generation => cursor.last_batch >= old.last_batch,
                    _ => true,
                };
                let changed = newer && shown.as_deref() != Some(cursor);
                if changed {
                    *shown = Some(Arc::new(cursor.clone()));
                }
                changed
            });
        }
    }
}

/// What a worker remembers of a shard between rounds.
#[derive(Debug, Default)]
struct Memory {
    trouble: Option<Trouble>,
    resets: ResetHistory,
    /// No reset before this instant: the same settled vector was reset already.
    rest_until: Option<Instant>,
    /// Since when something is applied and not settled, without a break.
    waiting_since: Option<Instant>,
    /// Settled events when that was noted.
    settled: u64,
}

/// One worker.
#[derive(Debug)]
pub struct Settler {
    /// The accumulator.
    pub store: Arc<Store>,
    /// The truth.
    pub ledger: Ledger,
    /// Who pays.
    pub resolver: Resolver,
    /// Where settled cursors are shown.
    pub board: Arc<Board>,
    /// Limits.
    pub options: SettleOptions,
    /// Instruments.
    pub metrics: Arc<Metrics>,
    /// All shards of all maps.
    pub shards: Vec<u32>,
    memory: Mutex<HashMap<u32, Memory>>,
}

/// What a step leads to.
enum Next {
    /// Read cursor and head again.
    Look,
    /// A batch was settled; its lines.
    Settled(usize),
    /// Nothing to do, or nothing that can be done now.
    Rest,
}

impl Settler {
    /// A worker that has seen nothing yet.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        ledger: Ledger,
        resolver: Resolver,
        board: Arc<Board>,
        options: SettleOptions,
        metrics: Arc<Metrics>,
        shards: Vec<u32>,
    ) -> Self {
        Self { store, ledger, resolver, board, options, metrics, shards, memory: Mutex::default() }
    }

    /// Rounds until `shutdown`; the last one ends before this returns.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut failures: u32 = 0;
        let mut swept = Instant::now();
        while !shutdown.is_cancelled() {
            let pause = match self.round().await {
                Ok(lines) => {
                    failures = 0;
                    self.interval(lines)
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a settlement round failed");
                    failures = failures.saturating_add(1);
                    self.back_off(failures)
                }
            };
            if swept.elapsed() >= self.options.sweep_interval_ms.duration() {
                swept = Instant::now();
                self.sweep().await;
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// About a second; longer by itself when lines are many, so that posting keeps to its share of the machine.
    fn interval(&self, lines: usize) -> Duration {
        let per_second = self.options.lines_per_second.get();
        let needed = lines.saturating_mul(1000).checked_div(per_second).unwrap_or_default();
        let needed = Duration::from_millis(u64::try_from(needed).unwrap_or(u64::MAX));
        needed.clamp(self.options.interval_ms.duration(), self.options.interval_max_ms.duration())
    }

    fn back_off(&self, failures: u32) -> Duration {
        let doubled = self.options.retry_pause_ms.duration().saturating_mul(1 << failures.min(16));
        let pause = doubled.min(self.options.retry_pause_max_ms.duration());
        pause.mul_f64(rand::random_range(0.5..1.0))
    }

    /// One round over all shards; the lines that were settled.
    ///
    /// # Errors
    /// The first shard's failure, after every shard had its turn.
    pub async fn round(&self) -> Result<usize, Error> {
        let cursors =
            self.ledger.shards(&self.shards, &[]).await.inspect_err(|error| self.peer_failed(error))?;
        let heads = self.store.look(&self.shards).await?;
        let turns = self.shards.iter().zip(heads).filter_map(|(shard, head)| {
            let cursor = cursors.cursors.get(shard)?.clone();
            self.board.publish(*shard, &cursor);
            Some(self.turn(*shard, cursor, head))
        });
        let turns: Vec<_> = turns.collect();
        let done: Vec<Result<usize, Error>> =
            stream::iter(turns).buffer_unordered(self.options.shards_at_once.get()).collect().await;
        done.into_iter().try_fold(0_usize, |lines, turn| Ok(lines.saturating_add(turn?)))
    }

    /// One shard's turn: from look to look until nothing waits.
    async fn turn(
        &self,
        shard: u32,
        mut cursor: Cursor,
        mut head: Result<Head, HeadFault>,
    ) -> Result<usize, Error> {
        let mut lines = 0_usize;
        for _ in 0..STEPS_PER_ROUND_MAX {
            self.measure(shard, &cursor, head.as_ref().ok());
            match self.step(shard, &cursor, &head).await? {
                Next::Rest => return Ok(lines),
                Next::Look => {}
                Next::Settled(settled) => lines = lines.saturating_add(settled),
            }
            cursor = self.cursor(shard).await?;
            let mut looked = self.store.look(&[shard]).await?;
            let Some(next) = looked.pop() else { return Ok(lines) };
            head = next;
        }
        Ok(lines)
    }

    async fn step(&self, shard: u32, a: &Cursor, head: &Result<Head, HeadFault>) -> Result<Next, Error> {
        let mut verdict = look(a, head.as_ref().ok(), None);
        if let Verdict::Confirm(_) = verdict {
            let b = self.cursor(shard).await?;
            verdict = look(a, head.as_ref().ok(), Some(&b));
        }
        match verdict {
            Verdict::Idle => Ok(Next::Rest),
            Verdict::Again | Verdict::Confirm(_) => Ok(Next::Look),
            Verdict::Damaged(cause) => self.reset(shard, a, head, &cause.to_string(), label(&cause)).await,
            Verdict::Seal { batch } => {
                let cap = u64::try_from(self.options.sealed_batches_max.get()).unwrap_or(u64::MAX);
                match self.store.seal(shard, a.generation, batch, cap).await? {
                    Sealed::Ok(seal) => {
                        self.metrics.sealed();
                        self.settle(shard, a, head, batch, &seal).await
                    }
                    Sealed::Empty | Sealed::Cap => Ok(Next::Rest),
                    Sealed::Refused(_) => Ok(Next::Look),
                }
            }
            Verdict::Settle { batch, seal } => self.settle(shard, a, head, batch, &seal).await,
        }
    }

    /// Reads, merges, resolves, posts and retires one sealed batch.
    async fn settle(
        &self,
        shard: u32,
        a: &Cursor,
        head: &Result<Head, HeadFault>,
        number: u64,
        seal: &str,
    ) -> Result<Next, Error> {
        let begun = Instant::now();
        let trouble = Trouble { generation: a.generation, batch: number, seal: seal.to_owned() };
        let merged = match self.merged(shard, a.generation, number, seal).await? {
            Ok(merged) => merged,
            Err(damage) => return self.troubled(shard, a, head, trouble, &damage, "merge").await,
        };
        let place = Place { shard, generation: a.generation, number };
        let questions = merged.lines.iter().map(|line| (line.series.client_id().clone(), line.window_start));
        let payers = self.resolver.resolve(questions).await.inspect_err(|error| self.peer_failed(error))?;
        let request =
            request(place, &merged, &payers).map_err(|(client, _)| Error::Unresolved(client.to_string()))?;
        match self.ledger.post(request).await.inspect_err(|error| self.peer_failed(error))? {
            Posted::Settled(receipt) => {
                let repeated = receipt.already_settled;
                self.metrics.batch(if repeated { BatchOutcome::Repeated } else { BatchOutcome::Settled });
                if !repeated {
                    self.metrics.settled(merged.events, merged.lines.len(), begun.elapsed());
                }
                self.memorize(shard, |memory| memory.trouble = None);
                match self.store.retire(shard, a.generation, number, seal).await? {
                    // Whatever else it says, the next look decides by what is there.
                    Retired::Ok | Retired::Fingerprint | Retired::Refused(_) => {}
                }
                Ok(Next::Settled(merged.lines.len()))
            }
            Posted::Refused { reason, message } => {
                self.metrics.batch(BatchOutcome::Refused);
                self.troubled(shard, a, head, trouble, &format!("{reason}: {message}"), "refused").await
            }
        }
    }

    async fn merged(
        &self,
        shard: u32,
        generation: u64,
        batch: u64,
        seal: &str,
    ) -> Result<Result<MergedBatch, String>, Error> {
        let seal: Seal = match seal.parse() {
            Ok(seal) => seal,
            Err(error) => return Ok(Err(format!("{error}"))),
        };
        let entries = self.store.entries(shard, generation, batch, seal.count).await?;
        let sealed = SealedBatch { shard, generation, batch, seal };
        Ok(merge(&sealed, &entries).map_err(|damage| damage.to_string()))
    }

    /// A batch that cannot be merged or is refused: the first time another look, the second time a reset.
    async fn troubled(
        &self,
        shard: u32,
        a: &Cursor,
        head: &Result<Head, HeadFault>,
        trouble: Trouble,
        detail: &str,
        cause: &'static str,
    ) -> Result<Next, Error> {
        let remedy = self.memorize(shard, |memory| {
            let remedy = after_trouble(memory.trouble.as_ref(), &trouble);
            memory.trouble = Some(trouble);
            remedy
        });
        match remedy {
            Remedy::LookAgain => {
                tracing::warn!(shard, detail, "a sealed batch is in doubt; looking again");
                Ok(Next::Look)
            }
            Remedy::Reset => self.reset(shard, a, head, detail, cause).await,
        }
    }

    /// A new generation from the ledger, then a new head in Redis; producers send again what is not settled.
    async fn reset(
        &self,
        shard: u32,
        a: &Cursor,
        head: &Result<Head, HeadFault>,
        detail: &str,
        cause: &'static str,
    ) -> Result<Next, Error> {
        let resting =
            self.memorize(shard, |memory| memory.rest_until.is_some_and(|until| Instant::now() < until));
        if resting {
            return Ok(Next::Rest);
        }
        let begun = self.ledger.begin_reset(shard, a.generation, detail.to_owned()).await;
        let Some(cursor) = begun.inspect_err(|error| self.peer_failed(error))? else {
            return Ok(Next::Look);
        };
        let installed = self.store.install(&install(shard, &cursor, head)).await?;
        let repeats = self.memorize(shard, |memory| {
            memory.trouble = None;
            memory.resets.note(a)
        });
        self.metrics.reset(cause, repeats > 0);
        tracing::warn!(shard, cause = detail, repeats, installed = ?installed, "a shard was reset");
        if repeats > 0 {
            let pause = self.back_off(repeats);
            self.memorize(shard, |memory| memory.rest_until = Instant::now().checked_add(pause));
        }
        match installed {
            Installed::Ok => self.board.publish(shard, &cursor),
            Installed::Generation(_) => {}
        }
        Ok(Next::Look)
    }

    async fn cursor(&self, shard: u32) -> Result<Cursor, Error> {
        let mut shards =
            self.ledger.shards(&[shard], &[]).await.inspect_err(|error| self.peer_failed(error))?;
        let cursor = shards.cursors.remove(&shard).ok_or_else(|| {
            Error::Peer(peer::Error::Answer {
                peer: "ledger",
                call: "GetShards",
                detail: format!("shard {shard} is missing"),
            })
        })?;
        self.board.publish(shard, &cursor);
        Ok(cursor)
    }

    /// Drift and lag: what Redis has applied and the ledger has not posted.
    fn measure(&self, shard: u32, cursor: &Cursor, head: Option<&Head>) {
        let Some(head) = head else { return };
        let unsettled = head.lanes.iter().fold(0_u64, |sum, (lane, state)| {
            let settled = cursor.lanes.get(lane).map_or(0, |lane| lane.settled.sequence);
            sum.saturating_add(state.applied.sequence.saturating_sub(settled))
        });
        let settled = cursor.lanes.values().map(|lane| lane.settled.sequence).fold(0, u64::saturating_add);
        let lag = self.memorize(shard, |memory| {
            if unsettled == 0 || settled != memory.settled {
                memory.waiting_since = None;
            }
            memory.settled = settled;
            if unsettled == 0 {
                return Duration::ZERO;
            }
            memory.waiting_since.get_or_insert_with(Instant::now).elapsed()
        });
        self.metrics.drift(shard, unsettled, lag);
    }

    async fn sweep(&self) {
        for shard in &self.shards {
            match self.store.sweep(*shard).await {
                Ok(0) => {}
                Ok(dropped) => tracing::info!(shard, dropped, "lists that nothing refers to were dropped"),
                Err(error) => {
                    tracing::warn!(shard, error = &error as &dyn std::error::Error, "a sweep failed");
                    return;
                }
            }
        }
    }

    fn peer_failed(&self, error: &peer::Error) {
        self.metrics.peer_error(error.peer());
    }

    fn memorize<T>(&self, shard: u32, change: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        change(memory.entry(shard).or_default())
    }
}

fn install(shard: u32, cursor: &Cursor, head: &Result<Head, HeadFault>) -> Install {
    let (seen, seen_batches) = match head {
        Ok(head) => (Some(head.generation), (head.retired..=head.open).collect()),
        Err(HeadFault::Unreadable { generation, .. }) => (*generation, Vec::new()),
        Err(HeadFault::Absent) => (None, Vec::new()),
    };
    let lanes = cursor
        .lanes
        .iter()
        .map(|(lane, state)| (*lane, LaneApplied { epoch: state.epoch, applied: state.settled }))
        .collect();
    Install { shard, seen, seen_batches, generation: cursor.generation, last_batch: cursor.last_batch, lanes }
}

/// The cause as a label: few values.
const fn label(cause: &Cause) -> &'static str {
    match cause {
        Cause::HeadMissing => "head_missing",
        Cause::Generation { .. } => "generation",
        Cause::Audit { .. } => "audit",
        _ => "damage",
    }
}
