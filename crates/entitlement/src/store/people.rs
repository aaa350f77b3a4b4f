//! Users and their roles. A role has an end in its row: "who is it now" is asked at every call, and two
//! unique indexes keep one primary admin a team and one role a person.

use drawdown_entitlement_core::plan::{Held, Role};
use drawdown_types::{AccountId, TeamId, Timestamp, UserId};
use sqlx::PgConnection;

use super::Instant;
use crate::Error;

/// Where a role is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Team(TeamId),
    Account(AccountId),
}

impl Scope {
    /// The team, where it is one.
    pub(crate) const fn team_id(self) -> Option<TeamId> {
        match self {
            Self::Team(team_id) => Some(team_id),
            Self::Account(_) => None,
        }
    }

    const fn columns(self) -> (Option<uuid::Uuid>, Option<uuid::Uuid>) {
        match self {
            Self::Team(team_id) => (Some(team_id.as_uuid()), None),
            Self::Account(account_id) => (None, Some(account_id.as_uuid())),
        }
    }
}

pub(crate) const fn role_text(role: Role) -> &'static str {
    match role {
        Role::PrimaryAdmin => "primary_admin",
        Role::SecondaryAdmin => "secondary_admin",
        Role::Member => "member",
        Role::ContractManager => "contract_manager",
    }
}

pub(super) fn role_of(text: &str) -> Result<Role, Error> {
    match text {
        "primary_admin" => Ok(Role::PrimaryAdmin),
        "secondary_admin" => Ok(Role::SecondaryAdmin),
        "member" => Ok(Role::Member),
        "contract_manager" => Ok(Role::ContractManager),
        _ => Err(Error::stored("role", format!("{text:?} is none"))),
    }
}

/// Adds a user; false where somebody has the mail address.
pub(crate) async fn insert_user_in_tx(
    tx: &mut PgConnection,
    user_id: UserId,
    email: &str,
    name: &str,
) -> Result<bool, Error> {
    let done = sqlx::query!(
        "INSERT INTO entitlement.app_user (user_id, email, name) VALUES ($1, $2, $3)
         ON CONFLICT ((lower(email))) DO NOTHING",
        user_id.as_uuid(),
        email,
        name,
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(crate) async fn user_exists_in_tx(tx: &mut PgConnection, user_id: UserId) -> Result<bool, Error> {
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM entitlement.app_user WHERE user_id = $1) AS "found!""#,
        user_id.as_uuid(),
    )
    .fetch_one(tx)
    .await?;
    Ok(found)
}

/// What a person holds in a team or account now. The caller holds the lock of that team or account.
pub(crate) async fn held_in_tx(
    tx: &mut PgConnection,
    user_id: UserId,
    scope: Scope,
) -> Result<Option<Held>, Error> {
    let (team_id, account_id) = scope.columns();
    let row = sqlx::query!(
        "SELECT role, from_at FROM entitlement.role_history
         WHERE user_id = $1 AND to_at IS NULL AND (team_id = $2 OR account_id = $3)",
        user_id.as_uuid(),
        team_id,
        account_id,
    )
    .fetch_optional(tx)
    .await?;
    row.map(|row| Ok(Held { role: role_of(&row.role)?, from: row.from_at.0 })).transpose()
}

pub(crate) async fn primary_admin_in_tx(
    tx: &mut PgConnection,
    team_id: TeamId,
) -> Result<Option<UserId>, Error> {
    let found = sqlx::query_scalar!(
        "SELECT user_id FROM entitlement.role_history
         WHERE team_id = $1 AND role = 'primary_admin' AND to_at IS NULL",
        team_id.as_uuid(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(found.map(UserId::from_uuid))
}

pub(crate) async fn end_role_in_tx(
    tx: &mut PgConnection,
    user_id: UserId,
    scope: Scope,
    at: Timestamp,
) -> Result<(), Error> {
    let (team_id, account_id) = scope.columns();
    sqlx::query!(
        "UPDATE entitlement.role_history SET to_at = $4
         WHERE user_id = $1 AND to_at IS NULL AND (team_id = $2 OR account_id = $3)",
        user_id.as_uuid(),
        team_id,
        account_id,
        Instant(at),
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) async fn begin_role_in_tx(
    tx: &mut PgConnection,
    user_id: UserId,
    scope: Scope,
    role: Role,
    at: Timestamp,
) -> Result<(), Error> {
    let (team_id, account_id) = scope.columns();
    sqlx::query!(
        "INSERT INTO entitlement.role_history (user_id, team_id, account_id, role, from_at)
         VALUES ($1, $2, $3, $4, $5)",
        user_id.as_uuid(),
        team_id,
        account_id,
        role_text(role),
        Instant(at),
    )
    .execute(tx)
    .await?;
    Ok(())
}
