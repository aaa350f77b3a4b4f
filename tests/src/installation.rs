//! A whole installation as an operator runs it: private servers and one real process for each service.
//!
//! Ports are chosen once, so that a service that was killed comes back where its peers look for it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use drawdown_sandbox::Sandbox;
use tempfile::TempDir;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    platform::{Channels, Endpoints},
    process::{Program, drawdown_binary, free_ports, wait_until},
};

/// How long a service may take until it says that it serves.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// What an installation is set up with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The lateness limit of the ledger, in seconds.
    pub lateness_limit_secs: u64,
    /// Further TOML for the configuration file, such as `[telemetry]`.
    pub further_toml: String,
    /// The services that are started.
    pub services: Vec<Service>,
    /// A second ledger with a Postgres server of its own, as cell 1.
    pub two_cells: bool,
    /// A second instance of metering on the same Redis.
    pub two_meterings: bool,
}

impl Settings {
    /// With two cells.
    #[must_use]
    pub fn two_cells() -> Self {
        let services = vec![Service::Ledger, Service::OtherLedger, Service::Entitlement, Service::Metering];
        Self { services, two_cells: true, ..Self::default() }
    }
}

impl Default for Settings {
    /// Seven days, as the replayed log spans more than three.
    fn default() -> Self {
        Self {
            lateness_limit_secs: 7 * 86_400,
            further_toml: String::new(),
            services: vec![Service::Ledger, Service::Entitlement, Service::Metering],
            two_cells: false,
            two_meterings: false,
        }
    }
}

/// One of the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Metering.
    Metering,
    /// The second instance of metering.
    OtherMetering,
    /// The ledger: the only one, or the leading one.
    Ledger,
    /// The ledger of cell 1.
    OtherLedger,
    /// Entitlement.
    Entitlement,
}

impl Service {
    /// The subcommand.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metering | Self::OtherMetering => "metering",
            Self::Ledger | Self::OtherLedger => "ledger",
            Self::Entitlement => "entitlement",
        }
    }

    /// Of its log.
    const fn log_name(self) -> &'static str {
        match self {
            Self::OtherLedger => "ledger-1",
            Self::OtherMetering => "metering-1",
            Self::Metering | Self::Ledger | Self::Entitlement => self.name(),
        }
    }
}

/// Private servers and three processes; all of it goes when this is dropped.
#[derive(Debug)]
pub struct Installation {
    // Processes first: fields are dropped in this order, and services stop before their servers.
    ledger: Option<Program>,
    other_ledger: Option<Program>,
    entitlement: Option<Program>,
    metering: Option<Program>,
    other_metering: Option<Program>,
    sandbox: Sandbox,
    /// The servers of cell 1.
    other_sandbox: Option<Sandbox>,
    dir: TempDir,
    binary: PathBuf,
    endpoints: Endpoints,
    metrics: [String; 3],
    channels: Channels,
}

impl Installation {
    /// Starts servers and services and waits until all serve.
    ///
    /// # Errors
    /// Where one of them does not start; with the end of its log.
    pub async fn start(settings: &Settings) -> Result<Self> {
        let sandbox =
            tokio::task::spawn_blocking(|| Sandbox::start(drawdown_sandbox::Options::from_env()?)).await??;
        let dir = TempDir::with_prefix("drawdown-installation-")?;
        let [metering, ledger, entitlement, metering_page, ledger_page, entitlement_page, other, other_page] =
            free_ports::<8>()?;
        let [other_metering, other_metering_page] = free_ports::<2>()?;
        let http = |port: u16| format!("http://127.0.0.1:{port}");
        let endpoints = Endpoints {
            metering: http(metering),
            ledger: http(ledger),
            entitlement: http(entitlement),
            other_ledger: settings.two_cells.then(|| http(other)),
            other_metering: settings.two_meterings.then(|| http(other_metering)),
        };
        let ports = [metering, ledger, entitlement, metering_page, ledger_page, entitlement_page];
        let further = if settings.two_cells { leading_toml(other) } else { String::new() };
        let config = config_toml((sandbox.postgres_url(), sandbox.redis_url()), ports, settings, &further);
        std::fs::write(dir.path().join("drawdown.toml"), config)?;
        if settings.two_meterings {
            let ports =
                [other_metering, ledger, entitlement, other_metering_page, ledger_page, entitlement_page];
            let config =
                config_toml((sandbox.postgres_url(), sandbox.redis_url()), ports, settings, &further);
            std::fs::write(dir.path().join("metering-1.toml"), config)?;
        }
        let other_sandbox = match settings.two_cells {
            true => Some(tokio::task::spawn_blocking(other_servers).await??),
            false => None,
        };
        if let Some(other_sandbox) = &other_sandbox {
            let ports = [metering, other, entitlement, metering_page, other_page, entitlement_page];
            let servers = (other_sandbox.postgres_url(), sandbox.redis_url());
            let config = config_toml(servers, ports, settings, "[ledger.cells]\nnumber = 1\n");
            std::fs::write(dir.path().join("cell-1.toml"), config)?;
        }
        let channels = Channels::to(&endpoints)?;
        let mut installation = Self {
            ledger: None,
            other_ledger: None,
            entitlement: None,
            metering: None,
            other_metering: None,
            sandbox,
            other_sandbox,
            dir,
            binary: drawdown_binary()?,
            endpoints,
            metrics: [http(metering_page), http(ledger_page), http(entitlement_page)],
            channels,
        };
        let other = settings.two_cells.then(|| installation.other_command("migrate"));
        for mut migrate in [installation.command("migrate")].into_iter().chain(other) {
            let migrated = migrate.output().context("drawdown migrate")?;
            ensure!(migrated.status.success(), "migrate: {}", String::from_utf8_lossy(&migrated.stderr));
        }
        for service in &settings.services {
            installation.spawn(*service)?;
        }
        for service in &settings.services {
            installation.await_serving(*service).await?;
        }
        Ok(installation)
    }

    /// Where the services listen.
    #[must_use]
    pub const fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Channels to the services.
    #[must_use]
    pub const fn channels(&self) -> &Channels {
        &self.channels
    }

    /// The private servers, for drills.
    #[must_use]
    pub const fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// A folder of this installation's own.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("drawdown.toml")
    }

    /// The scrape pages' addresses: metering, ledger, entitlement.
    #[must_use]
    pub const fn metrics(&self) -> &[String; 3] {
        &self.metrics
    }

    /// `drawdown SUBCOMMAND --config …`, to which the caller adds arguments.
    #[must_use]
    pub fn command(&self, subcommand: &str) -> Command {
        self.command_of("drawdown.toml", subcommand)
    }

    fn command_of(&self, config: &str, subcommand: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg(subcommand).arg("--config").arg(self.dir.path().join(config));
        command
    }

    /// The same with the configuration of cell 1.
    #[must_use]
    pub fn other_command(&self, subcommand: &str) -> Command {
        self.command_of("cell-1.toml", subcommand)
    }

    /// Runs a command of the operator that succeeds, and reads its answer.
    ///
    /// # Errors
    /// Where it fails or answers no JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--json");
        command.args(["--metering-endpoint", &self.endpoints.metering]);
        command.args(["--ledger-endpoint", &self.endpoints.ledger]);
        command.args(["--entitlement-endpoint", &self.endpoints.entitlement]);
        let output = command.output().with_context(|| format!("{arguments:?}"))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?} ended with {}: {errors}", output.status);
        serde_json::from_slice(&output.stdout).with_context(|| format!("{arguments:?}"))
    }

    /// The databases of the cells, the leading one first.
    #[must_use]
    pub fn databases(&self) -> Vec<&str> {
        [&self.sandbox].into_iter().chain(&self.other_sandbox).map(Sandbox::postgres_url).collect()
    }

    /// Starts a service that is not running and waits until it serves.
    ///
    /// # Errors
    /// Where it does not; with the end of its log.
    pub async fn start_service(&mut self, service: Service) -> Result<()> {
        self.spawn(service)?;
        self.await_serving(service).await
    }

    /// The process of a running service.
    ///
    /// # Errors
    /// Where it is down.
    pub fn pid(&mut self, service: Service) -> Result<u32> {
        self.slot(service).as_ref().map(Program::pid).with_context(|| format!("{} is down", service.name()))
    }

    /// Ends a service as a power cut would.
    ///
    /// # Errors
    /// Where it is not running.
    pub fn kill_service(&mut self, service: Service) -> Result<()> {
        let mut program = self.slot(service).take().with_context(|| format!("{} is down", service.name()))?;
        program.kill()
    }

    fn slot(&mut self, service: Service) -> &mut Option<Program> {
        match service {
            Service::Metering => &mut self.metering,
            Service::OtherMetering => &mut self.other_metering,
            Service::Ledger => &mut self.ledger,
            Service::OtherLedger => &mut self.other_ledger,
            Service::Entitlement => &mut self.entitlement,
        }
    }

    fn spawn(&mut self, service: Service) -> Result<()> {
        ensure!(self.slot(service).is_none(), "{} runs already", service.name());
        let command = match service {
            Service::OtherLedger => self.command_of("cell-1.toml", service.name()),
            Service::OtherMetering => self.command_of("metering-1.toml", service.name()),
            Service::Metering | Service::Ledger | Service::Entitlement => self.command(service.name()),
        };
        let program = Program::start(service.log_name(), command, self.dir.path())?;
        *self.slot(service) = Some(program);
        Ok(())
    }

    async fn await_serving(&mut self, service: Service) -> Result<()> {
        let channel = match service {
            Service::Metering => &self.channels.metering,
            Service::OtherMetering => {
                self.channels.other_metering.as_ref().context("there is one metering")?
            }
            Service::Ledger => &self.channels.ledger,
            Service::OtherLedger => self.channels.other_ledger.as_ref().context("there is one cell")?,
            Service::Entitlement => &self.channels.entitlement,
        };
        let health = HealthClient::new(channel.unary());
        let ready = wait_until(service.name(), READY_LIMIT, || {
            let mut health = health.clone();
            async move {
                let answer = health.check(HealthCheckRequest { service: String::new() }).await?;
                Ok(answer.into_inner().status == 1)
            }
        });
        let ready = ready.await;
        let log = self.slot(service).as_ref().map(Program::log_tail).unwrap_or_default();
        ready.with_context(|| log)
    }

    /// Stops the services gently, then the servers.
    ///
    /// # Errors
    /// Where one of them does not end.
    pub async fn stop(mut self) -> Result<()> {
        let meterings = [Service::OtherMetering, Service::Metering];
        for service in
            meterings.into_iter().chain([Service::Entitlement, Service::OtherLedger, Service::Ledger])
        {
            if let Some(program) = self.slot(service) {
                let status = program.stop().await?;
                let log = program.log_tail();
                ensure!(status.success(), "{} ended with {status}; {log}", service.name());
            }
        }
        Ok(())
    }

    /// What the services printed, for messages.
    #[must_use]
    pub fn logs(&self) -> String {
        let programs =
            [&self.other_metering, &self.metering, &self.ledger, &self.other_ledger, &self.entitlement];
        programs.into_iter().flatten().map(Program::log_tail).collect::<Vec<_>>().join("\n\n")
    }
}

/// A Postgres of its own for cell 1, also where another one was given; its Redis is not used.
fn other_servers() -> Result<Sandbox> {
    let options = drawdown_sandbox::Options::from_env()?;
    Ok(Sandbox::start(drawdown_sandbox::Options { postgres_url: None, redis_url: None, ..options })?)
}

/// What the leading cell, metering and entitlement have to know of cell 1.
fn leading_toml(other_ledger: u16) -> String {
    format!(
        r#"
[ledger.cells]
others = [1]
[[metering.cells]]
number = 1
ledger.endpoint = "http://127.0.0.1:{other_ledger}"
[[entitlement.cells]]
number = 1
ledger.endpoint = "http://127.0.0.1:{other_ledger}"
"#
    )
}

fn config_toml((postgres, redis): (&str, &str), ports: [u16; 6], settings: &Settings, cells: &str) -> String {
    let [metering, ledger, entitlement, metering_page, ledger_page, entitlement_page] = ports;
    let lateness = settings.lateness_limit_secs;
    let pepper = "00112233445566778899aabbccddeeff".repeat(2);
    let further = &settings.further_toml;
    format!(
        r#"
[metering.server]
listen = "127.0.0.1:{metering}"
metrics_listen = "127.0.0.1:{metering_page}"
[metering.redis]
url = "{redis}"
[metering.ledger]
endpoint = "http://127.0.0.1:{ledger}"
[metering.entitlement]
endpoint = "http://127.0.0.1:{entitlement}"

[ledger]
lateness_limit_secs = {lateness}
[ledger.server]
listen = "127.0.0.1:{ledger}"
metrics_listen = "127.0.0.1:{ledger_page}"
[ledger.database]
url = "{postgres}"
role = "drawdown_ledger_service"
[ledger.entitlement]
endpoint = "http://127.0.0.1:{entitlement}"

[entitlement]
credential_pepper = "{pepper}"
[entitlement.server]
listen = "127.0.0.1:{entitlement}"
metrics_listen = "127.0.0.1:{entitlement_page}"
[entitlement.database]
url = "{postgres}"
role = "drawdown_entitlement_service"
[entitlement.ledger]
endpoint = "http://127.0.0.1:{ledger}"
{cells}
{further}
"#
    )
}
