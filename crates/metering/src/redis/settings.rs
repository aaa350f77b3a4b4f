//! How the servers are reached.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, IntoConnectionInfo as _, RedisError,
    aio::ConnectionManagerConfig,
    cluster::{ClusterClient, ClusterClientBuilder},
    sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType},
};

use drawdown_service::config::Secret;

use super::keys::Namespace;

/// Pauses between attempts to connect again.
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(20);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);
/// Attempts to connect again within one call; the next call begins anew.
const RECONNECTS_MAX: usize = 2;
/// Redirections and attempts within one call to a cluster. Few, because the callers of all shards wait for the slowest,
/// and each looks and tries again by itself.
const CLUSTER_TRIES_MAX: u32 = 3;
const CLUSTER_PAUSE_MIN_MS: u64 = 20;
const CLUSTER_PAUSE_MAX_MS: u64 = 100;

/// Which servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// One, at an address such as `redis://127.0.0.1:6379`.
    Single {
        /// Its address.
        url: Secret,
    },
    /// The masters of a cluster.
    Cluster {
        /// Some of its nodes, all with one login.
        urls: Vec<Secret>,
    },
    /// The master that sentinels name.
    Sentinel {
        /// The sentinels.
        urls: Vec<Secret>,
        /// The name under which they know it.
        master: String,
        /// User, password and database of the master are those of this address; host and port are not used.
        login: Secret,
    },
}

/// How the servers are reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which they are.
    pub servers: Servers,
    /// What all keys begin with.
    pub namespace: Namespace,
    /// How long to wait for a connection.
    pub connection_timeout: Duration,
    /// How long to wait for an answer; then its outcome is unknown.
    pub response_timeout: Duration,
    /// Take a server that could lose or evict data. For development.
    pub allow_unsafe: bool,
}

impl Servers {
    /// Whether the addresses can be used; asks nobody.
    ///
    /// # Errors
    /// Where one can not be read, or those of a cluster have different logins. The error does not repeat them.
    pub fn check(&self) -> Result<(), RedisError> {
        match self {
            Self::Single { url } => Client::open(url.expose()).map(drop),
            Self::Cluster { urls } => ClusterClient::new(urls.iter().map(Secret::expose)).map(drop),
            Self::Sentinel { urls, master, login } => sentinel_client(urls, master, login).map(drop),
        }
    }
}

pub(super) fn sentinel_client(
    urls: &[Secret],
    master: &str,
    login: &Secret,
) -> Result<SentinelClient, RedisError> {
    let login = login.expose().into_connection_info()?.redis_settings().clone();
    let node = SentinelNodeConnectionInfo::default().set_redis_connection_info(login);
    let urls = urls.iter().map(Secret::expose).collect();
    SentinelClient::build(urls, master.to_owned(), Some(node), SentinelServerType::Master)
}

impl Settings {
    pub(super) fn manager(&self) -> ConnectionManagerConfig {
        ConnectionManagerConfig::new()
            .set_connection_timeout(Some(self.connection_timeout))
            .set_response_timeout(Some(self.response_timeout))
            .set_min_delay(RECONNECT_PAUSE_MIN)
            .set_max_delay(RECONNECT_PAUSE_MAX)
            .set_number_of_retries(RECONNECTS_MAX)
    }

    pub(super) fn connection(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connection_timeout))
            .set_response_timeout(Some(self.response_timeout))
    }

    pub(super) fn cluster(&self, urls: &[Secret]) -> Result<ClusterClient, RedisError> {
        ClusterClientBuilder::new(urls.iter().map(Secret::expose))
            .connection_timeout(self.connection_timeout)
            .response_timeout(self.response_timeout)
            .retries(CLUSTER_TRIES_MAX)
            .min_retry_wait(CLUSTER_PAUSE_MIN_MS)
            .max_retry_wait(CLUSTER_PAUSE_MAX_MS)
            .build()
    }
}
