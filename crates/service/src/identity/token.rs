//! Signed tokens (JWT) of an issuer outside, where one is configured.
//!
//! Taken are EdDSA over Ed25519 and ES256 and nothing else. Which of them is fixed by the key that the token's `kid` names; what
//! the token's own header says of its algorithm has to agree and decides nothing. A token has an issuer, this audience, a
//! subject and an expiry that is not further away than is allowed: it can not be taken back, so it must not live long.
//!
//! | claim | meaning |
//! |---|---|
//! | `drawdown_roles` | the roles, as [`Role`](super::Role) writes them; at least one |
//! | `drawdown_account` | the one account whose things the caller may touch, or `*` for everybody's; never absent |
//! | `drawdown_team` | the one team of that account |
//! | `drawdown_user` | the person that the caller acts for |
//!
//! The keys come from a file, which is looked at again at an interval. A file that does not read leaves the keys as they were.

mod keys;
mod verify;

use std::{path::PathBuf, sync::Arc, time::Duration};

use drawdown_types::{Timestamp, UserId};
use jsonwebtoken::{Validation, decode, decode_header};
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(super) use keys::{KeySet, KeySetError};

use super::{Caller, Proof, Role, Roles, Scope};

/// A longer text is no token of anybody's; it is not even read.
const TOKEN_BYTES_MAX: usize = 8_192;
/// The longest name that goes to the audit log.
const SUBJECT_BYTES_MAX: usize = 200;

/// Checked settings of tokens.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// The file with the keys, a JSON Web Key Set.
    pub jwks_file: PathBuf,
    /// Who has to have signed.
    pub issuer: String,
    /// For whom a token has to be.
    pub audience: String,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// How far away the expiry of a token may be.
    pub lifetime_max: Duration,
    /// How often the file is looked at.
    pub reload_interval: Duration,
    /// The keys that were read first.
    pub(super) keys: Arc<KeySet>,
}

/// Tells tokens that are good.
#[derive(Debug)]
pub(super) struct Tokens {
    config: TokenConfig,
    keys: watch::Sender<Arc<KeySet>>,
}

/// A token that was found good, until it expires or the keys change.
#[derive(Clone, Debug)]
pub(super) struct GoodToken {
    pub(super) caller: Caller,
    pub(super) expires_at: Timestamp,
    keys: Arc<KeySet>,
}

/// A token that is not good. Why, nobody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadToken;

#[derive(Deserialize)]
struct Claims {
    exp: i64,
    #[serde(default)]
    nbf: Option<i64>,
    sub: String,
    drawdown_roles: Vec<String>,
    drawdown_account: String,
    #[serde(default)]
    drawdown_team: Option<String>,
    #[serde(default)]
    drawdown_user: Option<String>,
}

impl Tokens {
    pub(super) fn new(config: TokenConfig) -> Self {
        verify::install();
        let keys = watch::Sender::new(Arc::clone(&config.keys));
        Self { config, keys }
    }

    /// Whose a token is.
    pub(super) fn verify(&self, token: &str, now: Timestamp) -> Result<GoodToken, BadToken> {
        let keys = Arc::clone(&*self.keys.borrow());
        if token.len() > TOKEN_BYTES_MAX {
            return Err(BadToken);
        }
        let header = decode_header(token).map_err(|_| BadToken)?;
        // what a reader has to understand and this one does not
        if header.crit.is_some() {
            return Err(BadToken);
        }
        let key = header.kid.as_deref().and_then(|kid| keys.find(kid)).ok_or(BadToken)?;
        let mut rules = Validation::new(key.algorithm);
        // instants are compared with the clock that everything here goes by
        rules.validate_exp = false;
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        rules.set_issuer(&[&self.config.issuer]);
        rules.set_audience(&[&self.config.audience]);
        let claims = decode::<Claims>(token, &key.key, &rules).map_err(|_| BadToken)?.claims;
        let expires_at = self.check_times(&claims, now)?;
        let caller = self.caller(claims)?;
        Ok(GoodToken { caller, expires_at, keys })
    }

    /// Whether what was found good is so still.
    pub(super) fn holds(&self, good: &GoodToken, now: Timestamp) -> bool {
        now < good.expires_at && Arc::ptr_eq(&good.keys, &self.keys.borrow())
    }

    fn check_times(&self, claims: &Claims, now: Timestamp) -> Result<Timestamp, BadToken> {
        let instant = |secs: i64| Timestamp::from_secs(secs).map_err(|_| BadToken);
        let later = |at: Timestamp, by: Duration| at.checked_add(by).ok_or(BadToken);
        let expires_at = later(instant(claims.exp)?, self.config.leeway)?;
        let not_before = claims.nbf.map(instant).transpose()?;
        let latest = later(later(now, self.config.lifetime_max)?, self.config.leeway)?;
        let begun = match not_before {
            Some(from) => from <= later(now, self.config.leeway)?,
            None => true,
        };
        if now < expires_at && expires_at <= latest && begun { Ok(expires_at) } else { Err(BadToken) }
    }

    fn caller(&self, claims: Claims) -> Result<Caller, BadToken> {
        let roles = claims.drawdown_roles.iter().map(|role| role.parse::<Role>());
        let roles: Roles = roles.collect::<Result<_, _>>().map_err(|_| BadToken)?;
        let team_id = claims.drawdown_team.map(|team| team.parse()).transpose().map_err(|_| BadToken)?;
        let scope = match (claims.drawdown_account.as_str(), team_id) {
            ("*", None) => Scope::Platform,
            ("*", Some(_)) => return Err(BadToken),
            (account_id, team_id) => {
                let account_id = account_id.parse().map_err(|_| BadToken)?;
                team_id.map_or(Scope::Account(account_id), |team_id| Scope::Team { account_id, team_id })
            }
        };
        let user_id = claims.drawdown_user.map(|user| user.parse::<UserId>()).transpose();
        let plain = !claims.sub.is_empty()
            && claims.sub.len() <= SUBJECT_BYTES_MAX
            && !claims.sub.chars().any(char::is_control);
        if roles.is_empty() || roles.misfit(scope).is_some() || !plain {
            return Err(BadToken);
        }
        Ok(Caller {
            proof: Proof::Token { issuer: self.config.issuer.clone(), subject: claims.sub },
            roles,
            peer: None,
            scope,
            user_id: user_id.map_err(|_| BadToken)?,
        })
    }

    /// Looks at the file again and again, until the signal to stop.
    pub(super) async fn reload(self: Arc<Self>, stop: CancellationToken) {
        let mut interval = tokio::time::interval(self.config.reload_interval);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => self.look_again().await,
            }
        }
    }

    /// Takes the keys that the file has now, where it reads and has others.
    async fn look_again(&self) {
        let read = match tokio::fs::read(&self.config.jwks_file).await {
            Ok(text) => KeySet::parse(&text),
            Err(error) => Err(KeySetError::Unreadable(error)),
        };
        match read {
            Ok(keys) if keys.is(&self.keys.borrow()) => {}
            Ok(keys) => {
                tracing::info!(keys = keys.len(), "keys of tokens were read anew");
                self.keys.send_replace(Arc::new(keys));
            }
            Err(error) => {
                let error = crate::refusal::chain(&error.into());
                tracing::warn!(error.chain = %error, "keys of tokens stay as they were");
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
