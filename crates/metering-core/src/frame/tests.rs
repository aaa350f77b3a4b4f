use std::num::NonZeroU32;

use drawdown_proto::metering::v1 as proto;
use drawdown_types::{ClientId, DimensionName, HoldId, MeterSlug, ProducerId};
use proptest::{collection::vec, prelude::*};
use prost::Message;

use super::*;
use crate::{
    fault::FrameFault,
    reason,
    series::{Outcome, SeriesKey, SeriesNumber},
    shard::{Lane, SEQUENCE_MAX, ShardMap},
};

type Event = (u32, u64, i64);

fn lane() -> Lane {
    let map = ShardMap { version: 1, shard_count: NonZeroU32::new(16).unwrap() };
    let producer = ProducerId::from_uuid(uuid::Uuid::from_u128(7));
    Lane { producer, map_version: map.version, shard: map.shard_of("client") }
}

fn key(dimension: &str, held: bool) -> SeriesKey {
    let hold = held.then(|| HoldId::from_uuid(uuid::Uuid::from_u128(99)));
    SeriesKey::new(
        ClientId::new("client").unwrap(),
        MeterSlug::new("web.call").unwrap(),
        if held { Outcome::Failed } else { Outcome::Succeeded },
        vec![(DimensionName::new("region").unwrap(), dimension.to_owned())],
        hold,
    )
    .unwrap()
}

fn build(events: &[Event], definitions: &[(u32, SeriesKey)]) -> Vec<u8> {
    let mut builder = FrameBuilder::new();
    for (number, key) in definitions {
        builder.define(SeriesNumber::new(*number).unwrap(), key);
    }
    for (series, quantity, time_ms) in events {
        builder.push(SeriesNumber::new(*series).unwrap(), *quantity, *time_ms);
    }
    assert!(builder.bytes_at_most() < 1 << 20);
    let bound = builder.bytes_at_most();
    let body = builder.finish(lane(), 41, 1_700_000_000_000);
    assert!(body.len() <= bound && builder.is_empty());
    body
}

fn events_of(view: &FrameView<'_>) -> Vec<Event> {
    let mut events = Vec::new();
    view.for_each(|series, quantity, time_ms| events.push((series, quantity, time_ms)));
    let mut series = Vec::new();
    view.for_each_series(|number| series.push(number));
    assert_eq!(series, events.iter().map(|event| event.0).collect::<Vec<_>>());
    events
}

fn generated(body: &[u8]) -> Vec<Event> {
    let frame = proto::ColumnFrame::decode(body).unwrap();
    let mut time_ms = frame.base_time_unix_ms;
    (0..frame.series.len())
        .map(|at| {
            time_ms = time_ms.wrapping_add(frame.time_deltas_ms.get(at).copied().unwrap_or(0));
            (frame.series[at], frame.quantities.get(at).copied().unwrap_or(1), time_ms)
        })
        .collect()
}

fn valid() -> proto::ColumnFrame {
    proto::ColumnFrame::decode(build(&[(1, 5, 10), (300, 7, 9)], &[(1, key("eu", true))]).as_slice()).unwrap()
}

fn fault(frame: &proto::ColumnFrame) -> FrameFault {
    FrameView::parse(&frame.encode_to_vec(), &FrameLimits::default()).unwrap_err()
}

fn fields(fault: &FrameFault) -> Vec<&str> {
    fault.fields.iter().map(|field| field.field.as_str()).collect()
}

#[test]
fn columns_that_say_nothing_are_left_out() {
    let body = build(&[(1, 1, 5), (2, 1, 5)], &[]);
    let frame = proto::ColumnFrame::decode(body.as_slice()).unwrap();
    assert_eq!((frame.quantities.len(), frame.time_deltas_ms.len()), (0, 0));
    let view = FrameView::parse(&body, &FrameLimits::default()).unwrap();
    assert_eq!(events_of(&view), [(1, 1, 5), (2, 1, 5)]);
    assert_eq!((view.map_version(), view.shard(), view.sequences()), (1, lane().shard, 41..=42));
}

#[test]
fn definitions_survive_both_codecs() {
    let definitions = [(1, key("eu", false)), (9, key("é", true))];
    let body = build(&[(9, 2, 3)], &definitions);
    let generated = proto::ColumnFrame::decode(body.as_slice()).unwrap();
    for bytes in [body, generated.encode_to_vec()] {
        let view = FrameView::parse(&bytes, &FrameLimits::default()).unwrap();
        let read: Vec<(u32, SeriesKey)> =
            view.definitions().iter().map(|found| (found.number.get(), (*found.key).clone())).collect();
        assert_eq!(read, definitions);
    }
    assert_eq!(generated.definitions[1].series.as_ref().unwrap().outcome(), proto::Outcome::Failed);
}

#[test]
fn bad_frames_are_refused_with_their_fields() {
    type Change = fn(&mut proto::ColumnFrame);
    let cases: &[(&str, &[&str], Change)] = &[
        (reason::FRAME_EMPTY, &["event_count"], |f| *f = proto::ColumnFrame::default()),
        (reason::FRAME_TOO_LARGE, &["event_count"], |f| f.event_count = 1 << 17),
        (reason::FRAME_TOO_LARGE, &["body"], |f| f.quantities = vec![u64::MAX; 1 << 17]),
        (reason::FRAME_MALFORMED, &["lane", "first_sequence"], |f| {
            f.lane = None;
            f.first_sequence = 0;
        }),
        (reason::FRAME_MALFORMED, &["first_sequence"], |f| f.first_sequence = SEQUENCE_MAX),
        (reason::FRAME_MALFORMED, &["first_sequence"], |f| f.first_sequence = u64::MAX),
        (reason::FRAME_MALFORMED, &["received_at_unix_ms"], |f| f.received_at_unix_ms = i64::MAX),
        (reason::FRAME_MALFORMED, &["series", "quantities", "time_deltas_ms"], |f| f.event_count = 3),
        (reason::FRAME_MALFORMED, &["series"], |f| f.series.clear()),
        (reason::FRAME_MALFORMED, &["time_deltas_ms"], |f| f.time_deltas_ms.push(1)),
        (reason::SERIES_INVALID, &["definitions[0].number", "definitions[0].series.client_id"], |f| {
            f.definitions[0].number = 0;
            f.definitions[0].series.as_mut().unwrap().client_id = "a b".into();
        }),
        (reason::SERIES_INVALID, &["definitions[0].series.client_id", "definitions[0].series.meter"], |f| {
            f.definitions[0].series = None;
        }),
    ];
    for (reason, expected, change) in cases {
        let mut frame = valid();
        change(&mut frame);
        let fault = fault(&frame);
        assert_eq!((fault.reason, fields(&fault).as_slice()), (*reason, *expected), "{fault:?}");
    }
}

#[test]
fn names_that_are_not_utf_8_are_named() {
    let body = build(&[(1, 1, 1)], &[(1, key("eu", false))]);
    let at = body.windows(6).position(|window| window == b"client").unwrap();
    let mut broken = body;
    broken[at] = 0xff;
    let fault = FrameView::parse(&broken, &FrameLimits::default()).unwrap_err();
    assert_eq!(
        (fault.reason, fields(&fault)),
        (reason::SERIES_INVALID, vec!["definitions[0].series.client_id"])
    );
}

#[test]
fn broken_columns_are_refused() {
    let head = build(&[(1, 1, 0)], &[]);
    let head = &head[..head.len() - 3];
    // Field 7 again, by hand: bad varints, a number past 32 bits, trailing bytes, unpacked, twice.
    let columns: &[&[u8]] = &[
        &[0x3a, 1, 0x80],
        &[0x3a, 2, 0x80, 0x80],
        &[0x3a, 6, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        &[0x3a, 11, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        &[0x3a, 2, 1, 1],
        &[0x3a, 2, 1],
        &[0x38, 1],
        &[0x3a, 1, 1, 0x3a, 1, 1],
        &[0x3a, 1, 1, 0xff],
        &[0x3a, 1, 1, 0x0b],
    ];
    for column in columns {
        let body = [head, column].concat();
        let fault = FrameView::parse(&body, &FrameLimits::default()).unwrap_err();
        assert_eq!(fault.reason, reason::FRAME_MALFORMED, "{column:?}");
    }
    assert!(FrameView::parse(&[head, &[0x3a, 1, 1]].concat(), &FrameLimits::default()).is_ok());
}

#[test]
fn fields_of_a_later_contract_are_skipped() {
    let mut body = build(&[(1, 4, 1)], &[]);
    // 100: varint, 101: fixed64, 102: bytes, 103: fixed32.
    body.extend_from_slice(&[
        0xa0, 6, 1, 0xa9, 6, 1, 2, 3, 4, 5, 6, 7, 8, 0xb2, 6, 1, 7, 0xbd, 6, 1, 2, 3, 4,
    ]);
    let view = FrameView::parse(&body, &FrameLimits::default()).unwrap();
    assert_eq!(events_of(&view), [(1, 4, 1)]);
}

fn event() -> impl Strategy<Value = Event> {
    let near = 1_700_000_000_000i64..1_700_000_300_000;
    (
        prop_oneof![1u32..100, 1u32..20_000, 1u32..=u32::MAX],
        prop_oneof![Just(1u64), 0u64..1000, any::<u64>()],
        prop_oneof![Just(1_700_000_000_000i64), near, any::<i64>()],
    )
}

proptest! {
    #[test]
    fn frames_survive_and_agree_with_the_generated_codec(events in vec(event(), 1..200)) {
        let body = build(&events, &[]);
        prop_assert_eq!(&generated(&body), &events);
        let view = FrameView::parse(&body, &FrameLimits::default()).unwrap();
        prop_assert_eq!(&events_of(&view), &events);
        // And the bytes that a generated encoder writes are read alike.
        let again = proto::ColumnFrame::decode(body.as_slice()).unwrap().encode_to_vec();
        let view = FrameView::parse(&again, &FrameLimits::default()).unwrap();
        prop_assert_eq!(events_of(&view), events);
    }

    #[test]
    fn no_bytes_break_the_view(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(view) = FrameView::parse(&bytes, &FrameLimits::default()) {
            prop_assert_eq!(events_of(&view).len(), usize::try_from(view.events()).unwrap());
        }
    }

    #[test]
    fn mutated_frames_are_refused_or_read_as_the_generated_codec_reads_them(
        events in vec(event(), 1..20),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut body = build(&events, &[(1, key("eu", true))]);
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        if let Ok(view) = FrameView::parse(&body, &FrameLimits::default()) {
            prop_assert_eq!(events_of(&view), generated(&body));
        }
    }
}
