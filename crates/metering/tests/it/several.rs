//! More of Redis than one server: masters of a cluster, and a master that sentinels name.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use drawdown_metering::config::{Options, RedisMode};
use drawdown_service::config::{Millis, Secret};
use drawdown_testkit::{RedisCluster, RedisSentinels, RedisServer};

use crate::{
    gate::Gate,
    producer::{Ended, Log, Session, Until, deliver, open, sums_of},
    rig::{Rig, Running, SHARDS, soon},
};

const DOWN_AFTER: Duration = Duration::from_millis(500);

fn urls(servers: &[RedisServer]) -> Vec<Secret> {
    servers.iter().map(|server| server.url().into()).collect()
}

async fn in_cluster() -> (Rig, Arc<RedisCluster>) {
    let cluster = drawdown_testkit::redis_cluster(3).await.unwrap();
    (Rig::on_server(cluster.nodes()[0].url()).await, Arc::new(cluster))
}

fn of_cluster(rig: &Rig, cluster: &RedisCluster) -> Options {
    let mut options = rig.options();
    options.redis.mode = RedisMode::Cluster;
    // One node tells the others.
    options.redis.urls = urls(&cluster.nodes()[1..2]);
    quick(options)
}

fn quick(mut options: Options) -> Options {
    options.redis.response_timeout_ms = Millis::from_millis(1000);
    options.flush.retry_pause_max_ms = Millis::from_millis(100);
    options
}

/// The node that has the head of a shard.
fn holder(rig: &Rig, cluster: &RedisCluster, shard: u32) -> usize {
    let command = format!("EXISTS {}", rig.keys.head(shard));
    let has = |node: &RedisServer| node.command(&command).is_ok_and(|answer| answer.starts_with(":1"));
    cluster.nodes().iter().position(has).unwrap()
}

/// Appends and delivers again and again until told to stop; answers what was appended.
async fn keep_sending(mut log: Log, running: &Running, enough: &AtomicBool) -> Log {
    let mut seed = 0;
    while !enough.load(Ordering::Relaxed) {
        seed += 1;
        log.fill(seed, 20);
        settle(&log, running).await;
    }
    log.fill(seed + 1, 20);
    settle(&log, running).await;
    log
}

/// As a producer does it: another stream where one ends.
async fn settle(log: &Log, running: &Running) {
    let settled = async {
        loop {
            let epoch = open(running.address, log.producer).await.unwrap();
            let mut session = Session::begin(log, running.address, epoch).await.unwrap();
            match session.run(Until::Settled).await {
                Ended::Reached => return,
                Ended::Closed(_) => {}
                Ended::Stopped(stopped) => panic!("{stopped:?}"),
            }
        }
    };
    soon("settlement", settled).await;
}

/// Waits on a thread of its own.
fn wait(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "{what} took too long");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Waits until the service has tried something.
fn until_tried(gate: &Gate, telemetry: &drawdown_service::Telemetry) {
    let errors = || {
        let page = telemetry.scrape().unwrap();
        let lines = page.lines().filter(|line| line.contains("metering_redis_errors"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let (posts, before) = (gate.posts(), errors());
    wait("a try", || gate.posts() >= posts + 4 || errors() != before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_are_spread_over_the_masters_of_a_cluster() {
    let (rig, cluster) = in_cluster().await;
    let (one, two) =
        (rig.start_with(of_cluster(&rig, &cluster)).await, rig.start_with(of_cluster(&rig, &cluster)).await);
    let mut logs = [Log::new(rig.gate.producer()), Log::new(rig.gate.producer())];
    logs[0].fill(1, 200);
    logs[1].fill(1, 150);
    let both = async {
        tokio::join!(
            deliver(&logs[0], one.address, Until::Settled),
            deliver(&logs[1], two.address, Until::Settled)
        )
    };
    soon("settlement", both).await;
    assert_eq!(rig.gate.state().sums, sums_of(&logs));
    assert_eq!(rig.gate.resets(), u64::from(SHARDS), "only the first head of each shard");
    let mut holders: Vec<usize> = (0..SHARDS).map(|shard| holder(&rig, &cluster, shard)).collect();
    holders.sort_unstable();
    holders.dedup();
    assert_eq!(holders, [0, 1, 2]);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_moves_to_another_master_while_events_flow() {
    let (rig, cluster) = in_cluster().await;
    let running = rig.start_with(of_cluster(&rig, &cluster)).await;
    let mut log = Log::new(rig.gate.producer());
    log.fill(0, 40);
    settle(&log, &running).await;
    let resets = rig.gate.resets();
    let from = holder(&rig, &cluster, 0);
    let to = (from + 1) % 3;
    let slot = cluster.nodes()[0].command(&format!("CLUSTER KEYSLOT {}", rig.keys.head(0))).unwrap();
    let slot: u16 = slot.trim().trim_start_matches(':').parse().unwrap();
    let (gate, telemetry, nodes) = (rig.gate.clone(), running.telemetry.clone(), Arc::clone(&cluster));
    let enough = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&enough);
    let moving = tokio::task::spawn_blocking(move || {
        let moved = nodes
            .move_slot(slot, from, to, || until_tried(&gate, &telemetry))
            .and_then(|()| nodes.move_slot(slot, to, from, || until_tried(&gate, &telemetry)))
            .and_then(|()| nodes.move_slot(slot, from, to, || ()));
        done.store(true, Ordering::Relaxed);
        moved
    });
    let log = keep_sending(log, &running, &enough).await;
    moving.await.unwrap().unwrap();
    assert_eq!(holder(&rig, &cluster, 0), to);
    assert_eq!(rig.gate.state().sums, log.sums);
    assert_eq!(rig.gate.resets(), resets, "nothing was lost on the way");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_of_a_cluster_is_killed_and_comes_back() {
    let (rig, cluster) = in_cluster().await;
    let running = rig.start_with(of_cluster(&rig, &cluster)).await;
    let mut log = Log::new(rig.gate.producer());
    log.fill(0, 40);
    settle(&log, &running).await;
    let (nodes, gate, telemetry) = (Arc::clone(&cluster), rig.gate.clone(), running.telemetry.clone());
    let enough = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&enough);
    let killing = tokio::task::spawn_blocking(move || {
        until_tried(&gate, &telemetry);
        for node in nodes.nodes() {
            node.kill9().unwrap();
            until_tried(&gate, &telemetry);
            node.start().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let log = keep_sending(log, &running, &enough).await;
    killing.await.unwrap();
    assert_eq!(rig.gate.state().sums, log.sums);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_library_is_loaded_where_a_master_has_lost_it() {
    let (rig, cluster) = in_cluster().await;
    let running = rig.start_with(of_cluster(&rig, &cluster)).await;
    let mut log = Log::new(rig.gate.producer());
    log.fill(1, 40);
    settle(&log, &running).await;
    for node in cluster.nodes() {
        for command in ["FLUSHALL", "FUNCTION FLUSH"] {
            assert_eq!(node.command(command).unwrap(), "+OK\r\n");
        }
    }
    log.fill(2, 40);
    settle(&log, &running).await;
    assert_eq!(rig.gate.state().sums, log.sums);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unsafe_master_of_a_cluster_is_refused_by_name() {
    let (rig, cluster) = in_cluster().await;
    let wrong = &cluster.nodes()[2];
    wrong.command("CONFIG SET maxmemory-policy allkeys-lru").unwrap();
    let (context, _) = rig.context();
    let config = of_cluster(&rig, &cluster).validate().unwrap();
    let refused = format!("{:#}", drawdown_metering::run(config, context).await.unwrap_err());
    let address = wrong.url().split('@').next_back().unwrap();
    assert!(refused.contains(address) && refused.contains("maxmemory-policy"), "{refused}");
}

fn of_sentinels(rig: &Rig, sentinels: &RedisSentinels) -> Options {
    let mut options = rig.options();
    options.redis.mode = RedisMode::Sentinel;
    options.redis.urls = urls(sentinels.sentinels());
    sentinels.master_name().clone_into(&mut options.redis.sentinel_master);
    quick(options)
}

async fn with_sentinels() -> (Rig, Arc<RedisSentinels>) {
    let sentinels = drawdown_testkit::redis_sentinels(DOWN_AFTER).await.unwrap();
    (Rig::on_server(sentinels.servers()[0].url()).await, Arc::new(sentinels))
}

fn is_master(server: &RedisServer) -> bool {
    server.command("ROLE").is_ok_and(|role| role.contains("master"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_dies_with_events_in_flight_and_a_replica_takes_over() {
    let (rig, sentinels) = with_sentinels().await;
    let running = rig.start_with(of_sentinels(&rig, &sentinels)).await;
    let mut log = Log::new(rig.gate.producer());
    log.fill(0, 40);
    settle(&log, &running).await;
    let (servers, gate, telemetry) = (Arc::clone(&sentinels), rig.gate.clone(), running.telemetry.clone());
    let enough = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&enough);
    let killing = tokio::task::spawn_blocking(move || {
        let [first, second] = servers.servers() else { panic!() };
        until_tried(&gate, &telemetry);
        first.kill9().unwrap();
        wait("the failover", || is_master(second));
        until_tried(&gate, &telemetry);
        // The old master comes back as a replica, and whoever still writes to it is refused.
        first.start().unwrap();
        wait("the return of the first", || !is_master(first));
        done.store(true, Ordering::Relaxed);
    });
    let log = keep_sending(log, &running, &enough).await;
    killing.await.unwrap();
    assert!(is_master(&sentinels.servers()[1]));
    assert_eq!(rig.gate.state().sums, log.sums);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lacks_the_latest_takes_over() {
    let (rig, sentinels) = with_sentinels().await;
    let [first, second] = sentinels.servers() else { panic!() };
    let running = rig.start_with(of_sentinels(&rig, &sentinels)).await;
    let mut log = Log::new(rig.gate.producer());
    log.fill(1, 40);
    settle(&log, &running).await;
    let resets = rig.gate.resets();
    // It loses its master and can not sign in again.
    second.command("CONFIG SET masterauth wrong").unwrap();
    second.command("CLIENT KILL TYPE master").unwrap();
    log.fill(2, 40);
    settle(&log, &running).await;
    log.fill(3, 40);
    soon("applied", deliver(&log, running.address, Until::Applied)).await;
    first.kill9().unwrap();
    settle(&log, &running).await;
    assert!(is_master(second));
    assert_eq!(rig.gate.state().sums, log.sums);
    assert!(rig.gate.resets() > resets, "the new master had everything");
    running.stop().await;
}
