//! The services this binary is made of: the one place that names all three.

use std::{future::Future, pin::Pin};

use anyhow::{Context as _, Result};
use drawdown_service::{
    Context, Problem,
    config::{ConfigError, Sources, load},
};

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    /// Ledger and entitlement are started before metering and stopped after it.
    Entitlement,
    Ledger,
    Metering,
}

/// The checked configuration of a service.
pub(crate) enum Config {
    Entitlement(Box<drawdown_entitlement::config::Config>),
    Ledger(Box<drawdown_ledger::config::Config>),
    Metering(Box<drawdown_metering::config::Config>),
}

/// A service that runs.
pub(crate) type Running = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

impl Service {
    pub(crate) const ALL: [Self; 3] = [Self::Entitlement, Self::Ledger, Self::Metering];

    /// Its name: of its section, its subcommand and its telemetry.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Entitlement => "entitlement",
            Self::Ledger => "ledger",
            Self::Metering => "metering",
        }
    }

    /// The services that call it: each has its address as `<name>.endpoint` in its own section.
    pub(crate) const fn peers(self) -> &'static [Self] {
        match self {
            Self::Entitlement => &[Self::Ledger, Self::Metering],
            Self::Ledger => &[Self::Entitlement, Self::Metering],
            Self::Metering => &[],
        }
    }

    /// The documented defaults of its section.
    pub(crate) const fn defaults(self) -> &'static str {
        match self {
            Self::Entitlement => drawdown_entitlement::config::DEFAULTS_TOML,
            Self::Ledger => drawdown_ledger::config::DEFAULTS_TOML,
            Self::Metering => drawdown_metering::config::DEFAULTS_TOML,
        }
    }

    /// Reads and checks its section.
    pub(crate) fn config(self, sources: &Sources) -> Result<Config, Vec<Problem>> {
        let (name, defaults) = (self.name(), self.defaults());
        let checked = match self {
            Self::Entitlement => load::<drawdown_entitlement::config::Options>(defaults, sources, name)
                .map(|options| options.validate().map(|config| Config::Entitlement(Box::new(config)))),
            Self::Ledger => load::<drawdown_ledger::config::Options>(defaults, sources, name)
                .map(|options| options.validate().map(|config| Config::Ledger(Box::new(config)))),
            Self::Metering => load::<drawdown_metering::config::Options>(defaults, sources, name)
                .map(|options| options.validate().map(|config| Config::Metering(Box::new(config)))),
        };
        let within = |problems: Vec<Problem>| problems.into_iter().map(|p| p.within(name)).collect();
        checked.map_err(|error: ConfigError| error.problems())?.map_err(within)
    }
}

impl Config {
    pub(crate) const fn service(&self) -> Service {
        match self {
            Self::Entitlement(_) => Service::Entitlement,
            Self::Ledger(_) => Service::Ledger,
            Self::Metering(_) => Service::Metering,
        }
    }

    /// Where it listens for gRPC.
    pub(crate) const fn listen(&self) -> std::net::SocketAddr {
        match self {
            Self::Entitlement(config) => config.server.listen,
            Self::Ledger(config) => config.server.listen,
            Self::Metering(config) => config.server.listen,
        }
    }

    /// Brings its schema up to date; a service without one has nothing to do.
    pub(crate) async fn migrate(&self) -> Result<()> {
        match self {
            Self::Entitlement(config) => {
                let pool = drawdown_entitlement::owner(&config.database);
                let migrated = drawdown_entitlement::migrate(&pool).await;
                pool.close().await;
                migrated.context("can not bring the schema entitlement up to date")
            }
            Self::Ledger(config) => {
                let pool = drawdown_ledger::store::pool::owner(&config.database);
                let migrated = drawdown_ledger::migrate(&pool).await;
                pool.close().await;
                migrated.context("can not bring the schema ledger up to date")
            }
            Self::Metering(_) => Ok(()),
        }
    }

    /// Runs the service until the context says stop.
    pub(crate) fn run(self, context: Context) -> Running {
        match self {
            Self::Entitlement(config) => Box::pin(drawdown_entitlement::run(*config, context)),
            Self::Ledger(config) => Box::pin(drawdown_ledger::run(*config, context)),
            Self::Metering(config) => Box::pin(drawdown_metering::run(*config, context)),
        }
    }
}
