//! `drawdown up`: a private Postgres and Redis, and all services on them, in one process.

use std::{net::TcpListener, path::PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use drawdown_sandbox::{Options, Sandbox};
use drawdown_service::config::Sources;

use super::{
    config::Settings,
    part::Service,
    run::{self, BoundAddresses, Signals},
};
use crate::{certs::SetFiles, failure::BadConfiguration, operator::Addresses, output};

/// The file in the data folder that keeps the key of the credentials' hashes between runs.
const PEPPER_FILE: &str = "credential-pepper";
const PEPPER_BYTES: usize = 32;

/// Runs all services in one process, on a private Postgres and Redis
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  drawdown up --data-dir ./data --addresses-file addresses.json\n  drawdown up --tls ./certs"
)]
pub(crate) struct UpCommand {
    /// Keeps the data here between runs; without it they go with the process
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Writes the addresses of services and servers to this file once calls are taken
    #[arg(long, value_name = "FILE")]
    addresses_file: Option<PathBuf>,
    /// Serves by TLS only, with the set of certificates in this folder, as `drawdown certs dev` makes it; renewed at each start
    #[arg(long, value_name = "DIR")]
    tls: Option<PathBuf>,
    /// Takes free ports instead of the configured ones
    #[arg(long)]
    free_ports: bool,
    /// The configuration; every value can also be set as DRAWDOWN_<SECTION>__<NAME>
    #[arg(long, value_name = "FILE", env = "DRAWDOWN_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
}

impl UpCommand {
    pub(crate) async fn run(self) -> Result<()> {
        let mut sources = Sources::of_process(self.config.as_deref()).map_err(BadConfiguration::from)?;
        sources = with_pepper(sources, self.data_dir.as_deref())?;
        if self.free_ports {
            sources = with_free_ports(sources)?;
        }
        let set = self.tls.as_deref().map(SetFiles::at).transpose()?;
        if let Some(set) = &set {
            sources = with_tls(sources, set)?;
        }
        // Everything but the addresses of the servers is known now: a bad configuration starts nothing.
        Settings::load(&sources, &Service::ALL)?;
        let mut options = Options::from_env()?;
        options.data_dir = self.data_dir;
        let mut signals = Signals::listen()?;
        let starting = tokio::task::spawn_blocking(move || Sandbox::start(options));
        let sandbox = tokio::select! {
            sandbox = starting => sandbox??,
            // What was started so far ends with this process.
            () = signals.stop() => return Ok(()),
        };
        let result = serve(&sandbox, sources, signals, (self.addresses_file, set)).await;
        let stopped = tokio::task::spawn_blocking(move || sandbox.stop()).await?;
        // What ended the services is the failure to tell.
        result?;
        Ok(stopped?)
    }
}

async fn serve(
    sandbox: &Sandbox,
    sources: Sources,
    signals: Signals,
    (addresses_file, set): (Option<PathBuf>, Option<SetFiles>),
) -> Result<()> {
    let (postgres_url, redis_url) = (sandbox.postgres_url().to_owned(), sandbox.redis_url().to_owned());
    let sources = sources
        .with("entitlement", "database.url", &*postgres_url)
        .with("entitlement", "database.role", drawdown_entitlement::SERVICE_ROLE)
        .with("ledger", "database.url", &*postgres_url)
        .with("ledger", "database.role", drawdown_ledger::store::pool::SERVICE_ROLE)
        .with("ledger", "database.pooler", "none")
        .with("metering", "redis.url", &*redis_url);
    let settings = Settings::load(&sources, &Service::ALL)?;
    for config in &settings.services {
        config.migrate().await?;
    }
    run::run(settings, "up", signals, |services| {
        let lines = lines(&services, &postgres_url, &redis_url);
        let addresses = Addresses {
            services,
            postgres_url: Some(postgres_url),
            redis_url: Some(redis_url),
            tls: set.map(|set| set.client()),
        };
        if let Some(path) = addresses_file {
            addresses.write(&path)?;
        }
        output::print(&lines)
    })
    .await
}

fn lines(services: &BoundAddresses, postgres_url: &str, redis_url: &str) -> String {
    let mut lines = String::new();
    for (name, addresses) in services {
        lines.push_str(&format!("{name:<12} {}   metrics {}/metrics\n", addresses.grpc, addresses.metrics));
    }
    let (postgres, redis) = (without_password(postgres_url), without_password(redis_url));
    lines.push_str(&format!("{:<12} {postgres}\n{:<12} {redis}\n", "postgres", "redis"));
    lines.push_str("ready; end with ctrl-c\n");
    lines
}

/// What is printed of an address. Tools find all of it in the addresses file.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    match rest.rsplit_once('@') {
        Some((login, place)) => {
            let user = login.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{place}")
        }
        None => url.to_owned(),
    }
}

/// The key of the credentials' hashes: as configured, else kept with the data, else as short-lived as they are.
fn with_pepper(sources: Sources, data_dir: Option<&std::path::Path>) -> Result<Sources> {
    let given = ["credential_pepper", "credential_pepper_file"];
    if given.iter().any(|name| sources.has("entitlement", name)) {
        return Ok(sources);
    }
    let new =
        || rand::random::<[u8; PEPPER_BYTES]>().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let pepper = match data_dir {
        None => new(),
        Some(dir) => {
            let path = dir.join(PEPPER_FILE);
            match std::fs::read_to_string(&path) {
                Ok(kept) => kept.trim().to_owned(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    let pepper = new();
                    keep(dir, &path, &pepper).with_context(|| format!("can not write {}", path.display()))?;
                    pepper
                }
                Err(error) => return Err(error).with_context(|| format!("can not read {}", path.display())),
            }
        }
    };
    Ok(sources.with("entitlement", "credential_pepper", pepper))
}

fn keep(dir: &std::path::Path, path: &std::path::Path, pepper: &str) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    std::fs::create_dir_all(dir)?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{pepper}")?;
    file.sync_all()
}

/// Ports that are free now. The services have to know each other's before they are bound, so port 0 does not do.
fn with_free_ports(mut sources: Sources) -> Result<Sources> {
    // All are held until all are known, so that no port is given twice.
    let mut held = Vec::new();
    let mut free = || -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
        let address = listener.local_addr()?.to_string();
        held.push(listener);
        Ok(address)
    };
    for service in Service::ALL {
        let (grpc, metrics) = (free()?, free()?);
        for peer in service.peers() {
            sources =
                sources.with(peer.name(), &format!("{}.endpoint", service.name()), format!("http://{grpc}"));
        }
        sources = sources.with(service.name(), "server.listen", grpc).with(
            service.name(),
            "server.metrics_listen",
            metrics,
        );
    }
    Ok(sources)
}

/// Every service serves by TLS with its own certificate, calls with it, and knows whom it calls.
fn with_tls(sources: Sources, set: &SetFiles) -> Result<Sources> {
    let text = |path: &std::path::Path| -> Result<String> {
        path.to_str().map(str::to_owned).with_context(|| format!("{} is not text", path.display()))
    };
    let mut secured = sources.clone();
    for config in Settings::load(&sources, &Service::ALL)?.services {
        let (service, listen) = (config.service(), config.listen());
        let name = service.name();
        for (file, path) in [
            ("certificate", set.certificate(name)),
            ("key", set.key(name)),
            ("trust_bundle", set.trust_bundle()),
        ] {
            secured = secured.with(name, &format!("server.tls.{file}"), text(&path)?);
        }
        // the certificates are for the loopback, and not for an address that stands for all of the machine's
        let host = match listen.ip().is_unspecified() {
            true => format!("localhost:{}", listen.port()),
            false => listen.to_string(),
        };
        for peer in service.peers() {
            secured = secured.with(peer.name(), &format!("{name}.endpoint"), format!("https://{host}")).with(
                peer.name(),
                &format!("{name}.tls.peer"),
                name,
            );
        }
    }
    Ok(secured)
}

#[cfg(test)]
mod tests {
    use super::{super::part::Config, *};

    #[test]
    fn the_pepper_is_kept_with_the_data() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let first = with_pepper(Sources::none(), Some(&data)).unwrap();
        assert!(first.has("entitlement", "credential_pepper"));
        let kept = std::fs::read_to_string(data.join(PEPPER_FILE)).unwrap();
        assert_eq!(kept.trim().len(), 2 * PEPPER_BYTES);
        with_pepper(Sources::none(), Some(&data)).unwrap();
        assert_eq!(std::fs::read_to_string(data.join(PEPPER_FILE)).unwrap(), kept);
    }

    #[test]
    fn with_a_set_all_services_serve_and_call_by_tls() {
        let dir = tempfile::tempdir().unwrap();
        let set = SetFiles::at(&dir.path().join("certs")).unwrap();
        let sources = with_pepper(Sources::none(), None).unwrap();
        let sources = with_tls(with_free_ports(sources).unwrap(), &set).unwrap();
        for config in Settings::load(&sources, &Service::ALL).unwrap().services {
            let (server, calls) = match &config {
                Config::Entitlement(config) => (&config.server, vec![&config.ledger]),
                Config::Ledger(config) => (&config.server, vec![&config.entitlement]),
                Config::Metering(config) => (&config.server, vec![&config.ledger, &config.entitlement]),
            };
            assert_eq!(
                server.files().and_then(|files| files.key.clone()),
                Some(set.key(config.service().name()))
            );
            for call in calls {
                assert!(call.endpoint.starts_with("https://127.0.0.1:") && !call.tls.peer.is_empty());
                assert_eq!(call.tls.certificate, set.certificate(config.service().name()));
            }
        }
    }

    #[test]
    fn no_password_is_printed() {
        for (url, printed) in [
            ("postgres://me:p@ss:word@127.0.0.1:1/drawdown", "postgres://me@127.0.0.1:1/drawdown"),
            ("redis://:password@127.0.0.1:1", "redis://@127.0.0.1:1"),
            ("redis://127.0.0.1:1", "redis://127.0.0.1:1"),
            ("postgres://me@127.0.0.1:1/drawdown", "postgres://me@127.0.0.1:1/drawdown"),
        ] {
            assert_eq!(without_password(url), printed);
        }
    }

    #[test]
    fn a_configured_pepper_stays() {
        let dir = tempfile::tempdir().unwrap();
        let given = Sources::none().with("entitlement", "credential_pepper_file", "/run/pepper");
        let sources = with_pepper(given, Some(dir.path())).unwrap();
        assert!(!sources.has("entitlement", "credential_pepper"));
        assert!(!dir.path().join(PEPPER_FILE).exists());
    }
}
