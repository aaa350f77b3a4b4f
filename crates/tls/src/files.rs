//! The three files of one end: trust bundle, certificate chain, key. All in PEM.
//!
//! They are small and read whole, by a blocking read: whoever reads them in a runtime does it off its threads or
//! before it serves. [`Files::read`] gives a [`Set`] that holds together: every certificate parses, the key fits the
//! certificate. What is not given is not needed: which of them a role needs is checked where the role is configured.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
    version::TLS13,
};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::{Zeroize as _, Zeroizing};

use crate::provider;

/// A file of certificates is at most this long, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where the files are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Certificates of the authorities that are trusted.
    pub trust_bundle: Option<PathBuf>,
    /// The own certificate, then the ones between it and its authority.
    pub certificate: Option<PathBuf>,
    /// The key of the own certificate.
    pub key: Option<PathBuf>,
}

/// Why the files are of no use. It never has any of their content.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// A file can not be read.
    #[error("can not read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{} has no {what} in PEM", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The key is of no kind that is known, or of another certificate.
    #[error("certificate and key are of no use together")]
    Key(#[source] rustls::Error),
    /// A certificate in the trust bundle is of no use.
    #[error("a certificate of the trust bundle is of no use")]
    Trust(#[source] rustls::Error),
    /// The verifier was refused.
    #[error("nobody can be verified by the trust bundle")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// The protocol was refused.
    #[error("TLS can not be set up")]
    Protocol(#[source] rustls::Error),
    /// Certificate or key where the other is missing.
    #[error("there is no certificate with a key")]
    NoCertificate,
    /// A host that no certificate can be for.
    #[error("{0:?} is no host that a certificate can be for")]
    Host(String),
    /// No trust bundle where peers are to be verified.
    #[error("there is no trust bundle")]
    NoTrustBundle,
}

/// What was read from the files.
#[derive(Clone, Debug)]
pub struct Set {
    trusted: Option<Arc<RootCertStore>>,
    own: Option<Arc<CertifiedKey>>,
    not_after: Option<i64>,
}

/// Bytes of the files.
pub(crate) struct Content {
    trust_bundle: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    key: Option<Zeroizing<Vec<u8>>>,
}

pub(crate) type Mark = [u8; 32];

impl Files {
    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.trust_bundle.is_none() && self.certificate.is_none() && self.key.is_none()
    }

    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn read(&self) -> Result<Set, Broken> {
        self.understand(&self.content()?)
    }

    pub(crate) fn content(&self) -> Result<Content, Broken> {
        let read = |path: &Option<PathBuf>| path.as_deref().map(bytes).transpose();
        Ok(Content {
            trust_bundle: read(&self.trust_bundle)?,
            certificate: read(&self.certificate)?,
            key: read(&self.key)?.map(Zeroizing::new),
        })
    }

    pub(crate) fn understand(&self, content: &Content) -> Result<Set, Broken> {
        let trusted = match (&self.trust_bundle, &content.trust_bundle) {
            (Some(path), Some(pem)) => Some(Arc::new(roots(path, pem)?)),
            _ => None,
        };
        let (own, not_after) = match (&self.certificate, &content.certificate, &self.key, &content.key) {
            (Some(path), Some(pem), Some(key_path), Some(key_pem)) => {
                let chain = certificates(path, pem)?;
                let not_after = chain.first().and_then(not_after);
                (Some(Arc::new(certified(chain, key_path, key_pem)?)), not_after)
            }
            (None, _, None, _) => (None, None),
            _ => return Err(Broken::NoCertificate),
        };
        Ok(Set { trusted, own, not_after })
    }
}

// === impl Content ===

impl Content {
    /// The same where nothing changed. What is kept of the files between two looks is this, and no key.
    pub(crate) fn mark(&self) -> Mark {
        let mut hash = Sha256::new();
        let key = self.key.as_ref().map(|key| key.as_slice());
        for part in [self.trust_bundle.as_deref(), self.certificate.as_deref(), key] {
            let length = part.map_or(u64::MAX, |part| u64::try_from(part.len()).unwrap_or(u64::MAX));
            hash.update(length.to_be_bytes());
            hash.update(part.unwrap_or_default());
        }
        hash.finalize().into()
    }
}

// === impl Set ===

impl Set {
    /// When the own certificate expires, in seconds since 1970; `None` without one.
    #[must_use]
    pub const fn not_after(&self) -> Option<i64> {
        self.not_after
    }

    /// For the side that listens.
    ///
    /// # Errors
    /// [`Broken`], where something is missing.
    pub fn server(&self, clients: Clients, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, Broken> {
        let own = self.own.clone().ok_or(Broken::NoCertificate)?;
        let verifier = self.verifier(clients)?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(Broken::Protocol)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(Own(own)));
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }

    fn verifier(&self, clients: Clients) -> Result<Arc<dyn ClientCertVerifier>, Broken> {
        if clients == Clients::NotAsked {
            return Ok(WebPkiClientVerifier::no_client_auth());
        }
        let trusted = self.trusted.clone().ok_or(Broken::NoTrustBundle)?;
        let builder = WebPkiClientVerifier::builder_with_provider(trusted, provider());
        let builder = if clients == Clients::Optional { builder.allow_unauthenticated() } else { builder };
        let verifier = builder.build().map_err(Broken::Verifier)?;
        Ok(verifier)
    }

    /// For the side that connects.
    ///
    /// # Errors
    /// [`Broken`], where something is missing.
    pub fn client(&self, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, Broken> {
        let trusted = self.trusted.clone().ok_or(Broken::NoTrustBundle)?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(Broken::Protocol)?
            .with_root_certificates(trusted);
        let mut config = match &self.own {
            None => builder.with_no_client_auth(),
            Some(own) => builder.with_client_cert_resolver(Arc::new(Own(Arc::clone(own)))),
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// What the side that listens asks of who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// A certificate of the trust bundle.
    Required,
    /// Such a certificate or none.
    Optional,
    /// Nothing: no certificate is asked for.
    NotAsked,
}

/// The own certificate, whatever the other side asks for.
#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

impl rustls::server::ResolvesServerCert for Own {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl rustls::client::ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, Broken> {
    let unreadable = |source| Broken::Unreadable { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > FILE_BYTES_MAX {
        return Err(unreadable(std::io::ErrorKind::FileTooLarge.into()));
    }
    std::fs::read(path).map_err(unreadable)
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Broken> {
    let content = || Broken::Content { path: path.to_owned(), what: "certificate" };
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| content())?;
    if certificates.is_empty() { Err(content()) } else { Ok(certificates) }
}

fn roots(path: &Path, pem: &[u8]) -> Result<RootCertStore, Broken> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots.add(certificate).map_err(Broken::Trust)?;
    }
    Ok(roots)
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key_path: &Path,
    key_pem: &[u8],
) -> Result<CertifiedKey, Broken> {
    let mut key = PrivateKeyDer::from_pem_slice(key_pem)
        .map_err(|_| Broken::Content { path: key_path.to_owned(), what: "private key" })?;
    let signing = rustls::crypto::ring::sign::any_supported_type(&key);
    key.zeroize();
    let certified = CertifiedKey::new(chain, signing.map_err(Broken::Key)?);
    certified.keys_match().map_err(Broken::Key)?;
    Ok(certified)
}

fn not_after(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}
