//! Frames of rows: they count what the same events in columns count, and refuse what does not hold.

use std::collections::BTreeMap;

use drawdown_metering_core::{
    aggregate::{Added, Aggregator, EventRules, Incoming},
    chain,
    dictionary::Dictionary,
    fault::FrameFault,
    frame::{Frame as _, FrameLimits, FrameView, RowBook},
    reason,
    series::SeriesKey,
    shard::{Position, SEQUENCE_MAX},
};
use drawdown_proto::metering::v1 as proto;
use proptest::{collection::vec, prelude::*};
use prost::Message as _;

use crate::setup::{
    DAY_MS, Event, HOUR_MS, RECEIPT_MS, SERIES, dictionary, frame, lane, map, meters, now, producer, series,
};

fn spelled(key: &SeriesKey) -> proto::Series {
    let dimensions = key
        .dimensions()
        .iter()
        .map(|(name, value)| proto::Dimension { name: name.to_string(), value: value.to_string() });
    proto::Series {
        client_id: key.client_id().to_string(),
        meter: key.meter().to_string(),
        outcome: i32::from(key.outcome().as_wire()),
        dimensions: dimensions.collect(),
        hold_id: String::new(),
    }
}

fn row((number, quantity, time_unix_ms): Event) -> proto::UsageRow {
    proto::UsageRow { series: Some(spelled(&series(number))), quantity, time_unix_ms }
}

fn rows(first_sequence: u64, events: &[Event]) -> proto::RowFrame {
    proto::RowFrame {
        lane: Some(proto::Lane { map_version: 1, shard: 0 }),
        first_sequence,
        received_at_unix_ms: RECEIPT_MS,
        rows: events.iter().copied().map(row).collect(),
    }
}

fn aggregator() -> Aggregator {
    let mut aggregator = Aggregator::new(0, EventRules::default(), 100, meters());
    aggregator.attach(lane(1), 1, Position::START);
    aggregator
}

fn add(aggregator: &mut Aggregator, book: &mut RowBook, before: u64, body: &[u8]) -> Added {
    let read = book.read(body, &FrameLimits::default()).unwrap();
    let incoming = Incoming {
        producer: producer(1),
        epoch: 1,
        map: map(),
        chain_before: before,
        chain_after: read.view.chain_after(before),
        frame: &read.view,
        now: now(),
    };
    aggregator.add(&incoming, read.series).unwrap()
}

fn add_columns(aggregator: &mut Aggregator, known: &mut Dictionary, before: u64, body: &[u8]) -> Added {
    let view = FrameView::parse(body, &FrameLimits::default()).unwrap();
    let incoming = Incoming {
        producer: producer(1),
        epoch: 1,
        map: map(),
        chain_before: before,
        chain_after: view.chain_after(before),
        frame: &view,
        now: now(),
    };
    aggregator.add(&incoming, known).unwrap()
}

/// Sums by series, window and receipt window; clamped; refused by reason.
type Counted = (BTreeMap<(Vec<u8>, i64, i64), (u64, i64)>, u64, Vec<(&'static str, u64)>);

fn counted(aggregator: &mut Aggregator) -> Counted {
    let flush = aggregator.take();
    let mut sums = BTreeMap::new();
    for counter in &flush.counters {
        let key = flush.series[usize::try_from(counter.series).unwrap()].key.encode();
        let at = (key, counter.window_start_secs, counter.received_window_start_secs);
        assert!(sums.insert(at, (counter.events, counter.quantity)).is_none(), "a counter came twice");
    }
    (sums, flush.clamped, flush.refused)
}

fn refused(added: Added) -> Vec<(&'static str, u32, u64, String)> {
    let Added::Counted { refused, .. } = added else { return vec![] };
    refused.into_iter().map(|r| (r.reason, r.count, r.first_sequence, r.fault.field)).collect()
}

/// Where a fault of columns stands in rows.
fn in_rows(field: &str) -> String {
    let (column, at) = field.split_once('[').unwrap();
    let part = match column {
        "series" => "series",
        "quantities" => "quantity",
        _ => "time_unix_ms",
    };
    format!("rows[{}.{part}", at)
}

fn event() -> impl Strategy<Value = Event> {
    let times = prop_oneof![
        4 => RECEIPT_MS - 120_000..RECEIPT_MS + 1,
        1 => RECEIPT_MS - HOUR_MS..RECEIPT_MS + HOUR_MS,
        1 => prop_oneof![Just(RECEIPT_MS + 2 * DAY_MS), Just(RECEIPT_MS - 500 * DAY_MS), any::<i64>()],
    ];
    let quantities = prop_oneof![4 => 0u64..1000, 1 => Just(1u64 << 48), 1 => any::<u64>()];
    (1..=SERIES, quantities, times)
}

proptest! {
    #[test]
    fn rows_count_what_the_same_events_in_columns_count(
        frames in vec((vec(event(), 1..40), any::<bool>()), 1..6),
        series_max in 1u32..20,
    ) {
        let (mut of_columns, mut known) = (aggregator(), dictionary());
        // A book that is too small for all series empties itself, which nobody notices.
        let (mut of_rows, mut book) = (aggregator(), RowBook::new(series_max.max(SERIES)));
        let (mut mixed, mut mixed_book, mut mixed_known) = (aggregator(), RowBook::new(100), dictionary());
        let (mut chains, mut first) = ([0u64; 3], 1);
        for (events, as_rows) in &frames {
            let columns = frame(lane(1), first, RECEIPT_MS, events);
            let body = rows(first, events).encode_to_vec();
            let expected = refused(add_columns(&mut of_columns, &mut known, chains[0], &columns));
            let found = refused(add(&mut of_rows, &mut book, chains[1], &body));
            let expected: Vec<_> =
                expected.into_iter().map(|(r, count, at, field)| (r, count, at, in_rows(&field))).collect();
            prop_assert_eq!(found, expected);
            // One lane may have frames of both forms.
            let sent = if *as_rows { &body } else { &columns };
            if *as_rows {
                add(&mut mixed, &mut mixed_book, chains[2], sent);
            } else {
                add_columns(&mut mixed, &mut mixed_known, chains[2], sent);
            }
            chains = [chain::next(chains[0], &columns), chain::next(chains[1], &body), chain::next(chains[2], sent)];
            first += u64::try_from(events.len()).unwrap();
        }
        let end = Position { sequence: first - 1, chain: chains[1] };
        prop_assert_eq!(of_rows.position(&lane(1)), Some(end));
        let expected = counted(&mut of_columns);
        prop_assert_eq!(&counted(&mut of_rows), &expected);
        prop_assert_eq!(&counted(&mut mixed), &expected);
    }

    #[test]
    fn no_bytes_break_the_row_book(bytes in vec(any::<u8>(), 0..200)) {
        let mut book = RowBook::new(10);
        if let Ok(read) = book.read(&bytes, &FrameLimits::default()) {
            let mut visited = 0;
            read.view.for_each_measure(|_, _| visited += 1);
            prop_assert_eq!(visited, read.view.events());
        }
    }

    #[test]
    fn mutated_rows_are_refused_or_read_as_generated_code_reads_them(
        events in vec(event(), 1..10),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut body = rows(1, &events).encode_to_vec();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        let mut book = RowBook::new(100);
        let Ok(read) = book.read(&body, &FrameLimits::default()) else { return Ok(()) };
        let generated = proto::RowFrame::decode(body.as_slice()).unwrap();
        let mut names = Vec::new();
        read.view.for_each_series(|number| names.push(number));
        let mut measures = Vec::new();
        read.view.for_each_measure(|quantity, time_ms| measures.push((quantity, time_ms)));
        let expected: Vec<_> = generated.rows.iter().map(|row| (row.quantity, row.time_unix_ms)).collect();
        prop_assert_eq!(measures, expected);
        for (number, row) in names.iter().zip(&generated.rows) {
            let found = spelled(read.series.get(*number).unwrap());
            let mut expected = row.series.clone().unwrap_or_default();
            expected.outcome = expected.outcome.max(1);
            let hold_id = std::mem::take(&mut expected.hold_id);
            prop_assert_eq!((found, hold_id.is_empty()), (expected, true));
        }
    }
}

fn fault(frame: &proto::RowFrame) -> FrameFault {
    fault_of(&frame.encode_to_vec())
}

fn fault_of(body: &[u8]) -> FrameFault {
    RowBook::new(10).read(body, &FrameLimits::default()).err().unwrap()
}

fn fields(fault: &FrameFault) -> Vec<&str> {
    fault.fields.iter().map(|field| field.field.as_str()).collect()
}

type Spoil = fn(&mut proto::RowFrame);

#[test]
fn every_wrong_field_of_rows_is_named() {
    let cases: [(&str, &[&str], Spoil); 8] = [
        (reason::FRAME_EMPTY, &["rows"], |f| f.rows.clear()),
        (reason::FRAME_TOO_LARGE, &["rows"], |f| f.rows = vec![f.rows[0].clone(); 65_537 / 9 * 9 + 9]),
        (reason::FRAME_MALFORMED, &["lane"], |f| f.lane = None),
        (reason::FRAME_MALFORMED, &["first_sequence"], |f| f.first_sequence = 0),
        (reason::FRAME_MALFORMED, &["first_sequence"], |f| f.first_sequence = SEQUENCE_MAX),
        (reason::FRAME_MALFORMED, &["lane", "received_at_unix_ms"], |f| {
            f.lane = None;
            f.received_at_unix_ms = i64::MAX;
        }),
        (reason::SERIES_INVALID, &["rows[0].series.client_id", "rows[0].series.meter"], |f| {
            f.rows[0].series = None;
        }),
        (reason::SERIES_INVALID, &["rows[0].series.client_id", "rows[1].series.outcome"], |f| {
            f.rows[0].series.as_mut().unwrap().client_id = "a b".to_owned();
            f.rows[1].series.as_mut().unwrap().outcome = 7;
        }),
    ];
    let limits = FrameLimits { bytes_max: 1 << 24, ..FrameLimits::default() };
    for (reason, expected, spoil) in cases {
        let mut frame = rows(1, &[(1, 1, RECEIPT_MS), (2, 1, RECEIPT_MS)]);
        spoil(&mut frame);
        let fault = RowBook::new(10).read(&frame.encode_to_vec(), &limits).err().unwrap();
        assert_eq!((fault.reason, fields(&fault).as_slice()), (reason, expected), "{fault:?}");
    }
    let large = rows(1, &vec![(1, 1, RECEIPT_MS); 60_000]);
    assert_eq!((fault(&large).reason, fields(&fault(&large))), (reason::FRAME_TOO_LARGE, vec!["frame"]));
}

#[test]
fn rows_that_generated_decoders_would_merge_are_refused() {
    let good = rows(1, &[(1, 1, RECEIPT_MS)]).encode_to_vec();
    // Field 4, a row with: a series twice, a quantity of another wire type, a length past its end.
    for row in [&[0x22, 4, 0x0a, 0, 0x0a, 0][..], &[0x22, 2, 0x12, 0], &[0x22, 2, 0x0a, 9]] {
        let fault = fault_of(&[good.as_slice(), row].concat());
        assert_eq!((fault.reason, fields(&fault)), (reason::FRAME_MALFORMED, vec!["rows[1]"]));
    }
    assert_eq!(fields(&fault_of(&[good.as_slice(), &[0x20, 1]].concat())), ["rows"]);
    assert_eq!(fields(&fault_of(&[good.as_slice(), &[0xff]].concat())), ["frame"]);
    // What a later contract adds, in the frame and in a row, is skipped.
    let later = [good.as_slice(), &[0xb2, 6, 1, 7]].concat();
    assert!(RowBook::new(10).read(&later, &FrameLimits::default()).is_ok());
}

#[test]
fn a_series_that_is_spelled_without_end_is_refused() {
    let mut frame = rows(1, &[(1, 1, RECEIPT_MS)]);
    frame.rows[0].series.as_mut().unwrap().hold_id = "x".repeat(5000);
    let fault = fault(&frame);
    assert_eq!((fault.reason, fields(&fault)), (reason::SERIES_INVALID, vec!["rows[0].series"]));
}

#[test]
fn a_full_book_is_emptied_and_one_frame_may_not_have_more_series_than_it_holds() {
    let mut book = RowBook::new(2);
    let read = |book: &mut RowBook, numbers: &[u32]| {
        let events: Vec<Event> = numbers.iter().map(|number| (*number, 1, RECEIPT_MS)).collect();
        let body = rows(1, &events).encode_to_vec();
        let result = book.read(&body, &FrameLimits::default());
        result.map(|read| read.view.definitions().len()).map_err(|fault| fault.reason)
    };
    assert_eq!(read(&mut book, &[1, 2, 1]), Ok(2));
    assert_eq!(read(&mut book, &[2]), Ok(0));
    assert_eq!(read(&mut book, &[2, 3]), Ok(2), "emptied, so that both are new");
    assert_eq!(read(&mut book, &[1, 2, 3]), Err(reason::SERIES_TOO_MANY));
    assert_eq!((read(&mut book, &[1, 2]), book.len()), (Ok(2), 2));
}
