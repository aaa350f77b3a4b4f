//! Levels of access and the reasons of an answer.

/// Where a team stands (D21).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// The account is in its trial.
    Trial,
    /// Not below zero.
    Full,
    /// Below zero, and the deadline is ahead.
    Grace,
    /// Below zero, and without grace.
    Limited,
    /// By the operator.
    Suspended,
}

/// Why an answer is as it is. Those that refuse stand in order of weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    /// No credential has this client id.
    ClientUnknown,
    /// The credential is revoked.
    ClientRevoked,
    /// The account is suspended (D56).
    AccountSuspended,
    /// The team is suspended (D56).
    TeamSuspended,
    /// The app is outside of the hubs of its account (D29).
    AppArchived,
    /// The catalogue has no such meter.
    MeterNotKnown,
    /// The app has no team, and the use would be charged (D25).
    TeamMissing,
    /// The app's owner may not use the tokens of the team (D27).
    ProductMissing,
    /// Below zero, and the grace is over (D21).
    GraceOver,
    /// Below zero, and another team of the account is past its deadline (D48).
    AccountWithoutGrace,
    /// More is owed than the debt limit (D48).
    DebtLimitPassed,
    /// The meter is hard, and the balance can not cover the use (D6).
    BalanceTooLow,
    /// The meter is free-tier only, and the use is above the quota (D16).
    FreeQuotaUsedUp,
    /// A hard budget of the app has reached its cap (D59).
    AppBudgetReached,
    /// A hard budget of the team has reached its cap (D59).
    TeamBudgetReached,
    /// A hard budget of the account has reached its cap (D59).
    AccountBudgetReached,
    /// The policy for data that is too old (D58).
    RefusedWhileStale,
    /// Allowed: the account is in its trial (D20).
    InTrial,
    /// Allowed: nothing is in the way.
    InFull,
    /// Allowed: below zero, before the deadline.
    InGrace,
    /// Allowed: the use costs nothing, where charged use would be refused or is not known to be allowed.
    FreeOfCharge,
    /// Allowed: by the policy for data that is too old (D58).
    AllowedWhileStale,
}

/// A set of reasons, in order of weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reasons(u32);

impl Reason {
    /// All of them, those that refuse first.
    pub const ALL: [Self; 22] = [
        Self::ClientUnknown,
        Self::ClientRevoked,
        Self::AccountSuspended,
        Self::TeamSuspended,
        Self::AppArchived,
        Self::MeterNotKnown,
        Self::TeamMissing,
        Self::ProductMissing,
        Self::GraceOver,
        Self::AccountWithoutGrace,
        Self::DebtLimitPassed,
        Self::BalanceTooLow,
        Self::FreeQuotaUsedUp,
        Self::AppBudgetReached,
        Self::TeamBudgetReached,
        Self::AccountBudgetReached,
        Self::RefusedWhileStale,
        Self::InTrial,
        Self::InFull,
        Self::InGrace,
        Self::FreeOfCharge,
        Self::AllowedWhileStale,
    ];

    const fn bit(self) -> u32 {
        1_u32.wrapping_shl(self as u32)
    }

    /// Its place in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl Reasons {
    /// None.
    pub const NONE: Self = Self(0);

    /// With one more, if `condition` holds.
    pub(super) const fn add_if(&mut self, condition: bool, reason: Reason) {
        if condition {
            self.0 |= reason.bit();
        }
    }

    /// Those of both.
    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// There is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it has this one.
    #[must_use]
    pub const fn contains(self, reason: Reason) -> bool {
        self.0 & reason.bit() != 0
    }

    /// The one of most weight.
    #[must_use]
    pub fn first(self) -> Option<Reason> {
        let index = usize::try_from(self.0.trailing_zeros()).ok()?;
        Reason::ALL.get(index).copied()
    }

    /// All, in order of weight.
    pub fn iter(self) -> impl Iterator<Item = Reason> {
        std::iter::successors(Some(self.0), |rest| Some(rest & rest.wrapping_sub(1)))
            .map_while(|rest| Self(rest).first())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_gives_its_reasons_in_order_of_weight() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
        }
        let mut reasons = Reasons::NONE;
        assert_eq!((reasons.first(), reasons.iter().count(), reasons.is_empty()), (None, 0, true));
        for reason in [Reason::RefusedWhileStale, Reason::TeamSuspended, Reason::GraceOver] {
            reasons.add_if(true, reason);
        }
        reasons.add_if(false, Reason::ClientUnknown);
        let expected = [Reason::TeamSuspended, Reason::GraceOver, Reason::RefusedWhileStale];
        assert_eq!(reasons.iter().collect::<Vec<_>>(), expected);
        assert!(reasons.contains(Reason::GraceOver) && !reasons.contains(Reason::ClientUnknown));
    }
}
