//! Private Postgres and Redis servers on free ports of the loopback, for `drawdown up`, the demo, tests, benches
//! and drills; and for tests a pooler in front of a Postgres ([`Pooler`]) and more of Redis than one server
//! ([`RedisServer`], [`RedisCluster`], [`RedisSentinels`]).
//!
//! Shape: [`Sandbox::start`] uses the servers that are given by their urls, else starts its own from what the
//! machine has, from Debian's packages or from pinned wheels ([`Source`]). Own servers answer only on the loopback
//! and only to a password that is in their url; fsync is on and every write of Redis is logged, because drills
//! measure what survives. Servers of tests do not wait for the disk of Postgres ([`Options::synced`]).
//! Life: they stop when the [`Sandbox`] is dropped, and also when this process is killed; nothing that was not
//! started here is ever signalled. With a data folder the data are kept, else they go with the sandbox.
//! Everything here blocks: on a runtime call it through `spawn_blocking`.
#![deny(missing_docs)]

mod error;
mod find;
mod install;
mod place;
mod pooler;
mod postgres;
mod probe;
mod process;
mod redis;
mod redises;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

pub use error::Error;
pub use find::Source;
pub use pooler::Pooler;
pub use redises::{RedisCluster, RedisSentinels, RedisServer};

use crate::{place::Place, postgres::Postgres, redis::Redis};

/// Names a Postgres to use instead of a private one.
pub const POSTGRES_URL_VARIABLE: &str = "DRAWDOWN_SANDBOX_POSTGRES_URL";
/// Names a Redis to use instead of a private one.
pub const REDIS_URL_VARIABLE: &str = "DRAWDOWN_SANDBOX_REDIS_URL";
/// Names the program of private Redis servers, whatever its version.
pub const REDIS_PROGRAM_VARIABLE: &str = "DRAWDOWN_SANDBOX_REDIS_PROGRAM";
/// Where server programs may come from: a comma-separated list of `path`, `debian`, `wheels`, in this order.
pub const SOURCES_VARIABLE: &str = "DRAWDOWN_SANDBOX_SOURCES";

/// What a sandbox is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Kept between runs, made where it does not exist; without one the data go with the sandbox.
    pub data_dir: Option<PathBuf>,
    /// A Postgres to use instead of a private one.
    pub postgres_url: Option<String>,
    /// A Redis to use instead of a private one.
    pub redis_url: Option<String>,
    /// Where server programs may come from, in the order in which they are tried.
    pub sources: Vec<Source>,
    /// A private Postgres writes through to the disk before it says that something is committed. Without it a kill of
    /// the server loses nothing all the same, a kill of the machine may; data that go with the sandbox do so anyway.
    pub synced: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            data_dir: None,
            postgres_url: None,
            redis_url: None,
            sources: Source::ALL.into(),
            synced: true,
        }
    }
}

impl Options {
    /// The defaults, with the urls and sources of the environment.
    ///
    /// # Errors
    /// Where [`SOURCES_VARIABLE`] names anything else than sources.
    pub fn from_env() -> Result<Self, Error> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let sources =
            variable(SOURCES_VARIABLE).map_or_else(|| Ok(Source::ALL.into()), |value| sources(&value))?;
        let (postgres_url, redis_url) = (variable(POSTGRES_URL_VARIABLE), variable(REDIS_URL_VARIABLE));
        Ok(Self { postgres_url, redis_url, sources, ..Self::default() })
    }
}

fn sources(value: &str) -> Result<Vec<Source>, Error> {
    let unknown = || Error::Variable { name: SOURCES_VARIABLE, value: value.to_owned() };
    value.split(',').map(|name| Source::named(name.trim()).ok_or_else(unknown)).collect()
}

/// Postgres and Redis, running until this is dropped.
#[derive(Debug)]
pub struct Sandbox {
    postgres: Postgres,
    redis: Redis,
}

impl Sandbox {
    /// Starts what is not given by its url and waits until all of it answers.
    ///
    /// # Errors
    /// Where no server is found or one does not become ready; what was started until then is stopped.
    pub fn start(options: Options) -> Result<Self, Error> {
        let Options { data_dir, postgres_url, redis_url, sources, synced } = options;
        // given servers need no folder
        let own = postgres_url.is_none() || redis_url.is_none();
        let place = own.then(|| Place::open(data_dir.as_deref())).transpose()?.map(Arc::new);
        let redis = match (redis_url, &place) {
            (None, Some(place)) => Redis::start_in(Arc::clone(place), &sources)?,
            (given, _) => Redis::given(given.unwrap_or_default())?,
        };
        let postgres = match (postgres_url, place) {
            (None, Some(place)) => Postgres::start_in(place, &sources, synced),
            (given, _) => Postgres::given(given.unwrap_or_default()),
        };
        match postgres {
            Ok(postgres) => Ok(Self { postgres, redis }),
            Err(error) => {
                redis.stop()?;
                Err(error)
            }
        }
    }

    /// `postgres://…` of a database of its own, `drawdown`, and of a user that may do everything.
    #[must_use]
    pub fn postgres_url(&self) -> &str {
        self.postgres.url()
    }

    /// `redis://…`
    #[must_use]
    pub fn redis_url(&self) -> &str {
        self.redis.url()
    }

    /// Postgres, for drills.
    #[must_use]
    pub fn postgres(&self) -> PostgresHandle<'_> {
        PostgresHandle { server: &self.postgres }
    }

    /// Redis, for drills.
    #[must_use]
    pub fn redis(&self) -> RedisHandle<'_> {
        RedisHandle { server: &self.redis }
    }

    /// Stops what was started here, Redis first; dropping does the same and only logs what goes wrong.
    ///
    /// # Errors
    /// Where a server does not end even when it is killed.
    pub fn stop(self) -> Result<(), Error> {
        let redis = self.redis.stop();
        self.postgres.stop().and(redis)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for stopped in [self.redis.stop(), self.postgres.stop()] {
            if let Err(error) = stopped {
                tracing::error!(%error, "cannot stop a server of the sandbox");
            }
        }
    }
}

/// What a drill may do to Postgres. Every call is refused for a server that was given by its url.
#[derive(Clone, Copy, Debug)]
pub struct PostgresHandle<'a> {
    server: &'a Postgres,
}

impl PostgresHandle<'_> {
    /// Kills the server and its sessions as a power cut would; nothing where it does not run.
    ///
    /// # Errors
    /// Where it is not ours, or does not end.
    pub fn kill9(self) -> Result<(), Error> {
        self.server.kill9()
    }

    /// Stops the server cleanly; nothing where it does not run.
    ///
    /// # Errors
    /// Where it does not end.
    pub fn stop(self) -> Result<(), Error> {
        self.server.stop()
    }

    /// Starts a server that was stopped or killed, on the same port, and waits until it has recovered.
    ///
    /// # Errors
    /// Where it is not ours, runs already, or does not become ready.
    pub fn start(self) -> Result<(), Error> {
        self.server.start()
    }

    /// Stops the server cleanly, where it runs, and starts it again.
    ///
    /// # Errors
    /// As [`Self::stop`] and [`Self::start`].
    pub fn restart(self) -> Result<(), Error> {
        self.stop()?;
        self.start()
    }

    /// Copies the data of a server that is stopped, in place of an earlier copy: a backup.
    ///
    /// # Errors
    /// Where it is not ours, or runs, or can not be copied.
    pub fn back_up(self) -> Result<(), Error> {
        self.server.back_up()
    }

    /// Puts the copy of [`Self::back_up`] in the place of the data of a server that is stopped. The copy stays.
    ///
    /// # Errors
    /// Where it is not ours, or runs, or there is no copy.
    pub fn restore(self) -> Result<(), Error> {
        self.server.restore()
    }

    /// The folder of its programs; none where the server was given by its url.
    #[must_use]
    pub fn programs(&self) -> Option<&Path> {
        self.server.programs()
    }
}

/// What a drill may do to Redis. Every call is refused for a server that was given by its url.
#[derive(Clone, Copy, Debug)]
pub struct RedisHandle<'a> {
    server: &'a Redis,
}

impl RedisHandle<'_> {
    /// Kills the server as a power cut would; nothing where it does not run.
    ///
    /// # Errors
    /// Where it is not ours, or does not end.
    pub fn kill9(self) -> Result<(), Error> {
        self.server.kill9()
    }

    /// Stops the server cleanly; nothing where it does not run.
    ///
    /// # Errors
    /// Where it does not end.
    pub fn stop(self) -> Result<(), Error> {
        self.server.stop()
    }

    /// Starts a server that was stopped or killed, on the same port, with the data it had logged.
    ///
    /// # Errors
    /// Where it is not ours, runs already, or does not become ready.
    pub fn start(self) -> Result<(), Error> {
        self.server.start()
    }

    /// Starts a server that was stopped or killed, on the same port, with nothing in it.
    ///
    /// # Errors
    /// Where it is not ours, runs already, or does not become ready.
    pub fn start_empty(self) -> Result<(), Error> {
        self.server.start_empty()
    }

    /// Stops the server cleanly, where it runs, and starts it again with its data.
    ///
    /// # Errors
    /// As [`Self::stop`] and [`Self::start`].
    pub fn restart(self) -> Result<(), Error> {
        self.stop()?;
        self.start()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_the_environment() {
        assert_eq!(sources("path").unwrap(), [Source::Path]);
        assert_eq!(sources("wheels, path").unwrap(), [Source::Wheels, Source::Path]);
        let error = sources("path,docker").unwrap_err().to_string();
        assert!(error.contains("DRAWDOWN_SANDBOX_SOURCES") && error.contains("path,docker"), "{error}");
    }
}
