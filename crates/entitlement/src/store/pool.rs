//! The pool of connections, and what every connection is told by name.
//!
//! Doctrine: an act is one transaction that holds row locks, so nothing in it may wait without end.
//! The limits are set on the connection; a server with other defaults changes nothing.

use std::{fmt, time::Duration};

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// How to reach the database and how long anything there may take.
#[derive(Clone)]
pub struct PoolConfig {
    /// Where, as whom.
    pub connect: PgConnectOptions,
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

/// Makes the pool. It connects when it is first used.
#[must_use]
pub fn pool(config: &PoolConfig) -> PgPool {
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
    PgPoolOptions::new()
        .max_connections(config.connections_max)
        .acquire_timeout(config.acquire_timeout)
        .connect_lazy_with(connect)
}
