//! Writes whose outcome nobody knows, and limits that are reached.

use drawdown_metering::config::{Options, SettleOptions};
use drawdown_service::config::{Count, Millis};
use redis::AsyncCommands as _;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    gate::Mode,
    producer::{Ended, Log, Session, Until, clients_of_all_shards, open},
    proxy::{Line, Proxy},
    rig::{Rig, Running, SHARDS, soon},
};

pub(crate) fn through(rig: &Rig, proxy: &Proxy) -> Options {
    let mut options = rig.options();
    // The user and password of the server's url stay: only the way there is another one.
    let login = rig.redis_url().split_once('@').map_or("redis:/", |(login, _)| login);
    let at = if login == "redis:/" { '/' } else { '@' };
    options.redis.url = format!("{login}{at}{}", proxy.address).into();
    options.redis.response_timeout_ms = Millis::from_millis(150);
    options.flush.retry_pause_ms = Millis::from_millis(1);
    options.flush.retry_pause_max_ms = Millis::from_millis(20);
    options
}

/// Whether a write was ever without an answer.
fn doubts(running: &Running) -> bool {
    running.telemetry.scrape().unwrap().contains("cause=\"no_answer\"")
}

pub(crate) async fn server_of(rig: &Rig) -> std::net::SocketAddr {
    let url = rig.redis_url();
    let host = url.trim_start_matches("redis://").split('@').next_back().unwrap().trim_end_matches('/');
    tokio::net::lookup_host(host.split('/').next().unwrap()).await.unwrap().next().unwrap()
}

#[tokio::test]
async fn replies_that_are_lost_change_no_sum() {
    let rig = Rig::new().await;
    let proxy = Proxy::to(server_of(&rig).await).await;
    let running = rig.start_with(through(&rig, &proxy)).await;
    let mut log = Log::new(rig.gate.producer());
    let epoch = open(running.address, log.producer).await.unwrap();
    for round in 0..6 {
        log.fill(u64::from(round), 30);
        proxy.set(Line::NoReplies(round + 1));
        let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
        assert!(matches!(soon("settlement", session.run(Until::Settled)).await, Ended::Reached));
        assert_eq!(rig.gate.state().sums, log.sums, "round {round}");
    }
    assert!(doubts(&running), "nothing was in doubt");
    running.stop().await;
}

#[tokio::test]
async fn writes_that_come_late_change_nothing() {
    let rig = Rig::new().await;
    let proxy = Proxy::to(server_of(&rig).await).await;
    let running = rig.start_with(through(&rig, &proxy)).await;
    let mut log = Log::new(rig.gate.producer());
    let epoch = open(running.address, log.producer).await.unwrap();
    for round in 0..4 {
        log.fill(round, 40);
        rig.gate.set_mode(Mode::Down);
        // What is written from here on waits on its way; after the time-out it is written again by another
        // connection, and then the first one arrives.
        proxy.set(Line::Held);
        let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
        assert!(matches!(soon("applied", session.run(Until::Applied)).await, Ended::Reached));
        proxy.set(Line::Open);
        rig.gate.set_mode(Mode::Open);
        assert!(matches!(soon("settlement", session.run(Until::Settled)).await, Ended::Reached));
        assert_eq!(rig.gate.state().sums, log.sums, "round {round}");
    }
    assert!(doubts(&running), "nothing was in doubt");
    running.stop().await;
}

#[tokio::test]
async fn a_full_batch_slows_its_streams_and_loses_nothing() {
    let rig = Rig::new().await;
    let mut options = rig.options();
    options.flush.batch_blobs_max = Count::of(2);
    options.settle.sealed_batches_max = Count::of(2);
    options.ingest.shard_counters_max = Count::of(3);
    options.flush.retry_pause_max_ms = Millis::from_millis(20);
    let running = rig.start_with(options).await;
    rig.gate.set_mode(Mode::Down);
    let mut log = Log::new(rig.gate.producer());
    log.fill(2, 400);
    let posts = async {
        for _ in 0..12 * SHARDS {
            rig.gate.asked().await;
        }
    };
    let epoch = open(running.address, log.producer).await.unwrap();
    let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
    tokio::select! {
        ended = session.run(Until::Applied) => panic!("nothing held it back: {ended:?}"),
        () = soon("posts", posts) => {}
    }
    rig.gate.set_mode(Mode::Open);
    assert!(matches!(soon("settlement", session.run(Until::Settled)).await, Ended::Reached));
    assert_eq!(rig.gate.state().sums, log.sums);
    assert_eq!(rig.gate.resets(), u64::from(SHARDS));
    running.stop().await;
}

#[tokio::test]
async fn full_batches_are_sealed_while_the_ledger_answers_nothing() {
    let mut rig = Rig::new().await;
    let mut options = rig.options();
    options.flush.batch_blobs_max = Count::of(2);
    options.settle.sealed_batches_max = Count::of(3);
    options.ingest.shard_counters_max = Count::of(3);
    options.flush.retry_pause_max_ms = Millis::from_millis(20);
    let running = rig.start_with(options).await;
    let mut log = Log::new(rig.gate.producer());
    for client in 0..400 {
        log.append(&format!("client-{client}"), "web.byte", &[client]);
    }
    let epoch = open(running.address, log.producer).await.unwrap();
    let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
    while session.applied.len() < log.lanes.len() {
        assert!(soon("attach", session.next()).await.is_none());
    }
    rig.gate.set_mode(Mode::Gone);
    let heads: Vec<String> = (0..SHARDS).map(|shard| rig.keys.head(shard)).collect();
    // One shard that is full keeps its stream from all others.
    let sealed = async {
        let mut most = 0;
        while most < 3 {
            for head in &heads {
                let fields: Vec<String> = rig.redis.hkeys(head).await.unwrap();
                most = most.max(fields.iter().filter(|field| field.starts_with("s:")).count());
            }
        }
    };
    tokio::select! {
        ended = session.run(Until::Applied) => panic!("nothing held it back: {ended:?}"),
        () = soon("seals", sealed) => {}
    }
    rig.gate.set_mode(Mode::Open);
    assert!(matches!(soon("settlement", session.run(Until::Settled)).await, Ended::Reached));
    assert_eq!(rig.gate.state().sums, log.sums);
    running.stop().await;
}

#[tokio::test]
async fn a_batch_with_too_many_lines_is_posted_in_parts() {
    in_parts(|settle| settle.post_lines_max = Count::of(2)).await;
}

#[tokio::test]
async fn a_batch_with_too_many_bytes_is_posted_in_parts() {
    in_parts(|settle| settle.post_bytes_max = Count::of(1200)).await;
}

async fn in_parts(limit: impl FnOnce(&mut SettleOptions)) {
    let rig = Rig::new().await;
    let mut options = rig.options();
    options.ingest.frame_events_max = Count::of(1);
    limit(&mut options.settle);
    options.flush.pause_ms = Millis::from_millis(1);
    options.ingest.shard_counters_max = Count::of(1);
    let running = rig.start_with(options).await;
    rig.gate.set_mode(Mode::Down);
    let mut log = Log::new(rig.gate.producer());
    for n in 0..120 {
        log.append(&format!("client-{}", n % 40), "web.byte", &[n]);
    }
    let epoch = open(running.address, log.producer).await.unwrap();
    let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
    assert!(matches!(soon("applied", session.run(Until::Applied)).await, Ended::Reached));
    rig.gate.set_mode(Mode::Open);
    assert!(matches!(soon("settlement", session.run(Until::Settled)).await, Ended::Reached));
    assert_eq!(rig.gate.state().sums, log.sums);
    assert!(rig.gate.resets() > 0, "it fitted into one");
    running.stop().await;
}

#[tokio::test]
async fn streams_and_lanes_are_bounded() {
    let rig = Rig::new().await;
    let mut options = rig.options();
    options.ingest.streams_max = Count::of(2);
    options.ingest.lanes_per_stream_max = Count::of(2);
    options.ingest.lanes_per_shard_max = Count::of(1);
    let running = rig.start_with(options).await;
    let clients = clients_of_all_shards();
    let mut log = Log::new(rig.gate.producer());
    log.append(&clients[0], "web.call", &[1]);
    let epoch = open(running.address, log.producer).await.unwrap();
    let mut first = Session::begin(&log, running.address, epoch).await.unwrap();
    assert!(matches!(soon("settlement", first.run(Until::Settled)).await, Ended::Reached));

    let mut other = Log::new(rig.gate.producer());
    other.append(&clients[0], "web.call", &[1]);
    let other_epoch = open(running.address, other.producer).await.unwrap();
    let mut second = Session::begin(&other, running.address, other_epoch).await.unwrap();
    let Ended::Stopped(stopped) = soon("stop", second.run(Until::Settled)).await else { panic!() };
    assert_eq!(stopped.reason, "LANES_EXHAUSTED");

    let Err(status) = Session::begin(&other, running.address, other_epoch).await else { panic!() };
    let details = status.get_error_details();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(details.error_info().unwrap().reason, "STREAMS_EXHAUSTED");
    assert!(details.retry_info().is_some());
    drop(second);

    let mut wide = Log::new(log.producer);
    for client in &clients {
        wide.append(client, "web.call", &[1]);
    }
    let wide_epoch = open(running.address, wide.producer).await.unwrap();
    drop(first);
    let ended = soon("end", async {
        // The places of the streams before are given back a moment after they ended.
        loop {
            match Session::begin(&wide, running.address, wide_epoch).await {
                Ok(mut session) => break session.run(Until::Settled).await,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    let Ended::Closed(Some(status)) = ended.await else { panic!() };
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "LANES_EXHAUSTED");
    running.stop().await;
}
