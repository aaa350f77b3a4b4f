use std::{
    fs,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use drawdown_metering_core::{
    series::{Outcome, SeriesKey},
    shard::{Lane, Position, ShardMap},
};
use drawdown_types::{ClientId, MeterSlug, ProducerId, Timestamp};
use uuid::Uuid;

use super::{super::tests::scratch, store::Freed, *};

fn producer() -> ProducerId {
    ProducerId::from_uuid(Uuid::from_u128(7))
}

fn lane(shard: u32) -> Lane {
    Lane { producer: producer(), map_version: 1, shard }
}

fn series(name: &str) -> Arc<SeriesKey> {
    let (client, meter) = (ClientId::new(name).unwrap(), MeterSlug::new("web.call").unwrap());
    Arc::new(SeriesKey::new(client, meter, Outcome::Succeeded, Vec::new(), None).unwrap())
}

fn limits(segment_bytes: u64) -> LogLimits {
    LogLimits {
        segment_bytes,
        crowded_bytes: u64::MAX,
        retain: Duration::from_secs(600),
        freed_bytes: 1 << 20,
    }
}

fn open(dir: &Path, segment_bytes: u64) -> Result<(Log, Opened), LogError> {
    let lock = DirectoryLock::take(dir)?;
    let recovered = recover(dir, producer())?;
    let seen = Opened {
        lanes: recovered.lanes.clone(),
        freed: recovered.freed.clone(),
        marks: recovered.marks.clone(),
        series: recovered.series.len(),
        shed: recovered.shed,
        bodies: Vec::new(),
        torn_bytes: recovered.torn_bytes,
    };
    let frames = recovered.frames.clone();
    let log = Log::open(dir, lock, producer(), limits(segment_bytes), recovered)?;
    let mut reader = FrameReader::new(dir);
    let mut before = seen.freed.clone();
    let mut bodies = Vec::new();
    for frame in frames {
        let chain = before.get(&frame.lane).copied().unwrap_or_default().chain;
        bodies.push(reader.read(&frame, chain)?.to_vec());
        before.insert(frame.lane, frame.end);
    }
    Ok((log, Opened { bodies, ..seen }))
}

/// Frames that nobody asks for.
fn none(_: &Positions) -> Vec<FreedFrames> {
    Vec::new()
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Opened {
    lanes: Positions,
    freed: Positions,
    marks: Marks,
    series: usize,
    shed: u64,
    bodies: Vec<Vec<u8>>,
    torn_bytes: u64,
}

/// Appends group number `n`: two frames in two lanes, a series, a mark.
fn append(log: &mut Log, n: u64) {
    let marks: Marks = [(Box::from(&b"file"[..]), Box::from(n.to_le_bytes()))].into();
    let new = vec![series(&format!("client_{n}"))];
    let first = u32::try_from(n).unwrap();
    let mut group = GroupBuilder::begin(0, n, &marks, first, &new).unwrap();
    for shard in 0..2 {
        let before = log.lanes().get(&lane(shard)).copied().unwrap_or_default();
        let body = format!("body {n} of lane {shard}");
        group.push(lane(shard), before, before.sequence + 3, body.as_bytes()).unwrap();
    }
    log.append(group, n, marks, new).unwrap();
}

fn build(dir: &Path, groups: u64, segment_bytes: u64, close: bool) {
    let (mut log, _) = open(dir, segment_bytes).unwrap();
    for n in 1..=groups {
        append(&mut log, n);
    }
    if close {
        log.close().unwrap();
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "segment"));
    paths.sort();
    paths
}

/// What a log with the first `groups` groups says, with `torn_bytes` cut.
fn expected(groups: u64, torn_bytes: u64) -> Opened {
    let dir = scratch();
    build(dir.path(), groups, 1 << 20, false);
    let (_, opened) = open(dir.path(), 1 << 20).unwrap();
    Opened { torn_bytes, ..opened }
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = scratch();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}

#[test]
fn what_was_appended_is_there_again() {
    let dir = scratch();
    build(dir.path(), 5, 300, true);
    assert!(segments(dir.path()).len() > 2, "several segments");
    let (mut log, opened) = open(dir.path(), 300).unwrap();
    assert_eq!(opened, expected(5, 0));
    assert_eq!(opened.lanes.get(&lane(1)).map(|end| end.sequence), Some(15));
    append(&mut log, 6);
    drop(log);
    assert_eq!(open(dir.path(), 300).unwrap().1, expected(6, 0));
}

#[test]
fn a_second_owner_is_kept_out() {
    let dir = scratch();
    let first = open(dir.path(), 1 << 20).unwrap();
    assert!(matches!(open(dir.path(), 1 << 20), Err(LogError::InUse { .. })));
    drop(first);
    assert!(open(dir.path(), 1 << 20).is_ok());
}

#[test]
fn a_log_cut_anywhere_in_its_last_segment_keeps_every_whole_group() {
    for segment_bytes in [1 << 20, 300] {
        let whole = scratch();
        build(whole.path(), 3, segment_bytes, false);
        let last = segments(whole.path()).pop().unwrap();
        let name = last.file_name().unwrap().to_owned();
        let len = fs::metadata(&last).unwrap().len();
        for keep in 0..len {
            let dir = copy(whole.path());
            let file = fs::OpenOptions::new().write(true).open(dir.path().join(&name)).unwrap();
            file.set_len(keep).unwrap();
            let (mut log, opened) = open(dir.path(), segment_bytes).unwrap();
            let groups = opened.shed;
            assert!(groups < 3 && opened == expected(groups, opened.torn_bytes), "cut at {keep}");
            // It goes on from there, and what follows is found again.
            append(&mut log, groups + 1);
            drop(log);
            assert_eq!(open(dir.path(), segment_bytes).unwrap().1, expected(groups + 1, 0), "cut at {keep}");
        }
    }
}

#[test]
fn a_flipped_bit_is_never_skipped_in_silence() {
    // Only the last record can look half written: the closing one, which holds nothing, or the last group. That is
    // reported, and the lane's chain tells whether that group had been sent.
    for (closed, kept) in [(true, 3), (false, 2)] {
        let whole = scratch();
        build(whole.path(), 3, 300, closed);
        let last = segments(whole.path()).pop().unwrap();
        for path in segments(whole.path()) {
            let sound = fs::read(&path).unwrap();
            for at in 0..sound.len() {
                let dir = copy(whole.path());
                let mut bytes = sound.clone();
                bytes[at] ^= 1 << (at % 8);
                fs::write(dir.path().join(path.file_name().unwrap()), bytes).unwrap();
                match open(dir.path(), 300) {
                    Err(LogError::Corrupt { .. }) => {}
                    Err(error) => panic!("byte {at}: {error}"),
                    Ok((_, opened)) => {
                        let torn_bytes = opened.torn_bytes;
                        assert!(path == last && torn_bytes > 0, "byte {at}");
                        assert_eq!(opened, expected(kept, torn_bytes), "byte {at}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_segment_missing_in_the_middle_is_corruption() {
    let dir = scratch();
    build(dir.path(), 9, 300, true);
    let paths = segments(dir.path());
    assert!(paths.len() > 3);
    fs::remove_file(&paths[1]).unwrap();
    assert!(matches!(open(dir.path(), 300), Err(LogError::Corrupt { .. })));
}

#[test]
fn segments_are_freed_when_settled_and_old_enough() {
    let dir = scratch();
    build(dir.path(), 6, 300, true);
    let (mut log, before) = open(dir.path(), 300).unwrap();
    let count = segments(dir.path()).len();
    let at = |secs: i64| Timestamp::from_secs(secs).unwrap();
    let nothing = |freed: Freed| freed.through.is_none();
    assert!(nothing(log.free(&Positions::new(), at(0), none).unwrap()), "nothing is settled");
    assert!(nothing(log.free(&before.lanes, at(0), none).unwrap()), "retained");
    // Taken back by a restored ledger: the time starts again.
    assert!(nothing(log.free(&Positions::new(), at(700), none).unwrap()));
    assert!(nothing(log.free(&before.lanes, at(701), none).unwrap()));
    let freed = log.free(&before.lanes, at(1301), none).unwrap();
    assert_eq!(freed.early, 0);
    assert_eq!(segments(dir.path()).len(), 1, "of {count}");
    let through = freed.through.unwrap();
    drop(log);
    let (_, after) = open(dir.path(), 300).unwrap();
    // Everything but the freed frames is still known.
    let last = before.bodies.len() - after.bodies.len();
    assert_eq!(after.freed, through);
    assert_eq!(
        Opened { freed: before.freed.clone(), bodies: before.bodies.clone(), ..after.clone() },
        before
    );
    assert_eq!(after.bodies, before.bodies[last..]);
}

#[test]
fn settled_segments_yield_when_the_log_is_crowded() {
    let dir = scratch();
    build(dir.path(), 6, 300, true);
    let lock = DirectoryLock::take(dir.path()).unwrap();
    let recovered = recover(dir.path(), producer()).unwrap();
    let lanes = recovered.lanes.clone();
    let limits = LogLimits { crowded_bytes: 1, ..limits(300) };
    let mut log = Log::open(dir.path(), lock, producer(), limits, recovered).unwrap();
    let freed = log.free(&lanes, Timestamp::EPOCH, none).unwrap();
    assert!(freed.early > 0);
    assert_eq!(segments(dir.path()).len(), 1, "also the active one, after another was begun");
    drop(log);
    assert_eq!(open(dir.path(), 300).unwrap().1.bodies, Vec::<Vec<u8>>::new());
}

#[test]
fn ends_of_freed_frames_are_remembered_until_there_are_too_many() {
    let dir = scratch();
    let end = |sequence: u64| Position { sequence, chain: sequence ^ 0xabcd };
    let frames = |first: u64| {
        let ends = (first..first + 100).map(|n| end(n * 3)).collect();
        vec![FreedFrames { lane: lane(0), before: first * 3 - 3, ends }]
    };
    freed::write(dir.path(), 7, &frames(1)).unwrap();
    freed::write(dir.path(), 12, &frames(101)).unwrap();
    let find = |sequence| find_freed(dir.path(), producer(), &[(lane(0), sequence)].into()).unwrap();
    for known in [3, 150, 300, 303, 600] {
        assert_eq!(find(known), [(lane(0), end(known))].into());
    }
    for unknown in [0, 1, 299, 603] {
        assert!(find(unknown).is_empty(), "{unknown}");
    }
    assert!(find_freed(dir.path(), producer(), &[(lane(1), 3)].into()).unwrap().is_empty());
    // A changed bit is found and said.
    let path = dir.path().join("000000000012.freed");
    let sound = fs::read(&path).unwrap();
    for at in (0..sound.len()).step_by(37) {
        let mut flipped = sound.clone();
        flipped[at] ^= 4;
        fs::write(&path, &flipped).unwrap();
        let found = find_freed(dir.path(), producer(), &[(lane(0), 303)].into());
        assert!(matches!(found, Err(LogError::Corrupt { .. })), "byte {at}: {found:?}");
    }
    fs::write(&path, &sound).unwrap();
    freed::bound(dir.path(), u64::try_from(sound.len()).unwrap()).unwrap();
    assert!(find(3).is_empty() && find(303).len() == 1, "the oldest goes first");
    freed::bound(dir.path(), 0).unwrap();
    assert!(find(303).is_empty());
}

#[test]
fn another_producers_log_is_not_opened() {
    let dir = scratch();
    build(dir.path(), 1, 300, true);
    let other = ProducerId::from_uuid(Uuid::from_u128(8));
    assert!(matches!(recover(dir.path(), other), Err(LogError::OtherProducer { .. })));
}

#[test]
fn meta_survives_and_a_damaged_one_is_refused() {
    let dir = scratch();
    assert!(Meta::read(dir.path()).unwrap().is_none());
    let limits = StreamLimits { frame_bytes_max: 1 << 20, frame_events_max: 100, series_max: 10 };
    let map = ShardMap { version: 2, shard_count: NonZeroU32::new(16).unwrap() };
    let meta = Meta::new(producer(), 5, map, limits);
    meta.write(dir.path()).unwrap();
    assert_eq!(Meta::read(dir.path()).unwrap(), Some(meta));
    let path = dir.path().join("meta");
    let sound = fs::read(&path).unwrap();
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        assert!(Meta::read(dir.path()).is_err(), "byte {at}");
        fs::write(&path, &sound[..at]).unwrap();
        assert!(Meta::read(dir.path()).is_err(), "cut at {at}");
    }
}

/// A segment as version 1 wrote it: head, a group with two frames, closed. It has to be read for ever.
#[test]
fn bytes_once_written_are_still_read() {
    let dir = scratch();
    fs::write(dir.path().join("000000000001.segment"), include_bytes!("fixtures/v1.segment")).unwrap();
    let (_, opened) = open(dir.path(), 1 << 20).unwrap();
    assert_eq!(opened, expected(1, 0));
    let end = Position { sequence: 3, chain: 0xf27e_1f91_fd48_5f8b };
    assert_eq!(opened.lanes.get(&lane(0)), Some(&end));
}
