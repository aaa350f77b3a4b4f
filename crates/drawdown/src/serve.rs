//! Running services: one in a process, or all of them.
//!
//! Order: the whole configuration is read and checked first, for every service that will run; then
//! telemetry starts, then ports are bound. A stop goes the other way round: metering drains first, while
//! the ledger can still settle what it holds, then ledger and entitlement.

mod config;
mod migrate;
mod part;
mod partitions;
mod run;
mod up;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use drawdown_service::config::Sources;

pub(crate) use config::{ConfigCommand, telemetry_config};
pub(crate) use migrate::MigrateCommand;
pub(crate) use part::Service;
pub(crate) use partitions::PartitionsCommand;
pub(crate) use run::Signals;
pub(crate) use up::UpCommand;

use crate::{failure::BadConfiguration, operator::Addresses};
use config::Settings;

/// How a service is run.
#[derive(Args, Debug)]
pub(crate) struct ServeArguments {
    /// The configuration; every value can also be set as DRAWDOWN_<SECTION>__<NAME>
    #[arg(long, value_name = "FILE", env = "DRAWDOWN_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Writes the addresses to this file once calls are taken
    #[arg(long, value_name = "FILE")]
    write_addresses: Option<PathBuf>,
}

impl ServeArguments {
    /// Runs one service until it is told to stop.
    pub(crate) async fn run(self, service: Service) -> Result<()> {
        let sources = Sources::of_process(self.config.as_deref()).map_err(BadConfiguration::from)?;
        let settings = Settings::load(&sources, &[service])?;
        let write_addresses = self.write_addresses;
        run::run(settings, service.name(), Signals::listen()?, |services| match write_addresses {
            Some(path) => Addresses { services, ..Addresses::default() }.write(&path),
            None => Ok(()),
        })
        .await
    }
}
