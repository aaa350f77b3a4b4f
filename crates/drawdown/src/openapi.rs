//! The contract of the reads over HTTP, without a service that runs.

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::{output::print, serve::Service};

/// Prints the contract of the reads over HTTP as OpenAPI 3.1
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  drawdown openapi --service ledger > ledger.openapi.json")]
pub(crate) struct OpenApiCommand {
    /// Only what this service has
    #[arg(long, value_enum)]
    service: Option<Named>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Named {
    Entitlement,
    Ledger,
    Metering,
}

impl OpenApiCommand {
    pub(crate) fn run(self) -> Result<()> {
        let services = match self.service {
            None => Service::ALL.to_vec(),
            Some(Named::Entitlement) => vec![Service::Entitlement],
            Some(Named::Ledger) => vec![Service::Ledger],
            Some(Named::Metering) => vec![Service::Metering],
        };
        let packages: Vec<String> =
            services.iter().map(|service| format!("drawdown.{}.v1", service.name())).collect();
        let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
        let document =
            drawdown_service::json::document(&packages).context("the contracts can not be read")?;
        print(&format!("{}\n", serde_json::to_string_pretty(&document)?))
    }
}
