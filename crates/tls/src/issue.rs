//! Local authorities and what they issue: for development, tests and drills.
//!
//! Keys are ECDSA over P-256, which everything that speaks TLS 1.3 knows. A [`Profile`] says from when to when a
//! certificate holds, so that a test can have one that has expired. An authority is made again from its key: its subject is
//! its name, and certificates refer to it by that and by its key.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use drawdown_types::{Clock as _, SystemClock};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use crate::name::SCHEME;

/// What begins now has begun an hour ago: clocks differ.
const BEGINS_SECS: i64 = -3600;
const DAY_SECS: i64 = 86_400;
/// How long the certificate of an authority holds, in days.
const AUTHORITY_DAYS: i64 = 365;
/// How long a certificate holds where nothing else is said, in days.
pub const DAYS_DEFAULT: i64 = 30;

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// What a certificate says.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its common name, for people.
    pub common_name: String,
    /// URIs among its names.
    pub uris: Vec<String>,
    /// Host names it is reached by.
    pub hosts: Vec<String>,
    /// Addresses it is reached by.
    pub addresses: Vec<IpAddr>,
    /// Whether it may be used by who listens.
    pub is_server: bool,
    /// From when it holds, in seconds from now; before now where negative.
    pub begins_secs: i64,
    /// How long it holds from now, in days; expired where negative.
    pub days: i64,
}

/// A certificate with its key.
pub struct Issued {
    certificate: rcgen::Certificate,
    key: Zeroizing<String>,
}

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The certificate can not be made.
    #[error("the certificate can not be made")]
    Refused(#[from] rcgen::Error),
    /// The present instant is out of range.
    #[error("the clock is out of range")]
    Clock,
}

// === impl Profile ===

impl Profile {
    /// For a caller that does not listen.
    #[must_use]
    pub fn client(name: &str) -> Self {
        Self {
            common_name: name.to_owned(),
            uris: vec![format!("{SCHEME}{name}")],
            hosts: Vec::new(),
            addresses: Vec::new(),
            is_server: false,
            begins_secs: BEGINS_SECS,
            days: DAYS_DEFAULT,
        }
    }

    /// For a service that is reached by its name, as `localhost` and at the loopback, and calls others.
    #[must_use]
    pub fn service(name: &str) -> Self {
        Self {
            hosts: vec![name.to_owned(), "localhost".to_owned()],
            addresses: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            is_server: true,
            ..Self::client(name)
        }
    }

    fn params(&self) -> Result<CertificateParams, IssueError> {
        let mut params = params(&self.common_name, self.begins_secs, self.days)?;
        for host in &self.hosts {
            params.subject_alt_names.push(SanType::DnsName(host.as_str().try_into()?));
        }
        for uri in &self.uris {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
        }
        params.subject_alt_names.extend(self.addresses.iter().copied().map(SanType::IpAddress));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if self.is_server {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

// === impl Authority ===

impl Authority {
    /// A new one with a key of its own.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn new(name: &str) -> Result<Self, IssueError> {
        Self::with_key(name, KeyPair::generate()?)
    }

    /// The one with this key, in PEM; its certificate is made anew.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn of_key(name: &str, key_pem: &str) -> Result<Self, IssueError> {
        Self::with_key(name, KeyPair::from_pem(key_pem)?)
    }

    fn with_key(name: &str, key: KeyPair) -> Result<Self, IssueError> {
        let mut params = params(name, BEGINS_SECS, AUTHORITY_DAYS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Its certificate: an entry of a trust bundle.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// Its key.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// A certificate with a new key.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue(&self, profile: &Profile) -> Result<Issued, IssueError> {
        let key = KeyPair::generate()?;
        let certificate = profile.params()?.signed_by(&key, &self.issuer)?;
        Ok(Issued { certificate, key: Zeroizing::new(key.serialize_pem()) })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

// === impl Issued ===

impl Issued {
    /// The certificate.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    /// The certificate as it is sent.
    #[must_use]
    pub fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// The key.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key
    }
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").finish_non_exhaustive()
    }
}

fn params(name: &str, begins_secs: i64, days: i64) -> Result<CertificateParams, IssueError> {
    let now_secs = SystemClock.now().as_micros().div_euclid(1_000_000);
    let now = OffsetDateTime::from_unix_timestamp(now_secs).map_err(|_| IssueError::Clock)?;
    let at = |secs: i64| now.checked_add(Duration::seconds(secs)).ok_or(IssueError::Clock);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = at(begins_secs)?;
    params.not_after = at(days.saturating_mul(DAY_SECS))?;
    Ok(params)
}
