//! How far Redis is ahead of the ledger, in events and in time.
//!
//! Time is measured without any field in Redis: each look remembers how many events were applied; the oldest
//! look whose events are not all settled tells how old the oldest of them is, to the interval of the looks.

use std::{collections::VecDeque, time::Duration};

use drawdown_metering_core::{
    look::{Cursor, Head},
    shard::Position,
};
use tokio::time::Instant;

/// Looks that are remembered; beyond it neighbours are merged into the older one.
const MARKS_MAX: usize = 256;

/// Events applied and not settled, over all lanes of a shard.
pub(crate) fn unsettled(head: &Head, cursor: &Cursor) -> u64 {
    head.lanes.iter().fold(0, |sum, (lane, state)| {
        let settled = cursor.lanes.get(lane).map_or(Position::START, |lane| lane.settled);
        sum.saturating_add(state.applied.sequence.saturating_sub(settled.sequence))
    })
}

/// The looks at one shard.
#[derive(Debug, Default)]
pub(super) struct Drift {
    generation: u64,
    marks: VecDeque<(Instant, u64)>,
}

impl Drift {
    /// A look. Answers the events that are not settled, and the age of the oldest of them.
    pub(super) fn seen(&mut self, now: Instant, head: &Head, cursor: &Cursor) -> (u64, Duration) {
        if self.generation != head.generation {
            // After a reset the same events are applied anew.
            self.marks.clear();
            self.generation = head.generation;
        }
        let drift = unsettled(head, cursor);
        let applied = head.lanes.values().fold(0_u64, |sum, lane| sum.saturating_add(lane.applied.sequence));
        let settled = applied.saturating_sub(drift);
        if self.marks.back().is_none_or(|(_, last)| *last < applied) {
            if self.marks.len() >= MARKS_MAX {
                self.marks.pop_back();
            }
            self.marks.push_back((now, applied));
        }
        while self.marks.front().is_some_and(|(_, mark)| *mark <= settled) {
            self.marks.pop_front();
        }
        let lag = self.marks.front().map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at));
        (drift, if drift == 0 { Duration::ZERO } else { lag })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use drawdown_metering_core::{
        look::{LaneApplied, LaneSettled},
        shard::Lane,
    };
    use drawdown_types::ProducerId;

    use super::*;

    fn look(lane: Lane, applied: u64, settled: u64) -> (Head, Cursor) {
        let at = |sequence| Position { sequence, chain: sequence };
        let head = Head {
            generation: 1,
            roll: 0,
            open: 1,
            retired: 0,
            blobs: 0,
            open_length: 0,
            sealed: BTreeMap::new(),
            lanes: BTreeMap::from([(lane, LaneApplied { epoch: 1, applied: at(applied) })]),
        };
        let lanes = BTreeMap::from([(lane, LaneSettled { epoch: 1, settled: at(settled) })]);
        (head, Cursor { generation: 1, last_batch: 0, lanes })
    }

    #[test]
    fn the_lag_is_the_age_of_the_oldest_unsettled_look() {
        let lane = Lane { producer: ProducerId::generate(), map_version: 1, shard: 0 };
        let begin = Instant::now();
        let mut drift = Drift::default();
        for (secs, applied, settled, expected) in [
            (0, 0, 0, (0, 0)),
            (1, 10, 0, (10, 0)),
            (2, 20, 0, (20, 1)),
            (3, 20, 10, (10, 1)),
            (4, 20, 20, (0, 0)),
        ] {
            let (head, cursor) = look(lane, applied, settled);
            let (events, lag) = drift.seen(begin + Duration::from_secs(secs), &head, &cursor);
            assert_eq!((events, lag.as_secs()), expected, "after {secs} s");
        }
    }
}
