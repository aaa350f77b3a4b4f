//! What a caller may be: roles, the services themselves, and whose things a caller may touch.

use std::{fmt, str::FromStr};

use drawdown_types::{AccountId, TeamId};

/// What a caller is trusted to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sends usage, asks for access, holds tokens, for the client ids of all accounts.
    Gateway,
    /// Reads balances, charges, statements and who pays.
    BillingReader,
    /// Acts for one team.
    TeamAdmin,
    /// Acts for one account.
    ContractManager,
    /// Runs the platform.
    Operator,
}

/// One of the services, which prove themselves by their certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Metering.
    Metering,
    /// The ledger.
    Ledger,
    /// Entitlement.
    Entitlement,
}

/// A set of roles.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Roles(u8);

/// A set of services.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Peers(u8);

/// Whose things a caller may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everybody's.
    Platform,
    /// Those of one account and of all its teams.
    Account(AccountId),
    /// Those of one team.
    Team {
        /// The account of the team.
        account_id: AccountId,
        /// The team.
        team_id: TeamId,
    },
}

/// A text that names no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of gateway, billing_reader, team_admin, contract_manager, operator")]
pub struct RoleError(String);

// === impl Role ===

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Gateway, Self::BillingReader, Self::TeamAdmin, Self::ContractManager, Self::Operator];

    /// As it is written in tokens, tables and on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::BillingReader => "billing_reader",
            Self::TeamAdmin => "team_admin",
            Self::ContractManager => "contract_manager",
            Self::Operator => "operator",
        }
    }

    const fn bit(self) -> u8 {
        1 << (self as u8)
    }

    /// Whether a caller of this scope can have the role: who acts for one account or team can not run the platform,
    /// and who runs the platform acts for no single account.
    #[must_use]
    pub const fn fits(self, scope: Scope) -> bool {
        match self {
            Self::Gateway | Self::Operator => matches!(scope, Scope::Platform),
            Self::BillingReader => true,
            Self::TeamAdmin => matches!(scope, Scope::Team { .. }),
            Self::ContractManager => matches!(scope, Scope::Account(_)),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or_else(|| RoleError(text.chars().take(64).collect()))
    }
}

// === impl Roles ===

impl Roles {
    /// No role.
    pub const NONE: Self = Self(0);

    /// These roles.
    #[must_use]
    pub const fn of(roles: &[Role]) -> Self {
        let mut bits = 0;
        let mut rest = roles;
        while let [first, others @ ..] = rest {
            bits |= first.bit();
            rest = others;
        }
        Self(bits)
    }

    /// The roles of both sets.
    #[must_use]
    pub const fn and(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// The roles that are in both sets.
    #[must_use]
    pub const fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// There is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The role is one of them.
    #[must_use]
    pub const fn has(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }

    /// One by one.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.has(*role))
    }

    /// The first role that a caller of `scope` can not have; `None` where all fit.
    #[must_use]
    pub fn misfit(self, scope: Scope) -> Option<Role> {
        self.iter().find(|role| !role.fits(scope))
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Self::NONE, |all, role| all.and(Self::of(&[role])))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Role::name)).finish()
    }
}

// === impl Peers ===

impl Peer {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Metering, Self::Ledger, Self::Entitlement];

    /// As it is written in certificates: `drawdown://NAME`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metering => "metering",
            Self::Ledger => "ledger",
            Self::Entitlement => "entitlement",
        }
    }
}

impl Peers {
    /// No service.
    pub const NONE: Self = Self(0);

    /// These services.
    #[must_use]
    pub const fn of(peers: &[Peer]) -> Self {
        let mut bits = 0;
        let mut rest = peers;
        while let [first, others @ ..] = rest {
            bits |= 1 << (*first as u8);
            rest = others;
        }
        Self(bits)
    }

    /// The service is one of them.
    #[must_use]
    pub const fn has(self, peer: Peer) -> bool {
        self.0 & (1 << (peer as u8)) != 0
    }

    /// One by one.
    pub fn iter(self) -> impl Iterator<Item = Peer> {
        Peer::ALL.into_iter().filter(move |peer| self.has(*peer))
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Peer::name)).finish()
    }
}

// === impl Scope ===

impl Scope {
    /// The one account; `None` for the platform.
    #[must_use]
    pub const fn account(self) -> Option<AccountId> {
        match self {
            Self::Platform => None,
            Self::Account(account_id) | Self::Team { account_id, .. } => Some(account_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        for bits in 0..(1_u8 << Role::ALL.len()) {
            let roles: Roles =
                Role::ALL.into_iter().filter(|role| bits & (1 << (*role as u8)) != 0).collect();
            for role in Role::ALL {
                assert_eq!(roles.has(role), bits & (1 << (role as u8)) != 0, "{roles:?} {role}");
            }
            assert_eq!(roles.iter().collect::<Roles>(), roles);
        }
    }

    #[test]
    fn names_read_back() {
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
        }
        assert!("Operator".parse::<Role>().is_err());
    }

    #[test]
    fn roles_of_the_platform_and_of_tenants_do_not_mix() {
        let account_id = AccountId::generate();
        let team = Scope::Team { account_id, team_id: TeamId::generate() };
        let fits = |scope| Role::ALL.into_iter().filter(|role| role.fits(scope)).collect::<Roles>();
        assert_eq!(fits(Scope::Platform), Roles::of(&[Role::Gateway, Role::BillingReader, Role::Operator]));
        assert_eq!(
            fits(Scope::Account(account_id)),
            Roles::of(&[Role::BillingReader, Role::ContractManager])
        );
        assert_eq!(fits(team), Roles::of(&[Role::BillingReader, Role::TeamAdmin]));
    }
}
