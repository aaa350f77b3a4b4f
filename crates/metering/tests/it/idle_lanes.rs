//! Lanes that nobody uses leave the heads, their producers return, and every event is counted once.

use std::{collections::BTreeMap, time::Duration};

use drawdown_metering::config::Options;
use drawdown_service::config::Millis;
use redis::AsyncCommands as _;
use tokio::task::JoinSet;

use crate::{
    doubt::{server_of, through},
    producer::{Ended, Log, Session, Until, clients_of_all_shards, deliver, open, sums_of},
    proxy::{Line, Proxy},
    rig::{Rig, Running, SHARDS, soon},
};

/// Lanes leave as soon as they are at rest.
fn hasty(mut options: Options) -> Options {
    options.settle.lanes_idle_ms = Millis::from_millis(1);
    options.settle.lanes_interval_ms = Millis::from_millis(5);
    options
}

/// The fields of each head that are there.
async fn heads(rig: &mut Rig) -> BTreeMap<u32, Vec<String>> {
    let mut heads = BTreeMap::new();
    for shard in 0..SHARDS {
        heads.insert(shard, rig.redis.hkeys(rig.keys.head(shard)).await.unwrap());
    }
    heads
}

async fn lanes(rig: &mut Rig) -> usize {
    heads(rig).await.values().flatten().filter(|field| field.starts_with("p:")).count()
}

async fn until_lanes_are(rig: &mut Rig, wanted: usize) {
    let gone = async {
        while lanes(rig).await != wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the retirement", gone).await;
}

fn wide(log: &mut Log, quantities: &[u64]) {
    for client in clients_of_all_shards() {
        log.append(&client, "web.byte", quantities);
    }
}

fn retired(running: &Running) -> u64 {
    let text = running.telemetry.scrape().unwrap();
    let sample = text.lines().find(|line| line.starts_with("drawdown_metering_lanes_retired_total"));
    sample.and_then(|line| line.rsplit(' ').next()).map_or(0, |count| count.parse().unwrap())
}

/// A retirement is counted a moment after it.
async fn until_retired(running: &Running, lanes: u64) {
    let counted = async {
        while retired(running) < lanes {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the count of retired lanes", counted).await;
}

#[tokio::test]
async fn a_producer_returns_with_new_events_and_with_its_old_log() {
    let mut rig = Rig::new().await;
    let running = rig.start_with(hasty(rig.options())).await;
    let mut log = Log::new(rig.gate.producer());
    for round in 0..3 {
        wide(&mut log, &[round + 1, 2, 3]);
        soon("settlement", deliver(&log, running.address, Until::Settled)).await;
        until_lanes_are(&mut rig, 0).await;
    }
    until_retired(&running, 3 * u64::from(SHARDS)).await;
    // All frames again, wherever the service says that the lanes stand.
    wide(&mut log, &[9]);
    let epoch = open(running.address, log.producer).await.unwrap();
    let mut session = Session::begin(&log, running.address, epoch).await.unwrap();
    while session.applied.len() < log.lanes.len() {
        assert!(soon("attach", session.next()).await.is_none());
    }
    for frame in log.lanes.values().flatten() {
        session.send(frame).await;
    }
    assert!(matches!(soon("settlement", session.run(Until::Settled)).await, Ended::Reached));
    drop(session);
    until_lanes_are(&mut rig, 0).await;
    assert_eq!(rig.gate.state().sums, log.sums);
    assert_eq!(rig.gate.resets(), u64::from(SHARDS), "only the first head of each shard");
    running.stop().await;
}

#[tokio::test]
async fn lanes_leave_while_streams_send_at_two_instances() {
    let rig = Rig::new().await;
    let (one, two) = (rig.start_with(hasty(rig.options())).await, rig.start_with(hasty(rig.options())).await);
    let mut logs: Vec<Log> = (0..4).map(|_| Log::new(rig.gate.producer())).collect();
    for round in 0..6 {
        for log in &mut logs {
            wide(log, &[round + 1, 5]);
            log.fill(round, 5);
        }
        let [a, b, c, d] = logs.as_slice() else { panic!() };
        let all = async {
            tokio::join!(
                deliver(a, one.address, Until::Settled),
                deliver(b, two.address, Until::Settled),
                deliver(c, if round % 2 == 0 { one.address } else { two.address }, Until::Settled),
                deliver(d, if round % 2 == 0 { two.address } else { one.address }, Until::Settled),
            )
        };
        soon("settlement", Box::pin(all)).await;
        assert_eq!(rig.gate.state().sums, sums_of(&logs), "round {round}");
    }
    assert!(retired(&one) + retired(&two) > 0);
    assert_eq!(rig.gate.resets(), u64::from(SHARDS), "no retirement costs a reset");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn calls_that_come_after_the_retirement_change_nothing() {
    let mut rig = Rig::new().await;
    let proxy = Proxy::to(server_of(&rig).await).await;
    let running = rig.start_with(hasty(through(&rig, &proxy))).await;
    let mut log = Log::new(rig.gate.producer());
    for round in 0..4 {
        wide(&mut log, &[round + 1, 7]);
        // Attachments and blobs from here on wait on their way. They are made again over another connection, the lanes
        // are settled and leave; then what was held up arrives.
        proxy.set(Line::Held);
        soon("settlement", deliver(&log, running.address, Until::Settled)).await;
        until_lanes_are(&mut rig, 0).await;
        proxy.set(Line::Open);
        wide(&mut log, &[round + 2]);
        soon("settlement", deliver(&log, running.address, Until::Settled)).await;
        until_lanes_are(&mut rig, 0).await;
        assert_eq!(rig.gate.state().sums, log.sums, "round {round}");
    }
    assert_eq!(rig.gate.resets(), u64::from(SHARDS), "no lane was set back");
    running.stop().await;
}

#[tokio::test]
async fn redis_is_emptied_between_the_retirement_and_the_return() {
    let mut rig = Rig::new().await;
    let running = rig.start_with(hasty(rig.options())).await;
    let mut logs = [Log::new(rig.gate.producer()), Log::new(rig.gate.producer())];
    for log in &mut logs {
        wide(log, &[1, 2, 3]);
        soon("settlement", deliver(log, running.address, Until::Settled)).await;
    }
    until_lanes_are(&mut rig, 0).await;
    rig.flush_all().await;
    let renewed = async {
        while rig.gate.resets() < 2 * u64::from(SHARDS) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the reset", renewed).await;
    assert_eq!(lanes(&mut rig).await, 0, "a new head has no lanes");
    wide(&mut logs[0], &[4]);
    soon("settlement", deliver(&logs[0], running.address, Until::Settled)).await;
    // The other one has nothing new: it hears that all is settled.
    soon("settlement", deliver(&logs[1], running.address, Until::Settled)).await;
    assert_eq!(rig.gate.state().sums, sums_of(&logs));
    assert_eq!(rig.gate.resets(), 2 * u64::from(SHARDS));
    running.stop().await;
}

#[tokio::test]
async fn heads_stay_small_however_many_producers_came_once() {
    const PRODUCERS: u64 = 60;
    let mut rig = Rig::new().await;
    let running = rig.start_with(hasty(rig.options())).await;
    let (mut logs, mut deliveries) = (Vec::new(), JoinSet::new());
    for number in 0..PRODUCERS {
        let mut log = Log::new(rig.gate.producer());
        wide(&mut log, &[number, 1]);
        let (address, sent) = (running.address, log.clone());
        deliveries.spawn(async move { deliver(&sent, address, Until::Settled).await });
        logs.push(log);
    }
    soon("settlement", deliveries.join_all()).await;
    until_lanes_are(&mut rig, 0).await;
    for (shard, fields) in heads(&mut rig).await {
        assert!(fields.len() <= 8, "shard {shard}: {fields:?}");
    }
    until_retired(&running, PRODUCERS * u64::from(SHARDS)).await;
    let told = async {
        let is_told = |page: String| {
            (0..SHARDS)
                .all(|shard| page.contains(&format!("drawdown_metering_lanes{{shard=\"{shard}\"}} 0\n")))
        };
        // Nor are they read from the ledger any more, which has them all.
        while !is_told(running.telemetry.scrape().unwrap()) || rig.gate.lanes_told() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the gauge of lanes in heads", told).await;
    let kept: usize = rig.gate.state().places().values().map(|place| place.2.len()).sum();
    assert_eq!(kept, usize::try_from(PRODUCERS * u64::from(SHARDS)).unwrap());
    assert_eq!(rig.gate.state().sums, sums_of(&logs));
    assert_eq!(rig.gate.resets(), u64::from(SHARDS));
    running.stop().await;
}

#[tokio::test]
async fn a_lane_that_a_stream_has_stays() {
    let mut rig = Rig::new().await;
    let mut options = hasty(rig.options());
    options.settle.lanes_idle_ms = Millis::from_millis(2000);
    let running = rig.start_with(options).await;
    let (mut quiet, mut gone) = (Log::new(rig.gate.producer()), Log::new(rig.gate.producer()));
    wide(&mut quiet, &[1]);
    wide(&mut gone, &[2]);
    let epoch = open(running.address, quiet.producer).await.unwrap();
    let mut session = Session::begin(&quiet, running.address, epoch).await.unwrap();
    assert!(matches!(soon("settlement", session.run(Until::Settled)).await, Ended::Reached));
    soon("settlement", deliver(&gone, running.address, Until::Settled)).await;
    assert_eq!(lanes(&mut rig).await, 2 * clients_of_all_shards().len());
    // The lanes of the other one were used later, and leave.
    until_lanes_are(&mut rig, clients_of_all_shards().len()).await;
    let left = format!(".{}", quiet.producer.as_uuid().simple());
    let fields = heads(&mut rig).await;
    assert!(
        fields.values().flatten().filter(|field| field.starts_with("p:")).all(|field| field.ends_with(&left))
    );
    assert_eq!(session.rewound, 0);
    running.stop().await;
}
