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
            Self::Ledger => "",
            Self::Metering => "",
        }
    }

    /// Reads and checks its section.
    pub(crate) fn config(self, sources: &Sources) -> Result<Config, Vec<Problem>> {
        let (name, defaults) = (self.name(), self.defaults());
        let checked = match self {
            Self::Entitlement => load::<drawdown_entitlement::config::Options>(defaults, sources, name)
                .map(|options| options.validate().map(|config| Config::Entitlement(Box::new(config)))),
            _ => return Err(vec![]),
        };
        let within = |problems: Vec<Problem>| problems.into_iter().map(|p| p.within(name)).collect();
        checked.map_err(|error: ConfigError| error.problems())?.map_err(within)
    }
}

impl Config {
    pub(crate) const fn service(&self) -> Service {
        match self {
            Self::Entitlement(_) => Service::Entitlement,
        }
    }

    /// Brings its schema up to date; a service without one has nothing to do.
    pub(crate) async fn migrate(&self) -> Result<()> {
        match self {
            Self::Entitlement(config) => {
                let pool = drawdown_entitlement::pool(&config.database);
                let migrated = drawdown_entitlement::migrate(&pool).await;
                pool.close().await;
                migrated.context("can not bring the schema entitlement up to date")
            }
        }
    }

    /// Runs the service until the context says stop.
    pub(crate) fn run(self, context: Context) -> Running {
        match self {
            Self::Entitlement(config) => Box::pin(drawdown_entitlement::run(*config, context)),
        }
    }
}
