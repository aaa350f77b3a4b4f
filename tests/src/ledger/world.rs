//! A ledger in this process, with nobody else on its server.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, anyhow, ensure};
use drawdown_ledger::{
    Options,
    directory::{ContractKind, Contracts, Directory, TeamFacts},
    error::Error,
    grpc::{Catalog, Holds, Lots, Reports, Settlement, Tokens},
    metrics::Metrics,
    service::{Ledger, Parts},
    store::pool,
};
use drawdown_sandbox::Sandbox;
use drawdown_types::{AccountId, Clock, TeamId};
use futures::{FutureExt as _, future::BoxFuture};
use sqlx::{AssertSqlSafe, PgPool};
use tempfile::TempDir;

/// Who stands behind each team: what entitlement would say.
#[derive(Debug, Default)]
pub struct KnownTeams(Mutex<HashMap<TeamId, AccountId>>);

impl KnownTeams {
    /// Adds a team.
    pub fn know(&self, account_id: AccountId, team_id: TeamId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(team_id, account_id);
    }
}

impl Directory for KnownTeams {
    fn team(&self, team: TeamId) -> BoxFuture<'_, Result<Option<TeamFacts>, Error>> {
        let account = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&team).copied();
        let facts = account.map(|account_id| TeamFacts {
            cell: 0,
            account_id,
            trial_from: None,
            trial_to: None,
            contracts: Contracts::new(ContractKind::Flex, []),
        });
        async move { Ok(facts) }.boxed()
    }
}

/// The handlers of one ledger.
#[derive(Clone)]
pub struct Handlers {
    /// The ledger behind them.
    pub ledger: Arc<Ledger>,
    /// Meters and prices.
    pub catalog: Catalog,
    /// Lots and balances.
    pub tokens: Tokens,
    /// Tokens set aside.
    pub holds: Holds,
    /// Lots after they were made.
    pub lots: Lots,
    /// Batches.
    pub settlement: Settlement,
    /// Statements and files.
    pub reports: Reports,
}

/// A private Postgres and a ledger on it.
pub struct LedgerWorld {
    // the handlers' sessions end before the server does
    /// The handlers.
    pub handlers: Handlers,
    /// Sessions for looking at what was written, and for the baselines.
    pub pool: PgPool,
    /// The teams that the ledger finds when it asks.
    pub known: Arc<KnownTeams>,
    clock: Arc<dyn Clock>,
    url: String,
    sandbox: Arc<Sandbox>,
    dir: TempDir,
}

/// What the server says of its own safety.
#[derive(Debug, Clone)]
pub struct Durability(Vec<(&'static str, String)>);

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let gap = if index == 0 { "" } else { ", " };
            write!(f, "{gap}{name} = {value}")?;
        }
        Ok(())
    }
}

// === impl LedgerWorld ===

impl LedgerWorld {
    /// Starts the server, migrates it and puts a ledger on it; `change` sees the ledger's options.
    ///
    /// # Errors
    /// Where there is no server, or an option is wrong.
    pub async fn start(clock: Arc<dyn Clock>, change: impl FnOnce(&mut Options)) -> Result<Self> {
        let options = drawdown_sandbox::Options::from_env()?;
        let sandbox = tokio::task::spawn_blocking(|| Sandbox::start(options)).await??;
        let url = sandbox.postgres_url().to_owned();
        Self::on(Arc::new(sandbox), url, clock, change).await
    }

    /// A ledger on another, new database of the same server: what else the machine does falls on both.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn neighbour(
        &self,
        database: &str,
        clock: Arc<dyn Clock>,
        change: impl FnOnce(&mut Options),
    ) -> Result<Self> {
        sqlx::raw_sql(AssertSqlSafe(format!("create database {database}"))).execute(&self.pool).await?;
        let (server, _) = self.url.rsplit_once('/').context("no database in the url")?;
        Self::on(Arc::clone(&self.sandbox), format!("{server}/{database}"), clock, change).await
    }

    async fn on(
        sandbox: Arc<Sandbox>,
        url: String,
        clock: Arc<dyn Clock>,
        change: impl FnOnce(&mut Options),
    ) -> Result<Self> {
        let known = Arc::new(KnownTeams::default());
        let mut options = Options::default();
        options.database.url = url.as_str().into();
        change(&mut options);
        let config = options.clone().validate().map_err(|problems| anyhow!("{problems:?}"))?;
        let pool = pool::owner(&config.database);
        drawdown_ledger::migrate(&pool).await.context("migrate")?;
        let handlers = handlers(options, Arc::clone(&clock), Arc::clone(&known))?;
        let dir = TempDir::with_prefix("drawdown-ledger-")?;
        Ok(Self { handlers, pool, known, clock, url, sandbox, dir })
    }

    /// Another ledger on the same database, by another address of it.
    ///
    /// # Errors
    /// Where the address is none.
    pub fn beside(&self, url: String) -> Result<Handlers> {
        let mut options = Options::default();
        options.database.url = url.into();
        handlers(options, Arc::clone(&self.clock), Arc::clone(&self.known))
    }

    /// The clock of the ledger.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// `postgres://…` of the database.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A folder of this run's own.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Reads back what the figures depend on; a server that does not keep what it confirms gives none.
    ///
    /// # Errors
    /// Where the server would lose commits.
    pub async fn durability(&self) -> Result<Durability> {
        let mut found = Vec::new();
        for name in ["fsync", "synchronous_commit", "full_page_writes"] {
            let value: String =
                sqlx::query_scalar("select current_setting($1)").bind(name).fetch_one(&self.pool).await?;
            ensure!(value == "on", "{name} = {value}: no figure of such a server means anything");
            found.push((name, value));
        }
        Ok(Durability(found))
    }

    /// Deadlocks since the server started.
    ///
    /// # Errors
    /// Where the server does not answer.
    pub async fn deadlocks(&self) -> Result<i64> {
        let deadlocks = sqlx::query_scalar(
            "select coalesce(sum(deadlocks), 0)::bigint from pg_stat_database where datname = current_database()",
        );
        Ok(deadlocks.fetch_one(&self.pool).await?)
    }

    /// Ends the sessions, and the server with the last ledger on it.
    ///
    /// # Errors
    /// Where the server does not end.
    pub async fn stop(self) -> Result<()> {
        self.pool.close().await;
        drop(self.handlers);
        if let Some(sandbox) = Arc::into_inner(self.sandbox) {
            tokio::task::spawn_blocking(move || sandbox.stop()).await??;
        }
        Ok(())
    }
}

fn handlers(mut options: Options, clock: Arc<dyn Clock>, known: Arc<KnownTeams>) -> Result<Handlers> {
    pool::SERVICE_ROLE.clone_into(&mut options.database.role);
    let config = options.validate().map_err(|problems| anyhow!("{problems:?}"))?;
    let ledger = Arc::new(Ledger::new(Parts {
        pool: pool::pool(&config.database),
        clock,
        settings: config.settings,
        notice_rules: config.notices.rules,
        limits: config.limits,
        events: config.growth.events,
        cells: config.cells,
        directory: known,
        metrics: Metrics::new(&opentelemetry::global::meter("drawdown-tests")),
    }));
    Ok(Handlers {
        catalog: Catalog::new(Arc::clone(&ledger)),
        tokens: Tokens::new(Arc::clone(&ledger)),
        holds: Holds::new(Arc::clone(&ledger)),
        lots: Lots::new(Arc::clone(&ledger)),
        settlement: Settlement::new(Arc::clone(&ledger)),
        reports: Reports::new(Arc::clone(&ledger)),
        ledger,
    })
}
