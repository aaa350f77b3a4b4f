//! Prints what one event costs from a frame's bytes to its counter: check, decode and aggregate.
//!
//! `cargo run --release -p drawdown-metering-core --example decode_cost`

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
    frame::{FrameBuilder, FrameLimits, FrameView},
    meter::{Aggregation, MeterFacts, MeterTable},
    series::{Outcome, SeriesKey, SeriesNumber},
    shard::{Lane, Position, ShardMap},
};
use drawdown_types::{ClientId, MeterSlug, ProducerId, Timestamp};

const SERIES: u32 = 10_000;
const FRAMES: u32 = 2_000;
const EVENTS: u32 = 1_000;
const FRAMES_PER_FLUSH: u32 = 100;
const RECEIPT_MS: i64 = 1_769_860_800_000;

type Failure = Box<dyn std::error::Error>;

struct Frames {
    lane: Lane,
    bodies: Vec<Vec<u8>>,
    dictionary: Dictionary,
    build: Duration,
}

fn frames() -> Result<Frames, Failure> {
    let lane = Lane { producer: ProducerId::generate(), map_version: 1, shard: 0 };
    let mut dictionary = Dictionary::new(SERIES);
    for number in 1..=SERIES {
        let client = ClientId::new(&format!("client-{number}"))?;
        let key = SeriesKey::new(client, MeterSlug::new("calls")?, Outcome::Succeeded, vec![], None);
        let key = key.map_err(|_| "a series of checked parts")?;
        dictionary.define_one(SeriesNumber::new(number).ok_or("numbers start at 1")?, key)?;
    }
    let mut builder = FrameBuilder::new();
    let mut bodies = Vec::new();
    let mut random: u64 = 1;
    let mut build = Duration::ZERO;
    let mut events = Vec::new();
    for frame in 0..FRAMES {
        events.clear();
        for event in 0..EVENTS {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // A skewed choice: low numbers are busy.
            let spread = (random >> 20) % u64::from(SERIES);
            let skewed = spread.saturating_mul(spread) / u64::from(SERIES);
            let number = SeriesNumber::new(u32::try_from(skewed)?.saturating_add(1)).ok_or("not zero")?;
            let time_ms = RECEIPT_MS.saturating_add(i64::from(frame)).saturating_add(i64::from(event / 100));
            events.push((number, random % 300, time_ms));
        }
        let start = Instant::now();
        for (number, quantity, time_ms) in &events {
            builder.push(*number, *quantity, *time_ms);
        }
        let first = u64::from(frame).saturating_mul(u64::from(EVENTS)).saturating_add(1);
        bodies.push(builder.finish(lane, first, RECEIPT_MS));
        build = build.saturating_add(start.elapsed());
    }
    Ok(Frames { lane, bodies, dictionary, build })
}

fn report(what: &str, took: Duration) -> Result<(), Failure> {
    let per_event = took.as_picos_per(u128::from(FRAMES).saturating_mul(u128::from(EVENTS)));
    writeln!(stdout(), "{what:<32} {}.{:02} ns/event", per_event / 1000, per_event % 1000 / 10)?;
    Ok(())
}

trait PerEvent {
    fn as_picos_per(&self, events: u128) -> u128;
}

impl PerEvent for Duration {
    fn as_picos_per(&self, events: u128) -> u128 {
        self.as_nanos().saturating_mul(1000).checked_div(events).unwrap_or_default()
    }
}

fn main() -> Result<(), Failure> {
    let Frames { lane, bodies, mut dictionary, build } = frames()?;
    report("build", build)?;

    let limits = FrameLimits::default();
    let start = Instant::now();
    let views = bodies.iter().map(|body| FrameView::parse(body, &limits)).collect::<Result<Vec<_>, _>>()?;
    report("check", start.elapsed())?;

    let (mut total, start) = (0u64, Instant::now());
    for view in &views {
        view.for_each(|series, quantity, time_ms| {
            total = total
                .wrapping_add(u64::from(series))
                .wrapping_add(quantity)
                .wrapping_add(time_ms.cast_unsigned());
        });
    }
    report("decode", start.elapsed())?;
    std::hint::black_box(total);

    let facts = MeterFacts { aggregation: Aggregation::Sum, dimensions: vec![] };
    let meters = Arc::new(MeterTable::new([(MeterSlug::new("calls")?, facts)]));
    let mut aggregator = Aggregator::new(0, EventRules::default(), 100_000, meters);
    let map = ShardMap { version: 1, shard_count: NonZeroU32::MIN };
    let now = Timestamp::from_millis(RECEIPT_MS)?;
    let mut chain_before = 0;
    let (mut adding, mut packing, mut bytes) = (Duration::ZERO, Duration::ZERO, 0usize);
    let mut names = NameBook::new();
    aggregator.attach(lane, 1, Position::START);
    let start = Instant::now();
    for (at, body) in (1u32..).zip(&bodies) {
        let frame = FrameView::parse(body, &limits)?;
        let incoming = Incoming { producer: lane.producer, epoch: 1, map, chain_before, frame: &frame, now };
        aggregator.add(&incoming, &mut dictionary)?;
        chain_before = frame.chain_after(chain_before);
        if at % FRAMES_PER_FLUSH == 0 {
            adding = start.elapsed().saturating_sub(packing);
            let packed = Instant::now();
            let flush = aggregator.take();
            bytes = names.encode(&flush, 1, 1, 1).bytes.len();
            names.commit();
            packing = packing.saturating_add(packed.elapsed());
        }
    }
    report("check, chain, decode, aggregate", adding)?;
    report("flush and pack", packing)?;
    writeln!(stdout(), "{bytes} bytes in the last blob, {} in a frame", bodies.first().map_or(0, Vec::len))?;
    Ok(())
}
