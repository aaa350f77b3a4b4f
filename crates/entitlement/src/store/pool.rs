//! The pool of connections, and what every connection is told by name.
//!
//! Doctrine: an act is one transaction that holds row locks, so nothing in it may wait without end.
//! The limits are set on the connection; a server with other defaults changes nothing.

use std::{fmt, time::Duration};

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// The role that the service works as, made by the migrations.
pub const SERVICE_ROLE: &str = "drawdown_entitlement_service";

/// The role that reads the rows of one account, by row-level security.
pub const TENANT_ROLE: &str = "drawdown_entitlement_tenant";

/// How to reach the database, as whom, and how long anything there may take.
#[derive(Clone)]
pub struct PoolConfig {
    /// Where, and who signs in.
    pub connect: PgConnectOptions,
    /// The role that every connection takes; none to stay who signed in.
    pub role: Option<String>,
    /// The most connections.
    pub connections_max: u32,
    /// How long to wait for a free connection.
    pub acquire_timeout: Duration,
    /// How long one statement may run.
    pub statement_timeout: Duration,
    /// How long one statement may wait for a lock.
    pub lock_timeout: Duration,
    /// How long a transaction may stay open with nothing to do.
    pub idle_in_transaction_timeout: Duration,
}

impl fmt::Debug for PoolConfig {
    /// Without the address: it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolConfig").field("connections_max", &self.connections_max).finish_non_exhaustive()
    }
}

/// A pool for migrations: as who signs in. A statement may take its time there, but not wait for a lock in front of
/// everybody else.
#[must_use]
pub fn owner(config: &PoolConfig) -> PgPool {
    let lock_timeout = config.lock_timeout.as_millis().to_string();
    let connect = config.connect.clone().application_name("drawdown-entitlement-migrate");
    with_limits(config).connect_lazy_with(connect.options([("lock_timeout", lock_timeout)]))
}

/// A pool of one connection that hears what the database says.
pub(crate) fn listener(config: &PoolConfig) -> PgPool {
    let connect = config.connect.clone().application_name("drawdown-entitlement-listener");
    let role = config.role.iter().map(|role| ("role", role.clone()));
    with_limits(config).max_connections(1).connect_lazy_with(connect.options(role))
}

fn with_limits(config: &PoolConfig) -> PgPoolOptions {
    PgPoolOptions::new().max_connections(config.connections_max).acquire_timeout(config.acquire_timeout)
}

/// Makes the pool. It connects when it is first used.
#[must_use]
pub fn pool(config: &PoolConfig) -> PgPool {
    let role = config.role.iter().map(|role| ("role", role.clone()));
    let millis = |duration: Duration| duration.as_millis().to_string();
    let connect = config.connect.clone().application_name("drawdown-entitlement").options([
        ("synchronous_commit", "on".to_owned()),
        ("statement_timeout", millis(config.statement_timeout)),
        ("lock_timeout", millis(config.lock_timeout)),
        ("idle_in_transaction_session_timeout", millis(config.idle_in_transaction_timeout)),
        ("default_transaction_isolation", "read committed".to_owned()),
        // the statements are short look-ups; compiling one costs more than running it
        ("jit", "off".to_owned()),
    ]);
    with_limits(config).connect_lazy_with(connect.options(role))
}
