//! The configuration of a process: telemetry and the sections of its services, checked as a whole.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use drawdown_service::{
    Problem,
    config::{Sources, load},
    telemetry::{self, TelemetryConfig, TelemetryOptions},
};

use super::part::{Config, Service};
use crate::{failure::BadConfiguration, output};

const TELEMETRY: &str = "telemetry";

/// The configuration of services
#[derive(Args, Debug)]
pub(crate) struct ConfigCommand {
    #[command(subcommand)]
    action: ConfigAction,
}

#[derive(Subcommand, Debug)]
enum ConfigAction {
    /// Checks the configuration of all services; exit code 64 with every problem where it can not be used
    #[command(after_help = "Example:\n  drawdown config check --config drawdown.toml")]
    Check {
        /// The configuration; every value can also be set as DRAWDOWN_<SECTION>__<NAME>
        #[arg(long, value_name = "FILE", env = "DRAWDOWN_CONFIG", hide_env_values = true)]
        config: Option<PathBuf>,
    },
    /// Prints every value with its default and its documentation
    #[command(after_help = "Example:\n  drawdown config defaults > drawdown.toml")]
    Defaults,
}

/// The checked configuration of a process.
pub(super) struct Settings {
    pub(super) telemetry: TelemetryConfig,
    pub(super) services: Vec<Config>,
}

impl ConfigCommand {
    pub(crate) fn run(self) -> Result<()> {
        match self.action {
            ConfigAction::Check { config } => {
                let sources = Sources::of_process(config.as_deref()).map_err(BadConfiguration::from)?;
                Settings::load(&sources, &Service::ALL)?;
                output::print("the configuration can be used\n")
            }
            ConfigAction::Defaults => output::print(&defaults()),
        }
    }
}

impl Settings {
    /// Reads and checks everything that the services need, and names every problem at once.
    pub(super) fn load(sources: &Sources, services: &[Service]) -> Result<Self, BadConfiguration> {
        let known: Vec<&str> =
            std::iter::once(TELEMETRY).chain(Service::ALL.iter().map(|service| service.name())).collect();
        let mut problems = sources.unknown_sections(&known);
        let telemetry = telemetry_config(sources).map_err(|found| problems.extend(found)).ok();
        let mut configs = Vec::with_capacity(services.len());
        for service in services {
            match service.config(sources) {
                Ok(config) => configs.push(config),
                Err(found) => problems.extend(found),
            }
        }
        match telemetry {
            Some(telemetry) if problems.is_empty() => Ok(Self { telemetry, services: configs }),
            _ => Err(BadConfiguration(problems)),
        }
    }
}

/// Reads and checks the section of telemetry.
pub(crate) fn telemetry_config(sources: &Sources) -> Result<TelemetryConfig, Vec<Problem>> {
    let options = load::<TelemetryOptions>(telemetry::DEFAULTS_TOML, sources, TELEMETRY)
        .map_err(|error| error.problems())?;
    options.validate().map_err(|found| found.into_iter().map(|p| p.within(TELEMETRY)).collect())
}

/// One file with all sections: each part documents its own, under names of its own.
fn defaults() -> String {
    let parts = Service::ALL.iter().map(|service| (service.name(), service.defaults()));
    std::iter::once((TELEMETRY, telemetry::DEFAULTS_TOML))
        .chain(parts)
        .map(|(section, defaults)| in_section(section, defaults))
        .collect::<Vec<_>>()
        .join("\n")
}

fn in_section(section: &str, defaults: &str) -> String {
    let lines = defaults.lines().map(|line| match line.strip_prefix('[') {
        Some(rest) => format!("[{section}.{rest}\n"),
        None => format!("{line}\n"),
    });
    format!("[{section}]\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("drawdown.toml");
        std::fs::write(&path, text).unwrap();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let sources = Sources::new(Some(&path), variables).unwrap();
        let refused = Settings::load(&sources, &Service::ALL).err();
        refused.map(|bad| bad.0.iter().map(ToString::to_string).collect()).unwrap_or_default()
    }

    #[test]
    fn the_documented_defaults_are_a_configuration() {
        let pepper = [("DRAWDOWN_ENTITLEMENT__CREDENTIAL_PEPPER", "ab".repeat(32))];
        let variables: Vec<_> = pepper.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(problems_of(&defaults(), &variables), Vec::<String>::new());
        assert_eq!(problems_of("", &variables), Vec::<String>::new());
    }

    #[test]
    fn problems_of_all_sections_are_told_at_once() {
        let problems = problems_of(
            "[leger]\n[telemetry]\nlog_format = \"xml\"\n[ledger.server]\nlisten = \"here\"\n[metering]\nno_such_value = 1",
            &[("DRAWDOWN_ENTITLEMENT__WINDOW_SECS", "7"), ("DRAWDOWN_ENTITLEMENT__CREDENTIAL_PEPPER", "x")],
        );
        let fields: Vec<&str> = problems.iter().filter_map(|problem| problem.split(':').next()).collect();
        assert_eq!(
            fields,
            [
                "leger",
                "telemetry.log_format",
                "entitlement.window_secs",
                "entitlement.credential_pepper",
                "ledger.server.listen",
                "metering.no_such_value",
            ]
        );
    }
}
