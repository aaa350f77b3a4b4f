//! Who may use the tokens of a team for the apps that they own (D27).
//!
//! A buyer may: an admin of the team, or a contract manager of its account. Everybody else needs a product
//! assignment, made by an admin of the team for somebody who has a role in it. It is access, not money: it acts at
//! once.

use std::fmt;

use drawdown_types::{Timestamp, UserId};

use super::Role;

/// Who acts: the person whom the request names, who is the one that the caller acts for where it acts for one; else the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// The platform's operator.
    Operator,
    /// A person.
    User(UserId),
}

/// What a person is to a team and its account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Their role in the team.
    pub role: Option<Role>,
    /// They are a contract manager of the account.
    pub contract_manager: bool,
    /// They have a product assignment of the team.
    pub assigned: bool,
}

/// What is known, read under the lock of the team.
#[derive(Clone, Copy, Debug)]
pub struct ProductFacts {
    /// The present instant.
    pub now: Timestamp,
    /// Who acts.
    pub actor: Actor,
    /// What the actor is to the team, where it is a person.
    pub actor_standing: Standing,
    /// The role that the person concerned has in the team.
    pub role: Option<Role>,
    /// Since when that person has a product assignment.
    pub held_since: Option<Timestamp>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProductPlan {
    /// Nothing: it is so already.
    Unchanged,
    /// Write it, at this instant.
    Write {
        /// When.
        at: Timestamp,
    },
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProductRefusal {
    /// Only admins of the team assign.
    #[error("{0} is no admin of the team")]
    NotAdmin(UserId),
    /// The person has no role in the team.
    #[error("the person has no role in the team")]
    NotOfTeam,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("operator"),
            Self::User(user_id) => user_id.fmt(f),
        }
    }
}

// === impl Standing ===

impl Standing {
    /// An admin of the team.
    #[must_use]
    pub const fn is_admin(&self) -> bool {
        matches!(self.role, Some(Role::PrimaryAdmin | Role::SecondaryAdmin))
    }

    /// Whether charged calls of an app that the person owns may use the tokens of the team.
    #[must_use]
    pub const fn may_use_tokens(&self) -> bool {
        self.is_admin() || self.contract_manager || self.assigned
    }
}

impl ProductFacts {
    fn check_actor(&self) -> Result<(), ProductRefusal> {
        match self.actor {
            Actor::User(user_id) if !self.actor_standing.is_admin() => Err(ProductRefusal::NotAdmin(user_id)),
            Actor::User(_) | Actor::Operator => Ok(()),
        }
    }
}

/// Plans that a person gets a product assignment.
///
/// # Errors
/// [`ProductRefusal`].
pub fn plan_product(facts: ProductFacts) -> Result<ProductPlan, ProductRefusal> {
    facts.check_actor()?;
    if facts.held_since.is_some() {
        return Ok(ProductPlan::Unchanged);
    }
    if facts.role.is_none() {
        return Err(ProductRefusal::NotOfTeam);
    }
    Ok(ProductPlan::Write { at: facts.now })
}

/// Plans that the product assignment of a person ends.
///
/// # Errors
/// [`ProductRefusal::NotAdmin`].
pub fn plan_product_end(facts: ProductFacts) -> Result<ProductPlan, ProductRefusal> {
    facts.check_actor()?;
    // an instant read before a lock was free may lie before the assignment that it waited for
    Ok(facts
        .held_since
        .map_or(ProductPlan::Unchanged, |since| ProductPlan::Write { at: facts.now.max(since) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(role: Option<Role>) -> Standing {
        Standing { role, ..Standing::default() }
    }

    #[test]
    fn d27_buyers_may_and_others_need_an_assignment() {
        for (role, contract_manager, assigned, may) in [
            (Some(Role::PrimaryAdmin), false, false, true),
            (Some(Role::SecondaryAdmin), false, false, true),
            (Some(Role::Member), false, false, false),
            (Some(Role::Member), false, true, true),
            (None, true, false, true),
            (None, false, false, false),
        ] {
            let standing = Standing { role, contract_manager, assigned };
            assert_eq!(standing.may_use_tokens(), may, "{standing:?}");
        }
    }

    #[test]
    fn admins_of_the_team_and_the_operator_assign_to_people_of_the_team() {
        let at = |secs| Timestamp::from_secs(secs).unwrap();
        let user = UserId::generate();
        let person = Actor::User(user);
        let (not_admin, write) = (Err(ProductRefusal::NotAdmin(user)), Ok(ProductPlan::Write { at: at(20) }));
        for (actor, acts_as, role, held, begins, ends) in [
            (Actor::Operator, None, Some(Role::Member), None, write, Ok(ProductPlan::Unchanged)),
            (person, Some(Role::SecondaryAdmin), Some(Role::Member), None, write, Ok(ProductPlan::Unchanged)),
            (person, Some(Role::Member), Some(Role::Member), None, not_admin, not_admin),
            (person, None, Some(Role::Member), Some(10), not_admin, not_admin),
            (Actor::Operator, None, Some(Role::Member), Some(10), Ok(ProductPlan::Unchanged), write),
            (Actor::Operator, None, None, None, Err(ProductRefusal::NotOfTeam), Ok(ProductPlan::Unchanged)),
            (
                Actor::Operator,
                None,
                None,
                Some(30),
                Ok(ProductPlan::Unchanged),
                Ok(ProductPlan::Write { at: at(30) }),
            ),
        ] {
            let facts = ProductFacts {
                now: at(20),
                actor,
                actor_standing: standing(acts_as),
                role,
                held_since: held.map(at),
            };
            assert_eq!(plan_product(facts), begins, "{facts:?}");
            assert_eq!(plan_product_end(facts), ends, "{facts:?}");
        }
    }
}
