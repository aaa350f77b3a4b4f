//! What `apply` wants, check by check, and what it writes.

use super::*;

#[tokio::test]
async fn apply_1_wants_the_generation() {
    let mut space = Space::begun().await;
    let refused = Applied::Refused(Refused::Generation(Some(GENERATION)));
    space.refuses(Apply { generation: GENERATION - 1, ..second() }, refused).await;
    let mut space = Space::empty().await;
    space.refuses(first(), Applied::Refused(Refused::Generation(None))).await;
}

#[tokio::test]
async fn apply_2_wants_the_open_batch() {
    let mut space = Space::begun().await;
    space.refuses(Apply { batch: 2, ..second() }, Applied::Refused(Refused::Batch)).await;
}

#[tokio::test]
async fn apply_3_counts_the_list() {
    let mut space = Space::begun().await;
    let list = space.list(1);
    let _: () = space.raw.rpush(&list, "foreign").await.unwrap();
    space.refuses(second(), Applied::Refused(Refused::Damaged)).await;
    let _: () = space.raw.del(&list).await.unwrap();
    space.refuses(second(), Applied::Refused(Refused::Damaged)).await;
    let _: () = space.raw.set(&list, "no list").await.unwrap();
    space.refuses(second(), Applied::Refused(Refused::Damaged)).await;
}

#[tokio::test]
async fn apply_3_bounds_the_list() {
    let mut space = Space::begun().await;
    space.refuses(Apply { blobs_max: 1, ..second() }, Applied::Refused(Refused::Full)).await;
}

#[tokio::test]
async fn apply_4_compares_the_names() {
    let mut space = Space::begun().await;
    space.refuses(Apply { names_before: 0, ..second() }, Applied::Refused(Refused::Names)).await;
    space.refuses(Apply { names_before: 3, ..second() }, Applied::Refused(Refused::Names)).await;
    let other = Apply { dictionary: DICTIONARY + 1, ..second() };
    space.refuses(other, Applied::Refused(Refused::Names)).await;
}

#[tokio::test]
async fn apply_5_wants_the_lane() {
    let mut space = Space::begun().await;
    let part = ApplyLane { lane: lane(9), epoch: 1, before: at(0, 0), after: at(1, 1) };
    space.refuses_lane(part, LaneRefusal::Absent).await;
}

#[tokio::test]
async fn apply_6_compares_all_bits_of_epochs() {
    let mut space = Space::installed().await;
    let stored = LaneApplied { epoch: 1 << 60, applied: at((1 << 53) - 1, u64::MAX) };
    for epoch in [0, (1 << 60) - 1, (1 << 28) + 1] {
        let part = ApplyLane { lane: lane(2), epoch, before: stored.applied, after: at(1 << 53, 1) };
        let refused = Applied::Lanes(vec![(0, LaneRefusal::Fenced(stored))]);
        space.refuses(Apply { lanes: vec![part], ..first() }, refused).await;
    }
    let part =
        ApplyLane { lane: lane(2), epoch: (1 << 60) + 1, before: stored.applied, after: at(1 << 53, 1) };
    assert_eq!(space.apply(Apply { lanes: vec![part], ..first() }).await, Applied::Ok(1));
    let moved = LaneApplied { epoch: (1 << 60) + 1, applied: at(1 << 53, 1) };
    assert_eq!(space.head().await.lanes.get(&lane(2)), Some(&moved));
}

#[tokio::test]
async fn apply_7_wants_the_next_sequence() {
    let mut space = Space::begun().await;
    let stored = LaneApplied { epoch: 5, applied: at(10, 0xaa) };
    for before in [at(9, 0xaa), at(11, 0xaa), at(0, 0), at(10 + (1 << 53), 0xaa)] {
        let part = ApplyLane { before, ..second().lanes[0] };
        space.refuses_lane(part, LaneRefusal::Sequence(stored)).await;
    }
}

#[tokio::test]
async fn apply_8_wants_the_chain() {
    let mut space = Space::begun().await;
    let stored = LaneApplied { epoch: 5, applied: at(10, 0xaa) };
    for chain in [0, 0xaa + (1 << 63)] {
        let part = ApplyLane { before: at(10, chain), ..second().lanes[0] };
        space.refuses_lane(part, LaneRefusal::Diverged(stored)).await;
    }
}

#[tokio::test]
async fn apply_names_every_lane_that_is_wrong() {
    let mut space = Space::begun().await;
    let bad = |number, epoch, before| ApplyLane { lane: lane(number), epoch, before, after: at(20, 1) };
    let parts = vec![second().lanes[0], bad(2, 1, at(0, 0)), bad(9, 1, at(0, 0))];
    let stored = LaneApplied { epoch: 1 << 60, applied: at((1 << 53) - 1, u64::MAX) };
    let refused = vec![(1, LaneRefusal::Fenced(stored)), (2, LaneRefusal::Absent)];
    space.refuses(Apply { lanes: parts, ..second() }, Applied::Lanes(refused)).await;
}

#[tokio::test]
async fn apply_writes_blob_index_names_lanes_and_fingerprint() {
    let mut space = Space::begun().await;
    assert_eq!(space.apply(second()).await, Applied::Ok(2));
    let entries = space.store.entries(SHARD, GENERATION, 1, 2).await.unwrap();
    assert_eq!(entries, [&b"\0\0\0\0blob"[..], &b"\0\0\0\x01blob"[..]]);
    let head = space.head().await;
    assert_eq!((head.open, head.retired, head.blobs, head.open_length), (1, 0, 2, 2));
    assert_eq!(head.lanes.get(&lane(1)), Some(&LaneApplied { epoch: 5, applied: at(12, 0xbb) }));
    let names: String = space.raw.hget(space.keys.head(SHARD), "d:000000000000d1c7").await.unwrap();
    assert_eq!(names, "2");
    let print: String = space.raw.hget(space.keys.head(SHARD), "f").await.unwrap();
    assert_eq!(print, "9fbab6f68f00ec19155363723e9a21b1b6ce4df3");
}

#[tokio::test]
async fn one_call_appends_to_many_shards_and_each_has_its_own_answer() {
    let space = Space::installed().await;
    let other = Apply { shard: SHARD + 1, ..first() };
    let answers = space.store.write(&[Write::Apply(other), Write::Apply(first())]).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    let refused = Written::Applied(Applied::Refused(Refused::Generation(None)));
    assert_eq!(answers, [refused, Written::Applied(Applied::Ok(1))]);
}
