//! Giving a person a role in a team or an account.
//!
//! A role is access, not money: it takes effect at once, not at an edge. A person has one role in a
//! team at a time; the role before it ends where the new one begins and stays in the history.

use drawdown_types::{Timestamp, UserId};

/// What a person may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The one primary admin of a team.
    PrimaryAdmin,
    /// Another admin of a team.
    SecondaryAdmin,
    /// A member of a team.
    Member,
    /// A contract manager of an account.
    ContractManager,
}

/// A role that somebody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The role.
    pub role: Role,
    /// Since when.
    pub from: Timestamp,
}

/// What is known, read under the lock of the team or account.
#[derive(Clone, Copy, Debug)]
pub struct RoleFacts {
    /// The present instant.
    pub now: Timestamp,
    /// Who gets the role.
    pub user_id: UserId,
    /// What they hold there now.
    pub held: Option<Held>,
    /// The primary admin of the team.
    pub primary_admin: Option<UserId>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolePlan {
    /// Nothing: they hold it.
    Unchanged {
        /// Since when.
        from: Timestamp,
    },
    /// End the role they hold, where there is one, and begin this one.
    Begin {
        /// Something ends.
        ends_held: bool,
        /// When both happens.
        at: Timestamp,
    },
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoleRefusal {
    /// Somebody else is: they get another role first, so that nobody loses theirs by surprise.
    #[error("the team has another primary admin, {0}")]
    PrimaryAdminTaken(UserId),
}

/// Plans that a person gets `role`.
///
/// # Errors
/// [`RoleRefusal`].
pub fn plan_role(facts: RoleFacts, role: Role) -> Result<RolePlan, RoleRefusal> {
    if let Some(held) = facts.held.filter(|held| held.role == role) {
        return Ok(RolePlan::Unchanged { from: held.from });
    }
    match facts.primary_admin {
        Some(other) if role == Role::PrimaryAdmin && other != facts.user_id => {
            Err(RoleRefusal::PrimaryAdminTaken(other))
        }
        // an instant read before a lock was free may lie before the link that it waited for
        _ => {
            let at = facts.held.map_or(facts.now, |held| held.from.max(facts.now));
            Ok(RolePlan::Begin { ends_held: facts.held.is_some(), at })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_primary_admin_a_team_and_one_role_a_person() {
        let at = |secs| Timestamp::from_secs(secs).unwrap();
        let (user_id, other) = (UserId::generate(), UserId::generate());
        let held = |role| Some(Held { role, from: at(10) });
        let begin = |ends_held| Ok(RolePlan::Begin { ends_held, at: at(20) });
        for (held, primary_admin, role, plan) in [
            (None, None, Role::PrimaryAdmin, begin(false)),
            (None, Some(other), Role::PrimaryAdmin, Err(RoleRefusal::PrimaryAdminTaken(other))),
            (None, Some(other), Role::SecondaryAdmin, begin(false)),
            (held(Role::Member), None, Role::PrimaryAdmin, begin(true)),
            (held(Role::PrimaryAdmin), Some(user_id), Role::Member, begin(true)),
            (
                held(Role::PrimaryAdmin),
                Some(user_id),
                Role::PrimaryAdmin,
                Ok(RolePlan::Unchanged { from: at(10) }),
            ),
        ] {
            let facts = RoleFacts { now: at(20), user_id, held, primary_admin };
            assert_eq!(plan_role(facts, role), plan, "{held:?} {role:?}");
        }
    }
}
