//! Builds the service and owns the order of start and drain: settings that must fit the database are
//! compared first, ports are bound next, calls are taken last. On the signal to stop the server drains
//! its calls, then the jobs end, then the pool closes.

use std::sync::Arc;

use anyhow::Context as _;
use drawdown_client::ChannelOptions;
use drawdown_entitlement_core::Rules;
use drawdown_proto::entitlement::v1::{
    access_service_server::AccessServiceServer, account_service_server::AccountServiceServer,
    credential_service_server::CredentialServiceServer, hierarchy_service_server::HierarchyServiceServer,
    history_service_server::HistoryServiceServer, hub_service_server::HubServiceServer,
    import_service_server::ImportServiceServer, member_service_server::MemberServiceServer,
    principal_service_server::PrincipalServiceServer, resolution_service_server::ResolutionServiceServer,
    transfer_service_server::TransferServiceServer,
};
use drawdown_service::{Context, Jobs, Server};
use drawdown_types::Clock;
use opentelemetry::metrics::Meter;
use sqlx::PgPool;

use crate::{
    Access, Accounts, CellLedgers, Config, Credentials, Follower, Hierarchy, Histories, Hubs, Imports,
    Ledger, LedgerFacts, Limits, Members, Memory, Pepper, Principals, Resolutions, Transfers,
    acts::Acts,
    identity,
    jobs::{adopt::Adoptions, clock_check::ClockCheck, feed::DirectoryFeed},
    metrics::Metrics,
    store,
};

/// What the handlers are made of. [`run`] fills it in; a test fills in its own clock and ledger.
#[derive(Clone)]
pub struct Parts {
    /// The database, migrated.
    pub pool: PgPool,
    /// Where every instant comes from.
    pub clock: Arc<dyn Clock>,
    /// Where instruments are made.
    pub meter: Meter,
    /// What the rules take.
    pub rules: Rules,
    /// Limits of the handlers.
    pub limits: Limits,
    /// The key of the hashes of all secrets.
    pub pepper: Pepper,
    /// Who knows what the ledger knows.
    pub ledger: Arc<dyn LedgerFacts>,
    /// What access is answered from, and resolution once it is loaded.
    pub memory: Arc<Memory>,
}

impl Parts {
    pub(crate) fn acts(&self) -> Acts {
        Acts {
            store: store::Store::new(self.pool.clone()),
            clock: Arc::clone(&self.clock),
            rules: self.rules,
            limits: self.limits,
            pepper: self.pepper.clone(),
            ledger: Arc::clone(&self.ledger),
            memory: Arc::clone(&self.memory),
            metrics: Metrics::new(&self.meter),
        }
    }
}

/// Brings the schema `entitlement` up to date, and the rights of its roles. Harmless where it is.
///
/// # Errors
/// Where the database refuses a migration, or was migrated by a newer version.
pub async fn migrate(pool: &PgPool) -> Result<(), sqlx::migrate::MigrateError> {
    sqlx::migrate!().run(pool).await?;
    // What is new since the roles were made has its rights from here.
    sqlx::query("SELECT entitlement.apply_roles()").execute(pool).await?;
    Ok(())
}

/// Serves until the context's signal to stop.
///
/// # Errors
/// Where the configuration does not fit the database, a port is taken, or the server fails.
pub async fn run(config: Config, context: Context) -> anyhow::Result<()> {
    let pool = store::pool(&config.database);
    let store = store::Store::new(pool.clone());
    store
        .check_installation(config.rules.window, &config.pepper)
        .await
        .context("can not start on this database; was it migrated?")?;
    let ledgers = Arc::new(ledgers(&config)?);
    let meter = context.telemetry.meter();
    let of_rules = (config.rules, config.limits.hub_mode);
    let clock = Arc::clone(&context.clock);
    let memory = Memory::new(pool.clone(), clock, of_rules, config.access.policy, &meter);
    let parts = Parts {
        pool: pool.clone(),
        clock: Arc::clone(&context.clock),
        meter,
        rules: config.rules,
        limits: config.limits,
        pepper: config.pepper,
        ledger: Arc::clone(&ledgers) as Arc<dyn LedgerFacts>,
        memory: Arc::clone(&memory),
    };
    let server = Server::bind(&config.server, &context).await?.identify(identity::sources(&parts));
    let check = ClockCheck {
        store,
        pool: pool.clone(),
        clock: Arc::clone(&context.clock),
        metrics: Metrics::new(&parts.meter),
        interval: config.clock_check_interval,
        alarm: config.clock_skew_alarm,
    };
    memory.load().await.context("can not read the directory")?;
    let listen = config.access.feed_listens.then(|| store::listener(&config.database));
    let feed = DirectoryFeed { memory: Arc::clone(&memory), listen, interval: config.access.feed_interval };
    let adoptions = Adoptions::new(&parts, Arc::new(ledgers.leading.clone()), config.adoption);
    let mut jobs = Jobs::of(&context);
    jobs.start("feeds the directory", |stop| feed.run(stop));
    for (cell, ledger) in ledgers.all() {
        let standings = Arc::new(ledger.clone());
        let follower = Follower::new(Arc::clone(&memory), cell, standings, config.access.follow);
        jobs.start("follows a ledger", |stop| follower.run(stop));
    }
    jobs.start("tells of first teams", |stop| adoptions.run(stop));
    jobs.start("compares clocks", |stop| check.run(stop));
    let access = Access::new(memory, config.access.limits, context.shutdown.clone());
    let served = with_services(server, &parts, access, config.server.message_bytes_max).serve().await;
    jobs.end().await?;
    pool.close().await;
    Ok(served?)
}

/// The ledgers of all cells; each connects when it is first asked.
fn ledgers(config: &Config) -> anyhow::Result<CellLedgers> {
    let leading = drawdown_client::connect(&config.ledger).context("no channel to the ledger")?;
    let other = |(cell, options): (&u8, &ChannelOptions)| {
        let channel = drawdown_client::connect(options);
        let channel = channel.with_context(|| format!("no channel to the ledger of cell {cell}"))?;
        Ok((*cell, Ledger::new(channel)))
    };
    let others = config.cells.iter().map(other).collect::<anyhow::Result<_>>()?;
    Ok(CellLedgers { leading: Ledger::new(leading), others })
}

/// Every service, with one limit on what a message may weigh.
fn with_services(server: Server, parts: &Parts, access: Access, bytes_max: usize) -> Server {
    macro_rules! limited {
        ($server:ident, $handler:ident) => {
            $server::new($handler::new(parts)).max_decoding_message_size(bytes_max)
        };
    }
    server
        .add_service(AccessServiceServer::new(access).max_decoding_message_size(bytes_max))
        .add_service(limited!(AccountServiceServer, Accounts))
        .add_service(limited!(CredentialServiceServer, Credentials))
        .add_service(limited!(HierarchyServiceServer, Hierarchy))
        .add_service(limited!(HistoryServiceServer, Histories))
        .add_service(limited!(HubServiceServer, Hubs))
        .add_service(limited!(ImportServiceServer, Imports))
        .add_service(limited!(MemberServiceServer, Members))
        .add_service(limited!(PrincipalServiceServer, Principals))
        .add_service(limited!(ResolutionServiceServer, Resolutions))
        .add_service(limited!(TransferServiceServer, Transfers))
}
