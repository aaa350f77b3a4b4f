//! What one event costs from a frame's bytes to its counter: check, chain, decode and aggregate, for columns and for
//! rows, beside what generated code needs to decode the same bytes. One thread, no services, frame by frame; a figure is of
//! the frame in the middle, so that those which another program interrupted do not count.

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
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

/// Series number, quantity, time in ms.
type Event = (u32, u64, i64);

fn lane() -> Lane {
    Lane { producer: ProducerId::from_uuid(uuid::Uuid::from_u128(7)), map_version: 1, shard: 0 }
}

fn client(number: u32) -> String {
    format!("{CLIENT}{number:05}")
}

fn dictionary() -> Result<Dictionary> {
    let mut dictionary = Dictionary::new(SERIES);
    for number in 1..=SERIES {
        let client = ClientId::new(&client(number))?;
        let key =
            SeriesKey::new(client, MeterSlug::new("model.complex-job")?, Outcome::Succeeded, vec![], None);
        let key = key.map_err(|fault| anyhow!("{fault:?}"))?;
        dictionary.define_one(SeriesNumber::new(number).context("numbers start at 1")?, key)?;
    }
    Ok(dictionary)
}

/// The events of one frame after another.
fn events(random: &mut u64, frame: u32) -> Result<Vec<Event>> {
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
}

fn bodies() -> Result<Bodies> {
    let (mut columns, mut rows) = (Vec::new(), Vec::new());
    let (mut builder, mut random) = (FrameBuilder::new(), 1);
    for frame in 0..FRAMES {
        let events = events(&mut random, frame)?;
        for (number, quantity, time_ms) in &events {
            builder.push(SeriesNumber::new(*number).context("not zero")?, *quantity, *time_ms);
        }
        columns.push(builder.finish(lane(), first_sequence(frame), RECEIPT_MS));
        rows.push(row_frame(frame, &events).encode_to_vec());
    }
    Ok(Bodies { columns, rows })
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

/// One shard that adds frames up.
struct Shard {
    aggregator: Aggregator,
    names: NameBook,
    chain: u64,
    frames: u32,
}

impl Shard {
    fn new() -> Result<Self> {
        let facts = MeterFacts { aggregation: Aggregation::Sum, dimensions: vec![], unique_dimension: None };
        let meters = Arc::new(MeterTable::new([(MeterSlug::new("model.complex-job")?, facts)]));
        let mut aggregator = Aggregator::new(0, EventRules::default(), 100_000, meters);
        aggregator.attach(lane(), 1, Position::START);
        Ok(Self { aggregator, names: NameBook::new(), chain: 0, frames: 0 })
    }

    fn add<F: Frame>(&mut self, frame: &F, dictionary: &mut Dictionary) -> Result<()> {
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
            let flush = self.aggregator.take();
            std::hint::black_box(self.names.encode(&flush, 1, 1, 1).bytes.len());
            self.names.commit();
        }
    }
}

/// The nanoseconds an event that a step takes, of the frame in the middle.
fn timed(bodies: &[Vec<u8>], mut step: impl FnMut(&[u8]) -> Result<()>) -> Result<f64> {
    let mut frames = Vec::with_capacity(bodies.len());
    for body in bodies {
        let start = Instant::now();
        step(body)?;
        frames.push(start.elapsed());
    }
    Ok(middle(frames))
}

fn middle(mut frames: Vec<Duration>) -> f64 {
    frames.sort_unstable();
    let median = frames.get(frames.len() / 2).copied().unwrap_or_default();
    median.as_secs_f64() * 1e9 / f64::from(EVENTS)
}

/// From bytes to counters; what is packed now and then is not part of a frame.
fn aggregated(bodies: &[Vec<u8>], mut step: impl FnMut(&mut Shard, &[u8]) -> Result<()>) -> Result<f64> {
    let (mut shard, mut frames) = (Shard::new()?, Vec::with_capacity(bodies.len()));
    for body in bodies {
        let start = Instant::now();
        step(&mut shard, body)?;
        frames.push(start.elapsed());
        shard.flush();
    }
    Ok(middle(frames))
}

/// Figures by name, in nanoseconds an event.
///
/// # Errors
/// Where a frame is refused.
pub fn measure() -> Result<[(&'static str, f64); 4]> {
    let (bodies, limits) = (bodies()?, FrameLimits::default());
    let generated_columns = timed(&bodies.columns, |body| {
        std::hint::black_box(proto::ColumnFrame::decode(body)?);
        Ok(())
    })?;
    let generated_rows = timed(&bodies.rows, |body| {
        std::hint::black_box(proto::RowFrame::decode(body)?);
        Ok(())
    })?;
    let mut dictionary = dictionary()?;
    let columns = aggregated(&bodies.columns, |shard, body| {
        shard.add(&FrameView::parse(body, &limits)?, &mut dictionary)
    })?;
    let mut book = RowBook::new(SERIES);
    let rows = aggregated(&bodies.rows, |shard, body| {
        let read = book.read(body, &limits)?;
        shard.add(&read.view, read.series)
    })?;
    Ok([
        ("decode_aggregate_ns_per_event", columns),
        ("decode_aggregate_rows_ns_per_event", rows),
        ("generated_decode_columns_ns_per_event", generated_columns),
        ("generated_decode_rows_ns_per_event", generated_rows),
    ])
}
