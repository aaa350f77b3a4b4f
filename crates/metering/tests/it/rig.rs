//! One installation: a fake ledger, a namespace of the real Redis, any number of metering instances.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use drawdown_client::ChannelOptions;
use drawdown_metering::{
    config::{CellOptions, Config, Options},
    redis::{Keys, Namespace},
};
use drawdown_service::{
    Bound, Context, Telemetry,
    config::{Count, ListenAddress, Millis},
};
use drawdown_testkit::{ManualClock, RedisSpace};
use drawdown_types::Timestamp;
use redis::aio::MultiplexedConnection;
use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::gate::Gate;

/// No test waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const NOW: &str = "2026-03-01T12:00:30Z";
pub(crate) const SHARDS: u32 = 4;

pub(crate) struct Rig {
    pub(crate) gate: Gate,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) redis: MultiplexedConnection,
    pub(crate) keys: Keys,
    space: RedisSpace,
    ledger: SocketAddr,
    /// Ledgers of other cells.
    cells: Vec<SocketAddr>,
}

/// A running instance.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    /// Where it takes CloudEvents over HTTP.
    pub(crate) events: SocketAddr,
    pub(crate) telemetry: Telemetry,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
    _process: Process,
}

/// Threads of an instance by itself: without them everything that it has spawned is gone as well, as with a process.
struct Process(Option<Runtime>);

impl Process {
    fn start() -> Self {
        let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self(Some(threads.unwrap()))
    }

    fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.0.as_ref().unwrap().spawn(task)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(threads) = self.0.take() {
            threads.shutdown_background();
        }
    }
}

/// What does not come in time fails its test.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} took too long"))
}

pub(crate) fn now() -> Timestamp {
    NOW.parse().unwrap()
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::on(drawdown_testkit::redis().await.unwrap()).await
    }

    /// On a Redis of its own.
    pub(crate) async fn on_server(url: &str) -> Self {
        Self::on(RedisSpace { url: url.to_owned(), namespace: "own".to_owned() }).await
    }

    async fn on(space: RedisSpace) -> Self {
        let client = redis::Client::open(space.url.as_str()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        // On a busy machine half a second, which is usual, may not be enough.
        connection.set_response_timeout(PATIENCE);
        let gate = Gate::default();
        gate.meter("web.call", drawdown_proto::ledger::v1::Aggregation::Count, &["region"]);
        gate.meter("web.byte", drawdown_proto::ledger::v1::Aggregation::Sum, &[]);
        Self {
            ledger: gate.serve().await,
            gate,
            clock: Arc::new(ManualClock::new(now())),
            redis: connection,
            keys: Keys::new(Namespace::new(&space.namespace).unwrap()),
            space,
            cells: Vec::new(),
        }
    }

    /// With two more cells; the ledger is the leading one.
    pub(crate) async fn with_cells() -> (Self, [Gate; 2]) {
        let mut rig = Self::new().await;
        let others = [Gate::default(), Gate::default()];
        rig.gate.become_cell(0, &[1, 2]);
        for (number, other) in (1..).zip(&others) {
            other.become_cell(number, &[]);
            rig.cells.push(other.serve().await);
        }
        (rig, others)
    }

    pub(crate) fn options(&self) -> Options {
        let shard_count = Count::of(usize::try_from(SHARDS).unwrap());
        let mut options = Options { shard_count, ..Options::default() };
        options.server.listen = ListenAddress::ANY_LOOPBACK;
        options.server.metrics_listen = ListenAddress::ANY_LOOPBACK;
        options.redis.url = self.space.url.as_str().into();
        options.redis.namespace.clone_from(&self.space.namespace);
        options.ledger.endpoint = format!("http://{}", self.ledger);
        let cells = (1..).zip(&self.cells).map(|(number, address)| CellOptions {
            number,
            ledger: ChannelOptions::to(format!("http://{address}")),
        });
        options.cells = cells.collect();
        options.entitlement.endpoint = format!("http://{}", self.ledger);
        options.settle.interval_ms = Millis::from_millis(20);
        options.settle.lease_ms = Millis::from_millis(600);
        options.settle.retry_pause_ms = Millis::from_millis(10);
        options.settle.retry_pause_max_ms = Millis::from_millis(100);
        options.settle.isolation_ms = Millis::from_millis(300);
        options.meters.refresh_pause_ms = Millis::from_millis(1);
        options
    }

    pub(crate) fn redis_url(&self) -> &str {
        &self.space.url
    }

    pub(crate) async fn start(&self) -> Running {
        self.start_with(self.options()).await
    }

    pub(crate) async fn start_with(&self, options: Options) -> Running {
        let config: Config = options.validate().unwrap();
        let telemetry = Telemetry::detached("metering").unwrap();
        let stop = CancellationToken::new();
        let (context, mut bound) = Context::new(telemetry.clone(), self.clock.clone(), stop.clone());
        let process = Process::start();
        let task = process.spawn(drawdown_metering::run(config, context));
        let addresses = soon("start", bound.wait()).await;
        match addresses {
            Some(addresses) => {
                let (address, events) = (addresses.grpc, addresses.grpc);
                Running { address, events, telemetry, stop, task, _process: process }
            }
            None => panic!("the instance did not start: {:?}", task.await),
        }
    }

    /// What an instance runs in.
    pub(crate) fn context(&self) -> (Context, Bound) {
        let telemetry = Telemetry::detached("metering").unwrap();
        Context::new(telemetry, self.clock.clone(), CancellationToken::new())
    }

    pub(crate) async fn delete(&mut self, key: &str) {
        let _: () = redis::cmd("DEL").arg(key).query_async(&mut self.redis).await.unwrap();
    }

    /// As FLUSHALL would, for this namespace.
    pub(crate) async fn flush_all(&mut self) {
        for key in self.all_keys().await {
            self.delete(&key).await;
        }
    }

    pub(crate) async fn all_keys(&mut self) -> Vec<String> {
        let pattern = format!("{}:*", self.space.namespace);
        redis::cmd("KEYS").arg(pattern).query_async(&mut self.redis).await.unwrap()
    }
}

impl Running {
    /// Drains and waits for the end.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        soon("drain", self.task).await.unwrap().unwrap();
    }

    /// The first sample of a metric, 0 where there is none.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let page = self.telemetry.scrape().unwrap();
        let line = page.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
    }

    /// Ends without a word, as a crash would, with everything that it has spawned.
    pub(crate) fn kill(self) {
        drop(self);
    }
}
