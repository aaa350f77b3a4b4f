//! The gate's checks, in the order of the specification (exactly-once: `gate post`). Pure: facts in,
//! verdict out. The order is part of the contract: a settled batch is answered by its receipt even
//! when the generation has changed since, and a worker reads its next step from the first check that
//! fails. Epochs are never compared: a producer's restart must not reset a shard.

use std::collections::HashMap;

use drawdown_types::MeterSlug;

use super::batch::{MeterTotal, SealedBatch};
use crate::{
    reason,
    store::{
        settlement::{Facts, LaneRange, LaneStand, Receipt},
        shards::{Cursor, LaneKey},
    },
};

/// The verdict on a batch that is not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It may be posted.
    Open,
    /// It is settled already.
    Settled(Receipt),
}

/// Why the gate refuses a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The shard has no cursor.
    #[error("shard {shard} has no cursor")]
    ShardUnknown {
        /// The shard.
        shard: i32,
    },
    /// The number is settled with another digest.
    #[error("batch {number} is settled with another content")]
    Conflict {
        /// The number.
        number: i64,
    },
    /// The number is not the next.
    #[error("batch {number} does not follow {last}, the last settled one")]
    NotNext {
        /// The number.
        number: i64,
        /// The cursor's last.
        last: i64,
    },
    /// Sealed under another generation.
    #[error("the shard has another generation")]
    GenerationStale,
    /// The producer of a lane is not registered.
    #[error("lane {} of map {} is not known", .0.producer_id, .0.map_version)]
    LaneUnknown(LaneKey),
    /// A range does not follow what is settled.
    #[error("lane {} of map {}: range {from} to {to} does not follow {settled}", .key.producer_id, .key.map_version)]
    LaneGap {
        /// The lane.
        key: LaneKey,
        /// First sequence of the range.
        from: i64,
        /// Last sequence of the range.
        to: i64,
        /// What is settled.
        settled: i64,
    },
    /// A range does not join the settled chain.
    #[error("lane {} of map {}: the chain before the range is not the settled one", .0.producer_id, .0.map_version)]
    LaneDiverged(LaneKey),
    /// Counts or totals do not add up.
    #[error("{what} do not add up: {found} instead of {expected}")]
    TotalsMismatch {
        /// Of what.
        what: String,
        /// What they add up to.
        found: i128,
        /// What they should.
        expected: i128,
    },
}

impl Fault {
    /// Its stable reason.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::ShardUnknown { .. } => reason::SHARD_UNKNOWN,
            Self::Conflict { .. } => reason::BATCH_CONFLICT,
            Self::NotNext { .. } => reason::BATCH_NOT_NEXT,
            Self::GenerationStale => reason::GENERATION_STALE,
            Self::LaneUnknown(_) => reason::LANE_UNKNOWN,
            Self::LaneGap { .. } => reason::LANE_GAP,
            Self::LaneDiverged(_) => reason::LANE_DIVERGED,
            Self::TotalsMismatch { .. } => reason::TOTALS_MISMATCH,
        }
    }
}

/// Checks a batch against what is committed.
///
/// # Errors
/// The first [`Fault`], in the order of the specification.
pub fn check(batch: &SealedBatch, cursor: &Cursor, facts: &Facts) -> Result<Gate, Fault> {
    if let Some(receipt) = &facts.receipt {
        return if receipt.digest == batch.digest {
            Ok(Gate::Settled(receipt.clone()))
        } else {
            Err(Fault::Conflict { number: batch.number })
        };
    }
    if cursor.last_batch.checked_add(1) != Some(batch.number) {
        return Err(Fault::NotNext { number: batch.number, last: cursor.last_batch });
    }
    if cursor.generation != batch.generation {
        return Err(Fault::GenerationStale);
    }
    for range in &batch.lanes {
        check_place(range, facts.lanes.get(&range.key))?;
    }
    let broken =
        |range: &&LaneRange| facts.lanes.get(&range.key).is_none_or(|l| l.chain != range.chain_before);
    if let Some(range) = batch.lanes.iter().find(broken) {
        return Err(Fault::LaneDiverged(range.key));
    }
    check_counts(batch)?;
    check_totals(batch)?;
    Ok(Gate::Open)
}

fn check_place(range: &LaneRange, lane: Option<&LaneStand>) -> Result<(), Fault> {
    let Some(LaneStand { settled, .. }) = lane.copied() else {
        return Err(Fault::LaneUnknown(range.key));
    };
    if settled.checked_add(1) != Some(range.from) || range.from > range.to {
        return Err(Fault::LaneGap { key: range.key, from: range.from, to: range.to, settled });
    }
    Ok(())
}

fn equal(what: impl FnOnce() -> String, found: i128, expected: i128) -> Result<(), Fault> {
    if found == expected { Ok(()) } else { Err(Fault::TotalsMismatch { what: what(), found, expected }) }
}

fn check_counts(batch: &SealedBatch) -> Result<(), Fault> {
    let in_lines = batch.lines.iter().map(|line| i128::from(line.events)).sum();
    equal(|| "events of lines".to_owned(), in_lines, batch.events.into())?;
    let in_lanes = batch.lanes.iter().map(|range| i128::from(range.to) - i128::from(range.from) + 1).sum();
    let counted = i128::from(batch.events) + i128::from(batch.refused());
    equal(|| "events and refused events".to_owned(), counted, in_lanes)
}

fn check_totals(batch: &SealedBatch) -> Result<(), Fault> {
    let mut found: HashMap<&MeterSlug, (i128, i128)> = HashMap::new();
    for line in &batch.lines {
        let (events, quantity) = found.entry(&line.meter).or_default();
        *events += i128::from(line.events);
        *quantity += line.quantity().map_or(0, |quantity| i128::from(quantity.as_units()));
    }
    for MeterTotal { meter, events, quantity } in &batch.totals {
        let (events_found, quantity_found) = found.remove(meter).unwrap_or_default();
        equal(|| format!("events of meter {meter}"), events_found, (*events).into())?;
        equal(|| format!("quantities of meter {meter}"), quantity_found, (*quantity).into())?;
    }
    match found.into_iter().next() {
        Some((meter, (events, _))) => {
            equal(|| format!("events of meter {meter}, which has no total,"), events, -1)
        }
        None => Ok(()),
    }
}
