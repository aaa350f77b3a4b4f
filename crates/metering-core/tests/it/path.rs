//! Random events, cut into frames, spread over instances, flushes and batches, equal a plain count.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use drawdown_metering_core::{
    aggregate::{Added, Attached},
    blob::NameBook,
    chain,
    meter::Aggregation,
    series::SeriesKey,
    settle::{self, MergedBatch, Merging},
    shard::Lane,
};
use drawdown_types::Quantity;
use proptest::{collection::vec, prelude::*};

use crate::{
    redis::{Applied, GENERATION, Redis},
    setup::{DAY_MS, Event, HOUR_MS, Instance, RECEIPT_MS, SERIES, frame, lane, series},
};

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A producer's next frame, over one of the instances.
    Frame { producer: u128, instance: usize, receipt_ms: i64, events: Vec<Event> },
    /// An instance writes what it has; where `lost`, the answer never comes and it starts over.
    Flush { instance: usize, lost: bool },
    /// The batch is sealed.
    Seal,
}

/// The partial state of a line (D19).
#[derive(Debug, PartialEq, Eq)]
enum State {
    Sum(i64),
    Max(i64),
    Unique(BTreeSet<String>),
}

impl State {
    fn merge(&mut self, other: Self) {
        match (self, other) {
            (Self::Sum(sum), Self::Sum(more)) => *sum += more,
            (Self::Max(most), Self::Max(more)) => *most = (*most).max(more),
            (Self::Unique(values), Self::Unique(more)) => values.extend(more),
            both => panic!("{both:?}"),
        }
    }
}

/// Plain counting, one event at a time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Naive {
    lines: BTreeMap<(Vec<u8>, i64, i64), (u64, State)>,
    refused: BTreeMap<String, u64>,
    clamped: u64,
}

impl Naive {
    fn add(&mut self, (number, quantity, time_ms): Event, receipt_ms: i64) {
        let key = series(number);
        let meter = key.meter().as_str().to_owned();
        if meter == "unknown" {
            return self.refuse("METER_UNKNOWN");
        }
        let is_users = meter == "users";
        let known = |name: &str| name == "region" || (is_users && name == "user");
        if !key.dimensions().iter().all(|(name, _)| known(name.as_str())) {
            return self.refuse("DIMENSION_UNKNOWN");
        }
        let user = key.dimensions().iter().find(|(name, _)| name.as_str() == "user");
        let user = user.map(|(_, value)| value.to_string());
        if is_users && user.is_none() {
            return self.refuse("DIMENSION_MISSING");
        }
        if matches!(meter.as_str(), "bytes" | "peak") && quantity > Quantity::EVENT_MAX {
            return self.refuse("QUANTITY_TOO_LARGE");
        }
        if i128::from(time_ms) > i128::from(receipt_ms + DAY_MS) {
            return self.refuse("EVENT_TIME_IN_FUTURE");
        }
        if time_ms < receipt_ms - 400 * DAY_MS {
            return self.refuse("EVENT_TIME_TOO_OLD");
        }
        let clamped = time_ms > receipt_ms + 5 * 60_000;
        self.clamped += u64::from(clamped);
        let at = if clamped { receipt_ms } else { time_ms };
        let window = |ms: i64| ms.div_euclid(60_000) * 60;
        let charged = key.dimensions().iter().filter(|(name, _)| name.as_str() != "user");
        let charged = charged.map(|(name, value)| (name.clone(), value.to_string())).collect();
        let key = SeriesKey::new(
            key.client_id().clone(),
            key.meter().clone(),
            key.outcome(),
            charged,
            key.hold_id(),
        );
        let quantity = i64::try_from(quantity).unwrap_or_default();
        let state = match meter.as_str() {
            "bytes" => State::Sum(quantity),
            "calls" => State::Sum(1),
            "peak" => State::Max(quantity),
            _ => State::Unique(user.into_iter().collect()),
        };
        self.merge((key.unwrap().encode(), window(at), window(receipt_ms)), 1, state);
    }

    fn merge(&mut self, key: (Vec<u8>, i64, i64), events: u64, state: State) {
        match self.lines.entry(key) {
            Entry::Vacant(place) => drop(place.insert((events, state))),
            Entry::Occupied(mut place) => {
                place.get_mut().0 += events;
                place.get_mut().1.merge(state);
            }
        }
    }

    fn refuse(&mut self, reason: &str) {
        *self.refused.entry(reason.to_owned()).or_default() += 1;
    }

    /// Adds what a merged batch has.
    fn add_batch(&mut self, batch: &MergedBatch) {
        let secs = |at: drawdown_types::Timestamp| at.as_millis() / 1000;
        for line in &batch.lines {
            let key = (line.series.encode(), secs(line.window_start), secs(line.received_window_start));
            let values = || line.values.iter().map(ToString::to_string).collect();
            let state = match line.aggregation {
                Aggregation::Sum | Aggregation::Count => State::Sum(line.quantity),
                Aggregation::Max => State::Max(line.quantity),
                Aggregation::Unique => State::Unique(values()),
            };
            assert_eq!(line.values.len(), if let State::Unique(values) = &state { values.len() } else { 0 });
            self.merge(key, line.events, state);
        }
        for (reason, events) in &batch.refused {
            *self.refused.entry(reason.clone()).or_default() += events;
        }
        self.clamped += batch.clamped;
    }
}

pub(crate) fn check_sums(batch: &MergedBatch) {
    let events: u64 = batch.lines.iter().map(|line| line.events).sum();
    let refused: u64 = batch.refused.values().sum();
    let in_lanes: u64 = batch.lanes.iter().map(|span| span.to - span.from + 1).sum();
    assert_eq!((events, events + refused), (batch.events, in_lanes));
    let mut totals: BTreeMap<&str, (u64, i64)> = BTreeMap::new();
    for line in &batch.lines {
        let total = totals.entry(line.series.meter().as_str()).or_default();
        total.0 += line.events;
        total.1 += line.quantity;
        if line.aggregation == Aggregation::Unique {
            assert_eq!(usize::try_from(line.quantity), Ok(line.values.len()));
        }
    }
    let stated: BTreeMap<&str, (u64, i64)> =
        batch.totals.iter().map(|(slug, total)| (slug.as_str(), (total.events, total.quantity))).collect();
    assert_eq!(totals, stated);
    let keys: Vec<_> =
        batch.lines.iter().map(|l| (l.series.encode(), l.window_start, l.received_window_start)).collect();
    assert!(keys.windows(2).all(|pair| pair[0] < pair[1]), "sorted, each once");
}

/// Blob by blob, watched, the same lines come out, and what was touched is told once.
fn check_merging(sealed: &settle::SealedBatch, entries: &[Vec<u8>], batch: &MergedBatch) {
    let mut merging = Merging::new(sealed.shard, sealed.generation, sealed.batch).watched();
    let mut touched = Vec::new();
    for entry in entries {
        merging.push(entry).unwrap();
        touched.extend(merging.take_touched());
    }
    let seen = |key| {
        let line = merging.line(&key).unwrap();
        let place = (line.series.encode(), line.window_start, line.received_window_start);
        (place, (line.events, line.quantity, line.values.map_or(0, |values| values.len())))
    };
    let lines: BTreeMap<_, _> = touched.into_iter().map(seen).collect();
    assert_eq!(lines, merging.keys().map(seen).collect());
    let posted = batch.lines.iter().map(|line| {
        let place = (line.series.encode(), line.window_start, line.received_window_start);
        (place, (line.events, line.quantity, line.values.len()))
    });
    assert_eq!(lines, posted.collect());
    assert_eq!((merging.weight(), merging.count()), (batch.weight(), entries.len()));
}

struct Log {
    lane: Lane,
    frames: Vec<(u64, u64, Vec<u8>)>,
    end: u64,
    chain: u64,
}

pub(crate) struct World {
    redis: Redis,
    instances: Vec<(Instance, NameBook)>,
    logs: Vec<Log>,
    fresh: u64,
    pub(crate) sealed: Vec<(settle::SealedBatch, Vec<Vec<u8>>)>,
    pub(crate) naive: Naive,
}

impl World {
    pub(crate) fn new() -> Self {
        // One instance forgets its series at almost every flush.
        let instances = [Instance::new(), Instance::remembering(3), Instance::new()];
        Self {
            redis: Redis::new(),
            instances: instances.into_iter().map(|instance| (instance, NameBook::new())).collect(),
            logs: (0..2)
                .map(|n| Log { lane: lane(n), frames: vec![], end: 0, chain: chain::START })
                .collect(),
            fresh: 0,
            sealed: Vec::new(),
            naive: Naive::default(),
        }
    }

    pub(crate) fn run(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Frame { producer, instance, receipt_ms, events } => {
                    self.append(*producer, *receipt_ms, events);
                    self.send(*producer, *instance);
                }
                Step::Flush { instance, lost } => self.flush(*instance, *lost),
                Step::Seal => self.seal(),
            }
        }
        // A flush that another instance overtook is refused once; what it held is sent again.
        while self.logs.iter().any(|log| self.redis.applied(&log.lane).sequence < log.end) {
            for producer in 0..2 {
                self.send(producer, 0);
                self.flush(0, false);
            }
        }
        self.seal();
    }

    fn append(&mut self, producer: u128, receipt_ms: i64, events: &[Event]) {
        let log = &mut self.logs[usize::try_from(producer).unwrap()];
        let body = frame(log.lane, log.end + 1, receipt_ms, events);
        let before = log.chain;
        log.chain = chain::next(before, &body);
        log.end += u64::try_from(events.len()).unwrap();
        log.frames.push((log.end, before, body));
        for event in events {
            self.naive.add(*event, receipt_ms);
        }
    }

    /// Sends everything that Redis has not, as a producer that just connected to an instance.
    fn send(&mut self, producer: u128, instance: usize) {
        let log = &self.logs[usize::try_from(producer).unwrap()];
        let (instance, _) = &mut self.instances[instance];
        let applied = self.redis.applied(&log.lane);
        if instance.aggregator.attach(log.lane, 1, applied) == Attached::Overtaken {
            instance.aggregator.clear();
            instance.aggregator.attach(log.lane, 1, applied);
        }
        for (end, before, body) in &log.frames {
            if *end > applied.sequence {
                match instance.add(log.lane.producer, 1, *before, body) {
                    Ok(Added::Counted { .. } | Added::Duplicate) => {}
                    Err(fault) => panic!("{fault:?}"),
                }
            }
        }
    }

    fn flush(&mut self, instance: usize, lost: bool) {
        let (instance, names) = &mut self.instances[instance];
        let flush = instance.aggregator.take();
        if flush.is_empty() {
            return;
        }
        self.fresh += 1;
        let blob = names.encode(&flush, GENERATION, self.redis.open, self.fresh);
        match self.redis.apply(&flush, &blob) {
            Applied::Ok if !lost => names.commit(),
            Applied::Names => panic!("names are fresh or committed"),
            // Another instance moved a lane on, or the answer was lost: forget, attach anew, rewind.
            Applied::Ok | Applied::Lane => instance.aggregator.clear(),
        }
    }

    fn seal(&mut self) {
        if !self.redis.entries.is_empty() {
            self.sealed.push(self.redis.seal());
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    let offset = prop_oneof![
        6 => -200_000i64..100_000,
        2 => -3 * HOUR_MS..HOUR_MS,
        1 => Just(5 * 60_000),
        1 => Just(5 * 60_000 + 1),
        1 => Just(DAY_MS),
        1 => Just(DAY_MS + 1),
        1 => Just(-400 * DAY_MS),
        1 => Just(-400 * DAY_MS - 1),
        1 => prop_oneof![Just(i64::MIN), Just(i64::MAX / 2)],
    ];
    let quantity = prop_oneof![8 => 0u64..50, 1 => Just(1u64 << 48), 1 => Just((1u64 << 48) + 1)];
    (1..=SERIES, quantity, offset).prop_map(|(series, quantity, offset)| {
        (series, quantity, if offset == i64::MIN { offset } else { RECEIPT_MS + offset })
    })
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let frame = (0u128..2, 0usize..3, 0i64..180_000, vec(event(), 1..12)).prop_map(
        |(producer, instance, late_ms, events)| Step::Frame {
            producer,
            instance,
            receipt_ms: RECEIPT_MS + late_ms,
            events,
        },
    );
    let flush =
        (0usize..3, prop::bool::weighted(0.2)).prop_map(|(instance, lost)| Step::Flush { instance, lost });
    vec(prop_oneof![5 => frame, 4 => flush, 1 => Just(Step::Seal)], 1..40)
}

proptest! {
    #[test]
    fn merged_batches_equal_a_plain_count(steps in steps()) {
        let mut world = World::new();
        world.run(&steps);
        let mut merged = Naive::default();
        let mut settled: BTreeMap<Lane, (u64, u64)> = BTreeMap::new();
        for (sealed, entries) in &world.sealed {
            let batch = settle::merge(sealed, entries).unwrap();
            check_sums(&batch);
            check_merging(sealed, entries, &batch);
            for span in &batch.lanes {
                let at = settled.entry(span.lane).or_insert((0, chain::START));
                prop_assert_eq!((span.from, span.chain_before), (at.0 + 1, at.1));
                *at = (span.to, span.chain_after);
            }
            merged.add_batch(&batch);
        }
        for log in &world.logs {
            prop_assert_eq!(settled.get(&log.lane).copied().unwrap_or_default(), (log.end, log.chain));
        }
        prop_assert_eq!(merged, world.naive);
    }
}
