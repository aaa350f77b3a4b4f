//! Several instances share the shards: each is looked at by one of them, and others step in for one that is gone.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use drawdown_metering::config::Options;
use drawdown_service::config::Millis;
use tokio::{runtime::Runtime, time::Instant};

use crate::{
    producer::{Log, Until, deliver, sums_of},
    rig::{Rig, SHARDS, soon},
};

const LEASE: Duration = Duration::from_millis(600);
/// What a machine that is busy with other tests may add to any time.
const SLACK: Duration = Duration::from_secs(5);

fn options(rig: &Rig) -> Options {
    let mut options = rig.options();
    options.settle.lease_ms = Millis::from_millis(600);
    options
}

/// An instance with a runtime of its own, so that nothing of it is left when it is killed.
struct Apart {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Apart {
    async fn start(rig: &Rig) -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let (context, mut bound) = rig.context();
        let config = options(rig).validate().unwrap();
        runtime.spawn(drawdown_metering::run(config, context));
        let address = soon("start", bound.wait()).await.unwrap().grpc;
        Self { address, runtime: Some(runtime) }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// How many leases each token has, in order.
async fn held(rig: &mut Rig) -> Vec<u32> {
    let mut by_token: BTreeMap<String, u32> = BTreeMap::new();
    for shard in 0..SHARDS {
        let key = rig.keys.lease(shard);
        let token: Option<String> = redis::cmd("GET").arg(key).query_async(&mut rig.redis).await.unwrap();
        if let Some((token, _end)) = token.as_deref().and_then(|text| text.split_once(':')) {
            *by_token.entry(token.to_owned()).or_default() += 1;
        }
    }
    let mut counts: Vec<u32> = by_token.into_values().collect();
    counts.sort_unstable();
    counts
}

async fn until_held(rig: &mut Rig, wanted: &[u32]) {
    let spread = async {
        while held(rig).await != wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the leases", spread).await;
}

#[tokio::test]
async fn each_shard_is_settled_by_one_of_three() {
    let mut rig = Rig::new().await;
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(rig.start_with(options(&rig)).await);
    }
    until_held(&mut rig, &[1, 1, 2]).await;
    let settled = |rig: &Rig| rig.gate.state().places().values().map(|place| place.0).sum::<u64>();
    let (posts, batches) = (rig.gate.posts(), settled(&rig));
    let mut logs: Vec<Log> = running.iter().map(|_| Log::new(rig.gate.producer())).collect();
    for round in 0..5 {
        for (log, instance) in logs.iter_mut().zip(&running) {
            log.fill(round, 20);
            soon("settlement", deliver(log, instance.address, Until::Settled)).await;
        }
    }
    assert_eq!(rig.gate.state().sums, sums_of(&logs));
    let (posts, batches) = (rig.gate.posts() - posts, settled(&rig) - batches);
    // A lease may move in between; without leases there are about three posts for each batch.
    assert!(posts <= batches + u64::from(SHARDS), "{posts} posts of {batches} batches");
    for instance in running {
        instance.stop().await;
    }
    assert!(held(&mut rig).await.is_empty(), "an instance that ends gives its leases back");
}

#[tokio::test]
async fn an_instance_that_is_killed_is_replaced_in_time() {
    let mut rig = Rig::new().await;
    let (one, two) = (Apart::start(&rig).await, Apart::start(&rig).await);
    until_held(&mut rig, &[2, 2]).await;
    let mut log = Log::new(rig.gate.producer());
    log.fill(1, 40);
    soon("settlement", deliver(&log, one.address, Until::Settled)).await;
    drop(one);
    let killed = Instant::now();
    log.fill(2, 40);
    soon("settlement", deliver(&log, two.address, Until::Settled)).await;
    assert!(killed.elapsed() < LEASE * 5 / 3 + SLACK, "its shards settled after {:?}", killed.elapsed());
    until_held(&mut rig, &[SHARDS]).await;
    assert!(killed.elapsed() < LEASE * 5 / 3 + SLACK, "it was replaced after {:?}", killed.elapsed());
    assert_eq!(rig.gate.state().sums, log.sums);
}
