//! Series, meters and frames that all tests here use. Every client id belongs to shard 0 of 1.

use std::{num::NonZeroU32, sync::Arc};

use drawdown_metering_core::{
    aggregate::{Added, Aggregator, Attached, EventRules, Incoming, ValueLimits},
    dictionary::Dictionary,
    fault::FrameFault,
    frame::{FrameBuilder, FrameLimits, FrameView},
    meter::{Aggregation, MeterFacts, MeterTable},
    series::{Outcome, SeriesKey, SeriesNumber},
    shard::{Lane, Position, ShardMap},
};
use drawdown_types::{ClientId, DimensionName, MeterSlug, ProducerId, Timestamp};

/// 2026-01-31T12:00:00Z, an edge of every window size.
pub(crate) const RECEIPT_MS: i64 = 1_769_860_800_000;
pub(crate) const HOUR_MS: i64 = 3_600_000;
pub(crate) const DAY_MS: i64 = 24 * HOUR_MS;

pub(crate) fn map() -> ShardMap {
    ShardMap { version: 1, shard_count: NonZeroU32::MIN }
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(RECEIPT_MS + HOUR_MS).unwrap()
}

pub(crate) fn producer(number: u128) -> ProducerId {
    ProducerId::from_uuid(uuid::Uuid::from_u128(number))
}

pub(crate) fn lane(number: u128) -> Lane {
    Lane { producer: producer(number), map_version: 1, shard: 0 }
}

pub(crate) fn meters() -> Arc<MeterTable> {
    let slug = |slug: &str| MeterSlug::new(slug).unwrap();
    let facts = |aggregation, names: &[&str], unique: Option<&str>| MeterFacts {
        aggregation,
        dimensions: names.iter().map(|name| DimensionName::new(name).unwrap()).collect(),
        unique_dimension: unique.map(|name| DimensionName::new(name).unwrap()),
    };
    Arc::new(MeterTable::new([
        (slug("bytes"), facts(Aggregation::Sum, &["region"], None)),
        (slug("calls"), facts(Aggregation::Count, &["region"], None)),
        (slug("peak"), facts(Aggregation::Max, &["region"], None)),
        (slug("users"), facts(Aggregation::Unique, &["region", "user"], Some("user"))),
    ]))
}

/// 12 series of two clients and three meters (one of them unknown), without, with and with a wrong dimension; then 10 of
/// a meter of largest values and one of distinct users, three of whose series it refuses.
pub(crate) fn series(number: u32) -> SeriesKey {
    let at = number - 1;
    let (meter, dimensions) = match at {
        0..=11 => {
            let dimensions = match at / 3 {
                0 => vec![],
                1 => vec![("region", "eu")],
                2 => vec![("region", "us")],
                _ => vec![("plan", "gold")],
            };
            (["bytes", "calls", "unknown"][usize::try_from(at % 3).unwrap()], dimensions)
        }
        12 | 13 => ("peak", vec![]),
        14 => ("peak", vec![("region", "eu")]),
        15 | 16 => ("users", vec![("user", "ann")]),
        17 => ("users", vec![("user", "")]),
        18 => ("users", vec![("region", "eu"), ("user", "ann")]),
        19 => ("users", vec![("region", "eu"), ("user", "bob")]),
        20 => ("users", vec![("region", "eu")]),
        _ => ("users", vec![("plan", "gold"), ("user", "ann")]),
    };
    SeriesKey::new(
        ClientId::new(["anna", "bert"][usize::try_from(at % 2).unwrap()]).unwrap(),
        MeterSlug::new(meter).unwrap(),
        if at == 4 { Outcome::Failed } else { Outcome::Succeeded },
        dimensions
            .into_iter()
            .map(|(name, value)| (DimensionName::new(name).unwrap(), value.to_owned()))
            .collect(),
        None,
    )
    .unwrap()
}

pub(crate) const SERIES: u32 = 22;

/// Series number, quantity, event time in ms.
pub(crate) type Event = (u32, u64, i64);

pub(crate) fn frame(lane: Lane, first_sequence: u64, receipt_ms: i64, events: &[Event]) -> Vec<u8> {
    let mut builder = FrameBuilder::new();
    for (series, quantity, time_ms) in events {
        builder.push(SeriesNumber::new(*series).unwrap(), *quantity, *time_ms);
    }
    builder.finish(lane, first_sequence, receipt_ms)
}

pub(crate) fn dictionary() -> Dictionary {
    let mut dictionary = Dictionary::new(100);
    for number in 1..=SERIES {
        dictionary.define_one(SeriesNumber::new(number).unwrap(), series(number)).unwrap();
    }
    dictionary
}

/// One metering instance with one stream for each producer.
pub(crate) struct Instance {
    pub(crate) aggregator: Aggregator,
    pub(crate) dictionary: Dictionary,
}

impl Instance {
    pub(crate) fn new() -> Self {
        Self::remembering(100)
    }

    pub(crate) fn remembering(series_max: usize) -> Self {
        let aggregator = Aggregator::new(0, EventRules::default(), series_max, meters());
        Self { aggregator, dictionary: dictionary() }
    }

    pub(crate) fn add(
        &mut self,
        producer: ProducerId,
        epoch: u64,
        chain_before: u64,
        body: &[u8],
    ) -> Result<Added, FrameFault> {
        let frame = FrameView::parse(body, &FrameLimits::default())?;
        let incoming = Incoming {
            producer,
            epoch,
            map: map(),
            chain_before,
            chain_after: frame.chain_after(chain_before),
            frame: &frame,
            now: now(),
        };
        self.aggregator.add(&incoming, &mut self.dictionary)
    }

    /// Tells so many values of each dimension apart.
    pub(crate) fn with_values(per_dimension_max: usize, total_max: usize) -> Self {
        let aggregator = Aggregator::new(0, EventRules::default(), 1000, meters());
        let aggregator = aggregator.with_value_limits(ValueLimits { per_dimension_max, total_max });
        Self { aggregator, dictionary: Dictionary::new(10_000) }
    }

    /// Attaches lane 1 at its start and adds one frame of these events.
    pub(crate) fn add_events(&mut self, events: &[Event]) -> Added {
        let Attached::At(at) = self.aggregator.attach(lane(1), 1, Position::START) else { panic!() };
        let body = frame(lane(1), at.sequence + 1, RECEIPT_MS, events);
        self.add(producer(1), 1, at.chain, &body).unwrap()
    }
}
