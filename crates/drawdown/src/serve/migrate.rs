//! `drawdown migrate`: brings the schemas of ledger and entitlement up to date.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use drawdown_service::{config::Sources, telemetry};

use super::{
    config::Settings,
    part::{Config, Service},
};
use crate::{failure::BadConfiguration, output};

/// Brings the schemas of ledger and entitlement in the database up to date
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  drawdown migrate --config drawdown.toml")]
pub(crate) struct MigrateCommand {
    /// The configuration; every value can also be set as DRAWDOWN_<SECTION>__<NAME>
    #[arg(long, value_name = "FILE", env = "DRAWDOWN_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
}

/// The services that have a schema.
const WITH_SCHEMA: [Service; 2] = [Service::Entitlement, Service::Ledger];

impl MigrateCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let sources = Sources::of_process(self.config.as_deref()).map_err(BadConfiguration::from)?;
        let settings = Settings::load(&sources, &WITH_SCHEMA)?;
        telemetry::start_process("migrate", &settings.telemetry)?;
        for config in &settings.services {
            migrate(config).await?;
            output::print(&format!("{}: up to date\n", config.service().name()))?;
        }
        Ok(())
    }
}

/// Migrates the schema of one service; those without one have nothing to do.
pub(super) async fn migrate(config: &Config) -> Result<()> {
    config.migrate().await
}
