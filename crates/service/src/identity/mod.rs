//! Who calls, what they may call, and about whose things.
//!
//! Shape: a call brings a certificate, an API key or a token; the layer makes a [`Caller`] of it, [`table`]
//! says whether such a caller may call the method, and where the caller is of one account or team, what the
//! request names is resolved and has to be the caller's own. Handlers ask [`current`] who calls: for the
//! audit log and for row-level security, never for a decision about rights.
//!
//! A credential that is refused refuses the call: nobody falls back to a certificate, or to nobody, because the
//! key that was sent is wrong.
//!
//! Where identity is off, every call is the local operator's. That is allowed on loopback, or by a flag that says so.

mod config;
mod failures;
mod gate;
mod key;
mod names;
mod refused;
mod remote;
mod role;
mod rule;
mod source;
mod table;
mod token;

use std::{fmt, future::Future, sync::Arc};

use drawdown_types::{AccountId, KeyId, PrincipalId, UserId};

pub use config::{IdentityConfig, IdentityOptions, Mode, TokenOptions};
pub use gate::{Gate, Sources};
pub use key::{ApiKey, KEY_PREFIX, KeyDigest, KeyError, SECRET_DIGITS};
pub use role::{Peer, Peers, Role, RoleError, Roles, Scope};
pub use rule::{Denied, Field, Kind, Reach, Rule, Who};
pub use source::{GoodKey, Keys, Named, Owner, Owners};
pub use table::RULES;
pub use token::TokenConfig;

tokio::task_local! {
    static CURRENT: Arc<Caller>;
}

/// Who calls, as far as it is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// By what it is known.
    pub proof: Proof,
    /// What it may be.
    pub roles: Roles,
    /// Which of the services it is, if one.
    pub peer: Option<Peer>,
    /// Whose things it may touch.
    pub scope: Scope,
    /// The person it acts for, if it acts for one only.
    pub user_id: Option<UserId>,
}

/// By what a caller is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By nothing: no credential came with the call.
    Nothing,
    /// By nothing, and identity is off: the local operator.
    Local,
    /// No call at all: the process itself, such as a job.
    Process,
    /// By the name in a verified certificate.
    Certificate(String),
    /// By an API key.
    Key {
        /// Whose.
        principal_id: PrincipalId,
        /// Which of the principal's keys.
        key_id: KeyId,
    },
    /// By a signed token.
    Token {
        /// Who signed it.
        issuer: String,
        /// Whom it is about.
        subject: String,
    },
}

impl Caller {
    /// Who is there without a credential.
    #[must_use]
    pub const fn anonymous() -> Self {
        Self { proof: Proof::Nothing, roles: Roles::NONE, peer: None, scope: Scope::Platform, user_id: None }
    }

    /// Who calls where identity is off.
    #[must_use]
    pub fn local() -> Self {
        Self { proof: Proof::Local, roles: Roles::of(&[Role::Operator]), ..Self::anonymous() }
    }

    /// The process itself.
    #[must_use]
    pub fn process() -> Self {
        Self { proof: Proof::Process, ..Self::local() }
    }

    /// Who proved by a certificate to have this name: a service, an agent beside a gateway, an operator; of any other
    /// name nobody, with no rights at all.
    #[must_use]
    pub fn certified(name: &str) -> Self {
        let peer = Peer::ALL.into_iter().find(|peer| peer.name() == name);
        let roles = match name {
            "agent" | "gateway" => Roles::of(&[Role::Gateway]),
            "operator" => Roles::of(&[Role::Operator]),
            _ => Roles::NONE,
        };
        Self { proof: Proof::Certificate(name.to_owned()), roles, peer, ..Self::anonymous() }
    }

    /// Nothing is known of who calls.
    #[must_use]
    pub const fn is_anonymous(&self) -> bool {
        matches!(self.proof, Proof::Nothing)
    }

    /// The one account whose things it may touch; `None` for everybody's.
    #[must_use]
    pub const fn account(&self) -> Option<AccountId> {
        self.scope.account()
    }
}

/// As the audit log has it: `local`, `certificate metering`, `key prin_…/key_…`, `token SUBJECT at ISSUER`.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.proof {
            Proof::Nothing => f.write_str("nobody"),
            Proof::Local => f.write_str("local"),
            Proof::Process => f.write_str("process"),
            Proof::Certificate(name) => write!(f, "certificate {name}"),
            Proof::Key { principal_id, key_id } => write!(f, "key {principal_id}/{key_id}"),
            Proof::Token { issuer, subject } => write!(f, "token {subject} at {issuer}"),
        }
    }
}

/// Who makes the call in hand; the process itself outside of one.
#[must_use]
pub fn current() -> Arc<Caller> {
    CURRENT.try_with(Clone::clone).unwrap_or_else(|_| Arc::new(Caller::process()))
}

/// The account of the caller in hand, where it is of one only.
#[must_use]
pub fn current_account() -> Option<AccountId> {
    CURRENT.try_with(|caller| caller.account()).unwrap_or_default()
}

/// Runs a future as part of a caller's call.
pub async fn scope<F: Future>(caller: Arc<Caller>, future: F) -> F::Output {
    CURRENT.scope(caller, future).await
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use token::tests as token_tests;
