//! What happens to a Redis of flesh and blood: memory and disk run out, its log loses its end, an old backup comes back,
//! and two of them hold the same shards.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use drawdown_service::config::Millis;
use drawdown_testkit::RedisServer;
use redis::AsyncCommands as _;

use crate::{
    gate::Mode,
    producer::{Ended, Log, Session, Until, deliver, open, sums_of},
    rig::{Rig, Running, SHARDS, soon},
};

async fn on_its_own() -> (Rig, RedisServer, Running) {
    let server = drawdown_testkit::redis_server(&[]).await.unwrap();
    let rig = Rig::on_server(server.url()).await;
    let mut options = rig.options();
    options.redis.response_timeout_ms = Millis::from_millis(1000);
    options.flush.retry_pause_max_ms = Millis::from_millis(50);
    let running = rig.start_with(options).await;
    (rig, server, running)
}

/// Waits until Redis was asked in vain.
async fn until_in_vain(running: &Running) {
    let count = || {
        let page = running.telemetry.scrape().unwrap();
        page.lines()
            .filter(|line| line.contains("metering_redis_errors"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let before = count();
    let asked = async {
        while count() == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("an error", asked).await;
}

#[tokio::test]
async fn where_memory_runs_out_what_is_applied_settles_and_new_events_wait() {
    let (rig, server, running) = on_its_own().await;
    rig.gate.set_mode(Mode::Down);
    let mut log = Log::new(rig.gate.producer());
    log.fill(1, 60);
    soon("applied", deliver(&log, running.address, Until::Applied)).await;
    // Less than an empty server needs.
    server.command("CONFIG SET maxmemory 100kb").unwrap();
    rig.gate.set_mode(Mode::Open);
    let settled = async {
        while rig.gate.state().sums != log.sums {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("settlement of what was applied", settled).await;
    let before = log.sums.clone();
    log.fill(2, 60);
    let epoch = open(running.address, log.producer).await.unwrap();
    let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
    tokio::select! {
        ended = session.run(Until::Applied) => panic!("nothing held it back: {ended:?}"),
        () = until_in_vain(&running) => {}
    }
    assert_eq!(rig.gate.state().sums, before);
    server.command("CONFIG SET maxmemory 0").unwrap();
    assert!(matches!(soon("settlement", session.run(Until::Settled)).await, Ended::Reached));
    assert_eq!(rig.gate.state().sums, log.sums);
    assert_eq!(rig.gate.resets(), u64::from(SHARDS), "nothing was lost");
    running.stop().await;
}

#[tokio::test]
async fn where_the_disk_is_full_events_wait_and_nothing_is_lost() {
    let (rig, server, running) = on_its_own().await;
    let mut log = Log::new(rig.gate.producer());
    log.fill(0, 40);
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    let room = logs(&server).iter().map(|log| std::fs::metadata(log).unwrap().len()).max().unwrap() + 40_000;
    server.limit_files(Some(room)).unwrap();
    server.kill9().unwrap();
    server.start().unwrap();
    // It stops rather than acknowledge what it can not write.
    let mut seed = 0;
    while server.command("PING").is_ok() {
        seed += 1;
        log.fill(seed, 100);
        let epoch = open(running.address, log.producer).await.unwrap();
        let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
        let _applied = tokio::time::timeout(Duration::from_secs(2), session.run(Until::Applied)).await;
        assert!(seed < 200, "the disk is not full");
    }
    server.limit_files(None).unwrap();
    server.start().unwrap();
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    assert_eq!(rig.gate.state().sums, log.sums);
    running.stop().await;
}

/// The files of the append-only log.
fn logs(server: &RedisServer) -> Vec<PathBuf> {
    let folder = server.data_dir().unwrap().join("appendonlydir");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn is_growing(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "aof")
}

#[tokio::test]
async fn the_end_of_the_log_is_cut_off() {
    for settled in [false, true] {
        let (rig, server, running) = on_its_own().await;
        let mut log = Log::new(rig.gate.producer());
        log.fill(1, 40);
        soon("settlement", deliver(&log, running.address, Until::Settled)).await;
        if !settled {
            rig.gate.set_mode(Mode::Down);
        }
        log.fill(2, 60);
        let until = if settled { Until::Settled } else { Until::Applied };
        soon("the end", deliver(&log, running.address, until)).await;
        server.kill9().unwrap();
        let growing = logs(&server).into_iter().find(|file| is_growing(file)).unwrap();
        let file = std::fs::File::options().write(true).open(&growing).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2 + 7).unwrap();
        server.start().unwrap();
        rig.gate.set_mode(Mode::Open);
        log.fill(3, 20);
        soon("settlement", deliver(&log, running.address, Until::Settled)).await;
        assert_eq!(rig.gate.state().sums, log.sums);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_backup_of_before_is_put_back() {
    let (rig, server, running) = on_its_own().await;
    let mut log = Log::new(rig.gate.producer());
    log.fill(1, 40);
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    let backup: Vec<(PathBuf, Vec<u8>)> =
        logs(&server).into_iter().map(|file| (file.clone(), std::fs::read(file).unwrap())).collect();
    log.fill(2, 60);
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    let resets = rig.gate.resets();
    server.kill9().unwrap();
    for (file, content) in &backup {
        // In place: the server's user owns it.
        std::fs::write(file, content).unwrap();
    }
    server.start().unwrap();
    log.fill(3, 20);
    soon("settlement", deliver(&log, running.address, Until::Settled)).await;
    assert_eq!(rig.gate.state().sums, log.sums);
    assert!(rig.gate.resets() > resets, "the backup was taken as it was");
    running.stop().await;
}

#[tokio::test]
async fn two_servers_hold_the_same_shards_and_both_seal() {
    let (mut rig, _server, one) = on_its_own().await;
    let mut logs = [Log::new(rig.gate.producer()), Log::new(rig.gate.producer())];
    for (seed, log) in (1..).zip(&mut logs) {
        log.fill(seed, 40);
        soon("settlement", deliver(log, one.address, Until::Settled)).await;
    }
    // A replica that became a master while the first one lives on.
    let other = drawdown_testkit::redis_server(&[]).await.unwrap();
    let client = redis::Client::open(other.url()).unwrap();
    let mut raw = client.get_multiplexed_async_connection().await.unwrap();
    for key in rig.all_keys().await.into_iter().filter(|key| !key.ends_with(":w")) {
        let dump: Vec<u8> = redis::cmd("DUMP").arg(&key).query_async(&mut rig.redis).await.unwrap();
        let _: () = redis::cmd("RESTORE").arg(&key).arg(0).arg(dump).query_async(&mut raw).await.unwrap();
    }
    let mut options = rig.options();
    options.redis.url = other.url().into();
    let two = rig.start_with(options).await;
    rig.gate.set_mode(Mode::Down);
    let mut used: Vec<BTreeSet<u32>> = Vec::new();
    for (seed, (log, instance)) in (3..).zip(logs.iter_mut().zip([&one, &two])) {
        let before = log.ends();
        log.fill(seed, 60);
        let grown = log.ends().into_iter().filter(|(lane, end)| before.get(lane) != Some(end));
        used.push(grown.map(|(lane, _)| lane.shard).collect());
        soon("applied", deliver(log, instance.address, Until::Applied)).await;
    }
    assert!(!used[0].is_disjoint(&used[1]), "no shard is used on both sides: {used:?}");
    for (raw, shards) in [&mut rig.redis, &mut raw].into_iter().zip(&used) {
        for shard in shards {
            // The batch after the last settled one.
            let head = rig.keys.head(*shard);
            let sealed = async {
                while !raw.hkeys::<_, Vec<String>>(&head).await.unwrap().iter().any(|f| f.starts_with("s:")) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            soon("a seal", sealed).await;
        }
    }
    rig.gate.set_mode(Mode::Open);
    let resets = rig.gate.resets();
    let refused = async {
        while rig.gate.resets() == resets {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("a reset", refused).await;
    // The first one is gone for good; its producer goes on with the other.
    one.stop().await;
    for log in &logs {
        soon("settlement", deliver(log, two.address, Until::Settled)).await;
    }
    assert_eq!(rig.gate.state().sums, sums_of(&logs));
    two.stop().await;
}
