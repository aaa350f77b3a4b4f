//! Idle lanes: which of them may leave a head.
//!
//! Doctrine: positions alone decide, of a cursor that was read before the head. A lane that stands where it is settled
//! has nothing in an open or sealed batch that is not settled, because whatever is applied stands above what is
//! settled. How long it has stood there is a matter of cost and not of safety. Who retires names the bytes that were
//! judged and the roll of the head; who attaches a lane names the roll that was known *before* the ledger was asked where
//! the lane stands. So an attach never sets back a lane that was retired in between.

use crate::{
    look::{Cursor, Head, LaneApplied},
    shard::Lane,
};

/// The lanes of a head of which nothing is under way; `cursor` was read before `head`. None where the two are of
/// different generations: then positions can not be compared.
pub fn at_rest<'a>(cursor: &'a Cursor, head: &'a Head) -> impl Iterator<Item = (Lane, LaneApplied)> + 'a {
    let lanes = head.lanes.iter().filter(|_| cursor.generation == head.generation);
    lanes.filter(|(lane, state)| state.applied == cursor.settled(lane)).map(|(lane, state)| (*lane, *state))
}
