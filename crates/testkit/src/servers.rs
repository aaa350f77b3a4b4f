//! The two servers of the tests.

use std::{sync::OnceLock, time::Duration};

use anyhow::Context as _;
use drawdown_sandbox::{Options, Pooler, RedisCluster, RedisSentinels, RedisServer, Sandbox, Source};
use uuid::Uuid;

use crate::{POSTGRES_URL_VARIABLE, REDIS_URL_VARIABLE};

/// Never dropped: the watchers of its servers stop them when the test process ends.
static SERVERS: OnceLock<Result<Sandbox, String>> = OnceLock::new();

/// The url of the Postgres server, with a database to sign in to.
///
/// # Errors
/// Where none is named and none can be started.
pub async fn postgres_url() -> anyhow::Result<String> {
    Ok(servers().await?.postgres_url().to_owned())
}

/// A part of the Redis server that no other test uses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RedisSpace {
    /// The server.
    pub url: String,
    /// What every key of this test begins with; it is never used again.
    pub namespace: String,
}

/// A fresh namespace on the Redis server. Its keys stay until the server goes.
///
/// # Errors
/// Where no server is named and none can be started.
pub async fn redis() -> anyhow::Result<RedisSpace> {
    let url = servers().await?.redis_url().to_owned();
    Ok(RedisSpace { url, namespace: format!("t{}", Uuid::now_v7().simple()) })
}

/// A PgBouncer in transaction mode in front of the server that `url` names, with at most `sessions` sessions of it.
///
/// # Errors
/// Where there is none to be had, or it does not start.
pub async fn pooler(url: &str, sessions: u32) -> anyhow::Result<Pooler> {
    let url = url.to_owned();
    blocking(move |sources| Pooler::start(&url, sessions, sources)).await.context("pooler")
}

/// A Redis of this test alone, with these lines in its settings: one to be killed, limited and given old data.
///
/// # Errors
/// Where there is none to be had, or it does not start.
pub async fn redis_server(lines: &'static [&'static str]) -> anyhow::Result<RedisServer> {
    blocking(move |sources| RedisServer::start_with(lines, sources)).await.context("redis")
}

/// A Redis Cluster of this test alone, with so many masters.
///
/// # Errors
/// Where there is none to be had, or it does not start.
pub async fn redis_cluster(masters: usize) -> anyhow::Result<RedisCluster> {
    blocking(move |sources| RedisCluster::start_with(masters, sources)).await.context("cluster")
}

/// A master, its replica and three sentinels of this test alone.
///
/// # Errors
/// Where there is none to be had, or it does not start.
pub async fn redis_sentinels(down_after: Duration) -> anyhow::Result<RedisSentinels> {
    blocking(move |sources| RedisSentinels::start_with(down_after, sources)).await.context("sentinels")
}

async fn blocking<T: Send + 'static>(
    start: impl FnOnce(&[Source]) -> Result<T, drawdown_sandbox::Error> + Send + 'static,
) -> anyhow::Result<T> {
    let starting = tokio::task::spawn_blocking(move || anyhow::Ok(start(&Options::from_env()?.sources)?));
    starting.await?
}

async fn servers() -> anyhow::Result<&'static Sandbox> {
    let servers = tokio::task::spawn_blocking(|| SERVERS.get_or_init(start)).await?;
    servers.as_ref().map_err(|reason| anyhow::anyhow!("no servers to test with: {reason}"))
}

fn start() -> Result<Sandbox, String> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let named = || -> anyhow::Result<Sandbox> {
        let mut options = Options { synced: false, ..Options::from_env()? };
        options.postgres_url = variable(POSTGRES_URL_VARIABLE).or(options.postgres_url);
        options.redis_url = variable(REDIS_URL_VARIABLE).or(options.redis_url);
        Sandbox::start(options).context("sandbox")
    };
    named().map_err(|error| format!("{error:#}"))
}
