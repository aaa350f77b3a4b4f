//! What `attach` keeps, raises and refuses.

use super::*;

#[tokio::test]
async fn attach_keeps_the_position_and_raises_the_epoch() {
    let mut space = Space::begun().await;
    let ask = |number, epoch, settled| AttachLane { lane: lane(number), epoch, settled };
    let before = space.snapshot().await;
    let wrong = space.attach(GENERATION + 1, vec![ask(9, 1, at(0, 0))]).await;
    assert_eq!(wrong, Attached::Refused(Refused::Generation(Some(GENERATION))));
    let same = space.attach(GENERATION, vec![ask(1, 4, at(3, 3)), ask(2, 1, at(0, 0))]).await;
    let stored = [
        LaneApplied { epoch: 5, applied: at(10, 0xaa) },
        LaneApplied { epoch: 1 << 60, applied: at((1 << 53) - 1, u64::MAX) },
    ];
    assert_eq!(same, Attached::Ok(stored.map(Asked::Known).to_vec()));
    assert_eq!(space.snapshot().await, before);
    let raised = space.attach(GENERATION, vec![ask(1, 6, at(3, 3)), ask(9, 2, at(7, 8))]).await;
    let stored =
        vec![LaneApplied { epoch: 6, applied: at(10, 0xaa) }, LaneApplied { epoch: 2, applied: at(7, 8) }];
    assert_eq!(raised, Attached::Ok(stored.iter().copied().map(Asked::Known).collect()));
    let head = space.head().await;
    assert_eq!([head.lanes[&lane(1)], head.lanes[&lane(9)]], stored.as_slice());
}

#[tokio::test]
async fn while_lanes_are_settled_one_by_one_the_others_wait() {
    let space = Space::empty().await;
    let one = Install { only: Some(lane(9)), aside: vec![lane(8)], ..install(None, GENERATION) };
    assert_eq!(space.store.install(&one).await.unwrap(), Installed::Ok);
    let ask = |number| AttachLane { lane: lane(number), epoch: 6, settled: at(0, 0) };
    let answer = space.attach(GENERATION, vec![ask(7), ask(8), ask(9), ask(1)]).await;
    let known = Asked::Known(LaneApplied { epoch: 6, applied: at(0, 0) });
    assert_eq!(answer, Attached::Ok(vec![Asked::Wait, Asked::Aside, known, Asked::Wait]));
    let lanes: Vec<Lane> = space.head().await.lanes.into_keys().collect();
    assert_eq!(lanes, [lane(9)]);
}

#[tokio::test]
async fn attach_does_not_take_an_unreadable_lane() {
    let mut space = Space::begun().await;
    space.set("p:1.00000000000000000000000000000001", "rubbish").await;
    let ask = AttachLane { lane: lane(1), epoch: 5, settled: at(0, 0) };
    let before = space.snapshot().await;
    assert_eq!(space.attach(GENERATION, vec![ask]).await, Attached::Refused(Refused::Damaged));
    assert_eq!(space.apply(second()).await, Applied::Refused(Refused::Damaged));
    assert_eq!(space.snapshot().await, before);
}
