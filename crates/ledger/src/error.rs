//! This service's outcomes: done, refused (the caller's to act on), or failed (ours to act on).
//!
//! A failure knows whether the same call may succeed later. Databases are classified by SQLSTATE and
//! kind, never by text.

use drawdown_service::Refusal;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request can not be done as it is; nothing was written.
    #[error("request refused: {}", .0.reason)]
    Refused(Box<Refusal>),
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
    /// A rule that should hold by construction does not.
    #[error("a rule was broken: {0}")]
    Broken(String),
    /// A peer could not be asked.
    #[error("{peer} can not be asked")]
    Peer {
        /// Who was asked.
        peer: &'static str,
        /// What it answered.
        #[source]
        source: Box<tonic::Status>,
    },
}

/// What the database answers when two writers locked rows in different orders. It must never happen:
/// all lock in one order.
const DEADLOCK: &str = "40P01";

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
            Self::Transient(_) | Self::Peer { .. } => true,
            Self::Refused(_) | Self::Permanent(_) | Self::Stored { .. } | Self::Broken(_) => false,
        }
    }

    /// Two writers locked rows in different orders: an alarm.
    #[must_use]
    pub fn is_deadlock(&self) -> bool {
        matches!(self, Self::Transient(source) if sqlstate(source).as_deref() == Some(DEADLOCK))
    }

    /// A stored value that can not be read.
    pub(crate) fn stored(
        what: &'static str,
    ) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Self {
        move |source| Self::Stored { what, source }
    }
}

fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned())
}

fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        other => sqlstate(other).is_some_and(|code| {
            code == IDLE_IN_TRANSACTION || TRANSIENT_CLASSES.iter().any(|class| code.starts_with(class))
        }),
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if is_transient(&error) { Self::Transient(error) } else { Self::Permanent(error) }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}
