//! Prints what one event costs from a frame's bytes to its counter: check, decode and aggregate, for columns and
//! for rows, beside what generated code needs to decode the same bytes. With a number, fails where columns or rows
//! cost more nanoseconds than the first or second one.
//!
//! `cargo run --release -p drawdown-metering-core --example decode_cost -- 15 60`

use std::{
    io::{Write, stdout},
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use drawdown_metering_core::{
    aggregate::{Aggregator, EventRules, Incoming},
    blob::NameBook,
    dictionary::Dictionary,
    frame::{Frame, FrameBuilder, FrameLimits, FrameView, RowBook},
    meter::{Aggregation, MeterFacts, MeterTable},
    series::{Outcome, SeriesKey, SeriesNumber},
    shard::{Lane, Position, ShardMap},
};
use drawdown_proto::metering::v1 as proto;
use drawdown_types::{ClientId, MeterSlug, ProducerId, Timestamp};
use prost::Message as _;

const SERIES: u32 = 10_000;
const FRAMES: u32 = 2_000;
const EVENTS: u32 = 1_000;
const FRAMES_PER_FLUSH: u32 = 100;
const RECEIPT_MS: i64 = 1_769_860_800_000;
/// As long as ids are.
const CLIENT: &str = "client_01j2gv5gymfsfrn6";

type Failure = Box<dyn std::error::Error>;
/// Series number, quantity, time in ms.
type Event = (u32, u64, i64);

fn lane() -> Lane {
    Lane { producer: ProducerId::from_uuid(uuid::Uuid::from_u128(7)), map_version: 1, shard: 0 }
}

fn client(number: u32) -> String {
    format!("{CLIENT}{number:05}")
}

fn dictionary() -> Result<Dictionary, Failure> {
    let mut dictionary = Dictionary::new(SERIES);
    for number in 1..=SERIES {
        let client = ClientId::new(&client(number))?;
        let key =
            SeriesKey::new(client, MeterSlug::new("model.complex-job")?, Outcome::Succeeded, vec![], None);
        let key = key.map_err(|_| "a series of checked parts")?;
        dictionary.define_one(SeriesNumber::new(number).ok_or("numbers start at 1")?, key)?;
    }
    Ok(dictionary)
}

/// The events of one frame after another.
fn events(random: &mut u64, frame: u32) -> Result<Vec<Event>, Failure> {
    let mut events = Vec::new();
    for event in 0..EVENTS {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        // A skewed choice: low numbers are busy.
        let spread = (*random >> 20) % u64::from(SERIES);
        let skewed = spread.saturating_mul(spread) / u64::from(SERIES);
        let time_ms = RECEIPT_MS.saturating_add(i64::from(frame)).saturating_add(i64::from(event / 100));
        events.push((u32::try_from(skewed)?.saturating_add(1), *random % 300, time_ms));
    }
    Ok(events)
}

fn first_sequence(frame: u32) -> u64 {
    u64::from(frame).saturating_mul(u64::from(EVENTS)).saturating_add(1)
}

struct Bodies {
    columns: Vec<Vec<u8>>,
    rows: Vec<Vec<u8>>,
    build: Duration,
}

fn bodies() -> Result<Bodies, Failure> {
    let (mut columns, mut rows, mut build) = (Vec::new(), Vec::new(), Duration::ZERO);
    let (mut builder, mut random) = (FrameBuilder::new(), 1);
    for frame in 0..FRAMES {
        let events = events(&mut random, frame)?;
        let start = Instant::now();
        for (number, quantity, time_ms) in &events {
            builder.push(SeriesNumber::new(*number).ok_or("not zero")?, *quantity, *time_ms);
        }
        columns.push(builder.finish(lane(), first_sequence(frame), RECEIPT_MS));
        build = build.saturating_add(start.elapsed());
        rows.push(row_frame(frame, &events).encode_to_vec());
    }
    Ok(Bodies { columns, rows, build })
}

fn row_frame(frame: u32, events: &[Event]) -> proto::RowFrame {
    let row = |(number, quantity, time_unix_ms): &Event| proto::UsageRow {
        series: Some(proto::Series {
            client_id: client(*number),
            meter: "model.complex-job".to_owned(),
            ..proto::Series::default()
        }),
        quantity: *quantity,
        time_unix_ms: *time_unix_ms,
    };
    proto::RowFrame {
        lane: Some(proto::Lane { map_version: 1, shard: 0 }),
        first_sequence: first_sequence(frame),
        received_at_unix_ms: RECEIPT_MS,
        rows: events.iter().map(row).collect(),
    }
}

fn picos_per_event(took: Duration) -> u128 {
    let events = u128::from(FRAMES).saturating_mul(u128::from(EVENTS));
    took.as_nanos().saturating_mul(1000).checked_div(events).unwrap_or_default()
}

fn report(what: &str, took: Duration) -> Result<(), Failure> {
    let picos = picos_per_event(took);
    writeln!(stdout(), "{what:<44} {}.{:02} ns/event", picos / 1000, picos % 1000 / 10)?;
    Ok(())
}

/// The time that a step over all bodies takes.
fn timed(
    bodies: &[Vec<u8>],
    mut step: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<Duration, Failure> {
    let start = Instant::now();
    for body in bodies {
        step(body)?;
    }
    Ok(start.elapsed())
}

/// Columns and rows as generated code decodes them, into strings and numbers.
fn generated(bodies: &Bodies) -> Result<(), Failure> {
    let columns = timed(&bodies.columns, |body| {
        std::hint::black_box(proto::ColumnFrame::decode(body)?);
        Ok(())
    })?;
    report("columns, generated: decode", columns)?;
    let rows = timed(&bodies.rows, |body| {
        std::hint::black_box(proto::RowFrame::decode(body)?);
        Ok(())
    })?;
    report("rows, generated: decode", rows)
}

/// Check and decode alone.
fn visitors(bodies: &Bodies) -> Result<(), Failure> {
    let limits = FrameLimits::default();
    let mut total = 0u64;
    let mut sum = |quantity: u64, time_ms: i64| {
        total = total.wrapping_add(quantity).wrapping_add(time_ms.cast_unsigned());
    };
    let columns = timed(&bodies.columns, |body| {
        FrameView::parse(body, &limits)?.for_each(|series, quantity, time_ms| {
            sum(quantity.wrapping_add(u64::from(series)), time_ms);
        });
        Ok(())
    })?;
    report("columns: check, decode", columns)?;
    let mut book = RowBook::new(SERIES);
    let rows = timed(&bodies.rows, |body| {
        book.read(body, &limits)?.view.for_each_measure(&mut sum);
        Ok(())
    })?;
    report("rows: check, decode, find the series", rows)?;
    std::hint::black_box(total);
    Ok(())
}

/// One shard that adds frames up and packs them now and then.
struct Shard {
    aggregator: Aggregator,
    names: NameBook,
    chain: u64,
    frames: u32,
    packing: Duration,
    blob_bytes: usize,
}

impl Shard {
    fn new() -> Result<Self, Failure> {
        let facts = MeterFacts { aggregation: Aggregation::Sum, dimensions: vec![] };
        let meters = Arc::new(MeterTable::new([(MeterSlug::new("model.complex-job")?, facts)]));
        let mut aggregator = Aggregator::new(0, EventRules::default(), 100_000, meters);
        aggregator.attach(lane(), 1, Position::START);
        let (names, packing) = (NameBook::new(), Duration::ZERO);
        Ok(Self { aggregator, names, chain: 0, frames: 0, packing, blob_bytes: 0 })
    }

    fn add<F: Frame>(&mut self, frame: &F, dictionary: &mut Dictionary) -> Result<(), Failure> {
        let map = ShardMap { version: 1, shard_count: NonZeroU32::MIN };
        let now = Timestamp::from_millis(RECEIPT_MS)?;
        let producer = lane().producer;
        let incoming = Incoming { producer, epoch: 1, map, chain_before: self.chain, frame, now };
        self.aggregator.add(&incoming, dictionary)?;
        self.chain = frame.chain_after(self.chain);
        self.frames = self.frames.saturating_add(1);
        if self.frames.is_multiple_of(FRAMES_PER_FLUSH) {
            let start = Instant::now();
            let flush = self.aggregator.take();
            self.blob_bytes = self.names.encode(&flush, 1, 1, 1).bytes.len();
            self.names.commit();
            self.packing = self.packing.saturating_add(start.elapsed());
        }
        Ok(())
    }
}

/// Fails where it took longer than the argument at `place` allows.
fn judge(what: &str, took: Duration, place: usize) -> Result<(), Failure> {
    report(what, took)?;
    let Some(most) = std::env::args().nth(place) else { return Ok(()) };
    if picos_per_event(took) > most.parse::<u128>()?.saturating_mul(1000) {
        return Err(format!("{what}: more than {most} ns/event").into());
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let bodies = bodies()?;
    report("columns: build", bodies.build)?;
    generated(&bodies)?;
    visitors(&bodies)?;
    let limits = FrameLimits::default();

    let (mut shard, mut dictionary) = (Shard::new()?, dictionary()?);
    let columns =
        timed(&bodies.columns, |body| shard.add(&FrameView::parse(body, &limits)?, &mut dictionary))?;
    let (columns, packing, blob_bytes) =
        (columns.saturating_sub(shard.packing), shard.packing, shard.blob_bytes);

    let (mut shard, mut book) = (Shard::new()?, RowBook::new(SERIES));
    let rows = timed(&bodies.rows, |body| {
        let read = book.read(body, &limits)?;
        shard.add(&read.view, read.series)
    })?;
    let rows = rows.saturating_sub(shard.packing);
    report("flush and pack", packing)?;
    let bytes = |bodies: &[Vec<u8>]| bodies.first().map_or(0, Vec::len);
    writeln!(
        stdout(),
        "{} bytes in a frame of columns, {} in one of rows, {blob_bytes} in the last blob",
        bytes(&bodies.columns),
        bytes(&bodies.rows),
    )?;
    judge("columns: check, chain, decode, aggregate", columns, 1)?;
    judge("rows: check, chain, decode, aggregate", rows, 2)
}
