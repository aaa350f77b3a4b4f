//! The pool of connections, and what every connection is told by name.
//!
//! Doctrine: a posting is one transaction that holds row locks, so nothing in it may wait without
//! end. Each limit is set on the connection itself; a server with other defaults changes nothing.

use std::time::Duration;

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// How to reach the database and how long anything there may take.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// The address, with database and user.
    pub connect: PgConnectOptions,
    /// Most connections at once.
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

/// Makes a pool; the first connection is made when it is needed.
#[must_use]
pub fn pool(config: &PoolConfig) -> PgPool {
    let millis = |duration: Duration| duration.as_millis().to_string();
    let options = config.connect.clone().application_name("drawdown-ledger").options([
        // A receipt is sent after the commit: one that a crash could take back would free a log too early.
        ("synchronous_commit", "on".to_owned()),
        ("statement_timeout", millis(config.statement_timeout)),
        ("lock_timeout", millis(config.lock_timeout)),
        ("idle_in_transaction_session_timeout", millis(config.idle_in_transaction_timeout)),
        // Sorted row locks make this level enough: a later statement sees what a lock waited for.
        ("default_transaction_isolation", "read committed".to_owned()),
        // Statements are small and alike; compiling them costs more than running them.
        ("jit", "off".to_owned()),
    ]);
    PgPoolOptions::new()
        .max_connections(config.connections_max)
        .acquire_timeout(config.acquire_timeout)
        .connect_lazy_with(options)
}
