//! A sealed list that is not exactly what was sealed is damage, whatever was done to it.

use drawdown_metering_core::{
    blob::{self, Decoded, Fault, NameBook},
    settle::{self, Damage, Seal, SealedBatch},
    shard::Position,
};
use proptest::{prelude::*, sample::Index};

use crate::{
    path::{World, steps},
    redis::{GENERATION, Redis},
    setup::{Instance, RECEIPT_MS, frame, lane, producer},
};

#[derive(Clone, Debug)]
enum Mutation {
    Delete(Index),
    Swap(Index, Index),
    Duplicate(Index, Index),
    Replace(Index, Index),
    FlipBit(Index, Index),
    Truncate(Index, Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let (a, b) = (any::<Index>, any::<Index>);
    prop_oneof![
        a().prop_map(Mutation::Delete),
        (a(), b()).prop_map(|(i, j)| Mutation::Swap(i, j)),
        (a(), b()).prop_map(|(i, j)| Mutation::Duplicate(i, j)),
        (a(), b()).prop_map(|(i, j)| Mutation::Replace(i, j)),
        (a(), b()).prop_map(|(i, j)| Mutation::FlipBit(i, j)),
        (a(), b()).prop_map(|(i, j)| Mutation::Truncate(i, j)),
    ]
}

impl Mutation {
    fn apply(&self, entries: &mut Vec<Vec<u8>>) {
        let len = entries.len();
        match self {
            Self::Delete(i) => drop(entries.remove(i.index(len))),
            Self::Swap(i, j) => entries.swap(i.index(len), j.index(len)),
            Self::Duplicate(i, j) => {
                let copy = entries[i.index(len)].clone();
                entries.insert(j.index(len + 1), copy);
            }
            Self::Replace(i, j) => entries[i.index(len)] = entries[j.index(len)].clone(),
            Self::FlipBit(i, bit) => {
                let entry = &mut entries[i.index(len)];
                let bit = bit.index(entry.len() * 8);
                entry[bit / 8] ^= 1 << (bit % 8);
            }
            Self::Truncate(i, cut) => {
                let entry = &mut entries[i.index(len)];
                entry.truncate(cut.index(entry.len()));
            }
        }
    }
}

proptest! {
    #[test]
    fn a_mutated_list_is_always_damage(steps in steps(), mutation in mutation()) {
        let mut world = World::new();
        world.run(&steps);
        for (sealed, entries) in &world.sealed {
            let mut mutated = entries.clone();
            mutation.apply(&mut mutated);
            prop_assert_eq!(settle::merge(sealed, &mutated).is_err(), mutated != *entries);
        }
    }

    #[test]
    fn lists_of_other_batches_are_damage(a in steps(), b in steps()) {
        let (mut one, mut other) = (World::new(), World::new());
        one.run(&a);
        other.run(&b);
        for (sealed, entries) in &one.sealed {
            for (_, foreign) in one.sealed.iter().chain(&other.sealed).filter(|(_, found)| found != entries) {
                prop_assert!(settle::merge(sealed, foreign).is_err());
            }
            let generation = SealedBatch { generation: GENERATION + 1, ..sealed.clone() };
            prop_assert_eq!(settle::merge(&generation, entries), Err(Damage::Foreign { at: 0 }));
        }
    }

    #[test]
    fn no_bytes_break_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        // With a checksum that fits, so that the bytes get past it.
        let checksum = xxhash_rust::xxh3::xxh3_64(&bytes);
        let entry = [&[0; 4], bytes.as_slice(), &checksum.to_be_bytes()].concat();
        prop_assert!(Decoded::read(&entry).is_err());
        prop_assert!(Decoded::read(&bytes).is_err());
    }

    #[test]
    fn no_change_under_a_fitting_checksum_breaks_the_merge(
        steps in steps(),
        changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut world = World::new();
        world.run(&steps);
        for (sealed, entries) in &world.sealed {
            let mut bodies = bodies(entries);
            for (at, byte) in &changes {
                let body = &mut bodies[0];
                let at = at.index(body.len());
                body[at] = *byte;
            }
            let (seal, entries) = resealed(&bodies);
            let sealed = SealedBatch { seal, ..sealed.clone() };
            // Either is fine; the sums hold where it is taken.
            if let Ok(batch) = settle::merge(&sealed, &entries) {
                crate::path::check_sums(&batch);
            }
        }
    }
}

/// Blobs without index and checksum.
fn bodies(entries: &[Vec<u8>]) -> Vec<Vec<u8>> {
    entries.iter().map(|entry| entry[blob::INDEX_BYTES..entry.len() - 8].to_vec()).collect()
}

/// As if exactly these bodies had been applied.
fn resealed(bodies: &[Vec<u8>]) -> (Seal, Vec<Vec<u8>>) {
    let mut fingerprint = blob::FINGERPRINT_START.to_owned();
    let mut entries = Vec::new();
    for (index, body) in bodies.iter().enumerate() {
        let checksum = xxhash_rust::xxh3::xxh3_64(body);
        fingerprint = blob::fingerprint_next(&fingerprint, checksum);
        let blob = [body.as_slice(), &checksum.to_be_bytes()].concat();
        entries.push(blob::entry(u32::try_from(index).unwrap(), &blob));
    }
    (Seal { count: u64::try_from(bodies.len()).unwrap(), fingerprint }, entries)
}

/// Three flushes of one lane under one dictionary: series 1, then 2, then 1 again.
fn three() -> (SealedBatch, Vec<Vec<u8>>) {
    let (mut instance, mut names, mut redis) = (Instance::new(), NameBook::new(), Redis::new());
    for series in [1, 2, 1] {
        instance.add_events(&[(series, 5, RECEIPT_MS)]);
        let flush = instance.aggregator.take();
        let blob = names.encode(&flush, GENERATION, 1, 77);
        redis.apply(&flush, &blob);
        names.commit();
    }
    redis.seal()
}

fn check(choose: &[usize], expected: Damage) {
    let (sealed, entries) = three();
    let bodies = bodies(&entries);
    let chosen: Vec<Vec<u8>> = choose.iter().map(|at| bodies[*at].clone()).collect();
    let (seal, entries) = resealed(&chosen);
    assert_eq!(settle::merge(&SealedBatch { seal, ..sealed }, &entries), Err(expected));
}

#[test]
fn behind_a_fitting_seal_the_lanes_still_have_to_join() {
    check(&[0, 2], Damage::Lane { at: 1, lane: lane(1), from: 3 });
    check(&[0, 0], Damage::Lane { at: 1, lane: lane(1), from: 1 });
    check(&[1, 0], Damage::Names { at: 0, dictionary: 77 });
}

#[test]
fn a_lane_of_another_chain_does_not_join() {
    let (mut redis, mut names) = (Redis::new(), NameBook::new());
    let mut bodies_of = |quantity: u64, second: bool| {
        let mut instance = Instance::new();
        let at = if second { Position { sequence: 1, chain: 0xbad } } else { Position::START };
        instance.aggregator.attach(lane(1), 1, at);
        let body = frame(lane(1), at.sequence + 1, RECEIPT_MS, &[(1, quantity, RECEIPT_MS)]);
        instance.add(producer(1), 1, at.chain, &body).unwrap();
        let flush = instance.aggregator.take();
        let blob = names.encode(&flush, GENERATION, 1, quantity);
        redis.apply(&flush, &blob);
        blob.bytes[..blob.bytes.len() - 8].to_vec()
    };
    let (seal, entries) = resealed(&[bodies_of(1, false), bodies_of(2, true)]);
    let sealed = SealedBatch { shard: 0, generation: GENERATION, batch: 1, seal };
    assert_eq!(settle::merge(&sealed, &entries), Err(Damage::Lane { at: 1, lane: lane(1), from: 2 }));
}

#[test]
fn the_damage_is_named() {
    let (sealed, entries) = three();
    let mut swapped = entries.clone();
    swapped.swap(1, 2);
    assert_eq!(settle::merge(&sealed, &swapped), Err(Damage::Index { at: 1, index: 2 }));
    assert_eq!(settle::merge(&sealed, &entries[..2]), Err(Damage::Count { found: 2, sealed: 3 }));
    let mut flipped = entries.clone();
    flipped[1][40] ^= 1;
    assert_eq!(settle::merge(&sealed, &flipped), Err(Damage::Blob { at: 1, fault: Fault::Checksum }));
    let other = SealedBatch { shard: 3, ..sealed.clone() };
    assert_eq!(settle::merge(&other, &entries), Err(Damage::Foreign { at: 0 }));
    let mut seal = sealed.seal.clone();
    seal.fingerprint = "0".into();
    assert!(matches!(
        settle::merge(&SealedBatch { shard: 0, seal, ..other }, &entries),
        Err(Damage::Fingerprint { .. })
    ));
    assert_eq!(sealed.seal.to_string().parse(), Ok(sealed.seal));
}

#[test]
fn the_digest_is_of_content_only() {
    let (sealed, entries) = three();
    let batch = settle::merge(&sealed, &entries).unwrap();
    let again = settle::merge(&sealed, &entries).unwrap();
    assert_eq!(batch.digest128(), again.digest128());
    let mut other = batch.clone();
    other.lines[0].quantity += 1;
    assert_ne!(batch.digest128(), other.digest128());
    let mut other = batch.clone();
    other.lanes[0].chain_after ^= 1;
    assert_ne!(batch.digest128(), other.digest128());
}

#[test]
fn a_sum_past_64_bits_is_refused_by_every_worker_alike() {
    let (mut instance, mut names, mut redis) = (Instance::new(), NameBook::new(), Redis::new());
    let most = (1, 1 << 48, RECEIPT_MS);
    for events in [vec![most; 20_000], vec![most; 20_000], vec![(1, 7, RECEIPT_MS)]] {
        instance.add_events(&events);
        let flush = instance.aggregator.take();
        let blob = names.encode(&flush, GENERATION, 1, 5);
        redis.apply(&flush, &blob);
        names.commit();
    }
    let (sealed, entries) = redis.seal();
    let batch = settle::merge(&sealed, &entries).unwrap();
    assert_eq!(batch.refused.get("QUANTITY_OVERFLOW"), Some(&20_000));
    assert_eq!((batch.events, batch.lines[0].quantity), (20_001, 20_000 * (1 << 48) + 7));
}
