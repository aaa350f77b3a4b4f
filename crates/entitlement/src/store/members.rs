//! People as they are listed, their roles with their history, and product assignments (D27).

use drawdown_entitlement_core::plan::{Actor, Role, Standing};
use drawdown_types::{AccountId, TeamId, Timestamp, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Instant, Scope, Store, held_in_tx, people::role_of};
use crate::Error;

/// A person as stored.
#[derive(Clone, Debug)]
pub(crate) struct UserRecord {
    pub(crate) user_id: UserId,
    pub(crate) email: String,
    pub(crate) name: String,
}

/// A role in the history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoleRecord {
    pub(crate) role_id: i64,
    pub(crate) user_id: UserId,
    pub(crate) scope: Scope,
    pub(crate) role: Role,
    pub(crate) from: Timestamp,
    pub(crate) to: Option<Timestamp>,
}

/// A product assignment in the history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProductRecord {
    pub(crate) assignment_id: i64,
    pub(crate) team_id: TeamId,
    pub(crate) user_id: UserId,
    pub(crate) from: Timestamp,
    pub(crate) made_by: Actor,
    pub(crate) to: Option<Timestamp>,
}

/// Whose roles or assignments are listed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whose {
    User(UserId),
    Scope(Scope),
}

impl Whose {
    /// User, team and account, one of which is there.
    const fn columns(self) -> (Option<Uuid>, Option<Uuid>, Option<Uuid>) {
        match self {
            Self::User(user_id) => (Some(user_id.as_uuid()), None, None),
            Self::Scope(Scope::Team(team_id)) => (None, Some(team_id.as_uuid()), None),
            Self::Scope(Scope::Account(account_id)) => (None, None, Some(account_id.as_uuid())),
        }
    }
}

struct RoleRow {
    role_id: i64,
    user_id: Uuid,
    team_id: Option<Uuid>,
    account_id: Option<Uuid>,
    role: String,
    from_at: Instant,
    to_at: Option<Instant>,
}

impl TryFrom<RoleRow> for RoleRecord {
    type Error = Error;

    fn try_from(row: RoleRow) -> Result<Self, Error> {
        let scope = match (row.team_id, row.account_id) {
            (Some(team_id), _) => Scope::Team(TeamId::from_uuid(team_id)),
            (None, Some(account_id)) => Scope::Account(AccountId::from_uuid(account_id)),
            (None, None) => return Err(Error::stored("role", "of no team and no account")),
        };
        Ok(Self {
            role_id: row.role_id,
            user_id: UserId::from_uuid(row.user_id),
            scope,
            role: role_of(&row.role)?,
            from: row.from_at.0,
            to: row.to_at.map(|at| at.0),
        })
    }
}

struct ProductRow {
    assignment_id: i64,
    team_id: Uuid,
    user_id: Uuid,
    from_at: Instant,
    made_by: Option<Uuid>,
    to_at: Option<Instant>,
}

impl From<ProductRow> for ProductRecord {
    fn from(row: ProductRow) -> Self {
        Self {
            assignment_id: row.assignment_id,
            team_id: TeamId::from_uuid(row.team_id),
            user_id: UserId::from_uuid(row.user_id),
            from: row.from_at.0,
            made_by: row.made_by.map_or(Actor::Operator, |by| Actor::User(UserId::from_uuid(by))),
            to: row.to_at.map(|at| at.0),
        }
    }
}

/// The person who acts, as it is stored.
pub(super) const fn actor_column(actor: Actor) -> Option<Uuid> {
    match actor {
        Actor::Operator => None,
        Actor::User(user_id) => Some(user_id.as_uuid()),
    }
}

/// The product assignment that a person has of a team. The caller holds the lock of the team.
pub(crate) async fn product_in_tx(
    tx: &mut PgConnection,
    team_id: TeamId,
    user_id: UserId,
) -> Result<Option<ProductRecord>, Error> {
    let row = sqlx::query_as!(
        ProductRow,
        "SELECT assignment_id, team_id, user_id, from_at, made_by, to_at FROM entitlement.product_assignment
         WHERE team_id = $1 AND user_id = $2 AND to_at IS NULL",
        team_id.as_uuid(),
        user_id.as_uuid(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(ProductRecord::from))
}

/// What a person is to a team and its account.
pub(crate) async fn standing_in_tx(
    tx: &mut PgConnection,
    user_id: UserId,
    team_id: TeamId,
    account_id: AccountId,
) -> Result<Standing, Error> {
    let role = held_in_tx(tx, user_id, Scope::Team(team_id)).await?;
    let of_account = held_in_tx(tx, user_id, Scope::Account(account_id)).await?;
    let assigned = product_in_tx(tx, team_id, user_id).await?;
    Ok(Standing {
        role: role.map(|held| held.role),
        contract_manager: of_account.is_some(),
        assigned: assigned.is_some(),
    })
}

pub(crate) async fn begin_product_in_tx(
    tx: &mut PgConnection,
    (team_id, user_id): (TeamId, UserId),
    at: Timestamp,
    by: Actor,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO entitlement.product_assignment (team_id, user_id, from_at, made_by) VALUES ($1, $2, $3, $4)",
        team_id.as_uuid(),
        user_id.as_uuid(),
        Instant(at),
        actor_column(by),
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) async fn end_product_in_tx(
    tx: &mut PgConnection,
    assignment_id: i64,
    at: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE entitlement.product_assignment SET to_at = $2 WHERE assignment_id = $1",
        assignment_id,
        Instant(at),
    )
    .execute(tx)
    .await?;
    Ok(())
}

impl Store {
    /// One person.
    pub(crate) async fn user(&self, user_id: UserId) -> Result<Option<UserRecord>, Error> {
        let row = sqlx::query!(
            "SELECT user_id, email, name FROM entitlement.app_user WHERE user_id = $1",
            user_id.as_uuid(),
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| UserRecord {
            user_id: UserId::from_uuid(row.user_id),
            email: row.email,
            name: row.name,
        }))
    }

    /// Up to `rows` people after `after`, in the order of their ids.
    pub(crate) async fn users(&self, after: UserId, rows: i64) -> Result<Vec<UserRecord>, Error> {
        let rows = sqlx::query!(
            "SELECT user_id, email, name FROM entitlement.app_user WHERE user_id > $1 ORDER BY user_id LIMIT $2",
            after.as_uuid(),
            rows,
        )
        .fetch_all(&self.pool)
        .await?;
        let record = |row: Uuid, email, name| UserRecord { user_id: UserId::from_uuid(row), email, name };
        Ok(rows.into_iter().map(|row| record(row.user_id, row.email, row.name)).collect())
    }

    /// Up to `rows` roles after `after`, oldest first.
    pub(crate) async fn roles(
        &self,
        whose: Whose,
        with_ended: bool,
        after: i64,
        rows: i64,
    ) -> Result<Vec<RoleRecord>, Error> {
        let (user_id, team_id, account_id) = whose.columns();
        let rows = sqlx::query_as!(
            RoleRow,
            "SELECT role_id, user_id, team_id, account_id, role, from_at, to_at FROM entitlement.role_history
             WHERE (user_id = $1 OR team_id = $2 OR account_id = $3) AND (to_at IS NULL OR $4) AND role_id > $5
             ORDER BY role_id LIMIT $6",
            user_id,
            team_id,
            account_id,
            with_ended,
            after,
            rows,
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.into_iter().map(RoleRecord::try_from).collect()
    }

    /// Up to `rows` product assignments after `after`, oldest first.
    pub(crate) async fn products(
        &self,
        whose: Whose,
        with_ended: bool,
        after: i64,
        rows: i64,
    ) -> Result<Vec<ProductRecord>, Error> {
        let (user_id, team_id, _) = whose.columns();
        let rows = sqlx::query_as!(
            ProductRow,
            "SELECT assignment_id, team_id, user_id, from_at, made_by, to_at FROM entitlement.product_assignment
             WHERE (user_id = $1 OR team_id = $2) AND (to_at IS NULL OR $3) AND assignment_id > $4
             ORDER BY assignment_id LIMIT $5",
            user_id,
            team_id,
            with_ended,
            after,
            rows,
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        Ok(rows.into_iter().map(ProductRecord::from).collect())
    }
}
