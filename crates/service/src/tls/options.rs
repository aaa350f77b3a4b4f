//! The section `[<service>.server.tls]`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use drawdown_tls::{Clients, Files};
use serde::Deserialize;

use crate::config::{Count, Millis, Problem, Problems};

/// The section `[<service>.server.tls]`. Without a certificate there is no TLS.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsOptions {
    /// The own certificate in PEM, then the ones between it and its authority; empty for no TLS.
    pub certificate: PathBuf,
    /// Its key in PEM.
    pub key: PathBuf,
    /// Certificates in PEM of the authorities whose clients are trusted.
    pub trust_bundle: PathBuf,
    /// Whether clients need a certificate.
    pub client_certificates: ClientCertificates,
    /// How often the files are looked at, in ms: changed ones are used by the next handshake after that.
    pub reload_interval_ms: Millis,
    /// The longest a handshake may take, in ms.
    pub handshake_time_max_ms: Millis,
    /// Handshakes at once, of one port; who connects beyond that is closed.
    pub handshakes_max: Count,
}

/// Whether clients need a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// Nobody connects without.
    Required,
    /// Who has none is nobody so far: an API key or a token may say who it is.
    Optional,
    /// None is asked for.
    None,
}

/// Checked [`TlsOptions`].
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// The files.
    pub files: Files,
    /// What is asked of clients.
    pub clients: Clients,
    /// How often the files are looked at.
    pub reload_interval: Duration,
    /// The longest a handshake may take.
    pub handshake_time_max: Duration,
    /// Handshakes at once, of one port.
    pub handshakes_max: usize,
}

/// Why an address is not listened at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not the loopback: set tls.certificate, tls.key and tls.trust_bundle, or allow_plaintext = true")]
pub struct PlaintextRefused;

impl Default for TlsOptions {
    fn default() -> Self {
        Self {
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            trust_bundle: PathBuf::new(),
            client_certificates: ClientCertificates::Required,
            reload_interval_ms: Millis::from_millis(2_000),
            handshake_time_max_ms: Millis::from_millis(5_000),
            handshakes_max: Count::of(256),
        }
    }
}

impl TlsOptions {
    /// Checks the values; `None` for no TLS. The files themselves are read when the port is bound.
    ///
    /// # Errors
    /// Every problem, by the path inside the section.
    pub fn validate(self) -> Result<Option<TlsConfig>, Vec<Problem>> {
        let given = |path: PathBuf| (!path.as_os_str().is_empty()).then_some(path);
        let files = Files {
            trust_bundle: given(self.trust_bundle),
            certificate: given(self.certificate),
            key: given(self.key),
        };
        if files.is_empty() {
            return Ok(None);
        }
        let clients = match self.client_certificates {
            ClientCertificates::Required => Clients::Required,
            ClientCertificates::Optional => Clients::Optional,
            ClientCertificates::None => Clients::NotAsked,
        };
        let mut problems = Problems::new();
        let missing = "has to be set with the rest of this section";
        problems.ensure(files.certificate.is_some(), "certificate", missing);
        problems.ensure(files.key.is_some(), "key", missing);
        let trust = files.trust_bundle.is_some() || clients == Clients::NotAsked;
        problems.ensure(trust, "trust_bundle", "has to be set where clients have certificates");
        problems.finish(Some(Some(TlsConfig {
            files,
            clients,
            reload_interval: self.reload_interval_ms.duration(),
            handshake_time_max: self.handshake_time_max_ms.duration(),
            handshakes_max: self.handshakes_max.get().min(tokio::sync::Semaphore::MAX_PERMITS),
        })))
    }
}

/// Whether an address may be listened at: without TLS only the loopback, unless that is allowed by name.
///
/// # Errors
/// [`PlaintextRefused`].
pub const fn may_listen(
    address: SocketAddr,
    has_tls: bool,
    allow_plaintext: bool,
) -> Result<(), PlaintextRefused> {
    if has_tls || allow_plaintext || address.ip().is_loopback() { Ok(()) } else { Err(PlaintextRefused) }
}
