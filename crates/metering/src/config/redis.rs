//! `[metering.redis]`: one server, a cluster, or the master that sentinels name.

use drawdown_service::config::{Millis, Problem, Problems, Secret};
use serde::Deserialize;

use crate::redis::{Namespace, Servers, Settings};

/// The section `[metering.redis]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisOptions {
    /// How many servers there are, and who says which one is the master.
    pub mode: RedisMode,
    /// Address such as `redis://127.0.0.1:6379`; with sentinels the login of their master. It may hold a password.
    pub url: Secret,
    /// Nodes of the cluster, or the sentinels. They may hold passwords.
    pub urls: Vec<Secret>,
    /// The name under which the sentinels know the master.
    pub sentinel_master: String,
    /// What all keys begin with.
    pub namespace: String,
    /// How long to wait for a connection, in ms.
    pub connect_timeout_ms: Millis,
    /// How long to wait for an answer, in ms.
    pub response_timeout_ms: Millis,
    /// Take a server that may evict or lose what it holds.
    pub allow_unsafe: bool,
}

/// How many servers Redis has.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum RedisMode {
    /// One.
    Single,
    /// Masters that share the slots.
    Cluster,
    /// One at a time, which sentinels name.
    Sentinel,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            mode: RedisMode::Single,
            url: "redis://127.0.0.1:6379".into(),
            urls: Vec::new(),
            sentinel_master: String::new(),
            namespace: "m".to_owned(),
            connect_timeout_ms: Millis::from_millis(2000),
            response_timeout_ms: Millis::from_millis(5000),
            allow_unsafe: false,
        }
    }
}

impl RedisOptions {
    pub(super) fn validate(self) -> Result<Settings, Vec<Problem>> {
        let mut problems = Problems::new();
        let namespace = problems.field("namespace", Namespace::new(&self.namespace));
        let several = self.mode != RedisMode::Single;
        problems.ensure(!several || !self.urls.is_empty(), "urls", "is empty");
        problems.ensure(several || self.urls.is_empty(), "urls", "is for the modes cluster and sentinel");
        let named = self.sentinel_master.is_empty() != (self.mode == RedisMode::Sentinel);
        problems.ensure(named, "sentinel_master", "has to be named with the mode sentinel, and only then");
        let (url, urls) = (self.url, self.urls);
        let servers = match self.mode {
            RedisMode::Single => Servers::Single { url },
            RedisMode::Cluster => Servers::Cluster { urls },
            RedisMode::Sentinel => Servers::Sentinel { urls, master: self.sentinel_master, login: url },
        };
        // A url may hold a password: it is not repeated.
        let (field, problem) = match self.mode {
            RedisMode::Single => ("url", "is no address such as redis://127.0.0.1:6379"),
            RedisMode::Cluster => ("urls", "are no addresses such as redis://127.0.0.1:6379 with one login"),
            RedisMode::Sentinel => ("urls", "or url are no addresses such as redis://127.0.0.1:26379"),
        };
        problems.ensure(servers.check().is_ok(), field, problem);
        problems.finish(namespace.map(|namespace| Settings {
            servers,
            namespace,
            connection_timeout: self.connect_timeout_ms.duration(),
            response_timeout: self.response_timeout_ms.duration(),
            allow_unsafe: self.allow_unsafe,
        }))
    }
}
