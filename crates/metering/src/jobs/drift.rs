//! How far Redis is ahead of the ledger, in events and in time.
//!
//! Time is measured without any field in Redis: each look remembers how many events were applied; the oldest
//! look whose events are not all settled tells how old the oldest of them is, to the interval of the looks.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use drawdown_metering_core::{
    look::{Cursor, Head},
    shard::{Lane, Position},
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

/// The looks at one shard. Idle lanes leave the head and come back where they are settled, so neither may count: what is
/// added up are the events that each lane was seen to gain.
#[derive(Debug, Default)]
pub(super) struct Drift {
    generation: u64,
    /// Where each lane was applied to at the look before.
    lanes: BTreeMap<Lane, u64>,
    /// Events seen applied in this generation.
    applied: u64,
    marks: VecDeque<(Instant, u64)>,
}

impl Drift {
    /// A look. Answers the events that are not settled, and the age of the oldest of them.
    pub(super) fn seen(&mut self, now: Instant, head: &Head, cursor: &Cursor) -> (u64, Duration) {
        if self.generation != head.generation {
            // After a reset the same events are applied anew.
            *self = Self { generation: head.generation, ..Self::default() };
        }
        let drift = unsettled(head, cursor);
        let lanes = head.lanes.iter().map(|(lane, state)| (*lane, state.applied.sequence)).collect();
        let before = std::mem::replace(&mut self.lanes, lanes);
        let settled_to = |lane: &Lane| cursor.lanes.get(lane).map_or(0, |lane| lane.settled.sequence);
        let applied = self.lanes.iter().fold(self.applied, |sum, (lane, applied)| {
            let known = before.get(lane).copied().unwrap_or_else(|| settled_to(lane));
            sum.saturating_add(applied.saturating_sub(known))
        });
        self.applied = applied;
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
    use drawdown_metering_core::look::{LaneApplied, LaneSettled};
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

    #[test]
    fn lanes_that_leave_and_come_back_are_no_lag() {
        let lanes =
            [1, 2].map(|map_version| Lane { producer: ProducerId::generate(), map_version, shard: 0 });
        let begin = Instant::now();
        let mut drift = Drift::default();
        // Of the second lane 1000 events are settled. It leaves while the first one lags, and comes back.
        for (secs, first, is_there, expected) in [
            (0, (10, 10), true, (0, 0)),
            (1, (20, 10), true, (10, 0)),
            (2, (20, 10), false, (10, 1)),
            (3, (30, 10), true, (20, 2)),
            (4, (30, 20), false, (10, 1)),
            (5, (30, 30), false, (0, 0)),
            (9, (40, 30), true, (10, 0)),
            (10, (40, 30), true, (10, 1)),
        ] {
            let (mut head, mut cursor) = look(lanes[0], first.0, first.1);
            if is_there {
                let (other, settled) = look(lanes[1], 1000, 1000);
                head.lanes.extend(other.lanes);
                cursor.lanes.extend(settled.lanes);
            }
            let (events, lag) = drift.seen(begin + Duration::from_secs(secs), &head, &cursor);
            assert_eq!((events, lag.as_secs()), expected, "after {secs} s");
        }
    }
}
