//! What a stream has to be told of its lanes.
//!
//! Shape: one place for each lane, where newer news replaces older ones; so it is bounded by the lanes of the
//! stream however long its producer does not read. Inside one lane the order is: attached or rewound,
//! watermark, stopped.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use drawdown_metering_core::{
    fault::FieldFault,
    shard::{Lane, Position},
};
use tokio::sync::Notify;

/// A message to a producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The answer to attaching a lane.
    Attached(Lane, Standing),
    /// The lane has to be sent again from here.
    Rewound(Lane, Position),
    /// Progress of some lanes.
    Watermarks(Vec<(Lane, Mark)>),
    /// The lane goes no further on this stream.
    Stopped(Lane, Stop),
}

/// Where a lane stands when it is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) applied: Position,
    pub(crate) settled: Position,
    pub(crate) registered_epoch: u64,
}

/// Progress of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) applied: Position,
    /// Where it moved.
    pub(crate) settled: Option<Position>,
}

/// Why a lane goes no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
    pub(crate) faults: Vec<FieldFault>,
    pub(crate) settled: Position,
}

#[derive(Debug, Default)]
struct Place {
    attached: Option<Standing>,
    rewound: Option<Position>,
    mark: Option<Mark>,
    stopped: Option<Stop>,
}

/// News of one stream.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    lanes: Mutex<BTreeMap<Lane, Place>>,
    ready: Notify,
}

impl Stop {
    pub(crate) fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), faults: Vec::new(), settled: Position::START }
    }

    pub(crate) const fn settled(mut self, settled: Position) -> Self {
        self.settled = settled;
        self
    }
}

impl Outbox {
    /// Waits until there is news.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// A lane is attached.
    pub(crate) fn attached(&self, lane: Lane, standing: Standing) {
        self.put(lane, |place| *place = Place { attached: Some(standing), ..Place::default() });
    }

    /// A lane goes back, or on.
    pub(crate) fn rewound(&self, lane: Lane, applied: Position) {
        self.put(lane, |place| {
            match &mut place.attached {
                Some(standing) => standing.applied = applied,
                None => place.rewound = Some(applied),
            }
            if let Some(mark) = &mut place.mark {
                mark.applied = applied;
            }
        });
    }

    /// A lane moved.
    pub(crate) fn mark(&self, lane: Lane, mark: Mark) {
        self.put(lane, |place| {
            let settled = mark.settled.or_else(|| place.mark.and_then(|before| before.settled));
            place.mark = Some(Mark { applied: mark.applied, settled });
        });
    }

    /// A lane goes no further.
    pub(crate) fn stopped(&self, lane: Lane, stop: Stop) {
        self.put(lane, |place| *place = Place { stopped: Some(stop), ..Place::default() });
    }

    /// Everything that waits, in an order that may be sent.
    pub(crate) fn take(&self) -> Vec<News> {
        let lanes = std::mem::take(&mut *self.lock());
        let mut news = Vec::new();
        let mut marks = Vec::new();
        let mut stops = Vec::new();
        for (lane, place) in lanes {
            news.extend(place.attached.map(|standing| News::Attached(lane, standing)));
            news.extend(place.rewound.map(|applied| News::Rewound(lane, applied)));
            marks.extend(place.mark.map(|mark| (lane, mark)));
            stops.extend(place.stopped.map(|stop| News::Stopped(lane, stop)));
        }
        if !marks.is_empty() {
            news.push(News::Watermarks(marks));
        }
        news.extend(stops);
        news
    }

    fn put(&self, lane: Lane, change: impl FnOnce(&mut Place)) {
        change(self.lock().entry(lane).or_default());
        self.ready.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Lane, Place>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use drawdown_types::ProducerId;
    use uuid::Uuid;

    use super::*;

    fn lane(shard: u32) -> Lane {
        Lane { producer: ProducerId::from_uuid(Uuid::from_u128(1)), map_version: 1, shard }
    }

    fn at(sequence: u64) -> Position {
        Position { sequence, chain: sequence }
    }

    #[test]
    fn newer_news_of_a_lane_replaces_older_ones() {
        let outbox = Outbox::default();
        let standing = Standing { applied: at(1), settled: at(0), registered_epoch: 1 };
        outbox.attached(lane(1), standing);
        outbox.mark(lane(1), Mark { applied: at(2), settled: Some(at(1)) });
        outbox.mark(lane(1), Mark { applied: at(3), settled: None });
        outbox.mark(lane(2), Mark { applied: at(9), settled: None });
        outbox.rewound(lane(2), at(7));
        let news = outbox.take();
        let marks = vec![
            (lane(1), Mark { applied: at(3), settled: Some(at(1)) }),
            (lane(2), Mark { applied: at(7), settled: None }),
        ];
        let expected =
            [News::Attached(lane(1), standing), News::Rewound(lane(2), at(7)), News::Watermarks(marks)];
        assert_eq!(news, expected);
        assert!(outbox.take().is_empty());
    }

    #[test]
    fn a_stop_is_the_last_word_of_a_lane() {
        let outbox = Outbox::default();
        outbox.mark(lane(1), Mark { applied: at(2), settled: None });
        let stop = Stop::new("FENCED", "").settled(at(1));
        outbox.stopped(lane(1), stop.clone());
        assert_eq!(outbox.take(), [News::Stopped(lane(1), stop)]);
    }
}
