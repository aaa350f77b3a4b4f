//! SQL, and no rules: what to write is decided in `drawdown-entitlement-core`.
//!
//! Doctrine: functions ending in `_in_tx` run in the caller's transaction. Locks are taken in one
//! order: the row of the request id, then accounts by their ids, then the app, then its team. They are
//! `FOR NO KEY UPDATE`, so that a foreign key of somebody else's insert does not wait for them. What
//! a lock protects is read by a statement *after* the lock: waiting does not refresh the snapshot of
//! the statement that waited. Resolution takes no lock at all: it reads rows that are only ever added, or voided.
//!
//! What a caller of one account reads is read by [`Store::reader`]: a transaction of the role [`TENANT_ROLE`] with that
//! account set. Acts work as the service: whose they are about is checked before they begin.

mod accounts;
mod adoption;
mod apps;
mod census;
mod credentials;
mod directory;
mod history;
mod hubs;
mod imports;
mod installation;
mod instant;
mod members;
mod owners;
mod people;
mod pool;
mod principals;
mod records;
mod suspensions;
mod transfers;

use std::ops::{Deref, DerefMut};

use drawdown_service::identity;
use drawdown_types::{AccountId, Timestamp};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, Transaction, pool::PoolConnection};

pub(crate) use census::{
    Changed, KnownApp, Part, Position, apps_of_in_tx, changed_in_tx, holders_in_tx, known_accounts_in_tx,
    known_apps_in_tx, known_credentials_in_tx, known_links_in_tx, known_teams_in_tx, later_owners_in_tx,
    position_in_tx,
};
pub use installation::InstallationError;
pub(crate) use instant::Instant;
pub(crate) use pool::listener;
pub use pool::{PoolConfig, SERVICE_ROLE, TENANT_ROLE, owner, pool};

pub(crate) use accounts::{
    AccountRecord, TeamRecord, TrialEndRecord, account_in_tx, append_contract_in_tx, insert_account_in_tx,
    insert_team_in_tx, kind_text, set_commercial_in_tx, set_trial_in_tx, team_in_tx, teams_of_account_in_tx,
};
pub(crate) use adoption::{
    DueAdoption, adoption_begun_in_tx, first_team_in_tx, note_adoption_in_tx, renew_adoption_in_tx,
};
pub(crate) use apps::{
    AppListing, AppRecord, Owner, app_in_tx, append_assignment_in_tx, assignments_in_tx, insert_app_in_tx,
};
pub(crate) use credentials::{
    CredentialRecord, NewCredentialRow, append_revocation_in_tx, credential_in_tx, credentials_in_tx,
    insert_credential_in_tx, void_revocation_in_tx,
};
pub(crate) use directory::directory_in_tx;
pub(crate) use history::{
    AuditRecord, ChangeKind, ChangeRef, CredentialLink, MadeRecord, ScheduledCursor, ScheduledRecord,
    TeamRow, app_of_credential_in_tx, contract_makings_in_tx, credential_link_in_tx, making_in_tx,
    owner_makings_in_tx, scheduled_in_tx, team_rows_in_tx, trial_end_before_in_tx, void_assignments_in_tx,
    void_contract_in_tx,
};
pub(crate) use hubs::{
    HubRecord, Place, enter_hub_in_tx, hub_account_in_tx, insert_hub_in_tx, leave_hub_in_tx, place_in_tx,
};
pub(crate) use imports::{hold_imports_in_tx, taken_client_ids_in_tx, users_by_email_in_tx};
pub(crate) use members::{
    ProductRecord, RoleRecord, UserRecord, Whose, begin_product_in_tx, end_product_in_tx, product_in_tx,
    standing_in_tx,
};
pub(crate) use people::{
    Scope, begin_role_in_tx, end_role_in_tx, held_in_tx, insert_user_in_tx, primary_admin_in_tx, role_text,
    user_exists_in_tx,
};
pub(crate) use principals::{
    KeyRecord, PrincipalRecord, end_key_in_tx, end_principal_in_tx, good_keys_in_tx, insert_key_in_tx,
    insert_principal_in_tx, key_in_tx, principal_in_tx,
};
pub(crate) use records::{
    AuditEntry, Claim, Made, RequestKey, append_audit_in_tx, claim_in_tx, keep_answer_in_tx,
};
pub(crate) use suspensions::{
    SuspensionRecord, begin_suspension_in_tx, end_suspension_in_tx, suspension_in_tx,
};
pub(crate) use transfers::{
    TransferRecord, TransfersOf, append_owner_in_tx, begin_editor_in_tx, end_editor_in_tx,
    insert_transfer_in_tx, open_transfer_in_tx, transfer_in_tx, update_transfer_in_tx,
};

use crate::Error;

/// A transaction of an act.
pub(crate) type Tx = Transaction<'static, Postgres>;

/// The tables of this service.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pool: PgPool,
}

/// A connection for reading; nothing that it writes is kept.
#[derive(Debug)]
pub(crate) enum Reader {
    /// A connection; each statement is a transaction.
    Plain(PoolConnection<Postgres>),
    /// A transaction of a tenant, taken back when this is dropped.
    Within(Tx),
}

impl Deref for Reader {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Self::Plain(connection) => connection,
            Self::Within(tx) => tx,
        }
    }
}

impl DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Plain(connection) => connection,
            Self::Within(tx) => tx,
        }
    }
}

/// What begins a transaction of a tenant: the role and the account go with it. An account is a uuid, no text.
fn tenant(account_id: AccountId) -> String {
    let account = account_id.as_uuid();
    format!(
        "begin isolation level read committed; set local role {TENANT_ROLE}; set local drawdown.account = '{account}'"
    )
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

    /// A connection to read by: of everything, or of what is of the account that the caller in hand is of, so that the
    /// database itself shows it nothing else. Only a statement is one instant.
    pub(crate) async fn reader(&self) -> Result<Reader, Error> {
        Ok(match identity::current_account() {
            None => Reader::Plain(self.pool.acquire().await?),
            Some(account_id) => {
                Reader::Within(self.pool.begin_with(AssertSqlSafe(tenant(account_id))).await?)
            }
        })
    }

    /// The database's own present instant, for measuring the skew of the clock against it.
    pub(crate) async fn database_now(&self) -> Result<Timestamp, Error> {
        let now = sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(&self.pool).await?;
        Ok(now.0)
    }
}
