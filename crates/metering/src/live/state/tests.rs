use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc};

use drawdown_metering_core::{
    aggregate::{Aggregator, EventRules, Incoming},
    blob::{self, NameBook},
    dictionary::Dictionary,
    frame::{FrameBuilder, FrameLimits, FrameView},
    meter::{Aggregation, MeterFacts, MeterTable},
    series::{Outcome, SeriesKey, SeriesNumber},
    shard::{Lane, Position, ShardMap},
};
use drawdown_types::{ClientId, MeterSlug, ProducerId};

use super::*;

const GENERATION: u64 = 7;
const LIMITS: Limits = Limits { lines_max: 100, changes_max: 100 };

fn at() -> Timestamp {
    "2026-03-01T12:00:30Z".parse().unwrap()
}

/// A list of blobs, each with these events (client, quantity) of one meter.
fn list(blobs: &[&[(u32, u64)]]) -> Vec<Bytes> {
    let meter = MeterSlug::new("web.byte").unwrap();
    let facts = MeterFacts { aggregation: Aggregation::Sum, dimensions: vec![], unique_dimension: None };
    let meters = Arc::new(MeterTable::new([(meter.clone(), facts)]));
    let mut aggregator = Aggregator::new(0, EventRules::default(), 100, meters);
    let (mut dictionary, mut names) = (Dictionary::new(100), NameBook::new());
    for number in 1..=9 {
        let client = ClientId::new(&format!("c{number}")).unwrap();
        let key = SeriesKey::new(client, meter.clone(), Outcome::Succeeded, vec![], None).unwrap();
        dictionary.define_one(SeriesNumber::new(number).unwrap(), key).unwrap();
    }
    let lane = Lane { producer: ProducerId::from_uuid(uuid::Uuid::nil()), map_version: 1, shard: 0 };
    aggregator.attach(lane, 1, Position::START);
    let mut entries = Vec::new();
    for (index, events) in (0..).zip(blobs) {
        let before = aggregator.position(&lane).unwrap();
        let mut builder = FrameBuilder::new();
        for (client, quantity) in *events {
            builder.push(SeriesNumber::new(*client).unwrap(), *quantity, at().as_millis());
        }
        let body = builder.finish(lane, before.sequence + 1, at().as_millis());
        let frame = FrameView::parse(&body, &FrameLimits::default()).unwrap();
        let incoming = Incoming {
            producer: lane.producer,
            epoch: 1,
            map: ShardMap { version: 1, shard_count: NonZeroU32::MIN },
            chain_before: before.chain,
            chain_after: frame.chain_after(before.chain),
            frame: &frame,
            now: at(),
        };
        aggregator.add(&incoming, &mut dictionary).unwrap();
        let blob = names.encode(&aggregator.take(), GENERATION, 1, 5);
        names.commit();
        entries.push(blob::entry(index, &blob.bytes).into());
    }
    entries
}

fn head(generation: u64, list: &[Bytes]) -> Head {
    let blobs = u64::try_from(list.len()).unwrap();
    Head {
        generation,
        roll: 0,
        open: 1,
        retired: 0,
        blobs,
        open_length: blobs,
        sealed: BTreeMap::new(),
        lanes: BTreeMap::new(),
    }
}

/// One round of the reader; says what became of the last entries.
fn round(shard: &mut Shard, list: &[Bytes], settled: u64) -> Absorbed {
    let head = head(GENERATION, list);
    shard.begin_round();
    while let Some(part) = shard.next_part(&head, 0) {
        let first = usize::try_from(part.first).unwrap();
        let entries = &list[first..first + usize::try_from(part.count).unwrap()];
        match shard.absorb(part, entries) {
            Absorbed::Taken => {}
            other => return other,
        }
    }
    let cursor = Cursor { generation: GENERATION, last_batch: settled, lanes: BTreeMap::new() };
    shard.end_round(&head, &cursor, at());
    Absorbed::Taken
}

/// Whether it is a snapshot, and the quantities by client.
fn told(shard: &Shard, mark: &mut Mark) -> Option<(bool, BTreeMap<String, i64>)> {
    let changes = shard.since(mark, 50, |_| true).unwrap()?;
    let of = |usage: &Usage| (usage.series.client_id().to_string(), usage.quantity);
    Some((changes.snapshot, changes.usage.iter().map(of).collect()))
}

fn sums(sums: &[(&str, i64)]) -> BTreeMap<String, i64> {
    sums.iter().map(|(client, quantity)| ((*client).to_owned(), *quantity)).collect()
}

#[test]
fn what_was_read_once_is_not_read_again_and_changes_are_told_once() {
    let (mut shard, mut mark) = (Shard::new(0, LIMITS), Mark::default());
    let whole = list(&[&[(1, 5)], &[(2, 7)], &[(1, 1), (3, 2)], &[(3, 4)]]);
    assert_eq!(told(&shard, &mut mark), None, "nothing was read yet");
    assert_eq!(round(&mut shard, &whole[..2], 0), Absorbed::Taken);
    assert_eq!(told(&shard, &mut mark), Some((true, sums(&[("c1", 5), ("c2", 7)]))));
    assert_eq!(told(&shard, &mut mark), None);
    let part = shard.next_part(&head(GENERATION, &whole), 0).unwrap();
    assert_eq!((part.first, part.count), (1, 3), "the last one that is known, and what is new");
    assert_eq!(round(&mut shard, &whole, 0), Absorbed::Taken);
    assert_eq!(told(&shard, &mut mark), Some((false, sums(&[("c1", 6), ("c3", 6)]))));
    // Settled: nothing is live, and the position says so.
    assert_eq!(round(&mut shard, &whole, 1), Absorbed::Taken);
    let changes = shard.since(&mut mark, 50, |_| true).unwrap().unwrap();
    assert_eq!((changes.standing.settled, changes.usage.len(), changes.snapshot), (1, 0, false));
}

#[test]
fn a_list_that_lost_its_end_is_read_anew() {
    let known = list(&[&[(1, 5)], &[(2, 7)], &[(1, 1)]]);
    // The last blob was lost, and others came in its place.
    let other = list(&[&[(1, 5)], &[(2, 7)], &[(4, 9)], &[(4, 1)]]);
    for (lost, expected) in [
        (&other[..], sums(&[("c1", 5), ("c2", 7), ("c4", 10)])),
        (&known[..2], sums(&[("c1", 5), ("c2", 7)])),
    ] {
        let (mut shard, mut mark) = (Shard::new(0, LIMITS), Mark::default());
        round(&mut shard, &known, 0);
        told(&shard, &mut mark);
        if round(&mut shard, lost, 0) == Absorbed::Forgotten {
            assert_eq!(told(&shard, &mut mark), None, "half of it would be wrong");
            assert_eq!(shard.complete_up_to(), None);
            round(&mut shard, lost, 0);
        }
        assert_eq!(told(&shard, &mut mark), Some((true, expected)));
    }
}

#[test]
fn another_generation_is_read_anew() {
    let (mut shard, mut mark) = (Shard::new(0, LIMITS), Mark::default());
    let known = list(&[&[(1, 5)]]);
    round(&mut shard, &known, 0);
    told(&shard, &mut mark);
    let part = shard.next_part(&head(GENERATION + 1, &known), 0).unwrap();
    assert_eq!((part.generation, part.first), (GENERATION + 1, 0));
    assert_eq!(told(&shard, &mut mark), None);
}

#[test]
fn who_missed_changes_that_are_forgotten_gets_everything() {
    let (mut shard, mut slow) = (Shard::new(0, Limits { changes_max: 2, ..LIMITS }), Mark::default());
    let whole = list(&[&[(1, 5)], &[(2, 7)], &[(1, 1)], &[(3, 1)], &[(3, 1)]]);
    round(&mut shard, &whole[..1], 0);
    told(&shard, &mut slow);
    for read in 2..=5 {
        let mut quick = slow;
        round(&mut shard, &whole[..read], 0);
        let (snapshot, _) = told(&shard, &mut quick).unwrap();
        assert_eq!(snapshot, read > 3, "two changes are remembered");
    }
    assert_eq!(told(&shard, &mut slow), Some((true, sums(&[("c1", 6), ("c2", 7), ("c3", 2)]))));
}

#[test]
fn bounds_are_told_and_not_passed() {
    let (mut shard, mut mark) = (Shard::new(0, Limits { lines_max: 2, ..LIMITS }), Mark::default());
    let whole = list(&[&[(1, 5)], &[(2, 7)], &[(3, 1)]]);
    assert_eq!(round(&mut shard, &whole[..2], 0), Absorbed::Taken);
    assert!(shard.since(&mut mark, 1, |_| true).is_err());
    assert!(shard.since(&mut mark, 1, |line| line.quantity == 5).is_ok());
    assert_eq!(round(&mut shard, &whole, 0), Absorbed::TooLarge);
    assert!(shard.since(&mut mark, 50, |_| true).is_err() && shard.is_known());
    assert_eq!(round(&mut shard, &whole[..1], 0), Absorbed::Taken);
    assert!(shard.since(&mut mark, 50, |_| true).is_ok(), "it fits again");
}
