//! Every numbered check of the functions against a real server, and that a refused call changes nothing.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use drawdown_metering_core::{
    look::{Head, LaneApplied},
    shard::{Lane, Position},
};
use drawdown_types::ProducerId;
use redis::{AsyncCommands as _, aio::MultiplexedConnection, cmd};
use uuid::Uuid;

use super::*;

const SHARD: u32 = 3;
const GENERATION: u64 = 0xffff_ffff_ffff_fff1;
const DICTIONARY: u64 = 0xd1c7;
const BLOBS_MAX: u64 = 4;

struct Space {
    store: Store,
    keys: Keys,
    raw: MultiplexedConnection,
}

fn settings(url: &str, namespace: &str) -> Settings {
    Settings {
        servers: Servers::Single { url: url.to_owned() },
        namespace: Namespace::new(namespace).unwrap(),
        connection_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(10),
        allow_unsafe: true,
    }
}

fn lane(number: u128) -> Lane {
    Lane { producer: ProducerId::from_uuid(Uuid::from_u128(number)), map_version: 1, shard: SHARD }
}

const fn at(sequence: u64, chain: u64) -> Position {
    Position { sequence, chain }
}

/// Extends lane 1 from its start to 10.
fn first() -> Apply {
    Apply {
        shard: SHARD,
        generation: GENERATION,
        batch: 1,
        blobs_max: BLOBS_MAX,
        blob: Bytes::from_static(b"blob"),
        checksum: 0xc0,
        dictionary: DICTIONARY,
        names_before: 0,
        names: 2,
        lanes: vec![ApplyLane { lane: lane(1), epoch: 5, before: at(0, 0), after: at(10, 0xaa) }],
    }
}

/// What may follow [`first`].
fn second() -> Apply {
    let part = ApplyLane { lane: lane(1), epoch: 5, before: at(10, 0xaa), after: at(12, 0xbb) };
    Apply { names_before: 2, names: 0, lanes: vec![part], ..first() }
}

fn install(seen: Option<u64>, generation: u64) -> Install {
    let value = |epoch, applied| LaneApplied { epoch, applied };
    Install {
        shard: SHARD,
        seen,
        seen_batches: vec![1],
        generation,
        last_batch: 0,
        lanes: vec![(lane(1), value(5, at(0, 0))), (lane(2), value(1 << 60, at((1 << 53) - 1, u64::MAX)))],
        only: None,
        aside: Vec::new(),
    }
}

impl Space {
    async fn empty() -> Self {
        let space = drawdown_testkit::redis().await.unwrap();
        let store = Store::connect(&settings(&space.url, &space.namespace)).await.unwrap();
        let client = redis::Client::open(space.url.as_str()).unwrap();
        let raw = client.get_multiplexed_async_connection().await.unwrap();
        Self { store, keys: Keys::new(Namespace::new(&space.namespace).unwrap()), raw }
    }

    async fn installed() -> Self {
        let space = Self::empty().await;
        assert_eq!(space.store.install(&install(None, GENERATION)).await.unwrap(), Installed::Ok);
        space
    }

    /// With [`first`] in the open batch.
    async fn begun() -> Self {
        let space = Self::installed().await;
        assert_eq!(space.apply(first()).await, Applied::Ok(1));
        space
    }

    async fn apply(&self, apply: Apply) -> Applied {
        match self.store.write(&[Write::Apply(apply)]).await.pop().unwrap().unwrap() {
            Written::Applied(answer) => answer,
            Written::Attached(answer) => panic!("{answer:?}"),
        }
    }

    async fn attach(&self, generation: u64, lanes: Vec<AttachLane>) -> Attached {
        let attach = Attach { shard: SHARD, generation, lanes };
        match self.store.write(&[Write::Attach(attach)]).await.pop().unwrap().unwrap() {
            Written::Attached(answer) => answer,
            Written::Applied(answer) => panic!("{answer:?}"),
        }
    }

    async fn head(&self) -> Head {
        self.store.look(&[SHARD]).await.unwrap().pop().unwrap().unwrap()
    }

    fn list(&self, batch: u64) -> String {
        self.keys.batch(SHARD, GENERATION, batch)
    }

    /// Everything of the shard, byte for byte.
    async fn snapshot(&mut self) -> BTreeMap<String, Vec<Vec<u8>>> {
        let head = self.keys.head(SHARD);
        let mut all = BTreeMap::new();
        let keys: Vec<String> = (1..=9).map(|batch| self.list(batch)).chain([head]).collect();
        for key in keys {
            let kind: String = cmd("TYPE").arg(&key).query_async(&mut self.raw).await.unwrap();
            let content: Vec<Vec<u8>> = match kind.as_str() {
                "list" => self.raw.lrange(&key, 0, -1).await.unwrap(),
                "hash" => {
                    let fields: BTreeMap<Vec<u8>, Vec<u8>> = self.raw.hgetall(&key).await.unwrap();
                    fields.into_iter().flat_map(|(field, value)| [field, value]).collect()
                }
                other => vec![other.as_bytes().to_vec()],
            };
            all.insert(key, content);
        }
        all
    }

    async fn set(&mut self, field: &str, value: &str) {
        let head = self.keys.head(SHARD);
        let _: () = self.raw.hset(head, field, value).await.unwrap();
    }

    async fn refuses(&mut self, apply: Apply, answer: Applied) {
        let before = self.snapshot().await;
        assert_eq!(self.apply(apply).await, answer);
        assert_eq!(self.snapshot().await, before, "{answer:?}");
    }

    async fn refuses_lane(&mut self, part: ApplyLane, refusal: LaneRefusal) {
        self.refuses(Apply { lanes: vec![part], ..second() }, Applied::Lanes(vec![(0, refusal)])).await;
    }
}

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
    assert_eq!(answer, Attached::Ok(vec![Asked::Wait, Asked::Aside, known, known]));
    let lanes: Vec<Lane> = space.head().await.lanes.into_keys().collect();
    assert_eq!(lanes, [lane(1), lane(2), lane(9)]);
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

#[tokio::test]
async fn seal_checks_and_closes() {
    let mut space = Space::installed().await;
    let wrong = space.store.seal(SHARD, GENERATION - 1, 1, 8).await.unwrap();
    assert_eq!(wrong, Sealed::Refused(Refused::Generation(Some(GENERATION))));
    assert_eq!(space.store.seal(SHARD, GENERATION, 1, 8).await.unwrap(), Sealed::Empty);
    assert_eq!(space.apply(first()).await, Applied::Ok(1));
    let before = space.snapshot().await;
    assert_eq!(space.store.seal(SHARD, GENERATION, 2, 8).await.unwrap(), Sealed::Refused(Refused::Batch));
    assert_eq!(space.store.seal(SHARD, GENERATION, 1, 0).await.unwrap(), Sealed::Cap);
    assert_eq!(space.snapshot().await, before);
    let sealed = space.store.seal(SHARD, GENERATION, 1, 8).await.unwrap();
    let head = space.head().await;
    assert_eq!(sealed, Sealed::Ok(head.sealed[&1].clone()));
    assert_eq!((head.open, head.retired, head.blobs, head.open_length), (2, 0, 0, 0));
    let names: Option<String> = space.raw.hget(space.keys.head(SHARD), "d:000000000000d1c7").await.unwrap();
    assert_eq!(names, None);
    let again = space.store.seal(SHARD, GENERATION, 1, 8).await.unwrap();
    assert_eq!(again, Sealed::Refused(Refused::Batch));
}

#[tokio::test]
async fn seal_counts_the_list() {
    let mut space = Space::begun().await;
    let list = space.list(1);
    let _: () = space.raw.del(&list).await.unwrap();
    let before = space.snapshot().await;
    let refused = space.store.seal(SHARD, GENERATION, 1, 8).await.unwrap();
    assert_eq!(refused, Sealed::Refused(Refused::Damaged));
    assert_eq!(space.snapshot().await, before);
}

#[tokio::test]
async fn sealed_batches_stop_at_their_cap() {
    let space = Space::begun().await;
    assert!(matches!(space.store.seal(SHARD, GENERATION, 1, 2).await.unwrap(), Sealed::Ok(_)));
    let next = |batch: u64, sequence: u64| {
        let part = ApplyLane {
            lane: lane(1),
            epoch: 5,
            before: at(sequence, if sequence == 10 { 0xaa } else { sequence }),
            after: at(sequence + 1, sequence + 1),
        };
        Apply { batch, names_before: 0, lanes: vec![part], ..first() }
    };
    assert_eq!(space.apply(next(2, 10)).await, Applied::Ok(1));
    assert!(matches!(space.store.seal(SHARD, GENERATION, 2, 2).await.unwrap(), Sealed::Ok(_)));
    assert_eq!(space.apply(next(3, 11)).await, Applied::Ok(1));
    assert_eq!(space.store.seal(SHARD, GENERATION, 3, 2).await.unwrap(), Sealed::Cap);
}

#[tokio::test]
async fn retire_wants_generation_order_and_fingerprint() {
    let mut space = Space::begun().await;
    let before = space.snapshot().await;
    let open = space.store.retire(SHARD, GENERATION, 1, "1:x").await.unwrap();
    assert_eq!(open, Retired::Refused(Refused::Batch));
    assert_eq!(space.snapshot().await, before);
    let Sealed::Ok(seal) = space.store.seal(SHARD, GENERATION, 1, 8).await.unwrap() else { panic!() };
    let before = space.snapshot().await;
    let wrong = space.store.retire(SHARD, GENERATION - 1, 1, &seal).await.unwrap();
    assert_eq!(wrong, Retired::Refused(Refused::Generation(Some(GENERATION))));
    assert_eq!(
        space.store.retire(SHARD, GENERATION, 2, &seal).await.unwrap(),
        Retired::Refused(Refused::Batch)
    );
    assert_eq!(space.store.retire(SHARD, GENERATION, 1, "1:x").await.unwrap(), Retired::Fingerprint);
    assert_eq!(space.snapshot().await, before);
    assert_eq!(space.store.retire(SHARD, GENERATION, 1, &seal).await.unwrap(), Retired::Ok);
    let head = space.head().await;
    assert_eq!((head.open, head.retired, head.sealed.len()), (2, 1, 0));
    assert!(space.store.entries(SHARD, GENERATION, 1, 1).await.unwrap().is_empty());
    let again = space.store.retire(SHARD, GENERATION, 1, &seal).await.unwrap();
    assert_eq!(again, Retired::Refused(Refused::Batch));
}

#[tokio::test]
async fn install_replaces_only_what_was_seen() {
    let mut space = Space::begun().await;
    let before = space.snapshot().await;
    for seen in [None, Some(GENERATION - 1)] {
        let refused = space.store.install(&install(seen, 7)).await.unwrap();
        assert_eq!(refused, Installed::Generation(Some(GENERATION)));
    }
    assert_eq!(space.snapshot().await, before);
    let replaced = Install { last_batch: 41, ..install(Some(GENERATION), 7) };
    assert_eq!(space.store.install(&replaced).await.unwrap(), Installed::Ok);
    let head = space.head().await;
    assert_eq!((head.generation, head.open, head.retired, head.blobs, head.open_length), (7, 42, 41, 0, 0));
    assert_eq!(head.lanes, replaced.lanes.into_iter().collect());
    assert!(space.store.entries(SHARD, GENERATION, 1, 1).await.unwrap().is_empty());
    let absent = space.store.install(&install(None, 8)).await.unwrap();
    assert_eq!(absent, Installed::Generation(Some(7)));
}

#[tokio::test]
async fn install_takes_more_lanes_than_one_call_of_lua_can_spread() {
    let space = Space::empty().await;
    let value = LaneApplied { epoch: 1, applied: at(1, 1) };
    let lanes: Vec<_> = (0..12_000).map(|number| (lane(number), value)).collect();
    let wide = Install { lanes, ..install(None, GENERATION) };
    assert_eq!(space.store.install(&wide).await.unwrap(), Installed::Ok);
    assert_eq!(space.head().await.lanes.len(), 12_000);
}

#[tokio::test]
async fn look_tells_absent_from_unreadable() {
    let mut space = Space::empty().await;
    let look = |faults: Vec<Result<Head, HeadFault>>| faults.into_iter().next().unwrap();
    assert_eq!(look(space.store.look(&[SHARD]).await.unwrap()), Err(HeadFault::Absent));
    space.set("o", "1").await;
    let fault = look(space.store.look(&[SHARD]).await.unwrap()).unwrap_err();
    assert_eq!(fault, HeadFault::Unreadable { generation: None, field: "g".to_owned() });
    let head = space.keys.head(SHARD);
    let _: () = space.raw.set(&head, "no hash").await.unwrap();
    assert_eq!(look(space.store.look(&[SHARD]).await.unwrap()), Err(HeadFault::Absent));
    assert_eq!(space.store.install(&install(None, GENERATION)).await.unwrap(), Installed::Ok);
    for (field, value) in [("n", "x"), ("s:x", "1:0"), ("p:x", "y")] {
        space.set(field, value).await;
        let fault = look(space.store.look(&[SHARD]).await.unwrap()).unwrap_err();
        assert_eq!(fault, HeadFault::Unreadable { generation: Some(GENERATION), field: field.to_owned() });
        let _: () = space.raw.hdel(&head, field).await.unwrap();
        space.set("n", "0").await;
    }
}

#[tokio::test]
async fn sweep_drops_only_what_nothing_refers_to() {
    let mut space = Space::begun().await;
    let old = space.keys.batch(SHARD, GENERATION - 1, 9);
    let _: () = space.raw.rpush(&old, "x").await.unwrap();
    assert_eq!(space.store.sweep(SHARD).await.unwrap(), 1);
    assert_eq!(space.head().await.open_length, 1);
    let head = space.keys.head(SHARD);
    let _: () = space.raw.del(&head).await.unwrap();
    assert_eq!(space.store.sweep(SHARD).await.unwrap(), 0, "without a head nothing is known to be old");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_transient_error() {
    let nowhere = Settings {
        connection_timeout: Duration::from_millis(200),
        response_timeout: Duration::from_millis(200),
        ..settings("redis://127.0.0.1:1", "nowhere")
    };
    let error = Store::connect(&nowhere).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn a_lease_is_one_workers_until_it_gives_it_back() {
    use LeaseWish::{Keep, Leave, See, Take};
    let space = Space::empty().await;
    let life = Duration::from_secs(60);
    let ask = async |token, wish| {
        let ask = LeaseAsk { shard: SHARD, token, life, wish };
        space.store.leases(&[ask]).await.unwrap()[0]
    };
    for (token, wish, expected) in [
        (1, See, Lease::Free),
        (1, Leave, Lease::Free),
        (1, Take, Lease::Ours),
        (2, Take, Lease::Others),
        (2, Keep, Lease::Others),
        (2, Leave, Lease::Others),
        (1, See, Lease::Ours),
        (1, Keep, Lease::Ours),
        (1, Leave, Lease::Free),
        (2, Keep, Lease::Ours),
    ] {
        assert_eq!(ask(token, wish).await, expected, "{token} {wish:?}");
    }
}

#[tokio::test]
async fn a_lease_ends_by_itself_and_rubbish_in_its_place_is_none() {
    let mut space = Space::empty().await;
    let ask = |token, wish, life| [LeaseAsk { shard: SHARD, token, life, wish }];
    let short = ask(1, LeaseWish::Take, Duration::from_millis(1));
    assert_eq!(space.store.leases(&short).await.unwrap(), [Lease::Ours]);
    let see = ask(2, LeaseWish::See, Duration::ZERO);
    let ended = async {
        while space.store.leases(&see).await.unwrap() != [Lease::Free] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
    let key = space.keys.lease(SHARD);
    let _: () = space.raw.del(&key).await.unwrap();
    let _: () = space.raw.rpush(&key, "no string").await.unwrap();
    let long = ask(1, LeaseWish::Take, Duration::from_secs(60));
    assert_eq!(space.store.leases(&long).await.unwrap(), [Lease::Ours]);
}

#[tokio::test]
async fn workers_are_there_until_they_go_or_fall_silent() {
    let space = Space::empty().await;
    let life = Duration::from_secs(60);
    assert_eq!(space.store.workers(u64::MAX, life).await.unwrap(), [u64::MAX]);
    assert_eq!(space.store.workers(7, life).await.unwrap(), [7, u64::MAX]);
    assert_eq!(space.store.workers(8, Duration::from_millis(1)).await.unwrap().len(), 3);
    let silent = async {
        while space.store.workers(7, life).await.unwrap() != [7, u64::MAX] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), silent).await.unwrap();
    space.store.leave_workers(7).await.unwrap();
    assert_eq!(space.store.workers(u64::MAX, life).await.unwrap(), [u64::MAX]);
}
