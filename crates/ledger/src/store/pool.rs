//! The pool of connections, what every connection or transaction is told by name, and as whom it works.
//!
//! Doctrine: a posting is one transaction that holds row locks, so nothing in it may wait without
//! end. Each limit is set by this side; a server with other defaults changes nothing.
//!
//! | | told what | a read outside a transaction |
//! |---|---|---|
//! | [`Pooler::None`] | once, when a connection is made | one statement on a connection |
//! | [`Pooler::Transaction`] | in the message that begins a transaction | in a transaction of its own: between two of them the connection is another |
//!
//! A read that names an account, or that a caller of one account makes, is a transaction of the role [`TENANT_ROLE`]
//! with that account set, so the database itself shows it nothing else. Only the methods of [`Pool`] give out connections: who went around them would work without limits behind a pooler.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use drawdown_service::identity;
use drawdown_types::AccountId;
use sqlx::{
    AssertSqlSafe, PgConnection, PgPool, Postgres, Transaction,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::error::Error;

/// The role that the service works as, made by the migrations.
pub const SERVICE_ROLE: &str = "drawdown_ledger_service";
/// The role that reads everything.
pub const READER_ROLE: &str = "drawdown_ledger_reader";
/// The role that reads the rows of one account, by row-level security.
pub const TENANT_ROLE: &str = "drawdown_ledger_tenant";

/// How to reach the database, as whom, and how long anything there may take.
#[derive(Clone)]
pub struct PoolConfig {
    /// The address, with database and user.
    pub connect: PgConnectOptions,
    /// The role that every connection takes; none to stay who signed in.
    pub role: Option<String>,
    /// What stands between this process and the server.
    pub pooler: Pooler,
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

impl std::fmt::Debug for PoolConfig {
    /// Without the address: it may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolConfig")
            .field("role", &self.role)
            .field("pooler", &self.pooler)
            .field("connections_max", &self.connections_max)
            .finish_non_exhaustive()
    }
}

/// What stands between this process and the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooler {
    /// Nothing, or a pooler that keeps a session: a connection stays what it was told to be.
    #[default]
    None,
    /// A pooler that gives out a server for the length of a transaction, as PgBouncer does.
    Transaction,
}

/// The connections of the service.
#[derive(Clone, Debug)]
pub struct Pool {
    pool: PgPool,
    /// What a transaction is told where its connection could not be: statements that follow its `begin`.
    told: Option<Arc<str>>,
}

/// Sorted row locks make this level enough: a later statement sees what a lock waited for.
const COMMITTED: &str = "begin isolation level read committed";
/// A statement of it is planned once a connection, for parameters of any length, and not again for each use. Such a plan
/// outlives the size that a table had, until the table is analysed; so it reads none as a whole, however small.
const BY_KEYS: &str = "; set local plan_cache_mode = force_generic_plan; set local enable_seqscan = off";
/// All statements see one instant. It has to be said first of all, so it can not be said later.
const SNAPSHOT: &str = "begin isolation level repeatable read";

/// A connection for reading; nothing that it writes is kept.
#[derive(Debug)]
pub enum Reader {
    /// A connection; each statement is a transaction.
    Plain(PoolConnection<Postgres>),
    /// A transaction, taken back when this is dropped.
    Within(Transaction<'static, Postgres>),
}

/// Makes the pool of the service; the first connection is made when it is needed.
#[must_use]
pub fn pool(config: &PoolConfig) -> Pool {
    let connect = config.connect.clone().application_name("drawdown-ledger");
    let settings = settings(config);
    let (connect, told) = match config.pooler {
        Pooler::None => {
            let role = config.role.iter().map(|role| ("role", role.clone()));
            (connect.options(settings.into_iter().chain(role)), None)
        }
        Pooler::Transaction => {
            let told: String =
                settings.iter().map(|(name, value)| format!("; set local {name} = '{value}'")).collect();
            // A server may hold statements that another client named; named anew, they would collide.
            let told = format!("; deallocate all{told}");
            // Statements are not remembered, and a pooler refuses a start with settings it does not know.
            (connect.statement_cache_capacity(0).extra_float_digits(None), Some(told.into()))
        }
    };
    // A question before each use would wait for a session of the pooler, and then for one more to work with.
    let asked = config.pooler == Pooler::None;
    Pool { pool: with_limits(config).test_before_acquire(asked).connect_lazy_with(connect), told }
}

/// A pool for migrations: as who signs in, on sessions of the server's own. A statement may take its time there, but
/// not wait for a lock in front of everybody else.
#[must_use]
pub fn owner(config: &PoolConfig) -> PgPool {
    let lock_timeout = config.lock_timeout.as_millis().to_string();
    let connect = config.connect.clone().application_name("drawdown-ledger-migrate");
    let connect = connect.options([("lock_timeout", lock_timeout)]);
    with_limits(config).connect_lazy_with(connect)
}

/// The account whose rows are read: the one that is named, else the one that the caller is of.
fn asking(named: Option<AccountId>) -> Option<AccountId> {
    named.or_else(identity::current_account)
}

/// What makes a transaction that of a tenant: the role and the account go with it. An account is a uuid, no text.
fn tenant(account: AccountId) -> String {
    format!("; set local role {TENANT_ROLE}; set local drawdown.account = '{}'", account.as_uuid())
}

fn with_limits(config: &PoolConfig) -> PgPoolOptions {
    PgPoolOptions::new().max_connections(config.connections_max).acquire_timeout(config.acquire_timeout)
}

/// Names are constants and values are numbers or words of this file: they can stand in a statement.
fn settings(config: &PoolConfig) -> [(&'static str, String); 5] {
    let millis = |duration: Duration| duration.as_millis().to_string();
    [
        // A receipt is sent after the commit: one that a crash could take back would free a log too early.
        ("synchronous_commit", "on".to_owned()),
        ("statement_timeout", millis(config.statement_timeout)),
        ("lock_timeout", millis(config.lock_timeout)),
        ("idle_in_transaction_session_timeout", millis(config.idle_in_transaction_timeout)),
        // Statements are small and alike; compiling them costs more than running them.
        ("jit", "off".to_owned()),
    ]
}

// === impl Pool ===

impl Pool {
    /// Begins a transaction. Dropping it takes everything back.
    ///
    /// # Errors
    /// Where no connection is to be had in time.
    pub async fn begin(&self) -> Result<Transaction<'static, Postgres>, Error> {
        self.begin_as(COMMITTED, "").await
    }

    /// Begins a transaction that posts. Its statements are few, large to plan, and probes of keys whatever their
    /// parameters, so one plan serves all. Not so for others: a list with a filter that may be absent needs a plan for
    /// what is there.
    ///
    /// # Errors
    /// Where no connection is to be had in time.
    pub async fn begin_posting(&self) -> Result<Transaction<'static, Postgres>, Error> {
        self.begin_as(COMMITTED, BY_KEYS).await
    }

    /// Begins a transaction whose statements all see one instant. Dropping it takes everything back.
    ///
    /// # Errors
    /// Where no connection is to be had in time.
    pub async fn snapshot(&self) -> Result<Transaction<'static, Postgres>, Error> {
        self.begin_as(SNAPSHOT, "").await
    }

    /// A transaction whose statements all see one instant, of what is of `account`; without one, of the account that the
    /// caller in hand is of; without that, of everything.
    ///
    /// # Errors
    /// Where no connection is to be had in time.
    pub async fn snapshot_of(
        &self,
        account: Option<AccountId>,
    ) -> Result<Transaction<'static, Postgres>, Error> {
        self.begin_as(SNAPSHOT, &asking(account).map_or_else(String::new, tenant)).await
    }

    /// One message: what a transaction is told costs no round trip.
    async fn begin_as(
        &self,
        begin: &'static str,
        further: &str,
    ) -> Result<Transaction<'static, Postgres>, Error> {
        let told = self.told.as_deref().unwrap_or_default();
        Ok(self.pool.begin_with(AssertSqlSafe(format!("{begin}{told}{further}"))).await?)
    }

    /// A connection to read everything by. Only a statement is one instant, unless the reader says otherwise.
    ///
    /// # Errors
    /// Where no connection is to be had in time.
    pub async fn read(&self) -> Result<Reader, Error> {
        Ok(match &self.told {
            None => Reader::Plain(self.pool.acquire().await?),
            Some(_) => Reader::Within(self.begin().await?),
        })
    }

    /// A connection to read by what is of `account`; without one, of the account that the caller in hand is of; without
    /// that, as [`Self::read`].
    ///
    /// # Errors
    /// Where no connection is to be had in time.
    pub async fn read_of(&self, account: Option<AccountId>) -> Result<Reader, Error> {
        let Some(account) = asking(account) else { return self.read().await };
        Ok(Reader::Within(self.begin_as(COMMITTED, &tenant(account)).await?))
    }

    /// A snapshot like that of [`Self::snapshot_of`] for statements that read by keys only, which one plan serves as it
    /// does in a posting: planning would be most of what a balance costs.
    ///
    /// # Errors
    /// Where no connection is to be had in time.
    pub async fn probe_of(&self, account: Option<AccountId>) -> Result<Reader, Error> {
        let told = asking(account).map_or_else(String::new, tenant);
        Ok(Reader::Within(self.begin_as(SNAPSHOT, &format!("{told}{BY_KEYS}")).await?))
    }

    /// Closes the pool once all connections are given back.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

impl Deref for Reader {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Self::Plain(connection) => connection,
            Self::Within(tx) => tx,
        }
    }
}

impl DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Plain(connection) => connection,
            Self::Within(tx) => tx,
        }
    }
}
