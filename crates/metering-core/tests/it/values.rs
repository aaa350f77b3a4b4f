//! Largest and distinct values, and dimensions with more values than are told apart.

use std::collections::{BTreeMap, BTreeSet};

use drawdown_metering_core::{
    aggregate::{Added, Aggregator, Flush, Incoming},
    blob::NameBook,
    chain,
    frame::{FrameLimits, FrameView},
    meter::Aggregation,
    reason,
    series::{OTHER, Outcome, SeriesKey, SeriesNumber},
    settle::{self, MergedBatch, Merging},
    shard::Position,
};
use drawdown_types::{ClientId, DimensionName, MeterSlug, Timestamp};
use proptest::{collection::vec, prelude::*};

use crate::{
    redis::{Applied, GENERATION, Redis},
    setup::{DAY_MS, Instance, RECEIPT_MS, frame, lane, map, now, producer},
};

fn key(meter: &str, dimensions: &[(&str, &str)]) -> SeriesKey {
    let dimensions =
        dimensions.iter().map(|(name, value)| (DimensionName::new(name).unwrap(), (*value).to_owned()));
    SeriesKey::new(
        ClientId::new("anna").unwrap(),
        MeterSlug::new(meter).unwrap(),
        Outcome::Succeeded,
        dimensions.collect(),
        None,
    )
    .unwrap()
}

fn define(instance: &mut Instance, number: u32, key: SeriesKey) {
    instance.dictionary.define_one(SeriesNumber::new(number).unwrap(), key).unwrap();
}

/// Events of the regions of a flush.
fn regions(flush: &Flush) -> BTreeMap<String, u64> {
    let mut regions = BTreeMap::new();
    for counter in &flush.counters {
        let series = &flush.series[usize::try_from(counter.series).unwrap()];
        let region = series.key.dimensions()[0].1.to_string();
        *regions.entry(region).or_default() += counter.events;
    }
    regions
}

fn merged(flushes: &[Flush]) -> MergedBatch {
    let (mut redis, mut names) = (Redis::new(), NameBook::new());
    for flush in flushes {
        let blob = names.encode(flush, GENERATION, 1, 77);
        assert_eq!(redis.apply(flush, &blob), Applied::Ok);
        names.commit();
    }
    let (sealed, entries) = redis.seal();
    settle::merge(&sealed, &entries).unwrap()
}

#[test]
fn a_largest_value_is_kept_over_events_windows_and_flushes() {
    let mut instance = Instance::with_values(10, 100);
    define(&mut instance, 1, key("peak", &[]));
    let minute = 60_000;
    let flushes: Vec<Flush> = [
        vec![(1, 5, RECEIPT_MS), (1, 9, RECEIPT_MS), (1, 2, RECEIPT_MS - minute), (1, 7, RECEIPT_MS)],
        vec![(1, 8, RECEIPT_MS), (1, 0, RECEIPT_MS - minute), (1, 1 << 48, RECEIPT_MS - 2 * minute)],
    ]
    .iter()
    .map(|events| {
        instance.add_events(events);
        instance.aggregator.take()
    })
    .collect();
    let batch = merged(&flushes);
    let lines: Vec<(u64, i64)> = batch.lines.iter().map(|line| (line.events, line.quantity)).collect();
    assert_eq!(lines, [(1, 1 << 48), (2, 2), (4, 9)]);
    let total = batch.totals.values().next().unwrap();
    assert_eq!((total.events, total.quantity), (7, (1 << 48) + 11));
}

#[test]
fn more_distinct_values_than_a_line_may_have_are_refused_and_counted() {
    let mut instance = Instance::with_values(1, 1);
    for number in 1..=5 {
        define(&mut instance, number, key("users", &[("user", &format!("u{number}"))]));
    }
    // Everybody twice: who is known still counts when the bound is reached.
    let mut merging = Merging::new(0, GENERATION, 1).with_values_max(3);
    let (mut redis, mut names) = (Redis::new(), NameBook::new());
    for _ in 0..2 {
        instance.add_events(&[1, 2, 3, 4, 5].map(|number| (number, 1, RECEIPT_MS)));
        let flush = instance.aggregator.take();
        assert_eq!(flush.overflowed, 0, "the counted dimension has its own bound");
        assert_eq!(redis.apply(&flush, &names.encode(&flush, GENERATION, 1, 77)), Applied::Ok);
        names.commit();
    }
    let (sealed, entries) = redis.seal();
    entries.iter().for_each(|entry| merging.push(entry).unwrap());
    let batch = merging.finish(&sealed.seal).unwrap();
    let values: Vec<&str> = batch.lines[0].values.iter().map(AsRef::as_ref).collect();
    assert_eq!(values, ["u1", "u2", "u3"]);
    assert_eq!(batch.refused, BTreeMap::from([(reason::VALUES_TOO_MANY.to_owned(), 4)]));
    assert_eq!((batch.events, batch.lines[0].quantity, batch.weight()), (6, 3, 4));
    assert_eq!(batch.lines[0].series.dimensions(), []);
    let whole = settle::merge(&sealed, &entries).unwrap();
    assert_eq!((whole.events, whole.lines[0].values.len()), (10, 5));
    assert_ne!(whole.digest128(), batch.digest128());
    // The values are in the digest, not their number alone.
    let mut other = whole.clone();
    other.lines[0].values[0] = "u0".into();
    assert_ne!(whole.digest128(), other.digest128());
}

#[test]
fn values_beyond_the_bound_share_one_that_can_be_seen() {
    let mut instance = Instance::with_values(2, 100);
    for (number, region) in (1..).zip(["eu", "us", "ap", "sa", OTHER]) {
        define(&mut instance, number, key("bytes", &[("region", region)]));
        define(&mut instance, number + 10, key("calls", &[("region", region)]));
    }
    let events = |numbers: &[u32]| numbers.iter().map(|number| (*number, 10, RECEIPT_MS)).collect::<Vec<_>>();
    instance.add_events(&events(&[1, 2, 3, 4, 5, 1, 3]));
    let flush = instance.aggregator.take();
    let expected = [("eu", 2), ("us", 1), (OTHER, 4)].map(|(region, events)| (region.to_owned(), events));
    assert_eq!(regions(&flush), BTreeMap::from(expected));
    let overflows: Vec<_> = flush.overflows.iter().map(|(meter, name)| format!("{meter}.{name}")).collect();
    assert_eq!((flush.overflowed, overflows), (4, vec!["bytes.region".to_owned()]));
    let quantity: i64 = flush.counters.iter().map(|counter| counter.quantity).sum();
    assert_eq!(quantity, 70, "nothing is lost");

    // Other meters have their own; what is told once is not told again.
    instance.add_events(&events(&[13, 4, 14, 11]));
    let flush = instance.aggregator.take();
    assert_eq!(regions(&flush).into_keys().collect::<Vec<_>>(), ["ap", "sa", OTHER]);
    let overflows: Vec<_> = flush.overflows.iter().map(|(meter, _)| meter.as_str()).collect();
    assert_eq!((flush.overflowed, overflows), (2, vec!["calls"]));
    instance.add_events(&events(&[4]));
    assert!(instance.aggregator.take().overflows.is_empty());
}

#[test]
fn the_sum_of_all_values_is_bounded_as_well() {
    let mut instance = Instance::with_values(100, 3);
    for (number, region) in (1..).zip(["a", "b"]) {
        define(&mut instance, number, key("bytes", &[("region", region)]));
        define(&mut instance, number + 2, key("calls", &[("region", region)]));
    }
    instance.add_events(&[1, 2, 3, 4].map(|number| (number, 1, RECEIPT_MS)));
    let flush = instance.aggregator.take();
    assert_eq!(flush.overflowed, 1);
    assert_eq!(regions(&flush)[OTHER], 1);
}

fn add_at(instance: &mut Instance, at: Position, number: u32, now: Timestamp) -> Position {
    let body = frame(lane(1), at.sequence + 1, now.as_millis(), &[(number, 1, now.as_millis())]);
    let view = FrameView::parse(&body, &FrameLimits::default()).unwrap();
    let incoming = Incoming {
        producer: producer(1),
        epoch: 1,
        map: map(),
        chain_before: at.chain,
        chain_after: view.chain_after(at.chain),
        frame: &view,
        now,
    };
    match instance.aggregator.add(&incoming, &mut instance.dictionary).unwrap() {
        Added::Counted { position, refused } if refused.is_empty() => position,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_day_has_its_own_values() {
    let mut instance = Instance::with_values(1, 100);
    for (number, region) in (1..).zip(["eu", "us"]) {
        define(&mut instance, number, key("bytes", &[("region", region)]));
    }
    instance.aggregator.attach(lane(1), 1, Position::START);
    let tomorrow = Timestamp::from_millis(now().as_millis() + DAY_MS).unwrap();
    let mut at = Position::START;
    // The first flush of the new day still counts by the old one.
    for (now, number, region) in
        [(now(), 1, "eu"), (now(), 2, OTHER), (tomorrow, 2, OTHER), (tomorrow, 2, "us"), (tomorrow, 1, OTHER)]
    {
        at = add_at(&mut instance, at, number, now);
        assert_eq!(regions(&instance.aggregator.take()), BTreeMap::from([(region.to_owned(), 1)]));
    }
}

#[test]
fn a_series_whose_meter_becomes_known_is_bounded_too() {
    let mut instance = Instance::with_values(1, 100);
    let meters = crate::setup::meters();
    instance.aggregator.set_meters(std::sync::Arc::default());
    for (number, region) in (1..).zip(["eu", "us"]) {
        define(&mut instance, number, key("bytes", &[("region", region)]));
    }
    instance.add_events(&[(1, 1, RECEIPT_MS), (2, 1, RECEIPT_MS)]);
    instance.aggregator.set_meters(meters);
    assert_eq!(instance.aggregator.take().events(), 0);
    instance.add_events(&[(1, 1, RECEIPT_MS), (2, 1, RECEIPT_MS)]);
    assert_eq!(regions(&instance.aggregator.take())[OTHER], 1);
}

/// (region, user, quantity)
type Use = (u8, u8, u64);

/// Adds frames of `users`, `peak` and `bytes` events for each use; cut into flushes and spread over two instances.
fn replay(uses: &[Use], cuts: &[bool], values_max: usize) -> MergedBatch {
    let mut instances = [Instance::with_values(values_max, 100), Instance::with_values(values_max, 100)];
    for instance in &mut instances {
        for region in 0..6u32 {
            let name = format!("r{region}");
            let place = ("region", name.as_str());
            define(instance, region + 1, key("bytes", &[place]));
            define(instance, region + 11, key("peak", &[place]));
            for user in 0..6u32 {
                let user_name = format!("u{user}");
                define(instance, 100 + region * 10 + user, key("users", &[place, ("user", &user_name)]));
            }
        }
    }
    let (mut redis, mut books) = (Redis::new(), [NameBook::new(), NameBook::new()]);
    let mut at = Position::START;
    for (place, (region, user, quantity)) in uses.iter().enumerate() {
        let turn = usize::from(cuts[place % cuts.len()]);
        let Instance { aggregator, .. } = &mut instances[turn];
        aggregator.attach(lane(1), 1, at);
        let (region, user) = (u32::from(*region), u32::from(*user));
        let numbers = [region + 1, region + 11, 100 + region * 10 + user];
        let body = frame(lane(1), at.sequence + 1, RECEIPT_MS, &numbers.map(|n| (n, *quantity, RECEIPT_MS)));
        instances[turn].add(producer(1), 1, at.chain, &body).unwrap();
        at = Position { sequence: at.sequence + 3, chain: chain::next(at.chain, &body) };
        let next = cuts[(place + 1) % cuts.len()];
        if usize::from(next) != turn || place % 3 == 0 || place + 1 == uses.len() {
            flush(&mut instances[turn].aggregator, &mut books[turn], &mut redis);
        }
    }
    let (sealed, entries) = redis.seal();
    settle::merge(&sealed, &entries).unwrap()
}

fn flush(aggregator: &mut Aggregator, book: &mut NameBook, redis: &mut Redis) {
    let flush = aggregator.take();
    let blob = book.encode(&flush, GENERATION, 1, rand_id(redis));
    assert_eq!(redis.apply(&flush, &blob), Applied::Ok);
    book.commit();
}

/// Another id for each blob.
fn rand_id(redis: &Redis) -> u64 {
    1000 + u64::try_from(redis.entries.len()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn however_values_are_folded_totals_are_those_of_the_events(
        uses in vec((0u8..6, 0u8..6, 0u64..1000), 1..40),
        cuts in vec(any::<bool>(), 1..10),
        other_cuts in vec(any::<bool>(), 1..10),
        values_max in 0usize..8,
    ) {
        let batch = replay(&uses, &cuts, values_max);
        crate::path::check_sums(&batch);
        let mut sums = 0;
        let mut users: BTreeSet<String> = BTreeSet::new();
        let mut peak = 0;
        let mut shown: BTreeSet<String> = BTreeSet::new();
        for line in &batch.lines {
            shown.extend(line.series.dimensions().iter().map(|(_, value)| value.to_string()));
            match line.aggregation {
                Aggregation::Sum => sums += line.quantity,
                Aggregation::Max => peak = peak.max(line.quantity),
                Aggregation::Unique => users.extend(line.values.iter().map(ToString::to_string)),
                Aggregation::Count => panic!(),
            }
        }
        prop_assert_eq!(batch.events, 3 * u64::try_from(uses.len()).unwrap());
        prop_assert_eq!(sums, uses.iter().map(|(_, _, quantity)| i64::try_from(*quantity).unwrap()).sum::<i64>());
        prop_assert_eq!(peak, uses.iter().map(|(_, _, quantity)| i64::try_from(*quantity).unwrap()).max().unwrap());
        prop_assert_eq!(users, uses.iter().map(|(_, user, _)| format!("u{user}")).collect::<BTreeSet<_>>());
        // Two instances tell apart so many values each.
        shown.remove(OTHER);
        prop_assert!(shown.len() <= 2 * values_max, "{:?}", shown);
        // Replayed in another cut: the same totals, and the same lines where no value was folded.
        let again = replay(&uses, &other_cuts, values_max);
        prop_assert_eq!(again.events, batch.events);
        if values_max >= 6 {
            prop_assert_eq!(again.lines, batch.lines);
        }
    }
}
