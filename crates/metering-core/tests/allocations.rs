//! What decoding and counting a frame allocates: nothing by event. A binary of its own, because what counts is the allocator.

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, sync::Arc};

    use allocation_counter::measure;
    use drawdown_metering_core::{
        aggregate::{Aggregator, EventRules, Incoming},
        chain,
        dictionary::Dictionary,
        frame::{Frame, FrameBuilder, FrameLimits, FrameView, RowBook, RowFrame},
        meter::{Aggregation, MeterFacts, MeterTable},
        series::{Outcome, SeriesKey, SeriesNumber},
        shard::{Lane, Position, ShardMap},
    };
    use drawdown_proto::metering::v1 as wire;
    use drawdown_types::{ClientId, MeterSlug, ProducerId, Timestamp};
    use prost::Message as _;

    const MAP: ShardMap = ShardMap { version: 1, shard_count: NonZeroU32::MIN };
    const SERIES: u32 = 100;

    fn key(number: u32) -> SeriesKey {
        let client = ClientId::new(&format!("client-{number}")).unwrap();
        SeriesKey::new(client, MeterSlug::new("web.byte").unwrap(), Outcome::Succeeded, vec![], None).unwrap()
    }

    fn aggregator(lane: Lane) -> Aggregator {
        let facts = MeterFacts { aggregation: Aggregation::Sum, dimensions: vec![], unique_dimension: None };
        let meters = MeterTable::new([(MeterSlug::new("web.byte").unwrap(), facts)]);
        let mut aggregator = Aggregator::new(0, EventRules::default(), 1_000, Arc::new(meters));
        aggregator.attach(lane, 1, Position::START);
        aggregator
    }

    fn columns(lane: Lane, first: u64, events: u64) -> Vec<u8> {
        let mut builder = FrameBuilder::new();
        for event in 0..events {
            let number = u32::try_from(event).unwrap() % SERIES + 1;
            builder.push(SeriesNumber::new(number).unwrap(), event, 0);
        }
        builder.finish(lane, first, 0)
    }

    fn rows(lane: Lane, first_sequence: u64, events: u64) -> Vec<u8> {
        let row = |event: u64| wire::UsageRow {
            series: Some(wire::Series {
                client_id: format!("client-{}", event % u64::from(SERIES) + 1),
                meter: "web.byte".to_owned(),
                outcome: wire::Outcome::Succeeded.into(),
                ..wire::Series::default()
            }),
            quantity: event,
            time_unix_ms: 0,
        };
        let (map_version, shard) = (lane.map_version, lane.shard);
        let lane = Some(wire::Lane { map_version, shard });
        let rows = (0..events).map(row).collect();
        wire::RowFrame { lane, first_sequence, received_at_unix_ms: 0, rows }.encode_to_vec()
    }

    /// Counts a frame; answers where the lane stands then.
    fn count<F: Frame>(
        aggregator: &mut Aggregator,
        (lane, at): (Lane, Position),
        (frame, body): (&F, &[u8]),
        dictionary: &mut Dictionary,
    ) -> Position {
        let chain_after = chain::next(at.chain, body);
        let incoming = Incoming {
            producer: lane.producer,
            epoch: 1,
            map: MAP,
            chain_before: at.chain,
            chain_after,
            frame,
            now: Timestamp::EPOCH,
        };
        aggregator.add(&incoming, dictionary).unwrap();
        Position { sequence: *frame.sequences().end(), chain: chain_after }
    }

    /// Allocations of a frame with few events and of one with many, once everything has its place. Frames are made before:
    /// they follow one another in a lane.
    fn of_few_and_many(
        make: fn(Lane, u64, u64) -> Vec<u8>,
        lane: Lane,
        mut take: impl FnMut(&[u8]),
    ) -> [u64; 2] {
        let mut first = 1;
        let [warm @ .., few, many] = [2_000, 100, 2_000, 100, 2_000].map(|events| {
            let body = make(lane, first, events);
            first += events;
            body
        });
        warm.iter().for_each(|body| take(body));
        [few, many].map(|body| measure(|| take(&body)).count_total)
    }

    #[test]
    fn columns_are_decoded_and_counted_without_an_allocation_by_event() {
        let lane = Lane { producer: ProducerId::generate(), map_version: 1, shard: 0 };
        let mut aggregator = aggregator(lane);
        let mut dictionary = Dictionary::new(SERIES);
        for number in 1..=SERIES {
            dictionary.define_one(SeriesNumber::new(number).unwrap(), key(number)).unwrap();
        }
        let (mut at, limits) = (Position::START, FrameLimits::default());
        let counts = of_few_and_many(columns, lane, |body| {
            let frame = FrameView::parse(body, &limits).unwrap();
            at = count(&mut aggregator, (lane, at), (&frame, body), &mut dictionary);
        });
        assert_eq!(counts[0], counts[1], "a frame of 2,000 events allocates more often than one of 100");
        assert!(counts[1] < 10, "{counts:?}");
    }

    #[test]
    fn rows_are_read_and_counted_without_an_allocation_by_event() {
        let lane = Lane { producer: ProducerId::generate(), map_version: 1, shard: 0 };
        let mut aggregator = aggregator(lane);
        let mut book = RowBook::new(SERIES);
        let (mut at, limits) = (Position::START, FrameLimits::default());
        let counts = of_few_and_many(rows, lane, |body| {
            let RowFrame { view, series } = book.read(body, &limits).unwrap();
            at = count(&mut aggregator, (lane, at), (&view, body), series);
        });
        assert_eq!(counts[0], counts[1], "a frame of 2,000 rows allocates more often than one of 100");
        assert!(counts[1] < 10, "{counts:?}");
    }
}
