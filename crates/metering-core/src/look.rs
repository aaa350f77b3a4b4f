//! Steps 1, 2, 4 and 5 of the worker: what one look at a shard means, and what trouble leads to.
//!
//! Doctrine: the worker reads the ledger's cursor (A), then the head with the open list's length in
//! one call, and only on suspicion the cursor again (B), so that progress in between is no false
//! alarm. The order of these reads must not change. A look writes nothing; a reset is always safe
//! (producers send again) but never free, so the same trouble has to be seen twice.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::Xxh3;

use crate::shard::{Lane, Position};

/// Where a lane stands in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSettled {
    /// The producer's registered epoch.
    pub epoch: u64,
    /// The last settled event.
    pub settled: Position,
}

/// The ledger's cursor of one shard, with all lanes, read in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The generation.
    pub generation: u64,
    /// The last settled batch.
    pub last_batch: u64,
    /// All lanes of the shard.
    pub lanes: BTreeMap<Lane, LaneSettled>,
}

impl Cursor {
    pub(crate) fn settled(&self, lane: &Lane) -> Position {
        self.lanes.get(lane).map_or(Position::START, |lane| lane.settled)
    }

    /// A hash of the settled vector: equal where no lane has moved.
    #[must_use]
    pub fn settled_hash(&self) -> u64 {
        let mut hash = Xxh3::new();
        for (lane, state) in &self.lanes {
            hash.update(lane.producer.as_uuid().as_bytes());
            hash.update(&lane.map_version.to_be_bytes());
            hash.update(&lane.shard.to_be_bytes());
            hash.update(&state.settled.sequence.to_be_bytes());
            hash.update(&state.settled.chain.to_be_bytes());
        }
        hash.digest()
    }
}

/// Where a lane stands in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneApplied {
    /// The highest epoch seen.
    pub epoch: u64,
    /// The last event counted.
    pub applied: Position,
}

/// The head of a shard in Redis and the length of its open list, of one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The generation.
    pub generation: u64,
    /// The roll of lanes: another one whenever lanes were retired; 0 before the first time.
    pub roll: u64,
    /// The open batch.
    pub open: u64,
    /// The last retired batch.
    pub retired: u64,
    /// Blobs in the open batch, as counted at each append.
    pub blobs: u64,
    /// Entries that the open list really has.
    pub open_length: u64,
    /// `count:fingerprint` of sealed batches that are not retired.
    pub sealed: BTreeMap<u64, String>,
    /// All lanes.
    pub lanes: BTreeMap<Lane, LaneApplied>,
}

/// Why a shard's counters can not be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// There is no head, or it can not be read.
    #[error("the head is missing or can not be read")]
    HeadMissing,
    /// Redis has a generation that the ledger did not make.
    #[error("generation is {found:016x}, the ledger has {expected:016x}")]
    Generation {
        /// In Redis.
        found: u64,
        /// In the ledger.
        expected: u64,
    },
    /// A batch was retired that the ledger does not have.
    #[error("batch {retired} is retired, the ledger has settled up to {last}")]
    RetiredAhead {
        /// In Redis.
        retired: u64,
        /// In the ledger.
        last: u64,
    },
    /// The open batch is at or below a retired one.
    #[error("batch {open} is open though {retired} is retired")]
    OpenBehind {
        /// The open batch.
        open: u64,
        /// The last retired batch.
        retired: u64,
    },
    /// A sealed batch has lost its seal.
    #[error("batch {0} has no seal")]
    SealMissing(u64),
    /// The open list has lost or gained entries.
    #[error("the open list has {found} entries, {counted} were counted")]
    Length {
        /// Entries.
        found: u64,
        /// As counted at each append.
        counted: u64,
    },
    /// Redis stands behind what is settled.
    #[error("lane {lane} is applied to {applied}, settled to {settled}")]
    AppliedBehind {
        /// The lane.
        lane: Lane,
        /// In Redis.
        applied: u64,
        /// In the ledger.
        settled: u64,
    },
    /// Redis holds other events than the ledger at the same sequence.
    #[error("lane {lane} has another chain than the ledger at {sequence}")]
    Chain {
        /// The lane.
        lane: Lane,
        /// Where.
        sequence: u64,
    },
    /// The audit: nothing waits, and still something was applied that is not settled.
    #[error("nothing waits, but lane {lane} is applied to {applied} and settled to {settled}")]
    Audit {
        /// The lane.
        lane: Lane,
        /// In Redis.
        applied: u64,
        /// In the ledger.
        settled: u64,
    },
}

/// What one look says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A suspicion: read the cursor again (B) and ask again with it, keeping A and the head.
    Confirm(Cause),
    /// Reset: begin with the generation of A, install over the generation seen in the head.
    Damaged(Cause),
    /// The ledger or Redis moved on in between: look again.
    Again,
    /// Read this sealed batch, merge it against its seal, post it, retire it.
    Settle {
        /// Its number.
        batch: u64,
        /// `count:fingerprint`.
        seal: String,
    },
    /// Seal this open batch, then look again.
    Seal {
        /// Its number.
        batch: u64,
    },
    /// Nothing waits.
    Idle,
}

/// Judges a look: `a` was read before `head`, `b` after it. No head means missing or unreadable.
#[must_use]
pub fn look(a: &Cursor, head: Option<&Head>, b: Option<&Cursor>) -> Verdict {
    let cause = match head {
        None => Some(Cause::HeadMissing),
        Some(head) => suspicion(a, head, b.unwrap_or(a)),
    };
    match (cause, head, b) {
        (Some(cause), _, None) => Verdict::Confirm(cause),
        // Another worker's reset came in between, whole: what was suspected is gone.
        (Some(_), Some(head), Some(b)) if head.generation == b.generation && b.generation != a.generation => {
            Verdict::Again
        }
        (Some(cause), _, Some(_)) => Verdict::Damaged(cause),
        (None, _, Some(b)) if b.generation != a.generation => Verdict::Again,
        (None, Some(head), _) => next_step(head),
        (None, None, _) => Verdict::Confirm(Cause::HeadMissing),
    }
}

fn suspicion(a: &Cursor, head: &Head, b: &Cursor) -> Option<Cause> {
    if head.generation != a.generation && head.generation != b.generation {
        return Some(Cause::Generation { found: head.generation, expected: b.generation });
    }
    if head.generation != a.generation {
        // Compared with lanes of another generation, everything would look wrong.
        return Some(Cause::Generation { found: head.generation, expected: a.generation });
    }
    if head.retired > b.last_batch {
        return Some(Cause::RetiredAhead { retired: head.retired, last: b.last_batch });
    }
    if head.open <= head.retired {
        return Some(Cause::OpenBehind { open: head.open, retired: head.retired });
    }
    if let Some(missing) = (head.retired.saturating_add(1)..head.open).find(|k| !head.sealed.contains_key(k))
    {
        return Some(Cause::SealMissing(missing));
    }
    if head.open_length != head.blobs {
        return Some(Cause::Length { found: head.open_length, counted: head.blobs });
    }
    head.lanes
        .iter()
        .find_map(|(lane, state)| behind(*lane, state.applied, a.settled(lane)))
        .or_else(|| audit(head, b))
}

fn behind(lane: Lane, applied: Position, settled: Position) -> Option<Cause> {
    if applied.sequence < settled.sequence {
        return Some(Cause::AppliedBehind { lane, applied: applied.sequence, settled: settled.sequence });
    }
    (applied.sequence == settled.sequence && applied.chain != settled.chain)
        .then_some(Cause::Chain { lane, sequence: applied.sequence })
}

/// The second, independent line behind the exact checks.
fn audit(head: &Head, b: &Cursor) -> Option<Cause> {
    let idle = head.open == head.retired.saturating_add(1) && head.blobs == 0;
    if !idle {
        return None;
    }
    head.lanes.iter().find_map(|(lane, state)| {
        let (applied, settled) = (state.applied.sequence, b.settled(lane).sequence);
        (applied > settled).then_some(Cause::Audit { lane: *lane, applied, settled })
    })
}

fn next_step(head: &Head) -> Verdict {
    let batch = head.retired.saturating_add(1);
    match head.sealed.get(&batch) {
        Some(seal) if batch < head.open => Verdict::Settle { batch, seal: seal.clone() },
        _ if batch < head.open => Verdict::Confirm(Cause::SealMissing(batch)),
        _ if head.blobs > 0 => Verdict::Seal { batch },
        _ => Verdict::Idle,
    }
}

/// A sealed batch that could not be merged, or that the ledger refused (not a transport error).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The generation it was read under.
    pub generation: u64,
    /// Its number.
    pub batch: u64,
    /// Its seal.
    pub seal: String,
}

/// What to do about trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Start again at step 1: another worker may have settled it meanwhile.
    LookAgain,
    /// Still so: begin a reset with the trouble's generation.
    Reset,
}

/// Judges trouble; `before` is the trouble of the worker's last round, if it had any.
#[must_use]
pub fn after_trouble(before: Option<&Trouble>, now: &Trouble) -> Remedy {
    if before == Some(now) { Remedy::Reset } else { Remedy::LookAgain }
}

/// Remembers the last reset of a shard, for step 5.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResetHistory {
    last: Option<u64>,
    repeats: u32,
}

impl ResetHistory {
    /// Nothing was reset yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { last: None, repeats: 0 }
    }

    /// Notes a reset at this cursor. Answers how often in a row the same settled vector was reset
    /// before: from 1 on, back off, raise the alarm and post the lanes one by one.
    pub fn note(&mut self, cursor: &Cursor) -> u32 {
        let hash = cursor.settled_hash();
        self.repeats = if self.last == Some(hash) { self.repeats.saturating_add(1) } else { 0 };
        self.last = Some(hash);
        self.repeats
    }
}
