//! Leases of shards, and the workers that are there.

use super::*;

#[tokio::test]
async fn a_lease_is_one_workers_until_it_gives_it_back() {
    use LeaseWish::{Keep, Leave, See};
    let space = Space::empty().await;
    let life = Duration::from_secs(60);
    let ask = async |token, wish| {
        let ask = LeaseAsk { shard: SHARD, token, life, wish };
        space.store.leases(&[ask]).await.unwrap()[0]
    };
    for (token, wish, expected) in [
        (1, See, Lease::Free),
        (1, Leave, Lease::Free),
        (1, Keep, Lease::Ours),
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
    let short = ask(1, LeaseWish::Keep, Duration::from_millis(1));
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
    let long = ask(1, LeaseWish::Keep, Duration::from_secs(60));
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
