//! Accounts on several ledgers (*cells*): which lines of a batch go where, and what is settled in all of them.
//!
//! One cell leads. It settles a batch with what it has for the others in one transaction, so the split is made
//! here once, for the first try that it takes: a later try may split in another way and changes nothing. The others
//! take each batch from what the leading one keeps. So the leading cell is at most one batch ahead in normal
//! operation, and alone decides where Redis has to stand; producers are told what is settled in all.

use std::collections::BTreeMap;

use drawdown_types::MeterSlug;

use crate::{
    look::Cursor,
    settle::{Line, MergedBatch, Total},
    shard::Position,
};

/// The cell that leads, and the only one where there are no others.
pub const LEADING: u8 = 0;

/// A line whose payer lives in a cell that nobody has told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an account lives in cell {0}, which is not configured")]
pub struct UnknownCell(pub u8);

/// The lines of a batch by cell, each in the order of the batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split<'a> {
    /// Of the leading cell.
    pub leading: Vec<&'a Line>,
    /// Of each other cell, also where it has none.
    pub others: BTreeMap<u8, Vec<&'a Line>>,
    /// Events of all others together.
    pub events_elsewhere: u64,
    /// The sums of all others together, by meter.
    pub elsewhere: BTreeMap<&'a MeterSlug, Total>,
}

/// Splits a batch between the leading cell and `others`.
///
/// # Errors
/// [`UnknownCell`]: the first line that is of none of them.
pub fn split<'a>(
    batch: &'a MergedBatch,
    others: &[u8],
    cell_of: impl Fn(&Line) -> u8,
) -> Result<Split<'a>, UnknownCell> {
    let mut split =
        Split { others: others.iter().map(|cell| (*cell, Vec::new())).collect(), ..Split::default() };
    for line in &batch.lines {
        let cell = cell_of(line);
        if cell == LEADING {
            split.leading.push(line);
            continue;
        }
        split.others.get_mut(&cell).ok_or(UnknownCell(cell))?.push(line);
        // The sums of the whole batch fit, and no line is below zero: so do those of a part.
        split.events_elsewhere = split.events_elsewhere.saturating_add(line.events);
        let total = split.elsewhere.entry(line.series.meter()).or_default();
        total.events = total.events.saturating_add(line.events);
        total.quantity = total.quantity.saturating_add(line.quantity);
    }
    Ok(split)
}

/// What producers are told of a shard: the leading cell's lanes, held back by every cell that has not settled its
/// last batch yet. The leading cursor has to be read before the others.
///
/// A cell that is further behind was restored or added: what it lacks is kept by the leading cell, and producers have
/// freed it long ago. So it holds back nobody.
#[must_use]
pub fn settled_in_all<'a>(leading: &Cursor, others: impl IntoIterator<Item = &'a Cursor>) -> Cursor {
    let mut told = leading.clone();
    for other in others {
        if other.last_batch.checked_add(1) != Some(leading.last_batch) {
            continue;
        }
        for (lane, state) in &mut told.lanes {
            let there = other.lanes.get(lane).map_or(Position::START, |lane| lane.settled);
            if there.sequence < state.settled.sequence {
                state.settled = there;
            }
        }
    }
    told
}
