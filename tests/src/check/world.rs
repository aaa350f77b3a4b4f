//! What is measured, as an operator would run it: private servers, a ledger and entitlement, and beside them the peers of the
//! check. Everything listens by mTLS with identity on, so that no figure leaves out what a real call pays.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use drawdown_client::{Channel, ChannelOptions, KeyText, TlsOptions, connect};
use drawdown_sandbox::Sandbox;
use drawdown_tls::issue::{Authority, Profile};
use tempfile::TempDir;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::process::{Program, drawdown_binary, free_ports, wait_until};

/// How long a process may take until it serves.
const READY_LIMIT: Duration = Duration::from_secs(180);
/// The certificate of the operator.
pub(super) const OPERATOR: &str = "operator";
/// That of metering, which posts usage.
pub(super) const METERING: &str = "metering";
/// That of somebody without any rights: what may be done is up to the key.
const CALLER: &str = "caller";

/// A process of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Ledger,
    Entitlement,
    /// A second instance on the same database: what one instance is told, the other has to hear.
    OtherEntitlement,
    /// The empty method.
    Null,
    /// The check that asks Redis.
    Redis,
}

/// The servers and all processes; all of it goes when this is dropped.
pub(super) struct World {
    // processes first: they stop before their servers
    programs: Vec<(Part, Program)>,
    sandbox: Sandbox,
    dir: TempDir,
    ports: [[u16; 2]; 5],
}

// === impl Part ===

impl Part {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ledger => "ledger",
            Self::Entitlement => "entitlement",
            Self::OtherEntitlement => "entitlement-1",
            Self::Null => "null",
            Self::Redis => "redis",
        }
    }

    /// The name in its certificate. The peers ask entitlement about keys as metering does.
    const fn certificate(self) -> &'static str {
        match self {
            Self::Ledger => "ledger",
            Self::Entitlement | Self::OtherEntitlement => "entitlement",
            Self::Null | Self::Redis => METERING,
        }
    }

    const fn place(self) -> usize {
        match self {
            Self::Ledger => 0,
            Self::Entitlement => 1,
            Self::OtherEntitlement => 2,
            Self::Null => 3,
            Self::Redis => 4,
        }
    }
}

// === impl World ===

impl World {
    /// Starts the servers, issues the certificates, writes the configurations and migrates.
    pub(super) async fn start() -> Result<Self> {
        let sandbox =
            tokio::task::spawn_blocking(|| Sandbox::start(drawdown_sandbox::Options::from_env()?)).await??;
        let dir = TempDir::with_prefix("drawdown-check-")?;
        issue(dir.path())?;
        let ports = free_ports::<10>()?;
        let pair = |place: usize| [ports[2 * place], ports[2 * place + 1]];
        let ports = [0, 1, 2, 3, 4].map(pair);
        let world = Self { programs: Vec::new(), sandbox, dir, ports };
        for part in [Part::Entitlement, Part::OtherEntitlement] {
            std::fs::write(world.config(part), world.drawdown_toml(part))?;
        }
        let migrated = world.drawdown("migrate", Part::Entitlement)?.output().context("drawdown migrate")?;
        ensure!(migrated.status.success(), "migrate: {}", String::from_utf8_lossy(&migrated.stderr));
        Ok(world)
    }

    /// A folder of this run's own.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) const fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// What the figures depend on, as it is written in the configurations.
    pub(super) fn settings(&self) -> String {
        self.server_toml(Part::Entitlement).replace(&self.dir().display().to_string(), "…").replace('\n', " ")
    }

    /// Starts a process; does not wait until it serves.
    pub(super) fn spawn(&mut self, part: Part) -> Result<()> {
        let command = match part {
            Part::Ledger => self.drawdown("ledger", Part::Entitlement)?,
            Part::Entitlement | Part::OtherEntitlement => self.drawdown("entitlement", part)?,
            Part::Null | Part::Redis => {
                std::fs::write(self.config(part), self.peer_toml(part))?;
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("check-peer").arg("--peer-config").arg(self.config(part));
                command
            }
        };
        let program = Program::start(part.name(), command, self.dir.path())?;
        self.programs.push((part, program));
        Ok(())
    }

    /// Starts a process and waits until it serves.
    pub(super) async fn run(&mut self, part: Part) -> Result<()> {
        self.spawn(part)?;
        let health = HealthClient::new(self.channel(part, OPERATOR)?.unary());
        let ready = wait_until(part.name(), READY_LIMIT, || {
            let mut health = health.clone();
            async move {
                let answer = health.check(HealthCheckRequest::default()).await?;
                Ok(answer.into_inner().status == 1)
            }
        });
        let ready = ready.await;
        ready.with_context(|| self.log_tail(part))
    }

    /// Stops a process gently.
    pub(super) async fn stop(&mut self, part: Part) -> Result<()> {
        let place = self.programs.iter().position(|(other, _)| *other == part);
        let (_, mut program) = self.programs.swap_remove(place.context("it does not run")?);
        let status = program.stop().await?;
        ensure!(status.success(), "{} ended with {status}; {}", part.name(), program.log_tail());
        Ok(())
    }

    /// Stops everything, who depends on others first.
    pub(super) async fn stop_all(mut self) -> Result<()> {
        for part in [Part::Null, Part::Redis, Part::OtherEntitlement, Part::Entitlement, Part::Ledger] {
            if self.pid(part).is_ok() {
                self.stop(part).await?;
            }
        }
        Ok(())
    }

    pub(super) fn pid(&self, part: Part) -> Result<u32> {
        let running = self.programs.iter().find(|(other, _)| *other == part);
        running.map(|(_, program)| program.pid()).with_context(|| format!("{} is down", part.name()))
    }

    /// The end of what a process printed.
    pub(super) fn log_tail(&self, part: Part) -> String {
        let running = self.programs.iter().find(|(other, _)| *other == part);
        running.map(|(_, program)| program.log_tail()).unwrap_or_default()
    }

    /// A channel of its own connection, with the certificate of `caller`.
    pub(super) fn channel(&self, part: Part, caller: &str) -> Result<Channel> {
        let [port, _] = self.ports[part.place()];
        let file = |name: String| self.dir.path().join(name);
        let tls = TlsOptions {
            trust_bundle: file("bundle.pem".to_owned()),
            certificate: file(format!("{caller}.pem")),
            key: file(format!("{caller}.key")),
            peer: part.certificate().to_owned(),
        };
        let options = ChannelOptions { tls, ..ChannelOptions::to(format!("https://127.0.0.1:{port}")) };
        Ok(connect(&options)?)
    }

    /// A channel whose calls carry a key, over a certificate that means nothing.
    pub(super) fn keyed(&self, part: Part, key: &KeyText) -> Result<Channel> {
        Ok(self.channel(part, CALLER)?.with_key(Some(key)))
    }

    /// Where the answer is that the empty method gives.
    pub(super) fn answer_file(&self) -> PathBuf {
        self.dir.path().join("answer")
    }

    fn config(&self, part: Part) -> PathBuf {
        self.dir.path().join(format!("{}.toml", part.name()))
    }

    fn drawdown(&self, subcommand: &str, config: Part) -> Result<Command> {
        let mut command = Command::new(drawdown_binary()?);
        command.arg(subcommand).arg("--config").arg(self.config(config)).env_remove("DRAWDOWN_CONFIG");
        Ok(command)
    }

    /// The same for all who answer checks, but for names and ports.
    fn server_toml(&self, part: Part) -> String {
        let [port, page] = self.ports[part.place()];
        let (dir, name) = (self.dir.path().display(), part.certificate());
        format!(
            r#"server.listen = "127.0.0.1:{port}"
server.metrics_listen = "127.0.0.1:{page}"
server.tls.certificate = "{dir}/{name}.pem"
server.tls.key = "{dir}/{name}.key"
server.tls.trust_bundle = "{dir}/bundle.pem"
server.tls.client_certificates = "required"
server.identity.mode = "on"
server.identity.key_cache_ms = 2000
"#
        )
    }

    fn drawdown_toml(&self, entitlement: Part) -> String {
        let postgres = self.sandbox.postgres_url();
        let url = |part: Part| format!("https://127.0.0.1:{}", self.ports[part.place()][0]);
        let pepper = "00112233445566778899aabbccddeeff".repeat(2);
        format!(
            r#"[ledger]
{ledger_server}database.url = "{postgres}"
database.role = "drawdown_ledger_service"
entitlement.endpoint = "{entitlement_url}"

[entitlement]
credential_pepper = "{pepper}"
{entitlement_server}database.url = "{postgres}"
database.role = "drawdown_entitlement_service"
ledger.endpoint = "{ledger_url}"
"#,
            ledger_server = self.server_toml(Part::Ledger),
            entitlement_server = self.server_toml(entitlement),
            entitlement_url = url(Part::Entitlement),
            ledger_url = url(Part::Ledger),
        )
    }

    fn peer_toml(&self, part: Part) -> String {
        let [port, _] = self.ports[Part::Entitlement.place()];
        let (dir, name) = (self.dir.path().display(), part.certificate());
        let behind = match part {
            Part::Redis => format!("redis_url = \"{}\"", self.sandbox.redis_url()),
            _ => format!("answer_file = \"{}\"", self.answer_file().display()),
        };
        format!(
            r#"{behind}
{server}entitlement.endpoint = "https://127.0.0.1:{port}"
entitlement.tls.certificate = "{dir}/{name}.pem"
entitlement.tls.key = "{dir}/{name}.key"
entitlement.tls.trust_bundle = "{dir}/bundle.pem"
"#,
            server = self.server_toml(part),
        )
    }
}

/// An authority and the certificates of everybody.
fn issue(dir: &Path) -> Result<()> {
    let authority = Authority::new("bench").map_err(|error| anyhow!(error))?;
    std::fs::write(dir.join("bundle.pem"), authority.certificate_pem())?;
    let services = ["ledger", "entitlement", METERING].map(Profile::service);
    for profile in services.into_iter().chain([OPERATOR, CALLER].map(Profile::client)) {
        let issued = authority.issue(&profile)?;
        std::fs::write(dir.join(format!("{}.pem", profile.common_name)), issued.certificate_pem())?;
        std::fs::write(dir.join(format!("{}.key", profile.common_name)), issued.key_pem())?;
    }
    Ok(())
}
