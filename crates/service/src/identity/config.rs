//! The section `[<service>.server.identity]`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use serde::Deserialize;

use super::token::{KeySet, KeySetError, TokenConfig};
use crate::config::{Count, Millis, Problem, Problems};

/// Whether callers have to say who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// No: every call is the local operator's.
    #[default]
    Off,
    /// Yes.
    On,
}

/// The section `[<service>.server.identity]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityOptions {
    /// Whether callers have to say who they are: `off` or `on`.
    pub mode: Mode,
    /// Identity may be off though the service listens beyond loopback.
    pub off_beyond_loopback: bool,
    /// How long a key that was found good is taken for good, in ms: a revocation is felt so much later at most.
    pub key_cache_ms: Millis,
    /// How long what was found about the owner of a team, an app or the like is believed, in ms.
    pub owner_cache_ms: Millis,
    /// How many keys, and how many owners, are remembered.
    pub cache_entries_max: Count,
    /// Look-ups under way at once; a call that needs one more is refused.
    pub lookups_max: Count,
    /// How long one look-up may take, in ms.
    pub lookup_timeout_ms: Millis,
    /// Failed attempts of one address a second; a call beyond is refused before its credential is looked at.
    pub failures_per_second_max: Count,
    /// The most things that a request of a caller of one account or team may name.
    pub names_max: Count,
    /// Signed tokens of an issuer outside.
    pub tokens: TokenOptions,
}

/// The section `[<service>.server.identity.tokens]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenOptions {
    /// The file with the keys of the issuer, a JSON Web Key Set; empty where no tokens are taken.
    pub jwks_file: PathBuf,
    /// Who has to have signed: the claim `iss`.
    pub issuer: String,
    /// For whom a token has to be: the claim `aud`.
    pub audience: String,
    /// How far clocks may differ, in ms.
    pub leeway_ms: Millis,
    /// How far away the expiry of a token may be, in ms: so long nobody can take it back.
    pub lifetime_max_ms: Millis,
    /// How often the file is looked at, in ms.
    pub reload_ms: Millis,
}

impl IdentityOptions {
    /// Whether everybody who reaches `listen` would be the local operator, though nobody said so.
    #[must_use]
    pub fn is_open(&self, listen: SocketAddr) -> bool {
        self.mode == Mode::Off && !listen.ip().is_loopback() && !self.off_beyond_loopback
    }
}

/// Checked [`IdentityOptions`].
#[derive(Clone, Debug)]
pub struct IdentityConfig {
    /// Whether callers have to say who they are.
    pub mode: Mode,
    /// How long a key that was found good is taken for good.
    pub key_cache: Duration,
    /// How long an owner is believed.
    pub owner_cache: Duration,
    /// How many of each are remembered.
    pub cache_entries_max: usize,
    /// Look-ups under way at once.
    pub lookups_max: usize,
    /// How long one look-up may take.
    pub lookup_timeout: Duration,
    /// Failed attempts of one address a second.
    pub failures_per_second_max: u32,
    /// The most things that one request may name.
    pub names_max: usize,
    /// Tokens, where they are taken.
    pub tokens: Option<TokenConfig>,
}

/// Revocation is to be felt within seconds.
const CACHE_MAX: Duration = Duration::from_secs(10);
/// Clocks that differ by more are to be set.
const LEEWAY_MAX: Duration = Duration::from_secs(120);
/// What can not be taken back must not live longer.
const LIFETIME_MAX: Duration = Duration::from_secs(86_400);

impl Default for TokenOptions {
    fn default() -> Self {
        Self {
            jwks_file: PathBuf::new(),
            issuer: String::new(),
            audience: String::new(),
            leeway_ms: Millis::from_millis(5_000),
            lifetime_max_ms: Millis::from_millis(3_600_000),
            reload_ms: Millis::from_millis(5_000),
        }
    }
}

impl TokenOptions {
    fn validate(self) -> Result<Option<TokenConfig>, Vec<Problem>> {
        let mut problems = Problems::new();
        if self.jwks_file.as_os_str().is_empty() {
            return Ok(None);
        }
        for (field, text) in [("issuer", &self.issuer), ("audience", &self.audience)] {
            problems.ensure(!text.is_empty(), field, "has to be set with jwks_file");
        }
        let (leeway, lifetime) = (self.leeway_ms.duration(), self.lifetime_max_ms.duration());
        problems.ensure(leeway <= LEEWAY_MAX, "leeway_ms", "is above 120000");
        problems.ensure(lifetime <= LIFETIME_MAX, "lifetime_max_ms", "is above 86400000");
        let keys = std::fs::read(&self.jwks_file).map_err(KeySetError::Unreadable);
        let keys = keys.and_then(|text| KeySet::parse(&text));
        let keys = problems.field("jwks_file", keys.map_err(|error| crate::refusal::chain(&error.into())));
        problems.finish(keys.map(|keys| {
            Some(TokenConfig {
                jwks_file: self.jwks_file,
                issuer: self.issuer,
                audience: self.audience,
                leeway,
                lifetime_max: lifetime,
                reload_interval: self.reload_ms.duration(),
                keys: Arc::new(keys),
            })
        }))
    }
}

impl Default for IdentityOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Off,
            off_beyond_loopback: false,
            key_cache_ms: Millis::from_millis(2_000),
            owner_cache_ms: Millis::from_millis(2_000),
            cache_entries_max: Count::of(10_000),
            lookups_max: Count::of(64),
            lookup_timeout_ms: Millis::from_millis(2_000),
            failures_per_second_max: Count::of(20),
            names_max: Count::of(1_000),
            tokens: TokenOptions::default(),
        }
    }
}

impl IdentityOptions {
    /// Checks the values, for a service that listens at `listen`.
    ///
    /// # Errors
    /// Every problem, by the path inside the section.
    pub fn validate(self, listen: SocketAddr) -> Result<IdentityConfig, Vec<Problem>> {
        let mut problems = Problems::new();
        let why = "is off, and the service listens beyond loopback: turn it on, or set off_beyond_loopback";
        problems.ensure(!self.is_open(listen), "mode", why);
        for (field, cache) in [("key_cache_ms", self.key_cache_ms), ("owner_cache_ms", self.owner_cache_ms)] {
            problems.ensure(
                cache.duration() <= CACHE_MAX,
                field,
                format!("is above {}: what is revoked would go on for longer", CACHE_MAX.as_millis()),
            );
        }
        let tokens = problems.section("tokens", self.tokens.validate());
        problems.finish(tokens.map(|tokens| IdentityConfig {
            mode: self.mode,
            key_cache: self.key_cache_ms.duration(),
            owner_cache: self.owner_cache_ms.duration(),
            cache_entries_max: self.cache_entries_max.get(),
            lookups_max: self.lookups_max.get().min(tokio::sync::Semaphore::MAX_PERMITS),
            lookup_timeout: self.lookup_timeout_ms.duration(),
            failures_per_second_max: self.failures_per_second_max.get_u32(),
            names_max: self.names_max.get(),
            tokens,
        }))
    }
}
