//! A batch from its seal until it is retired or swept.

use super::*;

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
