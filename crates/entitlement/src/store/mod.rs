//! SQL, and no rules: what to write is decided in `drawdown-entitlement-core`.
//!
//! Doctrine: functions ending in `_in_tx` run in the caller's transaction. Locks are taken in one
//! order: the row of the request id, then the account, then the team or the app. They are
//! `FOR NO KEY UPDATE`, so that a foreign key of somebody else's insert does not wait for them. What
//! a lock protects is read by a statement *after* the lock: waiting does not refresh the snapshot of
//! the statement that waited. Resolution takes no lock at all: it reads rows that are only ever added.

mod accounts;
mod adoption;
mod apps;
mod directory;
mod installation;
mod instant;
mod people;
mod pool;
mod records;

use drawdown_types::Timestamp;
use sqlx::{PgPool, Postgres, Transaction};

pub use installation::InstallationError;
pub(crate) use instant::Instant;
pub use pool::{PoolConfig, SERVICE_ROLE, owner, pool};

pub(crate) use accounts::{
    AccountRecord, TeamRecord, account_in_tx, insert_account_in_tx, insert_team_in_tx, kind_text,
    set_trial_in_tx, team_in_tx,
};
pub(crate) use adoption::{DueAdoption, first_team_in_tx, note_adoption_in_tx};
pub(crate) use apps::{
    AppListing, NewCredentialRow, app_in_tx, append_assignment_in_tx, assignments_in_tx, credentials_in_tx,
    insert_app_in_tx, insert_credential_in_tx,
};
pub(crate) use people::{
    Scope, begin_role_in_tx, end_role_in_tx, held_in_tx, insert_user_in_tx, primary_admin_in_tx, role_text,
    user_exists_in_tx,
};
pub(crate) use records::{AuditEntry, Claim, RequestKey, append_audit_in_tx, claim_in_tx, keep_answer_in_tx};

use crate::Error;

/// A transaction of an act.
pub(crate) type Tx = Transaction<'static, Postgres>;

/// The tables of this service.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pool: PgPool,
}

/// Whether a row is read to be looked at, or to be held until the act is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Only read.
    No,
    /// Held.
    Held,
}

impl Store {
    pub(crate) const fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Begins a transaction. Dropping it takes everything back.
    pub(crate) async fn begin(&self) -> Result<Tx, Error> {
        Ok(self.pool.begin().await?)
    }

    /// The database's own present instant, for measuring the skew of the clock against it.
    pub(crate) async fn database_now(&self) -> Result<Timestamp, Error> {
        let now = sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(&self.pool).await?;
        Ok(now.0)
    }
}
