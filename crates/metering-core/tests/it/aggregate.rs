//! What refuses a frame, what refuses an event, and that a refused frame changes nothing.

use std::{num::NonZeroU32, sync::Arc};

use drawdown_metering_core::{
    aggregate::{Added, Aggregator, Attached, EventRules, Incoming, RefusedEvents},
    blob::{self, Decoded, NameBook},
    chain,
    dictionary::Dictionary,
    fault::FieldFault,
    frame::{FrameBuilder, FrameLimits, FrameView},
    meter::MeterTable,
    reason,
    series::SeriesNumber,
    shard::{Lane, Position, ShardMap, shard_of},
};

use drawdown_types::{MeterSlug, Timestamp};

use crate::setup::{
    DAY_MS, Event, HOUR_MS, Instance, RECEIPT_MS, frame, lane, map, meters, now, producer, series,
};

fn refused(added: Added) -> Vec<RefusedEvents> {
    match added {
        Added::Counted { refused, .. } => refused,
        Added::Duplicate => vec![],
    }
}

fn check_refused(bad: Event, reason: &str, field: &str) {
    let mut instance = Instance::new();
    let good = (1, 3, RECEIPT_MS);
    let refused = refused(instance.add_events(&[good, bad, good, bad]));
    let [refusal] = refused.as_slice() else { panic!("{refused:?}") };
    assert_eq!((refusal.reason, refusal.count, refusal.first_sequence), (reason, 2, 2), "{bad:?}");
    assert_eq!(refusal.fault.field, field);
    let flush = instance.aggregator.take();
    assert_eq!((flush.events(), flush.counters[0].quantity, flush.lanes[0].to), (2, 6, 4));
    assert_eq!(flush.refused, [(refusal.reason, 2)]);
}

#[test]
fn an_event_that_does_not_hold_loses_nothing_beside_it() {
    check_refused((3, 1, RECEIPT_MS), reason::METER_UNKNOWN, "series[1]");
    check_refused((10, 1, RECEIPT_MS), reason::DIMENSION_UNKNOWN, "series[1]");
    check_refused((1, (1 << 48) + 1, RECEIPT_MS), reason::QUANTITY_TOO_LARGE, "quantities[1]");
    check_refused((1, u64::MAX, RECEIPT_MS), reason::QUANTITY_TOO_LARGE, "quantities[1]");
    check_refused((1, 1, RECEIPT_MS + DAY_MS + 1), reason::EVENT_TIME_IN_FUTURE, "time_deltas_ms[1]");
    check_refused((1, 1, i64::MAX), reason::EVENT_TIME_IN_FUTURE, "time_deltas_ms[1]");
    check_refused((1, 1, RECEIPT_MS - 400 * DAY_MS - 1), reason::EVENT_TIME_TOO_OLD, "time_deltas_ms[1]");
    check_refused((1, 1, i64::MIN), reason::EVENT_TIME_TOO_OLD, "time_deltas_ms[1]");
}

#[test]
fn events_of_a_meter_that_can_not_be_aggregated_are_refused_not_counted() {
    let mut instance = Instance::new();
    let unsupported = MeterSlug::new("unknown").unwrap();
    let table = MeterTable::clone(&meters()).with_unsupported([unsupported]);
    instance.aggregator.set_meters(Arc::new(table));
    let refused = refused(instance.add_events(&[(1, 3, RECEIPT_MS), (3, 5, RECEIPT_MS)]));
    assert_eq!(refused[0].reason, reason::AGGREGATION_UNSUPPORTED);
    assert_eq!(instance.aggregator.take().events(), 1);
}

#[test]
fn a_counter_never_passes_64_bits() {
    let mut instance = Instance::new();
    let refused = refused(instance.add_events(&vec![(1, 1 << 48, RECEIPT_MS); 32_770]));
    // 2^15 events of 2^48 would be 2^63: one less fits.
    assert_eq!(
        (refused[0].reason, refused[0].count, refused[0].first_sequence),
        ("QUANTITY_OVERFLOW", 3, 32_768)
    );
}

#[test]
fn times_ahead_are_clamped_to_the_receipt_and_counted() {
    let mut instance = Instance::new();
    let receipt = RECEIPT_MS;
    instance.add_events(&[
        (1, 1, receipt + 5 * 60_000),
        (1, 1, receipt + 5 * 60_000 + 1),
        (1, 1, receipt + DAY_MS),
    ]);
    let flush = instance.aggregator.take();
    let mut windows: Vec<(i64, u64)> =
        flush.counters.iter().map(|c| (c.window_start_secs - receipt / 1000, c.events)).collect();
    windows.sort_unstable();
    assert_eq!((windows.as_slice(), flush.clamped), (&[(0, 2), (300, 1)][..], 2));
}

#[test]
fn whatever_is_counted_can_be_read_again() {
    let first = Timestamp::MIN.as_millis();
    let late = now().as_millis() + DAY_MS;
    for (receipt, times, counted) in [
        (first, vec![first - 1, first], 1),
        (first + HOUR_MS, vec![first - 1, i64::MIN, first, first + HOUR_MS], 2),
        (late, vec![late, late + DAY_MS, Timestamp::MAX.as_millis(), i64::MAX], 2),
    ] {
        let mut instance = Instance::new();
        instance.aggregator.attach(lane(1), 1, Position::START);
        let events: Vec<Event> = times.iter().map(|time_ms| (1, 1, *time_ms)).collect();
        instance.add(producer(1), 1, 0, &frame(lane(1), 1, receipt, &events)).unwrap();
        let flush = instance.aggregator.take();
        let blob = NameBook::new().encode(&flush, 1, 1, 1);
        assert_eq!(Decoded::read(&blob::entry(0, &blob.bytes)).unwrap().events, counted, "{receipt}");
    }
}

#[test]
fn counting_meters_ignore_the_quantity() {
    let mut instance = Instance::new();
    assert_eq!(refused(instance.add_events(&[(2, u64::MAX, RECEIPT_MS), (2, 0, RECEIPT_MS)])), []);
    let flush = instance.aggregator.take();
    assert_eq!((flush.counters[0].events, flush.counters[0].quantity), (2, 2));
}

#[test]
fn a_meter_counts_from_when_the_catalogue_has_it() {
    let mut instance = Instance::new();
    instance.aggregator.set_meters(Arc::new(MeterTable::default()));
    assert_eq!(refused(instance.add_events(&[(1, 4, RECEIPT_MS)]))[0].reason, reason::METER_UNKNOWN);
    instance.aggregator.set_meters(meters());
    assert_eq!(refused(instance.add_events(&[(1, 4, RECEIPT_MS)])), []);
    let flush = instance.aggregator.take();
    assert_eq!((flush.events(), flush.lanes[0].to), (1, 2));
}

/// Two frames of two events are counted; then one more is tried.
fn check_frame(change: impl Fn(&mut Vec<u8>, &mut u64, &mut u64), expected: Result<&Added, (&str, &str)>) {
    let mut instance = Instance::new();
    instance.add_events(&[(1, 1, RECEIPT_MS); 2]);
    let Added::Counted { position, .. } = instance.add_events(&[(1, 1, RECEIPT_MS); 2]) else { panic!() };
    let mut body = frame(lane(1), 5, RECEIPT_MS, &[(1, 1, RECEIPT_MS)]);
    let (mut chain_before, mut epoch) = (position.chain, 1);
    change(&mut body, &mut chain_before, &mut epoch);
    let before = (instance.aggregator.position(&lane(1)), instance.aggregator.counters());
    let added = instance.add(producer(1), epoch, chain_before, &body);
    match (added, expected) {
        (Ok(added), Ok(expected)) => assert_eq!(added, *expected),
        (Err(fault), Err((reason, field))) => {
            assert_eq!((fault.reason, fault.fields[0].field.as_str()), (reason, field));
            assert_eq!((instance.aggregator.position(&lane(1)), instance.aggregator.counters()), before);
            assert_eq!(instance.aggregator.take().events(), 4);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_frame_has_to_go_on_where_its_lane_ends() {
    let ones = [(1, 1, RECEIPT_MS); 3];
    let first = frame(lane(1), 1, RECEIPT_MS, &ones[..2]);
    let middle = chain::next(chain::START, &first);
    let replace = |from: u64, events: usize, before: u64| {
        move |body: &mut Vec<u8>, chain: &mut u64, _: &mut u64| {
            *body = frame(lane(1), from, RECEIPT_MS, &[(1, 1, RECEIPT_MS); 3][..events]);
            *chain = before;
        }
    };
    check_frame(replace(6, 1, 0), Err((reason::LANE_OUT_OF_SEQUENCE, "first_sequence")));
    check_frame(replace(4, 2, 0), Err((reason::DIVERGED, "first_sequence")));
    check_frame(replace(5, 1, 9), Err((reason::DIVERGED, "chain_before")));
    // Resent: known, and known otherwise.
    check_frame(replace(3, 2, middle), Ok(&Added::Duplicate));
    check_frame(replace(1, 2, 0), Ok(&Added::Duplicate));
    check_frame(replace(3, 2, 9), Err((reason::DIVERGED, "body")));
    check_frame(|_, _, epoch| *epoch = 0, Err((reason::FENCED, "epoch")));
    check_frame(
        |body, _, _| *body = frame(Lane { shard: 1, ..lane(1) }, 5, RECEIPT_MS, &[(1, 1, RECEIPT_MS)]),
        Err((reason::LANE_UNKNOWN, "lane")),
    );
    check_frame(
        |body, _, _| *body = frame(lane(1), 5, RECEIPT_MS, &[(1, 1, RECEIPT_MS), (99, 1, RECEIPT_MS)]),
        Err((reason::SERIES_UNKNOWN, "series[1]")),
    );
    check_frame(
        |body, _, _| *body = frame(lane(1), 5, RECEIPT_MS + HOUR_MS + DAY_MS + 1, &[(1, 1, RECEIPT_MS)]),
        Err((reason::RECEIPT_IN_FUTURE, "received_at_unix_ms")),
    );
    check_frame(
        |body, _, _| {
            let mut builder = FrameBuilder::new();
            builder.define(SeriesNumber::new(1).unwrap(), &series(2));
            builder.push(SeriesNumber::new(1).unwrap(), 1, RECEIPT_MS);
            *body = builder.finish(lane(1), 5, RECEIPT_MS);
        },
        Err((reason::SERIES_CONFLICT, "definitions[0].series")),
    );
}

#[test]
fn a_lane_that_was_not_attached_is_refused() {
    let mut instance = Instance::new();
    let body = frame(lane(1), 1, RECEIPT_MS, &[(1, 1, RECEIPT_MS)]);
    assert_eq!(instance.add(producer(1), 1, 0, &body).unwrap_err().reason, reason::LANE_UNKNOWN);
}

#[test]
fn a_client_id_of_another_shard_is_refused_even_where_it_was_seen_before() {
    let shard_count = NonZeroU32::new(64).unwrap();
    let wide = ShardMap { version: 2, shard_count };
    let home = shard_of("anna", shard_count);
    let mut aggregator = Aggregator::new(home, EventRules::default(), 100, meters());
    let mut dictionary = Dictionary::new(100);
    // Series 1 is anna's, series 2 is bert's.
    for number in [1, 2] {
        dictionary.define_one(SeriesNumber::new(number).unwrap(), series(number)).unwrap();
    }
    let lane = Lane { producer: producer(1), map_version: 2, shard: home };
    aggregator.attach(lane, 1, Position::START);
    let body = frame(lane, 1, RECEIPT_MS, &[(1, 1, RECEIPT_MS), (2, 1, RECEIPT_MS)]);
    let view = FrameView::parse(&body, &FrameLimits::default()).unwrap();
    let chain_after = view.chain_after(0);
    let (producer, now) = (producer(1), now());
    let incoming =
        Incoming { producer, epoch: 1, map: wide, chain_before: 0, chain_after, frame: &view, now };
    let fault = aggregator.add(&incoming, &mut dictionary).unwrap_err();
    assert_ne!(shard_of("bert", shard_count), home, "the fixture");
    assert_eq!((fault.reason, fault.fields[0].field.as_str()), (reason::SHARD_MISMATCH, "series[1]"));
    assert_eq!(aggregator.position(&lane), Some(Position::START));
}

#[test]
fn attaching_again_keeps_what_is_not_flushed() {
    let mut instance = Instance::new();
    let Added::Counted { position, .. } = instance.add_events(&[(1, 1, RECEIPT_MS)]) else { panic!() };
    assert_eq!(instance.aggregator.attach(lane(1), 3, Position::START), Attached::At(position));
    assert!(!instance.aggregator.detach(&lane(1)));
    // Another instance applied more than is counted here: this flush has no future.
    let ahead = Position { sequence: 50, chain: 8 };
    assert_eq!(instance.aggregator.attach(lane(1), 4, ahead), Attached::Overtaken);
    let flush = instance.aggregator.take();
    assert_eq!((flush.lanes[0].epoch, flush.lanes[0].before()), (3, Position::START));
    // Moved on elsewhere meanwhile: followed.
    assert_eq!(instance.aggregator.attach(lane(1), 3, ahead), Attached::At(ahead));
    assert!(instance.aggregator.detach(&lane(1)));
    assert_eq!(instance.aggregator.position(&lane(1)), None);
}

#[test]
fn clear_forgets_counters_and_lanes() {
    let mut instance = Instance::new();
    instance.add_events(&[(1, 1, RECEIPT_MS), (3, 1, RECEIPT_MS), (1, 1, RECEIPT_MS + HOUR_MS)]);
    instance.aggregator.clear();
    assert!(instance.aggregator.is_empty() && instance.aggregator.position(&lane(1)).is_none());
    let flush = instance.aggregator.take();
    assert_eq!((flush.events(), flush.clamped, flush.refused.len(), flush.is_empty()), (0, 0, 0, true));
    instance.add_events(&[(1, 9, RECEIPT_MS)]);
    let flush = instance.aggregator.take();
    assert_eq!((flush.counters.len(), flush.counters[0].quantity), (1, 9));
}

#[test]
fn faults_read_well() {
    let fault = FieldFault::new("quantities[1]", "is 5, at most 4 is taken");
    assert_eq!(fault.to_string(), "quantities[1] is 5, at most 4 is taken");
    assert_eq!(map().shard_of("anyone"), 0);
}
