//! A head that is installed, and one that is read.

use super::*;

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
    assert!(head.lanes.is_empty(), "lanes are attached, by who knows where they are settled now");
    assert!(space.store.entries(SHARD, GENERATION, 1, 1).await.unwrap().is_empty());
    let absent = space.store.install(&install(None, 8)).await.unwrap();
    assert_eq!(absent, Installed::Generation(Some(7)));
}

#[tokio::test]
async fn install_takes_more_lanes_than_one_call_of_lua_can_spread() {
    let mut space = Space::empty().await;
    let wide = Install { aside: (0..12_000).map(lane).collect(), ..install(None, GENERATION) };
    assert_eq!(space.store.install(&wide).await.unwrap(), Installed::Ok);
    let fields: Vec<String> = space.raw.hkeys(space.keys.head(SHARD)).await.unwrap();
    assert_eq!(fields.iter().filter(|field| field.starts_with("y:")).count(), 12_000);
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
    for (field, value) in [("n", "x"), ("s:x", "1:0"), ("p:x", "y"), ("r", "7")] {
        space.set(field, value).await;
        let fault = look(space.store.look(&[SHARD]).await.unwrap()).unwrap_err();
        assert_eq!(fault, HeadFault::Unreadable { generation: Some(GENERATION), field: field.to_owned() });
        let _: () = space.raw.hdel(&head, field).await.unwrap();
        space.set("n", "0").await;
    }
}
