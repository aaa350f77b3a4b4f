//! For tests only: a database per test, a Redis namespace per test, a clock that a test moves.
//!
//! Servers: those that [`POSTGRES_URL_VARIABLE`] and [`REDIS_URL_VARIABLE`] name (`cargo xtask test` sets both); what
//! is not named is a private server, started once per process and gone with it.
//! Tests never share rows or keys, so they run in any order and all at once.

mod database;
mod servers;
mod wire;

pub use database::Database;
pub use drawdown_sandbox::{Pooler, RedisCluster, RedisSentinels, RedisServer};
pub use drawdown_types::ManualClock;
pub use servers::{RedisSpace, pooler, postgres_url, redis, redis_cluster, redis_sentinels, redis_server};
pub use wire::{Counted, Relay};

/// Names the Postgres server of the tests; its user may create databases.
pub const POSTGRES_URL_VARIABLE: &str = "DRAWDOWN_TEST_POSTGRES_URL";
/// Names the Redis server of the tests.
pub const REDIS_URL_VARIABLE: &str = "DRAWDOWN_TEST_REDIS_URL";
/// Set where the server is as young as the build: migrated databases are then cloned from templates whose names
/// begin with its value. Where it is not set every test migrates its own database.
pub const TEMPLATE_VARIABLE: &str = "DRAWDOWN_TEST_TEMPLATE";
