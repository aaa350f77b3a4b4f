//! Redis loses or changes something while the ledger does not answer, so that everything is still unsettled.

use redis::AsyncCommands as _;

use crate::{
    gate::Mode,
    producer::{Ended, Log, Session, Until, deliver, open},
    rig::{Rig, Running, SHARDS, soon},
};

/// Applies a log while nothing settles, does the damage, lets the ledger answer and waits until all is settled
/// on the same stream. `sealed` waits until batches were sealed and posted in vain first.
async fn check(seed: u64, sealed: bool, damage: impl AsyncFnOnce(&mut Rig)) {
    let mut rig = Rig::new().await;
    let running = rig.start().await;
    let mut log = Log::new(rig.gate.producer());
    log.fill(seed, 90);
    settle_something_before(&rig, &running, seed).await;
    rig.gate.set_mode(Mode::Down);
    let epoch = open(running.address, log.producer).await.unwrap();
    let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
    assert!(matches!(soon("applied", session.run(Until::Applied)).await, Ended::Reached));
    if sealed {
        let posts = rig.gate.posts();
        while rig.gate.posts() == posts {
            soon("post", rig.gate.asked()).await;
        }
    }
    damage(&mut rig).await;
    rig.gate.set_mode(Mode::Open);
    let ended = soon("settlement", session.run(Until::Settled)).await;
    assert!(matches!(ended, Ended::Reached), "{ended:?}");
    let mut state = rig.gate.state();
    state.sums.retain(|(client, _, _), _| !client.starts_with("first"));
    assert_eq!(state.sums, log.sums);
    running.stop().await;
}

/// Settles something before, so that lanes and cursors do not begin at 0.
async fn settle_something_before(rig: &Rig, running: &Running, seed: u64) {
    let mut first = Log::new(rig.gate.producer());
    for client in crate::producer::clients_of_all_shards() {
        first.append(&format!("first-{client}"), "web.byte", &[seed, 1, 2]);
    }
    soon("settlement", deliver(&first, running.address, Until::Settled)).await;
}

#[tokio::test]
async fn everything_is_gone() {
    check(1, false, async |rig| rig.flush_all().await).await;
}

#[tokio::test]
async fn everything_is_gone_after_batches_were_sealed() {
    check(2, true, async |rig| rig.flush_all().await).await;
}

#[tokio::test]
async fn heads_are_gone() {
    check(3, true, async |rig| {
        for shard in 0..SHARDS {
            let head = rig.keys.head(shard);
            rig.delete(&head).await;
        }
    })
    .await;
}

async fn lists(rig: &mut Rig) -> Vec<String> {
    rig.all_keys().await.into_iter().filter(|key| key.contains(":b:")).collect()
}

#[tokio::test]
async fn lists_are_gone() {
    for sealed in [false, true] {
        check(4, sealed, async |rig| {
            for list in lists(rig).await {
                rig.delete(&list).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn one_blob_of_each_list_is_gone() {
    check(5, true, async |rig| {
        for list in lists(rig).await {
            let _: Option<Vec<u8>> = rig.redis.lpop(&list, None).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_blob_is_changed() {
    check(6, true, async |rig| {
        for list in lists(rig).await {
            let mut entry: Vec<u8> = rig.redis.lindex(&list, 0).await.unwrap();
            let middle = entry.len() / 2;
            entry[middle] ^= 1;
            let _: () = rig.redis.lset(&list, 0, entry).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn two_blobs_change_places() {
    check(7, true, async |rig| {
        for list in lists(rig).await {
            let entries: Vec<Vec<u8>> = rig.redis.lrange(&list, 0, -1).await.unwrap();
            if let [first, .., last] = entries.as_slice() {
                let _: () = rig.redis.lset(&list, 0, last.as_slice()).await.unwrap();
                let _: () = rig.redis.lset(&list, -1, first.as_slice()).await.unwrap();
            } else {
                let _: () = rig.redis.rpush(&list, entries).await.unwrap();
            }
        }
    })
    .await;
}

#[tokio::test]
async fn lanes_are_gone_from_the_head() {
    check(8, false, async |rig| {
        for shard in 0..SHARDS {
            let head = rig.keys.head(shard);
            let fields: Vec<String> = rig.redis.hkeys(&head).await.unwrap();
            for field in fields.into_iter().filter(|field| field.starts_with("p:")) {
                let _: () = rig.redis.hdel(&head, field).await.unwrap();
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_head_can_not_be_read() {
    check(9, true, async |rig| {
        for shard in 0..SHARDS {
            let head = rig.keys.head(shard);
            let _: () = rig.redis.hset(&head, "o", "rubbish").await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn redis_goes_back_to_an_older_state() {
    let mut rig = Rig::new().await;
    let running = rig.start().await;
    rig.gate.set_mode(Mode::Down);
    let mut log = Log::new(rig.gate.producer());
    log.fill(10, 20);
    soon("applied", deliver(&log, running.address, Until::Applied)).await;
    let mut old = Vec::new();
    for key in rig.all_keys().await {
        let dump: Vec<u8> = redis::cmd("DUMP").arg(&key).query_async(&mut rig.redis).await.unwrap();
        old.push((key, dump));
    }
    log.fill(11, 60);
    let epoch = open(running.address, log.producer).await.unwrap();
    let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
    assert!(matches!(soon("applied", session.run(Until::Applied)).await, Ended::Reached));
    // As a failover to a replica that had not heard the latest. The producer has nothing new to send.
    rig.flush_all().await;
    for (key, dump) in old {
        let _: () = redis::cmd("RESTORE")
            .arg(&key)
            .arg(0)
            .arg(dump)
            .arg("REPLACE")
            .query_async(&mut rig.redis)
            .await
            .unwrap();
    }
    rig.gate.set_mode(Mode::Open);
    assert!(matches!(soon("settlement", session.run(Until::Settled)).await, Ended::Reached));
    assert_eq!(rig.gate.state().sums, log.sums);
    running.stop().await;
}

#[tokio::test]
async fn the_ledger_is_restored_to_an_older_state() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let mut log = Log::new(rig.gate.producer());
    log.fill(12, 30);
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    let backup = rig.gate.state();
    log.fill(13, 40);
    let epoch = open(running.address, log.producer).await.unwrap();
    let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
    assert!(matches!(soon("settlement", session.run(Until::Settled)).await, Ended::Reached));
    let mut restored = backup;
    restored.producers = rig.gate.state().producers;
    rig.gate.restore(restored);
    session.settled.clear();
    assert!(matches!(soon("settlement again", session.run(Until::Settled)).await, Ended::Reached));
    assert_eq!(rig.gate.state().sums, log.sums);
    running.stop().await;
}

#[tokio::test]
async fn redis_disappears_again_and_again_under_load() {
    let mut rig = Rig::new().await;
    let running = rig.start().await;
    let mut log = Log::new(rig.gate.producer());
    log.fill(14, 2000);
    let epoch = open(running.address, log.producer).await.unwrap();
    let address = running.address;
    let delivery = async {
        let mut session = Session::begin(&log, address, epoch).await.unwrap();
        let ended = session.run(Until::Settled).await;
        assert!(matches!(ended, Ended::Reached), "{ended:?}");
    };
    let gate = rig.gate.clone();
    let damage = async {
        for _ in 0..8 {
            gate.asked().await;
            rig.flush_all().await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = soon("settlement", delivery) => {}
        () = damage => {}
    }
    assert_eq!(rig.gate.state().sums, log.sums);
    running.stop().await;
}
