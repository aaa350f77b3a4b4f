//! The gate's checks, in the order of the specification (exactly-once: `gate post`). Pure: facts in,
//! verdict out. The order is part of the contract: a settled batch is answered by its receipt even
//! when the generation has changed since, and a worker reads its next step from the first check that
//! fails. Epochs are never compared: a producer's restart must not reset a shard.
//!
//! A cell that follows a leading one gets what that one has settled. So it compares no generation and goes over the
//! ranges that were lost there; a batch that it has is the same one only with the same split.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
};

use drawdown_types::MeterSlug;

use super::batch::{MeterTotal, SealedBatch};
use crate::{
    cells::Cells,
    reason,
    store::{
        settlement::{Facts, LaneRange, LaneStand, Receipt},
        shards::{Cursor, LaneKey},
    },
};

/// Events and quantity, by meter.
type Sums<'a> = HashMap<&'a MeterSlug, (i128, i128)>;
/// Lanes of a shard.
type Lanes = HashMap<LaneKey, LaneStand>;

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
    /// It is for other cells than this one.
    #[error("the batch is not for here: {why}")]
    CellMismatch {
        /// What does not fit.
        why: String,
    },
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
            Self::CellMismatch { .. } => reason::CELL_MISMATCH,
            Self::TotalsMismatch { .. } => reason::TOTALS_MISMATCH,
        }
    }
}

/// Checks a batch against what is committed.
///
/// # Errors
/// The first [`Fault`], in the order of the specification.
pub fn check(batch: &SealedBatch, cursor: &Cursor, facts: &Facts, cells: &Cells) -> Result<Gate, Fault> {
    if batch.elsewhere.cell != cells.number {
        let why = format!("it is for cell {}, this is cell {}", batch.elsewhere.cell, cells.number);
        return Err(Fault::CellMismatch { why });
    }
    if let Some(receipt) = &facts.receipt {
        // Resolved again, a batch may fall apart in another way: then the leading cell's first word counts.
        let same = receipt.digest == batch.digest && (cells.leads() || receipt.split == batch.split());
        return if same {
            Ok(Gate::Settled(receipt.clone()))
        } else {
            Err(Fault::Conflict { number: batch.number })
        };
    }
    check_parts(batch, cells)?;
    if cursor.last_batch.checked_add(1) != Some(batch.number) {
        return Err(Fault::NotNext { number: batch.number, last: cursor.last_batch });
    }
    if cells.leads() && cursor.generation != batch.generation {
        return Err(Fault::GenerationStale);
    }
    let lanes = after_lost(batch, facts)?;
    for range in &batch.lanes {
        check_place(range, lanes.get(&range.key))?;
    }
    let broken = |range: &&LaneRange| lanes.get(&range.key).is_none_or(|l| l.chain != range.chain_before);
    if let Some(range) = batch.lanes.iter().find(broken) {
        return Err(Fault::LaneDiverged(range.key));
    }
    check_counts(batch)?;
    check_totals(batch)?;
    Ok(Gate::Open)
}

/// The leading cell keeps a part for each of the others, whatever metering knows of them.
fn check_parts(batch: &SealedBatch, cells: &Cells) -> Result<(), Fault> {
    let given: BTreeSet<u8> = batch.elsewhere.parts.iter().map(|part| part.cell).collect();
    if given == cells.others {
        return Ok(());
    }
    let why = format!("it has parts for cells {given:?}, there are {:?}", cells.others);
    Err(Fault::CellMismatch { why })
}

/// Where the lanes stand once the ranges that the batch names as lost are gone over; those that were gone over
/// before are left out.
fn after_lost<'a>(batch: &SealedBatch, facts: &'a Facts) -> Result<Cow<'a, Lanes>, Fault> {
    let mut lanes = Cow::Borrowed(&facts.lanes);
    for range in &batch.elsewhere.lost {
        let stand = lanes.get(&range.key).copied();
        if stand.is_some_and(|stand| range.to <= stand.settled) {
            continue;
        }
        check_place(range, stand.as_ref())?;
        if stand.is_none_or(|stand| stand.chain != range.chain_before) {
            return Err(Fault::LaneDiverged(range.key));
        }
        lanes.to_mut().insert(range.key, LaneStand { settled: range.to, chain: range.chain_after });
    }
    Ok(lanes)
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
    let counted = i128::from(batch.events) + i128::from(batch.refused()) + i128::from(batch.elsewhere.events);
    equal(|| "events and refused events".to_owned(), counted, in_lanes)?;
    if batch.elsewhere.parts.is_empty() {
        return Ok(());
    }
    let in_parts = batch.elsewhere.parts.iter().map(|part| i128::from(part.events)).sum();
    equal(|| "events of parts".to_owned(), in_parts, batch.elsewhere.events.into())
}

fn check_totals(batch: &SealedBatch) -> Result<(), Fault> {
    let mut found: Sums<'_> = HashMap::new();
    for line in &batch.lines {
        let (events, quantity) = found.entry(&line.meter).or_default();
        *events += i128::from(line.events);
        *quantity += line.quantity().map_or(0, |quantity| i128::from(quantity.as_units()));
    }
    if !batch.elsewhere.parts.is_empty() {
        let mut parts = HashMap::new();
        add(&mut parts, batch.elsewhere.parts.iter().flat_map(|part| &part.totals));
        compare(parts, &batch.elsewhere.totals)?;
    }
    add(&mut found, &batch.elsewhere.totals);
    compare(found, &batch.totals)
}

fn add<'a>(sums: &mut Sums<'a>, totals: impl IntoIterator<Item = &'a MeterTotal>) {
    for total in totals {
        let (events, quantity) = sums.entry(&total.meter).or_default();
        *events += i128::from(total.events);
        *quantity += i128::from(total.quantity);
    }
}

fn compare(mut found: Sums<'_>, totals: &[MeterTotal]) -> Result<(), Fault> {
    for MeterTotal { meter, events, quantity } in totals {
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
