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
    build: Took,
}

fn bodies() -> Result<Bodies, Failure> {
    let (mut columns, mut rows, mut build) = (Vec::new(), Vec::new(), Vec::new());
    let (mut builder, mut random) = (FrameBuilder::new(), 1);
    for frame in 0..FRAMES {
        let events = events(&mut random, frame)?;
        let start = Instant::now();
        for (number, quantity, time_ms) in &events {
            builder.push(SeriesNumber::new(*number).ok_or("not zero")?, *quantity, *time_ms);
        }
        columns.push(builder.finish(lane(), first_sequence(frame), RECEIPT_MS));
        build.push(start.elapsed());
        rows.push(row_frame(frame, &events).encode_to_vec());
    }
    Ok(Bodies { columns, rows, build: Took::of(build) })
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

/// What the frames of one step took.
struct Took {
    median: Duration,
    all: Duration,
}

impl Took {
    fn of(mut frames: Vec<Duration>) -> Self {
        frames.sort_unstable();
        let median = frames.get(frames.len() / 2).copied().unwrap_or_default();
        Self { median, all: frames.iter().sum() }
    }

    /// Of the frame in the middle: those that another program interrupted do not count.
    fn median_picos(&self) -> u128 {
        picos(self.median, 1)
    }
}

fn picos(took: Duration, frames: u32) -> u128 {
    let events = u128::from(frames).saturating_mul(u128::from(EVENTS));
    took.as_nanos().saturating_mul(1000).checked_div(events).unwrap_or_default()
}

fn report(what: &str, took: &Took) -> Result<(), Failure> {
    let nanos = |picos: u128| format!("{}.{:02}", picos / 1000, picos % 1000 / 10);
    let (median, mean) = (nanos(took.median_picos()), nanos(picos(took.all, FRAMES)));
    writeln!(stdout(), "{what:<44} {median:>7} ns/event, mean {mean:>7}")?;
    Ok(())
}

/// The time that a step takes, frame by frame.
fn timed(bodies: &[Vec<u8>], mut step: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<Took, Failure> {
    let mut frames = Vec::with_capacity(bodies.len());
    for body in bodies {
        let start = Instant::now();
        step(body)?;
        frames.push(start.elapsed());
    }
    Ok(Took::of(frames))
}

/// Columns and rows as generated code decodes them, into strings and numbers.
fn generated(bodies: &Bodies) -> Result<(), Failure> {
    let columns = timed(&bodies.columns, |body| {
        std::hint::black_box(proto::ColumnFrame::decode(body)?);
        Ok(())
    })?;
    report("columns, generated: decode", &columns)?;
    let rows = timed(&bodies.rows, |body| {
        std::hint::black_box(proto::RowFrame::decode(body)?);
        Ok(())
    })?;
    report("rows, generated: decode", &rows)
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
    report("columns: check, decode", &columns)?;
    let mut book = RowBook::new(SERIES);
    let rows = timed(&bodies.rows, |body| {
        book.read(body, &limits)?.view.for_each_measure(&mut sum);
        Ok(())
    })?;
    report("rows: check, decode, find the series", &rows)?;
    std::hint::black_box(total);
    Ok(())
}

/// One shard that adds frames up.
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
        let facts = MeterFacts { aggregation: Aggregation::Sum, dimensions: vec![], unique_dimension: None };
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
        let (chain_before, chain_after) = (self.chain, frame.chain_after(self.chain));
        let incoming = Incoming { producer, epoch: 1, map, chain_before, chain_after, frame, now };
        self.aggregator.add(&incoming, dictionary)?;
        self.chain = chain_after;
        self.frames = self.frames.saturating_add(1);
        Ok(())
    }

    /// Packs what there is now and then, outside of what a frame takes.
    fn flush(&mut self) {
        if self.frames.is_multiple_of(FRAMES_PER_FLUSH) {
            let start = Instant::now();
            let flush = self.aggregator.take();
            self.blob_bytes = self.names.encode(&flush, 1, 1, 1).bytes.len();
            self.names.commit();
            self.packing = self.packing.saturating_add(start.elapsed());
        }
    }
}

/// From bytes to counters, frame by frame.
fn aggregated(
    shard: &mut Shard,
    bodies: &[Vec<u8>],
    mut step: impl FnMut(&mut Shard, &[u8]) -> Result<(), Failure>,
) -> Result<Took, Failure> {
    let mut frames = Vec::with_capacity(bodies.len());
    for body in bodies {
        let start = Instant::now();
        step(shard, body)?;
        frames.push(start.elapsed());
        shard.flush();
    }
    Ok(Took::of(frames))
}

/// Fails where it took longer than the argument at `place` allows.
fn judge(what: &str, took: &Took, place: usize) -> Result<(), Failure> {
    report(what, took)?;
    let Some(most) = std::env::args().nth(place) else { return Ok(()) };
    if took.median_picos() > most.parse::<u128>()?.saturating_mul(1000) {
        return Err(format!("{what}: more than {most} ns/event").into());
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let bodies = bodies()?;
    report("columns: build", &bodies.build)?;
    generated(&bodies)?;
    visitors(&bodies)?;
    let limits = FrameLimits::default();

    let (mut shard, mut dictionary) = (Shard::new()?, dictionary()?);
    let columns = aggregated(&mut shard, &bodies.columns, |shard, body| {
        shard.add(&FrameView::parse(body, &limits)?, &mut dictionary)
    })?;
    let packed = picos(shard.packing, FRAMES);
    let bytes = |bodies: &[Vec<u8>]| bodies.first().map_or(0, Vec::len);
    writeln!(
        stdout(),
        "{} bytes in a frame of columns, {} in one of rows, {} in the last blob; packing: {} ps/event",
        bytes(&bodies.columns),
        bytes(&bodies.rows),
        shard.blob_bytes,
        packed,
    )?;
    judge("columns: check, chain, decode, aggregate", &columns, 1)?;

    let (mut shard, mut book) = (Shard::new()?, RowBook::new(SERIES));
    let rows = aggregated(&mut shard, &bodies.rows, |shard, body| {
        let read = book.read(body, &limits)?;
        shard.add(&read.view, read.series)
    })?;
    judge("rows: check, chain, decode, aggregate", &rows, 2)
}
