//! Finding the lane that spoils every batch it is part of.
//!
//! When a shard was reset because of a refused batch and the same happens again though nothing has settled in
//! between, its lanes get their turn one by one: a reset that admits one lane only, then the next. A lane whose
//! batch is refused when it came alone is to blame and set aside until a person looks; all others go on. Nothing
//! here decides what is settled: it only delays lanes.

use std::collections::{BTreeSet, VecDeque};

use drawdown_metering_core::shard::Lane;
use tokio::time::Instant;

/// Whose turn it is in one shard.
#[derive(Debug)]
pub(super) struct Isolation {
    /// Lanes of the batch that was refused last.
    suspects: Vec<Lane>,
    /// The first of them has its turn.
    queue: VecDeque<Lane>,
    aside: BTreeSet<Lane>,
    /// A lane that does not come until then loses its turn.
    until: Option<Instant>,
}

impl Isolation {
    pub(super) const fn new() -> Self {
        Self { suspects: Vec::new(), queue: VecDeque::new(), aside: BTreeSet::new(), until: None }
    }

    /// Lanes have their turn one by one.
    pub(super) fn is_active(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The only lane that may come.
    pub(super) fn turn(&self) -> Option<Lane> {
        self.queue.front().copied()
    }

    /// All lanes that are set aside.
    pub(super) fn aside(&self) -> Vec<Lane> {
        self.aside.iter().copied().collect()
    }

    /// The turn of a lane that did not come is over.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.is_active() && self.until.is_some_and(|until| until <= now)
    }

    /// A batch of these lanes was refused. Answers the lane that is to blame, if only one can be.
    pub(super) fn blame(&mut self, lanes: &[Lane]) -> Option<Lane> {
        self.suspects = lanes.to_vec();
        let only = match lanes {
            [only] if self.is_active() => *only,
            _ => return None,
        };
        self.queue.retain(|lane| *lane != only);
        self.suspects.clear();
        self.aside.insert(only).then_some(only)
    }

    /// The shard is reset, for the `repeats`-th time after the first without progress.
    pub(super) fn reset(&mut self, repeats: u32, until: Instant) {
        if repeats > 0 && !self.is_active() {
            self.queue = std::mem::take(&mut self.suspects).into();
        }
        self.until = Some(until);
    }

    /// The next lane has its turn.
    pub(super) fn next(&mut self, until: Instant) {
        self.queue.pop_front();
        self.until = Some(until);
    }
}

#[cfg(test)]
mod tests {
    use drawdown_types::ProducerId;
    use uuid::Uuid;

    use super::*;

    fn lane(number: u128) -> Lane {
        Lane { producer: ProducerId::from_uuid(Uuid::from_u128(number)), map_version: 1, shard: 0 }
    }

    #[test]
    fn the_lane_that_is_refused_alone_is_set_aside() {
        let now = Instant::now();
        let all = [lane(1), lane(2), lane(3)];
        let mut isolation = Isolation::new();
        assert_eq!(isolation.blame(&all), None);
        isolation.reset(0, now);
        assert!(!isolation.is_active(), "once is no pattern");
        assert_eq!(isolation.blame(&all), None);
        isolation.reset(1, now);
        assert_eq!(isolation.turn(), Some(lane(1)));
        isolation.next(now);
        assert_eq!(isolation.blame(&[lane(2)]), Some(lane(2)));
        isolation.reset(2, now);
        assert_eq!((isolation.turn(), isolation.aside()), (Some(lane(3)), vec![lane(2)]));
        isolation.next(now);
        assert_eq!((isolation.turn(), isolation.aside()), (None, vec![lane(2)]));
    }

    #[test]
    fn a_single_lane_is_tried_alone_before_it_is_blamed() {
        let now = Instant::now();
        let mut isolation = Isolation::new();
        assert_eq!(isolation.blame(&[lane(1)]), None);
        isolation.reset(0, now);
        assert_eq!(isolation.blame(&[lane(1)]), None);
        isolation.reset(1, now);
        assert_eq!(isolation.turn(), Some(lane(1)));
        assert!(isolation.is_over(now));
        assert_eq!(isolation.blame(&[lane(1)]), Some(lane(1)));
        isolation.reset(2, now);
        assert_eq!(isolation.turn(), None);
    }
}
