//! Recording events by their ids: a batch like any other, made under the lock of its slot.
//!
//! | statement | what | why there |
//! |---|---|---|
//! | 1 | lock the cursor of the slot, and the version of the catalogue for reading | two calls with one id meet here |
//! | 2 | read what is known of the ids, and up to when ids were forgotten | a later statement than the lock |
//! | 2a | in the leading one of several cells: read what is claimed for others | the same lock: an event or a claim |
//! | – | judge each event: known, known with another content, out of time, or new | in the order of the call |
//! | 2b | claim the new ones whose money is another cell's | here, so that one cell gets each and always the same |
//! | 3 to 6 | the new ones, merged to lines, as the next batch of the slot ([`super`]) | the same locks and rows |
//! | 7 | remember the ids with their answers | the same transaction: an id is there exactly where its charge is |
//!
//! So whoever got no answer asks again and gets the one that there is; what is claimed may be recorded in its cell any number
//! of times, since that cell knows the id as well. Nothing is written where no event is new. An id
//! that was forgotten can not come again: its time lies before the bound, which is moved in the transaction that forgets.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use drawdown_ledger_core::{DistinctValues, Line, Plan, Usage};
use drawdown_types::{ClientId, EventName, MeterSlug, TeamId, Timestamp};
use sha2::{Digest as _, Sha256};

use super::{
    Attempt, Balances, Elsewhere, Ending, LineDetail, MeterTotal, Post, PostError, Poster, SealedBatch,
    Summary, Tried,
};
use crate::{
    error::Error,
    store::{
        claims::{self, Claim, ClaimRow},
        events::{self, EventKey, EventRow, Fate, Kept, Known},
        settlement,
        shards::{self, Cursor},
    },
};

/// The first shard that is a slot of events: `ledger.event_shards()`.
pub const EVENT_SHARDS: i32 = 65_536;
/// Bytes of a batch's digest.
const DIGEST_BYTES: usize = 16;

/// Bounds of events by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLimits {
    /// Most events of one call.
    pub per_call_max: usize,
    /// For how long ids are kept at least, by the times of their events.
    pub keep: Duration,
    /// How far ahead of now the time of an event may lie.
    pub ahead_max: Duration,
}

/// Events of one slot, in the order in which they count.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The shard that is their slot.
    pub shard: i32,
    /// The events.
    pub events: Vec<NamedEvent>,
}

/// An event by its id.
#[derive(Clone, Debug)]
pub struct NamedEvent {
    /// Its name.
    pub name: EventName,
    /// SHA-256 over its content.
    pub content: [u8; 32],
    /// When it happened, if its caller said so.
    pub time: Option<Timestamp>,
    /// As a line of one event.
    pub line: Line,
    /// What is kept beside the line.
    pub detail: LineDetail,
    /// The cell that has its money.
    pub cell: u8,
    /// As it was sent, encoded; empty where its money is here.
    pub sent: Vec<u8>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is recorded.
    Recorded {
        /// As this.
        kept: Kept,
        /// Before this call, or earlier in it.
        already: bool,
    },
    /// Its id is recorded or claimed with another content.
    Conflict {
        /// Since when.
        since: Timestamp,
    },
    /// It is claimed for another cell.
    Elsewhere {
        /// Which claim of the call.
        claim: usize,
    },
    /// Its time lies before what is kept.
    TooOld {
        /// The bound.
        bound: Timestamp,
    },
    /// Its time lies too far ahead.
    InFuture {
        /// The bound.
        bound: Timestamp,
    },
}

/// What became of a call.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// One for each event, in the order of the call.
    pub verdicts: Vec<Verdict>,
    /// What is to be recorded in other cells: events as they were first sent, encoded.
    pub claims: Vec<Vec<u8>>,
    /// What was posted, where an event was new.
    pub summary: Option<Summary>,
}

/// A new event: which one of the call, and its line in the batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fresh<'a> {
    pub(super) event: &'a NamedEvent,
    key: EventKey,
    line: usize,
}

/// An event before anything is written.
#[derive(Clone, Copy, Debug)]
enum Judged {
    Known(Verdict),
    /// New, by its place among the new ones.
    Fresh(usize),
    /// The same as a new one of this call.
    Again(usize),
    /// Another content than a new one of this call.
    Against(usize),
}

// === impl Poster ===

impl Poster {
    /// Records events: all of them or none.
    ///
    /// # Errors
    /// [`PostError::Failed`] where the database does not play along; the same call again is harmless.
    pub async fn record(&self, call: &Recording) -> Result<Recorded, PostError> {
        match self.record_without(call, &HashSet::new(), Ending::Commit).await {
            Err(PostError::Failed(error)) if super::is_by_content(&error) => {
                let teams = call.events.iter().filter_map(|event| super::batch::payer(&event.line));
                let teams: HashSet<TeamId> = teams.map(|payer| payer.team_id).collect();
                let poisoned = self.find_poison(teams, Tried::Events(call)).await?;
                if poisoned.is_empty() {
                    return Err(PostError::Failed(error));
                }
                tracing::error!(
                    batch.shard = call.shard,
                    teams = ?poisoned,
                    error = %error,
                    "teams can not be posted to, their events are set apart"
                );
                self.record_without(call, &poisoned, Ending::Commit).await
            }
            outcome => outcome,
        }
    }

    pub(super) async fn record_without(
        &self,
        call: &Recording,
        poisoned: &HashSet<TeamId>,
        ending: Ending,
    ) -> Result<Recorded, PostError> {
        for balances in [Balances::Known, Balances::ToBeMade] {
            let attempt = Attempt { poisoned, ending, balances };
            if let Some(recorded) = self.record_once(call, attempt).await? {
                return Ok(recorded);
            }
        }
        Err(Error::Broken("balances were made and are missing".to_owned()).into())
    }

    /// Nothing, where a balance or the cursor is missing: then balances are to be made, too.
    async fn record_once(
        &self,
        call: &Recording,
        attempt: Attempt<'_>,
    ) -> Result<Option<Recorded>, PostError> {
        let mut tx = self.pool.begin_posting().await?;
        let Some((cursor, version)) = settlement::lock_in_tx(&mut tx, call.shard).await? else {
            // The first call of the slot. Not in this transaction: the cursor of others would wait for its end.
            tx.rollback().await.map_err(Error::from)?;
            shards::ensure_cursors(&self.pool, &[call.shard], &[rand::random()], self.clock.now()).await?;
            return Ok(None);
        };
        let keys: Vec<EventKey> = call.events.iter().map(|event| EventKey::of(&event.name)).collect();
        let known = events::known_in_tx(&mut tx, &keys).await?;
        let mut claimed = HashMap::new();
        if !self.cells.others.is_empty() {
            claimed = claims::known_in_tx(&mut tx, &keys).await?;
        }
        let now = self.clock.now();
        let mut judging = Judging::new(&known, claimed, self.bounds(&known, now));
        for (event, key) in call.events.iter().zip(&keys) {
            judging.judge(event, *key);
        }
        let own = self.cells.number;
        let (here, there): (Vec<_>, Vec<_>) = judging.fresh.iter().partition(|(_, event)| event.cell == own);
        if !there.is_empty() {
            let rows: Vec<_> = there.iter().map(|(key, event)| claim_row(*key, event)).collect();
            claims::claim_in_tx(&mut tx, &rows, now).await?;
        }
        if here.is_empty() {
            match attempt.ending {
                Ending::Commit if !there.is_empty() => tx.commit().await.map_err(Error::from)?,
                Ending::Commit | Ending::RollBack => tx.rollback().await.map_err(Error::from)?,
            }
            return Ok(Some(judging.recorded(own, (&[], now), None)));
        }
        let (batch, fresh) = batch_of(&cursor, &here)?;
        let post = Post { batch: &batch, events: &fresh };
        let Some((summary, kept)) = Box::pin(self.settle(tx, &post, version, attempt)).await? else {
            return Ok(None);
        };
        Ok(Some(judging.recorded(own, (&kept, now), Some(summary))))
    }

    /// The earliest and the latest time of an event that may be recorded.
    fn bounds(&self, known: &Known, now: Timestamp) -> (Timestamp, Timestamp) {
        let oldest = now.checked_sub(self.events.keep).unwrap_or(Timestamp::MIN).max(known.refused_before);
        (oldest, now.checked_add(self.events.ahead_max).unwrap_or(Timestamp::MAX))
    }
}

/// The events of a call, one after the other.
struct Judging<'a> {
    known: &'a Known,
    claimed: HashMap<EventKey, Claim>,
    oldest: Timestamp,
    latest: Timestamp,
    judged: Vec<Judged>,
    /// Those that are new, in their order.
    fresh: Vec<(EventKey, &'a NamedEvent)>,
    /// Where each of them is among the new ones.
    places: HashMap<EventKey, usize>,
    /// What is to be recorded in other cells.
    claims: Vec<Vec<u8>>,
}

impl<'a> Judging<'a> {
    fn new(
        known: &'a Known,
        claimed: HashMap<EventKey, Claim>,
        (oldest, latest): (Timestamp, Timestamp),
    ) -> Self {
        let (judged, fresh, places, claims) = (Vec::new(), Vec::new(), HashMap::new(), Vec::new());
        Self { known, claimed, oldest, latest, judged, fresh, places, claims }
    }

    fn judge(&mut self, event: &'a NamedEvent, key: EventKey) {
        let judged = self.stored(event, key).map(Judged::Known).or_else(|| self.of_this_call(event, key));
        let judged = judged.unwrap_or_else(|| match event.time {
            Some(time) if time < self.oldest => Judged::Known(Verdict::TooOld { bound: self.oldest }),
            Some(time) if time > self.latest => Judged::Known(Verdict::InFuture { bound: self.latest }),
            Some(_) | None => {
                self.places.insert(key, self.fresh.len());
                self.fresh.push((key, event));
                Judged::Fresh(self.fresh.len().saturating_sub(1))
            }
        });
        self.judged.push(judged);
    }

    /// What is told of an event whose id is recorded or claimed.
    fn stored(&mut self, event: &NamedEvent, key: EventKey) -> Option<Verdict> {
        if let Some(kept) = self.known.kept.get(&key).copied() {
            let same = kept.content == event.content;
            let conflict = Verdict::Conflict { since: kept.recorded_at };
            return Some(if same { Verdict::Recorded { kept, already: true } } else { conflict });
        }
        let claim = self.claimed.get(&key)?;
        if claim.content != event.content {
            return Some(Verdict::Conflict { since: claim.claimed_at });
        }
        self.claims.push(claim.usage.clone());
        Some(Verdict::Elsewhere { claim: self.claims.len().saturating_sub(1) })
    }

    fn of_this_call(&self, event: &NamedEvent, key: EventKey) -> Option<Judged> {
        let place = *self.places.get(&key)?;
        let (_, first) = self.fresh.get(place)?;
        Some(if first.content == event.content { Judged::Again(place) } else { Judged::Against(place) })
    }

    /// What became of all, now that the new ones of this cell are `kept`.
    fn recorded(mut self, own: u8, (kept, now): (&[Kept], Timestamp), summary: Option<Summary>) -> Recorded {
        let mut kept = kept.iter();
        let fates: Vec<Option<Verdict>> = self
            .fresh
            .iter()
            .map(|(_, event)| {
                if event.cell == own {
                    return kept.next().map(|kept| Verdict::Recorded { kept: *kept, already: false });
                }
                self.claims.push(event.sent.clone());
                Some(Verdict::Elsewhere { claim: self.claims.len().saturating_sub(1) })
            })
            .collect();
        let fate = |place: usize| fates.get(place).copied().flatten();
        let verdict = |judged: &Judged| match *judged {
            Judged::Known(verdict) => Some(verdict),
            Judged::Fresh(place) => fate(place),
            Judged::Again(place) => fate(place).map(|fate| match fate {
                Verdict::Recorded { kept, .. } => Verdict::Recorded { kept, already: true },
                other => other,
            }),
            Judged::Against(place) => fate(place).map(|fate| match fate {
                Verdict::Recorded { kept, .. } => Verdict::Conflict { since: kept.recorded_at },
                _ => Verdict::Conflict { since: now },
            }),
        };
        let verdicts = self.judged.iter().filter_map(verdict).collect();
        Recorded { verdicts, claims: self.claims, summary }
    }
}

fn claim_row<'a>(key: EventKey, event: &'a NamedEvent) -> ClaimRow<'a> {
    let NamedEvent { name, content, cell, sent, .. } = event;
    ClaimRow { key, name, content, cell: *cell, usage: sent }
}

/// The next batch of the slot, with the new events merged to lines in the order in which they came.
fn batch_of<'a>(
    cursor: &Cursor,
    fresh: &[(EventKey, &'a NamedEvent)],
) -> Result<(SealedBatch, Vec<Fresh<'a>>), Error> {
    let (mut lines, mut details) = (Vec::new(), Vec::new());
    let mut places: HashMap<LineKey<'_>, Vec<usize>> = HashMap::new();
    let mut digest = Sha256::new();
    let mut placed = Vec::with_capacity(fresh.len());
    for (key, event) in fresh {
        digest.update(key.as_bytes());
        digest.update(event.content);
        let line = &event.line;
        let series =
            (&line.client_id, &line.meter, line.failed, &line.series[..], line.window, line.received_window);
        let of_series = places.entry(series).or_default();
        let merged =
            of_series.iter().find(|at| lines.get_mut(**at).is_some_and(|known| merge(known, line))).copied();
        let at = merged.unwrap_or(lines.len());
        if merged.is_none() {
            of_series.push(at);
            lines.push(line.clone());
            details.push(event.detail.clone());
        }
        placed.push(Fresh { event, key: *key, line: at });
    }
    let number = cursor
        .last_batch
        .checked_add(1)
        .ok_or_else(|| Error::Broken("no batch number is left".to_owned()))?;
    let batch = SealedBatch {
        shard: cursor.shard,
        generation: cursor.generation,
        number,
        digest: digest.finalize().iter().take(DIGEST_BYTES).copied().collect(),
        lanes: Vec::new(),
        events: i64::try_from(fresh.len()).unwrap_or(i64::MAX),
        refused: Vec::new(),
        totals: totals(&lines)?,
        lines,
        details,
        elsewhere: Elsewhere::default(),
    };
    Ok((batch, placed))
}

/// What tells lines apart, but who pays and how they add up.
type LineKey<'a> = (&'a ClientId, &'a MeterSlug, bool, &'a [u8], Timestamp, Timestamp);

/// Adds an event to a line of its series, unless it does not fit there.
fn merge(line: &mut Line, event: &Line) -> bool {
    if line.attribution != event.attribution || line.hold_id != event.hold_id {
        return false;
    }
    let usage = match (&line.usage, &event.usage) {
        (Usage::Sum(sum), Usage::Sum(more)) => sum.checked_add(*more).map(Usage::Sum),
        (Usage::Count, Usage::Count) => Some(Usage::Count),
        (Usage::Max(largest), Usage::Max(other)) => Some(Usage::Max(*largest.max(other))),
        (Usage::Unique(values), Usage::Unique(more)) => {
            let both = values.as_slice().iter().chain(more.as_slice());
            Some(Usage::Unique(DistinctValues::new(both.cloned())))
        }
        (Usage::Sum(_) | Usage::Count | Usage::Max(_) | Usage::Unique(_), _) => None,
    };
    let Some((usage, events)) = usage.zip(line.events.checked_add(event.events)) else { return false };
    (line.usage, line.events) = (usage, events);
    true
}

fn totals(lines: &[Line]) -> Result<Vec<MeterTotal>, Error> {
    let mut sums: HashMap<&MeterSlug, (u64, i64)> = HashMap::new();
    for line in lines {
        let (events, quantity) = sums.entry(&line.meter).or_default();
        let units = line.quantity().map(|quantity| quantity.as_units());
        let sum = units.and_then(|units| quantity.checked_add(units)).zip(events.checked_add(line.events));
        // A call is small and an event at most 2^48 units (D53).
        (*quantity, *events) =
            sum.ok_or_else(|| Error::Broken("the sum of a call does not fit".to_owned()))?;
    }
    let total = |(meter, (events, quantity)): (&MeterSlug, (u64, i64))| MeterTotal {
        meter: meter.clone(),
        events,
        quantity,
    };
    Ok(sums.into_iter().map(total).collect())
}

/// What is told of the new events of a batch, now that its plan says who pays.
pub(super) fn kept(
    fresh: &[Fresh<'_>],
    lines: &[Line],
    plan: &Plan,
    at: Timestamp,
) -> Result<Vec<Kept>, Error> {
    let mut fates: Vec<Option<Fate>> = vec![None; lines.len()];
    let mut windows: Vec<Timestamp> = lines.iter().map(|line| line.window).collect();
    for charge in &plan.charges {
        if let Some((fate, window)) = fates.get_mut(charge.line).zip(windows.get_mut(charge.line)) {
            // Usage under a hold counts in the window of the hold (D45).
            (*fate, *window) = (Some(Fate::Charged(charge.charge_id)), charge.window);
        }
    }
    for left in &plan.unattributed {
        if let Some(fate) = fates.get_mut(left.line) {
            *fate = Some(Fate::Left(left.reason));
        }
    }
    let kept = fresh.iter().map(|Fresh { event, line, .. }| {
        let fate = fates.get(*line).copied().flatten().zip(windows.get(*line));
        let (fate, window) =
            fate.ok_or_else(|| Error::Broken("a line is neither charged nor left".to_owned()))?;
        Ok(Kept { content: event.content, recorded_at: at, window: *window, fate })
    });
    kept.collect()
}

/// The rows of new events.
pub(super) fn rows<'a>(fresh: &[Fresh<'a>], kept: &[Kept]) -> Vec<EventRow<'a>> {
    let row = |(Fresh { event, key, .. }, kept): (&Fresh<'a>, &Kept)| EventRow {
        key: *key,
        name: &event.name,
        time: event.time,
        meter: event.line.meter.as_str(),
        quantity: event.line.quantity().map_or(i64::MAX, |quantity| quantity.as_units()),
        kept: *kept,
    };
    fresh.iter().zip(kept).map(row).collect()
}
