//! Where the services are, and channels to them.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Args;
use drawdown_client::{Channel, ChannelError, ChannelOptions, KeyText, TlsOptions, connect};
use drawdown_service::{Problem, refusal};

use crate::{failure::BadConfiguration, output::Output};

const METERING_DEFAULT: &str = "http://127.0.0.1:7401";
const LEDGER_DEFAULT: &str = "http://127.0.0.1:7402";
const ENTITLEMENT_DEFAULT: &str = "http://127.0.0.1:7403";
/// Where the key is that calls carry, unless a file is named.
const KEY_VARIABLE: &str = "DRAWDOWN_API_KEY";

/// How the services are reached.
#[derive(Args, Debug)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// Metering [default: http://127.0.0.1:7401]
    #[arg(
        long,
        global = true,
        alias = "metering",
        value_name = "URL",
        env = "DRAWDOWN_METERING_ENDPOINT",
        hide_env_values = true
    )]
    metering_endpoint: Option<String>,
    /// The ledger [default: http://127.0.0.1:7402]
    #[arg(
        long,
        global = true,
        alias = "ledger",
        value_name = "URL",
        env = "DRAWDOWN_LEDGER_ENDPOINT",
        hide_env_values = true
    )]
    ledger_endpoint: Option<String>,
    /// Entitlement [default: http://127.0.0.1:7403]
    #[arg(
        long,
        global = true,
        alias = "entitlement",
        value_name = "URL",
        env = "DRAWDOWN_ENTITLEMENT_ENDPOINT",
        hide_env_values = true
    )]
    entitlement_endpoint: Option<String>,
    /// Takes addresses that are not given from this file, as `drawdown up --addresses-file` writes it
    #[arg(long, global = true, value_name = "FILE", env = "DRAWDOWN_ADDRESSES_FILE", hide_env_values = true)]
    addresses_file: Option<PathBuf>,
    /// Sends the API key or token in this file; without it the one in DRAWDOWN_API_KEY, if any
    #[arg(long, global = true, value_name = "FILE", env = "DRAWDOWN_API_KEY_FILE", hide_env_values = true)]
    api_key_file: Option<PathBuf>,
    /// Certificates in PEM of the authorities that are trusted, for https addresses
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "DRAWDOWN_TLS_TRUST_BUNDLE",
        hide_env_values = true
    )]
    tls_trust_bundle: Option<PathBuf>,
    /// The own certificate in PEM, for https addresses
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "DRAWDOWN_TLS_CERTIFICATE",
        hide_env_values = true
    )]
    tls_certificate: Option<PathBuf>,
    /// The key of the own certificate in PEM
    #[arg(long, global = true, value_name = "FILE", env = "DRAWDOWN_TLS_KEY", hide_env_values = true)]
    tls_key: Option<PathBuf>,
    /// Calls http addresses elsewhere than at the loopback
    #[arg(long, global = true)]
    allow_plaintext: bool,
    /// How long one call may take, in milliseconds
    #[arg(long, global = true, value_name = "MS", default_value_t = 60_000)]
    timeout_ms: u64,
    /// Prints the answer as JSON, by the names of the contracts
    #[arg(long, global = true)]
    json: bool,
}

/// Addresses by service, as they stand in an addresses file.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Addresses {
    /// By service: `metering`, `ledger`, `entitlement`.
    pub(crate) services: BTreeMap<String, ServiceAddresses>,
    /// Files for callers, where the services are reached by TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<ClientFiles>,
    /// The database, where a sandbox was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) postgres_url: Option<String>,
    /// Redis, where a sandbox was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) redis_url: Option<String>,
}

/// What a caller needs for https addresses, in PEM.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct ClientFiles {
    pub(crate) trust_bundle: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Where one service is reached.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct ServiceAddresses {
    /// `http://…` or `https://…` for gRPC, JSON over HTTP and, of metering, `CloudEvents`.
    pub(crate) grpc: String,
    /// `http://…` for `/metrics` and `/healthz`.
    pub(crate) metrics: String,
}

/// Channels to the services, and where answers are printed.
pub(crate) struct Session {
    pub(crate) metering: Channel,
    pub(crate) ledger: Channel,
    pub(crate) entitlement: Channel,
    pub(crate) output: Output,
    /// Name and address of each service.
    pub(crate) endpoints: [(&'static str, String); 3],
    pub(crate) json: bool,
}

impl Addresses {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("can not read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no addresses file", path.display()))
    }

    /// Writes the file as a whole or not at all: a reader that waits for it never sees half of it. It is for its owner
    /// alone, since addresses of servers hold passwords.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let half = path.with_extension("partial");
        let text = serde_json::to_vec_pretty(self)?;
        let written = (|| -> std::io::Result<()> {
            drop(std::fs::remove_file(&half));
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half)?;
            file.write_all(&text)?;
            std::fs::rename(&half, path)
        })();
        written.with_context(|| format!("can not write {}", path.display()))
    }

    fn grpc(&self, service: &str) -> Option<String> {
        self.services.get(service).map(|addresses| addresses.grpc.clone())
    }
}

impl Connection {
    /// Lazy channels: a service that is down is noticed by the call that needs it.
    pub(crate) fn open(self) -> Result<Session> {
        let known = self.addresses_file.as_deref().map(Addresses::read).transpose()?.unwrap_or_default();
        let endpoint = |name: &'static str, given: Option<String>, default: &str| {
            (name, given.or_else(|| known.grpc(name)).unwrap_or_else(|| default.to_owned()))
        };
        let endpoints = [
            endpoint("metering", self.metering_endpoint, METERING_DEFAULT),
            endpoint("ledger", self.ledger_endpoint, LEDGER_DEFAULT),
            endpoint("entitlement", self.entitlement_endpoint, ENTITLEMENT_DEFAULT),
        ];
        let files = known.tls.unwrap_or_default();
        let tls = TlsOptions {
            trust_bundle: self.tls_trust_bundle.unwrap_or(files.trust_bundle),
            certificate: self.tls_certificate.unwrap_or(files.certificate),
            key: self.tls_key.unwrap_or(files.key),
            peer: String::new(),
        };
        let key_file = self.api_key_file.filter(|path| !path.as_os_str().is_empty());
        let mut problems = Vec::new();
        let channels = endpoints.each_ref().map(|(name, endpoint)| {
            let tls = if endpoint.starts_with("https://") { tls.clone() } else { TlsOptions::default() };
            let options = ChannelOptions {
                request_timeout_ms: self.timeout_ms,
                allow_plaintext: self.allow_plaintext,
                api_key_file: key_file.clone().unwrap_or_default(),
                tls,
                ..ChannelOptions::to(endpoint.as_str())
            };
            connect(&options).map_err(|error| problems.extend(problems_of(name, error))).ok()
        });
        let [Some(metering), Some(ledger), Some(entitlement)] = channels else {
            return Err(BadConfiguration(problems).into());
        };
        let key = if key_file.is_some() { None } else { key_of_environment()? };
        let [metering, ledger, entitlement] =
            [metering, ledger, entitlement].map(|channel| channel.with_key(key.as_ref()));
        let output = Output::new(self.json);
        Ok(Session { metering, ledger, entitlement, output, endpoints, json: self.json })
    }
}

fn problems_of(service: &str, error: ChannelError) -> Vec<Problem> {
    match error {
        ChannelError::Options(found) => {
            found.iter().map(|p| Problem::new(format!("{service} {}", p.field), &p.problem)).collect()
        }
        ChannelError::Tls(broken) => {
            vec![Problem::new(format!("{service} tls"), refusal::chain(&broken.into()))]
        }
        // the same for all three
        key @ ChannelError::Key { .. } => match service {
            "metering" => vec![Problem::new("--api-key-file", refusal::chain(&key.into()))],
            _ => Vec::new(),
        },
    }
}

/// The key to send, where no file holds one. Never from the command line, which everybody on the machine can read.
fn key_of_environment() -> Result<Option<KeyText>> {
    match std::env::var(KEY_VARIABLE).map(zeroize::Zeroizing::new) {
        Ok(text) if !text.is_empty() => KeyText::new(&text).map(Some).context(KEY_VARIABLE),
        Ok(_) | Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bad_addresses_are_all_told() {
        let connection = Connection {
            metering_endpoint: Some("nowhere".to_owned()),
            ledger_endpoint: None,
            entitlement_endpoint: Some("ftp://x".to_owned()),
            addresses_file: None,
            api_key_file: None,
            tls_trust_bundle: None,
            tls_certificate: None,
            tls_key: None,
            allow_plaintext: false,
            timeout_ms: 1,
            json: false,
        };
        let error = connection.open().err().unwrap();
        assert_eq!(error.downcast_ref::<BadConfiguration>().map(|bad| bad.0.len()), Some(2));
    }

    #[tokio::test]
    async fn addresses_come_from_the_file_where_they_are_not_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("addresses.json");
        let here = ServiceAddresses {
            grpc: "http://127.0.0.1:1".to_owned(),
            metrics: "http://127.0.0.1:2".to_owned(),
        };
        let services = [("ledger".to_owned(), here)].into();
        Addresses { services, ..Addresses::default() }.write(&path).unwrap();
        let connection = Connection {
            metering_endpoint: Some("http://127.0.0.1:9".to_owned()),
            ledger_endpoint: None,
            entitlement_endpoint: None,
            addresses_file: Some(path),
            api_key_file: None,
            tls_trust_bundle: None,
            tls_certificate: None,
            tls_key: None,
            allow_plaintext: false,
            timeout_ms: 1,
            json: false,
        };
        let endpoints = connection.open().unwrap().endpoints.map(|(_, endpoint)| endpoint);
        assert_eq!(endpoints, ["http://127.0.0.1:9", "http://127.0.0.1:1", ENTITLEMENT_DEFAULT]);
    }
}
