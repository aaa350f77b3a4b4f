//! When a dictionary's names hold, and the bytes that are kept for ever.

use drawdown_metering_core::{
    blob::{self, Blob, Decoded, Fault, NameBook},
    frame::{FrameBuilder, FrameLimits, FrameView},
    meter::Counting,
    series::SeriesNumber,
};

use crate::{
    redis::{Applied, GENERATION, Redis},
    setup::{Instance, RECEIPT_MS, lane, series},
};

/// The blob of one event of a series.
fn next(instance: &mut Instance, names: &mut NameBook, series: u32, at: (u64, u64), fresh: u64) -> Blob {
    instance.add_events(&[(series, 5, RECEIPT_MS)]);
    names.encode(&instance.aggregator.take(), at.0, at.1, fresh)
}

fn check(blob: &Blob, dictionary: u64, before: u64, defined: u64) {
    assert_eq!((blob.dictionary, blob.names_before, blob.names_defined), (dictionary, before, defined));
    let entry = blob::entry(3, &blob.bytes);
    let decoded = Decoded::read(&entry).unwrap();
    assert_eq!((decoded.index, decoded.dictionary, decoded.names_before), (3, dictionary, before));
    assert_eq!(decoded.names.len(), usize::try_from(defined).unwrap());
}

#[test]
fn names_hold_after_a_commit_and_within_one_batch_only() {
    let (mut instance, mut names) = (Instance::new(), NameBook::new());
    check(&next(&mut instance, &mut names, 1, (7, 1), 100), 100, 0, 1);
    names.commit();
    check(&next(&mut instance, &mut names, 1, (7, 1), 101), 100, 1, 0);
    names.commit();
    check(&next(&mut instance, &mut names, 2, (7, 1), 102), 100, 1, 1);
    // No answer: everything is named anew.
    check(&next(&mut instance, &mut names, 1, (7, 1), 103), 103, 0, 1);
    names.commit();
    // Another batch, another generation.
    check(&next(&mut instance, &mut names, 1, (7, 2), 104), 104, 0, 1);
    names.commit();
    check(&next(&mut instance, &mut names, 1, (8, 2), 105), 105, 0, 1);
    names.commit();
    names.forget();
    check(&next(&mut instance, &mut names, 1, (8, 2), 106), 106, 0, 1);
}

#[test]
fn names_do_not_outlive_the_slots_they_stand_for() {
    // Forgets its series after each flush: slot 0 is another series each time.
    let (mut instance, mut names) = (Instance::remembering(0), NameBook::new());
    for (fresh, number) in [(100, 1), (101, 2), (102, 1)] {
        let blob = next(&mut instance, &mut names, number, (7, 1), fresh);
        check(&blob, fresh, 0, 1);
        let entry = blob::entry(0, &blob.bytes);
        assert_eq!(Decoded::read(&entry).unwrap().names[0].series, series(number).encode());
        names.commit();
    }
}

#[test]
fn a_paused_write_with_old_names_is_refused() {
    let (mut instance, mut names, mut redis) = (Instance::new(), NameBook::new(), Redis::new());
    instance.add_events(&[(1, 5, RECEIPT_MS)]);
    let flush = instance.aggregator.take();
    let paused = names.encode(&flush, GENERATION, 1, 100);
    // Timed out; written again under a fresh dictionary; then the first call arrives after all.
    let again = names.encode(&flush, GENERATION, 1, 101);
    assert_eq!(redis.apply(&flush, &again), Applied::Ok);
    assert_eq!(redis.apply(&flush, &paused), Applied::Lane);
    names.commit();
    assert_eq!(redis.apply(&flush, &names.encode(&flush, GENERATION, 1, 102)), Applied::Lane);
}

#[test]
fn kept_bytes_are_read_for_ever() {
    let frame = "0a0408011000100118022080bcb29fc1332a130801120f0a04616e6e6112056279746573\
                 18013080bcb29fc1333a020101420305ac024a020001";
    let mut builder = FrameBuilder::new();
    builder.define(SeriesNumber::new(1).unwrap(), &series(1));
    builder.push(SeriesNumber::new(1).unwrap(), 5, RECEIPT_MS);
    builder.push(SeriesNumber::new(1).unwrap(), 300, RECEIPT_MS - 1);
    let body = builder.finish(lane(1), 1, RECEIPT_MS);
    assert_eq!(hex(&body), frame);
    assert!(FrameView::parse(&body, &FrameLimits::default()).is_ok());

    let (mut instance, mut names) = (Instance::new(), NameBook::new());
    let blob = next(&mut instance, &mut names, 1, (7, 1), 100);
    let kept = "444462310000000000000007010000000000000000640001010e04616e6e61056279746573010000\
                01000000000000000000000000000000010101010000000000000000002655fcfbd7b7f02d000001\
                000000000000000000000000000000050180bbef970d80bbef970d01000001055e02deec17bbd35b";
    assert_eq!(hex(&blob.bytes), kept);

    // The second version, for what the first can not say: a largest value, and a user.
    let (mut instance, mut names) = (Instance::new(), NameBook::new());
    instance.add_events(&[(13, 5, RECEIPT_MS), (19, 1, RECEIPT_MS), (13, 4, RECEIPT_MS)]);
    let blob = names.encode(&instance.aggregator.take(), 7, 1, 100);
    assert_eq!(hex(&blob.bytes), KEPT_2);
    let entry = blob::entry(0, &blob.bytes);
    let countings: Vec<_> = Decoded::read(&entry).unwrap().names.iter().map(|name| name.counting).collect();
    assert_eq!(countings, [Counting::Max, Counting::Unique(1)]);
    // Called the first version it is no blob.
    let mut first = blob.bytes[..blob.bytes.len() - 8].to_vec();
    first[3] = b'1';
    let first = [&[0; 4], first.as_slice(), &xxhash_rust::xxh3::xxh3_64(&first).to_be_bytes()].concat();
    assert_eq!(Decoded::read(&first), Err(Fault::Malformed("names")));
}

const KEPT_2: &str = "444462320000000000000007010000000000000000640002030d04616e6e61047065616b01000004\
                      012104616e6e6105757365727301000206726567696f6e026575047573657203616e6e0100000000\
                      00000000000000000000000101010102000000000000000001a2a13609efef680000030000000000\
                      00000000000000000000060180bbef970d80bbef970d020000020501000101b58e84d758993324";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
