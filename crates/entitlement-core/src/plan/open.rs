//! Opening accounts and teams, now or with their original instants (D61).
//!
//! Neither changes the answer for any window: nothing is linked to them yet. So no usage is asked for.

use drawdown_types::Timestamp;

use crate::Rules;

/// A new account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewAccount {
    /// When it was opened.
    pub created_at: Timestamp,
    /// The edge from which on its contract holds: rounded down, so that its first window is whole.
    pub contract_from: Timestamp,
    /// The edge from which on it is commercial, where it has no trial.
    pub commercial_from: Option<Timestamp>,
}

/// A new team.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewTeam {
    /// When it was made.
    pub created_at: Timestamp,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenRefusal {
    /// The instant lies ahead.
    #[error("the instant {at} lies in the future")]
    InFuture {
        /// The instant given.
        at: Timestamp,
    },
    /// A team before its account.
    #[error("the instant {at} lies before the account was opened at {opened_at}")]
    BeforeAccount {
        /// The instant given.
        at: Timestamp,
        /// When the account was opened.
        opened_at: Timestamp,
    },
}

/// Plans an account that was opened at `created_at`, or is opened now.
///
/// # Errors
/// [`OpenRefusal::InFuture`].
pub fn plan_account(
    now: Timestamp,
    created_at: Option<Timestamp>,
    commercial: bool,
    rules: &Rules,
) -> Result<NewAccount, OpenRefusal> {
    let created_at = created_at.unwrap_or(now);
    if created_at > now {
        return Err(OpenRefusal::InFuture { at: created_at });
    }
    let contract_from = rules.window.floor(created_at);
    let commercial_from = commercial.then_some(contract_from);
    Ok(NewAccount { created_at, contract_from, commercial_from })
}

/// Plans a team that was made at `created_at`, or is made now.
///
/// # Errors
/// [`OpenRefusal`].
pub fn plan_team(
    now: Timestamp,
    account_created_at: Timestamp,
    created_at: Option<Timestamp>,
) -> Result<NewTeam, OpenRefusal> {
    let created_at = created_at.unwrap_or(now);
    if created_at > now {
        return Err(OpenRefusal::InFuture { at: created_at });
    }
    if created_at < account_created_at {
        return Err(OpenRefusal::BeforeAccount { at: created_at, opened_at: account_created_at });
    }
    Ok(NewTeam { created_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(1_767_268_800 + seconds).unwrap()
    }

    #[test]
    fn accounts_open_now_or_in_the_past() {
        let rules = Rules::default();
        let opened = |created_at, contract_from, commercial_from| {
            Ok(NewAccount { created_at: at(created_at), contract_from: at(contract_from), commercial_from })
        };
        assert_eq!(plan_account(at(90), None, false, &rules), opened(90, 60, None));
        assert_eq!(plan_account(at(90), Some(at(59)), true, &rules), opened(59, 0, Some(at(0))));
        assert_eq!(
            plan_account(at(90), Some(at(91)), true, &rules),
            Err(OpenRefusal::InFuture { at: at(91) })
        );
    }

    #[test]
    fn teams_are_not_older_than_their_account() {
        assert_eq!(plan_team(at(90), at(0), None), Ok(NewTeam { created_at: at(90) }));
        assert_eq!(plan_team(at(90), at(0), Some(at(0))), Ok(NewTeam { created_at: at(0) }));
        assert_eq!(plan_team(at(90), at(0), Some(at(91))), Err(OpenRefusal::InFuture { at: at(91) }));
        let before = plan_team(at(90), at(0), Some(at(-1)));
        assert_eq!(before, Err(OpenRefusal::BeforeAccount { at: at(-1), opened_at: at(0) }));
    }
}
