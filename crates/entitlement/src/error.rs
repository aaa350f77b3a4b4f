//! This service's outcomes: done, refused (the caller's to act on), or failed (ours to act on).
//!
//! A failure knows whether the same call may succeed later. Databases are classified by SQLSTATE,
//! never by text.

use drawdown_entitlement_core::plan::{
    AccountRefusal, AssignRefusal, CorrectionRefusal, CredentialRefusal, OpenRefusal, ProductRefusal,
    RevocationRefusal, RoleRefusal, TooLate, TransferRefusal,
};
use drawdown_service::identity::Role;
use drawdown_types::{AccountId, AppId, CredentialId, HubId, KeyId, PrincipalId, TeamId, TransferId, UserId};

/// Why an admin act was refused. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such account.
    #[error("there is no account {0}")]
    AccountNotFound(AccountId),
    /// No ledger is known for the cell.
    #[error("cell {0} is not known")]
    CellUnknown(u8),
    /// There is no such team.
    #[error("there is no team {0}")]
    TeamNotFound(TeamId),
    /// There is no such user.
    #[error("there is no user {0}")]
    UserNotFound(UserId),
    /// There is no such app.
    #[error("there is no app {0}")]
    AppNotFound(AppId),
    /// There is no such credential.
    #[error("there is no credential {0}")]
    CredentialNotFound(CredentialId),
    /// There is no such hub.
    #[error("there is no hub {0}")]
    HubNotFound(HubId),
    /// The hub is of another account than the app.
    #[error("hub {0} belongs to another account")]
    HubOfOtherAccount(HubId),
    /// Nothing of that id is scheduled.
    #[error("no such change is scheduled")]
    ChangeNotFound,
    /// What only an operator does: entering a past (D61), and taking back what only an operator schedules.
    #[error("only an operator may {what}")]
    OperatorNeeded {
        /// What the caller may not do.
        what: &'static str,
        /// The field of the request that asks for it.
        field: &'static str,
    },
    /// A transfer is not taken back in parts.
    #[error("the change is of a confirmed transfer")]
    ChangeOfTransfer,
    /// It takes effect too soon.
    #[error(transparent)]
    TooLate(#[from] TooLate),
    /// A past can not be corrected so.
    #[error(transparent)]
    Correction(#[from] CorrectionRefusal),
    /// There is no such transfer.
    #[error("there is no transfer {0}")]
    TransferNotFound(TransferId),
    /// What is revoked is not replaced.
    #[error("credential {0} is revoked")]
    CredentialRevoked(CredentialId),
    /// Another user has the mail address.
    #[error("another user has this mail address")]
    EmailTaken,
    /// The request id was used for other content.
    #[error("the request id was used before, for other content")]
    RequestIdReused,
    /// An account or a team can not be opened so.
    #[error(transparent)]
    Open(#[from] OpenRefusal),
    /// An app can not be assigned so.
    #[error(transparent)]
    Assign(#[from] AssignRefusal),
    /// A credential can not be made so.
    #[error(transparent)]
    Credential(#[from] CredentialRefusal),
    /// A role can not be given so.
    #[error(transparent)]
    Role(#[from] RoleRefusal),
    /// A product can not be assigned so.
    #[error(transparent)]
    Product(#[from] ProductRefusal),
    /// An app can not be handed over so.
    #[error(transparent)]
    Transfer(#[from] TransferRefusal),
    /// A trial or a contract can not be changed so.
    #[error(transparent)]
    Account(#[from] AccountRefusal),
    /// A credential can not be revoked so.
    #[error(transparent)]
    Revocation(#[from] RevocationRefusal),
    /// What is imported does not fit.
    #[error("{} places of the import do not fit", .0.len())]
    Import(Vec<Unfit>),
    /// The buyer has to name a team.
    #[error("the account has several teams: name one of them")]
    TeamNotNamed,
    /// The team is of another account.
    #[error("team {0} belongs to another account")]
    TeamNotOfAccount(TeamId),
    /// Nothing is bought in a trial.
    #[error("the account is in its trial: end it before buying")]
    TrialActive,
    /// There is no such principal.
    #[error("there is no principal {0}")]
    PrincipalNotFound(PrincipalId),
    /// The principal ended.
    #[error("principal {0} ended")]
    PrincipalEnded(PrincipalId),
    /// The role is none of a principal of this account or team, or of none.
    #[error("a principal of this scope can not be {0}")]
    RoleMisfit(Role),
    /// There is no such key.
    #[error("there is no key {0}")]
    KeyNotFound(KeyId),
    /// The key is no good any more.
    #[error("key {0} is revoked or expired")]
    KeyRevoked(KeyId),
    /// Two keys are good at once at most.
    #[error("principal {0} has two keys that are good")]
    KeysTooMany(PrincipalId),
    /// An end lies in the past.
    #[error("the instant lies in the past")]
    InstantInPast,
}

/// A place of an import that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// The path of the field.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request can not be done as it is; nothing was written.
    #[error("request refused")]
    Refused(#[source] Refused),
    /// The database does not answer now, or another writer was in the way for too long.
    #[error("database can not answer at the moment")]
    Transient(#[source] sqlx::Error),
    /// The database refused a statement: a fault of this program or of its data.
    #[error("database refused a statement")]
    Permanent(#[source] sqlx::Error),
    /// A stored value that no rule allows.
    #[error("stored {what} can not be read")]
    Stored {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The ledger could not say whether usage is settled.
    #[error("the ledger can not be asked for settled usage")]
    Ledger(#[source] Box<tonic::Status>),
    /// Others were in the way as often as an act is tried.
    #[error("the act was overtaken {attempts} times")]
    Overtaken {
        /// How often it was tried.
        attempts: usize,
    },
}

/// SQLSTATE classes after which the same transaction may succeed: lost connections, lost races, no
/// resources, not now, shutting down.
const TRANSIENT_CLASSES: [&str; 6] = ["08", "40", "53", "55", "57", "58"];
/// The connection was idle inside a transaction for too long.
const IDLE_IN_TRANSACTION: &str = "25P03";

// === impl Error ===

impl Error {
    /// The same call may succeed later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Transient(_) | Self::Ledger(_) | Self::Overtaken { .. } => true,
            Self::Refused(_) | Self::Permanent(_) | Self::Stored { .. } => false,
        }
    }

    /// A stored value that can not be read.
    pub(crate) fn stored(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Stored { what, source: source.into() }
    }
}

impl<R: Into<Refused>> From<R> for Error {
    fn from(refused: R) -> Self {
        Self::Refused(refused.into())
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let transient = match &error {
            sqlx::Error::Database(database) => database.code().is_some_and(|code| {
                code == IDLE_IN_TRANSACTION || TRANSIENT_CLASSES.iter().any(|class| code.starts_with(class))
            }),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            _ => false,
        };
        if transient { Self::Transient(error) } else { Self::Permanent(error) }
    }
}
