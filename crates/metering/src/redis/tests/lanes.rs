//! Lanes that leave the head, and how they come back.

use super::*;

const ROLL: Roll = Roll { generation: GENERATION, number: 0 };
const NEXT: Roll = Roll { generation: GENERATION, number: u64::MAX };
const DAY: Duration = Duration::from_secs(86_400);

/// Lane 1 after [`first`], lane 2 as it was attached.
fn standing() -> Vec<(Lane, LaneApplied)> {
    let second = LaneApplied { epoch: 1 << 60, applied: at((1 << 53) - 1, u64::MAX) };
    vec![(lane(1), LaneApplied { epoch: 5, applied: at(10, 0xaa) }), (lane(2), second)]
}

impl Space {
    /// Retires whatever is at rest for `idle`.
    async fn retire_lanes(
        &self,
        roll: Roll,
        idle: Duration,
        lanes: Vec<(Lane, LaneApplied)>,
    ) -> LanesRetired {
        let retire = RetireLanes { shard: SHARD, roll, next: NEXT.number, idle, lanes };
        self.store.retire_lanes(&retire).await.unwrap()
    }

    async fn mark(&mut self, number: u128) -> Option<String> {
        let field = format!("i:1.{:032x}", lane(number).producer.as_uuid().as_u128());
        self.raw.hget(self.keys.head(SHARD), field).await.unwrap()
    }
}

#[tokio::test]
async fn a_lane_leaves_when_it_was_marked_for_long_and_is_what_was_seen() {
    let mut space = Space::begun().await;
    let (generation, number) = (GENERATION + 1, 1);
    let before = space.snapshot().await;
    for (wrong, refused) in [
        (Roll { generation, ..ROLL }, Refused::Generation(Some(GENERATION))),
        (Roll { number, ..ROLL }, Refused::Roll),
    ] {
        let answer = space.retire_lanes(wrong, Duration::ZERO, standing()).await;
        assert_eq!(answer, LanesRetired::Refused(refused));
    }
    let moved = vec![(lane(1), LaneApplied { epoch: 5, applied: at(9, 0xa9) })];
    let raised = vec![(lane(1), LaneApplied { epoch: 4, applied: at(10, 0xaa) })];
    let absent = vec![(lane(7), LaneApplied { epoch: 5, applied: at(10, 0xaa) })];
    for others in [moved, raised, absent] {
        assert_eq!(space.retire_lanes(ROLL, Duration::ZERO, others).await, LanesRetired::Ok(0));
    }
    assert_eq!(space.snapshot().await, before, "refused, or not what was seen");
    // The first time it is marked, however short the time is; then it has to be long enough.
    assert_eq!(space.retire_lanes(ROLL, Duration::ZERO, standing()).await, LanesRetired::Ok(0));
    let marked = space.snapshot().await;
    assert!(space.mark(1).await.unwrap().ends_with(":000000000000000a"));
    assert_eq!(space.retire_lanes(ROLL, DAY, standing()).await, LanesRetired::Ok(0));
    assert_eq!(space.snapshot().await, marked);
    assert_eq!(space.retire_lanes(ROLL, Duration::ZERO, standing()).await, LanesRetired::Ok(2));
    let head = space.head().await;
    assert!(head.lanes.is_empty());
    assert_eq!((head.roll, head.blobs, head.generation), (NEXT.number, 1, GENERATION));
    assert_eq!((space.mark(1).await, space.mark(2).await), (None, None));
    let again = space.retire_lanes(ROLL, Duration::ZERO, standing()).await;
    assert_eq!(again, LanesRetired::Refused(Refused::Roll), "the same call a second time");
}

#[tokio::test]
async fn an_attach_names_the_roll_that_was_known_before_the_ledger_was_asked() {
    let mut space = Space::begun().await;
    for _ in 0..2 {
        space.retire_lanes(ROLL, Duration::ZERO, standing()).await;
    }
    let before = space.snapshot().await;
    let ask = AttachLane { lane: lane(1), epoch: 5, settled: at(0, 0) };
    // Held up since before the retirement: it would set the lane back to its start.
    assert_eq!(space.attach_under(ROLL, vec![ask]).await, Attached::Refused(Refused::Roll));
    space.refuses(second(), Applied::Lanes(vec![(0, LaneRefusal::Absent)])).await;
    assert_eq!(space.snapshot().await, before);
    let now = AttachLane { settled: at(10, 0xaa), ..ask };
    let stands = LaneApplied { epoch: 5, applied: at(10, 0xaa) };
    assert_eq!(space.attach_under(NEXT, vec![now]).await, Attached::Ok(vec![Asked::Known(stands)]));
    assert_eq!(space.apply(second()).await, Applied::Ok(2));
    // An older caller names no roll; the place of the roll has a lane.
    let head = space.keys.head(SHARD);
    let older: Vec<String> = cmd("FCALL")
        .arg("drawdown_v1_attach")
        .arg((1, head, super::super::keys::hex(GENERATION), "1.00000000000000000000000000000001"))
        .arg(("0000000000000005", "0000000000000000:0000000000000000"))
        .query_async(&mut space.raw)
        .await
        .unwrap();
    assert_eq!(older[0], "ROLL");
}

#[tokio::test]
async fn lanes_in_use_stay() {
    let mut space = Space::begun().await;
    let lanes = vec![lane(1), lane(2), lane(7)];
    space.store.keep_lanes(&[(SHARD, GENERATION + 1, lanes.clone())]).await.unwrap();
    assert_eq!(space.mark(1).await, None, "another generation is left alone");
    let long_ago = "1:000000000000000a";
    let field = "i:1.00000000000000000000000000000001";
    space.set(field, long_ago).await;
    space.store.keep_lanes(&[(SHARD, GENERATION, lanes)]).await.unwrap();
    assert_ne!(space.mark(1).await.unwrap(), long_ago);
    assert_eq!(space.mark(7).await, None, "there is no such lane");
    assert_eq!(space.retire_lanes(ROLL, DAY, standing()).await, LanesRetired::Ok(0));
    // The mark is void where the lane has moved, where an attach has come, and where it is ahead of the clock.
    space.set(field, "1:0000000000000009").await;
    assert_eq!(space.retire_lanes(ROLL, DAY, standing()).await, LanesRetired::Ok(0));
    space.set(field, "9999999999999:000000000000000a").await;
    assert_eq!(space.retire_lanes(ROLL, DAY, standing()).await, LanesRetired::Ok(0));
    assert_eq!(space.retire_lanes(ROLL, DAY, standing()).await, LanesRetired::Ok(0));
    space.set(field, long_ago).await;
    let ask = AttachLane { lane: lane(1), epoch: 5, settled: at(0, 0) };
    assert!(matches!(space.attach(GENERATION, vec![ask]).await, Attached::Ok(_)));
    assert_eq!(space.mark(1).await, None);
    space.set(field, long_ago).await;
    assert_eq!(space.retire_lanes(ROLL, DAY, standing()).await, LanesRetired::Ok(1));
    assert_eq!(space.head().await.lanes.into_keys().collect::<Vec<_>>(), [lane(2)]);
}

#[tokio::test]
async fn retire_lanes_takes_more_lanes_than_one_call_of_lua_can_spread() {
    let space = Space::installed().await;
    let state = LaneApplied { epoch: 1, applied: at(1, 1) };
    let lanes: Vec<_> = (10..6010).map(|number| (lane(number), state)).collect();
    for part in lanes.chunks(1000) {
        let asks = part.iter().map(|(lane, _)| AttachLane { lane: *lane, epoch: 1, settled: at(1, 1) });
        assert!(matches!(space.attach(GENERATION, asks.collect()).await, Attached::Ok(_)));
    }
    assert_eq!(space.retire_lanes(ROLL, Duration::ZERO, lanes.clone()).await, LanesRetired::Ok(0));
    assert_eq!(space.retire_lanes(ROLL, Duration::ZERO, lanes).await, LanesRetired::Ok(6000));
    assert_eq!(space.head().await.lanes.len(), 2);
}
